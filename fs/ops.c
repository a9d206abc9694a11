#include "fs/ops.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "fs/batch.h"
#include "fs/log.h"
#include "fs/state.h"

struct ops_context *ops_context(fuse_req_t req)
{
    return fuse_req_userdata(req);
}

struct view *ops_view(fuse_req_t req)
{
    return &ops_context(req)->view;
}

void ops_fail(fuse_req_t req, int r, const struct error *err)
{
    switch (r) {
    /* What a client may have caused, and is told. */
    case -ENOENT:
    case -ENOTDIR:
    case -ENAMETOOLONG:
    case -EFBIG:
    case -E2BIG:
    case -EROFS:
    case -EINVAL:
    case -EPERM:
    case -EISDIR:
    case -EEXIST:
    case -EXDEV:
    case -EDQUOT:
    case -ESTALE:
    case -ENXIO:
    case -ENODATA:
    case -ERANGE:
    case -EOPNOTSUPP:
        fuse_reply_err(req, -r);
        return;
    case -ETXTBSY:
        fuse_reply_err(req, EBUSY);
        return;
    default:
        log_line(LOG_ERR, "%s", err->code ? err->text : strerror(-r));
        fuse_reply_err(req, EIO);
    }
}

struct fuse_entry_param ops_entry(const struct stat *st)
{
    return (struct fuse_entry_param){.ino = st->st_ino,
                                     .attr = *st,
                                     .attr_timeout = ops_attr_timeout(st->st_ino),
                                     .entry_timeout = OPS_TIMEOUT_S};
}

double ops_attr_timeout(uint64_t number)
{
    struct inode inode;
    bool generated = inode_parse(number, &inode) && inode.kind == INODE_GENERATED;
    return generated ? 0 : OPS_TIMEOUT_S;
}

int64_t ops_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* What a later worker wants must be what the first was given: the kernel is not asked again. */
static void check_agreement(struct ops_context *context, const struct fuse_conn_info *conn)
{
    struct state *state = context->state;
    if (!state->init_answered)
        state->init_want = conn->want;
    else
        context->refused = state->init_want != conn->want;
}

static void ops_init(void *userdata, struct fuse_conn_info *conn)
{
    struct ops_context *context = userdata;
    conn->want |= conn->capable & FUSE_CAP_WRITEBACK_CACHE;
    /* Shared code stays cached whatever its times say; what changes is said explicitly. */
    conn->want &= ~(unsigned)FUSE_CAP_AUTO_INVAL_DATA;
    conn->want |= conn->capable & FUSE_CAP_EXPLICIT_INVAL_DATA;
    /* A truncation must come as SETATTR, whose answer holds the size. */
    conn->want &= ~(unsigned)FUSE_CAP_ATOMIC_O_TRUNC;
    /* Locks are the kernel's: they outlive a worker. */
    conn->want &= ~(unsigned)(FUSE_CAP_POSIX_LOCKS | FUSE_CAP_FLOCK_LOCKS);
    /* A pipe costs more than copying 4 KiB. */
    conn->want &= ~(unsigned)(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
    conn->max_write = BATCH_BYTES_MAX / 2;
    check_agreement(context, conn);
    if (context->agreed)
        context->agreed(context->agreed_data);
}

const struct fuse_lowlevel_ops ops_table = {
    .init = ops_init,
    .lookup = ops_lookup,
    .forget = ops_forget,
    .forget_multi = ops_forget_multi,
    .readdir = ops_readdir,
    .readdirplus = ops_readdirplus,
    .mknod = ops_mknod,
    .mkdir = ops_mkdir,
    .create = ops_create,
    .symlink = ops_symlink,
    .link = ops_link,
    .unlink = ops_unlink,
    .rmdir = ops_rmdir,
    .rename = ops_rename,
    .getattr = ops_getattr,
    .setattr = ops_setattr,
    .setxattr = ops_setxattr,
    .getxattr = ops_getxattr,
    .listxattr = ops_listxattr,
    .removexattr = ops_removexattr,
    .statfs = ops_statfs,
    .open = ops_open,
    .read = ops_read,
    .write = ops_write,
    .flush = ops_flush,
    .fsync = ops_fsync,
    .release = ops_release,
    .fallocate = ops_fallocate,
    .lseek = ops_lseek,
};
