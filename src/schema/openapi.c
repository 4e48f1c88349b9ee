/* Paths and operations of OpenAPI documents, and the documents as a whole. */
#include "schema/openapi.h"

#include <ctype.h>
#include <stdlib.h>

#include "schema/openapi_internal.h"

#define META "io.k8s.apimachinery.pkg.apis.meta.v1."

/* ---- parameters ---- */

struct param {
	const char *name, *in, *type;
	const char *doc; /* NULL: see param_docs */
};

#define Q(name, type) {name, "query", type, NULL}
static const struct param name_param = {"name", "path", "string", NULL}, namespace_param = {"namespace", "path", "string", NULL},
			  path_param = {"path", "path", "string", NULL}, pretty_param = Q("pretty", "string"),
			  version_param = Q("resourceVersion",
					    "string"); /* of GET; upstream says so of custom resources only */
static const struct param list_params[] = {
	Q("allowWatchBookmarks", "boolean"), Q("continue", "string"), Q("fieldSelector", "string"), Q("labelSelector", "string"),
	Q("limit", "integer"), Q("resourceVersion", "string"), Q("resourceVersionMatch", "string"),
	Q("sendInitialEvents", "boolean"), Q("shardSelector", "string"), Q("timeoutSeconds", "integer"), Q("watch", "boolean"),
};
static const struct param delete_params[] = {
	Q("dryRun", "string"), Q("gracePeriodSeconds", "integer"),
	Q("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean"), Q("orphanDependents", "boolean"),
	Q("propagationPolicy", "string"),
};
static const struct param collection_params[] = {
	Q("continue", "string"), Q("dryRun", "string"), Q("fieldSelector", "string"), Q("gracePeriodSeconds", "integer"),
	Q("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean"), Q("labelSelector", "string"), Q("limit", "integer"),
	Q("orphanDependents", "boolean"), Q("propagationPolicy", "string"), Q("resourceVersion", "string"),
	Q("resourceVersionMatch", "string"), Q("sendInitialEvents", "boolean"), Q("shardSelector", "string"),
	Q("timeoutSeconds", "integer"),
};
static const struct param write_params[] = {
	Q("dryRun", "string"), Q("fieldManager", "string"), Q("fieldValidation", "string"),
};
static const struct param patch_params[] = {
	Q("dryRun", "string"), Q("fieldManager", "string"), Q("fieldValidation", "string"), Q("force", "boolean"),
};
#undef Q

static const struct {
	const char *name, *doc;
} param_docs[] = {
	{"allowWatchBookmarks", "true: a watch may have events of type BOOKMARK, which tell the resourceVersion it has come to."},
	{"continue", "Token of the answer before, to go on with its list; the other parameters stay as they were."},
	{"dryRun", "All: the request goes through every stage, but nothing is stored. Any other value is an error."},
	{"fieldManager", "Name of who makes the change, at most 128 printable characters; from the User-Agent when not given. Server-side "
			 "apply needs it."},
	{"fieldSelector", "Restricts the list to objects with these values of fields. Default: all."},
	{"fieldValidation", "What becomes of unknown and duplicate fields: Ignore drops them, Warn (the default) drops them with a warning, "
			    "Strict refuses the request."},
	{"force", "Of server-side apply: true takes over fields that other managers own, instead of a conflict."},
	{"gracePeriodSeconds", "Seconds until the object goes; 0: at once. Default: that of its kind."},
	{"ignoreStoreReadErrorWithClusterBreakingPotential",
	 "true: deletes an object that cannot be read from the store, without a look at its finalizers. Can break the cluster."},
	{"labelSelector", "Restricts the list to objects with these labels. Default: all."},
	{"limit", "The most objects in the list of returned ones; when there are more, metadata.continue of the answer gets the next."},
	{"namespace", "Name of the namespace."},
	{"orphanDependents", "Deprecated for propagationPolicy. true: dependents stay, false: they go."},
	{"path", "The rest of the path, for what is behind the proxy."},
	{"pretty", "true: the answer is indented. Default: for browsers and curl, by the User-Agent."},
	{"propagationPolicy", "What becomes of dependents: Orphan, Background, or Foreground (before the object). Default: by finalizers "
			      "and kind."},
	{"resourceVersion", "Which state is read: unset the newest, 0 any, else one no older (see resourceVersionMatch)."},
	{"resourceVersionMatch", "How resourceVersion applies to a list: Exact or NotOlderThan. Only with resourceVersion set."},
	{"sendInitialEvents", "true: a watch begins with what there is, as ADDED, then a bookmark with the annotation "
			      "k8s.io/initial-events-end. Wants resourceVersionMatch=NotOlderThan and allowWatchBookmarks."},
	{"shardSelector", "Restricts the list to a range of hashes of metadata.uid or metadata.namespace. Needs the feature "
			  "ShardedListAndWatch."},
	{"timeoutSeconds", "Seconds after which a list or watch ends, whatever happens."},
	{"watch", "Watch for changes to the described resources: a stream of events of type ADDED, MODIFIED and DELETED from "
		  "resourceVersion on."},
};

/* ---- operations ---- */

enum body { BODY_NONE, BODY_OBJECT, BODY_OPTIONS, BODY_PATCH };
enum media { MEDIA_OBJECTS, MEDIA_LISTS, MEDIA_CUSTOM, MEDIA_ANY, MEDIA_LOG, MEDIA_JSON_ONLY, MEDIA_KEYS };
enum {
	CODE_200 = 1,
	CODE_201 = 2,
	CODE_202 = 4,
};

