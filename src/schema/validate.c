#include "schema/validate.h"

#include <stdio.h>

#include "base/buf.h"

/* ---- paths ---- */

static void path_put(struct buf *b, const struct field_path *p)
{
	if (!p)
		return;
	path_put(b, p->parent);
	if (p->index >= 0) {
		buf_printf(b, "[%d]", p->index);
	} else if (p->key) {
		buf_putc(b, '[');
		buf_str(b, p->name);
		buf_putc(b, ']');
	} else {
		if (b->n)
			buf_putc(b, '.');
		buf_str(b, p->name);
	}
}

struct str field_path_format(struct arena *a, const struct field_path *p)
{
	buf_cleanup struct buf b = {0};

	path_put(&b, p);
	return arena_str(a, p ? buf_view(&b) : STR("<nil>"));
}

/* ---- errors ---- */

static const struct {
	const char *reason, *text;
} kinds[] = {
	[FIELD_ERROR_REQUIRED] = {"FieldValueRequired", "Required value"},
	[FIELD_ERROR_INVALID] = {"FieldValueInvalid", "Invalid value"},
	[FIELD_ERROR_NOT_SUPPORTED] = {"FieldValueNotSupported", "Unsupported value"},
	[FIELD_ERROR_DUPLICATE] = {"FieldValueDuplicate", "Duplicate value"},
	[FIELD_ERROR_FORBIDDEN] = {"FieldValueForbidden", "Forbidden"},
	[FIELD_ERROR_NOT_FOUND] = {"FieldValueNotFound", "Not found"},
	[FIELD_ERROR_TOO_LONG] = {"FieldValueTooLong", "Too long"},
	[FIELD_ERROR_TOO_MANY] = {"FieldValueTooMany", "Too many"},
	[FIELD_ERROR_INTERNAL] = {"InternalError", "Internal error"},
	[FIELD_ERROR_TYPE_INVALID] = {"FieldValueTypeInvalid", "Invalid value"},
};

/* As Go's %q. */
static void quote(struct buf *b, struct str s)
{
	buf_putc(b, '"');
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];

		if (c == '"' || c == '\\')
			buf_printf(b, "\\%c", c);
		else if (c == '\n')
			buf_puts(b, "\\n");
		else if (c == '\t')
			buf_puts(b, "\\t");
		else if (c == '\r')
			buf_puts(b, "\\r");
		else if (c < 0x20 || c == 0x7f)
			buf_printf(b, "\\x%02x", c);
		else
			buf_putc(b, (char)c);
	}
	buf_putc(b, '"');
}

/* value: text as it is to be printed, NULL p for none. */
static void add(struct field_errors *e, enum field_error_type type, const struct field_path *p, struct str value,
		struct str detail)
{
	buf_cleanup struct buf b = {0};

	if (e->list.n >= FIELD_ERRORS_MAX)
		return;
	buf_puts(&b, kinds[type].text);
	if (value.p) {
		buf_puts(&b, ": ");
		buf_str(&b, value);
	}
	if (detail.n) {
		buf_puts(&b, ": ");
		buf_str(&b, detail);
	}
	struct str field = field_path_format(e->arena, p);

	/* The generic rules and a kind's own may both find what is missing: once is enough, the longer text wins. */
	for (uint32_t i = 0; (type == FIELD_ERROR_REQUIRED || type == FIELD_ERROR_NOT_SUPPORTED) && i < e->list.n; i++) {
		struct field_error *f = &e->list.v[i];

		if (f->type != type || !str_eq(f->field, field))
			continue;
		if (b.n > f->body.n)
			f->body = arena_str(e->arena, buf_view(&b));
		return;
	}
	struct field_error *f = arena_push(e->arena, &e->list);

	f->type = type;
	f->field = field;
	f->body = arena_str(e->arena, buf_view(&b));
}

static struct str quoted(struct arena *a, struct str s)
{
	buf_cleanup struct buf b = {0};

