/* The server's side of exec and attach. Port-forward: portforward.c; clients: remotecommand_client.c. */
#include "net/remotecommand.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <openssl/evp.h>

#include "net/internal.h"
#include "net/rc_internal.h"
#include "net/spdy.h"
#include "net/websocket.h"

#define STREAMS_WAIT_MS 30000
#define LINGER_MS 3000
#define SETTLE_MS 15
#define STDIN_MAX (64u << 10)
#define RESIZES_MAX 16
#define WS_MESSAGE_MAX (1u << 20)
#define RESIZE_MAX 4096

enum { CH_IN, CH_OUT, CH_ERR, CH_ERROR, CH_RESIZE, CHANNELS, CH_CLOSE = 255 };

struct session;
struct ws_channel { /* one direction of a WebSocket channel as a stream */
	struct stream s;
	struct session *k;
	int channel;
};

struct session {
	struct rc_session pub; /* first */
	int version;           /* of the channel protocol: 1 to 5 */
	/* SPDY */
	struct spdy *spdy;
	struct spdy_stream *st[CHANNELS];
	struct buf resize;     /* JSON not yet whole */
	/* WebSocket */
	struct websocket *ws;
	bool base64, gone;
	int64_t since;         /* when the client was told that the connection stands */
	struct fiber *reader;
	struct bytes_queue in;
	struct ws_channel ch[3];
	struct {
		uint16_t w, h;
	} sizes[RESIZES_MAX];
	unsigned n_sizes;
	struct waitq q;
	struct stream *bottom;
};

/* ---- query ---- */

static bool flag(struct arena *a, struct str query, const char *name, const char *other)
{
	struct str v = http_query_get(a, query, name, NULL);

	if (!v.p)
		v = http_query_get(a, query, other, NULL);
	bool on = false;

	str_to_bool(v, &on);
	return on;
}

struct error *rc_opts_from_query(struct arena *a, struct str query, struct rc_opts *o)
{
	o->in = flag(a, query, "stdin", "input");
	o->out = flag(a, query, "stdout", "output");
	o->err = flag(a, query, "stderr", "error");
	o->tty = flag(a, query, "tty", "tty");
	if (o->tty)
		o->err = false;
	if (!o->in && !o->out && !o->err)
		return error_status(400, "BadRequest", "you must specify at least 1 of stdin, stdout, stderr");
	return NULL;
}

/* ---- resize messages ---- */

static bool number_behind(struct str json, const char *key, uint16_t *out)
{
	ptrdiff_t at = -1;
	size_t n = strlen(key);

	for (size_t i = 0; i + n <= json.n && at < 0; i++)
		if (str_eq_nocase(str_sub(json, i, i + n), str_of(key, n)))
			at = (ptrdiff_t)(i + n);
	if (at < 0)
		return false;
	struct str rest = str_trim(str_sub(json, (size_t)at, json.n));
	uint64_t v;
	size_t digits = 0;

	if (!rest.n || rest.p[0] != ':')
		return false;
	rest = str_trim(str_sub(rest, 1, rest.n));
	while (digits < rest.n && rest.p[digits] >= '0' && rest.p[digits] <= '9')
		digits++;
	if (!str_to_u64(str_sub(rest, 0, digits), &v) || v > 65535)
		return false;
	*out = (uint16_t)v;
	return true;
}

bool rc_parse_size(struct str json, uint16_t *w, uint16_t *h)
{
	return number_behind(json, "\"width\"", w) && number_behind(json, "\"height\"", h);
}

/* ---- WebSocket ---- */

struct error *rc_ws_write64(struct websocket *w, const char head[1], const char *p, size_t n)
{
	char *b = xmalloc(4 * ((n + 2) / 3) + 1);
	int m = EVP_EncodeBlock((unsigned char *)b, (const unsigned char *)p, (int)n);
	struct error *e = ws_write(w, WS_TEXT, str_of(head, 1), str_of(b, (size_t)m));

	free(b);
	return e;
}

