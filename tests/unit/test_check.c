#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "scratch.h"
#include "store/internal.h"
#include "store_fixture.h"
#include "testing.h"

#define FOUND_MAX 16

/* What a check told. */
struct told {
    struct store_check_result result;
    struct store_damage damages[FOUND_MAX];
    const char *original; /* letters; NULL: there is none */
    int originals_asked;
};

static void note(const struct store_damage *damage, void *data)
{
    struct told *told = data;
    assert_true(told->result.damaged <= FOUND_MAX);
    told->damages[told->result.damaged - 1] = *damage;
}

static int give_original(const char *firmware, bool nvram_template, void **ret, size_t *ret_size,
                         void *data, struct error *err)
{
    struct told *told = data;
    told->originals_asked++;
    assert_false(nvram_template);
    if (!told->original)
        return error_set(err, -ENOENT, "%s's file is gone", firmware);
    *ret = fixture_image(told->original);
    *ret_size = strlen(told->original) * STORE_BLOCK_SIZE;
    return 0;
}

static struct told check(struct store *store, bool repair, const char *original)
{
    struct told told = {.original = original};
    struct error err = {0};
    const struct store_check how = {
        .repair = repair, .damaged = note, .original = give_original, .data = &told};
    assert_ok(store_check(store, &how, &told.result, &err), err);
    return told;
}

static void assert_clean(struct store *store)
{
    struct told told = check(store, false, NULL);
    if (told.result.damaged)
        fail_msg("%s: %s", told.damages[0].place, told.damages[0].what);
}

static void assert_told(const struct told *told, const char *const *places, size_t count)
{
    for (size_t i = 0; i < told->result.damaged && i < count; i++)
        assert_string_equal(told->damages[i].place, places[i]);
    assert_int_equal(told->result.damaged, count);
}

/* A check names exactly these places; then a repair mends all of them, and says so. */
static void assert_mended(struct store *store, const char *original, const char *const *places,
                          const char *const *remedies, size_t count)
{
    struct told told = check(store, false, NULL);
    assert_told(&told, places, count);
    assert_int_equal(told.originals_asked, 0);
    told = check(store, true, original);
    assert_told(&told, places, count);
    for (size_t i = 0; i < count; i++) {
        assert_string_equal(told.damages[i].remedy, remedies[i]);
        assert_int_equal(told.damages[i].outcome, STORE_DAMAGE_REPAIRED);
    }
    assert_int_equal(told.result.repaired, count);
    assert_clean(store);
}

#define assert_mends(store, original, place, remedy)                                               \
    assert_mended(store, original, (const char *const[]){place}, (const char *const[]){remedy}, 1)

static int enter(void **state)
{
    if (fixture_enter(state) != 0)
        return -1;
    fixture_firmware(*state, "ovmf", "abcF0");
    fixture_guest(*state, "ovmf", "web01");
    return 0;
}

static int64_t flash_of(struct store *store, const char *name)
{
    struct store_guest guest;
    struct error err = {0};
    assert_ok(store_guest_by_name(store, name, &guest, &err), err);
    return guest.flash.id;
}

static void write_blocks(struct store *store, const char *name, int64_t index, const char *letters)
{
    cleanup_free uint8_t *bytes = fixture_image(letters);
    struct error err = {0};
    assert_ok(store_flash_write(store, flash_of(store, name), (uint64_t)index * STORE_BLOCK_SIZE,
                                bytes, strlen(letters) * STORE_BLOCK_SIZE, 1, &err),
              err);
}

static void assert_holds(struct store *store, const char *name, const char *letters)
{
    cleanup_free uint8_t *expected = fixture_image(letters);
    size_t size = strlen(letters) * STORE_BLOCK_SIZE;
    cleanup_free uint8_t *bytes = malloc(size);
    struct error err = {0};
    assert_int_equal(store_flash_read(store, flash_of(store, name), 0, bytes, size, &err), size);
    assert_memory_equal(bytes, expected, size);
}

static void assert_point_holds(struct store *store, int64_t point, const char *letters)
{
    cleanup_free uint8_t *expected = fixture_image(letters);
    size_t size = strlen(letters) * STORE_BLOCK_SIZE;
    cleanup_free uint8_t *bytes = malloc(size);
    struct error err = {0};
    assert_int_equal(store_point_read(store, point, 0, bytes, size, &err), size);
    assert_memory_equal(bytes, expected, size);
}

