/*
 * The life of CustomResourceDefinitions: names accepted, tables made, versions
 * served, objects removed when the definition goes.
 *
 * Tables of a definition that changed are kept until the process ends: watches
 * may still hold them. They are made only when the spec changes.
 */
#include <ctype.h>
#include "apiserver/convert.h"
#include "apiserver/custom.h"
#include "apiserver/encrypt.h"
#include "apiserver/extend.h"

#define FINALIZER "customresourcecleanup.apiextensions.k8s.io"

struct crd_version {
	const struct apiextensions_v1_custom_resource_definition_version *v;
	struct resource *res;
	struct str json_prefix;       /* how cached JSON of this version begins */
	bool defaults;                /* its schema has some */
	struct crd_rules *rules;      /* compiled at the first write */
	bool rules_known;
};
struct crd {
	struct arena arena;
	struct str name;
	struct apiextensions_v1_custom_resource_definition *obj;
	struct schema_type type;
	struct schema_field *fields;
	struct storage *st;
	struct crd_version *versions; /* served ones */
	size_t n_versions;
	int64_t rev;                  /* of obj */
	bool terminating, established;
	bool cleaning;
	struct apiserver *s;
	struct hook_conn conn;        /* of its conversion webhook */
};
struct crds {
	struct storage *st;
	struct cache_watch *watch;
	struct map by_name;           /* CRD name -> struct crd * */
	struct map by_path;           /* group/version/plural -> struct resource * */
	struct map storages;          /* group/plural -> struct storage *: kept over changes of the definition */
	struct resource **list;       /* served, in discovery order */
	size_t n;
	struct fiber_mutex lock;
	bool dirty;
};

static const struct schema_field_info no_info = {.min_length = -1, .max_length = -1};

/* ---- tables ---- */

struct head { /* how every custom object begins in memory */
	struct str kind, api_version;
	struct meta_v1_object_meta metadata;
};

static void add_field(struct crd *c, uint16_t *n, struct str name, uint32_t offset, uint16_t flags, uint8_t kind,
		      const struct schema_type *type)
{
	c->fields[(*n)++] = (struct schema_field){.name = name, .flags = flags, .kind = kind, .card = CARD_ONE, .offset = offset, .type = type,
						  .info = &no_info, .elem_size = sizeof(struct str)};
}

static void make_type(struct crd *c)
{
	const struct apiextensions_v1_custom_resource_definition_spec *s = &c->obj->spec;
	LIST(struct str) names = {0};
	uint16_t n = 0;
	uint32_t offset = (sizeof(struct head) + 15) & ~15u;

	*arena_push(&c->arena, &names) = STR("spec");
	*arena_push(&c->arena, &names) = STR("status");
	for (uint32_t i = 0; i < s->versions.n; i++) {
		const struct apiextensions_v1_json_schema_props *p = s->versions.v[i].schema ? s->versions.v[i].schema->open_apiv3_schema : NULL;

		for (uint32_t k = 0; p && k < p->properties.n; k++) {
			struct str key = p->properties.v[k].key;
			bool seen = str_eqz(key, "apiVersion") || str_eqz(key, "kind") || str_eqz(key, "metadata");

			for (uint32_t j = 0; j < names.n && !seen; j++)
				seen = str_eq(names.v[j], key);
			if (!seen && names.n < 1000)
				*arena_push(&c->arena, &names) = key;
		}
	}
	/* sorted, as Go writes maps; spec and status fall into place */
	for (uint32_t i = 1; i < names.n; i++)
		for (uint32_t k = i; k > 0 && str_cmp(names.v[k - 1], names.v[k]) > 0; k--) {
			struct str t = names.v[k];

			names.v[k] = names.v[k - 1];
			names.v[k - 1] = t;
		}
	c->fields = arena_array(&c->arena, struct schema_field, names.n + 4);
	add_field(c, &n, STR("kind"), offsetof(struct head, kind), FIELD_OMITEMPTY | FIELD_TYPEMETA, FIELD_STRING, NULL);
	add_field(c, &n, STR("apiVersion"), offsetof(struct head, api_version), FIELD_OMITEMPTY | FIELD_TYPEMETA, FIELD_STRING, NULL);
	add_field(c, &n, STR("metadata"), offsetof(struct head, metadata), 0, FIELD_MESSAGE, &meta_v1_object_meta_type);
	for (uint32_t i = 0; i < names.n; i++) {
		add_field(c, &n, names.v[i], offset, FIELD_OMITEMPTY, FIELD_ANY, NULL);
		offset += sizeof(struct str);
	}
	/* what no schema names: pruned, unless preserved */
	c->fields[n++] = (struct schema_field){.flags = FIELD_OMITEMPTY | FIELD_REST, .kind = FIELD_ANY, .card = CARD_MAP, .offset = offset,
					       .info = &no_info, .elem_size = 2 * sizeof(struct str), .value_offset = sizeof(struct str)};
	offset += sizeof(LIST(struct str_pair));
	c->type = (struct schema_type){
		.name = arena_strz(&c->arena, s->names.kind), .openapi = "", .group = s->group, .version = STR(""), .fields = c->fields,
		.n_fields = n, .pfields = c->fields, .n_pfields = 0, .size = offset, .metadata = offsetof(struct head, metadata), .top = true,
	};
}

static const struct apiextensions_v1_custom_resource_definition_version *storage_version(const struct apiextensions_v1_custom_resource_definition *o)
{
	for (uint32_t i = 0; i < o->spec.versions.n; i++)
		if (o->spec.versions.v[i].storage)
			return &o->spec.versions.v[i];
	return o->spec.versions.n ? &o->spec.versions.v[0] : NULL;
}

static struct error *make_storage(struct apiserver *s, struct crd *c)
{
	struct crds *cs = s->crds;
	const struct apiextensions_v1_custom_resource_definition_spec *sp = &c->obj->spec;
	const struct apiextensions_v1_custom_resource_definition_version *sv = storage_version(c->obj);
	struct cache_resource cr = {.node_field = -1};
	struct storage *old, *st;
	char key[700];
	struct cache_field *fields = NULL;

