/* The kubelet's pure parts: plans, status, environment, resources, logs, probes, backoff, atomic volumes. */
#include "../test.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kubelet/internal.h"

static struct arena arena;

static int setup_arena(void **state)
{
	(void)state;
	arena_init(&arena);
	return 0;
}

static int free_arena(void **state)
{
	(void)state;
	arena_free(&arena);
	return 0;
}

static struct core_v1_pod *pod_from(const char *yaml)
{
	struct core_v1_pod *p = arena_new(&arena, struct core_v1_pod);

	assert_ok(yaml_decode(&arena, &core_v1_pod_type, str_from(yaml), NULL, p));
	return p;
}

#define HEAD "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: d, uid: u, generation: 3}\n"

/* ---- views, as the runtime would give them ---- */

static struct view *view_of(void)
{
	return arena_new(&arena, struct view);
}

static void add_sandbox(struct view *v, int state, int64_t at, uint32_t attempt)
{
	struct view_sandbox *s = arena_push(&arena, &v->sandboxes);

	s->id = STR("sandbox");
	s->state = state;
	s->created_at = at;
	s->attempt = attempt;
	*arena_push(&arena, &s->ips) = STR("10.0.0.5");
}

static struct view_container *add_container(struct view *v, const char *name, int state, int code, int64_t at)
{
	struct view_container *c = arena_push(&arena, &v->containers);

	c->name = str_from(name);
	c->id = arena_printf(&arena, "%s-%lld", name, (long long)at);
	c->state = state;
	c->exit_code = code;
	c->created_at = c->started_at = at;
	return c;
}

static void forget_cstates(struct pod *p)
{
	while (p->containers) {
		struct cstate *c = p->containers;

		p->containers = c->next;
		free(c->name);
		free(c->wait_reason);
		free(c->wait_message);
		free(c->kill_reason);
		free(c->kill_message);
		free(c->probed_id);
		free(c);
	}
}

/* ---- plans ---- */

static void test_plan_start(void **state)
{
	struct core_v1_pod *pod = pod_from(HEAD "spec: {restartPolicy: Always, containers: [{name: a, image: i}, {name: b, image: i}]}\n");
	struct pod p = {.k = &kubelet};
	struct view *v = view_of();
	struct plan plan;

	(void)state;
	plan_make(&arena, &p, pod, v, &plan);
	assert_true(plan.create_sandbox);
	assert_int_equal(plan.sandbox_attempt, 0);
	assert_int_equal(plan.starts.n, 2);
	/* One runs, one has crashed: that one again, with the next attempt. */
	add_sandbox(v, CRI_SANDBOX_READY, 100, 0);
	add_container(v, "a", CRI_CONTAINER_RUNNING, 0, 110);
	add_container(v, "b", CRI_CONTAINER_EXITED, 1, 120)->attempt = 4;
	plan_make(&arena, &p, pod, v, &plan);
	assert_false(plan.create_sandbox);
	assert_int_equal(plan.starts.n, 1);
	assert_str(plan.starts.v[0].c->name, "b");
	assert_int_equal(plan.starts.v[0].attempt, 5);
	assert_false(plan.finished);
	/* The sandbox dies: a new one, what runs is killed. */
	v->sandboxes.v[0].state = CRI_SANDBOX_NOTREADY;
	plan_make(&arena, &p, pod, v, &plan);
	assert_true(plan.create_sandbox);
	assert_int_equal(plan.sandbox_attempt, 1);
	assert_int_equal(plan.kills.n, 1);
}

static void test_plan_finished(void **state)
{
	struct core_v1_pod *pod = pod_from(HEAD "spec: {restartPolicy: OnFailure, containers: [{name: a, image: i}]}\n");
	struct pod p = {.k = &kubelet};
	struct view *v = view_of();
	struct plan plan;

	(void)state;
	add_sandbox(v, CRI_SANDBOX_READY, 100, 0);
	add_container(v, "a", CRI_CONTAINER_EXITED, 0, 110);
	plan_make(&arena, &p, pod, v, &plan);
	assert_true(plan.finished);
	assert_int_equal(plan.starts.n, 0);
	v->containers.v[0].exit_code = 2;
	plan_make(&arena, &p, pod, v, &plan);
	assert_false(plan.finished);
	assert_int_equal(plan.starts.n, 1);
	pod->spec.restart_policy = STR("Never");
	plan_make(&arena, &p, pod, v, &plan);
	assert_true(plan.finished);
	/* Never, and its sandbox has gone meanwhile: no new one. */
	v->sandboxes.v[0].state = CRI_SANDBOX_NOTREADY;
	plan_make(&arena, &p, pod, v, &plan);
	assert_true(plan.finished);
	assert_false(plan.create_sandbox);
}

