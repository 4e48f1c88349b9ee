#include "schema/field_set.h"
#include "schema/codec_internal.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- path elements ---- */

int pe_cmp(const struct path_element *a, const struct path_element *b)
{
	if (a->kind != b->kind)
		return a->kind < b->kind ? -1 : 1;
	if (a->kind == PE_FIELD)
		return str_cmp(jv_str(&a->value), jv_str(&b->value));
	if (a->kind != PE_KEY)
		return jv_cmp(&a->value, &b->value);
	/* Keys are sorted by name already. */
	for (uint32_t i = 0; i < a->value.n && i < b->value.n; i++) {
		const struct jv_member *x = &a->value.members[i], *y = &b->value.members[i];
		int c = str_cmp(x->key, y->key);

		if (!c)
			c = jv_cmp(&x->value, &y->value);
		if (c)
			return c;
	}
	return (a->value.n > b->value.n) - (a->value.n < b->value.n);
}

void pe_text(struct buf *b, const struct path_element *pe)
{
	switch ((enum pe_kind)pe->kind) {
	case PE_FIELD:
		buf_putc(b, '.');
		buf_str(b, jv_str(&pe->value));
		break;
	case PE_KEY:
		buf_putc(b, '[');
		for (uint32_t i = 0; i < pe->value.n; i++) {
			if (i)
				buf_putc(b, ',');
			buf_str(b, pe->value.members[i].key);
			buf_putc(b, '=');
			jv_encode(b, &pe->value.members[i].value);
		}
		buf_putc(b, ']');
		break;
	case PE_VALUE:
		buf_puts(b, "[=");
		jv_encode(b, &pe->value);
		buf_putc(b, ']');
		break;
	case PE_INDEX:
		buf_putc(b, '[');
		jv_encode(b, &pe->value);
		buf_putc(b, ']');
	}
}

/* ---- building ---- */

void fs_push(struct arena *a, struct field_set *s, struct path_element pe, bool member, const struct field_set *child)
{
	if (!member && field_set_empty(child))
		return;
	*arena_push(a, s) = (struct fs_node){pe, member, field_set_empty(child) ? NULL : child};
}

static int node_cmp(const void *x, const void *y)
{
	return pe_cmp(&((const struct fs_node *)x)->pe, &((const struct fs_node *)y)->pe);
}

void fs_sort(struct field_set *s)
{
	for (uint32_t i = 1; i < s->n; i++) {
		if (pe_cmp(&s->v[i - 1].pe, &s->v[i].pe) > 0) {
			qsort(s->v, s->n, sizeof *s->v, node_cmp);
			return;
		}
	}
}

