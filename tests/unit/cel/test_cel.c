/* The interface of cel/: typed views, list types, limits, lazy variables, the authorizer, objects of mutations, structs. */
#include "../test.h"
#include <pthread.h>
#include "schema/api.h"
#include "show.h"

struct ctx {
	struct arena a;
	struct cel_var vars[4];
	struct cel_value values[4];
	struct cel_env env;
	uint64_t cost;
};

static struct jv *tree(struct arena *a, const char *json)
{
	struct jv *v = arena_new(a, struct jv);

	assert_ok(jv_parse(a, str_from(json), NULL, v));
	return v;
}

static void var(struct ctx *c, const char *name, const struct cel_type *t, struct cel_value v)
{
	c->vars[c->env.n_vars] = (struct cel_var){str_from(name), t};
	c->values[c->env.n_vars++] = v;
	c->env.vars = c->vars;
}

static struct str run(struct ctx *c, const char *expr)
{
	struct cel_program *p;
	struct cel_issues issues;
	struct cel_value v;
	struct str s;

	if (!cel_compile(&c->a, &c->env, str_from(expr), &p, &issues)) {
		s = issues.list.v[0].message;
		return arena_printf(&c->a, "#%.*s", STR_ARG(s));
	}
	v = cel_eval(p, c->values, &c->a, CEL_PER_CALL_LIMIT, &c->cost);
	s = show(&c->a, v);
	cel_program_free(p);
	return s;
}

static void expect_at(struct ctx *c, const char *expr, const char *want, int line)
{
	struct str got = run(c, expr);

	if (!str_eqz(got, want))
		fail_msg("line %d: %s gives %.*s, not %s", line, expr, STR_ARG(got), want);
}
#define expect(c, expr, want) expect_at(c, expr, want, __LINE__)

/* ---- views through types ---- */

static const struct cel_type small_string = {.kind = CEL_STRING, .max_size = 10};
static const struct cel_type int_or_string = {.kind = CEL_DYN, .int_or_string = true};
static const struct cel_type nullable_int = {.kind = CEL_INT, .nullable = true};
static const struct cel_type date = {.kind = CEL_TIMESTAMP, .date = true};
static const struct cel_type set = {.kind = CEL_LIST, .elem = &cel_type_int, .list_type = CEL_LIST_SET, .max_size = 100};
static const struct cel_type list = {.kind = CEL_LIST, .elem = &cel_type_int, .max_size = 100};
static const struct str keys[] = {STR_INIT("k")};
static const struct cel_field entry_fields[] = {{STR_INIT("k"), STR_INIT("k"), &cel_type_string}, {STR_INIT("v"), STR_INIT("v"), &cel_type_int}};
static const struct cel_type entry = {.kind = CEL_OBJECT, .name = STR_INIT("self.m"), .fields = entry_fields, .n_fields = 2};
static const struct cel_type map_list = {
	.kind = CEL_LIST, .elem = &entry, .list_type = CEL_LIST_MAP, .list_keys = keys, .n_list_keys = 1, .max_size = 100};
static const struct cel_type strings = {.kind = CEL_MAP, .key = &cel_type_string, .elem = &cel_type_string, .max_size = 5};
static const struct cel_field self_fields[] = {
	{STR_INIT("s"), STR_INIT("s"), &small_string},
	{STR_INIT("i"), STR_INIT("i"), &cel_type_int},
	{STR_INIT("d"), STR_INIT("d"), &cel_type_double},
	{STR_INIT("port"), STR_INIT("port"), &int_or_string},
	{STR_INIT("n"), STR_INIT("n"), &nullable_int},
	{STR_INIT("day"), STR_INIT("day"), &date},
	{STR_INIT("at"), STR_INIT("at"), &cel_type_timestamp},
	{STR_INIT("for"), STR_INIT("for"), &cel_type_duration},
	{STR_INIT("raw"), STR_INIT("raw"), &cel_type_bytes},
	{STR_INIT("set"), STR_INIT("set"), &set},
	{STR_INIT("set2"), STR_INIT("set2"), &set},
	{STR_INIT("list"), STR_INIT("list"), &list},
	{STR_INIT("m"), STR_INIT("m"), &map_list},
	{STR_INIT("m2"), STR_INIT("m2"), &map_list},
	{STR_INIT("labels"), STR_INIT("labels"), &strings},
	{STR_INIT("x__dash__y"), STR_INIT("x-y"), &cel_type_int},
	{STR_INIT("__in__"), STR_INIT("in"), &cel_type_int},
	{STR_INIT("__namespace__"), STR_INIT("namespace"), &cel_type_int},
};
static const struct cel_type self_type = {.kind = CEL_OBJECT, .name = STR_INIT("self"), .fields = self_fields, .n_fields = 18};

