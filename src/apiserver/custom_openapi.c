/*
 * Values judged by the OpenAPI part of a schema: types, limits, enums, formats, junctors. The errors, and where they are said to be,
 * are those of upstream's validator (kube-openapi/pkg/validation/validate, apiextensions-apiserver/pkg/apiserver/validation): what a
 * junctor says is about no field, and of several alternatives the one that fits best is explained.
 */
#include <math.h>
#include "apiserver/custom.h"
#include "apiserver/metrics.h"
#include "apiserver/schema_props.h"

#define INTEGER_MAX 9007199254740991.0 /* of those written as 1.0 or 1e3: what a float64 holds exactly */

enum what { ABOUT_NOTHING, REQUIRED, ENUM, TOO_LONG, TOO_MANY, TYPE, INVALID };

struct problem {
	enum what what;
	struct str path, value, text; /* text: upstream's, by which two of the same are one */
	int64_t actual, max;
	const props *schema;          /* ENUM */
};
struct result {
	struct arena *a;
	LIST(struct problem) list;     /* at most FIELD_ERRORS_MAX */
	long matches;                  /* checks that succeeded: the best of alternatives has most */
	bool plain;                    /* a structural schema's own words: int-or-string is no type, no format is unknown */
	bool whole;                    /* of an object of the API, not of a part of it */
	int64_t compared_ns;           /* time spent in telling what has not changed */
};

static void judge(struct result *r, const props *p, const struct jv *v, const struct jv *old, const struct field_path *at);

static struct str shown(struct arena *a, const struct jv *v)
{
	struct buf b buf_cleanup = {0};

	jv_encode(&b, v);
	return arena_str(a, str_sub(buf_view(&b), 0, 2000));
}

/* From the value that is judged; base is put before it when it is said. */
static struct str where(const struct result *r, const struct field_path *at)
{
	return at ? field_path_format(r->a, at) : STR("");
}

static void add(struct result *r, struct problem p)
{
	for (uint32_t i = 0; i < r->list.n; i++)
		if (str_eq(r->list.v[i].text, p.text))
			return;
	if (r->list.n < FIELD_ERRORS_MAX)
		*arena_push(r->a, &r->list) = p;
}

static void merge(struct result *r, const struct result *other)
{
	for (uint32_t i = 0; i < other->list.n; i++)
		add(r, other->list.v[i]);
	r->matches += other->matches;
}

static void __attribute__((format(printf, 5, 6))) problem(struct result *r, enum what what, const struct field_path *at, struct str value,
							    const char *fmt, ...)
{
	struct problem p = {.what = what, .path = where(r, at), .value = value};
	struct buf b buf_cleanup = {0};
	va_list ap;

	buf_printf(&b, "%.*s in body ", STR_ARG(p.path));
	va_start(ap, fmt);
	buf_vprintf(&b, fmt, ap);
	va_end(ap);
	p.text = arena_str(r->a, buf_view(&b));
	add(r, p);
}

/* ---- types ---- */

/* May be both; said of what is judged by OpenAPI's words, which have the two types. */
static bool int_or_string(const struct result *r, const props *p)
{
	return p->x_kubernetes_int_or_string && !r->plain;
}

static struct str type_of(const struct result *r, const props *p)
{
	return int_or_string(r, p) ? STR("integer,string") : p->type;
}

static bool of_type(const struct result *r, const props *p, const char *type)
{
	return int_or_string(r, p) ? !strcmp(type, "integer") || !strcmp(type, "string") : str_eqz(p->type, type);
}

static struct str format_of(const struct result *r, const props *p)
{
	if (r->plain)
		return p->format;
	return p->format.n && schema_format_known(p->x_kubernetes_int_or_string ? STR("-") : p->type, p->format) ? p->format : STR_NULL;
}

static const char *json_type(const struct jv *v)
{
	static const char *const names[] = {"null", "boolean", "integer", "number", "string", "array", "object"};

	return names[v->kind];
}

/* A number as an int64 as upstream's build for amd64 has it, which is the least one for what does not fit. */
static int64_t whole_part(double d)
{
	return d >= -0x1p63 && d < 0x1p63 ? (int64_t)d : INT64_MIN;
}

/* So close to a whole number that upstream takes it for one (go-openapi/swag's IsFloat64AJSONInteger). */
static bool nearly_whole(double d)
{
	double whole = trunc(d);

	if (fabs(d) > INTEGER_MAX)
		return false;
	return d == whole || (d > 0 && whole > 0 && (d - whole) / (d + whole) < 1e-9);
}

