/* Applies: the merge, what the applier no longer wants, conflicts with other managers, kubectl's annotation. */
#include "schema/managed_fields_internal.h"

#include <stdlib.h>

#include "schema/defaults.h"

#define LAST_APPLIED "kubectl.kubernetes.io/last-applied-configuration"
#define ANNOTATIONS_MAX (256u << 10)

/* ---- conflicts as an error ---- */

static void print_manager(struct buf *b, const struct manager *m)
{
	jv_encode_string(b, m->name);
	if (m->subresource.n) {
		buf_puts(b, " with subresource ");
		jv_encode_string(b, m->subresource);
	}
	if (!m->applied) {
		buf_puts(b, " using ");
		buf_str(b, m->api_version);
	}
}

struct paths {
	struct arena *a;
	struct strings list;
};

static void collect(void *ctx, struct str path)
{
	struct paths *p = ctx;

	*arena_push(p->a, &p->list) = path;
}

static int by_manager(const void *x, const void *y)
{
	const struct manager *a = &((const struct conflict *)x)->manager, *b = &((const struct conflict *)y)->manager;
	int c = str_cmp(a->name, b->name);

	return c ? c : manager_order(a, b);
}

static struct error *conflict_error(struct arena *a, struct conflicts *c)
{
	buf_cleanup struct buf text = {0};
	struct error *e;
	size_t total = 0;
	struct paths *paths = arena_array(a, struct paths, c->n);

	qsort(c->v, c->n, sizeof *c->v, by_manager);
	for (uint32_t i = 0; i < c->n; i++) {
		paths[i].a = a;
		field_set_each(a, c->v[i].set, collect, &paths[i]);
		total += paths[i].list.n;
	}
	if (total == 1) {
		buf_puts(&text, "conflict with ");
		print_manager(&text, &c->v[0].manager);
		buf_puts(&text, ": ");
		buf_str(&text, paths[0].list.v[0]);
	}
	for (uint32_t i = 0; i < c->n && total != 1; i++) {
		buf_puts(&text, i ? "\nconflicts with " : "conflicts with ");
		print_manager(&text, &c->v[i].manager);
		buf_putc(&text, ':');
		for (uint32_t k = 0; k < paths[i].list.n; k++) {
			buf_puts(&text, "\n- ");
			buf_str(&text, paths[i].list.v[k]);
		}
	}
	e = error_status(409, "Conflict", "Apply failed with %zu conflict%s: %s", total, total == 1 ? "" : "s", buf_z(&text));
	for (uint32_t i = 0; i < c->n; i++) {
		buf_cleanup struct buf who = {0};

		print_manager(&who, &c->v[i].manager);
		for (uint32_t k = 0; k < paths[i].list.n; k++)
			error_add_cause(e, "FieldManagerConflict", arena_strz(a, paths[i].list.v[k]), "conflict with %s", buf_z(&who));
	}
	return e;
}

/* ---- apply ---- */

static struct str object_name(struct arena *a, const struct jv *obj)
{
	struct str ns = jv_str(jv_at(obj, "metadata", "namespace", NULL)), name = jv_str(jv_at(obj, "metadata", "name", NULL));
	struct str version = jv_str(jv_get(obj, STR("apiVersion"))), kind = jv_str(jv_get(obj, STR("kind")));

	return arena_printf(a, "%.*s/%.*s; %s%.*s, Kind=%.*s", STR_ARG(ns), STR_ARG(name), str_index(version, '/') < 0 ? "/" : "", STR_ARG(version),
			    STR_ARG(kind));
}

/* Puts back what any manager still owns at one version. */
static struct error *add_back_owned(struct work *w, struct jv *merged, struct jv *pruned, struct str version,
				    const struct field_set *owned)
{
	struct jv m, p;
	struct shape shape;
	bool gone;

	TRY(work_at_version(w, merged, version, &m, &shape, &gone));
	if (gone)
		return NULL;
	TRY(work_at_version(w, pruned, version, &p, &shape, &gone));
	const struct field_set *all = typed_named_fields(w->a, shape, typed_set(w->a, shape, &m));
	const struct field_set *keep = field_set_union(w->a, typed_named_fields(w->a, shape, typed_set(w->a, shape, &p)),
						       typed_named_fields(w->a, shape, owned));

	*merged = m;
	*pruned = typed_remove(w->a, shape, &m, field_set_difference(w->a, all, keep));
	return NULL;
}

