/* Stand-in until schema/ has OpenAPI. */
#include "schema/openapi.h"
bool openapi_v3(struct buf *b, struct str group, struct str version, const struct openapi_crd *crds, size_t n) { return false; }
bool openapi_v3_discovery(struct buf *b, struct str path) { return false; }
void openapi_v2(struct buf *b, const struct openapi_crd *crds, size_t n) { buf_puts(b, "{\"swagger\":\"2.0\",\"paths\":{}}"); }
struct error *openapi_v2_to_proto(struct str json, struct buf *b) { return error_status(406, "NotAcceptable", "not built yet"); }
