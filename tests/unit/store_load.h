/* Requests of every kind to a store, which can be repeated: the same ones give the same state. */
#ifndef FWFS_TESTS_UNIT_STORE_LOAD_H
#define FWFS_TESTS_UNIT_STORE_LOAD_H

#include "store/store.h"

/* Firmware and guests to begin with. The clock of a test with a load stands at a time that only
 * load_request() moves. */
void load_begin(struct store *store);

/* Request `number` of a load, numbered from 1: each has a kind below load_kinds. All that it does
 * beyond its kind comes from `seed`. Returns what the store did; refusals are part of a load. */
extern const unsigned load_kinds;
int load_request(struct store *store, unsigned kind, uint64_t seed, unsigned number,
                 struct error *err);

#endif
