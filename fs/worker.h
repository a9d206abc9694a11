/* The worker: serves a mount whose /dev/fuse descriptor somebody else holds, out of a store. */
#ifndef FWFS_FS_WORKER_H
#define FWFS_FS_WORKER_H

#include <stdint.h>

#include "base/error.h"

struct worker_config {
    const char *store;
    const char *mountpoint; /* absolute */
    int64_t mounted_at;     /* nanoseconds since 1970 */
    int fuse_fd;            /* borrowed */
    int stop_fd;            /* an eventfd: readable when it is time to go */
    void (*ready)(void *data);
    void *ready_data;
};

/* Returns when the mount has ended (0), or when it was told to stop (0), or failed. */
int worker_run(const struct worker_config *config, struct error *err);

#endif
