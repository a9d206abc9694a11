/* The request loop: threads that take requests from the kernel and answer them, until the mount
 * ends or they are told to stop. A thread that is told to stop answers what it has taken and takes
 * no more, so nothing is lost. (libfuse's own loop drops a request that it has just read.) */
#ifndef FWFS_FS_LOOP_H
#define FWFS_FS_LOOP_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "fs/batch.h"
#include "fs/fuse.h"
#include "fs/state.h"

/* The longest request: a write (see ops_init()), and what libfuse counts for the headers. */
#define LOOP_REQUEST_MAX (BATCH_BYTES_MAX / 2 + 4096)

/* What the loop serves with. A request is answered when it is handled, or gathered (batched) and
 * answered by settle() together with others. */
struct loop_hooks {
    int (*thread_start)(void *data); /* in each thread; negative: it does not run */
    void (*thread_end)(void *data);
    bool (*is_quick)(uint32_t opcode); /* handling it does not wait, not for a disk either */
    bool (*has_gathered)(void *data);  /* the calling thread */
    bool (*is_full)(void *data);       /* the calling thread can gather no more */
    void (*settle)(void *data);        /* answers what the calling thread has gathered */
};

struct loop {
    struct fuse_session *session;
    struct state *state; /* for what its threads are at, and the kernel's FUSE_INIT */
    const struct loop_hooks *hooks;
    void *data;
    int stop_fd; /* an eventfd, see loop_stop() */
    atomic_bool stopping;
    pthread_mutex_t leader; /* held by the one thread that takes requests; guards what follows */
    int64_t taken_ns;       /* when the last request came (monotonic) */
    int64_t patience_ns;    /* how long after it to look for the next without sleeping */
};

/* Tells all threads to stop, from any thread. */
void loop_stop(struct loop *loop);

/* Serves until all threads are done. Returns 1 when the mount has ended, 0 when it was told to
 * stop, negative if a thread failed. */
int loop_run(struct loop *loop, unsigned threads, struct error *err);

/* True while the calling thread is at a request that the kernel has sent before: another worker
 * took it, and may have done it, but did not answer. */
bool loop_is_resent(void);

/* The kernel's number of the calling thread's request: the same when it is sent again. */
uint64_t loop_unique(void);

/* The kernel's opcode of the calling thread's request. */
uint32_t loop_opcode(void);

#endif
