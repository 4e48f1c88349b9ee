#include "schema/jv.h"
#include "schema/codec_internal.h"

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/auxv.h>

/*
 * Items and members stand behind a hidden head: their room and, for objects
 * over INDEX_MIN members, an open-addressing table of member numbers + 1.
 * A NULL items/members pointer has no head.
 */
struct head {
	uint32_t cap, mask; /* mask: slots - 1, 0 without an index */
	uint32_t *index;
};
_Static_assert(sizeof(struct head) == 16, "elements behind the head stay aligned");
_Static_assert(sizeof(struct jv) == 16, "a node is 16 bytes");

#define INDEX_MIN 24

static struct head *head_of(const void *elements)
{
	return (struct head *)(void *)((char *)(uintptr_t)elements - sizeof(struct head));
}

static void *elements_new(struct arena *a, uint32_t cap, size_t size)
{
	struct head *h = arena_alloc(a, sizeof *h + (size_t)cap * size);

	h->cap = cap;
	return h + 1;
}

/* ---- objects ---- */

/*
 * First slot of a key. Multiplied by a secret of the process, so that nobody
 * can choose keys that all meet in one place.
 */
static uint32_t slot_of(struct str key, uint32_t mask)
{
	static uint64_t secret;
	uint64_t v = __atomic_load_n(&secret, __ATOMIC_RELAXED);

	if (!v) { /* racing threads store the same */
		const void *bytes = (const void *)getauxval(AT_RANDOM);

		v = 0x9e3779b97f4a7c15ull;
		if (bytes)
			memcpy(&v, bytes, sizeof v);
		v |= 1;
		__atomic_store_n(&secret, v, __ATOMIC_RELAXED);
	}
	return (uint32_t)((str_hash(key) * v) >> 32) & mask;
}

static void index_put(struct head *h, struct str key, uint32_t i)
{
	uint32_t at = slot_of(key, h->mask);

	while (h->index[at])
		at = (at + 1) & h->mask;
	h->index[at] = i + 1;
}

/* Slot of member i, which must be in the index. */
static uint32_t index_slot(const struct jv *o, uint32_t i)
{
	struct head *h = head_of(o->members);
	uint32_t at = slot_of(o->members[i].key, h->mask);

	while (h->index[at] != i + 1) {
		assert(h->index[at]);
		at = (at + 1) & h->mask;
	}
	return at;
}

static void index_build(struct arena *a, struct jv *o)
{
	struct head *h = head_of(o->members);
	uint32_t slots = 64;

	while (slots < h->cap * 2)
		slots *= 2;
	h->index = arena_array(a, uint32_t, slots);
	h->mask = slots - 1;
	for (uint32_t i = 0; i < o->n; i++)
		index_put(h, o->members[i].key, i);
}

static struct jv_member *member_find(const struct jv *o, struct str key)
{
	if (!o || o->kind != JV_OBJECT || !o->n)
		return NULL;
	const struct head *h = head_of(o->members);

	if (h->mask) {
		uint32_t at = slot_of(key, h->mask);

		for (; h->index[at]; at = (at + 1) & h->mask)
			if (str_eq(o->members[h->index[at] - 1].key, key))
				return &o->members[h->index[at] - 1];
		return NULL;
	}
	for (uint32_t i = 0; i < o->n; i++)
		if (str_eq(o->members[i].key, key))
			return &o->members[i];
	return NULL;
}

struct jv *jv_get(const struct jv *o, struct str key)
{
	struct jv_member *m = member_find(o, key);

	return m ? &m->value : NULL;
}

struct jv *jv_at(const struct jv *o, ...)
{
	va_list ap;
	const char *name;
	struct jv *v = (struct jv *)(uintptr_t)o;

	va_start(ap, o);
	while (v && (name = va_arg(ap, const char *)))
		v = jv_get(v, str_from(name));
	va_end(ap);
	return v;
}

