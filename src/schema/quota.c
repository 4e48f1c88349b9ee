#include "schema/quota.h"

#include "base/buf.h"
#include "schema/quantity.h"
#include "schema/storage.h"

/* ---- lists of resources ---- */

void quota_add(struct arena *a, struct str_map *into, const struct str_map *m)
{
	for (uint32_t i = 0; i < m->n; i++) {
		struct str old = str_map_get(into, m->v[i].key);

		str_map_set(a, into, m->v[i].key, old.n ? quantity_add(a, old, m->v[i].value) : m->v[i].value);
	}
}

void quota_raise(struct arena *a, struct str_map *into, const struct str_map *m)
{
	for (uint32_t i = 0; i < m->n; i++) {
		struct str old = str_map_get(into, m->v[i].key);

		if (!old.n || quantity_cmp(old, m->v[i].value) < 0)
			str_map_set(a, into, m->v[i].key, m->v[i].value);
	}
}

/* ---- pods ---- */

static bool restartable(const struct core_v1_container *c)
{
	return c->restart_policy && str_eqz(*c->restart_policy, "Always");
}

static bool infeasible(const struct core_v1_pod *p)
{
	for (uint32_t i = 0; i < p->status.conditions.n; i++)
		if (str_eqz(p->status.conditions.v[i].type, "PodResizePending"))
			return str_eqz(p->status.conditions.v[i].reason, "Infeasible");
	return false;
}

static const struct core_v1_container_status *status_of(const struct core_v1_pod *p, struct str name)
{
	for (uint32_t i = 0; i < p->status.container_statuses.n; i++)
		if (str_eq(p->status.container_statuses.v[i].name, name))
			return &p->status.container_statuses.v[i];
	for (uint32_t i = 0; i < p->status.init_container_statuses.n; i++)
		if (str_eq(p->status.init_container_statuses.v[i].name, name))
			return &p->status.init_container_statuses.v[i];
	return NULL;
}

/* During a resize the larger of what is wanted, given and in force counts; what can never be given does not. */
static void effective(struct arena *a, const struct core_v1_pod *p, const struct core_v1_container *c, bool limits, struct str_map *out)
{
	const struct core_v1_container_status *cs = status_of(p, c->name);
	const struct str_map *want = limits ? API_MAP(&c->resources.limits) : API_MAP(&c->resources.requests);

	memset(out, 0, sizeof *out);
	if (!cs || !cs->resources) {
		quota_raise(a, out, want);
		return;
	}
	if (!infeasible(p))
		quota_raise(a, out, want);
	quota_raise(a, out, limits ? API_MAP(&cs->resources->limits) : API_MAP(&cs->resources->requests));
	if (!limits)
		quota_raise(a, out, API_MAP(&cs->allocated_resources));
}

static bool pod_level(struct str name)
{
	return str_eqz(name, "cpu") || str_eqz(name, "memory") || str_has_prefix(name, STR("hugepages-"));
}

static void totals(struct arena *a, const struct core_v1_pod *p, bool limits, struct str_map *out)
{
	struct str_map one, sidecars = {0}, init = {0};

	memset(out, 0, sizeof *out);
	for (uint32_t i = 0; i < p->spec.containers.n; i++) {
		effective(a, p, &p->spec.containers.v[i], limits, &one);
		quota_add(a, out, &one);
	}
	for (uint32_t i = 0; i < p->spec.init_containers.n; i++) {
		const struct core_v1_container *c = &p->spec.init_containers.v[i];

		if (restartable(c)) {
			effective(a, p, c, limits, &one);
			quota_add(a, out, &one);
			quota_add(a, &sidecars, &one);
			quota_raise(a, &init, &sidecars);
		} else {
			memset(&one, 0, sizeof one);
			quota_add(a, &one, limits ? API_MAP(&c->resources.limits) : API_MAP(&c->resources.requests));
			quota_add(a, &one, &sidecars);
			quota_raise(a, &init, &one);
		}
	}
	quota_raise(a, out, &init);
	if (p->spec.resources) {
		const struct str_map *own = limits ? API_MAP(&p->spec.resources->limits) : API_MAP(&p->spec.resources->requests);

		for (uint32_t i = 0; i < own->n; i++)
			if (pod_level(own->v[i].key))
				str_map_set(a, out, own->v[i].key, own->v[i].value);
	}
	const struct str_map *overhead = API_MAP(&p->spec.overhead);

	for (uint32_t i = 0; i < overhead->n; i++) {
		struct str old = str_map_get(out, overhead->v[i].key);

		if (!limits || (old.n && quantity_cmp(old, STR("0")))) /* overhead limits nothing that is unlimited */
			str_map_set(a, out, overhead->v[i].key, old.n ? quantity_add(a, old, overhead->v[i].value) : overhead->v[i].value);
	}
}

