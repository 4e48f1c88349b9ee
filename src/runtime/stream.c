/*
 * Exec, attach and port-forward: CRI answers with a URL of this server; the kubelet connects its client to it. URLs hold
 * a random token that works once, within a minute, on loopback only.
 */
#include "runtime/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "net/http.h"
#include "net/remotecommand.h"

#define TOKEN_MS 60000
#define MAX_TOKENS 1000
#define DRAIN_MS 1000
#define CHUNK 8192 /* conmon reads attached input in records of this size */

struct token {
	enum rt_stream_kind kind;
	char id[RT_ID_LEN + 1];
	struct arena a;
	struct strings cmd;
	struct rc_opts o;
	int64_t until;
};

static void token_free(struct token *t)
{
	arena_free(&t->a);
	free(t);
}

struct error *rt_stream_url(struct rt *rt, struct arena *a, enum rt_stream_kind kind, struct str id, const struct strings *cmd, bool tty,
			    bool in, bool out, bool err, struct str *url)
{
	static const char *const names[] = {"exec", "attach", "portforward"};
	struct str key;
	void *v;
	for (size_t it = 0; map_next(&rt->stream_tokens, &it, &key, &v);)
		if (((struct token *)v)->until < now_ms()) {
			map_del(&rt->stream_tokens, key);
			token_free(v);
		}
	if (rt->stream_tokens.n >= MAX_TOKENS)
		return error_status(429, "TooManyRequests", "more than %d streams wait for their client", MAX_TOKENS);
	if (kind != RT_STREAM_PORTFORWARD && !in && !out && !err)
		return error_status(400, "Invalid", "one of stdin, stdout and stderr must be asked for");
	struct token *t = xcalloc(1, sizeof(*t));
	t->kind = kind;
	snprintf(t->id, sizeof(t->id), "%.*s", STR_ARG(id));
	for (uint32_t i = 0; cmd && i < cmd->n; i++)
		*arena_push(&t->a, &t->cmd) = arena_str(&t->a, cmd->v[i]);
	t->o = (struct rc_opts){.in = in, .out = out, .err = err && !tty, .tty = tty};
	t->until = now_ms() + TOKEN_MS;
	char tok[33];
	snprintf(tok, sizeof(tok), "%016llx%016llx", (unsigned long long)random_u64(), (unsigned long long)random_u64());
	map_set(&rt->stream_tokens, str_from(tok), t);
	*url = arena_printf(a, "%s/%s/%s", rt->stream_base, names[kind], tok);
	return NULL;
}

/* ---- pumps ---- */

struct pump {
	struct stream *from, *to;
	bool close_to;  /* end of input: `to` is shut down */
	bool attached;  /* conmon's records: a type byte in front */
	struct stream *to_err;
	bool done;
	struct waitq *q;
};

static struct error *pump_record(struct pump *p, const char *rec, size_t n)
{
	/* conmon: 2 is stdout, 3 is stderr */
	struct stream *to = n && rec[0] == 3 ? p->to_err : p->to;
	return n > 1 && to ? stream_write(to, rec + 1, n - 1) : NULL;
}

static void pump(void *arg)
{
	struct pump *p = arg;
	struct error *e = NULL;
	char buf[32 * 1024 + 1];
	size_t max = p->attached ? sizeof(buf) : CHUNK, got;
	for (;;) {
		e = stream_read(p->from, buf, max, &got);
		if (e || !got)
			break;
		e = p->attached ? pump_record(p, buf, got) : stream_write(p->to, buf, got);
		if (e)
			break;
	}
	error_free(e); /* EIO of a terminal whose process ended, a client that left: the end either way */
	if (p->close_to)
		error_free(stream_shutdown(p->to));
	p->done = true;
	waitq_wake_all(p->q);
}

struct resizer {
	struct rc_session *s;
	int tty;         /* the terminal, or -1 */
	const char *ctl; /* conmon's FIFO, or NULL */
};

