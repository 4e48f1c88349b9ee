/*
 * The container runtime with real containers: its own process, in network and mount namespaces of this test, spoken to
 * over its socket as a kubelet does. Needs root, crun, conmon and an image made by tools/mkimage.py; says so otherwise.
 *
 *   test_runtime IMAGE.tar          the tests (TAP)
 *   test_runtime IMAGE.tar bench N  times of N pods, one after the other and at once
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "loop/io.h"
#include "net/grpc.h"
#include "net/remotecommand.h"
#include "runtime/internal.h"
#include "runtime/runtime.h"

static const char *image_tar;
static int bench_n;
static char dir[64], root[128], state[128], sock[160], logs[128], cgroup[64];
static struct proc *runtime;
static struct grpc_client *client;
static int checks, failures;

#define CHECK(cond, ...)                                                                                                           \
	do {                                                                                                                       \
		bool check_ = (cond);                                                                                              \
		printf("%sok %d - ", check_ ? "" : "not ", ++checks);                                                              \
		printf(__VA_ARGS__);                                                                                               \
		printf("%s\n", check_ ? "" : " (" #cond ")");                                                                      \
		fflush(stdout);                                                                                                    \
		failures += !check_;                                                                                               \
	} while (0)

static bool good(struct error *e, const char *what)
{
	if (e)
		printf("# %s: %s\n", what, e->message);
	bool ok = !e;
	error_free(e);
	return ok;
}
#define GOOD(call, what) CHECK(good(call, what), "%s", what)

static struct error *call_(struct arena *a, const char *path, const struct schema_type *qt, const void *q, const struct schema_type *rt, void *r)
{
	buf_cleanup struct buf b = {0};
	struct str answer;
	pb_encode(&b, qt, q);
	TRY(grpc_call(client, a, path, buf_view(&b), &answer));
	return pb_decode(a, rt, answer, r);
}
#define CALL(a, service, method, name, q, r)                                                                                       \
	call_(a, "/runtime.v1." service "/" method, &cri_v1_##name##_request_type, q, &cri_v1_##name##_response_type, r)
#define RT(a, method, name, q, r) CALL(a, "RuntimeService", method, name, q, r)

/* ---- the runtime's process ---- */

static struct error *start_runtime(void)
{
	char listen[200];
	snprintf(listen, sizeof(listen), "--listen=unix://%s", sock);
	const char *argv[] = {"/proc/self/exe", "runtime", listen, "--root", root, "--state-dir", state, "--bridge", "sktest0", "--cni-conf-dir",
			      "", "-v", getenv("SKIFF_TEST_V") ? getenv("SKIFF_TEST_V") : "0", NULL};
	struct proc_opts o = {.argv = argv, .stdin_fd = -1, .stdout_fd = 2, .stderr_fd = 2, .die_with_parent = true};
	TRY(proc_spawn(&o, &runtime));
	char target[200];
	snprintf(target, sizeof(target), "unix://%s", sock);
	grpc_client_free(client);
	TRY(grpc_client_new(target, &client));
	int64_t until = now_ms() + 10000;
	for (;;) {
		arena_cleanup struct arena a = {0};
		struct cri_v1_version_request q = {0};
		struct cri_v1_version_response r = {0};
		struct error *e = RT(&a, "Version", version, &q, &r);
		if (!e || now_ms() > until)
			return e;
		error_free(e);
		TRY(fiber_sleep(5));
	}
}

static void stop_runtime(int sig)
{
	int status;
	error_free(proc_kill(runtime, sig));
	error_free(proc_wait(runtime, &status));
	runtime = NULL;
}

/* ---- shorthands ---- */

struct pod {
	char id[80];
	char ip[64];
};

static struct error *run_pod(const char *name, int network, int pid, struct cri_v1_port_mapping *ports, uint32_t n_ports, struct pod *out)
{
	arena_cleanup struct arena a = {0};
	struct cri_v1_run_pod_sandbox_request q = {0};
	struct cri_v1_run_pod_sandbox_response r = {0};
	struct cri_v1_pod_sandbox_config *c = q.config = arena_new(&a, struct cri_v1_pod_sandbox_config);
	c->metadata = arena_new(&a, struct cri_v1_pod_sandbox_metadata);
	c->metadata->name = str_from(name);
	c->metadata->uid = arena_printf(&a, "uid-%s", name);
	c->metadata->namespace = STR("default");
	c->hostname = str_from(name);
	c->log_directory = arena_printf(&a, "%s/%s", logs, name);
	str_map_set(&a, API_MAP(&c->labels), STR("app"), str_from(name));
	c->dns_config = arena_new(&a, struct cri_v1_dns_config);
	*arena_push(&a, &c->dns_config->servers) = STR("10.96.0.10");
	*arena_push(&a, &c->dns_config->searches) = STR("default.svc.cluster.local");
	for (uint32_t i = 0; i < n_ports; i++)
		*arena_push(&a, &c->port_mappings) = ports[i];
	c->linux_ = arena_new(&a, struct cri_v1_linux_pod_sandbox_config);
	c->linux_->cgroup_parent = arena_printf(&a, "%s/%s", cgroup, name);
	c->linux_->security_context = arena_new(&a, struct cri_v1_linux_sandbox_security_context);
	c->linux_->security_context->namespace_options = arena_new(&a, struct cri_v1_namespace_option);
	c->linux_->security_context->namespace_options->network = network;
	c->linux_->security_context->namespace_options->pid = pid;
	TRY(RT(&a, "RunPodSandbox", run_pod_sandbox, &q, &r));
	snprintf(out->id, sizeof(out->id), "%.*s", STR_ARG(r.pod_sandbox_id));
	struct cri_v1_pod_sandbox_status_request sq = {.pod_sandbox_id = r.pod_sandbox_id};
	struct cri_v1_pod_sandbox_status_response sr = {0};
	TRY(RT(&a, "PodSandboxStatus", pod_sandbox_status, &sq, &sr));
	snprintf(out->ip, sizeof(out->ip), "%.*s", STR_ARG(sr.status->network->ip));
	return NULL;
}

struct opts {
	bool tty, in, in_once, seccomp, readonly, privileged, share_pid;
	int64_t user, memory;
	const char *username, *host_path, *image, *image_mount, *image_sub;
};

