#include "firmware/qcow2.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "firmware/file.h"

/* Offsets in the header, big endian. */
enum {
    AT_VERSION = 4,
    AT_BACKING_FILE_OFFSET = 8,
    AT_SIZE = 24,
    AT_CRYPT_METHOD = 32,
    AT_INCOMPATIBLE_FEATURES = 72, /* version 3 */
    HEADER_SIZE_V2 = 72,
    HEADER_SIZE_V3 = 104,
};

#define INCOMPATIBLE_EXTERNAL_DATA ((uint64_t)1 << 2)

bool qcow2_is(const void *bytes, size_t size)
{
    return size >= QCOW2_MAGIC_SIZE && memcmp(bytes, "QFI\xfb", QCOW2_MAGIC_SIZE) == 0;
}

static uint32_t get32(const char *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return be32toh(value);
}

static uint64_t get64(const char *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return be64toh(value);
}

int qcow2_virtual_size(const void *bytes, size_t size, uint64_t *ret, struct error *err)
{
    const char *header = bytes;
    uint32_t version = size >= HEADER_SIZE_V2 ? get32(header + AT_VERSION) : 0;
    if (size < HEADER_SIZE_V2 || (version == 3 && size < HEADER_SIZE_V3))
        return error_set(err, -EINVAL, "is a qcow2 image that is cut off in its header");
    if (version != 2 && version != 3)
        return error_set(err, -EINVAL, "is of qcow2 version %u; known are 2 and 3", version);
    if (get64(header + AT_BACKING_FILE_OFFSET) != 0)
        return error_set(err, -EINVAL,
                         "has a backing file, which is not followed; flatten it with "
                         "qemu-img convert first");
    if (version == 3 && get64(header + AT_INCOMPATIBLE_FEATURES) & INCOMPATIBLE_EXTERNAL_DATA)
        return error_set(err, -EINVAL,
                         "has an external data file, which is not followed; flatten it with "
                         "qemu-img convert first");
    if (get32(header + AT_CRYPT_METHOD) != 0)
        return error_set(err, -EINVAL, "is encrypted; decrypt it with qemu-img convert first");
    *ret = get64(header + AT_SIZE);
    return 0;
}

/* ---- Conversion ---- */

/* A file without a name. */
static int open_temporary(struct error *err)
{
    const char *directory = secure_getenv("TMPDIR");
    if (!directory || !*directory)
        directory = "/var/tmp";
    cleanup_free char *path = NULL;
    if (asprintf(&path, "%s/fwfs-XXXXXX", directory) < 0) {
        path = NULL;
        return error_set(err, -ENOMEM, "%s", strerror(ENOMEM));
    }
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0)
        return error_set(err, -EIO, "cannot be converted: no temporary file in %s: %s", directory,
                         strerror(errno));
    unlink(path);
    return fd;
}

static int write_all(int fd, const char *bytes, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = write(fd, bytes + done, size - done);
        if (n < 0 && errno != EINTR)
            return -errno;
        done += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

/* Both files go by descriptor, which stays what it is and needs no quoting. */
static int spawn_qemu_img(int source, int target, int stderr_fd, pid_t *pid)
{
    char from[32], to[32];
    snprintf(from, sizeof from, "/proc/self/fd/%d", source);
    snprintf(to, sizeof to, "/proc/self/fd/%d", target);
    const char *argv[] = {"qemu-img", "convert", "-n", "-f", "qcow2", "-O", "raw", from, to, NULL};

    posix_spawn_file_actions_t actions;
    int r = posix_spawn_file_actions_init(&actions);
    if (r != 0)
        return -r;
    /* A dup2 onto itself clears close-on-exec. */
    if ((r = posix_spawn_file_actions_adddup2(&actions, source, source)) == 0 &&
        (r = posix_spawn_file_actions_adddup2(&actions, target, target)) == 0 &&
        (r = posix_spawn_file_actions_adddup2(&actions, stderr_fd, STDERR_FILENO)) == 0 &&
        (r = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0)) ==
            0 &&
        (r = posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0)) ==
            0)
        r = posix_spawnp(pid, argv[0], &actions, NULL, (char **)argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    return -r;
}

/* The first line of what comes, until the other end is closed. */
static void read_first_line(int fd, char *line, size_t size)
{
    char rest[256];
    size_t used = 0;
    for (;;) {
        bool room = used < size - 1;
        ssize_t n = read(fd, room ? line + used : rest, room ? size - 1 - used : sizeof rest);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        used += room ? (size_t)n : 0;
    }
    line[used] = '\0';
    line[strcspn(line, "\n")] = '\0';
}

static int run_qemu_img(int source, int target, struct error *err)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return error_set(err, -errno, "cannot be converted: %s", strerror(errno));
    cleanup_fd int from = ends[0];
    cleanup_fd int to = ends[1];

    pid_t pid;
    int r = spawn_qemu_img(source, target, to, &pid);
    if (r == -ENOENT)
        return error_set(err, -ENOTSUP,
                         "is qcow2, which needs qemu-img to convert it; install qemu-utils");
    if (r < 0)
        return error_set(err, r, "cannot be converted: qemu-img: %s", strerror(-r));
    close(steal_fd(&to));

    char line[512];
    read_first_line(from, line, sizeof line);
    int status;
    while ((r = waitpid(pid, &status, 0)) < 0 && errno == EINTR)
        continue;
    if (r < 0)
        return error_set(err, -errno, "cannot be converted: qemu-img: %s", strerror(errno));
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    if (WIFSIGNALED(status))
        return error_set(err, -EINVAL, "cannot be converted: qemu-img was ended by signal %d",
                         WTERMSIG(status));
    return error_set(err, -EINVAL, "cannot be converted: %s", line);
}

int qcow2_convert(const void *bytes, size_t size, size_t virtual_size, void **ret,
                  struct error *err)
{
    cleanup_fd int source = open_temporary(err);
    if (source < 0)
        return source;
    cleanup_fd int target = open_temporary(err);
    if (target < 0)
        return target;
    int r = write_all(source, bytes, size);
    if (r == 0 && ftruncate(target, (off_t)virtual_size) < 0)
        r = -errno;
    if (r < 0)
        return error_set(err, r, "cannot be converted: %s", strerror(-r));
    r = run_qemu_img(source, target, err);
    size_t converted;
    if (r == 0)
        r = file_read_fd(target, virtual_size, ret, &converted, err);
    return r;
}
