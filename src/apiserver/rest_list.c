/* Lists: what they select, and in what form it is written out. Bytes of the cache where they are what was asked for. */
#include "apiserver/custom.h"
#include "apiserver/jwt.h"
#include "apiserver/list.h"
#include "apiserver/metrics.h"
#include "base/log.h"

/* ---- rows and conversions shared by the verbs ---- */

/* A cached object in the request's version, kind and apiVersion set; strings point into the entry. */
struct error *list_decode(struct arena *a, struct resource *res, const struct cache_entry *e, void **out)
{
	struct storage *st = res->st;
	void *o = NULL;

	if (res->crd) {
		TRY(custom_read(a, res, e, false, &o));
	} else {
		o = arena_alloc(a, st->type->size);
		TRY(cache_entry_decode(a, st->type, e, false, o));
	}
	if (res->from_storage) {
		void *v = arena_alloc(a, res->api->type->size);

		res->from_storage(a, o, v);
		o = v;
	}
	if (res->st->strategy && res->st->strategy->decorate)
		res->st->strategy->decorate(o);
	((struct str *)o)[0] = res->api->kind;
	((struct str *)o)[1] = res->api_version;
	*out = o;
	return NULL;
}

struct error *list_decode_printed(struct arena *a, struct resource *res, const struct cache_entry *e, void **out)
{
	if (!res->printed)
		return list_decode(a, res, e, out);
	*out = arena_alloc(a, res->st->type->size);
	return cache_entry_decode(a, res->st->type, e, false, *out);
}

struct error *list_decode_all(struct arena *a, struct resource *res, const struct cache_entry *const *v, size_t n, void **out)
{
	for (size_t i = 0; i < n; i++)
		TRY(custom_decode(a, res, v[i], false, &out[i]));
	TRY(custom_convert_all(a, res, out, n, res->api_version));
	for (size_t i = 0; i < n; i++) {
		((struct str *)out[i])[0] = res->api->kind;
		((struct str *)out[i])[1] = res->api_version;
	}
	return NULL;
}

/* Converted objects of a page, all at once, where its resource has a webhook for that and not all bytes are as they are asked for. */
static struct error *page_convert(struct request *rq, struct listing *l)
{
	struct resource *res = rq->res;
	bool fit = true;

	if (!res->crd || !custom_asks_webhook(res))
		return NULL;
	for (uint32_t i = 0; i < l->found.n && fit; i++)
		fit = entry_fits(res, l->found.v[i]);
	if (fit)
		return NULL;
	l->made = arena_array(rq->a, void *, l->found.n);
	return list_decode_all(rq->a, res, l->found.v, l->found.n, l->made);
}

static struct error *page_object(struct arena *a, struct resource *res, const struct listing *l, size_t i, void **out)
{
	if (!l->made)
		return list_decode(a, res, l->found.v[i], out);
	*out = l->made[i];
	return NULL;
}

#define POST_BATCH 256
struct post_iter {
	struct resource *res;
	const struct selector *post;
	struct cache_iter *it;
	struct arena tmp;
	const struct cache_entry *v[POST_BATCH];
	void *objs[POST_BATCH];
	size_t n, at;
};

struct error *post_next(struct post_iter *p, const struct cache_entry **out)
{
	for (;;) {
		if (p->at == p->n) {
			arena_reset(&p->tmp);
			p->n = p->at = 0;
			while (p->n < POST_BATCH && (p->v[p->n] = cache_iter_next(p->it)) != NULL)
				p->n++;
			TRY(list_decode_all(&p->tmp, p->res, p->v, p->n, p->objs));
		}
		*out = p->at < p->n ? p->v[p->at] : NULL;
		if (!*out || custom_fields_match(&p->tmp, p->res, p->objs[p->at++], p->post))
			return NULL;
	}
}

void post_iter_free(struct post_iter *p)
{
	if (p)
		arena_free(&p->tmp);
	free(p);
}

struct post_iter *post_iter_new(struct resource *res, const struct selector *post, struct cache_iter *it)
{
	struct post_iter *p = xcalloc(1, sizeof *p);

