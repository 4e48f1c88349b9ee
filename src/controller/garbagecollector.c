/*
 * controller/garbagecollector.c: deletes what its owners left behind. A graph
 * of all objects by uid, kept by metadata informers of everything that can be listed, watched and
 * deleted; nothing is deleted on the graph's word alone: each decision looks at the API first.
 */
#include <stdlib.h>

#include "controller/common.h"

#define FOREGROUND "foregroundDeletion"
#define ORPHAN "orphan"
#define ABSENT_MAX 1000
#define DISCOVERY_MS 600000 /* what is served is looked at again, */
#define PARTIAL_MS 30000    /* sooner while some group does not answer */

struct gc_owner {
	char *uid, *api_version, *kind, *name;
	bool blocks;
};

struct node {
	char *uid, *ns, *name;
	struct kind *kind;        /* NULL: virtual, known only as somebody's owner */
	struct gc_owner *owners;
	size_t n_owners;
	struct node **dependents;
	size_t n_dependents, cap_dependents;
	bool virtual_, deleting, deleting_dependents, orphaning;
};

struct kind { /* a resource that is watched */
	struct gc *gc;
	struct arena a;
	struct api_resource *r;
	struct informer *informer;
	bool mark; /* seen in the last discovery */
};

struct gc {
	struct manager *m;
	struct map nodes;   /* uid -> struct node */
	struct map kinds;   /* "group/plural" -> struct kind */
	struct map absent;  /* owners known to be gone, by absent_key */
	struct workqueue *deletes, *orphans;
	struct event_recorder *rec;
	struct waitq changed;
	bool stale, partial; /* partial: some group did not answer the last discovery */
};

/* ---- the graph ---- */

static struct node *node_get(struct gc *g, struct str uid)
{
	return map_get(&g->nodes, uid);
}

static struct node *node_new(struct gc *g, struct str uid, struct str ns, struct str name)
{
	struct node *n = xcalloc(1, sizeof(*n));

	n->uid = str_dupz(uid);
	n->ns = str_dupz(ns);
	n->name = str_dupz(name);
	map_set(&g->nodes, uid, n);
	return n;
}

static void add_dependent(struct node *owner, struct node *n)
{
	for (size_t i = 0; i < owner->n_dependents; i++)
		if (owner->dependents[i] == n)
			return;
	if (owner->n_dependents == owner->cap_dependents) {
		owner->cap_dependents = owner->cap_dependents ? owner->cap_dependents * 2 : 4;
		owner->dependents = xrealloc(owner->dependents, owner->cap_dependents * sizeof(*owner->dependents));
	}
	owner->dependents[owner->n_dependents++] = n;
}

static void del_dependent(struct node *owner, struct node *n)
{
	for (size_t i = 0; i < owner->n_dependents; i++)
		if (owner->dependents[i] == n) {
			owner->dependents[i] = owner->dependents[--owner->n_dependents];
			return;
		}
}

static void node_free(struct node *n)
{
	for (size_t i = 0; i < n->n_owners; i++) {
		free(n->owners[i].uid);
		free(n->owners[i].api_version);
		free(n->owners[i].kind);
		free(n->owners[i].name);
	}
	free(n->owners);
	free(n->dependents);
	free(n->uid);
	free(n->ns);
	free(n->name);
	free(n);
}

static void want_delete(struct gc *g, struct node *n)
{
	workqueue_add(g->deletes, str_from(n->uid));
}

static void drop_owners(struct gc *g, struct node *n)
{
	for (size_t i = 0; i < n->n_owners; i++) {
		struct node *o = node_get(g, str_from(n->owners[i].uid));

		if (o) {
			del_dependent(o, n);
			/* An owner that waits for its dependents has one less. */
			if (o->deleting_dependents)
				want_delete(g, o);
			else if (o->virtual_ && !o->n_dependents) {
				map_del(&g->nodes, str_from(o->uid));
				node_free(o);
			}
		}
		free(n->owners[i].uid);
		free(n->owners[i].api_version);
		free(n->owners[i].kind);
		free(n->owners[i].name);
	}
	free(n->owners);
	n->owners = NULL;
	n->n_owners = 0;
}

