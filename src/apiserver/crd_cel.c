/*
 * x-kubernetes-validations of CustomResourceDefinitions (KEP-2876, KEP-4008): schemas as types of cel/, rules checked and priced when a
 * definition is written, evaluated when a resource is. Upstream: apiextensions-apiserver/pkg/apiserver/schema/cel,
 * pkg/apis/apiextensions/validation, apiserver/pkg/cel/common.
 */
#include <stdlib.h>
#include "apiserver/custom.h"
#include "apiserver/metrics.h"
#include "apiserver/schema_props.h"
#include "cel/cel.h"

typedef struct apiextensions_v1_validation_rule rule_text;

#define MESSAGE_MAX (5 * 1024) /* bytes that a messageExpression may make */
#define OUT_OF_BUDGET "validation failed due to running out of cost budget, no further validation rules will be run"

/* ---- schemas as types ---- */

static uint64_t not_negative(int64_t n)
{
	return n < 0 ? 0 : (uint64_t)n;
}

static bool is_string(const props *p)
{
	return p && str_eqz(p->type, "string");
}

/* A resource's root has these whatever its schema says; what it says stays only when it says all of them. */
static bool has_type_and_meta(const props *p)
{
	const props *m = property(p, STR("metadata"));

	return is_string(property(p, STR("kind"))) && is_string(property(p, STR("apiVersion"))) && m && str_eqz(m->type, "object") &&
	       is_string(property(m, STR("name"))) && is_string(property(m, STR("generateName")));
}

static const struct cel_type plain_string = {.kind = CEL_STRING, .max_size = CEL_MAX_REQUEST_SIZE - 2, .min_serialized = 2};
static const struct cel_field meta_fields[] = {
	{STR_INIT("name"), STR_INIT("name"), &plain_string}, {STR_INIT("generateName"), STR_INIT("generateName"), &plain_string}};

static const struct cel_type *type_of(struct arena *a, const props *p, bool resource, struct str name);

static struct str under(struct arena *a, struct str name, struct str part)
{
	return arena_printf(a, "%.*s.%.*s", STR_ARG(name), STR_ARG(part));
}

static uint64_t longest(struct arena *a, const props *p)
{
	uint64_t max = 0;

	for (uint32_t i = 0; i < p->enum_.n; i++) {
		struct jv v;
		struct error *e = jv_parse(a, p->enum_.v[i], NULL, &v);

		error_free(e);
		if (!e && v.kind == JV_STRING && v.n > max)
			max = v.n;
	}
	return max;
}

static void string_type(struct arena *a, const props *p, struct cel_type *t)
{
	t->kind = CEL_STRING;
	t->min_serialized = 2;
	t->max_size = p->max_length ? not_negative(*p->max_length) * 4 : p->enum_.n ? longest(a, p) : CEL_MAX_REQUEST_SIZE - 2;
	if (str_eqz(p->format, "byte")) {
		t->kind = CEL_BYTES;
		t->max_size = p->max_length ? not_negative(*p->max_length) : CEL_MAX_REQUEST_SIZE - 2;
	} else if (str_eqz(p->format, "duration")) {
		t->kind = CEL_DURATION;
		t->max_size = 32;
		t->min_serialized = 3;
	} else if (str_eqz(p->format, "date")) {
		t->kind = CEL_TIMESTAMP;
		t->date = true;
		t->max_size = t->min_serialized = 12;
	} else if (str_eqz(p->format, "date-time")) {
		t->kind = CEL_TIMESTAMP;
		t->max_size = 32;
		t->min_serialized = 21;
	}
}

static void object_type(struct arena *a, const props *p, bool resource, struct cel_type *t)
{
	struct cel_field *f = arena_array(a, struct cel_field, p->properties.n + 3);
	bool forced = resource && !has_type_and_meta(p);

	t->kind = CEL_OBJECT;
	t->min_serialized = 2;
	for (uint32_t i = 0; i < p->properties.n; i++) {
		struct str key = p->properties.v[i].key, shown;
		const props *c = &p->properties.v[i].value;
		const struct cel_type *ft;

		if (forced && (str_eqz(key, "kind") || str_eqz(key, "apiVersion") || str_eqz(key, "metadata")))
			continue;
		ft = type_of(a, c, c->x_kubernetes_embedded_resource, under(a, t->name, key));
		if (!ft)
			continue;
		for (uint32_t k = 0; k < p->required.n && !c->default_; k++)
			if (str_eq(p->required.v[k], key)) {
				t->min_serialized += (int64_t)key.n + ft->min_serialized + 4;
				break;
			}
		if (cel_escape(a, key, &shown))
			f[t->n_fields++] = (struct cel_field){shown, key, ft};
	}
	if (forced) {
		struct cel_type *meta = arena_new(a, struct cel_type);

		*meta = (struct cel_type){.kind = CEL_OBJECT, .name = under(a, t->name, STR("metadata")), .fields = meta_fields, .n_fields = 2,
					  .min_serialized = 2};
		f[t->n_fields++] = (struct cel_field){STR("kind"), STR("kind"), &plain_string};
		f[t->n_fields++] = (struct cel_field){STR("apiVersion"), STR("apiVersion"), &plain_string};
		f[t->n_fields++] = (struct cel_field){STR("metadata"), STR("metadata"), meta};
	}
	t->fields = f;
}