static void judge_type(struct result *r, const props *p, const struct jv *v, const struct field_path *at)
{
	struct str type = type_of(r, p), format = format_of(r, p);
	const char *have = json_type(v);
	bool numeric = of_type(r, p, "integer") || of_type(r, p, "number"), text = v->kind == JV_STRING || v->kind == JV_ARRAY;
	bool fits = (type.n && of_type(r, p, have)) || (v->kind == JV_DOUBLE && nearly_whole(v->d) && of_type(r, p, "integer")) ||
		    (v->kind == JV_INT && of_type(r, p, "number"));

	if (v->kind == JV_NULL ? !type.n || p->nullable : fits || (!type.n && !format.n)) {
		r->matches++;
		return;
	}
	if (v->kind != JV_NULL && !text && format.n) {
		problem(r, TYPE, at, arena_printf(r->a, "\"%s\"", have), "must be of type %.*s: \"%s\"", STR_ARG(format), have);
		return;
	}
	if (v->kind != JV_NULL && text && format.n && !numeric) {
		r->matches++;
		return;
	}
	problem(r, TYPE, at, arena_printf(r->a, "\"%s\"", have), "must be of type %.*s: \"%s\"", STR_ARG(type), have);
}

/* ---- scalars ---- */

/* What does not fit into the format is said of nothing, as upstream has it. */
static bool in_range(struct result *r, const props *p, double d, const char *what, const struct field_path *at)
{
	bool fits = true;
	struct str format = format_of(r, p), path;

	if (int_or_string(r, p))
		return true;
	if (str_eqz(p->type, "integer") && str_eqz(format, "int32"))
		fits = d == floor(d) && d >= -2147483648.0 && d <= 2147483647.0;
	else if (str_eqz(p->type, "integer"))
		fits = d == floor(d) && fabs(d) < 0x1p63; /* as text, the shortest one, it fits */
	else if (str_eqz(p->type, "number") && str_eqz(format, "float"))
		fits = fabs(d) <= 0x1.ffffffp127; /* what rounds to a float as it is written */
	if (fits)
		return true;
	path = where(r, at);
	add(r, (struct problem){.what = ABOUT_NOTHING, .text = arena_printf(r->a, "%s value must be of type %.*s with format %.*s in %.*s", what,
									      STR_ARG(p->type), STR_ARG(format), STR_ARG(path))});
	return false;
}

/* A whole number is compared with the whole part of a limit, where that is in range (`whole`), as upstream does. */
static bool multiple(const struct jv *v, double of, bool whole)
{
	double d = v->kind == JV_INT ? (double)v->i : v->d;

	if (whole && v->kind == JV_INT)
		return whole_part(of) > 0 && v->i % whole_part(of) == 0;
	return nearly_whole(of < 1 ? 1 / of * d : d / of);
}

static int against(const struct jv *v, double limit, bool whole)
{
	double d = v->kind == JV_INT ? (double)v->i : v->d;

	if (whole && v->kind == JV_INT)
		return v->i < whole_part(limit) ? -1 : v->i > whole_part(limit);
	return d < limit ? -1 : d > limit;
}

static void judge_number(struct result *r, const props *p, const struct jv *v, const struct field_path *at)
{
	struct str s = shown(r->a, v);
	int c;

	/* an integer is not rounded to what does not fit */
	in_range(r, p, v->kind == JV_DOUBLE ? v->d : fmax(fmin((double)v->i, 0x1p63 - 1024), -0x1p63 + 1024), "Checked", at);
	if (p->multiple_of && *p->multiple_of > 0 && !multiple(v, *p->multiple_of, in_range(r, p, *p->multiple_of, "MultipleOf", at)))
		problem(r, INVALID, at, s, "should be a multiple of %.15g", *p->multiple_of);
	if (p->minimum) {
		c = against(v, *p->minimum, in_range(r, p, *p->minimum, "Minimum boundary", at));
		if (c < 0 || (!c && p->exclusive_minimum))
			problem(r, INVALID, at, s, "should be greater than%s %.15g", p->exclusive_minimum ? "" : " or equal to", *p->minimum);
	}
	if (p->maximum) {
		c = against(v, *p->maximum, in_range(r, p, *p->maximum, "Maximum boundary", at));
		if (c > 0 || (!c && p->exclusive_maximum))
			problem(r, INVALID, at, s, "should be less than%s %.15g", p->exclusive_maximum ? "" : " or equal to", *p->maximum);
	}
	r->matches++;
}

