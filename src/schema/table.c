#include <stdio.h>
#include "schema/table.h"

#include <stdlib.h>

#include "schema/table_internal.h"

/* ---- ages ---- */

struct str human_duration(struct arena *a, int64_t s)
{
	int64_t m = s / 60, h = s / 3600, d = h / 24, y = d / 365;

	if (s < -1)
		return STR("<invalid>");
	if (s < 0)
		return STR("0s");
	if (s < 120)
		return arena_printf(a, "%llds", (long long)s);
	if (m < 10)
		return s % 60 ? arena_printf(a, "%lldm%llds", (long long)m, (long long)(s % 60)) : arena_printf(a, "%lldm", (long long)m);
	if (m < 180)
		return arena_printf(a, "%lldm", (long long)m);
	if (h < 8)
		return m % 60 ? arena_printf(a, "%lldh%lldm", (long long)h, (long long)(m % 60)) : arena_printf(a, "%lldh", (long long)h);
	if (h < 48)
		return arena_printf(a, "%lldh", (long long)h);
	if (h < 24 * 8)
		return h % 24 ? arena_printf(a, "%lldd%lldh", (long long)d, (long long)(h % 24)) : arena_printf(a, "%lldd", (long long)d);
	if (h < 24 * 365 * 2)
		return arena_printf(a, "%lldd", (long long)d);
	if (h < 24 * 365 * 8)
		return d % 365 ? arena_printf(a, "%lldy%lldd", (long long)y, (long long)(d % 365)) : arena_printf(a, "%lldy", (long long)y);
	return arena_printf(a, "%lldy", (long long)y);
}

#define DURATION_MAX (INT64_MAX / 1000000000) /* 292 years: Go's durations have no more */

/* Whole seconds from `from` to `to`, towards zero. */
static int64_t seconds_between(struct api_time from, struct api_time to)
{
	int64_t s = to.s - from.s;

	if (s >= DURATION_MAX || s <= -DURATION_MAX)
		return s > 0 ? DURATION_MAX : -DURATION_MAX;
	if (to.ns < from.ns && s > 0)
		s--;
	else if (to.ns > from.ns && s < 0)
		s++;
	return s;
}

static struct str since(struct arena *a, struct api_time t, struct api_time now)
{
	return t.set ? human_duration(a, seconds_between(t, now)) : STR("<unknown>");
}

struct str table_since(const struct table_cell *c, struct api_time t)
{
	return since(c->a, t, c->now);
}

/* ---- cells ---- */

void cell_str(struct buf *b, struct str s)
{
	jv_encode_string(b, s);
}

void cell_str_or(struct buf *b, struct str s, const char *other)
{
	jv_encode_string(b, s.n ? s : str_from(other));
}

void cell_printf(struct buf *b, const char *fmt, ...)
{
	buf_cleanup struct buf text = {0};
	va_list ap;

	va_start(ap, fmt);
	buf_vprintf(&text, fmt, ap);
	va_end(ap);
	cell_str(b, buf_view(&text));
}

void cell_text(struct buf *b, const struct buf *text, const char *other)
{
	cell_str_or(b, buf_view(text), other);
}

void text_add(struct buf *text, struct str s, const char *separator)
{
	if (text->n)
		buf_puts(text, separator);
	buf_str(text, s);
}

void cell_labels(struct buf *b, const struct str_map *m)
{
	buf_cleanup struct buf text = {0};

	for (uint32_t i = 0; i < m->n; i++) {
		text_add(&text, m->v[i].key, ",");
		buf_putc(&text, '=');
		buf_str(&text, m->v[i].value);
	}
	cell_text(b, &text, "<none>");
}

const void *table_value(const struct schema_type *t, const void *obj, struct str path, const struct schema_field **f)
{
	const char *at = obj;

	while (path.p) {
		const struct schema_field *m = t ? schema_field(t, str_cut(&path, '.')) : NULL;

		if (!m)
			return NULL;
		at += m->offset;
		if (m->card == CARD_PTR)
			at = *(const char *const *)(const void *)at;
		*f = m;
		if (!at)
			return NULL;
		t = m->kind == FIELD_MESSAGE && m->card != CARD_LIST && m->card != CARD_MAP ? m->type : NULL;
	}
	return at;
}

