#include "../test.h"

#include "schema/managed_fields.h"

static struct jv parse(struct arena *a, const char *json)
{
	struct jv v;
	struct error *e = jv_parse(a, str_from(json), NULL, &v);

	if (e)
		fail_msg("%s: %s", json, e->message);
	return v;
}

static char *text_of(struct arena *a, const struct jv *v)
{
	buf_cleanup struct buf b = {0};

	if (v)
		jv_encode_sorted(&b, v);
	return arena_strz(a, buf_view(&b));
}

/* ---- sets ---- */

static const struct field_set *set(struct arena *a, const char *json)
{
	const struct field_set *s;
	struct error *e = field_set_parse(a, str_from(json), &s);

	if (e)
		fail_msg("%s: %s", json, e->message);
	return s;
}

static void assert_set(struct arena *a, const struct field_set *s, const char *json)
{
	buf_cleanup struct buf b = {0};

	field_set_encode(&b, s);
	assert_string_equal(buf_z(&b), json);
}

static void collect(void *ctx, struct str path)
{
	struct buf *b = ctx;

	buf_str(b, path);
	buf_putc(b, ' ');
}

static void sets(void **state)
{
	arena_cleanup struct arena a = {0};
	buf_cleanup struct buf b = {0};

	/* Order: fields, keys, values, indexes; each by value. */
	assert_set(&a, set(&a, "{\"i:10\":{},\"i:9\":{},\"v:\\\"b\\\"\":{},\"v:10\":{},\"v:9\":{},\"k:{\\\"n\\\":\\\"x\\\"}\":{},\"f:b\":{},\"f:a\":{}}"),
		   "{\"f:a\":{},\"f:b\":{},\"k:{\\\"n\\\":\\\"x\\\"}\":{},\"v:9\":{},\"v:10\":{},\"v:\\\"b\\\"\":{},\"i:9\":{},\"i:10\":{}}");
	assert_set(&a, set(&a, "{\"f:a\":{\".\":{},\"f:b\":{}},\"x:later\":{\"f:q\":{}}}"), "{\"f:a\":{\".\":{},\"f:b\":{}}}");
	assert_set(&a, set(&a, "{\"k:{\\\"b\\\":1,\\\"a\\\":\\\"2\\\"}\":{}}"), "{\"k:{\\\"a\\\":\\\"2\\\",\\\"b\\\":1}\":{}}");
	assert_set(&a, set(&a, "{}"), "{}");
	assert_set(&a, set(&a, "{\"f:a\\\"b\":{}}"), "{\"f:a\\\"b\":{}}");
	const struct field_set *x = set(&a, "{\"f:a\":{\".\":{},\"f:b\":{},\"f:c\":{}},\"f:d\":{}}");
	const struct field_set *y = set(&a, "{\"f:a\":{\"f:b\":{}},\"f:e\":{}}");

	assert_set(&a, field_set_union(&a, x, y), "{\"f:a\":{\".\":{},\"f:b\":{},\"f:c\":{}},\"f:d\":{},\"f:e\":{}}");
	assert_set(&a, field_set_difference(&a, x, y), "{\"f:a\":{\".\":{},\"f:c\":{}},\"f:d\":{}}");
	assert_set(&a, field_set_intersection(&a, x, y), "{\"f:a\":{\"f:b\":{}}}");
	assert_set(&a, field_set_recursive_difference(&a, x, set(&a, "{\"f:a\":{}}")), "{\"f:d\":{}}");
	assert_set(&a, field_set_leaves(&a, x), "{\"f:a\":{\"f:b\":{},\"f:c\":{}},\"f:d\":{}}");
	field_set_each(&a, set(&a, "{\"f:a\":{\".\":{},\"k:{\\\"n\\\":\\\"x\\\",\\\"p\\\":1}\":{\"f:i\":{}},\"v:\\\"q\\\"\":{},\"i:0\":{}}}"), collect, &b);
	assert_string_equal(buf_z(&b), ".a .a[=\"q\"] .a[0] .a[n=\"x\",p=1].i ");
	static const char *const bad[][2] = {
		{"{\"f\":{}}", "key must be 2 characters long:"}, {"{\"fx\":{}}", "missing colon: fx"},
		{"{\"v:nope\":{}}", "invalid character 'o' in literal null (expecting 'u')"},
		{"{\"i:x\":{}}", "invalid index: i:x"}, {"{\"f:a\":1}", "field sets are objects"},
	};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		const struct field_set *s;
		error_cleanup struct error *e = field_set_parse(&a, str_from(bad[i][0]), &s);

		assert_non_null(e);
		assert_string_equal(e->message, bad[i][1]);
	}
}

