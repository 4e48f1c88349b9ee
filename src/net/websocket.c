#include "net/websocket.h"

#include <errno.h>
#include <stdlib.h>
#include <openssl/evp.h>
#include <wslay/wslay.h>

#include "net/internal.h"

#define GUID "258EAFA5-E914-47DA-95CA-C5AB0DC85B11" /* RFC 6455, 1.3 */
#define CONTROL_MAX 125
#define IN_CAP 16384

struct websocket {
	struct stream *s;
	bool client, closed_in, sent_close;
	size_t max;
	wslay_frame_context_ptr frames;
	/* bytes read and not yet parsed */
	char *in;
	size_t in_off, in_n;
	struct error *read_error;
	bool eof;
	/* the message being put together */
	struct buf msg;
	int opcode;             /* 0: none begun */
	/* the frame being read */
	uint64_t left;
	bool in_frame, fin;
	int frame_op;
	char control[CONTROL_MAX];
	size_t control_n;
	struct fiber_mutex wlock;
};

/* ---- handshake ---- */

static bool list_has(struct str list, const char *word)
{
	for (struct str rest = list; rest.p;)
		if (str_eq_nocase(str_trim(str_cut(&rest, ',')), str_from(word)))
			return true;
	return false;
}

/* Fields of that name, also when a list is spread over several. */
static bool header_has(const struct http_headers *h, const char *name, const char *word)
{
	for (size_t i = 0; i < h->n; i++)
		if (str_eqz(h->v[i].name, name) && list_has(h->v[i].value, word))
			return true;
	return false;
}

bool ws_requested(const struct http_exchange *x)
{
	return x->version == 11 && str_eqz(x->method, "GET") && header_has(&x->headers, "upgrade", "websocket") &&
	       header_has(&x->headers, "connection", "upgrade");
}

static struct str accept_key(struct arena *a, struct str key)
{
	struct str both = arena_printf(a, "%.*s%s", STR_ARG(key), GUID);
	unsigned char md[EVP_MAX_MD_SIZE];
	unsigned n = 0;

	if (EVP_Digest(both.p, both.n, md, &n, EVP_sha1(), NULL) != 1)
		return STR_NULL;
	char *out = arena_bytes(a, 4 * ((n + 2) / 3) + 1);

	return str_of(out, (size_t)EVP_EncodeBlock((unsigned char *)out, md, (int)n));
}

static ssize_t recv_cb(uint8_t *p, size_t n, int flags, void *user)
{
	struct websocket *w = user;

	if (w->in_off == w->in_n) {
		if (!w->in)
			w->in = xmalloc(IN_CAP);
		w->in_off = w->in_n = 0;
		w->read_error = stream_read(w->s, w->in, IN_CAP, &w->in_n);
		w->eof = !w->read_error && !w->in_n;
		if (w->read_error || w->eof) {
			w->in_n = 0;
			return -1;
		}
	}
	size_t k = w->in_n - w->in_off < n ? w->in_n - w->in_off : n;

	memcpy(p, w->in + w->in_off, k);
	w->in_off += k;
	return (ssize_t)k;
}

static ssize_t send_cb(const uint8_t *p, size_t n, int flags, void *user)
{
	return -1; /* frames are written by write_frame */
}

static int genmask_cb(uint8_t *p, size_t n, void *user)
{
	random_bytes(p, n);
	return 0;
}

static struct websocket *ws_new(struct stream *s, bool client, size_t max)
{
	struct websocket *w = xcalloc(1, sizeof *w);
	struct wslay_frame_callbacks cb = {send_cb, recv_cb, genmask_cb};

	w->s = s;
	w->client = client;
	w->max = max;
	if (wslay_frame_context_init(&w->frames, &cb, w) != 0)
		die_oom();
	return w;
}

/* Bearer tokens travel as a subprotocol where a browser can set no header; they choose nothing. */
static bool is_token_protocol(struct str p)
{
	return str_has_prefix(p, STR("base64url.bearer.authorization.k8s.io."));
}

struct error *ws_accept(struct http_exchange *x, const char *const *protocols, size_t message_max, const char **chosen,
			struct websocket **out)
{
	struct str key = http_header_get(&x->headers, "sec-websocket-key");
	const char *choice = NULL;
	struct stream *s;
	bool offered = false;

