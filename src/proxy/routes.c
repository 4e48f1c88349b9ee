#include "proxy/routes.h"

#include <stdlib.h>

#include "base/arena.h"
#include "base/log.h"
#include "loop/io.h"

/* Routes change when nodes come and go: rarely enough for iproute2 itself. */
static struct error *ip_route(const char *verb, struct str cidr, const char *via)
{
	arena_cleanup struct arena a = {0};
	const char *argv[] = {"ip", "route", verb, arena_strz(&a, cidr), via ? "via" : NULL, via, NULL};

	return proc_run(argv, STR_NULL, NULL, NULL, NULL);
}

struct error *routes_sync(struct map *have, const struct map *want)
{
	arena_cleanup struct arena a = {0};
	struct error *first = NULL, *e;
	struct str key;
	void *v;

	for (size_t it = 0; map_next(want, &it, &key, &v);) {
		const char *was = map_get(have, key);

		if (was && strcmp(was, v) == 0)
			continue;
		e = ip_route("replace", key, v);
		if (e && strstr(error_message(e), "Nexthop has invalid gateway")) {
			/* Remembered, so that it is said once: whatever routes between the links must route the pods too. */
			log_warn("node %s shares no link with this one: its pods %.*s are left to the routes that are there", (char *)v, STR_ARG(key));
			error_clear(&e);
		}
		if (!e)
			free(map_set(have, key, xstrdup(v)));
		else if (!first)
			first = e;
		else
			error_free(e);
	}
	LIST(struct str) gone = {0};

	for (size_t it = 0; map_next(have, &it, &key, NULL);)
		if (!map_has(want, key))
			*arena_push(&a, &gone) = arena_str(&a, key);
	for (uint32_t i = 0; i < gone.n; i++) {
		free(map_del(have, gone.v[i]));
		/* It may have gone with its link. */
		error_free(ip_route("del", gone.v[i], NULL));
	}
	return first;
}
