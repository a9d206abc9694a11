/* The image files that firmware was added from, where they are still there. */
#ifndef FWFS_GUEST_ORIGINAL_H
#define FWFS_GUEST_ORIGINAL_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "store/store.h"

/* The bytes of the executable's file, or the nvram-template's, that the firmware's descriptor
 * names; whether they are still the same is the caller's to see, who frees them. */
int original_load(struct store *store, const char *firmware, bool nvram_template, void **ret,
                  size_t *ret_size, struct error *err);

#endif
