/* A value as text for tests: 1, 1u, 1.5d, "s", b6869, ts(...), dur(ns), opt(x), type(int), [..], {..} with sorted members. */
#ifndef TEST_CEL_SHOW_H
#define TEST_CEL_SHOW_H

#include <stdio.h>
#include <stdlib.h>
#include "cel/internal.h"

static int show_order(const void *x, const void *y)
{
	return str_cmp(*(const struct str *)x, *(const struct str *)y);
}

static struct str show(struct arena *a, struct cel_value v)
{
	struct buf b buf_cleanup = {0};
	uint32_t n = cel_size(v);
	struct str s;

	switch (v.kind) {
	case CEL_NULL:
		return STR("null");
	case CEL_BOOL:
		return v.b ? STR("true") : STR("false");
	case CEL_INT:
		return arena_printf(a, "%lld", (long long)v.i);
	case CEL_UINT:
		return arena_printf(a, "%lluu", (unsigned long long)v.u);
	case CEL_DOUBLE:
		if (v.d != v.d)
			return STR("NaNd");
		if (v.d > 1.7976931348623157e308 || v.d < -1.7976931348623157e308)
			return v.d > 0 ? STR("+Infd") : STR("-Infd");
		return arena_printf(a, "%.17gd", v.d);
	case CEL_STRING:
		jv_encode_string(&b, cel_str(v));
		break;
	case CEL_BYTES:
		buf_putc(&b, 'b');
		for (uint32_t i = 0; i < v.n; i++)
			buf_printf(&b, "%02x", (unsigned char)v.p[i]);
		break;
	case CEL_TIMESTAMP:
	case CEL_DURATION: {
		struct jv j;
		struct error *e = cel_to_jv(a, v, &j);

		error_free(e);
		if (v.kind == CEL_DURATION)
			return arena_printf(a, "dur(%lld)", (long long)v.i);
		s = jv_str(&j);
		return arena_printf(a, "ts(%.*s)", STR_ARG(s));
	}
	case CEL_LIST:
		buf_putc(&b, '[');
		for (uint32_t i = 0; i < n; i++) {
			if (i)
				buf_puts(&b, ", ");
			buf_str(&b, show(a, cel_at(a, v, i)));
		}
		buf_putc(&b, ']');
		break;
	case CEL_MAP: {
		struct str *lines = arena_array(a, struct str, n + 1);

		for (uint32_t i = 0; i < n; i++) {
			struct cel_value value, key = cel_map_at(a, v, i, &value);
			struct str k = show(a, key), w = show(a, value);

			lines[i] = arena_printf(a, "%.*s: %.*s", STR_ARG(k), STR_ARG(w));
		}
		qsort(lines, n, sizeof *lines, show_order);
		buf_putc(&b, '{');
		for (uint32_t i = 0; i < n; i++) {
			if (i)
				buf_puts(&b, ", ");
			buf_str(&b, lines[i]);
		}
		buf_putc(&b, '}');
		break;
	}
	case CEL_OPTIONAL:
		if (!cel_optional_get(v))
			return STR("opt()");
		s = show(a, *cel_optional_get(v));
		return arena_printf(a, "opt(%.*s)", STR_ARG(s));
	case CEL_TYPE:
		s = cel_type_name(v.type);
		return arena_printf(a, "type(%.*s)", STR_ARG(s));
	case CEL_ERROR:
		s = cel_error_text(v);
		return arena_printf(a, "error(%.*s)", STR_ARG(s));
	default:
		s = cel_kind_name(v);
		return arena_printf(a, "<%.*s>", STR_ARG(s));
	}
	return arena_str(a, buf_view(&b));
}

#endif
