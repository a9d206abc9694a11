/* Flashes that have no name any more: their blocks go when nobody has them open.
 *
 * The kernel alone knows who has; it is asked, each second, whether it still knows the inode. */
#ifndef FWFS_FS_SWEEPER_H
#define FWFS_FS_SWEEPER_H

#include "fs/fuse.h"
#include "store/store.h"

struct sweeper;

/* Starts the thread. */
int sweeper_new(struct store *store, struct fuse_session *session, struct sweeper **ret,
                struct error *err);
void sweeper_free(struct sweeper *sweeper);

#endif
