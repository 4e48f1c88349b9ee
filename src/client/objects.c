/* The verbs on objects: paths, queries, bodies. */
#include "client/internal.h"

static bool is_partial(const struct api_resource *r)
{
	return r->type == &meta_v1_partial_object_metadata_type;
}

struct str client_path(struct arena *a, const struct api_resource *r, struct str ns, struct str name, const char *sub)
{
	struct buf buf_cleanup b = {0};

	if (str_empty(r->group)) {
		buf_puts(&b, "/api/");
	} else {
		buf_puts(&b, "/apis/");
		buf_str(&b, r->group);
		buf_putc(&b, '/');
	}
	buf_str(&b, r->version);
	if (!str_empty(ns) && r->namespaced) {
		buf_puts(&b, "/namespaces/");
		buf_str(&b, http_escape(a, ns));
	}
	buf_putc(&b, '/');
	buf_str(&b, r->plural);
	if (!str_empty(name)) {
		buf_putc(&b, '/');
		buf_str(&b, http_escape(a, name));
	}
	if (sub && sub[0]) {
		buf_putc(&b, '/');
		buf_puts(&b, sub);
	}
	return arena_str(a, buf_view(&b));
}

void client_query_add(struct buf *b, const char *name, struct str value)
{
	arena_cleanup struct arena a = {0};

	buf_putc(b, b->n && memchr(b->p, '?', b->n) ? '&' : '?');
	buf_puts(b, name);
	buf_putc(b, '=');
	buf_str(b, http_escape(&a, value));
}

void client_list_query(struct buf *b, struct arena *a, const struct list_opts *o)
{
	if (!o)
		return;
	if (!str_empty(o->label_selector))
		client_query_add(b, "labelSelector", o->label_selector);
	if (!str_empty(o->field_selector))
		client_query_add(b, "fieldSelector", o->field_selector);
	if (!str_empty(o->resource_version))
		client_query_add(b, "resourceVersion", o->resource_version);
	if (o->limit > 0)
		client_query_add(b, "limit", arena_printf(a, "%lld", (long long)o->limit));
	if (!str_empty(o->continue_))
		client_query_add(b, "continue", o->continue_);
}

static struct error *decode(struct arena *a, const struct schema_type *t, struct str body, void **out)
{
	void *obj = arena_alloc(a, t->size);

	TRY(error_wrap(json_decode(a, t, body, NULL, obj), "answer of the API server (%s)", t->name));
	*out = obj;
	return NULL;
}

/* The object's JSON with kind and apiVersion of its resource, whatever the struct says. */
static struct str encode(struct arena *a, const struct schema_type *t, struct str group, struct str version, struct str kind,
			 const void *obj)
{
	struct buf b = {0};

	if (t->top && !str_empty(kind)) {
		/* kind and apiVersion are the first two members of every top type (schema.h). */
		char *copy = arena_alloc(a, t->size);
		struct str *meta = (struct str *)(void *)copy;

		memcpy(copy, obj, t->size);
		meta[0] = kind;
		meta[1] = str_empty(group) ? version : arena_printf(a, "%.*s/%.*s", STR_ARG(group), STR_ARG(version));
		obj = copy;
	}
	json_encode(&b, t, obj);
	struct str s = arena_str(a, buf_view(&b));

	buf_free(&b);
	return s;
}

static struct str encode_resource(struct arena *a, const struct api_resource *r, const char *sub, const void *obj)
{
	(void)sub;
	return encode(a, r->type, r->group, r->version, r->kind, obj);
}

struct error *client_get(struct client *c, struct arena *a, const struct api_resource *r, struct str ns, struct str name, void **obj)
{
	struct str body;

	*obj = NULL;
	if (str_empty(name))
		return error_status(400, "BadRequest", "the name of a %.*s must not be empty", STR_ARG(r->kind));
	TRY(client_do(c, a, &(struct client_request){
		.method = "GET", .target = client_path(a, r, ns, name, NULL),
		.accept = is_partial(r) ? ACCEPT_PARTIAL : NULL}, &body));
	return decode(a, r->type, body, obj);
}

struct error *client_list(struct client *c, struct arena *a, const struct api_resource *r, struct str ns, const struct list_opts *o, void **list)
{
	struct buf buf_cleanup t = {0};
	struct str body;

	*list = NULL;
	buf_str(&t, client_path(a, r, ns, STR_NULL, NULL));
	client_list_query(&t, a, o);
	TRY(client_do(c, a, &(struct client_request){
		.method = "GET", .target = buf_view(&t), .accept = is_partial(r) ? ACCEPT_PARTIAL_LIST : NULL}, &body));
	return decode(a, r->list_type, body, list);
}

struct error *client_create(struct client *c, struct arena *a, const struct api_resource *r, struct str ns, const void *obj, void **out)
{
	struct str body;

