/* Computed cells of core/v1, and those many kinds share. */
#include <stdlib.h>

#include "schema/quantity.h"
#include "schema/selector.h"
#include "schema/table_internal.h"

#define PATH(c, lit, f) table_value((c)->type, (c)->obj, STR(lit), (f))

struct any_list {
	const char *v;
	uint32_t n, cap;
};

/* ---- shared ---- */

void table_cell_age(struct buf *b, const struct table_cell *c)
{
	cell_str(b, table_since(c, c->meta->creation_timestamp));
}

/* Containers of a pod template, wherever the kind has it. */
static const struct any_list *containers_of(const struct table_cell *c)
{
	static const char *const paths[] = {"spec.template.spec.containers", "template.spec.containers",
					    "spec.jobTemplate.spec.template.spec.containers"};
	const struct schema_field *f;

	for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
		const void *v = table_value(c->type, c->obj, str_from(paths[i]), &f);

		if (v)
			return v;
	}
	return NULL;
}

static void container_texts(struct buf *b, const struct table_cell *c, bool images)
{
	const struct any_list *l = containers_of(c);
	buf_cleanup struct buf text = {0};

	for (uint32_t i = 0; l && i < l->n; i++) {
		const struct core_v1_container *k = (const struct core_v1_container *)(const void *)l->v + i;

		if (i)
			buf_putc(&text, ',');
		buf_str(&text, images ? k->image : k->name);
	}
	cell_text(b, &text, "");
}

void table_cell_containers(struct buf *b, const struct table_cell *c)
{
	container_texts(b, c, false);
}

void table_cell_images(struct buf *b, const struct table_cell *c)
{
	container_texts(b, c, true);
}

void cell_label_selector(struct buf *b, struct arena *a, const struct meta_v1_label_selector *s)
{
	const struct selector *parsed;
	struct error *e = label_selector_from(a, s, &parsed);

	if (e) {
		error_free(e);
		cell_str(b, STR("<error>"));
		return;
	}
	cell_str_or(b, selector_format(a, parsed), "<none>");
}

void table_cell_selector(struct buf *b, const struct table_cell *c)
{
	const struct schema_field *f;
	const void *v = PATH(c, "spec.selector", &f);

	if (c->type == &batch_v1_cron_job_type)
		v = ((const struct batch_v1_cron_job *)c->obj)->spec.job_template.spec.selector;
	else if (v && f->card == CARD_MAP) {
		cell_labels(b, v);
		return;
	}
	cell_label_selector(b, c->a, v);
}

void table_cell_pod_selector(struct buf *b, const struct table_cell *c)
{
	cell_label_selector(b, c->a, &((const struct networking_v1_network_policy *)c->obj)->spec.pod_selector);
}

void table_cell_node_selector(struct buf *b, const struct table_cell *c)
{
	const struct schema_field *f;

	cell_labels(b, PATH(c, "spec.template.spec.nodeSelector", &f));
}

void table_cell_template_labels(struct buf *b, const struct table_cell *c)
{
	const struct schema_field *f;

	cell_labels(b, PATH(c, "template.metadata.labels", &f));
}

void table_cell_data_count(struct buf *b, const struct table_cell *c)
{
	const struct schema_field *f;
	const struct any_list *data = PATH(c, "data", &f), *binary = PATH(c, "binaryData", &f);

	buf_u64(b, data->n + (binary ? binary->n : 0));
}

void table_cell_ready_replicas(struct buf *b, const struct table_cell *c)
{
	const struct schema_field *f;
	const int32_t *ready = PATH(c, "status.readyReplicas", &f), *desired = PATH(c, "spec.replicas", &f);

	cell_printf(b, "%d/%d", *ready, desired ? *desired : 0);
}

/* ---- pods ---- */

struct pod_summary {
	const char *fixed;  /* the status, or */
	struct str reason;  /* the same as text */
	int ready, total;
	int64_t restarts;
	struct api_time last_restart;
};