/* Removes what this applier applied last time, does not now, and nobody else owns. */
static struct error *prune(struct work *w, struct jv *merged, const struct managers *m, const struct manager *last)
{
	struct shape shape;
	struct jv at, all, pruned;
	bool gone;

	if (!last || field_set_empty(last->set))
		return NULL;
	TRY(work_at_version(w, merged, last->api_version, &at, &shape, &gone));
	if (gone)
		return NULL;
	const struct field_set *named = typed_named_fields(w->a, shape, last->set);

	all = at;
	pruned = typed_remove(w->a, shape, &at, named);
	/* The version that was pruned first, then the others. */
	for (int others = 0; others < 2; others++) {
		for (uint32_t i = 0; i < m->n; i++) {
			const struct field_set *owned = NULL;
			bool first = true;

			if (str_eq(m->v[i].api_version, last->api_version) == (others != 0))
				continue;
			for (uint32_t k = 0; k < m->n; k++) {
				if (!str_eq(m->v[k].api_version, m->v[i].api_version))
					continue;
				first = first && k >= i;
				owned = field_set_union(w->a, owned, m->v[k].set);
			}
			if (first)
				TRY(add_back_owned(w, &all, &pruned, m->v[i].api_version, owned));
		}
	}
	/* Only what this applier had may go. */
	struct jv p;

	TRY(work_at_version(w, &pruned, last->api_version, &p, &shape, &gone));
	const struct field_set *before = typed_named_fields(w->a, shape, typed_set(w->a, shape, &at));
	const struct field_set *after = typed_named_fields(w->a, shape, typed_set(w->a, shape, &p));
	const struct field_set *removed = field_set_intersection(w->a, field_set_difference(w->a, before, after), named);
	struct jv out = typed_remove(w->a, shape, &at, removed);

	return work_at_version(w, &out, w->req->api_version, merged, &shape, &gone);
}

static struct error *apply_once(struct work *w, const struct jv *live, const struct jv *config, struct managers *m,
				bool force, struct jv *out, struct conflicts *conflicts)
{
	struct manager self = {
		.name = request_manager(w->req),
		.api_version = w->req->api_version,
		.subresource = w->req->subresource,
		.applied = true,
	};
	TRY(work_reconcile(w, live, m));
	struct manager *mine = managers_find(m, &self), last = {0};
	bool had = mine != NULL;
	struct comparison c;

	*out = typed_merge(w->a, w->req->shape, live, config);
	if (had) {
		last = *mine;
	} else {
		mine = arena_push(w->a, m);
		*mine = self;
	}
	mine->api_version = w->req->api_version;
	mine->set = work_filter(w, typed_set(w->a, w->req->shape, config));
	TRY(prune(w, out, m, had ? &last : NULL));
	TRY(take_ownership(w, live, out, m, &self, force, &c, conflicts));
	if (conflicts->n)
		return NULL;
	managers_remove_empty(m);
	mine = managers_find(m, &self);
	if (mine) {
		mine->set = field_set_difference(w->a, mine->set, &stripped_fields);
		if (field_set_empty(mine->set))
			managers_remove(m, (uint32_t)(mine - m->v));
	}
	return NULL;
}

/* kubectl may take over what it applied itself on the client's side before: fields as last-applied has them. */
static const struct field_set *owned_by_last_applied(struct work *w, const struct jv *live)
{
	struct str text = jv_str(jv_at(live, "metadata", "annotations", LAST_APPLIED, NULL));
	struct jv last;

	if (!text.n)
		return NULL;
	struct error *e = jv_parse(w->a, text, NULL, &last);

	if (e || last.kind != JV_OBJECT || !str_eq(jv_str(jv_get(&last, STR("apiVersion"))), w->req->api_version) ||
	    typed_validate(w->a, w->req->shape, &last, false)) {
		error_free(e); /* an annotation of someone else's making allows nothing */
		return NULL;
	}
	struct comparison c = typed_compare(w->a, w->req->shape, &last, live);
	const struct field_set *s = typed_set(w->a, w->req->shape, &last);

	s = field_set_difference(w->a, s, c.modified);
	s = field_set_difference(w->a, s, c.added);
	return field_set_difference(w->a, s, c.removed);
}

