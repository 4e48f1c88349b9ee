/*
 * The embedded store: durable puts a second with 64 writers, gets, ranges, and what heartbeats write to the disk.
 * usage: bench_store [DIR]   (a directory on the disk to measure; default: a temporary one)
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "loop/io.h"
#include "store/store.h"

static struct store *s;
static char value[3072];

static void must(struct error *e)
{
	if (e) {
		fprintf(stderr, "bench_store: %s\n", e->message);
		exit(1);
	}
}

static int64_t put(const char *key, size_t n, unsigned flags)
{
	bool ok;
	int64_t rev;
	must(store_put(s, str_from(key), str_of(value, n), STORE_ANY, 0, flags, NULL, &ok, &rev, NULL));
	return rev;
}

struct writer {
	int id, puts;
	int64_t until, worst_ns;
};

static void writer(void *arg)
{
	struct writer *w = arg;
	char key[64];
	for (; now_ms() < w->until; w->puts++) {
		snprintf(key, sizeof(key), "/registry/configmaps/ns-%02d/cm-%06d", w->id, w->puts);
		int64_t t = now_ns();
		put(key, 1024, 0);
		t = now_ns() - t;
		w->worst_ns = t > w->worst_ns ? t : w->worst_ns;
	}
}

static void puts_for(int n, int64_t ms)
{
	struct writer *w = calloc((size_t)n, sizeof(*w));
	struct fiber **f = calloc((size_t)n, sizeof(*f));
	struct store_stats a, b;
	store_stats(s, &a);
	int64_t t0 = now_ns(), worst = 0;
	for (int i = 0; i < n; i++) {
		w[i] = (struct writer){.id = i, .until = now_ms() + ms};
		f[i] = fiber_start("writer", writer, &w[i]);
	}
	int puts = 0;
	for (int i = 0; i < n; i++) {
		fiber_join(f[i]);
		puts += w[i].puts;
		worst = w[i].worst_ns > worst ? w[i].worst_ns : worst;
	}
	double sec = (double)(now_ns() - t0) / 1e9;
	store_stats(s, &b);
	printf("durable puts of 1 KiB, %2d writers: %8.0f /s   %5.1f a commit, commit %.2f ms, slowest put %.1f ms\n", n, puts / sec,
	       (double)puts / (double)(b.commits - a.commits), sec * 1e3 / (double)(b.commits - a.commits), (double)worst / 1e6);
	free(w);
	free(f);
}

static bool count(void *ctx, struct store_kv *kv)
{
	++*(size_t *)ctx;
	return true;
}

static int64_t disk_bytes(void)
{
	struct buf b = {0};
	must(file_read("/proc/self/io", &b));
	const char *p = strstr(buf_z(&b), "\nwrite_bytes: ");
	int64_t n = p ? atoll(p + 14) : 0;
	buf_free(&b);
	return n;
}

static void bench(void *arg)
{
	char *dir = arg, tmp[] = "/tmp/skiff-bench-XXXXXX";
	if (!dir)
		dir = mkdtemp(tmp);
	char sub[4200];
	snprintf(sub, sizeof(sub), "%s/bench-store", dir);
	struct store_opts o = {.dir = sub};
	memset(value, 'v', sizeof(value));
	must(store_open(&o, &s));
	puts_for(1, 1000);
	puts_for(64, 3000);

	char key[64];
	int64_t t0 = now_ns();
	size_t n = 0;
	for (; now_ns() - t0 < 1000000000; n++) {
		bool found;
		struct store_kv kv;
		snprintf(key, sizeof(key), "/registry/configmaps/ns-%02zu/cm-%06zu", n % 64, n % 500);
		must(store_get(s, str_from(key), 0, &found, &kv));
		store_kv_free(&kv);
	}
	printf("gets of 1 KiB:                      %8.0f /s\n", (double)n / ((double)(now_ns() - t0) / 1e9));
	n = 0;
	t0 = now_ns();
	int64_t rev = 0;
	must(store_range(s, STR("/"), STR("0"), &rev, 0, count, &n));
	printf("range of %zu objects:            %8.0f objects/s\n", n, (double)n / ((double)(now_ns() - t0) / 1e9));

	t0 = now_ns();
	store_close(s);
	must(store_open(&o, &s));
	printf("close and reopen (with check):      %8.1f ms\n", (double)(now_ns() - t0) / 1e6);
	/* A node's heartbeats, 300 bytes each 10 s, in a store of a small cluster's size. */
	store_close(s);
	must(dir_remove(sub));
	must(store_open(&o, &s));
	for (int i = 0; i < 600; i++) {
		snprintf(key, sizeof(key), "/registry/things/%04d", i * 7919 % 600);
		put(key, 200 + (size_t)(i * 37 % 2800), 0);
	}
	int64_t before = disk_bytes();
	for (int i = 0; i < 8640; i++)
		put("/registry/leases/kube-node-lease/node-1", 300, STORE_NOSYNC);
	int64_t nosync = disk_bytes() - before;
	before = disk_bytes();
	for (int i = 0; i < 100; i++)
		put("/registry/leases/kube-node-lease/node-1", 300, 0);
	double synced = (double)(disk_bytes() - before) / 100;
	printf("a day of heartbeats in memory:      %8.1f KB written; a synced one writes %.1f KB\n", (double)nosync / 1e3, synced / 1e3);
	printf("with a flush each ten minutes:      %8.1f MB a day\n", 144 * synced / 1e6);
	store_close(s);
	must(dir_remove(sub));
	if (dir == tmp)
		rmdir(tmp);
}

int main(int argc, char **argv)
{
	log_init("bench", 0);
	must(loop_run(bench, argc > 1 ? argv[1] : NULL));
	return 0;
}
