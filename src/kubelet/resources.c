/* kubelet/resources.c: requests and limits: QoS classes, cgroup values, OOM scores. Pure but for the node's size. */
#include "kubelet/internal.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#define SYSTEM_CRITICAL_PRIORITY 2000000000
#define OOM_GUARANTEED (-997)
#define OOM_BEST_EFFORT 1000
#define SHARES_MIN 2
#define SHARES_MAX 262144

const char *qos_name(enum qos q)
{
	return q == QOS_GUARANTEED ? "Guaranteed" : q == QOS_BURSTABLE ? "Burstable" : "BestEffort";
}

static struct str get(const void *map, const char *name)
{
	return str_map_get(API_MAP(map), str_from(name));
}

struct qos_seen {
	bool any, all_limits;
	struct str names[2];
};

static void qos_look(const struct core_v1_resource_requirements *r, struct qos_seen *s)
{
	static const char *const names[2] = {"cpu", "memory"};

	for (int i = 0; i < 2; i++) {
		struct str req = get(&r->requests, names[i]), lim = get(&r->limits, names[i]);
		int64_t rq = quantity_milli(req), lm = quantity_milli(lim);

		if (rq > 0 || lm > 0)
			s->any = true;
		if (lm <= 0 || (req.n && quantity_cmp(req, lim) != 0))
			s->all_limits = false;
	}
}

enum qos pod_qos(const struct core_v1_pod *pod)
{
	struct qos_seen s = {.all_limits = true};

	if (pod->spec.resources && (pod->spec.resources->requests.n || pod->spec.resources->limits.n)) {
		qos_look(pod->spec.resources, &s);
	} else {
		for (uint32_t i = 0; i < pod->spec.containers.n; i++)
			qos_look(&pod->spec.containers.v[i].resources, &s);
		for (uint32_t i = 0; i < pod->spec.init_containers.n; i++)
			qos_look(&pod->spec.init_containers.v[i].resources, &s);
	}
	return !s.any ? QOS_BEST_EFFORT : s.all_limits ? QOS_GUARANTEED : QOS_BURSTABLE;
}

struct four {
	int64_t v[6]; /* cpu req, cpu lim, mem req, mem lim, eph req, eph lim; -1: no limit */
};

static struct four of(const struct core_v1_resource_requirements *r)
{
	struct four f;
	struct str l;

	f.v[0] = quantity_milli(get(&r->requests, "cpu"));
	l = get(&r->limits, "cpu");
	f.v[1] = l.n && quantity_milli(l) > 0 ? quantity_milli(l) : -1;
	f.v[2] = quantity_value(get(&r->requests, "memory"));
	l = get(&r->limits, "memory");
	f.v[3] = l.n && quantity_value(l) > 0 ? quantity_value(l) : -1;
	f.v[4] = quantity_value(get(&r->requests, "ephemeral-storage"));
	l = get(&r->limits, "ephemeral-storage");
	f.v[5] = l.n && quantity_value(l) > 0 ? quantity_value(l) : -1;
	return f;
}

static void add(struct four *a, const struct four *b)
{
	for (int i = 0; i < 6; i++)
		a->v[i] = (i & 1) && (a->v[i] < 0 || b->v[i] < 0) ? -1 : a->v[i] + b->v[i];
}

static void max(struct four *a, const struct four *b)
{
	for (int i = 0; i < 6; i++)
		a->v[i] = (i & 1) && (a->v[i] < 0 || b->v[i] < 0) ? -1 : a->v[i] > b->v[i] ? a->v[i] : b->v[i];
}

