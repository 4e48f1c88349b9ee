/*
 * apiserver/custom.h: custom resources: what a CustomResourceDefinition
 * becomes at run time. An object is a struct of a table made for its version:
 * kind, apiVersion, metadata typed, every other member raw JSON; its schema is
 * walked over trees.
 */
#ifndef SKIFF_APISERVER_CUSTOM_H
#define SKIFF_APISERVER_CUSTOM_H

#include "apiserver/server.h"
#include "schema/managed_fields.h"
#include "schema/table.h"

struct error *crds_init(struct apiserver *s);
/* Follows the CustomResourceDefinitions in the cache: names accepted, established, served. */
void crds_sync(struct apiserver *s);
/* Kubernetes' order of versions, best first: v2 before v1, GA before beta before alpha, then the odd ones by name. */
int kube_version_cmp(struct str a, struct str b);
/* Served versions in discovery order; index i, NULL behind the last. */
struct resource *crd_resource_at(struct apiserver *s, size_t i);
struct resource *crd_find(struct apiserver *s, struct str group, struct str version, struct str plural);
/*
 * What the tables give out lives as long as the request that asked (grace.h). Who lasts longer holds the definition's state, and
 * lets it go. crd_current: the state has not been replaced since.
 */
struct crd;
void crd_hold(struct crd *c);
void crd_release(struct crd *c);
bool crd_current(const struct resource *res);
const struct apiextensions_v1_custom_resource_definition *crd_object(const struct resource *res);
/* NULL: none. It lives as long as the request that asked. crd_schema_bytes: as protobuf. */
const struct apiextensions_v1_json_schema_props *crd_schema(const struct resource *res);
struct str crd_schema_bytes(const struct resource *res);
const struct apiextensions_v1_custom_resource_definition_version *crd_version(const struct resource *res);

struct shape custom_shape(const struct resource *res);
void custom_reset_fields(const struct resource *res, const char *sub, struct managed_fields_request *mr);
bool custom_has_status(const struct resource *res);
/* The warning of a version that its CustomResourceDefinition calls deprecated. */
void custom_warn_deprecated(struct request *rq);
/* The value at ".a.b" of an object; *wrong: something on the way is no object (null has nothing). */
const struct jv *custom_at_path(const struct jv *v, struct str path, bool *wrong);
/* "spec.replicas"-like paths of the scale subresource, or NULL. */
const struct apiextensions_v1_custom_resource_subresource_scale *custom_scale(const struct resource *res);
/* The cached bytes are in this version and have its defaults: they can be written out as they are. */
bool custom_bytes_fit(const struct resource *res, const struct cache_entry *e);
/*
 * What was stored, in the version that it is stored in: without what its schema does not know (any more), with the defaults that were not
 * stored, without members of metadata that are none. copy: as cache_entry_decode. custom_read: the same converted to the request's version.
 */
struct error *custom_decode(struct arena *a, const struct resource *res, const struct cache_entry *e, bool copy, void **obj);
struct error *custom_read(struct arena *a, const struct resource *res, const struct cache_entry *e, bool copy, void **obj);
/*
 * *obj (a struct of the type, with its apiVersion) to another version; a webhook is asked where the definition names one: once for all
 * objects that are in another version (a review holds 4 MiB of them, or one). custom_asks_webhook: whether there is one.
 */
struct error *custom_convert(struct arena *a, const struct resource *res, void **obj, struct str api_version);
struct error *custom_convert_all(struct arena *a, const struct resource *res, void **objs, size_t n, struct str api_version);
/*
 * *obj as it is to be stored: converted, with nothing that reading it would put in. *unlike: that would change it; it is to be written by
 * custom_encode_unlike then, so that it is not taken for what can be written out as it is.
 */
