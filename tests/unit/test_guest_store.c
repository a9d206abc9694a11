#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "scratch.h"
#include "store_fixture.h"
#include "testing.h"

static const struct store_attr attr = {.uid = 107, .gid = 108, .mode = 0640};

static int add(struct store *store, const char *const *names, size_t count, struct error *err)
{
    return store_guest_add(store, "ovmf", names, count, &attr, err);
}

static uint64_t count_guests(struct store *store)
{
    assert_int_equal(fixture_integer("SELECT count(*) FROM guests"),
                     fixture_integer("SELECT count(*) FROM flashes"));
    return fixture_status(store).guests;
}

/* ---- Adding ---- */

static void a_guest_is_as_it_was_added(void **state)
{
    struct store_firmware firmware = fixture_firmware(*state, "ovmf", "aAF");
    struct store_guest made = fixture_guest(*state, "ovmf", "web01"), guest;
    struct error err = {0};
    fixture_reopen(state, 0);
    assert_ok(store_guest_by_id(*state, made.id, &guest, &err), err);
    assert_int_equal(guest.id, made.id);
    assert_string_equal(guest.name, "web01");
    assert_string_equal(guest.firmware.name, "ovmf");
    assert_int_equal(guest.firmware.id, firmware.id);
    assert_int_equal(guest.firmware.mode, FLASH_MODE_COMBINED);
    assert_memory_equal(&guest.firmware.executable, &firmware.executable,
                        sizeof firmware.executable);
    assert_int_equal(guest.firmware.nvram_template.id, 0);
    assert_int_equal(guest.flash.image, firmware.executable.id);
    assert_int_equal(guest.flash.size, 3 * STORE_BLOCK_SIZE);
    assert_int_equal(guest.flash.attr.uid, 107);
    assert_int_equal(guest.flash.attr.gid, 108);
    assert_int_equal(guest.flash.attr.mode, 0640);
    assert_true(guest.created_at > INT64_C(1700000000) * 1000000000);
    assert_int_equal(guest.created_at % 1000000000, 0);
    assert_int_equal(guest.flash.attr.mtime, guest.created_at);
    assert_int_equal(guest.flash.attr.atime, guest.created_at);
    assert_int_equal(guest.flash.attr.ctime, guest.created_at);
}

static void a_flash_lies_on_what_the_mode_says(void **state)
{
    cleanup_free uint8_t *code = fixture_image("ab"), *vars = fixture_image("c");
    struct store_firmware_spec spec = {.name = "split",
                                       .mode = FLASH_MODE_SPLIT,
                                       .executable = {code, 2 * STORE_BLOCK_SIZE},
                                       .nvram_template = {vars, STORE_BLOCK_SIZE},
                                       .descriptor = "{}"};
    struct error err = {0};
    assert_ok(store_firmware_add(*state, &spec, &err), err);
    spec.name = "stateless";
    spec.mode = FLASH_MODE_STATELESS;
    spec.nvram_template = (struct store_bytes){0};
    assert_ok(store_firmware_add(*state, &spec, &err), err);

    struct store_guest split = fixture_guest(*state, "split", "a");
    struct store_guest stateless = fixture_guest(*state, "stateless", "b");
    assert_int_equal(split.flash.image, split.firmware.nvram_template.id);
    assert_int_equal(split.flash.size, STORE_BLOCK_SIZE);
    assert_int_not_equal(split.firmware.nvram_template.id, split.firmware.executable.id);
    assert_int_equal(stateless.flash.image, stateless.firmware.executable.id);
    assert_int_equal(stateless.firmware.executable.id, split.firmware.executable.id);
}

static void adds_all_or_none(void **state)
{
    fixture_firmware(*state, "ovmf", "a");
    static const char *const taken[] = {"a", "b", "c", "web01", "d"};
    static const char *const twice[] = {"a", "b", "c", "a"};
    static const char *const wrong[] = {"a", "b", ".c"};
    struct error err = {0};
    fixture_guest(*state, "ovmf", "web01");
    assert_error(add(*state, taken, 5, &err), -EEXIST, err, "there is a guest 'web01' already");
    assert_error(add(*state, twice, 4, &err), -EEXIST, err, "there is a guest 'a' already");
    assert_error(add(*state, wrong, 3, &err), -EINVAL, err, "a guest's name cannot begin with '.'");
    assert_error(store_guest_add(*state, "none", taken, 3, &attr, &err), -ENOENT, err,
                 "there is no firmware 'none'");
    assert_int_equal(count_guests(*state), 1);
    assert_ok(add(*state, taken, 3, &err), err);
    assert_ok(add(*state, NULL, 0, &err), err);
    assert_int_equal(count_guests(*state), 4);
}

