/*
 * apiserver/admission.h: the admission chain: plugins that may change (admit)
 * and then judge (validate) each write and connect. In order of the table in
 * admission.c, which is upstream's recommended order.
 */
#ifndef SKIFF_APISERVER_ADMISSION_H
#define SKIFF_APISERVER_ADMISSION_H

#include "base/arena.h"
#include "base/error.h"
#include "schema/schema.h"

struct apiserver;
struct meta_v1_object_meta;
struct request;
struct resource;

enum admission_op { ADMIT_CREATE = 1, ADMIT_UPDATE = 2, ADMIT_DELETE = 4, ADMIT_CONNECT = 8 };

struct admission {
	struct request *rq;              /* user, arena, server, dry_run */
	const struct resource *res;
	struct str group, version, resource, kind; /* of the request */
	struct str subresource, ns, name;
	enum admission_op op;
	const struct schema_type *type;  /* of obj and old; for subresources such as binding or eviction, of their body */
	void *obj;                       /* create, update; the options for connect; NULL for delete */
	const void *old;                 /* update, delete */
	const struct meta_v1_delete_options *delete_options;
	bool dry_run;
	bool reinvocation;               /* admit runs a second time, because a policy or webhook has changed the object */
	bool should_reinvoke;            /* set by those: run once more */
	bool reread;                     /* obj has been read again from what a patch made of its JSON: times have whole seconds */
	struct reinvocable *policies, *webhooks; /* what they remember between the two runs */
};

/* ---- reinvocation (upstream's reinvocationContext): of one plugin, in the request's arena ---- */
struct reinvocable {
	const void *output;              /* the object as the plugin left it, a copy */
	LIST(struct str) before, again;  /* keys that ran and may run again; keys that must */
};
/* At the start of the plugin's run: in a second one, what changed the object since makes all that ran before run again. */
struct reinvocable *reinvocation_begin(struct admission *a, struct reinvocable **r);
void reinvocation_end(struct admission *a, struct reinvocable *r);
/* In a second run only what must runs. */
bool reinvocation_skips(const struct admission *a, const struct reinvocable *r, struct str key);
/* The object has changed: those that ran before run again. */
void reinvocation_changed(struct admission *a, struct reinvocable *r);
void reinvocation_ran(struct admission *a, struct reinvocable *r, struct str key);

/* The object's struct when it is this built-in kind of the core (etc.) storage version and no subresource unless asked; else NULL. */
static inline bool admission_is(const struct admission *a, const char *group, const char *resource, const char *subresource)
{
	return str_eqz(a->group, group) && str_eqz(a->resource, resource) && str_eqz(a->subresource, subresource);
}

struct admission_plugin {
	const char *name;                /* upstream's, for --enable/--disable-admission-plugins */
	unsigned ops;                    /* enum admission_op bits */
	bool off_by_default;
	/* NULL, or: at the start, when the plugin is on; text: YAML or JSON of its configuration, or empty. */
	struct error *(*configure)(struct apiserver *s, struct str text);
	struct error *(*admit)(struct admission *a);
	struct error *(*validate)(struct admission *a);
};
/* Enables the default set plus/minus the flags' names; an unknown name, or one in both lists, is an error. */
struct error *admission_init(struct apiserver *s);
struct error *admission_admit(struct admission *a);
/* The same for an object with metadata; puts right what patches make of its managers and owners, with warnings. */
struct error *admission_admit_object(struct admission *a);
/* Takes out owners that stand there twice, with a warning; admitted: after admission. */
void admission_dedup_owners(struct request *rq, struct meta_v1_object_meta *m, bool admitted);
struct error *admission_validate(struct admission *a);

/*
 * For bodies that are posted but not stored as they are: reviews, evictions, bindings, token requests. Both halves; obj gets
 * kind and apiVersion.
 */
struct error *admission_of_body(struct request *rq, const struct schema_type *t, struct str name, void *obj);
/*
 * The first half alone, where more is checked before admission_validate(a). a is filled in; old: what there was, of an
 * update (scales), else NULL.
 */
struct error *admission_admit_body(struct admission *a, struct request *rq, const struct schema_type *t,
				   struct str name, void *obj, const void *old);

/* `RES "name" is forbidden: <why>` as upstream's admission.NewForbidden. */
struct error *admission_forbidden(const struct admission *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Plugins: the table in admission.c lists them; each file of plugins declares its own here. */
extern const struct admission_plugin admit_namespace_lifecycle, admit_service_account, admit_priority, admit_default_tolerations,
	admit_taint_nodes, admit_pod_topology_labels; /* admit_core.c */
extern const struct admission_plugin admit_node_restriction; /* admit_node.c */
/* Zone and region of a node into labels of a pod or Binding. */
struct str_map;
void topology_labels(struct request *rq, struct str node_name, struct str_map *labels);
extern const struct admission_plugin admit_limit_ranger; /* admit_limits.c */
extern const struct admission_plugin admit_pod_resize, admit_declared_features; /* admit_resize.c */
extern const struct admission_plugin admit_resource_quota; /* admit_quota.c */
extern const struct admission_plugin admit_pod_security; /* admit_podsecurity.c */
extern const struct admission_plugin admit_certificate_approval, admit_certificate_signing, admit_certificate_subject; /* admit_certificates.c */
extern const struct admission_plugin admit_always, admit_never, admit_namespace_exists, admit_namespace_provision, admit_hard_anti_affinity,
	admit_always_pull, admit_node_selector, admit_extended_tolerations, admit_no_external_ips, admit_owner_references; /* admit_optional.c */
extern const struct admission_plugin admit_images; /* admit_images.c */
extern const struct admission_plugin admit_default_storage_class, admit_default_ingress_class, admit_storage_in_use, admit_pvc_resize,
	admit_runtime_class; /* admit_storage.c */
extern const struct admission_plugin admit_mutating_webhook, admit_validating_webhook; /* webhook.c */
extern const struct admission_plugin admit_validating_policy; /* policy_validate.c */
extern const struct admission_plugin admit_mutating_policy; /* policy_mutate.c */

#endif