/* NULL: not visible in expressions. name: of objects; every place has its own, so that only it is comparable with itself. */
static const struct cel_type *type_of(struct arena *a, const props *p, bool resource, struct str name)
{
	struct cel_type *t = arena_new(a, struct cel_type);
	const props *c;

	t->nullable = p->nullable;
	t->name = name;
	if (p->x_kubernetes_int_or_string) {
		t->kind = CEL_DYN;
		t->int_or_string = true;
		t->min_serialized = 1;
		t->max_size = p->max_length ? not_negative(*p->max_length) * 4 : CEL_MAX_REQUEST_SIZE - 2;
		return t;
	}
	if (str_eqz(p->type, "array")) {
		c = item_schema(p);
		t->elem = c ? type_of(a, c, c->x_kubernetes_embedded_resource, under(a, name, STR("@idx"))) : NULL;
		if (!t->elem)
			return NULL;
		t->kind = CEL_LIST;
		t->min_serialized = 2;
		t->max_size = p->max_items ? not_negative(*p->max_items) : (CEL_MAX_REQUEST_SIZE - 2) / (uint64_t)(t->elem->min_serialized + 1);
		if (p->x_kubernetes_list_type && str_eqz(*p->x_kubernetes_list_type, "set"))
			t->list_type = CEL_LIST_SET;
		if (p->x_kubernetes_list_type && str_eqz(*p->x_kubernetes_list_type, "map")) {
			t->list_type = CEL_LIST_MAP;
			t->list_keys = p->x_kubernetes_list_map_keys.v;
			t->n_list_keys = (uint8_t)(p->x_kubernetes_list_map_keys.n > 255 ? 255 : p->x_kubernetes_list_map_keys.n);
		}
		return t;
	}
	if (str_eqz(p->type, "object")) {
		c = value_schema(p);
		if (!c || resource) {
			object_type(a, p, resource, t);
			return t;
		}
		t->elem = type_of(a, c, c->x_kubernetes_embedded_resource, under(a, name, STR("@elem")));
		if (!t->elem)
			return NULL;
		t->kind = CEL_MAP;
		t->key = &cel_type_string;
		t->min_serialized = 2;
		t->max_size = p->max_properties ? not_negative(*p->max_properties) :
						  (CEL_MAX_REQUEST_SIZE - 2) / (uint64_t)(t->elem->min_serialized + 6);
		return t;
	}
	if (str_eqz(p->type, "string")) {
		string_type(a, p, t);
		return t;
	}
	t->min_serialized = 1;
	if (str_eqz(p->type, "boolean")) {
		t->kind = CEL_BOOL;
		t->min_serialized = 4;
	} else if (str_eqz(p->type, "number")) {
		t->kind = CEL_DOUBLE;
	} else if (str_eqz(p->type, "integer")) {
		t->kind = CEL_INT;
	} else {
		return NULL;
	}
	return t;
}

static const struct cel_type *field_type(const struct cel_type *t, struct str json_name)
{
	for (uint32_t i = 0; t && i < t->n_fields; i++)
		if (str_eq(t->fields[i].json_name, json_name))
			return t->fields[i].type;
	return NULL;
}

/* ---- field paths of rules: ".spec.x", "['a b']" ---- */

static bool unescape_quoted(struct arena *a, struct str s, struct str *out)
{
	static const char from[] = "abfnrtv'\\", to[] = "\a\b\f\n\r\t\v'\\";
	char *p = arena_bytes(a, s.n + 1);
	size_t n = 0;

	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] == '\\' && i + 1 < s.n) {
			const char *at = s.p[i + 1] ? strchr(from, s.p[i + 1]) : NULL;

			if (!at)
				return false;
			p[n++] = to[at - from];
			i++;
		} else {
			p[n++] = s.p[i];
		}
	}
	*out = str_of(p, n);
	return true;
}

const props *schema_at_path(struct arena *a, const props *p, struct str text, bool brackets, struct str *shown)
{
	struct buf b buf_cleanup = {0};
	size_t i = 0;

	while (i < text.n) {
		struct str name;
		size_t from;

		if (text.p[i] == '.') {
			from = ++i;
			while (i < text.n && !strchr(".[]", text.p[i]))
				i++;
			name = str_sub(text, from, i);
			if (!name.n)
				return NULL;
		} else if (text.p[i] == '[' && brackets) {
			if (++i >= text.n || text.p[i] != '\'')
				return NULL;
			from = ++i;
			while (i < text.n && !(text.p[i] == '\'' && text.p[i - 1] != '\\'))
				i++;
			if (i + 1 >= text.n || text.p[i + 1] != ']' || !unescape_quoted(a, str_sub(text, from, i), &name))
				return NULL;
			i += 2;
		} else {
			return NULL;
		}
		if (p->properties.n) {
			p = property(p, name);
			buf_printf(&b, "%s%.*s", b.n ? "." : "", STR_ARG(name));
		} else {
			p = value_schema(p);
			buf_printf(&b, "[%.*s]", STR_ARG(name));
		}
		if (!p)
			return NULL;
	}
	*shown = arena_str(a, buf_view(&b));
	return shown->n ? p : NULL;
}

/* ---- rules compiled ---- */

struct rule {
	const rule_text *text;
	struct cel_program *program, *message; /* NULL: see error; an empty rule has neither */
	struct str error, message_error;
	struct str path; /* normalized, may be empty */
	bool uses_old, optional_old;
	uint64_t cost, message_cost;
};
struct node { /* parallel to the schema, where there are rules at or below it */
	const props *schema;
	const struct cel_type *type; /* NULL: CEL has none for it, which whoever has a value there is told */
	struct rule *rules;          /* NULL where there is no type */
	uint32_t n_rules;
	struct node *items, *values;
	struct named {
		struct str key;
		struct node *node;
	} *properties;
	uint32_t n_properties;
	struct node **all_of;
	uint32_t n_all_of;
};
struct crd_rules {
	struct arena arena;
	struct node *root;
	LIST(struct cel_program *) programs;
};

static struct str trimmed_text(const rule_text *r)
{
	return str_trim(r->message.n ? r->message : r->rule);
}

