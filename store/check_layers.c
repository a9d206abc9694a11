/* Every private block, a few a transaction. */
#include "store/check.h"

#include <errno.h>
#include <string.h>

#define STEP_BLOCKS 512

/* ---- Whose it is ---- */

static void owner_from_row(sqlite3_stmt *stmt, struct layer_owner *ret)
{
    int64_t size = sqlite3_column_int64(stmt, 3);
    const char *guest = (const char *)sqlite3_column_text(stmt, 5);
    const char *mode = (const char *)sqlite3_column_text(stmt, 7);
    ret->found = true;
    ret->flash = sqlite3_column_int64(stmt, 0);
    ret->image = sqlite3_column_int64(stmt, 1);
    ret->guest = sqlite3_column_int64(stmt, 2);
    ret->blocks = (size + STORE_BLOCK_SIZE - 1) / STORE_BLOCK_SIZE;
    ret->staging = sqlite3_column_int(stmt, 4);
    snprintf(ret->place.guest, sizeof ret->place.guest, "%s", guest ? guest : "");
    ret->place.removed = sqlite3_column_int(stmt, 6);
    ret->place.file = mode && strcmp(mode, "split") == 0 ? "vars" : "code";
}

#define OWNER_JOINS                                                                                \
    " LEFT JOIN images i ON i.id = l.image_id"                                                     \
    " LEFT JOIN firmware f ON f.id = ifnull(g.firmware_id, r.firmware_id) WHERE "

static const char flash_query[] =
    "SELECT l.id, l.image_id, l.guest_id, ifnull(l.size, i.size), l.size IS NOT NULL,"
    " coalesce(g.name, r.name), r.id IS NOT NULL, f.mode, s.name FROM flashes l"
    " LEFT JOIN staging s ON s.flash_id = l.id"
    " LEFT JOIN guests g ON g.id = ifnull(l.guest_id, s.guest_id)"
    " LEFT JOIN removed_guests r ON r.id = l.guest_id" OWNER_JOINS "l.id = ?";

static const char point_query[] =
    "SELECT l.id, l.image_id, p.guest_id, i.size, 0, coalesce(g.name, r.name), r.id IS NOT NULL,"
    " f.mode, CASE p.kind WHEN 0 THEN printf('session-%d', p.id)"
    " WHEN 1 THEN printf('edit-%d', p.id) ELSE p.name END FROM points p"
    " LEFT JOIN guests g ON g.id = p.guest_id LEFT JOIN removed_guests r ON r.id = p.guest_id"
    " LEFT JOIN flashes l ON l.id = ifnull(g.flash_id, r.flash_id)" OWNER_JOINS "p.id = ?";

int layer_owner_get(struct db *db, int64_t layer, struct layer_owner *ret, struct error *err)
{
    bool is_point = layer % 2;
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    *ret = (struct layer_owner){.layer = layer, .place = {.offset = -1}};
    int r = db_prepare(db, is_point ? point_query : flash_query, &stmt, err);
    if (r < 0)
        return r;
    db_bind(stmt, "i", layer / 2);
    r = db_step(db, stmt, err);
    if (r <= 0)
        return r;
    owner_from_row(stmt, ret);
    const char *name = (const char *)sqlite3_column_text(stmt, 8);
    struct store_damage *place = &ret->place;
    char *end = place->place + sizeof place->place, *at = place->place;
    if (*place->guest)
        at += snprintf(at, (size_t)(end - at), "%sguest '%s': ", place->removed ? "removed " : "",
                       place->guest);
    if (is_point) {
        ret->point = layer / 2;
        snprintf(place->point, sizeof place->point, "%s", name ? name : "");
        snprintf(at, (size_t)(end - at), "restore point '%s': ", place->point);
    } else if (name) {
        place->file = NULL;
        snprintf(at, (size_t)(end - at), "staging file '%s': ", name);
    } else if (!*place->guest) {
        place->file = NULL;
        snprintf(at, (size_t)(end - at), "flash %lld: ", (long long)ret->flash);
    }
    return 0;
}

/* ---- Judging ---- */

static int image_is_sound(struct db *db, const struct layer_owner *owner, int64_t index, bool *ret,
                          struct error *err)
{
    uint8_t below[STORE_BLOCK_SIZE];
    struct span span = {
        .offset = (uint64_t)index * STORE_BLOCK_SIZE, .length = sizeof below, .buffer = below};
    int r = image_read(db, owner->image, &span, NULL);
    *ret = r == 0;
    return r == 0 || r == -EUCLEAN ? 0 : error_set(err, r, "%s", strerror(-r));
}

int block_is_sound(struct db *db, sqlite3_stmt *stmt, const struct layer_owner *owner, bool *ret,
                   struct error *err)
{
    uint8_t block[STORE_BLOCK_SIZE];
    int64_t key = sqlite3_column_int64(stmt, 0), index = block_key_index(key);
    struct span span = {
        .offset = (uint64_t)index * STORE_BLOCK_SIZE, .length = sizeof block, .buffer = block};
    int r = block_put_row(db, stmt, owner->image, &span, NULL);
    *ret = r == 0;
    if (r != -EUCLEAN)
        return r < 0 ? error_set(err, r, "%s", strerror(-r)) : 0;

