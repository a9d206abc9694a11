/* Operations on attributes. */
#include <errno.h>
#include <sys/statvfs.h>

#include "fs/batch.h"
#include "fs/ops.h"
#include "fs/process.h"

static void reply_attr(fuse_req_t req, uint64_t number)
{
    struct error err = {0};
    struct stat st;
    int r = view_stat(ops_view(req), number, &st, &err);
    if (r < 0)
        ops_fail(req, r, &err);
    else
        fuse_reply_attr(req, &st, ops_attr_timeout(number));
}

void ops_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    reply_attr(req, ino);
}

static int64_t time_to_set(const struct timespec *time, bool now)
{
    return now ? ops_now() : (int64_t)time->tv_sec * 1000000000 + time->tv_nsec;
}

/* What SETATTR asks for, as the store takes it; returns the mask. */
static unsigned attr_to_set(const struct stat *st, int to_set, struct store_attr *attr)
{
    *attr = (struct store_attr){
        .uid = st->st_uid,
        .gid = st->st_gid,
        .mode = st->st_mode & 07777,
        .atime = time_to_set(&st->st_atim, to_set & FUSE_SET_ATTR_ATIME_NOW),
        .mtime = time_to_set(&st->st_mtim, to_set & FUSE_SET_ATTR_MTIME_NOW),
        .ctime = time_to_set(&st->st_ctim, !(to_set & FUSE_SET_ATTR_CTIME)),
    };
    return STORE_ATTR_CTIME | (to_set & FUSE_SET_ATTR_UID ? STORE_ATTR_UID : 0) |
           (to_set & FUSE_SET_ATTR_GID ? STORE_ATTR_GID : 0) |
           (to_set & FUSE_SET_ATTR_MODE ? STORE_ATTR_MODE : 0) |
           (to_set & FUSE_SET_ATTR_ATIME ? STORE_ATTR_ATIME : 0) |
           (to_set & FUSE_SET_ATTR_MTIME ? STORE_ATTR_MTIME : 0);
}

/* A guest's directory follows its flash, in both directions: a stateless guest has no other file
 * that could be given to its tenant. */
static int set_guest(struct view *view, int64_t id, const struct stat *st, int to_set,
                     struct error *err)
{
    struct store_guest guest;
    struct store_attr attr;
    if (to_set & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_SIZE))
        return -EPERM;
    int r = store_guest_by_id(view->store, id, &guest, err);
    if (r < 0)
        return r;
    unsigned mask = attr_to_set(st, to_set, &attr);
    attr.mode = (attr.mode & 0444) | (guest.flash.attr.mode & 0333);
    return store_flash_set_attr(view->store, guest.flash.id, mask, &attr, err);
}

static void set_flash(fuse_req_t req, fuse_ino_t ino, int64_t flash, const struct stat *st,
                      int to_set, bool is_open)
{
    struct store_change change = {.kind = STORE_CHANGE_ATTR,
                                  .flash = flash,
                                  .now = ops_now(),
                                  .size = (uint64_t)st->st_size,
                                  .is_open = is_open};
    change.mask = attr_to_set(st, to_set, &change.attr);
    if (to_set & FUSE_SET_ATTR_SIZE) {
        change.mask |= STORE_ATTR_SIZE;
        process_describe(fuse_req_ctx(req)->pid, &change.lease.opener);
    }
    batch_attr(req, ino, &change);
}

void ops_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
                 struct fuse_file_info *fi)
{
    struct error err = {0};
    struct inode inode;
    int r = -ENOENT;
    if (inode_parse(ino, &inode)) {
        switch (inode.kind) {
        case INODE_FLASH:
            set_flash(req, ino, inode.id, attr, to_set, fi != NULL);
            return;
        case INODE_GUEST:
            r = set_guest(ops_view(req), inode.id, attr, to_set, &err);
            break;
        case INODE_CODE:
        case INODE_GENERATED:
        case INODE_SNAPSHOTS:
        case INODE_POINT:
        case INODE_PAST:
            r = -EROFS;
            break;
        case INODE_ROOT:
            r = -EPERM;
        }
    }
    if (r < 0)
        ops_fail(req, r, &err);
    else
        reply_attr(req, ino);
}

void ops_statfs(fuse_req_t req, fuse_ino_t ino)
{
    struct error err = {0};
    struct statvfs st;
    int r = view_statfs(ops_view(req), &st, &err);
    if (r < 0)
        ops_fail(req, r, &err);
    else
        fuse_reply_statfs(req, &st);
}
