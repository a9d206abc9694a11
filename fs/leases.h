/* Opens for writing of flashes that another process has open.
 *
 * RELEASE comes some time after the close(2) that it is of, so such an open waits for up to a
 * second before it is refused: closing a flash and opening it elsewhere, as a live migration does,
 * is no conflict. */
#ifndef FWFS_FS_LEASES_H
#define FWFS_FS_LEASES_H

#include "base/error.h"

struct batch_entry;
struct leases;
struct ops_context;

/* Starts the thread that tries again what waits. */
int leases_new(struct ops_context *context, struct leases **ret, struct error *err);

/* Ends the thread when nothing waits any more. */
void leases_free(struct leases *leases);

/* Takes over an open whose flash another process holds; refuses it if it has waited enough. */
void leases_wait(struct leases *leases, const struct batch_entry *entry);

/* A lease was dropped: it may be the one that somebody waits for. */
void leases_dropped(struct leases *leases);

#endif
