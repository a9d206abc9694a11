/* Operations on extended attributes: a flash keeps those of user, trusted and security (libvirt
 * notes in them whom a file belonged to); nothing else has any. */
#include <errno.h>
#include <string.h>
#include <sys/xattr.h>

#include "base/cleanup.h"
#include "fs/loop.h"
#include "fs/ops.h"

/* 0 and the flash whose attribute this is, or what the request is refused with. */
static int find_flash(fuse_ino_t ino, const char *name, int64_t *ret)
{
    static const char *const kept[] = {"user.", "trusted.", "security."};
    struct inode inode;
    if (!inode_parse(ino, &inode))
        return -ENOENT;
    if (inode.kind == INODE_CODE || inode.kind == INODE_GENERATED || inode_is_past(&inode))
        return -EROFS;
    *ret = inode.id;
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++)
        if (inode.kind == INODE_FLASH && strncmp(name, kept[i], strlen(kept[i])) == 0)
            return 0;
    return -EOPNOTSUPP;
}

void ops_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size,
                  int flags)
{
    struct error err = {0};
    int64_t flash;
    int r = find_flash(ino, name, &flash);
    /* What is asked again may have been done: then it is there by now, and is to be. */
    if (loop_is_resent())
        flags &= ~XATTR_CREATE;
    if (r == 0)
        r = store_flash_set_xattr(ops_view(req)->store, flash, name, value, size, flags, &err);
    if (r < 0)
        ops_fail(req, r, &err);
    else
        fuse_reply_err(req, 0);
}

void ops_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
    struct error err = {0};
    int64_t flash;
    int r = find_flash(ino, name, &flash);
    if (r == 0)
        r = store_flash_remove_xattr(ops_view(req)->store, flash, name, &err);
    if (r == -ENODATA && loop_is_resent())
        r = 0;
    if (r < 0)
        ops_fail(req, r, &err);
    else
        fuse_reply_err(req, 0);
}

/* The kernel asks with a size of 0 for the size alone. */
static void reply_bytes(fuse_req_t req, ssize_t n, const char *buffer, size_t size,
                        const struct error *err)
{
    if (n < 0)
        ops_fail(req, (int)n, err);
    else if (size == 0)
        fuse_reply_xattr(req, (size_t)n);
    else if ((size_t)n > size)
        fuse_reply_err(req, ERANGE);
    else
        fuse_reply_buf(req, buffer, (size_t)n);
}

void ops_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
    struct error err = {0};
    cleanup_free char *buffer = malloc(size ? size : 1);
    int64_t flash;
    ssize_t n = buffer ? find_flash(ino, name, &flash) : -ENOMEM;
    if (n == -EROFS)
        n = -ENODATA;
    if (n == 0)
        n = store_flash_get_xattr(ops_view(req)->store, flash, name, buffer, size, &err);
    reply_bytes(req, n, buffer, size, &err);
}

void ops_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
    struct error err = {0};
    struct inode inode;
    cleanup_free char *buffer = malloc(size ? size : 1);
    ssize_t n = buffer ? 0 : -ENOMEM;
    if (n == 0 && inode_parse(ino, &inode) && inode.kind == INODE_FLASH)
        n = store_flash_list_xattr(ops_view(req)->store, inode.id, buffer, size, &err);
    reply_bytes(req, n, buffer, size, &err);
}