    /* What is as it was written, and over an image that is not, is no damage of its own. */
    struct block_data data = block_from_row(stmt);
    if (block_checksum(&db->codec, key, data) != sqlite3_column_int64(stmt, 2))
        return 0;
    bool image_sound;
    r = image_is_sound(db, owner, index, &image_sound, err);
    *ret = r == 0 && !image_sound;
    return r;
}

#define ROW_QUERY "SELECT key, encoding, checksum, data FROM flash_blocks WHERE key "

/* Fills in what is wrong with a row; false if nothing is. */
static int judge(struct db *db, sqlite3_stmt *stmt, const struct layer_owner *owner, bool *damaged,
                 struct store_damage *ret, struct error *err)
{
    int64_t key = sqlite3_column_int64(stmt, 0), index = block_key_index(key);
    bool sound = false;
    *damaged = true;
    *ret = owner->place;
    if (key < 0 || !owner->found) {
        snprintf(ret->place, sizeof ret->place, "blocks of %s %lld",
                 owner->layer % 2 ? "restore point" : "flash", (long long)owner->layer / 2);
        snprintf(ret->what, sizeof ret->what, "it is not there");
        return 0;
    }
    size_t length = strlen(ret->place);
    ret->offset = index * STORE_BLOCK_SIZE;
    snprintf(ret->place + length, sizeof ret->place - length, "%s%sat offset %lld",
             ret->file ? ret->file : "", ret->file ? " " : "", (long long)ret->offset);
    if (index >= owner->blocks) {
        snprintf(ret->what, sizeof ret->what, "a block past the end");
        return 0;
    }
    int r = block_is_sound(db, stmt, owner, &sound, err);
    *damaged = !sound;
    snprintf(ret->what, sizeof ret->what, "not what was written");
    return r;
}

/* ---- Walking ---- */

struct walk {
    int64_t after, last; /* keys */
    struct layer_owner owner;
    bool owner_known;
    int64_t damaged[STEP_BLOCKS]; /* keys to be looked at again */
    size_t damaged_count;
};

static int find_owner(struct db *db, struct walk *walk, int64_t key, struct error *err)
{
    int64_t layer = block_key_layer(key);
    if (walk->owner_known && walk->owner.layer == layer)
        return 0;
    int r = layer_owner_get(db, layer, &walk->owner, err);
    walk->owner_known = r == 0;
    return r;
}

/* 1 if there may be more. */
static int step(struct checker *checker, struct walk *walk, struct error *err)
{
    static const char sql[] = ROW_QUERY "> ? ORDER BY key LIMIT ?";
    cleanup_reader struct reader reader = {0};
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    struct store_damage damage;
    int64_t rows = 0;
    walk->damaged_count = 0;
    walk->owner_known = false; /* it may have changed between the steps */
    int r = reader_prepare(checker->store, &reader, sql, &stmt, err);
    if (r < 0)
        return r;
    db_bind(stmt, "ii", walk->after, (int64_t)STEP_BLOCKS);
    while ((r = db_step(reader.db, stmt, err)) > 0) {
        bool damaged;
        int64_t key = sqlite3_column_int64(stmt, 0);
        r = find_owner(reader.db, walk, key, err);
        if (r == 0)
            r = judge(reader.db, stmt, &walk->owner, &damaged, &damage, err);
        if (r < 0)
            return r;
        if (damaged)
            walk->damaged[walk->damaged_count++] = key;
        walk->after = key;
        rows++;
        if (damaged && !walk->owner.found && key >= 0) {
            walk->after = block_key_end(walk->owner.layer); /* one line for all of them */
            return 1;
        }
    }
    checker->result->blocks += (uint64_t)rows;
    return r < 0 ? r : rows == STEP_BLOCKS;
}

static int drop_unowned(struct db *db, const struct layer_owner *owner, int64_t key,
                        struct store_damage *damage, struct error *err)
{
    static const char sql[] = "DELETE FROM flash_blocks WHERE key = ?";
    damage->outcome = STORE_DAMAGE_REPAIRED;
    snprintf(damage->remedy, sizeof damage->remedy, "dropped");
    return key < 0 || owner->found ? db_run(db, err, sql, "i", key)
                                   : layer_drop(db, owner->layer, 0, err);
}

static int mend(struct db *db, const struct layer_owner *owner, int64_t key,
                struct store_damage *damage, struct error *err)
{
    int64_t index = block_key_index(key);
    if (key < 0 || !owner->found || index >= owner->blocks)
        return drop_unowned(db, owner, key, damage, err);
    return repair_block(db, owner, index, damage, err);
}

/* 1 if the row is damaged, and then `ret` tells of it. */
static int judge_again(struct db *db, int64_t key, struct layer_owner *owner,
                       struct store_damage *ret, struct error *err)
{
    static const char sql[] = ROW_QUERY "= ?";
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    bool damaged = false;
    int r = layer_owner_get(db, block_key_layer(key), owner, err);
    if (r == 0)
        r = db_prepare(db, sql, &stmt, err);
    if (r < 0)
        return r;
    db_bind(stmt, "i", key);
    r = db_step(db, stmt, err);
    if (r > 0)
        r = judge(db, stmt, owner, &damaged, ret, err);
    return r < 0 ? r : damaged;
}

