#include "cmd/up.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "client/client.h"
#include "cmd/cluster.h"
#include "cmd/join.h"
#include "cmd/node_net.h"
#include "cmd/pki.h"
#include "cmd/preflight.h"
#include "cmd/supervisor.h"
#include "cmd/teardown.h"

#define READY_TIMEOUT_S 120
#define POLL_MIN_MS 10
#define POLL_MAX_MS 500
#define DOWN_TIMEOUT_S 90

enum { OPT_NODE_IP = 256, OPT_NODE_NAME, OPT_PORT, OPT_POD_CIDR, OPT_SERVICE_CIDR, OPT_DOMAIN, OPT_POOL, OPT_ETCD, OPT_TIMEOUT,
       OPT_NO_AGENT, OPT_SERVER, OPT_TOKEN, OPT_TOKEN_FILE, OPT_CA_HASH };

static const struct option options[] = {
	{"data-dir", required_argument, NULL, 'd'},
	{"nodes", required_argument, NULL, 'n'},
	{"node-ip", required_argument, NULL, OPT_NODE_IP},
	{"node-name", required_argument, NULL, OPT_NODE_NAME},
	{"https-listen-port", required_argument, NULL, OPT_PORT},
	{"cluster-cidr", required_argument, NULL, OPT_POD_CIDR},
	{"service-cidr", required_argument, NULL, OPT_SERVICE_CIDR},
	{"cluster-domain", required_argument, NULL, OPT_DOMAIN},
	{"load-balancer-pool", required_argument, NULL, OPT_POOL},
	{"etcd-servers", required_argument, NULL, OPT_ETCD},
	{"disable-agent", no_argument, NULL, OPT_NO_AGENT},
	{"timeout", required_argument, NULL, OPT_TIMEOUT},
	{"v", required_argument, NULL, 'v'},
	{"help", no_argument, NULL, 'h'},
	{0},
};

static const char *const options_help =
	"  --data-dir DIR            where everything that must survive is kept (default " SKIFF_DATA_DIR ")\n"
	"  --node-ip IP              address of this node and of the API server (default: found; 100.127.200.1 with --nodes)\n"
	"  --node-name NAME          name of this node (default: the host name)\n"
	"  --https-listen-port PORT  the API server's port (default 6443)\n"
	"  --cluster-cidr CIDR       addresses of pods (default 10.244.0.0/16)\n"
	"  --service-cidr CIDR       addresses of Services (default 10.96.0.0/16)\n"
	"  --cluster-domain DOMAIN   (default cluster.local)\n"
	"  --load-balancer-pool A-B  addresses for Services of type LoadBalancer (default 10.97.0.1-10.97.0.254)\n"
	"  --etcd-servers URLS       keep objects in etcd instead of the embedded store\n"
	"  --v N                     log more\n"
	"  --help                    this text\n";

static const struct option agent_options[] = {
	{"server", required_argument, NULL, OPT_SERVER},
	{"token", required_argument, NULL, OPT_TOKEN},
	{"token-file", required_argument, NULL, OPT_TOKEN_FILE},
	{"ca-cert-hash", required_argument, NULL, OPT_CA_HASH},
	{"data-dir", required_argument, NULL, 'd'},
	{"node-ip", required_argument, NULL, OPT_NODE_IP},
	{"node-name", required_argument, NULL, OPT_NODE_NAME},
	{"v", required_argument, NULL, 'v'},
	{"help", no_argument, NULL, 'h'},
	{0},
};

static const char *const agent_options_help =
	"  --server URL              the cluster's API server, https://HOST:6443\n"
	"  --token TOKEN             a bootstrap token ('skiff token create' on the cluster); or in the environment, SKIFF_TOKEN\n"
	"  --token-file FILE         the token in a file\n"
	"  --ca-cert-hash HASH       sha256:<hex>: what the key of the cluster's certificate authority must hash to\n"
	"  --data-dir DIR            where everything that must survive is kept (default " SKIFF_DATA_DIR ")\n"
	"  --node-ip IP              address of this node (default: found)\n"
	"  --node-name NAME          name of this node (default: the host name)\n"
	"  --v N                     log more\n"
	"  --help                    this text\n"
	"Once joined, the first four are not needed again.\n";

