/*
 * The generic registry: create, update and delete of any resource, as
 * upstream's generic Store does them.
 */
#include "apiserver/admission.h"
#include "apiserver/authz.h"
#include "apiserver/custom.h"
#include "apiserver/encrypt.h"
#include "apiserver/metrics.h"
#include "apiserver/server.h"
#include "apiserver/stored.h"
#include "schema/defaults.h"
#include "schema/managed_fields.h"

#define GENERATE_RETRIES 8
#define UPDATE_RETRIES 32
#define GENERATE_BASE_MAX 58
#define CONTENDED (sizeof(((struct apiserver *)0)->contended) / sizeof(struct fiber_mutex))

static struct meta_v1_object_meta *meta_of(const struct storage *st, const void *obj)
{
	return object_meta(st->type, (void *)(uintptr_t)obj);
}

/* A private copy of a cached object in the arena. */
static struct error *decode_entry(struct arena *a, const struct storage *st, const struct cache_entry *e, void **obj)
{
	void *o = arena_alloc(a, st->type->size);
	struct error *err = cache_entry_decode(a, st->type, e, true, o);

	if (err)
		return error_wrap(err, "decoding %.*s%.*s", STR_ARG(st->prefix), STR_ARG(cache_entry_key(e)));
	if (e->pb) {
		((struct str *)o)[0] = st->kind;
		((struct str *)o)[1] = st->api_version;
	}
	*obj = o;
	return NULL;
}

/* The same in the version of the request. */
static struct error *decode_for(struct request *rq, const struct cache_entry *e, void **obj)
{
	return rq->res->crd ? custom_read(rq->a, rq->res, e, true, obj) : decode_entry(rq->a, rq->res->st, e, obj);
}

struct error *registry_check_name(struct arena *a, struct str name)
{
	const char *why = validate_path_segment(a, name);

	if (!name.n)
		return err_bad_request("Name parameter required.");
	return why ? err_bad_request("Name parameter invalid: \"%.*s\": %s", STR_ARG(name), why) : NULL;
}

void *registry_peek(struct apiserver *s, struct arena *a, struct storage *st, struct str ns, struct str name)
{
	const struct cache_entry *e = st ? cache_peek(st->cache, st->namespaced ? ns : STR_NULL, name) : NULL;
	void *obj = NULL;

	(void)s;
	if (e)
		log_and_free(decode_entry(a, st, e, &obj), "cache");
	return obj;
}

struct error *registry_name(struct request *rq, struct str name)
{
	const char *why = validate_path_segment(rq->a, name);

	return why ? err_bad_request("invalid resource name \"%.*s\": [%s]", STR_ARG(name), why) : NULL;
}

struct error *registry_get(struct request *rq, struct str ns, struct str name, void **obj)
{
	struct storage *st = rq->res->st;
	struct cache_entry *e;
	struct error *err;

	TRY(registry_name(rq, name));
	TRY(cache_get(st->cache, st->namespaced ? ns : STR_NULL, name, CACHE_CONSISTENT, 0, &e));
	if (!e)
		return err_not_found(rq->res->api->group, rq->res->api->plural, name);
	err = decode_for(rq, e, obj);
	cache_entry_unref(e);
	return err;
}

void request_internal(struct request *rq, struct apiserver *s, struct arena *a, struct resource *res, struct str ns)
{
	static const struct str groups[] = {STR_INIT("system:masters"), STR_INIT("system:authenticated")};
	static const struct user self = {.name = STR_INIT("system:apiserver"), .groups = groups, .n_groups = 2};

	memset(rq, 0, sizeof *rq);
	rq->a = a;
	rq->s = s;
	rq->res = res;
	rq->user = rq->real_user = &self;
	rq->internal = true;
	rq->manager = STR("kube-apiserver");
	rq->ns = rq->info.ns = ns;
	rq->info.resource_request = true;
	rq->info.group = res->api->group;
	rq->info.version = res->api->version;
	rq->info.resource = res->api->plural;
}

static struct str rv_text(struct arena *a, int64_t rev)
{
	return arena_printf(a, "%lld", (long long)rev);
}

