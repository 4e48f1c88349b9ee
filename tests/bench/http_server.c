/*
 * A server for load tests and real clients: every request path is a behaviour.
 *   http_server ADDR [CERT KEY [CLIENT_CA]]
 * /get 1,700 bytes; /list 1.8 MB; /echo the request's body; /slow waits; /stream ten chunks; /big?n= zeros; /whoami the client.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "base/log.h"
#include "net/http.h"

static char get_body[1700], *list_body;
#define LIST_N (1800u * 1024)

static void handler(struct http_exchange *x, void *ctx)
{
	struct error *e = NULL;

	http_set_header(x, "Content-Type", STR("application/json"));
	if (str_eqz(x->path, "/get")) {
		http_set_header(x, "Audit-Id", STR("0b5a1d3e-5a0a-4b7c-9d55-3f6f0a3a1a11"));
		http_set_header(x, "Cache-Control", STR("no-cache, private"));
		e = http_respond(x, 200, str_of(get_body, sizeof get_body));
	} else if (str_eqz(x->path, "/list")) {
		struct iovec v[900];

		for (int i = 0; i < 900; i++)
			v[i] = (struct iovec){list_body + i * 2048, 2048};
		e = http_respond_iov(x, 200, v, 900);
	} else if (str_eqz(x->path, "/echo")) {
		struct str body;

		e = http_body_all(x, 8 << 20, &body);
		if (e && e->status) {
			struct error *e2 = http_respond(x, e->status, str_from(e->message));

			error_free(e);
			e = e2;
		} else if (!e) {
			e = http_respond(x, 200, body);
		}
	} else if (str_eqz(x->path, "/slow")) {
		e = fiber_sleep(5000);
		if (!e)
			e = http_respond(x, 200, STR("slow\n"));
	} else if (str_eqz(x->path, "/stream")) {
		e = http_start(x, 200);
		for (int i = 0; !e && i < 10; i++) {
			e = http_write(x, arena_printf(x->arena, "{\"i\":%d}\n", i));
			if (!e)
				e = fiber_sleep(20);
		}
		http_set_trailer(x, "X-Sum", STR("45"));
		if (!e)
			e = http_end(x);
	} else if (str_eqz(x->path, "/whoami")) {
		e = http_respond(x, 200, x->peer ? arena_printf(x->arena, "%.*s\n", STR_ARG(x->peer->common_name)) : STR("nobody\n"));
	} else {
		e = http_respond(x, 404, STR("not here\n"));
	}
	if (e)
		log_v(2, "%.*s: %s", STR_ARG(x->path), e->message);
	error_free(e);
}

static char **args;
static int n_args;

static void main_fiber(void *arg)
{
	struct listener *l;
	struct http_server *s;
	struct http_server_opts o = {.handler = handler};
	int sigs[] = {SIGINT, SIGTERM}, sig;
	struct error *e = listener_open(args[1], 0600, &l);

	if (!e && n_args >= 4) {
		struct tls_server_opts t = {.cert_file = args[2], .key_file = args[3], .http2 = true,
					    .client_ca_file = n_args > 4 ? args[4] : NULL};

		e = tls_server_new(&t, &o.tls);
	}
	if (!e)
		e = http_server_start(l, &o, &s);
	if (e) {
		log_and_free(e, "start");
		exit(1);
	}
	printf("port %d\n", listener_port(l));
	fflush(stdout);
	log_and_free(signal_wait(sigs, 2, &sig), "signal");
	http_server_stop(s, 1000);
	tls_server_free(o.tls);
	struct rusage ru;
	size_t fibers, high;

	loop_stats(&fibers, &high);
	getrusage(RUSAGE_SELF, &ru);
	printf("cpu %ld.%03ld s (user %ld.%03ld), rss %ld KiB, stack high water %zu\n",
	       ru.ru_utime.tv_sec + ru.ru_stime.tv_sec + (ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1000000,
	       (ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) % 1000000 / 1000, ru.ru_utime.tv_sec, ru.ru_utime.tv_usec / 1000,
	       ru.ru_maxrss, high);
}

int main(int argc, char **argv)
{
	if (argc < 2)
		return 2;
	log_init("bench", 0);
	args = argv;
	n_args = argc;
	memset(get_body, 'x', sizeof get_body);
	list_body = malloc(LIST_N);
	memset(list_body, 'y', LIST_N);
	struct error *e = loop_run(main_fiber, NULL);

	log_and_free(e, "loop");
	free(list_body);
	return 0;
}
