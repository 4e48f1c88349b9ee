/*
 * kubelet/objects.c: ConfigMaps, Secrets and other objects that pods name.
 * What a volume shows is watched (one object a watch, as the Node authorizer
 * allows), shared between pods; everything else is read when it is needed.
 */
#include "kubelet/internal.h"

#include <stdlib.h>

#define WATCHES_MAX 2000 /* objects watched at once; past it volumes are refreshed on pod changes only */

struct obj_watch {
	char *key;
	const struct api_resource *resource;
	struct informer *informer;
	struct kubelet *k;
	unsigned refs;
};

static struct str watch_key(struct arena *a, const struct api_resource *r, struct str ns, struct str name)
{
	return arena_printf(a, "%.*s/%.*s/%.*s", STR_ARG(r->plural), STR_ARG(ns), STR_ARG(name));
}

struct error *object_get(struct kubelet *k, struct arena *a, const struct api_resource *r, struct str ns, struct str name, void **out)
{
	struct obj_watch *w;

	if (!k->client)
		return error_new("%.*s \"%.*s\" cannot be read: this kubelet runs without an API server", STR_ARG(r->plural), STR_ARG(name));
	w = map_get(&k->watches, watch_key(a, r, ns, name));
	if (w && informer_synced(w->informer)) {
		*out = informer_get(w->informer, a, ns, name);
		if (*out)
			return NULL;
		/* Perhaps it has only just been made. */
	}
	return client_get(k->client, a, r, ns, name, out);
}

static void on_change(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct obj_watch *w = ctx;
	size_t it = 0;
	void *value;

	(void)ev;
	if (old && new_ && str_eq(old->resource_version, new_->resource_version))
		return;
	while (map_next(&w->k->pods, &it, NULL, &value)) {
		struct pod *p = value;

		for (uint32_t i = 0; i < p->watched.n; i++)
			if (strcmp(p->watched.v[i], w->key) == 0) {
				p->volumes_dirty = true;
				pod_kick(p);
				break;
			}
	}
}

void object_watch(struct pod *p, const struct api_resource *r, struct str ns, struct str name)
{
	arena_cleanup struct arena a = {0};
	struct kubelet *k = p->k;
	struct str key = watch_key(&a, r, ns, name);
	struct obj_watch *w;

	for (uint32_t i = 0; i < p->watched.n; i++)
		if (str_eqz(key, p->watched.v[i]))
			return;
	w = map_get(&k->watches, key);
	if (!w) {
		struct informer_opts o = {.resource = r, .ns = ns, .field_selector = arena_printf(&a, "metadata.name=%.*s", STR_ARG(name))};

		if (k->watches.n >= WATCHES_MAX || !k->client)
			return;
		w = xcalloc(1, sizeof *w);
		w->key = str_dupz(key);
		w->resource = r;
		w->k = k;
		w->informer = informer_new(k->client, &o);
		informer_on_event(w->informer, on_change, w);
		map_set(&k->watches, key, w);
		informer_start(w->informer);
	}
	w->refs++;
	if (p->watched.n == p->watched.cap) {
		p->watched.cap = p->watched.cap ? p->watched.cap * 2 : 4;
		p->watched.v = xrealloc(p->watched.v, p->watched.cap * sizeof *p->watched.v);
	}
	p->watched.v[p->watched.n++] = str_dupz(key);
}

void object_unwatch_all(struct pod *p)
{
	for (uint32_t i = 0; i < p->watched.n; i++) {
		struct obj_watch *w = map_get(&p->k->watches, str_from(p->watched.v[i]));

		if (w && --w->refs == 0) {
			map_del(&p->k->watches, str_from(w->key));
			informer_stop(w->informer);
			free(w->key);
			free(w);
		}
		free(p->watched.v[i]);
	}
	free(p->watched.v);
	memset(&p->watched, 0, sizeof p->watched);
}
