/*
 * cmd/up.h: the subcommands that start, stop and show a cluster on this machine.
 * Each is a main of its own: getopt_long, --help, exit codes 0 done, 1 failed, 2 wrong usage.
 */
#ifndef SKIFF_CMD_UP_H
#define SKIFF_CMD_UP_H

int up_main(int argc, char **argv);
int down_main(int argc, char **argv);
int server_main(int argc, char **argv);     /* control plane and node, in the foreground (systemd) */
int agent_main(int argc, char **argv);      /* node only, joins --server */
int status_main(int argc, char **argv);
int kubeconfig_main(int argc, char **argv);
int image_main(int argc, char **argv);
int token_main(int argc, char **argv);
int snapshot_main(int argc, char **argv);
int completion_main(int argc, char **argv);

#endif