static struct cel_program *compile_one(struct crd_rules *rs, const struct cel_type *t, bool optional_old, struct str source, const struct cel_type *want,
				       const char *failed, const char *wrong, struct str *error)
{
	struct arena *a = &rs->arena;
	struct cel_type *opt = arena_new(a, struct cel_type);
	struct cel_var vars[2] = {{STR("self"), t}, {STR("oldSelf"), t}};
	struct cel_env env = {.vars = vars, .n_vars = 2, .sizes = t};
	struct cel_program *p;
	struct cel_issues issues;

	*opt = (struct cel_type){.kind = CEL_OPTIONAL, .elem = t};
	if (optional_old)
		vars[1].type = opt;
	if (!cel_compile(a, &env, source, &p, &issues)) {
		struct str text = cel_issues_text(a, source, &issues);

		*error = arena_printf(a, "%s: %.*s", issues.instantiation ? "program instantiation failed" : failed, STR_ARG(text));
		return NULL;
	}
	*arena_push(a, &rs->programs) = p;
	if (!cel_type_equal(cel_program_type(p), want)) {
		*error = str_from(wrong);
		return NULL;
	}
	return p;
}

static void compile_rule(struct crd_rules *rs, const props *schema, const struct cel_type *t, const rule_text *text, struct rule *r)
{
	r->text = text;
	r->optional_old = text->optional_old_self && *text->optional_old_self;
	if (!str_trim(text->rule).n)
		return;
	r->program = compile_one(rs, t, r->optional_old, text->rule, &cel_type_bool, "compilation failed", "cel expression must evaluate to a bool",
				 &r->error);
	if (!r->program)
		return;
	r->uses_old = cel_program_uses(r->program, 1);
	r->cost = cel_program_cost(r->program).max;
	if (text->message_expression.n) {
		r->message = compile_one(rs, t, r->optional_old, text->message_expression, &cel_type_string, "messageExpression compilation failed",
					 "messageExpression must evaluate to a string", &r->message_error);
		if (!r->message)
			return;
		r->message_cost = cel_program_cost(r->message).max;
	}
	if (text->field_path.n && !schema_at_path(&rs->arena, schema, text->field_path, true, &r->path))
		r->path = STR_NULL;
}

/* `rules` is the schema that has the rules (an element of allOf), `schema` the place in the structure they are about. */
static struct node *compile_node(struct crd_rules *rs, const props *rules, const props *schema, const struct cel_type *t, struct str name)
{
	struct arena *a = &rs->arena;
	struct node n = {.schema = schema, .type = t, .n_rules = rules->x_kubernetes_validations.n}, *out;
	const struct cel_type *elem = t && (t->kind == CEL_LIST || t->kind == CEL_MAP) ? t->elem : NULL;

	if (n.n_rules && t) {
		int64_t since = now_ns();

		n.rules = arena_array(a, struct rule, n.n_rules);
		for (uint32_t i = 0; i < n.n_rules; i++)
			compile_rule(rs, schema, t, &rules->x_kubernetes_validations.v[i], &n.rules[i]);
		metrics_observe(METRIC_CEL_COMPILATION, "", (double)(now_ns() - since) / 1e9);
	}
	if (item_schema(rules) && item_schema(schema))
		n.items = compile_node(rs, item_schema(rules), item_schema(schema), elem, under(a, name, STR("@idx")));
	if (value_schema(rules) && value_schema(schema))
		n.values = compile_node(rs, value_schema(rules), value_schema(schema), elem, under(a, name, STR("@elem")));
	n.properties = arena_array(a, struct named, rules->properties.n + 1);
	for (uint32_t i = 0; i < rules->properties.n; i++) {
		struct str key = rules->properties.v[i].key, shown, path = under(a, name, key);
		const props *c = property(schema, key);
		const struct cel_type *ct;
		struct node *child;

		if (!c || !schema_has_rules(&rules->properties.v[i].value))
			continue;
		ct = cel_escape(a, key, &shown) ? field_type(t, key) : type_of(a, c, c->x_kubernetes_embedded_resource, path);
		child = ct ? compile_node(rs, &rules->properties.v[i].value, c, ct, path) : NULL;
		if (child)
			n.properties[n.n_properties++] = (struct named){key, child};
	}
	n.all_of = arena_array(a, struct node *, rules->all_of.n + 1);
	for (uint32_t i = 0; i < rules->all_of.n; i++) {
		struct node *child = compile_node(rs, &rules->all_of.v[i], schema, t, name);

		if (child)
			n.all_of[n.n_all_of++] = child;
	}
	if (!n.n_rules && !n.items && !n.values && !n.n_properties && !n.n_all_of)
		return NULL;
	out = arena_new(a, struct node);
	*out = n;
	return out;
}

static struct crd_rules *compile_rules(const props *p, bool resource)
{
	struct crd_rules *rs;

	if (!schema_has_rules(p))
		return NULL;
	rs = xcalloc(1, sizeof *rs);
	rs->root = compile_node(rs, p, p, type_of(&rs->arena, p, resource, STR("self")), STR("self"));
	if (!rs->root) { /* they are where no value can be */
		crd_rules_free(rs);
		return NULL;
	}
	return rs;
}

struct crd_rules *crd_rules_new(const props *p)
{
	return compile_rules(p, true);
}

void crd_rules_free(struct crd_rules *rs)
{
	if (!rs)
		return;
	for (uint32_t i = 0; i < rs->programs.n; i++)
		cel_program_free(rs->programs.v[i]);
	arena_free(&rs->arena);
	free(rs);
}

/* ---- evaluation ---- */

