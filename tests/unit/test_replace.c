#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "store_fixture.h"
#include "testing.h"

#define TEMPLATE "aF0b0Fcd"
#define BLOCKS 8
#define SIZE ((size_t)BLOCKS * STORE_BLOCK_SIZE)
#define ROUNDS 300
#define NOW INT64_C(1700000000123456789)

static const struct store_attr fresh = {.uid = 7, .gid = 8, .mode = 0600};

/* A split guest whose template is TEMPLATE. */
static struct store_guest split_guest(struct store *store)
{
    cleanup_free uint8_t *code = fixture_image("A");
    cleanup_free uint8_t *vars = fixture_image(TEMPLATE);
    struct store_firmware_spec spec = {.name = "split",
                                       .mode = FLASH_MODE_SPLIT,
                                       .executable = {code, STORE_BLOCK_SIZE},
                                       .nvram_template = {vars, SIZE},
                                       .descriptor = "{}"};
    struct error err = {0};
    assert_ok(store_firmware_add(store, &spec, &err), err);
    return fixture_guest(store, "split", "web01");
}

static struct store_flash stage(struct store *store, int64_t guest, const char *name)
{
    struct store_flash flash;
    struct error err = {0};
    assert_ok(store_staging_create(store, guest, name, &fresh, &err), err);
    assert_ok(store_staging_find(store, guest, name, &flash, &err), err);
    return flash;
}

static bool is_zero(const uint8_t *block)
{
    return block[0] == 0 && memcmp(block, block + 1, STORE_BLOCK_SIZE - 1) == 0;
}

/* The bytes, and where they and the holes among them are. */
static void assert_is(struct store *store, int64_t flash, const uint8_t *bytes, size_t size)
{
    uint8_t found[SIZE];
    struct store_flash got;
    struct error err = {0};
    assert_ok(store_flash_get(store, flash, &got, &err), err);
    assert_int_equal(got.size, size);
    assert_int_equal(store_flash_read(store, flash, 0, found, sizeof found, &err), size);
    assert_memory_equal(found, bytes, size);

    int64_t data = -ENXIO, hole = (int64_t)size;
    for (int64_t i = (int64_t)((size + STORE_BLOCK_SIZE - 1) / STORE_BLOCK_SIZE) - 1; i >= 0; i--) {
        int64_t *next = is_zero(bytes + i * STORE_BLOCK_SIZE) ? &hole : &data;
        *next = i * STORE_BLOCK_SIZE;
        uint64_t from = (uint64_t)*next;
        assert_int_equal(store_flash_seek(store, flash, from, false, &err), data);
        assert_int_equal(store_flash_seek(store, flash, from, true, &err), hole);
    }
    assert_int_equal(store_flash_seek(store, flash, size, true, &err), -ENXIO);
}

static void a_staging_file_is_a_file(void **state)
{
    struct store_guest guest = split_guest(*state);
    int64_t flash = stage(*state, guest.id, "new").id;
    uint8_t model[SIZE] = {0};
    size_t size = 0;
    uint64_t seed = 1;
    struct error err = {0};
    for (int round = 0; round < ROUNDS; round++) {
        size_t offset = fixture_random(&seed, SIZE);
        size_t length = 1 + fixture_random(&seed, SIZE - offset);
        if (fixture_random(&seed, 4) == 0) {
            assert_ok(store_flash_truncate(*state, flash, offset, NOW, &err), err);
            if (offset < size)
                memset(model + offset, 0, size - offset);
            size = offset;
        } else {
            if (length > 2 * STORE_BLOCK_SIZE)
                length = 2 * STORE_BLOCK_SIZE;
            memset(model + offset, fixture_random(&seed, 3) ? round & 0xff : 0, length);
            assert_ok(store_flash_write(*state, flash, offset, model + offset, length, NOW, &err),
                      err);
            size = offset + length > size ? offset + length : size;
        }
        assert_is(*state, flash, model, size);
    }
    assert_error(store_flash_truncate(*state, flash, SIZE + 1, NOW, &err), -EFBIG, err,
                 "a staging");
    assert_error(store_flash_write(*state, flash, SIZE - 1, "ab", 2, NOW, &err), -EFBIG, err,
                 "flash");
}

