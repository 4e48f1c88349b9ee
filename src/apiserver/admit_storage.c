/* Small plugins of storage, networking and node classes. */
#include "apiserver/admission.h"
#include "apiserver/server.h"
#include "schema/quantity.h"
#include "schema/storage.h"

/* Domains of the annotations; StorageClasses may still have that of the beta. */
#define STORAGE_DEFAULT "storageclass.kubernetes.io/is-default-class"
#define STORAGE_DEFAULT_BETA "storageclass.beta.kubernetes.io/is-default-class"
#define INGRESS_DEFAULT "ingressclass.kubernetes.io/is-default-class"

static bool is_default(struct meta_v1_object_meta *m, const char *annotation)
{
	return str_eqz(str_map_get(API_MAP(&m->annotations), str_from(annotation)), "true");
}

/* The newest object of a storage that carries annotation=true, or NULL; older: another name for it. */
static struct str default_of(struct request *rq, struct storage *st, const char *annotation, const char *older)
{
	struct cache_snap *snap;
	struct cache_iter it;
	const struct cache_entry *en;
	struct str best = STR_NULL;
	int64_t when = INT64_MIN;
	struct error *e = cache_snapshot(st->cache, CACHE_ANY, 0, &snap);

	if (e) {
		log_and_free(e, "default classes");
		return best;
	}
	cache_iter_init(&it, st->cache, snap, STR_NULL, STR_NULL, NULL);
	while ((en = cache_iter_next(&it)) != NULL) {
		struct meta_v1_partial_object_metadata *p;

		if (!str_contains(block_str(en->body), STR("/is-default-class")))
			continue;
		p = arena_new(rq->a, struct meta_v1_partial_object_metadata);
		e = cache_entry_decode(rq->a, &meta_v1_partial_object_metadata_type, en, true, p);
		if (e) {
			log_and_free(e, "default classes");
			continue;
		}
		if ((is_default(&p->metadata, annotation) || (older && is_default(&p->metadata, older))) &&
		    p->metadata.creation_timestamp.s > when) {
			when = p->metadata.creation_timestamp.s;
			best = p->metadata.name;
		}
	}
	cache_snap_free(snap);
	return best;
}

static struct error *default_storage(struct admission *a)
{
	struct core_v1_persistent_volume_claim *c = a->obj;
	struct str name;

	if (!admission_is(a, "", "persistentvolumeclaims", "") || a->op != ADMIT_CREATE || claim_has_class(c))
		return NULL;
	name = default_of(a->rq, storage_find(a->rq->s, STR("storage.k8s.io"), STR("storageclasses")), STORAGE_DEFAULT, STORAGE_DEFAULT_BETA);
	if (name.n) {
		c->spec.storage_class_name = arena_new(a->rq->a, struct str);
		*c->spec.storage_class_name = name;
	}
	return NULL;
}
const struct admission_plugin admit_default_storage_class = {.name = "DefaultStorageClass", .ops = ADMIT_CREATE, .admit = default_storage};

static struct error *default_ingress(struct admission *a)
{
	struct networking_v1_ingress *in = a->obj;
	struct str name;

	if (!admission_is(a, "networking.k8s.io", "ingresses", "") || a->op != ADMIT_CREATE || in->spec.ingress_class_name ||
	    str_map_has(API_MAP(&in->metadata.annotations), STR("kubernetes.io/ingress.class")))
		return NULL;
	name = default_of(a->rq, storage_find(a->rq->s, STR("networking.k8s.io"), STR("ingressclasses")), INGRESS_DEFAULT, NULL);
	if (name.n) {
		in->spec.ingress_class_name = arena_new(a->rq->a, struct str);
		*in->spec.ingress_class_name = name;
	}
	return NULL;
}
const struct admission_plugin admit_default_ingress_class = {.name = "DefaultIngressClass", .ops = ADMIT_CREATE, .admit = default_ingress};

static void protect(struct admission *a, struct meta_v1_object_meta *m, const char *finalizer)
{
	for (uint32_t i = 0; i < m->finalizers.n; i++)
		if (str_eqz(m->finalizers.v[i], finalizer))
			return;
	*arena_push(a->rq->a, &m->finalizers) = str_from(finalizer);
}

static struct error *in_use(struct admission *a)
{
	if (a->op != ADMIT_CREATE)
		return NULL;
	if (admission_is(a, "", "persistentvolumeclaims", ""))
		protect(a, object_meta(a->type, a->obj), "kubernetes.io/pvc-protection");
	else if (admission_is(a, "", "persistentvolumes", ""))
		protect(a, object_meta(a->type, a->obj), "kubernetes.io/pv-protection");
	else if (admission_is(a, "storage.k8s.io", "volumeattributesclasses", ""))
		protect(a, object_meta(a->type, a->obj), "kubernetes.io/vac-protection");
	return NULL;
}
const struct admission_plugin admit_storage_in_use = {
	.name = "StorageObjectInUseProtection", .ops = ADMIT_CREATE, .admit = in_use,
};

static struct error *claim_resize(struct admission *a)
{
	const struct core_v1_persistent_volume_claim *c = a->obj, *o = a->old;
	struct str now, was, class;
	struct storage_v1_storage_class *sc;

