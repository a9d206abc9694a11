#include "fs/kernel_mount.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "fs/ops.h"

int kernel_mount_check(const char *path, char **ret, struct error *err)
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

/* Collects in `said` what libfuse and fusermount3 say, which they do on stderr alone. */
static int mount_session(struct fuse_session *session, const char *mountpoint, char *said,
                         size_t size)
{
    int ends[2];
    cleanup_fd int stderr_before = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 10);
    if (stderr_before < 0 || pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
        return -errno;
    cleanup_fd int from = ends[0];
    cleanup_fd int into = ends[1];
    dup2(into, STDERR_FILENO);
    int r = fuse_session_mount(session, mountpoint);
    dup2(stderr_before, STDERR_FILENO);
    ssize_t n = read(from, said, size - 1);
    said[n > 0 ? n : 0] = '\0';
    if (r < 0)
        return -EIO;
    int fd = fcntl(fuse_session_fd(session), F_DUPFD_CLOEXEC, 10);
    return fd < 0 ? -errno : fd;
}

static int refused(int r, const char *mountpoint, char *said, struct error *err)
{
    if (strstr(said, "user_allow_other"))
        return error_set(err, -EPERM,
                         "only root mounts with allow_other; mount without it, or have the line "
                         "'user_allow_other' put into /etc/fuse.conf");
    said[strcspn(said, "\n")] = '\0';
    if (!*said)
        return error_set(err, r, "%s: could not be mounted; is /dev/fuse there?", mountpoint);
    return error_set(err, r, "%s: could not be mounted: %s", mountpoint, said);
}

/* libfuse mounts, itself or through fusermount3. Its session is only for that, and is kept: what it
 * knows of the mount would be given back by unmounting alone. */
int kernel_mount(const char *source, const char *mountpoint, const struct mount_options *options,
                 struct error *err)
{
    char escaped[2 * PATH_MAX], text[3 * PATH_MAX], said[512] = "";
    int r = escape_option(source, escaped, sizeof escaped);
    if (r < 0)
        return error_set(err, r, "%s: %s", source, strerror(-r));
    snprintf(text, sizeof text, "-ofsname=%s,subtype=fwfs,default_permissions%s%s%s", escaped,
             options->allow_other ? ",allow_other" : "", options->read_only ? ",ro" : "",
             options->passed_on);
    char *argv[] = {(char[]){"fwfs"}, text, NULL};
    struct fuse_args args = FUSE_ARGS_INIT(2, argv);
    static struct fuse_session *session;
    session = fuse_session_new(&args, &ops_table, sizeof ops_table, NULL);
    fuse_opt_free_args(&args);
    if (!session)
        return error_set(err, -EIO, "libfuse made no session");
    int fd = mount_session(session, mountpoint, said, sizeof said);
    return fd < 0 ? refused(fd, mountpoint, said, err) : fd;
}

static int unmount_by_helper(const char *mountpoint, bool lazy)
{
    pid_t pid = fork();
    if (pid < 0)
        return -errno;
    if (pid == 0) {
        execlp("fusermount3", "fusermount3", lazy ? "-uqz" : "-uq", "--", mountpoint, NULL);
        _exit(127);
    }
    int status;
    if (waitpid(pid, &status, 0) < 0)
        return -errno;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EBUSY;
}

int kernel_unmount(const char *mountpoint, bool lazy)
{
    if (umount2(mountpoint, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0)
        return 0;
    return errno == EPERM ? unmount_by_helper(mountpoint, lazy) : -errno;
}
