/* apiserver/metrics.h: counters and histograms under upstream's names. */
#ifndef SKIFF_APISERVER_METRICS_H
#define SKIFF_APISERVER_METRICS_H
#include "apiserver/server.h"
void metrics_request(struct request *rq);
/* Watch events sent, admission steps... are counted by name{labels}; labels is the text between the braces. */
void metrics_count(struct apiserver *s, const char *name, const char *labels, int64_t n);
/* A gauge; drops every series of a name. */
void metrics_set(struct apiserver *s, const char *name, const char *labels, double value);
void metrics_forget(struct apiserver *s, const char *name);
/* A histogram of n (at most METRICS_BUCKETS) buckets, the first up to `first`, each twice the one before. */
#define METRICS_BUCKETS 25
struct metrics_histogram {
	const char *name;
	double first;
	int n;
};
void metrics_observe(struct apiserver *s, const struct metrics_histogram *h, const char *labels, double value);
/* "sha256:HEX", as upstream's labels show what is not to be read; empty for nothing. */
#define METRICS_HASH 72
void metrics_hash(struct str s, char out[METRICS_HASH]);
/* That of this server's identity (upstream's APIServerID, made of the host's name). */
const char *metrics_server_hash(void);
#endif
