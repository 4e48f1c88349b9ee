#include "../test.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "client/client.h"

static struct error *load(struct arena *a, const char *text, const char *context, struct client_config *out)
{
	char path[] = "/tmp/kubeconfig-XXXXXX";
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
	struct error *e = client_config_load(a, path, context, out);

	unlink(path);
	return e;
}

#define HEAD "apiVersion: v1\nkind: Config\nclusters:\n- name: c\n  cluster:\n    server: https://127.0.0.1:6443\n" \
	"    certificate-authority-data: Y2E=\n- name: d\n  cluster: {server: 'http://localhost:1', certificate-authority: ca.pem}\n" \
	"contexts:\n- name: one\n  context: {cluster: c, user: u, namespace: spot}\n- name: two\n  context:\n    cluster: d\n    user: t\n" \
	"- name: lost\n  context: {cluster: nowhere, user: u}\n- name: plug\n  context: {cluster: c, user: x}\n" \
	"- name: half\n  context: {cluster: c, user: h}\n" \
	"users:\n- name: u\n  user:\n    client-certificate-data: Y2VydA==\n    client-key-data: a2V5\n" \
	"- name: t\n  user: {token: abc}\n- name: x\n  user: {exec: {command: aws, apiVersion: client.authentication.k8s.io/v1}}\n" \
	"- name: h\n  user: {client-certificate: cert.pem}\n"

static void test_contexts(void **s)
{
	arena_cleanup struct arena a = {0};
	struct client_config c;

	assert_ok(load(&a, HEAD "current-context: one\n", NULL, &c));
	assert_string_equal(c.server, "https://127.0.0.1:6443");
	assert_str(c.ca_pem, "ca");
	assert_str(c.cert_pem, "cert");
	assert_str(c.key_pem, "key");
	assert_string_equal(c.ns, "spot");
	assert_null(c.token);
	assert_ok(load(&a, HEAD "current-context: one\n", "two", &c));
	assert_string_equal(c.server, "http://localhost:1");
	assert_string_equal(c.ca_file, "/tmp/ca.pem"); /* beside the file */
	assert_string_equal(c.token, "abc");
}

static void fails(const char *text, const char *context, const char *why)
{
	arena_cleanup struct arena a = {0};
	struct client_config c;
	struct error *e = load(&a, text, context, &c);

	assert_non_null(e);
	if (!strstr(e->message, why))
		fail_msg("\"%s\" does not say \"%s\"", e->message, why);
	error_free(e);
}

static void test_errors(void **s)
{
	fails(HEAD, NULL, "current-context");
	fails(HEAD, "none", "no context \"none\"");
	fails(HEAD, "lost", "cluster \"nowhere\"");
	fails(HEAD, "plug", "exec credential plugin");
	fails(HEAD, "half", "without its key");
	fails("kind: Pod\n", NULL, "not a kubeconfig");
	fails("{{{", NULL, "kubeconfig");
	arena_cleanup struct arena a = {0};
	struct client_config c;
	struct error *e = client_config_load(&a, "/nonexistent/kubeconfig", NULL, &c);

	assert_non_null(e);
	error_free(e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_contexts),
		cmocka_unit_test(test_errors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