/* Keeps kubectl's annotation in step when kubectl applies on the server's side. */
static void update_last_applied(struct arena *a, const struct managed_fields_request *req, const struct jv *config,
				struct jv *obj)
{
	struct jv *annotations = jv_at(obj, "metadata", "annotations", NULL);
	buf_cleanup struct buf b = {0};
	size_t total = 0;

	if (!str_eqz(req->manager, "kubectl") || !jv_str(jv_get(annotations, STR(LAST_APPLIED))).n)
		return;
	struct jv copy = jv_copy(a, config), *own = jv_at(&copy, "metadata", "annotations", NULL);

	if (jv_is(own, JV_OBJECT))
		jv_del(own, STR(LAST_APPLIED));
	jv_encode_sorted(&b, &copy);
	buf_putc(&b, '\n');
	for (uint32_t i = 0; i < annotations->n; i++)
		if (!str_eqz(annotations->members[i].key, LAST_APPLIED))
			total += annotations->members[i].key.n + jv_str(&annotations->members[i].value).n;
	/* The tree may be shared with live: change a copy. */
	struct jv fresh = jv_copy(a, annotations);

	jv_set(a, &fresh, STR(LAST_APPLIED),
	       jv_string(total + b.n + sizeof LAST_APPLIED > ANNOTATIONS_MAX ? STR("") : arena_str(a, buf_view(&b))));
	jv_set(a, jv_sub(a, obj, STR("metadata")), STR("annotations"), fresh);
}

/* What is wrong with the first of a list of entries that is none; NULL: nothing, or it is no list. */
static struct error *entries_error(struct arena *a, const struct jv *managed)
{
	for (uint32_t i = 0; jv_is(managed, JV_ARRAY) && i < managed->n; i++) {
		struct meta_v1_managed_fields_entry entry = {0};

		TRY(jv_to_object(a, &meta_v1_managed_fields_entry_type, &managed->items[i], NULL, &entry));
	}
	return NULL;
}

/* Entries as upstream reads them: a list in which one is none has none. Others are left to the types. */
static bool has_entries(struct arena *a, const struct jv *managed)
{
	struct error *e = entries_error(a, managed);
	bool all = jv_is(managed, JV_ARRAY) && !e;

	error_free(e);
	for (uint32_t i = 0; all && i < managed->n; i++)
		all = managed->items[i].kind == JV_OBJECT;
	return all;
}

static struct error *check_config(struct arena *a, const struct managed_fields_request *req, const struct jv *config)
{
	struct str version = jv_str(jv_get(config, STR("apiVersion"))), kind = jv_str(jv_get(config, STR("kind")));

	if (config->kind != JV_OBJECT)
		return error_status(400, "BadRequest", "error decoding YAML: the configuration is not an object");
	if (!str_eq(version, req->api_version) ||
	    (req->shape.type && req->shape.type->top && !str_eqz(kind, req->shape.type->name)))
		return error_status(400, "BadRequest", "invalid object type: %.*s, Kind=%.*s", STR_ARG(version), STR_ARG(kind));
	if (has_entries(a, managed_fields_of(config)))
		return error_status(400, "BadRequest", "metadata.managedFields must be nil");
	return NULL;
}

