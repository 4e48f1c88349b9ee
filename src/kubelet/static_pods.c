/*
 * kubelet/static_pods.c: pods from the manifest directory, and their mirrors
 * in the API, by which others see them.
 */
#include "kubelet/internal.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>

#include "schema/defaults.h"

#define RESCAN_MS 20000
#define MANIFEST_MAX (1u << 20)
#define STATIC_PODS_MAX 200

static bool manifest_name(const char *name)
{
	struct str s = str_from(name);

	return name[0] != '.' && (str_has_suffix(s, STR(".yaml")) || str_has_suffix(s, STR(".yml")) || str_has_suffix(s, STR(".json")) ||
				  str_has_suffix(s, STR(".manifest")));
}

/* A uid that stays the same while the manifest does. */
static struct str manifest_uid(struct arena *a, struct str text, struct str path, const char *node)
{
	uint64_t h[2] = {14695981039346656037ull, 1099511628211ull * 31};
	struct str parts[3] = {text, path, str_from(node)};

	for (int p = 0; p < 3; p++)
		for (size_t i = 0; i < parts[p].n; i++) {
			h[0] = (h[0] ^ (unsigned char)parts[p].p[i]) * 1099511628211ull;
			h[1] = (h[1] ^ (unsigned char)parts[p].p[i]) * 1099511628211ull + (uint64_t)p;
		}
	return arena_printf(a, "%016llx%016llx", (unsigned long long)h[0], (unsigned long long)h[1]);
}

static struct error *load(struct kubelet *k, const char *path, struct map *seen)
{
	arena_cleanup struct arena a = {0};
	buf_cleanup struct buf text = {0}, json = {0};
	struct core_v1_pod pod = {0};
	struct str uid;
	struct block *b;
	struct pod *known;

	TRY(file_read(path, &text));
	if (text.n > MANIFEST_MAX)
		return error_new("manifest is larger than 1 MiB");
	TRY(yaml_decode(&a, &core_v1_pod_type, buf_view(&text), NULL, &pod));
	if (!str_eqz(pod.kind, "Pod"))
		return error_new("kind is \"%.*s\", not Pod", STR_ARG(pod.kind));
	if (!pod.metadata.name.n || !pod.spec.containers.n)
		return error_new("a Pod needs a name and containers");
	if (pod.spec.service_account_name.n)
		return error_new("static pods may not name a serviceAccount");
	object_default(&a, &core_v1_pod_type, &pod);
	uid = manifest_uid(&a, buf_view(&text), str_from(path), k->c->node_name);
	pod.metadata.uid = uid;
	pod.metadata.name = arena_printf(&a, "%.*s-%s", STR_ARG(pod.metadata.name), k->c->node_name);
	if (!pod.metadata.namespace.n)
		pod.metadata.namespace = STR("default");
	pod.metadata.creation_timestamp = kubelet_time_now();
	pod.spec.node_name = str_from(k->c->node_name);
	str_map_set(&a, API_MAP(&pod.metadata.annotations), STR("kubernetes.io/config.source"), STR("file"));
	str_map_set(&a, API_MAP(&pod.metadata.annotations), STR("kubernetes.io/config.hash"), uid);
	{
		struct core_v1_toleration *t = arena_push(&a, &pod.spec.tolerations);

		t->operator = STR("Exists");
		t->effect = STR("NoExecute");
	}
	map_set(seen, uid, k);
	known = pod_by_uid(k, uid);
	if (known) {
		/* The same manifest again while its pod still ends: it starts when that has gone. */
		k->static_pending |= known->terminating && known->api_gone;
		return NULL;
	}
	json_encode(&json, &core_v1_pod_type, &pod);
	b = block_new(buf_view(&json));
	log_info("static pod %.*s/%.*s from %s", STR_ARG(pod.metadata.namespace), STR_ARG(pod.metadata.name), path);
	pod_update(k, b, true);
	block_unref(b);
	return NULL;
}