static size_t utf8_length(struct str s)
{
	size_t n = 0;

	for (size_t i = 0; i < s.n; i++)
		n += ((unsigned char)s.p[i] & 0xc0) != 0x80;
	return n;
}

static void limit(struct result *r, enum what what, const struct field_path *at, int64_t actual, int64_t max, const char *of)
{
	struct str path = where(r, at);

	add(r, (struct problem){.what = what, .path = path, .actual = actual, .max = max,
				.text = arena_printf(r->a, "%.*s in body should have at most %lld %s", STR_ARG(path), (long long)max, of)});
}

static void judge_string(struct result *r, const props *p, const struct jv *v, const struct field_path *at)
{
	struct str s = jv_str(v), quoted = shown(r->a, v), format = format_of(r, p);
	int64_t n = (int64_t)utf8_length(s);

	if (p->max_length && n > *p->max_length)
		limit(r, TOO_LONG, at, n, *p->max_length, "chars");
	else if (p->min_length && n < *p->min_length)
		problem(r, INVALID, at, quoted, "should be at least %lld chars long", (long long)*p->min_length);
	else if (p->pattern.n && !schema_pattern_matches(p->pattern, s))
		problem(r, INVALID, at, quoted, "should match '%.*s'", STR_ARG(p->pattern));
	if (format.n && !schema_format_fits(r->a, format, s))
		problem(r, TYPE, at, quoted, "must be of type %.*s: %.*s", STR_ARG(format), STR_ARG(quoted));
}

static void judge_enum(struct result *r, const props *p, const struct jv *v, const struct field_path *at)
{
	struct buf of buf_cleanup = {0};
	struct str path;

	for (uint32_t i = 0; i < p->enum_.n; i++) {
		struct jv x;
		struct error *e = jv_parse(r->a, p->enum_.v[i], NULL, &x);

		error_free(e);
		if (!e && x.kind != JV_NULL && jv_equal(&x, v))
			return;
		if (!e && x.kind == JV_INT && v->kind == JV_DOUBLE && whole_part(v->d) == x.i)
			return; /* upstream compares as numbers of the enum's kind */
	}
	if (!p->enum_.n)
		return;
	for (uint32_t i = 0; i < p->enum_.n; i++)
		buf_printf(&of, "%s%.*s", i ? " " : "", STR_ARG(p->enum_.v[i]));
	path = where(r, at);
	add(r, (struct problem){.what = ENUM, .path = path, .value = v->kind == JV_STRING ? jv_str(v) : shown(r->a, v), .schema = p,
				.text = arena_printf(r->a, "%.*s in body should be one of [%.*s]", STR_ARG(path), STR_ARG(buf_view(&of)))});
}

/* ---- lists and objects ---- */

static bool is_map(const props *p)
{
	return p->x_kubernetes_list_type && str_eqz(*p->x_kubernetes_list_type, "map") &&
	       p->x_kubernetes_list_map_keys.n;
}

static void judge_list(struct result *r, const props *p, const struct jv *v, const struct jv *old, const struct field_path *at)
{
	const props *item = p->items ? p->items->schema : NULL;
	/* elements of maps are found again by their keys; of other lists, nothing is */
	struct list_index *before = is_map(p) && jv_is(old, JV_ARRAY) ? list_index_new(r->a, p, old) : NULL;

	for (uint32_t i = 0; item && i < v->n; i++)
		judge(r, item, &v->items[i], before ? list_index_get(before, &v->items[i]) : NULL, FIELD_INDEX(at, i));
	if (p->min_items && v->n < *p->min_items)
		problem(r, INVALID, at, arena_printf(r->a, "%u", v->n), "should have at least %lld items", (long long)*p->min_items);
	if (p->max_items && v->n > *p->max_items)
		limit(r, TOO_MANY, at, v->n, *p->max_items, "items");
	r->matches++;
}

