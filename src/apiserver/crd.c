/* CustomResourceDefinitions: not served yet. */
#include "apiserver/convert.h"
#include "apiserver/custom.h"
struct error *crds_init(struct apiserver *s) { return NULL; }
void crds_sync(struct apiserver *s) {}
struct resource *crd_resource_at(struct apiserver *s, size_t i) { return NULL; }
struct resource *crd_find(struct apiserver *s, struct str group, struct str version, struct str plural) { return NULL; }
struct resource *crd_resource_any(struct apiserver *s, struct str group, struct str plural) { return NULL; }
struct resource *crd_resource_for_kind(struct apiserver *s, struct str group, struct str version, struct str kind) { return NULL; }
const struct apiextensions_v1_json_schema_props *crd_schema(const struct resource *res) { return NULL; }
struct shape custom_shape(const struct resource *res) { return shape_of_crd(NULL); }
void custom_reset_fields(const struct resource *res, const char *sub, struct managed_fields_request *mr) {}
bool custom_has_status(const struct resource *res) { return false; }
const struct apiextensions_v1_custom_resource_subresource_scale *custom_scale(const struct resource *res) { return NULL; }
bool custom_is_storage_version(const struct resource *res) { return true; }
struct error *custom_default_and_prune(struct request *rq, void *obj) { return NULL; }
void custom_prepare_create(struct request *rq, void *obj) {}
void custom_validate(struct request *rq, const void *obj, const void *old, struct field_errors *e) {}
void custom_columns(const struct resource *res, struct table_options *o) {}
struct error *custom_take_managed_fields(struct arena *a, const struct jv *tree, struct meta_v1_object_meta *m) { return NULL; }
const struct strategy strategy_crd = {.group = STR_INIT("apiextensions.k8s.io"), .plural = STR_INIT("customresourcedefinitions"), .generation = true};