static void test_typed(void **state)
{
	struct ctx c = {0};
	struct jv *v = tree(&c.a, "{\"s\":\"abc\",\"i\":3,\"d\":2,\"port\":\"80%\",\"n\":null,\"day\":\"2024-02-29\",\"at\":\"2024-02-29T01:02:03Z\","
				  "\"for\":\"1h\",\"raw\":\"aGk=\",\"set\":[1,2,3],\"set2\":[3,1,2],\"list\":[1,2],\"m\":[{\"k\":\"a\",\"v\":1},{\"k\":\"b\",\"v\":2}],"
				  "\"m2\":[{\"k\":\"b\",\"v\":2},{\"k\":\"a\",\"v\":1}],\"labels\":{\"a\":\"b\"},\"x-y\":5,\"in\":6,\"unknown\":7}");

	(void)state;
	var(&c, "self", &self_type, cel_from_jv(&c.a, v, &self_type));
	c.env.sizes = &self_type;
	expect(&c, "self.s + 'd'", "\"abcd\"");
	expect(&c, "self.d", "2d");
	expect(&c, "self.port == '80%'", "true");
	expect(&c, "type(self.port) == string", "true");
	expect(&c, "has(self.n)", "false"); /* null is absence */
	expect(&c, "self.day.getDayOfMonth()", "28");
	expect(&c, "self.at.getMinutes()", "2");
	expect(&c, "self.raw", "b6869");
	expect(&c, "self.set == self.set2", "true");
	expect(&c, "self.set + [3, 4]", "[1, 2, 3, 4]");
	expect(&c, "self.list == [2, 1]", "false");
	expect(&c, "self.m == self.m2", "true");
	expect(&c, "(self.m + self.m2).size()", "2");
	expect(&c, "self.labels.a", "\"b\"");
	expect(&c, "self.labels['z']", "error(no such key: z)");
	expect(&c, "self.x__dash__y + self.__in__", "11");
	expect(&c, "self.unknown", "#undefined field 'unknown'");
	expect(&c, "self.s + 1", "#found no matching overload for '_+_' applied to '(string, int)'");
	expect(&c, "self.i == 'a'", "#found no matching overload for '_==_' applied to '(int, string)'");
	expect(&c, "self.m.all(e, e.v > 0)", "true");
	expect(&c, "self.m[0].w", "#undefined field 'w'");
	expect(&c, "self == self", "true");
	v = tree(&c.a, "{\"i\":\"x\",\"s\":1,\"for\":\"soon\",\"port\":1.5}");
	c.values[0] = cel_from_jv(&c.a, v, &self_type);
	expect(&c, "self.i == 1 || true", "true");
	assert_true(str_has_prefix(run(&c, "self.i"), STR("error(invalid data")));
	assert_true(str_has_prefix(run(&c, "self.s"), STR("error(invalid data")));
	assert_true(str_has_prefix(run(&c, "self.for == duration('1s')"), STR("error(Invalid duration")));
	assert_true(str_has_prefix(run(&c, "self.port"), STR("error(invalid data")));
	arena_free(&c.a);
}