struct schema_ref { /* what is answered or sent: a type, a custom resource or its list, a name, or a plain string */
	const struct schema_type *type;
	const struct openapi_crd *crd;
	bool list;
	struct str name;
};

struct operation {
	const char *method; /* "get", ... */
	struct str id;
	const char *action; /* x-kubernetes-action, NULL: none */
	struct str doc;
	struct str group, version, kind, parent; /* parent: the kind that is named in the path */
	struct str tag_group, tag_version;
	struct param params[32];
	int n_params;
	enum body body;
	struct schema_ref object; /* of BODY_OBJECT */
	struct schema_ref answer;
	int codes;
	enum media media;
	bool consumes_nothing; /* v2 says not even what a body would be */
	bool custom;           /* of a custom resource */
};

#define OPERATIONS_MAX 8
struct path_item {
	struct str path;
	struct operation *ops[OPERATIONS_MAX];
	int n;
};

struct paths {
	LIST(struct path_item) list;
};

/* What the operations of one resource have in common. */
struct target {
	struct str group, version, plural, kind;
	bool namespaced;
	struct str base;      /* "/apis/apps/v1" */
	struct str id_group;  /* "AppsV1" */
	struct schema_ref object, list;
	bool custom;
};

/* What may stand in the name of an operation, each word with a capital letter: the first, too, or as it is. */
static struct str words(struct arena *a, struct str s, bool capital)
{
	buf_cleanup struct buf b = {0};

	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];

		if (isalpha(c) || c == '_' || (i && isdigit(c))) {
			buf_putc(&b, (char)(capital ? toupper(c) : c));
			capital = false;
		} else {
			capital = true;
		}
	}
	return arena_str(a, buf_view(&b));
}

/* "rbac.authorization.k8s.io" -> "RbacAuthorization" or, with tag, "rbacAuthorization"; "" -> "Core". */
static struct str group_words(struct arena *a, struct str group, bool tag)
{
	if (!group.n)
		group = STR("core");
	if (str_has_suffix(group, STR(".k8s.io")))
		group = str_sub(group, 0, group.n - 7);
	return words(a, group, !tag);
}

static struct operation *op_new(struct arena *a, struct path_item *item, const char *method)
{
	struct operation *o = arena_new(a, struct operation);

	o->method = method;
	o->codes = CODE_200;
	if (item->n < OPERATIONS_MAX)
		item->ops[item->n++] = o;
	return o;
}

static void add_params(struct operation *o, const struct param *p, size_t n)
{
	for (size_t i = 0; i < n && o->n_params < 32; i++)
		o->params[o->n_params++] = p[i];
}
#define ADD(o, list) add_params((o), (list), sizeof(list) / sizeof *(list))

static struct path_item *path_new(struct openapi_doc *d, struct paths *p, struct str path)
{
	struct path_item *item = arena_push(d->a, &p->list);

	item->path = path;
	return item;
}

/* Parameters every operation of a path takes. */
static void place_params(struct operation *o, const struct target *t, bool name, bool namespaced, bool pretty)
{
	if (name)
		add_params(o, &name_param, 1);
	if (namespaced)
		add_params(o, &namespace_param, 1);
	if (pretty)
		add_params(o, &pretty_param, 1);
}

static struct operation *operation(struct openapi_doc *d, struct path_item *item, const struct target *t, const char *method,
				   const char *verb, const char *action, const char *suffix, bool name, bool namespaced)
{
	static const struct {
		const char *action, *doc, *more;
	} docs[] = {
		{"get", "read the specified ", ""},
		{"put", "replace the specified ", ""},
		{"patch", "change a part of the specified ", ""},
		{"post", "create an object of kind ", ""},
		{"delete", "delete the specified ", ""},
		{"deletecollection", "delete the selected objects of kind ", ""},
		{"list", "list or watch objects of kind ", ""},
		{"watch", "watch the specified ", "; deprecated: use a list with watch=true and a fieldSelector"},
		{"watchlist", "watch objects of kind ", "; deprecated: use a list with watch=true"},
	};
	struct operation *o = op_new(d->a, item, method);

	o->id = arena_printf(d->a, "%s%.*s%.*s", verb, STR_ARG(t->id_group),
			     STR_ARG(words(d->a, arena_printf(d->a, "%s%.*s%s", namespaced ? "Namespaced" : "", STR_ARG(t->kind), suffix), true)));
	o->action = action;
	o->group = o->tag_group = t->group;
	o->version = o->tag_version = t->version;
	o->kind = o->parent = t->kind;
	o->answer = t->object;
	o->custom = t->custom;
	o->media = t->custom ? MEDIA_CUSTOM : MEDIA_OBJECTS;
	for (size_t i = 0; i < sizeof docs / sizeof *docs; i++)
		if (!strcmp(docs[i].action, action))
			o->doc = arena_printf(d->a, "%s%.*s%s", docs[i].doc, STR_ARG(t->kind), docs[i].more);
	place_params(o, t, name, namespaced, true);
	if (t->custom && !strcmp(action, "get"))
		add_params(o, &version_param, 1);
	return o;
}

static void list_operation(struct operation *o, struct schema_ref list)
{
	ADD(o, list_params);
	if (!o->custom)
		o->media = MEDIA_LISTS;
	o->answer = list;
}

static const struct schema_ref status_ref = {.type = &meta_v1_status_type};

