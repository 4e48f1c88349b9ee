/*
 * cel/cel.h: the Common Expression Language as Kubernetes v1.36 has it: the
 * language of cel-spec, checked statically, with the libraries and costs of
 * upstream's environment (KEP-2876, KEP-3488, KEP-3962).
 *
 * An expression is compiled once against an environment (its variables and
 * their types) into an immutable program, which any thread may evaluate any
 * number of times. Values of objects are views over what the schema engine
 * uses (trees of schema/jv.h, structs with descriptor tables): nothing is
 * converted before it is read. This room never waits, reads no clock and
 * knows no server: what needs one (the authorizer) is a callback.
 */
#ifndef SKIFF_CEL_CEL_H
#define SKIFF_CEL_CEL_H

#include "schema/jv.h"
#include "schema/schema.h"

/* Limits of upstream's apis/cel/config.go and pkg/cel/limits.go. */
#define CEL_PER_CALL_LIMIT 1000000ull          /* runtime cost of one evaluation */
#define CEL_CRD_BUDGET 10000000ull             /* runtime cost of all rules over one custom resource; of all validations of one policy */
#define CEL_MATCH_CONDITIONS_BUDGET 2500000ull /* runtime cost of all match conditions of one webhook (a quarter of the above) */
#define CEL_STATIC_EXPRESSION_LIMIT 10000000ull /* estimated cost of one CRD rule */
#define CEL_STATIC_CRD_LIMIT 100000000ull       /* estimated cost of all rules of one CRD version */
#define CEL_MAX_REQUEST_SIZE (3ull * 1024 * 1024) /* bytes of an object: bounds every size that a schema does not */
/* Limits of cel-go's parser. */
#define CEL_MAX_SOURCE 100000 /* code points */
#define CEL_MAX_DEPTH 250     /* height of an expression's tree, macros expanded */
#define CEL_MAX_NODES (1u << 18) /* of an expression with its macros expanded */
#define CEL_MAX_NESTING 64   /* expressions in brackets, arguments, branches (upstream: 250; a fiber's stack is small) */
#define CEL_MAX_ISSUES 100    /* reported for one expression */

/* ---- types ---- */

enum cel_kind { /* of types and values; zeroed memory is null */
	CEL_NULL,
	CEL_BOOL,
	CEL_INT,
	CEL_UINT,
	CEL_DOUBLE,
	CEL_STRING,
	CEL_BYTES,
	CEL_TIMESTAMP,
	CEL_DURATION,
	CEL_LIST,
	CEL_MAP,
	CEL_OBJECT,   /* has named fields. A value of a type with kind CEL_OBJECT may be of kind CEL_MAP (Kubernetes objects are) */
	CEL_TYPE,     /* type(x) */
	CEL_OPTIONAL,
	CEL_OPAQUE,   /* url, IP, CIDR, quantity, semver, format, authorizer... by name */
	CEL_ERROR,    /* value: the evaluation failed; type: of an expression that has an error */
	CEL_DYN,      /* type only */
	CEL_PARAM,    /* type only, in declarations and during checking */
};

enum cel_list_type { /* x-kubernetes-list-type: equality and + of lists */
	CEL_LIST_ATOMIC,
	CEL_LIST_SET,
	CEL_LIST_MAP,
};

struct cel_type;
struct cel_field {
	struct str name;      /* as written in expressions (cel_escape) */
	struct str json_name; /* in the object */
	const struct cel_type *type;
};

/*
 * A type; immutable once in use. Types are static, or of the arena that outlives every program compiled with them.
 * What stands under "view" says how a tree of that type is read (UnstructuredToVal); under "size", what bounds estimates.
 */
