/* Managers between an object and its scale subresource, whose one field is the replicas. */
#include "schema/managed_fields_internal.h"

#include <stdlib.h>

#define SCALE_VERSION "autoscaling/v1"
#define SCALE_REPLICAS "spec.replicas"

typedef struct meta_v1_managed_fields_entry entry;

/* Who an entry is of: appliers are one for all versions. */
static bool same_manager(const entry *x, const entry *y)
{
	return str_eq(x->manager, y->manager) && str_eq(x->operation, y->operation) &&
	       str_eq(x->subresource, y->subresource) &&
	       (str_eqz(x->operation, "Apply") || str_eq(x->api_version, y->api_version));
}

/* An entry that a later one of the same manager stands for. */
static bool overruled(const entry_list *l, uint32_t i)
{
	for (uint32_t k = i + 1; k < l->n; k++)
		if (same_manager(&l->v[i], &l->v[k]))
			return true;
	return false;
}

static entry *find(const entry_list *l, const entry *of)
{
	for (uint32_t i = 0; i < l->n; i++)
		if (same_manager(&l->v[i], of))
			return &l->v[i];
	return NULL;
}

static struct error *set_of(struct arena *a, const entry *e, const struct field_set **out)
{
	*out = NULL;
	return e->fields_v1 && e->fields_v1->n ? field_set_parse(a, *e->fields_v1, out) : NULL;
}

static bool has(struct arena *a, const struct field_set *s, struct str path)
{
	return !field_set_empty(field_set_intersection(a, s, field_set_of_path(a, path)));
}

static struct str *text_of(struct arena *a, const struct field_set *s)
{
	struct buf b buf_cleanup = {0};
	struct str *out = arena_new(a, struct str);

	field_set_encode(&b, s);
	*out = arena_str(a, buf_view(&b));
	return out;
}

static const struct replicas_path *path_at(const struct replicas_path *paths, size_t n, struct str api_version)
{
	for (size_t i = 0; i < n; i++)
		if (str_eq(paths[i].api_version, api_version))
			return &paths[i];
	return NULL;
}

static int order(const void *x, const void *y)
{
	const entry *a = x, *b = y;
	int64_t ta = a->time && a->time->set ? a->time->s : INT64_MIN,
		tb = b->time && b->time->set ? b->time->s : INT64_MIN;
	int c = str_cmp(a->operation, b->operation);

	if (!c && ta != tb)
		c = ta < tb ? -1 : 1;
	if (c || (c = str_cmp(a->manager, b->manager)) || (c = str_cmp(a->api_version, b->api_version)))
		return c;
	return str_cmp(a->subresource, b->subresource);
}

struct error *managed_fields_to_scale(struct arena *a, const struct replicas_path *paths, size_t n,
				      const struct meta_v1_object_meta *parent, struct meta_v1_object_meta *scale)
{
	const entry_list *from = (const entry_list *)&parent->managed_fields;
	entry_list *to = (entry_list *)&scale->managed_fields;

	memset(to, 0, sizeof *to);
	for (uint32_t i = 0; i < from->n; i++) {
		const struct replicas_path *p = path_at(paths, n, from->v[i].api_version);
		const struct field_set *s;
		entry *e;

		if (!p || !p->path.n || overruled(from, i))
			continue;
		TRY(set_of(a, &from->v[i], &s));
		if (!has(a, s, p->path))
			continue;
		e = arena_push(a, to);
		*e = from->v[i];
		e->api_version = STR(SCALE_VERSION);
		e->fields_v1 = text_of(a, field_set_of_path(a, STR(SCALE_REPLICAS)));
	}
	return NULL;
}

struct error *managed_fields_from_scale(struct arena *a, const struct replicas_path *paths, size_t n,
					struct str api_version, const struct meta_v1_object_meta *scale,
					struct meta_v1_object_meta *parent)
{
	const entry_list *had = (const entry_list *)&parent->managed_fields,
			 *now = (const entry_list *)&scale->managed_fields;
	const struct replicas_path *own = path_at(paths, n, api_version);
	const struct field_set *s;
	entry_list out = {0};

	for (uint32_t i = 0; i < had->n; i++) {
		const struct replicas_path *p = path_at(paths, n, had->v[i].api_version);
		entry e = had->v[i];

		if (!p || overruled(had, i))
			continue;
		TRY(set_of(a, &e, &s));
		if (p->path.n && has(a, s, p->path) && !find(now, &e)) {
			/* somebody else's now: or this one's through scale, who is another manager there */
			s = field_set_difference(a, s, field_set_of_path(a, p->path));
			if (field_set_empty(s))
				continue;
			e.fields_v1 = text_of(a, s);
		}
		*arena_push(a, &out) = e;
	}
	for (uint32_t i = 0; i < now->n; i++) {
		entry e = now->v[i], *kept = find(&out, &e);

		TRY(set_of(a, &e, &s));
		if (kept || overruled(now, i) || !has(a, s, STR(SCALE_REPLICAS)) || !own || !own->path.n)
			continue;
		e.api_version = api_version;
		e.time = NULL; /* the time of an entry is kept with the object, which does not know this one yet */
		e.fields_v1 = text_of(a, field_set_of_path(a, own->path));
		*arena_push(a, &out) = e;
	}
	if (out.n)
		qsort(out.v, out.n, sizeof *out.v, order);
	memcpy(&parent->managed_fields, &out, sizeof out);
	return NULL;
}
