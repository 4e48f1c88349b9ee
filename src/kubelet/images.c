/*
 * kubelet/images.c: images for containers: pull policy, credentials, backoff;
 * and the removal of unused images when the disk fills up.
 */
#include <errno.h>
#include "kubelet/internal.h"

#include <stdlib.h>

#include "schema/jv.h"

#define PULL_DEADLINE_MS (30 * 60 * 1000)
#define GC_PERIOD_MS (5 * 60 * 1000)
#define GC_MIN_AGE_MS (2 * 60 * 1000)

/* Where the tag or digest begins; the registry's port is no tag. */
static bool has_tag(struct str image)
{
	ptrdiff_t slash = str_rindex(image, '/'), colon = str_rindex(image, ':');

	return str_index(image, '@') >= 0 || colon > slash;
}

struct str image_normalize(struct arena *a, struct str image)
{
	return has_tag(image) ? image : arena_printf(a, "%.*s:latest", STR_ARG(image));
}

/* The grammar of references, as far as users get it wrong: empty, capitals in the repository, odd characters. */
static bool image_name_ok(struct str image)
{
	struct str name = image;
	ptrdiff_t at = str_index(name, '@'), slash = str_index(name, '/'), colon;

	if (at >= 0)
		name = str_sub(name, 0, (size_t)at);
	colon = str_rindex(name, ':');
	if (colon > str_rindex(name, '/'))
		name = str_sub(name, 0, (size_t)colon);
	if (!name.n || name.n > 255)
		return false;
	/* The first part may be a host, where capitals are fine. */
	if (slash >= 0 && (str_index(str_sub(name, 0, (size_t)slash), '.') >= 0 || str_index(str_sub(name, 0, (size_t)slash), ':') >= 0))
		name = str_sub(name, (size_t)slash + 1, name.n);
	for (size_t i = 0; i < name.n; i++) {
		char c = name.p[i];

		if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-' || c == '/'))
			return false;
	}
	return name.n && name.p[0] != '/' && name.p[name.n - 1] != '/';
}

static struct str registry_of(struct str image)
{
	struct str rest = image, first = str_cut(&rest, '/');

	if (!rest.p || (str_index(first, '.') < 0 && str_index(first, ':') < 0 && !str_eqz(first, "localhost")))
		return STR("docker.io");
	return first;
}

/* A key of "auths" fits: scheme and path do not count, docker.io has several names. */
static bool registry_matches(struct str key, struct str registry, struct str image)
{
	struct str host;

	if (str_has_prefix(key, STR("https://")))
		key = str_sub(key, 8, key.n);
	else if (str_has_prefix(key, STR("http://")))
		key = str_sub(key, 7, key.n);
	host = key;
	host = str_cut(&host, '/');
	if (str_eq(host, registry)) {
		/* "registry/path" is good for what lies below it only. */
		return key.n == host.n || str_has_prefix(image, key) || str_has_prefix(str_sub(key, host.n, key.n), STR("/v1")) ||
		       str_has_prefix(str_sub(key, host.n, key.n), STR("/v2"));
	}
	return str_eqz(registry, "docker.io") && (str_eqz(host, "index.docker.io") || str_eqz(host, "registry-1.docker.io"));
}

static bool find_auth(struct arena *a, const struct jv *auths, struct str image, struct cri_v1_auth_config *out)
{
	struct str registry = registry_of(image);

	for (uint32_t i = 0; jv_is(auths, JV_OBJECT) && i < auths->n; i++) {
		const struct jv_member *m = &auths->members[i];
		struct str auth, text;

		if (!registry_matches(m->key, registry, image))
			continue;
		out->username = jv_str(jv_get(&m->value, STR("username")));
		out->password = jv_str(jv_get(&m->value, STR("password")));
		out->identity_token = jv_str(jv_get(&m->value, STR("identitytoken")));
		out->registry_token = jv_str(jv_get(&m->value, STR("registrytoken")));
		out->server_address = m->key;
		auth = jv_str(jv_get(&m->value, STR("auth")));
		if (auth.n && !out->username.n && base64_decode(a, auth, &text)) {
			out->username = str_cut(&text, ':');
			out->password = text;
		}
		return true;
	}
	return false;
}