void pod_total_requests(struct arena *a, const struct core_v1_pod *p, struct str_map *out)
{
	totals(a, p, false, out);
}

void pod_total_limits(struct arena *a, const struct core_v1_pod *p, struct str_map *out)
{
	totals(a, p, true, out);
}

static bool asks(const struct str_map *m)
{
	struct str cpu = str_map_get(m, STR("cpu")), mem = str_map_get(m, STR("memory"));

	return (cpu.n && quantity_cmp(cpu, STR("0")) > 0) || (mem.n && quantity_cmp(mem, STR("0")) > 0);
}

bool pod_is_best_effort(const struct core_v1_pod *p)
{
	if (p->status.qos_class.n)
		return str_eqz(p->status.qos_class, "BestEffort");
	if (p->spec.resources && (asks(API_MAP(&p->spec.resources->requests)) || asks(API_MAP(&p->spec.resources->limits))))
		return false;
	for (uint32_t i = 0; i < p->spec.containers.n + p->spec.init_containers.n; i++) {
		const struct core_v1_container *c = i < p->spec.containers.n ? &p->spec.containers.v[i] :
							&p->spec.init_containers.v[i - p->spec.containers.n];

		if (asks(API_MAP(&c->resources.requests)) || asks(API_MAP(&c->resources.limits)))
			return false;
	}
	return true;
}

static bool crosses(const struct core_v1_pod_affinity_term *t)
{
	return t->namespaces.n || t->namespace_selector;
}

static bool crosses_namespaces(const struct core_v1_pod *p)
{
	const struct core_v1_affinity *af = p->spec.affinity;

	if (af && af->pod_affinity) {
		const struct core_v1_pod_affinity *x = af->pod_affinity;

		for (uint32_t i = 0; i < x->required_during_scheduling_ignored_during_execution.n; i++)
			if (crosses(&x->required_during_scheduling_ignored_during_execution.v[i]))
				return true;
		for (uint32_t i = 0; i < x->preferred_during_scheduling_ignored_during_execution.n; i++)
			if (crosses(&x->preferred_during_scheduling_ignored_during_execution.v[i].pod_affinity_term))
				return true;
	}
	if (af && af->pod_anti_affinity) {
		const struct core_v1_pod_anti_affinity *x = af->pod_anti_affinity;

		for (uint32_t i = 0; i < x->required_during_scheduling_ignored_during_execution.n; i++)
			if (crosses(&x->required_during_scheduling_ignored_during_execution.v[i]))
				return true;
		for (uint32_t i = 0; i < x->preferred_during_scheduling_ignored_during_execution.n; i++)
			if (crosses(&x->preferred_during_scheduling_ignored_during_execution.v[i].pod_affinity_term))
				return true;
	}
	return false;
}

/* A scope's operator over the one value that the object has, or none. */
static bool scope_value(const struct core_v1_scoped_resource_selector_requirement *r, struct str value)
{
	bool in = false;

	for (uint32_t i = 0; i < r->values.n && !in; i++)
		in = value.n && str_eq(r->values.v[i], value);
	if (str_eqz(r->operator, "In"))
		return in;
	if (str_eqz(r->operator, "NotIn"))
		return !in;
	return str_eqz(r->operator, "DoesNotExist") ? !value.n : value.n > 0;
}

static bool pod_scope(const struct core_v1_pod *p, const struct core_v1_scoped_resource_selector_requirement *r)
{
	bool ends = p->spec.active_deadline_seconds && *p->spec.active_deadline_seconds >= 0;

	if (str_eqz(r->scope_name, "Terminating"))
		return ends;
	if (str_eqz(r->scope_name, "NotTerminating"))
		return !ends;
	if (str_eqz(r->scope_name, "BestEffort"))
		return pod_is_best_effort(p);
	if (str_eqz(r->scope_name, "NotBestEffort"))
		return !pod_is_best_effort(p);
	if (str_eqz(r->scope_name, "PriorityClass"))
		return scope_value(r, p->spec.priority_class_name);
	if (str_eqz(r->scope_name, "CrossNamespacePodAffinity"))
		return crosses_namespaces(p);
	return false;
}

