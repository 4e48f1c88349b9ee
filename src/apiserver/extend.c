#include "apiserver/extend.h"
struct error *aggregator_init(struct apiserver *s) { return NULL; }
struct error *aggregate(struct request *rq, bool *handled) { return NULL; }
struct error *aggregator_register_local(struct apiserver *s) { return NULL; }
bool aggregator_remote_at(struct apiserver *s, size_t i, struct str *group, struct str *version) { return false; }
struct error *webhooks_init(struct apiserver *s) { return NULL; }
