/* tests/fuzz/fuzz.h: a fuzz target's checks abort, so that libFuzzer and the replay program both see them. */
#ifndef SKIFF_TESTS_FUZZ_H
#define SKIFF_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define FUZZ_CHECK(x)                                                                              \
	do {                                                                                       \
		if (!(x)) {                                                                        \
			fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #x);      \
			abort();                                                                   \
		}                                                                                  \
	} while (0)
#define FUZZ_OK(call)                                                                              \
	do {                                                                                       \
		struct error *fuzz_e_ = (call);                                                    \
		if (fuzz_e_) {                                                                     \
			fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, error_message(fuzz_e_)); \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

#endif
