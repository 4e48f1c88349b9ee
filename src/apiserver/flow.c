/* Requests: their flow schema, their seats, and what is told of both. */
#include "apiserver/flow_internal.h"

#include <errno.h>
#include <math.h>
#include <xxhash.h>

#include "apiserver/flow_work.h"

#define WAIT_DIVISOR 4          /* of the request's time, so much may be spent waiting (upstream), */
#define WAIT_MAX_MS 60000       /* and no more */

static bool reads(const struct request *rq)
{
	return str_eqz(rq->info.verb, "get") || str_eqz(rq->info.verb, "list") || str_eqz(rq->info.verb, "watch");
}

/* Of reads and of writes, whatever their levels: waiting, executing. */
static struct metric_level read_write[2][2];
static double read_write_limits[2] = {1, 1}; /* all places in queues, all seats */

static struct metric_level *of_kind(const struct request *rq, bool executing)
{
	bool read = reads(rq);
	struct metric_level *l = &read_write[executing][read];

	if (!l->m) {
		l->m = metric_series(METRIC_FLOW_READ_WRITE, executing ? read ? "phase=\"executing\",request_kind=\"readOnly\""
								      : "phase=\"executing\",request_kind=\"mutating\""
						     : read ? "phase=\"waiting\",request_kind=\"readOnly\""
							    : "phase=\"waiting\",request_kind=\"mutating\"");
		l->limit = read_write_limits[executing];
	}
	return l;
}

void flow_limit_read_write(double waiting, double executing)
{
	int64_t now = now_ns();

	read_write_limits[0] = fmax(1, waiting);
	read_write_limits[1] = fmax(1, executing);
	for (int i = 0; i < 4; i++) {
		struct metric_level *l = &read_write[i / 2][i % 2];

		if (!l->m)
			continue;
		metric_level_add(l, 0, now);
		l->limit = read_write_limits[i / 2];
	}
}

static bool has(const struct str *v, uint32_t n, struct str want)
{
	for (uint32_t i = 0; i < n; i++)
		if (str_eqz(v[i], "*") || str_eq(v[i], want))
			return true;
	return false;
}

static bool subject_is(const struct flowcontrol_v1_subject *s, const struct user *u)
{
	if (s->user)
		return str_eqz(s->user->name, "*") || str_eq(s->user->name, u->name);
	if (s->group) {
		if (str_eqz(s->group->name, "*"))
			return true;
		for (size_t i = 0; i < u->n_groups; i++)
			if (str_eq(s->group->name, u->groups[i]))
				return true;
		return false;
	}
	if (s->service_account) {
		struct str rest = u->name;

		if (!str_has_prefix(rest, STR("system:serviceaccount:")))
			return false;
		rest = str_sub(rest, sizeof "system:serviceaccount:" - 1, rest.n);
		return str_eq(str_cut(&rest, ':'), s->service_account->namespace) &&
		       (str_eqz(s->service_account->name, "*") || str_eq(rest, s->service_account->name));
	}
	return false;
}

static bool rules_hold(const struct flowcontrol_v1_policy_rules_with_subjects *r, const struct request *rq)
{
	const struct request_info *i = &rq->info;
	bool who = false;

	for (uint32_t k = 0; k < r->subjects.n && !who; k++)
		who = subject_is(&r->subjects.v[k], rq->user);
	if (!who)
		return false;
	if (!i->resource_request) {
		for (uint32_t k = 0; k < r->non_resource_rules.n; k++) {
			const struct flowcontrol_v1_non_resource_policy_rule *n = &r->non_resource_rules.v[k];

			if (!has(n->verbs.v, n->verbs.n, i->verb))
				continue;
			for (uint32_t j = 0; j < n->non_resource_urls.n; j++) {
				struct str u = n->non_resource_urls.v[j];

				if (str_eqz(u, "*") || str_eq(u, i->path) ||
				    (u.n && u.p[u.n - 1] == '*' && str_has_prefix(i->path, str_sub(u, 0, u.n - 1))))
					return true;
			}
		}
		return false;
	}
	for (uint32_t k = 0; k < r->resource_rules.n; k++) {
		const struct flowcontrol_v1_resource_policy_rule *p = &r->resource_rules.v[k];
		char res[300];

		if (i->ns.n ? !has(p->namespaces.v, p->namespaces.n, i->ns) : !p->cluster_scope)
			continue;
		if (!has(p->verbs.v, p->verbs.n, i->verb) || !has(p->api_groups.v, p->api_groups.n, i->group))
			continue;
		snprintf(res, sizeof res, i->subresource.n ? "%.*s/%.*s" : "%.*s%.*s", STR_ARG(i->resource), STR_ARG(i->subresource));
		if (has(p->resources.v, p->resources.n, str_from(res)))
			return true;
	}
	return false;
}

