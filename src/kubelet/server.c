/* The kubelet's HTTPS server (port 10250): what `kubectl logs, exec, attach, port-forward, top` reach through the API server. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "kubelet/internal.h"
#include "net/tls.h"

#define SEGMENTS_MAX 8

void server_error(struct http_exchange *x, int status, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	struct str text = arena_vprintf(x->arena, fmt, ap);

	va_end(ap);
	http_set_header(x, "content-type", STR("text/plain; charset=utf-8"));
	log_and_free(http_respond(x, status, arena_printf(x->arena, "%.*s\n", STR_ARG(text))), "answering a request");
}

static void answer(struct http_exchange *x, const char *type, struct error *e, struct buf *b)
{
	if (e) {
		server_error(x, e->status ? e->status : 500, "%s", e->message);
		error_free(e);
		return;
	}
	http_set_header(x, "content-type", str_from(type));
	log_and_free(http_respond(x, 200, buf_view(b)), "answering a request");
}

void server_pods(struct kubelet *k, struct buf *b)
{
	bool first = true;
	void *v;

	buf_puts(b, "{\"kind\":\"PodList\",\"apiVersion\":\"v1\",\"metadata\":{},\"items\":[");
	for (size_t it = 0; map_next(&k->pods, &it, NULL, &v);) {
		struct pod *p = v;

		if (!p->spec || p->is_orphan)
			continue;
		buf_printf(b, "%s", first ? "" : ",");
		buf_str(b, block_str(p->spec));
		first = false;
	}
	buf_puts(b, "]}");
}

/* What the runtime has running: names and images only. */
static void running_pods(struct kubelet *k, struct buf *b)
{
	bool first = true;
	void *v;

	buf_puts(b, "{\"kind\":\"PodList\",\"apiVersion\":\"v1\",\"metadata\":{},\"items\":[");
	for (size_t it = 0; map_next(&k->pods, &it, NULL, &v);) {
		struct pod *p = v;
		struct core_v1_pod pod = {.metadata = {.name = str_from(p->name), .namespace = str_from(p->ns), .uid = str_from(p->uid)}};
		arena_cleanup struct arena a = {0};
		bool ready = false;

		for (uint32_t i = 0; p->view && i < p->view->sandboxes.n; i++)
			ready |= p->view->sandboxes.v[i].state == CRI_SANDBOX_READY;
		for (uint32_t i = 0; p->view && i < p->view->containers.n; i++) {
			const struct view_container *c = &p->view->containers.v[i];
			struct core_v1_container *out;

			if (c->state != CRI_CONTAINER_RUNNING)
				continue;
			out = arena_push(&a, &pod.spec.containers);
			out->name = c->name;
			out->image = c->image;
		}
		if (!ready && !pod.spec.containers.n)
			continue;
		if (!first)
			buf_putc(b, ',');
		first = false;
		json_encode(b, &core_v1_pod_type, &pod);
	}
	buf_puts(b, "]}");
}

/* ---- logs ---- */

struct log_request {
	struct kubelet *k;
	struct http_exchange *x;
	struct str uid, container_id;
};

static bool still_running(void *ctx)
{
	struct log_request *r = ctx;
	struct pod *p = pod_by_uid(r->k, r->uid);
	struct view_container *c = p && p->view ? view_by_id(p->view, r->container_id) : NULL;

	return c && c->state == CRI_CONTAINER_RUNNING && !http_peer_gone(r->x);
}

static struct error *write_log(void *ctx, struct str s)
{
	struct log_request *r = ctx;

	if (!http_started(r->x)) {
		http_set_header(r->x, "content-type", STR("text/plain; charset=utf-8"));
		TRY(http_start(r->x, 200));
	}
	return http_write(r->x, s);
}

static bool flag(struct http_exchange *x, const char *name)
{
	struct str v = http_query_get(x->arena, x->query, name, NULL);

	return str_eqz(v, "true") || str_eqz(v, "1");
}

static struct error *number(struct http_exchange *x, const char *name, bool *has, int64_t *out)
{
	struct str v = http_query_get(x->arena, x->query, name, has);

	*has = *has && v.n;
	if (*has && (!str_to_i64(v, out) || *out < 0))
		return error_status(400, "BadRequest", "\"%.*s\" is not a value for %s", STR_ARG(v), name);
	return NULL;
}

static struct error *log_options(struct http_exchange *x, struct log_opts *o)
{
	struct str since_time = http_query_get(x->arena, x->query, "sinceTime", NULL), stream = http_query_get(x->arena, x->query, "stream", NULL);
	bool has_since;
	int64_t since;

	*o = (struct log_opts){.follow = flag(x, "follow"), .timestamps = flag(x, "timestamps"), .want_out = true, .want_err = true};
	TRY(number(x, "tailLines", &o->has_tail, &o->tail));
	TRY(number(x, "limitBytes", &o->has_limit, &o->limit));
	TRY(number(x, "sinceSeconds", &has_since, &since));
	if (has_since)
		o->since_ns = wall_ns() - since * 1000000000;
	if (since_time.n) {
		struct api_time t;

		if (!time_parse(since_time, &t))
			return error_status(400, "BadRequest", "\"%.*s\" is not a time", STR_ARG(since_time));
		o->since_ns = t.s * 1000000000 + t.ns;
	}
	if (str_eqz(stream, "Stdout"))
		o->want_err = false;
	else if (str_eqz(stream, "Stderr"))
		o->want_out = false;
	return NULL;
}

