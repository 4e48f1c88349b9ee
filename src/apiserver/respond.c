/* Answers: formats, conversions, compression, headers. */
#include <zlib.h>
#include "apiserver/audit.h"
#include "apiserver/custom.h"
#include "apiserver/list.h"
#include "apiserver/metrics.h"
#include "base/log.h"

#define GZIP_THRESHOLD (128 * 1024) /* upstream's defaultGzipThresholdBytes */

void request_warn(struct request *rq, const char *fmt, ...)
{
	va_list ap;
	struct str w;

	va_start(ap, fmt);
	w = arena_vprintf(rq->a, fmt, ap);
	va_end(ap);
	if (!w.n || rq->warnings.n >= WARNINGS_MAX)
		return;
	for (uint32_t i = 0; i < rq->warnings.n; i++)
		if (str_eq(rq->warnings.v[i], w))
			return;
	*arena_push(rq->a, &rq->warnings) = w;
}

void request_annotate(struct request *rq, struct str key, struct str value)
{
	if (!rq->s->audit)
		return;
	for (uint32_t i = 0; i < rq->annotations.n; i++)
		if (str_eq(rq->annotations.v[i].key, key))
			return;
	if (rq->annotations.n < ANNOTATIONS_MAX)
		*arena_push(rq->a, &rq->annotations) = (struct str_pair){arena_str(rq->a, key), arena_str(rq->a, value)};
}

struct error *request_body(struct request *rq, size_t limit, struct str *out)
{
	struct error *e = http_body_all(rq->x, limit, out);

	/* a body that is malformed or ends early is an error nobody translated, in upstream */
	if (error_is_sys(e, EPROTO) || error_is_sys(e, EPIPE)) {
		struct error *broken = error_status(500, "", "%s", e->message);

		error_free(e);
		return broken;
	}
	TRY(e);
	rq->body_read = true;
	rq->body_bytes = out->n;
	audit_request_body(rq, *out);
	return NULL;
}

#define WARNINGS_RUNES 4096 /* together; beyond that each is cut */
#define WARNING_RUNES 256

/* Bytes of the first `max` characters; *runes gets how many there are of them. */
static size_t runes_of(struct str w, size_t max, size_t *runes)
{
	size_t i = 0;

	for (*runes = 0; i < w.n; i++)
		if (((unsigned char)w.p[i] & 0xc0) != 0x80 && ++*runes > max) {
			--*runes;
			break;
		}
	return i;
}

/* What has control characters is no header: left out, as upstream does. */
static bool warning_writable(struct str w)
{
	for (size_t i = 0; i < w.n; i++) {
		unsigned char c = (unsigned char)w.p[i], next = i + 1 < w.n ? (unsigned char)w.p[i + 1] : 0;

		if (c < 0x20 || c == 0x7f || (c == 0xc2 && next >= 0x80 && next < 0xa0))
			return false;
	}
	return true;
}

/* RFC 7234 quoted-string. */
static void warning_append(struct buf *b, struct str w)
{
	buf_puts(b, "299 - \"");
	for (size_t i = 0; i < w.n; i++) {
		if (w.p[i] == '"' || w.p[i] == '\\')
			buf_putc(b, '\\');
		buf_putc(b, w.p[i]);
	}
	buf_putc(b, '"');
}

static void warning_headers(struct request *rq)
{
	size_t total = 0, n, max = SIZE_MAX;

	for (uint32_t i = 0; i < rq->warnings.n; i++)
		if (warning_writable(rq->warnings.v[i])) {
			runes_of(rq->warnings.v[i], SIZE_MAX, &n);
			total += n;
		}
	if (total > WARNINGS_RUNES)
		max = WARNING_RUNES;
	total = 0;
	for (uint32_t i = 0; i < rq->warnings.n && total < WARNINGS_RUNES; i++) {
		struct buf b buf_cleanup = {0};
		struct str w = str_sub(rq->warnings.v[i], 0, runes_of(rq->warnings.v[i], max, &n));

		if (!warning_writable(w))
			continue;
		total += n;
		warning_append(&b, w);
		http_add_header(rq->x, "warning", buf_view(&b));
	}
}

