#include "controller/common.h"

#include <stdlib.h>

/* ---- time, values ---- */

struct api_time api_now_micro(void)
{
	int64_t ns = wall_ns();

	return (struct api_time){.s = ns / 1000000000, .ns = (int32_t)(ns % 1000000000 / 1000 * 1000), .set = true};
}

struct api_time api_now(void)
{
	return (struct api_time){.s = wall_ns() / 1000000000, .set = true};
}

int64_t time_ms(struct api_time t)
{
	return t.s * 1000 + t.ns / 1000000;
}

int64_t wall_ms(void)
{
	return wall_ns() / 1000000;
}

int time_cmp(struct api_time a, struct api_time b)
{
	if (a.s != b.s)
		return a.s < b.s ? -1 : 1;
	return a.ns == b.ns ? 0 : a.ns < b.ns ? -1 : 1;
}

void *object_clone(struct arena *a, const struct schema_type *t, const void *obj)
{
	void *to = arena_alloc(a, t->size);

	object_copy(a, t, obj, to);
	return to;
}

int scaled_value(const struct int_or_string *v, int total, bool round_up)
{
	int64_t percent;

	if (!v)
		return 0;
	if (!v->is_str)
		return v->i;
	struct str s = v->s;

	if (!s.n || s.p[s.n - 1] != '%' || !str_to_i64(str_sub(s, 0, s.n - 1), &percent))
		return 0;
	int64_t x = percent * total;

	return (int)(round_up ? (x + 99) / 100 : x / 100);
}

bool map_equal(const struct str_map *a, const struct str_map *b)
{
	if (a->n != b->n)
		return false;
	for (uint32_t i = 0; i < a->n; i++)
		if (!str_map_has(b, a->v[i].key) || !str_eq(str_map_get(b, a->v[i].key), a->v[i].value))
			return false;
	return true;
}

struct str quote(struct arena *a, struct str s)
{
	struct buf buf_cleanup b = {0};

	jv_encode_string(&b, s);
	return arena_str(a, buf_view(&b));
}

bool namespace_terminating(const struct error *e)
{
	if (!error_is(e, 403, NULL))
		return false;
	for (size_t i = 0; i < e->n_causes; i++)
		if (!strcmp(e->causes[i].reason, "NamespaceTerminating"))
			return true;
	return strstr(e->message, "because it is being terminated") != NULL;
}

/* ---- hashes ---- */

uint32_t fnv32a(uint32_t h, struct str s)
{
	if (!h)
		h = 2166136261u;
	for (size_t i = 0; i < s.n; i++) {
		h ^= (unsigned char)s.p[i];
		h *= 16777619u;
	}
	return h;
}

struct str safe_encode(struct arena *a, struct str s)
{
	static const char alphabet[] = "bcdfghjklmnpqrstvwxz2456789";
	char *p = arena_bytes(a, s.n);

	for (size_t i = 0; i < s.n; i++)
		p[i] = alphabet[(unsigned char)s.p[i] % (sizeof(alphabet) - 1)];
	return str_of(p, s.n);
}

struct str object_hash(struct arena *a, const struct schema_type *t, const void *obj, const int32_t *collision_count)
{
	struct buf buf_cleanup b = {0};

	json_encode(&b, t, obj);
	uint32_t h = fnv32a(0, buf_view(&b));

	if (collision_count) {
		unsigned char n[8] = {0};

		memcpy(n, collision_count, sizeof(*collision_count)); /* little endian, as upstream */
		h = fnv32a(h, str_of((const char *)n, sizeof(n)));
	}
	return safe_encode(a, arena_printf(a, "%u", h));
}

/* ---- owners ---- */

const struct meta_v1_owner_reference *controller_of(const struct meta_v1_object_meta *m)
{
	for (uint32_t i = 0; i < m->owner_references.n; i++)
		if (is_true(m->owner_references.v[i].controller))
			return &m->owner_references.v[i];
	return NULL;
}

