/* kube-apiserver's flags, and the life of the component. */
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>
#include "apiserver/admission.h"
#include "apiserver/alloc.h"
#include "apiserver/apiserver.h"
#include "apiserver/audit.h"
#include "apiserver/authn.h"
#include "apiserver/authz.h"
#include "apiserver/background.h"
#include "apiserver/cors.h"
#include "apiserver/bootstrap.h"
#include "apiserver/connect.h"
#include "apiserver/custom.h"
#include "apiserver/discovery.h"
#include "apiserver/encrypt.h"
#include "apiserver/extend.h"
#include "apiserver/flow.h"
#include "apiserver/identity.h"
#include "apiserver/pipeline.h"
#include "apiserver/policy.h"
#include "apiserver/options.h"
#include "apiserver/server.h"
#include "apiserver/storage_flags.h"
#include "apiserver/validate_pod.h"
#include "base/flags.h"

enum flag_kind { F_STR, F_JOIN /* several, joined with commas */, F_LINES /* with line ends */, F_INT, F_I64, F_FLOAT, F_BOOL, F_DURATION_MS, F_DURATION_S, F_LIST, F_SNI, F_GATES, F_VERSION };

struct flag {
	const char *name;
	enum flag_kind kind;
	size_t offset;
	const char *help;
};
#define O(field) offsetof(struct options, field)
/* The defaults stand in kube_apiserver_main. */
#define AUDIT_BACKEND(name, field, mode_, size, wait, throttle_, qps, burst)                                                            \
	{"audit-" name "-mode", F_STR, O(field.mode), "batch, blocking or blocking-strict (default " mode_ ")"},                         \
		{"audit-" name "-version", F_STR, O(field.version), "audit.k8s.io/v1"},                                                  \
		{"audit-" name "-batch-buffer-size", F_INT, O(field.buffer_size), "events that may wait (default 10000)"},               \
		{"audit-" name "-batch-max-size", F_INT, O(field.max_size), "events in a batch (default " size ")"},                     \
		{"audit-" name "-batch-max-wait", F_DURATION_MS, O(field.max_wait_ms), "how long a batch is filled (default " wait ")"}, \
		{"audit-" name "-batch-throttle-enable", F_BOOL, O(field.throttle), "default " throttle_},                               \
		{"audit-" name "-batch-throttle-qps", F_FLOAT, O(field.throttle_qps), "batches a second (default " qps ")"},             \
		{"audit-" name "-batch-throttle-burst", F_INT, O(field.throttle_burst), "and at once (default " burst ")"},              \
		{"audit-" name "-truncate-enabled", F_BOOL, O(field.truncate), "events and batches have a size (default false)"},        \
		{"audit-" name "-truncate-max-batch-size", F_I64, O(field.truncate_batch), "bytes (default 10485760)"},                  \
	{                                                                                                                                \
		"audit-" name "-truncate-max-event-size", F_I64, O(field.truncate_event),                                                \
			"bytes, above which it goes without bodies or not at all (default 102400)"                                       \
	}
