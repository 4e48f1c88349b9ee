/* get, list and watch: bytes of the watch cache, written out; other formats made from them. */
#include "apiserver/audit.h"
#include "apiserver/jwt.h"
#include "apiserver/custom.h"
#include "apiserver/server.h"
#include "apiserver/watch_socket.h"
#include "base/log.h"
#include "net/websocket.h"
#include "schema/table.h"

/* ---- rows and conversions shared by the verbs ---- */

/* A cached object in the request's version, kind and apiVersion set; strings point into the entry. */
static struct error *decode_as(struct arena *a, struct resource *res, const struct cache_entry *e, void **out)
{
	struct storage *st = res->st;
	void *o = arena_alloc(a, st->type->size);

	TRY(cache_entry_decode(a, st->type, e, false, o));
	if (res->from_storage) {
		void *v = arena_alloc(a, res->api->type->size);

		res->from_storage(a, o, v);
		o = v;
	}
	if (res->crd)
		TRY(custom_read(a, res, &o));
	((struct str *)o)[0] = res->api->kind;
	((struct str *)o)[1] = res->api_version;
	*out = o;
	return NULL;
}

static enum table_object include_object(const struct request *rq)
{
	struct str v = query_get(&rq->q, "includeObject");

	return str_eqz(v, "None") ? TABLE_OBJECT_NONE : str_eqz(v, "Object") ? TABLE_OBJECT_FULL : TABLE_OBJECT_METADATA;
}

void table_for(struct request *rq, struct resource *res, struct table_options *o)
{
	(void)rq;
	if (res->crd)
		custom_columns(res, o);
}

void table_append(struct request *rq, struct buf *b, struct resource *res, const struct table_options *o, const void *obj, bool first)
{
	struct arena tmp arena_cleanup = {0};

	if (res->crd) {
		struct jv v;

		jv_from_object(&tmp, res->api->type, obj, &v);
		table_row_tree(b, &tmp, o, &v, first);
	} else {
		table_row(b, &tmp, res->api, o, obj, first);
	}
	(void)rq;
}

static void partial_of(struct request *rq, struct resource *res, void *obj, struct meta_v1_partial_object_metadata *p)
{
	memset(p, 0, sizeof *p);
	p->kind = STR("PartialObjectMetadata");
	p->api_version = rq->out.table_v1beta1 ? STR("meta.k8s.io/v1beta1") : STR("meta.k8s.io/v1");
	p->metadata = *object_meta(res->api->type, obj);
}

/* ---- get ---- */

static struct error *rv_param(struct request *rq, enum cache_mode *mode, int64_t *rev)
{
	struct str rv = query_get(&rq->q, "resourceVersion");
	bool bad;

	*rev = 0;
	if (!rv.n) {
		*mode = CACHE_CONSISTENT;
		return NULL;
	}
	bad = !str_to_i64(rv, rev) || *rev < 0;
	if (bad && !str_eqz(rq->info.verb, "list"))
		return error_status(500, "", "invalid resourceVersion \"%.*s\"", STR_ARG(rv)); /* only lists check it before the store does */
	if (bad)
		return error_status(400, "BadRequest", "resourceVersion: Invalid value: \"%.*s\": strconv.ParseUint: parsing \"%.*s\": invalid syntax",
				    STR_ARG(rv), STR_ARG(rv));
	*mode = *rev == 0 ? CACHE_ANY : CACHE_AT_LEAST;
	return NULL;
}

struct error *rest_get(struct request *rq)
{
	struct resource *res = rq->res;
	struct cache_entry *e;
	enum cache_mode mode;
	int64_t rev;
	struct error *err;
	bool done;
	void *obj;

	TRY(rv_param(rq, &mode, &rev));
	TRY(cache_get(res->st->cache, res->st->namespaced ? rq->info.ns : STR_NULL, rq->info.name, mode, rev, &e));
	if (!e)
		return err_not_found(res->api->group, res->api->plural, rq->info.name);
	err = respond_entry(rq, 200, res, e, &done);
	if (err || done) {
		cache_entry_unref(e);
		return err;
	}
	obj = arena_alloc(rq->a, res->st->type->size);
	err = cache_entry_decode(rq->a, res->st->type, e, true, obj);
	if (!err && res->crd)
		err = custom_read(rq->a, res, &obj);
	cache_entry_unref(e);
	return err ? err : respond_object(rq, 200, res, obj);
}

/* ---- list ---- */

struct list_opts {
	enum cache_mode mode;
	int64_t rev, limit;
	struct str after;         /* key to continue behind */
	bool inconsistent;        /* a continue token without a revision */
	bool has_selector;
	struct cache_filter filter;
	const struct selector *post;
};

static struct error *invalid_list_options(struct field_errors *fe)
{
	return field_errors_status(fe, STR("meta.k8s.io"), STR("ListOptions"), STR(""));
}

struct error *request_selectors(struct request *rq, struct cache_filter *f, const struct selector **post)
{
	struct str ls = query_get(&rq->q, "labelSelector"), fs = query_get(&rq->q, "fieldSelector");