/* Users in no group, whom not even catch-all's rules name, are its all the same. */
static const struct schema *classify(const struct request *rq)
{
	const struct schema *rest = NULL;

	for (size_t k = 0; k < flow->n; k++) {
		if (str_eqz(flow->v[k].obj->metadata.name, "catch-all"))
			rest = &flow->v[k];
		for (uint32_t r = 0; r < flow->v[k].obj->spec.rules.n; r++)
			if (rules_hold(&flow->v[k].obj->spec.rules.v[r], rq))
				return &flow->v[k];
	}
	return rest;
}

/* Which of a schema's flows it is of: as that says, its user or its namespace. */
static struct str distinguisher(const struct schema *sc, const struct request *rq)
{
	const struct flowcontrol_v1_flow_distinguisher_method *d = sc->obj->spec.distinguisher_method;

	if (!d || sc->level->fair.exempt || sc->level->fair.reject || sc->level->fair.queues <= 1)
		return STR(""); /* there is nothing to choose by it */
	return str_eqz(d->type, "ByUser") ? rq->user->name : rq->info.ns;
}

static uint64_t flow_of(const struct schema *sc, struct str who)
{
	return XXH3_64bits_withSeed(who.p, who.n, XXH3_64bits(sc->obj->metadata.name.p, sc->obj->metadata.name.n));
}

/* ---- seats ---- */

static void arrive(struct flow_seat *seat, int64_t now)
{
	struct flow_level *l = seat->series->level;

	seat->arrived_ns = wall_ns();
	metric_level_add(&l->use.demand, fair_seats(&seat->fair), now);
	seat_demand_add(&l->demand, fair_seats(&seat->fair), now);
	seat->prev = flow->last;
	*(flow->last ? &flow->last->next : &flow->first) = seat;
	flow->last = seat;
}

/* It neither waits nor runs any more. */
static void leave(struct flow_seat *seat)
{
	*(seat->prev ? &seat->prev->next : &flow->first) = seat->next;
	*(seat->next ? &seat->next->prev : &flow->last) = seat->prev;
}

static void want_no_more(struct flow_series *f, const struct fair_request *r, int64_t now)
{
	metric_level_add(&f->level->use.demand, -fair_seats(r), now);
	seat_demand_add(&f->level->demand, -fair_seats(r), now);
	if (!flow_live(f->level)) { /* its shares are the others' now */
		flow->changed = true;
		waitq_wake_all(&flow->wake);
	}
}

static void begin(struct flow_seat *seat, int64_t now)
{
	struct flow_series *f = seat->series;

	seat->started_ns = wall_ns();
	seat->waiting = false;
	metric_level_add(&f->level->use.executing, 1, now);
	metric_level_add(&f->level->use.seats, fair_seats(&seat->fair), now);
	metric_level_add(of_kind(seat->rq, true), 1, now);
	watermark_add(seat->running, 1);
	f->level->dispatched++;
	metric_add(f->dispatched, 1);
	metric_add(f->executing, 1);
	metric_add(f->seats, fair_seats(&seat->fair));
}

static void give_back(struct flow_series *f, const struct fair_request *r)
{
	int64_t now = now_ns();

	metric_level_add(&f->level->use.seats, -fair_seats(r), now);
	metric_add(f->seats, -fair_seats(r));
	fair_leave(&f->level->fair, r);
	want_no_more(f, r, now);
}

/* Seats of what has been answered, but is still at work on the watches that are told of it. */
struct lingering {
	struct lingering *next, *prev;
	int64_t until_ns;
	struct flow_series *series;
	struct fair_request fair;
};