struct indexes { /* of the old lists, made when they are first asked */
	struct arena *a;
	struct map of; /* a list's address to its index */
};
struct pair { /* a value and what it was before, where the two belong together (upstream's CorrelatedObject) */
	const struct jv *now, *was;
	const props *schema; /* NULL: cannot be told */
	struct indexes *x;
};
struct ratchet {
	struct pair at;      /* .schema NULL: this value has no counterpart */
	struct pair nearest; /* the nearest parent that has one */
};

struct validating {
	struct request *rq;
	struct arena *a;
	struct field_errors *e;
	int64_t budget; /* negative: nothing more is evaluated */
	struct indexes x;
};

static bool is_map_list(const props *p)
{
	return p->x_kubernetes_list_type && str_eqz(*p->x_kubernetes_list_type, "map") && p->x_kubernetes_list_map_keys.n;
}

/* The element of the old list with the keys of `e`; lists of other types have none. */
static const struct jv *old_item(struct indexes *x, const props *list, const struct jv *old, const struct jv *e)
{
	struct str key = str_of((const char *)&old, sizeof old);
	struct list_index *index;
	const struct jv *found;

	if (!is_map_list(list) || !jv_is(old, JV_ARRAY) || !jv_is(e, JV_OBJECT))
		return NULL;
	index = map_get(&x->of, key);
	if (!index) {
		index = list_index_new(x->a, list, old);
		map_set(&x->of, key, index);
	}
	found = list_index_get(index, e);
	return jv_is(found, JV_OBJECT) ? found : NULL;
}

static struct pair pair_key(struct pair p, struct str key)
{
	const struct jv *now, *was;
	const props *c;

	if (!p.schema || !jv_is(p.now, JV_OBJECT) || !jv_is(p.was, JV_OBJECT))
		return (struct pair){0};
	now = jv_get(p.now, key);
	was = jv_get(p.was, key);
	c = property(p.schema, key);
	c = c ? c : value_schema(p.schema);
	return now && was && c ? (struct pair){now, was, c, p.x} : (struct pair){0};
}

static struct pair pair_index(struct pair p, uint32_t i)
{
	const struct jv *was;

	if (!p.schema || !item_schema(p.schema))
		return (struct pair){0};
	was = old_item(p.x, p.schema, p.was, &p.now->items[i]);
	return was ? (struct pair){&p.now->items[i], was, item_schema(p.schema), p.x} : (struct pair){0};
}

static bool unchanged(struct pair p)
{
	if (!p.schema)
		return false;
	if (p.now->kind == JV_NULL || p.was->kind == JV_NULL)
		return p.now->kind == p.was->kind;
	if (p.now->kind != p.was->kind)
		return jv_equal(p.now, p.was);
	if (p.now->kind == JV_ARRAY) {
		if (p.now->n != p.was->n)
			return false;
		if (!is_map_list(p.schema))
			return jv_equal(p.now, p.was);
		for (uint32_t i = 0; i < p.now->n; i++)
			if (!unchanged(pair_index(p, i)))
				return false;
		return true;
	}
	if (p.now->kind == JV_OBJECT) {
		if (p.now->n != p.was->n)
			return false;
		for (uint32_t i = 0; i < p.now->n; i++)
			if (!unchanged(pair_key(p, p.now->members[i].key)))
				return false;
		return true;
	}
	return jv_equal(p.now, p.was);
}

static bool ratcheted(const struct ratchet *r)
{
	return unchanged(r->at.schema ? r->at : r->nearest);
}

static struct ratchet ratchet_key(const struct ratchet *r, struct str key)
{
	if (!r->at.schema)
		return *r;
	if (!r->nearest.schema && (str_eqz(key, "apiVersion") || str_eqz(key, "kind")))
		return (struct ratchet){0};
	return (struct ratchet){pair_key(r->at, key), r->at};
}

static struct ratchet ratchet_index(const struct ratchet *r, uint32_t i)
{
	return r->at.schema ? (struct ratchet){pair_index(r->at, i), r->at} : *r;
}

static void stop(struct validating *v)
{
	v->budget = -1;
}

static bool spend(struct validating *v, uint64_t cost)
{
	if (cost > INT64_MAX || (int64_t)cost > v->budget)
		return false;
	v->budget -= (int64_t)cost;
	return true;
}

enum told { TOLD, NOT_TOLD, OUT };

/* The message of a failed rule by its messageExpression. NOT_TOLD: it has none that can be used. OUT: *message is an error. */
static enum told expression_message(struct validating *v, const struct rule *r, const struct cel_value *vars, struct str *message)
{
	uint64_t cost = 0;
	struct cel_value m;
	struct str s;

	if (!r->message)
		return NOT_TOLD;
	m = cel_eval(r->message, vars, v->a, CEL_PER_CALL_LIMIT, &cost);
	if (!spend(v, cost)) {
		*message = STR("messageExpression evaluation failed due to running out of cost budget, no further validation rules will be run");
		return OUT;
	}
	if (cel_error_is_cost(m)) {
		*message = arena_printf(v->a, "no further validation rules will be run due to call cost exceeds limit for messageExpression: \"%.*s\"",
					STR_ARG(r->text->message_expression));
		return OUT;
	}
	s = str_trim(cel_str(m));
	if (m.kind != CEL_STRING || !s.n || s.n > MESSAGE_MAX || str_index(s, '\n') >= 0) {
		log_v(2, "messageExpression evaluation failed");
		return NOT_TOLD;
	}
	*message = s;
	return TOLD;
}

/* What a failed rule says, for its reason. */
static void rule_error(struct field_errors *e, const struct rule *r, const struct field_path *at, const struct jv *obj, const struct cel_type *t,
		       struct str detail)
{
	struct buf b buf_cleanup = {0};
	bool whole = t->kind == CEL_LIST || t->kind == CEL_MAP || t->kind == CEL_OBJECT;
	struct str reason = r->text->reason ? *r->text->reason : STR("FieldValueInvalid");

