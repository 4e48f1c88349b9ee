/* Whole objects: any format, metadata, items, copies, equality. */
#include "schema/codec.h"
#include "schema/codec_internal.h"
#include "schema/quantity.h"

struct meta_v1_object_meta *object_meta(const struct schema_type *t, void *obj)
{
	return t->metadata < 0 ? NULL : (void *)((char *)obj + t->metadata);
}

struct meta_v1_list_meta *list_meta(const struct schema_type *t, void *list)
{
	return t->metadata < 0 ? NULL : (void *)((char *)list + t->metadata);
}

void list_items(const struct schema_type *t, void *list, void **items, size_t *n, const struct schema_type **elem)
{
	const struct schema_field *f = schema_field(t, STR("items"));

	*items = NULL;
	*n = 0;
	*elem = NULL;
	if (!f || f->card != CARD_LIST)
		return;
	struct raw_list *l = (void *)((char *)list + f->offset);

	*items = l->v;
	*n = l->n;
	*elem = f->type;
}

/* ---- copy ---- */

static void copy_str(struct arena *a, struct str *s)
{
	if (s->n)
		*s = arena_str(a, *s);
	else if (s->p)
		s->p = "";
}

static void copy_message(struct arena *a, const struct schema_type *t, char *to);

static void *copy_array(struct arena *a, const struct raw_list *l, size_t elem)
{
	void *v = arena_alloc(a, l->n * elem);

	if (l->n)
		memcpy(v, l->v, l->n * elem);
	return v;
}

static void copy_strings(struct arena *a, struct strings *l)
{
	if (!l->v)
		return;
	l->v = copy_array(a, (const struct raw_list *)(const void *)l, sizeof(struct str));
	l->cap = l->n;
	for (uint32_t i = 0; i < l->n; i++)
		copy_str(a, &l->v[i]);
}

/* *v is a bytewise copy; makes what it points to its own. */
static void copy_value(struct arena *a, uint8_t kind, const struct schema_type *type, void *v)
{
	switch (kind) {
	case FIELD_STRING:
	case FIELD_BYTES:
	case FIELD_QUANTITY:
	case FIELD_RAW:
	case FIELD_FIELDSV1:
	case FIELD_JSON:
	case FIELD_ANY:
		copy_str(a, v);
		break;
	case FIELD_INTSTR:
		copy_str(a, &((struct int_or_string *)v)->s);
		break;
	case FIELD_STRINGS:
		copy_strings(a, v);
		break;
	case FIELD_MESSAGE:
		copy_message(a, type, v);
		break;
	default:
		break;
	}
}

static void copy_message(struct arena *a, const struct schema_type *t, char *to)
{
	for (unsigned k = 0; k < t->n_fields; k++) {
		const struct schema_field *f = &t->fields[k];
		void *v = to + f->offset;

		if (f->card == CARD_ONE) {
			copy_value(a, f->kind, f->type, v);
		} else if (f->card == CARD_PTR) {
			void **p = v;

			if (!*p)
				continue;
			size_t n = value_size(f->kind, f->type);
			void *own = arena_alloc(a, n);

			memcpy(own, *p, n);
			*p = own;
			copy_value(a, f->kind, f->type, own);
		} else {
			struct raw_list *l = v;

			if (!l->v)
				continue;
			l->v = copy_array(a, l, f->elem_size);
			l->cap = l->n;
			for (uint32_t i = 0; i < l->n; i++) {
				char *e = l->v + (size_t)i * f->elem_size;

				if (f->card == CARD_MAP) {
					copy_str(a, (struct str *)(void *)e);
					e += f->value_offset;
				}
				copy_value(a, f->kind, f->type, e);
			}
		}
	}
}

void object_copy(struct arena *a, const struct schema_type *t, const void *from, void *to)
{
	if (to != from)
		memcpy(to, from, t->size);
	copy_message(a, t, to);
}

/* ---- equality ---- */

