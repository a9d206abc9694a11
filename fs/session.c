#include "fs/session.h"

#include <errno.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "fs/loop.h"
#include "fs/state.h"

/* FUSE_NOTIFY_RESEND (Linux 6.9, include/uapi/linux/fuse.h). */
#define NOTIFY_RESEND 7
/* A `unique` that the kernel never gives, so that it refuses the answer. */
#define REPLAY_UNIQUE (~UINT64_C(0) >> 2)

static ssize_t read_request(int fd, void *buffer, size_t size, void *userdata)
{
    return read(fd, buffer, size < LOOP_REQUEST_MAX ? size : LOOP_REQUEST_MAX);
}

/* Without FUSE_HANDLE_KILLPRIV_V2 the kernel asks for security.capability at every write, which
 * undoes writeback caching; libfuse 3.14 has no name for it, so the answer to FUSE_INIT gets it on
 * its way out. The kernel then says with a WRITE when suid and sgid are to be dropped. */
static void amend_init(struct fuse_init_out *init, bool read_only)
{
    init->flags |= FUSE_HANDLE_KILLPRIV_V2;
    /* It would keep times of its own. */
    if (read_only)
        init->flags &= ~(uint32_t)FUSE_WRITEBACK_CACHE;
}

/* What a read-only mount shows of a flash is written by others, so nothing of it is cached, not
 * even while it is open. An image has said that it is kept. */
static void amend_open(struct fuse_open_out *open, bool read_only)
{
    if (read_only && !(open->open_flags & FOPEN_KEEP_CACHE))
        open->open_flags |= FOPEN_DIRECT_IO;
}

static ssize_t write_answer(int fd, struct iovec *iov, int count, void *userdata)
{
    const struct ops_context *context = userdata;
    const struct fuse_out_header *header = iov[0].iov_base;
    bool done = count > 1 && header->error == 0;
    if (done && loop_opcode() == FUSE_INIT)
        amend_init(iov[1].iov_base, context->read_only);
    if (done && loop_opcode() == FUSE_OPEN && iov[1].iov_len == sizeof(struct fuse_open_out))
        amend_open(iov[1].iov_base, context->read_only);
    return writev(fd, iov, count);
}

static void replay_init(struct fuse_session *session, const struct state *state)
{
    uint8_t request[STATE_INIT_MAX];
    memcpy(request, state->init_request, sizeof request);
    ((struct fuse_in_header *)request)->unique = REPLAY_UNIQUE;
    struct fuse_buf buffer = {.mem = request, .size = state->init_size};
    fuse_session_process_buf(session, &buffer);
}

int session_new(struct ops_context *context, int fuse_fd, struct fuse_session **ret,
                struct error *err)
{
    static const struct fuse_custom_io io = {.writev = write_answer, .read = read_request};
    char *argv[] = {(char[]){"fwfs"}, NULL};
    struct fuse_args args = FUSE_ARGS_INIT(1, argv);
    struct fuse_session *session = fuse_session_new(&args, &ops_table, sizeof ops_table, context);
    fuse_opt_free_args(&args);
    if (!session)
        return error_set(err, -ENOMEM, "libfuse made no session");
    /* The session closes its descriptor. */
    int fd = dup(fuse_fd);
    int r = fd < 0 ? -errno : fuse_session_custom_io(session, &io, fd);
    if (r < 0) {
        fuse_session_destroy(session);
        return error_set(err, r, "libfuse did not take the mount: %s", strerror(-r));
    }
    *ret = session;
    if (!context->state->init_answered)
        return 0;
    replay_init(session, context->state);
    if (context->refused) {
        session_free(steal_ptr(*ret));
        return error_set(err, -EPROTO,
                         "this program wants of the kernel what the mount was not made with; "
                         "unmount and mount again to change over");
    }
    return 0;
}

void session_free(struct fuse_session *session)
{
    if (session)
        fuse_session_destroy(session);
}

int session_resend(int fuse_fd)
{
    struct fuse_out_header message = {.len = sizeof message, .error = NOTIFY_RESEND};
    return write(fuse_fd, &message, sizeof message) < 0 ? -errno : 0;
}