struct run {
	struct cluster *c;
	struct join *join; /* agents */
	struct error *error;
	bool ok;
};

/* Runs fn on a loop and gives back what it left in run.error. */
static struct error *on_loop(fiber_fn *fn, struct run *r)
{
	struct error *e = loop_run(fn, r);

	if (e) {
		error_free(r->error);
		return e;
	}
	return r->error;
}

static int fail(struct error *e, const char *what)
{
	fprintf(stderr, "skiff: %s%s%s\n", what ? what : "", what ? ": " : "", error_message(e));
	error_free(e);
	return 1;
}

static bool parse_int(const char *text, int min, int max, int *out)
{
	int64_t v;

	if (!str_to_i64(str_from(text), &v) || v < min || v > max)
		return false;
	*out = (int)v;
	return true;
}

/* Returns -1 to go on, or an exit code. `j` is an agent's, else NULL. */
static int parse(int argc, char **argv, struct cluster *c, int *timeout_s, struct join *j, const char *usage)
{
	const char *help = j ? agent_options_help : options_help;

	for (int o; (o = getopt_long(argc, argv, "h", j ? agent_options : options, NULL)) != -1;) {
		bool good = true;

		switch (o) {
		case 'd': c->data_dir = optarg; break;
		case 'n': good = parse_int(optarg, 1, SKIFF_NODES_MAX, &c->nodes); break;
		case 'v': good = parse_int(optarg, 0, 10, &c->verbosity); break;
		case OPT_NODE_IP: c->node_ip = optarg; break;
		case OPT_NODE_NAME: c->node_name = optarg; break;
		case OPT_PORT: good = parse_int(optarg, 1, 65535, &c->api_port); break;
		case OPT_POD_CIDR: c->pod_cidr = optarg; break;
		case OPT_SERVICE_CIDR: c->service_cidr = optarg; break;
		case OPT_DOMAIN: c->cluster_domain = optarg; break;
		case OPT_POOL: c->lb_pool = optarg; break;
		case OPT_ETCD: c->etcd_servers = optarg; break;
		case OPT_NO_AGENT: c->nodes = 0; break;
		case OPT_SERVER: j->server = optarg; break;
		case OPT_TOKEN: j->token = optarg; break;
		case OPT_TOKEN_FILE: j->token_file = optarg; break;
		case OPT_CA_HASH: j->ca_hash = optarg; break;
		case OPT_TIMEOUT: good = parse_int(optarg, 1, 86400, timeout_s); break;
		case 'h': printf("%s%s", usage, help); return 0;
		default: fprintf(stderr, "%s%s", usage, help); return 2;
		}
		if (!good) {
			fprintf(stderr, "skiff: \"%s\" is not a value for %s\n", optarg, argv[optind - 1]);
			return 2;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "skiff: unexpected argument \"%s\"\n%s", argv[optind], usage);
		return 2;
	}
	return -1;
}

static struct error *make_dirs(struct cluster *c)
{
	TRY(dir_make(c->run_dir, 0755));
	TRY(dir_make(data_path(c, "log"), 0755));
	return dir_make(data_path(c, "manifests"), 0755);
}

/* Directories, certificates, networks: all that must be there before the first component starts. */
static struct error *prepare(struct cluster *c)
{
	int renewed;

	TRY(cluster_init(c));
	if (c->server)
		return error_new("%s is the data directory of an agent of %s: run 'skiff agent', or give another one with --data-dir",
				 c->data_dir, c->server);
	TRY(preflight(c));
	TRY(make_dirs(c));
	TRY(dir_make(data_path(c, "store"), 0700));
	if (chown(data_path(c, "store"), UID_APISERVER, UID_APISERVER) < 0)
		return error_sys(errno, "chown %s", data_path(c, "store"));
	TRY(node_net_up(c));
	TRY(pki_ensure(c, &renewed));
	if (renewed)
		log_v(1, "%d certificates written", renewed);
	return cluster_save(c);
}