static void test_plan_inits(void **state)
{
	struct core_v1_pod *pod = pod_from(HEAD "spec:\n  restartPolicy: Always\n  initContainers:\n  - {name: one, image: i}\n"
						"  - {name: side, image: i, restartPolicy: Always}\n  - {name: two, image: i}\n"
						"  containers: [{name: a, image: i}]\n");
	struct pod p = {.k = &kubelet};
	struct view *v = view_of();
	struct plan plan;

	(void)state;
	plan_make(&arena, &p, pod, v, &plan);
	assert_true(plan.create_sandbox);
	assert_int_equal(plan.starts.n, 1);
	assert_str(plan.starts.v[0].c->name, "one");
	add_sandbox(v, CRI_SANDBOX_READY, 100, 0);
	add_container(v, "one", CRI_CONTAINER_RUNNING, 0, 110);
	plan_make(&arena, &p, pod, v, &plan);
	assert_int_equal(plan.starts.n, 0);
	assert_false(plan.inits_done);
	v->containers.v[0].state = CRI_CONTAINER_EXITED;
	plan_make(&arena, &p, pod, v, &plan);
	assert_int_equal(plan.starts.n, 1);
	assert_str(plan.starts.v[0].c->name, "side");
	add_container(v, "side", CRI_CONTAINER_RUNNING, 0, 120);
	plan_make(&arena, &p, pod, v, &plan);
	assert_str(plan.starts.v[0].c->name, "two");
	add_container(v, "two", CRI_CONTAINER_EXITED, 0, 130);
	plan_make(&arena, &p, pod, v, &plan);
	assert_true(plan.inits_done);
	assert_int_equal(plan.starts.n, 1);
	assert_str(plan.starts.v[0].c->name, "a");
	/* A sidecar that ends beside running containers comes back; the init containers do not. */
	add_container(v, "a", CRI_CONTAINER_RUNNING, 0, 140);
	v->containers.v[1].state = CRI_CONTAINER_EXITED;
	plan_make(&arena, &p, pod, v, &plan);
	assert_int_equal(plan.starts.n, 1);
	assert_str(plan.starts.v[0].c->name, "side");
	/* An init container that fails for good ends the pod. */
	pod->spec.restart_policy = STR("Never");
	v->containers.n = 1;
	v->containers.v[0].exit_code = 1;
	plan_make(&arena, &p, pod, v, &plan);
	assert_true(plan.finished);
}

static void test_plan_kills(void **state)
{
	struct core_v1_pod *pod = pod_from(HEAD "spec: {restartPolicy: Always, containers: [{name: a, image: i}]}\n");
	struct pod p = {.k = &kubelet};
	struct view *v = view_of();
	struct view_container *c;
	struct cstate *cs;
	struct plan plan;

	(void)state;
	add_sandbox(v, CRI_SANDBOX_READY, 100, 0);
	c = add_container(v, "a", CRI_CONTAINER_RUNNING, 0, 110);
	c->hash = container_hash(&arena, &pod->spec.containers.v[0]);
	plan_make(&arena, &p, pod, v, &plan);
	assert_int_equal(plan.kills.n, 0);
	pod->spec.containers.v[0].image = STR("j");
	plan_make(&arena, &p, pod, v, &plan);
	assert_int_equal(plan.kills.n, 1);
	assert_str(plan.kills.v[0].message, "Container a definition changed, will be restarted");
	pod->spec.containers.v[0].image = STR("i");
	cs = pod_cstate_make(&p, STR("a"), CONTAINER_MAIN);
	cs->kill_reason = strdup("Unhealthy");
	cs->kill_message = strdup("Container a failed liveness probe, will be restarted");
	cs->probed_id = strdup("another"); /* said of an earlier container */
	plan_make(&arena, &p, pod, v, &plan);
	assert_int_equal(plan.kills.n, 0);
	free(cs->probed_id);
	cs->probed_id = str_dupz(c->id);
	plan_make(&arena, &p, pod, v, &plan);
	assert_int_equal(plan.kills.n, 1);
	forget_cstates(&p);
}

static void test_restart_rules(void **state)
{
	struct core_v1_pod *pod = pod_from(HEAD "spec:\n  restartPolicy: Never\n  containers:\n  - name: a\n    restartPolicy: Never\n"
						"    restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [42]}}]\n"
						"  - {name: b, restartPolicy: OnFailure}\n  - name: c\n    restartPolicy: Never\n"
						"    restartPolicyRules: [{action: Restart, exitCodes: {operator: NotIn, values: [1, 2]}}]\n");
	const struct core_v1_container *c = pod->spec.containers.v;

	(void)state;
	assert_true(container_restarts(pod, &c[0], CONTAINER_MAIN, 42));
	assert_false(container_restarts(pod, &c[0], CONTAINER_MAIN, 41));
	assert_true(container_restarts(pod, &c[1], CONTAINER_MAIN, 1));
	assert_false(container_restarts(pod, &c[1], CONTAINER_MAIN, 0));
	assert_false(container_restarts(pod, &c[2], CONTAINER_MAIN, 2));
	assert_true(container_restarts(pod, &c[2], CONTAINER_MAIN, 3));
	assert_false(container_restarts(pod, &c[1], CONTAINER_EPHEMERAL, 1));
}

static void test_backoff(void **state)
{
	int64_t ms = 0, at = 0, want = BACKOFF_INITIAL_MS;

	(void)state;
	assert_int_equal(backoff_wait(ms, 1000, 1000), 0); /* the first restart is at once */
	for (int i = 0; i < 8; i++) {
		backoff_next(&ms, &at, at + 1000);
		assert_int_equal(ms, want);
		want = want * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : want * 2;
	}
	assert_int_equal(ms, BACKOFF_MAX_MS);
	assert_int_equal(backoff_wait(10000, 1000, 4000), 7000);
	assert_int_equal(backoff_wait(10000, 1000, 11000), 0);
	backoff_next(&ms, &at, at + 2 * BACKOFF_MAX_MS + 1);
	assert_int_equal(ms, BACKOFF_INITIAL_MS);
}

