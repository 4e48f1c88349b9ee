#include "../test.h"

#include "schema/codec.h"
#include "schema/selector.h"
#include "schema/validate.h"

static struct str_map labels_of(struct arena *a, const char *text)
{
	struct str_map m = {0};
	struct str rest = str_from(text);

	while (rest.n) {
		struct str pair = str_cut(&rest, ','), key = str_cut(&pair, '=');

		str_map_set(a, &m, key, pair);
	}
	return m;
}

static void label_selectors(void **state)
{
	static const struct {
		const char *text, *format, *yes, *no; /* label sets that match and do not, split by spaces */
	} cases[] = {
		{"", "", "a=1 b=2", ""},
		{"x=a,y=b", "x=a,y=b", "x=a,y=b x=a,y=b,z=c", "x=a x=a,y=c"},
		{"y==b , x!=a", "x!=a,y==b", "y=b x=c,y=b", "x=a,y=b x=c"},
		{"x in (b,a,b)", "x in (a,b)", "x=a x=b,y=1", "x=c y=a"},
		{"x notin (a,b)", "x notin (a,b)", "x=c y=1", "x=a x=b"},
		{"x", "x", "x= x=1", "y=1"},
		{"!x", "!x", "y=1", "x= x=1"},
		{"x>5", "x>5", "x=6", "x=5 x=a y=6"},
		{"x<2", "x<2", "x=1 x=-7", "x=2 x=3"},
		{"x=", "x=", "x=", "x=1 y=1"},
		{"x in (),y", "x in (),y", "x=,y=1", "x=1,y=1"},
		{"x in (,a)", "x in (,a)", "x= x=a", "x=b"},
		{"in in (notin)", "in in (notin)", "in=notin", "in=x"},
		{"example.com/a=b", "example.com/a=b", "example.com/a=b", "a=b"},
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		arena_cleanup struct arena a = {0};
		const struct selector *s;

		assert_ok(label_selector_parse(&a, str_from(cases[i].text), &s));
		assert_str(selector_format(&a, s), cases[i].format);
		for (int want = 0; want < 2; want++) {
			struct str rest = str_from(want ? cases[i].yes : cases[i].no);

			while (rest.n) {
				struct str set = str_cut(&rest, ' ');
				struct str_map m = labels_of(&a, arena_strz(&a, set));

				if (selector_matches(s, &m) != want)
					fail_msg("%s on %.*s", cases[i].text, STR_ARG(set));
			}
		}
	}
}

static void label_selector_errors(void **state)
{
	static const char *const cases[][2] = {
		{"x=a||y=b", "unable to parse requirement: values[0][x]: Invalid value: \"a||y\": a valid label must be an empty string "
			     "or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
			     "character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
			     "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"},
		{",", "found ',', expected: !, identifier, or 'end of string'"},
		{"a,", "found '', expected: identifier after ','"},
		{"a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"},
		{"a in x", "unable to parse requirement: found 'x' expected: '('"},
		{"a in (x y)", "unable to parse requirement: found 'y', expected: ',' or ')'"},
		{"a in (x", "unable to parse requirement: found '', expected: ',' or ')'"},
		{"!", "unable to parse requirement: found '', expected: identifier"},
		{"a=(", "unable to parse requirement: found '(', expected: identifier"},
		{"a>b", "unable to parse requirement: values[0]: Invalid value: \"b\": for 'Gt', 'Lt' operators, the value must be an "
			"integer"},
		{"!a=b", "found '=', expected: ',' or 'end of string'"},
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		arena_cleanup struct arena a = {0};
		const struct selector *s;
		error_cleanup struct error *e = label_selector_parse(&a, str_from(cases[i][0]), &s);

		if (!error_is(e, 400, "BadRequest"))
			fail_msg("%s: %s", cases[i][0], error_message(e));
		assert_string_equal(e->message, cases[i][1]);
	}
}

static void label_selector_objects(void **state)
{
	arena_cleanup struct arena a = {0};
	const struct selector *s;
	struct meta_v1_label_selector ls = {0};

	assert_ok(label_selector_from(&a, NULL, &s));
	assert_true(selector_is_nothing(s));
	assert_false(selector_matches(s, NULL));
	assert_ok(label_selector_from(&a, &ls, &s));
	assert_true(selector_matches(s, NULL));
	str_map_set(&a, API_MAP(&ls.match_labels), STR("b"), STR("1"));
	struct meta_v1_label_selector_requirement *r = arena_push(&a, &ls.match_expressions);

	r->key = STR("a");
	r->operator = STR("In");
	*arena_push(&a, &r->values) = STR("y");
	*arena_push(&a, &r->values) = STR("x");
	assert_ok(label_selector_from(&a, &ls, &s));
	assert_str(selector_format(&a, s), "a in (x,y),b=1");
	r->operator = STR("Like");
	error_cleanup struct error *e = label_selector_from(&a, &ls, &s);

	assert_string_equal(error_message(e), "\"Like\" is not a valid label selector operator");
}

