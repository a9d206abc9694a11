#include "store/internal.h"

#include <errno.h>
#include <string.h>
#include <sys/xattr.h>

/* The size of what was asked for; copied where there is room. */
static ssize_t give(const void *bytes, size_t length, void *buffer, size_t size)
{
    if (length > 0 && length <= size)
        memcpy(buffer, bytes, length);
    return (ssize_t)length;
}

ssize_t store_flash_get_xattr(struct store *store, int64_t flash, const char *name, void *value,
                              size_t size, struct error *err)
{
    static const char sql[] = "SELECT value FROM flash_xattrs WHERE flash_id = ? AND name = ?";
    cleanup_reader struct reader reader = {0};
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    int r = reader_prepare(store, &reader, sql, &stmt, err);
    if (r < 0)
        return r;
    db_bind(stmt, "it", flash, name);
    r = db_step(reader.db, stmt, err);
    if (r <= 0)
        return r < 0 ? r : error_set(err, -ENODATA, "there is no attribute %s", name);
    return give(sqlite3_column_blob(stmt, 0), (size_t)sqlite3_column_bytes(stmt, 0), value, size);
}

ssize_t store_flash_list_xattr(struct store *store, int64_t flash, char *names, size_t size,
                               struct error *err)
{
    static const char sql[] = "SELECT name FROM flash_xattrs WHERE flash_id = ?";
    cleanup_reader struct reader reader = {0};
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    int r = reader_prepare(store, &reader, sql, &stmt, err);
    if (r < 0)
        return r;
    db_bind(stmt, "i", flash);
    size_t total = 0;
    while ((r = db_step(reader.db, stmt, err)) > 0) {
        size_t length = (size_t)sqlite3_column_bytes(stmt, 0) + 1;
        if (total + length <= size)
            memcpy(names + total, sqlite3_column_text(stmt, 0), length);
        total += length;
    }
    return r < 0 ? r : (ssize_t)total;
}

static int check_room(struct db *db, int64_t flash, const char *name, size_t size,
                      struct error *err)
{
    static const char sql[] = "SELECT sum(length(CAST(name AS BLOB)) + length(value))"
                              " FROM flash_xattrs WHERE flash_id = ? AND name <> ?";
    int64_t others;
    int r = db_integer(db, err, &others, sql, "it", flash, name);
    if (r == 0 && (uint64_t)others + strlen(name) + size > STORE_XATTR_SIZE_MAX)
        return error_set(err, -E2BIG, "a flash keeps at most %d bytes of attributes",
                         STORE_XATTR_SIZE_MAX);
    return r;
}

int store_flash_set_xattr(struct store *store, int64_t flash, const char *name, const void *value,
                          size_t size, int flags, struct error *err)
{
    static const char find[] =
        "SELECT EXISTS (SELECT 1 FROM flash_xattrs WHERE flash_id = ? AND name = ?)";
    static const char put[] = "REPLACE INTO flash_xattrs (flash_id, name, value) VALUES (?, ?, ?)";
    cleanup_txn struct txn txn = {0};
    struct store_flash found;
    int64_t there;
    int r = txn_begin(store, &txn, err);
    if (r == 0)
        r = flash_get(txn.db, flash, &found, err);
    if (r == 0)
        r = db_integer(txn.db, err, &there, find, "it", flash, name);
    if (r == 0)
        r = check_room(txn.db, flash, name, size, err);
    if (r < 0)
        return r;
    if (there && flags & XATTR_CREATE)
        return error_set(err, -EEXIST, "there is an attribute %s already", name);
    if (!there && flags & XATTR_REPLACE)
        return error_set(err, -ENODATA, "there is no attribute %s", name);
    /* A NULL pointer would be bound as NULL, not as an empty value. */
    r = db_run(txn.db, err, put, "itb", flash, name, size ? value : "", size);
    return r < 0 ? r : txn_commit(&txn, err);
}

int store_flash_remove_xattr(struct store *store, int64_t flash, const char *name,
                             struct error *err)
{
    static const char sql[] = "DELETE FROM flash_xattrs WHERE flash_id = ? AND name = ?";
    cleanup_txn struct txn txn = {0};
    int r = txn_begin(store, &txn, err);
    if (r == 0)
        r = db_run(txn.db, err, sql, "it", flash, name);
    if (r == 0 && sqlite3_changes(txn.db->handle) == 0)
        r = error_set(err, -ENODATA, "there is no attribute %s", name);
    return r < 0 ? r : txn_commit(&txn, err);
}
