/* qcow2 images (QEMU's docs/interop/qcow2.txt), as far as turning them into raw bytes goes. Errors
 * do not name the file: the caller knows it. */
#ifndef FWFS_FIRMWARE_QCOW2_H
#define FWFS_FIRMWARE_QCOW2_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* The bytes that qcow2_is() looks at. */
#define QCOW2_MAGIC_SIZE 4

/* Whether an image that begins with these bytes is qcow2. */
bool qcow2_is(const void *bytes, size_t size);

/* Reads the guest-visible size from the header. Refuses with -EINVAL what is cut off, of an unknown
 * version, encrypted, or would have bytes of other files in it: one with a backing file or an
 * external data file, whose names are the image's to choose. */
int qcow2_virtual_size(const void *bytes, size_t size, uint64_t *ret, struct error *err);

/* Converts an image that passed qcow2_virtual_size() by qemu-img; -ENOTSUP where that is not
 * installed. qemu-img is given a private copy of the bytes that were checked, so a file that is
 * exchanged meanwhile cannot have it open others. The caller frees *ret, which has `virtual_size`
 * bytes. */
int qcow2_convert(const void *bytes, size_t size, size_t virtual_size, void **ret,
                  struct error *err);

#endif
