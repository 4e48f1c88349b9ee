/* What schema/ does not have yet: server-side apply and OpenAPI. Removed as soon as it has. */
#include "schema/managed_fields.h"
void managed_fields_reset_of(const struct api_resource *r, struct str subresource, struct managed_fields_request *req) { }
struct str field_manager_from_user_agent(struct arena *a, struct str ua) { ptrdiff_t i = str_index(ua, '/'); return arena_str(a, str_sub(i < 0 ? ua : str_sub(ua, 0, (size_t)i), 0, 128)); }
struct error *managed_fields_update(struct arena *a, const struct managed_fields_request *req, const struct jv *live, struct jv *obj) { return NULL; }
struct error *managed_fields_apply(struct arena *a, const struct managed_fields_request *req, const struct jv *live, const struct jv *config, bool force, struct jv *out, bool *changed) { return error_status(501, "NotImplemented", "server-side apply is not built yet"); }
struct error *managed_fields_update_object(struct arena *a, const struct managed_fields_request *req, const void *live, void *obj) { return NULL; }
struct error *managed_fields_apply_object(struct arena *a, const struct managed_fields_request *req, const void *live, const struct jv *config, bool force, void *out, bool *changed) { return error_status(501, "NotImplemented", "server-side apply is not built yet"); }