bool rc_decode64(struct str s, struct buf *out)
{
	size_t pad = 0;

	out->n = 0;
	if (s.n % 4)
		return false;
	while (pad < s.n && pad < 3 && s.p[s.n - 1 - pad] == '=')
		pad++;
	buf_reserve(out, s.n + 1);
	int n = EVP_DecodeBlock((unsigned char *)out->p, (const unsigned char *)s.p, (int)s.n);

	if (pad > 2 || n < (int)pad)
		return false;
	out->n = (size_t)n - pad;
	return true;
}

static struct error *send_channel(struct session *k, int channel, const char *p, size_t n)
{
	char head[1] = {(char)(k->base64 ? '0' + channel : channel)};
	int64_t early = k->since + SETTLE_MS - now_ms();

	/* client-go reads before it has made its channels, and throws away what comes meanwhile: output must not be too quick. */
	if (early > 0)
		TRY(fiber_sleep(early));
	if (!k->base64)
		return ws_write(k->ws, WS_BINARY, str_of(head, 1), str_of(p, n));
	return rc_ws_write64(k->ws, head, p, n);
}

static struct error *wsc_read(struct stream *s, void *p, size_t n, size_t *got)
{
	struct ws_channel *c = (struct ws_channel *)s;

	assert(c->channel == CH_IN);
	return bq_get(&c->k->in, p, n, got);
}

static struct error *wsc_writev(struct stream *s, struct iovec *iov, int n)
{
	struct ws_channel *c = (struct ws_channel *)s;

	if (c->channel == CH_IN)
		return error_sys(EPIPE, "stdin is only read");
	for (int i = 0; i < n; i++) {
		const char *p = iov[i].iov_base;

		for (size_t left = iov[i].iov_len; left;) {
			size_t k = left < 32768 ? left : 32768;

			TRY(send_channel(c->k, c->channel, p, k));
			p += k;
			left -= k;
		}
	}
	return NULL;
}

static struct error *wsc_shutdown(struct stream *s)
{
	return NULL; /* channels end with the connection */
}

static void wsc_close(struct stream *s)
{
	/* Part of the session. */
}

static const struct stream_ops wsc_ops = {wsc_read, wsc_writev, wsc_shutdown, wsc_close};

static void add_size(struct session *k, struct str json)
{
	uint16_t w, h;

	if (!rc_parse_size(json, &w, &h))
		return;
	/* Only the last ones matter. */
	if (k->n_sizes == RESIZES_MAX)
		memmove(k->sizes, k->sizes + 1, --k->n_sizes * sizeof *k->sizes);
	k->sizes[k->n_sizes].w = w;
	k->sizes[k->n_sizes++].h = h;
	waitq_wake_all(&k->q);
}

static struct error *ws_message(struct session *k, struct str m, struct buf *decoded)
{
	if (!m.n)
		return NULL;
	int channel = (unsigned char)m.p[0];
	struct str data = str_sub(m, 1, m.n);

	if (k->base64) {
		channel -= '0';
		if (!rc_decode64(data, decoded))
			return error_sys(EPROTO, "malformed base64");
		data = buf_view(decoded);
	}
	if (channel == CH_IN && k->pub.o.in && !k->in.ended)
		return bq_put(&k->in, data.p, data.n, STDIN_MAX);
	if (channel == CH_RESIZE && k->version >= 3)
		add_size(k, data);
	else if (channel == CH_CLOSE && k->version >= 5 && data.n == 1 && data.p[0] == CH_IN)
		bq_end(&k->in);
	return NULL;
}

static void ws_reader(void *arg)
{
	struct session *k = arg;
	buf_cleanup struct buf decoded = {0};

	for (;;) {
		enum ws_kind kind;
		struct str m;
		struct error *e = ws_read(k->ws, &kind, &m, NULL);

		if (!e && kind != WS_CLOSE)
			e = ws_message(k, m, &decoded);
		/* A stdin that nobody reads any more is no reason to stop: what comes for it is dropped. */
		if (error_is_sys(e, EPIPE) && k->in.ended)
			error_clear(&e);
		if (e || kind == WS_CLOSE) {
			error_free(e);
			break;
		}
	}
	k->gone = true;
	bq_end(&k->in);
	waitq_wake_all(&k->q);
}

