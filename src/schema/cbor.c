/*
 * CBOR as upstream's application/cbor: written with strings as byte strings, map keys in bytewise
 * order, shortest floats, and the self-described tag in front; read with text or byte
 * strings, indefinite lengths, and the "expected later encoding" tags 21-23.
 */
#include <math.h>
#include <stdlib.h>

#include "base/map.h"
#include "schema/codec_internal.h"
#include "schema/jv.h"

#define SELF_DESCRIBED 55799
#define BASE64_LATER 22 /* bytes that are base64 in JSON */

enum major { UINT, NEGINT, BYTES, TEXT, ARRAY, MAP, TAG, SIMPLE };

struct cr {
	const uint8_t *p, *end, *start;
	struct buf *out;
	struct buf scratch;
};

static struct error *bad(struct cr *c, const char *what)
{
	return error_status(400, "BadRequest", "cbor: %s at byte %zu", what, (size_t)(c->p - c->start));
}

/* A data item's head. info 31 is an indefinite length. */
static struct error *head(struct cr *c, unsigned *major, unsigned *info, uint64_t *v)
{
	if (c->p == c->end)
		return bad(c, "unexpected EOF");
	*major = *c->p >> 5;
	*info = *c->p & 31;
	c->p++;
	*v = *info;
	if (*info < 24 || *info == 31)
		return NULL;
	if (*info > 27)
		return bad(c, "invalid additional information");
	size_t n = 1u << (*info - 24);

	if ((size_t)(c->end - c->p) < n)
		return bad(c, "unexpected EOF");
	*v = 0;
	while (n--)
		*v = *v << 8 | *c->p++;
	return NULL;
}

/* The bytes of a string whose head was read; indefinite ones are gathered. */
static struct error *string(struct cr *c, unsigned major, unsigned info, uint64_t n, struct str *out)
{
	if (info != 31) {
		if (n > (uint64_t)(c->end - c->p))
			return bad(c, "unexpected EOF");
		*out = str_of((const char *)c->p, n);
		c->p += n;
	} else {
		c->scratch.n = 0;
		for (;;) {
			unsigned m, i;

			if (c->p < c->end && *c->p == 0xff) {
				c->p++;
				break;
			}
			TRY(head(c, &m, &i, &n));
			if (m != major || i == 31)
				return bad(c, "wrong element type of an indefinite-length string");
			if (n > (uint64_t)(c->end - c->p))
				return bad(c, "unexpected EOF");
			buf_append(&c->scratch, c->p, n);
			c->p += n;
		}
		*out = buf_view(&c->scratch);
	}
	if (major == TEXT)
		for (size_t i = 0; i < out->n;) {
			unsigned len = utf8_len(out->p + i, out->p + out->n);

			if (!len)
				return bad(c, "invalid UTF-8 string");
			i += len;
		}
	return NULL;
}

static double half(uint16_t h)
{
	int e = h >> 10 & 31, m = h & 1023;
	double d = e == 0 ? ldexp(m, -24) : e == 31 ? (m ? NAN : INFINITY) : ldexp(m + 1024, e - 25);

	return h & 0x8000 ? -d : d;
}

static struct error *value(struct cr *c, unsigned depth, unsigned tag);

static struct error *items(struct cr *c, bool is_map, unsigned info, uint64_t n, unsigned depth, struct map *keys)
{
	buf_putc(c->out, is_map ? '{' : '[');
	for (uint64_t i = 0; info == 31 || i < n; i++) {
		if (info == 31 && c->p < c->end && *c->p == 0xff) {
			c->p++;
			break;
		}
		if (i)
			buf_putc(c->out, ',');
		if (is_map) {
			unsigned m, ki;
			uint64_t kn;
			struct str key;

			TRY(head(c, &m, &ki, &kn));
			if (m != BYTES && m != TEXT)
				return bad(c, "map key is not a string");
			TRY(string(c, m, ki, kn, &key));
			/* Unlike in JSON, a repeated key makes the input invalid. */
			if (map_set(keys, key, c))
				return error_status(400, "BadRequest", "cbor: found duplicate map key %.*s at map element index %llu",
						    STR_ARG(str_sub(key, 0, 256)), (unsigned long long)i);
			json_put_string(c->out, key);
			buf_putc(c->out, ':');
		}
		TRY(value(c, depth + 1, 0));
	}
	buf_putc(c->out, is_map ? '}' : ']');
	return NULL;
}

static struct error *list(struct cr *c, bool is_map, unsigned info, uint64_t n, unsigned depth)
{
	if (depth == CODEC_MAX_DEPTH)
		return bad(c, "exceeded max nested level");
	struct map keys = {0};
	struct error *e = items(c, is_map, info, n, depth, &keys);

	map_free(&keys);
	return e;
}

static struct error *number(struct cr *c, double d, unsigned tag)
{
	if (tag == 1)
		return bad(c, "times with a fraction are not supported");
	if (!isfinite(d))
		return bad(c, "floating-point NaN and infinity are not supported");
	json_put_double(c->out, d);
	return NULL;
}

