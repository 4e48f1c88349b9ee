/* NodeRestriction: what a node may write of what its authorizer lets it reach. Upstream's plugin/pkg/admission/noderestriction. */
#include "apiserver/admit_match.h"
#include "apiserver/authz.h"
#include "apiserver/csr_pem.h"
#include "apiserver/server.h"

/* Caches of clients name a kind, not a resource. */
#define NOT_FOUND(kind, name) err_not_found(STR(""), STR(kind), (name))

static void *peek(struct admission *a, const char *group, const char *resource, struct str ns, struct str name)
{
	return registry_peek(a->rq->s, a->rq->a, storage_find(a->rq->s, str_from(group), str_from(resource)), ns, name);
}

static bool is_mirror(const struct core_v1_pod *pod)
{
	return str_map_has(API_MAP(&pod->metadata.annotations), STR("kubernetes.io/config.mirror"));
}

/* ---- pods ---- */

static const char *projected_object(const struct core_v1_projected_volume_source *p)
{
	for (uint32_t i = 0; i < p->sources.n; i++) {
		const struct core_v1_volume_projection *s = &p->sources.v[i];

		if (s->config_map)
			return "configmaps (via projected volumes)";
		if (s->secret)
			return "secrets (via projected volumes)";
		if (s->service_account_token)
			return "serviceaccounts (via projected volumes)";
		if (s->cluster_trust_bundle)
			return "clustertrustbundles";
		if (s->pod_certificate)
			return "podcertificates";
	}
	return NULL;
}

/* What objects of the API the pod needs; NULL: none. */
static const char *needed_object(const struct core_v1_pod *pod)
{
	if (pod->spec.service_account_name.n)
		return "serviceaccounts";
	if (pod_refers(pod, true, STR_NULL))
		return "secrets";
	if (pod_refers(pod, false, STR_NULL))
		return "configmaps";
	if (pod->spec.resource_claims.n)
		return "resourceclaims";
	for (uint32_t i = 0; i < pod->spec.volumes.n; i++) {
		const struct core_v1_volume_source *v = &pod->spec.volumes.v[i].volume_source;
		const char *p = v->projected ? projected_object(v->projected) : NULL;

		if (v->config_map)
			return "configmaps (via configmap volumes)";
		if (v->secret)
			return "secrets (via secret volumes)";
		if (v->csi)
			return "csidrivers (via CSI volumes)";
		if (v->glusterfs)
			return "endpoints (via glusterFS volumes)";
		if (v->persistent_volume_claim)
			return "persistentvolumeclaims";
		if (v->ephemeral)
			return "persistentvolumeclaims (via ephemeral volumes)";
		if (v->azure_file)
			return "secrets (via azureFile volumes)";
		if (p)
			return p;
	}
	return NULL;
}

static struct error *owned_by_node(struct admission *a, const struct core_v1_pod *pod, struct str self)
{
	const struct meta_v1_owner_reference *o = pod->metadata.owner_references.v;
	struct core_v1_node *node;

	if (pod->metadata.owner_references.n > 1)
		return admission_forbidden(a, "node \"%.*s\" can only create pods with a single owner reference set to itself", STR_ARG(self));
	if (!pod->metadata.owner_references.n || !str_eqz(o->api_version, "v1") || !str_eqz(o->kind, "Node") || !str_eq(o->name, self))
		return admission_forbidden(a, "node \"%.*s\" can only create pods with an owner reference set to itself", STR_ARG(self));
	if (!o->controller || !*o->controller)
		return admission_forbidden(a, "node \"%.*s\" can only create pods with a controller owner reference set to itself", STR_ARG(self));
	if (o->block_owner_deletion && *o->block_owner_deletion)
		return admission_forbidden(a, "node \"%.*s\" must not set blockOwnerDeletion on an owner reference", STR_ARG(self));
	node = peek(a, "", "nodes", STR_NULL, self);
	if (!node)
		return NOT_FOUND("node", self);
	if (!str_eq(o->uid, node->metadata.uid))
		return admission_forbidden(a, "node %.*s UID mismatch: expected %.*s got %.*s", STR_ARG(self), STR_ARG(o->uid),
					   STR_ARG(node->metadata.uid));
	return NULL;
}