/* The first of the pod's pull secrets that knows the registry; false: none. */
static bool pull_auth(struct kubelet *k, struct arena *a, const struct core_v1_pod *pod, struct str image, struct cri_v1_auth_config *out)
{
	for (uint32_t i = 0; i < pod->spec.image_pull_secrets.n; i++) {
		struct str name = pod->spec.image_pull_secrets.v[i].name, text;
		struct core_v1_secret *s = NULL;
		struct jv doc = {0};
		struct error *e = object_get(k, a, &core_v1_secrets_resource, pod->metadata.namespace, name, (void **)&s);

		if (!e) {
			text = str_map_get(API_MAP(&s->data), STR(".dockerconfigjson"));
			if (text.n) {
				e = jv_parse(a, text, NULL, &doc);
				if (!e && find_auth(a, jv_get(&doc, STR("auths")), image, out))
					return true;
			} else if ((text = str_map_get(API_MAP(&s->data), STR(".dockercfg"))).n) {
				e = jv_parse(a, text, NULL, &doc);
				if (!e && find_auth(a, &doc, image, out))
					return true;
			}
		}
		/* As upstream: a secret that cannot be used is passed over, the pull decides. */
		if (e)
			log_v(2, "pull secret %.*s: %s", STR_ARG(name), e->message);
		error_free(e);
	}
	return false;
}

static struct error *image_status(struct kubelet *k, struct arena *a, struct str image, struct cri_v1_image **out)
{
	struct cri_v1_image_spec spec = {.image = image};
	struct cri_v1_image_status_request req = {.image = &spec};
	struct cri_v1_image_status_response resp = {0};

	*out = NULL;
	TRY(CRI_CALL(k, a, IMAGE, ImageStatus, image_status, &req, &resp));
	*out = resp.image;
	return NULL;
}

struct pull {
	struct pod *p;
	struct arena *a;
	const struct core_v1_pod *pod;
	struct str image, ref;
	bool if_not_present;
	int64_t waited_ms, took_ms;
};

static struct error *do_pull(void *arg)
{
	struct pull *x = arg;
	struct kubelet *k = x->p->k;
	struct cri_v1_image_spec spec = {.image = x->image, .user_specified_image = x->image};
	struct cri_v1_auth_config auth = {0};
	struct cri_v1_pod_sandbox_config sandbox = {0};
	struct cri_v1_pull_image_request req = {.image = &spec, .sandbox_config = &sandbox};
	struct cri_v1_pull_image_response resp = {0};
	struct cri_v1_image *have;
	int64_t t0 = now_ms(), t1, token;
	struct error *e;
	buf_cleanup struct buf b = {0};
	struct str answer = STR_NULL;

	if (k->c->serialize_image_pulls)
		TRY(fiber_mutex_lock(&k->pull_lock));
	t1 = now_ms();
	if (x->if_not_present && t1 - t0 > 5) {
		/* Another pod may have brought it meanwhile. */
		e = image_status(k, x->a, x->image, &have);
		if (!e && have) {
			x->ref = have->id;
			goto out;
		}
		error_clear(&e);
	}
	if (pull_auth(k, x->a, x->pod, x->image, &auth))
		req.auth = &auth;
	sandbox_config(x->p, x->a, x->pod, 0, &sandbox);
	k->n_pulls++;
	/* Larger than cri_call's deadline: images can be big. */
	pb_encode(&b, &cri_v1_pull_image_request_type, &req);
	token = deadline_push(PULL_DEADLINE_MS);
	e = grpc_call(k->cri, x->a, "/" CRI_IMAGE_SERVICE "/PullImage", buf_view(&b), &answer);
	deadline_pop(token);
	if (!e)
		e = pb_decode(x->a, &cri_v1_pull_image_response_type, answer, &resp);
	x->ref = resp.image_ref;
out:
	if (k->c->serialize_image_pulls)
		fiber_mutex_unlock(&k->pull_lock);
	x->took_ms = now_ms() - t1;
	x->waited_ms = now_ms() - t0;
	return e;
}

static struct str seconds(struct arena *a, int64_t ms)
{
	return ms < 1000 ? arena_printf(a, "%lldms", (long long)ms) : duration_format(a, ms * 1000000);
}

