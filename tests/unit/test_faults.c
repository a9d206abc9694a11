/* Each call of a request to the disk, and each allocation, fails once, or from then on: the request
 * is done or not, and says which. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "faulty_vfs.h"
#include "scratch.h"
#include "store/internal.h"
#include "store_dump.h"
#include "store_fixture.h"
#include "store_load.h"
#include "testing.h"

#define LOG FIXTURE_STORE "-wal"
#define REQUESTS_MAX 64
#define DISK                                                                                       \
    (FAULTY_OPEN | FAULTY_READ | FAULTY_WRITE | FAULTY_SYNC | FAULTY_TRUNCATE | FAULTY_DELETE |    \
     FAULTY_MAP)

/* What the load gives on a sound disk: the store's file and what it tells, before any request and
 * after each. */
struct state {
    uint8_t *bytes;
    size_t size;
    char *told;
    int result;
};
static struct state states[REQUESTS_MAX + 1];

static struct store *open_store(void)
{
    struct store *store;
    struct error err = {0};
    assert_ok(store_open(FIXTURE_STORE, 0, &store, &err), err);
    return store;
}

static char *tell(struct store *store)
{
    char *told;
    struct error err = {0};
    assert_ok(store_dump(store, &told, &err), err);
    return told;
}

static void keep_state(struct state *state)
{
    state->bytes = fixture_load(FIXTURE_STORE, &state->size);
    assert_int_not_equal(access(LOG, F_OK), 0);
    cleanup(store_closep) struct store *store = open_store();
    state->told = tell(store);
}

static void put_state(const struct state *state)
{
    unlink(LOG);
    unlink(FIXTURE_STORE "-shm");
    scratch_write(FIXTURE_STORE, state->bytes, state->size);
}

static int enter(void **state)
{
    if (fixture_enter(state) != 0)
        return -1;
    load_begin(*state);
    store_close(*state);
    *state = NULL;
    keep_state(&states[0]);
    assert_true(load_kinds <= REQUESTS_MAX);
    for (unsigned i = 1; i <= load_kinds; i++) {
        {
            cleanup(store_closep) struct store *store = open_store();
            struct error err = {0};
            states[i].result = load_request(store, i - 1, 0, i, &err);
            /* A load that is refused would test little. */
            if (states[i].result < 0)
                fail_msg("request %u: %d, \"%s\"", i, states[i].result, err.text);
        }
        keep_state(&states[i]);
    }
    return 0;
}

static int leave(void **state)
{
    for (unsigned i = 0; i <= load_kinds; i++) {
        free(states[i].bytes);
        free(states[i].told);
    }
    return scratch_leave(state);
}

static bool is_fault(int r)
{
    return r == -EIO || r == -ENOMEM;
}

static void assert_tells(struct store *store, const char *right, unsigned request, uint64_t nth)
{
    cleanup_free char *told = tell(store);
    if (strcmp(told, right) != 0)
        fail_msg("request %u, call %llu: it tells\n%s\ninstead of\n%s", request,
                 (unsigned long long)nth, told, right);
}