static void spoil(int64_t key)
{
    char sql[128];
    snprintf(sql, sizeof sql, "UPDATE flash_blocks SET checksum = checksum + 1 WHERE key = %lld",
             (long long)key);
    fixture_sql(sql);
}

static void snapshot(struct store *store, const char *guest, const char *name)
{
    struct error err = {0};
    assert_ok(store_snapshot_add(store, guest, name, &err), err);
}

static int64_t point_named(const char *name)
{
    char sql[128];
    snprintf(sql, sizeof sql, "SELECT id FROM points WHERE name = '%s'", name);
    return fixture_integer(sql);
}

/* ---- Private blocks ---- */

static void a_sound_store_is_clean(void **state)
{
    write_blocks(*state, "web01", 0, "A0");
    snapshot(*state, "web01", "before");
    write_blocks(*state, "web01", 0, "FB");
    struct error err = {0};
    fixture_guest(*state, "ovmf", "gone");
    write_blocks(*state, "gone", 1, "C");
    const char *name = "gone";
    assert_ok(store_guest_remove(*state, &name, 1, &err), err);
    struct told told = check(*state, false, NULL);
    assert_int_equal(told.result.damaged, 0);
    assert_int_equal(told.result.images, 1);
    assert_int_equal(told.result.blocks, fixture_integer("SELECT count(*) FROM flash_blocks"));
    assert_true(told.result.blocks > 3);
    told = check(*state, true, NULL);
    assert_int_equal(told.result.damaged, 0);
}

static void more_blocks_than_a_step_are_all_looked_at(void **state)
{
    enum { COUNT = 1500 };
    char letters[COUNT + 1];
    memset(letters, 'c', COUNT);
    letters[COUNT] = '\0';
    fixture_firmware(*state, "large", letters);
    fixture_guest(*state, "large", "big");
    memset(letters, 'd', COUNT);
    write_blocks(*state, "big", 0, letters);
    assert_int_equal(check(*state, false, NULL).result.blocks,
                     fixture_integer("SELECT count(*) FROM flash_blocks"));
    spoil(flash_block_key(flash_of(*state, "big"), 511));
    spoil(flash_block_key(flash_of(*state, "big"), 512));
    spoil(flash_block_key(flash_of(*state, "big"), COUNT - 1));
    struct told told = check(*state, false, NULL);
    assert_told(&told,
                (const char *const[]){"guest 'big': code at offset 2093056",
                                      "guest 'big': code at offset 2097152",
                                      "guest 'big': code at offset 6139904"},
                3);
}

static void a_block_without_history_becomes_the_images(void **state)
{
    write_blocks(*state, "web01", 0, "AB");
    fixture_sql("DELETE FROM flash_blocks WHERE (key >> 20) & 1; DELETE FROM points");
    spoil(flash_block_key(flash_of(*state, "web01"), 1));
    struct told told = check(*state, false, NULL);
    assert_string_equal(told.damages[0].guest, "web01");
    assert_string_equal(told.damages[0].file, "code");
    assert_int_equal(told.damages[0].offset, STORE_BLOCK_SIZE);
    assert_string_equal(told.damages[0].what, "not what was written");
    assert_int_equal(told.damages[0].outcome, STORE_DAMAGE_LEFT);
    assert_mends(*state, NULL, "guest 'web01': code at offset 4096",
                 "as its image has it now; what was written there is lost");
    assert_holds(*state, "web01", "AbcF0");
}

static void a_block_becomes_what_the_newest_sound_point_holds(void **state)
{
    write_blocks(*state, "web01", 0, "A");
    snapshot(*state, "web01", "one");
    write_blocks(*state, "web01", 0, "B");
    snapshot(*state, "web01", "two");
    write_blocks(*state, "web01", 0, "C");
    snapshot(*state, "web01", "three");
    write_blocks(*state, "web01", 1, "C");
    spoil(flash_block_key(flash_of(*state, "web01"), 0));
    assert_mends(*state, NULL, "guest 'web01': code at offset 0",
                 "as restore point 'edit-5' has it now; what was written there since is lost");
    assert_holds(*state, "web01", "BCcF0");
    assert_point_holds(*state, point_named("one"), "AbcF0");
    assert_point_holds(*state, point_named("two"), "BbcF0");
}

