/* What every cluster starts with. */
#include <arpa/inet.h>
#include "schema/managed_fields.h"
#include "apiserver/alloc.h"
#include "apiserver/authz.h"
#include "apiserver/background.h"
#include "apiserver/bootstrap.h"
#include "schema/jv.h"
#include "apiserver/extend.h"
#include "apiserver/identity.h"
#include "schema/defaults.h"

/* ---- the policy text ---- */

struct policy_role {
	struct str ns, name, labels, aggregate;
	LIST(struct rbac_v1_policy_rule) rules;
};

static struct str word(struct str *rest)
{
	struct str w = str_cut(rest, ' ');

	return str_eqz(w, "-") ? STR_NULL : w;
}

static void words(struct arena *a, struct str text, void *list)
{
	LIST(struct str) *l = list;

	while (text.p && text.n) {
		struct str w = str_cut(&text, ',');

		*arena_push(a, l) = str_eqz(w, "\"\"") ? STR("") : w;
	}
}

/* The next role or binding; false at the end. A binding has role == NULL and its line in *bind. */
static bool policy_next(struct arena *a, struct str *rest, struct policy_role *role, struct str *bind)
{
	struct str line;

	memset(role, 0, sizeof *role);
	*bind = STR_NULL;
	if (!rest->p || !rest->n)
		return false;
	line = str_cut(rest, '\n');
	if (str_has_prefix(line, STR("bind "))) {
		*bind = str_sub(line, 5, line.n);
		return true;
	}
	line = str_sub(line, 5, line.n);
	role->ns = word(&line);
	role->name = word(&line);
	role->labels = word(&line);
	role->aggregate = word(&line);
	while (rest->p && rest->n && rest->p[0] == ' ') {
		struct rbac_v1_policy_rule *r = arena_push(a, &role->rules);

		line = str_cut(rest, '\n');
		line = str_sub(line, 2, line.n);
		words(a, word(&line), &r->verbs);
		words(a, word(&line), &r->api_groups);
		words(a, word(&line), &r->resources);
		words(a, word(&line), &r->resource_names);
		words(a, word(&line), &r->non_resource_urls);
	}
	return true;
}

void bootstrap_policy_rules(struct arena *a, struct str name, struct rbac_v1_policy_rule **rules, uint32_t *n)
{
	struct str rest = str_from(bootstrap_policy), bind;
	struct policy_role role;

	*rules = NULL;
	*n = 0;
	while (policy_next(a, &rest, &role, &bind))
		if (!bind.p && !role.ns.n && str_eq(role.name, name)) {
			*rules = role.rules.v;
			*n = role.rules.n;
			return;
		}
}

/* ---- making and repairing objects ---- */

/* Creates obj; *existed tells that it was there already, or is of an API that is not served. */
struct error *bootstrap_ensure(struct apiserver *s, struct arena *a, const char *group, const char *plural, struct str ns, void *obj, bool *existed)
{
	struct request rq;
	struct write_result r;
	struct resource *res = resource_any(s, str_from(group), str_from(plural));
	struct str name = object_meta(res->st->type, obj)->name;
	struct error *e;

	*existed = !resource_served(s, res) || cache_peek(res->st->cache, ns, name) != NULL;
	if (*existed)
		return NULL;
	request_internal(&rq, s, a, res, ns);
	rq.nosync = true;
	object_default(a, res->st->type, obj);
	e = registry_create(&rq, obj, &r);
	if (error_is(e, 409, "AlreadyExists")) {
		error_free(e);
		*existed = true;
		return NULL;
	}
	if (!e)
		cache_entry_unref(r.entry);
	return error_wrap(e, "creating %s %.*s", plural, STR_ARG(name));
}

static struct error *make_applied(void *ctx, struct request *rq, const void *old, void **out)
{
	const struct schema_type *t = rq->res->st->type;
	struct managed_fields_request mr = {
		.shape = shape_of_type(t), .api_version = rq->res->api_version, .subresource = STR("status"), .manager = rq->manager, .now = time_now(),
	};
	bool changed;