static int look(struct checker *checker, int64_t key, struct store_damage *ret, struct error *err)
{
    struct layer_owner owner;
    cleanup_reader struct reader reader = {0};
    int r = reader_begin(checker->store, &reader, err);
    return r < 0 ? r : judge_again(reader.db, key, &owner, ret, err);
}

static int look_and_mend(struct checker *checker, int64_t key, struct store_damage *ret,
                         struct error *err)
{
    struct layer_owner owner;
    cleanup_txn struct txn txn = {0};
    int r = txn_begin(checker->store, &txn, err);
    if (r == 0)
        r = judge_again(txn.db, key, &owner, ret, err);
    if (r <= 0)
        return r;
    r = mend(txn.db, &owner, key, ret, err);
    if (r == 0)
        r = txn_commit(&txn, err);
    return r < 0 ? r : 1;
}

static int report(struct checker *checker, int64_t key, struct error *err)
{
    struct store_damage damage;
    int r = checker->how->repair ? look_and_mend(checker, key, &damage, err)
                                 : look(checker, key, &damage, err);
    if (r > 0)
        check_report(checker, &damage);
    return r < 0 ? r : 0;
}

/* ---- Past a page that cannot be read ---- */

/* The next row after a key, or past a page that says none the next layer that there may be; 0:
 * there is nothing more. */
struct beyond {
    int64_t key, layer;
};

static int look_beyond(struct db *db, int64_t after, struct beyond *ret, struct error *err)
{
    static const char next_row[] = "SELECT min(key) FROM flash_blocks WHERE key > ?";
    static const char next_layer[] =
        "SELECT min(layer) FROM (SELECT 2 * min(id) AS layer FROM flashes WHERE 2 * id > ?1"
        " UNION ALL SELECT 2 * min(id) + 1 FROM points WHERE 2 * id + 1 > ?1)";
    *ret = (struct beyond){0};
    int r = db_integer(db, NULL, &ret->key, next_row, "i", after);
    if (r != -EUCLEAN)
        return r < 0 ? error_set(err, r, "%s", strerror(-r)) : 0;
    return db_integer(db, err, &ret->layer, next_layer, "i", block_key_layer(after + 1));
}

/* Names what cannot be read behind the walk's place, and goes on where it can. 1 if there may be
 * more. */
static int skip_unreadable(struct checker *checker, struct walk *walk, struct error *err)
{
    struct layer_owner owner;
    struct beyond beyond = {0};
    int64_t after = walk->after < 0 ? 0 : walk->after;
    {
        cleanup_reader struct reader reader = {0};
        int r = reader_begin(checker->store, &reader, err);
        if (r == 0)
            r = look_beyond(reader.db, after, &beyond, err);
        if (r == 0)
            r = layer_owner_get(reader.db, block_key_layer(beyond.key ? beyond.key : after + 1),
                                &owner, err);
        if (r < 0)
            return r;
    }
    walk->after = beyond.key ? beyond.key : block_key(beyond.layer, 0) - 1;
    struct store_damage damage = owner.place;
    size_t length = strlen(damage.place);
    damage.offset = block_key_index(beyond.key ? beyond.key : after + 1) * STORE_BLOCK_SIZE;
    snprintf(damage.place + length, sizeof damage.place - length, "%s%sat offset %lld%s",
             damage.file ? damage.file : "", damage.file ? " " : "", (long long)damage.offset,
             beyond.key ? "" : " and after");
    snprintf(damage.what, sizeof damage.what, "the page that it is on is damaged");
    if (checker->how->repair)
        snprintf(damage.remedy, sizeof damage.remedy, "it cannot be repaired; bring back a backup");
    if (owner.found)
        check_report(checker, &damage);
    return beyond.key || beyond.layer;
}

static int last_key(struct checker *checker, int64_t *ret, struct error *err)
{
    cleanup_reader struct reader reader = {0};
    int r = reader_begin(checker->store, &reader, err);
    return r < 0 ? r : db_integer(reader.db, err, ret, "SELECT max(key) FROM flash_blocks", "");
}

int check_layers(struct checker *checker, struct error *err)
{
    struct walk walk = {.after = INT64_MIN};
    int more = 1, r = last_key(checker, &walk.last, NULL);
    r = r == -EUCLEAN ? 0 : r;
    while (r == 0 && more > 0) {
        r = more = step(checker, &walk, err);
        if (r == -EUCLEAN)
            r = more = skip_unreadable(checker, &walk, err);
        /* Counting them would take as long as looking at them: keys tell how far it is. */
        if (r >= 0 && walk.after > 0)
            check_progress(checker, "blocks", (uint64_t)(walk.after >> 8),
                           (uint64_t)(walk.last >> 8));
        r = r < 0 ? r : 0;
        for (size_t i = 0; i < walk.damaged_count && r == 0; i++)
            r = report(checker, walk.damaged[i], err);
    }
    return r;
}
