/* JSON, protobuf, YAML and CBOR codecs: forms, strictness, messages, limits. */
#include "../test.h"

#include <stdio.h>
#include <stdlib.h>

#include "schema/codec.h"
#include "schema/jv.h"

/* Decodes, re-encodes and compares; want NULL: as given. */
static void roundtrip(const struct schema_type *t, const char *in, const char *want)
{
	arena_cleanup struct arena a = {0};
	buf_cleanup struct buf b = {0};
	void *obj = arena_alloc(&a, t->size);

	assert_ok(json_decode(&a, t, str_from(in), NULL, obj));
	json_encode(&b, t, obj);
	assert_str(buf_view(&b), want ? want : in);
}

static void fails(const struct schema_type *t, const char *in, const char *message)
{
	arena_cleanup struct arena a = {0};
	void *obj = arena_alloc(&a, t->size);
	struct error *e = json_decode(&a, t, str_from(in), NULL, obj);

	if (!e)
		fail_msg("%s was decoded", in);
	assert_int_equal(e->status, 400);
	assert_string_equal(e->reason, "BadRequest");
	assert_string_equal(e->message, message);
	error_free(e);
}

static void strict(const struct schema_type *t, const char *in, const char *problems)
{
	arena_cleanup struct arena a = {0};
	buf_cleanup struct buf b = {0};
	void *obj = arena_alloc(&a, t->size);
	struct decode_report report = {.arena = &a};

	assert_ok(json_decode(&a, t, str_from(in), &report, obj));
	for (uint32_t i = 0; i < report.problems.n; i++) {
		if (i)
			buf_puts(&b, "; ");
		buf_str(&b, report.problems.v[i]);
	}
	assert_str(buf_view(&b), problems);
}