static struct error *create(const struct pod *p, const char *name, const char *script, const struct opts *o, char id[80])
{
	arena_cleanup struct arena a = {0};
	struct cri_v1_create_container_request q = {.pod_sandbox_id = str_from(p->id)};
	struct cri_v1_create_container_response r = {0};
	struct cri_v1_container_config *c = q.config = arena_new(&a, struct cri_v1_container_config);
	c->metadata = arena_new(&a, struct cri_v1_container_metadata);
	c->metadata->name = str_from(name);
	c->image = arena_new(&a, struct cri_v1_image_spec);
	c->image->image = str_from(o->image ? o->image : "busybox");
	*arena_push(&a, &c->command) = STR("sh");
	*arena_push(&a, &c->args) = STR("-c");
	*arena_push(&a, &c->args) = str_from(script);
	struct cri_v1_key_value *kv = arena_push(&a, &c->envs);
	kv->key = STR("GREETING");
	kv->value = STR("a \"b\" c");
	c->log_path = arena_printf(&a, "%s.log", name);
	c->tty = o->tty;
	c->stdin = o->in;
	c->stdin_once = o->in_once;
	c->linux_ = arena_new(&a, struct cri_v1_linux_container_config);
	c->linux_->resources = arena_new(&a, struct cri_v1_linux_container_resources);
	c->linux_->resources->cpu_shares = 128;
	c->linux_->resources->oom_score_adj = 900;
	c->linux_->resources->memory_limit_in_bytes = o->memory;
	struct cri_v1_linux_container_security_context *sc = c->linux_->security_context =
		arena_new(&a, struct cri_v1_linux_container_security_context);
	sc->namespace_options = arena_new(&a, struct cri_v1_namespace_option);
	sc->namespace_options->pid = o->share_pid ? CRI_NAMESPACE_POD : CRI_NAMESPACE_CONTAINER;
	sc->readonly_rootfs = o->readonly;
	sc->privileged = o->privileged;
	if (o->user) {
		sc->run_as_user = arena_new(&a, struct cri_v1_int64_value);
		sc->run_as_user->value = o->user;
	}
	if (o->username)
		sc->run_as_username = str_from(o->username);
	*arena_push(&a, &sc->masked_paths) = STR("/proc/kcore");
	*arena_push(&a, &sc->readonly_paths) = STR("/proc/sys");
	sc->seccomp = arena_new(&a, struct cri_v1_security_profile);
	sc->seccomp->profile_type = o->seccomp ? CRI_PROFILE_RUNTIME_DEFAULT : CRI_PROFILE_UNCONFINED;
	if (o->host_path) {
		struct cri_v1_mount *m = arena_push(&a, &c->mounts);
		m->container_path = STR("/data");
		m->host_path = str_from(o->host_path);
	}
	if (o->image_mount) {
		struct cri_v1_mount *m = arena_push(&a, &c->mounts);
		m->container_path = STR("/image");
		m->readonly = true;
		m->image = arena_new(&a, struct cri_v1_image_spec);
		m->image->image = str_from(o->image_mount);
		m->image_sub_path = str_from(o->image_sub ? o->image_sub : "");
	}
	TRY(RT(&a, "CreateContainer", create_container, &q, &r));
	snprintf(id, 80, "%.*s", STR_ARG(r.container_id));
	return NULL;
}

static struct error *start(const char *id)
{
	arena_cleanup struct arena a = {0};
	struct cri_v1_start_container_request q = {.container_id = str_from(id)};
	struct cri_v1_start_container_response r = {0};
	return RT(&a, "StartContainer", start_container, &q, &r);
}

static struct error *stop(const char *id, int64_t timeout)
{
	arena_cleanup struct arena a = {0};
	struct cri_v1_stop_container_request q = {.container_id = str_from(id), .timeout = timeout};
	struct cri_v1_stop_container_response r = {0};
	return RT(&a, "StopContainer", stop_container, &q, &r);
}

static struct error *remove_container(const char *id)
{
	arena_cleanup struct arena a = {0};
	struct cri_v1_remove_container_request q = {.container_id = str_from(id)};
	struct cri_v1_remove_container_response r = {0};
	return RT(&a, "RemoveContainer", remove_container, &q, &r);
}

static struct error *stop_pod(const char *id)
{
	arena_cleanup struct arena a = {0};
	struct cri_v1_stop_pod_sandbox_request q = {.pod_sandbox_id = str_from(id)};
	struct cri_v1_stop_pod_sandbox_response r = {0};
	return RT(&a, "StopPodSandbox", stop_pod_sandbox, &q, &r);
}

static struct error *remove_pod(const char *id)
{
	arena_cleanup struct arena a = {0};
	struct cri_v1_remove_pod_sandbox_request q = {.pod_sandbox_id = str_from(id)};
	struct cri_v1_remove_pod_sandbox_response r = {0};
	return RT(&a, "RemovePodSandbox", remove_pod_sandbox, &q, &r);
}

static struct cri_v1_container_status *status(struct arena *a, const char *id)
{
	struct cri_v1_container_status_request q = {.container_id = str_from(id)};
	struct cri_v1_container_status_response r = {0};
	static struct cri_v1_container_status none = {.state = CRI_CONTAINER_UNKNOWN};
	return good(RT(a, "ContainerStatus", container_status, &q, &r), "ContainerStatus") && r.status ? r.status : &none;
}

/* Waits (10 s at most) for a state. */
static bool wait_state(const char *id, int want)
{
	int64_t until = now_ms() + 10000;
	for (;;) {
		arena_cleanup struct arena a = {0};
		if (status(&a, id)->state == want)
			return true;
		if (now_ms() > until)
			return false;
		error_free(fiber_sleep(5));
	}
}

static struct error *exec_sync(const char *id, const char *script, int64_t timeout, char *out, size_t cap, int *code)
{
	arena_cleanup struct arena a = {0};
	struct cri_v1_exec_sync_request q = {.container_id = str_from(id), .timeout = timeout};
	struct cri_v1_exec_sync_response r = {0};
	*arena_push(&a, &q.cmd) = STR("sh");
	*arena_push(&a, &q.cmd) = STR("-c");
	*arena_push(&a, &q.cmd) = str_from(script);
	*code = -1;
	out[0] = 0;
	TRY(RT(&a, "ExecSync", exec_sync, &q, &r));
	snprintf(out, cap, "%.*s%.*s", STR_ARG(r.stdout), STR_ARG(r.stderr));
	*code = r.exit_code;
	return NULL;
}

static bool exec_says(const char *id, const char *script, const char *want)
{
	char out[4096];
	int code;
	if (!good(exec_sync(id, script, 20, out, sizeof(out), &code), script))
		return false;
	if (!strstr(out, want))
		printf("# %s -> %d: %s\n", script, code, out);
	return strstr(out, want) != NULL;
}

static bool file_has(const char *path, const char *want)
{
	int64_t until = now_ms() + 5000;
	for (;;) {
		buf_cleanup struct buf b = {0};
		struct error *e = sys_read_file(AT_FDCWD, path, 1 << 20, &b);
		bool has = !e && strstr(buf_z(&b), want);
		error_free(e);
		if (has || now_ms() > until)
			return has;
		error_free(fiber_sleep(5));
	}
}

static int count_mounts(void)
{
	buf_cleanup struct buf b = {0};
	int n = 0;
	if (!good(sys_read_file(AT_FDCWD, "/proc/self/mountinfo", 1 << 24, &b), "mountinfo"))
		return -1;
	for (struct str rest = buf_view(&b); rest.n;)
		n += str_contains(str_cut(&rest, '\n'), str_from(dir));
	return n;
}

/* ---- the tests ---- */

