/* Where audit events go: a file that is turned over by size and age, and a webhook that gets them in batches. */
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

#include "apiserver/audit.h"
#include "apiserver/metrics.h"
#include "apiserver/outbound.h"

#define QUEUE_MAX (16u << 20) /* bytes waiting for a backend */
#define WEBHOOK_TIMEOUT_MS 30000

#define DELIVERIES_MAX 16 /* batches on their way to the webhook at once */

struct waiter { /* of a blocking mode; on its fiber's stack */
	struct waiter *next;
	uint64_t seq;
	bool done, lost;
};

struct audit_sink {
	struct apiserver *s;
	const struct audit_backend *o;
	const char *plugin;    /* labels of the metric */
	bool blocking, strict, flushing;
	struct buf queue;      /* events, each with its line's end */
	size_t events;
	uint64_t put, taken; /* events ever */
	struct waiter *waiters;
	struct waitq more, done;
	int deliveries;
	double tokens; /* of the throttle, at filled_ms */
	int64_t filled_ms;
	/* the file */
	int fd;
	const char *path;
	int64_t size;
	/* the webhook */
	struct outbound *hook;
};

static bool wait_written(struct audit_sink *k)
{
	struct waiter w = {.next = k->waiters, .seq = k->put}, **at;
	struct error *e = NULL;

	k->waiters = &w;
	while (!e && !w.done)
		e = waitq_wait(&k->done);
	for (at = &k->waiters; *at && *at != &w;)
		at = &(*at)->next;
	if (*at)
		*at = w.next;
	error_free(e);
	return w.done && !w.lost;
}

bool audit_sink_put(struct audit_sink *k, struct str event)
{
	/* Whoever waits for it to be written is not one of the buffer. */
	bool full = k->queue.n + event.n > QUEUE_MAX || (!k->blocking && k->events >= (size_t)k->o->buffer_size);

	if (full) {
		metrics_count(METRIC_AUDIT_ERRORS, k->plugin, 1);
		return !k->strict;
	}
	buf_str(&k->queue, event);
	buf_putc(&k->queue, '\n');
	k->events++;
	k->put++;
	waitq_wake_one(&k->more);
	return !k->blocking || wait_written(k) || !k->strict;
}

/* The events after `first`, n of them, are written or lost. */
static void finished(struct audit_sink *k, uint64_t first, size_t n, bool lost)
{
	if (lost)
		metrics_count(METRIC_AUDIT_ERRORS, k->plugin, (int64_t)n);
	for (struct waiter *w = k->waiters; w; w = w->next)
		if (w->seq > first && w->seq <= first + n) {
			w->done = true;
			w->lost = lost;
		}
	k->deliveries--;
	waitq_wake_all(&k->done);
}

void audit_sink_flush(struct audit_sink *k, int64_t ms)
{
	int64_t until = now_ms() + ms;

	k->flushing = true;
	waitq_wake_all(&k->more);
	while ((k->events || k->deliveries) && now_ms() < until)
		error_free(waitq_wait_ms(&k->done, until - now_ms()));
}

/* ---- the file ---- */

struct writing {
	struct audit_sink *k;
	struct buf b;
	int err;
};

static bool is_old(const char *name, const char *base, size_t stem, const char *ext)
{
	struct str n = str_from(name);

	if (str_has_suffix(n, STR(".gz")))
		n.n -= 3;
	return strncmp(name, base, stem) == 0 && name[stem] == '-' && str_has_suffix(n, str_from(ext)) &&
	       strcmp(name, base) != 0;
}

/* PATH becomes PATH.gz; what cannot be compressed stays as it is. */
static void compress_file(struct arena *a, const char *path)
{
	const char *to = arena_printf(a, "%s.gz", path).p;
	int in = open(path, O_RDONLY | O_CLOEXEC), out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	gzFile z = out >= 0 ? gzdopen(out, "wb") : NULL;
	char *p = arena_bytes(a, 64 << 10);
	ssize_t n = -1;
	bool ok = in >= 0 && z;

	if (out >= 0 && !z)
		close(out);
	while (ok && (n = read(in, p, 64 << 10)) > 0)
		ok = gzwrite(z, p, (unsigned)n) == n;
	if (z && gzclose(z) != Z_OK)
		ok = false;
	if (in >= 0)
		close(in);
	unlink(ok && !n ? path : to);
}

static int name_cmp(const void *x, const void *y)
{
	return strcmp(*(const char *const *)x, *(const char *const *)y);
}

