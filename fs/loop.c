#include "fs/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>

#include "fs/log.h"
#include "fs/memory.h"
#include "fs/thread.h"

/* FUSE_UNIQUE_RESEND of Linux 6.9 (include/uapi/linux/fuse.h). */
#define UNIQUE_RESEND (UINT64_C(1) << 63)

/* To be woken takes longer than most requests do, so while they come close upon each other the
 * leader keeps looking this long before it sleeps. */
#define PATIENCE_NS 100000
/* What was gathered waits at most until so many others were handled. */
#define TAKEN_AT_ONCE 256

struct loop_thread {
    struct loop *loop;
    _Atomic int64_t *busy_since;
    struct fuse_buf buffer;
    pthread_t id;
    int result;
};

static __thread struct {
    bool resent;
    uint64_t unique;
    uint32_t opcode;
} current;

bool loop_is_resent(void)
{
    return current.resent;
}

uint64_t loop_unique(void)
{
    return current.unique;
}

uint32_t loop_opcode(void)
{
    return current.opcode;
}

void loop_stop(struct loop *loop)
{
    loop->stopping = true;
    eventfd_write(loop->stop_fd, 1);
}

static int64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void note_request(struct loop *loop)
{
    int64_t now = clock_ns();
    loop->patience_ns = now - loop->taken_ns < 2 * PATIENCE_NS ? PATIENCE_NS : 0;
    loop->taken_ns = now;
}

static void wait_for_request(const struct loop *loop)
{
    if (clock_ns() - loop->taken_ns < loop->patience_ns) {
        sched_yield();
        return;
    }
    struct pollfd fds[] = {{.fd = loop->stop_fd, .events = POLLIN},
                           {.fd = fuse_session_fd(loop->session), .events = POLLIN}};
    poll(fds, 2, -1);
}

/* A worker to come will say it again to libfuse, so it is kept. */
static void keep_init(struct state *state, const struct fuse_buf *buffer)
{
    if (buffer->size > sizeof state->init_request)
        return;
    memcpy(state->init_request, buffer->mem, buffer->size);
    state->init_size = (uint32_t)buffer->size;
}

static void process(struct loop_thread *thread)
{
    struct loop *loop = thread->loop;
    const struct fuse_in_header *header = thread->buffer.mem;
    current.resent = header->unique & UNIQUE_RESEND;
    current.unique = header->unique & ~UNIQUE_RESEND;
    current.opcode = header->opcode;
    bool init = current.opcode == FUSE_INIT;
    if (init)
        keep_init(loop->state, &thread->buffer);
    fuse_session_process_buf(loop->session, &thread->buffer);
    if (init)
        loop->state->init_answered = 1;
}

/* As the leader. 1: a request is in the buffer that others need not wait for; 0: what was gathered
 * is to be settled, or it is time to stop; -ENODEV: the mount has ended; or another failure. */
static int gather(struct loop_thread *thread)
{
    struct loop *loop = thread->loop;
    int taken = 0;
    while (!loop->stopping && !loop->hooks->is_full(loop->data)) {
        bool gathered = loop->hooks->has_gathered(loop->data);
        if (gathered && taken >= TAKEN_AT_ONCE)
            return 0;
        int r = fuse_session_receive_buf(loop->session, &thread->buffer);
        if (r == 0)
            return -ENODEV;
        if (r == -EAGAIN && gathered)
            return 0;
        if (r == -EAGAIN)
            wait_for_request(loop);
        if (r == -EAGAIN || r == -EINTR)
            continue;
        if (r < 0)
            return r;
        note_request(loop);
        *thread->busy_since = state_clock_ms();
        if (!loop->hooks->is_quick(((const struct fuse_in_header *)thread->buffer.mem)->opcode))
            return 1;
        process(thread);
        if (!loop->hooks->has_gathered(loop->data))
            *thread->busy_since = 0;
        taken++;
    }
    return 0;
}

static int serve(struct loop_thread *thread)
{
    struct loop *loop = thread->loop;
    int r = 0;
    while (!loop->stopping && r >= 0) {
        pthread_mutex_lock(&loop->leader);
        r = gather(thread);
        pthread_mutex_unlock(&loop->leader);
        /* What others wait for first: this request may itself wait for what was gathered. */
        loop->hooks->settle(loop->data);
        if (r > 0) {
            process(thread);
            loop->hooks->settle(loop->data);
        }
        *thread->busy_since = 0;
    }
    return r == -ENODEV ? 1 : r < 0 ? r : 0;
}

static void *run_thread(void *data)
{
    struct loop_thread *thread = data;
    struct loop *loop = thread->loop;
    thread->result = loop->hooks->thread_start(loop->data);
    if (thread->result == 0) {
        thread->result = serve(thread);
        loop->hooks->thread_end(loop->data);
    }
    loop_stop(loop);
    memory_give_back(thread->buffer.mem, LOOP_REQUEST_MAX);
    return NULL;
}

static int start_thread(struct loop_thread *thread, bool *locked, struct error *err)
{
    thread->buffer.mem = memory_take(LOOP_REQUEST_MAX, locked);
    if (!thread->buffer.mem)
        return error_set(err, -ENOMEM, "out of memory");
    int r = thread_start(&thread->id, run_thread, thread, err);
    if (r < 0)
        memory_give_back(thread->buffer.mem, LOOP_REQUEST_MAX);
    return r;
}

static unsigned start_threads(struct loop *loop, struct loop_thread *threads, unsigned count,
                              struct error *err)
{
    unsigned started = 0;
    bool locked = true;
    for (; started < count; started++) {
        struct loop_thread *thread = &threads[started];
        *thread =
            (struct loop_thread){.loop = loop, .busy_since = &loop->state->busy_since[started]};
        if (start_thread(thread, &locked, err) < 0)
            break;
    }
    if (!locked)
        log_line(LOG_WARNING, "memory cannot be locked, the limit (ulimit -l) is too low: a crash "
                              "while it is swapped out may cost a guest an error");
    return started;
}

int loop_run(struct loop *loop, unsigned count, struct error *err)
{
    struct loop_thread threads[STATE_THREADS_MAX];
    int fd = fuse_session_fd(loop->session);
    if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0)
        return error_set(err, -errno, "/dev/fuse: %m");

    pthread_mutex_init(&loop->leader, NULL);
    unsigned started = start_threads(loop, threads, count, err);
    if (started == 0)
        return -EAGAIN;
    int result = 0;
    for (unsigned i = 0; i < started; i++) {
        pthread_join(threads[i].id, NULL);
        if (threads[i].result != 0 && result >= 0)
            result = threads[i].result;
    }
    pthread_mutex_destroy(&loop->leader);
    if (result < 0)
        return error_set(err, result, "/dev/fuse: %s", strerror(-result));
    return result;
}
