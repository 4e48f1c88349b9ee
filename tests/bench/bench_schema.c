/*
 * Throughput of the codecs on pods, beside memcpy and well-known parsers, in one run.
 * usage: bench_schema VECTORS_DIR [seconds a line [part of a line's name]]
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#ifdef HAVE_YAJL
#include <yajl/yajl_parse.h>
#endif
#ifdef HAVE_JSON_C
#include <json-c/json.h>
#endif

#include "schema/jv.h"

static double seconds = 0.5;
static const char *only = "";

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* A pod as a Deployment makes them and a kubelet reports them. */
static const char realistic[] =
"{\"kind\":\"Pod\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"frontend-6d8f7c9b5d-x2x7k\",\"generateName\":\"frontend-6d8f7c9b5d-\",\"namespace\":\"shop\","
"\"uid\":\"0e9a3f5c-58d4-4a0c-9be1-3f8e6a1d2b7c\",\"resourceVersion\":\"184467\",\"generation\":1,\"creationTimestamp\":\"2026-03-04T10:11:12Z\","
"\"labels\":{\"app\":\"frontend\",\"app.kubernetes.io/managed-by\":\"Helm\",\"pod-template-hash\":\"6d8f7c9b5d\",\"tier\":\"web\"},"
"\"annotations\":{\"prometheus.io/port\":\"9102\",\"prometheus.io/scrape\":\"true\"},\"ownerReferences\":[{\"apiVersion\":\"apps/v1\",\"kind\":\"ReplicaSet\","
"\"name\":\"frontend-6d8f7c9b5d\",\"uid\":\"a3b1c8d2-0f6e-4d7a-8c55-7b7d1e9f0a42\",\"controller\":true,\"blockOwnerDeletion\":true}]},"
"\"spec\":{\"volumes\":[{\"name\":\"config\",\"configMap\":{\"name\":\"frontend-config\",\"defaultMode\":420}},{\"name\":\"kube-api-access-5m8tz\",\"projected\":{"
"\"sources\":[{\"serviceAccountToken\":{\"expirationSeconds\":3607,\"path\":\"token\"}},{\"configMap\":{\"name\":\"kube-root-ca.crt\",\"items\":[{\"key\":\"ca.crt\",\"path\":\"ca.crt\"}]}},"
"{\"downwardAPI\":{\"items\":[{\"path\":\"namespace\",\"fieldRef\":{\"apiVersion\":\"v1\",\"fieldPath\":\"metadata.namespace\"}}]}}],\"defaultMode\":420}}],"
"\"containers\":[{\"name\":\"server\",\"image\":\"registry.example.com/shop/frontend:v1.14.2\",\"command\":[\"/usr/bin/frontend\",\"--listen=:8080\",\"--backend=http://catalog.shop.svc.cluster.local\"],"
"\"ports\":[{\"name\":\"http\",\"containerPort\":8080,\"protocol\":\"TCP\"},{\"name\":\"metrics\",\"containerPort\":9102,\"protocol\":\"TCP\"}],"
"\"env\":[{\"name\":\"POD_IP\",\"valueFrom\":{\"fieldRef\":{\"apiVersion\":\"v1\",\"fieldPath\":\"status.podIP\"}}},{\"name\":\"LOG_LEVEL\",\"value\":\"info\"}],"
"\"resources\":{\"limits\":{\"cpu\":\"500m\",\"memory\":\"256Mi\"},\"requests\":{\"cpu\":\"100m\",\"memory\":\"128Mi\"}},"
"\"volumeMounts\":[{\"name\":\"config\",\"readOnly\":true,\"mountPath\":\"/etc/frontend\"},{\"name\":\"kube-api-access-5m8tz\",\"readOnly\":true,\"mountPath\":\"/var/run/secrets/kubernetes.io/serviceaccount\"}],"
"\"livenessProbe\":{\"httpGet\":{\"path\":\"/healthz\",\"port\":\"http\",\"scheme\":\"HTTP\"},\"initialDelaySeconds\":5,\"timeoutSeconds\":1,\"periodSeconds\":10,\"successThreshold\":1,\"failureThreshold\":3},"
"\"terminationMessagePath\":\"/dev/termination-log\",\"terminationMessagePolicy\":\"File\",\"imagePullPolicy\":\"IfNotPresent\"}],\"restartPolicy\":\"Always\","
"\"terminationGracePeriodSeconds\":30,\"dnsPolicy\":\"ClusterFirst\",\"serviceAccountName\":\"default\",\"serviceAccount\":\"default\",\"nodeName\":\"node-17\",\"securityContext\":{},"
"\"schedulerName\":\"default-scheduler\",\"tolerations\":[{\"key\":\"node.kubernetes.io/not-ready\",\"operator\":\"Exists\",\"effect\":\"NoExecute\",\"tolerationSeconds\":300},"
"{\"key\":\"node.kubernetes.io/unreachable\",\"operator\":\"Exists\",\"effect\":\"NoExecute\",\"tolerationSeconds\":300}],\"priority\":0,\"enableServiceLinks\":true,\"preemptionPolicy\":\"PreemptLowerPriority\"},"
"\"status\":{\"phase\":\"Running\",\"conditions\":[{\"type\":\"Ready\",\"status\":\"True\",\"lastProbeTime\":null,\"lastTransitionTime\":\"2026-03-04T10:11:20Z\"},"
"{\"type\":\"PodScheduled\",\"status\":\"True\",\"lastProbeTime\":null,\"lastTransitionTime\":\"2026-03-04T10:11:12Z\"}],\"hostIP\":\"10.0.0.17\",\"hostIPs\":[{\"ip\":\"10.0.0.17\"}],"
"\"podIP\":\"10.244.17.5\",\"podIPs\":[{\"ip\":\"10.244.17.5\"}],\"startTime\":\"2026-03-04T10:11:12Z\",\"containerStatuses\":[{\"name\":\"server\","
"\"state\":{\"running\":{\"startedAt\":\"2026-03-04T10:11:15Z\"}},\"lastState\":{},\"ready\":true,\"restartCount\":0,\"image\":\"registry.example.com/shop/frontend:v1.14.2\","
"\"imageID\":\"registry.example.com/shop/frontend@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\","
"\"containerID\":\"containerd://60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752\",\"started\":true}],\"qosClass\":\"Burstable\"}}";

