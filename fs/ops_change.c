/* Operations that change names.
 *
 * A request that is sent again may have been done by the worker that took it before; then what it
 * asks for is there already (or gone already), and that is success. */
#include <errno.h>
#include <fcntl.h>

#include "fs/batch.h"
#include "fs/leases.h"
#include "fs/loop.h"
#include "fs/namespace.h"
#include "fs/ops.h"

static struct store_attr caller_attr(fuse_req_t req, mode_t mode)
{
    const struct fuse_ctx *caller = fuse_req_ctx(req);
    int64_t now = ops_now();
    return (struct store_attr){.uid = caller->uid,
                               .gid = caller->gid,
                               .mode = mode & 07777,
                               .atime = now,
                               .mtime = now,
                               .ctime = now};
}

/* 0 if that is what it means that the request failed with `r`. */
static int unless_done_before(int r, int means_done)
{
    return r == means_done && loop_is_resent() ? 0 : r;
}

static void reply(fuse_req_t req, int r, const struct error *err)
{
    if (r < 0)
        ops_fail(req, r, err);
    else
        fuse_reply_err(req, 0);
}

void ops_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    struct error err = {0};
    struct stat st = {0};
    struct store_attr owner = caller_attr(req, mode);
    int r = namespace_mkdir(ops_view(req), parent, name, &owner, &err);
    r = unless_done_before(r, -EEXIST);
    if (r == 0)
        r = view_lookup(ops_view(req), parent, name, &st, &err);
    struct fuse_entry_param entry = ops_entry(&st);
    if (r < 0)
        ops_fail(req, r, &err);
    else
        fuse_reply_entry(req, &entry);
}

/* True if something in the way may be gone by now, and it is to be tried again. */
static bool try_again(fuse_req_t req, int r, int64_t *deadline_ms)
{
    return r == -ETXTBSY && leases_pause(ops_context(req)->leases, deadline_ms);
}

static void remove_name(fuse_req_t req, fuse_ino_t parent, const char *name,
                        int (*remove)(struct view *view, uint64_t parent, const char *name,
                                      struct error *err))
{
    struct error err = {0};
    int64_t deadline_ms = 0;
    int r;
    do {
        r = remove(ops_view(req), parent, name, &err);
    } while (try_again(req, r, &deadline_ms));
    reply(req, unless_done_before(r, -ENOENT), &err);
}

void ops_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    remove_name(req, parent, name, namespace_rmdir);
}

void ops_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    remove_name(req, parent, name, namespace_unlink);
}

void ops_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
                const char *new_name, unsigned flags)
{
    struct error err = {0};
    struct stat st;
    int64_t deadline_ms = 0;
    int r;
    do {
        r = namespace_rename(ops_view(req), parent, name, new_parent, new_name, flags, &err);
    } while (try_again(req, r, &deadline_ms));
    if (r == -ENOENT && view_lookup(ops_view(req), new_parent, new_name, &st, NULL) == 0)
        r = unless_done_before(r, -ENOENT);
    reply(req, r, &err);
}

void ops_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
                struct fuse_file_info *fi)
{
    struct error err = {0};
    struct inode inode;
    struct stat st = {0};
    struct store_attr attr = caller_attr(req, mode);
    int r = namespace_create(ops_view(req), parent, name, &attr, &err);
    r = unless_done_before(r, -EEXIST);
    if (r == 0)
        r = view_lookup(ops_view(req), parent, name, &st, &err);
    struct fuse_entry_param entry = ops_entry(&st);
    if (r == 0 && (!inode_parse(st.st_ino, &inode) || inode.kind != INODE_FLASH))
        r = -EPERM;
    if (r < 0)
        ops_fail(req, r, &err);
    else if ((fi->flags & O_ACCMODE) == O_RDONLY)
        fuse_reply_create(req, &entry, fi);
    else
        batch_open(req, &inode, st.st_ino, BATCH_ANSWER_CREATE);
}

/* ---- What the view does not have ---- */

void ops_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
    fuse_reply_err(req, -namespace_refuse(ops_view(req), parent, name));
}

void ops_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name)
{
    fuse_reply_err(req, -namespace_refuse(ops_view(req), parent, name));
}

void ops_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
    fuse_reply_err(req, -namespace_refuse(ops_view(req), parent, name));
}
