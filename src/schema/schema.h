/*
 * schema/schema.h: descriptors: the Kubernetes types as tables.
 *
 * Tables come from api/ (the generator tools/apigen.py) or, for custom resources, are made
 * at run time. Everything done with objects (codecs, defaults, patches,
 * validation, printing, OpenAPI) is one engine over these tables; no room
 * writes code per type for it. A table is immutable once published.
 */
#ifndef SKIFF_SCHEMA_SCHEMA_H
#define SKIFF_SCHEMA_SCHEMA_H

#include "schema/value.h"

enum field_kind {
	FIELD_STRING,
	FIELD_BOOL,
	FIELD_INT32,
	FIELD_INT64,
	FIELD_UINT32,
	FIELD_UINT64,
	FIELD_DOUBLE,
	FIELD_BYTES,     /* JSON: base64 */
	FIELD_QUANTITY,  /* proto: message {1: string} */
	FIELD_INTSTR,    /* proto: message {1: type, 2: int32, 3: string} */
	FIELD_TIME,      /* proto: message {1: seconds, 2: nanos}, JSON RFC 3339 seconds */
	FIELD_MICROTIME, /* same, JSON with 6 digits */
	FIELD_DURATION,  /* proto: message {1: int64 ns}, JSON "1h0m0s" */
	FIELD_RAW,       /* RawExtension: proto {1: bytes}; JSON inline */
	FIELD_FIELDSV1,  /* proto {1: bytes}; JSON inline */
	FIELD_JSON,      /* apiextensions JSON: proto {1: bytes}; JSON inline */
	FIELD_ANY,       /* JSON only: any value */
	FIELD_STRINGS,   /* ExtraValue, Verbs: proto message {repeated 1: string}; JSON array of strings */
	FIELD_MESSAGE,
};

enum field_card {
	CARD_ONE,  /* by value */
	CARD_PTR,  /* optional: pointer to value */
	CARD_LIST, /* LIST(value) */
	CARD_MAP,  /* LIST({struct str key; value}) */
};

enum {
	FIELD_OMITEMPTY = 1 << 0, /* JSON: left out when the Go zero value / empty */
	FIELD_REQUIRED = 1 << 1,  /* OpenAPI's "required" */
	FIELD_INLINE = 1 << 2,    /* Go embedding: in JSON the members stand in the parent, in protobuf nested */
	FIELD_NOJSON = 1 << 3,
	FIELD_ATOMIC = 1 << 4,    /* structType/mapType=atomic at the field (server-side apply) */
	FIELD_LIST_SET = 1 << 5,  /* listType=set */
	FIELD_LIST_MAP = 1 << 6,  /* listType=map; keys in info */
	FIELD_LIST_ATOMIC = 1 << 7,
	FIELD_PATCH_MERGE = 1 << 8,  /* patchStrategy has "merge" */
	FIELD_PATCH_RETAIN = 1 << 9, /* patchStrategy has "retainKeys" */
	FIELD_OMITZERO = 1 << 10,
	FIELD_GRANULAR = 1 << 12, /* structType/mapType=granular at the field, over an atomic type */
	FIELD_PATCH_REPLACE = 1 << 13, /* patchStrategy is "replace" */
	FIELD_REST = 1 << 14, /* JSON: the last field of its type, a map of FIELD_ANY: members that no other field takes */
	FIELD_TYPEMETA = 1 << 11, /* kind or apiVersion of an inlined TypeMeta: not in protobuf */
};

struct schema_type;

struct schema_enum {
	const char *name;           /* Go name, e.g. "RestartPolicy" */
	const struct str *values;
	uint32_t n;
	bool closed;                /* no other value is allowed */
};

enum schema_fill { /* what defaulting sets when the field is absent (Go's zero value) */
	SCHEMA_FILL_NONE,
	SCHEMA_FILL_INT, /* numbers, booleans, IntOrString */
	SCHEMA_FILL_STR, /* strings, IntOrString */
	SCHEMA_FILL_EMPTY, /* an empty message */
};