	managed_fields_reset_of(rq->res->api, STR("status"), &mr);
	*out = arena_alloc(rq->a, t->size);
	TRY(managed_fields_apply_object(rq->a, &mr, old, ctx, true, *out, &changed));
	object_meta(t, *out)->resource_version = STR_NULL;
	return NULL;
}

struct error *bootstrap_apply_condition(struct apiserver *s, struct arena *a, const char *group, const char *plural, struct str name,
					struct str manager, const struct applied_condition *c)
{
	struct resource *res = resource_any(s, str_from(group), str_from(plural));
	struct jv config = jv_object(), meta = jv_object(), status = jv_object(), list = jv_array(), condition = jv_object();
	struct update u = {.make = make_applied, .ctx = &config, .sub = "status", .flags = UPDATE_UNCONDITIONAL, .apply = true, .retry = true};
	struct request rq;
	struct write_result r;

	jv_set(a, &condition, STR("type"), jv_string(c->type));
	jv_set(a, &condition, STR("status"), jv_string(c->status));
	jv_set(a, &condition, STR("lastTransitionTime"), jv_string(time_format(a, time_now(), false)));
	if (c->reason.p)
		jv_set(a, &condition, STR("reason"), jv_string(c->reason));
	if (c->message.p)
		jv_set(a, &condition, STR("message"), jv_string(c->message));
	jv_push(a, &list, condition);
	jv_set(a, &status, STR("conditions"), list);
	jv_set(a, &meta, STR("name"), jv_string(name));
	jv_set(a, &config, STR("apiVersion"), jv_string(res->api_version));
	jv_set(a, &config, STR("kind"), jv_string(res->api->kind));
	jv_set(a, &config, STR("metadata"), meta);
	jv_set(a, &config, STR("status"), status);
	request_internal(&rq, s, a, res, STR_NULL);
	rq.nosync = true;
	rq.manager = manager;
	TRY(registry_update(&rq, STR_NULL, name, &u, &r));
	cache_entry_unref(r.entry);
	return NULL;
}

static struct error *make_given(void *ctx, struct request *rq, const void *old, void **out)
{
	(void)rq;
	(void)old;
	*out = ctx;
	return NULL;
}

static struct error *replace(struct apiserver *s, struct arena *a, const char *group, const char *plural, struct str ns, void *obj)
{
	struct request rq;
	struct write_result r;
	struct resource *res = resource_any(s, str_from(group), str_from(plural));
	struct update u = {.make = make_given, .ctx = obj, .flags = UPDATE_UNCONDITIONAL};
	struct error *e;

	request_internal(&rq, s, a, res, ns);
	rq.nosync = true;
	e = registry_update(&rq, ns, object_meta(res->st->type, obj)->name, &u, &r);
	if (!e)
		cache_entry_unref(r.entry);
	return e;
}

static void labels_of(struct arena *a, struct str text, struct str_map *m)
{
	while (text.p && text.n) {
		struct str pair = str_cut(&text, ','), key = str_cut(&pair, '=');

		str_map_set(a, m, key, pair);
	}
}

static void default_meta(struct arena *a, struct meta_v1_object_meta *m, struct str ns, struct str name, struct str labels)
{
	m->name = name;
	m->namespace = ns;
	labels_of(a, labels, API_MAP(&m->labels));
	str_map_set(a, API_MAP(&m->labels), STR("kubernetes.io/bootstrapping"), STR("rbac-defaults"));
	str_map_set(a, API_MAP(&m->annotations), STR("rbac.authorization.kubernetes.io/autoupdate"), STR("true"));
}

static bool autoupdate(const struct meta_v1_object_meta *m)
{
	return !str_eqz(str_map_get(API_MAP(&m->annotations), STR("rbac.authorization.kubernetes.io/autoupdate")), "false");
}