struct error *custom_to_storage(struct arena *a, const struct resource *res, void **obj, bool *unlike);
void custom_encode_unlike(struct buf *b, const struct storage *st, const void *obj);
/* Reading the entry in res's version gives what is stored: nothing that no reader sees, no default that is not stored, no other version. */
bool custom_reads_as_stored(const struct resource *res, const struct cache_entry *e);
/* Whether JSON made for the store says what is stored. */
struct error *custom_stored_alike(struct arena *a, const struct cache_entry *e, struct str text, bool *alike);
/* What bytes that are not stored (a dry run) would be read as. */
struct error *custom_as_stored(struct arena *a, const struct resource *res, struct str bytes, void **obj);
/* As json_encode; whole numbers are written as integers, as upstream writes both kinds. */
void custom_encode(struct arena *a, struct buf *b, const struct schema_type *t, const void *obj);
bool custom_asks_webhook(const struct resource *res);
/* struct managed_fields_request's `convert`, ctx: the resource. Nothing is pruned: what a version does not know is the caller's to see. */
struct error *custom_convert_tree(void *ctx, struct arena *a, const struct jv *obj, struct str api_version, struct jv *out, struct shape *shape);
bool custom_is_storage_version(const struct resource *res);
/*
 * Removes what the schema does not know, in place; each goes to the report (NULL-able) as `unknown field "spec.x"`. An
 * embedded resource whose type or metadata cannot be read is an error without a status.
 */
struct error *custom_prune(struct arena *a, const struct resource *res, void *obj, struct decode_report *report);
/* Defaults of the structural schema, in place. */
struct error *custom_default(struct arena *a, const struct resource *res, void *obj);
/* Pruning, then defaults, in place. Not of what an apply made: that is pruned when it is read, or stored in another version. */
struct error *custom_default_and_prune(struct request *rq, void *obj);
/* crd_schema.c: the same over trees. `path` is "" for the whole object. */
void schema_prune(struct arena *a, const struct apiextensions_v1_json_schema_props *p, struct jv *v, bool resource, struct str path,
		  struct decode_report *report);
/* Takes out nulls of members that may be none and have no default: in what is sent and read, not in what an apply merged. */
void schema_drop_nulls(const struct apiextensions_v1_json_schema_props *p, struct jv *v);
/*
 * What is decoded of a built-in resource: apiVersion and kind of embedded resources are strings, their metadata has
 * what metadata has; what it knows nothing of is dropped, and said to the report (NULL-able). Errors have no status.
 */
struct error *schema_coerce(struct arena *a, const struct apiextensions_v1_json_schema_props *p, struct jv *v,
			    bool resource, struct str path, struct decode_report *report);
/* The same; what does not fit is dropped. */
void schema_coerce_dropping(struct arena *a, const struct apiextensions_v1_json_schema_props *p, struct jv *v, bool resource);
/* Members of metadata that metadata does not have, or not of this type, go. */
void schema_repair_metadata(struct arena *a, struct jv *metadata);
/* Values in a schema (defaults, enums, examples) as upstream's trees are written: members in order, 1.0 as 1. */
void schema_normalize(struct arena *a, struct apiextensions_v1_json_schema_props *p);
/* Defaults, in place, without what the whole schema (p) does not know where they stand. */
void schema_prune_defaults(struct arena *a, struct apiextensions_v1_json_schema_props *p);
bool schema_has_embedded(const struct apiextensions_v1_json_schema_props *p);
void schema_default(struct arena *a, const struct apiextensions_v1_json_schema_props *p, struct jv *v, bool resource);
/*
 * custom_openapi.c: what OpenAPI says of a value; was: what it was before, if that is known (NULL: not). Errors are in `at` (NULL: the
 * object itself).
 */
void schema_judge(struct field_errors *e, const struct apiextensions_v1_json_schema_props *p, const struct jv *v, const struct jv *was,
		  const struct field_path *at);
/* The same of a schema's default: upstream judges those by the structural schema, in which int-or-string is no type and formats are as written. */
void schema_judge_default(struct field_errors *e, const struct apiextensions_v1_json_schema_props *p, const struct jv *v, const struct field_path *at);
/* custom_validate.c: apiVersion, kind and metadata of embedded resources; `resource`: v is one. */
void schema_embedded(struct field_errors *e, const struct apiextensions_v1_json_schema_props *p, const struct jv *v, bool resource,
		     const struct field_path *at);
