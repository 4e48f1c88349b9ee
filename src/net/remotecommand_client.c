/* The client's side of exec, attach and port-forward. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "net/internal.h"
#include "net/rc_internal.h"
#include "net/remotecommand.h"
#include "net/spdy.h"
#include "net/websocket.h"

#define QUEUE_MAX (256u << 10)
#define STATUS_MAX (64u << 10)
#define ERROR_WAIT_MS 200
#define WS_MESSAGE_MAX (16u << 20)

enum { CH_IN, CH_OUT, CH_ERR, CH_ERROR, CH_RESIZE, CHANNELS, CH_CLOSE = 255 };

struct rcc;
struct wsc {
	struct stream s;
	struct rcc *c;
	int channel;
	struct bytes_queue in;
};
struct rcc {
	struct rc_client pub; /* first */
	struct spdy *spdy;
	struct spdy_stream *st[CHANNELS];
	struct websocket *ws;
	bool ws_ended;
	int ws_version;
	struct fiber *reader;
	struct wsc ch[4]; /* in, out, err, error */
};

/* ---- WebSocket channels ---- */

static struct error *cws_read(struct stream *s, void *p, size_t n, size_t *got)
{
	return bq_get(&((struct wsc *)s)->in, p, n, got);
}

static struct error *cws_writev(struct stream *s, struct iovec *iov, int n)
{
	struct wsc *w = (struct wsc *)s;
	char head[1] = {(char)w->channel};

	for (int i = 0; i < n; i++)
		for (size_t off = 0, k; off < iov[i].iov_len; off += k) {
			k = iov[i].iov_len - off < 32768 ? iov[i].iov_len - off : 32768;
			TRY(ws_write(w->c->ws, WS_BINARY, str_of(head, 1), str_of((char *)iov[i].iov_base + off, k)));
		}
	return NULL;
}

static struct error *cws_shutdown(struct stream *s)
{
	struct wsc *w = (struct wsc *)s;
	char msg[2] = {(char)CH_CLOSE, (char)w->channel};

	/* Before v5 there is no way to say it. */
	return w->c->ws_version >= 5 ? ws_write(w->c->ws, WS_BINARY, str_of(msg, 2), STR_NULL)
				     : error_sys(ENOTSUP, "closing stdin needs v5.channel.k8s.io");
}

static void cws_close(struct stream *s)
{
	/* Part of the client. */
}

static const struct stream_ops cws_ops = {cws_read, cws_writev, cws_shutdown, cws_close};

static void cws_reader(void *arg)
{
	struct rcc *c = arg;

	for (;;) {
		enum ws_kind kind;
		struct str m;
		struct error *e = ws_read(c->ws, &kind, &m, NULL);

		if (e || kind == WS_CLOSE) {
			error_free(e);
			break;
		}
		int channel = m.n ? (unsigned char)m.p[0] : CH_CLOSE;

		if (channel >= CH_OUT && channel <= CH_ERROR)
			/* EPIPE: nobody reads that one any more. */
			error_free(bq_put(&c->ch[channel].in, m.p + 1, m.n - 1, QUEUE_MAX));
	}
	c->ws_ended = true;
	for (int i = 0; i < 4; i++)
		bq_end(&c->ch[i].in);
}

static struct error *dial_ws(struct http_client *h, struct arena *a, struct str target, const struct http_header *headers,
			     size_t n, const struct rc_opts *o, struct rcc *c)
{
	static const char *const protocols[] = {"v5.channel.k8s.io", "v4.channel.k8s.io", NULL};
	const char *chosen;

	TRY(ws_connect(h, a, target, headers, n, protocols, WS_MESSAGE_MAX, &chosen, &c->ws));
	c->ws_version = chosen == protocols[0] ? 5 : 4;
	for (int i = 0; i < 4; i++)
		c->ch[i] = (struct wsc){.s.ops = &cws_ops, .c = c, .channel = i};
	c->reader = fiber_start("exec client", cws_reader, c);
	c->pub.in = o->in ? &c->ch[CH_IN].s : NULL;
	c->pub.out = o->out ? &c->ch[CH_OUT].s : NULL;
	c->pub.err = o->err && !o->tty ? &c->ch[CH_ERR].s : NULL;
	return NULL;
}

/* ---- SPDY ---- */