	snprintf(key, sizeof key, "%.*s/%.*s", STR_ARG(sp->group), STR_ARG(sp->names.plural));
	old = map_get(&cs->storages, str_from(key));
	st = arena_new(&c->arena, struct storage);
	st->group = sp->group;
	st->plural = sp->names.plural;
	st->prefix = arena_printf(&s->arena, "/registry/%.*s/%.*s/", STR_ARG(sp->group), STR_ARG(sp->names.plural));
	st->type = &c->type;
	st->kind = sp->names.kind;
	st->api_version = arena_printf(&c->arena, "%.*s/%.*s", STR_ARG(sp->group), STR_ARG(sv->name));
	st->namespaced = str_eqz(sp->scope, "Namespaced");
	st->json = true;
	st->crd = c;
	c->st = st;
	st->encryption = encryption_for(s, sp->group, sp->names.plural);
	if (st->encryption) {
		struct encryption_place *at = arena_new(&s->arena, struct encryption_place);

		at->e = st->encryption;
		at->prefix = st->prefix;
		cr.plain = encryption_open;
		cr.ctx = at;
	}
	if (old) {
		st->cache = old->cache;
		map_set(&cs->storages, str_from(key), st);
		map_set(&s->storages, str_from(key), st);
		return NULL;
	}
	if (sv->selectable_fields.n) {
		uint32_t n = sv->selectable_fields.n > CACHE_FIELDS_MAX ? CACHE_FIELDS_MAX : sv->selectable_fields.n;

		fields = arena_array(&s->arena, struct cache_field, n);
		for (uint32_t i = 0; i < n; i++) {
			struct str p = sv->selectable_fields.v[i].json_path;

			fields[i].name = arena_str(&s->arena, p.n && p.p[0] == '.' ? str_sub(p, 1, p.n) : p);
		}
		cr.fields = fields;
		cr.n_fields = (uint8_t)n;
	}
	cr.prefix = st->prefix;
	cr.group = arena_str(&s->arena, sp->group);
	cr.version = arena_str(&s->arena, sv->name);
	cr.kind = arena_str(&s->arena, sp->names.kind);
	cr.namespaced = st->namespaced;
	TRY(cache_new(s->store, &cr, &st->cache));
	map_set(&cs->storages, str_from(key), st);
	map_set(&s->storages, str_from(key), st);
	return NULL;
}

static void make_resources(struct apiserver *s, struct crd *c)
{
	struct apiextensions_v1_custom_resource_definition_spec *sp = &c->obj->spec;
	const struct apiextensions_v1_custom_resource_definition_names *names = &c->obj->status.accepted_names;

	if (!names->kind.n)
		names = &sp->names;
	c->versions = arena_array(&c->arena, struct crd_version, sp->versions.n);
	for (uint32_t i = 0; i < sp->versions.n; i++) {
		const struct apiextensions_v1_custom_resource_definition_version *v = &sp->versions.v[i];
		struct api_resource *r;
		struct resource *res;
		struct api_subresource *sub;
		char key[700];

		if (!v->served)
			continue;
		r = arena_new(&c->arena, struct api_resource);
		res = arena_new(&c->arena, struct resource);
		r->group = sp->group;
		r->version = v->name;
		r->plural = names->plural;
		r->singular = names->singular;
		r->kind = names->kind;
		r->list_kind = names->list_kind;
		r->namespaced = str_eqz(sp->scope, "Namespaced");
		r->verbs = VERB_CREATE | VERB_DELETE | VERB_DELETECOLLECTION | VERB_GET | VERB_LIST | VERB_PATCH | VERB_UPDATE | VERB_WATCH;
		r->short_names = names->short_names.v;
		r->n_short_names = (uint8_t)names->short_names.n;
		r->categories = names->categories.v;
		r->n_categories = (uint8_t)names->categories.n;
		r->type = &c->type;
		sub = arena_array(&c->arena, struct api_subresource, 2);
		r->subresources = sub;
		if (v->subresources && v->subresources->status)
			sub[r->n_subresources++] = (struct api_subresource){.name = STR("status"), .kind = names->kind,
									    .verbs = VERB_GET | VERB_PATCH | VERB_UPDATE};
		if (v->subresources && v->subresources->scale)
			sub[r->n_subresources++] = (struct api_subresource){.name = STR("scale"), .kind = STR("Scale"),
									    .group = STR("autoscaling"), .version = STR("v1"),
									    .verbs = VERB_GET | VERB_PATCH | VERB_UPDATE};
		res->api = r;
		res->st = c->st;
		res->crd = c;
		res->api_version = arena_printf(&c->arena, "%.*s/%.*s", STR_ARG(sp->group), STR_ARG(v->name));
		c->versions[c->n_versions].v = v;
		c->versions[c->n_versions].defaults = v->schema && schema_has_defaults(v->schema->open_apiv3_schema);
		c->versions[c->n_versions].res = res;
		c->versions[c->n_versions].json_prefix = arena_printf(&c->arena, "{\"kind\":\"%.*s\",\"apiVersion\":\"%.*s\",", STR_ARG(r->kind),
								      STR_ARG(res->api_version));
		res->crd_version = &c->versions[c->n_versions++];
		snprintf(key, sizeof key, "%.*s/%.*s/%.*s", STR_ARG(sp->group), STR_ARG(v->name), STR_ARG(r->plural));
		map_set(&s->crds->by_path, str_from(key), res);
	}
}

static void version_rank(struct str v, int *stage, int64_t *major, int64_t *minor)
{
	size_t i = 1;

	*stage = 0;
	*major = *minor = 0;
	if (v.n < 2 || v.p[0] != 'v' || !isdigit((unsigned char)v.p[1]))
		return;
	while (i < v.n && isdigit((unsigned char)v.p[i]) && *major < 1000000)
		*major = *major * 10 + v.p[i++] - '0';
	if (i == v.n) {
		*stage = 3;
		return;
	}
	struct str rest = str_sub(v, i, v.n);

	if (str_has_prefix(rest, STR("beta")) && str_to_i64(str_sub(rest, 4, rest.n), minor))
		*stage = 2;
	else if (str_has_prefix(rest, STR("alpha")) && str_to_i64(str_sub(rest, 5, rest.n), minor))
		*stage = 1;
}

int kube_version_cmp(struct str a, struct str b)
{
	int sa, sb;
	int64_t ma, mb, na, nb;

	version_rank(a, &sa, &ma, &na);
	version_rank(b, &sb, &mb, &nb);
	if (sa != sb)
		return sb - sa;
	if (sa && ma != mb)
		return ma > mb ? -1 : 1;
	if (sa && na != nb)
		return na > nb ? -1 : 1;
	return str_cmp(a, b);
}

