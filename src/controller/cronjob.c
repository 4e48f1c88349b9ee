/*
 * controller/cronjob.c: Jobs at the times a CronJob says. A Job's name comes of its time, so that none is made twice.
 * Schedules and zones are schema/cron.h's.
 */
#include <errno.h>
#include <stdlib.h>

#include "controller/common.h"
#include "loop/io.h"
#include "schema/cron.h"

#define SCHEDULED_AT "batch.kubernetes.io/cronjob-scheduled-timestamp"
#define PADDING_MS 100      /* a little after the time, for clocks that differ */
#define MANY_MISSED 100
#define ZONES "/usr/share/zoneinfo/"
#define LOCAL_ZONE "/etc/localtime"

typedef struct batch_v1_cron_job cron_job;
typedef struct batch_v1_job job_t;

struct cronjob_controller {
	struct manager *m;
	struct informer *cronjobs, *jobs;
	struct workqueue *q;
	struct event_recorder *rec;
	struct map zones;           /* name -> zone, for ever: there are some 600 */
};

struct cron_sync { /* one reconcile */
	struct cronjob_controller *c;
	struct arena *a;
	cron_job *cj;               /* a copy whose status is changed */
	struct core_v1_object_reference ref;
	job_t **jobs;
	size_t n;
	bool changed;               /* the status */
	int64_t again_ms;           /* when to look again, -1 never */
};

#define EVENT(s, type, reason, ...) event_record((s)->c->rec, &(s)->ref, type, reason, __VA_ARGS__)

/* ---- zones ---- */

static struct error *zone_read(struct cronjob_controller *c, struct arena *a, const char *path, const struct time_zone **out)
{
	struct buf buf_cleanup b = {0};

	TRY(file_read(path, &b));
	return time_zone_parse(a, buf_view(&b), out);
}

/* "" and "UTC" are UTC, "Local" this machine's. */
static struct error *zone_of(struct cronjob_controller *c, struct str name, const struct time_zone **out)
{
	arena_cleanup struct arena a = {0};
	struct error *e;

	*out = NULL;
	if (!name.n || str_eqz(name, "UTC"))
		return NULL;
	if (map_has(&c->zones, name)) {
		*out = map_get(&c->zones, name);
		return NULL;
	}
	if (str_eqz(name, "Local")) {
		const char *tz = getenv("TZ");

		if (tz && (!*tz || time_zone_name_ok(str_from(tz))))
			return zone_of(c, str_from(tz), out);
		e = zone_read(c, &c->m->arena, LOCAL_ZONE, out);
		if (error_is_sys(e, ENOENT))
			error_clear(&e); /* a machine without one keeps UTC */
	} else if (!time_zone_name_ok(name)) {
		e = error_new("unknown time zone %.*s", STR_ARG(name));
	} else {
		e = zone_read(c, &c->m->arena, arena_printf(&a, ZONES "%.*s", STR_ARG(name)).p, out);
		if (e)
			e = error_wrap(e, "unknown time zone %.*s", STR_ARG(name));
	}
	if (!e)
		map_set(&c->zones, name, (void *)*out);
	return e;
}

/* ---- the list of active jobs ---- */

static bool finished(const job_t *j, const char **how)
{
	for (uint32_t i = 0; i < j->status.conditions.n; i++) {
		const struct batch_v1_job_condition *c = &j->status.conditions.v[i];
		bool ok = str_eqz(c->type, "Complete");

		if ((ok || str_eqz(c->type, "Failed")) && str_eqz(c->status, "True")) {
			*how = ok ? "Complete" : "Failed";
			return true;
		}
	}
	*how = "";
	return false;
}

static bool is_active(const cron_job *cj, struct str uid)
{
	for (uint32_t i = 0; i < cj->status.active.n; i++)
		if (str_eq(cj->status.active.v[i].uid, uid))
			return true;
	return false;
}

static void drop_active(struct cron_sync *s, struct str uid)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < s->cj->status.active.n; i++)
		if (!str_eq(s->cj->status.active.v[i].uid, uid))
			s->cj->status.active.v[n++] = s->cj->status.active.v[i];
	s->cj->status.active.n = n;
}

