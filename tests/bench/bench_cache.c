/*
 * The watch cache: memory of 30,000 pods of 3 KiB, time to load them, lists, watch fan-out.
 * usage: bench_cache [PODS [DIR [fill]]]   DIR: a store that is kept, and filled only when it is not there yet; fill: that alone
 */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "apiserver/cache.h"
#include "base/log.h"
#include "loop/io.h"
#include "schema/defaults.h"

static void must(struct error *e)
{
	if (e) {
		fprintf(stderr, "bench_cache: %s\n", e->message);
		exit(1);
	}
}

static const struct cache_field fields[] = {
	{STR_INIT("spec.nodeName"), STR_INIT(""), STR_INIT(""), STR_INIT("")},
	{STR_INIT("spec.restartPolicy"), STR_INIT(""), STR_INIT(""), STR_INIT("")},
	{STR_INIT("spec.schedulerName"), STR_INIT(""), STR_INIT(""), STR_INIT("")},
	{STR_INIT("spec.serviceAccountName"), STR_INIT(""), STR_INIT(""), STR_INIT("")},
	{STR_INIT("spec.hostNetwork"), STR_INIT(""), STR_INIT("false"), STR_INIT("")},
	{STR_INIT("status.phase"), STR_INIT(""), STR_INIT(""), STR_INIT("")},
	{STR_INIT("status.podIP"), STR_INIT(""), STR_INIT(""), STR_INIT("")},
	{STR_INIT("status.nominatedNodeName"), STR_INIT(""), STR_INIT(""), STR_INIT("")},
};
static const struct cache_resource pods = {
	.prefix = STR_INIT("/registry/pods/"), .group = STR_INIT(""), .version = STR_INIT("v1"), .kind = STR_INIT("Pod"),
	.type = &core_v1_pod_type, .namespaced = true, .fields = fields, .n_fields = 8, .node_field = 0,
};

