/* Watches over WebSockets: see watch_socket.h. */
#include "apiserver/watch_socket.h"
#include "net/websocket.h"

#define STALL_MS 120000     /* without progress, as for bodies of answers */
#define GOODBYE_MS 2000
#define MESSAGE_MAX 65536   /* of what the client sends, which is dropped */

struct watch_socket {
	struct websocket *ws;
	struct fiber *reader, *owner;
	enum ws_kind kind;
	bool gone;
};

/* Without somebody reading, neither pings nor a close are seen. */
static void read_and_drop(void *arg)
{
	struct watch_socket *s = arg;
	enum ws_kind kind;
	struct str msg;
	struct error *e;

	do {
		e = ws_read(s->ws, &kind, &msg, NULL);
	} while (!e && kind != WS_CLOSE);
	if (e && !error_is_sys(e, ECANCELED))
		log_v(3, "watch over WebSocket: %s", error_message(e));
	error_free(e);
	s->gone = true;
	if (s->owner)
		fiber_cancel(s->owner);
}

/*
 * The subprotocol is chosen by the client: upstream names the one that is offered, bearer tokens aside (the authenticator takes
 * those out), and refuses a choice.
 */
static struct error *offered_protocol(struct request *rq, const char **out)
{
	*out = NULL;
	for (size_t i = 0; i < rq->x->headers.n; i++) {
		if (!str_eqz(rq->x->headers.v[i].name, "sec-websocket-protocol"))
			continue;
		for (struct str rest = rq->x->headers.v[i].value; rest.p;) {
			struct str p = str_trim(str_cut(&rest, ','));

			if (!p.n || str_has_prefix(p, STR("base64url.bearer.authorization.k8s.io.")))
				continue;
			if (*out)
				return err_bad_request("a watch over WebSocket has one subprotocol at most");
			*out = arena_strz(rq->a, p);
		}
	}
	return NULL;
}

struct error *watch_socket_open(struct request *rq, struct watch_socket **out)
{
	const char *protocols[2] = {NULL, NULL};
	struct watch_socket *s;
	struct websocket *ws;

	*out = NULL;
	TRY(offered_protocol(rq, &protocols[0]));
	rq->status = 101;
	TRY(ws_accept(rq->x, protocols, MESSAGE_MAX, NULL, &ws));
	s = xcalloc(1, sizeof *s);
	s->ws = ws;
	s->owner = fiber_self();
	s->kind = rq->out.media == MEDIA_JSON ? WS_TEXT : WS_BINARY;
	s->reader = fiber_start("watch-socket", read_and_drop, s);
	*out = s;
	return NULL;
}

struct error *watch_socket_send(struct watch_socket *s, struct str event)
{
	int64_t d = deadline_push(STALL_MS);
	struct error *e = ws_write(s->ws, s->kind, event, STR(""));

	deadline_pop(d);
	return e;
}

void watch_socket_close(struct watch_socket *s)
{
	if (!s)
		return;
	s->owner = NULL;
	if (!s->gone) {
		int64_t d = deadline_push(GOODBYE_MS);

		error_free(ws_close(s->ws, 1000, STR(""))); /* a client that does not hear it sees the connection end */
		deadline_pop(d);
	}
	fiber_stop(s->reader);
	ws_free(s->ws);
	free(s);
}
