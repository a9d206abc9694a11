/* Who has what. Each entry of the table finds rows that should not be as they are, and says what
 * can be done about it: the statements that mend one row, by its id. An entry may leave to a later
 * one what it uncovers. */
#include "store/check.h"

#include <errno.h>
#include <string.h>

#define STATEMENTS_MAX 3

struct reference {
    /* Rows: id, what is at fault, and of which guest, removed guest (1), and firmware. */
    const char *find;
    const char *what;
    const char *mend[STATEMENTS_MAX]; /* ?1: the id; none: it cannot be mended */
    const char *remedy;
};

#define NOBODYS_FLASHES                                                                            \
    "id NOT IN (SELECT flash_id FROM guests UNION ALL SELECT flash_id FROM removed_guests"         \
    " UNION ALL SELECT flash_id FROM staging UNION ALL SELECT flash_id FROM orphans)"

#define FIRMWARE_IMAGE                                                                             \
    "SELECT CASE f.mode WHEN 'split' THEN f.nvram_template_id ELSE f.executable_id END"            \
    " FROM firmware f WHERE f.id = firmware_id"

#define NEW_FLASH(table)                                                                           \
    "INSERT INTO flashes (id, image_id, uid, gid, mode, mtime, guest_id)"                          \
    " SELECT flash_id, (" FIRMWARE_IMAGE "), 0, 0, 384," /* 0600 */                                \
    " created_at * 1000000000, id FROM " table " WHERE id = ?1 AND (" FIRMWARE_IMAGE               \
    ") IS NOT NULL"

#define OF_GUEST "SELECT id, '', name, 0, NULL FROM guests "
#define OF_REMOVED_GUEST "SELECT id, '', name, 1, NULL FROM removed_guests "

#define FLASH_LOST "its flash is not there"
#define FLASH_MADE_ANEW "made anew, root's and over its firmware's image; its owner is lost"
#define FIRMWARE_LOST "its firmware is not there"
#define WRONG_IMAGE "its flash does not lie over its firmware's image"

