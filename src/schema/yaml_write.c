/* JSON to YAML as kubectl prints it: keys sorted in goyaml's natural order, block style, folded at 80 columns. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <yaml.h>

#include "base/log.h"
#include "schema/codec_internal.h"
#include "schema/jv.h"

struct yw {
	yaml_emitter_t emitter;
	struct buf *out;
	struct arena *a;
	bool nodes; /* see json_to_yaml_nodes */
};

static int write_out(void *data, unsigned char *p, size_t n)
{
	struct yw *w = data;

	buf_append(w->out, p, n);
	return 1; /* a limit shows as out->overflow */
}

static void emit(struct yw *w, yaml_event_t *ev, int made)
{
	/* Both fail only without memory: the events come in valid order. */
	if (!made || !yaml_emitter_emit(&w->emitter, ev))
		die_oom();
}

static bool is_letter(uint32_t c)
{
	return c < 0x80 ? isalpha((int)c) != 0 : true;
}

static bool is_digit(uint32_t c)
{
	return c >= '0' && c <= '9';
}

static uint32_t rune(struct str s, size_t *i)
{
	unsigned n = utf8_len(s.p + *i, s.p + s.n);
	const unsigned char *p = (const unsigned char *)s.p + *i;

	*i += n ? n : 1;
	switch (n) {
	case 1:
		return p[0];
	case 2:
		return (p[0] & 0x1fu) << 6 | (p[1] & 0x3fu);
	case 3:
		return (p[0] & 0x0fu) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu);
	case 4:
		return (p[0] & 0x07u) << 18 | (p[1] & 0x3fu) << 12 | (p[2] & 0x3fu) << 6 | (p[3] & 0x3fu);
	default:
		return 0xfffd;
	}
}

static uint64_t number(struct str s, size_t i, size_t *end, uint64_t n)
{
	for (; i < s.n && is_digit((unsigned char)s.p[i]); i++)
		n = n * 10 + (uint64_t)(s.p[i] - '0'); /* wraps, as Go's */
	*end = i;
	return n;
}

/* goyaml's order of keys: letters by code, numbers by value, others before letters. */
static int key_cmp(struct str a, struct str b)
{
	size_t i = 0, j = 0;

	while (i < a.n && j < b.n) {
		size_t at = i;
		uint32_t ca = rune(a, &i), cb = rune(b, &j);

		if (ca == cb)
			continue;
		bool la = is_letter(ca), lb = is_letter(cb);

		if (la && lb)
			return ca < cb ? -1 : 1;
		if (la || lb)
			return lb ? -1 : 1;
		/* The common prefix is bytewise equal, so both stand at the same offset. */
		uint64_t start = 0, na, nb;
		size_t ea, eb;

		if (ca == '0' || cb == '0')
			for (size_t k = at; k > 0 && is_digit((unsigned char)a.p[k - 1]); k--)
				if (a.p[k - 1] != '0') {
					start = 1;
					break;
				}
		na = number(a, at, &ea, start);
		nb = number(b, at, &eb, start);
		if (na != nb)
			return na < nb ? -1 : 1;
		if (ea != eb)
			return ea < eb ? -1 : 1;
		return ca < cb ? -1 : 1;
	}
	return (a.n > b.n) - (a.n < b.n);
}

static int member_order(const void *x, const void *y)
{
	const struct jv_member *const *p = x, *const *q = y;

	return key_cmp((*p)->key, (*q)->key);
}

/* 1:30, 190:20:30.15: numbers to base 60, which old readers would take it for. */
static bool is_base60(struct str s)
{
	size_t i = 0;
	bool any = false;

	if (i < s.n && (s.p[i] == '-' || s.p[i] == '+'))
		i++;
	if (i == s.n || !is_digit((unsigned char)s.p[i]))
		return false;
	while (i < s.n && (is_digit((unsigned char)s.p[i]) || s.p[i] == '_'))
		i++;
	while (i < s.n && s.p[i] == ':') {
		size_t k = i + 1;

		if (k + 1 < s.n && s.p[k] >= '0' && s.p[k] <= '5' && is_digit((unsigned char)s.p[k + 1]))
			k += 2;
		else if (k < s.n && is_digit((unsigned char)s.p[k]))
			k++;
		else
			return false;
		any = true;
		i = k;
	}
	if (i < s.n && s.p[i] == '.')
		for (i++; i < s.n && (is_digit((unsigned char)s.p[i]) || s.p[i] == '_'); i++)
			;
	return any && i == s.n;
}

static void put_scalar(struct yw *w, struct str s, yaml_scalar_style_t style)
{
	yaml_event_t ev;
	/* The style is a wish: libyaml quotes what cannot stand as asked. */
	int made = yaml_scalar_event_initialize(&ev, NULL, NULL, (const yaml_char_t *)(s.n ? s.p : ""), (int)s.n, 1, 1, style);

	emit(w, &ev, made);
}

