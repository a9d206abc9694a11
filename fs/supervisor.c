/* One thread (but for the pull's, see fs/pull.h), one loop over descriptors.
 *
 * `current` serves, or will as soon as it is ready. `next` is there during an upgrade: it is
 * prepared while `current` still serves; when it is ready `current` is told to drain, and when that
 * has answered all that it took, `next` takes its place. If `next` fails, `current` goes on; if
 * `current` dies, `next` takes its place at once. When an upgrade is done the supervisor becomes
 * the new program too, by exec: the descriptors stay, and the worker is still its child.
 *
 * It holds no descriptor, directory or mapping inside the mount, and waits for no one. The store it
 * only holds open: SQLite takes the shared memory beside it away with the last who has it open, and
 * on a full disk a worker that takes the place of a dead one could not make it again. */
#include "fs/supervisor.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "fs/child.h"
#include "fs/kernel_mount.h"
#include "fs/log.h"
#include "fs/options.h"
#include "fs/pull.h"
#include "fs/record.h"
#include "fs/state.h"
#include "fs/worker.h"
#include "store/store.h"

#define TICK_MS 200
#define BACKOFF_MIN_MS 10
#define BACKOFF_MAX_MS 5000
/* A worker that lives for this long did not die of the first thing that it met. */
#define BACKOFF_FORGET_MS 200
/* A transaction of another process may hold the store for 10 s, on top of what a write waits. */
#define REQUEST_MARGIN_MS 60000
/* Opening a store may mean to go through a long log. */
#define START_PATIENCE_MS 60000
#define DEATH_PATIENCE_MS 1000

struct supervisor {
    const struct supervisor_config *config;
    struct state *state;
    struct mount_options options;
    struct store *store;
    int signal_fd;
    int pulled_fd; /* readable after each round of the pull */
    struct child current, next;
    int64_t ticked_ms, started_ms, restart_at_ms, backoff_ms;
    bool answered; /* the mount has answered once */
    bool ending;   /* no worker is to be started any more */
    bool ended;
    bool exec_due; /* the program on disk has proved itself: become it */
    struct error failure;
};

static void write_record(const struct supervisor *supervisor)
{
    const struct state *state = supervisor->state;
    struct record record = {.supervisor = getpid(),
                            .worker = supervisor->current.pid,
                            .mounted_at = state->mounted_at,
                            .restarts = state->restarts,
                            .upgrades = state->upgrades,
                            .failed_upgrades = state->failed_upgrades};
    snprintf(record.mountpoint, sizeof record.mountpoint, "%s", state->mountpoint);
    record_write(INHERITED_RECORD, &record);
}

/* ---- Starting and replacing workers ---- */

static void start_current(struct supervisor *supervisor)
{
    struct error err = {0};
    supervisor->started_ms = state_clock_ms();
    supervisor->restart_at_ms = 0;
    if (child_start(&supervisor->current, supervisor->state->program, &err) < 0) {
        log_line(LOG_ERR, "%s: %s", supervisor->state->mountpoint, err.text);
        supervisor->restart_at_ms = supervisor->started_ms + BACKOFF_MAX_MS;
    }
    write_record(supervisor);
}

static void plan_restart(struct supervisor *supervisor)
{
    int64_t now = state_clock_ms();
    if (now - supervisor->started_ms > BACKOFF_FORGET_MS)
        supervisor->backoff_ms = 0;
    supervisor->restart_at_ms = now + supervisor->backoff_ms;
    supervisor->backoff_ms = supervisor->backoff_ms ? 2 * supervisor->backoff_ms : BACKOFF_MIN_MS;
    if (supervisor->backoff_ms > BACKOFF_MAX_MS)
        supervisor->backoff_ms = BACKOFF_MAX_MS;
    supervisor->state->restarts++;
}

static void promote_next(struct supervisor *supervisor)
{
    supervisor->current = supervisor->next;
    supervisor->next = (struct child)CHILD_NONE;
    supervisor->started_ms = state_clock_ms();
    supervisor->state->upgrades++;
    if (supervisor->current.ready)
        child_send(&supervisor->current, CHANNEL_SERVE);
    supervisor->exec_due = true;
    write_record(supervisor);
}

