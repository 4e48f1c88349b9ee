/* What the runtime knows, in memory and on disk; recovery after it was killed or the machine restarted. */
#include "runtime/internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define STATE_MAX (4u << 20)

void rt_new_id(char out[RT_ID_LEN + 1])
{
	uint8_t b[RT_ID_LEN / 2];
	random_bytes(b, sizeof(b));
	for (size_t i = 0; i < sizeof(b); i++)
		snprintf(out + 2 * i, 3, "%02x", b[i]);
}

char *rt_sandbox_dir(struct rt *rt, const char *id)
{
	return xasprintf("%s/p/%s", rt->o.state_dir, id);
}

char *rt_bundle_dir(struct rt *rt, const char *id)
{
	return xasprintf("%s/c/%s", rt->o.state_dir, id);
}

char *rt_container_dir(struct rt *rt, const char *id)
{
	return xasprintf("%s/containers/%s", rt->o.root, id);
}

static char *sandbox_file(struct rt *rt, const char *id)
{
	return xasprintf("%s/sandboxes/%s.json", rt->o.root, id);
}

struct rt_sandbox *rt_sandbox_new(struct rt *rt, const char *id)
{
	struct rt_sandbox *s = xcalloc(1, sizeof(*s));
	snprintf(s->id, sizeof(s->id), "%s", id);
	s->refs = 1;
	s->rec.version = 1;
	s->rec.id = arena_str(&s->arena, str_from(s->id));
	s->rec.boot_id = str_from(rt->boot_id);
	s->next = rt->sandbox_list;
	if (s->next)
		s->next->prev = s;
	rt->sandbox_list = s;
	map_set(&rt->sandboxes, str_from(s->id), s);
	return s;
}

struct rt_container *rt_container_new(struct rt *rt, const char *id, struct rt_sandbox *sb)
{
	struct rt_container *c = xcalloc(1, sizeof(*c));
	snprintf(c->id, sizeof(c->id), "%s", id);
	c->refs = 1;
	c->sandbox = sb;
	sb->refs++;
	c->rec.version = 1;
	c->rec.id = arena_str(&c->arena, str_from(c->id));
	c->rec.sandbox_id = str_from(sb->id);
	c->rec.boot_id = str_from(rt->boot_id);
	c->next = rt->container_list;
	if (c->next)
		c->next->prev = c;
	rt->container_list = c;
	map_set(&rt->containers, str_from(c->id), c);
	return c;
}

void rt_sandbox_put(struct rt_sandbox **sp)
{
	struct rt_sandbox *s = *sp;
	*sp = NULL;
	if (s && !--s->refs) {
		arena_free(&s->arena);
		free(s);
	}
}

void rt_container_put(struct rt_container **cp)
{
	struct rt_container *c = *cp;
	*cp = NULL;
	if (c && !--c->refs) {
		rt_sandbox_put(&c->sandbox);
		arena_free(&c->arena);
		free(c);
	}
}

void rt_sandbox_forget(struct rt *rt, struct rt_sandbox *s)
{
	if (s->removed)
		return;
	s->removed = true;
	map_del(&rt->sandboxes, str_from(s->id));
	*(s->prev ? &s->prev->next : &rt->sandbox_list) = s->next;
	if (s->next)
		s->next->prev = s->prev;
	s->prev = s->next = NULL;
	rt_sandbox_put(&s);
}

void rt_container_forget(struct rt *rt, struct rt_container *c)
{
	if (c->removed)
		return;
	c->removed = true;
	map_del(&rt->containers, str_from(c->id));
	*(c->prev ? &c->prev->next : &rt->container_list) = c->next;
	if (c->next)
		c->next->prev = c->prev;
	c->prev = c->next = NULL;
	waitq_wake_all(&c->changed);
	rt_container_put(&c);
}

struct rt_sandbox *rt_sandbox_get(struct rt *rt, struct str id)
{
	struct rt_sandbox *s = map_get(&rt->sandboxes, id);
	if (!s && id.n >= 3 && id.n < RT_ID_LEN)
		for (struct rt_sandbox *o = rt->sandbox_list; o; o = o->next)
			if (str_has_prefix(str_from(o->id), id)) {
				if (s)
					return NULL; /* ambiguous */
				s = o;
			}
	if (s)
		s->refs++;
	return s;
}

struct rt_container *rt_container_get(struct rt *rt, struct str id)
{
	struct rt_container *c = map_get(&rt->containers, id);
	if (!c && id.n >= 3 && id.n < RT_ID_LEN)
		for (struct rt_container *o = rt->container_list; o; o = o->next)
			if (str_has_prefix(str_from(o->id), id)) {
				if (c)
					return NULL;
				c = o;
			}
	if (c)
		c->refs++;
	return c;
}