/* The kinds that are answered when deleted, instead of a Status. */
static bool answers_object(const struct target *t)
{
	static const char *const plurals[] = {
		"pods", "services", "persistentvolumeclaims", "persistentvolumes", "serviceaccounts", "resourcequotas", "podtemplates",
		"csidrivers", "csinodes", "storageclasses", "volumeattachments", "volumeattributesclasses", "deviceclasses",
		"resourceclaims", "resourceclaimtemplates", "resourceslices",
	};

	for (size_t i = 0; !t->custom && i < sizeof plurals / sizeof *plurals; i++)
		if (str_eqz(t->plural, plurals[i]))
			return true;
	return false;
}

static void collection(struct openapi_doc *d, struct paths *p, const struct target *t, uint16_t verbs)
{
	struct operation *o;
	struct path_item *item = path_new(d, p, arena_printf(d->a, "%.*s/%s%.*s", STR_ARG(t->base),
							     t->namespaced ? "namespaces/{namespace}/" : "", STR_ARG(t->plural)));

	if (verbs & VERB_DELETECOLLECTION) {
		o = operation(d, item, t, "delete", "delete", "deletecollection", "", false, t->namespaced);
		o->id = arena_printf(d->a, "delete%.*sCollection%s%.*s", STR_ARG(t->id_group),
				     t->namespaced ? "Namespaced" : "", STR_ARG(words(d->a, t->kind, false)));
		o->answer = status_ref;
		if (t->custom) {
			ADD(o, list_params);
		} else {
			ADD(o, collection_params);
			o->body = BODY_OPTIONS;
		}
	}
	if (verbs & VERB_LIST)
		list_operation(operation(d, item, t, "get", "list", "list", "", false, t->namespaced), t->list);
	if (verbs & VERB_CREATE) {
		o = operation(d, item, t, "post", "create", "post", "", false, t->namespaced);
		ADD(o, write_params);
		o->body = BODY_OBJECT;
		o->object = t->object;
		o->codes = CODE_200 | CODE_201 | CODE_202;
	}
	if (!item->n)
		p->list.n--;
}

static void one_object(struct openapi_doc *d, struct paths *p, const struct target *t, uint16_t verbs)
{
	struct operation *o;
	struct path_item *item = path_new(d, p, arena_printf(d->a, "%.*s/%s%.*s/{name}", STR_ARG(t->base),
							     t->namespaced ? "namespaces/{namespace}/" : "", STR_ARG(t->plural)));

	if (verbs & VERB_DELETE) {
		o = operation(d, item, t, "delete", "delete", "delete", "", true, t->namespaced);
		ADD(o, delete_params);
		o->body = BODY_OPTIONS;
		o->answer = answers_object(t) ? t->object : status_ref;
		o->codes = CODE_200 | CODE_202;
	}
	if (verbs & VERB_GET)
		operation(d, item, t, "get", "read", "get", "", true, t->namespaced);
	if (verbs & VERB_PATCH) {
		o = operation(d, item, t, "patch", "patch", "patch", "", true, t->namespaced);
		ADD(o, patch_params);
		o->body = BODY_PATCH;
		o->codes = t->custom ? CODE_200 : CODE_200 | CODE_201;
	}
	if (verbs & VERB_UPDATE) {
		o = operation(d, item, t, "put", "replace", "put", "", true, t->namespaced);
		ADD(o, write_params);
		o->body = BODY_OBJECT;
		o->object = t->object;
		o->codes = CODE_200 | CODE_201;
	}
	if (!item->n)
		p->list.n--;
}

static void watch_path(struct openapi_doc *d, struct paths *p, const struct target *t, const char *format_path,
		       const char *action, const char *suffix, bool name, bool namespaced)
{
	struct path_item *item = path_new(d, p, arena_printf(d->a, "%.*s/watch/%s%.*s%s", STR_ARG(t->base), format_path,
							     STR_ARG(t->plural), name ? "/{name}" : ""));
	struct operation *o = operation(d, item, t, "get", "watch", action, suffix, name, namespaced);

	list_operation(o, (struct schema_ref){.type = &meta_v1_watch_event_type});
}

static void watches(struct openapi_doc *d, struct paths *p, const struct target *t)
{
	watch_path(d, p, t, t->namespaced ? "namespaces/{namespace}/" : "", "watchlist", "List", false, t->namespaced);
	watch_path(d, p, t, t->namespaced ? "namespaces/{namespace}/" : "", "watch", "", true, t->namespaced);
	if (t->namespaced)
		watch_path(d, p, t, "", "watchlist", "ListForAllNamespaces", false, false);
}

static void all_namespaces(struct openapi_doc *d, struct paths *p, const struct target *t)
{
	struct path_item *item = path_new(d, p, arena_printf(d->a, "%.*s/%.*s", STR_ARG(t->base), STR_ARG(t->plural)));

	list_operation(operation(d, item, t, "get", "list", "list", "ForAllNamespaces", false, false), t->list);
}

/* ---- subresources ---- */

static const char *param_type(const struct schema_field *f)
{
	return f->kind == FIELD_BOOL ? "boolean" : f->kind == FIELD_INT32 || f->kind == FIELD_INT64 ? "integer" : "string";
}

/* The members of an options type are query parameters. */
static void option_params(struct openapi_doc *d, struct operation *o, const struct schema_type *t)
{
	const char **docs = openapi_docs(d, t);

	for (uint16_t i = 0; i < t->n_fields && o->n_params < 32; i++) {
		const struct schema_field *f = &t->fields[i];

		if (f->flags & FIELD_TYPEMETA || f->kind == FIELD_TIME)
			continue;
		o->params[o->n_params++] = (struct param){f->name.p, "query", param_type(f), docs[i + 1]};
	}
}