/* What of an absent value and an empty one differs: nothing, bytes (their protobuf does), lists and maps as well. */
enum exactness { MEANING, STORED, EXACT };

static bool equal_message(const struct schema_type *t, const char *x, const char *y, enum exactness exact);

static bool equal_value(uint8_t kind, const struct schema_type *type, const void *x, const void *y, enum exactness exact)
{
	switch (kind) {
	case FIELD_BYTES:
		if (exact && !((const struct str *)x)->p != !((const struct str *)y)->p)
			return false;
		__attribute__((fallthrough));
	case FIELD_STRING:
	case FIELD_RAW:
	case FIELD_FIELDSV1:
	case FIELD_JSON:
	case FIELD_ANY:
		return str_eq(*(const struct str *)x, *(const struct str *)y);
	case FIELD_BOOL:
		return *(const bool *)x == *(const bool *)y;
	case FIELD_INT32:
	case FIELD_UINT32:
		return *(const int32_t *)x == *(const int32_t *)y;
	case FIELD_INT64:
	case FIELD_UINT64:
	case FIELD_DURATION:
		return *(const int64_t *)x == *(const int64_t *)y;
	case FIELD_DOUBLE:
		return *(const double *)x == *(const double *)y;
	case FIELD_QUANTITY: {
		struct str p = *(const struct str *)x, q = *(const struct str *)y;

		return str_eq(p, q) || quantity_cmp(p, q) == 0;
	}
	case FIELD_INTSTR: {
		const struct int_or_string *p = x, *q = y;

		return p->is_str == q->is_str && (p->is_str ? str_eq(p->s, q->s) : p->i == q->i);
	}
	case FIELD_TIME:
	case FIELD_MICROTIME: {
		const struct api_time *p = x, *q = y;

		return p->set == q->set && (!p->set || (p->s == q->s && p->ns == q->ns));
	}
	case FIELD_STRINGS: {
		const struct strings *p = x, *q = y;

		if (p->n != q->n || (exact == EXACT && !p->v != !q->v))
			return false;
		for (uint32_t i = 0; i < p->n; i++)
			if (!str_eq(p->v[i], q->v[i]))
				return false;
		return true;
	}
	default:
		return equal_message(type, x, y, exact);
	}
}

static const char *map_find(const struct schema_field *f, const struct raw_list *l, struct str key, uint32_t hint)
{
	for (uint32_t k = 0; k < l->n; k++) {
		uint32_t i = hint + k < l->n ? hint + k : hint + k - l->n;
		const char *e = l->v + (size_t)i * f->elem_size;

		if (str_eq(*(const struct str *)(const void *)e, key))
			return e;
	}
	return NULL;
}

static bool equal_message(const struct schema_type *t, const char *x, const char *y, enum exactness exact)
{
	for (unsigned k = 0; k < t->n_fields; k++) {
		const struct schema_field *f = &t->fields[k];
		const void *p = x + f->offset, *q = y + f->offset;

		if (f->card == CARD_ONE) {
			if (!equal_value(f->kind, f->type, p, q, exact))
				return false;
		} else if (f->card == CARD_PTR) {
			const void *pp = *(void *const *)p, *qq = *(void *const *)q;

			if (!pp != !qq || (pp && pp != qq && !equal_value(f->kind, f->type, pp, qq, exact)))
				return false;
		} else {
			const struct raw_list *l = p, *m = q;

			if (l->n != m->n || (exact == EXACT && !l->v != !m->v))
				return false;
			for (uint32_t i = 0; i < l->n; i++) {
				const char *e = l->v + (size_t)i * f->elem_size, *g = m->v + (size_t)i * f->elem_size;

				if (f->card == CARD_MAP) {
					g = map_find(f, m, *(const struct str *)(const void *)e, i);
					if (!g)
						return false;
					e += f->value_offset;
					g += f->value_offset;
				}
				if (!equal_value(f->kind, f->type, e, g, exact))
					return false;
			}
		}
	}
	return true;
}

