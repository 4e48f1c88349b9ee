/* Updates of any resource: what becomes of metadata and of the parts that a subresource has, rules, and the store. */
#include "apiserver/registry_internal.h"

#include "apiserver/custom.h"
#include "apiserver/encrypt.h"
#include "apiserver/metrics.h"
#include "schema/defaults.h"

/* Scale writes the main resource's fields: it is judged as an update of it. */
static bool is_main(const char *sub)
{
	return !sub || !strcmp(sub, "scale");
}

static bool same_annotations(const struct meta_v1_object_meta *a, const struct meta_v1_object_meta *b)
{
	struct meta_v1_object_meta x = {0}, y = {0};

	memcpy(&x.annotations, &a->annotations, sizeof x.annotations);
	memcpy(&y.annotations, &b->annotations, sizeof y.annotations);
	return object_equal(&meta_v1_object_meta_type, &x, &y);
}

/* Metadata that only the server changes, and the split between the main resource and its subresources. */
static void before_update(struct request *rq, const char *sub, void *obj, const void *old)
{
	struct storage *st = rq->res->st;
	const struct strategy *sg = st->strategy;
	struct meta_v1_object_meta *m = meta_of(st, obj);
	const struct meta_v1_object_meta *om = meta_of(st, old);

	if (!m->uid.n)
		m->uid = om->uid;
	if (om->creation_timestamp.set)
		m->creation_timestamp = om->creation_timestamp;
	if (om->deletion_timestamp)
		m->deletion_timestamp = om->deletion_timestamp;
	if (om->deletion_grace_period_seconds && !m->deletion_grace_period_seconds)
		m->deletion_grace_period_seconds = om->deletion_grace_period_seconds;
	m->generation = om->generation;
	if (is_main(sub) && sg && sg->generation_first && object_spec_changed(st->type, obj, old, sg->generation_exact))
		m->generation = om->generation + 1;
	if (!rq->res->crd)
		drop_disabled_fields(st->type, obj, old);
	if (is_main(sub)) {
		if (!(sg && sg->no_status_split) && !(rq->res->crd && !custom_has_status(rq->res)))
			object_field_copy(st->type, obj, old, "status");
		if (sg && sg->prepare_update)
			sg->prepare_update(rq, obj, old);
		if (((sg && sg->generation && !sg->generation_stays) || rq->res->crd) &&
		    (object_spec_changed(st->type, obj, old, sg && sg->generation_exact) || (st->type == &apps_v1_deployment_type && !same_annotations(m, om)) ||
		     (rq->res->crd && !custom_has_status(rq->res) && !object_field_equal(st->type, obj, old, "status"))))
			m->generation = om->generation + 1;
	} else if (sg && sg->prepare_sub_update) {
		sg->prepare_sub_update(rq, sub, obj, old);
	} else if (!strcmp(sub, "status")) {
		const struct schema_type *t = st->type;

		/* everything but status and metadata is the old object's */
		for (uint16_t i = 0; i < t->n_fields; i++) {
			char name[128];

			snprintf(name, sizeof name, "%.*s", STR_ARG(t->fields[i].name));
			if (strcmp(name, "status") && strcmp(name, "metadata"))
				object_field_copy(t, obj, old, name);
		}
		if (rq->res->crd || (sg && sg->status_keeps_metadata)) {
			/* of metadata, this status update changes managedFields only */
			struct meta_v1_object_meta keep = *om;

			keep.resource_version = m->resource_version;
			keep.managed_fields.v = m->managed_fields.v;
			keep.managed_fields.n = m->managed_fields.n;
			keep.managed_fields.cap = m->managed_fields.cap;
			*m = keep;
		} else if (sg && sg->status_resets_metadata) {
			static const char *const kept[] = {"deletionTimestamp", "generation", "selfLink", "labels", "annotations", "finalizers",
							   "ownerReferences"};

			for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
				object_field_copy(&meta_v1_object_meta_type, m, om, kept[i]);
		} else if (st->type == &apps_v1_deployment_type) {
			m->labels.v = om->labels.v;
			m->labels.n = om->labels.n;
			m->labels.cap = om->labels.cap;
		}
	}
}