static void connect(struct openapi_doc *d, struct paths *p, const struct target *t, const struct api_subresource *s,
		    const struct schema_type *options)
{
	static const char *const proxy[] = {"delete", "get", "head", "options", "patch", "post", "put"}, *const stream[] = {"get", "post"};
	bool is_proxy = str_eqz(s->name, "proxy");

	for (int with_path = 0; with_path <= is_proxy; with_path++) {
		struct path_item *item = path_new(
			d, p, arena_printf(d->a, "%.*s/%s%.*s/{name}/%.*s%s", STR_ARG(t->base),
					   t->namespaced ? "namespaces/{namespace}/" : "", STR_ARG(t->plural), STR_ARG(s->name),
					   with_path ? "/{path}" : ""));

		for (size_t i = 0; i < (is_proxy ? 7 : 2); i++) {
			const char *method = is_proxy ? proxy[i] : stream[i];
			struct operation *o = op_new(d->a, item, method);

			o->id = arena_printf(d->a, "connect%.*s%.*s%s%.*s%.*s%s", STR_ARG(t->id_group),
					     STR_ARG(words(d->a, str_from(method), true)), t->namespaced ? "Namespaced" : "", STR_ARG(t->kind),
					     STR_ARG(words(d->a, s->name, true)), with_path ? "WithPath" : "");
			o->action = "connect";
			o->doc = arena_printf(d->a, "connect %s requests to the %.*s of the specified %.*s", method, STR_ARG(s->name),
					      STR_ARG(t->kind));
			o->group = o->tag_group = t->group;
			o->version = o->tag_version = t->version;
			o->kind = s->kind;
			o->parent = t->kind;
			o->media = MEDIA_ANY;
			place_params(o, t, true, t->namespaced, false);
			if (with_path)
				add_params(o, &path_param, 1);
			option_params(d, o, options);
		}
	}
}

/* A subresource that says no kind of its own has its parent's. */
static void subresource(struct openapi_doc *d, struct paths *p, const struct target *t, const struct api_subresource *s,
			struct schema_ref object)
{
	struct str group = s->group.n || s->version.n ? s->group : t->group,
		   version = s->version.n ? s->version : t->version;
	const char *suffix = arena_strz(d->a, words(d->a, s->name, true));
	bool is_log = str_eqz(s->name, "log");
	struct path_item *item = path_new(d, p,
					  arena_printf(d->a, "%.*s/%s%.*s/{name}/%.*s", STR_ARG(t->base),
						       t->namespaced ? "namespaces/{namespace}/" : "",
						       STR_ARG(t->plural), STR_ARG(s->name)));
	static const struct {
		uint16_t verb;
		const char *method, *id, *action, *doc;
	} verbs[] = {{VERB_GET, "get", "read", "get", "read"}, {VERB_PATCH, "patch", "patch", "patch", "change a part of"},
		     {VERB_CREATE, "post", "create", "post", "create"}, {VERB_UPDATE, "put", "replace", "put", "replace"}};

	for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
		if (!(s->verbs & verbs[i].verb))
			continue;
		struct operation *o = operation(d, item, t, verbs[i].method, verbs[i].id, verbs[i].action, suffix, true, t->namespaced);

		o->doc = arena_printf(d->a, "%s the %.*s of the specified %.*s", verbs[i].doc, STR_ARG(s->name), STR_ARG(t->kind));
		o->group = group;
		o->version = version;
		if (s->kind.n)
			o->kind = s->kind;
		o->answer = object;
		if (is_log) {
			o->media = MEDIA_LOG;
			o->answer = (struct schema_ref){0};
			option_params(d, o, &core_v1_pod_log_options_type);
		}
		if (verbs[i].verb == VERB_PATCH) {
			ADD(o, patch_params);
			o->body = BODY_PATCH;
			o->codes = t->custom ? CODE_200 : CODE_200 | CODE_201;
		} else if (verbs[i].verb != VERB_GET) {
			ADD(o, write_params);
			o->body = BODY_OBJECT;
			o->object = object;
			o->codes = verbs[i].verb == VERB_CREATE ? CODE_200 | CODE_201 | CODE_202 : CODE_200 | CODE_201;
		}
	}
}

/* ---- resources ---- */

static void resource_paths(struct openapi_doc *d, struct paths *p, const struct api_resource *r)
{
	struct target t = {
		.group = r->group,
		.version = r->version,
		.plural = r->plural,
		.kind = r->kind,
		.namespaced = r->namespaced,
		.base = r->group.n ? arena_printf(d->a, "/apis/%.*s/%.*s", STR_ARG(r->group), STR_ARG(r->version))
				   : STR("/api/v1"),
		.id_group = arena_printf(d->a, "%.*s%.*s", STR_ARG(group_words(d->a, r->group, false)),
					 STR_ARG(words(d->a, r->version, true))),
		.object = {.type = r->type},
		.list = {.type = r->list_type},
	};

	collection(d, p, &t, r->verbs);
	one_object(d, p, &t, r->verbs);
	if (r->verbs & VERB_WATCH)
		watches(d, p, &t);
	if (r->namespaced && (r->verbs & VERB_LIST))
		all_namespaces(d, p, &t);
	/* Some are created in their namespace and, for all of them, without one. */
	for (uint8_t i = 0; i < r->n_subresources; i++) {
		const struct api_subresource *s = &r->subresources[i];
		const struct schema_type *type = schema_type_for_kind(s->group.n || s->version.n ? s->group : t.group,
								      s->version.n ? s->version : t.version, s->kind);

		if (type && str_has_suffix(s->kind, STR("Options")))
			connect(d, p, &t, s, type);
		else
			subresource(d, p, &t, s, (struct schema_ref){.type = type});
	}
}