static void linger(struct flow_series *f, const struct fair_request *r)
{
	struct lingering *n = xcalloc(1, sizeof *n), *before = flow->lingers_last;

	*n = (struct lingering){.until_ns = now_ns() + r->linger_ns, .series = f, .fair = *r};
	while (before && before->until_ns > n->until_ns) /* mostly none: what begins later ends later */
		before = before->prev;
	n->prev = before;
	n->next = before ? before->next : flow->lingers;
	*(before ? &before->next : &flow->lingers) = n;
	*(n->next ? &n->next->prev : &flow->lingers_last) = n;
	if (!before)
		waitq_wake_all(&flow->linger);
}

void flow_end_lingering(void *arg)
{
	struct error *e = NULL;

	(void)arg;
	while (!error_is_sys(e, ECANCELED)) {
		struct lingering *n = flow->lingers;
		int64_t left = n ? n->until_ns - now_ns() : 0;

		error_clear(&e);
		if (!n || left > 0) {
			e = n ? waitq_wait_ms(&flow->linger, (left + 999999) / 1000000) : waitq_wait(&flow->linger);
			continue;
		}
		flow->lingers = n->next;
		*(n->next ? &n->next->prev : &flow->lingers_last) = NULL;
		give_back(n->series, &n->fair);
		free(n);
	}
	error_free(e);
}

static void give_seat_back(struct flow_seat *seat)
{
	struct flow_series *f = seat->series;
	int64_t now = now_ns();

	if (seat->inflight)
		--*seat->inflight;
	if (seat->running)
		watermark_add(seat->running, -1);
	if (f) {
		leave(seat);
		fair_done(&f->level->fair, &seat->fair);
		metric_level_add(&f->level->use.executing, -1, now);
		metric_level_add(of_kind(seat->rq, true), -1, now);
		metric_add(f->executing, -1);
		metric_observe(f->execution[str_eqz(seat->rq->info.verb, "watch")], (double)(wall_ns() - seat->started_ns) / 1e9);
		if (seat->fair.linger_ns > 0)
			linger(f, &seat->fair);
		else
			give_back(f, &seat->fair);
	}
	*seat = (struct flow_seat){0};
}

/* What it has to have by its demand: upstream's lower bound and target of its current limit. */
static struct seat_claim claim_of(const struct flow_level *l)
{
	const struct fair *f = &l->fair;
	struct seat_claim c = {.low = fmax(f->reserved, fmin(f->nominal, l->demand.high)),
			       .high = f->nominal + (f->borrow_max < 0 ? flow->limit : f->borrow_max)};

	c.target = fmax(c.low, l->demand.smoothed);
	return c;
}

static void collect_demand(struct flow_level *l, const char *labels)
{
	const struct fair_dispatch *d = &l->fair.last;
	char bound[330];

	metrics_set(METRIC_FLOW_DEMAND_AVERAGE, labels, l->demand.average);
	metrics_set(METRIC_FLOW_DEMAND_HIGH, labels, l->demand.high);
	metrics_set(METRIC_FLOW_DEMAND_STDEV, labels, l->demand.deviation);
	metrics_set(METRIC_FLOW_DEMAND_SMOOTHED, labels, l->demand.smoothed);
	metrics_set(METRIC_FLOW_TARGET, labels, claim_of(l).target);
	metrics_set(METRIC_FLOW_LIMIT, labels, l->fair.exempt ? flow_exempt_limit(l) : fair_limit(&l->fair));
	fair_sync(&l->fair);
	metrics_set(METRIC_FLOW_CURRENT_R, labels, l->fair.now);
	if (!d->any)
		return;
	metrics_set(METRIC_FLOW_DISPATCH_R, labels, d->now);
	metrics_set(METRIC_FLOW_LATEST_S, labels, d->due);
	snprintf(bound, sizeof bound, "bound=\"min\",%s", labels);
	metrics_set(METRIC_FLOW_NEXT_S, bound, d->least);
	metrics_set(METRIC_FLOW_NEXT_DISCOUNTED_S, bound, d->discounted_least);
	snprintf(bound, sizeof bound, "bound=\"max\",%s", labels);
	metrics_set(METRIC_FLOW_NEXT_S, bound, d->greatest);
	metrics_set(METRIC_FLOW_NEXT_DISCOUNTED_S, bound, d->discounted_greatest);
}

