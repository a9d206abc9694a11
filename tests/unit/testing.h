/* cmocka, with what it wants included before it, and what it lacks. */
#ifndef FWFS_TESTS_UNIT_TESTING_H
#define FWFS_TESTS_UNIT_TESTING_H

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include <string.h>

#include "base/error.h"

/* Shows both texts if it fails. */
#define assert_contains(text, part)                                                                \
    do {                                                                                           \
        if (!strstr((text), (part)))                                                               \
            fail_msg("\"%s\" has no \"%s\" in it", (text), (part));                                \
    } while (0)

/* A call failed with this code, and said so in an error that begins with `beginning`. */
#define assert_error(result, expected, err, beginning)                                             \
    do {                                                                                           \
        int result_ = (result);                                                                    \
        if (result_ != (expected) || (err).code != (expected) ||                                   \
            strncmp((err).text, (beginning), strlen(beginning)) != 0)                              \
            fail_msg("%d, \"%s\" instead of %d, \"%s…\"", result_, (err).text, (expected),         \
                     (beginning));                                                                 \
    } while (0)

#define assert_ok(result, err)                                                                     \
    do {                                                                                           \
        int result_ = (result);                                                                    \
        if (result_ != 0)                                                                          \
            fail_msg("%d, \"%s\"", result_, (err).text);                                           \
    } while (0)

#endif
