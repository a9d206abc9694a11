#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "store_fixture.h"
#include "testing.h"

#define TEMPLATE "aF0b0FcdAB"
#define BLOCKS 10
#define SIZE ((size_t)BLOCKS * STORE_BLOCK_SIZE)
#define POINTS_MAX 256
#define ROUNDS 200
#define NOW INT64_C(1700000000123456789)
#define GUEST "web01"

static const struct store_attr fresh = {.uid = 7, .gid = 8, .mode = 0600};
static const char *const guest_name = GUEST;

/* What the flash is, and was at each point that is known. */
struct model {
    struct store *store;
    int64_t guest;
    uint8_t now[SIZE], template[SIZE];
    size_t count;
    struct {
        int64_t id;
        uint8_t was[SIZE];
    } points[POINTS_MAX];
    uint64_t seed;
    int64_t handle;
};

static struct model *model_new(struct store *store, uint64_t seed)
{
    cleanup_free uint8_t *code = fixture_image("A");
    cleanup_free uint8_t *vars = fixture_image(TEMPLATE);
    struct store_firmware_spec spec = {.name = "split",
                                       .mode = FLASH_MODE_SPLIT,
                                       .executable = {code, STORE_BLOCK_SIZE},
                                       .nvram_template = {vars, SIZE},
                                       .descriptor = "{}"};
    struct model *model = calloc(1, sizeof *model);
    struct error err = {0};
    assert_ok(store_firmware_add(store, &spec, &err), err);
    model->store = store;
    model->guest = fixture_guest(store, "split", GUEST).id;
    model->seed = seed;
    memcpy(model->now, vars, SIZE);
    memcpy(model->template, vars, SIZE);
    return model;
}

static int64_t flash_of(const struct model *model)
{
    struct store_guest guest;
    struct error err = {0};
    assert_ok(store_guest_by_id(model->store, model->guest, &guest, &err), err);
    return guest.flash.id;
}

static int add_new_point(const struct store_point *point, void *data)
{
    struct model *model = data;
    for (size_t i = 0; i < model->count; i++)
        if (model->points[i].id == point->id)
            return 0;
    assert_true(model->count < POINTS_MAX);
    model->points[model->count].id = point->id;
    return 1;
}

/* Takes in the one point that a change may have made, which is of what was before. */
static void note_point(struct model *model, const uint8_t was[SIZE])
{
    struct error err = {0};
    int r = store_point_each(model->store, model->guest, add_new_point, model, &err);
    assert_true(r >= 0);
    if (r > 0)
        memcpy(model->points[model->count++].was, was, SIZE);
}

static void change_lease(struct model *model, enum store_change_kind kind)
{
    struct store_change change = {.kind = kind,
                                  .flash = flash_of(model),
                                  .lease = {.handle = model->handle,
                                            .opener = {.pid = 1, .command = "qemu"},
                                            .mountpoint = "/fw"}};
    struct error err = {0};
    assert_ok(store_apply(model->store, &change, 1, &err), err);
}

static void some_bytes(struct model *model, uint8_t *to, size_t length)
{
    static const uint8_t fills[] = {0x00, 0xFF, 0x55};
    uint64_t kind = fixture_random(&model->seed, 5);
    for (size_t i = 0; i < length; i++)
        to[i] = kind < 3 ? fills[kind] : (uint8_t)fixture_random(&model->seed, 256);
    if (kind == 4)
        memcpy(to, model->template + (to - model->now), length);
}

static void run_session(struct model *model)
{
    uint8_t before[SIZE];
    struct error err = {0};
    memcpy(before, model->now, SIZE);
    model->handle++;
    change_lease(model, STORE_CHANGE_LEASE_TAKE);
    for (uint64_t writes = fixture_random(&model->seed, 4); writes > 0; writes--) {
        size_t offset = fixture_random(&model->seed, SIZE);
        size_t length = 1 + fixture_random(&model->seed, 2 * STORE_BLOCK_SIZE);
        if (length > SIZE - offset)
            length = SIZE - offset;
        if (fixture_random(&model->seed, 3) > 0)
            some_bytes(model, model->now + offset, length);
        assert_ok(store_flash_write(model->store, flash_of(model), offset, model->now + offset,
                                    length, NOW, &err),
                  err);
    }
    change_lease(model, STORE_CHANGE_LEASE_DROP);
    /* A session that changed nothing made no point; one that changed back to it may have. */
    note_point(model, before);
}

static void take_snapshot(struct model *model)
{
    char name[32];
    struct error err = {0};
    snprintf(name, sizeof name, "s%lld", (long long)model->handle++);
    assert_ok(store_snapshot_add(model->store, GUEST, name, &err), err);
    note_point(model, model->now);
}

