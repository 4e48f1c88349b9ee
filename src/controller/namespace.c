/*
 * controller/namespace.c: empties namespaces that are being deleted: pods
 * first, then everything else discovery knows, then the finalizer.
 */
#include "controller/common.h"

#include <stdlib.h>

#define FINALIZER "kubernetes"

struct ns_controller {
	struct manager *m;
	struct informer *namespaces, *pods;
	struct workqueue *q;
};

struct remaining { /* of one resource */
	const struct api_resource *r;
	size_t n;
	struct error *e;
	struct {
		struct str name;
		int n;
	} finalizers[8];
	int n_finalizers;
};

struct emptying {
	struct ns_controller *c;
	struct arena *a;
	struct str ns;
	struct remaining *of;
};

static void on_namespace(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct ns_controller *c = ctx;

	if (new_ && new_->deleting)
		workqueue_add(c->q, new_->name);
}

static void on_pod(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct ns_controller *c = ctx;

	if (ev != INFORMER_DELETED)
		return;
	const struct cached_object *ns = informer_peek(c->namespaces, STR_NULL, old->ns);

	if (ns && ns->deleting)
		workqueue_add_after(c->q, ns->name, 20); /* pods go in bursts */
}

static struct error *list_some(struct emptying *w, struct arena *a, const struct api_resource *r, void **list)
{
	struct error *e = client_list(w->c->m->client, a, r, w->ns, &(struct list_opts){.limit = 500}, list);

	if (error_is(e, 404, NULL) || error_is(e, 405, NULL)) { /* no longer served */
		error_clear(&e);
		*list = NULL;
	}
	return e;
}

static struct error *empty_resource(struct emptying *w, struct arena *a, struct remaining *rem)
{
	struct client *client = w->c->m->client;
	struct meta_v1_partial_object_metadata_list *list;
	void *obj;

	TRY(list_some(w, a, rem->r, &obj));
	list = obj;
	if (!list || !list->items.n)
		return NULL;
	struct error *e = NULL;

	if (rem->r->verbs & VERB_DELETECOLLECTION) {
		e = client_delete_collection(client, a, rem->r, w->ns, NULL,
					     &(struct delete_opts){.grace_seconds = -1, .propagation = "Background"});
		if (error_is(e, 404, NULL) || error_is(e, 405, NULL))
			error_clear(&e);
	} else {
		for (uint32_t i = 0; i < list->items.n && !e; i++) {
			e = client_delete(client, a, rem->r, w->ns, list->items.v[i].metadata.name,
					  &(struct delete_opts){.grace_seconds = -1, .propagation = "Background"});
			if (error_is(e, 404, NULL) || error_is(e, 405, NULL))
				error_clear(&e);
		}
	}
	if (e)
		return e;
	TRY(list_some(w, a, rem->r, &obj));
	list = obj;
	rem->n = list ? list->items.n : 0;
	for (uint32_t i = 0; list && i < list->items.n; i++) {
		const struct meta_v1_object_meta *m = &list->items.v[i].metadata;

		for (uint32_t k = 0; k < m->finalizers.n; k++) {
			int at = 0;

			while (at < rem->n_finalizers && !str_eq(rem->finalizers[at].name, m->finalizers.v[k]))
				at++;
			if (at == 8)
				continue;
			if (at == rem->n_finalizers)
				rem->finalizers[rem->n_finalizers++].name = arena_str(w->a, m->finalizers.v[k]);
			rem->finalizers[at].n++;
		}
	}
	return NULL;
}

static struct error *empty_one(void *ctx, struct arena *a, size_t i)
{
	struct emptying *w = ctx;

	w->of[i].e = empty_resource(w, a, &w->of[i]);
	return NULL;
}