static struct error *restrict_pod_create(struct admission *a, struct str self)
{
	const struct core_v1_pod *pod = a->obj;
	const char *needs;

	if (!is_mirror(pod))
		return admission_forbidden(a, "pod does not have \"kubernetes.io/config.mirror\" annotation, node \"%.*s\" can only create mirror pods",
					   STR_ARG(self));
	if (!str_eq(pod->spec.node_name, self))
		return admission_forbidden(a, "node \"%.*s\" can only create pods with spec.nodeName set to itself", STR_ARG(self));
	TRY(owned_by_node(a, pod, self));
	needs = needed_object(pod);
	return needs ? admission_forbidden(a, "node \"%.*s\" can not create pods that reference %s", STR_ARG(self), needs) : NULL;
}

static bool same_str(const struct str *x, const struct str *y)
{
	return x && y ? str_eq(*x, *y) : !x && !y;
}

static bool same_claims(const struct core_v1_pod_status *x, const struct core_v1_pod_status *y)
{
	if (x->resource_claim_statuses.n != y->resource_claim_statuses.n)
		return false;
	for (uint32_t i = 0; i < x->resource_claim_statuses.n; i++)
		if (!str_eq(x->resource_claim_statuses.v[i].name, y->resource_claim_statuses.v[i].name) ||
		    !same_str(x->resource_claim_statuses.v[i].resource_claim_name, y->resource_claim_statuses.v[i].resource_claim_name))
			return false;
	return true;
}

static struct error *restrict_pod_status(struct admission *a, struct str self)
{
	const struct core_v1_pod *pod = a->obj, *old = a->old;

	if (a->op != ADMIT_UPDATE)
		return admission_forbidden(a, "unexpected operation \"%s\"", admit_operation(a));
	if (!str_eq(old->spec.node_name, self))
		return admission_forbidden(a, "node \"%.*s\" can only update pod status for pods with spec.nodeName set to itself", STR_ARG(self));
	if (!object_field_equal(&meta_v1_object_meta_type, &pod->metadata, &old->metadata, "labels"))
		return admission_forbidden(a, "node \"%.*s\" cannot update labels through pod status", STR_ARG(self));
	if (!same_claims(&pod->status, &old->status))
		return admission_forbidden(a, "node \"%.*s\" cannot update resource claim statues", STR_ARG(self));
	if (!object_field_equal(&core_v1_pod_status_type, &pod->status, &old->status, "extendedResourceClaimStatus"))
		return admission_forbidden(a, "node \"%.*s\" cannot update extended resource claim status", STR_ARG(self));
	return NULL;
}

static struct error *restrict_eviction(struct admission *a, struct str self)
{
	struct core_v1_pod *pod;

	if (a->op != ADMIT_CREATE)
		return admission_forbidden(a, "unexpected operation %s", admit_operation(a));
	pod = peek(a, "", "pods", a->ns, a->name);
	if (!pod)
		return NOT_FOUND("pod", a->name);
	if (!str_eq(pod->spec.node_name, self))
		return admission_forbidden(a, "node %.*s can only evict pods with spec.nodeName set to itself", STR_ARG(self));
	return NULL;
}

static struct error *restrict_pod(struct admission *a, struct str self)
{
	const struct core_v1_pod *old = a->old;

	if (str_eqz(a->subresource, "status"))
		return restrict_pod_status(a, self);
	if (str_eqz(a->subresource, "eviction"))
		return restrict_eviction(a, self);
	if (a->subresource.n)
		return admission_forbidden(a, "unexpected pod subresource \"%.*s\", only 'status' and 'eviction' are allowed", STR_ARG(a->subresource));
	if (a->op == ADMIT_CREATE)
		return restrict_pod_create(a, self);
	if (a->op != ADMIT_DELETE)
		return admission_forbidden(a, "unexpected operation \"%s\", node \"%.*s\" can only create and delete mirror pods", admit_operation(a),
					   STR_ARG(self));
	if (!old || !str_eq(old->spec.node_name, self))
		return admission_forbidden(a, "node \"%.*s\" can only delete pods with spec.nodeName set to itself", STR_ARG(self));
	return NULL;
}

