/*
 * What aggregated servers say of themselves. First byte: 'd', 'l': a discovery document, aggregated or plain; else two
 * OpenAPI v2 documents, a line each: the second is filtered, merged into the first and converted.
 */
#include "apiserver/aggregator.h"
#include "schema/openapi_merge.h"
#include "fuzz.h"

static void check_json(struct arena *a, const struct buf *b, enum jv_kind kind)
{
	struct jv v;
	struct error *e = jv_parse(a, arena_str(a, buf_view(b)), NULL, &v);

	FUZZ_CHECK(!e && v.kind == kind);
}

static void discovery(struct arena *a, struct str json, bool legacy)
{
	struct buf b buf_cleanup = {0};
	struct error *e =
		legacy ? discovery_of_legacy(a, json, &b) : discovery_of_aggregated(a, json, STR("g"), STR("v1"), &b);

	if (!e && b.n)
		check_json(a, &b, JV_ARRAY);
	error_free(e);
}

static bool document(struct arena *a, struct str json, struct jv *out)
{
	struct error *e = jv_parse(a, json, NULL, out);

	if (!e)
		e = openapi_v2_check(out);
	error_free(e);
	return !e;
}

static void openapi(struct arena *a, struct str rest)
{
	struct str first = str_cut(&rest, '\n');
	struct jv into, from, v3;
	struct buf b buf_cleanup = {0};

	if (!document(a, first, &into) || !document(a, rest, &from))
		return;
	openapi_v2_to_v3(a, &from, &v3);
	jv_encode_sorted(&b, &v3);
	check_json(a, &b, JV_OBJECT);
	openapi_v2_filter(a, &from, STR("/a/"));
	openapi_v2_merge(a, &into, &from);
	b.n = 0;
	jv_encode_sorted(&b, &into);
	check_json(a, &b, JV_OBJECT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	arena_cleanup struct arena a = {0};
	struct str s = arena_str(&a, str_of((const char *)data, n));

	if (n && (*data == 'd' || *data == 'l'))
		discovery(&a, str_sub(s, 1, s.n), *data == 'l');
	else
		openapi(&a, s);
	return 0;
}
