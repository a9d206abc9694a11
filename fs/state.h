/* What the supervisor and the worker know together: shared memory that outlives both, since each of
 * them may be replaced while the other goes on.
 *
 * The supervisor writes the first part before the first worker starts. The worker writes the
 * handshake, once, and the rest as it works; all of that may be cut short by its death at any
 * moment, so nothing in it is more than one aligned word that has to be right. A newer program may
 * find the memory of an older one: members are only ever appended, and STATE_VERSION is raised when
 * that is not enough. */
#ifndef FWFS_FS_STATE_H
#define FWFS_FS_STATE_H

#include <limits.h>
#include <stdatomic.h>
#include <stdint.h>

#include "base/error.h"
#include "fs/options.h"

#define STATE_MAGIC UINT64_C(0x6677667374617465)
#define STATE_VERSION 1
#define STATE_INIT_MAX 512
#define STATE_THREADS_MAX 16
/* Flashes that can be open for writing and pulled; those past that wait for the kernel's own flush.
 */
#define STATE_WRITERS_MAX 131072

/* A flash that is open for writing. */
struct state_writer {
    _Atomic uint64_t inode;     /* 0: the slot is free */
    _Atomic uint32_t writes;    /* WRITE requests that came for it */
    _Atomic uint32_t overgrown; /* one of them was past its end */
};

struct state {
    uint64_t magic;
    uint32_t version;

    char program[PATH_MAX];    /* what is started as the next worker */
    char store[PATH_MAX];      /* absolute */
    char mountpoint[PATH_MAX]; /* absolute */
    char options[OPTIONS_LENGTH_MAX];
    int64_t mounted_at; /* nanoseconds since 1970 */
    uint32_t background;
    uint32_t restarts, upgrades, failed_upgrades;
    int32_t worker; /* process id; for a supervisor that takes over */

    /* The kernel's FUSE_INIT, and what was agreed upon then. */
    uint32_t init_size; /* 0: not yet received */
    uint8_t init_request[STATE_INIT_MAX];
    _Atomic uint32_t init_answered;
    uint32_t init_want;

    /* Since when (monotonic milliseconds) a thread of the loop is at its request; 0: idle. */
    _Atomic int64_t busy_since[STATE_THREADS_MAX];

    _Atomic uint32_t writer_slots; /* slots in use are below this */
    struct state_writer writers[STATE_WRITERS_MAX];
};

/* Makes the memory; it is all zero but for magic and version. Returns its descriptor
 * (close-on-exec). */
int state_create(struct state **ret, struct error *err);

/* Maps the memory behind an inherited descriptor. -EPROTO: made by a program that this one does not
 * understand. */
int state_map(int fd, struct state **ret, struct error *err);

/* Milliseconds of the monotonic clock, as in busy_since. */
int64_t state_clock_ms(void);

#endif
