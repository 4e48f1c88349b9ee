/* kubelet/node.c: the Node object and its Lease: registration, status, heartbeats. */
#include "kubelet/internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/utsname.h>
#include <unistd.h>

#define IMAGES_MAX 50 /* in a Node's status, as upstream */
#define RUNTIME_CHECK_MS 10000

/* ---- addresses ---- */

static void take_ip(struct kubelet *k, const char *text)
{
	if (k->n_host_ips < 2) {
		free(k->host_ips[k->n_host_ips]);
		k->host_ips[k->n_host_ips++] = xstrdup(text);
	}
}

struct error *node_host_ips(struct kubelet *k)
{
	char text[INET6_ADDRSTRLEN];
	struct ifaddrs *list, *i;

	if (k->c->node_ip) {
		struct str rest = str_from(k->c->node_ip);

		while (rest.p) {
			struct str ip = str_trim(str_cut(&rest, ','));
			unsigned char raw[16];
			char *z = str_dupz(ip);

			if (inet_pton(AF_INET, z, raw) != 1 && inet_pton(AF_INET6, z, raw) != 1) {
				struct error *e = error_new("--node-ip: \"%s\" is not an IP address", z);

				free(z);
				return e;
			}
			if (strcmp(z, "0.0.0.0") != 0 && strcmp(z, "::") != 0)
				take_ip(k, z);
			free(z);
		}
		if (k->n_host_ips)
			return NULL;
	}
	if (source_address(AF_INET, text) || source_address(AF_INET6, text)) {
		take_ip(k, text);
		return NULL;
	}
	if (getifaddrs(&list) < 0)
		return error_sys(errno, "reading this host's addresses");
	for (i = list; i && !k->n_host_ips; i = i->ifa_next)
		if (i->ifa_addr && i->ifa_addr->sa_family == AF_INET && (i->ifa_flags & IFF_UP) && !(i->ifa_flags & IFF_LOOPBACK) &&
		    inet_ntop(AF_INET, &((struct sockaddr_in *)(void *)i->ifa_addr)->sin_addr, text, sizeof text))
			take_ip(k, text);
	freeifaddrs(list);
	return k->n_host_ips ? NULL : error_new("this host has no address but loopback; give --node-ip");
}

/* ---- capacity ---- */

static int64_t reserved(struct kubelet *k, const char *name, bool milli)
{
	struct str s = str_map_get(&k->c->system_reserved, str_from(name)), q = str_map_get(&k->c->kube_reserved, str_from(name));

	return milli ? quantity_milli(s) + quantity_milli(q) : quantity_value(s) + quantity_value(q);
}

static int64_t threshold_of(const struct kubelet_threshold *t, int64_t capacity)
{
	return !t->set ? 0 : t->percent > 0 ? (int64_t)((double)capacity * t->percent / 100) : t->quantity;
}

static void sizes(struct kubelet *k)
{
	struct mem_info m;
	struct fs_usage u;
	struct error *e;

	if (!k->cpus)
		k->cpus = (int)sysconf(_SC_NPROCESSORS_ONLN);
	if (!k->memory_capacity) {
		e = mem_info(&m);
		if (!e)
			k->memory_capacity = m.total;
		log_and_free(e, "memory");
	}
	if (!k->ephemeral_capacity) {
		e = fs_usage(k->c->root_dir, &u);
		if (!e)
			k->ephemeral_capacity = u.capacity;
		log_and_free(e, "file system of %s", k->c->root_dir);
	}
}

/* Huge pages are set aside when the machine boots or by its administrator. */
static int64_t hugepages_capacity(int64_t size)
{
	char path[96];
	long long n = 0;

	snprintf(path, sizeof path, "/sys/kernel/mm/hugepages/hugepages-%lldkB/nr_hugepages", (long long)(size / 1024));
	FILE *f = fopen(path, "re");

	if (f && fscanf(f, "%lld", &n) != 1)
		n = 0;
	if (f)
		fclose(f);
	return n * size;
}

