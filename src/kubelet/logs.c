/*
 * kubelet/logs.c: the log files of containers: the CRI format
 * ("TIME STREAM TAGS CONTENT"), reading with kubectl's options, rotation.
 */
#include "kubelet/internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK (32u << 10)
#define LINE_MAX_BYTES (256u << 10) /* CRI entries are 16 KiB at most, docker-made ones a little more */
#define FOLLOW_POLL_MS 100
#define ROTATE_PERIOD_MS 10000

bool pod_log_parse(struct str line, struct log_entry *out)
{
	struct str rest = line, stream, tags;

	out->time = str_cut(&rest, ' ');
	if (!rest.p || out->time.n < 20 || out->time.n > 40)
		return false;
	stream = str_cut(&rest, ' ');
	if (!rest.p)
		return false;
	if (str_eqz(stream, "stdout"))
		out->stream = LOG_STDOUT;
	else if (str_eqz(stream, "stderr"))
		out->stream = LOG_STDERR;
	else
		return false;
	tags = str_cut(&rest, ' ');
	if (!rest.p) {
		/* An empty line may lack the last blank: "TIME stdout F\n" */
		if (!tags.n || tags.p[tags.n - 1] != '\n')
			return false;
		rest = str_sub(tags, tags.n - 1, tags.n);
		tags.n--;
	}
	tags = str_cut(&tags, ':');
	out->partial = str_eqz(tags, "P");
	if (!out->partial && !str_eqz(tags, "F"))
		return false;
	out->content = rest;
	if (out->partial && rest.n && rest.p[rest.n - 1] == '\n')
		out->content.n--;
	return true;
}

/* Is the entry that begins at this offset one that the next goes on? */
static bool partial_at(int fd, int64_t at)
{
	char head[64];
	ssize_t n = pread(fd, head, sizeof head, at);
	struct str rest = str_of(head, n > 0 ? (size_t)n : 0), tag;

	str_cut(&rest, ' ');
	str_cut(&rest, ' ');
	tag = str_cut(&rest, ' ');
	return tag.n && tag.p[0] == 'P';
}

/* Offset of the first byte of the last n lines; entries that belong together are one line. */
static int64_t tail_offset(int fd, int64_t size, int64_t n)
{
	char *p;
	int64_t at = size, seen = 0, line = -1; /* the entry found last, whose predecessor is not known yet */

	if (n <= 0)
		return size;
	p = xmalloc(CHUNK);
	while (at > 0) {
		size_t want = at < (int64_t)CHUNK ? (size_t)at : CHUNK;

		if (pread(fd, p, want, at - (int64_t)want) != (ssize_t)want)
			break;
		at -= (int64_t)want;
		for (size_t i = want; i-- > 0;) {
			int64_t begin = at + (int64_t)i + 1;

			if (p[i] != '\n' || begin == size)
				continue;
			if (line >= 0 && !partial_at(fd, begin) && ++seen == n) {
				free(p);
				return line;
			}
			line = begin;
		}
	}
	free(p);
	return line > 0 && !partial_at(fd, 0) && ++seen == n ? line : 0;
}

struct reader {
	const struct log_opts *o;
	struct error *(*write)(void *ctx, struct str s);
	void *ctx;
	int64_t left;     /* bytes until limitBytes */
	bool line_open;   /* the last entry was partial */
	bool done;
	struct buf out;   /* gathers small lines into one write */
};

static struct error *flush(struct reader *r)
{
	struct error *e = NULL;

	if (r->out.n)
		e = r->write(r->ctx, buf_view(&r->out));
	r->out.n = 0;
	return e;
}

static struct error *emit(struct reader *r, struct str s)
{
	if (r->o->has_limit && (int64_t)s.n > r->left)
		s.n = (size_t)r->left;
	r->left -= (int64_t)s.n;
	buf_str(&r->out, s);
	if (r->o->has_limit && r->left <= 0)
		r->done = true;
	return r->out.n >= CHUNK || r->done ? flush(r) : NULL;
}

static int64_t time_ns(struct str s)
{
	struct api_time t;

	return time_parse(s, &t) ? t.s * 1000000000 + t.ns : 0;
}

static struct error *entry(struct reader *r, struct str line)
{
	struct log_entry en;
	bool begins = !r->line_open;

