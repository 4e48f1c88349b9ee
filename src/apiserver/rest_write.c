/* create, update, patch, delete and deletecollection as HTTP: bodies, options, answers. */
#include "apiserver/rest_write_internal.h"

#include "apiserver/admission.h"
#include "apiserver/audit.h"
#include "apiserver/custom.h"
#include "apiserver/list.h"
#include "schema/defaults.h"

#define BODY_MAX (3u << 20) /* upstream's MaxRequestBodyBytes */

/* ---- options ---- */

static void dry_run_validate(struct field_errors *fe, const struct str *v, uint32_t n)
{
	static const struct str all[] = {STR_INIT("All")};
	struct buf text buf_cleanup = {0};
	struct jv given = jv_array();
	bool known = true;

	for (uint32_t i = 0; i < n; i++) {
		known &= str_eqz(v[i], "All");
		jv_push(fe->arena, &given, jv_string(v[i]));
	}
	jv_encode(&text, &given);
	if (!known)
		field_not_supported_raw(fe, FIELD_ROOT("dryRun"), arena_str(fe->arena, buf_view(&text)), all, 1);
}

static struct error *write_options(struct request *rq, const char *kind, bool apply, struct write_options *o)
{
	struct field_errors fe = {.arena = rq->a};
	struct str fv = query_get(&rq->q, "fieldValidation"), fm = query_get(&rq->q, "fieldManager");
	struct strings dry = {0};
	static const struct str levels[] = {STR_INIT(""), STR_INIT("Ignore"), STR_INIT("Strict"), STR_INIT("Warn")};

	memset(o, 0, sizeof *o);
	if (apply && !fm.n)
		field_required(&fe, FIELD_ROOT("fieldManager"), "is required for apply patch");
	if (!apply && query_has(&rq->q, "force") && !strcmp(kind, "PatchOptions"))
		field_forbidden(&fe, FIELD_ROOT("force"), "may not be specified for non-apply patch");
	if (fm.n > 128)
		field_too_long(&fe, FIELD_ROOT("fieldManager"), 128);
	for (size_t i = 0; i < fm.n; i++)
		if ((unsigned char)fm.p[i] < 0x20 || fm.p[i] == 0x7f) {
			field_invalid(&fe, FIELD_ROOT("fieldManager"), fm, "invalid character U+%04X (at position %zu)", (unsigned char)fm.p[i], i);
			break;
		}
	query_all(rq->a, &rq->q, "dryRun", &dry);
	dry_run_validate(&fe, dry.v, dry.n);
	rq->dry_run = dry.n > 0;
	if (fv.n && !str_eqz(fv, "Ignore") && !str_eqz(fv, "Strict") && !str_eqz(fv, "Warn"))
		field_not_supported(&fe, FIELD_ROOT("fieldValidation"), fv, levels, 4);
	o->validation = str_eqz(fv, "Strict") ? VALIDATE_STRICT : str_eqz(fv, "Ignore") ? VALIDATE_IGNORE : VALIDATE_WARN;
	o->force = query_bool(&rq->q, "force");
	TRY(field_errors_status(&fe, STR("meta.k8s.io"), str_from(kind), STR("")));
	rq->manager = fm.n ? fm : field_manager_from_user_agent(rq->a, http_header_get(&rq->x->headers, "user-agent"));
	return NULL;
}

static struct str problems_text(struct arena *a, const struct decode_report *r)
{
	struct buf b buf_cleanup = {0};

	for (uint32_t i = 0; i < r->problems.n; i++) {
		if (i)
			buf_puts(&b, ", ");
		buf_str(&b, r->problems.v[i]);
	}
	return arena_str(a, buf_view(&b));
}

/* A problem, or those that YAML has line by line behind a heading. */
static void warn_lines(struct request *rq, struct str text)
{
	struct str rest = text;

	if (!str_has_prefix(text, STR("yaml: unmarshal errors:"))) {
		request_warn(rq, "%.*s", STR_ARG(text));
		return;
	}
	str_cut(&rest, '\n');
	while (rest.p) {
		struct str line = str_trim(str_cut(&rest, '\n'));

		request_warn(rq, "%.*s", STR_ARG(line));
	}
}

