/* skiff snapshot save|restore|status: backup of the embedded store. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "apiserver/snapshot.h"
#include "base/log.h"
#include "client/client.h"
#include "cmd/cluster.h"
#include "cmd/pki.h"
#include "cmd/up.h"

static const char usage[] =
	"usage: skiff snapshot save [options] FILE      a copy of all objects, of the running cluster, at one revision\n"
	"       skiff snapshot status FILE              what is in it, and whether it is whole\n"
	"       skiff snapshot restore [options] FILE   into the stopped cluster; what was stored before is kept beside it\n\n"
	"  --data-dir DIR      the cluster's data directory (default " SKIFF_DATA_DIR ")\n"
	"  --kubeconfig FILE   save: of another API server (default: DATA-DIR/admin.kubeconfig)\n\n"
	"A snapshot holds the objects, Secrets among them, but not the certificates in DATA-DIR/pki: keep both safe.\n"
	"With --etcd-servers, use etcdctl and etcdutl instead.\n";

struct command {
	struct cluster c;
	const char *kubeconfig, *file;
	struct error *(*run)(struct command *k);
	struct error *error;
};

static struct error *write_all(int fd, const char *p, size_t n)
{
	while (n) {
		ssize_t w = write(fd, p, n);

		if (w < 0 && errno != EINTR)
			return error_sys(errno, "writing the snapshot");
		if (w > 0) {
			p += w;
			n -= (size_t)w;
		}
	}
	return NULL;
}

static struct error *receive(struct client *k, struct arena *a, int fd)
{
	struct http_response r;
	char *buf = xmalloc(256 << 10);
	size_t got = 1;
	struct error *e = client_stream(k, a, "GET", STR(SNAPSHOT_PATH), "*/*", &r);

	if (e) {
		free(buf);
		return e;
	}
	while (!e && got) {
		e = http_response_read(&r, buf, 256 << 10, &got);
		if (!e)
			e = write_all(fd, buf, got);
	}
	http_response_close(&r);
	free(buf);
	if (!e && fsync(fd))
		e = error_sys(errno, "writing the snapshot");
	return e;
}

static void show(const struct snapshot_info *i)
{
	printf("revision %" PRId64 "\nkeys     %" PRId64 "\nsize     %.1f MiB\nhash     %016" PRIx64 "\n", i->revision, i->keys,
	       (double)i->bytes / (1 << 20), i->hash);
}

static struct error *save(struct command *k)
{
	struct client_config cfg;
	struct client *client = NULL;
	struct snapshot_info info;
	const char *tmp = arena_printf(k->c.a, "%s.part", k->file).p;

	TRY(client_config_load(k->c.a, k->kubeconfig ? k->kubeconfig : data_path(&k->c, "admin.kubeconfig"), NULL, &cfg));
	TRY(client_new(&cfg, &client));
	int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	struct error *e = fd < 0 ? error_sys(errno, "%s", tmp) : receive(client, k->c.a, fd);

	if (fd >= 0)
		close(fd);
	client_free(client);
	if (!e)
		e = snapshot_info(tmp, &info); /* what was cut on its way must not pass for a backup */
	if (!e && rename(tmp, k->file))
		e = error_sys(errno, "%s", k->file);
	if (e)
		unlink(tmp);
	else
		show(&info);
	return e;
}

static struct error *status(struct command *k)
{
	struct snapshot_info info;

	TRY(snapshot_info(k->file, &info));
	show(&info);
	return NULL;
}

static struct error *restore(struct command *k)
{
	const char *dir = data_path(&k->c, "store"), *old = NULL;
	struct snapshot_info info;

	if (geteuid() != 0)
		return error_new("restoring needs root: run it with sudo");
	if (cluster_supervisor_pid(&k->c))
		return error_new("the cluster is running: stop it first with 'skiff down'");
	TRY(snapshot_info(k->file, &info)); /* before anything is moved */
	if (access(arena_printf(k->c.a, "%s/data.mdb", dir).p, F_OK) == 0) {
		old = arena_printf(k->c.a, "%s.before-restore-%" PRId64, dir, wall_ns() / 1000000000).p;
		if (rename(dir, old))
			return error_sys(errno, "%s", old);
	}
	struct error *e = snapshot_restore(k->file, dir, UID_APISERVER);

	if (e && old) {
		rmdir(dir);
		if (rename(old, dir))
			return error_wrap(e, "restoring (what was stored before is in %s)", old);
	}
	if (e)
		return e;
	show(&info);
	if (old)
		printf("What was stored before is in %s.\n", old);
	printf("Start the cluster with 'skiff up'.\n");
	return NULL;
}

static void run(void *arg)
{
	struct command *k = arg;

	k->error = cluster_init(&k->c);
	if (!k->error)
		k->error = k->run(k);
}

int snapshot_main(int argc, char **argv)
{
	static const struct option options[] = {
		{"data-dir", required_argument, NULL, 'd'}, {"kubeconfig", required_argument, NULL, 'k'},
		{"help", no_argument, NULL, 'h'}, {0},
	};
	static const struct {
		const char *verb;
		struct error *(*run)(struct command *k);
	} verbs[] = {{"save", save}, {"status", status}, {"restore", restore}};
	arena_cleanup struct arena a = {0};
	struct command k = {.c = {.a = &a, .nodes = -1}};

	for (int o; (o = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
		switch (o) {
		case 'd': k.c.data_dir = optarg; break;
		case 'k': k.kubeconfig = optarg; break;
		case 'h': fputs(usage, stdout); return 0;
		default: fputs(usage, stderr); return 2;
		}
	}
	for (size_t i = 0; optind < argc && i < sizeof verbs / sizeof *verbs; i++)
		if (strcmp(argv[optind], verbs[i].verb) == 0)
			k.run = verbs[i].run;
	if (!k.run || argc - optind != 2) {
		fputs(usage, stderr);
		return 2;
	}
	k.file = argv[optind + 1];
	struct error *e = loop_run(run, &k);

	if (!e)
		e = k.error;
	if (e)
		fprintf(stderr, "skiff: %s\n", error_message(e));
	error_free(e);
	return e ? 1 : 0;
}