static void prepare_fiber(void *arg)
{
	struct run *r = arg;

	r->error = prepare(r->c);
}

static struct error *prepare_agent(struct cluster *c, struct join *j)
{
	buf_cleanup struct buf b = {0};

	if (j->server)
		c->server = j->server;
	TRY(cluster_init(c));
	if (access(data_path(c, "pki/ca.key"), F_OK) == 0)
		return error_new("%s is the data directory of a whole cluster ('skiff up', 'skiff server'): give the agent another one with "
				 "--data-dir", c->data_dir);
	TRY(preflight(c));
	TRY(make_dirs(c));
	if (j->token_file) {
		TRY(file_read(j->token_file, &b));
		j->token = arena_strz(c->a, str_trim(buf_view(&b)));
	}
	if (!j->token)
		j->token = getenv("SKIFF_TOKEN");
	TRY(join_cluster(c, j));
	return cluster_save(c);
}

static void prepare_agent_fiber(void *arg)
{
	struct run *r = arg;

	r->error = prepare_agent(r->c, r->join);
}

/* The supervisor, detached: its own session, no terminal. */
static struct error *start_supervisor(struct cluster *c)
{
	int pipe_fds[2];
	char byte;

	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return error_sys(errno, "pipe");
	pid_t pid = fork();

