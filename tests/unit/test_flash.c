#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "scratch.h"
#include "store_fixture.h"
#include "testing.h"

#define NOW INT64_C(1700000000123456789)

static void write_flash(struct store *store, int64_t flash, uint64_t offset, const void *bytes,
                        size_t length)
{
    struct error err = {0};
    assert_ok(store_flash_write(store, flash, offset, bytes, length, NOW, &err), err);
}

static void assert_reads(struct store *store, int64_t flash, uint64_t offset, const void *expected,
                         size_t length)
{
    cleanup_free uint8_t *bytes = malloc(length + 1);
    struct error err = {0};
    bytes[length] = 0xA5;
    assert_int_equal(store_flash_read(store, flash, offset, bytes, length, &err), length);
    assert_memory_equal(bytes, expected, length);
    assert_int_equal(bytes[length], 0xA5);
}

static void assert_holds(struct store *store, int64_t flash, const char *letters)
{
    cleanup_free uint8_t *expected = fixture_image(letters);
    assert_reads(store, flash, 0, expected, strlen(letters) * STORE_BLOCK_SIZE);
}

static struct store_usage usage(struct store *store, int64_t flash)
{
    struct store_usage usage;
    struct error err = {0};
    assert_ok(store_flash_usage(store, flash, &usage, &err), err);
    assert_int_equal(usage.delta_bytes, usage.delta_blocks * STORE_BLOCK_SIZE);
    return usage;
}

static struct store_attr attr(struct store *store, int64_t flash)
{
    struct store_flash got;
    struct error err = {0};
    assert_ok(store_flash_get(store, flash, &got, &err), err);
    assert_int_equal(got.id, flash);
    return got.attr;
}

static void assert_attr(struct store *store, int64_t flash, const struct store_attr *expected)
{
    struct store_attr found = attr(store, flash);
    assert_int_equal(found.uid, expected->uid);
    assert_int_equal(found.gid, expected->gid);
    assert_int_equal(found.mode, expected->mode);
    assert_int_equal(found.atime, expected->atime);
    assert_int_equal(found.mtime, expected->mtime);
    assert_int_equal(found.ctime, expected->ctime);
}

/* Compresses all that is pending; returns how many calls it took. */
static int maintain(struct store *store)
{
    struct error err = {0};
    int calls = 0, r;
    do {
        r = store_maintain(store, &err);
        calls++;
    } while (r > 0);
    assert_ok(r, err);
    return calls;
}

/* ---- What is written is what is read ---- */

static const char shape[] = "0FaA10FFE5bBcC000FFFFaA0F";
#define SHAPE_BLOCKS (sizeof shape - 1)
#define SHAPE_SIZE (SHAPE_BLOCKS * STORE_BLOCK_SIZE)

/* What a guest may write: noise, fill, or what the image has there. */
static void random_bytes(uint64_t *seed, uint8_t *bytes, size_t length, const uint8_t *image)
{
    switch (fixture_random(seed, 5)) {
    case 0:
        memset(bytes, 0x00, length);
        break;
    case 1:
        memset(bytes, 0xFF, length);
        break;
    case 2:
    case 3:
        memcpy(bytes, image, length);
        break;
    default:
        for (size_t i = 0; i < length; i++)
            bytes[i] = (uint8_t)fixture_random(seed, 16);
    }
}

static void random_write(struct store *store, int64_t flash, uint64_t *seed, uint8_t *shadow,
                         const uint8_t *image)
{
    uint64_t offset = fixture_random(seed, SHAPE_SIZE);
    size_t length = fixture_random(seed, 3 * STORE_BLOCK_SIZE) + 1;
    if (fixture_random(seed, 3) == 0) {
        offset -= offset % STORE_BLOCK_SIZE;
        length = STORE_BLOCK_SIZE * (1 + fixture_random(seed, 6));
    }
    if (length > SHAPE_SIZE - offset)
        length = SHAPE_SIZE - offset;
    random_bytes(seed, shadow + offset, length, image + offset);
    write_flash(store, flash, offset, shadow + offset, length);
}

static size_t count_differing(const uint8_t *a, const uint8_t *b)
{
    size_t count = 0;
    for (size_t at = 0; at < SHAPE_SIZE; at += STORE_BLOCK_SIZE)
        count += memcmp(a + at, b + at, STORE_BLOCK_SIZE) != 0;
    return count;
}

