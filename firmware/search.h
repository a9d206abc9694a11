/* Where descriptors are found: the search path of QEMU's docs/interop/firmware.json. */
#ifndef FWFS_FIRMWARE_SEARCH_H
#define FWFS_FIRMWARE_SEARCH_H

#include <stddef.h>

#include "base/error.h"

/* Descriptor files in the order in which they are to be tried. */
struct search_result {
    char **paths;
    size_t count;
};

/* Lists /usr/share/qemu/firmware, /etc/qemu/firmware and, unless the caller is root (as libvirt
 * does), $XDG_CONFIG_HOME/qemu/firmware (by default $HOME/.config), sorted by file name; a file in
 * a later directory takes the place of one of the same name in an earlier, or hides it if it has no
 * bytes. Names that do not end in ".json" or begin with '.', and what is no regular file, are
 * passed over. A directory that does not exist is empty. */
int search_descriptors(struct search_result *ret, struct error *err);

/* The same over directories of one's own, from the most general to the most specific. */
int search_directories(const char *const *directories, size_t count, struct search_result *ret,
                       struct error *err);

void search_result_clear(struct search_result *result);

#endif
