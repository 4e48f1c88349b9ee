/* Flow schemas by precedence, priority levels by name, as the caches have them. */
#include <math.h>
#include <xxhash.h>

#include "apiserver/background.h"
#include "apiserver/bootstrap.h"
#include "apiserver/flow.h"
#include "apiserver/metrics.h"

#define LIST_SEAT_OBJECTS 100   /* upstream's list work estimator: objects a seat, and no more seats than */
#define LIST_SEATS_MAX 10
#define MANAGER "api-priority-and-fairness-config-consumer-v1"
#define WAIT_DIVISOR 4          /* of the request's time, so much may be spent waiting (upstream) */
#define JUDGED_MAX 6            /* upstream: a schema's condition is written so often */
#define JUDGED_MS 60000         /* in this time, and no more; then it waits */
#define JUDGED_WAIT_MS 30000    /* so long, and up to */
#define JUDGED_WAIT_MORE_S 45   /* so many seconds more */
#define RETRY_MS 200            /* after an error, doubled up to */
#define RETRY_MAX_MS 60000

/* Of a schema and a level, for /metrics; never freed, as series are not. */
struct flow_series {
	char *schema;
	struct flow_level *level;
	struct metric *execution, *estimated, *queue_length, *watchers;
	struct metric *executing, *seats, *waiting, *waiting_seats, *dispatched, *no_room, *waited[2];
};
struct schema {
	struct flowcontrol_v1_flow_schema *obj;
	struct flow_level *level;
	struct flow_series *series;
};
struct flow {
	struct storage *schemas_st, *levels_st;
	struct arena arena;
	struct schema *v;
	size_t n;
	struct map levels;
	struct map series; /* labels -> struct flow_series */
	struct fair_group group;
	int limit; /* seats of the server */
	struct flow_seat *first, *last; /* all that wait or run */
	struct waitq wake;
	bool changed;      /* a schema or a level, since all were taken up */
	struct map judged; /* schema -> struct judged */
};
static struct flow *flow;

static int schema_cmp(const void *x, const void *y)
{
	const struct flowcontrol_v1_flow_schema *a = ((const struct schema *)x)->obj, *b = ((const struct schema *)y)->obj;

	if (a->spec.matching_precedence != b->spec.matching_precedence)
		return a->spec.matching_precedence < b->spec.matching_precedence ? -1 : 1;
	return str_cmp(a->metadata.name, b->metadata.name);
}

static void set_queues(struct fair *f, const struct flowcontrol_v1_limited_priority_level_configuration *l)
{
	const struct flowcontrol_v1_queuing_configuration *q = l ? l->limit_response.queuing : NULL;

	f->reject = !l || !str_eqz(l->limit_response.type, "Queue");
	f->queues = q ? q->queues : 0;
	f->hand = q ? q->hand_size : 0;
	f->length = q ? q->queue_length_limit : 0;
}

/* Rounded as upstream does: the nearest, halves up. */
static int percent_of(int seats, int32_t percent)
{
	return (int)(((int64_t)seats * percent + 50) / 100);
}

static struct flow_series *series_of(struct apiserver *s, struct str schema, struct flow_level *level)
{
	struct buf b buf_cleanup = {0}, wait buf_cleanup = {0};
	struct flow_series *f;

	buf_printf(&b, "flow_schema=\"%.*s\",priority_level=\"%s\"", STR_ARG(schema), level->name);
	f = map_get(&flow->series, buf_view(&b));
	if (f)
		return f;
	f = xcalloc(1, sizeof *f);
	f->schema = str_dupz(schema);
	f->level = level;
	map_set(&flow->series, buf_view(&b), f);
	f->executing = metric_series(METRIC_FLOW_EXECUTING, buf_z(&b));
	f->seats = metric_series(METRIC_FLOW_SEATS, buf_z(&b));
	f->waiting = metric_series(METRIC_FLOW_INQUEUE, buf_z(&b));
	f->waiting_seats = metric_series(METRIC_FLOW_INQUEUE_SEATS, buf_z(&b));
	f->dispatched = metric_series(METRIC_FLOW_DISPATCHED, buf_z(&b));
	f->estimated = metric_series(METRIC_FLOW_ESTIMATED, buf_z(&b));
	f->queue_length = metric_series(METRIC_FLOW_QUEUE_LENGTH, buf_z(&b));
	f->watchers = metric_series(METRIC_FLOW_WATCHERS, buf_z(&b));
	f->no_room = metric_series(METRIC_FLOW_NO_ROOM, buf_z(&b));
	buf_printf(&wait, "%s,type=\"regular\"", buf_z(&b));
	f->execution = metric_series(METRIC_FLOW_EXECUTION, buf_z(&wait));
	for (int i = 0; i < 2; i++) {
		wait.n = 0;
		buf_printf(&wait, "execute=\"%s\",%s", i ? "true" : "false", buf_z(&b));
		f->waited[i] = metric_series(METRIC_FLOW_WAIT, buf_z(&wait));
	}
	return f;
}