static void a_point_that_had_the_images_gives_back_the_image(void **state)
{
    snapshot(*state, "web01", "new");
    write_blocks(*state, "web01", 2, "A");
    spoil(flash_block_key(flash_of(*state, "web01"), 2));
    assert_mends(*state, NULL, "guest 'web01': code at offset 8192",
                 "as restore point 'edit-2' has it now; what was written there since is lost");
    assert_holds(*state, "web01", "abcF0");
    assert_int_equal(fixture_status(*state).private_blocks, 0);
}

static void points_lose_only_what_they_kept_there(void **state)
{
    write_blocks(*state, "web01", 0, "AA");
    snapshot(*state, "web01", "one");
    write_blocks(*state, "web01", 0, "BB");
    snapshot(*state, "web01", "two");
    write_blocks(*state, "web01", 0, "CC");
    /* What was changed after the first snapshot. */
    spoil(block_key(point_layer(point_named("one") + 1), 1));
    struct told told = check(*state, false, NULL);
    assert_string_equal(told.damages[0].point, "edit-3");
    assert_mends(*state, NULL, "guest 'web01': restore point 'edit-3': code at offset 4096",
                 "as it was next after this restore point; what it kept there is lost");
    assert_point_holds(*state, point_named("one"), "ABcF0");
    assert_point_holds(*state, point_named("two"), "BBcF0");
    assert_holds(*state, "web01", "CCcF0");
}

static void damaged_points_give_nothing_back(void **state)
{
    write_blocks(*state, "web01", 0, "A");
    snapshot(*state, "web01", "one");
    write_blocks(*state, "web01", 0, "B");
    snapshot(*state, "web01", "two");
    write_blocks(*state, "web01", 0, "C");
    spoil(flash_block_key(flash_of(*state, "web01"), 0));
    spoil(block_key(point_layer(point_named("two") + 1), 0));
    struct told told = check(*state, true, NULL);
    assert_int_equal(told.result.damaged, 2);
    assert_int_equal(told.result.repaired, 2);
    assert_clean(*state);
    assert_point_holds(*state, point_named("one"), "AbcF0");
}

static void names_removed_guests(void **state)
{
    struct error err = {0};
    const char *name = "web01";
    write_blocks(*state, "web01", 3, "A");
    fixture_sql("DELETE FROM flash_blocks WHERE (key >> 20) & 1; DELETE FROM points");
    spoil(flash_block_key(flash_of(*state, "web01"), 3));
    assert_ok(store_guest_remove(*state, &name, 1, &err), err);
    struct told told = check(*state, false, NULL);
    assert_true(told.damages[0].removed);
    assert_mends(*state, NULL, "removed guest 'web01': code at offset 12288",
                 "as its image has it now; what was written there is lost");
    assert_ok(store_guest_undelete(*state, "web01", &err), err);
    assert_holds(*state, "web01", "abcF0");
}

static void guests_open_for_writing_are_left(void **state)
{
    write_blocks(*state, "web01", 0, "A");
    int64_t flash = flash_of(*state, "web01");
    struct error err = {0};
    struct store_change open = {
        .kind = STORE_CHANGE_LEASE_TAKE,
        .flash = flash,
        .lease = {.handle = 1, .opener = {.pid = 7, .command = "qemu"}, .mountpoint = "/fw"}};
    assert_ok(store_apply(*state, &open, 1, &err), err);
    spoil(flash_block_key(flash, 0));
    struct told told = check(*state, true, NULL);
    assert_int_equal(told.result.held, 1);
    assert_int_equal(told.result.repaired, 0);
    assert_string_equal(told.damages[0].remedy,
                        "left: it is open for writing in /fw by process 7 (qemu)");
    assert_ok(store_lease_break(*state, flash, &err), err);
    told = check(*state, true, NULL);
    assert_int_equal(told.result.repaired, 1);
    assert_clean(*state);
}

static void blocks_of_nothing_are_dropped(void **state)
{
    write_blocks(*state, "web01", 0, "AB");
    fixture_sql("INSERT INTO flash_blocks SELECT key + (1 << 30), encoding, checksum, data"
                " FROM flash_blocks WHERE (key >> 20) & 1 = 0");
    fixture_sql("INSERT INTO flash_blocks SELECT key + 9, encoding, checksum, data"
                " FROM flash_blocks WHERE key >> 20 = 2 LIMIT 1");
    fixture_sql("INSERT INTO flash_blocks VALUES (-5, 0, 0, x'')");
    assert_mended(*state, NULL,
                  (const char *const[]){"blocks of restore point 0",
                                        "guest 'web01': code at offset 36864",
                                        "blocks of flash 513"},
                  (const char *const[]){"dropped", "dropped", "dropped"}, 3);
    assert_holds(*state, "web01", "ABcF0");
}