/* Elements of long lists are found by hash. */
static void test_long_lists(void **state)
{
	struct ctx c = {0};
	struct buf b = {0};

	(void)state;
	buf_puts(&b, "{\"m\":[");
	for (int i = 0; i < 1000; i++)
		buf_printf(&b, "%s{\"k\":\"e%d\",\"v\":%d}", i ? "," : "", i, i);
	buf_puts(&b, "],\"m2\":[");
	for (int i = 999; i >= 0; i--)
		buf_printf(&b, "{\"v\":%d,\"k\":\"e%d\"}%s", i, i, i ? "," : "");
	buf_puts(&b, "],\"set\":[");
	for (int i = 0; i < 1000; i++)
		buf_printf(&b, "%s%d", i ? "," : "", i);
	buf_puts(&b, "],\"set2\":[");
	for (int i = 0; i < 1000; i++)
		buf_printf(&b, "%s%d", i ? "," : "", (i * 7 + 500) % 1000);
	buf_puts(&b, "],\"namespace\":1}");
	var(&c, "self", &self_type, cel_from_jv(&c.a, tree(&c.a, arena_strz(&c.a, buf_view(&b))), &self_type));
	c.env.sizes = &self_type;
	expect(&c, "self.m == self.m2", "true");
	expect(&c, "(self.m + self.m2).size()", "1000");
	expect(&c, "(self.m + self.m2)[7].v", "7");
	expect(&c, "self.set == self.set2 && self.set.size() == 1000", "true");
	expect(&c, "(self.set + self.set2).size()", "1000");
	expect(&c, "(self.set + [5, 5, 1000, 1000]).size()", "1001");
	expect(&c, "self.set == self.set", "true");
	expect(&c, "self.namespace", "1"); /* a reserved word as the name of a field */
	expect(&c, "has(self.namespace) && self.__namespace__ == 1", "true");
	buf_free(&b);
	arena_free(&c.a);
}

static void test_durations(void **state)
{
	static const struct {
		const char *text;
		int64_t ns;
	} good[] = {{"1h", 3600000000000}, {"1d", 86400000000000}, {"2 weeks", 1209600000000000}, {"1 day 2 hours", 93600000000000},
		    {"3 Min", 180000000000}, {"5 \302\265s", 5000}, {"1.5h", 5400000000000}, {"x 1s y", 1000000000}, {"0", 0}};
	static const char *const bad[] = {"", "x", "1", "1 parsec", "99999999999999999999s"};
	int64_t ns;

	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof *good; i++)
		if (!cel_format_duration(str_from(good[i].text), &ns) || ns != good[i].ns)
			fail_msg("%s gives %lld", good[i].text, (long long)ns);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		if (cel_format_duration(str_from(bad[i]), &ns))
			fail_msg("%s is taken as %lld", bad[i], (long long)ns);
}

static struct cel_cost estimate(struct ctx *c, const char *expr)
{
	struct cel_program *p;
	struct cel_issues issues;
	struct cel_cost cost;

	assert_true(cel_compile(&c->a, &c->env, str_from(expr), &p, &issues));
	cost = cel_program_cost(p);
	cel_program_free(p);
	return cost;
}

static void test_estimates(void **state)
{
	struct ctx c = {0};

	(void)state;
	var(&c, "self", &self_type, CEL_NULL_VALUE);
	c.env.sizes = &self_type;
	assert_int_equal(estimate(&c, "self.s.startsWith('a')").max, 3);   /* self, .s, a tenth of 'a' */
	assert_int_equal(estimate(&c, "self.s.contains('abc')").max, 3);   /* 10 bytes * .1 by 3 * .1 */
	assert_int_equal(estimate(&c, "self.list.all(x, x > 0)").max, 503); /* 100 elements */
	assert_int_equal(estimate(&c, "self.list.all(x, self.list.all(y, x < y))").max, 60603);
	c.env.sizes = NULL;
	assert_true(estimate(&c, "self.list.all(x, x > 0)").max == UINT64_MAX);
	arena_free(&c.a);
}

/* ---- limits ---- */

