/* The client, informer, events and leases against a small API server of one resource each, in memory. */
#include "../test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "client/events.h"
#include "client/informer.h"
#include "client/leaderelection.h"

/* ---- the fake ---- */

#define MAX_OBJECTS 2000
#define MAX_EVENTS 4000

struct object {
	char *name, *json; /* json up to, not with, "resourceVersion":"N"}} */
	int rv;
	bool gone;
};
static struct object objects[MAX_OBJECTS];
static int n_objects, revision, compacted;
static struct {
	const char *type;
	char *json;
	int rv;
} log_[MAX_EVENTS];
static int n_log;
static struct waitq changed;
static int lists, watches, events_posted, events_patched, cut_watches;
static char last_event[2000], *lease;
static int lease_rv;

static char *full_json(const struct object *o)
{
	return xasprintf("{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"%s\",\"namespace\":\"ns\",\"uid\":\"u-%s\","
			 "\"labels\":{\"app\":\"%s\"},\"resourceVersion\":\"%d\",\"ownerReferences\":[{\"apiVersion\":\"v1\",\"kind\":"
			 "\"Pod\",\"name\":\"p\",\"uid\":\"owner\\u002d1\",\"controller\":true}],\"managedFields\":[{\"manager\":\"m\"}]},"
			 "\"data\":{\"k\":\"%s\"}}", o->name, o->name, o->name, o->rv, o->json);
}

static void note(const char *type, const struct object *o)
{
	assert_true(n_log < MAX_EVENTS);
	log_[n_log].type = type;
	log_[n_log].json = full_json(o);
	log_[n_log++].rv = o->rv;
	waitq_wake_all(&changed);
}

static void forget_log(void)
{
	while (n_log)
		free(log_[--n_log].json);
}

static void put(const char *name, const char *value)
{
	for (int i = 0; i < n_objects; i++)
		if (!strcmp(objects[i].name, name)) {
			bool was_gone = objects[i].gone;

			free(objects[i].json);
			objects[i].json = xstrdup(value);
			objects[i].gone = false;
			objects[i].rv = ++revision;
			note(was_gone ? "ADDED" : "MODIFIED", &objects[i]);
			return;
		}
	objects[n_objects] = (struct object){xstrdup(name), xstrdup(value), ++revision, false};
	note("ADDED", &objects[n_objects++]);
}

static void del(const char *name)
{
	for (int i = 0; i < n_objects; i++)
		if (!strcmp(objects[i].name, name)) {
			objects[i].gone = true;
			objects[i].rv = ++revision;
			note("DELETED", &objects[i]);
		}
}

static void respond(struct http_exchange *x, int status, struct str body)
{
	http_set_header(x, "content-type", STR("application/json"));
	error_free(http_respond(x, status, body));
}

static void status_error(struct http_exchange *x, int status, const char *reason)
{
	respond(x, status, arena_printf(x->arena, "{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"status\":\"Failure\",\"message\":"
					"\"it is %s\",\"reason\":\"%s\",\"code\":%d,\"details\":{\"name\":\"n\",\"causes\":[{\"reason\":"
					"\"FieldValueInvalid\",\"field\":\"spec.x\",\"message\":\"no\"}]}}", reason, reason, status));
}

static void serve_list(struct http_exchange *x)
{
	struct buf buf_cleanup b = {0};
	int64_t limit = 0, from = 0;
	int i, n = 0;

	lists++;
	str_to_i64(http_query_get(x->arena, x->query, "limit", NULL), &limit);
	str_to_i64(http_query_get(x->arena, x->query, "continue", NULL), &from);
	buf_puts(&b, "{\"kind\":\"ConfigMapList\",\"apiVersion\":\"v1\",\"items\":[");
	for (i = (int)from; i < n_objects && (!limit || n < limit); i++) {
		if (objects[i].gone)
			continue;
		char *j = full_json(&objects[i]);

		buf_printf(&b, "%s%s", n++ ? "," : "", j);
		free(j);
	}
	buf_printf(&b, "],\"metadata\":{\"resourceVersion\":\"%d\"", revision);
	if (i < n_objects)
		buf_printf(&b, ",\"continue\":\"%d\"", i);
	buf_puts(&b, "}}\n");
	respond(x, 200, buf_view(&b));
}

