/* What flags mean together, and what upstream refuses of them; the certificate that is served. */
#include <string.h>

#include "apiserver/alloc.h"
#include "apiserver/options.h"
#include "apiserver/runtime_config.h"
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
	TRY(not_negative("request-timeout", o->request_timeout_ms));
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
	for (size_t i = 0; flow[i]; i++) {
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

struct error *options_check(const struct options *o)
{
	TRY(check_numbers(o));
	if (!o->tls_cert_file != !o->tls_key_file)
		return error_new("--tls-cert-file and --tls-private-key-file must be given together");
	if (!o->tls_cert_file && !*o->cert_dir)
		return error_new("give --tls-cert-file and --tls-private-key-file, or --cert-dir");
	return check_runtime_config(o);
}

const char *options_advertised(const struct options *o)
{
	if (o->advertise_address)
		return o->advertise_address;
	if (o->bind_address && strcmp(o->bind_address, "0.0.0.0") && strcmp(o->bind_address, "::"))
		return o->bind_address;
	return "127.0.0.1";
}

/* Upstream's names: what clients inside and outside of the cluster call it. */
static struct error *own_certificate(struct apiserver *s, const char **cert, const char **key)
{
	const struct options *o = &s->o;
	const char *name = options_advertised(o), *bound = o->bind_address;
	bool all = !strcmp(bound, "0.0.0.0") || !strcmp(bound, "::");
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