	quote(&b, s);
	return arena_str(a, buf_view(&b));
}

#define DETAIL(e, fmt)                                                                                                 \
	({                                                                                                             \
		va_list ap_;                                                                                           \
		va_start(ap_, fmt);                                                                                    \
		struct str detail_ = arena_vprintf((e)->arena, fmt, ap_);                                              \
		va_end(ap_);                                                                                           \
		detail_;                                                                                               \
	})

void field_required(struct field_errors *e, const struct field_path *p, const char *detail)
{
	add(e, FIELD_ERROR_REQUIRED, p, STR_NULL, str_from(detail));
}

void field_invalid(struct field_errors *e, const struct field_path *p, struct str value, const char *fmt, ...)
{
	struct str detail = DETAIL(e, fmt);

	add(e, FIELD_ERROR_INVALID, p, quoted(e->arena, value), detail);
}

void field_invalid_int(struct field_errors *e, const struct field_path *p, int64_t value, const char *fmt, ...)
{
	struct str detail = DETAIL(e, fmt);

	add(e, FIELD_ERROR_INVALID, p, arena_printf(e->arena, "%lld", (long long)value), detail);
}

void field_invalid_raw(struct field_errors *e, const struct field_path *p, struct str value, const char *fmt, ...)
{
	struct str detail = DETAIL(e, fmt);

	add(e, FIELD_ERROR_INVALID, p, value.p ? value : STR(""), detail);
}

void field_not_supported(struct field_errors *e, const struct field_path *p, struct str value, const struct str *valid,
			 size_t n_valid)
{
	buf_cleanup struct buf b = {0};

	for (size_t i = 0; i < n_valid; i++) {
		buf_puts(&b, i ? ", " : "supported values: ");
		quote(&b, valid[i]);
	}
	add(e, FIELD_ERROR_NOT_SUPPORTED, p, quoted(e->arena, value), arena_str(e->arena, buf_view(&b)));
}

void field_duplicate(struct field_errors *e, const struct field_path *p, struct str value)
{
	add(e, FIELD_ERROR_DUPLICATE, p, quoted(e->arena, value), STR_NULL);
}

void field_forbidden(struct field_errors *e, const struct field_path *p, const char *fmt, ...)
{
	add(e, FIELD_ERROR_FORBIDDEN, p, STR_NULL, DETAIL(e, fmt));
}

void field_not_found(struct field_errors *e, const struct field_path *p, struct str value)
{
	add(e, FIELD_ERROR_NOT_FOUND, p, quoted(e->arena, value), STR_NULL);
}

void field_too_long(struct field_errors *e, const struct field_path *p, int max_bytes)
{
	add(e, FIELD_ERROR_TOO_LONG, p, STR_NULL,
	    arena_printf(e->arena, "may not be more than %d byte%s", max_bytes, max_bytes == 1 ? "" : "s"));
}

void field_too_many(struct field_errors *e, const struct field_path *p, int64_t actual, int64_t max)
{
	add(e, FIELD_ERROR_TOO_MANY, p, arena_printf(e->arena, "%lld", (long long)actual),
	    arena_printf(e->arena, "must have at most %lld item%s", (long long)max, max == 1 ? "" : "s"));
}

/* The tables and the rules of a kind may find the same thing. */
static bool said_before(const struct field_errors *e, uint32_t i)
{
	for (uint32_t k = 0; k < i; k++)
		if (str_eq(e->list.v[k].field, e->list.v[i].field) && str_eq(e->list.v[k].body, e->list.v[i].body))
			return true;
	return false;
}

struct error *field_errors_status(const struct field_errors *e, struct str group, struct str kind, struct str name)
{
	if (!e->list.n)
		return NULL;
	buf_cleanup struct buf text = {0};
	uint32_t shown = 0;

