#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "scratch.h"
#include "store/db.h"
#include "store_fixture.h"
#include "testing.h"

/* ---- Syncs, seen and steered ---- */

static struct {
    atomic_int count;
    atomic_bool fails, waits;
    sem_t began, may_end;
} disk;

static int sync_disk(long call, int fd)
{
    disk.count++;
    if (disk.waits) {
        sem_post(&disk.began);
        sem_wait(&disk.may_end);
    }
    if (disk.fails) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(call, fd);
}

/* In place of the C library's: SQLite calls these. */
int fdatasync(int fd)
{
    return sync_disk(SYS_fdatasync, fd);
}

int fsync(int fd)
{
    return sync_disk(SYS_fsync, fd);
}

static int64_t flash_of(struct store *store)
{
    struct store_guest guest;
    struct error err = {0};
    assert_ok(store_guest_by_name(store, "web01", &guest, &err), err);
    return guest.flash.id;
}

static int enter(void **state)
{
    if (fixture_enter(state) != 0)
        return -1;
    fixture_firmware(*state, "ovmf", "aAbB0F");
    fixture_guest(*state, "ovmf", "web01");
    sem_init(&disk.began, 0, 0);
    sem_init(&disk.may_end, 0, 0);
    return store_sync(*state, NULL);
}

static int leave(void **state)
{
    disk.fails = disk.waits = false;
    return fixture_leave(state);
}

static void change(struct store *store)
{
    static atomic_int value;
    int now = ++value;
    struct error err = {0};
    assert_ok(store_flash_write(store, flash_of(store), 0, &now, sizeof now, now, &err), err);
}

static void *sync_thread(void *store)
{
    return (void *)(intptr_t)store_sync(store, NULL);
}

static void syncs_what_changed_once(void **state)
{
    struct error err = {0};
    int before = disk.count;
    change(*state);
    change(*state);
    assert_int_equal(disk.count, before);
    assert_ok(store_sync(*state, &err), err);
    assert_int_equal(disk.count, before + 1);
    assert_ok(store_sync(*state, &err), err);
    assert_int_equal(disk.count, before + 1);
    change(*state);
    assert_ok(store_sync(*state, &err), err);
    assert_int_equal(disk.count, before + 2);
}

static void without_lazy_sync_each_change_is_durable(void **state)
{
    fixture_reopen(state, 0);
    change(*state);
    int before = disk.count;
    change(*state);
    assert_int_equal(disk.count, before + 1);
}

static void a_failed_sync_is_told_and_tried_again(void **state)
{
    struct error err = {0};
    change(*state);
    disk.fails = true;
    assert_error(store_sync(*state, &err), -EIO, err,
                 "the store's log could not be synced to the disk");
    assert_int_equal(store_sync(*state, &err), -EIO);
    disk.fails = false;
    int before = disk.count;
    assert_ok(store_sync(*state, &err), err);
    assert_int_equal(disk.count, before + 1);
}

static bool begins_within(int seconds)
{
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += seconds;
    return sem_timedwait(&disk.began, &end) == 0;
}

/* A sync that began before a change says nothing of it; all who came meanwhile share the next. */
static void who_comes_during_a_sync_waits_for_the_next(void **state)
{
    pthread_t first, later[8];
    void *result;
    change(*state);
    int before = disk.count;
    disk.waits = true;
    assert_int_equal(pthread_create(&first, NULL, sync_thread, *state), 0);
    assert_true(begins_within(60));
    change(*state);
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(pthread_create(&later[i], NULL, sync_thread, *state), 0);
    nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
    assert_int_equal(disk.count, before + 1);

    sem_post(&disk.may_end);
    assert_int_equal(pthread_join(first, &result), 0);
    assert_null(result);
    assert_true(begins_within(60));
    sem_post(&disk.may_end);
    for (size_t i = 0; i < 8; i++) {
        assert_int_equal(pthread_join(later[i], &result), 0);
        assert_null(result);
    }
    assert_int_equal(disk.count, before + 2);
}

