#include "../test.h"

#include <stdlib.h>

#include "schema/patch.h"

static char *text_of(struct arena *a, const struct jv *v)
{
	buf_cleanup struct buf b = {0};

	jv_encode_sorted(&b, v);
	return arena_strz(a, buf_view(&b));
}

static struct jv parse(struct arena *a, const char *json)
{
	struct jv v;
	struct error *e = jv_parse(a, str_from(json), NULL, &v);

	if (e)
		fail_msg("%s: %s", json, e->message);
	return v;
}

/* ---- trees ---- */

static void round_trip(const char *in, const char *out)
{
	arena_cleanup struct arena a = {0};
	struct jv v = parse(&a, in);

	assert_string_equal(text_of(&a, &v), out);
}

static void jv_values(void **state)
{
	round_trip(" {\"b\":[1,-2.5,true,null,\"x\"],\"a\":{}} ", "{\"a\":{},\"b\":[1,-2.5,true,null,\"x\"]}");
	round_trip("9223372036854775807", "9223372036854775807");
	round_trip("-9223372036854775808", "-9223372036854775808");
	round_trip("9223372036854775808", "9223372036854776000"); /* a double, in Go's notation */
	round_trip("1e21", "1e+21");
	round_trip("1e-7", "1e-7");
	round_trip("0.1", "0.1");
	round_trip("1.0", "1");
	round_trip("-0.000001", "-0.000001");
	round_trip("123456789012345680000", "123456789012345680000");
	round_trip("\"\\u00e9\\ud83d\\ude00\\n\\/\"", "\"\xc3\xa9\xf0\x9f\x98\x80\\n/\"");
	round_trip("\"\\ud800x\"", "\"\xef\xbf\xbdx\"");
	round_trip("\"a\xff\"", "\"a\xef\xbf\xbd\"");
	round_trip("\"\\u0001\\u2028\"", "\"\\u0001\\u2028\"");
	round_trip("{\"a\":1,\"b\":2,\"a\":3}", "{\"a\":3,\"b\":2}");
}

static void jv_errors(void **state)
{
	static const struct {
		const char *in, *message;
	} cases[] = {
		{"", "unexpected end of JSON input"},
		{"{\"a\":1", "unexpected end of JSON input"},
		{"[1,]", "invalid character ']' looking for beginning of value"},
		{"{a:1}", "invalid character 'a' looking for beginning of object key string"},
		{"{\"a\" 1}", "invalid character '1' after object key"},
		{"{\"a\":1 \"b\"", "invalid character '\"' after object key:value pair"},
		{"[1 2]", "invalid character '2' after array element"},
		{"tru3", "invalid character '3' in literal true (expecting 'e')"},
		{"1 x", "invalid character 'x' after top-level value"},
		{"\"\\x\"", "invalid character 'x' in string escape code"},
		{"\"\n\"", "invalid character '\\n' in string literal"},
		{"-x", "invalid character 'x' in numeric literal"},
		{"1.x", "invalid character 'x' after decimal point in numeric literal"},
		{"01", "invalid character '1' after top-level value"},
		{"1e999", "number 1e999 at offset 0 is out of range"},
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		arena_cleanup struct arena a = {0};
		struct jv v;
		error_cleanup struct error *e = jv_parse(&a, str_from(cases[i].in), NULL, &v);

		assert_non_null(e);
		assert_int_equal(e->status, 400);
		assert_string_equal(e->message, cases[i].message);
	}
}

static void jv_depth(void **state)
{
	arena_cleanup struct arena a = {0};
	char text[2 * (JV_MAX_DEPTH + 1) + 1];
	struct jv v;

	memset(text, '[', JV_MAX_DEPTH);
	memset(text + JV_MAX_DEPTH, ']', JV_MAX_DEPTH);
	assert_ok(jv_parse(&a, str_of(text, 2 * JV_MAX_DEPTH), NULL, &v));
	memset(text, '[', JV_MAX_DEPTH + 1);
	error_cleanup struct error *e = jv_parse(&a, str_of(text, JV_MAX_DEPTH + 1), NULL, &v);

	assert_true(error_is(e, 400, "BadRequest"));
}