static void set_of_objects(void **state)
{
	arena_cleanup struct arena a = {0};
	struct jv pod = parse(&a, "{\"metadata\":{\"labels\":{\"a\":\"b\"},\"finalizers\":[\"x\"]},\"spec\":{\"nodeSelector\":{\"q\":\"r\"},"
				  "\"containers\":[{\"name\":\"c\",\"args\":[\"1\"],\"ports\":[{\"containerPort\":80}],\"resources\":"
				  "{\"limits\":{\"cpu\":\"1\"}}}]}}");

	assert_set(&a, field_set_of(&a, shape_of_type(&core_v1_pod_type), &pod),
		   "{\"f:metadata\":{\"f:finalizers\":{\"v:\\\"x\\\"\":{}},\"f:labels\":{\"f:a\":{}}},\"f:spec\":{\"f:containers\":"
		   "{\"k:{\\\"name\\\":\\\"c\\\"}\":{\".\":{},\"f:args\":{},\"f:name\":{},\"f:ports\":{\"k:{\\\"containerPort\\\":80,"
		   "\\\"protocol\\\":\\\"TCP\\\"}\":{\".\":{},\"f:containerPort\":{}}},\"f:resources\":{\"f:limits\":{\"f:cpu\":{}}}}},"
		   "\"f:nodeSelector\":{}}}");
}

/* ---- sequences of writes ---- */

struct step {
	char op;             /* 'a' apply, 'f' apply with force, 'u' update */
	const char *manager;
	const char *body;    /* configuration, or whole object for 'u' ("managedFields" as before unless it has its own) */
	const char *object;  /* without managedFields, NULL: not checked; "!message": conflict or error */
	const char *owners;  /* "manager op fields;..." NULL: not checked */
	const char *subresource;
};

static char *owners_of(struct arena *a, const struct jv *obj)
{
	const struct jv *list = jv_at(obj, "metadata", "managedFields", NULL);
	buf_cleanup struct buf b = {0};

	for (uint32_t i = 0; list && i < list->n; i++) {
		const struct jv *e = &list->items[i];

		buf_printf(&b, "%.*s %.*s ", STR_ARG(jv_str(jv_get(e, STR("manager")))), STR_ARG(jv_str(jv_get(e, STR("operation")))));
		jv_encode(&b, jv_get(e, STR("fieldsV1")));
		buf_putc(&b, ';');
	}
	return arena_strz(a, buf_view(&b));
}

static void run(struct shape shape, const char *version, const struct step *steps, size_t n)
{
	arena_cleanup struct arena a = {0};
	struct jv live = {0};
	bool exists = false;

	for (size_t i = 0; i < n; i++) {
		const struct step *s = &steps[i];
		static const char *const reset[] = {"status", NULL}, *const reset_spec[] = {"spec", NULL};
		struct managed_fields_request req = {
			.shape = shape,
			.api_version = str_from(version),
			.manager = str_from(s->manager),
			.subresource = str_from(s->subresource),
			.reset = s->subresource ? reset_spec : reset,
			.now = {1700000000 + (int64_t)i, 0, true},
		};
		struct jv body = parse(&a, s->body), out = {0};
		struct error *e;
		bool changed;

		if (s->op == 'u') {
			const struct jv *managed = exists ? jv_at(&live, "metadata", "managedFields", NULL) : NULL;

			if (managed && !jv_at(&body, "metadata", "managedFields", NULL))
				jv_set(&a, jv_sub(&a, &body, STR("metadata")), STR("managedFields"), *managed);
			out = body;
			e = managed_fields_update(&a, &req, exists ? &live : NULL, &out);
		} else {
			e = managed_fields_apply(&a, &req, exists ? &live : NULL, &body, s->op == 'f', &out, &changed);
		}
		if (s->object && s->object[0] == '!') {
			if (!e)
				fail_msg("step %zu: no error", i);
			assert_string_equal(e->message, s->object + 1);
			error_free(e);
			continue;
		}
		if (e)
			fail_msg("step %zu: %s", i, e->message);
		if (s->owners)
			assert_string_equal(owners_of(&a, &out), s->owners);
		if (s->object) {
			struct jv bare = jv_copy(&a, &out);

			jv_del(jv_get(&bare, STR("metadata")), STR("managedFields"));
			/* What a typed object always has is not worth writing in each case. */
			for (uint32_t k = 0; k < bare.n;) {
				struct jv *v = &bare.members[k].value;

				if (v->kind == JV_OBJECT && !v->n)
					jv_del(&bare, bare.members[k].key);
				else
					k++;
			}
			assert_string_equal(text_of(&a, &bare), s->object);
		}
		live = jv_copy_all(&a, &out);
		exists = true;
	}
}

