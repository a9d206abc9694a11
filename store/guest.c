#include "store/internal.h"

#include <errno.h>
#include <string.h>

#define GUEST_QUERY                                                                                \
    "SELECT g.id, g.name, g.created_at, " FIRMWARE_COLUMNS ", " FLASH_COLUMNS                      \
    " FROM guests g JOIN firmware f ON f.id = g.firmware_id " FIRMWARE_JOINS                       \
    "JOIN flashes l ON l.id = g.flash_id JOIN images i ON i.id = l.image_id "

static int guest_from_row(sqlite3_stmt *stmt, struct store_guest *ret, struct error *err)
{
    ret->id = sqlite3_column_int64(stmt, 0);
    ret->created_at = sqlite3_column_int64(stmt, 2) * NSEC_PER_SEC;
    int r = name_from_column(stmt, 1, ret->name, err);
    if (r == 0)
        r = firmware_from_row(stmt, 3, &ret->firmware, err);
    if (r == 0)
        flash_from_row(stmt, 3 + FIRMWARE_COLUMN_COUNT, &ret->flash);
    return r;
}

/* 1 if the bound query gives a guest, 0 if none. */
static int one_guest(struct db *db, sqlite3_stmt *stmt, struct store_guest *ret, struct error *err)
{
    int r = db_step(db, stmt, err);
    if (r <= 0)
        return r;
    r = guest_from_row(stmt, ret, err);
    return r < 0 ? r : 1;
}

/* Either name or id is what the query asks for. */
static int get_guest(struct store *store, const char *sql, const char *name, int64_t id,
                     struct store_guest *ret, struct error *err)
{
    cleanup_reader struct reader reader = {0};
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    int r = reader_prepare(store, &reader, sql, &stmt, err);
    if (r < 0)
        return r;
    if (name)
        db_bind(stmt, "t", name);
    else
        db_bind(stmt, "i", id);
    r = one_guest(reader.db, stmt, ret, err);
    return r > 0 ? 0 : r < 0 ? r : -ENOENT;
}

int store_guest_by_name(struct store *store, const char *name, struct store_guest *ret,
                        struct error *err)
{
    static const char sql[] = GUEST_QUERY "WHERE g.name = ?";
    int r = get_guest(store, sql, name, 0, ret, err);
    return r == -ENOENT ? error_set(err, r, "there is no guest '%s'", name) : r;
}

int store_guest_by_id(struct store *store, int64_t guest, struct store_guest *ret,
                      struct error *err)
{
    static const char sql[] = GUEST_QUERY "WHERE g.id = ?";
    int r = get_guest(store, sql, NULL, guest, ret, err);
    return r == -ENOENT ? error_set(err, r, "there is no guest %lld", (long long)guest) : r;
}

int store_guest_by_flash(struct store *store, int64_t flash, struct store_guest *ret,
                         struct error *err)
{
    static const char sql[] = GUEST_QUERY "WHERE g.flash_id = ?";
    int r = get_guest(store, sql, NULL, flash, ret, err);
    return r == -ENOENT ? error_set(err, r, "no guest has flash %lld", (long long)flash) : r;
}

int store_guest_each(struct store *store, enum store_guest_order order, int64_t after,
                     int (*each)(const struct store_guest *guest, void *data), void *data,
                     struct error *err)
{
    static const char by_id[] = GUEST_QUERY "WHERE g.id > ? ORDER BY g.id";
    static const char by_name[] = GUEST_QUERY "WHERE g.id > ? ORDER BY g.name";
    cleanup_reader struct reader reader = {0};
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    int r =
        reader_prepare(store, &reader, order == STORE_GUESTS_BY_ID ? by_id : by_name, &stmt, err);
    if (r < 0)
        return r;
    db_bind(stmt, "i", after);
    struct store_guest guest;
    while ((r = one_guest(reader.db, stmt, &guest, err)) > 0) {
        r = each(&guest, data);
        if (r != 0)
            return r;
    }
    return r;
}

