/* cel/internal.h: what the files of this room share. */
#ifndef SKIFF_CEL_INTERNAL_H
#define SKIFF_CEL_INTERNAL_H

#include "cel/cel.h"

extern const struct cel_type cel_type_error, cel_type_path_check, cel_type_group_check, cel_type_decision, cel_type_url, cel_type_quantity,
	cel_type_semver, cel_type_format, cel_type_ip, cel_type_cidr;

static inline const struct cel_type *cel_elem(const struct cel_type *t)
{
	return t->elem ? t->elem : &cel_type_dyn;
}
static inline const struct cel_type *cel_key(const struct cel_type *t)
{
	return t->key ? t->key : &cel_type_dyn;
}
struct str cel_type_name(const struct cel_type *t); /* without parameters */
struct str cel_type_shown(struct arena *a, const struct cel_type *t); /* as type checking errors have it: "timestamp" */
const struct cel_field *cel_type_field(const struct cel_type *t, struct str name);
const struct cel_type *cel_type_list_of(struct arena *a, const struct cel_type *elem);
const struct cel_type *cel_type_map_of(struct arena *a, const struct cel_type *key, const struct cel_type *value);
const struct cel_type *cel_type_optional_of(struct arena *a, const struct cel_type *elem);
const struct cel_type *cel_type_type_of(struct arena *a, const struct cel_type *elem);


/* ---- functions ---- */

struct run;
typedef struct cel_value (*cel_fn)(struct run *r, const struct cel_value *args, uint32_t n);

/* How a call's cost is estimated and counted. The first group goes by the function's name, as Kubernetes' CostEstimator. */
enum cost_family {
	COST_ONE,
	COST_CHECK,
	COST_SELECTOR,
	COST_LIST_TRAVERSE, /* isSorted, sum, max, min, indexOf, lastIndexOf */
	COST_STRING,        /* one traversal, result of the same size */
	COST_PARSE,         /* one traversal */
	COST_REPLACE,
	COST_SPLIT,
	COST_JOIN,
	COST_FIND,
	COST_CANONICAL,
	COST_CONTAINS_IP,
	COST_CONTAINS_CIDR,
	COST_VALIDATE,
	COST_NAMED_LAST = COST_VALIDATE,
	/* by overload */
	COST_AFFIX, /* startsWith, endsWith */
	COST_TO_BYTES,
	COST_FROM_BYTES,
	COST_QUOTE,
	COST_FORMAT,
	COST_IN_LIST,
	COST_COMPARE,
	COST_EQUALS,
	COST_ADD_STRING,
	COST_ADD_LIST,
	COST_MATCHES,
	COST_CONTAINS,
	COST_LOGIC,
	COST_CONDITIONAL,
	COST_INDEX_LIST,
	COST_INDEX_MAP,
	COST_SETS,
	COST_SETS_TWICE,
	COST_SLICE,
	COST_FLATTEN,
	COST_RANGE,
	COST_REVERSE,
	COST_DISTINCT,
	COST_SORT,
	COST_SORT_BY,
};

#define ARGS_MAX 4
struct overload {
	const char *fn, *id;
	bool member;
	bool parsed_string; /* containsIP(string), containsCIDR(string): the argument is parsed */
	uint8_t n, cost, op;
	uint8_t n_params;
	const struct cel_type *args[ARGS_MAX];
	const struct cel_type *params[2]; /* the type parameters used */
	const struct cel_type *result;
	cel_fn impl; /* NULL: the evaluator's own */
};
struct function {
	struct str name;
	const struct overload *ov;
	uint32_t n;
};
/* The function of this name; NULL: none. jsonpatch only with patch_types. */
const struct function *cel_function(struct str name, bool patch_types);

/* ---- evaluation ---- */

struct cel_error_info {
	struct str text;
	bool cost;
};

struct run {
	struct arena *a;
	const struct cel_program *p;
	const struct cel_value *vars;
	struct cel_value *locals;
	struct cel_value *top, *end; /* stack of arguments: room for ARGS_MAX at each height of the tree */
	uint32_t level; /* heights of the trees in evaluation */
	uint64_t cost, limit;
	bool stopped; /* over the limit: nothing is evaluated any more */
	const struct cel_regex *pattern; /* of the call, when it is a constant */
};

#define CEL_UNSET 0xff /* kind of a comprehension's variable before its first use */

/* How lists, maps, objects are held (cel_value.rep). */
enum cel_rep {
	REP_NONE,
	REP_ARRAY,    /* list: ptr is struct cel_value[n] */
	REP_GROWING,  /* list of a comprehension: ptr is struct growing */
	REP_JV,       /* ptr is struct jv, type is struct cel_type or NULL */
	REP_MAP,      /* ptr is struct cel_map */
	REP_TYPED,    /* a message: ptr is the struct, type its schema_type */
	REP_FIELD,    /* list or map field: ptr is the LIST, type its schema_field */
	REP_LAZY,     /* ptr is struct cel_lazy */
	REP_OBJECT,   /* made by T{...}: ptr is struct cel_map, type its cel_type */
	REP_STRINGS,  /* list: ptr is struct str[n] */
};

