/*
 * controller/bootstrap.c: bootstrap tokens (Secrets bootstrap.kubernetes.io/token in kube-system): the signer puts a signature by each
 * of them into the ConfigMap kube-public/cluster-info, so that who joins can trust it; the cleaner deletes what has expired.
 */
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdlib.h>

#include "controller/base64url.h"
#include "controller/common.h"

#define TOKENS_NS "kube-system"
#define INFO_NS "kube-public"
#define INFO_NAME "cluster-info"
#define SIGNATURE "jws-kubeconfig-"
#define SELECTOR "type=bootstrap.kubernetes.io/token"

/* Both controllers look at the same few Secrets. */
static struct informer *token_secrets(struct manager *m)
{
	return informer_new(m->root->client, &(struct informer_opts){.resource = &core_v1_secrets_resource, .ns = STR(TOKENS_NS),
								     .field_selector = STR(SELECTOR)});
}

/* ms until the token expires: 0 or less when it has; INT64_MAX: never. A time that cannot be read is one that is over. */
static int64_t left_ms(const struct core_v1_secret *s)
{
	struct str t = str_map_get(API_MAP(&s->data), STR("expiration"));
	struct api_time when;

	if (!t.n)
		return INT64_MAX;
	return time_parse(t, &when) ? time_ms(when) - wall_ms() : 0;
}

/* ---- signer ---- */

struct signer {
	struct manager *m;
	struct informer *secrets, *info;
	struct workqueue *q;
};

/* A detached JWS (RFC 7515, appendix F) of the text with the token's secret. */
static struct str signature(struct arena *a, struct str text, struct str id, struct str secret)
{
	struct buf signed_ buf_cleanup = {0}, out buf_cleanup = {0};
	unsigned char mac[EVP_MAX_MD_SIZE];
	unsigned n = 0;

	base64url(&signed_, arena_printf(a, "{\"alg\":\"HS256\",\"kid\":\"%.*s\"}", STR_ARG(id)));
	buf_str(&out, buf_view(&signed_));
	buf_putc(&signed_, '.');
	base64url(&signed_, text);
	HMAC(EVP_sha256(), secret.p, (int)secret.n, (const unsigned char *)signed_.p, signed_.n, mac, &n);
	buf_puts(&out, "..");
	base64url(&out, str_of((char *)mac, n));
	return arena_str(a, buf_view(&out));
}

static bool signs(const struct core_v1_secret *s, struct str *id, struct str *secret)
{
	const struct str_map *d = API_MAP(&s->data);

	*id = str_map_get(d, STR("token-id"));
	*secret = str_map_get(d, STR("token-secret"));
	return !s->metadata.deletion_timestamp && id->n && secret->n && left_ms(s) > 0 &&
	       str_eqz(str_map_get(d, STR("usage-bootstrap-signing")), "true") &&
	       str_has_prefix(s->metadata.name, STR("bootstrap-token-")) && str_eq(str_sub(s->metadata.name, 16, s->metadata.name.n), *id);
}

static struct error *reconcile_info(void *ctx, struct arena *a, struct str ns, struct str name)
{
	struct signer *c = ctx;
	struct core_v1_config_map *cm = informer_get(c->info, a, STR(INFO_NS), STR(INFO_NAME));
	struct core_v1_secret **v;
	struct str_map want = {0}, *data;
	struct str text;
	size_t n;

	if (!cm)
		return NULL;
	data = API_MAP(&cm->data);
	text = str_map_get(data, STR("kubeconfig"));
	if (!text.n)
		return NULL;
	for (uint32_t i = 0; i < data->n; i++)
		if (!str_has_prefix(data->v[i].key, STR(SIGNATURE)))
			str_map_set(a, &want, data->v[i].key, data->v[i].value);
	n = informer_list(c->secrets, a, STR_NULL, NULL, (void ***)&v);
	for (size_t i = 0; i < n; i++) {
		struct str id, secret;

		if (signs(v[i], &id, &secret))
			str_map_set(a, &want, arena_printf(a, SIGNATURE "%.*s", STR_ARG(id)), signature(a, text, id, secret));
	}
	if (map_equal(&want, data))
		return NULL;
	*data = want;
	struct error *e = client_update(c->m->client, a, &core_v1_configmaps_resource, STR(INFO_NS), NULL, cm, NULL);

	if (error_is(e, 404, NULL) || error_is(e, 409, NULL))
		error_clear(&e);
	return e;
}

static void on_signing(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	workqueue_add(((struct signer *)ctx)->q, STR("cluster-info"));
}

void bootstrap_signer_start(struct manager *m)
{
	struct signer *c = xcalloc(1, sizeof(*c));

	c->m = m;
	c->q = workqueue_new("bootstrap_signer_queue");
	c->secrets = token_secrets(m);
	c->info = informer_new(m->root->client, &(struct informer_opts){.resource = &core_v1_configmaps_resource, .ns = STR(INFO_NS),
									.field_selector = STR("metadata.name=" INFO_NAME)});
	informer_on_event(c->secrets, on_signing, c);
	informer_on_event(c->info, on_signing, c);
	informer_start(c->secrets);
	informer_start(c->info);
	controller_run(m, c->q, "bootstrapsigner", 1, reconcile_info, c, c->secrets, c->info, NULL);
}

/* ---- cleaner ---- */

struct cleaner {
	struct manager *m;
	struct informer *secrets;
	struct workqueue *q;
};

static struct error *reconcile_token(void *ctx, struct arena *a, struct str ns, struct str name)
{
	struct cleaner *c = ctx;
	const struct core_v1_secret *s = informer_get(c->secrets, a, ns, name);
	int64_t left = s ? left_ms(s) : INT64_MAX;

	if (left == INT64_MAX)
		return NULL;
	if (left > 0) {
		workqueue_add_after(c->q, object_key(a, ns, name), left + 1);
		return NULL;
	}
	struct error *e = client_delete(c->m->client, a, &core_v1_secrets_resource, ns, name,
					&(struct delete_opts){.grace_seconds = -1, .uid = s->metadata.uid});

	if (error_is(e, 404, NULL) || error_is(e, 409, NULL))
		error_clear(&e);
	return e;
}

static void on_token(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct cleaner *c = ctx;
	arena_cleanup struct arena a = {0};

	if (new_)
		workqueue_add(c->q, object_key(&a, new_->ns, new_->name));
}

void token_cleaner_start(struct manager *m)
{
	struct cleaner *c = xcalloc(1, sizeof(*c));

	c->m = m;
	c->q = workqueue_new("token_cleaner");
	c->secrets = token_secrets(m);
	informer_on_event(c->secrets, on_token, c);
	informer_start(c->secrets);
	controller_run(m, c->q, "tokencleaner", 1, reconcile_token, c, c->secrets, NULL);
}