	if (!pod_log_parse(line, &en))
		return NULL; /* not ours: a line cut by a crash */
	if (r->o->since_ns && time_ns(en.time) < r->o->since_ns)
		return NULL;
	if ((en.stream == LOG_STDOUT && !r->o->want_out) || (en.stream == LOG_STDERR && !r->o->want_err))
		return NULL;
	r->line_open = en.partial;
	if (r->o->timestamps && begins) {
		/* UTC is written "Z", whichever way the runtime writes it. */
		bool utc = str_has_suffix(en.time, STR("+00:00"));

		TRY(emit(r, utc ? str_sub(en.time, 0, en.time.n - 6) : en.time));
		if (utc && !r->done)
			TRY(emit(r, STR("Z")));
		if (!r->done)
			TRY(emit(r, STR(" ")));
	}
	return r->done ? NULL : emit(r, en.content);
}

struct error *log_read(const char *path, const struct log_opts *o, bool (*running)(void *ctx), struct error *(*write)(void *ctx, struct str s),
		       void *ctx)
{
	struct reader r = {.o = o, .write = write, .ctx = ctx, .left = o->limit};
	buf_cleanup struct buf b = {0};
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct fs_watch *w = NULL;
	struct stat st;
	struct error *e = NULL;
	int64_t at = 0;

	if (fd < 0)
		return error_sys(errno, "opening the log %s", path);
	if (fstat(fd, &st) == 0 && o->has_tail)
		at = tail_offset(fd, st.st_size, o->tail);
	if (o->has_limit && o->limit <= 0)
		goto out;
	while (!r.done) {
		ssize_t n;
		size_t used = 0;
		bool ended;

		buf_reserve(&b, CHUNK);
		n = pread(fd, b.p + b.n, CHUNK, at);
		if (n < 0) {
			e = error_sys(errno, "reading the log %s", path);
			break;
		}
		if (n > 0) {
			at += n;
			b.n += (size_t)n;
			for (;;) {
				char *nl = memchr(b.p + used, '\n', b.n - used);

				if (!nl)
					break;
				e = entry(&r, str_of(b.p + used, (size_t)(nl - (b.p + used)) + 1));
				used = (size_t)(nl - b.p) + 1;
				if (e || r.done)
					break;
			}
			if (e || r.done)
				break;
			memmove(b.p, b.p + used, b.n - used);
			b.n -= used;
			if (b.n > LINE_MAX_BYTES)
				b.n = 0; /* no entry is that long */
			e = fiber_check();
			if (e)
				break;
			continue;
		}
		e = flush(&r);
		if (e || !o->follow)
			break;
		/* The end: has it been rotated, has it grown, will it? */
		ended = running && !running(ctx);
		if (stat(path, &st) == 0) {
			struct stat mine;

			if (fstat(fd, &mine) == 0 && (mine.st_ino != st.st_ino || mine.st_dev != st.st_dev)) {
				int fresh;

				/* What was written between our last read and the rotation. */
				n = pread(fd, &(char){0}, 1, at);
				if (n > 0)
					continue;
				fresh = open(path, O_RDONLY | O_CLOEXEC);
				if (fresh >= 0) {
					close(fd);
					fd = fresh;
					at = 0;
					b.n = 0;
					fs_watch_close(w);
					w = NULL;
					continue;
				}
			}
			if (st.st_size > at)
				continue;
		}
		if (ended)
			break;
		if (!w) {
			error_free(fs_watch_open(path, &w));
			if (w)
				continue; /* look once more: it may have grown before the watch stood */
		}
		{
			/* Now and then by the clock: the end of the container changes no file. */
			int64_t token = deadline_push(w ? 500 : FOLLOW_POLL_MS);

			e = w ? fs_watch_wait(w) : fiber_sleep(FOLLOW_POLL_MS);
			deadline_pop(token);
			if (error_is_sys(e, ETIMEDOUT) && !fiber_cancelled())
				error_clear(&e);
			if (e)
				break;
		}
	}
out:
	if (!e)
		e = flush(&r);
	buf_free(&r.out);
	fs_watch_close(w);
	close(fd);
	return e;
}

static struct error *gather(void *ctx, struct str s)
{
	buf_str(ctx, s);
	return NULL;
}

struct str log_tail(struct arena *a, const char *path)
{
	struct log_opts o = {.has_tail = true, .tail = 80, .has_limit = true, .limit = 64 << 10, .want_out = true, .want_err = true};
	buf_cleanup struct buf b = {0};
	struct error *e = log_read(path, &o, NULL, gather, &b);
	struct str s = buf_view(&b);