static void resize(void *arg)
{
	struct resizer *r = arg;
	uint16_t w, h;
	for (;;) {
		struct error *e = rc_resize(r->s, &w, &h);
		if (e) {
			error_free(e);
			return;
		}
		if (r->tty >= 0) {
			struct winsize ws = {.ws_row = h, .ws_col = w};
			ioctl(r->tty, TIOCSWINSZ, &ws);
		} else if (r->ctl) {
			char text[32];
			int n = snprintf(text, sizeof(text), "1 %u %u\n", h, w);
			fd_cleanup int fd = open(r->ctl, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
			if (fd < 0 || write(fd, text, (size_t)n) != n)
				log_v(2, "window size of %s: %s", r->ctl, strerror(errno));
		}
	}
}

struct gone {
	struct rt *rt;
	struct rc_session *s;
	struct rt_exec *x;
	int fd;
};

static void when_gone(void *arg)
{
	struct gone *g = arg;
	struct error *e = rc_wait_gone(g->s);
	if (!e && g->x)
		rt_exec_kill(g->rt, g->x);
	if (!e && g->fd >= 0)
		shutdown(g->fd, SHUT_RDWR);
	error_free(e);
}

/* ---- exec ---- */

static void serve_exec(struct rt *rt, struct http_exchange *x, struct token *t, struct rt_container *c)
{
	struct rc_session *s;
	struct error *e = rc_accept(x, &t->o, &s);
	if (e) {
		http_respond(x, e->status ? e->status : 400, str_from(e->message));
		error_free(e);
		return;
	}
	int in[2] = {-1, -1}, out[2] = {-1, -1}, err[2] = {-1, -1}, code = 0;
	struct rt_exec ex = {.c = c, .cmd = &t->cmd, .tty = t->o.tty, .in = -1, .out = -1, .err = -1};
	if (!t->o.tty && ((t->o.in && pipe2(in, O_CLOEXEC) < 0) || pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0))
		e = error_sys(errno, "make a pipe");
	if (!t->o.tty) {
		ex.in = in[0];
		ex.out = out[1];
		ex.err = err[1];
	}
	if (!e)
		e = rt_exec_start(rt, &ex);
	sys_close(&in[0]);
	sys_close(&out[1]);
	sys_close(&err[1]);
	if (e) {
		sys_close(&in[1]);
		sys_close(&out[0]);
		sys_close(&err[0]);
		rc_finish(s, 0, e);
		return;
	}
	struct waitq q = {0};
	int second = t->o.tty ? fcntl(ex.console, F_DUPFD_CLOEXEC, 3) : -1;
	struct stream *from_out = fd_stream(t->o.tty ? ex.console : out[0]);
	struct stream *from_err = t->o.tty ? NULL : fd_stream(err[0]);
	struct stream *to_in = t->o.tty ? fd_stream(second) : t->o.in ? fd_stream(in[1]) : NULL;
	/* What nobody asked for is read and dropped, so that the process never blocks on it. */
	struct pump po = {.from = from_out, .to = NULL, .attached = false, .q = &q}, pe = {.from = from_err, .q = &q, .done = !from_err};
	struct pump pi = {.from = s->in, .to = to_in, .q = &q};
	struct fiber *fo = NULL, *fe = NULL, *fi = NULL, *fr = NULL, *fg = NULL;
	po.to = s->out;
	pe.to = s->err;
	po.attached = !s->out; /* record mode with no target drops */
	pe.attached = !s->err;
	fo = fiber_start("exec-out", pump, &po);
	if (from_err)
		fe = fiber_start("exec-err", pump, &pe);
	pi.close_to = !t->o.tty;
	if (s->in && to_in)
		fi = fiber_start("exec-in", pump, &pi);
	struct resizer rz = {s, t->o.tty ? stream_fd(from_out) : -1, NULL};
	if (t->o.tty)
		fr = fiber_start("exec-resize", resize, &rz);
	struct gone g = {rt, s, &ex, -1};
	fg = fiber_start("exec-gone", when_gone, &g);
	e = rt_exec_wait(rt, &ex, &code);
	g.x = NULL;
	int64_t until = now_ms() + DRAIN_MS;
	while (!(po.done && pe.done) && now_ms() < until) {
		struct error *w = waitq_wait_ms(&q, until - now_ms());
		bool stop = w && !error_is_sys(w, ETIMEDOUT);
		error_free(w);
		if (stop)
			break;
	}
	fiber_stop(fo);
	fiber_stop(fe);
	fiber_stop(fi);
	fiber_stop(fr);
	fiber_stop(fg);
	stream_close(from_out);
	stream_close(from_err);
	stream_close(to_in);
	rc_finish(s, code, e);
}

/* ---- attach ---- */

static struct error *attach_socket(struct rt *rt, struct rt_container *c, int *out)
{
	str_cleanup char *bundle = rt_bundle_dir(rt, c->id);
	/* The path may be longer than a socket address takes. */
	fd_cleanup int dir = open(bundle, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return error_sys(errno, "open %s", bundle);
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	snprintf(un.sun_path, sizeof(un.sun_path), "/proc/self/fd/%d/attach", dir);
	*out = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (*out < 0 || connect(*out, (struct sockaddr *)&un, sizeof(un)) < 0) {
		struct error *e = error_sys(errno, "attach to container %s", c->id);
		sys_close(out);
		return e;
	}
	return NULL;
}

static void serve_attach(struct rt *rt, struct http_exchange *x, struct token *t, struct rt_container *c)
{
	struct rc_session *s;
	int fd = -1;
	struct error *e = attach_socket(rt, c, &fd);
	if (!e && (e = rc_accept(x, &t->o, &s)))
		sys_close(&fd);
	if (e) {
		http_respond(x, e->status ? e->status : 500, str_from(e->message));
		error_free(e);
		return;
	}
	str_cleanup char *bundle = rt_bundle_dir(rt, c->id);
	str_cleanup char *ctl = sys_path(bundle, "ctl");
	struct waitq q = {0};
	struct stream *sock = fd_stream(fd);
	struct pump po = {.from = sock, .to = s->out, .to_err = s->err ? s->err : (t->o.tty ? s->out : NULL), .attached = true, .q = &q};
	struct pump pi = {.from = s->in, .to = sock, .close_to = true, .q = &q};
	struct resizer rz = {s, -1, ctl};
	struct gone g = {rt, s, NULL, fd};
	struct fiber *fo = fiber_start("attach-out", pump, &po), *fi = NULL, *fr = NULL;
	struct fiber *fg = fiber_start("attach-gone", when_gone, &g);
	if (s->in)
		fi = fiber_start("attach-in", pump, &pi);
	if (t->o.tty)
		fr = fiber_start("attach-resize", resize, &rz);
	/* Input that may come again ends the session with the client's, as in other runtimes; with stdinOnce its output is waited for. */
	bool leave = s->in && (t->o.tty || !c->rec.config->stdin_once);
	while (!po.done && !(leave && pi.done) && !e)
		e = waitq_wait(&q);
	fiber_stop(fo);
	fiber_stop(fi);
	fiber_stop(fr);
	fiber_stop(fg);
	stream_close(sock);
	rc_finish(s, 0, e);
}

/* ---- port-forward ---- */

struct forwards { /* of one session */
	size_t active;
	struct waitq q;
};
struct forward {
	struct rt *rt;
	struct rt_sandbox *s;
	struct pf_pair *p;
	struct forwards *all;
};

struct netns_job {
	const char *path;
	int family, fd;
};

static struct error *netns_socket(void *arg)
{
	struct netns_job *j = arg;
	return rt_netns_socket(j->path, j->family, &j->fd);
}

static struct error *connect_pod(struct rt *rt, struct rt_sandbox *s, int family, uint16_t port, int *out)
{
	str_cleanup char *dir = rt_sandbox_dir(rt, s->id);
	str_cleanup char *own = sys_path(dir, "net");
	struct netns_job j = {rt_sandbox_ns(s)->network == CRI_NAMESPACE_NODE ? "/proc/self/ns/net" : own, family, -1};
	TRY(sys_offload(netns_socket, &j));
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	const struct sockaddr *to = family == AF_INET ? (const struct sockaddr *)&v4 : (const struct sockaddr *)&v6;
	struct error *e = NULL;
	if (connect(j.fd, to, family == AF_INET ? sizeof(v4) : sizeof(v6)) < 0) {
		int sys = errno;
		socklen_t n = sizeof(sys);
		if (sys == EINPROGRESS) {
			e = fd_wait_write(j.fd);
			if (!e && getsockopt(j.fd, SOL_SOCKET, SO_ERROR, &sys, &n) < 0)
				sys = errno;
		}
		if (!e && sys)
			e = error_sys(sys, "failed to connect to localhost:%u inside namespace of pod %s", port, s->id);
	}
	if (e)
		close(j.fd);
	else
		*out = j.fd;
	return e;
}

static void forward(void *arg)
{
	struct forward f = *(struct forward *)arg;
	free(arg);
	sandbox_cleanup struct rt_sandbox *s = f.s;
	int fd = -1;
	int64_t token = deadline_push(10000);
	struct error *e = connect_pod(f.rt, s, AF_INET, f.p->port, &fd);
	if (e && !fiber_cancelled()) {
		struct error *e6 = connect_pod(f.rt, s, AF_INET6, f.p->port, &fd);
		if (!e6)
			error_clear(&e);
		error_free(e6);
	}
	deadline_pop(token);
	if (!e) {
		struct stream *pod = fd_stream(fd);
		struct error *io = stream_splice(f.p->data, pod);
		error_free(io); /* either side has ended */
		stream_close(pod);
	}
	pf_pair_finish(f.p, e);
	f.all->active--;
	waitq_wake_all(&f.all->q);
}

static void serve_portforward(struct rt *rt, struct http_exchange *x, struct rt_sandbox *s)
{
	struct pf_session *pf;
	struct error *e = pf_accept(x, &pf);
	if (e) {
		http_respond(x, e->status ? e->status : 400, str_from(e->message));
		error_free(e);
		return;
	}
	struct forwards all = {0};
	struct pf_pair *p;
	while (!(e = pf_next(pf, &p))) {
		struct forward *f = xcalloc(1, sizeof(*f));
		*f = (struct forward){rt, s, p, &all};
		s->refs++;
		all.active++;
		fiber_spawn("port-forward", forward, f);
	}
	error_free(e); /* the session has ended, and with it the client's side of every connection */
	fiber_shield_begin();
	while (all.active)
		error_free(waitq_wait(&all.q));
	fiber_shield_end();
	pf_free(pf);
}

/* ---- the server ---- */

static void serve(struct http_exchange *x, void *ctx)
{
	struct rt *rt = ctx;
	static const char *const prefixes[] = {"/exec/", "/attach/", "/portforward/"};
	struct token *t = NULL;
	for (size_t i = 0; i < 3 && !t; i++)
		if (str_has_prefix(x->path, str_from(prefixes[i]))) {
			struct str tok = str_sub(x->path, strlen(prefixes[i]), x->path.n);
			t = map_get(&rt->stream_tokens, tok);
			if (t && (size_t)t->kind == i)
				map_del(&rt->stream_tokens, tok);
			else
				t = NULL;
		}
	if (!t || t->until < now_ms()) {
		if (t)
			token_free(t);
		http_respond(x, 404, STR("no such stream: it was used already or is older than a minute\n"));
		return;
	}
	container_cleanup struct rt_container *c = t->kind == RT_STREAM_PORTFORWARD ? NULL : rt_container_get(rt, str_from(t->id));
	sandbox_cleanup struct rt_sandbox *s = t->kind == RT_STREAM_PORTFORWARD ? rt_sandbox_get(rt, str_from(t->id)) : NULL;
	if (t->kind == RT_STREAM_PORTFORWARD ? !s : !c)
		http_respond(x, 404, STR("the container or pod is gone\n"));
	else if (t->kind == RT_STREAM_EXEC)
		serve_exec(rt, x, t, c);
	else if (t->kind == RT_STREAM_ATTACH)
		serve_attach(rt, x, t, c);
	else
		serve_portforward(rt, x, s);
	token_free(t);
}

struct error *rt_stream_start(struct rt *rt)
{
	struct listener *l;
	struct http_server *server;
	TRY(listener_open(rt->o.stream_addr, 0600, &l));
	snprintf(rt->stream_base, sizeof(rt->stream_base), "http://127.0.0.1:%d", listener_port(l));
	struct http_server_opts o = {.handler = serve, .ctx = rt, .max_connections = 2000};
	return http_server_start(l, &o, &server);
}
