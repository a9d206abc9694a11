/* A store in the test's directory, and what tests of the room `store` do with it. */
#ifndef FWFS_TESTS_UNIT_STORE_FIXTURE_H
#define FWFS_TESTS_UNIT_STORE_FIXTURE_H

#include "store/store.h"

#define FIXTURE_STORE "fwfs.db"

/* cmocka's fixture: *state is the open store. */
int fixture_enter(void **state);
int fixture_leave(void **state);

/* Closes the store and opens it again. */
void fixture_reopen(void **state, unsigned flags);

/* An image of a block a letter, which the caller frees: '0' is 0x00 throughout and 'F' 0xFF, '1'
 * and 'E' are that but for their last byte, '5' is 0x55 throughout, other capitals are noise, small
 * letters compress well. The same letter is always the same block. */
uint8_t *fixture_image(const char *letters);

/* Adds combined firmware of that image. */
struct store_firmware fixture_firmware(struct store *store, const char *name, const char *letters);

struct store_guest fixture_guest(struct store *store, const char *firmware, const char *name);

struct store_status fixture_status(struct store *store);

/* Works on the store's file behind the store's back. */
void fixture_sql(const char *sql);
int64_t fixture_integer(const char *sql);

/* xorshift64*: the same numbers each time. The result is below `end`. */
uint64_t fixture_random(uint64_t *seed, uint64_t end);

/* A file's bytes, which the caller frees. */
uint8_t *fixture_load(const char *name, size_t *size);

#endif
