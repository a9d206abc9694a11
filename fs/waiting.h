/* Writes for which the store's disk has no room. QEMU ignores a failed write, so the guest would
 * lose a variable: instead the reserved space is used first, and then the write waits, loudly. A
 * thread of its own tries again what waits, so that those who read are served all the while. */
#ifndef FWFS_FS_WAITING_H
#define FWFS_FS_WAITING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct waiting;
struct batch_entry;
struct ops_context;

/* Starts the thread. A write is given up with EIO after `patience_s` seconds. */
int waiting_new(struct ops_context *context, double patience_s, struct waiting **ret,
                struct error *err);

/* Ends the thread. What still waits is not answered: the kernel sends it again to the next worker.
 */
void waiting_free(struct waiting *waiting);

bool waiting_any(struct waiting *waiting);
bool waiting_has(struct waiting *waiting, uint64_t inode);

/* Takes requests over, with a copy of their bytes. */
void waiting_add(struct waiting *waiting, const struct batch_entry *entries, size_t count);

#endif