static void ws_hung_up(void *arg)
{
	struct session *k = arg;

	k->gone = true;
	waitq_wake_all(&k->q);
	/* The reader may wait for room in stdin's queue. */
	if (bq_len(&k->in) >= STDIN_MAX)
		bq_end(&k->in);
}

static const struct {
	const char *name;
	int version;
	bool base64;
} ws_protocols[] = {
	{"v5.channel.k8s.io", 5, false},     {"v4.channel.k8s.io", 4, false},     {"v4.base64.channel.k8s.io", 4, true},
	{"v3.channel.k8s.io", 3, false},     {"v2.channel.k8s.io", 2, false},     {"channel.k8s.io", 1, false},
	{"base64.channel.k8s.io", 1, true},
};

static struct error *accept_ws(struct http_exchange *x, struct session *k)
{
	const char *names[sizeof ws_protocols / sizeof *ws_protocols + 1] = {NULL}, *chosen;

	for (size_t i = 0; i < sizeof ws_protocols / sizeof *ws_protocols; i++)
		names[i] = ws_protocols[i].name;
	TRY(ws_accept(x, names, WS_MESSAGE_MAX, &chosen, &k->ws));
	k->since = now_ms();
	k->version = 1;
	for (size_t i = 0; chosen && i < sizeof ws_protocols / sizeof *ws_protocols; i++)
		if (ws_protocols[i].name == chosen) {
			k->version = ws_protocols[i].version;
			k->base64 = ws_protocols[i].base64;
		}
	for (int i = CH_IN; i <= CH_ERR; i++)
		k->ch[i] = (struct ws_channel){.s.ops = &wsc_ops, .k = k, .channel = i};
	k->pub.in = k->pub.o.in ? &k->ch[CH_IN].s : NULL;
	k->pub.out = k->pub.o.out ? &k->ch[CH_OUT].s : NULL;
	k->pub.err = k->pub.o.err ? &k->ch[CH_ERR].s : NULL;
	k->bottom = net_bottom(ws_under(k->ws));
	stream_on_hangup(k->bottom, ws_hung_up, k);
	k->reader = fiber_start("exec websocket", ws_reader, k);
	/* An empty message on the first channel that is written tells old clients that the session stands. New ones only complain. */
	if (k->version >= 4)
		return NULL;
	return send_channel(k, k->pub.o.out ? CH_OUT : k->pub.o.err ? CH_ERR : CH_ERROR, "", 0);
}

/* ---- SPDY ---- */

/* The best protocol the client names in X-Stream-Protocol-Version fields; NULL: none of ours. */
const char *rc_choose_protocol(const struct http_exchange *x, const char *const *ours, bool *offered)
{
	*offered = false;
	for (int i = 0; ours[i]; i++)
		for (size_t j = 0; j < x->headers.n; j++) {
			if (!str_eqz(x->headers.v[j].name, "x-stream-protocol-version"))
				continue;
			*offered = true;
			for (struct str rest = x->headers.v[j].value; rest.p;)
				if (str_eqz(str_trim(str_cut(&rest, ',')), ours[i]))
					return ours[i];
		}
	return NULL;
}

struct error *rc_spdy_upgrade(struct http_exchange *x, const char *protocol, struct spdy **out)
{
	struct stream *s;

	*out = NULL;
	if (protocol)
		http_set_header(x, "X-Stream-Protocol-Version", str_from(protocol));
	TRY(http_upgrade(x, "SPDY/3.1", &s));
	return spdy_new(s, true, out);
}

bool rc_spdy_requested(const struct http_exchange *x)
{
	bool upgrade = false;

	for (size_t i = 0; i < x->headers.n; i++)
		if (str_eqz(x->headers.v[i].name, "connection"))
			for (struct str rest = x->headers.v[i].value; rest.p;)
				upgrade = upgrade || str_eq_nocase(str_trim(str_cut(&rest, ',')), STR("upgrade"));
	return upgrade && str_eq_nocase(http_header_get(&x->headers, "upgrade"), STR("SPDY/3.1"));
}

static struct error *collect_streams(struct session *k)
{
	static const char *const types[CHANNELS] = {"stdin", "stdout", "stderr", "error", "resize"};
	const struct rc_opts *o = &k->pub.o;
	bool want[CHANNELS] = {o->in, o->out, o->err, true, o->tty && k->version >= 3};

