/* Computed cells of the groups other than core. */
#include "schema/table_internal.h"

/* ---- apps ---- */

void table_cell_revision_controller(struct buf *b, const struct table_cell *c)
{
	for (uint32_t i = 0; i < c->meta->owner_references.n; i++) {
		const struct meta_v1_owner_reference *o = &c->meta->owner_references.v[i];
		struct str group, version;

		if (!o->controller || !*o->controller)
			continue;
		api_version_split(o->api_version, &group, &version);
		char *kind = arena_strz(c->a, arena_printf(c->a, "%.*s%s%.*s", STR_ARG(o->kind), group.n ? "." : "", STR_ARG(group)));

		for (char *p = kind; *p; p++)
			if (*p >= 'A' && *p <= 'Z')
				*p = (char)(*p + 32);
		cell_printf(b, "%s/%.*s", kind, STR_ARG(o->name));
		return;
	}
	cell_str(b, STR("<none>"));
}

/* ---- batch ---- */

static bool job_condition(const struct batch_v1_job *j, const char *type)
{
	for (uint32_t i = 0; i < j->status.conditions.n; i++)
		if (str_eqz(j->status.conditions.v[i].type, type))
			return str_eqz(j->status.conditions.v[i].status, "True");
	return false;
}

void table_cell_job_status(struct buf *b, const struct table_cell *c)
{
	const struct batch_v1_job *j = c->obj;

	cell_str(b, str_from(job_condition(j, "Complete")	    ? "Complete"
			     : job_condition(j, "Failed")	    ? "Failed"
			     : c->meta->deletion_timestamp	    ? "Terminating"
			     : job_condition(j, "Suspended")	    ? "Suspended"
			     : job_condition(j, "FailureTarget")    ? "FailureTarget"
			     : job_condition(j, "SuccessCriteriaMet") ? "SuccessCriteriaMet"
								    : "Running"));
}

void table_cell_job_completions(struct buf *b, const struct table_cell *c)
{
	const struct batch_v1_job *j = c->obj;

	if (j->spec.completions)
		cell_printf(b, "%d/%d", j->status.succeeded, *j->spec.completions);
	else if (j->spec.parallelism && *j->spec.parallelism > 1)
		cell_printf(b, "%d/1 of %d", j->status.succeeded, *j->spec.parallelism);
	else
		cell_printf(b, "%d/1", j->status.succeeded);
}

void table_cell_job_duration(struct buf *b, const struct table_cell *c)
{
	const struct batch_v1_job_status *s = &((const struct batch_v1_job *)c->obj)->status;
	struct table_cell end = *c;

	if (!s->start_time) {
		cell_str(b, STR(""));
		return;
	}
	if (s->completion_time)
		end.now = *s->completion_time;
	cell_str(b, table_since(&end, *s->start_time));
}

void table_cell_cronjob_suspend(struct buf *b, const struct table_cell *c)
{
	const bool *suspend = ((const struct batch_v1_cron_job *)c->obj)->spec.suspend;

	cell_str(b, !suspend ? STR("<unset>") : *suspend ? STR("True") : STR("False"));
}

void table_cell_cronjob_active(struct buf *b, const struct table_cell *c)
{
	buf_u64(b, ((const struct batch_v1_cron_job *)c->obj)->status.active.n);
}

void table_cell_cronjob_last_schedule(struct buf *b, const struct table_cell *c)
{
	const struct api_time *t = ((const struct batch_v1_cron_job *)c->obj)->status.last_schedule_time;

	cell_str(b, t ? table_since(c, *t) : STR("<none>"));
}

/* ---- autoscaling ---- */

void table_cell_hpa_reference(struct buf *b, const struct table_cell *c)
{
	const struct schema_field *f;
	const struct str *kind = table_value(c->type, c->obj, STR("spec.scaleTargetRef.kind"), &f);
	const struct str *name = table_value(c->type, c->obj, STR("spec.scaleTargetRef.name"), &f);

	cell_printf(b, "%.*s/%.*s", STR_ARG(*kind), STR_ARG(*name));
}

void table_cell_hpa_min(struct buf *b, const struct table_cell *c)
{
	const struct schema_field *f;
	const int32_t *min = table_value(c->type, c->obj, STR("spec.minReplicas"), &f);

	if (min)
		cell_printf(b, "%d", *min);
	else
		cell_str(b, STR("<unset>"));
}

static struct str quantity_of(const struct str *q, const char *absent)
{
	return !q || !q->n ? str_from(absent) : *q;
}

/* current/target of one metric. Of an average that is wanted, external ones and objects may not know theirs; others
 * then say what Go does. */