/* ---- status ---- */

static void compute(struct pod *p, const struct core_v1_pod *pod, const struct view *v, struct core_v1_pod_status *s)
{
	struct core_v1_pod_status old = {0};

	status_make(p, &arena, pod, v, NULL, &old, s);
}

static const struct core_v1_pod_condition *cond(const struct core_v1_pod_status *s, const char *type)
{
	for (uint32_t i = 0; i < s->conditions.n; i++)
		if (str_eqz(s->conditions.v[i].type, type))
			return &s->conditions.v[i];
	fail_msg("no condition %s", type);
	return NULL;
}

static void test_status_running(void **state)
{
	struct core_v1_pod *pod = pod_from(HEAD "spec: {restartPolicy: Always, containers: [{name: b, image: i, readinessProbe: {exec: {}}}, {name: a, image: i}]}\n");
	struct pod p = {.k = &kubelet, .start_time = 5};
	struct view *v = view_of();
	struct core_v1_pod_status s;
	struct cstate *cs;

	(void)state;
	compute(&p, pod, v, &s);
	assert_str(s.phase, "Pending");
	assert_str(s.container_statuses.v[0].name, "a"); /* in order of names */
	assert_str(s.container_statuses.v[0].state.waiting->reason, "ContainerCreating");
	assert_str(cond(&s, "PodReadyToStartContainers")->status, "False");
	assert_str(cond(&s, "Initialized")->status, "True");
	add_sandbox(v, CRI_SANDBOX_READY, 100, 0);
	add_container(v, "a", CRI_CONTAINER_RUNNING, 0, 2000000000);
	add_container(v, "b", CRI_CONTAINER_RUNNING, 0, 3000000000);
	compute(&p, pod, v, &s);
	assert_str(s.phase, "Running");
	assert_str(s.pod_ip, "10.0.0.5");
	assert_int_equal(s.observed_generation, 3);
	assert_true(s.container_statuses.v[0].ready);
	assert_false(s.container_statuses.v[1].ready);
	assert_str(cond(&s, "Ready")->status, "False");
	assert_str(cond(&s, "Ready")->reason, "ContainersNotReady");
	assert_str(cond(&s, "Ready")->message, "containers with unready status: [b]");
	cs = pod_cstate_make(&p, STR("b"), CONTAINER_MAIN);
	cs->probed_id = str_dupz(v->containers.v[1].id);
	cs->startup_done = cs->ready = true;
	compute(&p, pod, v, &s);
	assert_str(cond(&s, "Ready")->status, "True");
	assert_str(cond(&s, "ContainersReady")->status, "True");
	forget_cstates(&p);
}

static void test_status_crash_loop(void **state)
{
	struct core_v1_pod *pod = pod_from(HEAD "spec: {restartPolicy: Always, containers: [{name: a, image: i}]}\n");
	struct pod p = {.k = &kubelet};
	struct view *v = view_of();
	struct core_v1_pod_status s;
	struct view_container *c;

	(void)state;
	add_sandbox(v, CRI_SANDBOX_READY, 100, 0);
	c = add_container(v, "a", CRI_CONTAINER_EXITED, 3, 110);
	c->attempt = 2;
	c->term_message = STR("out of luck");
	cstate_waiting(pod_cstate_make(&p, STR("a"), CONTAINER_MAIN), "CrashLoopBackOff", "back-off %s", "20s");
	compute(&p, pod, v, &s);
	assert_str(s.phase, "Running");
	assert_int_equal(s.container_statuses.v[0].restart_count, 2);
	assert_str(s.container_statuses.v[0].state.waiting->reason, "CrashLoopBackOff");
	assert_str(s.container_statuses.v[0].state.waiting->message, "back-off 20s");
	assert_int_equal(s.container_statuses.v[0].last_state.terminated->exit_code, 3);
	assert_str(s.container_statuses.v[0].last_state.terminated->reason, "Error");
	assert_str(s.container_statuses.v[0].last_state.terminated->message, "out of luck");
	forget_cstates(&p);
}

static void test_status_end(void **state)
{
	struct core_v1_pod *pod = pod_from(HEAD "spec: {restartPolicy: Never, containers: [{name: a, image: i}, {name: b, image: i}]}\n");
	struct pod p = {.k = &kubelet, .stopped = true};
	struct view *v = view_of();
	struct core_v1_pod_status s;

	(void)state;
	add_sandbox(v, CRI_SANDBOX_NOTREADY, 100, 0);
	add_container(v, "a", CRI_CONTAINER_EXITED, 0, 110);
	add_container(v, "b", CRI_CONTAINER_EXITED, 0, 120);
	compute(&p, pod, v, &s);
	assert_str(s.phase, "Succeeded");
	assert_str(cond(&s, "Ready")->reason, "PodCompleted");
	v->containers.v[1].exit_code = 9;
	compute(&p, pod, v, &s);
	assert_str(s.phase, "Failed");
	assert_str(cond(&s, "Ready")->reason, "PodFailed");
	/* Evicted before it could start. */
	p.fail_reason = "Evicted";
	p.fail_message = "The node was low on resource: memory. ";
	p.disruption_target = true;
	v->containers.n = 0;
	compute(&p, pod, v, &s);
	assert_str(s.phase, "Failed");
	assert_str(s.reason, "Evicted");
	assert_str(s.container_statuses.v[0].state.terminated->reason, "ContainerStatusUnknown");
	assert_int_equal(s.container_statuses.v[0].state.terminated->exit_code, 137);
	assert_str(cond(&s, "DisruptionTarget")->reason, "TerminationByKubelet");
	/* What the API calls ended stays so. */
	p = (struct pod){.k = &kubelet};
	pod->status.phase = STR("Succeeded");
	compute(&p, pod, v, &s);
	assert_str(s.phase, "Succeeded");
}