static void what_is_adopted_keeps_its_bytes(void **state)
{
    /* The template's own blocks, fill in place of data and data in place of fill, and a hole. */
    cleanup_free uint8_t *bytes = fixture_image("aF0bF0c0");
    struct store_guest guest = split_guest(*state), after;
    struct store_flash staged = stage(*state, guest.id, "new");
    struct store_usage usage;
    struct error err = {0};
    assert_ok(store_flash_write(*state, staged.id, 0, bytes, SIZE - 1, NOW, &err), err);
    assert_error(store_staging_adopt(*state, guest.id, "new", true, &err), -EINVAL, err, "'new'");
    assert_ok(store_flash_truncate(*state, staged.id, SIZE, NOW, &err), err);
    assert_error(store_staging_adopt(*state, guest.id, "new", false, &err), -EEXIST, err, "there");
    assert_ok(store_staging_adopt(*state, guest.id, "new", true, &err), err);

    assert_ok(store_guest_by_id(*state, guest.id, &after, &err), err);
    assert_int_equal(after.flash.id, staged.id);
    assert_false(after.flash.staging);
    assert_is(*state, staged.id, bytes, SIZE);
    assert_ok(store_flash_usage(*state, staged.id, &usage, &err), err);
    assert_int_equal(usage.delta_blocks, 3);
    assert_error(store_staging_find(*state, guest.id, "new", &staged, &err), -ENOENT, err, "there");

    /* What it replaced is there until nobody wants it. */
    int64_t orphans[2];
    assert_int_equal(store_orphan_list(*state, orphans, 2, &err), 1);
    assert_int_equal(orphans[0], guest.flash.id);
    assert_ok(store_orphan_remove(*state, guest.flash.id, &err), err);
    assert_error(store_flash_get(*state, guest.flash.id, &staged, &err), -ENOENT, err, "there");
}

static void vars_is_unlinked_and_made_again(void **state)
{
    cleanup_free uint8_t *template = fixture_image(TEMPLATE);
    struct store_guest guest = split_guest(*state), after;
    struct error err = {0};
    assert_error(store_vars_create(*state, guest.id, &fresh, &err), -EEXIST, err, "there");
    assert_ok(store_flash_write(*state, guest.flash.id, 0, "x", 1, NOW, &err), err);
    assert_ok(store_vars_unlink(*state, guest.id, &err), err);
    assert_error(store_vars_unlink(*state, guest.id, &err), -ENOENT, err, "there");
    assert_ok(store_guest_by_id(*state, guest.id, &after, &err), err);
    assert_true(after.vars_removed);
    assert_int_equal(after.flash.attr.uid, guest.flash.attr.uid);
    assert_ok(store_vars_create(*state, guest.id, &fresh, &err), err);
    assert_ok(store_guest_by_id(*state, guest.id, &after, &err), err);
    assert_false(after.vars_removed);
    assert_int_equal(after.flash.attr.uid, fresh.uid);
    assert_is(*state, after.flash.id, template, SIZE);
}

/* ---- Leases ---- */

static int change_lease(struct store *store, enum store_change_kind kind, int64_t flash,
                        int64_t handle, int64_t pid, uint16_t version, bool *held)
{
    struct store_change change = {
        .kind = kind,
        .flash = flash,
        .lease = {.handle = handle,
                  .version = version,
                  .opener = {.pid = pid, .command = "qemu"},
                  .mountpoint = "/fw"},
    };
    int r = store_apply(store, &change, 1, NULL);
    *held = change.held;
    return r;
}