	memset(f, 0, sizeof *f);
	*post = NULL;
	if (ls.n) {
		struct error *e = label_selector_parse(rq->a, ls, &f->labels);

		if (e)
			return e->status ? e : error_wrap(e, "unable to parse requirement");
	}
	if (!fs.n && rq->info.name.n && str_eqz(rq->info.verb, "watch"))
		fs = arena_printf(rq->a, "metadata.name=%.*s", STR_ARG(rq->info.name)); /* /watch/.../NAME */
	if (fs.n) {
		TRY(field_selector_parse(rq->a, fs, &f->fields));
		if (rq->res->field_names)
			TRY(field_selector_rename(rq->a, f->fields, rq->res->field_names, rq->res->n_field_names, &f->fields));
		if (rq->res->crd)
			TRY(custom_selector(rq, f, post));
		else
			TRY(cache_check_fields(rq->res->st->cache, f->fields));
	}
	return NULL;
}

/* Continue tokens are upstream's: base64url of {"v":"meta.k8s.io/v1","rv":REV,"start":"KEY\0"}. */
static struct str continue_encode(struct arena *a, int64_t rev, struct str key)
{
	struct buf json buf_cleanup = {0}, out buf_cleanup = {0};

	buf_printf(&json, "{\"v\":\"meta.k8s.io/v1\",\"rv\":%lld,\"start\":", (long long)rev);
	jv_encode_string(&json, key);
	json.n--; /* the quote: the key's end is a NUL, as upstream writes it */
	buf_puts(&json, "\\u0000\"}");
	base64url_encode(&out, buf_view(&json));
	return arena_str(a, buf_view(&out));
}

static struct error *continue_decode(struct arena *a, struct str token, int64_t *rev, struct str *after)
{
	struct str json, start;
	struct jv v;
	const struct jv *rv;
	struct error *e;

	if (!base64url_decode(a, token, &json))
		return err_bad_request("invalid continue token: illegal base64 data");
	e = jv_parse(a, json, NULL, &v);
	if (e) {
		error_free(e);
		return err_bad_request("continue key is not valid: invalid token");
	}
	if (!str_eqz(jv_str(jv_get(&v, STR("v"))), "meta.k8s.io/v1"))
		return err_bad_request("continue key is not valid: server does not recognize this encoded version");
	rv = jv_get(&v, STR("rv"));
	start = jv_str(jv_get(&v, STR("start")));
	if (!jv_is(rv, JV_INT) || rv->i == 0)
		return err_bad_request("continue key is not valid: incorrect encoded start resourceVersion");
	if (!start.n || str_contains(start, STR("..")))
		return err_bad_request("continue key is not valid: start key is invalid");
	if (start.p[start.n - 1] == '\0')
		start.n--;
	*rev = rv->i;
	*after = start;
	return NULL;
}

static struct error *list_options(struct request *rq, struct list_opts *o)
{
	struct str rv = query_get(&rq->q, "resourceVersion"), match = query_get(&rq->q, "resourceVersionMatch"),
		   cont = query_get(&rq->q, "continue");
	struct field_errors fe = {.arena = rq->a};
	struct error *e;
	static const struct str matches[] = {STR_INIT("Exact"), STR_INIT("NotOlderThan"), STR_INIT("")};

	memset(o, 0, sizeof *o);
	query_int(&rq->q, "limit", &o->limit, &e);
	TRY(e);
	if (match.n) {
		if (!rv.n)
			field_forbidden(&fe, FIELD_ROOT("resourceVersionMatch"), "resourceVersionMatch is forbidden unless resourceVersion is "
					"provided");
		if (cont.n)
			field_forbidden(&fe, FIELD_ROOT("resourceVersionMatch"), "resourceVersionMatch is forbidden when continue is provided");
		if (!str_eqz(match, "Exact") && !str_eqz(match, "NotOlderThan"))
			field_not_supported(&fe, FIELD_ROOT("resourceVersionMatch"), match, matches, 3);
		if (str_eqz(match, "Exact") && str_eqz(rv, "0"))
			field_forbidden(&fe, FIELD_ROOT("resourceVersionMatch"), "resourceVersionMatch \"exact\" is forbidden for "
					"resourceVersion \"0\"");
	}
	if (query_has(&rq->q, "sendInitialEvents"))
		field_forbidden(&fe, FIELD_ROOT("sendInitialEvents"), "sendInitialEvents is forbidden for list");
	TRY(invalid_list_options(&fe));
	if (str_eqz(rv, "0"))
		o->limit = 0; /* any version will do: upstream's cache answers, which knows no pages of it */
	TRY(rv_param(rq, &o->mode, &o->rev));
	if (o->mode == CACHE_AT_LEAST && str_eqz(match, "Exact"))
		o->mode = CACHE_EXACT;
	else if (o->mode == CACHE_AT_LEAST && !match.n && o->limit > 0)
		o->mode = CACHE_EXACT; /* legacy: a limit with a version is an exact list */
	if (cont.n) {
		if (rv.n && !str_eqz(rv, "0"))
			return err_bad_request("specifying resource version is not allowed when using continue");
		TRY(continue_decode(rq->a, cont, &o->rev, &o->after));
		if (o->rev < 0) {
			o->mode = CACHE_CONSISTENT;
			o->rev = 0;
			o->inconsistent = true;
		} else {
			o->mode = CACHE_EXACT;
		}
	}
	TRY(request_selectors(rq, &o->filter, &o->post));
	o->has_selector = o->filter.labels || o->filter.fields || o->post;
	return NULL;
}

/* Key of continue tokens for a list within a namespace is relative to it, as upstream's to its prefix. */
static struct str after_key(struct request *rq, const struct list_opts *o)
{
	if (!o->after.n || !rq->res->st->namespaced || !rq->info.ns.n)
		return o->after;
	return arena_printf(rq->a, "%.*s/%.*s", STR_ARG(rq->info.ns), STR_ARG(o->after));
}

