/* tests/unit/test.h: what every cmocka test includes first. */
#ifndef SKIFF_TESTS_TEST_H
#define SKIFF_TESTS_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/error.h"
#include "base/str.h"

/* Fails with the error's message when e is an error. */
#define assert_ok(call)                                                                            \
	do {                                                                                       \
		struct error *ok_e_ = (call);                                                      \
		if (ok_e_)                                                                         \
			fail_msg("%s: %s", #call, ok_e_->message);                                 \
	} while (0)

#define assert_str(s, z)                                                                           \
	do {                                                                                       \
		struct str str_s_ = (s);                                                           \
		if (!str_eqz(str_s_, z))                                                           \
			fail_msg("%s: \"%.*s\" is not \"%s\"", #s, STR_ARG(str_s_), z);            \
	} while (0)

#endif