static void test_json_forms(void **state)
{
	const struct schema_type *pod = &core_v1_pod_type, *cm = &core_v1_config_map_type, *secret = &core_v1_secret_type,
				 *crd = &apiextensions_v1_json_schema_props_type;

	roundtrip(pod, "{}", "{\"metadata\":{},\"spec\":{\"containers\":null},\"status\":{}}");
	roundtrip(pod, " {\t\"spec\" : { \"containers\" : [ ] } }\r\n",
		  "{\"metadata\":{},\"spec\":{\"containers\":[]},\"status\":{}}");
	/* null resets what can be nil and leaves the rest */
	roundtrip(pod,
		  "{\"metadata\":{\"name\":null,\"labels\":null,\"creationTimestamp\":null,\"deletionTimestamp\":null},"
		  "\"spec\":{\"containers\":[null,{\"name\":\"a\"}],\"hostNetwork\":null,\"terminationGracePeriodSeconds\":null}}",
		  "{\"metadata\":{},\"spec\":{\"containers\":[{\"name\":\"\",\"resources\":{}},{\"name\":\"a\",\"resources\":{}}]},\"status\":{}}");
	/* maps come sorted, the last of equal keys wins */
	roundtrip(cm, "{\"metadata\":{},\"data\":{\"b\":\"1\",\"a\":\"2\",\"b\":\"3\",\"ab\":null}}",
		  "{\"metadata\":{},\"data\":{\"a\":\"2\",\"ab\":\"\",\"b\":\"3\"}}");
	/* escapes, as Go writes them */
	roundtrip(cm, "{\"data\":{\"k\":\"<&>\\u2028\\u2029\\u007f\\b\\f\\n\\r\\t\\u0001\\/\\\\\\\"\"}}",
		  "{\"metadata\":{},\"data\":{\"k\":\"\\u003c\\u0026\\u003e\\u2028\\u2029\x7f\\b\\f\\n\\r\\t\\u0001/\\\\\\\"\"}}");
	/* surrogates, lone and paired; invalid UTF-8 becomes U+FFFD */
	roundtrip(cm, "{\"data\":{\"k\":\"\\ud83d\\ude00\\ud800x\\udc00\\ud800\\ud83d\\ude00 \xc3\xa9\"}}",
		  "{\"metadata\":{},\"data\":{\"k\":\"\xf0\x9f\x98\x80\xef\xbf\xbdx\xef\xbf\xbd\xef\xbf\xbd\xf0\x9f\x98\x80 \xc3\xa9\"}}");
	roundtrip(cm, "{\"data\":{\"k\":\"a\xff\xc0\xaf\xed\xa0\x80z\"}}",
		  "{\"metadata\":{},\"data\":{\"k\":\"a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdz\"}}");
	/* bytes */
	roundtrip(secret, "{\"data\":{\"a\":\"AQID\",\"b\":\"\",\"c\":null,\"d\":\"AQ==\",\"e\":\"AQ\\nI=\"}}",
		  "{\"metadata\":{},\"data\":{\"a\":\"AQID\",\"b\":\"\",\"c\":null,\"d\":\"AQ==\",\"e\":\"AQI=\"}}");
	/* quantities and ports */
	roundtrip(&core_v1_resource_requirements_type, "{\"limits\":{\"cpu\":1.5,\"memory\":\"1024Mi\",\"x\":\" 1000m \"}}",
		  "{\"limits\":{\"cpu\":\"1500m\",\"memory\":\"1Gi\",\"x\":\"1\"}}");
	roundtrip(&core_v1_service_port_type, "{\"port\":80,\"targetPort\":\"http\"}", NULL);
	roundtrip(&core_v1_service_port_type, "{\"port\":80,\"targetPort\":-8080}", NULL);
	roundtrip(&core_v1_service_port_type, "{\"port\":80}", "{\"port\":80,\"targetPort\":0}");
	/* times */
	roundtrip(&coordination_v1_lease_spec_type, "{\"acquireTime\":\"2024-02-29T23:59:59.123456+01:30\"}",
		  "{\"acquireTime\":\"2024-02-29T22:29:59.123456Z\"}");
	roundtrip(&meta_v1_object_meta_type, "{\"creationTimestamp\":\"0001-01-01T00:00:00Z\",\"deletionTimestamp\":\"1969-12-31T23:59:59.9Z\"}",
		  "{\"deletionTimestamp\":\"1969-12-31T23:59:59Z\"}");
	/* schemas: unions, doubles, raw values */
	roundtrip(crd,
		  "{\"default\":{\"b\" : [ 1, 2.50 ],\"a\":\"x y\"},\"maximum\":1e3,\"minimum\":-0.25,\"multipleOf\":1e-7,\"enum\":[null,\"<\",1],"
		  "\"items\":[{\"type\":\"a\"}],\"additionalProperties\":false,\"additionalItems\":{\"type\":\"b\"},"
		  "\"dependencies\":{\"p\":[\"q\"],\"s\":{\"type\":\"c\"}}}",
		  "{\"default\":{\"b\":[1,2.50],\"a\":\"x y\"},\"maximum\":1000,\"minimum\":-0.25,\"multipleOf\":1e-7,\"enum\":[null,\"\\u003c\",1],"
		  "\"items\":[{\"type\":\"a\"}],\"additionalProperties\":false,"
		  "\"dependencies\":{\"p\":[\"q\"],\"s\":{\"type\":\"c\"}},\"additionalItems\":{\"type\":\"b\"}}");
	roundtrip(crd, "{\"maximum\":1e21}", "{\"maximum\":1e+21}");
	roundtrip(crd, "{\"maximum\":123456789012345680000}", NULL);
	roundtrip(crd, "{\"maximum\":0.000001}", NULL);
	roundtrip(crd, "{\"maximum\":-0.1}", NULL);
	roundtrip(crd, "{\"maximum\":1.7976931348623157e+308}", "{\"maximum\":1.7976931348623157e+308}");
	roundtrip(crd, "{\"items\":{\"type\":\"a\"},\"additionalProperties\":true}", NULL);
	/* by-value structs are never empty to Go */
	roundtrip(&apps_v1_controller_revision_type, "{\"revision\":1}", "{\"metadata\":{},\"data\":null,\"revision\":1}");
	/* a raw value is kept as it was sent, and written compact */
	{
		arena_cleanup struct arena a = {0};
		struct apps_v1_controller_revision rev = {0};

		assert_ok(json_decode(&a, &apps_v1_controller_revision_type, STR("{\"data\":{\"b\" : 1, \"a\":2},\"revision\":1}"), NULL, &rev));
		assert_str(rev.data, "{\"b\" : 1, \"a\":2}");
	}
	roundtrip(&apps_v1_controller_revision_type, "{\"data\":{\"b\" : 1, \"a\":2},\"revision\":1}",
		  "{\"metadata\":{},\"data\":{\"b\":1,\"a\":2},\"revision\":1}");
	/* what comes twice: maps add up, lists are decoded over the elements before */
	roundtrip(&core_v1_config_map_type, "{\"data\":{\"a\":\"1\",\"b\":\"2\"},\"data\":{\"b\":\"3\",\"c\":\"4\"}}",
		  "{\"metadata\":{},\"data\":{\"a\":\"1\",\"b\":\"3\",\"c\":\"4\"}}");
	roundtrip(&core_v1_endpoint_subset_type, "{\"ports\":[{\"name\":\"a\",\"port\":1},{\"port\":2}],\"ports\":[{\"port\":3}]}",
		  "{\"ports\":[{\"name\":\"a\",\"port\":3}]}");
	/* field names are case sensitive */
	roundtrip(&core_v1_service_port_type, "{\"Port\":80}", "{\"port\":0,\"targetPort\":0}");
}

/* Merged objects are read from values, whose misfits have messages of their own. */
static void test_merged_errors(void **state)
{
	static const struct {
		const char *json, *want;
	} cases[] = {
		{"{\"metadata\":{\"labels\":\"a\"}}", "cannot restore map from string"},
		{"{\"metadata\":{\"finalizers\":1}}", "cannot restore slice from int64"},
		{"{\"metadata\":{\"finalizers\":1.5}}", "cannot restore slice from float64"},
		{"{\"spec\":true}", "cannot restore struct from: bool"},
		{"{\"spec\":{\"containers\":{}}}", "cannot restore slice from map"},
		{"{\"spec\":{\"nodeName\":[]}}", "json: cannot unmarshal array into Go struct field PodSpec.spec.nodeName of type string"},
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		arena_cleanup struct arena a = {0};
		struct core_v1_pod pod = {0};
		error_cleanup struct error *e = json_decode_merged(&a, &core_v1_pod_type, str_from(cases[i].json), NULL, &pod);

		assert_non_null(e);
		assert_string_equal(error_message(e), cases[i].want);
	}
}

