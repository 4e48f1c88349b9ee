/* Discovery documents: plain ones and the aggregated one. */
#include <openssl/sha.h>
#include "apiserver/custom.h"
#include "apiserver/discovery.h"
#include "apiserver/extend.h"
#include "schema/jv.h"

static const char *const verb_names[] = {"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"};

void storage_version_hash(struct str group, struct str version, struct str kind, char out[16])
{
	char text[700];
	unsigned char sum[32];
	struct buf b buf_cleanup = {0};
	int n = snprintf(text, sizeof text, "%.*s/%.*s/%.*s", STR_ARG(group), STR_ARG(version), STR_ARG(kind));

	SHA256((unsigned char *)text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1, sum);
	base64_encode(&b, str_of((char *)sum, 8));
	snprintf(out, 16, "%s", buf_z(&b));
}

/* ---- groups in order ---- */

struct group_version {
	struct str group, version;
	int32_t group_priority, version_priority;
};
struct groups {
	LIST(struct group_version) list; /* a group's versions stand together, preferred first */
};

static bool has_gv(const struct groups *g, struct str group, struct str version)
{
	for (uint32_t i = 0; i < g->list.n; i++)
		if (str_eq(g->list.v[i].group, group) && str_eq(g->list.v[i].version, version))
			return true;
	return false;
}

static void add_gv(struct apiserver *s, struct arena *a, struct groups *g, struct str group, struct str version)
{
	struct group_version *gv;

	if (has_gv(g, group, version))
		return;
	gv = arena_push(a, &g->list);
	gv->group = group;
	gv->version = version;
	apiservice_priority(s, group, version, &gv->group_priority, &gv->version_priority);
}

/* The aggregator's own group stands before all; then by priority, as upstream's APIServicesByGroup and ByVersionPriority. */
static int gv_cmp(const void *x, const void *y)
{
	const struct group_version *a = x, *b = y;
	bool own_a = str_eqz(a->group, "apiregistration.k8s.io"), own_b = str_eqz(b->group, "apiregistration.k8s.io");
	int r = own_a != own_b ? (own_a ? -1 : 1) : 0;

	if (!r && a->group_priority != b->group_priority)
		r = a->group_priority > b->group_priority ? -1 : 1;
	if (!r)
		r = str_cmp(a->group, b->group);
	if (!r && a->version_priority != b->version_priority)
		r = a->version_priority > b->version_priority ? -1 : 1;
	return r ? r : kube_version_cmp(a->version, b->version);
}

static void collect(struct request *rq, struct groups *g)
{
	struct resource *r;
	struct str group, version;

	memset(g, 0, sizeof *g);
	for (size_t i = 0; i < rq->s->n_resources; i++)
		add_gv(rq->s, rq->a, g, rq->s->resources[i]->api->group, rq->s->resources[i]->api->version);
	for (size_t i = 0; (r = crd_resource_at(rq->s, i)) != NULL; i++)
		add_gv(rq->s, rq->a, g, r->api->group, r->api->version);
	for (size_t i = 0; aggregator_remote_at(rq->s, i, &group, &version); i++)
		add_gv(rq->s, rq->a, g, group, version);
	for (uint32_t i = 0; i < g->list.n; i++) /* the highest of a group's versions counts */
		for (uint32_t k = 0; k < g->list.n; k++)
			if (str_eq(g->list.v[i].group, g->list.v[k].group) && g->list.v[k].group_priority > g->list.v[i].group_priority)
				g->list.v[i].group_priority = g->list.v[k].group_priority;
	qsort(g->list.v, g->list.n, sizeof *g->list.v, gv_cmp);
}

static struct resource *resource_at(struct apiserver *s, size_t i)
{
	return i < s->n_resources ? s->resources[i] : crd_resource_at(s, i - s->n_resources);
}

/* ---- plain discovery ---- */

static void json_strings(struct buf *b, const struct str *v, size_t n)
{
	buf_putc(b, '[');
	for (size_t i = 0; i < n; i++) {
		if (i)
			buf_putc(b, ',');
		jv_encode_string(b, v[i]);
	}
	buf_putc(b, ']');
}