/* runtime.Unknown around raw message bytes, up to them. */
static void envelope_head(struct buf *b, struct str api_version, struct str kind, size_t raw)
{
	pb_envelope_begin(b, api_version, kind);
	buf_putc(b, 2 << 3 | 2);
	pb_put_varint(b, raw);
}

struct list_page {
	const struct cache_entry **v;
	size_t n;
	struct meta_v1_list_meta meta;
};

static struct iovec iov_of(struct str s)
{
	return (struct iovec){(void *)(uintptr_t)s.p, s.n};
}

static struct error *list_protobuf(struct request *rq, struct resource *res, const struct list_page *p)
{
	struct buf raw buf_cleanup = {0}, one buf_cleanup = {0}, head buf_cleanup = {0};
	struct arena tmp arena_cleanup = {0};
	struct iovec *iov = arena_array(rq->a, struct iovec, p->n + 3);
	size_t total = 0;
	int n = 2;

	pb_encode(&one, &meta_v1_list_meta_type, &p->meta);
	pb_put_bytes(&raw, 1, buf_view(&one));
	for (size_t i = 0; i < p->n; i++) {
		void *o;

		if (p->v[i]->pb && entry_fits(res, p->v[i])) {
			/* an entry's bytes are those of an item */
			iov[n++] = iov_of(block_str(p->v[i]->body));
			total += p->v[i]->body->n;
			continue;
		}
		arena_reset(&tmp);
		TRY(decode_as(&tmp, res, p->v[i], &o));
		one.n = 0;
		pb_encode(&one, res->api->type, o);
		pb_put_bytes(&raw, 2, buf_view(&one));
		if (i % 256 == 255)
			fiber_yield();
	}
	envelope_head(&head, res->api_version, res->api->list_kind, raw.n + total);
	iov[0] = iov_of(buf_view(&head));
	iov[1] = iov_of(buf_view(&raw)); /* all of one resource's objects fit, or none */
	iov[n++] = iov_of(PB_ENVELOPE_END);
	return respond_iov(rq, 200, rq->out.content_type, iov, n);
}

/* A list of custom objects is a tree to upstream, whose "continue" is there when it is empty, too. */
static void list_head(struct buf *b, struct str kind, struct str api_version, const struct meta_v1_list_meta *m, bool tree)
{
	buf_puts(b, "{\"kind\":\"");
	buf_str(b, kind);
	buf_puts(b, "\",\"apiVersion\":\"");
	buf_str(b, api_version);
	buf_puts(b, "\",\"metadata\":");
	if (tree && !m->continue_.n)
		buf_printf(b, "{\"continue\":\"\",\"resourceVersion\":\"%.*s\"}", STR_ARG(m->resource_version));
	else
		json_encode(b, &meta_v1_list_meta_type, m);
	buf_puts(b, ",\"items\":[");
}

/* JSON of an entry as an item: items of typed lists carry no kind and apiVersion. */
static struct str item_json(struct resource *res, struct str json, struct str *open)
{
	struct str skip = res->st->json_prefix;

	if (res->crd || !str_has_prefix(json, skip)) {
		*open = STR("");
		return json;
	}
	*open = STR("{");
	return str_sub(json, skip.n, json.n);
}

/* The JSON blocks of all items, referenced: nothing is copied. */
static struct error *list_blocks(struct request *rq, struct resource *res, const struct list_page *p, struct str head)
{
	struct block **held = arena_array(rq->a, struct block *, p->n);
	struct iovec *iov = arena_array(rq->a, struct iovec, p->n * 2 + 2);
	struct error *e = NULL;
	size_t got = 0;
	int n = 0;

	iov[n++] = iov_of(head);
	for (; !e && got < p->n; got++) {
		struct str json, open;

		e = cache_entry_json(res->st->cache, p->v[got], &held[got]);
		if (e)
			break;
		json = item_json(res, block_str(held[got]), &open);
		if (got || open.n)
			iov[n++] = iov_of(!got ? open : open.n ? STR(",{") : STR(","));
		iov[n++] = iov_of(json);
		if (got % 256 == 255)
			fiber_yield();
	}
	iov[n++] = iov_of(STR("]}\n"));
	if (!e)
		e = respond_iov(rq, 200, STR("application/json"), iov, n);
	for (size_t i = 0; i < got; i++)
		block_unref(held[i]);
	return e;
}

#define LIST_PIECE (64 * 1024)

/* Made as the client takes it, a piece at a time. */
static struct error *list_pieces(struct request *rq, struct resource *res, const struct list_page *p, struct str head)
{
	struct buf b buf_cleanup = {0}, one buf_cleanup = {0};
	struct pieces *w;
	struct error *e;

	TRY(pieces_begin(rq, 200, STR("application/json"), &w));
	buf_str(&b, head);
	for (size_t i = 0; i < p->n; i++) {
		struct str open;

		one.n = 0;
		e = cache_entry_json_append(res->st->cache, p->v[i], &one);
		if (e)
			return pieces_end(w, e);
		if (i)
			buf_putc(&b, ',');
		struct str json = item_json(res, buf_view(&one), &open);

		buf_str(&b, open);
		buf_str(&b, json);
		if (b.n < LIST_PIECE)
			continue;
		e = pieces_write(w, buf_view(&b));
		if (e)
			return pieces_end(w, e);
		b.n = 0;
		fiber_yield();
	}
	buf_puts(&b, "]}\n");
	return pieces_end(w, pieces_write(w, buf_view(&b)));
}