static void set_condition(struct arena *a, struct core_v1_namespace *ns, const char *type, bool on, const char *reason, struct str message)
{
	struct core_v1_namespace_condition *c = NULL;
	struct str status = on ? STR("True") : STR("False");

	for (uint32_t i = 0; i < ns->status.conditions.n; i++)
		if (str_eqz(ns->status.conditions.v[i].type, type))
			c = &ns->status.conditions.v[i];
	if (!c) {
		c = arena_push(a, &ns->status.conditions);
		c->type = str_from(type);
	}
	if (str_eq(c->status, status) && str_eqz(c->reason, reason) && str_eq(c->message, message))
		return;
	if (!str_eq(c->status, status))
		c->last_transition_time = api_now();
	c->status = status;
	c->reason = str_from(reason);
	c->message = message;
}

static struct error *tell(struct emptying *w, struct core_v1_namespace *ns, size_t n, bool partial)
{
	struct arena *a = w->a;
	struct buf buf_cleanup left = {0}, fin = {0}, bad = {0};
	void *before = object_clone(a, &core_v1_namespace_type, ns);

	for (size_t i = 0; i < n; i++) {
		struct remaining *rem = &w->of[i];

		if (rem->e)
			buf_printf(&bad, "%s%s", bad.n ? ", " : "", error_message(rem->e));
		if (rem->n)
			buf_printf(&left, "%s%.*s%s%.*s has %zu resource instances", left.n ? ", " : "", STR_ARG(rem->r->plural),
				   ".", STR_ARG(rem->r->group), rem->n);
		for (int k = 0; k < rem->n_finalizers; k++)
			buf_printf(&fin, "%s%.*s in %d resource instances", fin.n ? ", " : "", STR_ARG(rem->finalizers[k].name),
				   rem->finalizers[k].n);
	}
	if (partial)
		set_condition(a, ns, "NamespaceDeletionDiscoveryFailure", true, "DiscoveryFailed",
			      STR("Discovery failed for some groups"));
	else
		set_condition(a, ns, "NamespaceDeletionDiscoveryFailure", false, "ResourcesDiscovered",
			      STR("All resources successfully discovered"));
	set_condition(a, ns, "NamespaceDeletionGroupVersionParsingFailure", false, "ParsedGroupVersions",
		      STR("All legacy kube types successfully parsed"));
	if (bad.n)
		set_condition(a, ns, "NamespaceDeletionContentFailure", true, "ContentDeletionFailed",
			      arena_printf(a, "Failed to delete all resource types, %.*s", STR_ARG(buf_view(&bad))));
	else
		set_condition(a, ns, "NamespaceDeletionContentFailure", false, "ContentDeleted",
			      STR("All content successfully deleted, may be waiting on finalization"));
	if (left.n)
		set_condition(a, ns, "NamespaceContentRemaining", true, "SomeResourcesRemain",
			      arena_printf(a, "Some resources are remaining: %.*s", STR_ARG(buf_view(&left))));
	else
		set_condition(a, ns, "NamespaceContentRemaining", false, "ContentRemoved", STR("All content successfully removed"));
	if (fin.n)
		set_condition(a, ns, "NamespaceFinalizersRemaining", true, "SomeFinalizersRemain",
			      arena_printf(a, "Some content in the namespace has finalizers remaining: %.*s", STR_ARG(buf_view(&fin))));
	else
		set_condition(a, ns, "NamespaceFinalizersRemaining", false, "ContentHasNoFinalizers",
			      STR("All content-preserving finalizers finished"));
	ns->status.phase = STR("Terminating");
	if (SAME(core_v1_namespace, before, ns))
		return NULL;
	void *out;
	struct error *e = client_update(w->c->m->client, a, &core_v1_namespaces_resource, STR_NULL, "status", ns, &out);

	if (!e)
		*ns = *(struct core_v1_namespace *)out;
	return e;
}