struct cel_type {
	uint8_t kind;      /* enum cel_kind */
	/* view */
	uint8_t list_type; /* CEL_LIST */
	bool nullable;     /* null is null; otherwise reading null is an error */
	bool int_or_string;/* CEL_DYN: an integer or a string */
	bool hidden;       /* CEL_DYN: x-kubernetes-preserve-unknown-fields without a type: only comparable */
	bool date;         /* CEL_TIMESTAMP: "2006-01-02" */
	bool any_field;    /* CEL_OBJECT: fields that are not declared exist, with type dyn (Object of mutations) */
	bool wrapper;      /* of plain kinds: may be null, as google.protobuf.Int64Value and the like */
	uint8_t n_list_keys;
	const struct str *list_keys; /* CEL_LIST_MAP: JSON names */
	/* */
	struct str name;   /* CEL_OBJECT, CEL_OPAQUE, CEL_PARAM */
	const struct cel_type *elem; /* of a list, map (its values), optional, type; NULL means dyn */
	const struct cel_type *key;  /* of a map; NULL means dyn */
	const struct cel_field *fields; /* CEL_OBJECT */
	uint32_t n_fields;
	/* size */
	uint64_t max_size;         /* elements or bytes of a list, map, string, bytes (upstream's MaxElements); 0 is a limit of 0 */
	int64_t min_serialized;    /* bytes of its shortest JSON (upstream's MinSerializedSize) */
};

extern const struct cel_type cel_type_null, cel_type_bool, cel_type_int, cel_type_uint, cel_type_double, cel_type_string, cel_type_bytes,
	cel_type_timestamp, cel_type_duration, cel_type_dyn, cel_type_list_dyn, cel_type_map_dyn /* map(dyn, dyn) */, cel_type_type,
	cel_type_list_string, cel_type_map_string_dyn;
/* kubernetes.authorization.Authorizer and .ResourceCheck: of the variables `authorizer` and `authorizer.requestResource`. */
extern const struct cel_type cel_type_authorizer, cel_type_resource_check;
/* JSONPatch of MutatingAdmissionPolicy, and a list of it; Object. */
extern const struct cel_type cel_type_json_patch, cel_type_list_json_patch, cel_type_object;

/* Unbounded sizes for a type made by hand: as upstream's NewListType(x, noMaxLength) and friends. */
#define CEL_NO_MAX_SIZE UINT64_MAX

/* Same type, deeply. What stands under view and size does not count. */
bool cel_type_equal(const struct cel_type *a, const struct cel_type *b);
/* "list(string)", "kubernetes.Quantity": the spelling of upstream's messages. */
struct str cel_type_text(struct arena *a, const struct cel_type *t);
/*
 * The type of a built-in object by its descriptor table, as upstream's OpenAPI schema gives it (for type checking of policies).
 * Allocated in `a` with everything below it. resource: apiVersion, kind, metadata.name are there.
 */
const struct cel_type *cel_type_of_schema(struct arena *a, const struct schema_type *t);
/*
 * A property name as an identifier of expressions ("x-y" becomes "x__dash__y", "in" "__in__"); false when it cannot be
 * one (it is then not visible). The result is `name` itself or of the arena.
 */
bool cel_escape(struct arena *a, struct str name, struct str *out);
/* A string of the OpenAPI format "duration": Go's, and days, weeks, words ("1 day 2 hours"). */
bool cel_format_duration(struct str s, int64_t *ns);

/* ---- values ---- */

struct cel_error_info;
struct cel_lazy_ops;
/* A value: 24 bytes, copied freely. What it points to is the evaluation's arena, the program, or what the caller gave. */
struct cel_value {
	uint8_t kind; /* enum cel_kind, never CEL_DYN or CEL_PARAM */
	uint8_t rep;  /* how lists, maps, objects are held: internal */
	uint32_t n;   /* bytes of a string; elements */
	union {
		bool b;
		int64_t i;  /* CEL_INT; CEL_DURATION: nanoseconds; CEL_TIMESTAMP: seconds since 1970 */
		uint64_t u;
		double d;
		const char *p; /* CEL_STRING, CEL_BYTES */
		const void *ptr;
	};
	union {
		struct { /* CEL_TIMESTAMP */
			int32_t ns;     /* 0..999999999 */
			int32_t offset; /* seconds east of UTC, of its text only */
		};
		const void *type;
	};
};