	if (str_eqz(reason, "FieldValueForbidden")) {
		field_forbidden(e, at, "%.*s", STR_ARG(detail));
		return;
	}
	if (str_eqz(reason, "FieldValueRequired")) {
		field_required(e, at, arena_strz(e->arena, detail));
		return;
	}
	if (!whole)
		jv_encode(&b, obj);
	if (str_eqz(reason, "FieldValueDuplicate") && !whole) {
		field_duplicate_raw(e, at, arena_str(e->arena, buf_view(&b)), "");
	} else if (str_eqz(reason, "FieldValueDuplicate")) {
		if (e->list.n < FIELD_ERRORS_MAX)
			*arena_push(e->arena, &e->list) = (struct field_error){FIELD_ERROR_DUPLICATE, field_path_format(e->arena, at), STR("Duplicate value")};
	} else if (!whole) {
		field_invalid_raw(e, at, arena_str(e->arena, buf_view(&b)), "%.*s", STR_ARG(detail));
	} else if (e->list.n < FIELD_ERRORS_MAX) {
		struct field_error *f = arena_push(e->arena, &e->list);

		f->type = FIELD_ERROR_INVALID;
		f->field = field_path_format(e->arena, at);
		f->body = arena_printf(e->arena, "Invalid value: %.*s", STR_ARG(detail));
	}
}

/* Errors of what did not change are warnings. */
static void add_or_warn(struct validating *v, const struct rule *r, const struct ratchet *ratchet, struct field_errors *one)
{
	bool warn = !r->uses_old && ratcheted(ratchet);

	for (uint32_t i = 0; i < one->list.n; i++) {
		const struct field_error *f = &one->list.v[i];

		if (warn)
			request_warn(v->rq, "%.*s: %.*s", STR_ARG(f->field), STR_ARG(f->body));
		else if (v->e->list.n < FIELD_ERRORS_MAX)
			*arena_push(v->e->arena, &v->e->list) = *f;
	}
}

static void run_rules(struct validating *v, const struct node *n, const struct field_path *at, const struct jv *now, const struct jv *was,
		      const struct ratchet *ratchet)
{
	struct cel_value vars[2] = {{0}}, old = {0};
	struct str type = n->schema->type;
	bool old_made = false;

	if (!n->n_rules)
		return;
	if (!n->type) {
		field_invalid(v->e, at, type, "rule compiler initialization error: failed to convert to declType for CEL validation rules");
		return;
	}
	if (v->budget <= 0) {
		field_invalid(v->e, at, type, OUT_OF_BUDGET);
		stop(v);
		return;
	}
	vars[0] = cel_from_jv(v->a, now, n->type);
	for (uint32_t i = 0; i < n->n_rules; i++) {
		const struct rule *r = &n->rules[i];
		struct str text = trimmed_text(r->text), detail, s;
		struct field_errors one = {.arena = v->a};
		const struct field_path *where = r->path.n ? FIELD_CHILD_S(at, r->path) : at;
		struct cel_value result;
		uint64_t cost = 0;
		enum told told;

		if (r->error.p) {
			field_invalid(v->e, at, type, "rule compile error: %.*s", STR_ARG(r->error));
			continue;
		}
		if (!r->program || (r->uses_old && !was && !r->optional_old))
			continue;
		if (was && !old_made) {
			old = cel_from_jv(v->a, was, n->type);
			old_made = true;
		}
		vars[1] = r->optional_old ? cel_optional(was ? &old : NULL) : old;
		result = cel_eval(r->program, vars, v->a, CEL_PER_CALL_LIMIT, &cost);
		if (!spend(v, cost)) {
			field_invalid(v->e, at, type, OUT_OF_BUDGET);
			stop(v);
			return;
		}
		if (result.kind == CEL_ERROR) {
			s = cel_error_text(result);
			if (cel_error_is_cost(result)) {
				field_invalid(v->e, at, type, "'%.*s': no further validation rules will be run due to call cost exceeds limit for rule: %.*s",
					      STR_ARG(s), STR_ARG(text));
				stop(v);
				return;
			}
			if (str_has_prefix(s, STR("no such overload")))
				field_invalid(v->e, at, type, "'%.*s': call arguments did not match a supported operator, function or macro signature for "
							      "rule: %.*s", STR_ARG(s), STR_ARG(text));
			else
				field_invalid(v->e, at, type, "%.*s evaluating rule: %.*s", STR_ARG(s), STR_ARG(text));
			continue;
		}
		if (result.kind == CEL_BOOL && result.b)
			continue;
		/* as upstream, the message sees oldSelf as it is, whatever the rule does */
		vars[1] = was ? old : cel_error(v->a, "no such attribute(s): oldSelf");
		told = expression_message(v, r, vars, &detail);
		if (told == OUT) {
			field_invalid(&one, where, type, "%.*s", STR_ARG(detail));
			add_or_warn(v, r, ratchet, &one);
			stop(v);
			return;
		}
		if (told == NOT_TOLD)
			detail = r->text->message.n ? str_trim(r->text->message) :
						      arena_printf(v->a, "failed rule: %.*s", STR_ARG(str_trim(r->text->rule)));
		rule_error(&one, r, where, now, n->type, detail);
		add_or_warn(v, r, ratchet, &one);
	}
}

static void run(struct validating *v, const struct node *n, const struct field_path *at, const struct jv *now, const struct jv *was,
		struct ratchet ratchet)
{
	int64_t since = now_ns();

