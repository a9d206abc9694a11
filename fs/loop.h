/* The request loop: threads that take requests from the kernel and answer them, until the mount
 * ends or they are told to stop. A thread that is told to stop answers what it has taken and takes
 * no more, so nothing is lost. (libfuse's own loop drops a request that it has just read.) */
#ifndef FWFS_FS_LOOP_H
#define FWFS_FS_LOOP_H

#include <stdbool.h>

#include "base/error.h"
#include "fs/fuse.h"
#include "fs/state.h"

struct loop {
    struct fuse_session *session;
    int stop_fd;         /* an eventfd; the loop makes it readable itself when one thread ends */
    struct state *state; /* for what its threads are at, and the kernel's FUSE_INIT */
    void *data;
    int (*thread_start)(void *data); /* in each thread; negative: it does not run */
    void (*thread_end)(void *data);
    bool (*is_full)(void *data); /* no request is taken before settle() */
    void (*settle)(void *data);  /* nothing waits: answer what was taken but not yet answered */
};

/* Serves until all threads are done. Returns 1 when the mount has ended, 0 when it was told to
 * stop, negative if a thread failed. */
int loop_run(struct loop *loop, unsigned threads, struct error *err);

/* True while the calling thread is at a request that the kernel has sent before: another worker
 * took it, and may have done it, but did not answer. */
bool loop_is_resent(void);

/* The kernel's opcode of the calling thread's request. */
uint32_t loop_opcode(void);

#endif
