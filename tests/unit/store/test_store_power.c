/*
 * Power cuts against a model: fibers write at random (values large and small, heartbeats, deletes, leases, compactions, syncs) while
 * the writes to the two files are watched. At random moments the power "goes": of what no sync has covered, any sectors may have
 * reached the disk. What such a disk holds is opened: no acknowledged write may be missing from it, in its newest state, its history
 * and its old reads; nothing else may be there, and no revision may be given twice. Often the run goes on from there.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <xxhash.h>

#include "store_test.h"

#define KEYS 40
#define FIBERS 12
#define SECTOR 512

static uint64_t seed; /* the fibers'; the disk has its own */

static uint32_t rnd_of(uint64_t *s, uint32_t n)
{
	*s = *s * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(*s >> 33) % n;
}
static uint32_t rnd(uint32_t n)
{
	return rnd_of(&seed, n);
}

/* ---- the disk ---- */

struct pending { /* a write that no sync has covered */
	struct pending *next;
	int file;
	size_t at, n;
	char p[];
};
struct file {
	ino_t inode;
	struct buf disk; /* what is there for certain */
};
static struct {
	pthread_mutex_t mu;
	bool on, armed, cut;
	int one_in;           /* writes: the cut comes at one of so many */
	int wal_fails;        /* the log's disk answers one write of so many with an error; 0: none */
	int data_fails;
	bool whole;           /* what fails is on the disk all the same */
	uint64_t seed;
	struct file f[2];     /* data.mdb, data.wal */
	struct pending *pending;
	struct buf left[2];   /* after the cut */
	int64_t acked;        /* when it came */
} disk = {.mu = PTHREAD_MUTEX_INITIALIZER};
static _Atomic int64_t published;

static void apply(struct buf *b, size_t at, const char *p, size_t n)
{
	while (b->n < at + n)
		buf_append(b, "", 1);
	memcpy(b->p + at, p, n);
}

static void cut_power(void)
{
	disk.acked = published;
	for (int i = 0; i < 2; i++) {
		disk.left[i].n = 0;
		buf_append(&disk.left[i], disk.f[i].disk.p, disk.f[i].disk.n);
	}
	uint32_t reached = rnd_of(&disk.seed, 5); /* none, few, half, most, all */
	for (struct pending *w = disk.pending; w; w = w->next)
		for (size_t at = 0, n; at < w->n; at += n) {
			n = SECTOR - (w->at + at) % SECTOR;
			n = n < w->n - at ? n : w->n - at;
			if (rnd_of(&disk.seed, 4) < reached)
				apply(&disk.left[w->file], w->at + at, w->p + at, n);
		}
	disk.cut = true;
	disk.armed = false;
}

static void maybe_cut(void)
{
	if (disk.armed && rnd_of(&disk.seed, (uint32_t)disk.one_in) == 0)
		cut_power();
}

static int file_of(int fd)
{
	struct stat st;
	if (!disk.on || fstat(fd, &st))
		return -1;
	return st.st_ino == disk.f[0].inode ? 0 : st.st_ino == disk.f[1].inode ? 1 : -1;
}

/* Newest last: a later write of the same sector wins. */
static void written(int file, const struct iovec *v, int n, size_t bytes, size_t at)
{
	struct pending *w = malloc(sizeof(*w) + bytes), **end = &disk.pending;
	*w = (struct pending){.file = file, .at = at, .n = bytes};
	for (size_t i = 0, done = 0; i < (size_t)n && done < bytes; i++) {
		size_t part = v[i].iov_len < bytes - done ? v[i].iov_len : bytes - done;
		memcpy(w->p + done, v[i].iov_base, part);
		done += part;
	}
	while (*end)
		end = &(*end)->next;
	*end = w;
}

/* All of the file's writes, or the last one: O_DSYNC promises no more. */
static void synced(int file, bool last)
{
	for (struct pending **p = &disk.pending, *w; (w = *p);) {
		if (w->file != file || (last && w->next)) {
			p = &w->next;
			continue;
		}
		apply(&disk.f[file].disk, w->at, w->p, w->n);
		*p = w->next;
		free(w);
	}
}