#define RUN(type, version, ...)                                                                                        \
	do {                                                                                                           \
		const struct step steps_[] = {__VA_ARGS__};                                                            \
		run(shape_of_type(type), version, steps_, sizeof steps_ / sizeof *steps_);                             \
	} while (0)

#define CM(rest) "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"x\"}" rest "}"
#define CM_OUT(data) "{\"apiVersion\":\"v1\"," data "\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"x\"}}"

static void config_maps(void **state)
{
	/* Create by apply, a second applier, conflict, force, removal. */
	RUN(&core_v1_config_map_type, "v1",
	    {'a', "one", CM(",\"data\":{\"a\":\"1\",\"b\":\"2\"}"), CM_OUT("\"data\":{\"a\":\"1\",\"b\":\"2\"},"),
	     "one Apply {\"f:data\":{\"f:a\":{},\"f:b\":{}}};"},
	    {'a', "two", CM(",\"data\":{\"a\":\"1\",\"c\":\"3\"}"), CM_OUT("\"data\":{\"a\":\"1\",\"b\":\"2\",\"c\":\"3\"},"),
	     "one Apply {\"f:data\":{\"f:a\":{},\"f:b\":{}}};two Apply {\"f:data\":{\"f:a\":{},\"f:c\":{}}};"},
	    {'a', "two", CM(",\"data\":{\"a\":\"9\"}"), "!Apply failed with 1 conflict: conflict with \"one\": .data.a"},
	    {'a', "three", CM(",\"data\":{\"a\":\"9\",\"b\":\"9\"}"),
	     "!Apply failed with 3 conflicts: conflicts with \"one\":\n- .data.a\n- .data.b\nconflicts with \"two\":\n- .data.a"},
	    {'f', "two", CM(",\"data\":{\"a\":\"9\"}"), CM_OUT("\"data\":{\"a\":\"9\",\"b\":\"2\"},"),
	     "one Apply {\"f:data\":{\"f:b\":{}}};two Apply {\"f:data\":{\"f:a\":{}}};"},
	    /* What one gives up and nobody else owns goes. */
	    {'a', "one", CM(""), CM_OUT("\"data\":{\"a\":\"9\"},"), "two Apply {\"f:data\":{\"f:a\":{}}};"});
	/* Update takes fields from appliers; conflicts name updaters with their version. */
	RUN(&core_v1_config_map_type, "v1",
	    {'u', "create", CM(",\"data\":{\"a\":\"1\"}"), NULL, "create Update {\"f:data\":{\".\":{},\"f:a\":{}}};"},
	    {'a', "app", CM(",\"data\":{\"a\":\"2\"}"), "!Apply failed with 1 conflict: conflict with \"create\" using v1: .data.a"},
	    {'a', "app", CM(",\"data\":{\"a\":\"1\",\"b\":\"1\"}"), CM_OUT("\"data\":{\"a\":\"1\",\"b\":\"1\"},"),
	     "app Apply {\"f:data\":{\"f:a\":{},\"f:b\":{}}};create Update {\"f:data\":{\".\":{},\"f:a\":{}}};"},
	    {'u', "edit", CM(",\"data\":{\"a\":\"1\",\"b\":\"7\"}"), NULL,
	     "app Apply {\"f:data\":{\"f:a\":{}}};create Update {\"f:data\":{\".\":{},\"f:a\":{}}};edit Update {\"f:data\":{\"f:b\":{}}};"},
	    /* The same manager as applier and as updater is two. */
	    {'u', "app", CM(",\"data\":{\"a\":\"8\",\"b\":\"7\"}"), NULL,
	     "create Update {\"f:data\":{}};edit Update {\"f:data\":{\"f:b\":{}}};app Update {\"f:data\":{\"f:a\":{}}};"},
	    /* A removed field leaves every set. */
	    {'u', "edit", CM(",\"data\":{\"a\":\"8\"}"), NULL,
	     "create Update {\"f:data\":{}};app Update {\"f:data\":{\"f:a\":{}}};"});
	/* An empty list resets; objects without entries stay untracked until applied to. */
	RUN(&core_v1_config_map_type, "v1",
	    {'u', "create", CM(",\"data\":{\"a\":\"1\"}"), NULL, NULL},
	    {'u', "x", "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"x\",\"managedFields\":[{}]},\"data\":{\"a\":\"1\"}}",
	     NULL, ""},
	    {'u', "x", CM(",\"data\":{\"a\":\"2\"}"), NULL, ""},
	    {'a', "app", CM(",\"data\":{\"b\":\"1\"}"), NULL,
	     "app Apply {\"f:data\":{\"f:b\":{}}};before-first-apply Update {\"f:data\":{\".\":{},\"f:a\":{}}};"});
	RUN(&core_v1_config_map_type, "v1",
	    {'a', "one", "{\"apiVersion\":\"v1\",\"kind\":\"Secret\"}", "!invalid object type: v1, Kind=Secret"},
	    {'a', "one", CM(",\"nope\":1"), "!failed to create typed patch object (/x; /v1, Kind=ConfigMap): .nope: field not declared in schema"},
	    {'a', "one", CM(",\"data\":{\"a\":1}"), "!failed to create typed patch object (/x; /v1, Kind=ConfigMap): .data.a: expected string, got 1"},
	    {'a', "one", "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"managedFields\":[]}}",
	     "!metadata.managedFields must be nil"});
}

