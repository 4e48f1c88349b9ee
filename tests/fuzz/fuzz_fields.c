/* Server-side apply: FieldsV1 to sets and back; live object, a zero byte, configuration applied and updated. */
#include "fuzz.h"
#include "schema/managed_fields.h"

static void sets(struct arena *a, struct str in)
{
	const struct field_set *s, *again;
	buf_cleanup struct buf b = {0};
	struct error *e = field_set_parse(a, in, &s);

	if (e) {
		error_free(e);
		return;
	}
	field_set_encode(&b, s);
	FUZZ_OK(field_set_parse(a, arena_str(a, buf_view(&b)), &again));
	FUZZ_CHECK(field_set_equal(s, again));
	FUZZ_CHECK(field_set_empty(field_set_difference(a, s, s)));
	FUZZ_CHECK(field_set_equal(field_set_union(a, s, s), s));
	FUZZ_CHECK(field_set_equal(field_set_intersection(a, s, again), s));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	arena_cleanup struct arena a = {0};
	struct jv live, config, out;
	bool changed, has_live;

	if (!n)
		return 0;
	struct str in = arena_str(&a, str_of((const char *)data + 1, n - 1));

	if (data[0] % 2) {
		sets(&a, in);
		return 0;
	}
	struct managed_fields_request req = {
		.shape = shape_of_type(&core_v1_pod_type),
		.api_version = STR("v1"),
		.manager = data[0] % 4 ? STR("kubectl") : STR("m"),
		.now = {1700000000, 0, true},
	};
	struct str text = str_cut(&in, '\0');
	struct error *e = jv_parse(&a, text, NULL, &live);

	has_live = !e && live.kind == JV_OBJECT;
	error_free(e);
	if (!in.p)
		return 0;
	e = jv_parse(&a, in, NULL, &config);
	if (e) {
		error_free(e);
		return 0;
	}
	e = managed_fields_apply(&a, &req, has_live ? &live : NULL, &config, data[0] & 8, &out, &changed);
	if (!e) {
		/* The same once more changes nothing. */
		struct jv twice;
		bool again;

		FUZZ_OK(managed_fields_apply(&a, &req, &out, &config, true, &twice, &again));
	}
	error_free(e);
	if (config.kind == JV_OBJECT)
		error_free(managed_fields_update(&a, &req, has_live ? &live : NULL, &config));
	return 0;
}
