#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "scratch.h"
#include "store/db.h"
#include "store/schema.h"
#include "store_fixture.h"
#include "testing.h"

/* ---- Making and opening ---- */

static void makes_an_empty_store(void **state)
{
    cleanup(store_closep) struct store *store = NULL;
    struct error err = {0};
    struct stat st;
    assert_ok(store_create("new/fwfs.db", &err), err);
    assert_int_equal(scratch_count("new"), 1);
    assert_int_equal(stat("new", &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_int_equal(stat("new/fwfs.db", &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);

    assert_ok(store_open("new/fwfs.db", 0, &store, &err), err);
    struct store_status status = fixture_status(store);
    assert_int_equal(status.guests + status.firmware + status.images, 0);
    assert_int_equal(status.shared_blocks + status.private_blocks, 0);
    assert_int_equal(status.unique_bytes + status.stored_bytes, 0);
    assert_int_equal(status.schema_version, SCHEMA_VERSION);
    assert_true(status.space.file_bytes >= (uint64_t)st.st_size);
    assert_true(status.space.disk_free_bytes > 0);
}

static void assert_create_refuses(const char *path, int code, const char *error)
{
    struct error err = {0};
    size_t entries = scratch_count(".");
    assert_error(store_create(path, &err), code, err, error);
    assert_int_equal(scratch_count("."), entries);
}

static void makes_a_store_only_where_nothing_is(void **state)
{
    struct error err = {0};
    assert_ok(store_create("first.db", &err), err);
    size_t size, size_after;
    cleanup_free uint8_t *before = fixture_load("first.db", &size);
    assert_create_refuses("first.db", -EEXIST, "first.db exists already; ");
    cleanup_free uint8_t *after = fixture_load("first.db", &size_after);
    assert_int_equal(size, size_after);
    assert_memory_equal(before, after, size);

    scratch_write_text("empty", "");
    assert_create_refuses("empty", -EEXIST, "empty exists already; ");
    assert_int_equal(mkdir("directory", 0755), 0);
    assert_create_refuses("directory", -EEXIST, "directory exists already; ");
    assert_int_equal(symlink("nowhere", "link"), 0);
    assert_create_refuses("link", -EEXIST, "link exists already; ");
    assert_create_refuses("no/such/fwfs.db", -ENOENT, "no/such: No such file or directory; ");
    assert_create_refuses("empty/fwfs.db", -ENOTDIR, "empty: Not a directory");
}

/* A log without its store would be replayed into the new one. */
static void makes_no_store_beside_another_ones_log(void **state)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct store *store;
        if (store_create(FIXTURE_STORE, NULL) < 0 || store_open(FIXTURE_STORE, 0, &store, NULL) < 0)
            _exit(1);
        fixture_firmware(store, "ovmf", "aA");
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(unlink(FIXTURE_STORE), 0);
    struct error err = {0};
    assert_error(store_create(FIXTURE_STORE, &err), -EEXIST, err, "fwfs.db-wal ");
    assert_int_not_equal(access(FIXTURE_STORE, F_OK), 0);
}

static void assert_open_refuses(const char *path, int code, const char *error)
{
    for (unsigned flags = 0; flags <= STORE_READ_ONLY; flags += STORE_READ_ONLY) {
        struct store *store = NULL;
        struct error err = {0};
        size_t entries = scratch_count(".");
        assert_error(store_open(path, flags, &store, &err), code, err, error);
        assert_null(store);
        assert_int_equal(scratch_count("."), entries);
    }
}

static void assert_open_refuses_file(const char *path, int code, const char *error)
{
    size_t size, size_after;
    cleanup_free uint8_t *before = fixture_load(path, &size);
    assert_open_refuses(path, code, error);
    cleanup_free uint8_t *after = fixture_load(path, &size_after);
    assert_int_equal(size, size_after);
    assert_memory_equal(before, after, size);
}

static void opens_no_other_file(void **state)
{
    assert_open_refuses("none.db", -ENOENT, "no store at none.db; make one with ");
    assert_open_refuses("no/such.db", -ENOENT, "no store at no/such.db; ");
    assert_open_refuses(".", -EINVAL, ".: not an fwfs store: no regular file");
    assert_int_equal(mkfifo("pipe", 0600), 0);
    assert_open_refuses("pipe", -EINVAL, "pipe: not an fwfs store: no regular file");

    scratch_write_text("text", "Not a database, but longer than a database's header is; that is, "
                               "at least a hundred bytes long, which this text is.\n");
    assert_open_refuses_file("text", -EINVAL, "text: not an fwfs store: no SQLite database");
    free(scratch_write_pattern("noise", 64 * 1024));
    assert_open_refuses_file("noise", -EINVAL, "noise: not an fwfs store: no SQLite database");
    scratch_write_text("short", "x");
    assert_open_refuses_file("short", -EINVAL, "short: not an fwfs store: ");
    scratch_write_text("empty", "");
    assert_open_refuses_file("empty", -EINVAL, "empty: not an fwfs store: ");
}

static void opens_no_other_database(void **state)
{
    scratch_write_text(FIXTURE_STORE, "");
    fixture_sql("CREATE TABLE t (x)");
    assert_open_refuses_file(FIXTURE_STORE, -EINVAL,
                             "fwfs.db: not an fwfs store: another application's database");
    fixture_sql("PRAGMA application_id = 1");
    assert_open_refuses_file(FIXTURE_STORE, -EINVAL,
                             "fwfs.db: not an fwfs store: another application's database");
    char sql[64];
    snprintf(sql, sizeof sql, "PRAGMA application_id = %d", SCHEMA_APPLICATION_ID);
    fixture_sql(sql);
    assert_open_refuses_file(FIXTURE_STORE, -EINVAL,
                             "fwfs.db: not an fwfs store: it has no schema");
}

static void opens_no_newer_store(void **state)
{
    char sql[64];
    struct error err = {0};
    assert_ok(store_create(FIXTURE_STORE, &err), err);
    snprintf(sql, sizeof sql, "PRAGMA user_version = %d", SCHEMA_VERSION + 1);
    fixture_sql(sql);
    assert_open_refuses_file(FIXTURE_STORE, -ENOTSUP, "fwfs.db: the store is of version ");
    snprintf(sql, sizeof sql, "PRAGMA user_version = %d", SCHEMA_VERSION);
    fixture_sql(sql);
    cleanup(store_closep) struct store *store = NULL;
    assert_ok(store_open(FIXTURE_STORE, 0, &store, &err), err);
}

static void a_closed_store_is_one_file(void **state)
{
    fixture_firmware(*state, "ovmf", "ab");
    fixture_reopen(state, 0);
    fixture_guest(*state, "ovmf", "web01");
    fixture_reopen(state, STORE_READ_ONLY);
    fixture_status(*state);
    store_close(*state);
    *state = NULL;
    assert_int_equal(scratch_count("."), 1);
    assert_int_equal(fixture_integer("SELECT count(*) FROM guests"), 1);
    assert_int_equal(fixture_integer("SELECT integrity_check = 'ok' FROM pragma_integrity_check"),
                     1);
}

static void read_only_refuses_changes(void **state)
{
    fixture_firmware(*state, "ovmf", "ab");
    struct store_guest guest = fixture_guest(*state, "ovmf", "web01");
    struct error err = {0};
    assert_ok(store_flash_write(*state, guest.flash.id, 1, "changed", 7, 1, &err), err);
    fixture_reopen(state, STORE_READ_ONLY);

    const char *name = "web01";
    cleanup_free uint8_t *image = fixture_image("c");
    const struct store_firmware_spec spec = {.name = "other",
                                             .mode = FLASH_MODE_COMBINED,
                                             .executable = {image, STORE_BLOCK_SIZE},
                                             .descriptor = "{}"};
    const struct store_attr attr = {.uid = 1};
    int64_t flash = guest.flash.id;
    static const char error[] = "the store is open read-only";
    assert_error(store_firmware_add(*state, &spec, &err), -EROFS, err, error);
    assert_error(store_firmware_remove(*state, "ovmf", &err), -EROFS, err, error);
    assert_error(store_guest_add(*state, "ovmf", &name, 1, &attr, &err), -EROFS, err, error);
    assert_error(store_guest_remove(*state, &name, 1, &err), -EROFS, err, error);
    assert_error(store_guest_rename(*state, "web01", "b", &err), -EROFS, err, error);
    assert_error(store_flash_write(*state, flash, 0, "x", 1, 2, &err), -EROFS, err, error);
    assert_error(store_flash_truncate(*state, flash, 0, 2, &err), -EROFS, err, error);
    assert_error(store_flash_set_attr(*state, flash, STORE_ATTR_UID, &attr, &err), -EROFS, err,
                 error);
    assert_error(store_maintain(*state, &err), -EROFS, err, error);
    assert_ok(store_sync(*state, &err), err);

    char bytes[7];
    assert_int_equal(store_flash_read(*state, flash, 1, bytes, 7, &err), 7);
    assert_memory_equal(bytes, "changed", 7);
    struct store_status status = fixture_status(*state);
    assert_int_equal(status.guests + status.firmware + status.images, 3);
}

static void tells_its_space(void **state)
{
    struct store_space before, after;
    struct error err = {0};
    assert_ok(store_get_space(*state, &before, &err), err);
    fixture_firmware(*state, "noise", "ABCDGHIJKLMNOPQRSTUVWXYZ");
    assert_ok(store_get_space(*state, &after, &err), err);
    assert_true(after.file_bytes >= before.file_bytes + 24 * STORE_BLOCK_SIZE);
    assert_true(after.free_bytes < 24 * STORE_BLOCK_SIZE);
    assert_ok(store_firmware_remove(*state, "noise", &err), err);
    assert_ok(store_get_space(*state, &after, &err), err);
    assert_true(after.free_bytes >= 24 * STORE_BLOCK_SIZE);
    size_t log;
    free(fixture_load(FIXTURE_STORE "-wal", &log));
    assert_int_equal(after.file_bytes,
                     fixture_integer("SELECT page_count * 4096 FROM pragma_page_count") +
                         (int64_t)log);
    /* Incremental: free room can go back to the disk, and a store cannot be made so later. */
    assert_int_equal(fixture_integer("PRAGMA auto_vacuum"), 2);
    struct store_status status = fixture_status(*state);
    assert_int_equal(status.space.free_bytes, after.free_bytes);
    assert_int_equal(status.space.file_bytes, after.file_bytes);
}

/* ---- Names ---- */

static void takes_good_names(void **state)
{
    static const char *const names[] = {
        "a",
        "web01",
        "a b",
        "a.b-c",
        "~",
        "it's \"quoted\" \\ %s",
        "\xC2\xA0",         /* U+00A0, the first after the C1 controls */
        "\xC3\xA4",         /* U+00E4 */
        "\xDF\xBF",         /* U+07FF */
        "\xE0\xA0\x80",     /* U+0800 */
        "\xED\x9F\xBF",     /* U+D7FF, the last before the surrogates */
        "\xEE\x80\x80",     /* U+E000, the first after them */
        "\xEF\xBF\xBF",     /* U+FFFF */
        "\xF0\x90\x80\x80", /* U+10000 */
        "\xF4\x8F\xBF\xBF", /* U+10FFFF */
    };
    struct error err = {0};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        assert_ok(store_check_name("guest", names[i], &err), err);
}

static void refuses_bad_names(void **state)
{
    static const struct {
        const char *name, *error;
    } cases[] = {
        {"", "a guest's name cannot be empty"},
        {".", "a guest's name cannot begin with '.'"},
        {"..", "a guest's name cannot begin with '.': '..'"},
        {".hidden", "a guest's name cannot begin with '.'"},
        {"-x", "a guest's name cannot begin with '-'"},
        {"/", "a guest's name cannot hold '/': '/'"},
        {"a/b", "a guest's name cannot hold '/': 'a/b'"},
        {"a/", "a guest's name cannot hold '/'"},
        {"a\x01", "a guest's name cannot hold control characters"},
        {"a\nb", "a guest's name cannot hold control characters: 'a?b'"},
        {"\x1F", "a guest's name cannot hold control characters"},
        {"a\x7F", "a guest's name cannot hold control characters"},
        {"a\xC2\x80", "a guest's name cannot hold control characters"},
        {"\xC2\x9B", "a guest's name cannot hold control characters"},
        {"\xC2\x9F", "a guest's name cannot hold control characters"},
        {"\x80", "a guest's name must be UTF-8"},             /* begins within a sequence */
        {"a\xBF", "a guest's name must be UTF-8: 'a"},        /* the same */
        {"\xC3", "a guest's name must be UTF-8"},             /* cut */
        {"\xE2\x82", "a guest's name must be UTF-8"},         /* cut */
        {"\xF0\x90\x80", "a guest's name must be UTF-8"},     /* cut */
        {"\xC3(", "a guest's name must be UTF-8"},            /* not continued */
        {"\xE2\x82(", "a guest's name must be UTF-8"},        /* not continued */
        {"\xC3\xC3\xA4", "a guest's name must be UTF-8"},     /* not continued */
        {"\xC0\xAF", "a guest's name must be UTF-8"},         /* overlong '/' */
        {"\xC1\xBF", "a guest's name must be UTF-8"},         /* overlong U+007F */
        {"\xE0\x9F\xBF", "a guest's name must be UTF-8"},     /* overlong U+07FF */
        {"\xF0\x8F\xBF\xBF", "a guest's name must be UTF-8"}, /* overlong U+FFFF */
        {"\xED\xA0\x80", "a guest's name must be UTF-8"},     /* U+D800 */
        {"\xED\xBF\xBF", "a guest's name must be UTF-8"},     /* U+DFFF */
        {"\xF4\x90\x80\x80", "a guest's name must be UTF-8"}, /* U+110000 */
        {"\xF8\x88\x80\x80\x80", "a guest's name must be UTF-8"},
        {"\xFE", "a guest's name must be UTF-8"},
        {"a\xFF", "a guest's name must be UTF-8"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct error err = {0};
        assert_error(store_check_name("guest", cases[i].name, &err), -EINVAL, err, cases[i].error);
    }
}

static void names_have_at_most_255_bytes(void **state)
{
    char name[302] = "";
    struct error err = {0};
    memset(name, 'x', STORE_NAME_MAX);
    assert_ok(store_check_name("guest", name, &err), err);
    name[STORE_NAME_MAX] = 'x';
    assert_error(store_check_name("guest", name, &err), -EINVAL, err,
                 "a guest's name has at most 255 bytes, this one has 256");
    for (size_t i = 0; i < 300; i += 2)
        memcpy(name + i, "\xC3\xA4", 2);
    assert_error(store_check_name("firmware", name, &err), -EINVAL, err,
                 "a firmware's name has at most 255 bytes, this one has 300");
    name[254] = '\0';
    assert_ok(store_check_name("guest", name, &err), err);
}

int main(void)
{
#define in_directory(test) cmocka_unit_test_setup_teardown(test, scratch_enter, scratch_leave)
#define with_store(test) cmocka_unit_test_setup_teardown(test, fixture_enter, fixture_leave)
    const struct CMUnitTest tests[] = {
        in_directory(makes_an_empty_store),
        in_directory(makes_a_store_only_where_nothing_is),
        in_directory(makes_no_store_beside_another_ones_log),
        in_directory(opens_no_other_file),
        in_directory(opens_no_other_database),
        in_directory(opens_no_newer_store),
        with_store(a_closed_store_is_one_file),
        with_store(read_only_refuses_changes),
        with_store(tells_its_space),
        cmocka_unit_test(takes_good_names),
        cmocka_unit_test(refuses_bad_names),
        cmocka_unit_test(names_have_at_most_255_bytes),
    };
    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