/* No fsync: after a power cut the machine's containers are gone anyway, and rename keeps a file whole. */
struct error *rt_sandbox_save(struct rt *rt, struct rt_sandbox *s)
{
	str_cleanup char *p = sandbox_file(rt, s->id);
	buf_cleanup struct buf b = {0};
	json_encode(&b, &rt_v1_sandbox_type, &s->rec);
	return sys_write_atomic(p, buf_view(&b), 0600, false);
}

struct error *rt_container_save(struct rt *rt, struct rt_container *c)
{
	str_cleanup char *dir = rt_container_dir(rt, c->id);
	str_cleanup char *p = sys_path(dir, "state.json");
	buf_cleanup struct buf b = {0};
	json_encode(&b, &rt_v1_container_type, &c->rec);
	return sys_write_atomic(p, buf_view(&b), 0600, false);
}

/* ---- events ---- */

static void publish(struct rt *rt, struct rt_sandbox *s, const char *id, int type)
{
	if (!rt->listeners)
		return;
	arena_cleanup struct arena a = {0};
	buf_cleanup struct buf b = {0};
	struct cri_v1_container_event_response ev = {
		.container_id = str_from(id),
		.container_event_type = type,
		.created_at = wall_ns(),
	};
	ev.pod_sandbox_status = arena_new(&a, struct cri_v1_pod_sandbox_status);
	rt_sandbox_status(rt, &a, s, ev.pod_sandbox_status);
	for (struct rt_container *c = rt->container_list; c; c = c->next)
		if (c->sandbox == s)
			rt_container_status(rt, &a, c, arena_push(&a, &ev.containers_statuses));
	pb_encode(&b, &cri_v1_container_event_response_type, &ev);
	struct rt_event *e = xcalloc(1, sizeof(*e));
	size_t n;
	char *p = buf_take(&b, &n);
	e->bytes = str_of(p, n);
	for (struct rt_listener *l = rt->listeners; l; l = l->next) {
		if (l->n == RT_EVENTS_MAX) {
			l->overflow = true;
		} else {
			l->q[(l->head + l->n++) % RT_EVENTS_MAX] = e;
			e->refs++;
		}
		waitq_wake_all(&l->wait);
	}
	if (!e->refs) {
		free(p);
		free(e);
	}
}

void rt_event(struct rt *rt, struct rt_container *c, int type)
{
	publish(rt, c->sandbox, c->id, type);
}

void rt_event_sandbox(struct rt *rt, struct rt_sandbox *s, int type)
{
	publish(rt, s, s->id, type);
}

/* ---- recovery ---- */

static struct error *each(const char *dir, struct error *(*fn)(struct rt *rt, const char *name), struct rt *rt)
{
	DIR *d = opendir(dir);
	if (!d)
		return errno == ENOENT ? NULL : error_sys(errno, "open %s", dir);
	/* Names first: fn may remove entries. */
	char **names = NULL;
	size_t n = 0;
	struct dirent *de;
	while ((de = readdir(d)))
		if (de->d_name[0] != '.') {
			names = xrealloc(names, (n + 1) * sizeof(*names));
			names[n++] = xstrdup(de->d_name);
		}
	closedir(d);
	struct error *e = NULL;
	for (size_t i = 0; i < n; i++) {
		if (!e)
			e = fn(rt, names[i]);
		free(names[i]);
	}
	free(names);
	return e;
}

static struct error *load_sandbox(struct rt *rt, const char *name)
{
	struct str s = str_from(name);
	str_cleanup char *p = xasprintf("%s/sandboxes/%s", rt->o.root, name);
	if (!str_has_suffix(s, STR(".json")) || s.n != RT_ID_LEN + 5) {
		if (str_has_suffix(s, STR(".tmp")))
			unlink(p);
		return NULL;
	}
	char id[RT_ID_LEN + 1];
	snprintf(id, sizeof(id), "%s", name);
	buf_cleanup struct buf b = {0};
	TRY(sys_read_file(AT_FDCWD, p, STATE_MAX, &b));
	struct rt_sandbox *sb = rt_sandbox_new(rt, id);
	struct rt_v1_sandbox rec = {0};
	struct error *e = json_decode(&sb->arena, &rt_v1_sandbox_type, arena_str(&sb->arena, buf_view(&b)), NULL, &rec);
	if (e || !rec.config || !rec.config->metadata || !str_eqz(rec.id, id)) {
		/* Cut off by a power failure: the pod is gone; the kubelet makes a new one. */
		log_warn("%s can't be read and is dropped: %s", p, error_message(e));
		error_free(e);
		unlink(p);
		rt_sandbox_forget(rt, sb);
		return NULL;
	}
	if (rec.version > 1) {
		rt_sandbox_forget(rt, sb);
		return error_new("%s was written by a newer Skiff (version %d); nothing was changed", p, rec.version);
	}
	sb->rec = rec;
	str_cleanup char *dir = rt_sandbox_dir(rt, id);
	if (!sb->rec.not_ready && (!str_eqz(rec.boot_id, rt->boot_id) || access(dir, F_OK) < 0)) {
		sb->rec.not_ready = true;
		sb->rec.veth = STR_NULL;
		log_and_free(rt_sandbox_save(rt, sb), "save pod sandbox %s", id);
	}
	return NULL;
}

