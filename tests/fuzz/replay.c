/* Runs a fuzz target on each file of the directories (or on each file) named as arguments. */
#include <dirent.h>
#include <sys/stat.h>

#include "fuzz.h"

#define FILE_MAX_BYTES (16u << 20)

static int run_file(const char *path)
{
	FILE *f = fopen(path, "rb");

	if (!f) {
		perror(path);
		return 1;
	}
	size_t n = 0, cap = 65536;
	uint8_t *p = malloc(cap);

	for (size_t k; p && (k = fread(p + n, 1, cap - n, f)) > 0;) {
		n += k;
		if (n == cap) {
			if (cap >= FILE_MAX_BYTES)
				break;
			cap *= 2;
			p = realloc(p, cap);
		}
	}
	fclose(f);
	if (!p)
		return 1;
	/* Exactly n bytes, so that sanitizers see reads behind the end. */
	uint8_t *exact = malloc(n ? n : 1);

	if (!exact)
		return 1;
	for (size_t i = 0; i < n; i++)
		exact[i] = p[i];
	LLVMFuzzerTestOneInput(exact, n);
	free(exact);
	free(p);
	return 0;
}

int main(int argc, char **argv)
{
	int files = 0, bad = 0;

	for (int i = 1; i < argc; i++) {
		struct stat st;

		if (stat(argv[i], &st)) {
			perror(argv[i]);
			return 1;
		}
		if (!S_ISDIR(st.st_mode)) {
			bad += run_file(argv[i]);
			files++;
			continue;
		}
		DIR *d = opendir(argv[i]);

		for (struct dirent *e; d && (e = readdir(d));) {
			char path[4096];

			if (e->d_name[0] == '.')
				continue;
			snprintf(path, sizeof path, "%s/%s", argv[i], e->d_name);
			bad += run_file(path);
			files++;
		}
		if (d)
			closedir(d);
	}
	printf("%d files\n", files);
	return bad || !files;
}
