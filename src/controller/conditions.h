/* controller/conditions.h: metav1.Condition lists, as apimachinery's meta.SetStatusCondition treats them. */
#ifndef SKIFF_CONTROLLER_CONDITIONS_H
#define SKIFF_CONTROLLER_CONDITIONS_H

#include "controller/common.h"

struct conditions { /* every LIST(struct meta_v1_condition) is laid out as this */
	struct meta_v1_condition *v;
	uint32_t n, cap;
};
#define CONDITIONS(field) ((struct conditions *)(void *)(field))

/* NULL when there is none of this type. */
struct meta_v1_condition *condition_find(const struct conditions *list, const char *type);
/* Sets or adds; the transition time moves with the status alone. True when anything changed. type, status and reason are literals. */
bool condition_set(struct arena *a, struct conditions *list, const char *type, const char *status, const char *reason,
		   struct str message, int64_t observed_generation);

#endif
