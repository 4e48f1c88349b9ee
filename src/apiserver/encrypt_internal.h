/*
 * apiserver/encrypt_internal.h: the parts of encryption at rest: encrypt_config.c (the file, its rules, reload), encrypt.c (values in
 * and out, local keys), kms.c (keys of a plugin).
 */
#ifndef SKIFF_APISERVER_ENCRYPT_INTERNAL_H
#define SKIFF_APISERVER_ENCRYPT_INTERNAL_H

#include "apiserver/encrypt.h"
#include "apiserver/kms.h"
#include "apiserver/metrics.h"

enum provider_kind { IDENTITY, AESCBC, AESGCM, SECRETBOX, KMS };

struct provider {
	enum provider_kind kind;
	struct str prefix;        /* "k8s:enc:aescbc:v1:key1:"; empty: identity */
	struct str shown;         /* the same without the key, for metrics */
	struct str seal;          /* of a local key: the prefix and the key's digest, as two readings of the file may call two keys the same */
	unsigned char key[32];
	int bits;
	struct kms *kms;
};
struct encryption_rule { /* providers of group's resource, "*" is any; in the file's order, the first one seals */
	struct str group, resource;
	LIST(struct provider *) providers;
};
struct encryption_set { /* one reading of the file */
	struct arena arena;
	unsigned refs;
	LIST(struct encryption_rule) rules;
	LIST(struct kms *) kms;
	int64_t timeouts_ms;      /* of all plugins together */
	char hash[METRICS_HASH];  /* of the file */
};
/* Reads text and asks its plugins once; `reload`: the file is followed. One reference. Suspends. */
struct error *encryption_set_new(struct apiserver *s, struct str text, bool reload, struct encryption_set **out);
void encryption_set_unref(struct encryption_set *set);
/* The rule of a resource: its own, its group's, or everybody's; NULL. */
const struct encryption_rule *encryption_set_rule(const struct encryption_set *set, struct str group, struct str plural);
/* What holds from now on. Takes the reference, stops asking the plugins of the one before. */
void encryption_set_use(struct encryption_set *set);

#endif