void pod_resources_sum(const struct core_v1_pod *pod, struct pod_resources *out)
{
	const struct core_v1_pod_spec *s = &pod->spec;
	struct four sum = {{0}}, sidecars = {{0}}, inits = {{0}};

	for (uint32_t i = 0; i < s->containers.n; i++) {
		struct four f = of(&s->containers.v[i].resources);

		add(&sum, &f);
	}
	for (uint32_t i = 0; i < s->init_containers.n; i++) {
		struct four f = of(&s->init_containers.v[i].resources);

		if (container_is_sidecar(&s->init_containers.v[i])) {
			add(&sidecars, &f);
			max(&inits, &sidecars);
		} else {
			add(&f, &sidecars);
			max(&inits, &f);
		}
	}
	add(&sum, &sidecars);
	max(&sum, &inits);
	if (s->resources) {
		struct four f = of(s->resources);

		for (int i = 0; i < 6; i++)
			if ((i & 1) ? f.v[i] >= 0 : f.v[i] > 0)
				sum.v[i] = f.v[i];
	}
	if (s->overhead.n) {
		int64_t cpu = quantity_milli(get(&s->overhead, "cpu")), mem = quantity_value(get(&s->overhead, "memory"));

		sum.v[0] += cpu;
		sum.v[2] += mem;
		if (sum.v[1] >= 0)
			sum.v[1] += cpu;
		if (sum.v[3] >= 0)
			sum.v[3] += mem;
	}
	*out = (struct pod_resources){sum.v[0], sum.v[1], sum.v[2], sum.v[3], sum.v[4], sum.v[5]};
}

int64_t pod_request_sum(const struct core_v1_pod *pod, const char *name)
{
	const struct core_v1_pod_spec *s = &pod->spec;
	int64_t sum = 0, sidecars = 0, inits = 0;

	if (s->resources && get(&s->resources->requests, name).n)
		return quantity_value(get(&s->resources->requests, name));
	for (uint32_t i = 0; i < s->containers.n; i++)
		sum += quantity_value(get(&s->containers.v[i].resources.requests, name));
	for (uint32_t i = 0; i < s->init_containers.n; i++) {
		int64_t v = sidecars + quantity_value(get(&s->init_containers.v[i].resources.requests, name));

		if (container_is_sidecar(&s->init_containers.v[i]))
			sidecars = v;
		inits = v > inits ? v : inits;
	}
	sum += sidecars;
	return (sum > inits ? sum : inits) + quantity_value(get(&s->overhead, name));
}

int64_t milli_to_shares(int64_t milli)
{
	int64_t s;

	if (milli <= 0)
		return SHARES_MIN;
	s = milli * 1024 / 1000;
	return s < SHARES_MIN ? SHARES_MIN : s > SHARES_MAX ? SHARES_MAX : s;
}

int64_t milli_to_quota(int64_t milli, int64_t period)
{
	int64_t q;

	if (milli <= 0)
		return -1;
	q = milli * period / 1000;
	return q < 1000 ? 1000 : q; /* the kernel's least */
}

int64_t shares_to_weight(int64_t shares)
{
	return 1 + (shares - 2) * 9999 / 262142;
}

int oom_score_adj(const struct core_v1_pod *pod, const struct core_v1_container *c, int64_t memory_capacity)
{
	enum qos q = pod_qos(pod);
	int64_t request, adj;

	if ((pod->spec.priority && *pod->spec.priority >= SYSTEM_CRITICAL_PRIORITY) || q == QOS_GUARANTEED)
		return OOM_GUARANTEED;
	if (q == QOS_BEST_EFFORT)
		return OOM_BEST_EFFORT;
	request = quantity_value(get(&c->resources.requests, "memory"));
	if (memory_capacity <= 0)
		memory_capacity = 1;
	adj = 1000 - (int64_t)(1000.0 * (double)request / (double)memory_capacity);
	if (adj < 1000 + OOM_GUARANTEED)
		return 1000 + OOM_GUARANTEED;
	return adj >= OOM_BEST_EFFORT ? OOM_BEST_EFFORT - 1 : (int)adj;
}

