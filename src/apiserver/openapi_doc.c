/* /openapi/v2 and /openapi/v3: documents made once from the tables, kept until what is served changes. */
#include <openssl/sha.h>
#include "apiserver/custom.h"
#include "apiserver/discovery.h"
#include "apiserver/extend.h"
#include "schema/jv.h"
#include "schema/openapi.h"

struct doc {
	struct block *json, *proto;
	char hash[129];
	int64_t made_ns; /* wall clock */
	uint64_t epoch;
	uint64_t specs; /* of what remote servers told, where it is made of that */
};

struct discovery {
	struct map docs; /* path -> struct doc, of what is served */
	uint64_t epoch, specs;
};

static struct discovery *state(struct apiserver *s)
{
	if (!s->discovery)
		s->discovery = xcalloc(1, sizeof *s->discovery);
	return s->discovery;
}

static void hash(struct str s, char out[129])
{
	unsigned char sum[64];

	SHA512((const unsigned char *)s.p, s.n, sum);
	for (int i = 0; i < 64; i++)
		snprintf(out + 2 * i, 3, "%02X", sum[i]);
}

static struct openapi_served served_of(struct request *rq, struct str group, struct str version, bool all)
{
	LIST(struct openapi_crd) list = {0};
	struct resource *r;

	for (size_t i = 0; (r = crd_resource_at(rq->s, i)) != NULL; i++) {
		struct openapi_crd *c;

		if (!all && (!str_eq(r->api->group, group) || !str_eq(r->api->version, version)))
			continue;
		if (resource_find(rq->s, r->api->group, r->api->version, r->api->plural))
			continue; /* a definition of what is here: a path is one */
		c = arena_push(rq->a, &list);
		c->group = r->api->group;
		c->version = r->api->version;
		c->plural = r->api->plural;
		c->singular = r->api->singular;
		c->kind = r->api->kind;
		c->list_kind = r->api->list_kind;
		c->namespaced = r->api->namespaced;
		c->has_status = custom_has_status(r);
		c->has_scale = custom_scale(r) != NULL;
		c->schema = crd_schema_bytes(r);
		c->selectable = crd_version(r)->selectable_fields.v;
		c->n_selectable = crd_version(r)->selectable_fields.n;
		c->preserve_unknown = crd_object(r)->spec.preserve_unknown_fields;
	}
	return (struct openapi_served){rq->s->served, rq->s->n_resources, list.v, list.n};
}

static void doc_free(struct doc *doc)
{
	block_unref(doc->json);
	block_unref(doc->proto);
	free(doc);
}

/* Documents of what is served no more, and of what remote servers told before, go when that has changed. */
static void forget_old(struct discovery *d, uint64_t epoch, uint64_t specs)
{
	size_t it = 0;
	struct str path;
	void *v;

	if (d->epoch == epoch && d->specs == specs)
		return;
	d->epoch = epoch;
	d->specs = specs;
	while (map_next(&d->docs, &it, &path, &v)) {
		struct doc *doc = v;

		if (doc->epoch == epoch && (!doc->specs || doc->specs == specs))
			continue;
		map_del(&d->docs, path);
		doc_free(doc);
	}
}

/* The document of a remote server that has it in version 2 alone. */
static bool converted_json(struct request *rq, struct str path, struct buf *b)
{
	struct str at, json;

	for (size_t i = 0; aggregator_converted_at(rq->s, i, rq->a, &at, &json); i++)
		if (str_eq(at, path)) {
			buf_str(b, json);
			return true;
		}
	return false;
}

/* The JSON of a path appended; false: there is no such document. *specs: it is made of what remote servers told. */
static bool make_json(struct request *rq, struct str path, struct buf *b, bool *specs)
{
	struct openapi_served s;

	*specs = str_eqz(path, "v2");
	if (*specs) {
		struct error *e;

		s = served_of(rq, STR_NULL, STR_NULL, true);
		openapi_v2(b, &s);
		e = aggregator_merge_v2(rq->s, b);
		log_and_free(e, "OpenAPI of aggregated servers");
		return true;
	}
	if (str_has_prefix(path, STR("api/")) || (str_has_prefix(path, STR("apis/")) && str_index(str_sub(path, 5, path.n), '/') > 0)) {
		struct str rest = str_sub(path, path.p[3] == '/' ? 4 : 5, path.n), group = STR("");

		if (path.p[3] != '/')
			group = str_cut(&rest, '/');
		s = served_of(rq, group, rest, false);
		if (openapi_v3(b, group, rest, &s))
			return true;
		*specs = true;
		return converted_json(rq, path, b);
	}
	s = (struct openapi_served){rq->s->served, rq->s->n_resources};
	return openapi_v3_discovery(b, path, &s);
}

