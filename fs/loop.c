#include "fs/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/cleanup.h"

#define LOOP_THREADS_MAX 16
/* Requests are handled on the stack; nothing recurses. */
#define THREAD_STACK_SIZE (512 * 1024)

struct loop {
    struct fuse_session *session;
    int stop_fd;
};

static void stop_all(const struct loop *loop)
{
    eventfd_write(loop->stop_fd, 1);
}

/* True when there is a request to take, false when it is time to stop. */
static bool wait_for_request(const struct loop *loop)
{
    struct pollfd fds[] = {{.fd = loop->stop_fd, .events = POLLIN},
                           {.fd = fuse_session_fd(loop->session), .events = POLLIN}};
    for (;;) {
        if (poll(fds, 2, -1) < 0 && errno != EINTR)
            return false;
        if (fds[0].revents)
            return false;
        if (fds[1].revents)
            return true;
    }
}

static void *serve(void *data)
{
    const struct loop *loop = data;
    struct fuse_buf buffer = {0};
    intptr_t r = 0;
    while (wait_for_request(loop)) {
        r = fuse_session_receive_buf(loop->session, &buffer);
        if (r == -EAGAIN || r == -EINTR)
            continue;
        if (r <= 0)
            break;
        fuse_session_process_buf(loop->session, &buffer);
        r = 0;
    }
    stop_all(loop);
    free(buffer.mem);
    return (void *)r;
}

static int start_threads(struct loop *loop, pthread_t *ids, unsigned threads)
{
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, THREAD_STACK_SIZE);
    unsigned started = 0;
    while (started < threads && pthread_create(&ids[started], &attr, serve, loop) == 0)
        started++;
    pthread_attr_destroy(&attr);
    return (int)started;
}

int loop_run(struct fuse_session *session, int stop_fd, unsigned threads, struct error *err)
{
    struct loop loop = {.session = session, .stop_fd = stop_fd};
    pthread_t ids[LOOP_THREADS_MAX];
    int fd = fuse_session_fd(session);
    if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0)
        return error_set(err, -errno, "/dev/fuse: %m");

    int started =
        start_threads(&loop, ids, threads < LOOP_THREADS_MAX ? threads : LOOP_THREADS_MAX);
    if (started == 0)
        return error_set(err, -EAGAIN, "no thread could be started");
    intptr_t failed = 0;
    for (int i = 0; i < started; i++) {
        void *r;
        pthread_join(ids[i], &r);
        if ((intptr_t)r < 0)
            failed = (intptr_t)r;
    }
    if (failed < 0)
        return error_set(err, (int)failed, "/dev/fuse: %s", strerror((int)-failed));
    return 0;
}