/*
 * A uid alone does not name an owner: an object may claim one of another namespace, which is not there for it (upstream looks
 * at these coordinates too).
 */
static bool owner_matches(const struct gc_owner *o, const struct node *child, const struct node *owner)
{
	struct str group, version;

	if (owner->virtual_ || !owner->kind)
		return true; /* nobody knows yet */
	api_version_split(str_from(o->api_version), &group, &version);
	return str_eq(owner->kind->r->group, group) && str_eqz(owner->kind->r->kind, o->kind) && !strcmp(owner->name, o->name) &&
	       (!owner->kind->r->namespaced || !strcmp(owner->ns, child->ns));
}

static struct str absent_key(struct arena *a, struct str ns, struct str group, struct str kind, struct str name, struct str uid)
{
	return arena_printf(a, "%.*s/%.*s/%.*s/%.*s/%.*s", STR_ARG(ns), STR_ARG(group), STR_ARG(kind), STR_ARG(name), STR_ARG(uid));
}

static void note_absent(struct gc *g, struct str ns, struct str group, struct str kind, struct str name, struct str uid)
{
	arena_cleanup struct arena a = {0};

	if (g->absent.n >= ABSENT_MAX) {
		map_free(&g->absent);
		g->absent = (struct map){0};
	}
	map_set(&g->absent, absent_key(&a, ns, group, kind, name, uid), g);
}

static void set_owners(struct gc *g, struct node *n, const struct meta_v1_object_meta *m)
{
	n->owners = m->owner_references.n ? xcalloc(m->owner_references.n, sizeof(*n->owners)) : NULL;
	for (uint32_t i = 0; i < m->owner_references.n; i++) {
		const struct meta_v1_owner_reference *r = &m->owner_references.v[i];
		struct node *o = node_get(g, r->uid);

		n->owners[n->n_owners++] = (struct gc_owner){
			str_dupz(r->uid), str_dupz(r->api_version), str_dupz(r->kind), str_dupz(r->name),
			is_true(r->block_owner_deletion)};
		if (!o) {
			/* Not seen yet, or gone before we looked: find out. */
			o = node_new(g, r->uid, STR_NULL, r->name);
			o->virtual_ = true;
		}
		add_dependent(o, n);
		/* Each dependent asks for itself: one that asked before and was deleted does not speak for the others. */
		if (o->virtual_ || !owner_matches(&n->owners[n->n_owners - 1], n, o))
			want_delete(g, n);
	}
}

static bool same_owners(const struct node *n, const struct meta_v1_object_meta *m)
{
	if (n->n_owners != m->owner_references.n)
		return false;
	for (size_t i = 0; i < n->n_owners; i++)
		if (!str_eqz(m->owner_references.v[i].uid, n->owners[i].uid) ||
		    is_true(m->owner_references.v[i].block_owner_deletion) != n->owners[i].blocks)
			return false;
	return true;
}

static void transitions(struct gc *g, struct node *n, const struct meta_v1_object_meta *m)
{
	n->deleting = m->deletion_timestamp != NULL;
	if (!n->deleting)
		return;
	if (has_finalizer(m, ORPHAN)) {
		if (!n->orphaning) {
			n->orphaning = true;
			workqueue_add(g->orphans, str_from(n->uid));
		}
		return;
	}
	if (has_finalizer(m, FOREGROUND) && !n->deleting_dependents) {
		n->deleting_dependents = true;
		for (size_t i = 0; i < n->n_dependents; i++)
			want_delete(g, n->dependents[i]);
		want_delete(g, n);
	}
}

/* Out of the graph. `known` tells that it was deleted, not only that nobody watches it any more. */
static void gone(struct gc *g, struct str uid, bool known)
{
	struct node *n = node_get(g, uid);

	if (!n)
		return;
	if (known && n->n_dependents && n->kind)
		note_absent(g, str_from(n->ns), n->kind->r->group, n->kind->r->kind, str_from(n->name), uid);
	for (size_t i = 0; i < n->n_dependents; i++)
		want_delete(g, n->dependents[i]);
	drop_owners(g, n);
	if (n->n_dependents) { /* they still name it: it stays as a shadow until they are gone */
		n->virtual_ = true;
		n->kind = NULL;
		n->deleting = n->deleting_dependents = n->orphaning = false;
		return;
	}
	map_del(&g->nodes, uid);
	node_free(n);
}

