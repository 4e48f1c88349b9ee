/*
 * YAML to JSON: libyaml's events become a tree, the tree becomes JSON with sorted keys, as
 * sigs.k8s.io/yaml does it. Aliases expand under goyaml's ratio limit.
 */
#include <math.h>
#include <stdlib.h>
#include <yaml.h>

#include "base/log.h"
#include "base/map.h"
#include "schema/codec.h"
#include "schema/codec_internal.h"

#define MAX_JSON (64u << 20) /* bytes of JSON one document may become */

enum node_kind { NODE_SCALAR, NODE_SEQ, NODE_MAP, NODE_ALIAS };

struct node {
	uint8_t kind;
	bool implicit; /* a plain scalar without a tag */
	bool busy;     /* being written: an alias to it would never end */
	uint32_t line; /* from 1 */
	struct str value, tag;
	struct node *first, *next; /* children of a list; key, value, key... of a map */
	struct node *target;       /* of an alias */
};

struct reader {
	yaml_parser_t parser;
	struct arena *a;
	struct map anchors;
};

static struct error *bad_yaml(unsigned line, const char *what)
{
	if (line)
		return error_status(400, "BadRequest", "yaml: line %u: %s", line, what);
	return error_status(400, "BadRequest", "yaml: %s", what);
}

static struct error *parser_error(yaml_parser_t *p)
{
	size_t line = p->problem_mark.line ? p->problem_mark.line + (p->error == YAML_SCANNER_ERROR) : p->context_mark.line;

	return bad_yaml((unsigned)line, p->problem ? p->problem : "unknown problem parsing YAML content");
}

static struct error *read_event(struct reader *r, yaml_event_t *ev)
{
	if (!yaml_parser_parse(&r->parser, ev)) {
		if (r->parser.error == YAML_MEMORY_ERROR)
			die_oom();
		return parser_error(&r->parser);
	}
	return NULL;
}

static struct str text(struct arena *a, const yaml_char_t *z)
{
	return z ? arena_str(a, str_from((const char *)z)) : STR_NULL;
}

/* The node that starts with *ev, which is consumed. */
static struct error *read_node(struct reader *r, yaml_event_t *ev, unsigned depth, struct node **out)
{
	struct node *n = arena_new(r->a, struct node);
	const yaml_char_t *anchor = NULL;
	yaml_event_type_t end = YAML_NO_EVENT;

	n->line = (uint32_t)ev->start_mark.line + 1;
	switch (ev->type) {
	case YAML_ALIAS_EVENT:
		n->kind = NODE_ALIAS;
		n->value = text(r->a, ev->data.alias.anchor);
		n->target = map_get(&r->anchors, n->value);
		yaml_event_delete(ev);
		if (!n->target)
			return error_status(400, "BadRequest", "yaml: unknown anchor '%.*s' referenced", STR_ARG(n->value));
		*out = n;
		return NULL;
	case YAML_SCALAR_EVENT:
		n->kind = NODE_SCALAR;
		n->implicit = ev->data.scalar.plain_implicit;
		n->value = arena_str(r->a, str_of((const char *)ev->data.scalar.value, ev->data.scalar.length));
		n->tag = text(r->a, ev->data.scalar.tag);
		anchor = ev->data.scalar.anchor;
		break;
	case YAML_SEQUENCE_START_EVENT:
		n->kind = NODE_SEQ;
		anchor = ev->data.sequence_start.anchor;
		end = YAML_SEQUENCE_END_EVENT;
		break;
	case YAML_MAPPING_START_EVENT:
		n->kind = NODE_MAP;
		anchor = ev->data.mapping_start.anchor;
		end = YAML_MAPPING_END_EVENT;
		break;
	default:
		yaml_event_delete(ev);
		return bad_yaml(n->line, "unexpected event");
	}
	if (anchor)
		map_set(&r->anchors, str_from((const char *)anchor), n);
	yaml_event_delete(ev);
	*out = n;
	if (n->kind == NODE_SCALAR)
		return NULL;
	if (depth == CODEC_MAX_DEPTH)
		return bad_yaml(n->line, "exceeded max depth");
	for (struct node **link = &n->first;; link = &(*link)->next) {
		yaml_event_t child;

		TRY(read_event(r, &child));
		if (child.type == end) {
			yaml_event_delete(&child);
			return NULL;
		}
		TRY(read_node(r, &child, depth + 1, link));
	}
}