/* Files turned over carry their time in their name (lumberjack's form): in order of names, the oldest come first. */
static void drop_old(const struct audit_sink *k)
{
	arena_cleanup struct arena a = {0};
	const char *slash = strrchr(k->path, '/'), *base = slash ? slash + 1 : k->path, *dot = strrchr(base, '.');
	const char *dir = slash ? arena_printf(&a, "%.*s", (int)(slash - k->path), k->path).p : ".";
	size_t stem = dot ? (size_t)(dot - base) : strlen(base);
	LIST(const char *) names = {0};
	DIR *d = opendir(dir);
	struct dirent *ent;
	struct stat st;

	while (d && (ent = readdir(d)))
		if (is_old(ent->d_name, base, stem, dot ? dot : ""))
			*arena_push(&a, &names) = arena_strz(&a, str_from(ent->d_name));
	if (d)
		closedir(d);
	if (names.n)
		qsort(names.v, names.n, sizeof *names.v, name_cmp);
	for (uint32_t i = 0; i < names.n; i++) {
		const char *path = arena_printf(&a, "%s/%s", dir, names.v[i]).p;
		int max = k->s->o.audit_log_maxbackup, age = k->s->o.audit_log_maxage;
		bool old = age > 0 && stat(path, &st) == 0 && time(NULL) - st.st_mtime > age * 86400LL;

		if (old || (max > 0 && names.n - i > (uint32_t)max))
			unlink(path);
	}
}

