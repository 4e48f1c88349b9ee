#include "base/map.h"

#include <stdlib.h>

#include "base/log.h"

struct map_entry {
	char *key; /* NULL: free; TOMBSTONE: deleted */
	uint32_t key_n;
	uint32_t hash;
	void *value;
};

static char tombstone[1];
#define TOMBSTONE tombstone

static bool live(const struct map_entry *e)
{
	return e->key && e->key != TOMBSTONE;
}

void map_free(struct map *m)
{
	for (size_t i = 0; i < m->cap; i++)
		if (live(&m->slots[i]))
			free(m->slots[i].key);
	free(m->slots);
	*m = (struct map){0};
}

void map_free_values(struct map *m, void (*free_value)(void *))
{
	for (size_t i = 0; i < m->cap; i++)
		if (live(&m->slots[i]))
			free_value(m->slots[i].value);
	map_free(m);
}

static struct map_entry *find(const struct map *m, struct str key)
{
	if (!m->cap)
		return NULL;
	uint32_t h = (uint32_t)str_hash(key);

	for (size_t i = h;; i++) {
		struct map_entry *e = &m->slots[i & (m->cap - 1)];

		if (!e->key)
			return NULL;
		if (e->key != TOMBSTONE && e->hash == h && str_eq(str_of(e->key, e->key_n), key))
			return e;
	}
}

void *map_get(const struct map *m, struct str key)
{
	struct map_entry *e = find(m, key);

	return e ? e->value : NULL;
}

bool map_has(const struct map *m, struct str key)
{
	return find(m, key) != NULL;
}

static struct map_entry *free_slot(struct map_entry *slots, size_t cap, uint32_t h)
{
	size_t i = h;

	while (slots[i & (cap - 1)].key)
		i++;
	return &slots[i & (cap - 1)];
}

static void rehash(struct map *m)
{
	/* Sized for what lives, so a map with many deletions shrinks; load stays below 3/4. */
	size_t cap = 16;

	while (cap * 3 / 4 <= m->n * 3 / 2)
		cap *= 2;
	struct map_entry *slots = xcalloc(cap, sizeof *slots);

	for (size_t i = 0; i < m->cap; i++)
		if (live(&m->slots[i]))
			*free_slot(slots, cap, m->slots[i].hash) = m->slots[i];
	free(m->slots);
	m->slots = slots;
	m->cap = cap;
	m->used = m->n;
}

void *map_set(struct map *m, struct str key, void *value)
{
	struct map_entry *e = find(m, key);

	if (e) {
		void *old = e->value;

		e->value = value;
		return old;
	}
	if ((m->used + 1) * 4 > m->cap * 3)
		rehash(m);
	uint32_t h = (uint32_t)str_hash(key);

	e = free_slot(m->slots, m->cap, h);
	*e = (struct map_entry){str_dupz(key), (uint32_t)key.n, h, value};
	m->n++;
	m->used++;
	return NULL;
}

void *map_del(struct map *m, struct str key)
{
	struct map_entry *e = find(m, key);

	if (!e)
		return NULL;
	void *old = e->value;

	free(e->key);
	e->key = TOMBSTONE;
	e->value = NULL;
	m->n--;
	return old;
}

bool map_next(const struct map *m, size_t *it, struct str *key, void **value)
{
	while (*it < m->cap) {
		struct map_entry *e = &m->slots[(*it)++];

		if (live(e)) {
			if (key)
				*key = str_of(e->key, e->key_n);
			if (value)
				*value = e->value;
			return true;
		}
	}
	return false;
}
