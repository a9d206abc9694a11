/* Operations on open files. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "fs/batch.h"
#include "fs/ops.h"
#include "fs/renewal.h"
#include "fs/writers.h"

void ops_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct inode inode;
    bool to_write = (fi->flags & O_ACCMODE) != O_RDONLY;
    if (!inode_parse(ino, &inode)) {
        fuse_reply_err(req, ENOENT);
        return;
    }
    if (to_write && inode.kind != INODE_FLASH) {
        fuse_reply_err(req, EROFS);
        return;
    }
    /* An image never changes, nor does the past, so what is cached of it is right for ever. */
    fi->keep_cache = inode.kind == INODE_CODE || inode.kind == INODE_PAST;
    fi->direct_io = inode.kind == INODE_GENERATED;
    if (to_write)
        batch_open(req, &inode, ino, BATCH_ANSWER_OPEN);
    else
        fuse_reply_open(req, fi);
}

static ssize_t read_generated(struct view *view, const struct inode *inode, char *buffer,
                              size_t size, off_t off, struct error *err)
{
    cleanup_free char *text = NULL;
    int r = view_generate(view, inode, &text, err);
    if (r < 0)
        return r;
    size_t length = strlen(text);
    if ((size_t)off >= length)
        return 0;
    size_t part = length - (size_t)off < size ? length - (size_t)off : size;
    memcpy(buffer, text + off, part);
    return (ssize_t)part;
}

static ssize_t read_inode(struct view *view, uint64_t number, char *buffer, size_t size, off_t off,
                          struct error *err)
{
    struct inode inode;
    if (!inode_parse(number, &inode))
        return -ENOENT;
    switch (inode.kind) {
    case INODE_CODE:
        return store_image_read(view->store, inode.id, (uint64_t)off, buffer, size, err);
    case INODE_FLASH:
        return store_flash_read(view->store, inode.id, (uint64_t)off, buffer, size, err);
    case INODE_GENERATED:
        return read_generated(view, &inode, buffer, size, off, err);
    case INODE_PAST:
        return store_point_read(view->store, inode.id, (uint64_t)off, buffer, size, err);
    case INODE_ROOT:
    case INODE_GUEST:
    case INODE_SNAPSHOTS:
    case INODE_POINT:
        break;
    }
    return -EISDIR;
}

void ops_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    struct error err = {0};
    cleanup_free char *buffer = malloc(size);
    ssize_t n = buffer ? read_inode(ops_view(req), ino, buffer, size, off, &err) : -ENOMEM;
    /* Its guest was removed. */
    if (n == -ENOENT)
        n = -ESTALE;
    if (n < 0)
        ops_fail(req, (int)n, &err);
    else
        fuse_reply_buf(req, buffer, (size_t)n);
}

void ops_write(fuse_req_t req, fuse_ino_t ino, const char *bytes, size_t size, off_t off,
               struct fuse_file_info *fi)
{
    struct inode inode;
    if (!inode_parse(ino, &inode) || inode.kind != INODE_FLASH) {
        fuse_reply_err(req, EROFS);
        return;
    }
    writers_wrote(ops_context(req)->writers, ino);
    batch_write(req, ino, inode.id, (uint64_t)off, bytes, size);
}

/* FLUSH says nothing of how the file was opened; a sync with nothing to do is free. */
static void sync_flash(fuse_req_t req, fuse_ino_t ino)
{
    struct inode inode;
    if (inode_parse(ino, &inode) && inode.kind == INODE_FLASH)
        batch_sync(req, ino);
    else
        fuse_reply_err(req, 0);
}

void ops_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    if (writers_is_overgrown(ops_context(req)->writers, ino))
        renewal_flush(ops_context(req)->renewal, req, ino);
    else
        sync_flash(req, ino);
}

void ops_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    sync_flash(req, ino);
}

void ops_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct inode inode;
    bool to_write = (fi->flags & O_ACCMODE) != O_RDONLY;
    if (to_write && inode_parse(ino, &inode) && inode.kind == INODE_FLASH)
        batch_release(req, &inode, ino, fi->fh);
    else
        fuse_reply_err(req, 0);
}

void ops_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t length,
                   struct fuse_file_info *fi)
{
    fuse_reply_err(req, EOPNOTSUPP);
}

/* While somebody has it open for writing, pages that were not written back yet may lie in what the
 * store takes for a hole: then all is data, which is never wrong. */
static int64_t seek_flash(struct view *view, int64_t flash, uint64_t offset, bool hole,
                          struct error *err)
{
    struct store_holder holder;
    struct store_flash found;
    int held = store_lease_get(view->store, flash, &holder, err);
    if (held <= 0)
        return held < 0 ? held : store_flash_seek(view->store, flash, offset, hole, err);
    int r = store_flash_get(view->store, flash, &found, err);
    if (r == 0 && offset >= found.size)
        r = -ENXIO;
    return r < 0 ? r : (int64_t)(hole ? found.size : offset);
}

void ops_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
    struct error err = {0};
    struct inode inode;
    bool hole = whence == SEEK_HOLE;
    int64_t found = -EINVAL;
    if (off < 0)
        found = -ENXIO;
    else if (inode_parse(ino, &inode) && inode.kind == INODE_FLASH)
        found = seek_flash(ops_view(req), inode.id, (uint64_t)off, hole, &err);
    else if (inode_parse(ino, &inode) && inode.kind == INODE_CODE)
        found = store_image_seek(ops_view(req)->store, inode.id, (uint64_t)off, hole, &err);
    if (found < 0)
        ops_fail(req, (int)found, &err);
    else
        fuse_reply_lseek(req, found);
}