static struct error *list_objects(struct request *rq, struct resource *res, const struct list_page *p)
{
	struct buf head buf_cleanup = {0}, all buf_cleanup = {0}, one buf_cleanup = {0};
	struct arena tmp arena_cleanup = {0};
	bool fit = true, pb = false;
	size_t total = 0;

	list_head(&head, res->api->list_kind, res->api_version, &p->meta, res->crd);
	for (size_t i = 0; i < p->n && fit; i++) {
		fit = entry_fits(res, p->v[i]);
		total += p->v[i]->body->n;
		pb |= p->v[i]->pb;
	}
	if (rq->out.media == MEDIA_JSON && !rq->out.pretty && fit) {
		/* JSON is up to twice as long; what would push nearly everything else out is not kept */
		if (pb && total > cache_hot_limit() / 8 * 3)
			return list_pieces(rq, res, p, buf_view(&head));
		return list_blocks(rq, res, p, buf_view(&head));
	}
	buf_str(&all, buf_view(&head));
	for (size_t i = 0; i < p->n; i++) {
		struct str json, open = STR("");

		arena_reset(&tmp);
		one.n = 0;
		if (!entry_fits(res, p->v[i])) {
			void *o;

			TRY(decode_as(&tmp, res, p->v[i], &o));
			if (!res->crd)
				((struct str *)o)[0] = ((struct str *)o)[1] = STR_NULL;
			json_encode(&one, res->api->type, o);
			json = buf_view(&one);
		} else {
			TRY(cache_entry_json_append(res->st->cache, p->v[i], &one));
			json = item_json(res, buf_view(&one), &open);
		}
		if (i)
			buf_putc(&all, ',');
		buf_str(&all, open);
		buf_str(&all, json);
		if (i % 256 == 255)
			fiber_yield();
	}
	buf_puts(&all, "]}");
	return respond_json(rq, 200, buf_view(&all));
}

static struct error *list_table(struct request *rq, struct resource *res, const struct list_page *p)
{
	struct buf b buf_cleanup = {0};
	struct arena tmp arena_cleanup = {0};
	struct table_options o = {.object = include_object(rq), .now = time_now(), .api_version = res->api_version, .kind = res->api->kind};

	table_for(rq, res, &o);
	table_begin(&b, res->crd ? NULL : res->api, &o, &p->meta);
	for (size_t i = 0; i < p->n; i++) {
		void *obj;

		arena_reset(&tmp);
		TRY(decode_as(&tmp, res, p->v[i], &obj));
		table_append(rq, &b, res, &o, obj, i == 0);
		if (i % 256 == 255)
			fiber_yield();
	}
	table_end(&b);
	return respond_json(rq, 200, buf_view(&b));
}

static struct error *list_partial(struct request *rq, struct resource *res, const struct list_page *p)
{
	struct buf b buf_cleanup = {0}, raw buf_cleanup = {0}, one buf_cleanup = {0};
	struct arena tmp arena_cleanup = {0};
	const struct schema_type *t = &meta_v1_partial_object_metadata_type;
	struct str api_version = rq->out.table_v1beta1 ? STR("meta.k8s.io/v1beta1") : STR("meta.k8s.io/v1");
	bool pb = rq->out.media == MEDIA_PROTOBUF;

	list_head(&b, STR("PartialObjectMetadataList"), api_version, &p->meta, false);
	if (!p->n && !pb) {
		/* made of nothing upstream, and so nothing */
		b.n -= 1;
		buf_puts(&b, "null}");
		return respond_json(rq, 200, buf_view(&b));
	}
	pb_encode(&one, &meta_v1_list_meta_type, &p->meta);
	pb_put_bytes(&raw, 1, buf_view(&one));
	for (size_t i = 0; i < p->n; i++) {
		struct meta_v1_partial_object_metadata *o;

		arena_reset(&tmp);
		o = arena_new(&tmp, struct meta_v1_partial_object_metadata);
		TRY(cache_entry_decode(&tmp, t, p->v[i], false, o));
		o->kind = pb ? STR_NULL : STR("PartialObjectMetadata");
		o->api_version = pb ? STR_NULL : api_version;
		if (pb) {
			one.n = 0;
			pb_encode(&one, t, o);
			pb_put_bytes(&raw, 2, buf_view(&one));
		} else {
			if (i)
				buf_putc(&b, ',');
			json_encode(&b, t, o);
		}
		if (i % 256 == 255)
			fiber_yield();
	}
	if (pb) {
		struct iovec iov[3];

		one.n = 0;
		envelope_head(&one, api_version, STR("PartialObjectMetadataList"), raw.n);
		iov[0] = (struct iovec){one.p, one.n};
		iov[1] = (struct iovec){raw.p, raw.n};
		iov[2] = (struct iovec){"\x1a\0\x22\0", 4};
		return respond_iov(rq, 200, rq->out.content_type, iov, 3);
	}
	buf_puts(&b, "]}");
	return respond_json(rq, 200, buf_view(&b));
}

/* 410 with a token to go on from without consistency. */
static struct error *expired(struct request *rq, struct error *e, const struct list_opts *o)
{
	struct meta_v1_status st;