static bool delete_job(struct cron_sync *s, const job_t *j)
{
	struct error *e = client_delete(s->c->m->client, s->a, &batch_v1_jobs_resource, j->metadata.namespace, j->metadata.name,
					&(struct delete_opts){.grace_seconds = -1, .propagation = "Background", .uid = j->metadata.uid});

	if (error_is(e, 404, NULL))
		error_clear(&e);
	if (e) {
		EVENT(s, "Warning", "FailedDelete", "Deleted job: %s", error_message(e));
		error_free(e);
		return false;
	}
	drop_active(s, j->metadata.uid);
	s->changed = true;
	EVENT(s, "Normal", "SuccessfulDelete", "Deleted job %.*s", STR_ARG(j->metadata.name));
	return true;
}

static int cmp_start(const void *pa, const void *pb)
{
	const job_t *x = *(job_t *const *)pa, *y = *(job_t *const *)pb;

	if (!x->status.start_time || !y->status.start_time) {
		if (x->status.start_time || y->status.start_time)
			return x->status.start_time ? -1 : 1;
	} else if (time_cmp(*x->status.start_time, *y->status.start_time)) {
		return time_cmp(*x->status.start_time, *y->status.start_time);
	}
	return str_cmp(x->metadata.name, y->metadata.name);
}

static void cut_history(struct cron_sync *s, const char *which, const int32_t *limit)
{
	job_t **v = arena_array(s->a, job_t *, s->n + 1);
	const char *how;
	size_t n = 0;

	for (size_t i = 0; limit && i < s->n; i++)
		if (finished(s->jobs[i], &how) && !strcmp(how, which) && !s->jobs[i]->metadata.deletion_timestamp)
			v[n++] = s->jobs[i];
	if (!n || n <= (size_t)*limit)
		return;
	qsort(v, n, sizeof(*v), cmp_start);
	for (size_t i = 0; i < n - (size_t)*limit; i++)
		delete_job(s, v[i]);
}

/* What became of the jobs. */
static struct error *look_at_jobs(struct cron_sync *s)
{
	struct client *client = s->c->m->client;
	const char *how;

	for (size_t i = 0; i < s->n; i++) {
		const job_t *j = s->jobs[i];
		bool active = is_active(s->cj, j->metadata.uid), ended = finished(j, &how);

		if (!active && !ended) {
			void *fresh;

			TRY(client_get(client, s->a, &batch_v1_cronjobs_resource, s->cj->metadata.namespace, s->cj->metadata.name, &fresh));
			if (is_active(fresh, j->metadata.uid)) {
				s->cj = fresh; /* the informer lagged */
				continue;
			}
			EVENT(s, "Warning", "UnexpectedJob", "Saw a job that the controller did not create or forgot: %.*s",
			      STR_ARG(j->metadata.name));
		} else if (ended) {
			struct api_time *last = s->cj->status.last_successful_time, *done = j->status.completion_time;

			if (active) {
				drop_active(s, j->metadata.uid);
				s->changed = true;
				EVENT(s, "Normal", "SawCompletedJob", "Saw completed job: %.*s, condition: %s", STR_ARG(j->metadata.name), how);
			}
			if (!strcmp(how, "Complete") && done && (!last || time_cmp(*done, *last) > 0)) {
				s->cj->status.last_successful_time = done;
				s->changed = true;
			}
		}
	}
	for (uint32_t i = s->cj->status.active.n; i > 0; i--) {
		struct core_v1_object_reference *r = &s->cj->status.active.v[i - 1];
		bool there = false;
		void *obj;

		for (size_t k = 0; k < s->n; k++)
			there |= str_eq(s->jobs[k]->metadata.uid, r->uid);
		if (there)
			continue;
		struct error *e = client_get(client, s->a, &batch_v1_jobs_resource, r->namespace, r->name, &obj);

		if (!e)
			continue; /* the informer does not know it yet */
		if (!error_is(e, 404, NULL))
			return e;
		error_free(e);
		EVENT(s, "Normal", "MissingJob", "Active job went missing: %.*s", STR_ARG(r->name));
		drop_active(s, r->uid);
		s->changed = true;
	}
	return NULL;
}

/* ---- times ---- */

enum missed { MISSED_NONE, MISSED_FEW, MISSED_MANY };

