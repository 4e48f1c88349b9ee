/*
 * load: measures any Kubernetes API server: GET, LIST, CREATE, UPDATE, PATCH, server-side apply and watch fan-out, in requests a
 * second and a CPU-second of the server's processes, with latencies. With -n: that many pods of 3 KiB are made, listed and held, and the
 * servers' memory is shown beside the bytes of what they hold. With -x: what operations on a server take that holds that many pods already,
 * made by bench_cache. Works in a namespace of its own and removes it.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/log.h"
#include "client/client.h"

#define CLIENTS 4
#define WATCH_CLIENTS 16
#define SAMPLES_MAX 2000000
#define OBJECTS 1000
#define HELD_ASKED 4096

struct load {
	struct arena a;
	struct client *clients[CLIENTS], *watch_clients[WATCH_CLIENTS];
	int pids[8], n_pids;
	int seconds, watchers, updates, pods;
	int next_pod;
	int held;                 /* pods of bench_cache */
	bool only_pods;
	const char *only;
	char ns[64];
	struct str payload;
	int64_t until_ns;
	uint32_t *samples_us;
	size_t n_samples;
	uint64_t bytes, done;
	size_t running;
	struct waitq ended;
	struct error *error;
	uint64_t events;
};

struct worker;
typedef struct error *request_fn(struct load *l, struct client *k, struct arena *a, int worker, uint64_t i);
struct worker {
	struct load *l;
	int number;
	request_fn *fn;
};

/* User and system time of the server, seconds. */
static double cpu_seconds(const struct load *l)
{
	double sum = 0;

	for (int i = 0; i < l->n_pids; i++) {
		char path[64], line[1024];
		unsigned long user = 0, sys = 0;

		snprintf(path, sizeof path, "/proc/%d/stat", l->pids[i]);
		FILE *f = fopen(path, "re");
		const char *p = f && fgets(line, sizeof line, f) ? strrchr(line, ')') : NULL;

		if (p && sscanf(p + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &sys) == 2)
			sum += (double)(user + sys) / (double)sysconf(_SC_CLK_TCK);
		if (f)
			fclose(f);
	}
	return sum;
}

static struct error *drain(struct load *l, struct client *k, struct arena *a, const char *method, struct str target, const char *accept)
{
	struct http_response r;
	char buf[65536];
	size_t n = 1;

	TRY(client_stream(k, a, method, target, accept, &r));
	struct error *e = r.status >= 300 ? error_new("%s answered %d", target.p, r.status) : NULL;

	while (!e && n) {
		e = http_response_read(&r, buf, sizeof buf, &n);
		l->bytes += n;
	}
	http_response_close(&r);
	return e;
}

static struct error *get(struct load *l, struct client *k, struct arena *a, int worker, uint64_t i)
{
	return drain(l, k, a, "GET", arena_printf(a, "/api/v1/namespaces/%s/configmaps/c0", l->ns), "application/json");
}

static struct error *list(struct load *l, struct client *k, struct arena *a, int worker, uint64_t i)
{
	return drain(l, k, a, "GET", arena_printf(a, "/api/v1/namespaces/%s/configmaps?resourceVersion=0&labelSelector=set%%3Dlist", l->ns),
		     "application/json");
}

static struct error *list_plain(struct load *l, struct client *k, struct arena *a, int worker, uint64_t i)
{
	return drain(l, k, a, "GET", arena_printf(a, "/api/v1/namespaces/%s/configmaps?resourceVersion=0", l->ns), "application/json");
}

static struct error *list_proto(struct load *l, struct client *k, struct arena *a, int worker, uint64_t i)
{
	return drain(l, k, a, "GET", arena_printf(a, "/api/v1/namespaces/%s/configmaps?resourceVersion=0", l->ns),
		     "application/vnd.kubernetes.protobuf");
}