static void test_limits(void **state)
{
	struct ctx c = {0};
	struct buf b buf_cleanup = {0};
	struct cel_program *p;
	struct cel_issues issues;
	struct cel_value v;
	uint64_t cost;

	(void)state;
	assert_true(cel_compile(&c.a, &c.env, STR("[1,2,3,4,5,6,7,8,9].all(x, [1,2,3,4,5,6,7,8,9].all(y, x + y > 0)) || true"), &p, &issues));
	v = cel_eval(p, NULL, &c.a, 100, &cost);
	assert_true(v.kind == CEL_ERROR && cel_error_is_cost(v)); /* || does not absorb it */
	assert_true(cost > 100 && cost < 120);
	v = cel_eval(p, NULL, &c.a, CEL_PER_CALL_LIMIT, &cost);
	assert_true(v.kind == CEL_BOOL && v.b);
	cel_program_free(p);

	for (int i = 0; i < 5000; i++)
		buf_putc(&b, '(');
	assert_false(cel_compile(&c.a, &c.env, buf_view(&b), &p, &issues));
	b.n = 0;
	buf_puts(&b, "1");
	for (int i = 0; i < 5000; i++)
		buf_puts(&b, "+1");
	assert_false(cel_compile(&c.a, &c.env, buf_view(&b), &p, &issues));
	/* Each doubles what it stands behind. */
	b.n = 0;
	buf_puts(&b, "optional.of(1)");
	for (int i = 0; i < 40; i++)
		buf_puts(&b, ".optMap(x, x)");
	assert_false(cel_compile(&c.a, &c.env, buf_view(&b), &p, &issues));
	b.n = 0;
	buf_puts(&b, "true");
	for (int i = 0; i < 3000; i++) /* balanced: not deep */
		buf_puts(&b, "&&true");
	assert_true(cel_compile(&c.a, &c.env, buf_view(&b), &p, &issues));
	v = cel_eval(p, NULL, &c.a, CEL_PER_CALL_LIMIT, &cost);
	assert_true(v.kind == CEL_BOOL && v.b);
	cel_program_free(p);
	b.n = 0;
	for (int i = 0; i < CEL_MAX_SOURCE + 1; i++)
		buf_putc(&b, ' ');
	assert_false(cel_compile(&c.a, &c.env, buf_view(&b), &p, &issues));
	arena_free(&c.a);
}

static void test_issues(void **state)
{
	struct ctx c = {0};
	struct cel_program *p;
	struct cel_issues issues;
	struct str source = STR("1 +\n x + 'a' + y"), text;

	(void)state;
	assert_false(cel_compile(&c.a, &c.env, source, &p, &issues));
	assert_int_equal(issues.list.n, 3);
	assert_int_equal(issues.list.v[0].line, 2);
	assert_int_equal(issues.list.v[0].column, 2);
	assert_int_equal(issues.list.v[1].column, 4);
	assert_int_equal(issues.list.v[2].column, 12);
	text = cel_issues_text(&c.a, source, &issues);
	assert_true(str_has_prefix(text, STR("ERROR: <input>:2:2: undeclared reference to 'x' (in container '')\n |  x + 'a' + y\n | .^\nERROR: ")));
	arena_free(&c.a);
}

static void test_regex(void **state)
{
	struct ctx c = {0};
	struct buf b buf_cleanup = {0};

	(void)state;
	/* what backtracks without end elsewhere still gives an answer */
	buf_puts(&b, "'");
	for (int i = 0; i < 60; i++)
		buf_putc(&b, 'a');
	buf_puts(&b, "!'.matches('^(a|a)*$')");
	buf_putc(&b, 0);
	expect(&c, b.p, "false");
	expect(&c, "'aab'.matches('^(a+)+b$')", "true");
	expect(&c, "'a\\n'.matches('a$')", "false");
	expect(&c, "'a'.matches('(?=a)')", "#invalid matches argument");
	expect(&c, "'\\v'.matches('\\\\s')", "false");
	arena_free(&c.a);
}

/* ---- lazy variables ---- */

struct lazy {
	struct cel_lazy lazy;
	int calls;
};

static bool lazy_get(struct cel_lazy *self, struct arena *a, struct str name, struct cel_value *out)
{
	((struct lazy *)self)->calls++;
	if (str_eqz(name, "bad"))
		*out = cel_error(a, "composited variable \"bad\" fails to evaluate: no");
	else if (str_eqz(name, "foo"))
		*out = cel_int(7);
	else
		return false;
	return true;
}

static void test_lazy(void **state)
{
	static const struct cel_field fields[] = {{STR_INIT("foo"), STR_INIT("foo"), &cel_type_int},
						  {STR_INIT("bad"), STR_INIT("bad"), &cel_type_bool}};
	static const struct cel_type t = {.kind = CEL_OBJECT, .name = STR_INIT("kubernetes.variables"), .fields = fields, .n_fields = 2};
	struct lazy z = {{lazy_get}, 0};
	struct ctx c = {0};

	(void)state;
	var(&c, "variables", &t, cel_lazy_map(&z.lazy));
	expect(&c, "true || variables.foo == 1", "true");
	assert_int_equal(z.calls, 0);
	expect(&c, "variables.foo + 1", "8");
	assert_int_equal(z.calls, 1);
	expect(&c, "variables.bad", "error(composited variable \"bad\" fails to evaluate: no)");
	expect(&c, "variables.nope", "#undefined field 'nope'");
	arena_free(&c.a);
}