static void field_selectors(void **state)
{
	arena_cleanup struct arena a = {0};
	const struct selector *s;
	struct str key, value;
	bool negated;

	assert_ok(field_selector_parse(&a, STR("metadata.name=x,status.phase!=Running,spec.nodeName=="), &s));
	assert_true(field_selector_get(s, 0, &key, &value, &negated));
	assert_str(key, "metadata.name");
	assert_str(value, "x");
	assert_false(negated);
	assert_true(field_selector_get(s, 1, &key, &value, &negated)); /* terms stand in the order of their text */
	assert_str(key, "spec.nodeName");
	assert_str(value, "");
	assert_false(negated);
	assert_true(field_selector_get(s, 2, &key, &value, &negated));
	assert_str(value, "Running");
	assert_true(negated);
	assert_false(field_selector_get(s, 3, &key, &value, &negated));
	struct str_map m = labels_of(&a, "metadata.name=x");

	assert_true(selector_matches(s, &m)); /* an absent field is "" */
	assert_ok(field_selector_parse(&a, STR("a=x\\,y\\=\\\\z"), &s));
	assert_true(field_selector_get(s, 0, &key, &value, &negated));
	assert_str(value, "x,y=\\z");
	assert_str(selector_format(&a, s), "a=x\\,y\\=\\\\z");
	error_cleanup struct error *e = field_selector_parse(&a, STR("nonsense"), &s);

	assert_string_equal(error_message(e), "invalid selector: 'nonsense'; can't understand 'nonsense'");
	error_cleanup struct error *e2 = field_selector_parse(&a, STR("a=b=c"), &s);

	assert_true(error_is(e2, 400, "BadRequest"));
}

static void names(void **state)
{
	arena_cleanup struct arena a = {0};
	char long_[300];

	memset(long_, 'a', sizeof long_);
#define OK(f, lit) assert_null(f(&a, STR(lit)))
#define BAD(f, lit) assert_non_null(f(&a, STR(lit)))
	OK(validate_dns1123_label, "a-1");
	BAD(validate_dns1123_label, "-a");
	BAD(validate_dns1123_label, "A");
	BAD(validate_dns1123_label, "");
	assert_string_equal(validate_dns1123_label(&a, STR("a.b")), "must not contain dots");
	assert_string_equal(validate_dns1123_label(&a, str_of(long_, 64)), "must be no more than 63 characters");
	OK(validate_dns1123_subdomain, "a.b-c.1");
	BAD(validate_dns1123_subdomain, "a..b");
	BAD(validate_dns1123_subdomain, "a.");
	OK(validate_dns1035_label, "a1");
	BAD(validate_dns1035_label, "1a");
	OK(validate_wildcard_dns1123_subdomain, "*.a.b");
	BAD(validate_wildcard_dns1123_subdomain, "*a.b");
	OK(validate_qualified_name, "a.B_c-1");
	OK(validate_qualified_name, "k8s.io/A");
	BAD(validate_qualified_name, "/a");
	BAD(validate_qualified_name, "a/");
	BAD(validate_qualified_name, "a/b/c");
	BAD(validate_qualified_name, "");
	OK(validate_label_value, "");
	BAD(validate_label_value, "a b");
	OK(validate_c_identifier, "_a1");
	BAD(validate_c_identifier, "1a");
	OK(validate_env_var_name, "1 a");
	BAD(validate_env_var_name, "a=b");
	OK(validate_config_map_key, "a.b_C-1");
	BAD(validate_config_map_key, "..a");
	BAD(validate_config_map_key, "a/b");
	OK(validate_port_name, "http-1");
	BAD(validate_port_name, "1");
	BAD(validate_port_name, "a--b");
	BAD(validate_port_name, "averyveryverylongname");
	OK(validate_ip, "10.0.0.1");
	OK(validate_ip, "::");
	OK(validate_ip, "2001:db8::1");
	OK(validate_ip, "1:2:3:4:5:6:7:8");
	OK(validate_ip, "::1.2.3.4");
	BAD(validate_ip, "::ffff:1.2.3.4");
	BAD(validate_ip, "010.0.0.1");
	BAD(validate_ip, "10.0.0");
	BAD(validate_ip, "10.0.0.256");
	BAD(validate_ip, "1::2::3");
	BAD(validate_ip, "1:2:3:4:5:6:7:8:9");
	BAD(validate_ip, "1:2:3:4:5:6:7::8");
	BAD(validate_ip, "12345::");
	BAD(validate_ip, "fe80::1%eth0");
	OK(validate_cidr, "10.0.0.0/8");
	OK(validate_cidr, "2001:db8::/64");
	BAD(validate_cidr, "10.0.0.1/8");
	BAD(validate_cidr, "10.0.0.0/33");
	BAD(validate_cidr, "10.0.0.0/08");
	BAD(validate_cidr, "10.0.0.0");
	assert_true(cidr_within(STR("10.1.0.0/16"), STR("10.0.0.0/8")));
	assert_true(cidr_within(STR("fd00:1::/32"), STR("fd00::/8")));
	assert_false(cidr_within(STR("10.0.0.0/8"), STR("10.0.0.0/8")));
	assert_false(cidr_within(STR("11.1.0.0/16"), STR("10.0.0.0/8")));
	assert_false(cidr_within(STR("fd00::/64"), STR("10.0.0.0/8")));
	assert_false(cidr_within(STR("x"), STR("10.0.0.0/8")));
	OK(validate_percent, "10%");
	BAD(validate_percent, "%");
	BAD(validate_path_segment, "a/b");
	OK(validate_path_segment, "system:node");
#undef OK
#undef BAD
}