static void crd_paths(struct openapi_doc *d, struct paths *p, const struct openapi_crd *c)
{
	static const uint16_t all = VERB_CREATE | VERB_DELETE | VERB_DELETECOLLECTION | VERB_GET | VERB_LIST |
				    VERB_PATCH | VERB_UPDATE,
			      own = VERB_GET | VERB_PATCH | VERB_UPDATE;
	struct target t = {
		.group = c->group,
		.version = c->version,
		.plural = c->plural,
		.kind = c->kind,
		.namespaced = c->namespaced,
		.base = arena_printf(d->a, "/apis/%.*s/%.*s", STR_ARG(c->group), STR_ARG(c->version)),
		.id_group = arena_printf(d->a, "%.*s%.*s", STR_ARG(group_words(d->a, c->group, false)),
					 STR_ARG(words(d->a, c->version, true))),
		.object = {.crd = c},
		.list = {.crd = c, .list = true},
		.custom = true,
	};

	collection(d, p, &t, all);
	one_object(d, p, &t, all);
	if (c->namespaced)
		all_namespaces(d, p, &t);
	if (c->has_status)
		subresource(d, p, &t, &(struct api_subresource){.name = STR("status"), .verbs = own}, t.object);
	if (c->has_scale)
		subresource(d, p, &t, &(struct api_subresource){.name = STR("scale"), .verbs = own},
			    (struct schema_ref){.type = &autoscaling_v1_scale_type});
}

static void version_path(struct openapi_doc *d, struct paths *p, struct str group, struct str version)
{
	struct path_item *item = path_new(
		d, p, group.n ? arena_printf(d->a, "/apis/%.*s/%.*s/", STR_ARG(group), STR_ARG(version)) : STR("/api/v1/"));
	struct operation *o = op_new(d->a, item, "get");

	o->id = arena_printf(d->a, "get%.*s%.*sAPIResources", STR_ARG(group_words(d->a, group, false)), STR_ARG(words(d->a, version, true)));
	o->doc = STR("list the resources of the version");
	o->answer = (struct schema_ref){.type = &meta_v1_api_resource_list_type};
	o->tag_group = group;
	o->tag_version = version;
}

/* ---- writing ---- */

static void write_ref(struct openapi_doc *d, struct schema_ref r)
{
	if (r.type)
		openapi_ref(d, r.type);
	else if (r.crd)
		openapi_ref_crd(d, r.crd, r.list);
	else if (r.name.n)
		openapi_ref_name(d, r.name);
	else
		buf_puts(d->b, "{\"type\":\"string\"}");
}

/* CBOR is served but not published, as upstream does not until the feature is on by default (KEP-4222). */
static const char *const media_types[][8] = {
	[MEDIA_OBJECTS] = {"application/json", "application/vnd.kubernetes.protobuf", "application/yaml"},
	[MEDIA_LISTS] = {"application/json", "application/json;stream=watch", "application/vnd.kubernetes.protobuf",
			 "application/vnd.kubernetes.protobuf;stream=watch", "application/yaml"},
	[MEDIA_CUSTOM] = {"application/json", "application/yaml"},
	[MEDIA_ANY] = {"*/*"},
	[MEDIA_JSON_ONLY] = {"application/json"},
	[MEDIA_KEYS] = {"application/jwk-set+json"},
	[MEDIA_LOG] = {"application/json", "application/vnd.kubernetes.protobuf", "application/yaml", "text/plain"},
};
static const char *const patch_media[] = {
	"application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json",
	"application/strategic-merge-patch+json",
};

/* v2 has them in the order in which upstream's serializers are registered, v3 in the alphabet's. */
static const char *const media_types_v2[][8] = {
	[MEDIA_OBJECTS] = {"application/json", "application/yaml", "application/vnd.kubernetes.protobuf"},
	[MEDIA_LISTS] = {"application/json", "application/yaml", "application/vnd.kubernetes.protobuf",
			 "application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"},
	[MEDIA_CUSTOM] = {"application/json", "application/yaml"},
	[MEDIA_ANY] = {"*/*"},
	[MEDIA_JSON_ONLY] = {"application/json"},
	[MEDIA_KEYS] = {"application/jwk-set+json"},
	[MEDIA_LOG] = {"text/plain", "application/json", "application/yaml", "application/vnd.kubernetes.protobuf"},
};

static void put_param(struct openapi_doc *d, struct buf *b, const struct operation *o, const struct param *p)
{
	bool path = strcmp(p->in, "path") == 0;
	const char *doc = p->doc;

	for (size_t i = 0; !doc && i < sizeof param_docs / sizeof *param_docs; i++)
		if (!strcmp(param_docs[i].name, p->name))
			doc = param_docs[i].doc;
	buf_printf(b, "{\"in\":\"%s\",\"name\":\"%s\"%s", p->in, p->name, path ? ",\"required\":true" : "");
	if (path && !strcmp(p->name, "name"))
		buf_printf(b, ",\"description\":\"name of the %.*s\"", STR_ARG(o->parent));
	else if (doc) {
		buf_puts(b, ",\"description\":");
		jv_encode_string(b, str_from(doc));
	}
	if (d->v3)
		buf_printf(b, ",\"schema\":{\"type\":\"%s\",\"uniqueItems\":true}}", p->type);
	else
		buf_printf(b, ",\"type\":\"%s\",\"uniqueItems\":true}", p->type);
}

