/* All that a store tells through its door, as a text to be compared. */
#ifndef FWFS_TESTS_UNIT_STORE_DUMP_H
#define FWFS_TESTS_UNIT_STORE_DUMP_H

#include "store/store.h"

/* 0 and the text, which the caller frees; or the first error that there was. */
int store_dump(struct store *store, char **ret, struct error *err);

#endif