/* All of them; no other memory is made of them. */
static int64_t hugepages_total(void)
{
	int64_t list[HUGEPAGE_SIZES_MAX], sum = 0;

	for (int i = 0, n = hugepage_sizes(list); i < n; i++)
		sum += hugepages_capacity(list[i]);
	return sum;
}

int64_t node_pods_memory(struct kubelet *k)
{
	sizes(k);
	return k->memory_capacity - reserved(k, "memory", false);
}

int64_t node_allocatable(struct kubelet *k, const char *resource)
{
	int64_t v = 0;

	sizes(k);
	if (strcmp(resource, "cpu") == 0)
		v = (int64_t)k->cpus * 1000 - reserved(k, "cpu", true);
	else if (strcmp(resource, "memory") == 0)
		v = node_pods_memory(k) - threshold_of(&k->c->eviction_hard[EVICT_MEMORY_AVAILABLE], k->memory_capacity) - hugepages_total();
	else if (strcmp(resource, "ephemeral-storage") == 0)
		v = k->ephemeral_capacity - reserved(k, "ephemeral-storage", false) -
		    threshold_of(&k->c->eviction_hard[EVICT_NODEFS_AVAILABLE], k->ephemeral_capacity);
	return v > 0 ? v : 0;
}

void node_capacity(struct kubelet *k, struct arena *a, struct str_map *cap, struct str_map *alloc)
{
	int64_t cpu = node_allocatable(k, "cpu"), pages[HUGEPAGE_SIZES_MAX];
	char name[40];

	str_map_set(a, cap, STR("cpu"), arena_printf(a, "%d", k->cpus));
	str_map_set(a, cap, STR("memory"), arena_printf(a, "%lldKi", (long long)(k->memory_capacity / 1024)));
	str_map_set(a, cap, STR("ephemeral-storage"), arena_printf(a, "%lldKi", (long long)(k->ephemeral_capacity / 1024)));
	str_map_set(a, cap, STR("pods"), arena_printf(a, "%d", k->c->max_pods));
	str_map_set(a, alloc, STR("cpu"), quantity_from_milli(a, cpu));
	str_map_set(a, alloc, STR("memory"), arena_printf(a, "%lldKi", (long long)(node_allocatable(k, "memory") / 1024)));
	str_map_set(a, alloc, STR("ephemeral-storage"), arena_printf(a, "%lld", (long long)node_allocatable(k, "ephemeral-storage")));
	str_map_set(a, alloc, STR("pods"), arena_printf(a, "%d", k->c->max_pods));
	for (int i = 0, n = hugepage_sizes(pages); i < n; i++) {
		struct str resource = arena_str(a, str_from(hugepage_resource(pages[i], name)));
		int64_t size = hugepages_capacity(pages[i]);

		str_map_set(a, cap, resource, arena_printf(a, "%lldKi", (long long)(size / 1024)));
		str_map_set(a, alloc, resource, arena_printf(a, "%lldKi", (long long)(size / 1024)));
	}
}

/* ---- status ---- */

static struct str first_line(struct arena *a, const char *path)
{
	buf_cleanup struct buf b = {0};
	struct error *e = access(path, R_OK) == 0 ? file_read(path, &b) : NULL;
	struct str rest = buf_view(&b);

	error_free(e);
	return arena_str(a, str_trim(str_cut(&rest, '\n')));
}

static struct str os_image(struct arena *a)
{
	buf_cleanup struct buf b = {0};
	struct error *e = file_read("/etc/os-release", &b);

	error_free(e);
	for (struct str rest = buf_view(&b); rest.p;) {
		struct str line = str_cut(&rest, '\n');

		if (str_has_prefix(line, STR("PRETTY_NAME="))) {
			line = str_sub(line, 12, line.n);
			if (line.n >= 2 && line.p[0] == '"')
				line = str_sub(line, 1, line.n - 1);
			return arena_str(a, line);
		}
	}
	return STR("Linux");
}