static struct error *load_container(struct rt *rt, const char *id)
{
	str_cleanup char *dir = rt_container_dir(rt, id);
	str_cleanup char *p = sys_path(dir, "state.json");
	buf_cleanup struct buf b = {0};
	struct error *e = sys_read_file(AT_FDCWD, p, STATE_MAX, &b);
	arena_cleanup struct arena a = {0};
	struct rt_v1_container rec = {0};
	if (!e)
		e = json_decode(&a, &rt_v1_container_type, buf_view(&b), NULL, &rec);
	if (!e && rec.version > 1)
		return error_new("%s was written by a newer Skiff (version %d); nothing was changed", p, rec.version);
	sandbox_cleanup struct rt_sandbox *sb = e ? NULL : rt_sandbox_get(rt, rec.sandbox_id);
	if (e || !sb || !rec.config || !rec.config->metadata || !str_eqz(rec.id, id)) {
		/* Creation never finished, or its pod is gone. */
		log_v(2, "container %s is unfinished and is dropped: %s", id, error_message(e));
		error_free(e);
		str_cleanup char *bundle = rt_bundle_dir(rt, id);
		str_cleanup char *rootfs = sys_path(bundle, "rootfs");
		const char *del[] = {"delete", "--force", id, NULL};
		if (access(bundle, F_OK) == 0)
			error_free(rt_crun(rt, del, NULL)); /* may not exist */
		umount2(rootfs, MNT_DETACH);
		log_and_free(sys_remove_tree(bundle), "remove %s", bundle);
		log_and_free(sys_remove_tree(dir), "remove %s", dir);
		return NULL;
	}
	struct rt_container *c = rt_container_new(rt, id, sb);
	e = json_decode(&c->arena, &rt_v1_container_type, arena_str(&c->arena, buf_view(&b)), NULL, &c->rec);
	if (e)
		return e; /* was decoded a moment ago */
	if (c->rec.state != CRI_CONTAINER_EXITED) {
		if (!str_eqz(c->rec.boot_id, rt->boot_id)) {
			/* The machine was restarted. */
			c->rec.state = CRI_CONTAINER_EXITED;
			c->rec.exit_code = 255;
			c->rec.reason = STR("Unknown");
			c->rec.message = STR("the node was restarted");
			c->rec.finished_at = wall_ns();
			c->rec.pid = 0;
			log_and_free(rt_container_save(rt, c), "save container %s", id);
		} else {
			rt_watch_container(rt, c);
		}
	}
	return NULL;
}

/* Bundles and pod directories that no record names: left by a kill in the middle of a creation or removal. */
static struct error *sweep_bundle(struct rt *rt, const char *id)
{
	if (map_has(&rt->containers, str_from(id)))
		return NULL;
	str_cleanup char *bundle = rt_bundle_dir(rt, id);
	str_cleanup char *rootfs = sys_path(bundle, "rootfs");
	const char *del[] = {"delete", "--force", id, NULL};
	error_free(rt_crun(rt, del, NULL)); /* may not exist */
	umount2(rootfs, MNT_DETACH);
	log_and_free(sys_remove_tree(bundle), "remove %s", bundle);
	return NULL;
}

static struct error *sweep_pod(struct rt *rt, const char *id)
{
	struct rt_sandbox *s = map_get(&rt->sandboxes, str_from(id));
	if (s && !s->rec.not_ready)
		return NULL;
	str_cleanup char *dir = rt_sandbox_dir(rt, id);
	char veth[16];
	snprintf(veth, sizeof(veth), "sk%.11s", id);
	log_and_free(rt_veth_delete(rt, veth), "pod %s", id);
	rt_ns_unmake(dir);
	return NULL;
}

struct error *rt_load(struct rt *rt)
{
	str_cleanup char *sandboxes = sys_path(rt->o.root, "sandboxes");
	str_cleanup char *containers = sys_path(rt->o.root, "containers");
	str_cleanup char *bundles = sys_path(rt->o.state_dir, "c");
	str_cleanup char *pods = sys_path(rt->o.state_dir, "p");
	TRY(each(sandboxes, load_sandbox, rt));
	TRY(each(containers, load_container, rt));
	TRY(each(bundles, sweep_bundle, rt));
	return each(pods, sweep_pod, rt);
}
