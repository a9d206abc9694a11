#include "fs/syncer.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "fs/batch.h"
#include "fs/thread.h"

struct queue {
    struct batch_entry *entries;
    size_t count, capacity;
};

struct syncer {
    struct ops_context *context;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct queue queue;
    bool ending;
};

static int grow(struct queue *queue)
{
    size_t capacity = queue->capacity ? 2 * queue->capacity : BATCH_REQUESTS_MAX;
    struct batch_entry *entries = reallocarray(queue->entries, capacity, sizeof *entries);
    if (!entries)
        return -ENOMEM;
    queue->entries = entries;
    queue->capacity = capacity;
    return 0;
}

void syncer_add(struct syncer *syncer, const struct batch_entry *entry)
{
    pthread_mutex_lock(&syncer->lock);
    int r = syncer->queue.count < syncer->queue.capacity ? 0 : grow(&syncer->queue);
    if (r == 0)
        syncer->queue.entries[syncer->queue.count++] = *entry;
    if (r == 0 && syncer->queue.count == 1)
        pthread_cond_signal(&syncer->changed);
    pthread_mutex_unlock(&syncer->lock);
    if (r < 0)
        fuse_reply_err(entry->req, -r);
}

/* Takes the whole queue, and leaves an empty one with the room of `spare`. */
static bool take_all(struct syncer *syncer, struct queue *spare)
{
    pthread_mutex_lock(&syncer->lock);
    while (syncer->queue.count == 0 && !syncer->ending)
        pthread_cond_wait(&syncer->changed, &syncer->lock);
    struct queue taken = syncer->queue;
    spare->count = 0;
    syncer->queue = *spare;
    *spare = taken;
    pthread_mutex_unlock(&syncer->lock);
    return taken.count > 0;
}

static void *run(void *data)
{
    struct syncer *syncer = data;
    struct queue taken = {0};
    while (take_all(syncer, &taken))
        batch_finish_syncs(syncer->context, taken.entries, taken.count);
    free(taken.entries);
    return NULL;
}

int syncer_new(struct ops_context *context, struct syncer **ret, struct error *err)
{
    struct syncer *syncer = calloc(1, sizeof *syncer);
    if (!syncer)
        return error_set(err, -ENOMEM, "out of memory");
    syncer->context = context;
    pthread_mutex_init(&syncer->lock, NULL);
    pthread_cond_init(&syncer->changed, NULL);
    int r = thread_start(&syncer->thread, run, syncer, err);
    if (r < 0) {
        free(syncer);
        return r;
    }
    *ret = syncer;
    return 0;
}

void syncer_free(struct syncer *syncer)
{
    if (!syncer)
        return;
    pthread_mutex_lock(&syncer->lock);
    syncer->ending = true;
    pthread_cond_signal(&syncer->changed);
    pthread_mutex_unlock(&syncer->lock);
    pthread_join(syncer->thread, NULL);
    free(syncer->queue.entries);
    pthread_cond_destroy(&syncer->changed);
    pthread_mutex_destroy(&syncer->lock);
    free(syncer);
}