static int resource_cmp(const void *x, const void *y)
{
	const struct api_resource *a = (*(struct resource *const *)x)->api, *b = (*(struct resource *const *)y)->api;
	int r = str_cmp(a->group, b->group);

	if (!r)
		r = kube_version_cmp(a->version, b->version);
	return r ? r : str_cmp(a->plural, b->plural);
}

static void relist(struct apiserver *s)
{
	struct crds *cs = s->crds;
	size_t it = 0, n = 0;
	struct str key;
	void *v;

	cs->list = xrealloc(cs->list, (cs->by_path.n + 1) * sizeof *cs->list);
	while (map_next(&cs->by_path, &it, &key, &v))
		cs->list[n++] = v;
	cs->n = n;
	qsort(cs->list, n, sizeof *cs->list, resource_cmp);
	s->resources_epoch++;
}

static void unserve(struct apiserver *s, struct crd *c)
{
	for (size_t i = 0; i < c->n_versions; i++) {
		const struct api_resource *r = c->versions[i].res->api;
		char key[700];

		snprintf(key, sizeof key, "%.*s/%.*s/%.*s", STR_ARG(r->group), STR_ARG(r->version), STR_ARG(r->plural));
		if (map_get(&s->crds->by_path, str_from(key)) == c->versions[i].res)
			map_del(&s->crds->by_path, str_from(key));
		/* a request that has the version still compiles them again */
		crd_rules_free(c->versions[i].rules);
		c->versions[i].rules = NULL;
		c->versions[i].rules_known = false;
	}
}

/* ---- following the definitions ---- */

static bool condition_true(const struct apiextensions_v1_custom_resource_definition *o, const char *type)
{
	for (uint32_t i = 0; i < o->status.conditions.n; i++)
		if (str_eqz(o->status.conditions.v[i].type, type))
			return str_eqz(o->status.conditions.v[i].status, "True");
	return false;
}

struct cleanup {
	struct apiserver *s;
	struct crd *c;
};

static struct error *drop_finalizer(void *ctx, struct request *rq, const void *old, void **out)
{
	struct apiextensions_v1_custom_resource_definition *o = arena_new(rq->a, struct apiextensions_v1_custom_resource_definition);
	uint32_t n = 0;

	(void)ctx;
	object_copy(rq->a, &apiextensions_v1_custom_resource_definition_type, old, o);
	for (uint32_t i = 0; i < o->metadata.finalizers.n; i++)
		if (!str_eqz(o->metadata.finalizers.v[i], FINALIZER))
			o->metadata.finalizers.v[n++] = o->metadata.finalizers.v[i];
	o->metadata.finalizers.n = n;
	o->metadata.resource_version = STR_NULL;
	*out = o;
	return NULL;
}

static struct error *clean(struct apiserver *s, struct crd *c)
{
	struct resource *res = c->n_versions ? c->versions[0].res : NULL;
	int64_t wait = 50;

	/* in the version they are stored in, so that no webhook has to live for it */
	for (size_t i = 0; i < c->n_versions; i++)
		if (c->versions[i].v->storage)
			res = c->versions[i].res;
	while (res) {
		struct arena a arena_cleanup = {0};
		struct cache_snap *snap;
		struct cache_iter it;
		const struct cache_entry *e;
		size_t left = 0;

		TRY(cache_snapshot(c->st->cache, CACHE_CONSISTENT, 0, &snap));
		cache_iter_init(&it, c->st->cache, snap, STR_NULL, STR_NULL, NULL);
		while ((e = cache_iter_next(&it)) != NULL) {
			struct request rq;
			struct meta_v1_delete_options o = {0};
			struct write_result r;
			struct str ns = arena_str(&a, cache_entry_ns(e)), name = arena_str(&a, cache_entry_name(e));
			struct error *err;

			left++;
			request_internal(&rq, s, &a, res, ns);
			err = registry_delete(&rq, ns, name, &o, &r);
			if (error_is(err, 404, NULL))
				error_clear(&err);
			if (!err && r.deleted)
				left--;
			log_and_free(err, "removing custom resource %.*s", STR_ARG(name));
		}
		cache_snap_free(snap);
		if (!left)
			break;
		TRY(fiber_sleep(wait));
		wait = wait < 2000 ? wait * 2 : 2000;
	}
	struct arena a arena_cleanup = {0};
	struct request rq;
	struct write_result r;
	struct update u = {.make = drop_finalizer, .retry = true, .flags = UPDATE_UNCONDITIONAL};
	struct error *e;

	request_internal(&rq, s, &a, resource_any(s, STR("apiextensions.k8s.io"), STR("customresourcedefinitions")), STR_NULL);
	e = registry_update(&rq, STR_NULL, arena_str(&a, c->name), &u, &r);
	if (error_is(e, 404, NULL))
		error_clear(&e);
	else if (!e)
		cache_entry_unref(r.entry);
	return e;
}

static void clean_fiber(void *arg)
{
	struct cleanup *k = arg;
	struct error *e = clean(k->s, k->c);

	if (e) {
		k->c->cleaning = false; /* tried again at the next change or start */
		log_and_free(e, "removing the objects of CustomResourceDefinition %.*s", STR_ARG(k->c->name));
	}
	free(k);
}

static struct error *apply(struct apiserver *s, const struct cache_entry *en)
{
	struct crds *cs = s->crds;
	struct crd *c = xcalloc(1, sizeof *c), *old;
	struct error *e;

	c->s = s;
	c->obj = arena_new(&c->arena, struct apiextensions_v1_custom_resource_definition);
	e = cache_entry_decode(&c->arena, &apiextensions_v1_custom_resource_definition_type, en, true, c->obj);
	if (e) {
		arena_free(&c->arena);
		free(c);
		return e;
	}
	c->name = c->obj->metadata.name;
	if (!str_to_i64(c->obj->metadata.resource_version, &c->rev))
		c->rev = INT64_MAX;
	c->terminating = c->obj->metadata.deletion_timestamp != NULL;
	c->established = condition_true(c->obj, "Established");
	old = map_get(&cs->by_name, c->name);
	if (old && old->established == c->established && old->established &&
	    object_field_equal(&apiextensions_v1_custom_resource_definition_type, old->obj, c->obj, "spec") &&
	    object_equal(&apiextensions_v1_custom_resource_definition_names_type, &old->obj->status.accepted_names,
			 &c->obj->status.accepted_names)) {
		/* status or metadata only: the tables stay */
		old->terminating = c->terminating;
		arena_free(&c->arena);
		free(c);
		c = old;
	} else {
		if (old)
			unserve(s, old);
		map_set(&cs->by_name, c->name, c);
		if (c->established && storage_version(c->obj)) {
			make_type(c);
			TRY(make_storage(s, c));
			make_resources(s, c);
		}
		cs->dirty = true;
	}
	if (c->terminating && !c->cleaning) {
		struct cleanup *k = xcalloc(1, sizeof *k);

		k->s = s;
		k->c = c;
		c->cleaning = true;
		fiber_spawn("crd-cleanup", clean_fiber, k);
	}
	return NULL;
}