struct jv *jv_path(const struct jv *o, struct str path)
{
	struct jv *v = (struct jv *)(uintptr_t)o;
	size_t at = 0;

	while (v && at < path.n) {
		if (path.p[at] == '[') {
			int64_t i;
			ptrdiff_t end = str_index(str_sub(path, at, path.n), ']');

			if (end < 0 || !str_to_i64(str_sub(path, at + 1, at + (size_t)end), &i) || i < 0 ||
			    v->kind != JV_ARRAY || i >= v->n)
				return NULL;
			v = &v->items[i];
			at += (size_t)end + 1;
			continue;
		}
		at += path.p[at] == '.';
		size_t start = at;

		while (at < path.n && path.p[at] != '.' && path.p[at] != '[')
			at++;
		v = jv_get(v, str_sub(path, start, at));
	}
	return v;
}

struct jv *jv_set(struct arena *a, struct jv *o, struct str key, struct jv value)
{
	assert(o->kind == JV_OBJECT);
	struct jv_member *m = member_find(o, key);

	if (m) {
		m->value = value;
		return &m->value;
	}
	struct head *h = o->members ? head_of(o->members) : NULL;
	bool grown = !h || o->n == h->cap;

	if (grown) {
		struct jv_member *v = elements_new(a, h ? h->cap * 2 : 4, sizeof *v);

		if (o->n)
			memcpy(v, o->members, o->n * sizeof *v);
		o->members = v;
		h = head_of(v);
	}
	m = &o->members[o->n++];
	m->key = key;
	m->value = value;
	if (h->mask)
		index_put(h, key, o->n - 1);
	else if (o->n > INDEX_MIN)
		index_build(a, o);
	return &m->value;
}

struct jv *jv_sub(struct arena *a, struct jv *o, struct str key)
{
	struct jv *v = jv_get(o, key);

	if (v && v->kind == JV_OBJECT)
		return v;
	return jv_set(a, o, key, jv_object());
}

/* Empties a slot of the index and moves back the entries that were pushed past it. */
static void index_clear(const struct jv *o, struct head *h, uint32_t at)
{
	uint32_t next = at;

	for (;;) {
		h->index[at] = 0;
		for (;;) {
			next = (next + 1) & h->mask;
			if (!h->index[next])
				return;
			uint32_t home = slot_of(o->members[h->index[next] - 1].key, h->mask);

			/* May stay if its home lies behind the hole (cyclically). */
			if (((next - home) & h->mask) < ((next - at) & h->mask))
				continue;
			break;
		}
		h->index[at] = h->index[next];
		at = next;
	}
}

bool jv_del(struct jv *o, struct str key)
{
	struct jv_member *m = member_find(o, key);

	if (!m)
		return false;
	struct head *h = head_of(o->members);
	uint32_t i = (uint32_t)(m - o->members);

	if (!h->mask) {
		memmove(m, m + 1, (o->n - i - 1) * sizeof *m);
		o->n--;
		return true;
	}
	uint32_t last = o->n - 1;

	index_clear(o, h, index_slot(o, i));
	if (i != last) {
		uint32_t slot = index_slot(o, last);

		o->members[i] = o->members[last];
		h->index[slot] = i + 1;
	}
	o->n--;
	return true;
}

/* ---- arrays ---- */

struct jv *jv_insert(struct arena *a, struct jv *array, uint32_t i, struct jv value)
{
	assert(array->kind == JV_ARRAY && i <= array->n);
	struct head *h = array->items ? head_of(array->items) : NULL;

	if (!h || array->n == h->cap) {
		struct jv *v = elements_new(a, h ? h->cap * 2 : 4, sizeof *v);

		if (array->n)
			memcpy(v, array->items, array->n * sizeof *v);
		array->items = v;
	}
	memmove(&array->items[i + 1], &array->items[i], (array->n - i) * sizeof *array->items);
	array->n++;
	array->items[i] = value;
	return &array->items[i];
}

