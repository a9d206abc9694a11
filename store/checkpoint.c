/* Checkpoints, on a connection of their own.
 *
 * A passive checkpoint makes nobody wait, but under steady writers the log never starts afresh
 * after it. So what was written meanwhile is then moved with the writers held, which takes but a
 * moment. The log's file keeps its size: overwriting it is what makes its syncs cheap. */
#include "store/internal.h"

#include <sys/stat.h>
#include <time.h>

/* From here on a checkpoint is worth its syncs. */
#define LOG_PAGES_WORTHWHILE 4096

uint64_t log_size(const struct store *store)
{
    cleanup_free char *log = NULL;
    struct stat st;
    if (asprintf(&log, "%s-wal", store->path) < 0 || stat(log, &st) < 0)
        return 0;
    return (uint64_t)st.st_size;
}

/* A checkpoint waits for readers with all writers held, of every process: rather another time. */
#define READERS_WAIT_MS 10

static int open_checkpointer(struct store *store, struct error *err)
{
    if (store->checkpointer)
        return 0;
    int r = db_open(store->path, DB_WRITE_LAZY, &store->checkpointer, err);
    if (r == 0)
        sqlite3_busy_timeout(store->checkpointer->handle, READERS_WAIT_MS);
    return r;
}

static int checkpoint(struct store *store, int mode, struct error *err)
{
    int r = open_checkpointer(store, err);
    if (r < 0)
        return r;
    switch (sqlite3_wal_checkpoint_v2(store->checkpointer->handle, NULL, mode, NULL, NULL)) {
    case SQLITE_OK:
    case SQLITE_BUSY: /* another process is at it, or readers are: next time */
    case SQLITE_LOCKED:
        return 0;
    default:
        return db_fail(store->checkpointer, "checkpoint", err);
    }
}

/* First what makes nobody wait, then the rest with the writers held. */
static int checkpoint_all(struct store *store, int mode, struct error *err)
{
    pthread_mutex_lock(&store->checkpoint_lock);
    int r = checkpoint(store, SQLITE_CHECKPOINT_PASSIVE, err);
    if (r == 0) {
        /* SQLite only looks now and then whether nobody writes; waiting here, its turn comes. */
        pthread_mutex_lock(&store->write_lock);
        r = checkpoint(store, mode, err);
        pthread_mutex_unlock(&store->write_lock);
    }
    pthread_mutex_unlock(&store->checkpoint_lock);
    return r;
}

int store_checkpoint(struct store *store, struct error *err)
{
    if (store->log_pages < LOG_PAGES_WORTHWHILE)
        return 0;
    return checkpoint_all(store, SQLITE_CHECKPOINT_RESTART, err);
}

#define TRUNCATE_TRIES 20
#define TRUNCATE_PAUSE_NS 20000000

int checkpoint_truncate(struct store *store, struct error *err)
{
    int r = 0;
    for (int i = 0; i < TRUNCATE_TRIES && r == 0; i++) {
        r = checkpoint_all(store, SQLITE_CHECKPOINT_TRUNCATE, err);
        if (log_size(store) == 0)
            break;
        nanosleep(&(struct timespec){.tv_nsec = TRUNCATE_PAUSE_NS}, NULL);
    }
    return r;
}
