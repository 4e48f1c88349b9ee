/*
 * Streams and proxies: log, exec, attach, portforward through the kubelet,
 * proxy to nodes, pods and services. Bytes are spliced, never interpreted.
 */
#include "apiserver/admission.h"
#include "apiserver/authz.h"
#include "apiserver/connect.h"
#include "apiserver/forward.h"
#include "apiserver/metrics.h"
#include "apiserver/outbound.h"
#include "net/websocket.h"
#include "schema/jv.h"

#define CLIENTS_MAX 10000 /* addresses that connections are kept to */

struct kubelet_clients {
	struct tls_client *tls[3];       /* by enum peer */
	struct map clients[3];           /* by enum peer and base URL */
};

enum peer {
	PEER_OTHER,     /* https to pods and services: unverified, as upstream */
	PEER_KUBELET,   /* shown the apiserver-kubelet certificate */
	PEER_UNVERIFIED /* a kubelet whose own certificate does not matter to who asks */
};

struct error *kubelet_clients_init(struct apiserver *s)
{
	struct kubelet_clients *k = arena_new(&s->arena, struct kubelet_clients);
	struct tls_client_opts o = {.ca_file = s->o.kubelet_ca, .cert_file = s->o.kubelet_client_cert, .key_file = s->o.kubelet_client_key,
				    .insecure_skip_verify = !s->o.kubelet_ca};
	struct tls_client_opts p = {.insecure_skip_verify = true, .http2 = http2_wanted()};

	s->kubelets = k;
	TRY(error_wrap(tls_client_new(&o, &k->tls[PEER_KUBELET]), "kubelet client certificate"));
	o.ca_file = NULL;
	o.insecure_skip_verify = true;
	TRY(error_wrap(tls_client_new(&o, &k->tls[PEER_UNVERIFIED]), "kubelet client certificate"));
	return tls_client_new(&p, &k->tls[PEER_OTHER]);
}

static struct error *client_for(struct apiserver *s, struct arena *a, struct str base, enum peer peer, struct http_client **out)
{
	struct kubelet_clients *k = s->kubelets;
	struct http_client_opts o = {.tls = k->tls[peer], .connect_timeout_ms = 10000};

	o.base = arena_strz(a, base);
	return clients_get(&k->clients[peer], CLIENTS_MAX, &o, out);
}

/* ---- where a node is ---- */

static struct error *node_base(struct request *rq, struct str name, int port_override, struct str *base)
{
	struct core_v1_node *node = registry_peek(rq->s, rq->a, storage_find(rq->s, STR(""), STR("nodes")), STR_NULL, name);
	struct str types = str_from(rq->s->o.kubelet_address_types ? rq->s->o.kubelet_address_types :
								   "InternalIP,Hostname,InternalDNS,ExternalDNS,ExternalIP");
	int port = 10250;

	if (!node)
		return err_not_found(STR(""), STR("nodes"), name);
	if (node->status.daemon_endpoints.kubelet_endpoint.port)
		port = node->status.daemon_endpoints.kubelet_endpoint.port;
	if (port_override)
		port = port_override;
	while (types.p && types.n) {
		struct str want = str_cut(&types, ',');

		for (uint32_t i = 0; i < node->status.addresses.n; i++)
			if (str_eq(node->status.addresses.v[i].type, want)) {
				struct str a = node->status.addresses.v[i].address;

				*base = arena_printf(rq->a, str_index(a, ':') >= 0 ? "https://[%.*s]:%d" : "https://%.*s:%d", STR_ARG(a), port);
				return NULL;
			}
	}
	return err_internal("no preferred addresses found; known addresses: []");
}

/* ---- pods by the kubelet ---- */

static struct error *pod_of(struct request *rq, struct core_v1_pod **out)
{
	void *obj;

	TRY(registry_get(rq, rq->info.ns, rq->info.name, &obj));
	*out = obj;
	return NULL;
}

