/* apiserver/validate_core.h: rules and warnings of core/v1 but pods and Services, for strategies_core.c. */
#ifndef SKIFF_APISERVER_VALIDATE_CORE_H
#define SKIFF_APISERVER_VALIDATE_CORE_H

#include "apiserver/rules.h"

#define RULES(kind) void kind##_validate(struct request *rq, const void *obj, struct field_errors *e)
#define RULES_UPDATE(kind) void kind##_validate_update(struct request *rq, const void *obj, const void *old, struct field_errors *e)
#define RULES_SUB(kind) void kind##_validate_sub(struct request *rq, const char *sub, const void *obj, const void *old, struct field_errors *e)
#define WARNINGS(kind) void kind##_warn(struct request *rq, const void *obj, const void *old)

RULES(node);
RULES_UPDATE(node);
RULES_SUB(node);
WARNINGS(node);
RULES(pv);
RULES_UPDATE(pv);
RULES_SUB(pv);
WARNINGS(pv);
RULES(pvc);
RULES_UPDATE(pvc);
RULES_SUB(pvc);
WARNINGS(pvc);
RULES(limitrange);
RULES(quota);
RULES_UPDATE(quota);
RULES_SUB(quota);
WARNINGS(quota);
RULES(secret);
RULES_UPDATE(secret);
WARNINGS(secret);
RULES(configmap);
RULES_UPDATE(configmap);
RULES(endpoints);
RULES_UPDATE(endpoints);
WARNINGS(endpoints);
RULES(namespace);
RULES_SUB(namespace);
RULES_UPDATE(namespace);
RULES(rc);
RULES_UPDATE(rc);
RULES_SUB(rc);
WARNINGS(rc);
RULES(event);
RULES_UPDATE(event);

#endif