	*out = NULL;
	if (chosen)
		*chosen = NULL;
	if (!ws_requested(x))
		return error_status(400, "BadRequest", "not a WebSocket request");
	if (!key.n)
		return error_status(400, "BadRequest", "no Sec-WebSocket-Key");
	if (!str_eqz(http_header_get(&x->headers, "sec-websocket-version"), "13"))
		return error_status(400, "BadRequest", "WebSocket version is not 13");
	for (size_t i = 0; i < x->headers.n; i++) {
		if (!str_eqz(x->headers.v[i].name, "sec-websocket-protocol"))
			continue;
		for (struct str rest = x->headers.v[i].value; rest.p;) {
			struct str p = str_trim(str_cut(&rest, ','));

			offered = offered || (p.n && !is_token_protocol(p));
		}
	}
	for (int i = 0; protocols && protocols[i] && !choice; i++)
		if (header_has(&x->headers, "sec-websocket-protocol", protocols[i]))
			choice = protocols[i];
	if (offered && !choice && protocols)
		return error_status(400, "BadRequest", "none of the WebSocket subprotocols offered is supported");
	http_set_header(x, "Sec-WebSocket-Accept", accept_key(x->arena, key));
	if (choice)
		http_set_header(x, "Sec-WebSocket-Protocol", str_from(choice));
	TRY(http_upgrade(x, "websocket", &s));
	if (chosen)
		*chosen = choice;
	*out = ws_new(s, false, message_max);
	return NULL;
}

struct error *ws_connect(struct http_client *c, struct arena *a, struct str target, const struct http_header *headers,
			 size_t n_headers, const char *const *protocols, size_t message_max, const char **chosen,
			 struct websocket **out)
{
	struct http_header *h = arena_array(a, struct http_header, n_headers + 4);
	unsigned char nonce[16];
	char *key = arena_bytes(a, 25);
	struct http_response r;
	struct stream *s;
	buf_cleanup struct buf list = {0};
	size_t n = n_headers;

	*out = NULL;
	if (chosen)
		*chosen = NULL;
	random_bytes(nonce, sizeof nonce);
	EVP_EncodeBlock((unsigned char *)key, nonce, sizeof nonce);
	if (n)
		memcpy(h, headers, n * sizeof *h);
	for (int i = 0; protocols && protocols[i]; i++)
		buf_printf(&list, "%s%s", i ? ", " : "", protocols[i]);
	h[n++] = (struct http_header){STR("Upgrade"), STR("websocket")};
	h[n++] = (struct http_header){STR("Sec-WebSocket-Version"), STR("13")};
	h[n++] = (struct http_header){STR("Sec-WebSocket-Key"), str_from(key)};
	if (list.n)
		h[n++] = (struct http_header){STR("Sec-WebSocket-Protocol"), buf_view(&list)};
	TRY(http_do_upgrade(c, a, "GET", target, h, n, &r, &s));
	if (!s) {
		struct str body = STR_NULL;
		int status = r.status;

		error_free(http_response_all(&r, a, 4096, &body));
		http_response_close(&r);
		return error_status(status >= 400 ? status : 502, "", "WebSocket refused with HTTP status %d: %.*s", status,
				    STR_ARG(body));
	}
	struct str protocol = http_header_get(&r.headers, "sec-websocket-protocol");
	bool fits = !protocol.p;

	for (int i = 0; protocols && protocols[i]; i++) {
		if (str_eqz(protocol, protocols[i])) {
			fits = true;
			if (chosen)
				*chosen = protocols[i];
		}
	}
	if (!str_eq(http_header_get(&r.headers, "sec-websocket-accept"), accept_key(a, str_from(key))) || !fits) {
		stream_close(s);
		return error_sys(EPROTO, "WebSocket handshake");
	}
	*out = ws_new(s, true, message_max);
	return NULL;
}

/* ---- writing ---- */

static struct error *write_frame(struct websocket *w, int opcode, struct str a, struct str b)
{
	unsigned char head[14];
	size_t n = a.n + b.n, k = 2;

	head[0] = (unsigned char)(0x80 | opcode);
	if (n < 126) {
		head[1] = (unsigned char)n;
	} else if (n < 65536) {
		head[1] = 126;
		head[2] = (unsigned char)(n >> 8);
		head[3] = (unsigned char)n;
		k = 4;
	} else {
		head[1] = 127;
		for (int i = 0; i < 8; i++)
			head[2 + i] = (unsigned char)((uint64_t)n >> (56 - 8 * i));
		k = 10;
	}
	TRY(fiber_mutex_lock(&w->wlock));
	struct error *e;

