/* The worker: the process that answers the kernel's requests, out of a store.
 *
 * It is started by a supervisor with these descriptors and may be killed at any moment: all it
 * knows is in the store, in the kernel, or in the shared state. */
#ifndef FWFS_FS_WORKER_H
#define FWFS_FS_WORKER_H

/* Descriptors that a worker, or a supervisor that takes over, finds open. */
enum inherited_fd {
    INHERITED_STATE = 3,   /* see fs/state.h */
    INHERITED_FUSE = 4,    /* the mount's /dev/fuse */
    INHERITED_CHANNEL = 5, /* to the other, see fs/channel.h */
    INHERITED_RECORD = 6,  /* see fs/record.h; the supervisor's alone */
};

/* A program that is started under this name (argv[0]) is a worker. */
#define WORKER_NAME "fwfs-worker"

/* Runs until the mount has ended or the supervisor has told it to go; returns the exit status. */
int worker_main(void);

#endif
