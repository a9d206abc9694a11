/* Threads: those of the loop, which answer requests, and one for the store's upkeep, so that no
 * request waits for it. */
#include "fs/worker.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "fs/log.h"
#include "fs/loop.h"
#include "fs/ops.h"

#define LOOP_THREADS 4
#define UPKEEP_INTERVAL_MS 1000

struct upkeep {
    struct store *store;
    int stop_fd;
    pthread_t thread;
};

static void *upkeep_run(void *data)
{
    struct upkeep *upkeep = data;
    struct pollfd stop = {.fd = upkeep->stop_fd, .events = POLLIN};
    bool more = false;
    while (poll(&stop, 1, more ? 0 : UPKEEP_INTERVAL_MS) == 0) {
        struct error err = {0};
        int r = store_maintain(upkeep->store, &err);
        if (r < 0)
            log_line(LOG_WARNING, "upkeep of the store: %s", err.text);
        more = r > 0;
    }
    return NULL;
}

static int upkeep_start(struct upkeep *upkeep, struct store *store, struct error *err)
{
    upkeep->store = store;
    upkeep->stop_fd = eventfd(0, EFD_CLOEXEC);
    if (upkeep->stop_fd < 0)
        return error_set(err, -errno, "eventfd: %m");
    int r = pthread_create(&upkeep->thread, NULL, upkeep_run, upkeep);
    if (r == 0)
        return 0;
    close(upkeep->stop_fd);
    upkeep->store = NULL;
    return error_set(err, -r, "no thread could be started: %s", strerror(r));
}

/* What is still to be done for the store is done before it is closed. */
static void upkeep_stop(struct upkeep *upkeep)
{
    if (!upkeep->store)
        return;
    eventfd_write(upkeep->stop_fd, 1);
    pthread_join(upkeep->thread, NULL);
    close(upkeep->stop_fd);
    while (store_maintain(upkeep->store, NULL) > 0)
        ;
}

static void destroy_sessionp(struct fuse_session **session)
{
    if (*session)
        fuse_session_destroy(*session);
}

/* libfuse takes the descriptor over with the name /dev/fd/N, so it gets one of its own. */
static int attach(struct fuse_session *session, int fuse_fd, struct error *err)
{
    char path[32];
    int fd = dup(fuse_fd);
    if (fd < 0)
        return error_set(err, -errno, "/dev/fuse: %m");
    snprintf(path, sizeof path, "/dev/fd/%d", fd);
    if (fuse_session_mount(session, path) < 0) {
        close(fd);
        return error_set(err, -EIO, "libfuse did not take the mount's descriptor");
    }
    return 0;
}

static int serve(const struct worker_config *config, struct store *store, struct error *err)
{
    struct ops_context context = {
        .view = {.store = store,
                 .mountpoint = config->mountpoint,
                 .uid = getuid(),
                 .gid = getgid(),
                 .mounted_at = config->mounted_at},
        .ready = config->ready,
        .ready_data = config->ready_data,
    };
    char *argv[] = {(char[]){"fwfs"}, NULL};
    struct fuse_args args = FUSE_ARGS_INIT(1, argv);
    cleanup(destroy_sessionp) struct fuse_session *session =
        fuse_session_new(&args, &ops_table, sizeof ops_table, &context);
    if (!session)
        return error_set(err, -ENOMEM, "libfuse made no session");
    int r = attach(session, config->fuse_fd, err);
    return r < 0 ? r : loop_run(session, config->stop_fd, LOOP_THREADS, err);
}

int worker_run(const struct worker_config *config, struct error *err)
{
    cleanup(store_closep) struct store *store = NULL;
    struct upkeep upkeep = {0};
    int r = store_open(config->store, STORE_LAZY_SYNC, &store, err);
    if (r == 0)
        r = upkeep_start(&upkeep, store, err);
    if (r == 0)
        r = serve(config, store, err);
    upkeep_stop(&upkeep);
    return r;
}