static void jv_duplicates(void **state)
{
	arena_cleanup struct arena a = {0};
	struct decode_report r = {.arena = &a};
	struct jv v;

	assert_ok(jv_parse(&a, STR("{\"s\":[{\"x\":1},{\"x\":1,\"x\":2,\"x\":3}],\"s2\":{},\"s2\":1}"), &r, &v));
	assert_int_equal(r.problems.n, 2);
	assert_str(r.problems.v[0], "duplicate field \"s[1].x\"");
	assert_str(r.problems.v[1], "duplicate field \"s2\"");
}

/* Large objects are indexed: every operation agrees with a plain array of flags. */
static void jv_large_objects(void **state)
{
	arena_cleanup struct arena a = {0};
	enum { N = 2000 };
	static bool in[N];
	struct jv o = jv_object();
	uint32_t seed = 7, count = 0;

	memset(in, 0, sizeof in);
	for (int step = 0; step < 20000; step++) {
		seed = seed * 1664525 + 1013904223;
		uint32_t k = (seed >> 8) % N;
		struct str key = arena_printf(&a, "key%u", k);

		if (seed >> 31) {
			count += !in[k];
			in[k] = true;
			jv_set(&a, &o, key, jv_int(k));
		} else {
			assert_int_equal(jv_del(&o, key), in[k]);
			count -= in[k];
			in[k] = false;
		}
		assert_int_equal(o.n, count);
	}
	struct jv twin = jv_copy_all(&a, &o);

	for (uint32_t k = 0; k < N; k++) {
		const struct jv *v = jv_get(&twin, arena_printf(&a, "key%u", k));

		assert_int_equal(v != NULL, in[k]);
		if (v)
			assert_int_equal(v->i, k);
	}
	assert_true(jv_equal(&o, &twin));
}

static void jv_paths(void **state)
{
	arena_cleanup struct arena a = {0};
	struct jv v = parse(&a, "{\"spec\":{\"ports\":[{\"name\":\"a\"},{\"name\":\"b\"}]}}");

	assert_str(jv_str(jv_path(&v, STR("spec.ports[1].name"))), "b");
	assert_null(jv_path(&v, STR("spec.ports[2].name")));
	assert_null(jv_path(&v, STR("spec.x.y")));
	assert_str(jv_str(jv_path(jv_at(&v, "spec", "ports", NULL), STR("[0].name"))), "a");
}

/* ---- JSON patch ---- */

