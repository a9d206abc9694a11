/* What may stand after -o. */
#ifndef FWFS_FS_OPTIONS_H
#define FWFS_FS_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "store/store.h"

#define OPTIONS_AS_IS UINT64_MAX

/* Of the whole list. */
#define OPTIONS_LENGTH_MAX 1024

struct mount_options {
    bool read_only;
    bool allow_other;
    char firmware[STORE_NAME_MAX + 1]; /* of guests that mkdir makes; "": it makes none */
    bool has_owner;                    /* theirs is: */
    uint32_t uid, gid;
    struct store_retention keep;        /* OPTIONS_AS_IS where nothing was said */
    double pull_s;                      /* between two pulls */
    double full_wait_s;                 /* how long a write waits for room */
    double hang_s;                      /* how long a worker may not answer */
    char passed_on[OPTIONS_LENGTH_MAX]; /* to the kernel: each after a comma */
};

/* Sets the defaults, then what `text` (comma-separated, may be NULL) says. -EINVAL names what is
 * not known or has a wrong value. */
int options_parse(const char *text, struct mount_options *ret, struct error *err);

#endif