static ssize_t watched_write(int fd, const struct iovec *v, int n, off_t at)
{
	static ssize_t (*real)(int, const struct iovec *, int, off_t);
	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "pwritev");
	pthread_mutex_lock(&disk.mu);
	int file = file_of(fd), fails = file < 0 ? 0 : file ? disk.wal_fails : disk.data_fails;
	if (fails && (file || at >= 8192) && rnd_of(&disk.seed, (uint32_t)fails) == 0) {
		struct iovec part = {v[0].iov_base, v[0].iov_len / (disk.whole ? 1 : 2)};
		if (disk.whole && file ? real(fd, &part, 1, at) > 0 : rnd_of(&disk.seed, 2) && real(fd, &part, 1, at) > 0)
			written(file, &part, 1, part.iov_len, (size_t)at);
		maybe_cut();
		pthread_mutex_unlock(&disk.mu);
		errno = ENOSPC;
		return -1;
	}
	ssize_t r = real(fd, v, n, at);
	if (file >= 0 && r > 0) {
		written(file, v, n, (size_t)r, (size_t)at);
		maybe_cut();
		if (fcntl(fd, F_GETFL) & O_DSYNC) {
			synced(file, true);
			maybe_cut();
		}
	}
	pthread_mutex_unlock(&disk.mu);
	return r;
}

/* By the names that LMDB and the store call. */
ssize_t lmdb_pwrite(int fd, const void *p, size_t n, off_t at) __asm__("pwrite");
ssize_t lmdb_pwrite(int fd, const void *p, size_t n, off_t at)
{
	return watched_write(fd, &(struct iovec){(void *)p, n}, 1, at);
}
ssize_t store_pwrite(int fd, const void *p, size_t n, off_t at) __asm__("pwrite64");
ssize_t store_pwrite(int fd, const void *p, size_t n, off_t at)
{
	return lmdb_pwrite(fd, p, n, at);
}

ssize_t writev(int fd, const struct iovec *v, int n)
{
	static ssize_t (*real)(int, const struct iovec *, int);
	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "writev");
	pthread_mutex_lock(&disk.mu);
	int file = file_of(fd);
	pthread_mutex_unlock(&disk.mu);
	if (file < 0)
		return real(fd, v, n);
	off_t at = lseek(fd, 0, SEEK_CUR);
	ssize_t r = watched_write(fd, v, n, at);
	if (r > 0)
		lseek(fd, at + r, SEEK_SET);
	return r;
}

/* Nothing has to reach the real disk. */
int fdatasync(int fd)
{
	pthread_mutex_lock(&disk.mu);
	int file = file_of(fd);
	if (file >= 0) {
		maybe_cut();
		synced(file, false);
		maybe_cut();
	}
	pthread_mutex_unlock(&disk.mu);
	return 0;
}
int fsync(int fd)
{
	return fdatasync(fd);
}

static const char *const names[2] = {"data.mdb", "data.wal"};

static void disk_watch(const char *dir)
{
	struct stat st;
	pthread_mutex_lock(&disk.mu);
	for (int i = 0; i < 2; i++) {
		char *path = xasprintf("%s/%s", dir, names[i]);
		assert_int_equal(stat(path, &st), 0);
		disk.f[i].inode = st.st_ino;
		disk.f[i].disk.n = 0;
		assert_ok(file_read(path, &disk.f[i].disk));
		free(path);
	}
	disk.on = true;
	pthread_mutex_unlock(&disk.mu);
}

static void disk_unwatch(void)
{
	pthread_mutex_lock(&disk.mu);
	disk.on = disk.armed = false;
	synced(0, false);
	synced(1, false);
	pthread_mutex_unlock(&disk.mu);
}

/* ---- the model ---- */

struct change {
	int64_t rev, lease;
	uint64_t sum;
	uint32_t n;
	int key;
	bool is_delete, nosync, seen;
};
static struct change *by_rev[1 << 20];
static struct {
	struct change **v;
	size_t n;
} of_key[KEYS];
static int64_t newest;

static const char *key_name(int k, char *buf)
{
	sprintf(buf, "/%c/%03d", 'a' + k % 3, k);
	return buf;
}
static int key_number(struct str key)
{
	return (key.p[3] - '0') * 100 + (key.p[4] - '0') * 10 + key.p[5] - '0';
}