static void test_json_errors(void **state)
{
	const struct schema_type *deploy = &apps_v1_deployment_type, *pod = &core_v1_pod_type;

	fails(&coordination_v1_lease_spec_type, "{\"acquireTime\":\"2024-02-29T23:59:59.5Z\"}",
	      "parsing time \"2024-02-29T23:59:59.5Z\" as \"2006-01-02T15:04:05.000000Z07:00\": cannot parse \".5Z\" as \".000000\"");
	fails(deploy, "{\"spec\":{\"replicas\":\"3\"}}",
	      "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32");
	fails(deploy, "{\"spec\":{\"replicas\":3.5}}",
	      "json: cannot unmarshal number 3.5 into Go struct field DeploymentSpec.spec.replicas of type int32");
	fails(deploy, "{\"spec\":{\"replicas\":2147483648}}",
	      "json: cannot unmarshal number 2147483648 into Go struct field DeploymentSpec.spec.replicas of type int32");
	fails(deploy, "{\"spec\":{\"template\":{\"spec\":{\"containers\":{}}}}}",
	      "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container");
	fails(deploy, "{\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":1}]}}}}",
	      "json: cannot unmarshal number into Go struct field Container.spec.template.spec.containers.name of type string");
	fails(deploy, "[]", "json: cannot unmarshal array into Go value of type v1.Deployment");
	fails(pod, "{\"metadata\":{\"labels\":{\"a\":true}}}",
	      "json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.labels of type string");
	fails(pod, "{\"metadata\":{\"creationTimestamp\":1}}",
	      "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.creationTimestamp of type string");
	fails(pod, "{\"metadata\":{\"creationTimestamp\":\"yesterday\"}}",
	      "parsing time \"yesterday\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"yesterday\" as \"2006\"");
	fails(pod, "{\"metadata\":{\"creationTimestamp\":\"2024-02-30T00:00:00Z\"}}", "parsing time \"2024-02-30T00:00:00Z\": day out of range");
	fails(&core_v1_service_type, "{\"spec\":{\"ports\":[{\"targetPort\":true}]}}",
	      "json: cannot unmarshal bool into Go struct field ServicePort.spec.ports.targetPort of type int32");
	fails(&core_v1_resource_requirements_type, "{\"limits\":{\"cpu\":\"lots\"}}",
	      "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'");
	fails(&core_v1_secret_type, "{\"data\":{\"a\":\"A*==\"}}", "illegal base64 data at input byte 1");
	/* a syntax error anywhere wins over a mismatch before it */
	fails(deploy, "{\"spec\":{\"replicas\":\"3\"}", "unexpected end of JSON input");
	fails(pod, "", "unexpected end of JSON input");
	fails(pod, "{\"a\":1,}", "invalid character '}' looking for beginning of object key string");
	fails(pod, "{\"a\":[1,]}", "invalid character ']' looking for beginning of value");
	fails(pod, "{\"kind\"\n1}", "invalid character '1' after object key");
	fails(pod, "{\"kind\":\"a\" \"b\"}", "invalid character '\"' after object key:value pair");
	fails(pod, "{\"kind\":\"a\nb\"}", "invalid character '\\n' in string literal");
	fails(pod, "{\"kind\":\"\\x\"}", "invalid character 'x' in string escape code");
	fails(pod, "{\"kind\":\"\\u12g4\"}", "invalid character 'g' in \\u hexadecimal character escape");
	fails(pod, "{\"x\":tru3}", "invalid character '3' in literal true (expecting 'e')");
	fails(pod, "{\"x\":01}", "invalid character '1' after object key:value pair");
	fails(pod, "{\"metadata\":{\"generation\":01}}", "invalid character '1' after object key:value pair");
	fails(pod, "{\"x\":1.}", "invalid character '}' after decimal point in numeric literal");
	fails(pod, "{\"x\":-}", "invalid character '}' in numeric literal");
	fails(pod, "{} x", "invalid character 'x' after top-level value");
	fails(pod, "kind: Pod", "invalid character 'k' looking for beginning of value");
}

static void test_json_strict(void **state)
{
	strict(&core_v1_pod_type, "{\"spec\":{\"containers\":[{\"name\":\"a\",\"imagee\":\"x\"},{\"foo\":1,\"foo\":2}]},\"x\":{}}",
	       "unknown field \"spec.containers[0].imagee\"; unknown field \"spec.containers[1].foo\"; unknown field \"x\"");
	strict(&core_v1_pod_type,
	       "{\"metadata\":{\"labels\":{\"a\":\"1\",\"b\":\"2\",\"a\":\"3\"},\"name\":\"x\",\"name\":\"y\"},\"metadata\":{}}",
	       "duplicate field \"metadata.labels.a\"; duplicate field \"metadata.name\"; duplicate field \"metadata\"");
	strict(&core_v1_pod_type, "{\"Kind\":\"Pod\"}", "unknown field \"Kind\"");
	strict(&core_v1_pod_type, "{\"kind\":\"Pod\"}", "");
}

static void nested(struct buf *b, int levels, const char *open, const char *close)
{
	for (int i = 0; i < levels; i++)
		buf_puts(b, open);
	for (int i = 0; i < levels; i++)
		buf_puts(b, close);
}

static void test_depth(void **state)
{
	arena_cleanup struct arena a = {0};
	buf_cleanup struct buf b = {0};
	/* typed schemas and raw values stop at 128 levels, what is passed over at Go's 10,000 */
	static const struct {
		const struct schema_type *t;
		const char *member;
		int levels;
	} stops[] = {{&core_v1_pod_type, "{\"x\":", 9999}, {&apps_v1_controller_revision_type, "{\"data\":", 127}};
	struct error *e;

	for (size_t i = 0; i < 2; i++)
		for (int more = 0; more <= 1; more++) {
			b.n = 0;
			buf_puts(&b, stops[i].member);
			nested(&b, stops[i].levels + more, "[", "]");
			buf_puts(&b, "}");
			e = json_decode(&a, stops[i].t, buf_view(&b), NULL, arena_alloc(&a, stops[i].t->size));
			assert_int_equal(e != NULL, more);
			assert_true(!e || strstr(e->message, "exceeded max depth"));
			error_free(e);
		}
	for (int levels = 127; levels <= 128; levels++) {
		void *schema = arena_alloc(&a, apiextensions_v1_json_schema_props_type.size);

		b.n = 0;
		for (int i = 0; i < levels; i++)
			buf_puts(&b, "{\"not\":");
		buf_puts(&b, "{}");
		for (int i = 0; i < levels; i++)
			buf_puts(&b, "}");
		e = json_decode(&a, &apiextensions_v1_json_schema_props_type, buf_view(&b), NULL, schema);
		assert_int_equal(e != NULL, levels == 128);
		error_free(e);
	}
}