	p->res = res;
	p->post = post;
	p->it = it;
	return p;
}

enum table_object include_object(const struct request *rq)
{
	struct str v = query_get(&rq->q, "includeObject");

	return str_eqz(v, "None") ? TABLE_OBJECT_NONE : str_eqz(v, "Object") ? TABLE_OBJECT_FULL : TABLE_OBJECT_METADATA;
}

const struct api_resource *table_resource(const struct resource *res)
{
	return res->crd ? NULL : res->printed ? res->printed : res->api;
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
	struct table_options row = *o;
	const struct api_resource *r = table_resource(res);
	void *internal;

	(void)rq;
	if (res->crd) {
		struct jv v;

		jv_from_object(&tmp, res->api->type, obj, &v);
		row.full = obj;
		row.full_type = res->api->type;
		table_row_tree(b, &tmp, &row, &v, first);
	} else if (!res->internal_meta) {
		table_row(b, &tmp, res->api, o, obj, first);
	} else {
		internal = arena_alloc(&tmp, r->type->size);
		memcpy(internal, obj, r->type->size);
		res->internal_meta(&tmp, object_meta(r->type, internal));
		row.full = obj;
		row.full_type = res->api->type;
		if (res->printed && o->object == TABLE_OBJECT_FULL) {
			void *full = arena_alloc(&tmp, res->api->type->size);

			res->from_storage(&tmp, obj, full);
			((struct str *)full)[0] = res->api->kind;
			((struct str *)full)[1] = res->api_version;
			row.full = full;
		}
		table_row(b, &tmp, r, &row, internal, first);
	}
}

void partial_meta(struct arena *a, const struct resource *res, const void *obj, struct meta_v1_object_meta *out)
{
	*out = *object_meta(res->api->type, (void *)(uintptr_t)obj);
	if (res->internal_meta)
		res->internal_meta(a, out);
}

void partial_of(struct request *rq, struct resource *res, void *obj, struct meta_v1_partial_object_metadata *p)
{
	memset(p, 0, sizeof *p);
	p->kind = STR("PartialObjectMetadata");
	p->api_version = rq->out.table_v1beta1 ? STR("meta.k8s.io/v1beta1") : STR("meta.k8s.io/v1");
	partial_meta(rq->a, res, obj, &p->metadata);
}

/* ---- options ---- */

bool list_uncached(const struct resource *res)
{
	return res->st->uncached;
}

struct error *list_version_error(const struct resource *res, struct error *e)
{
	if (error_is(e, 504, NULL) && list_uncached(res))
		e->retry_after_seconds = 0; /* who has no cache knows of no time to wait */
	return e;
}

struct error *list_rv_param(struct request *rq, enum cache_mode *mode, int64_t *rev)
{
	struct str rv = query_get(&rq->q, "resourceVersion");
	uint64_t n = 0;
	bool bad;

	*rev = 0;
	if (!rv.n) {
		*mode = CACHE_CONSISTENT;
		return NULL;
	}
	bad = !str_to_u64(rv, &n);
	*rev = n > INT64_MAX ? INT64_MAX : (int64_t)n; /* either way, yet to come */
	if (bad && list_uncached(rq->res) && str_eqz(rq->info.verb, "get"))
		return err_bad_request("invalid resource version");
	if (bad) { /* only lists check it before the store does */
		bool list = !str_eqz(rq->info.verb, "get") && !str_eqz(rq->info.verb, "watch");

		return error_status(list ? 400 : 500, list ? "BadRequest" : "",
				    "resourceVersion: Invalid value: \"%.*s\": strconv.ParseUint: parsing \"%.*s\": invalid syntax", STR_ARG(rv), STR_ARG(rv));
	}
	*mode = *rev == 0 ? CACHE_ANY : CACHE_AT_LEAST;
	return NULL;
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
	if (fs.n && rq->info.name.n && !str_eq(rq->info.name, selected_name(rq->a, fs)))
		return err_bad_request("fieldSelector metadata.name doesn't match requested name");
	if (!fs.n && rq->info.name.n)
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

/* Continue tokens are upstream's: base64url of {"v":"meta.k8s.io/v1","rv":REV,"start":"/KEY\0"}; the slash is the watch
 * cache's, the store has none. */
static struct str continue_encode(struct request *rq, int64_t rev, struct str key, bool cached)
{
	struct buf json buf_cleanup = {0}, out buf_cleanup = {0};

