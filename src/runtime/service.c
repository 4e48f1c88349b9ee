/* The CRI methods: decode, do, encode. */
#include "runtime/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_PULLS 2          /* at once: each holds a thread of the pool */
#define USAGE_TTL_MS 60000   /* disk usage is counted at most once a minute */
#define STREAM_CHUNK 100     /* elements of one message of a Stream... call */

/* ---- helpers ---- */

static bool labels_match(const void *labels, const void *selector)
{
	const struct str_map *l = labels, *s = selector;
	for (uint32_t i = 0; i < s->n; i++)
		if (!str_map_has(l, s->v[i].key) || !str_eq(str_map_get(l, s->v[i].key), s->v[i].value))
			return false;
	return true;
}

static struct error *sandbox_of(struct rt *rt, struct str id, struct rt_sandbox **out)
{
	*out = rt_sandbox_get(rt, id);
	return *out ? NULL : error_status(404, "NotFound", "pod sandbox \"%.*s\" not found", STR_ARG(id));
}

static struct error *container_of_id(struct rt *rt, struct str id, struct rt_container **out)
{
	*out = rt_container_get(rt, id);
	return *out ? NULL : error_status(404, "NotFound", "container \"%.*s\" not found", STR_ARG(id));
}

static struct cri_v1_u_int64_value *u64(struct arena *a, uint64_t v)
{
	struct cri_v1_u_int64_value *p = arena_new(a, struct cri_v1_u_int64_value);
	p->value = v;
	return p;
}

/* ---- runtime ---- */

static struct error *version(struct rt *rt, struct arena *a, const struct cri_v1_version_request *q, struct cri_v1_version_response *r)
{
	r->version = STR("0.1.0"); /* of the kubelet's runtime API, fixed for long */
	r->runtime_name = STR(RT_NAME);
	r->runtime_version = STR(RT_VERSION);
	r->runtime_api_version = STR(RT_API_VERSION);
	return NULL;
}

static struct error *status(struct rt *rt, struct arena *a, const struct cri_v1_status_request *q, struct cri_v1_status_response *r)
{
	r->status = arena_new(a, struct cri_v1_runtime_status);
	struct cri_v1_runtime_condition *c = arena_push(a, &r->status->conditions);
	c->type = STR(CRI_CONDITION_RUNTIME_READY);
	c->status = true;
	c = arena_push(a, &r->status->conditions);
	c->type = STR(CRI_CONDITION_NETWORK_READY);
	str_cleanup char *cni = rt_cni_config(rt);
	c->status = cni || rt->network_up;
	if (!c->status) {
		c->reason = STR("NetworkPluginNotReady");
		c->message = rt->network_error ? arena_str(a, str_from(rt->network_error))
					       : STR("Network plugin returns error: no pod CIDR is known yet and no CNI configuration was found");
	}
	struct cri_v1_runtime_handler *h = arena_push(a, &r->runtime_handlers);
	h->features = arena_new(a, struct cri_v1_runtime_handler_features);
	h->features->recursive_read_only_mounts = true;
	h = arena_push(a, &r->runtime_handlers);
	h->name = STR("crun");
	h->features = r->runtime_handlers.v[0].features;
	r->features = arena_new(a, struct cri_v1_runtime_features);
	r->features->supplemental_groups_policy = true;
	if (q->verbose) {
		static const char *const modes[] = {"v1", "v2", "v1 beside v2"};
		str_map_set(a, API_MAP(&r->info), STR("cgroups"), str_from(modes[rt->cgroups]));
		str_map_set(a, API_MAP(&r->info), STR("storage"), rt->overlay ? STR("overlayfs") : STR("copy (overlayfs does not work here)"));
		str_map_set(a, API_MAP(&r->info), STR("network"),
			    cni ? arena_str(a, str_from(cni)) : rt->network_up ? arena_printf(a, "bridge %s", rt->o.bridge) : STR("none"));
	}
	return NULL;
}

static struct error *runtime_config(struct rt *rt, struct arena *a, const struct cri_v1_runtime_config_request *q,
				    struct cri_v1_runtime_config_response *r)
{
	r->linux_ = arena_new(a, struct cri_v1_linux_runtime_configuration);
	r->linux_->cgroup_driver = CRI_CGROUP_CGROUPFS;
	return NULL;
}

static struct error *update_runtime_config(struct rt *rt, struct arena *a, const struct cri_v1_update_runtime_config_request *q,
					   struct cri_v1_update_runtime_config_response *r)
{
	if (!q->runtime_config || !q->runtime_config->network_config || !q->runtime_config->network_config->pod_cidr.n)
		return NULL;
	return rt_network_configure(rt, q->runtime_config->network_config->pod_cidr);
}

/* ---- sandboxes ---- */

static struct error *run_pod_sandbox(struct rt *rt, struct arena *a, const struct cri_v1_run_pod_sandbox_request *q,
				     struct cri_v1_run_pod_sandbox_response *r)
{
	sandbox_cleanup struct rt_sandbox *s = NULL;
	TRY(rt_run_sandbox(rt, q, &s));
	r->pod_sandbox_id = arena_str(a, str_from(s->id));
	return NULL;
}