static void removed(struct apiserver *s, struct str name)
{
	struct crds *cs = s->crds;
	struct crd *c = map_del(&cs->by_name, name);
	char key[700];

	if (!c)
		return;
	unserve(s, c);
	cs->dirty = true;
	if (!c->st)
		return;
	snprintf(key, sizeof key, "%.*s/%.*s", STR_ARG(c->st->group), STR_ARG(c->st->plural));
	map_del(&cs->storages, str_from(key));
	map_del(&s->storages, str_from(key));
	cache_free(c->st->cache);
}

void crds_sync(struct apiserver *s)
{
	struct crds *cs = s->crds;
	struct error *e;

	if (!cs || (cs->watch && !cache_watch_ready(cs->watch)))
		return;
	e = fiber_mutex_lock(&cs->lock);
	if (e) {
		error_free(e);
		return;
	}
	for (int tries = 0; tries < 3;) {
		struct cache_event ev;

		if (!cs->watch) {
			struct cache_watch_opts o = {.initial = true, .mode = CACHE_ANY};

			tries++;
			e = cache_watch_open(cs->st->cache, &o, &cs->watch);
			if (e) {
				log_and_free(e, "following CustomResourceDefinitions");
				break;
			}
		}
		if (!cache_watch_ready(cs->watch))
			break;
		e = cache_watch_next(cs->watch, &ev);
		if (e) {
			error_free(e);
			cache_watch_close(cs->watch);
			cs->watch = NULL;
			continue;
		}
		if (!ev.obj)
			continue;
		if (ev.type == CACHE_DELETED) {
			removed(s, cache_entry_name(ev.obj));
		} else {
			struct cache_entry *held = cache_entry_ref((struct cache_entry *)(uintptr_t)ev.obj);

			log_and_free(apply(s, held), "CustomResourceDefinition %.*s", STR_ARG(cache_entry_name(held)));
			cache_entry_unref(held);
		}
	}
	if (cs->dirty) {
		cs->dirty = false;
		relist(s);
	}
	fiber_mutex_unlock(&cs->lock);
}

/* So that definitions act (clean up, load) without anybody asking. */
static void follower(void *arg)
{
	struct apiserver *s = arg;

	for (;;) {
		struct cache_watch_opts o = {.initial = true, .mode = CACHE_ANY};
		struct cache_watch *w;
		struct cache_event ev;
		struct error *e = cache_watch_open(s->crds->st->cache, &o, &w);

		while (!e) {
			e = cache_watch_next(w, &ev);
			if (!e)
				crds_sync(s);
		}
		cache_watch_close(w);
		if (!error_is_sys(e, ECANCELED)) {
			error_free(e);
			e = fiber_sleep(1000);
		}
		if (e) {
			error_free(e);
			return;
		}
	}
}

struct error *crds_init(struct apiserver *s)
{
	struct crds *cs = xcalloc(1, sizeof *cs);

	cs->st = storage_find(s, STR("apiextensions.k8s.io"), STR("customresourcedefinitions"));
	s->crds = cs;
	crds_sync(s);
	fiber_spawn("crds", follower, s);
	return NULL;
}

struct resource *crd_resource_at(struct apiserver *s, size_t i)
{
	if (!i)
		crds_sync(s);
	return s->crds && i < s->crds->n ? s->crds->list[i] : NULL;
}

struct resource *crd_find(struct apiserver *s, struct str group, struct str version, struct str plural)
{
	char key[700];

	crds_sync(s);
	snprintf(key, sizeof key, "%.*s/%.*s/%.*s", STR_ARG(group), STR_ARG(version), STR_ARG(plural));
	return s->crds ? map_get(&s->crds->by_path, str_from(key)) : NULL;
}

struct resource *crd_resource_any(struct apiserver *s, struct str group, struct str plural)
{
	if (!s->crds)
		return NULL;
	crds_sync(s);
	for (size_t i = 0; i < s->crds->n; i++)
		if (str_eq(s->crds->list[i]->api->group, group) && str_eq(s->crds->list[i]->api->plural, plural))
			return s->crds->list[i];
	return NULL;
}

struct resource *crd_resource_for_kind(struct apiserver *s, struct str group, struct str version, struct str kind)
{
	if (!s->crds)
		return NULL;
	crds_sync(s);
	for (size_t i = 0; i < s->crds->n; i++) {
		const struct api_resource *r = s->crds->list[i]->api;

		if (str_eq(r->group, group) && str_eq(r->kind, kind) && (!version.n || str_eq(r->version, version)))
			return s->crds->list[i];
	}
	return NULL;
}

/* ---- what a custom resource is ---- */

const struct apiextensions_v1_custom_resource_definition *crd_object(const struct resource *res)
{
	return res->crd->obj;
}

const struct apiextensions_v1_custom_resource_definition_version *crd_version(const struct resource *res)
{
	return res->crd_version->v;
}

const struct apiextensions_v1_json_schema_props *crd_schema(const struct resource *res)
{
	const struct apiextensions_v1_custom_resource_definition_version *v = res->crd_version->v;

	return v->schema ? v->schema->open_apiv3_schema : NULL;
}

struct shape custom_shape(const struct resource *res)
{
	return shape_of_crd(crd_schema(res));
}

void custom_reset_fields(const struct resource *res, const char *sub, struct managed_fields_request *mr)
{
	static const char *const main_reset[] = {"status", NULL};
	static const char *const status_only[] = {"status", NULL};

	if (!custom_has_status(res))
		return;
	if (!sub || !*sub)
		mr->reset = main_reset;
	else if (!strcmp(sub, "status"))
		mr->only = status_only;
}

