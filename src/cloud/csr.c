#include "cloud/csr.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "base/log.h"
#include "client/workqueue.h"

#define SIGNER "kubernetes.io/kubelet-serving"
#define USER_PREFIX "system:node:"
#define REQUEUES_MAX 14 /* about 80 s: a request may be here before its node's addresses are */

typedef struct certificates_v1_certificate_signing_request csr;

struct approver {
	struct client *client;
	struct informer *nodes, *requests;
	struct workqueue *queue;
};

static bool decided(const csr *r)
{
	return r->status.conditions.n || r->status.certificate.n;
}

static bool usages_are_serving(const csr *r)
{
	bool serving = false;

	for (uint32_t i = 0; i < r->spec.usages.n; i++) {
		struct str u = r->spec.usages.v[i];

		serving |= str_eqz(u, "server auth");
		if (!str_eqz(u, "server auth") && !str_eqz(u, "digital signature") && !str_eqz(u, "key encipherment"))
			return false;
	}
	return serving;
}

static bool name_is(X509_REQ *q, int nid, struct str want)
{
	X509_NAME *name = X509_REQ_get_subject_name(q);
	int i = X509_NAME_get_index_by_NID(name, nid, -1);
	ASN1_STRING *s = i < 0 ? NULL : X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, i));

	return s && X509_NAME_get_index_by_NID(name, nid, i) < 0 &&
	       str_eq(str_of((const char *)ASN1_STRING_get0_data(s), (size_t)ASN1_STRING_length(s)), want);
}

static bool node_has(const struct core_v1_node *n, struct str address)
{
	for (uint32_t i = 0; i < n->status.addresses.n; i++)
		if (str_eq(n->status.addresses.v[i].address, address))
			return true;
	return false;
}

static bool alt_name_is_nodes(const struct core_v1_node *n, const GENERAL_NAME *g)
{
	char text[INET6_ADDRSTRLEN];

	if (g->type == GEN_DNS)
		return node_has(n, str_of((const char *)ASN1_STRING_get0_data(g->d.dNSName), (size_t)ASN1_STRING_length(g->d.dNSName)));
	if (g->type != GEN_IPADD)
		return false;
	int len = ASN1_STRING_length(g->d.iPAddress);

	return (len == 4 || len == 16) &&
	       inet_ntop(len == 4 ? AF_INET : AF_INET6, ASN1_STRING_get0_data(g->d.iPAddress), text, sizeof text) &&
	       node_has(n, str_from(text));
}

/* Every extension asked for is subjectAltName (once, not empty), and every name in it the node's. */
static bool alt_names_are_nodes(const struct core_v1_node *n, X509_REQ *q)
{
	STACK_OF(X509_EXTENSION) *list = X509_REQ_get_extensions(q);
	bool ok = sk_X509_EXTENSION_num(list) == 1;
	GENERAL_NAMES *names = ok ? X509V3_get_d2i(list, NID_subject_alt_name, NULL, NULL) : NULL;

	ok = sk_GENERAL_NAME_num(names) > 0;
	for (int i = 0; ok && i < sk_GENERAL_NAME_num(names); i++)
		ok = alt_name_is_nodes(n, sk_GENERAL_NAME_value(names, i));
	GENERAL_NAMES_free(names);
	sk_X509_EXTENSION_pop_free(list, X509_EXTENSION_free);
	return ok;
}

static struct error *approve(struct approver *p, struct arena *a, csr *r)
{
	struct certificates_v1_certificate_signing_request_condition *k = arena_push(a, &r->status.conditions);

	const struct api_time now = {.s = wall_ns() / 1000000000, .set = true};

	k->type = STR("Approved");
	k->status = STR("True");
	k->reason = STR("AutoApproved");
	k->message = STR("Auto approving the serving certificate of a known node.");
	k->last_update_time = k->last_transition_time = now;
	struct error *e = client_update(p->client, a, &certificates_v1_certificatesigningrequests_resource, STR_NULL, "approval", r, NULL);

	if (error_is(e, 404, NULL))
		error_clear(&e);
	return e;
}

static struct error *reconcile(void *ctx, struct arena *a, struct str ns, struct str name)
{
	struct approver *p = ctx;
	csr *r = informer_get(p->requests, a, STR_NULL, name);

	if (!r || decided(r) || !str_eqz(r->spec.signer_name, SIGNER) || !usages_are_serving(r) ||
	    !str_has_prefix(r->spec.username, STR(USER_PREFIX)))
		return NULL;
	struct core_v1_node *n = informer_get(p->nodes, a, STR_NULL, str_sub(r->spec.username, sizeof USER_PREFIX - 1, r->spec.username.n));
	BIO *bio = BIO_new_mem_buf(r->spec.request.p, (int)r->spec.request.n);
	X509_REQ *q = PEM_read_bio_X509_REQ(bio, NULL, NULL, NULL);
	bool own = q && name_is(q, NID_commonName, r->spec.username) && name_is(q, NID_organizationName, STR("system:nodes"));
	bool good = own && n && alt_names_are_nodes(n, q);

	BIO_free(bio);
	X509_REQ_free(q);
	ERR_clear_error();
	if (good)
		return approve(p, a, r);
	if (own && workqueue_requeues(p->queue, name) < REQUEUES_MAX)
		return error_new("CertificateSigningRequest %.*s: %s", STR_ARG(name),
				 n ? "names addresses that the node's status does not have" : "of a node that is not registered");
	return NULL;
}

static void on_request(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	if (new_)
		workqueue_add(((struct approver *)ctx)->queue, new_->name);
}

struct error *serving_csr_start(struct client *client, struct informer *nodes)
{
	struct approver *p = xcalloc(1, sizeof *p);
	struct informer_opts o = {.resource = &certificates_v1_certificatesigningrequests_resource};

	p->client = client;
	p->nodes = nodes;
	p->queue = workqueue_new("kubelet-serving-csr");
	p->requests = informer_new(client, &o);
	informer_on_event(p->requests, on_request, p);
	informer_start(p->requests);
	TRY(informer_wait_synced(p->requests));
	workqueue_run(p->queue, "kubelet-serving-csr", 1, reconcile, p);
	return NULL;
}