	if (w->sent_close) {
		e = error_sys(EPIPE, "WebSocket is closed");
	} else if (w->client) {
		char *p = xmalloc(n + 14), *q;

		head[1] |= 0x80;
		random_bytes(head + k, 4);
		memcpy(p, head, k + 4);
		q = p + k + 4;
		if (a.n)
			memcpy(q, a.p, a.n);
		if (b.n)
			memcpy(q + a.n, b.p, b.n);
		for (size_t i = 0; i < n; i++)
			q[i] = (char)(q[i] ^ head[k + (i & 3)]);
		e = stream_write(w->s, p, n + k + 4);
		free(p);
	} else {
		struct iovec v[3] = {{head, k}, {(void *)(uintptr_t)a.p, a.n}, {(void *)(uintptr_t)b.p, b.n}};

		e = stream_writev(w->s, v, 3);
	}
	if (opcode == WS_CLOSE || e)
		w->sent_close = true;
	fiber_mutex_unlock(&w->wlock);
	return e;
}

struct error *ws_write(struct websocket *w, enum ws_kind kind, struct str head, struct str body)
{
	return write_frame(w, (int)kind, head, body);
}

struct error *ws_ping(struct websocket *w)
{
	return write_frame(w, WSLAY_PING, STR_NULL, STR_NULL);
}

struct error *ws_close(struct websocket *w, int code, struct str reason)
{
	char c[2] = {(char)(code >> 8), (char)code};

	if (w->sent_close)
		return NULL;
	return write_frame(w, WS_CLOSE, str_of(c, 2), str_sub(reason, 0, CONTROL_MAX - 2));
}

/* ---- reading ---- */

static struct error *violation(struct websocket *w, int code, const char *what)
{
	error_free(ws_close(w, code, str_from(what)));
	w->closed_in = true;
	return error_sys(code == 1009 ? EMSGSIZE : EPROTO, "WebSocket: %s", what);
}

