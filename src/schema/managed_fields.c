#include "schema/managed_fields.h"

#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "schema/defaults.h"
#include "schema/typed_merge.h"

#define MAX_UPDATE_MANAGERS 10
#define MANAGER_MAX 128
#define LAST_APPLIED "kubectl.kubernetes.io/last-applied-configuration"
#define ANNOTATIONS_MAX (256u << 10)

/* ---- managers ---- */

struct manager { /* one entry of metadata.managedFields */
	struct str name, api_version, subresource;
	bool applied;
	struct str time; /* RFC 3339, empty: none */
	const struct field_set *set;
	struct str raw;  /* FieldsV1 of raw_set, as it was read */
	const struct field_set *raw_set;
	bool self;       /* the write under way, before it is joined with its entry */
};

struct managers {
	struct manager *v;
	uint32_t n, cap;
};

/* Apply entries are one for all versions. */
static bool same_manager(const struct manager *a, const struct manager *b)
{
	return a->applied == b->applied && a->self == b->self && str_eq(a->name, b->name) &&
	       str_eq(a->subresource, b->subresource) && (a->applied || str_eq(a->api_version, b->api_version));
}

static struct manager *find_manager(struct managers *m, const struct manager *key)
{
	for (uint32_t i = 0; i < m->n; i++)
		if (same_manager(&m->v[i], key))
			return &m->v[i];
	return NULL;
}

static void remove_manager(struct managers *m, uint32_t i)
{
	memmove(&m->v[i], &m->v[i + 1], (m->n - i - 1) * sizeof *m->v);
	m->n--;
}

static void remove_empty(struct managers *m)
{
	for (uint32_t i = 0; i < m->n;) {
		if (field_set_empty(m->v[i].set))
			remove_manager(m, i);
		else
			i++;
	}
}

static struct error *decode_entry(struct arena *a, const struct jv *v, uint32_t i, struct manager *m)
{
	struct str operation = jv_str(jv_get(v, STR("operation"))), type = jv_str(jv_get(v, STR("fieldsType")));
	const struct jv *fields = jv_get(v, STR("fieldsV1"));

	if (!str_eqz(operation, "Apply") && !str_eqz(operation, "Update"))
		return error_status(422, "Invalid", "operation must be `Apply` or `Update`");
	*m = (struct manager){
		.name = jv_str(jv_get(v, STR("manager"))),
		.api_version = jv_str(jv_get(v, STR("apiVersion"))),
		.subresource = jv_str(jv_get(v, STR("subresource"))),
		.applied = str_eqz(operation, "Apply"),
		.time = jv_str(jv_get(v, STR("time"))),
	};
	if (!m->api_version.n)
		return error_status(422, "Invalid", "apiVersion must not be empty");
	if (!type.n)
		return error_status(422, "Invalid", "missing fieldsType in managed fields entry %u", i);
	if (!str_eqz(type, "FieldsV1"))
		return error_status(422, "Invalid", "invalid fieldsType \"%.*s\" in managed fields entry %u", STR_ARG(type), i);
	if (!fields)
		return NULL;
	buf_cleanup struct buf b = {0};

	jv_encode(&b, fields);
	m->raw = arena_str(a, buf_view(&b));
	TRY(field_set_parse(a, m->raw, &m->set));
	m->raw_set = m->set;
	return NULL;
}

static void add_manager(struct arena *a, struct managers *out, const struct manager *m)
{
	struct manager *old = find_manager(out, m);

	if (old)
		*old = *m;
	else
		*arena_push(a, out) = *m;
}

static struct error *decode(struct arena *a, const struct jv *list, struct managers *out)
{
	*out = (struct managers){0};
	for (uint32_t i = 0; list && list->kind == JV_ARRAY && i < list->n; i++) {
		struct manager m;

		TRY(decode_entry(a, &list->items[i], i, &m));
		add_manager(a, out, &m);
	}
	return NULL;
}

static int order(const void *x, const void *y)
{
	const struct manager *a = x, *b = y;
	int c;

	if (a->applied != b->applied)
		return a->applied ? -1 : 1; /* "Apply" < "Update" */
	if ((c = str_cmp(a->time, b->time)) || (c = str_cmp(a->name, b->name)) ||
	    (c = str_cmp(a->api_version, b->api_version)))
		return c;
	return str_cmp(a->subresource, b->subresource);
}