/* One pod as JSON of about 3 KiB. */
static struct core_v1_pod *make_pod(struct arena *a, int i, int gen)
{
	static const char text[] =
		"{\"kind\":\"Pod\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"web-6d4f8c7b9d-%05d\",\"generateName\":\"web-6d4f8c7b9d-\","
		"\"namespace\":\"ns-%02d\",\"uid\":\"9f1c2a34-5b6d-4e7f-8a9b-%012d\",\"creationTimestamp\":\"2026-01-02T03:04:05Z\","
		"\"labels\":{\"app\":\"web\",\"pod-template-hash\":\"6d4f8c7b9d\",\"tier\":\"t%d\"},"
		"\"annotations\":{\"example.com/generation\":\"%d\",\"example.com/config\":\"%0600d\"},"
		"\"ownerReferences\":[{\"apiVersion\":\"apps/v1\",\"kind\":\"ReplicaSet\",\"name\":\"web-6d4f8c7b9d\","
		"\"uid\":\"11111111-2222-4333-8444-555555555555\",\"controller\":true,\"blockOwnerDeletion\":true}]},"
		"\"spec\":{\"volumes\":[{\"name\":\"kube-api-access-abcde\",\"projected\":{\"sources\":[{\"serviceAccountToken\":"
		"{\"expirationSeconds\":3607,\"path\":\"token\"}},{\"configMap\":{\"name\":\"kube-root-ca.crt\",\"items\":[{\"key\":\"ca.crt\","
		"\"path\":\"ca.crt\"}]}},{\"downwardAPI\":{\"items\":[{\"path\":\"namespace\",\"fieldRef\":{\"apiVersion\":\"v1\","
		"\"fieldPath\":\"metadata.namespace\"}}]}}],\"defaultMode\":420}}],\"containers\":[{\"name\":\"web\","
		"\"image\":\"registry.example.com/web:1.2.3\",\"ports\":[{\"containerPort\":8080,\"protocol\":\"TCP\"}],"
		"\"env\":[{\"name\":\"A\",\"value\":\"one\"},{\"name\":\"B\",\"value\":\"two\"}],"
		"\"resources\":{\"limits\":{\"memory\":\"128Mi\"},\"requests\":{\"cpu\":\"100m\",\"memory\":\"128Mi\"}},"
		"\"volumeMounts\":[{\"name\":\"kube-api-access-abcde\",\"readOnly\":true,"
		"\"mountPath\":\"/var/run/secrets/kubernetes.io/serviceaccount\"}],\"livenessProbe\":{\"httpGet\":{\"path\":\"/healthz\","
		"\"port\":8080,\"scheme\":\"HTTP\"},\"timeoutSeconds\":1,\"periodSeconds\":10,\"successThreshold\":1,\"failureThreshold\":3},"
		"\"terminationMessagePath\":\"/dev/termination-log\",\"terminationMessagePolicy\":\"File\",\"imagePullPolicy\":\"IfNotPresent\"}],"
		"\"restartPolicy\":\"Always\",\"terminationGracePeriodSeconds\":30,\"dnsPolicy\":\"ClusterFirst\",\"serviceAccountName\":\"default\",\"serviceAccount\":\"default\","
		"\"nodeName\":\"node-%04d\",\"securityContext\":{},\"schedulerName\":\"default-scheduler\",\"enableServiceLinks\":true},"
		"\"status\":{\"phase\":\"Running\",\"conditions\":[{\"type\":\"Initialized\",\"status\":\"True\"},{\"type\":\"Ready\","
		"\"status\":\"True\"},{\"type\":\"ContainersReady\",\"status\":\"True\"},{\"type\":\"PodScheduled\",\"status\":\"True\"}],"
		"\"hostIP\":\"10.0.0.1\",\"podIP\":\"10.1.2.3\",\"podIPs\":[{\"ip\":\"10.1.2.3\"}],\"startTime\":\"2026-01-02T03:04:06Z\","
		"\"qosClass\":\"Burstable\"}}";
	struct str json = arena_printf(a, text, i, i % 50, i, i % 5, gen, 7, i % 1000);
	struct core_v1_pod *p = arena_new(a, struct core_v1_pod);
	must(json_decode(a, &core_v1_pod_type, json, NULL, p));
	object_default(a, &core_v1_pod_type, p);
	return p;
}

struct encoded {
	struct buf pb, json;
	char ns[16], name[40];
};
static void encode(struct arena *a, int i, int gen, struct encoded *e)
{
	arena_reset(a);
	struct core_v1_pod *p = make_pod(a, i, gen);
	e->pb.n = e->json.n = 0;
	object_encode(&e->pb, MEDIA_PROTOBUF, &core_v1_pod_type, p);
	object_encode(&e->json, MEDIA_JSON, &core_v1_pod_type, p);
	snprintf(e->ns, sizeof(e->ns), "%.*s", STR_ARG(p->metadata.namespace));
	snprintf(e->name, sizeof(e->name), "%.*s", STR_ARG(p->metadata.name));
}

static size_t pss_kb(const char *what)
{
	struct buf b = {0};
	must(file_read("/proc/self/smaps_rollup", &b));
	const char *p = strstr(buf_z(&b), what);
	size_t n = p ? strtoull(p + strlen(what), NULL, 10) : 0;
	buf_free(&b);
	return n;
}

static double since(int64_t t)
{
	return (double)(now_ns() - t) / 1e9;
}

#define WRITERS 2048

static int n_pods;
static const char *kept_dir;
static bool only_fill;
static size_t delivered;
static struct cache *cache;

static void write_some(void *arg)
{
	int from = (int)(intptr_t)arg;
	struct arena a = {0};
	struct encoded e = {0};
	for (int i = from; i < n_pods; i += WRITERS) {
		encode(&a, i, 0, &e);
		bool ok;
		struct cache_entry *out;
		must(cache_put(cache, str_from(e.ns), str_from(e.name), 0, buf_view(&e.pb), STR_NULL, 0, 0, &ok, &out));
		cache_entry_unref(out);
	}
	buf_free(&e.pb);
	buf_free(&e.json);
	arena_free(&a);
}