static bool has_container(const struct core_v1_pod *p, struct str name)
{
	for (uint32_t i = 0; i < p->spec.containers.n; i++)
		if (str_eq(p->spec.containers.v[i].name, name))
			return true;
	for (uint32_t i = 0; i < p->spec.init_containers.n; i++)
		if (str_eq(p->spec.init_containers.v[i].name, name))
			return true;
	for (uint32_t i = 0; i < p->spec.ephemeral_containers.n; i++)
		if (str_eq(p->spec.ephemeral_containers.v[i].ephemeral_container_common.name, name))
			return true;
	return false;
}

static struct error *container_of_pod(struct request *rq, const struct core_v1_pod *p, struct str *name)
{
	struct buf all buf_cleanup = {0};

	*name = query_get(&rq->q, "container");
	if (!name->n) {
		if (p->spec.containers.n == 1) {
			*name = p->spec.containers.v[0].name;
			return NULL;
		}
		for (uint32_t i = 0; i < p->spec.containers.n; i++) {
			if (i)
				buf_putc(&all, ' ');
			buf_str(&all, p->spec.containers.v[i].name);
		}
		return err_bad_request("a container name must be specified for pod %.*s, choose one of: [%.*s]", STR_ARG(p->metadata.name),
				       STR_ARG(buf_view(&all)));
	}
	if (!has_container(p, *name))
		return err_bad_request("container %.*s is not valid for pod %.*s", STR_ARG(*name), STR_ARG(p->metadata.name));
	return NULL;
}

/* The client's query with upstream's names turned into the kubelet's. */
static struct str stream_query(struct request *rq)
{
	struct buf b buf_cleanup = {0};

	for (size_t i = 0; i < rq->q.n; i++) {
		struct str n = rq->q.v[i].name, v = rq->q.v[i].value, esc;
		const char *as = NULL;

		if (str_eqz(n, "container") || str_eqz(n, "timeout"))
			continue;
		if (str_eqz(n, "stdin"))
			as = "input";
		else if (str_eqz(n, "stdout"))
			as = "output";
		else if (str_eqz(n, "stderr"))
			as = "error";
		else if (str_eqz(n, "tty"))
			as = "tty";
		if (as) {
			if (query_true(v))
				buf_printf(&b, "%s%s=1", b.n ? "&" : "", as);
			continue;
		}
		esc = http_escape(rq->a, v);
		buf_printf(&b, "%s%.*s=%.*s", b.n ? "&" : "", STR_ARG(n), STR_ARG(esc));
	}
	return arena_str(rq->a, buf_view(&b));
}

static struct error *may_create(struct request *rq)
{
	struct authz_attrs at = authz_attrs_of(rq);
	struct str text;

	/* WebSockets open with GET, but what they do is a create */
	if (!str_eqz(rq->info.verb, "get"))
		return NULL;
	at.verb = STR("create");
	if (authorize(rq->s, rq->a, &at, NULL) == AUTHZ_ALLOW)
		return NULL;
	text = authz_forbidden_text(rq->a, &at);
	return err_forbidden(at.group, at.resource, at.name, "%.*s", STR_ARG(text));
}

/* Options of a connect (PodExecOptions, PodAttachOptions...) from the query, as plugins and webhooks see them. */
static struct error *connect_options(struct request *rq, const struct schema_type *t, void **out)
{
	struct buf b buf_cleanup = {0};

	buf_printf(&b, "{\"kind\":\"%s\",\"apiVersion\":\"v1\"", t->name);
	for (unsigned i = 0; i < t->n_fields; i++) {
		const struct schema_field *f = &t->fields[i];
		bool list = f->card == CARD_LIST, any = false;

		if (f->flags & FIELD_TYPEMETA)
			continue;
		if (str_eqz(f->name, "path")) { /* of proxies: what stands behind the subresource */
			buf_puts(&b, ",\"path\":");
			jv_encode_string(&b, rq->info.rest_slash || rq->info.rest.n ? arena_printf(rq->a, "/%.*s", STR_ARG(rq->info.rest)) : STR(""));
			continue;
		}
		for (size_t k = 0; k < rq->q.n && (list || !any); k++) {
			struct str v = rq->q.v[k].value;
			int64_t n;

			if (!str_eq(rq->q.v[k].name, f->name))
				continue;
			if (any)
				buf_putc(&b, ',');
			else
				buf_printf(&b, ",\"%.*s\":%s", STR_ARG(f->name), list ? "[" : "");
			any = true;
			if (f->kind == FIELD_STRING)
				jv_encode_string(&b, v);
			else if (f->kind == FIELD_BOOL)
				buf_puts(&b, query_true(v) ? "true" : "false");
			else
				buf_printf(&b, "%lld", str_to_i64(v, &n) ? (long long)n : 0);
		}
		if (list && any)
			buf_putc(&b, ']');
	}
	buf_putc(&b, '}');
	*out = arena_alloc(rq->a, t->size);
	return json_decode(rq->a, t, arena_str(rq->a, buf_view(&b)), NULL, *out);
}

