/* Leases: who has a flash open for writing.
 *
 * A lease's handle is what its opener's file handle is, so that taking and dropping it again (a
 * request that is sent twice) changes nothing. */
#include "store/internal.h"

#include <errno.h>

static void holder_from_row(sqlite3_stmt *stmt, struct store_holder *ret)
{
    ret->opener.pid = sqlite3_column_int64(stmt, 1);
    snprintf(ret->opener.command, sizeof ret->opener.command, "%s",
             (const char *)sqlite3_column_text(stmt, 2));
    snprintf(ret->mountpoint, sizeof ret->mountpoint, "%s",
             (const char *)sqlite3_column_text(stmt, 3));
    ret->since = sqlite3_column_int64(stmt, 4) * NSEC_PER_SEC;
}

#define LEASE_QUERY                                                                                \
    "SELECT handle, pid, command, mountpoint, since FROM leases WHERE flash_id = ?"                \
    " ORDER BY since, handle"

/* 1 and the first holder, or 0. */
static int find_holder(struct db *db, int64_t flash, struct store_holder *ret, struct error *err)
{
    static const char sql[] = LEASE_QUERY " LIMIT 1";
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    int r = db_prepare(db, sql, &stmt, err);
    if (r < 0)
        return r;
    db_bind(stmt, "i", flash);
    r = db_step(db, stmt, err);
    if (r > 0)
        holder_from_row(stmt, ret);
    return r;
}

static int refuse(const struct store_holder *holder, struct error *err)
{
    if (holder->opener.pid == 0)
        return error_set(err, -ETXTBSY,
                         "it is open for writing in %s by a process of another pid namespace",
                         holder->mountpoint);
    return error_set(err, -ETXTBSY, "it is open for writing in %s by process %lld (%s)",
                     holder->mountpoint, (long long)holder->opener.pid, holder->opener.command);
}

/* 1 if the flash has a lease of this handle, 0 if not; -ETXTBSY: another process has it. */
static int find_own(struct db *db, int64_t flash, int64_t handle, int64_t pid, struct error *err)
{
    static const char sql[] = LEASE_QUERY;
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    int r = db_prepare(db, sql, &stmt, err);
    if (r < 0)
        return r;
    db_bind(stmt, "i", flash);
    while ((r = db_step(db, stmt, err)) > 0) {
        struct store_holder holder;
        if (sqlite3_column_int64(stmt, 0) == handle)
            return 1;
        holder_from_row(stmt, &holder);
        if (holder.opener.pid != pid || pid == 0)
            return refuse(&holder, err);
    }
    return r;
}

static int is_held(struct db *db, int64_t flash, uint16_t version, bool *ret, struct error *err)
{
    static const char sql[] =
        "SELECT EXISTS (SELECT 1 FROM leases WHERE flash_id = ? AND version = ?)";
    int64_t held;
    int r = db_integer(db, err, &held, sql, "ii", flash, (int64_t)version);
    *ret = r == 0 && held;
    return r;
}

int lease_take(struct db *db, int64_t flash, const struct store_lease *lease, bool *held,
               struct error *err)
{
    static const char sql[] =
        "INSERT INTO leases (flash_id, handle, version, pid, command, mountpoint, since)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)";
    struct store_flash found;
    int r = flash_get(db, flash, &found, err);
    if (r == 0)
        r = find_own(db, flash, lease->handle, lease->opener.pid, err);
    *held = r >= 0;
    if (r != 0)
        return r < 0 ? r : 0;
    return db_run(db, err, sql, "iiiitti", flash, lease->handle, (int64_t)lease->version,
                  lease->opener.pid, lease->opener.command, lease->mountpoint, store_now());
}

int lease_drop(struct db *db, int64_t flash, const struct store_lease *lease, bool *held,
               struct error *err)
{
    static const char sql[] = "DELETE FROM leases WHERE flash_id = ? AND handle = ?";
    int r = db_run(db, err, sql, "ii", flash, lease->handle);
    return r < 0 ? r : is_held(db, flash, lease->version, held, err);
}

int lease_refuse_other(struct db *db, int64_t flash, int64_t pid, struct error *err)
{
    struct store_holder holder;
    int r = find_holder(db, flash, &holder, err);
    if (r > 0 && (pid == 0 || holder.opener.pid != pid))
        return refuse(&holder, err);
    return r < 0 ? r : 0;
}

int lease_refuse_held(struct db *db, int64_t flash, struct error *err)
{
    return lease_refuse_other(db, flash, 0, err);
}

int store_lease_get(struct store *store, int64_t flash, struct store_holder *ret, struct error *err)
{
    cleanup_reader struct reader reader = {0};
    int r = reader_begin(store, &reader, err);
    return r < 0 ? r : find_holder(reader.db, flash, ret, err);
}

int store_lease_break(struct store *store, int64_t flash, struct error *err)
{
    static const char sql[] = "DELETE FROM leases WHERE flash_id = ?";
    cleanup_txn struct txn txn = {0};
    int r = txn_begin(store, &txn, err);
    if (r == 0)
        r = db_run(txn.db, err, sql, "i", flash);
    if (r == 0 && sqlite3_changes(txn.db->handle) == 0)
        return error_set(err, -ENOENT, "nobody has it open for writing");
    return r < 0 ? r : txn_commit(&txn, err);
}
