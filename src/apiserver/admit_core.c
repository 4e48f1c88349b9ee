/* Admission that every cluster has: namespaces, service accounts, priorities, tolerations, what nodes may do. */
#include "apiserver/admission.h"
#include "apiserver/authz.h"
#include "apiserver/server.h"

/* ---- NamespaceLifecycle ---- */

static struct error *namespace_admit(struct admission *a)
{
	struct apiserver *s = a->rq->s;
	struct core_v1_namespace *ns;
	struct error *e;

	if (a->op == ADMIT_DELETE && str_eqz(a->resource, "namespaces") && !a->group.n) {
		if (str_eqz(a->name, "default") || str_eqz(a->name, "kube-system") || str_eqz(a->name, "kube-public"))
			return admission_forbidden(a, "this namespace may not be deleted");
		return NULL;
	}
	if (!a->ns.n || a->op == ADMIT_DELETE || (str_eqz(a->resource, "namespaces") && !a->group.n))
		return NULL;
	if (str_eqz(a->group, "authorization.k8s.io"))
		return NULL;
	if (a->op == ADMIT_UPDATE)
		return NULL;
	ns = registry_peek(s, a->rq->a, storage_find(s, STR(""), STR("namespaces")), STR_NULL, a->ns);
	if (!ns)
		return err_not_found(STR(""), STR("namespaces"), a->ns);
	if (!str_eqz(ns->status.phase, "Terminating"))
		return NULL;
	e = admission_forbidden(a, "unable to create new content in namespace %.*s because it is being terminated", STR_ARG(a->ns));
	error_add_cause(e, "NamespaceTerminating", "metadata.namespace", "namespace %.*s is being terminated", STR_ARG(a->ns));
	return e;
}

const struct admission_plugin admit_namespace_lifecycle = {
	.name = "NamespaceLifecycle", .ops = ADMIT_CREATE | ADMIT_UPDATE | ADMIT_DELETE, .admit = namespace_admit,
};

/* ---- ServiceAccount ---- */

#define DEFAULT_ACCOUNT_WAIT_MS 1500 /* upstream: nine pauses of 100 to 200 ms */
#define DEFAULT_ACCOUNT_LOOK_MS 25
#define TOKEN_PATH "/var/run/secrets/kubernetes.io/serviceaccount"

static bool is_mirror(const struct core_v1_pod *pod)
{
	return str_map_has(API_MAP(&pod->metadata.annotations), STR("kubernetes.io/config.mirror"));
}

static int32_t *int32_of(struct arena *a, int32_t v)
{
	int32_t *p = arena_new(a, int32_t);

	*p = v;
	return p;
}

static int64_t *int64_of(struct arena *a, int64_t v)
{
	int64_t *p = arena_new(a, int64_t);

	*p = v;
	return p;
}

static void token_volume(struct arena *a, struct core_v1_pod *pod, struct str name)
{
	struct core_v1_volume *v = arena_push(a, &pod->spec.volumes);
	struct core_v1_projected_volume_source *p = arena_new(a, struct core_v1_projected_volume_source);
	struct core_v1_volume_projection *s;
	struct core_v1_key_to_path *k;
	struct core_v1_downward_api_volume_file *d;

	v->name = name;
	v->volume_source.projected = p;
	p->default_mode = int32_of(a, 0644);
	s = arena_push(a, &p->sources);
	s->service_account_token = arena_new(a, struct core_v1_service_account_token_projection);
	s->service_account_token->expiration_seconds = int64_of(a, 3607);
	s->service_account_token->path = STR("token");
	s = arena_push(a, &p->sources);
	s->config_map = arena_new(a, struct core_v1_config_map_projection);
	s->config_map->local_object_reference.name = STR("kube-root-ca.crt");
	k = arena_push(a, &s->config_map->items);
	k->key = STR("ca.crt");
	k->path = STR("ca.crt");
	s = arena_push(a, &p->sources);
	s->downward_api = arena_new(a, struct core_v1_downward_api_projection);
	d = arena_push(a, &s->downward_api->items);
	d->path = STR("namespace");
	d->field_ref = arena_new(a, struct core_v1_object_field_selector);
	d->field_ref->api_version = STR("v1");
	d->field_ref->field_path = STR("metadata.namespace");
}