enum schema_rule {
	RULE_MUST = 1,      /* "Required value" when empty: "", absent, no elements */
	RULE_POSITIVE = 2,  /* greater than zero */
	RULE_IMMUTABLE = 4, /* an update may not change it */
	RULE_MIN = 8,
	RULE_MAX = 16,
	RULE_OFF = 32,      /* its feature is off: dropped unless the stored object has it */
};

enum schema_format { /* docs/api-idl.md: format= */
	FORMAT_NONE,
	FORMAT_DNS_LABEL,
	FORMAT_DNS_SUBDOMAIN,
	FORMAT_DNS1035_LABEL,
	FORMAT_QUALIFIED_NAME,
	FORMAT_LABEL_VALUE,
	FORMAT_CONFIG_KEY,
	FORMAT_PORT_NAME,
	FORMAT_ENV_NAME,
	FORMAT_IP,
	FORMAT_CIDR,
	FORMAT_NO_BACKSTEPS,
	FORMAT_DESCENDING_PATH,
	FORMAT_PATH_SEGMENT,
	FORMAT_ID, /* of users and groups: 0 to 2^31 - 1; integers */
};

struct schema_field_info { /* the cold part */
	struct str patch_key;       /* patchMergeKey, may be empty */
	const struct str *list_keys;/* listMapKeys */
	uint8_t n_list_keys;
	const char *default_json;   /* +default marker as JSON, or NULL */
	const struct schema_enum *enum_; /* or NULL */
	int32_t min_length, max_length; /* -1: none */
	const char *gate;           /* feature gate, or NULL */
	uint8_t fill;               /* enum schema_fill: fill= or default= */
	int64_t fill_int;
	struct str fill_str;
	uint8_t rules;              /* enum schema_rule, of validation */
	uint8_t format;             /* enum schema_format, of strings that are not empty */
	int32_t max_items;          /* -1: none */
	int64_t min, max;           /* with RULE_MIN, RULE_MAX */
};

struct schema_field {
	struct str name;            /* JSON name */
	uint16_t number;            /* protobuf field number; 0: not in protobuf */
	uint16_t flags;
	uint8_t kind, card;
	uint16_t elem_size;         /* bytes of one list/map element (map: with its key) */
	uint32_t offset;            /* in the struct that holds this table entry */
	uint16_t value_offset;      /* of the value in a map element */
	const struct schema_type *type; /* FIELD_MESSAGE */
	const struct schema_field_info *info; /* never NULL */
	const char *json_key;       /* `"name":` in an array of 32, 48.. bytes; NULL in tables made at run time */
};

enum schema_union { /* types whose JSON form is not an object */
	SCHEMA_OBJECT,
	SCHEMA_OR_ARRAY,        /* JSONSchemaPropsOrArray */
	SCHEMA_OR_BOOL,         /* JSONSchemaPropsOrBool */
	SCHEMA_OR_STRING_ARRAY, /* JSONSchemaPropsOrStringArray */
};

struct schema_union_member {
	const char *field;  /* JSON name */
	const char *go;     /* discriminator value */
};

struct schema_wire {
	uint8_t json; /* index in fields (of the first member, when inlined); 255: unknown or not in JSON */
	uint8_t kind, card;
	uint8_t flags; /* 1: omitempty, 2: inlined */
};