/* Deletes the mirror that is in the API now, whichever: it may have been made again since its uid was learnt. */
static void mirror_delete(struct pod *p)
{
	arena_cleanup struct arena a = {0};
	struct core_v1_pod *have = NULL;
	struct error *e = NULL;

	for (int tries = 0; tries < 5; tries++) {
		error_clear(&e);
		e = client_get(p->k->client, &a, &core_v1_pods_resource, str_from(p->ns), str_from(p->name), (void **)&have);
		if (e || !str_eqz(str_map_get(API_MAP(&have->metadata.annotations), STR("kubernetes.io/config.mirror")), p->uid))
			break;
		struct delete_opts o = {.grace_seconds = 0, .uid = have->metadata.uid};

		e = client_delete(p->k->client, &a, &core_v1_pods_resource, str_from(p->ns), str_from(p->name), &o);
		if (!error_is(e, 409, NULL))
			break;
	}
	if (e && !error_is(e, 404, NULL))
		log_warn("mirror pod %s/%s: %s", p->ns, p->name, e->message);
	error_free(e);
}

static void scan(struct kubelet *k)
{
	struct map seen = {0};
	DIR *d = opendir(k->c->manifest_dir);
	struct dirent *e;
	size_t it = 0, n = 0;
	void *value;
	struct pod *gone[64];
	size_t n_gone = 0;

	while (d && (e = readdir(d)) && n < STATIC_PODS_MAX) {
		arena_cleanup struct arena a = {0};
		struct error *err;

		if (!manifest_name(e->d_name))
			continue;
		n++;
		err = load(k, arena_printf(&a, "%s/%s", k->c->manifest_dir, e->d_name).p, &seen);
		log_and_free(err, "manifest %s/%s", k->c->manifest_dir, e->d_name);
	}
	if (d)
		closedir(d);
	while (map_next(&k->pods, &it, NULL, &value)) {
		struct pod *p = value;

		if (p->is_static && !p->api_gone && !map_has(&seen, str_from(p->uid)) && n_gone < ARRAY_LEN(gone))
			gone[n_gone++] = p;
	}
	for (size_t i = 0; i < n_gone; i++) {
		struct pod *p = gone[i];

		log_info("static pod %s/%s: its manifest is gone or changed", p->ns, p->name);
		p->is_static = false; /* so that pod_gone takes it, and a mirror that is being made goes again */
		if (k->client)
			mirror_delete(p);
		pod_gone(k, str_from(p->uid));
	}
	map_free(&seen);
}