/* What the decoder found odd: an error, warnings or nothing. */
static struct error *judge(struct request *rq, const struct decode_report *r, const struct write_options *o)
{
	struct resource *res = rq->res;
	struct str text;

	if (!r->problems.n || o->validation == VALIDATE_IGNORE)
		return NULL;
	if (o->validation == VALIDATE_WARN) {
		for (uint32_t i = 0; i < r->problems.n; i++)
			warn_lines(rq, r->problems.v[i]);
		return NULL;
	}
	text = problems_text(rq->a, r);
	if (rq->info.verb.n && str_eqz(rq->info.verb, "patch")) {
		struct field_errors fe = {.arena = rq->a};

		field_invalid(&fe, FIELD_ROOT("patch"), str_sub(r->value, 0, 4096), "strict decoding error: %.*s", STR_ARG(text));
		return field_errors_status(&fe, STR_NULL, STR_NULL, STR_NULL);
	}
	return err_bad_request("%.*s in version \"%.*s\" cannot be handled as a %.*s: strict decoding error: %.*s", STR_ARG(res->api->kind),
			       STR_ARG(res->api->version), STR_ARG(res->api->kind), STR_ARG(text));
}

/* ---- bodies ---- */

/* Content-Type, body and options in the order in which upstream looks at them. */
static struct error *body_and_options(struct request *rq, const char *options, enum media_type *media, struct str *body,
				      struct write_options *o)
{
	struct str type = http_header_get(&rq->x->headers, "content-type");
	bool create = !strcmp(options, "CreateOptions");

	if (create)
		TRY(negotiate_body(rq->a, type, rq->s->o.cbor, media));
	TRY(request_body(rq, BODY_MAX, body));
	TRY(write_options(rq, options, false, o));
	return create ? NULL : negotiate_body(rq->a, type, rq->s->o.cbor, media);
}

/* An object without a type of its own is whatever it says it is: found wrong when it is validated. */
static struct error *wrong_kind(struct request *rq, struct str is, struct str want, struct str name)
{
	struct field_errors fe = {.arena = rq->a};

	field_invalid(&fe, FIELD_ROOT("kind"), is, "must be %.*s", STR_ARG(want));
	return field_errors_status(&fe, rq->res->api->group, is, name);
}

/* To upstream "/" is no version, and "/v1" that without a group. */
static bool same_version(struct str given, struct str want)
{
	struct str version = given.p[0] == '/' && str_rindex(given, '/') == 0 ? str_sub(given, 1, given.n) : given;

	return str_eqz(given, "/") || str_eq(version, want);
}

/* A body that does not say what it is, with its beginning, as runtime's summarizeData shows it. */
static struct error *unrecognized(struct request *rq, struct str kind, struct str body, const char *why)
{
	struct buf b buf_cleanup = {0};
	struct str shown = str_sub(body, 0, 30);

	for (size_t i = 0; i < shown.n; i++)
		if (body.p[0] == '{')
			buf_putc(&b, shown.p[i]);
		else
			buf_printf(&b, "%02x", (unsigned char)shown.p[i]);
	buf_puts(&b, !body.n ? "<empty>" : shown.n < body.n ? " ..." : "");
	return err_bad_request("the object provided is unrecognized (must be of type %.*s): %s (%s)", STR_ARG(kind), why, buf_z(&b));
}

/* Of kinds that upstream holds in one of its internal types, the type's package. */
static struct str internal_package(struct str group)
{
	struct str rest = group;

	return !group.n || str_eqz(group, "events.k8s.io") ? STR("core") : str_cut(&rest, '.');
}

/* A version of more than a group and a version, which upstream cannot read. */
static bool version_malformed(struct str v)
{
	return v.n && str_index(v, '/') != str_rindex(v, '/');
}

/* The body as a struct of type t with kind and apiVersion checked; not defaulted. *untyped: one of these was not in it.
 */
