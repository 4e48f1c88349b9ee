/* quantity, semver, named formats, the authorizer: Kubernetes' own libraries. */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include "cel/lib.h"
#include "schema/quantity.h"
#include "schema/validate.h"

#define FN(name) struct cel_value name(struct run *r, const struct cel_value *v, uint32_t n)

/* ---- quantity ---- */

/* Its canonical text, and the form upstream keeps small ones in (int64Amount): only those have an integer value there. */
struct quantity {
	struct str text;
	bool small;
	bool computed; /* by add() or sub(): nothing is comparable with it then, in upstream */
	int64_t value; /* x 10^scale */
	int32_t scale; /* of a large one, too: a whole number stands before it */
};

static int64_t ten_to(int n)
{
	int64_t v = 1;

	while (n-- > 0)
		v *= 10;
	return v;
}

/* ParseQuantity's fast path: which texts become an int64Amount. */
static void read_small(struct quantity *q, struct str s)
{
	static const struct {
		char c;
		int8_t power, shift;
	} suffixes[] = {{'n', -9, 0}, {'u', -6, 0}, {'m', -3, 0}, {'k', 3, 10}, {'K', 3, 10}, {'M', 6, 20}, {'G', 9, 30}, {'T', 12, 40}, {'P', 15, 50},
			{'E', 18, 60}};
	bool minus = s.n && s.p[0] == '-';
	size_t i = s.n && (s.p[0] == '-' || s.p[0] == '+'), digits = 0, fraction = 0;
	int precision, exponent = 0, shift = 0;
	int64_t v = 0;

	while (i < s.n && s.p[i] == '0')
		i++;
	for (; i < s.n && isdigit((unsigned char)s.p[i]); i++, digits++)
		if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, s.p[i] - '0', &v))
			return;
	if (!digits)
		digits = 1;
	if (i < s.n && s.p[i] == '.')
		for (i++; i < s.n && isdigit((unsigned char)s.p[i]); i++, fraction++)
			if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, s.p[i] - '0', &v))
				return;
	if (i + 1 < s.n && (s.p[i] == 'e' || s.p[i] == 'E') && s.p[i + 1] != 'i') {
		exponent = atoi(s.p + i + 1); /* canonical texts come from an arena, NUL-terminated; so do copies */
	} else if (i < s.n) {
		for (size_t k = 0; k < sizeof suffixes / sizeof *suffixes; k++)
			if (s.p[i] == suffixes[k].c) {
				if (i + 1 < s.n && s.p[i + 1] == 'i')
					shift = suffixes[k].shift;
				else
					exponent = suffixes[k].power;
			}
	}
	if (shift) {
		precision = fraction ? -1 : 15 - (int)digits - (int)((float)shift * 3 / 10) - 1;
		exponent = 0;
	} else {
		precision = 18 - (int)(digits + fraction);
	}
	exponent -= (int)fraction;
	if (precision < 0 || exponent < -9 || __builtin_mul_overflow(v, (int64_t)1 << shift, &v))
		return;
	q->small = true;
	q->value = minus ? -v : v;
	q->scale = exponent;
}

static struct cel_value quantity_of(const struct quantity *q)
{
	return cel_opaque(&cel_type_quantity, q);
}

#define QUANTITY(v) ((const struct quantity *)(v).ptr)
#define Q(v) (QUANTITY(v)->text)

FN(lib_quantity)
{
	struct quantity *q = arena_new(r->a, struct quantity);
	struct error *e = quantity_canonical(r->a, cel_str(v[0]), &q->text);

	(void)n;
	if (e) {
		struct cel_value bad = cel_fail(r, "%s", error_message(e));

		error_free(e);
		return bad;
	}
	q->scale = -9;
	read_small(q, str_from(arena_strz(r->a, cel_str(v[0]))));
	return quantity_of(q);
}

FN(lib_is_quantity)
{
	struct str text;
	struct error *e = quantity_canonical(r->a, cel_str(v[0]), &text);
	bool ok = !e;

	(void)n;
	error_free(e);
	return cel_bool(ok);
}

FN(lib_quantity_sign)
{
	(void)r, (void)n;
	return cel_int(quantity_cmp(Q(v[0]), STR("0")));
}