	buf_printf(&json, "{\"v\":\"meta.k8s.io/v1\",\"rv\":%lld,\"start\":", (long long)rev);
	jv_encode_string(&json, cached ? arena_printf(rq->a, "/%.*s", STR_ARG(key)) : key);
	json.n--; /* the quote: the key's end is a NUL, as upstream writes it */
	buf_puts(&json, "\\u0000\"}");
	base64url_encode(&out, buf_view(&json));
	return arena_str(rq->a, buf_view(&out));
}

/* Nothing that Go's path.Clean would change: no empty, "." or ".." part. */
static bool clean_path(struct str path)
{
	struct str rest = path.p[0] == '/' ? str_sub(path, 1, path.n) : path;

	while (rest.p) {
		struct str part = str_cut(&rest, '/');

		if (!part.n || str_eqz(part, ".") || str_eqz(part, ".."))
			return false;
	}
	return true;
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
	if (!start.n || !clean_path(start))
		return err_bad_request("continue key is not valid: start key is invalid");
	if (start.p[start.n - 1] == '\0')
		start.n--;
	if (start.n && start.p[0] == '/')
		start = str_sub(start, 1, start.n);
	*rev = rv->i;
	*after = start;
	return NULL;
}

/* What does not parse is refused before anything else is looked at. */
struct error *list_decode_options(struct request *rq)
{
	static const char *const numbers[] = {"timeoutSeconds", "limit"};
	const struct selector *s;
	struct error *e;
	int64_t n;

	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
		query_int(&rq->q, numbers[i], &n, &e);
		TRY(e);
	}
	e = label_selector_parse(rq->a, query_get(&rq->q, "labelSelector"), &s);
	if (e)
		return e->status ? e : error_wrap(e, "unable to parse requirement");
	return field_selector_parse(rq->a, query_get(&rq->q, "fieldSelector"), &s);
}

struct error *list_options_invalid(struct field_errors *fe)
{
	return field_errors_status(fe, STR("meta.k8s.io"), STR("ListOptions"), STR(""));
}

struct error *list_validate_options(struct request *rq)
{
	struct str rv = query_get(&rq->q, "resourceVersion"), match = query_get(&rq->q, "resourceVersionMatch");
	static const struct str matches[] = {STR_INIT("Exact"), STR_INIT("NotOlderThan"), STR_INIT("")};
	const struct field_path *at = FIELD_ROOT("resourceVersionMatch");
	struct field_errors fe = {.arena = rq->a};

	if (match.n) {
		if (!rv.n)
			field_forbidden(&fe, at, "resourceVersionMatch is forbidden unless resourceVersion is provided");
		if (query_get(&rq->q, "continue").n)
			field_forbidden(&fe, at, "resourceVersionMatch is forbidden when continue is provided");
		if (!str_eqz(match, "Exact") && !str_eqz(match, "NotOlderThan"))
			field_not_supported(&fe, at, match, matches, 3);
		if (str_eqz(match, "Exact") && str_eqz(rv, "0"))
			field_forbidden(&fe, at, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
	}
	if (query_has(&rq->q, "sendInitialEvents"))
		field_forbidden(&fe, FIELD_ROOT("sendInitialEvents"), "sendInitialEvents is forbidden for list");
	return list_options_invalid(&fe);
}

/* A list of all namespaces that a field selector keeps to one is a list of that one. */
static struct str namespace_of(struct request *rq, const struct selector *fields)
{
	struct str key, value;
	bool negated;