static struct error *admit_connect(struct request *rq, const struct schema_type *t)
{
	struct admission a = {.rq = rq, .res = rq->res, .group = rq->info.group, .version = rq->info.version, .resource = rq->info.resource,
			      .kind = str_from(t->name), .subresource = rq->info.subresource, .ns = rq->info.ns, .name = rq->info.name,
			      .op = ADMIT_CONNECT, .type = t};

	struct error *e;

	TRY(connect_options(rq, t, &a.obj));
	/* policies may look at custom resources; what follows does not */
	grace_enter(rq->s->grace, &rq->reading);
	e = admission_admit(&a);
	if (!e)
		e = admission_validate(&a);
	grace_leave(&rq->reading);
	return e;
}

static struct error *pod_stream(struct request *rq, const char *path, bool container, const struct schema_type *t)
{
	struct core_v1_pod *pod;
	struct str name = STR_NULL, base, target, q = stream_query(rq);
	struct http_client *c;

	TRY(admit_connect(rq, t));
	TRY(may_create(rq));
	TRY(pod_of(rq, &pod));
	if (container)
		TRY(container_of_pod(rq, pod, &name));
	if (!pod->spec.node_name.n)
		return err_bad_request("pod %.*s does not have a host assigned", STR_ARG(pod->metadata.name));
	TRY(node_base(rq, pod->spec.node_name, 0, &base));
	TRY(client_for(rq->s, rq->a, base, PEER_KUBELET, &c));
	target = arena_printf(rq->a, "/%s/%.*s/%.*s%s%.*s%s%.*s", path, STR_ARG(pod->metadata.namespace), STR_ARG(pod->metadata.name),
			      container ? "/" : "", STR_ARG(name), q.n ? "?" : "", STR_ARG(q));
	metrics_count(METRIC_STREAMS, arena_printf(rq->a, "proxy_type=\"proxied_to_kubelet\",subresource=\"%.*s\"", STR_ARG(rq->info.subresource)).p, 1);
	if (!forward_wants_upgrade(rq))
		return err_bad_request("Upgrade request required");
	return forward_request(rq, &(struct forward){.client = c, .target = target});
}

/* The kubelet's answer over a WebSocket: binary messages, or base64 in text ones where the client asks for base64.binary.k8s.io. */
static struct error *log_websocket(struct request *rq, struct http_response *resp)
{
	static const char *const protocols[] = {"binary.k8s.io", "base64.binary.k8s.io", NULL};
	const char *chosen;
	struct websocket *w;
	bool text;
	char *buf;
	struct error *e;

	TRY(ws_accept(rq->x, protocols, 4096, &chosen, &w));
	rq->status = 101;
	text = chosen && !strcmp(chosen, "base64.binary.k8s.io");
	e = ws_write(w, text ? WS_TEXT : WS_BINARY, STR_NULL, STR("")); /* tells the client that the stream stands */
	buf = xmalloc(32 * 1024);
	while (!e) {
		struct buf b64 buf_cleanup = {0};
		size_t got;

		e = http_response_read(resp, buf, 32 * 1024, &got);
		if (e || !got)
			break;
		if (text)
			base64_encode(&b64, str_of(buf, got));
		e = ws_write(w, text ? WS_TEXT : WS_BINARY, STR_NULL, text ? buf_view(&b64) : str_of(buf, got));
	}
	free(buf);
	if (!e)
		e = ws_close(w, 1000, STR(""));
	ws_free(w);
	return e;
}