void respond_headers(struct request *rq)
{
	http_set_header(rq->x, "audit-id", rq->audit_id);
	http_set_header(rq->x, "cache-control", rq->cache_control.n ? rq->cache_control : STR("no-cache, private"));
	warning_headers(rq);
}

enum { GZIP_CHUNK = 64 * 1024 };

struct pieces {
	struct request *rq;
	bool gzip;
	z_stream z;
	char *out;
};

static struct error *pieces_deflate(struct pieces *w, struct str piece, int flush)
{
	z_stream *z = &w->z;
	int r;

	z->next_in = (Bytef *)(uintptr_t)piece.p;
	z->avail_in = (uInt)piece.n;
	do {
		r = deflate(z, flush);
		if (z->avail_out == 0 || r == Z_STREAM_END) {
			TRY(http_write(w->rq->x, str_of(w->out, GZIP_CHUNK - z->avail_out)));
			z->next_out = (Bytef *)w->out;
			z->avail_out = GZIP_CHUNK;
		}
	} while (z->avail_in || (flush == Z_FINISH && r != Z_STREAM_END));
	return NULL;
}

/* Headers but content-length, and the compressor when wanted. */
static struct error *pieces_start(struct request *rq, int status, bool gzip, struct pieces **out)
{
	struct pieces *w = xcalloc(1, sizeof *w);
	struct error *e;

	w->rq = rq;
	w->gzip = gzip;
	if (gzip) {
		/* level 1, as upstream */
		if (deflateInit2(&w->z, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK) {
			free(w);
			return err_internal("gzip cannot start");
		}
		w->out = xmalloc(GZIP_CHUNK);
		w->z.next_out = (Bytef *)w->out;
		w->z.avail_out = GZIP_CHUNK;
		http_set_header(rq->x, "content-encoding", STR("gzip"));
		http_set_header(rq->x, "vary", STR("Accept-Encoding"));
	}
	e = http_start(rq->x, status);
	if (e)
		return pieces_end(w, e);
	*out = w;
	return NULL;
}

struct error *pieces_begin(struct request *rq, int status, struct str content_type, struct pieces **out)
{
	*out = NULL;
	rq->status = status;
	respond_headers(rq);
	http_set_header(rq->x, "content-type", content_type);
	return pieces_start(rq, status, accepts_gzip(&rq->x->headers), out);
}

struct error *pieces_write(struct pieces *w, struct str piece)
{
	audit_answer_piece(w->rq, STR("application/json"), piece);
	return w->gzip ? pieces_deflate(w, piece, Z_NO_FLUSH) : http_write(w->rq->x, piece);
}

struct error *pieces_end(struct pieces *w, struct error *e)
{
	if (!e && w->gzip)
		e = pieces_deflate(w, STR(""), Z_FINISH);
	if (!e)
		e = http_end(w->rq->x);
	if (w->gzip)
		deflateEnd(&w->z);
	free(w->out);
	free(w);
	return e;
}

static struct error *respond_gzip(struct request *rq, int status, struct iovec *iov, int n)
{
	struct pieces *w;
	struct error *e = NULL;

	TRY(pieces_start(rq, status, true, &w));
	for (int i = 0; !e && i < n; i++)
		e = pieces_deflate(w, str_of(iov[i].iov_base, iov[i].iov_len), Z_NO_FLUSH);
	return pieces_end(w, e);
}

struct error *respond_iov(struct request *rq, int status, struct str content_type, struct iovec *iov, int n)
{
	size_t total = 0;

	rq->status = status;
	respond_headers(rq);
	if (content_type.n)
		http_set_header(rq->x, "content-type", content_type);
	for (int i = 0; i < n; i++) {
		total += iov[i].iov_len;
		audit_answer_piece(rq, content_type, str_of(iov[i].iov_base, iov[i].iov_len));
	}
	audit_answered(rq);
	if (total > GZIP_THRESHOLD && accepts_gzip(&rq->x->headers))
		return respond_gzip(rq, status, iov, n);
	return http_respond_iov(rq->x, status, iov, n);
}

struct error *respond_bytes(struct request *rq, int status, struct str content_type, struct str body)
{
	struct iovec iov = {(void *)(uintptr_t)body.p, body.n};

