/*
 * apiserver/metrics_summary.h: quantiles of what was observed within the last hours (Prometheus' summaries). Values are
 * counted in ranges that grow by a tenth, so that what is told of a quantile is at most a twentieth off; what is observed
 * is told for four to five hours, as upstream's.
 */
#ifndef SKIFF_APISERVER_METRICS_SUMMARY_H
#define SKIFF_APISERVER_METRICS_SUMMARY_H
#include <stdint.h>

#define SUMMARY_HOURS 5
#define SUMMARY_RANGES 220 /* from a microsecond to twenty minutes */
struct summary {           /* zeroed */
	struct summary_hour {
		int64_t hour;
		uint32_t n[SUMMARY_RANGES];
	} *hours[SUMMARY_HOURS]; /* made when something is observed in them */
};
/* now_ms: of a clock that never goes back. */
void summary_observe(struct summary *s, double seconds, int64_t now_ms);
/* q: 0 to 1; NaN when nothing was observed. */
double summary_quantile(const struct summary *s, double q, int64_t now_ms);
void summary_clear(struct summary *s);
#endif
