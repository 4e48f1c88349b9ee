/* string.format(): cel-go's ext/formatting.go (version 1) in its locale en_US: grouped digits, exponents as x10 to the power. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "cel/ast.h"
#include "cel/lib.h"

#define PRECISION_MAX 100
#define OUTPUT_MAX (64u << 20)

struct formatter {
	struct arena *a;
	struct buf out;
	struct str why; /* p != NULL: failed */
};

static bool wrong(struct formatter *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool wrong(struct formatter *f, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	f->why = arena_vprintf(f->a, fmt, ap);
	va_end(ap);
	return false;
}

static const char *const needs[] = {
	['s'] = "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps",
	['d'] = "decimal clause can only be used on integers",
	['f'] = "fixed-point clause can only be used on doubles",
	['e'] = "scientific clause can only be used on doubles",
	['b'] = "only integers and bools can be formatted as binary",
	['x'] = "only integers, byte buffers, and strings can be formatted as hex",
	['X'] = "only integers, byte buffers, and strings can be formatted as hex",
	['o'] = "octal clause can only be used on integers",
};

/* A clause behind '%' at s.p[*i]; moves *i behind it. 0: why. */
static char clause(struct formatter *f, struct str s, size_t *i, int *precision)
{
	char c;

	*precision = 6;
	if (*i < s.n && s.p[*i] == '.') {
		size_t start = ++*i;
		int p = 0;

		while (*i < s.n && s.p[*i] >= '0' && s.p[*i] <= '9') {
			p = p > PRECISION_MAX ? p : p * 10 + s.p[*i] - '0';
			++*i;
		}
		if (*i >= s.n) {
			wrong(f, "could not parse formatting clause: error while parsing precision: could not find end of precision specifier");
			return 0;
		}
		if (*i == start || p > PRECISION_MAX) {
			wrong(f, "could not parse formatting clause: error while parsing precision: error while converting precision to integer");
			return 0;
		}
		*precision = p;
	}
	c = s.p[(*i)++];
	if (!c || !strchr("sdfebxXo", c)) {
		wrong(f, "could not parse formatting clause: unrecognized formatting clause \"%c\"", c);
		return 0;
	}
	return c;
}

static void quoted(struct buf *b, struct str s)
{
	static const char from[] = "\a\b\f\n\r\t\v\\\"", to[] = "abfnrtv\\\"";

	buf_putc(b, '"');
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];
		const char *at = c ? strchr(from, c) : NULL;

		if (at) {
			buf_putc(b, '\\');
			buf_putc(b, to[at - from]);
		} else if (c < 0x20 || c == 0x7f) {
			buf_printf(b, "\\x%02x", c);
		} else {
			buf_putc(b, (char)c);
		}
	}
	buf_putc(b, '"');
}

static bool put_string(struct formatter *f, struct cel_value v, bool nested, int depth);

static bool put_list(struct formatter *f, struct cel_value v, int depth)
{
	uint32_t n = cel_size(v);

	buf_putc(&f->out, '[');
	for (uint32_t i = 0; i < n; i++) {
		if (i)
			buf_puts(&f->out, ", ");
		if (!put_string(f, cel_at(f->a, v, i), true, depth + 1))
			return false;
	}
	buf_putc(&f->out, ']');
	return true;
}

struct text_pair {
	struct str key;
	struct cel_value value;
};

static int pair_order(const void *x, const void *y)
{
	return str_cmp(((const struct text_pair *)x)->key, ((const struct text_pair *)y)->key);
}

static bool put_map(struct formatter *f, struct cel_value v, int depth)
{
	uint32_t n = cel_size(v);
	struct text_pair *p = arena_array(f->a, struct text_pair, n + 1);

	for (uint32_t i = 0; i < n; i++) {
		struct cel_value key = cel_map_at(f->a, v, i, &p[i].value);

		if (key.kind == CEL_STRING) {
			struct buf b buf_cleanup = {0};

			quoted(&b, cel_str(key));
			p[i].key = arena_str(f->a, buf_view(&b));
		} else if (key.kind == CEL_BOOL || key.kind == CEL_INT || key.kind == CEL_UINT) {
			p[i].key = cel_show(f->a, key);
		} else {
			struct str s = cel_kind_name(key);

			return wrong(f, "error during formatting: no formatting function for map key of type %.*s", STR_ARG(s));
		}
	}
	qsort(p, n, sizeof *p, pair_order);
	buf_putc(&f->out, '{');
	for (uint32_t i = 0; i < n; i++) {
		if (i)
			buf_puts(&f->out, ", ");
		buf_str(&f->out, p[i].key);
		buf_putc(&f->out, ':');
		if (!put_string(f, p[i].value, true, depth + 1))
			return false;
	}
	buf_putc(&f->out, '}');
	return true;
}

