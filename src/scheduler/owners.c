/* What selects a pod from outside (its Services, its controller), and the budgets that guard pods from preemption. */
#include <stdlib.h>

#include "base/log.h"
#include "scheduler/internal.h"

struct service {
	struct arena arena;
	struct str name;
	struct str_map selector;
	struct service *next;
};
struct ns_services {
	struct service *first;
};

static void drop_service(struct scheduler *s, struct str ns, struct str name)
{
	struct ns_services *all = map_get(&s->service_selectors, ns);

	if (!all)
		return;
	for (struct service **at = &all->first; *at; at = &(*at)->next) {
		struct service *v = *at;

		if (!str_eq(v->name, name))
			continue;
		*at = v->next;
		arena_free(&v->arena);
		free(v);
		break;
	}
	if (!all->first)
		free(map_del(&s->service_selectors, ns));
}

void on_service(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct scheduler *s = ctx;
	arena_cleanup struct arena a = {0};
	const struct core_v1_service *svc = new_ ? cached_decode(s->services, &a, new_) : NULL;

	drop_service(s, (new_ ? new_ : old)->ns, (new_ ? new_ : old)->name);
	if (!svc || !svc->spec.selector.n) /* no selector selects nothing */
		return;
	struct ns_services *all = map_get(&s->service_selectors, new_->ns);
	struct service *v = xcalloc(1, sizeof *v);

	if (!all) {
		all = xcalloc(1, sizeof *all);
		map_set(&s->service_selectors, new_->ns, all);
	}
	v->name = arena_str(&v->arena, new_->name);
	for (uint32_t i = 0; i < svc->spec.selector.n; i++)
		*arena_push(&v->arena, &v->selector) = (struct str_pair){arena_str(&v->arena, svc->spec.selector.v[i].key),
									 arena_str(&v->arena, svc->spec.selector.v[i].value)};
	v->next = all->first;
	all->first = v;
}

static bool has_all(const struct str_map *labels, const struct str_map *want)
{
	for (uint32_t i = 0; i < want->n; i++) {
		struct str v = str_map_get(labels, want->v[i].key);

		if (!v.p || !str_eq(v, want->v[i].value))
			return false;
	}
	return true;
}

static void add_all(struct arena *a, struct str_map *to, const struct str_map *m)
{
	for (uint32_t i = 0; i < m->n; i++)
		str_map_set(a, to, m->v[i].key, m->v[i].value);
}

static void add_selector(struct arena *a, struct meta_v1_label_selector *to, const struct meta_v1_label_selector *s)
{
	if (!s)
		return;
	add_all(a, API_MAP(&to->match_labels), API_MAP(&s->match_labels));
	for (uint32_t i = 0; i < s->match_expressions.n; i++)
		*arena_push(a, &to->match_expressions) = s->match_expressions.v[i];
}

static void add_controller(struct scheduler *s, struct arena *a, const struct core_v1_pod *pod, struct meta_v1_label_selector *to)
{
	const struct meta_v1_owner_reference *o = NULL;
	struct str ns = pod->metadata.namespace;

	for (uint32_t i = 0; i < pod->metadata.owner_references.n && !o; i++)
		if (pod->metadata.owner_references.v[i].controller && *pod->metadata.owner_references.v[i].controller)
			o = &pod->metadata.owner_references.v[i];
	if (!o)
		return;
	if (str_eqz(o->kind, "ReplicaSet") && str_eqz(o->api_version, "apps/v1")) {
		const struct apps_v1_replica_set *rs = informer_get(s->sets, a, ns, o->name);

		if (rs)
			add_selector(a, to, rs->spec.selector);
	} else if (str_eqz(o->kind, "StatefulSet") && str_eqz(o->api_version, "apps/v1")) {
		const struct apps_v1_stateful_set *ss = informer_get(s->statefulsets, a, ns, o->name);

		if (ss)
			add_selector(a, to, ss->spec.selector);
	} else if (str_eqz(o->kind, "ReplicationController") && str_eqz(o->api_version, "v1")) {
		const struct core_v1_replication_controller *rc = informer_get(s->rcs, a, ns, o->name);

		if (rc)
			add_all(a, API_MAP(&to->match_labels), API_MAP(&rc->spec.selector));
	}
}

const struct meta_v1_label_selector *owners_selector(void *ctx, struct arena *a, const struct core_v1_pod *pod)
{
	struct scheduler *s = ctx;
	const struct ns_services *all = map_get(&s->service_selectors, pod->metadata.namespace);
	struct meta_v1_label_selector *sel = arena_new(a, struct meta_v1_label_selector);

	for (const struct service *v = all ? all->first : NULL; v; v = v->next)
		if (has_all(API_MAP(&pod->metadata.labels), &v->selector))
			add_all(a, API_MAP(&sel->match_labels), &v->selector);
	add_controller(s, a, pod, sel);
	return sel->match_labels.n || sel->match_expressions.n ? sel : NULL;
}

size_t owners_budgets(void *ctx, struct arena *a, struct budget **out)
{
	struct scheduler *s = ctx;
	struct policy_v1_pod_disruption_budget **v;
	size_t n = informer_list(s->budgets, a, STR_NULL, NULL, (void ***)&v), k = 0;
	struct budget *b = arena_array(a, struct budget, n + 1);

	for (size_t i = 0; i < n; i++) {
		struct error *e = label_selector_from(a, v[i]->spec.selector, &b[k].selector);

		if (e || !v[i]->spec.selector) { /* guards nothing */
			error_free(e);
			continue;
		}
		b[k].ns = v[i]->metadata.namespace;
		b[k].allowed = v[i]->status.disruptions_allowed;
		for (uint32_t j = 0; j < v[i]->status.disrupted_pods.n; j++)
			*arena_push(a, &b[k].disrupted) = (struct str_pair){v[i]->status.disrupted_pods.v[j].key, STR("")};
		k++;
	}
	*out = b;
	return k;
}