/* Good until the next wait; NULL: none. */
static struct doc *doc_for(struct request *rq, struct str path)
{
	struct discovery *d = state(rq->s);
	struct buf b buf_cleanup = {0};
	struct doc *doc;
	bool specs;

	crds_sync(rq->s);
	forget_old(d, rq->s->resources_epoch, aggregator_specs_epoch(rq->s));
	doc = map_get(&d->docs, path);
	if (doc)
		return doc;
	if (!make_json(rq, path, &b, &specs))
		return NULL;
	doc = xcalloc(1, sizeof *doc);
	doc->epoch = d->epoch;
	doc->specs = specs ? d->specs : 0;
	doc->made_ns = wall_ns();
	hash(buf_view(&b), doc->hash);
	doc->json = block_new(buf_view(&b));
	map_set(&d->docs, path, doc);
	return doc;
}

struct listed {
	struct str path, url; /* url: of a remote server's */
};

static int by_path(const void *a, const void *b)
{
	return str_cmp(((const struct listed *)a)->path, ((const struct listed *)b)->path);
}

struct listing {
	struct map seen;
	LIST(struct listed) paths;
};

/* The first who has a path is the one that counts. */
static void list_path(struct arena *a, struct listing *l, struct str path, struct str url)
{
	struct listed *p;

	if (map_has(&l->seen, path))
		return;
	p = arena_push(a, &l->paths);
	p->path = arena_str(a, path);
	p->url = arena_str(a, url);
	map_set(&l->seen, path, l);
}

static struct error *index_v3(struct request *rq)
{
	struct buf b buf_cleanup = {0};
	static const char *const fixed[] = {"api", "apis", "version", ".well-known/openid-configuration", "openid/v1/jwks"};
	struct listing list = {0};
	struct resource *r;
	struct str path, url;
	bool first = true;

	for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
		list_path(rq->a, &list, str_from(fixed[i]), STR_NULL);
	for (size_t i = 0;; i++) {
		r = i < rq->s->n_resources ? rq->s->resources[i] : crd_resource_at(rq->s, i - rq->s->n_resources);
		if (!r)
			break;
		if (!r->api->group.n) {
			list_path(rq->a, &list, arena_printf(rq->a, "api/%.*s", STR_ARG(r->api->version)), STR_NULL);
			continue;
		}
		list_path(rq->a, &list, arena_printf(rq->a, "apis/%.*s", STR_ARG(r->api->group)), STR_NULL);
		list_path(rq->a, &list, arena_printf(rq->a, "apis/%.*s/%.*s", STR_ARG(r->api->group), STR_ARG(r->api->version)), STR_NULL);
	}
	for (size_t i = 0; aggregator_converted_at(rq->s, i, rq->a, &path, &url); i++)
		list_path(rq->a, &list, path, STR_NULL);
	/* What this server has itself goes before what a remote one says of the same. */
	for (size_t i = 0; aggregator_document_at(rq->s, i, &path, &url); i++)
		list_path(rq->a, &list, path, url);
	map_free(&list.seen);
	qsort(list.paths.v, list.paths.n, sizeof *list.paths.v, by_path);
	buf_puts(&b, "{\"paths\":{");
	for (uint32_t i = 0; i < list.paths.n; i++) {
		struct listed *l = &list.paths.v[i];
		struct doc *d = l->url.n ? NULL : doc_for(rq, l->path);

		if (!d && !l->url.n)
			continue;
		if (d)
			l->url = arena_printf(rq->a, "/openapi/v3/%.*s?hash=%s", STR_ARG(l->path), d->hash);
		if (!first)
			buf_putc(&b, ',');
		jv_encode_string(&b, l->path);
		buf_puts(&b, ":{\"serverRelativeURL\":");
		jv_encode_string(&b, l->url);
		buf_putc(&b, '}');
		first = false;
		fiber_yield();
	}
	buf_puts(&b, "}}");
	/* JSON, though upstream forgets to say so; made for each request */
	return respond_content(rq, &(struct content){.type = STR("text/plain; charset=utf-8"),
						     .modified_ns = wall_ns(),
						     .body = buf_view(&b)});
}

/* What a document can be had as; upstream's two spellings of the protobuf type are answered with the second. */
#define PROTO_TYPE "application/com.github.proto-openapi.spec.v%d%cv1.0+protobuf"
enum form { FORM_NONE, FORM_UNSAID, FORM_JSON, FORM_PROTO }; /* UNSAID: an Accept of which nothing can be read */