static void cell_path(struct buf *b, const struct table_cell *c, const struct api_column *col)
{
	const struct schema_field *f = NULL;
	const void *v = table_value(c->type, c->obj, col->path, &f);

	if (!v) {
		/* An absent number or boolean shows its zero value where no text stands for it. */
		if (!*col->absent && f && f->kind == FIELD_BOOL)
			buf_puts(b, "false");
		else if (!*col->absent && f && (f->kind == FIELD_INT32 || f->kind == FIELD_INT64))
			buf_putc(b, '0');
		else
			cell_str(b, str_from(col->absent));
		return;
	}
	switch ((enum field_kind)f->kind) {
	case FIELD_BOOL:
		buf_puts(b, *(const bool *)v ? "true" : "false");
		break;
	case FIELD_INT32:
		buf_i64(b, *(const int32_t *)v);
		break;
	case FIELD_INT64:
		buf_i64(b, *(const int64_t *)v);
		break;
	case FIELD_INTSTR: {
		const struct int_or_string *is = v;

		if (is->is_str)
			cell_str(b, is->s);
		else
			cell_printf(b, "%d", is->i);
		break;
	}
	case FIELD_STRING:
	case FIELD_QUANTITY:
		cell_str_or(b, *(const struct str *)v, col->absent);
		break;
	case FIELD_TIME:
	case FIELD_MICROTIME:
		cell_str(b, table_since(c, *(const struct api_time *)v));
		break;
	default:
		buf_puts(b, "null");
	}
}

/* ---- the table ---- */

static const struct api_column default_columns[] = {
	{.name = "Name", .type = "string", .named = true, .path = STR_INIT("metadata.name"), .absent = ""},
	{.name = "Created At", .type = "date", .absent = ""},
};

static void columns_of(const struct api_resource *r, const struct api_column **v, size_t *n)
{
	*v = r->columns ? r->columns : default_columns;
	*n = r->columns ? r->n_columns : 2;
}

static void definition(struct buf *b, struct str name, struct str type, struct str format, struct str description, int priority)
{
	buf_puts(b, "{\"name\":");
	jv_encode_string(b, name);
	buf_puts(b, ",\"type\":");
	jv_encode_string(b, type);
	buf_puts(b, ",\"format\":");
	jv_encode_string(b, format);
	buf_puts(b, ",\"description\":");
	jv_encode_string(b, description);
	buf_printf(b, ",\"priority\":%d}", priority);
}

static const char *meta_version(const struct table_options *o)
{
	return o->v1beta1 ? "meta.k8s.io/v1beta1" : "meta.k8s.io/v1";
}

void table_begin(struct buf *b, const struct api_resource *r, const struct table_options *o,
		 const struct meta_v1_list_meta *list)
{
	buf_printf(b, "{\"kind\":\"Table\",\"apiVersion\":\"%s\",\"metadata\":", meta_version(o));
	if (list)
		json_encode(b, &meta_v1_list_meta_type, list);
	else
		buf_puts(b, "{}");
	if (o->no_headers) {
		buf_puts(b, ",\"columnDefinitions\":null,\"rows\":[");
		return;
	}
	buf_puts(b, ",\"columnDefinitions\":[");
	if (r) {
		const struct api_column *v;
		size_t n;

		columns_of(r, &v, &n);
		for (size_t i = 0; i < n && !v[i].bare; i++) {
			if (i)
				buf_putc(b, ',');
			definition(b, str_from(v[i].name), str_from(v[i].type), v[i].named ? STR("name") : STR(""), STR(""), v[i].priority);
		}
	} else {
		const struct table_column *v = o->columns;

		definition(b, STR("Name"), STR("string"), STR("name"), STR(""), 0);
		for (size_t i = 0; i < o->n_columns; i++) {
			buf_putc(b, ',');
			definition(b, v[i].name, v[i].type, v[i].format, v[i].description, v[i].priority);
		}
	}
	buf_puts(b, "],\"rows\":[");
}

void table_end(struct buf *b, const struct api_resource *r)
{
	if (r && !r->columns && b->n && b->p[b->n - 1] == '[') { /* who prints by default makes no list of nothing */
		b->n--;
		buf_puts(b, "null}");
	} else {
		buf_puts(b, "]}");
	}
}

static void row_object(struct buf *b, const struct table_options *o, const struct meta_v1_object_meta *meta,
		       const struct schema_type *t, const void *obj)
{
	buf_puts(b, ",\"object\":");
	if (o->object == TABLE_OBJECT_NONE) {
		buf_puts(b, "null");
		return;
	}
	if (o->object == TABLE_OBJECT_FULL) {
		json_encode(b, o->full ? o->full_type : t, o->full ? o->full : obj);
		return;
	}
	buf_printf(b, "{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"%s\",\"metadata\":", meta_version(o));
	json_encode(b, &meta_v1_object_meta_type, meta);
	buf_putc(b, '}');
}

/* A pod that ran to its end says so beside the row. */
static void row_conditions(struct buf *b, const struct schema_type *t, const void *obj)
{
	if (t != &core_v1_pod_type)
		return;
	struct str phase = ((const struct core_v1_pod *)obj)->status.phase;

	if (!str_eqz(phase, "Succeeded") && !str_eqz(phase, "Failed"))
		return;
	buf_printf(b, ",\"conditions\":[{\"type\":\"Completed\",\"status\":\"True\",\"reason\":\"%.*s\",\"message\":\"%s\"}]",
		   STR_ARG(phase), str_eqz(phase, "Failed") ? "The pod failed." : "The pod has completed successfully.");
}