/* ---- authorizer ---- */

struct judge {
	struct cel_authorizer z;
	struct cel_authz_check last;
	int calls;
};

static void judge(struct cel_authorizer *self, struct arena *a, const struct cel_authz_check *c, struct cel_authz_decision *out)
{
	struct judge *j = (struct judge *)self;

	/* its strings are of the program, which is gone when the test looks */
	j->last = *c;
	for (struct str *s = &j->last.path; s <= &j->last.label_selector; s++)
		*s = arena_str(a, *s);
	j->calls++;
	out->allowed = str_eqz(c->verb, "create");
	out->reason = STR("because");
	if (str_eqz(c->verb, "fail"))
		out->error = arena_str(a, STR("broken"));
}

static void test_authorizer(void **state)
{
	struct judge j = {{judge}, {0}, 0};
	struct ctx c = {0};
	struct cel_authz_check base = {.group = STR("apps"), .resource_name = STR("deployments"), .ns = STR("ns"), .name = STR("web")};

	(void)state;
	var(&c, "authorizer", &cel_type_authorizer, cel_authorizer_value(&c.a, &j.z));
	var(&c, "authorizer.requestResource", &cel_type_resource_check, cel_resource_check_value(&c.a, &j.z, &base));
	expect(&c, "authorizer.group('').resource('pods').subresource('log').namespace('d').name('n').check('create').allowed()", "true");
	assert_true(j.last.resource && str_eqz(j.last.resource_name, "pods") && str_eqz(j.last.subresource, "log") && str_eqz(j.last.ns, "d") &&
		    str_eqz(j.last.name, "n") && !j.last.service_account.n);
	assert_int_equal(c.cost, 350008 - 1 + 0);
	expect(&c, "authorizer.requestResource.check('get').allowed()", "false");
	assert_true(str_eqz(j.last.group, "apps") && str_eqz(j.last.name, "web"));
	expect(&c, "authorizer.path('/healthz').check('get').reason()", "\"because\"");
	assert_true(!j.last.resource && str_eqz(j.last.path, "/healthz"));
	expect(&c, "authorizer.path(' ').check('get').allowed()", "error(path must not be empty)");
	expect(&c, "authorizer.serviceAccount('ns', 'sa').group('').resource('pods').check('fail').errored()", "true");
	assert_true(str_eqz(j.last.service_account, "sa") && str_eqz(j.last.service_account_ns, "ns"));
	expect(&c, "authorizer.group('').resource('pods').check('fail').error()", "\"broken\"");
	expect(&c, "authorizer.serviceAccount('NS', 'sa').path('/x').check('get').allowed()", "error(Invalid service account namespace)");
	expect(&c, "authorizer.group('').resource('pods').labelSelector('a=b').fieldSelector('x=y').check('list').allowed()", "false");
	assert_true(j.last.has_label_selector && str_eqz(j.last.field_selector, "x=y"));
	j.calls = 0;
	/* two checks an expression, not three */
	assert_true(str_has_prefix(run(&c, "[1,2,3].all(x, authorizer.path('/x').check('create').allowed())"), STR("error(operation cancelled")));
	assert_true(j.calls <= 3);
	arena_free(&c.a);
}

/* ---- mutations ---- */

