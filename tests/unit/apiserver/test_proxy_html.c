/* Links of proxied pages. */
#include "../test.h"
#include "apiserver/proxy_html.h"

#define PREFIX "/api/v1/namespaces/n/pods/p:80/proxy"

static void check(const char *in, const char *want)
{
	struct buf b buf_cleanup = {0};

	proxy_html_rewrite(str_from(in), STR(PREFIX), STR("10.0.0.1:80"), STR("kube.example:6443"), &b);
	assert_str(buf_view(&b), want);
}

static void links(void **state)
{
	(void)state;
	check("<a href=\"/rewriteme\">test</a>", "<a href=\"" PREFIX "/rewriteme\">test</a>");
	check("<A HREF='/x?a=1&amp;b#c' id=1>", "<A HREF='" PREFIX "/x?a=1&amp;b#c' id=1>");
	check("<img alt=/a src=/b/><p title=\"/c\">", "<img alt=/a src=" PREFIX "/b/><p title=\"/c\">");
	check("<a href=\"x\"><a href=\"#y\"><a href=\"?q\"><a href=\"\">", "<a href=\"x\"><a href=\"#y\"><a href=\"?q\"><a href=\"\">");
	check("<a href=\"http://10.0.0.1:80/x\"><a href=\"//kube.example:6443/y\">", "<a href=\"" PREFIX "/x\"><a href=\"" PREFIX "/y\">");
	check("<a href=\"http://other/x\"><a href=\"mailto:a@b\">", "<a href=\"http://other/x\"><a href=\"mailto:a@b\">");
	check("<a href=\"" PREFIX "/x\">", "<a href=\"" PREFIX "/x\">");
}

static void no_links(void **state)
{
	(void)state;
	check("<!-- <a href=\"/x\"> --><script src=/s>\"<a href='/x'>\"</script><a href=/y>",
	      "<!-- <a href=\"/x\"> --><script src=" PREFIX "/s>\"<a href='/x'>\"</script><a href=" PREFIX "/y>");
	check("a < b <1 </a href=/x>", "a < b <1 </a href=/x>");
	/* cut anywhere: nothing is lost */
	static const char page[] = "<html><a href = '/x' =y z='1\"'><!-- c --><style>a{}</style>";

	for (size_t n = 0; n < sizeof page; n++) {
		struct buf b buf_cleanup = {0};

		proxy_html_rewrite(str_of(page, n), STR(""), STR("h"), STR("h"), &b);
		assert_int_equal(b.n, n);
		assert_memory_equal(b.p, page, n);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(links), cmocka_unit_test(no_links)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
