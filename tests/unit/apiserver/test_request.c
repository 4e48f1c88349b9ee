/* Requests as the API server reads them, formats it chooses, tokens it issues, names it refuses. */
#include "../test.h"
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "apiserver/authn.h"
#include "apiserver/authz.h"
#include "apiserver/discovery.h"
#include "apiserver/request.h"
#include "apiserver/strategy.h"

static void request_info(void **state)
{
	/* upstream's table of RequestInfo */
	static const struct {
		const char *method, *url, *verb, *prefix, *group, *version, *ns, *resource, *sub, *name;
		bool resource_request;
	} cases[] = {
		{"GET", "/api/v1/namespaces", "list", "api", "", "v1", "", "namespaces", "", "", true},
		{"GET", "/api/v1/namespaces/other", "get", "api", "", "v1", "other", "namespaces", "", "other", true},
		{"GET", "/api/v1/namespaces/other/pods", "list", "api", "", "v1", "other", "pods", "", "", true},
		{"HEAD", "/api/v1/namespaces/other/pods/foo", "get", "api", "", "v1", "other", "pods", "", "foo", true},
		{"GET", "/api/v1/pods", "list", "api", "", "v1", "", "pods", "", "", true},
		{"GET", "/api/v1/pods?watch=true", "watch", "api", "", "v1", "", "pods", "", "", true},
		{"GET", "/api/v1/pods?watch=false", "list", "api", "", "v1", "", "pods", "", "", true},
		{"GET", "/api/v1/watch/namespaces/other/pods", "watch", "api", "", "v1", "other", "pods", "", "", true},
		{"GET", "/api/v1/namespaces/other/pods/foo/status", "get", "api", "", "v1", "other", "pods", "status", "foo", true},
		{"PUT", "/api/v1/namespaces/other/finalize", "update", "api", "", "v1", "other", "namespaces", "finalize", "other", true},
		{"PUT", "/api/v1/namespaces/other/status", "update", "api", "", "v1", "other", "namespaces", "status", "other", true},
		{"PATCH", "/api/v1/namespaces/other/pods/foo", "patch", "api", "", "v1", "other", "pods", "", "foo", true},
		{"DELETE", "/api/v1/namespaces/other/pods/foo", "delete", "api", "", "v1", "other", "pods", "", "foo", true},
		{"DELETE", "/api/v1/nodes", "deletecollection", "api", "", "v1", "", "nodes", "", "", true},
		{"POST", "/apis/batch/v1/namespaces/other/jobs", "create", "apis", "batch", "v1", "other", "jobs", "", "", true},
		{"GET", "/apis/batch/v1/namespaces/other/jobs?fieldSelector=metadata.name%3Dx", "list", "apis", "batch", "v1", "other", "jobs", "",
		 "x", true},
		{"GET", "/api/v1/namespaces/a/pods?fieldSelector=metadata.name%3Dx&limit=z", "list", "api", "", "v1", "a", "pods", "", "", true},
		{"GET", "/api/v1/namespaces/a/pods?fieldSelector=metadata.name%3Dx&watch", "watch", "api", "", "v1", "a", "pods", "", "x", true},
		{"GET", "/api/v1/namespaces//pods", "list", "api", "", "v1", "", "pods", "", "", true},
		{"GET", "/api/v1/namespaces/a/pods/b%2Fc", "get", "api", "", "v1", "a", "pods", "c", "b", true},
		{"GET", "/apis/batch/v1", "get", "apis", "", "", "", "", "", "", false},
		{"GET", "/version", "get", "", "", "", "", "", "", "", false},
		{"POST", "/x", "post", "", "", "", "", "", "", "", false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		arena_cleanup struct arena a = {0};
		struct str query = str_from(cases[i].url), path = str_cut(&query, '?');
		struct request_info r;

		request_info_parse(&a, str_from(cases[i].method), path, query, &r);
		if (r.resource_request != cases[i].resource_request || !str_eqz(r.verb, cases[i].verb) || !str_eqz(r.api_prefix, cases[i].prefix) ||
		    !str_eqz(r.group, cases[i].group) || !str_eqz(r.version, cases[i].version) || !str_eqz(r.ns, cases[i].ns) ||
		    !str_eqz(r.resource, cases[i].resource) || !str_eqz(r.subresource, cases[i].sub) || !str_eqz(r.name, cases[i].name))
			fail_msg("%s %s: verb %.*s ns %.*s resource %.*s sub %.*s name %.*s", cases[i].method, cases[i].url, STR_ARG(r.verb),
				 STR_ARG(r.ns), STR_ARG(r.resource), STR_ARG(r.subresource), STR_ARG(r.name));
	}
}

static void proxy_rest(void **state)
{
	arena_cleanup struct arena a = {0};
	struct request_info r;

	(void)state;
	request_info_parse(&a, STR("GET"), STR("/api/v1/nodes/n/proxy/a%2Fb/c/"), STR_NULL, &r);
	assert_str(r.subresource, "proxy");
	assert_str(r.raw_rest, "/a%2Fb/c/");
	assert_str(r.rest, "a/b/c/");
	assert_true(r.rest_slash);
}

static void negotiation(void **state)
{
	static const struct {
		const char *accept, *type;
		enum media_type media;
		enum answer_as as;
		int status;
	} cases[] = {
		{"", "application/json", MEDIA_JSON, ANSWER_OBJECT, 0},
		{"*/*", "application/json", MEDIA_JSON, ANSWER_OBJECT, 0},
		{"application/yaml", "application/yaml", MEDIA_YAML, ANSWER_OBJECT, 0},
		{"application/json;q=0.1, application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf", MEDIA_PROTOBUF,
		 ANSWER_OBJECT, 0},
		{"application/json;as=Table;v=v1;g=meta.k8s.io,application/json", "application/json", MEDIA_JSON, ANSWER_TABLE, 0},
		{"application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/json", "application/json", MEDIA_JSON, ANSWER_OBJECT, 0},
		{"application/json;as=Nothing;v=v1;g=meta.k8s.io,application/json", "application/json", MEDIA_JSON, ANSWER_OBJECT, 0},
		{"application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", "application/json", MEDIA_JSON, ANSWER_PARTIAL_LIST, 0},
		{"text/html", "application/json", MEDIA_JSON, ANSWER_OBJECT, 406},
		{"application/*;q=0.5,application/yaml;q=0.1", "application/yaml", MEDIA_YAML, ANSWER_OBJECT, 0},
		{"*/*,application/yaml", "application/yaml", MEDIA_YAML, ANSWER_OBJECT, 0},
		{"application/cbor", "application/json", MEDIA_JSON, ANSWER_OBJECT, 406},
		{"application/json;v=v1", "application/json", MEDIA_JSON, ANSWER_OBJECT, 406},
		{"application", "application/json", MEDIA_JSON, ANSWER_OBJECT, 406},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		arena_cleanup struct arena a = {0};
		struct http_header h = {STR("accept"), str_from(cases[i].accept)};
		struct http_headers hs = {&h, 1};
		struct query q = {0};
		struct negotiated n = {0};
		struct negotiation want = {.answers = ANSWERS_RESOURCE};
		struct error *e = negotiate_answer(&a, &hs, &q, &want, &n);

		assert_int_equal(e ? e->status : 0, cases[i].status);
		error_free(e);
		assert_str(n.content_type, cases[i].type);
		assert_int_equal(n.media, cases[i].media);
		assert_int_equal(n.as, cases[i].as);
	}
}

static void body_types(void **state)
{
	static const struct {
		const char *type;
		bool known;
	} cases[] = {
		{"", true}, {"application/json", true}, {"Application/JSON ; charset=utf-8", true}, {"application/json;", true},
		{"application/json; charset=\"utf-8\"", true}, {"application/json; charset", false}, {"application/json;a=b;a=c", false},
		{"application/json,application/yaml", false}, {"application/cbor", false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		arena_cleanup struct arena a = {0};
		enum media_type m;
		struct error *e = negotiate_body(&a, str_from(cases[i].type), false, &m);

		if ((e == NULL) != cases[i].known)
			fail_msg("%s", cases[i].type);
		error_free(e);
	}
}

static void hashes(void **state)
{
	char hash[16];

	(void)state;
	/* as every v1 cluster answers */
	storage_version_hash(STR(""), STR("v1"), STR("Pod"), hash);
	assert_string_equal(hash, "xPOwRZ+Yhw8=");
	storage_version_hash(STR("apps"), STR("v1"), STR("Deployment"), hash);
	assert_string_equal(hash, "8aSe+NMegvE=");
}

static void metadata(void **state)
{
	arena_cleanup struct arena a = {0};
	struct field_errors e = {.arena = &a};
	struct meta_v1_object_meta m = {.name = STR("a"), .namespace = STR("b"), .uid = STR("u"), .resource_version = STR("1")}, o = m;

	(void)state;
	validate_object_meta(&e, &m, true, NULL, FIELD_ROOT("metadata"), true);
	validate_object_meta_update(&e, &m, &o, FIELD_ROOT("metadata"), true);
	assert_int_equal(e.list.n, 0);
	m.name = STR("A_b");
	validate_object_meta(&e, &m, true, NULL, FIELD_ROOT("metadata"), true);
	assert_int_equal(e.list.n, 1);
	assert_str(e.list.v[0].field, "metadata.name");
	validate_object_meta(&e, &m, false, validate_path_segment, FIELD_ROOT("metadata"), true);
	assert_int_equal(e.list.n, 2);
	assert_str(e.list.v[1].field, "metadata.namespace");
	e.list.n = 0;
	m.name = STR("c");
	m.uid = STR("v");
	validate_object_meta_update(&e, &m, &o, FIELD_ROOT("metadata"), true);
	assert_int_equal(e.list.n, 2);
}

static void rules(void **state)
{
	struct str get[] = {STR("get")}, star[] = {STR("*")}, core[] = {STR("")}, pods[] = {STR("pods")}, log[] = {STR("pods/log")},
		   all_log[] = {STR("*/log")};
	struct rbac_v1_policy_rule own = {0}, want = {0};

	(void)state;
	own.verbs.v = star;
	own.verbs.n = 1;
	own.api_groups.v = core;
	own.api_groups.n = 1;
	own.resources.v = pods;
	own.resources.n = 1;
	want = own;
	want.verbs.v = get;
	assert_true(rbac_rule_covers(&own, &want));
	want.resources.v = log;
	assert_false(rbac_rule_covers(&own, &want));
	own.resources.v = all_log;
	assert_true(rbac_rule_covers(&own, &want));
	own.resource_names.v = get;
	own.resource_names.n = 1;
	assert_false(rbac_rule_covers(&own, &want));
}


static void token_round(const char *kind)
{
	char path[] = "/tmp/skiff-key-XXXXXX";
	int fd = mkstemp(path);
	FILE *f = fdopen(fd, "w");
	EVP_PKEY *k = !strcmp(kind, "RSA") ? EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)2048) : EVP_PKEY_Q_keygen(NULL, NULL, "EC", kind);
	struct apiserver s = {0};
	arena_cleanup struct arena a = {0};
	struct sa_claims c = {.ns = STR("ns"), .name = STR("sa"), .uid = STR("u"), .jti = STR("j"), .pod_name = STR("p"), .pod_uid = STR("pu")}, got;
	struct str token, jwks;
	bool ours;
	struct error *e;
	char *bad;

	PEM_write_PrivateKey(f, k, NULL, NULL, 0, NULL, NULL);
	fclose(f);
	EVP_PKEY_free(k);
	s.o.sa_signing_key_file = path;
	assert_ok(sa_tokens_init(&s));
	unlink(path);
	c.iat = c.nbf = wall_ns() / 1000000000;
	c.exp = c.iat + 60;
	*arena_push(&a, &c.audiences) = STR("https://kubernetes.default.svc.cluster.local");
	assert_ok(sa_token_issue(&s, &a, &c, &token));
	assert_ok(sa_token_verify(&s, &a, token, NULL, 0, &ours, &got));
	assert_true(ours);
	assert_str(got.ns, "ns");
	assert_str(got.pod_uid, "pu");
	assert_int_equal(got.exp, c.exp);
	/* for another audience */
	struct str other = STR("other");

	e = sa_token_verify(&s, &a, token, &other, 1, &ours, &got);
	assert_true(error_is(e, 401, NULL));
	error_free(e);
	/* one bit of the signature */
	bad = arena_strz(&a, token);
	bad[token.n - 10] = bad[token.n - 10] == 'A' ? 'B' : 'A';
	e = sa_token_verify(&s, &a, str_from(bad), NULL, 0, &ours, &got);
	assert_true(error_is(e, 401, NULL));
	error_free(e);
	c.exp = c.iat - 600;
	assert_ok(sa_token_issue(&s, &a, &c, &token));
	e = sa_token_verify(&s, &a, token, NULL, 0, &ours, &got);
	assert_true(error_is(e, 401, NULL));
	error_free(e);
	assert_ok(sa_jwks(&s, &a, &jwks));
	assert_true(str_contains(jwks, !strcmp(kind, "RSA") ? STR("\"kty\":\"RSA\"") : STR("\"kty\":\"EC\"")));
	sa_tokens_free(&s);
}

static void tokens_on_loop(void *arg)
{
	(void)arg;
	token_round("RSA");
	token_round("P-256");
	token_round("P-384");
	token_round("P-521");
}

static void tokens(void **state)
{
	(void)state;
	assert_ok(loop_run(tokens_on_loop, NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(request_info), cmocka_unit_test(proxy_rest), cmocka_unit_test(negotiation), cmocka_unit_test(hashes), cmocka_unit_test(body_types),
		cmocka_unit_test(metadata),     cmocka_unit_test(rules),      cmocka_unit_test(tokens),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
