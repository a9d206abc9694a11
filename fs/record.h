/* The records of a store's mounts: a small file beside the store for each, that says who serves it,
 * for as long as it does.
 *
 * It is locked by the supervisor, so a record that is not locked is of a mount that is gone,
 * however it ended. The read-write mount's is "STORE-mount", so there cannot be two; a read-only
 * one's is the first of "STORE-mount-1", "STORE-mount-2", … that is free. The content is a JSON
 * object. */
#ifndef FWFS_FS_RECORD_H
#define FWFS_FS_RECORD_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

struct record {
    char mountpoint[PATH_MAX];
    pid_t supervisor, worker; /* worker 0: none at the moment */
    int64_t mounted_at;       /* nanoseconds since 1970 */
    uint32_t restarts, upgrades, failed_upgrades;
    bool read_only;
};

/* Takes a record for a mount. Returns a descriptor (close-on-exec) that holds it; -EBUSY says who
 * has the store mounted read-write. */
int record_acquire(const char *store, bool read_only, struct error *err);

void record_write(int fd, const struct record *record);

/* Takes the file away; the lock goes with the last descriptor. */
void record_remove(int fd);

/* 1 and the record of the read-write mount that lives, 0 if there is none. */
int record_read(const char *store, struct record *ret, struct error *err);

/* The records of the mounts that live, the read-write one first, in an array that the caller frees.
 * Returns their number. */
ssize_t record_list(const char *store, struct record **ret, struct error *err);

/* 1 and the record of the mount there, or 0. */
int record_find(const char *store, const char *mountpoint, bool read_only, struct record *ret,
                struct error *err);

#endif