/* It would be read as something else. */
static bool is_other(const struct yw *w, struct str s)
{
	enum yaml_scalar kind = yaml_resolve(s).kind;

	if (!w->nodes)
		return kind != YAML_STR || is_base60(s);
	return kind != YAML_STR && (kind != YAML_BOOL || s.p[0] == 't' || s.p[0] == 'T' || s.p[0] == 'f' || s.p[0] == 'F');
}

static void put_string(struct yw *w, struct str s)
{
	if (str_index(s, '\n') >= 0)
		put_scalar(w, s, YAML_LITERAL_SCALAR_STYLE);
	else if (!is_other(w, s))
		put_scalar(w, s, YAML_PLAIN_SCALAR_STYLE);
	else
		put_scalar(w, s, YAML_DOUBLE_QUOTED_SCALAR_STYLE);
}

static void put_value(struct yw *w, const struct jv *v)
{
	yaml_event_t ev;
	buf_cleanup struct buf b = {0};

	switch (v->kind) {
	case JV_NULL:
		put_scalar(w, STR("null"), YAML_PLAIN_SCALAR_STYLE);
		break;
	case JV_BOOL:
		put_scalar(w, v->b ? STR("true") : STR("false"), YAML_PLAIN_SCALAR_STYLE);
		break;
	case JV_INT:
		buf_i64(&b, v->i);
		put_scalar(w, buf_view(&b), YAML_PLAIN_SCALAR_STYLE);
		break;
	case JV_DOUBLE:
		put_double_g(&b, v->d);
		put_scalar(w, buf_view(&b), YAML_PLAIN_SCALAR_STYLE);
		break;
	case JV_STRING:
		put_string(w, jv_str(v));
		break;
	case JV_ARRAY:
		emit(w, &ev, yaml_sequence_start_event_initialize(&ev, NULL, NULL, 1, YAML_BLOCK_SEQUENCE_STYLE));
		for (uint32_t i = 0; i < v->n; i++)
			put_value(w, &v->items[i]);
		emit(w, &ev, yaml_sequence_end_event_initialize(&ev));
		break;
	case JV_OBJECT: {
		const struct jv_member **order = arena_array(w->a, const struct jv_member *, v->n);

		for (uint32_t i = 0; i < v->n; i++)
			order[i] = &v->members[i];
		if (v->n > 1)
			qsort(order, v->n, sizeof *order, member_order);
		emit(w, &ev, yaml_mapping_start_event_initialize(&ev, NULL, NULL, 1, YAML_BLOCK_MAPPING_STYLE));
		for (uint32_t i = 0; i < v->n; i++) {
			put_string(w, order[i]->key);
			put_value(w, &order[i]->value);
		}
		emit(w, &ev, yaml_mapping_end_event_initialize(&ev));
		break;
	}
	}
}

/* Characters that stand in JSON as they are and that YAML does not have: DEL, C1 controls but NEL, U+FFFE, U+FFFF. */
static bool has_controls(struct str json)
{
	const unsigned char *p = (const unsigned char *)json.p;

	for (size_t i = 0; i < json.n; i++) {
		if (p[i] < 0x7f)
			continue;
		if (p[i] == 0x7f || (p[i] == 0xc2 && i + 1 < json.n && p[i + 1] < 0xa0 && p[i + 1] != 0x85) ||
		    (p[i] == 0xef && i + 2 < json.n && p[i + 1] == 0xbf && p[i + 2] >= 0xbe))
			return true;
	}
	return false;
}

static struct error *write_yaml(struct str json, bool nodes, struct buf *out)
{
	arena_cleanup struct arena a = {0};
	struct jv root = {0};
	struct yw w = {.out = out, .a = &a, .nodes = nodes};
	yaml_event_t ev;

	if (has_controls(json))
		return error_status(500, "", "yaml: control characters are not allowed");
	TRY(jv_parse(&a, json, NULL, &root));
	if (!yaml_emitter_initialize(&w.emitter))
		die_oom();
	yaml_emitter_set_output(&w.emitter, write_out, &w);
	yaml_emitter_set_unicode(&w.emitter, 1);
	emit(&w, &ev, yaml_stream_start_event_initialize(&ev, YAML_UTF8_ENCODING));
	emit(&w, &ev, yaml_document_start_event_initialize(&ev, NULL, NULL, NULL, 1));
	put_value(&w, &root);
	emit(&w, &ev, yaml_document_end_event_initialize(&ev, 1));
	emit(&w, &ev, yaml_stream_end_event_initialize(&ev));
	yaml_emitter_flush(&w.emitter);
	yaml_emitter_delete(&w.emitter);
	if (out->overflow)
		return error_status(500, "InternalError", "the document is too large as YAML");
	return NULL;
}

struct error *json_to_yaml(struct str json, struct buf *out)
{
	return write_yaml(json, false, out);
}

struct error *json_to_yaml_nodes(struct str json, struct buf *out)
{
	return write_yaml(json, true, out);
}