struct jv *jv_push(struct arena *a, struct jv *array, struct jv value)
{
	return jv_insert(a, array, array->n, value);
}

void jv_remove(struct jv *array, uint32_t i)
{
	assert(array->kind == JV_ARRAY && i < array->n);
	memmove(&array->items[i], &array->items[i + 1], (array->n - i - 1) * sizeof *array->items);
	array->n--;
}

/* ---- comparison and copies ---- */

static double number(const struct jv *v)
{
	return v->kind == JV_INT ? (double)v->i : v->d;
}

bool jv_equal(const struct jv *a, const struct jv *b)
{
	if (a->kind != b->kind)
		return ((a->kind == JV_INT && b->kind == JV_DOUBLE) || (a->kind == JV_DOUBLE && b->kind == JV_INT)) &&
		       number(a) == number(b);
	switch ((enum jv_kind)a->kind) {
	case JV_NULL:
		return true;
	case JV_BOOL:
		return a->b == b->b;
	case JV_INT:
		return a->i == b->i;
	case JV_DOUBLE:
		return a->d == b->d;
	case JV_STRING:
		return str_eq(jv_str(a), jv_str(b));
	case JV_ARRAY:
		if (a->n != b->n)
			return false;
		for (uint32_t i = 0; i < a->n; i++)
			if (!jv_equal(&a->items[i], &b->items[i]))
				return false;
		return true;
	case JV_OBJECT:
		if (a->n != b->n)
			return false;
		for (uint32_t i = 0; i < a->n; i++) {
			const struct jv_member *m = &a->members[i];
			/* Mostly in the same order. */
			const struct jv_member *o = str_eq(b->members[i].key, m->key) ? &b->members[i]
										      : member_find(b, m->key);

			if (!o || !jv_equal(&m->value, &o->value))
				return false;
		}
		return true;
	}
	return false;
}

uint64_t jv_hash(const struct jv *v)
{
	uint64_t h = 0;
	double d;

	switch ((enum jv_kind)v->kind) {
	case JV_NULL:
		break;
	case JV_BOOL:
		return 1 + v->b;
	case JV_INT:
	case JV_DOUBLE:
		d = number(v) == 0 ? 0 : number(v); /* -0 is 0 */
		return str_hash(str_of((const char *)&d, sizeof d));
	case JV_STRING:
		return str_hash(jv_str(v));
	case JV_ARRAY:
		for (uint32_t i = 0; i < v->n; i++)
			h = (h ^ jv_hash(&v->items[i])) * 0x9e3779b97f4a7c15u + 1;
		return h;
	case JV_OBJECT:
		for (uint32_t i = 0; i < v->n; i++) /* in any order */
			h += (str_hash(v->members[i].key) ^ (jv_hash(&v->members[i].value) * 0x9e3779b97f4a7c15u)) * 0xff51afd7ed558ccdu;
		return h;
	}
	return h;
}

static int member_cmp(const void *x, const void *y)
{
	return str_cmp((*(const struct jv_member *const *)x)->key, (*(const struct jv_member *const *)y)->key);
}

/* malloc'ed pointers to the members in order of their keys. */
static const struct jv_member **members_sorted(const struct jv *o)
{
	const struct jv_member **v = malloc((o->n + 1) * sizeof *v);

	if (!v)
		abort();
	for (uint32_t i = 0; i < o->n; i++)
		v[i] = &o->members[i];
	qsort(v, o->n, sizeof *v, member_cmp);
	return v;
}

/* numbers < strings < booleans < arrays < objects < null: structured-merge-diff's order. */
static int rank(const struct jv *v)
{
	switch ((enum jv_kind)v->kind) {
	case JV_INT:
	case JV_DOUBLE:
		return 0;
	case JV_STRING:
		return 1;
	case JV_BOOL:
		return 2;
	case JV_ARRAY:
		return 3;
	case JV_OBJECT:
		return 4;
	case JV_NULL:
		break;
	}
	return 5;
}

