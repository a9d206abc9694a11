#include "fs/sweeper.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fs/inode.h"
#include "fs/log.h"
#include "fs/thread.h"

#define INTERVAL_MS 1000
#define ORPHANS_AT_ONCE 64

struct sweeper {
    struct store *store;
    struct fuse_session *session;
    pthread_t thread;
    int stop_fd;
};

/* To have the attributes of an inode forgotten is the harmless way to ask for it: it touches no
 * page, and an inode that is not there is said to be none. */
static bool is_known(struct sweeper *sweeper, const struct store_flash *flash)
{
    return fuse_lowlevel_notify_inval_inode(
               sweeper->session, inode_of_flash(flash->id, flash->version), -1, 0) != -ENOENT;
}

static int sweep(struct sweeper *sweeper, struct error *err)
{
    int64_t orphans[ORPHANS_AT_ONCE];
    int count = store_orphan_list(sweeper->store, orphans, ORPHANS_AT_ONCE, err);
    int r = count < 0 ? count : 0;
    for (int i = 0; i < count && r == 0; i++) {
        struct store_flash flash;
        r = store_flash_get(sweeper->store, orphans[i], &flash, err);
        if (r == 0 && !is_known(sweeper, &flash))
            r = store_orphan_remove(sweeper->store, orphans[i], err);
    }
    return r;
}

static void *run(void *data)
{
    struct sweeper *sweeper = data;
    struct pollfd stop = {.fd = sweeper->stop_fd, .events = POLLIN};
    while (poll(&stop, 1, INTERVAL_MS) == 0) {
        struct error err = {0};
        if (sweep(sweeper, &err) < 0)
            log_line(LOG_WARNING, "removing what has no name any more: %s", err.text);
    }
    return NULL;
}

int sweeper_new(struct store *store, struct fuse_session *session, struct sweeper **ret,
                struct error *err)
{
    struct sweeper *sweeper = calloc(1, sizeof *sweeper);
    if (!sweeper)
        return error_set(err, -ENOMEM, "out of memory");
    *sweeper =
        (struct sweeper){.store = store, .session = session, .stop_fd = eventfd(0, EFD_CLOEXEC)};
    int r = thread_start(&sweeper->thread, run, sweeper, err);
    if (r < 0) {
        close(sweeper->stop_fd);
        free(sweeper);
        return r;
    }
    *ret = sweeper;
    return 0;
}

void sweeper_free(struct sweeper *sweeper)
{
    if (!sweeper)
        return;
    eventfd_write(sweeper->stop_fd, 1);
    pthread_join(sweeper->thread, NULL);
    close(sweeper->stop_fd);
    free(sweeper);
}