static bool mount_into(struct arena *a, struct core_v1_container *c, uint32_t n, struct str volume)
{
	bool any = false;

	for (uint32_t i = 0; i < n; i++) {
		bool has = false;
		struct core_v1_volume_mount *m;

		for (uint32_t k = 0; k < c[i].volume_mounts.n; k++)
			has |= str_eqz(c[i].volume_mounts.v[k].mount_path, TOKEN_PATH);
		if (has)
			continue;
		m = arena_push(a, &c[i].volume_mounts);
		m->name = volume;
		m->read_only = true;
		m->mount_path = STR(TOKEN_PATH);
		any = true;
	}
	return any;
}

/* The account, or NULL. "default" is made by a controller soon after its namespace: a pod that is too quick waits for it, as upstream's. */
static struct error *account_of(struct admission *a, struct str name, struct core_v1_service_account **out)
{
	struct storage *st = storage_find(a->rq->s, STR(""), STR("serviceaccounts"));
	int64_t end = now_ms() + DEFAULT_ACCOUNT_WAIT_MS;

	*out = registry_peek(a->rq->s, a->rq->a, st, a->ns, name);
	while (!*out && str_eqz(name, "default") && now_ms() < end) {
		TRY(fiber_sleep(DEFAULT_ACCOUNT_LOOK_MS));
		*out = registry_peek(a->rq->s, a->rq->a, st, a->ns, name);
	}
	return NULL;
}

/* The account that the pod names, which must be there. */
static struct error *account_of_pod(struct admission *a, const struct core_v1_pod *pod, struct core_v1_service_account **out)
{
	struct str name = pod->spec.service_account_name;

	if (!name.n)
		return admission_forbidden(a, "no service account specified for pod %.*s/%.*s", STR_ARG(a->ns), STR_ARG(pod->metadata.name));
	TRY(account_of(a, name, out));
	if (!*out)
		return admission_forbidden(a, "error looking up service account %.*s/%.*s: serviceaccount \"%.*s\" not found", STR_ARG(a->ns),
					   STR_ARG(name), STR_ARG(name));
	return NULL;
}

/* The account lets its pods use the secrets that it lists and no others. */
static bool limits_secrets(const struct core_v1_service_account *sa)
{
	bool limits = false;

	str_to_bool(str_map_get(API_MAP(&sa->metadata.annotations), STR("kubernetes.io/enforce-mountable-secrets")), &limits);
	return limits;
}

static bool lists_secret(const struct core_v1_service_account *sa, struct str name)
{
	for (uint32_t i = 0; i < sa->secrets.n; i++)
		if (str_eq(sa->secrets.v[i].name, name))
			return true;
	return false;
}

#define NOT_LISTED "secret.secretName=\"%.*s\" is not allowed because service account %.*s does not reference that secret"

/* Why the environment of a container (what: of which kind) is none that the account allows; or nothing. */
static struct str env_not_allowed(struct arena *a, const struct core_v1_service_account *sa, const char *what, struct str container,
				  const struct core_v1_env_var *env, uint32_t n, const struct core_v1_env_from_source *from, uint32_t n_from)
{
	for (uint32_t i = 0; i < n; i++) {
		const struct core_v1_secret_key_selector *k = env[i].value_from ? env[i].value_from->secret_key_ref : NULL;

		if (k && !lists_secret(sa, k->local_object_reference.name))
			return arena_printf(a, "%s %.*s with envVar %.*s referencing " NOT_LISTED, what, STR_ARG(container), STR_ARG(env[i].name),
					    STR_ARG(k->local_object_reference.name), STR_ARG(sa->metadata.name));
	}
	for (uint32_t i = 0; i < n_from; i++)
		if (from[i].secret_ref && !lists_secret(sa, from[i].secret_ref->local_object_reference.name))
			return arena_printf(a, "%s %.*s with envFrom referencing " NOT_LISTED, what, STR_ARG(container),
					    STR_ARG(from[i].secret_ref->local_object_reference.name), STR_ARG(sa->metadata.name));
	return STR_NULL;
}

static struct str containers_not_allowed(struct arena *a, const struct core_v1_service_account *sa, const char *what,
					 const struct core_v1_container *c, uint32_t n)
{
	struct str why = STR_NULL;

	for (uint32_t i = 0; i < n && !why.n; i++)
		why = env_not_allowed(a, sa, what, c[i].name, c[i].env.v, c[i].env.n, c[i].env_from.v, c[i].env_from.n);
	return why;
}