/* Upstream sorts the verbs of its own resources, and has those of custom ones in the order they were written down. */
static void json_verbs(struct buf *b, uint16_t verbs, bool custom)
{
	static const uint8_t sorted[] = {0, 1, 2, 3, 4, 5, 6, 7}, written[] = {1, 2, 3, 4, 5, 0, 6, 7};
	bool first = true;

	buf_putc(b, '[');
	for (int i = 0; i < 8; i++) {
		int v = custom ? written[i] : sorted[i];

		if (verbs & (1 << v)) {
			buf_printf(b, "%s\"%s\"", first ? "" : ",", verb_names[v]);
			first = false;
		}
	}
	buf_putc(b, ']');
}

static void group_json(struct buf *b, const struct groups *g, struct str group, bool top)
{
	bool first = true;
	struct str preferred = STR_NULL;

	buf_puts(b, "{");
	if (top)
		buf_puts(b, "\"kind\":\"APIGroup\",\"apiVersion\":\"v1\",");
	buf_puts(b, "\"name\":");
	jv_encode_string(b, group);
	buf_puts(b, ",\"versions\":[");
	for (uint32_t i = 0; i < g->list.n; i++) {
		if (!str_eq(g->list.v[i].group, group))
			continue;
		if (first)
			preferred = g->list.v[i].version;
		buf_printf(b, "%s{\"groupVersion\":\"%.*s/%.*s\",\"version\":\"%.*s\"}", first ? "" : ",", STR_ARG(group),
			   STR_ARG(g->list.v[i].version), STR_ARG(g->list.v[i].version));
		first = false;
	}
	buf_printf(b, "],\"preferredVersion\":{\"groupVersion\":\"%.*s/%.*s\",\"version\":\"%.*s\"}}", STR_ARG(group), STR_ARG(preferred),
		   STR_ARG(preferred));
}

static void api_resource_json(struct buf *b, struct str name, struct str singular, bool namespaced, struct str group, struct str version,
			      struct str kind, uint16_t verbs, const struct api_resource *r, struct str hash, bool custom)
{
	buf_puts(b, "{\"name\":");
	jv_encode_string(b, name);
	buf_puts(b, ",\"singularName\":");
	jv_encode_string(b, singular);
	buf_printf(b, ",\"namespaced\":%s", namespaced ? "true" : "false");
	if (group.n) {
		buf_puts(b, ",\"group\":");
		jv_encode_string(b, group);
	}
	if (version.n) {
		buf_puts(b, ",\"version\":");
		jv_encode_string(b, version);
	}
	buf_puts(b, ",\"kind\":");
	jv_encode_string(b, kind);
	buf_puts(b, ",\"verbs\":");
	json_verbs(b, verbs, custom);
	if (r && r->n_short_names) {
		buf_puts(b, ",\"shortNames\":");
		json_strings(b, r->short_names, r->n_short_names);
	}
	if (r && r->n_categories) {
		buf_puts(b, ",\"categories\":");
		json_strings(b, r->categories, r->n_categories);
	}
	if (hash.n) {
		buf_puts(b, ",\"storageVersionHash\":");
		jv_encode_string(b, hash);
	}
	buf_putc(b, '}');
}

/* A plain document; of these there is protobuf too. */
static struct error *respond_plain(struct request *rq, const struct schema_type *t, struct str api_version, struct str kind, struct str json)
{
	struct buf b buf_cleanup = {0};
	void *obj;

	if (rq->out.media != MEDIA_PROTOBUF)
		return respond_json(rq, 200, json);
	obj = arena_alloc(rq->a, t->size);
	TRY(json_decode(rq->a, t, json, NULL, obj));
	pb_envelope_encode(&b, api_version, kind, t, obj);
	return respond_bytes(rq, 200, rq->out.content_type, buf_view(&b));
}

/* Groups of the server itself know which versions they lack; of others nothing is known. */
bool built_in_group(struct apiserver *s, struct str group)
{
	for (size_t i = 0; i < s->n_resources; i++)
		if (str_eq(s->resources[i]->api->group, group))
			return true;
	return false;
}

