#include "fs/mount.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <mntent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "fs/kernel_mount.h"
#include "fs/log.h"
#include "fs/ops.h"
#include "fs/options.h"
#include "fs/record.h"
#include "fs/state.h"
#include "fs/supervisor.h"
#include "fs/worker.h"

#define RELOAD_PATIENCE_MS 70000
#define ENDING_PATIENCE_MS 5000

struct report {
    int fd; /* where the waiting parent hears how it went; -1: nobody waits */
};

/* Between two looks at what another process is to do. */
static const struct timespec pause_between = {.tv_nsec = 20 * 1000000L};

/* ---- What is mounted ---- */

/* The store that the kernel knows as the mount's source; -ENOENT. */
static int find_store(const char *mountpoint, char **ret, bool *read_only)
{
    FILE *mounts = setmntent("/proc/self/mounts", "r");
    if (!mounts)
        return -errno;
    struct mntent entry;
    char strings[4 * PATH_MAX];
    int r = -ENOENT;
    while (getmntent_r(mounts, &entry, strings, sizeof strings)) {
        if (strcmp(entry.mnt_type, "fuse.fwfs") != 0 || strcmp(entry.mnt_dir, mountpoint) != 0)
            continue;
        free(*ret);
        *ret = strdup(entry.mnt_fsname);
        *read_only = hasmntopt(&entry, "ro");
        r = *ret ? 0 : -ENOMEM;
    }
    endmntent(mounts);
    return r;
}

/* ---- The mount's process ---- */

static void report(struct report *report, const struct error *err)
{
    if (report->fd < 0)
        return;
    ssize_t n = write(report->fd, err, sizeof *err);
    (void)n;
    close(report->fd);
    report->fd = -1;
}

static void report_ready(void *data)
{
    report(data, &(struct error){0});
}

static int fill_state(struct state *state, const struct mount_config *config,
                      const char *mountpoint, struct error *err)
{
    cleanup_free char *store = realpath(config->store, NULL);
    ssize_t n = readlink("/proc/self/exe", state->program, sizeof state->program - 1);
    if (!store || n < 0)
        return error_set(err, -errno, "%s: %m", config->store);
    const char *options = config->options ? config->options : "";
    if (strlen(options) >= sizeof state->options)
        return error_set(err, -EINVAL, "the options are too long");
    snprintf(state->store, sizeof state->store, "%s", store);
    snprintf(state->mountpoint, sizeof state->mountpoint, "%s", mountpoint);
    snprintf(state->options, sizeof state->options, "%s", options);
    state->mounted_at = ops_now();
    state->background = !config->foreground;
    return 0;
}

/* Puts a descriptor where workers look for it. */
static int place(int fd, int where, struct error *err)
{
    cleanup_fd int from = fd;
    if (fd == where)
        return fcntl(steal_fd(&from), F_SETFD, 0) < 0 ? error_set(err, -errno, "fcntl: %m") : 0;
    return dup2(from, where) < 0 ? error_set(err, -errno, "dup2: %m") : 0;
}

/* True if the store's read-write mount is in no directory any more. */
static bool is_ending(const char *store)
{
    struct record record;
    cleanup_free char *source = NULL;
    bool read_only;
    return record_read(store, &record, NULL) > 0 &&
           find_store(record.mountpoint, &source, &read_only) == -ENOENT;
}

/* A mount that has just been unmounted may still be putting its store away. */
static int take_record(const char *store, bool read_only, struct error *err)
{
    int64_t end = state_clock_ms() + ENDING_PATIENCE_MS;
    for (;;) {
        int r = record_acquire(store, read_only, err);
        if (r != -EBUSY || state_clock_ms() > end || !is_ending(store))
            return r;
        nanosleep(&pause_between, NULL);
    }
}

static uint64_t choose(uint64_t wanted, uint64_t as_is)
{
    return wanted == OPTIONS_AS_IS ? as_is : wanted;
}

static int set_retention(struct store *store, const struct store_retention *keep, struct error *err)
{
    struct store_retention now;
    int r = store_get_retention(store, &now, err);
    if (r < 0)
        return r;
    struct store_retention wanted = {.sessions = choose(keep->sessions, now.sessions),
                                     .edits = choose(keep->edits, now.edits),
                                     .days = choose(keep->days, now.days),
                                     .bytes = choose(keep->bytes, now.bytes)};
    bool same = wanted.sessions == now.sessions && wanted.edits == now.edits &&
                wanted.days == now.days && wanted.bytes == now.bytes;
    return same ? 0 : store_set_retention(store, &wanted, err);
}

/* What the mount before this left, however it ended; and whether there is what it is to make guests
 * of. */
static int prepare_store(const char *path, const struct mount_options *options, struct error *err)
{
    cleanup(store_closep) struct store *store = NULL;
    struct store_firmware firmware;
    /* What is only read has left nothing, and a mount that is there may live by what this would
     * take. */
    if (options->read_only)
        return 0;
    int r = store_open(path, 0, &store, err);
    if (r == 0 && *options->firmware)
        r = store_firmware_get(store, options->firmware, &firmware, err);
    if (r == 0)
        r = set_retention(store, &options->keep, err);
    return r < 0 ? r : store_forget_mount(store, err);
}