static struct error *stop_pod_sandbox(struct rt *rt, struct arena *a, const struct cri_v1_stop_pod_sandbox_request *q,
				      struct cri_v1_stop_pod_sandbox_response *r)
{
	sandbox_cleanup struct rt_sandbox *s = rt_sandbox_get(rt, q->pod_sandbox_id);
	return s ? rt_stop_sandbox(rt, s) : NULL; /* idempotent, says CRI */
}

static struct error *remove_pod_sandbox(struct rt *rt, struct arena *a, const struct cri_v1_remove_pod_sandbox_request *q,
					struct cri_v1_remove_pod_sandbox_response *r)
{
	sandbox_cleanup struct rt_sandbox *s = rt_sandbox_get(rt, q->pod_sandbox_id);
	return s ? rt_remove_sandbox(rt, s) : NULL;
}

static struct error *pod_sandbox_status(struct rt *rt, struct arena *a, const struct cri_v1_pod_sandbox_status_request *q,
					struct cri_v1_pod_sandbox_status_response *r)
{
	sandbox_cleanup struct rt_sandbox *s = NULL;
	TRY(sandbox_of(rt, q->pod_sandbox_id, &s));
	r->status = arena_new(a, struct cri_v1_pod_sandbox_status);
	rt_sandbox_status(rt, a, s, r->status);
	for (struct rt_container *c = rt->container_list; c; c = c->next)
		if (c->sandbox == s && c->rec.state != CRI_CONTAINER_UNKNOWN)
			rt_container_status(rt, a, c, arena_push(a, &r->containers_statuses));
	r->timestamp = wall_ns();
	if (q->verbose) {
		str_cleanup char *dir = rt_sandbox_dir(rt, s->id);
		str_map_set(a, API_MAP(&r->info), STR("dir"), arena_str(a, str_from(dir)));
		str_map_set(a, API_MAP(&r->info), STR("interface"), s->rec.veth);
	}
	return NULL;
}

static struct error *list_pod_sandbox(struct rt *rt, struct arena *a, const struct cri_v1_list_pod_sandbox_request *q,
				      struct cri_v1_list_pod_sandbox_response *r)
{
	const struct cri_v1_pod_sandbox_filter *f = q->filter;
	for (struct rt_sandbox *s = rt->sandbox_list; s; s = s->next) {
		const struct cri_v1_pod_sandbox_config *c = s->rec.config;
		int state = s->rec.not_ready ? CRI_SANDBOX_NOTREADY : CRI_SANDBOX_READY;
		if (!c || (f && ((f->id.n && !str_has_prefix(str_from(s->id), f->id)) || (f->state && f->state->state != state) ||
				 !labels_match(&c->labels, &f->label_selector))))
			continue;
		struct cri_v1_pod_sandbox *o = arena_push(a, &r->items);
		o->id = str_from(s->id);
		o->metadata = c->metadata;
		o->state = state;
		o->created_at = s->rec.created_at;
		o->runtime_handler = s->rec.runtime_handler;
		memcpy(&o->labels, &c->labels, sizeof(o->labels));
		memcpy(&o->annotations, &c->annotations, sizeof(o->annotations));
	}
	return NULL;
}

static struct error *update_pod_sandbox_resources(struct rt *rt, struct arena *a, const struct cri_v1_update_pod_sandbox_resources_request *q,
						  struct cri_v1_update_pod_sandbox_resources_response *r)
{
	/* The pod's own cgroup is the kubelet's: the runtime only has to know the pod. */
	sandbox_cleanup struct rt_sandbox *s = NULL;
	return sandbox_of(rt, q->pod_sandbox_id, &s);
}

static struct error *port_forward(struct rt *rt, struct arena *a, const struct cri_v1_port_forward_request *q,
				  struct cri_v1_port_forward_response *r)
{
	sandbox_cleanup struct rt_sandbox *s = NULL;
	TRY(sandbox_of(rt, q->pod_sandbox_id, &s));
	if (s->rec.not_ready)
		return error_status(412, "FailedPrecondition", "pod sandbox %s is not ready", s->id);
	return rt_stream_url(rt, a, RT_STREAM_PORTFORWARD, str_from(s->id), NULL, false, false, false, false, &r->url);
}

/* ---- containers ---- */

static struct error *create_container(struct rt *rt, struct arena *a, const struct cri_v1_create_container_request *q,
				      struct cri_v1_create_container_response *r)
{
	container_cleanup struct rt_container *c = NULL;
	TRY(rt_create_container(rt, q, &c));
	r->container_id = arena_str(a, str_from(c->id));
	return NULL;
}

static struct error *start_container(struct rt *rt, struct arena *a, const struct cri_v1_start_container_request *q,
				     struct cri_v1_start_container_response *r)
{
	container_cleanup struct rt_container *c = NULL;
	TRY(container_of_id(rt, q->container_id, &c));
	return rt_start_container(rt, c);
}