static bool whole(const struct quantity *q, int64_t *out)
{
	if (!q->small || q->scale < 0 || q->scale > 18)
		return q->small && !q->value && q->scale >= 0 ? (*out = 0, true) : false;
	return !__builtin_mul_overflow(q->value, ten_to(q->scale), out);
}

FN(lib_quantity_is_int)
{
	int64_t i;

	(void)r, (void)n;
	return cel_bool(whole(QUANTITY(v[0]), &i));
}

FN(lib_quantity_int)
{
	int64_t i;

	(void)n;
	return whole(QUANTITY(v[0]), &i) ? cel_int(i) : cel_fail(r, "cannot convert value to integer");
}

/* The whole number before 10^scale, times that: with both roundings. */
FN(lib_quantity_float)
{
	static const struct {
		const char *suffix;
		int8_t power, shift;
	} suffixes[] = {{"Ki", 0, 10}, {"Mi", 0, 20}, {"Gi", 0, 30}, {"Ti", 0, 40}, {"Pi", 0, 50}, {"Ei", 0, 60}, {"n", -9, 0}, {"u", -6, 0},
			{"m", -3, 0}, {"k", 3, 0}, {"M", 6, 0}, {"G", 9, 0}, {"T", 12, 0}, {"P", 15, 0}, {"E", 18, 0}};
	const struct quantity *q = QUANTITY(v[0]);
	size_t digits = 0;
	int power = -q->scale, shift = 0;
	double d = (double)q->value;

	(void)n;
	if (!q->small) {
		struct str rest;

		while (digits < q->text.n && strchr("-+.0123456789", q->text.p[digits]))
			digits++;
		rest = str_sub(q->text, digits, q->text.n);
		for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++)
			if (str_eqz(rest, suffixes[i].suffix)) {
				power += suffixes[i].power;
				shift = suffixes[i].shift;
			}
		if (rest.n > 1 && rest.p[0] == 'e')
			power += atoi(arena_strz(r->a, str_sub(rest, 1, rest.n)));
		d = ldexp(strtod(arena_strz(r->a, arena_printf(r->a, "%.*se%d", (int)digits, q->text.p, power)), NULL), shift);
	}
	return cel_double(q->scale ? d * pow(10, q->scale) : d);
}

/* int64Amount.Add; false: it does not fit */
static bool add_small(struct quantity *x, int64_t value, int32_t scale)
{
	int64_t a = x->value, b = value;

	if (!b)
		return true;
	if (!a) {
		x->value = b;
		x->scale = scale;
		return true;
	}
	if (abs(x->scale - scale) > 18)
		return false;
	if (x->scale > scale && __builtin_mul_overflow(a, ten_to(x->scale - scale), &a))
		return false;
	if (x->scale < scale && __builtin_mul_overflow(b, ten_to(scale - x->scale), &b))
		return false;
	if (__builtin_add_overflow(a, b, &a))
		return false;
	x->value = a;
	x->scale = x->scale < scale ? x->scale : scale;
	return true;
}

static struct cel_value plus(struct run *r, const struct cel_value *v, bool minus)
{
	struct quantity *q = arena_new(r->a, struct quantity), other = {0};

	if (v[1].kind == CEL_INT)
		other = (struct quantity){.text = quantity_from(r->a, v[1].i, false), .small = true, .value = v[1].i};
	else
		other = *QUANTITY(v[1]);
	*q = *QUANTITY(v[0]);
	q->computed = true;
	q->small = q->small && other.small && /* the negation wraps around, as upstream's */
		   add_small(q, minus ? (int64_t)(0 - (uint64_t)other.value) : other.value, other.scale);
	if (!q->small && other.scale < q->scale)
		q->scale = other.scale;
	if (q->small && other.value == INT64_MIN)
		minus = false;
	q->text = minus ? quantity_sub(r->a, Q(v[0]), other.text) : quantity_add(r->a, Q(v[0]), other.text);
	return quantity_of(q);
}

FN(lib_quantity_add)
{
	(void)n;
	return plus(r, v, false);
}

FN(lib_quantity_sub)
{
	(void)n;
	return plus(r, v, true);
}

/* ---- semver 2.0.0 ---- */