/* ?ports= of a forwarding, which the kubelet is told of in its streams. */
static struct error *check_ports(struct request *rq)
{
	for (size_t i = 0; i < rq->q.n; i++) {
		int64_t n;

		if (str_eqz(rq->q.v[i].name, "ports") &&
		    (!str_to_i64(rq->q.v[i].value, &n) || n < INT32_MIN || n > INT32_MAX))
			return err_bad_request("ports is no number: %.*s", STR_ARG(rq->q.v[i].value));
	}
	return NULL;
}

static struct error *pod_log(struct request *rq)
{
	struct core_v1_pod *pod;
	struct str name, base, target, q, since;
	struct api_time at;
	struct http_client *c;
	struct http_response resp;
	struct buf b buf_cleanup = {0};
	struct field_errors fe = {.arena = rq->a};
	int64_t n;
	struct error *e;
	char *buf;
	bool follow = query_bool(&rq->q, "follow"), any = false, unverified = query_bool(&rq->q, "insecureSkipTLSVerifyBackend");
	static const char *const numbers[] = {"tailLines", "limitBytes", "sinceSeconds"};

	metrics_count(METRIC_LOG_TLS_USAGE, unverified ? "usage=\"skip_tls_allowed\"" : "usage=\"enforce_tls\"", 1);
	for (int i = 0; i < 3; i++) {
		bool has = query_int(&rq->q, numbers[i], &n, &e);

		TRY(e);
		if (has && (i == 0 ? n < 0 : n < 1))
			field_invalid_int(&fe, &(struct field_path){NULL, str_from(numbers[i]), -1, false}, n,
					  i == 0 ? "must be greater than or equal to 0" : "must be greater than 0");
	}
	since = query_get(&rq->q, "sinceTime");
	if (since.n && !str_eqz(since, "null") && !time_parse(since, &at))
		return err_bad_request("sinceTime is no time of RFC 3339: %.*s", STR_ARG(since));
	if (query_has(&rq->q, "stream")) /* feature PodLogsQuerySplitStreams: alpha, and off */
		field_forbidden(&fe, FIELD_ROOT("stream"), "may not be specified");
	if (query_has(&rq->q, "sinceSeconds") && query_has(&rq->q, "sinceTime"))
		field_forbidden(&fe, FIELD_ROOT("[]"), "at most one of `sinceTime` or `sinceSeconds` may be specified");
	TRY(field_errors_status(&fe, STR(""), STR("PodLogOptions"), rq->info.name));
	TRY(pod_of(rq, &pod));
	TRY(container_of_pod(rq, pod, &name));
	if (!pod->spec.node_name.n) {
		/* not scheduled: nothing to read */
		rq->status = 204;
		respond_headers(rq);
		return http_respond(rq->x, 204, STR_NULL);
	}
	TRY(node_base(rq, pod->spec.node_name, 0, &base));
	TRY(client_for(rq->s, rq->a, base, unverified ? PEER_UNVERIFIED : PEER_KUBELET, &c));
	for (size_t i = 0; i < rq->q.n; i++) {
		struct str esc;

		if (str_eqz(rq->q.v[i].name, "container") || str_eqz(rq->q.v[i].name, "pretty") ||
		    str_eqz(rq->q.v[i].name, "insecureSkipTLSVerifyBackend"))
			continue;
		if (str_eqz(rq->q.v[i].name, "follow") || str_eqz(rq->q.v[i].name, "previous") || str_eqz(rq->q.v[i].name, "timestamps"))
			esc = query_true(rq->q.v[i].value) ? STR("true") : STR("false");
		else
			esc = http_escape(rq->a, rq->q.v[i].value);
		buf_printf(&b, "%s%.*s=%.*s", any ? "&" : "?", STR_ARG(rq->q.v[i].name), STR_ARG(esc));
		any = true;
	}
	q = buf_view(&b);
	target = arena_printf(rq->a, "/containerLogs/%.*s/%.*s/%.*s%.*s", STR_ARG(pod->metadata.namespace), STR_ARG(pod->metadata.name),
			      STR_ARG(name), STR_ARG(q));
	e = http_do(c, rq->a, "GET", target, NULL, 0, STR_NULL, &resp);
	if (e) {
		struct error *w = err_internal("Get \"%.*s%.*s\": %s", STR_ARG(base), STR_ARG(target), error_message(e));

		bool refused;

		tls_faults(e, &refused);
		if (refused)
			metrics_count(METRIC_LOG_TLS_FAILURES, "", 1);

		error_free(e);
		return w;
	}
	if (resp.status != 200) {
		struct str body;

		e = http_response_all(&resp, rq->a, 64 << 10, &body);
		http_response_close(&resp);
		TRY(e);
		body = str_trim(body);
		if (resp.status == 404)
			return error_status(404, "NotFound", "the server could not find the requested resource, the kubelet's answer: %.*s",
					    STR_ARG(body));
		return error_status(resp.status, resp.status == 400 ? "BadRequest" : "InternalError", "%.*s", STR_ARG(body));
	}
	if (ws_requested(rq->x)) {
		e = log_websocket(rq, &resp);
		http_response_close(&resp);
		return e;
	}
	rq->status = 200;
	respond_headers(rq);
	http_set_header(rq->x, "content-type", STR("text/plain"));
	e = http_start(rq->x, 200);
	buf = xmalloc(32 * 1024);
	while (!e) {
		size_t got;

		e = http_response_read(&resp, buf, 32 * 1024, &got);
		if (e || !got)
			break;
		e = http_write(rq->x, str_of(buf, got));
	}
	free(buf);
	http_response_close(&resp);
	(void)follow;
	return e ? e : http_end(rq->x);
}