/* FieldsV1 of an entry: as it was when nothing changed. */
static struct str fields_text(struct arena *a, const struct manager *m)
{
	buf_cleanup struct buf b = {0};

	if (m->raw.n && m->set == m->raw_set)
		return m->raw;
	field_set_encode(&b, m->set);
	return arena_str(a, buf_view(&b));
}

static struct jv encode(struct arena *a, struct managers *m)
{
	struct jv list = jv_array();

	if (m->n)
		qsort(m->v, m->n, sizeof *m->v, order);
	for (uint32_t i = 0; i < m->n; i++) {
		const struct manager *e = &m->v[i];
		struct jv o = jv_object(), fields;

		if (e->name.n)
			jv_set(a, &o, STR("manager"), jv_string(e->name));
		jv_set(a, &o, STR("operation"), jv_string(e->applied ? STR("Apply") : STR("Update")));
		jv_set(a, &o, STR("apiVersion"), jv_string(e->api_version));
		if (e->time.n)
			jv_set(a, &o, STR("time"), jv_string(e->time));
		jv_set(a, &o, STR("fieldsType"), jv_string(STR("FieldsV1")));
		/* Well-formed by construction, and no deeper than the object. */
		struct error *err = jv_parse(a, fields_text(a, e), NULL, &fields);

		if (err) {
			error_free(err);
			fields = jv_object();
		}
		jv_set(a, &o, STR("fieldsV1"), fields);
		if (e->subresource.n)
			jv_set(a, &o, STR("subresource"), jv_string(e->subresource));
		jv_push(a, &list, o);
	}
	return list;
}

static const struct jv *managed_of(const struct jv *obj)
{
	return jv_at(obj, "metadata", "managedFields", NULL);
}

/* obj without metadata.managedFields; a copy of the two objects on the way, so that obj stays. */
static struct jv without_managed(struct arena *a, const struct jv *obj)
{
	struct jv out = jv_object();

	if (!managed_of(obj))
		return *obj;
	for (uint32_t i = 0; i < obj->n; i++) {
		struct jv v = obj->members[i].value;

		if (str_eqz(obj->members[i].key, "metadata")) {
			struct jv meta = jv_object();

			for (uint32_t k = 0; k < v.n; k++)
				if (!str_eqz(v.members[k].key, "managedFields"))
					jv_set(a, &meta, v.members[k].key, v.members[k].value);
			v = meta;
		}
		jv_set(a, &out, obj->members[i].key, v);
	}
	return out;
}

bool managed_fields_alone_differ(struct arena *a, const struct jv *x, const struct jv *y)
{
	struct jv p = without_managed(a, x), q = without_managed(a, y);

	return jv_equal(&p, &q);
}

static void set_managed(struct arena *a, struct jv *obj, struct managers *m)
{
	if (!m->n)
		return;
	jv_set(a, jv_sub(a, obj, STR("metadata")), STR("managedFields"), encode(a, m));
}

/* ---- versions ---- */

struct work {
	struct arena *a;
	const struct managed_fields_request *req;
	const struct field_set *reset;
	const struct jv *live; /* what was before; NULL: not known */
	struct {
		struct live_at {
			struct str version;
			struct jv v;
			struct shape shape;
			bool gone;
		} *v;
		uint32_t n, cap;
	} lives; /* it at versions that were asked for: somebody else's work */
};

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
static struct error *at_version(struct work *w, const struct jv *v, struct str version, struct jv *out, struct shape *shape, bool *gone)
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

static const struct field_set *filter(struct work *w, const struct field_set *s)
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
		TRY(at_version(w, old, version, &o, &shape, &known->v[*at].gone));
		if (!known->v[*at].gone)
			TRY(at_version(w, new, version, &n, &shape, &known->v[*at].gone));
		if (known->v[*at].gone)
			return NULL;
	}
	struct comparison c = typed_compare(w->a, shape, &o, &n);

	/*
	 * What a custom resource resets is said for the request's version alone: entries of others lose what was sent all the same.
	 * What its status resets is said for all versions.
	 */
	if (w->req->shape.type || str_eqz(w->req->subresource, "status") || str_eq(version, w->req->api_version)) {
		c.removed = filter(w, c.removed);
		c.modified = filter(w, c.modified);
		c.added = filter(w, c.added);
	}
	known->v[*at].c = c;
	return NULL;
}