	for (uint32_t i = 0; i < e->list.n; i++) {
		const struct field_error *f = &e->list.v[i];

		if (said_before(e, i))
			continue;
		if (shown++)
			buf_puts(&text, ", ");
		buf_str(&text, f->field);
		buf_puts(&text, ": ");
		buf_str(&text, f->body);
	}
	buf_cleanup struct buf q = {0};

	quote(&q, name);
	struct error *s = error_status(422, "Invalid", "%.*s%s%.*s %s is invalid: %s%s%s", STR_ARG(kind), group.n ? "." : "",
				       STR_ARG(group), buf_z(&q), shown > 1 ? "[" : "", buf_z(&text), shown > 1 ? "]" : "");

	error_set_details(s, group, kind, name);
	for (uint32_t i = 0; i < e->list.n; i++) {
		const struct field_error *f = &e->list.v[i];

		if (said_before(e, i))
			continue;
		error_add_cause(s, kinds[f->type].reason, arena_strz(e->arena, f->field), "%.*s", STR_ARG(f->body));
	}
	return s;
}

/* ---- generic validation ---- */

/* Required in JSON, yet "" is a value: a header's, a kernel parameter's, the API server's own audience. */
static bool may_be_empty(const struct schema_type *t, struct str name)
{
	return (t == &core_v1_http_header_type && str_eqz(name, "value")) || (t == &core_v1_sysctl_type && str_eqz(name, "value")) ||
	       (t == &storage_v1_token_request_type && str_eqz(name, "audience")) || t == &core_v1_node_system_info_type;
}

#define WALK_MAX 64

static void check_string(struct field_errors *e, const struct schema_field *f, struct str s, const struct field_path *p)
{
	const struct schema_enum *en = f->info->enum_;

	if (f->kind != FIELD_STRING || !s.n)
		return;
	if (en && en->closed) {
		bool known = false;

		for (uint32_t i = 0; i < en->n && !known; i++)
			known = str_eq(en->values[i], s);
		if (!known)
			field_not_supported(e, p, s, en->values, en->n);
	}
	if (f->info->max_length >= 0 && s.n > (size_t)f->info->max_length)
		field_too_long(e, p, f->info->max_length);
}

static void walk(struct field_errors *e, const struct schema_type *t, const char *obj, const struct field_path *at, int depth);

static void walk_value(struct field_errors *e, const struct schema_field *f, const char *v, const struct field_path *p, int depth)
{
	if (f->kind == FIELD_MESSAGE)
		walk(e, f->type, v, p, depth + 1);
	else if (f->kind == FIELD_STRING)
		check_string(e, f, *(const struct str *)(const void *)v, p);
}

static void walk(struct field_errors *e, const struct schema_type *t, const char *obj, const struct field_path *at, int depth)
{
	if (depth > WALK_MAX || e->list.n >= FIELD_ERRORS_MAX || t == &meta_v1_object_meta_type || t->json != SCHEMA_OBJECT ||
	    t == &apiextensions_v1_json_schema_props_type) /* CRD schemas have a validation of their own */
		return;
	for (uint16_t i = 0; i < t->n_fields; i++) {
		const struct schema_field *f = &t->fields[i];
		const char *v = obj + f->offset;
		const struct {
			const char *v;
			uint32_t n, cap;
		} *list = (const void *)v;
		const struct field_path p = {at, f->name, -1, false};

		if (f->flags & FIELD_TYPEMETA || (!at && t->top && str_eqz(f->name, "status")))
			continue;
		switch ((enum field_card)f->card) {
		case CARD_ONE:
			if (f->kind == FIELD_STRING && (f->flags & FIELD_REQUIRED) && !((const struct str *)(const void *)v)->n &&
			    !may_be_empty(t, f->name))
				field_required(e, &p, "");
			walk_value(e, f, v, &p, depth);
			break;
		case CARD_PTR:
			v = *(const char *const *)(const void *)v;
			if (v)
				walk_value(e, f, v, &p, depth);
			else if (f->flags & FIELD_REQUIRED)
				field_required(e, &p, "");
			break;
		case CARD_LIST:
			for (uint32_t k = 0; k < list->n; k++)
				walk_value(e, f, list->v + (size_t)k * f->elem_size, FIELD_INDEX(&p, k), depth);
			break;
		case CARD_MAP:
			for (uint32_t k = 0; k < list->n; k++) {
				const char *pair = list->v + (size_t)k * f->elem_size;

				walk_value(e, f, pair + f->value_offset, FIELD_KEY(&p, *(const struct str *)(const void *)pair), depth);
			}
		}
	}
}