struct str resource_api_version(struct arena *a, const struct api_resource *r)
{
	if (str_empty(r->group))
		return r->version;
	return arena_printf(a, "%.*s/%.*s", STR_ARG(r->group), STR_ARG(r->version));
}

void owner_add_controller_ref(struct arena *a, struct meta_v1_object_meta *m, const struct owner *o)
{
	struct meta_v1_owner_reference *ref = arena_push(a, &m->owner_references);

	*ref = (struct meta_v1_owner_reference){
		.api_version = resource_api_version(a, o->r), .kind = o->r->kind, .name = o->meta->name, .uid = o->meta->uid,
		.controller = new_bool(a, true), .block_owner_deletion = new_bool(a, true)};
}

struct core_v1_object_reference owner_reference(struct arena *a, const struct owner *o)
{
	return (struct core_v1_object_reference){
		.kind = o->r->kind, .api_version = resource_api_version(a, o->r), .namespace = o->meta->namespace,
		.name = o->meta->name, .uid = o->meta->uid, .resource_version = o->meta->resource_version};
}

bool has_finalizer(const struct meta_v1_object_meta *m, const char *f)
{
	for (uint32_t i = 0; i < m->finalizers.n; i++)
		if (str_eqz(m->finalizers.v[i], f))
			return true;
	return false;
}

bool remove_finalizer(struct meta_v1_object_meta *m, const char *f)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < m->finalizers.n; i++)
		if (!str_eqz(m->finalizers.v[i], f))
			m->finalizers.v[n++] = m->finalizers.v[i];
	bool found = n != m->finalizers.n;

	m->finalizers.n = n;
	return found;
}

/* ---- claiming ---- */

struct claim_walk {
	const struct claim *c;
	struct arena *a;
	LIST(void *) keep, adopt, release;
};

static bool claim_matches(const struct claim *c, const struct cached_object *o)
{
	return selector_matches(c->selector, &o->labels) && (!c->member || c->member(c->member_ctx, o));
}

static bool claim_one(void *ctx, const struct cached_object *o)
{
	struct claim_walk *w = ctx;
	const struct claim *c = w->c;

	if (!str_empty(o->controller_uid)) {
		if (!str_eq(o->controller_uid, c->owner.meta->uid))
			return true;
		void *obj = cached_decode(c->i, w->a, o);

		if (obj && claim_matches(c, o))
			*arena_push(w->a, &w->keep) = obj;
		else if (obj && !c->owner.meta->deletion_timestamp)
			*arena_push(w->a, &w->release) = obj;
		return true;
	}
	if (o->deleting || c->owner.meta->deletion_timestamp || !claim_matches(c, o))
		return true;
	void *obj = cached_decode(c->i, w->a, o);

	if (obj && !(c->active_pods && pod_is_terminal(obj)))
		*arena_push(w->a, &w->adopt) = obj;
	return true;
}

/* Before adopting: is the owner still the one we think, and not being deleted? */
static struct error *owner_fresh(const struct claim *c, struct arena *a)
{
	void *obj;

	TRY(client_get(c->m->client, a, c->owner.r, c->owner.meta->namespace, c->owner.meta->name, &obj));
	const struct meta_v1_object_meta *m = object_meta(c->owner.r->type, obj);

	if (!str_eq(m->uid, c->owner.meta->uid))
		return error_new("original %.*s %.*s/%.*s is gone: got uid %.*s, wanted %.*s", STR_ARG(c->owner.r->kind),
				 STR_ARG(m->namespace), STR_ARG(m->name), STR_ARG(m->uid), STR_ARG(c->owner.meta->uid));
	if (m->deletion_timestamp)
		return error_new("%.*s/%.*s has just been deleted", STR_ARG(m->namespace), STR_ARG(m->name));
	return NULL;
}

static struct error *adopt(const struct claim *c, struct arena *a, const struct meta_v1_object_meta *m)
{
	struct buf buf_cleanup b = {0};