static bool before(struct api_time a, struct api_time b)
{
	if (!a.set || !b.set)
		return !a.set && b.set;
	return a.s != b.s ? a.s < b.s : a.ns < b.ns;
}

static void count_restart(const struct core_v1_container_status *s, int64_t *restarts, struct api_time *last)
{
	*restarts += s->restart_count;
	if (s->last_state.terminated && before(*last, s->last_state.terminated->finished_at))
		*last = s->last_state.terminated->finished_at;
}

static struct str terminated_reason(struct arena *a, const char *prefix, const struct core_v1_container_state_terminated *t)
{
	if (t->reason.n)
		return arena_printf(a, "%s%.*s", prefix, STR_ARG(t->reason));
	return t->signal ? arena_printf(a, "%sSignal:%d", prefix, t->signal)
			 : arena_printf(a, "%sExitCode:%d", prefix, t->exit_code);
}

static bool condition_true(const struct core_v1_pod *p, const char *type)
{
	for (uint32_t i = 0; i < p->status.conditions.n; i++)
		if (str_eqz(p->status.conditions.v[i].type, type))
			return str_eqz(p->status.conditions.v[i].status, "True");
	return false;
}

static bool is_sidecar(const struct core_v1_pod *p, struct str name)
{
	for (uint32_t i = 0; i < p->spec.init_containers.n; i++) {
		const struct core_v1_container *c = &p->spec.init_containers.v[i];

		if (str_eq(c->name, name))
			return c->restart_policy && str_eqz(*c->restart_policy, "Always");
	}
	return false;
}

/* Init containers: true while they keep the pod from starting. */
static bool summarize_init(struct arena *a, const struct core_v1_pod *p, struct pod_summary *s, int64_t *sidecar_restarts,
			   struct api_time *sidecar_last)
{
	for (uint32_t i = 0; i < p->status.init_container_statuses.n; i++) {
		const struct core_v1_container_status *c = &p->status.init_container_statuses.v[i];
		bool sidecar = is_sidecar(p, c->name);

		count_restart(c, &s->restarts, &s->last_restart);
		if (sidecar)
			count_restart(c, sidecar_restarts, sidecar_last);
		if (c->state.terminated && c->state.terminated->exit_code == 0)
			continue;
		if (sidecar && c->started && *c->started) {
			s->ready += c->ready;
			continue;
		}
		if (c->state.terminated)
			s->reason = terminated_reason(a, "Init:", c->state.terminated);
		else if (c->state.waiting && c->state.waiting->reason.n && !str_eqz(c->state.waiting->reason, "PodInitializing"))
			s->reason = arena_printf(a, "Init:%.*s", STR_ARG(c->state.waiting->reason));
		else
			s->reason = arena_printf(a, "Init:%u/%u", i, p->spec.init_containers.n);
		return true;
	}
	return false;
}

static void summarize_containers(struct arena *a, const struct core_v1_pod *p, struct pod_summary *s)
{
	struct str failed = STR_NULL;
	bool running = false;

	for (uint32_t i = p->status.container_statuses.n; i-- > 0;) {
		const struct core_v1_container_status *c = &p->status.container_statuses.v[i];

		count_restart(c, &s->restarts, &s->last_restart);
		if (c->state.waiting && c->state.waiting->reason.n) {
			s->reason = c->state.waiting->reason;
		} else if (c->state.terminated) {
			s->reason = terminated_reason(a, "", c->state.terminated);
			if (c->state.terminated->exit_code)
				failed = s->reason;
		} else if (c->ready && c->state.running) {
			running = true;
			s->ready++;
		}
	}
	if (!str_eqz(s->reason, "Completed"))
		return;
	if (running && condition_true(p, "Ready"))
		s->reason = STR("Running");
	else if (failed.n)
		s->reason = failed;
	else if (running)
		s->reason = STR("NotReady");
}