/* Labels and annotations that are not there are added; others, and other values, are left. */
static bool add_pairs(struct arena *a, struct str_map *have, const struct str_map *want)
{
	bool changed = false;

	for (uint32_t i = 0; i < want->n; i++)
		if (!str_map_has(have, want->v[i].key)) {
			str_map_set(a, have, want->v[i].key, want->v[i].value);
			changed = true;
		}
	return changed;
}

static bool add_meta(struct arena *a, struct meta_v1_object_meta *have, const struct meta_v1_object_meta *want)
{
	bool changed = add_pairs(a, API_MAP(&have->annotations), API_MAP(&want->annotations));

	return add_pairs(a, API_MAP(&have->labels), API_MAP(&want->labels)) || changed;
}

/* Rights of `want` that the rules do not give are added; extra ones are left. */
static bool add_rules(struct arena *a, void *list, const struct rbac_v1_policy_rule *want, uint32_t n)
{
	LIST(struct rbac_v1_policy_rule) *have = list;
	struct rbac_v1_policy_rule_list missing = {0};

	rbac_uncovered(a, have->v, have->n, want, n, &missing);
	for (uint32_t i = 0; i < missing.n; i++)
		*arena_push(a, have) = missing.v[i];
	return missing.n > 0;
}

/* What a role collects: added to what there is; nothing, where it should collect nothing. */
static bool add_selectors(struct arena *a, struct rbac_v1_cluster_role *have, const struct rbac_v1_cluster_role *want)
{
	bool changed = false;

	if (!want->aggregation_rule) {
		changed = have->aggregation_rule != NULL;
		have->aggregation_rule = NULL;
		return changed;
	}
	if (!have->aggregation_rule)
		have->aggregation_rule = arena_new(a, struct rbac_v1_aggregation_rule);
	for (uint32_t i = 0; i < want->aggregation_rule->cluster_role_selectors.n; i++) {
		const struct meta_v1_label_selector *sel = &want->aggregation_rule->cluster_role_selectors.v[i];
		bool has = false;

		for (uint32_t k = 0; k < have->aggregation_rule->cluster_role_selectors.n; k++)
			has |= object_equal(&meta_v1_label_selector_type, &have->aggregation_rule->cluster_role_selectors.v[k], sel);
		if (!has)
			*arena_push(a, &have->aggregation_rule->cluster_role_selectors) = *sel;
		changed |= !has;
	}
	return changed;
}

/* Rules of every role that carries the label: what the aggregation controller would write. */
static void aggregate_rules(struct arena *a, struct str label, void *list)
{
	LIST(struct rbac_v1_policy_rule) *out = list;
	struct str rest = str_from(bootstrap_policy), bind;
	struct policy_role role;

	while (policy_next(a, &rest, &role, &bind)) {
		if (bind.p || role.ns.n || !role.labels.n || !str_contains(role.labels, label))
			continue;
		for (uint32_t i = 0; i < role.rules.n; i++)
			*arena_push(a, out) = role.rules.v[i];
		if (role.aggregate.n && !str_eq(role.aggregate, label))
			aggregate_rules(a, role.aggregate, list);
	}
}

static struct error *one_role(struct apiserver *s, struct arena *a, struct policy_role *p)
{
	bool existed, changed;

	if (p->ns.n) {
		struct rbac_v1_role *r = arena_new(a, struct rbac_v1_role), *now;

		default_meta(a, &r->metadata, p->ns, p->name, p->labels);
		memcpy(&r->rules, &p->rules, sizeof r->rules);
		TRY(bootstrap_ensure(s, a, "rbac.authorization.k8s.io", "roles", p->ns, r, &existed));
		if (!existed)
			return NULL;
		now = registry_peek(s, a, storage_find(s, STR("rbac.authorization.k8s.io"), STR("roles")), p->ns, p->name);
		if (!now || !autoupdate(&now->metadata))
			return NULL;
		changed = add_meta(a, &now->metadata, &r->metadata);
		changed |= add_rules(a, &now->rules, p->rules.v, p->rules.n);
		if (!changed)
			return NULL;
		return replace(s, a, "rbac.authorization.k8s.io", "roles", p->ns, now);
	}
	struct rbac_v1_cluster_role *r = arena_new(a, struct rbac_v1_cluster_role), *now;