/*
 * The last time that has passed since the last start (or the creation), 0 when there is none; *earliest is where the count begins.
 * How many were missed is guessed from the distance of the first two.
 */
static struct error *most_recent(const cron_job *cj, const struct cron *c, const struct time_zone *z, int64_t now_ms, bool deadline,
				 int64_t *earliest, int64_t *recent, enum missed *missed)
{
	int64_t now = now_ms / 1000, t1, t2;

	*recent = 0;
	*missed = MISSED_NONE;
	*earliest = cj->status.last_schedule_time ? cj->status.last_schedule_time->s : cj->metadata.creation_timestamp.s;
	if (deadline && cj->spec.starting_deadline_seconds && now - *cj->spec.starting_deadline_seconds > *earliest)
		*earliest = now - *cj->spec.starting_deadline_seconds;
	if (!cron_next(c, z, *earliest, &t1))
		return error_new("time difference between two schedules is less than 1 second");
	if (now < t1)
		return NULL;
	if (!cron_next(c, z, t1, &t2))
		return error_new("time difference between two schedules is less than 1 second");
	if (now < t2) {
		*recent = t1;
		return NULL;
	}
	int64_t step = t2 - t1, n = (now - t1) / step + 1, t;

	for (bool more = cron_next(c, z, t1 + (n - 2) * step, &t); more && t <= now; more = cron_next(c, z, t, &t))
		*recent = t;
	*missed = n > MANY_MISSED ? MISSED_MANY : MISSED_FEW;
	return NULL;
}

/* When the next time comes, from now in ms; -1 when there is none. */
static int64_t until_next(const cron_job *cj, const struct cron *c, const struct time_zone *z)
{
	int64_t now = wall_ms(), earliest, recent, next;
	enum missed missed;
	struct error *e = most_recent(cj, c, z, now, false, &earliest, &recent, &missed);

	if (e || (!recent && missed != MISSED_NONE))
		recent = now / 1000;
	else if (!recent)
		recent = earliest;
	error_free(e);
	if (!cron_next(c, z, recent, &next))
		return -1;
	int64_t ms = next * 1000 + PADDING_MS - now;

	return ms < 0 ? 0 : ms;
}

/* With an event where it is told, the schedule in its zone. */
static struct error *schedule_of(struct cronjob_controller *c, const cron_job *cj, struct cron *cron, const struct time_zone **z)
{
	TRY(cron_parse(cj->spec.schedule, cron));
	if (str_contains(cj->spec.schedule, STR("TZ")))
		return error_wrap(zone_of(c, cron->zone, z), "provided bad location %.*s", STR_ARG(cron->zone));
	return zone_of(c, cj->spec.time_zone ? *cj->spec.time_zone : STR("Local"), z);
}

static struct str in_zone(struct arena *a, const struct time_zone *z, bool named, int64_t t)
{
	int32_t offset = named ? time_zone_offset(z, t) : 0;
	struct str s = time_format(a, (struct api_time){.s = t + offset, .set = true}, false);

	if (!offset)
		return s;
	return arena_printf(a, "%.*s%c%02d:%02d", (int)s.n - 1, s.p, offset < 0 ? '-' : '+', abs(offset) / 3600, abs(offset) / 60 % 60);
}

/* RFC 1123 with a numeric zone, as the event has it. */
static struct str rfc1123(struct arena *a, int64_t t)
{
	static const char days[] = "SunMonTueWedThuFriSat", months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	struct civil v = civil_of(t);

	return arena_printf(a, "%.3s, %02d %.3s %lld %02d:%02d:%02d +0000", days + 3 * v.weekday, v.day, months + 3 * (v.month - 1),
			    (long long)v.year, v.hour, v.minute, v.second);
}

/* ---- starting ---- */

static struct error *replace_active(struct cron_sync *s)
{
	while (s->cj->status.active.n) {
		struct core_v1_object_reference *r = &s->cj->status.active.v[0];
		void *job;
		struct error *e = client_get(s->c->m->client, s->a, &batch_v1_jobs_resource, r->namespace, r->name, &job);

		if (e) {
			EVENT(s, "Warning", "FailedGet", "Get job: %s", error_message(e));
			return e;
		}
		struct str name = r->name, uid = r->uid;

		if (!delete_job(s, job))
			return error_new("could not replace job %.*s/%.*s", STR_ARG(s->cj->metadata.namespace), STR_ARG(name));
		drop_active(s, uid); /* also when another of that name was found */
	}
	return NULL;
}

