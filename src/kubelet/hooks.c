/* kubelet/hooks.c: what lifecycle handlers and probes do: exec, HTTP, TCP, gRPC, sleep. */
#include <errno.h>
#include "kubelet/internal.h"

#include <stdio.h>

#define REDIRECTS_MAX 10
#define WARNING_BODY_MAX 512       /* of an event's 1024 */
#define PROBE_BODY_MAX (10u << 10) /* bytes of an answer that are read, as upstream */

static struct error *port_of(const struct core_v1_container *c, struct int_or_string port, int *out)
{
	int64_t n;

	if (!port.is_str) {
		n = port.i;
	} else if (!str_to_i64(port.s, &n)) {
		for (uint32_t i = 0; c && i < c->ports.n; i++)
			if (str_eq(c->ports.v[i].name, port.s)) {
				*out = c->ports.v[i].container_port;
				return NULL;
			}
		return error_new("couldn't find port: container has no port named \"%.*s\"", STR_ARG(port.s));
	}
	if (n < 1 || n > 65535)
		return error_new("invalid port number: %lld", (long long)n);
	*out = (int)n;
	return NULL;
}

static struct str host_port(struct arena *a, struct str host, int port)
{
	return str_index(host, ':') >= 0 ? arena_printf(a, "[%.*s]:%d", STR_ARG(host), port) : arena_printf(a, "%.*s:%d", STR_ARG(host), port);
}

static struct error *http_once(struct arena *a, bool tls, struct str authority, struct str target, const struct http_header *headers, size_t n,
			       int *status, struct str *location, struct str *body)
{
	struct http_client_opts o = {.base = arena_printf(a, "%s://%.*s", tls ? "https" : "http", STR_ARG(authority)).p, .max_idle = 1};
	struct tls_client_opts to = {.insecure_skip_verify = true};
	struct tls_client *tc = NULL;
	struct http_client *hc = NULL;
	struct http_response r = {0};
	struct error *e = NULL;

	if (tls)
		e = tls_client_new(&to, &tc);
	o.tls = tc;
	if (!e)
		e = http_client_new(&o, &hc);
	if (!e)
		e = http_do(hc, a, "GET", target, headers, n, STR_NULL, &r);
	if (!e) {
		char *p = arena_alloc(a, PROBE_BODY_MAX);
		size_t have = 0, got;

		*status = r.status;
		*location = http_header_get(&r.headers, "location");
		while (have < PROBE_BODY_MAX) {
			e = http_response_read(&r, p + have, PROBE_BODY_MAX - have, &got);
			if (e || !got)
				break;
			have += got;
		}
		/* The status decides; a body that breaks off is only less to show. */
		error_clear(&e);
		*body = str_of(p, have);
		http_response_close(&r);
	}
	if (hc)
		http_client_free(hc);
	if (tc)
		tls_client_free(tc);
	return e;
}

/* Splits an absolute URL's authority from its target. */
static bool split_url(struct arena *a, struct str url, bool *tls, struct str *authority, struct str *target)
{
	size_t skip;

	if (str_has_prefix(url, STR("http://")))
		skip = 7;
	else if (str_has_prefix(url, STR("https://")))
		skip = 8;
	else
		return false;
	*tls = skip == 8;
	url = str_sub(url, skip, url.n);
	skip = 0;
	while (skip < url.n && url.p[skip] != '/' && url.p[skip] != '?')
		skip++;
	*authority = str_sub(url, 0, skip);
	*target = str_sub(url, skip, url.n);
	if (!target->n || target->p[0] != '/')
		*target = arena_printf(a, "/%.*s", STR_ARG(*target));
	return true;
}

static struct str host_only(struct str authority)
{
	ptrdiff_t colon = str_rindex(authority, ':'), bracket = str_rindex(authority, ']');

	return colon > bracket ? str_sub(authority, 0, (size_t)colon) : authority;
}