static void test_patch_types(void **state)
{
	struct ctx c = {0};
	struct cel_program *p;
	struct cel_issues issues;
	struct cel_value v;
	struct jv out;
	struct buf b buf_cleanup = {0};

	(void)state;
	expect(&c, "Object{spec: 1}", "#undeclared reference to 'Object' (in container '')");
	expect(&c, "jsonpatch.escapeKey('a/b')", "#undeclared reference to 'jsonpatch' (in container '')");
	c.env.patch_types = true;
	expect(&c, "jsonpatch.escapeKey('a/b~c')", "\"a~1b~0c\"");
	expect(&c, "JSONPatch{op: 1}", "#expected type of field 'op' is 'string' but provided type is 'int'");
	expect(&c, "JSONPatch{oops: 1}", "#undefined field 'oops'");
	assert_true(cel_compile(&c.a, &c.env,
				STR("Object{metadata: Object.metadata{labels: {'a': 'b'}}, spec: Object.spec{replicas: 3, ?paused: optional.none()}}"), &p,
				&issues));
	assert_true(cel_type_equal(cel_program_type(p), &cel_type_object));
	v = cel_eval(p, NULL, &c.a, CEL_PER_CALL_LIMIT, NULL);
	assert_int_equal(v.kind, CEL_OBJECT);
	assert_true(str_eqz(cel_object_type(v), "Object"));
	assert_ok(cel_to_jv(&c.a, v, &out));
	jv_encode(&b, &out);
	assert_true(str_eqz(buf_view(&b), "{\"metadata\":{\"labels\":{\"a\":\"b\"}},\"spec\":{\"replicas\":3}}"));
	cel_program_free(p);
	assert_true(cel_compile(&c.a, &c.env, STR("[JSONPatch{op: 'add', path: '/a', value: {'b': [dyn(1), dyn(2.5), dyn(true), dyn(null)]}}]"), &p, &issues));
	assert_true(cel_type_equal(cel_program_type(p), &cel_type_list_json_patch));
	v = cel_eval(p, NULL, &c.a, CEL_PER_CALL_LIMIT, NULL);
	b.n = 0;
	assert_ok(cel_to_jv(&c.a, v, &out));
	jv_encode(&b, &out);
	assert_true(str_eqz(buf_view(&b), "[{\"op\":\"add\",\"path\":\"/a\",\"value\":{\"b\":[1,2.5,true,null]}}]"));
	cel_program_free(p);
	arena_free(&c.a);
}

/* ---- structs ---- */

static void test_structs(void **state)
{
	static const char json[] = "{\"kind\":\"Pod\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"x\",\"labels\":{\"a\":\"b\"},"
				   "\"creationTimestamp\":\"2024-01-01T00:00:00Z\"},\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"i\",\"resources\":"
				   "{\"limits\":{\"cpu\":\"100m\"}},\"ports\":[{\"containerPort\":80}],\"livenessProbe\":{\"httpGet\":{\"port\":\"http\"}}}]},\"status\":{}}";
	struct ctx c = {0};
	struct core_v1_pod *pod = arena_new(&c.a, struct core_v1_pod);
	const struct cel_type *t = cel_type_of_schema(&c.a, &core_v1_pod_type);

	(void)state;
	assert_ok(json_decode(&c.a, &core_v1_pod_type, str_from(json), NULL, pod));
	var(&c, "object", &cel_type_dyn, cel_from_object(&core_v1_pod_type, pod));
	var(&c, "typed", t, cel_from_object(&core_v1_pod_type, pod));
	expect(&c, "object.kind + object.metadata.name", "\"Podx\"");
	expect(&c, "object.metadata.labels.a", "\"b\"");
	expect(&c, "has(object.metadata.labels) && !has(object.metadata.annotations)", "true");
	expect(&c, "has(object.spec.replicas)", "false");
	expect(&c, "object.spec.containers.all(c, c.image == 'i' && c.ports[0].containerPort == 80)", "true");
	expect(&c, "quantity(object.spec.containers[0].resources.limits.cpu).isLessThan(quantity('1'))", "true");
	expect(&c, "object.spec.containers[0].livenessProbe.httpGet.port", "\"http\"");
	expect(&c, "object.metadata.creationTimestamp", "\"2024-01-01T00:00:00Z\"");
	expect(&c, "object.spec.containers[1].name", "error(index out of bounds: 1)");
	expect(&c, "object.spec.hostNetwork", "error(no such key: hostNetwork)");
	expect(&c, "object == object", "true");
	expect(&c, "object.metadata.map(k, k).exists(k, k == 'name')", "true");
	expect(&c, "typed.spec.containers[0].nam", "#undefined field 'nam'");
	expect(&c, "typed.spec.containers[0].name.size()", "1");
	expect(&c, "typed.metadata.name + 1", "#found no matching overload for '_+_' applied to '(string, int)'");
	arena_free(&c.a);
}