struct error *typed_body(struct request *rq, const char *options, const struct schema_type *t, struct str kind,
			 struct str api_version, void **out, bool *untyped)
{
	enum media_type media;
	struct str body, av = STR_NULL, k = STR_NULL;
	struct decode_report report = {.arena = rq->a};
	struct write_options o;
	struct str group, version;
	struct error *e;
	void *obj;

	TRY(body_and_options(rq, options, &media, &body, &o));
	e = object_peek(rq->a, media, body, !rq->res->crd, &av, &k);
	if (e) {
		struct error *w = unrecognized(rq, kind, body, error_message(e));

		error_free(e);
		return w;
	}
	if (rq->res->crd && t == rq->res->api->type && (!k.n || !av.n))
		return err_bad_request("Object '%s' is missing", !k.n ? "Kind" : "apiVersion");
	if (version_malformed(av))
		return unrecognized(rq, kind, body, arena_printf(rq->a, "unexpected GroupVersion string: %.*s", STR_ARG(av)).p);
	api_version_split(api_version, &group, &version);
	if (k.n && !str_eq(k, kind) && !(rq->res->crd && t == rq->res->api->type)) {
		struct str package = internal_package(group);

		if (av.n)
			api_version_split(av, &group, &version);
		return err_bad_request("%.*s in version \"%.*s\" cannot be handled as a %.*s: converting (%.*s.%.*s) to (%.*s.%.*s): unknown conversion",
				       STR_ARG(k), STR_ARG(version), STR_ARG(kind), STR_ARG(version), STR_ARG(k), STR_ARG(package), STR_ARG(kind));
	}
	if (av.n && !same_version(av, api_version) && /* evictions are taken in both of theirs */
	    !(t == &policy_v1_eviction_type && str_eqz(av, "policy/v1beta1")))
		return err_bad_request("the API version in the data (%.*s) does not match the expected API version (%.*s)", STR_ARG(av),
				       STR_ARG(api_version));
	obj = arena_alloc(rq->a, t->size);
	e = object_decode(rq->a, media, t, body, o.validation == VALIDATE_IGNORE ? NULL : &report, obj);
	if (!e && rq->res->crd && t == rq->res->api->type && (!k.n || str_eq(k, kind)))
		e = custom_prune(rq->a, rq->res, obj, &report);
	if (e) {
		struct error *w;

		if (e->status && e->status != 400)
			return e;
		w = err_bad_request("%.*s in version \"%.*s\" cannot be handled as a %.*s: %s", STR_ARG(kind), STR_ARG(version), STR_ARG(kind),
				    error_message(e));
		error_free(e);
		return w;
	}
	if (k.n && !str_eq(k, kind))
		return wrong_kind(rq, k, kind, object_meta(t, obj)->name);
	TRY(judge(rq, &report, &o));
	((struct str *)obj)[0] = kind;
	((struct str *)obj)[1] = api_version;
	audit_request_object(rq, t, obj);
	*untyped = !k.n || !av.n;
	*out = obj;
	return NULL;
}

struct error *rest_body(struct request *rq, const char *options, const struct schema_type *t, struct str kind,
			struct str api_version, void **out)
{
	bool untyped;

	return typed_body(rq, options, t, kind, api_version, out, &untyped);
}

/* Request version to storage version, defaulted. */
static void *to_storage(struct request *rq, void *obj)
{
	struct resource *res = rq->res;
	void *st;

	if (!res->crd)
		object_default(rq->a, res->api->type, obj);
	if (!res->to_storage) {
		if (res->st->strategy && res->st->strategy->normalize)
			res->st->strategy->normalize(rq->a, obj);
		return obj;
	}
	st = arena_alloc(rq->a, res->st->type->size);
	res->to_storage(rq->a, obj, st);
	return st;
}

