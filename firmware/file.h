/* Whole files, read into memory. */
#ifndef FWFS_FIRMWARE_FILE_H
#define FWFS_FIRMWARE_FILE_H

#include <stddef.h>

#include "base/error.h"

/* Reads a regular file that is not empty and has at most `size_max` bytes into memory that the
 * caller frees. It is a copy, not a mapping: whoever owns the file may shorten or rewrite it
 * meanwhile. Errors
 * (-EINVAL, or the errno of the call that failed) do not name the file. */
int file_read(const char *path, size_t size_max, void **ret, size_t *ret_size, struct error *err);

/* The same of an open file, from its beginning. */
int file_read_fd(int fd, size_t size_max, void **ret, size_t *ret_size, struct error *err);

#endif