bool object_equal(const struct schema_type *t, const void *a, const void *b)
{
	return a == b || equal_message(t, a, b, MEANING);
}

bool object_stored_equal(const struct schema_type *t, const void *a, const void *b)
{
	return a == b || equal_message(t, a, b, STORED);
}

bool object_identical(const struct schema_type *t, const void *a, const void *b)
{
	return a == b || equal_message(t, a, b, EXACT);
}

/* ---- any format ---- */

static void set_type_meta(const struct schema_type *t, void *out, struct str api_version, struct str kind)
{
	if (t->top) {
		struct str *meta = out;

		meta[0] = kind;
		meta[1] = api_version;
	}
}

static struct error *take_json(struct arena *a, struct error *e, struct buf *b, struct str *out)
{
	if (!e)
		*out = arena_str(a, buf_view(b));
	return e;
}

struct error *yaml_decode(struct arena *a, const struct schema_type *t, struct str in, struct decode_report *report, void *out)
{
	buf_cleanup struct buf b = {0};
	struct str json;

	TRY(take_json(a, yaml_to_json(in, report, &b), &b, &json));
	return json_decode(a, t, json, report, out);
}

enum media_type media_recognize(struct str stored)
{
	return pb_is_envelope(stored) ? MEDIA_PROTOBUF : stored.n && stored.p[0] == '{' ? MEDIA_JSON : MEDIA_YAML;
}

struct error *object_decode(struct arena *a, enum media_type m, const struct schema_type *t, struct str in,
			    struct decode_report *report, void *out)
{
	switch (m) {
	case MEDIA_JSON:
		return json_decode(a, t, in, report, out);
	case MEDIA_YAML:
		return yaml_decode(a, t, in, report, out);
	case MEDIA_CBOR: {
		buf_cleanup struct buf b = {0};
		struct str json;

		TRY(take_json(a, cbor_to_json(in, report, &b), &b, &json));
		return json_decode(a, t, json, report, out);
	}
	case MEDIA_PROTOBUF: {
		struct pb_envelope env;

		TRY(pb_envelope_decode(in, &env));
		TRY(pb_decode_outside(a, t, env.raw, out));
		set_type_meta(t, out, env.api_version, env.kind);
		return NULL;
	}
	}
	return error_status(415, "UnsupportedMediaType", "unknown media type %d", (int)m);
}

void object_encode(struct buf *b, enum media_type m, const struct schema_type *t, const void *obj)
{
	if (m == MEDIA_JSON) {
		json_encode(b, t, obj);
		return;
	}
	if (m == MEDIA_PROTOBUF) {
		const struct str *meta = obj;
		char version[256];
		struct str kind = t->top ? meta[0] : STR_NULL, api_version = t->top ? meta[1] : STR_NULL;

		/* The envelope names the type even where the object does not. */
		if (t->top && !kind.n)
			kind = str_from(t->name);
		if (t->top && !api_version.n) {
			struct buf v = {.p = version, .cap = sizeof version};

			if (t->group.n + t->version.n + 1 <= sizeof version) {
				buf_str(&v, t->group);
				if (t->group.n)
					buf_putc(&v, '/');
				buf_str(&v, t->version);
				api_version = buf_view(&v);
			}
		}
		pb_envelope_encode(b, api_version, kind, t, obj);
		return;
	}
	buf_cleanup struct buf json = {0};
	struct error *e;

	json_encode(&json, t, obj);
	e = m == MEDIA_YAML ? json_to_yaml(buf_view(&json), b) : json_to_cbor(buf_view(&json), b);
	if (e) {
		/* Our own JSON is always valid: what is left is the caller's limit. */
		b->overflow = true;
		error_free(e);
	}
}

static bool is_member(struct str key, struct str name, bool any_case)
{
	return any_case ? key.n == name.n && !strncasecmp(key.p, name.p, name.n) : str_eq(key, name);
}

