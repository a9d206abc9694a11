/* Staging files: what is written beside a guest's vars, to be renamed over it. */
#include "store/internal.h"

#include <errno.h>
#include <string.h>

/* 1 and the flash of a staging file, or 0. */
static int find(struct db *db, int64_t guest, const char *name, int64_t *ret, struct error *err)
{
    static const char sql[] = "SELECT flash_id FROM staging WHERE guest_id = ? AND name = ?";
    int r = db_integer(db, err, ret, sql, "it", guest, name);
    return r < 0 ? r : *ret != 0;
}

/* 0 and the flash, or -ENOENT. */
static int find_present(struct db *db, int64_t guest, const char *name, int64_t *ret,
                        struct error *err)
{
    int r = find(db, guest, name, ret, err);
    return r == 0 ? error_set(err, -ENOENT, "there is no staging file '%s'", name) : r < 0 ? r : 0;
}

static int forget_name(struct db *db, int64_t guest, const char *name, struct error *err)
{
    static const char sql[] = "DELETE FROM staging WHERE guest_id = ? AND name = ?";
    return db_run(db, err, sql, "it", guest, name);
}

static int add_name(struct db *db, int64_t guest, const char *name, int64_t flash,
                    struct error *err)
{
    static const char sql[] = "INSERT INTO staging (guest_id, name, flash_id) VALUES (?, ?, ?)";
    return db_run(db, err, sql, "iti", guest, name, flash);
}

/* Takes the name away; who reads what it was goes on. */
static int leave(struct db *db, int64_t guest, const char *name, int64_t flash, struct error *err)
{
    int r = lease_refuse_held(db, flash, err);
    if (r == 0)
        r = forget_name(db, guest, name, err);
    return r < 0 ? r : orphan_add(db, flash, err);
}

int store_staging_find(struct store *store, int64_t guest, const char *name,
                       struct store_flash *ret, struct error *err)
{
    cleanup_reader struct reader reader = {0};
    int64_t flash;
    int r = reader_begin(store, &reader, err);
    if (r == 0)
        r = find_present(reader.db, guest, name, &flash, err);
    return r < 0 ? r : flash_get_with_delta(reader.db, flash, ret, err);
}

int store_staging_each(struct store *store, int64_t guest,
                       int (*each)(const char *name, int64_t flash, void *data), void *data,
                       struct error *err)
{
    static const char sql[] =
        "SELECT name, flash_id FROM staging WHERE guest_id = ? ORDER BY flash_id";
    cleanup_reader struct reader reader = {0};
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    int r = reader_prepare(store, &reader, sql, &stmt, err);
    if (r < 0)
        return r;
    db_bind(stmt, "i", guest);
    while ((r = db_step(reader.db, stmt, err)) > 0) {
        char name[STORE_NAME_MAX + 1];
        r = name_from_column(stmt, 0, name, err);
        if (r == 0)
            r = each(name, sqlite3_column_int64(stmt, 1), data);
        if (r != 0)
            return r;
    }
    return r;
}

static int add_flash(struct db *db, const struct guest_ref *guest, const struct store_attr *attr,
                     int64_t *ret, struct error *err)
{
    static const char make_staging[] = "UPDATE flashes SET size = 0 WHERE id = ?";
    struct store_flash vars;
    int r = flash_get(db, guest->flash, &vars, err);
    if (r == 0)
        r = flash_add(db, vars.image, 0, attr, ret, err);
    return r < 0 ? r : db_run(db, err, make_staging, "i", *ret);
}

int store_staging_create(struct store *store, int64_t guest, const char *name,
                         const struct store_attr *attr, struct error *err)
{
    static const char count[] = "SELECT count(*) FROM staging WHERE guest_id = ?";
    cleanup_txn struct txn txn = {0};
    struct guest_ref ref;
    int64_t there, flash;
    int r = txn_begin(store, &txn, err);
    if (r == 0)
        r = guest_ref_with_vars(txn.db, guest, &ref, err);
    if (r == 0)
        r = find(txn.db, guest, name, &flash, err);
    if (r > 0)
        return error_set(err, -EEXIST, "there is a staging file '%s' already", name);
    if (r == 0)
        r = db_integer(txn.db, err, &there, count, "i", guest);
    if (r == 0 && there >= STORE_STAGING_MAX)
        return error_set(err, -EDQUOT, "a guest has at most %d staging files", STORE_STAGING_MAX);
    if (r == 0)
        r = add_flash(txn.db, &ref, attr, &flash, err);
    if (r == 0)
        r = add_name(txn.db, guest, name, flash, err);
    return r < 0 ? r : txn_commit(&txn, err);
}