struct error *check_body_name(struct request *rq, const struct meta_v1_object_meta *m, bool create)
{
	if (rq->res->st->namespaced && m->namespace.n && !str_eq(m->namespace, rq->info.ns))
		return err_bad_request("the namespace of the provided object does not match the namespace sent on the request");
	if (!create && !m->name.n)
		return err_bad_request("the name of the object (%.*s based on URL) was undeterminable: name must be provided", STR_ARG(rq->info.name));
	if (!create && !str_eq(m->name, rq->info.name))
		return err_bad_request("the name of the object (%.*s) does not match the name on the URL (%.*s)", STR_ARG(m->name),
				       STR_ARG(rq->info.name));
	return NULL;
}

static struct error *answer_write(struct request *rq, int status, struct write_result *r)
{
	struct error *e = NULL;
	bool done = false;

	if (r->entry)
		e = respond_entry(rq, status, rq->res, r->entry, &done);
	if (!e && !done && r->entry && rq->res->crd) {
		/* what came of it when it was stored */
		e = custom_read(rq->a, rq->res, r->entry, true, &r->obj);
	}
	if (!e && !done)
		e = respond_object(rq, status, rq->res, r->obj);
	cache_entry_unref(r->entry);
	r->entry = NULL;
	return e;
}

/* ---- create ---- */

struct error *rest_create(struct request *rq)
{
	struct write_result r;
	void *obj;

	if (rq->info.name.n && !rq->res->crd)
		return err_method();
	TRY(rest_body(rq, "CreateOptions", rq->res->api->type, rq->res->api->kind, rq->res->api_version, &obj));
	TRY(check_body_name(rq, object_meta(rq->res->api->type, obj), true));
	if (rq->res->st->namespaced && !rq->info.ns.n)
		return err_bad_request("an empty namespace may not be set during creation");
	obj = to_storage(rq, obj);
	TRY(registry_create(rq, obj, &r));
	return answer_write(rq, 201, &r);
}

/* ---- update ---- */

struct error *make_put(void *ctx, struct request *rq, const void *old, void **out)
{
	const struct schema_type *t = rq->res->st->type;

	(void)old;
	/* a copy: the registry changes it, and may ask again */
	*out = arena_alloc(rq->a, t->size);
	object_copy(rq->a, t, ctx, *out);
	return NULL;
}

static const char *sub_of(struct request *rq)
{
	return rq->info.subresource.n ? arena_strz(rq->a, rq->info.subresource) : NULL;
}

struct error *rest_update(struct request *rq)
{
	struct write_result r;
	void *obj;
	struct meta_v1_object_meta *m;
	struct update u = {.make = make_put, .sub = sub_of(rq)};

	TRY(rest_body(rq, "UpdateOptions", rq->res->api->type, rq->res->api->kind, rq->res->api_version, &obj));
	m = object_meta(rq->res->api->type, obj);
	TRY(check_body_name(rq, m, false));
	m->name = rq->info.name;
	if (rq->res->st->namespaced && !m->namespace.n)
		m->namespace = rq->info.ns;
	obj = to_storage(rq, obj);
	u.ctx = obj;
	u.uid = m->uid;
	TRY(registry_update(rq, rq->info.ns, rq->info.name, &u, &r));
	return answer_write(rq, r.created ? 201 : 200, &r);
}

/* ---- patch ---- */

/* What upstream's library says first, whichever way it fails. */
static const char *converting(const struct patch_ctx *p)
{
	return p->type == PATCH_APPLY ? "error converting YAML to JSON: " : "";
}

/* A configuration without a name takes it from what nobody else owns a field of, and is refused as one with another name. */
static struct error *check_applied(struct request *rq, bool there, const struct meta_v1_object_meta *m)
{
	if (!there && m->uid.n)
		return err_conflict(rq->res->api->group, rq->res->api->plural, rq->info.name,
				    arena_printf(rq->a, "uid mismatch: the provided object specified uid %.*s, and no existing object was found",
						 STR_ARG(m->uid)).p);
	return check_body_name(rq, m, false);
}

