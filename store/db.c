#include "store/db.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "store/pagesum.h"

/* Another process may hold the write lock for as long as its largest transaction takes. */
#define BUSY_TIMEOUT_MS 10000

static int errno_of(sqlite3 *handle)
{
    int extended = sqlite3_extended_errcode(handle);
    switch (extended & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return -EBUSY;
    case SQLITE_FULL:
        return -ENOSPC;
    case SQLITE_NOMEM:
        return -ENOMEM;
    case SQLITE_READONLY:
        return -EROFS;
    case SQLITE_CORRUPT:
        return -EUCLEAN;
    case SQLITE_NOTADB:
        return -EINVAL;
    case SQLITE_CANTOPEN: {
        int system = sqlite3_system_errno(handle);
        return system > 0 ? -system : -EIO;
    }
    case SQLITE_IOERR:
        if (extended == SQLITE_IOERR_NOMEM)
            return -ENOMEM;
        return extended == SQLITE_IOERR_DATA ? -EUCLEAN : -EIO;
    default:
        return -EIO;
    }
}

int db_fail(struct db *db, const char *sql, struct error *err)
{
    int code = errno_of(db->handle);
    if (code == -EBUSY)
        return error_set(err, code, "the store is locked by another process; try again");
    if (code == -ENOSPC)
        return error_set(err, code, "no space left for the store; make room on its disk");
    if (code == -EROFS)
        return error_set(err, code,
                         "the store cannot be written: its file or directory is read-only");
    if (code == -EUCLEAN)
        return error_set(err, code, "the store is damaged (%s)",
                         sqlite3_extended_errcode(db->handle) == SQLITE_IOERR_DATA
                             ? "a page of its file is not what was written"
                             : sqlite3_errmsg(db->handle));
    if (code == -EINVAL)
        return error_set(err, code, "not an fwfs store: no SQLite database with page checksums");
    return error_set(err, code, "the store failed: %s (%s)", sqlite3_errmsg(db->handle), sql);
}

static int reserve_sums(struct db *db, struct error *err)
{
    /* Has an effect only where there is no page yet. */
    int size = PAGESUM_SIZE;
    if (sqlite3_file_control(db->handle, "main", SQLITE_FCNTL_RESERVE_BYTES, &size) != SQLITE_OK)
        return db_fail(db, "reserve bytes", err);
    return 0;
}

