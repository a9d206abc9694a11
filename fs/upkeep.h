/* What a store needs beside its requests, in threads of its own, so that no request waits for it:
 * one compresses and holds the reserve, one makes checkpoints, one syncs when it is asked to. */
#ifndef FWFS_FS_UPKEEP_H
#define FWFS_FS_UPKEEP_H

#include "base/error.h"
#include "store/store.h"

struct upkeep;

int upkeep_new(struct store *store, struct upkeep **ret, struct error *err);

/* Has what was committed made durable, without waiting for it. */
void upkeep_sync(struct upkeep *upkeep);

/* Ends the threads, and does what was still to be done. */
void upkeep_free(struct upkeep *upkeep);

#endif
