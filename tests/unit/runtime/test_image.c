/* Image references, the store, and archives made to hurt it. */
#include "../test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/log.h"
#include "runtime/image_internal.h"
#include "runtime/internal.h"

/* ---- a small tar writer ---- */

static void tar_member(struct buf *b, const char *name, char type, const char *link, struct str data, unsigned mode, unsigned dev)
{
	char h[512] = {0};
	snprintf(h, 100, "%s", name);
	snprintf(h + 100, 8, "%07o", mode);
	snprintf(h + 108, 8, "%07o", 0);
	snprintf(h + 116, 8, "%07o", 0);
	snprintf(h + 124, 12, "%011o", (unsigned)data.n);
	snprintf(h + 136, 12, "%011o", 0);
	memset(h + 148, ' ', 8);
	h[156] = type;
	snprintf(h + 157, 100, "%s", link);
	memcpy(h + 257, "ustar\00000", 8);
	snprintf(h + 329, 8, "%07o", dev >> 8 & 07777777);
	snprintf(h + 337, 8, "%07o", dev & 255);
	unsigned sum = 0;
	for (size_t i = 0; i < sizeof(h); i++)
		sum += (unsigned char)h[i];
	snprintf(h + 148, 8, "%06o", sum);
	buf_append(b, h, sizeof(h));
	buf_str(b, data);
	while (b->n % 512)
		buf_putc(b, 0);
}

static void tar_file(struct buf *b, const char *name, const char *text)
{
	tar_member(b, name, '0', "", str_from(text), 0644, 0);
}

static void tar_dir(struct buf *b, const char *name)
{
	tar_member(b, name, '5', "", STR_NULL, 0755, 0);
}

static void tar_end(struct buf *b)
{
	static const char zero[1024];
	buf_append(b, zero, sizeof(zero));
}

/* ---- a store and a layout in a directory of this test ---- */

struct world {
	char dir[64];
	struct image_store *s;
	struct arena a;
};