	default_meta(a, &r->metadata, STR_NULL, p->name, p->labels);
	memcpy(&r->rules, &p->rules, sizeof r->rules);
	if (p->aggregate.n) {
		struct meta_v1_label_selector *sel;

		r->aggregation_rule = arena_new(a, struct rbac_v1_aggregation_rule);
		sel = arena_push(a, &r->aggregation_rule->cluster_role_selectors);
		labels_of(a, p->aggregate, API_MAP(&sel->match_labels));
		aggregate_rules(a, p->aggregate, &r->rules);
	}
	TRY(bootstrap_ensure(s, a, "rbac.authorization.k8s.io", "clusterroles", STR_NULL, r, &existed));
	if (!existed)
		return NULL;
	now = registry_peek(s, a, storage_find(s, STR("rbac.authorization.k8s.io"), STR("clusterroles")), STR_NULL, p->name);
	if (!now || !autoupdate(&now->metadata))
		return NULL;
	changed = add_meta(a, &now->metadata, &r->metadata);
	/* the rules of a role that collects others come from those */
	changed |= !p->aggregate.n && add_rules(a, &now->rules, p->rules.v, p->rules.n);
	changed |= add_selectors(a, now, r);
	if (!changed)
		return NULL;
	return replace(s, a, "rbac.authorization.k8s.io", "clusterroles", STR_NULL, now);
}

static struct error *take_away(struct apiserver *s, struct arena *a, const char *plural, struct str ns, const struct rbac_v1_role_binding *b)
{
	struct meta_v1_preconditions same = {.uid = arena_new(a, struct str)};
	struct meta_v1_delete_options o = {.preconditions = &same};
	struct request rq;
	struct write_result r;
	struct error *e;

	*same.uid = b->metadata.uid;
	request_internal(&rq, s, a, resource_any(s, STR("rbac.authorization.k8s.io"), str_from(plural)), ns);
	e = registry_delete(&rq, ns, b->metadata.name, &o, &r);
	if (!e)
		cache_entry_unref(r.entry);
	else if (error_is(e, 404, NULL))
		error_clear(&e);
	return e;
}

static struct error *one_binding(struct apiserver *s, struct arena *a, struct str line)
{
	struct str ns = word(&line), name = word(&line), kind = word(&line), role = word(&line);
	struct rbac_v1_role_binding *b = arena_new(a, struct rbac_v1_role_binding), *now;
	const char *plural = ns.n ? "rolebindings" : "clusterrolebindings";
	struct str group = STR("rbac.authorization.k8s.io");
	bool existed, changed = false;

	default_meta(a, &b->metadata, ns, name, STR_NULL);
	b->role_ref.api_group = group;
	b->role_ref.kind = kind;
	b->role_ref.name = role;
	while (line.p && line.n) {
		struct str w = str_cut(&line, ' ');
		struct rbac_v1_subject *sub = arena_push(a, &b->subjects);
		struct str who = str_sub(w, 2, w.n);

		if (w.p[0] == 's') {
			sub->kind = STR("ServiceAccount");
			sub->namespace = str_cut(&who, '/');
		} else {
			sub->kind = w.p[0] == 'g' ? STR("Group") : STR("User");
			sub->api_group = group;
		}
		sub->name = who;
	}
	/* ClusterRoleBinding has the same fields as RoleBinding */
	TRY(bootstrap_ensure(s, a, "rbac.authorization.k8s.io", plural, ns, b, &existed));
	if (!existed)
		return NULL;
	now = registry_peek(s, a, storage_find(s, group, str_from(plural)), ns, name);
	if (!now || !autoupdate(&now->metadata))
		return NULL;
	if (!object_equal(&rbac_v1_role_ref_type, &now->role_ref, &b->role_ref)) {
		/* which role it binds cannot be changed: it is made anew */
		TRY(take_away(s, a, plural, ns, now));
		return bootstrap_ensure(s, a, "rbac.authorization.k8s.io", plural, ns, b, &existed);
	}
	changed = add_meta(a, &now->metadata, &b->metadata);
	for (uint32_t i = 0; i < b->subjects.n; i++) {
		bool has = false;

		for (uint32_t k = 0; k < now->subjects.n; k++)
			has |= object_equal(&rbac_v1_subject_type, &now->subjects.v[k], &b->subjects.v[i]);
		if (!has) {
			*arena_push(a, &now->subjects) = b->subjects.v[i];
			changed = true;
		}
	}
	return changed ? replace(s, a, "rbac.authorization.k8s.io", plural, ns, now) : NULL;
}

