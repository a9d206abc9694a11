#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "scratch.h"
#include "store/db.h"
#include "store/internal.h"
#include "store_fixture.h"
#include "testing.h"

/* Flips bits of one stored byte, behind the store's back. Doing it again mends it. */
static void flip(const char *table, const char *column, int64_t row, int at)
{
    cleanup(db_closep) struct db *db = NULL;
    sqlite3_blob *blob = NULL;
    struct error err = {0};
    uint8_t byte;
    assert_ok(db_open(FIXTURE_STORE, DB_WRITE_LAZY, &db, &err), err);
    assert_int_equal(sqlite3_blob_open(db->handle, "main", table, column, row, 1, &blob),
                     SQLITE_OK);
    assert_int_equal(sqlite3_blob_read(blob, &byte, 1, at), SQLITE_OK);
    byte ^= 0x10;
    assert_int_equal(sqlite3_blob_write(blob, &byte, 1, at), SQLITE_OK);
    assert_int_equal(sqlite3_blob_close(blob), SQLITE_OK);
}

static int read_block(struct store *store, int64_t flash, int64_t index, struct error *err)
{
    uint8_t block[STORE_BLOCK_SIZE];
    return (int)store_flash_read(store, flash, (uint64_t)index * STORE_BLOCK_SIZE, block,
                                 sizeof block, err);
}

static void assert_flash_damaged(struct store *store, int64_t flash, int64_t index)
{
    char error[128];
    struct error err = {0};
    snprintf(error, sizeof error, "the store is damaged: flash %lld at offset %lld is not what",
             (long long)flash, (long long)index * STORE_BLOCK_SIZE);
    assert_error(read_block(store, flash, index, &err), -EUCLEAN, err, error);
}

static void assert_flash_holds(struct store *store, int64_t flash, const char *letters)
{
    cleanup_free uint8_t *expected = fixture_image(letters);
    size_t size = strlen(letters) * STORE_BLOCK_SIZE;
    cleanup_free uint8_t *bytes = malloc(size);
    struct error err = {0};
    assert_int_equal(store_flash_read(store, flash, 0, bytes, size, &err), size);
    assert_memory_equal(bytes, expected, size);
}

/* A guest whose flash has a block of each encoding. */
#define KINDS "AabF0"
enum { KIND_RAW, KIND_SMALL, KIND_PENDING, KIND_ONES, KIND_ZEROS, KIND_COUNT };

static int64_t make_guest(struct store *store, const char *name)
{
    cleanup_free uint8_t *bytes = fixture_image(KINDS);
    struct error err = {0};
    int64_t flash = fixture_guest(store, "ovmf", name).flash.id;
    assert_ok(store_flash_write(store, flash, 0, bytes, 2 * STORE_BLOCK_SIZE, 1, &err), err);
    assert_ok(store_maintain(store, &err), err);
    assert_ok(store_flash_write(store, flash, 0, bytes, KIND_COUNT * STORE_BLOCK_SIZE, 1, &err),
              err);
    return flash;
}

static int enter(void **state)
{
    if (fixture_enter(state) != 0)
        return -1;
    fixture_firmware(*state, "ovmf", "ccccc");
    return 0;
}

static int64_t size_of(const char *table, int64_t row)
{
    char sql[96];
    snprintf(sql, sizeof sql, "SELECT length(data) FROM %s WHERE rowid = %lld", table,
             (long long)row);
    return fixture_integer(sql);
}

/* ---- Private blocks ---- */

static void finds_any_flipped_byte_of_a_private_block(void **state)
{
    int64_t flash = make_guest(*state, "web01");
    for (int64_t index = 0; index <= KIND_PENDING; index++) {
        int64_t key = flash_block_key(flash, index);
        int size = (int)size_of("flash_blocks", key);
        int step = size > 200 ? size / 20 - 1 : 1;
        for (int at = 0; at < size; at += step) {
            flip("flash_blocks", "data", key, at);
            assert_flash_damaged(*state, flash, index);
            flip("flash_blocks", "data", key, at);
        }
        flip("flash_blocks", "data", key, size - 1);
        assert_flash_damaged(*state, flash, index);
        flip("flash_blocks", "data", key, size - 1);
    }
    assert_flash_holds(*state, flash, KINDS);
}