static void test_images(void)
{
	arena_cleanup struct arena a = {0};
	struct image_store *s;
	struct strings names;
	char images[160];
	snprintf(images, sizeof(images), "%s/images", root);
	GOOD(image_store_open(images, 0, &s), "open the image store beside the running runtime");
	GOOD(image_import(s, &a, image_tar, STR_NULL, NULL, NULL, &names), "import the image");
	image_store_close(s);
	struct cri_v1_image_status_request q = {.image = arena_new(&a, struct cri_v1_image_spec)};
	struct cri_v1_image_status_response r = {0};
	q.image->image = STR("busybox:latest");
	GOOD(CALL(&a, "ImageService", "ImageStatus", image_status, &q, &r), "ImageStatus");
	CHECK(r.image && r.image->repo_tags.n == 1 && r.image->size > 100000, "the image is known");
	q.image->image = STR("nothing-here");
	r = (struct cri_v1_image_status_response){0};
	GOOD(CALL(&a, "ImageService", "ImageStatus", image_status, &q, &r), "ImageStatus of what isn't there");
	CHECK(!r.image, "is empty");
	struct cri_v1_image_fs_info_request fq = {0};
	struct cri_v1_image_fs_info_response fr = {0};
	GOOD(CALL(&a, "ImageService", "ImageFsInfo", image_fs_info, &fq, &fr), "ImageFsInfo");
	CHECK(fr.image_filesystems.n == 1 && fr.image_filesystems.v[0].used_bytes->value > 100000, "image usage is counted");
	struct cri_v1_pull_image_request pq = {.image = arena_new(&a, struct cri_v1_image_spec)};
	struct cri_v1_pull_image_response pr = {0};
	pq.image->image = STR("localhost:1/no/registry");
	struct error *e = CALL(&a, "ImageService", "PullImage", pull_image, &pq, &pr);
	CHECK(e && strstr(e->message, "localhost"), "a pull from no registry fails with a reason");
	error_free(e);
}

static void test_network_config(void)
{
	arena_cleanup struct arena a = {0};
	struct pod p;
	struct error *e = run_pod("early", CRI_NAMESPACE_POD, CRI_NAMESPACE_CONTAINER, NULL, 0, &p);
	CHECK(e && strstr(e->message, "no pod CIDR"), "a pod before the pod CIDR is known is refused");
	error_free(e);
	struct cri_v1_status_request sq = {0};
	struct cri_v1_status_response sr = {0};
	GOOD(RT(&a, "Status", status, &sq, &sr), "Status");
	CHECK(sr.status->conditions.n == 2 && sr.status->conditions.v[0].status && !sr.status->conditions.v[1].status, "network not ready");
	struct cri_v1_update_runtime_config_request q = {.runtime_config = arena_new(&a, struct cri_v1_runtime_config)};
	struct cri_v1_update_runtime_config_response r = {0};
	q.runtime_config->network_config = arena_new(&a, struct cri_v1_network_config);
	q.runtime_config->network_config->pod_cidr = STR("10.88.7.0/24");
	GOOD(RT(&a, "UpdateRuntimeConfig", update_runtime_config, &q, &r), "UpdateRuntimeConfig");
	sr = (struct cri_v1_status_response){0};
	GOOD(RT(&a, "Status", status, &sq, &sr), "Status");
	CHECK(sr.status->conditions.v[1].status, "network ready");
}

static char web_id[80];
static struct pod web;

static void test_lifecycle(void)
{
	arena_cleanup struct arena a = {0};
	char log[256], out[512];
	int code;
	GOOD(run_pod("web", CRI_NAMESPACE_POD, CRI_NAMESPACE_CONTAINER, NULL, 0, &web), "RunPodSandbox");
	CHECK(!strcmp(web.ip, "10.88.7.2"), "pod IP is %s", web.ip);
	GOOD(create(&web, "main", "echo hello; echo oops >&2; echo web >/tmp/index.html; httpd -p 8080 -h /tmp; trap 'exit 7' TERM; "
				  "while :; do sleep 0.05; done", &(struct opts){0}, web_id), "CreateContainer");
	struct cri_v1_container_status *s = status(&a, web_id);
	CHECK(s->state == CRI_CONTAINER_CREATED && s->created_at > 0, "created");
	GOOD(start(web_id), "StartContainer");
	s = status(&a, web_id);
	CHECK(s->state == CRI_CONTAINER_RUNNING && s->started_at >= s->created_at, "running");
	CHECK(str_eqz(s->image->image, "busybox") && str_has_prefix(s->image_id, STR("sha256:")), "image of the status");
	struct error *e = start(web_id);
	CHECK(e && grpc_error_code(e) == GRPC_FAILED_PRECONDITION, "a second start is refused");
	error_free(e);
	snprintf(log, sizeof(log), "%s/web/main.log", logs);
	CHECK(file_has(log, " stdout F hello\n"), "stdout is in the log in CRI's form");
	CHECK(file_has(log, " stderr F oops\n"), "stderr is in the log");
	GOOD(exec_sync(web_id, "echo out; echo err >&2; exit 3", 10, out, sizeof(out), &code), "ExecSync");
	CHECK(code == 3 && !strcmp(out, "out\nerr\n"), "its output and code");
	e = exec_sync(web_id, "sleep 30", 1, out, sizeof(out), &code);
	CHECK(e && grpc_error_code(e) == GRPC_DEADLINE_EXCEEDED, "ExecSync times out (%s)", error_message(e));
	error_free(e);
	CHECK(exec_says(web_id, "echo $GREETING", "a \"b\" c"), "environment");
	CHECK(exec_says(web_id, "hostname; cat /etc/hostname", "web\nweb"), "host name");
	CHECK(exec_says(web_id, "cat /etc/resolv.conf", "nameserver 10.96.0.10"), "resolv.conf");
	CHECK(exec_says(web_id, "ps", "sh -c"), "own processes");
	CHECK(exec_says(web_id, "ls /proc | grep -c '^[0-9]'", ""), "process namespace");
	CHECK(exec_says(web_id, "ping -c1 -W5 10.88.7.1", "1 packets received"), "the gateway answers");
	CHECK(exec_says(web_id, "wget -qO- http://10.88.7.2:8080/", "web"), "the pod reaches itself");
	CHECK(exec_says(web_id, "cat /proc/1/oom_score_adj", "900"), "OOM score");
	CHECK(exec_says(web_id, "grep CapEff /proc/1/status", "00000000a80425fb"), "default capabilities");
	CHECK(exec_says(web_id, "echo x 2>&1 >/proc/sys/kernel/hostname", "Read-only"), "read-only paths");
	CHECK(exec_says(web_id, "df /dev/shm | tail -1", "65536"), "shared memory");
	struct cri_v1_list_containers_request lq = {.filter = arena_new(&a, struct cri_v1_container_filter)};
	struct cri_v1_list_containers_response lr = {0};
	lq.filter->pod_sandbox_id = str_from(web.id);
	GOOD(RT(&a, "ListContainers", list_containers, &lq, &lr), "ListContainers");
	CHECK(lr.containers.n == 1, "one container");
	struct cri_v1_container_stats_request stq = {.container_id = str_from(web_id)};
	struct cri_v1_container_stats_response str = {0};
	GOOD(RT(&a, "ContainerStats", container_stats, &stq, &str), "ContainerStats");
	CHECK(str.stats && str.stats->cpu && str.stats->cpu->usage_core_nano_seconds->value > 0 && str.stats->memory->working_set_bytes->value > 0,
	      "cpu and memory are counted");
	struct cri_v1_list_pod_sandbox_stats_request pq = {0};
	struct cri_v1_list_pod_sandbox_stats_response pr = {0};
	GOOD(RT(&a, "ListPodSandboxStats", list_pod_sandbox_stats, &pq, &pr), "ListPodSandboxStats");
	CHECK(pr.stats.n == 1 && pr.stats.v[0].linux_->network && pr.stats.v[0].linux_->network->default_interface->rx_bytes->value > 0,
	      "network is counted");
	struct cri_v1_update_container_resources_request uq = {.container_id = str_from(web_id)};
	struct cri_v1_update_container_resources_response ur = {0};
	uq.linux_ = arena_new(&a, struct cri_v1_linux_container_resources);
	uq.linux_->memory_limit_in_bytes = 64 << 20;
	GOOD(RT(&a, "UpdateContainerResources", update_container_resources, &uq, &ur), "UpdateContainerResources");
	s = status(&a, web_id);
	CHECK(s->resources && s->resources->linux_->memory_limit_in_bytes == 64 << 20 && s->resources->linux_->cpu_shares == 128, "new limits");
	char old[300];
	snprintf(old, sizeof(old), "%s.old", log);
	CHECK(rename(log, old) == 0, "rotate the log");
	struct cri_v1_reopen_container_log_request rq = {.container_id = str_from(web_id)};
	struct cri_v1_reopen_container_log_response rr = {0};
	GOOD(RT(&a, "ReopenContainerLog", reopen_container_log, &rq, &rr), "ReopenContainerLog");
	CHECK(access(log, F_OK) == 0, "a new log is there");
}