static void turn_over(struct audit_sink *k)
{
	arena_cleanup struct arena a = {0};
	const char *dot = strrchr(k->path, '.'), *slash = strrchr(k->path, '/');
	struct timespec now;
	struct tm tm;
	char stamp[64];

	if (dot && slash && dot < slash)
		dot = NULL;
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	strftime(stamp, sizeof stamp, "%Y-%m-%dT%H-%M-%S", &tm);
	const char *to = arena_printf(&a, "%.*s-%s.%03ld%s", (int)(dot ? dot - k->path : (long)strlen(k->path)), k->path, stamp,
				      now.tv_nsec / 1000000, dot ? dot : "").p;

	if (rename(k->path, to) == 0) {
		int fd = open(k->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

		if (fd >= 0) {
			close(k->fd);
			k->fd = fd;
			k->size = 0;
		}
		if (k->s->o.audit_log_compress)
			compress_file(&a, to);
	}
	drop_old(k);
}

static void write_off_loop(void *arg)
{
	struct writing *w = arg;
	struct audit_sink *k = w->k;
	int64_t max = (int64_t)k->s->o.audit_log_maxsize << 20;

	if (max > 0 && k->path && k->size && k->size + (int64_t)w->b.n > max)
		turn_over(k);
	for (size_t off = 0; off < w->b.n;) {
		ssize_t n = write(k->fd, w->b.p + off, w->b.n - off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			w->err = errno;
			return;
		}
		off += (size_t)n;
		k->size += n;
	}
}

/* ---- batches ---- */

struct delivery {
	struct audit_sink *k;
	struct buf lines;
	size_t n;
	uint64_t first;
};

/* The next lines of the queue, as many as the backend's limits allow. */
static struct delivery *take_batch(struct audit_sink *k)
{
	struct delivery *d = xcalloc(1, sizeof *d);
	/* Lines in a file are no batch: without a throttle as many as there are go at once. */
	size_t max = k->blocking || (!k->hook && !k->o->throttle) ? SIZE_MAX : (size_t)k->o->max_size;
	struct str rest = buf_view(&k->queue);
	struct buf left = {0};

	if (max == SIZE_MAX && !k->o->truncate) {
		d->lines = k->queue;
		d->n = k->events;
		k->queue = (struct buf){0};
		rest = STR_NULL;
	}
	while (d->n < max && rest.n) {
		struct str before = rest, line = str_cut(&rest, '\n');

		if (k->o->truncate && d->n && (int64_t)(d->lines.n + line.n) > k->o->truncate_batch) {
			rest = before;
			break;
		}
		buf_str(&d->lines, line);
		buf_putc(&d->lines, '\n');
		d->n++;
	}
	buf_str(&left, rest);
	buf_free(&k->queue);
	k->queue = left;
	k->events -= d->n;
	d->k = k;
	d->first = k->taken;
	k->taken += d->n;
	k->deliveries++;
	return d;
}

static void delivered(struct delivery *d, bool lost)
{
	finished(d->k, d->first, d->n, lost);
	buf_free(&d->lines);
	free(d);
}

static void write_batch(struct delivery *d)
{
	struct writing w = {.k = d->k, .b = d->lines};

	loop_offload(write_off_loop, &w);
	if (w.err)
		log_warn("audit log %s: %s; %zu events are lost", d->k->path ? d->k->path : "-", strerror(w.err), d->n);
	delivered(d, w.err != 0);
}

static void send_batch(void *arg)
{
	arena_cleanup struct arena a = {0};
	struct delivery *d = arg;
	struct buf b buf_cleanup = {0};
	struct error *e;

	buf_puts(&b, "{\"kind\":\"EventList\",\"apiVersion\":\"audit.k8s.io/v1\",\"metadata\":{},\"items\":[");
	for (struct str rest = buf_view(&d->lines); rest.n;) {
		buf_str(&b, str_cut(&rest, '\n'));
		if (rest.n)
			buf_putc(&b, ',');
	}
	buf_puts(&b, "]}");
	e = outbound_deliver(d->k->hook, &a, buf_view(&b), WEBHOOK_TIMEOUT_MS, d->k->s->o.audit_webhook_backoff_ms);
	if (e)
		log_warn("audit webhook: %s; %zu events are lost", error_message(e), d->n);
	delivered(d, e != NULL);
	error_free(e);
}

/* A batch goes when it is full, or when its first event has waited long enough. */
static struct error *fill_batch(struct audit_sink *k)
{
	int64_t until = now_ms() + k->o->max_wait_ms;
	struct error *e = NULL;

	while (!e && !k->events)
		e = waitq_wait(&k->more);
	while (!e && !k->blocking && !k->flushing && k->events < (size_t)k->o->max_size && now_ms() < until) {
		e = waitq_wait_ms(&k->more, until - now_ms());
		if (e && error_is_sys(e, ETIMEDOUT))
			error_clear(&e);
	}
	while (!e && k->deliveries >= DELIVERIES_MAX)
		e = waitq_wait(&k->done);
	return e;
}

/* Waits for one of the tokens, of which there are qps a second and at most burst. */
static struct error *throttle(struct audit_sink *k)
{
	if (k->blocking || !k->o->throttle)
		return NULL;
	for (;;) {
		k->tokens += (double)(now_ms() - k->filled_ms) * k->o->throttle_qps / 1000;
		k->filled_ms = now_ms();
		if (k->tokens > k->o->throttle_burst)
			k->tokens = k->o->throttle_burst;
		if (k->tokens >= 1) {
			k->tokens--;
			return NULL;
		}
		TRY(fiber_sleep((int64_t)((1 - k->tokens) * 1000 / k->o->throttle_qps) + 1));
	}
}

static void run(void *arg)
{
	struct audit_sink *k = arg;
	struct error *e = NULL;

	while (!(e = fill_batch(k)) && !(e = throttle(k))) {
		struct delivery *d = take_batch(k);

		if (k->hook)
			fiber_spawn("audit-batch", send_batch, d);
		else
			write_batch(d);
	}
	error_free(e);
}

static struct audit_sink *sink_new(struct apiserver *s, const struct audit_backend *o, const char *plugin)
{
	struct audit_sink *k = xcalloc(1, sizeof *k);

	k->s = s;
	k->o = o;
	k->plugin = plugin;
	k->strict = !strcmp(o->mode, "blocking-strict");
	k->blocking = k->strict || !strcmp(o->mode, "blocking");
	k->tokens = o->throttle_burst;
	k->filled_ms = now_ms();
	return k;
}

struct error *audit_sinks_start(struct apiserver *s, struct audit_sink **log, struct audit_sink **webhook)
{
	*log = *webhook = NULL;
	if (s->o.audit_log_path) {
		struct audit_sink *k = sink_new(s, &s->o.audit_log, "plugin=\"log\"");
		struct stat st;

		k->path = strcmp(s->o.audit_log_path, "-") == 0 ? NULL : s->o.audit_log_path;
		k->fd = k->path ? open(k->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : 1;
		if (k->fd < 0)
			return error_sys(errno, "audit log %s", k->path);
		k->size = k->path && fstat(k->fd, &st) == 0 ? st.st_size : 0;
		*log = k;
		fiber_spawn("audit-log", run, k);
	}
	if (s->o.audit_webhook_config_file) {
		struct audit_sink *k = sink_new(s, &s->o.audit_webhook, "plugin=\"webhook\"");

		TRY(error_wrap(outbound_from_kubeconfig(s->o.audit_webhook_config_file, &k->hook), "--audit-webhook-config-file"));
		*webhook = k;
		fiber_spawn("audit-webhook", run, k);
	}
	return NULL;
}
