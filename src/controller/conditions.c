#include "controller/conditions.h"

struct meta_v1_condition *condition_find(const struct conditions *list, const char *type)
{
	for (uint32_t i = 0; i < list->n; i++)
		if (str_eqz(list->v[i].type, type))
			return &list->v[i];
	return NULL;
}

bool condition_set(struct arena *a, struct conditions *list, const char *type, const char *status, const char *reason,
		   struct str message, int64_t observed_generation)
{
	struct meta_v1_condition *c = condition_find(list, type);
	bool changed = !c || !str_eqz(c->status, status);

	if (!c) {
		c = arena_push(a, list);
		c->type = str_from(type);
	}
	if (changed)
		c->last_transition_time = api_now();
	changed |= !str_eqz(c->reason, reason) || !str_eq(c->message, message) || c->observed_generation != observed_generation;
	c->status = str_from(status);
	c->reason = str_from(reason);
	c->message = message;
	c->observed_generation = observed_generation;
	return changed;
}