static void test_restart(void)
{
	char id[80];
	arena_cleanup struct arena a = {0};
	int32_t pid_before = 0;
	GOOD(create(&web, "short", "sleep 0.3; exit 5", &(struct opts){0}, id), "create a short container");
	GOOD(start(id), "start it");
	stop_runtime(SIGKILL);
	/* It ends while nobody looks. */
	char exit_file[300];
	snprintf(exit_file, sizeof(exit_file), "%s/exits/%s", state, id);
	int64_t until = now_ms() + 10000;
	while (access(exit_file, F_OK) < 0 && now_ms() < until)
		error_free(fiber_sleep(10));
	GOOD(start_runtime(), "the runtime starts again after kill -9");
	CHECK(wait_state(id, CRI_CONTAINER_EXITED), "the end it missed is found");
	struct cri_v1_container_status *s = status(&a, id);
	CHECK(s->exit_code == 5 && str_eqz(s->reason, "Error") && s->finished_at > s->started_at, "with its code");
	CHECK(status(&a, web_id)->state == CRI_CONTAINER_RUNNING, "the other one still runs");
	CHECK(exec_says(web_id, "echo alive", "alive"), "exec after the restart");
	(void)pid_before;
	GOOD(remove_container(id), "RemoveContainer");
	GOOD(remove_container(id), "twice");
	GOOD(stop(web_id, 10), "StopContainer");
	s = status(&a, web_id);
	CHECK(s->state == CRI_CONTAINER_EXITED && s->exit_code == 7, "the signal was handled (exit code %d)", s->exit_code);
	GOOD(stop(web_id, 10), "a second stop");
	struct error *e = create(&web, "main", "true", &(struct opts){0}, id);
	CHECK(e && grpc_error_code(e) == GRPC_ALREADY_EXISTS, "the same name and attempt is refused");
	error_free(e);
}

