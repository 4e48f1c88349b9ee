/* Streams into containers: the runtime serves them (CRI streaming); the kubelet asks it for a URL and joins the two connections. */
#include <string.h>

#include "kubelet/internal.h"
#include "net/remotecommand.h"
#include "net/upgrade.h"

/* Values of a repeated query parameter, decoded. */
static struct strings query_all(struct arena *a, struct str query, const char *name)
{
	struct strings out = {0};

	for (struct str rest = query; rest.p;) {
		struct str value = str_cut(&rest, '&'), key = str_cut(&value, '=');

		if (str_eqz(key, name))
			*arena_push(a, &out) = http_unescape(a, value, true);
	}
	return out;
}

static struct error *container_id(struct kubelet *k, struct str *seg, struct view_container **out, struct view **hold)
{
	struct pod *p = pod_by_name(k, seg[0], seg[1]);

	if (!p || !p->view)
		return error_status(404, "NotFound", "pod does not exist");
	struct view_container *c = view_find(p->view, seg[2]);

	if (!c)
		return error_status(404, "NotFound", "container not found (\"%.*s\")", STR_ARG(seg[2]));
	*hold = view_ref(p->view);
	*out = c;
	return NULL;
}

static struct error *exec_url(struct kubelet *k, struct http_exchange *x, struct str id, struct str *url)
{
	struct cri_v1_exec_request req = {.container_id = id};
	struct cri_v1_exec_response resp = {0};
	struct rc_opts o;
	struct strings cmd = query_all(x->arena, x->query, "command");

	TRY(rc_opts_from_query(x->arena, x->query, &o));
	req.cmd.v = cmd.v;
	req.cmd.n = cmd.n;
	req.tty = o.tty;
	req.stdin = o.in;
	req.stdout = o.out;
	req.stderr = o.err && !o.tty;
	TRY(CRI_CALL(k, x->arena, RUNTIME, Exec, exec, &req, &resp));
	*url = arena_str(x->arena, resp.url);
	return NULL;
}

static struct error *attach_url(struct kubelet *k, struct http_exchange *x, struct str id, struct str *url)
{
	struct cri_v1_attach_request req = {.container_id = id};
	struct cri_v1_attach_response resp = {0};
	struct rc_opts o;

	TRY(rc_opts_from_query(x->arena, x->query, &o));
	req.tty = o.tty;
	req.stdin = o.in;
	req.stdout = o.out;
	req.stderr = o.err && !o.tty;
	TRY(CRI_CALL(k, x->arena, RUNTIME, Attach, attach, &req, &resp));
	*url = arena_str(x->arena, resp.url);
	return NULL;
}

static struct error *forward_url(struct kubelet *k, struct http_exchange *x, struct str *seg, struct str *url)
{
	struct cri_v1_port_forward_request req = {0};
	struct cri_v1_port_forward_response resp = {0};
	struct pod *p = pod_by_name(k, seg[0], seg[1]);

	if (!p || !p->view)
		return error_status(404, "NotFound", "pod does not exist");
	for (uint32_t i = 0; i < p->view->sandboxes.n && !req.pod_sandbox_id.n; i++)
		if (p->view->sandboxes.v[i].state == 0)
			req.pod_sandbox_id = arena_str(x->arena, p->view->sandboxes.v[i].id);
	if (!req.pod_sandbox_id.n)
		return error_status(404, "NotFound", "the pod has no running sandbox");
	struct strings ports = query_all(x->arena, x->query, "port");

	for (uint32_t i = 0; i < ports.n; i++) {
		int64_t v;

		if (!str_to_i64(ports.v[i], &v) || v < 1 || v > 65535)
			return error_status(400, "BadRequest", "\"%.*s\" is not a port", STR_ARG(ports.v[i]));
		*arena_push(x->arena, &req.port) = (int32_t)v;
	}
	TRY(CRI_CALL(k, x->arena, RUNTIME, PortForward, port_forward, &req, &resp));
	*url = arena_str(x->arena, resp.url);
	return NULL;
}

/* "http://127.0.0.1:1234/exec/TOKEN" into base and target; the query goes along for WebSocket port lists. */
static struct error *join(struct http_exchange *x, struct str url)
{
	ptrdiff_t host = str_find(url, STR("://")), path;

	if (host < 0)
		return error_new("the runtime gave \"%.*s\", which is not a URL", STR_ARG(url));
	path = str_index(str_sub(url, (size_t)host + 3, url.n), '/');
	size_t cut = path < 0 ? url.n : (size_t)(host + 3 + path);
	struct http_client_opts o = {.base = arena_strz(x->arena, str_sub(url, 0, cut))};
	struct str target = path < 0 ? STR("/") : str_sub(url, cut, url.n);
	struct http_client *c;

	if (x->query.n && str_index(target, '?') < 0)
		target = arena_printf(x->arena, "%.*s?%.*s", STR_ARG(target), STR_ARG(x->query));
	TRY(http_client_new(&o, &c));
	struct error *e = http_proxy_upgrade(x, c, target);

	http_client_free(c);
	return e;
}

void server_stream(struct kubelet *k, struct http_exchange *x, struct str *seg, size_t n)
{
	struct str kind = seg[0], url = STR_NULL;
	struct view_container *vc = NULL;
	struct view *hold = NULL;
	struct error *e;

	if (str_eqz(kind, "portForward")) {
		e = forward_url(k, x, seg + 1, &url);
	} else {
		/* With a pod's uid between pod and container: /exec/NS/POD/UID/CONTAINER. */
		struct str parts[3] = {seg[1], seg[2], seg[n - 1]};

		e = container_id(k, parts, &vc, &hold);
		if (!e)
			e = str_eqz(kind, "exec") ? exec_url(k, x, vc->id, &url) : attach_url(k, x, vc->id, &url);
	}
	if (!e)
		e = join(x, url);
	view_unref(hold);
	if (e && !http_started(x))
		server_error(x, e->status ? e->status : 500, "%s", e->message);
	error_free(e);
}

void server_run(struct kubelet *k, struct http_exchange *x, struct str *seg, size_t n)
{
	struct str parts[3] = {seg[1], seg[2], seg[n - 1]};
	struct strings cmd = {0};
	struct view_container *vc = NULL;
	struct view *hold = NULL;
	struct cri_v1_exec_sync_response resp = {0};
	struct error *e = container_id(k, parts, &vc, &hold);
	bool present;

	for (struct str rest = http_query_get(x->arena, x->query, "cmd", &present); rest.p;)
		*arena_push(x->arena, &cmd) = str_cut(&rest, ' ');
	if (!e && !cmd.n)
		e = error_status(400, "BadRequest", "the parameter cmd is missing");
	if (!e)
		e = cri_exec(k, x->arena, vc->id, &cmd, 0, &resp);
	view_unref(hold);
	if (e)
		server_error(x, e->status ? e->status : 500, "%s", e->message);
	else
		log_and_free(http_respond(x, 200, arena_printf(x->arena, "%.*s%.*s", STR_ARG(resp.stdout), STR_ARG(resp.stderr))), "answering /run");
	error_free(e);
}
