#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "scratch.h"
#include "store/db.h"
#include "store/pagesum.h"
#include "store_dump.h"
#include "store_fixture.h"
#include "testing.h"

#define FLIPS 1000

/* Something of everything that a store holds. */
static void fill_store(struct store *store)
{
    cleanup_free uint8_t *code = fixture_image("AaB"), *vars = fixture_image("aF0bCd");
    const struct store_firmware_spec spec = {
        .name = "split",
        .mode = FLASH_MODE_SPLIT,
        .executable = {.bytes = code, .size = 3 * STORE_BLOCK_SIZE},
        .nvram_template = {.bytes = vars, .size = 6 * STORE_BLOCK_SIZE},
        .descriptor = "{\"description\": \"text that nothing else checks\"}"};
    const struct store_attr attr = {.uid = 7, .mode = 0600};
    struct error err = {0};
    assert_ok(store_firmware_add(store, &spec, &err), err);
    fixture_firmware(store, "combined", "aAbB0F5E");
    for (int i = 0; i < 24; i++) {
        char name[32];
        snprintf(name, sizeof name, "a-guest-with-a-name-%d", i);
        struct store_guest guest = fixture_guest(store, i % 2 ? "split" : "combined", name);
        int64_t flash = guest.flash.id;
        if (i % 3 == 0)
            assert_ok(store_flash_write(store, flash, 4000, code, 9000, i, &err), err);
        if (i % 8 == 0)
            assert_ok(store_flash_set_xattr(store, flash, "user.name", name, strlen(name), 0, &err),
                      err);
        if (i == 12)
            assert_ok(store_snapshot_add(store, name, "before", &err), err);
        if (i == 12)
            assert_ok(store_flash_write(store, flash, 0, vars, 9000, i, &err), err);
        if (i == 13)
            assert_ok(store_staging_create(store, guest.id, "new", &attr, &err), err);
        if (i == 16)
            assert_true(store_maintain(store, &err) >= 0);
    }
}

/* What the store at FIXTURE_STORE tells. */
static int tell(char **ret, struct error *err)
{
    cleanup(store_closep) struct store *store = NULL;
    int r = store_open(FIXTURE_STORE, STORE_READ_ONLY, &store, err);
    return r < 0 ? r : store_dump(store, ret, err);
}

/* Changes bytes of the file; doing it again mends them. */
static void flip(off_t offset, uint8_t mask)
{
    uint8_t byte;
    cleanup_fd int fd = open(FIXTURE_STORE, O_RDWR | O_CLOEXEC);
    assert_int_equal(pread(fd, &byte, 1, offset), 1);
    byte ^= mask;
    assert_int_equal(pwrite(fd, &byte, 1, offset), 1);
}

static off_t close_store(void **state)
{
    struct stat st;
    store_close(*state);
    *state = NULL;
    assert_int_equal(stat(FIXTURE_STORE, &st), 0);
    assert_int_not_equal(access(FIXTURE_STORE "-wal", F_OK), 0);
    return st.st_size;
}

static void assert_right_or_refused(const char *right, off_t offset, size_t *refused)
{
    cleanup_free char *told = NULL;
    struct error err = {0};
    int r = tell(&told, &err);
    if (r < 0 && r != -EUCLEAN && r != -EINVAL)
        fail_msg("at %lld: %d, \"%s\"", (long long)offset, r, err.text);
    if (r == 0 && strcmp(told, right) != 0)
        fail_msg("at %lld: wrong, and not noticed", (long long)offset);
    *refused += r < 0;
}

static void no_flipped_bit_gives_a_wrong_byte(void **state)
{
    cleanup_free char *right = NULL;
    struct error err = {0};
    uint64_t seed = 1;
    size_t refused = 0;
    fill_store(*state);
    off_t size = close_store(state);
    assert_ok(tell(&right, &err), err);
    for (int i = 0; i < FLIPS; i++) {
        off_t offset = (off_t)fixture_random(&seed, (uint64_t)size);
        uint8_t mask = (uint8_t)(1 << fixture_random(&seed, 8));
        flip(offset, mask);
        assert_right_or_refused(right, offset, &refused);
        flip(offset, mask);
    }
    /* Of the pages that are read, all. */
    assert_true(refused > FLIPS / 2);
    for (off_t offset = 0; offset < 100; offset++) {
        refused = 0;
        flip(offset, 0x04);
        assert_right_or_refused(right, offset, &refused);
        assert_int_equal(refused, 1);
        flip(offset, 0x04);
    }
    cleanup_free char *told = NULL;
    assert_ok(tell(&told, &err), err);
    assert_string_equal(told, right);
}

