/* Server-side apply: who owns what after a write (managed_fields_entries.c: in what form; managed_fields_apply.c: applies). */
#include "schema/managed_fields_internal.h"

#include <errno.h>
#include <stdlib.h>

#include "base/log.h"

#define MAX_UPDATE_MANAGERS 10
#define MANAGER_MAX 128

/* ---- versions ---- */

enum convertible { CONVERT_SAME, CONVERT_BY_CALLER, CONVERT_GONE };

/* How an entry's version relates to the request's. */
static enum convertible convertible(struct work *w, struct str version)
{
	if (str_eq(version, w->req->api_version))
		return CONVERT_SAME;
	if (w->req->convert)
		return CONVERT_BY_CALLER;
	if (w->req->shape.type && w->req->shape.type->top) {
		struct str group, v;

		api_version_split(version, &group, &v);
		if (!schema_type_for_kind(group, v, str_from(w->req->shape.type->name)))
			return CONVERT_GONE;
	}
	return CONVERT_SAME;
}

static struct error *convert(struct work *w, const struct jv *v, struct str version, struct live_at *out)
{
	const char *why;
	struct error *e = w->req->convert(w->req->convert_ctx, w->a, v, version, &out->v, &out->shape);

	if (error_is(e, 404, NULL)) {
		error_free(e);
		out->gone = true;
		return NULL;
	}
	TRY(e);
	why = typed_validate(w->a, out->shape, &out->v, false);
	return why ? error_status(500, "", "failed to convert to %.*s: %s", STR_ARG(version), why) : NULL;
}

/* The object at a version, and its shape there; *gone when that version is not served. 500 when it has what that version does not know. */
struct error *work_at_version(struct work *w, const struct jv *v, struct str version, struct jv *out, struct shape *shape, bool *gone)
{
	struct live_at at = {.version = version, .v = *v, .shape = w->req->shape};
	bool back = w->req->convert && str_eq(version, w->req->api_version) &&
		    !str_eq(jv_str(jv_get(v, STR("apiVersion"))), version);
	enum convertible how = back ? CONVERT_BY_CALLER : convertible(w, version);
	bool known = false;

	for (uint32_t i = 0; v == w->live && i < w->lives.n && !known; i++)
		if ((known = str_eq(w->lives.v[i].version, version)))
			at = w->lives.v[i];
	at.gone |= how == CONVERT_GONE;
	if (how == CONVERT_BY_CALLER && !known) {
		TRY(convert(w, v, version, &at));
		if (v == w->live)
			*arena_push(w->a, &w->lives) = at;
	}
	*out = at.v;
	*shape = at.shape;
	*gone = at.gone;
	return NULL;
}

const struct field_set *work_filter(struct work *w, const struct field_set *s)
{
	if (w->req->only)
		return fs_only(w->a, s, w->req->only);
	return field_set_recursive_difference(w->a, s, w->reset);
}

static const struct field_set *set_of_paths(struct arena *a, const char *const *paths)
{
	const struct field_set *out = NULL;

	for (; paths && *paths; paths++)
		out = field_set_union(a, out, field_set_of_path(a, str_from(*paths)));
	return out;
}

/* ---- the update of ownership ---- */

struct versions { /* comparisons made so far */
	struct {
		struct str version;
		struct comparison c;
		bool gone;
	} *v;
	uint32_t n, cap;
};

static struct error *comparison_at(struct work *w, struct versions *known, struct str version, const struct jv *old,
				   const struct jv *new, uint32_t *at)
{
	struct shape shape = w->req->shape;
	struct jv o = *old, n = *new;

	for (*at = 0; *at < known->n; ++*at)
		if (str_eq(known->v[*at].version, version))
			return NULL;
	arena_push(w->a, known);
	known->v[*at].version = version;
	if (!str_eq(version, w->req->api_version)) {
		TRY(work_at_version(w, old, version, &o, &shape, &known->v[*at].gone));
		if (!known->v[*at].gone)
			TRY(work_at_version(w, new, version, &n, &shape, &known->v[*at].gone));
		if (known->v[*at].gone)
			return NULL;
	}
	struct comparison c = typed_compare(w->a, shape, &o, &n);

	/*
	 * What a custom resource resets is said for the request's version alone: entries of others lose what was sent all the same.
	 * What its status resets is said for all versions.
	 */
	if (w->req->shape.type || str_eqz(w->req->subresource, "status") || str_eq(version, w->req->api_version)) {
		c.removed = work_filter(w, c.removed);
		c.modified = work_filter(w, c.modified);
		c.added = work_filter(w, c.added);
	}
	known->v[*at].c = c;
	return NULL;
}