static struct str metric(struct arena *a, struct str name, const struct autoscaling_v2_metric_target *target,
			 const struct autoscaling_v2_metric_value_status *now, bool resource, bool pods)
{
	struct str have = STR("<unknown>"), want;
	const char *note = "";

	if (resource && !target->average_value) {
		if (now && now->average_utilization)
			have = arena_printf(a, "%d%%", *now->average_utilization);
		want = target->average_utilization ? arena_printf(a, "%d%%", *target->average_utilization) : STR("<auto>");
	} else if (target->average_value || pods) {
		if (now)
			have = quantity_of(now->average_value, resource || pods ? "<nil>" : "<unknown>");
		want = quantity_of(target->average_value, "<nil>");
		note = resource || pods ? "" : " (avg)";
	} else {
		if (now)
			have = quantity_of(now->value, "<nil>");
		want = quantity_of(target->value, "<nil>");
	}
	return arena_printf(a, "%.*s%s%.*s/%.*s%s", STR_ARG(name), name.n ? ": " : "", STR_ARG(have), STR_ARG(want), note);
}

static struct str metric_text(struct arena *a, const struct autoscaling_v2_metric_spec *m,
			      const struct autoscaling_v2_metric_status *s)
{
	if (m->external)
		return metric(a, STR_NULL, &m->external->target, s && s->external ? &s->external->current : NULL, false, false);
	if (m->pods)
		return metric(a, STR_NULL, &m->pods->target, s && s->pods ? &s->pods->current : NULL, false, true);
	if (m->object)
		return metric(a, STR_NULL, &m->object->target, s && s->object ? &s->object->current : NULL, false, false);
	if (m->resource)
		return metric(a, m->resource->name, &m->resource->target, s && s->resource ? &s->resource->current : NULL, true,
			      false);
	if (m->container_resource)
		return metric(a, m->container_resource->name, &m->container_resource->target,
			      s && s->container_resource ? &s->container_resource->current : NULL, true, false);
	return STR("<unknown type>");
}

void table_cell_hpa_targets(struct buf *b, const struct table_cell *c)
{
	const struct autoscaling_v2_horizontal_pod_autoscaler *h = c->obj;
	buf_cleanup struct buf text = {0};

	for (uint32_t i = 0; i < h->spec.metrics.n && i < 2; i++)
		text_add(&text, metric_text(c->a, &h->spec.metrics.v[i],
					    i < h->status.current_metrics.n ? &h->status.current_metrics.v[i] : NULL), ", ");
	if (h->spec.metrics.n > 2)
		buf_printf(&text, " + %u more...", h->spec.metrics.n - 2);
	cell_text(b, &text, "<none>");
}

/* ---- certificates, flowcontrol ---- */

void table_cell_csr_duration(struct buf *b, const struct table_cell *c)
{
	const int32_t *s = ((const struct certificates_v1_certificate_signing_request *)c->obj)->spec.expiration_seconds;

	cell_str(b, s ? human_duration(c->a, *s) : STR("<none>"));
}

void table_cell_csr_condition(struct buf *b, const struct table_cell *c)
{
	const struct certificates_v1_certificate_signing_request_status *s =
		&((const struct certificates_v1_certificate_signing_request *)c->obj)->status;
	bool approved = false, denied = false, failed = false;

	for (uint32_t i = 0; i < s->conditions.n; i++) {
		approved |= str_eqz(s->conditions.v[i].type, "Approved");
		denied |= str_eqz(s->conditions.v[i].type, "Denied");
		failed |= str_eqz(s->conditions.v[i].type, "Failed");
	}
	cell_printf(b, "%s%s%s", denied ? "Denied" : approved ? "Approved" : "Pending", failed ? ",Failed" : "",
		    s->certificate.n ? ",Issued" : "");
}

void table_cell_flow_schema_missing(struct buf *b, const struct table_cell *c)
{
	const struct flowcontrol_v1_flow_schema_status *s = &((const struct flowcontrol_v1_flow_schema *)c->obj)->status;

	for (uint32_t i = 0; i < s->conditions.n; i++) {
		if (str_eqz(s->conditions.v[i].type, "Dangling")) {
			cell_str(b, s->conditions.v[i].status);
			return;
		}
	}
	cell_str(b, STR("?"));
}

/* ---- networking ---- */

