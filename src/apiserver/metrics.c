/* /metrics in the Prometheus text format, under upstream's names. */
#include <sys/resource.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "apiserver/discovery.h"
#include "apiserver/flow.h"
#include "apiserver/metrics.h"
#include "base/log.h"

#define SERIES_MAX 20000
static const double buckets[] = {0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60};
#define N_BUCKETS (sizeof buckets / sizeof *buckets)

struct histogram {
	uint64_t counts[N_BUCKETS], n;
	double sum;
};
struct doubling { /* see metrics_histogram */
	const struct metrics_histogram *h;
	char *labels;
	uint64_t counts[METRICS_BUCKETS], n;
	double sum;
};
struct metrics {
	struct map requests;  /* labels -> uint64_t */
	struct map durations; /* labels -> struct histogram */
	struct map other;     /* name{labels} -> double */
	struct map doublings; /* name{labels} -> struct doubling */
};

static struct metrics *state(struct apiserver *s)
{
	if (!s->metrics)
		s->metrics = xcalloc(1, sizeof *s->metrics);
	return s->metrics;
}

static void *series(struct map *m, struct str key, size_t size)
{
	void *v = map_get(m, key);

	if (!v) {
		if (m->n >= SERIES_MAX)
			return NULL;
		v = xcalloc(1, size);
		map_set(m, key, v);
	}
	return v;
}

static struct str metric_verb(const struct request *rq)
{
	struct str v = rq->info.verb;
	static const struct {
		const char *verb, *shown;
	} names[] = {
		{"get", "GET"}, {"list", "LIST"}, {"watch", "WATCH"}, {"create", "POST"}, {"update", "PUT"}, {"patch", "PATCH"},
		{"delete", "DELETE"}, {"deletecollection", "DELETECOLLECTION"},
	};

	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (str_eqz(v, names[i].verb))
			return str_from(names[i].shown);
	return STR("other");
}

void metrics_request(struct request *rq)
{
	struct metrics *m = state(rq->s);
	const struct request_info *i = &rq->info;
	const char *scope = !i->resource_request ? "" : i->name.n ? "resource" : i->ns.n ? "namespace" : "cluster";
	bool known = rq->res != NULL;
	struct str verb = metric_verb(rq);
	char key[600];
	int n;
	uint64_t *count;
	struct histogram *h;
	double seconds = (double)(now_ns() - rq->start_ns) / 1e9;

	if (i->resource_request && !known)
		return; /* unknown names would make series without end */
	n = snprintf(key, sizeof key,
		     "code=\"%d\",component=\"apiserver\",dry_run=\"%s\",group=\"%.*s\",resource=\"%.*s\",scope=\"%s\",subresource=\"%.*s\","
		     "verb=\"%.*s\",version=\"%.*s\"", rq->status, rq->dry_run ? "All" : "", STR_ARG(i->group),
		     known ? (int)i->resource.n : 0, known ? i->resource.p : "", scope, STR_ARG(i->resource_request ? i->subresource :
		     str_sub(i->path, 0, str_eqz(i->path, "/metrics") ? i->path.n : 0)), STR_ARG(verb), STR_ARG(i->version));
	if (n >= (int)sizeof key)
		return;
	count = series(&m->requests, str_of(key, (size_t)n), sizeof *count);
	if (count)
		++*count;
	if (rq->long_running)
		return;
	n = snprintf(key, sizeof key,
		     "component=\"apiserver\",dry_run=\"%s\",group=\"%.*s\",resource=\"%.*s\",scope=\"%s\",subresource=\"%.*s\",verb=\"%.*s\","
		     "version=\"%.*s\"", rq->dry_run ? "All" : "", STR_ARG(i->group), known ? (int)i->resource.n : 0, known ? i->resource.p : "",
		     scope, STR_ARG(i->resource_request ? i->subresource : STR("")), STR_ARG(verb), STR_ARG(i->version));
	h = series(&m->durations, str_of(key, (size_t)n), sizeof *h);
	if (!h)
		return;
	h->n++;
	h->sum += seconds;
	for (size_t b = 0; b < N_BUCKETS; b++)
		if (seconds <= buckets[b])
			h->counts[b]++;
}

#define LABELS_MAX 600

void metrics_count(struct apiserver *s, const char *name, const char *labels, int64_t n)
{
	char key[LABELS_MAX];
	double *v;

	snprintf(key, sizeof key, "%s{%s}", name, labels);
	v = series(&state(s)->other, str_from(key), sizeof *v);
	if (v)
		*v += (double)n;
}

void metrics_set(struct apiserver *s, const char *name, const char *labels, double value)
{
	char key[LABELS_MAX];
	double *v;

	snprintf(key, sizeof key, "%s{%s}", name, labels);
	v = series(&state(s)->other, str_from(key), sizeof *v);
	if (v)
		*v = value;
}

