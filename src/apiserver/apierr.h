/*
 * apiserver/apierr.h: the API's errors in upstream's words: `struct error`s
 * that answer as metav1.Status, and that Status itself.
 */
#ifndef SKIFF_APISERVER_APIERR_H
#define SKIFF_APISERVER_APIERR_H

#include "base/arena.h"
#include "base/error.h"
#include "schema/api.h"

struct error *err_not_found(struct str group, struct str resource, struct str name);
struct error *err_already_exists(struct str group, struct str resource, struct str name);
/* why NULL: the optimistic lock's message. */
struct error *err_conflict(struct str group, struct str resource, struct str name, const char *why);
/* `pods "x" is forbidden: <why>`; the name may be empty. */
struct error *err_forbidden(struct str group, struct str resource, struct str name, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
struct error *err_bad_request(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
struct error *err_unauthorized(void);
struct error *err_method(void); /* 405 of the router: its details say nothing */
struct error *err_method_of(struct str group, struct str resource);
struct error *err_expired(const char *message); /* NULL: "The resourceVersion ... is too old" words are the caller's */
struct error *err_internal(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
struct error *err_too_many(int retry_after, const char *message);
struct error *err_unavailable(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
struct error *err_unknown_path(void); /* 404 `the server could not find the requested resource` */

/* metav1.Status of an error (or of success with `details`). */
void status_from_error(struct arena *a, const struct error *e, struct meta_v1_status *out);
/* An error from a Status another server answered (webhooks, aggregated). */
struct error *error_from_status(const struct meta_v1_status *s);

#endif