static struct error *upgrade_spdy(struct http_client *h, struct arena *a, struct str target, const struct http_header *headers,
				  size_t n, const char *const *protocols, struct spdy **out)
{
	struct http_header *v = arena_array(a, struct http_header, n + 8);
	struct http_response r;
	struct stream *s;

	if (n)
		memcpy(v, headers, n * sizeof *v);
	v[n++] = (struct http_header){STR("Upgrade"), STR("SPDY/3.1")};
	for (int i = 0; protocols[i]; i++)
		v[n++] = (struct http_header){STR("X-Stream-Protocol-Version"), str_from(protocols[i])};
	TRY(http_do_upgrade(h, a, "POST", target, v, n, &r, &s));
	if (s)
		return spdy_new(s, false, out);
	struct str body = STR_NULL;
	int status = r.status;

	error_free(http_response_all(&r, a, 4096, &body));
	http_response_close(&r);
	return error_status(status >= 400 ? status : 502, "", "upgrade refused with HTTP status %d: %.*s", status, STR_ARG(body));
}

static struct error *dial_spdy(struct http_client *h, struct arena *a, struct str target, const struct http_header *headers,
			       size_t n, const struct rc_opts *o, struct rcc *c)
{
	static const char *const protocols[] = {"v4.channel.k8s.io", NULL};
	static const char *const types[CHANNELS] = {"stdin", "stdout", "stderr", "error", "resize"};
	static const int order[CHANNELS] = {CH_ERROR, CH_IN, CH_OUT, CH_ERR, CH_RESIZE};
	bool want[CHANNELS] = {o->in, o->out, o->err && !o->tty, true, o->tty};

	TRY(upgrade_spdy(h, a, target, headers, n, protocols, &c->spdy));
	for (int i = 0; i < CHANNELS; i++) {
		struct http_header hd = {STR("streamtype"), str_from(types[order[i]])};

		if (want[order[i]])
			TRY(spdy_open(c->spdy, &hd, 1, &c->st[order[i]]));
	}
	c->pub.in = o->in ? &c->st[CH_IN]->s : NULL;
	c->pub.out = o->out ? &c->st[CH_OUT]->s : NULL;
	c->pub.err = want[CH_ERR] ? &c->st[CH_ERR]->s : NULL;
	return NULL;
}

/* ---- both ---- */

struct error *rc_dial(struct http_client *h, struct arena *a, enum rc_transport t, struct str target,
		      const struct http_header *headers, size_t n_headers, const struct rc_opts *o, struct rc_client **out)
{
	struct rcc *c = xcalloc(1, sizeof *c);
	struct error *e;

	*out = NULL;
	c->pub.impl = c;
	e = t == RC_SPDY ? dial_spdy(h, a, target, headers, n_headers, o, c) : dial_ws(h, a, target, headers, n_headers, o, c);
	if (e) {
		rc_client_free(&c->pub);
		return e;
	}
	*out = &c->pub;
	return NULL;
}

struct error *rc_client_resize(struct rc_client *pub, uint16_t width, uint16_t height)
{
	struct rcc *c = pub->impl;
	char json[64], head[1] = {CH_RESIZE};
	int n = snprintf(json, sizeof json, "{\"Width\":%u,\"Height\":%u}\n", width, height);

	if (c->ws)
		return ws_write(c->ws, WS_BINARY, str_of(head, 1), str_of(json, (size_t)n));
	if (!c->st[CH_RESIZE])
		return error_sys(EINVAL, "no terminal was asked for");
	return stream_write(&c->st[CH_RESIZE]->s, json, (size_t)n);
}

/* The value behind "key": in a flat piece of JSON, as it stands; enough for a Status of which we know the form. */
static struct str json_value(struct str json, const char *key)
{
	ptrdiff_t at = str_find(json, str_from(key));
	struct str v = at < 0 ? STR_NULL : str_sub(json, (size_t)at + strlen(key), json.n);
	size_t n = 0;

	if (!v.n || v.p[0] != '"')
		return STR_NULL;
	v = str_sub(v, 1, v.n);
	while (n < v.n && v.p[n] != '"')
		n += v.p[n] == '\\' ? 2 : 1;
	return str_sub(v, 0, n);
}

struct error *rc_client_wait(struct rc_client *pub, int *exit_code)
{
	struct rcc *c = pub->impl;
	struct stream *s = c->ws ? &c->ch[CH_ERROR].s : &c->st[CH_ERROR]->s;
	buf_cleanup struct buf b = {.limit = STATUS_MAX};
	char chunk[1024];
	size_t n;

	*exit_code = -1;
	do {
		TRY(stream_read(s, chunk, sizeof chunk, &n));
		buf_append(&b, chunk, n);
		/* A WebSocket's channel ends only with the connection; a whole Status is the end. */
	} while (n && !(c->ws && b.n && b.p[b.n - 1] == '}'));
	struct str json = buf_view(&b);
	int64_t code;

	if (str_eqz(json_value(json, "\"status\":"), "Success")) {
		*exit_code = 0;
		return NULL;
	}
	ptrdiff_t cause = str_find(json, STR("\"ExitCode\""));

	if (cause >= 0 && str_to_i64(json_value(str_sub(json, (size_t)cause, json.n), "\"message\":"), &code)) {
		*exit_code = (int)code;
		return NULL;
	}
	if (!json.n)
		return error_sys(ECONNRESET, "the connection ended without a status");
	struct str msg = json_value(json, "\"message\":");