struct conflict {
	struct manager manager;
	const struct field_set *set;
};

struct conflicts {
	struct conflict *v;
	uint32_t n, cap;
};

/*
 * Takes what changed between old and new from all managers but `self`. Without
 * force, changed fields of others are conflicts and nothing is taken.
 */
static struct error *take_ownership(struct work *w, const struct jv *old, const struct jv *new, struct managers *m,
				    const struct manager *self, bool force, struct comparison *own, struct conflicts *conflicts)
{
	struct versions known = {0};
	uint32_t at;

	TRY(comparison_at(w, &known, w->req->api_version, old, new, &at));
	*own = known.v[at].c;
	for (uint32_t i = 0; i < m->n;) {
		struct manager *e = &m->v[i];

		if (same_manager(e, self)) {
			i++;
			continue;
		}
		TRY(comparison_at(w, &known, e->api_version, old, new, &at));
		if (known.v[at].gone) {
			remove_manager(m, i);
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

	return c ? c : order(a, b);
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
static const struct field_set stripped_fields = {stripped_nodes, 3, 0};

static struct str now_text(struct work *w)
{
	return w->req->now.set ? time_format(w->a, w->req->now, false) : STR_NULL;
}

/* Entries from before the schema changed. */
static struct error *reconcile(struct work *w, const struct jv *live, struct managers *m)
{
	if (w->live != live)
		w->lives.n = 0;
	w->live = live;
	for (uint32_t i = 0; i < m->n; i++) {
		struct shape shape = w->req->shape;
		bool gone = false;
		struct jv v;

		if (!str_eq(m->v[i].api_version, w->req->api_version))
			TRY(at_version(w, live, m->v[i].api_version, &v, &shape, &gone));
		if (!gone)
			m->v[i].set = typed_reconcile(w->a, shape, m->v[i].set);
	}
	return NULL;
}

/* Changes become `name`'s; others lose them. */
static struct error *update(struct work *w, const struct jv *old, const struct jv *new, struct managers *m,
			    struct str name)
{
	struct manager self = {.name = STR("current-operation"), .api_version = w->req->api_version, .self = true}, key = {0};
	struct comparison c;
	struct conflicts none = {0};

	TRY(reconcile(w, old, m));
	TRY(take_ownership(w, old, new, m, &self, true, &c, &none));
	remove_empty(m);
	const struct field_set *set = filter(w, field_set_union(w->a, c.modified, c.added));

	set = field_set_difference(w->a, set, &stripped_fields);
	if (field_set_empty(set))
		return NULL;
	key = (struct manager){.name = name, .api_version = w->req->api_version, .subresource = w->req->subresource};
	struct manager *mine = find_manager(m, &key);

	if (!mine) {
		mine = arena_push(w->a, m);
		*mine = key;
	}
	mine->set = field_set_union(w->a, set, mine->set);
	mine->time = now_text(w);
	return NULL;
}

static int by_age(const void *x, const void *y)
{
	const struct manager *a = *(const struct manager *const *)x, *b = *(const struct manager *const *)y;
	int c = str_cmp(a->time, b->time);

	return c ? c : order(a, b);
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
		struct manager *bucket = find_manager(&out, &key);

		if (same_manager(old[i], &key) && bucket) {
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

static struct work work_of(struct arena *a, const struct managed_fields_request *req)
{
	return (struct work){.a = a, .req = req, .reset = set_of_paths(a, req->reset)};
}

static struct str manager_name(const struct managed_fields_request *req)
{
	return req->manager.n ? req->manager : STR("unknown");
}

/* What an object of the kind is before it exists. */
static struct jv empty_object(struct arena *a, const struct managed_fields_request *req, const struct jv *like)
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

/* The same entries but for their times. */
static bool same_entries(struct arena *a, struct managers *x, struct managers *y)
{
	if (x->n != y->n)
		return false;
	for (uint32_t i = 0; i < x->n; i++) {
		const struct manager *m = find_manager(y, &x->v[i]);

		if (!m || !str_eq(m->api_version, x->v[i].api_version) || !field_set_equal(m->set, x->v[i].set))
			return false;
	}
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
	e = update(&w, live ? live : &empty, obj, out, manager_name(req));
	if (error_is_sys(e, ECANCELED))
		return e;
	if (e) {
		/* it does not fit the version of an entry, or that is none any more: as upstream, nobody is known to manage it then */
		log_and_free(e, "managedFields");
		*out = (struct managers){0};
		return NULL;
	}
	cap_updaters(a, out);
	if (live && same_entries(a, out, before) && equal_but_version(a, live, obj))
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
	struct error *e = decode(a, managed_of(live), &before);
	bool reset = reset_by_client(managed_of(obj));

	if (e) {
		error_free(e);
		before = (struct managers){0};
	}
	e = reset ? NULL : decode(a, managed_of(obj), &sent);
	if (reset || e)
		sent = (struct managers){0};
	start_entries(a, req, reset, e, &sent, &before, &m);
	*obj = without_managed(a, obj);
	if (live)
		old = without_managed(a, live);
	TRY(update_entries(a, req, live ? &old : NULL, obj, &before, &m));
	set_managed(a, obj, &m);
	return NULL;
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

	TRY(at_version(w, merged, version, &m, &shape, &gone));
	if (gone)
		return NULL;
	TRY(at_version(w, pruned, version, &p, &shape, &gone));
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
	TRY(at_version(w, merged, last->api_version, &at, &shape, &gone));
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

	TRY(at_version(w, &pruned, last->api_version, &p, &shape, &gone));
	const struct field_set *before = typed_named_fields(w->a, shape, typed_set(w->a, shape, &at));
	const struct field_set *after = typed_named_fields(w->a, shape, typed_set(w->a, shape, &p));
	const struct field_set *removed = field_set_intersection(w->a, field_set_difference(w->a, before, after), named);
	struct jv out = typed_remove(w->a, shape, &at, removed);

	return at_version(w, &out, w->req->api_version, merged, &shape, &gone);
}

static struct error *apply_once(struct work *w, const struct jv *live, const struct jv *config, struct managers *m,
				bool force, struct jv *out, struct conflicts *conflicts)
{
	struct manager self = {
		.name = manager_name(w->req),
		.api_version = w->req->api_version,
		.subresource = w->req->subresource,
		.applied = true,
	};
	TRY(reconcile(w, live, m));
	struct manager *mine = find_manager(m, &self), last = {0};
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
	mine->set = filter(w, typed_set(w->a, w->req->shape, config));
	TRY(prune(w, out, m, had ? &last : NULL));
	TRY(take_ownership(w, live, out, m, &self, force, &c, conflicts));
	if (conflicts->n)
		return NULL;
	remove_empty(m);
	mine = find_manager(m, &self);
	if (mine) {
		mine->set = field_set_difference(w->a, mine->set, &stripped_fields);
		if (field_set_empty(mine->set))
			remove_manager(m, (uint32_t)(mine - m->v));
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
	if (has_entries(a, managed_of(config)))
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
	TRY(error_wrap(decode(a, managed_of(live), &before), "failed to decode managed fields"));
	TRY(decode(a, managed_of(live), &m));
	why = typed_validate(a, req->shape, config, false);
	if (why)
		return error_status(500, "", "failed to create typed patch object (%.*s): %s", STR_ARG(object_name(a, config)), why);
	struct jv bare = without_managed(a, config), nothing = empty_object(a, req, config);

	config = &bare;
	old = live ? without_managed(a, live) : nothing;
	/* what a definition's schema has become later may not be what the object is; built-in objects in disorder have no entries (update_entries) */
	why = live && (!m.n || !req->shape.type) ? typed_validate(a, req->shape, &old, true) : NULL;
	if (why)
		return error_status(500, "", m.n ? "failed to create typed live object (%.*s): %s"
						 : "failed to create manager for existing fields: failed to convert new object (%.*s) to smd typed: %s",
				    STR_ARG(object_name(a, &old)), why);
	if (live && !m.n)
		TRY(error_wrap(update(&w, &nothing, &old, &m, STR("before-first-apply")), "failed to create manager for existing fields"));
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
	struct manager self = {.name = manager_name(req), .subresource = req->subresource, .applied = true};
	struct manager *mine = find_manager(&m, &self);

	if (mine && !same)
		mine->time = now_text(&w);
	*changed = !same || !same_entries(a, &m, &before);
	if (!*changed && live) {
		*out = *live;
		return NULL;
	}
	*out = jv_copy(a, same ? &old : out);
	update_last_applied(a, req, config, out);
	set_managed(a, out, &m);
	return NULL;
}

/* ---- typed objects ---- */

typedef __typeof__(((struct meta_v1_object_meta *)0)->managed_fields) entry_list;

static struct error *decode_typed(struct arena *a, const entry_list *list, struct managers *out)
{
	*out = (struct managers){0};
	for (uint32_t i = 0; i < list->n; i++) {
		const struct meta_v1_managed_fields_entry *e = &list->v[i];
		struct manager m = {
			.name = e->manager,
			.api_version = e->api_version,
			.subresource = e->subresource,
			.applied = str_eqz(e->operation, "Apply"),
			.time = e->time && e->time->set ? time_format(a, *e->time, false) : STR_NULL,
		};

		if ((!m.applied && !str_eqz(e->operation, "Update")) || !m.api_version.n || !str_eqz(e->fields_type, "FieldsV1"))
			return error_status(422, "Invalid", "managed fields entry %u is not valid", i);
		if (e->fields_v1 && e->fields_v1->n) {
			TRY(field_set_parse(a, *e->fields_v1, &m.set));
			m.raw = *e->fields_v1;
			m.raw_set = m.set;
		}
		add_manager(a, out, &m);
	}
	return NULL;
}

struct error *managed_fields_check(struct arena *a, const struct meta_v1_object_meta *m)
{
	struct managers out;

	for (uint32_t i = 0; i < m->managed_fields.n; i++) {
		const struct meta_v1_managed_fields_entry *e = &m->managed_fields.v[i];

		if (!str_eqz(e->operation, "Apply") && !str_eqz(e->operation, "Update"))
			return error_new("operation must be `Apply` or `Update`");
		if (!e->api_version.n)
			return error_new("apiVersion must not be empty");
		if (!e->fields_type.n)
			return error_new("missing fieldsType in managed fields entry %u", i);
		if (!str_eqz(e->fields_type, "FieldsV1"))
			return error_new("invalid fieldsType \"%.*s\" in managed fields entry %u", STR_ARG(e->fields_type), i);
	}
	return error_wrap(decode_typed(a, &m->managed_fields, &out), "error decoding versioned set");
}

static void encode_typed(struct arena *a, struct managers *m, entry_list *out)
{
	memset(out, 0, sizeof *out);
	if (m->n)
		qsort(m->v, m->n, sizeof *m->v, order);
	for (uint32_t i = 0; i < m->n; i++) {
		const struct manager *from = &m->v[i];
		struct meta_v1_managed_fields_entry *e = arena_push(a, out);
		struct api_time t;

		e->manager = from->name;
		e->operation = from->applied ? STR("Apply") : STR("Update");
		e->api_version = from->api_version;
		if (from->time.n && time_parse(from->time, &t)) {
			e->time = arena_new(a, struct api_time);
			*e->time = t;
		}
		e->fields_type = STR("FieldsV1");
		e->fields_v1 = arena_new(a, struct str);
		*e->fields_v1 = fields_text(a, from);
		e->subresource = from->subresource;
	}
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
	struct error *e = live ? decode_typed(a, &object_meta(t, (void *)(uintptr_t)live)->managed_fields, &before) : NULL;

	if (e) {
		error_free(e);
		before = (struct managers){0};
	}
	e = reset ? NULL : decode_typed(a, list, &sent);
	start_entries(a, req, reset, e, &sent, &before, &m);
	if (!m.n && live) {
		memset(list, 0, sizeof *list);
		return NULL;
	}
	bare_tree(a, t, obj, &o);
	if (live)
		bare_tree(a, t, live, &l);
	TRY(update_entries(a, req, live ? &l : NULL, &o, &before, &m));
	encode_typed(a, &m, list);
	return NULL;
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
	e = entries_error(a, managed_of(config)); /* which are not kept, but an object of the type cannot be made with them */
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
