/* Firmware image files: their bytes, in either format, and whether they can work. */
#ifndef FWFS_FIRMWARE_IMAGE_H
#define FWFS_FIRMWARE_IMAGE_H

#include <stddef.h>

#include "base/error.h"
#include "firmware/descriptor.h"

/* QEMU's flash has sectors of this size, and an image is a multiple (hw/block/pflash_cfi01.c). */
#define IMAGE_SECTOR_SIZE 4096
/* A bank of arm's virt machine, the largest there is (hw/arm/virt.c, VIRT_FLASH). */
#define IMAGE_SIZE_MAX (64 * 1024 * 1024)

/* An image's raw bytes: a copy in memory, which stays what it was checked to be whatever becomes of
 * the file. */
struct image {
    const void *bytes;
    size_t size;
};

/* Looks at the file's first bytes: qcow2 if it has qcow2's magic, else raw. */
int image_probe_format(const char *path, enum image_format *format, struct error *err);

/* Maps the raw bytes of the file at `path`; a qcow2 is converted by qemu-img to a temporary file
 * that is gone before this returns. Refused, each with a line that begins with the path: what
 * cannot be read (-ENOENT, -EACCES, …), is no regular file, is empty, is no multiple of
 * IMAGE_SECTOR_SIZE or over IMAGE_SIZE_MAX, is qcow2 although `format` says raw or the other way
 * round, or has a backing or external data file (-EINVAL); a qcow2 where qemu-img is not installed
 * (-ENOTSUP). */
int image_load(const char *path, enum image_format format, struct image *ret, struct error *err);

/* Gives the memory back; harmless on a zeroed struct. */
void image_unload(struct image *image);

#endif
