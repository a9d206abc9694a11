/* One lock, a leaf, guards a list and a count of what was dropped. The thread takes it whole, tries
 * each, and what is refused again is back by way of leases_wait(). */
#include "fs/leases.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fs/batch.h"
#include "fs/log.h"
#include "fs/state.h"
#include "fs/thread.h"
#include "fs/waiting.h"

#define PATIENCE_MS 1000
/* In case the lease was dropped by another than this worker. */
#define RETRY_MS 50
/* Of the loop's threads: the others are to take the RELEASE that is waited for. */
#define PAUSED_MAX 2

struct node {
    struct node *next;
    struct batch_entry entry;
};

struct leases {
    struct ops_context *context;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct node *head, **tail;
    uint64_t drops;
    unsigned paused;
    bool ending;
};

static void refuse(struct leases *leases, const struct batch_entry *entry)
{
    struct store *store = leases->context->view.store;
    struct store_holder holder;
    struct store_guest guest;
    int64_t flash = entry->change.flash;
    const struct store_opener *opener = &entry->change.lease.opener;
    const char *name =
        store_guest_by_flash(store, flash, &guest, NULL) == 0 ? guest.name : "a staging file";
    if (store_lease_get(store, flash, &holder, NULL) > 0)
        log_line(LOG_WARNING,
                 "%s: process %lld (%s) may not write: process %lld (%s) has it open for writing",
                 name, (long long)opener->pid, opener->command, (long long)holder.opener.pid,
                 holder.opener.command);
    fuse_reply_err(entry->req, EBUSY);
}

void leases_wait(struct leases *leases, const struct batch_entry *entry)
{
    int64_t now = state_clock_ms();
    if (entry->deadline_ms && now >= entry->deadline_ms) {
        refuse(leases, entry);
        return;
    }
    struct node *node = malloc(sizeof *node);
    if (!node) {
        fuse_reply_err(entry->req, ENOMEM);
        return;
    }
    *node = (struct node){.entry = *entry};
    if (!entry->deadline_ms)
        node->entry.deadline_ms = now + PATIENCE_MS;
    pthread_mutex_lock(&leases->lock);
    *leases->tail = node;
    leases->tail = &node->next;
    pthread_cond_broadcast(&leases->changed);
    pthread_mutex_unlock(&leases->lock);
}

void leases_dropped(struct leases *leases)
{
    pthread_mutex_lock(&leases->lock);
    leases->drops++;
    pthread_cond_broadcast(&leases->changed);
    pthread_mutex_unlock(&leases->lock);
}

/* With the lock held: until a lease was dropped, or for a while. */
static void pause_for_drop(struct leases *leases)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += RETRY_MS * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_nsec -= 1000000000L;
        until.tv_sec++;
    }
    uint64_t before = leases->drops;
    while (leases->drops == before &&
           pthread_cond_timedwait(&leases->changed, &leases->lock, &until) != ETIMEDOUT)
        ;
}

bool leases_pause(struct leases *leases, int64_t *deadline_ms)
{
    int64_t now = state_clock_ms();
    if (*deadline_ms == 0)
        *deadline_ms = now + PATIENCE_MS;
    if (now >= *deadline_ms)
        return false;
    pthread_mutex_lock(&leases->lock);
    bool may = leases->paused < PAUSED_MAX;
    if (may) {
        leases->paused++;
        pause_for_drop(leases);
        leases->paused--;
    }
    pthread_mutex_unlock(&leases->lock);
    return may;
}

/* All that waits, when it is time to try it; NULL when it is time to end and nothing waits. */
static struct node *take_all(struct leases *leases)
{
    pthread_mutex_lock(&leases->lock);
    while (!leases->head && !leases->ending)
        pthread_cond_wait(&leases->changed, &leases->lock);
    if (leases->head)
        pause_for_drop(leases);
    struct node *taken = leases->head;
    leases->head = NULL;
    leases->tail = &leases->head;
    pthread_mutex_unlock(&leases->lock);
    return taken;
}

static void *run(void *data)
{
    struct leases *leases = data;
    struct node *node;
    while ((node = take_all(leases))) {
        while (node) {
            struct node *next = node->next;
            if (batch_commit_entries(leases->context, &node->entry, 1) > 0)
                waiting_add(leases->context->waiting, &node->entry, 1);
            free(node);
            node = next;
        }
    }
    return NULL;
}

int leases_new(struct ops_context *context, struct leases **ret, struct error *err)
{
    struct leases *leases = calloc(1, sizeof *leases);
    if (!leases)
        return error_set(err, -ENOMEM, "out of memory");
    leases->context = context;
    leases->tail = &leases->head;
    pthread_mutex_init(&leases->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&leases->changed, &attr);
    pthread_condattr_destroy(&attr);
    int r = thread_start(&leases->thread, run, leases, err);
    if (r < 0) {
        free(leases);
        return r;
    }
    *ret = leases;
    return 0;
}

void leases_free(struct leases *leases)
{
    if (!leases)
        return;
    pthread_mutex_lock(&leases->lock);
    leases->ending = true;
    pthread_cond_signal(&leases->changed);
    pthread_mutex_unlock(&leases->lock);
    pthread_join(leases->thread, NULL);
    pthread_cond_destroy(&leases->changed);
    pthread_mutex_destroy(&leases->lock);
    free(leases);
}