static void test_kinds(void)
{
	arena_cleanup struct arena a = {0};
	struct pod p, shared, host;
	char id[80], id2[80], out[512], data[128];
	int code;
	GOOD(run_pod("kinds", CRI_NAMESPACE_POD, CRI_NAMESPACE_CONTAINER, NULL, 0, &p), "another pod");
	GOOD(create(&p, "user", "id; sleep 60", &(struct opts){.username = "www-data", .seccomp = true, .readonly = true}, id), "a user, seccomp, read-only");
	GOOD(start(id), "start");
	CHECK(exec_says(id, "id", "uid=33(www-data) gid=33(www-data) groups=33(www-data),2000(demo)"), "user and groups of the image");
	CHECK(exec_says(id, "touch /x 2>&1", "Read-only"), "read-only root");
	CHECK(exec_says(id, "grep Seccomp: /proc/self/status", "2"), "seccomp filters");
	CHECK(exec_says(id, "unshare -U true 2>&1", "not permitted"), "and forbids namespaces");
	struct cri_v1_container_status *s = status(&a, id);
	CHECK(s->user && s->user->linux_->uid == 33 && s->user->linux_->supplemental_groups.n == 2, "user in the status");
	snprintf(data, sizeof(data), "%s/data", dir);
	GOOD(create(&p, "mount", "echo from-pod >/data/f; sleep 60", &(struct opts){.host_path = data, .user = 0}, id2), "a host mount");
	GOOD(start(id2), "start");
	char f[160];
	snprintf(f, sizeof(f), "%s/f", data);
	CHECK(file_has(f, "from-pod"), "the mount reaches the host");
	CHECK(exec_says(id2, "ping -c1 -W5 10.88.7.1", "1 packets received"), "network of the second pod");
	GOOD(stop(id2, 0), "kill");
	CHECK(status(&a, id2)->exit_code == 137, "137 after SIGKILL");

	GOOD(create(&p, "image", "sleep 60", &(struct opts){.image_mount = "busybox"}, id2), "an image as a volume");
	GOOD(start(id2), "start");
	CHECK(exec_says(id2, "/image/bin/busybox cat /image/etc/passwd", "root:x:0:0"), "the image's files are there");
	CHECK(exec_says(id2, "touch /image/x 2>&1", "Read-only"), "and read-only");
	GOOD(stop(id2, 0), "kill");
	GOOD(remove_container(id2), "remove");
	GOOD(create(&p, "image", "sleep 60", &(struct opts){.image_mount = "busybox", .image_sub = "etc"}, id2), "a directory of it");
	GOOD(start(id2), "start");
	CHECK(exec_says(id2, "ls /image", "passwd"), "that directory");
	GOOD(stop(id2, 0), "kill");
	GOOD(remove_container(id2), "remove");
	struct error *me = create(&p, "image", "sleep 60", &(struct opts){.image_mount = "busybox", .image_sub = "../nothing"}, id2);
	CHECK(me && strstr(error_message(me), "ImageVolumeMountFailed"), "a path that is not in it (%s)", error_message(me));
	error_free(me);
	me = create(&p, "image", "sleep 60", &(struct opts){.image_mount = "not-there"}, id2);
	CHECK(me && grpc_error_code(me) == GRPC_NOT_FOUND, "an image that is not there (%s)", error_message(me));
	error_free(me);

	GOOD(create(&p, "oom", "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done", &(struct opts){.memory = 24 << 20}, id2), "a memory hog");
	GOOD(start(id2), "start");
	CHECK(wait_state(id2, CRI_CONTAINER_EXITED), "it ends");
	s = status(&a, id2);
	CHECK(str_eqz(s->reason, "OOMKilled") && s->exit_code == 137, "OOMKilled (%.*s, %d)", STR_ARG(s->reason), s->exit_code);

	struct error *e = create(&p, "none", "true", &(struct opts){.image = "missing:1"}, id2);
	CHECK(e && grpc_error_code(e) == GRPC_NOT_FOUND, "a missing image");
	error_free(e);
	e = create(&p, "nouser", "true", &(struct opts){.username = "ghost"}, id2);
	CHECK(e && strstr(e->message, "unable to find user ghost"), "a missing user: %s", error_message(e));
	error_free(e);
	CHECK(exec_sync(id, "exit 0", 5, out, sizeof(out), &code) == NULL && code == 0, "the first container lives on");

	GOOD(run_pod("shared", CRI_NAMESPACE_POD, CRI_NAMESPACE_POD, NULL, 0, &shared), "a pod that shares its processes");
	GOOD(create(&shared, "one", "sleep 1234", &(struct opts){.share_pid = true}, id), "one");
	GOOD(start(id), "start");
	GOOD(create(&shared, "two", "sleep 60", &(struct opts){.share_pid = true}, id2), "two");
	GOOD(start(id2), "start");
	CHECK(exec_says(id2, "ps", "sleep 1234"), "two sees one");
	CHECK(exec_says(id2, "cat /proc/1/comm", "pause"), "process 1 is pause");
	GOOD(stop(id, 1), "stop one");
	CHECK(exec_says(id2, "ps | grep -c 'sleep 123[4]' ; true", "0"), "it is gone");
	GOOD(remove_pod(shared.id), "remove the pod");

	GOOD(run_pod("host", CRI_NAMESPACE_NODE, CRI_NAMESPACE_CONTAINER, NULL, 0, &host), "a pod of the host's network");
	GOOD(create(&host, "c", "sleep 60", &(struct opts){.privileged = true}, id), "privileged");
	GOOD(start(id), "start");
	CHECK(exec_says(id, "ip addr show sktest0", "10.88.7.1"), "it sees the bridge");
	CHECK(!exec_says(id, "grep CapEff /proc/1/status", "00000000a80425fb"), "more capabilities");
	GOOD(remove_pod(host.id), "remove it with its container running");
	GOOD(remove_pod(host.id), "twice");

	/* Many ends at once. */
	char ids[10][80];
	for (int i = 0; i < 10; i++) {
		char name[16];
		snprintf(name, sizeof(name), "many%d", i);
		GOOD(create(&p, name, "exit 0", &(struct opts){0}, ids[i]), "create");
		GOOD(start(ids[i]), "start");
	}
	bool all = true;
	for (int i = 0; i < 10; i++)
		all &= wait_state(ids[i], CRI_CONTAINER_EXITED) && str_eqz(status(&a, ids[i])->reason, "Completed");
	CHECK(all, "ten containers completed");
	GOOD(remove_pod(p.id), "remove the pod");
}

/* ---- streams ---- */

struct gather {
	struct stream *s;
	struct buf b;
};

static void gather(void *arg)
{
	struct gather *g = arg;
	char chunk[4096];
	size_t got;
	for (;;) {
		struct error *e = stream_read(g->s, chunk, sizeof(chunk), &got);
		if (e || !got) {
			error_free(e);
			return;
		}
		buf_append(&g->b, chunk, got);
	}
}

/* url -> client and target */
static struct error *stream_client(struct arena *a, struct str url, struct http_client **c, struct str *target)
{
	str_cleanup char *z = str_dupz(url);
	char *path = strchr(z + 7, '/');
	if (!path)
		return error_new("no path in %s", z);
	*target = arena_str(a, str_from(path));
	*path = 0;
	struct http_client_opts o = {.base = arena_strz(a, str_from(z))};
	return http_client_new(&o, c);
}

struct typed {
	struct rc_client *c;
	const char *text;
};

/* Runs a stream to its end; what it printed is in out. */
static struct error *run_stream(struct str url, enum rc_transport t, const struct rc_opts *o, const char *input, char *out, size_t cap, int *code)
{
	arena_cleanup struct arena a = {0};
	struct http_client *h;
	struct str target;
	struct rc_client *c;
	out[0] = 0;
	TRY(stream_client(&a, url, &h, &target));
	struct error *e = rc_dial(h, &a, t, target, NULL, 0, o, &c);
	if (e) {
		http_client_free(h);
		return e;
	}
	int64_t token = deadline_push(20000);
	struct gather go = {.s = c->out}, ge = {.s = c->err};
	struct fiber *fo = o->out ? fiber_start("out", gather, &go) : NULL, *fe = o->err ? fiber_start("err", gather, &ge) : NULL;
	if (o->tty)
		e = rc_client_resize(c, 91, 37);
	if (!e && input)
		e = stream_write(c->in, input, strlen(input));
	if (!e && o->in && !o->tty)
		e = stream_shutdown(c->in);
	if (!e)
		e = rc_client_wait(c, code);
	deadline_pop(token);
	fiber_stop(fo);
	fiber_stop(fe);
	snprintf(out, cap, "%.*s%.*s", (int)go.b.n, go.b.p ? go.b.p : "", (int)ge.b.n, ge.b.p ? ge.b.p : "");
	buf_free(&go.b);
	buf_free(&ge.b);
	rc_client_free(c);
	http_client_free(h);
	return e;
}

