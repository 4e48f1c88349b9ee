/* apiserver/metrics.h: counters and histograms under upstream's names. */
#ifndef SKIFF_APISERVER_METRICS_H
#define SKIFF_APISERVER_METRICS_H
#include "apiserver/server.h"
void metrics_request(struct request *rq);
/* Watch events sent, admission steps... are counted by name{labels}; labels is the text between the braces. */
void metrics_count(struct apiserver *s, const char *name, const char *labels, int64_t n);
#endif
