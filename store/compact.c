/* Giving back to the disk what the store does not need, in steps that writers hardly notice. */
#include "store/internal.h"

#include <errno.h>

/* Moving this many pages takes some milliseconds. */
#define STEP_PAGES 64

static void tell(const struct store_progress *progress, const char *what, int64_t done,
                 int64_t total)
{
    if (progress && progress->told)
        progress->told(what, (uint64_t)done, (uint64_t)total, progress->data);
}

static int count_pending(struct store *store, int64_t *ret, struct error *err)
{
    static const char sql[] =
        "SELECT count(*) FROM flash_blocks INDEXED BY flash_blocks_pending WHERE encoding = 4";
    cleanup_reader struct reader reader = {0};
    int r = reader_begin(store, &reader, err);
    return r < 0 ? r : db_integer(reader.db, err, ret, sql, "");
}

/* Compresses, and purges removed guests whose time has come. A damaged block is left to a check. */
static int settle(struct store *store, const struct store_progress *progress, struct error *err)
{
    int64_t pending, total = 0;
    int r;
    do {
        r = count_pending(store, &pending, err);
        if (r < 0)
            return r;
        total = pending > total ? pending : total;
        tell(progress, "compressing", total - pending, total);
        r = store_maintain(store, err);
        r = r == -EUCLEAN ? 1 : r;
        int moved = r < 0 ? 0 : store_checkpoint(store, err);
        r = moved < 0 ? moved : r;
    } while (r > 0);
    return r;
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
        tell(progress, "shrinking", left < total ? total - left : 0, total);
        left = free_some(store, err);
        int r = left < 0 ? 0 : store_checkpoint(store, err);
        if (r < 0)
            return r;
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