	if (!o->after.n || !error_is(e, 410, NULL))
		return e;
	error_free(e);
	e = err_expired("The provided continue parameter is too old to display a consistent list result. You can start a new list without the "
			"continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing "
			"with the provided token results in an inconsistent list - objects that were created, modified, or deleted between "
			"the time the first chunk was returned and now may show up in the list.");
	status_from_error(rq->a, e, &st);
	st.metadata.continue_ = continue_encode(rq->a, -1, o->after);
	error_free(e);
	return respond_struct(rq, 410, &meta_v1_status_type, &st);
}

struct error *rest_list(struct request *rq)
{
	struct resource *res = rq->res;
	struct cache *c = res->st->cache;
	struct str ns = res->st->namespaced ? rq->info.ns : STR_NULL;
	struct list_opts o;
	struct cache_snap *snap;
	struct cache_iter it;
	const struct cache_entry *en;
	LIST(const struct cache_entry *) found = {0};
	struct list_page page = {0};
	struct error *e;
	bool more = false, one;
	struct str after;
	struct arena tmp arena_cleanup = {0};

	if (rq->out.as == ANSWER_PARTIAL)
		return error_status(406, "NotAcceptable", "PartialObjectMetadata may not be requested for a list of objects");
	TRY(list_options(rq, &o));
	e = cache_snapshot(c, o.mode, o.rev, &snap);
	if (e)
		return expired(rq, e, &o);
	after = after_key(rq, &o);
	one = rq->info.name.n && !after.n && !o.post && (ns.n || !res->st->namespaced);
	if (one) {
		/* metadata.name=x: one look-up, not a walk */
		struct str key = ns.n ? arena_printf(rq->a, "%.*s/%.*s", STR_ARG(ns), STR_ARG(rq->info.name)) : rq->info.name;
		char *before = arena_bytes(rq->a, key.n + 2);

		memcpy(before, key.p, key.n);
		before[key.n - 1]--;
		before[key.n] = before[key.n + 1] = (char)0xff;
		cache_iter_init(&it, c, snap, ns, str_of(before, key.n + 2), NULL);
		en = cache_iter_next(&it);
		if (en && str_eq(cache_entry_key(en), key) && cache_matches(c, en, &o.filter))
			*arena_push(rq->a, &found) = en;
	} else {
		cache_iter_init(&it, c, snap, ns, after, &o.filter);
	}
	while (!one && (en = cache_iter_next(&it)) != NULL) {
		if (o.limit > 0 && found.n == o.limit) {
			more = true;
			break;
		}
		if (o.post) {
			void *obj;

			arena_reset(&tmp);
			e = decode_as(&tmp, res, en, &obj);
			if (e) {
				cache_snap_free(snap);
				return e;
			}
			if (!custom_fields_match(&tmp, res, obj, o.post))
				continue;
		}
		*arena_push(rq->a, &found) = en;
	}
	page.v = found.v;
	page.n = found.n;
	page.meta.resource_version = arena_printf(rq->a, "%lld", (long long)cache_snap_rev(snap));
	if (more) {
		struct str last = cache_entry_key(found.v[found.n - 1]), rel = last;

		if (ns.n)
			rel = str_sub(last, ns.n + 1, last.n);
		page.meta.continue_ = continue_encode(rq->a, cache_snap_rev(snap), rel);
		if (!o.has_selector) {
			page.meta.remaining_item_count = arena_new(rq->a, int64_t);
			*page.meta.remaining_item_count = (int64_t)cache_snap_count(snap, ns, last);
		}
	}
	if (rq->out.as == ANSWER_TABLE)
		e = list_table(rq, res, &page);
	else if (rq->out.as == ANSWER_PARTIAL_LIST)
		e = list_partial(rq, res, &page);
	else if (rq->out.media == MEDIA_PROTOBUF)
		e = list_protobuf(rq, res, &page);
	else
		e = list_objects(rq, res, &page);
	cache_snap_free(snap);
	return e;
}

/* ---- watch ---- */

enum form { FORM_PARTIAL_JSON, FORM_TABLE }; /* slots of cache_event.forms */

struct watcher {
	struct request *rq;
	struct resource *res;
	struct watch_socket *socket; /* NULL: the answer's body */
	bool headers_sent;          /* Table: column definitions go with the first event only */
	struct buf out;             /* frames not from shared blocks */
	const struct selector *post; /* see custom_selector */
	struct map matched;         /* with post: key -> struct cache_entry * of what the client has seen */
};

/* What the client has before the watch starts. */
static struct error *post_begin(struct watcher *w, const struct cache_watch_opts *o)
{
	struct cache *c = w->res->st->cache;
	struct arena tmp arena_cleanup = {0};
	struct cache_snap *snap;
	struct cache_iter it;
	const struct cache_entry *en;
	struct error *e = NULL;

	if (!w->post || o->initial)
		return NULL;
	TRY(cache_snapshot(c, CACHE_EXACT, o->rev, &snap));
	cache_iter_init(&it, c, snap, o->ns, STR_NULL, &o->filter);
	while (!e && (en = cache_iter_next(&it)) != NULL) {
		void *obj;

		arena_reset(&tmp);
		e = decode_as(&tmp, w->res, en, &obj);
		if (!e && custom_fields_match(&tmp, w->res, obj, w->post))
			map_set(&w->matched, cache_entry_key(en), cache_entry_ref((struct cache_entry *)(uintptr_t)en));
	}
	cache_snap_free(snap);
	return e;
}