/* The first document's root; NULL for an empty stream. */
static struct error *read_document(struct reader *r, struct node **root)
{
	*root = NULL;
	for (;;) {
		yaml_event_t ev;

		TRY(read_event(r, &ev));
		switch (ev.type) {
		case YAML_STREAM_START_EVENT:
		case YAML_DOCUMENT_START_EVENT:
			yaml_event_delete(&ev);
			break;
		case YAML_STREAM_END_EVENT:
			yaml_event_delete(&ev);
			return NULL;
		default:
			TRY(read_node(r, &ev, 0, root));
			/* What stands behind the root, up to the document's end, is checked too. */
			TRY(read_event(r, &ev));
			yaml_event_delete(&ev);
			return NULL;
		}
	}
}

/* ---- tree to JSON ---- */

struct writer {
	struct buf *out;
	struct arena *a;
	uint64_t decoded, aliased; /* as goyaml counts */
	unsigned alias_depth;
	bool strict;
	LIST(struct repeated {
		uint32_t line;
		struct str key;
	}) repeated;
};

struct pair {
	struct str key;
	struct node *value;
	uint32_t seq, line;
};

struct pairs {
	struct pair *v;
	uint32_t n, cap;
};

static struct error *count(struct writer *w)
{
	w->decoded++;
	if (w->alias_depth)
		w->aliased++;
	if (w->aliased > 100 && w->decoded > 1000) {
		double allowed = w->decoded <= 400000	 ? 0.99
				 : w->decoded >= 4000000 ? 0.10
							 : 0.99 - 0.89 * ((double)w->decoded - 400000) / 3600000;

		if ((double)w->aliased / (double)w->decoded > allowed)
			return bad_yaml(0, "document contains excessive aliasing");
	}
	if (w->out->n > MAX_JSON)
		return bad_yaml(0, "document becomes too large");
	return NULL;
}

static bool core_tag(struct str tag, const char *name)
{
	return str_has_prefix(tag, STR("tag:yaml.org,2002:")) && str_eqz(str_sub(tag, 18, tag.n), name);
}

/* What scalar n is; *bytes is its text when a string. */
static struct error *scalar(struct writer *w, const struct node *n, struct yaml_value *v, struct str *bytes)
{
	*v = (struct yaml_value){.kind = YAML_STR};
	*bytes = n->value;
	if (!n->tag.n) {
		if (n->implicit)
			*v = yaml_resolve(n->value);
		return NULL;
	}
	if (core_tag(n->tag, "binary")) {
		if (!base64_decode(w->a, n->value, bytes))
			return bad_yaml(n->line, "!!binary value contains invalid base64 data");
		return NULL;
	}
	bool is_int = core_tag(n->tag, "int"), is_float = core_tag(n->tag, "float"), is_bool = core_tag(n->tag, "bool"),
	     is_null = core_tag(n->tag, "null");

	if (!is_int && !is_float && !is_bool && !is_null)
		return NULL;
	*v = yaml_resolve(n->value);
	if ((is_int && v->kind == YAML_INT) || (is_float && (v->kind == YAML_FLOAT || v->kind == YAML_INT)) ||
	    (is_bool && v->kind == YAML_BOOL) || (is_null && v->kind == YAML_NULL))
		return NULL;
	return error_status(400, "BadRequest", "yaml: cannot decode `%.*s` as a !!%s", STR_ARG(str_sub(n->value, 0, 256)),
			    is_int ? "int" : is_float ? "float" : is_bool ? "bool" : "null");
}

/* The JSON key a map's key node becomes. */
static struct error *key_of(struct writer *w, const struct node *n, struct str *key)
{
	struct yaml_value v;
	buf_cleanup struct buf b = {0};

	if (n->kind == NODE_ALIAS)
		n = n->target;
	if (n->kind != NODE_SCALAR)
		return bad_yaml(n->line, "invalid map key: only scalars can be keys");
	TRY(scalar(w, n, &v, key));
	switch (v.kind) {
	case YAML_BOOL:
		*key = v.b ? STR("true") : STR("false");
		return NULL;
	case YAML_NULL:
		return error_status(400, "BadRequest", "unsupported map key of type: <nil>, line %u", n->line);
	case YAML_INT:
		if (v.neg)
			buf_putc(&b, '-');
		buf_u64(&b, v.i);
		break;
	case YAML_FLOAT:
		put_double_g(&b, v.d);
		break;
	default:
		return NULL;
	}
	*key = arena_str(w->a, buf_view(&b));
	return NULL;
}

