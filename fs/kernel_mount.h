/* Mounting and unmounting, as the kernel sees it. */
#ifndef FWFS_FS_KERNEL_MOUNT_H
#define FWFS_FS_KERNEL_MOUNT_H

#include <stdbool.h>

#include "base/error.h"
#include "fs/options.h"

/* The directory `path` made absolute (the caller frees it), if something can be mounted there.
 * -ENOENT, -ENOTDIR, -EBUSY: something is. */
int kernel_mount_check(const char *path, char **ret, struct error *err);

/* Mounts, and returns the /dev/fuse descriptor (close-on-exec), which is the mount's life. `source`
 * is what mount(8) and df show. */
int kernel_mount(const char *source, const char *mountpoint, const struct mount_options *options,
                 struct error *err);

/* `lazy` detaches it although files are open; else these are -EBUSY. */
int kernel_unmount(const char *mountpoint, bool lazy);

#endif