static void names_are_bytes(void **state)
{
    fixture_firmware(*state, "ovmf", "a");
    /* Composed and decomposed, upper and lower case: four guests. */
    static const char *const names[] = {"\xC3\xA4", "a\xCC\x88", "A", "a"};
    struct store_guest guest;
    struct error err = {0};
    assert_ok(add(*state, names, 4, &err), err);
    for (size_t i = 0; i < 4; i++) {
        assert_ok(store_guest_by_name(*state, names[i], &guest, &err), err);
        assert_string_equal(guest.name, names[i]);
    }
    assert_error(store_guest_by_name(*state, "' OR 1 --", &guest, &err), -ENOENT, err,
                 "there is no guest '' OR 1 --'");
    assert_error(store_guest_by_name(*state, "", &guest, &err), -ENOENT, err, "there is no guest");
    assert_error(store_guest_by_id(*state, 5, &guest, &err), -ENOENT, err, "there is no guest 5");
    assert_error(store_guest_by_id(*state, 0, &guest, &err), -ENOENT, err, "there is no guest 0");

    char longest[STORE_NAME_MAX + 1];
    memset(longest, 'x', STORE_NAME_MAX);
    longest[STORE_NAME_MAX] = '\0';
    assert_string_equal(fixture_guest(*state, "ovmf", longest).name, longest);
}

/* ---- Renaming ---- */

static void renames(void **state)
{
    fixture_firmware(*state, "ovmf", "a");
    struct store_guest before = fixture_guest(*state, "ovmf", "web01"), guest;
    fixture_guest(*state, "ovmf", "web02");
    struct error err = {0};
    assert_ok(store_flash_write(*state, before.flash.id, 0, "x", 1, 1, &err), err);
    assert_error(store_guest_rename(*state, "none", "a", &err), -ENOENT, err,
                 "there is no guest 'none'");
    assert_error(store_guest_rename(*state, "web01", "web02", &err), -EEXIST, err,
                 "there is a guest 'web02' already");
    assert_error(store_guest_rename(*state, "web01", "a/b", &err), -EINVAL, err,
                 "a guest's name cannot hold '/'");
    assert_ok(store_guest_rename(*state, "web01", "web01", &err), err);
    assert_ok(store_guest_by_name(*state, "web01", &guest, &err), err);

    assert_ok(store_guest_rename(*state, "web01", "db01", &err), err);
    assert_error(store_guest_by_name(*state, "web01", &guest, &err), -ENOENT, err,
                 "there is no guest 'web01'");
    assert_ok(store_guest_by_name(*state, "db01", &guest, &err), err);
    assert_int_equal(guest.id, before.id);
    assert_int_equal(guest.flash.id, before.flash.id);
    assert_int_equal(guest.created_at, before.created_at);
    assert_int_equal(count_guests(*state), 2);
    fixture_guest(*state, "ovmf", "web01");
}

/* ---- Removing ---- */

static void removing_frees_everything(void **state)
{
    fixture_firmware(*state, "ovmf", "aA0F");
    struct store_guest left = fixture_guest(*state, "ovmf", "a");
    struct store_guest gone = fixture_guest(*state, "ovmf", "b");
    struct store_guest right = fixture_guest(*state, "ovmf", "c");
    const struct store_guest *const guests[] = {&left, &gone, &right};
    cleanup_free uint8_t *bytes = fixture_image("BbF0");
    cleanup_free uint8_t *found = malloc(4 * STORE_BLOCK_SIZE);
    struct error err = {0};
    for (size_t i = 0; i < 3; i++)
        assert_ok(
            store_flash_write(*state, guests[i]->flash.id, 0, bytes, 4 * STORE_BLOCK_SIZE, 1, &err),
            err);
    assert_int_equal(fixture_status(*state).private_blocks, 12);

    const char *name = "b";
    assert_ok(store_guest_purge(*state, &name, 1, &err), err);
    assert_int_equal(fixture_status(*state).private_blocks, 8);
    assert_int_equal(count_guests(*state), 2);
    struct store_flash flash;
    assert_int_equal(store_flash_get(*state, gone.flash.id, &flash, &err), -ENOENT);
    for (size_t i = 0; i < 3; i += 2) {
        assert_int_equal(
            store_flash_read(*state, guests[i]->flash.id, 0, found, 4 * STORE_BLOCK_SIZE, &err),
            4 * STORE_BLOCK_SIZE);
        assert_memory_equal(found, bytes, 4 * STORE_BLOCK_SIZE);
    }

    static const char *const rest[] = {"c", "a"};
    assert_ok(store_guest_purge(*state, rest, 2, &err), err);
    assert_ok(store_firmware_remove(*state, "ovmf", &err), err);
    struct store_status status = fixture_status(*state);
    assert_int_equal(status.guests + status.firmware + status.images, 0);
    assert_int_equal(status.shared_blocks + status.private_blocks, 0);
    static const char *const tables[] = {"blocks",  "images", "image_blocks", "firmware",
                                         "flashes", "guests", "flash_blocks"};
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        char sql[64];
        snprintf(sql, sizeof sql, "SELECT count(*) FROM %s", tables[i]);
        assert_int_equal(fixture_integer(sql), 0);
    }
}