static bool is_merge(const struct node *n)
{
	return n->kind == NODE_SCALAR && str_eqz(n->value, "<<") && (n->implicit || core_tag(n->tag, "merge"));
}

static struct error *gather(struct writer *w, struct node *map, struct pairs *l, unsigned depth);

static struct error *merge(struct writer *w, struct node *n, struct pairs *l, unsigned depth)
{
	struct error *e = NULL;
	bool alias = n->kind == NODE_ALIAS;

	if (alias)
		n = n->target;
	if (depth > CODEC_MAX_DEPTH || n->busy)
		return bad_yaml(n->line, "map merge is nested too deep or contains itself");
	w->alias_depth += alias;
	n->busy = true;
	if (n->kind == NODE_MAP) {
		e = gather(w, n, l, depth + 1);
	} else if (n->kind == NODE_SEQ && !alias) {
		/* Earlier ones win over later ones, so the later come first. */
		struct pairs order = {0};

		for (struct node *c = n->first; c; c = c->next)
			arena_push(w->a, &order)->value = c;
		for (uint32_t i = order.n; i-- && !e;) {
			struct node *c = order.v[i].value;
			const struct node *t = c->kind == NODE_ALIAS ? c->target : c;

			e = t->kind == NODE_MAP ? merge(w, c, l, depth + 1)
						: bad_yaml(c->line, "map merge requires map or sequence of maps as the value");
		}
	} else {
		e = bad_yaml(n->line, "map merge requires map or sequence of maps as the value");
	}
	n->busy = false;
	w->alias_depth -= alias;
	return e;
}

/* A map's pairs in order, merged ones where their merge stands. */
static struct error *gather(struct writer *w, struct node *map, struct pairs *l, unsigned depth)
{
	for (struct node *k = map->first; k; k = k->next->next) {
		TRY(count(w));
		if (is_merge(k)) {
			TRY(merge(w, k->next, l, depth));
			continue;
		}
		struct pair *p = arena_push(w->a, l);

		p->value = k->next;
		p->seq = l->n;
		p->line = k->line;
		TRY(key_of(w, k, &p->key));
	}
	return NULL;
}

static int pair_order(const void *x, const void *y)
{
	const struct pair *p = x, *q = y;
	int c = str_cmp(p->key, q->key);

	return c ? c : (p->seq > q->seq) - (p->seq < q->seq);
}

static struct error *write_node(struct writer *w, struct node *n, unsigned depth);

static struct error *write_map(struct writer *w, struct node *n, unsigned depth)
{
	struct pairs l = {0};
	bool first = true;

	TRY(gather(w, n, &l, 0));
	if (l.n > 1)
		qsort(l.v, l.n, sizeof *l.v, pair_order);
	buf_putc(w->out, '{');
	for (uint32_t i = 0; i < l.n; i++) {
		if (w->strict && i && str_eq(l.v[i].key, l.v[i - 1].key) && w->repeated.n < CODEC_MAX_PROBLEMS) {
			struct repeated *r = arena_push(w->a, &w->repeated);

			r->line = l.v[i].line;
			r->key = l.v[i].key;
		}
		if (i + 1 < l.n && str_eq(l.v[i].key, l.v[i + 1].key))
			continue; /* a later one wins */
		if (!first)
			buf_putc(w->out, ',');
		first = false;
		json_put_string(w->out, l.v[i].key);
		buf_putc(w->out, ':');
		TRY(write_node(w, l.v[i].value, depth));
	}
	buf_putc(w->out, '}');
	return NULL;
}

static struct error *write_scalar(struct writer *w, const struct node *n)
{
	struct yaml_value v;
	struct str bytes;