int jv_cmp(const struct jv *a, const struct jv *b)
{
	int ra = rank(a), rb = rank(b), c = 0;

	if (ra != rb)
		return ra < rb ? -1 : 1;
	switch ((enum jv_kind)a->kind) {
	case JV_NULL:
		return 0;
	case JV_BOOL:
		return (int)a->b - (int)b->b;
	case JV_INT:
		if (b->kind == JV_INT)
			return (a->i > b->i) - (a->i < b->i);
		/* fall through */
	case JV_DOUBLE:
		return (number(a) > number(b)) - (number(a) < number(b));
	case JV_STRING:
		return str_cmp(jv_str(a), jv_str(b));
	case JV_ARRAY:
		for (uint32_t i = 0; i < a->n && i < b->n; i++)
			if ((c = jv_cmp(&a->items[i], &b->items[i])))
				return c;
		return (a->n > b->n) - (a->n < b->n);
	case JV_OBJECT: {
		const struct jv_member **ma = members_sorted(a), **mb = members_sorted(b);

		for (uint32_t i = 0; i < a->n && i < b->n && !c; i++) {
			c = str_cmp(ma[i]->key, mb[i]->key);
			if (!c)
				c = jv_cmp(&ma[i]->value, &mb[i]->value);
		}
		free(ma);
		free(mb);
		return c ? c : (a->n > b->n) - (a->n < b->n);
	}
	}
	return 0;
}

static struct jv copy(struct arena *a, const struct jv *v, bool bytes)
{
	struct jv out = *v;

	switch ((enum jv_kind)v->kind) {
	case JV_STRING:
		if (bytes)
			out.p = arena_str(a, jv_str(v)).p;
		break;
	case JV_ARRAY:
		if (!v->n) {
			out.items = NULL;
			break;
		}
		out.items = elements_new(a, v->n, sizeof *out.items);
		for (uint32_t i = 0; i < v->n; i++)
			out.items[i] = copy(a, &v->items[i], bytes);
		break;
	case JV_OBJECT:
		if (!v->n) {
			out.members = NULL;
			break;
		}
		out.members = elements_new(a, v->n, sizeof *out.members);
		for (uint32_t i = 0; i < v->n; i++) {
			struct str key = v->members[i].key;

			out.members[i].key = bytes ? arena_str(a, key) : key;
			out.members[i].value = copy(a, &v->members[i].value, bytes);
		}
		if (v->n > INDEX_MIN)
			index_build(a, &out);
		break;
	default:
		break;
	}
	return out;
}

struct jv jv_copy(struct arena *a, const struct jv *v)
{
	return copy(a, v, false);
}

struct jv jv_copy_all(struct arena *a, const struct jv *v)
{
	return copy(a, v, true);
}

/* ---- parser ---- */

struct frame { /* where we are, for reports */
	const struct frame *parent;
	struct str key;
	int64_t index; /* >= 0: array */
};

struct parser {
	struct arena *a;
	const char *start, *p, *end;
	struct decode_report *report;
	char *stack; /* children of open containers; nodes of the innermost last */
	size_t stack_n, stack_cap;
	LIST(size_t) places; /* of the duplicates that were reported, in the text and in the report's order */
};

static struct error *syntax(struct parser *p, const char *context)
{
	if (p->p >= p->end)
		return error_status(400, "BadRequest", "unexpected end of JSON input");
	unsigned char c = (unsigned char)*p->p;
	char shown[16];

	if (c == '\'')
		strcpy(shown, "'\\''");
	else if (c >= 0x20 && c < 0x7f)
		snprintf(shown, sizeof shown, c == '\\' ? "'\\\\'" : "'%c'", c);
	else if (c == '\n')
		strcpy(shown, "'\\n'");
	else if (c == '\t')
		strcpy(shown, "'\\t'");
	else if (c == '\r')
		strcpy(shown, "'\\r'");
	else if (c < 0x80)
		snprintf(shown, sizeof shown, "'\\x%02x'", c);
	else
		snprintf(shown, sizeof shown, "'\\u%04x'", c);
	return error_status(400, "BadRequest", "invalid character %s %s at offset %zu", shown, context,
			    (size_t)(p->p - p->start));
}