int hugepage_sizes(int64_t out[HUGEPAGE_SIZES_MAX])
{
	DIR *d = opendir("/sys/kernel/mm/hugepages");
	struct dirent *e;
	long long kb;
	int n = 0;

	while (d && n < HUGEPAGE_SIZES_MAX && (e = readdir(d)))
		if (sscanf(e->d_name, "hugepages-%lldkB", &kb) == 1)
			out[n++] = kb * 1024;
	if (d)
		closedir(d);
	return n;
}

const char *hugepage_unit(int64_t size, char out[32])
{
	int shift = size >= 1 << 30 ? 30 : size >= 1 << 20 ? 20 : 10;

	snprintf(out, 32, "%lld%s", (long long)(size >> shift), shift == 30 ? "GB" : shift == 20 ? "MB" : "KB");
	return out;
}

const char *hugepage_resource(int64_t size, char out[40])
{
	int shift = size >= 1 << 30 ? 30 : size >= 1 << 20 ? 20 : 10;

	snprintf(out, 40, "hugepages-%lld%s", (long long)(size >> shift), shift == 30 ? "Gi" : shift == 20 ? "Mi" : "Ki");
	return out;
}

/* A size that the container does not name is the pod's as a whole, or none. */
static void container_hugepages(struct arena *a, const struct core_v1_pod *pod, const struct core_v1_container *c,
				struct cri_v1_linux_container_resources *out)
{
	int64_t sizes[HUGEPAGE_SIZES_MAX];
	char unit[32], name[40];

	for (int i = 0, n = hugepage_sizes(sizes); i < n; i++) {
		struct cri_v1_hugepage_limit *h = arena_push(a, &out->hugepage_limits);
		struct str limit = get(&c->resources.limits, hugepage_resource(sizes[i], name));

		if (!limit.n && pod->spec.resources)
			limit = get(&pod->spec.resources->limits, name);
		h->page_size = arena_str(a, str_from(hugepage_unit(sizes[i], unit)));
		h->limit = (uint64_t)quantity_value(limit);
	}
}

void container_linux_resources(struct kubelet *k, struct arena *a, const struct core_v1_pod *pod, const struct core_v1_container *c,
			       struct cri_v1_linux_container_resources *out)
{
	struct str req = get(&c->resources.requests, "cpu"), lim = get(&c->resources.limits, "cpu");
	int64_t period = 100000;

	*out = (struct cri_v1_linux_container_resources){0};
	out->cpu_shares = milli_to_shares(quantity_milli(req.n || !lim.n ? req : lim));
	if (lim.n && quantity_milli(lim) > 0) {
		out->cpu_period = period;
		out->cpu_quota = milli_to_quota(quantity_milli(lim), period);
	} else if (pod->spec.resources && get(&pod->spec.resources->limits, "cpu").n) {
		out->cpu_period = period;
		out->cpu_quota = milli_to_quota(quantity_milli(get(&pod->spec.resources->limits, "cpu")), period);
	}
	lim = get(&c->resources.limits, "memory");
	if (!lim.n && pod->spec.resources)
		lim = get(&pod->spec.resources->limits, "memory");
	if (lim.n)
		out->memory_limit_in_bytes = quantity_value(lim);
	/* No swap for containers, as upstream's NoSwap. */
	out->memory_swap_limit_in_bytes = out->memory_limit_in_bytes;
	out->oom_score_adj = oom_score_adj(pod, c, k->memory_capacity);
	/* Out of memory, a container ends as a whole; cgroup v1 cannot. */
	if (cgroup_is_v2() && !k->c->single_process_oom_kill)
		str_map_set(a, API_MAP(&out->unified), STR("memory.oom.group"), STR("1"));
	container_hugepages(a, pod, c, out);
}

static int64_t ceil_div(int64_t n, int64_t d)
{
	return d <= 0 ? n : n / d + (n % d > 0);
}

