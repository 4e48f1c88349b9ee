/*
 * Which CustomResourceDefinitions there are: followed by a watch of the cache; what is made of them found by path, kind and name.
 * A state that is no longer current goes out of the tables at once, its watches end, and it is freed when nobody uses it (grace.h).
 */
#include <ctype.h>
#include "apiserver/background.h"
#include "apiserver/convert.h"
#include "apiserver/crd_internal.h"
#include "apiserver/extend.h"
#include "apiserver/metrics.h"

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
	aggregator_wake(s);
}

static void path_key(char out[700], const struct api_resource *r)
{
	snprintf(out, 700, "%.*s/%.*s/%.*s", STR_ARG(r->group), STR_ARG(r->version), STR_ARG(r->plural));
}

static void storage_name(char out[700], const struct storage *st)
{
	snprintf(out, 700, "%.*s/%.*s", STR_ARG(st->group), STR_ARG(st->plural));
}

void crd_hold(struct crd *c)
{
	c->refs++;
}

void crd_release(struct crd *c)
{
	if (!--c->refs)
		grace_retire(c->s->grace, crd_free, c);
}

bool crd_current(const struct resource *res)
{
	const struct crd *c = res->crd;

	return map_get(&c->s->crds->by_name, c->name) == c;
}

/* A group-version of the server's own is that whole: a definition has nothing there, though it is established. */
static bool own_version(const struct apiserver *s, const struct api_resource *r)
{
	for (size_t i = 0; i < s->n_resources; i++)
		if (str_eq(s->resources[i]->api->group, r->group) && str_eq(s->resources[i]->api->version, r->version))
			return true;
	return false;
}

static void serve(struct apiserver *s, struct crd *c)
{
	const struct storage *before;
	char key[700];

	for (size_t i = 0; i < c->n_versions; i++) {
		if (!c->versions[i].v->served || own_version(s, c->versions[i].res->api))
			continue;
		path_key(key, c->versions[i].res->api);
		map_set(&s->crds->by_path, str_from(key), c->versions[i].res);
	}
	storage_name(key, c->st);
	before = map_get(&s->storages, str_from(key));
	if (!before || before->crd)
		map_set(&s->storages, str_from(key), c->st);
}

/* Out of the tables; its watches end, as upstream ends them when a definition changes. */
static void unserve(struct apiserver *s, struct crd *c)
{
	char key[700];

	for (size_t i = 0; i < c->n_versions; i++) {
		path_key(key, c->versions[i].res->api);
		if (map_get(&s->crds->by_path, str_from(key)) == c->versions[i].res)
			map_del(&s->crds->by_path, str_from(key));
	}
	if (c->st) {
		storage_name(key, c->st);
		if (map_get(&s->storages, str_from(key)) == c->st)
			map_del(&s->storages, str_from(key));
		cache_watches_end(c->st->cache);
	}
	s->crds->dirty = true;
	crd_release(c);
}

/* ---- following the definitions ---- */

bool crd_condition(const crd_object_t *o, const char *type)
{
	for (uint32_t i = 0; i < o->status.conditions.n; i++)
		if (str_eqz(o->status.conditions.v[i].type, type))
			return str_eqz(o->status.conditions.v[i].status, "True");
	return false;
}

static void drop(struct crd *c)
{
	arena_free(&c->arena);
	free(c);
}

struct apiextensions_v1_json_schema_props *crd_schema_of(const crd_object_t *o, uint32_t i)
{
	return o->spec.versions.v[i].schema ? o->spec.versions.v[i].schema->open_apiv3_schema : NULL;
}

/* Takes over what lasts of a definition; its schemas as bytes. */
static void keep(struct crd *c, crd_object_t *whole)
{
	uint32_t n = whole->spec.versions.n;
	struct apiextensions_v1_custom_resource_validation **schemas = xcalloc(n + 1, sizeof(void *));
	struct buf b buf_cleanup = {0};

	c->schemas = arena_array(&c->arena, struct str, n + 1);
	for (uint32_t i = 0; i < n; i++) {
		const struct apiextensions_v1_json_schema_props *p = crd_schema_of(whole, i);

		schemas[i] = whole->spec.versions.v[i].schema;
		whole->spec.versions.v[i].schema = NULL;
		if (!p)
			continue;
		b.n = 0;
		pb_encode(&b, &apiextensions_v1_json_schema_props_type, p);
		c->schemas[i] = arena_str(&c->arena, buf_view(&b));
	}
	whole->metadata.managed_fields.n = 0;
	c->obj = arena_new(&c->arena, crd_object_t);
	object_copy(&c->arena, &apiextensions_v1_custom_resource_definition_type, whole, c->obj);
	for (uint32_t i = 0; i < n; i++)
		whole->spec.versions.v[i].schema = schemas[i];
	free(schemas);
}

static bool same_schemas(const struct crd *x, const struct crd *y)
{
	for (uint32_t i = 0; i < x->obj->spec.versions.n; i++)
		if (!x->schemas[i].p != !y->schemas[i].p || !str_eq(x->schemas[i], y->schemas[i]))
			return false;
	return true;
}

