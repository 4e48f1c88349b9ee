#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "apiserver/metrics_summary.h"
#include "base/log.h"

#define FIRST 1e-6
#define GROWTH 1.1
#define HOUR_MS (3600 * 1000)

void summary_observe(struct summary *s, double seconds, int64_t now_ms)
{
	int64_t hour = now_ms / HOUR_MS;
	struct summary_hour **h = &s->hours[hour % SUMMARY_HOURS];
	int i = seconds > FIRST ? (int)(log(seconds / FIRST) / log(GROWTH)) + 1 : 0;

	if (!*h)
		*h = xcalloc(1, sizeof **h);
	if ((*h)->hour != hour)
		**h = (struct summary_hour){.hour = hour};
	(*h)->n[i < SUMMARY_RANGES ? i : SUMMARY_RANGES - 1]++;
}

double summary_quantile(const struct summary *s, double q, int64_t now_ms)
{
	uint64_t n[SUMMARY_RANGES] = {0}, all = 0, below = 0;

	for (int k = 0; k < SUMMARY_HOURS; k++) {
		const struct summary_hour *h = s->hours[k];

		if (!h || h->hour <= now_ms / HOUR_MS - SUMMARY_HOURS)
			continue;
		for (int i = 0; i < SUMMARY_RANGES; i++) {
			n[i] += h->n[i];
			all += h->n[i];
		}
	}
	if (!all)
		return NAN;
	for (int i = 0; i < SUMMARY_RANGES; i++) {
		below += n[i];
		if ((double)below >= q * (double)all)
			return i ? FIRST * pow(GROWTH, i - 0.5) : FIRST;
	}
	return FIRST * pow(GROWTH, SUMMARY_RANGES - 0.5);
}

void summary_clear(struct summary *s)
{
	for (int k = 0; k < SUMMARY_HOURS; k++)
		free(s->hours[k]);
	*s = (struct summary){0};
}