static void update_rules(struct request *rq, const char *sub, const void *obj, const void *old, struct field_errors *fe)
{
	struct storage *st = rq->res->st;
	const struct strategy *sg = st->strategy;

	if (rq->res->crd)
		custom_validate(rq, sub, obj, old, fe);
	else if (is_main(sub) && !(sg && sg->checks_all))
		validate_object(fe, st->type, obj, NULL);
	if (is_main(sub) && sg && sg->validate_update)
		sg->validate_update(rq, obj, old, fe);
	else if (is_main(sub) && sg && sg->validate)
		sg->validate(rq, obj, fe);
	else if (sg && sg->validate_sub_update)
		sg->validate_sub_update(rq, sub, obj, old, fe);
}

/* Where metadata is judged among a kind's rules: strategy.h's meta_update. */
static const char *meta_order(const struct request *rq, const char *sub)
{
	const struct strategy *sg = rq->res->st->strategy;
	const char *order = sg ? is_main(sub) ? sg->meta_update : sg->meta_status : NULL;

	return order ? order : rq->res->crd ? "u*" : "U*";
}

static struct error *validate_update(struct request *rq, const char *sub, void *obj, const void *old)
{
	struct storage *st = rq->res->st;
	const struct strategy *sg = st->strategy;
	const struct meta_v1_object_meta *m = meta_of(st, obj), *om = meta_of(st, old);
	const struct field_path *meta = FIELD_ROOT("metadata");
	const char *order = meta_order(rq, sub);
	struct field_errors fe = {.arena = rq->a, .once = !rq->res->crd && !(sg && sg->checks_all)};

	/* upstream looks at metadata before and in each kind's validation, and reports what it finds each time */
	validate_object_meta(&fe, m, st->namespaced, validate_any_name, meta, false);
	validate_object_meta_update(&fe, m, om, meta, false);
	for (; *order; order++) {
		switch (*order) {
		case 'U':
		case 'u':
			validate_object_meta_update(&fe, m, om, meta, *order == 'U');
			break;
		case 'M':
		case 'm':
			validate_object_meta(&fe, m, st->namespaced, sg ? sg->name_check : NULL, meta, *order == 'M');
			break;
		case 'N':
			meta_without_generate_name(&fe, st, m);
			break;
		case 'C':
			create_rules(rq, obj, &fe);
			break;
		default:
			update_rules(rq, sub, obj, old, &fe);
		}
	}
	TRY(field_errors_status(&fe, kind_group(rq->res), rq->res->api->kind, m->name));
	if (is_main(sub) && sg && sg->warn)
		sg->warn(rq, obj, old);
	canonicalize(rq, obj);
	return NULL;
}

/* A number, or nothing: upstream's own way of saying otherwise. */
static struct error *known_version(const struct meta_v1_object_meta *m)
{
	uint64_t v;

	return !m->resource_version.n || str_to_u64(m->resource_version, &v)
		       ? NULL
		       : error_status(500, "", "strconv.ParseUint: parsing \"%.*s\": invalid syntax", STR_ARG(m->resource_version));
}

/* The version that the object is of; admission has seen it as it was sent. */
static struct error *settle_version(struct request *rq, const struct update *u, struct meta_v1_object_meta *m,
				    const struct meta_v1_object_meta *om, struct str name, bool *unconditional)
{
	const struct resource *res = rq->res;
	const struct strategy *sg = res->st->strategy;
	uint64_t v;

	*unconditional = !m->resource_version.n || (str_to_u64(m->resource_version, &v) && !v);
	if (*unconditional) {
		if (!(u->flags & UPDATE_UNCONDITIONAL) && (res->crd || (sg && sg->no_unconditional_update))) {
			struct field_errors fe = {.arena = rq->a};

			field_invalid_raw(&fe, FIELD_CHILD(FIELD_ROOT("metadata"), "resourceVersion"), STR("0"),
					  "must be specified for an update");
			return field_errors_status(&fe, res->api->group, res->api->plural, name);
		}
		m->resource_version = om->resource_version;
		return NULL;
	}
	if (str_eq(m->resource_version, om->resource_version))
		return NULL;
	TRY(known_version(m));
	return err_conflict(res->api->group, res->api->plural, name, NULL);
}