static void upgrade_failed(struct supervisor *supervisor, const char *why)
{
    log_line(LOG_ERR, "%s: not upgraded, the old worker goes on: %s", supervisor->state->mountpoint,
             why);
    supervisor->state->failed_upgrades++;
    write_record(supervisor);
}

static void begin_upgrade(struct supervisor *supervisor)
{
    struct error err = {0};
    if (supervisor->next.pid || supervisor->ending)
        return;
    log_line(LOG_NOTICE, "%s: upgrading to %s", supervisor->state->mountpoint,
             supervisor->state->program);
    if (child_start(&supervisor->next, supervisor->state->program, &err) < 0)
        upgrade_failed(supervisor, err.text);
}

/* ---- What workers say, and how they end ---- */

static void current_said(struct supervisor *supervisor, const struct channel_packet *packet)
{
    switch (packet->message) {
    case CHANNEL_READY:
        child_send(&supervisor->current, CHANNEL_SERVE);
        break;
    case CHANNEL_ANSWERING:
        supervisor->answered = true;
        if (supervisor->config && supervisor->config->ready)
            supervisor->config->ready(supervisor->config->ready_data);
        break;
    case CHANNEL_ENDED:
        supervisor->ending = true;
        break;
    case CHANNEL_DRAINED:
        /* It closes the store by itself, while the next one serves. */
        if (supervisor->next.pid) {
            child_forget(&supervisor->current);
            promote_next(supervisor);
        }
        break;
    case CHANNEL_FAILED:
        error_set(&supervisor->failure, -EIO, "%s", packet->text);
        log_line(LOG_ERR, "%s: %s", supervisor->state->mountpoint, packet->text);
        break;
    default:
        break;
    }
}

static void next_said(struct supervisor *supervisor, const struct channel_packet *packet)
{
    if (packet->message == CHANNEL_READY)
        child_send(&supervisor->current, CHANNEL_DRAIN);
    else if (packet->message == CHANNEL_FAILED)
        log_line(LOG_ERR, "%s: the new worker: %s", supervisor->state->mountpoint, packet->text);
}

static void replace_current(struct supervisor *supervisor, const char *how, bool failed)
{
    if (supervisor->ending) {
        supervisor->ended = true;
        return;
    }
    log_line(LOG_WARNING, "%s: the worker %s; another takes its place",
             supervisor->state->mountpoint, how);
    if (!supervisor->answered && failed) {
        error_set(&supervisor->failure, -EIO, "%s",
                  supervisor->failure.code ? supervisor->failure.text : "the worker died");
        supervisor->ended = true;
    } else if (supervisor->next.pid) {
        promote_next(supervisor);
    } else {
        plan_restart(supervisor);
    }
    write_record(supervisor);
}

static void current_ended(struct supervisor *supervisor)
{
    char how[CHILD_HOW_SIZE];
    int status = child_reap(&supervisor->current, how);
    replace_current(supervisor, how, status != 0);
}

static void next_ended(struct supervisor *supervisor)
{
    char how[CHILD_HOW_SIZE];
    child_reap(&supervisor->next, how);
    upgrade_failed(supervisor, how);
}

static void hear(struct supervisor *supervisor, struct child *child,
                 void (*said)(struct supervisor *, const struct channel_packet *))
{
    struct channel_packet packet;
    pid_t pid = child->pid;
    while (child->pid == pid && child_receive(child, &packet) > 0)
        said(supervisor, &packet);
}

/* ---- Watching ---- */

static bool request_is_stuck(const struct supervisor *supervisor)
{
    int64_t now = state_clock_ms();
    int64_t patience = (int64_t)(supervisor->options.full_wait_s * 1000) + REQUEST_MARGIN_MS;
    for (int i = 0; i < STATE_THREADS_MAX; i++) {
        int64_t since = supervisor->state->busy_since[i];
        if (since > 0 && now - since > patience)
            return true;
    }
    return false;
}

/* A thread of it is in the kernel, maybe for an answer that only the next worker can give. None of
 * its threads runs again, and it is reaped when it has ended after all. */
static void abandon(struct supervisor *supervisor, struct child *child)
{
    static const char how[] = "was killed and does not end";
    child_forget(child);
    if (child == &supervisor->current)
        replace_current(supervisor, how, true);
    else
        upgrade_failed(supervisor, how);
}