	buf_printf(&b, "{\"metadata\":{\"ownerReferences\":[{\"apiVersion\":\"%.*s\",\"kind\":\"%.*s\",\"name\":\"%.*s\","
		   "\"uid\":\"%.*s\",\"controller\":true,\"blockOwnerDeletion\":true}],\"uid\":\"%.*s\"",
		   STR_ARG(resource_api_version(a, c->owner.r)), STR_ARG(c->owner.r->kind), STR_ARG(c->owner.meta->name),
		   STR_ARG(c->owner.meta->uid), STR_ARG(m->uid));
	if (c->finalizer)
		buf_printf(&b, ",\"finalizers\":[\"%s\"]", c->finalizer);
	buf_puts(&b, "}}");
	return client_patch(c->m->client, a, c->r, m->namespace, m->name, NULL, PATCH_STRATEGIC, buf_view(&b), NULL, false, NULL);
}

static struct error *release(const struct claim *c, struct arena *a, const struct meta_v1_object_meta *m)
{
	struct buf buf_cleanup b = {0};

	buf_printf(&b, "{\"metadata\":{\"ownerReferences\":[{\"$patch\":\"delete\",\"uid\":\"%.*s\"}],\"uid\":\"%.*s\"",
		   STR_ARG(c->owner.meta->uid), STR_ARG(m->uid));
	if (c->finalizer)
		buf_printf(&b, ",\"$deleteFromPrimitiveList/finalizers\":[\"%s\"]", c->finalizer);
	buf_puts(&b, "}}");
	struct error *e = client_patch(c->m->client, a, c->r, m->namespace, m->name, NULL, PATCH_STRATEGIC, buf_view(&b), NULL,
				       false, NULL);

	/* 404: gone, so released; 422: no longer ours, or another object of that name. */
	if (error_is(e, 404, NULL) || error_is(e, 422, NULL) || error_is(e, 409, NULL))
		error_clear(&e);
	return e;
}

struct error *claim_objects(const struct claim *c, struct arena *a, void ***objs, size_t *n)
{
	struct claim_walk w = {.c = c, .a = a};

	informer_each(c->i, c->owner.meta->namespace, NULL, claim_one, &w);
	for (uint32_t k = 0; k < w.release.n; k++)
		TRY(release(c, a, object_meta(c->r->type, w.release.v[k])));
	if (w.adopt.n)
		TRY(owner_fresh(c, a));
	for (uint32_t k = 0; k < w.adopt.n; k++) {
		struct meta_v1_object_meta *m = object_meta(c->r->type, w.adopt.v[k]);
		struct error *e = adopt(c, a, m);

		if (error_is(e, 404, NULL) || error_is(e, 409, NULL) || error_is(e, 422, NULL)) {
			error_free(e); /* gone, or somebody else was faster */
			continue;
		}
		if (e)
			return error_wrap(e, "adopting %.*s %.*s/%.*s", STR_ARG(c->r->kind), STR_ARG(m->namespace), STR_ARG(m->name));
		owner_add_controller_ref(a, m, &c->owner);
		if (c->finalizer && !has_finalizer(m, c->finalizer))
			*arena_push(a, &m->finalizers) = str_from(c->finalizer);
		*arena_push(a, &w.keep) = w.adopt.v[k];
	}
	*objs = w.keep.v;
	*n = w.keep.n;
	return NULL;
}

/* ---- expectations ---- */

#define EXPECTATIONS_MS (5 * 60 * 1000)

struct expected {
	int creations;
	struct map deletions; /* uids */
	int64_t at;           /* monotonic ms */
};

static struct expected *expected_of(struct expectations *x, struct str key)
{
	struct expected *e = map_get(&x->keys, key);

	if (!e) {
		e = xcalloc(1, sizeof(*e));
		map_set(&x->keys, key, e);
	}
	e->at = now_ms();
	return e;
}

void expect_creations(struct expectations *x, struct str key, int n)
{
	struct expected *e = expected_of(x, key);

	if (e->creations < 0)
		e->creations = 0;
	e->creations += n;
}