void table_row(struct buf *b, struct arena *scratch, const struct api_resource *r, const struct table_options *o,
	       const void *obj, bool first)
{
	const struct api_column *v;
	size_t n;
	struct table_cell c = {
		.a = scratch,
		.type = r->type,
		.obj = obj,
		.meta = (const void *)((const char *)obj + r->type->metadata),
		.now = o->now,
	};

	columns_of(r, &v, &n);
	buf_puts(b, first ? "{\"cells\":[" : ",{\"cells\":[");
	for (size_t i = 0; i < n; i++) {
		if (i)
			buf_putc(b, ',');
		if (v[i].cell)
			v[i].cell(b, &c);
		else if (v[i].path.n)
			cell_path(b, &c, &v[i]);
		else
			cell_str(b, c.meta->creation_timestamp.set ? time_format(scratch, c.meta->creation_timestamp, false)
								   : STR("0001-01-01T00:00:00Z"));
	}
	buf_putc(b, ']');
	row_conditions(b, r->type, obj);
	row_object(b, o, c.meta, r->type, obj);
	buf_putc(b, '}');
}

/* ---- custom resources ---- */

/* As Go prints a float64: as few digits as name it, an exponent from 1e+06 on. */
static void put_double(struct buf *b, double d)
{
	char text[40];
	int digits = 1;

	do
		snprintf(text, sizeof text, "%.*e", digits - 1, d);
	while (strtod(text, NULL) != d && ++digits <= 17);
	int exponent = atoi(strchr(text, 'e') + 1);

	if (exponent >= -4 && exponent < 6)
		snprintf(text, sizeof text, "%.*f", digits > exponent + 1 ? digits - 1 - exponent : 0, d);
	buf_puts(b, text);
}

static void cell_tree(struct buf *b, struct arena *a, const struct table_options *o, const struct table_column *col,
		      const struct jv *v)
{
	if (!v) {
		buf_puts(b, "null");
	} else if (str_eqz(col->type, "string")) {
		buf_cleanup struct buf text = {0};

		if (v->kind == JV_STRING)
			buf_str(&text, jv_str(v));
		else if (v->kind == JV_NULL)
			buf_puts(&text, "<no value>");
		else if (v->kind == JV_DOUBLE)
			put_double(&text, v->d);
		else
			jv_encode_sorted(&text, v);
		cell_str(b, buf_view(&text));
	} else if (str_eqz(col->type, "date")) {
		struct api_time t;

		if (v->kind != JV_STRING)
			buf_puts(b, "null");
		else if (!jv_str(v).n || str_eqz(jv_str(v), "null"))
			cell_str(b, STR("<unknown>"));
		else if (!time_parse(jv_str(v), &t))
			cell_str(b, STR("<invalid>"));
		else
			cell_str(b, since(a, t, o->now));
	} else if (str_eqz(col->type, "integer")) {
		if (v->kind == JV_DOUBLE) /* beyond int64 it is what amd64 makes of it */
			buf_i64(b, v->d >= -0x1p63 && v->d < 0x1p63 ? (int64_t)v->d : INT64_MIN);
		else if (v->kind == JV_INT)
			buf_i64(b, v->i);
		else
			buf_puts(b, "null");
	} else if (str_eqz(col->type, "number")) {
		struct jv d = jv_double(v->kind == JV_INT ? (double)v->i : v->d);

		if (v->kind == JV_DOUBLE || v->kind == JV_INT)
			jv_encode(b, &d);
		else
			buf_puts(b, "null");
	} else if (str_eqz(col->type, "boolean") && v->kind == JV_BOOL) {
		jv_encode(b, v);
	} else {
		buf_puts(b, "null");
	}
}

void table_row_tree(struct buf *b, struct arena *scratch, const struct table_options *o, const struct jv *obj, bool first)
{
	const struct table_column *v = o->columns;

	buf_puts(b, first ? "{\"cells\":[" : ",{\"cells\":[");
	cell_str(b, jv_str(jv_at(obj, "metadata", "name", NULL)));
	for (size_t i = 0; i < o->n_columns; i++) {
		buf_putc(b, ',');
		cell_tree(b, scratch, o, &v[i], json_path_first(scratch, v[i].path, obj));
	}
	buf_putc(b, ']');
	row_object(b, o, o->full ? (const void *)((const char *)o->full + o->full_type->metadata) : NULL, NULL, NULL);
	buf_putc(b, '}');
}