static const struct flag flags[] = {
	{"data-dir", F_STR, O(data_dir), "directory of the embedded store (when no --etcd-servers are given)"},
	{"etcd-servers", F_STR, O(etcd_servers), "comma-separated URLs of etcd v3 members"},
	{"etcd-servers-overrides", F_JOIN, O(etcd_overrides), "GROUP/RESOURCE#URL;URL,...: resources that are kept in an etcd of their own"},
	{"etcd-prefix", F_STR, O(etcd_prefix), "what the store's keys begin with (default /registry)"},
	{"storage-media-type", F_STR, O(storage_media_type), "how built-in objects are stored: application/vnd.kubernetes.protobuf (default), application/json, application/yaml"},
	{"watch-cache", F_BOOL, O(watch_cache), "false: lists take options as upstream's without its watch cache do (default true)"},
	{"watch-cache-sizes", F_JOIN, O(watch_cache_sizes), "RESOURCE[.GROUP]#0,...: the same for these resources; sizes have no effect"},
	{"etcd-healthcheck-timeout", F_DURATION_MS, O(etcd_healthcheck_ms), "of the check \"etcd\" (default 2s)"},
	{"etcd-readycheck-timeout", F_DURATION_MS, O(etcd_readycheck_ms), "of the check \"etcd-readiness\" (default 2s)"},
	{"etcd-cafile", F_STR, O(etcd_ca), "CA of the etcd members"},
	{"etcd-certfile", F_STR, O(etcd_cert), "client certificate for etcd"},
	{"etcd-keyfile", F_STR, O(etcd_key), "its key"},
	{"bind-address", F_STR, O(bind_address), "address to listen on (default 0.0.0.0)"},
	{"secure-port", F_INT, O(secure_port), "port to listen on (default 6443; 0: any free one)"},
	{"permit-port-sharing", F_BOOL, O(port_sharing), "several servers may listen on the port (SO_REUSEPORT)"},
	{"port-file", F_STR, O(port_file), "the port bound is written to this file when the server is ready"},
	{"advertise-address", F_STR, O(advertise_address), "address other members of the cluster reach this server at (default: the one bound to, or of the default route)"},
	{"peer-advertise-ip", F_STR, O(peer_advertise_ip), "address that other API servers reach this one at, with --peer-advertise-port (default: the one advertised)"},
	{"peer-advertise-port", F_STR, O(peer_advertise_port), "its port"},
	{"external-hostname", F_STR, O(external_hostname), "host name in URLs made for clients"},
	{"tls-cert-file", F_STR, O(tls_cert_file), "server certificate (PEM)"},
	{"tls-private-key-file", F_STR, O(tls_key_file), "its key (PEM)"},
	{"cert-dir", F_STR, O(cert_dir), "where apiserver.crt and .key are made when no --tls-cert-file is given (default /var/run/kubernetes)"},
	{"tls-min-version", F_STR, O(tls_min_version), "VersionTLS10, VersionTLS11, VersionTLS12 (the default), VersionTLS13"},
	{"tls-cipher-suites", F_JOIN, O(tls_cipher_suites), "of TLS 1.2, comma separated (default: Go's)"},
	{"tls-curve-preferences", F_JOIN, O(tls_curves), "numbers of groups, comma separated: 23 P-256, 24 P-384, 25 P-521, 29 X25519"},
	{"tls-sni-cert-key", F_SNI, 0, "CERT,KEY[:NAME,...]: another certificate, for those names or its own; may be repeated"},
	{"disable-http2-serving", F_BOOL, O(disable_http2), "HTTP/1.1 only"},
	{"lease-reuse-duration-seconds", F_I64, O(lease_reuse_s), "so long events share a lease (default 60, at most a twentieth of --event-ttl)"},
	{"http2-max-streams-per-connection", F_INT, O(http2_max_streams), "default 250"},
	{"goaway-chance", F_FLOAT, O(goaway_chance), "part of HTTP/2 requests after which the client is sent to another connection, 0 to 0.02 (default 0)"},
	{"client-ca-file", F_STR, O(client_ca_file), "CA of client certificates"},
	{"requestheader-client-ca-file", F_STR, O(requestheader_client_ca_file), "CA of front proxies"},
	{"requestheader-allowed-names", F_STR, O(requestheader_allowed_names), "common names of front proxies; empty: any"},
	{"requestheader-username-headers", F_STR, O(requestheader_username_headers), "X-Remote-User is common"},
	{"requestheader-group-headers", F_STR, O(requestheader_group_headers), "X-Remote-Group is common"},
	{"requestheader-uid-headers", F_STR, O(requestheader_uid_headers), "X-Remote-Uid, when there is any"},
	{"requestheader-extra-headers-prefix", F_STR, O(requestheader_extra_prefixes), "X-Remote-Extra- is common"},
	{"proxy-client-cert-file", F_STR, O(proxy_client_cert_file), "certificate shown to aggregated API servers"},
	{"proxy-client-key-file", F_STR, O(proxy_client_key_file), "its key"},
	{"enable-aggregator-routing", F_BOOL, O(aggregator_routing), "to headless Services and never to those of type ExternalName"},
	{"service-account-issuer", F_LIST, O(sa_issuers), "issuer of service account tokens; may be repeated: the first makes tokens, all are accepted"},
	{"service-account-key-file", F_LIST, O(sa_key_files), "public (or private) keys that verify tokens; may be repeated"},
	{"service-account-signing-key-file", F_STR, O(sa_signing_key_file), "private key that signs tokens"},
	{"service-account-jwks-uri", F_STR, O(sa_jwks_uri), "overrides jwks_uri in the discovery document"},
	{"service-account-lookup", F_BOOL, O(sa_lookup), "tokens of Secrets are looked for there (default true)"},
	{"service-account-max-token-expiration", F_DURATION_S, O(sa_max_token_expiration_s), "upper limit of tokens' validity"},
	{"service-account-extend-token-expiration", F_BOOL, O(sa_extend_expiration), "projected tokens live a year (default true)"},
	{"api-audiences", F_STR, O(api_audiences), "audiences of tokens for this server (default: the issuer)"},
	{"runtime-config", F_JOIN, O(runtime_config), "KEY=BOOL,...: which APIs are served; KEY: api/all, api/ga, GROUP/VERSION, GROUP/VERSION/RESOURCE"},
	{"allow-privileged", F_BOOL, O(allow_privileged), "privileged containers (default false)"},
	{"service-cluster-ip-range", F_STR, O(service_cidr), "CIDR of Services, or two for dual stack (default 10.0.0.0/24)"},
	{"kubernetes-service-node-port", F_INT, O(kubernetes_node_port), "of the Service kubernetes, which then is of type NodePort"},
	{"endpoint-reconciler-type", F_STR, O(endpoint_reconciler), "lease, none or master-count: who writes the endpoints of that Service"},
	{"apiserver-count", F_INT, O(apiserver_count), "for master-count"},
	{"service-node-port-range", F_STR, O(node_port_range), "default 30000-32767"},
	{"kubelet-client-certificate", F_STR, O(kubelet_client_cert), "certificate shown to kubelets"},
	{"kubelet-client-key", F_STR, O(kubelet_client_key), "its key"},
	{"kubelet-certificate-authority", F_STR, O(kubelet_ca), "CA of kubelets' serving certificates; none: not verified"},
	{"kubelet-preferred-address-types", F_STR, O(kubelet_address_types), "default Hostname,InternalDNS,InternalIP,ExternalDNS,ExternalIP"},
	{"token-auth-file", F_STR, O(token_auth_file), "static tokens: token,user,uid,\"groups\" a line"},
	{"authentication-config", F_STR, O(authentication_config), "AuthenticationConfiguration: JWT authenticators, who may be anonymous"},
	{"oidc-issuer-url", F_STR, O(oidc_issuer_url), "URL of the OpenID issuer (https)"},
	{"oidc-client-id", F_STR, O(oidc_client_id), "client ID: audience of its tokens"},
	{"oidc-ca-file", F_STR, O(oidc_ca_file), "CA of the issuer (default: the system's)"},
	{"oidc-username-claim", F_STR, O(oidc_username_claim), "default sub"},
	{"oidc-username-prefix", F_STR, O(oidc_username_prefix), "default ISSUER-URL# unless the claim is email; - for none"},
	{"oidc-groups-claim", F_STR, O(oidc_groups_claim), "claim with the user's groups"},
	{"oidc-groups-prefix", F_STR, O(oidc_groups_prefix), "put before every group"},
	{"oidc-signing-algs", F_STR, O(oidc_signing_algs), "default RS256"},
	{"oidc-required-claim", F_JOIN, O(oidc_required_claims), "key=value that a token must have; may be repeated"},
	{"enable-bootstrap-token-auth", F_BOOL, O(bootstrap_token_auth), "accept bootstrap tokens"},
	{"anonymous-auth", F_BOOL, O(anonymous_auth), "default true"},
	{"authentication-token-webhook-config-file", F_STR, O(token_webhook_config), "kubeconfig of a webhook that TokenReviews are sent to"},
	{"authentication-token-webhook-version", F_STR, O(token_webhook_version), "v1 or v1beta1 (default v1beta1)"},
	{"authentication-token-webhook-cache-ttl", F_DURATION_MS, O(token_webhook_cache_ms), "how long its answers are kept (default 2m0s)"},
	{"authorization-mode", F_STR, O(authorization_mode), "in order: Node, RBAC, ABAC, Webhook, AlwaysAllow, AlwaysDeny (default Node,RBAC)"},
	{"authorization-policy-file", F_STR, O(authorization_policy_file), "policies of ABAC, one a line"},
	{"authorization-config", F_STR, O(authorization_config), "AuthorizationConfiguration, instead of the other authorization flags"},
	{"authorization-webhook-config-file", F_STR, O(authorization_webhook_config), "kubeconfig of the webhook of mode Webhook"},
	{"authorization-webhook-version", F_STR, O(authorization_webhook_version), "v1 or v1beta1 (default v1beta1)"},
	{"authorization-webhook-cache-authorized-ttl", F_DURATION_MS, O(authorization_webhook_authorized_ms), "default 5m0s"},
	{"authorization-webhook-cache-unauthorized-ttl", F_DURATION_MS, O(authorization_webhook_unauthorized_ms), "default 30s"},
	{"enable-admission-plugins", F_STR, O(enable_admission), "beside the default ones"},
	{"disable-admission-plugins", F_STR, O(disable_admission), "of the default ones"},
	{"admission-control-config-file", F_STR, O(admission_config), "AdmissionConfiguration: what plugins are told"},
	{"default-not-ready-toleration-seconds", F_INT, O(not_ready_toleration_s), "of pods that say nothing (default 300)"},
	{"default-unreachable-toleration-seconds", F_INT, O(unreachable_toleration_s), "of pods that say nothing (default 300)"},
	{"audit-log-path", F_STR, O(audit_log_path), "file of the audit log; - is standard output"},
	{"audit-policy-file", F_STR, O(audit_policy_file), "audit.k8s.io/v1 Policy: what is logged; without one, nothing"},
	{"audit-log-format", F_STR, O(audit_log_format), "json or legacy, a line of text an event (default json)"},
	{"audit-log-maxsize", F_INT, O(audit_log_maxsize), "MiB after which the audit log is turned over (default 100; 0: never)"},
	{"audit-log-maxbackup", F_INT, O(audit_log_maxbackup), "audit logs turned over that are kept (default 100; 0: all)"},
	{"audit-log-maxage", F_INT, O(audit_log_maxage), "days that they are kept (default 366; 0: no limit)"},
	{"audit-log-compress", F_BOOL, O(audit_log_compress), "what is turned over is compressed (gzip)"},
	{"audit-webhook-config-file", F_STR, O(audit_webhook_config_file), "kubeconfig of a webhook that gets audit events in batches"},
	{"audit-webhook-initial-backoff", F_DURATION_MS, O(audit_webhook_backoff_ms), "before a batch that failed is sent again (default 10s)"},
	{"audit-webhook-batch-initial-backoff", F_DURATION_MS, O(audit_webhook_backoff_ms), "the same, deprecated"},
	AUDIT_BACKEND("log", audit_log, "blocking", "1", "0s", "false", "0", "0"),
	AUDIT_BACKEND("webhook", audit_webhook, "batch", "400", "30s", "true", "10", "15"),
	{"encryption-provider-config", F_STR, O(encryption_config), "EncryptionConfiguration: aescbc, aesgcm, secretbox, kms (v2), identity"},
	{"encryption-provider-config-automatic-reload", F_BOOL, O(encryption_config_reload), "follow changes of that file"},
	{"enable-priority-and-fairness", F_BOOL, O(priority_and_fairness), "queues by flow schemas; else two plain limits (default true)"},
	{"enable-garbage-collector", F_BOOL, O(garbage_collector), "deletions leave dependents to the garbage collector (default true)"},
	{"max-requests-inflight", F_INT, O(max_requests_inflight), "default 400"},
	{"max-mutating-requests-inflight", F_INT, O(max_mutating_inflight), "default 200"},
	{"request-timeout", F_DURATION_MS, O(request_timeout_ms), "default 1m0s"},
	{"min-request-timeout", F_I64, O(min_request_timeout_s), "seconds a watch lasts at least (default 1800)"},
	{"event-ttl", F_DURATION_MS, O(event_ttl_ms), "default 1h0m0s"},
	{"cors-allowed-origins", F_JOIN, O(cors_allowed_origins), "regular expressions of origins whose pages may ask, comma separated"},
	{"strict-transport-security-directives", F_JOIN, O(hsts_directives), "of the header Strict-Transport-Security, comma separated"},
	{"etcd-compaction-interval", F_DURATION_MS, O(compaction_interval_ms), "how long the store keeps old revisions (default 5m0s)"},
	{"shutdown-delay-duration", F_DURATION_MS, O(shutdown_delay_ms), "between SIGTERM and the end of accepting"},
	{"shutdown-send-retry-after", F_BOOL, O(shutdown_retry_after), "then go on until requests have ended, and send new ones away (429)"},
	{"livez-grace-period", F_DURATION_MS, O(livez_grace_ms), "how long a start may take before /livez fails (default 0)"},
	{"emulated-version", F_JOIN, O(emulated_version), "[kube=]1.36: no other is built"},
	{"min-compatibility-version", F_JOIN, O(min_compatibility_version), "[kube=]1.35: no other is built"},
	{"feature-gates", F_GATES, 0, "CBORServingAndStorage=true: CBOR beside JSON (default false); the other gates are as v1.36 has them"},
	{"allow-metric-labels", F_LINES, O(metric_labels), "METRIC,LABEL=VALUE,...: every other value of the label is shown as \"unexpected\""},
	{"allow-metric-labels-manifest", F_STR, O(metric_labels_file), "a file with a map of METRIC,LABEL to VALUE,..."},
	{"disabled-metrics", F_JOIN, O(disabled_metrics), "names of metrics that are not shown, comma separated"},
	{"show-hidden-metrics-for-version", F_STR, O(show_hidden_metrics), "1.35: what that release hides (none here)"},
	{"profiling", F_BOOL, O(profiling), "serve /debug (default true)"},
	{"v", F_INT, O(verbosity), "log verbosity"},
	{"version", F_VERSION, O(version), "prints the version; raw: all that is known of it; v1.36.0-...: the version to report (default false)"},
};
#define N_FLAGS (sizeof flags / sizeof *flags)

