/* A queue, oldest first, under one lock. The thread takes up to a batch off its head, tries it
 * without the lock, and puts back in front what is still left. */
#include "fs/waiting.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fs/batch.h"
#include "fs/log.h"
#include "fs/state.h"
#include "fs/thread.h"

#define RETRY_MS 100

struct node {
    struct node *next;
    int64_t deadline_ms;
    struct batch_entry entry;
    uint8_t bytes[];
};

struct waiting {
    struct ops_context *context;
    int64_t patience_ms;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct node *head, **tail;
    struct node *tried[BATCH_REQUESTS_MAX]; /* taken off the head for now */
    size_t tried_count;
    atomic_size_t count; /* what is being tried is counted too */
    atomic_bool ending;
};

bool waiting_any(struct waiting *waiting)
{
    return waiting->count > 0;
}

static struct node *copy_entry(const struct batch_entry *entry, int64_t deadline_ms)
{
    struct node *node = malloc(sizeof *node + entry->change.length);
    if (!node)
        return NULL;
    *node = (struct node){.deadline_ms = deadline_ms, .entry = *entry};
    if (entry->change.length > 0)
        memcpy(node->bytes, entry->change.bytes, entry->change.length);
    node->entry.change.bytes = node->bytes;
    return node;
}

void waiting_add(struct waiting *waiting, const struct batch_entry *entries, size_t count)
{
    int64_t deadline_ms = state_clock_ms() + waiting->patience_ms;
    pthread_mutex_lock(&waiting->lock);
    if (waiting->count == 0)
        log_line(LOG_CRIT,
                 "the store's disk is full or fails: writes of guests wait for up to %lld s; "
                 "make room",
                 (long long)waiting->patience_ms / 1000);
    for (size_t i = 0; i < count; i++) {
        struct node *node = copy_entry(&entries[i], deadline_ms);
        if (!node) {
            struct batch_entry lost = entries[i];
            batch_fail_entries(&lost, 1, -ENOMEM);
            continue;
        }
        *waiting->tail = node;
        waiting->tail = &node->next;
        waiting->count++;
    }
    pthread_cond_signal(&waiting->changed);
    pthread_mutex_unlock(&waiting->lock);
}

bool waiting_has(struct waiting *waiting, uint64_t inode)
{
    bool found = false;
    pthread_mutex_lock(&waiting->lock);
    for (size_t i = 0; i < waiting->tried_count; i++)
        found = found || waiting->tried[i]->entry.inode == inode;
    for (const struct node *node = waiting->head; node && !found; node = node->next)
        found = node->entry.inode == inode;
    pthread_mutex_unlock(&waiting->lock);
    return found;
}

/* Takes up to a batch off the head. */
static void take(struct waiting *waiting)
{
    size_t count = 0;
    pthread_mutex_lock(&waiting->lock);
    while (waiting->head && count < BATCH_REQUESTS_MAX) {
        waiting->tried[count] = waiting->head;
        waiting->head = waiting->head->next;
        count++;
    }
    waiting->tried_count = count;
    if (!waiting->head)
        waiting->tail = &waiting->head;
    pthread_mutex_unlock(&waiting->lock);
}

/* With the lock held. */
static void put_back(struct waiting *waiting, struct node *node)
{
    node->next = waiting->head;
    if (!waiting->head)
        waiting->tail = &node->next;
    waiting->head = node;
}

static bool is_left(const struct batch_entry *left, size_t count, const struct node *node)
{
    for (size_t i = 0; i < count; i++)
        if (left[i].req == node->entry.req)
            return true;
    return false;
}

/* False if something is still left. */
static bool try_some(struct waiting *waiting)
{
    struct batch_entry entries[BATCH_REQUESTS_MAX];
    take(waiting);
    size_t count = waiting->tried_count;
    for (size_t i = 0; i < count; i++)
        entries[i] = waiting->tried[i]->entry;
    size_t left = count > 0 ? batch_commit_entries(waiting->context, entries, count) : 0;

    int64_t now = state_clock_ms();
    size_t kept = 0;
    pthread_mutex_lock(&waiting->lock);
    for (size_t i = count; i-- > 0;) {
        struct node *node = waiting->tried[i];
        bool is_kept = is_left(entries, left, node) && now < node->deadline_ms;
        if (is_kept)
            put_back(waiting, node);
        else if (is_left(entries, left, node))
            batch_fail_entries(&node->entry, 1, -EIO);
        if (!is_kept)
            free(node);
        kept += is_kept;
    }
    waiting->tried_count = 0;
    waiting->count -= count - kept;
    pthread_mutex_unlock(&waiting->lock);
    return kept == 0;
}

static void retry(struct waiting *waiting)
{
    static const struct timespec pause = {.tv_nsec = RETRY_MS * 1000000L};
    while (waiting_any(waiting) && !waiting->ending) {
        if (try_some(waiting))
            continue;
        if (store_reserve_release(waiting->context->view.store))
            log_line(LOG_CRIT, "the reserved space is used up now; make room");
        else
            nanosleep(&pause, NULL);
    }
    if (!waiting_any(waiting))
        log_line(LOG_NOTICE, "no write waits any more");
}

static void *run(void *data)
{
    struct waiting *waiting = data;
    for (;;) {
        pthread_mutex_lock(&waiting->lock);
        while (!waiting->head && !waiting->ending)
            pthread_cond_wait(&waiting->changed, &waiting->lock);
        bool done = waiting->ending;
        pthread_mutex_unlock(&waiting->lock);
        if (done)
            return NULL;
        retry(waiting);
    }
}

int waiting_new(struct ops_context *context, double patience_s, struct waiting **ret,
                struct error *err)
{
    struct waiting *waiting = calloc(1, sizeof *waiting);
    if (!waiting)
        return error_set(err, -ENOMEM, "out of memory");
    waiting->context = context;
    waiting->patience_ms = (int64_t)(patience_s * 1000);
    waiting->tail = &waiting->head;
    pthread_mutex_init(&waiting->lock, NULL);
    pthread_cond_init(&waiting->changed, NULL);
    int r = thread_start(&waiting->thread, run, waiting, err);
    if (r < 0) {
        free(waiting);
        return r;
    }
    *ret = waiting;
    return 0;
}

void waiting_free(struct waiting *waiting)
{
    if (!waiting)
        return;
    pthread_mutex_lock(&waiting->lock);
    waiting->ending = true;
    pthread_cond_signal(&waiting->changed);
    pthread_mutex_unlock(&waiting->lock);
    pthread_join(waiting->thread, NULL);
    while (waiting->head) {
        struct node *node = waiting->head;
        waiting->head = node->next;
        fuse_reply_none(node->entry.req);
        free(node);
    }
    pthread_cond_destroy(&waiting->changed);
    pthread_mutex_destroy(&waiting->lock);
    free(waiting);
}