struct schema_type {
	const char *name;           /* "PodSpec" */
	const char *openapi;        /* "io.k8s.api.core.v1.PodSpec" or "" */
	struct str group, version;  /* of the type */
	/* JSON view: inlined members flattened, Go's encoding order. Offsets are from this struct's start. */
	const struct schema_field *fields;
	uint16_t n_fields;
	/* Protobuf view: in order of number; an inlined struct is one message field. Same array when nothing is inlined. */
	const struct schema_field *pfields;
	uint16_t n_pfields;
	uint32_t size;              /* sizeof the C struct */
	bool atomic;                /* structType=atomic on the type */
	uint8_t json;               /* enum schema_union */
	int32_t metadata;           /* offset of metadata (ObjectMeta, or ListMeta for lists), -1 */
	bool top;                   /* has TypeMeta: kind and apiVersion first, two struct str at offset 0 and 16 (kind, api_version) */
	const char *discriminator;  /* union, or NULL */
	const struct schema_union_member *union_members;
	uint8_t n_union_members;
	/* pindex[number] is 1 + the index in pfields, 0 for unknown; NULL in types made at run time (looked for one by one then). */
	const uint8_t *pindex;
	uint16_t n_pindex;
	/*
	 * For pb_to_json: wire[number] (of n_pindex) says how to read a field in one look; json_always has the bits of fields that
	 * JSON has even when protobuf has not. NULL with over 64 fields or at run time.
	 */
	const struct schema_wire *wire;
	uint64_t json_always;
	bool has_defaults;          /* defaulting may change something in it or below it */
	bool drops;                 /* it or something below it has a field of a feature that is off (RULE_OFF) */
	void (*defaults)(struct arena *a, void *obj); /* its conditional defaults, or NULL */
	/*
	 * For `kubectl explain`, or NULL: what the type is, then what each of `fields` is, one string behind the other;
	 * "": not described.
	 */
	const char *docs;
	/*
	 * Of types that custom resources have: indexes in fields by name, without FIELD_REST's. An object of a table made at run time is a map
	 * to upstream, whose JSON has the members of every object in that order. Else NULL.
	 */
	const uint16_t *by_name;
};

/* Field by JSON name in the flattened view; NULL when unknown. O(n), length first. */
const struct schema_field *schema_field(const struct schema_type *t, struct str name);
/* JSON of what a field is when it is absent: its default, or the zero that Go always writes; NULL: nothing. Upstream's schemas say so. */
const char *schema_absent_value(const struct schema_field *f);
/* Bytes of the field in its struct. */
size_t schema_field_size(const struct schema_field *f);

enum { /* struct api_resource.verbs */
	VERB_CREATE = 1 << 0,
	VERB_DELETE = 1 << 1,
	VERB_DELETECOLLECTION = 1 << 2,
	VERB_GET = 1 << 3,
	VERB_LIST = 1 << 4,
	VERB_PATCH = 1 << 5,
	VERB_UPDATE = 1 << 6,
	VERB_WATCH = 1 << 7,
};

struct api_subresource {
	struct str name;            /* "status" */
	struct str kind;            /* response kind */
	struct str group, version;  /* response kind's, both empty: the resource's own */
	uint16_t verbs;
};

struct buf;
struct table_cell;
struct api_column { /* of server-side printing (schema/table.h) */
	const char *name;     /* "Ready" */
	const char *type;     /* "string", "integer", "boolean" */
	uint8_t priority;     /* 1: only with -o wide */
	bool named;           /* its format is "name" */
	bool bare;            /* a cell without a definition: printed by nobody, but upstream sends it */
	struct str path;      /* "spec.replicas", or empty with .cell */
	const char *absent;   /* shown when there is no value */
	void (*cell)(struct buf *b, const struct table_cell *c); /* writes the cell as JSON */
};

struct api_resource {
	struct str group, version, plural, singular, kind, list_kind;
	bool namespaced;
	uint16_t verbs;
	const struct str *short_names;
	uint8_t n_short_names;
	const struct str *categories;
	uint8_t n_categories;
	const struct api_subresource *subresources;
	uint8_t n_subresources;
	const struct schema_type *type;      /* of one object */
	const struct schema_type *list_type; /* NULL where there is none */
	const struct api_column *columns;    /* NULL: name and creation time */
	uint8_t n_columns;
};

/* Every built-in resource, in group order of discovery; made by the generator. */
extern const struct api_resource *const api_resources[];
extern const size_t n_api_resources;
/* Every top-level type (with TypeMeta). */
extern const struct schema_type *const api_types[];
extern const size_t n_api_types;

/* By group, version and plural; NULL when there is none. */
const struct api_resource *api_resource_find(struct str group, struct str version, struct str plural);
/* By group, version and kind. */
const struct api_resource *api_resource_for_kind(struct str group, struct str version, struct str kind);
/* Top-level type by group, version, kind ("" group is core). meta.k8s.io/v1 types (Status, DeleteOptions...) are found in any group. */
const struct schema_type *schema_type_for_kind(struct str group, struct str version, struct str kind);
/* "apps/v1" -> group "apps", version "v1"; "v1" -> "", "v1". */
void api_version_split(struct str api_version, struct str *group, struct str *version);

#endif