void flow_collect(void)
{
	int64_t now = now_ns();
	static const enum metric_id ids[] = {METRIC_FLOW_NOMINAL, METRIC_FLOW_LOWER, METRIC_FLOW_UPPER};
	static const enum metric_id wants[] = {METRIC_FLOW_DEMAND_AVERAGE, METRIC_FLOW_DEMAND_HIGH, METRIC_FLOW_DEMAND_STDEV,
					       METRIC_FLOW_DEMAND_SMOOTHED, METRIC_FLOW_TARGET, METRIC_FLOW_LIMIT, METRIC_FLOW_CURRENT_R,
					       METRIC_FLOW_DISPATCH_R, METRIC_FLOW_LATEST_S, METRIC_FLOW_NEXT_S,
					       METRIC_FLOW_NEXT_DISCOUNTED_S};
	LIST(struct seat_claim) claims = {0};
	struct arena a arena_cleanup = {0};
	double left, kept = 0;
	size_t it = 0;
	struct str key;
	void *v;

	if (!flow)
		return;
	left = flow->group.total;
	for (size_t i = 0; i < sizeof wants / sizeof *wants; i++)
		metrics_forget(wants[i]);

	for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
		metrics_forget(ids[i]);
	for (int i = 0; i < 4; i++)
		if (read_write[i / 2][i % 2].m)
			metric_level_add(&read_write[i / 2][i % 2], 0, now);
	while (map_next(&flow->levels, &it, &key, &v)) {
		struct flow_level *l = v;
		const struct fair *f = &l->fair;
		int seats[] = {f->nominal, f->reserved, f->nominal + (f->borrow_max < 0 ? flow->limit : f->borrow_max)};
		char labels[300];

		flow_limit_use(l);
		seat_demand_add(&l->demand, 0, now);
		if (!flow_live(l))
			continue;
		snprintf(labels, sizeof labels, "priority_level=\"%s\"", l->name);
		for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
			metrics_set(ids[i], labels, seats[i]);
		collect_demand(l, labels);
		if (l->fair.exempt) {
			left -= flow_exempt_limit(l);
		} else {
			*arena_push(&a, &claims) = claim_of(l);
			kept += claim_of(l).low;
		}
	}
	metrics_set(METRIC_FLOW_FAIR_FRACTION, "", left > kept ? seat_fair_fraction(claims.v, claims.n, flow->group.total) : 0);
}

/* Upstream's answer, whatever format was asked for. */
static struct error *refuse(struct request *rq, int after, bool *refused)
{
	*refused = true;
	metrics_dropped(rq);
	http_set_header(rq->x, "retry-after", arena_printf(rq->a, "%d", after));
	return respond_text(rq, 429, STR("Too many requests, please try again later."));
}

static struct watermark *running(const struct request *rq)
{
	return reads(rq) ? &rq->s->inflight : &rq->s->inflight_mutating;
}

static void wait_in_line(struct request *rq, const struct flow_seat *seat, int n, int64_t now)
{
	struct flow_series *f = seat->series;

	metric_add(f->waiting, n);
	metric_add(f->waiting_seats, n * fair_seats(&seat->fair));
	metric_level_add(&f->level->use.waiting, n, now);
	metric_level_add(of_kind(rq, false), n, now);
	watermark_add(reads(rq) ? &rq->s->inqueue : &rq->s->inqueue_mutating, n);
}

/* How long it may wait: counted from when it came. */
static int64_t patience(const struct request *rq, int64_t timeout_ms)
{
	int64_t ms = timeout_ms / WAIT_DIVISOR;

	return (ms < WAIT_MAX_MS ? ms : WAIT_MAX_MS) - (now_ns() - rq->start_ns) / 1000000;
}

static void estimate(struct flow_seat *seat)
{
	struct flow_level *l = seat->series->level;
	int64_t watches;

	request_seats(seat->rq, l->most, &seat->fair, &watches);
	if (watches >= 0)
		metric_observe(seat->series->watchers, (double)watches);
	metric_observe(seat->series->estimated, fair_seats(&seat->fair));
	fair_fit(&l->fair, &seat->fair);
}

static struct error *take_seat(struct request *rq, const struct schema *sc, struct flow_seat *seat, int64_t timeout_ms, bool *refused)
{
	static const char *const reasons[] = {NULL, "concurrency-limit", "queue-full", "time-out"};
	enum fair_answer answer;
	struct flow_series *f = sc->series;
	struct flow_level *l = sc->level;
	int64_t since = now_ns(), now = since;
	struct error *e;