/* The event as this client's selector has it; *send false: it is none. *keep: a reference to let go of after sending. */
static struct error *post_event(struct watcher *w, struct cache_event *ev, bool *send, struct cache_entry **keep)
{
	struct arena tmp arena_cleanup = {0};
	struct cache_entry *was;
	bool now = false;

	*send = true;
	*keep = NULL;
	if (!w->post || !ev->obj)
		return NULL;
	ev->forms = NULL;
	if (ev->type != CACHE_DELETED) {
		void *obj;

		TRY(decode_as(&tmp, w->res, ev->obj, &obj));
		now = custom_fields_match(&tmp, w->res, obj, w->post);
	}
	was = map_del(&w->matched, cache_entry_key(ev->obj));
	if (now) {
		ev->type = was ? CACHE_MODIFIED : CACHE_ADDED;
		map_set(&w->matched, cache_entry_key(ev->obj), cache_entry_ref((struct cache_entry *)(uintptr_t)ev->obj));
		cache_entry_unref(was);
	} else if (was) {
		/* gone, or left the selection: as it was last */
		if (ev->type != CACHE_DELETED)
			ev->obj = was;
		ev->type = CACHE_DELETED;
		*keep = was;
	} else {
		*send = false;
	}
	return NULL;
}

static void post_end(struct watcher *w)
{
	struct str key;
	void *v;
	size_t it = 0;

	while (map_next(&w->matched, &it, &key, &v))
		cache_entry_unref(v);
	map_free(&w->matched);
}

static struct str type_name(enum cache_event_type t)
{
	switch (t) {
	case CACHE_ADDED:
		return STR("ADDED");
	case CACHE_MODIFIED:
		return STR("MODIFIED");
	case CACHE_DELETED:
		return STR("DELETED");
	default:
		return STR("BOOKMARK");
	}
}

/* One event around an object that is encoded already, in the stream's framing. */
static struct error *frame(struct watcher *w, struct str type, struct str object, struct buf *out)
{
	struct buf b buf_cleanup = {0}, c buf_cleanup = {0};

	switch (w->rq->out.media) {
	case MEDIA_PROTOBUF: {
		/* 4 bytes of length, then WatchEvent{1: type, 2: RawExtension{1: raw}} */
		pb_put_bytes(&c, 1, object);
		pb_put_bytes(&b, 1, type);
		pb_put_bytes(&b, 2, buf_view(&c));
		for (int i = 24; !w->socket && i >= 0; i -= 8) /* messages of WebSockets have a length themselves */
			buf_putc(out, (char)(b.n >> i));
		buf_str(out, buf_view(&b));
		return NULL;
	}
	case MEDIA_CBOR:
		buf_printf(&b, "{\"type\":\"%.*s\",\"object\":", STR_ARG(type));
		buf_str(&b, object);
		buf_putc(&b, '}');
		return json_to_cbor(buf_view(&b), out);
	default:
		buf_printf(out, "{\"type\":\"%.*s\",\"object\":", STR_ARG(type));
		buf_str(out, object);
		buf_puts(out, "}\n");
		return NULL;
	}
}

/* The object of an event in the form asked for. */
static struct error *event_object(struct watcher *w, struct arena *tmp, const struct cache_event *ev, struct buf *b)
{
	struct request *rq = w->rq;
	struct resource *res = w->res;
	bool pb = rq->out.media == MEDIA_PROTOBUF;
	void *obj;

	if (ev->type == CACHE_BOOKMARK) {
		obj = arena_alloc(tmp, res->api->type->size);
		struct meta_v1_object_meta *m = object_meta(res->api->type, obj);

		((struct str *)obj)[0] = res->api->kind;
		((struct str *)obj)[1] = res->api_version;
		m->resource_version = arena_printf(tmp, "%lld", (long long)ev->rev);
		if (ev->initial_end)
			str_map_set(tmp, API_MAP(&m->annotations), STR("k8s.io/initial-events-end"), STR("true"));
	} else {
		TRY(decode_as(tmp, res, ev->obj, &obj));
		if (w->post && ev->type == CACHE_DELETED)
			object_meta(res->api->type, obj)->resource_version = arena_printf(tmp, "%lld", (long long)ev->rev);
	}
	if (rq->out.as == ANSWER_TABLE) {
		struct table_options o = {.object = include_object(rq), .now = time_now(), .api_version = res->api_version, .kind = res->api->kind,
					  .no_headers = w->headers_sent};
		struct meta_v1_list_meta lm = {.resource_version = object_meta(res->api->type, obj)->resource_version};

		w->headers_sent = true;
		table_for(rq, res, &o);
		table_begin(b, res->crd ? NULL : res->api, &o, &lm);
		table_append(rq, b, res, &o, obj, true);
		table_end(b);
	} else if (rq->out.as == ANSWER_PARTIAL || rq->out.as == ANSWER_PARTIAL_LIST) {
		struct meta_v1_partial_object_metadata p;

		partial_of(rq, res, obj, &p);
		if (pb)
			pb_envelope_encode(b, p.api_version, p.kind, &meta_v1_partial_object_metadata_type, &p);
		else
			json_encode(b, &meta_v1_partial_object_metadata_type, &p);
	} else if (pb) {
		pb_envelope_encode(b, res->api_version, res->api->kind, res->api->type, obj);
	} else {
		json_encode(b, res->api->type, obj);
	}
	return NULL;
}

