/* Discovery documents: plain ones and the aggregated one. */
#include <openssl/sha.h>
#include "apiserver/custom.h"
#include "apiserver/discovery.h"
#include "apiserver/extend.h"
#include "apiserver/metrics.h"
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
	uint32_t group_rank; /* by which groups are ordered */
	bool remote;
	struct str resources; /* remote: aggregated discovery's */
	bool stale;
};
struct groups {
	LIST(struct group_version) list; /* a group's versions stand together, preferred first */
};

static struct group_version *find_gv(struct groups *g, struct str group, struct str version)
{
	for (uint32_t i = 0; i < g->list.n; i++)
		if (str_eq(g->list.v[i].group, group) && str_eq(g->list.v[i].version, version))
			return &g->list.v[i];
	return NULL;
}

/* What this server has itself. */
static void add_local(struct arena *a, struct groups *g, const struct api_resource *r)
{
	struct group_version *gv;

	if (find_gv(g, r->group, r->version))
		return;
	gv = arena_push(a, &g->list);
	gv->group = r->group;
	gv->version = r->version;
	local_priority(r->group, r->version, &gv->group_priority, &gv->version_priority);
}

static bool aggregators_own(struct str group)
{
	return str_eqz(group, "apiregistration.k8s.io");
}

/* Groups by rank, versions by priority and then by what their names say. */
static int gv_cmp(const void *x, const void *y)
{
	const struct group_version *a = x, *b = y;

	if (a->group_rank != b->group_rank)
		return a->group_rank < b->group_rank ? -1 : 1;
	if (a->version_priority != b->version_priority)
		return a->version_priority > b->version_priority ? -1 : 1;
	return kube_version_cmp(a->version, b->version);
}

static int by_group_priority(const void *x, const void *y)
{
	const struct group_version *a = x, *b = y;
	bool own_a = aggregators_own(a->group), own_b = aggregators_own(b->group);

	if (own_a != own_b)
		return own_a ? -1 : 1;
	if (a->group_priority != b->group_priority)
		return a->group_priority > b->group_priority ? -1 : 1;
	return str_cmp(a->group, b->group);
}

/* The first of a group in the list says where the group stands. */
static void rank(struct groups *g)
{
	for (uint32_t i = 0; i < g->list.n; i++) {
		uint32_t k = 0;

		while (!str_eq(g->list.v[k].group, g->list.v[i].group))
			k++;
		g->list.v[i].group_rank = k;
	}
	qsort(g->list.v, g->list.n, sizeof *g->list.v, gv_cmp);
}

static void own_resources(struct request *rq, struct groups *g, bool built_in)
{
	struct resource *r;

	for (size_t i = 0; built_in && i < rq->s->n_resources; i++)
		add_local(rq->a, g, rq->s->resources[i]->api);
	for (size_t i = 0; (r = crd_resource_at(rq->s, i)) != NULL; i++)
		add_local(rq->a, g, r->api);
}

/*
 * Of aggregated discovery: what this server has and what remote ones have, which go before it where both have a
 * version. A group has the highest of its versions' priorities.
 */
static void collect(struct request *rq, struct groups *g)
{
	struct api_service_info v;

	memset(g, 0, sizeof *g);
	own_resources(rq, g, true);
	for (size_t i = 0; aggregator_at(rq->s, i, &v); i++) {
		struct group_version *gv = v.remote ? find_gv(g, v.group, v.version) : NULL;

		if (!v.remote)
			continue;
		if (!gv)
			gv = arena_push(rq->a, &g->list);
		*gv = (struct group_version){.group = arena_str(rq->a, v.group),
					     .version = arena_str(rq->a, v.version),
					     .group_priority = v.group_priority,
					     .version_priority = v.version_priority,
					     .remote = true,
					     .resources = v.resources,
					     .stale = v.stale};
	}
	for (uint32_t i = 0; i < g->list.n; i++)
		for (uint32_t k = 0; k < g->list.n; k++)
			if (str_eq(g->list.v[i].group, g->list.v[k].group) && g->list.v[k].group_priority > g->list.v[i].group_priority)
				g->list.v[i].group_priority = g->list.v[k].group_priority;
	qsort(g->list.v, g->list.n, sizeof *g->list.v, by_group_priority);
	rank(g);
}

/*
 * Of plain discovery: the APIServices, whoever has what they name and whether it is there or not, behind the
 * aggregator's own group. What a CustomResourceDefinition has just added has its APIService soon, and stands where that
 * will.
 */