	return respond_iov(rq, status, content_type, &iov, body.n ? 1 : 0);
}

struct error *respond_text(struct request *rq, int status, struct str text)
{
	rq->status = status;
	respond_headers(rq);
	http_set_header(rq->x, "content-type", STR("text/plain; charset=utf-8"));
	http_set_header(rq->x, "x-content-type-options", STR("nosniff"));
	return http_respond(rq->x, status, arena_printf(rq->a, "%.*s\n", STR_ARG(text)));
}

void pretty_json(struct buf *out, struct str json)
{
	int depth = 0;
	bool in_string = false, empty;

#define NEWLINE()                                                                                                                       \
	do {                                                                                                                            \
		buf_putc(out, '\n');                                                                                                    \
		for (int k_ = 0; k_ < depth; k_++)                                                                                      \
			buf_append(out, "  ", 2);                                                                                       \
	} while (0)
	for (size_t i = 0; i < json.n; i++) {
		char c = json.p[i];

		if (in_string) {
			buf_putc(out, c);
			if (c == '\\' && i + 1 < json.n)
				buf_putc(out, json.p[++i]);
			else if (c == '"')
				in_string = false;
			continue;
		}
		switch (c) {
		case '"':
			in_string = true;
			buf_putc(out, c);
			break;
		case '{':
		case '[':
			buf_putc(out, c);
			empty = i + 1 < json.n && (json.p[i + 1] == '}' || json.p[i + 1] == ']');
			if (empty) {
				buf_putc(out, json.p[++i]);
			} else {
				depth++;
				NEWLINE();
			}
			break;
		case '}':
		case ']':
			depth--;
			NEWLINE();
			buf_putc(out, c);
			break;
		case ',':
			buf_putc(out, c);
			NEWLINE();
			break;
		case ':':
			buf_append(out, ": ", 2);
			break;
		case ' ':
		case '\n':
		case '\t':
		case '\r':
			break;
		default:
			buf_putc(out, c);
		}
	}
#undef NEWLINE
}

/* JSON text in whatever of the JSON-like formats was negotiated. */
struct error *respond_json(struct request *rq, int status, struct str json)
{
	struct buf b buf_cleanup = {0};
	struct error *e;

	switch (rq->out.media) {
	case MEDIA_YAML:
		e = json_to_yaml(json, &b);
		if (e && status < 400) { /* that, too, is said in the format, whatever was to be made of the object */
			respond_error(rq, e);
			return NULL;
		}
		TRY(e);
		return respond_bytes(rq, status, rq->out.content_type, buf_view(&b));
	case MEDIA_CBOR:
		TRY(json_to_cbor(json, &b));
		return respond_bytes(rq, status, rq->out.content_type, buf_view(&b));
	default:
		break;
	}
	if (rq->out.pretty) {
		pretty_json(&b, json);
		return respond_bytes(rq, status, STR("application/json"), buf_view(&b));
	} else {
		struct iovec iov[2] = {{(void *)(uintptr_t)json.p, json.n}, {"\n", 1}};

		return respond_iov(rq, status, STR("application/json"), iov, 2);
	}
}

static struct error *respond_partial(struct request *rq, int status, const struct meta_v1_object_meta *m)
{
	struct meta_v1_partial_object_metadata p = {.kind = STR("PartialObjectMetadata"),
						    .api_version = rq->out.table_v1beta1 ? STR("meta.k8s.io/v1beta1") : STR("meta.k8s.io/v1"),
						    .metadata = *m};

	rq->out.as = ANSWER_OBJECT;
	return respond_struct(rq, status, &meta_v1_partial_object_metadata_type, &p);
}

struct error *respond_table_options(const struct request *rq)
{
	struct str v = query_get(&rq->q, "includeObject");

	if (rq->out.as != ANSWER_TABLE || !v.n || str_eqz(v, "None") || str_eqz(v, "Object") || str_eqz(v, "Metadata"))
		return NULL;
	return err_bad_request("Unable to convert to Table as requested: includeObject: Invalid value: \"%.*s\": must be 'Metadata', 'Object', "
			       "'None', or empty", STR_ARG(v));
}

struct error *respond_struct(struct request *rq, int status, const struct schema_type *t, const void *obj)
{
	struct buf b buf_cleanup = {0};

