/* Priority levels by name and flow schemas by precedence, as the caches have them; the condition that says which schemas are of no use. */
#include "apiserver/flow_internal.h"

#include <math.h>

#include "apiserver/background.h"
#include "apiserver/bootstrap.h"

#define MANAGER "api-priority-and-fairness-config-consumer-v1"
#define SEATS_PERCENT 15        /* of a level's seats, so many may be one request's (upstream) */
#define JUDGED_MAX 6            /* upstream: a schema's condition is written so often */
#define JUDGED_MS 60000         /* in this time, and no more; then it waits */
#define JUDGED_WAIT_MS 30000    /* so long, and up to */
#define JUDGED_WAIT_MORE_S 45   /* so many seconds more */
#define RETRY_MS 200            /* after an error, doubled up to */
#define RETRY_MAX_MS 60000

struct flow *flow;

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

static void set_shares(struct flow_level *l, const struct flowcontrol_v1_priority_level_configuration_spec *spec)
{
	const struct flowcontrol_v1_limited_priority_level_configuration *m = spec->limited;
	const struct flowcontrol_v1_exempt_priority_level_configuration *x = spec->exempt;
	const int32_t *shares = m ? m->nominal_concurrency_shares : x ? x->nominal_concurrency_shares : NULL;
	const int32_t *lendable = m ? m->lendable_percent : x ? x->lendable_percent : NULL;

	l->fair.exempt = str_eqz(spec->type, "Exempt");
	l->shares = shares ? *shares : 0;
	l->lendable = lendable ? *lendable : 0;
	l->borrowing = m && m->borrowing_limit_percent ? *m->borrowing_limit_percent : -1;
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
	for (int i = 0; i < 2; i++) {
		wait.n = 0;
		buf_printf(&wait, "%s,type=\"%s\"", buf_z(&b), i ? "watch" : "regular");
		f->execution[i] = metric_series(METRIC_FLOW_EXECUTION, buf_z(&wait));
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

/* What is exempt is not limited: upstream tells what it has kept or taken. */
double flow_exempt_limit(const struct flow_level *l)
{
	return fmax(l->fair.reserved, l->demand.high);
}

/* What is used is told as a part of what there is; with nothing, of a tenth of all. */
void flow_limit_use(struct flow_level *l)
{
	double seats = l->fair.exempt ? flow_exempt_limit(l) : l->fair.nominal;
	double places = fmax(1, l->fair.length) * fmax(1, l->fair.queues);
	struct metric_level *all[] = {&l->use.seats, &l->use.executing, &l->use.waiting, &l->use.demand};
	int64_t now = now_ns();

	if (seats <= 0)
		seats = fmax(1, round(flow->limit / 10.0));
	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		metric_level_add(all[i], 0, now); /* so far by the old one */
		all[i]->limit = all[i] != &l->use.waiting ? seats : places;
	}
}

/* As upstream: part of its seats, and no more than there are for each queue of a hand. */
static int most_seats(const struct fair *f)
{
	int most = (f->nominal * SEATS_PERCENT + 99) / 100;

	if (f->exempt || f->reject)
		return 0;
	if (f->hand > 0 && f->nominal / f->hand < most)
		most = f->nominal / f->hand;
	return most > 1 ? most : 1;
}

static void rebuild(struct apiserver *s)
{
	struct cache_snap *snap;
	struct cache_iter it;
	const struct cache_entry *e;
	struct str key;
	void *v;
	size_t i = 0;
	int64_t total = 0, places = 0, limit = s->o.max_requests_inflight + s->o.max_mutating_inflight;
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
		set_shares(l, &p->spec);
		set_queues(&l->fair, p->spec.limited);
	}
	cache_snap_free(snap);
	for (i = 0; map_next(&flow->levels, &i, &key, &v);)
		if (flow_live(v))
			total += ((struct flow_level *)v)->shares;
	for (i = 0; map_next(&flow->levels, &i, &key, &v);) {
		struct flow_level *l = v;

		/* as upstream's nominal limit, rounded up */
		l->fair.nominal = total && flow_live(l) ? (int)((limit * l->shares + total - 1) / total) : 0;
		flow->group.total += l->fair.nominal; /* rounding up gives some more than there are, in upstream too */
		l->fair.reserved = l->fair.nominal - percent_of(l->fair.nominal, l->lendable);
		l->fair.borrow_max = l->borrowing < 0 ? -1 : percent_of(l->fair.nominal, l->borrowing);
		l->most = most_seats(&l->fair);
		if (flow_live(l) && !l->fair.exempt && !l->fair.reject)
			places += (int64_t)l->fair.queues * l->fair.length;
		flow_limit_use(l);
	}
	flow_limit_read_write((double)places, flow->group.total);
	fair_changed(&flow->group);
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
	background_start(s, "flow seats", flow_end_lingering, NULL);
	return NULL;
}
