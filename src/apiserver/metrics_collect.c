/* What other rooms keep anyway, read when somebody asks. */
#include <dirent.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>
#include "apiserver/alloc.h"
#include "apiserver/discovery.h"
#include "apiserver/extend.h"
#include "apiserver/flow.h"
#include "apiserver/metrics.h"
#include "loop/io.h"
#include "net/grpc.h"

static void roll(struct watermark *w)
{
	int64_t now = now_ms(), gone = now - w->since_ms;

	if (gone < 1000)
		return;
	w->before = gone < 2000 ? w->high : w->now;
	w->high = w->now;
	w->since_ms = now;
}

void watermark_add(struct watermark *w, int n)
{
	roll(w);
	w->now += n;
	if (w->now > w->high)
		w->high = w->now;
}

int watermark_high(struct watermark *w)
{
	roll(w);
	return w->before > w->high ? w->before : w->high;
}


/* A counter of a cache's, which is shown when there was anything to count. */
static void set_some(enum metric_id id, const char *labels, uint64_t n)
{
	if (n)
		metrics_set(id, labels, (double)n);
}

static void collect_storage(struct apiserver *s)
{
	size_t it = 0;
	struct str key;
	void *v;
	struct store_stats ss;

	metrics_forget(METRIC_OBJECTS); /* custom resources come and go */
	metrics_forget(METRIC_STORAGE_OBJECTS);
	metrics_forget(METRIC_EVENTS_RECEIVED);
	metrics_forget(METRIC_CACHE_RECEIVED);
	metrics_forget(METRIC_CACHE_DISPATCHED);
	metrics_forget(METRIC_CACHE_REVISION);
	metrics_forget(METRIC_CACHE_CAPACITY);
	metrics_forget(METRIC_CACHE_GROWN);
	metrics_forget(METRIC_CACHE_SHRUNK);
	metrics_forget(METRIC_INIT_EVENTS);
	metrics_forget(METRIC_TERMINATED_WATCHERS);
	metrics_forget(METRIC_DECODE_ERRORS);
	metrics_forget(METRIC_OBJECT_BYTES);
	while (map_next(&s->storages, &it, &key, &v)) {
		const struct storage *st = v;
		struct cache_stats cs;
		struct buf b buf_cleanup = {0}, name buf_cleanup = {0};

		cache_stats(st->cache, &cs);
		buf_printf(&b, "group=\"%.*s\",resource=\"%.*s\"", STR_ARG(st->group), STR_ARG(st->plural));
		buf_printf(&name, "resource=\"%.*s%s%.*s\"", STR_ARG(st->plural), st->group.n ? "." : "",
			   STR_ARG(st->group));
		metrics_set(METRIC_OBJECTS, buf_z(&b), (double)cs.objects);
		metrics_set(METRIC_STORAGE_OBJECTS, buf_z(&name), (double)cs.objects);
		metrics_set(METRIC_OBJECT_BYTES, buf_z(&b), (double)cs.object_bytes);
		metrics_set(METRIC_CACHE_REVISION, buf_z(&b), (double)cache_rev(st->cache));
		metrics_set(METRIC_CACHE_CAPACITY, buf_z(&b), (double)cs.capacity);
		set_some(METRIC_EVENTS_RECEIVED, buf_z(&b), cs.received);
		set_some(METRIC_CACHE_RECEIVED, buf_z(&b), cs.received);
		set_some(METRIC_CACHE_DISPATCHED, buf_z(&b), cs.received);
		set_some(METRIC_CACHE_GROWN, buf_z(&b), cs.grown);
		set_some(METRIC_CACHE_SHRUNK, buf_z(&b), cs.shrunk);
		set_some(METRIC_INIT_EVENTS, buf_z(&b), cs.initial);
		set_some(METRIC_TERMINATED_WATCHERS, buf_z(&b), cs.left_behind);
		set_some(METRIC_DECODE_ERRORS, buf_z(&b), cs.unreadable);
	}
	for (size_t i = 0; i <= s->n_other_stores; i++) {
		char id[64];

		snprintf(id, sizeof id, i || s->o.etcd_servers ? "storage_cluster_id=\"etcd-%zu\"" : "storage_cluster_id=\"embedded\"", i);
		store_stats(i ? s->other_stores[i - 1] : s->store, &ss);
		metrics_set(METRIC_STORAGE_SIZE, id, (double)(i || s->o.etcd_servers ? ss.bytes_map : ss.bytes_used));
	}
}

