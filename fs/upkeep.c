#include "fs/upkeep.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/cleanup.h"
#include "fs/log.h"
#include "fs/thread.h"

#define MAINTAIN_INTERVAL_MS 1000
#define CHECKPOINT_INTERVAL_MS 100

enum task { MAINTAIN, CHECKPOINT, SYNC, TASK_COUNT };

struct upkeep {
    struct store *store;
    int stop_fd, sync_fd;
    pthread_t threads[TASK_COUNT];
};

/* False when it is time to stop. */
static bool pause_for(const struct upkeep *upkeep, int ms)
{
    struct pollfd stop = {.fd = upkeep->stop_fd, .events = POLLIN};
    return poll(&stop, 1, ms) == 0;
}

static void tell(const char *what, int r, const struct error *err)
{
    /* A full disk is told of by the writes that wait for it. */
    if (r < 0 && r != -ENOSPC)
        log_line(LOG_WARNING, "%s of the store: %s", what, err->text);
}

static void *maintain(void *data)
{
    struct upkeep *upkeep = data;
    int r = 0;
    store_reserve_hold(upkeep->store);
    while (pause_for(upkeep, r > 0 ? 0 : MAINTAIN_INTERVAL_MS)) {
        struct error err = {0};
        r = store_maintain(upkeep->store, &err);
        tell("upkeep", r, &err);
        if (r == 0)
            store_reserve_hold(upkeep->store);
    }
    return NULL;
}

static void *checkpoint(void *data)
{
    struct upkeep *upkeep = data;
    while (pause_for(upkeep, CHECKPOINT_INTERVAL_MS)) {
        struct error err = {0};
        tell("checkpoint", store_checkpoint(upkeep->store, &err), &err);
    }
    return NULL;
}

static void *sync_when_asked(void *data)
{
    struct upkeep *upkeep = data;
    struct pollfd fds[] = {{.fd = upkeep->stop_fd, .events = POLLIN},
                           {.fd = upkeep->sync_fd, .events = POLLIN}};
    for (;;) {
        poll(fds, 2, -1);
        if (fds[0].revents)
            return NULL;
        eventfd_t asked;
        eventfd_read(upkeep->sync_fd, &asked);
        struct error err = {0};
        tell("sync", store_sync(upkeep->store, &err), &err);
    }
}

void upkeep_sync(struct upkeep *upkeep)
{
    if (upkeep)
        eventfd_write(upkeep->sync_fd, 1);
}

static void stop(struct upkeep *upkeep, int threads)
{
    eventfd_write(upkeep->stop_fd, 1);
    for (int i = 0; i < threads; i++)
        pthread_join(upkeep->threads[i], NULL);
    close(upkeep->stop_fd);
    close(upkeep->sync_fd);
    free(upkeep);
}

int upkeep_new(struct store *store, struct upkeep **ret, struct error *err)
{
    static void *(*const tasks[TASK_COUNT])(void *) = {maintain, checkpoint, sync_when_asked};
    struct upkeep *upkeep = calloc(1, sizeof *upkeep);
    if (!upkeep)
        return error_set(err, -ENOMEM, "out of memory");
    upkeep->store = store;
    upkeep->stop_fd = eventfd(0, EFD_CLOEXEC);
    upkeep->sync_fd = eventfd(0, EFD_CLOEXEC);
    for (int i = 0; i < TASK_COUNT; i++) {
        int r = thread_start(&upkeep->threads[i], tasks[i], upkeep, err);
        if (r == 0)
            continue;
        stop(upkeep, i);
        return r;
    }
    *ret = upkeep;
    return 0;
}

void upkeep_free(struct upkeep *upkeep)
{
    if (!upkeep)
        return;
    struct store *store = upkeep->store;
    stop(upkeep, TASK_COUNT);
    while (store_maintain(store, NULL) > 0)
        ;
}