/* ---- nodes ---- */

static bool in_domain(struct str domain, const char *of)
{
	size_t n = strlen(of);

	return str_eqz(domain, of) || (domain.n > n && domain.p[domain.n - n - 1] == '.' && str_has_suffix(domain, str_from(of)));
}

static bool node_may_label(struct str key)
{
	static const char *const allowed[] = {
		"kubernetes.io/hostname", "topology.kubernetes.io/zone", "topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/zone",
		"failure-domain.beta.kubernetes.io/region", "beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type",
		"kubernetes.io/os", "kubernetes.io/arch", "beta.kubernetes.io/os", "beta.kubernetes.io/arch",
	};
	ptrdiff_t slash = str_index(key, '/');
	struct str domain = slash < 0 ? STR_NULL : str_sub(key, 0, (size_t)slash);

	if (in_domain(domain, "node-restriction.kubernetes.io"))
		return false;
	if (!in_domain(domain, "kubernetes.io") && !in_domain(domain, "k8s.io"))
		return true;
	for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++)
		if (str_eqz(key, allowed[i]))
			return true;
	return in_domain(domain, "kubelet.kubernetes.io") || in_domain(domain, "node.kubernetes.io");
}

static int key_cmp(const void *x, const void *y)
{
	return str_cmp(*(const struct str *)x, *(const struct str *)y);
}

static void changed_labels(const struct str_map *now, const struct str_map *was, bool equal_too, struct str *out, uint32_t *n)
{
	for (uint32_t i = 0; i < now->n; i++) {
		struct str v = was && str_map_has(was, now->v[i].key) ? str_map_get(was, now->v[i].key) : STR_NULL;
		bool has = was && str_map_has(was, now->v[i].key);

		if (!(has && (equal_too || str_eq(v, now->v[i].value))) && !node_may_label(now->v[i].key))
			out[(*n)++] = now->v[i].key;
	}
}

/* Keys, in order, that were added, changed or taken away and are not a node's to set. */
static struct str forbidden_labels(struct arena *a, const struct str_map *now, const struct str_map *was)
{
	struct str *v = arena_array(a, struct str, now->n + (was ? was->n : 0) + 1);
	struct buf b buf_cleanup = {0};
	uint32_t n = 0;

	changed_labels(now, was, false, v, &n);
	if (was)
		changed_labels(was, now, true, v, &n);
	qsort(v, n, sizeof *v, key_cmp);
	for (uint32_t i = 0; i < n; i++)
		buf_printf(&b, "%s%.*s", i ? ", " : "", STR_ARG(v[i]));
	return arena_str(a, buf_view(&b));
}

static struct error *restrict_node(struct admission *a, struct str self)
{
	const struct core_v1_node *node = a->obj, *old = a->old;
	struct str name = a->name.n || !node ? a->name : node->metadata.name, labels;

	if (!str_eq(name, self))
		return admission_forbidden(a, "node \"%.*s\" is not allowed to modify node \"%.*s\"", STR_ARG(self), STR_ARG(name));
	if (a->op == ADMIT_CREATE) {
		if (node->spec.config_source)
			return admission_forbidden(a, "node \"%.*s\" is not allowed to create pods with a non-nil configSource", STR_ARG(self));
		labels = forbidden_labels(a->rq->a, API_MAP(&node->metadata.labels), NULL);
		if (labels.n)
			return admission_forbidden(a, "node \"%.*s\" is not allowed to set the following labels: %.*s", STR_ARG(self), STR_ARG(labels));
	}
	if (a->op != ADMIT_UPDATE)
		return NULL;
	if (node->spec.config_source && !object_field_equal(&core_v1_node_spec_type, &node->spec, &old->spec, "configSource"))
		return admission_forbidden(a, "node \"%.*s\" is not allowed to update configSource to a new non-nil configSource", STR_ARG(self));
	if (!object_field_equal(&core_v1_node_spec_type, &node->spec, &old->spec, "taints"))
		return admission_forbidden(a, "node \"%.*s\" is not allowed to modify taints", STR_ARG(self));
	if (!object_field_equal(&meta_v1_object_meta_type, &node->metadata, &old->metadata, "ownerReferences"))
		return admission_forbidden(a, "node \"%.*s\" is not allowed to modify ownerReferences", STR_ARG(self));
	labels = forbidden_labels(a->rq->a, API_MAP(&node->metadata.labels), API_MAP(&old->metadata.labels));
	if (labels.n)
		return admission_forbidden(a, "is not allowed to modify labels: %.*s", STR_ARG(labels));
	return NULL;
}

