/*
 * base/log.h: log lines to standard error: one line an event,
 * `2026-01-02T03:04:05.678Z INFO component: message key=value`.
 * klog's -v numbers set the level: errors, warnings and info always, log_v(n) from -v=n.
 */
#ifndef SKIFF_BASE_LOG_H
#define SKIFF_BASE_LOG_H

#include <stdarg.h>
#include <stdbool.h>
#include "base/error.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* Called once by main before any fiber or thread: the component's name (a literal) and klog verbosity. */
void log_init(const char *component, int verbosity);
bool log_enabled(int verbosity);
void log_set_verbosity(int verbosity);
void log_line(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)
#define log_warn(...) log_line(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, __VA_ARGS__)
#define log_v(n, ...)                                                                              \
	do {                                                                                       \
		if (log_enabled(n))                                                                \
			log_line(LOG_DEBUG, __VA_ARGS__);                                          \
	} while (0)
/* Logs `<context>: <message>` as an error and frees e; nothing for NULL. */
void log_and_free(struct error *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Out of memory and broken invariants: says where and aborts. */
_Noreturn void die_oom(void);
void *xmalloc(size_t n);
void *xcalloc(size_t n, size_t size);
void *xrealloc(void *p, size_t n);
char *xstrdup(const char *z);
char *xasprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
