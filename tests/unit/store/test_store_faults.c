/*
 * Faults: a writer process killed with SIGKILL again and again (SKIFF_KILL_ROUNDS, 30), and a disk that fills up.
 * No acknowledged write may be lost, none may change place, no revision may be given twice.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <time.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "store_test.h"

/* ---- the writer: one process a round ---- */

#define FIBERS 16
static struct store *ws;
static uint64_t round_no;

/* One line an acknowledged write: kind key revision value. Shorter than PIPE_BUF, so lines never mix. */
static void acknowledge(char kind, const char *key, int64_t rev, const char *value)
{
	char line[200];
	int n = snprintf(line, sizeof(line), "%c %s %lld %s\n", kind, key, (long long)rev, value);
	if (write(3, line, (size_t)n) != n)
		_exit(3);
}

static void writer_fiber(void *arg)
{
	int id = (int)(intptr_t)arg;
	for (int i = 0;; i++) {
		char key[40], value[80];
		bool ok;
		int64_t rev;
		struct store_kv now;
		struct error *e;
		snprintf(key, sizeof(key), "/k/%02d/%d", id, (int)(random_u64() % 20));
		snprintf(value, sizeof(value), "%llu.%d.%d", (unsigned long long)round_no, id, i);
		char kind = random_u64() % 8 == 0 ? 'D' : random_u64() % 6 == 0 ? 'N' : 'P';
		if (kind == 'D')
			e = store_delete(ws, str_from(key), STORE_ANY, &ok, &rev, &now);
		else if (kind == 'N') {
			key[1] = 'n';
			e = store_put(ws, str_from(key), str_from(value), STORE_ANY, 0, STORE_NOSYNC, NULL, &ok, &rev, &now);
		} else
			e = store_put(ws, str_from(key), str_from(value), STORE_ANY, 0, 0, NULL, &ok, &rev, &now);
		if (e) {
			fprintf(stderr, "writer: %s\n", e->message);
			_exit(4);
		}
		if (ok)
			acknowledge(kind, key, rev, kind == 'D' ? "-" : value);
		store_kv_free(&now);
	}
}

static void writer_main(void *arg)
{
	struct store_opts o = {.dir = arg, .map_size = (size_t)1 << 30, .history_ms = 86400000};
	struct error *e = store_open(&o, &ws);
	if (e) {
		fprintf(stderr, "writer: %s\n", e->message);
		_exit(5);
	}
	for (int i = 0; i < FIBERS; i++)
		fiber_spawn("writer", writer_fiber, (void *)(intptr_t)i);
	for (;;)
		error_free(fiber_sleep(1000));
}

/* ---- the checker ---- */

struct ack {
	char kind;
	char key[40], value[80];
};
static struct ack *acks; /* by revision */
static int64_t acks_n, max_rev, durable_max;
static size_t n_acks, n_lost_nosync;

static void note(char *line)
{
	struct ack a;
	long long rev;
	if (sscanf(line, "%c %39s %lld %79s", &a.kind, a.key, &rev, a.value) != 4)
		fail_msg("a torn line: %s", line);
	if (rev >= acks_n) {
		int64_t n = rev * 2 + 1024;
		acks = realloc(acks, (size_t)n * sizeof(*acks));
		memset(acks + acks_n, 0, (size_t)(n - acks_n) * sizeof(*acks));
		acks_n = n;
	}
	if (acks[rev].kind)
		fail_msg("revision %lld was given twice: %s=%s and %s=%s", rev, acks[rev].key, acks[rev].value, a.key, a.value);
	acks[rev] = a;
	max_rev = rev > max_rev ? rev : max_rev;
	n_acks++;
}

static void run_round(int round)
{
	int fd[2];
	char no[20];
	snprintf(no, sizeof(no), "%d", round);
	assert_int_equal(pipe2(fd, O_CLOEXEC), 0);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		dup2(fd[1], 3);
		execl("/proc/self/exe", "test_store_faults", "writer", test_dir, no, (char *)NULL);
		_exit(6);
	}
	close(fd[1]);
	FILE *f = fdopen(fd[0], "r");
	char line[256];
	int64_t kill_after = 1 + (int64_t)(((uint64_t)round * 2654435761u) % 60), first = 0;
	bool killed = false;
	/* Lines are read while it writes; the kill comes some milliseconds after the first acknowledgement. */
	while (fgets(line, sizeof(line), f)) {
		struct timespec ts;
		clock_gettime(CLOCK_MONOTONIC, &ts);
		int64_t ms = ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
		if (!first)
			first = ms;
		if (!killed && ms - first >= kill_after) {
			kill(pid, SIGKILL);
			killed = true;
		}
		note(line);
	}
	fclose(f);
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (!killed)
		fail_msg("the writer ended by itself: status %x", status);
}