static struct error *apply_make(struct patch_ctx *p, struct request *rq, const void *old, void **out)
{
	struct resource *res = rq->res;
	const struct schema_type *t = res->st->type;
	struct managed_fields_request mr = {
		.shape = res->crd ? custom_shape(res) : shape_of_type(res->api->type),
		.api_version = res->api_version,
		.subresource = rq->info.subresource,
		.manager = rq->manager,
		.now = time_now(),
	};
	bool changed;
	void *live = (void *)(uintptr_t)old, *obj;

	managed_fields_reset_of(res->api, rq->info.subresource, &mr);
	managed_fields_versions(rq, &mr);
	if (res->crd) {
		struct jv l, merged;

		custom_reset_fields(res, rq->info.subresource.n ? sub_of(rq) : NULL, &mr);
		if (old) {
			jv_from_object(rq->a, t, old, &l);
			jv_set(rq->a, &l, STR("apiVersion"), jv_string(res->api_version));
		}
		TRY(managed_fields_apply(rq->a, &mr, old ? &l : NULL, &p->config, p->o.force, &merged, &changed));
		p->same = old && managed_fields_alone_differ(rq->a, &l, &merged);
		obj = arena_alloc(rq->a, t->size);
		TRY(jv_to_object(rq->a, t, &merged, NULL, obj));
		*out = obj;
		return NULL;
	}
	if (live && res->from_storage) {
		live = arena_alloc(rq->a, res->api->type->size);
		res->from_storage(rq->a, old, live);
	}
	obj = arena_alloc(rq->a, res->api->type->size);
	TRY(managed_fields_apply_object(rq->a, &mr, live, &p->config, p->o.force, obj, &changed));
	*out = to_storage(rq, obj);
	return NULL;
}

/*
 * Kind and version of a patched object. A strategic merge is made on the type, which cannot become another; the others make a document that
 * is decoded: without a version upstream decodes it into its own internal type, which knows none of its members but says so, and no name.
 */
static struct error *check_patched_kind(struct patch_ctx *p, struct request *rq, void *obj, const struct decode_report *report)
{
	struct resource *res = rq->res;
	struct str *kind = obj, *version = kind + 1;
	struct field_errors fe = {.arena = rq->a};
	struct decode_report unknown = {.arena = rq->a};
	struct jv tree, nothing;

	if (p->type == PATCH_STRATEGIC || (!kind->n && !res->crd))
		*kind = res->api->kind;
	if (p->type == PATCH_STRATEGIC)
		*version = res->api_version;
	if (!version->n && !res->crd && str_eq(*kind, res->api->kind)) {
		for (uint32_t i = 0; i < report->problems.n; i++)
			if (str_has_prefix(report->problems.v[i], STR("json patch ")))
				*arena_push(rq->a, &unknown.problems) = report->problems.v[i];
		jv_from_object(rq->a, res->api->type, obj, &tree);
		jv_from_object(rq->a, res->api->type, arena_alloc(rq->a, res->api->type->size), &nothing);
		for (uint32_t i = 0; i < tree.n; i++) { /* what nothing has, too, is the type's */
			const struct jv *none = jv_get(&nothing, tree.members[i].key);

			if (!str_eqz(tree.members[i].key, "kind") && !(none && jv_equal(none, &tree.members[i].value)))
				*arena_push(rq->a, &unknown.problems) = arena_printf(rq->a, "unknown field \"%.*s\"", STR_ARG(tree.members[i].key));
		}
		TRY(judge(rq, &unknown, &p->o));
		return err_bad_request("the name of the object (%.*s based on URL) was undeterminable: name must be provided", STR_ARG(rq->info.name));
	}
	if (str_eq(*kind, res->api->kind) && str_eq(*version, res->api_version))
		return NULL;
	field_invalid(&fe, FIELD_ROOT("patch"), STR(""), "%.*s, Kind=%.*s is not the object's type", STR_ARG(*version), STR_ARG(*kind));
	return field_errors_status(&fe, STR_NULL, STR_NULL, STR_NULL);
}

 
struct error *make_patch(void *ctx, struct request *rq, const void *old, void **out)
{
	struct patch_ctx *p = ctx;
	struct resource *res = rq->res;
	const struct schema_type *t = res->api->type;
	struct decode_report report = {.arena = rq->a};
	const void *from = old;
	void *obj = arena_alloc(rq->a, t->size);
	struct error *e;

