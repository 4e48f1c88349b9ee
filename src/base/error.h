/*
 * base/error.h: the one error object.
 *
 * A function that can fail returns `struct error *`: NULL is success, anything
 * else is owned by the caller, who returns it further (error_wrap), answers it
 * to a client, or logs and frees it. An error is never dropped silently.
 *
 * An error has an HTTP status and a reason in Kubernetes' vocabulary
 * (metav1.StatusReason) so that one raised anywhere can be answered as a
 * Status without translation, and the errno it came from, where there was one.
 */
#ifndef SKIFF_BASE_ERROR_H
#define SKIFF_BASE_ERROR_H

#include <stdarg.h>
#include "base/str.h"

struct error_cause {
	char *reason;  /* metav1.CauseType, e.g. "FieldValueRequired" */
	char *field;   /* field path, e.g. "spec.containers[0].name" */
	char *message;
};

struct error {
	int status;         /* HTTP status, 0 where it has none (answered as 500) */
	int sys;            /* errno (positive) it came from, or 0 */
	const char *reason; /* metav1.StatusReason, a literal or own_reason; "" for none */
	char *own_reason;   /* one that somebody else chose, or NULL */
	char *own_outcome, *own_metadata; /* metav1.Status' status (else "Failure"), and metadata as JSON, of somebody else's; or NULL */
	char *message;      /* for a person: what failed and, where known, what to do */
	/* metav1.StatusDetails; all NULL where it has none */
	char *group, *kind, *name, *uid;
	size_t name_n; /* of name, which may hold NULs */
	int retry_after_seconds;
	struct error_cause *causes;
	size_t n_causes;
};

/* Makes an error. `fmt` gives a full sentence fragment, no trailing newline. */
struct error *error_new(const char *fmt, ...) __attribute__((format(printf, 1, 2), warn_unused_result));
/* From errno `sys` (> 0, or a negative libuv code): "<message>: <strerror>". */
struct error *error_sys(int sys, const char *fmt, ...) __attribute__((format(printf, 2, 3), warn_unused_result));
/* With an HTTP status and a reason literal ("NotFound", "Conflict", ...). */
struct error *error_status(int status, const char *reason, const char *fmt, ...)
	__attribute__((format(printf, 3, 4), warn_unused_result));
/* Puts "<context>: " before the message and returns the same error; keeps status, sys, causes. NULL stays NULL. */
struct error *error_wrap(struct error *e, const char *fmt, ...) __attribute__((format(printf, 2, 3), warn_unused_result));
/* Adds a cause (copied). At most 1,000 are kept. */
/* A reason of somebody else's words, copied. */
void error_set_reason(struct error *e, struct str reason);
void error_add_cause(struct error *e, const char *reason, const char *field, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* Sets StatusDetails' group, kind and name (copied). */
void error_set_details(struct error *e, struct str group, struct str kind, struct str name);
void error_free(struct error *e);
/* Frees *e and sets it NULL. */
void error_clear(struct error **e);
/* Same status and (if not NULL) same reason; false for e == NULL. */
bool error_is(const struct error *e, int status, const char *reason);
/* e != NULL and came from this errno; ECANCELED and ETIMEDOUT are what waits return (loop/fiber.h). */
bool error_is_sys(const struct error *e, int sys);
/* The message, "" for NULL. */
const char *error_message(const struct error *e);

static inline void error_cleanup_(struct error **e)
{
	error_clear(e);
}
#define error_cleanup __attribute__((cleanup(error_cleanup_)))

/* Runs a call and returns its error, if any, from the current function. */
#define TRY(call)                                                                                  \
	do {                                                                                       \
		struct error *try_e_ = (call);                                                     \
		if (try_e_)                                                                        \
			return try_e_;                                                             \
	} while (0)

#endif