static bool same(const struct change *c, const struct store_kv *kv, bool is_delete)
{
	if (c->is_delete != is_delete || c->key != key_number(kv->key) || c->rev != kv->mod_rev)
		return false;
	return is_delete || (c->n == kv->value->n && c->lease == kv->lease && c->sum == XXH3_64bits(kv->value->bytes, kv->value->n));
}

static void learn(const struct store_event *e)
{
	struct change *c = xcalloc(1, sizeof(*c));
	int k = key_number(e->kv.key);
	assert_true(e->kv.mod_rev > newest && e->kv.mod_rev < 1 << 20);
	*c = (struct change){.rev = e->kv.mod_rev, .key = k, .is_delete = e->is_delete, .lease = e->kv.lease};
	if (!e->is_delete) {
		c->n = (uint32_t)e->kv.value->n;
		c->sum = XXH3_64bits(e->kv.value->bytes, c->n);
		c->nosync = e->kv.value->bytes[0] == 'N';
	}
	newest = c->rev;
	by_rev[c->rev] = c;
	of_key[k].v = xrealloc(of_key[k].v, (of_key[k].n + 1) * sizeof(c));
	of_key[k].v[of_key[k].n++] = c;
}

static void forget(struct change *c)
{
	size_t i = 0;
	while (of_key[c->key].v[i] != c)
		i++;
	memmove(of_key[c->key].v + i, of_key[c->key].v + i + 1, (--of_key[c->key].n - i) * sizeof(c));
	by_rev[c->rev] = NULL;
	free(c);
}

static struct store *main_store;
static struct store_watch *watch;

static void on_news(void *ctx)
{
	struct store_event e;
	bool got;
	for (;;) {
		assert_ok(store_watch_poll(watch, &e, &got, NULL));
		if (!got)
			break;
		learn(&e);
		store_event_free(&e);
	}
	published = newest;
}

/* Is `found` what a store may answer at rev that must know all durable changes up to `acked`? */
static void check_answer(int key, int64_t rev, int64_t acked, bool found, const struct store_kv *kv)
{
	for (size_t i = of_key[key].n; i-- > 0;) {
		struct change *c = of_key[key].v[i];
		if (c->rev > rev)
			continue;
		if (found ? same(c, kv, false) : c->is_delete)
			return;
		if (c->rev <= acked && !c->nosync)
			fail_msg("key %d at %lld: %s %lld, not %lld (acknowledged up to %lld)", key, (long long)rev,
				 found ? "revision" : "nothing", found ? (long long)kv->mod_rev : 0, (long long)c->rev, (long long)acked);
	}
	if (found)
		fail_msg("key %d at %lld: revision %lld, which was never written", key, (long long)rev, (long long)kv->mod_rev);
}

static void check_key(struct store *s, int key, int64_t rev, int64_t acked)
{
	char name[32];
	bool found;
	struct store_kv kv;
	assert_ok(store_get(s, str_from(key_name(key, name)), rev, &found, &kv));
	check_answer(key, rev ? rev : INT64_MAX, acked, found, &kv);
	store_kv_free(&kv);
}

static bool check_each(void *ctx, struct store_kv *kv)
{
	check_answer(key_number(kv->key), INT64_MAX, disk.acked, true, kv);
	++*(size_t *)ctx;
	return true;
}

/* Its history must be all that is durable up to `acked`, and only what was written. Marks what is there. */
static void check_history(struct store *s, int64_t from, int64_t acked)
{
	struct store_watch *w;
	struct store_event e;
	bool got;
	int64_t at = from;
	assert_ok(store_watch_open(s, STR("/"), STR("0"), from, &w));
	for (;;) {
		assert_ok(store_watch_poll(w, &e, &got, NULL));
		int64_t to = got ? e.kv.mod_rev : acked + 1;
		for (int64_t r = at + 1; r < to && r <= acked; r++)
			if (by_rev[r] && !by_rev[r]->nosync)
				fail_msg("the event of revision %lld is missing (from %lld, acknowledged up to %lld)", (long long)r,
					 (long long)from, (long long)acked);
		if (!got)
			break;
		assert_true(to > at);
		at = to;
		if (!by_rev[at] || !same(by_rev[at], &e.kv, e.is_delete))
			fail_msg("the event of revision %lld is not what was written", (long long)at);
		by_rev[at]->seen = true;
		store_event_free(&e);
	}
	store_watch_close(w);
}

