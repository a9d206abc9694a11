/* Restore points, as others know them. */
#include "store/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *const prefixes[] = {
    [STORE_POINT_SESSION] = "session-",
    [STORE_POINT_EDIT] = "edit-",
};
#define PREFIX_COUNT (sizeof prefixes / sizeof prefixes[0])

#define POINT_QUERY "SELECT id, guest_id, kind, created_at, name FROM points "

static int from_row(struct db *db, sqlite3_stmt *stmt, struct store_point *ret, struct error *err)
{
    int kind = sqlite3_column_int(stmt, 2);
    *ret = (struct store_point){.id = sqlite3_column_int64(stmt, 0),
                                .guest = sqlite3_column_int64(stmt, 1),
                                .kind = (enum store_point_kind)kind,
                                .created_at = sqlite3_column_int64(stmt, 3) * NSEC_PER_SEC};
    int r = 0;
    if (kind == STORE_POINT_SNAPSHOT)
        r = name_from_column(stmt, 4, ret->name, err);
    else if (kind >= 0 && (size_t)kind < PREFIX_COUNT)
        snprintf(ret->name, sizeof ret->name, "%s%lld", prefixes[kind], (long long)ret->id);
    else
        r = error_set(err, -EUCLEAN, "the store is damaged: restore point %lld is of no kind",
                      (long long)ret->id);
    return r < 0 ? r
                 : layer_measure(db, point_layer(ret->id), &ret->blocks, &ret->stored_bytes, err);
}

static int get(struct db *db, int64_t point, struct store_point *ret, struct error *err)
{
    static const char sql[] = POINT_QUERY "WHERE id = ?";
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    int r = db_prepare(db, sql, &stmt, err);
    if (r < 0)
        return r;
    db_bind(stmt, "i", point);
    r = db_step(db, stmt, err);
    if (r == 0)
        return error_set(err, -ENOENT, "there is no restore point %lld", (long long)point);
    return r < 0 ? r : from_row(db, stmt, ret, err);
}

/* The id in a name that was made of it; 0: it is no such name. */
static int64_t id_of_name(const char *name, int kind)
{
    size_t length = strlen(prefixes[kind]);
    if (strncmp(name, prefixes[kind], length) != 0)
        return 0;
    char *end;
    errno = 0;
    int64_t id = strtoll(name + length, &end, 10);
    return errno || end == name + length || *end || name[length] < '1' || name[length] > '9' ? 0
                                                                                             : id;
}

static int find_snapshot(struct db *db, int64_t guest, const char *name, int64_t *ret,
                         struct error *err)
{
    static const char sql[] = "SELECT id FROM points WHERE guest_id = ? AND name = ?";
    return db_integer(db, err, ret, sql, "it", guest, name);
}

static int find(struct db *db, int64_t guest, const char *name, struct store_point *ret,
                struct error *err)
{
    int64_t id = 0;
    int kind = 0;
    while ((size_t)kind < PREFIX_COUNT && (id = id_of_name(name, kind)) == 0)
        kind++;
    if (id == 0)
        kind = STORE_POINT_SNAPSHOT;
    int r = id ? 0 : find_snapshot(db, guest, name, &id, err);
    if (r == 0)
        r = id ? get(db, id, ret, err) : -ENOENT;
    if (r == -ENOENT || (r == 0 && (ret->guest != guest || (int)ret->kind != kind)))
        return error_set(err, -ENOENT, "there is no restore point '%s'", name);
    return r;
}

int store_point_find(struct store *store, int64_t guest, const char *name, struct store_point *ret,
                     struct error *err)
{
    cleanup_reader struct reader reader = {0};
    int r = reader_begin(store, &reader, err);
    return r < 0 ? r : find(reader.db, guest, name, ret, err);
}

int store_point_get(struct store *store, int64_t point, struct store_point *ret, struct error *err)
{
    cleanup_reader struct reader reader = {0};
    int r = reader_begin(store, &reader, err);
    return r < 0 ? r : get(reader.db, point, ret, err);
}

int store_point_each(struct store *store, int64_t guest,
                     int (*each)(const struct store_point *point, void *data), void *data,
                     struct error *err)
{
    static const char sql[] = POINT_QUERY "WHERE guest_id = ? ORDER BY id DESC";
    cleanup_reader struct reader reader = {0};
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    int r = reader_prepare(store, &reader, sql, &stmt, err);
    if (r < 0)
        return r;
    db_bind(stmt, "i", guest);
    while ((r = db_step(reader.db, stmt, err)) > 0) {
        struct store_point point;
        r = from_row(reader.db, stmt, &point, err);
        if (r == 0)
            r = each(&point, data);
        if (r != 0)
            return r;
    }
    return r;
}

/* ---- Reading ---- */

/* Fills a span, at least one byte long, of what the flash was at the point. */
static int point_read(struct db *db, const struct store_flash *flash,
                      const struct store_point *point, const struct span *span, struct error *err)
{
    static const char sql[] =
        "SELECT id FROM points WHERE guest_id = ? AND id >= ? ORDER BY id DESC";
    int r = flash_read(db, flash, span, err);
    if (r < 0)
        return r;
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    r = db_prepare(db, sql, &stmt, err);
    if (r < 0)
        return r;
    db_bind(stmt, "ii", point->guest, point->id);
    while ((r = db_step(db, stmt, err)) > 0) {
        r = layer_read(db, point_layer(sqlite3_column_int64(stmt, 0)), flash->image, span, err);
        if (r < 0)
            return r;
    }
    return r;
}

static int get_flash(struct db *db, int64_t guest, struct store_flash *ret, struct error *err)
{
    struct guest_ref ref;
    int r = guest_ref_by_id(db, guest, &ref, err);
    return r < 0 ? r : flash_get(db, ref.flash, ret, err);
}

