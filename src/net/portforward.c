/* The server's side of port-forward. */
#include <errno.h>
#include <stdlib.h>

#include "net/internal.h"
#include "net/rc_internal.h"
#include "net/remotecommand.h"
#include "net/spdy.h"
#include "net/websocket.h"

#define PROTOCOL "portforward.k8s.io"
#define TUNNEL "SPDY/3.1+portforward.k8s.io"
#define PAIRS_MAX 1000u
#define HALVES_MAX 256u      /* streams waiting for their other half */
#define WS_MESSAGE_MAX (1u << 20)
#define WS_PORTS_MAX 127
#define WS_QUEUE_MAX (64u << 10)

struct half {
	struct spdy_stream *st;
	bool data;
};

struct pf_ws_port {
	struct stream s; /* first: the pair's data */
	struct pf_session *k;
	int index;
	uint16_t port;
	struct bytes_queue in;
	bool given, ended;
};

struct pf_session {
	struct spdy *spdy;
	struct half halves[HALVES_MAX];
	unsigned n_halves;
	unsigned n_pairs;
	/* plain WebSocket */
	struct websocket *ws;
	bool base64, gone;
	struct fiber *reader;
	struct pf_ws_port *ports;
	int n_ports;
	struct waitq q;
	struct stream *bottom;
};

struct pair {
	struct pf_pair pub; /* first */
	struct pf_session *k;
	struct spdy_stream *data, *error;
	struct pf_ws_port *ws;
};

/* ---- SPDY ---- */

static void drop_half(struct pf_session *k, unsigned i)
{
	memmove(&k->halves[i], &k->halves[i + 1], (k->n_halves - i - 1) * sizeof *k->halves);
	k->n_halves--;
}

static struct str request_id(const struct spdy_stream *st)
{
	struct str id = http_header_get(&st->headers, "requestid");

	/* Very old clients name only the port. */
	return id.p ? id : http_header_get(&st->headers, "port");
}

static struct error *next_spdy(struct pf_session *k, struct pf_pair **out)
{
	for (;;) {
		struct spdy_stream *st, *other = NULL;
		int64_t port;

		TRY(spdy_accept(k->spdy, &st));
		struct str type = http_header_get(&st->headers, "streamtype");
		bool data = str_eqz(type, "data");

		if ((!data && !str_eqz(type, "error")) || !str_to_i64(http_header_get(&st->headers, "port"), &port) || port < 1 ||
		    port > 65535 || k->n_pairs >= PAIRS_MAX) {
			stream_close(&st->s);
			continue;
		}
		for (unsigned i = 0; i < k->n_halves && !other; i++)
			if (k->halves[i].data != data && str_eq(request_id(k->halves[i].st), request_id(st))) {
				other = k->halves[i].st;
				drop_half(k, i);
			}
		if (!other) {
			/* The oldest that still waits for its other half gives way. */
			if (k->n_halves == HALVES_MAX) {
				stream_close(&k->halves[0].st->s);
				drop_half(k, 0);
			}
			k->halves[k->n_halves++] = (struct half){st, data};
			continue;
		}
		struct pair *p = xcalloc(1, sizeof *p);

		p->k = k;
		p->data = data ? st : other;
		p->error = data ? other : st;
		p->pub.port = (uint16_t)port;
		p->pub.data = &p->data->s;
		p->pub.impl = p;
		k->n_pairs++;
		*out = &p->pub;
		return NULL;
	}
}

/* ---- plain WebSocket: channels 2i (data) and 2i+1 (error) for the i-th port asked for ---- */

static struct error *ws_send(struct pf_session *k, int channel, const char *p, size_t n)
{
	char head[1] = {(char)(k->base64 ? '0' + channel : channel)};

	if (!k->base64)
		return ws_write(k->ws, WS_BINARY, str_of(head, 1), str_of(p, n));
	return rc_ws_write64(k->ws, head, p, n);
}

static struct error *pws_read(struct stream *s, void *p, size_t n, size_t *got)
{
	return bq_get(&((struct pf_ws_port *)s)->in, p, n, got);
}

static struct error *pws_writev(struct stream *s, struct iovec *iov, int n)
{
	struct pf_ws_port *w = (struct pf_ws_port *)s;