void custom_warn_deprecated(struct request *rq)
{
	const struct apiextensions_v1_custom_resource_definition_version *v = rq->res->crd_version->v;

	if (!v->deprecated)
		return;
	if (v->deprecation_warning)
		request_warn(rq, "%.*s", STR_ARG(*v->deprecation_warning));
	else
		request_warn(rq, "%.*s %.*s is deprecated", STR_ARG(rq->res->api_version), STR_ARG(rq->res->api->kind));
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
	return res->crd->terminating;
}

/* Between versions: by the webhook where there is one, else only apiVersion differs. *obj is a struct of the type and stays one. */
struct error *custom_convert(struct arena *a, const struct resource *res, void **obj, struct str api_version)
{
	struct crd *c = res->crd;
	const struct apiextensions_v1_custom_resource_conversion *cv = c->obj->spec.conversion;
	struct admissionregistration_v1_webhook_client_config cc = {0};
	struct admissionregistration_v1_service_reference ref;
	const struct apiextensions_v1_webhook_client_config *from;
	struct head *h = *obj, *out;
	struct buf b buf_cleanup = {0};
	struct str answer, status;
	struct jv doc;
	const struct jv *list;
	char uid[37];
	struct error *e;

	if (str_eq(h->api_version, api_version))
		return NULL;
	if (!cv || !str_eqz(cv->strategy, "Webhook") || !cv->webhook || !cv->webhook->client_config) {
		h->api_version = api_version;
		return NULL;
	}
	from = cv->webhook->client_config;
	cc.url = from->url;
	cc.ca_bundle = from->ca_bundle;
	if (from->service) {
		ref = (struct admissionregistration_v1_service_reference){.namespace = from->service->namespace, .name = from->service->name,
									  .path = from->service->path, .port = from->service->port};
		cc.service = &ref;
	}
	random_uuid(uid);
	buf_printf(&b, "{\"kind\":\"ConversionReview\",\"apiVersion\":\"apiextensions.k8s.io/v1\",\"request\":{\"uid\":\"%s\","
		       "\"desiredAPIVersion\":\"%.*s\",\"objects\":[", uid, STR_ARG(api_version));
	json_encode(&b, res->st->type, *obj);
	buf_puts(&b, "]}}");
	e = webhook_post(c->s, a, &c->conn, &cc, 30, buf_view(&b), &answer);
	if (!e)
		e = jv_parse(a, answer, NULL, &doc);
	if (e) {
		struct error *w = err_internal("conversion webhook for %.*s, Kind=%.*s failed: %s", STR_ARG(h->api_version), STR_ARG(h->kind),
					       error_message(e));

		error_free(e);
		return w;
	}
	status = jv_str(jv_at(&doc, "response", "result", "status", NULL));
	list = jv_at(&doc, "response", "convertedObjects", NULL);
	if (!str_eqz(status, "Success") || !jv_is(list, JV_ARRAY) || list->n != 1) {
		struct str m = jv_str(jv_at(&doc, "response", "result", "message", NULL));

		return err_internal("conversion webhook for %.*s, Kind=%.*s failed: %.*s", STR_ARG(h->api_version), STR_ARG(h->kind),
				    STR_ARG(m.n ? m : STR("it returned no converted object")));
	}
	out = arena_alloc(a, res->st->type->size);
	TRY(jv_to_object(a, res->st->type, &list->items[0], NULL, out));
	if (!str_eq(out->api_version, api_version))
		return err_internal("conversion webhook for %.*s, Kind=%.*s returned version %.*s", STR_ARG(h->api_version), STR_ARG(h->kind),
				    STR_ARG(out->api_version));
	/* of metadata a webhook may change labels and annotations only */
	struct meta_v1_object_meta keep = h->metadata;

	memcpy(&keep.labels, &out->metadata.labels, sizeof keep.labels);
	memcpy(&keep.annotations, &out->metadata.annotations, sizeof keep.annotations);
	out->metadata = keep;
	*obj = out;
	return NULL;
}

static struct error *rewrite(struct arena *a, const struct resource *res, struct jv *tree, void *obj)
{
	memset(obj, 0, res->st->type->size);
	return jv_to_object(a, res->st->type, tree, NULL, obj);
}

bool custom_bytes_fit(const struct resource *res, const struct cache_entry *e)
{
	/* A later write went through this schema; an earlier one may lack a default. */
	if (res->crd_version->defaults && e->rev <= res->crd->rev)
		return false;
	return str_has_prefix(block_str(e->body), res->crd_version->json_prefix);
}

struct error *custom_read(struct arena *a, const struct resource *res, void **obj)
{
	struct jv tree;

	TRY(custom_convert(a, res, obj, res->api_version));
	if (!res->crd_version->defaults)
		return NULL;
	jv_from_object(a, res->st->type, *obj, &tree);
	schema_default(a, crd_schema(res), &tree, true);
	return rewrite(a, res, &tree, *obj);
}

struct error *custom_prune(struct arena *a, const struct resource *res, void *obj, struct decode_report *report)
{
	const struct apiextensions_v1_json_schema_props *p = crd_schema(res);
	struct jv tree;

	if (!p || res->crd->obj->spec.preserve_unknown_fields)
		return NULL;
	jv_from_object(a, res->st->type, obj, &tree);
	schema_prune(a, p, &tree, true, STR_NULL, report);
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
	struct head *h = obj;

	h->metadata.generation = 1;
	if (custom_has_status(rq->res))
		object_field_zero(rq->res->st->type, obj, "status");
}