/* A container's end is counted once, whatever is computed again; its next end once more. */
static void test_terminations(void **state)
{
	struct core_v1_pod *pod = pod_from(HEAD "spec: {restartPolicy: Always, initContainers: [{name: i, image: i}], "
						"containers: [{name: a, image: i}]}\n");
	struct pod p = {.k = &kubelet, .start_time = 5};
	struct view *v = view_of();
	struct core_v1_pod_status old, s;
	buf_cleanup struct buf b = {0};

	(void)state;
	add_sandbox(v, CRI_SANDBOX_READY, 100, 0);
	add_container(v, "i", CRI_CONTAINER_EXITED, 0, 110);
	add_container(v, "a", CRI_CONTAINER_RUNNING, 139, 120);
	compute(&p, pod, v, &old);
	stats_terminations(&kubelet, &arena, &(struct core_v1_pod_status){0}, &old);
	v->containers.v[1].state = CRI_CONTAINER_EXITED;
	compute(&p, pod, v, &s);
	stats_terminations(&kubelet, &arena, &old, &s);
	stats_terminations(&kubelet, &arena, &s, &s);
	stats_terminations(&kubelet, &arena, &old, &s);
	s.container_statuses.v[0].state.terminated->reason = STR("a \"b\"");
	stats_terminations(&kubelet, &arena, &old, &s);
	assert_ok(stats_metrics(&kubelet, &arena, &b));
#define SERIES "kubelet_terminated_containers_total{container_type="
	assert_true(str_contains(buf_view(&b), STR("# TYPE kubelet_terminated_containers_total counter\n")));
	assert_true(
		str_contains(buf_view(&b), STR(SERIES "\"init_container\",exit_code=\"0\",reason=\"Completed\"} 1\n")));
	assert_true(str_contains(buf_view(&b), STR(SERIES "\"container\",exit_code=\"139\",reason=\"Error\"} 2\n")));
	assert_true(str_contains(buf_view(&b), STR(SERIES "\"container\",exit_code=\"139\",reason=\"Unknown\"} 1\n")));
	map_free(&kubelet.terminations);
	forget_cstates(&p);
}

/* A pod runs for as long as a sidecar does, whatever became of the others. */
static void test_status_sidecar(void **state)
{
	struct core_v1_pod *pod = pod_from(HEAD "spec: {restartPolicy: Never, initContainers: [{name: s, image: i, restartPolicy: Always}], "
						"containers: [{name: a, image: i}]}\n");
	struct pod p = {.k = &kubelet, .start_time = 5};
	struct view *v = view_of();
	struct core_v1_pod_status s;

	(void)state;
	add_sandbox(v, CRI_SANDBOX_READY, 100, 0);
	compute(&p, pod, v, &s);
	assert_str(s.phase, "Pending");
	add_container(v, "s", CRI_CONTAINER_RUNNING, 0, 110);
	add_container(v, "a", CRI_CONTAINER_RUNNING, 0, 120);
	compute(&p, pod, v, &s);
	assert_str(s.phase, "Running");
	v->containers.v[1].state = CRI_CONTAINER_EXITED;
	compute(&p, pod, v, &s);
	assert_str(s.phase, "Running");
	v->containers.v[0].state = CRI_CONTAINER_EXITED;
	v->containers.v[0].exit_code = 143;
	compute(&p, pod, v, &s);
	assert_str(s.phase, "Succeeded");
}

static void test_status_patch(void **state)
{
	struct core_v1_pod_status old = {0}, s = {0};
	buf_cleanup struct buf b = {0};
	struct str text;

	(void)state;
	s.phase = STR("Running");
	((struct core_v1_pod_ip *)arena_push(&arena, &s.pod_ips))->ip = STR("10.0.0.2");
	((struct core_v1_pod_ip *)arena_push(&arena, &old.pod_ips))->ip = STR("10.0.0.1");
	old.reason = STR("Gone");
	struct core_v1_pod_condition *c = arena_push(&arena, &s.conditions);

	c->type = STR("Ready");
	c->status = STR("True");
	c->message = STR("a \"b\"\n");
	status_patch(&arena, STR("u1"), &old, &s, &b);
	text = buf_view(&b);
	assert_true(str_contains(text, STR("\"metadata\":{\"uid\":\"u1\"}")));
	assert_true(str_contains(text, STR("\"reason\":null")));
	assert_true(str_contains(text, STR("\"podIPs\":[{\"ip\":\"10.0.0.2\"},{\"$patch\":\"replace\"}]")));
	assert_true(str_contains(text, STR("\"message\":\"a \\\"b\\\"\\u000a\"")));
	/* It is JSON. */
	struct core_v1_pod back = {0};

	assert_ok(json_decode(&arena, &core_v1_pod_type, text, NULL, &back));
	assert_str(back.status.phase, "Running");
}

/* ---- environment ---- */

static struct str lookup(void *ctx, struct str name)
{
	return env_get(ctx, name);
}