static struct error *stop_container(struct rt *rt, struct arena *a, const struct cri_v1_stop_container_request *q,
				    struct cri_v1_stop_container_response *r)
{
	container_cleanup struct rt_container *c = rt_container_get(rt, q->container_id);
	return c ? rt_stop_container(rt, c, q->timeout) : NULL;
}

static struct error *remove_container(struct rt *rt, struct arena *a, const struct cri_v1_remove_container_request *q,
				      struct cri_v1_remove_container_response *r)
{
	container_cleanup struct rt_container *c = rt_container_get(rt, q->container_id);
	return c ? rt_remove_container(rt, c) : NULL;
}

static struct error *container_status(struct rt *rt, struct arena *a, const struct cri_v1_container_status_request *q,
				      struct cri_v1_container_status_response *r)
{
	container_cleanup struct rt_container *c = NULL;
	TRY(container_of_id(rt, q->container_id, &c));
	r->status = arena_new(a, struct cri_v1_container_status);
	rt_container_status(rt, a, c, r->status);
	if (q->verbose)
		str_map_set(a, API_MAP(&r->info), STR("info"),
			    arena_printf(a, "{\"sandboxID\":\"%s\",\"pid\":%d}", c->sandbox->id, c->rec.pid));
	/* r points into the record: keep it until it is encoded. */
	return NULL;
}

static struct error *list_containers(struct rt *rt, struct arena *a, const struct cri_v1_list_containers_request *q,
				     struct cri_v1_list_containers_response *r)
{
	const struct cri_v1_container_filter *f = q->filter;
	for (struct rt_container *c = rt->container_list; c; c = c->next) {
		const struct cri_v1_container_config *cfg = c->rec.config;
		if (!cfg || c->rec.state == CRI_CONTAINER_UNKNOWN ||
		    (f && ((f->id.n && !str_has_prefix(str_from(c->id), f->id)) || (f->state && f->state->state != c->rec.state) ||
			   (f->pod_sandbox_id.n && !str_has_prefix(str_from(c->sandbox->id), f->pod_sandbox_id)) ||
			   !labels_match(&cfg->labels, &f->label_selector))))
			continue;
		struct cri_v1_container *o = arena_push(a, &r->containers);
		o->id = str_from(c->id);
		o->pod_sandbox_id = str_from(c->sandbox->id);
		o->metadata = cfg->metadata;
		o->image = cfg->image;
		o->image_ref = c->rec.image;
		o->image_id = c->rec.image_id;
		o->state = c->rec.state;
		o->created_at = c->rec.created_at;
		memcpy(&o->labels, &cfg->labels, sizeof(o->labels));
		memcpy(&o->annotations, &cfg->annotations, sizeof(o->annotations));
	}
	return NULL;
}

static struct error *update_container_resources(struct rt *rt, struct arena *a, const struct cri_v1_update_container_resources_request *q,
						struct cri_v1_update_container_resources_response *r)
{
	container_cleanup struct rt_container *c = NULL;
	TRY(container_of_id(rt, q->container_id, &c));
	return rt_update_container(rt, c, q->linux_);
}

static struct error *reopen_container_log(struct rt *rt, struct arena *a, const struct cri_v1_reopen_container_log_request *q,
					  struct cri_v1_reopen_container_log_response *r)
{
	container_cleanup struct rt_container *c = NULL;
	TRY(container_of_id(rt, q->container_id, &c));
	return rt_reopen_log(rt, c);
}

static struct error *exec_sync(struct rt *rt, struct arena *a, const struct cri_v1_exec_sync_request *q, struct cri_v1_exec_sync_response *r)
{
	container_cleanup struct rt_container *c = NULL;
	buf_cleanup struct buf out = {0}, err = {0};
	int code = 0;
	TRY(container_of_id(rt, q->container_id, &c));
	TRY(rt_exec_sync(rt, c, (const struct strings *)(const void *)&q->cmd, q->timeout, &out, &err, &code));
	r->stdout = arena_str(a, buf_view(&out));
	r->stderr = arena_str(a, buf_view(&err));
	r->exit_code = code;
	return NULL;
}

static struct error *running(struct rt *rt, struct str id, struct rt_container **c)
{
	TRY(container_of_id(rt, id, c));
	if ((*c)->rec.state != CRI_CONTAINER_RUNNING)
		return error_status(412, "FailedPrecondition", "container %s is not running", (*c)->id);
	return NULL;
}

static struct error *exec(struct rt *rt, struct arena *a, const struct cri_v1_exec_request *q, struct cri_v1_exec_response *r)
{
	container_cleanup struct rt_container *c = NULL;
	TRY(running(rt, q->container_id, &c));
	return rt_stream_url(rt, a, RT_STREAM_EXEC, str_from(c->id), (const struct strings *)(const void *)&q->cmd, q->tty, q->stdin,
			     q->stdout, q->stderr, &r->url);
}

static struct error *attach(struct rt *rt, struct arena *a, const struct cri_v1_attach_request *q, struct cri_v1_attach_response *r)
{
	container_cleanup struct rt_container *c = NULL;
	TRY(running(rt, q->container_id, &c));
	return rt_stream_url(rt, a, RT_STREAM_ATTACH, str_from(c->id), NULL, q->tty, q->stdin, q->stdout, q->stderr, &r->url);
}

