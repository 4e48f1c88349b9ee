/* What aggregated servers serve, for aggregated discovery. */
#include "apiserver/aggregator.h"
#include "schema/jv.h"

#define AS_LIST "as=APIGroupDiscoveryList"
#define ACCEPT                                                                                                         \
	"application/json;g=apidiscovery.k8s.io;v=v2;" AS_LIST                                                         \
	",application/json;g=apidiscovery.k8s.io;v=v2beta1;" AS_LIST

/* ---- documents: bytes from outside ---- */

static struct error *wrong(const char *what)
{
	return error_new("no discovery document: %s", what);
}

/* A string, or what is absent as an empty one. */
static struct error *text_of(const struct jv *o, const char *name, struct str *out)
{
	const struct jv *v = jv_get(o, str_from(name));

	*out = STR("");
	if (!v || jv_is(v, JV_NULL))
		return NULL;
	if (!jv_is(v, JV_STRING))
		return wrong(name);
	*out = jv_str(v);
	return NULL;
}

/* A list, or what is absent as an empty one. */
static struct error *items_of(const struct jv *o, const char *name, const struct jv **out)
{
	static const struct jv none = {.kind = JV_ARRAY};
	const struct jv *v = jv_get(o, str_from(name));

	*out = v && !jv_is(v, JV_NULL) ? v : &none;
	return jv_is(*out, JV_ARRAY) ? NULL : wrong(name);
}

/* `"name":"value"` behind a comma where first is false. */
static struct error *put_text(struct buf *b, const struct jv *o, const char *from, const char *to, bool first)
{
	struct str s;

	TRY(text_of(o, from, &s));
	buf_printf(b, "%s\"%s\":", first ? "" : ",", to);
	jv_encode_string(b, s);
	return NULL;
}

/* Names; always: null where there are none, else nothing. */
static struct error *put_names(struct buf *b, const struct jv *o, const char *name, bool always)
{
	const struct jv *list, *given = jv_get(o, str_from(name));

	TRY(items_of(o, name, &list));
	for (uint32_t i = 0; i < list->n; i++)
		if (!jv_is(&list->items[i], JV_STRING))
			return wrong(name);
	if (!list->n && !always)
		return NULL;
	buf_printf(b, ",\"%s\":", name);
	if (given && !jv_is(given, JV_NULL))
		jv_encode(b, list);
	else
		buf_puts(b, "null");
	return NULL;
}

/* group, version and kind of o; NULL: all empty. */
static struct error *put_kind(struct buf *b, const struct jv *o)
{
	if (o && !jv_is(o, JV_NULL) && !jv_is(o, JV_OBJECT))
		return wrong("a kind");
	buf_putc(b, '{');
	TRY(put_text(b, o, "group", "group", true));
	TRY(put_text(b, o, "version", "version", false));
	TRY(put_text(b, o, "kind", "kind", false));
	buf_putc(b, '}');
	return NULL;
}

static struct error *put_response_kind(struct buf *b, const struct jv *o)
{
	buf_puts(b, ",\"responseKind\":");
	return put_kind(b, jv_get(o, STR("responseKind")));
}

static struct error *put_subresource(struct buf *b, const struct jv *o)
{
	const struct jv *types;

	buf_putc(b, '{');
	TRY(put_text(b, o, "subresource", "subresource", true));
	TRY(put_response_kind(b, o));
	TRY(items_of(o, "acceptedTypes", &types));
	for (uint32_t i = 0; i < types->n; i++) {
		buf_puts(b, i ? "," : ",\"acceptedTypes\":[");
		TRY(put_kind(b, &types->items[i]));
	}
	if (types->n)
		buf_putc(b, ']');
	TRY(put_names(b, o, "verbs", true));
	buf_putc(b, '}');
	return NULL;
}

static struct error *put_resource(struct buf *b, const struct jv *o)
{
	const struct jv *subs;

	buf_putc(b, '{');
	TRY(put_text(b, o, "resource", "resource", true));
	TRY(put_response_kind(b, o));
	TRY(put_text(b, o, "scope", "scope", false));
	TRY(put_text(b, o, "singularResource", "singularResource", false));
	TRY(put_names(b, o, "verbs", true));
	TRY(put_names(b, o, "shortNames", false));
	TRY(put_names(b, o, "categories", false));
	TRY(items_of(o, "subresources", &subs));
	for (uint32_t i = 0; i < subs->n; i++) {
		buf_puts(b, i ? "," : ",\"subresources\":[");
		if (!jv_is(&subs->items[i], JV_OBJECT))
			return wrong("a subresource");
		TRY(put_subresource(b, &subs->items[i]));
	}
	if (subs->n)
		buf_putc(b, ']');
	buf_putc(b, '}');
	return NULL;
}