/* Now that n is known: those who name it wrongly have no owner in it. */
static void check_dependents(struct gc *g, const struct node *n)
{
	for (size_t i = 0; i < n->n_dependents; i++) {
		const struct node *d = n->dependents[i];

		for (size_t k = 0; k < d->n_owners; k++)
			if (!strcmp(d->owners[k].uid, n->uid) && !owner_matches(&d->owners[k], d, n))
				want_delete(g, n->dependents[i]);
	}
}

static void on_object(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct kind *k = ctx;
	struct gc *g = k->gc;

	if (ev == INFORMER_DELETED) {
		gone(g, old->uid, true);
		return;
	}
	arena_cleanup struct arena a = {0};
	struct meta_v1_partial_object_metadata obj = {0};
	struct error *e = json_decode(&a, &meta_v1_partial_object_metadata_type, block_str(new_->json), NULL, &obj);

	if (e) {
		log_and_free(e, "garbage collector: metadata of %.*s/%.*s", STR_ARG(new_->ns), STR_ARG(new_->name));
		return;
	}
	struct node *n = node_get(g, new_->uid);

	if (!n)
		n = node_new(g, new_->uid, new_->ns, new_->name);
	if (n->virtual_) {
		free(n->ns);
		free(n->name);
		n->ns = str_dupz(new_->ns);
		n->name = str_dupz(new_->name);
		n->virtual_ = false;
		n->kind = k;
		check_dependents(g, n);
	}
	n->kind = k; /* another version may be the preferred one now */
	if (!same_owners(n, &obj.metadata)) {
		bool had = n->n_owners > 0;

		drop_owners(g, n);
		set_owners(g, n, &obj.metadata);
		if (had && n->n_owners)
			want_delete(g, n); /* a new owner may be gone already */
	}
	transitions(g, n, &obj.metadata);
}

/* ---- what is watched ---- */

static bool wanted(const struct api_resource *r)
{
	uint16_t need = VERB_DELETE | VERB_LIST | VERB_WATCH;

	return (r->verbs & need) == need && !str_eqz(r->plural, "events");
}

/* Owners of a kind nobody served may be found, or found missing, now. */
static void retry_unknown(struct gc *g)
{
	size_t it = 0;
	struct str uid;
	void *v;

	while (map_next(&g->nodes, &it, &uid, &v)) {
		struct node *n = v;

		for (size_t i = 0; n->virtual_ && i < n->n_dependents; i++)
			want_delete(g, n->dependents[i]);
	}
}

static struct error *sync_kinds(struct gc *g)
{
	const struct api_resource **v;
	size_t n, it;
	bool partial, more = false;
	struct str key;
	void *value;

	TRY(manager_discover(g->m, &v, &n, &partial));
	it = 0;
	while (map_next(&g->kinds, &it, &key, &value))
		((struct kind *)value)->mark = false;
	for (size_t i = 0; i < n; i++) {
		arena_cleanup struct arena a = {0};

		if (!wanted(v[i]))
			continue;
		key = arena_printf(&a, "%.*s/%.*s", STR_ARG(v[i]->group), STR_ARG(v[i]->plural));
		struct kind *k = map_get(&g->kinds, key);

		if (!k) {
			k = xcalloc(1, sizeof(*k));
			k->gc = g;
			k->r = client_dynamic_resource(&k->a, v[i]->group, v[i]->version, v[i]->plural, v[i]->kind, v[i]->namespaced,
						       v[i]->verbs);
			map_set(&g->kinds, key, k);
			k->informer = manager_metadata_informer(g->m, k->r);
			informer_on_event(k->informer, on_object, k);
			more = true;
		}
		k->mark = true;
	}
	g->partial = partial;
	if (more)
		retry_unknown(g);
	if (partial)
		return NULL; /* what does not answer now may be back soon */
	it = 0;
	while (map_next(&g->kinds, &it, &key, &value)) {
		struct kind *k = value;

		/* Built-in ones are others' informers too; they do not go. */
		if (k->mark || api_resource_find(k->r->group, k->r->version, k->r->plural))
			continue;
		size_t j = 0;
		struct str uid;
		void *nv;
		LIST(struct str) lost = {0};
		arena_cleanup struct arena a = {0};

		map_del(&g->kinds, key);
		while (map_next(&g->nodes, &j, &uid, &nv))
			if (((struct node *)nv)->kind == k)
				*arena_push(&a, &lost) = arena_str(&a, uid);
		for (uint32_t i = 0; i < lost.n; i++)
			gone(g, lost.v[i], false);
		manager_drop_informer(g->m, k->r);
		arena_free(&k->a);
		free(k);
	}
	return NULL;
}

