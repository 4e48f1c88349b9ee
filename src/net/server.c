/* Listening, and the choice between HTTP/1.1 and HTTP/2. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "net/internal.h"

#define END_MS 10000
#define LINGER_MS 1000
#define LINGER_BYTES (4u << 20)

struct accepted {
	struct http_server *srv;
	struct stream *s;
	struct sockaddr_storage remote;
};

void net_linger(struct stream *s)
{
	size_t got, total = 0;
	int64_t t = deadline_push(LINGER_MS);
	struct error *e = stream_shutdown(s);

	while (!e && total < LINGER_BYTES && !(e = stream_read(s, net_scratch(), SCRATCH, &got)) && got)
		total += got;
	error_free(e);
	deadline_pop(t);
}

static void serve(struct conn *c)
{
	struct rbuf in = {0};
	struct http_server *srv = c->srv;

	c->raw = c->s;
	if (srv->o.tls) {
		struct stream *t;
		int64_t d = deadline_push(srv->o.header_timeout_ms);
		struct error *e = tls_accept(srv->o.tls, c->s, &t);

		deadline_pop(d);
		c->s = t;
		if (e) {
			/* Port scanners and wrong certificates are no trouble of ours. */
			srv->bad_handshakes++;
			log_v(3, "http: %s", e->message);
			error_free(e);
			return;
		}
	}
	in.s = c->s;
	if (strcmp(tls_stream_alpn(c->s), "h2") == 0 || h1_serve(c, &in))
		h2_serve(c, &in);
	rbuf_free(&in);
}

static void conn_fiber(void *arg)
{
	struct accepted *a = arg;
	struct http_server *srv = a->srv;
	struct conn c = {.srv = srv, .s = a->s, .remote = a->remote, .fiber = fiber_self()};

	free(a);
	c.next = srv->conns;
	if (c.next)
		c.next->prev = &c;
	srv->conns = &c;
	serve(&c);
	stream_close(c.s);
	if (c.prev)
		c.prev->next = c.next;
	else
		srv->conns = c.next;
	if (c.next)
		c.next->prev = c.prev;
	srv->n_conns--;
	waitq_wake_all(&srv->gone);
}

static void accept_fiber(void *arg)
{
	struct http_server *srv = arg;

	for (;;) {
		struct stream *s;
		struct sockaddr_storage remote;
		struct error *e = listener_accept(srv->l, &s, &remote);

		if (error_is_sys(e, ECANCELED)) {
			error_free(e);
			return;
		}
		if (e) {
			/* Out of descriptors or memory: others must end first. */
			log_and_free(e, "http");
			error_free(fiber_sleep(100));
			continue;
		}
		if (srv->n_conns >= srv->o.max_connections || loop_fiber_room() < FIBERS_SPARE) {
			stream_close(s);
			continue;
		}
		struct accepted *a = xmalloc(sizeof *a);

		*a = (struct accepted){srv, s, remote};
		srv->n_conns++;
		fiber_spawn("http connection", conn_fiber, a);
	}
}

struct error *http_server_start(struct listener *l, const struct http_server_opts *o, struct http_server **out)
{
	struct http_server *s = xcalloc(1, sizeof *s);

	assert(o->handler);
	s->o = *o;
	s->l = l;
	if (!s->o.max_header_bytes)
		s->o.max_header_bytes = MAX_HEADER_BYTES;
	if (!s->o.max_streams)
		s->o.max_streams = 250;
	if (!s->o.max_connections)
		s->o.max_connections = 20000;
	if (!s->o.header_timeout_ms)
		s->o.header_timeout_ms = 32000;
	if (!s->o.idle_timeout_ms)
		s->o.idle_timeout_ms = 90000;
	s->acceptor = fiber_start("http accept", accept_fiber, s);
	*out = s;
	return NULL;
}

static void wait_gone(struct http_server *s, int64_t ms)
{
	int64_t end = now_ms() + ms;

	while (s->n_conns && now_ms() < end)
		error_free(waitq_wait_ms(&s->gone, end - now_ms()));
}

uint64_t http_server_bad_handshakes(const struct http_server *s)
{
	return s->bad_handshakes;
}

void http_server_stop(struct http_server *s, int64_t grace_ms)
{
	if (!s)
		return;
	fiber_shield_begin();
	fiber_stop(s->acceptor);
	listener_close(s->l);
	s->stopping = true;
	for (struct conn *c = s->conns; c; c = c->next)
		if (c->drain)
			c->drain(c);
	wait_gone(s, grace_ms);
	for (struct conn *c = s->conns; c; c = c->next)
		fiber_cancel(c->fiber);
	wait_gone(s, END_MS);
	fiber_shield_end();
	if (s->n_conns) {
		/* A handler that ignores its cancellation still uses it. */
		log_error("http: %zu connections did not end", s->n_conns);
		return;
	}
	free(s);
}