static void finds_any_change_of_a_private_row(void **state)
{
    static const char *const changes[] = {
        "checksum = checksum + 1", "checksum = -checksum",    "encoding = encoding + 1",
        "encoding = encoding - 1", "encoding = 3 - encoding", "encoding = encoding + 256",
        "encoding = -1",           "data = data || x'00'",
    };
    int64_t flash = make_guest(*state, "web01");
    for (int64_t index = 0; index < KIND_COUNT; index++) {
        for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
            char sql[256];
            const char *change = changes[i];
            snprintf(sql, sizeof sql,
                     "CREATE TABLE kept AS SELECT * FROM flash_blocks WHERE key = %lld;"
                     "UPDATE flash_blocks SET %s WHERE key = (SELECT key FROM kept)",
                     (long long)flash_block_key(flash, index),
                     strstr(change, "||") ? "data = CAST(data || x'00' AS BLOB)" : change);
            fixture_sql(sql);
            assert_flash_damaged(*state, flash, index);
            fixture_sql("REPLACE INTO flash_blocks SELECT * FROM kept; DROP TABLE kept");
        }
    }
    assert_flash_holds(*state, flash, KINDS);
}

static void finds_a_cut_block(void **state)
{
    int64_t flash = make_guest(*state, "web01");
    for (int64_t index = 0; index <= KIND_PENDING; index++) {
        char sql[160];
        snprintf(
            sql, sizeof sql,
            "UPDATE flash_blocks SET data = substr(data, 1, length(data) - 1) WHERE key = %lld",
            (long long)flash_block_key(flash, index));
        fixture_sql(sql);
        assert_flash_damaged(*state, flash, index);
        snprintf(sql, sizeof sql, "UPDATE flash_blocks SET data = x'' WHERE key = %lld",
                 (long long)flash_block_key(flash, index));
        fixture_sql(sql);
        assert_flash_damaged(*state, flash, index);
    }
}

/* A block that turns up elsewhere, in the same flash or in another, is not taken for its own. */
static void finds_a_moved_block(void **state)
{
    int64_t first = make_guest(*state, "web01");
    int64_t second = make_guest(*state, "web02");
    struct error err = {0};
    for (int64_t index = 0; index < KIND_COUNT; index++) {
        int64_t to = (index + 1) % KIND_COUNT;
        char sql[256];
        snprintf(sql, sizeof sql,
                 "UPDATE flash_blocks SET key = -1 WHERE key = %lld;"
                 "UPDATE flash_blocks SET key = %lld WHERE key = %lld;"
                 "UPDATE flash_blocks SET key = %lld WHERE key = -1",
                 (long long)flash_block_key(first, index), (long long)flash_block_key(first, index),
                 (long long)flash_block_key(second, to), (long long)flash_block_key(second, to));
        fixture_sql(sql);
        assert_flash_damaged(*state, first, index);
        assert_flash_damaged(*state, second, to);
        assert_int_equal(read_block(*state, second, (to + 1) % KIND_COUNT, &err), STORE_BLOCK_SIZE);
        fixture_sql(sql);
    }
    assert_flash_holds(*state, first, KINDS);
    assert_flash_holds(*state, second, KINDS);
}

static void damage_ends_where_it_is(void **state)
{
    int64_t flash = make_guest(*state, "web01");
    int64_t other = make_guest(*state, "web02");
    uint8_t bytes[100];
    struct error err = {0};
    flip("flash_blocks", "data", flash_block_key(flash, 1), 3);
    assert_flash_damaged(*state, flash, 1);
    uint64_t start = STORE_BLOCK_SIZE;
    assert_int_equal(store_flash_read(*state, flash, start - 50, bytes, 50, &err), 50);
    assert_int_equal(store_flash_read(*state, flash, start - 50, bytes, 51, &err), -EUCLEAN);
    assert_int_equal(store_flash_read(*state, flash, 2 * start, bytes, 100, &err), 100);
    assert_flash_holds(*state, other, KINDS);

    /* A write that needs the damaged bytes changes nothing; one that replaces them mends it. */
    cleanup_free uint8_t *block = fixture_image("aa");
    assert_error(store_flash_write(*state, flash, 0, block, start + 1, 2, &err), -EUCLEAN, err,
                 "the store is damaged: flash 1 at offset 4096 is not what was written");
    cleanup_free uint8_t *expected = fixture_image(KINDS);
    assert_int_equal(store_flash_read(*state, flash, 0, bytes, 100, &err), 100);
    assert_memory_equal(bytes, expected, 100);
    assert_ok(store_flash_write(*state, flash, start, block, start, 2, &err), err);
    assert_flash_holds(*state, flash, KINDS);
}

static void maintenance_mends_no_damage(void **state)
{
    int64_t flash = make_guest(*state, "web01");
    struct error err = {0};
    flip("flash_blocks", "data", flash_block_key(flash, KIND_PENDING), 3);
    assert_error(store_maintain(*state, &err), -EUCLEAN, err,
                 "the store is damaged: flash 1 at offset 8192");
    assert_flash_damaged(*state, flash, KIND_PENDING);
    /* It is told of once. */
    assert_ok(store_maintain(*state, &err), err);
    assert_flash_damaged(*state, flash, KIND_PENDING);
}