ssize_t store_point_read(struct store *store, int64_t point, uint64_t offset, void *buffer,
                         size_t length, struct error *err)
{
    cleanup_reader struct reader reader = {0};
    struct store_point found;
    struct store_flash flash;
    int r = reader_begin(store, &reader, err);
    if (r == 0)
        r = get(reader.db, point, &found, err);
    if (r == 0)
        r = get_flash(reader.db, found.guest, &flash, err);
    if (r < 0 || offset >= flash.size || length == 0)
        return r;
    if (length > flash.size - offset)
        length = flash.size - offset;
    struct span span = {.offset = offset, .length = length, .buffer = buffer};
    r = point_read(reader.db, &flash, &found, &span, err);
    return r < 0 ? r : (ssize_t)length;
}

/* ---- Making, removing, going back ---- */

static int check_snapshot_name(const char *name, struct error *err)
{
    int r = store_check_name("snapshot", name, err);
    for (size_t kind = 0; kind < PREFIX_COUNT && r == 0; kind++)
        if (strncmp(name, prefixes[kind], strlen(prefixes[kind])) == 0)
            r = error_set(err, -EINVAL, "a snapshot's name cannot begin with '%s'", prefixes[kind]);
    return r;
}

int store_snapshot_add(struct store *store, const char *guest, const char *name, struct error *err)
{
    cleanup_txn struct txn txn = {0};
    struct guest_ref ref;
    int64_t there = 0, point;
    int r = check_snapshot_name(name, err);
    if (r == 0)
        r = txn_begin(store, &txn, err);
    if (r == 0)
        r = guest_ref_by_name(txn.db, guest, &ref, err);
    if (r == 0)
        r = find_snapshot(txn.db, ref.id, name, &there, err);
    if (r == 0 && there)
        return error_set(err, -EEXIST, "guest '%s' has a snapshot '%s' already", guest, name);
    if (r == 0)
        r = history_add(txn.db, ref.id, STORE_POINT_SNAPSHOT, store_now(), name, &point, err);
    return r < 0 ? r : txn_commit(&txn, err);
}

static int find_of_guest(struct db *db, const char *guest, const char *name, struct guest_ref *ref,
                         struct store_point *point, struct error *err)
{
    int r = guest_ref_by_name(db, guest, ref, err);
    if (r < 0)
        return r;
    r = find(db, ref->id, name, point, err);
    return r == -ENOENT ? error_prefix(err, r, "guest '%s'", guest) : r;
}

int store_point_remove(struct store *store, const char *guest, const char *name, struct error *err)
{
    cleanup_txn struct txn txn = {0};
    struct guest_ref ref;
    struct store_point point;
    int r = txn_begin(store, &txn, err);
    if (r == 0)
        r = find_of_guest(txn.db, guest, name, &ref, &point, err);
    if (r == 0)
        r = history_drop(txn.db, ref.id, point.id, err);
    return r < 0 ? r : txn_commit(&txn, err);
}

/* The next index from `from` on at which a point since this one keeps a block; -1: none. */
static int next_changed(struct db *db, const struct store_point *point, int64_t from, int64_t *ret,
                        struct error *err)
{
    static const char sql[] =
        "SELECT min(f.key & 1048575) FROM points p JOIN flash_blocks f"
        " ON f.key BETWEEN ((2 * p.id + 1) << 20) + ?3 AND ((2 * p.id + 2) << 20) - 1"
        " WHERE p.guest_id = ?1 AND p.id >= ?2";
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    int r = db_prepare(db, sql, &stmt, err);
    if (r < 0)
        return r;
    db_bind(stmt, "iii", point->guest, point->id, from);
    r = db_step(db, stmt, err);
    if (r < 0)
        return r;
    *ret = sqlite3_column_type(stmt, 0) == SQLITE_NULL ? -1 : sqlite3_column_int64(stmt, 0);
    return 0;
}

static int restore(struct db *db, const struct store_flash *flash, const struct store_point *point,
                   struct error *err)
{
    uint8_t block[STORE_BLOCK_SIZE];
    struct history history;
    int64_t index = -1;
    int r = history_edit(db, point->guest, true, point->id, &history, err);
    while (r == 0 && (r = next_changed(db, point, index + 1, &index, err)) == 0 && index >= 0) {
        struct span span = {
            .offset = (uint64_t)index * STORE_BLOCK_SIZE, .length = sizeof block, .buffer = block};
        r = point_read(db, flash, point, &span, err);
        if (r == 0)
            r = flash_write_block(db, flash, &history, index, block, err);
    }
    return r;
}

int store_point_restore(struct store *store, const char *guest, const char *name, struct error *err)
{
    cleanup_txn struct txn txn = {0};
    struct guest_ref ref;
    struct store_point point;
    struct store_flash flash;
    int r = txn_begin(store, &txn, err);
    if (r == 0)
        r = find_of_guest(txn.db, guest, name, &ref, &point, err);
    if (r == 0)
        r = lease_refuse_held(txn.db, ref.flash, err);
    if (r == -ETXTBSY)
        return error_prefix(err, r, "guest '%s'", guest);
    if (r == 0)
        r = flash_get(txn.db, ref.flash, &flash, err);
    if (r == 0)
        r = restore(txn.db, &flash, &point, err);
    if (r == 0)
        r = guest_set_flash(txn.db, ref.id, ref.flash, false, err);
    if (r == 0)
        r = flash_touch(txn.db, ref.flash, store_now() * NSEC_PER_SEC, err);
    return r < 0 ? r : txn_commit(&txn, err);
}