static void what_changed_during_a_sync_needs_another(void **state)
{
    pthread_t thread;
    change(*state);
    int before = disk.count;
    disk.waits = true;
    assert_int_equal(pthread_create(&thread, NULL, sync_thread, *state), 0);
    assert_true(begins_within(60));
    change(*state);
    disk.waits = false;
    sem_post(&disk.may_end);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(disk.count, before + 1);
    assert_int_equal(store_sync(*state, NULL), 0);
    assert_int_equal(disk.count, before + 2);
}

static void *change_and_sync(void *store)
{
    for (int i = 0; i < 50; i++) {
        change(store);
        if (store_sync(store, NULL) < 0)
            return store;
    }
    return NULL;
}

static void many_threads_sync(void **state)
{
    pthread_t threads[16];
    void *result;
    int before = disk.count;
    for (size_t i = 0; i < 16; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, change_and_sync, *state), 0);
    for (size_t i = 0; i < 16; i++) {
        assert_int_equal(pthread_join(threads[i], &result), 0);
        assert_null(result);
    }
    assert_in_range(disk.count - before, 1, 16 * 50);
    before = disk.count;
    assert_int_equal(store_sync(*state, NULL), 0);
    assert_int_equal(disk.count, before);
}

/* ---- Threads ---- */

#define WRITERS 4
#define ROUNDS 100
/* Across two block borders; each write is of one value throughout. */
#define STRIPE_OFFSET 4000
#define STRIPE_LENGTH 4300

struct workers {
    struct store *store;
    int64_t flashes[WRITERS];
    atomic_int number, writing, failures;
};

static void *write_stripes(void *data)
{
    struct workers *workers = data;
    int me = workers->number++;
    uint8_t stripe[STRIPE_LENGTH];
    for (int i = 1; i <= ROUNDS; i++) {
        memset(stripe, i, sizeof stripe);
        workers->failures += store_flash_write(workers->store, workers->flashes[me], STRIPE_OFFSET,
                                               stripe, sizeof stripe, i, NULL) != 0;
        if (i % 10 == 0)
            workers->failures += store_maintain(workers->store, NULL) < 0;
    }
    workers->writing--;
    return NULL;
}

/* All of a write is seen, or nothing of it, and never an older one after a newer. */
static void *read_stripes(void *data)
{
    struct workers *workers = data;
    uint8_t stripe[STRIPE_LENGTH], last[WRITERS] = {0};
    while (workers->writing > 0) {
        for (int i = 0; i < WRITERS; i++) {
            ssize_t n = store_flash_read(workers->store, workers->flashes[i], STRIPE_OFFSET, stripe,
                                         sizeof stripe, NULL);
            bool whole = n == sizeof stripe && memcmp(stripe, stripe + 1, sizeof stripe - 1) == 0;
            workers->failures += !whole || stripe[0] < last[i];
            last[i] = stripe[0];
        }
    }
    return NULL;
}