/* Elements of sets and maps that are there twice. */
void schema_lists(struct field_errors *e, const struct apiextensions_v1_json_schema_props *p, const struct jv *v, const struct field_path *at);
/* custom_formats.c: RE2 patterns (compiled ones are kept), and formats; schema_format_known: of values of the type. */
bool schema_pattern_valid(struct str pattern);
bool schema_pattern_matches(struct str pattern, struct str s);
bool schema_format_known(struct str type, struct str format);
bool schema_format_fits(struct arena *a, struct str format, struct str s);
/* Elements of a list found again by the keys of its schema (x-kubernetes-list-map-keys), or as they are if it has none. In the arena. */
struct list_index;
struct list_index *list_index_new(struct arena *a, const struct apiextensions_v1_json_schema_props *p, const struct jv *list);
/* The first that is like e; NULL: none. */
const struct jv *list_index_get(const struct list_index *x, const struct jv *e);
/*
 * crd_check.c: what is wrong with a schema itself, its defaults and rules. status: its version has the status subresource. unchanged: it is
 * as it was; the costs of its rules are not judged again.
 */
void schema_check(struct field_errors *e, const struct apiextensions_v1_json_schema_props *p, bool status, const struct field_path *at,
		  bool unchanged);
/* Of that, what it takes to be structural; asked of what has no member that structural schemas never have (its name, NULL: none). */
void schema_check_structure(struct field_errors *e, const struct apiextensions_v1_json_schema_props *p, const struct field_path *at);
const char *schema_unsupported(const struct apiextensions_v1_json_schema_props *p);
/*
 * A field selector on a custom resource: checked against its version's selectable fields. *post is what has to be asked of each
 * object (custom_fields_match), NULL when the cache's index answers; f->fields is what goes to the cache.
 */
struct error *custom_selector(struct request *rq, struct cache_filter *f, const struct selector **post);
bool custom_fields_match(struct arena *a, const struct resource *res, const void *obj, const struct selector *fields);
bool schema_has_defaults(const struct apiextensions_v1_json_schema_props *p);
/* x-kubernetes-validations somewhere in it. */
bool schema_has_rules(const struct apiextensions_v1_json_schema_props *p);

/* ---- crd_cel.c: the rules (CEL) of one version's schema ---- */
struct crd_rules;
/* Compiled; NULL when there are none. Points into the schema. Rules that do not compile fail every write of a resource. */
struct crd_rules *crd_rules_new(const struct apiextensions_v1_json_schema_props *p);
void crd_rules_free(struct crd_rules *rs);
/* The schema that a path (".spec.x", with brackets also ".spec['a b']") leads to, NULL: none; *shown: the path as field paths are printed. */
const struct apiextensions_v1_json_schema_props *schema_at_path(struct arena *a, const struct apiextensions_v1_json_schema_props *p, struct str path,
								bool brackets, struct str *shown);
/* Judges the whole object; was NULL: create. Not done when e has errors that make an object's shape doubtful. Never waits. */
void crd_rules_validate(struct request *rq, const struct crd_rules *rs, const struct apiextensions_v1_json_schema_props *schema, const struct jv *now,
			const struct jv *was, struct field_errors *e);
/* What is wrong with the rules of a schema: texts, types, estimated costs (of each rule: not of those that are unchanged). structural: the
 * schema itself is fine, so rules are compiled. */
void crd_rules_check(struct field_errors *e, const struct apiextensions_v1_json_schema_props *p, const struct field_path *at, bool structural,
		     bool unchanged);
/* Judges a default by the rules of its schema. */
void crd_rules_default(struct field_errors *e, const struct apiextensions_v1_json_schema_props *p, const struct jv *v, const struct field_path *at);
void custom_prepare_create(struct request *rq, void *obj);
/* custom_validate.c: all checks but those of metadata; sub: NULL or the subresource, old NULL: create. */
void custom_validate(struct request *rq, const char *sub, const void *obj, const void *old, struct field_errors *e);
void custom_columns(const struct resource *res, struct table_options *o);
/* Takes metadata.managedFields of a tree over into the struct. */
struct error *custom_take_managed_fields(struct arena *a, const struct jv *tree, struct meta_v1_object_meta *m);
/* Writes to CustomResourceDefinitions: status conditions and accepted names are the server's own business. */
extern const struct strategy strategy_crd;
/* The CRD is being deleted: nothing new is made of it. */
bool crd_terminating(const struct resource *res);

#endif