static void collect_services(struct request *rq, struct groups *g)
{
	struct api_service_info v;
	struct groups custom = {0};
	uint32_t k = 0;
	bool more;

	memset(g, 0, sizeof *g);
	own_resources(rq, &custom, false);
	for (uint32_t i = 0; i < rq->s->n_resources; i++)
		if (aggregators_own(rq->s->resources[i]->api->group))
			add_local(rq->a, g, rq->s->resources[i]->api);
	for (size_t i = 0; (more = aggregator_at(rq->s, i, &v)) || k < custom.list.n;) {
		struct group_version gv;

		if (k < custom.list.n && (!more || v.group_priority < custom.list.v[k].group_priority)) {
			gv = custom.list.v[k++];
		} else {
			gv = (struct group_version){.group = arena_str(rq->a, v.group),
						    .version = arena_str(rq->a, v.version),
						    .group_priority = v.group_priority,
						    .version_priority = v.version_priority};
			i++;
		}
		if (gv.group.n && !find_gv(g, gv.group, gv.version))
			*arena_push(rq->a, &g->list) = gv;
	}
	rank(g);
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
	bool first = true, any = false, built_in = built_in_group(rq->s, group);

	buf_puts(&b, "{\"kind\":\"APIResourceList\"");
	if (group.n)
		buf_puts(&b, ",\"apiVersion\":\"v1\"");
	buf_printf(&b, ",\"groupVersion\":\"%.*s%s%.*s\",\"resources\":[", STR_ARG(group), group.n ? "/" : "", STR_ARG(version));
	for (size_t i = 0; (r = resource_at(rq->s, i)) != NULL; i++) {
		const struct api_resource *a = r->api;
		char hash[16] = "";

		if (!str_eq(a->group, group) || !str_eq(a->version, version) || (r->crd && built_in))
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
	if (!any && built_in)
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

static void aggregated_version(struct request *rq, struct buf *b, const struct group_version *gv)
{
	struct str group = gv->group, version = gv->version;
	struct resource *r;
	bool first = true, built_in = false;

	buf_puts(b, "{\"version\":");
	jv_encode_string(b, version);
	if (gv->remote) {
		if (gv->resources.n)
			buf_printf(b, ",\"resources\":%.*s", STR_ARG(gv->resources));
		buf_printf(b, ",\"freshness\":\"%s\"}", gv->stale ? "Stale" : "Current");
		return;
	}
	buf_puts(b, ",\"resources\":[");
	for (size_t i = 0; (r = resource_at(rq->s, i)) != NULL; i++) {
		const struct api_resource *a = r->api;

		if (!str_eq(a->group, group) || !str_eq(a->version, version) || (r->crd && built_in))
			continue;
		built_in = !r->crd; /* those come first, and have the version alone */
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
	buf_puts(b, "],\"freshness\":\"Current\"}");
}

static struct error *aggregated(struct request *rq, bool legacy)
{
	struct buf b buf_cleanup = {0};
	struct groups g;
	struct str last = STR_NULL;
	bool open = false;
	unsigned char sum[SHA512_DIGEST_LENGTH];
	char etag[2 * sizeof sum + 3];
	size_t body;

	metrics_count(METRIC_DISCOVERY_AGGREGATED, "", 1);
	if (rq->out.discovery_nopeer)
		metrics_count(METRIC_DISCOVERY_NOPEER, "", 1);
	collect(rq, &g);
	buf_printf(&b, "{\"kind\":\"APIGroupDiscoveryList\",\"apiVersion\":\"apidiscovery.k8s.io/%.*s\",", STR_ARG(rq->out.discovery));
	body = b.n;
	buf_puts(&b, "\"metadata\":{},\"items\":[");
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
		aggregated_version(rq, &b, gv);
	}
	buf_puts(&b, open ? "]}]}" : "]}");
	b.p[body - 1] = '{'; /* without kind and version, as upstream's servers: the same document has the same one there */
	SHA512((unsigned char *)b.p + body - 1, b.n - body + 1, sum);
	b.p[body - 1] = ',';
	etag[0] = '"';
	for (size_t i = 0; i < sizeof sum; i++)
		snprintf(etag + 1 + 2 * i, 3, "%02X", sum[i]);
	memcpy(etag + sizeof etag - 2, "\"", 2);
	http_set_header(rq->x, "etag", str_from(etag));
	http_set_header(rq->x, "vary", STR("Accept"));
	rq->cache_control = STR("public");
	if (etag_matches(rq, str_from(etag))) {
		rq->status = 304;
		respond_headers(rq);
		return http_respond(rq->x, 304, STR_NULL);
	}
	if (rq->out.media == MEDIA_JSON) {
		struct buf indented buf_cleanup = {0};

		if (rq->out.pretty)
			pretty_json(&indented, buf_view(&b));
		else
			buf_putc(&b, '\n');
		struct iovec iov = rq->out.pretty ? (struct iovec){indented.p, indented.n} : (struct iovec){b.p, b.n};

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

	collect_services(rq, &g);
	own_resources(rq, &g, true);
	rank(&g);
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
	collect_services(rq, &g);
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

/* The groups among which it is, if there is one. */
static bool groups_with(struct request *rq, struct str group, struct groups *g)
{
	bool any = false;

	collect_services(rq, g);
	for (uint32_t i = 0; i < g->list.n; i++)
		any |= str_eq(g->list.v[i].group, group);
	if (!any) /* its APIServices are gone: what this server has answers for itself */
		collect(rq, g);
	for (uint32_t i = 0; i < g->list.n; i++)
		any |= str_eq(g->list.v[i].group, group);
	return any && group.n;
}

bool discovery_has_group(struct request *rq, struct str group)
{
	struct groups g;

	return groups_with(rq, group, &g);
}

struct error *discovery_group(struct request *rq, struct str group)
{
	struct buf b buf_cleanup = {0};
	struct groups g;

	if (!groups_with(rq, group, &g))
		return respond_unknown(rq);
	group_json(&b, &g, group, true);
	return respond_plain(rq, &meta_v1_api_group_type, STR("v1"), STR("APIGroup"), buf_view(&b));
}