struct error *managed_fields_apply(struct arena *a, const struct managed_fields_request *req, const struct jv *live,
				   const struct jv *config, bool force, struct jv *out, bool *changed)
{
	struct work w = work_of(a, req);
	struct managers m, before;
	struct conflicts conflicts = {0};
	struct jv old;
	const char *why;

	TRY(check_config(a, req, config));
	TRY(error_wrap(managers_decode(a, managed_fields_of(live), &before), "failed to decode managed fields"));
	TRY(managers_decode(a, managed_fields_of(live), &m));
	why = typed_validate(a, req->shape, config, false);
	if (why)
		return error_status(500, "", "failed to create typed patch object (%.*s): %s", STR_ARG(object_name(a, config)), why);
	struct jv bare = managed_fields_without(a, config), nothing = empty_object(a, req, config);

	config = &bare;
	old = live ? managed_fields_without(a, live) : nothing;
	/* what a definition's schema has become later may not be what the object is; built-in objects in disorder have no entries (update_entries) */
	why = live && (!m.n || !req->shape.type) ? typed_validate(a, req->shape, &old, true) : NULL;
	if (why)
		return error_status(500, "", m.n ? "failed to create typed live object (%.*s): %s"
						 : "failed to create manager for existing fields: failed to convert new object (%.*s) to smd typed: %s",
				    STR_ARG(object_name(a, &old)), why);
	if (live && !m.n)
		TRY(error_wrap(work_update(&w, &nothing, &old, &m, STR("before-first-apply")), "failed to create manager for existing fields"));
	struct managers start = {0};

	for (uint32_t i = 0; i < m.n; i++)
		*arena_push(a, &start) = m.v[i];
	TRY(apply_once(&w, &old, config, &m, force, out, &conflicts));
	if (conflicts.n && str_eqz(req->manager, "kubectl")) {
		const struct field_set *allowed = owned_by_last_applied(&w, &old);
		struct conflicts left = {0};

		for (uint32_t i = 0; i < conflicts.n; i++) {
			conflicts.v[i].set = field_set_difference(a, conflicts.v[i].set, allowed);
			if (!field_set_empty(conflicts.v[i].set))
				*arena_push(a, &left) = conflicts.v[i];
		}
		conflicts = left;
		if (!left.n) {
			m = start;
			TRY(apply_once(&w, &old, config, &m, true, out, &left));
		}
	}
	if (conflicts.n)
		return conflict_error(a, &conflicts);
	bool same = jv_equal(&old, out);
	struct manager self = {.name = request_manager(req), .subresource = req->subresource, .applied = true};
	struct manager *mine = managers_find(&m, &self);

	if (mine && !same)
		mine->time = work_now(&w);
	*changed = !same || !managers_same(a, &m, &before);
	if (!*changed && live) {
		*out = *live;
		return NULL;
	}
	*out = jv_copy(a, same ? &old : out);
	update_last_applied(a, req, config, out);
	managed_fields_set(a, out, &m);
	return NULL;
}

/* Sets of fields are in an order of their own, which is not that of their names. */
static void order_fields(struct arena *a, const struct jv *managed, entry_list *list)
{
	for (uint32_t i = 0; managed && i < list->n && i < managed->n; i++) {
		const struct jv *fields = jv_get(&managed->items[i], STR("fieldsV1"));
		buf_cleanup struct buf b = {0};

		if (!fields)
			continue;
		jv_encode(&b, fields);
		*list->v[i].fields_v1 = arena_str(a, buf_view(&b));
	}
}

struct error *managed_fields_apply_object(struct arena *a, const struct managed_fields_request *req, const void *live,
					  const struct jv *config, bool force, void *out, bool *changed)
{
	const struct schema_type *t = req->shape.type;
	struct jv l, o;
	buf_cleanup struct buf text = {0};
	struct error *e, *w;

	if (live)
		jv_from_object(a, t, live, &l);
	TRY(managed_fields_apply(a, req, live ? &l : NULL, config, force, &o, changed));
	e = entries_error(a, managed_fields_of(config)); /* which are not kept, but an object of the type cannot be made with them */
	if (e) {
		w = error_status(500, "", "failed to convert the new object to its type: %s", error_message(e));
		error_free(e);
		return w;
	}
	if (live && !*changed) {
		object_copy(a, t, live, out);
		return NULL;
	}
	/* sorted, as raw JSON within the object comes out of upstream's merge */
	jv_encode_sorted(&text, &o);
	e = json_decode_merged(a, t, arena_str(a, buf_view(&text)), NULL, out);
	if (e) { /* values that do not fit their fields: the schema knows no formats */
		w = error_status(500, "", "failed to convert merged object to its type: %s", error_message(e));
		error_free(e);
		return w;
	}
	order_fields(a, jv_at(&o, "metadata", "managedFields", NULL), &object_meta(t, out)->managed_fields);
	if (live && managed_fields_alone_differ(a, &l, &o)) {
		/* only who owns what has changed: the object stays as it is to the byte */
		entry_list owners = object_meta(t, out)->managed_fields;

		object_copy(a, t, live, out);
		object_meta(t, out)->managed_fields = owners;
		return NULL;
	}
	object_default(a, t, out);
	return NULL;
}
