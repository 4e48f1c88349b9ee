#include "controller/history.h"

#include "schema/defaults.h"
#include "schema/jv.h"

#include <stdlib.h>

typedef struct apps_v1_controller_revision rev_t;

static int cmp_revision(const void *pa, const void *pb)
{
	const rev_t *x = *(rev_t *const *)pa, *y = *(rev_t *const *)pb;

	if (x->revision != y->revision)
		return x->revision < y->revision ? -1 : 1;
	return str_cmp(x->metadata.name, y->metadata.name);
}

#define MAX_COLLISIONS 10

/* {"spec":{"template":{"$patch":"replace",...}}}: what kubectl rollout undo applies; members in order, as upstream stores them. */
static struct str data_of(struct arena *a, const struct core_v1_pod_template_spec *t)
{
	struct buf buf_cleanup b = {0};
	struct jv template, spec = jv_object(), doc = jv_object();

	jv_from_object(a, &core_v1_pod_template_spec_type, t, &template);
	jv_set(a, &template, STR("$patch"), jv_string(STR("replace")));
	jv_set(a, &spec, STR("template"), template);
	jv_set(a, &doc, STR("spec"), spec);
	jv_encode_sorted(&b, &doc);
	return arena_str(a, buf_view(&b));
}

/* FNV-1 (not 1a) of the data and the count of collisions, in upstream's safe alphabet. */
static struct str data_hash(struct arena *a, struct str data, int32_t collisions)
{
	uint32_t h = 2166136261u;
	struct str n = arena_printf(a, "%d", collisions);

	for (size_t i = 0; i < data.n + n.n; i++)
		h = h * 16777619u ^ (unsigned char)(i < data.n ? data.p[i] : n.p[i - data.n]);
	return safe_encode(a, arena_printf(a, "%u", h));
}

struct error *history_template(struct arena *a, const rev_t *r, struct core_v1_pod_template_spec **out)
{
	struct jv doc;

	*out = arena_new(a, struct core_v1_pod_template_spec);
	TRY(jv_parse(a, r->data, NULL, &doc));
	struct jv *t = jv_at(&doc, "spec", "template", NULL);

	if (!t)
		return error_new("ControllerRevision %.*s holds no template", STR_ARG(r->metadata.name));
	TRY(jv_to_object(a, &core_v1_pod_template_spec_type, t, NULL, *out));
	object_default(a, &core_v1_pod_template_spec_type, *out); /* an older server may have known fewer */
	return NULL;
}

struct error *history_sync(const struct history *h, struct arena *a, const struct core_v1_pod_template_spec *t, int32_t *collisions,
			   rev_t **current, rev_t ***all, size_t *n)
{
	const struct api_resource *res = &apps_v1_controllerrevisions_resource;
	const struct meta_v1_object_meta *om = h->owner.meta;
	void **objs, *out;
	struct str data = data_of(a, t);

	*current = NULL;
	TRY(claim_objects(&(struct claim){.m = h->m, .i = h->revisions, .r = res, .owner = h->owner, .selector = h->selector}, a, &objs, n));
	rev_t **v = arena_array(a, rev_t *, *n + 1);
	int64_t max = 0;

	for (size_t i = 0; i < *n; i++) {
		v[i] = objs[i];
		max = v[i]->revision > max ? v[i]->revision : max;
	}
	qsort(v, *n, sizeof(*v), cmp_revision);
	*all = v;
	for (size_t i = *n; i > 0 && !*current; i--) {
		struct core_v1_pod_template_spec *old;

		TRY(history_template(a, v[i - 1], &old));
		if (SAME(core_v1_pod_template_spec, old, t))
			*current = v[i - 1];
	}
	if (*current) {
		if ((*current)->revision == max)
			return NULL;
		(*current)->revision = max + 1; /* a rollback: the old one is the newest again */
		TRY(client_update(h->m->client, a, res, om->namespace, NULL, *current, &out));
		**current = *(rev_t *)out;
		qsort(v, *n, sizeof(*v), cmp_revision);
		return NULL;
	}
	for (int try = 0; try < MAX_COLLISIONS; try++) {
		rev_t *r = arena_new(a, rev_t);
		struct str hash = data_hash(a, data, *collisions);

		r->metadata.name = arena_printf(a, "%.*s-%.*s", STR_ARG(str_sub(om->name, 0, 223)), STR_ARG(hash));
		r->metadata.namespace = om->namespace;
		for (uint32_t i = 0; i < t->metadata.labels.n; i++)
			str_map_set(a, API_MAP(&r->metadata.labels), t->metadata.labels.v[i].key, t->metadata.labels.v[i].value);
		str_map_set(a, API_MAP(&r->metadata.labels), str_from(h->hash_label), hash);
		*API_MAP(&r->metadata.annotations) = *API_MAP(&om->annotations);
		owner_add_controller_ref(a, &r->metadata, &h->owner);
		r->data = data;
		r->revision = max + 1;
		struct error *e = client_create(h->m->client, a, res, om->namespace, r, &out);

		if (error_is(e, 409, "AlreadyExists")) {
			struct core_v1_pod_template_spec *old;

			error_clear(&e);
			TRY(client_get(h->m->client, a, res, om->namespace, r->metadata.name, &out));
			TRY(history_template(a, out, &old));
			if (!controlled_by(&((rev_t *)out)->metadata, om->uid) || !SAME(core_v1_pod_template_spec, old, t)) {
				++*collisions;
				continue;
			}
		}
		TRY(e);
		*current = v[(*n)++] = out;
		return NULL;
	}
	return error_new("no name is free for a ControllerRevision of %.*s/%.*s", STR_ARG(om->namespace), STR_ARG(om->name));
}

struct error *history_truncate(const struct history *h, struct arena *a, rev_t **all, size_t n, int32_t limit, const struct str *live, size_t n_live)
{
	size_t kept = 0;

	for (size_t i = n; i > 0; i--) {
		bool used = false;

		for (size_t k = 0; k < n_live; k++)
			used |= str_eq(all[i - 1]->metadata.name, live[k]);
		if (used || (int32_t)kept++ < limit)
			continue;
		struct error *e = client_delete(h->m->client, a, &apps_v1_controllerrevisions_resource, h->owner.meta->namespace,
						all[i - 1]->metadata.name, NULL);

		if (error_is(e, 404, NULL))
			error_clear(&e);
		TRY(e);
	}
	return NULL;
}