	for (;;) {
		bool all = true;
		struct spdy_stream *st;
		int type = CHANNELS;

		for (int i = 0; i < CHANNELS; i++)
			all = all && (!want[i] || k->st[i]);
		if (all)
			return NULL;
		TRY(spdy_accept(k->spdy, &st));
		struct str name = http_header_get(&st->headers, "streamtype");

		for (int i = 0; i < CHANNELS; i++)
			if (str_eqz(name, types[i]))
				type = i;
		if (type == CHANNELS || k->st[type])
			return error_sys(EPROTO, "unexpected stream \"%.*s\"", STR_ARG(str_sub(name, 0, 64)));
		k->st[type] = st;
	}
}

static struct error *accept_spdy(struct http_exchange *x, struct session *k)
{
	static const char *const ours[] = {"v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io",
					   "channel.k8s.io", NULL};
	static const int versions[] = {5, 4, 3, 2, 1};
	bool offered;
	const char *p = rc_choose_protocol(x, ours, &offered);

	if (offered && !p)
		return error_status(403, "Forbidden", "unable to upgrade: no common X-Stream-Protocol-Version");
	k->version = 1;
	for (int i = 0; ours[i]; i++)
		if (p == ours[i])
			k->version = versions[i];
	TRY(rc_spdy_upgrade(x, p, &k->spdy));
	int64_t d = deadline_push(STREAMS_WAIT_MS);
	struct error *e = collect_streams(k);

	deadline_pop(d);
	TRY(error_wrap(e, "streams of the client"));
	k->pub.in = k->st[CH_IN] ? &k->st[CH_IN]->s : NULL;
	k->pub.out = k->st[CH_OUT] ? &k->st[CH_OUT]->s : NULL;
	k->pub.err = k->st[CH_ERR] ? &k->st[CH_ERR]->s : NULL;
	return NULL;
}

/* ---- both ---- */

static void session_free(struct session *k)
{
	fiber_shield_begin();
	if (k->ws)
		stream_on_hangup(k->bottom, NULL, NULL);
	fiber_stop(k->reader);
	fiber_shield_end();
	ws_free(k->ws);
	spdy_free(k->spdy);
	buf_free(&k->in.b);
	buf_free(&k->resize);
	free(k);
}

struct error *rc_accept(struct http_exchange *x, const struct rc_opts *o, struct rc_session **out)
{
	struct session *k;
	struct error *e;

	*out = NULL;
	if (!ws_requested(x) && !rc_spdy_requested(x))
		return error_status(400, "BadRequest", "unable to upgrade: ask for SPDY/3.1 or websocket");
	k = xcalloc(1, sizeof *k);
	k->pub.o = *o;
	k->pub.impl = k;
	if (k->pub.o.tty)
		k->pub.o.err = false;
	e = ws_requested(x) ? accept_ws(x, k) : accept_spdy(x, k);
	if (e) {
		session_free(k);
		return e;
	}
	*out = &k->pub;
	return NULL;
}

struct error *rc_resize(struct rc_session *s, uint16_t *width, uint16_t *height)
{
	struct session *k = s->impl;

	if (k->ws) {
		while (!k->n_sizes) {
			if (k->gone)
				return error_sys(EPIPE, "the client has gone");
			TRY(waitq_wait(&k->q));
		}
		*width = k->sizes[0].w;
		*height = k->sizes[0].h;
		memmove(k->sizes, k->sizes + 1, --k->n_sizes * sizeof *k->sizes);
		return NULL;
	}
	if (!k->st[CH_RESIZE])
		return error_sys(EPIPE, "the client sends no sizes");
	for (;;) {
		ptrdiff_t end = str_index(buf_view(&k->resize), '}');
		char chunk[512];
		size_t n;

		if (end >= 0) {
			bool ok = rc_parse_size(str_of(k->resize.p, (size_t)end + 1), width, height);
			size_t rest = k->resize.n - (size_t)end - 1;

			memmove(k->resize.p, k->resize.p + end + 1, rest);
			k->resize.n = rest;
			if (ok)
				return NULL;
			continue;
		}
		if (k->resize.n > RESIZE_MAX)
			return error_sys(EPIPE, "malformed terminal size");
		struct error *e = stream_read(&k->st[CH_RESIZE]->s, chunk, sizeof chunk, &n);

		if (error_is_sys(e, ECONNRESET) || (!e && !n)) {
			error_free(e);
			return error_sys(EPIPE, "the client has gone");
		}
		TRY(e);
		buf_append(&k->resize, chunk, n);
	}
}