/* ---- claims ---- */

static struct error *restrict_claim(struct admission *a, struct str self)
{
	struct core_v1_persistent_volume_claim now, was;

	if (!str_eqz(a->subresource, "status"))
		return admission_forbidden(a, "may only update PVC status");
	if (a->op != ADMIT_UPDATE)
		return admission_forbidden(a, "unexpected operation \"%s\"", admit_operation(a));
	/* all but these stays as it is */
	now = *(const struct core_v1_persistent_volume_claim *)a->obj;
	was = *(const struct core_v1_persistent_volume_claim *)a->old;
	now.metadata.resource_version = was.metadata.resource_version = STR_NULL;
	memset(&now.metadata.managed_fields, 0, sizeof now.metadata.managed_fields);
	memset(&was.metadata.managed_fields, 0, sizeof was.metadata.managed_fields);
	memset(&now.status.capacity, 0, sizeof now.status.capacity);
	memset(&was.status.capacity, 0, sizeof was.status.capacity);
	memset(&now.status.conditions, 0, sizeof now.status.conditions);
	memset(&was.status.conditions, 0, sizeof was.status.conditions);
	memset(&now.status.allocated_resources, 0, sizeof now.status.allocated_resources);
	memset(&was.status.allocated_resources, 0, sizeof was.status.allocated_resources);
	memset(&now.status.allocated_resource_statuses, 0, sizeof now.status.allocated_resource_statuses);
	memset(&was.status.allocated_resource_statuses, 0, sizeof was.status.allocated_resource_statuses);
	now.kind = was.kind = now.api_version = was.api_version = STR_NULL;
	if (!object_equal(&core_v1_persistent_volume_claim_type, &now, &was))
		return admission_forbidden(a, "node \"%.*s\" is not allowed to update fields other than status.quantity and status.conditions",
					   STR_ARG(self));
	return NULL;
}

/* ---- tokens of service accounts ---- */

static bool driver_has(struct admission *a, struct str driver, struct str audience, struct str *why)
{
	struct storage_v1_csi_driver *d = peek(a, "storage.k8s.io", "csidrivers", STR_NULL, driver);

	if (!d) {
		*why = arena_printf(a->rq->a, "csidriver.storage.k8s.io \"%.*s\" not found", STR_ARG(driver));
		return false;
	}
	for (uint32_t i = 0; i < d->spec.token_requests.n; i++)
		if (str_eq(d->spec.token_requests.v[i].audience, audience))
			return true;
	return false;
}

/* The CSI driver that a volume of a former in-tree kind is migrated to, of a pod's volume as of a persistent one. */
#define MIGRATED(a, v, why)                                                                                                             \
	((v)->aws_elastic_block_store ? STR("ebs.csi.aws.com") :                                                                       \
	 (v)->gce_persistent_disk     ? STR("pd.csi.storage.gke.io") :                                                                 \
	 (v)->cinder		      ? STR("cinder.csi.openstack.org") :                                                              \
	 (v)->azure_disk	      ? azure_disk_driver(a, (v)->azure_disk, why) :                                                   \
	 (v)->azure_file	      ? STR("file.csi.azure.com") :                                                                    \
	 (v)->vsphere_volume	      ? STR("csi.vsphere.vmware.com") :                                                                \
	 (v)->portworx_volume	      ? STR("pxd.portworx.com") :                                                                      \
					STR_NULL)

static struct str azure_disk_driver(struct admission *a, const struct core_v1_azure_disk_volume_source *d, struct str *why)
{
	if (!d->kind || str_eqz(*d->kind, "Managed"))
		return STR("disk.csi.azure.com");
	*why = arena_printf(a->rq->a, "kind(%.*s) is not supported in csi migration", STR_ARG(*d->kind));
	return STR_NULL;
}

