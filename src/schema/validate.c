#include "schema/validate.h"

#include <stdio.h>

#include "base/buf.h"
#include "schema/codec.h"

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
	[FIELD_ERROR_TOO_SHORT] = {"FieldValueTooShort", "Too short"},
};

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
	for (uint32_t i = 0; e->once && (type == FIELD_ERROR_REQUIRED || type == FIELD_ERROR_NOT_SUPPORTED) && i < e->list.n; i++) {
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

	buf_quote(&b, s);
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

void field_invalid_obj(struct field_errors *e, const struct field_path *p, const struct schema_type *t, const void *v, const char *fmt, ...)
{
	struct str detail = DETAIL(e, fmt);
	buf_cleanup struct buf b = {0};

	if (v)
		json_encode(&b, t, v);
	else
		buf_puts(&b, "null");
	add(e, FIELD_ERROR_INVALID, p, arena_str(e->arena, buf_view(&b)), detail);
}

void field_invalid_list(struct field_errors *e, const struct field_path *p, const struct strings *v, const char *fmt, ...)
{
	struct str detail = DETAIL(e, fmt);
	buf_cleanup struct buf b = {0};

	buf_puts(&b, v->v ? "[" : "null");
	for (uint32_t i = 0; i < v->n; i++) {
		if (i)
			buf_putc(&b, ',');
		buf_quote(&b, v->v[i]);
	}
	if (v->v)
		buf_putc(&b, ']');
	add(e, FIELD_ERROR_INVALID, p, arena_str(e->arena, buf_view(&b)), detail);
}

void field_invalid_map(struct field_errors *e, const struct field_path *p, const struct str_map *v, const char *fmt, ...)
{
	struct str detail = DETAIL(e, fmt);
	buf_cleanup struct buf b = {0};

	buf_puts(&b, v->n ? "{" : "null");
	for (uint32_t i = 0; i < v->n; i++) {
		if (i)
			buf_putc(&b, ',');
		buf_quote(&b, v->v[i].key);
		buf_putc(&b, ':');
		buf_quote(&b, v->v[i].value);
	}
	if (v->n)
		buf_putc(&b, '}');
	add(e, FIELD_ERROR_INVALID, p, arena_str(e->arena, buf_view(&b)), detail);
}

void field_invalid_omitted(struct field_errors *e, const struct field_path *p, const char *detail)
{
	add(e, FIELD_ERROR_INVALID, p, STR_NULL, str_from(detail));
}

static bool check_as(struct field_errors *e, const struct field_path *p, struct str shown, struct str value,
		     const char *(*check)(struct arena *a, struct str s))
{
	const char *m = check(e->arena, value);
	struct str rest = str_from(m ? m : "");

	while (rest.n) {
		ptrdiff_t i = str_find(rest, STR("; "));
		struct str one = i < 0 ? rest : str_sub(rest, 0, (size_t)i);

		field_invalid(e, p, shown, "%.*s", STR_ARG(one));
		rest = i < 0 ? STR_NULL : str_sub(rest, (size_t)i + 2, rest.n);
	}
	return m != NULL;
}

bool field_check(struct field_errors *e, const struct field_path *p, struct str value, const char *(*check)(struct arena *a, struct str s))
{
	return check_as(e, p, value, value, check);
}

void field_internal(struct field_errors *e, const struct field_path *p, const char *fmt, ...)
{
	add(e, FIELD_ERROR_INTERNAL, p, STR_NULL, DETAIL(e, fmt));
}

void field_unsupported(struct field_errors *e, const struct field_path *p, struct str value, const char *valid)
{
	buf_cleanup struct buf b = {0};
	struct str rest = str_from(valid);

	for (int i = 0; rest.p; i++) {
		buf_puts(&b, i ? ", " : "supported values: ");
		buf_quote(&b, str_cut(&rest, ','));
	}
	add(e, FIELD_ERROR_NOT_SUPPORTED, p, quoted(e->arena, value), arena_str(e->arena, buf_view(&b)));
}

bool field_one_of(struct field_errors *e, const struct field_path *p, struct str value, const char *valid)
{
	struct str rest = str_from(valid);

	while (rest.p)
		if (str_eq(str_cut(&rest, ','), value))
			return true;
	field_unsupported(e, p, value, valid);
	return false;
}

void field_not_supported(struct field_errors *e, const struct field_path *p, struct str value, const struct str *valid,
			 size_t n_valid)
{
	field_not_supported_raw(e, p, quoted(e->arena, value), valid, n_valid);
}

void field_not_supported_raw(struct field_errors *e, const struct field_path *p, struct str value, const struct str *valid, size_t n_valid)
{
	buf_cleanup struct buf b = {0};

	for (size_t i = 0; i < n_valid; i++) {
		buf_puts(&b, i ? ", " : "supported values: ");
		buf_quote(&b, valid[i]);
	}
	add(e, FIELD_ERROR_NOT_SUPPORTED, p, value, arena_str(e->arena, buf_view(&b)));
}

void field_duplicate(struct field_errors *e, const struct field_path *p, struct str value)
{
	add(e, FIELD_ERROR_DUPLICATE, p, quoted(e->arena, value), STR_NULL);
}

void field_duplicate_int(struct field_errors *e, const struct field_path *p, int64_t value)
{
	add(e, FIELD_ERROR_DUPLICATE, p, arena_printf(e->arena, "%lld", (long long)value), STR_NULL);
}

void field_duplicate_raw(struct field_errors *e, const struct field_path *p, struct str value, const char *detail)
{
	add(e, FIELD_ERROR_DUPLICATE, p, value, str_from(detail));
}

void field_forbidden(struct field_errors *e, const struct field_path *p, const char *fmt, ...)
{
	add(e, FIELD_ERROR_FORBIDDEN, p, STR_NULL, DETAIL(e, fmt));
}

void field_not_found_detail(struct field_errors *e, const struct field_path *p, struct str value, const char *detail)
{
	add(e, FIELD_ERROR_NOT_FOUND, p, quoted(e->arena, value), str_from(detail));
}

void field_not_found(struct field_errors *e, const struct field_path *p, struct str value)
{
	field_not_found_detail(e, p, value, "");
}

void field_too_long(struct field_errors *e, const struct field_path *p, int max_bytes)
{
	add(e, FIELD_ERROR_TOO_LONG, p, STR_NULL,
	    arena_printf(e->arena, "may not be more than %d byte%s", max_bytes, max_bytes == 1 ? "" : "s"));
}

void field_too_long_characters(struct field_errors *e, const struct field_path *p, int max)
{
	add(e, FIELD_ERROR_TOO_LONG, p, STR_NULL, arena_printf(e->arena, "may not be more than %d character%s", max, max == 1 ? "" : "s"));
}

void field_too_short(struct field_errors *e, const struct field_path *p, struct str value, int min)
{
	(void)value;
	add(e, FIELD_ERROR_TOO_SHORT, p, STR_NULL, arena_printf(e->arena, "must be at least %d character%s", min, min == 1 ? "" : "s"));
}

void field_too_many(struct field_errors *e, const struct field_path *p, int64_t actual, int64_t max)
{
	add(e, FIELD_ERROR_TOO_MANY, p, arena_printf(e->arena, "%lld", (long long)actual),
	    arena_printf(e->arena, "must have at most %lld item%s", (long long)max, max == 1 ? "" : "s"));
}

/* The message, as upstream's aggregate, says the same thing once. */
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

	buf_quote(&q, name);
	struct error *s = error_status(422, "Invalid", "%.*s%s%.*s %s is invalid: %s%s%s", STR_ARG(kind), group.n ? "." : "",
				       STR_ARG(group), buf_z(&q), shown > 1 ? "[" : "", buf_z(&text), shown > 1 ? "]" : "");

	error_set_details(s, group, kind, name);
	for (uint32_t i = 0; i < e->list.n; i++) {
		const struct field_error *f = &e->list.v[i];

		if (e->once && said_before(e, i))
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

struct walk {
	struct field_errors *e;
	bool required; /* what OpenAPI requires is required, too */
};

static void check_enum(struct field_errors *e, const struct schema_enum *en, struct str s, const struct field_path *p)
{
	for (uint32_t i = 0; i < en->n; i++)
		if (str_eq(en->values[i], s))
			return;
	field_not_supported(e, p, s, en->values, en->n);
}

static const char *(*const formats[])(struct arena *a, struct str s) = {
	[FORMAT_DNS_LABEL] = validate_dns1123_label,
	[FORMAT_DNS_SUBDOMAIN] = validate_dns1123_subdomain,
	[FORMAT_DNS1035_LABEL] = validate_dns1035_label,
	[FORMAT_QUALIFIED_NAME] = validate_qualified_name,
	[FORMAT_LABEL_VALUE] = validate_label_value,
	[FORMAT_CONFIG_KEY] = validate_config_map_key,
	[FORMAT_PORT_NAME] = validate_port_name,
	[FORMAT_ENV_NAME] = validate_env_var_name,
	[FORMAT_IP] = validate_ip,
	[FORMAT_CIDR] = validate_cidr,
	[FORMAT_NO_BACKSTEPS] = validate_no_backsteps,
	[FORMAT_DESCENDING_PATH] = validate_descending_path,
	[FORMAT_PATH_SEGMENT] = validate_path_segment,
	[FORMAT_ID] = NULL,
};

/* `set`: behind a pointer or in a list, where "" is a value. */
static void check_string(struct field_errors *e, const struct schema_field *f, struct str s, bool set, const struct field_path *p)
{
	const struct schema_field_info *info = f->info;

	if (!s.n && !set)
		return;
	if (info->enum_ && info->enum_->closed)
		check_enum(e, info->enum_, s, p);
	if (info->max_length >= 0 && s.n > (size_t)info->max_length)
		field_too_long(e, p, info->max_length);
	if (info->format < sizeof formats / sizeof *formats && formats[info->format])
		field_check(e, p, s, formats[info->format]);
}

static void check_int(struct field_errors *e, const struct schema_field_info *info, int64_t v, const struct field_path *p)
{
	int64_t min = info->format == FORMAT_ID ? 0 : info->min, max = info->format == FORMAT_ID ? INT32_MAX : info->max;
	bool low = (info->rules & RULE_MIN) || info->format == FORMAT_ID, high = (info->rules & RULE_MAX) || info->format == FORMAT_ID;

	if (low && high) {
		if (v < min || v > max)
			field_invalid_int(e, p, v, "must be between %lld and %lld, inclusive", (long long)min, (long long)max);
	} else if (low && v < min) {
		field_invalid_int(e, p, v, "must be greater than or equal to %lld", (long long)min);
	} else if (high && v > max) {
		field_invalid_int(e, p, v, "must be less than or equal to %lld", (long long)max);
	} else if ((info->rules & RULE_POSITIVE) && v <= 0) {
		field_invalid_int(e, p, v, "must be greater than zero");
	}
}

static void walk(const struct walk *w, const struct schema_type *t, const char *obj, const struct field_path *at, int depth);

static void walk_value(const struct walk *w, const struct schema_field *f, const char *v, bool set, const struct field_path *p, int depth)
{
	switch (f->kind) {
	case FIELD_MESSAGE:
		walk(w, f->type, v, p, depth + 1);
		break;
	case FIELD_STRING:
		check_string(w->e, f, *(const struct str *)(const void *)v, set, p);
		break;
	case FIELD_INT32:
		check_int(w->e, f->info, *(const int32_t *)(const void *)v, p);
		break;
	case FIELD_INT64:
		check_int(w->e, f->info, *(const int64_t *)(const void *)v, p);
		break;
	default:
		break;
	}
}

static void walk(const struct walk *w, const struct schema_type *t, const char *obj, const struct field_path *at, int depth)
{
	if (depth > WALK_MAX || w->e->list.n >= FIELD_ERRORS_MAX || t == &meta_v1_object_meta_type || t->json != SCHEMA_OBJECT ||
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
		bool must = f->info->rules & RULE_MUST, required = must || (w->required && (f->flags & FIELD_REQUIRED));

		if (f->flags & FIELD_TYPEMETA || (!at && t->top && str_eqz(f->name, "status")))
			continue;
		switch ((enum field_card)f->card) {
		case CARD_ONE:
			if (f->kind == FIELD_STRING && required && !((const struct str *)(const void *)v)->n &&
			    (must || !may_be_empty(t, f->name)))
				field_required(w->e, &p, "");
			walk_value(w, f, v, false, &p, depth);
			break;
		case CARD_PTR:
			v = *(const char *const *)(const void *)v;
			if (v)
				walk_value(w, f, v, true, &p, depth);
			else if (required)
				field_required(w->e, &p, "");
			break;
		case CARD_LIST:
		case CARD_MAP:
			if (must && !list->n)
				field_required(w->e, &p, "");
			if (f->info->max_items >= 0 && list->n > (uint32_t)f->info->max_items) {
				field_too_many(w->e, &p, list->n, f->info->max_items);
				break;
			}
			for (uint32_t k = 0; k < list->n; k++) {
				const char *el = list->v + (size_t)k * f->elem_size;

				if (f->card == CARD_LIST)
					walk_value(w, f, el, true, FIELD_INDEX(&p, k), depth);
				else
					walk_value(w, f, el + f->value_offset, true, FIELD_KEY(&p, *(const struct str *)(const void *)el), depth);
			}
		}
	}
}

void validate_object(struct field_errors *e, const struct schema_type *t, const void *obj, const struct field_path *at)
{
	walk(&(struct walk){e, true}, t, obj, at, 0);
}

void validate_rules(struct field_errors *e, const struct schema_type *t, const void *obj, const struct field_path *at)
{
	walk(&(struct walk){e, false}, t, obj, at, 0);
}

/* ---- what may not change ---- */

/* A struct of type t in which only the field is set. */
static void *only(struct arena *a, const struct schema_type *t, const struct schema_field *f, const void *obj)
{
	char *x = arena_alloc(a, t->size);

	memcpy(x + f->offset, (const char *)obj + f->offset, schema_field_size(f));
	return x;
}

struct str field_json(struct arena *a, const struct schema_type *t, const void *obj, struct str name)
{
	const struct schema_field *f = schema_field(t, name);
	const char *v = f ? (const char *)obj + f->offset : NULL;
	buf_cleanup struct buf b = {0}, key = {0};
	ptrdiff_t at;

	if (!f || (f->card == CARD_PTR && !*(const void *const *)(const void *)v))
		return STR("null");
	json_encode(&b, t, only(a, t, f, obj));
	/* members come in the table's order, each written once: cut this one out */
	buf_printf(&key, "\"%.*s\":", STR_ARG(name));
	at = str_find(buf_view(&b), buf_view(&key));
	if (at < 0)
		return f->card == CARD_ONE && f->kind == FIELD_STRING ? STR("\"\"") : STR("null");
	struct str rest = arena_str(a, str_sub(buf_view(&b), (size_t)at + key.n, b.n));
	int depth = 0;
	bool text = false;

	for (size_t i = 0; i < rest.n; i++) {
		char c = rest.p[i];

		if (text) {
			if (c == '\\')
				i++;
			else if (c == '"')
				text = false;
		} else if (c == '"') {
			text = true;
		} else if (c == '{' || c == '[') {
			depth++;
		} else if ((c == '}' || c == ']' || c == ',') && depth == 0) {
			return str_sub(rest, 0, i);
		} else if (c == '}' || c == ']') {
			depth--;
		}
	}
	return rest;
}

static void immutable(struct field_errors *e, const struct schema_type *t, const void *obj, const void *old, const struct field_path *at, int depth)
{
	if (depth > WALK_MAX || t == &meta_v1_object_meta_type)
		return;
	for (uint16_t i = 0; i < t->n_fields; i++) {
		const struct schema_field *f = &t->fields[i];
		const struct field_path p = {at, f->name, -1, false};
		const char *a = (const char *)obj + f->offset, *b = (const char *)old + f->offset;

		if (f->flags & FIELD_TYPEMETA || (!at && t->top && str_eqz(f->name, "status")))
			continue;
		if (f->info->rules & RULE_IMMUTABLE) {
			struct arena tmp arena_cleanup = {0};

			if (!object_equal(t, only(&tmp, t, f, obj), only(&tmp, t, f, old)))
				field_invalid_raw(e, &p, field_json(e->arena, t, obj, f->name), "field is immutable");
			continue;
		}
		if (f->kind != FIELD_MESSAGE || f->card > CARD_PTR)
			continue;
		if (f->card == CARD_PTR) {
			a = *(const char *const *)(const void *)a;
			b = *(const char *const *)(const void *)b;
		}
		if (a && b)
			immutable(e, f->type, a, b, &p, depth + 1);
	}
}

void validate_immutable(struct field_errors *e, const struct schema_type *t, const void *obj, const void *old, const struct field_path *at)
{
	immutable(e, t, obj, old, at, 0);
}

/* ---- fields of features that are off ---- */

static bool field_set(const struct schema_field *f, const char *v)
{
	const struct {
		const char *v;
		uint32_t n, cap;
	} *list = (const void *)v;

	switch ((enum field_card)f->card) {
	case CARD_PTR:
		return *(const void *const *)(const void *)v != NULL;
	case CARD_LIST:
	case CARD_MAP:
		return list->n > 0;
	default:
		for (size_t i = 0, n = schema_field_size(f); i < n; i++)
			if (v[i])
				return true;
		return false;
	}
}

static bool holds_nothing(const char *v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (v[i])
			return false;
	return true;
}

/*
 * Calls what(f, value) for the dropped fields, and goes on below the others; true as soon as one call is. What a pointer leads to and is
 * left empty by it goes too (a lifecycle that was nothing but its stopSignal).
 */
static bool each_off(const struct schema_type *t, char *obj, bool (*what)(const struct schema_field *f, char *v, const void *ctx), const void *ctx,
		     int depth)
{
	for (uint16_t i = 0; depth < WALK_MAX && i < t->n_fields; i++) {
		const struct schema_field *f = &t->fields[i];
		char *v = obj + f->offset;
		const struct {
			char *v;
			uint32_t n, cap;
		} *list = (const void *)v;

		if (f->info->rules & RULE_OFF) {
			if ((field_set(f, v) || (f->card == CARD_LIST && list->v)) && what(f, v, ctx))
				return true;
			continue;
		}
		if (f->kind != FIELD_MESSAGE || !f->type->drops)
			continue;
		if (f->card == CARD_LIST || f->card == CARD_MAP) {
			for (uint32_t k = 0; k < list->n; k++)
				if (each_off(f->type, list->v + (size_t)k * f->elem_size + f->value_offset, what, ctx, depth + 1))
					return true;
		} else if (f->card == CARD_PTR) {
			char **to = (char **)(void *)v;

			if (!*to || holds_nothing(*to, f->type->size))
				continue;
			if (each_off(f->type, *to, what, ctx, depth + 1))
				return true;
			if (holds_nothing(*to, f->type->size))
				*to = NULL;
		} else if (each_off(f->type, v, what, ctx, depth + 1)) {
			return true;
		}
	}
	return false;
}

static bool is_field(const struct schema_field *f, char *v, const void *ctx)
{
	return f == ctx && field_set(f, v);
}

struct drop {
	const struct schema_type *t;
	const void *old;
};

static bool drop_field(const struct schema_field *f, char *v, const void *ctx)
{
	const struct drop *d = ctx;

	if (!d->old || !each_off(d->t, (char *)(uintptr_t)d->old, is_field, f, 0))
		memset(v, 0, schema_field_size(f));
	return false;
}

void drop_disabled_fields(const struct schema_type *t, void *obj, const void *old)
{
	struct drop d = {t, old};

	if (t->drops)
		each_off(t, obj, drop_field, &d, 0);
}

/* ---- labels, annotations, selectors ---- */

void validate_labels(struct field_errors *e, const struct str_map *labels, const struct field_path *at)
{
	for (uint32_t i = 0; labels && i < labels->n; i++) {
		field_check(e, at, labels->v[i].key, validate_qualified_name);
		field_check(e, at, labels->v[i].value, validate_label_value);
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
		check_as(e, at, key, str_of(folded, key.n), validate_qualified_name);
		total += key.n + annotations->v[i].value.n;
	}
	if (total > ANNOTATIONS_MAX)
		field_too_long(e, at, ANNOTATIONS_MAX);
}

void validate_label_selector(struct field_errors *e, const struct meta_v1_label_selector *s, const struct field_path *at)
{
	validate_label_selector_lax(e, s, at, false);
}

void validate_label_selector_lax(struct field_errors *e, const struct meta_v1_label_selector *s, const struct field_path *at, bool lax)
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
		field_check(e, FIELD_CHILD(p, "key"), r->key, validate_qualified_name);
		for (uint32_t k = 0; k < r->values.n && !lax; k++)
			field_check(e, FIELD_INDEX(values, k), r->values.v[k], validate_label_value);
	}
}
