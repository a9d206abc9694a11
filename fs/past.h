/* The part of the view below .snapshots: each restore point of a guest is a directory with what its
 * files were. Nothing in it can be changed. */
#ifndef FWFS_FS_PAST_H
#define FWFS_FS_PAST_H

#include "fs/view.h"

#define PAST_NAME ".snapshots"

/* Finds `name` in such a directory, and its attributes. -ENOENT, -ENOTDIR. */
int past_lookup(struct view *view, const struct inode *parent, const char *name, struct stat *ret,
                struct error *err);

int past_stat(struct view *view, const struct inode *inode, struct stat *ret, struct error *err);

/* Calls `each` with the name, the number and the type of each entry, and an offset that is the
 * entry's for good, over `after`, until it returns other than 0. */
int past_list(struct view *view, const struct inode *directory, off_t after,
              int (*each)(const char *name, const struct stat *st, off_t offset, void *data),
              void *data, struct error *err);

#endif