/* Tag 21 to 23: a byte string to be shown as base64url (not used by JSON readers: base64), base64 or hex. */
static void encoded(struct cr *c, struct str s, unsigned tag)
{
	buf_putc(c->out, '"');
	if (tag == 23) {
		for (size_t i = 0; i < s.n; i++)
			buf_printf(c->out, "%02x", (uint8_t)s.p[i]);
	} else {
		size_t from = c->out->n;

		base64_encode(c->out, s);
		if (tag == 21) {
			for (size_t i = from; i < c->out->n; i++) {
				char *p = &c->out->p[i];

				*p = *p == '+' ? '-' : *p == '/' ? '_' : *p;
			}
			while (c->out->n > from && c->out->p[c->out->n - 1] == '=')
				c->out->n--;
		}
	}
	buf_putc(c->out, '"');
}

static struct error *value(struct cr *c, unsigned depth, unsigned tag)
{
	unsigned major, info, tags = 0;
	uint64_t n;

	for (;;) {
		TRY(head(c, &major, &info, &n));
		if (major != TAG)
			break;
		if (info == 31)
			return bad(c, "invalid tag");
		if (n == 2 || n == 3)
			return bad(c, "big integers are not supported");
		if (++tags > 8)
			return bad(c, "too many tags around one value");
		tag = n == 1 || (n >= 21 && n <= 23) ? (unsigned)n : tag; /* others do not change what JSON says */
	}
	if (info == 31 && major < BYTES)
		return bad(c, "invalid additional information");
	switch (major) {
	case UINT:
	case NEGINT: {
		int64_t v = major == UINT ? (int64_t)n : -1 - (int64_t)n;

		if (n > INT64_MAX)
			return bad(c, "integer does not fit int64");
		if (tag != 1) {
			buf_i64(c->out, v);
			return NULL;
		}
		if (v < -62135596800LL || v > 253402300799LL)
			return bad(c, "time is out of range");
		buf_putc(c->out, '"');
		time_put(c->out, (struct api_time){.s = v, .set = true}, false);
		buf_putc(c->out, '"');
		return NULL;
	}
	case BYTES:
	case TEXT: {
		struct str s;

		TRY(string(c, major, info, n, &s));
		if (major == BYTES && tag > 1)
			encoded(c, s, tag);
		else
			json_put_string(c->out, s);
		return NULL;
	}
	case ARRAY:
	case MAP:
		return list(c, major == MAP, info, n, depth);
	default:
		break;
	}
	switch (info) {
	case 20:
	case 21:
		buf_puts(c->out, info == 21 ? "true" : "false");
		return NULL;
	case 22:
		buf_puts(c->out, "null");
		return NULL;
	case 25:
		return number(c, half((uint16_t)n), tag);
	case 26: {
		uint32_t bits = (uint32_t)n;
		float f;

		memcpy(&f, &bits, 4);
		return number(c, (double)f, tag);
	}
	case 27: {
		double d;

		memcpy(&d, &n, 8);
		return number(c, d, tag);
	}
	default:
		return bad(c, info == 31 ? "unexpected break" : "unsupported simple value");
	}
}

struct error *cbor_to_json(struct str in, struct decode_report *report, struct buf *out)
{
	buf_cleanup struct buf json = {0};
	struct cr c = {.p = (const uint8_t *)in.p, .end = (const uint8_t *)in.p + in.n, .start = (const uint8_t *)in.p, .out = &json};
	struct error *e;

	if (!in.n)
		c.p = c.end = c.start = (const uint8_t *)"";
	e = value(&c, 0, 0);
	if (!e && c.p != c.end)
		e = error_status(400, "BadRequest", "cbor: %zu bytes of extraneous data starting at index %zu",
				 (size_t)(c.end - c.p), (size_t)(c.p - c.start));
	buf_free(&c.scratch);
	if (e)
		return e;
	buf_str(out, buf_view(&json));
	if (out->overflow)
		return error_status(413, "RequestEntityTooLarge", "the object is too large as JSON");
	return NULL;
}

/* ---- writing ---- */

static void put_head(struct buf *b, unsigned major, uint64_t v)
{
	uint8_t tmp[9];
	size_t n = v < 24 ? 0 : v <= UINT8_MAX ? 1 : v <= UINT16_MAX ? 2 : v <= UINT32_MAX ? 4 : 8;

	tmp[0] = (uint8_t)(major << 5 | (n == 0 ? v : n == 1 ? 24 : n == 2 ? 25 : n == 4 ? 26 : 27));
	for (size_t i = 0; i < n; i++)
		tmp[1 + i] = (uint8_t)(v >> 8 * (n - 1 - i));
	buf_append(b, tmp, n + 1);
}

static void put_str(struct buf *b, struct str s)
{
	put_head(b, BYTES, s.n);
	buf_str(b, s);
}

static void put_be(struct buf *b, uint8_t first, uint64_t v, unsigned n)
{
	buf_putc(b, (char)first);
	while (n--)
		buf_putc(b, (char)(v >> 8 * n));
}