	if (p->type == PATCH_APPLY || p->type == PATCH_APPLY_CBOR) {
		if (!p->parsed)
			TRY(parse_config(rq, p, res->api_version, res->api->kind));
		TRY(apply_make(p, rq, old, out));
		if (p->o.validation == VALIDATE_STRICT && p->duplicates.problems.n)
			return err_bad_request("error strict decoding YAML: %s%.*s", converting(p),
					       STR_ARG(problems_text(rq->a, &p->duplicates)));
		if (!p->reported)
			TRY(judge(rq, &p->duplicates, &p->o));
		p->reported = true;
		return check_applied(rq, old != NULL, object_meta(res->st->type, *out));
	}
	if (!old)
		return err_not_found(res->api->group, res->api->plural, rq->info.name);
	if (res->from_storage) {
		void *v = arena_alloc(rq->a, t->size);

		res->from_storage(rq->a, old, v);
		from = v;
	}
	((struct str *)(uintptr_t)from)[0] = res->api->kind;
	((struct str *)(uintptr_t)from)[1] = res->api_version;
	e = object_patch(rq->a, p->type, t, from, p->body, p->o.validation == VALIDATE_IGNORE ? NULL : &report, obj);
	if (!e && res->crd) {
		e = custom_prune(rq->a, res, obj, &report);
		if (e && !e->status) /* the patched object is none of its type */
			e = object_not_of_type(rq->a, e, STR(""));
	}
	TRY(e);
	TRY(check_patched_kind(p, rq, obj, &report));
	if (!p->reported)
		TRY(judge(rq, &report, &p->o));
	p->reported = true;
	if (!object_meta(t, obj)->name.n)
		return err_bad_request("name must be provided");
	TRY(check_body_name(rq, object_meta(t, obj), false));
	*out = to_storage(rq, obj);
	return NULL;
}

static bool router_consumes(struct str types, bool cbor)
{
	enum patch_type type;

	while (types.p) {
		struct str one = str_cut(&types, ',');

		if (patch_type_parse(str_trim(str_cut(&one, ';')), &type) && (type != PATCH_APPLY_CBOR || cbor))
			return true;
	}
	return false;
}

struct error *rest_patch_type(struct request *rq, enum patch_type *type)
{
	struct str rest = http_header_get(&rq->x->headers, "content-type"), all = rest, ct = str_trim(str_cut(&rest, ';'));
	struct error *e;

	if (patch_type_parse(ct, type) && !(rq->res->crd && *type == PATCH_STRATEGIC) && !(*type == PATCH_APPLY_CBOR && !rq->s->o.cbor))
		return NULL;
	e = error_status(415, "UnsupportedMediaType",
			 "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, "
			 "application/merge-patch+json, %sapplication/apply-patch+yaml%s",
			 rq->res->crd ? "" : "application/strategic-merge-patch+json, ", rq->s->o.cbor ? ", application/apply-patch+cbor" : "");
	/* of built-in resources it is the router that refuses, with details that say nothing; to it, one good type among several will do */
	if (!rq->res->crd && !router_consumes(all, rq->s->o.cbor))
		error_set_details(e, STR(""), STR(""), STR(""));
	return e;
}

struct error *patch_body(struct request *rq, enum patch_type *type, struct str *body, struct write_options *o)
{
	TRY(rest_patch_type(rq, type));
	TRY(request_body(rq, BODY_MAX, body));
	return write_options(rq, "PatchOptions", *type == PATCH_APPLY || *type == PATCH_APPLY_CBOR, o);
}

struct error *parse_config(struct request *rq, struct patch_ctx *p, struct str want, struct str want_kind)
{
	struct buf json buf_cleanup = {0};
	struct decode_report report = {.arena = rq->a};
	struct error *e;
	struct str av, kind;