/* The hash is of the version that upstream stores: for some kinds one that is no longer served. */
static struct str hashed_version(const struct api_resource *a, struct str v)
{
	return str_eqz(a->kind, "CustomResourceDefinition") || str_has_prefix(a->kind, STR("MutatingAdmissionPolicy")) ? STR("v1beta1") : v;
}

bool discovery_knows(struct request *rq, struct str group, struct str version)
{
	struct resource *r;

	for (size_t i = 0; (r = resource_at(rq->s, i)) != NULL; i++)
		if (str_eq(r->api->group, group) && str_eq(r->api->version, version))
			return true;
	return false;
}

struct error *discovery_resources(struct request *rq, struct str group, struct str version)
{
	struct buf b buf_cleanup = {0};
	struct resource *r;
	bool first = true, any = false;

	buf_puts(&b, "{\"kind\":\"APIResourceList\"");
	if (group.n)
		buf_puts(&b, ",\"apiVersion\":\"v1\"");
	buf_printf(&b, ",\"groupVersion\":\"%.*s%s%.*s\",\"resources\":[", STR_ARG(group), group.n ? "/" : "", STR_ARG(version));
	for (size_t i = 0; (r = resource_at(rq->s, i)) != NULL; i++) {
		const struct api_resource *a = r->api;
		char hash[16] = "";

		if (!str_eq(a->group, group) || !str_eq(a->version, version))
			continue;
		any = true;
		if (r->st) {
			struct str g, v;

			api_version_split(r->st->api_version, &g, &v);
			storage_version_hash(g, hashed_version(a, v), r->st->kind, hash);
		}
		if (!first)
			buf_putc(&b, ',');
		first = false;
		api_resource_json(&b, a->plural, a->singular, a->namespaced, STR_NULL, STR_NULL, a->kind, a->verbs, a, str_from(hash), r->crd);
		for (uint8_t k = 0; k < a->n_subresources; k++) {
			const struct api_subresource *sub = &a->subresources[k];
			bool own = !sub->group.n && !sub->version.n;

			buf_putc(&b, ',');
			api_resource_json(&b, arena_printf(rq->a, "%.*s/%.*s", STR_ARG(a->plural), STR_ARG(sub->name)), STR(""), a->namespaced,
					  own ? STR_NULL : sub->group, own ? STR_NULL : sub->version, sub->kind, sub->verbs, NULL, STR_NULL, false);
		}
	}
	buf_puts(&b, "]}");
	if (!any && built_in_group(rq->s, group))
		return err_unknown_path();
	if (!any)
		return respond_unknown(rq);
	return respond_plain(rq, &meta_v1_api_resource_list_type, group.n ? STR("v1") : STR(""), STR("APIResourceList"), buf_view(&b));
}

/* ---- aggregated discovery (KEP-3352) ---- */

static void response_kind(struct buf *b, struct str group, struct str version, struct str kind)
{
	buf_puts(b, "{\"group\":");
	jv_encode_string(b, group);
	buf_puts(b, ",\"version\":");
	jv_encode_string(b, version);
	buf_puts(b, ",\"kind\":");
	jv_encode_string(b, kind);
	buf_putc(b, '}');
}

/* Resources of an aggregated server, from its own list; subresources stand behind their resource. Returns whether there were none. */
static bool remote_resources(struct request *rq, struct buf *b, struct str group, struct str version)
{
	struct str json = aggregator_resources(rq->s, group, version);
	struct jv doc;
	const struct jv *list;
	bool first = true;
	struct error *e;

	if (!json.n)
		return true;
	e = jv_parse(rq->a, json, NULL, &doc);
	if (e) {
		log_and_free(e, "discovery of %.*s/%.*s", STR_ARG(group), STR_ARG(version));
		return true;
	}
	list = jv_get(&doc, STR("resources"));
	for (uint32_t i = 0; jv_is(list, JV_ARRAY) && i < list->n; i++) {
		const struct jv *r = &list->items[i], *v;
		struct str name = jv_str(jv_get(r, STR("name")));
		static const char *const copied[] = {"verbs", "shortNames", "categories"};

		if (str_index(name, '/') >= 0)
			continue;
		buf_puts(b, first ? "{\"resource\":" : ",{\"resource\":");
		first = false;
		jv_encode_string(b, name);
		buf_puts(b, ",\"responseKind\":");
		response_kind(b, group, version, jv_str(jv_get(r, STR("kind"))));
		v = jv_get(r, STR("namespaced"));
		buf_printf(b, ",\"scope\":\"%s\",\"singularResource\":", jv_is(v, JV_BOOL) && v->b ? "Namespaced" : "Cluster");
		jv_encode_string(b, jv_str(jv_get(r, STR("singularName"))));
		for (size_t k = 0; k < 3; k++) {
			v = jv_get(r, str_from(copied[k]));
			if (!v)
				continue;
			buf_printf(b, ",\"%s\":", copied[k]);
			jv_encode(b, v);
		}
		buf_putc(b, '}');
	}
	return first;
}