	for (int i = 0; i < n; i++) {
		const char *p = iov[i].iov_base;

		for (size_t left = iov[i].iov_len; left;) {
			size_t k = left < 32768 ? left : 32768;

			TRY(ws_send(w->k, w->index * 2, p, k));
			p += k;
			left -= k;
		}
	}
	return NULL;
}

/* The protocol has no half-close: when the pod has said all, the connection has ended. */
static struct error *pws_shutdown(struct stream *s)
{
	struct pf_ws_port *w = (struct pf_ws_port *)s;

	w->ended = true;
	bq_end(&w->in);
	return NULL;
}

static void pws_close(struct stream *s)
{
	/* Part of the session. */
}

static const struct stream_ops pws_ops = {pws_read, pws_writev, pws_shutdown, pws_close};

static struct error *pws_message(struct pf_session *k, struct str m, struct buf *decoded)
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
	/* Error channels are ours to write. */
	if (channel < 0 || channel % 2 || channel / 2 >= k->n_ports)
		return NULL;
	struct bytes_queue *in = &k->ports[channel / 2].in;

	return in->ended ? NULL : bq_put(in, data.p, data.n, WS_QUEUE_MAX);
}

static void pws_reader(void *arg)
{
	struct pf_session *k = arg;
	buf_cleanup struct buf decoded = {0};

	for (;;) {
		enum ws_kind kind;
		struct str m;
		struct error *e = ws_read(k->ws, &kind, &m, NULL);

		if (!e && kind != WS_CLOSE)
			e = pws_message(k, m, &decoded);
		if (error_is_sys(e, EPIPE))
			error_clear(&e); /* that connection has ended; others have not */
		if (e || kind == WS_CLOSE) {
			error_free(e);
			break;
		}
	}
	k->gone = true;
	for (int i = 0; i < k->n_ports; i++)
		bq_end(&k->ports[i].in);
	waitq_wake_all(&k->q);
}

static void pws_hung_up(void *arg)
{
	struct pf_session *k = arg;

	k->gone = true;
	for (int i = 0; i < k->n_ports; i++)
		if (bq_len(&k->ports[i].in) >= WS_QUEUE_MAX)
			bq_end(&k->ports[i].in);
	waitq_wake_all(&k->q);
}

static struct error *read_ports(struct http_exchange *x, struct pf_session *k)
{
	k->ports = xcalloc(WS_PORTS_MAX, sizeof *k->ports);
	for (struct str rest = x->query; rest.p;) {
		struct str value = str_cut(&rest, '&'), key = http_unescape(x->arena, str_cut(&value, '='), true);

		if (!str_eqz(key, "ports") && !str_eqz(key, "port"))
			continue;
		for (struct str list = http_unescape(x->arena, value, true); list.p;) {
			int64_t port;

			if (!str_to_i64(str_cut(&list, ','), &port) || port < 1 || port > 65535 || k->n_ports == WS_PORTS_MAX)
				return error_status(400, "BadRequest", "ports must be numbers from 1 to 65535, %d at most", WS_PORTS_MAX);
			k->ports[k->n_ports] = (struct pf_ws_port){.s.ops = &pws_ops, .k = k, .index = k->n_ports,
								   .port = (uint16_t)port};
			k->n_ports++;
		}
	}
	return k->n_ports ? NULL : error_status(400, "BadRequest", "query parameter \"ports\" is required");
}

static struct error *start_ws(struct pf_session *k)
{
	k->bottom = net_bottom(ws_under(k->ws));
	stream_on_hangup(k->bottom, pws_hung_up, k);
	k->reader = fiber_start("port-forward websocket", pws_reader, k);
	/* Each channel begins with its port, little end first. */
	for (int i = 0; i < k->n_ports; i++) {
		char port[2] = {(char)k->ports[i].port, (char)(k->ports[i].port >> 8)};

		TRY(ws_send(k, 2 * i, port, 2));
		TRY(ws_send(k, 2 * i + 1, port, 2));
	}
	return NULL;
}