struct semver {
	uint64_t major, minor, patch;
	struct str pre; /* without the minus; NULL: none */
	struct str build;
};

static bool semver_number(struct str s, uint64_t *out)
{
	if (!s.n || (s.n > 1 && s.p[0] == '0'))
		return false;
	for (size_t i = 0; i < s.n; i++)
		if (!isdigit((unsigned char)s.p[i]))
			return false;
	return str_to_u64(s, out);
}

static bool identifiers(struct str s, bool pre)
{
	struct str rest = s;

	do {
		struct str id = str_cut(&rest, '.');
		bool digits = true;

		if (!id.n)
			return false;
		for (size_t i = 0; i < id.n; i++) {
			if (!isalnum((unsigned char)id.p[i]) && id.p[i] != '-')
				return false;
			digits &= isdigit((unsigned char)id.p[i]) != 0;
		}
		if (pre && digits && id.n > 1 && id.p[0] == '0')
			return false;
	} while (rest.p);
	return true;
}

static const char *parse_semver(struct str s, struct semver *out)
{
	struct str rest = s, major, minor, patch;
	ptrdiff_t plus, minus;

	*out = (struct semver){0};
	if (!s.n)
		return "Version string empty";
	major = str_cut(&rest, '.');
	minor = rest.p ? str_cut(&rest, '.') : STR_NULL;
	if (!rest.p)
		return "No Major.Minor.Patch elements found";
	patch = rest;
	plus = str_index(patch, '+');
	if (plus >= 0) {
		out->build = str_sub(patch, (size_t)plus + 1, patch.n);
		patch = str_sub(patch, 0, (size_t)plus);
		if (!identifiers(out->build, false))
			return "Invalid character(s) found in build meta data";
	}
	minus = str_index(patch, '-');
	if (minus >= 0) {
		out->pre = str_sub(patch, (size_t)minus + 1, patch.n);
		patch = str_sub(patch, 0, (size_t)minus);
		if (!identifiers(out->pre, true))
			return "Invalid character(s) found in prerelease";
	}
	if (!semver_number(major, &out->major))
		return "Invalid character(s) found in major number";
	if (!semver_number(minor, &out->minor))
		return "Invalid character(s) found in minor number";
	if (!semver_number(patch, &out->patch))
		return "Invalid character(s) found in patch number";
	return NULL;
}

/* "v1.02" -> "1.2.0", as upstream's normalizeAndParse */
static const char *normalize(struct arena *a, struct str s, struct str *out)
{
	struct str parts[3] = {{0}}, rest;
	int n = 0;

	if (str_has_prefix(s, STR("v")))
		s = str_sub(s, 1, s.n);
	if (memchr(s.p, 0, s.n))
		return "Invalid character(s) found in version";
	rest = s;
	while (n < 2 && rest.p && str_index(rest, '.') >= 0)
		parts[n++] = str_cut(&rest, '.');
	parts[n++] = rest;
	for (int i = 0; i < n; i++) {
		struct str p = parts[i];

		if (p.n <= 1)
			continue;
		while (p.n && p.p[0] == '0')
			p = str_sub(p, 1, p.n);
		parts[i] = p.n && isdigit((unsigned char)p.p[0]) ? p : arena_printf(a, "0%.*s", STR_ARG(p));
	}
	if (n < 3 && (str_index(parts[n - 1], '+') >= 0 || str_index(parts[n - 1], '-') >= 0))
		return "short version cannot contain PreRelease/Build meta data";
	while (n < 3)
		parts[n++] = STR("0");
	*out = arena_printf(a, "%.*s.%.*s.%.*s", STR_ARG(parts[0]), STR_ARG(parts[1]), STR_ARG(parts[2]));
	return NULL;
}

static const char *read_semver(struct run *r, const struct cel_value *v, uint32_t n, struct semver *out)
{
	struct str s = cel_str(v[0]);
	const char *why = n > 1 && v[1].b ? normalize(r->a, s, &s) : NULL;

	return why ? why : parse_semver(s, out);
}

FN(lib_semver)
{
	struct semver *s = arena_new(r->a, struct semver);
	const char *why = read_semver(r, v, n, s);

	return why ? cel_fail(r, "%s", why) : cel_opaque(&cel_type_semver, s);
}

