/* Schedules and time zone files: "SCHEDULE\n" and then the bytes of a zone. What is found fits the schedule. */
#include "schema/codec.h"
#include "schema/cron.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	arena_cleanup struct arena a = {0};
	struct str rest = arena_str(&a, str_of((const char *)data, n)), text = str_cut(&rest, '\n');
	const struct time_zone *z = NULL;
	struct cron c;
	struct error *e;
	int64_t t = 1700000000, next;

	time_zone_name_ok(text);
	if (rest.n) {
		e = time_zone_parse(&a, rest, &z);
		if (e)
			z = NULL;
		error_free(e);
	}
	for (int64_t x = -5000000000LL; x < 9000000000LL; x += 777777777) {
		int32_t offset = time_zone_offset(z, x);

		FUZZ_CHECK(offset > -700000 && offset < 700000);
		struct civil v = civil_of(x + offset);

		FUZZ_CHECK(civil_days(v.year, v.month, v.day) * 86400 + v.hour * 3600 + v.minute * 60 + v.second == x + offset);
	}
	e = cron_parse(text, &c);
	if (e) {
		error_free(e);
		return 0;
	}
	for (int i = 0; i < 5 && cron_next(&c, z, t, &next); i++) {
		FUZZ_CHECK(next > t);
		t = next;
		if (c.every_s)
			continue;
		struct civil v = civil_of(t + time_zone_offset(z, t));

		FUZZ_CHECK(!v.second && c.minute >> v.minute & 1 && c.hour >> v.hour & 1 && c.month >> v.month & 1);
		FUZZ_CHECK(c.dom >> v.day & 1 || c.dow >> v.weekday & 1);
	}
	return 0;
}
