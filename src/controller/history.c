#include "controller/history.h"

#include <stdlib.h>

typedef struct apps_v1_controller_revision rev_t;

static int cmp_revision(const void *pa, const void *pb)
{
	const rev_t *x = *(rev_t *const *)pa, *y = *(rev_t *const *)pb;

	if (x->revision != y->revision)
		return x->revision < y->revision ? -1 : 1;
	return str_cmp(x->metadata.name, y->metadata.name);
}

/* {"spec":{"template":{...,"$patch":"replace"}}}: what kubectl rollout undo applies. */
static struct str data_of(struct arena *a, const struct core_v1_pod_template_spec *t)
{
	struct buf buf_cleanup b = {0};

	json_encode(&b, &core_v1_pod_template_spec_type, t);
	if (b.n < 2 || b.p[b.n - 1] != '}')
		return STR_NULL;
	b.n--;
	return arena_printf(a, "{\"spec\":{\"template\":%.*s,\"$patch\":\"replace\"}}}", STR_ARG(buf_view(&b)));
}

struct error *history_template(struct arena *a, const rev_t *r, struct core_v1_pod_template_spec **out)
{
	struct jv doc;

	*out = arena_new(a, struct core_v1_pod_template_spec);
	TRY(jv_parse(a, r->data, NULL, &doc));
	struct jv *t = jv_at(&doc, "spec", "template", NULL);

	if (!t)
		return error_new("ControllerRevision %.*s holds no template", STR_ARG(r->metadata.name));
	return jv_to_object(a, &core_v1_pod_template_spec_type, t, NULL, *out);
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
	rev_t *r = arena_new(a, rev_t);
	struct str hash = object_hash(a, &core_v1_pod_template_spec_type, t, collisions);

	r->metadata.name = arena_printf(a, "%.*s-%.*s", STR_ARG(str_sub(om->name, 0, 223)), STR_ARG(hash));
	r->metadata.namespace = om->namespace;
	for (uint32_t i = 0; i < t->metadata.labels.n; i++)
		str_map_set(a, API_MAP(&r->metadata.labels), t->metadata.labels.v[i].key, t->metadata.labels.v[i].value);
	str_map_set(a, API_MAP(&r->metadata.labels), str_from(h->hash_label), hash);
	owner_add_controller_ref(a, &r->metadata, &h->owner);
	r->data = data;
	r->revision = max + 1;
	struct error *e = client_create(h->m->client, a, res, om->namespace, r, &out);

	if (error_is(e, 409, "AlreadyExists")) {
		error_clear(&e);
		TRY(client_get(h->m->client, a, res, om->namespace, r->metadata.name, &out));
		rev_t *there = out;
		struct core_v1_pod_template_spec *old;

		TRY(history_template(a, there, &old));
		if (!controlled_by(&there->metadata, om->uid) || !SAME(core_v1_pod_template_spec, old, t)) {
			++*collisions;
			return error_status(409, "AlreadyExists", "hash collision of ControllerRevision %.*s", STR_ARG(r->metadata.name));
		}
	}
	TRY(e);
	*current = v[(*n)++] = out;
	return NULL;
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
