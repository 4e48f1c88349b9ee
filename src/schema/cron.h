/*
 * schema/cron.h: schedules of CronJobs (crontab(5) as upstream's parser reads it) and time zones (RFC 9636, TZif): text and
 * bytes to the next time. Knows no clock and no disk: the caller has both.
 */
#ifndef SKIFF_SCHEMA_CRON_H
#define SKIFF_SCHEMA_CRON_H

#include "base/arena.h"
#include "base/error.h"

struct time_zone; /* immutable, in an arena; NULL is UTC */

/*
 * A TZif file (/usr/share/zoneinfo/...), at most 1 MiB; its footer's rule counts after the last transition. Bytes are not kept.
 * An error names what is wrong with it.
 */
struct error *time_zone_parse(struct arena *a, struct str bytes, const struct time_zone **out);
/* A name as the tz database makes them ("Europe/Berlin"): no "..", no leading "/"; says nothing about whether it exists. */
bool time_zone_name_ok(struct str name);
/* Seconds east of UTC at a time (seconds since 1970). */
int32_t time_zone_offset(const struct time_zone *z, int64_t t);

struct cron {
	uint64_t minute, hour, dom, month, dow; /* bit i: value i; bit 63: "*" or "?" */
	int64_t every_s;                        /* "@every": seconds, the rest is unused; else 0 */
	struct str zone;                        /* of a "TZ=" or "CRON_TZ=" before it (points into the text), or empty */
};
/* Five fields, "@daily" and its like, "@every 1h30m"; errors in upstream's words. */
struct error *cron_parse(struct str text, struct cron *out);
/* The first time after t (seconds since 1970) that fits; false when there is none within five years ("31 of February"). */
bool cron_next(const struct cron *c, const struct time_zone *z, int64_t t, int64_t *next);

/* Civil time, proleptic Gregorian. */
struct civil {
	int64_t year;
	int month, day;            /* 1.. */
	int hour, minute, second;
	int weekday;               /* 0: Sunday */
};
struct civil civil_of(int64_t t); /* t as if it were UTC */
int64_t civil_days(int64_t year, int month, int day); /* since 1970; month may be beyond 1..12, day beyond the month */

#endif
