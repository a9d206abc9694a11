/* What a guest's flash was before.
 *
 * A restore point holds, of each block that was changed between it and the next newer one, what it
 * was at the point (BLOCK_BELOW: as the image). So what the flash was at a point is the flash as it
 * is, with the blocks of all points from the newest to this one put over it, one after the other;
 * and a point that goes leaves to the next older one what that does not have itself. */
#include "store/internal.h"

#include <errno.h>
#include <string.h>

/* Edits within this time of the first share a restore point. */
#define EDIT_SECONDS 300
#define DAY_SECONDS (24 * 60 * 60)

/* ---- Points ---- */

int history_add(struct db *db, int64_t guest, enum store_point_kind kind, int64_t created_at,
                const char *name, int64_t *ret, struct error *err)
{
    static const char sql[] =
        "INSERT INTO points (guest_id, kind, created_at, name) VALUES (?, ?, ?, ?)";
    int r = db_run(db, err, sql, "iiit", guest, (int64_t)kind, created_at, name);
    *ret = sqlite3_last_insert_rowid(db->handle);
    return r;
}

static int newest_point(struct db *db, int64_t guest, int64_t *ret, struct error *err)
{
    static const char sql[] = "SELECT max(id) FROM points WHERE guest_id = ?";
    return db_integer(db, err, ret, sql, "i", guest);
}

/* Rows go over to the next older point, where that has none. */
static int hand_over(struct db *db, int64_t layer, int64_t older_layer, struct error *err)
{
    int64_t index = -1;
    int r;
    while ((r = layer_next(db, layer, index + 1, &index, err)) > 0) {
        r = block_exists(db, block_key(older_layer, index), err);
        if (r == 0)
            r = block_copy(db, layer, older_layer, index, err);
        if (r < 0)
            return r;
    }
    return r;
}

static int remove_point(struct db *db, int64_t point, struct error *err)
{
    static const char sql[] = "DELETE FROM points WHERE id = ?";
    int r = layer_drop(db, point_layer(point), 0, err);
    return r < 0 ? r : db_run(db, err, sql, "i", point);
}

int history_drop(struct db *db, int64_t guest, int64_t point, struct error *err)
{
    static const char older[] = "SELECT max(id) FROM points WHERE guest_id = ? AND id < ?";
    int64_t heir;
    int r = db_integer(db, err, &heir, older, "ii", guest, point);
    if (r == 0 && heir)
        r = hand_over(db, point_layer(point), point_layer(heir), err);
    return r < 0 ? r : remove_point(db, point, err);
}

int history_forget(struct db *db, int64_t guest, struct error *err)
{
    int64_t point;
    int r;
    while ((r = newest_point(db, guest, &point, err)) == 0 && point) {
        r = remove_point(db, point, err);
        if (r < 0)
            return r;
    }
    return r;
}

/* ---- What is kept ---- */

static int get_retention(struct db *db, struct store_retention *ret, struct error *err)
{
    static const char sql[] = "SELECT sessions, edits, days, bytes FROM retention";
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    int r = db_prepare(db, sql, &stmt, err);
    if (r < 0)
        return r;
    r = db_step(db, stmt, err);
    if (r == 0)
        return error_set(err, -EUCLEAN, "the store is damaged: it does not say what is kept");
    ret->sessions = (uint64_t)sqlite3_column_int64(stmt, 0);
    ret->edits = (uint64_t)sqlite3_column_int64(stmt, 1);
    ret->days = (uint64_t)sqlite3_column_int64(stmt, 2);
    ret->bytes = (uint64_t)sqlite3_column_int64(stmt, 3);
    return r < 0 ? r : 0;
}

int store_get_retention(struct store *store, struct store_retention *ret, struct error *err)
{
    cleanup_reader struct reader reader = {0};
    int r = reader_begin(store, &reader, err);
    return r < 0 ? r : get_retention(reader.db, ret, err);
}

