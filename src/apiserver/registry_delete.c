/* Deletions of any resource: grace, finalizers, namespaces in two steps. */
#include "apiserver/registry_internal.h"

static bool has_finalizer(const struct meta_v1_object_meta *m, const char *name)
{
	for (uint32_t i = 0; i < m->finalizers.n; i++)
		if (str_eqz(m->finalizers.v[i], name))
			return true;
	return false;
}

static void set_finalizer(struct arena *a, struct meta_v1_object_meta *m, const char *name, bool want)
{
	LIST(struct str) v = {0};

	if (has_finalizer(m, name) == want)
		return;
	for (uint32_t i = 0; i < m->finalizers.n; i++)
		if (!str_eqz(m->finalizers.v[i], name))
			*arena_push(a, &v) = m->finalizers.v[i];
	if (want)
		*arena_push(a, &v) = str_from(name);
	m->finalizers.v = v.v;
	m->finalizers.n = v.n;
	m->finalizers.cap = v.cap;
}

/* What the propagation policy makes of the garbage collector's finalizers; true when that is a change. */
static bool gc_finalizers(struct request *rq, struct meta_v1_object_meta *m, const struct meta_v1_delete_options *o)
{
	const struct strategy *sg = rq->res->st->strategy;
	bool orphan, foreground, had_o = has_finalizer(m, "orphan"), had_f = has_finalizer(m, "foregroundDeletion");

	if (rq->res->st->type == &core_v1_event_type)
		return false; /* upstream collects no dependents of events */
	if (o->orphan_dependents) {
		orphan = *o->orphan_dependents;
		foreground = false;
	} else if (o->propagation_policy) {
		orphan = str_eqz(*o->propagation_policy, "Orphan");
		foreground = str_eqz(*o->propagation_policy, "Foreground");
	} else {
		orphan = had_o || (!had_f && sg && sg->orphan_by_default);
		foreground = had_f && !had_o;
	}
	set_finalizer(rq->a, m, "orphan", orphan);
	set_finalizer(rq->a, m, "foregroundDeletion", foreground);
	return had_o != orphan || had_f != foreground;
}

/* rest.BeforeDelete: *graceful, *pending. */
static void before_delete(struct request *rq, void *obj, const struct meta_v1_delete_options *o, int64_t *grace, bool *graceful, bool *pending)
{
	struct storage *st = rq->res->st;
	const struct strategy *sg = st->strategy;
	struct meta_v1_object_meta *m = meta_of(st, obj);

	*graceful = *pending = false;
	*grace = !o->grace_period_seconds ? -1 : *o->grace_period_seconds < 0 ? 1 : *o->grace_period_seconds;
	if (!sg || !sg->graceful_delete) {
		*grace = 0;
		return;
	}
	if (m->deletion_timestamp) {
		if (!m->deletion_grace_period_seconds || !*m->deletion_grace_period_seconds)
			return;
		if (o->grace_period_seconds) {
			int64_t period = *o->grace_period_seconds;

			if (period < 0)
				period = 1;
			if (period >= *m->deletion_grace_period_seconds) {
				*pending = true;
				return;
			}
			struct api_time *t = arena_new(rq->a, struct api_time);

			*t = *m->deletion_timestamp;
			t->s += period - *m->deletion_grace_period_seconds;
			if (t->s <= time_now().s) {
				/* all of it has gone by: now, but still with an agent's second delete if one was asked for */
				*t = time_now();
				period = period ? 1 : 0;
			}
			m->deletion_timestamp = t;
			m->deletion_grace_period_seconds = arena_new(rq->a, int64_t);
			*m->deletion_grace_period_seconds = period;
			*grace = period;
			*graceful = true;
			return;
		}
		*pending = true;
		return;
	}
	if (!sg->graceful_delete(rq, obj, grace))
		return;
	m->deletion_timestamp = arena_new(rq->a, struct api_time);
	*m->deletion_timestamp = time_now();
	m->deletion_timestamp->s += *grace;
	m->deletion_grace_period_seconds = arena_new(rq->a, int64_t);
	*m->deletion_grace_period_seconds = *grace;
	if (m->generation > 0)
		m->generation++;
	*graceful = true;
}

static void mark_deleting(struct request *rq, struct meta_v1_object_meta *m)
{
	struct api_time now = time_now();

	if (!m->deletion_timestamp && m->generation > 0)
		m->generation++;
	if (!m->deletion_timestamp || m->deletion_timestamp->s > now.s) {
		m->deletion_timestamp = arena_new(rq->a, struct api_time);
		*m->deletion_timestamp = now;
	}
	m->deletion_grace_period_seconds = arena_new(rq->a, int64_t);
}

/* Namespaces end in two steps: Terminating first, and when their own finalizers are gone as everything else does: false then. */
static bool namespace_terminating(struct request *rq, struct core_v1_namespace *n, const struct meta_v1_delete_options *o, bool *changed)
{
	*changed = false;
	if (!n->metadata.deletion_timestamp) {
		n->metadata.deletion_timestamp = arena_new(rq->a, struct api_time);
		*n->metadata.deletion_timestamp = time_now();
		n->status.phase = STR("Terminating");
		if (o->orphan_dependents || o->propagation_policy)
			gc_finalizers(rq, &n->metadata, o);
		if (o->orphan_dependents && !*o->orphan_dependents) /* of other objects this means nothing */
			set_finalizer(rq->a, &n->metadata, "foregroundDeletion", true);
		*changed = true;
		return true;
	}
	return n->spec.finalizers.n > 0;
}