/* ---- stats ---- */

static void psi_fill(struct arena *a, struct cri_v1_psi_stats **out, const void *some, const void *full)
{
	struct rt_usage u; /* for its anonymous shape */
	memcpy(&u.cpu_some, some, sizeof(u.cpu_some));
	memcpy(&u.cpu_full, full, sizeof(u.cpu_full));
	*out = arena_new(a, struct cri_v1_psi_stats);
	(*out)->some = arena_new(a, struct cri_v1_psi_data);
	(*out)->full = arena_new(a, struct cri_v1_psi_data);
	/* The kernel counts microseconds, CRI nanoseconds. */
	*(*out)->some = (struct cri_v1_psi_data){u.cpu_some.total * 1000, u.cpu_some.avg10, u.cpu_some.avg60, u.cpu_some.avg300};
	*(*out)->full = (struct cri_v1_psi_data){u.cpu_full.total * 1000, u.cpu_full.avg10, u.cpu_full.avg60, u.cpu_full.avg300};
}

static void usage_fill(struct arena *a, const struct rt_usage *u, int64_t now, struct cri_v1_cpu_usage **cpu, struct cri_v1_memory_usage **mem)
{
	*cpu = arena_new(a, struct cri_v1_cpu_usage);
	(*cpu)->timestamp = now;
	(*cpu)->usage_core_nano_seconds = u64(a, u->cpu_ns);
	*mem = arena_new(a, struct cri_v1_memory_usage);
	(*mem)->timestamp = now;
	(*mem)->working_set_bytes = u64(a, u->working_set);
	(*mem)->usage_bytes = u64(a, u->memory_usage);
	(*mem)->rss_bytes = u64(a, u->rss);
	(*mem)->page_faults = u64(a, u->page_faults);
	(*mem)->major_page_faults = u64(a, u->major_faults);
	if (u->memory_limit > u->working_set)
		(*mem)->available_bytes = u64(a, u->memory_limit - u->working_set);
	if (u->has_psi) {
		psi_fill(a, &(*cpu)->psi, &u->cpu_some, &u->cpu_full);
		psi_fill(a, &(*mem)->psi, &u->mem_some, &u->mem_full);
	}
}

struct du_job {
	char *path;
	uint64_t bytes, inodes;
};

static struct error *du(void *arg)
{
	struct du_job *j = arg;
	return sys_disk_usage(j->path, &j->bytes, &j->inodes);
}

/* Waits (for the disk), so the caller holds a reference. */
static void stats_of(struct rt *rt, struct arena *a, struct rt_container *c, struct cri_v1_container_stats *o)
{
	const struct cri_v1_container_config *cfg = c->rec.config;
	int64_t now = wall_ns();
	o->attributes = arena_new(a, struct cri_v1_container_attributes);
	o->attributes->id = str_from(c->id);
	o->attributes->metadata = cfg->metadata;
	memcpy(&o->attributes->labels, &cfg->labels, sizeof(o->attributes->labels));
	memcpy(&o->attributes->annotations, &cfg->annotations, sizeof(o->attributes->annotations));
	if (c->rec.state == CRI_CONTAINER_RUNNING) {
		struct rt_usage u;
		rt_cgroup_usage(rt, arena_strz(a, rt_cgroup_path(rt, a, c->sandbox, c->id)), &u);
		if (u.found) {
			usage_fill(a, &u, now, &o->cpu, &o->memory);
			int64_t at = now_ns();
			if (c->cpu_at && at > c->cpu_at && u.cpu_ns >= c->cpu_ns)
				o->cpu->usage_nano_cores =
					u64(a, (uint64_t)((double)(u.cpu_ns - c->cpu_ns) * 1e9 / (double)(at - c->cpu_at)));
			if (!c->cpu_at || at - c->cpu_at > 1000000000) {
				c->cpu_at = at;
				c->cpu_ns = u.cpu_ns;
			}
			o->swap = arena_new(a, struct cri_v1_swap_usage);
			o->swap->timestamp = now;
			o->swap->swap_usage_bytes = u64(a, u.swap);
			if (u.has_psi) {
				o->io = arena_new(a, struct cri_v1_io_usage);
				o->io->timestamp = now;
				psi_fill(a, &o->io->psi, &u.io_some, &u.io_full);
			}
		}
	}
	str_cleanup char *dir = rt_container_dir(rt, c->id);
	if (!c->usage_at || now_ms() - c->usage_at > USAGE_TTL_MS) {
		str_cleanup char *upper = sys_path(dir, c->rec.copied ? "copy" : "upper");
		struct du_job j = {.path = upper};
		c->usage_at = now_ms();
		struct error *e = sys_offload(du, &j);
		if (!e) {
			c->disk_bytes = j.bytes;
			c->disk_inodes = j.inodes;
		}
		error_free(e); /* being removed */
	}
	o->writable_layer = arena_new(a, struct cri_v1_filesystem_usage);
	o->writable_layer->timestamp = now;
	o->writable_layer->fs_id = arena_new(a, struct cri_v1_filesystem_identifier);
	o->writable_layer->fs_id->mountpoint = arena_str(a, str_from(rt->o.root));
	o->writable_layer->used_bytes = u64(a, c->disk_bytes);
	o->writable_layer->inodes_used = u64(a, c->disk_inodes);
}