struct error *check_preconditions(struct request *rq, const struct meta_v1_object_meta *om, struct str what, struct str name,
				  struct str uid, struct str rv)
{
	const struct api_resource *r = rq->res->api;

	if (uid.n && !str_eq(uid, om->uid))
		return err_conflict(r->group, what, name,
				    arena_printf(rq->a, "Precondition failed: UID in precondition: %.*s, UID in object meta: %.*s", STR_ARG(uid),
						 STR_ARG(om->uid)).p);
	if (rv.n && !str_eq(rv, om->resource_version))
		return err_conflict(r->group, what, name,
				    arena_printf(rq->a, "Precondition failed: ResourceVersion in precondition: %.*s, ResourceVersion in object meta: "
						 "%.*s", STR_ARG(rv), STR_ARG(om->resource_version)).p);
	return NULL;
}

/* A status of a node that says nothing new but that it is alive. */
static bool is_node_heartbeat(struct arena *a, const void *obj, const void *old)
{
	struct core_v1_node n = *(const struct core_v1_node *)obj, o = *(const struct core_v1_node *)old;
	bool beats = false;

	if (n.status.conditions.n != o.status.conditions.n || !n.status.conditions.n)
		return false;
	struct core_v1_node_condition *c = arena_array(a, struct core_v1_node_condition, n.status.conditions.n);

	for (uint32_t i = 0; i < n.status.conditions.n; i++) {
		c[i] = n.status.conditions.v[i];
		beats |= c[i].last_heartbeat_time.s != o.status.conditions.v[i].last_heartbeat_time.s;
		c[i].last_heartbeat_time = o.status.conditions.v[i].last_heartbeat_time;
	}
	n.status.conditions.v = c;
	n.metadata.resource_version = o.metadata.resource_version;
	memcpy(&n.metadata.managed_fields, &o.metadata.managed_fields, sizeof n.metadata.managed_fields); /* their times */
	return beats && object_equal(&core_v1_node_type, &n, &o);
}

/* Heartbeats of nodes: nothing but a time changed, so they need not wait for the disk. */
static bool is_heartbeat(struct arena *a, const struct storage *st, const void *obj, const void *old)
{
	const struct coordination_v1_lease *n = obj, *o = old;

	if (st->type == &core_v1_node_type)
		return is_node_heartbeat(a, obj, old);
	return st->type == &coordination_v1_lease_type && str_eqz(n->metadata.namespace, "kube-node-lease") && n->spec.holder_identity &&
	       o->spec.holder_identity && str_eq(*n->spec.holder_identity, *o->spec.holder_identity);
}

static bool should_delete(const struct storage *st, const void *obj, const void *old)
{
	const struct meta_v1_object_meta *m = meta_of(st, obj), *om = meta_of(st, old);

	if (m->finalizers.n || !om->deletion_timestamp)
		return false;
	if (om->deletion_grace_period_seconds && *om->deletion_grace_period_seconds != 0)
		return false;
	if (st->type == &core_v1_namespace_type && ((const struct core_v1_namespace *)obj)->spec.finalizers.n)
		return false;
	return true;
}

static struct error *result_entry(struct request *rq, struct storage *st, struct cache_entry *entry, struct write_result *out)
{
	struct error *e = decode_for(rq, entry, &out->obj);

	if (!e)
		out->entry = cache_entry_ref(entry);
	return e;
}

enum compared { UNEQUAL_FAST, UNEQUAL_SLOW, EQUAL };

