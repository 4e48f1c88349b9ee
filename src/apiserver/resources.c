/* What is served: one entry a (group, version, plural), one storage a kind of object in the store. */
#include <errno.h>
#include "apiserver/extend.h"
#include "apiserver/convert.h"
#include "apiserver/encrypt.h"
#include "apiserver/runtime_config.h"
#include "apiserver/metrics.h"
#include "apiserver/server.h"
#include "apiserver/storage_flags.h"
#include "schema/defaults.h"
#include "base/log.h"
#include "loop/fiber.h"

/* Keys in the store, where upstream's are not the plural. */
static const struct {
	const char *group, *plural, *prefix;
} prefixes[] = {
	{"", "replicationcontrollers", "controllers"},
	{"", "endpoints", "services/endpoints"},
	{"", "services", "services/specs"},
	{"", "nodes", "minions"},
	{"networking.k8s.io", "ingresses", "ingress"},
	{"apiregistration.k8s.io", "apiservices", "apiregistration.k8s.io/apiservices"},
	{"apiextensions.k8s.io", "customresourcedefinitions", "apiextensions.k8s.io/customresourcedefinitions"},
};

/* Resources that are kept nowhere. */
static bool is_virtual(const struct api_resource *r)
{
	return !(r->verbs & VERB_GET) || str_eqz(r->plural, "componentstatuses") || str_eqz(r->plural, "bindings");
}

static void path_key(char *out, size_t n, struct str group, struct str version, struct str plural)
{
	snprintf(out, n, "%.*s/%.*s/%.*s", STR_ARG(group), STR_ARG(version), STR_ARG(plural));
}

struct resource *resource_find(struct apiserver *s, struct str group, struct str version, struct str plural)
{
	char key[700];

	path_key(key, sizeof key, group, version, plural);
	return map_get(&s->by_path, str_from(key));
}

bool resource_served(const struct apiserver *s, const struct resource *r)
{
	for (size_t i = 0; i < s->n_hidden; i++)
		if (s->hidden[i] == r)
			return false;
	return true;
}

struct storage *storage_find(struct apiserver *s, struct str group, struct str plural)
{
	char key[700];

	snprintf(key, sizeof key, "%.*s/%.*s", STR_ARG(group), STR_ARG(plural));
	return map_get(&s->storages, str_from(key));
}

struct resource *resource_any(struct apiserver *s, struct str group, struct str plural)
{
	for (size_t i = 0; i < s->n_resources; i++)
		if (str_eq(s->resources[i]->api->group, group) && str_eq(s->resources[i]->api->plural, plural))
			return s->resources[i];
	for (size_t i = 0; i < s->n_hidden; i++)
		if (str_eq(s->hidden[i]->api->group, group) && str_eq(s->hidden[i]->api->plural, plural))
			return s->hidden[i];
	return crd_resource_any(s, group, plural);
}

struct resource *resource_for_kind(struct apiserver *s, struct str group, struct str version, struct str kind)
{
	for (size_t i = 0; i < s->n_resources; i++) {
		const struct api_resource *r = s->resources[i]->api;

		if (str_eq(r->kind, kind) && str_eq(r->group, group) && (!version.n || str_eq(r->version, version)) && s->resources[i]->st)
			return s->resources[i];
	}
	return crd_resource_for_kind(s, group, version, kind);
}

struct str storage_key(struct arena *a, const struct storage *st, struct str ns, struct str name)
{
	if (st->namespaced)
		return arena_printf(a, "%.*s%.*s/%.*s", STR_ARG(st->prefix), STR_ARG(ns), STR_ARG(name));
	return arena_printf(a, "%.*s%.*s", STR_ARG(st->prefix), STR_ARG(name));
}

/* What upstream's v1.36 stores otherwise than as protobuf of the version that is held here: of the newest, as v1.35 knows it. */
static void stored_as(struct storage *st, const struct api_resource *r)
{
	st->stored_version = st->api_version;
	if (str_eqz(r->plural, "mutatingadmissionpolicies") || str_eqz(r->plural, "mutatingadmissionpolicybindings"))
		st->stored_version = STR("admissionregistration.k8s.io/v1beta1");
	if (str_eqz(r->plural, "customresourcedefinitions"))
		st->stored_form = crd_stored_form;
}

/* The version objects of a resource are stored in, where it is served in several. */
static const struct api_resource *storage_version(const struct api_resource *r)
{
	if (str_eqz(r->group, "events.k8s.io"))
		return &core_v1_events_resource;
	if (str_eqz(r->group, "autoscaling"))
		return &autoscaling_v2_horizontalpodautoscalers_resource;
	return r;
}

/* Until a KMS plugin unwraps what the values are encrypted with. */
static struct error *wait_cache(struct store *s, const struct cache_resource *cr, struct cache **out)
{
	for (int64_t ms = 100;; ms = ms < 5000 ? ms * 2 : 10000) {
		struct error *e = cache_new(s, cr, out);

		if (!error_is_sys(e, EAGAIN))
			return e;
		log_and_free(e, "waiting");
		TRY(fiber_sleep(ms));
	}
}

/* What upstream does whenever it reads from its store; an embedded store has only what this server has written. */
static struct error *complete(void *ctx, struct arena *a, struct str api_version, struct str text, void *obj)
{
	const struct storage *st = ctx;
	const struct strategy *sg = st->strategy;

