/* What is asked of flashes that another process has open for writing.
 *
 * RELEASE comes some time after the close(2) that it is of, so a second open waits for up to a
 * second before it is refused, as does what would replace the flash: closing it and opening it
 * elsewhere, as a live migration does, is no conflict. */
#ifndef FWFS_FS_LEASES_H
#define FWFS_FS_LEASES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct batch_entry;
struct leases;
struct ops_context;

/* Starts the thread that tries again what waits. */
int leases_new(struct ops_context *context, struct leases **ret, struct error *err);

/* Ends the thread when nothing waits any more. */
void leases_free(struct leases *leases);

/* Takes over a request for a flash that another process holds; refuses it if it has waited enough.
 */
void leases_wait(struct leases *leases, const struct batch_entry *entry);

/* Waits in the calling thread until a lease was dropped, or a while. False when it is of no use any
 * more: `*deadline_ms`, which is 0 at first, has come, or too many threads wait already. */
bool leases_pause(struct leases *leases, int64_t *deadline_ms);

/* A lease was dropped: it may be the one that somebody waits for. */
void leases_dropped(struct leases *leases);

#endif