static struct error *get_proto(struct load *l, struct client *k, struct arena *a, int worker, uint64_t i)
{
	return drain(l, k, a, "GET", arena_printf(a, "/api/v1/namespaces/%s/configmaps/c0", l->ns), "application/vnd.kubernetes.protobuf");
}

static struct error *list_pods(struct load *l, struct client *k, struct arena *a, int worker, uint64_t i)
{
	return drain(l, k, a, "GET", arena_printf(a, "/api/v1/namespaces/%s/pods?resourceVersion=0", l->ns), "application/json");
}

static struct error *list_pods_proto(struct load *l, struct client *k, struct arena *a, int worker, uint64_t i)
{
	return drain(l, k, a, "GET", arena_printf(a, "/api/v1/namespaces/%s/pods?resourceVersion=0", l->ns), "application/vnd.kubernetes.protobuf");
}

static struct str body(struct load *l, struct arena *a, const char *meta)
{
	return arena_printf(a, "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{%s},\"data\":{\"payload\":\"%.*s\"}}", meta,
			    STR_ARG(l->payload));
}

static struct error *request(struct load *l, struct client *k, struct arena *a, const char *method, struct str target, const char *type, struct str b)
{
	struct str out;

	return client_raw(k, a, method, target, type, b, &out);
}

static struct error *create(struct load *l, struct client *k, struct arena *a, int worker, uint64_t i)
{
	return request(l, k, a, "POST", arena_printf(a, "/api/v1/namespaces/%s/configmaps", l->ns), "application/json",
		    body(l, a, "\"generateName\":\"g-\""));
}

static struct error *update(struct load *l, struct client *k, struct arena *a, int worker, uint64_t i)
{
	const char *meta = arena_printf(a, "\"name\":\"c%d\",\"annotations\":{\"i\":\"%llu\"}", worker, (unsigned long long)i).p;

	return request(l, k, a, "PUT", arena_printf(a, "/api/v1/namespaces/%s/configmaps/c%d", l->ns, worker), "application/json", body(l, a, meta));
}

static struct error *patch(struct load *l, struct client *k, struct arena *a, int worker, uint64_t i)
{
	return request(l, k, a, "PATCH", arena_printf(a, "/api/v1/namespaces/%s/configmaps/c%d", l->ns, worker), "application/strategic-merge-patch+json",
		    arena_printf(a, "{\"metadata\":{\"annotations\":{\"p\":\"%llu\"}}}", (unsigned long long)i));
}

static struct error *apply(struct load *l, struct client *k, struct arena *a, int worker, uint64_t i)
{
	return request(l, k, a, "PATCH", arena_printf(a, "/api/v1/namespaces/%s/configmaps/a%d?fieldManager=load&force=true", l->ns, worker),
		    "application/apply-patch+yaml", body(l, a, arena_printf(a, "\"name\":\"a%d\",\"annotations\":{\"i\":\"%llu\"}", worker,
									     (unsigned long long)i).p));
}

/* About 3 KiB of JSON as the server answers it; no scheduler takes it. */
static struct error *create_pod(struct load *l, struct client *k, struct arena *a, int worker, uint64_t i)
{
	return request(l, k, a, "POST", arena_printf(a, "/api/v1/namespaces/%s/pods", l->ns), "application/json",
		    arena_printf(a,
				 "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"web-6d4f8c7b9d-%05d\",\"generateName\":\"web-6d4f8c7b9d-\","
				 "\"labels\":{\"app\":\"web\",\"pod-template-hash\":\"6d4f8c7b9d\",\"shard\":\"s%d\"},\"annotations\":{"
				 "\"example.com/config-hash\":\"%016llx%016llx\"},\"ownerReferences\":[{\"apiVersion\":\"apps/v1\",\"kind\":\"ReplicaSet\","
				 "\"name\":\"web-6d4f8c7b9d\",\"uid\":\"11111111-2222-4333-8444-555555555555\",\"controller\":true,"
				 "\"blockOwnerDeletion\":true}]},\"spec\":{\"schedulerName\":\"none\",\"containers\":[{\"name\":\"web\","
				 "\"image\":\"registry.example.com/team/web:1.2.3\",\"command\":[\"/usr/bin/web\",\"--listen=:8080\",\"--workers=4\"],"
				 "\"ports\":[{\"containerPort\":8080,\"protocol\":\"TCP\"}],\"env\":[{\"name\":\"REGION\",\"value\":\"eu-west\"},"
				 "{\"name\":\"SHARD\",\"value\":\"%d\"}],\"resources\":{\"limits\":{\"memory\":\"128Mi\"},\"requests\":{\"cpu\":\"100m\","
				 "\"memory\":\"128Mi\"}},\"livenessProbe\":{\"httpGet\":{\"path\":\"/healthz\",\"port\":8080},\"periodSeconds\":10}}]}}",
				 l->next_pod++, (int)(i % 10), (unsigned long long)random_u64(), (unsigned long long)random_u64(), worker));
}