void metrics_forget(struct apiserver *s, const char *name)
{
	size_t it = 0, n = strlen(name);
	struct str key;
	void *v;

	while (map_next(&state(s)->other, &it, &key, &v))
		if (key.n > n && key.p[n] == '{' && !memcmp(key.p, name, n))
			free(map_del(&s->metrics->other, key));
}

void metrics_observe(struct apiserver *s, const struct metrics_histogram *h, const char *labels, double value)
{
	char key[LABELS_MAX];
	double limit = h->first;
	struct doubling *d;

	snprintf(key, sizeof key, "%s{%s}", h->name, labels);
	d = series(&state(s)->doublings, str_from(key), sizeof *d);
	if (!d)
		return;
	if (!d->h) {
		d->h = h;
		d->labels = xstrdup(labels);
	}
	d->n++;
	d->sum += value;
	for (int i = 0; i < h->n; i++, limit *= 2)
		if (value <= limit)
			d->counts[i]++;
}

void metrics_hash(struct str s, char out[METRICS_HASH])
{
	unsigned char md[SHA256_DIGEST_LENGTH];

	*out = 0;
	if (!s.n)
		return;
	SHA256((const unsigned char *)s.p, s.n, md);
	strcpy(out, "sha256:");
	for (size_t i = 0; i < sizeof md; i++)
		sprintf(out + 7 + 2 * i, "%02x", md[i]);
}

const char *metrics_server_hash(void)
{
	static const char digits[] = "abcdefghijklmnopqrstuvwxyz234567", who[] = "kube-apiserver";
	static char hash[METRICS_HASH];
	unsigned char md[SHA256_DIGEST_LENGTH];
	char host[256] = "", id[40] = "apiserver-";
	struct buf b buf_cleanup = {0};
	size_t at = strlen(id);

	if (*hash)
		return hash;
	if (gethostname(host, sizeof host - 1) != 0)
		*host = 0;
	/* host and component, each behind its length; the first 16 bytes of the digest in base32 */
	buf_append(&b, (char[]){0, (char)strlen(host)}, 2);
	buf_puts(&b, host);
	buf_append(&b, (char[]){0, sizeof who - 1}, 2);
	buf_puts(&b, who);
	SHA256((const unsigned char *)b.p, b.n, md);
	md[16] = 0;
	for (unsigned bit = 0; bit < 128; bit += 5)
		id[at++] = digits[((md[bit / 8] << 8 | md[bit / 8 + 1]) >> (11 - bit % 8)) & 31];
	metrics_hash(str_of(id, at), hash);
	return hash;
}

static void put_number(struct buf *b, double v)
{
	if (v >= -1e15 && v <= 1e15 && v == (double)(int64_t)v)
		buf_i64(b, (int64_t)v);
	else
		buf_printf(b, "%.17g", v);
}

static void put_doublings(struct buf *b, struct metrics *m)
{
	size_t it = 0;
	struct str key;
	void *v;

	while (map_next(&m->doublings, &it, &key, &v)) {
		const struct doubling *d = v;
		double limit = d->h->first;

		for (int i = 0; i < d->h->n; i++, limit *= 2)
			buf_printf(b, "%s_bucket{%s,le=\"%g\"} %llu\n", d->h->name, d->labels, limit, (unsigned long long)d->counts[i]);
		buf_printf(b, "%s_bucket{%s,le=\"+Inf\"} %llu\n%s_sum{%s} %.9f\n%s_count{%s} %llu\n", d->h->name, d->labels,
			   (unsigned long long)d->n, d->h->name, d->labels, d->sum, d->h->name, d->labels, (unsigned long long)d->n);
	}
}

