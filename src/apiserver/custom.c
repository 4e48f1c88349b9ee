/* What a custom resource is, by the version that a request names: its schema over objects (crd_schema.c), what it has besides. */
#include <stdlib.h>
#include "apiserver/crd_internal.h"
#include "schema/jv.h"

#define PROBLEMS_MAX 1000

const struct apiextensions_v1_custom_resource_definition *crd_object(const struct resource *res)
{
	return res->crd->obj;
}

const struct apiextensions_v1_custom_resource_definition_version *crd_version(const struct resource *res)
{
	return res->crd_version->v;
}

struct shape custom_shape(const struct resource *res)
{
	struct shape s = shape_of_crd(crd_schema(res));

	s.open |= res->crd->obj->spec.preserve_unknown_fields;
	return s;
}

void custom_reset_fields(const struct resource *res, const char *sub, struct managed_fields_request *mr)
{
	static const char *const main_reset[] = {"status", NULL};
	static const char *const status_reset[] = {"metadata", "spec", NULL}; /* of others it is not said, though only the status is written */

	if (!custom_has_status(res))
		return;
	if (!sub || !*sub)
		mr->reset = main_reset;
	else if (!strcmp(sub, "status"))
		mr->reset = status_reset;
}

/* The best one that is served and not deprecated, if it is better than this one. */
static const struct apiextensions_v1_custom_resource_definition_version *better_version(const struct resource *res)
{
	const struct apiextensions_v1_custom_resource_definition_version *best = NULL;

	for (size_t i = 0; i < res->crd->n_versions; i++) {
		const struct apiextensions_v1_custom_resource_definition_version *v = res->crd->versions[i].v;

		if (v->served && !v->deprecated && kube_version_cmp(v->name, best ? best->name : res->api->version) < 0)
			best = v;
	}
	return best;
}

void custom_warn_deprecated(struct request *rq)
{
	const struct apiextensions_v1_custom_resource_definition_version *v = rq->res->crd_version->v, *best;

	if (!v->deprecated)
		return;
	rq->deprecated = true;
	if (v->deprecation_warning) {
		request_warn(rq, "%.*s", STR_ARG(*v->deprecation_warning));
		return;
	}
	best = better_version(rq->res);
	request_warn(rq, "%.*s %.*s is deprecated%s%.*s%s%.*s%s%.*s", STR_ARG(rq->res->api_version), STR_ARG(rq->res->api->kind), best ? "; use " : "",
		     STR_ARG(best ? rq->res->api->group : STR_NULL), best ? "/" : "", STR_ARG(best ? best->name : STR_NULL), best ? " " : "",
		     STR_ARG(best ? rq->res->api->kind : STR_NULL));
}

bool custom_has_status(const struct resource *res)
{
	return res->crd_version->v->subresources && res->crd_version->v->subresources->status;
}

const struct apiextensions_v1_custom_resource_subresource_scale *custom_scale(const struct resource *res)
{
	return res->crd_version->v->subresources ? res->crd_version->v->subresources->scale : NULL;
}

bool custom_is_storage_version(const struct resource *res)
{
	return res->crd_version->v->storage;
}

bool crd_terminating(const struct resource *res)
{
	const struct crd *now = map_get(&res->crd->s->crds->by_name, res->crd->name);

	return (now ? now : res->crd)->terminating;
}

static struct error *rewrite(struct arena *a, const struct resource *res, struct jv *tree, void *obj)
{
	struct buf b buf_cleanup = {0};

	memset(obj, 0, res->st->type->size);
	jv_encode_exact(&b, tree); /* until it is stored, 1.0 is not 1 */
	return json_decode(a, res->st->type, arena_str(a, buf_view(&b)), NULL, obj);
}

void custom_encode(struct arena *a, struct buf *b, const struct schema_type *t, const void *obj)
{
	struct jv tree;

	jv_from_object(a, t, obj, &tree);
	jv_encode(b, &tree);
}

/* Behind the string whose first quote is at i. */
static size_t past_string(struct str json, size_t i)
{
	for (i++; i < json.n && json.p[i] != '"'; i++)
		i += json.p[i] == '\\';
	return i + 1;
}

/* The compact object, whose members are in order, has this one, which is written as one is. */
static bool has_member(struct str json, struct str member)
{
	for (size_t i = 1, depth; i < json.n && json.p[i] == '"'; i++) {
		struct str rest = str_sub(json, i, json.n);

		if (str_has_prefix(rest, member))
			return true;
		if (str_cmp(rest, member) > 0)
			return false;
		for (depth = 0; i < json.n && (depth || (json.p[i] != ',' && json.p[i] != '}'));) {
			if (json.p[i] == '"') {
				i = past_string(json, i);
				continue;
			}
			depth += json.p[i] == '{' || json.p[i] == '[';
			depth -= json.p[i] == '}' || json.p[i] == ']';
			i++;
		}
	}
	return false;
}