/* A write that changes nothing but times of managedFields leaves these, too, so that it is none. Returns how that was found out. */
static enum compared keep_field_times(struct request *rq, void *obj, const void *old)
{
	const struct schema_type *t = rq->res->st->type;
	struct meta_v1_object_meta *m = meta_of(rq->res->st, obj);
	const struct meta_v1_object_meta *om = meta_of(rq->res->st, old);
	__typeof__(m->managed_fields) now = m->managed_fields, kept = {0};
	bool moved = false;

	if (now.n != om->managed_fields.n)
		return UNEQUAL_FAST;
	for (uint32_t i = 0; i < now.n; i++) {
		const struct api_time *x = now.v[i].time, *y = om->managed_fields.v[i].time;
		struct meta_v1_managed_fields_entry *e = arena_push(rq->a, &kept);

		moved |= !x != !y || (x && (x->s != y->s || x->ns != y->ns));
		*e = now.v[i];
		e->time = om->managed_fields.v[i].time;
		if (!object_equal(&meta_v1_managed_fields_entry_type, e, &om->managed_fields.v[i]))
			return UNEQUAL_FAST;
	}
	if (!moved)
		return UNEQUAL_FAST;
	memcpy(&m->managed_fields, &kept, sizeof kept);
	if (object_equal(t, obj, old))
		return EQUAL;
	memcpy(&m->managed_fields, &now, sizeof now);
	return UNEQUAL_SLOW;
}

static void compare_field_times(struct request *rq, void *obj, const void *old)
{
	static const char *const labels[] = {[UNEQUAL_FAST] = "code_path=\"unequal_objects_fast\"",
					     [UNEQUAL_SLOW] = "code_path=\"unequal_objects_slow\"",
					     [EQUAL] = "code_path=\"equal_objects\""};
	static struct metric *times[EQUAL + 1];
	int64_t since = now_ns();
	enum compared c = keep_field_times(rq, obj, old);

	if (!times[c])
		times[c] = metric_series(METRIC_TIMESTAMP_TIME, labels[c]);
	metric_observe(times[c], (double)(now_ns() - since) / 1e9);
}

/*
 * Of an object that reads as it did: whether what is stored is what would be. Of custom resources it need not be: a definition says what is
 * read of stored bytes, and may have said something else when they were written.
 */
struct error *as_stored(struct request *rq, void *obj, int64_t rev, struct stored *s, bool *same)
{
	struct storage *st = rq->res->st;
	struct meta_v1_object_meta *m = meta_of(st, obj);
	struct cache_entry *entry;
	struct error *e;

	TRY(cache_get(st->cache, m->namespace, m->name, CACHE_ANY, 0, &entry));
	if (!entry)
		return NULL;
	if (entry->rev != rev || custom_reads_as_stored(rq->res, entry)) {
		cache_entry_unref(entry);
		return NULL;
	}
	e = stored_encode(rq, obj, s);
	if (!e)
		e = custom_stored_alike(rq->a, entry, buf_view(s->plain.n ? &s->plain : &s->bytes), same);
	cache_entry_unref(entry);
	return e;
}

struct error *wait_turn(struct request *rq, struct str ns, struct str name, struct fiber_mutex **held)
{
	size_t n = sizeof rq->s->contended / sizeof *rq->s->contended;
	struct fiber_mutex *lock = &rq->s->contended[(str_hash(ns) ^ str_hash(name)) % n];

	if (*held || rq->internal)
		return NULL;
	TRY(fiber_mutex_lock(lock));
	*held = lock;
	return NULL;
}

/*
 * *obj, decoded from an entry, as it is stored where no read shows it so. When it has been written since, it stays: what comes of it is not
 * written then. *stale: it would not be stored so now.
 */
static struct error *as_kept(struct request *rq, const struct cache_entry *entry, void **obj, bool *stale)
{
	struct storage *st = rq->res->st;
	struct buf b buf_cleanup = {0}, now buf_cleanup = {0};
	struct str bytes;
	void *o;

