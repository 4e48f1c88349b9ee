/* OpenAPI documents of aggregated servers. */
#include <openssl/sha.h>
#include "apiserver/aggregator.h"
#include "schema/openapi_merge.h"

#define AGGREGATOR STR("system:aggregator") /* who fetches them, of no group */

/* ---- version 3: listed here, read there ---- */

/* What its /openapi/v3 lists. */
static struct error *list_documents(struct api_service *v, struct str index)
{
	struct arena a arena_cleanup = {0};
	struct jv doc;
	const struct jv *paths;

	TRY(jv_parse(&a, index, NULL, &doc));
	paths = jv_get(&doc, STR("paths"));
	if (!jv_is(&doc, JV_OBJECT) || (paths && !jv_is(paths, JV_OBJECT) && !jv_is(paths, JV_NULL)))
		return error_new("no list of documents");
	arena_reset(&v->documents_arena);
	v->documents.n = 0;
	v->documents.v = NULL;
	for (uint32_t i = 0; jv_is(paths, JV_OBJECT) && i < paths->n && i < DOCUMENTS_MAX; i++) {
		struct str_pair *p = arena_push(&v->documents_arena, &v->documents);

		p->key = arena_str(&v->documents_arena, paths->members[i].key);
		p->value = arena_str(&v->documents_arena,
				     jv_str(jv_get(&paths->members[i].value, STR("serverRelativeURL"))));
	}
	return NULL;
}

bool aggregator_learn_documents(struct apiserver *s, struct api_service *v)
{
	struct arena a arena_cleanup = {0};
	struct remote *r = v->remote;
	struct remote_ask q = {.target = STR("/openapi/v3"), .user = AGGREGATOR, .limit = DISCOVERY_MAX};
	struct remote_told told;
	int64_t t = deadline_push(SPEC_TIMEOUT_MS);
	struct error *e;
	bool ok;

	if (v->only_v2) {
		deadline_pop(t);
		return true;
	}
	r->refs++;
	e = remote_get(s, &a, r, &q, &told);
	deadline_pop(t);
	if (!e && !v->gone && told.status == 404) {
		v->only_v2 = true;
		/* what came before that was known is converted now */
		free((void *)(uintptr_t)v->spec_etag.p);
		v->spec_etag = STR_NULL;
		memset(v->spec_sum, 0, sizeof v->spec_sum);
		due_set(&v->v2, 0);
	} else if (!e && told.status != 200) {
		e = error_new("/openapi/v3: %d", told.status);
	} else if (!e && !v->gone && v->remote == r) {
		e = list_documents(v, told.body);
	}
	remote_unref(r);
	ok = !e;
	if (e && !error_is_sys(e, ECANCELED))
		log_v(2, "the OpenAPI documents of APIService %.*s: %s", STR_ARG(v->name), error_message(e));
	error_free(e);
	return ok;
}

bool aggregator_document_at(struct apiserver *s, size_t i, struct str *path, struct str *url)
{
	struct aggregator *g = s->aggregator;

	for (size_t k = 0; g && k < g->n; k++) {
		if (i < g->list[k]->documents.n) {
			*path = g->list[k]->documents.v[i].key;
			*url = g->list[k]->documents.v[i].value;
			return true;
		}
		i -= g->list[k]->documents.n;
	}
	return false;
}

/* ---- version 2: what is taken of it is merged into this server's ---- */

/* Runs on another thread: a document may be long. */
struct digest {
	struct str json, prefix;
	bool convert;
	struct buf taken, converted;
	struct error *e;
};

static void digest_spec(void *arg)
{
	struct digest *d = arg;
	struct arena a arena_cleanup = {0};
	struct jv doc, v3;

	d->e = jv_parse(&a, d->json, NULL, &doc);
	if (!d->e)
		d->e = openapi_v2_check(&doc);
	if (d->e)
		return;
	if (d->convert) {
		openapi_v2_to_v3(&a, &doc, &v3);
		jv_encode_sorted(&d->converted, &v3);
	}
	openapi_v2_filter(&a, &doc, d->prefix);
	jv_encode_sorted(&d->taken, &doc);
}

static size_t size_of(const struct block *b)
{
	return b ? b->n : 0;
}

/* What it told is this from now on; the blocks are taken over. */
static void keep_spec(struct aggregator *g, struct api_service *v, struct block *spec, struct block *converted)
{
	if (!v->spec && !v->converted && !spec && !converted)
		return;
	g->specs_kept -= size_of(v->spec) + size_of(v->converted);
	block_unref(v->spec);
	block_unref(v->converted);
	v->spec = spec;
	v->converted = converted;
	g->specs_kept += size_of(spec) + size_of(converted);
	g->specs_epoch++;
}

static struct error *take_spec(struct apiserver *s, struct api_service *v, struct remote *r, struct str json)
{
	struct aggregator *g = s->aggregator;
	struct arena a arena_cleanup = {0};
	struct digest d = {
		.json = json,
		.convert = v->only_v2,
		.prefix = arena_printf(&a, "/apis/%.*s/%.*s/", STR_ARG(r->spec->group), STR_ARG(r->spec->version))};
	size_t n;
	struct error *e;

	loop_offload(digest_spec, &d);
	e = d.e;
	n = d.taken.n + d.converted.n;
	if (!e && (n > SPEC_KEPT_MAX || g->specs_kept - size_of(v->spec) - size_of(v->converted) + n > SPECS_KEPT_MAX))
		e = error_new("%zu bytes are too many to keep", n);
	if (!e && !v->gone && v->remote == r)
		keep_spec(g, v, block_new(buf_view(&d.taken)), d.convert ? block_new(buf_view(&d.converted)) : NULL);
	buf_free(&d.taken);
	buf_free(&d.converted);
	return e;
}