static struct admission admission_of(struct request *rq, enum admission_op op, const char *sub, struct str ns, struct str name, void *obj,
				     const void *old)
{
	struct resource *res = rq->res;

	return (struct admission){
		.rq = rq, .res = res, .group = res->api->group, .version = res->api->version, .resource = res->api->plural,
		.kind = res->api->kind, .subresource = str_from(sub), .ns = ns, .name = name, .op = op, .type = res->st->type, .obj = obj,
		.old = old, .dry_run = rq->dry_run,
	};
}

static struct resource *version_of(struct request *rq, struct str api_version)
{
	for (size_t i = 0; i < rq->s->n_resources; i++)
		if (rq->s->resources[i]->st == rq->res->st && str_eq(rq->s->resources[i]->api_version, api_version))
			return rq->s->resources[i];
	return NULL;
}

/* A tree of the kind's, in another version; one that is none is 404. */
static struct error *convert_tree(void *ctx, struct arena *a, const struct jv *obj, struct str api_version,
				  struct jv *out, struct shape *shape)
{
	struct request *rq = ctx;
	struct resource *from = version_of(rq, jv_str(jv_get(obj, STR("apiVersion")))),
			*to = version_of(rq, api_version);
	void *v, *st;

	if (!from || !to)
		return error_status(404, "NotFound", "%.*s is no version of %.*s", STR_ARG(api_version),
				    STR_ARG(rq->res->api->kind));
	v = st = arena_alloc(a, from->api->type->size);
	TRY(jv_to_object(a, from->api->type, obj, NULL, v));
	if (from->to_storage) {
		st = arena_alloc(a, rq->res->st->type->size);
		from->to_storage(a, v, st);
	}
	v = st;
	if (to->from_storage) {
		v = arena_alloc(a, to->api->type->size);
		to->from_storage(a, st, v);
	}
	((struct str *)v)[0] = to->api->kind;
	((struct str *)v)[1] = to->api_version;
	jv_from_object(a, to->api->type, v, out);
	*shape = shape_of_type(to->api->type);
	return NULL;
}

void managed_fields_versions(struct request *rq, struct managed_fields_request *mr)
{
	if (rq->res->crd) {
		mr->convert = custom_convert_tree;
		mr->convert_ctx = rq->res;
	} else if (rq->res->st->versions) {
		mr->convert = convert_tree;
		mr->convert_ctx = rq;
	}
}

static struct error *manage_fields(struct request *rq, const char *sub, const void *live, void *obj)
{
	struct resource *res = rq->res;
	struct managed_fields_request mr = {
		.shape = res->crd ? custom_shape(res) : shape_of_type(res->st->type),
		.api_version = res->api_version,
		.subresource = str_from(sub),
		.manager = rq->manager,
		.now = time_now(),
	};

	managed_fields_reset_of(res->api, str_from(sub), &mr);
	managed_fields_versions(rq, &mr);
	if (res->crd)
		custom_reset_fields(res, sub, &mr);
	if (res->crd) {
		/* custom resources are trees: their schema is not in the table */
		struct jv l, o;

		if (live)
			jv_from_object(rq->a, res->st->type, live, &l);
		jv_from_object(rq->a, res->st->type, obj, &o);
		TRY(managed_fields_update(rq->a, &mr, live ? &l : NULL, &o));
		return custom_take_managed_fields(rq->a, &o, meta_of(res->st, obj));
	}
	if (res->from_storage) {
		/* fields are named as the version of the request names them */
		void *l = NULL, *o = arena_alloc(rq->a, res->api->type->size);
		struct meta_v1_object_meta *m = meta_of(res->st, obj), *om;

		if (live) {
			l = arena_alloc(rq->a, res->api->type->size);
			res->from_storage(rq->a, live, l);
		}
		res->from_storage(rq->a, obj, o);
		mr.shape = shape_of_type(res->api->type);
		TRY(managed_fields_update_object(rq->a, &mr, l, o));
		om = object_meta(res->api->type, o);
		m->managed_fields.v = om->managed_fields.v;
		m->managed_fields.n = om->managed_fields.n;
		m->managed_fields.cap = om->managed_fields.cap;
		return NULL;
	}
	return managed_fields_update_object(rq->a, &mr, live, obj);
}

/* ---- create ---- */

static struct str generated_name(struct arena *a, struct str base)
{
	struct buf b buf_cleanup = {0};
	char suffix[8];