/* ---- proxies ---- */

/* "scheme:name:port", "name:port" or "name"; 400 for anything else. */
static struct error *split_name(const char *what, struct str id, struct str *scheme, struct str *name, struct str *port)
{
	struct str parts[3] = {0}, rest = id;
	size_t n = 0;

	*scheme = *port = STR_NULL;
	while (rest.p && n < 3)
		parts[n++] = str_cut(&rest, ':');
	if (n == 1) {
		*name = parts[0];
	} else if (n == 2) {
		*name = parts[0];
		*port = parts[1];
	} else {
		*scheme = parts[0];
		*name = parts[1];
		*port = parts[2];
	}
	if (rest.p || !name->n || (scheme->n && !str_eqz(*scheme, "http") && !str_eqz(*scheme, "https")))
		return err_bad_request("invalid %s request \"%.*s\"", what, STR_ARG(id));
	return NULL;
}

static struct error *proxy_to(struct request *rq, struct str base, bool kubelet)
{
	struct http_client *c;
	struct str path = rq->info.raw_rest, target, prefix;

	/* /api/v1/.../proxy without a slash is sent to the one with it */
	if (!path.n && (str_eqz(rq->x->method, "GET") || str_eqz(rq->x->method, "HEAD"))) {
		rq->status = 301;
		http_set_header(rq->x, "location", arena_printf(rq->a, "%.*s/%s%.*s", STR_ARG(rq->x->path), rq->x->query.n ? "?" : "",
								STR_ARG(rq->x->query)));
		return http_respond(rq->x, 301, STR_NULL);
	}
	if (!path.n)
		path = STR("/");
	target = rq->x->query.n ? arena_printf(rq->a, "%.*s?%.*s", STR_ARG(path), STR_ARG(rq->x->query)) : path;
	prefix = str_sub(rq->x->path, 0, rq->x->path.n - rq->info.raw_rest.n);
	TRY(client_for(rq->s, rq->a, base, kubelet ? PEER_KUBELET : PEER_OTHER, &c));
	return forward_request(
		rq, &(struct forward){.client = c,
				      .target = target,
				      .prefix = prefix,
				      .host = str_sub(base, (size_t)str_find(base, STR("://")) + 3, base.n)});
}

static struct error *node_proxy(struct request *rq)
{
	struct str scheme, name, port, base;
	int64_t p = 0;

	TRY(admit_connect(rq, &core_v1_node_proxy_options_type));
	TRY(split_name("node", rq->info.name, &scheme, &name, &port));
	if (port.n && !str_to_i64(port, &p))
		return err_bad_request("invalid node request \"%.*s\"", STR_ARG(rq->info.name));
	TRY(node_base(rq, name, (int)p, &base));
	return proxy_to(rq, base, true);
}