/* The tag of what was fetched: its own, or a digest. *same: it is what is known. */
static void note_etag(struct api_service *v, struct str etag, struct str json, bool *same)
{
	unsigned char sum[32];
	char *p;

	free((void *)(uintptr_t)v->spec_etag.p);
	v->spec_etag = STR_NULL;
	SHA256((const unsigned char *)json.p, json.n, sum);
	*same = v->spec && !memcmp(sum, v->spec_sum, sizeof sum);
	memcpy(v->spec_sum, sum, sizeof sum);
	if (!etag.n)
		return;
	p = xmalloc(etag.n);
	memcpy(p, etag.p, etag.n);
	v->spec_etag = str_of(p, etag.n);
}

bool aggregator_learn_spec(struct apiserver *s, struct api_service *v)
{
	struct arena a arena_cleanup = {0};
	struct remote *r = v->remote;
	struct remote_ask q = {.target = STR("/openapi/v2"),
			       .user = AGGREGATOR,
			       .accept = STR("application/json"),
			       .etag = arena_str(&a, v->spec_etag),
			       .limit = SPEC_MAX};
	struct remote_told told;
	int64_t t = deadline_push(SPEC_TIMEOUT_MS);
	struct error *e;
	bool ok, same;

	r->refs++;
	e = remote_get(s, &a, r, &q, &told);
	deadline_pop(t);
	if (!e && told.status != 200 && !(told.status == 304 && q.etag.n))
		e = error_new("/openapi/v2: %d", told.status);
	if (!e && told.status == 200 && !v->gone && v->remote == r) {
		note_etag(v, told.etag, told.body, &same);
		if (!same)
			e = take_spec(s, v, r, told.body);
		if (e) { /* and when it comes again, it is looked at again */
			free((void *)(uintptr_t)v->spec_etag.p);
			v->spec_etag = STR_NULL;
			memset(v->spec_sum, 0, sizeof v->spec_sum);
		}
	}
	remote_unref(r);
	ok = !e;
	if (e && !error_is_sys(e, ECANCELED))
		log_v(2, "the OpenAPI document of APIService %.*s: %s", STR_ARG(v->name), error_message(e));
	error_free(e);
	return ok;
}

void aggregator_forget(struct aggregator *g, struct api_service *v)
{
	keep_spec(g, v, NULL, NULL);
	free((void *)(uintptr_t)v->spec_etag.p);
	free((void *)(uintptr_t)v->discovery_etag.p);
	v->spec_etag = v->discovery_etag = STR_NULL;
	memset(v->spec_sum, 0, sizeof v->spec_sum);
	block_unref(v->resources);
	v->resources = NULL;
	v->fresh = v->only_v2 = false;
	arena_free(&v->documents_arena);
	v->documents_arena = (struct arena){0};
	v->documents.n = 0;
	v->documents.v = NULL;
}

uint64_t aggregator_specs_epoch(struct apiserver *s)
{
	return s->aggregator ? s->aggregator->specs_epoch : 1;
}

bool aggregator_converted_at(struct apiserver *s, size_t i, struct arena *a, struct str *path, struct str *json)
{
	struct aggregator *g = s->aggregator;

	for (size_t k = 0; g && k < g->n; k++) {
		const struct api_service *v = g->list[k];

		if (!v->converted || i--)
			continue;
		*path = arena_printf(a, "apis/%.*s/%.*s", STR_ARG(v->obj->spec.group), STR_ARG(v->obj->spec.version));
		*json = block_str(v->converted);
		return true;
	}
	return false;
}

/* The highest groupPriorityMinimum of a group's remote APIServices. */
static int32_t group_priority(const struct aggregator *g, struct str group)
{
	for (size_t k = 0; k < g->n; k++)
		if (g->list[k]->remote && str_eq(g->list[k]->obj->spec.group, group))
			return g->list[k]->obj->spec.group_priority_minimum;
	return 0;
}

struct placed {
	const struct api_service *v;
	int32_t priority;
};

/* As upstream orders them, which does not look at the priority of versions. */
static int by_group(const void *x, const void *y)
{
	const struct placed *a = x, *b = y;

	if (!str_eq(a->v->obj->spec.group, b->v->obj->spec.group) && a->priority != b->priority)
		return a->priority > b->priority ? -1 : 1;
	return str_cmp(a->v->name, b->v->name);
}

struct error *aggregator_merge_v2(struct apiserver *s, struct buf *b)
{
	struct aggregator *g = s->aggregator;
	struct arena a arena_cleanup = {0};
	struct placed *list;
	struct jv doc, from;
	size_t n = 0;
	struct str own;

	list = arena_array(&a, struct placed, g ? g->n + 1 : 1);
	for (size_t k = 0; g && k < g->n; k++)
		if (g->list[k]->spec)
			list[n++] = (struct placed){g->list[k], group_priority(g, g->list[k]->obj->spec.group)};
	if (!n)
		return NULL;
	qsort(list, n, sizeof *list, by_group);
	own = arena_str(&a, buf_view(b));
	TRY(jv_parse(&a, own, NULL, &doc));
	for (size_t i = 0; i < n; i++) {
		TRY(jv_parse(&a, block_str(list[i].v->spec), NULL, &from));
		openapi_v2_merge(&a, &doc, &from);
	}
	b->n = 0;
	for (uint32_t i = 0; i < doc.n; i++) {
		buf_putc(b, i ? ',' : '{');
		jv_encode_string(b, doc.members[i].key);
		buf_putc(b, ':');
		jv_encode_sorted(b, &doc.members[i].value);
	}
	buf_putc(b, '}');
	return NULL;
}