static void *stack_push(struct parser *p, size_t size)
{
	if (p->stack_cap - p->stack_n < size) {
		p->stack_cap = p->stack_cap ? p->stack_cap * 2 : 4096;
		p->stack = realloc(p->stack, p->stack_cap);
		if (!p->stack)
			abort();
	}
	p->stack_n += size;
	return p->stack + p->stack_n - size;
}

static void skip_space(struct parser *p)
{
	while (p->p < p->end && (*p->p == ' ' || *p->p == '\n' || *p->p == '\t' || *p->p == '\r'))
		p->p++;
}

static int hex4(const char *p)
{
	int v = 0;

	for (int i = 0; i < 4; i++) {
		char c = p[i];
		int d = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10
					       : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;

		if (d < 0)
			return -1 - i;
		v = v * 16 + d;
	}
	return v;
}

/* Behind the opening quote: checks up to the closing one; *plain when the bytes stand for themselves. */
static struct error *string_scan(struct parser *p, bool *plain)
{
	*plain = true;
	while (p->p < p->end) {
		/* Eight bytes at a time while none is special: control, quote, backslash or not ASCII. */
		for (uint64_t w; p->end - p->p >= 8; p->p += 8) {
			const uint64_t ones = 0x0101010101010101ull, high = ones << 7;

			memcpy(&w, p->p, 8);
			uint64_t quote = w ^ ones * '"', slash = w ^ ones * '\\';

			if ((w | (w - ones * 0x20) | (quote - ones) | (slash - ones)) & high)
				break;
		}
		if (p->p >= p->end)
			break;
		unsigned char c = (unsigned char)*p->p;

		if (c == '"')
			return NULL;
		if (c == '\\') {
			*plain = false;
			p->p++;
			if (p->p >= p->end)
				break;
			if (*p->p == 'u') {
				p->p++;
				for (int i = 0; i < 4; i++, p->p++) {
					if (p->p >= p->end)
						return syntax(p, "");
					char h = *p->p;

					if (!((h >= '0' && h <= '9') || (h >= 'a' && h <= 'f') || (h >= 'A' && h <= 'F')))
						return syntax(p, "in \\u hexadecimal character escape");
				}
				continue;
			}
			if (!strchr("\"\\/bfnrt", *p->p) || !*p->p)
				return syntax(p, "in string escape code");
			p->p++;
		} else if (c < 0x20) {
			return syntax(p, "in string literal");
		} else if (c < 0x80) {
			p->p++;
		} else {
			size_t n = utf8_len(p->p, p->end);

			if (!n)
				*plain = false;
			p->p += n ? n : 1;
		}
	}
	return syntax(p, "");
}

static struct error *parse_string(struct parser *p, struct str *out)
{
	const char *from = ++p->p;
	bool plain;

	TRY(string_scan(p, &plain));
	*out = str_of(from, (size_t)(p->p - from));
	if (plain) {
		p->p++;
		return NULL;
	}
	/* An invalid byte grows to three. */
	char *to = arena_bytes(p->a, out->n * 3 + 1), *w = to;