static void aggregated_version(struct request *rq, struct buf *b, struct str group, struct str version)
{
	struct resource *r;
	bool first = true;

	buf_puts(b, "{\"version\":");
	jv_encode_string(b, version);
	buf_puts(b, ",\"resources\":[");
	for (size_t i = 0; (r = resource_at(rq->s, i)) != NULL; i++) {
		const struct api_resource *a = r->api;

		if (!str_eq(a->group, group) || !str_eq(a->version, version))
			continue;
		if (!first)
			buf_putc(b, ',');
		first = false;
		buf_puts(b, "{\"resource\":");
		jv_encode_string(b, a->plural);
		buf_puts(b, ",\"responseKind\":");
		/* of the resource itself, upstream leaves group and version empty */
		response_kind(b, r->crd ? group : STR(""), r->crd ? version : STR(""), a->kind);
		buf_printf(b, ",\"scope\":\"%s\",\"singularResource\":", a->namespaced ? "Namespaced" : "Cluster");
		jv_encode_string(b, a->singular);
		buf_puts(b, ",\"verbs\":");
		json_verbs(b, a->verbs, r->crd);
		if (a->n_short_names) {
			buf_puts(b, ",\"shortNames\":");
			json_strings(b, a->short_names, a->n_short_names);
		}
		if (a->n_categories) {
			buf_puts(b, ",\"categories\":");
			json_strings(b, a->categories, a->n_categories);
		}
		if (a->n_subresources) {
			buf_puts(b, ",\"subresources\":[");
			for (uint8_t k = 0; k < a->n_subresources; k++) {
				const struct api_subresource *sub = &a->subresources[k];

				buf_printf(b, "%s{\"subresource\":", k ? "," : "");
				jv_encode_string(b, sub->name);
				buf_puts(b, ",\"responseKind\":");
				response_kind(b, r->crd && !sub->group.n ? group : sub->group, r->crd && !sub->version.n ? version : sub->version,
					      sub->kind);
				buf_puts(b, ",\"verbs\":");
				json_verbs(b, sub->verbs, false);
				buf_putc(b, '}');
			}
			buf_putc(b, ']');
		}
		buf_putc(b, '}');
	}
	if (first)
		first = remote_resources(rq, b, group, version);
	buf_puts(b, "],\"freshness\":\"Current\"}");
}

static struct error *aggregated(struct request *rq, bool legacy)
{
	struct buf b buf_cleanup = {0};
	struct groups g;
	struct str last = STR_NULL;
	bool open = false;
	unsigned char sum[32];
	char etag[67];