static inline struct cel_value cel_bool(bool b)
{
	return (struct cel_value){.kind = CEL_BOOL, .b = b};
}
static inline struct cel_value cel_int(int64_t i)
{
	return (struct cel_value){.kind = CEL_INT, .i = i};
}
static inline struct cel_value cel_uint(uint64_t u)
{
	return (struct cel_value){.kind = CEL_UINT, .u = u};
}
static inline struct cel_value cel_double(double d)
{
	return (struct cel_value){.kind = CEL_DOUBLE, .d = d};
}
/* The bytes (UTF-8) are not copied; at most 4 GiB. */
static inline struct cel_value cel_string(struct str s)
{
	return (struct cel_value){.kind = CEL_STRING, .n = (uint32_t)s.n, .p = s.n ? s.p : ""};
}
static inline struct cel_value cel_bytes(struct str s)
{
	return (struct cel_value){.kind = CEL_BYTES, .n = (uint32_t)s.n, .p = s.n ? s.p : ""};
}
static inline struct cel_value cel_timestamp(int64_t s, int32_t ns)
{
	return (struct cel_value){.kind = CEL_TIMESTAMP, .i = s, .ns = ns};
}
static inline struct cel_value cel_duration(int64_t ns)
{
	return (struct cel_value){.kind = CEL_DURATION, .i = ns};
}
#define CEL_NULL_VALUE ((struct cel_value){0})
/* Bytes of a string or bytes value; STR_NULL for others. */
static inline struct str cel_str(struct cel_value v)
{
	return v.kind == CEL_STRING || v.kind == CEL_BYTES ? str_of(v.p, v.n) : STR_NULL;
}

/*
 * A view over a tree. `type` NULL: read as it stands (unstructured). Otherwise read through the type: formats become timestamps,
 * durations, bytes; lists of type set and map compare and add as such; undeclared fields are not there; a value that does not fit
 * is a CEL_ERROR. The tree must live and stay unchanged as long as the value. v NULL is null.
 */
struct cel_value cel_from_jv(struct arena *a, const struct jv *v, const struct cel_type *type);
/*
 * A view over a built-in object as its JSON would be read unstructured: what JSON leaves out is absent, times and quantities are
 * strings, kind and apiVersion are members. obj NULL is null.
 */