	for (const char *r = from; r < p->p;) {
		if (*r == '\\') {
			r++;
			if (*r == 'u') {
				int32_t c = hex4(r + 1);

				r += 5;
				if (c >= 0xd800 && c < 0xdc00 && p->p - r >= 6 && r[0] == '\\' && r[1] == 'u') {
					int32_t lo = hex4(r + 2);

					if (lo >= 0xdc00 && lo < 0xe000) {
						c = 0x10000 + ((c - 0xd800) << 10) + (lo - 0xdc00);
						r += 6;
					}
				}
				if (c >= 0xd800 && c < 0xe000)
					c = 0xfffd;
				w += utf8_put(w, (uint32_t)c);
				continue;
			}
			switch (*r++) {
			case 'b':
				*w++ = '\b';
				break;
			case 'f':
				*w++ = '\f';
				break;
			case 'n':
				*w++ = '\n';
				break;
			case 'r':
				*w++ = '\r';
				break;
			case 't':
				*w++ = '\t';
				break;
			default:
				*w++ = r[-1];
			}
			continue;
		}
		size_t n = utf8_len(r, p->p);

		if (!n) {
			w += utf8_put(w, 0xfffd);
			r++;
			continue;
		}
		memcpy(w, r, n);
		w += n;
		r += n;
	}
	*out = str_of(to, (size_t)(w - to));
	p->p++;
	return NULL;
}

static bool digit(const struct parser *p)
{
	return p->p < p->end && *p->p >= '0' && *p->p <= '9';
}

static struct error *parse_number(struct parser *p, struct jv *out)
{
	const char *from = p->p;
	bool negative = *p->p == '-', integer = true, fits = true;
	uint64_t v = 0;

	p->p += negative;
	if (!digit(p))
		return syntax(p, "in numeric literal");
	if (*p->p == '0') {
		p->p++;
	} else {
		for (; digit(p); p->p++) {
			uint64_t d = (uint64_t)(*p->p - '0');

			if (v > (UINT64_MAX - d) / 10)
				fits = false;
			v = v * 10 + d;
		}
	}
	if (p->p < p->end && *p->p == '.') {
		integer = false;
		p->p++;
		if (!digit(p))
			return syntax(p, "after decimal point in numeric literal");
		while (digit(p))
			p->p++;
	}
	if (p->p < p->end && (*p->p == 'e' || *p->p == 'E')) {
		integer = false;
		p->p++;
		if (p->p < p->end && (*p->p == '+' || *p->p == '-'))
			p->p++;
		if (!digit(p))
			return syntax(p, "in exponent of numeric literal");
		while (digit(p))
			p->p++;
	}
	if (integer && fits && v <= (uint64_t)INT64_MAX + negative) {
		*out = jv_int(negative ? (int64_t)(0 - v) : (int64_t)v);
		return NULL;
	}
	struct str text = str_of(from, (size_t)(p->p - from));
	double d = strtod(arena_strz(p->a, text), NULL);

	if (d - d != 0)
		return error_status(400, "BadRequest", "number %.*s at offset %zu is out of range",
				    (int)(text.n > 64 ? 64 : text.n), text.p, (size_t)(from - p->start));
	*out = jv_double(d);
	return NULL;
}

static struct error *parse_word(struct parser *p, const char *word, struct jv v, struct jv *out)
{
	for (size_t i = 0; word[i]; i++, p->p++) {
		if (p->p >= p->end || *p->p != word[i]) {
			char context[48];

			snprintf(context, sizeof context, "in literal %s (expecting '%c')", word, word[i]);
			return syntax(p, context);
		}
	}
	*out = v;
	return NULL;
}

static void path_text(struct buf *b, const struct frame *f)
{
	if (!f)
		return;
	path_text(b, f->parent);
	if (f->index >= 0) {
		buf_printf(b, "[%lld]", (long long)f->index);
	} else {
		if (b->n)
			buf_putc(b, '.');
		buf_str(b, f->key);
	}
}

/* In the order of the text: what is within a value was found before the value's own repetition. */
static void report_duplicate(struct parser *p, const struct frame *f, size_t at)
{
	struct decode_report *r = p->report;

	if (!r || r->problems.n >= 1000)
		return;
	buf_cleanup struct buf b = {0};

	buf_puts(&b, "duplicate field \"");
	buf_cleanup struct buf path = {0};

	path_text(&path, f);
	buf_str(&b, buf_view(&path));
	buf_putc(&b, '"');
	struct str text = arena_str(r->arena, buf_view(&b));

	for (uint32_t i = 0; i < r->problems.n; i++)
		if (str_eq(r->problems.v[i], text))
			return;
	uint32_t i = p->places.n, problem;

	*arena_push(p->a, &p->places) = at;
	*arena_push(r->arena, &r->problems) = text;
	problem = r->problems.n - 1;
	for (; i > 0 && p->places.v[i - 1] > at; i--, problem--) {
		p->places.v[i] = p->places.v[i - 1];
		r->problems.v[problem] = r->problems.v[problem - 1];
	}
	p->places.v[i] = at;
	r->problems.v[problem] = text;
}