	random_suffix(suffix, 5);
	base = str_sub(base, 0, GENERATE_BASE_MAX);
	buf_str(&b, base); /* which may hold a NUL: found invalid later, as a whole */
	buf_puts(&b, suffix);
	return arena_str(a, buf_view(&b));
}

/* The group that errors of validation name: that of the kind as it is stored. */
static struct str kind_group(const struct resource *res)
{
	return res->crd ? res->api->group : res->st->group;
}

static void create_rules(struct request *rq, const void *obj, struct field_errors *fe)
{
	const struct strategy *sg = rq->res->st->strategy;

	if (rq->res->crd)
		custom_validate(rq, NULL, obj, NULL, fe);
	else if (!(sg && sg->checks_all))
		validate_object(fe, rq->res->st->type, obj, NULL);
	if (sg && sg->validate)
		sg->validate(rq, obj, fe);
}

/* What is stored, as it will be read: upstream gives defaults then, also to what admission and strategies made since the body was read. */
static void canonicalize(struct request *rq, void *obj)
{
	const struct strategy *sg = rq->res->st->strategy;

	if (sg && sg->canonicalize)
		sg->canonicalize(rq, obj);
	if (!rq->res->crd)
		object_default(rq->a, rq->res->st->type, obj);
}

static void meta_without_generate_name(struct field_errors *fe, const struct storage *st, const struct meta_v1_object_meta *m)
{
	struct meta_v1_object_meta named = *m;

	named.generate_name = STR_NULL;
	validate_object_meta(fe, &named, st->namespaced, st->strategy->name_check, FIELD_ROOT("metadata"), true);
}

static struct error *validate_create(struct request *rq, void *obj)
{
	struct storage *st = rq->res->st;
	const struct strategy *sg = st->strategy;
	struct field_errors fe = {.arena = rq->a, .once = !rq->res->crd && !(sg && sg->checks_all)};
	const struct meta_v1_object_meta *m = meta_of(st, obj);
	const char *order = sg && sg->meta_create ? sg->meta_create : rq->res->crd ? "m*" : "M*";

	for (; *order; order++) {
		switch (*order) {
		case 'N':
			meta_without_generate_name(&fe, st, m);
			break;
		case 'M':
		case 'm':
			validate_object_meta(&fe, m, st->namespaced, sg ? sg->name_check : NULL, FIELD_ROOT("metadata"), *order == 'M');
			break;
		default:
			create_rules(rq, obj, &fe);
		}
	}
	TRY(field_errors_status(&fe, kind_group(rq->res), rq->res->api->kind, m->name));
	validate_object_meta(&fe, m, st->namespaced, validate_any_name, FIELD_ROOT("metadata"), false);
	TRY(field_errors_status(&fe, kind_group(rq->res), rq->res->api->kind, m->name));
	if (sg && sg->warn)
		sg->warn(rq, obj, NULL);
	canonicalize(rq, obj);
	return NULL;
}

static struct error *create_once(struct request *rq, void *obj, struct str ns, bool generated, bool *taken, struct write_result *out)
{
	struct storage *st = rq->res->st;
	const struct strategy *sg = st->strategy;
	struct meta_v1_object_meta *m = meta_of(st, obj);
	struct admission ad;
	struct stored stored stored_cleanup = {0};
	struct cache_entry *entry = NULL;
	void *state = NULL;
	struct error *e;
	bool ok = false;
	int64_t lease = 0;
	uint64_t version;