static struct str pod_not_allowed(struct arena *a, const struct core_v1_service_account *sa, const struct core_v1_pod_spec *p)
{
	struct str why = STR_NULL;

	for (uint32_t i = 0; i < p->volumes.n; i++) {
		const struct core_v1_secret_volume_source *s = p->volumes.v[i].volume_source.secret;

		if (s && !lists_secret(sa, s->secret_name))
			return arena_printf(a, "volume with " NOT_LISTED, STR_ARG(s->secret_name), STR_ARG(sa->metadata.name));
	}
	why = containers_not_allowed(a, sa, "init container", p->init_containers.v, p->init_containers.n);
	if (!why.n)
		why = containers_not_allowed(a, sa, "container", p->containers.v, p->containers.n);
	for (uint32_t i = 0; i < p->image_pull_secrets.n && !why.n; i++) {
		bool has = false;

		for (uint32_t k = 0; k < sa->image_pull_secrets.n && !has; k++)
			has = str_eq(sa->image_pull_secrets.v[k].name, p->image_pull_secrets.v[i].name);
		if (!has)
			why = arena_printf(a, "imagePullSecrets[%u].name=\"%.*s\" is not allowed because service account %.*s does not reference that "
					   "imagePullSecret", i, STR_ARG(p->image_pull_secrets.v[i].name), STR_ARG(sa->metadata.name));
	}
	return why;
}

static struct error *mirror_validate(struct admission *a, const struct core_v1_pod *pod)
{
	if (pod->spec.service_account_name.n)
		return admission_forbidden(a, "a mirror pod may not reference service accounts");
	if (pod_refers(pod, true, STR_NULL))
		return admission_forbidden(a, "a mirror pod may not reference secrets");
	for (uint32_t i = 0; i < pod->spec.volumes.n; i++) {
		const struct core_v1_projected_volume_source *p = pod->spec.volumes.v[i].volume_source.projected;

		for (uint32_t k = 0; p && k < p->sources.n; k++)
			if (p->sources.v[k].service_account_token)
				return admission_forbidden(a, "a mirror pod may not use ServiceAccountToken volume projections");
	}
	return NULL;
}

static struct error *account_validate(struct admission *a)
{
	const struct core_v1_pod *pod = a->obj;
	struct core_v1_service_account *sa;
	struct str why = STR_NULL;

	if (admission_is(a, "", "pods", "ephemeralcontainers") && a->op == ADMIT_UPDATE) {
		TRY(account_of_pod(a, pod, &sa));
		for (uint32_t i = 0; i < pod->spec.ephemeral_containers.n && !why.n && limits_secrets(sa); i++) {
			const struct core_v1_ephemeral_container_common *c = &pod->spec.ephemeral_containers.v[i].ephemeral_container_common;

			why = env_not_allowed(a->rq->a, sa, "ephemeral container", c->name, c->env.v, c->env.n, c->env_from.v, c->env_from.n);
		}
		return why.n ? error_new("%.*s", STR_ARG(why)) : NULL; /* upstream answers 500, too */
	}
	if (!admission_is(a, "", "pods", "") || a->op != ADMIT_CREATE)
		return NULL;
	if (is_mirror(pod))
		return mirror_validate(a, pod);
	TRY(account_of_pod(a, pod, &sa));
	if (limits_secrets(sa))
		why = pod_not_allowed(a->rq->a, sa, &pod->spec);
	return why.n ? admission_forbidden(a, "%.*s", STR_ARG(why)) : NULL;
}

static void mount_token(struct arena *ar, struct core_v1_pod *pod)
{
	struct str name = STR_NULL;
	char suffix[8];

	/* one that is there already is mounted where it is not, as in containers that a policy or a webhook has added */
	for (uint32_t i = 0; i < pod->spec.volumes.n && !name.n; i++)
		if (str_has_prefix(pod->spec.volumes.v[i].name, STR("kube-api-access-")))
			name = pod->spec.volumes.v[i].name;
	bool present = name.n > 0;

	random_suffix(suffix, 5);
	if (!present)
		name = arena_printf(ar, "kube-api-access-%s", suffix);
	bool used = mount_into(ar, pod->spec.init_containers.v, pod->spec.init_containers.n, name);

	used |= mount_into(ar, pod->spec.containers.v, pod->spec.containers.n, name);
	if (used && !present)
		token_volume(ar, pod, name);
}

static struct error *account_admit(struct admission *a)
{
	struct core_v1_pod *pod = a->obj;
	struct core_v1_service_account *sa;
	bool automount = true;

