/* One sync for all who wait: requests that are to be answered when everything before them is
 * durable. They wait here, not in the threads of the loop, which go on taking requests meanwhile;
 * so under load one sync serves many. */
#ifndef FWFS_FS_SYNCER_H
#define FWFS_FS_SYNCER_H

#include <stdint.h>

#include "base/error.h"

struct batch_entry;
struct ops_context;
struct syncer;

int syncer_new(struct ops_context *context, struct syncer **ret, struct error *err);

/* Answers who still waits, and ends the thread. */
void syncer_free(struct syncer *syncer);

/* Takes over a request that waits for a sync. */
void syncer_add(struct syncer *syncer, const struct batch_entry *entry);

#endif