static struct str arch(const char *machine)
{
	if (strcmp(machine, "x86_64") == 0)
		return STR("amd64");
	if (strcmp(machine, "aarch64") == 0)
		return STR("arm64");
	if (strncmp(machine, "armv", 4) == 0)
		return STR("arm");
	return str_from(machine);
}

/* What the runtime says of itself; keeps runtime_ok, network_ok, and kicks pods that waited for them. */
static void check_runtime(struct kubelet *k, struct arena *a, struct cri_v1_status_response *resp)
{
	struct cri_v1_status_request req = {0};
	bool runtime = k->runtime_ok, network = k->network_ok;
	struct error *e;

	if (!k->runtime_version) {
		struct cri_v1_version_request vreq = {.version = STR("0.1.0")};
		struct cri_v1_version_response vresp = {0};

		e = CRI_CALL(k, a, RUNTIME, Version, version, &vreq, &vresp);
		if (!e) {
			k->runtime_name = str_dupz(vresp.runtime_name);
			k->runtime_version = xasprintf("%.*s://%.*s", STR_ARG(vresp.runtime_name), STR_ARG(vresp.runtime_version));
		}
		error_free(e);
	}
	e = CRI_CALL(k, a, RUNTIME, Status, status, &req, resp);
	free(k->runtime_message);
	free(k->network_message);
	k->runtime_message = k->network_message = NULL;
	k->runtime_ok = k->network_ok = false;
	if (e) {
		k->runtime_message = xasprintf("container runtime is down: %s", e->message);
		error_free(e);
	}
	for (uint32_t i = 0; resp->status && i < resp->status->conditions.n; i++) {
		const struct cri_v1_runtime_condition *c = &resp->status->conditions.v[i];
		char *message = c->status ? NULL
					  : xasprintf("%.*s=false reason:%.*s message:%.*s", STR_ARG(c->type), STR_ARG(c->reason), STR_ARG(c->message));

		if (str_eqz(c->type, CRI_CONDITION_RUNTIME_READY)) {
			k->runtime_ok = c->status;
			if (message)
				k->runtime_message = xasprintf("container runtime not ready: %s", message);
		} else if (str_eqz(c->type, CRI_CONDITION_NETWORK_READY)) {
			k->network_ok = c->status;
			if (message)
				k->network_message = xasprintf("container runtime network not ready: %s", message);
		}
		free(message);
	}
	if ((k->runtime_ok && !runtime) || (k->network_ok && !network)) {
		size_t it = 0;
		void *value;

		while (map_next(&k->pods, &it, NULL, &value))
			pod_kick(value);
	}
}

static void add_condition(struct kubelet *k, struct arena *a, struct core_v1_node_status *s, const struct core_v1_node_status *old, const char *type,
			  bool status, const char *reason, const char *message)
{
	struct core_v1_node_condition *c = arena_push(a, &s->conditions);

	(void)k;
	c->type = str_from(type);
	c->status = status ? STR("True") : STR("False");
	c->reason = str_from(reason);
	c->message = str_from(message);
	c->last_heartbeat_time = kubelet_time_now();
	c->last_transition_time = kubelet_time_now();
	for (uint32_t i = 0; old && i < old->conditions.n; i++)
		if (str_eqz(old->conditions.v[i].type, type) && str_eq(old->conditions.v[i].status, c->status))
			c->last_transition_time = old->conditions.v[i].last_transition_time;
}

static void images(struct kubelet *k, struct arena *a, struct core_v1_node_status *s)
{
	struct cri_v1_list_images_request req = {0};
	struct cri_v1_list_images_response resp = {0};
	struct error *e = CRI_CALL(k, a, IMAGE, ListImages, list_images, &req, &resp);

	if (e) {
		log_v(2, "images: %s", e->message);
		error_free(e);
		return;
	}
	for (uint32_t i = 0; i < resp.images.n && i < IMAGES_MAX; i++) {
		const struct cri_v1_image *im = &resp.images.v[i];
		struct core_v1_container_image *o = arena_push(a, &s->images);

		for (uint32_t j = 0; j < im->repo_digests.n && j < 5; j++)
			*arena_push(a, &o->names) = im->repo_digests.v[j];
		for (uint32_t j = 0; j < im->repo_tags.n && j < 5; j++)
			*arena_push(a, &o->names) = im->repo_tags.v[j];
		o->size_bytes = (int64_t)im->size;
	}
}