static int64_t history_from;

static void check_body(void *arg)
{
	/* Unclean opening, as the next writer would; the whole history is read back. */
	struct store *s = open_at(test_dir, 86400000);
	/* Every acknowledged durable write stands in the history, with its value, in its place. */
	struct store_watch *w;
	assert_ok(store_watch_open(s, STR("/"), STR("0"), history_from, &w));
	int64_t at = history_from;
	for (;;) {
		struct store_event e;
		bool got;
		assert_ok(store_watch_poll(w, &e, &got, NULL));
		if (!got)
			break;
		int64_t rev = e.kv.mod_rev;
		if (rev <= at)
			fail_msg("revision %lld comes after %lld", (long long)rev, (long long)at);
		for (int64_t r = at + 1; r < rev; r++) {
			if (r < acks_n && acks[r].kind == 'N')
				n_lost_nosync++;
			else if (r < acks_n && acks[r].kind)
				fail_msg("lost: %c %s=%s at %lld", acks[r].kind, acks[r].key, acks[r].value, (long long)r);
		}
		at = rev;
		if (rev < acks_n && acks[rev].kind) {
			assert_str(e.kv.key, acks[rev].key);
			assert_int_equal(e.is_delete, acks[rev].kind == 'D');
			if (!e.is_delete)
				assert_str(block_str(e.kv.value), acks[rev].value);
		}
		store_event_free(&e);
	}
	for (int64_t r = at + 1; r <= max_rev; r++)
		if (acks[r].kind && acks[r].kind != 'N')
			fail_msg("lost at the end: %c %s=%s at %lld", acks[r].kind, acks[r].key, acks[r].value, (long long)r);
	store_watch_close(w);
	assert_true(store_revision(s) >= max_rev);
	if (store_revision(s) > max_rev)
		max_rev = store_revision(s);
	durable_max = at;
	store_close(s);
}

static void kill_nine(void **state)
{
	const char *env = getenv("SKIFF_KILL_ROUNDS");
	int rounds = env ? atoi(env) : 30;
	test_dir_make();
	history_from = 1;
	for (int i = 0; i < rounds; i++) {
		run_round(i);
		/* Every other time the next writer itself recovers. */
		if (i % 2 || i + 1 == rounds)
			assert_ok(loop_run(check_body, NULL));
		/* Reading all history each time would be quadratic: the last two rounds are enough, all of it at the end. */
		if (i % 8 == 7 && i + 2 < rounds)
			history_from = durable_max > 1 ? durable_max : 1;
		if (i + 2 >= rounds)
			history_from = 1;
	}
	assert_true(n_acks > (size_t)rounds * 5);
	print_message("# %d kills, %zu acknowledged writes, none lost\n", rounds, n_acks);
	free(acks);
	char cmd[100];
	snprintf(cmd, sizeof(cmd), "rm -rf %s", test_dir);
	assert_int_equal(system(cmd), 0);
}

/* ---- a full disk ---- */