static void json_patches(void **state)
{
	static const struct {
		const char *doc, *patch, *want; /* want: "!cause" for 422 */
	} cases[] = {
		/* RFC 6902, appendix A */
		{"{\"foo\":\"bar\"}", "[{\"op\":\"add\",\"path\":\"/baz\",\"value\":\"qux\"}]",
		 "{\"baz\":\"qux\",\"foo\":\"bar\"}"},
		{"{\"foo\":[\"bar\",\"baz\"]}", "[{\"op\":\"add\",\"path\":\"/foo/1\",\"value\":\"qux\"}]",
		 "{\"foo\":[\"bar\",\"qux\",\"baz\"]}"},
		{"{\"a\":1,\"b\":2}", "[{\"op\":\"remove\",\"path\":\"/a\"}]", "{\"b\":2}"},
		{"{\"foo\":[1,2,3]}", "[{\"op\":\"remove\",\"path\":\"/foo/1\"}]", "{\"foo\":[1,3]}"},
		{"{\"a\":1}", "[{\"op\":\"replace\",\"path\":\"/a\",\"value\":{\"x\":[]}}]", "{\"a\":{\"x\":[]}}"},
		{"{\"foo\":{\"bar\":\"baz\",\"waldo\":\"fred\"},\"qux\":{\"corge\":\"grault\"}}",
		 "[{\"op\":\"move\",\"from\":\"/foo/waldo\",\"path\":\"/qux/thud\"}]",
		 "{\"foo\":{\"bar\":\"baz\"},\"qux\":{\"corge\":\"grault\",\"thud\":\"fred\"}}"},
		{"{\"foo\":[\"all\",\"grass\",\"cows\",\"eat\"]}", "[{\"op\":\"move\",\"from\":\"/foo/1\",\"path\":\"/foo/3\"}]",
		 "{\"foo\":[\"all\",\"cows\",\"eat\",\"grass\"]}"},
		{"{\"baz\":\"qux\"}", "[{\"op\":\"test\",\"path\":\"/baz\",\"value\":\"qux\"}]", "{\"baz\":\"qux\"}"},
		{"{\"baz\":\"qux\"}", "[{\"op\":\"test\",\"path\":\"/baz\",\"value\":\"x\"}]",
		 "!testing value /baz failed: test failed"},
		{"{\"foo\":[]}", "[{\"op\":\"add\",\"path\":\"/foo/-\",\"value\":[\"x\"]}]", "{\"foo\":[[\"x\"]]}"},
		{"{\"/\":9,\"~1\":10}", "[{\"op\":\"test\",\"path\":\"/~01\",\"value\":10},{\"op\":\"remove\",\"path\":\"/~1\"}]",
		 "{\"~1\":10}"},
		{"{\"a\":{\"b\":1}}", "[{\"op\":\"copy\",\"from\":\"/a\",\"path\":\"/c\"},"
		 "{\"op\":\"replace\",\"path\":\"/c/b\",\"value\":2}]", "{\"a\":{\"b\":1},\"c\":{\"b\":2}}"},
		/* upstream's ways */
		{"{\"a\":[1,2,3]}", "[{\"op\":\"remove\",\"path\":\"/a/-1\"}]", "{\"a\":[1,2]}"},
		{"{\"a\":1}", "[{\"op\":\"add\",\"path\":\"/b\"}]", "{\"a\":1,\"b\":null}"},
		{"{\"a\":1}", "[{\"op\":\"test\",\"path\":\"/nope\",\"value\":null}]", "{\"a\":1}"},
		{"{\"a\":1}", "[{\"op\":\"replace\",\"path\":\"\",\"value\":{}}]", "{}"},
		/* errors */
		{"{}", "[{\"op\":\"add\",\"path\":\"/a/b\",\"value\":1}]",
		 "!add operation does not apply: doc is missing path: /a/b: missing value"},
		{"{}", "[{\"op\":\"replace\",\"path\":\"/a\",\"value\":1}]", "{\"a\":1}"},
		{"{}", "[{\"op\":\"replace\",\"path\":\"/a/b\",\"value\":1}]",
		 "!replace operation does not apply: doc is missing path: /a/b: missing value"},
		{"{}", "[{\"op\":\"remove\",\"path\":\"/a\"}]",
		 "!error in remove for path: '/a': Unable to remove nonexistent key: a: missing value"},
		{"{\"a\":[]}", "[{\"op\":\"add\",\"path\":\"/a/1\",\"value\":1}]",
		 "!Unable to access invalid index: 1: invalid index referenced"},
		{"{\"a\":[]}", "[{\"op\":\"add\",\"path\":\"/a/x\",\"value\":1}]", "!value was not a proper array index: 'x'"},
		{"{}", "[{\"op\":\"fly\",\"path\":\"/a\"}]", "!Unexpected kind: fly"},
		{"{}", "[{\"op\":\"add\"}]", "!add operation failed to decode path: missing value"},
		{"{}", "[{\"op\":\"move\",\"path\":\"/a\"}]", "!move operation failed to decode from: missing value"},
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		arena_cleanup struct arena a = {0};
		struct jv doc = parse(&a, cases[i].doc);
		error_cleanup struct error *e = json_patch(&a, &doc, str_from(cases[i].patch));

		if (cases[i].want[0] == '!') {
			if (!error_is(e, 422, "Invalid"))
				fail_msg("%s: %s", cases[i].patch, error_message(e));
			assert_non_null(strstr(error_message(e), cases[i].want + 1));
		} else {
			if (e)
				fail_msg("%s: %s", cases[i].patch, error_message(e));
			assert_string_equal(text_of(&a, &doc), cases[i].want);
		}
	}
}