static void removes_all_or_none(void **state)
{
    fixture_firmware(*state, "ovmf", "a");
    static const char *const names[] = {"a", "b", "none"}, *const twice[] = {"a", "b", "a"};
    struct error err = {0};
    assert_ok(add(*state, names, 2, &err), err);
    assert_error(store_guest_remove(*state, names, 3, &err), -ENOENT, err,
                 "there is no guest 'none'");
    assert_error(store_guest_remove(*state, twice, 3, &err), -ENOENT, err, "there is no guest 'a'");
    assert_int_equal(count_guests(*state), 2);
    assert_error(store_guest_purge(*state, names, 3, &err), -ENOENT, err,
                 "there is no guest 'none'");
    assert_int_equal(count_guests(*state), 2);
    assert_ok(store_guest_purge(*state, names, 2, &err), err);
    assert_int_equal(count_guests(*state), 0);
}

static void ids_are_never_used_again(void **state)
{
    fixture_firmware(*state, "ovmf", "a");
    struct store_guest last = fixture_guest(*state, "ovmf", "web01");
    const char *name = "web01";
    struct error err = {0};
    for (int i = 0; i < 3; i++) {
        assert_ok(store_flash_write(*state, last.flash.id, 0, "x", 1, 1, &err), err);
        assert_ok(store_guest_remove(*state, &name, 1, &err), err);
        fixture_reopen(state, 0);
        struct store_guest guest = fixture_guest(*state, "ovmf", "web01");
        assert_true(guest.id > last.id);
        assert_true(guest.flash.id > last.flash.id);
        struct store_usage usage;
        assert_ok(store_flash_usage(*state, guest.flash.id, &usage, &err), err);
        assert_int_equal(usage.delta_blocks, 0);
        last = guest;
    }
}

/* ---- Walking ---- */

struct seen {
    struct store *store;
    char names[64];
    int stop_after, result;
};

static int see(const struct store_guest *guest, void *data)
{
    struct seen *seen = data;
    struct store_guest again;
    struct error err = {0};
    /* Reading meanwhile is allowed. */
    assert_ok(store_guest_by_name(seen->store, guest->name, &again, &err), err);
    assert_int_equal(guest->flash.id, again.flash.id);
    assert_string_equal(guest->firmware.name, again.firmware.name);
    strcat(strcat(seen->names, guest->name), " ");
    return --seen->stop_after == 0 ? seen->result : 0;
}

static void assert_each(struct store *store, enum store_guest_order order, int64_t after,
                        const char *names)
{
    struct seen seen = {.store = store};
    struct error err = {0};
    assert_ok(store_guest_each(store, order, after, see, &seen, &err), err);
    assert_string_equal(seen.names, names);
}

static void each_guest_comes_in_order(void **state)
{
    fixture_firmware(*state, "ovmf", "a");
    fixture_firmware(*state, "other", "b");
    assert_each(*state, STORE_GUESTS_BY_ID, 0, "");
    static const char *const names[] = {"b", "d", "a", "C"};
    struct error err = {0};
    assert_ok(add(*state, names, 4, &err), err);
    struct store_guest last = fixture_guest(*state, "other", "aa"), second;
    assert_ok(store_guest_by_name(*state, "d", &second, &err), err);

    assert_each(*state, STORE_GUESTS_BY_ID, 0, "b d a C aa ");
    assert_each(*state, STORE_GUESTS_BY_NAME, 0, "C a aa b d ");
    assert_each(*state, STORE_GUESTS_BY_ID, second.id, "a C aa ");
    assert_each(*state, STORE_GUESTS_BY_NAME, second.id, "C a aa ");
    assert_each(*state, STORE_GUESTS_BY_ID, last.id, "");
    const char *name = "d";
    assert_ok(store_guest_remove(*state, &name, 1, &err), err);
    assert_each(*state, STORE_GUESTS_BY_ID, second.id, "a C aa ");

    struct seen seen = {.store = *state, .stop_after = 2, .result = 3};
    assert_int_equal(store_guest_each(*state, STORE_GUESTS_BY_ID, 0, see, &seen, &err), 3);
    assert_string_equal(seen.names, "b a ");
    seen = (struct seen){.store = *state, .stop_after = 1, .result = -EPIPE};
    assert_int_equal(store_guest_each(*state, STORE_GUESTS_BY_NAME, 0, see, &seen, &err), -EPIPE);
    assert_string_equal(seen.names, "C ");
}

int main(void)
{
#define with_store(test) cmocka_unit_test_setup_teardown(test, fixture_enter, fixture_leave)
    const struct CMUnitTest tests[] = {
        with_store(a_guest_is_as_it_was_added),
        with_store(a_flash_lies_on_what_the_mode_says),
        with_store(adds_all_or_none),
        with_store(names_are_bytes),
        with_store(renames),
        with_store(removing_frees_everything),
        with_store(removes_all_or_none),
        with_store(ids_are_never_used_again),
        with_store(each_guest_comes_in_order),
    };
    return cmocka_run_group_tests_name("guest_store", tests, NULL, NULL);
}
