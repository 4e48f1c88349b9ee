/* What flags mean together, and what upstream refuses of them; the certificate that is served. */
#include <arpa/inet.h>
#include <string.h>

#include "apiserver/alloc.h"
#include "apiserver/metrics.h"
#include "apiserver/options.h"
#include "apiserver/runtime_config.h"
#include "apiserver/storage_flags.h"
#include "loop/io.h"
#include "net/selfsigned.h"

static struct error *not_negative(const char *flag, int64_t v)
{
	return v < 0 ? error_new("--%s can not be negative value", flag) : NULL;
}

static struct error *check_numbers(const struct options *o)
{
	if (o->secure_port < 0 || o->secure_port > 65535)
		return error_new("--secure-port %d must be between 1 and 65535, inclusive (0: any free one)",
				 o->secure_port);
	if (!(o->goaway_chance >= 0 && o->goaway_chance <= 0.02))
		return error_new("--goaway-chance can not be less than 0 or greater than 0.02");
	TRY(not_negative("max-requests-inflight", o->max_requests_inflight));
	TRY(not_negative("max-mutating-requests-inflight", o->max_mutating_inflight));
	if (o->priority_and_fairness && !o->max_requests_inflight && !o->max_mutating_inflight)
		return error_new("--max-requests-inflight and --max-mutating-requests-inflight must add up to "
				 "something positive");
	TRY(not_negative("request-timeout", o->request_timeout_ms));
	TRY(not_negative("livez-grace-period", o->livez_grace_ms));
	TRY(not_negative("min-request-timeout", o->min_request_timeout_s));
	TRY(not_negative("shutdown-delay-duration", o->shutdown_delay_ms));
	TRY(not_negative("http2-max-streams-per-connection", o->http2_max_streams));
	return NULL;
}

static struct error *check_runtime_config(const struct options *o)
{
	static const char *const flow[] = {"flowcontrol.apiserver.k8s.io/v1", "api/ga", "api/all", NULL};
	struct arena a arena_cleanup = {0};
	struct runtime_config *c;

	TRY(error_wrap(runtime_config_parse(&a, o->runtime_config, &c), "--runtime-config"));
	for (size_t i = 0; o->priority_and_fairness && flow[i]; i++) {
		const char *one[] = {flow[i], NULL};
		int said = runtime_config_said(c, one);

		if (!said)
			return error_new("--runtime-config=%s=false conflicts with --enable-priority-and-fairness=true",
					 flow[i]);
		if (said > 0)
			break;
	}
	return NULL;
}

/* As Go's path.Join("/", prefix). */
static const char *clean_prefix(const char *p)
{
	struct buf b buf_cleanup = {0};

	for (struct str rest = str_from(p); rest.n;) {
		struct str part = str_cut(&rest, '/');

		if (part.n && !str_eqz(part, "."))
			buf_printf(&b, "/%.*s", STR_ARG(part));
	}
	return str_dupz(buf_view(&b));
}

static bool one_of(const char *v, const char *a, const char *b, const char *c)
{
	return !strcmp(v, a) || !strcmp(v, b) || (c && !strcmp(v, c));
}

static struct error *check_storage(const struct options *o)
{
	TRY(storage_flags_check(o));
	if (o->encryption_config_reload && !o->encryption_config)
		return error_new(
			"--encryption-provider-config-automatic-reload must be set with --encryption-provider-config");
	return NULL;
}

static struct error *check_endpoints(const struct options *o)
{
	int64_t low = 30000, high = 32767;
	struct str range = str_from(o->node_port_range), first;

	if (!one_of(o->endpoint_reconciler, "lease", "none", "master-count"))
		return error_new("unknown endpoint reconciler type \"%s\": master-count, lease or none",
				 o->endpoint_reconciler);
	if (o->apiserver_count <= 0)
		return error_new("--apiserver-count should be a positive number, but value '%d' provided",
				 o->apiserver_count);
	if (o->kubernetes_node_port < 0 || o->kubernetes_node_port > 65535)
		return error_new("--kubernetes-service-node-port %d must be between 0 and 65535, inclusive",
				 o->kubernetes_node_port);
	if (range.n) {
		first = str_cut(&range, '-');
		str_to_i64(first, &low); /* a range that is none is refused where it is read */
		str_to_i64(range, &high);
	}
	if (o->kubernetes_node_port && (o->kubernetes_node_port < low || o->kubernetes_node_port > high))
		return error_new("kubernetes service node port range %lld-%lld doesn't contain %d", (long long)low,
				 (long long)high, o->kubernetes_node_port);
	return NULL;
}

/* [kube=]MAJOR.MINOR; the only one that there is. */
static struct error *check_version(const char *flag, const char *list, const char *only)
{
	for (struct str rest = str_from(list); rest.n;) {
		struct str version = str_trim(str_cut(&rest, ',')), component = STR("kube");

		if (str_index(version, '=') >= 0)
			component = str_cut(&version, '=');
		if (!str_eqz(component, "kube"))
			return error_new("--%s: component not registered: %.*s", flag, STR_ARG(component));
		if (!str_eqz(version, only))
			return error_new("--%s=%.*s is not built here: only %s is", flag, STR_ARG(version), only);
	}
	return NULL;
}

static bool is_any(const char *ip)
{
	return !strcmp(ip, "0.0.0.0") || !strcmp(ip, "::");
}

static struct error *check_ip(const char *flag, const char *ip)
{
	unsigned char raw[16];

	if (!ip || !*ip || inet_pton(AF_INET, ip, raw) == 1 || inet_pton(AF_INET6, ip, raw) == 1)
		return NULL;
	return error_new("invalid argument \"%s\" for --%s: no IP address", ip, flag);
}