struct error *probe_http(struct kubelet *k, struct arena *a, const struct core_v1_http_get_action *g,
			 const struct core_v1_container *c, struct str pod_ip, int64_t timeout_s, struct str *warning)
{
	struct str host = g->host.n ? g->host : pod_ip, authority, target, location = STR_NULL, body = STR_NULL;
	bool tls = str_eqz(g->scheme, "HTTPS"), agent = false, accept = false;
	LIST(struct http_header) headers = {0};
	int port = 0, status = 0;
	int64_t token;
	struct error *e;

	(void)k;
	TRY(port_of(c, g->port, &port));
	authority = host_port(a, host, port);
	target = g->path.n ? g->path : STR("/");
	if (target.p[0] != '/')
		target = arena_printf(a, "/%.*s", STR_ARG(target));
	for (uint32_t i = 0; i < g->http_headers.n; i++) {
		struct http_header *h = arena_push(a, &headers);
		char *low = arena_strz(a, g->http_headers.v[i].name);

		for (char *p = low; *p; p++)
			*p = (char)(*p >= 'A' && *p <= 'Z' ? *p + 32 : *p);
		h->name = str_from(low);
		h->value = g->http_headers.v[i].value;
		agent |= strcmp(low, "user-agent") == 0;
		accept |= strcmp(low, "accept") == 0;
	}
	if (!agent)
		*arena_push(a, &headers) = (struct http_header){
			STR("user-agent"), warning ? STR("kube-probe/1.36") : STR("kube-lifecycle/1.36")};
	if (!accept)
		*arena_push(a, &headers) = (struct http_header){STR("accept"), STR("*/*")};
	token = deadline_push(timeout_s * 1000);
	for (int i = 0;; i++) {
		struct str first = host_only(authority);
		bool next_tls;
		struct str next_authority, next_target;

		e = http_once(a, tls, authority, target, headers.v, headers.n, &status, &location, &body);
		if (e || status < 300 || status >= 400 || !location.n)
			break;
		if (location.p[0] == '/') {
			next_tls = tls;
			next_authority = authority;
			next_target = location;
		} else if (!split_url(a, location, &next_tls, &next_authority, &next_target)) {
			break;
		}
		/* Elsewhere is not followed: it counts as success. */
		if (!str_eq(host_only(next_authority), first))
			break;
		if (i >= REDIRECTS_MAX) {
			e = error_new("stopped after %d redirects", REDIRECTS_MAX);
			break;
		}
		tls = next_tls;
		authority = next_authority;
		target = next_target;
		if (str_index(str_sub(authority, host_only(authority).n, authority.n), ':') < 0)
			authority = arena_printf(a, "%.*s:%d", STR_ARG(authority), tls ? 443 : 80);
	}
	deadline_pop(token);
	if (error_is_sys(e, ETIMEDOUT)) {
		error_free(e);
		return error_new("Get \"%s://%.*s%.*s\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
				 tls ? "https" : "http", STR_ARG(authority), STR_ARG(target));
	}
	if (e)
		return error_wrap(e, "Get \"%s://%.*s%.*s\"", tls ? "https" : "http", STR_ARG(authority), STR_ARG(target));
	if (warning && status >= 300 && status < 400)
		*warning = arena_printf(a, "Probe terminated redirects, Response body: %.*s",
					STR_ARG(str_sub(body, 0, WARNING_BODY_MAX)));
	if (status >= 200 && status < 400)
		return NULL;
	return error_new("HTTP probe failed with statuscode: %d", status);
}

struct error *probe_tcp(struct kubelet *k, struct arena *a, struct int_or_string port, struct str host, const struct core_v1_container *c,
			struct str pod_ip, int64_t timeout_s)
{
	int n = 0;
	int64_t token;
	struct stream *s = NULL;
	struct str addr;
	struct error *e;

