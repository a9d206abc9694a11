/* Bringing firmware into a store: a descriptor, the image files that it names, and the checks on
 * both. */
#ifndef FWFS_GUEST_INSTALL_H
#define FWFS_GUEST_INSTALL_H

#include <stddef.h>

#include "base/error.h"
#include "firmware/descriptor.h"
#include "store/store.h"

/* Loads the images that `descriptor` names and adds the firmware as `name`. Returns 1 if exactly
 * this firmware was there already. Nothing is added when anything fails. */
int install_firmware(struct store *store, const char *name, const struct descriptor *descriptor,
                     struct error *err);

/* The same for a descriptor file; the firmware's name is the file's without ".json", and is put
 * into `name` as soon as it is known. */
int install_descriptor(struct store *store, const char *path, char name[STORE_NAME_MAX + 1],
                       struct error *err);

#endif
