/* Many changes in one transaction. What a change is refused for is found before it has changed
 * anything, so a refusal leaves the transaction as it was; any other failure (the disk, damage) may
 * come half-way, so then everything is rolled back and each change tried by itself. */
#include "store/internal.h"

#include <errno.h>

static bool is_refusal(int r)
{
    return r == -EFBIG || r == -ENOENT || r == -ETXTBSY || r == -EINVAL;
}

static int apply_attr(struct db *db, struct store_change *change, struct error *err)
{
    int r = 0;
    if (change->mask & STORE_ATTR_SIZE && !change->is_open)
        r = lease_refuse_other(db, change->flash, change->lease.opener.pid, err);
    if (r == 0 && change->mask & STORE_ATTR_SIZE)
        r = flash_truncate(db, change->flash, change->size, change->now, err);
    return r < 0 ? r
                 : flash_set_attr(db, change->flash, change->mask, &change->attr, &change->after,
                                  err);
}

static int apply_one(struct db *db, struct store_change *change, struct error *err)
{
    switch (change->kind) {
    case STORE_CHANGE_WRITE:
        return flash_write(db, change->flash, change->offset, change->bytes, change->length,
                           change->now, err);
    case STORE_CHANGE_ATTR:
        return apply_attr(db, change, err);
    case STORE_CHANGE_LEASE_TAKE:
        return lease_take(db, change->flash, &change->lease, &change->held, err);
    case STORE_CHANGE_LEASE_DROP:
        return lease_drop(db, change->flash, &change->lease, &change->held, err);
    }
    return -EINVAL;
}

/* 0 when the transaction was committed; the results hold the refusals. */
static int apply_together(struct store *store, struct store_change *changes, size_t count,
                          struct error *err)
{
    cleanup_txn struct txn txn = {0};
    int r = txn_begin(store, &txn, err);
    for (size_t i = 0; i < count && r == 0; i++) {
        changes[i].result = apply_one(txn.db, &changes[i], err);
        if (!is_refusal(changes[i].result))
            r = changes[i].result;
    }
    return r < 0 ? r : txn_commit(&txn, err);
}

int store_apply(struct store *store, struct store_change *changes, size_t count, struct error *err)
{
    int r = apply_together(store, changes, count, err);
    if (r < 0 && count > 1) {
        for (size_t i = 0; i < count; i++) {
            int one = apply_together(store, &changes[i], 1, err);
            if (one < 0)
                changes[i].result = one;
        }
    } else if (r < 0 && count == 1) {
        changes[0].result = r;
    }
    for (size_t i = 0; i < count; i++)
        if (changes[i].result < 0)
            return changes[i].result;
    return 0;
}

int store_flash_write(struct store *store, int64_t flash, uint64_t offset, const void *bytes,
                      size_t length, int64_t now, struct error *err)
{
    struct store_change change = {.kind = STORE_CHANGE_WRITE,
                                  .flash = flash,
                                  .offset = offset,
                                  .bytes = bytes,
                                  .length = length,
                                  .now = now};
    return store_apply(store, &change, 1, err);
}

int store_flash_set_attr(struct store *store, int64_t flash, unsigned mask,
                         const struct store_attr *attr, struct error *err)
{
    struct store_change change = {
        .kind = STORE_CHANGE_ATTR, .flash = flash, .mask = mask, .attr = *attr};
    return store_apply(store, &change, 1, err);
}
