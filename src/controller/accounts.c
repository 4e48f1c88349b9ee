/*
 * Each controller as a service account of its own, as upstream's with --use-service-account-credentials: what it may do is what the
 * role system:controller:NAME says. Tokens come of TokenRequest, when a controller writes first.
 */
#include <stdlib.h>

#include "controller/common.h"

#define ACCOUNTS_NAMESPACE STR("kube-system")
#define TOKEN_S 3600

static struct error *request_token(struct manager *m, struct arena *a, struct authentication_v1_token_request **out)
{
	struct authentication_v1_token_request rq = {0};
	int64_t seconds = TOKEN_S;

	rq.spec.expiration_seconds = &seconds;
	return client_create_sub(m->root->client, a, &core_v1_serviceaccounts_resource, ACCOUNTS_NAMESPACE, str_from(m->account), "token",
				 &authentication_v1_token_request_type, &rq, &authentication_v1_token_request_type, (void **)out);
}

static struct error *make_account(struct manager *m, struct arena *a)
{
	struct core_v1_service_account sa = {0};
	struct error *e;

	sa.metadata.name = str_from(m->account);
	sa.metadata.namespace = ACCOUNTS_NAMESPACE;
	e = client_create(m->root->client, a, &core_v1_serviceaccounts_resource, ACCOUNTS_NAMESPACE, &sa, NULL);
	if (error_is(e, 409, "AlreadyExists"))
		error_clear(&e);
	return e;
}

static struct error *account_token(void *ctx, char **token, int64_t *valid_ms)
{
	struct manager *m = ctx;
	arena_cleanup struct arena a = {0};
	struct authentication_v1_token_request *t;
	struct error *e = request_token(m, &a, &t);

	if (error_is(e, 404, NULL)) {
		error_clear(&e);
		e = make_account(m, &a);
		if (!e)
			e = request_token(m, &a, &t);
	}
	if (e)
		return error_wrap(e, "a token of the service account kube-system/%s", m->account);
	*token = str_dupz(t->status.token);
	/* A fifth before its end there is another. */
	*valid_ms = (time_ms(t->status.expiration_timestamp) - wall_ms()) / 5 * 4;
	return NULL;
}

struct manager *manager_as(struct manager *root, const char *account)
{
	struct manager *m = xcalloc(1, sizeof(*m));
	char *agent = xasprintf("kube-controller-manager/v1.36.0 (skiff)/system:serviceaccount:kube-system:%s", account);

	m->root = root;
	m->account = account;
	m->flags = root->flags;
	m->client = client_with_token(root->connection, account_token, m, agent);
	free(agent);
	return m;
}