	if (pid < 0)
		return error_sys(errno, "fork");
	if (pid == 0) {
		close(pipe_fds[0]);
		if (fork() != 0)
			_exit(0);
		setsid();
		int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
		int log = open(data_path(c, "log/supervisor.log"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);

		dup2(null, STDIN_FILENO);
		dup2(log, STDOUT_FILENO);
		dup2(log, STDERR_FILENO);
		if (chdir("/") < 0)
			_exit(1);
		log_init("supervisor", c->verbosity);
		struct error *e = supervisor_run(c, false, pipe_fds[1]);

		log_and_free(e, "supervisor");
		_exit(e ? 1 : 0);
	}
	close(pipe_fds[1]);
	waitpid(pid, NULL, 0);
	ssize_t n = read(pipe_fds[0], &byte, 1);

	close(pipe_fds[0]);
	return n == 1 ? NULL : error_new("the supervisor did not start; see %s", data_path(c, "log/supervisor.log"));
}

static void say(const char *text)
{
	printf("%s", text);
	fflush(stdout);
}

/* A condition from before `since`, seconds since 1970, is what the store remembers of the last time. */
static bool node_ready(const struct core_v1_node *n, int64_t since)
{
	for (uint32_t i = 0; i < n->status.conditions.n; i++) {
		const struct core_v1_node_condition *c = &n->status.conditions.v[i];

		if (str_eqz(c->type, "Ready"))
			return str_eqz(c->status, "True") && c->last_heartbeat_time.s >= since;
	}
	return false;
}

struct wait {
	struct cluster *c;
	int timeout_s;
	int64_t since; /* nodes must have spoken after that, seconds since 1970 */
	struct error *error;
};

/* Polls: there is nothing to watch before the API server answers, and this ends within a second. */
static void wait_ready(void *arg)
{
	struct wait *w = arg;
	struct cluster *c = w->c;
	struct client_config cfg;
	struct client *k = NULL;
	int64_t start = now_ms(), until = start + w->timeout_s * 1000LL;
	int ready = -1;

	w->error = client_config_load(c->a, data_path(c, "admin.kubeconfig"), NULL, &cfg);
	if (!w->error)
		w->error = client_new(&cfg, &k);
	while (!w->error && ready < c->nodes) {
		arena_cleanup struct arena a = {0};
		struct core_v1_node_list *list;
		int64_t asked = now_ms();
		struct error *e = client_list(k, &a, &core_v1_nodes_resource, STR_NULL, NULL, (void **)&list);
		int n = 0;

		for (uint32_t i = 0; !e && i < list->items.n; i++)
			n += node_ready(&list->items.v[i], w->since);
		if (!e && ready < 0)
			printf("API server answers after %.2f s\n", (double)(now_ms() - start) / 1000);
		if (!e && n > 0 && n > ready)
			printf("%d of %d nodes ready after %.2f s\n", n, c->nodes, (double)(now_ms() - start) / 1000);
		fflush(stdout);
		if (!e)
			ready = n;
		if (now_ms() > until) {
			w->error = error_new("the cluster was not ready within %d s (%s); 'skiff status' shows its components, their "
					     "logs are in %s", w->timeout_s, e ? error_message(e) : "nodes are missing", data_path(c, "log"));
			error_free(e);
			break;
		}
		error_free(e);
		/* A slow machine has better to do than to answer this. */
		int64_t took = now_ms() - asked;

		if (ready < c->nodes)
			w->error = fiber_sleep(took < POLL_MIN_MS ? POLL_MIN_MS : took > POLL_MAX_MS ? POLL_MAX_MS : took);
	}
	client_free(k);
}

int up_main(int argc, char **argv)
{
	static const char usage[] = "usage: skiff up [options]\n"
		"Starts a cluster on this machine in the background and waits until its nodes are ready.\n\n"
		"  --nodes N                 nodes on this machine, each in namespaces of its own (default 1)\n"
		"  --timeout SECONDS         how long to wait for them (default 120)\n";
	arena_cleanup struct arena a = {0};
	struct cluster c = {.a = &a, .nodes = -1};
	int timeout = READY_TIMEOUT_S, code = parse(argc, argv, &c, &timeout, NULL, usage);
	struct run r = {.c = &c};
	struct wait w = {.timeout_s = timeout};
	struct error *e = NULL;

	if (code >= 0)
		return code;
	log_init("skiff", c.verbosity);
	if (geteuid() != 0)
		return fail(error_new("a cluster needs root (namespaces, mounts, cgroups): run it with sudo"), NULL);
	struct cluster probe = {.a = &a, .data_dir = c.data_dir, .nodes = -1};

	r.c = &probe;
	e = cluster_init(&probe);
	if (e)
		return fail(e, NULL);
	if (c.nodes < 0)
		c.nodes = probe.nodes > 0 ? probe.nodes : 1;
	if (cluster_supervisor_pid(&probe)) {
		if (probe.nodes != c.nodes)
			return fail(error_new("a cluster of %d nodes is running from %s; run 'skiff down' first to change that", probe.nodes,
					      probe.data_dir), NULL);
		say("The cluster is running already.\n");
		c = probe;
	} else {
		say("Starting the cluster ...\n");
		w.since = wall_ns() / 1000000000;
		r.c = &c;
		if ((e = on_loop(prepare_fiber, &r)) || (e = start_supervisor(&c)))
			return fail(e, NULL);
	}
	w.c = &c;
	e = loop_run(wait_ready, &w);
	if (e || w.error)
		return fail(e ? e : w.error, NULL);
	printf("Ready. Try:\n  export KUBECONFIG=%s\n  kubectl get nodes\n", data_path(&c, "admin.kubeconfig"));
	return 0;
}

/*
 * Tells systemd (Type=notify) without linking libsystemd: one datagram (sd_notify(3)). The variable is for this process alone:
 * crun, given it, would wait for containers to tell it too.
 */
static void notify_ready(void)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un un = {.sun_family = AF_UNIX};

	if (!path || strlen(path) >= sizeof un.sun_path)
		return;
	strcpy(un.sun_path, path);
	socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (un.sun_path[0] == '@')
		un.sun_path[0] = 0;
	if (fd < 0 || sendto(fd, "READY=1", 7, 0, (struct sockaddr *)&un, len) < 0)
		log_warn("telling systemd: %s", strerror(errno));
	if (fd >= 0)
		close(fd);
	unsetenv("NOTIFY_SOCKET");
}

