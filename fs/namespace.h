/* What changes names: making, removing and renaming guests, and the files that a guest's directory
 * lets one make. Knows the store, not FUSE.
 *
 * `parent` and `new_parent` are inode numbers of directories. Names that the view does not let one
 * make are refused with -EPERM, those that the mode has not with -EROFS; what is open for writing
 * with -ETXTBSY. */
#ifndef FWFS_FS_NAMESPACE_H
#define FWFS_FS_NAMESPACE_H

#include "fs/view.h"

/* A guest of the mount's firmware. `owner` is whose it is where the mount names nobody. */
int namespace_mkdir(struct view *view, uint64_t parent, const char *name,
                    const struct store_attr *owner, struct error *err);
int namespace_rmdir(struct view *view, uint64_t parent, const char *name, struct error *err);

/* vars again, or a staging file, with the mode and times of `attr`. */
int namespace_create(struct view *view, uint64_t parent, const char *name,
                     const struct store_attr *attr, struct error *err);
int namespace_unlink(struct view *view, uint64_t parent, const char *name, struct error *err);

/* `flags` as renameat2(2). */
int namespace_rename(struct view *view, uint64_t parent, const char *name, uint64_t new_parent,
                     const char *new_name, unsigned flags, struct error *err);

/* What mknod, symlink and link are refused with. */
int namespace_refuse(struct view *view, uint64_t parent, const char *name);

#endif