	/* null is not judged here: rules above see whether it is there */
	if (!n || now->kind == JV_NULL || v->budget < 0)
		return;
	if (was && was->kind == JV_NULL)
		was = NULL;
	run_rules(v, n, at, now, was, &ratchet);
	if (n->n_rules)
		metrics_observe(METRIC_CEL_EVALUATION, "", (double)(now_ns() - since) / 1e9);
	for (uint32_t i = 0; i < n->n_all_of && v->budget >= 0; i++)
		run(v, n->all_of[i], at, now, was, (struct ratchet){.nearest = ratchet.nearest});
	if (now->kind == JV_ARRAY && n->items) {
		for (uint32_t i = 0; i < now->n && v->budget >= 0; i++)
			run(v, n->items, FIELD_INDEX(at, i), &now->items[i], old_item(&v->x, n->schema, was, &now->items[i]), ratchet_index(&ratchet, i));
		return;
	}
	if (now->kind != JV_OBJECT)
		return;
	for (uint32_t i = 0; i < now->n && v->budget >= 0; i++) {
		struct str key = now->members[i].key;
		const struct jv *value = &now->members[i].value, *before = jv_is(was, JV_OBJECT) ? jv_get(was, key) : NULL;

		if (n->values)
			run(v, n->values, FIELD_KEY(at, key), value, before, ratchet_key(&ratchet, key));
		for (uint32_t k = 0; k < n->n_properties && v->budget >= 0; k++)
			if (str_eq(n->properties[k].key, key))
				run(v, n->properties[k].node, FIELD_CHILD_S(at, key), value, before, ratchet_key(&ratchet, key));
	}
}

static bool blocks(enum field_error_type t)
{
	return t == FIELD_ERROR_NOT_SUPPORTED || t == FIELD_ERROR_REQUIRED || t == FIELD_ERROR_TOO_LONG || t == FIELD_ERROR_TOO_MANY ||
	       t == FIELD_ERROR_TYPE_INVALID;
}

void crd_rules_validate(struct request *rq, const struct crd_rules *rs, const props *schema, const struct jv *now, const struct jv *was,
			struct field_errors *e)
{
	struct validating v = {.rq = rq, .a = e->arena, .e = e, .budget = (int64_t)CEL_CRD_BUDGET, .x.a = e->arena};
	struct ratchet ratchet = {0};

	if (!rs)
		return;
	for (uint32_t i = 0; i < e->list.n; i++)
		if (blocks(e->list.v[i].type)) {
			field_invalid_raw(e, NULL, STR("null"), "some validation rules were not checked because the object was invalid; correct the existing "
							       "errors to complete validation");
			return;
		}
	if (was)
		ratchet.at = (struct pair){now, was, schema, &v.x};
	run(&v, rs->root, NULL, now, was, ratchet);
	map_free(&v.x.of);
}

void crd_rules_default(struct field_errors *e, const props *p, const struct jv *v, const struct field_path *at)
{
	struct validating x = {.a = e->arena, .e = e, .budget = (int64_t)CEL_CRD_BUDGET, .x.a = e->arena};
	struct crd_rules *rs = compile_rules(p, p->x_kubernetes_embedded_resource);
	uint32_t before = e->list.n;

	if (!rs)
		return;
	/* as an update that changes nothing, and as something new */
	run(&x, rs->root, at, v, v, (struct ratchet){0});
	x.budget = (int64_t)CEL_CRD_BUDGET;
	if (e->list.n == before)
		run(&x, rs->root, at, v, NULL, (struct ratchet){0});
	for (uint32_t i = before; i < e->list.n; i++)
		e->list.v[i].body = arena_str(e->arena, e->list.v[i].body);
	crd_rules_free(rs);
	map_free(&x.x.of);
}

/* ---- rules checked when a definition is written ---- */

struct checking {
	struct field_errors *e;
	struct crd_rules *rs; /* owns what is compiled, for this check */
	uint32_t known;       /* errors before it: of the schemas themselves */
	bool unchanged;
	uint64_t total;
	struct expensive {
		struct str path;
		uint64_t cost;
	} most[4]; /* descending */
};

struct scope {
	const struct cel_type *type;      /* NULL: not visible, or not needed yet */
	struct str name;
	bool bounded;
	uint64_t cardinality;             /* how often this place can be there; when bounded */
	const struct field_path *no_old;  /* within a list whose elements cannot be found again */
	bool within;                      /* rules here or above */
};

static uint64_t times(uint64_t x, uint64_t y)
{
	return x && y > UINT64_MAX / x ? UINT64_MAX : x * y;
}

static bool line_breaks(struct str s)
{
	return str_index(s, '\n') >= 0 || str_index(s, '\r') >= 0;
}

static void too_expensive(struct field_errors *e, const struct field_path *at, const char *what, uint64_t cost, uint64_t limit)
{
	double by = (double)cost / (double)limit;
	struct str factor = by > 100 ? STR("more than 100x") : by < 1.5 ? arena_printf(e->arena, "%fx", by) : arena_printf(e->arena, "%.1fx", by);

	field_forbidden(e, at,
			"%s exceeds budget by factor of %.*s (try simplifying the rule, or adding maxItems, maxProperties, "
			"and maxLength where arrays, maps, and strings are declared)",
			what, STR_ARG(factor));
}

static void observe(struct checking *c, const struct field_path *at, uint64_t cost)
{
	struct expensive x = {STR_NULL, cost};

	c->total = c->total > UINT64_MAX - cost ? UINT64_MAX : c->total + cost;
	if (cost < CEL_STATIC_CRD_LIMIT / 100)
		return;
	x.path = field_path_format(c->e->arena, at);
	for (int i = 0; i < 4; i++)
		if (x.cost > c->most[i].cost) {
			struct expensive t = c->most[i];

			c->most[i] = x;
			x = t;
		}
}

