/* What a server serves, as it tells: /api, /apis and one document a group-version. */
#include "client/internal.h"

#include <errno.h>

#include "base/log.h"

#define DISCOVERY_MAX_RESOURCES 20000

struct api_resource *client_dynamic_resource(struct arena *a, struct str group, struct str version, struct str plural,
					     struct str kind, bool namespaced, uint16_t verbs)
{
	struct api_resource *r = arena_new(a, struct api_resource);

	r->group = arena_str(a, group);
	r->version = arena_str(a, version);
	r->plural = arena_str(a, plural);
	r->singular = STR_NULL;
	r->kind = arena_str(a, kind);
	r->list_kind = arena_printf(a, "%.*sList", STR_ARG(kind));
	r->namespaced = namespaced;
	r->verbs = verbs;
	r->type = &meta_v1_partial_object_metadata_type;
	r->list_type = &meta_v1_partial_object_metadata_list_type;
	return r;
}

static uint16_t verb_bits(const struct strings *v)
{
	static const struct {
		const char *name;
		uint16_t bit;
	} verbs[] = {
		{"create", VERB_CREATE}, {"delete", VERB_DELETE}, {"deletecollection", VERB_DELETECOLLECTION}, {"get", VERB_GET},
		{"list", VERB_LIST}, {"patch", VERB_PATCH}, {"update", VERB_UPDATE}, {"watch", VERB_WATCH},
	};
	uint16_t bits = 0;

	for (uint32_t i = 0; i < v->n; i++)
		for (size_t k = 0; k < sizeof(verbs) / sizeof(*verbs); k++)
			if (str_eqz(v->v[i], verbs[k].name))
				bits |= verbs[k].bit;
	return bits;
}

struct found {
	struct arena *a;
	LIST(const struct api_resource *) list;
};

/* The same kind of a group in another version is the same objects: the preferred version, which comes first, stands for it. */
static bool known(const struct found *f, struct str group, struct str plural)
{
	for (uint32_t i = 0; i < f->list.n; i++)
		if (str_eq(f->list.v[i]->group, group) && str_eq(f->list.v[i]->plural, plural))
			return true;
	return false;
}

static struct error *group_version(struct client *c, struct found *f, struct str gv)
{
	arena_cleanup struct arena t = {0};
	struct str body, group, version;
	struct meta_v1_api_resource_list list = {0};

	api_version_split(gv, &group, &version);
	TRY(client_raw(c, &t, "GET", arena_printf(&t, "%s/%.*s", str_empty(group) ? "/api" : "/apis", STR_ARG(gv)), NULL,
		       STR_NULL, &body));
	TRY(json_decode(&t, &meta_v1_api_resource_list_type, body, NULL, &list));
	for (uint32_t i = 0; i < list.resources.n && f->list.n < DISCOVERY_MAX_RESOURCES; i++) {
		const struct meta_v1_api_resource *r = &list.resources.v[i];

		if (str_index(r->name, '/') >= 0 || known(f, group, r->name))
			continue;
		const struct api_resource *made = client_dynamic_resource(f->a, group, version, r->name, r->kind, r->namespaced,
									  verb_bits(&r->verbs));
		*arena_push(f->a, &f->list) = made;
	}
	return NULL;
}

struct error *client_discover(struct client *c, struct arena *a, const struct api_resource ***out, size_t *n, bool *partial)
{
	arena_cleanup struct arena t = {0};
	struct found f = {.a = a};
	struct meta_v1_api_group_list groups = {0};
	struct str body;

	if (partial)
		*partial = false;
	TRY(group_version(c, &f, STR("v1")));
	TRY(client_raw(c, &t, "GET", STR("/apis"), NULL, STR_NULL, &body));
	TRY(json_decode(&t, &meta_v1_api_group_list_type, body, NULL, &groups));
	for (uint32_t i = 0; i < groups.groups.n; i++) {
		const struct meta_v1_api_group *g = &groups.groups.v[i];

		for (int pass = 0; pass < 2; pass++) {
			for (uint32_t k = 0; k < g->versions.n; k++) {
				struct str gv = g->versions.v[k].group_version;

				if (str_eq(gv, g->preferred_version.group_version) != (pass == 0))
					continue;
				struct error *e = group_version(c, &f, gv);

				if (!e)
					continue;
				if (error_is_sys(e, ECANCELED) || error_is_sys(e, ETIMEDOUT))
					return e;
				if (partial)
					*partial = true;
				log_v(2, "discovery of %.*s: %s", STR_ARG(gv), error_message(e));
				error_free(e);
			}
		}
	}
	*out = f.list.v;
	*n = f.list.n;
	return NULL;
}