static void copy_resource(struct arena *a, struct api_resource *to, const struct api_resource *from)
{
	*to = *from; /* the kind may go while we wait, its strings with it */
	to->group = arena_str(a, from->group);
	to->version = arena_str(a, from->version);
	to->plural = arena_str(a, from->plural);
	to->kind = arena_str(a, from->kind);
}

static bool resource_of_kind(struct gc *g, struct arena *a, struct str group, struct str kind, struct api_resource *out)
{
	struct str key;
	size_t it = 0;
	void *v;

	while (map_next(&g->kinds, &it, &key, &v)) {
		struct kind *k = v;

		if (str_eq(k->r->group, group) && str_eq(k->r->kind, kind)) {
			copy_resource(a, out, k->r);
			return true;
		}
	}
	return false;
}

/* ---- deleting ---- */

static struct error *get_metadata(struct gc *g, struct arena *a, const struct api_resource *r, struct str ns, struct str name,
				  struct meta_v1_object_meta **out)
{
	struct api_resource partial = *r;
	void *obj;

	partial.type = &meta_v1_partial_object_metadata_type;
	TRY(client_get(g->m->client, a, &partial, ns, name, &obj));
	*out = &((struct meta_v1_partial_object_metadata *)obj)->metadata;
	return NULL;
}

static struct error *patch_metadata(struct gc *g, struct arena *a, const struct api_resource *r, const struct meta_v1_object_meta *m,
				    enum patch_type type, struct str body)
{
	struct api_resource partial = *r;

	partial.type = &meta_v1_partial_object_metadata_type;
	struct error *e = client_patch(g->m->client, a, &partial, m->namespace, m->name, NULL, type, body, NULL, false, NULL);

	if (error_is(e, 404, NULL))
		error_clear(&e);
	return e;
}

/* Rewrites the owner list without some uids (or with blockOwnerDeletion off, for `unblock`). Guarded by the resourceVersion. */
static struct error *patch_owners(struct gc *g, struct arena *a, const struct api_resource *r, const struct meta_v1_object_meta *m,
				  bool (*keep)(void *ctx, const struct meta_v1_owner_reference *o), void *ctx, bool unblock)
{
	struct buf buf_cleanup b = {0};
	bool first = true;

	buf_printf(&b, "{\"metadata\":{\"uid\":\"%.*s\",\"resourceVersion\":\"%.*s\",\"ownerReferences\":[", STR_ARG(m->uid),
		   STR_ARG(m->resource_version));
	for (uint32_t i = 0; i < m->owner_references.n; i++) {
		struct meta_v1_owner_reference o = m->owner_references.v[i];

		if (!keep(ctx, &o)) {
			if (!unblock)
				continue;
			o.block_owner_deletion = new_bool(a, false);
		}
		if (!first)
			buf_putc(&b, ',');
		first = false;
		json_encode(&b, &meta_v1_owner_reference_type, &o);
	}
	buf_puts(&b, "]}}");
	return patch_metadata(g, a, r, m, PATCH_MERGE, buf_view(&b));
}

static struct error *drop_finalizer(struct gc *g, struct arena *a, const struct api_resource *r, struct meta_v1_object_meta *m, const char *f)
{
	struct buf buf_cleanup b = {0};