int store_staging_remove(struct store *store, int64_t guest, const char *name, struct error *err)
{
    cleanup_txn struct txn txn = {0};
    int64_t flash;
    int r = txn_begin(store, &txn, err);
    if (r == 0)
        r = find_present(txn.db, guest, name, &flash, err);
    if (r == 0)
        r = leave(txn.db, guest, name, flash, err);
    return r < 0 ? r : txn_commit(&txn, err);
}

int staging_remove_all(struct db *db, int64_t guest, struct error *err)
{
    static const char sql[] = "SELECT flash_id FROM staging WHERE guest_id = ? LIMIT 1";
    static const char forget[] = "DELETE FROM staging WHERE flash_id = ?";
    for (;;) {
        int64_t flash;
        int r = db_integer(db, err, &flash, sql, "i", guest);
        if (r < 0 || flash == 0)
            return r;
        r = lease_refuse_held(db, flash, err);
        if (r == 0)
            r = db_run(db, err, forget, "i", flash);
        if (r == 0)
            r = flash_remove(db, flash, err);
        if (r < 0)
            return r;
    }
}

int store_staging_rename(struct store *store, int64_t guest, const char *name, const char *new_name,
                         bool replace, struct error *err)
{
    cleanup_txn struct txn txn = {0};
    int64_t flash, other;
    int r = txn_begin(store, &txn, err);
    if (r == 0)
        r = find_present(txn.db, guest, name, &flash, err);
    if (r < 0 || strcmp(name, new_name) == 0)
        return r;
    r = find(txn.db, guest, new_name, &other, err);
    if (r > 0 && !replace)
        return error_set(err, -EEXIST, "there is a staging file '%s' already", new_name);
    if (r > 0)
        r = leave(txn.db, guest, new_name, other, err);
    if (r == 0)
        r = forget_name(txn.db, guest, name, err);
    if (r == 0)
        r = add_name(txn.db, guest, new_name, flash, err);
    return r < 0 ? r : txn_commit(&txn, err);
}

/* The staging file's flash takes the place of the guest's. */
static int adopt(struct db *db, const struct guest_ref *guest, const char *name, int64_t flash,
                 struct error *err)
{
    struct store_flash staged;
    int r = flash_get(db, flash, &staged, err);
    if (r == 0 && staged.size != staged.capacity)
        return error_set(err, -EINVAL, "'%s' has %llu bytes; vars has %llu", name,
                         (unsigned long long)staged.size, (unsigned long long)staged.capacity);
    if (r == 0)
        r = lease_refuse_held(db, guest->flash, err);
    if (r == 0)
        r = flash_adopt(db, flash, err);
    if (r == 0)
        r = forget_name(db, guest->id, name, err);
    return r < 0 ? r : guest_replace_flash(db, guest, flash, false, err);
}

int store_staging_adopt(struct store *store, int64_t guest, const char *name, bool replace,
                        struct error *err)
{
    cleanup_txn struct txn txn = {0};
    struct guest_ref ref;
    int64_t flash;
    int r = txn_begin(store, &txn, err);
    if (r == 0)
        r = guest_ref_with_vars(txn.db, guest, &ref, err);
    if (r == 0)
        r = find_present(txn.db, guest, name, &flash, err);
    if (r == 0 && !replace && !ref.vars_removed)
        return error_set(err, -EEXIST, "there is a vars already");
    if (r == 0)
        r = adopt(txn.db, &ref, name, flash, err);
    return r < 0 ? r : txn_commit(&txn, err);
}
