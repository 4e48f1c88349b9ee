/* YAML to JSON is JSON, and comes back through YAML as the same value. */
#include "schema/jv.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	arena_cleanup struct arena a = {0};
	buf_cleanup struct buf json = {0}, yaml = {0}, again = {0};
	struct str rest = str_of((const char *)data, n), doc;
	struct decode_report report = {.arena = &a};
	struct jv one, two;

	for (int i = 0; i < 100 && yaml_next_document(&rest, &doc); i++)
		FUZZ_CHECK(doc.n && doc.n <= n);
	struct error *e = yaml_to_json(str_of((const char *)data, n), &report, &json);

	if (e) {
		error_free(e);
		return 0;
	}
	FUZZ_OK(jv_parse(&a, buf_view(&json), NULL, &one));
	FUZZ_OK(json_to_yaml(buf_view(&json), &yaml));
	e = yaml_to_json(buf_view(&yaml), NULL, &again);
	if (e) {
		fprintf(stderr, "json: %.*s\nyaml: %.*s\n", STR_ARG(buf_view(&json)), STR_ARG(buf_view(&yaml)));
		FUZZ_OK(e);
	}
	FUZZ_OK(jv_parse(&a, buf_view(&again), NULL, &two));
	if (!jv_equal(&one, &two))
		fprintf(stderr, "json: %.*s\nyaml: %.*s\nagain: %.*s\n", STR_ARG(buf_view(&json)), STR_ARG(buf_view(&yaml)),
			STR_ARG(buf_view(&again)));
	FUZZ_CHECK(jv_equal(&one, &two));
	return 0;
}