void validate_object(struct field_errors *e, const struct schema_type *t, const void *obj, const struct field_path *at)
{
	walk(e, t, obj, at, 0);
}

/* ---- labels, annotations, selectors ---- */

void validate_labels(struct field_errors *e, const struct str_map *labels, const struct field_path *at)
{
	for (uint32_t i = 0; labels && i < labels->n; i++) {
		const char *problem = validate_qualified_name(e->arena, labels->v[i].key);

		if (problem)
			field_invalid(e, at, labels->v[i].key, "%s", problem);
		problem = validate_label_value(e->arena, labels->v[i].value);
		if (problem)
			field_invalid(e, at, labels->v[i].value, "%s", problem);
	}
}

#define ANNOTATIONS_MAX (256 << 10)

void validate_annotations(struct field_errors *e, const struct str_map *annotations, const struct field_path *at)
{
	size_t total = 0;

	for (uint32_t i = 0; annotations && i < annotations->n; i++) {
		struct str key = annotations->v[i].key;
		char *folded = arena_strz(e->arena, key);

		/* The rule is that of label keys, but upper case is allowed in the prefix. */
		for (size_t c = 0; c < key.n; c++)
			if (folded[c] >= 'A' && folded[c] <= 'Z')
				folded[c] = (char)(folded[c] + 32);
		const char *problem = validate_qualified_name(e->arena, str_of(folded, key.n));

		if (problem)
			field_invalid(e, at, key, "%s", problem);
		total += key.n + annotations->v[i].value.n;
	}
	if (total > ANNOTATIONS_MAX)
		field_too_long(e, at, ANNOTATIONS_MAX);
}

void validate_label_selector(struct field_errors *e, const struct meta_v1_label_selector *s, const struct field_path *at)
{
	if (!s)
		return;
	validate_labels(e, API_MAP(&s->match_labels), FIELD_CHILD(at, "matchLabels"));
	for (uint32_t i = 0; i < s->match_expressions.n; i++) {
		const struct meta_v1_label_selector_requirement *r = &s->match_expressions.v[i];
		const struct field_path *list = FIELD_CHILD(at, "matchExpressions"), *p = FIELD_INDEX(list, i);
		const struct field_path *values = FIELD_CHILD(p, "values");

		if (str_eqz(r->operator, "In") || str_eqz(r->operator, "NotIn")) {
			if (!r->values.n)
				field_required(e, values, "must be specified when `operator` is 'In' or 'NotIn'");
		} else if (str_eqz(r->operator, "Exists") || str_eqz(r->operator, "DoesNotExist")) {
			if (r->values.n)
				field_forbidden(e, values, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
		} else {
			field_invalid(e, FIELD_CHILD(p, "operator"), r->operator, "not a valid selector operator");
		}
		const char *problem = validate_qualified_name(e->arena, r->key);

		if (problem)
			field_invalid(e, FIELD_CHILD(p, "key"), r->key, "%s", problem);
		for (uint32_t k = 0; k < r->values.n; k++) {
			problem = validate_label_value(e->arena, r->values.v[k]);
			if (problem)
				field_invalid(e, FIELD_INDEX(values, k), r->values.v[k], "%s", problem);
		}
	}
}