static void random_writes_read_back(void **state)
{
    fixture_firmware(*state, "ovmf", shape);
    int64_t flash = fixture_guest(*state, "ovmf", "web01").flash.id;
    int64_t untouched = fixture_guest(*state, "ovmf", "web02").flash.id;
    cleanup_free uint8_t *image = fixture_image(shape), *shadow = fixture_image(shape);
    struct error err = {0};
    uint64_t seed = 42;
    for (int i = 1; i <= 600; i++) {
        if (i % 200 == 0) {
            assert_ok(store_flash_truncate(*state, flash, 0, NOW, &err), err);
            memset(shadow, 0xFF, SHAPE_SIZE);
        } else {
            random_write(*state, flash, &seed, shadow, image);
        }
        if (i % 7 == 0)
            maintain(*state);
        if (i % 50 == 0)
            fixture_reopen(state, STORE_LAZY_SYNC);
        uint64_t offset = fixture_random(&seed, SHAPE_SIZE);
        assert_reads(*state, flash, offset, shadow + offset,
                     fixture_random(&seed, SHAPE_SIZE - offset) + 1);
        assert_int_equal(usage(*state, flash).delta_blocks, count_differing(image, shadow));
    }
    assert_reads(*state, flash, 0, shadow, SHAPE_SIZE);
    assert_holds(*state, untouched, shape);
    assert_int_equal(fixture_status(*state).private_blocks, count_differing(image, shadow));
}

static void reads_stop_at_the_end(void **state)
{
    fixture_firmware(*state, "ovmf", "aA");
    int64_t flash = fixture_guest(*state, "ovmf", "web01").flash.id;
    cleanup_free uint8_t *expected = fixture_image("aA");
    uint8_t bytes[2] = {0xA5, 0xA5};
    struct error err = {0};
    assert_int_equal(store_flash_read(*state, flash, 8191, bytes, 100, &err), 1);
    assert_int_equal(bytes[0], expected[8191]);
    assert_int_equal(bytes[1], 0xA5);
    assert_int_equal(store_flash_read(*state, flash, 8192, bytes, 1, &err), 0);
    assert_int_equal(store_flash_read(*state, flash, UINT64_MAX, bytes, 1, &err), 0);
    assert_int_equal(store_flash_read(*state, flash, 0, bytes, 0, &err), 0);
}

static void an_absent_flash_is_told(void **state)
{
    struct store_flash flash;
    struct store_attr changed = {0};
    char byte;
    struct error err = {0};
    static const char error[] = "there is no flash 9";
    assert_error(store_flash_get(*state, 9, &flash, &err), -ENOENT, err, error);
    assert_error((int)store_flash_read(*state, 9, 0, &byte, 1, &err), -ENOENT, err, error);
    assert_error(store_flash_write(*state, 9, 0, "x", 1, NOW, &err), -ENOENT, err, error);
    assert_error(store_flash_truncate(*state, 9, 0, NOW, &err), -ENOENT, err, error);
    assert_error(store_flash_set_attr(*state, 9, STORE_ATTR_UID, &changed, &err), -ENOENT, err,
                 error);
    assert_int_equal(fixture_status(*state).private_blocks, 0);
}

static void past_the_end_changes_nothing(void **state)
{
    fixture_firmware(*state, "ovmf", "aA");
    int64_t flash = fixture_guest(*state, "ovmf", "web01").flash.id;
    cleanup_free uint8_t *noise = fixture_image("BC");
    struct store_attr before = attr(*state, flash);
    static const struct {
        uint64_t offset;
        size_t length;
    } cases[] = {{0, 8193},     {8191, 2},     {4096, 4097}, {8192, 1},        {UINT64_MAX, 1},
                 {1, SIZE_MAX}, {0, SIZE_MAX}, {8193, 0},    {UINT64_MAX, 16}, {8192, SIZE_MAX}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct error err = {0};
        assert_error(
            store_flash_write(*state, flash, cases[i].offset, noise, cases[i].length, NOW, &err),
            -EFBIG, err, "flash 1 ends at 8192");
    }
    assert_attr(*state, flash, &before);
    assert_int_equal(usage(*state, flash).delta_blocks, 0);
    assert_holds(*state, flash, "aA");
    write_flash(*state, flash, 0, noise, 8192);
    assert_holds(*state, flash, "BC");
}