static void serve_watch(struct http_exchange *x)
{
	int64_t rv = 0;
	int cut = cut_watches;

	watches++;
	str_to_i64(http_query_get(x->arena, x->query, "resourceVersion", NULL), &rv);
	http_set_header(x, "content-type", STR("application/json"));
	if (http_start(x, 200))
		return;
	if (rv < compacted) {
		error_free(http_write(x, STR("{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"code\":410,\"reason\":\"Expired\",\"message\":"
					     "\"too old\"}}\n")));
		error_free(http_end(x));
		return;
	}
	for (int i = 0; cut == cut_watches;) {
		struct error *e = NULL;

		for (; i < n_log && !e; i++)
			if (log_[i].rv > rv)
				e = http_write(x, arena_printf(x->arena, "{\"type\":\"%s\",\"object\":%s}\n", log_[i].type, log_[i].json));
		if (!e)
			e = waitq_wait(&changed);
		if (e) {
			error_free(e);
			return;
		}
	}
	error_free(http_end(x));
}

static void serve(struct http_exchange *x, void *ctx)
{
	struct str body = STR_NULL;

	error_free(http_body_all(x, 1 << 20, &body));
	if (str_has_suffix(x->path, STR("/configmaps")) && str_eqz(x->method, "GET")) {
		if (str_contains(x->query, STR("watch=1")))
			serve_watch(x);
		else
			serve_list(x);
	} else if (str_eqz(x->path, "/base/api/v1/namespaces/a%2Fb/configmaps/x%20y")) {
		respond(x, 200, STR("{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"x y\"},\"data\":{\"k\":\"v\"}}"));
	} else if (str_has_suffix(x->path, STR("/invalid"))) {
		status_error(x, 422, "Invalid");
	} else if (str_has_suffix(x->path, STR("/conflict"))) {
		status_error(x, 409, "Conflict");
	} else if (str_has_suffix(x->path, STR("/plain"))) {
		respond(x, 502, STR("bad gateway"));
	} else if (str_contains(x->path, STR("/events"))) {
		if (str_eqz(x->method, "POST"))
			events_posted++;
		else
			events_patched++;
		snprintf(last_event, sizeof(last_event), "%.*s", STR_ARG(body));
		respond(x, 200, body);
	} else if (str_contains(x->path, STR("/leases"))) {
		if (str_eqz(x->method, "GET")) {
			if (lease)
				respond(x, 200, str_from(lease));
			else
				status_error(x, 404, "NotFound");
			return;
		}
		free(lease);
		lease = str_dupz(body);
		lease_rv++;
		respond(x, 200, body);
	} else {
		status_error(x, 404, "NotFound");
	}
}

static struct client *connect_fake(struct http_server **s, const char *prefix)
{
	struct listener *l;
	struct client *c;
	char server[64];

	assert_ok(listener_open("127.0.0.1:0", 0, &l));
	snprintf(server, sizeof(server), "http://127.0.0.1:%d%s", listener_port(l), prefix);
	assert_ok(http_server_start(l, &(struct http_server_opts){.handler = serve}, s));
	assert_ok(client_new(&(struct client_config){.server = server}, &c));
	n_objects = revision = compacted = lists = watches = 0;
	forget_log();
	return c;
}

