/* /debug: what the process is doing. Only with --profiling. */
#include "apiserver/discovery.h"
#include "apiserver/flow.h"
#include "apiserver/snapshot.h"

#define FLOW_PAGES "/debug/api_priority_and_fairness/"

static struct error *fibers(struct request *rq)
{
	size_t n, stack;

	loop_stats(&n, &stack);
	return respond_bytes(rq, 200, STR("text/plain; charset=utf-8"),
			     arena_printf(rq->a, "fibers %zu\nstack_high_water_bytes %zu\n", n, stack));
}

static struct error *memory(struct request *rq)
{
	struct buf b buf_cleanup = {0};
	size_t it = 0;
	struct str key;
	void *v;

	buf_puts(&b, "resource objects watchers object_bytes index_bytes event_bytes\n");
	while (map_next(&rq->s->storages, &it, &key, &v)) {
		struct storage *st = v;
		struct cache_stats cs;

		cache_stats(st->cache, &cs);
		buf_printf(&b, "%.*s %zu %zu %zu %zu %zu\n", STR_ARG(key), cs.objects, cs.watchers, cs.object_bytes, cs.index_bytes,
			   cs.event_bytes);
	}
	struct grace_stats gs = grace_stats(rq->s->grace);

	buf_printf(&b, "states and schemas of CustomResourceDefinitions: %llu replaced, %llu freed\n", (unsigned long long)gs.retired,
		   (unsigned long long)gs.freed);
	return respond_bytes(rq, 200, STR("text/plain; charset=utf-8"), buf_view(&b));
}

/* What there is to see. The profiles upstream has here are those of the Go runtime. */
static struct error *profiles(struct request *rq)
{
	http_set_header(rq->x, "x-content-type-options", STR("nosniff"));
	return respond_bytes(rq, 200, STR("text/html; charset=utf-8"),
			     STR("<!DOCTYPE html>\n<html><head><title>/debug/pprof/</title></head><body>\n<p>Go profiles are not built; there are:</p>\n"
				 "<ul>\n<li><a href=\"/debug/fibers\">fibers</a></li>\n<li><a href=\"/debug/memory\">memory</a></li>\n</ul>\n"
				 "</body></html>\n"));
}

static struct error *to_profiles(struct request *rq)
{
	bool shown = str_eqz(rq->x->method, "GET") || str_eqz(rq->x->method, "HEAD");

	http_set_header(rq->x, "location", STR("/debug/pprof/"));
	return respond_bytes(rq, 302, shown ? STR("text/html; charset=utf-8") : STR_NULL,
			     str_eqz(rq->x->method, "GET") ? STR("<a href=\"/debug/pprof/\">Found</a>.\n\n")
							   : STR_NULL);
}

static struct error *flags(struct request *rq)
{
	return respond_bytes(
		rq, 200, STR("text/html; charset=utf-8"),
		STR("<!DOCTYPE html>\n<html><head><title>/debug/flags/</title></head><body>\n<p>To be set by PUT:</p>\n"
		    "<ul>\n<li><a href=\"/debug/flags/v\">v</a></li>\n</ul>\n</body></html>\n"));
}

static struct error *said(struct request *rq, int code, const char *text)
{
	http_set_header(rq->x, "x-content-type-options", STR("nosniff"));
	return respond_bytes(rq, code, STR("text/plain"), str_from(text));
}

/* PUT /debug/flags/v: the verbosity of the log, while it runs. */
static struct error *verbosity(struct request *rq)
{
	struct str body;
	int64_t v;

	if (!str_eqz(rq->x->method, "PUT"))
		return said(rq, 406, "unsupported http method\n");
	TRY(request_body(rq, 64, &body));
	if (!str_to_i64(str_trim(body), &v) || v < 0 || v > 100)
		return said(rq, 400, "the verbosity is a number from 0 to 100\n");
	log_set_verbosity((int)v);
	return respond_bytes(rq, 200, STR("text/plain; charset=utf-8"),
			     arena_printf(rq->a, "successfully set klog.logging.verbosity to %d", (int)v));
}

struct error *serve_debug(struct request *rq, bool *handled)
{
	static const struct {
		const char *path;
		struct error *(*serve)(struct request *rq);
	} pages[] = {
		{SNAPSHOT_PATH, serve_snapshot}, {"/debug/fibers", fibers},     {"/debug/memory", memory},
		{"/debug/pprof", to_profiles},   {"/debug/pprof/", profiles},   {"/debug/flags", flags},
		{"/debug/flags/", flags},        {"/debug/flags/v", verbosity},
	};

	struct str page = rq->info.path;

	if (rq->s->o.profiling && str_has_prefix(page, STR(FLOW_PAGES)))
		return flow_dump(rq, str_sub(page, sizeof FLOW_PAGES - 1, page.n), handled);
	*handled = false;
	for (size_t i = 0; rq->s->o.profiling && i < sizeof pages / sizeof *pages; i++)
		if (str_eqz(rq->info.path, pages[i].path)) {
			*handled = true;
			return pages[i].serve(rq);
		}
	return NULL;
}
