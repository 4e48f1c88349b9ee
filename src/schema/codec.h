/*
 * schema/codec.h: objects to and from JSON, YAML, Kubernetes protobuf and CBOR.
 *
 * One decoder and one encoder a format, driven by descriptors. Encoders never
 * fail on a valid struct (they append to a buf, whose limit may overflow).
 * Decoders never trust input: nesting is limited to 128 levels here (Go's JSON
 * allows 10,000; see docs/architecture.md), sizes to the input's.
 */
#ifndef SKIFF_SCHEMA_CODEC_H
#define SKIFF_SCHEMA_CODEC_H

#include "base/buf.h"
#include "base/error.h"
#include "schema/api.h"

enum media_type {
	MEDIA_JSON,
	MEDIA_YAML,
	MEDIA_PROTOBUF, /* application/vnd.kubernetes.protobuf */
	MEDIA_CBOR,
};

/* What fieldValidation=Strict|Warn reports, in upstream's words and order: `unknown field "spec.x"`, `duplicate field "spec.y"`. */
struct decode_report {
	struct arena *arena;
	LIST(struct str) problems; /* each once, at most 100, as upstream */
	struct str value;          /* object_patch: the patched document (of a JSON or merge patch), which errors show */
};

/*
 * Decodes one object of type t from JSON into out (t->size bytes, zeroed).
 * Strings without escapes point into `in`, which must outlive the arena's use.
 * Field names match exactly: case counts, as in upstream. Of a field given twice the last wins.
 * Errors are 400 BadRequest in upstream's words; syntax errors with line and column, others with the path.
 * A syntax error anywhere wins over a value that does not fit.
 */
struct error *json_decode(struct arena *a, const struct schema_type *t, struct str in, struct decode_report *report, void *out);
/* The same of what a strategic merge or an apply made: integers that do not fit lose their upper bits, as upstream's do
 * there. */
struct error *json_decode_merged(struct arena *a, const struct schema_type *t, struct str in,
				 struct decode_report *report, void *out);
/*
 * Appends obj as compact JSON in Go's field order (members by name when t was made at run time), HTML characters escaped; without the line end
 * upstream's serializer adds.
 */
void json_encode(struct buf *b, const struct schema_type *t, const void *obj);
/* JSON leaves the field out with this value (v points to it, in its struct). */
bool json_omits(const struct schema_field *f, const void *v);
/* YAML 1.1 as sigs.k8s.io/yaml reads it (converted to JSON first); one document. */
struct error *yaml_decode(struct arena *a, const struct schema_type *t, struct str in, struct decode_report *report, void *out);
/* YAML text of one document to JSON text. */
struct error *yaml_to_json(struct str in, struct decode_report *report, struct buf *out);
/* The next document of a multi-document stream ("---"), empty and comment-only ones skipped; false at the end. */
bool yaml_next_document(struct str *rest, struct str *doc);
/* JSON text to YAML text (keys sorted, as kubectl prints). 500 where it has characters that YAML does not have. */
struct error *json_to_yaml(struct str json, struct buf *out);
/* The same as go-yaml's third version writes nodes: of what older versions take for booleans ("on", "N") nothing is quoted. */
struct error *json_to_yaml_nodes(struct str json, struct buf *out);

/* Bare protobuf message. Unknown fields are dropped, as upstream's generated code does. */
struct error *pb_decode(struct arena *a, const struct schema_type *t, struct str in, void *out);
/*
 * JSON of a bare message, byte for byte what pb_decode and json_encode would give but that claim templates (of StatefulSets) say what they are,
 * mostly without making the struct: for answering reads from stored bytes. kind and api_version are those of a top type's object (empty: left out). Errors are
 * pb_decode's; nothing is appended then. JSON that the message holds as text (managed fields) is checked, compacted and escaped. verbatim
 * (may be NULL): whether a call for the same bytes found that this changes nothing; it is copied then. Set for the next call.
 */
struct error *pb_to_json(struct buf *b, const struct schema_type *t, struct str pb, struct str api_version, struct str kind, bool *verbatim);
void pb_encode(struct buf *b, const struct schema_type *t, const void *obj);
size_t pb_size(const struct schema_type *t, const void *obj);
/* The storage and wire envelope: "k8s\0" + runtime.Unknown{typeMeta, raw, contentEncoding, contentType}. */
struct pb_envelope {
	struct str api_version, kind;
	struct str raw;
};
bool pb_is_envelope(struct str in);
struct error *pb_envelope_decode(struct str in, struct pb_envelope *out);
/* Envelope around obj; kind and apiVersion from the arguments. */
void pb_envelope_encode(struct buf *b, struct str api_version, struct str kind, const struct schema_type *t, const void *obj);

/*
 * CBOR (RFC 8949) as upstream's application/cbor: maps with byte/text string keys, self-described tag accepted and
 * written. Repeated keys, numbers beyond int64, NaN and infinities are refused.
 */
struct error *cbor_to_json(struct str in, struct decode_report *report, struct buf *out);
struct error *json_to_cbor(struct str json, struct buf *out);

/* Any of them by media type; sets kind and apiVersion of top types from the envelope for protobuf. */
struct error *object_decode(struct arena *a, enum media_type m, const struct schema_type *t, struct str in,
			    struct decode_report *report, void *out);
void object_encode(struct buf *b, enum media_type m, const struct schema_type *t, const void *obj);
/*
 * kind and apiVersion of a top-level object in any format, without decoding the rest. Of several of one name the last
 * counts; any_case: "Kind" is one, too, as to Go's encoding/json.
 */
struct error *object_peek(struct arena *a, enum media_type m, struct str in, bool any_case, struct str *api_version,
			  struct str *kind);

/* What stored bytes are: protobuf, JSON or YAML. */
enum media_type media_recognize(struct str stored);

/* Deep equality (equality.Semantic.DeepEqual: nil and empty lists are equal, quantities by value). */
bool object_equal(const struct schema_type *t, const void *a, const void *b);
/* The same, but empty bytes and absent ones differ: what is stored of the two does. */
bool object_stored_equal(const struct schema_type *t, const void *a, const void *b);
/* The same, but an empty list or map and an absent one differ as well (Go's reflect.DeepEqual). */
bool object_identical(const struct schema_type *t, const void *a, const void *b);
/* Deep copy into the arena. */
void object_copy(struct arena *a, const struct schema_type *t, const void *from, void *to);

/* metadata of a top-level object (t->metadata >= 0). */
struct meta_v1_object_meta *object_meta(const struct schema_type *t, void *obj);
struct meta_v1_list_meta *list_meta(const struct schema_type *t, void *list);
/* items of a list type as (array, count, element type); element i at (char *)*items + i * (*elem)->size. */
void list_items(const struct schema_type *t, void *list, void **items, size_t *n, const struct schema_type **elem);

/* Text forms of values. */
bool time_parse(struct str s, struct api_time *out);                     /* RFC 3339, any fraction */
bool time_parse_micro(struct str s, struct api_time *out);               /* with six digits of it: MicroTime's JSON */
struct str time_format(struct arena *a, struct api_time t, bool micro);   /* "2006-01-02T15:04:05Z" or with .000000 */
bool duration_parse(struct str s, int64_t *ns);                           /* Go's ParseDuration */
struct str duration_format(struct arena *a, int64_t ns);                  /* "1m30s" */
void base64_encode(struct buf *b, struct str bytes);                      /* standard, padded */
bool base64_decode(struct arena *a, struct str text, struct str *out);

#endif
