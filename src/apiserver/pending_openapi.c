/* Stand-in until schema/ writes OpenAPI v2 as protobuf. */
#include "schema/openapi.h"

__attribute__((weak)) struct error *openapi_v2_to_proto(struct str json, struct buf *b)
{
	return error_status(406, "NotAcceptable", "OpenAPI v2 is served as application/json only");
}