static void test_exec_stream(const char *id, enum rc_transport t, const char *name)
{
	arena_cleanup struct arena a = {0};
	char out[8192];
	int code = -1;
	struct cri_v1_exec_request q = {.container_id = str_from(id), .stdin = true, .stdout = true, .stderr = true};
	struct cri_v1_exec_response r = {0};
	struct rc_opts o = {.in = true, .out = true, .err = true};
	*arena_push(&a, &q.cmd) = STR("sh");
	*arena_push(&a, &q.cmd) = STR("-c");
	*arena_push(&a, &q.cmd) = STR("cat; echo to-err >&2; exit 9");
	GOOD(RT(&a, "Exec", exec, &q, &r), "Exec");
	GOOD(run_stream(r.url, t, &o, "typed\n", out, sizeof(out), &code), name);
	CHECK(code == 9 && strstr(out, "typed\n") && strstr(out, "to-err\n"), "%s: output, error output and exit code (%d: %s)", name, code, out);
	struct error *e = run_stream(r.url, t, &o, NULL, out, sizeof(out), &code);
	CHECK(e != NULL, "%s: a URL works once", name);
	error_free(e);
	q.tty = true;
	q.stderr = false;
	q.cmd.v[2] = STR("tty; stty size; read x; echo got-$x; exit 4");
	struct rc_opts ot = {.in = true, .out = true, .tty = true};
	GOOD(RT(&a, "Exec", exec, &q, &r), "Exec with a terminal");
	GOOD(run_stream(r.url, t, &ot, "line\n", out, sizeof(out), &code), name);
	CHECK(code == 4 && strstr(out, "/dev/") && strstr(out, "got-line"), "%s: terminal (%d: %s)", name, code, out);
	q.tty = false;
	q.stdin = false;
	q.stderr = true;
	q.cmd.v[2] = STR("head -c 3000000 /dev/zero | tr '\\0' x | wc -c; seq 1 500");
	o.in = false;
	GOOD(RT(&a, "Exec", exec, &q, &r), "Exec");
	GOOD(run_stream(r.url, t, &o, NULL, out, sizeof(out), &code), name);
	CHECK(code == 0 && strstr(out, "3000000") && strstr(out, "\n500\n"), "%s: all output arrives", name);
	q.cmd.n = 1;
	q.cmd.v[0] = STR("/no/such/program");
	GOOD(RT(&a, "Exec", exec, &q, &r), "Exec of nothing");
	e = run_stream(r.url, t, &o, NULL, out, sizeof(out), &code);
	CHECK(e || code != 0, "%s: a missing program fails (%s)", name, error_message(e));
	error_free(e);
}

static void test_attach(const struct pod *p)
{
	arena_cleanup struct arena a = {0};
	char id[80], out[4096], log[256];
	int code = -1;
	GOOD(create(p, "reader", "while read x; do echo \"<$x>\"; done; echo end", &(struct opts){.in = true, .in_once = true}, id), "create");
	GOOD(start(id), "start");
	struct cri_v1_attach_request q = {.container_id = str_from(id), .stdin = true, .stdout = true, .stderr = true};
	struct cri_v1_attach_response r = {0};
	struct rc_opts o = {.in = true, .out = true, .err = true};
	GOOD(RT(&a, "Attach", attach, &q, &r), "Attach");
	GOOD(run_stream(r.url, RC_WEBSOCKET, &o, "one\ntwo\n", out, sizeof(out), &code), "attach");
	CHECK(strstr(out, "<one>\n<two>\nend\n") != NULL, "input and output through attach (%s)", out);
	snprintf(log, sizeof(log), "%s/streams/reader.log", logs);
	CHECK(file_has(log, "stdout F <two>\n"), "and in the log");
	CHECK(wait_state(id, CRI_CONTAINER_EXITED), "stdinOnce: the end of input ended it");
	GOOD(create(p, "stayer", "while read x; do echo \"<$x>\"; done; echo end", &(struct opts){.in = true}, id), "create");
	GOOD(start(id), "start");
	GOOD(RT(&a, "Attach", attach, &q, &r), "Attach");
	GOOD(run_stream(r.url, RC_SPDY, &o, "three\n", out, sizeof(out), &code), "the end of input ends the session");
	snprintf(log, sizeof(log), "%s/streams/stayer.log", logs);
	for (int i = 0; i < 500 && !file_has(log, "stdout F <three>\n"); i++)
		error_free(fiber_sleep(10));
	CHECK(file_has(log, "stdout F <three>\n") && !file_has(log, "end"), "and not the container's input");
	CHECK(status(&a, id)->state == CRI_CONTAINER_RUNNING, "which runs on");
	GOOD(create(p, "term", "read x; stty size; echo \"tty <$x>\"; exit 3", &(struct opts){.in = true, .tty = true}, id), "create with a terminal");
	GOOD(start(id), "start");
	struct cri_v1_attach_request qt = {.container_id = str_from(id), .stdin = true, .stdout = true, .tty = true};
	struct rc_opts ot = {.in = true, .out = true, .tty = true};
	GOOD(RT(&a, "Attach", attach, &qt, &r), "Attach to a terminal");
	GOOD(run_stream(r.url, RC_SPDY, &ot, "word\n", out, sizeof(out), &code), "attach to a terminal");
	CHECK(strstr(out, "tty <word>") != NULL, "terminal input and output (%s)", out);
	CHECK(wait_state(id, CRI_CONTAINER_EXITED) && status(&a, id)->exit_code == 3, "its exit code");
}

static void test_forward(const struct pod *p, enum rc_transport t)
{
	arena_cleanup struct arena a = {0};
	struct cri_v1_port_forward_request q = {.pod_sandbox_id = str_from(p->id)};
	struct cri_v1_port_forward_response r = {0};
	struct http_client *h;
	struct str target;
	struct pf_client *c;
	struct stream *s;
	*arena_push(&a, &q.port) = 8080;
	GOOD(RT(&a, "PortForward", port_forward, &q, &r), "PortForward");
	GOOD(stream_client(&a, r.url, &h, &target), "url");
	if (t == RC_WEBSOCKET)
		target = arena_printf(&a, "%.*s?ports=8080", STR_ARG(target));
	if (!good(pf_dial(h, &a, t, target, NULL, 0, &c), "port-forward")) {
		CHECK(false, "port-forward");
		http_client_free(h);
		return;
	}
	for (int i = 0; i < 3; i++) {
		static const char req[] = "GET / HTTP/1.0\r\n\r\n";
		struct gather g = {0};
		int64_t token = deadline_push(10000);
		struct error *e = pf_connect(c, 8080, &s);
		if (!e) {
			g.s = s;
			e = stream_write(s, req, sizeof(req) - 1);
			if (!e)
				gather(&g);
			stream_close(s);
		}
		deadline_pop(token);
		CHECK(good(e, "port-forward") && strstr(buf_z(&g.b), "stream-page"), "a page through port-forward");
		buf_free(&g.b);
	}
	pf_client_free(c);
	http_client_free(h);
}

static void test_streams(void)
{
	struct pod p;
	char id[80];
	GOOD(run_pod("streams", CRI_NAMESPACE_POD, CRI_NAMESPACE_CONTAINER, NULL, 0, &p), "a pod for streams");
	GOOD(create(&p, "c", "echo stream-page >/tmp/index.html; httpd -f -p 127.0.0.1:8080 -h /tmp", &(struct opts){0}, id), "create");
	GOOD(start(id), "start");
	test_exec_stream(id, RC_WEBSOCKET, "WebSocket");
	test_exec_stream(id, RC_SPDY, "SPDY");
	test_attach(&p);
	test_forward(&p, RC_SPDY);
	test_forward(&p, RC_WEBSOCKET);
	GOOD(remove_pod(p.id), "remove the pod");
}

