/*
 * An API server of one pod for tests/integration/streams_test.sh: enough for a real kubectl to exec, attach, copy and
 * port-forward. Commands run on this machine as the caller.
 *   streams_main ADDR
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include <fcntl.h>

#include "base/log.h"
#include "net/remotecommand.h"

#define BASE "/api/v1/namespaces/default/pods/p"

struct pump {
	struct stream *from, *to;
};

static void pump_fiber(void *arg)
{
	struct pump *p = arg;
	char *buf = xmalloc(32768);
	struct error *e = NULL;
	size_t n;

	while (!(e = stream_read(p->from, buf, 32768, &n)) && n)
		if ((e = stream_write(p->to, buf, n)))
			break;
	error_free(e);
	/* The command sees the end of its input. */
	error_free(stream_shutdown(p->to));
	free(buf);
}

static void wait_gone_fiber(void *arg)
{
	void **a = arg;

	error_free(rc_wait_gone(a[0]));
	if (!fiber_cancelled())
		error_free(proc_kill(a[1], SIGKILL));
}

static struct error *run(struct http_exchange *x, struct rc_session *s, const char *const *argv, int *code)
{
	int in[2] = {-1, -1}, out[2], err[2];
	struct proc *p;

	if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0)
		return error_new("pipe");
	struct proc_opts o = {.argv = argv, .stdin_fd = in[0], .stdout_fd = out[1], .stderr_fd = s->o.tty ? out[1] : err[1],
			      .new_session = true};
	struct error *e = proc_spawn(&o, &p);

	close(in[0]);
	close(out[1]);
	close(err[1]);
	struct stream *si = fd_stream(in[1]), *so = fd_stream(out[0]), *se = fd_stream(err[0]);
	struct pump pi = {s->in, si}, po = {so, s->out}, pe = {se, s->err};
	struct fiber *fi = NULL, *fo = NULL, *fe = NULL, *fg = NULL;
	int status = 0;

	if (!e) {
		void *pair[2] = {s, p};

		if (s->in)
			fi = fiber_start("in", pump_fiber, &pi);
		else
			error_free(stream_shutdown(si));
		if (s->out)
			fo = fiber_start("out", pump_fiber, &po);
		if (s->err)
			fe = fiber_start("err", pump_fiber, &pe);
		fg = fiber_start("gone", wait_gone_fiber, pair);
		if (fo)
			fiber_join(fo);
		if (fe)
			fiber_join(fe);
		fiber_stop(fg);
		e = proc_wait(p, &status);
		fiber_stop(fi);
	}
	stream_close(si);
	stream_close(so);
	stream_close(se);
	*code = WIFEXITED(status) ? WEXITSTATUS(status) : 137;
	return e;
}

static void exec_handler(struct http_exchange *x)
{
	const char *argv[32] = {"cat"};
	struct rc_opts o;
	struct rc_session *s;
	int n = 0, code = 0;
	struct error *e = rc_opts_from_query(x->arena, x->query, &o);

	for (struct str rest = x->query; rest.p;) {
		struct str v = str_cut(&rest, '&'), k = str_cut(&v, '=');

		if (str_eqz(k, "command") && n < 31)
			argv[n++] = arena_strz(x->arena, http_unescape(x->arena, v, true));
	}
	if (!e)
		e = rc_accept(x, &o, &s);
	if (e) {
		log_warn("%s", e->message);
		if (!http_started(x))
			error_free(http_respond(x, e->status ? e->status : 500, str_from(e->message)));
		error_free(e);
		return;
	}
	e = run(x, s, argv, &code);
	rc_finish(s, code, e);
}

static void pair_fiber(void *arg)
{
	struct pf_pair *p = arg;
	struct stream *s;
	char addr[32];

	snprintf(addr, sizeof addr, "127.0.0.1:%d", p->port);
	struct error *e = stream_connect(addr, &s);

	if (!e) {
		struct error *ignored = stream_splice(p->data, s);

		error_free(ignored); /* either side may just go */
		stream_close(s);
	}
	pf_pair_finish(p, e);
}

static void forward_handler(struct http_exchange *x)
{
	struct pf_session *s;
	struct error *e = pf_accept(x, &s);
	struct fiber *f[1000];
	int n = 0;

	if (e) {
		log_warn("%s", e->message);
		if (!http_started(x))
			error_free(http_respond(x, e->status ? e->status : 500, str_from(e->message)));
		error_free(e);
		return;
	}
	for (struct pf_pair *p; n < 1000 && !(e = pf_next(s, &p));)
		f[n++] = fiber_start("pair", pair_fiber, p);
	error_free(e);
	while (n > 0)
		fiber_stop(f[--n]);
	pf_free(s);
}

static const struct {
	const char *path, *json;
} docs[] = {
	{"/api", "{\"kind\":\"APIVersions\",\"versions\":[\"v1\"]}"},
	{"/apis", "{\"kind\":\"APIGroupList\",\"apiVersion\":\"v1\",\"groups\":[]}"},
	{"/api/v1",
	 "{\"kind\":\"APIResourceList\",\"groupVersion\":\"v1\",\"resources\":[{\"name\":\"pods\",\"singularName\":\"pod\","
	 "\"namespaced\":true,\"kind\":\"Pod\",\"verbs\":[\"get\",\"list\"]}]}"},
	{BASE,
	 "{\"kind\":\"Pod\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"p\",\"namespace\":\"default\"},\"spec\":{\"containers\":"
	 "[{\"name\":\"c\",\"image\":\"i\",\"stdin\":true}]},\"status\":{\"phase\":\"Running\"}}"},
};

static void handler(struct http_exchange *x, void *ctx)
{
	http_set_header(x, "Content-Type", STR("application/json"));
	for (size_t i = 0; i < sizeof docs / sizeof *docs; i++)
		if (str_eqz(x->path, docs[i].path)) {
			error_free(http_respond(x, 200, str_from(docs[i].json)));
			return;
		}
	if (str_eqz(x->path, BASE "/exec") || str_eqz(x->path, BASE "/attach"))
		exec_handler(x);
	else if (str_eqz(x->path, BASE "/portforward"))
		forward_handler(x);
	else
		error_free(http_respond(x, 404, STR("{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"status\":\"Failure\",\"code\":404}")));
}

static const char *addr;

static void main_fiber(void *arg)
{
	int sigs[] = {SIGINT, SIGTERM}, sig;
	struct http_server *s;
	struct listener *l;
	struct error *e = listener_open(addr, 0600, &l);

	if (!e)
		e = http_server_start(l, &(struct http_server_opts){.handler = handler}, &s);
	if (e) {
		log_and_free(e, "start");
		exit(1);
	}
	printf("%d\n", listener_port(l));
	fflush(stdout);
	log_and_free(signal_wait(sigs, 2, &sig), "signal");
	http_server_stop(s, 500);
}

int main(int argc, char **argv)
{
	addr = argc > 1 ? argv[1] : "127.0.0.1:0";
	log_init("streams", 0);
	struct error *e = loop_run(main_fiber, NULL);

	log_and_free(e, "loop");
	return e ? 1 : 0;
}