static void put_double(struct buf *b, double d)
{
	float f = (float)d;
	uint64_t bits;

	if ((double)f != d) {
		memcpy(&bits, &d, 8);
		put_be(b, 0xfb, bits, 8);
		return;
	}
	int e;
	double m = frexp(fabs(d), &e); /* m in [0.5, 1) */
	uint32_t sign = signbit(d) ? 0x8000 : 0, h = 0;
	double scaled = d == 0 ? 0 : e - 1 >= -14 ? ldexp(m, 11) : ldexp(fabs(d), 24);

	if (d == 0)
		h = sign;
	else if (e - 1 <= 15 && scaled == floor(scaled) && scaled < 2048)
		h = sign | (e - 1 >= -14 ? ((uint32_t)(e - 1 + 15) << 10 | ((uint32_t)scaled & 1023)) : (uint32_t)scaled);
	else {
		uint32_t fb;

		memcpy(&fb, &f, 4);
		put_be(b, 0xfa, fb, 4);
		return;
	}
	put_be(b, 0xf9, h, 2);
}

/* Bytewise order of encoded keys: shorter first. */
static int key_order(const void *x, const void *y)
{
	const struct jv_member *const *p = x, *const *q = y;

	if ((*p)->key.n != (*q)->key.n)
		return (*p)->key.n < (*q)->key.n ? -1 : 1;
	return str_cmp((*p)->key, (*q)->key);
}

/* What a value is by its type: of messages, maps and lists of them, or bytes. All zero: nothing is known. */
struct as {
	const struct schema_type *type;
	bool bytes, map, event; /* event: what is in it is of the type, and is a document of its own */
};

static struct as as_type(const struct schema_type *t)
{
	return (struct as){.type = t && t->json == SCHEMA_OBJECT ? t : NULL};
}

static struct as as_member(struct as as, struct str name)
{
	const struct schema_field *f;
	struct as m = {0};

	if (as.map || as.event)
		return (struct as){.type = as.type, .bytes = as.bytes};
	f = as.type ? schema_field(as.type, name) : NULL;
	if (!f)
		return m;
	if (f->kind == FIELD_MESSAGE)
		m = as_type(f->type);
	m.bytes = f->kind == FIELD_BYTES;
	m.map = f->card == CARD_MAP;
	return m;
}

/* What an object says that it is. */
static struct as as_named(const struct jv *v)
{
	struct str group, version, kind = jv_str(jv_get(v, STR("kind")));

	api_version_split(jv_str(jv_get(v, STR("apiVersion"))), &group, &version);
	return as_type(kind.n ? schema_type_for_kind(group, version, kind) : NULL);
}

static void put_value(struct buf *b, struct arena *a, const struct jv *v, struct as as)
{
	struct str bytes;

	switch (v->kind) {
	case JV_NULL:
		buf_putc(b, (char)0xf6);
		break;
	case JV_BOOL:
		buf_putc(b, (char)(v->b ? 0xf5 : 0xf4));
		break;
	case JV_INT:
		if (v->i < 0)
			put_head(b, NEGINT, (uint64_t)(-1 - v->i));
		else
			put_head(b, UINT, (uint64_t)v->i);
		break;
	case JV_DOUBLE:
		put_double(b, v->d);
		break;
	case JV_STRING:
		if (as.bytes && base64_decode(a, jv_str(v), &bytes)) {
			put_head(b, TAG, BASE64_LATER);
			put_str(b, bytes);
		} else {
			put_str(b, jv_str(v));
		}
		break;
	case JV_ARRAY:
		put_head(b, ARRAY, v->n);
		for (uint32_t i = 0; i < v->n; i++)
			put_value(b, a, &v->items[i], as);
		break;
	case JV_OBJECT: {
		const struct jv_member **order = arena_array(a, const struct jv_member *, v->n);

		for (uint32_t i = 0; i < v->n; i++)
			order[i] = &v->members[i];
		if (v->n > 1)
			qsort(order, v->n, sizeof *order, key_order);
		put_head(b, MAP, v->n);
		for (uint32_t i = 0; i < v->n; i++) {
			put_str(b, order[i]->key);
			if (as.event && order[i]->value.kind == JV_OBJECT)
				put_head(b, TAG, SELF_DESCRIBED);
			put_value(b, a, &order[i]->value, as_member(as, order[i]->key));
		}
		break;
	}
	}
}

struct error *json_to_cbor(struct str json, struct buf *out)
{
	arena_cleanup struct arena a = {0};
	struct jv root = {0};
	const struct jv *object;
	struct as as;

	TRY(jv_parse(&a, json, NULL, &root));
	put_head(out, TAG, SELF_DESCRIBED);
	object = jv_get(&root, STR("kind")) ? NULL : jv_get(&root, STR("object")); /* of a watch event */
	as = as_named(object ? object : &root);
	as.event = object != NULL;
	put_value(out, &a, &root, as);
	if (out->overflow)
		return error_status(500, "InternalError", "the object is too large as CBOR");
	return NULL;
}