struct error *image_ensure(struct pod *p, struct arena *a, const struct core_v1_pod *pod, const struct core_v1_container *c,
			   struct cstate *cs, struct str field_path, struct str *ref, const char **reason)
{
	struct kubelet *k = p->k;
	struct str policy = c->image_pull_policy, image = image_normalize(a, c->image);
	const char *path = field_path.p;
	struct cri_v1_image *have = NULL;
	struct pull pull = {.p = p, .a = a, .pod = pod, .image = image};
	struct error *e;
	int64_t left;

	if (!image_name_ok(c->image)) {
		*reason = "InvalidImageName";
		pod_event(p, pod, path, "Warning", "InspectFailed",
			  "Failed to apply default image tag \"%.*s\": couldn't parse image name \"%.*s\": invalid reference format", STR_ARG(c->image),
			  STR_ARG(c->image));
		return error_new("Failed to apply default image tag \"%.*s\": couldn't parse image name \"%.*s\": invalid reference format",
				 STR_ARG(c->image), STR_ARG(c->image));
	}
	if (!policy.n)
		policy = str_has_suffix(image, STR(":latest")) ? STR("Always") : STR("IfNotPresent");
	pull.if_not_present = !str_eqz(policy, "Always");
	if (pull.if_not_present) {
		e = image_status(k, a, image, &have);
		if (e) {
			*reason = "ImageInspectError";
			pod_event(p, pod, path, "Warning", "InspectFailed", "Failed to inspect image \"%.*s\": %s", STR_ARG(image), e->message);
			return error_wrap(e, "Failed to inspect image \"%.*s\"", STR_ARG(image));
		}
	}
	if (have) {
		pod_event(p, pod, path, "Normal", "Pulled", "Container image \"%.*s\" already present on machine and can be accessed by the pod",
			  STR_ARG(c->image));
		*ref = have->id;
		return NULL;
	}
	if (str_eqz(policy, "Never")) {
		*reason = "ErrImageNeverPull";
		pod_event(p, pod, path, "Warning", "ErrImageNeverPull", "Container image \"%.*s\" is not present with pull policy of Never",
			  STR_ARG(c->image));
		return error_new("Container image \"%.*s\" is not present with pull policy of Never", STR_ARG(c->image));
	}
	left = backoff_wait(cs->pull_backoff_ms, cs->pull_failed_at, now_ms());
	if (left > 0) {
		pod_event(p, pod, path, "Normal", "BackOff", "Back-off pulling image \"%.*s\"", STR_ARG(c->image));
		*reason = "ImagePullBackOff";
		pod_kick_at(p, now_ms() + left);
		return error_new("Back-off pulling image \"%.*s\"%s%s", STR_ARG(c->image), cs->image_digest ? ": " : "",
				 cs->image_digest ? cs->image_digest : "");
	}
	pod_event(p, pod, path, "Normal", "Pulling", "Pulling image \"%.*s\"", STR_ARG(c->image));
	e = pod_interruptible(p, "image-pull", do_pull, &pull);
	if (error_is_sys(e, ECANCELED))
		return e;
	if (e) {
		*reason = "ErrImagePull";
		backoff_next(&cs->pull_backoff_ms, &cs->pull_failed_at, now_ms());
		pod_event(p, pod, path, "Warning", "Failed", "Failed to pull image \"%.*s\": %s", STR_ARG(c->image), e->message);
		pod_event(p, pod, path, "Warning", "Failed", "Error: ErrImagePull");
		free(cs->image_digest);
		cs->image_digest = xasprintf("ErrImagePull: %s", e->message);
		pod_kick_at(p, now_ms() + cs->pull_backoff_ms / 10);
		return e;
	}
	e = image_status(k, a, pull.ref.n ? pull.ref : image, &have);
	error_clear(&e);
	pod_event(p, pod, path, "Normal", "Pulled", "Successfully pulled image \"%.*s\" in %s (%s including waiting). Image size: %llu bytes.",
		  STR_ARG(c->image), seconds(a, pull.took_ms).p, seconds(a, pull.waited_ms).p, have ? (unsigned long long)have->size : 0ull);
	cs->pull_backoff_ms = 0;
	*ref = have && have->id.n ? have->id : pull.ref;
	return NULL;
}

