#include "net_test.h"

#include "net/grpc.h"

static struct waitq cancelled_q;
static int cancelled;

static struct error *echo(struct arena *a, struct str req, struct str *resp, void *ctx)
{
	CHECK(ctx == &cancelled);
	*resp = req;
	return NULL;
}

static struct error *fail_call(struct arena *a, struct str req, struct str *resp, void *ctx)
{
	if (str_eqz(req, "notfound"))
		return error_status(404, "NotFound", "pod \"x\" not found: 100%% gone\n\xc3\xa9");
	if (str_eqz(req, "plain"))
		return error_new("something broke");
	return grpc_error(GRPC_FAILED_PRECONDITION, "not yet");
}

static struct error *slow(struct arena *a, struct str req, struct str *resp, void *ctx)
{
	struct error *e = fiber_sleep(30000);

	cancelled++;
	waitq_wake_all(&cancelled_q);
	return e;
}

static struct error *count(struct arena *a, struct str req, struct grpc_stream *s, void *ctx)
{
	for (int i = 0; i < 100; i++) {
		TRY(grpc_send(s, arena_printf(a, "%d", i)));
		if (i % 10 == 0)
			fiber_yield();
	}
	return str_eqz(req, "fail") ? grpc_error(GRPC_ABORTED, "after all") : NULL;
}

static const struct grpc_method methods[] = {
	{"/t.S/Echo", echo, NULL}, {"/t.S/Fail", fail_call, NULL}, {"/t.S/Slow", slow, NULL}, {"/t.S/Count", NULL, count},
};

struct counted {
	int n, stop_at;
};

static struct error *on_message(void *ctx, struct str m)
{
	struct counted *c = ctx;
	int64_t v;

	CHECK(str_to_i64(m, &v) && v == c->n);
	c->n++;
	return c->n == c->stop_at ? error_new("enough") : NULL;
}

static void one_call(void *arg)
{
	struct arena a = {0};
	struct str resp;

	OK(grpc_call(arg, &a, "/t.S/Echo", STR("hello"), &resp));
	CHECK(str_eqz(resp, "hello"));
	arena_free(&a);
}

/* What was called above, as it is counted. */
static void check_counts(void)
{
	size_t n;
	const struct grpc_counts *v = grpc_client_counts(&n);

	CHECK(n == 5);
	for (size_t i = 0; i < n; i++) {
		uint64_t ended = 0;

		for (int k = 0; k < GRPC_CODES; k++)
			ended += v[i].ended[k];
		CHECK(ended == v[i].started);
		CHECK(v[i].stream == !strcmp(v[i].path, "/t.S/Count"));
		if (!strcmp(v[i].path, "/t.S/Echo")) {
			CHECK(v[i].ended[GRPC_UNAVAILABLE] >= 1 && v[i].ended[GRPC_OK] >= 4);
			CHECK(v[i].received == v[i].ended[GRPC_OK] && v[i].sent >= v[i].received);
		}
		if (!strcmp(v[i].path, "/t.S/Nope"))
			CHECK(v[i].ended[GRPC_UNIMPLEMENTED] == 1 && !v[i].received);
		if (v[i].stream)
			CHECK(v[i].received > v[i].started);
	}
	CHECK(!strcmp(grpc_code_name(GRPC_CANCELLED), "Canceled") && !strcmp(grpc_code_name((enum grpc_code)99), "Unknown"));
}