/* As the library that upstream counts with names them; the store's only. */
static void collect_grpc(void)
{
	struct arena a arena_cleanup = {0};
	size_t n;
	const struct grpc_counts *v = grpc_client_counts(&n);

	for (size_t i = 0; i < n; i++) {
		struct str method = str_from(v[i].path + 1), service = str_cut(&method, '/'), labels;

		if (!str_has_prefix(service, STR("etcdserverpb.")))
			continue;
		labels = arena_printf(&a, "grpc_method=\"%.*s\",grpc_service=\"%.*s\",grpc_type=\"%s\"", STR_ARG(method), STR_ARG(service),
				      v[i].stream ? "bidi_stream" : "unary");
		metrics_set(METRIC_GRPC_STARTED, labels.p, (double)v[i].started);
		metrics_set(METRIC_GRPC_SENT, labels.p, (double)v[i].sent);
		metrics_set(METRIC_GRPC_RECEIVED, labels.p, (double)v[i].received);
		for (int k = 0; k < GRPC_CODES; k++)
			set_some(METRIC_GRPC_HANDLED, arena_printf(&a, "grpc_code=\"%s\",%.*s", grpc_code_name((enum grpc_code)k), STR_ARG(labels)).p,
				 v[i].ended[k]);
	}
}

static double count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	double n = 0;

	if (!d)
		return 0;
	for (struct dirent *e; (e = readdir(d)) != NULL;)
		n += *e->d_name != '.';
	closedir(d);
	return n - 1; /* without the one that was opened to look */
}

static double limit(int what)
{
	struct rlimit l;

	if (getrlimit(what, &l) != 0)
		return 0;
	return l.rlim_cur == RLIM_INFINITY ? 18446744073709551615.0 : (double)l.rlim_cur;
}

/* Bytes of the process's network namespace: two lines, names and numbers in the same order. */
static void collect_network(void)
{
	struct buf b buf_cleanup = {0};
	struct str names = STR_NULL, numbers = STR_NULL;
	struct error *e = file_read("/proc/self/net/netstat", &b);

	if (e) {
		error_free(e); /* not told where there is none */
		return;
	}
	for (struct str rest = buf_view(&b); rest.n && !numbers.n;) {
		struct str line = str_cut(&rest, '\n');

		if (str_has_prefix(line, STR("IpExt: ")))
			*(names.n ? &numbers : &names) = line;
	}
	while (names.n && numbers.n) {
		struct str name = str_cut(&names, ' '), number = str_cut(&numbers, ' ');
		int64_t n;

		if (str_to_i64(number, &n) && (str_eqz(name, "InOctets") || str_eqz(name, "OutOctets")))
			metrics_set(name.p[0] == 'I' ? METRIC_NET_RECEIVED : METRIC_NET_SENT, "", (double)n);
	}
}

