#include "client/leaderelection.h"

#include <errno.h>
#include <stdlib.h>

#include "base/log.h"

/* The lease this process holds or wants. One a process, as its name says. */
static struct leader {
	struct leader_opts o;
	char *ns, *name, *identity;
	void (*lost)(void *ctx);
	void *ctx;
	struct fiber *fiber;
	bool held;
	/* What was seen last, and when, by our clock: other clocks are not trusted. */
	char *seen_holder;
	struct api_time seen_renew;
	int64_t seen_ms;
} leader;

static struct api_time wall(void)
{
	int64_t ns = wall_ns();

	return (struct api_time){.s = ns / 1000000000, .ns = (int32_t)(ns % 1000000000 / 1000 * 1000), .set = true};
}

static struct error *write_lease(struct leader *l, struct arena *a, struct coordination_v1_lease *lease, bool create)
{
	struct str id = str_from(l->identity);
	struct coordination_v1_lease_spec *s = &lease->spec;
	struct api_time now = wall();
	bool mine = s->holder_identity && str_eq(*s->holder_identity, id);
	int32_t seconds = (int32_t)(l->o.lease_ms / 1000), transitions = s->lease_transitions ? *s->lease_transitions : 0;

	if (!mine && !create)
		transitions++;
	s->holder_identity = &id;
	s->lease_duration_seconds = &seconds;
	s->renew_time = &now;
	s->lease_transitions = &transitions;
	if (!mine || !s->acquire_time)
		s->acquire_time = &now;
	if (create) {
		lease->metadata.name = str_from(l->name);
		lease->metadata.namespace = str_from(l->ns);
		return client_create(l->o.client, a, &coordination_v1_leases_resource, str_from(l->ns), lease, NULL);
	}
	return client_update(l->o.client, a, &coordination_v1_leases_resource, str_from(l->ns), NULL, lease, NULL);
}

/* One try to take or keep the lease; *got says whether it is ours now. */
static struct error *try_lease(struct leader *l, bool *got)
{
	arena_cleanup struct arena a = {0};
	void *obj;
	struct error *e = client_get(l->o.client, &a, &coordination_v1_leases_resource, str_from(l->ns), str_from(l->name), &obj);

	*got = false;
	if (error_is(e, 404, NULL)) {
		struct coordination_v1_lease *fresh = arena_new(&a, struct coordination_v1_lease);

		error_clear(&e);
		e = write_lease(l, &a, fresh, true);
		*got = !e;
		return e;
	}
	if (e)
		return e;
	struct coordination_v1_lease *lease = obj;
	struct str holder = lease->spec.holder_identity ? *lease->spec.holder_identity : STR_NULL;
	struct api_time renew = lease->spec.renew_time ? *lease->spec.renew_time : (struct api_time){0};

	if (!l->seen_holder || !str_eqz(holder, l->seen_holder) || renew.s != l->seen_renew.s || renew.ns != l->seen_renew.ns) {
		free(l->seen_holder);
		l->seen_holder = str_dupz(holder);
		l->seen_renew = renew;
		l->seen_ms = now_ms();
	}
	int64_t duration = lease->spec.lease_duration_seconds ? *lease->spec.lease_duration_seconds * 1000LL : l->o.lease_ms;

	if (!str_empty(holder) && !str_eqz(holder, l->identity) && now_ms() < l->seen_ms + duration)
		return NULL; /* somebody else leads */
	e = write_lease(l, &a, lease, false);
	*got = !e;
	return e;
}

static void renew(void *arg)
{
	struct leader *l = arg;
	int64_t renewed = now_ms();

	while (!fiber_cancelled()) {
		struct error *e = fiber_sleep(l->o.retry_ms);
		bool got;

		if (e) {
			error_free(e);
			return;
		}
		int64_t deadline = deadline_push(l->o.renew_ms);

		e = try_lease(l, &got);
		deadline_pop(deadline);
		if (got) {
			renewed = now_ms();
			continue;
		}
		if (fiber_cancelled()) {
			error_free(e);
			return;
		}
		if (e)
			log_warn("renewing lease %s/%s: %s", l->ns, l->name, error_message(e));
		bool other = !e;

		error_free(e);
		if (other || now_ms() - renewed >= l->o.renew_ms) {
			log_error("lease %s/%s is lost", l->ns, l->name);
			l->held = false;
			l->lost(l->ctx);
			return;
		}
	}
}

struct error *leader_acquire(const struct leader_opts *o, void (*lost)(void *ctx), void *ctx)
{
	struct leader *l = &leader;

	l->o = *o;
	if (!l->o.lease_ms)
		l->o.lease_ms = 15000;
	if (!l->o.renew_ms)
		l->o.renew_ms = 10000;
	if (!l->o.retry_ms)
		l->o.retry_ms = 2000;
	l->ns = xstrdup(o->ns);
	l->name = xstrdup(o->name);
	l->identity = xstrdup(o->identity);
	l->lost = lost;
	l->ctx = ctx;
	log_info("waiting for lease %s/%s", l->ns, l->name);
	for (;;) {
		bool got;
		struct error *e = try_lease(l, &got);

		if (got)
			break;
		if (e && !error_is(e, 409, NULL))
			log_v(1, "lease %s/%s: %s", l->ns, l->name, error_message(e));
		if (e && error_is_sys(e, ECANCELED))
			return e;
		error_free(e);
		TRY(fiber_sleep(l->o.retry_ms + (int64_t)(random_u64() % (uint64_t)(l->o.retry_ms / 5 + 1))));
	}
	log_info("leading as %s", l->identity);
	l->held = true;
	l->fiber = fiber_start("leader", renew, l);
	return NULL;
}

static struct error *give_up(struct leader *l)
{
	arena_cleanup struct arena a = {0};
	void *obj;

	TRY(client_get(l->o.client, &a, &coordination_v1_leases_resource, str_from(l->ns), str_from(l->name), &obj));
	struct coordination_v1_lease *lease = obj;
	struct str none = STR("");
	int32_t second = 1;

	if (!lease->spec.holder_identity || !str_eqz(*lease->spec.holder_identity, l->identity))
		return NULL;
	lease->spec.holder_identity = &none;
	lease->spec.lease_duration_seconds = &second;
	return client_update(l->o.client, &a, &coordination_v1_leases_resource, str_from(l->ns), NULL, lease, NULL);
}

void leader_release(void)
{
	struct leader *l = &leader;

	if (!l->fiber)
		return;
	fiber_stop(l->fiber);
	l->fiber = NULL;
	if (l->held) {
		fiber_shield_begin();
		int64_t deadline = deadline_push(2000);

		log_and_free(give_up(l), "releasing lease %s/%s", l->ns, l->name);
		deadline_pop(deadline);
		fiber_shield_end();
		l->held = false;
	}
	free(l->ns);
	free(l->name);
	free(l->identity);
	free(l->seen_holder);
	*l = (struct leader){0};
}
