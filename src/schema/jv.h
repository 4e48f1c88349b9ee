/*
 * schema/jv.h: JSON documents as trees in an arena: what patches, server-side
 * apply and custom resources work on. A node is 16 bytes, a member 32; strings
 * without escapes point into the parsed text, which must live as long as the
 * tree. Reading never changes a tree, so a finished one may be read by many
 * threads. Not for typed objects on the fast path: see schema/codec.h.
 */
#ifndef SKIFF_SCHEMA_JV_H
#define SKIFF_SCHEMA_JV_H

#include "base/buf.h"
#include "schema/codec.h"

#define JV_MAX_DEPTH 128 /* nested arrays and objects */

enum jv_kind { /* zeroed memory is null */
	JV_NULL,
	JV_BOOL,
	JV_INT,    /* a number without fraction or exponent that fits int64 */
	JV_DOUBLE, /* any other number */
	JV_STRING,
	JV_ARRAY,
	JV_OBJECT,
};

struct jv_member;
struct jv {
	uint8_t kind;
	bool b;     /* JV_BOOL */
	uint32_t n; /* JV_STRING: bytes; JV_ARRAY, JV_OBJECT: elements */
	union {
		int64_t i;
		double d;
		const char *p;            /* JV_STRING */
		struct jv *items;         /* JV_ARRAY: n of them; NULL when empty */
		struct jv_member *members;/* JV_OBJECT: n of them in order; NULL when empty */
	};
};

struct jv_member {
	struct str key;
	struct jv value;
};

#define JV_NULL_VALUE ((struct jv){0})
static inline struct jv jv_bool(bool b)
{
	return (struct jv){.kind = JV_BOOL, .b = b};
}
static inline struct jv jv_int(int64_t i)
{
	return (struct jv){.kind = JV_INT, .i = i};
}
static inline struct jv jv_double(double d)
{
	return (struct jv){.kind = JV_DOUBLE, .d = d};
}
/* The bytes are not copied. */
static inline struct jv jv_string(struct str s)
{
	return (struct jv){.kind = JV_STRING, .n = (uint32_t)s.n, .p = s.n ? s.p : ""};
}
static inline struct jv jv_array(void)
{
	return (struct jv){.kind = JV_ARRAY};
}
static inline struct jv jv_object(void)
{
	return (struct jv){.kind = JV_OBJECT};
}
/* A string's bytes; STR_NULL for NULL and for every other kind. */
static inline struct str jv_str(const struct jv *v)
{
	return v && v->kind == JV_STRING ? str_of(v->p, v->n) : STR_NULL;
}
static inline bool jv_is(const struct jv *v, enum jv_kind k)
{
	return v && v->kind == k;
}

/*
 * Parses one JSON text (RFC 8259, nothing behind it but white space). Of
 * duplicate members the last wins, as in Go; each is reported as
 * `duplicate field "spec.x"`. Invalid UTF-8 becomes U+FFFD, as in Go. Errors
 * are 400 BadRequest in Go's words with the byte offset ("invalid character
 * 'x' looking for beginning of value at offset 7").
 */
struct error *jv_parse(struct arena *a, struct str text, struct decode_report *report, struct jv *out);
/* Compact JSON in the order of members, strings escaped as encoding/json does, HTML characters too. */
void jv_encode(struct buf *b, const struct jv *v);
/* As jv_encode, members of every object in bytewise order: Go's form of maps. */
void jv_encode_sorted(struct buf *b, const struct jv *v);
/* As jv_encode; numbers that are no integers by how they were written ("1.0", "1e2") stay so. */
void jv_encode_floats(struct buf *b, const struct jv *v);
/* Both: members in order, numbers as they were written. */
void jv_encode_exact(struct buf *b, const struct jv *v);
/* One JSON string with quotes. */
void jv_encode_string(struct buf *b, struct str s);

/* Member of an object; NULL when absent or when o is NULL or not an object. O(1) for large objects. */
struct jv *jv_get(const struct jv *o, struct str key);
/* jv_get along a NULL-terminated run of names: jv_at(doc, "metadata", "labels", NULL). */
struct jv *jv_at(const struct jv *o, ...) __attribute__((sentinel));
/* The same along "spec.template.spec" or "spec.ports[0].name" (names with dots cannot be named). */
struct jv *jv_path(const struct jv *o, struct str path);
/* Sets or adds a member (key and value are not copied); returns its value. o must be an object. */
struct jv *jv_set(struct arena *a, struct jv *o, struct str key, struct jv value);
/* jv_get, or an added empty object when absent or not an object. */
struct jv *jv_sub(struct arena *a, struct jv *o, struct str key);
/* Removes a member; false when absent. Objects over 24 members do not keep their order then. */
bool jv_del(struct jv *o, struct str key);
/* Array: append, insert before i (0..n), remove i (0..n-1). */
struct jv *jv_push(struct arena *a, struct jv *array, struct jv value);
struct jv *jv_insert(struct arena *a, struct jv *array, uint32_t i, struct jv value);
void jv_remove(struct jv *array, uint32_t i);

/* Deep equality: members in any order, 1 == 1.0. */
bool jv_equal(const struct jv *a, const struct jv *b);
/* The same for values that are equal. */
uint64_t jv_hash(const struct jv *v);
/* A total order over values: null, false, true, numbers, strings, arrays, objects. */
int jv_cmp(const struct jv *a, const struct jv *b);
/* Deep copy of the tree; string bytes are shared. */
struct jv jv_copy(struct arena *a, const struct jv *v);
/* Deep copy of the tree and of its string bytes. */
struct jv jv_copy_all(struct arena *a, const struct jv *v);

/* Between trees and typed objects, through JSON bytes. from never fails on a valid struct. */
void jv_from_object(struct arena *a, const struct schema_type *t, const void *obj, struct jv *out);
struct error *jv_to_object(struct arena *a, const struct schema_type *t, const struct jv *v, struct decode_report *report,
			   void *out);

#endif