/* Only status and metadata differ: what is made of it stays. */
static bool same(const struct crd *x, const struct crd *y)
{
	return x->established == y->established && str_eq(x->obj->metadata.uid, y->obj->metadata.uid) &&
	       object_field_equal(&apiextensions_v1_custom_resource_definition_type, x->obj, y->obj, "spec") &&
	       same_schemas(x, y) &&
	       object_equal(&apiextensions_v1_custom_resource_definition_names_type, &x->obj->status.accepted_names,
			    &y->obj->status.accepted_names);
}

/* Documents of OpenAPI are others now; what was there when the server started made none so. */
static void count_documents(const struct crd *c, const char *reason)
{
	struct arena a arena_cleanup = {0};
	const crd_object_t *o = c->obj;

	if (!c->st || !c->s->ready)
		return;
	metrics_count(METRIC_CRD_OPENAPI_V2, arena_printf(&a, "crd=\"%.*s\",reason=\"%s\"", STR_ARG(c->name), reason).p, 1);
	for (size_t i = 0; i < c->n_versions; i++)
		if (c->versions[i].v->served)
			metrics_count(METRIC_CRD_OPENAPI_V3,
				      arena_printf(&a, "crd=\"%.*s\",group=\"%.*s\",reason=\"%s\",version=\"%.*s\"", STR_ARG(c->name),
						   STR_ARG(o->spec.group), reason, STR_ARG(c->versions[i].v->name)).p, 1);
}

static struct error *apply(struct apiserver *s, const struct cache_entry *en)
{
	struct crds *cs = s->crds;
	struct crd *c = xcalloc(1, sizeof *c), *old;
	struct arena work arena_cleanup = {0};
	crd_object_t *whole = arena_new(&work, crd_object_t);
	struct error *e;

	c->s = s;
	c->refs = 1;
	e = cache_entry_decode(&work, &apiextensions_v1_custom_resource_definition_type, en, true, whole);
	if (e) {
		drop(c);
		return e;
	}
	for (uint32_t i = 0; i < whole->spec.versions.n && !whole->spec.preserve_unknown_fields; i++) {
		struct apiextensions_v1_json_schema_props *p = crd_schema_of(whole, i);

		if (p && schema_has_defaults(p))
			schema_prune_defaults(&work, p);
	}
	keep(c, whole);
	c->name = c->obj->metadata.name;
	if (!str_to_i64(c->obj->metadata.resource_version, &c->rev))
		c->rev = INT64_MAX;
	c->terminating = c->obj->metadata.deletion_timestamp != NULL;
	for (uint32_t i = 0; i < c->obj->metadata.finalizers.n; i++)
		c->finalizing |= str_eqz(c->obj->metadata.finalizers.v[i], CRD_FINALIZER);
	c->established = crd_condition(c->obj, "Established");
	old = map_get(&cs->by_name, c->name);
	if (old && same(old, c)) {
		old->terminating = c->terminating;
		old->finalizing = c->finalizing;
		drop(c);
		c = old;
	} else {
		if (c->established && crd_storage_version(c->obj))
			e = crd_make(s, c, whole, old);
		if (e) {
			drop(c);
			return e;
		}
		c->cleaning = old && old->cleaning;
		map_set(&cs->by_name, c->name, c);
		if (c->st)
			serve(s, c);
		if (c->st)
			count_documents(c, old && old->st ? "update" : "add");
		else if (old)
			count_documents(old, "remove");
		if (old)
			unserve(s, old);
		cs->dirty = true;
	}
	c->round = cs->round;
	crd_clean_start(c);
	return NULL;
}

static void removed(struct apiserver *s, struct str name)
{
	struct crd *c = map_del(&s->crds->by_name, name);

	if (c) {
		count_documents(c, "remove");
		unserve(s, c);
	}
}

/* What has gone while the watch was lost. */
static void forget_unseen(struct apiserver *s)
{
	size_t it = 0;
	struct str key;
	void *v;

	while (map_next(&s->crds->by_name, &it, &key, &v)) {
		struct crd *c = v;

		if (c->round == s->crds->round)
			continue;
		map_del(&s->crds->by_name, key);
		count_documents(c, "remove");
		unserve(s, c);
	}
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
			struct cache_watch_opts o = {.initial = true, .initial_end = true, .mode = CACHE_ANY};

			tries++;
			cs->round++;
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
		if (ev.initial_end)
			forget_unseen(s);
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

/* So that definitions act (names, clean up, load) without anybody asking. */
static struct error *follow(struct apiserver *s, struct cache_watch *w)
{
	struct cache_event ev;

	for (;;) {
		struct arena a arena_cleanup = {0};
		struct str name;
		struct error *e = NULL;

		TRY(cache_watch_next(w, &ev));
		crds_sync(s);
		if (!ev.obj)
			continue;
		name = arena_str(&a, cache_entry_name(ev.obj));
		if (ev.type == CACHE_DELETED) {
			crd_object_t o = {0};

			e = cache_entry_decode(&a, &apiextensions_v1_custom_resource_definition_type, ev.obj, true, &o);
			if (!e)
				crd_settle_group(s, o.spec.group);
		} else {
			e = crd_settle(s, name);
		}
		log_and_free(e, "CustomResourceDefinition %.*s", STR_ARG(name));
	}
}

struct error *crds_init(struct apiserver *s)
{
	struct crds *cs = xcalloc(1, sizeof *cs);

	cs->st = storage_find(s, STR("apiextensions.k8s.io"), STR("customresourcedefinitions"));
	s->crds = cs;
	crds_sync(s);
	background_watch(s, "crds", cs->st->cache, follow);
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