void table_cell_default_class_name(struct buf *b, const struct table_cell *c)
{
	const struct str_map *m = API_MAP(&c->meta->annotations);
	bool ingress = c->type == &networking_v1_ingress_class_type;
	bool is_default = str_eqz(str_map_get(m, ingress ? STR("ingressclass.kubernetes.io/is-default-class")
							 : STR("storageclass.kubernetes.io/is-default-class")), "true") ||
			  (!ingress && str_eqz(str_map_get(m, STR("storageclass.beta.kubernetes.io/is-default-class")), "true"));

	cell_printf(b, "%.*s%s", STR_ARG(c->meta->name), is_default ? " (default)" : "");
}

void table_cell_ingress_class_parameters(struct buf *b, const struct table_cell *c)
{
	const struct networking_v1_ingress_class_parameters_reference *p =
		((const struct networking_v1_ingress_class *)c->obj)->spec.parameters;

	if (!p)
		cell_str(b, STR("<none>"));
	else if (p->api_group)
		cell_printf(b, "%.*s.%.*s/%.*s", STR_ARG(p->kind), STR_ARG(*p->api_group), STR_ARG(p->name));
	else
		cell_printf(b, "%.*s/%.*s", STR_ARG(p->kind), STR_ARG(p->name));
}

void table_cell_service_cidrs(struct buf *b, const struct table_cell *c)
{
	const struct networking_v1_service_cidr *s = c->obj;
	buf_cleanup struct buf text = {0};

	for (uint32_t i = 0; i < s->spec.cidrs.n; i++)
		text_add(&text, s->spec.cidrs.v[i], ",");
	cell_text(b, &text, "");
}

void table_cell_ip_address_parent(struct buf *b, const struct table_cell *c)
{
	const struct networking_v1_parent_reference *p = ((const struct networking_v1_ip_address *)c->obj)->spec.parent_ref;

	if (!p)
		cell_str(b, STR("<none>"));
	else
		cell_printf(b, "%.*s%s%.*s%s%.*s/%.*s", STR_ARG(p->resource), p->group.n ? "." : "", STR_ARG(p->group),
			    p->namespace.n ? "/" : "", STR_ARG(p->namespace), STR_ARG(p->name));
}

/* ---- rbac ---- */

void table_cell_role_ref(struct buf *b, const struct table_cell *c)
{
	const struct schema_field *f;
	const struct rbac_v1_role_ref *r = table_value(c->type, c->obj, STR("roleRef"), &f);

	cell_printf(b, "%.*s/%.*s", STR_ARG(r->kind), STR_ARG(r->name));
}

static void subjects(struct buf *b, const struct table_cell *c, const char *kind)
{
	const struct schema_field *f;
	const struct {
		const struct rbac_v1_subject *v;
		uint32_t n, cap;
	} *l = table_value(c->type, c->obj, STR("subjects"), &f);
	buf_cleanup struct buf text = {0};

	for (uint32_t i = 0; i < l->n; i++) {
		const struct rbac_v1_subject *s = &l->v[i];

		if (!str_eqz(s->kind, kind))
			continue;
		text_add(&text, STR(""), ", ");
		if (str_eqz(s->kind, "ServiceAccount"))
			buf_printf(&text, "%.*s/", STR_ARG(s->namespace));
		buf_str(&text, s->name);
	}
	cell_text(b, &text, "");
}

void table_cell_subject_users(struct buf *b, const struct table_cell *c)
{
	subjects(b, c, "User");
}

void table_cell_subject_groups(struct buf *b, const struct table_cell *c)
{
	subjects(b, c, "Group");
}

void table_cell_subject_accounts(struct buf *b, const struct table_cell *c)
{
	subjects(b, c, "ServiceAccount");
}

/* ---- storage ---- */

void table_cell_csi_node_drivers(struct buf *b, const struct table_cell *c)
{
	buf_u64(b, ((const struct storage_v1_csi_node *)c->obj)->spec.drivers.n);
}

void table_cell_csi_token_requests(struct buf *b, const struct table_cell *c)
{
	const struct storage_v1_csi_driver *d = c->obj;
	buf_cleanup struct buf text = {0};

	for (uint32_t i = 0; i < d->spec.token_requests.n; i++) {
		if (i)
			buf_putc(&text, ','); /* an audience may be empty */
		buf_str(&text, d->spec.token_requests.v[i].audience);
	}
	cell_text(b, &text, d->spec.token_requests.n ? "" : "<unset>");
}

void table_cell_csi_modes(struct buf *b, const struct table_cell *c)
{
	const struct storage_v1_csi_driver *d = c->obj;
	buf_cleanup struct buf text = {0};

	for (uint32_t i = 0; i < d->spec.volume_lifecycle_modes.n; i++)
		text_add(&text, d->spec.volume_lifecycle_modes.v[i], ",");
	cell_text(b, &text, "<none>");
}