static const struct upstream_flags upstream = {
	"kube-apiserver",
	UPSTREAM_LOG_FLAGS UPSTREAM_SERVING_FLAGS
	"coordinated-leadership-lease-duration coordinated-leadership-renew-deadline coordinated-leadership-retry-period "
	"default-watch-cache-size delete-collection-workers etcd-count-metric-poll-period "
	"etcd-db-metric-poll-interval kubelet-port kubelet-read-only-port kubelet-timeout max-connection-bytes-per-sec "
	"send-retry-after-while-not-ready-once! shutdown-watch-termination-grace-period storage-backend storage-initialization-timeout",
	"admission-control aggregator-reject-forwarding-redirect! debug-socket-path egress-selector-config-file emulation-forward-compatible! "
	"enable-logs-handler! peer-ca-file "
	"runtime-config-emulation-forward-compatible! service-account-signing-endpoint tracing-config-file",
};

static bool is_own(struct str name)
{
	for (size_t i = 0; i < N_FLAGS; i++)
		if (str_eqz(name, flags[i].name))
			return true;
	return false;
}

static void usage(FILE *f)
{
	fprintf(f, "kube-apiserver: the Kubernetes API server of Skiff\n\nUsage: skiff kube-apiserver [flags]\n\nFlags:\n");
	for (size_t i = 0; i < N_FLAGS; i++)
		fprintf(f, "  --%-42s %s\n", flags[i].name, flags[i].help);
	fprintf(f, "  --%-42s %s\n", "help", "this text");
	fprintf(f, "\nTaken with a warning, without effect:");
	for (struct str rest = str_from(upstream.no_effect); rest.n;) {
		struct str name = str_cut(&rest, ' ');

		name.n -= name.n && name.p[name.n - 1] == '!';
		if (name.n && !is_own(name))
			fprintf(f, " %.*s", STR_ARG(name));
	}
	fprintf(f, "\n");
}