static struct metric *level_series(const struct flow_level *l, enum metric_id id, const char *phase)
{
	struct buf b buf_cleanup = {0};

	buf_printf(&b, "%spriority_level=\"%s\"", phase, l->name);
	return metric_series(id, buf_z(&b));
}

static void follow_use(struct flow_level *l)
{
	l->use.seats.m = level_series(l, METRIC_FLOW_SEAT_USE, "phase=\"executing\",");
	l->use.executing.m = level_series(l, METRIC_FLOW_REQUEST_USE, "phase=\"executing\",");
	l->use.waiting.m = level_series(l, METRIC_FLOW_REQUEST_USE, "phase=\"waiting\",");
	l->use.demand.m = level_series(l, METRIC_FLOW_DEMAND, "");
}

/* What is used is told as a part of what there is; with nothing, of one. */
static void limit_use(struct flow_level *l)
{
	double seats = l->fair.nominal > 0 ? l->fair.nominal : 1, places = (double)l->fair.queues * l->fair.length;
	struct metric_level *all[] = {&l->use.seats, &l->use.executing, &l->use.waiting, &l->use.demand};
	int64_t now = now_ns();

	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		metric_level_add(all[i], 0, now); /* so far by the old one */
		all[i]->limit = all[i] != &l->use.waiting ? seats : places > 0 ? places : 1;
	}
}

/* Of reads and of writes, whatever their levels: waiting, executing. */
static struct metric_level read_write[2][2];

static struct metric_level *of_kind(const struct request *rq, bool executing)
{
	bool reads = str_eqz(rq->x->method, "GET") || str_eqz(rq->x->method, "HEAD");
	struct metric_level *l = &read_write[executing][reads];

	if (!l->m) {
		l->m = metric_series(METRIC_FLOW_READ_WRITE, executing ? reads ? "phase=\"executing\",request_kind=\"readOnly\""
								       : "phase=\"executing\",request_kind=\"mutating\""
						     : reads ? "phase=\"waiting\",request_kind=\"readOnly\""
							     : "phase=\"waiting\",request_kind=\"mutating\"");
		l->limit = !executing ? 1 : reads ? rq->s->o.max_requests_inflight : rq->s->o.max_mutating_inflight;
		if (l->limit <= 0)
			l->limit = 1;
	}
	return l;
}

