#include "apiserver/apierr.h"
#include <stdio.h>
#include <stdlib.h>

#include "schema/codec.h"

static void qualified(char *out, size_t n, struct str group, struct str resource)
{
	snprintf(out, n, "%.*s%s%.*s", STR_ARG(resource), group.n ? "." : "", STR_ARG(group));
}

struct error *err_not_found(struct str group, struct str resource, struct str name)
{
	char q[600];
	struct error *e;

	qualified(q, sizeof q, group, resource);
	e = error_status(404, "NotFound", "%s \"%.*s\" not found", q, STR_ARG(name));
	error_set_details(e, group, resource, name);
	return e;
}

struct error *err_already_exists(struct str group, struct str resource, struct str name)
{
	char q[600];
	struct error *e;

	qualified(q, sizeof q, group, resource);
	e = error_status(409, "AlreadyExists", "%s \"%.*s\" already exists", q, STR_ARG(name));
	error_set_details(e, group, resource, name);
	return e;
}

struct error *err_conflict(struct str group, struct str resource, struct str name, const char *why)
{
	char q[600];
	struct error *e;

	qualified(q, sizeof q, group, resource);
	e = error_status(409, "Conflict", "Operation cannot be fulfilled on %s \"%.*s\": %s", q, STR_ARG(name),
			 why ? why : "the object has been modified; please apply your changes to the latest version and try again");
	error_set_details(e, group, resource, name);
	return e;
}

struct error *err_forbidden(struct str group, struct str resource, struct str name, const char *fmt, ...)
{
	char q[600], why[4000];
	struct error *e;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof why, fmt, ap);
	va_end(ap);
	qualified(q, sizeof q, group, resource);
	if (!resource.n && !group.n)
		e = error_status(403, "Forbidden", "forbidden: %s", why);
	else if (name.n)
		e = error_status(403, "Forbidden", "%s \"%.*s\" is forbidden: %s", q, STR_ARG(name), why);
	else
		e = error_status(403, "Forbidden", "%s is forbidden: %s", q, why);
	error_set_details(e, group, resource, name);
	return e;
}

struct error *err_bad_request(const char *fmt, ...)
{
	struct error *e;
	char m[8000];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(m, sizeof m, fmt, ap);
	va_end(ap);
	e = error_status(400, "BadRequest", "%s", m);
	return e;
}

struct error *err_unauthorized(void)
{
	return error_status(401, "Unauthorized", "Unauthorized");
}

struct error *err_method(void)
{
	return error_status(405, "MethodNotAllowed", "the server does not allow this method on the requested resource");
}

struct error *err_method_of(struct str group, struct str resource)
{
	struct error *e = err_method();

	error_set_details(e, group, resource, STR(""));
	return e;
}

struct error *err_expired(const char *message)
{
	return error_status(410, "Expired", "%s",
			    message ? message : "The provided continue parameter is too old to display a consistent list result.");
}

struct error *err_internal(const char *fmt, ...)
{
	struct error *e;
	char m[8000];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(m, sizeof m, fmt, ap);
	va_end(ap);
	e = error_status(500, "InternalError", "Internal error occurred: %s", m);
	error_add_cause(e, "", "", "%s", m);
	return e;
}

struct error *err_too_many(int retry_after, const char *message)
{
	struct error *e = error_status(429, "TooManyRequests", "%s", message);

	e->retry_after_seconds = retry_after;
	return e;
}

struct error *err_unavailable(const char *fmt, ...)
{
	char m[4000];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(m, sizeof m, fmt, ap);
	va_end(ap);
	return error_status(503, "ServiceUnavailable", "%s", m);
}

struct error *err_unknown_path(void)
{
	return error_status(404, "NotFound", "the server could not find the requested resource");
}

static struct str dup_z(struct arena *a, const char *z)
{
	return z ? arena_str(a, str_from(z)) : STR_NULL;
}

/* What upstream answers before it knows the resource (or without naming it) has details that say nothing. */
static bool generic_answer(const struct error *e)
{
	return e->status == 404 || e->status == 405 || e->status == 422;
}

void status_from_error(struct arena *a, const struct error *e, struct meta_v1_status *out)
{
	int code = e->status ? e->status : 500;

	memset(out, 0, sizeof *out);
	out->kind = STR("Status");
	out->api_version = STR("v1");
	out->status = code < 400 ? STR("Success") : STR("Failure");
	if (e->own_outcome)
		out->status = dup_z(a, e->own_outcome);
	if (e->own_metadata) /* our own text */
		error_free(json_decode(a, &meta_v1_list_meta_type, dup_z(a, e->own_metadata), NULL, &out->metadata));
	out->message = dup_z(a, e->message);
	out->reason = dup_z(a, e->reason);
	out->code = code;
	if (e->sys && !e->status) {
		/* an operating system's error that nobody translated: the client may try again */
		out->reason = STR("InternalError");
		out->message = arena_printf(a, "Internal error occurred: %s", e->message);
	}
	if (generic_answer(e))
		out->details = arena_new(a, struct meta_v1_status_details);
	if (e->group || e->kind || e->name || e->uid || e->n_causes || e->retry_after_seconds) {
		struct meta_v1_status_details *d = arena_new(a, struct meta_v1_status_details);

		d->group = dup_z(a, e->group);
		d->kind = dup_z(a, e->kind);
		d->name = arena_str(a, str_of(e->name, e->name_n));
		d->uid = dup_z(a, e->uid);
		d->retry_after_seconds = e->retry_after_seconds;
		for (size_t i = 0; i < e->n_causes; i++) {
			struct meta_v1_status_cause *c = arena_push(a, &d->causes);

			c->reason = dup_z(a, e->causes[i].reason);
			c->field = dup_z(a, e->causes[i].field);
			c->message = dup_z(a, e->causes[i].message);
		}
		out->details = d;
	}
}

struct error *error_from_status(const struct meta_v1_status *s)
{
	struct error *e = error_status(s->code >= 400 ? s->code : 500, "", "%.*s", STR_ARG(s->message));
	buf_cleanup struct buf meta = {0};

	if (s->reason.n)
		error_set_reason(e, s->reason);
	if (s->status.n && !str_eqz(s->status, "Success"))
		e->own_outcome = str_dupz(s->status);
	if (!object_equal(&meta_v1_list_meta_type, &s->metadata, &(struct meta_v1_list_meta){0})) {
		json_encode(&meta, &meta_v1_list_meta_type, &s->metadata);
		e->own_metadata = str_dupz(buf_view(&meta));
	}
	if (s->details) {
		error_set_details(e, s->details->group, s->details->kind, s->details->name);
		e->uid = s->details->uid.n ? str_dupz(s->details->uid) : NULL;
		e->retry_after_seconds = s->details->retry_after_seconds;
		for (uint32_t i = 0; i < s->details->causes.n; i++) {
			const struct meta_v1_status_cause *c = &s->details->causes.v[i];
			char *r = str_dupz(c->reason), *f = str_dupz(c->field);

			error_add_cause(e, r, f, "%.*s", STR_ARG(c->message));
			free(r);
			free(f);
		}
	}
	return e;
}