	TRY(respond_table_options(rq));
	if (t == &meta_v1_status_type)
		audit_answer_status(rq, obj);
	if (t != &meta_v1_status_type && rq->out.as == ANSWER_PARTIAL)
		return respond_partial(rq, status, object_meta(t, (void *)(uintptr_t)obj));
	if (t != &meta_v1_status_type && rq->out.as == ANSWER_PARTIAL_LIST && rq->res && rq->res->crd)
		return error_status(500, "", "a custom object is no list"); /* which upstream finds out late */
	if (t != &meta_v1_status_type && rq->out.as == ANSWER_PARTIAL_LIST)
		return error_status(406, "NotAcceptable", "PartialObjectMetadataList may not be requested for a single object");
	if (rq->out.media == MEDIA_PROTOBUF) {
		object_encode(&b, MEDIA_PROTOBUF, t, obj);
		return respond_bytes(rq, status, rq->out.content_type, buf_view(&b));
	}
	json_encode(&b, t, obj);
	return respond_json(rq, status, buf_view(&b));
}

/* The time a request may take is over. Upstream's filter says so for whoever works on it: no kind, no type, no flow. */
static void respond_timeout(struct request *rq)
{
	struct error *e;

	static const struct meta_v1_status_details nothing;
	static const struct meta_v1_status said = {
		.status = STR_INIT("Failure"),
		.message = STR_INIT("Timeout: request did not complete within the allotted timeout"),
		.reason = STR_INIT("Timeout"),
		.details = (struct meta_v1_status_details *)(uintptr_t)&nothing,
		.code = 504,
	};

	rq->audit_status = &said;
	rq->status = 504;
	metrics_terminated(rq, 504);
	http_unset_header(rq->x, "x-kubernetes-pf-flowschema-uid");
	http_unset_header(rq->x, "x-kubernetes-pf-prioritylevel-uid");
	respond_headers(rq);
	http_set_header(rq->x, "content-type", STR("text/plain; charset=utf-8"));
	fiber_shield_begin();
	e = http_respond(rq->x, 504,
			 STR("{\"metadata\":{},\"status\":\"Failure\",\"message\":\"Timeout: request did not complete "
			     "within the allotted timeout\","
			     "\"reason\":\"Timeout\",\"details\":{},\"code\":504}\n"));
	fiber_shield_end();
	log_and_free(e, "answering %.*s", STR_ARG(rq->info.path));
}

void respond_error(struct request *rq, struct error *e)
{
	struct meta_v1_status *st = arena_new(rq->a, struct meta_v1_status);
	struct error *w;
	bool timed_out;

	if (!e)
		return;
	if (error_is_sys(e, ECANCELED) && !rq->s->stopping) {
		/* the client has gone: nobody to answer */
		rq->status = rq->status ? rq->status : 499;
		error_free(e);
		return;
	}
	timed_out = error_is_sys(e, ETIMEDOUT) && !e->status;
	if (timed_out && !http_started(rq->x)) {
		error_free(e);
		respond_timeout(rq);
		return;
	}
	if (http_started(rq->x)) {
		log_v(2, "%.*s %.*s failed after its answer began: %s", STR_ARG(rq->x->method), STR_ARG(rq->info.path),
		      error_message(e));
		error_free(e);
		metrics_aborted(rq);
		return;
	}
	status_from_error(rq->a, e, st);
	if (e->retry_after_seconds > 0)
		http_set_header(rq->x, "retry-after", arena_printf(rq->a, "%d", e->retry_after_seconds));
	if (st->code >= 500)
		log_warn("%.*s %.*s: %d %s", STR_ARG(rq->x->method), STR_ARG(rq->info.path), st->code,
			 error_message(e));
	error_free(e);
	rq->out.as = ANSWER_OBJECT;
	fiber_shield_begin();
	w = respond_struct(rq, st->code, &meta_v1_status_type, st);
	if (w && !http_started(rq->x)) { /* the format has no way to say it: that is said, under the code of what was to be said */
		int32_t code = st->code;

		*st = (struct meta_v1_status){0};
		status_from_error(rq->a, w, st);
		error_free(w);
		w = respond_struct(rq, code, &meta_v1_status_type, st);
	}
	fiber_shield_end();
	if (w) {
		log_v(2, "answering %.*s: %s", STR_ARG(rq->info.path), error_message(w));
		error_free(w);
	}
}

struct error *respond_success(struct request *rq, struct resource *res, struct str name, struct str uid)
{
	struct meta_v1_status st = {.kind = STR("Status"), .api_version = STR("v1"), .status = STR("Success")};
	struct meta_v1_status_details d = {0};