/* ---- Images ---- */

static void shared_blocks_are_healed(void **state)
{
    static const char *const changes[] = {
        "UPDATE blocks SET data = zeroblob(10) WHERE id = 2",
        "UPDATE blocks SET digest = zeroblob(32) WHERE id = 2",
        "UPDATE blocks SET encoding = 77 WHERE id = 2",
        "PRAGMA foreign_keys = OFF; DELETE FROM blocks WHERE id = 2",
    };
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        fixture_sql(changes[i]);
        struct told told = check(*state, true, NULL);
        assert_int_equal(told.result.repaired, 0);
        assert_string_equal(told.damages[0].remedy, "its file cannot be had: ovmf's file is gone");
        told = check(*state, true, "abcF5");
        assert_string_equal(told.damages[0].remedy,
                            "its file is another one by now; bring back a backup");
        assert_mends(*state, "abcF0", "firmware 'ovmf': code at offset 4096",
                     "healed from its file; nothing is lost");
        assert_holds(*state, "web01", "abcF0");
        assert_int_equal(fixture_status(*state).shared_blocks, 3);
        if (fixture_integer("SELECT max(id) FROM blocks") > 3)
            fixture_sql("PRAGMA foreign_keys = OFF;"
                        "UPDATE image_blocks SET block_id = 2 WHERE block_index = 1;"
                        "UPDATE blocks SET id = 2 WHERE id > 3");
    }
}

static void whole_images_are_healed(void **state)
{
    static const char *const changes[] = {
        "UPDATE images SET fill = 255",
        "UPDATE images SET fill = 7",
        "UPDATE image_blocks SET block_id = 1 WHERE block_index = 1",
        "DELETE FROM image_blocks WHERE block_index = 2",
        "INSERT INTO image_blocks VALUES (1, 5, 1)",
    };
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        fixture_sql(changes[i]);
        struct told told = check(*state, true, "abcF0");
        assert_true(told.result.damaged >= 1);
        assert_clean(*state);
        assert_holds(*state, "web01", "abcF0");
    }
}

static void damage_below_is_not_the_guests(void **state)
{
    snapshot(*state, "web01", "new");
    write_blocks(*state, "web01", 1, "A");
    fixture_sql("UPDATE blocks SET data = zeroblob(10) WHERE id = 2");
    assert_mends(*state, "abcF0", "firmware 'ovmf': code at offset 4096",
                 "healed from its file; nothing is lost");
    assert_point_holds(*state, point_named("new"), "abcF0");
    assert_holds(*state, "web01", "aAcF0");
}

/* ---- References ---- */

static void mends_references(void **state)
{
    static const struct {
        const char *sql, *place, *remedy;
    } cases[] = {
        {"INSERT INTO blocks VALUES (99, x'11', 0, x'')", "shared block 99", "dropped"},
        {"INSERT INTO images VALUES (99, x'11', 4096, 0)", "image 99", "dropped"},
        {"INSERT INTO leases VALUES (99, 1, 0, 1, '', '', 0, 0)", "flash 99",
         "the lease is dropped"},
        {"INSERT INTO orphans VALUES (99)", "flash 99", "the note is dropped"},
        {"INSERT INTO staging VALUES (1, 'x', 99)", "guest 'web01': staging file 'x'", "dropped"},
        {"INSERT INTO points VALUES (99, 98, 1, 0, NULL)", "restore point 99",
         "dropped with its blocks"},
        {"INSERT INTO points VALUES (99, 1, 5, 0, NULL)", "guest 'web01': restore point 99",
         "it is an edit's now, or a snapshot if it has a name"},
        {"INSERT INTO flashes (id, image_id, uid, gid, mode, mtime) VALUES (99, 1, 0, 0, 0, 0)",
         "flash 99", "dropped with its blocks"},
        {"UPDATE flashes SET guest_id = NULL", "guest 'web01'", "told so; nothing is lost"},
        {"PRAGMA foreign_keys = OFF; INSERT INTO flash_xattrs VALUES (99, 'user.x', x'')",
         "flash 99", "the attributes are dropped"},
        {"PRAGMA foreign_keys = OFF; INSERT INTO image_blocks VALUES (99, 0, NULL)", "image 99",
         "dropped"},
    };
    write_blocks(*state, "web01", 0, "AB");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fixture_sql(cases[i].sql);
        assert_mends(*state, "abcF0", cases[i].place, cases[i].remedy);
        assert_holds(*state, "web01", "ABcF0");
    }
}