static void make_status(struct kubelet *k, struct arena *a, const struct core_v1_node_status *old, struct core_v1_node_status *s)
{
	struct cri_v1_status_response rs = {0};
	struct utsname u;
	bool ready;
	const char *why;

	*s = (struct core_v1_node_status){0};
	check_runtime(k, a, &rs);
	node_capacity(k, a, API_MAP(&s->capacity), API_MAP(&s->allocatable));
	uname(&u);
	s->node_info.machine_id = first_line(a, "/etc/machine-id");
	s->node_info.system_uuid = first_line(a, "/sys/class/dmi/id/product_uuid");
	if (!s->node_info.system_uuid.n)
		s->node_info.system_uuid = s->node_info.machine_id;
	s->node_info.boot_id = first_line(a, "/proc/sys/kernel/random/boot_id");
	s->node_info.kernel_version = arena_str(a, str_from(u.release));
	s->node_info.os_image = os_image(a);
	s->node_info.container_runtime_version = str_from(k->runtime_version);
	s->node_info.kubelet_version = STR(KUBELET_VERSION);
	s->node_info.operating_system = STR("linux");
	s->node_info.architecture = arena_str(a, arch(u.machine));
	s->daemon_endpoints.kubelet_endpoint.port = k->c->port;
	for (int i = 0; i < k->n_host_ips; i++) {
		struct core_v1_node_address *ad = arena_push(a, &s->addresses);

		ad->type = STR("InternalIP");
		ad->address = str_from(k->host_ips[i]);
	}
	*arena_push(a, &s->addresses) = (struct core_v1_node_address){STR("Hostname"), str_from(k->c->node_name)};
	images(k, a, s);
	for (uint32_t i = 0; i < rs.runtime_handlers.n; i++) {
		const struct cri_v1_runtime_handler *h = &rs.runtime_handlers.v[i];
		struct core_v1_node_runtime_handler *o = arena_push(a, &s->runtime_handlers);

		o->name = h->name;
		if (h->features) {
			o->features = arena_new(a, struct core_v1_node_runtime_handler_features);
			o->features->recursive_read_only_mounts = arena_new(a, bool);
			*o->features->recursive_read_only_mounts = h->features->recursive_read_only_mounts;
			o->features->user_namespaces = arena_new(a, bool);
			*o->features->user_namespaces = h->features->user_namespaces;
		}
	}
	if (rs.features) {
		s->features = arena_new(a, struct core_v1_node_features);
		s->features->supplemental_groups_policy = arena_new(a, bool);
		*s->features->supplemental_groups_policy = rs.features->supplemental_groups_policy;
	}
	add_condition(k, a, s, old, "MemoryPressure", k->memory_pressure, k->memory_pressure ? "KubeletHasInsufficientMemory" : "KubeletHasSufficientMemory",
		      k->memory_pressure ? "kubelet has insufficient memory available" : "kubelet has sufficient memory available");
	add_condition(k, a, s, old, "DiskPressure", k->disk_pressure, k->disk_pressure ? "KubeletHasDiskPressure" : "KubeletHasNoDiskPressure",
		      k->disk_pressure ? "kubelet has disk pressure" : "kubelet has no disk pressure");
	add_condition(k, a, s, old, "PIDPressure", k->pid_pressure, k->pid_pressure ? "KubeletHasInsufficientPID" : "KubeletHasSufficientPID",
		      k->pid_pressure ? "kubelet has insufficient PID available" : "kubelet has sufficient PID available");
	ready = k->runtime_ok && k->network_ok;
	why = k->runtime_message ? k->runtime_message : k->network_message ? k->network_message : "container runtime status check may not have completed yet";
	add_condition(k, a, s, old, "Ready", ready, ready ? "KubeletReady" : "KubeletNotReady", ready ? "kubelet is posting ready status" : why);
}