static void work(void *arg)
{
	struct worker *w = arg;
	struct load *l = w->l;
	struct client *k = l->clients[w->number % CLIENTS];

	for (uint64_t i = 0; !l->error && (l->until_ns ? now_ns() < l->until_ns : l->next_pod < l->pods); i++) {
		arena_cleanup struct arena a = {0};
		int64_t start = now_ns();
		struct error *e = w->fn(l, k, &a, w->number, i);

		if (e) {
			if (l->error)
				error_free(e);
			else
				l->error = e;
			break;
		}
		if (l->n_samples < SAMPLES_MAX)
			l->samples_us[l->n_samples++] = (uint32_t)((now_ns() - start) / 1000);
		l->done++;
	}
	l->running--;
	waitq_wake_all(&l->ended);
	free(w);
}

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static double percentile(struct load *l, double p)
{
	return l->n_samples ? (double)l->samples_us[(size_t)((double)(l->n_samples - 1) * p)] / 1000 : 0;
}

/* For l->seconds; of pods: until all are there. */
static struct error *phase(struct load *l, const char *name, int workers, request_fn *fn)
{
	if (l->only && !strstr(name, l->only))
		return NULL;
	l->n_samples = 0;
	l->bytes = l->done = 0;
	int64_t start = now_ns();
	double cpu = cpu_seconds(l);

	l->until_ns = fn == create_pod && !l->held ? 0 : start + l->seconds * 1000000000LL;
	for (int i = 0; i < workers; i++) {
		struct worker *w = xmalloc(sizeof *w);

		*w = (struct worker){l, i, fn};
		l->running++;
		fiber_spawn("load", work, w);
	}
	while (l->running)
		TRY(waitq_wait(&l->ended));
	if (l->error) {
		struct error *e = l->error;

		l->error = NULL;
		return error_wrap(e, "%s", name);
	}
	double s = (double)(now_ns() - start) / 1e9;

	cpu = cpu_seconds(l) - cpu;
	qsort(l->samples_us, l->n_samples, sizeof *l->samples_us, by_value);
	double rate = (double)l->done / s, per_cpu = cpu > 0 ? (double)l->done / cpu : 0;

	printf("%-26s %10.*f/s %10.*f/CPU-s   p50 %8.2f ms  p99 %8.2f ms  %8.1f MB/s\n", name, rate < 20, rate, per_cpu < 100 ? 2 : 0, per_cpu,
	       percentile(l, 0.5), percentile(l, 0.99), (double)l->bytes / s / 1e6);
	fflush(stdout);
	return NULL;
}

/* ---- among many objects ---- */

static struct str held_path(struct load *l, struct arena *a, uint64_t i)
{
	/* As many different ones whatever there are, all over the tree: what has been asked for lately is quicker. */
	uint64_t n = i * 7919 % HELD_ASKED * ((uint64_t)l->held / HELD_ASKED);

	return arena_printf(a, "/api/v1/namespaces/ns-%02d/pods/web-6d4f8c7b9d-%05llu", (int)(n % 50), (unsigned long long)n);
}