struct error *rc_wait_gone(struct rc_session *s)
{
	struct session *k = s->impl;

	if (k->spdy) {
		struct error *e = spdy_wait_end(k->spdy);

		/* However it went: it has gone. */
		if (error_is_sys(e, ECONNRESET))
			error_clear(&e);
		return e;
	}
	while (!k->gone)
		TRY(waitq_wait(&k->q));
	return NULL;
}

static void json_string(struct buf *b, const char *z)
{
	buf_putc(b, '"');
	for (; *z; z++) {
		unsigned char c = (unsigned char)*z;

		if (c == '"' || c == '\\')
			buf_printf(b, "\\%c", c);
		else if (c < 32)
			buf_printf(b, "\\u%04x", c);
		else
			buf_putc(b, (char)c);
	}
	buf_putc(b, '"');
}

/* What the error channel says. Empty: nothing (older protocols, success). */
static void outcome(const struct session *k, int code, const struct error *e, struct buf *b)
{
	buf_cleanup struct buf msg = {0};

	if (e)
		buf_puts(&msg, e->message);
	else if (code)
		buf_printf(&msg, "command terminated with non-zero exit code: exit status %d", code);
	if (k->version < 4) {
		buf_str(b, buf_view(&msg));
		return;
	}
	if (!e && !code) {
		buf_puts(b, "{\"metadata\":{},\"status\":\"Success\"}");
		return;
	}
	buf_puts(b, "{\"metadata\":{},\"status\":\"Failure\",\"message\":");
	json_string(b, buf_z(&msg));
	buf_puts(b, ",\"reason\":");
	if (e) {
		json_string(b, e->reason && *e->reason ? e->reason : "InternalError");
		buf_printf(b, ",\"code\":%d}", e->status ? e->status : 500);
	} else {
		buf_printf(b, "\"NonZeroExitCode\",\"details\":{\"causes\":[{\"reason\":\"ExitCode\",\"message\":\"%d\"}]}}", code);
	}
}

static struct error *finish_spdy(struct session *k, struct str text)
{
	struct error *e = text.n ? stream_write(&k->st[CH_ERROR]->s, text.p, text.n) : NULL;
	static const int order[] = {CH_OUT, CH_ERR, CH_ERROR, CH_IN, CH_RESIZE};

	for (size_t i = 0; !e && i < sizeof order / sizeof *order; i++)
		if (k->st[order[i]])
			e = stream_shutdown(&k->st[order[i]]->s);
	/* The client reads all that and hangs up; hanging up first could cost it the end. */
	if (!e)
		e = spdy_wait_end(k->spdy);
	return e;
}

static struct error *finish_ws(struct session *k, struct str text)
{
	if (text.n)
		TRY(send_channel(k, CH_ERROR, text.p, text.n));
	TRY(ws_close(k->ws, 1000, STR_NULL));
	/* The reader must not be stuck in a stdin nobody reads. */
	bq_end(&k->in);
	while (!k->gone)
		TRY(waitq_wait(&k->q));
	return NULL;
}

void rc_finish(struct rc_session *s, int exit_code, struct error *e)
{
	struct session *k = s->impl;
	buf_cleanup struct buf b = {0};

	outcome(k, exit_code, e, &b);
	error_free(e);
	fiber_shield_begin();
	int64_t d = deadline_push(LINGER_MS);

	/* It may have gone already: then there is nobody to tell. */
	error_free(k->ws ? finish_ws(k, buf_view(&b)) : finish_spdy(k, buf_view(&b)));
	deadline_pop(d);
	fiber_shield_end();
	session_free(k);
}