/* ---- writers ---- */

static int running, steps, pauses, failed;
static bool faulty;
static int64_t leases[4];

static bool fine(struct error *e)
{
	if (!e)
		return true;
	if (!faulty || e->status != 507)
		fail_msg("%s", e->message);
	error_free(e);
	failed++;
	return false;
}

static void write_one(void)
{
	static uint64_t no;
	static char value[200000];
	char name[32];
	uint32_t what = rnd(100), l = rnd(4);
	int64_t rev;
	bool ok;
	key_name((int)rnd(KEYS), name);
	if (what < 70) {
		bool nosync = what < 20, lease = rnd(10) == 0 && leases[l];
		size_t n = rnd(60) == 0 ? rnd(sizeof(value) - 50) : rnd(400);
		char *p = xmalloc(n + 50);
		int head = sprintf(p, "%c%llu ", nosync ? 'N' : 'S', (unsigned long long)no++);
		memset(p + head, (char)no, n);
		struct error *e = store_put(main_store, str_from(name), str_of(p, n + (size_t)head), STORE_ANY, lease ? leases[l] : 0,
					    nosync ? STORE_NOSYNC : 0, NULL, &ok, &rev, NULL);
		free(p);
		if (e && e->status == 404 && lease)
			error_free(e); /* revoked meanwhile */
		else if (fine(e) && rev > published)
			fail_msg("revision %lld was acknowledged before it was published", (long long)rev);
	} else if (what < 90) {
		fine(store_delete(main_store, str_from(name), STORE_ANY, &ok, &rev, NULL));
	} else if (what < 92 && !leases[l]) {
		int64_t id;
		if (fine(store_lease_grant(main_store, 3600000, &id)))
			leases[l] = id;
	} else if (what < 93 && leases[l]) {
		int64_t id = leases[l];
		leases[l] = 0;
		fine(store_lease_revoke(main_store, id));
	} else if (what < 94 && rnd(3) == 0) {
		assert_ok(store_compact(main_store, published - rnd(300) > 1 ? published - rnd(300) : 1));
	} else if (what < 95 && rnd(4) == 0) {
		fine(store_sync(main_store));
	} else if (what < 97) {
		assert_ok(fiber_sleep(1));
	}
}

static void writer(void *arg)
{
	while (!pauses) {
		steps++;
		write_one();
	}
	running--;
}

static void start(void)
{
	main_store = open_at(test_dir, 3600000);
	assert_true(store_revision(main_store) >= newest);
	disk_watch(test_dir);
	assert_ok(store_watch_open(main_store, STR("/"), STR("0"), store_revision(main_store), &watch));
	store_watch_notify(watch, on_news, NULL);
	pauses = 0;
	for (int i = 0; i < FIBERS; i++, running++)
		fiber_spawn("writer", writer, NULL);
}

static void stop(void)
{
	pauses = 1;
	while (running)
		assert_ok(fiber_sleep(1));
	if (!faulty)
		assert_ok(store_sync(main_store));
}

/* The writes under way at the cut have ended, and the model knows them. */
static void check_left(const char *dir, bool keep)
{
	assert_ok(dir_make(dir, 0700));
	for (int i = 0; i < 2; i++) {
		char *path = xasprintf("%s/%s", dir, names[i]);
		FILE *f = fopen(path, "w");
		assert_non_null(f);
		assert_int_equal(fwrite(disk.left[i].p, 1, disk.left[i].n, f), disk.left[i].n);
		assert_int_equal(fclose(f), 0);
		free(path);
	}
	struct store *s = open_at(dir, 3600000);
	struct store_stats st;
	store_stats(s, &st);
	if (store_revision(s) < disk.acked)
		fail_msg("revision %lld would be given again: %lld", (long long)disk.acked, (long long)store_revision(s));
	size_t n = 0;
	int64_t rev = 0;
	assert_ok(store_range(s, STR("/"), STR("0"), &rev, 0, check_each, &n));
	assert_int_equal(n, st.keys);
	for (int k = 0; k < KEYS; k++) {
		check_key(s, k, 0, disk.acked);
		for (int i = 0; i < 4 && disk.acked > st.compacted; i++)
			check_key(s, k, st.compacted + 1 + rnd((uint32_t)(disk.acked - st.compacted)), disk.acked);
	}
	int64_t from = st.compacted > 1 ? st.compacted : 1;
	for (int64_t r = from + 1; r <= newest; r++)
		if (by_rev[r])
			by_rev[r]->seen = false;
	check_history(s, from, disk.acked);
	if (keep) /* what is lost never was */
		for (int64_t r = from + 1; r <= newest; r++)
			if (by_rev[r] && !by_rev[r]->seen)
				forget(by_rev[r]);
	if (!keep)
		assert_true(put(s, "/z", "x") > disk.acked);
	else if (store_revision(s) < newest)
		published = newest = store_revision(s);
	store_close(s);
}