static bool http_get(const char *addr, char *out, size_t cap)
{
	static const char req[] = "GET / HTTP/1.0\r\n\r\n";
	struct stream *s;
	size_t n = 0, got = 0;
	int64_t token = deadline_push(3000);
	struct error *e = stream_connect(addr, &s);
	out[0] = 0;
	if (!e) {
		e = stream_write(s, req, sizeof(req) - 1);
		while (!e && n < cap - 1 && !(e = stream_read(s, out + n, cap - 1 - n, &got)) && got)
			n += got;
		out[n] = 0;
		stream_close(s);
	}
	deadline_pop(token);
	bool ok = !e && n;
	error_free(e);
	return ok;
}

static void test_hostport(void)
{
	struct cri_v1_port_mapping m = {.container_port = 8080, .host_port = 18080};
	struct pod p;
	char id[80];
	GOOD(run_pod("port", CRI_NAMESPACE_POD, CRI_NAMESPACE_CONTAINER, &m, 1, &p), "a pod with a host port");
	GOOD(create(&p, "c", "echo port >/tmp/index.html; httpd -f -p 8080 -h /tmp", &(struct opts){0}, id), "create");
	GOOD(start(id), "start");
	char out[512];
	int64_t until = now_ms() + 5000;
	while (!http_get("10.88.7.1:18080", out, sizeof(out)) && now_ms() < until)
		error_free(fiber_sleep(20));
	CHECK(strstr(out, "port") != NULL, "the node's port leads to the pod");
	http_get("127.0.0.1:18080", out, sizeof(out));
	CHECK(strstr(out, "port") != NULL, "from 127.0.0.1 too");
	GOOD(remove_pod(p.id), "remove the pod");
	CHECK(!http_get("127.0.0.1:18080", out, sizeof(out)), "the port is closed again");
}

static void test_end(void)
{
	GOOD(stop_pod(web.id), "StopPodSandbox");
	arena_cleanup struct arena a = {0};
	struct cri_v1_pod_sandbox_status_request q = {.pod_sandbox_id = str_from(web.id)};
	struct cri_v1_pod_sandbox_status_response r = {0};
	GOOD(RT(&a, "PodSandboxStatus", pod_sandbox_status, &q, &r), "PodSandboxStatus");
	CHECK(r.status->state == CRI_SANDBOX_NOTREADY, "not ready");
	char id[80];
	struct error *e = create(&web, "late", "true", &(struct opts){0}, id);
	CHECK(e && grpc_error_code(e) == GRPC_FAILED_PRECONDITION, "no container in a stopped pod");
	error_free(e);
	GOOD(remove_pod(web.id), "RemovePodSandbox");
	struct cri_v1_list_pod_sandbox_request lq = {0};
	struct cri_v1_list_pod_sandbox_response lr = {0};
	GOOD(RT(&a, "ListPodSandbox", list_pod_sandbox, &lq, &lr), "ListPodSandbox");
	CHECK(lr.items.n == 0, "no pod is left");
	CHECK(count_mounts() == 0, "no mount is left (%d)", count_mounts());
	struct cri_v1_remove_image_request iq = {.image = arena_new(&a, struct cri_v1_image_spec)};
	struct cri_v1_remove_image_response ir = {0};
	iq.image->image = STR("busybox");
	GOOD(CALL(&a, "ImageService", "RemoveImage", remove_image, &iq, &ir), "RemoveImage");
	struct cri_v1_list_images_request nq = {0};
	struct cri_v1_list_images_response nr = {0};
	GOOD(CALL(&a, "ImageService", "ListImages", list_images, &nq, &nr), "ListImages");
	CHECK(nr.images.n == 0, "no image is left");
}

/* ---- a registry ---- */

struct registry {
	struct buf tar;      /* the OCI archive it serves */
	int cut;             /* blobs whose first answer breaks off in the middle */
	int tokens, ranges, refused;
	char base[64];
};

/* A member of a tar of short names (as tools/mkimage.py writes it). */
static struct str tar_member(const struct buf *b, const char *name)
{
	for (size_t at = 0; at + 512 <= b->n && b->p[at];) {
		size_t size = strtoull(b->p + at + 124, NULL, 8);
		if (!strncmp(b->p + at, name, 100) && b->p[at + 156] == '0')
			return str_of(b->p + at + 512, size);
		at += 512 + (size + 511) / 512 * 512;
	}
	return STR_NULL;
}

static void registry(struct http_exchange *x, void *ctx)
{
	struct registry *r = ctx;
	if (str_eq(x->path, STR("/token"))) {
		r->tokens++;
		if (!str_eq(http_header_get(&x->headers, "authorization"), STR("Basic dXNlcjpwYXNz"))) {
			http_respond(x, 401, STR("who?"));
			return;
		}
		http_respond(x, 200, STR("{\"token\":\"sesame\"}"));
		return;
	}
	if (!str_eq(http_header_get(&x->headers, "authorization"), STR("Bearer sesame"))) {
		char challenge[256];
		r->refused++;
		snprintf(challenge, sizeof(challenge), "Bearer realm=\"%s/token\",service=\"test\",scope=\"repository:team/app:pull\"", r->base);
		http_set_header(x, "www-authenticate", str_from(challenge));
		http_respond(x, 401, STR("{}"));
		return;
	}
	struct str body = STR_NULL;
	char name[128];
	ptrdiff_t at = str_find(x->path, STR("/blobs/sha256:"));
	bool blob = at >= 0;
	if (!blob && str_has_suffix(x->path, STR("/manifests/v1")))
		body = tar_member(&r->tar, "index.json");
	else if ((at = str_find(x->path, STR("sha256:"))) >= 0) {
		struct str hex = str_sub(x->path, (size_t)at + 7, x->path.n);
		snprintf(name, sizeof(name), "blobs/sha256/%.*s", STR_ARG(hex));
		body = tar_member(&r->tar, name);
	}
	struct str range = http_header_get(&x->headers, "range");
	int64_t from;
	if (!body.n) {
		http_respond(x, 404, STR("{}"));
	} else if (range.n && str_to_i64(str_sub(range, 6, range.n - 1), &from) && from < (int64_t)body.n) {
		r->ranges++;
		http_respond(x, 206, str_sub(body, (size_t)from, body.n));
	} else if (blob && body.n > 100000 && r->cut-- > 0) {
		/* Half of it, then nothing: the stream is cut by an error of the handler's own. */
		http_start(x, 200);
		http_write(x, str_sub(body, 0, body.n / 2));
	} else {
		http_respond(x, 200, body);
	}
}

