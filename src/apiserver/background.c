#include "apiserver/background.h"

#include <stdlib.h>

struct background {
	struct background *next, *prev;
	struct apiserver *s;
	fiber_fn *fn;
	void *arg;
	struct fiber *fiber; /* NULL: has not begun */
};

static void run(void *arg)
{
	struct background *b = arg;
	struct apiserver *s = b->s;

	b->fiber = fiber_self();
	if (s->background_stopping)
		fiber_cancel(b->fiber);
	b->fn(b->arg);
	*(b->prev ? &b->prev->next : &s->background) = b->next;
	if (b->next)
		b->next->prev = b->prev;
	free(b);
	waitq_wake_all(&s->background_gone);
}

void background_start(struct apiserver *s, const char *name, fiber_fn *fn, void *arg)
{
	struct background *b = xcalloc(1, sizeof *b);

	*b = (struct background){.next = s->background, .s = s, .fn = fn, .arg = arg};
	if (b->next)
		b->next->prev = b;
	s->background = b;
	fiber_spawn(name, run, b);
}

struct following {
	struct apiserver *s;
	const char *name;
	struct cache *cache;
	struct error *(*watched)(struct apiserver *s, struct cache_watch *w); /* or */
	struct error *(*changed)(struct apiserver *s);
};

static struct error *changes(struct following *f, struct cache_watch *w)
{
	struct cache_event ev;

	for (;;) {
		TRY(cache_watch_next(w, &ev));
		while (cache_watch_ready(w))
			TRY(cache_watch_next(w, &ev));
		log_and_free(f->changed(f->s), "%s", f->name);
	}
}

static void follow(void *arg)
{
	struct following *f = arg;

	for (;;) {
		struct cache_watch_opts o = {.initial = true, .mode = CACHE_ANY};
		struct cache_watch *w;
		struct error *e = cache_watch_open(f->cache, &o, &w);

		if (!e)
			e = f->watched ? f->watched(f->s, w) : changes(f, w);
		cache_watch_close(w);
		if (!error_is_sys(e, ECANCELED)) {
			error_free(e);
			e = fiber_sleep(1000);
		}
		if (e) {
			error_free(e);
			return;
		}
	}
}

static void start(struct following f)
{
	struct following *at = arena_new(&f.s->arena, struct following);

	*at = f;
	background_start(f.s, f.name, follow, at);
}

void background_watch(struct apiserver *s, const char *name, struct cache *c, struct error *(*fn)(struct apiserver *s, struct cache_watch *w))
{
	start((struct following){.s = s, .name = name, .cache = c, .watched = fn});
}

void background_follow(struct apiserver *s, const char *name, struct cache *c, struct error *(*fn)(struct apiserver *s))
{
	start((struct following){.s = s, .name = name, .cache = c, .changed = fn});
}

void background_stop(struct apiserver *s)
{
	s->background_stopping = true;
	for (struct background *b = s->background; b; b = b->next)
		if (b->fiber)
			fiber_cancel(b->fiber);
	fiber_shield_begin();
	while (s->background)
		error_free(waitq_wait(&s->background_gone)); /* shielded: never fails */
	fiber_shield_end();
}
