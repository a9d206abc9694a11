/* The record of a mount: a small file beside the store that says who serves it, for as long as it
 * does.
 *
 * It is locked by the supervisor, so a record that is not locked is of a mount that is gone,
 * however it ended, and a store cannot be mounted read-write twice. Its content is a JSON object.
 */
#ifndef FWFS_FS_RECORD_H
#define FWFS_FS_RECORD_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

struct record {
    char mountpoint[PATH_MAX];
    pid_t supervisor, worker; /* worker 0: none at the moment */
    int64_t mounted_at;       /* nanoseconds since 1970 */
    uint32_t restarts, upgrades, failed_upgrades;
};

/* Takes the store for a mount. Returns a descriptor (close-on-exec) that holds it; -EBUSY says who
 * has it. */
int record_acquire(const char *store, struct error *err);

void record_write(int fd, const struct record *record);

/* Takes the file away; the lock goes with the last descriptor. */
void record_remove(const char *store);

/* 1 and the record of a mount that lives, 0 if the store is not mounted. */
int record_read(const char *store, struct record *ret, struct error *err);

#endif
