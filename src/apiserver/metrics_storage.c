/* What the store and the watch cache do for a resource, counted under upstream's names (k8s.io/apiserver storage/etcd3/metrics, storage/cacher/metrics). */
#include <stdio.h>
#include <stdlib.h>
#include "apiserver/metrics.h"

static const char *const operations[] = {
	[CACHE_CALL_LIST] = "list", [CACHE_CALL_CREATE] = "create", [CACHE_CALL_UPDATE] = "update", [CACHE_CALL_DELETE] = "delete"};

struct storage_metrics {
	char *group, *resource; /* as they stand in labels */
	struct metric *time[CACHE_CALLS], *count[CACHE_CALLS];
	struct metric *loads, *fetched, *loaded;
	struct metric *lists, *list_fetched, *list_returned;
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
	if (call != CACHE_CALL_LIST)
		return;
	if (!m->loads) {
		m->loads = series(m, METRIC_STORAGE_LISTS, "");
		m->fetched = series(m, METRIC_STORAGE_LIST_FETCHED, "");
		m->loaded = series(m, METRIC_STORAGE_LIST_RETURNED, "");
	}
	metric_add(m->loads, 1);
	metric_add(m->fetched, (double)n);
	metric_add(m->loaded, (double)n);
}

void metrics_list(struct storage_metrics *m, size_t fetched, size_t returned)
{
	if (!m->lists) {
		m->lists = series(m, METRIC_CACHE_LISTS, "index=\"\",");
		m->list_fetched = series(m, METRIC_CACHE_LIST_FETCHED, "index=\"\",");
		m->list_returned = series(m, METRIC_CACHE_LIST_RETURNED, "");
	}
	metric_add(m->lists, 1);
	metric_add(m->list_fetched, (double)fetched);
	metric_add(m->list_returned, (double)returned);
}