static struct str bytes_of(struct arena *a, const char *hex)
{
	size_t n = strlen(hex) / 2;
	char *p = arena_bytes(a, n + 1);

	for (size_t i = 0; i < n; i++) {
		unsigned v;

		assert_int_equal(sscanf(hex + 2 * i, "%2x", &v), 1);
		p[i] = (char)v;
	}
	return str_of(p, n);
}

static void pb_fails(const struct schema_type *t, const char *hex, const char *message)
{
	arena_cleanup struct arena a = {0};
	void *obj = arena_alloc(&a, t->size);
	struct error *e = pb_decode(&a, t, bytes_of(&a, hex), obj);

	if (!e)
		fail_msg("%s was decoded", hex);
	assert_string_equal(e->message, message);
	error_free(e);
}

static void test_protobuf(void **state)
{
	arena_cleanup struct arena a = {0};
	buf_cleanup struct buf b = {0};
	struct core_v1_config_map cm = {0};

	/* unknown fields of every wire type are skipped; scalars: the last wins; maps come sorted */
	assert_ok(pb_decode(&a, &core_v1_config_map_type,
			    bytes_of(&a, "c03e01" "c13e0102030405060708" "c23e0141" "c33e080bc43e" "c53e01020304"
					 "12060a0162120131" "12060a0161120132" "12060a0162120133" "12030a0163" "2000" "2001"),
			    &cm));
	json_encode(&b, &core_v1_config_map_type, &cm);
	assert_str(buf_view(&b), "{\"metadata\":{},\"immutable\":true,\"data\":{\"a\":\"2\",\"b\":\"3\",\"c\":\"\"}}");
	/* packed and unpacked numbers; negative int32 */
	struct core_v1_pod_security_context sc = {0};

	assert_ok(pb_decode(&a, &core_v1_pod_security_context_type, bytes_of(&a, "2001" "2202ac02" "20ffffffffffffffffff01"), &sc));
	assert_int_equal(sc.supplemental_groups.n, 3);
	assert_int_equal(sc.supplemental_groups.v[1], 300);
	assert_int_equal(sc.supplemental_groups.v[2], -1);
	b.n = 0;
	pb_encode(&b, &core_v1_pod_security_context_type, &sc);
	assert_true(str_eq(buf_view(&b), bytes_of(&a, "200120ac0220ffffffffffffffffff01")));
	/* a message given twice is merged */
	struct core_v1_pod pod = {0};

	assert_ok(pb_decode(&a, &core_v1_pod_type, bytes_of(&a, "0a030a0161" "0a031a0162"), &pod));
	assert_str(pod.metadata.name, "a");
	assert_str(pod.metadata.namespace, "b");
	/* empty messages and strings of values are written, nil pointers are not */
	b.n = 0;
	pb_encode(&b, &core_v1_service_port_type, &(struct core_v1_service_port){.port = -1});
	assert_true(str_eq(buf_view(&b), bytes_of(&a, "0a00120018ffffffffffffffffff012206080010001a002800")));
	assert_int_equal(pb_size(&core_v1_service_port_type, &(struct core_v1_service_port){.port = -1}), b.n);

	pb_fails(&core_v1_pod_type, "0a05", "unexpected EOF");
	pb_fails(&core_v1_pod_type, "08", "proto: wrong wireType = 0 for field metadata");
	pb_fails(&core_v1_pod_type, "ffffffffffffffffffff01", "proto: integer overflow");
	pb_fails(&core_v1_pod_type, "0000", "proto: illegal tag");
	pb_fails(&core_v1_resource_requirements_type, "0a0a0a0163120508030a0178",
		 "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'");

	/* the envelope */
	struct pb_envelope env;

	b.n = 0;
	pb_envelope_encode(&b, STR("v1"), STR("ConfigMap"), &core_v1_config_map_type, &(struct core_v1_config_map){0});
	assert_true(pb_is_envelope(buf_view(&b)));
	assert_ok(pb_envelope_decode(buf_view(&b), &env));
	assert_str(env.api_version, "v1");
	assert_str(env.kind, "ConfigMap");
	assert_false(pb_is_envelope(STR("k8s")));
	struct error *e = pb_envelope_decode(STR("{}"), &env);

	assert_non_null(e);
	error_free(e);
}

