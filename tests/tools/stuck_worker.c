/* Loaded into a worker with LD_PRELOAD: kills it while one of its threads waits in the kernel for
 * the answer to a WRITE that it has just taken, so that it cannot end before the next worker has
 * given that answer.
 *
 * The file named in STUCK_WORKER orders it; it is removed first, so that only one worker dies. */
#include <dlfcn.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int fuse_fd;
static uint64_t inode;

static int is_fuse(int fd)
{
    char path[32], target[32] = "";
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return readlink(path, target, sizeof target - 1) > 0 && strcmp(target, "/dev/fuse") == 0;
}

/* Has the kernel drop the file's pages: it waits for the one that is being written. */
static void *get_stuck(void *data)
{
    struct {
        struct fuse_out_header header;
        struct fuse_notify_inval_inode_out body;
    } message = {
        .header = {.len = sizeof message, .error = FUSE_NOTIFY_INVAL_INODE},
        .body = {.ino = inode},
    };
    return write(fuse_fd, &message, sizeof message) < 0 ? NULL : data;
}

ssize_t read(int fd, void *buffer, size_t size)
{
    ssize_t (*next)(int, void *, size_t) = dlsym(RTLD_NEXT, "read");
    const struct fuse_in_header *header = buffer;
    const char *order = getenv("STUCK_WORKER");
    ssize_t n = next(fd, buffer, size);
    if (n < (ssize_t)sizeof *header || !order || header->opcode != FUSE_WRITE || !is_fuse(fd) ||
        unlink(order) < 0)
        return n;
    static const struct timespec moment = {.tv_nsec = 300 * 1000000L};
    pthread_t thread;
    fuse_fd = fd;
    inode = header->nodeid;
    if (pthread_create(&thread, NULL, get_stuck, NULL) == 0)
        nanosleep(&moment, NULL);
    kill(getpid(), SIGKILL);
    return n;
}
