/* /statusz and /flagz (KEP-4827, KEP-4828): text for people, and kinds of config.k8s.io for programs. */
#include <time.h>
#include "apiserver/discovery.h"
#include "schema/jv.h"

#define COMPONENT "apiserver" /* upstream's name of it in these pages */

struct zpage {
	const char *kind, *title;
	void (*text)(struct request *rq, struct buf *b);
	void (*members)(struct request *rq, struct buf *b); /* behind metadata, each with a comma before it */
};

/* text/plain, or JSON, YAML or CBOR of a version that is asked for by name. */
static bool choose(struct request *rq, const struct zpage *z, bool *text, struct str *version)
{
	struct accept_clause *v;
	struct str accept = http_header_get(&rq->x->headers, "accept");
	static const struct {
		const char *type;
		enum media_type media;
	} structured[] = {{"application/json", MEDIA_JSON}, {"application/yaml", MEDIA_YAML}, {"application/cbor", MEDIA_CBOR}};
	size_t n = accept_parse(rq->a, accept, &v);

	*text = true;
	if (!str_trim(accept).n)
		return true;
	for (size_t i = 0; i < n; i++) {
		struct str g = query_get(&v[i].params, "g"), as = query_get(&v[i].params, "as");

		if (!as.n && (str_eqz(v[i].type, "text/plain") || str_eqz(v[i].type, "text/*") || str_eqz(v[i].type, "*/*")))
			return true;
		*version = query_get(&v[i].params, "v");
		if (!str_eqz(g, "config.k8s.io") || !str_eqz(as, z->kind) || !(str_eqz(*version, "v1beta1") || str_eqz(*version, "v1alpha1")))
			continue;
		for (size_t k = 0; k < sizeof structured / sizeof *structured; k++) {
			if (!str_eqz(v[i].type, structured[k].type) ||
			    (structured[k].media == MEDIA_CBOR && !rq->s->o.cbor))
				continue;
			*text = false;
			rq->out.media = structured[k].media;
			rq->out.content_type = arena_printf(rq->a, "%s;g=config.k8s.io;v=%.*s;as=%s",
							    structured[k].type, STR_ARG(*version), z->kind);
			return true;
		}
	}
	return false;
}

static struct error *serve(struct request *rq, const struct zpage *z)
{
	struct buf b buf_cleanup = {0};
	struct str version = STR_NULL;
	bool text;

	if (!choose(rq, z, &text, &version))
		return error_status(406, "NotAcceptable",
				    "only text/plain, and application/json and application/yaml with "
				    "v=v1beta1;g=config.k8s.io;as=%s "
				    "are acceptable",
				    z->kind);
	if (text) {
		buf_printf(&b, "\n" COMPONENT " %s\nWarning: This endpoint is not meant to be machine parseable, has no formatting compatibility "
			       "guarantees and is for debugging purposes only.\n", z->title);
		z->text(rq, &b);
		return respond_bytes(rq, 200, STR("text/plain; charset=utf-8"), buf_view(&b));
	}
	if (str_eqz(version, "v1alpha1"))
		request_warn(rq, "This version of the %s endpoint is deprecated. Please use a newer version.", z->title);
	buf_printf(&b, "{\"kind\":\"%s\",\"apiVersion\":\"config.k8s.io/%.*s\",\"metadata\":{\"name\":\"" COMPONENT "\"}", z->kind,
		   STR_ARG(version));
	z->members(rq, &b);
	buf_putc(&b, '}');
	if (rq->out.media != MEDIA_JSON)
		return respond_json(rq, 200, buf_view(&b));
	buf_putc(&b, '\n');
	return respond_bytes(rq, 200, rq->out.content_type, buf_view(&b));
}

/* ---- statusz ---- */

static int64_t uptime_s(struct request *rq)
{
	int64_t up = (wall_ns() - rq->s->started_wall_ns) / 1000000000;

	return up > 0 ? up : 0;
}