	if (e)
		log_v(3, "%s", e->message);
	error_free(e);
	if (s.n > 2048)
		s = str_sub(s, s.n - 2048, s.n);
	return arena_str(a, s);
}

/* ---- rotation ---- */

static int by_name(const void *x, const void *y)
{
	return strcmp(*(char *const *)x, *(char *const *)y);
}

/* LOG.YYYYMMDD-HHMMSS: the oldest go so that, with the current one, max files stay. */
static void drop_old(const char *path, int max)
{
	char dir[1024], *names[1000];
	const char *slash = strrchr(path, '/'), *base = slash + 1;
	size_t n = 0, len = strlen(base);
	DIR *d;
	struct dirent *e;

	snprintf(dir, sizeof dir, "%.*s", (int)(slash - path), path);
	d = opendir(dir);
	while (d && (e = readdir(d)) && n < ARRAY_LEN(names))
		if (strncmp(e->d_name, base, len) == 0 && e->d_name[len] == '.')
			names[n++] = xstrdup(e->d_name);
	qsort(names, n, sizeof *names, by_name);
	for (size_t i = 0; i < n; i++) {
		if (d && n - i > (size_t)(max - 1))
			unlinkat(dirfd(d), names[i], 0);
		free(names[i]);
	}
	if (d)
		closedir(d);
}

uint32_t log_next_attempt(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	uint32_t next = 0;

	while (d && (e = readdir(d))) {
		struct str rest = str_from(e->d_name), digits = str_cut(&rest, '.');
		int64_t n;

		if (str_has_prefix(rest, STR("log")) && str_to_i64(digits, &n) && n >= next && n < INT32_MAX)
			next = (uint32_t)n + 1;
	}
	if (d)
		closedir(d);
	return next;
}

static void rotate(struct kubelet *k, struct str id, const char *path)
{
	arena_cleanup struct arena a = {0};
	struct cri_v1_reopen_container_log_request req = {.container_id = id};
	struct cri_v1_reopen_container_log_response resp = {0};
	struct str stamp = time_format(&a, kubelet_time_now(), false), digits;
	char *p = arena_alloc(&a, stamp.n + 1), *to;
	size_t n = 0;
	struct error *e;

	for (size_t i = 0; i < stamp.n; i++)
		if (stamp.p[i] >= '0' && stamp.p[i] <= '9')
			p[n++] = stamp.p[i];
	digits = str_of(p, n);
	to = (char *)arena_printf(&a, "%s.%.8s-%.6s", path, digits.p, digits.p + 8).p;
	drop_old(path, k->c->log_max_files - 1);
	if (rename(path, to) < 0) {
		log_warn("rotating %s: %s", path, strerror(errno));
		return;
	}
	e = CRI_CALL(k, &a, RUNTIME, ReopenContainerLog, reopen_container_log, &req, &resp);
	if (e) {
		/* The writer goes on in the renamed file: give it its name back. */
		if (rename(to, path) < 0)
			log_warn("rotating %s: %s", path, strerror(errno));
		log_and_free(e, "rotating %s", path);
	}
}

void log_rotate_run(void *arg)
{
	struct kubelet *k = arg;
	struct error *e;

	while ((e = fiber_sleep(ROTATE_PERIOD_MS)) == NULL) {
		arena_cleanup struct arena a = {0};
		size_t it = 0;
		void *value;
		LIST(struct str_pair) due = {0};

		if (k->c->log_max_size <= 0)
			continue;
		while (map_next(&k->pods, &it, NULL, &value)) {
			struct pod *p = value;

			for (uint32_t i = 0; p->view && i < p->view->containers.n; i++) {
				struct view_container *c = &p->view->containers.v[i];
				struct stat st;
				struct str path;

				if (c->state != CRI_CONTAINER_RUNNING)
					continue;
				path = arena_printf(&a, "%.*s/%.*s/%u.log",
						    STR_ARG(pod_log_dir(k, &a, str_from(p->ns), str_from(p->name), str_from(p->uid))), STR_ARG(c->name),
						    c->attempt);
				if (stat(path.p, &st) == 0 && st.st_size > k->c->log_max_size)
					*arena_push(&a, &due) = (struct str_pair){arena_str(&a, c->id), path};
			}
		}
		for (uint32_t i = 0; i < due.n; i++)
			rotate(k, due.v[i].key, due.v[i].value.p);
	}
	error_free(e);
}
