/* Virtual resources that answer questions: access reviews, token reviews, who am I. */
#include "apiserver/admission.h"
#include "apiserver/authn.h"
#include "apiserver/authz.h"
#include "schema/managed_fields.h"
#include "schema/selector.h"

static struct error *body_as(struct request *rq, const struct schema_type *t, void **out)
{
	struct meta_v1_object_meta *m;

	TRY(rest_body(rq, "CreateOptions", t, rq->res->api->kind, rq->res->api_version, out));
	m = object_meta(t, *out);
	m->creation_timestamp = (struct api_time){0};
	if (!rq->info.ns.n)
		m->namespace = STR_NULL;
	TRY(review_manage_fields(rq, t, *out));
	return admission_of_body(rq, t, m->name, *out);
}

struct error *review_manage_fields(struct request *rq, const struct schema_type *t, void *obj)
{
	struct str fm = query_get(&rq->q, "fieldManager");
	struct managed_fields_request mr = {
		.shape = shape_of_type(t),
		.api_version = t->group.n ? arena_printf(rq->a, "%.*s/%.*s", STR_ARG(t->group), STR_ARG(t->version)) : t->version,
		.subresource = rq->info.subresource,
		.manager = fm.n ? fm : field_manager_from_user_agent(rq->a, http_header_get(&rq->x->headers, "user-agent")),
		.now = time_now(),
	};

	return managed_fields_update_object(rq->a, &mr, NULL, obj);
}

/* Requirements as they are given; those that no selector can have are left out, and said so. */
static void review_selectors(struct arena *a, struct authz_attrs *at, const struct authorization_v1_resource_attributes *r)
{
	LIST(struct meta_v1_field_selector_requirement) f = {0};
	LIST(struct meta_v1_label_selector_requirement) l = {0};

	authz_selectors(a, at, r->field_selector ? r->field_selector->raw_selector : STR_NULL,
			r->label_selector ? r->label_selector->raw_selector : STR_NULL);
	if (r->field_selector && r->field_selector->requirements.n) {
		for (uint32_t i = 0; i < r->field_selector->requirements.n; i++) {
			const struct meta_v1_field_selector_requirement *q = &r->field_selector->requirements.v[i];

			if (q->values.n == 1 && (str_eqz(q->operator, "In") || str_eqz(q->operator, "NotIn")))
				*arena_push(a, &f) = *q;
			else
				at->fields_broken = true;
		}
		at->fields = f.v;
		at->n_fields = f.n;
	}
	if (r->label_selector && r->label_selector->requirements.n) {
		for (uint32_t i = 0; i < r->label_selector->requirements.n; i++) {
			const struct meta_v1_label_selector_requirement *q = &r->label_selector->requirements.v[i];
			struct meta_v1_label_selector one = {0};
			const struct selector *sel;
			struct error *e;

			one.match_expressions.v = (struct meta_v1_label_selector_requirement *)(uintptr_t)q;
			one.match_expressions.n = 1;
			e = label_selector_from(a, &one, &sel);
			if (e)
				at->labels_broken = true;
			else
				*arena_push(a, &l) = *q;
			error_free(e);
		}
		at->labels = l.v;
		at->n_labels = l.n;
	}
}

static void evaluate(struct request *rq, const struct user *u, const struct authorization_v1_resource_attributes *r,
		     const struct authorization_v1_non_resource_attributes *n, struct authorization_v1_subject_access_review_status *st)
{
	struct authz_attrs at = {.user = u};
	struct buf trouble buf_cleanup = {0};
	struct str reason, why;
	enum authz d;

	if (r) {
		at.resource_request = true;
		at.verb = r->verb;
		at.ns = r->namespace;
		at.group = r->group;
		at.version = r->version.n ? r->version : STR("*");
		at.resource = r->resource;
		at.subresource = r->subresource;
		at.name = r->name;
		review_selectors(rq->a, &at, r);
	} else {
		at.verb = n->verb;
		at.path = n->path;
	}
	d = authorize_explained(rq->s, rq->a, &at, &reason, &why);
	st->allowed = d == AUTHZ_ALLOW;
	st->denied = d == AUTHZ_DENY;
	st->reason = arena_str(rq->a, reason);
	if (why.p)
		buf_str(&trouble, why);
	if (at.fields_broken)
		buf_printf(&trouble, "%sspec.resourceAttributes.fieldSelector %signored due to parse error", trouble.n ? "; " : "",
			   at.n_fields ? "partially " : "");
	if (at.labels_broken)
		buf_printf(&trouble, "%sspec.resourceAttributes.labelSelector %signored due to parse error", trouble.n ? "; " : "",
			   at.n_labels ? "partially " : "");
	st->evaluation_error = arena_str(rq->a, buf_view(&trouble));
}

