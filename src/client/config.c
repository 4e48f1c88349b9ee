/* kubeconfig files and the service account of a pod. */
#include "client/internal.h"

#include <stdlib.h>

#define SA_DIR "/var/run/secrets/kubernetes.io/serviceaccount"

/* Relative names in a kubeconfig are relative to it. */
static const char *beside(struct arena *a, const char *path, struct str file)
{
	if (str_empty(file))
		return NULL;
	ptrdiff_t slash = str_rindex(str_from(path), '/');

	if (file.p[0] == '/' || slash < 0)
		return arena_strz(a, file);
	return arena_printf(a, "%.*s/%.*s", (int)slash, path, STR_ARG(file)).p;
}

static const char *strz_or_null(struct arena *a, struct str s)
{
	return str_empty(s) ? NULL : arena_strz(a, s);
}

static struct error *from_user(struct arena *a, const char *path, const struct clientcmd_v1_named_auth_info *u, struct client_config *out)
{
	const struct clientcmd_v1_auth_info *i = &u->user;

	if (i->exec.n && !str_eqz(i->exec, "null"))
		return error_new("user \"%.*s\" of %s uses an exec credential plugin; these are not supported: use a client "
				 "certificate, token or tokenFile", STR_ARG(u->name), path);
	if (i->auth_provider.n && !str_eqz(i->auth_provider, "null"))
		return error_new("user \"%.*s\" of %s uses an auth-provider, which Kubernetes has removed: use a client "
				 "certificate, token or tokenFile", STR_ARG(u->name), path);
	if (i->username.n || i->password.n)
		return error_new("user \"%.*s\" of %s uses a password, which the API server does not accept: use a client "
				 "certificate, token or tokenFile", STR_ARG(u->name), path);
	if (i->as.n)
		return error_new("user \"%.*s\" of %s impersonates another (as:), which components do not do", STR_ARG(u->name),
				 path);
	/* Data goes before the file, as kubectl has it. */
	out->cert_pem = i->client_certificate_data;
	out->key_pem = i->client_key_data;
	if (str_empty(out->cert_pem))
		out->cert_file = beside(a, path, i->client_certificate);
	if (str_empty(out->key_pem))
		out->key_file = beside(a, path, i->client_key);
	out->token_file = beside(a, path, i->token_file);
	out->token = strz_or_null(a, i->token);
	if ((out->cert_file || out->cert_pem.n) != (out->key_file || out->key_pem.n))
		return error_new("user \"%.*s\" of %s has a client certificate without its key, or a key without its certificate",
				 STR_ARG(u->name), path);
	return NULL;
}

static struct error *from_config(struct arena *a, const char *path, const struct clientcmd_v1_config *k, const char *context,
				 struct client_config *out)
{
	struct str want = context ? str_from(context) : k->current_context;
	const struct clientcmd_v1_context *ctx = NULL;
	const struct clientcmd_v1_cluster *cluster = NULL;

	if (str_empty(want)) {
		if (k->contexts.n != 1)
			return error_new("%s has no current-context: name one", path);
		want = k->contexts.v[0].name;
	}
	for (uint32_t i = 0; i < k->contexts.n; i++)
		if (str_eq(k->contexts.v[i].name, want))
			ctx = &k->contexts.v[i].context;
	if (!ctx)
		return error_new("%s has no context \"%.*s\"", path, STR_ARG(want));
	for (uint32_t i = 0; i < k->clusters.n; i++)
		if (str_eq(k->clusters.v[i].name, ctx->cluster))
			cluster = &k->clusters.v[i].cluster;
	if (!cluster)
		return error_new("context \"%.*s\" of %s names cluster \"%.*s\", which is not there", STR_ARG(want), path,
				 STR_ARG(ctx->cluster));
	if (str_empty(cluster->server))
		return error_new("cluster \"%.*s\" of %s names no server", STR_ARG(ctx->cluster), path);
	if (!str_empty(cluster->proxy_url))
		return error_new("cluster \"%.*s\" of %s has a proxy-url, which is not supported", STR_ARG(ctx->cluster), path);
	out->server = arena_strz(a, cluster->server);
	out->ca_pem = cluster->certificate_authority_data;
	if (str_empty(out->ca_pem))
		out->ca_file = beside(a, path, cluster->certificate_authority);
	out->tls_server_name = strz_or_null(a, cluster->tls_server_name);
	out->insecure_skip_tls_verify = cluster->insecure_skip_tls_verify;
	out->ns = strz_or_null(a, ctx->namespace);
	if (str_empty(ctx->user))
		return NULL;
	for (uint32_t i = 0; i < k->users.n; i++)
		if (str_eq(k->users.v[i].name, ctx->user))
			return from_user(a, path, &k->users.v[i], out);
	return error_new("context \"%.*s\" of %s names user \"%.*s\", which is not there", STR_ARG(want), path, STR_ARG(ctx->user));
}

struct error *client_config_load(struct arena *a, const char *path, const char *context, struct client_config *out)
{
	struct buf buf_cleanup text = {.limit = 16 << 20}, json = {0};
	struct clientcmd_v1_config *k = arena_new(a, struct clientcmd_v1_config);

	*out = (struct client_config){0};
	TRY(error_wrap(file_read(path, &text), "kubeconfig"));
	TRY(error_wrap(yaml_to_json(buf_view(&text), NULL, &json), "kubeconfig %s", path));
	/* The decoded strings point into the text: it moves to the arena. */
	TRY(error_wrap(json_decode(a, &clientcmd_v1_config_type, arena_str(a, buf_view(&json)), NULL, k), "kubeconfig %s", path));
	if (k->kind.n && !str_eqz(k->kind, "Config"))
		return error_new("%s is a %.*s, not a kubeconfig", path, STR_ARG(k->kind));
	return from_config(a, path, k, context, out);
}

struct error *client_config_in_cluster(struct arena *a, struct client_config *out)
{
	const char *host = getenv("KUBERNETES_SERVICE_HOST"), *port = getenv("KUBERNETES_SERVICE_PORT");
	struct buf buf_cleanup ns = {0};

	*out = (struct client_config){0};
	if (!host || !port || !host[0] || !port[0])
		return error_new("not in a pod: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set; use --kubeconfig");
	out->server = arena_printf(a, strchr(host, ':') ? "https://[%s]:%s" : "https://%s:%s", host, port).p;
	out->ca_file = SA_DIR "/ca.crt";
	out->token_file = SA_DIR "/token";
	TRY(error_wrap(file_read(SA_DIR "/namespace", &ns), "service account of this pod"));
	out->ns = arena_strz(a, str_trim(buf_view(&ns)));
	return NULL;
}
