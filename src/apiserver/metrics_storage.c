/* What the store and the watch cache do for a resource, counted under upstream's names (k8s.io/apiserver storage/etcd3/metrics, storage/cacher/metrics). */
#include <stdio.h>
#include <stdlib.h>
#include "apiserver/metrics.h"

static const char *const operations[] = {
	[CACHE_CALL_LIST] = "list", [CACHE_CALL_CREATE] = "create", [CACHE_CALL_UPDATE] = "update", [CACHE_CALL_DELETE] = "delete"};

struct listed {
	struct metric *lists, *fetched, *returned;
};

struct storage_metrics {
	char *group, *resource; /* as they stand in labels */
	struct metric *time[CACHE_CALLS], *count[CACHE_CALLS];
	struct listed store, cache;
	struct metric *newest; /* lists of the newest state */
	struct metric *waits;
};

struct storage_metrics *metrics_storage(struct str group, struct str resource)
{
	static struct map all; /* "GROUP/RESOURCE" */
	struct arena a arena_cleanup = {0};
	struct str key = arena_printf(&a, "%.*s/%.*s", STR_ARG(group), STR_ARG(resource));
	struct storage_metrics *m = map_get(&all, key);

	if (m)
		return m;
	m = xcalloc(1, sizeof *m);
	m->group = str_dupz(group);
	m->resource = str_dupz(resource);
	map_set(&all, key, m);
	return m;
}

static struct metric *series(const struct storage_metrics *m, enum metric_id id, const char *label)
{
	struct buf b buf_cleanup = {0};

	buf_printf(&b, "group=\"%s\",%sresource=\"%s\"", m->group, label, m->resource);
	return metric_series(id, buf_z(&b));
}

/* One list more. ids: of lists, objects looked at, objects returned; index: a label of the first two. */
static void count_list(const struct storage_metrics *m, struct listed *l, const enum metric_id ids[3], const char *index, size_t fetched,
		       size_t returned)
{
	if (!l->lists) {
		l->lists = series(m, ids[0], index);
		l->fetched = series(m, ids[1], index);
		l->returned = series(m, ids[2], "");
	}
	metric_add(l->lists, 1);
	metric_add(l->fetched, (double)fetched);
	metric_add(l->returned, (double)returned);
}

void metrics_store_call(void *ctx, enum cache_call call, int64_t ns, size_t n, bool failed)
{
	struct storage_metrics *m = ctx;
	char operation[40];

	snprintf(operation, sizeof operation, "operation=\"%s\",", operations[call]);
	if (!m->time[call]) {
		m->time[call] = series(m, METRIC_STORE_TIME, operation);
		m->count[call] = series(m, METRIC_STORE_REQUESTS, operation);
	}
	metric_observe(m->time[call], (double)ns / 1e9);
	metric_add(m->count[call], 1);
	if (failed)
		metric_add(series(m, METRIC_STORE_ERRORS, operation), 1);
	if (call == CACHE_CALL_LIST) {
		static const enum metric_id ids[] = {METRIC_STORAGE_LISTS, METRIC_STORAGE_LIST_FETCHED, METRIC_STORAGE_LIST_RETURNED};

		count_list(m, &m->store, ids, "", n, n);
		metric_add(series(m, METRIC_STORAGE_LIST_EVALUATED, ""), (double)n);
		if (!failed)
			metric_add(series(m, METRIC_CACHE_INITIALIZATIONS, ""), 1);
	}
}

void metrics_cache_waited(void *ctx, int64_t ns)
{
	struct storage_metrics *m = ctx;

	if (!m->waits)
		m->waits = series(m, METRIC_CACHE_READ_WAIT, "");
	metric_observe(m->waits, (double)ns / 1e9);
}

void metrics_list(struct storage_metrics *m, bool newest, size_t fetched, size_t returned)
{
	static const enum metric_id ids[] = {METRIC_CACHE_LISTS, METRIC_CACHE_LIST_FETCHED, METRIC_CACHE_LIST_RETURNED};

	count_list(m, &m->cache, ids, "index=\"\",", fetched, returned);
	if (!newest)
		return;
	if (!m->newest) {
		struct buf b buf_cleanup = {0};

		buf_printf(&b, "fallback=\"false\",group=\"%s\",resource=\"%s\",success=\"true\"", m->group, m->resource);
		m->newest = metric_series(METRIC_CACHE_CONSISTENT_READS, buf_z(&b));
	}
	metric_add(m->newest, 1);
}