/* v2: a parameter of many operations is written once, at the document's end, and named NAME or NAME-2, ... */
static void write_shared(struct openapi_doc *d, const char *name, struct str json)
{
	struct openapi_param *p = map_get(&d->param_names, json);

	if (!p) {
		int same = 1;

		for (uint32_t i = 0; i < d->params.n; i++)
			same += !strcmp(d->params.v[i]->name, name);
		p = arena_new(d->a, struct openapi_param);
		p->name = name;
		p->shown = same == 1 ? str_from(name) : arena_printf(d->a, "%s-%d", name, same);
		p->json = arena_str(d->a, json);
		map_set(&d->param_names, json, p);
		*arena_push(d->a, &d->params) = p;
	}
	buf_printf(d->b, "{\"$ref\":\"#/parameters/%.*s\"}", STR_ARG(p->shown));
}

/* Shared are those that upstream shares: kubectl before 1.27 looks for dryRun and fieldValidation at the operation. */
static void write_param(struct openapi_doc *d, const struct operation *o, const struct param *p)
{
	buf_cleanup struct buf json = {0};

	put_param(d, &json, o, p);
	if (d->v3 || !strcmp(p->name, "name") || !strcmp(p->name, "dryRun") || !strcmp(p->name, "fieldValidation"))
		buf_str(d->b, buf_view(&json));
	else
		write_shared(d, p->name, buf_view(&json));
}

static void write_parameters(struct openapi_doc *d)
{
	buf_puts(d->b, "\"parameters\":{");
	for (uint32_t i = 0; i < d->params.n; i++)
		buf_printf(d->b, "%s\"%.*s\":%.*s", i ? "," : "", STR_ARG(d->params.v[i]->shown), STR_ARG(d->params.v[i]->json));
	buf_putc(d->b, '}');
}

static int param_cmp(const void *x, const void *y)
{
	const struct param *a = x, *b = y;
	int c = strcmp(a->name, b->name);

	return c ? c : strcmp(a->in, b->in);
}

static bool has_param(const struct operation *o, const struct param *p)
{
	for (int i = 0; i < o->n_params; i++)
		if (!param_cmp(&o->params[i], p))
			return true;
	return false;
}

static bool common(const struct path_item *item, const struct param *p)
{
	for (int i = 0; i < item->n; i++)
		if (!has_param(item->ops[i], p))
			return false;
	return true;
}

/* v2: the body is a parameter. */
static void body_param(struct openapi_doc *d, const struct operation *o)
{
	buf_cleanup struct buf json = {0};
	struct buf *all = d->b;

	if (o->body == BODY_OBJECT)
		buf_puts(all, "{\"in\":\"body\",\"name\":\"body\",\"required\":true,\"schema\":");
	else
		buf_printf(&json, "{\"in\":\"body\",\"name\":\"body\"%s,\"schema\":", o->body == BODY_PATCH ? ",\"required\":true" : "");
	if (o->body == BODY_OBJECT) {
		write_ref(d, o->object);
		buf_putc(all, '}');
		return;
	}
	d->b = &json;
	if (o->body == BODY_OPTIONS)
		openapi_ref(d, &meta_v1_delete_options_type);
	else
		openapi_ref_name(d, STR(META "Patch"));
	d->b = all;
	buf_putc(&json, '}');
	write_shared(d, "body", buf_view(&json));
}

static void write_params_of(struct openapi_doc *d, const struct path_item *item, const struct operation *o)
{
	bool any = false;

	for (int i = 0; i < o->n_params; i++) {
		if (common(item, &o->params[i]))
			continue;
		buf_puts(d->b, any ? "," : ",\"parameters\":[");
		any = true;
		write_param(d, o, &o->params[i]);
	}
	if (!d->v3 && o->body) {
		buf_puts(d->b, any ? "," : ",\"parameters\":[");
		any = true;
		body_param(d, o);
	}
	if (any)
		buf_putc(d->b, ']');
}

static void request_body(struct openapi_doc *d, const struct operation *o)
{
	struct buf *b = d->b;

	if (!o->body)
		return;
	buf_puts(b, ",\"requestBody\":{\"content\":{");
	if (o->body == BODY_PATCH) {
		for (size_t i = 0; i < (o->custom ? 3 : 4); i++) {
			buf_printf(b, "%s\"%s\":{\"schema\":", i ? "," : "", patch_media[i]);
			openapi_ref_name(d, STR(META "Patch"));
			buf_putc(b, '}');
		}
	} else {
		const char *const *media = media_types[o->custom ? MEDIA_CUSTOM : MEDIA_ANY];

		for (int i = 0; media[i]; i++) {
			buf_printf(b, "%s\"%s\":{\"schema\":", i ? "," : "", media[i]);
			write_ref(d, o->body == BODY_OPTIONS ? (struct schema_ref){.type = &meta_v1_delete_options_type}
							     : o->object);
			buf_putc(b, '}');
		}
	}
	buf_puts(b, o->body == BODY_OPTIONS ? "}}" : "},\"required\":true}");
}

static void responses(struct openapi_doc *d, const struct operation *o)
{
	static const struct {
		int code;
		const char *text, *description;
	} codes[] = {{CODE_200, "200", "OK"}, {CODE_201, "201", "Created"}, {CODE_202, "202", "Accepted"}};
	struct buf *b = d->b;

	buf_puts(b, ",\"responses\":{");
	for (size_t i = 0; i < 3; i++) {
		if (!(o->codes & codes[i].code))
			continue;
		buf_printf(b, "\"%s\":{", codes[i].text);
		if (d->v3) {
			buf_puts(b, "\"content\":{");
			for (int m = 0; media_types[o->media][m]; m++) {
				buf_printf(b, "%s\"%s\":{\"schema\":", m ? "," : "", media_types[o->media][m]);
				write_ref(d, o->answer);
				buf_putc(b, '}');
			}
			buf_puts(b, "}");
		} else {
			buf_puts(b, "\"schema\":");
			write_ref(d, o->answer);
		}
		buf_printf(b, ",\"description\":\"%s\"},", codes[i].description);
	}
	buf_puts(b, "\"401\":{\"description\":\"Unauthorized\"}}");
}