void expect_deletions(struct expectations *x, struct str key, struct informer *pods, struct core_v1_pod *const *v, size_t n)
{
	struct expected *e = expected_of(x, key);

	for (size_t i = 0; i < n; i++) {
		const struct cached_object *o = informer_peek(pods, v[i]->metadata.namespace, v[i]->metadata.name);

		if (o && str_eq(o->uid, v[i]->metadata.uid) && !o->deleting)
			map_set(&e->deletions, v[i]->metadata.uid, e);
	}
}

void creation_observed(struct expectations *x, struct str key)
{
	struct expected *e = map_get(&x->keys, key);

	if (e && e->creations > 0)
		e->creations--;
}

void deletion_observed(struct expectations *x, struct str key, struct str uid)
{
	struct expected *e = map_get(&x->keys, key);

	if (e)
		map_del(&e->deletions, uid);
}

bool expectations_met(const struct expectations *x, struct str key)
{
	const struct expected *e = map_get(&x->keys, key);

	if (!e || (e->creations <= 0 && !e->deletions.n))
		return true;
	int64_t left = e->at + EXPECTATIONS_MS - now_ms();

	if (left <= 0)
		return true;
	if (x->q) /* a pod may have come and gone while no watch saw it */
		workqueue_add_after(x->q, key, left + 1);
	return false;
}

void expectations_forget(struct expectations *x, struct str key)
{
	struct expected *e = map_del(&x->keys, key);

	if (!e)
		return;
	map_free(&e->deletions);
	free(e);
}

/* ---- what happens to pods ---- */

static void enqueue(struct workqueue *q, const struct cached_object *o)
{
	arena_cleanup struct arena a = {0};

	workqueue_add(q, object_key(&a, o->ns, o->name));
}

const struct cached_object *pod_watch_owner(const struct pod_watch *w, const struct cached_object *o)
{
	if (str_empty(o->controller_uid) || !str_eq(o->controller_kind, w->r->kind))
		return NULL;
	const struct cached_object *s = informer_peek(w->owners, o->ns, o->controller_name);

	return s && str_eq(s->uid, o->controller_uid) ? s : NULL;
}

struct orphan {
	struct pod_watch *w;
	const struct cached_object *pod;
};

static bool enqueue_if_matches(void *ctx, const struct cached_object *o)
{
	struct orphan *k = ctx;
	arena_cleanup struct arena a = {0};
	const struct selector *s = NULL;
	void *obj = cached_decode(k->w->owners, &a, o);
	struct error *e = obj ? k->w->selector(&a, obj, &s) : NULL;

	if (obj && !e && s && selector_matches(s, &k->pod->labels))
		enqueue(k->w->q, o);
	error_free(e); /* the owner's own reconcile tells */
	return true;
}

static void on_watched_pod(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct pod_watch *w = ctx;
	arena_cleanup struct arena a = {0};
	const struct cached_object *o = new_ ? new_ : old, *s = pod_watch_owner(w, o);
	bool moved = old && new_ && !str_eq(old->controller_uid, new_->controller_uid);

	if (str_eq(o->controller_kind, w->r->kind)) {
		struct str key = object_key(&a, o->ns, o->controller_name);

		/* The owner may not be here yet, or no more: what was expected of it was asked for under its name. */
		if (ev == INFORMER_ADDED)
			creation_observed(w->x, key);
		if (ev == INFORMER_DELETED || o->deleting)
			deletion_observed(w->x, key, o->uid);
	}
	if (moved) {
		const struct cached_object *before = pod_watch_owner(w, old);

		if (before)
			enqueue(w->q, before);
	}
	if (s)
		enqueue(w->q, s);
	if (!str_empty(o->controller_uid) || ev == INFORMER_DELETED || o->deleting || !o->labels.n)
		return;
	if (!old || moved || !map_equal(&old->labels, &new_->labels))
		informer_each(w->owners, o->ns, NULL, enqueue_if_matches, &(struct orphan){w, o});
}