static void test_escape(void **state)
{
	static const struct {
		const char *in, *out;
	} cases[] = {{"a", "a"}, {"a-b", "a__dash__b"}, {"a.b", "a__dot__b"}, {"a/b", "a__slash__b"}, {"a__b", "a__underscores__b"},
		     {"in", "__in__"}, {"namespace", "__namespace__"}, {"true", "__true__"}, {"_a", "_a"}, {"1a", NULL}, {"a$", NULL}, {"", NULL}};
	struct arena a arena_cleanup = {0};
	struct str out;

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		bool ok = cel_escape(&a, str_from(cases[i].in), &out);

		assert_int_equal(ok, cases[i].out != NULL);
		if (ok)
			assert_true(str_eqz(out, cases[i].out));
	}
}

/* The deepest expressions that are allowed fit the stack that cel.h promises. */
#ifdef __SANITIZE_ADDRESS__
#define DEEP_STACK (1024 * 1024)
#else
#define DEEP_STACK (72 * 1024) /* with what the thread itself needs */
#endif

static const char *const deep[][3] = { /* before, in the middle, behind; repeated */
	{"(", "1", ")"},          {"[", "1", "]"},           {"{'a':", "1", "}"},      {"[1].all(x,", "true", ")"}, {"dyn(", "1", ")"},
	{"true?1:", "1", ""},     {"true?", "1", ":1"},      {"1+(", "1", ")"},        {"!(", "true", ")"},         {"-(", "1", ")"},
	{"", "object", ".a"},     {"", "object", "[0]"},     {"", "object", ".?a"},    {"object[", "1", "]"},       {"", "'a'", ".trim()"},
	{"true&&(", "true", ")"}, {"[1].map(x,", "1", ")"},  {"optional.of(", "1", ")"}, {"1 in [", "1", "]"},      {"'%s'.format([", "1", "])"},
	{"[1].transformMap(i,v,", "1", ")"}, {"dyn([1]).exists(x,", "true", ")"}, {"has(object.", "a", ".b)"}, {"", "1", "+1"}, {"", "'a'", ".split('a')[0]"},
};

static void *run_deep(void *arg)
{
	struct cel_var vars[] = {{STR("object"), &cel_type_dyn}};
	struct cel_env env = {.vars = vars, .n_vars = 1};
	struct cel_value object = CEL_NULL_VALUE;
	intptr_t *most = arg;

	for (size_t k = 0; k < sizeof deep / sizeof *deep; k++)
		for (int depth = 1; depth < 300; depth++) {
			struct arena a = {0};
			struct buf b = {0};
			struct cel_program *p;
			struct cel_issues issues;
			bool ok;

			for (int i = 0; i < depth; i++)
				buf_puts(&b, deep[k][0]);
			buf_puts(&b, deep[k][1]);
			for (int i = 0; i < depth; i++)
				buf_puts(&b, deep[k][2]);
			ok = cel_compile(&a, &env, buf_view(&b), &p, &issues);
			if (ok) {
				(void)cel_eval(p, &object, &a, CEL_PER_CALL_LIMIT, NULL);
				cel_program_free(p);
				if (depth > *most)
					*most = depth;
			}
			arena_free(&a);
			buf_free(&b);
			if (!ok && depth > 3)
				break;
		}
	return NULL;
}

static void test_depth(void **state)
{
	pthread_attr_t attr;
	pthread_t t;
	intptr_t most = 0;

	(void)state;
	pthread_attr_init(&attr);
	assert_int_equal(pthread_attr_setstacksize(&attr, DEEP_STACK), 0);
	assert_int_equal(pthread_create(&t, &attr, run_deep, &most), 0);
	pthread_join(t, NULL);
	pthread_attr_destroy(&attr);
	assert_true(most > 50 && most < 299);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_typed),      cmocka_unit_test(test_long_lists), cmocka_unit_test(test_durations), cmocka_unit_test(test_estimates), cmocka_unit_test(test_limits), cmocka_unit_test(test_issues),
		cmocka_unit_test(test_regex),      cmocka_unit_test(test_lazy),      cmocka_unit_test(test_authorizer),
		cmocka_unit_test(test_patch_types), cmocka_unit_test(test_structs),   cmocka_unit_test(test_escape), cmocka_unit_test(test_depth),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