static void rebuild(struct apiserver *s)
{
	struct cache_snap *snap;
	struct cache_iter it;
	const struct cache_entry *e;
	struct str key;
	void *v;
	size_t i = 0;
	int64_t total = 0, limit = s->o.max_requests_inflight + s->o.max_mutating_inflight;
	LIST(struct schema) list = {0};
	struct error *err;

	flow->limit = (int)limit;
	flow->group.total = 0;
	arena_free(&flow->arena);
	flow->v = NULL;
	flow->n = 0;
	while (map_next(&flow->levels, &i, &key, &v))
		((struct flow_level *)v)->seen = false;
	err = cache_snapshot(flow->levels_st->cache, CACHE_ANY, 0, &snap);
	if (err) {
		log_and_free(err, "priority levels");
		return;
	}
	cache_iter_init(&it, flow->levels_st->cache, snap, STR_NULL, STR_NULL, NULL);
	while ((e = cache_iter_next(&it)) != NULL) {
		struct flowcontrol_v1_priority_level_configuration *p =
			arena_new(&flow->arena, struct flowcontrol_v1_priority_level_configuration);
		struct flow_level *l = map_get(&flow->levels, cache_entry_name(e));

		err = cache_entry_decode(&flow->arena, &flowcontrol_v1_priority_level_configuration_type, e, true, p);
		if (err) {
			log_and_free(err, "priority level");
			continue;
		}
		if (!l) {
			l = xcalloc(1, sizeof *l);
			l->name = str_dupz(p->metadata.name);
			follow_use(l);
			fair_add(&flow->group, &l->fair);
			map_set(&flow->levels, p->metadata.name, l);
		}
		free(l->uid);
		l->uid = str_dupz(p->metadata.uid);
		l->seen = true;
		l->exempt = str_eqz(p->spec.type, "Exempt");
		l->shares = p->spec.limited && p->spec.limited->nominal_concurrency_shares ? *p->spec.limited->nominal_concurrency_shares : 0;
		l->lendable = p->spec.limited && p->spec.limited->lendable_percent ? *p->spec.limited->lendable_percent : 0;
		l->borrowing = p->spec.limited && p->spec.limited->borrowing_limit_percent ? *p->spec.limited->borrowing_limit_percent : -1;
		set_queues(&l->fair, p->spec.limited);
		total += l->exempt ? 0 : l->shares;
	}
	cache_snap_free(snap);
	i = 0;
	while (map_next(&flow->levels, &i, &key, &v)) {
		struct flow_level *l = v;

		/* as upstream's nominal limit, rounded up */
		l->fair.nominal = total && l->seen ? (int)((limit * l->shares + total - 1) / total) : 0;
		flow->group.total += l->fair.nominal; /* rounding up gives some more than there are, in upstream too */
		l->fair.reserved = l->fair.nominal - percent_of(l->fair.nominal, l->lendable);
		l->fair.borrow_max = l->borrowing < 0 ? -1 : percent_of(l->fair.nominal, l->borrowing);
		limit_use(l);
	}
	err = cache_snapshot(flow->schemas_st->cache, CACHE_ANY, 0, &snap);
	if (err) {
		log_and_free(err, "flow schemas");
		return;
	}
	cache_iter_init(&it, flow->schemas_st->cache, snap, STR_NULL, STR_NULL, NULL);
	while ((e = cache_iter_next(&it)) != NULL) {
		struct flowcontrol_v1_flow_schema *f = arena_new(&flow->arena, struct flowcontrol_v1_flow_schema);
		struct flow_level *l;
		struct schema *sc;

		err = cache_entry_decode(&flow->arena, &flowcontrol_v1_flow_schema_type, e, true, f);
		if (err) {
			log_and_free(err, "flow schema");
			continue;
		}
		l = map_get(&flow->levels, f->spec.priority_level_configuration.name);
		if (!l || !l->seen)
			continue;
		sc = arena_push(&flow->arena, &list);
		sc->obj = f;
		sc->level = l;
		sc->series = series_of(s, f->metadata.name, l);
	}
	cache_snap_free(snap);
	if (list.n)
		qsort(list.v, list.n, sizeof *list.v, schema_cmp);
	flow->v = list.v;
	flow->n = list.n;
}

/* ---- the condition Dangling of FlowSchemas ---- */

static bool level_exists(struct str name)
{
	const struct flow_level *l = map_get(&flow->levels, name);

	return l && l->seen;
}

static struct flowcontrol_v1_flow_schema_condition *dangling(struct flowcontrol_v1_flow_schema *f)
{
	for (uint32_t i = 0; i < f->status.conditions.n; i++)
		if (str_eqz(f->status.conditions.v[i].type, "Dangling"))
			return &f->status.conditions.v[i];
	return NULL;
}

/* When the condition of a schema was written, in a ring: servers that are not of one mind would write it again and again. */
struct judged {
	int64_t at[JUDGED_MAX];
	unsigned next;
};

static bool judged_enough(struct str name)
{
	const struct judged *j = map_get(&flow->judged, name);

	return j && j->at[j->next] && j->at[j->next] > now_ms() - JUDGED_MS;
}

static void note_judged(struct str name)
{
	struct judged *j = map_get(&flow->judged, name);

	if (!j)
		map_set(&flow->judged, name, j = xcalloc(1, sizeof *j));
	j->at[j->next] = now_ms();
	j->next = (j->next + 1) % JUDGED_MAX;
}