	TRY(scalar(w, n, &v, &bytes));
	switch (v.kind) {
	case YAML_BOOL:
		buf_puts(w->out, v.b ? "true" : "false");
		break;
	case YAML_NULL:
		buf_puts(w->out, "null");
		break;
	case YAML_INT:
		if (v.neg && v.i)
			buf_putc(w->out, '-');
		buf_u64(w->out, v.i);
		break;
	case YAML_FLOAT:
		if (!isfinite(v.d))
			return error_status(400, "BadRequest", "json: unsupported value: %s",
					    isnan(v.d) ? "NaN" : v.d < 0 ? "-Inf" : "+Inf");
		json_put_double(w->out, v.d);
		break;
	default:
		json_put_string(w->out, bytes);
	}
	return NULL;
}

static struct error *write_node(struct writer *w, struct node *n, unsigned depth)
{
	struct error *e = NULL;
	bool alias = n->kind == NODE_ALIAS;
	struct str anchor = n->value;

	if (alias)
		n = n->target;
	if (n->busy)
		return error_status(400, "BadRequest", "yaml: anchor '%.*s' value contains itself", STR_ARG(anchor));
	if (depth > CODEC_MAX_DEPTH)
		return bad_yaml(n->line, "exceeded max depth");
	w->alias_depth += alias;
	n->busy = true;
	e = count(w);
	if (!e) {
		if (n->kind == NODE_SCALAR) {
			e = write_scalar(w, n);
		} else if (n->kind == NODE_MAP) {
			e = write_map(w, n, depth + 1);
		} else {
			buf_putc(w->out, '[');
			for (struct node *c = n->first; c && !e; c = c->next) {
				if (c != n->first)
					buf_putc(w->out, ',');
				e = write_node(w, c, depth + 1);
			}
			buf_putc(w->out, ']');
		}
	}
	n->busy = false;
	w->alias_depth -= alias;
	return e;
}

static int line_order(const void *x, const void *y)
{
	const struct repeated *p = x, *q = y;

	return (p->line > q->line) - (p->line < q->line);
}

static void report_repeated(struct writer *w, struct decode_report *report)
{
	buf_cleanup struct buf b = {0};

	if (!w->repeated.n)
		return;
	qsort(w->repeated.v, w->repeated.n, sizeof *w->repeated.v, line_order);
	buf_puts(&b, "yaml: unmarshal errors:");
	for (uint32_t i = 0; i < w->repeated.n; i++) {
		buf_printf(&b, "\n  line %u: key ", w->repeated.v[i].line);
		json_put_string(&b, w->repeated.v[i].key);
		buf_puts(&b, " already set in map");
	}
	decode_problem(report, buf_view(&b));
}

struct error *yaml_to_json(struct str in, struct decode_report *report, struct buf *out)
{
	arena_cleanup struct arena a = {0};
	buf_cleanup struct buf json = {0};
	struct reader r = {.a = &a};
	struct writer w = {.a = &a, .out = &json, .strict = report != NULL};
	struct node *root = NULL;

	if (!yaml_parser_initialize(&r.parser))
		die_oom();
	yaml_parser_set_input_string(&r.parser, (const unsigned char *)(in.n ? in.p : ""), in.n);
	struct error *e = read_document(&r, &root);

	yaml_parser_delete(&r.parser);
	map_free(&r.anchors);
	if (e)
		return e;
	if (!root)
		buf_puts(&json, "null");
	else
		TRY(write_node(&w, root, 0));
	report_repeated(&w, report);
	buf_str(out, buf_view(&json));
	if (out->overflow)
		return error_status(413, "RequestEntityTooLarge", "the document is too large as JSON");
	return NULL;
}

bool yaml_next_document(struct str *rest, struct str *doc)
{
	while (rest->n) {
		size_t end = 0;
		bool blank = true;

		/* A document runs up to a line that starts with "---", other than its own first line. */
		for (size_t line = 0; line < rest->n;) {
			struct str l = str_sub(*rest, line, rest->n);
			ptrdiff_t nl = str_index(l, '\n');

			l.n = nl < 0 ? l.n : (size_t)nl + 1;
			bool separator = str_has_prefix(l, STR("---")) && (l.n == 3 || strchr(" \t\r\n", l.p[3]));

			if (separator && line)
				break;
			struct str content = str_trim(separator ? str_sub(l, 3, l.n) : l);

			if (content.n && content.p[0] != '#')
				blank = false;
			line += l.n;
			end = line;
		}
		*doc = str_sub(*rest, 0, end);
		*rest = str_sub(*rest, end, rest->n);
		if (!blank)
			return true;
	}
	*doc = STR_NULL;
	return false;
}