/* KEP-3751: the class asked for, the one in force, and the one being changed to all count. */
static bool claim_scope(const struct core_v1_persistent_volume_claim *c, const struct core_v1_scoped_resource_selector_requirement *r)
{
	struct str names[3] = {
		c->spec.volume_attributes_class_name ? *c->spec.volume_attributes_class_name : STR_NULL,
		c->status.current_volume_attributes_class_name ? *c->status.current_volume_attributes_class_name : STR_NULL,
		c->status.modify_volume_status ? c->status.modify_volume_status->target_volume_attributes_class_name : STR_NULL,
	};
	bool any = false;

	if (!str_eqz(r->scope_name, "VolumeAttributesClass"))
		return false;
	for (int i = 0; i < 3; i++) {
		if (!names[i].n)
			continue;
		any = true;
		if (scope_value(r, names[i]))
			return true;
	}
	return !any && scope_value(r, STR_NULL);
}

/* ---- kinds ---- */

enum kind { KIND_OTHER, KIND_POD, KIND_SERVICE, KIND_CLAIM, KIND_DEVICE_CLAIM };

static enum kind kind_of(struct str group, struct str plural)
{
	if (str_eqz(group, "resource.k8s.io"))
		return str_eqz(plural, "resourceclaims") ? KIND_DEVICE_CLAIM : KIND_OTHER;
	if (group.n)
		return KIND_OTHER;
	return str_eqz(plural, "pods") ? KIND_POD : str_eqz(plural, "services") ? KIND_SERVICE :
	       str_eqz(plural, "persistentvolumeclaims") ? KIND_CLAIM : KIND_OTHER;
}

bool quota_reads_object(struct str group, struct str plural)
{
	return kind_of(group, plural) != KIND_OTHER;
}

bool quota_ignores(struct str group, struct str plural)
{
	static const char *const none[][2] = {
		{"", "bindings"}, {"", "componentstatuses"}, {"", "events"}, {"events.k8s.io", "events"},
		{"authentication.k8s.io", "tokenreviews"}, {"authentication.k8s.io", "selfsubjectreviews"},
		{"authorization.k8s.io", "subjectaccessreviews"}, {"authorization.k8s.io", "selfsubjectaccessreviews"},
		{"authorization.k8s.io", "localsubjectaccessreviews"}, {"authorization.k8s.io", "selfsubjectrulesreviews"},
	};

	for (size_t i = 0; i < sizeof none / sizeof *none; i++)
		if (str_eqz(group, none[i][0]) && str_eqz(plural, none[i][1]))
			return true;
	return false;
}

/* Kinds that had a name of their own before count/. */
static bool has_old_name(struct str group, struct str plural)
{
	return !group.n && (str_eqz(plural, "configmaps") || str_eqz(plural, "secrets") || str_eqz(plural, "replicationcontrollers") ||
			    str_eqz(plural, "resourcequotas"));
}

static bool is_count_name(struct str group, struct str plural, struct str name)
{
	if (!str_has_prefix(name, STR("count/")))
		return false;
	name = str_sub(name, 6, name.n);
	if (!str_has_prefix(name, plural))
		return false;
	name = str_sub(name, plural.n, name.n);
	return group.n ? name.n == group.n + 1 && name.p[0] == '.' && str_eq(str_sub(name, 1, name.n), group) : name.n == 0;
}

static bool one_of(struct str s, const char *const *v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (str_eqz(s, v[i]))
			return true;
	return false;
}
#define ONE_OF(s, list) one_of((s), (list), sizeof(list) / sizeof *(list))

static const char *const pod_names[] = {
	"cpu", "memory", "ephemeral-storage", "requests.cpu", "requests.memory", "requests.ephemeral-storage", "limits.cpu",
	"limits.memory", "limits.ephemeral-storage", "pods",
};
static const char *const service_names[] = {"services", "services.nodeports", "services.loadbalancers"};
static const char *const claim_names[] = {"persistentvolumeclaims", "requests.storage"};
#define CLASS_SUFFIX ".storageclass.storage.k8s.io/"
#define DEVICES_SUFFIX ".deviceclass.resource.k8s.io/devices"
#define CLASS_PREFIX "deviceclass.resource.kubernetes.io/" /* the extended resource that each class is without saying so */