static void run(int rounds, int wal_fails, int data_fails)
{
	char *left = xasprintf("%s/left", test_dir);
	disk.seed = seed ^ 0x5555;
	faulty = wal_fails || data_fails;
	newest = 1;
	published = newest;
	start();
	for (int i = 0; i < rounds; i++) {
		pthread_mutex_lock(&disk.mu);
		disk.one_in = (int[]){1, 20, 300, 1500}[rnd(4)];
		disk.wal_fails = wal_fails;
		disk.data_fails = data_fails;
		disk.cut = false;
		disk.armed = true;
		pthread_mutex_unlock(&disk.mu);
		for (bool cut = false; !cut;) {
			assert_ok(fiber_sleep(1));
			pthread_mutex_lock(&disk.mu);
			cut = disk.cut;
			pthread_mutex_unlock(&disk.mu);
		}
		stop();
		bool keep = rnd(3) == 0;
		check_left(left, keep);
		disk_unwatch();
		store_watch_close(watch);
		store_close(main_store);
		if (keep) {
			memset(leases, 0, sizeof(leases));
			for (int f = 0; f < 2; f++) { /* from the cut on: the store that looked at it has changed its own copy */
				char *path = xasprintf("%s/%s", test_dir, names[f]);
				FILE *o = fopen(path, "w");
				assert_non_null(o);
				assert_int_equal(fwrite(disk.left[f].p, 1, disk.left[f].n, o), disk.left[f].n);
				assert_int_equal(fclose(o), 0);
				free(path);
			}
		}
		assert_ok(dir_remove(left));
		start();
	}
	stop();
	disk_unwatch();
	store_watch_close(watch);
	store_close(main_store);
	print_message("# %d cuts, %d steps, %d refused, revision %lld\n", rounds, steps, failed, (long long)newest);
	for (int64_t r = 0; r < 1 << 20; r++) {
		free(by_rev[r]);
		by_rev[r] = NULL;
	}
	for (int k = 0; k < KEYS; k++) {
		free(of_key[k].v);
		of_key[k].v = NULL;
		of_key[k].n = 0;
	}
	memset(leases, 0, sizeof(leases));
	steps = failed = 0;
	free(left);
	assert_ok(dir_remove(test_dir));
}

static int rounds_of(int n)
{
	const char *env = getenv("SKIFF_POWER_ROUNDS");
	return env ? atoi(env) : n;
}

static void choose_seed(void)
{
	const char *env = getenv("SKIFF_POWER_SEED");
	seed = env ? strtoull(env, NULL, 10) : random_u64();
	print_message("# seed %llu\n", (unsigned long long)seed);
}

LOOP_TEST(power)
{
	choose_seed();
	run(rounds_of(20), 0, 0);
}

/* The log's disk fails now and then: from then on the data file alone is written. */
LOOP_TEST(log_fails)
{
	choose_seed();
	run(rounds_of(8), 200, 0);
}

/* And the data file's: what was refused is not there. */
LOOP_TEST(data_fails)
{
	choose_seed();
	run(rounds_of(8), 0, 100);
}

/* ---- no room ---- */

static int writes, refusals;

/* Small values of keys that come in no order: what is old lies in all pages of the log's table. */
static void scatter(void *arg)
{
	char key[64], value[600];
	bool ok;
	int64_t rev;
	memset(value, 'x', sizeof(value));
	while (writes < 45000 && !refusals) {
		snprintf(key, sizeof(key), "/registry/pods/some-namespace/name-%06u", rnd(9000));
		struct error *e = store_put(main_store, str_from(key), str_of(value, 100 + rnd(500)), STORE_ANY, 0, 0, NULL, &ok, &rev, NULL);
		writes += !e;
		refusals += e != NULL;
		error_free(e);
	}
	running--;
}

