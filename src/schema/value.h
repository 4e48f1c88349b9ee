/*
 * schema/value.h: how API values lie in the generated C structs (schema/api.h).
 *
 *   string, enum     struct str                    bytes          struct str (p == NULL: nil)
 *   bool             bool                          double         double
 *   int32..uint64    int32_t ...                   Quantity       struct str, canonical text ("" is 0)
 *   IntOrString      struct int_or_string          Duration       int64_t nanoseconds
 *   Time, MicroTime  struct api_time               FieldsV1, JSON, Any, RawExtension   struct str: raw JSON, "" is null
 *   ?T  (pointer)    T *, NULL when absent         []T            LIST(T)
 *   message          the struct itself             map T          LIST(struct { struct str key; T value; }), sorted by key when decoded or encoded
 *   ExtraValue       struct strings
 *
 * All memory is an arena's; decoded strings may point into the decoded input,
 * which must then live as long as the arena. A zeroed struct is Go's zero value.
 */
#ifndef SKIFF_SCHEMA_VALUE_H
#define SKIFF_SCHEMA_VALUE_H

#include "base/arena.h"

struct api_time { /* metav1.Time (seconds), metav1.MicroTime (microseconds); UTC */
	int64_t s;  /* since 1970 */
	int32_t ns; /* 0..999999999 */
	bool set;   /* false: Go's zero time, JSON null */
};

struct int_or_string {
	bool is_str;
	int32_t i;
	struct str s;
};

struct strings {
	struct str *v;
	uint32_t n, cap; /* as LIST(struct str) */
};

struct str_pair { /* element of map string, map bytes, map Quantity */
	struct str key, value;
};
struct time_pair {
	struct str key;
	struct api_time value;
};
struct strings_pair {
	struct str key;
	struct strings value;
};
struct str_map { /* every `map string`, `map bytes`, `map Quantity` field is laid out as this and may be cast to it */
	struct str_pair *v;
	uint32_t n, cap;
};

/* Value of key in a sorted or unsorted map; STR_NULL (p == NULL) when absent. */
struct str str_map_get(const struct str_map *m, struct str key);
bool str_map_has(const struct str_map *m, struct str key);
/* Sets or replaces, keeps order sorted; key and value are not copied. */
void str_map_set(struct arena *a, struct str_map *m, struct str key, struct str value);
void str_map_del(struct str_map *m, struct str key);
/* For generated fields: API_MAP(&obj->metadata.labels). */
#define API_MAP(field) ((struct str_map *)(void *)(field))

#endif