static void full_disk_body(void *arg)
{
	char store_dir[100], filler[100], key[32];
	snprintf(store_dir, sizeof(store_dir), "%s/store", test_dir);
	snprintf(filler, sizeof(filler), "%s/filler", test_dir);
	struct store *s = open_at(store_dir, 0);
	static char value[60000];
	memset(value, 'v', sizeof(value) - 1);
	/* Somebody else's file takes a part of the disk; then we fill the rest, until it says so. */
	int fd = open(filler, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(posix_fallocate(fd, 0, 6 << 20), 0);
	close(fd);
	int n = 0;
	bool ok, found;
	int64_t rev;
	struct error *e = NULL;
	for (; n < 1000; n++) {
		snprintf(key, sizeof(key), "/k/%04d", n);
		e = store_put(s, str_from(key), str_from(value), 0, 0, 0, NULL, &ok, &rev, NULL);
		if (e)
			break;
		assert_true(ok);
	}
	assert_true(error_is(e, 507, "InsufficientStorage"));
	assert_non_null(strstr(e->message, "space"));
	error_free(e);
	assert_true(n > 100);
	/* Reads go on, all that was acknowledged is there, what failed is not. */
	for (int i = 0; i <= n; i++) {
		struct store_kv kv;
		snprintf(key, sizeof(key), "/k/%04d", i);
		assert_ok(store_get(s, str_from(key), 0, &found, &kv));
		assert_int_equal(found, i < n);
		store_kv_free(&kv);
	}
	/* Deletes work on a full disk, and make room. */
	for (int i = 0; i < n / 2; i++) {
		snprintf(key, sizeof(key), "/k/%04d", i);
		assert_true(del_if(s, key, STORE_ANY) > 0);
	}
	int again = 0;
	for (int i = 0; i < 200 && again < 20; i++) {
		snprintf(key, sizeof(key), "/again/%04d", i);
		e = store_put(s, str_from(key), str_from(value), 0, 0, 0, NULL, &ok, &rev, NULL);
		if (!e)
			again++;
		error_free(e);
	}
	assert_int_equal(again, 20);
	store_close(s);
	/* Reopened on the full disk, everything is as it was. */
	s = open_at(store_dir, 0);
	want_value(s, "/again/0000", 0, value);
	snprintf(key, sizeof(key), "/k/%04d", n - 1);
	want_value(s, key, 0, value);
	int written = 0;
	for (e = NULL; written < 1000 && !e; written++) {
		snprintf(key, sizeof(key), "/more/%04d", written);
		e = store_put(s, str_from(key), str_from(value), 0, 0, 0, NULL, &ok, &rev, NULL);
	}
	assert_true(error_is(e, 507, "InsufficientStorage"));
	error_free(e);
	/* Somebody else makes room: the store goes on by itself. */
	assert_int_equal(unlink(filler), 0);
	assert_true(put(s, "/after", value) > 0);
	store_close(s);
	s = open_at(store_dir, 0);
	want_value(s, "/after", 0, value);
	store_close(s);
}

/* The write-ahead log finds no room, when it is made and, on file systems that copy on write, when it is written: the store goes on. */
static void no_room_for_log_body(void *arg)
{
	char store_dir[100], wal[120], filler[100];
	snprintf(store_dir, sizeof(store_dir), "%s/store", test_dir);
	snprintf(wal, sizeof(wal), "%s/data.wal", store_dir);
	snprintf(filler, sizeof(filler), "%s/filler", test_dir);
	struct store *s = open_at(store_dir, 0);
	put(s, "/a", "1");
	put(s, "/a", "2"); /* to the log, and there is room for a checkpoint */
	int hole = open(wal, O_RDWR | O_CLOEXEC), fill = open(filler, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(hole >= 0 && fill >= 0);
	assert_int_equal(fallocate(hole, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 8192, 3 << 20), 0);
	close(hole);
	for (size_t n = 1 << 20; n >= 4096;)
		if (posix_fallocate(fill, lseek(fill, 0, SEEK_END), (off_t)n))
			n /= 2;
	put(s, "/a", "3");
	put(s, "/b", "1");
	want_range(s, "/", "0", 0, 0, "/a=3 /b=1 ");
	store_close(s);
	s = open_at(store_dir, 0);
	want_range(s, "/", "0", 0, 0, "/a=3 /b=1 ");
	store_close(s);
	assert_int_equal(unlink(wal), 0);
	for (size_t n = 1 << 20; n >= 4096;)
		if (posix_fallocate(fill, lseek(fill, 0, SEEK_END), (off_t)n))
			n /= 2;
	s = open_at(store_dir, 0); /* says so in the log */
	put(s, "/c", "1");
	store_close(s);
	close(fill);
	assert_int_equal(unlink(filler), 0);
	s = open_at(store_dir, 0);
	want_range(s, "/", "0", 0, 0, "/a=3 /b=1 /c=1 ");
	assert_int_equal(access(wal, F_OK), 0);
	put(s, "/d", "1");
	store_close(s);
}

static void on_small_disk(void (*body)(void *arg))
{
	test_dir_make();
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		if (unshare(geteuid() ? CLONE_NEWUSER | CLONE_NEWNS : CLONE_NEWNS) ||
		    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
		    mount("tmpfs", test_dir, "tmpfs", 0, "size=20m,mode=700"))
			_exit(77);
		assert_ok(loop_run(body, NULL));
		_exit(0);
	}
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	rmdir(test_dir);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
		print_message("# no mount namespace here: the full disk was not tried\n");
		skip();
	}
	assert_int_equal(status, 0);
}

static void full_disk(void **state)
{
	on_small_disk(full_disk_body);
}

static void no_room_for_log(void **state)
{
	on_small_disk(no_room_for_log_body);
}

int main(int argc, char **argv)
{
	log_init("test", 0);
	if (argc == 4 && !strcmp(argv[1], "writer")) {
		round_no = strtoull(argv[3], NULL, 10);
		struct error *e = loop_run(writer_main, argv[2]);
		error_free(e);
		return 7;
	}
	const struct CMUnitTest tests[] = {cmocka_unit_test(full_disk), cmocka_unit_test(no_room_for_log), cmocka_unit_test(kill_nine)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