#define POD(spec) "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"x\"},\"spec\":{" spec "}}"
#define POD_OUT(spec) "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"x\"},\"spec\":{" spec "}}"
#define C(name) "{\"name\":\"" name "\"}"

static void lists(void **state)
{
	/* Order of merged lists: as the applier has it, others keep their place. */
	RUN(&core_v1_pod_type, "v1",
	    {'a', "one", POD("\"containers\":[" C("a") "," C("b") "," C("c") "]"), POD_OUT("\"containers\":[" C("a") "," C("b") "," C("c") "]"), NULL},
	    {'a', "two", POD("\"containers\":[" C("c") "," C("d") "," C("a") "]"),
	     POD_OUT("\"containers\":[" C("b") "," C("c") "," C("d") "," C("a") "]"), NULL},
	    /* One leaves out a and b: b goes, a is still two's. */
	    {'a', "one", POD("\"containers\":[" C("c") "]"), POD_OUT("\"containers\":[" C("c") "," C("d") "," C("a") "]"), NULL});
	/* Keys with defaults: ports of two protocols; a key that is left out is its default. */
	RUN(&core_v1_pod_type, "v1",
	    {'a', "one", POD("\"containers\":[{\"name\":\"a\",\"ports\":[{\"containerPort\":1},{\"containerPort\":1,\"protocol\":\"UDP\"}]}]"), NULL,
	     "one Apply {\"f:spec\":{\"f:containers\":{\"k:{\\\"name\\\":\\\"a\\\"}\":{\".\":{},\"f:name\":{},\"f:ports\":{"
	     "\"k:{\\\"containerPort\\\":1,\\\"protocol\\\":\\\"TCP\\\"}\":{\".\":{},\"f:containerPort\":{}},"
	     "\"k:{\\\"containerPort\\\":1,\\\"protocol\\\":\\\"UDP\\\"}\":{\".\":{},\"f:containerPort\":{},\"f:protocol\":{}}}}}}};"},
	    {'a', "two", POD("\"containers\":[{\"name\":\"a\",\"ports\":[{\"containerPort\":1,\"protocol\":\"TCP\",\"hostPort\":9}]}]"),
	     POD_OUT("\"containers\":[{\"name\":\"a\",\"ports\":[{\"containerPort\":1,\"hostPort\":9,\"protocol\":\"TCP\"},"
		     "{\"containerPort\":1,\"protocol\":\"UDP\"}]}]"), NULL},
	    /* a name is always written: an absent one is the empty one, which validation is left to refuse */
	    {'a', "two", POD("\"containers\":[{\"image\":\"x\"},{\"image\":\"y\"}]"),
	     "!failed to create typed patch object (/x; /v1, Kind=Pod): .spec.containers: duplicate entries for key [name=\"\"]"},
	    {'a', "two", POD("\"resourceClaims\":[null]"),
	     "!failed to create typed patch object (/x; /v1, Kind=Pod): .spec.resourceClaims: element 0: associative list with keys may not have a "
	     "null element"},
	    {'a', "two", POD("\"containers\":[" C("a") "," C("a") "]"),
	     "!failed to create typed patch object (/x; /v1, Kind=Pod): .spec.containers: duplicate entries for key [name=\"a\"]"});
	/* Sets and atomic lists. */
	RUN(&core_v1_pod_type, "v1",
	    {'a', "one", "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"x\",\"finalizers\":[\"a\",\"b\"]},\"spec\":{\"nodeSelector\":{\"a\":\"1\"}}}",
	     NULL, NULL},
	    {'a', "two", "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"x\",\"finalizers\":[\"c\",\"b\"]}}",
	     "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"finalizers\":[\"a\",\"c\",\"b\"],\"name\":\"x\"},\"spec\":{\"containers\":null,"
	     "\"nodeSelector\":{\"a\":\"1\"}}}", NULL},
	    {'a', "one", "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"x\"}}",
	     "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"finalizers\":[\"c\",\"b\"],\"name\":\"x\"}}", NULL},
	    {'a', "two", POD("\"nodeSelector\":{\"b\":\"1\"}"), NULL,
	     "two Apply {\"f:spec\":{\"f:nodeSelector\":{}}};"});
}