	*taken = false;
	m->creation_timestamp = time_now();
	{
		char uid[37];

		random_uuid(uid);
		m->uid = arena_str(rq->a, str_from(uid));
	}
	if (generated)
		m->name = sg && sg->name_as_generate_name ? m->generate_name : generated_name(rq->a, m->generate_name);
	if (!rq->res->crd && !(sg && (sg->keep_status_on_create || sg->no_status_split)))
		object_field_zero(st->type, obj, "status");
	if (sg && sg->generation && !sg->generation_from_zero)
		m->generation = 1;
	if (rq->res->crd)
		custom_prepare_create(rq, obj);
	else
		drop_disabled_fields(st->type, obj, NULL);
	if (sg && sg->prepare_create)
		sg->prepare_create(rq, obj);
	if (sg && sg->begin_write)
		TRY(sg->begin_write(rq, obj, NULL, rq->dry_run, &state));
	e = validate_create(rq, obj);
	if (!e && !rq->internal && !str_eqz(rq->info.verb, "create"))
		e = authorize_create(rq); /* an update or apply of what is not there */
	ad = admission_of(rq, ADMIT_CREATE, NULL, ns, m->name, obj, NULL);
	if (!e)
		e = admission_validate(&ad);
	/* The store's word, after everybody else's; a dry run never gets here. Text that is no version is as none. */
	if (!e && !rq->dry_run && str_eqz(rq->info.verb, "create") && str_to_u64(m->resource_version, &version) && version)
		e = error_status(500, "", "resourceVersion should not be set on objects to be created");
	if (!e) {
		stored.without = sg && !rq->dry_run ? sg->filled : NULL;
		e = stored_encode(rq, obj, &stored);
	}
	if (!e && rq->dry_run) {
		e = cache_get(st->cache, st->namespaced ? ns : STR_NULL, m->name, CACHE_CONSISTENT, 0, &entry);
		if (!e && entry)
			e = registry_readable(st, entry);
		if (e && e->status == 500) {
			error_clear(&e); /* what cannot be read is not there for a dry run, as upstream's */
		} else if (!e && entry) {
			*taken = true;
			e = err_already_exists(rq->res->api->group, rq->res->api->plural, m->name);
		}
		cache_entry_unref(entry);
		entry = NULL;
		ok = !e;
	} else if (!e) {
		if (st->ttl_ms > 0)
			e = event_lease(st, &lease);
		if (!e)
			e = stored_put(rq, obj, &stored,
				       (struct stored_put){.ns = st->namespaced ? ns : STR_NULL, .name = m->name, .lease = lease,
							   .flags = rq->nosync ? CACHE_NOSYNC : 0, .applied = rq->applied},
				       &ok, &entry);
		if (!e && !ok) {
			const struct cache_entry *now = entry;
			struct meta_v1_partial_object_metadata there = {0};
			bool deleting = false;

			if (now) {
				log_and_free(cache_entry_decode(rq->a, &meta_v1_partial_object_metadata_type, now, false, &there), "cache");
				deleting = there.metadata.deletion_timestamp != NULL;
			}

			*taken = true;
			e = err_already_exists(rq->res->api->group, rq->res->api->plural, m->name);
			if (deleting) {
				struct error *w = error_status(409, "AlreadyExists", "object is being deleted: %s", error_message(e));

				error_set_details(w, rq->res->api->group, rq->res->api->plural, m->name);
				error_free(e);
				e = w;
			}
			cache_entry_unref(entry);
			entry = NULL;
		}
	}
	if (sg && sg->end_write)
		sg->end_write(rq, obj, NULL, state, ok && !e);
	if (e)
		return e;
	if (entry)
		m->resource_version = rv_text(rq->a, entry->rev);
	if (rq->dry_run)
		TRY(stored_read(rq, &stored, &obj));
	out->obj = obj;
	out->created = true;
	out->entry = entry;
	return NULL;
}

/* What admission made of the namespace: it is the request's, given or not. */
static struct error *settle_namespace(struct meta_v1_object_meta *m, struct str ns)
{
	if (ns.n && m->namespace.n && !str_eq(m->namespace, ns))
		return err_bad_request(
			"the namespace of the provided object does not match the namespace sent on the request");
	m->namespace = ns;
	return NULL;
}

struct error *registry_create(struct request *rq, void *obj, struct write_result *out)
{
	struct storage *st = rq->res->st;
	struct meta_v1_object_meta *m = meta_of(st, obj);
	struct str ns = st->namespaced ? rq->ns : STR_NULL;
	bool generated, taken = false;
	struct admission ad;
	struct error *e = NULL;

