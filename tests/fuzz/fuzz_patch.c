/* Patches: first byte chooses the kind; then document, a zero byte, patch. What comes out is a document again. */
#include "fuzz.h"
#include "schema/patch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	arena_cleanup struct arena a = {0};
	buf_cleanup struct buf b = {0};
	struct jv doc, again;

	if (!n)
		return 0;
	struct str in = arena_str(&a, str_of((const char *)data + 1, n - 1));
	struct str text = str_cut(&in, '\0');
	struct decode_report report = {.arena = &a};
	struct error *e = jv_parse(&a, text, NULL, &doc);

	if (e) {
		error_free(e);
		return 0;
	}
	if (!in.p)
		in = STR("");
	switch (data[0] % 4) {
	case 0:
		e = json_patch(&a, &doc, in);
		break;
	case 1:
		e = json_merge_patch(&a, &doc, in, &report);
		break;
	case 2:
		e = strategic_merge_patch(&a, &core_v1_pod_type, &doc, in, &report);
		break;
	default:
		e = strategic_merge_patch(&a, &apps_v1_deployment_type, &doc, in, &report);
	}
	if (e) {
		FUZZ_CHECK(e->status == 400 || e->status == 413 || e->status == 422 || e->status == 500);
		error_free(e);
		return 0;
	}
	jv_encode(&b, &doc);
	FUZZ_OK(jv_parse(&a, arena_str(&a, buf_view(&b)), NULL, &again));
	FUZZ_CHECK(jv_equal(&doc, &again));
	return 0;
}
