/* The supervisor: the process that owns a mount and sees to it that a worker serves it. */
#ifndef FWFS_FS_SUPERVISOR_H
#define FWFS_FS_SUPERVISOR_H

#include "base/error.h"

/* A program that is started under this name (argv[0]) takes over from the supervisor that it was:
 * the same process, children and descriptors (enum inherited_fd). */
#define SUPERVISOR_NAME "fwfs-supervisor"

struct supervisor_config {
    void (*ready)(void *data); /* called once, when the mount answers */
    void *ready_data;
};

/* Runs on the descriptors of enum inherited_fd, all but INHERITED_CHANNEL, until the mount has
 * ended. Negative if no worker ever came to answer. */
int supervisor_run(const struct supervisor_config *config, struct error *err);

/* Goes on where the older program of the same process left off; returns the exit status. */
int supervisor_main(void);

#endif