struct cel_value cel_from_object(const struct schema_type *t, const void *obj);
/* An optional: of v, or (v NULL) none. v is not copied. */
struct cel_value cel_optional(const struct cel_value *v);
/* A list over n values (not copied). */
struct cel_value cel_list(const struct cel_value *v, uint32_t n);
/* A map of n string keys and their values. */
struct cel_value cel_string_map(struct arena *a, const struct str *keys, const struct cel_value *values, uint32_t n);
/* An error value with this message (copied). */
struct cel_value cel_error(struct arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/*
 * A map whose members are computed when they are read (variables of a policy). get: sets *out, false when there is no such member;
 * it is called at each read and caches by itself; *out may be an error. Members are those of the declared type.
 */
struct cel_lazy {
	bool (*get)(struct cel_lazy *self, struct arena *a, struct str name, struct cel_value *out);
};
struct cel_value cel_lazy_map(struct cel_lazy *self);

/* Message of a CEL_ERROR. */
struct str cel_error_text(struct cel_value v);
/* The evaluation was stopped by its cost limit. */
bool cel_error_is_cost(struct cel_value v);
/* Reading results: elements, characters or members; 0 for what has none. */
uint32_t cel_size(struct cel_value v);
/* Element i of a list (i < cel_size). Views are resolved in `a`. */
struct cel_value cel_at(struct arena *a, struct cel_value list, uint32_t i);
/* Member of a map or object; false when absent. */
bool cel_get(struct arena *a, struct cel_value map, struct str key, struct cel_value *out);
/* Value of an optional; NULL for none. */
const struct cel_value *cel_optional_get(struct cel_value v);
/* CEL's ==, across numeric types. An error among the operands makes false. */
bool cel_equal(struct arena *a, struct cel_value x, struct cel_value y);
/* Type name of an object made by an expression ("JSONPatch", "Object.spec"), "" for others. */
struct str cel_object_type(struct cel_value v);
/*
 * As JSON: what upstream's ConvertToNative to a structpb.Value gives (bytes in base64, timestamps RFC 3339, durations "1.5s",
 * int and uint as numbers; empty optionals and keys of other types than string are errors). Error: BadRequest-less, a sentence.
 */
struct error *cel_to_jv(struct arena *a, struct cel_value v, struct jv *out);
/*
 * As JSON, the way upstream reads an apply configuration that an expression made: what is read from objects and what
 * Object{} makes has a form, and lists and maps of these; null, bytes, times, and literal lists and maps within literal
 * lists and maps have none.
 */
struct error *cel_to_configuration(struct arena *a, struct cel_value v, struct jv *out);

/* ---- authorizer (KEP-3488) ---- */

struct cel_authz_check {
	bool resource; /* false: path */
	struct str path;
	struct str verb, group, resource_name /* plural */, subresource, ns, name;
	struct str service_account_ns, service_account; /* set by serviceAccount(): who is asked for, instead of the request's user */
	struct str field_selector, label_selector;
	bool has_field_selector, has_label_selector;
};
struct cel_authz_decision {
	bool allowed;
	struct str reason;
	struct str error; /* p != NULL: errored */
};
struct cel_authorizer {
	/* Must not wait longer than the request. Strings of the decision: of the arena. */
	void (*check)(struct cel_authorizer *self, struct arena *a, const struct cel_authz_check *c, struct cel_authz_decision *out);
};
/* Value of `authorizer`. */
struct cel_value cel_authorizer_value(struct arena *a, struct cel_authorizer *z);
/* Value of `authorizer.requestResource`; *base is copied. */
struct cel_value cel_resource_check_value(struct arena *a, struct cel_authorizer *z, const struct cel_authz_check *base);

/* ---- compiling ---- */

struct cel_var {
	struct str name; /* may be qualified: "authorizer.requestResource" */
	const struct cel_type *type;
};
struct cel_env {
	const struct cel_var *vars; /* the activation's values stand in this order */
	uint32_t n_vars;
	bool patch_types; /* Object..., JSONPatch, jsonpatch.escapeKey */
	/*
	 * Root of size estimates: paths from any variable are looked up below this type (CRD rules: the type of `self`). NULL: sizes
	 * are unknown, as for policies.
	 */
	const struct cel_type *sizes;
};

struct cel_issue {
	uint32_t line, column; /* from 1, in code points */
	struct str message;
};
struct cel_issues {
	bool instantiation; /* it type-checks, but a constant part of it fails ("int('x')") */
	LIST(struct cel_issue) list;
};

struct cel_program;
/*
 * Parses and checks `source`. True: *out is a program that the caller frees; it keeps a copy of the source and points to the types of
 * the environment, which must outlive it, but not to env or its names. False: *issues says why, in `a`.
 */
bool cel_compile(struct arena *a, const struct cel_env *env, struct str source, struct cel_program **out, struct cel_issues *issues);
void cel_program_free(struct cel_program *p); /* NULL is allowed */
/* Upstream's text of the issues: "ERROR: <input>:1:5: undeclared reference to 'x' (in container '')\n | ...\n | ....^". */
struct str cel_issues_text(struct arena *a, struct str source, const struct cel_issues *issues);
/* Type of the result. */
const struct cel_type *cel_program_type(const struct cel_program *p);
/* The expression refers to variable number i of its environment. */
bool cel_program_uses(const struct cel_program *p, uint32_t i);
/* Somewhere it selects `field` of the variable `ident`: x.f, has(x.f), x.?f. */
bool cel_program_selects(const struct cel_program *p, struct str ident, struct str field);
/* Parsed and checked, estimated cost in cel-go's units; UINT64_MAX where it has no bound. */
struct cel_cost {
	uint64_t min, max;
};
struct cel_cost cel_program_cost(const struct cel_program *p);

/* ---- evaluating ---- */

/*
 * Evaluates with vars[i] as variable i of the environment. Everything new is of the arena. Stops when more than `limit` units are
 * spent (usually CEL_PER_CALL_LIMIT); *cost (NULL-able) is what was spent, by upstream's cost model. The result is of the
 * program's type or CEL_ERROR. Needs at most 64 KiB of stack.
 */
struct cel_value cel_eval(const struct cel_program *p, const struct cel_value *vars, struct arena *a, uint64_t limit, uint64_t *cost);

/* ---- what schemas need of it, too ---- */

/* RE2's syntax on PCRE2, with limits. NULL: *why (a literal). The caller frees it. */
struct cel_regex;
const struct cel_regex *cel_regex_new(struct str pattern, const char **why);
void cel_regex_free(const struct cel_regex *re); /* NULL is allowed */
/* Somewhere in s. *why not NULL: a limit was hit, nobody knows. */
bool cel_regex_matches(const struct cel_regex *re, struct str s, const char **why);
/* Why s is not a URI of a request (Go's url.ParseRequestURI, its text), in `a`, or NULL. */
const char *cel_uri_error(struct arena *a, struct str s);

#endif