	*stale = entry->unlike;
	if (!entry->unlike || !st->strategy || !st->strategy->shown)
		return NULL;
	TRY(cache_stored(st->cache, entry, &b));
	if (!b.n)
		return NULL;
	bytes = arena_str(rq->a, buf_view(&b));
	o = arena_alloc(rq->a, st->type->size);
	TRY(object_decode(rq->a, media_recognize(bytes), st->type, bytes, NULL, o));
	((struct str *)o)[0] = st->kind;
	((struct str *)o)[1] = st->api_version;
	object_default(rq->a, st->type, o);
	object_encode(&now, st->media, st->type, o);
	*stale = !str_eq(buf_view(&now), bytes);
	*obj = o;
	return NULL;
}

/* *held: what is locked, for the caller to unlock. *unread: what keeps the object that there is from being read from the store. */
static struct error *update_loop(struct request *rq, struct str ns, struct str name, const struct update *u, struct write_result *out,
				 struct fiber_mutex **held, struct error **unread)
{
	struct resource *res = rq->res;
	struct storage *st = res->st;
	const struct strategy *sg = st->strategy;
	struct str cns = st->namespaced ? ns : STR_NULL;

	memset(out, 0, sizeof *out);
	TRY(registry_name(rq, name));
	for (int attempt = 0; attempt < UPDATE_RETRIES; attempt++) {
		struct cache_entry *entry = NULL, *written = NULL;
		void *old = NULL, *was, *obj = NULL, *state = NULL; /* was: old as it is stored */
		struct meta_v1_object_meta *m, *om;
		struct stored stored stored_cleanup = {0};
		struct admission ad;
		struct error *e;
		int64_t rev;
		bool ok = false, unconditional, deleting, stale = false;

		if (attempt)
			TRY(wait_turn(rq, ns, name, held));
		TRY(cache_get(st->cache, cns, name, CACHE_CONSISTENT, 0, &entry));
		if (!entry) {
			if (!(u->flags & UPDATE_CREATE) && !(!u->sub && sg && sg->create_on_update))
				return err_not_found(res->api->group, res->api->plural, name);
			if (u->uid.n)
				return err_conflict(res->api->group, res->api->plural, name,
						    arena_printf(rq->a, "Precondition failed: UID in precondition: %.*s, UID in object meta: ",
								 STR_ARG(u->uid)).p);
			TRY(u->make(u->ctx, rq, NULL, &obj));
			rq->applied = u->apply;
			TRY(known_version(meta_of(st, obj)));
			return registry_create(rq, obj, out);
		}
		e = decode_for(rq, entry, &old);
		was = old;
		if (!e)
			e = as_kept(rq, entry, &was, &stale);
		rev = entry->rev;
		error_free(*unread);
		*unread = registry_readable(st, entry);
		stale = stale || (st->encryption && encryption_stale(st->encryption, entry->sealed));
		cache_entry_unref(entry);
		TRY(e);
		if (u->sub)
			old = was; /* of which all but a part stays */
		om = meta_of(st, old);
		om->resource_version = meta_of(st, was)->resource_version = rv_text(rq->a, rev);
		TRY(check_preconditions(rq, om, res->api->plural, name, u->uid, u->rv));
		TRY(u->make(u->ctx, rq, was, &obj));
		m = meta_of(st, obj);
		if (!st->namespaced)
			m->namespace = STR_NULL;
		else if (!m->namespace.n)
			m->namespace = ns;
		if (!m->name.n)
			m->name = name;
		if (!str_eqz(rq->info.verb, "patch"))
			admission_dedup_owners(rq, m, false);
		if (res->crd && !(u->same && *u->same) && !(u->sub && !strcmp(u->sub, "scale"))) /* scales are made of what is stored */
			TRY(u->apply ? custom_default(rq->a, res, obj) : custom_default_and_prune(rq, obj));
		if (!u->apply)
			TRY(manage_fields(rq, u->sub, was, obj));
		ad = admission_of(rq, ADMIT_UPDATE, u->sub, ns, name, obj, old);
		if (!(u->flags & UPDATE_NO_ADMISSION))
			TRY(admission_admit_object(&ad));
		TRY(settle_version(rq, u, m, om, name, &unconditional));
		TRY(settle_namespace(m, cns));
		if (!u->sub && sg && sg->permit)
			TRY(sg->permit(rq, obj, old, !unconditional));
		before_update(rq, u->sub, obj, old);
		if (!u->sub && sg && sg->begin_write)
			TRY(sg->begin_write(rq, obj, old, rq->dry_run, &state));
		e = validate_update(rq, u->sub, obj, old);
		if (!e) {
			((struct str *)obj)[0] = ((struct str *)old)[0];
			((struct str *)obj)[1] = ((struct str *)old)[1];
			compare_field_times(rq, obj, was);
		}
		if (!e && !(u->flags & UPDATE_NO_ADMISSION))
			e = admission_validate(&ad);
		deleting = !e && should_delete(st, obj, old);
		if (!e && !deleting) {
			bool same = (!stale || *unread) && object_stored_equal(st->type, obj, was);

			if (same && res->crd && !*unread)
				TRY(as_stored(rq, obj, rev, &stored, &same));
			if (same) {
				/* nothing to write: answer what is there */
				if (!u->sub && sg && sg->end_write)
					sg->end_write(rq, obj, old, state, true);
				if (*unread)
					return error_new("nothing to write"); /* *unread is what is told */
				TRY(cache_get(st->cache, cns, name, CACHE_ANY, 0, &written));
				if (written && written->rev == rev) {
					e = result_entry(rq, st, written, out);
					cache_entry_unref(written);
					return e;
				}
				cache_entry_unref(written);
				continue;
			}
			e = stored_encode(rq, obj, &stored);
		}
		if (!e && rq->dry_run) {
			ok = true;
		} else if (!e && deleting) {
			e = cache_delete(st->cache, cns, name, rev, &ok, &written);
		} else if (!e) {
			int64_t lease = 0;

			if (st->ttl_ms > 0)
				e = event_lease(st, &lease);
			if (!e)
				e = stored_put(rq, obj, &stored,
					       (struct stored_put){.ns = cns, .name = name, .expect = rev, .lease = lease, .applied = u->apply,
								   .flags = rq->nosync || is_heartbeat(rq->a, st, obj, old) ? CACHE_NOSYNC : 0},
					       &ok, &written);
		}
		if (sg && sg->end_write && (!u->sub || (deleting && ok && !e))) /* what ends is released, whichever way it ended */
			sg->end_write(rq, deleting && ok ? NULL : obj, old, state, ok && !e);
		if (e)
			return e;
		if (!ok) {
			cache_entry_unref(written);
			if (unconditional || u->retry)
				continue;
			return err_conflict(res->api->group, res->api->plural, name, NULL);
		}
		if (u->sub && sg && sg->sub_written && !rq->dry_run)
			sg->sub_written(rq, u->sub, obj, old);
		if (rq->dry_run && !deleting)
			TRY(stored_read(rq, &stored, &obj));
		show(rq, obj);
		out->obj = obj;
		out->deleted = deleting;
		if (written) {
			/* an update that ends an object answers with what it was, as upstream's does */
			m->resource_version = deleting ? om->resource_version : rv_text(rq->a, written->rev);
			if (deleting)
				cache_entry_unref(written);
			else
				out->entry = written;
		}
		return NULL;
	}
	return err_conflict(res->api->group, res->api->plural, name, NULL);
}

struct error *registry_update(struct request *rq, struct str ns, struct str name, const struct update *u, struct write_result *out)
{
	struct fiber_mutex *held = NULL;
	struct error *unread = NULL, *e = update_loop(rq, ns, name, u, out, &held, &unread);

	if (held)
		fiber_mutex_unlock(held);
	/* what the cache has may be changed, and is what the change is judged by; an error is judged again by what is in the store */
	if (!e || !unread) {
		error_free(unread);
		return e;
	}
	error_free(e);
	return unread;
}
