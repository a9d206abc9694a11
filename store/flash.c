/* Flashes but for their bytes: who owns them, and when they changed. */
#include "store/internal.h"

#include <errno.h>

/* A time that equals mtime takes no room. */
static void bind_time(sqlite3_stmt *stmt, int parameter, int64_t time, int64_t mtime)
{
    if (time != mtime)
        sqlite3_bind_int64(stmt, parameter, time);
}

/* `sql` takes an id, the attributes, and one integer more if `last` is not 0. */
static int run_with_attr(struct db *db, const char *sql, int64_t id, const struct store_attr *attr,
                         int64_t last, struct error *err)
{
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    int r = db_prepare(db, sql, &stmt, err);
    if (r < 0)
        return r;
    db_bind(stmt, "iiiii", id, (int64_t)attr->uid, (int64_t)attr->gid, (int64_t)attr->mode,
            attr->mtime);
    bind_time(stmt, 6, attr->atime, attr->mtime);
    bind_time(stmt, 7, attr->ctime, attr->mtime);
    if (last)
        sqlite3_bind_int64(stmt, 8, last);
    return db_step(db, stmt, err);
}

int flash_add(struct db *db, int64_t image, int64_t guest, const struct store_attr *attr,
              int64_t *ret, struct error *err)
{
    static const char sql[] =
        "INSERT INTO flashes (image_id, uid, gid, mode, mtime, atime, ctime, guest_id)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, nullif(?, 0))";
    int r = run_with_attr(db, sql, image, attr, guest, err);
    *ret = sqlite3_last_insert_rowid(db->handle);
    return r;
}

void flash_from_row(sqlite3_stmt *stmt, int first, struct store_flash *ret)
{
    int64_t mtime = sqlite3_column_int64(stmt, first + 6);
    bool has_atime = sqlite3_column_type(stmt, first + 7) != SQLITE_NULL;
    bool has_ctime = sqlite3_column_type(stmt, first + 8) != SQLITE_NULL;
    bool staging = sqlite3_column_type(stmt, first + 10) != SQLITE_NULL;
    *ret = (struct store_flash){
        .id = sqlite3_column_int64(stmt, first),
        .image = sqlite3_column_int64(stmt, first + 1),
        .size = (uint64_t)sqlite3_column_int64(stmt, staging ? first + 10 : first + 2),
        .capacity = (uint64_t)sqlite3_column_int64(stmt, first + 2),
        .staging = staging,
        .version = (uint16_t)sqlite3_column_int(stmt, first + 9),
        .guest = sqlite3_column_int64(stmt, first + 11),
        .attr = {.uid = (uint32_t)sqlite3_column_int64(stmt, first + 3),
                 .gid = (uint32_t)sqlite3_column_int64(stmt, first + 4),
                 .mode = (uint32_t)sqlite3_column_int64(stmt, first + 5),
                 .mtime = mtime,
                 .atime = has_atime ? sqlite3_column_int64(stmt, first + 7) : mtime,
                 .ctime = has_ctime ? sqlite3_column_int64(stmt, first + 8) : mtime},
    };
}

int flash_get(struct db *db, int64_t flash, struct store_flash *ret, struct error *err)
{
    static const char sql[] =
        "SELECT " FLASH_COLUMNS " FROM flashes l JOIN images i ON i.id = l.image_id WHERE l.id = ?";
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    int r = db_prepare(db, sql, &stmt, err);
    if (r < 0)
        return r;
    db_bind(stmt, "i", flash);
    r = db_step(db, stmt, err);
    if (r < 0)
        return r;
    if (r == 0)
        return error_set(err, -ENOENT, "there is no flash %lld", (long long)flash);
    flash_from_row(stmt, 0, ret);
    return 0;
}

static int count_delta(struct db *db, struct store_flash *flash, struct error *err)
{
    static const char sql[] = "SELECT count(*) FROM flash_blocks WHERE key BETWEEN ? AND ?";
    int64_t count;
    int r = db_integer(db, err, &count, sql, "ii", flash_block_key(flash->id, 0),
                       block_key_end(flash_layer(flash->id)));
    if (r == 0)
        flash->delta_blocks = (uint64_t)count;
    return r;
}

int flash_get_with_delta(struct db *db, int64_t flash, struct store_flash *ret, struct error *err)
{
    int r = flash_get(db, flash, ret, err);
    return r < 0 ? r : count_delta(db, ret, err);
}

int store_flash_get(struct store *store, int64_t flash, struct store_flash *ret, struct error *err)
{
    cleanup_reader struct reader reader = {0};
    int r = reader_begin(store, &reader, err);
    return r < 0 ? r : flash_get_with_delta(reader.db, flash, ret, err);
}

int flash_set_attr(struct db *db, int64_t flash, unsigned mask, const struct store_attr *attr,
                   struct store_flash *after, struct error *err)
{
    static const char sql[] = "UPDATE flashes SET uid = ?2, gid = ?3, mode = ?4, mtime = ?5,"
                              " atime = ?6, ctime = ?7 WHERE id = ?1";
    int r = flash_get(db, flash, after, err);
    if (r < 0)
        return r;
    if (mask & STORE_ATTR_UID)
        after->attr.uid = attr->uid;
    if (mask & STORE_ATTR_GID)
        after->attr.gid = attr->gid;
    if (mask & STORE_ATTR_MODE)
        after->attr.mode = attr->mode & 07777;
    if (mask & STORE_ATTR_ATIME)
        after->attr.atime = attr->atime;
    if (mask & STORE_ATTR_MTIME)
        after->attr.mtime = attr->mtime;
    if (mask & STORE_ATTR_CTIME)
        after->attr.ctime = attr->ctime;
    r = run_with_attr(db, sql, flash, &after->attr, 0, err);
    return r < 0 ? r : count_delta(db, after, err);
}

int store_flash_renew(struct store *store, int64_t flash, struct error *err)
{
    static const char sql[] = "UPDATE flashes SET version = (version + 1) & 65535 WHERE id = ?";
    cleanup_txn struct txn txn = {0};
    int r = txn_begin(store, &txn, err);
    if (r == 0)
        r = db_run(txn.db, err, sql, "i", flash);
    return r < 0 ? r : txn_commit(&txn, err);
}

int flash_remove(struct db *db, int64_t flash, struct error *err)
{
    static const char drop_xattrs[] = "DELETE FROM flash_xattrs WHERE flash_id = ?";
    static const char drop_flash[] = "DELETE FROM flashes WHERE id = ?";
    int r = layer_drop(db, flash_layer(flash), 0, err);
    if (r == 0)
        r = db_run(db, err, drop_xattrs, "i", flash);
    return r < 0 ? r : db_run(db, err, drop_flash, "i", flash);
}

int store_flash_usage(struct store *store, int64_t flash, struct store_usage *ret,
                      struct error *err)
{
    cleanup_reader struct reader reader = {0};
    int r = reader_begin(store, &reader, err);
    if (r == 0)
        r = layer_measure(reader.db, flash_layer(flash), &ret->delta_blocks, &ret->stored_bytes,
                          err);
    if (r == 0)
        ret->delta_bytes = ret->delta_blocks * STORE_BLOCK_SIZE;
    return r;
}