/* The direct way and the way through the struct give the same bytes, or the same error. */
static void direct(const struct schema_type *t, const char *hex)
{
	arena_cleanup struct arena a = {0};
	buf_cleanup struct buf one = {0}, two = {0};
	struct str pb = bytes_of(&a, hex);
	void *obj = arena_alloc(&a, t->size);
	bool verbatim = false;
	struct error *e = pb_decode(&a, t, pb, obj), *d = pb_to_json(&one, t, pb, STR_NULL, STR_NULL, &verbatim);

	assert_int_equal(e != NULL, d != NULL);
	if (e) {
		assert_string_equal(e->message, d->message);
		assert_int_equal(one.n, 0);
		error_free(e);
		error_free(d);
		return;
	}
	json_encode(&two, t, obj);
	if (!str_eq(buf_view(&one), buf_view(&two)))
		fail_msg("%s: %.*s is not %.*s", hex, STR_ARG(buf_view(&one)), STR_ARG(buf_view(&two)));
	one.n = 0;
	assert_ok(pb_to_json(&one, t, pb, STR_NULL, STR_NULL, &verbatim));
	if (!str_eq(buf_view(&one), buf_view(&two)))
		fail_msg("%s again: %.*s is not %.*s", hex, STR_ARG(buf_view(&one)), STR_ARG(buf_view(&two)));
}

static void test_pb_to_json(void **state)
{
	const struct schema_type *cm = &core_v1_config_map_type, *pod = &core_v1_pod_type, *volume = &core_v1_volume_type;
	static const char *const config_maps[] = {
		"", "12060a0161120131", "12060a016212013112060a0161120132" /* unsorted */, "12060a016112013112060a0161120132" /* twice */,
		"120012030a0161" /* entries without key, value */, "1a050a01611200", "1a030a0161", "2000", "2001", "20012000",
		"0a030a0161" "0a031a0162" /* metadata in two parts */, "12060a0161120131" "2001" "12060a0162120132" /* a map in two parts */,
		"c03e01" "c23e0141", "c13e0102030405060708", "0a05", "08", "0000", "12040a0161",
	};

	for (size_t i = 0; i < sizeof config_maps / sizeof *config_maps; i++)
		direct(cm, config_maps[i]);
	/* inlined members, in one part and in two; the zero time; packed numbers; a bad quantity; a union */
	direct(volume, "0a016112020a00");
	direct(volume, "12020a000a0161" "12021200");
	direct(volume, "12050a030a0178");
	direct(pod, "0a0f4200");
	/* managed fields' text: as it is written, with white space, with what HTML escapes, not JSON, empty */
	direct(pod, "0a118a010e3a0c0a0a7b22663a61223a7b7d7d");
	direct(pod, "0a138a01103a0e0a0c7b22663a61223a207b7d207d");
	direct(pod, "0a138a01103a0e0a0c7b22663a3c613e223a7b7d7d");
	direct(pod, "0a0e8a010b3a090a077b22663a61223a");
	direct(pod, "0a078a01043a020a00");
	direct(pod, "0a0d420b0880928db398feffffff01");
	direct(&core_v1_pod_security_context_type, "2001" "2202ac02" "20ffffffffffffffffff01");
	direct(&core_v1_pod_security_context_type, "20012002");
	direct(&core_v1_resource_requirements_type, "0a0a0a0163120508030a0178");
	direct(&core_v1_resource_requirements_type, "0a0c0a0163120708030a033530306d");
	direct(&core_v1_service_port_type, "2206080010501a00");
	direct(&core_v1_service_port_type, "2206080110001a0161");
	direct(&apiextensions_v1_json_schema_props_type, "c201040a022a0161");
}

/* An encoder with a limit says so and leaves what was there. */
static void test_limits(void **state)
{
	buf_cleanup struct buf b = {.limit = 40};
	struct core_v1_pod pod = {.kind = STR("Pod"), .api_version = STR("v1")};

	buf_puts(&b, "before");
	json_encode(&b, &core_v1_pod_type, &pod);
	assert_true(b.overflow);
	assert_str(buf_view(&b), "before");
	b.overflow = false;
	object_encode(&b, MEDIA_PROTOBUF, &core_v1_pod_type, &pod);
	assert_true(b.overflow);
	assert_str(buf_view(&b), "before");
	b.overflow = false;
	b.limit = 1000;
	object_encode(&b, MEDIA_PROTOBUF, &core_v1_pod_type, &pod);
	assert_false(b.overflow);
	assert_true(b.n > 6 && memcmp(b.p, "beforek8s", 9) == 0);
}

/* JSON within objects that clients send is such that a tree of the whole can hold it, in any format. */
static void test_json_within(void **state)
{
	static const struct {
		const char *before, *more, *after; /* more: this often */
		int times;
		bool fits;
	} cases[] = {
		{"{\"a\":1e308}", "", "", 0, true}, {"{\"a\":1e309}", "", "", 0, false}, {"[-1e400]", "", "", 0, false}, {"0.1e-999", "", "", 0, true},
		{"1", "0", "", 308, true}, {"1", "0", "", 309, false}, {"1", "0", "e99", 250, false}, {"", "[", "", 120, true}, {"", "[", "", 130, false},
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		arena_cleanup struct arena a = {0};
		buf_cleanup struct buf raw = {0}, json = {0}, pb = {0};
		struct apps_v1_controller_revision r = {.kind = STR("ControllerRevision"), .api_version = STR("apps/v1")}, out = {0};
		struct error *e;
		struct jv tree;

		buf_puts(&raw, cases[i].before);
		for (int k = 0; k < cases[i].times; k++)
			buf_puts(&raw, cases[i].more);
		for (int k = 0; *cases[i].more == '[' && k < cases[i].times; k++)
			buf_putc(&raw, ']');
		buf_puts(&raw, cases[i].after);
		r.data = buf_view(&raw);
		buf_printf(&json, "{\"data\":%.*s}", STR_ARG(r.data));
		e = json_decode(&a, &apps_v1_controller_revision_type, buf_view(&json), NULL, &out);
		assert_int_equal(!e, cases[i].fits);
		error_free(e);
		object_encode(&pb, MEDIA_PROTOBUF, &apps_v1_controller_revision_type, &r);
		e = object_decode(&a, MEDIA_PROTOBUF, &apps_v1_controller_revision_type, buf_view(&pb), NULL, &out);
		assert_int_equal(!e, cases[i].fits);
		error_free(e);
		if (cases[i].fits)
			jv_from_object(&a, &apps_v1_controller_revision_type, &out, &tree);
	}
}