static struct error *held_get(struct load *l, struct client *k, struct arena *a, int worker, uint64_t i)
{
	return drain(l, k, a, "GET", held_path(l, a, i), "application/json");
}

static struct error *held_patch(struct load *l, struct client *k, struct arena *a, int worker, uint64_t i)
{
	return request(l, k, a, "PATCH", held_path(l, a, i), "application/strategic-merge-patch+json",
		       arena_printf(a, "{\"metadata\":{\"annotations\":{\"p\":\"%llu\"}}}", (unsigned long long)i));
}

static struct error *held_page(struct load *l, struct client *k, struct arena *a, int worker, uint64_t i)
{
	return drain(l, k, a, "GET", STR("/api/v1/pods?limit=500"), "application/json");
}

static struct error *held_page_of_ns(struct load *l, struct client *k, struct arena *a, int worker, uint64_t i)
{
	return drain(l, k, a, "GET", arena_printf(a, "/api/v1/namespaces/ns-%02d/pods?limit=100", (int)(i % 50)), "application/json");
}

/* Of a node that has no pods: what it costs to find that out. */
static struct error *held_node(struct load *l, struct client *k, struct arena *a, int worker, uint64_t i)
{
	return drain(l, k, a, "GET", STR("/api/v1/pods?fieldSelector=spec.nodeName%3Dnone"), "application/json");
}

/* From now on, all of them: until the server has answered that it began. */
static struct error *held_watch(struct load *l, struct client *k, struct arena *a, int worker, uint64_t i)
{
	struct http_response r;

	TRY(client_stream(k, a, "GET", STR("/api/v1/pods?watch=true&sendInitialEvents=false&resourceVersionMatch=NotOlderThan"), "application/json", &r));
	struct error *e = r.status == 200 ? NULL : error_new("a watch answered %d", r.status);

	http_response_close(&r);
	return e;
}

struct watcher {
	struct load *l;
	int number;
};

static void watch(void *arg)
{
	struct watcher *w = arg;
	struct load *l = w->l;
	arena_cleanup struct arena a = {0};
	struct http_response r = {0};
	char buf[65536];
	size_t n = 1;
	struct error *e = client_stream(l->watch_clients[w->number % WATCH_CLIENTS], &a, "GET",
					arena_printf(&a, "/api/v1/namespaces/%s/configmaps?watch=true&fieldSelector=metadata.name%%3Dc0&resourceVersion=0", l->ns),
					"application/json", &r);

	while (!e && n) {
		e = http_response_read(&r, buf, sizeof buf, &n);
		for (size_t i = 0; i < n; i++)
			l->events += buf[i] == '\n';
		waitq_wake_all(&l->ended);
	}
	http_response_close(&r);
	error_free(e);
	free(w);
}

static struct error *fan_out(struct load *l, int watchers, int updates)
{
	if (l->only && !strstr("WATCH events", l->only))
		return NULL;
	struct fiber **fibers = arena_array(&l->a, struct fiber *, (size_t)watchers);

	l->events = 0;
	for (int i = 0; i < watchers; i++) {
		struct watcher *w = xmalloc(sizeof *w);

		*w = (struct watcher){l, i};
		fibers[i] = fiber_start("watch", watch, w);
	}
	int64_t deadline = deadline_push(60000);

	while (l->events < (uint64_t)watchers) /* the initial ADDED of each */
		TRY(waitq_wait(&l->ended));
	double cpu = cpu_seconds(l);
	int64_t start = now_ns();

	l->events = 0;
	for (int i = 0; i < updates; i++) {
		arena_cleanup struct arena a = {0};

		TRY(update(l, l->clients[0], &a, 0, (uint64_t)i + 1000000));
	}
	while (l->events < (uint64_t)watchers * (uint64_t)updates)
		TRY(waitq_wait(&l->ended));
	deadline_pop(deadline);
	double s = (double)(now_ns() - start) / 1e9;