	if (sg && sg->read_text && text.n)
		TRY(sg->read_text(a, api_version, text, obj));
	if (sg && sg->on_read)
		sg->on_read(st->s, a, api_version, obj);
	object_default(a, st->type, obj);
	if (sg && sg->normalize)
		sg->normalize(a, obj);
	return NULL;
}

static struct error *storage_make(struct apiserver *s, const struct api_resource *r, struct storage **out)
{
	struct storage *st = storage_find(s, r->group, r->plural);
	struct cache_resource cr = {0};
	const char *place = NULL;
	char key[700];

	if (st) {
		*out = st;
		return NULL;
	}
	st = arena_new(&s->arena, struct storage);
	for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
		if (str_eqz(r->group, prefixes[i].group) && str_eqz(r->plural, prefixes[i].plural))
			place = prefixes[i].prefix;
	st->s = s;
	st->group = r->group;
	st->plural = r->plural;
	st->prefix = place ? arena_printf(&s->arena, "%s/%s/", s->o.etcd_prefix, place)
			   : arena_printf(&s->arena, "%s/%.*s/", s->o.etcd_prefix, STR_ARG(r->plural));
	st->type = r->type;
	st->kind = r->kind;
	st->api_version = r->group.n ? arena_printf(&s->arena, "%.*s/%.*s", STR_ARG(r->group), STR_ARG(r->version)) : r->version;
	stored_as(st, r);
	st->namespaced = r->namespaced;
	st->media = storage_media(s, r->group);
	st->store = store_of(s, r->group, r->plural);
	st->uncached = !storage_cached(&s->o, r->group, r->plural);
	st->strategy = strategy_find(r->group, r->plural);
	st->ttl_ms = str_eqz(r->plural, "events") ? s->o.event_ttl_ms : 0;
	st->json_prefix = arena_printf(&s->arena, "{\"kind\":\"%.*s\",\"apiVersion\":\"%.*s\",", STR_ARG(st->kind), STR_ARG(st->api_version));
	cr.prefix = st->prefix;
	cr.group = r->group;
	cr.version = r->version;
	cr.kind = r->kind;
	cr.type = r->type;
	cr.namespaced = r->namespaced;
	cr.node_field = -1;
	st->encryption = encryption_for(s, r->group, r->plural, st->prefix);
	if (st->encryption) {
		cr.plain = encryption_open;
		cr.sealed = encryption_sealed;
		cr.ctx = st->encryption;
	}
	if (str_eqz(r->plural, "customresourcedefinitions"))
		cr.plain = crd_stored_open;
	if (s->o.etcd_servers || st->store != s->store) {
		cr.complete = complete;
		cr.complete_ctx = st;
	}
	if (st->strategy) {
		cr.fields = st->strategy->fields;
		cr.n_fields = st->strategy->n_fields;
		cr.node_field = (int8_t)(st->strategy->node_field - 1);
		cr.shown = st->strategy->shown;
	}
	cr.called = metrics_store_call;
	cr.waited = metrics_cache_waited;
	cr.called_ctx = st->metrics = metrics_storage(r->group, r->plural);
	/* the server itself lives without these two; all other kinds it needs to answer anything */
	cr.late = str_eqz(r->plural, "secrets") || str_eqz(r->plural, "configmaps");
	TRY(error_wrap(wait_cache(st->store, &cr, &st->cache), "reading %.*s", STR_ARG(st->prefix)));
	snprintf(key, sizeof key, "%.*s/%.*s", STR_ARG(r->group), STR_ARG(r->plural));
	map_set(&s->storages, str_from(key), st);
	*out = st;
	return NULL;
}

struct error *resources_init(struct apiserver *s)
{
	TRY(encryption_init(s));
	TRY(error_wrap(runtime_config_parse(&s->arena, s->o.runtime_config, &s->runtime_config), "--runtime-config"));
	s->resources = arena_array(&s->arena, struct resource *, n_api_resources);
	s->served = arena_array(&s->arena, const struct api_resource *, n_api_resources);
	s->hidden = arena_array(&s->arena, struct resource *, n_api_resources);
	for (size_t i = 0; i < n_api_resources; i++) {
		const struct api_resource *r = api_resources[i], *sv = storage_version(r);
		struct resource *res = arena_new(&s->arena, struct resource);
		char key[700];

		res->api = r;
		res->api_version = r->group.n ? arena_printf(&s->arena, "%.*s/%.*s", STR_ARG(r->group), STR_ARG(r->version)) : r->version;
		res->defaults = true;
		if (!is_virtual(r))
			TRY(storage_make(s, sv, &res->st));
		if (sv->type == &apps_v1_daemon_set_type)
			res->internal_meta = daemonset_internal_meta;
		if (sv != r) {
			res->st->versions = true;
			if (str_eqz(r->group, "events.k8s.io")) {
				res->to_storage = convert_events_to_core;
				res->from_storage = convert_core_to_events;
				res->field_names = events_field_names;
				res->n_field_names = events_n_field_names;
			} else if (str_eqz(r->version, "v1")) {
				res->internal_meta = hpa_internal_meta;
				res->printed = sv;
				res->to_storage = convert_hpa_v1_to_v2;
				res->from_storage = convert_hpa_v2_to_v1;
			}
		}
		if (!runtime_config_serves(s->runtime_config, r)) {
			s->hidden[s->n_hidden++] = res;
			continue;
		}
		path_key(key, sizeof key, r->group, r->version, r->plural);
		map_set(&s->by_path, str_from(key), res);
		s->served[s->n_resources] = r;
		s->resources[s->n_resources++] = res;
	}
	return NULL;
}