	if (!rq->res->st->namespaced || rq->info.ns.n)
		return rq->res->st->namespaced ? rq->info.ns : STR_NULL;
	for (size_t i = 0; field_selector_get(fields, i, &key, &value, &negated); i++)
		if (str_eqz(key, "metadata.namespace") && !negated && !validate_dns1123_label(rq->a, value))
			return value;
	return STR_NULL;
}

static struct error *continue_options(struct request *rq, struct str cont, struct str rv, struct list_options *o)
{
	TRY(continue_decode(rq->a, cont, &o->rev, &o->after));
	if (rv.n && !str_eqz(rv, "0"))
		return err_bad_request("specifying resource version is not allowed when using continue");
	o->mode = o->rev < 0 ? CACHE_CONSISTENT : CACHE_EXACT;
	o->rev = o->rev < 0 ? 0 : o->rev;
	return NULL;
}

struct error *list_options(struct request *rq, struct list_options *o)
{
	struct str rv = query_get(&rq->q, "resourceVersion");
	struct error *e;

	memset(o, 0, sizeof *o);
	TRY(list_decode_options(rq));
	query_int(&rq->q, "limit", &o->limit, &e);
	TRY(list_validate_options(rq));
	TRY(request_selectors(rq, &o->filter, &o->post));
	o->has_selector = o->filter.labels || o->filter.fields || o->post;
	o->ns = namespace_of(rq, o->filter.fields);
	o->one = rq->info.name.n && !o->post && (o->ns.n || !rq->res->st->namespaced);
	if (str_eqz(rv, "0") && !list_uncached(rq->res))
		o->limit = 0; /* any version will do: upstream's cache answers, which knows no pages of it */
	return NULL;
}

/* Which version is to be listed. */
static struct error *version_options(struct request *rq, struct list_options *o)
{
	struct str rv = query_get(&rq->q, "resourceVersion"), match = query_get(&rq->q, "resourceVersionMatch"),
		   cont = query_get(&rq->q, "continue");

	if (cont.n)
		return continue_options(rq, cont, rv, o);
	TRY(list_rv_param(rq, &o->mode, &o->rev));
	if (o->mode == CACHE_AT_LEAST && str_eqz(match, "Exact"))
		o->mode = CACHE_EXACT;
	else if (o->mode == CACHE_AT_LEAST && !match.n && o->limit > 0 && !o->one)
		o->mode = CACHE_EXACT; /* legacy: a limit with a version is an exact list */
	o->at_once = o->one && (o->mode == CACHE_EXACT || (o->mode == CACHE_AT_LEAST && !match.n && o->limit > 0));
	return NULL;
}

/* Key of continue tokens for a list within a namespace is relative to it, as upstream's to its prefix. */
static struct str after_key(struct request *rq, const struct list_options *o)
{
	return o->after.n && o->ns.n ? arena_printf(rq->a, "%.*s/%.*s", STR_ARG(o->ns), STR_ARG(o->after)) : o->after;
}

/* runtime.Unknown around raw message bytes, up to them. */
static void envelope_head(struct buf *b, struct str api_version, struct str kind, size_t raw)
{
	pb_envelope_begin(b, api_version, kind);
	buf_putc(b, 2 << 3 | 2);
	pb_put_varint(b, raw);
}

static struct iovec iov_of(struct str s)
{
	return (struct iovec){(void *)(uintptr_t)s.p, s.n};
}

static struct error *list_protobuf(struct request *rq, struct resource *res, const struct listing *p)
{
	struct buf raw buf_cleanup = {0}, one buf_cleanup = {0}, head buf_cleanup = {0};
	struct arena tmp arena_cleanup = {0};
	struct iovec *iov = arena_array(rq->a, struct iovec, p->found.n + 3);
	size_t total = 0;
	int n = 2;