	*seat = (struct flow_seat){.series = f, .running = running(rq), .rq = rq, .distinguisher = distinguisher(sc, rq), .waiting = true};
	estimate(seat);
	arrive(seat, now);
	if (l->fair.exempt) {
		TRY(fair_enter(&l->fair, 0, &seat->fair, 0, &answer));
		begin(seat, now);
		return NULL;
	}
	wait_in_line(rq, seat, 1, now);
	e = fair_enter(&l->fair, flow_of(sc, seat->distinguisher), &seat->fair, patience(rq, timeout_ms), &answer);
	now = now_ns();
	if (seat->fair.queue >= 0)
		metric_observe(f->queue_length, seat->fair.length);
	if (seat->fair.no_room)
		metric_add(f->no_room, seat->fair.no_room);
	wait_in_line(rq, seat, -1, now);
	rq->waited_ns += now - since;
	rq->spent_ns.queue += now - since;
	if (e)
		answer = FAIR_TIME_OUT; /* who has gone has run out of time, too */
	metric_observe(f->waited[answer == FAIR_SEATED], (double)(now - since) / 1e9);
	if (answer == FAIR_SEATED) {
		begin(seat, now);
		return NULL;
	}
	leave(seat);
	want_no_more(f, &seat->fair, now);
	*seat = (struct flow_seat){0};
	l->rejected++;
	l->cancelled += answer == FAIR_TIME_OUT;
	metrics_count(METRIC_FLOW_REJECTED,
		      arena_printf(rq->a, "flow_schema=\"%s\",priority_level=\"%s\",reason=\"%s\"", f->schema, l->name, reasons[answer]).p,
		      1); /* sc may be another's by now */
	return e ? e : refuse(rq, fair_retry_after(&l->retry, now / 1000000000), refused);
}

/* Upstream's handler of old. */
static struct error *count_inflight(struct request *rq, struct flow_seat *seat, bool *refused)
{
	static int counts[2];
	bool read = reads(rq);
	int max = read ? rq->s->o.max_requests_inflight : rq->s->o.max_mutating_inflight, *n = &counts[read];

	if (rq->long_running || !max)
		return NULL;
	if (*n >= max)
		return user_in_group(rq->user, "system:masters") ? NULL : refuse(rq, 1, refused);
	++*n;
	seat->inflight = n;
	seat->running = running(rq);
	watermark_add(seat->running, 1);
	return NULL;
}

struct error *flow_begin(struct request *rq, struct flow_seat *seat, int64_t timeout_ms, bool *refused)
{
	const struct schema *sc;
	bool watch = str_eqz(rq->info.verb, "watch");

	rq->seat = seat;
	if (!rq->s->o.priority_and_fairness)
		return count_inflight(rq, seat, refused);
	if (rq->long_running && !watch)
		return NULL; /* nothing to do with it, and its answer does not say so either */
	sc = classify(rq);
	if (!sc)
		return NULL;
	http_set_header(rq->x, "x-kubernetes-pf-flowschema-uid", sc->obj->metadata.uid);
	http_set_header(rq->x, "x-kubernetes-pf-prioritylevel-uid", str_from(sc->level->uid));
	TRY(take_seat(rq, sc, seat, timeout_ms, refused));
	if (watch && !*refused) {
		watches_count(rq, 1);
		rq->watching = true;
	}
	return NULL;
}

void flow_begun(struct request *rq)
{
	if (rq->seat && rq->long_running)
		give_seat_back(rq->seat);
}

void flow_end(struct request *rq)
{
	if (rq->watching)
		watches_count(rq, -1);
	rq->watching = false;
	if (rq->seat)
		give_seat_back(rq->seat);
}

/* ---- for who looks ---- */

static int level_cmp(const void *a, const void *b)
{
	return strcmp((*(const struct flow_level *const *)a)->name, (*(const struct flow_level *const *)b)->name);
}

size_t flow_levels(struct arena *a, const struct flow_level ***out)
{
	size_t it = 0, n = 0;
	struct str key;
	void *v;

	*out = arena_array(a, const struct flow_level *, flow->levels.n);
	while (map_next(&flow->levels, &it, &key, &v))
		if (flow_live(v))
			(*out)[n++] = v;
	if (n)
		qsort(*out, n, sizeof **out, level_cmp);
	return n;
}