static struct str driver_of_claim(struct admission *a, struct str claim, struct str *why)
{
	struct core_v1_persistent_volume_claim *c = peek(a, "", "persistentvolumeclaims", a->ns, claim);
	struct core_v1_persistent_volume *v = c ? peek(a, "", "persistentvolumes", STR_NULL, c->spec.volume_name) : NULL;

	if (!c)
		*why = arena_printf(a->rq->a, "persistentvolumeclaim \"%.*s\" not found", STR_ARG(claim));
	else if (!v)
		*why = arena_printf(a->rq->a, "persistentvolume \"%.*s\" not found", STR_ARG(c->spec.volume_name));
	if (!v)
		return STR_NULL;
	return v->spec.persistent_volume_source.csi ? v->spec.persistent_volume_source.csi->driver :
						      MIGRATED(a, &v->spec.persistent_volume_source, why);
}

/* A volume of the pod asks for tokens of this audience, itself or by its CSI driver. */
static bool pod_has_audience(struct admission *a, const struct core_v1_pod *pod, struct str audience, struct str *why)
{
	for (uint32_t i = 0; i < pod->spec.volumes.n; i++) {
		const struct core_v1_volume *v = &pod->spec.volumes.v[i];
		const struct core_v1_volume_source *s = &v->volume_source;
		struct str driver = STR_NULL;

		for (uint32_t k = 0; s->projected && k < s->projected->sources.n; k++) {
			const struct core_v1_service_account_token_projection *t = s->projected->sources.v[k].service_account_token;

			if (t && str_eq(t->audience, audience))
				return true;
		}
		if (s->ephemeral && s->ephemeral->volume_claim_template)
			driver = driver_of_claim(a, arena_printf(a->rq->a, "%.*s-%.*s", STR_ARG(pod->metadata.name), STR_ARG(v->name)), why);
		else if (s->persistent_volume_claim)
			driver = driver_of_claim(a, s->persistent_volume_claim->claim_name, why);
		else if (s->csi)
			driver = s->csi->driver;
		else
			driver = MIGRATED(a, s, why);
		if (driver.n && driver_has(a, driver, audience, why))
			return true;
	}
	return false;
}

static struct error *restrict_audience(struct admission *a, const struct authentication_v1_token_request *tr, const struct core_v1_pod *pod)
{
	struct str audience = tr->spec.audiences.n ? tr->spec.audiences.v[0] : STR(""), why = STR_NULL;
	struct authz_attrs at = {.user = a->rq->user, .verb = STR("request-serviceaccounts-token-audience"), .ns = a->ns, .group = STR(""),
				 .version = STR("v1"), .resource = audience, .name = a->name, .resource_request = true};

	if (tr->spec.audiences.n > 1)
		return admission_forbidden(a, "node may only request 0 or 1 audiences");
	if (pod_has_audience(a, pod, audience, &why))
		return NULL;
	if (why.p)
		return admission_forbidden(a, "error validating audience \"%.*s\": %.*s", STR_ARG(audience), STR_ARG(why));
	if (authorize(a->rq->s, a->rq->a, &at, NULL) == AUTHZ_ALLOW)
		return NULL;
	return admission_forbidden(a, "audience \"%.*s\" not found in pod spec volume, %.*s is not authorized to request tokens for this audience",
				   STR_ARG(audience), STR_ARG(a->rq->user->name));
}

static struct error *restrict_account(struct admission *a, struct str self)
{
	const struct authentication_v1_token_request *tr = a->obj;
	const struct authentication_v1_bound_object_reference *ref;
	struct core_v1_pod *pod;

	if (a->op != ADMIT_CREATE || !str_eqz(a->subresource, "token"))
		return NULL;
	ref = tr->spec.bound_object_ref;
	if (!ref || !str_eqz(ref->api_version, "v1") || !str_eqz(ref->kind, "Pod") || !ref->name.n)
		return admission_forbidden(a, "node requested token not bound to a pod");
	if (!ref->uid.n)
		return admission_forbidden(a, "node requested token with a pod binding without a uid");
	pod = peek(a, "", "pods", a->ns, ref->name);
	if (!pod)
		return NOT_FOUND("pod", ref->name);
	if (!str_eq(ref->uid, pod->metadata.uid))
		return admission_forbidden(a, "the UID in the bound object reference (%.*s) does not match the UID in record. The object might have "
					   "been deleted and then recreated", STR_ARG(ref->uid));
	if (!str_eq(pod->spec.node_name, self))
		return admission_forbidden(a, "node requested token bound to a pod scheduled on a different node");
	return restrict_audience(a, tr, pod);
}