static void deployments(void **state)
{
#define DEPLOY(spec) "{\"apiVersion\":\"apps/v1\",\"kind\":\"Deployment\",\"metadata\":{\"name\":\"x\"},\"spec\":{" spec "}}"
	RUN(&apps_v1_deployment_type, "apps/v1",
	    {'a', "app", DEPLOY("\"replicas\":3,\"selector\":{\"matchLabels\":{\"a\":\"b\"}}"), NULL,
	     "app Apply {\"f:spec\":{\"f:replicas\":{},\"f:selector\":{}}};"},
	    {'u', "hpa", DEPLOY("\"replicas\":5,\"selector\":{\"matchLabels\":{\"a\":\"b\"}}"), NULL,
	     "app Apply {\"f:spec\":{\"f:selector\":{}}};hpa Update {\"f:spec\":{\"f:replicas\":{}}};"},
	    {'a', "app", DEPLOY("\"replicas\":3,\"selector\":{\"matchLabels\":{\"a\":\"b\"}}"),
	     "!Apply failed with 1 conflict: conflict with \"hpa\" using apps/v1: .spec.replicas"},
	    /* Status through the main resource is nobody's. */
	    {'u', "hpa", "{\"apiVersion\":\"apps/v1\",\"kind\":\"Deployment\",\"metadata\":{\"name\":\"x\"},\"spec\":{\"replicas\":5,\"selector\":"
			 "{\"matchLabels\":{\"a\":\"b\"}}},\"status\":{\"replicas\":5}}", NULL,
	     "app Apply {\"f:spec\":{\"f:selector\":{}}};hpa Update {\"f:spec\":{\"f:replicas\":{}}};"},
	    {'u', "controller", "{\"apiVersion\":\"apps/v1\",\"kind\":\"Deployment\",\"metadata\":{\"name\":\"x\"},\"spec\":{\"replicas\":5,\"selector\":"
			 "{\"matchLabels\":{\"a\":\"b\"}}},\"status\":{\"replicas\":6}}", NULL,
	     "app Apply {\"f:spec\":{\"f:selector\":{}}};hpa Update {\"f:spec\":{\"f:replicas\":{}}};"
	     "controller Update {\"f:status\":{\"f:replicas\":{}}};", "status"});
}

