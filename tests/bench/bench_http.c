/*
 * HTTP on this machine: a server process and a load process, both of this project. Prints requests per CPU-second of the
 * server, latency, and what 10,000 idle connections cost it.
 *   bench_http [seconds per line, default 2] [idle connections, default 10000]
 */
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#include "../unit/net/net_test.h"

#define GET_N 1700
#define LIST_N (1800u << 10)
#define BLOCK 2048

static char dir[] = "/tmp/skiff-bench-XXXXXX";
static char *body;
static int ports[2]; /* clear text, TLS */

/* ---- server ---- */

static void handler(struct http_exchange *x, void *ctx)
{
	struct error *e;

	http_set_header(x, "Content-Type", STR("application/json"));
	if (str_eqz(x->path, "/list")) {
		struct iovec v[LIST_N / BLOCK];

		for (unsigned i = 0; i < LIST_N / BLOCK; i++)
			v[i] = (struct iovec){body + i * BLOCK, BLOCK};
		e = http_respond_iov(x, 200, v, LIST_N / BLOCK);
	} else if (str_eqz(x->path, "/events")) {
		/* Watch events of 2 kB, as fast as they are taken. */
		e = http_start(x, 200);
		while (!e)
			e = http_write(x, str_of(body, BLOCK));
	} else if (str_eqz(x->method, "POST")) {
		struct str in;

		e = http_body_all(x, 1 << 20, &in);
		if (!e)
			e = http_respond(x, 201, in);
	} else {
		http_set_header(x, "Audit-Id", STR("0b5a1d3e-5a0a-4b7c-9d55-3f6f0a3a1a11"));
		http_set_header(x, "Cache-Control", STR("no-cache, private"));
		e = http_respond(x, 200, str_of(body, GET_N));
	}
	error_free(e);
}

static void server_main(void *arg)
{
	int *out = arg, sigs[] = {SIGTERM}, sig;
	struct http_server *s[2];
	struct tls_server *tls;
	char cert[300], key[300];

	snprintf(cert, sizeof cert, "%s/srv.crt", dir);
	snprintf(key, sizeof key, "%s/srv.key", dir);
	OK(tls_server_new(&(struct tls_server_opts){.cert_file = cert, .key_file = key, .http2 = true}, &tls));
	for (int i = 0; i < 2; i++) {
		struct listener *l;

		OK(listener_open("127.0.0.1:0", 0, &l));
		ports[i] = listener_port(l);
		OK(http_server_start(l, &(struct http_server_opts){.handler = handler, .tls = i ? tls : NULL,
								    .idle_timeout_ms = 600000, .max_connections = 100000}, &s[i]));
	}
	CHECK(write(*out, ports, sizeof ports) == sizeof ports);
	OK(signal_wait(sigs, 1, &sig));
	for (int i = 0; i < 2; i++)
		http_server_stop(s[i], 0);
	tls_server_free(tls);
}

/* ---- load ---- */

struct load {
	struct http_client *c;
	const char *path;
	int64_t end;
	size_t done, bytes;
	int64_t *lat;
	size_t n_lat, cap_lat;
};

static void load_fiber(void *arg)
{
	struct load *l = arg;
	struct arena a = {0};
	char *buf = malloc(65536);
	bool post = strcmp(l->path, "/post") == 0, events = strcmp(l->path, "/events") == 0;

	while (now_ns() < l->end) {
		struct http_response r;
		int64_t t = now_ns();
		size_t n;

		OK(http_do(l->c, &a, post ? "POST" : "GET", str_from(l->path), NULL, 0, post ? str_of(body, GET_N) : STR_NULL, &r));
		do {
			OK(http_response_read(&r, buf, 65536, &n));
			l->bytes += n;
			if (events)
				l->done += n / BLOCK;
		} while (n && !(events && now_ns() >= l->end));
		http_response_close(&r);
		if (!events)
			l->done++;
		if (l->n_lat < l->cap_lat)
			l->lat[l->n_lat++] = now_ns() - t;
		arena_reset(&a);
	}
	free(buf);
	arena_free(&a);
}