	collect(rq, &g);
	buf_printf(&b, "{\"kind\":\"APIGroupDiscoveryList\",\"apiVersion\":\"apidiscovery.k8s.io/%.*s\",\"metadata\":{},\"items\":[",
		   STR_ARG(rq->out.discovery));
	for (uint32_t i = 0; i < g.list.n; i++) {
		struct group_version *gv = &g.list.v[i];

		if ((gv->group.n == 0) != legacy)
			continue;
		if (!open || !str_eq(gv->group, last)) {
			if (open)
				buf_puts(&b, "]},");
			buf_puts(&b, "{\"metadata\":{");
			if (gv->group.n) {
				buf_puts(&b, "\"name\":");
				jv_encode_string(&b, gv->group);
			}
			buf_puts(&b, "},\"versions\":[");
			open = true;
			last = gv->group;
		} else {
			buf_putc(&b, ',');
		}
		aggregated_version(rq, &b, gv->group, gv->version);
	}
	buf_puts(&b, open ? "]}]}" : "]}");
	SHA256((unsigned char *)b.p, b.n, sum);
	etag[0] = '"';
	for (int i = 0; i < 32; i++)
		snprintf(etag + 1 + 2 * i, 3, "%02X", sum[i]);
	etag[65] = '"';
	etag[66] = 0;
	http_set_header(rq->x, "etag", str_from(etag));
	http_set_header(rq->x, "vary", STR("Accept"));
	rq->cache_control = STR("public");
	if (etag_matches(rq, str_from(etag))) {
		rq->status = 304;
		respond_headers(rq);
		return http_respond(rq->x, 304, STR_NULL);
	}
	if (rq->out.media == MEDIA_JSON) {
		buf_putc(&b, '\n');
		struct iovec iov = {b.p, b.n};

		return respond_iov(rq, 200,
				   arena_printf(rq->a, "application/json;g=apidiscovery.k8s.io;v=%.*s;as=APIGroupDiscoveryList",
						STR_ARG(rq->out.discovery)), &iov, 1);
	}
	return respond_json(rq, 200, buf_view(&b));
}

void discovery_paths(struct request *rq, void (*add)(void *ctx, struct str path), void *ctx)
{
	struct groups g;
	struct str last = STR_NULL;

	collect(rq, &g);
	for (uint32_t i = 0; i < g.list.n; i++) {
		if (!g.list.v[i].group.n)
			continue;
		if (!str_eq(g.list.v[i].group, last))
			add(ctx, arena_printf(rq->a, "/apis/%.*s", STR_ARG(g.list.v[i].group)));
		last = g.list.v[i].group;
		add(ctx, arena_printf(rq->a, "/apis/%.*s/%.*s", STR_ARG(last), STR_ARG(g.list.v[i].version)));
	}
}

struct error *discovery_versions(struct request *rq)
{
	struct buf b buf_cleanup = {0};

	if (rq->out.discovery.n)
		return aggregated(rq, true);
	buf_printf(&b,
		   "{\"kind\":\"APIVersions\",\"versions\":[\"v1\"],\"serverAddressByClientCIDRs\":[{\"clientCIDR\":"
		   "\"0.0.0.0/0\","
		   "\"serverAddress\":\"%s:%d\"}]}",
		   rq->s->o.advertise_address, rq->s->port);
	return respond_plain(rq, &meta_v1_api_versions_type, STR(""), STR("APIVersions"), buf_view(&b));
}

struct error *discovery_groups(struct request *rq)
{
	struct buf b buf_cleanup = {0};
	struct groups g;
	struct str last = STR_NULL;
	bool first = true;

	if (rq->out.discovery.n)
		return aggregated(rq, false);
	collect(rq, &g);
	buf_puts(&b, "{\"kind\":\"APIGroupList\",\"apiVersion\":\"v1\",\"groups\":[");
	for (uint32_t i = 0; i < g.list.n; i++) {
		if (!g.list.v[i].group.n || str_eq(g.list.v[i].group, last))
			continue;
		last = g.list.v[i].group;
		if (!first)
			buf_putc(&b, ',');
		first = false;
		group_json(&b, &g, last, false);
	}
	buf_puts(&b, "]}");
	return respond_plain(rq, &meta_v1_api_group_list_type, STR("v1"), STR("APIGroupList"), buf_view(&b));
}

struct error *discovery_group(struct request *rq, struct str group)
{
	struct buf b buf_cleanup = {0};
	struct groups g;
	bool any = false;

	collect(rq, &g);
	for (uint32_t i = 0; i < g.list.n; i++)
		any |= str_eq(g.list.v[i].group, group);
	if (!any || !group.n)
		return respond_unknown(rq);
	group_json(&b, &g, group, true);
	return respond_plain(rq, &meta_v1_api_group_type, STR("v1"), STR("APIGroup"), buf_view(&b));
}
