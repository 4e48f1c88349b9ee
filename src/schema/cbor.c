#include "schema/codec.h"
struct error *cbor_to_json(struct str in, struct decode_report *report, struct buf *out)
{
	return error_status(415, "UnsupportedMediaType", "CBOR is not built yet");
}
struct error *json_to_cbor(struct str json, struct buf *out)
{
	return error_status(406, "NotAcceptable", "CBOR is not built yet");
}