static void test_peek(void **state)
{
	arena_cleanup struct arena a = {0};
	struct str v, k;

	assert_ok(object_peek(&a, MEDIA_JSON,
			      STR(" {\"metadata\":{\"kind\":\"x\"},\"kind\":\"Node\",\"kind\":\"P\\u006fd\",\"kind\":"
				  "null,\"APIVersion\":\"v1\"}"),
			      true, &v, &k));
	assert_str(v, "v1");
	assert_str(k, "Pod");
	assert_ok(object_peek(&a, MEDIA_JSON, STR("{\"Kind\":\"Node\",\"kind\":\"Pod\",\"KIND\":\"Node\"}"), false, &v,
			      &k));
	assert_str(k, "Pod");
	assert_ok(object_peek(&a, MEDIA_JSON, STR("{\"a\":[1,{}]}"), true, &v, &k));
	assert_true(!v.n && !k.n);
	assert_ok(object_peek(&a, MEDIA_YAML, STR("# c\nkind: Pod\napiVersion: v1\n"), true, &v, &k));
	assert_str(k, "Pod");
	static const char *const bad[] = {"", "[]", "{", "{\"kind\"", "{\"kind\":", "{\"kind\":\"a\"", "{\"kind\":1}", "{\"kind\":\"a\",}", "{x"};

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct error *e = object_peek(&a, MEDIA_JSON, str_from(bad[i]), true, &v, &k);

		if (!e)
			fail_msg("%s was read", bad[i]);
		assert_true(str_has_prefix(str_from(e->message), STR("couldn't get version/kind; json parse error: ")));
		error_free(e);
	}
}

static void yaml(const char *in, const char *want)
{
	buf_cleanup struct buf b = {0};

	assert_ok(yaml_to_json(str_from(in), NULL, &b));
	assert_str(buf_view(&b), want);
}

static void yaml_fails(const char *in, const char *message)
{
	buf_cleanup struct buf b = {0};
	struct error *e = yaml_to_json(str_from(in), NULL, &b);

	if (!e)
		fail_msg("%s was read as %.*s", in, STR_ARG(buf_view(&b)));
	assert_string_equal(e->message, message);
	error_free(e);
}