static bool put_string(struct formatter *f, struct cel_value v, bool nested, int depth)
{
	struct str s;

	if (depth > JV_MAX_DEPTH || f->out.overflow)
		return wrong(f, "error during formatting: the value is too large");
	switch (v.kind) {
	case CEL_LIST:
		return put_list(f, v, depth);
	case CEL_MAP:
		return put_map(f, v, depth);
	case CEL_NULL:
		buf_puts(&f->out, "null");
		return true;
	case CEL_STRING:
	case CEL_BYTES:
		if (v.kind == CEL_BYTES && !cel_valid_utf8(cel_str(v)))
			return wrong(f, "error during formatting: could not convert argument \"invalid UTF-8 in bytes, "
					"cannot convert to string\" to string");
		if (nested) {
			if (v.kind == CEL_BYTES)
				buf_putc(&f->out, 'b');
			quoted(&f->out, cel_str(v));
		} else {
			buf_str(&f->out, cel_str(v));
		}
		return true;
	case CEL_TIMESTAMP:
	case CEL_DURATION:
		s = cel_show(f->a, v);
		if (nested)
			buf_printf(&f->out, "%s(\"%.*s\")", v.kind == CEL_DURATION ? "duration" : "timestamp", STR_ARG(s));
		else
			buf_str(&f->out, s);
		return true;
	case CEL_DOUBLE:
		if (nested && isnan(v.d))
			buf_puts(&f->out, "\"NaN\"");
		else if (nested && isinf(v.d))
			buf_puts(&f->out, v.d > 0 ? "\"+Inf\"" : "\"-Inf\"");
		else if (nested)
			buf_printf(&f->out, "%.6f", v.d);
		else
			buf_str(&f->out, cel_show(f->a, v));
		return true;
	case CEL_BOOL:
	case CEL_INT:
	case CEL_UINT:
		buf_str(&f->out, cel_show(f->a, v));
		return true;
	case CEL_TYPE:
		buf_str(&f->out, cel_type_name(v.type));
		return true;
	case CEL_ERROR:
		s = cel_error_text(v);
		return wrong(f, "%.*s", STR_ARG(s));
	default:
		s = cel_kind_name(v);
		return wrong(f, "error during formatting: %s, was given %.*s", needs['s'], STR_ARG(s));
	}
}

/* 1234567.5 as 1,234,567.500000 */
static void put_grouped(struct buf *b, double d, int precision)
{
	char text[512];
	int n = snprintf(text, sizeof text, "%.*f", precision, fabs(d)), whole = 0;

	while (whole < n && text[whole] != '.')
		whole++;
	if (signbit(d))
		buf_putc(b, '-');
	for (int i = 0; i < whole; i++) {
		if (i && (whole - i) % 3 == 0)
			buf_putc(b, ',');
		buf_putc(b, text[i]);
	}
	buf_append(b, text + whole, (size_t)(n - whole));
}

static void put_scientific(struct buf *b, double d)
{
	static const char *const super[] = {"\u2070", "\u00b9", "\u00b2", "\u00b3", "\u2074", "\u2075", "\u2076", "\u2077", "\u2078", "\u2079"};
	char text[256], *e;

	snprintf(text, sizeof text, "%.6e", d);
	e = strchr(text, 'e');
	buf_append(b, text, (size_t)(e - text));
	buf_puts(b, "\u00d710");
	for (e++; *e; e++)
		if (*e == '-')
			buf_puts(b, "\u207b");
		else if (*e != '+')
			buf_puts(b, super[*e - '0']);
}

static bool put_double(struct formatter *f, struct cel_value v, char c, int precision)
{
	double d = v.d == 0 ? 0 : v.d; /* without a sign */
	struct buf b buf_cleanup = {0};

	if (v.kind == CEL_STRING) {
		if (str_eqz(cel_str(v), "NaN"))
			d = NAN;
		else
			d = cel_str(v).p[0] == '-' ? -INFINITY : INFINITY;
	}
	if (isnan(d))
		buf_puts(&b, "NaN");
	else if (isinf(d))
		buf_puts(&b, d > 0 ? "\u221e" : "-\u221e");
	else if (c == 'f')
		put_grouped(&b, d, precision);
	else
		put_scientific(&b, d);
	if (c == 'e') /* what looks like a precision is a width there, as upstream's */
		for (uint64_t n = cel_runes(buf_view(&b)); n < (uint64_t)precision; n++)
			buf_putc(&f->out, ' ');
	buf_str(&f->out, buf_view(&b));
	return true;
}

static void put_base(struct buf *b, struct cel_value v, unsigned base, bool upper)
{
	const char *digits = upper ? "0123456789ABCDEF" : "0123456789abcdef";
	char text[66];
	size_t n = sizeof text;
	bool minus = v.kind == CEL_INT && v.i < 0;
	uint64_t u = minus ? 0 - v.u : v.u;

	do {
		text[--n] = digits[u % base];
		u /= base;
	} while (u);
	if (minus)
		buf_putc(b, '-');
	buf_append(b, text + n, sizeof text - n);
}

static bool special_number(struct str s)
{
	return str_eqz(s, "NaN") || str_eqz(s, "Infinity") || str_eqz(s, "-Infinity");
}