/* References to what was there, as computing stats waits; put by refs_put. */
struct refs {
	struct rt_container **c;
	size_t nc;
	struct rt_sandbox **s;
	size_t ns;
};

static void refs_put(struct refs *r)
{
	for (size_t i = 0; i < r->nc; i++)
		rt_container_put(&r->c[i]);
	for (size_t i = 0; i < r->ns; i++)
		rt_sandbox_put(&r->s[i]);
	free(r->c);
	free(r->s);
}

static void refs_take(struct rt *rt, struct refs *r)
{
	*r = (struct refs){0};
	r->c = xcalloc(rt->containers.n + 1, sizeof(*r->c));
	r->s = xcalloc(rt->sandboxes.n + 1, sizeof(*r->s));
	for (struct rt_container *c = rt->container_list; c; c = c->next) {
		c->refs++;
		r->c[r->nc++] = c;
	}
	for (struct rt_sandbox *s = rt->sandbox_list; s; s = s->next) {
		s->refs++;
		r->s[r->ns++] = s;
	}
}

/* Copies what must outlive the references. */
static void stats_copy(struct arena *a, struct cri_v1_container_stats *o)
{
	struct cri_v1_container_stats copy = {0};
	object_copy(a, &cri_v1_container_stats_type, o, &copy);
	*o = copy;
}

static struct error *container_stats(struct rt *rt, struct arena *a, const struct cri_v1_container_stats_request *q,
				     struct cri_v1_container_stats_response *r)
{
	container_cleanup struct rt_container *c = NULL;
	TRY(container_of_id(rt, q->container_id, &c));
	r->stats = arena_new(a, struct cri_v1_container_stats);
	stats_of(rt, a, c, r->stats);
	stats_copy(a, r->stats);
	return NULL;
}

static struct error *list_container_stats(struct rt *rt, struct arena *a, const struct cri_v1_list_container_stats_request *q,
					  struct cri_v1_list_container_stats_response *r)
{
	const struct cri_v1_container_stats_filter *f = q->filter;
	struct refs refs;
	refs_take(rt, &refs);
	for (size_t i = 0; i < refs.nc; i++) {
		struct rt_container *c = refs.c[i];
		if (!c->rec.config || c->rec.state != CRI_CONTAINER_RUNNING ||
		    (f && ((f->id.n && !str_has_prefix(str_from(c->id), f->id)) ||
			   (f->pod_sandbox_id.n && !str_has_prefix(str_from(c->sandbox->id), f->pod_sandbox_id)) ||
			   !labels_match(&c->rec.config->labels, &f->label_selector))))
			continue;
		struct cri_v1_container_stats *o = arena_push(a, &r->stats);
		stats_of(rt, a, c, o);
		stats_copy(a, o);
	}
	refs_put(&refs);
	return NULL;
}

static void pod_stats_of(struct rt *rt, struct arena *a, struct rt_sandbox *s, const struct refs *refs, struct cri_v1_pod_sandbox_stats *out)
{
	const struct cri_v1_pod_sandbox_config *c = s->rec.config;
	int64_t now = wall_ns();
	struct rt_usage u;
	struct rt_netdev dev;
	out->attributes = arena_new(a, struct cri_v1_pod_sandbox_attributes);
	out->attributes->id = str_from(s->id);
	out->attributes->metadata = c->metadata;
	memcpy(&out->attributes->labels, &c->labels, sizeof(out->attributes->labels));
	memcpy(&out->attributes->annotations, &c->annotations, sizeof(out->attributes->annotations));
	struct cri_v1_linux_pod_sandbox_stats *l = out->linux_ = arena_new(a, struct cri_v1_linux_pod_sandbox_stats);
	struct str parent = rt_sandbox_linux(s)->cgroup_parent;
	if (parent.n) {
		rt_cgroup_usage(rt, arena_strz(a, parent), &u);
		if (u.found) {
			usage_fill(a, &u, now, &l->cpu, &l->memory);
			l->process = arena_new(a, struct cri_v1_process_usage);
			l->process->timestamp = now;
			l->process->process_count = u64(a, u.pids);
		}
	}
	str_cleanup char *veth = str_dupz(s->rec.veth);
	if (rt_veth_stats(veth, &dev)) {
		l->network = arena_new(a, struct cri_v1_network_usage);
		l->network->timestamp = now;
		struct cri_v1_network_interface_usage *n = arena_new(a, struct cri_v1_network_interface_usage);
		*n = (struct cri_v1_network_interface_usage){
			.name = STR("eth0"),
			.rx_bytes = u64(a, dev.rx_bytes),
			.rx_errors = u64(a, dev.rx_errors),
			.tx_bytes = u64(a, dev.tx_bytes),
			.tx_errors = u64(a, dev.tx_errors),
		};
		l->network->default_interface = n;
		*arena_push(a, &l->network->interfaces) = *n;
	}
	for (size_t i = 0; i < refs->nc; i++)
		if (refs->c[i]->sandbox == s && refs->c[i]->rec.state == CRI_CONTAINER_RUNNING)
			stats_of(rt, a, refs->c[i], arena_push(a, &l->containers));
	struct cri_v1_pod_sandbox_stats copy = {0};
	object_copy(a, &cri_v1_pod_sandbox_stats_type, out, &copy);
	*out = copy;
}