/*
 * The log of a container that the runtime doesn't hold: it is still to start,
 * or it ended before the machine or the cluster was started anew, and then its
 * log lies where it was written.
 */
static struct error *log_without_container(struct pod *p, struct arena *a, struct str name, bool previous, struct str *id, uint32_t *attempt)
{
	struct core_v1_pod_status status = {0};
	const struct core_v1_container_status *c;
	const struct core_v1_container_state_terminated *end = NULL;

	if (p->status)
		TRY(json_decode(a, &core_v1_pod_status_type, block_str(p->status), NULL, &status));
	c = container_status_find(&status.container_statuses, name);
	if (!c)
		c = container_status_find(&status.init_container_statuses, name);
	if (!c)
		c = container_status_find(&status.ephemeral_container_statuses, name);
	if (c)
		end = !previous && c->state.terminated && c->state.terminated->container_id.n ? c->state.terminated : c->last_state.terminated;
	if (end && end->container_id.n) {
		*id = end->container_id;
		*attempt = (uint32_t)c->restart_count - (end == c->last_state.terminated && c->restart_count > 0);
		return NULL;
	}
	if (previous)
		return error_status(400, "BadRequest", "previous terminated container \"%.*s\" in pod \"%s\" not found", STR_ARG(name), p->name);
	if (c && c->state.terminated)
		return error_status(400, "BadRequest", "container \"%.*s\" in pod \"%s\" is terminated", STR_ARG(name), p->name);

	struct str why = c && c->state.waiting && c->state.waiting->reason.n ? c->state.waiting->reason : STR("no logs yet");

	if (str_eqz(why, "ErrImagePull"))
		why = STR("image can't be pulled");
	else if (str_eqz(why, "ImagePullBackOff"))
		why = STR("trying and failing to pull image");
	return error_status(400, "BadRequest", "container \"%.*s\" in pod \"%s\" is waiting to start: %.*s", STR_ARG(name), p->name, STR_ARG(why));
}

/* /containerLogs/NS/POD/CONTAINER */
static struct error *container_logs(struct kubelet *k, struct http_exchange *x, struct str *seg)
{
	struct pod *p = pod_by_name(k, seg[1], seg[2]);
	struct log_opts o;
	bool previous = flag(x, "previous");
	struct str path = STR_NULL, id;
	uint32_t attempt = 0;

	if (!p || !p->view)
		return error_status(404, "NotFound", "pod \"%.*s/%.*s\" not found", STR_ARG(seg[1]), STR_ARG(seg[2]));
	TRY(log_options(x, &o));

	struct view_container *c = view_nth(p->view, seg[3], previous ? 1 : 0);

	if (c) {
		id = arena_str(x->arena, c->id);
		path = arena_str(x->arena, c->log_path);
		attempt = c->attempt;
	} else {
		TRY(log_without_container(p, x->arena, seg[3], previous, &id, &attempt));
	}

	struct log_request r = {k, x, arena_str(x->arena, str_from(p->uid)), id};

	if (!path.n)
		path = arena_printf(x->arena, "%.*s/%.*s/%u.log", STR_ARG(pod_log_dir(k, x->arena, seg[1], seg[2], r.uid)), STR_ARG(seg[3]), attempt);
	if (!c && access(path.p, R_OK) != 0)
		return error_status(400, "BadRequest", "unable to retrieve container logs for %.*s", STR_ARG(id));
	struct error *e = log_read(path.p, &o, still_running, write_log, &r);

	if (e && http_started(x)) {
		/* The client has gone, or its end is all it will see. */
		log_v(2, "logs of %.*s: %s", STR_ARG(seg[2]), e->message);
		error_clear(&e);
	}
	if (e)
		return e;
	if (!http_started(x)) {
		http_set_header(x, "content-type", STR("text/plain; charset=utf-8"));
		return http_respond(x, 200, STR(""));
	}
	return http_end(x);
}

/* ---- routes ---- */

static void health(struct kubelet *k, struct http_exchange *x)
{
	if (k->runtime_ok)
		log_and_free(http_respond(x, 200, STR("ok")), "answering /healthz");
	else
		server_error(x, 500, "the container runtime does not answer: %s", k->runtime_message ? k->runtime_message : "");
}

static void config(struct kubelet *k, struct http_exchange *x)
{
	const struct kubelet_config *c = k->c;
	struct str text = arena_printf(x->arena, "{\"kubeletconfig\":{\"maxPods\":%d,\"port\":%d,\"clusterDomain\":\"%s\",\"cgroupRoot\":\"%s\","
				       "\"staticPodPath\":\"%s\",\"imageGCHighThresholdPercent\":%d,\"imageGCLowThresholdPercent\":%d}}", c->max_pods, c->port,
				       c->cluster_domain, c->cgroup_root, c->manifest_dir ? c->manifest_dir : "", c->image_gc_high, c->image_gc_low);

	http_set_header(x, "content-type", STR("application/json"));
	log_and_free(http_respond(x, 200, text), "answering /configz");
}