	memset(out, 0, sizeof *out);
	if (!st->namespaced)
		m->namespace = STR_NULL;
	else if (!m->namespace.n)
		m->namespace = ns;
	if (rq->internal || str_eqz(rq->info.verb, "create")) { /* an update of what is not there keeps them */
		m->deletion_timestamp = NULL;
		m->deletion_grace_period_seconds = NULL;
		m->self_link = STR_NULL;
	}
	if (!m->name.n && !m->generate_name.n && rq->applied)
		return err_bad_request("name must be provided");
	generated = !m->name.n && m->generate_name.n;
	if (!rq->applied)
		admission_dedup_owners(rq, m, false);
	if (rq->res->crd && crd_terminating(rq->res) && !rq->internal)
		return error_status(405, "MethodNotAllowed", "create not allowed while custom resource definition is terminating");
	if (rq->res->crd)
		TRY(rq->applied ? custom_default(rq->a, rq->res, obj) : custom_default_and_prune(rq, obj));
	if (!rq->applied)
		TRY(manage_fields(rq, NULL, NULL, obj));
	ad = admission_of(rq, ADMIT_CREATE, NULL, ns, m->name, obj, NULL);
	TRY(admission_admit_object(&ad));
	TRY(settle_namespace(m, ns));
	if (st->strategy && st->strategy->permit)
		TRY(st->strategy->permit(rq, obj, NULL, false));
	for (int i = 0; i < GENERATE_RETRIES; i++) {
		e = create_once(rq, obj, ns, generated, &taken, out);
		if (!e || !generated || !taken)
			break;
		if (i + 1 < GENERATE_RETRIES)
			error_clear(&e);
	}
	if (e && taken && m->generate_name.n) {
		error_free(e);
		e = error_status(409, "AlreadyExists", "%.*s \"%.*s\" already exists, the server was not able to generate a unique name for the object",
				 STR_ARG(rq->res->api->plural), STR_ARG(m->name));
		error_set_details(e, rq->res->api->group, rq->res->api->plural, m->name);
		e->retry_after_seconds = 1;
	}
	return e;
}

/* ---- update ---- */

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

static struct error *check_preconditions(struct request *rq, const struct meta_v1_object_meta *om, struct str what, struct str name,
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
static struct error *as_stored(struct request *rq, void *obj, int64_t rev, struct stored *s, bool *same)
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
		void *old, *obj = NULL, *state = NULL;
		struct meta_v1_object_meta *m, *om;
		struct stored stored stored_cleanup = {0};
		struct admission ad;
		struct error *e;
		int64_t rev;
		bool ok = false, unconditional, deleting, stale;

		/*
		 * Upstream tries until it succeeds. Of many writers of one object each round lets one through; in turn, none of them waits for
		 * long. Not within other requests, which may hold a lock already.
		 */
		if (attempt && !*held && !rq->internal) {
			struct fiber_mutex *lock = &rq->s->contended[(str_hash(ns) ^ str_hash(name)) % CONTENDED];

			TRY(fiber_mutex_lock(lock));
			*held = lock;
		}
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
		rev = entry->rev;
		error_free(*unread);
		*unread = registry_readable(st, entry);
		stale = entry->was_filled || (st->encryption && encryption_stale(st->encryption, entry->sealed));
		cache_entry_unref(entry);
		TRY(e);
		om = meta_of(st, old);
		om->resource_version = rv_text(rq->a, rev);
		TRY(check_preconditions(rq, om, res->api->plural, name, u->uid, u->rv));
		TRY(u->make(u->ctx, rq, old, &obj));
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
			TRY(manage_fields(rq, u->sub, old, obj));
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
			compare_field_times(rq, obj, old);
		}
		if (!e && !(u->flags & UPDATE_NO_ADMISSION))
			e = admission_validate(&ad);
		deleting = !e && should_delete(st, obj, old);
		if (!e && !deleting) {
			bool same = (!stale || *unread) && object_stored_equal(st->type, obj, old);

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

/* ---- delete ---- */

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

/*
 * Upstream asks the store for one object, where it may be encrypted in a way that the configuration has no key of any more; the cache
 * would still know it.
 */
struct error *registry_readable(const struct storage *st, const struct cache_entry *entry)
{
	if (!st->encryption || encryption_opens(st->encryption, entry->sealed))
		return NULL;
	return error_status(500, "InternalError", "Internal error occurred: it was encrypted with a key the encryption config does not have");
}

struct error *registry_delete(struct request *rq, struct str ns, struct str name, const struct meta_v1_delete_options *o,
			      struct write_result *out)
{
	struct resource *res = rq->res;
	struct storage *st = res->st;
	const struct strategy *sg = st->strategy;
	struct str cns = st->namespaced ? ns : STR_NULL;
	bool admitted = false;
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

		TRY(cache_get(st->cache, cns, name, CACHE_CONSISTENT, 0, &entry));
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