FN(lib_is_semver)
{
	struct semver s;

	return cel_bool(!read_semver(r, v, n, &s));
}

#define S(v) ((const struct semver *)(v).ptr)

FN(lib_semver_major)
{
	(void)r, (void)n;
	return cel_int((int64_t)S(v[0])->major);
}

FN(lib_semver_minor)
{
	(void)r, (void)n;
	return cel_int((int64_t)S(v[0])->minor);
}

FN(lib_semver_patch)
{
	(void)r, (void)n;
	return cel_int((int64_t)S(v[0])->patch);
}

static int order(uint64_t x, uint64_t y)
{
	return x < y ? -1 : x > y;
}

static bool numeric(struct str s)
{
	for (size_t i = 0; i < s.n; i++)
		if (!isdigit((unsigned char)s.p[i]))
			return false;
	return s.n > 0;
}

static int pre_order(struct str x, struct str y)
{
	struct str p = x, q = y;

	if (!x.p || !y.p)
		return x.p ? -1 : y.p != NULL;
	while (p.p && q.p) {
		struct str a = str_cut(&p, '.'), b = str_cut(&q, '.');
		bool na = numeric(a), nb = numeric(b);
		int c = na && nb ? (a.n != b.n ? order(a.n, b.n) : str_cmp(a, b)) : na != nb ? (na ? -1 : 1) : str_cmp(a, b);

		if (c)
			return c < 0 ? -1 : 1;
	}
	return p.p ? 1 : q.p ? -1 : 0;
}

static int semver_order(const struct semver *x, const struct semver *y)
{
	int c = order(x->major, y->major);

	c = c ? c : order(x->minor, y->minor);
	c = c ? c : order(x->patch, y->patch);
	return c ? c : pre_order(x->pre, y->pre);
}

static int own_order(const struct cel_value *v)
{
	int c = v[0].type == &cel_type_semver ? semver_order(S(v[0]), S(v[1])) : quantity_cmp(Q(v[0]), Q(v[1]));

	return c < 0 ? -1 : c > 0;
}

FN(lib_greater)
{
	(void)r, (void)n;
	return cel_bool(own_order(v) > 0);
}

FN(lib_less)
{
	(void)r, (void)n;
	return cel_bool(own_order(v) < 0);
}

FN(lib_compare_to)
{
	(void)r, (void)n;
	return cel_int(own_order(v));
}

/* ---- named formats ---- */

typedef const char *(*check_fn)(struct arena *a, struct str s);

static struct str prefix_masked(struct arena *a, struct str s)
{
	/* a generateName may end in a dash: upstream puts an `a` in its place */
	return s.n > 1 && s.p[s.n - 1] == '-' ? arena_printf(a, "%.*sa", STR_ARG(str_sub(s, 0, s.n - 1))) : s;
}

static const char *label_prefix(struct arena *a, struct str s)
{
	return validate_dns1123_label(a, prefix_masked(a, s));
}

static const char *subdomain_prefix(struct arena *a, struct str s)
{
	return validate_dns1123_subdomain(a, prefix_masked(a, s));
}

static const char *label_1035_prefix(struct arena *a, struct str s)
{
	return validate_dns1035_label(a, prefix_masked(a, s));
}

static const char *uri(struct arena *a, struct str s)
{
	return cel_uri_error(a, s);
}

static const char *uuid(struct arena *a, struct str s)
{
	size_t digits = 0;

	(void)a;
	for (size_t i = 0; i < s.n; i++) {
		if (isxdigit((unsigned char)s.p[i]))
			digits++;
		else if (s.p[i] != '-' || (digits != 8 && digits != 12 && digits != 16 && digits != 20) || (i && s.p[i - 1] == '-'))
			return "does not match the UUID format";
	}
	return digits == 32 && s.p[s.n - 1] != '-' ? NULL : "does not match the UUID format";
}

static const char *byte_format(struct arena *a, struct str s)
{
	struct str out;

	return s.n && base64_decode(a, s, &out) ? NULL : "invalid base64";
}

static const char *date(struct arena *a, struct str s)
{
	struct api_time t;

	return s.n == 10 && time_parse(arena_printf(a, "%.*sT00:00:00Z", STR_ARG(s)), &t) ? NULL : "invalid date";
}