/* "requests.example.com/gpu": with a domain that is not Kubernetes' own. */
static bool is_extended_request(struct str name)
{
	if (!str_has_prefix(name, STR("requests.")))
		return false;
	name = str_sub(name, 9, name.n);
	return str_index(name, '/') >= 0 && (!str_contains(name, STR("kubernetes.io/")) || str_has_prefix(name, STR(CLASS_PREFIX)));
}

/* A class that there is, as an extended resource. */
static bool is_class_request(struct str name, const struct quota_devices *d)
{
	if (!d || !is_extended_request(name))
		return false;
	name = str_sub(name, 9, name.n);
	if (str_has_prefix(name, STR(CLASS_PREFIX)))
		return str_map_has(&d->classes, str_sub(name, sizeof CLASS_PREFIX - 1, name.n));
	for (uint32_t i = 0; i < d->classes.n; i++)
		if (str_eq(d->classes.v[i].value, name))
			return true;
	return false;
}

bool quota_counts(struct str group, struct str plural, struct str name, const struct quota_devices *d)
{
	if (is_count_name(group, plural, name))
		return true;
	switch (kind_of(group, plural)) {
	case KIND_POD:
		return ONE_OF(name, pod_names) || str_has_prefix(name, STR("hugepages-")) ||
		       str_has_prefix(name, STR("requests.hugepages-")) || is_extended_request(name);
	case KIND_SERVICE:
		return ONE_OF(name, service_names);
	case KIND_CLAIM:
		return ONE_OF(name, claim_names) || str_has_suffix(name, STR(CLASS_SUFFIX "persistentvolumeclaims")) ||
		       str_has_suffix(name, STR(CLASS_SUFFIX "requests.storage"));
	case KIND_DEVICE_CLAIM:
		return str_has_suffix(name, STR(DEVICES_SUFFIX)) || is_class_request(name, d);
	case KIND_OTHER:
		break;
	}
	return has_old_name(group, plural) && str_eq(name, plural);
}

bool quota_scopes_match(const struct core_v1_resource_quota_spec *q, struct str group, struct str plural, const void *obj)
{
	enum kind k = kind_of(group, plural);
	uint32_t n = q->scope_selector ? q->scope_selector->match_expressions.n : 0;

	for (uint32_t i = 0; i < q->scopes.n + n; i++) {
		struct core_v1_scoped_resource_selector_requirement exists = {.operator = STR("Exists")}, *r = &exists;

		if (i < q->scopes.n)
			exists.scope_name = q->scopes.v[i];
		else
			r = &q->scope_selector->match_expressions.v[i - q->scopes.n];
		if (!(k == KIND_POD ? pod_scope(obj, r) : k == KIND_CLAIM ? claim_scope(obj, r) : false))
			return false;
	}
	return true;
}

/* ---- usage ---- */

static void count(struct arena *a, struct str_map *m, struct str name, struct str n)
{
	struct str old = str_map_get(m, name);

	str_map_set(a, m, name, old.n ? quantity_add(a, old, n) : n);
}

static bool pod_is_charged(const struct core_v1_pod *p, int64_t now_s)
{
	if (str_eqz(p->status.phase, "Succeeded") || str_eqz(p->status.phase, "Failed"))
		return false;
	/* One that should be gone, but whose node is lost, is not held against its namespace. */
	return !p->metadata.deletion_timestamp || !p->metadata.deletion_grace_period_seconds ||
	       now_s <= p->metadata.deletion_timestamp->s + *p->metadata.deletion_grace_period_seconds;
}

static void compute_usage(struct arena *a, const struct str_map *requests, const struct str_map *limits, struct str_map *out)
{
	str_map_set(a, out, STR("pods"), STR("1"));
	for (uint32_t i = 0; i < requests->n; i++) {
		struct str k = requests->v[i].key, v = requests->v[i].value, masked = arena_printf(a, "requests.%.*s", STR_ARG(k));

		if (str_eqz(k, "cpu") || str_eqz(k, "memory") || str_eqz(k, "ephemeral-storage") || str_has_prefix(k, STR("hugepages-"))) {
			str_map_set(a, out, k, v);
			str_map_set(a, out, masked, v);
		} else if (is_extended_request(masked)) {
			str_map_set(a, out, masked, v);
		}
	}
	for (uint32_t i = 0; i < limits->n; i++) {
		struct str k = limits->v[i].key;

		if (str_eqz(k, "cpu") || str_eqz(k, "memory") || str_eqz(k, "ephemeral-storage"))
			str_map_set(a, out, arena_printf(a, "limits.%.*s", STR_ARG(k)), limits->v[i].value);
	}
}