/* kind and apiVersion among the top-level members of JSON text; of several the last, as upstream's. */
static struct error *json_peek(struct arena *a, struct str in, bool any_case, struct str *api_version, struct str *kind)
{
	const char *p = in.p, *end = in.p + in.n;
	struct json_syntax_error syn = {0};

	p = json_space(p, end);
	if (p == end || *p != '{') {
		bool spaces = false, null = end - p >= 4 && !memcmp(p, "null", 4);

		if (p < end && json_skip(p, end, JSON_SKIP_DEPTH, &spaces, &syn))
			return null ? NULL : error_status(400, "BadRequest", "couldn't get version/kind; json parse error: the text is not an object");
		if (p == end)
			syn.at = p;
		return error_wrap(json_syntax_error(in, &syn), "couldn't get version/kind; json parse error");
	}
	p = json_space(p + 1, end);
	while (p < end && *p != '}') {
		struct str key, value;
		bool spaces = false;

		syn.at = p;
		syn.context = "looking for beginning of object key string";
		if (*p != '"')
			goto bad;
		p = json_string(a, p + 1, end, &key, &syn);
		if (!p)
			goto bad;
		p = json_space(p, end);
		syn.at = p;
		syn.context = p < end ? "after object key" : NULL;
		if (p == end || *p != ':')
			goto bad;
		p = json_space(p + 1, end);
		syn.at = p;
		syn.context = NULL;
		if (p == end)
			goto bad;
		bool is_kind = is_member(key, STR("kind"), any_case),
		     is_version = is_member(key, STR("apiVersion"), any_case);

		if ((is_kind || is_version) && *p == '"') {
			p = json_string(a, p + 1, end, &value, &syn);
			if (!p)
				goto bad;
			*(is_kind ? kind : api_version) = value;
		} else {
			if ((is_kind || is_version) && *p != 'n')
				return error_status(400, "BadRequest",
						    "couldn't get version/kind; json parse error: json: cannot unmarshal into Go struct "
						    "field .%.*s of type string",
						    STR_ARG(key));
			p = json_skip(p, end, JSON_SKIP_DEPTH - 1, &spaces, &syn);
			if (!p)
				goto bad;
		}
		p = json_space(p, end);
		syn.at = p;
		syn.context = p < end ? "after object key:value pair" : NULL;
		if (p == end || (*p != ',' && *p != '}'))
			goto bad;
		if (*p == ',') {
			p = json_space(p + 1, end);
			syn.at = p;
			syn.context = p < end ? "looking for beginning of object key string" : NULL;
			if (p == end || *p != '"')
				goto bad;
		}
	}
	syn.at = p;
	syn.context = NULL;
	if (p == end)
		goto bad;
	syn.at = json_space(p + 1, end);
	syn.context = "after top-level value";
	if (syn.at == end)
		return NULL;
bad:
	return error_wrap(json_syntax_error(in, &syn), "couldn't get version/kind; json parse error");
}

struct error *object_peek(struct arena *a, enum media_type m, struct str in, bool any_case, struct str *api_version,
			  struct str *kind)
{
	*api_version = *kind = STR_NULL;
	switch (m) {
	case MEDIA_JSON:
		return json_peek(a, in, any_case, api_version, kind);
	case MEDIA_PROTOBUF: {
		struct pb_envelope env;

		TRY(pb_envelope_decode(in, &env));
		*api_version = env.api_version;
		*kind = env.kind;
		return NULL;
	}
	case MEDIA_YAML:
	case MEDIA_CBOR: {
		buf_cleanup struct buf b = {0};
		struct str json;

		TRY(take_json(a, m == MEDIA_YAML ? yaml_to_json(in, NULL, &b) : cbor_to_json(in, NULL, &b), &b, &json));
		return json_peek(a, json, any_case, api_version, kind);
	}
	}
	return error_status(415, "UnsupportedMediaType", "unknown media type %d", (int)m);
}
