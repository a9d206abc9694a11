/* The FUSE operations, over a view. They keep no state: everything is found again from an inode
 * number, and a file handle only names the lease that it holds. */
#ifndef FWFS_FS_OPS_H
#define FWFS_FS_OPS_H

#include "fs/fuse.h"
#include "fs/view.h"

/* Names are cached this long, absent ones not at all. Attributes likewise, but for generated files.
 */
#define OPS_TIMEOUT_S 1.0

struct leases;
struct renewal;
struct syncer;
struct waiting;
struct writers;

struct ops_context {
    struct view view;
    struct state *state;
    struct writers *writers;
    struct waiting *waiting;
    struct leases *leases;
    struct renewal *renewal;
    struct syncer *syncer;
    bool read_only;             /* a mount in which nothing is written */
    bool refused;               /* a later worker would not agree with the kernel on the same */
    void (*agreed)(void *data); /* called when the kernel's FUSE_INIT is answered */
    void *agreed_data;
};

extern const struct fuse_lowlevel_ops ops_table;

/* ---- For the files that hold the operations ---- */

struct ops_context *ops_context(fuse_req_t req);
struct view *ops_view(fuse_req_t req);

/* Answers with the errno that the kernel is to see; what is the store's fault goes to the log. */
void ops_fail(fuse_req_t req, int r, const struct error *err);

/* What the kernel is told of a name that stands for this. */
struct fuse_entry_param ops_entry(const struct stat *st);

/* How long the kernel may keep attributes of an inode of this kind. */
double ops_attr_timeout(uint64_t number);

/* Nanoseconds since 1970. */
int64_t ops_now(void);

void ops_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void ops_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup);
void ops_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);
void ops_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void ops_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                     struct fuse_file_info *fi);
void ops_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void ops_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void ops_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
                struct fuse_file_info *fi);
void ops_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi);
void ops_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name);
void ops_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name);
void ops_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void ops_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void ops_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
                const char *new_name, unsigned flags);

void ops_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ops_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
                 struct fuse_file_info *fi);
void ops_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size,
                  int flags);
void ops_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void ops_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void ops_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);
void ops_statfs(fuse_req_t req, fuse_ino_t ino);

void ops_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ops_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void ops_write(fuse_req_t req, fuse_ino_t ino, const char *bytes, size_t size, off_t off,
               struct fuse_file_info *fi);
void ops_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ops_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void ops_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ops_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t length,
                   struct fuse_file_info *fi);

#endif