static const struct reference references[] = {
    {
        .find = OF_GUEST "WHERE firmware_id NOT IN (SELECT id FROM firmware)",
        .what = FIRMWARE_LOST,
    },
    {
        .find = OF_REMOVED_GUEST "WHERE firmware_id NOT IN (SELECT id FROM firmware)",
        .what = FIRMWARE_LOST,
    },
    {
        .find = "SELECT id, 'executable', NULL, 0, name FROM firmware"
                " WHERE executable_id NOT IN (SELECT id FROM images)",
        .what = "the image is not there",
    },
    {
        .find = "SELECT id, 'nvram-template', NULL, 0, name FROM firmware"
                " WHERE nvram_template_id NOT IN (SELECT id FROM images)",
        .what = "the image is not there",
    },
    {
        .find = OF_GUEST "WHERE flash_id NOT IN (SELECT id FROM flashes)",
        .what = FLASH_LOST,
        .mend = {NEW_FLASH("guests")},
        .remedy = FLASH_MADE_ANEW,
    },
    {
        .find = OF_REMOVED_GUEST "WHERE flash_id NOT IN (SELECT id FROM flashes)",
        .what = FLASH_LOST,
        .mend = {NEW_FLASH("removed_guests")},
        .remedy = FLASH_MADE_ANEW,
    },
    {
        .find = OF_GUEST "WHERE flash_id IN (SELECT flash_id FROM (SELECT flash_id FROM guests"
                         " UNION ALL SELECT flash_id FROM removed_guests"
                         " UNION ALL SELECT flash_id FROM staging"
                         " UNION ALL SELECT flash_id FROM orphans)"
                         " GROUP BY flash_id HAVING count(*) > 1)",
        .what = "its flash is also something else's",
    },
    {
        .find = "SELECT g.id, '', g.name, 0, NULL FROM guests g JOIN flashes l"
                " ON l.id = g.flash_id WHERE l.guest_id IS NOT g.id AND NOT EXISTS"
                " (SELECT 1 FROM guests o WHERE o.id = l.guest_id AND o.flash_id = l.id)",
        .what = "its flash does not say that it is its own",
        .mend = {"UPDATE flashes SET guest_id = ?1"
                 " WHERE id = (SELECT flash_id FROM guests WHERE id = ?1)"},
        .remedy = "told so; nothing is lost",
    },
    {
        .find = "SELECT g.id, '', g.name, 1, NULL FROM removed_guests g JOIN flashes l"
                " ON l.id = g.flash_id WHERE l.guest_id IS NOT g.id",
        .what = "its flash does not say that it is its own",
        .mend = {"UPDATE flashes SET guest_id = ?1"
                 " WHERE id = (SELECT flash_id FROM removed_guests WHERE id = ?1)"},
        .remedy = "told so; nothing is lost",
    },
    {
        .find = OF_GUEST "WHERE (SELECT image_id FROM flashes WHERE id = flash_id)"
                         " <> (" FIRMWARE_IMAGE ")",
        .what = WRONG_IMAGE,
    },
    {
        .find = OF_REMOVED_GUEST "WHERE (SELECT image_id FROM flashes WHERE id = flash_id)"
                                 " <> (" FIRMWARE_IMAGE ")",
        .what = WRONG_IMAGE,
    },
    {
        .find = "SELECT l.id, '', ifnull(g.name, r.name), g.id IS NULL, NULL FROM flashes l"
                " LEFT JOIN guests g ON g.id = l.guest_id"
                " LEFT JOIN removed_guests r ON r.id = l.guest_id"
                " WHERE l.image_id NOT IN (SELECT id FROM images)",
        .what = "the image below its flash is not there",
    },
    {
        .find = "SELECT DISTINCT flash_id, printf('flash %d', flash_id), NULL, 0, NULL"
                " FROM leases WHERE flash_id NOT IN (SELECT id FROM flashes)",
        .what = "has a lease and is not there",
        .mend = {"DELETE FROM leases WHERE flash_id = ?1"},
        .remedy = "the lease is dropped",
    },
    {
        .find = "SELECT s.flash_id, printf('staging file ''%s''', s.name), g.name, 0, NULL"
                " FROM staging s LEFT JOIN guests g ON g.id = s.guest_id"
                " WHERE g.id IS NULL OR s.flash_id NOT IN (SELECT id FROM flashes)",
        .what = "belongs to nothing or holds nothing",
        .mend = {"DELETE FROM staging WHERE flash_id = ?1"},
        .remedy = "dropped",
    },
    {
        .find = "SELECT flash_id, printf('flash %d', flash_id), NULL, 0, NULL"
                " FROM orphans WHERE flash_id NOT IN (SELECT id FROM flashes)",
        .what = "is noted to be removed and is not there",
        .mend = {"DELETE FROM orphans WHERE flash_id = ?1"},
        .remedy = "the note is dropped",
    },
    {
        .find = "SELECT id, printf('flash %d', id), NULL, 0, NULL FROM flashes"
                " WHERE " NOBODYS_FLASHES,
        .what = "belongs to nothing",
        .mend = {"DELETE FROM flash_blocks"
                 " WHERE key BETWEEN (2 * ?1) << 20 AND ((2 * ?1 + 1) << 20) - 1",
                 "DELETE FROM flash_xattrs WHERE flash_id = ?1",
                 "DELETE FROM flashes WHERE id = ?1"},
        .remedy = "dropped with its blocks",
    },
    {
        .find = "SELECT DISTINCT flash_id, printf('flash %d', flash_id), NULL, 0, NULL"
                " FROM flash_xattrs WHERE flash_id NOT IN (SELECT id FROM flashes)",
        .what = "has extended attributes and is not there",
        .mend = {"DELETE FROM flash_xattrs WHERE flash_id = ?1"},
        .remedy = "the attributes are dropped",
    },
    {
        .find = "SELECT id, printf('restore point %d', id), NULL, 0, NULL FROM points"
                " WHERE guest_id NOT IN (SELECT id FROM guests UNION ALL"
                " SELECT id FROM removed_guests)",
        .what = "is of no guest",
        .mend = {"DELETE FROM flash_blocks"
                 " WHERE key BETWEEN (2 * ?1 + 1) << 20 AND ((2 * ?1 + 2) << 20) - 1",
                 "DELETE FROM points WHERE id = ?1"},
        .remedy = "dropped with its blocks",
    },
    {
        .find = "SELECT p.id, printf('restore point %d', p.id), ifnull(g.name, r.name),"
                " g.id IS NULL, NULL FROM points p LEFT JOIN guests g ON g.id = p.guest_id"
                " LEFT JOIN removed_guests r ON r.id = p.guest_id"
                " WHERE (p.kind IN (0, 1) AND p.name IS NULL) + (p.kind = 2 AND p.name IS NOT NULL)"
                " = 0",
        .what = "is of no kind",
        .mend = {"UPDATE points SET kind = CASE WHEN name IS NULL THEN 1 ELSE 2 END WHERE id = ?1"},
        .remedy = "it is an edit's now, or a snapshot if it has a name",
    },
    {
        .find = "SELECT DISTINCT image_id, printf('image %d', image_id), NULL, 0, NULL"
                " FROM image_blocks WHERE image_id NOT IN (SELECT id FROM images)",
        .what = "has blocks and is not there",
        .mend = {"DELETE FROM image_blocks WHERE image_id = ?1"},
        .remedy = "dropped",
    },
    {
        .find = "SELECT id, printf('image %d', id), NULL, 0, NULL FROM images"
                " WHERE id NOT IN (SELECT executable_id FROM firmware UNION ALL"
                " SELECT nvram_template_id FROM firmware WHERE nvram_template_id IS NOT NULL"
                " UNION ALL SELECT image_id FROM flashes)",
        .what = "belongs to nothing",
        .mend = {"DELETE FROM image_blocks WHERE image_id = ?1",
                 "DELETE FROM images WHERE id = ?1"},
        .remedy = "dropped",
    },
    {
        .find = "SELECT id, printf('shared block %d', id), NULL, 0, NULL FROM blocks"
                " WHERE id NOT IN (SELECT block_id FROM image_blocks WHERE block_id IS NOT NULL)",
        .what = "is in no image",
        .mend = {"DELETE FROM blocks WHERE id = ?1"},
        .remedy = "dropped",
    },
};