static void makes_lost_flashes_anew(void **state)
{
    write_blocks(*state, "web01", 0, "A");
    fixture_sql("PRAGMA foreign_keys = OFF; DELETE FROM flashes");
    struct told told = check(*state, false, NULL);
    assert_string_equal(told.damages[0].place, "guest 'web01'");
    assert_string_equal(told.damages[0].what, "its flash is not there");
    told = check(*state, true, NULL);
    assert_int_equal(told.result.repaired, told.result.damaged);
    assert_clean(*state);
    assert_holds(*state, "web01", "AbcF0");
}

static void says_what_it_cannot_mend(void **state)
{
    fixture_sql("PRAGMA foreign_keys = OFF; DELETE FROM firmware");
    struct told told = check(*state, true, NULL);
    assert_string_equal(told.damages[0].place, "guest 'web01'");
    assert_string_equal(told.damages[0].what, "its firmware is not there");
    assert_int_equal(told.damages[0].outcome, STORE_DAMAGE_LEFT);
    assert_string_equal(told.damages[0].remedy, "it cannot be repaired; bring back a backup");
}

static void tells_what_sqlite_finds(void **state)
{
    write_blocks(*state, "web01", 0, "A");
    fixture_sql("PRAGMA ignore_check_constraints = ON; UPDATE firmware SET mode = 'odd'");
    struct told told = check(*state, true, "abcF0");
    assert_true(told.result.damaged >= 1);
    assert_string_equal(told.damages[0].place, "the store's file");
    assert_contains(told.damages[0].what, "CHECK constraint failed in firmware");
    assert_int_equal(told.result.repaired, 0);
}

/* Whatever page is damaged: the check ends, and says so. */
static void finds_damage_of_any_page(void **state)
{
    struct error err = {0};
    const char *name = "web02";
    fixture_guest(*state, "ovmf", "web02");
    fixture_guest(*state, "ovmf", "web03");
    write_blocks(*state, "web01", 0, "ABCDG");
    write_blocks(*state, "web02", 0, "ABCDG");
    write_blocks(*state, "web03", 0, "ABCDG");
    assert_ok(store_guest_remove(*state, &name, 1, &err), err);
    assert_ok(store_compact(*state, NULL, &err), err);
    store_close(*state);
    *state = NULL;
    size_t size, named = 0;
    cleanup_free uint8_t *bytes = fixture_load(FIXTURE_STORE, &size);
    /* The first page is looked at when the store is opened. */
    for (size_t at = 4096; at < size; at += 4096) {
        struct store *store;
        bytes[at + 1000] ^= 1;
        scratch_write(FIXTURE_STORE, bytes, size);
        if (store_open(FIXTURE_STORE, 0, &store, &err) == 0) {
            struct told told = check(store, at % 8192, "abcF0");
            store_close(store);
            assert_true(told.result.damaged > 0);
            for (size_t i = 0; i < told.result.damaged; i++)
                named += told.damages[i].guest[0] != '\0';
        }
        bytes[at + 1000] ^= 1;
    }
    assert_true(named > 15);
    scratch_write(FIXTURE_STORE, bytes, size);
    fixture_reopen(state, 0);
    assert_clean(*state);
}

int main(void)
{
#define with_store(test) cmocka_unit_test_setup_teardown(test, enter, fixture_leave)
    const struct CMUnitTest tests[] = {
        with_store(a_sound_store_is_clean),
        with_store(more_blocks_than_a_step_are_all_looked_at),
        with_store(a_block_without_history_becomes_the_images),
        with_store(a_block_becomes_what_the_newest_sound_point_holds),
        with_store(a_point_that_had_the_images_gives_back_the_image),
        with_store(points_lose_only_what_they_kept_there),
        with_store(damaged_points_give_nothing_back),
        with_store(names_removed_guests),
        with_store(guests_open_for_writing_are_left),
        with_store(blocks_of_nothing_are_dropped),
        with_store(shared_blocks_are_healed),
        with_store(whole_images_are_healed),
        with_store(damage_below_is_not_the_guests),
        with_store(mends_references),
        with_store(makes_lost_flashes_anew),
        with_store(says_what_it_cannot_mend),
        with_store(tells_what_sqlite_finds),
        with_store(finds_damage_of_any_page),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