/* The patch of a Node's status; addresses are replaced as a whole. */
static void status_body(const struct core_v1_node_status *s, struct buf *b)
{
	struct core_v1_node_status rest = *s;

	memset(&rest.addresses, 0, sizeof rest.addresses);
	buf_puts(b, "{\"status\":");
	json_encode(b, &core_v1_node_status_type, &rest);
	b->n--;
	buf_puts(b, ",\"addresses\":[");
	for (uint32_t i = 0; i < s->addresses.n; i++) {
		json_encode(b, &core_v1_node_address_type, &s->addresses.v[i]);
		buf_putc(b, ',');
	}
	buf_puts(b, "{\"$patch\":\"replace\"}]}}");
}

/* Equal but for the times of heartbeats? */
static bool same_status(struct arena *a, const struct core_v1_node_status *x, const struct core_v1_node_status *y)
{
	struct core_v1_node_status u, v;

	object_copy(a, &core_v1_node_status_type, x, &u);
	object_copy(a, &core_v1_node_status_type, y, &v);
	for (uint32_t i = 0; i < u.conditions.n; i++)
		u.conditions.v[i].last_heartbeat_time = (struct api_time){0};
	for (uint32_t i = 0; i < v.conditions.n; i++)
		v.conditions.v[i].last_heartbeat_time = (struct api_time){0};
	return object_equal(&core_v1_node_status_type, &u, &v);
}

/* ---- registration ---- */

static void default_labels(struct kubelet *k, struct arena *a, struct str_map *l)
{
	struct utsname u;
	struct str ar;

	uname(&u);
	ar = arena_str(a, arch(u.machine));
	str_map_set(a, l, STR("kubernetes.io/hostname"), str_from(k->c->node_name));
	str_map_set(a, l, STR("kubernetes.io/os"), STR("linux"));
	str_map_set(a, l, STR("kubernetes.io/arch"), ar);
	str_map_set(a, l, STR("beta.kubernetes.io/os"), STR("linux"));
	str_map_set(a, l, STR("beta.kubernetes.io/arch"), ar);
	for (uint32_t i = 0; i < k->c->node_labels.n; i++)
		str_map_set(a, l, k->c->node_labels.v[i].key, k->c->node_labels.v[i].value);
}

static void keep_uid(struct kubelet *k, struct str uid)
{
	free(k->node_uid);
	k->node_uid = str_dupz(uid);
}

static struct error *adopt_node(struct kubelet *k, struct arena *a)
{
	struct core_v1_node *n = NULL;
	struct str_map want = {0};
	buf_cleanup struct buf b = {0};
	bool differs = false;

	TRY(client_get(k->client, a, &core_v1_nodes_resource, STR_NULL, str_from(k->c->node_name), (void **)&n));
	keep_uid(k, n->metadata.uid);
	default_labels(k, a, &want);
	buf_puts(&b, "{\"metadata\":{\"labels\":{");
	for (uint32_t i = 0; i < want.n; i++) {
		struct str have = str_map_get(API_MAP(&n->metadata.labels), want.v[i].key);

		if (have.p && str_eq(have, want.v[i].value))
			continue;
		buf_printf(&b, "%s\"%.*s\":\"%.*s\"", differs ? "," : "", STR_ARG(want.v[i].key), STR_ARG(want.v[i].value));
		differs = true;
	}
	buf_puts(&b, "}}}");
	if (differs)
		TRY(client_patch(k->client, a, &core_v1_nodes_resource, STR_NULL, str_from(k->c->node_name), NULL, PATCH_STRATEGIC, buf_view(&b), NULL,
				 false, NULL));
	if (k->c->provider_id && !n->spec.provider_id.n) {
		b.n = 0;
		buf_printf(&b, "{\"spec\":{\"providerID\":\"%s\"}}", k->c->provider_id);
		TRY(client_patch(k->client, a, &core_v1_nodes_resource, STR_NULL, str_from(k->c->node_name), NULL, PATCH_STRATEGIC, buf_view(&b), NULL,
				 false, NULL));
	}
	return NULL;
}