/*
 * Takes what changed between old and new from all managers but `self`. Without
 * force, changed fields of others are conflicts and nothing is taken.
 */
struct error *take_ownership(struct work *w, const struct jv *old, const struct jv *new, struct managers *m,
			     const struct manager *self, bool force, struct comparison *own, struct conflicts *conflicts)
{
	struct versions known = {0};
	uint32_t at;

	TRY(comparison_at(w, &known, w->req->api_version, old, new, &at));
	*own = known.v[at].c;
	for (uint32_t i = 0; i < m->n;) {
		struct manager *e = &m->v[i];

		if (manager_same(e, self)) {
			i++;
			continue;
		}
		TRY(comparison_at(w, &known, e->api_version, old, new, &at));
		if (known.v[at].gone) {
			managers_remove(m, i);
			continue;
		}
		const struct comparison *c = &known.v[at].c;
		const struct field_set *changed = field_set_union(w->a, c->modified, c->added);
		const struct field_set *lost = field_set_intersection(w->a, e->set, changed);

		if (!field_set_empty(lost) && !force)
			*arena_push(w->a, conflicts) = (struct conflict){*e, lost};
		else
			e->set = field_set_difference(w->a, field_set_difference(w->a, e->set, lost), c->removed);
		i++;
	}
	return NULL;
}

/* ---- steps of every write ---- */

#define MEMBER(lit) {{PE_FIELD, {.kind = JV_STRING, .n = sizeof(lit) - 1, .p = (lit)}}, true, NULL}
static struct fs_node stripped_metadata[] = { /* sorted */
	MEMBER("clusterName"), MEMBER("creationTimestamp"), MEMBER("generation"), MEMBER("managedFields"), MEMBER("name"),
	MEMBER("namespace"), MEMBER("resourceVersion"), MEMBER("selfLink"), MEMBER("uid"),
};
static const struct field_set stripped_metadata_set = {stripped_metadata, sizeof stripped_metadata / sizeof *stripped_metadata, 0};
static struct fs_node stripped_nodes[] = {
	MEMBER("apiVersion"), MEMBER("kind"),
	{{PE_FIELD, {.kind = JV_STRING, .n = 8, .p = "metadata"}}, true, &stripped_metadata_set},
};
#undef MEMBER
/* What nobody owns. */
const struct field_set stripped_fields = {stripped_nodes, 3, 0};

struct str work_now(struct work *w)
{
	return w->req->now.set ? time_format(w->a, w->req->now, false) : STR_NULL;
}

/* Entries from before the schema changed. */
struct error *work_reconcile(struct work *w, const struct jv *live, struct managers *m)
{
	if (w->live != live)
		w->lives.n = 0;
	w->live = live;
	for (uint32_t i = 0; i < m->n; i++) {
		struct shape shape = w->req->shape;
		bool gone = false;
		struct jv v;

		if (!str_eq(m->v[i].api_version, w->req->api_version))
			TRY(work_at_version(w, live, m->v[i].api_version, &v, &shape, &gone));
		if (!gone)
			m->v[i].set = typed_reconcile(w->a, shape, m->v[i].set);
	}
	return NULL;
}

/* Changes become `name`'s; others lose them. */
struct error *work_update(struct work *w, const struct jv *old, const struct jv *new, struct managers *m,
			  struct str name)
{
	struct manager self = {.name = STR("current-operation"), .api_version = w->req->api_version, .self = true}, key = {0};
	struct comparison c;
	struct conflicts none = {0};

	TRY(work_reconcile(w, old, m));
	TRY(take_ownership(w, old, new, m, &self, true, &c, &none));
	managers_remove_empty(m);
	const struct field_set *set = work_filter(w, field_set_union(w->a, c.modified, c.added));

	set = field_set_difference(w->a, set, &stripped_fields);
	if (field_set_empty(set))
		return NULL;
	key = (struct manager){.name = name, .api_version = w->req->api_version, .subresource = w->req->subresource};
	struct manager *mine = managers_find(m, &key);

	if (!mine) {
		mine = arena_push(w->a, m);
		*mine = key;
	}
	mine->set = field_set_union(w->a, set, mine->set);
	mine->time = work_now(w);
	return NULL;
}

static int by_age(const void *x, const void *y)
{
	const struct manager *a = *(const struct manager *const *)x, *b = *(const struct manager *const *)y;
	int c = str_cmp(a->time, b->time);

	return c ? c : manager_order(a, b);
}