static void a_lease_counts_once(void **state)
{
    const enum store_change_kind take = STORE_CHANGE_LEASE_TAKE, drop = STORE_CHANGE_LEASE_DROP;
    struct store_guest guest = split_guest(*state);
    int64_t flash = guest.flash.id;
    struct store_holder holder;
    struct error err = {0};
    const char *name = "web01";
    bool held;
    assert_int_equal(change_lease(*state, take, flash, 10, 100, 0, &held), 0);
    assert_int_equal(change_lease(*state, take, flash, 10, 100, 0, &held), 0);
    assert_int_equal(change_lease(*state, take, flash, 11, 101, 0, &held), -ETXTBSY);
    assert_int_equal(change_lease(*state, take, flash, 12, 100, 1, &held), 0);
    assert_true(held);

    assert_int_equal(store_lease_get(*state, flash, &holder, &err), 1);
    assert_int_equal(holder.opener.pid, 100);
    assert_string_equal(holder.mountpoint, "/fw");
    assert_error(store_guest_remove(*state, &name, 1, &err), -ETXTBSY, err, "guest 'web01'");
    assert_error(store_guest_reset(*state, &name, 1, &err), -ETXTBSY, err, "guest 'web01'");
    assert_error(store_vars_unlink(*state, guest.id, &err), -ETXTBSY, err, "it is open");

    assert_int_equal(change_lease(*state, drop, flash, 10, 100, 0, &held), 0);
    assert_false(held); /* of this version */
    assert_int_equal(change_lease(*state, drop, flash, 10, 100, 0, &held), 0);
    assert_int_equal(change_lease(*state, take, flash, 11, 101, 0, &held), -ETXTBSY);
    assert_int_equal(change_lease(*state, drop, flash, 12, 100, 1, &held), 0);
    assert_int_equal(change_lease(*state, take, flash, 11, 101, 0, &held), 0);
    assert_ok(store_lease_break(*state, flash, &err), err);
    assert_error(store_lease_break(*state, flash, &err), -ENOENT, err, "nobody");
    assert_int_equal(store_lease_get(*state, flash, &holder, &err), 0);
}

static void nobody_tells_strangers_apart(void **state)
{
    struct store_guest guest = split_guest(*state);
    bool held;
    assert_int_equal(change_lease(*state, STORE_CHANGE_LEASE_TAKE, guest.flash.id, 1, 0, 0, &held),
                     0);
    assert_int_equal(change_lease(*state, STORE_CHANGE_LEASE_TAKE, guest.flash.id, 2, 0, 0, &held),
                     -ETXTBSY);
}

static void what_lived_with_the_mount_is_forgotten(void **state)
{
    struct store_guest guest = split_guest(*state);
    struct store_flash staged = stage(*state, guest.id, "new");
    struct store_holder holder;
    struct error err = {0};
    bool held;
    assert_ok(store_flash_write(*state, staged.id, 0, "x", 1, NOW, &err), err);
    assert_int_equal(change_lease(*state, STORE_CHANGE_LEASE_TAKE, staged.id, 1, 100, 0, &held), 0);
    assert_ok(store_flash_write(*state, guest.flash.id, 0, "x", 1, NOW, &err), err);
    assert_ok(store_vars_unlink(*state, guest.id, &err), err);
    assert_int_equal(fixture_status(*state).private_blocks, 2);
    assert_ok(store_forget_mount(*state, &err), err);
    assert_int_equal(fixture_status(*state).private_blocks, 0);
    assert_int_equal(store_lease_get(*state, staged.id, &holder, &err), 0);
    assert_int_equal(fixture_integer("SELECT count(*) FROM flashes"), 1);
    assert_ok(store_forget_mount(*state, &err), err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_staging_file_is_a_file, fixture_enter, fixture_leave),
        cmocka_unit_test_setup_teardown(what_is_adopted_keeps_its_bytes, fixture_enter,
                                        fixture_leave),
        cmocka_unit_test_setup_teardown(vars_is_unlinked_and_made_again, fixture_enter,
                                        fixture_leave),
        cmocka_unit_test_setup_teardown(a_lease_counts_once, fixture_enter, fixture_leave),
        cmocka_unit_test_setup_teardown(nobody_tells_strangers_apart, fixture_enter, fixture_leave),
        cmocka_unit_test_setup_teardown(what_lived_with_the_mount_is_forgotten, fixture_enter,
                                        fixture_leave),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
