/* /debug/api_priority_and_fairness/: what levels, queues and requests do, as upstream's tables of comma and blanks. */
#include "apiserver/discovery.h"
#include "apiserver/flow_internal.h"

#define CELL_MIN 8

struct sheet {
	struct arena *a;
	size_t columns;
	LIST(struct str) cells;
};

static void cell(struct sheet *t, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	*arena_push(t->a, &t->cells) = arena_vprintf(t->a, fmt, ap);
	va_end(ap);
}

static void header(struct sheet *t, const char *const *names, size_t n)
{
	t->columns += n;
	for (size_t i = 0; i < n; i++)
		cell(t, "%s", names[i]);
}

/* Every cell but a line's last ends with a comma and is as wide as the widest of its column. */
static struct error *respond_sheet(struct request *rq, const struct sheet *t)
{
	struct buf b buf_cleanup = {0};
	size_t *width = arena_array(t->a, size_t, t->columns);

	for (size_t i = 0; i < t->columns; i++)
		width[i] = CELL_MIN;
	for (size_t i = 0; i < t->cells.n; i++)
		if (t->cells.v[i].n + 2 > width[i % t->columns])
			width[i % t->columns] = t->cells.v[i].n + 2;
	for (size_t i = 0; i < t->cells.n; i++) {
		struct str c = t->cells.v[i];

		buf_str(&b, c);
		if (i % t->columns == t->columns - 1)
			buf_putc(&b, '\n');
		else
			buf_printf(&b, ",%*s", (int)(width[i % t->columns] - c.n - 1), "");
	}
	return respond_bytes(rq, 200, STR("text/plain; charset=utf-8"), buf_view(&b));
}

static struct error *dump_levels(struct request *rq)
{
	static const char *const names[] = {
		"PriorityLevelName", "ActiveQueues",       "IsIdle",           "IsQuiescing",      "WaitingRequests",
		"ExecutingRequests", "DispatchedRequests", "RejectedRequests", "TimedoutRequests", "CancelledRequests"};
	struct sheet t = {.a = rq->a};
	const struct flow_level **v;
	size_t n = flow_levels(rq->a, &v);

	header(&t, names, sizeof names / sizeof *names);
	for (size_t i = 0; i < n; i++) {
		const struct flow_level *l = v[i];
		int active = 0;

		for (int q = 0; q < l->fair.n_queues; q++)
			active += fair_queue_state(&l->fair, q).waiting > 0;
		cell(&t, "%s", l->name);
		cell(&t, "%d", active);
		cell(&t, "%s", l->fair.executing || l->fair.waiting ? "false" : "true");
		cell(&t, "%s", l->seen ? "false" : "true");
		cell(&t, "%d", l->fair.waiting);
		cell(&t, "%d", l->fair.executing);
		cell(&t, "%d", l->dispatched);
		cell(&t, "%d", l->rejected);
		cell(&t, "0"); /* upstream counts them as cancelled */
		cell(&t, "%d", l->cancelled);
	}
	return respond_sheet(rq, &t);
}

static struct error *dump_queues(struct request *rq)
{
	static const char *const names[] = {"PriorityLevelName", "Index",       "PendingRequests",
					    "ExecutingRequests", "SeatsInUse",  "NextDispatchR",
					    "InitialSeatsSum",   "MaxSeatsSum", "TotalWorkSum"};
	struct sheet t = {.a = rq->a};
	const struct flow_level **v;
	size_t n = flow_levels(rq->a, &v);

	header(&t, names, sizeof names / sizeof *names);
	for (size_t i = 0; i < n; i++)
		for (int q = 0; q < v[i]->fair.queues || q < v[i]->fair.n_queues; q++) {
			struct fair_queue_state st = fair_queue_state(&v[i]->fair, q);

			cell(&t, "%s", v[i]->name);
			cell(&t, "%d", q);
			cell(&t, "%d", st.waiting);
			cell(&t, "%d", st.executing);
			cell(&t, "%d", st.seats);
			cell(&t, "%.8fss", st.due);
			cell(&t, "%d", st.initial);
			cell(&t, "%d", st.most);
			cell(&t, "%.8fss", st.work);
		}
	return respond_sheet(rq, &t);
}

/* How many wait in the same queue and came before. */
static int place(const struct flow_seat *s)
{
	int n = 0;

	if (!s->waiting)
		return -1;
	for (const struct flow_seat *o = s->prev; o; o = o->prev)
		n += o->waiting && o->fair.queue == s->fair.queue && o->series->level == s->series->level;
	return n;
}

static struct str when(struct arena *a, int64_t ns)
{
	struct api_time t = {.s = ns / 1000000000, .ns = (int32_t)(ns % 1000000000), .set = true};
	struct str s = time_format(a, t, false);

	if (!ns)
		return STR("0001-01-01T00:00:00Z");
	return arena_printf(a, "%.*s.%09dZ", (int)s.n - 1, s.p, t.ns);
}

static struct error *dump_requests(struct request *rq)
{
	static const char *const names[] = {"PriorityLevelName", "FlowSchemaName",
					    "QueueIndex",        "RequestIndexInQueue",
					    "FlowDistingsher",   "ArriveTime",
					    "InitialSeats",      "FinalSeats",
					    "AdditionalLatency", "StartTime"},
				 *const more[] = {"UserName", "Verb",       "APIPath",  "Namespace",
						  "Name",     "APIVersion", "Resource", "SubResource"};
	bool details = query_get(&rq->q, "includeRequestDetails").n > 0;
	struct sheet t = {.a = rq->a};

	header(&t, names, sizeof names / sizeof *names);
	if (details)
		header(&t, more, sizeof more / sizeof *more);
	for (const struct flow_seat *s = flow->first; s; s = s->next) {
		const struct request_info *i = &s->rq->info;

		cell(&t, "%s", s->series->level->name);
		cell(&t, "%s", s->series->schema);
		cell(&t, "%d", s->fair.queue);
		cell(&t, "%d", place(s));
		cell(&t, "%.*s", STR_ARG(s->distinguisher));
		cell(&t, "%.*s", STR_ARG(when(rq->a, s->arrived_ns)));
		cell(&t, "%d", s->fair.initial);
		cell(&t, "%d", s->fair.final);
		cell(&t, "%.*s", STR_ARG(duration_format(rq->a, s->fair.linger_ns)));
		cell(&t, "%.*s", STR_ARG(when(rq->a, s->started_ns)));
		if (!details)
			continue;
		cell(&t, "%.*s", STR_ARG(s->rq->user->name));
		cell(&t, "%.*s", STR_ARG(i->verb));
		cell(&t, "%.*s", STR_ARG(i->path));
		cell(&t, "%.*s", STR_ARG(i->ns));
		cell(&t, "%.*s", STR_ARG(i->name));
		cell(&t, "%.*s%s%.*s", STR_ARG(i->group), i->group.n ? "/" : "", STR_ARG(i->version));
		cell(&t, "%.*s", STR_ARG(i->resource));
		cell(&t, "%.*s", STR_ARG(i->subresource));
	}
	return respond_sheet(rq, &t);
}

struct error *flow_dump(struct request *rq, struct str page, bool *handled)
{
	*handled = rq->s->o.priority_and_fairness;
	if (!*handled)
		return NULL;
	if (str_eqz(page, "dump_priority_levels"))
		return dump_levels(rq);
	if (str_eqz(page, "dump_queues"))
		return dump_queues(rq);
	if (str_eqz(page, "dump_requests"))
		return dump_requests(rq);
	*handled = false;
	return NULL;
}
