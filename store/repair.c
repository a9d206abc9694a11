/* What can be put in a damaged block's place, in its guest's flash or in a restore point. */
#include "store/check.h"

#include <errno.h>
#include <string.h>

static int drop_row(struct db *db, int64_t layer, int64_t index, struct error *err)
{
    static const char sql[] = "DELETE FROM flash_blocks WHERE key = ?";
    return db_run(db, err, sql, "i", block_key(layer, index));
}

/* 1 and the newest restore point before `than` that holds this block, soundly; 0: none. */
static int find_keeper(struct db *db, const struct layer_owner *owner, int64_t index, int64_t than,
                       int64_t *ret, struct error *err)
{
    static const char sql[] =
        "SELECT b.key, b.encoding, b.checksum, b.data, p.id FROM points p JOIN flash_blocks b"
        " ON b.key = ((2 * p.id + 1) << 20) + ?2 WHERE p.guest_id = ?1 AND p.id < ?3"
        " ORDER BY p.id DESC LIMIT 1";
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    bool sound = false;
    int r = db_prepare(db, sql, &stmt, err);
    if (r < 0)
        return r;
    db_bind(stmt, "iii", owner->guest, index, than);
    r = db_step(db, stmt, err);
    if (r <= 0)
        return r;
    *ret = sqlite3_column_int64(stmt, 4);
    r = block_is_sound(db, stmt, owner, &sound, err);
    return r < 0 ? r : sound ? 1 : -EAGAIN;
}

static int find_sound_keeper(struct db *db, const struct layer_owner *owner, int64_t index,
                             int64_t *ret, struct error *err)
{
    int64_t than = INT64_MAX;
    int r;
    while ((r = find_keeper(db, owner, index, than, ret, err)) == -EAGAIN)
        than = *ret;
    return r;
}

/* A row of the flash that says "as the image" is no row. */
static int drop_if_below(struct db *db, int64_t layer, int64_t index, struct error *err)
{
    static const char sql[] = "DELETE FROM flash_blocks WHERE key = ? AND encoding = 8";
    return db_run(db, err, sql, "i", block_key(layer, index));
}

static int repair_flash(struct db *db, const struct layer_owner *owner, int64_t index,
                        struct store_damage *damage, struct error *err)
{
    struct layer_owner keeper = {0};
    int64_t point = 0;
    int r = owner->guest ? find_sound_keeper(db, owner, index, &point, err) : 0;
    if (r < 0)
        return r;
    bool kept = r > 0;
    damage->outcome = STORE_DAMAGE_REPAIRED;
    r = drop_row(db, owner->layer, index, err);
    if (r < 0 || !kept) {
        snprintf(damage->remedy, sizeof damage->remedy, "%s; what was written there is lost",
                 owner->staging ? "zeros now" : "as its image has it now");
        return r;
    }
    r = block_copy(db, point_layer(point), owner->layer, index, err);
    if (r == 0)
        r = drop_if_below(db, owner->layer, index, err);
    if (r == 0)
        r = layer_owner_get(db, point_layer(point), &keeper, err);
    snprintf(damage->remedy, sizeof damage->remedy,
             "as restore point '%s' has it now; what was written there since is lost",
             keeper.place.point);
    return r;
}

int repair_block(struct db *db, const struct layer_owner *owner, int64_t index,
                 struct store_damage *damage, struct error *err)
{
    struct error held = {0};
    int r = lease_refuse_held(db, owner->flash, &held);
    if (r == -ETXTBSY) {
        damage->outcome = STORE_DAMAGE_HELD;
        snprintf(damage->remedy, sizeof damage->remedy, "left: %s", held.text);
        return 0;
    }
    if (r < 0)
        return error_set(err, r, "%s", held.text);
    if (!owner->point)
        return repair_flash(db, owner, index, damage, err);
    damage->outcome = STORE_DAMAGE_REPAIRED;
    snprintf(damage->remedy, sizeof damage->remedy,
             "as it was next after this restore point; what it kept there is lost");
    return drop_row(db, owner->layer, index, err);
}