static struct error *next_ws(struct pf_session *k, struct pf_pair **out)
{
	for (;;) {
		if (k->gone)
			return error_sys(EPIPE, "the client has gone");
		for (int i = 0; i < k->n_ports; i++) {
			struct pf_ws_port *w = &k->ports[i];

			if (w->given)
				continue;
			w->given = true;
			struct pair *p = xcalloc(1, sizeof *p);

			p->k = k;
			p->ws = w;
			p->pub.port = w->port;
			p->pub.data = &w->s;
			p->pub.impl = p;
			k->n_pairs++;
			*out = &p->pub;
			return NULL;
		}
		if (!k->n_pairs)
			return error_sys(EPIPE, "every connection has ended"); /* its ports are all there will be */
		TRY(waitq_wait(&k->q));
	}
}

/* ---- both ---- */

static struct error *accept_ws(struct http_exchange *x, struct pf_session *k)
{
	static const char *const ours[] = {TUNNEL, "v4.channel.k8s.io", "v4.base64.channel.k8s.io", NULL};
	const char *chosen;
	bool tunnel = false;

	for (size_t i = 0; i < x->headers.n; i++)
		if (str_eqz(x->headers.v[i].name, "sec-websocket-protocol"))
			for (struct str rest = x->headers.v[i].value; rest.p;)
				tunnel = tunnel || str_eqz(str_trim(str_cut(&rest, ',')), TUNNEL);
	if (!tunnel)
		TRY(read_ports(x, k));
	TRY(ws_accept(x, ours, WS_MESSAGE_MAX, &chosen, &k->ws));
	if (tunnel) {
		struct stream *s = ws_stream(k->ws);

		k->ws = NULL;
		return spdy_new(s, true, &k->spdy);
	}
	k->base64 = chosen == ours[2];
	return start_ws(k);
}

struct error *pf_accept(struct http_exchange *x, struct pf_session **out)
{
	static const char *const ours[] = {PROTOCOL, NULL};
	struct pf_session *k = xcalloc(1, sizeof *k);
	struct error *e;

	*out = NULL;
	if (ws_requested(x)) {
		e = accept_ws(x, k);
	} else if (rc_spdy_requested(x)) {
		bool offered;
		const char *p = rc_choose_protocol(x, ours, &offered);

		e = offered && !p ? error_status(403, "Forbidden", "unable to upgrade: no common X-Stream-Protocol-Version")
				  : rc_spdy_upgrade(x, PROTOCOL, &k->spdy);
	} else {
		e = error_status(400, "BadRequest", "unable to upgrade: ask for SPDY/3.1 or websocket");
	}
	if (e) {
		pf_free(k);
		return e;
	}
	*out = k;
	return NULL;
}

struct error *pf_next(struct pf_session *k, struct pf_pair **out)
{
	*out = NULL;
	return k->spdy ? next_spdy(k, out) : next_ws(k, out);
}

void pf_pair_finish(struct pf_pair *pub, struct error *e)
{
	struct pair *p = pub->impl;
	struct error *e2 = NULL;

	fiber_shield_begin();
	int64_t d = deadline_push(1000);

	if (p->ws) {
		if (e)
			e2 = ws_send(p->k, p->ws->index * 2 + 1, e->message, strlen(e->message));
		p->ws->ended = true;
		bq_end(&p->ws->in);
	} else {
		if (e)
			e2 = stream_write(&p->error->s, e->message, strlen(e->message));
		if (!e2)
			e2 = stream_shutdown(&p->error->s);
		if (!e2)
			e2 = stream_shutdown(&p->data->s);
		stream_close(&p->error->s);
		stream_close(&p->data->s);
	}
	/* Whoever is told has gone, or will see the connection break. */
	error_free(e2);
	deadline_pop(d);
	fiber_shield_end();
	p->k->n_pairs--;
	if (p->ws)
		waitq_wake_all(&p->k->q);
	error_free(e);
	free(p);
}

void pf_free(struct pf_session *k)
{
	if (!k)
		return;
	fiber_shield_begin();
	if (k->bottom)
		stream_on_hangup(k->bottom, NULL, NULL);
	if (k->ws && !k->gone && k->reader) {
		int64_t d = deadline_push(1000);

		error_free(ws_close(k->ws, 1000, STR_NULL));
		deadline_pop(d);
	}
	fiber_stop(k->reader);
	fiber_shield_end();
	ws_free(k->ws);
	spdy_free(k->spdy);
	for (int i = 0; i < k->n_ports; i++)
		buf_free(&k->ports[i].in.b);
	free(k->ports);
	free(k);
}