static void watcher(void *arg)
{
	struct cache_watch *w = arg;
	struct cache_event ev;
	struct error *e;
	while (!(e = cache_watch_next(w, &ev)))
		delivered += ev.type != CACHE_BOOKMARK;
	error_free(e);
	cache_watch_close(w);
}

/* `n` watchers, each of all pods (node false) or of one node's; `events` updates; deliveries a CPU-second. */
static void fan_out(int n, bool node, int events)
{
	struct arena a = {0}, sel = {0};
	struct encoded e = {0};
	struct fiber **f = calloc((size_t)n, sizeof(*f));
	for (int i = 0; i < n; i++) {
		struct cache_watch_opts o = {.rev = cache_rev(cache), .bookmarks = true};
		struct cache_watch *w;
		if (node)
			must(field_selector_parse(&sel, arena_printf(&sel, "spec.nodeName=node-%04d", i % 1000), &o.filter.fields));
		must(cache_watch_open(cache, &o, &w));
		f[i] = fiber_start("watcher", watcher, w);
	}
	fiber_yield();
	delivered = 0;
	struct timespec c0, c1;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &c0);
	int64_t t0 = now_ns();
	for (int i = 0; i < events; i++) {
		encode(&a, i % n_pods, i, &e);
		bool ok;
		struct cache_entry *out;
		must(cache_put(cache, str_from(e.ns), str_from(e.name), STORE_ANY, buf_view(&e.pb), STR_NULL, 0, CACHE_NOSYNC,
			       &ok, &out));
		cache_entry_unref(out);
		fiber_yield();
	}
	size_t want = (size_t)events * (node ? (size_t)n / 1000 : (size_t)n);
	for (int i = 0; i < 1000 && delivered < want; i++)
		must(fiber_sleep(1));
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &c1);
	double cpu = (double)(c1.tv_sec - c0.tv_sec) + (double)(c1.tv_nsec - c0.tv_nsec) / 1e9;
	printf("watch: %5d watchers of %s, %d events: %zu deliveries of %zu, %.2f s, %.0f deliveries a CPU-second (with the writes)\n", n,
	       node ? "one node each" : "all pods", events, delivered, want, since(t0), (double)delivered / cpu);
	for (int i = 0; i < n; i++)
		fiber_stop(f[i]);
	free(f);
	buf_free(&e.pb);
	buf_free(&e.json);
	arena_free(&a);
	arena_free(&sel);
}