	cpu = cpu_seconds(l) - cpu;
	printf("%-26s %10.0f/s %10.0f/CPU-s   (%d updates to %d watchers)\n", "WATCH events", (double)l->events / s,
	       cpu > 0 ? (double)l->events / cpu : 0, updates, watchers);
	for (int i = 0; i < watchers; i++)
		fiber_stop(fibers[i]);
	return NULL;
}

static long pss_kb(const struct load *l)
{
	long sum = 0, kb;

	for (int i = 0; i < l->n_pids; i++) {
		char path[64], line[256];

		snprintf(path, sizeof path, "/proc/%d/smaps_rollup", l->pids[i]);
		FILE *f = fopen(path, "re");

		while (f && fgets(line, sizeof line, f))
			if (sscanf(line, "Pss: %ld kB", &kb) == 1)
				sum += kb;
		if (f)
			fclose(f);
	}
	return sum;
}

static void memory(struct load *l, const char *when, uint64_t json, uint64_t proto)
{
	double mib = (double)pss_kb(l) / 1024, j = (double)json / 1048576, p = (double)proto / 1048576;

	printf("%-26s %10.1f MiB PSS   objects as JSON %.1f MiB, as protobuf %.1f MiB: %.2f x, %.2f x\n", when, mib, j, p, mib / j, mib / p);
	fflush(stdout);
}

static struct error *hold_pods(struct load *l)
{
	uint64_t json, proto;
	struct error *e = phase(l, "CREATE pods of 3 KiB", 64, create_pod);

	TRY(e);
	TRY(phase(l, "LIST all pods, protobuf", 2, list_pods_proto));
	proto = l->done ? l->bytes / l->done : 0;
	TRY(phase(l, "LIST all pods, JSON", 2, list_pods));
	json = l->done ? l->bytes / l->done : 0;
	memory(l, "memory right after", json, proto);
	TRY(fiber_sleep(90000));
	memory(l, "memory 90 s later", json, proto);
	return NULL;
}

static struct error *set_up(struct load *l)
{
	arena_cleanup struct arena a = {0};

	TRY(request(l, l->clients[0], &a, "POST", STR("/api/v1/namespaces"), "application/json",
		 arena_printf(&a, "{\"apiVersion\":\"v1\",\"kind\":\"Namespace\",\"metadata\":{\"name\":\"%s\"}}", l->ns)));
	/* Where no controller makes it; pods need it. */
	struct error *e = request(l, l->clients[0], &a, "POST", arena_printf(&a, "/api/v1/namespaces/%s/serviceaccounts", l->ns), "application/json",
				  STR("{\"apiVersion\":\"v1\",\"kind\":\"ServiceAccount\",\"metadata\":{\"name\":\"default\"}}"));

	if (e && !error_is(e, 409, NULL))
		return e;
	error_free(e);
	for (int i = 0; i < OBJECTS && !l->only_pods && !l->held; i++) {
		arena_reset(&a);
		TRY(request(l, l->clients[0], &a, "POST", arena_printf(&a, "/api/v1/namespaces/%s/configmaps", l->ns), "application/json",
			 body(l, &a, arena_printf(&a, "\"name\":\"c%d\",\"labels\":{\"set\":\"list\"}", i).p)));
	}
	return NULL;
}

static struct error *small_objects(struct load *l)
{
	TRY(phase(l, "GET 1 KiB, JSON", 16, get));
	TRY(phase(l, "GET 1 KiB, protobuf", 16, get_proto));
	TRY(phase(l, "LIST 1,000, JSON", 4, list_plain));
	TRY(phase(l, "LIST 1,000, selector", 4, list));
	TRY(phase(l, "LIST 1,000, protobuf", 4, list_proto));
	TRY(fan_out(l, l->watchers, l->updates));
	TRY(phase(l, "UPDATE 1 KiB", 64, update));
	TRY(phase(l, "PATCH strategic", 64, patch));
	TRY(phase(l, "APPLY server-side", 64, apply));
	return phase(l, "CREATE 1 KiB", 64, create);
}