static void pod_usage(struct arena *a, const struct core_v1_pod *p, int64_t now_s, struct str_map *out)
{
	struct str_map requests, limits;

	if (!pod_is_charged(p, now_s))
		return;
	totals(a, p, false, &requests);
	totals(a, p, true, &limits);
	compute_usage(a, &requests, &limits, out);
}

static void service_usage(struct arena *a, const struct core_v1_service *s, struct str_map *out)
{
	bool balanced = str_eqz(s->spec.type, "LoadBalancer");
	int64_t ports = 0;

	for (uint32_t i = 0; i < s->spec.ports.n; i++) {
		if (str_eqz(s->spec.type, "NodePort") || (balanced && (!s->spec.allocate_load_balancer_node_ports ||
								       *s->spec.allocate_load_balancer_node_ports)))
			ports++;
		else if (balanced && s->spec.ports.v[i].node_port)
			ports++;
	}
	str_map_set(a, out, STR("services"), STR("1"));
	str_map_set(a, out, STR("services.loadbalancers"), balanced ? STR("1") : STR("0"));
	str_map_set(a, out, STR("services.nodeports"), quantity_from(a, ports, false));
}

static void claim_usage(struct arena *a, const struct core_v1_persistent_volume_claim *c, struct str_map *out)
{
	struct str size = str_map_get(API_MAP(&c->spec.resources.requests), STR("storage"));
	struct str given = str_map_get(API_MAP(&c->status.allocated_resources), STR("storage"));
	struct str class = claim_class(c);

	if (size.n && given.n && quantity_cmp(given, size) > 0)
		size = given;
	if (size.n && quantity_milli(size) % 1000) /* whole bytes */
		size = quantity_from(a, quantity_value(size), false);
	str_map_set(a, out, STR("persistentvolumeclaims"), STR("1"));
	if (class.n)
		str_map_set(a, out, arena_printf(a, "%.*s" CLASS_SUFFIX "persistentvolumeclaims", STR_ARG(class)), STR("1"));
	if (!size.n)
		return;
	str_map_set(a, out, STR("requests.storage"), size);
	if (class.n)
		str_map_set(a, out, arena_printf(a, "%.*s" CLASS_SUFFIX "requests.storage", STR_ARG(class)), size);
}

/* AllocationMode All counts for the most that a claim can hold (AllocationResultsMaxSize). */
static int64_t device_number(struct str mode, int64_t n)
{
	return str_eqz(mode, "ExactCount") ? n : str_eqz(mode, "All") ? 32 : 0;
}

static struct str device_name(struct arena *a, struct str class)
{
	return arena_printf(a, "%.*s" DEVICES_SUFFIX, STR_ARG(class));
}

/* What is left of `used` devices, as requests of an extended resource, beside what the pod behind the claim is charged for it. */
static void set_extended(struct arena *a, const struct quota_devices *d, struct str name, struct str used, struct str_map *out)
{
	struct str charged = str_map_get(&d->charged, name);
	struct str left = charged.n ? quantity_sub(a, used, charged) : used;

	if (quantity_cmp(left, STR("0")) > 0)
		str_map_set(a, out, name, left);
}

static void extended_usage(struct arena *a, const struct quota_devices *d, const struct str_map *devices, struct str_map *out)
{
	for (uint32_t i = 0; i < devices->n; i++) {
		struct str class = str_sub(devices->v[i].key, 0, devices->v[i].key.n - (sizeof DEVICES_SUFFIX - 1));
		struct str extended = str_map_get(&d->classes, class);

		set_extended(a, d, arena_printf(a, "requests." CLASS_PREFIX "%.*s", STR_ARG(class)), devices->v[i].value, out);
		if (extended.n)
			set_extended(a, d, arena_printf(a, "requests.%.*s", STR_ARG(extended)), devices->v[i].value, out);
	}
}

static void device_claim_usage(struct arena *a, const struct resource_v1_resource_claim *c, const struct quota_devices *d,
			       struct str_map *out)
{
	struct str_map devices = {0};