static struct error *parse_value(struct parser *p, const struct frame *up, int depth, struct jv *out);

static struct error *parse_array(struct parser *p, const struct frame *up, int depth, struct jv *out)
{
	size_t base = p->stack_n;
	struct frame f = {up, STR_NULL, 0};

	p->p++;
	skip_space(p);
	if (p->p < p->end && *p->p == ']') {
		p->p++;
		*out = jv_array();
		return NULL;
	}
	for (;;) {
		struct jv v;

		TRY(parse_value(p, &f, depth, &v));
		f.index++;
		memcpy(stack_push(p, sizeof v), &v, sizeof v);
		skip_space(p);
		if (p->p < p->end && *p->p == ',') {
			p->p++;
			continue;
		}
		if (p->p >= p->end || *p->p != ']')
			return syntax(p, "after array element");
		p->p++;
		break;
	}
	*out = jv_array();
	out->n = (uint32_t)((p->stack_n - base) / sizeof(struct jv));
	out->items = elements_new(p->a, out->n, sizeof(struct jv));
	memcpy(out->items, p->stack + base, p->stack_n - base);
	p->stack_n = base;
	return NULL;
}

struct parsed_member {
	struct jv_member m;
	size_t at; /* its key, in the text */
};

/* Members with the last of duplicates winning; reports the others. */
static void object_close(struct parser *p, const struct frame *up, const struct parsed_member *v, uint32_t n, struct jv *out)
{
	*out = jv_object();
	if (!n)
		return;
	out->members = elements_new(p->a, n, sizeof v->m);
	if (n > INDEX_MIN)
		index_build(p->a, out); /* still empty: filled by jv_set */
	for (uint32_t i = 0; i < n; i++) {
		if (member_find(out, v[i].m.key))
			report_duplicate(p, &(struct frame){up, v[i].m.key, -1}, v[i].at);
		jv_set(p->a, out, v[i].m.key, v[i].m.value);
	}
}

static struct error *parse_object(struct parser *p, const struct frame *up, int depth, struct jv *out)
{
	size_t base = p->stack_n;

	p->p++;
	skip_space(p);
	if (p->p < p->end && *p->p == '}') {
		p->p++;
		*out = jv_object();
		return NULL;
	}
	for (;;) {
		struct parsed_member m = {.at = (size_t)(p->p - p->start)};

		if (p->p >= p->end || *p->p != '"')
			return syntax(p, "looking for beginning of object key string");
		TRY(parse_string(p, &m.m.key));
		skip_space(p);
		if (p->p >= p->end || *p->p != ':')
			return syntax(p, "after object key");
		p->p++;
		struct frame f = {up, m.m.key, -1};

		TRY(parse_value(p, &f, depth, &m.m.value));
		memcpy(stack_push(p, sizeof m), &m, sizeof m);
		skip_space(p);
		if (p->p < p->end && *p->p == ',') {
			p->p++;
			skip_space(p);
			continue;
		}
		if (p->p >= p->end || *p->p != '}')
			return syntax(p, "after object key:value pair");
		p->p++;
		break;
	}
	object_close(p, up, (const struct parsed_member *)(void *)(p->stack + base),
		     (uint32_t)((p->stack_n - base) / sizeof(struct parsed_member)), out);
	p->stack_n = base;
	return NULL;
}