static struct error *url_of(struct arena *a, struct str scheme, struct str host, int port, struct str *out)
{
	*out = arena_printf(a, str_index(host, ':') >= 0 ? "%s://[%.*s]:%d" : "%s://%.*s:%d", str_eqz(scheme, "https") ? "https" : "http",
			    STR_ARG(host), port);
	return NULL;
}

static struct error *pod_proxy(struct request *rq)
{
	struct str scheme, name, port, base;
	struct core_v1_pod *pod;
	int64_t p = 0;

	TRY(admit_connect(rq, &core_v1_pod_proxy_options_type));
	TRY(split_name("pod", rq->info.name, &scheme, &name, &port));
	rq->info.name = name;
	TRY(pod_of(rq, &pod));
	if (!port.n) {
		for (uint32_t i = 0; !p && i < pod->spec.containers.n; i++)
			if (pod->spec.containers.v[i].ports.n)
				p = pod->spec.containers.v[i].ports.v[0].container_port;
		if (!p)
			p = str_eqz(scheme, "https") ? 443 : 80;
	} else if (!str_to_i64(port, &p)) {
		return err_bad_request("invalid pod request \"%.*s\"", STR_ARG(rq->info.name));
	}
	if (!pod->status.pod_ip.n)
		return err_bad_request("address not allowed: the pod has no IP address");
	TRY(url_of(rq->a, scheme, pod->status.pod_ip, (int)p, &base));
	return proxy_to(rq, base, false);
}

struct error *connect_slices(struct apiserver *s, struct arena *a, struct str ns, struct str name,
			     struct endpoint_slices *out)
{
	struct storage *slices = storage_find(s, STR("discovery.k8s.io"), STR("endpointslices"));
	struct cache_snap *snap;
	struct cache_iter it;
	const struct cache_entry *en;
	struct error *e = NULL;

	*out = (struct endpoint_slices){0};
	TRY(cache_snapshot(slices->cache, CACHE_ANY, 0, &snap));
	cache_iter_init(&it, slices->cache, snap, ns, STR_NULL, NULL);
	while (!e && (en = cache_iter_next(&it)) != NULL) {
		struct str_pair labels[255];
		struct str_map m = {labels, (uint32_t)cache_entry_labels(en, labels), 0};
		struct discovery_v1_endpoint_slice *slice;

		if (!str_eq(str_map_get(&m, STR("kubernetes.io/service-name")), name))
			continue;
		slice = arena_new(a, struct discovery_v1_endpoint_slice);
		e = cache_entry_decode(a, &discovery_v1_endpoint_slice_type, en, true, slice);
		*arena_push(a, &out->list) = slice;
	}
	cache_snap_free(snap);
	return e;
}

/* A ready endpoint of a Service's port (by its name in the Service), each as likely. */
static struct error *ready_endpoint(struct apiserver *srv, struct arena *a, struct str ns, struct str name,
				    struct str port_name, struct str *host, int *port)
{
	struct endpoint_slices slices;
	size_t seen = 0;

	*host = STR_NULL;
	TRY(connect_slices(srv, a, ns, name, &slices));
	for (uint32_t k = 0; k < slices.list.n; k++) {
		const struct discovery_v1_endpoint_slice *s = slices.list.v[k];
		int target = 0;

		for (uint32_t i = 0; i < s->ports.n; i++) {
			struct str pn = s->ports.v[i].name ? *s->ports.v[i].name : STR_NULL;

			if (s->ports.v[i].port && str_eq(pn, port_name))
				target = *s->ports.v[i].port;
		}
		for (uint32_t i = 0; target && i < s->endpoints.n; i++) {
			struct discovery_v1_endpoint *ep = &s->endpoints.v[i];

			if ((ep->conditions.ready && !*ep->conditions.ready) || !ep->addresses.n)
				continue;
			/* each ready endpoint is as likely */
			if (random_u64() % ++seen == 0) {
				(*host) = ep->addresses.v[0];
				(*port) = target;
			}
		}
	}
	if (!host->n)
		return err_unavailable("no endpoints available for service \"%.*s\"", STR_ARG(name));
	return NULL;
}