static void test_yaml(void **state)
{
	yaml("", "null");
	yaml("[y, Yes, on, n, NO, off, true, FALSE, ~, null, yEs]",
	     "[true,true,true,false,false,false,true,false,null,null,\"yEs\"]");
	yaml("[0, 010, 0o10, 08, 0x1F, -0b11, 1_000, +5, 18446744073709551615, -9223372036854775808, 18446744073709551616]",
	     "[0,8,8,8,31,-3,1000,5,18446744073709551615,-9223372036854775808,18446744073709552000]");
	yaml("[1.0, 1e3, .5, -1.5E-2, 1., 1e, 1.2.3, 1-2, 2001-01-01, 12:30:45, 1e400]",
	     "[1,1000,0.5,-0.015,1,\"1e\",\"1.2.3\",\"1-2\",\"2001-01-01\",\"12:30:45\",\"1e400\"]");
	yaml("['1', \"yes\", !!str 5, !!int '7', !custom x, !!binary aGk=, !!float 1]", "[\"1\",\"yes\",\"5\",7,\"x\",\"hi\",1]");
	yaml("1: a\ntrue: b\n1.5: c\nb: d\n\"2\": e\n", "{\"1\":\"a\",\"1.5\":\"c\",\"2\":\"e\",\"b\":\"d\",\"true\":\"b\"}");
	yaml("a: |\n  x\n  y\nb: >-\n  x\n  y\nc: \"\\u263a\\t\"\n", "{\"a\":\"x\\ny\\n\",\"b\":\"x y\",\"c\":\"\xe2\x98\xba\\t\"}");
	yaml("base: &b {x: 1, z: 2}\nm:\n  <<: *b\n  z: 3\nl: [*b, *b]\n",
	     "{\"base\":{\"x\":1,\"z\":2},\"l\":[{\"x\":1,\"z\":2},{\"x\":1,\"z\":2}],\"m\":{\"x\":1,\"z\":3}}");
	yaml("a: &a {k: 1}\nb: &b {k: 2, l: 2}\nm: {<<: [*a, *b]}\n", "{\"a\":{\"k\":1},\"b\":{\"k\":2,\"l\":2},\"m\":{\"k\":1,\"l\":2}}");
	yaml("a: 1\na: 2\n", "{\"a\":2}");
	yaml("a: &x 1\nb: &x 2\nc: *x\n", "{\"a\":1,\"b\":2,\"c\":2}");
	yaml("{\"json\": [1, {\"x\": null}], \"e\": \"\\/\"}", "{\"e\":\"/\",\"json\":[1,{\"x\":null}]}");
	yaml("--- a\n--- b\n", "\"a\"");

	yaml_fails("a: *nope\n", "yaml: unknown anchor 'nope' referenced");
	yaml_fails("a: &a [*a]\n", "yaml: anchor 'a' value contains itself");
	yaml_fails("a: b: c\n", "yaml: mapping values are not allowed in this context");
	yaml_fails("x: 1\na: b: c\n", "yaml: line 2: mapping values are not allowed in this context");
	yaml_fails("x: 1\n\ty: 1\n", "yaml: line 2: found a tab character that violates indentation");
	yaml_fails("a: .inf\n", "json: unsupported value: +Inf");
	yaml_fails("a: !!int x\n", "yaml: cannot decode `x` as a !!int");
	yaml_fails("m: {<<: 1}\n", "yaml: line 1: map merge requires map or sequence of maps as the value");

	/* duplicates under strict reading, in upstream's form */
	arena_cleanup struct arena a = {0};
	buf_cleanup struct buf b = {0};
	struct decode_report report = {.arena = &a};

	assert_ok(yaml_to_json(STR("kind: A\nspec:\n  a: 1\n  b: 1\n  a: 2\nkind: B\n"), &report, &b));
	assert_int_equal(report.problems.n, 1);
	assert_str(report.problems.v[0], "yaml: unmarshal errors:\n  line 5: key \"a\" already set in map\n  line 6: key \"kind\" already set in map");

	/* the billion laughs */
	b.n = 0;
	buf_puts(&b, "a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
	for (int i = 1; i < 12; i++)
		buf_printf(&b, "a%d: &a%d [*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d]\n", i, i, i - 1, i - 1, i - 1, i - 1, i - 1,
			   i - 1, i - 1, i - 1, i - 1);
	buf_cleanup struct buf out = {0};
	struct error *e = yaml_to_json(buf_view(&b), NULL, &out);

	assert_non_null(e);
	assert_string_equal(e->message, "yaml: document contains excessive aliasing");
	error_free(e);
}

static void to_yaml(const char *json, const char *want)
{
	buf_cleanup struct buf b = {0};

	assert_ok(json_to_yaml(str_from(json), &b));
	assert_str(buf_view(&b), want);
}

static void no_yaml(const char *json)
{
	buf_cleanup struct buf b = {0};
	error_cleanup struct error *e = json_to_yaml(str_from(json), &b);

	assert_true(error_is(e, 500, ""));
}

static void test_yaml_write(void **state)
{
	buf_cleanup struct buf nodes = {0};

	assert_ok(json_to_yaml_nodes(STR("[\"N\",\"on\",\"True\",\"f\",\"1:30\",\"null\",\"1\"]"), &nodes));
	assert_str(buf_view(&nodes), "- N\n- on\n- \"True\"\n- f\n- 1:30\n- \"null\"\n- \"1\"\n");
	no_yaml("[\"\x7f\"]");
	no_yaml("[\"\xc2\x80\"]");
	no_yaml("[\"\xc2\x9f\"]");
	no_yaml("[\"\xef\xbf\xbf\"]");
	to_yaml("[\"~\xc2\xa0\xef\xbf\xbd\"]", "- ~\xc2\xa0\xef\xbf\xbd\n");
	to_yaml("{\"b\":{},\"a10\":[],\"a2\":[{\"x\":1,\"y\":[1,2]},\"s\"],\"A\":null}",
		"A: null\na2:\n- x: 1\n  \"y\":\n  - 1\n  - 2\n- s\na10: []\nb: {}\n");
	to_yaml("[\"\",\"yes\",\"1\",\"1.5\",\"~\",\"2001-01-01\",\"1:30\",\"a: b\",\"- a\",\" x\",\"#\",\"x #y\",\"it's\",\"\\u0007\",\"null\",\"0x1F\"]",
		"- \"\"\n- \"yes\"\n- \"1\"\n- \"1.5\"\n- \"~\"\n- \"2001-01-01\"\n- \"1:30\"\n- 'a: b'\n- '- a'\n- ' x'\n- '#'\n- 'x #y'\n- it's\n- \"\\a\"\n- \"null\"\n- \"0x1F\"\n");
	to_yaml("{\"a\":\"x\\ny\\n\",\"b\":\"x\\ny\",\"c\":1.5,\"d\":1e21,\"e\":1234567.5,\"f\":true}",
		"a: |\n  x\n  y\nb: |-\n  x\n  y\nc: 1.5\nd: 1e+21\ne: 1.2345675e+06\nf: true\n");
	to_yaml("{\"m\":\"The quick brown fox jumps over the lazy dog and then it runs away from the dog as fast as it can\"}",
		"m: The quick brown fox jumps over the lazy dog and then it runs away from the dog\n  as fast as it can\n");
	to_yaml("1", "1\n");
}

static void test_yaml_documents(void **state)
{
	struct str rest = STR("# head\n---\na: 1\n---\n# only a comment\n--- {b: 2}\n---x: 1\n---\n\n"), doc;

	assert_true(yaml_next_document(&rest, &doc));
	assert_str(doc, "---\na: 1\n");
	assert_true(yaml_next_document(&rest, &doc));
	assert_str(doc, "--- {b: 2}\n---x: 1\n");
	assert_false(yaml_next_document(&rest, &doc));
	rest = STR("a: 1");
	assert_true(yaml_next_document(&rest, &doc));
	assert_str(doc, "a: 1");
	assert_false(yaml_next_document(&rest, &doc));
}

static void cbor(const char *hex, const char *want)
{
	arena_cleanup struct arena a = {0};
	buf_cleanup struct buf b = {0};

	assert_ok(cbor_to_json(bytes_of(&a, hex), NULL, &b));
	assert_str(buf_view(&b), want);
}

static void cbor_fails(const char *hex, const char *part)
{
	arena_cleanup struct arena a = {0};
	buf_cleanup struct buf b = {0};
	struct error *e = cbor_to_json(bytes_of(&a, hex), NULL, &b);

	if (!e)
		fail_msg("%s was read as %.*s", hex, STR_ARG(buf_view(&b)));
	if (!strstr(e->message, part))
		fail_msg("%s: %s", hex, e->message);
	error_free(e);
}

static void to_cbor(const char *json, const char *hex)
{
	arena_cleanup struct arena a = {0};
	buf_cleanup struct buf b = {0};

	assert_ok(json_to_cbor(str_from(json), &b));
	struct str want = bytes_of(&a, hex);

	if (!str_eq(buf_view(&b), want)) {
		for (size_t i = 0; i < b.n; i++)
			fprintf(stderr, "%02x", (uint8_t)b.p[i]);
		fail_msg(" is not %s", hex);
	}
}

/* Examples are RFC 8949's, Appendix A. */
static void test_cbor(void **state)
{
	cbor("d9d9f7a2416101626262820203", "{\"a\":1,\"bb\":[2,3]}");
	cbor("1b7fffffffffffffff", "9223372036854775807");
	cbor("c11a514b67b0", "\"2013-03-21T20:04:00Z\"");
	cbor("3b7fffffffffffffff", "-9223372036854775808");
	cbor("f93e00", "1.5");
	cbor("f90001", "5.960464477539063e-8");
	cbor("fa47c35000", "100000");
	cbor("fbc010666666666666", "-4.1");
	cbor("83f4f5f6", "[false,true,null]");
	cbor("9f018202039f0405ffff", "[1,[2,3],[4,5]]");
	cbor("bf6161015f42010243030405ff02ff", "{\"a\":1,\"\\u0001\\u0002\\u0003\\u0004\\u0005\":2}");
	cbor("7f657374726561646d696e67ff", "\"streaming\"");
	cbor("d64401020304", "\"AQIDBA==\"");
	cbor("d543fbff01", "\"-_8B\"");
	cbor("d74401020304", "\"01020304\"");
	cbor("c074323031332d30332d32315432303a30343a30305a", "\"2013-03-21T20:04:00Z\"");

	cbor_fails("", "unexpected EOF");
	cbor_fails("a1", "unexpected EOF");
	cbor_fails("6261", "unexpected EOF");
	cbor_fails("9f01", "unexpected EOF");
	cbor_fails("a10102", "map key is not a string");
	cbor_fails("f97e00", "NaN");
	cbor_fails("f97c00", "NaN and infinity");
	cbor_fails("c249010000000000000000", "big integers");
	cbor_fails("3bffffffffffffffff", "does not fit");
	cbor_fails("1bffffffffffffffff", "does not fit");
	cbor_fails("a2416101616102", "duplicate map key a");
	cbor_fails("f7", "unsupported simple value");
	cbor_fails("62c328", "invalid UTF-8");
	cbor_fails("0101", "extraneous data starting at index 1");
	cbor_fails("ff", "unexpected break");
	cbor_fails("1c", "invalid additional information");

	to_cbor("{\"bb\":[1,-1,null,true],\"a\":\"x\"}", "d9d9f7a24161417842626284" "0120f6f5");
	to_cbor("[1.5,100000.5,3.1,5.960464477539063e-8,65504.5,-0.25]",
		"d9d9f786" "f93e00" "fa47c35040" "fb4008cccccccccccd" "f90001" "fa477fe080" "f9b400");
	to_cbor("[24,256,65536,4294967296]", "d9d9f7841818190100" "1a00010000" "1b0000000100000000");

	/* bytes of types that are known, in objects, lists and events; an event holds a document */
	to_cbor("{\"apiVersion\":\"v1\",\"kind\":\"Secret\",\"data\":{\"a\":\"YWJj\",\"b\":\"\"}}",
		"d9d9f7a34464617461a24161d6436162634162d640446b696e64465365637265744a61706956657273696f6e427631");
	to_cbor("{\"apiVersion\":\"v1\",\"kind\":\"SecretList\",\"items\":[{\"data\":{\"a\":\"YWJj\"}}]}",
		"d9d9f7a3446b696e644a5365637265744c697374456974656d7381a14464617461a14161d6436162634a61706956657273696f6e427631");
	to_cbor("{\"type\":\"ADDED\",\"object\":{\"apiVersion\":\"v1\",\"kind\":\"Secret\",\"data\":{\"a\":\"YWJj\",\"b\":\"\"}}}",
		"d9d9f7a24474797065454144444544466f626a656374d9d9f7a34464617461a24161d6436162634162d640446b696e64465365637265744a61706956657273696f6e427631");
	to_cbor("{\"apiVersion\":\"x/v1\",\"kind\":\"Secret\",\"data\":{\"a\":\"YWJj\"}}",
		"d9d9f7a34464617461a141614459574a6a446b696e64465365637265744a61706956657273696f6e44782f7631");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_json_forms), cmocka_unit_test(test_json_errors), cmocka_unit_test(test_merged_errors),
		cmocka_unit_test(test_json_strict),
		cmocka_unit_test(test_depth), cmocka_unit_test(test_protobuf), cmocka_unit_test(test_pb_to_json), cmocka_unit_test(test_limits),
		cmocka_unit_test(test_json_within),
		cmocka_unit_test(test_peek), cmocka_unit_test(test_yaml), cmocka_unit_test(test_yaml_write),
		cmocka_unit_test(test_yaml_documents), cmocka_unit_test(test_cbor),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