static void erasing_gives_ones(void **state)
{
    fixture_firmware(*state, "ovmf", "F0aAE");
    int64_t flash = fixture_guest(*state, "ovmf", "web01").flash.id;
    struct error err = {0};
    write_flash(*state, flash, 3000, "changed", 7);
    assert_ok(store_flash_truncate(*state, flash, 0, NOW + 1, &err), err);
    assert_holds(*state, flash, "FFFFF");
    assert_int_equal(usage(*state, flash).delta_blocks, 4);
    assert_int_equal(usage(*state, flash).stored_bytes, 0);
    assert_int_equal(attr(*state, flash).mtime, NOW + 1);
    assert_int_equal(attr(*state, flash).ctime, NOW + 1);
}

/* ---- What it costs ---- */

static void what_equals_the_image_drops_out(void **state)
{
    fixture_firmware(*state, "ovmf", "aAF0");
    int64_t flash = fixture_guest(*state, "ovmf", "web01").flash.id;
    cleanup_free uint8_t *image = fixture_image("aAF0"), *noise = fixture_image("BBBB");
    write_flash(*state, flash, 0, image, 4 * STORE_BLOCK_SIZE);
    assert_int_equal(usage(*state, flash).delta_blocks, 0);
    write_flash(*state, flash, 0, noise, 4 * STORE_BLOCK_SIZE);
    assert_int_equal(usage(*state, flash).delta_blocks, 4);
    assert_int_equal(usage(*state, flash).stored_bytes, 4 * STORE_BLOCK_SIZE);
    write_flash(*state, flash, 0, image, STORE_BLOCK_SIZE);
    assert_int_equal(usage(*state, flash).delta_blocks, 3);
    /* In two pieces, neither of them a block. */
    write_flash(*state, flash, STORE_BLOCK_SIZE, image + STORE_BLOCK_SIZE, 5000);
    assert_int_equal(usage(*state, flash).delta_blocks, 2);
    write_flash(*state, flash, STORE_BLOCK_SIZE + 5000, image + STORE_BLOCK_SIZE + 5000,
                3 * STORE_BLOCK_SIZE - 5000);
    assert_int_equal(usage(*state, flash).delta_blocks, 0);
    assert_int_equal(fixture_status(*state).private_blocks, 0);
    assert_holds(*state, flash, "aAF0");
}

static void fill_is_stored_without_data(void **state)
{
    fixture_firmware(*state, "ovmf", "aA0F1E");
    int64_t flash = fixture_guest(*state, "ovmf", "web01").flash.id;
    cleanup_free uint8_t *fill = fixture_image("0FF00F");
    write_flash(*state, flash, 0, fill, 6 * STORE_BLOCK_SIZE);
    assert_int_equal(usage(*state, flash).delta_blocks, 6);
    assert_int_equal(usage(*state, flash).stored_bytes, 0);
    maintain(*state);
    assert_holds(*state, flash, "0FF00F");
    assert_int_equal(usage(*state, flash).stored_bytes, 0);

    /* A byte makes it data, and another fill again. */
    write_flash(*state, flash, 100, "\xFF", 1);
    assert_int_equal(usage(*state, flash).stored_bytes, STORE_BLOCK_SIZE);
    write_flash(*state, flash, 100, "", 1);
    assert_int_equal(usage(*state, flash).stored_bytes, 0);
    write_flash(*state, flash, STORE_BLOCK_SIZE - 1, "\xFF", 1);
    assert_int_equal(usage(*state, flash).stored_bytes, STORE_BLOCK_SIZE);
}

static void guests_share_nothing_they_write(void **state)
{
    fixture_firmware(*state, "ovmf", "abc");
    fixture_firmware(*state, "other", "Bbb");
    int64_t first = fixture_guest(*state, "ovmf", "web01").flash.id;
    int64_t second = fixture_guest(*state, "ovmf", "web02").flash.id;
    cleanup_free uint8_t *noise = fixture_image("B");
    write_flash(*state, first, 0, noise, STORE_BLOCK_SIZE);
    assert_holds(*state, second, "abc");
    write_flash(*state, second, 0, noise, STORE_BLOCK_SIZE);
    struct store_status status = fixture_status(*state);
    assert_int_equal(status.private_blocks, 2);
    assert_int_equal(status.shared_blocks, 4);
    assert_int_equal(status.unique_bytes, 6 * STORE_BLOCK_SIZE);
    assert_int_equal(usage(*state, first).stored_bytes, STORE_BLOCK_SIZE);
    assert_int_equal(usage(*state, second).stored_bytes, STORE_BLOCK_SIZE);
    write_flash(*state, second, 0, "x", 1);
    assert_holds(*state, first, "Bbc");
}