static int configure(struct db *db, enum db_open_mode mode, struct error *err)
{
    sqlite3_extended_result_codes(db->handle, 1);
    sqlite3_busy_timeout(db->handle, BUSY_TIMEOUT_MS);
    sqlite3_db_config(db->handle, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(db->handle, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    sqlite3_db_config(db->handle, SQLITE_DBCONFIG_ENABLE_FKEY, 1, NULL);
    sqlite3_wal_autocheckpoint(db->handle, 0);

    static const char common[] = "PRAGMA mmap_size = 0; PRAGMA cell_size_check = ON;"
                                 "PRAGMA cache_size = -2048; PRAGMA temp_store = MEMORY;"
                                 "PRAGMA secure_delete = ON;"
                                 "PRAGMA journal_size_limit = 33554432;";
    int r = reserve_sums(db, err);
    if (r == 0)
        r = db_script(db, common, err);
    if (r < 0)
        return r;
    switch (mode) {
    case DB_QUERY:
        return db_script(db, "PRAGMA query_only = ON", err);
    case DB_WRITE:
        return db_script(db, "PRAGMA synchronous = FULL", err);
    case DB_WRITE_LAZY:
        return db_script(db, "PRAGMA synchronous = NORMAL", err);
    }
    return 0;
}

int db_open(const char *path, enum db_open_mode mode, struct db **ret, struct error *err)
{
    cleanup(db_closep) struct db *db = calloc(1, sizeof *db);
    if (!db)
        return error_set(err, -ENOMEM, "out of memory");

    const char *vfs = pagesum_vfs();
    if (!vfs)
        return error_set(err, -ENOMEM, "out of memory");
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE;
    if (sqlite3_open_v2(path, &db->handle, flags, vfs) != SQLITE_OK) {
        if (!db->handle)
            return error_set(err, -ENOMEM, "out of memory");
        if (sqlite3_errcode(db->handle) != SQLITE_CANTOPEN)
            return db_fail(db, "open", err);
        int code = errno_of(db->handle);
        return error_set(err, code, "%s", strerror(-code));
    }
    int r = codec_init(&db->codec, err);
    if (r < 0)
        return r;
    r = configure(db, mode, err);
    if (r < 0)
        return r;
    *ret = steal_ptr(db);
    return 0;
}

void db_close(struct db *db)
{
    if (!db)
        return;
    for (size_t i = 0; i < db->statement_count; i++)
        sqlite3_finalize(db->statements[i].stmt);
    sqlite3_close(db->handle);
    codec_clear(&db->codec);
    free(db);
}

void db_closep(struct db **db)
{
    db_close(*db);
}

int db_prepare(struct db *db, const char *sql, sqlite3_stmt **ret, struct error *err)
{
    for (size_t i = 0; i < db->statement_count; i++) {
        if (db->statements[i].sql == sql) {
            assert(!sqlite3_stmt_busy(db->statements[i].stmt));
            *ret = db->statements[i].stmt;
            return 0;
        }
    }
    assert(db->statement_count < DB_STATEMENTS_MAX);
    sqlite3_stmt *stmt;
    if (sqlite3_prepare_v3(db->handle, sql, -1, SQLITE_PREPARE_PERSISTENT, &stmt, NULL) !=
        SQLITE_OK)
        return db_fail(db, sql, err);
    db->statements[db->statement_count++] = (struct db_statement){.sql = sql, .stmt = stmt};
    *ret = stmt;
    return 0;
}

void db_releasep(sqlite3_stmt **stmt)
{
    if (*stmt) {
        sqlite3_reset(*stmt);
        sqlite3_clear_bindings(*stmt);
    }
}

static void bind_all(sqlite3_stmt *stmt, const char *types, va_list args)
{
    for (int i = 1; *types; types++, i++) {
        int r = SQLITE_OK;
        switch (*types) {
        case 'i':
            r = sqlite3_bind_int64(stmt, i, va_arg(args, int64_t));
            break;
        case 't':
            r = sqlite3_bind_text(stmt, i, va_arg(args, const char *), -1, SQLITE_STATIC);
            break;
        case 'b': {
            const void *bytes = va_arg(args, const void *);
            size_t size = va_arg(args, size_t);
            r = sqlite3_bind_blob64(stmt, i, bytes, size, SQLITE_STATIC);
            break;
        }
        case 'n':
            r = sqlite3_bind_null(stmt, i);
            break;
        default:
            assert(!"a known type");
        }
        /* Borrowed values allocate nothing, so only a wrong index or a busy statement could fail.
         */
        assert(r == SQLITE_OK);
    }
}

void db_bind(sqlite3_stmt *stmt, const char *types, ...)
{
    va_list args;
    va_start(args, types);
    bind_all(stmt, types, args);
    va_end(args);
}

int db_step(struct db *db, sqlite3_stmt *stmt, struct error *err)
{
    switch (sqlite3_step(stmt)) {
    case SQLITE_ROW:
        return 1;
    case SQLITE_DONE:
        return 0;
    default:
        return db_fail(db, sqlite3_sql(stmt), err);
    }
}

int db_run(struct db *db, struct error *err, const char *sql, const char *types, ...)
{
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    int r = db_prepare(db, sql, &stmt, err);
    if (r < 0)
        return r;
    va_list args;
    va_start(args, types);
    bind_all(stmt, types, args);
    va_end(args);
    do {
        r = db_step(db, stmt, err);
    } while (r > 0);
    return r;
}

int db_script(struct db *db, const char *sql, struct error *err)
{
    if (sqlite3_exec(db->handle, sql, NULL, NULL, NULL) != SQLITE_OK)
        return db_fail(db, sql, err);
    return 0;
}

int db_integer(struct db *db, struct error *err, int64_t *ret, const char *sql, const char *types,
               ...)
{
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    int r = db_prepare(db, sql, &stmt, err);
    if (r < 0)
        return r;
    va_list args;
    va_start(args, types);
    bind_all(stmt, types, args);
    va_end(args);
    r = db_step(db, stmt, err);
    if (r < 0)
        return r;
    *ret = r > 0 ? sqlite3_column_int64(stmt, 0) : 0;
    return 0;
}