/* Makes the mirror in the API, if it is not there. */
void mirror_pod_ensure(struct pod *p)
{
	arena_cleanup struct arena a = {0};
	struct kubelet *k = p->k;
	struct core_v1_pod *pod, *made = NULL;
	struct block *hold = NULL;
	struct meta_v1_owner_reference *o;
	struct str uid = str_from(p->uid);
	struct error *e;

	if (!k->client || !k->node_registered || !k->sources_ready || p->terminating)
		return;
	if (p->mirror_uid && p->mirror_deleting) {
		struct delete_opts del = {.grace_seconds = 0, .uid = str_from(p->mirror_uid)};

		e = client_delete(k->client, &a, &core_v1_pods_resource, str_from(p->ns), str_from(p->name), &del);
		if (e && !error_is(e, 404, NULL)) {
			log_v(1, "mirror pod %s/%s: %s", p->ns, p->name, e->message);
			pod_kick_at(p, now_ms() + 5000);
			error_free(e);
			return;
		}
		error_free(e);
		mirror_is(p, STR_NULL);
	}
	if (p->mirror_uid)
		return;
	e = pod_decode(p, &a, &pod, &hold);
	if (!e) {
		pod->metadata.uid = STR_NULL;
		pod->metadata.creation_timestamp = (struct api_time){0};
		str_map_set(&a, API_MAP(&pod->metadata.annotations), STR("kubernetes.io/config.mirror"), uid);
		o = arena_push(&a, &pod->metadata.owner_references);
		o->api_version = STR("v1");
		o->kind = STR("Node");
		o->name = str_from(k->c->node_name);
		o->uid = str_from(k->node_uid);
		o->controller = arena_new(&a, bool);
		*o->controller = true;
		memset(&pod->status, 0, sizeof pod->status);
		e = client_create(k->client, &a, &core_v1_pods_resource, pod->metadata.namespace, pod, (void **)&made);
	}
	if (!e) {
		mirror_is(p, made->metadata.uid);
		if (!p->is_static) /* its manifest went while it was made */
			mirror_delete(p);
	} else if (error_is(e, 409, NULL)) {
		/* Of an earlier life: the watch tells its uid. A different manifest's mirror is replaced. */
		struct core_v1_pod *have = NULL;

		error_clear(&e);
		e = client_get(k->client, &a, &core_v1_pods_resource, pod->metadata.namespace, pod->metadata.name, (void **)&have);
		if (!e && str_eq(str_map_get(API_MAP(&have->metadata.annotations), STR("kubernetes.io/config.mirror")), uid)) {
			mirror_is(p, have->metadata.uid);
		} else if (!e) {
			struct delete_opts del = {.grace_seconds = 0, .uid = have->metadata.uid};

			e = client_delete(k->client, &a, &core_v1_pods_resource, pod->metadata.namespace, pod->metadata.name, &del);
			pod_kick_at(p, now_ms() + 1000);
		}
	}
	if (e) {
		log_v(1, "mirror pod %s/%s: %s", p->ns, p->name, e->message);
		pod_kick_at(p, now_ms() + 5000);
	}
	error_free(e);
	block_unref(hold);
}

/* Once, when both sides are known: mirrors whose manifest went while no kubelet ran. */
static void drop_orphans(struct kubelet *k)
{
	arena_cleanup struct arena a = {0};
	void **objs;
	size_t n = informer_list(k->pod_informer, &a, STR_NULL, NULL, &objs);

	for (size_t i = 0; i < n; i++) {
		struct core_v1_pod *m = objs[i];
		struct pod *p = pod_by_name(k, m->metadata.namespace, m->metadata.name);
		struct delete_opts del = {.grace_seconds = 0, .uid = m->metadata.uid};
		struct error *e;

		if (!str_map_has(API_MAP(&m->metadata.annotations), STR("kubernetes.io/config.mirror")) || (p && p->is_static))
			continue;
		e = client_delete(k->client, &a, &core_v1_pods_resource, m->metadata.namespace, m->metadata.name, &del);
		if (e && !error_is(e, 404, NULL))
			log_warn("mirror pod %.*s/%.*s: %s", STR_ARG(m->metadata.namespace), STR_ARG(m->metadata.name), e->message);
		error_free(e);
	}
}

void static_pods_run(void *arg)
{
	struct kubelet *k = arg;
	bool orphans_done = false;
	struct fs_watch *w = NULL;
	struct error *e = dir_make(k->c->manifest_dir, 0755);

	if (!e)
		e = fs_watch_open(k->c->manifest_dir, &w);
	log_and_free(e, "watching %s (it is read every %d s)", k->c->manifest_dir, RESCAN_MS / 1000);
	while (!fiber_cancelled()) {
		k->static_pending = false;
		scan(k);
		if (!orphans_done && k->client && k->sources_ready) {
			drop_orphans(k);
			orphans_done = true;
		}
		if (w) {
			int64_t token = deadline_push(k->static_pending ? 500 : RESCAN_MS);

			e = fs_watch_wait(w);
			deadline_pop(token);
			if (!e) { /* a moment for the writer to finish */
				e = fiber_sleep(50);
			}
		} else {
			e = fiber_sleep(k->static_pending ? 500 : RESCAN_MS);
		}
		error_free(e);
	}
	fs_watch_close(w);
}
