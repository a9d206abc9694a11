/* The request loop: threads that take requests from the kernel and answer them, until the mount
 * ends or they are told to stop. A thread that is told to stop answers what it has taken and takes
 * no more, so nothing is lost. (libfuse's own loop drops a request that it has just read.) */
#ifndef FWFS_FS_LOOP_H
#define FWFS_FS_LOOP_H

#include "base/error.h"
#include "fs/fuse.h"

/* Serves `session` with `threads` threads. Returns 0 when the mount has ended or `stop_fd`, an
 * eventfd, became readable, and all threads are done; negative if a thread failed. */
int loop_run(struct fuse_session *session, int stop_fd, unsigned threads, struct error *err);

#endif