void custom_validate(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct apiextensions_v1_json_schema_props *p = crd_schema(rq->res);
	struct jv now, was;

	if (!p)
		return;
	jv_from_object(rq->a, rq->res->st->type, obj, &now);
	if (old)
		jv_from_object(rq->a, rq->res->st->type, old, &was);
	for (uint32_t i = 0; i < now.n; i++) {
		/* paths start at the members, not at the object */
		const struct jv_member *m = &now.members[i];
		const struct apiextensions_v1_json_schema_props *c = NULL;

		for (uint32_t k = 0; k < p->properties.n; k++)
			if (str_eq(p->properties.v[k].key, m->key))
				c = &p->properties.v[k].value;
		if (c && !str_eqz(m->key, "kind") && !str_eqz(m->key, "apiVersion"))
			schema_validate(e, c, &m->value, old ? jv_get(&was, m->key) : NULL, FIELD_CHILD_S(NULL, m->key), false);
	}
	for (uint32_t i = 0; i < p->required.n; i++)
		if (!jv_get(&now, p->required.v[i]))
			field_required(e, FIELD_CHILD_S(NULL, p->required.v[i]), "");
	{
		struct apiextensions_v1_json_schema_props rest = *p;

		/* what the root says besides members: allOf, anyOf, oneOf, not */
		memset(&rest.properties, 0, sizeof rest.properties);
		memset(&rest.required, 0, sizeof rest.required);
		rest.additional_properties = NULL;
		if (rest.all_of.n || rest.any_of.n || rest.one_of.n || rest.not)
			schema_validate(e, &rest, &now, old ? &was : NULL, NULL, true);
	}
	{
		struct crd_version *v = (struct crd_version *)(uintptr_t)rq->res->crd_version;

		if (!v->rules_known) {
			v->rules = crd_rules_new(p);
			v->rules_known = true;
		}
		crd_rules_validate(rq, v->rules, p, &now, old ? &was : NULL, e);
	}
}