static void assert_sound(void)
{
    cleanup(db_closep) struct db *db = NULL;
    sqlite3_stmt *stmt;
    struct error err = {0};
    assert_ok(db_open(FIXTURE_STORE, DB_QUERY, &db, &err), err);
    assert_int_equal(sqlite3_prepare_v2(db->handle, "PRAGMA integrity_check", -1, &stmt, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    assert_string_equal(sqlite3_column_text(stmt, 0), "ok");
    sqlite3_finalize(stmt);
}

/* What the files are at this moment is what a crash would leave. */
static void crash(struct store *store)
{
    struct state left = {.bytes = fixture_load(FIXTURE_STORE, &left.size)};
    size_t log_bytes = 0;
    cleanup_free uint8_t *log = access(LOG, F_OK) == 0 ? fixture_load(LOG, &log_bytes) : NULL;
    store_close(store);
    put_state(&left);
    if (log)
        scratch_write(LOG, log, log_bytes);
    free(left.bytes);
}

/* What is found after a request whose commit may have come to the log, but was not told of. */
static bool is_done_after_all(unsigned request, uint64_t nth)
{
    cleanup(store_closep) struct store *store = open_store();
    cleanup_free char *told = tell(store);
    if (strcmp(told, states[request].told) == 0)
        return true;
    assert_tells(store, states[request - 1].told, request, nth);
    return false;
}

static void assert_goes_on(unsigned request, int result, uint64_t nth, bool crashed)
{
    bool done = result == states[request].result;
    if (!done && crashed)
        done = is_done_after_all(request, nth);
    assert_sound();
    cleanup(store_closep) struct store *store = open_store();
    assert_tells(store, states[done ? request : request - 1].told, request, nth);
    if (done)
        return;
    assert_int_equal(load_request(store, request - 1, 0, request, NULL), states[request].result);
    assert_tells(store, states[request].told, request, nth);
}

/* Opens what the store opens once, so that it need not be opened in each of a thousand rounds. */
static void warm_up(struct store *store)
{
    cleanup_txn struct txn txn = {0};
    struct error err = {0};
    assert_ok(txn_begin(store, &txn, &err), err);
}

/* False when the request made fewer calls. */
static bool fail_one(unsigned request, unsigned kinds, uint64_t nth, bool stays)
{
    const struct state *right = &states[request];
    struct error err = {0};
    put_state(&states[request - 1]);
    struct store *store = open_store();
    if (kinds & FAULTY_ALLOCATE && request > 1)
        warm_up(store);
    faulty_fail(kinds, nth, stays);
    int r = load_request(store, request - 1, 0, request, &err);
    bool failed = faulty_stop();
    if (r != right->result && (!failed || !is_fault(r) || err.text[0] == '\0'))
        fail_msg("request %u, call %llu: %d, \"%s\"", request, (unsigned long long)nth, r,
                 err.text);
    assert_tells(store, states[r == right->result ? request : request - 1].told, request, nth);

    bool crashes = nth % 2;
    if (!crashes && r != right->result) {
        r = load_request(store, request - 1, 0, request, &err);
        if (r != right->result)
            fail_msg("request %u, call %llu, again: %d, \"%s\"", request, (unsigned long long)nth,
                     r, err.text);
    }
    if (crashes)
        crash(store);
    else
        store_close(store);
    /* What memory is short for is never on the disk. */
    if (!(kinds & FAULTY_ALLOCATE) || nth % 4 < 2)
        assert_goes_on(request, r, nth, crashes);
    return failed;
}

/* Every `step`th of the calls, in each request others. */
static void fail_all(unsigned kinds, bool stays, unsigned step)
{
    for (unsigned request = 1; request <= load_kinds; request++) {
        uint64_t nth = 1 + request % step;
        while (fail_one(request, kinds, nth, stays))
            nth += step;
    }
}

static void a_call_to_the_disk_fails(void **state)
{
    fail_all(DISK, false, 1);
}

static void the_disk_fails_for_good(void **state)
{
    fail_all(DISK, true, 1);
}

/* A request makes some hundreds, most of them to prepare the same statements; all would take
 * minutes. */
static void an_allocation_fails(void **state)
{
    fail_all(FAULTY_ALLOCATE, false, 23);
}

static void memory_is_out(void **state)
{
    fail_all(FAULTY_ALLOCATE, true, 37);
}

/* Whole or not at all, and nothing else is left. */
static bool create_one(unsigned kinds, uint64_t nth, bool stays)
{
    struct error err = {0};
    faulty_fail(kinds, nth, stays);
    int r = store_create(FIXTURE_STORE, &err);
    bool failed = faulty_stop();
    if (r < 0 && (!failed || !is_fault(r) || err.text[0] == '\0' || scratch_count(".") != 0))
        fail_msg("call %llu: %d, \"%s\", %zu files left", (unsigned long long)nth, r, err.text,
                 scratch_count("."));
    if (r == 0) {
        assert_int_equal(scratch_count("."), 1);
        cleanup(store_closep) struct store *store = open_store();
        load_begin(store);
    }
    if (r == 0)
        assert_int_equal(unlink(FIXTURE_STORE), 0);
    return failed;
}

static void a_store_is_made_or_not(void **state)
{
    static const unsigned kinds[] = {DISK, FAULTY_ALLOCATE};
    for (unsigned i = 0; i < 4; i++)
        for (uint64_t nth = 1; create_one(kinds[i / 2], nth, i % 2);)
            nth += i / 2 ? 7 : 1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_store_is_made_or_not, scratch_enter, scratch_leave),
        cmocka_unit_test_setup_teardown(a_call_to_the_disk_fails, enter, leave),
        cmocka_unit_test_setup_teardown(the_disk_fails_for_good, enter, leave),
        cmocka_unit_test_setup_teardown(an_allocation_fails, enter, leave),
        cmocka_unit_test_setup_teardown(memory_is_out, enter, leave),
    };
    faulty_install();
    return cmocka_run_group_tests_name("faults", tests, NULL, NULL);
}