static const char *datetime(struct arena *a, struct str s)
{
	struct api_time t;

	(void)a;
	return time_parse(s, &t) ? NULL : "invalid datetime";
}

struct named_format {
	const char *name, *shown;
	check_fn check;
	unsigned regex; /* length of its regular expression, for costs */
};

static const struct named_format formats[] = {
	{"dns1123Label", "DNS1123Label", validate_dns1123_label, 30},
	{"dns1123Subdomain", "DNS1123Subdomain", validate_dns1123_subdomain, 60},
	{"dns1035Label", "DNS1035Label", validate_dns1035_label, 30},
	{"qualifiedName", "QualifiedName", validate_qualified_name, 60},
	{"dns1123LabelPrefix", "DNS1123LabelPrefix", label_prefix, 30},
	{"dns1123SubdomainPrefix", "DNS1123SubdomainPrefix", subdomain_prefix, 60},
	{"dns1035LabelPrefix", "DNS1035LabelPrefix", label_1035_prefix, 30},
	{"labelValue", "LabelValue", validate_label_value, 40},
	{"uri", "URI", uri, 1103},
	{"uuid", "uuid", uuid, 70},
	{"byte", "byte", byte_format, 84},
	{"date", "date", date, 71},
	{"datetime", "datetime", datetime, 71},
};

