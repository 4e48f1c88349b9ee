/* What a registry or an image archive can send: references, manifests, configs, member names; and tars, as a layer. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "runtime/image_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char dir[] = "/tmp/skiff-fuzz-image-XXXXXX";

static void clean(void)
{
	error_free(sys_remove_tree(dir));
}

static struct image_store *store(void)
{
	static struct image_store *s;
	if (!s) {
		atexit(clean);
		struct error *e = mkdtemp(dir) ? image_store_open(dir, 1 << 20, &s) : error_sys(errno, "mkdtemp");
		if (e) {
			fprintf(stderr, "%s\n", e->message);
			abort();
		}
	}
	return s;
}

static void layer(struct str in)
{
	static const char d[] = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
	int fd = memfd_create("layer", MFD_CLOEXEC);
	if (fd < 0 || write(fd, in.p, in.n) != (ssize_t)in.n || lseek(fd, 0, SEEK_SET) < 0)
		abort();
	/* Its digest is never this one: nothing is kept, and it must always be refused. */
	struct layer_source src = {.fd = fd, .diff_id = str_from(d), .chain = str_from(d)};
	struct error *e = layer_unpack(store(), &src, NULL, NULL);
	if (!e)
		abort();
	error_free(e);
	close(fd);
	/* Nothing may be left. */
	str_cleanup char *tmp = sys_path(store()->root, "tmp");
	uint64_t bytes, inodes;
	e = sys_disk_usage(tmp, &bytes, &inodes);
	if (e || inodes)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size || size > 1 << 20)
		return 0;
	arena_cleanup struct arena a = {0};
	struct str in = str_of((const char *)data + 1, size - 1);
	switch (data[0] % 4) {
	case 0: {
		struct image_ref r, again;
		struct error *e = image_ref_parse(&a, in, &r);
		if (!e && r.tag.n) { /* the normal form is a fixed point */
			struct str norm = image_ref_tagged(&a, &r);
			if (image_ref_parse(&a, norm, &again) || !str_eq(image_ref_tagged(&a, &again), norm))
				abort();
		}
		error_free(e);
		break;
	}
	case 1: {
		struct oci_v1_manifest m = {0};
		struct oci_v1_image c = {0};
		struct error *e = image_json(&a, &oci_v1_manifest_type, in, "manifest", &m);
		if (!e)
			(void)platform_pick(&m);
		error_free(e);
		error_free(image_json(&a, &oci_v1_image_type, in, "config", &c));
		break;
	}
	case 2: {
		char out[4096];
		str_cleanup char *z = str_dupz(in);
		if (tar_path_clean(z, out)) {
			/* Relative, and nothing leads up. */
			if (out[0] == '/' || strlen(out) > 4095)
				abort();
			for (const char *p = out; *p; p += strcspn(p, "/"), p += *p == '/')
				if (!strncmp(p, "..", 2) && (p[2] == '/' || !p[2]))
					abort();
		}
		break;
	}
	default:
		if (geteuid() == 0)
			layer(in);
	}
	return 0;
}