void pod_watch_on_owner(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct pod_watch *w = ctx;
	const struct cached_object *o = new_ ? new_ : old;
	arena_cleanup struct arena a = {0};

	/* Another of that name owes nothing of what was expected of the old one. */
	if (ev == INFORMER_DELETED || (old && new_ && !str_eq(old->uid, new_->uid)))
		expectations_forget(w->x, object_key(&a, o->ns, o->name));
	enqueue(w->q, o);
}

void pod_watch_start(struct pod_watch *w)
{
	w->x->q = w->q;
	informer_on_event(w->owners, pod_watch_on_owner, w);
	informer_on_event(w->pods, on_watched_pod, w);
}

/* ---- pods ---- */

const struct core_v1_pod_condition *pod_condition(const struct core_v1_pod *p, const char *type)
{
	for (uint32_t i = 0; i < p->status.conditions.n; i++)
		if (str_eqz(p->status.conditions.v[i].type, type))
			return &p->status.conditions.v[i];
	return NULL;
}

bool pod_is_ready(const struct core_v1_pod *p)
{
	const struct core_v1_pod_condition *c = pod_condition(p, "Ready");

	return c && str_eqz(c->status, "True");
}

bool pod_is_available(const struct core_v1_pod *p, int32_t min_ready, int64_t *wait_ms)
{
	if (wait_ms)
		*wait_ms = -1;
	if (!pod_is_ready(p))
		return false;
	if (!min_ready)
		return true;
	const struct core_v1_pod_condition *c = pod_condition(p, "Ready");

	if (!c->last_transition_time.set)
		return false;
	int64_t left = time_ms(c->last_transition_time) + min_ready * 1000LL - wall_ms();

	if (left <= 0)
		return true;
	if (wait_ms)
		*wait_ms = left;
	return false;
}

bool pod_is_terminal(const struct core_v1_pod *p)
{
	return str_eqz(p->status.phase, "Succeeded") || str_eqz(p->status.phase, "Failed");
}

bool pod_is_active(const struct core_v1_pod *p)
{
	return !pod_is_terminal(p) && !p->metadata.deletion_timestamp;
}

struct core_v1_pod *pod_from_template(struct arena *a, const struct core_v1_pod_template_spec *t, struct str ns, struct str name,
				      const struct owner *o)
{
	struct core_v1_pod *p = arena_new(a, struct core_v1_pod);
	struct core_v1_pod_template_spec *copy = object_clone(a, &core_v1_pod_template_spec_type, t);

	p->metadata.namespace = ns;
	p->metadata.labels.v = copy->metadata.labels.v;
	p->metadata.labels.n = copy->metadata.labels.n;
	p->metadata.annotations.v = copy->metadata.annotations.v;
	p->metadata.annotations.n = copy->metadata.annotations.n;
	p->metadata.finalizers.v = copy->metadata.finalizers.v;
	p->metadata.finalizers.n = copy->metadata.finalizers.n;
	p->spec = copy->spec;
	if (!str_empty(name)) {
		p->metadata.name = name;
	} else {
		/* The API server adds five characters; a name must keep to 63 where it becomes a host name. */
		struct str base = str_sub(o->meta->name, 0, 253 - 6);

		p->metadata.generate_name = arena_printf(a, "%.*s-", STR_ARG(base));
	}
	owner_add_controller_ref(a, &p->metadata, o);
	return p;
}

struct error *pod_create(struct manager *m, struct arena *a, struct event_recorder *rec, const struct owner *o,
			 const struct core_v1_pod *p, struct core_v1_pod **out)
{
	void *made = NULL;
	struct core_v1_object_reference ref = owner_reference(a, o);
	struct error *e = client_create(m->client, a, &core_v1_pods_resource, p->metadata.namespace, p, &made);

	if (out)
		*out = made;
	if (!e) {
		event_record(rec, &ref, "Normal", "SuccessfulCreate", "Created pod: %.*s",
			     STR_ARG(((struct core_v1_pod *)made)->metadata.name));
		return NULL;
	}
	if (!namespace_terminating(e))
		event_record(rec, &ref, "Warning", "FailedCreate", "Error creating: %s", error_message(e));
	return e;
}