struct error *connect_service(struct apiserver *s, struct arena *a, struct str ns, struct str name, int port,
			      struct str *base)
{
	struct core_v1_service *svc = registry_peek(s, a, storage_find(s, STR(""), STR("services")), ns, name);
	const struct core_v1_service_port *found = NULL;
	bool external = svc && str_eqz(svc->spec.type, "ExternalName");
	struct str host;
	int target = port;

	if (!svc)
		return err_unavailable("service \"%.*s\" not found", STR_ARG(name));
	if (external && s->o.aggregator_routing)
		return err_unavailable("unsupported service type \"ExternalName\"");
	if (str_eqz(svc->spec.cluster_ip, "None") && !s->o.aggregator_routing)
		return err_unavailable("cannot route to service with ClusterIP \"None\"");
	for (uint32_t i = 0; !found && i < svc->spec.ports.n; i++)
		if (svc->spec.ports.v[i].port == port)
			found = &svc->spec.ports.v[i];
	if (!found && !external)
		return err_unavailable("no service port %d found for service \"%.*s\"", port, STR_ARG(name));
	if (external)
		host = svc->spec.external_name;
	else
		TRY(ready_endpoint(s, a, ns, name, found->name, &host, &target));
	return url_of(a, STR("https"), host, target, base);
}

static struct error *service_proxy(struct request *rq)
{
	struct str scheme, name, port, base;
	struct core_v1_service *svc;
	struct str port_name = STR_NULL, host = STR_NULL;
	int want = 0;
	int64_t number = 0;

	TRY(admit_connect(rq, &core_v1_service_proxy_options_type));
	TRY(split_name("service", rq->info.name, &scheme, &name, &port));
	svc = registry_peek(rq->s, rq->a, rq->res->st, rq->info.ns, name);
	if (!svc)
		return err_not_found(STR(""), STR("services"), name);
	if (!port.n && svc->spec.ports.n)
		port_name = svc->spec.ports.v[0].name;
	str_to_i64(port, &number);
	for (uint32_t i = 0; port.n && i < svc->spec.ports.n; i++)
		if (str_eq(svc->spec.ports.v[i].name, port) || (number && svc->spec.ports.v[i].port == number))
			port_name = svc->spec.ports.v[i].name;
	if (str_eqz(svc->spec.type, "ExternalName"))
		return err_bad_request("services of type ExternalName cannot be proxied");
	TRY(ready_endpoint(rq->s, rq->a, rq->info.ns, name, port_name, &host, &want));
	TRY(url_of(rq->a, scheme, host, want, &base));
	return proxy_to(rq, base, false);
}

static bool connects(struct str sub)
{
	return str_eqz(sub, "exec") || str_eqz(sub, "attach") || str_eqz(sub, "portforward") || str_eqz(sub, "proxy");
}

struct error *rest_connect(struct request *rq, bool *handled)
{
	struct str r = rq->info.resource, sub = rq->info.subresource;

	*handled = true;
	if (rq->info.group.n || !sub.n) {
		*handled = false;
		return NULL;
	}
	if (query_has(&rq->q, "dryRun") && connects(sub))
		return err_bad_request("dryRun is not supported");
	if (str_eqz(r, "pods")) {
		if (str_eqz(sub, "log"))
			return pod_log(rq);
		if (str_eqz(sub, "exec"))
			return pod_stream(rq, "exec", true, &core_v1_pod_exec_options_type);
		if (str_eqz(sub, "attach"))
			return pod_stream(rq, "attach", true, &core_v1_pod_attach_options_type);
		if (str_eqz(sub, "portforward"))
			TRY(check_ports(rq));
		if (str_eqz(sub, "portforward"))
			return pod_stream(rq, "portForward", false, &core_v1_pod_port_forward_options_type);
		if (str_eqz(sub, "proxy"))
			return pod_proxy(rq);
	} else if (str_eqz(r, "nodes") && str_eqz(sub, "proxy")) {
		return node_proxy(rq);
	} else if (str_eqz(r, "services") && str_eqz(sub, "proxy")) {
		return service_proxy(rq);
	}
	*handled = false;
	return NULL;
}