static int foreground(struct cluster *c, struct join *j)
{
	struct run r = {.c = c, .join = j};
	struct error *e = on_loop(j ? prepare_agent_fiber : prepare_fiber, &r);

	if (e)
		return fail(e, NULL);
	notify_ready();
	e = supervisor_run(c, true, -1);
	return e ? fail(e, NULL) : 0;
}

int server_main(int argc, char **argv)
{
	static const char usage[] = "usage: skiff server [options]\n"
		"Runs the control plane and a node in the foreground, for systemd and containers.\n\n"
		"  --disable-agent           no node, only the control plane\n";
	arena_cleanup struct arena a = {0};
	struct cluster c = {.a = &a, .nodes = 1};
	int timeout, code = parse(argc, argv, &c, &timeout, NULL, usage);

	if (code >= 0)
		return code;
	log_init("skiff", c.verbosity);
	return foreground(&c, NULL);
}

int agent_main(int argc, char **argv)
{
	static const char usage[] = "usage: skiff agent --server URL --token TOKEN --ca-cert-hash HASH [options]\n"
		"Joins this machine to a cluster elsewhere and runs its node in the foreground, for systemd and containers.\n\n";
	arena_cleanup struct arena a = {0};
	struct cluster c = {.a = &a, .nodes = 1};
	struct join j = {0};
	int timeout, code = parse(argc, argv, &c, &timeout, &j, usage);

	if (code >= 0)
		return code;
	log_init("skiff", c.verbosity);
	return foreground(&c, &j);
}

/* By the lock on its pid file: where process 1 reaps nobody (a CI container's often does not), an ended process keeps its id. */
static bool wait_gone(struct cluster *c, int pid, int timeout_s)
{
	for (int i = 0; i < timeout_s * 20; i++) {
		if (cluster_supervisor_pid(c) != pid)
			return true;
		usleep(50000);
	}
	return false;
}

static void rest_fiber(void *arg)
{
	struct run *r = arg;

	r->ok = teardown_rest(r->c);
}

int down_main(int argc, char **argv)
{
	static const char usage[] = "usage: skiff down [--data-dir DIR]\n"
		"Stops the cluster on this machine: all pods, all components, their networks, mounts and cgroups.\n"
		"What is stored stays: 'skiff up' finds it again.\n\n";
	arena_cleanup struct arena a = {0};
	struct cluster c = {.a = &a, .nodes = -1};
	int timeout = DOWN_TIMEOUT_S, code = parse(argc, argv, &c, &timeout, NULL, usage);
	struct run r = {.c = &c};
	struct error *e;

	if (code >= 0)
		return code;
	log_init("skiff", c.verbosity);
	if (geteuid() != 0)
		return fail(error_new("stopping a cluster needs root: run it with sudo"), NULL);
	e = cluster_init(&c);
	if (e)
		return fail(e, NULL);
	int pid = cluster_supervisor_pid(&c);

	if (pid) {
		say("Stopping components and pods ...\n");
		if (kill(pid, SIGTERM) < 0)
			return fail(error_sys(errno, "signalling the supervisor (pid %d)", pid), NULL);
		if (!wait_gone(&c, pid, timeout)) {
			fprintf(stderr, "skiff: the supervisor (pid %d) did not end within %d s; killing it\n", pid, timeout);
			kill(pid, SIGKILL);
			wait_gone(&c, pid, 5);
		}
	}
	bool pods_gone = access(c.run_dir, F_OK) < 0 || teardown_pods(&c);

	if ((e = on_loop(rest_fiber, &r)))
		return fail(e, NULL);
	if (!r.ok || !pods_gone)
		return 1;
	say(pid ? "Stopped.\n" : "No cluster was running; nothing is left of one.\n");
	return 0;
}