static int set_up(void **state)
{
	struct world *w = xcalloc(1, sizeof(*w));
	snprintf(w->dir, sizeof(w->dir), "/tmp/skiff-image-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	char root[128];
	snprintf(root, sizeof(root), "%s/rt/images", w->dir);
	assert_ok(image_store_open(root, 1 << 20, &w->s));
	*state = w;
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;
	image_store_close(w->s);
	arena_free(&w->a);
	assert_ok(sys_remove_tree(w->dir));
	free(w);
	return 0;
}

static void put(struct world *w, const char *name, struct str data)
{
	str_cleanup char *p = xasprintf("%s/layout/%s", w->dir, name);
	str_cleanup char *dir = xstrdup(p);
	*strrchr(dir, '/') = 0;
	assert_ok(sys_mkdirs(dir, 0755));
	assert_ok(sys_write_atomic(p, data, 0644, false));
}

static const char *put_blob(struct world *w, struct str data)
{
	char d[DIGEST_LEN + 1];
	digest_of(data, d);
	char *name = arena_strz(&w->a, arena_printf(&w->a, "blobs/sha256/%s", d + 7));
	put(w, name, data);
	return arena_strz(&w->a, str_from(d));
}

/* A layout of these layers (tars); the path of its directory. */
static const char *layout(struct world *w, const char *name, const struct buf *layers, size_t n)
{
	buf_cleanup struct buf config = {0}, m = {0}, index = {0};
	buf_printf(&config, "{\"architecture\":\"%s\",\"os\":\"linux\",\"config\":{\"Cmd\":[\"sh\"],\"User\":\"33:44\"},\"rootfs\":{\"type\":"
			    "\"layers\",\"diff_ids\":[", platform_arch());
	for (size_t i = 0; i < n; i++)
		buf_printf(&config, "%s\"%s\"", i ? "," : "", put_blob(w, buf_view(&layers[i])));
	buf_puts(&config, "]}}");
	buf_printf(&m, "{\"schemaVersion\":2,\"config\":{\"digest\":\"%s\",\"size\":%zu},\"layers\":[", put_blob(w, buf_view(&config)), config.n);
	for (size_t i = 0; i < n; i++)
		buf_printf(&m, "%s{\"digest\":\"%s\",\"size\":%zu}", i ? "," : "", put_blob(w, buf_view(&layers[i])), layers[i].n);
	buf_puts(&m, "]}");
	buf_printf(&index, "{\"schemaVersion\":2,\"manifests\":[{\"digest\":\"%s\",\"size\":%zu,\"annotations\":{"
			   "\"io.containerd.image.name\":\"%s\"}}]}", put_blob(w, buf_view(&m)), m.n, name);
	put(w, "index.json", buf_view(&index));
	return arena_strz(&w->a, arena_printf(&w->a, "%s/layout", w->dir));
}

static struct error *import(struct world *w, const char *path)
{
	struct strings names;
	return image_import(w->s, &w->a, path, STR_NULL, NULL, NULL, &names);
}

/* An import that must be refused, with this in its error, and that must leave nothing behind. */
static void refused(struct world *w, struct buf *layer, const char *why)
{
	tar_end(layer);
	struct error *e = import(w, layout(w, "docker.io/library/evil:latest", layer, 1));
	assert_non_null(e);
	if (!strstr(e->message, why))
		fail_msg("the error is \"%s\", wanted \"%s\"", e->message, why);
	error_free(e);
	struct rt_v1_image_index x;
	assert_ok(image_list(w->s, &w->a, &x));
	assert_int_equal(x.images.n, 0);
	uint64_t bytes, inodes;
	str_cleanup char *l = sys_path(w->s->root, "l");
	str_cleanup char *tmp = sys_path(w->s->root, "tmp");
	assert_ok(sys_disk_usage(l, &bytes, &inodes));
	assert_int_equal(inodes, 0);
	assert_ok(sys_disk_usage(tmp, &bytes, &inodes));
	assert_int_equal(inodes, 0);
	buf_free(layer);
}

/* ---- references ---- */

static void check_ref(const char *text, const char *tagged, const char *digest)
{
	arena_cleanup struct arena a = {0};
	struct image_ref r;
	struct error *e = image_ref_parse(&a, str_from(text), &r);
	if (!tagged) {
		if (!e)
			fail_msg("\"%s\" was taken", text);
		error_free(e);
		return;
	}
	assert_ok(e);
	assert_str(image_ref_tagged(&a, &r), tagged);
	assert_str(r.digest, digest);
}

#define D64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void test_refs(void **state)
{
	check_ref("busybox", "docker.io/library/busybox:latest", "");
	check_ref("busybox:1.36", "docker.io/library/busybox:1.36", "");
	check_ref("index.docker.io/library/busybox", "docker.io/library/busybox:latest", "");
	check_ref("team/app", "docker.io/team/app:latest", "");
	check_ref("registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.9", "");
	check_ref("localhost/a:b", "localhost/a:b", "");
	check_ref("localhost:5000/a/b_c__d.e-f", "localhost:5000/a/b_c__d.e-f:latest", "");
	check_ref("[::1]:5000/a:1", "[::1]:5000/a:1", "");
	check_ref("a.example/x@sha256:" D64, "", "sha256:" D64);
	check_ref("a.example/x:t@sha256:" D64, "a.example/x:t", "sha256:" D64);
	static const char *const bad[] = {"", ":", "a:", "A", "a/B", "a//b", "/a", "a/", "-a", "a-", "a..b", "a___b", "a:b/c:", "a b",
					  "a@sha256:0", "a@sha512:" D64, "a@", "x:-t", "host:port/a", "../a", "a/../b", "[zz]/a"};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		check_ref(bad[i], NULL, NULL);
	char longname[300];
	memset(longname, 'a', sizeof(longname));
	longname[299] = 0;
	check_ref(longname, NULL, NULL);
}

static void test_paths(void **state)
{
	char out[4096];
	assert_true(tar_path_clean("./a//b/./c/", out));
	assert_string_equal(out, "a/b/c");
	assert_true(tar_path_clean("/etc/passwd", out));
	assert_string_equal(out, "etc/passwd");
	assert_true(tar_path_clean("./", out));
	assert_string_equal(out, "");
	assert_true(tar_path_clean("a..b/..c/...", out));
	assert_false(tar_path_clean("..", out));
	assert_false(tar_path_clean("a/../b", out));
	assert_false(tar_path_clean("/..", out));
	assert_false(tar_path_clean(NULL, out));
	char longpath[5000];
	memset(longpath, 'x', sizeof(longpath));
	longpath[4999] = 0;
	assert_false(tar_path_clean(longpath, out));
	longpath[300] = 0;
	assert_false(tar_path_clean(longpath, out));
}

static void test_signals(void **state)
{
	assert_int_equal(rt_signal_number(STR("SIGTERM")), 15);
	assert_int_equal(rt_signal_number(STR("usr1")), 10);
	assert_int_equal(rt_signal_number(STR("9")), 9);
	assert_int_equal(rt_signal_number(STR("SIGRTMIN+3")), 37);
	assert_int_equal(rt_signal_number(STR("SIGRTMAX-1")), 63);
	assert_int_equal(rt_signal_number(STR("RTMAX")), 64);
	assert_int_equal(rt_signal_number(STR("SIGNOTHING")), 0);
	assert_int_equal(rt_signal_number(STR("RTMIN+31")), 0);
	assert_int_equal(rt_signal_number(STR("-1")), 0);
	assert_int_equal(rt_signal_number(STR("")), 0);
	for (int i = 1; i < CRI_SIGNAL_COUNT; i++)
		assert_true(rt_signal_number(str_from(cri_signal_names[i])) > 0);
}

/* ---- import ---- */

static void need_root(void)
{
	if (geteuid() != 0)
		skip();
}

static void test_import(void **state)
{
	struct world *w = *state;
	need_root();
	struct buf l[2] = {{0}, {0}};
	tar_dir(&l[0], "./");
	tar_dir(&l[0], "etc");
	tar_file(&l[0], "etc/gone", "x");
	tar_file(&l[0], "etc/kept", "y");
	tar_dir(&l[0], "opaque");
	tar_file(&l[0], "opaque/below", "z");
	tar_member(&l[0], "link", '2', "/etc/kept", STR_NULL, 0777, 0);
	tar_member(&l[0], "hard", '1', "etc/kept", STR_NULL, 0644, 0);
	tar_member(&l[0], "deep", '5', "", STR_NULL, 0700, 0);
	tar_end(&l[0]);
	tar_file(&l[1], "etc/.wh.gone", "");
	tar_file(&l[1], "opaque/.wh..wh..opq", "");
	tar_file(&l[1], "opaque/above", "a");
	tar_file(&l[1], "deep/er/file", "b");
	tar_end(&l[1]);
	const char *dir = layout(w, "docker.io/library/test:v1", l, 2);
	assert_ok(import(w, dir));

	struct rt_v1_image_record *im;
	assert_ok(image_find(w->s, &w->a, STR("test:v1"), &im));
	assert_non_null(im);
	assert_int_equal(im->layers.n, 2);
	assert_str(im->tags.v[0], "docker.io/library/test:v1");
	assert_str(im->user, "33:44");
	struct rt_v1_image_record *again;
	assert_ok(image_find(w->s, &w->a, im->id, &again));
	assert_non_null(again);
	assert_ok(image_find(w->s, &w->a, str_sub(im->id, 7, 19), &again));
	assert_non_null(again);
	assert_ok(image_find(w->s, &w->a, STR("test:v2"), &again));
	assert_null(again);
	struct oci_v1_image config;
	assert_ok(image_config(w->s, &w->a, im, &config));
	assert_str(config.config->cmd.v[0], "sh");

	char p[512];
	struct stat st;
	struct str lower = layer_name(im->layers.v[0]), upper = layer_name(im->layers.v[1]);
	snprintf(p, sizeof(p), "%s/%.*s/link", image_layers_dir(w->s), STR_ARG(lower));
	assert_int_equal(lstat(p, &st), 0);
	assert_true(S_ISLNK(st.st_mode));
	snprintf(p, sizeof(p), "%s/%.*s/hard", image_layers_dir(w->s), STR_ARG(lower));
	assert_int_equal(lstat(p, &st), 0);
	assert_int_equal(st.st_nlink, 2);
	snprintf(p, sizeof(p), "%s/%.*s/etc/gone", image_layers_dir(w->s), STR_ARG(upper));
	assert_int_equal(lstat(p, &st), 0);
	assert_true(S_ISCHR(st.st_mode) && st.st_rdev == makedev(0, 0));
	char y = 0;
	snprintf(p, sizeof(p), "%s/%.*s/opaque", image_layers_dir(w->s), STR_ARG(upper));
	assert_int_equal(getxattr(p, "trusted.overlay.opaque", &y, 1), 1);
	assert_int_equal(y, 'y');
	/* A directory that only the layer below has keeps its mode in the one above. */
	snprintf(p, sizeof(p), "%s/%.*s/deep", image_layers_dir(w->s), STR_ARG(upper));
	assert_int_equal(lstat(p, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);

	/* A second import finds everything there; a second name joins the first. */
	assert_ok(import(w, dir));
	assert_ok(import(w, layout(w, "docker.io/library/test:v2", l, 2)));
	struct rt_v1_image_index x;
	assert_ok(image_list(w->s, &w->a, &x));
	assert_int_equal(x.images.n, 1);
	assert_int_equal(x.images.v[0].tags.n, 2);

	/* A claim keeps the layers of a removed image. */
	char claim[256];
	snprintf(claim, sizeof(claim), "%s/rt/containers/c1", w->dir);
	assert_ok(sys_mkdirs(claim, 0755));
	struct strings layers;
	assert_ok(image_claim(w->s, &w->a, im->id, claim, &layers));
	assert_int_equal(layers.n, 2);
	assert_true(str_eq(layers.v[0], upper));
	assert_ok(image_remove(w->s, STR("test:v1")));
	assert_ok(image_find(w->s, &w->a, STR("test:v2"), &again));
	assert_non_null(again);
	assert_ok(image_remove(w->s, im->id));
	assert_ok(image_find(w->s, &w->a, STR("test:v2"), &again));
	assert_null(again);
	assert_true(layer_present(w->s, im->layers.v[0]));
	assert_int_equal(rmdir(claim), 0); /* its owner is gone, so the claim is */
	assert_ok(image_gc(w->s));
	assert_false(layer_present(w->s, im->layers.v[0]));
	assert_ok(image_remove(w->s, STR("never-there")));
	struct error *e = image_claim(w->s, &w->a, im->id, claim, &layers);
	assert_true(error_is(e, 404, "NotFound"));
	error_free(e);
	buf_free(&l[0]);
	buf_free(&l[1]);
}

static void test_docker_archive(void **state)
{
	struct world *w = *state;
	need_root();
	struct buf l = {0}, config = {0}, m = {0};
	tar_file(&l, "hello", "world");
	tar_end(&l);
	char d[DIGEST_LEN + 1];
	digest_of(buf_view(&l), d);
	buf_printf(&config, "{\"architecture\":\"%s\",\"os\":\"linux\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"%s\"]}}", platform_arch(), d);
	buf_puts(&m, "[{\"Config\":\"c.json\",\"RepoTags\":[\"team/app:1\",\"team/app:2\"],\"Layers\":[\"abc/layer.tar\"]}]");
	buf_cleanup struct buf outer = {0};
	tar_dir(&outer, "abc");
	tar_member(&outer, "abc/layer.tar", '0', "", buf_view(&l), 0644, 0);
	tar_member(&outer, "c.json", '0', "", buf_view(&config), 0644, 0);
	tar_member(&outer, "manifest.json", '0', "", buf_view(&m), 0644, 0);
	tar_end(&outer);
	char path[128];
	snprintf(path, sizeof(path), "%s/saved.tar", w->dir);
	assert_ok(sys_write_atomic(path, buf_view(&outer), 0644, false));
	struct strings names;
	assert_ok(image_import(w->s, &w->a, path, STR_NULL, NULL, NULL, &names));
	assert_int_equal(names.n, 2);
	assert_str(names.v[1], "docker.io/team/app:2");
	buf_free(&l);
	buf_free(&config);
	buf_free(&m);
}

/* busybox is one program under 300 names. */
static void test_links_are_one_file(void **state)
{
	struct world *w = *state;
	need_root();
	static char program[64 << 10];
	struct buf l = {0};
	memset(program, 'x', sizeof(program));
	tar_member(&l, "sh", '0', "", str_of(program, sizeof(program)), 0755, 0);
	for (int i = 0; i < 300; i++) {
		char name[16];
		snprintf(name, sizeof(name), "applet%d", i);
		tar_member(&l, name, '1', "sh", STR_NULL, 0755, 0);
	}
	tar_end(&l);
	assert_ok(import(w, layout(w, "docker.io/library/links:latest", &l, 1)));
	struct rt_v1_image_index x;
	assert_ok(image_list(w->s, &w->a, &x));
	assert_int_equal(x.images.n, 1);
	assert_in_range(x.images.v[0].size, sizeof(program), 2 * sizeof(program));
	uint64_t bytes, inodes;
	str_cleanup char *layers = sys_path(w->s->root, "l");
	assert_ok(sys_disk_usage(layers, &bytes, &inodes));
	assert_in_range(inodes, 1, 8);
	buf_free(&l);
}

static void test_evil_layers(void **state)
{
	struct world *w = *state;
	need_root();
	struct buf l = {0};
	tar_file(&l, "../../escape", "x");
	refused(w, &l, "not allowed");
	tar_file(&l, "a/../../escape", "x");
	refused(w, &l, "not allowed");
	tar_member(&l, "h", '1', "../../../etc/passwd", STR_NULL, 0644, 0);
	refused(w, &l, "not allowed");
	tar_member(&l, "null", '3', "", STR_NULL, 0666, 0);
	refused(w, &l, "whiteout in disguise");
	for (int i = 0; i < IMAGE_MAX_DEVICES + 1; i++) {
		char name[32];
		snprintf(name, sizeof(name), "dev%d", i);
		tar_member(&l, name, '3', "", STR_NULL, 0666, 0x103);
	}
	refused(w, &l, "devices in one layer");
	/* The store of this test takes 1 MiB a layer. */
	char *big = xcalloc(1, 1 << 21);
	tar_member(&l, "big", '0', "", str_of(big, 1 << 21), 0644, 0);
	refused(w, &l, "larger than 1048576 bytes");
	free(big);
	tar_file(&l, ".wh...", "");
	refused(w, &l, "not allowed");
	buf_puts(&l, "this is no tar at all, but long enough to look at, surely, is it not? yes it is.");
	refused(w, &l, "not a valid tar");
}

/* A symlink out of the tree, then a file through it: it must land inside. */
static void test_symlink_escape(void **state)
{
	struct world *w = *state;
	need_root();
	struct buf l = {0};
	char outside[128], p[512];
	snprintf(outside, sizeof(outside), "%s/outside", w->dir);
	assert_int_equal(mkdir(outside, 0755), 0);
	tar_member(&l, "abs", '2', outside, STR_NULL, 0777, 0);
	tar_member(&l, "rel", '2', "../../../../../../../../../../tmp", STR_NULL, 0777, 0);
	tar_dir(&l, "tmp");
	tar_file(&l, "rel/skiff-image-escape-test", "x");
	tar_end(&l);
	assert_ok(import(w, layout(w, "docker.io/library/links:1", &l, 1)));
	assert_int_equal(access("/tmp/skiff-image-escape-test", F_OK), -1);
	struct rt_v1_image_record *im;
	assert_ok(image_find(w->s, &w->a, STR("links:1"), &im));
	struct str name = layer_name(im->layers.v[0]);
	snprintf(p, sizeof(p), "%s/%.*s/tmp/skiff-image-escape-test", image_layers_dir(w->s), STR_ARG(name));
	assert_int_equal(access(p, F_OK), 0);
	buf_free(&l);

	tar_member(&l, "abs", '2', outside, STR_NULL, 0777, 0);
	tar_file(&l, "abs/file", "x");
	tar_end(&l);
	error_free(import(w, layout(w, "docker.io/library/links:2", &l, 1))); /* may be taken or refused */
	snprintf(p, sizeof(p), "%s/file", outside);
	assert_int_equal(access(p, F_OK), -1);
	buf_free(&l);
}

static void test_damaged(void **state)
{
	struct world *w = *state;
	need_root();
	struct buf l = {0};
	tar_file(&l, "f", "good");
	tar_end(&l);
	const char *dir = layout(w, "docker.io/library/bad:1", &l, 1);
	char d[DIGEST_LEN + 1];
	digest_of(buf_view(&l), d);
	char name[128];
	snprintf(name, sizeof(name), "blobs/sha256/%s", d + 7);
	l.p[512] = 'b'; /* "good" -> "bood" */
	put(w, name, buf_view(&l));
	struct error *e = import(w, dir);
	assert_non_null(e);
	assert_non_null(strstr(e->message, "damaged"));
	error_free(e);
	put(w, name, STR(""));
	e = import(w, dir);
	assert_non_null(e);
	error_free(e);
	put(w, "index.json", STR("{\"manifests\":[{\"digest\":\"sha256:../../../../etc/passwd\"}]}"));
	e = import(w, dir);
	assert_non_null(e);
	assert_non_null(strstr(e->message, "not a sha256 digest"));
	error_free(e);
	put(w, "index.json", STR("{"));
	e = import(w, dir);
	assert_non_null(e);
	error_free(e);
	e = import(w, "/nonexistent-image.tar");
	assert_true(error_is_sys(e, ENOENT));
	error_free(e);
	buf_free(&l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refs),
		cmocka_unit_test(test_paths),
		cmocka_unit_test(test_signals),
		cmocka_unit_test_setup_teardown(test_import, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_docker_archive, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_links_are_one_file, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_evil_layers, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_symlink_escape, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_damaged, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
