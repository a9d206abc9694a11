/* The pull: once in an interval, the kernel is asked to write back each flash that is open for
 * writing.
 *
 * It runs in a thread of the supervisor, never of a worker: it waits in the kernel for pages that a
 * worker has to take, so a worker that is killed while its own thread waits there could not even
 * die. Nobody ever waits for this thread; an exec would, and hang with it, so it comes after a
 * pause. There is one pull a process. */
#ifndef FWFS_FS_PULL_H
#define FWFS_FS_PULL_H

#include <stdbool.h>

#include "base/error.h"
#include "fs/state.h"

/* Starts the thread, which goes with the process. After each round `done_fd`, an eventfd, is made
 * readable. Both descriptors are borrowed for good. */
int pull_start(struct state *state, int fuse_fd, int done_fd, double interval_s, struct error *err);

/* Has it wait between two flashes; false while it is still at one: ask again later. */
bool pull_pause(void);
void pull_resume(void);

#endif
