#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"

static const char *component = "skiff";
static int verbosity;

void log_init(const char *name, int v)
{
	component = name;
	verbosity = v;
}

void log_set_verbosity(int v)
{
	verbosity = v;
}

bool log_enabled(int v)
{
	return v <= verbosity;
}

static void write_line(enum log_level level, const char *fmt, va_list ap)
{
	static const char *const names[] = {"ERROR", "WARN ", "INFO ", "DEBUG"};
	struct buf b = {0};
	struct timespec ts;
	struct tm tm;

	/* The one clock read outside loop/: logging works before and without a loop. */
	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	buf_printf(&b, "%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ %s %s: ", tm.tm_year + 1900, tm.tm_mon + 1,
		   tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, ts.tv_nsec / 1000000, names[level], component);
	size_t start = b.n;

	buf_vprintf(&b, fmt, ap);
	/* One event is one line, whatever a message holds. */
	for (size_t i = start; i < b.n; i++)
		if (b.p[i] == '\n' || b.p[i] == '\r')
			b.p[i] = ' ';
	buf_putc(&b, '\n');
	for (size_t off = 0; off < b.n;) {
		ssize_t w = write(STDERR_FILENO, b.p + off, b.n - off);

		if (w <= 0)
			break; /* nowhere left to report it */
		off += (size_t)w;
	}
	buf_free(&b);
}

void log_line(enum log_level level, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	write_line(level, fmt, ap);
	va_end(ap);
}

void log_and_free(struct error *e, const char *fmt, ...)
{
	va_list ap;

	if (!e)
		return;
	char *context;

	va_start(ap, fmt);
	if (vasprintf(&context, fmt, ap) < 0)
		die_oom();
	va_end(ap);
	log_error("%s: %s", context, e->message);
	free(context);
	error_free(e);
}

void die_oom(void)
{
	static const char msg[] = "skiff: out of memory\n";

	if (write(STDERR_FILENO, msg, sizeof msg - 1) < 0)
		abort();
	abort();
}

void *xmalloc(size_t n)
{
	void *p = malloc(n ? n : 1);

	if (!p)
		die_oom();
	return p;
}

void *xcalloc(size_t n, size_t size)
{
	void *p = calloc(n ? n : 1, size ? size : 1);

	if (!p)
		die_oom();
	return p;
}

void *xrealloc(void *p, size_t n)
{
	p = realloc(p, n ? n : 1);
	if (!p)
		die_oom();
	return p;
}

char *xstrdup(const char *z)
{
	return str_dupz(str_from(z));
}

char *xasprintf(const char *fmt, ...)
{
	va_list ap;
	char *s;

	va_start(ap, fmt);
	if (vasprintf(&s, fmt, ap) < 0)
		die_oom();
	va_end(ap);
	return s;
}