	if (!admission_is(a, "", "pods", "") || a->op != ADMIT_CREATE)
		return NULL;
	if (is_mirror(pod))
		return mirror_validate(a, pod);
	if (!pod->spec.service_account_name.n)
		pod->spec.service_account_name = STR("default");
	pod->spec.service_account = pod->spec.service_account_name;
	TRY(account_of_pod(a, pod, &sa));
	if (pod->spec.automount_service_account_token)
		automount = *pod->spec.automount_service_account_token;
	else if (sa->automount_service_account_token)
		automount = *sa->automount_service_account_token;
	if (!pod->spec.image_pull_secrets.n && sa->image_pull_secrets.n)
		memcpy(&pod->spec.image_pull_secrets, &sa->image_pull_secrets, sizeof sa->image_pull_secrets);
	if (automount)
		mount_token(a->rq->a, pod);
	return account_validate(a);
}

const struct admission_plugin admit_service_account = {
	.name = "ServiceAccount", .ops = ADMIT_CREATE | ADMIT_UPDATE, .admit = account_admit, .validate = account_validate,
};

/* ---- Priority ---- */

static struct scheduling_v1_priority_class *default_class(struct apiserver *s, struct arena *a)
{
	struct storage *st = storage_find(s, STR("scheduling.k8s.io"), STR("priorityclasses"));
	struct scheduling_v1_priority_class *best = NULL;
	struct cache_snap *snap;
	struct cache_iter it;
	const struct cache_entry *e;
	struct error *err = cache_snapshot(st->cache, CACHE_ANY, 0, &snap);

	if (err) {
		log_and_free(err, "priority classes");
		return NULL;
	}
	cache_iter_init(&it, st->cache, snap, STR_NULL, STR_NULL, NULL);
	while ((e = cache_iter_next(&it)) != NULL) {
		struct scheduling_v1_priority_class *pc, look = {0};

		err = cache_entry_decode(a, &scheduling_v1_priority_class_type, e, false, &look);
		if (err || !look.global_default) {
			log_and_free(err, "priority classes");
			continue;
		}
		pc = registry_peek(s, a, st, STR_NULL, cache_entry_name(e));
		if (pc && pc->global_default && (!best || pc->value < best->value))
			best = pc;
	}
	cache_snap_free(snap);
	return best;
}

static struct error *priority_admit(struct admission *a)
{
	struct apiserver *s = a->rq->s;
	struct core_v1_pod *pod = a->obj;
	struct scheduling_v1_priority_class *pc;
	int32_t value = 0;
	struct str policy = STR("PreemptLowerPriority");

	if (!admission_is(a, "", "pods", ""))
		return NULL;
	if (a->op == ADMIT_UPDATE) {
		const struct core_v1_pod *old = a->old;

		/* only what the client left out comes back; a change is refused by the pod's rules */
		if (!pod->spec.priority)
			pod->spec.priority = old->spec.priority;
		if (!pod->spec.preemption_policy)
			pod->spec.preemption_policy = old->spec.preemption_policy;
		return NULL;
	}
	if (pod->spec.priority_class_name.n) {
		pc = registry_peek(s, a->rq->a, storage_find(s, STR("scheduling.k8s.io"), STR("priorityclasses")), STR_NULL,
				   pod->spec.priority_class_name);
		if (!pc)
			return admission_forbidden(a, "no PriorityClass with name %.*s was found", STR_ARG(pod->spec.priority_class_name));
	} else {
		pc = default_class(s, a->rq->a);
		if (pc)
			pod->spec.priority_class_name = pc->metadata.name;
	}
	if (pc) {
		value = pc->value;
		if (pc->preemption_policy)
			policy = *pc->preemption_policy;
	}
	if (pod->spec.priority && *pod->spec.priority != value)
		return admission_forbidden(a, "the integer value of priority (%d) must not be provided in pod spec; priority admission controller "
					   "computed %d from the given PriorityClass name", *pod->spec.priority, value);
	pod->spec.priority = int32_of(a->rq->a, value);
	if (pod->spec.preemption_policy && !str_eq(*pod->spec.preemption_policy, policy))
		return admission_forbidden(a, "the string value of PreemptionPolicy (%.*s) must not be provided in pod spec; priority admission "
					   "controller computed %.*s from the given PriorityClass name", STR_ARG(*pod->spec.preemption_policy),
					   STR_ARG(policy));
	pod->spec.preemption_policy = arena_new(a->rq->a, struct str);
	*pod->spec.preemption_policy = policy;
	return NULL;
}