static bool utf8_ok(const char *s, size_t n)
{
	const unsigned char *p = (const unsigned char *)s, *end = n ? p + n : p;

	while (p < end) {
		if (*p < 0x80) {
			p++;
			continue;
		}
		int more = *p >= 0xc2 && *p <= 0xdf ? 1 : *p >= 0xe0 && *p <= 0xef ? 2 : *p >= 0xf0 && *p <= 0xf4 ? 3 : 0;

		if (!more || end - p <= more || (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
		    (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
			return false;
		for (int i = 1; i <= more; i++)
			if ((p[i] & 0xc0) != 0x80)
				return false;
		p += more + 1;
	}
	return true;
}

/* A control frame is here whole. *closed: it was a close frame. */
static struct error *control(struct websocket *w, bool *closed, struct str *msg, int *code)
{
	if (w->frame_op == WSLAY_PING)
		return write_frame(w, WSLAY_PONG, str_of(w->control, w->control_n), STR_NULL);
	if (w->frame_op != WSLAY_CONNECTION_CLOSE)
		return NULL;
	int c = 1005;

	if (w->control_n == 1)
		return violation(w, 1002, "close frame");
	if (w->control_n >= 2) {
		c = (unsigned char)w->control[0] << 8 | (unsigned char)w->control[1];
		if (c < 1000 || (c > 1003 && c < 1007) || (c > 1014 && c < 3000) || c > 4999 ||
		    !utf8_ok(w->control + 2, w->control_n - 2))
			return violation(w, 1002, "close frame");
		*msg = str_of(w->control + 2, w->control_n - 2);
	}
	error_free(ws_close(w, c == 1005 ? 1000 : c, STR_NULL));
	w->closed_in = true;
	*closed = true;
	if (code)
		*code = c;
	return NULL;
}

struct error *ws_read(struct websocket *w, enum ws_kind *kind, struct str *msg, int *code)
{
	*msg = STR_NULL;
	if (w->closed_in) {
		*kind = WS_CLOSE;
		if (code)
			*code = 1006;
		return NULL;
	}
	w->msg.n = 0;
	for (;;) {
		struct wslay_frame_iocb f = {0};
		ssize_t r = wslay_frame_recv(w->frames, &f);

		if (r < 0) {
			if (w->read_error) {
				struct error *e = w->read_error;

				w->read_error = NULL;
				return e;
			}
			if (!w->eof)
				return violation(w, 1002, "frame");
			w->closed_in = true;
			*kind = WS_CLOSE;
			if (code)
				*code = 1006;
			return NULL;
		}
		if (!w->in_frame) {
			bool ctl = f.opcode & 8;

			w->in_frame = true;
			w->left = f.payload_length;
			w->frame_op = f.opcode;
			w->fin = f.fin;
			w->control_n = 0;
			if (f.rsv || f.mask != !w->client)
				return violation(w, 1002, f.rsv ? "reserved bits" : "mask");
			if (ctl ? f.opcode > WSLAY_PONG || !f.fin || f.payload_length > CONTROL_MAX
				: f.opcode == 0 ? !w->opcode : w->opcode || f.opcode > WSLAY_BINARY_FRAME)
				return violation(w, 1002, "frame kind");
			if (!ctl && f.opcode)
				w->opcode = f.opcode;
			if (!ctl && w->left > w->max - w->msg.n)
				return violation(w, 1009, "message too large");
		}
		if (f.data_length > w->left)
			return violation(w, 1002, "frame");
		w->left -= f.data_length;
		if (w->frame_op & 8) {
			memcpy(w->control + w->control_n, f.data, f.data_length);
			w->control_n += f.data_length;
		} else {
			buf_append(&w->msg, f.data, f.data_length);
		}
		if (w->left)
			continue;
		w->in_frame = false;
		if (w->frame_op & 8) {
			bool closed = false;

			TRY(control(w, &closed, msg, code));
			if (closed) {
				*kind = WS_CLOSE;
				return NULL;
			}
			continue;
		}
		if (!w->fin)
			continue;
		*kind = w->opcode == WSLAY_TEXT_FRAME ? WS_TEXT : WS_BINARY;
		w->opcode = 0;
		*msg = buf_view(&w->msg);
		if (*kind == WS_TEXT && !utf8_ok(msg->p, msg->n))
			return violation(w, 1007, "text is not UTF-8");
		return NULL;
	}
}

void ws_free(struct websocket *w)
{
	if (!w)
		return;
	wslay_frame_context_free(w->frames);
	stream_close(w->s);
	buf_free(&w->msg);
	error_free(w->read_error);
	free(w->in);
	free(w);
}

/* ---- as a byte stream ---- */

struct ws_str {
	struct stream s;
	struct websocket *w;
	struct str rest;
	bool ended;
};

static struct error *wss_read(struct stream *s, void *p, size_t n, size_t *got)
{
	struct ws_str *t = (struct ws_str *)s;
	enum ws_kind kind;

	*got = 0;
	while (!t->rest.n) {
		int code = 0;

		if (t->ended)
			return NULL;
		TRY(ws_read(t->w, &kind, &t->rest, &code));
		if (kind == WS_CLOSE) {
			t->ended = true;
			t->rest = STR_NULL;
			return code == 1006 ? error_sys(ECONNRESET, "WebSocket ended without a close frame") : NULL;
		}
	}
	*got = t->rest.n < n ? t->rest.n : n;
	memcpy(p, t->rest.p, *got);
	t->rest = str_sub(t->rest, *got, t->rest.n);
	return NULL;
}

static struct error *wss_writev(struct stream *s, struct iovec *iov, int n)
{
	struct ws_str *t = (struct ws_str *)s;

	/* What is written together is one message: SPDY frames and their data. */
	if (n == 1)
		return ws_write(t->w, WS_BINARY, str_of(iov[0].iov_base, iov[0].iov_len), STR_NULL);
	if (n == 2)
		return ws_write(t->w, WS_BINARY, str_of(iov[0].iov_base, iov[0].iov_len),
				str_of(iov[1].iov_base, iov[1].iov_len));
	buf_cleanup struct buf all = {0};

	for (int i = 0; i < n; i++)
		buf_append(&all, iov[i].iov_base, iov[i].iov_len);
	return ws_write(t->w, WS_BINARY, buf_view(&all), STR_NULL);
}

static struct error *wss_shutdown(struct stream *s)
{
	return ws_close(((struct ws_str *)s)->w, 1000, STR_NULL);
}

static void wss_close(struct stream *s)
{
	ws_free(((struct ws_str *)s)->w);
	free(s);
}

static const struct stream_ops wss_ops = {wss_read, wss_writev, wss_shutdown, wss_close};

struct stream *ws_stream(struct websocket *w)
{
	struct ws_str *t = xcalloc(1, sizeof *t);

	t->s.ops = &wss_ops;
	t->w = w;
	return &t->s;
}

struct stream *ws_stream_under(struct stream *s)
{
	return s->ops == &wss_ops ? ((struct ws_str *)s)->w->s : NULL;
}

struct stream *ws_under(struct websocket *w)
{
	return w->s;
}