	(void)k;
	TRY(port_of(c, port, &n));
	addr = host_port(a, host.n ? host : pod_ip, n);
	token = deadline_push(timeout_s * 1000);
	e = stream_connect(addr.p, &s);
	deadline_pop(token);
	if (error_is_sys(e, ETIMEDOUT)) {
		error_free(e);
		return error_new("dial tcp %s: i/o timeout", addr.p);
	}
	if (e)
		return error_wrap(e, "dial tcp %s", addr.p);
	stream_close(s);
	return NULL;
}

struct error *probe_grpc(struct kubelet *k, struct arena *a, const struct core_v1_grpc_action *g, struct str pod_ip, int64_t timeout_s)
{
	struct str service = g->service ? *g->service : STR_NULL, answer = STR_NULL, authority = host_port(a, pod_ip, g->port);
	buf_cleanup struct buf req = {0};
	struct grpc_client *c = NULL;
	struct error *e;
	int64_t token;

	(void)k;
	/* HealthCheckRequest { string service = 1 }, HealthCheckResponse { enum status = 1 } */
	if (service.n && service.n < 128) {
		buf_putc(&req, 0x0a);
		buf_putc(&req, (char)service.n);
		buf_str(&req, service);
	}
	TRY(grpc_client_new(arena_printf(a, "http://%.*s", STR_ARG(authority)).p, &c));
	token = deadline_push(timeout_s * 1000);
	e = grpc_call(c, a, "/grpc.health.v1.Health/Check", buf_view(&req), &answer);
	deadline_pop(token);
	grpc_client_free(c);
	if (grpc_error_code(e) == GRPC_DEADLINE_EXCEEDED) {
		error_free(e);
		return error_new("timeout: failed to connect service \"%.*s\" within %llds: context deadline exceeded", STR_ARG(authority),
				 (long long)timeout_s);
	}
	if (grpc_error_code(e) == GRPC_UNIMPLEMENTED) {
		error_free(e);
		return error_new("this server does not implement the grpc health protocol (grpc.health.v1.Health)");
	}
	if (e)
		return error_wrap(e, "error: health rpc probe failed");
	if (answer.n >= 2 && answer.p[0] == 0x08 && answer.p[1] == 1)
		return NULL;
	return error_new("service unhealthy (responded with \"%s\")", answer.n >= 2 && answer.p[1] == 2 ? "NOT_SERVING"
									: answer.n >= 2 && answer.p[1] == 3 ? "SERVICE_UNKNOWN"
													    : "UNKNOWN");
}

struct error *handler_run(struct pod *p, struct arena *a, const struct core_v1_pod *pod, const struct core_v1_container *c,
			  struct str container_id, const struct core_v1_lifecycle_handler *h, int64_t timeout_s)
{
	struct str ip = STR_NULL;

	if (pod->spec.host_network)
		ip = p->k->n_host_ips ? str_from(p->k->host_ips[0]) : STR_NULL;
	else if (p->view && p->view->sandboxes.n && p->view->sandboxes.v[0].ips.n)
		ip = arena_str(a, p->view->sandboxes.v[0].ips.v[0]);
	if (h->exec) {
		struct cri_v1_exec_sync_response resp = {0};

		TRY(cri_exec(p->k, a, container_id, (const struct strings *)(const void *)&h->exec->command, timeout_s, &resp));
		if (resp.exit_code)
			return error_new("command exited with %d: %.*s", resp.exit_code,
					 STR_ARG(resp.stderr.n ? str_sub(resp.stderr, 0, 1024) : str_sub(resp.stdout, 0, 1024)));
		return NULL;
	}
	if (h->http_get)
		return probe_http(p->k, a, h->http_get, c, ip, timeout_s > 0 ? timeout_s : 30, NULL);
	if (h->sleep)
		return fiber_sleep((h->sleep->seconds < timeout_s || timeout_s <= 0 ? h->sleep->seconds : timeout_s) * 1000);
	return error_new("invalid handler: tcpSocket and empty handlers do nothing");
}