/* What can be said of a rule without its schema. False: there are errors. */
static bool check_text(struct checking *c, const props *p, const rule_text *r, const struct field_path *at)
{
	static const struct str reasons[] = {STR_INIT("FieldValueDuplicate"), STR_INIT("FieldValueForbidden"), STR_INIT("FieldValueInvalid"),
					     STR_INIT("FieldValueRequired")};
	struct field_errors *e = c->e;
	uint32_t before = e->list.n;
	struct str rule = str_trim(r->rule), message = str_trim(r->message), path;
	bool known = !r->reason;

	if (!rule.n)
		field_required(e, FIELD_CHILD(at, "rule"), "rule is not specified");
	else if (r->message.n && !message.n)
		field_invalid(e, FIELD_CHILD(at, "message"), r->message, "must be non-empty if specified");
	else if (line_breaks(message))
		field_invalid(e, FIELD_CHILD(at, "message"), r->message, "must not contain line breaks");
	else if (line_breaks(rule) && !message.n)
		field_required(e, FIELD_CHILD(at, "message"), "message must be specified if rule contains line breaks");
	if (r->message_expression.n && !str_trim(r->message_expression).n)
		field_required(e, FIELD_CHILD(at, "messageExpression"), "messageExpression must be non-empty if specified");
	for (size_t i = 0; i < 4 && !known; i++)
		known = str_eq(*r->reason, reasons[i]);
	if (!known)
		field_not_supported(e, FIELD_CHILD(at, "reason"), *r->reason, reasons, 4);
	if (r->field_path.n && !str_trim(r->field_path).n)
		field_invalid(e, FIELD_CHILD(at, "fieldPath"), r->field_path, "must be non-empty if specified");
	if (line_breaks(r->field_path))
		field_invalid(e, FIELD_CHILD(at, "fieldPath"), r->field_path, "must not contain line breaks");
	if (r->field_path.n && !schema_at_path(e->arena, p, r->field_path, true, &path))
		field_invalid(e, FIELD_CHILD(at, "fieldPath"), r->field_path, "must be a valid path");
	return e->list.n == before;
}

/* A string as Go's encoder writes it. */
static void go_quoted(struct buf *b, struct str s)
{
	struct jv v = {.kind = JV_STRING, .n = (uint32_t)s.n, .p = s.p};
	struct buf plain buf_cleanup = {0};
	struct str text;

	jv_encode(&plain, &v);
	text = buf_view(&plain);
	for (size_t i = 0; i < text.n; i++)
		if (text.p[i] == '<' || text.p[i] == '>' || text.p[i] == '&')
			buf_printf(b, "\\u%04x", (unsigned)text.p[i]);
		else
			buf_putc(b, text.p[i]);
}

/* A rule as upstream's errors show it: its internal struct. */
static struct str rule_json(struct arena *a, const rule_text *r)
{
	struct buf b buf_cleanup = {0};

	buf_puts(&b, "{\"Rule\":");
	go_quoted(&b, r->rule);
	buf_puts(&b, ",\"Message\":");
	go_quoted(&b, r->message);
	buf_puts(&b, ",\"MessageExpression\":");
	go_quoted(&b, r->message_expression);
	buf_puts(&b, ",\"Reason\":");
	if (r->reason)
		go_quoted(&b, *r->reason);
	else
		buf_puts(&b, "null");
	buf_puts(&b, ",\"FieldPath\":");
	go_quoted(&b, r->field_path);
	buf_printf(&b, ",\"OptionalOldSelf\":%s}", !r->optional_old_self ? "null" : *r->optional_old_self ? "true" : "false");
	return arena_str(a, buf_view(&b));
}

static void check_compiled(struct checking *c, const struct rule *r, const struct scope *s, const struct field_path *at)
{
	struct field_errors *e = c->e;
	uint64_t repeated = s->bounded ? s->cardinality : CEL_MAX_REQUEST_SIZE / (uint64_t)(s->type->min_serialized + 1);
	uint64_t cost = times(r->cost, repeated);
	const struct field_path *rule = FIELD_CHILD(at, "rule"), *message = FIELD_CHILD(at, "messageExpression");

	if (!c->unchanged && cost > CEL_STATIC_EXPRESSION_LIMIT)
		too_expensive(e, rule, "estimated rule cost", cost, CEL_STATIC_EXPRESSION_LIMIT);
	observe(c, rule, cost);
	if (r->error.p)
		field_invalid_raw(e, rule, rule_json(e->arena, r->text), "%.*s", STR_ARG(r->error));
	if (r->message_error.p) {
		field_invalid_raw(e, message, rule_json(e->arena, r->text), "%.*s", STR_ARG(r->message_error));
	} else if (r->message) {
		if (!c->unchanged && r->message_cost > CEL_STATIC_EXPRESSION_LIMIT)
			too_expensive(e, message, "estimated messageExpression cost", r->message_cost, CEL_STATIC_EXPRESSION_LIMIT);
		observe(c, message, r->message_cost);
	}
	if (r->uses_old && s->no_old) {
		struct str where = field_path_format(e->arena, s->no_old);

		field_invalid(e, rule, r->text->rule, "oldSelf cannot be used on the uncorrelatable portion of the schema within %.*s", STR_ARG(where));
	} else if (!r->uses_old && r->text->optional_old_self) {
		field_invalid_raw(e, FIELD_CHILD(at, "optionalOldSelf"), *r->text->optional_old_self ? STR("true") : STR("false"),
				  "may not be set if oldSelf is not used in rule");
	}
}

/* How the schema multiplies its children; false: without bound. */
static bool multiplies(const props *p, uint64_t *by)
{
	*by = 1;
	if (str_eqz(p->type, "object") && p->additional_properties) {
		*by = p->max_properties ? not_negative(*p->max_properties) : 0;
		return p->max_properties != NULL;
	}
	if (str_eqz(p->type, "array")) {
		*by = p->max_items ? not_negative(*p->max_items) : 0;
		return p->max_items != NULL;
	}
	return true;
}