static void maintenance_goes_on_past_damage(void **state)
{
    int64_t flash = make_guest(*state, "web01");
    int64_t other = make_guest(*state, "web02");
    cleanup_free uint8_t *block = fixture_image("b");
    struct error err = {0};
    assert_ok(store_flash_write(*state, flash, KIND_PENDING * STORE_BLOCK_SIZE, block,
                                STORE_BLOCK_SIZE, 1, &err),
              err);
    flip("flash_blocks", "data", flash_block_key(flash, KIND_PENDING), 3);
    assert_int_equal(store_maintain(*state, &err), -EUCLEAN);
    assert_true(size_of("flash_blocks", flash_block_key(other, KIND_PENDING)) < STORE_BLOCK_SIZE);
    assert_flash_damaged(*state, flash, KIND_PENDING);
}

static void decodes_exactly_a_block(void **state)
{
    struct codec codec;
    struct error err = {0};
    assert_ok(codec_init(&codec, &err), err);
    uint8_t out[STORE_BLOCK_SIZE];
    cleanup_free uint8_t *block = fixture_image("a");
    struct block_data data = block_compress(&codec, block, 3);
    assert_int_equal(data.encoding, BLOCK_ZSTD);
    assert_int_equal(block_decode(&codec, data, out), 0);
    assert_memory_equal(out, block, sizeof out);
    data.size--;
    assert_int_equal(block_decode(&codec, data, out), -EUCLEAN);

    /* A frame of 5 bytes: whole, but no block. */
    static const uint8_t frame[] = {0x28, 0xB5, 0x2F, 0xFD, 0x20, 0x05, 0x29,
                                    0x00, 0x00, 'h',  'e',  'l',  'l',  'o'};
    const struct block_data wrong[] = {
        {BLOCK_ZSTD, frame, sizeof frame},
        {BLOCK_ZSTD, frame, 0},
        {BLOCK_RAW, block, STORE_BLOCK_SIZE - 1},
        {BLOCK_PENDING, block, 0},
        {(enum block_encoding)7, block, STORE_BLOCK_SIZE},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_int_equal(block_decode(&codec, wrong[i], out), -EUCLEAN);
    codec_clear(&codec);
}

/* A block that was compressed with its image's is right only over that one. */
static void a_prefix_belongs_to_one_image(void **state)
{
    int64_t image = fixture_firmware(*state, "noise", "A").executable.id;
    int64_t other = fixture_firmware(*state, "other", "B").executable.id;
    int64_t flash = fixture_guest(*state, "noise", "web01").flash.id;
    cleanup_free uint8_t *expected = fixture_image("A");
    struct error err = {0};
    uint8_t block[STORE_BLOCK_SIZE];
    char sql[96];
    expected[1000] = 'x';
    assert_ok(store_flash_write(*state, flash, 1000, "x", 1, 1, &err), err);
    assert_ok(store_maintain(*state, &err), err);
    snprintf(sql, sizeof sql, "SELECT encoding FROM flash_blocks WHERE key = %lld",
             (long long)flash_block_key(flash, 0));
    assert_int_equal(fixture_integer(sql), BLOCK_PREFIX);
    assert_true(size_of("flash_blocks", flash_block_key(flash, 0)) < 40);
    assert_int_equal(store_flash_read(*state, flash, 0, block, sizeof block, &err), sizeof block);
    assert_memory_equal(block, expected, sizeof block);

    snprintf(sql, sizeof sql, "UPDATE flashes SET image_id = %lld", (long long)other);
    fixture_sql(sql);
    assert_flash_damaged(*state, flash, 0);
    snprintf(sql, sizeof sql, "UPDATE flashes SET image_id = %lld", (long long)image);
    fixture_sql(sql);
    assert_int_equal(store_flash_read(*state, flash, 0, block, sizeof block, &err), sizeof block);
    flip("flash_blocks", "data", flash_block_key(flash, 0), 9);
    assert_flash_damaged(*state, flash, 0);
}

/* Compressing needs the image's block, but less than the guest needs its own. */
static void maintenance_goes_on_over_a_damaged_image(void **state)
{
    fixture_firmware(*state, "noise", "A");
    int64_t row = fixture_integer("SELECT max(id) FROM blocks");
    int64_t flash = fixture_guest(*state, "noise", "web01").flash.id;
    cleanup_free uint8_t *block = fixture_image("b");
    struct error err = {0};
    assert_ok(store_flash_write(*state, flash, 0, block, STORE_BLOCK_SIZE, 1, &err), err);
    flip("blocks", "data", row, 5);
    assert_ok(store_maintain(*state, &err), err);
    assert_true(size_of("flash_blocks", flash_block_key(flash, 0)) < STORE_BLOCK_SIZE);
    flip("blocks", "data", row, 5);
    assert_flash_holds(*state, flash, "b");
}

/* ---- Shared blocks ---- */

static void assert_image_damaged(struct store *store, int64_t image)
{
    uint8_t block[STORE_BLOCK_SIZE];
    struct error err = {0};
    assert_error((int)store_image_read(store, image, 0, block, 1, &err), -EUCLEAN, err,
                 "the store is damaged: ");
}

static void finds_any_flipped_byte_of_a_shared_block(void **state)
{
    static const char *const letters[] = {"A", "b"};
    for (size_t i = 0; i < 2; i++) {
        int64_t image = fixture_firmware(*state, letters[i], letters[i]).executable.id;
        int64_t row = fixture_integer("SELECT max(id) FROM blocks");
        int size = (int)size_of("blocks", row);
        int64_t flash = fixture_guest(*state, letters[i], letters[i]).flash.id;
        int step = size > 200 ? size / 20 - 1 : 1;
        for (int at = 0; at < size; at += step) {
            /* A zstd frame says some things twice over; what it gives is what counts. */
            flip("blocks", "data", row, at);
            uint8_t block[STORE_BLOCK_SIZE];
            cleanup_free uint8_t *expected = fixture_image(letters[i]);
            ssize_t n = store_image_read(*state, image, 0, block, sizeof block, NULL);
            if (n > 0)
                assert_memory_equal(block, expected, sizeof block);
            else
                assert_image_damaged(*state, image);
            flip("blocks", "data", row, at);
        }
        flip("blocks", "data", row, size - 1);
        struct error err = {0};
        assert_image_damaged(*state, image);
        assert_error(read_block(*state, flash, 0, &err), -EUCLEAN, err, "the store is damaged: ");
        flip("blocks", "data", row, size - 1);
        assert_flash_holds(*state, flash, letters[i]);
    }
}

static void finds_any_change_of_a_shared_row(void **state)
{
    static const char *const changes[] = {
        "encoding = 0",
        "encoding = 2",
        "encoding = 3",
        "encoding = 99",
        "data = x''",
        "data = zeroblob(4096)",
        "digest = x''",
        "digest = zeroblob(32)",
        "encoding = 0, data = zeroblob(4096)",
    };
    int64_t image = fixture_firmware(*state, "text", "a").executable.id;
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        char sql[256];
        snprintf(sql, sizeof sql,
                 "CREATE TABLE kept AS SELECT * FROM blocks WHERE id = 2;"
                 "UPDATE blocks SET %s WHERE id = 2",
                 changes[i]);
        fixture_sql(sql);
        assert_image_damaged(*state, image);
        fixture_sql("UPDATE blocks SET (digest, encoding, data) ="
                    " (SELECT digest, encoding, data FROM kept) WHERE id = 2; DROP TABLE kept");
    }
    uint8_t byte;
    assert_int_equal(store_image_read(*state, image, 0, &byte, 1, NULL), 1);
}

