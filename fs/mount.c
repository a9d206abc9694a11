#include "fs/mount.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "fs/log.h"
#include "fs/ops.h"
#include "fs/options.h"
#include "fs/worker.h"

struct mount {
    const char *store;
    char *mountpoint;
    struct mount_options options;
    int fuse_fd;
    int stop_fd;
    int report_fd; /* where the waiting parent hears how it went; -1: nobody waits */
};

/* ---- The mount point ---- */

static int check_mountpoint(const char *path, char **ret, struct error *err)
{
    cleanup_free char *resolved = realpath(path, NULL);
    struct stat st, parent;
    if (!resolved || stat(resolved, &st) < 0) {
        if (errno == ENOENT)
            return error_set(err, -ENOENT, "%s: no such directory; make the mount point first",
                             path);
        if (errno == ENOTCONN)
            return error_set(err, -EBUSY, "%s: a dead mount is there; 'umount %s' first", path,
                             path);
        return error_set(err, -errno, "%s: %m", path);
    }
    if (!S_ISDIR(st.st_mode))
        return error_set(err, -ENOTDIR, "%s: the mount point must be a directory", path);

    char above[PATH_MAX];
    snprintf(above, sizeof above, "%s/..", resolved);
    if (stat(above, &parent) == 0 && parent.st_dev != st.st_dev)
        return error_set(err, -EBUSY, "%s: something is mounted there already; 'umount %s' first",
                         path, path);
    *ret = steal_ptr(resolved);
    return 0;
}

/* A comma would end the option; libfuse takes "\," for one that does not. */
static int escape_option(const char *value, char *ret, size_t size)
{
    size_t length = 0;
    for (; *value; value++) {
        if (length + 3 > size)
            return -ENAMETOOLONG;
        if (*value == ',' || *value == '\\')
            ret[length++] = '\\';
        ret[length++] = *value;
    }
    ret[length] = '\0';
    return 0;
}

/* libfuse mounts, itself or through fusermount3; the descriptor outlives its session. */
static int mount_kernel(struct mount *mount, struct error *err)
{
    char store[2 * PATH_MAX], options[3 * PATH_MAX];
    int r = escape_option(mount->store, store, sizeof store);
    if (r < 0)
        return error_set(err, r, "%s: %s", mount->store, strerror(-r));
    snprintf(options, sizeof options, "-ofsname=%s,subtype=fwfs,default_permissions%s%s", store,
             mount->options.allow_other ? ",allow_other" : "",
             mount->options.read_only ? ",ro" : "");
    char *argv[] = {(char[]){"fwfs"}, options, NULL};
    struct fuse_args args = FUSE_ARGS_INIT(2, argv);
    struct fuse_session *session = fuse_session_new(&args, &ops_table, sizeof ops_table, NULL);
    if (!session)
        return error_set(err, -EIO, "libfuse made no session");
    r = fuse_session_mount(session, mount->mountpoint);
    if (r == 0)
        mount->fuse_fd = fcntl(fuse_session_fd(session), F_DUPFD_CLOEXEC, 0);
    fuse_session_destroy(session);
    if (r < 0 || mount->fuse_fd < 0)
        return error_set(err, -EIO, "%s: could not be mounted; is /dev/fuse there?",
                         mount->mountpoint);
    return 0;
}

static void unmount_kernel(const struct mount *mount)
{
    if (umount2(mount->mountpoint, MNT_DETACH) == 0 || errno != EPERM)
        return;
    pid_t pid = fork();
    if (pid == 0) {
        execlp("fusermount3", "fusermount3", "-u", "-q", "-z", "--", mount->mountpoint, NULL);
        _exit(127);
    }
    if (pid > 0)
        waitpid(pid, NULL, 0);
}

/* ---- Serving ---- */

static int stop_fd_of_signal = -1;

static void on_signal(int signal)
{
    uint64_t one = 1;
    ssize_t n = write(stop_fd_of_signal, &one, sizeof one);
    (void)n;
}

static void catch_signals(int stop_fd)
{
    stop_fd_of_signal = stop_fd;
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    signal(SIGHUP, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
}

static void report(struct mount *mount, const struct error *err)
{
    if (mount->report_fd < 0)
        return;
    ssize_t n = write(mount->report_fd, err, sizeof *err);
    (void)n;
    close(mount->report_fd);
    mount->report_fd = -1;
}

static void report_ready(void *data)
{
    report(data, &(struct error){0});
}

static int mount_and_serve(struct mount *mount, struct error *err)
{
    mount->stop_fd = eventfd(0, EFD_CLOEXEC);
    if (mount->stop_fd < 0)
        return error_set(err, -errno, "eventfd: %m");
    catch_signals(mount->stop_fd);
    int r = mount_kernel(mount, err);
    if (r < 0)
        return r;
    struct worker_config worker = {.store = mount->store,
                                   .mountpoint = mount->mountpoint,
                                   .mounted_at = ops_now(),
                                   .fuse_fd = mount->fuse_fd,
                                   .stop_fd = mount->stop_fd,
                                   .ready = report_ready,
                                   .ready_data = mount};
    r = worker_run(&worker, err);
    unmount_kernel(mount);
    return r;
}

/* ---- Into the background ---- */

static void detach_from_terminal(void)
{
    setsid();
    cleanup_fd int null = open("/dev/null", O_RDWR);
    if (chdir("/") < 0 || null < 0)
        return;
    dup2(null, 0);
    dup2(null, 1);
    dup2(null, 2);
    log_to_syslog();
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

static int run_in_background(struct mount *mount, struct error *err)
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
    close(fds[0]);
    mount->report_fd = fds[1];
    detach_from_terminal();
    struct error said = {0};
    int r = mount_and_serve(mount, &said);
    if (r < 0) {
        if (mount->report_fd < 0)
            log_line(LOG_ERR, "%s: %s", mount->mountpoint, said.text);
        report(mount, &said);
    }
    _exit(r < 0);
}

int mount_run(const struct mount_config *config, struct error *err)
{
    struct mount mount = {.fuse_fd = -1, .stop_fd = -1, .report_fd = -1};
    cleanup_free char *store = NULL;
    cleanup_free char *mountpoint = NULL;
    int r = options_parse(config->options, &mount.options, err);
    if (r == 0)
        r = check_mountpoint(config->mountpoint, &mountpoint, err);
    if (r < 0)
        return r;
    /* Opened once before anything is mounted: what is wrong with it is said at once. */
    cleanup(store_closep) struct store *probe = NULL;
    r = store_open(config->store, STORE_READ_ONLY, &probe, err);
    if (r < 0)
        return r;
    store_close(steal_ptr(probe));
    store = realpath(config->store, NULL);
    if (!store)
        return error_set(err, -errno, "%s: %m", config->store);
    mount.store = store;
    mount.mountpoint = mountpoint;
    return config->foreground ? mount_and_serve(&mount, err) : run_in_background(&mount, err);
}
