#include "apiserver/grace.h"
#include <stdlib.h>
#include "base/log.h"
#include "loop/fiber.h"

struct retired {
	struct retired *next;
	uint64_t at;
	void (*fn)(void *obj);
	void *obj;
};
struct grace {
	uint64_t now;                        /* raised by each retirement */
	struct grace_reader *oldest, *newest; /* in the order they entered */
	struct retired *first, **last;
	struct waitq work;
	struct grace_stats stats;
};

static bool ready(const struct grace *g)
{
	return g->first && (!g->oldest || g->oldest->since > g->first->at);
}

static void reaper(void *arg)
{
	struct grace *g = arg;
	struct error *e = NULL;

	while (!e) {
		struct retired *r = g->first;

		if (!ready(g)) {
			e = waitq_wait(&g->work);
			continue;
		}
		g->first = r->next;
		if (!g->first)
			g->last = &g->first;
		r->fn(r->obj);
		free(r);
		g->stats.freed++;
	}
	error_free(e);
}

struct grace *grace_new(void)
{
	struct grace *g = xcalloc(1, sizeof *g);

	g->last = &g->first;
	fiber_spawn("grace", reaper, g);
	return g;
}

void grace_enter(struct grace *g, struct grace_reader *r)
{
	if (r->in)
		return;
	*r = (struct grace_reader){.in = g, .prev = g->newest, .since = g->now};
	*(g->newest ? &g->newest->next : &g->oldest) = r;
	g->newest = r;
}

void grace_leave(struct grace_reader *r)
{
	struct grace *g = r->in;

	if (!g)
		return;
	*(r->prev ? &r->prev->next : &g->oldest) = r->next;
	*(r->next ? &r->next->prev : &g->newest) = r->prev;
	r->in = NULL;
	if (ready(g))
		waitq_wake_all(&g->work);
}

void grace_retire(struct grace *g, void (*fn)(void *obj), void *obj)
{
	struct retired *r = xmalloc(sizeof *r);

	*r = (struct retired){.at = g->now++, .fn = fn, .obj = obj};
	*g->last = r;
	g->last = &r->next;
	g->stats.retired++;
	if (ready(g))
		waitq_wake_all(&g->work);
}

struct grace_stats grace_stats(const struct grace *g)
{
	return g->stats;
}