/*
 * What everybody may see was once bound by system:discovery. A cluster without system:public-info-viewer gets it as it has set that one:
 * its subjects, labels and annotations (autoupdate=false among them).
 */
static struct error *split_discovery(struct apiserver *s)
{
	struct arena a arena_cleanup = {0};
	struct storage *st = storage_find(s, STR("rbac.authorization.k8s.io"), STR("clusterrolebindings"));
	struct rbac_v1_role_binding *old = registry_peek(s, &a, st, STR_NULL, STR("system:discovery"));
	struct rbac_v1_role_binding *b;
	bool existed;

	if (!old)
		return NULL;
	b = arena_new(&a, struct rbac_v1_role_binding);
	b->metadata.name = b->role_ref.name = STR("system:public-info-viewer");
	b->role_ref.api_group = STR("rbac.authorization.k8s.io");
	b->role_ref.kind = STR("ClusterRole");
	memcpy(&b->metadata.labels, &old->metadata.labels, sizeof b->metadata.labels);
	memcpy(&b->metadata.annotations, &old->metadata.annotations, sizeof b->metadata.annotations);
	memcpy(&b->subjects, &old->subjects, sizeof b->subjects);
	return bootstrap_ensure(s, &a, "rbac.authorization.k8s.io", "clusterrolebindings", STR_NULL, b, &existed);
}

static struct error *policy(struct apiserver *s)
{
	struct str rest = str_from(bootstrap_policy), bind;
	struct arena text arena_cleanup = {0};
	struct policy_role role;

	TRY(split_discovery(s));
	while (policy_next(&text, &rest, &role, &bind)) {
		struct arena a arena_cleanup = {0};

		TRY(bind.p ? one_binding(s, &a, bind) : one_role(s, &a, &role));
	}
	return NULL;
}

/* ---- namespaces, priorities, flow control, services ---- */

static struct error *namespaces(struct apiserver *s)
{
	static const char *const names[] = {"default", "kube-system", "kube-public", "kube-node-lease"};
	struct arena a arena_cleanup = {0};
	bool existed;

	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		struct core_v1_namespace *n = arena_new(&a, struct core_v1_namespace);

		n->metadata.name = str_from(names[i]);
		TRY(bootstrap_ensure(s, &a, "", "namespaces", STR_NULL, n, &existed));
	}
	return NULL;
}

static struct error *priorities(struct apiserver *s)
{
	static const struct {
		const char *name, *text;
		int32_t value;
	} classes[] = {
		{"system-node-critical", "Used for system critical pods that must not be moved from their current node.", 2000001000},
		{"system-cluster-critical",
		 "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.", 2000000000},
	};
	struct arena a arena_cleanup = {0};
	bool existed;

	for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
		struct scheduling_v1_priority_class *c = arena_new(&a, struct scheduling_v1_priority_class);

		c->metadata.name = str_from(classes[i].name);
		c->value = classes[i].value;
		c->description = str_from(classes[i].text);
		TRY(bootstrap_ensure(s, &a, "scheduling.k8s.io", "priorityclasses", STR_NULL, c, &existed));
	}
	return NULL;
}