static int cmp64(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

static double cpu_of(pid_t pid)
{
	clockid_t c;
	struct timespec ts = {0};

	if (clock_getcpuclockid(pid, &c) == 0)
		clock_gettime(c, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static size_t rss_of(pid_t pid)
{
	char path[64];
	size_t size, rss = 0;

	snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
	FILE *f = fopen(path, "re");

	if (f && fscanf(f, "%zu %zu", &size, &rss) != 2)
		rss = 0;
	if (f)
		fclose(f);
	return rss * 4096;
}

static struct tls_client *tls_for(bool http2)
{
	struct tls_client *t;
	char ca[300];

	snprintf(ca, sizeof ca, "%s/ca.crt", dir);
	OK(tls_client_new(&(struct tls_client_opts){.ca_file = ca, .http2 = http2}, &t));
	return t;
}

static struct http_client *client_for(bool tls, bool http2, struct tls_client *t)
{
	struct http_client *c;
	char base[64];

	snprintf(base, sizeof base, "http%s://127.0.0.1:%d", tls ? "s" : "", ports[tls]);
	OK(http_client_new(&(struct http_client_opts){.base = base, .tls = t, .http2_prior_knowledge = http2 && !tls}, &c));
	return c;
}

static pid_t server;
static double seconds;

static void line(const char *name, bool tls, bool http2, const char *path, int conns, int streams)
{
	struct tls_client *t = tls ? tls_for(http2) : NULL;
	struct http_client *c[64];
	struct load *l = calloc((size_t)(conns * streams), sizeof *l);
	struct fiber **f = calloc((size_t)(conns * streams), sizeof(struct fiber *));
	struct fiber *warm;

	for (int i = 0; i < conns; i++) {
		c[i] = client_for(tls, http2, t);
		/* Handshakes are not what is measured. */
		struct load w = {.c = c[i], .path = "/get", .end = now_ns() + 1000000};

		warm = fiber_start("warm", load_fiber, &w);
		fiber_join(warm);
	}
	double cpu = cpu_of(server);
	int64_t start = now_ns();

	for (int i = 0; i < conns * streams; i++) {
		l[i] = (struct load){.c = c[i % conns], .path = path, .end = start + (int64_t)(seconds * 1e9), .cap_lat = 20000};
		l[i].lat = malloc(l[i].cap_lat * sizeof(int64_t));
		f[i] = fiber_start("load", load_fiber, &l[i]);
	}
	for (int i = 0; i < conns * streams; i++)
		fiber_join(f[i]);
	double took = (double)(now_ns() - start) / 1e9;

	cpu = cpu_of(server) - cpu;
	size_t done = 0, bytes = 0, n = 0;
	int64_t *all = malloc((size_t)(conns * streams) * 20000 * sizeof *all);

	for (int i = 0; i < conns * streams; i++) {
		done += l[i].done;
		bytes += l[i].bytes;
		memcpy(all + n, l[i].lat, l[i].n_lat * sizeof *all);
		n += l[i].n_lat;
		free(l[i].lat);
	}
	qsort(all, n, sizeof *all, cmp64);
	printf("%-34s %9.0f /s  %9.0f /CPU-s  %7.0f MB/CPU-s  p50 %7.3f  p99 %7.3f ms\n", name, (double)done / took,
	       (double)done / cpu, (double)bytes / cpu / 1e6, n ? (double)all[n / 2] / 1e6 : 0, n ? (double)all[n * 99 / 100] / 1e6 : 0);
	fflush(stdout);
	for (int i = 0; i < conns; i++)
		http_client_free(c[i]);
	tls_client_free(t);
	free(all);
	free(l);
	free(f);
}

static void idle(const char *name, bool tls, bool http2, int n)
{
	struct tls_client *t = tls ? tls_for(http2) : NULL;
	struct http_client **c = calloc((size_t)n, sizeof *c);
	size_t before = rss_of(server);
	struct arena a = {0};

	for (int i = 0; i < n; i++) {
		struct http_response r;
		struct str b;

		c[i] = client_for(tls, http2, t);
		OK(http_do(c[i], &a, "GET", STR("/get"), NULL, 0, STR_NULL, &r));
		OK(http_response_all(&r, &a, 100000, &b));
		http_response_close(&r);
		arena_reset(&a);
	}
	double cpu = cpu_of(server);

	OK(fiber_sleep(3000));
	cpu = (cpu_of(server) - cpu) / 3;
	printf("%-34s %7.1f kB each (%d of them, %.1f MB), %.3f %% of a core\n", name,
	       ((double)rss_of(server) - (double)before) / n / 1000, n, (double)rss_of(server) / 1e6, cpu * 100);
	fflush(stdout);
	for (int i = 0; i < n; i++)
		http_client_free(c[i]);
	OK(fiber_sleep(13000)); /* the heap is trimmed ten seconds after the last time */
	printf("%-34s %7.1f MB\n", "  after they have gone", (double)rss_of(server) / 1e6);
	tls_client_free(t);
	arena_free(&a);
	free(c);
}

static int n_idle = 10000;

static void load_main(void *arg)
{
	line("GET 1.7 kB, h2, 8x32 streams", false, true, "/get", 8, 32);
	line("GET 1.7 kB, h2, 32x1", false, true, "/get", 32, 1);
	line("GET 1.7 kB, h1, 32", false, false, "/get", 32, 1);
	line("GET 1.7 kB, h2 TLS, 8x32", true, true, "/get", 8, 32);
	line("GET 1.7 kB, h2 TLS, 32x1", true, true, "/get", 32, 1);
	line("GET 1.7 kB, h1 TLS, 32", true, false, "/get", 32, 1);
	line("POST 1.7 kB, h2 TLS, 8x32", true, true, "/post", 8, 32);
	line("LIST 1.8 MB, h2, 4x2", false, true, "/list", 4, 2);
	line("LIST 1.8 MB, h2 TLS, 4x2", true, true, "/list", 4, 2);
	line("LIST 1.8 MB, h1 TLS, 8", true, false, "/list", 8, 1);
	line("events 2 kB, h2 TLS, 8x12", true, true, "/events", 8, 12);
	if (n_idle) {
		idle("idle h1", false, false, n_idle);
		idle("idle h2", false, true, n_idle);
		idle("idle h2 TLS", true, true, n_idle);
	}
}

int main(int argc, char **argv)
{
	int fd[2];
	struct rlimit rl;

	seconds = argc > 1 ? atof(argv[1]) : 2;
	if (argc > 2)
		n_idle = atoi(argv[2]);
	log_init("bench", 0);
	getrlimit(RLIMIT_NOFILE, &rl);
	rl.rlim_cur = rl.rlim_max;
	setrlimit(RLIMIT_NOFILE, &rl);
	if ((rlim_t)n_idle + 100 > rl.rlim_cur)
		n_idle = (int)rl.rlim_cur - 100;
	body = malloc(LIST_N);
	memset(body, 'x', LIST_N);
	CHECK(mkdtemp(dir) && pipe(fd) == 0);
	struct test_ca ca = make_cert(dir, "ca", "CN=ca", NULL, NULL, 10);

	free_ca(make_cert(dir, "srv", "CN=srv", "IP:127.0.0.1", &ca, 5));
	free_ca(ca);
	server = fork();
	if (server == 0) {
		struct error *e = loop_run(server_main, &fd[1]);

		log_and_free(e, "server");
		_exit(0);
	}
	CHECK(read(fd[0], ports, sizeof ports) == sizeof ports);
	struct error *e = loop_run(load_main, NULL);

	log_and_free(e, "load");
	kill(server, SIGTERM);
	waitpid(server, NULL, 0);
	log_and_free(dir_remove(dir), "clean up");
	free(body);
	return 0;
}
