/*
 * base/map.h: hash map from byte strings to pointers, insertion by copy of the
 * key. Not for ordered walks (see store's and the watch cache's trees). Single thread.
 */
#ifndef SKIFF_BASE_MAP_H
#define SKIFF_BASE_MAP_H

#include "base/str.h"

struct map_entry;
struct map {
	struct map_entry *slots; /* open addressing, power of two */
	size_t n, cap, used;
};

/* `struct map m = {0};` is an empty map. */
void map_free(struct map *m); /* frees keys and slots; values are the caller's; leaves an empty map */
/* The same with the values: free_value is called with each once, NULL among them; it does not touch the map. */
void map_free_values(struct map *m, void (*free_value)(void *));
void *map_get(const struct map *m, struct str key); /* NULL: absent */
bool map_has(const struct map *m, struct str key);
/* Sets key to value (value may be NULL only with map_has users); returns the value it replaces, or NULL. */
void *map_set(struct map *m, struct str key, void *value);
/* Removes key; returns its value, or NULL. Safe for the current key during map_next. */
void *map_del(struct map *m, struct str key);
/* Walks in no order: size_t it = 0; while (map_next(&m, &it, &key, &value)) ... Insertion during a walk is not allowed. */
bool map_next(const struct map *m, size_t *it, struct str *key, void **value);

#endif
