/*
 * schema/validate.h: field errors in upstream's form, generic validation over
 * the tables, and the validators of names. Rules of one kind are the API server's.
 */
#ifndef SKIFF_SCHEMA_VALIDATE_H
#define SKIFF_SCHEMA_VALIDATE_H

#include "base/error.h"
#include "schema/api.h"

/* ---- paths: spec.containers[0].env[key] ---- */
struct field_path { /* on the stack, a child points to its parent */
	const struct field_path *parent;
	struct str name;  /* member, or key of a map when `key` */
	int32_t index;    /* >= 0: element */
	bool key;
};
#define FIELD_ROOT(lit) (&(struct field_path){NULL, STR_INIT(lit), -1, false})
#define FIELD_CHILD(parent, lit) (&(struct field_path){(parent), STR_INIT(lit), -1, false})
#define FIELD_CHILD_S(parent, s) (&(struct field_path){(parent), (s), -1, false})
#define FIELD_INDEX(parent, i) (&(struct field_path){(parent), {NULL, 0}, (int32_t)(i), false})
#define FIELD_KEY(parent, s) (&(struct field_path){(parent), (s), -1, true})
struct str field_path_format(struct arena *a, const struct field_path *p);

/* ---- field.ErrorList ---- */
enum field_error_type {
	FIELD_ERROR_REQUIRED,      /* "Required value" */
	FIELD_ERROR_INVALID,       /* "Invalid value" */
	FIELD_ERROR_NOT_SUPPORTED, /* "Unsupported value" */
	FIELD_ERROR_DUPLICATE,     /* "Duplicate value" */
	FIELD_ERROR_FORBIDDEN,     /* "Forbidden" */
	FIELD_ERROR_NOT_FOUND,     /* "Not found" */
	FIELD_ERROR_TOO_LONG,      /* "Too long" */
	FIELD_ERROR_TOO_MANY,      /* "Too many" */
	FIELD_ERROR_INTERNAL,      /* "Internal error" */
	FIELD_ERROR_TYPE_INVALID,  /* "Invalid value", reason FieldValueTypeInvalid */
	FIELD_ERROR_TOO_SHORT,     /* "Too short" */
};
struct field_error {
	enum field_error_type type;
	struct str field;  /* formatted path */
	struct str body;   /* as upstream prints it: `Invalid value: "x": must be ...` */
};
#define FIELD_ERRORS_MAX 1000
struct field_errors { /* zero with .arena set */
	struct arena *arena;
	bool once; /* tables and hooks both look: what is found twice is said once */
	LIST(struct field_error) list; /* at most FIELD_ERRORS_MAX */
};
void field_required(struct field_errors *e, const struct field_path *p, const char *detail);
/* value is a string, printed quoted; the _int form prints a number; the _raw form prints text as it is. */
void field_invalid(struct field_errors *e, const struct field_path *p, struct str value, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
void field_invalid_int(struct field_errors *e, const struct field_path *p, int64_t value, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
void field_invalid_raw(struct field_errors *e, const struct field_path *p, struct str value, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* The value is a struct of `t` (NULL: null), printed as JSON; a list of strings; a map of strings. */
void field_invalid_obj(struct field_errors *e, const struct field_path *p, const struct schema_type *t, const void *v, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));
void field_invalid_list(struct field_errors *e, const struct field_path *p, const struct strings *v, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
void field_invalid_map(struct field_errors *e, const struct field_path *p, const struct str_map *v, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* No value is printed (upstream's OmitValueType). */
void field_invalid_omitted(struct field_errors *e, const struct field_path *p, const char *detail);
/* One error a message of a validator below: check(value) joins several with "; ". Returns whether there was one. */
bool field_check(struct field_errors *e, const struct field_path *p, struct str value, const char *(*check)(struct arena *a, struct str s));
void field_internal(struct field_errors *e, const struct field_path *p, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* `valid`: the values, separated by commas, in the order they are printed in. field_one_of adds an error unless value is one of them. */
void field_unsupported(struct field_errors *e, const struct field_path *p, struct str value, const char *valid);
bool field_one_of(struct field_errors *e, const struct field_path *p, struct str value, const char *valid);
void field_not_supported(struct field_errors *e, const struct field_path *p, struct str value, const struct str *valid,
			 size_t n_valid);
/* The value as it is to be printed. */
void field_not_supported_raw(struct field_errors *e, const struct field_path *p, struct str value, const struct str *valid, size_t n_valid);
void field_duplicate(struct field_errors *e, const struct field_path *p, struct str value);
void field_duplicate_int(struct field_errors *e, const struct field_path *p, int64_t value);
void field_duplicate_raw(struct field_errors *e, const struct field_path *p, struct str value, const char *detail);
void field_forbidden(struct field_errors *e, const struct field_path *p, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void field_not_found(struct field_errors *e, const struct field_path *p, struct str value);
void field_not_found_detail(struct field_errors *e, const struct field_path *p, struct str value, const char *detail);
void field_too_long(struct field_errors *e, const struct field_path *p, int max_bytes);
/* The same counted in characters, and its opposite. */
void field_too_long_characters(struct field_errors *e, const struct field_path *p, int max);
void field_too_short(struct field_errors *e, const struct field_path *p, struct str value, int min);
void field_too_many(struct field_errors *e, const struct field_path *p, int64_t actual, int64_t max);
/* 422 Invalid: `Pod "x" is invalid: spec.containers[0].name: Required value` with details and causes; NULL for an empty list. */
struct error *field_errors_status(const struct field_errors *e, struct str group, struct str kind, struct str name);

/* ---- generic validation over the tables ---- */
/*
 * Required strings and pointers, closed enums, lengths; recursive. metadata and
 * status are not looked at: the one has rules of its own, the other is written
 * by components. Paths start at `at` (NULL: the object).
 */
void validate_object(struct field_errors *e, const struct schema_type *t, const void *obj, const struct field_path *at);
/*
 * The rules of the tables only (must, format, min, max, maxItems, maxLength, closed enums; docs/api-idl.md), without what OpenAPI
 * calls required: for kinds whose hooks make their own checks and leave parts to the tables.
 */
void validate_rules(struct field_errors *e, const struct schema_type *t, const void *obj, const struct field_path *at);
/* Fields that are immutable in the tables, down through structs that both have: "field is immutable". */
void validate_immutable(struct field_errors *e, const struct schema_type *t, const void *obj, const void *old, const struct field_path *at);
/* Empties the fields of features that are off, but those that `old` (NULL: create) has, wherever it has them. */
void drop_disabled_fields(const struct schema_type *t, void *obj, const void *old);
/* JSON of one field's value, null when absent. */
struct str field_json(struct arena *a, const struct schema_type *t, const void *obj, struct str name);

/*
 * ---- names: NULL when valid, else upstream's message (static or in the arena) ----
 */
const char *validate_dns1123_label(struct arena *a, struct str s);
const char *validate_dns1123_subdomain(struct arena *a, struct str s);
const char *validate_dns1123_subdomain_underscore(struct arena *a, struct str s);
const char *validate_dns1035_label(struct arena *a, struct str s);
const char *validate_wildcard_dns1123_subdomain(struct arena *a, struct str s);
const char *validate_qualified_name(struct arena *a, struct str s); /* label keys, resource names */
const char *validate_label_value(struct arena *a, struct str s);
const char *validate_c_identifier(struct arena *a, struct str s);
const char *validate_env_var_name(struct arena *a, struct str s);
const char *validate_config_map_key(struct arena *a, struct str s);
const char *validate_port_name(struct arena *a, struct str s);   /* IANA_SVC_NAME */
const char *validate_port_number(struct arena *a, int64_t port); /* 1..65535 */
const char *validate_ip(struct arena *a, struct str s);
const char *validate_ipv4(struct arena *a, struct str s);
const char *validate_ipv6(struct arena *a, struct str s);
const char *validate_cidr(struct arena *a, struct str s);
bool cidr_parses(struct str s); /* whatever else is wrong with it */
/* The same in the one form Go prints. */
const char *validate_ip_canonical(struct arena *a, struct str s);
const char *validate_cidr_canonical(struct arena *a, struct str s);
/* An address with the length of its network's prefix, in canonical form. */
const char *validate_interface_address(struct arena *a, struct str s);
/* 4, 6 (IPv4-mapped is 4), or 0 for what is no address; leading zeros are read as decimal. */
int ip_family(struct str s);
/* As Go prints them; STR_NULL for what cannot be read. */
struct str ip_canonical(struct arena *a, struct str s);
struct str cidr_canonical(struct arena *a, struct str s);
/* Whether the one range is in the other and smaller; false for what cannot be read. */
bool cidr_within(struct str inner, struct str outer);
enum ip_scope { IP_INVALID, IP_GLOBAL, IP_UNSPECIFIED, IP_LOOPBACK, IP_LINK_LOCAL, IP_LINK_LOCAL_MULTICAST };
enum ip_scope ip_scope(struct str s);
const char *validate_no_backsteps(struct arena *a, struct str s);
const char *validate_descending_path(struct arena *a, struct str s); /* relative, no ".." */
const char *validate_http_header_name(struct arena *a, struct str s);
const char *validate_percent(struct arena *a, struct str s); /* "10%" */
const char *validate_path_segment(struct arena *a, struct str s); /* names of e.g. RBAC objects */
/* Maps of labels / annotations at a path (annotations: qualified keys, at most 256 KiB in all). */
void validate_labels(struct field_errors *e, const struct str_map *labels, const struct field_path *at);
void validate_annotations(struct field_errors *e, const struct str_map *annotations, const struct field_path *at);
void validate_label_selector(struct field_errors *e, const struct meta_v1_label_selector *s, const struct field_path *at);
/* The same; `lax`: values of labels are not looked at. */
void validate_label_selector_lax(struct field_errors *e, const struct meta_v1_label_selector *s, const struct field_path *at, bool lax);

#endif