static void maintenance_compresses_what_was_written(void **state)
{
    char letters[151] = "", text[151] = "";
    memset(letters, '0', 150);
    memset(text, 'a', 140);
    memset(text + 140, 'A', 10);
    fixture_firmware(*state, "ovmf", letters);
    int64_t flash = fixture_guest(*state, "ovmf", "web01").flash.id;
    cleanup_free uint8_t *bytes = fixture_image(text);
    assert_int_equal(maintain(*state), 1);
    write_flash(*state, flash, 0, bytes, 150 * STORE_BLOCK_SIZE);
    struct store_attr before = attr(*state, flash);
    assert_int_equal(usage(*state, flash).stored_bytes, 150 * STORE_BLOCK_SIZE);
    assert_true(maintain(*state) > 1);

    /* Noise stays as it is, and is not tried again. */
    struct store_usage after = usage(*state, flash);
    assert_int_equal(after.delta_blocks, 150);
    assert_true(after.stored_bytes >= 10 * STORE_BLOCK_SIZE);
    assert_true(after.stored_bytes < 20 * STORE_BLOCK_SIZE);
    assert_int_equal(fixture_status(*state).stored_bytes, after.stored_bytes);
    assert_int_equal(fixture_integer("SELECT count(*) FROM flash_blocks WHERE encoding = 4"), 0);
    assert_int_equal(maintain(*state), 1);
    assert_attr(*state, flash, &before);
    assert_reads(*state, flash, 0, bytes, 150 * STORE_BLOCK_SIZE);
    write_flash(*state, flash, 5, "x", 1);
    assert_true(usage(*state, flash).stored_bytes > after.stored_bytes);
}

static bool file_contains(const char *name, const char *text)
{
    size_t size;
    cleanup_free uint8_t *bytes = fixture_load(name, &size);
    return memmem(bytes, size, text, strlen(text)) != NULL;
}

static void what_was_deleted_is_overwritten(void **state)
{
    static const char *const secrets[] = {"the first secret", "the second secret"};
    const char *names[] = {"web01", "web02"};
    struct error err = {0};
    fixture_firmware(*state, "ovmf", "aA");
    for (size_t i = 0; i < 2; i++) {
        int64_t flash = fixture_guest(*state, "ovmf", names[i]).flash.id;
        write_flash(*state, flash, 1000, secrets[i], strlen(secrets[i]));
    }
    fixture_reopen(state, 0);
    assert_true(file_contains(FIXTURE_STORE, secrets[0]));
    assert_true(file_contains(FIXTURE_STORE, secrets[1]));
    struct store_guest second;
    assert_ok(store_guest_purge(*state, names, 1, &err), err);
    assert_ok(store_guest_by_name(*state, "web02", &second, &err), err);
    assert_ok(store_flash_truncate(*state, second.flash.id, 0, NOW, &err), err);
    fixture_reopen(state, 0);
    assert_false(file_contains(FIXTURE_STORE, secrets[0]));
    assert_false(file_contains(FIXTURE_STORE, secrets[1]));
}

/* ---- Owner, mode and times ---- */