static void forget_judged(void)
{
	struct str key;
	void *v;
	size_t i = 0;

	while (map_next(&flow->judged, &i, &key, &v)) {
		const struct judged *j = v;

		if (j->at[(j->next + JUDGED_MAX - 1) % JUDGED_MAX] <= now_ms() - JUDGED_MS)
			free(map_del(&flow->judged, key));
	}
}

/* What the condition of f should be; false: it is. */
static bool judgement(struct arena *a, struct flowcontrol_v1_flow_schema *f, struct applied_condition *want)
{
	bool there = level_exists(f->spec.priority_level_configuration.name);
	const struct flowcontrol_v1_flow_schema_condition *c = dangling(f);

	*want = (struct applied_condition){
		.type = STR("Dangling"),
		.status = there ? STR("False") : STR("True"),
		.reason = there ? STR("Found") : STR("NotFound"),
		.message = arena_printf(a, "This FlowSchema references the PriorityLevelConfiguration object named \"%.*s\" %s",
					STR_ARG(f->spec.priority_level_configuration.name), there ? "and it exists" : "but there is no such object"),
	};
	return !c || !str_eq(c->status, want->status) || !str_eq(c->reason, want->reason) || !str_eq(c->message, want->message);
}

/* Writes the conditions that are not right; *delay: when to look again at those that have been written too often, or 0. */
static struct error *judge(struct apiserver *s, int64_t *delay)
{
	struct arena a arena_cleanup = {0};
	struct cache_snap *snap;
	struct cache_iter it;
	const struct cache_entry *e;
	struct wrong {
		struct str name;
		struct applied_condition want;
	};
	LIST(struct wrong) wrong = {0};
	struct error *first = NULL;

	*delay = 0;
	forget_judged();
	TRY(cache_snapshot(flow->schemas_st->cache, CACHE_ANY, 0, &snap));
	cache_iter_init(&it, flow->schemas_st->cache, snap, STR_NULL, STR_NULL, NULL);
	while ((e = cache_iter_next(&it)) != NULL) {
		struct flowcontrol_v1_flow_schema *f = arena_new(&a, struct flowcontrol_v1_flow_schema);
		struct error *bad = cache_entry_decode(&a, &flowcontrol_v1_flow_schema_type, e, true, f);
		struct applied_condition want;

		if (!bad && judgement(&a, f, &want))
			*arena_push(&a, &wrong) = (struct wrong){f->metadata.name, want};
		error_free(bad); /* rebuild has told it */
	}
	cache_snap_free(snap);
	for (uint32_t i = 0; i < wrong.n; i++) {
		struct error *err;

		if (judged_enough(wrong.v[i].name)) {
			*delay = *delay ? *delay : JUDGED_WAIT_MS + (int64_t)(random_u64() % JUDGED_WAIT_MORE_S) * 1000;
			continue;
		}
		note_judged(wrong.v[i].name);
		err = bootstrap_apply_condition(s, &a, "flowcontrol.apiserver.k8s.io", "flowschemas", wrong.v[i].name, STR(MANAGER), &wrong.v[i].want);
		if (error_is(err, 404, NULL))
			error_clear(&err);
		if (err && first)
			error_free(err);
		else if (err)
			first = err;
	}
	return first;
}

static struct error *note_change(struct apiserver *s)
{
	(void)s;
	flow->changed = true;
	waitq_wake_all(&flow->wake);
	return NULL;
}

/* Makes the index anew whenever one of the two kinds changes, then writes conditions. */
static void follow(void *arg)
{
	struct apiserver *s = arg;
	int64_t again = INT64_MAX, retry = RETRY_MS, delay; /* when to look even if nothing changes */
	struct error *e = NULL;

	while (!fiber_cancelled()) {
		while (!flow->changed && !e && again > now_ms())
			e = again == INT64_MAX ? waitq_wait(&flow->wake) : waitq_wait_ms(&flow->wake, again - now_ms());
		if (error_is_sys(e, ECANCELED))
			break;
		error_clear(&e);
		if (again <= now_ms())
			again = INT64_MAX;
		flow->changed = false;
		rebuild(s);
		e = judge(s, &delay);
		if (e) {
			log_and_free(e, "conditions of flow schemas");
			e = NULL;
			delay = retry;
			retry = retry * 2 < RETRY_MAX_MS ? retry * 2 : RETRY_MAX_MS;
		} else {
			retry = RETRY_MS;
		}
		if (delay && now_ms() + delay < again)
			again = now_ms() + delay;
	}
	error_free(e);
}