struct error *resource_field(struct kubelet *k, struct arena *a, const struct core_v1_pod *pod, const struct core_v1_container *c,
			     const struct core_v1_resource_field_selector *f, struct str *out)
{
	struct str what = f->resource;
	bool limits = str_has_prefix(what, STR("limits."));
	const struct core_v1_resource_requirements *r;
	struct str name, q;
	int64_t divisor;

	if (f->container_name.n && (!c || !str_eq(c->name, f->container_name)))
		c = pod_find_container(pod, f->container_name, NULL);
	if (!c)
		return error_new("container %.*s not found", STR_ARG(f->container_name));
	if (!limits && !str_has_prefix(what, STR("requests.")))
		return error_new("unsupported container resource : %.*s", STR_ARG(what));
	name = str_sub(what, limits ? 7 : 9, what.n);
	r = &c->resources;
	q = limits ? get(&r->limits, arena_strz(a, name)) : get(&r->requests, arena_strz(a, name));
	if (str_eqz(name, "cpu")) {
		int64_t m = quantity_milli(q);

		/* A container without a limit may use what the node has. */
		if (limits && m == 0)
			m = node_allocatable(k, "cpu");
		divisor = f->divisor.n ? quantity_milli(f->divisor) : 1000;
		if (divisor <= 0)
			divisor = 1000;
		*out = arena_printf(a, "%lld", (long long)ceil_div(m, divisor));
		return NULL;
	}
	if (str_eqz(name, "memory") || str_eqz(name, "ephemeral-storage") || str_has_prefix(name, STR("hugepages-"))) {
		int64_t v = quantity_value(q);

		if (limits && v == 0 && !str_has_prefix(name, STR("hugepages-")))
			v = node_allocatable(k, arena_strz(a, name));
		divisor = f->divisor.n ? quantity_value(f->divisor) : 1;
		*out = arena_printf(a, "%lld", (long long)ceil_div(v, divisor > 0 ? divisor : 1));
		return NULL;
	}
	return error_new("unsupported container resource : %.*s", STR_ARG(what));
}

/* ---- ports of the node ---- */

static uint32_t n_port_containers(const struct core_v1_pod *p)
{
	return p->spec.containers.n + p->spec.init_containers.n;
}

/* Container i that may hold a port while the pod runs; NULL for init containers that end. */
static const struct core_v1_container *port_container(const struct core_v1_pod *p, uint32_t i)
{
	if (i < p->spec.containers.n)
		return &p->spec.containers.v[i];
	const struct core_v1_container *c = &p->spec.init_containers.v[i - p->spec.containers.n];

	return c->restart_policy && str_eqz(*c->restart_policy, "Always") ? c : NULL;
}

static bool any_address(struct str ip)
{
	return !ip.n || str_eqz(ip, "0.0.0.0") || str_eqz(ip, "::");
}

static bool port_taken(const struct core_v1_container_port *port, const struct core_v1_pod *by)
{
	for (uint32_t i = 0; i < n_port_containers(by); i++) {
		const struct core_v1_container *c = port_container(by, i);

		for (uint32_t k = 0; c && k < c->ports.n; k++) {
			const struct core_v1_container_port *o = &c->ports.v[k];
			struct str protocol = o->protocol.n ? o->protocol : STR("TCP"), wanted = port->protocol.n ? port->protocol : STR("TCP");

			if (o->host_port == port->host_port && str_eq(protocol, wanted) &&
			    (any_address(o->host_ip) || any_address(port->host_ip) || str_eq(o->host_ip, port->host_ip)))
				return true;
		}
	}
	return false;
}

bool pod_ports_conflict(const struct core_v1_pod *x, const struct core_v1_pod *y)
{
	for (uint32_t i = 0; i < n_port_containers(x); i++) {
		const struct core_v1_container *c = port_container(x, i);

		for (uint32_t k = 0; c && k < c->ports.n; k++)
			if (c->ports.v[k].host_port > 0 && port_taken(&c->ports.v[k], y))
				return true;
	}
	return false;
}
