#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"

#define CAUSES_MAX 1000u

static char *format(const char *fmt, va_list ap)
{
	char *s;

	if (vasprintf(&s, fmt, ap) < 0)
		die_oom();
	return s;
}

static struct error *make(int status, int sys, const char *reason, char *message)
{
	struct error *e = xcalloc(1, sizeof *e);

	e->status = status;
	e->sys = sys;
	e->reason = reason;
	e->message = message;
	return e;
}

struct error *error_new(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	struct error *e = make(0, 0, "", format(fmt, ap));

	va_end(ap);
	return e;
}

struct error *error_sys(int sys, const char *fmt, ...)
{
	va_list ap;

	if (sys < 0)
		sys = -sys;
	va_start(ap, fmt);
	char *context = format(fmt, ap);

	va_end(ap);
	struct error *e = make(0, sys, "", xasprintf("%s: %s", context, strerror(sys)));

	free(context);
	return e;
}

struct error *error_status(int status, const char *reason, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	struct error *e = make(status, 0, reason, format(fmt, ap));

	va_end(ap);
	return e;
}

struct error *error_wrap(struct error *e, const char *fmt, ...)
{
	va_list ap;

	if (!e)
		return NULL;
	va_start(ap, fmt);
	char *context = format(fmt, ap);

	va_end(ap);
	char *joined = xasprintf("%s: %s", context, e->message);

	free(context);
	free(e->message);
	e->message = joined;
	return e;
}

void error_set_reason(struct error *e, struct str reason)
{
	free(e->own_reason);
	e->own_reason = str_dupz(reason);
	e->reason = e->own_reason;
}

void error_add_cause(struct error *e, const char *reason, const char *field, const char *fmt, ...)
{
	va_list ap;

	if (e->n_causes >= CAUSES_MAX)
		return;
	/* Grown by one: errors are rare and small. */
	e->causes = xrealloc(e->causes, (e->n_causes + 1) * sizeof *e->causes);
	va_start(ap, fmt);
	e->causes[e->n_causes++] = (struct error_cause){xstrdup(reason), xstrdup(field), format(fmt, ap)};
	va_end(ap);
}

void error_set_details(struct error *e, struct str group, struct str kind, struct str name)
{
	free(e->group);
	free(e->kind);
	free(e->name);
	e->group = str_dupz(group);
	e->kind = str_dupz(kind);
	e->name = str_dupz(name);
	e->name_n = name.n;
}

void error_free(struct error *e)
{
	if (!e)
		return;
	for (size_t i = 0; i < e->n_causes; i++) {
		free(e->causes[i].reason);
		free(e->causes[i].field);
		free(e->causes[i].message);
	}
	free(e->causes);
	free(e->own_reason);
	free(e->own_outcome);
	free(e->own_metadata);
	free(e->group);
	free(e->kind);
	free(e->name);
	free(e->uid);
	free(e->message);
	free(e);
}

void error_clear(struct error **e)
{
	error_free(*e);
	*e = NULL;
}

bool error_is(const struct error *e, int status, const char *reason)
{
	return e && e->status == status && (!reason || strcmp(e->reason, reason) == 0);
}

bool error_is_sys(const struct error *e, int sys)
{
	return e && e->sys == sys;
}

const char *error_message(const struct error *e)
{
	return e ? e->message : "";
}