	pb_encode(&one, &meta_v1_list_meta_type, &p->meta);
	pb_put_bytes(&raw, 1, buf_view(&one));
	for (size_t i = 0; i < p->found.n; i++) {
		void *o;

		if (i + 16 < p->found.n) {
			__builtin_prefetch(p->found.v[i + 16]);
			__builtin_prefetch(p->found.v[i + 8]->body);
		}
		if (p->found.v[i]->pb && entry_fits(res, p->found.v[i])) {
			/* an entry's bytes are those of an item */
			iov[n++] = iov_of(block_str(p->found.v[i]->body));
			total += p->found.v[i]->body->n;
			continue;
		}
		arena_reset(&tmp);
		TRY(page_object(&tmp, res, p, i, &o));
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

static void list_head(struct buf *b, struct str kind, struct str api_version, const struct meta_v1_list_meta *m)
{
	buf_printf(b, "{\"kind\":\"%.*s\",\"apiVersion\":\"%.*s\",\"metadata\":", STR_ARG(kind), STR_ARG(api_version));
	json_encode(b, &meta_v1_list_meta_type, m);
	buf_puts(b, ",\"items\":[");
}

/* A list of custom objects is a tree to upstream: its members stand by name, and "continue" is there when it is empty, too. */
static void list_around(struct buf *head, struct buf *tail, const struct resource *res, const struct meta_v1_list_meta *m)
{
	if (!res->crd) {
		list_head(head, res->api->list_kind, res->api_version, m);
		buf_puts(tail, "]}");
		return;
	}
	buf_printf(head, "{\"apiVersion\":\"%.*s\",\"items\":[", STR_ARG(res->api_version));
	buf_printf(tail, "],\"kind\":\"%.*s\",\"metadata\":{\"continue\":\"%.*s\"", STR_ARG(res->api->list_kind), STR_ARG(m->continue_));
	if (m->remaining_item_count)
		buf_printf(tail, ",\"remainingItemCount\":%lld", (long long)*m->remaining_item_count);
	buf_printf(tail, ",\"resourceVersion\":\"%.*s\"}}", STR_ARG(m->resource_version));
}

/* Items of typed lists carry no kind and apiVersion: how cached JSON begins that has them. */
static struct str item_without(struct resource *res)
{
	return res->crd ? STR_NULL : res->st->json_prefix;
}

/* JSON of an entry as an item. */
static struct str item_json(struct resource *res, struct str json, struct str *open)
{
	struct str skip = item_without(res);

	if (!skip.n || !str_has_prefix(json, skip)) {
		*open = STR("");
		return json;
	}
	*open = STR("{");
	return str_sub(json, skip.n, json.n);
}

/* The JSON blocks of all items, referenced: nothing is copied. */
static struct error *list_blocks(struct request *rq, struct resource *res, const struct listing *p, struct str head, struct str tail)
{
	struct block **held = arena_array(rq->a, struct block *, p->found.n);
	struct iovec *iov = arena_array(rq->a, struct iovec, p->found.n * 2 + 3);
	struct error *e = NULL;
	size_t got = 0;
	int n = 0;

	iov[n++] = iov_of(head);
	for (; !e && got < p->found.n; got++) {
		struct str json, open;

		e = cache_entry_json(res->st->cache, p->found.v[got], &held[got]);
		if (e)
			break;
		json = item_json(res, block_str(held[got]), &open);
		if (got || open.n)
			iov[n++] = iov_of(!got ? open : open.n ? STR(",{") : STR(","));
		iov[n++] = iov_of(json);
		if (got % 256 == 255)
			fiber_yield();
	}
	iov[n++] = iov_of(tail);
	iov[n++] = iov_of(STR("\n"));
	if (!e)
		e = respond_iov(rq, 200, STR("application/json"), iov, n);
	for (size_t i = 0; i < got; i++)
		block_unref(held[i]);
	return e;
}

#define LIST_PIECE (64 * 1024)

/* Entries and their bytes lie anywhere: the next ones are asked for while one is written. */
static void ask_ahead(const struct listing *p, size_t i)
{
	if (i + 4 < p->found.n)
		__builtin_prefetch(p->found.v[i + 4]);
	if (i + 3 < p->found.n)
		__builtin_prefetch(p->found.v[i + 3]->body);
	if (i + 1 < p->found.n) {
		const struct block *next = p->found.v[i + 1]->body;

		for (size_t at = 0; at < next->n && at < 4096; at += 64)
			__builtin_prefetch(next->bytes + at);
	}
}

/* Made as the client takes it, a piece at a time. */
static struct error *list_pieces(struct request *rq, struct resource *res, const struct listing *p, struct str head)
{
	struct buf b buf_cleanup = {0};
	struct pieces *w;
	struct error *e;

	TRY(pieces_begin(rq, 200, STR("application/json"), &w));
	buf_str(&b, head);
	for (size_t i = 0; i < p->found.n; i++) {
		if (i)
			buf_putc(&b, ',');
		ask_ahead(p, i);
		e = cache_entry_json_append(res->st->cache, p->found.v[i], item_without(res), &b);
		if (e)
			return pieces_end(w, e);
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

static struct error *list_objects(struct request *rq, struct resource *res, const struct listing *p)
{
	struct buf head buf_cleanup = {0}, tail buf_cleanup = {0}, all buf_cleanup = {0};
	struct arena tmp arena_cleanup = {0};
	bool fit = true, pb = false;
	size_t total = 0;

	list_around(&head, &tail, res, &p->meta);
	for (size_t i = 0; i < p->found.n && fit; i++) {
		fit = entry_fits(res, p->found.v[i]);
		total += p->found.v[i]->body->n;
		pb |= p->found.v[i]->pb;
	}
	if (rq->out.media == MEDIA_JSON && !rq->out.pretty && fit) {
		/* JSON is up to twice as long; what would push nearly everything else out is not kept */
		if (pb && total > cache_hot_limit() / 8 * 3)
			return list_pieces(rq, res, p, buf_view(&head));
		return list_blocks(rq, res, p, buf_view(&head), buf_view(&tail));
	}
	buf_str(&all, buf_view(&head));
	for (size_t i = 0; i < p->found.n; i++) {
		arena_reset(&tmp);
		if (i)
			buf_putc(&all, ',');
		if (p->made || !entry_fits(res, p->found.v[i])) {
			void *o;

			TRY(page_object(&tmp, res, p, i, &o));
			if (!res->crd)
				((struct str *)o)[0] = ((struct str *)o)[1] = STR_NULL;
			json_encode(&all, res->api->type, o);
		} else {
			TRY(cache_entry_json_append(res->st->cache, p->found.v[i], item_without(res), &all));
		}
		if (i % 256 == 255)
			fiber_yield();
	}
	buf_str(&all, buf_view(&tail));
	return respond_json(rq, 200, buf_view(&all));
}

static int flow_order(const void *a, const void *b)
{
	const struct flowcontrol_v1_flow_schema *x = *(void *const *)a, *y = *(void *const *)b;

	if (x->spec.matching_precedence != y->spec.matching_precedence)
		return x->spec.matching_precedence < y->spec.matching_precedence ? -1 : 1;
	return str_cmp(x->metadata.name, y->metadata.name);
}

/* Rows of FlowSchemas stand as these are tried; *out is NULL for all others. */
static struct error *rows_in_order(struct request *rq, struct resource *res, const struct listing *p, void ***out)
{
	*out = NULL;
	if (res->api->type != &flowcontrol_v1_flow_schema_type)
		return NULL;
	*out = arena_array(rq->a, void *, p->found.n + 1);
	for (size_t i = 0; i < p->found.n; i++)
		TRY(list_decode(rq->a, res, p->found.v[i], &(*out)[i]));
	qsort(*out, p->found.n, sizeof **out, flow_order);
	return NULL;
}

static struct error *list_table(struct request *rq, struct resource *res, const struct listing *p)
{
	struct buf b buf_cleanup = {0};
	struct arena tmp arena_cleanup = {0};
	void **ordered;
	struct table_options o = {.object = include_object(rq), .v1beta1 = rq->out.table_v1beta1, .now = time_now_micro(),
				  .api_version = res->api_version, .kind = res->api->kind};

	TRY(respond_table_options(rq));
	TRY(rows_in_order(rq, res, p, &ordered));
	table_for(rq, res, &o);
	table_begin(&b, table_resource(res), &o, &p->meta);
	for (size_t i = 0; i < p->found.n; i++) {
		void *obj;

		arena_reset(&tmp);
		if (ordered)
			obj = ordered[i];
		else
			TRY(p->made ? page_object(&tmp, res, p, i, &obj) : list_decode_printed(&tmp, res, p->found.v[i], &obj));
		table_append(rq, &b, res, &o, obj, i == 0);
		if (i % 256 == 255)
			fiber_yield();
	}
	table_end(&b, table_resource(res));
	return respond_json(rq, 200, buf_view(&b));
}

static struct error *list_partial(struct request *rq, struct resource *res, const struct listing *p)
{
	struct buf b buf_cleanup = {0}, raw buf_cleanup = {0}, one buf_cleanup = {0};
	struct arena tmp arena_cleanup = {0};
	const struct schema_type *t = &meta_v1_partial_object_metadata_type;
	struct str api_version = rq->out.table_v1beta1 ? STR("meta.k8s.io/v1beta1") : STR("meta.k8s.io/v1");
	bool pb = rq->out.media == MEDIA_PROTOBUF, first = !rq->out.table_v1beta1; /* v1beta1 has items as field 1, metadata as 2 */

	list_head(&b, STR("PartialObjectMetadataList"), api_version, &p->meta);
	if (!p->found.n && !pb) {
		/* made of nothing upstream, and so nothing */
		b.n -= 1;
		buf_puts(&b, "null}");
		return respond_json(rq, 200, buf_view(&b));
	}
	pb_encode(&one, &meta_v1_list_meta_type, &p->meta);
	if (first)
		pb_put_bytes(&raw, 1, buf_view(&one));
	for (size_t i = 0; i < p->found.n; i++) {
		struct meta_v1_partial_object_metadata *o;

		arena_reset(&tmp);
		o = arena_new(&tmp, struct meta_v1_partial_object_metadata);
		if (p->made)
			o->metadata = *object_meta(res->api->type, p->made[i]);
		else
			TRY(cache_entry_decode(&tmp, t, p->found.v[i], false, o));
		if (res->internal_meta)
			res->internal_meta(&tmp, &o->metadata);
		o->kind = pb ? STR_NULL : STR("PartialObjectMetadata");
		o->api_version = pb ? STR_NULL : api_version;
		if (pb) {
			one.n = 0;
			pb_encode(&one, t, o);
			pb_put_bytes(&raw, first ? 2 : 1, buf_view(&one));
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
		if (!first) {
			pb_encode(&one, &meta_v1_list_meta_type, &p->meta);
			pb_put_bytes(&raw, 2, buf_view(&one));
			one.n = 0;
		}
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
static struct error *expired(struct request *rq, struct error *e, const struct list_options *o)
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
	st.metadata.continue_ = continue_encode(rq, -1, o->after, false);
	error_free(e);
	rq->out.as = ANSWER_OBJECT;
	return respond_struct(rq, 410, &meta_v1_status_type, &st);
}

/* metadata.name=x: one look-up, not a walk. */
static void find_one(struct request *rq, const struct list_options *o, struct cache *c, struct listing *l)
{
	struct str key = o->ns.n ? arena_printf(rq->a, "%.*s/%.*s", STR_ARG(o->ns), STR_ARG(rq->info.name)) : rq->info.name;
	char *before = arena_bytes(rq->a, key.n + 2);
	const struct cache_entry *en;
	struct cache_iter it;

	memcpy(before, key.p, key.n);
	before[key.n - 1]--;
	before[key.n] = before[key.n + 1] = (char)0xff;
	cache_iter_init(&it, c, l->snap, o->ns, str_of(before, key.n + 2), NULL);
	en = cache_iter_next(&it);
	if (en && str_eq(cache_entry_key(en), key) && cache_matches(c, en, &o->filter))
		*arena_push(rq->a, &l->found) = en;
}

/*
 * Whether a full page is followed by another: upstream looks only at whether anything is there, not at whether it would be selected.
 * What an index has found (pods of one node) is all there is.
 */
static bool page_follows(struct request *rq, const struct list_options *o, struct cache *c, const struct listing *l, const struct cache_iter *it)
{
	struct cache_filter node = {0};
	struct cache_iter rest;
	struct str last = cache_entry_key(l->found.v[l->found.n - 1]);

	if (!it->by_node || o->after.n || o->mode == CACHE_EXACT)
		return cache_snap_count(l->snap, o->ns, last) > 0;
	error_free(field_selector_parse(rq->a, arena_printf(rq->a, "spec.nodeName=%.*s", STR_ARG(it->node)), &node.fields));
	cache_iter_init(&rest, c, l->snap, o->ns, last, &node);
	return cache_iter_next(&rest) != NULL;
}

/* Walks until the page is full. */
static struct error *find_page(struct request *rq, const struct list_options *o, struct cache *c, struct listing *l, bool *more)
{
	struct post_iter *posts = NULL;
	const struct cache_entry *en;
	struct error *e = NULL;
	struct cache_iter it;

	cache_iter_init(&it, c, l->snap, o->ns, after_key(rq, o), &o->filter);
	if (o->post)
		posts = post_iter_new(rq->res, o->post, &it);
	for (;;) {
		if (posts)
			e = post_next(posts, &en);
		else
			en = cache_iter_next(&it);
		if (e || !en)
			break;
		*arena_push(rq->a, &l->found) = en;
		if (o->limit > 0 && l->found.n >= o->limit) {
			*more = page_follows(rq, o, c, l, &it);
			break;
		}
	}
	post_iter_free(posts);
	if (!e)
		metrics_list(rq->res->st->metrics, o->mode == CACHE_CONSISTENT, it.looked, l->found.n);
	return e;
}

/* Upstream asks the store itself for a page without selectors, and for what it does not cache: there the object is an error. */
static struct error *list_whole(const struct resource *res, const struct list_options *o)
{
	return list_uncached(res) || (o->limit && !o->has_selector) ? cache_readable(res->st->cache) : cache_whole(res->st->cache);
}

struct error *list_select(struct request *rq, struct list_options *o, struct listing *l)
{
	struct cache *c = rq->res->st->cache;
	bool more = false;
	struct str last;

	memset(l, 0, sizeof *l);
	TRY(version_options(rq, o));
	TRY(list_whole(rq->res, o));
	if (o->at_once)
		TRY(cache_has_come_to(c, o->rev));
	TRY(list_version_error(rq->res, cache_snapshot(c, o->mode, o->rev, &l->snap)));
	TRY(list_whole(rq->res, o)); /* that took its time */
	if (!o->one)
		TRY(find_page(rq, o, c, l, &more));
	else if (!o->after.n || str_cmp(rq->info.name, o->after) > 0) /* what a token has passed is not found again */
		find_one(rq, o, c, l);
	l->meta.resource_version = arena_printf(rq->a, "%lld", (long long)cache_snap_rev(l->snap));
	if (!more)
		return NULL;
	last = cache_entry_key(l->found.v[l->found.n - 1]);
	l->meta.continue_ =
		continue_encode(rq, cache_snap_rev(l->snap), o->ns.n ? str_sub(last, o->ns.n + 1, last.n) : last,
				!list_uncached(rq->res));
	if (!o->has_selector) {
		l->meta.remaining_item_count = arena_new(rq->a, int64_t);
		*l->meta.remaining_item_count = (int64_t)cache_snap_count(l->snap, o->ns, last);
	}
	return NULL;
}

void list_free(struct listing *l)
{
	cache_snap_free(l->snap);
}

struct error *list_respond(struct request *rq, const struct listing *l)
{
	if (rq->out.as == ANSWER_PARTIAL)
		return error_status(406, "NotAcceptable", "PartialObjectMetadata may not be requested for a list of objects");
	if (rq->out.as == ANSWER_TABLE)
		return list_table(rq, rq->res, l);
	if (rq->out.as == ANSWER_PARTIAL_LIST)
		return list_partial(rq, rq->res, l);
	return rq->out.media == MEDIA_PROTOBUF ? list_protobuf(rq, rq->res, l) : list_objects(rq, rq->res, l);
}

struct error *rest_list(struct request *rq)
{
	struct list_options o;
	struct listing l;
	struct error *e;

	TRY(list_options(rq, &o));
	e = list_select(rq, &o, &l);
	if (!e)
		e = page_convert(rq, &l);
	e = e ? expired(rq, e, &o) : list_respond(rq, &l);
	list_free(&l);
	return e;
}