static struct error *start(struct cron_sync *s, int64_t at, struct str name)
{
	cron_job *cj = s->cj;
	job_t *j = arena_new(s->a, job_t);
	const struct batch_v1_job_template_spec *t = object_clone(s->a, &batch_v1_job_template_spec_type, &cj->spec.job_template);
	const struct time_zone *z = NULL;
	void *out = NULL;

	TRY(zone_of(s->c, cj->spec.time_zone ? *cj->spec.time_zone : STR_NULL, &z));
	j->metadata.name = name;
	j->metadata.namespace = cj->metadata.namespace;
	*API_MAP(&j->metadata.labels) = *API_MAP(&t->metadata.labels);
	*API_MAP(&j->metadata.annotations) = *API_MAP(&t->metadata.annotations);
	str_map_set(s->a, API_MAP(&j->metadata.annotations), STR(SCHEDULED_AT), in_zone(s->a, z, cj->spec.time_zone != NULL, at));
	owner_add_controller_ref(s->a, &j->metadata, &(struct owner){&batch_v1_cronjobs_resource, &cj->metadata});
	j->spec = t->spec;
	struct error *e = client_create(s->c->m->client, s->a, &batch_v1_jobs_resource, cj->metadata.namespace, j, &out);

	if (namespace_terminating(e))
		return e;
	if (error_is(e, 409, "AlreadyExists")) {
		error_clear(&e);
		TRY(client_get(s->c->m->client, s->a, &batch_v1_jobs_resource, cj->metadata.namespace, name, &out));
		job_t *there = out;

		/* Ours, from before the status could be written; or somebody else's, who counts it. */
		if (!controlled_by(&there->metadata, cj->metadata.uid) || is_active(cj, there->metadata.uid))
			return NULL;
	} else if (e) {
		EVENT(s, "Warning", "FailedCreate", "Error creating job: %s", error_message(e));
		return e;
	} else {
		EVENT(s, "Normal", "SuccessfulCreate", "Created job %.*s", STR_ARG(((job_t *)out)->metadata.name));
	}
	*arena_push(s->a, &cj->status.active) = object_reference(&batch_v1_jobs_resource, out);
	cj->status.last_schedule_time = arena_new(s->a, struct api_time);
	*cj->status.last_schedule_time = (struct api_time){.s = at, .set = true};
	s->changed = true;
	return NULL;
}

static bool active_by_name(const cron_job *cj, struct str name)
{
	for (uint32_t i = 0; i < cj->status.active.n; i++)
		if (str_eq(cj->status.active.v[i].name, name))
			return true;
	return false;
}

static struct error *sync(struct cron_sync *s)
{
	const struct time_zone *z = NULL;
	struct cron cron;
	enum missed missed;
	int64_t now = wall_ms(), earliest, at;

	TRY(look_at_jobs(s));
	cron_job *cj = s->cj;

	if (cj->metadata.deletion_timestamp)
		return NULL;
	if (cj->spec.time_zone) {
		struct error *e = zone_of(s->c, *cj->spec.time_zone, &z);

		if (e) {
			EVENT(s, "Warning", "UnknownTimeZone", "invalid timeZone: \"%.*s\": %s", STR_ARG(*cj->spec.time_zone), error_message(e));
			error_free(e);
			return NULL;
		}
	}
	if (is_true(cj->spec.suspend))
		return NULL;
	if (str_contains(cj->spec.schedule, STR("TZ")))
		EVENT(s, "Warning", "UnsupportedSchedule", "CRON_TZ or TZ used in schedule \"%.*s\" is not officially supported, see "
		      "https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details", STR_ARG(cj->spec.schedule));
	struct error *e = schedule_of(s->c, cj, &cron, &z);

