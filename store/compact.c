/* Giving back to the disk what the store does not need, in steps that writers hardly notice. */
#include "store/internal.h"

#include <errno.h>
#include <time.h>

/* Moving this many pages takes some milliseconds. */
#define STEP_PAGES 64

static void tell(const struct store_progress *progress, const char *what, int64_t done,
                 int64_t total)
{
    if (progress && progress->told)
        progress->told(what, (uint64_t)done, (uint64_t)total, progress->data);
}

static int64_t clock_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * NSEC_PER_SEC + now.tv_nsec;
}

/* SQLite lets who waits for a lock sleep and try again: one step after the other would leave a
 * writer hardly a moment to find it free. */
static void let_writers_in(int64_t since)
{
    int64_t pause = 2 * (clock_now() - since);
    nanosleep(&(struct timespec){pause / NSEC_PER_SEC, pause % NSEC_PER_SEC}, NULL);
}

static int count(struct store *store, const char *sql, int64_t *ret, struct error *err)
{
    cleanup_reader struct reader reader = {0};
    int r = reader_begin(store, &reader, err);
    return r < 0 ? r : db_integer(reader.db, err, ret, sql, "");
}

/* Compresses, and purges removed guests whose time has come: as many steps as that takes now, since
 * there may be more to do all the time. A damaged block is left to a check. */
static int settle(struct store *store, const struct store_progress *progress, struct error *err)
{
    static const char pending[] =
        "SELECT count(*) FROM flash_blocks INDEXED BY flash_blocks_pending WHERE encoding = 4";
    static const char removed[] = "SELECT count(*) FROM removed_guests";
    int64_t blocks = 0, guests = 0;
    int r = count(store, pending, &blocks, err);
    if (r == 0)
        r = count(store, removed, &guests, err);
    int64_t total = blocks / STORE_MAINTAIN_BLOCKS + guests + 1;
    bool more = true;
    for (int64_t step = 0; step < total && more && r >= 0; step++) {
        int64_t since = clock_now();
        tell(progress, "compressing", step, total);
        r = store_maintain(store, err);
        more = r > 0 || r == -EUCLEAN;
        r = r < 0 && r != -EUCLEAN ? r : store_checkpoint(store, err);
        let_writers_in(since);
    }
    return r < 0 ? r : 0;
}

/* The number of free pages before it. */
static int64_t free_some(struct store *store, struct error *err)
{
    static const char sql[] = "PRAGMA incremental_vacuum(64)";
    int64_t pages, free_pages;
    cleanup_txn struct txn txn = {0};
    int r = txn_begin(store, &txn, err);
    if (r == 0)
        r = count_pages(txn.db, &pages, &free_pages, err);
    if (r == 0 && free_pages > 0)
        r = db_run(txn.db, err, sql, "");
    if (r == 0)
        r = txn_commit(&txn, err);
    return r < 0 ? r : free_pages;
}

static int shrink(struct store *store, const struct store_progress *progress, struct error *err)
{
    int64_t total = free_some(store, err), left = total;
    /* Writers may free pages all the time: as many steps as there were at first are enough. */
    for (int64_t steps = total / STEP_PAGES; left > 0 && steps >= 0; steps--) {
        int64_t since = clock_now();
        tell(progress, "shrinking", left < total ? total - left : 0, total);
        left = free_some(store, err);
        int r = left < 0 ? 0 : store_checkpoint(store, err);
        if (r < 0)
            return r;
        let_writers_in(since);
    }
    return left < 0 ? (int)left : 0;
}

int store_compact(struct store *store, const struct store_progress *progress, struct error *err)
{
    int r = settle(store, progress, err);
    if (r == 0)
        r = shrink(store, progress, err);
    tell(progress, "log", 0, 0);
    return r < 0 ? r : checkpoint_truncate(store, err);
}
