/*
 * skiff: Kubernetes in one executable. What it does is chosen by the name it
 * is called by (a symlink kube-scheduler) or by its first argument.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/log.h"
#include "cmd/cluster.h"
#include "cmd/up.h"
#include "loop/io.h"

#ifndef SKIFF_VERSION
#define SKIFF_VERSION "unknown"
#endif

static const struct program commands[] = {
	{"up", "start a cluster on this machine and wait until it is ready", up_main, false},
	{"down", "stop it and take away everything but its data", down_main, false},
	{"status", "show its components, nodes and memory", status_main, false},
	{"kubeconfig", "print the administrator's kubeconfig", kubeconfig_main, false},
	{"image", "import, pull, list or remove container images", image_main, false},
	{"snapshot", "save, restore or check a backup of the cluster's objects", snapshot_main, false},
	{"server", "run control plane and node in the foreground (systemd)", server_main, false},
	{"agent", "join a cluster elsewhere and run a node of it in the foreground", agent_main, false},
	{"token", "create or list the tokens that agents join with", token_main, false},
	{"completion", "print a shell completion script (bash, zsh)", completion_main, false},
};
#define N_COMMANDS (sizeof commands / sizeof *commands)

static void usage(FILE *f)
{
	fprintf(f, "Skiff %s: Kubernetes v1.36 in one executable.\n\nusage: skiff COMMAND [options]\n\nCommands:\n", SKIFF_VERSION);
	for (size_t i = 0; i < N_COMMANDS; i++)
		fprintf(f, "  %-26s %s\n", commands[i].name, commands[i].summary);
	fprintf(f, "\nComponents, each also run by a symlink of its name:\n");
	for (size_t i = 0; i < n_programs; i++)
		fprintf(f, "  %-26s %s\n", programs[i].name, programs[i].summary);
	fprintf(f, "\n'skiff COMMAND --help' tells more. --version prints the version.\n");
}

struct kubeconfig {
	struct cluster c;
	struct error *error;
};

static void print_kubeconfig(void *arg)
{
	struct kubeconfig *k = arg;
	buf_cleanup struct buf b = {0};

	k->error = cluster_init(&k->c);
	if (!k->error)
		k->error = file_read(data_path(&k->c, "admin.kubeconfig"), &b);
	if (!k->error)
		fwrite(b.p, 1, b.n, stdout);
}

int kubeconfig_main(int argc, char **argv)
{
	static const struct option options[] = {{"data-dir", required_argument, NULL, 'd'}, {"help", no_argument, NULL, 'h'}, {0}};
	arena_cleanup struct arena a = {0};
	struct kubeconfig k = {.c = {.a = &a, .nodes = -1}};

	for (int o; (o = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
		if (o == 'd') {
			k.c.data_dir = optarg;
			continue;
		}
		fprintf(o == 'h' ? stdout : stderr, "usage: skiff kubeconfig [--data-dir DIR]\n"
			"Prints the administrator's kubeconfig; it gives full rights, keep it secret.\n");
		return o == 'h' ? 0 : 2;
	}
	struct error *e = loop_run(print_kubeconfig, &k);

	if (!e)
		e = k.error;
	if (e)
		fprintf(stderr, "skiff: %s\n", error_message(e));
	error_free(e);
	return e ? 1 : 0;
}

int completion_main(int argc, char **argv)
{
	if (argc != 2 || (strcmp(argv[1], "bash") != 0 && strcmp(argv[1], "zsh") != 0)) {
		fprintf(stderr, "usage: skiff completion bash|zsh\nTo use it: source <(skiff completion bash)\n");
		return 2;
	}
	if (strcmp(argv[1], "zsh") == 0)
		printf("autoload -U +X bashcompinit && bashcompinit\n");
	printf("_skiff() {\n  local words=\"");
	for (size_t i = 0; i < N_COMMANDS; i++)
		printf("%s ", commands[i].name);
	for (size_t i = 0; i < n_programs; i++)
		printf("%s ", programs[i].name);
	printf("\"\n  if [ \"$COMP_CWORD\" -eq 1 ]; then\n    COMPREPLY=($(compgen -W \"$words --help --version\" -- \"$2\"))\n"
	       "  else\n    COMPREPLY=($(compgen -W \"$(\"$1\" \"${COMP_WORDS[1]}\" --help 2>&1 | grep -oE -- '--[a-z-]+')\" -- \"$2\"))\n"
	       "  fi\n}\ncomplete -o default -F _skiff skiff\n");
	return 0;
}

static const struct program *find(const char *name)
{
	for (size_t i = 0; i < N_COMMANDS; i++)
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	return program_find(name);
}

int main(int argc, char **argv)
{
	const char *slash = strrchr(argv[0], '/');
	const struct program *p = program_find(slash ? slash + 1 : argv[0]);

	log_init("skiff", 0);
	if (!p) {
		if (argc < 2) {
			usage(stderr);
			return 2;
		}
		if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
			usage(stdout);
			return 0;
		}
		if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "version") == 0) {
			printf("skiff %s (Kubernetes v1.36)\n", SKIFF_VERSION);
			return 0;
		}
		p = find(argv[1]);
		if (!p) {
			fprintf(stderr, "skiff: there is no command \"%s\"; 'skiff --help' lists them\n", argv[1]);
			return 2;
		}
		argc--;
		argv++;
	}
	if (p->component)
		log_init(p->name, 0);
	return p->main(argc, argv);
}