/* As upstream: what it is bound to, where others can reach that, else the address of the default route. */
static void default_address(struct options *o)
{
	static char found[INET6_ADDRSTRLEN];
	const char *bound = o->bind_address;
	bool six = strchr(bound, ':') != NULL;

	if (o->advertise_address && *o->advertise_address && !is_any(o->advertise_address))
		return;
	o->advertise_address = bound;
	if (!is_any(bound) && strncmp(bound, "127.", 4) && strcmp(bound, "::1"))
		return;
	if (source_address(six ? AF_INET6 : AF_INET, found) || source_address(six ? AF_INET : AF_INET6, found))
		o->advertise_address = found;
	else
		o->advertise_address = six ? "::1" : "127.0.0.1"; /* no network: whoever is here */
}

static struct error *check_backend(const char *name, const struct audit_backend *b)
{
	if (!one_of(b->mode, "batch", "blocking", "blocking-strict"))
		return error_new("invalid audit %s mode %s, allowed modes are \"batch,blocking,blocking-strict\"", name,
				 b->mode);
	if (strcmp(b->version, "audit.k8s.io/v1"))
		return error_new("invalid group version %s of the audit %s, allowed versions are \"audit.k8s.io/v1\"",
				 b->version, name);
	if (b->truncate_event <= 0)
		return error_new("invalid audit truncate %s max event size %lld, must be a positive number", name,
				 (long long)b->truncate_event);
	if (b->truncate_batch < b->truncate_event)
		return error_new(
			"invalid audit truncate %s max batch size %lld, must be greater than max event size (%lld)",
			name, (long long)b->truncate_batch, (long long)b->truncate_event);
	if (strcmp(b->mode, "batch"))
		return NULL;
	if (b->buffer_size <= 0)
		return error_new("invalid audit batch %s buffer size %d, must be a positive number", name,
				 b->buffer_size);
	if (b->max_size <= 0)
		return error_new("invalid audit batch %s max batch size %d, must be a positive number", name,
				 b->max_size);
	if (b->throttle && !(b->throttle_qps > 0))
		return error_new("invalid audit batch %s throttle QPS %g, must be a positive number", name,
				 b->throttle_qps);
	if (b->throttle && b->throttle_burst <= 0)
		return error_new("invalid audit batch %s throttle burst %d, must be a positive number", name,
				 b->throttle_burst);
	return NULL;
}

/* Of a backend that is not used nothing is judged. */
static struct error *check_audit(const struct options *o)
{
	if (o->audit_log_path) {
		TRY(check_backend("log", &o->audit_log));
		if (!one_of(o->audit_log_format, "json", "legacy", NULL))
			return error_new("invalid audit log format %s, allowed formats are \"legacy,json\"",
					 o->audit_log_format);
		if (o->audit_log_maxage < 0 || o->audit_log_maxbackup < 0 || o->audit_log_maxsize < 0)
			return error_new("--audit-log-max%s can't be a negative number", o->audit_log_maxage < 0 ? "age"
											 : o->audit_log_maxbackup < 0
												 ? "backup"
												 : "size");
	}
	return o->audit_webhook_config_file ? check_backend("webhook", &o->audit_webhook) : NULL;
}

struct error *options_check(struct options *o)
{
	o->etcd_prefix = clean_prefix(o->etcd_prefix);
	TRY(check_ip("bind-address", o->bind_address));
	TRY(check_ip("advertise-address", o->advertise_address));
	default_address(o);
	TRY(check_numbers(o));
	TRY(check_storage(o));
	TRY(check_endpoints(o));
	TRY(check_audit(o));
	TRY(metrics_configure(o));
	TRY(check_version("emulated-version", o->emulated_version, "1.36"));
	TRY(check_version("min-compatibility-version", o->min_compatibility_version, "1.35"));
	if (!o->tls_cert_file != !o->tls_key_file)
		return error_new("--tls-cert-file and --tls-private-key-file must be given together");
	if (!o->tls_cert_file && !*o->cert_dir)
		return error_new("give --tls-cert-file and --tls-private-key-file, or --cert-dir");
	return check_runtime_config(o);
}

/* Upstream's names: what clients inside and outside of the cluster call it. */
static struct error *own_certificate(struct apiserver *s, const char **cert, const char **key)
{
	const struct options *o = &s->o;
	const char *name = o->advertise_address, *bound = o->bind_address;
	bool all = is_any(bound);
	struct str first = alloc_first_ip(s, &s->arena);
	struct str sans = arena_printf(
		&s->arena, "DNS:kubernetes.default.svc,DNS:kubernetes.default,DNS:kubernetes,%s%s,IP:%.*s,IP:%s",
		all ? "DNS:" : "IP:", all ? "localhost" : bound, STR_ARG(first), name);

	return selfsigned_kept(&s->arena, arena_printf(&s->arena, "%s/apiserver", o->cert_dir).p, name, sans.p, cert,
			       key);
}

struct error *serving_certificates(struct apiserver *s)
{
	const struct options *o = &s->o;
	struct tls_server_opts to = {.cert_file = o->tls_cert_file,
				     .key_file = o->tls_key_file,
				     .client_ca_file = o->client_ca_file,
				     .requestheader_ca_file = o->requestheader_client_ca_file,
				     .http2 = !o->disable_http2,
				     .min_version = o->tls_min_version,
				     .cipher_suites = o->tls_cipher_suites ? o->tls_cipher_suites : "",
				     .curves = o->tls_curves,
				     .sni = o->tls_sni,
				     .n_sni = o->n_tls_sni};

	if (!to.cert_file)
		TRY(error_wrap(own_certificate(s, &to.cert_file, &to.key_file),
			       "error creating self-signed certificates"));
	return error_wrap(tls_server_new(&to, &s->tls), "TLS");
}
