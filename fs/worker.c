/* The main thread talks to the supervisor; the loop's threads, started by one more, answer the
 * kernel.
 *
 * States: preparing (nothing is taken from the kernel), ready (told so; waiting), serving,
 * draining. A supervisor that is gone changes nothing for the guests: the worker goes on, and syncs
 * by itself. */
#include "fs/worker.h"

#include <errno.h>
#include <linux/fuse.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>

#include "base/cleanup.h"
#include "fs/batch.h"
#include "fs/channel.h"
#include "fs/leases.h"
#include "fs/log.h"
#include "fs/loop.h"
#include "fs/memory.h"
#include "fs/ops.h"
#include "fs/options.h"
#include "fs/renewal.h"
#include "fs/session.h"
#include "fs/sweeper.h"
#include "fs/syncer.h"
#include "fs/thread.h"
#include "fs/upkeep.h"
#include "fs/waiting.h"
#include "fs/writers.h"

/* One gathers, one settles; the others are there for when these wait for the disk or another
 * process. */
#define LOOP_THREADS 4
#define SYNC_INTERVAL_MS 1000

struct worker {
    struct state *state;
    struct mount_options options;
    struct ops_context context;
    struct store *store;
    struct upkeep *upkeep;
    struct fuse_session *session;
    struct sweeper *sweeper;
    struct loop loop;
    int done_fd; /* readable when the loop has ended */
    pthread_t loop_thread;
    bool serving;
    int loop_result;
    struct error loop_error;
};

/* ---- The loop's threads ---- */

static int enter_thread(void *data)
{
    return batch_bind();
}

static void leave_thread(void *data)
{
    batch_unbind();
}

/* What goes into a batch (see fs/batch.h), and what reads a row or two: to wake another thread for
 * that takes longer than to do it. */
static bool is_quick(uint32_t opcode)
{
    switch (opcode) {
    case FUSE_WRITE:
    case FUSE_FSYNC:
    case FUSE_FLUSH:
    case FUSE_SETATTR:
    case FUSE_LOOKUP:
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_GETATTR:
    case FUSE_OPEN:
    case FUSE_RELEASE:
        return true;
    default:
        return false;
    }
}

static bool has_gathered(void *data)
{
    return !batch_is_empty();
}

static bool is_full(void *data)
{
    return batch_is_full();
}

static void settle(void *data)
{
    struct worker *worker = data;
    batch_commit(&worker->context);
}

static void *run_loop(void *data)
{
    struct worker *worker = data;
    worker->loop_result = loop_run(&worker->loop, LOOP_THREADS, &worker->loop_error);
    eventfd_write(worker->done_fd, 1);
    return NULL;
}

/* ---- Preparing ---- */

static void on_agreed(void *data)
{
    channel_send(INHERITED_CHANNEL, CHANNEL_ANSWERING);
}

static int prepare(struct worker *worker, struct error *err)
{
    int r = state_map(INHERITED_STATE, &worker->state, err);
    if (r == 0 && worker->state->background)
        log_to_syslog();
    if (r == 0)
        r = options_parse(worker->state->options, &worker->options, err);
    if (r == 0)
        r = store_open(worker->state->store,
                       worker->options.read_only ? STORE_READ_ONLY : STORE_LAZY_SYNC,
                       &worker->store, err);
    if (r < 0)
        return r;
    worker->context = (struct ops_context){
        .view = {.store = worker->store,
                 .mountpoint = worker->state->mountpoint,
                 .uid = getuid(),
                 .gid = getgid(),
                 .mounted_at = worker->state->mounted_at,
                 .options = &worker->options},
        .state = worker->state,
        .writers = writers_new(worker->state),
        .read_only = worker->options.read_only,
        .agreed = worker->state->init_answered ? NULL : on_agreed,
    };
    worker->loop.stop_fd = eventfd(0, EFD_CLOEXEC);
    worker->done_fd = eventfd(0, EFD_CLOEXEC);
    if (!worker->context.writers || worker->loop.stop_fd < 0 || worker->done_fd < 0)
        return error_set(err, -ENOMEM, "out of memory");
    r = syncer_new(&worker->context, &worker->context.syncer, err);
    if (r == 0)
        r = waiting_new(&worker->context, worker->options.full_wait_s, &worker->context.waiting,
                        err);
    if (r == 0)
        r = leases_new(&worker->context, &worker->context.leases, err);
    if (r == 0 && !worker->options.read_only)
        r = upkeep_new(worker->store, &worker->upkeep, err);
    if (r == 0)
        r = session_new(&worker->context, INHERITED_FUSE, &worker->session, err);
    if (r == 0)
        r = renewal_new(&worker->context, worker->session, &worker->context.renewal, err);
    if (r == 0 && !worker->options.read_only)
        r = sweeper_new(worker->store, worker->session, &worker->sweeper, err);
    return r;
}

/* One request's worth of work, so that "ready" is worth something. */
static int rehearse(struct worker *worker, struct error *err)
{
    struct stat st;
    struct statvfs space;
    int r = view_stat(&worker->context.view, inode_root(), &st, err);
    return r < 0 ? r : view_statfs(&worker->context.view, &space, err);
}