/* kubectl's own client-side apply hands over to its server-side apply. */
static void last_applied(void **state)
{
#define ANNOTATED(value, data)                                                                                          \
	"{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"x\",\"annotations\":{\"kubectl.kubernetes.io/last-applied-configuration\":\"" \
	value "\"}},\"data\":{" data "}}"
	RUN(&core_v1_config_map_type, "v1",
	    {'u', "kubectl-client-side-apply",
	     ANNOTATED("{\\\"apiVersion\\\":\\\"v1\\\",\\\"kind\\\":\\\"ConfigMap\\\",\\\"metadata\\\":{\\\"name\\\":\\\"x\\\"},"
		       "\\\"data\\\":{\\\"a\\\":\\\"1\\\",\\\"b\\\":\\\"1\\\"}}", "\"a\":\"1\",\"b\":\"1\""), NULL, NULL},
	    {'u', "other", ANNOTATED("{\\\"apiVersion\\\":\\\"v1\\\",\\\"kind\\\":\\\"ConfigMap\\\",\\\"metadata\\\":{\\\"name\\\":\\\"x\\\"},"
				     "\\\"data\\\":{\\\"a\\\":\\\"1\\\",\\\"b\\\":\\\"1\\\"}}", "\"a\":\"1\",\"b\":\"2\""), NULL, NULL},
	    {'a', "kubectl", CM(",\"data\":{\"a\":\"5\",\"b\":\"5\"}"),
	     "!Apply failed with 1 conflict: conflict with \"other\" using v1: .data.b"},
	    {'a', "kubectl", CM(",\"data\":{\"a\":\"5\",\"b\":\"2\"}"),
	     "{\"apiVersion\":\"v1\",\"data\":{\"a\":\"5\",\"b\":\"2\"},\"kind\":\"ConfigMap\",\"metadata\":{\"annotations\":"
	     "{\"kubectl.kubernetes.io/last-applied-configuration\":\"{\\\"apiVersion\\\":\\\"v1\\\",\\\"data\\\":{\\\"a\\\":\\\"5\\\","
	     "\\\"b\\\":\\\"2\\\"},\\\"kind\\\":\\\"ConfigMap\\\",\\\"metadata\\\":{\\\"name\\\":\\\"x\\\"}}\\n\"},\"name\":\"x\"}}", NULL});
}

static void many_updaters(void **state)
{
	arena_cleanup struct arena a = {0};
	struct jv live = {0};

	for (int i = 0; i < 14; i++) {
		struct jv obj = parse(&a, CM("")), out = obj;
		struct jv data = jv_object();
		struct managed_fields_request req = {
			.shape = shape_of_type(&core_v1_config_map_type),
			.api_version = STR("v1"),
			.manager = arena_printf(&a, "m%02d", i),
			.now = {1700000000 + i, 0, true},
		};

		for (int k = 0; k <= i; k++)
			jv_set(&a, &data, arena_printf(&a, "k%02d", k), jv_string(STR("v")));
		jv_set(&a, &out, STR("data"), data);
		assert_ok(managed_fields_update(&a, &req, i ? &live : NULL, &out));
		live = out;
	}
	const struct jv *list = jv_at(&live, "metadata", "managedFields", NULL);

	assert_int_equal(list->n, 10);
	assert_str(jv_str(jv_get(&list->items[0], STR("manager"))), "ancient-changes");
	assert_string_equal(text_of(&a, jv_get(&list->items[0], STR("fieldsV1"))),
			    "{\"f:data\":{\".\":{},\"f:k00\":{},\"f:k01\":{},\"f:k02\":{},\"f:k03\":{},\"f:k04\":{}}}");
	assert_str(jv_str(jv_get(&list->items[9], STR("manager"))), "m13");
}

/* Nothing but a time would change: the object stays as it is. */
static void no_change(void **state)
{
	arena_cleanup struct arena a = {0};
	struct managed_fields_request req = {
		.shape = shape_of_type(&core_v1_config_map_type), .api_version = STR("v1"), .manager = STR("m"), .now = {1700000000, 0, true}};
	struct jv config = parse(&a, CM(",\"data\":{\"a\":\"1\"}")), live, out;
	bool changed;

	assert_ok(managed_fields_apply(&a, &req, NULL, &config, false, &live, &changed));
	assert_true(changed);
	req.now.s++;
	assert_ok(managed_fields_apply(&a, &req, &live, &config, false, &out, &changed));
	assert_false(changed);
	assert_true(jv_equal(&live, &out));
	out = jv_copy(&a, &live);
	assert_ok(managed_fields_update(&a, &req, &live, &out));
	assert_true(jv_equal(&live, &out));
}