/* One at a time: how long each takes. */
static struct error *among_many(struct load *l)
{
	TRY(phase(l, "GET a pod", 1, held_get));
	TRY(phase(l, "LIST a page of 500", 1, held_page));
	TRY(phase(l, "LIST 100 of a namespace", 1, held_page_of_ns));
	TRY(phase(l, "LIST of a node", 1, held_node));
	TRY(phase(l, "WATCH start", 1, held_watch));
	TRY(phase(l, "CREATE a pod", 1, create_pod));
	TRY(phase(l, "PATCH a pod", 1, held_patch));
	return phase(l, "PATCH, 64 clients", 64, held_patch);
}

static struct error *run(struct load *l, const char *kubeconfig)
{
	struct client_config cfg = {0};

	TRY(client_config_load(&l->a, kubeconfig, NULL, &cfg));
	for (int i = 0; i < CLIENTS; i++)
		TRY(client_new(&cfg, &l->clients[i]));
	for (int i = 0; i < WATCH_CLIENTS; i++)
		TRY(client_new(&cfg, &l->watch_clients[i]));
	snprintf(l->ns, sizeof l->ns, "load-%llx", (unsigned long long)(random_u64() & 0xffffff));
	char *p = arena_bytes(&l->a, 1024);

	memset(p, 'x', 1024);
	l->payload = str_of(p, 1024);
	l->samples_us = xmalloc(SAMPLES_MAX * sizeof *l->samples_us);
	TRY(set_up(l));
	struct error *e = l->held ? among_many(l) : l->only_pods ? NULL : small_objects(l);

	if (!e && l->pods)
		e = hold_pods(l);
	arena_cleanup struct arena a = {0};
	struct error *gone = request(l, l->clients[0], &a, "DELETE", arena_printf(&a, "/api/v1/namespaces/%s", l->ns), "application/json", STR_NULL);

	log_and_free(gone, "removing namespace %s", l->ns);
	return e;
}

struct main_arg {
	struct load *l;
	const char *kubeconfig;
	struct error *error;
};

static void main_fiber(void *arg)
{
	struct main_arg *m = arg;

	m->error = run(m->l, m->kubeconfig);
}

int main(int argc, char **argv)
{
	static struct load l = {.seconds = 5, .watchers = 100, .updates = 200};
	struct main_arg m = {.l = &l};

	for (int o; (o = getopt(argc, argv, "k:p:s:w:u:n:x:mf:")) != -1;) {
		if (o == 'k')
			m.kubeconfig = optarg;
		else if (o == 'p' && l.n_pids < 8)
			l.pids[l.n_pids++] = atoi(optarg);
		else if (o == 's')
			l.seconds = atoi(optarg);
		else if (o == 'w')
			l.watchers = atoi(optarg);
		else if (o == 'u')
			l.updates = atoi(optarg);
		else if (o == 'n')
			l.pods = atoi(optarg);
		else if (o == 'x')
			l.held = atoi(optarg);
		else if (o == 'f')
			l.only = optarg;
		else if (o == 'm')
			l.only_pods = true;
		else
			m.kubeconfig = NULL;
	}
	if (!m.kubeconfig) {
		fprintf(stderr, "usage: load -k KUBECONFIG [-p SERVER-PID]... [-s SECONDS-A-PHASE] [-w WATCHERS] [-u UPDATES] [-n PODS [-m: nothing else]] [-x PODS-THERE] [-f PART-OF-A-PHASE'S-NAME]\n");
		return 2;
	}
	log_init("load", 0);
	struct error *e = loop_run(main_fiber, &m);

	if (!e)
		e = m.error;
	if (e)
		fprintf(stderr, "load: %s\n", error_message(e));
	error_free(e);
	free(l.samples_us);
	arena_free(&l.a);
	return e ? 1 : 0;
}