	TRY(respond_table_options(rq));
	if (name.n) {
		d.name = name;
		d.group = res->api->group;
		d.kind = res->api->plural;
		d.uid = uid;
		st.details = &d;
	}
	rq->out.as = ANSWER_OBJECT;
	return respond_struct(rq, 200, &meta_v1_status_type, &st);
}

void pb_put_varint(struct buf *b, uint64_t v)
{
	while (v >= 0x80) {
		buf_putc(b, (char)(v | 0x80));
		v >>= 7;
	}
	buf_putc(b, (char)v);
}

void pb_put_bytes(struct buf *b, unsigned field, struct str s)
{
	pb_put_varint(b, (uint64_t)field << 3 | 2);
	pb_put_varint(b, s.n);
	buf_str(b, s);
}

void pb_envelope_begin(struct buf *b, struct str api_version, struct str kind)
{
	struct buf tm buf_cleanup = {0};

	buf_append(b, "k8s\0", 4);
	pb_put_bytes(&tm, 1, api_version);
	pb_put_bytes(&tm, 2, kind);
	pb_put_bytes(b, 1, buf_view(&tm));
}

bool entry_fits(const struct resource *res, const struct cache_entry *e)
{
	return !res->from_storage && (!res->crd || custom_bytes_fit(res, e));
}

struct error *respond_entry(struct request *rq, int status, struct resource *res, const struct cache_entry *e, bool *done)
{
	struct error *err;

	*done = false;
	if (rq->out.as != ANSWER_OBJECT || rq->out.pretty || !entry_fits(res, e))
		return NULL;
	if (rq->out.media == MEDIA_PROTOBUF && e->pb) {
		struct buf head buf_cleanup = {0};
		struct str body = block_str(e->body), end = PB_ENVELOPE_END;

		*done = true;
		pb_envelope_begin(&head, res->api_version, res->api->kind);
		struct iovec iov[3] = {{head.p, head.n}, {(void *)(uintptr_t)body.p, body.n}, {(void *)(uintptr_t)end.p, end.n}};

		return respond_iov(rq, status, rq->out.content_type, iov, 3);
	}
	if (rq->out.media == MEDIA_JSON) {
		struct block *json;

		*done = true;
		TRY(cache_entry_json(res->st->cache, e, &json));
		struct iovec iov[2] = {{json->bytes, json->n}, {"\n", 1}};

		err = respond_iov(rq, status, STR("application/json"), iov, 2);
		block_unref(json);
		return err;
	}
	return NULL;
}

struct error *respond_object(struct request *rq, int status, struct resource *res, void *obj)
{
	const struct schema_type *t = res->api->type;
	void *out = obj;
	struct buf b buf_cleanup = {0};

	TRY(respond_table_options(rq));
	if (res->from_storage) {
		out = arena_alloc(rq->a, t->size);
		res->from_storage(rq->a, obj, out);
	}
	if (res->st->strategy && res->st->strategy->decorate)
		res->st->strategy->decorate(obj);
	((struct str *)out)[0] = res->api->kind;
	((struct str *)out)[1] = res->api_version;
	switch (rq->out.as) {
	case ANSWER_TABLE: {
		struct table_options o = {.object = include_object(rq), .v1beta1 = rq->out.table_v1beta1, .now = time_now_micro(),
					  .api_version = res->api_version,
					  .kind = res->api->kind};
		struct meta_v1_list_meta lm = {.resource_version = object_meta(t, out)->resource_version};

		table_for(rq, res, &o);
		table_begin(&b, table_resource(res), &o, &lm);
		table_append(rq, &b, res, &o, res->printed ? obj : out, true);
		table_end(&b, table_resource(res));
		return respond_json(rq, status, buf_view(&b));
	}
	case ANSWER_PARTIAL: {
		struct meta_v1_object_meta m;

		partial_meta(rq->a, res, out, &m);
		return respond_partial(rq, status, &m);
	}
	default:
		return respond_struct(rq, status, t, out);
	}
}