/* ---- admissionregistration ---- */

static void count_at(struct buf *b, const struct table_cell *c, struct str path)
{
	const struct schema_field *f;
	const struct strings *l = table_value(c->type, c->obj, path, &f);

	buf_u64(b, l ? l->n : 0);
}

void table_cell_webhook_count(struct buf *b, const struct table_cell *c)
{
	count_at(b, c, STR("webhooks"));
}

void table_cell_policy_rules(struct buf *b, const struct table_cell *c)
{
	count_at(b, c, c->type == &admissionregistration_v1_validating_admission_policy_type ? STR("spec.validations")
											     : STR("spec.mutations"));
}

void table_cell_policy_param_kind(struct buf *b, const struct table_cell *c)
{
	const struct schema_field *f;
	const struct admissionregistration_v1_param_kind *k = table_value(c->type, c->obj, STR("spec.paramKind"), &f);

	if (k)
		cell_printf(b, "%.*s/%.*s", STR_ARG(k->api_version), STR_ARG(k->kind));
	else
		cell_str(b, STR("<unset>"));
}

/* As Go's protobuf prints it. */
static void cell_label_selector_go(struct buf *b, const struct meta_v1_label_selector *s)
{
	buf_cleanup struct buf text = {0};

	buf_puts(&text, "&LabelSelector{MatchLabels:map[string]string{");
	for (uint32_t i = 0; i < s->match_labels.n; i++)
		buf_printf(&text, "%.*s: %.*s,", STR_ARG(s->match_labels.v[i].key), STR_ARG(s->match_labels.v[i].value));
	buf_puts(&text, "},MatchExpressions:[]LabelSelectorRequirement{");
	for (uint32_t i = 0; i < s->match_expressions.n; i++) {
		const struct meta_v1_label_selector_requirement *r = &s->match_expressions.v[i];

		buf_printf(&text, "LabelSelectorRequirement{Key:%.*s,Operator:%.*s,Values:[", STR_ARG(r->key), STR_ARG(r->operator));
		for (uint32_t k = 0; k < r->values.n; k++)
			buf_printf(&text, "%s%.*s", k ? " " : "", STR_ARG(r->values.v[k]));
		buf_puts(&text, "],},");
	}
	buf_puts(&text, "},}");
	cell_str(b, buf_view(&text));
}

void table_cell_policy_param_ref(struct buf *b, const struct table_cell *c)
{
	const struct schema_field *f;
	const struct admissionregistration_v1_param_ref *r = table_value(c->type, c->obj, STR("spec.paramRef"), &f);

	if (r && r->name.n)
		cell_printf(b, "%.*s/%.*s", r->namespace.n ? (int)r->namespace.n : 1, r->namespace.n ? r->namespace.p : "*",
			    STR_ARG(r->name));
	else if (r && r->selector)
		cell_label_selector_go(b, r->selector);
	else
		cell_str(b, STR("<unset>"));
}

/* ---- resource, apiregistration ---- */

void table_cell_claim_state(struct buf *b, const struct table_cell *c)
{
	const struct resource_v1_resource_claim *r = c->obj;
	bool deleted = c->meta->deletion_timestamp;

	if (!r->status.allocation)
		cell_str(b, deleted ? STR("deleted") : STR("pending"));
	else
		cell_printf(b, "%sallocated%s", deleted ? "deleted," : "", r->status.reserved_for.n ? ",reserved" : "");
}

void table_cell_api_service_target(struct buf *b, const struct table_cell *c)
{
	const struct apiregistration_v1_service_reference *s =
		((const struct apiregistration_v1_api_service *)c->obj)->spec.service;

	if (s)
		cell_printf(b, "%.*s/%.*s", STR_ARG(s->namespace), STR_ARG(s->name));
	else
		cell_str(b, STR("Local"));
}

void table_cell_api_service_available(struct buf *b, const struct table_cell *c)
{
	const struct apiregistration_v1_api_service_status *s =
		&((const struct apiregistration_v1_api_service *)c->obj)->status;

	for (uint32_t i = 0; i < s->conditions.n; i++) {
		if (!str_eqz(s->conditions.v[i].type, "Available"))
			continue;
		if (str_eqz(s->conditions.v[i].status, "True") || !s->conditions.v[i].reason.n)
			cell_str(b, s->conditions.v[i].status);
		else
			cell_printf(b, "%.*s (%.*s)", STR_ARG(s->conditions.v[i].status), STR_ARG(s->conditions.v[i].reason));
		return;
	}
	cell_str(b, STR("Unknown"));
}