static struct error *pod_sandbox_stats(struct rt *rt, struct arena *a, const struct cri_v1_pod_sandbox_stats_request *q,
				       struct cri_v1_pod_sandbox_stats_response *r)
{
	sandbox_cleanup struct rt_sandbox *s = NULL;
	TRY(sandbox_of(rt, q->pod_sandbox_id, &s));
	struct refs refs;
	refs_take(rt, &refs);
	r->stats = arena_new(a, struct cri_v1_pod_sandbox_stats);
	pod_stats_of(rt, a, s, &refs, r->stats);
	refs_put(&refs);
	return NULL;
}

static struct error *list_pod_sandbox_stats(struct rt *rt, struct arena *a, const struct cri_v1_list_pod_sandbox_stats_request *q,
					    struct cri_v1_list_pod_sandbox_stats_response *r)
{
	const struct cri_v1_pod_sandbox_stats_filter *f = q->filter;
	struct refs refs;
	refs_take(rt, &refs);
	for (size_t i = 0; i < refs.ns; i++) {
		struct rt_sandbox *s = refs.s[i];
		if (!s->rec.config || s->rec.not_ready || (f && ((f->id.n && !str_has_prefix(str_from(s->id), f->id)) ||
								  !labels_match(&s->rec.config->labels, &f->label_selector))))
			continue;
		pod_stats_of(rt, a, s, &refs, arena_push(a, &r->stats));
	}
	refs_put(&refs);
	return NULL;
}

/* ---- images ---- */

static void image_fill(struct arena *a, const struct rt_v1_image_record *rec, struct cri_v1_image *o)
{
	o->id = rec->id;
	memcpy(&o->repo_tags, &rec->tags, sizeof(o->repo_tags));
	memcpy(&o->repo_digests, &rec->digests, sizeof(o->repo_digests));
	o->size = (uint64_t)rec->size;
	o->pinned = rec->pinned;
	struct str user = rec->user;
	user = str_cut(&user, ':');
	int64_t uid;
	if (!user.n || str_to_i64(user, &uid)) {
		o->uid = arena_new(a, struct cri_v1_int64_value);
		o->uid->value = user.n ? uid : 0;
	} else {
		o->username = user;
	}
}

static struct error *list_images(struct rt *rt, struct arena *a, const struct cri_v1_list_images_request *q, struct cri_v1_list_images_response *r)
{
	if (q->filter && q->filter->image && q->filter->image->image.n) {
		struct rt_v1_image_record *rec;
		TRY(image_find(rt->images, a, q->filter->image->image, &rec));
		if (rec)
			image_fill(a, rec, arena_push(a, &r->images));
		return NULL;
	}
	struct rt_v1_image_index x;
	TRY(image_list(rt->images, a, &x));
	for (uint32_t i = 0; i < x.images.n; i++)
		image_fill(a, &x.images.v[i], arena_push(a, &r->images));
	return NULL;
}

static struct error *image_status(struct rt *rt, struct arena *a, const struct cri_v1_image_status_request *q,
				  struct cri_v1_image_status_response *r)
{
	struct rt_v1_image_record *rec;
	if (!q->image || !q->image->image.n)
		return error_status(400, "Invalid", "no image given");
	TRY(image_find(rt->images, a, q->image->image, &rec));
	if (!rec)
		return NULL;
	r->image = arena_new(a, struct cri_v1_image);
	image_fill(a, rec, r->image);
	if (q->verbose) {
		struct oci_v1_image config;
		buf_cleanup struct buf b = {0};
		TRY(image_config(rt->images, a, rec, &config));
		json_encode(&b, &oci_v1_image_type, &config);
		str_map_set(a, API_MAP(&r->info), STR("imageSpec"), arena_str(a, buf_view(&b)));
	}
	return NULL;
}

struct pull_job {
	struct rt *rt;
	struct arena a;
	struct image_pull p;
	struct str id;
};

static struct error *pull(void *arg)
{
	struct pull_job *j = arg;
	return image_pull(j->rt->images, &j->a, &j->p, &j->id);
}

static struct error *pull_image(struct rt *rt, struct arena *a, const struct cri_v1_pull_image_request *q, struct cri_v1_pull_image_response *r)
{
	struct pull_job j = {.rt = rt};
	if (!q->image || !q->image->image.n)
		return error_status(400, "Invalid", "no image given");
	j.p.ref = q->image->image;
	if (q->auth)
		j.p.auth = (struct image_auth){q->auth->username, q->auth->password, q->auth->auth, q->auth->server_address,
					       q->auth->identity_token, q->auth->registry_token};
	while (rt->pulls >= MAX_PULLS)
		TRY(waitq_wait(&rt->pull_done));
	rt->pulls++;
	struct error *e = sys_offload(pull, &j);
	rt->pulls--;
	waitq_wake_one(&rt->pull_done);
	r->image_ref = arena_str(a, j.id);
	arena_free(&j.a);
	return e;
}