static struct error *delete_loop(struct request *rq, struct str ns, struct str name, const struct meta_v1_delete_options *o,
				 struct write_result *out, struct fiber_mutex **held)
{
	struct resource *res = rq->res;
	struct storage *st = res->st;
	const struct strategy *sg = st->strategy;
	struct str cns = st->namespaced ? ns : STR_NULL;
	bool admitted = false;
	void *marked_last = NULL; /* what a write of this deletion left no time: whoever writes it next deletes it, too, and may be first */
	struct str uid = o->preconditions && o->preconditions->uid ? *o->preconditions->uid : STR_NULL;
	struct str rv = o->preconditions && o->preconditions->resource_version ? *o->preconditions->resource_version : STR_NULL;

	memset(out, 0, sizeof *out);
	TRY(registry_name(rq, name));
	for (int attempt = 0; attempt < UPDATE_RETRIES; attempt++) {
		struct cache_entry *entry, *written = NULL;
		void *obj, *old;
		struct meta_v1_object_meta *m;
		bool graceful, pending, gc, immediately = true, write = false, ok = false, marked = false;
		int64_t grace, rev;
		struct stored stored stored_cleanup = {0};
		struct error *e;

		if (attempt)
			TRY(wait_turn(rq, ns, name, held));
		TRY(cache_get(st->cache, cns, name, CACHE_CONSISTENT, 0, &entry));
		if (!entry && marked_last) {
			meta_of(st, marked_last)->resource_version = STR_NULL;
			out->obj = marked_last;
			out->deleted = true;
			return NULL;
		}
		if (!entry)
			return err_not_found(res->api->group, res->api->plural, name);
		rev = entry->rev;
		e = registry_readable(st, entry);
		if (!e)
			e = decode_for(rq, entry, &obj);
		if (!e)
			e = decode_for(rq, entry, &old);
		cache_entry_unref(entry);
		TRY(e);
		m = meta_of(st, obj);
		m->resource_version = rv_text(rq->a, rev);
		meta_of(st, old)->resource_version = m->resource_version;
		/* upstream names the kind here where everything else names the resource; namespaces have a way of their own */
		TRY(check_preconditions(rq, m, st->type == &core_v1_namespace_type ? res->api->plural : res->api->kind, name, uid, rv));
		if (!admitted && !rq->internal) {
			struct admission ad = admission_of(rq, ADMIT_DELETE, NULL, ns, name, NULL, old);

			ad.delete_options = o;
			TRY(admission_admit(&ad));
			TRY(admission_validate(&ad));
			admitted = true;
		}
		if (sg && sg->before_delete)
			TRY(sg->before_delete(rq, obj, &marked));
		if (marked) {
			write = true;
			immediately = false;
		} else if (st->type == &core_v1_namespace_type && namespace_terminating(rq, obj, o, &write)) {
			immediately = false;
			if (!write) {
				out->obj = obj;
				return NULL;
			}
		} else {
			before_delete(rq, obj, o, &grace, &graceful, &pending);
			if (pending) {
				out->obj = obj;
				return NULL;
			}
			gc = rq->s->o.garbage_collector && gc_finalizers(rq, m, o);
			if (graceful) {
				write = true;
				/* with no time left the delete follows the update at once: watchers see both */
				immediately = !m->finalizers.n && grace <= 0;
			} else if (m->finalizers.n) {
				mark_deleting(rq, m);
				write = true;
				immediately = false;
			}
			(void)gc;
		}
		if (immediately && !write) {
			/* what goes at once goes as it was */
			obj = old;
			m = meta_of(st, obj);
		}
		if (write && object_equal(st->type, obj, old)) {
			bool same = true;

			if (res->crd)
				TRY(as_stored(rq, obj, rev, &stored, &same));
			if (same) {
				out->obj = obj;
				return NULL;
			}
		}
		if (rq->dry_run) {
			out->obj = obj;
			out->deleted = immediately;
			return NULL;
		}
		if (write) {
			TRY(stored_encode(rq, obj, &stored));
			TRY(stored_put(rq, obj, &stored, (struct stored_put){.ns = cns, .name = name, .expect = rev, .applied = true}, &ok,
				       &written));
			if (ok && immediately) {
				rev = written->rev;
				cache_entry_unref(written);
				written = NULL;
				marked_last = obj;
				if (rv.n)
					rv = rv_text(rq->a, rev);
				TRY(cache_delete(st->cache, cns, name, rev, &ok, &written));
			}
		} else {
			TRY(cache_delete(st->cache, cns, name, rev, &ok, &written));
		}
		if (!ok) {
			cache_entry_unref(written);
			continue;
		}
		m->resource_version = rv_text(rq->a, written->rev);
		cache_entry_unref(written);
		if (immediately && sg && sg->end_write)
			sg->end_write(rq, NULL, old, NULL, true);
		out->obj = obj;
		out->deleted = immediately;
		return NULL;
	}
	return err_conflict(res->api->group, res->api->plural, name, NULL);
}

struct error *registry_delete(struct request *rq, struct str ns, struct str name, const struct meta_v1_delete_options *o,
			      struct write_result *out)
{
	struct fiber_mutex *held = NULL;
	struct error *e = delete_loop(rq, ns, name, o, out, &held);

	if (held)
		fiber_mutex_unlock(held);
	return e;
}