static void watch(struct supervisor *supervisor, struct child *child, int64_t elapsed_ms)
{
    if (!child->pid)
        return;
    if (child->killed && (child->dying_ms += elapsed_ms) > DEATH_PATIENCE_MS) {
        abandon(supervisor, child);
        return;
    }
    int64_t patience =
        child->ready ? (int64_t)(supervisor->options.hang_s * 1000) : START_PATIENCE_MS;
    bool stuck = child == &supervisor->current && request_is_stuck(supervisor);
    child_ping(child, elapsed_ms);
    if (child->silence_ms <= patience && !stuck)
        return;
    if (!child->killed)
        log_line(LOG_ERR, "%s: worker %d does not answer; it is killed",
                 supervisor->state->mountpoint, (int)child->pid);
    child_kill(child);
}

static void tick(struct supervisor *supervisor)
{
    int64_t now = state_clock_ms();
    int64_t elapsed = now - supervisor->ticked_ms;
    /* If it was the supervisor that stood still, the workers are not to blame. */
    if (elapsed > 2 * TICK_MS)
        elapsed = 2 * TICK_MS;
    if (elapsed < TICK_MS / 2)
        return;
    supervisor->ticked_ms = now;
    child_reap_others(supervisor->current.pid, supervisor->next.pid);
    watch(supervisor, &supervisor->current, elapsed);
    watch(supervisor, &supervisor->next, elapsed);
}

static void restart_if_due(struct supervisor *supervisor)
{
    if (supervisor->current.pid || supervisor->ending)
        return;
    if (!supervisor->restart_at_ms)
        plan_restart(supervisor);
    if (state_clock_ms() >= supervisor->restart_at_ms)
        start_current(supervisor);
}

/* What has open files stays until they are closed: their guests go on. In a process of its own, as
 * the kernel first writes back what is not yet, and a worker for that may have to be started. */
static void unmount(struct supervisor *supervisor)
{
    const char *mountpoint = supervisor->state->mountpoint;
    pid_t pid = fork();
    if (pid < 0)
        log_line(LOG_ERR, "%s: it cannot be unmounted: fork: %m", mountpoint);
    if (pid != 0)
        return;
    if (kernel_unmount(mountpoint, false) == -EBUSY) {
        log_line(LOG_WARNING,
                 "%s: files are open; it is detached, and served until the last is closed",
                 mountpoint);
        kernel_unmount(mountpoint, true);
    }
    _exit(0);
}

static void obey_signal(struct supervisor *supervisor)
{
    struct signalfd_siginfo info;
    if (read(supervisor->signal_fd, &info, sizeof info) != sizeof info)
        return;
    if (info.ssi_signo == SIGHUP)
        begin_upgrade(supervisor);
    else if (info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT)
        unmount(supervisor);
}

/* ---- The loop ---- */

/* Keeps the descriptors and the current worker; comes back only if it failed. */
static void become_new_program(struct supervisor *supervisor)
{
    supervisor->exec_due = false;
    supervisor->state->worker = supervisor->current.pid;
    child_hand_over(&supervisor->current);
    execl(supervisor->state->program, SUPERVISOR_NAME, NULL);
    log_line(LOG_ERR, "%s: the supervisor stays as it was: %m", supervisor->state->program);
    child_take_over(&supervisor->current, supervisor->state->worker);
    pull_resume();
}