/* The version named of a group's list, or NULL. */
static struct error *find_version(const struct jv *group, struct str version, const struct jv **out)
{
	const struct jv *versions;
	struct str name;

	TRY(items_of(group, "versions", &versions));
	for (uint32_t i = 0; i < versions->n; i++) {
		TRY(text_of(&versions->items[i], "version", &name));
		if (str_eq(name, version))
			*out = &versions->items[i];
	}
	return NULL;
}

struct error *discovery_of_aggregated(struct arena *a, struct str json, struct str group, struct str version,
				      struct buf *out)
{
	struct jv doc;
	const struct jv *groups, *found = NULL, *resources;
	struct str name, api_version;

	TRY(jv_parse(a, json, NULL, &doc));
	if (!jv_is(&doc, JV_OBJECT))
		return wrong("no object");
	TRY(text_of(&doc, "kind", &name));
	TRY(text_of(&doc, "apiVersion", &api_version));
	/* as upstream's decoder, which knows what it expects where nothing is said */
	if ((name.n && !str_eqz(name, "APIGroupDiscoveryList")) ||
	    (api_version.n && !str_eqz(api_version, "apidiscovery.k8s.io/v2") &&
	     !str_eqz(api_version, "apidiscovery.k8s.io/v2beta1")))
		return wrong("kind and apiVersion");
	TRY(items_of(&doc, "items", &groups));
	for (uint32_t i = 0; i < groups->n; i++) {
		TRY(text_of(jv_get(&groups->items[i], STR("metadata")), "name", &name));
		if (str_eq(name, group))
			TRY(find_version(&groups->items[i], version, &found));
	}
	TRY(items_of(found, "resources", &resources));
	for (uint32_t i = 0; i < resources->n; i++) {
		buf_putc(out, i ? ',' : '[');
		if (!jv_is(&resources->items[i], JV_OBJECT))
			return wrong("a resource");
		TRY(put_resource(out, &resources->items[i]));
	}
	if (resources->n)
		buf_putc(out, ']');
	return NULL;
}

static bool namespaced(const struct jv *o)
{
	const struct jv *v = jv_get(o, STR("namespaced"));

	return jv_is(v, JV_BOOL) && v->b;
}

/* The name before the slash, and what is behind it; p NULL: no subresource. */
static struct error *split_name(const struct jv *o, struct str *resource, struct str *sub)
{
	struct str name;

	if (!jv_is(o, JV_OBJECT))
		return wrong("a resource");
	TRY(text_of(o, "name", &name));
	*resource = str_cut(&name, '/');
	*sub = name;
	return NULL;
}

/* The subresources of one resource, whose scope they have to have, too. */
static struct error *legacy_subresources(struct buf *b, const struct jv *list, struct str resource, bool wide)
{
	struct str of, sub, kind;
	bool any = false;

	for (uint32_t i = 0; i < list->n; i++) {
		const struct jv *o = &list->items[i];

		TRY(split_name(o, &of, &sub));
		if (!sub.p || !str_eq(of, resource))
			continue;
		if (namespaced(o) != wide)
			return wrong("a subresource of another scope");
		buf_puts(b, any ? ",{\"subresource\":" : ",\"subresources\":[{\"subresource\":");
		any = true;
		jv_encode_string(b, sub);
		buf_puts(b, ",\"responseKind\":");
		TRY(text_of(o, "kind", &kind));
		TRY(put_kind(b, kind.n ? o : NULL));
		TRY(put_names(b, o, "verbs", true));
		buf_putc(b, '}');
	}
	if (any)
		buf_putc(b, ']');
	return NULL;
}

static struct error *legacy_resource(struct buf *b, const struct jv *list, const struct jv *o, struct str name,
				     bool parent)
{
	buf_puts(b, "{\"resource\":");
	jv_encode_string(b, name);
	buf_puts(b, ",\"responseKind\":");
	TRY(put_kind(b, parent ? o : NULL));
	buf_printf(b, ",\"scope\":\"%s\"", namespaced(o) ? "Namespaced" : "Cluster");
	if (parent) {
		TRY(put_text(b, o, "singularName", "singularResource", false));
		TRY(put_names(b, o, "verbs", true));
		TRY(put_names(b, o, "shortNames", false));
		TRY(put_names(b, o, "categories", false));
	} else {
		buf_puts(b, ",\"singularResource\":\"\",\"verbs\":null");
	}
	TRY(legacy_subresources(b, list, name, namespaced(o)));
	buf_putc(b, '}');
	return NULL;
}

struct error *discovery_of_legacy(struct arena *a, struct str json, struct buf *out)
{
	struct jv doc;
	const struct jv *list;
	struct map seen = {0};
	struct str kind, version, name, sub;
	struct error *e = NULL;

