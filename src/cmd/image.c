#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "cmd/cluster.h"
#include "cmd/up.h"
#include "loop/io.h"
#include "runtime/image.h"

static const char usage[] =
	"usage: skiff image import [--name NAME] FILE...   OCI layouts (directory or tar) and 'docker save' archives\n"
	"       skiff image pull [--plain-http] NAME...     from a registry (credentials: REGISTRY_USERNAME, REGISTRY_PASSWORD)\n"
	"       skiff image ls                              what this machine has\n"
	"       skiff image rm NAME|ID...\n\n"
	"  --data-dir DIR   the cluster's data directory (default " SKIFF_DATA_DIR ")\n";

struct command {
	struct cluster c;
	const char *name;
	bool plain_http;
	char **args;
	int n_args;
	struct image_store *store;
	struct error *(*run)(struct command *k, const char *arg);
};

static void progress(void *ctx, const char *what, uint64_t done, uint64_t total)
{
	if (!isatty(STDERR_FILENO))
		return;
	if (total)
		fprintf(stderr, "\r\033[K%s %llu%%", what, (unsigned long long)(done * 100 / total));
	else
		fprintf(stderr, "\r\033[K%s %.1f MiB", what, (double)done / (1 << 20));
}

static void end_progress(void)
{
	if (isatty(STDERR_FILENO))
		fprintf(stderr, "\r\033[K");
}

static struct error *import(struct command *k, const char *arg)
{
	struct strings names = {0};
	struct error *e = image_import(k->store, k->c.a, arg, str_from(k->name), progress, NULL, &names);

	end_progress();
	for (uint32_t i = 0; !e && i < names.n; i++)
		printf("%.*s\n", STR_ARG(names.v[i]));
	return e;
}

static struct error *pull(struct command *k, const char *arg)
{
	struct image_pull p = {.ref = str_from(arg), .plain_http = k->plain_http, .progress = progress};
	struct str id;

	p.auth.username = str_from(getenv("REGISTRY_USERNAME"));
	p.auth.password = str_from(getenv("REGISTRY_PASSWORD"));
	struct error *e = image_pull(k->store, k->c.a, &p, &id);

	end_progress();
	if (!e)
		printf("%.*s\n", STR_ARG(id));
	return e;
}

static struct error *rm(struct command *k, const char *arg)
{
	struct rt_v1_image_record *r = NULL;

	TRY(image_find(k->store, k->c.a, str_from(arg), &r));
	return r ? image_remove(k->store, str_from(arg)) : error_new("there is no image \"%s\"; 'skiff image ls' shows what there is", arg);
}

static struct error *ls(struct command *k, const char *arg)
{
	struct rt_v1_image_index index = {0};

	TRY(image_list(k->store, k->c.a, &index));
	printf("%-14s %10s  %s\n", "ID", "SIZE", "NAMES");
	for (uint32_t i = 0; i < index.images.n; i++) {
		const struct rt_v1_image_record *r = &index.images.v[i];
		struct str id = r->id, rest = id;

		str_cut(&rest, ':');
		printf("%-14.*s %6.1f MiB ", (int)(rest.n > 12 ? 12 : rest.n), rest.n ? rest.p : "", (double)r->size / (1 << 20));
		for (uint32_t j = 0; j < r->tags.n; j++)
			printf(" %.*s", STR_ARG(r->tags.v[j]));
		printf("\n");
	}
	return NULL;
}

static const struct {
	const char *verb;
	struct error *(*run)(struct command *k, const char *arg);
	bool args;
} verbs[] = {{"import", import, true}, {"pull", pull, true}, {"ls", ls, false}, {"rm", rm, true}};

static struct error *run(struct command *k)
{
	TRY(cluster_init(&k->c));
	/* The runtime makes it with the same mode: it may not have run yet. */
	TRY(dir_make(data_path(&k->c, "runtime/images"), 0711));
	TRY(image_store_open(data_path(&k->c, "runtime/images"), 0, &k->store));
	struct error *e = k->n_args ? NULL : k->run(k, NULL);

	for (int i = 0; i < k->n_args && !e; i++)
		e = error_wrap(k->run(k, k->args[i]), "%s", k->args[i]);
	image_store_close(k->store);
	return e;
}

int image_main(int argc, char **argv)
{
	static const struct option options[] = {
		{"data-dir", required_argument, NULL, 'd'}, {"name", required_argument, NULL, 'n'},
		{"plain-http", no_argument, NULL, 'p'}, {"help", no_argument, NULL, 'h'}, {0},
	};
	arena_cleanup struct arena a = {0};
	struct command k = {.c = {.a = &a, .nodes = -1}};

	for (int o; (o = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
		switch (o) {
		case 'd': k.c.data_dir = optarg; break;
		case 'n': k.name = optarg; break;
		case 'p': k.plain_http = true; break;
		case 'h': fputs(usage, stdout); return 0;
		default: fputs(usage, stderr); return 2;
		}
	}
	const char *verb = optind < argc ? argv[optind++] : "";
	bool args = false;

	for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
		if (strcmp(verbs[i].verb, verb) == 0) {
			k.run = verbs[i].run;
			args = verbs[i].args;
		}
	}
	k.args = argv + optind;
	k.n_args = argc - optind;
	if (!k.run || args != (k.n_args > 0)) {
		fputs(usage, stderr);
		return 2;
	}
	struct error *e = run(&k);

	if (e)
		fprintf(stderr, "skiff: %s\n", error_message(e));
	error_free(e);
	return e ? 1 : 0;
}