#define WAIT_FOR(cond)                                                                             \
	do {                                                                                       \
		int64_t began_ = now_ms();                                                         \
		while (!(cond)) {                                                                  \
			if (now_ms() - began_ > 10000)                                             \
				fail_msg("waited too long for: %s", #cond);                        \
			error_free(fiber_sleep(2));                                                \
		}                                                                                  \
	} while (0)

/* ---- tests ---- */

static void verbs(void *arg)
{
	struct http_server *s;
	struct client *c = connect_fake(&s, "/base/");
	arena_cleanup struct arena a = {0};
	void *obj;

	assert_ok(client_get(c, &a, &core_v1_configmaps_resource, STR("a/b"), STR("x y"), &obj));
	assert_str(str_map_get(API_MAP(&((struct core_v1_config_map *)obj)->data), STR("k")), "v");
	struct error *e = client_get(c, &a, &core_v1_configmaps_resource, STR("ns"), STR("none"), &obj);

	assert_true(error_is(e, 404, "NotFound"));
	error_free(e);
	e = client_get(c, &a, &core_v1_configmaps_resource, STR("ns"), STR("invalid"), &obj);
	assert_true(error_is(e, 422, "Invalid"));
	assert_string_equal(e->message, "it is Invalid");
	assert_int_equal(e->n_causes, 1);
	assert_string_equal(e->causes[0].field, "spec.x");
	error_free(e);
	e = client_get(c, &a, &core_v1_configmaps_resource, STR("ns"), STR("plain"), &obj);
	assert_true(error_is(e, 502, NULL));
	assert_non_null(strstr(e->message, "bad gateway"));
	error_free(e);
	int tries = 0, n = 0;

	do {
		e = client_get(c, &a, &core_v1_configmaps_resource, STR("ns"), STR("conflict"), &obj);
		n++;
	} while (client_retry_conflict(&e, &tries));
	assert_int_equal(n, 6);
	assert_true(error_is(e, 409, "Conflict"));
	error_free(e);
	/* Without a name these would hit the collection. */
	e = client_delete(c, &a, &core_v1_configmaps_resource, STR("ns"), STR_NULL, NULL);
	assert_non_null(e);
	error_free(e);
	assert_str(client_path(&a, &apps_v1_deployments_resource, STR("n"), STR("d"), "scale"),
		   "/apis/apps/v1/namespaces/n/deployments/d/scale");
	assert_str(client_path(&a, &core_v1_nodes_resource, STR("n"), STR_NULL, NULL), "/api/v1/nodes");
	client_free(c);
	http_server_stop(s, 0);
}

static int added, updated, deleted;

static void count(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	assert_true((ev == INFORMER_ADDED) == (old == NULL));
	assert_true((ev == INFORMER_DELETED) == (new_ == NULL));
	added += ev == INFORMER_ADDED;
	updated += ev == INFORMER_UPDATED;
	deleted += ev == INFORMER_DELETED;
}

static bool count_each(void *ctx, const struct cached_object *o)
{
	++*(int *)ctx;
	return true;
}

static void informers(void *arg)
{
	struct http_server *s;
	struct client *c = connect_fake(&s, "");
	arena_cleanup struct arena a = {0};
	char name[32];

	for (int i = 0; i < 1200; i++) { /* three pages */
		snprintf(name, sizeof(name), "o%04d", i);
		put(name, "first");
	}
	struct informer *i = informer_new(c, &(struct informer_opts){.resource = &core_v1_configmaps_resource});

	added = updated = deleted = 0;
	informer_on_event(i, count, NULL);
	informer_start(i);
	assert_ok(informer_wait_synced(i));
	assert_int_equal(lists, 3);
	assert_int_equal(added, 1200);
	assert_int_equal(informer_count(i), 1200);
	struct core_v1_config_map *cm = informer_get(i, &a, STR("ns"), STR("o0777"));

	assert_non_null(cm);
	assert_str(cm->kind, "ConfigMap");
	assert_str(str_map_get(API_MAP(&cm->data), STR("k")), "first");
	assert_int_equal(cm->metadata.managed_fields.n, 0);
	const struct cached_object *o = informer_peek(i, STR("ns"), STR("o0777"));

	assert_str(o->uid, "u-o0777");
	assert_str(o->controller_uid, "owner-1"); /* had an escape: kept outside the text */
	assert_str(str_map_get(&o->labels, STR("app")), "o0777");
	assert_null(informer_peek(i, STR("ns"), STR("o9999")));
	assert_null(informer_peek(i, STR("nt"), STR("o0001")));
	int n = 0;

	informer_each_owned(i, STR("owner-1"), count_each, &n);
	assert_int_equal(n, 1200);
	const struct selector *sel;

	assert_ok(label_selector_parse(&a, STR("app in (o0001,o0002)"), &sel));
	void **objs;

	assert_int_equal(informer_list(i, &a, STR("ns"), sel, &objs), 2);
	assert_int_equal(informer_list(i, &a, STR("nr"), NULL, &objs), 0);

	/* Changes come by the watch. */
	put("o0001", "second");
	put("zz", "first");
	put("a", "first");
	del("o0002");
	WAIT_FOR(deleted == 1);
	assert_int_equal(updated, 1);
	assert_int_equal(added, 1202);
	cm = informer_get(i, &a, STR("ns"), STR("o0001"));
	assert_str(str_map_get(API_MAP(&cm->data), STR("k")), "second");
	assert_null(informer_peek(i, STR("ns"), STR("o0002")));
	assert_non_null(informer_peek(i, STR("ns"), STR("a")));

	/* The connection goes: the watch resumes where it was, without a list. */
	int l = lists, w = watches;

	cut_watches++;
	waitq_wake_all(&changed);
	put("o0003", "while away");
	WAIT_FOR(updated == 2);
	assert_int_equal(lists, l);
	assert_true(watches > w);

	/* History is gone: it lists again and tells what vanished meanwhile. */
	WAIT_FOR(watches > w);
	cut_watches++;
	forget_log(); /* the server forgets */
	waitq_wake_all(&changed);
	del("o0004");
	put("o0005", "third");
	forget_log();
	compacted = revision + 1;
	WAIT_FOR(lists > l);
	WAIT_FOR(deleted == 2 && updated == 3);
	assert_null(informer_peek(i, STR("ns"), STR("o0004")));
	compacted = 0;

	/* A late handler gets everything at once. */
	int before = added;

	informer_on_event(i, count, NULL);
	assert_int_equal(added - before, (int)informer_count(i));
	informer_stop(i);
	client_free(c);
	http_server_stop(s, 0);
}

static void events(void *arg)
{
	struct http_server *s;
	struct client *c = connect_fake(&s, "");
	struct event_recorder *r = event_recorder_new(c, "tester", "host");
	struct core_v1_object_reference ref = {.kind = STR("Pod"), .namespace = STR("ns"), .name = STR("p"), .uid = STR("1"),
					       .api_version = STR("v1")};

	events_posted = events_patched = 0;
	event_record(r, &ref, "Warning", "Failing", "it \"failed\" %d", 1);
	WAIT_FOR(events_posted == 1);
	assert_non_null(strstr(last_event, "\"message\":\"it \\\"failed\\\" 1\""));
	assert_non_null(strstr(last_event, "\"component\":\"tester\",\"host\":\"host\""));
	assert_non_null(strstr(last_event, "\"count\":1"));
	event_record(r, &ref, "Warning", "Failing", "it \"failed\" %d", 1);
	WAIT_FOR(events_patched == 1);
	assert_non_null(strstr(last_event, "\"count\":2"));
	assert_int_equal(events_posted, 1);
	/* Many with different messages become one. */
	for (int i = 0; i < 15; i++)
		event_record(r, &ref, "Normal", "Many", "number %d", i);
	WAIT_FOR(events_posted == 12 && events_patched == 5);
	assert_non_null(strstr(last_event, "(combined from similar events): number 14"));
	/* An object that talks too much is not heard after 25. */
	for (int i = 0; i < 40; i++)
		event_record(r, &ref, "Normal", "Spam", "same");
	error_free(fiber_sleep(100));
	assert_int_equal(events_posted + events_patched, 25);
	event_recorder_free(r);
	client_free(c);
	http_server_stop(s, 0);
}

static bool was_lost;
static void lost(void *ctx)
{
	was_lost = true;
}

static void leases(void *arg)
{
	struct http_server *s;
	struct client *c = connect_fake(&s, "");
	struct leader_opts o = {.client = c, .ns = "kube-system", .name = "x", .identity = "me", .lease_ms = 1000, .renew_ms = 700,
				.retry_ms = 50};

	/* Somebody else leads, and has stopped renewing. */
	lease = xstrdup("{\"metadata\":{\"name\":\"x\",\"resourceVersion\":\"1\"},\"spec\":{\"holderIdentity\":\"other\","
			"\"leaseDurationSeconds\":1,\"renewTime\":\"2026-01-01T00:00:00.000000Z\",\"leaseTransitions\":4}}");
	int64_t began = now_ms();

	assert_ok(leader_acquire(&o, lost, NULL));
	assert_true(now_ms() - began >= 1000);
	assert_non_null(strstr(lease, "\"holderIdentity\":\"me\""));
	assert_non_null(strstr(lease, "\"leaseTransitions\":5"));
	int rv = lease_rv;

	WAIT_FOR(lease_rv > rv + 1);
	assert_false(was_lost);
	leader_release();
	assert_non_null(strstr(lease, "\"holderIdentity\":\"\""));
	/* Free: taken at once; then another takes it by force. */
	began = now_ms();
	assert_ok(leader_acquire(&o, lost, NULL));
	assert_true(now_ms() - began < 1000);
	free(lease);
	lease = xstrdup("{\"metadata\":{\"name\":\"x\"},\"spec\":{\"holderIdentity\":\"thief\",\"leaseDurationSeconds\":9,"
			"\"renewTime\":\"2026-01-02T00:00:00.000000Z\"}}");
	WAIT_FOR(was_lost);
	assert_non_null(strstr(lease, "thief"));
	leader_release();
	client_free(c);
	http_server_stop(s, 0);
}

#define LOOP_TEST(fn)                                                                              \
	static void test_##fn(void **state)                                                        \
	{                                                                                          \
		assert_ok(loop_run(fn, NULL));                                                     \
	}
LOOP_TEST(verbs)
LOOP_TEST(informers)
LOOP_TEST(events)
LOOP_TEST(leases)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_verbs),
		cmocka_unit_test(test_informers),
		cmocka_unit_test(test_events),
		cmocka_unit_test(test_leases),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