#define REFERENCE_COUNT (sizeof references / sizeof references[0])

static void copy_column(sqlite3_stmt *stmt, int column, char *buffer, size_t size)
{
    const char *text = (const char *)sqlite3_column_text(stmt, column);
    snprintf(buffer, size, "%s", text ? text : "");
}

static void describe(sqlite3_stmt *stmt, const struct reference *reference,
                     struct store_damage *ret)
{
    char part[STORE_NAME_MAX + 64];
    *ret = (struct store_damage){.offset = -1, .removed = sqlite3_column_int(stmt, 3)};
    copy_column(stmt, 1, part, sizeof part);
    copy_column(stmt, 2, ret->guest, sizeof ret->guest);
    copy_column(stmt, 4, ret->firmware, sizeof ret->firmware);
    const char *separator = *part ? ": " : "";
    if (*ret->guest)
        snprintf(ret->place, sizeof ret->place, "%sguest '%s'%s%s", ret->removed ? "removed " : "",
                 ret->guest, separator, part);
    else if (*ret->firmware)
        snprintf(ret->place, sizeof ret->place, "firmware '%s'%s%s", ret->firmware, separator,
                 part);
    else
        snprintf(ret->place, sizeof ret->place, "%s", part);
    snprintf(ret->what, sizeof ret->what, "%s", reference->what);
}

static int mend(struct db *db, const struct reference *reference, int64_t id,
                struct store_damage *damage, struct error *err)
{
    int r = 0;
    snprintf(damage->remedy, sizeof damage->remedy, "%s",
             reference->remedy ? reference->remedy : "it cannot be repaired; bring back a backup");
    for (size_t i = 0; i < STATEMENTS_MAX && reference->mend[i] && r == 0; i++) {
        r = db_run(db, err, reference->mend[i], "i", id);
        if (r == 0 && sqlite3_changes(db->handle) > 0)
            damage->outcome = STORE_DAMAGE_REPAIRED;
    }
    return r;
}

/* Rows by the thousand are told of and mended in one go, so that what finds them runs once. */
struct found {
    size_t count, room;
    struct found_row {
        int64_t id;
        struct store_damage damage;
    } * rows;
};

static void found_clear(struct found *found)
{
    free(found->rows);
}

static int keep(struct found *found, const struct found_row *row, struct error *err)
{
    if (found->count == found->room) {
        size_t room = found->room ? 2 * found->room : 16;
        struct found_row *rows = reallocarray(found->rows, room, sizeof *rows);
        if (!rows)
            return error_set(err, -ENOMEM, "out of memory");
        found->rows = rows;
        found->room = room;
    }
    found->rows[found->count++] = *row;
    return 0;
}

static int find(struct db *db, const struct reference *reference, struct found *ret,
                struct error *err)
{
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    int r = db_prepare(db, reference->find, &stmt, err);
    while (r >= 0 && (r = db_step(db, stmt, err)) > 0) {
        struct found_row row = {.id = sqlite3_column_int64(stmt, 0)};
        describe(stmt, reference, &row.damage);
        r = keep(ret, &row, err);
    }
    return r;
}

static int look(struct checker *checker, const struct reference *reference, struct found *ret,
                struct error *err)
{
    cleanup_reader struct reader reader = {0};
    int r = reader_begin(checker->store, &reader, err);
    return r < 0 ? r : find(reader.db, reference, ret, err);
}

/* Looks again, since there may have been writers meanwhile, who wait only now. */
static int look_and_mend(struct checker *checker, const struct reference *reference,
                         struct found *ret, struct error *err)
{
    cleanup_txn struct txn txn = {0};
    ret->count = 0;
    int r = txn_begin(checker->store, &txn, err);
    if (r == 0)
        r = find(txn.db, reference, ret, err);
    for (size_t i = 0; i < ret->count && r == 0; i++)
        r = mend(txn.db, reference, ret->rows[i].id, &ret->rows[i].damage, err);
    return r < 0 ? r : txn_commit(&txn, err);
}

static int check_one(struct checker *checker, const struct reference *reference, struct error *err)
{
    cleanup(found_clear) struct found found = {0};
    int r = look(checker, reference, &found, err);
    if (r == 0 && found.count > 0 && checker->how->repair)
        r = look_and_mend(checker, reference, &found, err);
    for (size_t i = 0; i < found.count && r == 0; i++)
        check_report(checker, &found.rows[i].damage);
    return r;
}

int check_references(struct checker *checker, struct error *err)
{
    int r = 0;
    for (size_t i = 0; i < REFERENCE_COUNT && r == 0; i++) {
        check_progress(checker, "references", i, REFERENCE_COUNT);
        r = check_one(checker, &references[i], err);
    }
    return r;
}