static struct pod_summary summarize(const struct table_cell *c)
{
	const struct core_v1_pod *p = c->obj;
	struct pod_summary s = {.total = (int)p->spec.containers.n};
	struct api_time sidecar_last = {0};
	int64_t sidecar_restarts = 0;
	struct str phase = p->status.phase;

	s.reason = p->status.reason.n ? p->status.reason : phase;
	for (uint32_t i = 0; i < p->status.conditions.n; i++)
		if (str_eqz(p->status.conditions.v[i].type, "PodScheduled") &&
		    str_eqz(p->status.conditions.v[i].reason, "SchedulingGated"))
			s.reason = STR("SchedulingGated");
	for (uint32_t i = 0; i < p->spec.init_containers.n; i++) {
		const struct core_v1_container *k = &p->spec.init_containers.v[i];

		s.total += k->restart_policy && str_eqz(*k->restart_policy, "Always");
	}
	if (!summarize_init(c->a, p, &s, &sidecar_restarts, &sidecar_last) || condition_true(p, "Initialized")) {
		s.restarts = sidecar_restarts;
		s.last_restart = sidecar_last;
		summarize_containers(c->a, p, &s);
	}
	if (c->meta->deletion_timestamp) {
		if (str_eqz(p->status.reason, "NodeLost"))
			s.reason = STR("Unknown");
		else if (!str_eqz(phase, "Failed") && !str_eqz(phase, "Succeeded"))
			s.reason = STR("Terminating");
	}
	return s;
}

void table_cell_pod_ready(struct buf *b, const struct table_cell *c)
{
	struct pod_summary s = summarize(c);

	cell_printf(b, "%d/%d", s.ready, s.total);
}

void table_cell_pod_status(struct buf *b, const struct table_cell *c)
{
	cell_str(b, summarize(c).reason);
}

void table_cell_pod_restarts(struct buf *b, const struct table_cell *c)
{
	struct pod_summary s = summarize(c);

	if (s.restarts && s.last_restart.set)
		cell_printf(b, "%lld (%.*s ago)", (long long)s.restarts, STR_ARG(table_since(c, s.last_restart)));
	else
		cell_printf(b, "%lld", (long long)s.restarts);
}

void table_cell_pod_ip(struct buf *b, const struct table_cell *c)
{
	const struct core_v1_pod *p = c->obj;

	cell_str_or(b, p->status.pod_ips.n ? p->status.pod_ips.v[0].ip : p->status.pod_ip, "<none>");
}

void table_cell_pod_readiness_gates(struct buf *b, const struct table_cell *c)
{
	const struct core_v1_pod *p = c->obj;
	uint32_t met = 0;

	if (!p->spec.readiness_gates.n) {
		cell_str(b, STR("<none>"));
		return;
	}
	for (uint32_t i = 0; i < p->spec.readiness_gates.n; i++)
		met += condition_true(p, arena_strz(c->a, p->spec.readiness_gates.v[i].condition_type));
	cell_printf(b, "%u/%u", met, p->spec.readiness_gates.n);
}

/* ---- services, endpoints ---- */

void table_cell_service_cluster_ip(struct buf *b, const struct table_cell *c)
{
	const struct core_v1_service_spec *s = &((const struct core_v1_service *)c->obj)->spec;

	cell_str_or(b, s->cluster_ips.n ? s->cluster_ips.v[0] : s->cluster_ip, "<none>");
}

static int str_order(const void *a, const void *b)
{
	return str_cmp(*(const struct str *)a, *(const struct str *)b);
}

/* Sorted, each once. */
static void add_sorted(struct buf *text, struct str *v, uint32_t n)
{
	qsort(v, n, sizeof *v, str_order);
	for (uint32_t i = 0; i < n; i++)
		if (!i || !str_eq(v[i - 1], v[i]))
			text_add(text, v[i], ",");
}