	if (e) {
		EVENT(s, "Warning", "UnparseableSchedule", "unparseable schedule: \"%.*s\" : %s", STR_ARG(cj->spec.schedule), error_message(e));
		error_free(e);
		return NULL; /* until it is changed */
	}
	e = most_recent(cj, &cron, z, now, true, &earliest, &at, &missed);
	if (e) {
		EVENT(s, "Warning", "InvalidSchedule", "invalid schedule: %.*s : %s", STR_ARG(cj->spec.schedule), error_message(e));
		error_free(e);
		return NULL;
	}
	s->again_ms = until_next(cj, &cron, z);
	if (!at)
		return NULL;
	if (missed == MISSED_MANY)
		EVENT(s, "Warning", "TooManyMissedTimes", "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew");
	if (cj->spec.starting_deadline_seconds && (at + *cj->spec.starting_deadline_seconds) * 1000 < now) {
		EVENT(s, "Warning", "MissSchedule", "Missed scheduled time to start a job: %.*s", STR_ARG(rfc1123(s->a, at)));
		return NULL;
	}
	struct str name = arena_printf(s->a, "%.*s-%lld", STR_ARG(cj->metadata.name), (long long)(at / 60));

	if (active_by_name(cj, name) || (cj->status.last_schedule_time && cj->status.last_schedule_time->s == at))
		return NULL;
	if (str_eqz(cj->spec.concurrency_policy, "Forbid") && cj->status.active.n) {
		EVENT(s, "Normal", "JobAlreadyActive", "Not starting job because prior execution is running and concurrency policy is Forbid");
		return NULL;
	}
	if (str_eqz(cj->spec.concurrency_policy, "Replace"))
		TRY(replace_active(s));
	TRY(start(s, at, name));
	s->again_ms = until_next(cj, &cron, z);
	return NULL;
}

static struct error *reconcile(void *ctx, struct arena *a, struct str ns, struct str name)
{
	struct cronjob_controller *c = ctx;
	struct cron_sync s = {.c = c, .a = a, .again_ms = -1};
	void **jobs;

	s.cj = informer_get(c->cronjobs, a, ns, name);
	if (!s.cj)
		return NULL;
	s.ref = object_reference(&batch_v1_cronjobs_resource, s.cj);
	s.n = informer_list_owned(c->jobs, a, s.cj->metadata.uid, &jobs);
	s.jobs = (job_t **)(void *)jobs;
	cut_history(&s, "Complete", s.cj->spec.successful_jobs_history_limit);
	cut_history(&s, "Failed", s.cj->spec.failed_jobs_history_limit);
	struct error *e = sync(&s);

	/* What was learnt is written also when something failed. */
	if (s.changed) {
		struct error *e2 = client_update(c->m->client, a, &batch_v1_cronjobs_resource, ns, "status", s.cj, NULL);

		if (error_is(e2, 404, NULL))
			error_clear(&e2);
		if (e)
			error_free(e2);
		else
			e = e2;
	}
	if (!e && s.again_ms >= 0)
		workqueue_add_after(c->q, object_key(a, ns, name), s.again_ms);
	if (namespace_terminating(e))
		error_clear(&e);
	return e;
}

/* ---- what happens ---- */

static void on_cronjob(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct cronjob_controller *c = ctx;
	arena_cleanup struct arena a = {0};

	if (!new_)
		return;
	struct str key = object_key(&a, new_->ns, new_->name);
	const cron_job *was = old ? cached_decode(c->cronjobs, &a, old) : NULL, *is = was ? cached_decode(c->cronjobs, &a, new_) : NULL;

	if (was && is && (!str_eq(was->spec.schedule, is->spec.schedule) || !was->spec.time_zone != !is->spec.time_zone ||
			  (was->spec.time_zone && !str_eq(*was->spec.time_zone, *is->spec.time_zone)))) {
		/* What the new schedule would have started before it was there is not started: it counts from its next time. */
		const struct time_zone *z;
		struct cron cron;
		struct error *e = schedule_of(c, is, &cron, &z);

		if (!e) {
			int64_t ms = until_next(is, &cron, z);

			if (ms >= 0)
				workqueue_add_after(c->q, key, ms);
			return;
		}
		error_free(e); /* the reconcile tells */
	}
	workqueue_add(c->q, key);
}

