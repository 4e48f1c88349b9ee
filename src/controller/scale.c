#include "controller/scale.h"

#define DISCOVERY_MS 2100 /* what is served is asked for at most every 2 s (manager.c) */

static const struct api_resource *find_kind(const struct api_resource **v, size_t n, struct str group, struct str kind)
{
	for (size_t i = 0; i < n; i++)
		if (str_eq(v[i]->group, group) && str_eq(v[i]->kind, kind))
			return v[i];
	return NULL;
}

struct error *scale_get(struct manager *m, struct arena *a, struct str api_version, struct str kind, struct str ns, struct str name,
			struct scale_ref *out)
{
	const struct api_resource **v;
	struct str group, version, body;
	size_t n;

	api_version_split(api_version, &group, &version);
	TRY(manager_discover(m, &v, &n, NULL));
	const struct api_resource *r = find_kind(v, n, group, kind);

	if (!r && manager_discovery_stale(m)) { /* it may have come since */
		TRY(fiber_sleep(DISCOVERY_MS));
		TRY(manager_discover(m, &v, &n, NULL));
		r = find_kind(v, n, group, kind);
	}
	if (!r)
		return error_status(404, "NoKindMatch", "no matches for kind \"%.*s\" in version \"%.*s\"", STR_ARG(kind), STR_ARG(api_version));
	out->path = client_path(a, r, ns, name, "scale");
	struct error *e = client_raw(m->client, a, "GET", out->path, NULL, STR_NULL, &body);

	if (error_is(e, 404, NULL)) {
		/* The object is missing, or its resource has no scale at all. */
		struct error *missing = client_raw(m->client, a, "GET", client_path(a, r, ns, name, NULL), NULL, STR_NULL, NULL);

		if (error_is(missing, 403, NULL)) { /* who may only scale cannot tell */
			error_free(missing);
			return e;
		}
		if (missing) {
			error_free(e);
			return missing;
		}
		error_free(e);
		return error_status(404, "NoScale", "%.*s%s%.*s does not implement the scale subresource", STR_ARG(r->plural),
				    r->group.n ? "." : "", STR_ARG(r->group));
	}
	TRY(e);
	out->scale = arena_new(a, struct autoscaling_v1_scale);
	return json_decode(a, &autoscaling_v1_scale_type, body, NULL, out->scale);
}

struct error *scale_set_replicas(struct manager *m, struct arena *a, const struct scale_ref *s, int32_t replicas)
{
	struct buf b buf_cleanup = {0};

	s->scale->spec.replicas = replicas;
	json_encode(&b, &autoscaling_v1_scale_type, s->scale);
	return client_raw(m->client, a, "PUT", s->path, "application/json", buf_view(&b), NULL);
}