static void bench(void *arg)
{
	char tmp[] = "/tmp/skiff-bench-XXXXXX";
	const char *dir = kept_dir;
	bool fill = !dir || access(dir, F_OK);
	if (!dir && !(dir = mkdtemp(tmp)))
		exit(1);
	struct store *s;
	struct store_opts o = {.dir = dir};
	size_t empty = pss_kb("Private_Dirty:");
	int64_t t0 = now_ns();
	if (fill) {
		must(store_open(&o, &s));
		must(cache_new(s, &pods, &cache));
		t0 = now_ns();
		struct fiber *f[WRITERS];
		for (int i = 0; i < WRITERS; i++)
			f[i] = fiber_start("writer", write_some, (void *)(intptr_t)i);
		for (int i = 0; i < WRITERS; i++)
			fiber_join(f[i]);
		printf("create %d pods, %d writers:   %.2f s\n", n_pods, WRITERS, since(t0));
		cache_free(cache);
		store_close(s);
		malloc_trim(0);
	}
	if (only_fill)
		return;

	t0 = now_ns();
	must(store_open(&o, &s));
	double sec = since(t0);
	printf("open the store, with its check: %.2f s\n", sec);
	struct timespec th0, th1, pr0, pr1;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &th0);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &pr0);
	t0 = now_ns();
	must(cache_new(s, &pods, &cache));
	sec = since(t0);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &th1);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &pr1);
	printf("load: CPU %.2f s of the loop, %.2f s of all threads\n", (double)(th1.tv_sec - th0.tv_sec) + (double)(th1.tv_nsec - th0.tv_nsec) / 1e9,
	       (double)(pr1.tv_sec - pr0.tv_sec) + (double)(pr1.tv_nsec - pr0.tv_nsec) / 1e9);
	struct cache_stats st;
	cache_stats(cache, &st);
	printf("load %zu pods (%.0f bytes each): %.2f s, %.0f MB/s\n", st.objects, (double)st.object_bytes / (double)st.objects, sec,
	       (double)st.object_bytes / sec / 1e6);
	malloc_trim(0);
	must(fiber_sleep(6000)); /* the store gives its mapped pages back when it has been idle */
	size_t dirty = pss_kb("Private_Dirty:") - empty, pss = pss_kb("Pss:");
	printf("memory: objects %.1f MB, index %.1f MB; process +%.1f MB dirty = %.2f x the objects; PSS %.1f MB = %.2f x\n",
	       (double)st.object_bytes / 1e6, (double)st.index_bytes / 1e6, (double)dirty / 1e3,
	       (double)dirty * 1024 / (double)st.object_bytes, (double)pss / 1e3, (double)pss * 1024 / (double)st.object_bytes);

	struct cache_snap *snap;
	struct cache_iter it;
	size_t n = 0, bytes = 0;
	const struct cache_entry *e;
	t0 = now_ns();
	must(cache_snapshot(cache, CACHE_CONSISTENT, 0, &snap));
	cache_iter_init(&it, cache, snap, STR_NULL, STR_NULL, NULL);
	while ((e = cache_iter_next(&it))) {
		n++;
		bytes += e->body->n;
	}
	printf("list all, references only:    %.2f ms for %zu objects\n", since(t0) * 1e3, n);
	struct arena a = {0};
	struct cache_filter flt = {0};
	must(label_selector_parse(&a, STR("app=web,tier in (t1,t2)"), &flt.labels));
	t0 = now_ns();
	n = 0;
	cache_iter_init(&it, cache, snap, STR_NULL, STR_NULL, &flt);
	while (cache_iter_next(&it))
		n++;
	printf("list by labels:               %.2f ms, %zu found\n", since(t0) * 1e3, n);
	flt.labels = NULL;
	must(field_selector_parse(&a, STR("spec.nodeName=node-0007"), &flt.fields));
	t0 = now_ns();
	n = 0;
	cache_iter_init(&it, cache, snap, STR_NULL, STR_NULL, &flt);
	while (cache_iter_next(&it))
		n++;
	printf("list by node:                 %.3f ms, %zu found\n", since(t0) * 1e3, n);
	cache_snap_free(snap);
	arena_free(&a);

	t0 = now_ns();
	n = 0;
	for (; since(t0) < 0.5; n++) {
		struct cache_entry *g;
		char ns[16], name[40];
		snprintf(ns, sizeof(ns), "ns-%02zu", n % (size_t)n_pods % 50);
		snprintf(name, sizeof(name), "web-6d4f8c7b9d-%05zu", n % (size_t)n_pods);
		must(cache_get(cache, str_from(ns), str_from(name), CACHE_CONSISTENT, 0, &g));
		cache_entry_unref(g);
	}
	printf("gets:                         %.0f /s\n", (double)n / since(t0));
	fan_out(100, false, 1000);
	fan_out(1000, false, 1000);
	fan_out(5000, true, 1000);
	cache_free(cache);
	store_close(s);
	if (!kept_dir)
		must(dir_remove(dir));
}

int main(int argc, char **argv)
{
	log_init("bench", 0);
	n_pods = argc > 1 ? atoi(argv[1]) : 30000;
	kept_dir = argc > 2 ? argv[2] : NULL;
	only_fill = argc > 3;
	must(loop_run(bench, NULL));
	return 0;
}