static struct error *empty(struct emptying *w, struct core_v1_namespace *ns, const struct api_resource **all, size_t n_all, bool partial,
			   bool *done)
{
	size_t n = 0;
	struct error *e;

	w->of = arena_array(w->a, struct remaining, n_all + 1);
	/* Pods first, and alone: what they use must outlive them. */
	for (size_t i = 0; i < n_all; i++)
		if (str_empty(all[i]->group) && str_eqz(all[i]->plural, "pods"))
			w->of[n++].r = all[i];
	e = fan_out(n, empty_one, w);
	if (!e && !w->of[0].n && !w->of[0].e) {
		size_t from = n;

		for (size_t i = 0; i < n_all; i++) {
			const struct api_resource *r = all[i];

			if (r->namespaced && (r->verbs & VERB_DELETE) && (r->verbs & VERB_LIST) &&
			    !(str_empty(r->group) && str_eqz(r->plural, "pods")) &&
			    /* the same objects as core's events */
			    !(str_eqz(r->group, "events.k8s.io") && str_eqz(r->plural, "events")))
				w->of[n++].r = r;
		}
		struct remaining *first = w->of;

		w->of += from;
		e = fan_out(n - from, empty_one, w);
		w->of = first;
	}
	*done = !partial && !e;
	for (size_t i = 0; i < n; i++)
		*done = *done && !w->of[i].n && !w->of[i].e;
	if (!e)
		e = tell(w, ns, n, partial);
	for (size_t i = 0; i < n; i++)
		if (w->of[i].e && !e) {
			e = w->of[i].e;
			w->of[i].e = NULL;
		}
	for (size_t i = 0; i < n; i++)
		error_free(w->of[i].e);
	return e;
}

static struct error *reconcile(void *ctx, struct arena *a, struct str none, struct str name)
{
	struct ns_controller *c = ctx;
	void *obj;
	const struct api_resource **all;
	size_t n;
	bool partial, ours = false, done;
	struct error *e = client_get(c->m->client, a, &core_v1_namespaces_resource, STR_NULL, name, &obj);

	if (error_is(e, 404, NULL)) {
		error_free(e);
		return NULL;
	}
	TRY(e);
	struct core_v1_namespace *ns = obj;

	if (!ns->metadata.deletion_timestamp)
		return NULL;
	for (uint32_t i = 0; i < ns->spec.finalizers.n; i++)
		ours |= str_eqz(ns->spec.finalizers.v[i], FINALIZER);
	if (!ours)
		return NULL;
	TRY(manager_discover(c->m, &all, &n, &partial));
	struct emptying w = {.c = c, .a = a, .ns = name};

	/* Discovery may be renewed while this waits: a copy of the pointers and of the resources. */
	const struct api_resource **copy = arena_array(a, const struct api_resource *, n + 1);

	for (size_t i = 0; i < n; i++)
		copy[i] = client_dynamic_resource(a, all[i]->group, all[i]->version, all[i]->plural, all[i]->kind, all[i]->namespaced,
						  all[i]->verbs);
	TRY(empty(&w, ns, copy, n, partial, &done));
	if (!done) {
		int64_t age = wall_ms() - time_ms(*ns->metadata.deletion_timestamp);

		workqueue_add_after(c->q, name, age < 60000 ? 500 : 5000);
		return NULL;
	}
	uint32_t k = 0;

	for (uint32_t i = 0; i < ns->spec.finalizers.n; i++)
		if (!str_eqz(ns->spec.finalizers.v[i], FINALIZER))
			ns->spec.finalizers.v[k++] = ns->spec.finalizers.v[i];
	ns->spec.finalizers.n = k;
	e = client_update(c->m->client, a, &core_v1_namespaces_resource, STR_NULL, "finalize", ns, NULL);
	if (error_is(e, 404, NULL))
		error_clear(&e);
	return e;
}

void namespace_start(struct manager *m)
{
	struct ns_controller *c = xcalloc(1, sizeof(*c));

	c->m = m;
	c->q = workqueue_new("namespace");
	c->namespaces = manager_informer(m, &core_v1_namespaces_resource);
	c->pods = manager_informer(m, &core_v1_pods_resource);
	informer_on_event(c->namespaces, on_namespace, c);
	informer_on_event(c->pods, on_pod, c);
	controller_run(m, c->q, "namespace", 5, reconcile, c, c->namespaces, NULL);
}