static void process_metrics(struct apiserver *s, struct buf *b)
{
	struct rusage ru;
	long rss = 0, vm = 0;
	FILE *f = fopen("/proc/self/statm", "re");

	if (f) {
		if (fscanf(f, "%ld %ld", &vm, &rss) != 2)
			rss = 0;
		fclose(f);
	}
	getrusage(RUSAGE_SELF, &ru);
	buf_printf(b, "# HELP process_cpu_seconds_total Total user and system CPU time spent in seconds.\n# TYPE process_cpu_seconds_total "
		      "counter\nprocess_cpu_seconds_total %.2f\n",
		   (double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) + (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6);
	buf_printf(b, "# HELP process_resident_memory_bytes Resident memory size in bytes.\n# TYPE process_resident_memory_bytes gauge\n"
		      "process_resident_memory_bytes %ld\n", rss * sysconf(_SC_PAGESIZE));
	buf_printf(b, "# HELP process_virtual_memory_bytes Virtual memory size in bytes.\n# TYPE process_virtual_memory_bytes gauge\n"
		      "process_virtual_memory_bytes %ld\n", vm * sysconf(_SC_PAGESIZE));
	buf_printf(b, "# HELP process_start_time_seconds Start time of the process since unix epoch in seconds.\n# TYPE "
		      "process_start_time_seconds gauge\nprocess_start_time_seconds %.3f\n", (double)s->started_wall_ns / 1e9);
}

static void reset(struct metrics *m)
{
	struct map *maps[] = {&m->requests, &m->durations, &m->other};

	for (size_t i = 0; i < sizeof maps / sizeof *maps; i++) {
		size_t it = 0;
		struct str key;
		void *v;

		while (map_next(maps[i], &it, &key, &v))
			free(v);
		map_free(maps[i]);
	}
}

struct error *serve_metrics(struct request *rq)
{
	struct apiserver *s = rq->s;
	struct metrics *m = state(s);
	struct buf b buf_cleanup = {0};
	size_t it = 0;
	struct str key;
	void *v;

	if (str_eqz(rq->x->method, "DELETE") && s->o.profiling) {
		reset(m);
		return respond_bytes(rq, 200, STR("text/plain; charset=utf-8"), STR("metrics reset\n"));
	}
	buf_puts(&b, "# HELP apiserver_request_total Counter of apiserver requests broken out for each verb, dry run value, group, version, "
		     "resource, scope, component, and HTTP response code.\n# TYPE apiserver_request_total counter\n");
	while (map_next(&m->requests, &it, &key, &v))
		buf_printf(&b, "apiserver_request_total{%.*s} %llu\n", STR_ARG(key), (unsigned long long)*(uint64_t *)v);
	buf_puts(&b, "# HELP apiserver_request_duration_seconds Response latency distribution in seconds for each verb, dry run value, group, "
		     "version, resource, subresource, scope and component.\n# TYPE apiserver_request_duration_seconds histogram\n");
	it = 0;
	while (map_next(&m->durations, &it, &key, &v)) {
		struct histogram *h = v;

		for (size_t i = 0; i < N_BUCKETS; i++)
			buf_printf(&b, "apiserver_request_duration_seconds_bucket{%.*s,le=\"%g\"} %llu\n", STR_ARG(key), buckets[i],
				   (unsigned long long)h->counts[i]);
		buf_printf(&b, "apiserver_request_duration_seconds_bucket{%.*s,le=\"+Inf\"} %llu\n", STR_ARG(key), (unsigned long long)h->n);
		buf_printf(&b, "apiserver_request_duration_seconds_sum{%.*s} %.9f\n", STR_ARG(key), h->sum);
		buf_printf(&b, "apiserver_request_duration_seconds_count{%.*s} %llu\n", STR_ARG(key), (unsigned long long)h->n);
	}
	buf_printf(&b, "# HELP apiserver_current_inflight_requests Maximal number of currently used inflight request limit of this apiserver "
		       "per request kind in last second.\n# TYPE apiserver_current_inflight_requests gauge\n"
		       "apiserver_current_inflight_requests{request_kind=\"mutating\"} %d\n"
		       "apiserver_current_inflight_requests{request_kind=\"readOnly\"} %d\n", s->inflight_mutating, s->inflight);
	buf_puts(&b, "# HELP apiserver_resource_objects Number of stored objects at the time of last check split by kind.\n"
		     "# TYPE apiserver_resource_objects gauge\n");
	it = 0;
	while (map_next(&s->storages, &it, &key, &v)) {
		struct storage *st = v;
		struct cache_stats cs;

		cache_stats(st->cache, &cs);
		buf_printf(&b, "apiserver_resource_objects{group=\"%.*s\",resource=\"%.*s\"} %zu\n", STR_ARG(st->group), STR_ARG(st->plural),
			   cs.objects);
		buf_printf(&b, "apiserver_storage_objects{resource=\"%.*s%s%.*s\"} %zu\n", STR_ARG(st->plural), st->group.n ? "." : "",
			   STR_ARG(st->group), cs.objects);
		buf_printf(&b, "apiserver_registered_watchers{group=\"%.*s\",kind=\"%.*s\"} %zu\n", STR_ARG(st->group), STR_ARG(st->kind),
			   cs.watchers);
	}
	it = 0;
	while (map_next(&m->other, &it, &key, &v)) {
		buf_printf(&b, "%.*s ", STR_ARG(key));
		put_number(&b, *(double *)v);
		buf_putc(&b, '\n');
	}
	put_doublings(&b, m);
	flow_metrics(&b);
	{
		struct store_stats ss;

		store_stats(s->store, &ss);
		buf_printf(&b, "# HELP apiserver_storage_size_bytes Size of the storage database file physically allocated in bytes.\n# TYPE "
			       "apiserver_storage_size_bytes gauge\napiserver_storage_size_bytes{storage_cluster_id=\"embedded\"} %lld\n",
			   (long long)ss.bytes_used);
	}
	process_metrics(s, &b);
	return respond_bytes(rq, 200, METRICS_TYPE, buf_view(&b));
}