static void test_expand(void **state)
{
	static const char *const cases[][2] = {
		{"plain", "plain"}, {"$(A)", "one"}, {"x$(A)y$(B)z", "xoney two z"}, {"$$(A)", "$(A)"}, {"$$$(A)", "$one"}, {"$(NONE)", "$(NONE)"},
		{"$(A", "$(A"}, {"$", "$"}, {"$x", "$x"}, {"$()", "$()"}, {"$(EMPTY)", ""}, {"a$", "a$"}, {"$$", "$"},
	};
	struct env_list env = {0};

	(void)state;
	env_set(&arena, &env, STR("A"), STR("one"));
	env_set(&arena, &env, STR("B"), STR(" two "));
	env_set(&arena, &env, STR("EMPTY"), STR_NULL);
	env_set(&arena, &env, STR("A"), STR("one"));
	assert_int_equal(env.v.n, 3);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		const char *want = i == 2 ? "xoney two z" : cases[i][1];

		assert_str(env_expand(&arena, str_from(cases[i][0]), lookup, &env), want);
	}
}

static void test_fields(void **state)
{
	struct core_v1_pod *pod = pod_from("apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: d, uid: u, labels: {b: 'x\"y', a: '1'}, annotations: {k.io/n: v}}\n"
					   "spec: {nodeName: n1, serviceAccountName: sa, containers: [{name: a}]}\n");
	struct str s;
	struct error *e;

	(void)state;
	kubelet.c = arena_new(&arena, struct kubelet_config);
	assert_ok(field_ref(&kubelet, &arena, NULL, pod, STR("metadata.name"), &s));
	assert_str(s, "p");
	assert_ok(field_ref(&kubelet, &arena, NULL, pod, STR("metadata.labels"), &s));
	assert_str(s, "a=\"1\"\nb=\"x\\\"y\"");
	assert_ok(field_ref(&kubelet, &arena, NULL, pod, STR("metadata.annotations['k.io/n']"), &s));
	assert_str(s, "v");
	assert_ok(field_ref(&kubelet, &arena, NULL, pod, STR("spec.nodeName"), &s));
	assert_str(s, "n1");
	e = field_ref(&kubelet, &arena, NULL, pod, STR("spec.x"), &s);
	assert_non_null(e);
	error_free(e);
}

/* ---- resources ---- */

#define RES(req, lim) "resources: {requests: {" req "}, limits: {" lim "}}"

static void test_qos(void **state)
{
	struct core_v1_pod *pod = pod_from(HEAD "spec: {containers: [{name: a}]}\n");

	(void)state;
	assert_int_equal(pod_qos(pod), QOS_BEST_EFFORT);
	assert_int_equal(oom_score_adj(pod, &pod->spec.containers.v[0], 1 << 30), 1000);
	pod = pod_from(HEAD "spec: {containers: [{name: a, " RES("cpu: 100m, memory: 64Mi", "cpu: 100m, memory: 64Mi") "}]}\n");
	assert_int_equal(pod_qos(pod), QOS_GUARANTEED);
	assert_int_equal(oom_score_adj(pod, &pod->spec.containers.v[0], 1 << 30), -997);
	pod = pod_from(HEAD "spec: {containers: [{name: a, " RES("cpu: 0.1, memory: 512Mi", "cpu: 100m, memory: 1Gi") "}]}\n");
	assert_int_equal(pod_qos(pod), QOS_BURSTABLE);
	assert_int_equal(oom_score_adj(pod, &pod->spec.containers.v[0], 1 << 30), 500);
	/* An init container without limits makes it burstable, too. */
	pod = pod_from(HEAD "spec: {initContainers: [{name: i}], containers: [{name: a, " RES("cpu: 1, memory: 1Gi", "cpu: 1, memory: 1Gi") "}]}\n");
	assert_int_equal(pod_qos(pod), QOS_BURSTABLE);
}

static void test_sums(void **state)
{
	struct core_v1_pod *pod = pod_from(HEAD "spec:\n  overhead: {cpu: 10m}\n  initContainers:\n"
						"  - {name: s, restartPolicy: Always, " RES("cpu: 50m, memory: 10Mi", "cpu: 50m, memory: 10Mi") "}\n"
						"  - {name: i, " RES("cpu: 400m, memory: 5Mi", "cpu: 400m, memory: 5Mi") "}\n"
						"  containers:\n  - {name: a, " RES("cpu: 100m, memory: 20Mi", "cpu: 100m, memory: 20Mi") "}\n"
						"  - {name: b, " RES("cpu: 100m, memory: 20Mi", "cpu: 200m") "}\n");
	struct pod_resources r;

	(void)state;
	pod_resources_sum(pod, &r);
	assert_int_equal(r.cpu_request_m, 460);          /* the init container beside the sidecar, and the overhead */
	assert_int_equal(r.memory_request, 50 << 20);
	assert_int_equal(r.cpu_limit_m, 460);
	assert_int_equal(r.memory_limit, -1);            /* b has none */
}