static void test_pull(void)
{
	arena_cleanup struct arena a = {0};
	struct registry r = {.cut = 1};
	struct listener *l;
	struct http_server *server;
	struct http_server_opts o = {.handler = registry, .ctx = &r};
	GOOD(sys_read_file(AT_FDCWD, image_tar, 1 << 30, &r.tar), "read the image");
	GOOD(listener_open("127.0.0.1:0", 0, &l), "listen");
	snprintf(r.base, sizeof(r.base), "http://127.0.0.1:%d", listener_port(l));
	GOOD(http_server_start(l, &o, &server), "start a registry");
	struct cri_v1_pull_image_request q = {.image = arena_new(&a, struct cri_v1_image_spec)};
	struct cri_v1_pull_image_response resp = {0};
	q.image->image = arena_printf(&a, "%s/team/app:v1", r.base + 7);
	struct error *e = CALL(&a, "ImageService", "PullImage", pull_image, &q, &resp);
	CHECK(e != NULL, "a pull without credentials is refused: %s", error_message(e));
	error_free(e);
	q.auth = arena_new(&a, struct cri_v1_auth_config);
	q.auth->username = STR("user");
	q.auth->password = STR("pass");
	GOOD(CALL(&a, "ImageService", "PullImage", pull_image, &q, &resp), "PullImage with a token, an index and a broken download");
	CHECK(str_has_prefix(resp.image_ref, STR("sha256:")), "its id");
	CHECK(r.ranges >= 1, "the download went on where it broke off");
	struct cri_v1_image_status_request sq = {.image = q.image};
	struct cri_v1_image_status_response sr = {0};
	GOOD(CALL(&a, "ImageService", "ImageStatus", image_status, &sq, &sr), "ImageStatus");
	CHECK(sr.image && sr.image->repo_digests.n == 1, "it has a repository digest");
	q.image->image = arena_printf(&a, "%s/team/app:v2", r.base + 7);
	e = CALL(&a, "ImageService", "PullImage", pull_image, &q, &resp);
	CHECK(e && grpc_error_code(e) == GRPC_NOT_FOUND, "a missing tag: %s", error_message(e));
	error_free(e);
	http_server_stop(server, 0);
	buf_free(&r.tar);
}

/* ---- bench ---- */

struct bench_pod {
	int i;
	bool done;
	double ms[3];
	struct pod p;
	char id[80];
};

static void one_pod(void *arg)
{
	struct bench_pod *b = arg;
	char name[32];
	int64_t t[4] = {now_ns()};
	snprintf(name, sizeof(name), "bench%d", b->i);
	struct error *e = run_pod(name, CRI_NAMESPACE_POD, CRI_NAMESPACE_CONTAINER, NULL, 0, &b->p);
	t[1] = now_ns();
	if (!e)
		e = create(&b->p, "c", "sleep 1000", &(struct opts){.seccomp = getenv("SECCOMP") != NULL}, b->id);
	t[2] = now_ns();
	if (!e)
		e = start(b->id);
	t[3] = now_ns();
	for (int i = 0; i < 3; i++)
		b->ms[i] = (double)(t[i + 1] - t[i]) / 1e6;
	b->done = good(e, "bench pod");
}

static void bench(void)
{
	struct bench_pod *b = xcalloc((size_t)bench_n, sizeof(*b));
	int64_t t0 = now_ns();
	for (int i = 0; i < bench_n; i++) {
		b[i].i = i;
		int64_t t = now_ns();
		one_pod(&b[i]);
		printf("# pod %d: %.1f ms (sandbox %.1f, create %.1f, start %.1f)\n", i, (double)(now_ns() - t) / 1e6, b[i].ms[0], b[i].ms[1],
		       b[i].ms[2]);
	}
	printf("# %d pods one after the other: %.1f ms each\n", bench_n, (double)(now_ns() - t0) / 1e6 / bench_n);
	t0 = now_ns();
	for (int i = 0; i < bench_n; i++)
		good(remove_pod(b[i].p.id), "remove");
	printf("# removed: %.1f ms each\n", (double)(now_ns() - t0) / 1e6 / bench_n);
	struct fiber **f = xcalloc((size_t)bench_n, sizeof(*f));
	t0 = now_ns();
	for (int i = 0; i < bench_n; i++) {
		b[i].i = 1000 + i;
		f[i] = fiber_start("bench", one_pod, &b[i]);
	}
	for (int i = 0; i < bench_n; i++)
		fiber_join(f[i]);
	printf("# %d pods at once: %.1f ms\n", bench_n, (double)(now_ns() - t0) / 1e6);
	char smaps[64];
	buf_cleanup struct buf m = {0};
	snprintf(smaps, sizeof(smaps), "/proc/%d/smaps_rollup", (int)proc_pid(runtime));
	if (good(sys_read_file(AT_FDCWD, smaps, 1 << 16, &m), "smaps"))
		printf("%s", buf_z(&m));
	for (int i = 0; i < bench_n; i++)
		good(remove_pod(b[i].p.id), "remove");
	free(f);
	free(b);
}

static void run(void *arg)
{
	GOOD(start_runtime(), "start the runtime");
	test_images();
	test_network_config();
	if (bench_n) {
		bench();
	} else {
		test_lifecycle();
		test_restart();
		test_kinds();
		test_hostport();
		test_streams();
		test_end();
		test_pull();
	}
	stop_runtime(SIGTERM);
	grpc_client_free(client);
}

static bool lo_up(void)
{
	struct ifreq r = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool ok = s >= 0 && ioctl(s, SIOCSIFFLAGS, &r) == 0;
	if (s >= 0)
		close(s);
	return ok;
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "runtime"))
		return skiff_runtime_main(argc - 1, argv + 1);
	if (argc > 1 && !strcmp(argv[1], "pause"))
		return skiff_pause_main(argc - 1, argv + 1);
	if (argc < 2)
		return 2;
	image_tar = argv[1];
	bench_n = argc > 3 ? atoi(argv[3]) : 0;
	if (geteuid() != 0 || access("/usr/bin/crun", X_OK) < 0 || access("/usr/bin/conmon", X_OK) < 0 || access(image_tar, R_OK) < 0) {
		printf("1..0 # SKIP needs root, crun, conmon and busybox-static\n");
		return 0;
	}
	log_init("test", 0);
	snprintf(dir, sizeof(dir), "/tmp/skiff-rt-XXXXXX");
	if (!mkdtemp(dir) || unshare(CLONE_NEWNET | CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || !lo_up()) {
		perror("namespaces");
		return 1;
	}
	snprintf(root, sizeof(root), "%s/lib", dir);
	snprintf(state, sizeof(state), "%s/run", dir);
	snprintf(sock, sizeof(sock), "%s/cri.sock", dir);
	snprintf(logs, sizeof(logs), "%s/logs", dir);
	snprintf(cgroup, sizeof(cgroup), "/skiff-test-%d", (int)getpid());
	struct error *e = loop_run(run, NULL);
	CHECK(good(e, "loop"), "the loop ends");
	CHECK(skiff_runtime_cleanup(root, state, "sktest0", NULL) == 0, "clean up");
	CHECK(if_nametoindex("sktest0") == 0, "the bridge is gone");
	CHECK(count_mounts() == 0, "no mount is left");
	struct rt *rt = xcalloc(1, sizeof(*rt));
	rt_cgroup_detect(rt);
	rt_cgroup_remove(rt, cgroup);
	free(rt);
	GOOD(sys_remove_tree(dir), "remove the test's directory");
	printf("1..%d\n", checks);
	return failures ? 1 : 0;
}