static struct error *register_node(struct kubelet *k)
{
	arena_cleanup struct arena a = {0};
	struct core_v1_node node = {0}, *made = NULL;
	struct error *e;

	if (!k->c->register_node)
		return adopt_node(k, &a);
	node.metadata.name = str_from(k->c->node_name);
	default_labels(k, &a, API_MAP(&node.metadata.labels));
	str_map_set(&a, API_MAP(&node.metadata.annotations), STR("volumes.kubernetes.io/controller-managed-attach-detach"), STR("true"));
	node.spec.provider_id = str_from(k->c->provider_id);
	for (uint32_t i = 0; i < k->c->taints.n; i++)
		*arena_push(&a, &node.spec.taints) = k->c->taints.v[i];
	if (k->c->cloud_provider && strcmp(k->c->cloud_provider, "external") == 0) {
		struct core_v1_taint *t = arena_push(&a, &node.spec.taints);

		t->key = STR("node.cloudprovider.kubernetes.io/uninitialized");
		t->value = STR("true");
		t->effect = STR("NoSchedule");
		if (k->n_host_ips)
			str_map_set(&a, API_MAP(&node.metadata.annotations), STR("alpha.kubernetes.io/provided-node-ip"), str_from(k->host_ips[0]));
	}
	/* With the status at once: a node that is ready need not wait for a second write. */
	make_status(k, &a, NULL, &node.status);
	e = client_create(k->client, &a, &core_v1_nodes_resource, STR_NULL, &node, (void **)&made);
	if (error_is(e, 409, NULL)) {
		error_free(e);
		return adopt_node(k, &a);
	}
	if (e)
		return e;
	keep_uid(k, made->metadata.uid);
	log_info("registered node %s", k->c->node_name);
	return NULL;
}

/* Hands the pod range to the runtime when it is known or changed. */
static void pod_cidr(struct kubelet *k, const struct core_v1_node *n)
{
	arena_cleanup struct arena a = {0};
	buf_cleanup struct buf b = {0};
	struct cri_v1_network_config net = {0};
	struct cri_v1_runtime_config config = {.network_config = &net};
	struct cri_v1_update_runtime_config_request req = {.runtime_config = &config};
	struct cri_v1_update_runtime_config_response resp = {0};
	struct error *e;

	for (uint32_t i = 0; i < n->spec.pod_cidrs.n; i++)
		buf_printf(&b, "%s%.*s", i ? "," : "", STR_ARG(n->spec.pod_cidrs.v[i]));
	if (!b.n)
		buf_str(&b, n->spec.pod_cidr);
	if (!b.n || (k->pod_cidr && strcmp(k->pod_cidr, buf_z(&b)) == 0))
		return;
	net.pod_cidr = buf_view(&b);
	e = CRI_CALL(k, &a, RUNTIME, UpdateRuntimeConfig, update_runtime_config, &req, &resp);
	if (e) {
		log_and_free(e, "giving the runtime the pod range %s", buf_z(&b));
		return; /* tried again with the next status */
	}
	free(k->pod_cidr);
	k->pod_cidr = xstrdup(buf_z(&b));
	log_info("pod range of this node is %s", k->pod_cidr);
}

void node_kick(struct kubelet *k)
{
	k->node_dirty = true;
	waitq_wake_all(&k->node_q);
}