static void wait_and_handle(struct supervisor *supervisor)
{
    struct pollfd fds[] = {
        {.fd = supervisor->signal_fd, .events = POLLIN},
        {.fd = supervisor->pulled_fd, .events = POLLIN},
        {.fd = supervisor->ending ? -1 : INHERITED_FUSE,
         .events = 0}, /* POLLERR: the mount is gone */
        {.fd = supervisor->current.channel, .events = POLLIN},
        {.fd = supervisor->current.pidfd, .events = POLLIN},
        {.fd = supervisor->next.channel, .events = POLLIN},
        {.fd = supervisor->next.pidfd, .events = POLLIN},
    };
    int64_t restart_in = supervisor->restart_at_ms - state_clock_ms();
    bool restart_soon = !supervisor->current.pid && restart_in < TICK_MS;
    poll(fds, sizeof fds / sizeof fds[0],
         restart_soon ? (restart_in > 0 ? (int)restart_in : 0) : TICK_MS);
    if (fds[0].revents)
        obey_signal(supervisor);
    if (fds[1].revents) {
        eventfd_t rounds;
        eventfd_read(supervisor->pulled_fd, &rounds);
        child_send(&supervisor->current, CHANNEL_SYNC);
    }
    if (fds[2].revents) {
        supervisor->ending = true;
        supervisor->ended = supervisor->ended || !supervisor->current.pid;
        child_send(&supervisor->current, CHANNEL_DRAIN);
    }
    if (fds[5].revents)
        hear(supervisor, &supervisor->next, next_said);
    if (fds[6].revents && supervisor->next.pid)
        next_ended(supervisor);
    if (fds[3].revents)
        hear(supervisor, &supervisor->current, current_said);
    if (fds[4].revents && supervisor->current.pidfd == fds[4].fd)
        current_ended(supervisor);
}

static int run(struct supervisor *supervisor, struct error *err)
{
    while (!supervisor->ended) {
        wait_and_handle(supervisor);
        restart_if_due(supervisor);
        tick(supervisor);
        if (supervisor->exec_due && supervisor->current.ready && supervisor->current.channel >= 0 &&
            !supervisor->next.pid && pull_pause())
            become_new_program(supervisor);
    }
    if (supervisor->next.pid)
        child_kill(&supervisor->next);
    struct error unforgotten = {0};
    if (!supervisor->options.read_only && store_forget_mount(supervisor->store, &unforgotten) < 0)
        log_line(LOG_WARNING, "%s: %s", supervisor->state->mountpoint, unforgotten.text);
    store_close(steal_ptr(supervisor->store));
    record_remove(INHERITED_RECORD);
    if (supervisor->failure.code < 0 && !supervisor->answered)
        return error_set(err, supervisor->failure.code, "%s", supervisor->failure.text);
    return 0;
}

static int open_signals(struct error *err)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGHUP);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN);
    int fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    return fd < 0 ? error_set(err, -errno, "signalfd: %m") : fd;
}

static int setup(struct supervisor *supervisor, struct error *err)
{
    int r = state_map(INHERITED_STATE, &supervisor->state, err);
    if (r == 0)
        r = options_parse(supervisor->state->options, &supervisor->options, err);
    if (r == 0)
        r = store_open(supervisor->state->store,
                       supervisor->options.read_only ? STORE_READ_ONLY : 0, &supervisor->store,
                       err);
    if (r < 0)
        return r;
    prctl(PR_SET_NAME, SUPERVISOR_NAME);
    supervisor->pulled_fd = eventfd(0, EFD_CLOEXEC);
    supervisor->signal_fd = open_signals(err);
    if (supervisor->signal_fd < 0)
        return supervisor->signal_fd;
    if (supervisor->pulled_fd < 0)
        return error_set(err, -errno, "eventfd: %m");
    return pull_start(supervisor->state, INHERITED_FUSE, supervisor->pulled_fd,
                      supervisor->options.pull_s, err);
}

int supervisor_run(const struct supervisor_config *config, struct error *err)
{
    struct supervisor supervisor = {.config = config, .current = CHILD_NONE, .next = CHILD_NONE};
    int r = child_reserve_channel(err);
    if (r == 0)
        r = setup(&supervisor, err);
    if (r < 0)
        return r;
    start_current(&supervisor);
    return run(&supervisor, err);
}

int supervisor_main(void)
{
    struct supervisor supervisor = {.answered = true, .current = CHILD_NONE, .next = CHILD_NONE};
    struct error err = {0};
    int r = setup(&supervisor, &err);
    if (r == 0) {
        if (supervisor.state->background)
            log_to_syslog();
        supervisor.started_ms = state_clock_ms();
        child_take_over(&supervisor.current, supervisor.state->worker);
        if (!supervisor.current.pid)
            plan_restart(&supervisor);
        write_record(&supervisor);
        r = run(&supervisor, &err);
    }
    if (r < 0)
        log_line(LOG_ERR, "%s", err.text);
    return r < 0;
}