static bool put(struct formatter *f, char c, int precision, struct cel_value v)
{
	bool whole = v.kind == CEL_INT || v.kind == CEL_UINT;
	struct str s;

	switch (c) {
	case 's':
		return put_string(f, v, false, 0);
	case 'd':
		if (!whole)
			break;
		buf_str(&f->out, cel_show(f->a, v));
		return true;
	case 'f':
	case 'e':
		if (v.kind != CEL_DOUBLE && !(v.kind == CEL_STRING && special_number(cel_str(v))))
			break;
		return put_double(f, v, c, precision);
	case 'b':
		if (v.kind == CEL_BOOL)
			buf_putc(&f->out, v.b ? '1' : '0');
		else if (whole)
			put_base(&f->out, v, 2, false);
		else
			break;
		return true;
	case 'o':
		if (!whole)
			break;
		put_base(&f->out, v, 8, false);
		return true;
	default:
		if (whole) {
			put_base(&f->out, v, 16, c == 'X');
		} else if (v.kind == CEL_STRING || v.kind == CEL_BYTES) {
			s = cel_str(v);
			for (size_t i = 0; i < s.n; i++)
				buf_printf(&f->out, c == 'X' ? "%02X" : "%02x", (unsigned char)s.p[i]);
		} else {
			break;
		}
		return true;
	}
	s = cel_kind_name(v);
	return wrong(f, "error during formatting: %s, was given %.*s", needs[(int)c], STR_ARG(s));
}

struct cel_value cel_format(struct run *r, struct str fmt, struct cel_value args)
{
	struct formatter f = {.a = r->a, .out = {.limit = OUTPUT_MAX}};
	uint32_t n = cel_size(args), k = 0;
	struct cel_value out;

	for (size_t i = 0; i < fmt.n && !f.why.p;) {
		int precision;
		char c;

		if (fmt.p[i] != '%') {
			buf_putc(&f.out, fmt.p[i++]);
			continue;
		}
		if (i + 1 < fmt.n && fmt.p[i + 1] == '%') {
			buf_putc(&f.out, '%');
			i += 2;
			continue;
		}
		if (k >= n) {
			wrong(&f, "index %u out of range", k);
			break;
		}
		if (++i >= fmt.n) {
			wrong(&f, "unexpected end of string");
			break;
		}
		c = clause(&f, fmt, &i, &precision);
		if (c)
			put(&f, c, precision, cel_at(r->a, args, k++));
	}
	if (f.out.overflow && !f.why.p)
		wrong(&f, "string is too long");
	out = f.why.p ? cel_fail(r, "%.*s", STR_ARG(f.why)) : cel_string(arena_str(r->a, buf_view(&f.out)));
	buf_free(&f.out);
	return out;
}

/* ---- a literal, checked when compiled ---- */

static bool kind_fits(char c, const struct cel_type *t)
{
	switch (t->kind) {
	case CEL_DYN:
		return true;
	case CEL_INT:
	case CEL_UINT:
		return c != 'f' && c != 'e';
	case CEL_DOUBLE:
		return c == 's' || c == 'f' || c == 'e';
	case CEL_STRING:
		return c == 's' || c == 'x' || c == 'X' || c == 'f' || c == 'e';
	case CEL_BYTES:
		return c == 's' || c == 'x' || c == 'X';
	case CEL_BOOL:
		return c == 's' || c == 'b';
	case CEL_LIST:
	case CEL_MAP:
	case CEL_TIMESTAMP:
	case CEL_DURATION:
	case CEL_TYPE:
	case CEL_NULL:
		return c == 's';
	default:
		return false;
	}
}

static const struct node *misfit(char c, const struct node *x)
{
	const struct node *bad = NULL;

	if (!kind_fits(c, x->type))
		return x;
	if (c == 's' && (x->kind == NODE_LIST || x->kind == NODE_MAP))
		for (uint32_t i = 0; i < x->n && !bad; i++)
			bad = misfit(c, x->args[i]);
	return bad;
}

bool cel_format_check(struct arena *a, struct str fmt, struct node *const *args, uint32_t n, struct str *why, const struct node **at)
{
	struct formatter f = {.a = a};
	uint32_t k = 0;

	*at = NULL;
	for (size_t i = 0; i < fmt.n && !f.why.p;) {
		int precision;
		char c;

		if (fmt.p[i++] != '%')
			continue;
		if (i < fmt.n && fmt.p[i] == '%') {
			i++;
			continue;
		}
		if (i >= fmt.n) {
			wrong(&f, "unexpected end of string");
			break;
		}
		if (k >= n) {
			wrong(&f, "index %u out of range", k);
			break;
		}
		c = clause(&f, fmt, &i, &precision);
		if (c) {
			const struct node *bad = misfit(c, args[k++]);

			if (bad) {
				struct str s = cel_type_name(bad->type);

				*at = bad;
				wrong(&f, "error during formatting: %s, was given %.*s", needs[(int)c], STR_ARG(s));
			}
		}
	}
	if (!f.why.p && k < n)
		wrong(&f, "too many arguments supplied to string.format (expected %u, got %u)", k, n);
	*why = f.why;
	return !f.why.p;
}