static bool mount_is_gone(void)
{
    struct pollfd fuse = {.fd = INHERITED_FUSE};
    return poll(&fuse, 1, 0) > 0 && fuse.revents & POLLERR;
}

/* Ends the threads that answer what the loop has left to them. Leases' may still leave something
 * to those that wait for room. */
static void stop_answering(struct worker *worker)
{
    leases_free(steal_ptr(worker->context.leases));
    waiting_free(steal_ptr(worker->context.waiting));
    syncer_free(steal_ptr(worker->context.syncer));
    renewal_free(steal_ptr(worker->context.renewal));
    sweeper_free(steal_ptr(worker->sweeper));
}

static void clear(struct worker *worker)
{
    stop_answering(worker);
    session_free(worker->session);
    upkeep_free(worker->upkeep);
    /* Nobody holds it again from here on. A read-only mount's has never been its own. */
    if (worker->store && !worker->options.read_only && mount_is_gone())
        store_reserve_release(worker->store);
    writers_free(worker->context.writers);
    store_close(worker->store);
}

/* ---- Serving ---- */

static int start_serving(struct worker *worker)
{
    if (worker->serving)
        return 0;
    static const struct loop_hooks hooks = {
        .thread_start = enter_thread,
        .thread_end = leave_thread,
        .is_quick = is_quick,
        .has_gathered = has_gathered,
        .is_full = is_full,
        .settle = settle,
    };
    worker->loop.session = worker->session;
    worker->loop.state = worker->state;
    worker->loop.hooks = &hooks;
    worker->loop.data = worker;
    memset(worker->state->busy_since, 0, sizeof worker->state->busy_since);
    int r = session_resend(INHERITED_FUSE);
    if (r < 0 && r != -EINVAL && r != -ENODEV)
        log_line(LOG_ERR, "requests in flight cannot be taken up: %s", strerror(-r));
    struct error err = {0};
    r = thread_start(&worker->loop_thread, run_loop, worker, &err);
    if (r < 0)
        log_line(LOG_ERR, "%s", err.text);
    worker->serving = r == 0;
    return r;
}

/* False when it is time to go. */
static bool obey(struct worker *worker, enum channel_message message)
{
    switch (message) {
    case CHANNEL_SERVE:
        return start_serving(worker) == 0;
    case CHANNEL_DRAIN:
        loop_stop(&worker->loop);
        return worker->serving;
    case CHANNEL_PING:
        channel_send(INHERITED_CHANNEL, CHANNEL_PONG);
        return true;
    case CHANNEL_SYNC:
        upkeep_sync(worker->upkeep);
        return true;
    default:
        return true;
    }
}

static void converse(struct worker *worker)
{
    struct pollfd fds[] = {{.fd = worker->done_fd, .events = POLLIN},
                           {.fd = INHERITED_CHANNEL, .events = POLLIN}};
    for (;;) {
        int n = poll(fds, 2, SYNC_INTERVAL_MS);
        if (n == 0 && fds[1].fd < 0)
            upkeep_sync(worker->upkeep);
        if (n <= 0)
            continue;
        if (fds[0].revents)
            return;
        struct channel_packet packet;
        int r = channel_receive(INHERITED_CHANNEL, &packet);
        if (r > 0 && !obey(worker, packet.message))
            return;
        if (r < 0) {
            log_line(LOG_ERR, "%s: the supervisor is gone; the mount goes on without one",
                     worker->state->mountpoint);
            fds[1].fd = -1;
            if (!worker->serving)
                return;
        }
    }
}

/* The kernel's requests are another worker's from here on, so nothing may change the store any
 * more. */
static int finish(struct worker *worker, struct error *err)
{
    if (!worker->serving)
        return 0;
    pthread_join(worker->loop_thread, NULL);
    stop_answering(worker);
    channel_send(INHERITED_CHANNEL, worker->loop_result > 0 ? CHANNEL_ENDED : CHANNEL_DRAINED);
    if (worker->loop_result < 0)
        return error_set(err, worker->loop_result, "%s", worker->loop_error.text);
    return store_sync(worker->store, err);
}

int worker_main(void)
{
    struct worker worker = {.done_fd = -1};
    struct error err = {0};
    prctl(PR_SET_NAME, WORKER_NAME);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, SIG_IGN); /* a terminal's ^C is for the supervisor */
    signal(SIGHUP, SIG_IGN);
    mallopt(M_ARENA_MAX, 2);
    memory_lock_all();

    int r = prepare(&worker, &err);
    if (r == 0)
        r = rehearse(&worker, &err);
    if (r < 0) {
        channel_send_text(INHERITED_CHANNEL, CHANNEL_FAILED, err.text);
    } else {
        channel_send(INHERITED_CHANNEL, CHANNEL_READY);
        converse(&worker);
        r = finish(&worker, &err);
        if (r < 0)
            log_line(LOG_ERR, "%s", err.text);
    }
    clear(&worker);
    return r < 0;
}