const struct fs_node *fs_find(const struct field_set *s, const struct path_element *pe)
{
	uint32_t lo = 0, hi = s ? s->n : 0;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		int c = pe_cmp(&s->v[mid].pe, pe);

		if (!c)
			return &s->v[mid];
		if (c < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

const struct field_set *fs_keep(struct arena *a, const struct field_set *s)
{
	if (!s->n)
		return NULL;
	struct field_set *out = arena_new(a, struct field_set);

	*out = *s;
	return out;
}

bool field_set_empty(const struct field_set *s)
{
	return !s || !s->n;
}

bool field_set_equal(const struct field_set *a, const struct field_set *b)
{
	uint32_t na = a ? a->n : 0, nb = b ? b->n : 0;

	if (na != nb)
		return false;
	for (uint32_t i = 0; i < na; i++)
		if (a->v[i].member != b->v[i].member || pe_cmp(&a->v[i].pe, &b->v[i].pe) ||
		    !field_set_equal(a->v[i].child, b->v[i].child))
			return false;
	return true;
}

/* ---- FieldsV1 ---- */

static struct error *bad(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static struct error *bad(const char *fmt, ...)
{
	va_list ap;
	char text[256];

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	return error_status(400, "BadRequest", "%s", text);
}

static int member_cmp(const void *x, const void *y)
{
	return str_cmp(((const struct jv_member *)x)->key, ((const struct jv_member *)y)->key);
}

/* *known is false for kinds of a later version, which are left out. */
static struct error *pe_parse(struct arena *a, struct str key, struct path_element *out, bool *known)
{
	struct str rest = str_sub(key, 2, key.n);
	int64_t i;

	*known = true;
	if (key.n < 2)
		return bad("key must be 2 characters long:");
	if (key.p[1] != ':')
		return bad("missing colon: %.*s", (int)(key.n > 100 ? 100 : key.n), key.p);
	switch (key.p[0]) {
	case 'f':
		*out = pe_field(rest);
		return NULL;
	case 'v':
		out->kind = PE_VALUE;
		return jv_parse(a, rest, NULL, &out->value);
	case 'k':
		out->kind = PE_KEY;
		TRY(jv_parse(a, rest, NULL, &out->value));
		if (out->value.kind != JV_OBJECT)
			return bad("key is not an object: %.*s", (int)(key.n > 100 ? 100 : key.n), key.p);
		/* More keys than any list has are searched by an index, which sorting would break. */
		if (out->value.n > 16)
			return bad("too many keys: %.*s", 100, key.p);
		if (out->value.n)
			qsort(out->value.members, out->value.n, sizeof *out->value.members, member_cmp);
		return NULL;
	case 'i':
		if (!str_to_i64(rest, &i))
			return bad("invalid index: %.*s", (int)(key.n > 100 ? 100 : key.n), key.p);
		*out = (struct path_element){PE_INDEX, jv_int(i)};
		return NULL;
	}
	*known = false;
	return NULL;
}

static struct error *parse_tree(struct arena *a, const struct jv *v, struct field_set *out, bool *member)
{
	if (v->kind != JV_OBJECT)
		return bad("field sets are objects");
	*member = false;
	for (uint32_t i = 0; i < v->n; i++) {
		struct path_element pe;
		struct field_set child = {0};
		bool known, is_member;

		if (str_eqz(v->members[i].key, ".")) {
			*member = true;
			continue;
		}
		TRY(pe_parse(a, v->members[i].key, &pe, &known));
		if (!known)
			continue;
		TRY(parse_tree(a, &v->members[i].value, &child, &is_member));
		fs_push(a, out, pe, is_member, fs_keep(a, &child));
	}
	fs_sort(out);
	/* The same element may be written in two ways ("v:1", "v:1.0"): one node. */
	uint32_t to = 0;

	for (uint32_t i = 0; i < out->n; i++) {
		if (to && !pe_cmp(&out->v[to - 1].pe, &out->v[i].pe)) {
			out->v[to - 1].member |= out->v[i].member;
			out->v[to - 1].child = field_set_union(a, out->v[to - 1].child, out->v[i].child);
		} else {
			out->v[to++] = out->v[i];
		}
	}
	out->n = to;
	if (!out->n)
		*member = true;
	return NULL;
}

struct error *field_set_parse(struct arena *a, struct str fields_v1, const struct field_set **out)
{
	struct field_set s = {0};
	struct jv v;
	bool member;

	*out = NULL;
	if (!fields_v1.n)
		return NULL;
	TRY(jv_parse(a, fields_v1, NULL, &v));
	if (v.kind == JV_NULL)
		return NULL;
	TRY(parse_tree(a, &v, &s, &member));
	*out = fs_keep(a, &s);
	return NULL;
}

/* A value as Go's encoder writes it: what means something in HTML is escaped. */
static void encode_value(struct buf *text, const struct jv *v)
{
	size_t from = text->n;

	jv_encode(text, v);
	struct str plain = str_sub(buf_view(text), from, text->n);

	if (str_index(plain, '<') < 0 && str_index(plain, '>') < 0 && str_index(plain, '&') < 0)
		return;
	buf_cleanup struct buf copy = {0};

	buf_str(&copy, plain);
	text->n = from;
	json_put_raw(text, buf_view(&copy));
}

static void encode_pe(struct buf *b, const struct path_element *pe)
{
	buf_cleanup struct buf text = {0};

	switch ((enum pe_kind)pe->kind) {
	case PE_FIELD:
		buf_puts(&text, "f:");
		buf_str(&text, jv_str(&pe->value));
		break;
	case PE_KEY:
		buf_puts(&text, "k:");
		encode_value(&text, &pe->value);
		break;
	case PE_VALUE:
		buf_puts(&text, "v:");
		encode_value(&text, &pe->value);
		break;
	case PE_INDEX:
		buf_puts(&text, "i:");
		encode_value(&text, &pe->value);
	}
	jv_encode_string(b, buf_view(&text));
}

static void encode_set(struct buf *b, const struct field_set *s, bool self)
{
	buf_putc(b, '{');
	if (self)
		buf_puts(b, "\".\":{}");
	for (uint32_t i = 0; i < s->n; i++) {
		const struct fs_node *n = &s->v[i];

		if (i || self)
			buf_putc(b, ',');
		if (n->pe.kind == PE_FIELD) { /* the common case, without a copy */
			size_t at = b->n;

			jv_encode_string(b, jv_str(&n->pe.value));
			buf_append(b, "f:", 2);
			if (!b->overflow) {
				memmove(b->p + at + 3, b->p + at + 1, b->n - at - 3);
				memcpy(b->p + at + 1, "f:", 2);
			}
		} else {
			encode_pe(b, &n->pe);
		}
		buf_putc(b, ':');
		if (n->child)
			encode_set(b, n->child, n->member);
		else
			buf_puts(b, "{}");
	}
	buf_putc(b, '}');
}

void field_set_encode(struct buf *b, const struct field_set *s)
{
	if (field_set_empty(s))
		buf_puts(b, "{}");
	else
		encode_set(b, s, false);
}

/* ---- operations ---- */

const struct field_set *field_set_union(struct arena *a, const struct field_set *x, const struct field_set *y)
{
	struct field_set out = {0};
	uint32_t i = 0, j = 0;

	if (field_set_empty(x))
		return field_set_empty(y) ? NULL : y;
	if (field_set_empty(y))
		return x;
	while (i < x->n || j < y->n) {
		int c = i == x->n ? 1 : j == y->n ? -1 : pe_cmp(&x->v[i].pe, &y->v[j].pe);

		if (c < 0) {
			*arena_push(a, &out) = x->v[i++];
		} else if (c > 0) {
			*arena_push(a, &out) = y->v[j++];
		} else {
			fs_push(a, &out, x->v[i].pe, x->v[i].member || y->v[j].member,
				field_set_union(a, x->v[i].child, y->v[j].child));
			i++;
			j++;
		}
	}
	return fs_keep(a, &out);
}

enum operation { DIFFERENCE, RECURSIVE_DIFFERENCE, INTERSECTION };

static const struct field_set *combine(struct arena *a, const struct field_set *x, const struct field_set *y,
				       enum operation op)
{
	struct field_set out = {0};

	if (field_set_empty(x) || field_set_empty(y))
		return op == INTERSECTION || field_set_empty(x) ? NULL : x;
	for (uint32_t i = 0, j = 0; i < x->n; i++) {
		const struct fs_node *n = &x->v[i];
		int c = 1;

		while (j < y->n && (c = pe_cmp(&y->v[j].pe, &n->pe)) < 0)
			j++;
		if (j == y->n || c > 0) {
			if (op != INTERSECTION)
				*arena_push(a, &out) = *n;
			continue;
		}
		const struct fs_node *m = &y->v[j];

		if (op == INTERSECTION)
			fs_push(a, &out, n->pe, n->member && m->member, combine(a, n->child, m->child, op));
		else if (op == DIFFERENCE || !m->member)
			fs_push(a, &out, n->pe, n->member && !m->member, combine(a, n->child, m->child, op));
	}
	return fs_keep(a, &out);
}

const struct field_set *field_set_difference(struct arena *a, const struct field_set *x, const struct field_set *y)
{
	return combine(a, x, y, DIFFERENCE);
}

const struct field_set *field_set_recursive_difference(struct arena *a, const struct field_set *x,
						       const struct field_set *y)
{
	return combine(a, x, y, RECURSIVE_DIFFERENCE);
}

const struct field_set *field_set_intersection(struct arena *a, const struct field_set *x, const struct field_set *y)
{
	return combine(a, x, y, INTERSECTION);
}

const struct field_set *field_set_leaves(struct arena *a, const struct field_set *s)
{
	struct field_set out = {0};

	for (uint32_t i = 0; s && i < s->n; i++)
		fs_push(a, &out, s->v[i].pe, s->v[i].member && !s->v[i].child, field_set_leaves(a, s->v[i].child));
	return fs_keep(a, &out);
}

static void each(struct arena *a, const struct field_set *s, struct buf *path, void (*fn)(void *ctx, struct str path),
		 void *ctx)
{
	size_t at = path->n;

	/* Members of a level come before what is below them, as upstream iterates. */
	for (uint32_t i = 0; i < s->n; i++) {
		if (!s->v[i].member)
			continue;
		pe_text(path, &s->v[i].pe);
		fn(ctx, arena_str(a, buf_view(path)));
		path->n = at;
	}
	for (uint32_t i = 0; i < s->n; i++) {
		if (!s->v[i].child)
			continue;
		pe_text(path, &s->v[i].pe);
		each(a, s->v[i].child, path, fn, ctx);
		path->n = at;
	}
}

void field_set_each(struct arena *a, const struct field_set *s, void (*fn)(void *ctx, struct str path), void *ctx)
{
	buf_cleanup struct buf path = {0};

	if (s)
		each(a, s, &path, fn, ctx);
}

/* ---- filters ---- */

static const struct field_set *only(struct arena *a, const struct field_set *s, struct str pattern)
{
	struct field_set out = {0};

	if (!pattern.p)
		return s;
	struct str head = str_cut(&pattern, '.');

	for (uint32_t i = 0; s && i < s->n; i++) {
		const struct fs_node *n = &s->v[i];

		if (str_eqz(head, "*") || (n->pe.kind == PE_FIELD && str_eq(jv_str(&n->pe.value), head)))
			fs_push(a, &out, n->pe, n->member && !pattern.p, only(a, n->child, pattern));
	}
	return fs_keep(a, &out);
}

const struct field_set *fs_only(struct arena *a, const struct field_set *s, const char *const *patterns)
{
	const struct field_set *out = NULL;

	for (; *patterns; patterns++)
		out = field_set_union(a, out, only(a, s, str_from(*patterns)));
	return out;
}

const struct field_set *field_set_of_path(struct arena *a, struct str dotted)
{
	const struct field_set *path = NULL;
	struct strings names = {0};

	while (dotted.p)
		*arena_push(a, &names) = str_cut(&dotted, '.');
	for (uint32_t i = names.n; i-- > 0;) {
		struct field_set one = {0};

		fs_push(a, &one, pe_field(names.v[i]), !path, path);
		path = fs_keep(a, &one);
	}
	return path;
}