void table_cell_service_external_ip(struct buf *b, const struct table_cell *c)
{
	const struct core_v1_service *s = c->obj;
	buf_cleanup struct buf text = {0};
	bool balancer = str_eqz(s->spec.type, "LoadBalancer");

	if (str_eqz(s->spec.type, "ExternalName")) {
		cell_str(b, s->spec.external_name);
		return;
	}
	if (balancer) {
		struct str *v = arena_array(c->a, struct str, s->status.load_balancer.ingress.n + 1);
		uint32_t n = 0;

		for (uint32_t i = 0; i < s->status.load_balancer.ingress.n; i++) {
			const struct core_v1_load_balancer_ingress *in = &s->status.load_balancer.ingress.v[i];

			if (in->ip.n || in->hostname.n)
				v[n++] = in->ip.n ? in->ip : in->hostname;
		}
		add_sorted(&text, v, n);
	} else if (!str_eqz(s->spec.type, "ClusterIP") && !str_eqz(s->spec.type, "NodePort")) {
		cell_str(b, STR("<unknown>"));
		return;
	}
	for (uint32_t i = 0; i < s->spec.external_ips.n; i++)
		text_add(&text, s->spec.external_ips.v[i], ",");
	cell_text(b, &text, balancer ? "<pending>" : "<none>");
}

void table_cell_service_ports(struct buf *b, const struct table_cell *c)
{
	const struct core_v1_service_spec *s = &((const struct core_v1_service *)c->obj)->spec;
	buf_cleanup struct buf text = {0};

	for (uint32_t i = 0; i < s->ports.n; i++) {
		const struct core_v1_service_port *p = &s->ports.v[i];

		if (i)
			buf_putc(&text, ',');
		buf_i64(&text, p->port);
		if (p->node_port > 0)
			buf_printf(&text, ":%d", p->node_port);
		buf_putc(&text, '/');
		buf_str(&text, p->protocol);
	}
	cell_text(b, &text, "<none>");
}

/* At most three shown, the others counted. */
struct few {
	struct buf text;
	uint32_t n;
};
#define FEW 3

static void few_add(struct few *f, struct str s)
{
	if (f->n < FEW) {
		if (f->n)
			buf_putc(&f->text, ',');
		buf_str(&f->text, s);
	}
	f->n++;
}

static void few_cell(struct buf *b, struct few *f, const char *none)
{
	if (f->n > FEW)
		buf_printf(&f->text, " + %u more...", f->n - FEW);
	cell_text(b, &f->text, none);
	buf_free(&f->text);
}

void table_cell_endpoints(struct buf *b, const struct table_cell *c)
{
	const struct core_v1_endpoints *e = c->obj;
	struct few f = {0};

	for (uint32_t i = 0; i < e->subsets.n; i++) {
		const struct core_v1_endpoint_subset *s = &e->subsets.v[i];

		for (uint32_t p = 0; p < (s->ports.n ? s->ports.n : 1); p++) {
			for (uint32_t k = 0; k < s->addresses.n; k++) {
				struct str ip = s->addresses.v[k].ip;

				if (!s->ports.n)
					few_add(&f, ip);
				else
					few_add(&f, arena_printf(c->a, str_index(ip, ':') >= 0 ? "[%.*s]:%d" : "%.*s:%d", STR_ARG(ip),
								 s->ports.v[p].port));
			}
		}
	}
	few_cell(b, &f, e->subsets.n ? "" : "<none>");
}

void table_cell_slice_ports(struct buf *b, const struct table_cell *c)
{
	const struct discovery_v1_endpoint_slice *s = c->obj;
	struct few f = {0};

	for (uint32_t i = 0; i < s->ports.n; i++) {
		const struct discovery_v1_endpoint_port *p = &s->ports.v[i];

		few_add(&f, p->port ? arena_printf(c->a, "%d", *p->port) : p->name ? *p->name : STR("*"));
	}
	few_cell(b, &f, "<unset>");
}

void table_cell_slice_endpoints(struct buf *b, const struct table_cell *c)
{
	const struct discovery_v1_endpoint_slice *s = c->obj;
	struct few f = {0};

	for (uint32_t i = 0; i < s->endpoints.n; i++)
		for (uint32_t k = 0; k < s->endpoints.v[i].addresses.n; k++)
			few_add(&f, s->endpoints.v[i].addresses.v[k]);
	few_cell(b, &f, "<unset>");
}