static void test_hugepages(void **state)
{
	struct core_v1_pod *pod = pod_from(HEAD "spec:\n  initContainers:\n"
						"  - {name: s, restartPolicy: Always, " RES("hugepages-2Mi: 2Mi", "hugepages-2Mi: 2Mi") "}\n"
						"  - {name: i, " RES("hugepages-2Mi: 20Mi", "hugepages-2Mi: 20Mi") "}\n"
						"  containers:\n  - {name: a, " RES("hugepages-2Mi: 4Mi", "hugepages-2Mi: 4Mi") "}\n"
						"  - {name: b, " RES("hugepages-2Mi: 6Mi, hugepages-1Gi: 1Gi", "hugepages-2Mi: 6Mi") "}\n");
	char text[40];

	(void)state;
	assert_int_equal(pod_request_sum(pod, "hugepages-2Mi"), 22 << 20); /* the init container beside the sidecar */
	assert_int_equal(pod_request_sum(pod, "hugepages-1Gi"), 1 << 30);
	assert_int_equal(pod_request_sum(pod, "hugepages-64Ki"), 0);
	pod = pod_from(HEAD "spec: {resources: {requests: {hugepages-2Mi: 8Mi}}, containers: [{name: a}]}\n");
	assert_int_equal(pod_request_sum(pod, "hugepages-2Mi"), 8 << 20);
	assert_string_equal(hugepage_unit(2 << 20, text), "2MB");
	assert_string_equal(hugepage_unit(1 << 30, text), "1GB");
	assert_string_equal(hugepage_unit(64 << 10, text), "64KB");
	assert_string_equal(hugepage_resource(2 << 20, text), "hugepages-2Mi");
	assert_string_equal(hugepage_resource(1 << 30, text), "hugepages-1Gi");
}

static void test_cgroup_values(void **state)
{
	(void)state;
	assert_int_equal(milli_to_shares(0), 2);
	assert_int_equal(milli_to_shares(1), 2);
	assert_int_equal(milli_to_shares(500), 512);
	assert_int_equal(milli_to_shares(1000000000), 262144);
	assert_int_equal(milli_to_quota(0, 100000), -1);
	assert_int_equal(milli_to_quota(1, 100000), 1000);
	assert_int_equal(milli_to_quota(1500, 100000), 150000);
	assert_int_equal(shares_to_weight(2), 1);
	assert_int_equal(shares_to_weight(262144), 10000);
	assert_int_equal(shares_to_weight(1024), 39);
}

static void test_resource_field(void **state)
{
	struct core_v1_pod *pod = pod_from(HEAD "spec: {containers: [{name: a, " RES("cpu: 250m, memory: 32Mi", "memory: 64Mi") "}]}\n");
	struct core_v1_resource_field_selector f = {.resource = STR("requests.cpu")};
	const struct core_v1_container *c = &pod->spec.containers.v[0];
	struct str s;

	(void)state;
	kubelet.c = arena_new(&arena, struct kubelet_config);
	kubelet.c->root_dir = "/";
	kubelet.cpus = 4;
	assert_ok(resource_field(&kubelet, &arena, pod, c, &f, &s));
	assert_str(s, "1");
	f.divisor = STR("1m");
	assert_ok(resource_field(&kubelet, &arena, pod, c, &f, &s));
	assert_str(s, "250");
	f = (struct core_v1_resource_field_selector){.resource = STR("limits.memory"), .divisor = STR("1Mi")};
	assert_ok(resource_field(&kubelet, &arena, pod, c, &f, &s));
	assert_str(s, "64");
	f = (struct core_v1_resource_field_selector){.resource = STR("limits.cpu")}; /* none: what the node has */
	assert_ok(resource_field(&kubelet, &arena, pod, c, &f, &s));
	assert_str(s, "4");
	f.resource = STR("limits.love");
	struct error *e = resource_field(&kubelet, &arena, pod, c, &f, &s);

	assert_non_null(e);
	error_free(e);
}

static void test_hash(void **state)
{
	struct core_v1_container a = {.name = STR("web"), .image = STR("nginx:1")}, b = a;

	(void)state;
	assert_true(str_eq(container_hash(&arena, &a), container_hash(&arena, &b)));
	b.image = STR("nginx:2");
	assert_false(str_eq(container_hash(&arena, &a), container_hash(&arena, &b)));
}

static void test_eviction_flag(void **state)
{
	struct kubelet_threshold t[EVICT_SIGNALS];
	struct error *e;

	(void)state;
	assert_ok(config_eviction_parse(STR("memory.available<100Mi,nodefs.available<10%"), t));
	assert_int_equal(t[EVICT_MEMORY_AVAILABLE].quantity, 100 << 20);
	assert_true(t[EVICT_NODEFS_AVAILABLE].percent == 10);
	assert_false(t[EVICT_IMAGEFS_AVAILABLE].set);
	e = config_eviction_parse(STR("memory.available=1Gi"), t);
	assert_non_null(e);
	error_free(e);
	e = config_eviction_parse(STR("nonsense<1Gi"), t);
	assert_non_null(e);
	error_free(e);
}

/* ---- probes ---- */

static void test_probe_state(void **state)
{
	struct probe_state s = {0};

	(void)state;
	assert_false(probe_feed(&s, true, 2, 3));
	assert_true(probe_feed(&s, true, 2, 3));
	assert_true(s.result);
	assert_false(probe_feed(&s, true, 2, 3));
	assert_false(probe_feed(&s, false, 2, 3));
	assert_false(probe_feed(&s, false, 2, 3));
	assert_false(probe_feed(&s, true, 2, 3)); /* one success in between begins again */
	assert_false(probe_feed(&s, false, 2, 3));
	assert_false(probe_feed(&s, false, 2, 3));
	assert_true(probe_feed(&s, false, 2, 3));
	assert_false(s.result);
	/* A startup probe that never succeeds is decided, though its result never changed. */
	s = (struct probe_state){0};
	assert_false(probe_feed(&s, false, 1, 2));
	assert_true(probe_feed(&s, false, 1, 2));
	assert_false(s.result);
}