/* An edit may go to the point of the edit before. */
static void replace_flash(struct model *model)
{
    uint8_t before[SIZE];
    struct store_flash flash;
    struct error err = {0};
    memcpy(before, model->now, SIZE);
    switch (fixture_random(&model->seed, 3)) {
    case 0:
        assert_ok(store_vars_unlink(model->store, model->guest, &err), err);
        assert_ok(store_vars_create(model->store, model->guest, &fresh, &err), err);
        memcpy(model->now, model->template, SIZE);
        break;
    case 1:
        assert_ok(store_guest_reset(model->store, &guest_name, 1, &err), err);
        memcpy(model->now, model->template, SIZE);
        break;
    default:
        some_bytes(model, model->now, SIZE);
        assert_ok(store_staging_create(model->store, model->guest, "new", &fresh, &err), err);
        assert_ok(store_staging_find(model->store, model->guest, "new", &flash, &err), err);
        assert_ok(store_flash_write(model->store, flash.id, 0, model->now, SIZE, NOW, &err), err);
        assert_ok(store_staging_adopt(model->store, model->guest, "new", true, &err), err);
    }
    note_point(model, before);
}

static const char *name_of(const struct model *model, size_t i, struct store_point *point)
{
    struct error err = {0};
    assert_ok(store_point_get(model->store, model->points[i].id, point, &err), err);
    return point->name;
}

static void go_back(struct model *model)
{
    uint8_t before[SIZE];
    struct store_point point;
    struct error err = {0};
    if (model->count == 0)
        return;
    size_t i = fixture_random(&model->seed, model->count);
    memcpy(before, model->now, SIZE);
    assert_ok(store_point_restore(model->store, GUEST, name_of(model, i, &point), &err), err);
    memcpy(model->now, model->points[i].was, SIZE);
    note_point(model, before);
}

static void drop_a_point(struct model *model)
{
    struct store_point point;
    struct error err = {0};
    if (model->count == 0)
        return;
    size_t i = fixture_random(&model->seed, model->count);
    assert_ok(store_point_remove(model->store, GUEST, name_of(model, i, &point), &err), err);
    assert_error(store_point_remove(model->store, GUEST, point.name, &err), -ENOENT, err,
                 "guest 'web01': there is no");
    model->points[i] = model->points[--model->count];
}

static void assert_as_model(const struct model *model)
{
    uint8_t found[SIZE + 1];
    struct error err = {0};
    assert_int_equal(store_flash_read(model->store, flash_of(model), 0, found, SIZE, &err), SIZE);
    assert_memory_equal(found, model->now, SIZE);
    for (size_t i = 0; i < model->count; i++) {
        assert_int_equal(
            store_point_read(model->store, model->points[i].id, 0, found, sizeof found, &err),
            SIZE);
        assert_memory_equal(found, model->points[i].was, SIZE);
        assert_int_equal(
            store_point_read(model->store, model->points[i].id, 4000, found, 200, &err), 200);
        assert_memory_equal(found, model->points[i].was + 4000, 200);
    }
}

static void every_point_stays_what_it_was(void **state)
{
    static const struct store_retention all = {1000, 1000, 1000, UINT64_C(1) << 40};
    struct error err = {0};
    assert_ok(store_set_retention(*state, &all, &err), err);
    cleanup_free struct model *model = model_new(*state, 7);
    for (int round = 0; round < ROUNDS; round++) {
        switch (fixture_random(&model->seed, 8)) {
        case 0:
            take_snapshot(model);
            break;
        case 1:
            replace_flash(model);
            break;
        case 2:
            go_back(model);
            break;
        case 3:
        case 4:
            drop_a_point(model);
            break;
        default:
            run_session(model);
        }
        if (fixture_random(&model->seed, 4) == 0)
            while (store_maintain(*state, NULL) > 0)
                ;
        assert_as_model(model);
    }
    assert_true(model->count > 10);
    assert_ok(store_forget_mount(*state, &err), err);
    assert_ok(store_guest_purge(*state, &guest_name, 1, &err), err);
    assert_int_equal(fixture_status(*state).private_blocks, 0);
    assert_int_equal(fixture_integer("SELECT count(*) FROM points"), 0);
}

static int count_kind(const struct store_point *point, void *data)
{
    unsigned *counts = data;
    counts[point->kind]++;
    return 0;
}

static void no_more_is_kept_than_wanted(void **state)
{
    /* Today is a day too. */
    static const struct store_retention few = {.sessions = 3, .edits = 2, .days = 1, .bytes = 1e9};
    static const struct store_retention nothing = {0};
    unsigned counts[3] = {0};
    struct error err = {0};
    assert_ok(store_set_retention(*state, &few, &err), err);
    cleanup_free struct model *model = model_new(*state, 3);
    assert_ok(store_snapshot_add(*state, GUEST, "mine", &err), err);
    for (uint8_t i = 0; i < 20; i++) {
        model->handle++;
        change_lease(model, STORE_CHANGE_LEASE_TAKE);
        assert_ok(store_flash_write(*state, flash_of(model), 0, &i, 1, NOW, &err), err);
        change_lease(model, STORE_CHANGE_LEASE_DROP);
        assert_ok(store_point_restore(*state, GUEST, "mine", &err), err);
    }
    assert_ok(store_point_each(*state, model->guest, count_kind, counts, &err), err);
    assert_int_equal(counts[STORE_POINT_SESSION], 3);
    assert_int_equal(counts[STORE_POINT_EDIT], 2);
    assert_int_equal(counts[STORE_POINT_SNAPSHOT], 1);

    assert_ok(store_set_retention(*state, &nothing, &err), err);
    /* But for the one that is being written to. */
    assert_ok(store_point_restore(*state, GUEST, "mine", &err), err);
    memset(counts, 0, sizeof counts);
    assert_ok(store_point_each(*state, model->guest, count_kind, counts, &err), err);
    assert_int_equal(counts[STORE_POINT_SESSION], 0);
    assert_int_equal(counts[STORE_POINT_EDIT], 1);
    assert_int_equal(counts[STORE_POINT_SNAPSHOT], 1);
    assert_as_model(model);
}