static void on_node(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct kubelet *k = ctx;

	(void)old;
	(void)new_;
	if (ev == INFORMER_DELETED)
		k->node_registered = false; /* make it again */
	else if (ev == INFORMER_UPDATED && k->pod_cidr)
		return; /* heartbeats: our own */
	node_kick(k);
}

static void node_event(struct kubelet *k, const char *type, const char *reason, const char *message)
{
	struct core_v1_object_reference ref = {.kind = STR("Node"), .name = str_from(k->c->node_name), .uid = str_from(k->c->node_name)};

	if (k->events)
		event_record(k->events, &ref, type, reason, "%s", message);
}

static bool is_ready(const struct core_v1_node_status *s)
{
	for (uint32_t i = 0; i < s->conditions.n; i++)
		if (str_eqz(s->conditions.v[i].type, "Ready"))
			return str_eqz(s->conditions.v[i].status, "True");
	return false;
}

void node_run(void *arg)
{
	struct kubelet *k = arg;
	int64_t backoff = 20, written = 0;
	struct arena last_arena = {0};
	struct core_v1_node_status *last = NULL;
	struct informer_opts o = {.resource = &core_v1_nodes_resource};
	arena_cleanup struct arena once = {0};
	struct error *e;

	o.field_selector = arena_printf(&once, "metadata.name=%s", k->c->node_name);
	while (!fiber_cancelled()) {
		arena_cleanup struct arena a = {0};
		struct core_v1_node *node = NULL;
		struct core_v1_node_status s;
		buf_cleanup struct buf b = {0};

		if (!k->client) { /* static pods only: the runtime is still to be watched */
			struct cri_v1_status_response rs = {0};

			check_runtime(k, &a, &rs);
			e = fiber_sleep(k->runtime_ok ? RUNTIME_CHECK_MS : 200);
			error_free(e);
			continue;
		}
		if (!k->node_registered) {
			e = register_node(k);
			if (e) {
				if (backoff > 1000)
					log_warn("registering node %s: %s", k->c->node_name, e->message);
				error_free(e);
				e = fiber_sleep(backoff);
				error_free(e);
				backoff = backoff * 2 > 7000 ? 7000 : backoff * 2;
				continue;
			}
			k->node_registered = true;
			backoff = 20;
			written = 0;
			if (!k->node_informer) {
				k->node_informer = informer_new(k->client, &o);
				informer_on_event(k->node_informer, on_node, k);
				informer_start(k->node_informer);
				node_event(k, "Normal", "Starting", "Starting kubelet.");
			}
		}
		k->node_dirty = false;
		if (informer_synced(k->node_informer))
			node = informer_get(k->node_informer, &a, STR_NULL, str_from(k->c->node_name));
		if (node)
			pod_cidr(k, node);
		make_status(k, &a, node ? &node->status : last, &s);
		if (!last || !same_status(&a, last, &s) || (node && is_ready(&node->status) != is_ready(&s)) || now_ms() - written >= k->c->node_status_report_s * 1000) {
			status_body(&s, &b);
			e = client_patch(k->client, &a, &core_v1_nodes_resource, STR_NULL, str_from(k->c->node_name), "status", PATCH_STRATEGIC,
					 buf_view(&b), NULL, false, NULL);
			if (e) {
				log_v(1, "writing the node's status: %s", e->message);
				if (error_is(e, 404, NULL))
					k->node_registered = false;
				error_free(e);
				e = fiber_sleep(1000);
				error_free(e);
				continue;
			}
			if ((last && is_ready(last) != is_ready(&s)) || (!last && is_ready(&s))) {
				log_info("node %s is %s", k->c->node_name, is_ready(&s) ? "ready" : "not ready");
				node_event(k, is_ready(&s) ? "Normal" : "Warning", is_ready(&s) ? "NodeReady" : "NodeNotReady",
					   arena_printf(&a, "Node %s status is now: %s", k->c->node_name, is_ready(&s) ? "NodeReady" : "NodeNotReady").p);
			}
			written = now_ms();
			arena_free(&last_arena);
			last = arena_new(&last_arena, struct core_v1_node_status);
			/* Through text, so that it holds nothing of this round's arena. */
			{
				buf_cleanup struct buf copy = {0};
				struct str text;

				json_encode(&copy, &core_v1_node_status_type, &s);
				text = arena_str(&last_arena, buf_view(&copy));
				e = json_decode(&last_arena, &core_v1_node_status_type, text, NULL, last);
				log_and_free(e, "node status");
			}
		}
		if (!k->node_dirty) {
			/* Until the network is there, look often: the node is to be ready within a second. */
			bool waiting = !k->runtime_ok || !k->network_ok;

			e = waitq_wait_ms(&k->node_q, waiting ? 200 : k->c->node_status_update_s * 1000);
			error_free(e);
		}
	}
	arena_free(&last_arena);
}