static void field_error_lists(void **state)
{
	arena_cleanup struct arena a = {0};
	struct field_errors e = {.arena = &a};

	assert_null(field_errors_status(&e, STR(""), STR("Pod"), STR("x")));
	const struct field_path *spec = FIELD_ROOT("spec"), *list = FIELD_CHILD(spec, "containers");
	const struct field_path *first = FIELD_INDEX(list, 0);

	field_required(&e, FIELD_CHILD(first, "name"), "");
	struct str valid[] = {STR("Always"), STR("Never")};

	field_not_supported(&e, FIELD_CHILD(spec, "restartPolicy"), STR("\"Often\""), valid, 2);
	field_invalid_int(&e, FIELD_KEY(FIELD_CHILD(spec, "m"), STR("k.v/x")), -1, "must be greater than or equal to %d", 0);
	field_too_long(&e, FIELD_ROOT("metadata"), 1);
	struct error *s = field_errors_status(&e, STR("apps"), STR("Thing"), STR("x"));

	assert_true(error_is(s, 422, "Invalid"));
	assert_string_equal(s->message,
			    "Thing.apps \"x\" is invalid: [spec.containers[0].name: Required value, spec.restartPolicy: "
			    "Unsupported value: \"\\\"Often\\\"\": supported values: \"Always\", \"Never\", spec.m[k.v/x]: "
			    "Invalid value: -1: must be greater than or equal to 0, metadata: Too long: may not be more than 1 byte]");
	assert_int_equal(s->n_causes, 4);
	assert_string_equal(s->causes[0].reason, "FieldValueRequired");
	assert_string_equal(s->causes[0].field, "spec.containers[0].name");
	assert_string_equal(s->causes[0].message, "Required value");
	assert_string_equal(s->group, "apps");
	error_free(s);
}

static void objects(void **state)
{
	static const struct {
		const struct schema_type *t;
		const char *in, *errors;
	} cases[] = {
		{&core_v1_pod_type,
		 "{\"spec\":{\"restartPolicy\":\"Often\",\"containers\":[{\"name\":\"a\",\"imagePullPolicy\":\"Never\",\"env\":[{}],"
		 "\"livenessProbe\":{\"httpGet\":{\"port\":1,\"httpHeaders\":[{\"name\":\"x\",\"value\":\"\"}]}}},{}],\"volumes\":[{\"name\":\"v\","
		 "\"nfs\":{\"server\":\"s\"}}]},\"status\":{\"phase\":\"Odd\",\"conditions\":[{}]}}",
		 "spec.volumes[0].nfs.path: Required value;spec.containers[0].env[0].name: Required value;spec.containers[1].name: Required value;"
		 "spec.restartPolicy: Unsupported value: \"Often\": supported values: \"Always\", \"Never\", \"OnFailure\";"},
		{&apps_v1_deployment_type, "{\"spec\":{\"template\":{\"metadata\":{\"ownerReferences\":[{}]}}}}", "spec.selector: Required value;"},
		{&core_v1_namespace_type, "{\"spec\":{\"finalizers\":[\"example.com/x\"]}}", ""},
		{&core_v1_persistent_volume_claim_type, "{\"spec\":{\"accessModes\":[\"ReadWriteOnce\",\"All\"]}}",
		 "spec.accessModes[1]: Unsupported value: \"All\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", "
		 "\"ReadWriteOncePod\";"},
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		arena_cleanup struct arena a = {0};
		struct field_errors e = {.arena = &a};
		buf_cleanup struct buf b = {0};
		void *obj = arena_alloc(&a, cases[i].t->size);

		assert_ok(json_decode(&a, cases[i].t, str_from(cases[i].in), NULL, obj));
		validate_object(&e, cases[i].t, obj, NULL);
		for (uint32_t k = 0; k < e.list.n; k++)
			buf_printf(&b, "%.*s: %.*s;", STR_ARG(e.list.v[k].field), STR_ARG(e.list.v[k].body));
		assert_string_equal(buf_z(&b), cases[i].errors);
	}
	/* A kind's own words for what the generic rules found too. */
	arena_cleanup struct arena a = {0};
	struct field_errors e = {.arena = &a, .once = true};

	field_required(&e, FIELD_ROOT("spec"), "");
	field_required(&e, FIELD_ROOT("spec"), "must be given");
	field_required(&e, FIELD_ROOT("spec"), "");
	assert_int_equal(e.list.n, 1);
	assert_str(e.list.v[0].body, "Required value: must be given");
}