static void media_list(struct buf *b, const char *const *list)
{
	buf_putc(b, '[');
	for (int i = 0; list[i]; i++)
		buf_printf(b, "%s\"%s\"", i ? "," : "", list[i]);
	buf_putc(b, ']');
}

static void write_operation(struct openapi_doc *d, const struct path_item *item, const struct operation *o)
{
	struct buf *b = d->b;

	buf_puts(b, "{\"operationId\":");
	jv_encode_string(b, o->id);
	buf_puts(b, ",\"description\":");
	jv_encode_string(b, o->doc);
	if (!d->v3) {
		if (!o->consumes_nothing)
			buf_puts(b, ",\"consumes\":");
		if (o->consumes_nothing) {
			/* not said */
		} else if (o->body == BODY_PATCH) {
			static const char *const all[] = {"application/json-patch+json", "application/merge-patch+json",
							  "application/strategic-merge-patch+json", "application/apply-patch+yaml", NULL};
			static const char *const custom[] = {"application/json-patch+json", "application/merge-patch+json",
							     "application/apply-patch+yaml", NULL};

			media_list(b, o->custom ? custom : all);
		} else if (!o->action || o->custom) {
			media_list(b, media_types_v2[o->media]);
		} else {
			buf_puts(b, "[\"*/*\"]");
		}
		buf_puts(b, ",\"produces\":");
		media_list(b, media_types_v2[o->media]);
		buf_puts(b, ",\"schemes\":[\"https\"]");
	}
	write_params_of(d, item, o);
	if (d->v3)
		request_body(d, o);
	responses(d, o);
	buf_puts(b, ",\"tags\":[");
	jv_encode_string(b, arena_printf(d->a, "%.*s%s%.*s", STR_ARG(group_words(d->a, o->tag_group, true)),
					 o->tag_version.n ? "_" : "", STR_ARG(words(d->a, o->tag_version, false))));
	buf_putc(b, ']');
	if (o->action) {
		buf_printf(b, ",\"x-kubernetes-action\":\"%s\",\"x-kubernetes-group-version-kind\":{\"group\":", o->action);
		jv_encode_string(b, o->group);
		buf_puts(b, ",\"kind\":");
		jv_encode_string(b, o->kind);
		buf_puts(b, ",\"version\":");
		jv_encode_string(b, o->version);
		buf_putc(b, '}');
	}
	buf_putc(b, '}');
}

static int path_cmp(const void *x, const void *y)
{
	return str_cmp(((const struct path_item *)x)->path, ((const struct path_item *)y)->path);
}

static void write_paths(struct openapi_doc *d, struct paths *p)
{
	struct buf *b = d->b;

	if (p->list.n)
		qsort(p->list.v, p->list.n, sizeof *p->list.v, path_cmp);
	buf_puts(b, "\"paths\":{");
	for (uint32_t i = 0; i < p->list.n; i++) {
		const struct path_item *item = &p->list.v[i];
		bool any = false;

		if (i)
			buf_putc(b, ',');
		jv_encode_string(b, item->path);
		buf_puts(b, ":{");
		for (int k = 0; k < item->n; k++) {
			struct operation *o = item->ops[k];

			qsort(o->params, (size_t)o->n_params, sizeof *o->params, param_cmp);
			buf_printf(b, "%s\"%s\":", k ? "," : "", o->method);
			write_operation(d, item, o);
		}
		/* What all operations take stands at the path. */
		for (int k = 0; item->n && k < item->ops[0]->n_params; k++) {
			if (!common(item, &item->ops[0]->params[k]))
				continue;
			buf_puts(b, any ? "," : ",\"parameters\":[");
			any = true;
			write_param(d, item->ops[0], &item->ops[0]->params[k]);
		}
		buf_puts(b, any ? "]}" : "}");
	}
	buf_putc(b, '}');
}

/* ---- documents ---- */

static void write_document(struct openapi_doc *d, struct paths *p)
{
	static const char security[] = "{\"BearerToken\":{\"type\":\"apiKey\",\"in\":\"header\",\"name\":\"authorization\","
				       "\"description\":\"A bearer token\"}}";

	buf_puts(d->b, d->v3 ? "{\"openapi\":\"3.0.0\"," : "{\"swagger\":\"2.0\",");
	buf_puts(d->b, d->custom ? "\"info\":{\"title\":\"Kubernetes CRD Swagger\",\"version\":\"v0.1.0\"},"
				 : "\"info\":{\"title\":\"Kubernetes\",\"version\":\"1.36\"},");
	write_paths(d, p);
	buf_putc(d->b, ',');
	openapi_definitions(d);
	if (d->custom)
		buf_puts(d->b, "}}");
	else if (d->v3)
		buf_printf(d->b, ",\"securitySchemes\":%s}}", security);
	else {
		buf_putc(d->b, ',');
		write_parameters(d);
		buf_printf(d->b, ",\"securityDefinitions\":%s,\"security\":[{\"BearerToken\":[]}]}", security);
	}
	map_free(&d->seen);
	map_free(&d->built_in);
	map_free(&d->param_names);
}