	if (!admission_is(a, "", "persistentvolumeclaims", "") || a->op != ADMIT_UPDATE)
		return NULL;
	now = str_map_get(API_MAP(&c->spec.resources.requests), STR("storage"));
	was = str_map_get(API_MAP(&o->spec.resources.requests), STR("storage"));
	if (quantity_cmp(now, was) <= 0 || !str_eqz(o->status.phase, "Bound"))
		return NULL;
	class = claim_class(c);
	sc = class.n && str_eq(class, claim_class(o)) ?
	     registry_peek(a->rq->s, a->rq->a, storage_find(a->rq->s, STR("storage.k8s.io"), STR("storageclasses")), STR_NULL, class) : NULL;
	if (sc && sc->allow_volume_expansion && *sc->allow_volume_expansion)
		return NULL;
	return admission_forbidden(a, "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize");
}
const struct admission_plugin admit_pvc_resize = {.name = "PersistentVolumeClaimResize", .ops = ADMIT_UPDATE, .validate = claim_resize};

/* x tolerates all that t does. */
static bool tolerates_more(const struct core_v1_toleration *x, const struct core_v1_toleration *t)
{
	if (object_equal(&core_v1_toleration_type, x, t))
		return true;
	if (!str_eq(t->key, x->key) && (x->key.n || !str_eqz(x->operator, "Exists")))
		return false;
	if (!str_eq(t->effect, x->effect) && x->effect.n)
		return false;
	if (str_eqz(x->effect, "NoExecute") && x->toleration_seconds &&
	    (!t->toleration_seconds || *t->toleration_seconds > *x->toleration_seconds))
		return false;
	if (!x->operator.n || str_eqz(x->operator, "Equal"))
		return str_eqz(t->operator, "Equal") && str_eq(t->value, x->value);
	return str_eqz(x->operator, "Exists");
}

/* Without those that others make needless; of equal ones the first stays. */
static void distinct_tolerations(struct core_v1_pod *p)
{
	struct core_v1_toleration *v = p->spec.tolerations.v;
	uint32_t n = 0;

	for (uint32_t i = 0; i < p->spec.tolerations.n; i++) {
		bool needless = false;

		for (uint32_t k = 0; k < n && !needless; k++)
			needless = tolerates_more(&v[k], &v[i]);
		for (uint32_t k = i + 1; k < p->spec.tolerations.n && !needless; k++)
			needless = !object_equal(&core_v1_toleration_type, &v[k], &v[i]) && tolerates_more(&v[k], &v[i]);
		if (!needless)
			v[n++] = v[i];
	}
	p->spec.tolerations.n = n;
}

static struct error *runtime_class(struct admission *a)
{
	struct core_v1_pod *p = a->obj;
	struct node_v1_runtime_class *rc;

	if (!admission_is(a, "", "pods", "") || a->op != ADMIT_CREATE)
		return NULL;
	if (p->spec.runtime_class_name && (!p->spec.runtime_class_name->n || validate_path_segment(a->rq->a, *p->spec.runtime_class_name)))
		/* upstream asks for what its cache does not have, and its client makes no request of that */
		return error_status(500, "", "invalid resource name \"%.*s\"", STR_ARG(*p->spec.runtime_class_name));
	if (!p->spec.runtime_class_name)
		return NULL;
	rc = registry_peek(a->rq->s, a->rq->a, storage_find(a->rq->s, STR("node.k8s.io"), STR("runtimeclasses")), STR_NULL,
			   *p->spec.runtime_class_name);
	if (!rc)
		return admission_forbidden(a, "pod rejected: RuntimeClass \"%.*s\" not found", STR_ARG(*p->spec.runtime_class_name));
	if (rc->overhead) {
		struct core_v1_pod_spec want = {0};

		memcpy(&want.overhead, &rc->overhead->pod_fixed, sizeof want.overhead);
		if (p->spec.overhead.n && !object_field_equal(&core_v1_pod_spec_type, &p->spec, &want, "overhead"))
			return admission_forbidden(a, "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead");
		memcpy(&p->spec.overhead, &want.overhead, sizeof p->spec.overhead);
	}
	if (rc->scheduling) {
		for (uint32_t i = 0; i < rc->scheduling->node_selector.n; i++) {
			struct str k = rc->scheduling->node_selector.v[i].key, v = rc->scheduling->node_selector.v[i].value;

			if (str_map_has(API_MAP(&p->spec.node_selector), k) && !str_eq(str_map_get(API_MAP(&p->spec.node_selector), k), v))
				return admission_forbidden(a, "conflict: runtimeClass.scheduling.nodeSelector[%.*s] = %.*s; pod.spec.nodeSelector[%.*s] = "
							   "%.*s", STR_ARG(k), STR_ARG(v), STR_ARG(k),
							   STR_ARG(str_map_get(API_MAP(&p->spec.node_selector), k)));
			str_map_set(a->rq->a, API_MAP(&p->spec.node_selector), k, v);
		}
		for (uint32_t i = 0; i < rc->scheduling->tolerations.n; i++)
			*arena_push(a->rq->a, &p->spec.tolerations) = rc->scheduling->tolerations.v[i];
		distinct_tolerations(p);
	}
	return NULL;
}

/* After the pod's own rules: an overhead is the class's, or there is none. */
static struct error *runtime_overhead(struct admission *a)
{
	const struct core_v1_pod *p = a->obj;
	const struct node_v1_runtime_class *rc = NULL;

	if (!admission_is(a, "", "pods", "") || a->op != ADMIT_CREATE || (!p->spec.overhead.n && !p->spec.overhead.v))
		return NULL;
	if (p->spec.runtime_class_name && p->spec.runtime_class_name->n)
		rc = registry_peek(a->rq->s, a->rq->a, storage_find(a->rq->s, STR("node.k8s.io"), STR("runtimeclasses")), STR_NULL,
				   *p->spec.runtime_class_name);
	if (!rc || !rc->overhead)
		return admission_forbidden(a, "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead");
	return NULL;
}
const struct admission_plugin admit_runtime_class = {
	.name = "RuntimeClass", .ops = ADMIT_CREATE, .admit = runtime_class, .validate = runtime_overhead,
};
