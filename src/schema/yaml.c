#include "schema/codec.h"
struct error *yaml_to_json(struct str in, struct decode_report *report, struct buf *out)
{
	return error_status(415, "UnsupportedMediaType", "YAML is not built yet");
}
struct error *json_to_yaml(struct str json, struct buf *out)
{
	return error_status(406, "NotAcceptable", "YAML is not built yet");
}
bool yaml_next_document(struct str *rest, struct str *doc)
{
	return false;
}
