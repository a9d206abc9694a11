/* One sync for all who wait. A caller needs a round that starts after it came; whoever finds none
 * running runs the next one for everybody. The log is synced through SQLite's own file object, on a
 * connection that does nothing else, so a commit never waits for it. */
#include "store/internal.h"

#include <errno.h>

void sync_init(struct sync_state *sync)
{
    pthread_mutex_init(&sync->lock, NULL);
    pthread_cond_init(&sync->finished, NULL);
}

void sync_clear(struct sync_state *sync)
{
    db_close(sync->db);
    pthread_cond_destroy(&sync->finished);
    pthread_mutex_destroy(&sync->lock);
}

static int open_log(struct store *store, struct sync_state *sync, struct error *err)
{
    cleanup(db_closep) struct db *db = NULL;
    int r = db_open(store->path, DB_QUERY, &db, err);
    /* The log is opened by the first read. */
    if (r == 0)
        r = db_script(db, "SELECT count(*) FROM sqlite_schema", err);
    if (r < 0)
        return r;
    sqlite3_file_control(db->handle, "main", SQLITE_FCNTL_JOURNAL_POINTER, &sync->wal);
    sync->db = steal_ptr(db);
    return 0;
}

static int sync_log(struct store *store, struct error *err)
{
    struct sync_state *sync = &store->sync;
    int r = sync->db ? 0 : open_log(store, sync, err);
    if (r < 0)
        return r;
    if (sync->wal->pMethods->xSync(sync->wal, SQLITE_SYNC_NORMAL | SQLITE_SYNC_DATAONLY) !=
        SQLITE_OK)
        return error_set(err, -EIO, "the store's log could not be synced to the disk");
    return 0;
}

/* Runs the next round, for everybody. Called with the lock held. */
static void run_round(struct store *store, struct error *err)
{
    struct sync_state *sync = &store->sync;
    sync->running = true;
    uint64_t round = ++sync->started;
    uint64_t commits = store->commits;
    pthread_mutex_unlock(&sync->lock);
    int r = sync_log(store, err);
    pthread_mutex_lock(&sync->lock);
    sync->completed = round;
    if (r < 0) {
        sync->failed = round;
        sync->failure = r;
    } else {
        sync->synced = commits;
        sync->ever = true;
    }
    sync->running = false;
    pthread_cond_broadcast(&sync->finished);
}

int store_sync(struct store *store, struct error *err)
{
    struct sync_state *sync = &store->sync;
    pthread_mutex_lock(&sync->lock);
    /* The first round is never saved: an earlier process may have left what it had not synced. */
    bool needed = !sync->ever || store->commits != sync->synced;
    uint64_t round = sync->started + 1;
    while (needed && sync->completed < round) {
        if (sync->running)
            pthread_cond_wait(&sync->finished, &sync->lock);
        else
            run_round(store, err);
    }
    /* The disk may have dropped what a round that failed was to write, so it is no better that a
     * later round went well. */
    int r = needed && sync->failed >= round ? sync->failure : 0;
    pthread_mutex_unlock(&sync->lock);
    if (r < 0)
        error_set(err, r, "the store's log could not be synced to the disk");
    return r;
}
