/*
 * cmd/addons.h: objects that every Skiff cluster has beside upstream's: the
 * kube-dns Service with its endpoints, and RBAC for components that upstream
 * gives no default role. Applied server-side under the manager "skiff".
 */
#ifndef SKIFF_CMD_ADDONS_H
#define SKIFF_CMD_ADDONS_H

/* `skiff cluster-addons --data-dir DIR`: waits for the API server (5 minutes at most), applies, exits 0. */
int cluster_addons_main(int argc, char **argv);

#endif
