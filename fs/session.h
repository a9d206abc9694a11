/* A libfuse session on a mount that somebody else made, and that another worker may have served
 * before. */
#ifndef FWFS_FS_SESSION_H
#define FWFS_FS_SESSION_H

#include "base/error.h"
#include "fs/ops.h"

/* Makes a session on `fuse_fd`, which is borrowed. If the kernel's FUSE_INIT was answered by an
 * earlier worker, it is said again to libfuse; -EPROTO if this program would not agree on the same.
 */
int session_new(struct ops_context *context, int fuse_fd, struct fuse_session **ret,
                struct error *err);
void session_free(struct fuse_session *session);

/* Has the kernel send again what an earlier worker took and did not answer. Kernels before 6.9
 * cannot: -EINVAL. */
int session_resend(int fuse_fd);

#endif