struct error *image_ensure_volume(struct pod *p, struct arena *a, const struct core_v1_pod *pod, struct str image, struct str policy,
				  struct str *ref)
{
	struct core_v1_container c = {.image = image, .image_pull_policy = policy};
	struct cstate *cs = pod_cstate_make(p, arena_printf(a, "volume:%.*s", STR_ARG(image)), CONTAINER_MAIN);
	const char *reason = "";
	struct error *e = image_ensure(p, a, pod, &c, cs, STR_NULL, ref, &reason);

	return e ? error_wrap(e, "%s", reason) : NULL;
}

/* ---- garbage collection ---- */

static bool in_use(const struct cri_v1_list_containers_response *l, const struct cri_v1_image *image)
{
	for (uint32_t i = 0; i < l->containers.n; i++) {
		const struct cri_v1_container *c = &l->containers.v[i];

		if (str_eq(c->image_ref, image->id) || str_eq(c->image_id, image->id) || (c->image && str_eq(c->image->image, image->id)))
			return true;
	}
	return false;
}

int64_t image_gc_free(struct kubelet *k, int64_t bytes)
{
	arena_cleanup struct arena a = {0};
	struct cri_v1_list_images_request ireq = {0};
	struct cri_v1_list_images_response images = {0};
	struct cri_v1_list_containers_request creq = {0};
	struct cri_v1_list_containers_response containers = {0};
	int64_t freed = 0;
	struct error *e;

	e = CRI_CALL(k, &a, IMAGE, ListImages, list_images, &ireq, &images);
	if (!e)
		e = CRI_CALL(k, &a, RUNTIME, ListContainers, list_containers, &creq, &containers);
	for (uint32_t i = 0; !e && i < images.images.n && freed < bytes; i++) {
		const struct cri_v1_image *im = &images.images.v[i];
		struct cri_v1_image_spec spec = {.image = im->id};
		struct cri_v1_remove_image_request req = {.image = &spec};
		struct cri_v1_remove_image_response resp = {0};
		struct error *re;

		if (im->pinned || in_use(&containers, im))
			continue;
		re = CRI_CALL(k, &a, IMAGE, RemoveImage, remove_image, &req, &resp);
		if (re) {
			log_warn("removing image %.*s: %s", STR_ARG(im->id), re->message);
			error_free(re);
			continue;
		}
		log_info("removed unused image %.*s, %llu bytes", STR_ARG(im->id), (unsigned long long)im->size);
		freed += (int64_t)im->size;
	}
	log_and_free(e, "image garbage collection");
	return freed;
}

void image_gc_run(void *arg)
{
	struct kubelet *k = arg;

	while (!fiber_cancelled()) {
		arena_cleanup struct arena a = {0};
		struct cri_v1_image_fs_info_request req = {0};
		struct cri_v1_image_fs_info_response resp = {0};
		struct fs_usage u;
		struct error *e = fiber_sleep(GC_PERIOD_MS);
		int percent;

		if (e) {
			error_free(e);
			return;
		}
		if (k->c->image_gc_high >= 100)
			continue;
		e = CRI_CALL(k, &a, IMAGE, ImageFsInfo, image_fs_info, &req, &resp);
		if (!e && resp.image_filesystems.n && resp.image_filesystems.v[0].fs_id)
			e = fs_usage(arena_strz(&a, resp.image_filesystems.v[0].fs_id->mountpoint), &u);
		else if (!e)
			continue;
		if (e) {
			log_and_free(e, "image garbage collection");
			continue;
		}
		percent = u.capacity > 0 ? (int)(100 - u.available * 100 / u.capacity) : 0;
		if (percent >= k->c->image_gc_high) {
			int64_t want = u.capacity * (100 - k->c->image_gc_low) / 100 - u.available;
			struct core_v1_object_reference ref = {.kind = STR("Node"), .name = str_from(k->c->node_name), .uid = str_from(k->c->node_name)};
			int64_t freed = image_gc_free(k, want);

			if (freed < want && k->events)
				event_record(k->events, &ref, "Warning", "FreeDiskSpaceFailed",
					     "Failed to garbage collect required amount of images. Attempted to free %lld bytes, but only found %lld bytes eligible to free.",
					     (long long)want, (long long)freed);
		}
	}
}
