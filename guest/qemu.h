/* The QEMU arguments that start a guest from its view (QEMU's docs/interop/firmware.json says how
 * each mode is mapped to pflash devices). */
#ifndef FWFS_GUEST_QEMU_H
#define FWFS_GUEST_QEMU_H

#include <stddef.h>

#include "base/error.h"
#include "store/store.h"

struct qemu_arguments {
    char **values;
    size_t count;
};

/* -machine with the type, pflash0 and pflash1, and smm; -global for secure flash; -blockdev for
 * each flash, read-only where the mode says so. */
int qemu_guest_arguments(struct store *store, const struct store_guest *guest,
                         const char *mountpoint, struct qemu_arguments *ret, struct error *err);

void qemu_arguments_clear(struct qemu_arguments *arguments);

#endif