static void json_patch_limits(void **state)
{
	arena_cleanup struct arena a = {0};
	buf_cleanup struct buf b = {0};
	struct jv doc = jv_object();
	error_cleanup struct error *e = json_patch(&a, &doc, STR("{}"));

	assert_true(error_is(e, 400, "BadRequest"));
	buf_putc(&b, '[');
	for (int i = 0; i <= JSON_PATCH_MAX_OPERATIONS; i++)
		buf_printf(&b, "%s{\"op\":\"test\",\"path\":\"\",\"value\":{}}", i ? "," : "");
	buf_putc(&b, ']');
	error_cleanup struct error *e2 = json_patch(&a, &doc, buf_view(&b));

	assert_true(error_is(e2, 413, "RequestEntityTooLarge"));
	/* Deeper and deeper through copies into itself. */
	b.n = 0;
	doc = parse(&a, "{\"a\":{}}");
	buf_putc(&b, '[');
	for (int i = 0; i < 12; i++)
		buf_printf(&b, "%s{\"op\":\"copy\",\"from\":\"\",\"path\":\"/a\"},{\"op\":\"copy\",\"from\":\"/a\",\"path\":\"/a/a\"}",
			   i ? "," : "");
	buf_putc(&b, ']');
	error_cleanup struct error *e3 = json_patch(&a, &doc, buf_view(&b));

	assert_true(error_is(e3, 422, "Invalid"));
}

/* ---- merge patch ---- */

static void merge_patches(void **state)
{
	static const char *const cases[][3] = { /* RFC 7386, appendix A, where the patch is an object */
		{"{\"a\":\"b\"}", "{\"a\":\"c\"}", "{\"a\":\"c\"}"},
		{"{\"a\":\"b\"}", "{\"b\":\"c\"}", "{\"a\":\"b\",\"b\":\"c\"}"},
		{"{\"a\":\"b\"}", "{\"a\":null}", "{}"},
		{"{\"a\":\"b\",\"b\":\"c\"}", "{\"a\":null}", "{\"b\":\"c\"}"},
		{"{\"a\":[\"b\"]}", "{\"a\":\"c\"}", "{\"a\":\"c\"}"},
		{"{\"a\":\"c\"}", "{\"a\":[\"b\"]}", "{\"a\":[\"b\"]}"},
		{"{\"a\":{\"b\":\"c\"}}", "{\"a\":{\"b\":\"d\",\"c\":null}}", "{\"a\":{\"b\":\"d\"}}"},
		{"{\"a\":[{\"b\":\"c\"}]}", "{\"a\":[1]}", "{\"a\":[1]}"},
		{"{\"e\":null}", "{\"a\":1}", "{\"a\":1,\"e\":null}"},
		{"{}", "{\"a\":{\"bb\":{\"ccc\":null}}}", "{\"a\":{\"bb\":{}}}"},
		{"[1,2]", "{\"a\":\"b\",\"c\":null}", "{\"a\":\"b\"}"},
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		arena_cleanup struct arena a = {0};
		struct jv doc = parse(&a, cases[i][0]);

		assert_ok(json_merge_patch(&a, &doc, str_from(cases[i][1]), NULL));
		assert_string_equal(text_of(&a, &doc), cases[i][2]);
	}
	arena_cleanup struct arena a = {0};
	struct jv doc = jv_object();
	struct decode_report report = {.arena = &a};
	error_cleanup struct error *e = json_merge_patch(&a, &doc, STR("[1]"), &report), *e2 = json_merge_patch(&a, &doc, STR("1"), NULL);

	assert_true(error_is(e, 400, "BadRequest"));
	assert_true(error_is(e2, 400, "BadRequest"));
	assert_ok(json_merge_patch(&a, &doc, STR("[1]"), NULL)); /* nobody looks for an object */
	assert_string_equal(text_of(&a, &doc), "[1]");
}

/* ---- strategic merge patch ---- */