int store_set_retention(struct store *store, const struct store_retention *retention,
                        struct error *err)
{
    static const char sql[] = "UPDATE retention SET sessions = ?, edits = ?, days = ?, bytes = ?";
    cleanup_txn struct txn txn = {0};
    int r = txn_begin(store, &txn, err);
    if (r == 0)
        r = db_run(txn.db, err, sql, "iiii", (int64_t)retention->sessions,
                   (int64_t)retention->edits, (int64_t)retention->days, (int64_t)retention->bytes);
    return r < 0 ? r : txn_commit(&txn, err);
}

struct kept {
    uint64_t sessions, edits, days;
    int64_t day; /* the last that something was kept of */
    uint64_t bytes;
};

/* Of the points from the newest to the oldest: whether this one stays. */
static bool is_wanted(const struct store_retention *retention, struct kept *kept,
                      enum store_point_kind kind, int64_t created_at)
{
    if (kind == STORE_POINT_SNAPSHOT)
        return true;
    if (kept->bytes > retention->bytes)
        return false;
    bool wanted = kind == STORE_POINT_SESSION ? kept->sessions < retention->sessions
                                              : kept->edits < retention->edits;
    if (kind == STORE_POINT_SESSION)
        kept->sessions++;
    else
        kept->edits++;
    int64_t day = created_at / DAY_SECONDS;
    if (day != kept->day && kept->days < retention->days) {
        kept->day = day;
        kept->days++;
        wanted = true;
    }
    return wanted;
}

/* The next older point: its id (0: none), kind and time. */
static int older_point(struct db *db, int64_t guest, int64_t than, int64_t *id,
                       enum store_point_kind *kind, int64_t *created_at, struct error *err)
{
    static const char sql[] = "SELECT id, kind, created_at FROM points"
                              " WHERE guest_id = ? AND id < ? ORDER BY id DESC LIMIT 1";
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    int r = db_prepare(db, sql, &stmt, err);
    if (r < 0)
        return r;
    db_bind(stmt, "ii", guest, than);
    r = db_step(db, stmt, err);
    *id = r > 0 ? sqlite3_column_int64(stmt, 0) : 0;
    *kind = r > 0 ? (enum store_point_kind)sqlite3_column_int(stmt, 1) : STORE_POINT_SESSION;
    *created_at = r > 0 ? sqlite3_column_int64(stmt, 2) : 0;
    return r < 0 ? r : 0;
}

/* Drops what is more than is to be kept, but for the newest, which has just been made, and one that
 * is still wanted. */
static int expire(struct db *db, int64_t guest, int64_t spared, struct error *err)
{
    struct kept kept = {.day = -1};
    struct store_retention retention;
    int64_t than = INT64_MAX, newest = 0, id, created_at;
    uint64_t blocks, bytes = 0;
    enum store_point_kind kind;
    int r = get_retention(db, &retention, err);
    while (r == 0 && (r = older_point(db, guest, than, &id, &kind, &created_at, err)) == 0 && id) {
        than = id;
        newest = newest ? newest : id;
        r = layer_measure(db, point_layer(id), &blocks, &bytes, err);
        kept.bytes += bytes;
        if (r == 0 && !is_wanted(&retention, &kept, kind, created_at) && id != newest &&
            id != spared)
            r = history_drop(db, guest, id, err);
        if (r < 0)
            return r;
    }
    return r;
}

/* ---- Keeping ---- */

/* 1 if the newest point is an edit's that another may still share. */
static int is_recent_edit(struct db *db, struct history *history, struct error *err)
{
    int64_t created_at;
    enum store_point_kind kind;
    int r = older_point(db, history->guest, INT64_MAX, &history->point, &kind, &created_at, err);
    if (r < 0)
        return r;
    return history->point && kind == STORE_POINT_EDIT && store_now() - created_at < EDIT_SECONDS;
}

int history_open(struct db *db, const struct store_flash *flash, struct history *ret,
                 struct error *err)
{
    static const char sql[] = "SELECT count(*), max(written) FROM leases WHERE flash_id = ?";
    *ret = (struct history){.guest = flash->guest};
    if (!flash->guest)
        return 0;
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    int r = db_prepare(db, sql, &stmt, err);
    if (r < 0)
        return r;
    db_bind(stmt, "i", flash->id);
    r = db_step(db, stmt, err);
    if (r < 0)
        return r;
    bool is_open = sqlite3_column_int64(stmt, 0) > 0;
    ret->kind = is_open ? STORE_POINT_SESSION : STORE_POINT_EDIT;
    r = is_recent_edit(db, ret, err);
    ret->fresh = is_open ? sqlite3_column_int64(stmt, 1) == 0 : r == 0;
    return r < 0 ? r : 0;
}

