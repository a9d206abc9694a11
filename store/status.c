#include "store/internal.h"
#include "store/schema.h"

#include <errno.h>
#include <sys/statvfs.h>

int count_pages(struct db *db, int64_t *pages, int64_t *free_pages, struct error *err)
{
    int r = db_integer(db, err, pages, "PRAGMA page_count", "");
    return r < 0 ? r : db_integer(db, err, free_pages, "PRAGMA freelist_count", "");
}

static int get_space(struct store *store, struct db *db, struct store_space *ret, struct error *err)
{
    int64_t pages = 0, free_pages = 0, page_size = 0;
    int r = count_pages(db, &pages, &free_pages, err);
    if (r == 0)
        r = db_integer(db, err, &page_size, "PRAGMA page_size", "");
    if (r < 0)
        return r;
    struct statvfs disk;
    if (statvfs(store->path, &disk) < 0)
        return error_set(err, -errno, "%s: %m", store->path);
    *ret = (struct store_space){
        .file_bytes = (uint64_t)(pages * page_size) + log_size(store),
        .free_bytes = (uint64_t)(free_pages * page_size),
        .disk_free_bytes = (uint64_t)disk.f_bavail * disk.f_frsize,
    };
    return 0;
}

int store_get_space(struct store *store, struct store_space *ret, struct error *err)
{
    cleanup_reader struct reader reader = {0};
    int r = reader_begin(store, &reader, err);
    return r < 0 ? r : get_space(store, reader.db, ret, err);
}

int store_get_status(struct store *store, struct store_status *ret, struct error *err)
{
    static const char sql[] =
        "SELECT (SELECT count(*) FROM guests), (SELECT count(*) FROM firmware),"
        " (SELECT count(*) FROM images), b.n, p.n, b.bytes + p.bytes"
        " FROM (SELECT count(*) AS n, ifnull(sum(length(data)), 0) AS bytes FROM blocks) b,"
        " (SELECT count(*) FILTER (WHERE encoding <> 8) AS n," /* BLOCK_BELOW */
        "  ifnull(sum(length(data)), 0) AS bytes FROM flash_blocks) p";
    cleanup_reader struct reader reader = {0};
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    int r = reader_begin(store, &reader, err);
    if (r == 0)
        r = get_space(store, reader.db, &ret->space, err);
    if (r == 0)
        r = db_prepare(reader.db, sql, &stmt, err);
    if (r == 0)
        r = db_step(reader.db, stmt, err);
    if (r < 0)
        return r;
    ret->guests = (uint64_t)sqlite3_column_int64(stmt, 0);
    ret->firmware = (uint64_t)sqlite3_column_int64(stmt, 1);
    ret->images = (uint64_t)sqlite3_column_int64(stmt, 2);
    ret->shared_blocks = (uint64_t)sqlite3_column_int64(stmt, 3);
    ret->private_blocks = (uint64_t)sqlite3_column_int64(stmt, 4);
    ret->unique_bytes = (ret->shared_blocks + ret->private_blocks) * STORE_BLOCK_SIZE;
    ret->stored_bytes = (uint64_t)sqlite3_column_int64(stmt, 5);
    ret->schema_version = SCHEMA_VERSION;
    return 0;
}