static void typed(void **state)
{
	arena_cleanup struct arena a = {0};
	struct managed_fields_request req = {
		.shape = shape_of_type(&core_v1_service_type), .api_version = STR("v1"), .manager = STR("m"), .now = {1700000000, 0, true}};
	struct core_v1_service *s = arena_new(&a, struct core_v1_service), *out = arena_new(&a, struct core_v1_service);
	struct jv config = parse(&a, "{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"metadata\":{\"name\":\"s\"},\"spec\":{\"ports\":[{\"port\":80,"
				     "\"nodePort\":30000}]}}");
	bool changed;

	assert_ok(json_decode(&a, &core_v1_service_type, STR("{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"metadata\":{\"name\":\"s\",\"labels\":"
			      "{\"a\":\"b\"}},\"spec\":{\"ports\":[{\"port\":80,\"protocol\":\"TCP\",\"targetPort\":80}]}}"), NULL, s));
	assert_ok(managed_fields_update_object(&a, &req, NULL, s));
	assert_int_equal(s->metadata.managed_fields.n, 1);
	assert_str(*s->metadata.managed_fields.v[0].fields_v1,
		   "{\"f:metadata\":{\"f:labels\":{\".\":{},\"f:a\":{}}},\"f:spec\":{\"f:ports\":{\".\":{},\"k:{\\\"port\\\":80,\\\"protocol\\\":"
		   "\\\"TCP\\\"}\":{\".\":{},\"f:port\":{},\"f:protocol\":{},\"f:targetPort\":{}}}}}");
	assert_int_equal(s->metadata.managed_fields.v[0].time->s, 1700000000);
	req.manager = STR("app");
	assert_ok(managed_fields_apply_object(&a, &req, s, &config, false, out, &changed));
	assert_true(changed);
	assert_int_equal(out->spec.ports.n, 1);
	assert_int_equal(out->spec.ports.v[0].node_port, 30000);
	assert_str(out->spec.ports.v[0].protocol, "TCP");
	assert_int_equal(out->metadata.managed_fields.n, 2);
	assert_str(field_manager_from_user_agent(&a, STR("kubectl/v1.36.0 (linux)")), "kubectl");
}

/* A custom resource: keys of its list map, an atomic map, what its schema does not know. */
static void custom(void **state)
{
	arena_cleanup struct arena a = {0};
	struct apiextensions_v1_json_schema_props schema = {0};
	struct shape shape;
	const char *schema_json =
		"{\"type\":\"object\",\"properties\":{\"spec\":{\"type\":\"object\",\"properties\":{"
		"\"items\":{\"type\":\"array\",\"x-kubernetes-list-type\":\"map\",\"x-kubernetes-list-map-keys\":[\"id\",\"zone\"],\"items\":"
		"{\"type\":\"object\",\"properties\":{\"id\":{\"type\":\"string\"},\"zone\":{\"type\":\"string\",\"default\":\"z\"},\"v\":{\"type\":\"integer\"}}}},"
		"\"atom\":{\"type\":\"object\",\"x-kubernetes-map-type\":\"atomic\",\"additionalProperties\":{\"type\":\"string\"}},"
		"\"any\":{\"type\":\"object\",\"x-kubernetes-preserve-unknown-fields\":true}}}}}";

	assert_ok(json_decode(&a, &apiextensions_v1_json_schema_props_type, str_from(schema_json), NULL, &schema));
	shape = shape_of_crd(&schema);
#define CR(spec) "{\"apiVersion\":\"a.b/v1\",\"kind\":\"Thing\",\"metadata\":{\"name\":\"x\"},\"spec\":{" spec "}}"
	const struct step steps[] = {
		{'a', "one", CR("\"items\":[{\"id\":\"1\",\"v\":1}],\"atom\":{\"a\":\"b\"},\"any\":{\"l\":[1],\"m\":{\"n\":1}}"), NULL,
		 "one Apply {\"f:spec\":{\"f:any\":{\"f:l\":{},\"f:m\":{\".\":{},\"f:n\":{}}},\"f:atom\":{},\"f:items\":{\"k:{\\\"id\\\":\\\"1\\\","
		 "\\\"zone\\\":\\\"z\\\"}\":{\".\":{},\"f:id\":{},\"f:v\":{}}}}};"},
		{'a', "two", CR("\"items\":[{\"id\":\"1\",\"zone\":\"z\",\"v\":2}]"),
		 "!Apply failed with 1 conflict: conflict with \"one\": .spec.items[id=\"1\",zone=\"z\"].v"},
		{'a', "two", CR("\"atom\":{\"c\":\"d\"}"), "!Apply failed with 1 conflict: conflict with \"one\": .spec.atom"},
		{'a', "two", CR("\"nope\":1"), "!failed to create typed patch object (/x; a.b/v1, Kind=Thing): .spec.nope: field not declared in schema"},
		{'a', "two", CR("\"items\":[{\"id\":\"2\",\"v\":2}],\"any\":{\"m\":{\"o\":1}}"),
		 "{\"apiVersion\":\"a.b/v1\",\"kind\":\"Thing\",\"metadata\":{\"name\":\"x\"},\"spec\":{\"any\":{\"l\":[1],\"m\":{\"n\":1,\"o\":1}},"
		 "\"atom\":{\"a\":\"b\"},\"items\":[{\"id\":\"1\",\"v\":1},{\"id\":\"2\",\"v\":2}]}}", NULL},
		{'a', "one", CR("\"atom\":{\"a\":\"b\"}"),
		 "{\"apiVersion\":\"a.b/v1\",\"kind\":\"Thing\",\"metadata\":{\"name\":\"x\"},\"spec\":{\"any\":{\"m\":{\"o\":1}},"
		 "\"atom\":{\"a\":\"b\"},\"items\":[{\"id\":\"2\",\"v\":2}]}}", NULL},
	};

	run(shape, "a.b/v1", steps, sizeof steps / sizeof *steps);
}