/* The oldest updaters of a version, past the tenth, become one "ancient-changes". */
static void cap_updaters(struct arena *a, struct managers *m)
{
	const struct manager **old = arena_array(a, const struct manager *, m->n + 1);
	struct managers out = {0};
	uint32_t n = 0, left;

	for (uint32_t i = 0; i < m->n; i++)
		if (!m->v[i].applied)
			old[n++] = &m->v[i];
	if (n <= MAX_UPDATE_MANAGERS)
		return;
	qsort(old, n, sizeof *old, by_age);
	bool *merged = arena_array(a, bool, m->n);

	left = n;
	for (uint32_t i = 0; i < n && left > MAX_UPDATE_MANAGERS; i++) {
		struct manager key = {.name = STR("ancient-changes"), .api_version = old[i]->api_version};
		struct manager *bucket = managers_find(&out, &key);

		if (manager_same(old[i], &key) && bucket) {
			bucket->set = field_set_union(a, bucket->set, old[i]->set);
		} else if (!bucket) {
			/* The first of its version: only becomes the bucket when a second joins it. */
			bool second = false;

			for (uint32_t k = i + 1; k < n && !second; k++)
				second = str_eq(old[k]->api_version, old[i]->api_version);
			if (!second)
				continue;
			key.set = old[i]->set;
			key.time = old[i]->time;
			*arena_push(a, &out) = key;
			merged[old[i] - m->v] = true;
			continue;
		} else {
			bucket->set = field_set_union(a, old[i]->set, bucket->set);
			bucket->time = old[i]->time;
		}
		merged[old[i] - m->v] = true;
		left--;
	}
	for (uint32_t i = 0; i < m->n; i++)
		if (!merged[i])
			*arena_push(a, &out) = m->v[i];
	*m = out;
}

struct work work_of(struct arena *a, const struct managed_fields_request *req)
{
	return (struct work){.a = a, .req = req, .reset = set_of_paths(a, req->reset)};
}

struct str request_manager(const struct managed_fields_request *req)
{
	return req->manager.n ? req->manager : STR("unknown");
}

/* What an object of the kind is before it exists. */
struct jv empty_object(struct arena *a, const struct managed_fields_request *req, const struct jv *like)
{
	struct jv out;

	if (req->shape.type) {
		jv_from_object(a, req->shape.type, arena_alloc(a, req->shape.type->size), &out);
		return out;
	}
	out = jv_object();
	for (int i = 0; i < 2; i++) {
		struct str name = i ? STR("kind") : STR("apiVersion");
		const struct jv *v = jv_get(like, name);

		if (v)
			jv_set(a, &out, name, *v);
	}
	return out;
}

static bool reset_by_client(const struct jv *list)
{
	if (!jv_is(list, JV_ARRAY))
		return false;
	if (!list->n)
		return true;
	if (list->n != 1 || list->items[0].kind != JV_OBJECT)
		return false;
	for (uint32_t i = 0; i < list->items[0].n; i++)
		if (list->items[0].members[i].value.kind != JV_NULL && jv_str(&list->items[0].members[i].value).n)
			return false;
	return true;
}

static bool equal_but_version(struct arena *a, const struct jv *x, const struct jv *y)
{
	if (x->n != y->n)
		return false;
	for (uint32_t i = 0; i < x->n; i++) {
		const struct jv *l = &x->members[i].value, *r = jv_get(y, x->members[i].key);
		bool meta = str_eqz(x->members[i].key, "metadata");

		if (!r)
			return false;
		if (!meta) {
			if (!jv_equal(l, r))
				return false;
			continue;
		}
		struct jv ml = jv_copy(a, l), mr = jv_copy(a, r);

		if (ml.kind == JV_OBJECT)
			jv_del(&ml, STR("resourceVersion"));
		if (mr.kind == JV_OBJECT)
			jv_del(&mr, STR("resourceVersion"));
		if (!jv_equal(&ml, &mr))
			return false;
	}
	return true;
}

/*
 * The entries after a write, from those the client sent (or live's, before a
 * subresource's write) and what changed. live and obj are without
 * managedFields; live may be NULL. *out is empty where nothing is tracked.
 */
static struct error *update_entries(struct arena *a, const struct managed_fields_request *req, const struct jv *live,
				    const struct jv *obj, struct managers *before, struct managers *out)
{
	struct work w = work_of(a, req);
	struct error *e;
	struct jv empty;

	/* Objects from before there was tracking stay untracked until someone applies. */
	if (!out->n && live)
		return NULL;
	if (typed_validate(a, req->shape, obj, true) || (live && !req->shape.type && typed_validate(a, req->shape, live, true))) {
		/* a list's element that has none of its keys, what another version lets be: upstream gives up on the object */
		*out = (struct managers){0};
		return NULL;
	}
	if (!live)
		empty = empty_object(a, req, obj);
	e = work_update(&w, live ? live : &empty, obj, out, request_manager(req));
	if (error_is_sys(e, ECANCELED))
		return e;
	if (e) {
		/* it does not fit the version of an entry, or that is none any more: as upstream, nobody is known to manage it then */
		log_and_free(e, "managedFields");
		*out = (struct managers){0};
		return NULL;
	}
	cap_updaters(a, out);
	if (live && managers_same(a, out, before) && equal_but_version(a, live, obj))
		*out = *before; /* nothing but a time would change */
	return NULL;
}