bool custom_bytes_fit(const struct resource *res, const struct cache_entry *e)
{
	/*
	 * A later write went through this schema, and begins and ends as Skiff writes; an earlier one, or one by other hands, may lack a
	 * default, or have what the schema does not know: upstream's ends with a line end, and what no server has made has no uid.
	 */
	if (e->rev <= res->crd->rev || e->body->bytes[e->body->n - 1] != '}' || !cache_entry_uid(e).n)
		return false;
	return has_member(block_str(e->body), res->crd_version->json_version);
}

struct error *custom_default(struct arena *a, const struct resource *res, void *obj)
{
	struct jv tree;

	if (!res->crd_version->defaults)
		return NULL;
	jv_from_object(a, res->st->type, obj, &tree);
	schema_default(a, crd_schema(res), &tree, true);
	return rewrite(a, res, &tree, obj);
}

/* It ends as what upstream writes. */
void custom_encode_unlike(struct buf *b, const struct storage *st, const void *obj)
{
	json_encode(b, st->type, obj);
	buf_putc(b, '\n');
}

const struct resource *crd_version_of(const struct resource *res, struct str api_version)
{
	for (size_t i = 0; i < res->crd->n_versions; i++)
		if (str_eq(res->crd->versions[i].res->api_version, api_version))
			return res->crd->versions[i].res;
	return NULL;
}

/* Metadata of old objects, or of other hands, need not be what it is now. */
static struct error *decode_repaired(struct arena *a, const struct resource *res, const struct cache_entry *e, void *obj)
{
	struct jv tree, *m;

	TRY(jv_parse(a, arena_str(a, block_str(e->body)), NULL, &tree));
	m = jv_get(&tree, STR("metadata"));
	if (m)
		schema_repair_metadata(a, m);
	return rewrite(a, res, &tree, obj);
}

static struct error *as_read(struct arena *a, const struct resource *stored, void *obj)
{
	const struct apiextensions_v1_json_schema_props *p = crd_schema(stored);
	struct custom_head *h = obj;
	struct jv tree;

	if (!h->metadata.generation)
		h->metadata.generation = 1;
	if (!p)
		return NULL;
	jv_from_object(a, stored->st->type, obj, &tree);
	if (!stored->crd->obj->spec.preserve_unknown_fields) {
		schema_prune(a, p, &tree, true, STR_NULL, NULL);
		schema_drop_nulls(p, &tree);
	}
	if (stored->crd_version->embedded)
		schema_coerce_dropping(a, p, &tree, false);
	if (stored->crd_version->defaults)
		schema_default(a, p, &tree, true);
	return rewrite(a, stored, &tree, obj);
}

struct error *custom_decode(struct arena *a, const struct resource *res, const struct cache_entry *e, bool copy, void **obj)
{
	const struct resource *stored = crd_version_of(res, res->st->api_version);
	struct error *err;

	*obj = arena_alloc(a, res->st->type->size);
	err = cache_entry_decode(a, res->st->type, e, copy, *obj);
	if (err) {
		error_free(err);
		err = decode_repaired(a, res, e, *obj);
	}
	if (err)
		return error_wrap(err, "decoding %.*s%.*s", STR_ARG(res->st->prefix), STR_ARG(cache_entry_key(e)));
	if (stored && custom_bytes_fit(stored, e))
		return NULL;
	stored = crd_version_of(res, ((struct custom_head *)*obj)->api_version);
	return stored ? as_read(a, stored, *obj) : NULL;
}

struct error *custom_read(struct arena *a, const struct resource *res, const struct cache_entry *e, bool copy, void **obj)
{
	TRY(custom_decode(a, res, e, copy, obj));
	return custom_convert(a, res, obj, res->api_version);
}

struct error *custom_to_storage(struct arena *a, const struct resource *res, void **obj, bool *unlike)
{
	const struct schema_type *t = res->st->type;
	const struct resource *stored = crd_version_of(res, res->st->api_version);
	void *plain = arena_alloc(a, t->size), *read;
	struct jv tree;

	jv_from_object(a, t, *obj, &tree);
	TRY(jv_to_object(a, t, &tree, NULL, plain));
	*obj = plain;
	TRY(custom_convert(a, res, obj, res->st->api_version));
	*unlike = false;
	if (!stored)
		return NULL;
	read = arena_alloc(a, t->size);
	memcpy(read, *obj, t->size);
	TRY(as_read(a, stored, read));
	*unlike = !object_equal(t, *obj, read);
	return NULL;
}

bool custom_reads_as_stored(const struct resource *res, const struct cache_entry *e)
{
	return str_eq(res->api_version, res->st->api_version) && custom_bytes_fit(res, e);
}

struct error *custom_stored_alike(struct arena *a, const struct cache_entry *e, struct str text, bool *alike)
{
	struct jv now, there, *m;