	if (!msg.n)
		msg = json;
	return error_new("%.*s", STR_ARG(msg));
}

void rc_client_free(struct rc_client *pub)
{
	struct rcc *c = pub ? pub->impl : NULL;

	if (!c)
		return;
	fiber_shield_begin();
	if (c->ws && !c->ws_ended) {
		int64_t d = deadline_push(1000);

		error_free(ws_close(c->ws, 1000, STR_NULL));
		deadline_pop(d);
	}
	fiber_stop(c->reader);
	fiber_shield_end();
	ws_free(c->ws);
	spdy_free(c->spdy);
	for (int i = 0; i < 4; i++)
		buf_free(&c->ch[i].in.b);
	free(c);
}

/* ---- port-forward ---- */

struct pf_client {
	struct spdy *spdy;
	unsigned next;
};

struct pf_stream {
	struct stream s;
	struct spdy_stream *data, *error;
	bool shut;
};

static struct error *pfs_read(struct stream *s, void *p, size_t n, size_t *got)
{
	struct pf_stream *f = (struct pf_stream *)s;
	struct error *e = stream_read(&f->data->s, p, n, got);
	buf_cleanup struct buf why = {.limit = 4096};
	char chunk[512];

	if ((!e && *got) || (e && !error_is_sys(e, ECONNRESET)))
		return e;
	/* The end: what went wrong stands in the other stream, which may stay open as long as our direction does. */
	int64_t d = deadline_push(((struct pf_stream *)s)->shut ? -1 : ERROR_WAIT_MS);

	for (;;) {
		size_t k = 0;
		struct error *e2 = stream_read(&f->error->s, chunk, sizeof chunk, &k);

		error_free(e2);
		if (e2 || !k)
			break;
		buf_append(&why, chunk, k);
	}
	deadline_pop(d);
	if (!why.n)
		return e;
	error_free(e);
	return error_sys(ECONNREFUSED, "%s", buf_z(&why));
}

static struct error *pfs_writev(struct stream *s, struct iovec *iov, int n)
{
	return stream_writev(&((struct pf_stream *)s)->data->s, iov, n);
}

static struct error *pfs_shutdown(struct stream *s)
{
	((struct pf_stream *)s)->shut = true;
	return stream_shutdown(&((struct pf_stream *)s)->data->s);
}

static void pfs_close(struct stream *s)
{
	struct pf_stream *f = (struct pf_stream *)s;

	if (f->data)
		stream_close(&f->data->s);
	if (f->error)
		stream_close(&f->error->s);
	free(f);
}

static const struct stream_ops pfs_ops = {pfs_read, pfs_writev, pfs_shutdown, pfs_close};

struct error *pf_dial(struct http_client *h, struct arena *a, enum rc_transport t, struct str target,
		      const struct http_header *headers, size_t n_headers, struct pf_client **out)
{
	static const char *const spdy[] = {"portforward.k8s.io", NULL}, *const ws[] = {"SPDY/3.1+portforward.k8s.io", NULL};
	struct pf_client *c = xcalloc(1, sizeof *c);
	struct websocket *w;
	struct error *e;

	*out = NULL;
	if (t == RC_SPDY) {
		e = upgrade_spdy(h, a, target, headers, n_headers, spdy, &c->spdy);
	} else {
		e = ws_connect(h, a, target, headers, n_headers, ws, WS_MESSAGE_MAX, NULL, &w);
		if (!e)
			e = spdy_new(ws_stream(w), false, &c->spdy);
	}
	if (e) {
		free(c);
		return e;
	}
	*out = c;
	return NULL;
}

struct error *pf_connect(struct pf_client *c, uint16_t port, struct stream **out)
{
	struct pf_stream *f = xcalloc(1, sizeof *f);
	char ports[8], id[16];

	*out = NULL;
	f->s.ops = &pfs_ops;
	snprintf(ports, sizeof ports, "%u", port);
	snprintf(id, sizeof id, "%u", c->next++);
	struct http_header h[3] = {
		{STR("streamtype"), STR("error")}, {STR("port"), str_from(ports)}, {STR("requestid"), str_from(id)},
	};
	struct error *e = spdy_open(c->spdy, h, 3, &f->error);

	if (!e)
		e = stream_shutdown(&f->error->s);
	h[0].value = STR("data");
	if (!e)
		e = spdy_open(c->spdy, h, 3, &f->data);
	if (e) {
		pfs_close(&f->s);
		return e;
	}
	*out = &f->s;
	return NULL;
}

void pf_client_free(struct pf_client *c)
{
	if (!c)
		return;
	spdy_free(c->spdy);
	free(c);
}