/* Rules of the tables alone: must, min and max, formats; features that are off. */
static void table_rules(void **state)
{
	arena_cleanup struct arena a = {0};
	struct field_errors e = {.arena = &a};
	buf_cleanup struct buf b = {0};
	struct core_v1_pod *pod = arena_new(&a, struct core_v1_pod), *old = arena_new(&a, struct core_v1_pod);
	static const char off[] = "{\"spec\":{\"containers\":[{\"name\":\"a\",\"lifecycle\":{\"stopSignal\":\"SIGHUP\"}}]}}";

	assert_ok(json_decode(&a, &core_v1_pod_type, STR("{\"spec\":{\"securityContext\":{\"runAsUser\":-1},\"volumes\":[{\"name\":\"v\","
		"\"iscsi\":{\"targetPortal\":\"\",\"iqn\":\"x\",\"lun\":256}},{\"name\":\"g\",\"gitRepo\":{\"repository\":\"r\","
		"\"directory\":\"/../x\"}}]}}"), NULL, pod));
	validate_rules(&e, &core_v1_pod_type, pod, NULL);
	for (uint32_t k = 0; k < e.list.n; k++)
		buf_printf(&b, "%.*s: %.*s;", STR_ARG(e.list.v[k].field), STR_ARG(e.list.v[k].body));
	assert_string_equal(buf_z(&b),
			    "spec.volumes[0].iscsi.targetPortal: Required value;spec.volumes[1].gitRepo.directory: Invalid value: \"/../x\": must be a relative path;"
			    "spec.volumes[1].gitRepo.directory: Invalid value: \"/../x\": must not contain '..';"
			    "spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive;");
	/* dropped, unless it was there before */
	assert_ok(json_decode(&a, &core_v1_pod_type, str_from(off), NULL, pod));
	assert_ok(json_decode(&a, &core_v1_pod_type, str_from(off), NULL, old));
	drop_disabled_fields(&core_v1_pod_type, pod, old);
	assert_non_null(pod->spec.containers.v[0].lifecycle->stop_signal);
	drop_disabled_fields(&core_v1_pod_type, pod, NULL);
	assert_null(pod->spec.containers.v[0].lifecycle); /* nothing is left of it */
	assert_str(field_json(&a, &core_v1_container_type, &old->spec.containers.v[0], STR("lifecycle")), "{\"stopSignal\":\"SIGHUP\"}");
	assert_str(field_json(&a, &core_v1_container_type, &old->spec.containers.v[0], STR("env")), "null");
	assert_str(ip_canonical(&a, STR("::0001")), "::1");
	assert_str(cidr_canonical(&a, STR("10.1.2.3/8")), "10.0.0.0/8");
	assert_int_equal(ip_family(STR("::ffff:1.2.3.4")), 4);
	assert_int_equal(ip_scope(STR("169.254.1.1")), IP_LINK_LOCAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(label_selectors), cmocka_unit_test(table_rules), cmocka_unit_test(label_selector_errors),
		cmocka_unit_test(label_selector_objects), cmocka_unit_test(field_selectors),
		cmocka_unit_test(names), cmocka_unit_test(field_error_lists), cmocka_unit_test(objects),
	};

	return cmocka_run_group_tests_name("selector", tests, NULL, NULL);
}