	e = p->type == PATCH_APPLY_CBOR ? cbor_to_json(p->body, &report, &json) : yaml_to_json(p->body, &report, &json);
	if (e) {
		struct error *w = err_bad_request("error decoding YAML: %s%s", converting(p), error_message(e));

		error_free(e);
		return w;
	}
	e = jv_parse(rq->a, arena_str(rq->a, buf_view(&json)), &report, &p->config);
	if (e)
		return e;
	if (!jv_is(&p->config, JV_OBJECT))
		return err_bad_request("the apply patch must be an object");
	av = jv_str(jv_get(&p->config, STR("apiVersion")));
	kind = jv_str(jv_get(&p->config, STR("kind")));
	if (!av.n || !kind.n)
		return err_bad_request("apiVersion and kind must be set in an apply patch");
	if (!str_eq(av, want) || !str_eq(kind, want_kind))
		return err_bad_request("incorrect version specified in apply patch. Specified patch version: %.*s, Kind=%.*s, expected: %.*s, "
				       "Kind=%.*s", STR_ARG(av), STR_ARG(kind), STR_ARG(want), STR_ARG(want_kind));
	/* what the schema does not know is the merge's to refuse; what stands there twice is looked at behind it */
	p->duplicates = report;
	p->parsed = true;
	return NULL;
}

struct error *rest_patch(struct request *rq)
{
	struct patch_ctx p = {0};
	struct write_result r;
	struct update u = {.make = make_patch, .ctx = &p, .sub = sub_of(rq), .retry = true};
	bool apply;

	TRY(patch_body(rq, &p.type, &p.body, &p.o));
	apply = p.type == PATCH_APPLY || p.type == PATCH_APPLY_CBOR;
	if (apply) {
		u.apply = true;
		u.same = &p.same;
		u.flags |= UPDATE_UNCONDITIONAL;
		if (!u.sub)
			u.flags |= UPDATE_CREATE;
	}
	TRY(registry_update(rq, rq->info.ns, rq->info.name, &u, &r));
	return answer_write(rq, r.created ? 201 : 200, &r);
}

/* ---- delete ---- */

static struct error *delete_options_of_body(struct request *rq, struct str body, struct meta_v1_delete_options *o)
{
	enum media_type media;
	struct error *e;

	TRY(negotiate_body(rq->a, http_header_get(&rq->x->headers, "content-type"), rq->s->o.cbor, &media));
	e = object_decode(rq->a, media, &meta_v1_delete_options_type, body, NULL, o);
	if (e) {
		struct error *w = err_bad_request("decoding DeleteOptions: %s", error_message(e));

		error_free(e);
		return w;
	}
	if (o->kind.n && !str_eqz(o->kind, "DeleteOptions"))
		return err_bad_request("decoded object cannot be converted to DeleteOptions");
	return NULL;
}

static struct error *delete_options_of_query(struct request *rq, struct meta_v1_delete_options *o)
{
	struct str v = query_get(&rq->q, "propagationPolicy"), uid = query_get(&rq->q, "uid"), rv = query_get(&rq->q, "resourceVersion");
	struct strings dry = {0};
	struct error *e;
	int64_t n;

	if (query_int(&rq->q, "gracePeriodSeconds", &n, &e)) {
		o->grace_period_seconds = arena_new(rq->a, int64_t);
		*o->grace_period_seconds = n;
	}
	TRY(e);
	if (query_has(&rq->q, "orphanDependents")) {
		o->orphan_dependents = arena_new(rq->a, bool);
		*o->orphan_dependents = query_bool(&rq->q, "orphanDependents");
	}
	if (v.p) {
		o->propagation_policy = arena_new(rq->a, struct str);
		*o->propagation_policy = v;
	}
	query_all(rq->a, &rq->q, "dryRun", &dry);
	for (uint32_t i = 0; i < dry.n; i++)
		*arena_push(rq->a, &o->dry_run) = dry.v[i];
	if (!uid.n && !rv.n)
		return NULL;
	o->preconditions = arena_new(rq->a, struct meta_v1_preconditions);
	if (uid.n)
		*(o->preconditions->uid = arena_new(rq->a, struct str)) = uid;
	if (rv.n)
		*(o->preconditions->resource_version = arena_new(rq->a, struct str)) = rv;
	return NULL;
}