/* A map that has become atomic: who owned members owns it whole. */
static void schema_change(void **state)
{
	arena_cleanup struct arena a = {0};
	struct apiextensions_v1_json_schema_props schema = {0};
	struct jv live = parse(&a, "{\"apiVersion\":\"a.b/v1\",\"kind\":\"Thing\",\"metadata\":{\"name\":\"x\",\"managedFields\":[{\"manager\":\"one\","
				   "\"operation\":\"Apply\",\"apiVersion\":\"a.b/v1\",\"fieldsType\":\"FieldsV1\",\"fieldsV1\":{\"f:spec\":{\"f:m\":{\"f:a\":{}}}}}]},"
				   "\"spec\":{\"m\":{\"a\":\"1\",\"b\":\"2\"}}}");
	struct jv config = parse(&a, "{\"apiVersion\":\"a.b/v1\",\"kind\":\"Thing\",\"metadata\":{\"name\":\"x\"},\"spec\":{\"m\":{\"c\":\"3\"}}}"), out;
	bool changed;

	assert_ok(json_decode(&a, &apiextensions_v1_json_schema_props_type,
			      STR("{\"type\":\"object\",\"properties\":{\"spec\":{\"type\":\"object\",\"properties\":{\"m\":{\"type\":\"object\","
				  "\"x-kubernetes-map-type\":\"atomic\",\"additionalProperties\":{\"type\":\"string\"}}}}}}"), NULL, &schema));
	struct managed_fields_request req = {
		.shape = shape_of_crd(&schema), .api_version = STR("a.b/v1"), .manager = STR("two"), .now = {1700000000, 0, true}};
	error_cleanup struct error *e = managed_fields_apply(&a, &req, &live, &config, false, &out, &changed);

	assert_string_equal(error_message(e), "Apply failed with 1 conflict: conflict with \"one\": .spec.m");
	assert_ok(managed_fields_apply(&a, &req, &live, &config, true, &out, &changed));
	assert_string_equal(owners_of(&a, &out), "two Apply {\"f:spec\":{\"f:m\":{}}};");
	assert_string_equal(text_of(&a, jv_get(&out, STR("spec"))), "{\"m\":{\"c\":\"3\"}}");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sets),		 cmocka_unit_test(set_of_objects), cmocka_unit_test(config_maps), cmocka_unit_test(lists),
		cmocka_unit_test(deployments),	 cmocka_unit_test(last_applied),   cmocka_unit_test(many_updaters),
		cmocka_unit_test(no_change),	 cmocka_unit_test(typed), cmocka_unit_test(schema_change),	   cmocka_unit_test(custom),
	};

	return cmocka_run_group_tests_name("apply", tests, NULL, NULL);
}
