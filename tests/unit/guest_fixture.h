/* A store in the test's directory, with firmware of every mode, for tests of the room `guest`. */
#ifndef FWFS_TESTS_UNIT_GUEST_FIXTURE_H
#define FWFS_TESTS_UNIT_GUEST_FIXTURE_H

#include "firmware/descriptor.h"
#include "store/store.h"

#define FIXTURE_CODE_SIZE (64 * 1024)
#define FIXTURE_VARS_SIZE (16 * 1024)

/* cmocka's fixture: *state is the open store. */
int fixture_enter(void **state);
int fixture_leave(void **state);

/* Facts of an x86 firmware of the mode, to be changed before they are installed: its images are
 * code.fd and vars.fd in the test's directory. */
struct descriptor_facts fixture_facts(enum flash_mode mode);

/* Adds firmware and a guest of it. */
void fixture_install(struct store *store, const char *firmware,
                     const struct descriptor_facts *facts);
struct store_guest fixture_guest(struct store *store, const char *firmware, const char *guest);

#endif