	for (uint32_t i = 0; i < c->spec.devices.requests.n; i++) {
		const struct resource_v1_device_request *r = &c->spec.devices.requests.v[i];
		struct str_map most = {0};

		for (uint32_t k = 0; k < r->first_available.n; k++) { /* the worst of the alternatives, per class */
			const struct resource_v1_device_sub_request *s = &r->first_available.v[k];
			struct str_map one = {0};

			str_map_set(a, &one, device_name(a, s->device_class_name),
				    quantity_from(a, device_number(s->allocation_mode, s->count), false));
			quota_raise(a, &most, &one);
		}
		if (!r->first_available.n && r->exactly)
			str_map_set(a, &most, device_name(a, r->exactly->device_class_name),
				    quantity_from(a, device_number(r->exactly->allocation_mode, r->exactly->count), false));
		quota_add(a, &devices, &most);
	}
	quota_add(a, out, &devices);
	if (d)
		extended_usage(a, d, &devices, out);
}

void quota_usage(struct arena *a, struct str group, struct str plural, const void *obj, int64_t now_s, const struct quota_devices *d,
		 struct str_map *out)
{
	memset(out, 0, sizeof *out);
	/* Every stored object counts here, also one that has ended. */
	count(a, out, group.n ? arena_printf(a, "count/%.*s.%.*s", STR_ARG(plural), STR_ARG(group)) : arena_printf(a, "count/%.*s", STR_ARG(plural)),
	      STR("1"));
	if (has_old_name(group, plural))
		count(a, out, plural, STR("1"));
	switch (kind_of(group, plural)) {
	case KIND_POD: pod_usage(a, obj, now_s, out); break;
	case KIND_SERVICE: service_usage(a, obj, out); break;
	case KIND_CLAIM: claim_usage(a, obj, out); break;
	case KIND_DEVICE_CLAIM: device_claim_usage(a, obj, d, out); break;
	case KIND_OTHER: break;
	}
}

/* ---- what must be stated ---- */

static bool states(const struct core_v1_container *c, const char *name)
{
	if (!strncmp(name, "limits.", 7))
		return str_map_has(API_MAP(&c->resources.limits), str_from(name + 7));
	return str_map_has(API_MAP(&c->resources.requests), str_from(strncmp(name, "requests.", 9) ? name : name + 9));
}

struct missing_names {
	LIST(struct str) v;
};

static void add_sorted(struct arena *a, struct missing_names *m, struct str name)
{
	uint32_t at = m->v.n;

	for (uint32_t i = 0; i < m->v.n; i++)
		if (str_eq(m->v.v[i], name))
			return;
	arena_push(a, &m->v);
	for (; at > 0 && str_cmp(m->v.v[at - 1], name) > 0; at--)
		m->v.v[at] = m->v.v[at - 1];
	m->v.v[at] = name;
}

struct str quota_missing(struct arena *a, const struct str_map *hard, const struct core_v1_pod *p)
{
	static const char *const must[] = {"cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"};
	struct buf b buf_cleanup = {0};
	const struct core_v1_resource_requirements *r = p->spec.resources;

	for (uint32_t i = 0; r && i < r->requests.n; i++)
		if (pod_level(r->requests.v[i].key))
			return STR_NULL;
	for (uint32_t i = 0; r && i < r->limits.n; i++)
		if (pod_level(r->limits.v[i].key))
			return STR_NULL;
	for (size_t k = 0; k < sizeof must / sizeof *must; k++) {
		struct missing_names names = {0};

		if (!str_map_has(hard, str_from(must[k])))
			continue;
		for (uint32_t i = 0; i < p->spec.containers.n + p->spec.init_containers.n; i++) {
			const struct core_v1_container *c = i < p->spec.containers.n ? &p->spec.containers.v[i] :
								&p->spec.init_containers.v[i - p->spec.containers.n];

			if (!states(c, must[k]))
				add_sorted(a, &names, c->name);
		}
		if (!names.v.n)
			continue;
		buf_printf(&b, "%s%s for: ", b.n ? "; " : "", must[k]);
		for (uint32_t i = 0; i < names.v.n; i++)
			buf_printf(&b, "%s%.*s", i ? "," : "", STR_ARG(names.v.v[i]));
	}
	return arena_str(a, buf_view(&b));
}