/* The file is full of history: cleaning it takes new pages first, and must not take those that writes need. */
LOOP_TEST(full_of_history)
{
	struct store_opts o = {.dir = test_dir, .map_size = 32 << 20};
	seed = 1;
	assert_ok(store_open(&o, &main_store));
	for (int i = 0; i < 64; i++, running++)
		fiber_spawn("scatter", scatter, NULL);
	while (running)
		assert_ok(fiber_sleep(1));
	assert_int_equal(refusals, 0);
	for (int i = 0; i < 100; i++) {
		char key[64];
		snprintf(key, sizeof(key), "/registry/pods/some-namespace/name-%06d", 7 * i);
		del_if(main_store, key, STORE_ANY);
	}
	store_close(main_store);
	assert_ok(dir_remove(test_dir));
}

/* The data file cannot be written, and there is much to clean: it is tried again, but not without a pause, and nothing waits for it. */
LOOP_TEST(closing_without_room)
{
	main_store = open_at(test_dir, 3600000);
	for (int i = 0; i < 11000; i++)
		put_if(main_store, "/n", "1", STORE_ANY, STORE_NOSYNC);
	put(main_store, "/a", "1");
	assert_ok(store_sync(main_store));
	put(main_store, "/a", "2");
	disk_watch(test_dir);
	disk.seed = 1;
	disk.data_fails = 1;
	assert_ok(store_compact(main_store, store_revision(main_store)));
	assert_ok(fiber_sleep(50));
	alarm(30);
	store_close(main_store);
	alarm(0);
	disk_unwatch();
	disk.data_fails = 0;
	main_store = open_at(test_dir, 0);
	want_range(main_store, "/", "0", 0, 0, "/a=2 /n=1 ");
	store_close(main_store);
	assert_ok(dir_remove(test_dir));
}

/* The log says that it failed, though it has all, and so does the data file: what is refused does not share its revision with what is not. */
LOOP_TEST(refused_by_both)
{
	bool ok, found;
	int64_t rev, beat;
	struct store_kv kv;
	struct buf b = {0};
	main_store = open_at(test_dir, 0);
	put(main_store, "/a", "1");
	put_if(main_store, "/n", "1", STORE_ANY, STORE_NOSYNC);
	put(main_store, "/a", "2");
	disk_watch(test_dir);
	disk.whole = true;
	disk.wal_fails = disk.data_fails = 1;
	struct error *e = store_put(main_store, STR("/a"), STR("3"), STORE_ANY, 0, 0, NULL, &ok, &rev, NULL);
	assert_true(error_is(e, 507, "InsufficientStorage"));
	error_free(e);
	disk.wal_fails = disk.data_fails = 0;
	disk.whole = false;
	beat = put_if(main_store, "/n", "2", STORE_ANY, STORE_NOSYNC);
	disk_unwatch();
	char *left = xasprintf("%s/left", test_dir);
	assert_ok(dir_make(left, 0700));
	for (int i = 0; i < 2; i++) {
		char *from = xasprintf("%s/%s", test_dir, names[i]), *to = xasprintf("%s/%s", left, names[i]);
		b.n = 0;
		assert_ok(file_read(from, &b));
		FILE *f = fopen(to, "w");
		assert_true(f && fwrite(b.p, 1, b.n, f) == b.n && !fclose(f));
		free(from);
		free(to);
	}
	struct store *s = open_at(left, 0);
	assert_ok(store_get(s, STR("/a"), 0, &found, &kv));
	assert_true(found && kv.mod_rev < beat);
	assert_str(block_str(kv.value), "2");
	store_kv_free(&kv);
	store_close(s);
	store_close(main_store);
	buf_free(&b);
	free(left);
	assert_ok(dir_remove(test_dir));
}

int main(void)
{
	log_init("test", 0);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(power), cmocka_unit_test(log_fails), cmocka_unit_test(data_fails),
		cmocka_unit_test(full_of_history), cmocka_unit_test(closing_without_room),
		cmocka_unit_test(refused_by_both),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