	if (!remove_finalizer(m, f))
		return NULL;
	buf_printf(&b, "{\"metadata\":{\"resourceVersion\":\"%.*s\",\"finalizers\":[", STR_ARG(m->resource_version));
	for (uint32_t i = 0; i < m->finalizers.n; i++)
		buf_printf(&b, "%s%.*s", i ? "," : "", STR_ARG(quote(a, m->finalizers.v[i])));
	buf_puts(&b, "]}}");
	return patch_metadata(g, a, r, m, PATCH_MERGE, buf_view(&b));
}

enum owner_state { OWNER_SOLID, OWNER_GONE, OWNER_WAITING, OWNER_UNKNOWN };

static void bad_owner(struct gc *g, const struct meta_v1_object_meta *m, const struct api_resource *self,
		      const struct meta_v1_owner_reference *o, const char *why)
{
	arena_cleanup struct arena a = {0};
	struct core_v1_object_reference ref = {
		.kind = self->kind, .api_version = resource_api_version(&a, self), .namespace = m->namespace, .name = m->name, .uid = m->uid};

	event_record(g->rec, &ref, "Warning", "OwnerRefInvalidNamespace", "ownerRef [%.*s/%.*s, name: %.*s, uid: %.*s] is not valid here: %s",
		     STR_ARG(o->api_version), STR_ARG(o->kind), STR_ARG(o->name), STR_ARG(o->uid), why);
}

static struct error *look_at_owner(struct gc *g, struct arena *a, const struct meta_v1_object_meta *m, const struct api_resource *self,
				   const struct meta_v1_owner_reference *o, enum owner_state *state)
{
	struct str group, version;
	struct api_resource r;

	api_version_split(o->api_version, &group, &version);
	*state = OWNER_GONE;
	if (map_has(&g->absent, absent_key(a, m->namespace, group, o->kind, o->name, o->uid)) ||
	    map_has(&g->absent, absent_key(a, STR_NULL, group, o->kind, o->name, o->uid)))
		return NULL;
	*state = OWNER_UNKNOWN;
	if (!resource_of_kind(g, a, group, o->kind, &r))
		return NULL; /* a kind nobody serves: maybe not yet */
	if (r.namespaced && str_empty(m->namespace)) {
		/* A cluster-scoped object cannot have such an owner; it is left alone. */
		bad_owner(g, m, self, o, "cluster-scoped objects have no owners in a namespace");
		return NULL;
	}
	struct meta_v1_object_meta *om;
	struct str ns = r.namespaced ? m->namespace : STR_NULL;
	struct error *e = get_metadata(g, a, &r, ns, o->name, &om);

	if (error_is(e, 404, NULL) || (!e && !str_eq(om->uid, o->uid))) {
		const struct node *n = node_get(g, o->uid);

		if (n && !n->virtual_ && r.namespaced && strcmp(n->ns, arena_strz(a, m->namespace)))
			bad_owner(g, m, self, o, "the owner is in another namespace");
		error_free(e);
		note_absent(g, ns, group, o->kind, o->name, o->uid);
		*state = OWNER_GONE;
		return NULL;
	}
	if (e)
		return e;
	*state = om->deletion_timestamp && has_finalizer(om, FOREGROUND) ? OWNER_WAITING : OWNER_SOLID;
	return NULL;
}

struct keep_ctx {
	const struct meta_v1_object_meta *m;
	const enum owner_state *states;
};

static bool keep_solid(void *ctx, const struct meta_v1_owner_reference *o)
{
	const struct keep_ctx *k = ctx;

	for (uint32_t i = 0; i < k->m->owner_references.n; i++)
		if (str_eq(k->m->owner_references.v[i].uid, o->uid))
			return k->states[i] == OWNER_SOLID || k->states[i] == OWNER_UNKNOWN;
	return true;
}

static bool keep_none(void *ctx, const struct meta_v1_owner_reference *o)
{
	return false;
}

static bool keep_not_uid(void *ctx, const struct meta_v1_owner_reference *o)
{
	return !str_eqz(o->uid, ctx);
}

/* An object in foreground deletion: goes when nothing blocks it any more. */
static struct error *wait_for_dependents(struct gc *g, struct arena *a, struct node *n, const struct api_resource *r,
					 struct meta_v1_object_meta *m)
{
	size_t blocking = 0;