struct remove_job {
	struct rt *rt;
	struct str id;
};

static struct error *remove_job(void *arg)
{
	struct remove_job *j = arg;
	return image_remove(j->rt->images, j->id);
}

static struct error *remove_image(struct rt *rt, struct arena *a, const struct cri_v1_remove_image_request *q,
				  struct cri_v1_remove_image_response *r)
{
	struct rt_v1_image_record *rec;
	if (!q->image || !q->image->image.n)
		return error_status(400, "Invalid", "no image given");
	TRY(image_find(rt->images, a, q->image->image, &rec));
	if (!rec)
		return NULL;
	struct remove_job j = {rt, rec->id}; /* with all its names, as the kubelet's garbage collection expects */
	return sys_offload(remove_job, &j);
}

static struct error *image_fs_info(struct rt *rt, struct arena *a, const struct cri_v1_image_fs_info_request *q,
				   struct cri_v1_image_fs_info_response *r)
{
	static struct {
		int64_t at;
		uint64_t bytes, inodes;
	} cache[2];
	static const char *const dirs[] = {"images", "containers"};
	for (int i = 0; i < 2; i++) {
		str_cleanup char *path = sys_path(i == 0 && rt->o.image_root ? rt->o.image_root : rt->o.root, dirs[i]);
		if (!cache[i].at || now_ms() - cache[i].at > USAGE_TTL_MS) {
			struct du_job j = {.path = path};
			cache[i].at = now_ms();
			TRY(sys_offload(du, &j));
			cache[i].bytes = j.bytes;
			cache[i].inodes = j.inodes;
		}
		struct cri_v1_filesystem_usage *u = i ? arena_push(a, &r->container_filesystems) : arena_push(a, &r->image_filesystems);
		u->timestamp = wall_ns();
		u->fs_id = arena_new(a, struct cri_v1_filesystem_identifier);
		u->fs_id->mountpoint = arena_str(a, str_from(path));
		u->used_bytes = u64(a, cache[i].bytes);
		u->inodes_used = u64(a, cache[i].inodes);
	}
	return NULL;
}

/* ---- events ---- */

static void event_put(struct rt_event *e)
{
	if (!--e->refs) {
		free((void *)(uintptr_t)e->bytes.p);
		free(e);
	}
}

static struct error *get_container_events(struct arena *a, struct str req, struct grpc_stream *s, void *ctx)
{
	struct rt *rt = ctx;
	struct rt_listener *l = xcalloc(1, sizeof(*l));
	struct error *e = NULL;
	l->next = rt->listeners;
	rt->listeners = l;
	while (!e) {
		if (l->overflow) {
			e = error_status(429, "TooManyRequests", "the listener is too slow; %d events wait", RT_EVENTS_MAX);
		} else if (!l->n) {
			e = waitq_wait(&l->wait);
		} else {
			struct rt_event *ev = l->q[l->head];
			l->head = (l->head + 1) % RT_EVENTS_MAX;
			l->n--;
			e = grpc_send(s, ev->bytes);
			event_put(ev);
		}
	}
	for (struct rt_listener **p = &rt->listeners; *p; p = &(*p)->next)
		if (*p == l) {
			*p = l->next;
			break;
		}
	for (; l->n; l->n--) {
		event_put(l->q[l->head]);
		l->head = (l->head + 1) % RT_EVENTS_MAX;
	}
	free(l);
	return e;
}

/* ---- dispatch ---- */

static struct error *encode(struct arena *a, const struct schema_type *t, const void *obj, struct str *out)
{
	buf_cleanup struct buf b = {0};
	pb_encode(&b, t, obj);
	if (b.n > CRI_MAX_MESSAGE)
		return error_status(429, "TooManyRequests", "the answer is larger than %u bytes", CRI_MAX_MESSAGE);
	*out = arena_str(a, buf_view(&b));
	return NULL;
}