static struct str read_file(struct arena *a, const char *dir, const char *name)
{
	char path[4096];

	snprintf(path, sizeof path, "%s/%s", dir, name);
	FILE *f = fopen(path, "rb");

	if (!f) {
		perror(path);
		exit(1);
	}
	char *p = arena_bytes(a, 1 << 20);
	size_t n = fread(p, 1, 1 << 20, f);

	fclose(f);
	return str_of(p, n);
}

static void must(struct error *e)
{
	if (e) {
		fprintf(stderr, "%s\n", e->message);
		exit(1);
	}
}

struct run {
	struct str in;
	const struct schema_type *t;
	const void *obj;
	struct arena a;
	struct buf b;
	char *copy;
};

static void do_memcpy(struct run *r)
{
	memcpy(r->copy, r->in.p, r->in.n);
	__asm__ volatile("" ::"r"(r->copy) : "memory");
}

static void do_json_decode(struct run *r)
{
	arena_reset(&r->a);
	must(json_decode(&r->a, r->t, r->in, NULL, arena_alloc(&r->a, r->t->size)));
}

static void do_json_strict(struct run *r)
{
	arena_reset(&r->a);
	struct decode_report report = {.arena = &r->a};

	must(json_decode(&r->a, r->t, r->in, &report, arena_alloc(&r->a, r->t->size)));
}

static void do_json_encode(struct run *r)
{
	r->b.n = 0;
	json_encode(&r->b, r->t, r->obj);
}

static void do_pb_decode(struct run *r)
{
	arena_reset(&r->a);
	must(pb_decode(&r->a, r->t, r->in, arena_alloc(&r->a, r->t->size)));
}

static void do_pb_encode(struct run *r)
{
	r->b.n = 0;
	pb_encode(&r->b, r->t, r->obj);
}

static void do_pb_to_json(struct run *r)
{
	void *obj;

	arena_reset(&r->a);
	obj = arena_alloc(&r->a, r->t->size);
	must(pb_decode(&r->a, r->t, r->in, obj));
	r->b.n = 0;
	json_encode(&r->b, r->t, obj);
}

static void do_direct(struct run *r)
{
	r->b.n = 0;
	must(pb_to_json(&r->b, r->t, r->in, STR("v1"), STR("Pod"), NULL));
}

static void do_copy(struct run *r)
{
	arena_reset(&r->a);
	object_copy(&r->a, r->t, r->obj, arena_alloc(&r->a, r->t->size));
}

static void do_tree(struct run *r)
{
	struct jv root;

	arena_reset(&r->a);
	must(jv_parse(&r->a, r->in, NULL, &root));
}

static void do_yaml(struct run *r)
{
	r->b.n = 0;
	must(yaml_to_json(r->in, NULL, &r->b));
}