static const char *operator_known(struct str op)
{
	return str_eqz(op, "In") || str_eqz(op, "NotIn") ? "values" : str_eqz(op, "Exists") || str_eqz(op, "DoesNotExist") ? "none" : NULL;
}

static void requirement_validate(struct field_errors *e, struct str key, struct str op, const struct strings *values, bool label,
				 const struct field_path *p)
{
	const char *kind = operator_known(op);

	if (!label && !key.n)
		field_required(e, FIELD_CHILD(p, "key"), "must be specified");
	/* operators of later versions are let through, and ignored */
	if (kind && !strcmp(kind, "values") && !values->n)
		field_required(e, FIELD_CHILD(p, "values"), "must be specified when `operator` is 'In' or 'NotIn'");
	if (kind && !strcmp(kind, "none") && values->n)
		field_forbidden(e, FIELD_CHILD(p, "values"), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
	if (label) {
		field_check(e, FIELD_CHILD(p, "key"), key, validate_qualified_name);
		for (uint32_t i = 0; i < values->n; i++)
			field_check(e, FIELD_INDEX(FIELD_CHILD(p, "values"), i), values->v[i], validate_label_value);
	}
}

static void selector_attributes_validate(struct field_errors *e, struct str raw, uint32_t n, const struct field_path *p)
{
	if (raw.n && n)
		field_invalid(e, FIELD_CHILD(p, "rawSelector"), raw, "may not specified at the same time as requirements");
	if (!raw.n && !n)
		field_required(e, FIELD_CHILD(p, "requirements"),
			       arena_printf(e->arena, "when %.*s is specified, requirements or rawSelector is required",
					    STR_ARG(field_path_format(e->arena, p))).p);
}

static void attributes_validate(struct field_errors *e, const struct authorization_v1_resource_attributes *r)
{
	const struct field_path *ra = FIELD_CHILD(FIELD_ROOT("spec"), "resourceAttributes"), *f = FIELD_CHILD(ra, "fieldSelector"),
				*l = FIELD_CHILD(ra, "labelSelector");

	if (r->field_selector) {
		selector_attributes_validate(e, r->field_selector->raw_selector, r->field_selector->requirements.n, f);
		for (uint32_t i = 0; i < r->field_selector->requirements.n; i++) {
			const struct meta_v1_field_selector_requirement *q = &r->field_selector->requirements.v[i];

			requirement_validate(e, q->key, q->operator, (const struct strings *)(const void *)&q->values, false,
					     FIELD_INDEX(FIELD_CHILD(f, "requirements"), i));
		}
	}
	if (r->label_selector) {
		selector_attributes_validate(e, r->label_selector->raw_selector, r->label_selector->requirements.n, l);
		for (uint32_t i = 0; i < r->label_selector->requirements.n; i++) {
			const struct meta_v1_label_selector_requirement *q = &r->label_selector->requirements.v[i];

			requirement_validate(e, q->key, q->operator, (const struct strings *)(const void *)&q->values, true,
					     FIELD_INDEX(FIELD_CHILD(l, "requirements"), i));
		}
	}
}

static void check_spec(struct field_errors *fe, const struct authorization_v1_resource_attributes *r, const void *n)
{
	if (r)
		attributes_validate(fe, r);

	if (r && n)
		field_invalid_raw(fe, FIELD_CHILD(FIELD_ROOT("spec"), "nonResourceAttributes"), STR("null"),
				  "cannot be specified in combination with resourceAttributes");
	if (!r && !n)
		field_invalid_raw(fe, FIELD_CHILD(FIELD_ROOT("spec"), "resourceAttributes"), STR("null"),
				  "exactly one of nonResourceAttributes or resourceAttributes must be specified");
}

/* A question has no metadata but what a server adds; the namespace of a local one is its request's. */
static void check_metadata(struct field_errors *fe, const struct meta_v1_object_meta *m, bool local)
{
	struct meta_v1_object_meta rest = *m;

	memset(&rest.managed_fields, 0, sizeof rest.managed_fields);
	if (local)
		rest.namespace = STR_NULL;
	if (!object_equal(&meta_v1_object_meta_type, &rest, &(struct meta_v1_object_meta){0}))
		field_invalid_raw(fe, FIELD_ROOT("metadata"), STR("{...}"), local ? "must be empty except for namespace" : "must be empty");
}

static struct user *user_of_spec(struct request *rq, const struct authorization_v1_subject_access_review_spec *s)
{
	struct user *u = arena_new(rq->a, struct user);

	u->name = s->user;
	u->uid = s->uid;
	u->groups = s->groups.v;
	u->n_groups = s->groups.n;
	u->extra = (const struct strings_pair *)(const void *)s->extra.v;
	u->n_extra = s->extra.n;
	return u;
}

static struct error *subject_access(struct request *rq, bool local)
{
	struct authorization_v1_subject_access_review *sar;
	struct field_errors fe = {.arena = rq->a};
	void *obj;

	/* LocalSubjectAccessReview has the same fields */
	TRY(body_as(rq, rq->res->api->type, &obj));
	sar = obj;
	if (local && !sar->metadata.namespace.n)
		sar->metadata.namespace = rq->info.ns;
	if (local && !str_eq(sar->metadata.namespace, rq->info.ns))
		return err_bad_request("the namespace of the provided object does not match the namespace sent on the request");
	check_spec(&fe, sar->spec.resource_attributes, sar->spec.non_resource_attributes);
	if (!sar->spec.user.n && !sar->spec.groups.n)
		field_invalid(&fe, FIELD_CHILD(FIELD_ROOT("spec"), "user"), sar->spec.user, "at least one of user or group must be specified");
	check_metadata(&fe, &sar->metadata, local);
	if (local && sar->spec.resource_attributes && !str_eq(sar->spec.resource_attributes->namespace, rq->info.ns))
		field_invalid(&fe, FIELD_CHILD(FIELD_CHILD(FIELD_ROOT("spec"), "resourceAttributes"), "namespace"),
			      sar->spec.resource_attributes->namespace, "must match metadata.namespace");
	if (local && sar->spec.non_resource_attributes)
		field_invalid_raw(&fe, FIELD_CHILD(FIELD_ROOT("spec"), "nonResourceAttributes"),
				  arena_printf(rq->a, "{\"Path\":\"%.*s\",\"Verb\":\"%.*s\"}", STR_ARG(sar->spec.non_resource_attributes->path),
					       STR_ARG(sar->spec.non_resource_attributes->verb)),
				  "disallowed on this kind of request");
	TRY(field_errors_status(&fe, rq->res->api->group, STR_NULL, STR_NULL));
	memset(&sar->status, 0, sizeof sar->status);
	evaluate(rq, user_of_spec(rq, &sar->spec), sar->spec.resource_attributes, sar->spec.non_resource_attributes, &sar->status);
	return respond_struct(rq, 201, rq->res->api->type, sar);
}

static struct error *self_access(struct request *rq)
{
	struct authorization_v1_self_subject_access_review *sar;
	struct field_errors fe = {.arena = rq->a};
	void *obj;

	TRY(body_as(rq, rq->res->api->type, &obj));
	sar = obj;
	check_spec(&fe, sar->spec.resource_attributes, sar->spec.non_resource_attributes);
	check_metadata(&fe, &sar->metadata, false);
	TRY(field_errors_status(&fe, rq->res->api->group, STR_NULL, STR_NULL));
	memset(&sar->status, 0, sizeof sar->status);
	evaluate(rq, rq->user, sar->spec.resource_attributes, sar->spec.non_resource_attributes, &sar->status);
	return respond_struct(rq, 201, rq->res->api->type, sar);
}

static struct error *self_rules(struct request *rq)
{
	struct authorization_v1_self_subject_rules_review *r;
	struct rbac_v1_policy_rule_list rules = {0};
	struct authz_untold untold = {0};
	bool complete;
	void *obj;

	TRY(body_as(rq, rq->res->api->type, &obj));
	r = obj;
	if (!r->spec.namespace.n)
		return err_bad_request("no namespace on request");
	complete = authz_rules_for(rq->s, rq->a, rq->user, r->spec.namespace, &rules, &untold);
	/* the answer is a new object: upstream gives nothing of the question back */
	memset(&r->status, 0, sizeof r->status);
	memset(&r->spec, 0, sizeof r->spec);
	memset(&r->metadata, 0, sizeof r->metadata);
	r->status.resource_rules.v = arena_alloc(rq->a, 1);
	r->status.non_resource_rules.v = arena_alloc(rq->a, 1);
	r->status.incomplete = !complete;
	r->status.evaluation_error = authz_untold_text(rq->a, &untold);
	for (uint32_t i = 0; i < rules.n; i++) {
		const struct rbac_v1_policy_rule *p = &rules.v[i];

		if (p->non_resource_urls.n) {
			struct authorization_v1_non_resource_rule *n = arena_push(rq->a, &r->status.non_resource_rules);

			memcpy(&n->verbs, &p->verbs, sizeof n->verbs);
			memcpy(&n->non_resource_urls, &p->non_resource_urls, sizeof n->non_resource_urls);
		}
		if (p->resources.n) {
			struct authorization_v1_resource_rule *n = arena_push(rq->a, &r->status.resource_rules);

			memcpy(&n->verbs, &p->verbs, sizeof n->verbs);
			memcpy(&n->api_groups, &p->api_groups, sizeof n->api_groups);
			memcpy(&n->resources, &p->resources, sizeof n->resources);
			memcpy(&n->resource_names, &p->resource_names, sizeof n->resource_names);
		}
	}
	return respond_struct(rq, 201, rq->res->api->type, r);
}

static void user_info(struct arena *a, const struct user *u, struct authentication_v1_user_info *out)
{
	out->username = arena_str(a, u->name);
	out->uid = arena_str(a, u->uid);
	for (size_t i = 0; i < u->n_groups; i++)
		*arena_push(a, &out->groups) = arena_str(a, u->groups[i]);
	for (size_t i = 0; i < u->n_extra; i++) {
		struct strings_pair *p = (struct strings_pair *)(void *)arena_push(a, &out->extra);

		*p = u->extra[i];
	}
}

static struct error *token_review(struct request *rq)
{
	struct authentication_v1_token_review *tr;
	const struct user *u;
	struct strings auds = {0};
	struct str why = STR_NULL;
	void *obj;

	TRY(body_as(rq, rq->res->api->type, &obj));
	tr = obj;
	if (!tr->spec.token.n)
		return err_bad_request("token is required for TokenReview in authentication");
	memset(&tr->status, 0, sizeof tr->status);
	authenticate_token(rq, tr->spec.token, tr->spec.audiences.v, tr->spec.audiences.n, &u, &auds, &why);
	if (u) {
		tr->status.authenticated = true;
		user_info(rq->a, u, &tr->status.user);
		if (auds.n) {
			tr->status.audiences.v = auds.v;
			tr->status.audiences.n = auds.n;
		} else {
			const struct str *d;
			size_t n;

			sa_default_audiences(rq->s, &d, &n);
			for (size_t i = 0; i < n; i++)
				*arena_push(rq->a, &tr->status.audiences) = d[i];
		}
	} else {
		tr->status.error = why;
	}
	return respond_struct(rq, 201, rq->res->api->type, tr);
}

static struct error *self_review(struct request *rq)
{
	struct authentication_v1_self_subject_review *r;
	void *obj;

	TRY(body_as(rq, rq->res->api->type, &obj));
	r = arena_new(rq->a, struct authentication_v1_self_subject_review); /* what was sent is not given back */
	r->kind = ((struct authentication_v1_self_subject_review *)obj)->kind;
	r->api_version = ((struct authentication_v1_self_subject_review *)obj)->api_version;
	r->metadata.creation_timestamp = time_now();
	user_info(rq->a, rq->user, &r->status.user_info);
	return respond_struct(rq, 201, rq->res->api->type, r);
}

struct error *rest_review(struct request *rq, bool *handled)
{
	struct str p = rq->info.resource, g = rq->info.group;
	bool authz = str_eqz(g, "authorization.k8s.io"), authn = str_eqz(g, "authentication.k8s.io");

	*handled = true;
	if (authz && str_eqz(p, "selfsubjectaccessreviews"))
		return self_access(rq);
	if (authz && str_eqz(p, "subjectaccessreviews"))
		return subject_access(rq, false);
	if (authz && str_eqz(p, "localsubjectaccessreviews"))
		return subject_access(rq, true);
	if (authz && str_eqz(p, "selfsubjectrulesreviews"))
		return self_rules(rq);
	if (authn && str_eqz(p, "tokenreviews"))
		return token_review(rq);
	if (authn && str_eqz(p, "selfsubjectreviews"))
		return self_review(rq);
	*handled = false;
	return NULL;
}