static void finds_wrong_facts(void **state)
{
    struct store_firmware firmware;
    struct error err = {0};
    fixture_sql("UPDATE images SET digest = x'00'");
    assert_error(store_firmware_get(*state, "ovmf", &firmware, &err), -EUCLEAN, err,
                 "the store is damaged: a digest has the wrong size");
    fixture_sql("UPDATE images SET digest = zeroblob(32);"
                "UPDATE firmware SET name = printf('%256d', 1)");
    char name[257];
    snprintf(name, sizeof name, "%256d", 1);
    assert_error(store_firmware_get(*state, name, &firmware, &err), -EUCLEAN, err,
                 "the store is damaged: a name is missing or too long");
    fixture_sql("PRAGMA ignore_check_constraints = ON;"
                "UPDATE firmware SET name = 'ovmf', mode = 'other'");
    assert_error(store_firmware_get(*state, "ovmf", &firmware, &err), -EUCLEAN, err,
                 "the store is damaged: firmware 'ovmf' has no mode");
}

int main(void)
{
#define with_store(test) cmocka_unit_test_setup_teardown(test, enter, fixture_leave)
    const struct CMUnitTest tests[] = {
        with_store(finds_any_flipped_byte_of_a_private_block),
        with_store(finds_any_change_of_a_private_row),
        with_store(finds_a_cut_block),
        with_store(finds_a_moved_block),
        with_store(damage_ends_where_it_is),
        with_store(maintenance_mends_no_damage),
        with_store(maintenance_goes_on_past_damage),
        with_store(a_prefix_belongs_to_one_image),
        with_store(maintenance_goes_on_over_a_damaged_image),
        cmocka_unit_test(decodes_exactly_a_block),
        with_store(finds_any_flipped_byte_of_a_shared_block),
        with_store(finds_any_change_of_a_shared_row),
        with_store(finds_wrong_facts),
    };
    return cmocka_run_group_tests_name("damage", tests, NULL, NULL);
}