static void attributes_are_set_one_by_one(void **state)
{
    fixture_firmware(*state, "ovmf", "a");
    int64_t flash = fixture_guest(*state, "ovmf", "web01").flash.id;
    int64_t other = fixture_guest(*state, "ovmf", "web02").flash.id;
    const struct store_attr all = {.uid = UINT32_MAX - 1,
                                   .gid = 3000000000,
                                   .mode = 0106751, /* a type's bits are none of its business */
                                   .atime = -5,
                                   .mtime = INT64_MAX,
                                   .ctime = NOW};
    struct store_attr expected = attr(*state, flash), others = attr(*state, other);
    struct error err = {0};
    for (unsigned bit = 1; bit <= STORE_ATTR_CTIME; bit <<= 1) {
        assert_ok(store_flash_set_attr(*state, flash, bit, &all, &err), err);
        switch (bit) {
        case STORE_ATTR_UID:
            expected.uid = all.uid;
            break;
        case STORE_ATTR_GID:
            expected.gid = all.gid;
            break;
        case STORE_ATTR_MODE:
            expected.mode = 06751;
            break;
        case STORE_ATTR_ATIME:
            expected.atime = all.atime;
            break;
        case STORE_ATTR_MTIME:
            expected.mtime = all.mtime;
            break;
        default:
            expected.ctime = all.ctime;
        }
        assert_attr(*state, flash, &expected);
    }
    assert_ok(store_flash_set_attr(*state, flash, 0, &(struct store_attr){0}, &err), err);
    assert_attr(*state, flash, &expected);
    assert_attr(*state, other, &others);
}

/* A time that equals mtime has no column of its own; it must not follow mtime for that. */
static void times_do_not_follow_each_other(void **state)
{
    static const int64_t times[] = {0, 1, NOW};
    fixture_firmware(*state, "ovmf", "a");
    int64_t flash = fixture_guest(*state, "ovmf", "web01").flash.id;
    struct error err = {0};
    for (int i = 0; i < 27; i++) {
        const struct store_attr set = {.uid = 107,
                                       .gid = 108,
                                       .mode = 0640,
                                       .atime = times[i % 3],
                                       .mtime = times[i / 3 % 3],
                                       .ctime = times[i / 9]};
        const unsigned all = STORE_ATTR_ATIME | STORE_ATTR_MTIME | STORE_ATTR_CTIME;
        struct store_attr expected = set;
        assert_ok(store_flash_set_attr(*state, flash, all, &set, &err), err);
        assert_attr(*state, flash, &expected);
        assert_ok(store_flash_write(*state, flash, 0, &i, sizeof i, NOW + i, &err), err);
        expected.mtime = expected.ctime = NOW + i;
        assert_attr(*state, flash, &expected);
        assert_ok(store_flash_set_attr(*state, flash, STORE_ATTR_MTIME, &set, &err), err);
        expected.mtime = set.mtime;
        assert_attr(*state, flash, &expected);
    }
}

static void flashes_outlive_the_store_object(void **state)
{
    fixture_firmware(*state, "ovmf", "aA0F");
    int64_t flash = fixture_guest(*state, "ovmf", "web01").flash.id;
    const struct store_attr set = {
        .uid = 5, .gid = 6, .mode = 0600, .atime = 7, .mtime = NOW, .ctime = NOW};
    struct error err = {0};
    cleanup_free uint8_t *bytes = fixture_image("bF0");
    write_flash(*state, flash, STORE_BLOCK_SIZE, bytes, 3 * STORE_BLOCK_SIZE);
    assert_ok(store_flash_set_attr(
                  *state, flash,
                  STORE_ATTR_UID | STORE_ATTR_GID | STORE_ATTR_MODE | STORE_ATTR_ATIME, &set, &err),
              err);
    for (unsigned flags = 0; flags <= (STORE_READ_ONLY | STORE_LAZY_SYNC); flags++) {
        fixture_reopen(state, flags);
        assert_holds(*state, flash, "abF0");
        assert_int_equal(usage(*state, flash).delta_blocks, 3);
        assert_attr(*state, flash, &set);
    }
}

int main(void)
{
#define with_store(test) cmocka_unit_test_setup_teardown(test, fixture_enter, fixture_leave)
    const struct CMUnitTest tests[] = {
        with_store(random_writes_read_back),
        with_store(reads_stop_at_the_end),
        with_store(an_absent_flash_is_told),
        with_store(past_the_end_changes_nothing),
        with_store(erasing_gives_ones),
        with_store(what_equals_the_image_drops_out),
        with_store(fill_is_stored_without_data),
        with_store(guests_share_nothing_they_write),
        with_store(maintenance_compresses_what_was_written),
        with_store(what_was_deleted_is_overwritten),
        with_store(attributes_are_set_one_by_one),
        with_store(times_do_not_follow_each_other),
        with_store(flashes_outlive_the_store_object),
    };
    return cmocka_run_group_tests_name("flash", tests, NULL, NULL);
}