#define PODS "{\"spec\":{\"containers\":"
static const struct smp_case {
	const struct schema_type *type;
	const char *doc, *patch, *want; /* "!400 text" or "!500 text" for errors */
} smp_cases[] = {
	/* lists merge by key; patch items first known keep their place */
	{&core_v1_pod_type, PODS "[{\"name\":\"a\",\"image\":\"1\"},{\"name\":\"b\",\"image\":\"1\"}]}}",
	 PODS "[{\"name\":\"b\",\"image\":\"2\"}]}}", PODS "[{\"image\":\"1\",\"name\":\"a\"},{\"image\":\"2\",\"name\":\"b\"}]}}"},
	{&core_v1_pod_type, PODS "[{\"name\":\"a\"}]}}", PODS "[{\"name\":\"c\"}]}}",
	 PODS "[{\"name\":\"c\"},{\"name\":\"a\"}]}}"},
	{&core_v1_pod_type, PODS "[{\"name\":\"a\"},{\"name\":\"b\"}]}}", PODS "[{\"$patch\":\"delete\",\"name\":\"a\"}]}}",
	 PODS "[{\"name\":\"b\"}]}}"},
	{&core_v1_pod_type, PODS "[{\"name\":\"a\"},{\"name\":\"b\"}]}}",
	 PODS "[{\"$patch\":\"replace\"},{\"name\":\"z\"}]}}", PODS "[{\"name\":\"z\"}]}}"},
	{&core_v1_pod_type, PODS "[{\"name\":\"a\"}]}}", PODS "[{\"image\":\"x\"}]}}",
	 "!500 map: map[image:x] does not contain declared merge key: name"},
	{&core_v1_pod_type, PODS "[{\"name\":\"a\"}]}}", PODS "[{\"$patch\":\"merge\",\"name\":\"a\"}]}}",
	 "!500 merging lists cannot yet be specified in the patch"},
	{&core_v1_pod_type, PODS "[{\"name\":\"a\"}]}}", PODS "[{\"$patch\":\"fold\",\"name\":\"a\"}]}}",
	 "!500 unknown patch type: fold in map: map[$patch:fold name:a]"},
	/* an atomic list is replaced */
	{&core_v1_pod_type, PODS "[{\"name\":\"a\",\"args\":[\"1\",\"2\"]}]}}", PODS "[{\"name\":\"a\",\"args\":[\"3\"]}]}}",
	 PODS "[{\"args\":[\"3\"],\"name\":\"a\"}]}}"},
	/* nested merge keys */
	{&core_v1_pod_type, PODS "[{\"name\":\"a\",\"ports\":[{\"containerPort\":1,\"name\":\"x\"}]}]}}",
	 PODS "[{\"name\":\"a\",\"ports\":[{\"containerPort\":1,\"protocol\":\"UDP\"},{\"containerPort\":2}]}]}}",
	 PODS "[{\"name\":\"a\",\"ports\":[{\"containerPort\":1,\"name\":\"x\",\"protocol\":\"UDP\"},{\"containerPort\":2}]}]}}"},
	/* maps, nulls, map directives */
	{&core_v1_pod_type, "{\"metadata\":{\"labels\":{\"a\":\"1\",\"b\":\"2\"}}}",
	 "{\"metadata\":{\"labels\":{\"a\":null,\"c\":\"3\"}}}", "{\"metadata\":{\"labels\":{\"b\":\"2\",\"c\":\"3\"}}}"},
	{&core_v1_pod_type, "{\"metadata\":{\"labels\":{\"a\":\"1\"}}}",
	 "{\"metadata\":{\"labels\":{\"$patch\":\"replace\",\"c\":\"3\"}}}", "{\"metadata\":{\"labels\":{\"c\":\"3\"}}}"},
	{&core_v1_pod_type, "{\"metadata\":{\"labels\":{\"a\":\"1\"}}}", "{\"metadata\":{\"labels\":{\"$patch\":\"delete\"}}}",
	 "{\"metadata\":{\"labels\":{}}}"},
	/* primitive lists */
	{&core_v1_pod_type, "{\"metadata\":{\"finalizers\":[\"a\",\"b\"]}}", "{\"metadata\":{\"finalizers\":[\"c\",\"b\"]}}",
	 "{\"metadata\":{\"finalizers\":[\"c\",\"a\",\"b\"]}}"},
	{&core_v1_pod_type, "{\"metadata\":{\"finalizers\":[\"a\",\"b\",\"c\"]}}",
	 "{\"metadata\":{\"$deleteFromPrimitiveList/finalizers\":[\"b\",\"x\"]}}", "{\"metadata\":{\"finalizers\":[\"a\",\"c\"]}}"},
	{&core_v1_pod_type, "{\"metadata\":{\"finalizers\":[\"a\",\"b\",\"c\"]}}",
	 "{\"metadata\":{\"$setElementOrder/finalizers\":[\"c\",\"a\",\"d\"],\"finalizers\":[\"d\"]}}",
	 "{\"metadata\":{\"finalizers\":[\"b\",\"c\",\"a\",\"d\"]}}"},
	{&core_v1_pod_type, "{\"metadata\":{\"finalizers\":[\"a\"]}}", "{\"metadata\":{\"$deleteFromPrimitiveList\":[\"a\"]}}",
	 "!400 invalid patch format of primitive list"},
	/* order of maps */
	{&core_v1_pod_type, PODS "[{\"name\":\"1\"},{\"name\":\"2\"},{\"name\":\"3\"}]}}",
	 "{\"spec\":{\"$setElementOrder/containers\":[{\"name\":\"3\"},{\"name\":\"1\"}],\"containers\":[{\"name\":\"1\",\"image\":\"i\"}]}}",
	 PODS "[{\"name\":\"2\"},{\"name\":\"3\"},{\"image\":\"i\",\"name\":\"1\"}]}}"},
	{&core_v1_pod_type, PODS "[{\"name\":\"1\"}]}}",
	 "{\"spec\":{\"$setElementOrder/containers\":[{\"name\":\"1\"}],\"containers\":[{\"name\":\"2\"}]}}",
	 "!500 The order in patch list:\n[map[name:2]]\n doesn't match $setElementOrder list:\n[map[name:1]]"},
	/* what is added takes the place of what is deleted */
	{&core_v1_pod_type, PODS "[{\"name\":\"1\"},{\"name\":\"2\"},{\"name\":\"4\"}]}}",
	 "{\"spec\":{\"$setElementOrder/containers\":[{\"name\":\"2\"},{\"name\":\"3\"}],\"containers\":[{\"name\":\"3\"},"
	 "{\"$patch\":\"delete\",\"name\":\"1\"}]}}",
	 PODS "[{\"name\":\"2\"},{\"name\":\"4\"},{\"name\":\"3\"}]}}"},
	/* retainKeys */
	{&apps_v1_deployment_type,
	 "{\"spec\":{\"strategy\":{\"type\":\"RollingUpdate\",\"rollingUpdate\":{\"maxSurge\":1}}}}",
	 "{\"spec\":{\"strategy\":{\"$retainKeys\":[\"type\"],\"type\":\"Recreate\"}}}",
	 "{\"spec\":{\"strategy\":{\"type\":\"Recreate\"}}}"},
	{&apps_v1_deployment_type, "{\"spec\":{\"strategy\":{}}}",
	 "{\"spec\":{\"strategy\":{\"$retainKeys\":[\"x\"],\"type\":\"Recreate\"}}}", "!400 invalid patch format of retainKeys"},
	{&core_v1_pod_type, "{\"spec\":{\"volumes\":[{\"name\":\"v\",\"emptyDir\":{}}]}}",
	 "{\"spec\":{\"volumes\":[{\"$retainKeys\":[\"name\",\"hostPath\"],\"name\":\"v\",\"hostPath\":{\"path\":\"/x\"}}]}}",
	 "{\"spec\":{\"volumes\":[{\"hostPath\":{\"path\":\"/x\"},\"name\":\"v\"}]}}"},
	/* directives in what is new are dropped */
	{&core_v1_pod_type, "{}", PODS "[{\"name\":\"a\"},{\"$patch\":\"delete\",\"name\":\"b\"}]}}", PODS "[{\"name\":\"a\"}]}}"},
	{&core_v1_pod_type, "{}", "[]", "!400 invalid JSON document"},
	/* a different kind of value replaces; a scalar replaces */
	{&core_v1_service_type, "{\"spec\":{\"ports\":[{\"port\":80,\"targetPort\":1}]}}",
	 "{\"spec\":{\"ports\":[{\"port\":80,\"targetPort\":\"http\"}]}}",
	 "{\"spec\":{\"ports\":[{\"port\":80,\"targetPort\":\"http\"}]}}"},
};