	for (size_t i = 0; i < n->n_dependents; i++) {
		struct node *d = n->dependents[i];

		for (size_t k = 0; k < d->n_owners; k++)
			if (d->owners[k].blocks && !strcmp(d->owners[k].uid, n->uid)) {
				blocking++;
				if (!d->deleting_dependents)
					want_delete(g, d);
			}
	}
	return blocking ? NULL : drop_finalizer(g, a, r, m, FOREGROUND);
}

static struct error *delete_object(struct gc *g, struct arena *a, const struct api_resource *r, const struct meta_v1_object_meta *m,
				   const char *propagation)
{
	struct error *e = client_delete(g->m->client, a, r, m->namespace, m->name, &(struct delete_opts){
		.grace_seconds = -1, .propagation = propagation, .uid = m->uid, .resource_version = m->resource_version});

	if (error_is(e, 404, NULL))
		error_clear(&e);
	if (!e)
		log_v(2, "garbage collector: deleted %.*s %.*s/%.*s (%s)", STR_ARG(r->kind), STR_ARG(m->namespace), STR_ARG(m->name),
		      propagation);
	return e;
}

/* Every owner is in the graph and stays: no question to the API is needed (after a start there would be one an object). */
static bool owners_all_here(struct gc *g, const struct node *n)
{
	for (size_t i = 0; i < n->n_owners; i++) {
		const struct node *o = node_get(g, str_from(n->owners[i].uid));

		if (!o || o->virtual_ || o->deleting_dependents || !owner_matches(&n->owners[i], n, o))
			return false;
	}
	return true;
}

static struct error *attempt_delete(void *ctx, struct arena *a, struct str none, struct str uid)
{
	struct gc *g = ctx;
	struct node *n = node_get(g, uid);

	if (!n || n->virtual_ || !n->kind)
		return NULL;
	if (n->deleting && !n->deleting_dependents)
		return NULL;
	if (!n->deleting_dependents && owners_all_here(g, n))
		return NULL;
	struct api_resource r;
	struct meta_v1_object_meta *m;

	copy_resource(a, &r, n->kind->r);
	struct error *e = get_metadata(g, a, &r, str_from(arena_strz(a, str_from(n->ns))), str_from(arena_strz(a, str_from(n->name))), &m);

	if (error_is(e, 404, NULL) || (!e && !str_eq(m->uid, uid))) {
		error_free(e);
		gone(g, uid, true);
		return NULL;
	}
	TRY(e);
	n = node_get(g, uid);
	if (!n)
		return NULL;
	if (n->deleting_dependents)
		return wait_for_dependents(g, a, n, &r, m);
	if (!m->owner_references.n)
		return NULL;
	enum owner_state *states = arena_array(a, enum owner_state, m->owner_references.n);
	int count[4] = {0};

	for (uint32_t i = 0; i < m->owner_references.n; i++) {
		TRY(look_at_owner(g, a, m, &r, &m->owner_references.v[i], &states[i]));
		count[states[i]]++;
	}
	if (count[OWNER_UNKNOWN]) {
		if (!count[OWNER_GONE] && !count[OWNER_WAITING])
			return NULL;
		count[OWNER_SOLID] += count[OWNER_UNKNOWN];
	}
	if (count[OWNER_SOLID]) {
		if (!count[OWNER_GONE] && !count[OWNER_WAITING])
			return NULL;
		return patch_owners(g, a, &r, m, keep_solid, &(struct keep_ctx){m, states}, false);
	}
	n = node_get(g, uid);
	if (!n)
		return NULL;
	if (count[OWNER_WAITING] && n->n_dependents) {
		/* A circle of foreground deletions would wait for itself. */
		for (size_t i = 0; i < n->n_dependents; i++)
			if (n->dependents[i]->deleting_dependents) {
				TRY(patch_owners(g, a, &r, m, keep_none, NULL, true));
				break;
			}
		return client_delete(g->m->client, a, &r, m->namespace, m->name,
				     &(struct delete_opts){.grace_seconds = -1, .propagation = "Foreground", .uid = m->uid});
	}
	return delete_object(g, a, &r, m, has_finalizer(m, ORPHAN) ? "Orphan" : has_finalizer(m, FOREGROUND) ? "Foreground" : "Background");
}

