/*
 * The log's tail in memory: its records by revision, and the place of each key's newest one. Keys and versions stand in the records
 * themselves: small blocks of memory that go at the next checkpoint would lie between those of the caches, which stay.
 */
#include <stdlib.h>

#include "base/log.h"
#include "store/embedded.h"

static struct log_rec head_of(const struct tail_rec *r)
{
	struct log_rec head;
	memcpy(&head, r->record.mv_data, sizeof(head));
	return head;
}

struct str tail_key(const struct tail_rec *r)
{
	return str_of((const char *)r->record.mv_data + sizeof(struct log_rec), head_of(r).key_n);
}

struct key_rec tail_version(const struct tail_rec *r)
{
	struct log_rec head = head_of(r);
	return log_version(&head, r->rev);
}

/* Of the key's place in t->v (from 1), or where it is to stand. There is room. */
static uint32_t *slot(const struct tail *t, uint32_t hash, struct str key)
{
	for (size_t i = hash;; i++) {
		uint32_t *s = &t->slots[i & (2 * t->cap - 1)];
		if (!*s || (t->v[*s - 1].hash == hash && str_eq(tail_key(&t->v[*s - 1]), key)))
			return s;
	}
}

static void enter(struct tail *t, size_t i)
{
	uint32_t *s = slot(t, t->v[i].hash, tail_key(&t->v[i]));
	if (*s)
		t->v[*s - 1].replaced = true;
	*s = (uint32_t)i + 1;
}

static void append(struct tail *t, const struct tail_rec *r)
{
	if (t->n == t->cap) {
		t->cap = t->cap ? 2 * t->cap : 64;
		t->v = xrealloc(t->v, t->cap * sizeof(*t->v));
		free(t->slots);
		t->slots = xcalloc(2 * t->cap, sizeof(*t->slots));
		for (size_t i = 0; i < t->n; i++)
			enter(t, i);
	}
	t->v[t->n] = *r;
	t->bytes += r->record.mv_size;
	enter(t, t->n++);
}

void tail_add(struct tail *t, int64_t rev, MDB_val record)
{
	struct tail_rec r = {.rev = rev, .record = record};
	r.hash = (uint32_t)str_hash(tail_key(&r));
	append(t, &r);
}

void tail_join(struct tail *t, struct tail *more)
{
	for (size_t i = 0; i < more->n; i++) {
		more->v[i].replaced = false;
		append(t, &more->v[i]);
	}
	tail_clear(more);
}

const struct tail_rec *tail_find(const struct tail *t, struct str key)
{
	uint32_t place = t->n ? *slot(t, (uint32_t)str_hash(key), key) : 0;
	return place ? &t->v[place - 1] : NULL;
}

size_t tail_from(const struct tail *t, int64_t rev)
{
	size_t lo = 0, hi = t->n;
	while (lo < hi) {
		size_t mid = (lo + hi) / 2;
		if (t->v[mid].rev < rev)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

bool tail_get(const struct tail *t, int64_t rev, MDB_val *v)
{
	size_t i = tail_from(t, rev);
	if (i == t->n || t->v[i].rev != rev)
		return false;
	*v = t->v[i].record;
	return true;
}

void tail_clear(struct tail *t)
{
	if (t->n)
		memset(t->slots, 0, 2 * t->cap * sizeof(*t->slots));
	t->n = t->bytes = 0;
}

void tail_free(struct tail *t)
{
	free(t->v);
	free(t->slots);
	*t = (struct tail){0};
}