/* The default flow control objects: name, shares or Exempt, queues; then schemas: name, level, precedence, whom, what. */
static const struct {
	const char *name;
	int32_t shares, lendable, queues, hand, length; /* shares < 0: exempt; queues 0: reject */
} levels[] = {
	{"exempt", -1, 0, 0, 0, 0},          {"catch-all", 5, 0, 0, 0, 0},          {"system", 30, 33, 64, 6, 50},
	{"node-high", 40, 25, 64, 6, 50},    {"leader-election", 10, 0, 16, 4, 50}, {"workload-high", 40, 50, 128, 6, 50},
	{"workload-low", 100, 90, 128, 6, 50}, {"global-default", 20, 50, 128, 6, 50},
};
/* who: g:GROUP u:USER s:NS/NAME; rules: VERBS GROUPS RESOURCES NAMESPACES|* and "n" URLS, separated by ';' */
static const struct {
	const char *name, *level, *who, *rules, *method;
	int32_t precedence;
} schemas[] = {
	{"exempt", "exempt", "g:system:masters", "* * * *;n * *", NULL, 1},
	{"probes", "exempt", "g:system:unauthenticated g:system:authenticated", "n get /healthz,/readyz,/livez", NULL, 2},
	{"system-leader-election", "leader-election",
	 "u:system:kube-controller-manager u:system:kube-scheduler s:kube-system/*",
	 "get,create,update coordination.k8s.io leases *", "ByUser", 100},
	{"system-node-high", "node-high", "g:system:nodes", "* \"\" nodes,nodes/status *;* coordination.k8s.io leases *", "ByUser", 400},
	{"system-nodes", "system", "g:system:nodes", "* * * *;n * *", "ByUser", 500},
	{"kube-controller-manager", "workload-high", "u:system:kube-controller-manager", "* * * *;n * *", "ByNamespace", 800},
	{"kube-scheduler", "workload-high", "u:system:kube-scheduler", "* * * *;n * *", "ByNamespace", 800},
	{"kube-system-service-accounts", "workload-high", "s:kube-system/*", "* * * *;n * *", "ByNamespace", 900},
	{"service-accounts", "workload-low", "g:system:serviceaccounts", "* * * *;n * *", "ByUser", 9000},
	{"global-default", "global-default", "g:system:unauthenticated g:system:authenticated", "* * * *;n * *", "ByUser", 9900},
	{"catch-all", "catch-all", "g:system:unauthenticated g:system:authenticated", "* * * *;n * *", "ByUser", 10000},
};

static int32_t *int32_of(struct arena *a, int32_t v)
{
	int32_t *p = arena_new(a, int32_t);

	*p = v;
	return p;
}

static struct error *flow_control(struct apiserver *s)
{
	struct arena a arena_cleanup = {0};
	bool existed;
	struct str auto_key = STR("apf.kubernetes.io/autoupdate-spec");

	for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
		struct flowcontrol_v1_priority_level_configuration *p = arena_new(&a, struct flowcontrol_v1_priority_level_configuration);

