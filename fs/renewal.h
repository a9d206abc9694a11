/* Flashes of which the kernel has the size wrong.
 *
 * With writeback caching the kernel grows a file in its own mind when it is written past its end,
 * and nothing but a new inode number makes it think again. So when such a file is closed its flash
 * gets a new version, and the kernel is told to forget the name. That takes locks of the kernel
 * that others hold while they wait for an answer, so it is done in a thread of its own. */
#ifndef FWFS_FS_RENEWAL_H
#define FWFS_FS_RENEWAL_H

#include "fs/fuse.h"
#include "fs/ops.h"

struct renewal;

/* The kernel is told through `session`. */
int renewal_new(struct ops_context *context, struct fuse_session *session, struct renewal **ret,
                struct error *err);
void renewal_free(struct renewal *renewal);

/* Takes a FLUSH over: it is answered when the flash has a new number and what was written is
 * durable. */
void renewal_flush(struct renewal *renewal, fuse_req_t req, uint64_t inode);

#endif
