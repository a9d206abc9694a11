#include "store/internal.h"

#include <errno.h>
#include <string.h>

#define GUEST_QUERY                                                                                \
    "SELECT g.id, g.name, g.created_at, g.vars_removed, " FIRMWARE_COLUMNS ", " FLASH_COLUMNS      \
    " FROM guests g JOIN firmware f ON f.id = g.firmware_id " FIRMWARE_JOINS                       \
    "JOIN flashes l ON l.id = g.flash_id JOIN images i ON i.id = l.image_id "

static int guest_from_row(sqlite3_stmt *stmt, struct store_guest *ret, struct error *err)
{
    ret->id = sqlite3_column_int64(stmt, 0);
    ret->created_at = sqlite3_column_int64(stmt, 2) * NSEC_PER_SEC;
    ret->vars_removed = sqlite3_column_int(stmt, 3);
    int r = name_from_column(stmt, 1, ret->name, err);
    if (r == 0)
        r = firmware_from_row(stmt, 4, &ret->firmware, err);
    if (r == 0)
        flash_from_row(stmt, 4 + FIRMWARE_COLUMN_COUNT, &ret->flash);
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

static int get_by_id(struct store *store, const char *sql, int64_t id, struct store_guest *ret,
                     struct error *err)
{
    cleanup_reader struct reader reader = {0};
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    int r = reader_prepare(store, &reader, sql, &stmt, err);
    if (r < 0)
        return r;
    db_bind(stmt, "i", id);
    r = one_guest(reader.db, stmt, ret, err);
    return r > 0 ? 0 : r < 0 ? r : -ENOENT;
}

int guest_get(struct db *db, const char *name, struct store_guest *ret, struct error *err)
{
    static const char sql[] = GUEST_QUERY "WHERE g.name = ?";
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    int r = db_prepare(db, sql, &stmt, err);
    if (r < 0)
        return r;
    db_bind(stmt, "t", name);
    r = one_guest(db, stmt, ret, err);
    if (r == 0)
        return error_set(err, -ENOENT, "there is no guest '%s'", name);
    return r < 0 ? r : 0;
}

int store_guest_by_name(struct store *store, const char *name, struct store_guest *ret,
                        struct error *err)
{
    cleanup_reader struct reader reader = {0};
    int r = reader_begin(store, &reader, err);
    return r < 0 ? r : guest_get(reader.db, name, ret, err);
}

int store_guest_by_id(struct store *store, int64_t guest, struct store_guest *ret,
                      struct error *err)
{
    static const char sql[] = GUEST_QUERY "WHERE g.id = ?";
    int r = get_by_id(store, sql, guest, ret, err);
    return r == -ENOENT ? error_set(err, r, "there is no guest %lld", (long long)guest) : r;
}

int store_guest_by_flash(struct store *store, int64_t flash, struct store_guest *ret,
                         struct error *err)
{
    static const char sql[] = GUEST_QUERY "WHERE g.id = (SELECT guest_id FROM flashes WHERE id = ?)"
                                          " AND g.flash_id = ?1";
    int r = get_by_id(store, sql, flash, ret, err);
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

#define REF_QUERY                                                                                  \
    "SELECT g.id, g.flash_id, f.mode, g.vars_removed FROM guests g"                                \
    " JOIN firmware f ON f.id = g.firmware_id "

static int ref_from_query(struct db *db, sqlite3_stmt *stmt, struct guest_ref *ret,
                          struct error *err)
{
    int r = db_step(db, stmt, err);
    if (r <= 0)
        return r < 0 ? r : -ENOENT;
    ret->id = sqlite3_column_int64(stmt, 0);
    ret->flash = sqlite3_column_int64(stmt, 1);
    ret->vars_removed = sqlite3_column_int(stmt, 3);
    const char *mode = (const char *)sqlite3_column_text(stmt, 2);
    if (!mode || flash_mode_parse(mode, &ret->mode) < 0)
        return error_set(err, -EUCLEAN, "the store is damaged: guest %lld has no mode",
                         (long long)ret->id);
    return 0;
}

int guest_ref_by_id(struct db *db, int64_t guest, struct guest_ref *ret, struct error *err)
{
    static const char sql[] = REF_QUERY "WHERE g.id = ?";
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    int r = db_prepare(db, sql, &stmt, err);
    if (r < 0)
        return r;
    db_bind(stmt, "i", guest);
    r = ref_from_query(db, stmt, ret, err);
    return r == -ENOENT ? error_set(err, r, "there is no guest %lld", (long long)guest) : r;
}

/* -ENOENT without words: what a missing guest means is the caller's to say. */
static int find(struct db *db, const char *name, struct guest_ref *ret, struct error *err)
{
    static const char sql[] = REF_QUERY "WHERE g.name = ?";
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    int r = db_prepare(db, sql, &stmt, err);
    if (r < 0)
        return r;
    db_bind(stmt, "t", name);
    return ref_from_query(db, stmt, ret, err);
}

int guest_ref_by_name(struct db *db, const char *name, struct guest_ref *ret, struct error *err)
{
    int r = find(db, name, ret, err);
    return r == -ENOENT ? error_set(err, r, "there is no guest '%s'", name) : r;
}

int guest_set_flash(struct db *db, int64_t guest, int64_t flash, bool vars_removed,
                    struct error *err)
{
    static const char sql[] = "UPDATE guests SET flash_id = ?, vars_removed = ? WHERE id = ?";
    static const char own[] = "UPDATE flashes SET guest_id = ? WHERE id = ?";
    int r = db_run(db, err, sql, "iii", flash, (int64_t)vars_removed, guest);
    return r < 0 ? r : db_run(db, err, own, "ii", guest, flash);
}

/* 0 if no guest has the name. */
int guest_check_free(struct db *db, const char *name, struct error *err)
{
    struct guest_ref there;
    int r = find(db, name, &there, err);
    if (r == 0)
        return error_set(err, -EEXIST, "there is a guest '%s' already", name);
    return r == -ENOENT ? 0 : r;
}

static int add_one(struct db *db, const struct store_firmware *firmware, const char *name,
                   int64_t guest, const struct store_attr *attr, struct error *err)
{
    static const char sql[] =
        "INSERT INTO guests (id, name, firmware_id, flash_id, created_at) VALUES (?, ?, ?, ?, ?)";
    int64_t image =
        firmware->mode == FLASH_MODE_SPLIT ? firmware->nvram_template.id : firmware->executable.id;
    int64_t flash;
    int r = guest_check_free(db, name, err);
    if (r == 0)
        r = flash_add(db, image, guest, attr, &flash, err);
    return r < 0 ? r
                 : db_run(db, err, sql, "itiii", guest, name, firmware->id, flash,
                          attr->mtime / NSEC_PER_SEC);
}

/* Ids are never used twice: AUTOINCREMENT counts those that are given too. */
static int last_id(struct db *db, int64_t *ret, struct error *err)
{
    static const char sql[] = "SELECT seq FROM sqlite_sequence WHERE name = 'guests'";
    return db_integer(db, err, ret, sql, "");
}

int guest_add(struct db *db, const struct store_firmware *firmware, const char *name,
              const struct store_attr *attr, struct error *err)
{
    int64_t last = 0;
    int r = last_id(db, &last, err);
    return r < 0 ? r : add_one(db, firmware, name, last + 1, attr, err);
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
    int64_t guest = 0;
    if (r == 0)
        r = last_id(txn.db, &guest, err);
    struct store_attr fresh = *attr;
    fresh.atime = fresh.mtime = fresh.ctime = store_now() * NSEC_PER_SEC;
    for (size_t i = 0; i < count && r == 0; i++)
        r = add_one(txn.db, &found, names[i], ++guest, &fresh, err);
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
    struct guest_ref guest;
    r = txn_begin(store, &txn, err);
    if (r == 0)
        r = guest_ref_by_name(txn.db, old_name, &guest, err);
    if (r == 0 && strcmp(old_name, new_name) != 0)
        r = guest_check_free(txn.db, new_name, err);
    if (r == 0)
        r = db_run(txn.db, err, sql, "ti", new_name, guest.id);
    return r < 0 ? r : txn_commit(&txn, err);
}