static void strategic_patches(void **state)
{
	for (size_t i = 0; i < sizeof smp_cases / sizeof *smp_cases; i++) {
		const struct smp_case *c = &smp_cases[i];
		arena_cleanup struct arena a = {0};
		struct jv doc = parse(&a, c->doc);
		error_cleanup struct error *e = strategic_merge_patch(&a, c->type, &doc, str_from(c->patch), NULL);

		if (c->want[0] == '!') {
			assert_non_null(e);
			assert_int_equal(e->status, atoi(c->want + 1));
			assert_string_equal(e->causes ? e->causes[0].message : e->message, c->want + 5);
		} else {
			if (e)
				fail_msg("%s: %s", c->patch, e->causes ? e->causes[0].message : e->message);
			assert_string_equal(text_of(&a, &doc), c->want);
		}
	}
}

static void strategic_limits(void **state)
{
	arena_cleanup struct arena a = {0};
	buf_cleanup struct buf b = {0};
	struct jv doc = parse(&a, "{\"metadata\":{\"finalizers\":[\"x\"]}}");

	buf_puts(&b, "{\"metadata\":{\"finalizers\":[");
	for (int i = 0; i < 5000; i++)
		buf_printf(&b, "%s\"f%d\"", i ? "," : "", i);
	buf_puts(&b, "]}}");
	error_cleanup struct error *e = strategic_merge_patch(&a, &core_v1_pod_type, &doc, buf_view(&b), NULL);

	assert_true(error_is(e, 413, "RequestEntityTooLarge"));
}