struct error *delete_options_validate(struct request *rq, const struct meta_v1_delete_options *o)
{
	struct field_errors fe = {.arena = rq->a};
	static const struct str policies[] = {STR_INIT("Background"), STR_INIT("Foreground"), STR_INIT("Orphan")};

	if (o->orphan_dependents && o->propagation_policy)
		field_invalid(&fe, FIELD_ROOT("propagationPolicy"), *o->propagation_policy,
			      "orphanDependents and deletionPropagation cannot be both set");
	if (o->propagation_policy) {
		bool known = false;

		for (size_t i = 0; i < 3; i++)
			known |= str_eq(*o->propagation_policy, policies[i]);
		if (!known)
			field_not_supported(&fe, FIELD_ROOT("propagationPolicy"), *o->propagation_policy, policies, 3);
	}
	dry_run_validate(&fe, o->dry_run.v, o->dry_run.n);
	return field_errors_status(&fe, STR("meta.k8s.io"), STR("DeleteOptions"), STR(""));
}

/* Of the body, else, without one, of the query. */
static struct error *delete_options(struct request *rq, struct meta_v1_delete_options *o)
{
	struct str body;

	memset(o, 0, sizeof *o);
	TRY(request_body(rq, BODY_MAX, &body));
	TRY(body.n ? delete_options_of_body(rq, body, o) : delete_options_of_query(rq, o));
	TRY(delete_options_validate(rq, o));
	rq->dry_run = o->dry_run.n > 0;
	return NULL;
}

static void warn_orphans(struct request *rq, const struct meta_v1_delete_options *o)
{
	const struct strategy *sg = rq->res->st->strategy;

	if (sg && sg->orphan_by_default && !o->propagation_policy && !o->orphan_dependents && str_eqz(rq->res->api->plural, "jobs"))
		request_warn(rq, "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set "
				 "propagationPolicy=Orphan to suppress this warning");
}

struct error *rest_delete(struct request *rq)
{
	struct meta_v1_delete_options o;
	struct write_result r;
	const struct strategy *sg = rq->res->st->strategy;
	int status = 200;

	TRY(delete_options(rq, &o));
	warn_orphans(rq, &o);
	TRY(registry_delete(rq, rq->info.ns, rq->info.name, &o, &r));
	/* upstream: 202 when dependents were asked for in the old way and the object still stands */
	if (!r.deleted && o.orphan_dependents && !*o.orphan_dependents)
		status = 202;
	if (!r.deleted || (sg && sg->return_deleted))
		return respond_object(rq, status, rq->res, r.obj);
	{
		struct meta_v1_object_meta *m = object_meta(rq->res->st->type, r.obj);

		return respond_success(rq, rq->res, m->name, m->uid);
	}
}

/* Upstream's workers do it while the list is walked; what is gone by then is no error. */
static struct error *delete_found(struct request *rq, const struct listing *l, const struct meta_v1_delete_options *o)
{
	for (uint32_t i = 0; i < l->found.n; i++) {
		struct write_result r = {0};
		struct str ns = arena_str(rq->a, cache_entry_ns(l->found.v[i])), name = arena_str(rq->a, cache_entry_name(l->found.v[i]));
		struct error *e = registry_delete(rq, ns, name, o, &r);

		cache_entry_unref(r.entry);
		if (e && !error_is(e, 404, NULL))
			return e;
		error_free(e);
	}
	return NULL;
}

struct error *rest_delete_collection(struct request *rq)
{
	struct meta_v1_delete_options o;
	struct list_options lo;
	struct listing l;
	struct error *e;

	TRY(list_options(rq, &lo));
	TRY(delete_options(rq, &o));
	warn_orphans(rq, &o);
	e = list_select(rq, &lo, &l);
	if (!e)
		e = delete_found(rq, &l, &o);
	if (!e)
		e = list_respond(rq, &l); /* as they were before */
	list_free(&l);
	return e;
}
