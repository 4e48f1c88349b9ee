/*
 * The generic registry, as upstream's generic Store: reading and creating any resource, and what all its writes share.
 * Updates are in registry_update.c, deletions in registry_delete.c.
 */
#include "apiserver/registry_internal.h"

#include "apiserver/authz.h"
#include "apiserver/custom.h"
#include "apiserver/encrypt.h"
#include "schema/defaults.h"
#include "schema/managed_fields.h"

#define GENERATE_RETRIES 8
#define GENERATE_BASE_MAX 58

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
struct error *decode_for(struct request *rq, const struct cache_entry *e, void **obj)
{
	return rq->res->crd ? custom_read(rq->a, rq->res, e, true, obj) : decode_entry(rq->a, rq->res->st, e, obj);
}

void show(struct request *rq, void *obj)
{
	const struct strategy *sg = rq->res->st->strategy;

	if (sg && sg->shown)
		sg->shown(rq->a, obj);
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

struct str rv_text(struct arena *a, int64_t rev)
{
	return arena_printf(a, "%lld", (long long)rev);
}

struct admission admission_of(struct request *rq, enum admission_op op, const char *sub, struct str ns, struct str name, void *obj,
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

struct error *manage_fields(struct request *rq, const char *sub, const void *live, void *obj)
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
struct str kind_group(const struct resource *res)
{
	return res->crd ? res->api->group : res->st->group;
}

void create_rules(struct request *rq, const void *obj, struct field_errors *fe)
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
void canonicalize(struct request *rq, void *obj)
{
	const struct strategy *sg = rq->res->st->strategy;

	if (sg && sg->canonicalize)
		sg->canonicalize(rq, obj);
	if (!rq->res->crd)
		object_default(rq->a, rq->res->st->type, obj);
}

void meta_without_generate_name(struct field_errors *fe, const struct storage *st, const struct meta_v1_object_meta *m)
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
	bool ok = false, bare;
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
	bare = sg && sg->unfill && sg->shown(rq->a, obj);
	if (bare)
		sg->unfill(obj); /* it comes with the defaults, behind validation */
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
		stored.bare = bare && !rq->dry_run;
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
	show(rq, obj);
	out->obj = obj;
	out->created = true;
	out->entry = entry;
	return NULL;
}

/* What admission made of the namespace: it is the request's, given or not. */
struct error *settle_namespace(struct meta_v1_object_meta *m, struct str ns)
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
