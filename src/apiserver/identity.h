/*
 * apiserver/identity.h: which API server this is (KEP-1965). Its name is made of the host's, so that a server that starts again has the
 * one it had; Lease kube-system/NAME says that it lives, and, in a store that several share, a key beside it where its peers reach it.
 */
#ifndef SKIFF_APISERVER_IDENTITY_H
#define SKIFF_APISERVER_IDENTITY_H

#include "apiserver/server.h"

/* "apiserver-" and 26 characters; the process's. */
const char *identity_name(void);
/* Makes the Lease, that of an earlier life having been taken away. */
struct error *identity_begin(struct apiserver *s);
/* Renews it each 10 s, and takes away each hour the Leases of servers that no longer do, on a fiber. */
void identity_start(struct apiserver *s);
/* Takes the Lease away; it is not renewed from then on. Suspends, 10 s at most. */
void identity_leave(struct apiserver *s);

#endif