void table_cell_ingress_hosts(struct buf *b, const struct table_cell *c)
{
	const struct networking_v1_ingress *in = c->obj;
	buf_cleanup struct buf text = {0};
	uint32_t shown = 0, n = in->spec.rules.n, i;

	for (i = 0; i < n && shown < FEW; i++) {
		if (in->spec.rules.v[i].host.n) {
			text_add(&text, in->spec.rules.v[i].host, ",");
			shown++;
		}
	}
	if (shown && i < n)
		buf_printf(&text, " + %u more...", n - FEW);
	cell_text(b, &text, "*");
}

void table_cell_ingress_address(struct buf *b, const struct table_cell *c)
{
	const struct networking_v1_ingress *in = c->obj;
	uint32_t count = in->status.load_balancer.ingress.n, n = 0;
	struct str *v = arena_array(c->a, struct str, count + 1);
	buf_cleanup struct buf text = {0};

	for (uint32_t i = 0; i < count; i++) {
		const struct networking_v1_ingress_load_balancer_ingress *l = &in->status.load_balancer.ingress.v[i];

		if (l->ip.n || l->hostname.n)
			v[n++] = l->ip.n ? l->ip : l->hostname;
	}
	add_sorted(&text, v, n);
	cell_text(b, &text, "");
}

void table_cell_ingress_ports(struct buf *b, const struct table_cell *c)
{
	cell_str(b, ((const struct networking_v1_ingress *)c->obj)->spec.tls.n ? STR("80, 443") : STR("80"));
}

/* ---- nodes ---- */

void table_cell_node_status(struct buf *b, const struct table_cell *c)
{
	const struct core_v1_node *n = c->obj;
	const char *ready = "Unknown";

	for (uint32_t i = 0; i < n->status.conditions.n; i++)
		if (str_eqz(n->status.conditions.v[i].type, "Ready"))
			ready = str_eqz(n->status.conditions.v[i].status, "True") ? "Ready" : "NotReady";
	cell_printf(b, "%s%s", ready, n->spec.unschedulable ? ",SchedulingDisabled" : "");
}

void table_cell_node_roles(struct buf *b, const struct table_cell *c)
{
	struct str *v = arena_array(c->a, struct str, c->meta->labels.n + 1), prefix = STR("node-role.kubernetes.io/");
	uint32_t n = 0;
	buf_cleanup struct buf text = {0};

	for (uint32_t i = 0; i < c->meta->labels.n; i++) {
		struct str key = c->meta->labels.v[i].key, value = c->meta->labels.v[i].value;

		if (str_has_prefix(key, prefix) && key.n > prefix.n)
			v[n++] = str_sub(key, prefix.n, key.n);
		else if (str_eqz(key, "kubernetes.io/role") && value.n)
			v[n++] = value;
	}
	add_sorted(&text, v, n);
	cell_text(b, &text, "<none>");
}

static void node_address(struct buf *b, const struct table_cell *c, const char *type)
{
	const struct core_v1_node *n = c->obj;

	for (uint32_t i = 0; i < n->status.addresses.n; i++) {
		if (str_eqz(n->status.addresses.v[i].type, type)) {
			cell_str(b, n->status.addresses.v[i].address);
			return;
		}
	}
	cell_str(b, STR("<none>"));
}

void table_cell_node_internal_ip(struct buf *b, const struct table_cell *c)
{
	node_address(b, c, "InternalIP");
}

void table_cell_node_external_ip(struct buf *b, const struct table_cell *c)
{
	node_address(b, c, "ExternalIP");
}