		p->metadata.name = str_from(levels[i].name);
		str_map_set(&a, API_MAP(&p->metadata.annotations), auto_key, STR("true"));
		if (levels[i].shares < 0) {
			p->spec.type = STR("Exempt");
			p->spec.exempt = arena_new(&a, struct flowcontrol_v1_exempt_priority_level_configuration);
			p->spec.exempt->nominal_concurrency_shares = int32_of(&a, 0);
			p->spec.exempt->lendable_percent = int32_of(&a, 0);
		} else {
			p->spec.type = STR("Limited");
			p->spec.limited = arena_new(&a, struct flowcontrol_v1_limited_priority_level_configuration);
			p->spec.limited->nominal_concurrency_shares = int32_of(&a, levels[i].shares);
			p->spec.limited->lendable_percent = int32_of(&a, levels[i].lendable);
			p->spec.limited->limit_response.type = levels[i].queues ? STR("Queue") : STR("Reject");
			if (levels[i].queues) {
				struct flowcontrol_v1_queuing_configuration *q = arena_new(&a, struct flowcontrol_v1_queuing_configuration);

				q->queues = levels[i].queues;
				q->hand_size = levels[i].hand;
				q->queue_length_limit = levels[i].length;
				p->spec.limited->limit_response.queuing = q;
			}
		}
		TRY(bootstrap_ensure(s, &a, "flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations", STR_NULL, p, &existed));
	}
	for (size_t i = 0; i < sizeof schemas / sizeof *schemas; i++) {
		struct flowcontrol_v1_flow_schema *f = arena_new(&a, struct flowcontrol_v1_flow_schema);
		struct flowcontrol_v1_policy_rules_with_subjects *pr = arena_push(&a, &f->spec.rules);
		struct str who = str_from(schemas[i].who), rules = str_from(schemas[i].rules);

		f->metadata.name = str_from(schemas[i].name);
		str_map_set(&a, API_MAP(&f->metadata.annotations), auto_key, STR("true"));
		f->spec.priority_level_configuration.name = str_from(schemas[i].level);
		f->spec.matching_precedence = schemas[i].precedence;
		if (schemas[i].method) {
			f->spec.distinguisher_method = arena_new(&a, struct flowcontrol_v1_flow_distinguisher_method);
			f->spec.distinguisher_method->type = str_from(schemas[i].method);
		}
		while (who.p && who.n) {
			struct str w = str_cut(&who, ' '), name = str_sub(w, 2, w.n);
			struct flowcontrol_v1_subject *sub = arena_push(&a, &pr->subjects);

			if (w.p[0] == 'g') {
				sub->kind = STR("Group");
				sub->group = arena_new(&a, struct flowcontrol_v1_group_subject);
				sub->group->name = name;
			} else if (w.p[0] == 'u') {
				sub->kind = STR("User");
				sub->user = arena_new(&a, struct flowcontrol_v1_user_subject);
				sub->user->name = name;
			} else {
				sub->kind = STR("ServiceAccount");
				sub->service_account = arena_new(&a, struct flowcontrol_v1_service_account_subject);
				sub->service_account->namespace = str_cut(&name, '/');
				sub->service_account->name = name;
			}
		}
		while (rules.p && rules.n) {
			struct str r = str_cut(&rules, ';');

			if (r.p[0] == 'n' && r.p[1] == ' ') {
				struct flowcontrol_v1_non_resource_policy_rule *n = arena_push(&a, &pr->non_resource_rules);

				str_cut(&r, ' ');
				words(&a, str_cut(&r, ' '), &n->verbs);
				words(&a, r, &n->non_resource_urls);
			} else {
				struct flowcontrol_v1_resource_policy_rule *n = arena_push(&a, &pr->resource_rules);

				words(&a, str_cut(&r, ' '), &n->verbs);
				words(&a, str_cut(&r, ' '), &n->api_groups);
				words(&a, str_cut(&r, ' '), &n->resources);
				words(&a, r, &n->namespaces);
				/* what is cluster-scoped among those named here, or all */
				for (uint32_t k = 0; k < n->resources.n; k++)
					n->cluster_scope |= str_eqz(n->resources.v[k], "*") || str_eqz(n->resources.v[k], "nodes");
			}
		}
		TRY(bootstrap_ensure(s, &a, "flowcontrol.apiserver.k8s.io", "flowschemas", STR_NULL, f, &existed));
	}
	return NULL;
}

/* The default one had a family less. */
static struct error *more_cidrs(void *ctx, struct request *rq, const void *old, void **out)
{
	struct networking_v1_service_cidr *c = arena_new(rq->a, struct networking_v1_service_cidr);
	const struct networking_v1_service_cidr *want = ctx;

	object_copy(rq->a, &networking_v1_service_cidr_type, old, c);
	memcpy(&c->spec, &want->spec, sizeof c->spec);
	c->metadata.resource_version = STR_NULL;
	*out = c;
	return NULL;
}

