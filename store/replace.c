/* A guest's flash gives way to another, and what happens to flashes that have no name. */
#include "store/internal.h"

#include <errno.h>

int orphan_add(struct db *db, int64_t flash, struct error *err)
{
    static const char sql[] = "INSERT INTO orphans (flash_id) VALUES (?)";
    static const char disown[] = "UPDATE flashes SET guest_id = NULL WHERE id = ?";
    int r = db_run(db, err, disown, "i", flash);
    return r < 0 ? r : db_run(db, err, sql, "i", flash);
}

int guest_replace_flash(struct db *db, const struct guest_ref *guest, int64_t flash,
                        bool vars_removed, struct error *err)
{
    struct store_flash before, after;
    struct history history;
    int r = flash_get(db, guest->flash, &before, err);
    if (r == 0)
        r = flash_get(db, flash, &after, err);
    if (r == 0)
        r = history_edit(db, guest->id, false, 0, &history, err);
    if (r == 0)
        r = history_replace(db, &history, &before, &after, err);
    if (r == 0)
        r = orphan_add(db, before.id, err);
    return r < 0 ? r : guest_set_flash(db, guest->id, flash, vars_removed, err);
}

int store_orphan_list(struct store *store, int64_t *flashes, size_t max, struct error *err)
{
    static const char sql[] = "SELECT flash_id FROM orphans LIMIT ?";
    cleanup_reader struct reader reader = {0};
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    int r = reader_prepare(store, &reader, sql, &stmt, err);
    if (r < 0)
        return r;
    db_bind(stmt, "i", (int64_t)max);
    int count = 0;
    while ((r = db_step(reader.db, stmt, err)) > 0)
        flashes[count++] = sqlite3_column_int64(stmt, 0);
    return r < 0 ? r : count;
}

static int remove_orphan(struct db *db, int64_t flash, struct error *err)
{
    static const char sql[] = "DELETE FROM orphans WHERE flash_id = ?";
    struct store_flash found;
    int r = flash_get(db, flash, &found, err);
    if (r == 0)
        r = db_run(db, err, sql, "i", flash);
    if (r == 0)
        r = flash_remove(db, flash, err);
    /* Its firmware may have been removed before it. */
    return r < 0 ? r : image_remove_unused(db, found.image, err);
}

int store_orphan_remove(struct store *store, int64_t flash, struct error *err)
{
    cleanup_txn struct txn txn = {0};
    int r = txn_begin(store, &txn, err);
    if (r == 0)
        r = remove_orphan(txn.db, flash, err);
    return r < 0 ? r : txn_commit(&txn, err);
}

/* ---- vars ---- */

int guest_ref_with_vars(struct db *db, int64_t guest, struct guest_ref *ret, struct error *err)
{
    int r = guest_ref_by_id(db, guest, ret, err);
    if (r == 0 && ret->mode != FLASH_MODE_SPLIT)
        return error_set(err, -EROFS, "a guest of mode %s has no vars", flash_mode_name(ret->mode));
    return r;
}

int store_vars_unlink(struct store *store, int64_t guest, struct error *err)
{
    cleanup_txn struct txn txn = {0};
    struct guest_ref ref;
    struct store_flash before;
    int64_t flash;
    int r = txn_begin(store, &txn, err);
    if (r == 0)
        r = guest_ref_with_vars(txn.db, guest, &ref, err);
    if (r == 0 && ref.vars_removed)
        return error_set(err, -ENOENT, "there is no vars");
    if (r == 0)
        r = lease_refuse_held(txn.db, ref.flash, err);
    if (r == 0)
        r = flash_get(txn.db, ref.flash, &before, err);
    if (r == 0)
        r = flash_add(txn.db, before.image, 0, &before.attr, &flash, err);
    if (r == 0)
        r = guest_replace_flash(txn.db, &ref, flash, true, err);
    return r < 0 ? r : txn_commit(&txn, err);
}

int store_vars_create(struct store *store, int64_t guest, const struct store_attr *attr,
                      struct error *err)
{
    const unsigned all = STORE_ATTR_UID | STORE_ATTR_GID | STORE_ATTR_MODE | STORE_ATTR_ATIME |
                         STORE_ATTR_MTIME | STORE_ATTR_CTIME;
    cleanup_txn struct txn txn = {0};
    struct guest_ref ref;
    struct store_flash after;
    int r = txn_begin(store, &txn, err);
    if (r == 0)
        r = guest_ref_with_vars(txn.db, guest, &ref, err);
    if (r == 0 && !ref.vars_removed)
        return error_set(err, -EEXIST, "there is a vars already");
    if (r == 0)
        r = flash_set_attr(txn.db, ref.flash, all, attr, &after, err);
    if (r == 0)
        r = guest_set_flash(txn.db, guest, ref.flash, false, err);
    return r < 0 ? r : txn_commit(&txn, err);
}

/* Who reads it at the moment sees it change, as when somebody else writes it. */
static int reset_one(struct db *db, const char *name, struct error *err)
{
    struct guest_ref ref;
    int r = guest_ref_by_name(db, name, &ref, err);
    if (r == 0)
        r = lease_refuse_held(db, ref.flash, err);
    if (r == -ETXTBSY)
        return error_prefix(err, r, "guest '%s'", name);
    if (r == 0)
        r = flash_reset(db, ref.flash, err);
    if (r == 0)
        r = flash_touch(db, ref.flash, store_now() * NSEC_PER_SEC, err);
    return r < 0 ? r : guest_set_flash(db, ref.id, ref.flash, false, err);
}

int store_guest_reset(struct store *store, const char *const *names, size_t count,
                      struct error *err)
{
    cleanup_txn struct txn txn = {0};
    int r = txn_begin(store, &txn, err);
    for (size_t i = 0; i < count && r == 0; i++)
        r = reset_one(txn.db, names[i], err);
    return r < 0 ? r : txn_commit(&txn, err);
}

/* ---- When the mount is gone ---- */

static int anything_left(struct store *store, int64_t *ret, struct error *err)
{
    static const char sql[] = "SELECT EXISTS (SELECT 1 FROM leases) OR"
                              " EXISTS (SELECT 1 FROM staging) OR EXISTS (SELECT 1 FROM orphans)";
    cleanup_reader struct reader reader = {0};
    int r = reader_begin(store, &reader, err);
    return r < 0 ? r : db_integer(reader.db, err, ret, sql, "");
}

static int forget_all(struct db *db, struct error *err)
{
    static const char next[] = "SELECT flash_id FROM orphans LIMIT 1";
    int r = db_script(db,
                      "DELETE FROM leases;"
                      "INSERT INTO orphans (flash_id) SELECT flash_id FROM staging;"
                      "DELETE FROM staging",
                      err);
    int64_t flash = 0;
    while (r == 0 && (r = db_integer(db, err, &flash, next, "")) == 0 && flash)
        r = remove_orphan(db, flash, err);
    return r;
}

int store_forget_mount(struct store *store, struct error *err)
{
    int64_t left = 0;
    int r = anything_left(store, &left, err);
    if (r < 0 || !left)
        return r;
    cleanup_txn struct txn txn = {0};
    r = txn_begin(store, &txn, err);
    if (r == 0)
        r = forget_all(txn.db, err);
    return r < 0 ? r : txn_commit(&txn, err);
}
