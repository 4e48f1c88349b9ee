/* Where audit events go: a file that is turned over by size and age, and a webhook that gets them in batches. */
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "apiserver/audit.h"
#include "apiserver/metrics.h"
#include "apiserver/outbound.h"

#define QUEUE_MAX (16u << 20) /* bytes waiting for a backend */
#define WEBHOOK_TIMEOUT_MS 30000

struct audit_sink {
	struct apiserver *s;
	const char *plugin;    /* labels of the metric */
	struct buf queue;      /* events, each with its line's end */
	size_t events;
	struct waitq more;
	/* the file */
	int fd;
	const char *path;
	int64_t size;
	/* the webhook */
	struct outbound *hook;
};

void audit_sink_put(struct audit_sink *k, struct str event)
{
	if (k->queue.n + event.n > QUEUE_MAX) {
		metrics_count(METRIC_AUDIT_ERRORS, k->plugin, 1);
		return;
	}
	buf_str(&k->queue, event);
	buf_putc(&k->queue, '\n');
	k->events++;
	waitq_wake_one(&k->more);
}

/* ---- the file ---- */

struct writing {
	struct audit_sink *k;
	struct buf b;
	int err;
};

static bool is_old(const char *name, const char *base, size_t stem, const char *ext)
{
	return strncmp(name, base, stem) == 0 && name[stem] == '-' && str_has_suffix(str_from(name), str_from(ext)) &&
	       strcmp(name, base) != 0;
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

static void log_run(void *arg)
{
	struct audit_sink *k = arg;
	struct error *e = NULL;

	while (!e) {
		if (!k->queue.n) {
			e = waitq_wait(&k->more);
			continue;
		}
		struct writing w = {.k = k, .b = k->queue};
		int64_t events = (int64_t)k->events;

		k->queue = (struct buf){0};
		k->events = 0;
		loop_offload(write_off_loop, &w);
		buf_free(&w.b);
		if (w.err) {
			log_warn("audit log %s: %s; %lld events are lost", k->path ? k->path : "-", strerror(w.err), (long long)events);
			metrics_count(METRIC_AUDIT_ERRORS, "plugin=\"log\"", events);
		}
	}
	error_free(e);
}

/* ---- the webhook ---- */

/* Up to max lines of the queue as an EventList; *n of them. */
static struct str take_batch(struct audit_sink *k, struct arena *a, int max, size_t *n)
{
	struct str rest = buf_view(&k->queue);
	struct buf b buf_cleanup = {0}, left = {0};

	buf_puts(&b, "{\"kind\":\"EventList\",\"apiVersion\":\"audit.k8s.io/v1\",\"metadata\":{},\"items\":[");
	for (*n = 0; *n < (size_t)max && rest.n; ++*n) {
		if (*n)
			buf_putc(&b, ',');
		buf_str(&b, str_cut(&rest, '\n'));
	}
	buf_puts(&b, "]}");
	buf_str(&left, rest);
	buf_free(&k->queue);
	k->queue = left;
	k->events -= *n;
	return arena_str(a, buf_view(&b));
}

static void webhook_run(void *arg)
{
	struct audit_sink *k = arg;
	int max = k->s->o.audit_webhook_batch_max_size;
	struct error *e = NULL;

	while (!e) {
		if (!k->events) {
			e = waitq_wait(&k->more);
			continue;
		}
		/* A batch goes when it is full, or when its first event has waited long enough. */
		int64_t until = now_ms() + k->s->o.audit_webhook_batch_max_wait_ms;

		while (!e && k->events < (size_t)max && now_ms() < until) {
			e = waitq_wait_ms(&k->more, until - now_ms());
			if (e && error_is_sys(e, ETIMEDOUT))
				error_clear(&e);
		}
		if (e)
			break;
		arena_cleanup struct arena a = {0};
		size_t n;
		struct str answer, batch = take_batch(k, &a, max, &n);
		struct error *failed = outbound_post(k->hook, &a, batch, WEBHOOK_TIMEOUT_MS, &answer);

		if (failed) {
			log_warn("audit webhook: %s; %zu events are lost", error_message(failed), n);
			metrics_count(METRIC_AUDIT_ERRORS, "plugin=\"webhook\"", (int64_t)n);
		}
		error_free(failed);
	}
	error_free(e);
}

struct error *audit_sinks_start(struct apiserver *s, struct audit_sink **log, struct audit_sink **webhook)
{
	*log = *webhook = NULL;
	if (s->o.audit_log_path) {
		struct audit_sink *k = xcalloc(1, sizeof *k);
		struct stat st;

		k->s = s;
		k->plugin = "plugin=\"log\"";
		k->path = strcmp(s->o.audit_log_path, "-") == 0 ? NULL : s->o.audit_log_path;
		k->fd = k->path ? open(k->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : 1;
		if (k->fd < 0)
			return error_sys(errno, "audit log %s", k->path);
		k->size = k->path && fstat(k->fd, &st) == 0 ? st.st_size : 0;
		*log = k;
		fiber_spawn("audit-log", log_run, k);
	}
	if (s->o.audit_webhook_config_file) {
		struct audit_sink *k = xcalloc(1, sizeof *k);

		k->s = s;
		k->plugin = "plugin=\"webhook\"";
		TRY(error_wrap(outbound_from_kubeconfig(s->o.audit_webhook_config_file, &k->hook), "--audit-webhook-config-file"));
		*webhook = k;
		fiber_spawn("audit-webhook", webhook_run, k);
	}
	return NULL;
}