void custom_columns(const struct resource *res, struct table_options *o)
{
	const struct apiextensions_v1_custom_resource_definition_version *v = res->crd_version->v;
	struct table_column *c;

	if (!v->additional_printer_columns.n)
		return;
	/* made once a version, in its arena */
	c = arena_array(&res->crd->arena, struct table_column, v->additional_printer_columns.n);
	for (uint32_t i = 0; i < v->additional_printer_columns.n; i++) {
		const struct apiextensions_v1_custom_resource_column_definition *d = &v->additional_printer_columns.v[i];

		c[i] = (struct table_column){.name = d->name, .type = d->type, .format = d->format, .description = d->description,
					     .json_path = d->json_path, .priority = d->priority};
	}
	o->columns = c;
	o->n_columns = v->additional_printer_columns.n;
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

/* ---- the strategy of CustomResourceDefinition ---- */

static void set_condition(struct arena *a, struct apiextensions_v1_custom_resource_definition *o, const char *type, bool yes, const char *reason,
			  const char *message)
{
	struct apiextensions_v1_custom_resource_definition_condition *c = NULL;
	struct str status = yes ? STR("True") : STR("False");

	for (uint32_t i = 0; i < o->status.conditions.n; i++)
		if (str_eqz(o->status.conditions.v[i].type, type))
			c = &o->status.conditions.v[i];
	if (!c) {
		c = arena_push(a, &o->status.conditions);
		c->type = str_from(type);
	}
	if (!str_eq(c->status, status))
		c->last_transition_time = time_now();
	c->status = status;
	c->reason = str_from(reason);
	c->message = arena_str(a, str_from(message));
}

/* A name of the group that another definition has already. */
static const char *name_taken(struct request *rq, const struct apiextensions_v1_custom_resource_definition *o, struct str *which)
{
	struct crds *cs = rq->s->crds;
	size_t it = 0;
	struct str key;
	void *v;

	while (map_next(&cs->by_name, &it, &key, &v)) {
		const struct apiextensions_v1_custom_resource_definition *x = ((struct crd *)v)->obj;
		const struct apiextensions_v1_custom_resource_definition_names *n = &x->spec.names;

		if (str_eq(x->metadata.name, o->metadata.name) || !str_eq(x->spec.group, o->spec.group))
			continue;
		if (str_eq(n->kind, o->spec.names.kind) || str_eq(n->list_kind, o->spec.names.kind)) {
			*which = o->spec.names.kind;
			return "KindConflict";
		}
		if (str_eq(n->list_kind, o->spec.names.list_kind)) {
			*which = o->spec.names.list_kind;
			return "ListKindConflict";
		}
		if (str_eq(n->plural, o->spec.names.plural)) {
			*which = o->spec.names.plural;
			return "PluralConflict";
		}
		if (str_eq(n->singular, o->spec.names.singular)) {
			*which = o->spec.names.singular;
			return "SingularConflict";
		}
		for (uint32_t i = 0; i < n->short_names.n; i++)
			for (uint32_t k = 0; k < o->spec.names.short_names.n; k++)
				if (str_eq(n->short_names.v[i], o->spec.names.short_names.v[k])) {
					*which = n->short_names.v[i];
					return "ShortNamesConflict";
				}
	}
	return NULL;
}

static void accept_names(struct request *rq, struct apiextensions_v1_custom_resource_definition *o)
{
	struct str which = STR_NULL;
	const char *conflict;

	crds_sync(rq->s);
	conflict = name_taken(rq, o, &which);
	if (conflict) {
		set_condition(rq->a, o, "NamesAccepted", false, conflict,
			      arena_printf(rq->a, "\"%.*s\" is already in use", STR_ARG(which)).p);
		if (!condition_true(o, "Established"))
			set_condition(rq->a, o, "Established", false, "NotAccepted", "not all names are accepted");
		return;
	}
	o->status.accepted_names = o->spec.names;
	set_condition(rq->a, o, "NamesAccepted", true, "NoConflicts", "no conflicts found");
	set_condition(rq->a, o, "Established", true, "InitialNamesAccepted", "the initial names have been accepted");
}

static void store_version(struct request *rq, struct apiextensions_v1_custom_resource_definition *o)
{
	const struct apiextensions_v1_custom_resource_definition_version *sv = storage_version(o);

	if (!sv)
		return;
	for (uint32_t i = 0; i < o->status.stored_versions.n; i++)
		if (str_eq(o->status.stored_versions.v[i], sv->name))
			return;
	*arena_push(rq->a, &o->status.stored_versions) = sv->name;
}

static void crd_create(struct request *rq, void *obj)
{
	struct apiextensions_v1_custom_resource_definition *o = obj;

	memset(&o->status, 0, sizeof o->status);
	store_version(rq, o);
	if (!rq->dry_run) /* upstream gives names and conditions afterwards */
		accept_names(rq, o);
}

static void crd_update(struct request *rq, void *obj, const void *old)
{
	struct apiextensions_v1_custom_resource_definition *o = obj;
	const struct apiextensions_v1_custom_resource_definition *was = old;

	o->status = was->status;
	/* the lists are changed in place: a copy of their own */
	o->status.conditions.cap = 0;
	o->status.stored_versions.cap = 0;
	struct apiextensions_v1_custom_resource_definition_condition *c = arena_array(rq->a, struct apiextensions_v1_custom_resource_definition_condition,
										       o->status.conditions.n);

	if (o->status.conditions.n)
		memcpy(c, o->status.conditions.v, o->status.conditions.n * sizeof *c);
	o->status.conditions.v = c;
	store_version(rq, o);
	if (!o->metadata.deletion_timestamp)
		accept_names(rq, o);
}

static const struct apiextensions_v1_json_schema_props *schema_of(const struct apiextensions_v1_custom_resource_definition_version *v)
{
	return v->schema ? v->schema->open_apiv3_schema : NULL;
}

/* That version has the schema that it had. */
static bool schema_unchanged(const struct apiextensions_v1_custom_resource_definition_version *v,
			     const struct apiextensions_v1_custom_resource_definition *was)
{
	for (uint32_t i = 0; was && i < was->spec.versions.n; i++) {
		const struct apiextensions_v1_json_schema_props *x = schema_of(v), *y = schema_of(&was->spec.versions.v[i]);

		if (str_eq(v->name, was->spec.versions.v[i].name))
			return x && y ? object_equal(&apiextensions_v1_json_schema_props_type, x, y) : x == y;
	}
	return false;
}

static void scale_check(struct field_errors *e, const struct apiextensions_v1_custom_resource_subresources *s, const struct field_path *at)
{
	const struct apiextensions_v1_custom_resource_subresource_scale *sc = s ? s->scale : NULL;
	const struct field_path *p = FIELD_CHILD(FIELD_CHILD(at, "subresources"), "scale");

	if (!sc)
		return;
	if (!sc->spec_replicas_path.n)
		field_required(e, FIELD_CHILD(p, "specReplicasPath"), "");
	else if (!str_has_prefix(sc->spec_replicas_path, STR(".spec.")))
		field_invalid(e, FIELD_CHILD(p, "specReplicasPath"), sc->spec_replicas_path, "should be a json path under .spec");
	if (!sc->status_replicas_path.n)
		field_required(e, FIELD_CHILD(p, "statusReplicasPath"), "");
	else if (!str_has_prefix(sc->status_replicas_path, STR(".status.")))
		field_invalid(e, FIELD_CHILD(p, "statusReplicasPath"), sc->status_replicas_path, "should be a json path under .status");
	if (sc->label_selector_path && sc->label_selector_path->n && !str_has_prefix(*sc->label_selector_path, STR(".spec.")) &&
	    !str_has_prefix(*sc->label_selector_path, STR(".status.")))
		field_invalid(e, FIELD_CHILD(p, "labelSelectorPath"), *sc->label_selector_path, "should be a json path under either .spec or .status");
}

/*
 * Upstream keeps what all versions say alike once, in the spec, and reports it there: the schema as spec.validation. was: before an
 * update, or NULL.
 */
static void versions_check(struct field_errors *e, const struct apiextensions_v1_custom_resource_definition *o,
			   const struct apiextensions_v1_custom_resource_definition *was)
{
	const struct field_path *spec = FIELD_ROOT("spec"), *versions = FIELD_CHILD(spec, "versions");
	bool same_schema = true, same_sub = true;
	uint32_t n = o->spec.versions.n;

	for (uint32_t i = 1; i < n; i++) {
		const struct apiextensions_v1_custom_resource_definition_version *v = &o->spec.versions.v[0], *w = &o->spec.versions.v[i];

		same_schema &= v->schema && w->schema ? object_equal(&apiextensions_v1_custom_resource_validation_type, v->schema, w->schema) :
							v->schema == w->schema;
		same_sub &= v->subresources && w->subresources ?
				    object_equal(&apiextensions_v1_custom_resource_subresources_type, v->subresources, w->subresources) :
				    v->subresources == w->subresources;
	}
	for (uint32_t i = 0; i < n; i++)
		if (!schema_of(&o->spec.versions.v[i]))
			field_required(e, FIELD_CHILD(FIELD_CHILD(FIELD_INDEX(versions, i), "schema"), "openAPIV3Schema"), "");
	for (uint32_t i = 0; i < n; i++) {
		const struct apiextensions_v1_custom_resource_definition_version *v = &o->spec.versions.v[i];

		if (!same_schema && schema_of(v))
			schema_check(e, schema_of(v), FIELD_CHILD(FIELD_CHILD(FIELD_INDEX(versions, i), "schema"), "openAPIV3Schema"),
				     schema_unchanged(v, was));
		if (!same_sub)
			scale_check(e, v->subresources, FIELD_INDEX(versions, i));
	}
	if (n && same_schema && schema_of(&o->spec.versions.v[0]))
		schema_check(e, schema_of(&o->spec.versions.v[0]), FIELD_CHILD(FIELD_CHILD(spec, "validation"), "openAPIV3Schema"),
			     schema_unchanged(&o->spec.versions.v[0], was));
	if (n && same_sub)
		scale_check(e, o->spec.versions.v[0].subresources, spec);
}

static void crd_check(struct field_errors *e, const struct apiextensions_v1_custom_resource_definition *o,
		      const struct apiextensions_v1_custom_resource_definition *was)
{
	const struct field_path *spec = FIELD_ROOT("spec"), *versions = FIELD_CHILD(spec, "versions"), *names = FIELD_CHILD(spec, "names");
	struct str want = arena_printf(e->arena, "%.*s.%.*s", STR_ARG(o->spec.names.plural), STR_ARG(o->spec.group));
	static const struct str scopes[] = {STR_INIT("Cluster"), STR_INIT("Namespaced")};
	uint32_t stored = 0;
	const char *m;

	if (!str_eq(o->metadata.name, want))
		field_invalid(e, FIELD_CHILD(FIELD_ROOT("metadata"), "name"), o->metadata.name, "must be spec.names.plural+\".\"+spec.group");
	m = validate_dns1123_subdomain(e->arena, o->spec.group);
	if (!o->spec.group.n)
		field_required(e, FIELD_CHILD(spec, "group"), "");
	else if (m)
		field_invalid(e, FIELD_CHILD(spec, "group"), o->spec.group, "%s", m);
	else if (str_index(o->spec.group, '.') < 0)
		field_invalid(e, FIELD_CHILD(spec, "group"), o->spec.group, "should be a domain with at least one dot");
	if (str_has_suffix(o->spec.group, STR(".k8s.io")) || str_has_suffix(o->spec.group, STR(".kubernetes.io"))) {
		if (!str_map_get(API_MAP(&o->metadata.annotations), STR("api-approved.kubernetes.io")).n)
			field_required(e, FIELD_KEY(FIELD_CHILD(FIELD_ROOT("metadata"), "annotations"), STR("api-approved.kubernetes.io")),
				       "protected groups must have approval annotation \"api-approved.kubernetes.io\", see "
				       "https://github.com/kubernetes/enhancements/pull/1111");
	}
	if (!str_eq(o->spec.scope, scopes[0]) && !str_eq(o->spec.scope, scopes[1]))
		field_not_supported(e, FIELD_CHILD(spec, "scope"), o->spec.scope, scopes, 2);
	if (!o->spec.names.plural.n)
		field_required(e, FIELD_CHILD(names, "plural"), "");
	if (!o->spec.names.kind.n)
		field_required(e, FIELD_CHILD(names, "kind"), "");
	if (str_eq(o->spec.names.kind, o->spec.names.list_kind) && o->spec.names.kind.n)
		field_invalid(e, FIELD_CHILD(names, "listKind"), o->spec.names.list_kind, "kind and listKind may not be the same");
	if (o->spec.preserve_unknown_fields)
		field_invalid_raw(e, FIELD_CHILD(spec, "preserveUnknownFields"), STR("true"),
				  "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead");
	if (!o->spec.versions.n)
		field_invalid_raw(e, versions, STR("[]"), "must have exactly one version marked as storage version");
	for (uint32_t i = 0; i < o->spec.versions.n; i++) {
		const struct apiextensions_v1_custom_resource_definition_version *v = &o->spec.versions.v[i];
		const struct field_path *at = FIELD_INDEX(versions, i);

		stored += v->storage;
		m = validate_dns1035_label(e->arena, v->name);
		if (m)
			field_invalid(e, FIELD_CHILD(at, "name"), v->name, "%s", m);
		for (uint32_t k = 0; k < i; k++)
			if (str_eq(o->spec.versions.v[k].name, v->name))
				field_invalid(e, versions, v->name, "must contain unique version names");
	}
	versions_check(e, o, was);
	if (o->spec.versions.n && stored != 1)
		field_invalid_raw(e, versions, STR("[]"), "must have exactly one version marked as storage version");
	if (o->spec.conversion && str_eqz(o->spec.conversion->strategy, "Webhook") &&
	    (!o->spec.conversion->webhook || !o->spec.conversion->webhook->client_config))
		field_required(e, FIELD_CHILD(FIELD_CHILD(FIELD_CHILD(spec, "conversion"), "webhook"), "clientConfig"),
			       "required when strategy is set to Webhook");
}

static void crd_validate(struct request *rq, const void *obj, struct field_errors *e)
{
	(void)rq;
	crd_check(e, obj, NULL);
}

static void crd_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
{
	const struct apiextensions_v1_custom_resource_definition *o = obj, *was = old;
	const struct field_path *spec = FIELD_ROOT("spec");

	(void)rq;
	crd_check(e, o, was);
	if (!str_eq(o->spec.group, was->spec.group))
		field_invalid(e, FIELD_CHILD(spec, "group"), o->spec.group, "field is immutable");
	if (condition_true(was, "Established")) {
		if (!str_eq(o->spec.scope, was->spec.scope))
			field_invalid(e, FIELD_CHILD(spec, "scope"), o->spec.scope, "field is immutable");
		if (!str_eq(o->spec.names.kind, was->spec.names.kind))
			field_invalid(e, FIELD_CHILD(FIELD_CHILD(spec, "names"), "kind"), o->spec.names.kind, "field is immutable");
	}
	if (!str_eq(o->spec.names.plural, was->spec.names.plural))
		field_invalid(e, FIELD_CHILD(FIELD_CHILD(spec, "names"), "plural"), o->spec.names.plural, "field is immutable");
	for (uint32_t i = 0; i < o->status.stored_versions.n; i++) {
		bool has = false;

		for (uint32_t k = 0; k < o->spec.versions.n; k++)
			has |= str_eq(o->spec.versions.v[k].name, o->status.stored_versions.v[i]);
		if (!has)
			field_invalid(e, FIELD_INDEX(FIELD_CHILD(FIELD_ROOT("status"), "storedVersions"), i), o->status.stored_versions.v[i],
				      "must appear in spec.versions");
	}
}

static struct error *crd_before_delete(struct request *rq, void *obj)
{
	struct apiextensions_v1_custom_resource_definition *o = obj;

	if (o->metadata.deletion_timestamp)
		return NULL;
	for (uint32_t i = 0; i < o->metadata.finalizers.n; i++)
		if (str_eqz(o->metadata.finalizers.v[i], FINALIZER))
			return NULL;
	o->metadata.finalizers.cap = 0;
	*arena_push(rq->a, &o->metadata.finalizers) = STR(FINALIZER);
	set_condition(rq->a, o, "Terminating", true, "InstanceDeletionPending", "CustomResourceDefinition marked for deletion; CustomResource "
		      "deletion will begin soon");
	return NULL;
}

static void crd_normalize(struct arena *a, void *obj)
{
	struct apiextensions_v1_custom_resource_definition *o = obj;
	char *p;

	/* singular and listKind follow from kind */
	if (!o->spec.names.singular.n && o->spec.names.kind.n) {
		p = arena_strz(a, o->spec.names.kind);
		for (char *c = p; *c; c++)
			*c = (char)tolower((unsigned char)*c);
		o->spec.names.singular = str_from(p);
	}
	if (!o->spec.names.list_kind.n && o->spec.names.kind.n)
		o->spec.names.list_kind = arena_printf(a, "%.*sList", STR_ARG(o->spec.names.kind));
	if (!o->spec.conversion) {
		o->spec.conversion = arena_new(a, struct apiextensions_v1_custom_resource_conversion);
		o->spec.conversion->strategy = STR("None");
	}
}

const struct strategy strategy_crd = {
	.group = STR_INIT("apiextensions.k8s.io"), .plural = STR_INIT("customresourcedefinitions"), .generation = true, .status_keeps_metadata = true,
	.keep_status_on_create = true, .no_unconditional_update = false, .normalize = crd_normalize, .prepare_create = crd_create,
	.prepare_update = crd_update, .validate = crd_validate, .validate_update = crd_validate_update, .before_delete = crd_before_delete,
	.return_deleted = true,
};