static enum form choose_form(struct request *rq, int version)
{
	struct accept_clause *v;
	struct str accept = http_header_get(&rq->x->headers, "accept");
	struct str one = arena_printf(rq->a, PROTO_TYPE, version, '@'), two = arena_printf(rq->a, PROTO_TYPE, version, '.');
	size_t n;

	if (!str_trim(accept).n)
		return FORM_JSON;
	n = accept_parse(rq->a, accept, &v);
	for (size_t i = 0; i < n; i++) {
		if ((str_eqz(v[i].main, "application") || str_eqz(v[i].main, "*")) &&
		    (str_eqz(v[i].sub, "json") || str_eqz(v[i].sub, "*")))
			return FORM_JSON;
		if (str_eq(v[i].type, one) || str_eq(v[i].type, two))
			return FORM_PROTO;
	}
	return n ? FORM_NONE : FORM_UNSAID;
}

static struct error *no_body(struct request *rq, int status)
{
	rq->status = status;
	respond_headers(rq);
	return http_respond(rq->x, status, STR_NULL);
}

/*
 * Documents are one and the same in both forms: the tag is that of the JSON, as upstream's. Only the second version is
 * compressed. The document may be made anew while the client takes this one.
 */
static struct error *respond_doc(struct request *rq, struct doc *d, int version, enum form form)
{
	struct content c = {.type = STR("application/json"),
			    .etag = arena_printf(rq->a, "\"%s\"", d->hash),
			    .modified_ns = d->made_ns};
	struct block *b = d->json;
	struct error *e;

	if (form == FORM_PROTO && !d->proto) {
		struct buf p buf_cleanup = {0};

		TRY(version == 2 ? openapi_v2_to_proto(block_str(d->json), &p)
				 : openapi_v3_to_proto(block_str(d->json), &p));
		d->proto = block_new(buf_view(&p));
	}
	if (form == FORM_PROTO) {
		c.type = arena_printf(rq->a, PROTO_TYPE, version, '.');
		b = d->proto;
	}
	c.body = block_str(b);
	c.compressed = version == 2;
	block_ref(b);
	e = respond_content(rq, &c);
	block_unref(b);
	return e;
}

static struct error *serve_v2(struct request *rq)
{
	enum form form = choose_form(rq, 2);

	http_set_header(rq->x, "vary", STR("Accept-Encoding"));
	http_add_header(rq->x, "vary", STR("Accept"));
	if (form == FORM_NONE || form == FORM_UNSAID)
		return no_body(rq, 406);
	return respond_doc(rq, doc_for(rq, STR("v2")), 2, form);
}

/* "?hash=" names the version of the document that the client means: the right one may be kept for ever, from others it is sent there. */
static struct error *serve_v3(struct request *rq, struct str path)
{
	struct doc *d = doc_for(rq, path);
	enum form form = choose_form(rq, 3);
	struct str want = query_get(&rq->q, "hash");
	bool handled;

	if (!d) {
		TRY(aggregate_document(rq, path, &handled));
		return handled ? NULL : no_body(rq, 404);
	}
	if (form == FORM_UNSAID)
		return no_body(rq, 200); /* upstream says nothing then */
	http_set_header(rq->x, "vary", STR("Accept"));
	if (form == FORM_NONE)
		return no_body(rq, 406);
	if (want.n && !str_eqz(want, d->hash)) {
		http_set_header(rq->x, "etag", arena_printf(rq->a, "\"%s\"", d->hash));
		http_set_header(rq->x, "location", arena_printf(rq->a, "/openapi/v3/%.*s?hash=%s", STR_ARG(path), d->hash));
		http_set_header(rq->x, "content-type", STR("application/json"));
		return no_body(rq, 301);
	}
	if (want.n) {
		rq->cache_control = STR("public, immutable");
		http_set_header(rq->x, "expires", http_date_at(rq->a, wall_ns() + (int64_t)365 * 86400 * 1000000000));
	}
	return respond_doc(rq, d, 3, form);
}

struct error *serve_openapi(struct request *rq)
{
	struct str p = rq->info.path;

	if (str_eqz(p, "/openapi/v2"))
		return serve_v2(rq);
	if (str_eqz(p, "/openapi/v3"))
		return index_v3(rq);
	if (str_has_prefix(p, STR("/openapi/v3/")))
		return serve_v3(rq, str_sub(p, 12, p.n));
	return respond_unknown(rq);
}
