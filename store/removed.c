/* Guests that go: removed, to be brought back for a while, or purged. */
#include "store/internal.h"

#include <errno.h>

#define REMOVED_SECONDS (STORE_REMOVED_DAYS * INT64_C(24) * 60 * 60)

/* 0 and the guest, which nobody has open; its staging files are gone. */
static int take_leave(struct db *db, const char *name, struct guest_ref *ret, struct error *err)
{
    int r = guest_ref_by_name(db, name, ret, err);
    if (r < 0)
        return r;
    r = lease_refuse_held(db, ret->flash, err);
    if (r == 0)
        r = staging_remove_all(db, ret->id, err);
    return r == -ETXTBSY ? error_prefix(err, r, "guest '%s'", name) : r;
}

static int forget_name(struct db *db, int64_t guest, struct error *err)
{
    static const char sql[] = "DELETE FROM guests WHERE id = ?";
    return db_run(db, err, sql, "i", guest);
}

static int remove_one(struct db *db, const char *name, struct error *err)
{
    static const char keep[] =
        "INSERT INTO removed_guests"
        " (id, name, removed_at, firmware_id, flash_id, created_at, vars_removed)"
        " SELECT id, name, ?2, firmware_id, flash_id, created_at, vars_removed FROM guests"
        " WHERE id = ?1";
    struct guest_ref guest;
    int r = take_leave(db, name, &guest, err);
    if (r == 0)
        r = db_run(db, err, keep, "ii", guest.id, store_now());
    return r < 0 ? r : forget_name(db, guest.id, err);
}

int store_guest_remove(struct store *store, const char *const *names, size_t count,
                       struct error *err)
{
    cleanup_txn struct txn txn = {0};
    int r = txn_begin(store, &txn, err);
    for (size_t i = 0; i < count && r == 0; i++)
        r = remove_one(txn.db, names[i], err);
    return r < 0 ? r : txn_commit(&txn, err);
}

/* ---- For good ---- */

static int purge_all_of(struct db *db, int64_t guest, int64_t flash, struct error *err)
{
    int r = history_forget(db, guest, err);
    return r < 0 ? r : flash_remove(db, flash, err);
}

static int purge_removed(struct db *db, int64_t guest, struct error *err)
{
    static const char get[] = "SELECT flash_id FROM removed_guests WHERE id = ?";
    static const char drop[] = "DELETE FROM removed_guests WHERE id = ?";
    int64_t flash;
    int r = db_integer(db, err, &flash, get, "i", guest);
    if (r == 0)
        r = db_run(db, err, drop, "i", guest);
    return r < 0 ? r : purge_all_of(db, guest, flash, err);
}

static int last_removed(struct db *db, const char *name, int64_t *ret, struct error *err)
{
    static const char sql[] =
        "SELECT id FROM removed_guests WHERE name = ? ORDER BY removed_at DESC, id DESC LIMIT 1";
    return db_integer(db, err, ret, sql, "t", name);
}

static int purge_one(struct db *db, const char *name, struct error *err)
{
    struct guest_ref guest;
    bool found = false;
    int r = take_leave(db, name, &guest, err);
    if (r == 0) {
        r = forget_name(db, guest.id, err);
        if (r == 0)
            r = purge_all_of(db, guest.id, guest.flash, err);
        found = true;
    }
    int64_t removed;
    while ((r == 0 || r == -ENOENT) && (r = last_removed(db, name, &removed, err)) == 0 &&
           removed) {
        r = purge_removed(db, removed, err);
        found = true;
    }
    return r == 0 && !found ? error_set(err, -ENOENT, "there is no guest '%s'", name) : r;
}

int store_guest_purge(struct store *store, const char *const *names, size_t count,
                      struct error *err)
{
    cleanup_txn struct txn txn = {0};
    int r = txn_begin(store, &txn, err);
    for (size_t i = 0; i < count && r == 0; i++)
        r = purge_one(txn.db, names[i], err);
    return r < 0 ? r : txn_commit(&txn, err);
}

int removed_expire(struct store *store, struct error *err)
{
    static const char sql[] = "SELECT id FROM removed_guests WHERE removed_at < ? LIMIT 1";
    int64_t oldest = store_now() - REMOVED_SECONDS, guest;
    {
        cleanup_reader struct reader reader = {0};
        int r = reader_begin(store, &reader, err);
        if (r == 0)
            r = db_integer(reader.db, err, &guest, sql, "i", oldest);
        if (r < 0 || guest == 0)
            return r;
    }
    cleanup_txn struct txn txn = {0};
    int r = txn_begin(store, &txn, err);
    if (r == 0)
        r = db_integer(txn.db, err, &guest, sql, "i", oldest);
    if (r == 0 && guest)
        r = purge_removed(txn.db, guest, err);
    if (r == 0)
        r = txn_commit(&txn, err);
    return r < 0 ? r : 1;
}

/* ---- Back ---- */

int store_guest_undelete(struct store *store, const char *name, struct error *err)
{
    static const char bring_back[] =
        "INSERT INTO guests (id, name, firmware_id, flash_id, created_at, vars_removed)"
        " SELECT id, name, firmware_id, flash_id, created_at, vars_removed FROM removed_guests"
        " WHERE id = ?";
    static const char drop[] = "DELETE FROM removed_guests WHERE id = ?";
    cleanup_txn struct txn txn = {0};
    int64_t guest;
    int r = txn_begin(store, &txn, err);
    if (r == 0)
        r = last_removed(txn.db, name, &guest, err);
    if (r == 0 && guest == 0)
        return error_set(err, -ENOENT, "no guest '%s' was removed in the last %d days", name,
                         STORE_REMOVED_DAYS);
    if (r == 0)
        r = guest_check_free(txn.db, name, err);
    if (r == 0)
        r = db_run(txn.db, err, bring_back, "i", guest);
    if (r == 0)
        r = db_run(txn.db, err, drop, "i", guest);
    return r < 0 ? r : txn_commit(&txn, err);
}