static int prepare(const struct mount_config *config, const char *mountpoint,
                   const struct mount_options *options, struct error *err)
{
    struct state *state;
    int r = state_create(&state, err);
    if (r < 0)
        return r;
    r = place(r, INHERITED_STATE, err);
    if (r == 0)
        r = fill_state(state, config, mountpoint, err);
    if (r == 0)
        r = take_record(state->store, options->read_only, err);
    if (r >= 0)
        r = place(r, INHERITED_RECORD, err);
    if (r < 0)
        return r;
    r = prepare_store(state->store, options, err);
    if (r == 0)
        r = kernel_mount(state->store, mountpoint, options, err);
    if (r < 0)
        record_remove(INHERITED_RECORD);
    return r < 0 ? r : place(r, INHERITED_FUSE, err);
}

/* Runs in a process that has nothing else to do. */
static int serve(const struct mount_config *config, const char *mountpoint,
                 const struct mount_options *options, struct report *waiting, struct error *err)
{
    int r = prepare(config, mountpoint, options, err);
    if (r < 0)
        return r;
    struct supervisor_config supervisor = {.ready = report_ready, .ready_data = waiting};
    r = supervisor_run(&supervisor, err);
    if (r < 0) {
        kernel_unmount(mountpoint, true);
        record_remove(INHERITED_RECORD);
    }
    return r;
}

/* ---- Into the background ---- */

/* Keeps the low descriptors taken, so that nothing else lands where a mount's descriptors belong.
 */
static int detach_from_terminal(void)
{
    cleanup_fd int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0 || setsid() < 0 || chdir("/") < 0)
        return -errno;
    for (int fd = 0; fd <= 2; fd++)
        if (dup2(null, fd) < 0)
            return -errno;
    log_to_syslog();
    return 0;
}

static int wait_for_report(int fd, pid_t child, struct error *err)
{
    struct error said;
    if (read(fd, &said, sizeof said) != sizeof said) {
        waitpid(child, NULL, 0);
        return error_set(err, -EIO, "the mount's process ended before the mount was there");
    }
    if (said.code < 0)
        waitpid(child, NULL, 0);
    if (err)
        *err = said;
    return said.code;
}

static int serve_in_background(const struct mount_config *config, const char *mountpoint,
                               const struct mount_options *options, struct error *err)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) < 0)
        return error_set(err, -errno, "pipe: %m");
    pid_t child = fork();
    if (child != 0) {
        close(fds[1]);
        cleanup_fd int from = fds[0];
        return child < 0 ? error_set(err, -errno, "fork: %m") : wait_for_report(from, child, err);
    }
    struct error said = {0};
    struct report waiting = {.fd = fcntl(fds[1], F_DUPFD_CLOEXEC, 10)};
    close(fds[0]);
    close(fds[1]);
    int r = detach_from_terminal();
    if (r < 0)
        error_set(&said, r, "the mount's process could not leave the terminal: %s", strerror(-r));
    else
        r = serve(config, mountpoint, options, &waiting, &said);
    if (r < 0 && waiting.fd < 0)
        log_line(LOG_ERR, "%s: %s", mountpoint, said.text);
    if (r < 0)
        report(&waiting, &said);
    _exit(r < 0);
}

int mount_run(const struct mount_config *config, struct error *err)
{
    struct mount_options options;
    cleanup_free char *mountpoint = NULL;
    cleanup(store_closep) struct store *probe = NULL;
    int r = options_parse(config->options, &options, err);
    if (r == 0)
        r = kernel_mount_check(config->mountpoint, &mountpoint, err);
    /* Opened once before anything is mounted: what is wrong with it is said at once. */
    if (r == 0)
        r = store_open(config->store, STORE_READ_ONLY, &probe, err);
    if (r < 0)
        return r;
    store_close(steal_ptr(probe));
    if (config->check_only)
        return 0;
    if (!config->foreground)
        return serve_in_background(config, mountpoint, &options, err);
    struct report nobody = {.fd = -1};
    return serve(config, mountpoint, &options, &nobody, err);
}

/* ---- Upgrading ---- */

static int wait_for_upgrade(const char *store, const struct record *before, struct error *err)
{
    for (int64_t end = state_clock_ms() + RELOAD_PATIENCE_MS; state_clock_ms() < end;) {
        struct record now;
        nanosleep(&pause_between, NULL);
        int r = record_find(store, before->mountpoint, before->read_only, &now, err);
        if (r <= 0)
            return r < 0 ? r : error_set(err, -ENOENT, "it is no longer mounted");
        if (now.upgrades != before->upgrades)
            return 0;
        if (now.failed_upgrades != before->failed_upgrades)
            break;
    }
    return error_set(err, -EIO, "it was not upgraded and goes on as it was; its log says why");
}

int mount_reload(const char *mountpoint, struct error *err)
{
    cleanup_free char *resolved = realpath(mountpoint, NULL);
    cleanup_free char *store = NULL;
    struct record before;
    bool read_only = false;
    int r = resolved ? find_store(resolved, &store, &read_only) : -errno;
    if (r == 0)
        r = record_find(store, resolved, read_only, &before, err);
    if (r == 0 || r == -ENOENT)
        return error_set(err, -ENOENT, "%s: no fwfs is mounted there", mountpoint);
    if (r > 0)
        r = kill(before.supervisor, SIGHUP) < 0 ? -errno : 0;
    if (r == 0)
        r = wait_for_upgrade(store, &before, err);
    return r < 0 ? error_prefix(err, r, "%s", mountpoint) : 0;
}

bool mount_is_part(const char *argv0, int *status)
{
    if (strcmp(argv0, WORKER_NAME) == 0)
        *status = worker_main();
    else if (strcmp(argv0, SUPERVISOR_NAME) == 0)
        *status = supervisor_main();
    else
        return false;
    return true;
}