#define UNARY(fn)                                                                                                                  \
	static struct error *call_##fn(struct arena *a, struct str in, struct str *out, void *ctx)                                 \
	{                                                                                                                          \
		struct cri_v1_##fn##_request q = {0};                                                                              \
		struct cri_v1_##fn##_response r = {0};                                                                             \
		struct error *e = pb_decode(a, &cri_v1_##fn##_request_type, in, &q);                                               \
		if (e && !e->status)                                                                                               \
			e->status = 400;                                                                                           \
		if (!e)                                                                                                            \
			e = fn(ctx, a, &q, &r);                                                                                    \
		if (e) {                                                                                                           \
			log_v(3, "%s: %s", #fn, e->message);                                                                       \
			return e;                                                                                                  \
		}                                                                                                                  \
		return encode(a, &cri_v1_##fn##_response_type, &r, out);                                                           \
	}
UNARY(version)
UNARY(status)
UNARY(runtime_config)
UNARY(update_runtime_config)
UNARY(run_pod_sandbox)
UNARY(stop_pod_sandbox)
UNARY(remove_pod_sandbox)
UNARY(pod_sandbox_status)
UNARY(list_pod_sandbox)
UNARY(update_pod_sandbox_resources)
UNARY(port_forward)
UNARY(create_container)
UNARY(start_container)
UNARY(stop_container)
UNARY(remove_container)
UNARY(container_status)
UNARY(list_containers)
UNARY(update_container_resources)
UNARY(reopen_container_log)
UNARY(exec_sync)
UNARY(exec)
UNARY(attach)
UNARY(container_stats)
UNARY(list_container_stats)
UNARY(pod_sandbox_stats)
UNARY(list_pod_sandbox_stats)
UNARY(list_images)
UNARY(image_status)
UNARY(pull_image)
UNARY(remove_image)
UNARY(image_fs_info)

/* The Stream... calls are the List... calls in messages of STREAM_CHUNK elements. */
#define STREAMED(fn, list, from, to)                                                                                               \
	static struct error *call_##fn(struct arena *a, struct str in, struct grpc_stream *s, void *ctx)                           \
	{                                                                                                                          \
		struct cri_v1_##fn##_request q = {0};                                                                              \
		struct cri_v1_##list##_request lq = {0};                                                                           \
		struct cri_v1_##list##_response lr = {0}, copy = {0};                                                              \
		TRY(pb_decode(a, &cri_v1_##fn##_request_type, in, &q));                                                            \
		lq.filter = q.filter;                                                                                              \
		TRY(list(ctx, a, &lq, &lr));                                                                                       \
		object_copy(a, &cri_v1_##list##_response_type, &lr, &copy); /* sending waits */                                    \
		for (uint32_t i = 0; i < copy.from.n; i += STREAM_CHUNK) {                                                         \
			struct cri_v1_##fn##_response r = {0};                                                                     \
			buf_cleanup struct buf b = {0};                                                                            \
			r.to.v = copy.from.v + i;                                                                                  \
			r.to.n = copy.from.n - i < STREAM_CHUNK ? copy.from.n - i : STREAM_CHUNK;                                  \
			pb_encode(&b, &cri_v1_##fn##_response_type, &r);                                                           \
			TRY(grpc_send(s, buf_view(&b)));                                                                           \
		}                                                                                                                  \
		return NULL;                                                                                                       \
	}
STREAMED(stream_pod_sandboxes, list_pod_sandbox, items, pod_sandboxes)
STREAMED(stream_containers, list_containers, containers, containers)
STREAMED(stream_container_stats, list_container_stats, stats, container_stats)
STREAMED(stream_pod_sandbox_stats, list_pod_sandbox_stats, stats, pod_sandbox_stats)
STREAMED(stream_images, list_images, images, images)

#define R(name, fn) {"/" CRI_RUNTIME_SERVICE "/" name, call_##fn, NULL}
#define RS(name, fn) {"/" CRI_RUNTIME_SERVICE "/" name, NULL, call_##fn}
#define I(name, fn) {"/" CRI_IMAGE_SERVICE "/" name, call_##fn, NULL}
const struct grpc_method rt_methods[] = {
	R("Version", version),
	R("Status", status),
	R("RuntimeConfig", runtime_config),
	R("UpdateRuntimeConfig", update_runtime_config),
	R("RunPodSandbox", run_pod_sandbox),
	R("StopPodSandbox", stop_pod_sandbox),
	R("RemovePodSandbox", remove_pod_sandbox),
	R("PodSandboxStatus", pod_sandbox_status),
	R("ListPodSandbox", list_pod_sandbox),
	RS("StreamPodSandboxes", stream_pod_sandboxes),
	R("UpdatePodSandboxResources", update_pod_sandbox_resources),
	R("PortForward", port_forward),
	R("CreateContainer", create_container),
	R("StartContainer", start_container),
	R("StopContainer", stop_container),
	R("RemoveContainer", remove_container),
	R("ContainerStatus", container_status),
	R("ListContainers", list_containers),
	RS("StreamContainers", stream_containers),
	R("UpdateContainerResources", update_container_resources),
	R("ReopenContainerLog", reopen_container_log),
	R("ExecSync", exec_sync),
	R("Exec", exec),
	R("Attach", attach),
	R("ContainerStats", container_stats),
	R("ListContainerStats", list_container_stats),
	RS("StreamContainerStats", stream_container_stats),
	R("PodSandboxStats", pod_sandbox_stats),
	R("ListPodSandboxStats", list_pod_sandbox_stats),
	RS("StreamPodSandboxStats", stream_pod_sandbox_stats),
	{"/" CRI_RUNTIME_SERVICE "/GetContainerEvents", NULL, get_container_events},
	I("ListImages", list_images),
	I("ImageStatus", image_status),
	I("PullImage", pull_image),
	I("RemoveImage", remove_image),
	I("ImageFsInfo", image_fs_info),
	{"/" CRI_IMAGE_SERVICE "/StreamImages", NULL, call_stream_images},
};
const size_t rt_n_methods = sizeof(rt_methods) / sizeof(rt_methods[0]);