/* The dependents of an object that is deleted with "Orphan" lose the reference; then it may go. */
static struct error *attempt_orphan(void *ctx, struct arena *a, struct str none, struct str uid)
{
	struct gc *g = ctx;
	struct node *n = node_get(g, uid);

	if (!n || n->virtual_ || !n->kind)
		return NULL;
	struct api_resource r;

	copy_resource(a, &r, n->kind->r);
	struct str ns = arena_str(a, str_from(n->ns)), name = arena_str(a, str_from(n->name));
	size_t n_deps = n->n_dependents;
	char **uids = arena_array(a, char *, n_deps + 1);

	for (size_t i = 0; i < n_deps; i++)
		uids[i] = arena_strz(a, str_from(n->dependents[i]->uid));
	for (size_t i = 0; i < n_deps; i++) {
		struct node *d = node_get(g, str_from(uids[i]));
		struct meta_v1_object_meta *m;

		if (!d || d->virtual_ || !d->kind)
			continue;
		struct api_resource dr;

		copy_resource(a, &dr, d->kind->r);
		struct error *e = get_metadata(g, a, &dr, arena_str(a, str_from(d->ns)), arena_str(a, str_from(d->name)), &m);

		if (error_is(e, 404, NULL)) {
			error_free(e);
			continue;
		}
		TRY(e);
		if (str_eqz(m->uid, uids[i]))
			TRY(patch_owners(g, a, &dr, m, keep_not_uid, arena_strz(a, uid), false));
	}
	struct meta_v1_object_meta *m;
	struct error *e = get_metadata(g, a, &r, ns, name, &m);

	if (error_is(e, 404, NULL)) {
		error_free(e);
		return NULL;
	}
	TRY(e);
	return str_eq(m->uid, uid) ? drop_finalizer(g, a, &r, m, ORPHAN) : NULL;
}

/* ---- running ---- */

static void on_discovery(void *ctx)
{
	struct gc *g = ctx;

	g->stale = true;
	waitq_wake_all(&g->changed);
}

static void all_synced(struct gc *g)
{
	int64_t began = now_ms();

	for (;;) {
		size_t it = 0, waiting = 0;
		struct str key;
		void *v;

		while (map_next(&g->kinds, &it, &key, &v))
			waiting += !informer_synced(((struct kind *)v)->informer);
		if (!waiting || now_ms() - began > 30000)
			return;
		struct error *e = fiber_sleep(20);

		if (e) {
			error_free(e);
			return;
		}
	}
}

static void run(void *arg)
{
	struct gc *g = arg;
	bool started = false;

	while (!fiber_cancelled()) {
		g->stale = false;
		struct error *e = sync_kinds(g);

		if (e) {
			log_v(1, "garbage collector: %s", error_message(e));
			error_free(e);
			error_free(fiber_sleep(1000));
			continue;
		}
		if (!started) {
			all_synced(g);
			workqueue_run(g->deletes, "garbage-collector", 8, attempt_delete, g);
			workqueue_run(g->orphans, "garbage-collector-orphan", 4, attempt_orphan, g);
			started = true;
			log_v(1, "garbage collector watches %zu resources", g->kinds.n);
		}
		while (!g->stale && !fiber_cancelled()) {
			e = waitq_wait_ms(&g->changed, g->partial ? PARTIAL_MS : DISCOVERY_MS);
			g->stale |= e != NULL;
			error_free(e);
		}
		error_free(fiber_sleep(2200)); /* a CRD is served a moment after it is there */
	}
}

void garbage_collector_start(struct manager *m)
{
	struct gc *g = xcalloc(1, sizeof(*g));

	g->m = m;
	g->deletes = workqueue_new("gc-delete");
	g->orphans = workqueue_new("gc-orphan");
	g->rec = event_recorder_new(m->client, "garbage-collector-controller", "");
	manager_on_discovery(m, on_discovery, g);
	fiber_spawn("garbage-collector", run, g);
}