/* ---- lease ---- */

static struct error *renew(struct kubelet *k, struct str *version, struct arena *keep)
{
	arena_cleanup struct arena a = {0};
	struct coordination_v1_lease lease = {0}, *out = NULL;
	struct str holder = str_from(k->c->node_name);
	int32_t seconds = (int32_t)k->c->lease_s;
	struct api_time now;
	struct meta_v1_owner_reference *o;
	int64_t ns = wall_ns();
	struct error *e;

	now = (struct api_time){.s = ns / 1000000000, .ns = (int32_t)(ns % 1000000000 / 1000 * 1000), .set = true};
	lease.metadata.name = holder;
	lease.metadata.namespace = STR("kube-node-lease");
	lease.metadata.resource_version = *version;
	o = arena_push(&a, &lease.metadata.owner_references);
	o->api_version = STR("v1");
	o->kind = STR("Node");
	o->name = holder;
	o->uid = str_from(k->node_uid);
	lease.spec.holder_identity = &holder;
	lease.spec.lease_duration_seconds = &seconds;
	lease.spec.renew_time = &now;
	if (version->n)
		e = client_update(k->client, &a, &coordination_v1_leases_resource, lease.metadata.namespace, NULL, &lease, (void **)&out);
	else
		e = client_create(k->client, &a, &coordination_v1_leases_resource, lease.metadata.namespace, &lease, (void **)&out);
	if (error_is(e, 409, NULL) || (error_is(e, 404, NULL) && version->n)) {
		/* There already, or changed, or gone: look and try once more. */
		bool gone = error_is(e, 404, NULL);

		error_clear(&e);
		*version = STR_NULL;
		if (!gone) {
			struct coordination_v1_lease *have = NULL;

			TRY(client_get(k->client, &a, &coordination_v1_leases_resource, lease.metadata.namespace, holder, (void **)&have));
			lease.metadata.resource_version = have->metadata.resource_version;
			e = client_update(k->client, &a, &coordination_v1_leases_resource, lease.metadata.namespace, NULL, &lease, (void **)&out);
		} else {
			lease.metadata.resource_version = STR_NULL;
			e = client_create(k->client, &a, &coordination_v1_leases_resource, lease.metadata.namespace, &lease, (void **)&out);
		}
	}
	if (e)
		return e;
	arena_reset(keep);
	*version = arena_str(keep, out->metadata.resource_version);
	return NULL;
}

void lease_run(void *arg)
{
	struct kubelet *k = arg;
	arena_cleanup struct arena keep = {0};
	struct str version = STR_NULL;
	int64_t backoff = 200;
	struct error *e;

	while (!fiber_cancelled()) {
		int64_t sleep = k->c->lease_s * 1000 / 4;

		if (!k->node_registered) {
			e = fiber_sleep(100);
			error_free(e);
			continue;
		}
		e = renew(k, &version, &keep);
		if (e) {
			log_v(1, "node lease: %s", e->message);
			error_free(e);
			sleep = backoff;
			backoff = backoff * 2 > 7000 ? 7000 : backoff * 2;
		} else {
			backoff = 200;
		}
		e = fiber_sleep(sleep);
		error_free(e);
	}
}