int store_guest_each_name(struct store *store, int64_t after,
                          int (*each)(int64_t id, const char *name, void *data), void *data,
                          struct error *err)
{
    static const char sql[] = "SELECT id, name FROM guests WHERE id > ? ORDER BY id";
    cleanup_reader struct reader reader = {0};
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    int r = reader_prepare(store, &reader, sql, &stmt, err);
    if (r < 0)
        return r;
    db_bind(stmt, "i", after);
    while ((r = db_step(reader.db, stmt, err)) > 0) {
        char name[STORE_NAME_MAX + 1];
        r = name_from_column(stmt, 1, name, err);
        if (r == 0)
            r = each(sqlite3_column_int64(stmt, 0), name, data);
        if (r != 0)
            return r;
    }
    return r;
}

/* ---- Changing ---- */

struct found_guest {
    int64_t id, flash;
};

/* -ENOENT without words: what a missing guest means is the caller's to say. */
static int find(struct db *db, const char *name, struct found_guest *ret, struct error *err)
{
    static const char sql[] = "SELECT id, flash_id FROM guests WHERE name = ?";
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    int r = db_prepare(db, sql, &stmt, err);
    if (r < 0)
        return r;
    db_bind(stmt, "t", name);
    r = db_step(db, stmt, err);
    if (r <= 0)
        return r < 0 ? r : -ENOENT;
    ret->id = sqlite3_column_int64(stmt, 0);
    ret->flash = sqlite3_column_int64(stmt, 1);
    return 0;
}

/* 0 if no guest has the name. */
static int check_free(struct db *db, const char *name, struct error *err)
{
    struct found_guest there;
    int r = find(db, name, &there, err);
    if (r == 0)
        return error_set(err, -EEXIST, "there is a guest '%s' already", name);
    return r == -ENOENT ? 0 : r;
}

static int add_one(struct db *db, const struct store_firmware *firmware, const char *name,
                   const struct store_attr *attr, struct error *err)
{
    static const char sql[] =
        "INSERT INTO guests (name, firmware_id, flash_id, created_at) VALUES (?, ?, ?, ?)";
    int64_t image =
        firmware->mode == FLASH_MODE_SPLIT ? firmware->nvram_template.id : firmware->executable.id;
    int64_t flash;
    int r = check_free(db, name, err);
    if (r == 0)
        r = flash_add(db, image, attr, &flash, err);
    return r < 0 ? r
                 : db_run(db, err, sql, "tiii", name, firmware->id, flash,
                          attr->mtime / NSEC_PER_SEC);
}

int store_guest_add(struct store *store, const char *firmware, const char *const *names,
                    size_t count, const struct store_attr *attr, struct error *err)
{
    int r = 0;
    for (size_t i = 0; i < count && r == 0; i++)
        r = store_check_name("guest", names[i], err);
    if (r < 0)
        return r;

    cleanup_txn struct txn txn = {0};
    struct store_firmware found;
    r = txn_begin(store, &txn, err);
    if (r == 0)
        r = firmware_find(txn.db, firmware, &found, err);
    struct store_attr fresh = *attr;
    fresh.atime = fresh.mtime = fresh.ctime = store_now() * NSEC_PER_SEC;
    for (size_t i = 0; i < count && r == 0; i++)
        r = add_one(txn.db, &found, names[i], &fresh, err);
    return r < 0 ? r : txn_commit(&txn, err);
}

static int remove_one(struct db *db, const char *name, struct error *err)
{
    static const char sql[] = "DELETE FROM guests WHERE id = ?";
    struct found_guest guest;
    int r = find(db, name, &guest, err);
    if (r == -ENOENT)
        return error_set(err, r, "there is no guest '%s'", name);
    if (r == 0)
        r = db_run(db, err, sql, "i", guest.id);
    return r < 0 ? r : flash_remove(db, guest.flash, err);
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

int store_guest_rename(struct store *store, const char *old_name, const char *new_name,
                       struct error *err)
{
    static const char sql[] = "UPDATE guests SET name = ? WHERE id = ?";
    int r = store_check_name("guest", new_name, err);
    if (r < 0)
        return r;
    cleanup_txn struct txn txn = {0};
    struct found_guest guest;
    r = txn_begin(store, &txn, err);
    if (r < 0)
        return r;
    r = find(txn.db, old_name, &guest, err);
    if (r == -ENOENT)
        return error_set(err, r, "there is no guest '%s'", old_name);
    if (r == 0 && strcmp(old_name, new_name) != 0)
        r = check_free(txn.db, new_name, err);
    if (r == 0)
        r = db_run(txn.db, err, sql, "ti", new_name, guest.id);
    return r < 0 ? r : txn_commit(&txn, err);
}