	TRY(client_do(c, a, &(struct client_request){
		.method = "POST", .target = client_path(a, r, ns, STR_NULL, NULL), .content_type = ACCEPT_JSON,
		.body = encode_resource(a, r, NULL, obj)}, &body));
	return out ? decode(a, r->type, body, out) : NULL;
}

struct error *client_create_sub(struct client *c, struct arena *a, const struct api_resource *r, struct str ns, struct str name,
				const char *sub, const struct schema_type *body_type, const void *body,
				const struct schema_type *out_type, void **out)
{
	struct str answer, group = body_type->group;

	/* Binding, Scale and their like carry their own group; meta types (DeleteOptions) go by the version alone. */
	if (str_eqz(group, "meta.k8s.io"))
		group = STR_NULL;
	TRY(client_do(c, a, &(struct client_request){
		.method = "POST", .target = client_path(a, r, ns, name, sub), .content_type = ACCEPT_JSON,
		.body = encode(a, body_type, group, body_type->version, str_from(body_type->name), body),
		.no_retry = !strcmp(sub, "eviction")}, &answer));
	return out && out_type ? decode(a, out_type, answer, out) : NULL;
}

struct error *client_update(struct client *c, struct arena *a, const struct api_resource *r, struct str ns, const char *sub,
			    const void *obj, void **out)
{
	const struct meta_v1_object_meta *m = object_meta(r->type, (void *)(uintptr_t)obj);
	struct str body;

	TRY(client_do(c, a, &(struct client_request){
		.method = "PUT", .target = client_path(a, r, ns, m->name, sub), .content_type = ACCEPT_JSON,
		.body = encode_resource(a, r, sub, obj)}, &body));
	return out ? decode(a, r->type, body, out) : NULL;
}

struct error *client_patch(struct client *c, struct arena *a, const struct api_resource *r, struct str ns, struct str name,
			   const char *sub, enum patch_type type, struct str patch, const char *field_manager, bool force, void **out)
{
	static const char *const media[] = {
		[PATCH_JSON] = "application/json-patch+json",
		[PATCH_MERGE] = "application/merge-patch+json",
		[PATCH_STRATEGIC] = "application/strategic-merge-patch+json",
		[PATCH_APPLY] = "application/apply-patch+yaml",
		[PATCH_APPLY_CBOR] = "application/apply-patch+cbor",
	};
	struct buf buf_cleanup t = {0};
	struct str body;

	buf_str(&t, client_path(a, r, ns, name, sub));
	if (field_manager)
		client_query_add(&t, "fieldManager", str_from(field_manager));
	if (force)
		client_query_add(&t, "force", STR("true"));
	TRY(client_do(c, a, &(struct client_request){
		.method = "PATCH", .target = buf_view(&t), .content_type = media[type], .body = patch,
		.accept = is_partial(r) ? ACCEPT_PARTIAL : NULL}, &body));
	return out ? decode(a, r->type, body, out) : NULL;
}

static struct str delete_body(struct arena *a, const struct delete_opts *o)
{
	struct meta_v1_delete_options d = {.kind = STR("DeleteOptions"), .api_version = STR("v1")};
	struct meta_v1_preconditions p = {0};
	struct str propagation, uid, rv;
	int64_t grace;

	if (!o)
		return STR_NULL;
	if (o->grace_seconds >= 0) {
		grace = o->grace_seconds;
		d.grace_period_seconds = &grace;
	}
	if (o->propagation) {
		propagation = str_from(o->propagation);
		d.propagation_policy = &propagation;
	}
	if (!str_empty(o->uid)) {
		uid = o->uid;
		p.uid = &uid;
		d.preconditions = &p;
	}
	if (!str_empty(o->resource_version)) {
		rv = o->resource_version;
		p.resource_version = &rv;
		d.preconditions = &p;
	}
	return encode(a, &meta_v1_delete_options_type, STR_NULL, STR("v1"), STR_NULL, &d);
}

struct error *client_delete(struct client *c, struct arena *a, const struct api_resource *r, struct str ns, struct str name,
			    const struct delete_opts *o)
{
	if (str_empty(name)) /* the path without a name would delete the collection */
		return error_status(400, "BadRequest", "the name of a %.*s to delete must not be empty", STR_ARG(r->kind));
	return client_do(c, a, &(struct client_request){
		.method = "DELETE", .target = client_path(a, r, ns, name, NULL), .content_type = o ? ACCEPT_JSON : NULL,
		.body = delete_body(a, o)}, NULL);
}

struct error *client_delete_collection(struct client *c, struct arena *a, const struct api_resource *r, struct str ns,
				       const struct list_opts *o, const struct delete_opts *d)
{
	struct buf buf_cleanup t = {0};

	buf_str(&t, client_path(a, r, ns, STR_NULL, NULL));
	client_list_query(&t, a, o);
	return client_do(c, a, &(struct client_request){
		.method = "DELETE", .target = buf_view(&t), .content_type = d ? ACCEPT_JSON : NULL,
		.body = delete_body(a, d)}, NULL);
}