void table_cell_node_kernel(struct buf *b, const struct table_cell *c)
{
	const struct core_v1_node_system_info *i = &((const struct core_v1_node *)c->obj)->status.node_info;

	if (!i->architecture.n)
		cell_str_or(b, i->kernel_version, "<unknown>");
	else
		cell_printf(b, "%.*s (%.*s)", i->kernel_version.n ? (int)i->kernel_version.n : 9,
			    i->kernel_version.n ? i->kernel_version.p : "<unknown>", STR_ARG(i->architecture));
}

/* ---- events ---- */

struct event { /* of either group */
	struct api_time first, last, time, observed;
	bool series;
	int32_t count;
	const struct core_v1_object_reference *object;
	const struct core_v1_event_source *source;
	struct str message, controller, instance;
};

static struct event event_of(const struct table_cell *c)
{
	if (c->type == &core_v1_event_type) {
		const struct core_v1_event *e = c->obj;

		return (struct event){e->first_timestamp, e->last_timestamp, e->event_time,
				      e->series ? e->series->last_observed_time : (struct api_time){0}, e->series != NULL,
				      e->series ? e->series->count : e->count, &e->involved_object, &e->source, e->message,
				      e->reporting_component, e->reporting_instance};
	}
	const struct events_v1_event *e = c->obj;

	return (struct event){e->deprecated_first_timestamp, e->deprecated_last_timestamp, e->event_time,
			      e->series ? e->series->last_observed_time : (struct api_time){0}, e->series != NULL,
			      e->series ? e->series->count : e->deprecated_count, &e->regarding, &e->deprecated_source, e->note,
			      e->reporting_controller, e->reporting_instance};
}

void table_cell_event_first_seen(struct buf *b, const struct table_cell *c)
{
	struct event e = event_of(c);

	cell_str(b, table_since(c, e.first.set ? e.first : e.time));
}

void table_cell_event_last_seen(struct buf *b, const struct table_cell *c)
{
	struct event e = event_of(c);

	cell_str(b, table_since(c, e.series ? e.observed : e.last.set ? e.last : e.first.set ? e.first : e.time));
}

void table_cell_event_object(struct buf *b, const struct table_cell *c)
{
	const struct core_v1_object_reference *o = event_of(c).object;
	char *kind = arena_strz(c->a, o->kind);

	for (char *p = kind; *p; p++)
		if (*p >= 'A' && *p <= 'Z')
			*p = (char)(*p + 32);
	if (o->name.n)
		cell_printf(b, "%s/%.*s", kind, STR_ARG(o->name));
	else
		cell_str(b, str_from(kind));
}

void table_cell_event_source(struct buf *b, const struct table_cell *c)
{
	struct event e = event_of(c);
	struct str who = e.source->component.n ? e.source->component : e.controller;
	struct str where = e.source->host.n ? e.source->host : e.instance;

	if (where.n)
		cell_printf(b, "%.*s, %.*s", STR_ARG(who), STR_ARG(where));
	else
		cell_str(b, who);
}

void table_cell_event_message(struct buf *b, const struct table_cell *c)
{
	cell_str(b, str_trim(event_of(c).message));
}

void table_cell_event_count(struct buf *b, const struct table_cell *c)
{
	struct event e = event_of(c);

	buf_i64(b, e.count || e.series ? e.count : 1);
}

/* ---- volumes ---- */

void table_cell_access_modes(struct buf *b, const struct table_cell *c)
{
	static const char *const names[][2] = {
		{"ReadWriteOnce", "RWO"}, {"ReadOnlyMany", "ROX"}, {"ReadWriteMany", "RWX"}, {"ReadWriteOncePod", "RWOP"}};
	const struct strings *modes;
	buf_cleanup struct buf text = {0};

	if (c->type == &core_v1_persistent_volume_type) {
		modes = (const void *)&((const struct core_v1_persistent_volume *)c->obj)->spec.access_modes;
	} else {
		const struct core_v1_persistent_volume_claim *pvc = c->obj;

		modes = pvc->spec.volume_name.n ? (const void *)&pvc->status.access_modes : NULL;
	}
	for (size_t k = 0; modes && k < sizeof names / sizeof *names; k++) {
		for (uint32_t i = 0; i < modes->n; i++) {
			if (str_eqz(modes->v[i], names[k][0])) {
				text_add(&text, str_from(names[k][1]), ",");
				break;
			}
		}
	}
	cell_text(b, &text, "");
}