static void on_job(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct cronjob_controller *c = ctx;
	const struct cached_object *v[2] = {old, new_};

	for (int i = 0; i < 2; i++) {
		arena_cleanup struct arena a = {0};

		if (!v[i] || !str_eqz(v[i]->controller_kind, "CronJob") || (!i && new_ && str_eq(old->controller_uid, new_->controller_uid)))
			continue;
		const struct cached_object *cj = informer_peek(c->cronjobs, v[i]->ns, v[i]->controller_name);

		if (cj && str_eq(cj->uid, v[i]->controller_uid))
			workqueue_add(c->q, object_key(&a, cj->ns, cj->name));
	}
}

void cronjob_start(struct manager *m)
{
	struct cronjob_controller *c = xcalloc(1, sizeof(*c));

	c->m = m;
	c->q = workqueue_new("cronjob");
	c->rec = event_recorder_new(m->client, "cronjob-controller", "");
	c->cronjobs = manager_informer(m, &batch_v1_cronjobs_resource);
	c->jobs = manager_informer(m, &batch_v1_jobs_resource);
	informer_on_event(c->cronjobs, on_cronjob, c);
	informer_on_event(c->jobs, on_job, c);
	controller_run(m, c->q, "cronjob", 5, reconcile, c, c->cronjobs, c->jobs, NULL);
}

/* ---- TTL after finished (KEP-592) ---- */

struct ttl_controller {
	struct manager *m;
	struct informer *jobs;
	struct workqueue *q;
};

/* Milliseconds until the job may go; -1: it need not. */
static int64_t ttl_left(const job_t *j)
{
	const char *how;

	if (j->metadata.deletion_timestamp || !j->spec.ttl_seconds_after_finished || !finished(j, &how))
		return -1;
	for (uint32_t i = 0; i < j->status.conditions.n; i++) {
		const struct batch_v1_job_condition *c = &j->status.conditions.v[i];

		if (!str_eqz(c->type, how) || !str_eqz(c->status, "True") || !c->last_transition_time.set)
			continue;
		int64_t left = time_ms(c->last_transition_time) + *j->spec.ttl_seconds_after_finished * 1000LL - wall_ms();

		return left < 0 ? 0 : left;
	}
	return -1;
}

static struct error *expire(void *ctx, struct arena *a, struct str ns, struct str name)
{
	struct ttl_controller *c = ctx;
	const job_t *j = informer_get(c->jobs, a, ns, name);
	void *fresh;

	for (int looked = 0; j && looked < 2; looked++) {
		int64_t left = ttl_left(j);

		if (left)
			return left > 0 ? (workqueue_add_after(c->q, object_key(a, ns, name), left + 1), NULL) : NULL;
		if (looked)
			break;
		/* The last word is the server's: the TTL may have been raised a moment ago. */
		struct error *e = client_get(c->m->client, a, &batch_v1_jobs_resource, ns, name, &fresh);

		if (error_is(e, 404, NULL)) {
			error_free(e);
			return NULL;
		}
		TRY(e);
		j = fresh;
	}
	if (!j)
		return NULL;
	struct error *e = client_delete(c->m->client, a, &batch_v1_jobs_resource, ns, name,
					&(struct delete_opts){.grace_seconds = -1, .propagation = "Foreground", .uid = j->metadata.uid});

	if (error_is(e, 404, NULL) || error_is(e, 409, "Conflict"))
		error_clear(&e);
	return e;
}

static void on_ended_job(void *ctx, enum informer_event ev, const struct cached_object *old, const struct cached_object *new_)
{
	struct ttl_controller *c = ctx;
	arena_cleanup struct arena a = {0};
	job_t *j = new_ && !new_->deleting ? cached_decode(c->jobs, &a, new_) : NULL;

	if (j && ttl_left(j) >= 0)
		workqueue_add(c->q, object_key(&a, new_->ns, new_->name));
}

void ttl_after_finished_start(struct manager *m)
{
	struct ttl_controller *c = xcalloc(1, sizeof(*c));

	c->m = m;
	c->q = workqueue_new("ttl-after-finished");
	c->jobs = manager_informer(m, &batch_v1_jobs_resource);
	informer_on_event(c->jobs, on_ended_job, c);
	controller_run(m, c->q, "ttl-after-finished", 5, expire, c, c->jobs, NULL);
}