static void what_changes_nothing_leaves_no_point(void **state)
{
    cleanup_free struct model *model = model_new(*state, 1);
    struct error err = {0};
    model->handle = 1;
    change_lease(model, STORE_CHANGE_LEASE_TAKE);
    assert_ok(store_flash_write(*state, flash_of(model), 0, model->now, SIZE, NOW, &err), err);
    change_lease(model, STORE_CHANGE_LEASE_DROP);
    assert_int_equal(fixture_integer("SELECT count(*) FROM points"), 0);
    assert_int_equal(fixture_status(*state).private_blocks, 0);
}

static void names_of_points(void **state)
{
    cleanup_free struct model *model = model_new(*state, 1);
    struct store_point point;
    struct error err = {0};
    assert_ok(store_snapshot_add(*state, GUEST, "mine", &err), err);
    assert_error(store_snapshot_add(*state, GUEST, "mine", &err), -EEXIST, err,
                 "guest 'web01' has");
    assert_error(store_snapshot_add(*state, "none", "mine", &err), -ENOENT, err,
                 "there is no guest");
    assert_error(store_snapshot_add(*state, GUEST, "session-1", &err), -EINVAL, err,
                 "a snapshot's");
    assert_error(store_snapshot_add(*state, GUEST, ".x", &err), -EINVAL, err, "a snapshot's");
    static const char *const wrong[] = {"none", "session-1", "edit-1", "session-", "session-x"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_error(store_point_find(*state, model->guest, wrong[i], &point, &err), -ENOENT, err,
                     "there is no restore point");
    assert_error(store_point_restore(*state, GUEST, "none", &err), -ENOENT, err, "guest 'web01': ");
}

static void a_removed_guest_comes_back(void **state)
{
    cleanup_free struct model *model = model_new(*state, 1);
    struct error err = {0};
    run_session(model);
    take_snapshot(model);
    assert_ok(store_guest_remove(*state, &guest_name, 1, &err), err);
    assert_error(store_guest_reset(*state, &guest_name, 1, &err), -ENOENT, err,
                 "there is no guest");
    assert_error(store_firmware_remove(*state, "split", &err), -EBUSY, err, "firmware 'split' was");
    struct store_guest other = fixture_guest(*state, "split", GUEST);
    assert_error(store_guest_undelete(*state, GUEST, &err), -EEXIST, err, "there is a guest");
    assert_ok(store_guest_remove(*state, &guest_name, 1, &err), err);
    /* The last one first. */
    assert_ok(store_guest_undelete(*state, GUEST, &err), err);
    struct store_guest found;
    assert_ok(store_guest_by_name(*state, GUEST, &found, &err), err);
    assert_int_equal(found.id, other.id);
    assert_ok(store_guest_rename(*state, GUEST, "other", &err), err);
    assert_ok(store_guest_undelete(*state, GUEST, &err), err);
    assert_as_model(model);
    assert_error(store_guest_undelete(*state, GUEST, &err), -ENOENT, err, "no guest 'web01' was");
}

static void what_was_removed_goes_in_the_end(void **state)
{
    cleanup_free struct model *model = model_new(*state, 1);
    struct error err = {0};
    run_session(model);
    run_session(model);
    assert_ok(store_guest_remove(*state, &guest_name, 1, &err), err);
    while (store_maintain(*state, NULL) > 0)
        ;
    assert_int_equal(fixture_integer("SELECT count(*) FROM removed_guests"), 1);
    fixture_sql("UPDATE removed_guests SET removed_at = removed_at - 7 * 86400 - 1");
    while (store_maintain(*state, NULL) > 0)
        ;
    assert_int_equal(fixture_integer("SELECT count(*) FROM removed_guests"), 0);
    assert_int_equal(fixture_integer("SELECT count(*) FROM flashes"), 0);
    assert_int_equal(fixture_status(*state).private_blocks, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_point_stays_what_it_was, fixture_enter,
                                        fixture_leave),
        cmocka_unit_test_setup_teardown(no_more_is_kept_than_wanted, fixture_enter, fixture_leave),
        cmocka_unit_test_setup_teardown(what_changes_nothing_leaves_no_point, fixture_enter,
                                        fixture_leave),
        cmocka_unit_test_setup_teardown(names_of_points, fixture_enter, fixture_leave),
        cmocka_unit_test_setup_teardown(a_removed_guest_comes_back, fixture_enter, fixture_leave),
        cmocka_unit_test_setup_teardown(what_was_removed_goes_in_the_end, fixture_enter,
                                        fixture_leave),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