struct error *flow_init(struct apiserver *s)
{
	struct str g = STR("flowcontrol.apiserver.k8s.io");

	if (!s->o.priority_and_fairness)
		return NULL;
	flow = xcalloc(1, sizeof *flow);
	flow->schemas_st = storage_find(s, g, STR("flowschemas"));
	flow->levels_st = storage_find(s, g, STR("prioritylevelconfigurations"));
	background_follow(s, "flow schemas", flow->schemas_st->cache, note_change);
	background_follow(s, "priority levels", flow->levels_st->cache, note_change);
	background_start(s, "flow", follow, s);
	return NULL;
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

	return !d ? STR("") : str_eqz(d->type, "ByUser") ? rq->user->name : rq->info.ns;
}

static uint64_t flow_of(const struct schema *sc, const struct request *rq)
{
	struct str who = distinguisher(sc, rq);

	return XXH3_64bits_withSeed(who.p, who.n, XXH3_64bits(sc->obj->metadata.name.p, sc->obj->metadata.name.n));
}

/* Seats by what a list has to go through; anything else takes one. */
static int width_of(const struct request *rq)
{
	struct resource *r;
	struct str limit = query_get(&rq->q, "limit");
	int64_t n = 0, objects;

	if (!rq->info.resource_request || !str_eqz(rq->info.verb, "list") || rq->info.name.n ||
	    !(r = resource_find(rq->s, rq->info.group, rq->info.version, rq->info.resource)) || !r->st || !r->st->cache)
		return 1;
	objects = (int64_t)cache_count(r->st->cache);
	if (limit.n && str_to_i64(limit, &n) && n > 0 && n < objects)
		objects = n;
	n = (objects + LIST_SEAT_OBJECTS - 1) / LIST_SEAT_OBJECTS;
	return n < 1 ? 1 : n > LIST_SEATS_MAX ? LIST_SEATS_MAX : (int)n;
}

static void arrive(struct flow_seat *seat, int64_t now)
{
	seat->arrived_ns = wall_ns();
	seat->wanted = seat->width;
	metric_level_add(&seat->series->level->use.demand, seat->wanted, now);
	seat_demand_add(&seat->series->level->demand, seat->wanted, now);
	seat->prev = flow->last;
	*(flow->last ? &flow->last->next : &flow->first) = seat;
	flow->last = seat;
}

static void leave(struct flow_seat *seat, int64_t now)
{
	metric_level_add(&seat->series->level->use.demand, -seat->wanted, now);
	seat_demand_add(&seat->series->level->demand, -seat->wanted, now);
	*(seat->prev ? &seat->prev->next : &flow->first) = seat->next;
	*(seat->next ? &seat->next->prev : &flow->last) = seat->prev;
}

static void begin(struct flow_seat *seat, int64_t now)
{
	seat->started_ns = wall_ns();
	seat->waiting = false;
	metric_level_add(&seat->series->level->use.executing, 1, now);
	metric_level_add(&seat->series->level->use.seats, seat->width, now);
	metric_level_add(of_kind(seat->rq, true), 1, now);
	seat->series->level->executing++;
	seat->series->level->dispatched++;
	metric_add(seat->series->dispatched, 1);
	metric_add(seat->series->executing, 1);
	metric_add(seat->series->seats, seat->width);
	metric_observe(seat->series->estimated, seat->width);
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
	const struct fair *f = &l->fair;
	double least, greatest;
	char bound[330];

	metrics_set(METRIC_FLOW_DEMAND_AVERAGE, labels, l->demand.average);
	metrics_set(METRIC_FLOW_DEMAND_HIGH, labels, l->demand.high);
	metrics_set(METRIC_FLOW_DEMAND_STDEV, labels, l->demand.deviation);
	metrics_set(METRIC_FLOW_DEMAND_SMOOTHED, labels, l->demand.smoothed);
	metrics_set(METRIC_FLOW_TARGET, labels, claim_of(l).target);
	/* who is exempt is not limited: upstream tells what they have taken */
	metrics_set(METRIC_FLOW_LIMIT, labels, l->exempt ? fmax(f->reserved, l->demand.high) : fair_limit(f));
	metrics_set(METRIC_FLOW_CURRENT_R, labels, f->now);
	if (f->dispatched) {
		metrics_set(METRIC_FLOW_DISPATCH_R, labels, f->now);
		metrics_set(METRIC_FLOW_LATEST_S, labels, f->now);
	}
	if (!fair_due(f, &least, &greatest))
		return;
	snprintf(bound, sizeof bound, "bound=\"min\",%s", labels);
	metrics_set(METRIC_FLOW_NEXT_S, bound, least);
	snprintf(bound, sizeof bound, "bound=\"max\",%s", labels);
	metrics_set(METRIC_FLOW_NEXT_S, bound, greatest);
}