static void route(struct kubelet *k, struct http_exchange *x)
{
	struct str seg[SEGMENTS_MAX], rest = str_sub(x->path, 1, x->path.n);
	buf_cleanup struct buf b = {0};
	size_t n = 0;

	while (rest.p && n < SEGMENTS_MAX) {
		struct str s = str_cut(&rest, '/');

		if (s.n)
			seg[n++] = http_unescape(x->arena, s, false);
	}
	struct str top = n ? seg[0] : STR("");

	if (str_eqz(top, "containerLogs") && n == 4) {
		struct error *e = container_logs(k, x, seg);

		if (e && !http_started(x))
			server_error(x, e->status ? e->status : 500, "%s", e->message);
		error_free(e);
	} else if ((str_eqz(top, "exec") || str_eqz(top, "attach")) && (n == 4 || n == 5)) {
		server_stream(k, x, seg, n);
	} else if (str_eqz(top, "portForward") && (n == 3 || n == 4)) {
		server_stream(k, x, seg, n);
	} else if (str_eqz(top, "run") && (n == 4 || n == 5) && str_eqz(x->method, "POST")) {
		server_run(k, x, seg, n);
	} else if (str_eqz(top, "pods") && n == 1) {
		server_pods(k, &b);
		answer(x, "application/json", NULL, &b);
	} else if (str_eqz(top, "runningpods") && n == 1) {
		running_pods(k, &b);
		answer(x, "application/json", NULL, &b);
	} else if (str_eqz(top, "stats") && n == 2 && str_eqz(seg[1], "summary")) {
		answer(x, "application/json", stats_summary(k, x->arena, flag(x, "only_cpu_and_memory"), &b), &b);
	} else if (str_eqz(top, "metrics")) {
		struct error *e = n == 1 ? stats_metrics(k, x->arena, &b) : str_eqz(seg[1], "resource") ? stats_resource_metrics(k, x->arena, &b)
			: str_eqz(seg[1], "cadvisor") ? stats_cadvisor(k, x->arena, &b) : error_status(404, "NotFound", "404 page not found");

		answer(x, "text/plain; version=0.0.4; charset=utf-8", e, &b);
	} else if (str_eqz(top, "configz") && n == 1) {
		config(k, x);
	} else if (str_eqz(top, "logs")) {
		server_error(x, 405, "node logs are disabled on this kubelet");
	} else {
		server_error(x, 404, "404 page not found");
	}
}

static void handle(struct http_exchange *x, void *ctx)
{
	struct kubelet *k = ctx;

	if (str_eqz(x->path, "/healthz"))
		health(k, x);
	else if (server_authorize(k, x))
		route(k, x);
}

struct error *server_start(struct kubelet *k, struct http_server **out)
{
	struct kubelet_config *c = k->c;
	struct tls_server_opts t = {0};
	struct http_server_opts o = {.handler = handle, .ctx = k, .max_connections = 1000};
	struct listener *l;

	TRY(serving_cert_ensure(k));
	t.cert_file = c->cert_file;
	t.key_file = c->key_file;
	t.client_ca_file = c->client_ca_file;
	TRY(tls_server_new(&t, &o.tls));
	TRY(listener_open(arena_printf(&c->arena, "%s:%d", c->address, c->port).p, 0, &l));
	return http_server_start(l, &o, out);
}

/* ---- without TLS ---- */

static void handle_health(struct http_exchange *x, void *ctx)
{
	if (str_eqz(x->path, "/healthz") || str_eqz(x->path, "/healthz/ping"))
		health(ctx, x);
	else
		server_error(x, 404, "404 page not found");
}

static void handle_read_only(struct http_exchange *x, void *ctx)
{
	static const char *const paths[] = {"/pods", "/stats", "/metrics"};

	if (str_eqz(x->path, "/healthz")) {
		health(ctx, x);
		return;
	}
	for (size_t i = 0; i < ARRAY_LEN(paths); i++)
		if (str_eqz(x->method, "GET") && str_has_prefix(x->path, str_from(paths[i]))) {
			route(ctx, x);
			return;
		}
	server_error(x, 404, "404 page not found");
}

struct error *server_start_plain(struct kubelet *k)
{
	struct kubelet_config *c = k->c;
	struct http_server_opts o = {.ctx = k, .max_connections = 100};
	struct http_server *s;
	struct listener *l;

	if (c->healthz_port) {
		struct error *e = listener_open(arena_printf(&c->arena, "127.0.0.1:%d", c->healthz_port).p, 0, &l);

		o.handler = handle_health;
		if (!e)
			e = http_server_start(l, &o, &s);
		if (e)
			log_warn("no health port: %s", e->message);
		error_free(e);
	}
	if (c->read_only_port) {
		TRY(listener_open(arena_printf(&c->arena, "%s:%d", c->address, c->read_only_port).p, 0, &l));
		o.handler = handle_read_only;
		TRY(http_server_start(l, &o, &s));
	}
	return NULL;
}