static struct error *priority_validate(struct admission *a)
{
	struct scheduling_v1_priority_class *pc = a->obj, *other;

	if (!admission_is(a, "scheduling.k8s.io", "priorityclasses", "") || !pc->global_default)
		return NULL;
	other = default_class(a->rq->s, a->rq->a);
	if (other && !str_eq(other->metadata.name, pc->metadata.name))
		return admission_forbidden(a, "PriorityClass %.*s is already marked as globalDefault", STR_ARG(other->metadata.name));
	return NULL;
}

const struct admission_plugin admit_priority = {
	.name = "Priority", .ops = ADMIT_CREATE | ADMIT_UPDATE, .admit = priority_admit, .validate = priority_validate,
};

/* ---- DefaultTolerationSeconds ---- */

static void tolerate(struct arena *a, struct core_v1_pod *pod, const char *key, int seconds)
{
	struct core_v1_toleration *t;

	for (uint32_t i = 0; i < pod->spec.tolerations.n; i++) {
		t = &pod->spec.tolerations.v[i];
		if ((str_eqz(t->key, key) || !t->key.n) && (str_eqz(t->effect, "NoExecute") || !t->effect.n))
			return;
	}
	t = arena_push(a, &pod->spec.tolerations);
	t->key = str_from(key);
	t->operator = STR("Exists");
	t->effect = STR("NoExecute");
	t->toleration_seconds = int64_of(a, seconds);
}

static struct error *tolerations_admit(struct admission *a)
{
	if (!admission_is(a, "", "pods", ""))
		return NULL;
	tolerate(a->rq->a, a->obj, "node.kubernetes.io/not-ready", a->rq->s->o.not_ready_toleration_s);
	tolerate(a->rq->a, a->obj, "node.kubernetes.io/unreachable", a->rq->s->o.unreachable_toleration_s);
	return NULL;
}

const struct admission_plugin admit_default_tolerations = {
	.name = "DefaultTolerationSeconds", .ops = ADMIT_CREATE | ADMIT_UPDATE, .admit = tolerations_admit,
};

/* ---- TaintNodesByCondition ---- */

static struct error *taint_admit(struct admission *a)
{
	struct core_v1_node *node = a->obj;
	struct core_v1_taint *t;

	if (!admission_is(a, "", "nodes", "") || a->op != ADMIT_CREATE)
		return NULL;
	for (uint32_t i = 0; i < node->spec.taints.n; i++)
		if (str_eqz(node->spec.taints.v[i].key, "node.kubernetes.io/not-ready") &&
		    str_eqz(node->spec.taints.v[i].effect, "NoSchedule"))
			return NULL;
	t = arena_push(a->rq->a, &node->spec.taints);
	t->key = STR("node.kubernetes.io/not-ready");
	t->effect = STR("NoSchedule");
	return NULL;
}

const struct admission_plugin admit_taint_nodes = {.name = "TaintNodesByCondition", .ops = ADMIT_CREATE, .admit = taint_admit};

/* ---- PodTopologyLabels (KEP-4742) ---- */

void topology_labels(struct request *rq, struct str node_name, struct str_map *labels)
{
	static const char *const keys[] = {"topology.kubernetes.io/zone", "topology.kubernetes.io/region"};
	struct core_v1_node *node = registry_peek(rq->s, rq->a, storage_find(rq->s, STR(""), STR("nodes")), STR_NULL, node_name);

	for (size_t i = 0; node && i < sizeof keys / sizeof *keys; i++) {
		struct str v = str_map_get(API_MAP(&node->metadata.labels), str_from(keys[i]));

		if (v.p)
			str_map_set(rq->a, labels, str_from(keys[i]), v);
	}
}

static struct error *topology_admit(struct admission *a)
{
	struct core_v1_pod *pod = a->obj;

	/* pods that come with a node; the others get theirs when they are bound (special.c) */
	if (admission_is(a, "", "pods", "") && a->op == ADMIT_CREATE && pod->spec.node_name.n)
		topology_labels(a->rq, pod->spec.node_name, API_MAP(&pod->metadata.labels));
	return NULL;
}

const struct admission_plugin admit_pod_topology_labels = {.name = "PodTopologyLabels", .ops = ADMIT_CREATE, .admit = topology_admit};