static int form_slot(const struct watcher *w)
{
	if (w->rq->out.as == ANSWER_TABLE || w->res->from_storage || (w->res->crd && !custom_is_storage_version(w->res)))
		return -1;
	if (w->rq->out.as == ANSWER_PARTIAL && w->rq->out.media == MEDIA_JSON && !w->rq->out.table_v1beta1)
		return FORM_PARTIAL_JSON;
	return -1;
}

/* 200, or 101 for a client that asks for a WebSocket. */
static struct error *watch_start(struct watcher *w)
{
	if (ws_requested(w->rq->x))
		return watch_socket_open(w->rq, &w->socket);
	return http_start(w->rq->x, 200);
}

static struct error *watch_write(struct watcher *w)
{
	return w->socket ? watch_socket_send(w->socket, buf_view(&w->out)) : http_write(w->rq->x, buf_view(&w->out));
}

static struct error *watch_end(struct watcher *w)
{
	return w->socket ? NULL : http_end(w->rq->x);
}

static struct error *write_error_event(struct watcher *w, struct error *e)
{
	struct meta_v1_status st;
	struct buf b buf_cleanup = {0};
	struct error *err;

	status_from_error(w->rq->a, e, &st);
	error_free(e);
	object_encode(&b, w->rq->out.media == MEDIA_PROTOBUF ? MEDIA_PROTOBUF : MEDIA_JSON, &meta_v1_status_type, &st);
	w->out.n = 0;
	TRY(frame(w, STR("ERROR"), buf_view(&b), &w->out));
	err = watch_write(w);
	return err ? err : watch_end(w);
}

#define WATCH_BATCH 64

/* Events whose objects are written as they are, gathered for one write. */
struct gathered {
	struct iovec iov[WATCH_BATCH * 3];
	int n, k;
	struct block *held[WATCH_BATCH];
	struct buf heads;               /* protobuf: what stands before each object */
	size_t head_at[WATCH_BATCH];
};

/* One is kept for the next: watchers that wait need none. */
static __thread struct gathered *spare;

static struct gathered *gathered_take(void)
{
	struct gathered *g = spare;

	spare = NULL;
	return g ? g : xcalloc(1, sizeof *g);
}

static void gathered_give(struct gathered *g)
{
	if (!g)
		return;
	for (int i = 0; i < g->k; i++)
		block_unref(g->held[i]);
	buf_free(&g->heads);
	if (spare) {
		free(g);
		return;
	}
	g->n = g->k = 0;
	spare = g;
}

/*
 * 4 bytes of length, then WatchEvent{1: type, 2: RawExtension{1: raw}}, raw being an envelope: "k8s\0", type meta, the entry's
 * bytes, its end.
 */
static void pb_event_head(struct buf *b, struct watcher *w, struct str type, size_t body)
{
	struct str end = PB_ENVELOPE_END;
	struct buf raw buf_cleanup = {0}, ext buf_cleanup = {0}, all buf_cleanup = {0};

	pb_envelope_begin(&raw, w->res->api_version, w->res->api->kind);
	pb_put_varint(&ext, 1 << 3 | 2);
	pb_put_varint(&ext, raw.n + body + end.n);
	pb_put_bytes(&all, 1, type);
	pb_put_varint(&all, 2 << 3 | 2);
	pb_put_varint(&all, ext.n + raw.n + body + end.n);
	size_t n = all.n + ext.n + raw.n + body + end.n;

	for (int i = 24; i >= 0; i -= 8)
		buf_putc(b, (char)(n >> i));
	buf_str(b, buf_view(&all));
	buf_str(b, buf_view(&ext));
	buf_str(b, buf_view(&raw));
}

/* Adds ev; *taken false: it is not written as it is. */
static struct error *gather(struct gathered **gp, struct watcher *w, const struct cache_event *ev, bool *taken)
{
	struct negotiated *out = &w->rq->out;
	struct gathered *g;
	struct str tail, body;

	*taken = false;
	if (!ev->obj || out->as != ANSWER_OBJECT || !entry_fits(w->res, ev->obj))
		return NULL;
	if (out->media != MEDIA_JSON && !(out->media == MEDIA_PROTOBUF && ev->obj->pb))
		return NULL;
	g = *gp = *gp ? *gp : gathered_take();
	if (out->media == MEDIA_JSON) {
		TRY(cache_entry_json(w->res->st->cache, ev->obj, &g->held[g->k]));
		g->iov[g->n++] = iov_of(cache_event_head(ev->type));
		tail = CACHE_EVENT_TAIL;
	} else {
		g->held[g->k] = block_ref(ev->obj->body);
		g->head_at[g->k] = g->heads.n;
		pb_event_head(&g->heads, w, type_name(ev->type), ev->obj->body->n);
		g->iov[g->n++] = (struct iovec){NULL, g->heads.n - g->head_at[g->k]};
		tail = PB_ENVELOPE_END;
	}
	body = block_str(g->held[g->k++]);
	g->iov[g->n++] = iov_of(body);
	g->iov[g->n++] = iov_of(tail);
	*taken = true;
	return NULL;
}

static struct error *write_gathered(struct gathered *g, struct watcher *w)
{
	if (w->rq->out.media == MEDIA_PROTOBUF) /* now the heads stay where they are */
		for (int i = 0; i < g->k; i++)
			g->iov[3 * i].iov_base = g->heads.p + g->head_at[i];
	return http_writev(w->rq->x, g->iov, g->n);
}