/* The default ServiceCIDR is that of the flags; it comes again when it was deleted. */
static struct error *service_cidr(struct apiserver *s)
{
	struct arena a arena_cleanup = {0};
	struct networking_v1_service_cidr *c = arena_new(&a, struct networking_v1_service_cidr), *now;
	struct str cidrs[2];
	size_t n = alloc_cidrs(s, cidrs);
	struct request rq;
	struct write_result r;
	bool existed;
	struct update more = {.make = more_cidrs, .ctx = c, .flags = UPDATE_UNCONDITIONAL, .retry = true};

	c->metadata.name = STR("kubernetes");
	for (size_t i = 0; i < n; i++)
		*arena_push(&a, &c->spec.cidrs) = cidrs[i];
	TRY(bootstrap_ensure(s, &a, "networking.k8s.io", "servicecidrs", STR_NULL, c, &existed));
	now = registry_peek(s, &a, storage_find(s, STR("networking.k8s.io"), STR("servicecidrs")), STR_NULL, STR("kubernetes"));
	if (!now || now->metadata.deletion_timestamp)
		return NULL;
	request_internal(&rq, s, &a, resource_any(s, STR("networking.k8s.io"), STR("servicecidrs")), STR_NULL);
	rq.nosync = true;
	if (n == 2 && now->spec.cidrs.n == 1 && str_eq(now->spec.cidrs.v[0], cidrs[0])) {
		TRY(registry_update(&rq, STR_NULL, STR("kubernetes"), &more, &r));
		cache_entry_unref(r.entry);
		return NULL;
	}
	if (now->status.conditions.n || !object_equal(&networking_v1_service_cidr_spec_type, &now->spec, &c->spec))
		return NULL;
	return bootstrap_apply_condition(s, &a, "networking.k8s.io", "servicecidrs", STR("kubernetes"), STR("kubernetes-service-cidr-controller"),
					 &(struct applied_condition){.type = STR("Ready"), .status = STR("True"),
								     .message = STR("Kubernetes default Service CIDR is ready")});
}

/* Since when Secrets of service accounts carry the date of their last use: the legacy token cleaner counts from it. */
static struct error *legacy_token_tracking(struct apiserver *s)
{
	struct arena a arena_cleanup = {0};
	struct core_v1_config_map *c = arena_new(&a, struct core_v1_config_map);
	bool existed;

	c->metadata.name = STR("kube-apiserver-legacy-service-account-token-tracking");
	c->metadata.namespace = STR("kube-system");
	str_map_set(&a, API_MAP(&c->data), STR("since"), str_sub(time_format(&a, time_now_micro(), false), 0, 10));
	return bootstrap_ensure(s, &a, "", "configmaps", STR("kube-system"), c, &existed);
}

struct error *bootstrap_run(struct apiserver *s)
{
	TRY(namespaces(s));
	s->bootstrapped[HOOK_NAMESPACES] = true;
	TRY(policy(s));
	s->bootstrapped[HOOK_RBAC] = true;
	TRY(priorities(s));
	s->bootstrapped[HOOK_PRIORITY] = true;
	TRY(flow_control(s));
	s->bootstrapped[HOOK_FLOW] = true;
	TRY(service_cidr(s));
	TRY(kubernetes_service(s));
	s->bootstrapped[HOOK_SERVICE] = true;
	TRY(trust_info_write(s));
	TRY(legacy_token_tracking(s));
	s->bootstrapped[HOOK_TOKENS] = true;
	TRY(identity_begin(s));
	s->bootstrapped[HOOK_IDENTITY] = true;
	TRY(aggregator_register_local(s));
	/* Written without waiting for the disk one by one; who is served now may rely on it. */
	log_and_free(store_sync(s->store), "what a cluster begins with");
	s->bootstrapped[HOOK_APISERVICES] = true;
	s->bootstrapped[HOOK_CRDS] = true;
	aggregate_roles_start(s);
	kubernetes_service_start(s);
	identity_start(s);
	trust_info_start(s);
	service_repair_start(s);
	background_follow(s, "service-cidr", storage_find(s, STR("networking.k8s.io"), STR("servicecidrs"))->cache, service_cidr);
	return NULL;
}