static void judge_object(struct result *r, const props *p, const struct jv *v, const struct jv *old, const struct field_path *at)
{
	const props *values = p->additional_properties ? p->additional_properties->schema : NULL;

	if (p->min_properties && v->n < *p->min_properties)
		problem(r, INVALID, at, arena_printf(r->a, "%u", v->n), "should have at least %lld properties", (long long)*p->min_properties);
	if (p->max_properties && v->n > *p->max_properties)
		limit(r, TOO_MANY, at, v->n, *p->max_properties, "properties");
	for (uint32_t i = 0; i < v->n; i++) {
		const struct jv_member *m = &v->members[i];
		const props *c = property(p, m->key);
		/* what was there has been read as what is there now is written: how it was called is not to be seen */
		bool called = r->whole && !at && (str_eqz(m->key, "apiVersion") || str_eqz(m->key, "kind"));
		const struct jv *was = jv_is(old, JV_OBJECT) && !called ? jv_get(old, m->key) : NULL;

		if (c || values)
			judge(r, c ? c : values, &m->value, was, FIELD_CHILD_S(at, m->key));
		else if (p->additional_properties && !p->additional_properties->allows)
			problem(r, INVALID, at, STR("\"\""), "%.*s is a forbidden property", STR_ARG(m->key));
	}
	for (uint32_t i = 0; i < p->required.n; i++)
		if (!jv_get(v, p->required.v[i]))
			problem(r, REQUIRED, FIELD_CHILD_S(at, p->required.v[i]), STR_NULL, "is required");
}

/* ---- junctors ---- */

static struct result judged(const struct result *r, const props *p, const struct jv *v, const struct field_path *at)
{
	struct result x = {.a = r->a, .plain = r->plain, .whole = r->whole};

	judge(&x, p, v, NULL, at);
	return x;
}

static void about_nothing(struct result *r, const struct field_path *at, const char *text)
{
	struct str path = where(r, at);

	add(r, (struct problem){.what = ABOUT_NOTHING, .text = arena_printf(r->a, "\"%.*s\" %s", STR_ARG(path), text)});
}

/* At least one (any), or exactly one, of the alternatives. */
static void judge_alternatives(struct result *r, const props *v, uint32_t n, bool any, const struct jv *value, const struct field_path *at)
{
	struct result best = {0}, first = {0};
	bool failures = false;
	uint32_t valid = 0;

	for (uint32_t i = 0; i < n && !(any && valid); i++) {
		struct result x = judged(r, &v[i], value, at);

		if (!x.list.n) {
			if (!valid++)
				first = x;
			failures = false;
		} else if (!valid && (!failures || x.matches > best.matches)) {
			best = x;
			failures = true;
		}
	}
	if (any ? !valid : valid != 1)
		about_nothing(r, at, any ? "must validate at least one schema (anyOf)" :
			      arena_printf(r->a, "must validate one and only one schema (oneOf). Found %u valid alternatives", valid).p);
	if (failures)
		merge(r, &best);
	else if (any ? valid > 0 : valid == 1)
		merge(r, &first);
}

static void judge_junctors(struct result *r, const props *p, const struct jv *v, const struct field_path *at)
{
	uint32_t valid = 0;

	if (p->any_of.n)
		judge_alternatives(r, p->any_of.v, p->any_of.n, true, v, at);
	if (p->one_of.n)
		judge_alternatives(r, p->one_of.v, p->one_of.n, false, v, at);
	for (uint32_t i = 0; i < p->all_of.n; i++) {
		struct result x = judged(r, &p->all_of.v[i], v, at);

		valid += !x.list.n;
		merge(r, &x);
	}
	if (valid != p->all_of.n)
		about_nothing(r, at, valid ? "must validate all the schemas (allOf)" : "must validate all the schemas (allOf). None validated");
	if (p->not && !judged(r, p->not, v, at).list.n)
		about_nothing(r, at, "must not validate the schema (not)");
	r->matches++;
}

/* ---- the whole ---- */

/*
 * Whether a value is what it was, as upstream's CorrelatedObject has it: elements of maps are compared with those of
 * their keys wherever they stand, and of what no schema tells more than being an object, only what has nothing in it.
 */
static bool unchanged(struct arena *a, const props *p, const struct jv *v, const struct jv *old)
{
	struct list_index *before;

	if (v->kind != old->kind || (v->kind != JV_OBJECT && v->kind != JV_ARRAY))
		return v->kind == old->kind && jv_equal(v, old);
	if (v->n != old->n)
		return false;
	if (v->kind == JV_ARRAY) {
		if (!is_map(p) || !item_schema(p))
			return jv_equal(v, old);
		before = list_index_new(a, p, old);
		for (uint32_t i = 0; i < v->n; i++) {
			const struct jv *was = list_index_get(before, &v->items[i]);

			if (!was || !unchanged(a, item_schema(p), &v->items[i], was))
				return false;
		}
		return true;
	}
	for (uint32_t i = 0; i < v->n; i++) {
		const struct jv_member *m = &v->members[i];
		const struct jv *was = jv_get(old, m->key);
		const props *c = property(p, m->key);

		c = c ? c : value_schema(p);
		if (!was || !c || !unchanged(a, c, &m->value, was))
			return false;
	}
	return true;
}

