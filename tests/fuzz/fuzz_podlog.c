/* Lines of container logs: parsing never reads outside, and what it gives lies within the line. */
#include "fuzz.h"
#include "kubelet/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct str line = str_of((const char *)data, n);
	struct log_entry e;

	if (!pod_log_parse(line, &e))
		return 0;
	FUZZ_CHECK(e.time.p == line.p && e.time.n >= 20 && e.time.n < n);
	FUZZ_CHECK(e.content.n == 0 || (e.content.p > line.p && e.content.p + e.content.n <= line.p + n));
	return 0;
}