static struct error *parse_value(struct parser *p, const struct frame *up, int depth, struct jv *out)
{
	skip_space(p);
	if (p->p >= p->end)
		return syntax(p, "");
	switch (*p->p) {
	case '{':
	case '[':
		if (depth >= JV_MAX_DEPTH)
			return error_status(400, "BadRequest", "exceeded max depth of %d at offset %zu", JV_MAX_DEPTH,
					    (size_t)(p->p - p->start));
		return *p->p == '{' ? parse_object(p, up, depth + 1, out) : parse_array(p, up, depth + 1, out);
	case '"': {
		struct str s;

		TRY(parse_string(p, &s));
		*out = jv_string(s);
		return NULL;
	}
	case 't':
		return parse_word(p, "true", jv_bool(true), out);
	case 'f':
		return parse_word(p, "false", jv_bool(false), out);
	case 'n':
		return parse_word(p, "null", JV_NULL_VALUE, out);
	case '-':
	case '0' ... '9':
		return parse_number(p, out);
	}
	return syntax(p, "looking for beginning of value");
}

struct error *jv_parse(struct arena *a, struct str text, struct decode_report *report, struct jv *out)
{
	if (text.n > UINT32_MAX)
		return error_status(413, "RequestEntityTooLarge", "JSON text of %zu bytes is over the limit of 4 GiB", text.n);
	if (!text.p)
		text.p = ""; /* nothing is added to a null pointer */
	struct parser p = {.a = a, .start = text.p, .p = text.p, .end = text.p + text.n, .report = report};
	struct error *e = parse_value(&p, NULL, 0, out);

	if (!e) {
		skip_space(&p);
		if (p.p < p.end)
			e = syntax(&p, "after top-level value");
	}
	free(p.stack);
	return e;
}

/* ---- encoder ---- */

void jv_encode_string(struct buf *b, struct str s)
{
	json_put_string(b, s);
}

enum { ENCODE_SORTED = 1, ENCODE_FLOATS = 2 };

static void encode(struct buf *b, const struct jv *v, unsigned how)
{
	switch ((enum jv_kind)v->kind) {
	case JV_NULL:
		buf_append(b, "null", 4);
		return;
	case JV_BOOL:
		buf_puts(b, v->b ? "true" : "false");
		return;
	case JV_INT:
		buf_i64(b, v->i);
		return;
	case JV_DOUBLE:
		json_put_double(b, v->d);
		if ((how & ENCODE_FLOATS) && fabs(v->d) < 0x1p63 && v->d == (double)(int64_t)v->d)
			buf_puts(b, ".0");
		return;
	case JV_STRING:
		jv_encode_string(b, jv_str(v));
		return;
	case JV_ARRAY:
		buf_putc(b, '[');
		for (uint32_t i = 0; i < v->n; i++) {
			if (i)
				buf_putc(b, ',');
			encode(b, &v->items[i], how);
		}
		buf_putc(b, ']');
		return;
	case JV_OBJECT: {
		const struct jv_member **order = (how & ENCODE_SORTED) && v->n > 1 ? members_sorted(v) : NULL;

		buf_putc(b, '{');
		for (uint32_t i = 0; i < v->n; i++) {
			const struct jv_member *m = order ? order[i] : &v->members[i];

			if (i)
				buf_putc(b, ',');
			jv_encode_string(b, m->key);
			buf_putc(b, ':');
			encode(b, &m->value, how);
		}
		buf_putc(b, '}');
		free(order);
		return;
	}
	}
}

void jv_encode(struct buf *b, const struct jv *v)
{
	encode(b, v, 0);
}

void jv_encode_sorted(struct buf *b, const struct jv *v)
{
	encode(b, v, ENCODE_SORTED);
}

void jv_encode_exact(struct buf *b, const struct jv *v)
{
	encode(b, v, ENCODE_SORTED | ENCODE_FLOATS);
}

void jv_encode_floats(struct buf *b, const struct jv *v)
{
	encode(b, v, ENCODE_FLOATS);
}