	TRY(jv_parse(a, text, NULL, &now));
	TRY(jv_parse(a, block_str(e->body), NULL, &there));
	m = jv_get(&there, STR("metadata"));
	if (m)
		jv_del(m, STR("resourceVersion"));
	*alike = jv_equal(&now, &there);
	return NULL;
}

struct error *custom_as_stored(struct arena *a, const struct resource *res, struct str bytes, void **obj)
{
	const struct resource *stored = crd_version_of(res, res->st->api_version);

	*obj = arena_alloc(a, res->st->type->size);
	TRY(json_decode(a, res->st->type, bytes, NULL, *obj));
	if (stored)
		TRY(as_read(a, stored, *obj));
	return custom_convert(a, res, obj, res->api_version);
}

/* Members that are kept as text were not looked into when they were decoded. */
static struct error *report_duplicates(struct arena *a, const struct schema_type *t, const void *obj, struct decode_report *report)
{
	static const char said[] = "duplicate field \"";

	for (uint16_t i = 0; i < t->n_fields; i++) {
		const struct schema_field *f = &t->fields[i];
		struct decode_report inner = {.arena = a};
		struct jv ignored;
		struct str raw;

		if (f->kind != FIELD_ANY || f->card != CARD_ONE)
			continue;
		raw = *(const struct str *)((const char *)obj + f->offset);
		if (raw.n)
			TRY(jv_parse(a, raw, &inner, &ignored));
		for (uint32_t k = 0; k < inner.problems.n && report->problems.n < PROBLEMS_MAX; k++)
			*arena_push(report->arena, &report->problems) =
				arena_printf(report->arena, "%s%.*s.%.*s", said, STR_ARG(f->name),
					     STR_ARG(str_sub(inner.problems.v[k], sizeof said - 1, inner.problems.v[k].n)));
	}
	/* upstream finds all of these before it looks what is unknown */
	for (uint32_t i = 0, n = 0; i < report->problems.n; i++) {
		struct str one = report->problems.v[i];

		if (!str_has_prefix(one, str_from(said)))
			continue;
		memmove(report->problems.v + n + 1, report->problems.v + n, (i - n) * sizeof one);
		report->problems.v[n++] = one;
	}
	return NULL;
}

static int by_text(const void *x, const void *y)
{
	return str_cmp(*(const struct str *)x, *(const struct str *)y);
}

struct error *custom_prune(struct arena *a, const struct resource *res, void *obj, struct decode_report *report)
{
	const struct apiextensions_v1_json_schema_props *p = crd_schema(res);
	struct jv tree;

	if (report)
		TRY(report_duplicates(a, res->st->type, obj, report));
	if (!p || res->crd->obj->spec.preserve_unknown_fields)
		return NULL;
	jv_from_object(a, res->st->type, obj, &tree);
	uint32_t known = report ? report->problems.n : 0;

	schema_prune(a, p, &tree, true, STR_NULL, report);
	if (report && report->problems.n > known)
		qsort(report->problems.v + known, report->problems.n - known, sizeof *report->problems.v, by_text);
	schema_drop_nulls(p, &tree);
	if (res->crd_version->embedded)
		TRY(schema_coerce(a, p, &tree, false, STR_NULL, report));
	return rewrite(a, res, &tree, obj);
}

struct error *custom_default_and_prune(struct request *rq, void *obj)
{
	const struct apiextensions_v1_json_schema_props *p = crd_schema(rq->res);
	struct jv tree;

	if (!p)
		return NULL;
	jv_from_object(rq->a, rq->res->st->type, obj, &tree);
	if (!rq->res->crd->obj->spec.preserve_unknown_fields)
		schema_prune(rq->a, p, &tree, true, STR_NULL, NULL);
	schema_default(rq->a, p, &tree, true);
	return rewrite(rq->a, rq->res, &tree, obj);
}

void custom_prepare_create(struct request *rq, void *obj)
{
	struct custom_head *h = obj;

	h->metadata.generation = 1;
	if (custom_has_status(rq->res))
		object_field_zero(rq->res->st->type, obj, "status");
}

void custom_columns(const struct resource *res, struct table_options *o)
{
	o->columns = res->crd_version->columns;
	o->n_columns = res->crd_version->n_columns;
}

struct error *custom_take_managed_fields(struct arena *a, const struct jv *tree, struct meta_v1_object_meta *m)
{
	struct jv wrap = jv_object();
	struct jv *mf = jv_at(tree, "metadata", "managedFields", NULL);
	struct meta_v1_object_meta *tmp = arena_new(a, struct meta_v1_object_meta);

	if (mf)
		jv_set(a, &wrap, STR("managedFields"), *mf);
	TRY(jv_to_object(a, &meta_v1_object_meta_type, &wrap, NULL, tmp));
	memcpy(&m->managed_fields, &tmp->managed_fields, sizeof m->managed_fields);
	return NULL;
}