/* ---- logs ---- */

static void test_log_parse(void **state)
{
	struct log_entry e;

	(void)state;
	assert_true(pod_log_parse(STR("2026-01-02T03:04:05.678901234Z stdout F hello world\n"), &e));
	assert_str(e.time, "2026-01-02T03:04:05.678901234Z");
	assert_int_equal(e.stream, LOG_STDOUT);
	assert_false(e.partial);
	assert_str(e.content, "hello world\n");
	assert_true(pod_log_parse(STR("2026-01-02T03:04:05.678901234+01:00 stderr P part\n"), &e));
	assert_int_equal(e.stream, LOG_STDERR);
	assert_true(e.partial);
	assert_str(e.content, "part");
	assert_true(pod_log_parse(STR("2026-01-02T03:04:05.678901234Z stdout F \n"), &e));
	assert_str(e.content, "\n");
	assert_true(pod_log_parse(STR("2026-01-02T03:04:05.678901234Z stdout F\n"), &e));
	assert_str(e.content, "\n");
	assert_false(pod_log_parse(STR("2026-01-02T03:04:05.678901234Z stdin F x\n"), &e));
	assert_false(pod_log_parse(STR("2026-01-02T03:04:05.678901234Z stdout X x\n"), &e));
	assert_false(pod_log_parse(STR("garbage\n"), &e));
	assert_false(pod_log_parse(STR(""), &e));
}

static struct error *gather(void *ctx, struct str s)
{
	buf_str(ctx, s);
	return NULL;
}

static void read_as(const char *path, const struct log_opts *o, const char *want)
{
	buf_cleanup struct buf b = {0};

	assert_ok(log_read(path, o, NULL, gather, &b));
	assert_str(buf_view(&b), want);
}

static void log_fiber(void *arg)
{
	char path[] = "/tmp/skiff-log-XXXXXX";
	static const char text[] = "2026-01-01T00:00:01.000000000Z stdout F one\n"
				   "2026-01-01T00:00:02.000000000Z stderr F two\n"
				   "2026-01-01T00:00:03.000000000Z stdout P thr\n"
				   "2026-01-01T00:00:03.000000001Z stdout F ee\n"
				   "2026-01-01T00:00:04.000000000Z stdout F four\n";
	struct log_opts o = {.want_out = true, .want_err = true};
	struct api_time t;
	int fd = mkstemp(path);

	(void)arg;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, sizeof text - 1), sizeof text - 1);
	close(fd);
	read_as(path, &o, "one\ntwo\nthree\nfour\n");
	o.want_err = false;
	read_as(path, &o, "one\nthree\nfour\n");
	o.want_err = true;
	o.has_tail = true;
	o.tail = 1;
	read_as(path, &o, "four\n");
	o.tail = 2;
	read_as(path, &o, "three\nfour\n"); /* both entries of the split line */
	o.tail = 0;
	read_as(path, &o, "");
	o.tail = 100;
	read_as(path, &o, "one\ntwo\nthree\nfour\n");
	o.has_tail = false;
	o.has_limit = true;
	o.limit = 6;
	read_as(path, &o, "one\ntw");
	o.has_limit = false;
	assert_true(time_parse(STR("2026-01-01T00:00:03Z"), &t));
	o.since_ns = t.s * 1000000000;
	read_as(path, &o, "three\nfour\n");
	o.timestamps = true;
	read_as(path, &o, "2026-01-01T00:00:03.000000000Z three\n2026-01-01T00:00:04.000000000Z four\n");
	unlink(path);
}

static void test_log_read(void **state)
{
	(void)state;
	assert_ok(loop_run(log_fiber, NULL));
}

/* ---- volumes ---- */

static void put(struct volume_files *f, const char *path, const char *data)
{
	*arena_push(&arena, &f->v) = (struct volume_file){.path = str_from(path), .data = str_from(data), .mode = 0644, .uid = -1};
}

static void content(const char *dir, const char *name, const char *want)
{
	buf_cleanup struct buf b = {0};
	char path[256];

	snprintf(path, sizeof path, "%s/%s", dir, name);
	if (!want) {
		assert_int_equal(access(path, F_OK), -1);
		return;
	}
	assert_ok(file_read(path, &b));
	assert_str(buf_view(&b), want);
}

