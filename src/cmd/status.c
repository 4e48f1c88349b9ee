#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "client/client.h"
#include "cmd/cluster.h"
#include "cmd/pki.h"
#include "cmd/up.h"
#include "loop/io.h"

struct status {
	struct cluster *c;
	bool running, answers;
	struct error *error;
};

/* Proportional set size in KiB: what the process costs, shared pages divided by their users. -1: gone or not ours to read. */
static int64_t pss_kib(int pid)
{
	char path[64];
	buf_cleanup struct buf b = {0};
	int64_t v = -1;

	snprintf(path, sizeof path, "/proc/%d/smaps_rollup", pid);
	struct error *e = file_read(path, &b);

	for (struct str rest = buf_view(&b); !e && rest.p;) {
		struct str line = str_cut(&rest, '\n');

		if (str_has_prefix(line, STR("Pss:"))) {
			line = str_trim(str_sub(line, 4, line.n));
			if (!str_to_i64(str_cut(&line, ' '), &v))
				v = -1;
			break;
		}
	}
	error_free(e);
	return v;
}

static struct str age(struct arena *a, int64_t s)
{
	if (s < 120)
		return arena_printf(a, "%llds", (long long)s);
	if (s < 7200)
		return arena_printf(a, "%lldm", (long long)(s / 60));
	if (s < 48 * 3600)
		return arena_printf(a, "%lldh", (long long)(s / 3600));
	return arena_printf(a, "%lldd", (long long)(s / 86400));
}

static struct error *print_components(struct status *st)
{
	struct cluster *c = st->c;
	buf_cleanup struct buf b = {0};
	int64_t total = 0;

	TRY(file_read(run_path(c, "components"), &b));
	printf("%-28s %-9s %8s %10s %9s %8s\n", "COMPONENT", "STATE", "PID", "MEMORY", "RESTARTS", "UPTIME");
	for (struct str rest = buf_view(&b); rest.p;) {
		struct str line = str_cut(&rest, '\n'), name = str_cut(&line, ' ');
		int64_t pid = 0, restarts = 0, started = 0;

		if (!name.n)
			continue;
		str_to_i64(str_cut(&line, ' '), &pid);
		str_to_i64(str_cut(&line, ' '), &restarts);
		str_to_i64(str_cut(&line, ' '), &started);
		int64_t pss = pid ? pss_kib((int)pid) : -1;
		bool addons = str_eqz(name, "cluster-addons");
		struct str mem = pss < 0 ? STR("-") : arena_printf(c->a, "%.1f MiB", (double)pss / 1024);
		struct str up = pid ? age(c->a, (now_ns() / 1000000 - started) / 1000) : STR("-");

		total += pss > 0 ? pss : 0;
		printf("%-28.*s %-9s %8s %10.*s %9lld %8.*s\n", STR_ARG(name), pid ? "running" : addons ? "done" : "down",
		       pid ? arena_printf(c->a, "%lld", (long long)pid).p : "-", STR_ARG(mem), (long long)restarts, STR_ARG(up));
	}
	int64_t own = pss_kib(cluster_supervisor_pid(c));

	total += own > 0 ? own : 0;
	printf("%-28s %-9s %8d %7.1f MiB\n", "supervisor", "running", cluster_supervisor_pid(c), (double)(own > 0 ? own : 0) / 1024);
	printf("%-28s %-9s %8s %7.1f MiB\n\n", "total", "", "", (double)total / 1024);
	return NULL;
}

static struct error *print_nodes(struct status *st)
{
	struct cluster *c = st->c;
	struct client_config cfg;
	struct client *k = NULL;
	struct core_v1_node_list *list = NULL;
	int64_t deadline = deadline_push(5000);

	TRY(client_config_load(c->a, data_path(c, "admin.kubeconfig"), NULL, &cfg));
	TRY(client_new(&cfg, &k));
	struct error *e = client_list(k, c->a, &core_v1_nodes_resource, STR_NULL, NULL, (void **)&list);

	if (!e) {
		st->answers = true;
		printf("%-28s %-9s %-16s %s\n", "NODE", "STATE", "ADDRESS", "PODS' RANGE");
	}
	for (uint32_t i = 0; !e && i < list->items.n; i++) {
		struct core_v1_node *n = &list->items.v[i];
		const char *state = "NotReady";
		struct str addr = STR("-");

		for (uint32_t j = 0; j < n->status.conditions.n; j++)
			if (str_eqz(n->status.conditions.v[j].type, "Ready") && str_eqz(n->status.conditions.v[j].status, "True"))
				state = "Ready";
		for (uint32_t j = 0; j < n->status.addresses.n; j++)
			if (str_eqz(n->status.addresses.v[j].type, "InternalIP"))
				addr = n->status.addresses.v[j].address;
		printf("%-28.*s %-9s %-16.*s %.*s\n", STR_ARG(n->metadata.name), state, STR_ARG(addr), STR_ARG(n->spec.pod_cidr));
	}
	client_free(k);
	deadline_pop(deadline);
	return error_wrap(e, "the API server does not answer");
}

static void run(void *arg)
{
	struct status *st = arg;
	struct cluster *c = st->c;
	int days;

	if ((st->error = cluster_init(c)))
		return;
	st->running = cluster_supervisor_pid(c) != 0;
	if (!st->running) {
		printf("No cluster is running from %s. Start one with 'skiff up'.\n", c->data_dir);
		return;
	}
	if ((st->error = print_components(st)))
		return;
	if (c->server) {
		/* An agent has no right to list nodes; its kubelet and the server's status know the rest. */
		st->answers = true;
		printf("Data in %s; an agent of %s.\n", c->data_dir, c->server);
		return;
	}
	if ((st->error = print_nodes(st)))
		return;
	if ((st->error = pki_days_left(c, &days)))
		return;
	printf("\nData in %s; API at https://%s:%d; certificates end in %d days.\n", c->data_dir, c->node_ip, c->api_port, days);
}

int status_main(int argc, char **argv)
{
	static const struct option options[] = {{"data-dir", required_argument, NULL, 'd'}, {"help", no_argument, NULL, 'h'}, {0}};
	arena_cleanup struct arena a = {0};
	struct cluster c = {.a = &a, .nodes = -1};
	struct status st = {.c = &c};

	for (int o; (o = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
		if (o == 'd') {
			c.data_dir = optarg;
			continue;
		}
		fprintf(o == 'h' ? stdout : stderr, "usage: skiff status [--data-dir DIR]\n"
			"Shows the components, nodes, memory and uptime of the cluster on this machine.\n"
			"Exit code: 0 it runs and answers, 1 it does not, 3 there is none.\n");
		return o == 'h' ? 0 : 2;
	}
	struct error *e = loop_run(run, &st);

	if (!e)
		e = st.error;
	if (e) {
		fprintf(stderr, "skiff: %s\n", error_message(e));
		error_free(e);
		return 1;
	}
	return st.running ? !st.answers : 3;
}