static void finds_lost_moved_and_missing_pages(void **state)
{
    static const char *const tables[] = {"blocks", "images", "firmware", "guests", "flashes"};
    static const uint8_t zeros[PAGESUM_PAGE_SIZE];
    char *told = NULL;
    struct error err = {0};
    size_t size, page = PAGESUM_PAGE_SIZE;
    fill_store(*state);
    close_store(state);
    cleanup_free uint8_t *right = fixture_load(FIXTURE_STORE, &size);
    cleanup_free uint8_t *wrong = fixture_load(FIXTURE_STORE, &size);

    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        char sql[80];
        snprintf(sql, sizeof sql, "SELECT rootpage FROM sqlite_schema WHERE name = '%s'",
                 tables[i]);
        size_t at = (size_t)(fixture_integer(sql) - 1) * page;
        memcpy(wrong + at, zeros, page);
        scratch_write(FIXTURE_STORE, wrong, size);
        assert_error(tell(&told, &err), -EUCLEAN, err, "the store is damaged (a page of its file");
        memcpy(wrong + at, right + at + page, page);
        scratch_write(FIXTURE_STORE, wrong, size);
        assert_error(tell(&told, &err), -EUCLEAN, err, "the store is damaged (a page of its file");
        memcpy(wrong + at, right + at, page);
        scratch_write(FIXTURE_STORE, right, at);
        assert_int_equal(tell(&told, &err), -EUCLEAN);
        scratch_write(FIXTURE_STORE, right, size);
    }
    scratch_write(FIXTURE_STORE, right, 100);
    assert_error(tell(&told, &err), -EUCLEAN, err,
                 FIXTURE_STORE ": the store is damaged (a page of its file");
    scratch_write(FIXTURE_STORE, right, size);
    assert_ok(tell(&told, &err), err);
    free(told);
}

static void takes_no_database_without_sums(void **state)
{
    sqlite3 *handle;
    char *told = NULL;
    struct error err = {0};
    close_store(state);
    assert_int_equal(unlink(FIXTURE_STORE), 0);
    assert_int_equal(sqlite3_open(FIXTURE_STORE, &handle), SQLITE_OK);
    assert_int_equal(sqlite3_exec(handle, "CREATE TABLE t (x)", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(handle);
    assert_error(tell(&told, &err), -EINVAL, err,
                 FIXTURE_STORE ": not an fwfs store: no SQLite database with page checksums");
}

/* A second file that SQLite writes as a whole, and the first one written anew. */
static void copies_have_sums_too(void **state)
{
    cleanup_free char *right = NULL, *told = NULL, *copied = NULL;
    char *refused;
    struct error err = {0};
    fill_store(*state);
    close_store(state);
    assert_ok(tell(&right, &err), err);
    fixture_sql("VACUUM INTO 'copy.db'");
    fixture_sql("VACUUM");
    assert_ok(tell(&told, &err), err);
    assert_string_equal(told, right);
    assert_int_equal(rename("copy.db", FIXTURE_STORE), 0);
    assert_ok(tell(&copied, &err), err);
    assert_string_equal(copied, right);
    flip(PAGESUM_PAGE_SIZE - 1, 0x80);
    assert_error(tell(&refused, &err), -EUCLEAN, err, FIXTURE_STORE ": the store is damaged");
}

int main(void)
{
#define with_store(test) cmocka_unit_test_setup_teardown(test, fixture_enter, fixture_leave)
    const struct CMUnitTest tests[] = {
        with_store(no_flipped_bit_gives_a_wrong_byte),
        with_store(finds_lost_moved_and_missing_pages),
        with_store(takes_no_database_without_sums),
        with_store(copies_have_sums_too),
    };
    return cmocka_run_group_tests_name("pagesum", tests, NULL, NULL);
}
