#include <errno.h>
#include <glob.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "scratch.h"
#include "store/internal.h"
#include "store/schema.h"
#include "store_fixture.h"
#include "testing.h"

static const char first_step[] = "ALTER TABLE guests ADD COLUMN note TEXT";
static const char second_step[] = "UPDATE guests SET note = 'of ' || name";
static const char broken_step[] = "DELETE FROM guests; SELECT 1 FROM nowhere";

static int enter(void **state)
{
    if (fixture_enter(state) != 0)
        return -1;
    fixture_firmware(*state, "ovmf", "ab");
    fixture_guest(*state, "ovmf", "web01");
    store_close(*state);
    *state = NULL;
    return 0;
}

static int64_t note_count(void)
{
    return fixture_integer("SELECT count(*) FROM guests WHERE note = 'of web01'");
}

static int64_t version(void)
{
    return fixture_integer("PRAGMA user_version");
}

static void runs_the_steps_after_a_backup(void **state)
{
    const char *const steps[] = {NULL, first_step, second_step};
    struct store_migration done;
    struct error err = {0};
    assert_ok(migrate(FIXTURE_STORE, steps, 3, &done, NULL, &err), err);
    cleanup_free char *backup = done.backup;
    assert_int_equal(done.from, 1);
    assert_int_equal(done.to, 3);
    assert_int_equal(version(), 3);
    assert_int_equal(note_count(), 1);

    struct store *store;
    assert_contains(backup, FIXTURE_STORE ".v1.");
    assert_ok(store_open(backup, 0, &store, &err), err);
    assert_int_equal(fixture_status(store).guests, 1);
    store_close(store);
    assert_error(store_open(FIXTURE_STORE, 0, &store, &err), -ENOTSUP, err,
                 FIXTURE_STORE ": the store is of version 3, this fwfs knows up to 1");

    assert_ok(migrate(FIXTURE_STORE, steps, 3, &done, NULL, &err), err);
    assert_int_equal(done.from, 3);
    assert_null(done.backup);
}

static void a_step_that_fails_changes_nothing(void **state)
{
    const char *const steps[] = {NULL, first_step, broken_step};
    struct store_migration done;
    struct error err = {0};
    assert_error(migrate(FIXTURE_STORE, steps, 3, &done, NULL, &err), -EIO, err,
                 "the store failed: no such table: nowhere");
    assert_null(done.backup);
    assert_int_equal(version(), 1);
    fixture_reopen(state, 0);
    assert_int_equal(fixture_status(*state).guests, 1);
    glob_t found;
    assert_int_equal(glob(FIXTURE_STORE ".v1.*", 0, NULL, &found), 0);
    assert_int_equal(found.gl_pathc, 1);
    globfree(&found);
}

static void an_older_store_is_not_opened(void **state)
{
    cleanup(db_closep) struct db *db = NULL;
    struct error err = {0};
    assert_ok(db_open(FIXTURE_STORE, DB_QUERY, &db, &err), err);
    assert_ok(schema_check(db, 1, &err), err);
    assert_error(schema_check(db, 2, &err), -ENOTSUP, err,
                 "the store is of version 1, this fwfs needs 2; run 'fwfs migrate'");
}

static void what_is_no_store_is_left_alone(void **state)
{
    struct store_migration done;
    struct error err = {0};
    fixture_sql("PRAGMA user_version = 0");
    assert_error(store_migrate(FIXTURE_STORE, &done, NULL, &err), -EINVAL, err,
                 "not an fwfs store: it has no schema");
}

int main(void)
{
#define with_store(test) cmocka_unit_test_setup_teardown(test, enter, fixture_leave)
    const struct CMUnitTest tests[] = {
        with_store(runs_the_steps_after_a_backup),
        with_store(a_step_that_fails_changes_nothing),
        with_store(an_older_store_is_not_opened),
        with_store(what_is_no_store_is_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