/* Of numbers and texts it takes no time that is worth to be looked up. */
static bool same_as_before(struct result *r, const props *p, const struct jv *v, const struct jv *old)
{
	int64_t since = v->kind == JV_OBJECT || v->kind == JV_ARRAY ? now_ns() : 0;
	bool same = unchanged(r->a, p, v, old);

	if (since)
		r->compared_ns += now_ns() - since;
	return same;
}

static void judge(struct result *r, const props *p, const struct jv *v, const struct jv *old, const struct field_path *at)
{
	/* ratcheting (KEP-4008): what did not change is not judged again */
	if (old && same_as_before(r, p, v, old))
		return;
	if (type_of(r, p).n || format_of(r, p).n) {
		judge_type(r, p, v, at);
		r->matches += v->kind != JV_NULL;
	}
	if (v->kind == JV_NULL) {
		judge_enum(r, p, v, at);
		return;
	}
	judge_junctors(r, p, v, at);
	r->matches++;
	if (v->kind == JV_STRING) {
		judge_string(r, p, v, at);
		r->matches += 1 + (format_of(r, p).n != 0);
	} else if (v->kind == JV_INT || v->kind == JV_DOUBLE) {
		judge_number(r, p, v, at);
		r->matches++;
	} else if (v->kind == JV_ARRAY) {
		judge_list(r, p, v, old, at);
		r->matches++;
	}
	judge_enum(r, p, v, at);
	r->matches++;
	if (v->kind == JV_OBJECT) {
		judge_object(r, p, v, old, at);
		r->matches++;
	}
	r->matches++;
}

static void say(struct field_errors *e, const struct problem *p, const struct field_path *base)
{
	/* the path is text already */
	const struct field_path *at = p->what == ABOUT_NOTHING || !p->path.n ? base : FIELD_CHILD_S(base, p->path);
	struct str *values;
	struct field_error *f;

	switch (p->what) {
	case REQUIRED:
		field_required(e, at, "");
		break;
	case ENUM:
		values = arena_array(e->arena, struct str, p->schema->enum_.n);
		for (uint32_t i = 0; i < p->schema->enum_.n; i++) {
			struct jv x;
			struct error *err = jv_parse(e->arena, p->schema->enum_.v[i], NULL, &x);

			values[i] = !err && x.kind == JV_STRING ? jv_str(&x) : p->schema->enum_.v[i];
			error_free(err);
		}
		field_not_supported(e, at, p->value, values, p->schema->enum_.n);
		break;
	case TOO_LONG:
		field_too_long(e, at, (int)p->max);
		break;
	case TOO_MANY:
		field_too_many(e, at, p->actual, p->max);
		break;
	case TYPE:
		if (e->list.n >= FIELD_ERRORS_MAX)
			return;
		f = arena_push(e->arena, &e->list);
		f->type = FIELD_ERROR_TYPE_INVALID;
		f->field = field_path_format(e->arena, at);
		f->body = arena_printf(e->arena, "Invalid value: %.*s: %.*s", STR_ARG(p->value), STR_ARG(p->text));
		break;
	default:
		field_invalid_raw(e, at, p->value.n ? p->value : STR("\"\""), "%.*s", STR_ARG(p->text));
	}
}

static void judge_all(struct field_errors *e, const props *p, const struct jv *v, const struct jv *old, bool plain, const struct field_path *at)
{
	struct result r = {.a = e->arena, .plain = plain, .whole = !at};

	judge(&r, p, v, old, NULL);
	if (old)
		metrics_observe(METRIC_RATCHETING, "", (double)r.compared_ns / 1e9);
	for (uint32_t i = 0; i < r.list.n; i++)
		say(e, &r.list.v[i], at);
}

void schema_judge(struct field_errors *e, const props *p, const struct jv *v, const struct jv *old, const struct field_path *at)
{
	judge_all(e, p, v, old, false, at);
}

void schema_judge_default(struct field_errors *e, const props *p, const struct jv *v, const struct field_path *at)
{
	judge_all(e, p, v, NULL, true, at);
}