	TRY(jv_parse(a, json, NULL, &doc));
	if (!jv_is(&doc, JV_OBJECT))
		return wrong("no object");
	TRY(text_of(&doc, "kind", &kind));
	TRY(text_of(&doc, "apiVersion", &version));
	if ((kind.n && !str_eqz(kind, "APIResourceList")) || (version.n && !str_eqz(version, "v1")))
		return wrong("kind and apiVersion");
	TRY(items_of(&doc, "resources", &list));
	/* resources, then those of which there are subresources alone */
	for (int pass = 0; pass < 2; pass++)
		for (uint32_t i = 0; !e && i < list->n; i++) {
			e = split_name(&list->items[i], &name, &sub);
			if (e || (sub.p != NULL) != pass || map_has(&seen, name))
				continue;
			buf_putc(out, seen.n ? ',' : '[');
			map_set(&seen, name, &seen);
			e = legacy_resource(out, list, &list->items[i], name, !pass);
		}
	if (seen.n)
		buf_putc(out, ']');
	map_free(&seen);
	return e;
}

/* ---- asking ---- */

/* The type is that of a list of aggregated discovery, in one of its versions. */
static bool is_aggregated(struct arena *a, struct str type)
{
	struct accept_clause *c;

	return accept_parse(a, type, &c) == 1 && str_eqz(query_get(&c->params, "g"), "apidiscovery.k8s.io") &&
	       str_eqz(query_get(&c->params, "as"), "APIGroupDiscoveryList") &&
	       (str_eqz(query_get(&c->params, "v"), "v2") || str_eqz(query_get(&c->params, "v"), "v2beta1"));
}

static void keep_etag(struct api_service *v, struct str etag)
{
	free((void *)(uintptr_t)v->discovery_etag.p);
	v->discovery_etag = STR_NULL;
	if (etag.n) {
		char *p = xmalloc(etag.n);

		memcpy(p, etag.p, etag.n);
		v->discovery_etag = str_of(p, etag.n);
	}
}

/* *same: what is known still holds. */
static struct error *ask(struct apiserver *s, struct arena *a, struct api_service *v, struct remote *r, struct buf *out,
			 struct str *etag, bool *same)
{
	struct remote_ask q = {.target = STR("/apis"),
			       .user = STR("system:kube-aggregator"),
			       .group = STR("system:masters"),
			       .accept = STR(ACCEPT),
			       .etag = arena_str(a, v->discovery_etag),
			       .limit = DISCOVERY_MAX};
	struct remote_told told;
	struct str group = r->spec->group, version = r->spec->version;

	*same = false;
	*etag = STR_NULL;
	TRY(remote_get(s, a, r, &q, &told));
	if (told.status == 304 && q.etag.n) {
		*same = true;
		return NULL;
	}
	if (told.status == 503)
		return error_new("it is not available");
	if (told.status == 200 && is_aggregated(a, told.type)) {
		*etag = told.etag;
		return discovery_of_aggregated(a, told.body, group, version, out);
	}
	q = (struct remote_ask){.target = group.n ? arena_printf(a, "/apis/%.*s/%.*s", STR_ARG(group), STR_ARG(version))
						  : arena_printf(a, "/api/%.*s", STR_ARG(version)),
				.user = STR("system:kube-aggregator"),
				.accept = STR("application/json"),
				.limit = DISCOVERY_MAX};
	TRY(remote_get(s, a, r, &q, &told));
	if (told.status != 200)
		return error_new("%.*s: %d", STR_ARG(q.target), told.status);
	return discovery_of_legacy(a, told.body, out);
}

bool aggregator_learn_resources(struct apiserver *s, struct api_service *v)
{
	struct arena a arena_cleanup = {0};
	struct buf b buf_cleanup = {0};
	struct remote *r = v->remote;
	struct str etag;
	bool same, ok;
	int64_t t = deadline_push(DISCOVERY_TIMEOUT_MS);
	struct error *e;

	r->refs++;
	e = ask(s, &a, v, r, &b, &etag, &same);
	deadline_pop(t);
	ok = !e;
	if (v->remote == r && !error_is_sys(e, ECANCELED) && !same) {
		keep_etag(v, ok ? etag : STR_NULL);
		block_unref(v->resources);
		v->resources = ok && b.n ? block_new(buf_view(&b)) : NULL;
	}
	if (v->remote == r && !error_is_sys(e, ECANCELED))
		v->fresh = ok;
	remote_unref(r);
	if (e && !error_is_sys(e, ECANCELED))
		log_v(2, "discovery of APIService %.*s: %s", STR_ARG(v->name), error_message(e));
	error_free(e);
	return ok;
}