void table_cell_volume_phase(struct buf *b, const struct table_cell *c)
{
	const struct schema_field *f;

	cell_str(b, c->meta->deletion_timestamp ? STR("Terminating") : *(const struct str *)PATH(c, "status.phase", &f));
}

void table_cell_storage_class(struct buf *b, const struct table_cell *c)
{
	struct str beta = str_map_get(API_MAP(&c->meta->annotations), STR("volume.beta.kubernetes.io/storage-class"));
	const struct schema_field *f;
	const struct str *name = PATH(c, "spec.storageClassName", &f);

	cell_str(b, beta.p ? beta : name ? *name : STR(""));
}

static void amount(struct buf *b, const struct str_map *m)
{
	struct str q = str_map_get(m, STR("storage"));

	cell_str(b, q.n ? q : STR("0"));
}

void table_cell_pv_capacity(struct buf *b, const struct table_cell *c)
{
	amount(b, API_MAP(&((const struct core_v1_persistent_volume *)c->obj)->spec.capacity));
}

void table_cell_pvc_capacity(struct buf *b, const struct table_cell *c)
{
	const struct core_v1_persistent_volume_claim *pvc = c->obj;

	if (pvc->spec.volume_name.n)
		amount(b, API_MAP(&pvc->status.capacity));
	else
		cell_str(b, STR(""));
}

void table_cell_pv_claim(struct buf *b, const struct table_cell *c)
{
	const struct core_v1_object_reference *r = ((const struct core_v1_persistent_volume *)c->obj)->spec.claim_ref;

	if (r)
		cell_printf(b, "%.*s/%.*s", STR_ARG(r->namespace), STR_ARG(r->name));
	else
		cell_str(b, STR(""));
}

/* ---- others of core ---- */

static const struct core_v1_component_condition *healthy(const struct table_cell *c)
{
	const struct core_v1_component_status *s = c->obj;

	for (uint32_t i = 0; i < s->conditions.n; i++)
		if (str_eqz(s->conditions.v[i].type, "Healthy"))
			return &s->conditions.v[i];
	return NULL;
}

void table_cell_component_status(struct buf *b, const struct table_cell *c)
{
	const struct core_v1_component_condition *h = healthy(c);

	cell_str(b, !h ? STR("Unknown") : str_eqz(h->status, "True") ? STR("Healthy") : STR("Unhealthy"));
}

void table_cell_component_message(struct buf *b, const struct table_cell *c)
{
	const struct core_v1_component_condition *h = healthy(c);

	cell_str(b, h ? h->message : STR(""));
}

void table_cell_component_error(struct buf *b, const struct table_cell *c)
{
	const struct core_v1_component_condition *h = healthy(c);

	cell_str(b, h ? h->error : STR(""));
}

static void quota(struct buf *b, const struct table_cell *c, bool limits)
{
	const struct core_v1_resource_quota_status *s = &((const struct core_v1_resource_quota *)c->obj)->status;
	buf_cleanup struct buf text = {0};

	for (uint32_t i = 0; i < s->hard.n; i++) {
		struct str name = s->hard.v[i].key, used = str_map_get(API_MAP(&s->used), name);

		if (str_has_prefix(name, STR("limits.")) != limits)
			continue;
		text_add(&text, name, ", ");
		buf_printf(&text, ": %.*s/%.*s", used.n ? (int)used.n : 1, used.n ? used.p : "0", STR_ARG(s->hard.v[i].value));
	}
	cell_text(b, &text, "");
}

void table_cell_quota_requests(struct buf *b, const struct table_cell *c)
{
	quota(b, c, false);
}

void table_cell_quota_limits(struct buf *b, const struct table_cell *c)
{
	quota(b, c, true);
}