#ifdef HAVE_YAJL
static void do_yajl(struct run *r)
{
	static const yajl_callbacks none = {0};
	yajl_handle h = yajl_alloc(&none, NULL, NULL);

	if (yajl_parse(h, (const unsigned char *)r->in.p, r->in.n) != yajl_status_ok)
		exit(1);
	yajl_complete_parse(h);
	yajl_free(h);
}
#endif
#ifdef HAVE_JSON_C
static void do_json_c(struct run *r)
{
	struct json_tokener *tok = json_tokener_new();
	struct json_object *o = json_tokener_parse_ex(tok, r->in.p, (int)r->in.n);

	if (!o)
		exit(1);
	json_object_put(o);
	json_tokener_free(tok);
}
#endif

static void measure(const char *name, void (*f)(struct run *), struct run *r, size_t bytes)
{
	double best = 0;

	if (!strstr(name, only))
		return;

	/* The best of five: other work on the machine only makes it slower. */
	for (int k = 0; k < 5; k++) {
		size_t n = 0;
		double from = now(), spent;

		do {
			for (int i = 0; i < 200; i++)
				f(r);
			n += 200;
			spent = now() - from;
		} while (spent < seconds / 5);
		double rate = (double)n / spent;

		if (rate > best)
			best = rate;
	}
	printf("  %-34s %8.0f MB/s  %9.0f objects/s\n", name, best * (double)bytes / 1e6, best);
}

static void pod(const char *name, struct str json)
{
	struct run r = {.t = &core_v1_pod_type};
	arena_cleanup struct arena a = {0};
	struct buf pb = {0}, compact = {0}, yaml = {0};
	void *obj = arena_alloc(&a, r.t->size);
	struct run from_pb;

	must(json_decode(&a, r.t, json, NULL, obj));
	json_encode(&compact, r.t, obj);
	pb_encode(&pb, r.t, obj);
	must(json_to_yaml(buf_view(&compact), &yaml));
	r.in = buf_view(&compact);
	r.obj = obj;
	r.copy = malloc(r.in.n + 1);
	from_pb = r;
	from_pb.in = buf_view(&pb);
	do_json_decode(&r);
	printf("%s: %zu bytes of JSON, %zu of protobuf, %zu of arena decoded\n", name, r.in.n, pb.n, r.a.total);
	measure("memcpy", do_memcpy, &r, r.in.n);
	measure("json_decode", do_json_decode, &r, r.in.n);
	measure("json_decode, strict", do_json_strict, &r, r.in.n);
	measure("json_encode", do_json_encode, &r, r.in.n);
	measure("pb_decode", do_pb_decode, &from_pb, pb.n);
	measure("pb_encode", do_pb_encode, &from_pb, pb.n);
	measure("pb_decode + json_encode (pb bytes)", do_pb_to_json, &from_pb, pb.n);
	measure("pb_to_json (pb bytes)", do_direct, &from_pb, pb.n);
	measure("object_copy (JSON bytes)", do_copy, &r, r.in.n);
	measure("jv_parse", do_tree, &r, r.in.n);
#ifdef HAVE_YAJL
	measure("yajl, no callbacks", do_yajl, &r, r.in.n);
#endif
#ifdef HAVE_JSON_C
	measure("json-c, tree", do_json_c, &r, r.in.n);
#endif
	r.in = buf_view(&yaml);
	measure("yaml_to_json", do_yaml, &r, yaml.n);
	arena_free(&r.a);
	arena_free(&from_pb.a);
	buf_free(&r.b);
	buf_free(&from_pb.b);
	buf_free(&pb);
	buf_free(&compact);
	buf_free(&yaml);
	free(r.copy);
}

int main(int argc, char **argv)
{
	arena_cleanup struct arena a = {0};
	struct jv root;
	buf_cleanup struct buf sorted = {0};

	if (argc < 2) {
		fprintf(stderr, "usage: %s VECTORS_DIR [seconds]\n", argv[0]);
		return 2;
	}
	if (argc > 2)
		seconds = atof(argv[2]);
	if (argc > 3)
		only = argv[3];
	pod("vector pod", read_file(&a, argv[1], "core.v1.Pod.json"));
	pod("realistic pod", str_from(realistic));

	/* As kubectl, Helm and the Python client send it: keys sorted. */
	must(jv_parse(&a, str_from(realistic), NULL, &root));
	jv_encode_sorted(&sorted, &root);
	struct run r = {.t = &core_v1_pod_type, .in = buf_view(&sorted)};

	printf("realistic pod, keys sorted: %zu bytes\n", r.in.n);
	measure("json_decode", do_json_decode, &r, r.in.n);
	measure("json_decode, strict", do_json_strict, &r, r.in.n);
	arena_free(&r.a);
	return 0;
}