bool openapi_v3(struct buf *b, struct str group, struct str version, const struct openapi_served *s)
{
	arena_cleanup struct arena a = {0};
	struct openapi_doc d = {.a = &a, .b = b, .v3 = true, .group = group, .version = version};
	struct paths p = {0};

	for (size_t i = 0; i < s->n_resources; i++)
		if (str_eq(s->resources[i]->group, group) && str_eq(s->resources[i]->version, version))
			resource_paths(&d, &p, s->resources[i]);
	if (p.list.n)
		version_path(&d, &p, group, version);
	else
		d.custom = true;
	for (size_t i = 0; i < s->n_crds; i++)
		if (str_eq(s->crds[i].group, group) && str_eq(s->crds[i].version, version))
			crd_paths(&d, &p, &s->crds[i]);
	if (!p.list.n)
		return false;
	write_document(&d, &p);
	return true;
}

static void discovery_path(struct openapi_doc *d, struct paths *p, const char *path, const char *id, struct str group,
			   const struct schema_type *answer, struct str doc)
{
	struct operation *o = op_new(d->a, path_new(d, p, arena_str(d->a, str_from(path))), "get");

	o->id = arena_str(d->a, str_from(id));
	o->doc = doc;
	o->tag_group = group;
	o->answer = (struct schema_ref){.type = answer};
}

static bool known_group(const struct openapi_served *s, struct str group)
{
	for (size_t i = 0; i < s->n_resources; i++)
		if (str_eq(s->resources[i]->group, group))
			return true;
	return false;
}

/* /api/, /apis/, /apis/GROUP/ as paths of a document. */
static bool add_discovery(struct openapi_doc *d, struct paths *p, struct str path, const struct openapi_served *s)
{
	if (str_eqz(path, "api")) {
		discovery_path(d, p, "/api/", "getCoreAPIVersions", STR(""), &meta_v1_api_versions_type,
			       STR("list the versions of the core group"));
		return true;
	}
	if (str_eqz(path, "version")) {
		struct operation *o = op_new(d->a, path_new(d, p, STR("/version/")), "get");

		o->id = STR("getCodeVersion");
		o->doc = STR("tell the server's version");
		o->tag_group = STR("version");
		o->media = MEDIA_JSON_ONLY;
		o->answer = (struct schema_ref){.name = STR("io.k8s.apimachinery.pkg.version.Info")};
		return true;
	}
	if (str_eqz(path, ".well-known/openid-configuration") || str_eqz(path, "openid/v1/jwks")) {
		bool keys = path.p[0] != '.';
		struct operation *o = op_new(d->a, path_new(d, p, keys ? STR("/openid/v1/jwks/") : STR("/.well-known/openid-configuration/")),
					     "get");

		o->id = keys ? STR("getServiceAccountIssuerOpenIDKeyset") : STR("getServiceAccountIssuerOpenIDConfiguration");
		o->doc = keys ? STR("get the keys that the tokens of service accounts are signed with, as a JWK set")
			      : STR("get the OpenID Connect discovery document of the issuer of service account tokens");
		o->tag_group = keys ? STR("openid") : STR("WellKnown");
		o->media = keys ? MEDIA_KEYS : MEDIA_JSON_ONLY;
		o->consumes_nothing = true;
		return true;
	}
	if (str_eqz(path, "apis")) {
		discovery_path(d, p, "/apis/", "getAPIVersions", STR("apis"), &meta_v1_api_group_list_type, STR("list the API groups"));
		return true;
	}
	if (!str_has_prefix(path, STR("apis/")))
		return false;
	struct str group = str_sub(path, 5, path.n);

	if (!group.n || !known_group(s, group))
		return false;
	discovery_path(d, p, arena_strz(d->a, arena_printf(d->a, "/apis/%.*s/", STR_ARG(group))),
		       arena_strz(d->a, arena_printf(d->a, "get%.*sAPIGroup", STR_ARG(group_words(d->a, group, false)))), group,
		       &meta_v1_api_group_type, STR("tell the group's versions"));
	return true;
}

bool openapi_v3_discovery(struct buf *b, struct str path, const struct openapi_served *s)
{
	arena_cleanup struct arena a = {0};
	struct openapi_doc d = {.a = &a, .b = b, .v3 = true};
	struct paths p = {0};

	if (!add_discovery(&d, &p, path, s))
		return false;
	write_document(&d, &p);
	return true;
}

void openapi_v2(struct buf *b, const struct openapi_served *s)
{
	arena_cleanup struct arena a = {0};
	struct openapi_doc d = {.a = &a, .b = b, .all = true};
	struct paths p = {0};
	struct str group = {0}, version = {0};

	add_discovery(&d, &p, STR("api"), s);
	add_discovery(&d, &p, STR("apis"), s);
	add_discovery(&d, &p, STR("version"), s);
	add_discovery(&d, &p, STR(".well-known/openid-configuration"), s);
	add_discovery(&d, &p, STR("openid/v1/jwks"), s);
	for (size_t i = 0; i < s->n_resources; i++) {
		const struct api_resource *r = s->resources[i];

		if (r->group.n && !str_eq(r->group, group))
			add_discovery(&d, &p, arena_printf(&a, "apis/%.*s", STR_ARG(r->group)), s);
		if (!version.n || !str_eq(r->group, group) || !str_eq(r->version, version))
			version_path(&d, &p, r->group, r->version);
		group = r->group;
		version = r->version;
		resource_paths(&d, &p, r);
	}
	for (size_t i = 0; i < s->n_crds; i++)
		crd_paths(&d, &p, &s->crds[i]);
	write_document(&d, &p);
}