struct error *pod_delete(struct manager *m, struct arena *a, struct event_recorder *rec, const struct owner *o,
			 const struct core_v1_pod *p)
{
	struct core_v1_object_reference ref = owner_reference(a, o);
	struct error *e = client_delete(m->client, a, &core_v1_pods_resource, p->metadata.namespace, p->metadata.name,
					&(struct delete_opts){.grace_seconds = -1, .uid = p->metadata.uid});

	if (error_is(e, 404, NULL) || error_is(e, 409, "Conflict"))
		error_clear(&e); /* gone, or another pod of that name */
	else if (e)
		event_record(rec, &ref, "Warning", "FailedDelete", "Error deleting: %s", error_message(e));
	else
		event_record(rec, &ref, "Normal", "SuccessfulDelete", "Deleted pod: %.*s", STR_ARG(p->metadata.name));
	return e;
}

struct ranked {
	struct core_v1_pod *p;
	int rank;
};

static int phase_rank(const struct core_v1_pod *p)
{
	return str_eqz(p->status.phase, "Running") ? 2 : str_eqz(p->status.phase, "Unknown") ? 1 : 0;
}

static int64_t deletion_cost(const struct core_v1_pod *p)
{
	int64_t v = 0;
	struct str s = str_map_get(API_MAP(&p->metadata.annotations), STR("controller.kubernetes.io/pod-deletion-cost"));

	str_to_i64(s, &v);
	return v;
}

static int max_restarts(const struct core_v1_pod *p)
{
	int32_t max = 0;

	for (uint32_t i = 0; i < p->status.container_statuses.n; i++)
		if (p->status.container_statuses.v[i].restart_count > max)
			max = p->status.container_statuses.v[i].restart_count;
	return max;
}

/* Newer first; unset counts as older. */
static int newer_first(struct api_time x, struct api_time y)
{
	return -time_cmp(x, y);
}

static int cmp_deletion(const void *pa, const void *pb)
{
	const struct ranked *ra = pa, *rb = pb;
	const struct core_v1_pod *x = ra->p, *y = rb->p;
	bool unassigned_x = str_empty(x->spec.node_name), unassigned_y = str_empty(y->spec.node_name);

	if (unassigned_x != unassigned_y)
		return unassigned_x ? -1 : 1;
	if (phase_rank(x) != phase_rank(y))
		return phase_rank(x) - phase_rank(y);
	bool ready = pod_is_ready(x);

	if (ready != pod_is_ready(y))
		return ready ? 1 : -1;
	if (deletion_cost(x) != deletion_cost(y))
		return deletion_cost(x) < deletion_cost(y) ? -1 : 1;
	if (ra->rank != rb->rank)
		return rb->rank - ra->rank;
	int c;

	if (ready) {
		c = newer_first(pod_condition(x, "Ready")->last_transition_time, pod_condition(y, "Ready")->last_transition_time);
		if (c)
			return c;
	}
	if (max_restarts(x) != max_restarts(y))
		return max_restarts(y) - max_restarts(x);
	c = newer_first(x->metadata.creation_timestamp, y->metadata.creation_timestamp);
	return c ? c : str_cmp(x->metadata.uid, y->metadata.uid);
}

void pods_sort_for_deletion(struct core_v1_pod **v, size_t n, const int *ranks)
{
	struct ranked *r = xcalloc(n ? n : 1, sizeof(*r));

	for (size_t i = 0; i < n; i++)
		r[i] = (struct ranked){v[i], ranks ? ranks[i] : 0};
	qsort(r, n, sizeof(*r), cmp_deletion);
	for (size_t i = 0; i < n; i++)
		v[i] = r[i].p;
	free(r);
}