/* ---- what bears the node's name ---- */

static struct str object_name(const struct admission *a)
{
	return a->op == ADMIT_CREATE ? object_meta(a->type, a->obj)->name : a->name;
}

static struct error *restrict_lease(struct admission *a, struct str self)
{
	if (!str_eqz(a->ns, "kube-node-lease"))
		return admission_forbidden(a, "can only access leases in the \"kube-node-lease\" system namespace");
	if (!str_eq(object_name(a), self))
		return admission_forbidden(a, "can only access node lease with the same name as the requesting node");
	return NULL;
}

static struct error *restrict_csinode(struct admission *a, struct str self)
{
	return str_eq(object_name(a), self) ? NULL : admission_forbidden(a, "can only access CSINode with the same name as the requesting node");
}

static struct error *restrict_slice(struct admission *a, struct str self)
{
	const struct resource_v1_resource_slice *s = a->op == ADMIT_CREATE ? a->obj : a->old;

	if (a->op != ADMIT_CREATE && a->op != ADMIT_DELETE)
		return NULL;
	if (!s || !s->spec.node_name || !str_eq(*s->spec.node_name, self))
		return admission_forbidden(a, "can only %s ResourceSlice with the same NodeName as the requesting node",
					   a->op == ADMIT_CREATE ? "create" : "delete");
	return NULL;
}

static struct error *restrict_csr(struct admission *a, struct str self)
{
	const struct certificates_v1_certificate_signing_request *c = a->obj;
	const char *problem;
	X509_REQ *req;
	struct str name;

	if (a->op != ADMIT_CREATE || a->subresource.n)
		return NULL;
	if (!str_eqz(c->spec.signer_name, "kubernetes.io/kubelet-serving") && !str_eqz(c->spec.signer_name, "kubernetes.io/kube-apiserver-client-kubelet"))
		return NULL;
	req = csr_pem_read(c->spec.request, &problem);
	if (!req)
		return admission_forbidden(a, "unable to parse csr: %s", problem);
	name = csr_common_name(a->rq->a, req);
	X509_REQ_free(req);
	if (!str_eq(name, arena_printf(a->rq->a, "system:node:%.*s", STR_ARG(self))))
		return admission_forbidden(a, "can only create a node CSR with CN=system:node:%.*s", STR_ARG(self));
	return NULL;
}

static struct error *restriction(struct admission *a)
{
	static const struct {
		const char *group, *resource;
		struct error *(*check)(struct admission *a, struct str self);
	} checks[] = {
		{"", "pods", restrict_pod},
		{"", "nodes", restrict_node},
		{"", "persistentvolumeclaims", restrict_claim},
		{"", "serviceaccounts", restrict_account},
		{"coordination.k8s.io", "leases", restrict_lease},
		{"storage.k8s.io", "csinodes", restrict_csinode},
		{"resource.k8s.io", "resourceslices", restrict_slice},
		{"certificates.k8s.io", "certificatesigningrequests", restrict_csr},
	};
	struct str self;

	if (!user_is_node(a->rq->user, &self))
		return NULL;
	if (!self.n)
		return admission_forbidden(a, "could not determine node from user \"%.*s\"", STR_ARG(a->rq->user->name));
	for (size_t i = 0; i < sizeof checks / sizeof *checks; i++)
		if (str_eqz(a->group, checks[i].group) && str_eqz(a->resource, checks[i].resource))
			return checks[i].check(a, self);
	return NULL;
}

const struct admission_plugin admit_node_restriction = {
	.name = "NodeRestriction", .ops = ADMIT_CREATE | ADMIT_UPDATE | ADMIT_DELETE, .admit = restriction,
};