/* What a patch has that no field takes is told in the order of maps, whatever its own. */
static void unknown_fields(void **state)
{
	static const char *const want[] = {"a", "a-b", "a1", "metadata.alpha", "metadata.ownerReferences[2].odd", "metadata.ownerReferences[10].odd",
					   "metadata.zeta", "zz"};
	struct core_v1_config_map now = {0}, out = {0};
	arena_cleanup struct arena a = {0};
	buf_cleanup struct buf b = {0};
	struct decode_report r = {.arena = &a};

	buf_puts(&b, "{\"zz\":1,\"a1\":1,\"metadata\":{\"zeta\":1,\"ownerReferences\":[");
	for (int i = 0; i < 11; i++)
		buf_printf(&b, "%s{\"uid\":\"u%d\"%s}", i ? "," : "", i, i == 2 || i == 10 ? ",\"odd\":1" : "");
	buf_puts(&b, "],\"alpha\":1},\"a\":{\"x\":1},\"a-b\":1}");
	assert_ok(object_patch(&a, PATCH_MERGE, &core_v1_config_map_type, &now, buf_view(&b), &r, &out));
	assert_int_equal(r.problems.n, sizeof want / sizeof *want);
	for (size_t i = 0; i < r.problems.n; i++)
		assert_str(r.problems.v[i], arena_strz(&a, arena_printf(&a, "unknown field \"%s\"", want[i])));
	memset(&r.problems, 0, sizeof r.problems);
	assert_ok(object_patch(&a, PATCH_MERGE, &core_v1_config_map_type, &now, STR("{\"data\":{\"a\":\"b\"}}"), &r, &out));
	assert_int_equal(r.problems.n, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(jv_values),	  cmocka_unit_test(jv_errors),	       cmocka_unit_test(jv_depth),
		cmocka_unit_test(jv_duplicates),  cmocka_unit_test(jv_large_objects),  cmocka_unit_test(jv_paths),
		cmocka_unit_test(json_patches),	  cmocka_unit_test(json_patch_limits), cmocka_unit_test(merge_patches),
		cmocka_unit_test(strategic_patches), cmocka_unit_test(strategic_limits), cmocka_unit_test(unknown_fields),
	};

	return cmocka_run_group_tests_name("patch", tests, NULL, NULL);
}