/* NAME=BOOL,...: gates that change nothing here are let through. */
static void set_gates(struct options *o, struct str gates)
{
	while (gates.p) {
		struct str value = str_cut(&gates, ','), name = str_trim(str_cut(&value, '='));

		if (str_eqz(name, "CBORServingAndStorage"))
			o->cbor = str_eqz(str_trim(value), "true");
	}
}

/* CERT,KEY[:NAME,...] */
static bool add_sni(struct options *o, const char *v)
{
	struct str names = str_from(v), files = str_cut(&names, ':'), cert;

	names = names.p ? str_trim(names) : names;
	cert = str_trim(str_cut(&files, ','));
	files = str_trim(files);
	if ((names.p && !names.n) || !cert.n || !files.n || str_index(files, ',') >= 0 || o->n_tls_sni == TLS_SNI_MAX)
		return false;
	o->tls_sni[o->n_tls_sni++] = (struct tls_sni){str_dupz(cert), str_dupz(files), names.p ? str_dupz(names) : NULL};
	return true;
}

/* [mark PART], PART of what a semantic version may have there: *text is behind it. */
static bool version_part(const char **text, char mark)
{
	size_t n;

	if (**text != mark)
		return true;
	n = strspn(++*text, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-.");
	*text += n;
	return n;
}

/* Another version to report may differ from the one built in what follows its numbers. */
static bool set_version(struct options *o, const char *v)
{
	size_t built = strcspn(SKIFF_GIT_VERSION, "-+");
	const char *rest;
	bool print;

	if (*v == 'v') {
		if (strncmp(v, SKIFF_GIT_VERSION, built))
			return false;
		rest = v + built;
		if (!version_part(&rest, '-') || !version_part(&rest, '+') || *rest)
			return false;
	} else if (strcmp(v, "raw")) {
		if (!str_to_bool(str_from(v), &print))
			return false;
		v = print ? "true" : "false";
	}
	o->version = v;
	return true;
}

static bool set_flag(struct options *o, const struct flag *f, const char *v)
{
	char *at = (char *)o + f->offset;
	struct flag_list *list;
	int64_t n;

	o->authorization_set |= !strncmp(f->name, "authorization-", 14) && f->offset != O(authorization_config);
	o->oidc_set |= !strncmp(f->name, "oidc-", 5);
	switch (f->kind) {
	case F_STR:
		*(const char **)at = v;
		return true;
	case F_JOIN:
	case F_LINES:
		*(const char **)at = *(const char **)at ? xasprintf("%s%c%s", *(const char **)at, f->kind == F_JOIN ? ',' : '\n', v) : v;
		return true;
	case F_LIST:
		list = (struct flag_list *)(void *)at;
		if (list->n == FLAG_LIST_MAX)
			return false;
		list->v[list->n++] = v;
		return true;
	case F_INT:
		if (!str_to_i64(str_from(v), &n) || n < INT_MIN || n > INT_MAX)
			return false;
		*(int *)at = (int)n;
		return true;
	case F_I64:
		return str_to_i64(str_from(v), (int64_t *)at);
	case F_FLOAT: {
		char *end;

		*(double *)at = strtod(v, &end);
		return *v && !*end;
	}
	case F_SNI:
		return add_sni(o, v);
	case F_BOOL:
		if (f->offset == O(anonymous_auth))
			o->anonymous_auth_set = true;
		return str_to_bool(str_from(v), (bool *)at);
	case F_DURATION_MS:
	case F_DURATION_S:
		if (!duration_parse(str_from(v), &n))
			return false;
		*(int64_t *)at = f->kind == F_DURATION_S ? n / 1000000000 : n / 1000000;
		return true;
	case F_GATES:
		set_gates(o, str_from(v));
		return true;
	case F_VERSION:
		return set_version(o, v);
	}
	return false;
}

const char *git_version(const struct options *o)
{
	return *o->version == 'v' ? o->version : SKIFF_GIT_VERSION;
}

bool option_at(struct arena *a, const struct options *o, size_t i, const char **name, struct buf *value)
{
	const struct flag *f = &flags[i];
	const struct flag_list *list;
	const char *at;

	if (i >= N_FLAGS)
		return false;
	at = (const char *)o + f->offset;
	*name = f->name;
	switch (f->kind) {
	case F_STR:
	case F_JOIN:
	case F_LINES:
	case F_VERSION:
		buf_puts(value, *(const char *const *)(const void *)at ? *(const char *const *)(const void *)at : "");
		break;
	case F_LIST:
		list = (const struct flag_list *)(const void *)at;
		for (size_t k = 0; k < list->n; k++)
			buf_printf(value, "%s%s", k ? "," : "", list->v[k]);
		break;
	case F_INT:
		buf_printf(value, "%d", *(const int *)(const void *)at);
		break;
	case F_I64:
		buf_printf(value, "%lld", (long long)*(const int64_t *)(const void *)at);
		break;
	case F_FLOAT:
		buf_printf(value, "%g", *(const double *)(const void *)at);
		break;
	case F_SNI:
		buf_putc(value, '[');
		for (size_t k = 0; k < o->n_tls_sni; k++)
			buf_printf(value, "%s%s,%s%s%s", k ? ";" : "", o->tls_sni[k].cert_file, o->tls_sni[k].key_file, o->tls_sni[k].names ? ":" : "",
				   o->tls_sni[k].names ? o->tls_sni[k].names : "");
		buf_putc(value, ']');
		break;
	case F_BOOL:
		buf_puts(value, *(const bool *)(const void *)at ? "true" : "false");
		break;
	case F_DURATION_MS:
	case F_DURATION_S:
		buf_str(value, duration_format(a, *(const int64_t *)(const void *)at * (f->kind == F_DURATION_S ? 1000000000 : 1000000)));
		break;
	case F_GATES:
		buf_puts(value, o->cbor ? "CBORServingAndStorage=true" : "");
		break;
	}
	return true;
}

static int parse(int argc, char **argv, struct options *o)
{
	struct option longs[N_FLAGS + 2];
	struct error *e;
	int c, idx;

	memset(longs, 0, sizeof longs);
	for (size_t i = 0; i < N_FLAGS; i++)
		longs[i] = (struct option){flags[i].name, flags[i].kind == F_BOOL || flags[i].kind == F_VERSION ? optional_argument :
																  required_argument, NULL, 1};
	longs[N_FLAGS] = (struct option){"help", no_argument, NULL, 'h'};
	c = upstream_flags_sift(&upstream, longs, &argc, argv);
	if (c)
		return c;
	optind = 1;
	while ((c = getopt_long(argc, argv, "hv:", longs, &idx)) != -1) {
		switch (c) {
		case 'h':
			usage(stdout);
			return 0;
		case 'v':
			o->verbosity = atoi(optarg);
			break;
		case 1:
			if (!set_flag(o, &flags[idx], optarg ? optarg : "true")) {
				fprintf(stderr, "kube-apiserver: invalid value \"%s\" for --%s\n", optarg, flags[idx].name);
				return 1;
			}
			break;
		default:
			fprintf(stderr, "see kube-apiserver --help\n");
			return 1;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "kube-apiserver: unexpected argument \"%s\"\n", argv[optind]);
		return 1;
	}
	if (!strcmp(o->version, "true")) {
		printf("Kubernetes %s\n", git_version(o));
		return 0;
	}
	if (!strcmp(o->version, "raw")) {
		printf("version.Info{Major:\"1\", Minor:\"36\", EmulationMajor:\"\", EmulationMinor:\"\", MinCompatibilityMajor:\"\", "
		       "MinCompatibilityMinor:\"\", GitVersion:\"%s\", GitCommit:\"\", GitTreeState:\"clean\", BuildDate:\"" SKIFF_BUILD_DATE
		       "\", GoVersion:\"none\", Compiler:\"gcc\", Platform:\"" SKIFF_PLATFORM "\"}\n", git_version(o));
		return 0;
	}
	if (!o->data_dir && !o->etcd_servers) {
		fprintf(stderr, "kube-apiserver: give --data-dir (embedded store) or --etcd-servers\n");
		return 1;
	}
	e = options_check(o);
	if (e) {
		fprintf(stderr, "kube-apiserver: %s\n", error_message(e));
		error_free(e);
		return 1;
	}
	if (!o->sa_signing_key_file && !o->sa_key_files.n)
		fprintf(stderr, "kube-apiserver: no --service-account-signing-key-file: service account tokens cannot be issued\n");
	return -1;
}

static const int end_signals[] = {SIGTERM, SIGINT};

struct life {
	struct apiserver *s;
	struct error *err;
};

#define BOOTSTRAP_RETRY_MS 1000

/* A full store keeps nobody from reading what is there: what is missing is made as soon as there is room, and until then it is not ready. */
static void bootstrap_later(void *arg)
{
	struct apiserver *s = arg;
	struct error *e;

	while (!(e = fiber_sleep(BOOTSTRAP_RETRY_MS))) {
		e = bootstrap_run(s);
		if (!e) {
			s->ready = true;
			log_info("what a cluster begins with is complete");
			return;
		}
		if (!error_is(e, 507, NULL))
			log_error("what a cluster begins with: %s", error_message(e));
		error_free(e);
	}
	error_free(e);
}

static struct error *bootstrap(struct apiserver *s)
{
	struct error *e;

	/* What this reads and writes may have to wait for a KMS plugin; the server answers meanwhile, and is not ready. */
	while (error_is(e = bootstrap_run(s), 500, NULL) && encryption_has_check()) {
		log_and_free(e, "bootstrap, to be tried again");
		TRY(fiber_sleep(BOOTSTRAP_RETRY_MS));
	}
	if (error_is(e, 507, NULL)) {
		log_and_free(e, "not ready: what a cluster begins with cannot be written");
		background_start(s, "bootstrap", bootstrap_later, s);
		return NULL;
	}
	s->ready = !e;
	return e;
}

static struct error *start(struct apiserver *s)
{
	struct http_server_opts ho = {.handler = pipeline_handle, .ctx = s, .max_streams = (size_t)s->o.http2_max_streams};
	struct listener *l;
	char addr[300];

	s->started_wall_ns = wall_ns();
	rules_allow_privileged(s->o.allow_privileged);
	TRY(stores_open(s));
	health_init(s);
	TRY(resources_init(s));
	TRY(authn_init(s));
	TRY(admission_init(s));
	TRY(authz_init(s));
	TRY(audit_init(s));
	TRY(cors_init(s));
	TRY(flow_init(s));
	TRY(kubelet_clients_init(s));
	s->grace = grace_new();
	TRY(crds_init(s));
	TRY(aggregator_init(s));
	TRY(webhooks_init(s));
	TRY(policies_init(s));
	TRY(alloc_init(s));
	TRY(serving_certificates(s));
	snprintf(addr, sizeof addr, strchr(s->o.bind_address, ':') ? "[%s]:%d" : "%s:%d", s->o.bind_address, s->o.secure_port);
	TRY(error_wrap(s->o.port_sharing ? listener_open_shared(addr, &l) : listener_open(addr, 0600, &l), "listening on %s", addr));
	s->port = listener_port(l);
	ho.tls = s->tls;
	TRY(http_server_start(l, &ho, &s->http));
	TRY(bootstrap(s));
	/* Whoever learns that it serves may end it. */
	TRY(signal_catch(end_signals, sizeof end_signals / sizeof *end_signals));
	if (s->o.port_file) {
		char text[16];
		int n = snprintf(text, sizeof text, "%d\n", s->port);

		TRY(file_write_atomic(s->o.port_file, str_of(text, (size_t)n), 0644));
	}
	log_info("serving securely on %s:%d", s->o.bind_address, s->port);
	return NULL;
}

#define DRAIN_LOOK_MS 50

/* Goes on until the requests that are no watches have ended, at most as long as one may take. */
static void drain_requests(struct apiserver *s)
{
	int64_t until = now_ms() + s->o.request_timeout_ms;

	s->closed = true;
	while (s->inflight.now + s->inflight_mutating.now > 0 && now_ms() < until)
		error_free(fiber_sleep(DRAIN_LOOK_MS));
}

static void body(void *arg)
{
	struct life *l = arg;
	struct apiserver *s = l->s;
	int sig;

	l->err = start(s);
	if (l->err)
		return;
	l->err = signal_wait(end_signals, sizeof end_signals / sizeof *end_signals, &sig);
	if (l->err)
		return;
	log_info("signal %d: shutting down", sig);
	s->stopping = true;
	identity_leave(s);
	kubernetes_service_leave(s);
	if (s->o.shutdown_delay_ms)
		log_and_free(fiber_sleep(s->o.shutdown_delay_ms), "shutdown delay");
	if (s->o.shutdown_retry_after)
		drain_requests(s);
	http_server_stop(s->http, 1500);
	audit_flush(s);
	background_stop(s);
	stores_close(s);
	log_info("stopped");
}

int kube_apiserver_main(int argc, char **argv)
{
	static struct apiserver server; /* one a process */
	struct life l = {.s = &server};
	struct error *e;
	int rc;

	server.o = (struct options){
		.bind_address = "0.0.0.0", .secure_port = 6443, .sa_extend_expiration = true, .anonymous_auth = true, .profiling = true,
		.max_requests_inflight = 400, .max_mutating_inflight = 200, .request_timeout_ms = 60000, .min_request_timeout_s = 1800,
		.token_webhook_cache_ms = 120000, .authorization_webhook_authorized_ms = 300000, .authorization_webhook_unauthorized_ms = 30000,
		.event_ttl_ms = 3600000, 
		.audit_log_format = "json", .audit_log_maxsize = 100, .audit_log_maxbackup = 100, .audit_log_maxage = 366,
		.audit_log = {.mode = "blocking", .version = "audit.k8s.io/v1", .buffer_size = 10000, .max_size = 1, .truncate_batch = 10 << 20,
			      .truncate_event = 100 << 10},
		.audit_webhook = {.mode = "batch", .version = "audit.k8s.io/v1", .buffer_size = 10000, .max_size = 400, .max_wait_ms = 30000,
				  .throttle = true, .throttle_qps = 10, .throttle_burst = 15, .truncate_batch = 10 << 20,
				  .truncate_event = 100 << 10},
		.audit_webhook_backoff_ms = 10000, .compaction_interval_ms = 300000,
		.not_ready_toleration_s = 300, .unreachable_toleration_s = 300, .cert_dir = "/var/run/kubernetes",
		.lease_reuse_s = 60,
		.version = "false", .etcd_prefix = "/registry", .storage_media_type = "application/vnd.kubernetes.protobuf", .endpoint_reconciler = "lease",
		.apiserver_count = 1, .sa_lookup = true, .priority_and_fairness = true, .garbage_collector = true, .etcd_healthcheck_ms = 2000,
		.etcd_readycheck_ms = 2000, .watch_cache = true,
	};
	rc = parse(argc, argv, &server.o);
	if (rc >= 0)
		return rc;
	log_init("kube-apiserver", server.o.verbosity);
	signal(SIGPIPE, SIG_IGN);
	e = loop_run(body, &l);
	if (!e)
		e = l.err;
	if (e) {
		log_error("%s", error_message(e));
		error_free(e);
		return 1;
	}
	return 0;
}