#define FORMAT(id, i)                                                                              \
	FN(lib_format_##id)                                                                        \
	{                                                                                          \
		(void)r, (void)v, (void)n;                                                         \
		return cel_opaque(&cel_type_format, &formats[i]);                                  \
	}

FORMAT(dns1123Label, 0)
FORMAT(dns1123Subdomain, 1)
FORMAT(dns1035Label, 2)
FORMAT(qualifiedName, 3)
FORMAT(dns1123LabelPrefix, 4)
FORMAT(dns1123SubdomainPrefix, 5)
FORMAT(dns1035LabelPrefix, 6)
FORMAT(labelValue, 7)
FORMAT(uri, 8)
FORMAT(uuid, 9)
FORMAT(byte, 10)
FORMAT(date, 11)
FORMAT(datetime, 12)

FN(lib_format_named)
{
	(void)n;
	for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
		if (str_eqz(cel_str(v[0]), formats[i].name)) {
			struct cel_value *f = arena_new(r->a, struct cel_value);

			*f = cel_opaque(&cel_type_format, &formats[i]);
			return cel_optional(f);
		}
	return cel_optional(NULL);
}

FN(lib_validate)
{
	const struct named_format *f = v[0].ptr;
	const char *why = f->check(r->a, cel_str(v[1]));
	struct cel_value *list = arena_new(r->a, struct cel_value);
	LIST(struct cel_value) messages = {0};
	struct str rest;

	(void)n;
	if (!why)
		return cel_optional(NULL);
	rest = arena_str(r->a, str_from(why));
	while (rest.n) { /* joined with "; " (schema/validate_names.c) */
		ptrdiff_t i = str_find(rest, STR("; "));

		*arena_push(r->a, &messages) = cel_string(i < 0 ? rest : str_sub(rest, 0, (size_t)i));
		rest = i < 0 ? STR_NULL : str_sub(rest, (size_t)i + 2, rest.n);
	}
	*list = cel_list(messages.v, messages.n);
	return cel_optional(list);
}

unsigned cel_format_regex_size(struct cel_value format)
{
	return cel_is_opaque(format, &cel_type_format) ? ((const struct named_format *)format.ptr)->regex : 0;
}

/* ---- authorizer ---- */

struct authz {
	struct cel_authorizer *z;
	struct cel_authz_check c;
};

struct decision {
	struct cel_authz_decision d;
};

struct cel_value cel_authorizer_value(struct arena *a, struct cel_authorizer *z)
{
	struct authz *x = arena_new(a, struct authz);

	x->z = z;
	return cel_opaque(&cel_type_authorizer, x);
}

struct cel_value cel_resource_check_value(struct arena *a, struct cel_authorizer *z, const struct cel_authz_check *base)
{
	struct authz *x = arena_new(a, struct authz);

	x->z = z;
	x->c = *base;
	x->c.resource = true;
	return cel_opaque(&cel_type_resource_check, x);
}

static struct authz *copy(struct run *r, struct cel_value v)
{
	struct authz *x = arena_new(r->a, struct authz);

	*x = *(const struct authz *)v.ptr;
	return x;
}

static bool blank(struct str s)
{
	return !str_trim(s).n;
}

FN(lib_authz_path)
{
	struct authz *x = copy(r, v[0]);

	(void)n;
	if (blank(cel_str(v[1])))
		return cel_fail(r, "path must not be empty");
	x->c.path = cel_str(v[1]);
	return cel_opaque(&cel_type_path_check, x);
}

FN(lib_authz_group)
{
	struct authz *x = copy(r, v[0]);

	(void)n;
	x->c.group = cel_str(v[1]);
	return cel_opaque(&cel_type_group_check, x);
}

FN(lib_authz_sa)
{
	struct authz *x = copy(r, v[0]);

	(void)n;
	if (validate_dns1123_subdomain(r->a, cel_str(v[2])))
		return cel_fail(r, "Invalid service account name");
	if (validate_dns1123_label(r->a, cel_str(v[1])))
		return cel_fail(r, "Invalid service account namespace");
	x->c.service_account_ns = cel_str(v[1]);
	x->c.service_account = cel_str(v[2]);
	return cel_opaque(&cel_type_authorizer, x);
}

FN(lib_authz_resource)
{
	struct authz *x = copy(r, v[0]);

	(void)n;
	if (blank(cel_str(v[1])))
		return cel_fail(r, "resource must not be empty");
	x->c.resource = true;
	x->c.resource_name = cel_str(v[1]);
	return cel_opaque(&cel_type_resource_check, x);
}

#define WITH(fn, field)                                                                            \
	FN(fn)                                                                                     \
	{                                                                                          \
		struct authz *x = copy(r, v[0]);                                                   \
                                                                                                   \
		(void)n;                                                                           \
		x->c.field = cel_str(v[1]);                                                        \
		return cel_opaque(&cel_type_resource_check, x);                                    \
	}

WITH(lib_authz_subresource, subresource)
WITH(lib_authz_namespace, ns)
WITH(lib_authz_name, name)

FN(lib_authz_field_selector)
{
	struct authz *x = copy(r, v[0]);

	(void)n;
	x->c.field_selector = cel_str(v[1]);
	x->c.has_field_selector = v[1].n > 0;
	return cel_opaque(&cel_type_resource_check, x);
}

FN(lib_authz_label_selector)
{
	struct authz *x = copy(r, v[0]);

	(void)n;
	x->c.label_selector = cel_str(v[1]);
	x->c.has_label_selector = v[1].n > 0;
	return cel_opaque(&cel_type_resource_check, x);
}

FN(lib_authz_check)
{
	struct authz *x = copy(r, v[0]);
	struct decision *d = arena_new(r->a, struct decision);

	(void)n;
	x->c.verb = cel_str(v[1]);
	x->z->check(x->z, r->a, &x->c, &d->d);
	return cel_opaque(&cel_type_decision, d);
}

#define D(v) (&((const struct decision *)(v).ptr)->d)

FN(lib_decision_errored)
{
	(void)r, (void)n;
	return cel_bool(D(v[0])->error.p != NULL);
}

FN(lib_decision_error)
{
	(void)r, (void)n;
	return cel_string(D(v[0])->error);
}

FN(lib_decision_allowed)
{
	(void)r, (void)n;
	return cel_bool(D(v[0])->allowed);
}

FN(lib_decision_reason)
{
	(void)r, (void)n;
	return cel_string(D(v[0])->reason);
}

enum equality cel_opaque_equal(struct cel_value x, struct cel_value y)
{
	if (y.kind != CEL_OPAQUE || x.type != y.type)
		return EQ_FAILED;
	if (x.type == &cel_type_ip || x.type == &cel_type_cidr || x.type == &cel_type_url)
		return cel_net_equal(x, y);
	if (x.type == &cel_type_quantity)
		return QUANTITY(y)->computed ? EQ_FAILED : (enum equality)(quantity_cmp(Q(x), Q(y)) == 0);
	if (x.type == &cel_type_semver)
		return semver_order(S(x), S(y)) == 0;
	return x.ptr == y.ptr;
}