/* The schema at this place, or below, is wrong already: its rules are not compiled. */
static bool wrong_within(const struct checking *c, const struct field_path *at)
{
	struct str path = c->known ? field_path_format(c->e->arena, at) : STR_NULL;

	for (uint32_t i = 0; i < c->known; i++) {
		struct str f = c->e->list.v[i].field;

		if (str_has_prefix(f, path) && (f.n == path.n || f.p[path.n] == '.' || f.p[path.n] == '['))
			return true;
	}
	return false;
}

/* False: something is wrong with the rules' texts here or below; then nothing is compiled at this place. */
static bool check_node(struct checking *c, const props *p, struct scope s, const struct field_path *at, bool compiled)
{
	struct arena *a = &c->rs->arena;
	struct scope below = s;
	bool fine = true;
	uint64_t by;

	if (!schema_has_rules(p))
		return true;
	s.within |= p->x_kubernetes_validations.n > 0;
	below = s;
	below.bounded = s.bounded && multiplies(p, &by);
	below.cardinality = below.bounded ? times(s.cardinality, by) : 0;
	if (p->x_kubernetes_map_type && !str_eqz(*p->x_kubernetes_map_type, "granular") && !str_eqz(*p->x_kubernetes_map_type, "atomic") &&
	    !below.no_old)
		below.no_old = at; /* as of a type that is still to come */
	for (uint32_t i = 0; i < p->properties.n; i++) {
		struct str key = p->properties.v[i].key, shown;
		const props *child = &p->properties.v[i].value;
		struct scope cs = below;

		cs.name = under(a, s.name, key);
		cs.type = cel_escape(a, key, &shown) ? field_type(s.type, key) : NULL;
		if (!cs.type && schema_has_rules(child))
			cs.type = type_of(a, child, child->x_kubernetes_embedded_resource, cs.name);
		fine &= check_node(c, child, cs, FIELD_KEY(FIELD_CHILD(at, "properties"), key), compiled);
	}
	if (item_schema(p)) {
		struct scope cs = below;

		cs.name = under(a, s.name, STR("@idx"));
		cs.type = s.type && s.type->kind == CEL_LIST ? s.type->elem : NULL;
		if (!cs.type && schema_has_rules(item_schema(p)))
			cs.type = type_of(a, item_schema(p), item_schema(p)->x_kubernetes_embedded_resource, cs.name);
		if (!is_map_list(p) && !cs.no_old)
			cs.no_old = at;
		fine &= check_node(c, item_schema(p), cs, FIELD_CHILD(at, "items"), compiled);
	}
	if (value_schema(p)) {
		struct scope cs = below;

		cs.name = under(a, s.name, STR("@elem"));
		cs.type = s.type && s.type->kind == CEL_MAP ? s.type->elem : NULL;
		if (!cs.type && schema_has_rules(value_schema(p)))
			cs.type = type_of(a, value_schema(p), value_schema(p)->x_kubernetes_embedded_resource, cs.name);
		fine &= check_node(c, value_schema(p), cs, FIELD_CHILD(at, "additionalProperties"), compiled);
	}
	for (uint32_t i = 0; i < p->all_of.n; i++)
		fine &= check_node(c, &p->all_of.v[i], s, FIELD_INDEX(FIELD_CHILD(at, "allOf"), i), false);
	for (uint32_t i = 0; i < p->x_kubernetes_validations.n; i++)
		fine &= check_text(c, p, &p->x_kubernetes_validations.v[i], FIELD_INDEX(FIELD_CHILD(at, "x-kubernetes-validations"), i));
	if (!fine || !compiled || (p->x_kubernetes_validations.n && wrong_within(c, at)))
		return fine;
	for (uint32_t i = 0; i < p->x_kubernetes_validations.n; i++) {
		const struct field_path *where = FIELD_INDEX(FIELD_CHILD(at, "x-kubernetes-validations"), i);
		struct rule r = {0};

		if (!s.type) {
			field_internal(c->e, FIELD_CHILD(at, "x-kubernetes-validations"),
				       "internal error: failed to construct type information for x-kubernetes-validations rules: unable to convert "
				       "structural schema to CEL declarations");
			break;
		}
		compile_rule(c->rs, p, s.type, &p->x_kubernetes_validations.v[i], &r);
		check_compiled(c, &r, &s, where);
	}
	return true;
}

void crd_rules_check(struct field_errors *e, const props *p, const struct field_path *at, bool structural, bool unchanged)
{
	struct crd_rules *rs;
	struct checking c = {.e = e, .known = e->list.n, .unchanged = unchanged};
	struct scope s = {.bounded = true, .cardinality = 1, .name = STR("self")};

	if (!schema_has_rules(p))
		return;
	rs = c.rs = xcalloc(1, sizeof *rs);
	s.type = structural ? type_of(&rs->arena, p, true, s.name) : NULL;
	check_node(&c, p, s, at, structural);
	if (c.total > CEL_STATIC_CRD_LIMIT) {
		for (int i = 0; i < 4 && c.most[i].cost; i++) {
			struct field_error *f;

			if (e->list.n >= FIELD_ERRORS_MAX)
				break;
			f = arena_push(e->arena, &e->list);
			f->type = FIELD_ERROR_FORBIDDEN;
			f->field = c.most[i].path;
			f->body = STR("Forbidden: contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema");
		}
		too_expensive(e, at, "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema", c.total, CEL_STATIC_CRD_LIMIT);
	}
	for (uint32_t i = 0; i < e->list.n; i++) { /* texts of issues are of the check's own arena */
		e->list.v[i].body = arena_str(e->arena, e->list.v[i].body);
		e->list.v[i].field = arena_str(e->arena, e->list.v[i].field);
	}
	crd_rules_free(rs);
}