static void collect_process(struct apiserver *s)
{
	struct rusage ru;
	long rss = 0, vm = 0;
	FILE *f = fopen("/proc/self/statm", "re");

	if (f) {
		if (fscanf(f, "%ld %ld", &vm, &rss) != 2)
			rss = 0;
		fclose(f);
	}
	collect_network();
	getrusage(RUSAGE_SELF, &ru);
	metrics_set(METRIC_CPU, "",
		    (double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) +
			    (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6);
	metrics_set(METRIC_RSS, "", (double)(rss * sysconf(_SC_PAGESIZE)));
	metrics_set(METRIC_VSIZE, "", (double)(vm * sysconf(_SC_PAGESIZE)));
	metrics_set(METRIC_VSIZE_MAX, "", limit(RLIMIT_AS));
	metrics_set(METRIC_OPEN_FDS, "", count_fds());
	metrics_set(METRIC_MAX_FDS, "", limit(RLIMIT_NOFILE));
	metrics_set(METRIC_STARTED, "", (double)(s->started_wall_ns / 10000000) / 100);
}

/* Upstream's gates of the API server (k8s.io/apiserver/pkg/features) that tell what is and is not here; one can be switched. */
static void collect_features(const struct apiserver *s)
{
	static const struct {
		const char *stage, *names;
		bool on;
	} gates[] = {
		{"", "AnonymousAuthConfigurableEndpoints AuthorizeWithSelectors CRDValidationRatcheting ConsistentListFromCache CustomResourceFieldSelectors "
		     "MutatingAdmissionPolicy ResilientWatchCacheInitialization RetryGenerateName StreamingCollectionEncodingToJSON "
		     "StreamingCollectionEncodingToProtobuf StructuredAuthenticationConfiguration", true},
		{"", "APIServerTracing", false},
		{"BETA", "APIResponseCompression APIServerIdentity AllowParsingUserUIDFromCertAuth ConstrainedImpersonation ListFromCacheSnapshot "
			 "RemoteRequestHeaderUID SizeBasedListCostEstimate StorageVersionHash "
			 "StructuredAuthenticationConfigurationJWKSMetrics WatchList", true},
		{"BETA", "CoordinatedLeaderElection DetectCacheInconsistency StructuredAuthenticationConfigurationEgressSelector "
			 "UnknownVersionInteroperabilityProxy", false},
		{"ALPHA", "AllowUnsafeMalformedObjectDeletion ManifestBasedAdmissionControlConfig ShardedListAndWatch StorageVersionAPI", false},
		{"DEPRECATED", "KMSv1", false},
	};
	char labels[120];

	for (size_t i = 0; i < sizeof gates / sizeof *gates; i++)
		for (struct str rest = str_from(gates[i].names), name; rest.p;) {
			name = str_cut(&rest, ' ');
			snprintf(labels, sizeof labels, "name=\"%.*s\",stage=\"%s\"", STR_ARG(name), gates[i].stage);
			metrics_set(METRIC_FEATURES, labels, gates[i].on);
		}
	metrics_set(METRIC_FEATURES, "name=\"CBORServingAndStorage\",stage=\"ALPHA\"", s->o.cbor);
}

void metrics_collect(struct apiserver *s)
{
	struct buf info buf_cleanup = {0};

	metrics_set(METRIC_INFLIGHT, "request_kind=\"mutating\"", watermark_high(&s->inflight_mutating));
	metrics_set(METRIC_INFLIGHT, "request_kind=\"readOnly\"", watermark_high(&s->inflight));
	metrics_set(METRIC_INQUEUE, "request_kind=\"mutating\"", watermark_high(&s->inqueue_mutating));
	metrics_set(METRIC_INQUEUE, "request_kind=\"readOnly\"", watermark_high(&s->inqueue));
	metrics_set(METRIC_BUILD_INFO,
		    "build_date=\"" SKIFF_BUILD_DATE
		    "\",compiler=\"gcc\",git_commit=\"\",git_tree_state=\"clean\",git_version=\"" SKIFF_GIT_VERSION
		    "\",go_version=\"none\",major=\"1\",minor=\"36\",platform=\"" SKIFF_PLATFORM "\"",
		    1);
	buf_printf(&info, "binary=\"%s\",component=\"kube\",emulation=\"1.36\",min_compat=\"1.35\"", git_version(&s->o) + 1);
	metrics_set(METRIC_VERSION_INFO, buf_z(&info), 1);
	collect_features(s);
	static const enum metric_id from_the_start[] = {METRIC_AUDIT_EVENTS, METRIC_AUDIT_REJECTED, METRIC_CERT_EXPIRATION, METRIC_DISCOVERY_AGGREGATED,
							METRIC_DISCOVERY_NOPEER, METRIC_DISCOVERY_PEER_HITS, METRIC_DISCOVERY_PEER_MISSES,
							METRIC_SA_LEGACY, METRIC_SA_LEGACY_AUTO, METRIC_SA_LEGACY_INVALID, METRIC_SA_LEGACY_MANUAL, METRIC_SA_STALE,
							METRIC_SA_VALID, METRIC_UNEXPECTED, METRIC_PORT_REPAIR_FAILURES, METRIC_LOG_TLS_FAILURES,
							METRIC_RATCHETING, METRIC_KMS_MISSES, METRIC_DATA_KEY_TIME, METRIC_DATA_KEY_FAILURES,
							METRIC_DECLARATIVE_MISMATCH, METRIC_DECLARATIVE_PANIC, METRIC_WEBHOOK_NO_SAN,
							METRIC_WEBHOOK_SHA1, METRIC_AGGREGATED_NO_SAN, METRIC_AGGREGATED_SHA1};

	for (size_t i = 0; i < sizeof from_the_start / sizeof *from_the_start; i++)
		metric_touch(metric_series(from_the_start[i], ""));
	metrics_set(METRIC_TLS_ERRORS, "", (double)http_server_bad_handshakes(s->http));
	aggregate_collect(s);
	alloc_collect(s);
	metric_touch(metric_series(METRIC_CEL_COMPILATION, ""));
	metric_touch(metric_series(METRIC_CEL_EVALUATION, ""));
	flow_collect();
	collect_storage(s);
	collect_grpc();
	collect_process(s);
}