/*
 * Which entries an update starts from: the client's, or live's where it sent
 * none or broken ones, or for a subresource.
 */
static void start_entries(struct arena *a, const struct managed_fields_request *req, bool reset, struct error *sent_error,
			  const struct managers *sent, const struct managers *before, struct managers *out)
{
	const struct managers *from = before;

	if (!req->subresource.n && (reset || (!sent_error && sent->n)))
		from = sent;
	error_free(sent_error); /* as upstream: what cannot be read is as if it had not been sent */
	*out = (struct managers){0};
	for (uint32_t i = 0; i < from->n && !(reset && from == sent); i++)
		*arena_push(a, out) = from->v[i];
}

struct error *managed_fields_update(struct arena *a, const struct managed_fields_request *req, const struct jv *live,
				    struct jv *obj)
{
	struct managers sent, before, m;
	struct jv old = {0};
	struct error *e = managers_decode(a, managed_fields_of(live), &before);
	bool reset = reset_by_client(managed_fields_of(obj));

	if (e) {
		error_free(e);
		before = (struct managers){0};
	}
	e = reset ? NULL : managers_decode(a, managed_fields_of(obj), &sent);
	if (reset || e)
		sent = (struct managers){0};
	start_entries(a, req, reset, e, &sent, &before, &m);
	*obj = managed_fields_without(a, obj);
	if (live)
		old = managed_fields_without(a, live);
	TRY(update_entries(a, req, live ? &old : NULL, obj, &before, &m));
	managed_fields_set(a, obj, &m);
	return NULL;
}

/* One entry with nothing in it, or none at all where the list itself was sent. */
static bool typed_reset(const entry_list *list)
{
	const struct meta_v1_managed_fields_entry *e = list->v;

	if (list->n != 1)
		return list->v && !list->n;
	return !e->manager.n && !e->operation.n && !e->api_version.n && !e->time && !e->fields_type.n && !e->fields_v1 &&
	       !e->subresource.n;
}

/* The tree of an object without its managedFields. */
static void bare_tree(struct arena *a, const struct schema_type *t, const void *obj, struct jv *out)
{
	void *bare = arena_alloc(a, t->size);

	memcpy(bare, obj, t->size);
	memset(&object_meta(t, bare)->managed_fields, 0, sizeof(entry_list));
	jv_from_object(a, t, bare, out);
}

struct error *managed_fields_update_object(struct arena *a, const struct managed_fields_request *req, const void *live,
					   void *obj)
{
	const struct schema_type *t = req->shape.type;
	entry_list *list = &object_meta(t, obj)->managed_fields;
	struct managers sent = {0}, before = {0}, m;
	bool reset = typed_reset(list);
	struct jv l, o;
	struct error *e = live ? managers_decode_typed(a, &object_meta(t, (void *)(uintptr_t)live)->managed_fields, &before) : NULL;

	if (e) {
		error_free(e);
		before = (struct managers){0};
	}
	e = reset ? NULL : managers_decode_typed(a, list, &sent);
	start_entries(a, req, reset, e, &sent, &before, &m);
	if (!m.n && live) {
		memset(list, 0, sizeof *list);
		return NULL;
	}
	bare_tree(a, t, obj, &o);
	if (live)
		bare_tree(a, t, live, &l);
	TRY(update_entries(a, req, live ? &l : NULL, &o, &before, &m));
	managers_encode_typed(a, &m, list);
	return NULL;
}

/* ---- requests ---- */

struct str field_manager_from_user_agent(struct arena *a, struct str user_agent)
{
	struct str name = str_cut(&user_agent, '/');
	char *to = arena_bytes(a, MANAGER_MAX);
	size_t n = 0;

	for (size_t i = 0; i < name.n;) {
		unsigned char c = (unsigned char)name.p[i];
		size_t len = c < 0x80 ? 1 : c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;

		if (len > name.n - i)
			break;
		if (c >= 0x20 && c != 0x7f && n + len <= MANAGER_MAX) {
			memcpy(to + n, name.p + i, len);
			n += len;
		}
		i += len;
	}
	return str_of(to, n);
}
