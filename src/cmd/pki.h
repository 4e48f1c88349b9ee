/*
 * cmd/pki.h: the cluster's certificates and keys, and the kubeconfigs that
 * hold them: made on first run, leaf certificates renewed 30 days before they
 * end, authorities never replaced. ECDSA P-256 throughout (OpenSSL).
 */
#ifndef SKIFF_CMD_PKI_H
#define SKIFF_CMD_PKI_H

#include "cmd/cluster.h"

/* Makes or renews everything under DATA-DIR/pki, DATA-DIR/kubeconfig and DATA-DIR/admin.kubeconfig that this cluster needs.
 * *renewed: how many certificates were written. Existing files that still hold are left alone. */
struct error *pki_ensure(struct cluster *c, int *renewed);
/* Days until the first leaf certificate ends; for `status`. */
struct error *pki_days_left(struct cluster *c, int *days);

/* User ids that components drop to: one each, from a range that systemd's DynamicUser does not use, without passwd entries. */
enum {
	UID_APISERVER = 61741,
	UID_CONTROLLER_MANAGER,
	UID_SCHEDULER,
	UID_CLOUD_CONTROLLER_MANAGER,
	UID_PROXY,
	UID_DNS,
};

#endif
