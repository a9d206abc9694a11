#include "fs/pull.h"

#include <errno.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* Under a heavy writer one pull gives a mixture of old and new pages; several in a row settle it.
 */
#define REPEATS_MAX 5

#define PAUSE_STEP_MS 5

static struct pull {
    struct state *state;
    int fuse_fd, done_fd;
    struct timespec interval;
    /* The thread sets the one before it looks at the other, the main thread the other way round. */
    atomic_bool waiting_in_kernel, paused;
} pull;

static void enter(void)
{
    static const struct timespec step = {.tv_nsec = PAUSE_STEP_MS * 1000000L};
    for (;;) {
        pull.waiting_in_kernel = true;
        if (!pull.paused)
            return;
        pull.waiting_in_kernel = false;
        nanosleep(&step, NULL);
    }
}

/* Returns when the kernel has written back and dropped every page; false if the mount is gone. */
static bool invalidate(uint64_t inode)
{
    struct {
        struct fuse_out_header header;
        struct fuse_notify_inval_inode_out body;
    } message = {
        .header = {.len = sizeof message, .error = FUSE_NOTIFY_INVAL_INODE},
        .body = {.ino = inode}, /* offset 0, length 0: all of it */
    };
    enter();
    bool mounted = write(pull.fuse_fd, &message, sizeof message) >= 0 || errno != ENODEV;
    pull.waiting_in_kernel = false;
    return mounted;
}

static bool pull_flash(struct state_writer *writer)
{
    uint64_t inode = writer->inode;
    for (int i = 0; inode && i < REPEATS_MAX; i++) {
        uint32_t before = writer->writes;
        if (!invalidate(inode))
            return false;
        if (writer->writes == before)
            break;
    }
    return true;
}

static void *run(void *data)
{
    bool mounted = true;
    while (mounted) {
        clock_nanosleep(CLOCK_MONOTONIC, 0, &pull.interval, NULL);
        uint32_t slots = pull.state->writer_slots;
        for (uint32_t i = 0; i < slots && mounted; i++)
            mounted = pull_flash(&pull.state->writers[i]);
        eventfd_write(pull.done_fd, 1);
    }
    return NULL;
}

bool pull_pause(void)
{
    pull.paused = true;
    return !pull.waiting_in_kernel;
}

void pull_resume(void)
{
    pull.paused = false;
}

int pull_start(struct state *state, int fuse_fd, int done_fd, double interval_s, struct error *err)
{
    pull.state = state;
    pull.fuse_fd = fuse_fd;
    pull.done_fd = done_fd;
    pull.interval.tv_sec = (time_t)interval_s;
    pull.interval.tv_nsec = (long)((interval_s - (double)pull.interval.tv_sec) * 1e9);

    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    /* Signals are the main thread's. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread;
    int r = pthread_create(&thread, &attr, run, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return r == 0 ? 0 : error_set(err, -r, "no thread could be started: %s", strerror(r));
}