int history_edit(struct db *db, int64_t guest, bool alone, int64_t spared, struct history *ret,
                 struct error *err)
{
    *ret = (struct history){.guest = guest};
    int r = is_recent_edit(db, ret, err);
    if (r < 0 || (r > 0 && !alone))
        return r < 0 ? r : 0;
    r = history_add(db, guest, STORE_POINT_EDIT, store_now(), NULL, &ret->point, err);
    return r < 0 ? r : expire(db, guest, spared, err);
}

/* The first change since it was opened, or of an edit. */
static int begin(struct db *db, struct history *history, int64_t flash, struct error *err)
{
    static const char sql[] = "UPDATE leases SET written = 1 WHERE flash_id = ?";
    int r = history_add(db, history->guest, history->kind, store_now(), NULL, &history->point, err);
    if (r == 0)
        r = db_run(db, err, sql, "i", flash);
    history->fresh = false;
    return r < 0 ? r : expire(db, history->guest, 0, err);
}

int history_keep(struct db *db, struct history *history, const struct store_flash *flash,
                 int64_t index, const uint8_t block[STORE_BLOCK_SIZE], struct error *err)
{
    uint8_t before[STORE_BLOCK_SIZE];
    struct span span = {
        .offset = (uint64_t)index * STORE_BLOCK_SIZE, .length = sizeof before, .buffer = before};
    if (!history->fresh && !history->point)
        return 0;
    int r =
        history->fresh ? 0 : block_exists(db, block_key(point_layer(history->point), index), err);
    if (r != 0)
        return r < 0 ? r : 0;
    r = flash_read(db, flash, &span, err);
    if (r < 0)
        return r;
    if (memcmp(before, block, sizeof before) == 0)
        return 1;
    r = history->fresh ? begin(db, history, flash->id, err) : 0;
    return r < 0 ? r
                 : block_copy(db, flash_layer(flash->id), point_layer(history->point), index, err);
}

/* Whether two flashes have other bytes at this index. */
static int differ(struct db *db, const struct store_flash *a, const struct store_flash *b,
                  int64_t index, struct error *err)
{
    uint8_t of_a[STORE_BLOCK_SIZE], of_b[STORE_BLOCK_SIZE];
    uint64_t offset = (uint64_t)index * STORE_BLOCK_SIZE;
    struct span first = {.offset = offset, .length = sizeof of_a, .buffer = of_a};
    struct span second = {.offset = offset, .length = sizeof of_b, .buffer = of_b};
    int r = flash_read(db, a, &first, err);
    if (r == 0)
        r = flash_read(db, b, &second, err);
    return r < 0 ? r : memcmp(of_a, of_b, sizeof of_a) != 0;
}

static int keep_replaced(struct db *db, struct history *history, const struct store_flash *before,
                         const struct store_flash *after, int64_t index, struct error *err)
{
    int r = block_exists(db, block_key(point_layer(history->point), index), err);
    if (r != 0)
        return r < 0 ? r : 0;
    r = differ(db, before, after, index, err);
    return r <= 0
               ? r
               : block_copy(db, flash_layer(before->id), point_layer(history->point), index, err);
}

/* Every index at which one of them has a block of its own. */
static int each_own_block(struct db *db, int64_t layer, struct history *history,
                          const struct store_flash *before, const struct store_flash *after,
                          struct error *err)
{
    int64_t index = -1;
    int r;
    while ((r = layer_next(db, layer, index + 1, &index, err)) > 0) {
        r = keep_replaced(db, history, before, after, index, err);
        if (r < 0)
            return r;
    }
    return r;
}

int history_replace(struct db *db, struct history *history, const struct store_flash *before,
                    const struct store_flash *after, struct error *err)
{
    int r = each_own_block(db, flash_layer(before->id), history, before, after, err);
    return r < 0 ? r : each_own_block(db, flash_layer(after->id), history, before, after, err);
}