/* First segments of what is served, but those that clients of the API know anyway. */
static void each_path(struct request *rq, struct buf *b, const char *between, const char *quote)
{
	static const char *const api[] = {"/apis", "/api", "/openid", "/openapi", "/.well-known"};
	size_t n;
	struct str *paths = served_paths(rq, &n), last = STR_NULL;

	for (size_t i = 0; i < n; i++) {
		struct str rest = str_sub(paths[i], 1, paths[i].n), first = str_cut(&rest, '/');
		bool skip = str_eq(first, last) || !first.n;

		for (size_t k = 0; k < sizeof api / sizeof *api; k++)
			skip |= str_eqz(first, api[k] + 1);
		if (skip)
			continue;
		buf_printf(b, "%s%s/%.*s%s", last.p ? between : "", quote, STR_ARG(first), quote);
		last = first;
	}
}

static void status_text(struct request *rq, struct buf *b)
{
	time_t at = (time_t)(rq->s->started_wall_ns / 1000000000);
	int64_t up = uptime_s(rq);
	struct tm tm;
	char when[64];

	gmtime_r(&at, &tm);
	strftime(when, sizeof when, "%a %b %e %H:%M:%S UTC %Y", &tm);
	buf_printf(b, "\nStarted: %s\nUp: %lld hr %02lld min %02lld sec\nGo version: none\nBinary version: %s\nEmulation version: 1.36\nPaths: ",
		   when, (long long)up / 3600, (long long)up / 60 % 60, (long long)up % 60, git_version(&rq->s->o) + 1);
	each_path(rq, b, " ", "");
	buf_putc(b, '\n');
}

static void status_members(struct request *rq, struct buf *b)
{
	struct api_time t = {.s = rq->s->started_wall_ns / 1000000000, .set = true};
	struct str when = time_format(rq->a, t, false);

	buf_printf(b, ",\"startTime\":\"%.*s\",\"uptimeSeconds\":%lld,\"goVersion\":\"none\",\"binaryVersion\":\"%s\",\"emulationVersion\":"
		      "\"1.36\",\"paths\":[", STR_ARG(when), (long long)uptime_s(rq), git_version(&rq->s->o) + 1);
	each_path(rq, b, ",", "\"");
	buf_putc(b, ']');
}

struct error *serve_statusz(struct request *rq)
{
	static const struct zpage page = {"Statusz", "statusz", status_text, status_members};

	return serve(rq, &page);
}

/* ---- flagz ---- */

static int flag_cmp(const void *x, const void *y)
{
	return str_cmp(((const struct str_pair *)x)->key, ((const struct str_pair *)y)->key);
}

static struct str_pair *sorted_flags(struct request *rq, uint32_t *n)
{
	LIST(struct str_pair) list = {0};
	struct buf value buf_cleanup = {0};
	const char *name;

	for (size_t i = 0; option_at(rq->a, &rq->s->o, i, &name, &value); i++, value.n = 0)
		*arena_push(rq->a, &list) = (struct str_pair){str_from(name), arena_str(rq->a, buf_view(&value))};
	qsort(list.v, list.n, sizeof *list.v, flag_cmp);
	*n = list.n;
	return list.v;
}

static void flags_text(struct request *rq, struct buf *b)
{
	uint32_t n;
	struct str_pair *flags = sorted_flags(rq, &n);

	for (uint32_t i = 0; i < n; i++)
		buf_printf(b, "%.*s=%.*s\n", STR_ARG(flags[i].key), STR_ARG(flags[i].value));
}

static void flags_members(struct request *rq, struct buf *b)
{
	uint32_t n;
	struct str_pair *flags = sorted_flags(rq, &n);

	buf_puts(b, ",\"flags\":{");
	for (uint32_t i = 0; i < n; i++) {
		if (i)
			buf_putc(b, ',');
		jv_encode_string(b, flags[i].key);
		buf_putc(b, ':');
		jv_encode_string(b, flags[i].value);
	}
	buf_putc(b, '}');
}

struct error *serve_flagz(struct request *rq)
{
	static const struct zpage page = {"Flagz", "flagz", flags_text, flags_members};

	return serve(rq, &page);
}
