/* Mounting: from options to a filesystem that answers, and to the next version of itself. */
#ifndef FWFS_FS_MOUNT_H
#define FWFS_FS_MOUNT_H

#include <stdbool.h>

#include "base/error.h"

struct mount_config {
    const char *store;      /* path of the store */
    const char *mountpoint; /* an existing directory */
    const char *options;    /* comma-separated, as after -o; NULL: none */
    bool foreground;        /* stay, log to stderr, until it is unmounted or told to end */
    bool check_only;        /* see whether it could be mounted, and leave it at that */
};

/* The options that mount_run() takes, a line each, for --help. */
extern const char mount_options_help[];

/* Mounts and serves. In the background it returns 0 as soon as the mount answers, leaving a process
 * behind; in the foreground when the mount has ended. -EINVAL: a wrong option; -ENOENT, -ENOTDIR:
 * the mount point; -EBUSY: something is mounted there already, or the store is mounted elsewhere.
 */
int mount_run(const struct mount_config *config, struct error *err);

/* Has the mount upgraded to the program on disk; returns when that serves. -ENOENT: fwfs is not
 * mounted there; -EIO: it did not take place, and the mount's log says why. */
int mount_reload(const char *mountpoint, struct error *err);

/* True, with the exit status, if this program was started as a part of a mount, not by a person. */
bool mount_is_part(const char *argv0, int *status);

#endif
