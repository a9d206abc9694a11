/* Power cuts at any write, sync or truncation: the store opens, is sound, holds all that was
 * synced, and what else it holds is what was asked for first. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "faulty_vfs.h"
#include "scratch.h"
#include "store/db.h"
#include "store_dump.h"
#include "store_fixture.h"
#include "store_load.h"
#include "testing.h"

#define LOADS 25
#define CUTS_EACH 40
#define REQUESTS 40

static struct store *open_store(unsigned flags)
{
    struct store *store;
    struct error err = {0};
    assert_ok(store_open(FIXTURE_STORE, flags, &store, &err), err);
    return store;
}

static char *tell(struct store *store)
{
    char *told;
    struct error err = {0};
    assert_ok(store_dump(store, &told, &err), err);
    return told;
}

/* The file that each load begins with. */
static uint8_t *beginning;
static size_t beginning_size;

static int enter(void **state)
{
    if (fixture_enter(state) != 0)
        return -1;
    load_begin(*state);
    store_close(*state);
    *state = NULL;
    beginning = fixture_load(FIXTURE_STORE, &beginning_size);
    return access(FIXTURE_STORE "-wal", F_OK) == 0;
}

static int leave(void **state)
{
    free(beginning);
    return scratch_leave(state);
}

static void begin(void)
{
    unlink(FIXTURE_STORE "-wal");
    unlink(FIXTURE_STORE "-shm");
    scratch_write(FIXTURE_STORE, beginning, beginning_size);
}

/* ---- A load, as it goes without a cut ---- */

struct load {
    uint64_t seed;
    unsigned flags;
    unsigned kinds[REQUESTS + 1];
    int results[REQUESTS + 1];
    char *told[REQUESTS + 1]; /* after each request */
    uint64_t calls;
};

/* What is written goes through the log's other end now and then: the store is opened anew. */
static bool reopens(const struct load *load, unsigned request)
{
    uint64_t seed = load->seed * 1000 + request;
    fixture_random(&seed, 1);
    return fixture_random(&seed, 16) == 0;
}

static void play(struct load *load)
{
    begin();
    faulty_power_on();
    struct store *store = open_store(load->flags);
    load->told[0] = tell(store);
    for (unsigned i = 1; i <= REQUESTS; i++) {
        load->results[i] = load_request(store, load->kinds[i], load->seed, i, NULL);
        load->told[i] = tell(store);
        if (reopens(load, i)) {
            store_close(store);
            store = open_store(load->flags);
        }
    }
    load->calls = faulty_count();
    store_close(store);
    faulty_power_off(1);
}

static void make_load(struct load *load, uint64_t seed)
{
    *load = (struct load){.seed = seed, .flags = seed % 4 ? STORE_LAZY_SYNC : 0};
    uint64_t random = seed;
    for (unsigned i = 1; i <= REQUESTS; i++)
        load->kinds[i] = (unsigned)fixture_random(&random, load_kinds);
    play(load);
}

static void free_load(struct load *load)
{
    for (unsigned i = 0; i <= REQUESTS; i++)
        free(load->told[i]);
}

/* ---- The same with a cut ---- */

static int open_again(struct store **store, unsigned flags)
{
    store_close(*store);
    *store = NULL;
    return store_open(FIXTURE_STORE, flags, store, NULL);
}

/* Returns the last request that must survive, and in `begun` the last that may. */
static unsigned play_until_cut(const struct load *load, uint64_t nth, unsigned *begun)
{
    begin();
    faulty_power_on();
    faulty_cut_at(nth);
    struct store *store = open_store(load->flags);
    unsigned safe = 0, i = 1;
    for (; i <= REQUESTS; i++) {
        int r = load_request(store, load->kinds[i], load->seed, i, NULL);
        if (r != load->results[i])
            break;
        if (!(load->flags & STORE_LAZY_SYNC))
            safe = i;
        else if (fixture_random(&nth, 4) == 0 && store_sync(store, NULL) == 0)
            safe = i;
        if (reopens(load, i) && open_again(&store, load->flags) < 0)
            break;
    }
    *begun = i > REQUESTS ? REQUESTS : i;
    store_close(store);
    return safe;
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

static void assert_holds(const struct load *load, unsigned safe, unsigned begun, uint64_t nth)
{
    cleanup(store_closep) struct store *store = open_store(load->flags);
    cleanup_free char *told = tell(store);
    unsigned i = begun;
    while (i > safe && strcmp(told, load->told[i]) != 0)
        i--;
    if (strcmp(told, load->told[i]) != 0)
        fail_msg("load %llu, cut at call %llu: after none of the requests %u to %u is it\n%s",
                 (unsigned long long)load->seed, (unsigned long long)nth, safe, begun, told);
    assert_sound();
    /* And it goes on. */
    struct error err = {0};
    struct store_guest guest;
    if (store_guest_by_name(store, "web1", &guest, &err) == 0)
        assert_ok(store_flash_write(store, guest.flash.id, 0, "x", 1, 1, &err), err);
}

static void cut_one(const struct load *load, uint64_t nth, uint64_t seed)
{
    unsigned begun;
    unsigned safe = play_until_cut(load, nth, &begun);
    faulty_power_off(seed);
    unlink(FIXTURE_STORE "-shm");
    assert_holds(load, safe, begun, nth);
}

static void nothing_synced_is_lost(void **state)
{
    uint64_t seed = 1;
    for (unsigned i = 1; i <= LOADS; i++) {
        struct load load;
        make_load(&load, i);
        for (unsigned cut = 0; cut < CUTS_EACH; cut++)
            cut_one(&load, 1 + fixture_random(&seed, load.calls), i * CUTS_EACH + cut);
        free_load(&load);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(nothing_synced_is_lost, enter, leave),
    };
    faulty_install();
    return cmocka_run_group_tests_name("power_cut", tests, NULL, NULL);
}