static void grpc_main(void *arg)
{
	char dir[] = "/tmp/skiff-grpc-XXXXXX";

	CHECK(mkdtemp(dir));
	char *at = xasprintf("unix:%s/s", dir), *target = xasprintf("unix://%s/s", dir);
	struct listener *l;
	struct grpc_server *s;
	struct grpc_client *c;
	struct arena a = {0};
	struct str resp;
	struct grpc_server_opts o = {.methods = methods, .n_methods = 4, .ctx = &cancelled};

	OK(listener_open(at, 0600, &l));
	OK(grpc_server_start(l, &o, &s));
	OK(grpc_client_new(target, &c));
	OK(grpc_call(c, &a, "/t.S/Echo", STR("hello"), &resp));
	CHECK(str_eqz(resp, "hello"));
	OK(grpc_call(c, &a, "/t.S/Echo", STR_NULL, &resp));
	CHECK(resp.n == 0);
	char *big = calloc(1, GRPC_MESSAGE_MAX + 1);

	memset(big, 'b', GRPC_MESSAGE_MAX);
	OK(grpc_call(c, &a, "/t.S/Echo", str_of(big, GRPC_MESSAGE_MAX), &resp));
	CHECK(resp.n == GRPC_MESSAGE_MAX && memcmp(resp.p, big, resp.n) == 0);
	struct error *e = grpc_call(c, &a, "/t.S/Echo", str_of(big, GRPC_MESSAGE_MAX + 1), &resp);

	CHECK(grpc_error_code(e) == GRPC_RESOURCE_EXHAUSTED);
	error_free(e);
	free(big);
	e = grpc_call(c, &a, "/t.S/Fail", STR("notfound"), &resp);
	CHECK(error_is(e, 404, "NotFound") && strcmp(e->message, "pod \"x\" not found: 100% gone\n\xc3\xa9") == 0);
	error_free(e);
	e = grpc_call(c, &a, "/t.S/Fail", STR("plain"), &resp);
	CHECK(grpc_error_code(e) == GRPC_UNKNOWN && strcmp(e->message, "something broke") == 0);
	error_free(e);
	e = grpc_call(c, &a, "/t.S/Fail", STR(""), &resp);
	CHECK(grpc_error_code(e) == GRPC_FAILED_PRECONDITION);
	error_free(e);
	e = grpc_call(c, &a, "/t.S/Nope", STR(""), &resp);
	CHECK(grpc_error_code(e) == GRPC_UNIMPLEMENTED);
	error_free(e);
	struct counted n = {0};

	OK(grpc_call_stream(c, "/t.S/Count", STR(""), on_message, &n));
	CHECK(n.n == 100);
	n = (struct counted){0};
	e = grpc_call_stream(c, "/t.S/Count", STR("fail"), on_message, &n);
	CHECK(n.n == 100 && grpc_error_code(e) == GRPC_ABORTED);
	error_free(e);
	n = (struct counted){.stop_at = 5};
	e = grpc_call_stream(c, "/t.S/Count", STR(""), on_message, &n);
	CHECK(n.n == 5 && e && strcmp(e->message, "enough") == 0);
	error_free(e);
	/* The deadline is the client's and the server's. */
	int64_t d = deadline_push(60);

	e = grpc_call(c, &a, "/t.S/Slow", STR(""), &resp);
	deadline_pop(d);
	CHECK(grpc_error_code(e) == GRPC_DEADLINE_EXCEEDED);
	error_free(e);
	while (!cancelled)
		OK(waitq_wait_ms(&cancelled_q, 5000));
	struct fiber *f[50];

	for (int i = 0; i < 50; i++)
		f[i] = fiber_start("call", one_call, c);
	for (int i = 0; i < 50; i++)
		fiber_join(f[i]);
	/* HTTP/1.1 and other content is refused. */
	struct http_client *h;
	struct http_response r;
	char *base = xasprintf("http+unix://%s/s", dir);

	OK(http_client_new(&(struct http_client_opts){.base = base}, &h));
	OK(http_do(h, &a, "POST", STR("/t.S/Echo"), NULL, 0, STR("x"), &r));
	CHECK(r.status == 415);
	http_response_close(&r);
	http_client_free(h);
	free(base);
	/* The server goes and comes back: the client connects anew. */
	grpc_server_stop(s, 100);
	e = grpc_call(c, &a, "/t.S/Echo", STR("x"), &resp);
	CHECK(grpc_error_code(e) == GRPC_UNAVAILABLE);
	error_free(e);
	OK(listener_open(at, 0600, &l));
	OK(grpc_server_start(l, &o, &s));
	OK(grpc_call(c, &a, "/t.S/Echo", STR("again"), &resp));
	CHECK(str_eqz(resp, "again"));
	check_counts();
	grpc_client_free(c);
	grpc_server_stop(s, 100);
	arena_free(&a);
	free(at);
	free(target);
	OK(dir_remove(dir));
}

static void test_grpc(void **state)
{
	assert_ok(loop_run(grpc_main, NULL));
}

static void test_codes(void **state)
{
	for (int code = 1; code <= 16; code++) {
		struct error *e = grpc_error((enum grpc_code)code, "x");

		assert_int_equal(grpc_error_code(e), code);
		error_free(e);
	}
	assert_int_equal(grpc_error_code(NULL), GRPC_OK);
	struct error *e = error_sys(ETIMEDOUT, "x");

	assert_int_equal(grpc_error_code(e), GRPC_DEADLINE_EXCEEDED);
	error_free(e);
	e = error_status(409, "Conflict", "x");
	assert_int_equal(grpc_error_code(e), GRPC_ABORTED);
	error_free(e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_codes),
		cmocka_unit_test(test_grpc),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