static struct error *watch_loop(struct watcher *w, struct cache_watch *cw)
{
	int slot = form_slot(w);
	struct arena tmp arena_cleanup = {0};

	for (;;) {
		struct cache_event ev;
		struct error *e = NULL, *end = NULL;
		struct gathered *g = NULL;
		bool taken;
		struct cache_entry *left = NULL;

		w->out.n = 0;
		do {
			end = cache_watch_next(cw, &ev);
			if (end)
				break;
			if (w->post) {
				bool send;

				cache_entry_unref(left);
				left = NULL;
				e = post_event(w, &ev, &send, &left);
				if (e)
					break;
				if (!send)
					continue;
			}
			taken = false;
			if (!w->post && !w->socket)
				e = gather(&g, w, &ev, &taken);
			if (e || taken)
				continue;
			struct buf b buf_cleanup = {0};

			arena_reset(&tmp);
			if (slot >= 0 && ev.forms && ev.forms[slot]) {
				e = frame(w, type_name(ev.type), block_str(ev.forms[slot]), &w->out);
			} else {
				e = event_object(w, &tmp, &ev, &b);
				if (!e && slot >= 0 && ev.forms)
					ev.forms[slot] = block_new(buf_view(&b));
				if (!e)
					e = frame(w, type_name(ev.type), buf_view(&b), &w->out);
			}
			break; /* bookmarks and converted events keep their order: written before the next */
		} while (!e && (!g || g->k < WATCH_BATCH) && cache_watch_ready(cw));
		if (!e && g)
			e = write_gathered(g, w);
		gathered_give(g);
		if (!e && w->out.n)
			e = watch_write(w);
		cache_entry_unref(left);
		if (e) {
			error_free(end);
			return e;
		}
		if (!end)
			continue;
		if (error_is_sys(end, ETIMEDOUT)) {
			error_free(end);
			return watch_end(w);
		}
		if (error_is_sys(end, ECANCELED)) {
			if (fiber_cancelled())
				return end;
			error_free(end);
			return watch_end(w);
		}
		return write_error_event(w, end);
	}
}

struct error *rest_watch(struct request *rq)
{
	struct resource *res = rq->res;
	struct cache_watch_opts o = {0};
	struct str rv = query_get(&rq->q, "resourceVersion"), match = query_get(&rq->q, "resourceVersionMatch");
	struct field_errors fe = {.arena = rq->a};
	bool send_initial = query_bool(&rq->q, "sendInitialEvents"), has_initial = query_has(&rq->q, "sendInitialEvents");
	int64_t timeout_s = 0;
	struct cache_watch *cw;
	struct watcher w = {.rq = rq, .res = res};
	struct error *e;

	query_int(&rq->q, "timeoutSeconds", &timeout_s, &e);
	TRY(e);
	if (match.n && !has_initial)
		field_forbidden(&fe, FIELD_ROOT("resourceVersionMatch"), "resourceVersionMatch is forbidden for watch unless sendInitialEvents is "
				"provided");
	if (has_initial && !str_eqz(match, "NotOlderThan"))
		field_forbidden(&fe, FIELD_ROOT("resourceVersionMatch"), "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
	if (query_has(&rq->q, "continue") && query_get(&rq->q, "continue").n)
		field_forbidden(&fe, FIELD_ROOT("continue"), "continue is forbidden for watch");
	TRY(invalid_list_options(&fe));
	TRY(request_selectors(rq, &o.filter, &w.post));
	TRY(rv_param(rq, &o.mode, &o.rev));
	o.ns = res->st->namespaced ? rq->info.ns : STR_NULL;
	o.bookmarks = query_bool(&rq->q, "allowWatchBookmarks");
	if (has_initial) {
		o.initial = send_initial;
		o.initial_end = send_initial && o.bookmarks;
		if (!send_initial && o.mode != CACHE_AT_LEAST) {
			/* from now on, nothing first */
			o.initial = false;
			o.rev = cache_rev(res->st->cache);
		}
	} else {
		o.initial = !rv.n || str_eqz(rv, "0");
	}
	if (timeout_s > 0)
		o.timeout_ms = timeout_s * 1000;
	else
		o.timeout_ms = rq->s->o.min_request_timeout_s * 1000 + (int64_t)(random_u64() % (uint64_t)(rq->s->o.min_request_timeout_s * 1000 + 1));
	e = post_begin(&w, &o);
	if (!e)
		e = cache_watch_open(res->st->cache, &o, &cw);
	respond_headers(rq);
	http_set_header(rq->x, "content-type", rq->out.content_type);
	rq->status = 200;
	if (e) {
		if (!error_is(e, 410, NULL)) {
			post_end(&w);
			return e;
		}
		/* a version too old is an event of the stream, as upstream sends it */
		struct error *s = watch_start(&w);

		if (s) {
			error_free(e);
			return s;
		}
		e = write_error_event(&w, e);
		watch_socket_close(w.socket);
		buf_free(&w.out);
		post_end(&w);
		return e;
	}
	e = watch_start(&w);
	if (!e) {
		audit_started(rq);
		e = watch_loop(&w, cw);
	}
	cache_watch_close(cw);
	watch_socket_close(w.socket);
	buf_free(&w.out);
	post_end(&w);
	return e;
}