void flow_collect(void)
{
	int64_t now = now_ns();
	static const enum metric_id ids[] = {METRIC_FLOW_NOMINAL, METRIC_FLOW_LOWER, METRIC_FLOW_UPPER};
	static const enum metric_id wants[] = {METRIC_FLOW_DEMAND_AVERAGE, METRIC_FLOW_DEMAND_HIGH, METRIC_FLOW_DEMAND_STDEV,
					       METRIC_FLOW_DEMAND_SMOOTHED, METRIC_FLOW_TARGET, METRIC_FLOW_LIMIT, METRIC_FLOW_CURRENT_R,
					       METRIC_FLOW_DISPATCH_R, METRIC_FLOW_LATEST_S, METRIC_FLOW_NEXT_S};
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

		limit_use(l);
		seat_demand_add(&l->demand, 0, now);
		if (!l->seen)
			continue;
		snprintf(labels, sizeof labels, "priority_level=\"%s\"", l->name);
		for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
			metrics_set(ids[i], labels, seats[i]);
		collect_demand(l, labels);
		if (l->exempt) {
			left -= fmax(f->reserved, l->demand.high);
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

static struct error *take_seat(struct request *rq, const struct schema *sc, struct flow_seat *seat, bool *refused)
{
	static const char *const reasons[] = {NULL, "concurrency-limit", "queue-full", "time-out"};
	enum fair_answer answer;
	struct flow_series *f = sc->series;
	struct flow_level *l = sc->level;
	int64_t since = now_ns(), now = since;
	struct watermark *queue = str_eqz(rq->x->method, "GET") || str_eqz(rq->x->method, "HEAD")
					  ? &rq->s->inqueue
					  : &rq->s->inqueue_mutating;
	struct error *e;

	*seat = (struct flow_seat){.level = &l->fair,
				   .series = f,
				   .width = width_of(rq),
				   .rq = rq,
				   .distinguisher = distinguisher(sc, rq),
				   .waiting = true};
	arrive(seat, now);
	metric_add(f->waiting, 1);
	metric_add(f->waiting_seats, seat->width);
	metric_level_add(&l->use.waiting, 1, now);
	metric_level_add(of_kind(rq, false), 1, now);
	watermark_add(queue, 1);
	e = fair_enter(&l->fair, flow_of(sc, rq), &seat->width, rq->s->o.request_timeout_ms / WAIT_DIVISOR, &answer,
		       &seat->place);
	now = now_ns();
	if (seat->place.queue >= 0)
		metric_observe(f->queue_length, seat->place.length);
	if (seat->place.no_room)
		metric_add(f->no_room, seat->place.no_room);
	metric_add(f->waiting, -1);
	metric_add(f->waiting_seats, -seat->wanted);
	metric_level_add(&l->use.waiting, -1, now);
	metric_level_add(of_kind(rq, false), -1, now);
	watermark_add(queue, -1);
	rq->waited_ns += now - since;
	rq->spent_ns.queue += now - since;
	metric_observe(f->waited[!e && answer == FAIR_SEATED], (double)(now - since) / 1e9);
	if (!e && answer == FAIR_SEATED) {
		begin(seat, now);
		return NULL;
	}
	leave(seat, now);
	*seat = (struct flow_seat){0};
	*(e ? &l->cancelled : answer == FAIR_TIME_OUT ? &l->timed_out : &l->rejected) += 1;
	if (e)
		return e;
	metrics_count(METRIC_FLOW_REJECTED,
		      arena_printf(rq->a, "flow_schema=\"%.*s\",priority_level=\"%s\",reason=\"%s\"",
				   STR_ARG(sc->obj->metadata.name), sc->level->name, reasons[answer])
			      .p,
		      1);
	return refuse(rq, fair_retry_after(&l->retry, now / 1000000000), refused);
}

/* Upstream's handler of old. */
static struct error *count_inflight(struct request *rq, struct flow_seat *seat, bool *refused)
{
	static int running[2];
	bool reads = str_eqz(rq->info.verb, "get") || str_eqz(rq->info.verb, "list") || str_eqz(rq->info.verb, "watch");
	int max = reads ? rq->s->o.max_requests_inflight : rq->s->o.max_mutating_inflight, *n = &running[reads];

	if (rq->long_running || !max)
		return NULL;
	if (*n >= max) {
		return user_in_group(rq->user, "system:masters") ? NULL : refuse(rq, 1, refused);
	}
	++*n;
	seat->inflight = n;
	return NULL;
}

struct error *flow_begin(struct request *rq, struct flow_seat *seat, bool *refused)
{
	const struct schema *sc;

	if (!rq->s->o.priority_and_fairness)
		return count_inflight(rq, seat, refused);

	if (rq->long_running && !str_eqz(rq->info.verb, "watch"))
		return NULL; /* nothing to do with it, and its answer does not say so either */
	sc = classify(rq);
	if (!sc)
		return NULL;
	http_set_header(rq->x, "x-kubernetes-pf-flowschema-uid", sc->obj->metadata.uid);
	http_set_header(rq->x, "x-kubernetes-pf-prioritylevel-uid", str_from(sc->level->uid));
	if (rq->long_running || sc->level->exempt) {
		if (rq->long_running) {
			metric_add(sc->series->dispatched, 1); /* it holds no seat */
			sc->level->dispatched++;
			return NULL;
		}
		*seat = (struct flow_seat){.series = sc->series, .width = width_of(rq), .rq = rq, .place.queue = -1};
		int64_t now = now_ns();

		arrive(seat, now);
		begin(seat, now);
		return NULL;
	}
	return take_seat(rq, sc, seat, refused);
}

/* Of what a write was of. */
static void observe_watchers(const struct flow_seat *seat)
{
	const struct request *rq = seat->rq;
	struct str v = rq->info.verb;

	if (rq->res && rq->res->st && (str_eqz(v, "create") || str_eqz(v, "update") || str_eqz(v, "patch") || str_eqz(v, "delete")))
		metric_observe(seat->series->watchers, (double)cache_watchers(rq->res->st->cache));
}

void flow_end(struct flow_seat *seat)
{
	if (seat->inflight)
		--*seat->inflight;
	if (seat->level)
		fair_leave(seat->level, seat->width);
	if (seat->series) {
		int64_t now = now_ns();

		leave(seat, now);
		observe_watchers(seat);
		metric_level_add(&seat->series->level->use.executing, -1, now);
		metric_level_add(&seat->series->level->use.seats, -seat->width, now);
		metric_level_add(of_kind(seat->rq, true), -1, now);
		seat->series->level->executing--;
		metric_add(seat->series->executing, -1);
		metric_add(seat->series->seats, -seat->width);
		metric_observe(seat->series->execution, (double)(wall_ns() - seat->started_ns) / 1e9);
	}
	*seat = (struct flow_seat){0};
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
		if (((struct flow_level *)v)->seen || ((struct flow_level *)v)->executing ||
		    ((struct flow_level *)v)->fair.waiting)
			(*out)[n++] = v;
	if (n)
		qsort(*out, n, sizeof **out, level_cmp);
	return n;
}

const struct flow_seat *flow_seats(void)
{
	return flow->first;
}

const struct flow_level *flow_seat_level(const struct flow_seat *seat)
{
	return seat->series->level;
}

const char *flow_seat_schema(const struct flow_seat *seat)
{
	return seat->series->schema;
}