static void threads_share_a_store(void **state)
{
    static const char *const names[WRITERS] = {"a", "b", "c", "d"};
    struct workers workers = {.store = *state, .writing = WRITERS};
    pthread_t threads[2 * WRITERS];
    fixture_firmware(*state, "zeros", "0000");
    for (size_t i = 0; i < WRITERS; i++)
        workers.flashes[i] = fixture_guest(*state, "zeros", names[i]).flash.id;
    for (size_t i = 0; i < 2 * WRITERS; i++)
        assert_int_equal(
            pthread_create(&threads[i], NULL, i % 2 ? read_stripes : write_stripes, &workers), 0);
    for (size_t i = 0; i < 2 * WRITERS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(workers.failures, 0);
    for (size_t i = 0; i < WRITERS; i++) {
        uint8_t byte;
        assert_int_equal(
            store_flash_read(*state, workers.flashes[i], STRIPE_OFFSET, &byte, 1, NULL), 1);
        assert_int_equal(byte, ROUNDS);
    }
}

/* ---- Processes ---- */

#define PROCESSES 3
#define SLOTS 200

/* Writes a byte of each slot of the same blocks as all the others: none may be lost. */
static void write_slots(int me, int64_t flash)
{
    cleanup(store_closep) struct store *store = NULL;
    char name[] = {(char)('a' + me), '\0'};
    const char *const names[] = {name};
    const struct store_attr attr = {.mode = 0600};
    if (store_open(FIXTURE_STORE, STORE_LAZY_SYNC, &store, NULL) < 0 ||
        store_guest_add(store, "ovmf", names, 1, &attr, NULL) < 0)
        _exit(1);
    for (int i = 0; i < SLOTS; i++) {
        uint8_t byte = (uint8_t)(i + me);
        uint64_t offset = (uint64_t)(PROCESSES * i + me);
        if (store_flash_write(store, flash, offset, &byte, 1, 1, NULL) < 0 ||
            (i % 20 == 0 && store_maintain(store, NULL) < 0))
            _exit(2);
    }
}

static void processes_share_a_store(void **state)
{
    int64_t flash = flash_of(*state);
    pid_t children[PROCESSES];
    store_close(*state);
    *state = NULL;
    for (int i = 0; i < PROCESSES; i++) {
        children[i] = fork();
        assert_true(children[i] >= 0);
        if (children[i] == 0) {
            write_slots(i, flash);
            _exit(0);
        }
    }
    for (int i = 0; i < PROCESSES; i++) {
        int status;
        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        assert_int_equal(status, 0);
    }
    fixture_reopen(state, 0);
    uint8_t bytes[PROCESSES * SLOTS];
    struct error err = {0};
    assert_int_equal(store_flash_read(*state, flash, 0, bytes, sizeof bytes, &err), sizeof bytes);
    for (int i = 0; i < PROCESSES * SLOTS; i++)
        assert_int_equal(bytes[i], (uint8_t)(i / PROCESSES + i % PROCESSES));
    assert_int_equal(fixture_status(*state).guests, 1 + PROCESSES);
}

static void a_killed_writer_loses_nothing(void **state)
{
    int64_t flash = flash_of(*state);
    store_close(*state);
    *state = NULL;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct store *store;
        _exit(store_open(FIXTURE_STORE, STORE_LAZY_SYNC, &store, NULL) < 0 ||
              store_flash_write(store, flash, 4090, "survives", 8, 1, NULL) < 0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    fixture_reopen(state, STORE_READ_ONLY);
    char bytes[8];
    struct error err = {0};
    assert_int_equal(store_flash_read(*state, flash, 4090, bytes, 8, &err), 8);
    assert_memory_equal(bytes, "survives", 8);
}

/* Its changes reached the log, but not the disk. */
static void a_killed_writers_changes_are_synced_too(void **state)
{
    int64_t flash = flash_of(*state);
    store_close(*state);
    *state = NULL;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct store *store;
        _exit(store_open(FIXTURE_STORE, STORE_LAZY_SYNC, &store, NULL) < 0 ||
              store_flash_write(store, flash, 0, "x", 1, 1, NULL) < 0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    fixture_reopen(state, STORE_LAZY_SYNC);
    struct error err = {0};
    int before = disk.count;
    assert_ok(store_sync(*state, &err), err);
    assert_true(disk.count > before);
}

/* ---- Nothing stays behind ---- */

static int stop(const struct store_guest *guest, void *data)
{
    return 1;
}

static int stop_firmware(const struct store_firmware *firmware, void *data)
{
    return 1;
}

/* All that reads, and all that fails, so that a forgotten statement would pin the log. */
static void use_everything(struct store *store)
{
    int64_t flash = flash_of(store);
    uint8_t bytes[2 * STORE_BLOCK_SIZE];
    char *descriptor = NULL;
    uint64_t count;
    struct store_image image;
    struct store_firmware firmware;
    struct store_guest guest;
    struct store_usage usage;
    const char *name = "web01";
    const struct store_attr attr = {0};
    struct error err = {0};
    assert_int_equal(store_flash_read(store, flash, 100, bytes, 4096, &err), 4096);
    assert_int_equal(store_image_read(store, 1, 100, bytes, 4096, &err), 4096);
    assert_int_equal(store_image_read(store, 2, 0, bytes, 1, &err), -ENOENT);
    assert_int_equal(store_image_get(store, 2, &image, &err), -ENOENT);
    assert_ok(store_flash_usage(store, flash, &usage, &err), err);
    assert_ok(store_firmware_get(store, "ovmf", &firmware, &err), err);
    assert_int_equal(store_firmware_get(store, "none", &firmware, &err), -ENOENT);
    assert_ok(store_firmware_guests(store, 1, &count, &err), err);
    assert_ok(store_firmware_descriptor(store, 1, &descriptor, &err), err);
    free(descriptor);
    assert_int_equal(store_firmware_remove(store, "ovmf", &err), -EBUSY);
    assert_int_equal(store_firmware_each(store, stop_firmware, NULL, &err), 1);
    assert_ok(store_guest_by_id(store, 1, &guest, &err), err);
    assert_int_equal(store_guest_by_id(store, 9, &guest, &err), -ENOENT);
    assert_int_equal(store_guest_add(store, "ovmf", &name, 1, &attr, &err), -EEXIST);
    assert_int_equal(store_guest_rename(store, "none", "a", &err), -ENOENT);
    assert_int_equal(store_guest_each(store, STORE_GUESTS_BY_ID, 0, stop, NULL, &err), 1);
    assert_int_equal(store_guest_each(store, STORE_GUESTS_BY_NAME, 0, stop, NULL, &err), 1);
    assert_int_equal(store_flash_write(store, flash, 6 * 4096, "x", 1, 1, &err), -EFBIG);
    assert_ok(store_flash_set_attr(store, flash, STORE_ATTR_UID, &attr, &err), err);
    assert_true(store_maintain(store, &err) >= 0);
    assert_ok(store_sync(store, &err), err);
    fixture_status(store);
}

static void assert_log_can_be_emptied(void)
{
    cleanup(db_closep) struct db *db = NULL;
    struct error err = {0};
    int frames, done;
    assert_ok(db_open(FIXTURE_STORE, DB_WRITE, &db, &err), err);
    sqlite3_busy_timeout(db->handle, 0);
    assert_int_equal(
        sqlite3_wal_checkpoint_v2(db->handle, NULL, SQLITE_CHECKPOINT_TRUNCATE, &frames, &done),
        SQLITE_OK);
    size_t size;
    free(fixture_load(FIXTURE_STORE "-wal", &size));
    assert_int_equal(size, 0);
}

static void nothing_pins_the_log(void **state)
{
    for (int i = 0; i < 3; i++) {
        change(*state);
        use_everything(*state);
        assert_log_can_be_emptied();
    }
    change(*state);
    fixture_sql("UPDATE flash_blocks SET checksum = 0");
    uint8_t byte;
    assert_int_equal(store_flash_read(*state, flash_of(*state), 0, &byte, 1, NULL), -EUCLEAN);
    assert_log_can_be_emptied();
}

int main(void)
{
#define with_store(test) cmocka_unit_test_setup_teardown(test, enter, leave)
    const struct CMUnitTest tests[] = {
        with_store(syncs_what_changed_once),
        with_store(without_lazy_sync_each_change_is_durable),
        with_store(a_failed_sync_is_told_and_tried_again),
        with_store(who_comes_during_a_sync_waits_for_the_next),
        with_store(what_changed_during_a_sync_needs_another),
        with_store(many_threads_sync),
        with_store(threads_share_a_store),
        with_store(processes_share_a_store),
        with_store(a_killed_writer_loses_nothing),
        with_store(a_killed_writers_changes_are_synced_too),
        with_store(nothing_pins_the_log),
    };
    return cmocka_run_group_tests_name("concurrency", tests, NULL, NULL);
}