static void volume_fiber(void *arg)
{
	char dir[] = "/tmp/skiff-vol-XXXXXX", first[256], second[256], path[300];
	struct volume_files f = {0}, g = {0}, bad = {0};
	struct error *e;
	bool changed;
	ssize_t n;
	struct stat st;

	(void)arg;
	assert_non_null(mkdtemp(dir));
	put(&f, "a", "1");
	put(&f, "sub/b", "2");
	assert_ok(atomic_write(&arena, dir, &f, -1, &changed));
	assert_true(changed);
	content(dir, "a", "1");
	content(dir, "sub/b", "2");
	snprintf(path, sizeof path, "%s/..data", dir);
	n = readlink(path, first, sizeof first - 1);
	assert_true(n > 0);
	first[n] = 0;
	/* The same again changes nothing. */
	assert_ok(atomic_write(&arena, dir, &f, -1, &changed));
	assert_false(changed);
	put(&g, "a", "new");
	put(&g, "c", "3");
	assert_ok(atomic_write(&arena, dir, &g, -1, &changed));
	assert_true(changed);
	n = readlink(path, second, sizeof second - 1);
	second[n] = 0;
	assert_string_not_equal(first, second);
	content(dir, "a", "new");
	content(dir, "c", "3");
	content(dir, "sub", NULL);
	content(dir, first, NULL);
	/* Only a mode is different. */
	g.v.v[0].mode = 0400;
	assert_ok(atomic_write(&arena, dir, &g, -1, &changed));
	assert_true(changed);
	snprintf(path, sizeof path, "%s/a", dir);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0400);
	put(&bad, "../x", "1");
	e = atomic_write(&arena, dir, &bad, -1, &changed);
	assert_non_null(e);
	error_free(e);
	assert_ok(dir_remove(dir));
}

static void test_atomic(void **state)
{
	(void)state;
	assert_false(volume_path_ok(STR("")));
	assert_false(volume_path_ok(STR("/a")));
	assert_false(volume_path_ok(STR("..a")));
	assert_false(volume_path_ok(STR("a/../b")));
	assert_false(volume_path_ok(STR("a/..")));
	assert_true(volume_path_ok(STR("a/b..c")));
	assert_ok(loop_run(volume_fiber, NULL));
}

static void subpath_fiber(void *arg)
{
	char dir[] = "/tmp/skiff-sub-XXXXXX", path[300];
	struct error *e;
	int fd;

	(void)arg;
	assert_non_null(mkdtemp(dir));
	assert_ok(volume_subpath_open(dir, STR("a/b/c"), true, false, 0750, &fd));
	close(fd);
	snprintf(path, sizeof path, "%s/a/b/c", dir);
	assert_int_equal(access(path, F_OK), 0);
	/* A link out of the volume, of any kind, leads nowhere. */
	snprintf(path, sizeof path, "%s/out", dir);
	assert_int_equal(symlink("/etc", path), 0);
	snprintf(path, sizeof path, "%s/up", dir);
	assert_int_equal(symlink("../..", path), 0);
	e = volume_subpath_open(dir, STR("out/passwd"), false, false, 0750, &fd);
	assert_non_null(e);
	assert_non_null(strstr(e->message, "leads out of the volume"));
	error_free(e);
	e = volume_subpath_open(dir, STR("up/etc"), true, false, 0750, &fd);
	assert_non_null(e);
	error_free(e);
	e = volume_subpath_open(dir, STR("missing"), false, false, 0750, &fd);
	assert_non_null(e);
	error_free(e);
	/* One within it is fine. */
	snprintf(path, sizeof path, "%s/in", dir);
	assert_int_equal(symlink("a/b", path), 0);
	assert_ok(volume_subpath_open(dir, STR("in/c"), false, false, 0750, &fd));
	close(fd);
	assert_ok(dir_remove(dir));
}

static void test_subpath(void **state)
{
	(void)state;
	assert_ok(loop_run(subpath_fiber, NULL));
}

/* ---- views from events ---- */

static void test_view_merge(void **state)
{
	struct cri_v1_container_metadata m = {.name = STR("a"), .attempt = 1};
	struct cri_v1_container_status c = {.id = STR("c1"), .metadata = &m, .state = CRI_CONTAINER_RUNNING, .created_at = 10};
	struct cri_v1_pod_sandbox_status s = {.id = STR("s1"), .state = CRI_SANDBOX_READY, .created_at = 5};
	struct view *v = view_merge(NULL, &s, &c, 1, STR_NULL), *w;

	(void)state;
	assert_int_equal(v->containers.n, 1);
	assert_int_equal(v->sandboxes.n, 1);
	/* An event from before that comes late changes nothing. */
	c.state = CRI_CONTAINER_CREATED;
	w = view_merge(v, NULL, &c, 1, STR_NULL);
	assert_int_equal(view_find(w, STR("a"))->state, CRI_CONTAINER_RUNNING);
	view_unref(v);
	/* A second attempt is the newest. */
	m.attempt = 2;
	c.id = STR("c2");
	c.created_at = 20;
	c.state = CRI_CONTAINER_EXITED;
	v = view_merge(w, NULL, &c, 1, STR_NULL);
	view_unref(w);
	assert_str(view_find(v, STR("a"))->id, "c2");
	assert_str(view_nth(v, STR("a"), 1)->id, "c1");
	w = view_merge(v, NULL, NULL, 0, STR("c1"));
	view_unref(v);
	assert_int_equal(w->containers.n, 1);
	assert_null(view_by_id(w, STR("c1")));
	view_unref(w);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup_arena, free_arena)
	const struct CMUnitTest tests[] = {
		T(test_plan_start), T(test_plan_finished), T(test_plan_inits), T(test_plan_kills), T(test_restart_rules), T(test_backoff),
		T(test_status_running), T(test_status_crash_loop), T(test_status_end), T(test_status_sidecar), T(test_status_patch), T(test_expand), T(test_fields),
		T(test_qos), T(test_sums), T(test_hugepages), T(test_cgroup_values), T(test_resource_field), T(test_hash), T(test_eviction_flag), T(test_probe_state),
		T(test_log_parse), T(test_log_read), T(test_atomic), T(test_subpath), T(test_view_merge), T(test_terminations),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