struct cel_entry {
	struct cel_value key, value;
};
struct cel_map {
	struct cel_entry *v;
	uint32_t n, cap;
	uint32_t *index; /* open addressing over v + 1, of `mask + 1`; NULL: few entries */
	uint32_t mask;
};
struct growing {
	struct cel_value *v;
	uint32_t n, cap;
};

struct cel_value cel_fail(struct run *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
struct cel_value cel_no_overload(struct run *r);
static inline bool cel_failed(struct cel_value v)
{
	return v.kind == CEL_ERROR;
}

/* values.c, equal.c */
uint64_t cel_hash_key(struct cel_value k); /* of keys that are equal it is the same */
struct cel_map *cel_map_new(struct arena *a, uint32_t room);
struct cel_value *cel_map_find(const struct cel_map *m, struct cel_value key); /* by a key of the same kind, or an equal number; NULL */
void cel_map_put(struct arena *a, struct cel_map *m, struct cel_value key, struct cel_value value);
struct cel_value cel_map_value(const struct cel_map *m);
/* Member by key of a map or object. 1: found, *out; 0: absent; -1: *out is an error. */
int cel_find(struct arena *a, struct cel_value map, struct cel_value key, struct cel_value *out);
int cel_find_field(struct arena *a, struct cel_value map, struct str name, struct cel_value *out);
bool cel_isset(struct arena *a, struct cel_value map, struct str name); /* for has(): of objects with declared fields, set to non-zero */
/* Walks members: keys and values i = 0..cel_size-1. */
struct cel_value cel_map_at(struct arena *a, struct cel_value map, uint32_t i, struct cel_value *value);
/* Elements of any list as an array. */
const struct cel_value *cel_items(struct arena *a, struct cel_value list);
enum equality { /* cel-go's Equal, which may be an error */
	EQ_NO,
	EQ_YES,
	EQ_FAILED,
};
enum equality cel_equality(struct arena *a, struct cel_value x, struct cel_value y);
const struct cel_type *cel_list_view(struct cel_value v);
struct cel_value cel_compare(struct arena *a, struct cel_value x, struct cel_value y, bool *ok); /* int -1, 0, 1; *ok false: not comparable */
uint64_t cel_runes(struct str s);
bool cel_valid_utf8(struct str s);
uint64_t cel_actual_size(struct cel_value v, bool through_optional);
const struct cel_type *cel_runtime_type(struct cel_value v); /* what type() gives */
struct str cel_kind_name(struct cel_value v);
bool cel_is_zero(struct arena *a, struct cel_value v);
/* Text of a value for messages, as Go's %v of it. */
struct str cel_show(struct arena *a, struct cel_value v);
struct cel_value cel_add_lists(struct run *r, struct cel_value x, struct cel_value y);
/*
 * What is left of a value that cel-go makes a native one and a value again: views lose their schema, types are their names, objects maps, an
 * optional what is in it; Kubernetes' own types have no way back.
 */
struct cel_value cel_native(struct arena *a, struct cel_value v);

/* proto.c: messages of google.protobuf; NULL for other names */
struct cel_message;
const struct cel_message *cel_message_find(struct str name);
const struct cel_type *cel_message_type(const struct cel_message *m); /* of its literals */
const struct cel_field *cel_message_field(const struct cel_message *m, struct str name);
bool cel_message_named(const struct cel_message *m); /* its name is a value of an expression */
/* given: the fields that stand in the literal. May be a CEL_ERROR. */
struct cel_value cel_message_make(struct run *r, const struct cel_message *m, const struct cel_map *given);

/* opaque values: ptr */
struct cel_value cel_opaque(const struct cel_type *t, const void *p);
static inline bool cel_is_opaque(struct cel_value v, const struct cel_type *t)
{
	return v.kind == CEL_OPAQUE && v.type == t;
}
enum equality cel_opaque_equal(struct cel_value x, struct cel_value y);
bool cel_net_equal(struct cel_value x, struct cel_value y); /* of url, ip, cidr */
unsigned cel_format_regex_size(struct cel_value format); /* of a named format; 0 for other values */

/* regex.c: first match from `from`: true, [*start, *end). *why not NULL: a limit was hit, nobody knows. */
bool cel_regex_find(const struct cel_regex *re, struct str s, size_t from, size_t *start, size_t *end, const char **why);

/* time.c */
bool cel_parse_timestamp(struct str s, struct cel_value *out);
bool cel_parse_duration(struct str s, int64_t *ns);
struct str cel_timestamp_text(struct arena *a, struct cel_value t);
struct str cel_duration_text(struct arena *a, int64_t ns);
struct str cel_double_text(struct arena *a, double d);
bool cel_timestamp_ok(int64_t s); /* years 1 to 9999 */

/* format.c: string.format(). Also for checking a literal: kinds by argument, -1 on success or which argument is wrong. */
struct cel_value cel_format(struct run *r, struct str fmt, struct cel_value args);
struct node;
bool cel_format_check(struct arena *a, struct str fmt, struct node *const *args, uint32_t n, struct str *why, const struct node **at);

#endif
