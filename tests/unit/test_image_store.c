#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "scratch.h"
#include "store_fixture.h"
#include "testing.h"

#define MIB ((size_t)1024 * 1024)

static struct store_image add_image(struct store *store, const char *name, const void *bytes,
                                    size_t size)
{
    const struct store_firmware_spec spec = {.name = name,
                                             .mode = FLASH_MODE_STATELESS,
                                             .executable = {bytes, size},
                                             .descriptor = "{}"};
    struct store_firmware firmware;
    struct error err = {0};
    assert_ok(store_firmware_add(store, &spec, &err), err);
    assert_ok(store_firmware_get(store, name, &firmware, &err), err);
    assert_int_equal(firmware.executable.size, size);
    return firmware.executable;
}

static void assert_reads(struct store *store, int64_t image, uint64_t offset, const void *expected,
                         size_t length)
{
    cleanup_free uint8_t *bytes = malloc(length + 1);
    struct error err = {0};
    bytes[length] = 0xA5;
    assert_int_equal(store_image_read(store, image, offset, bytes, length, &err), length);
    assert_memory_equal(bytes, expected, length);
    assert_int_equal(bytes[length], 0xA5);
}

/* ---- Reading ---- */

static void reads_at_any_offset_and_length(void **state)
{
    static const char *const images[] = {
        "a",        "0",       "F",         "1E5",        "F0F0F0F0A", "00F00a00F0",
        "FFFaF0Fb", "aAbBcCF", "00000000F", "FFFFFFFFF0", "0E1F5",     "aaaaAAAA0000FFFF",
    };
    uint64_t seed = 1;
    for (size_t i = 0; i < sizeof images / sizeof images[0]; i++) {
        cleanup_free uint8_t *bytes = fixture_image(images[i]);
        size_t size = strlen(images[i]) * STORE_BLOCK_SIZE;
        struct store_image image = add_image(*state, images[i], bytes, size);
        assert_reads(*state, image.id, 0, bytes, size);
        for (int n = 0; n < 200; n++) {
            uint64_t offset = fixture_random(&seed, size);
            size_t length = fixture_random(&seed, size - offset) + 1;
            assert_reads(*state, image.id, offset, bytes + offset, length);
        }
    }
}

static void reads_stop_at_the_end(void **state)
{
    struct store_firmware firmware = fixture_firmware(*state, "ovmf", "aA");
    cleanup_free uint8_t *expected = fixture_image("aA");
    uint8_t bytes[STORE_BLOCK_SIZE];
    struct error err = {0};
    int64_t id = firmware.executable.id;
    memset(bytes, 0xA5, sizeof bytes);
    assert_int_equal(store_image_read(*state, id, 8191, bytes, 100, &err), 1);
    assert_int_equal(bytes[0], expected[8191]);
    assert_int_equal(bytes[1], 0xA5);
    assert_int_equal(store_image_read(*state, id, 8192, bytes, 1, &err), 0);
    assert_int_equal(store_image_read(*state, id, UINT64_MAX, bytes, 1, &err), 0);
    assert_int_equal(store_image_read(*state, id, 100, bytes, 0, &err), 0);
    assert_int_equal(store_image_read(*state, id, 4096, bytes, SIZE_MAX, &err), 4096);
    assert_memory_equal(bytes, expected + 4096, 4096);
    assert_error((int)store_image_read(*state, id + 1, 0, bytes, 1, &err), -ENOENT, err,
                 "there is no image 2");
    struct store_image image;
    assert_error(store_image_get(*state, id + 1, &image, &err), -ENOENT, err,
                 "there is no image 2");
}

static void digests_are_sha256(void **state)
{
    static const uint8_t zeros[STORE_DIGEST_SIZE] = {
        0xad, 0x7f, 0xac, 0xb2, 0x58, 0x6f, 0xc6, 0xe9, 0x66, 0xc0, 0x04,
        0xd7, 0xd1, 0xd1, 0x6b, 0x02, 0x4f, 0x58, 0x05, 0xff, 0x7c, 0xb4,
        0x7c, 0x7a, 0x85, 0xda, 0xbd, 0x8b, 0x48, 0x89, 0x2c, 0xa7};
    struct store_firmware firmware = fixture_firmware(*state, "zeros", "0");
    struct store_image image;
    struct error err = {0};
    assert_memory_equal(firmware.executable.digest, zeros, sizeof zeros);
    assert_ok(store_image_get(*state, firmware.executable.id, &image, &err), err);
    assert_int_equal(image.id, firmware.executable.id);
    assert_int_equal(image.size, STORE_BLOCK_SIZE);
    assert_memory_equal(image.digest, zeros, sizeof zeros);
}

/* ---- What images cost ---- */

static void fill_costs_nothing(void **state)
{
    cleanup_free uint8_t *bytes = malloc(64 * MIB);
    static const int fills[] = {0x00, 0xFF};
    uint64_t file_bytes = fixture_status(*state).space.file_bytes;
    for (size_t i = 0; i < 2; i++) {
        char name[] = {(char)('a' + i), '\0'};
        memset(bytes, fills[i], 64 * MIB);
        struct store_image image = add_image(*state, name, bytes, 64 * MIB);
        assert_reads(*state, image.id, 0, bytes, 64 * MIB);
    }
    struct store_status status = fixture_status(*state);
    assert_int_equal(status.images, 2);
    assert_int_equal(status.shared_blocks, 0);
    assert_int_equal(status.stored_bytes, 0);
    assert_int_equal(fixture_integer("SELECT count(*) FROM image_blocks"), 0);
    assert_true(status.space.file_bytes - file_bytes < 128 * 1024);
}

static void the_rarer_fill_costs_no_block(void **state)
{
    fixture_firmware(*state, "mostly zeros", "00F0a");
    fixture_firmware(*state, "mostly ones", "F0FFa");
    struct store_status status = fixture_status(*state);
    assert_int_equal(status.shared_blocks, 1);
    assert_int_equal(status.unique_bytes, STORE_BLOCK_SIZE);
    assert_int_equal(fixture_integer("SELECT count(*) FROM image_blocks WHERE block_id IS NULL"),
                     2);
}

static void blocks_are_shared(void **state)
{
    struct error err = {0};
    fixture_firmware(*state, "first", "aAaA1");
    assert_int_equal(fixture_status(*state).shared_blocks, 3);
    fixture_firmware(*state, "second", "0bAAAAa");
    assert_int_equal(fixture_status(*state).shared_blocks, 4);
    fixture_firmware(*state, "third", "aAaA1");
    struct store_status status = fixture_status(*state);
    assert_int_equal(status.shared_blocks, 4);
    assert_int_equal(status.images, 2);
    assert_int_equal(status.firmware, 3);
    assert_int_equal(status.unique_bytes, 4 * STORE_BLOCK_SIZE);

    /* What the others have stays, whole. */
    assert_ok(store_firmware_remove(*state, "first", &err), err);
    assert_int_equal(fixture_status(*state).images, 2);
    assert_ok(store_firmware_remove(*state, "third", &err), err);
    status = fixture_status(*state);
    assert_int_equal(status.images, 1);
    assert_int_equal(status.shared_blocks, 3);
    struct store_firmware second;
    assert_ok(store_firmware_get(*state, "second", &second, &err), err);
    cleanup_free uint8_t *expected = fixture_image("0bAAAAa");
    assert_reads(*state, second.executable.id, 0, expected, 7 * STORE_BLOCK_SIZE);
    assert_ok(store_firmware_remove(*state, "second", &err), err);
    assert_int_equal(fixture_status(*state).shared_blocks, 0);
    assert_int_equal(fixture_integer("SELECT count(*) FROM image_blocks"), 0);
}

static void blocks_are_compressed_where_that_gains(void **state)
{
    fixture_firmware(*state, "noise", "ABCD");
    assert_int_equal(fixture_status(*state).stored_bytes, 4 * STORE_BLOCK_SIZE);
    fixture_firmware(*state, "text", "abcd5");
    struct store_status status = fixture_status(*state);
    assert_int_equal(status.shared_blocks, 9);
    assert_true(status.stored_bytes < 5 * STORE_BLOCK_SIZE);
}

/* ---- Firmware ---- */

static void firmware_is_as_it_was_added(void **state)
{
    cleanup_free uint8_t *code = fixture_image("abF"), *vars = fixture_image("1");
    const struct store_firmware_spec spec = {.name = "ovmf",
                                             .mode = FLASH_MODE_SPLIT,
                                             .executable = {code, 3 * STORE_BLOCK_SIZE},
                                             .nvram_template = {vars, STORE_BLOCK_SIZE},
                                             .descriptor = "{\"description\": \"\xC3\xA4\"}"};
    struct store_firmware firmware;
    struct error err = {0};
    cleanup_free char *descriptor = NULL;
    assert_ok(store_firmware_add(*state, &spec, &err), err);
    fixture_reopen(state, 0);
    assert_ok(store_firmware_get(*state, "ovmf", &firmware, &err), err);
    assert_string_equal(firmware.name, "ovmf");
    assert_int_equal(firmware.mode, FLASH_MODE_SPLIT);
    assert_int_equal(firmware.executable.size, 3 * STORE_BLOCK_SIZE);
    assert_int_equal(firmware.nvram_template.size, STORE_BLOCK_SIZE);
    assert_reads(*state, firmware.executable.id, 0, code, 3 * STORE_BLOCK_SIZE);
    assert_reads(*state, firmware.nvram_template.id, 0, vars, STORE_BLOCK_SIZE);
    assert_ok(store_firmware_descriptor(*state, firmware.id, &descriptor, &err), err);
    assert_string_equal(descriptor, spec.descriptor);
    assert_int_equal(firmware.created_at % 1000000000, 0);
    assert_true(firmware.created_at > INT64_C(1700000000) * 1000000000);

    char *none;
    assert_error(store_firmware_get(*state, "other", &firmware, &err), -ENOENT, err,
                 "there is no firmware 'other'");
    assert_error(store_firmware_descriptor(*state, 2, &none, &err), -ENOENT, err,
                 "there is no firmware 2");
}

static void the_same_again_is_told(void **state)
{
    cleanup_free uint8_t *image = fixture_image("ab"), *other = fixture_image("ba");
    const struct store_bytes bytes = {image, 2 * STORE_BLOCK_SIZE};
    const struct store_bytes others = {other, 2 * STORE_BLOCK_SIZE};
    const struct store_firmware_spec spec = {.name = "ovmf",
                                             .mode = FLASH_MODE_SPLIT,
                                             .executable = bytes,
                                             .nvram_template = bytes,
                                             .descriptor = "{}"};
    struct store_firmware_spec specs[] = {spec, spec, spec, spec};
    specs[0].executable = others;
    specs[1].nvram_template = others;
    specs[2].descriptor = "{ }";
    specs[3].mode = FLASH_MODE_COMBINED;
    specs[3].nvram_template = (struct store_bytes){0};
    struct error err = {0};
    assert_ok(store_firmware_add(*state, &spec, &err), err);
    assert_int_equal(store_firmware_add(*state, &spec, &err), 1);
    for (size_t i = 0; i < 4; i++)
        assert_error(store_firmware_add(*state, &specs[i], &err), -EEXIST, err,
                     "there is other firmware named 'ovmf'; choose another name");
    struct store_status status = fixture_status(*state);
    assert_int_equal(status.firmware, 1);
    assert_int_equal(status.images, 1);
    assert_int_equal(status.shared_blocks, 2);

    assert_ok(store_firmware_remove(*state, "ovmf", &err), err);
    assert_int_equal(fixture_status(*state).images, 0);
    assert_int_equal(fixture_status(*state).shared_blocks, 0);
}

static void adds_nothing_that_is_wrong(void **state)
{
    cleanup_free uint8_t *image = fixture_image("ab");
    const struct store_bytes bytes = {image, 2 * STORE_BLOCK_SIZE}, none = {0};
    const struct {
        const char *name, *error;
        enum flash_mode mode;
        struct store_bytes executable, nvram_template;
    } cases[] = {
        {"a/b", "a firmware's name cannot hold '/'", FLASH_MODE_COMBINED, bytes, none},
        {"a", "firmware 'a': mode split needs an nvram", FLASH_MODE_SPLIT, bytes, none},
        {"a", "firmware 'a': mode combined takes no nvram", FLASH_MODE_COMBINED, bytes, bytes},
        {"a", "firmware 'a': mode stateless takes no nvram", FLASH_MODE_STATELESS, bytes, bytes},
        {"a", "an image of 0 bytes", FLASH_MODE_COMBINED, {image, 0}, none},
        {"a", "an image of 5000 bytes", FLASH_MODE_COMBINED, {image, 5000}, none},
        {"a", "an image of 5000 bytes", FLASH_MODE_SPLIT, bytes, {image, 5000}},
        {"a",
         "an image of 4294971392 bytes",
         FLASH_MODE_COMBINED,
         {image, STORE_IMAGE_SIZE_MAX + STORE_BLOCK_SIZE},
         none},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct store_firmware_spec spec = {.name = cases[i].name,
                                                 .mode = cases[i].mode,
                                                 .executable = cases[i].executable,
                                                 .nvram_template = cases[i].nvram_template,
                                                 .descriptor = "{}"};
        struct error err = {0};
        assert_error(store_firmware_add(*state, &spec, &err), -EINVAL, err, cases[i].error);
    }
    struct store_status status = fixture_status(*state);
    assert_int_equal(status.firmware + status.images + status.shared_blocks, 0);
}

static void firmware_in_use_stays(void **state)
{
    struct store_firmware firmware = fixture_firmware(*state, "ovmf", "ab");
    fixture_firmware(*state, "same image", "ab");
    uint64_t guests;
    struct error err = {0};
    assert_ok(store_firmware_guests(*state, firmware.id, &guests, &err), err);
    assert_int_equal(guests, 0);
    fixture_guest(*state, "ovmf", "web01");
    assert_error(store_firmware_remove(*state, "ovmf", &err), -EBUSY, err,
                 "firmware 'ovmf' is used by 1 guest; remove them first");
    fixture_guest(*state, "ovmf", "web02");
    assert_error(store_firmware_remove(*state, "ovmf", &err), -EBUSY, err,
                 "firmware 'ovmf' is used by 2 guests; remove them first");
    assert_ok(store_firmware_guests(*state, firmware.id, &guests, &err), err);
    assert_int_equal(guests, 2);
    assert_error(store_firmware_remove(*state, "none", &err), -ENOENT, err,
                 "there is no firmware 'none'");

    assert_ok(store_firmware_remove(*state, "same image", &err), err);
    struct store_status status = fixture_status(*state);
    assert_int_equal(status.firmware, 1);
    assert_int_equal(status.images, 1);
    assert_int_equal(status.shared_blocks, 2);
}

/* An image may be a template of one and the executable of another. */
static void images_go_with_their_last_firmware(void **state)
{
    cleanup_free uint8_t *code = fixture_image("ab"), *vars = fixture_image("c1");
    const struct store_firmware_spec spec = {.name = "split",
                                             .mode = FLASH_MODE_SPLIT,
                                             .executable = {code, 2 * STORE_BLOCK_SIZE},
                                             .nvram_template = {vars, 2 * STORE_BLOCK_SIZE},
                                             .descriptor = "{}"};
    struct store_firmware split;
    struct error err = {0};
    assert_ok(store_firmware_add(*state, &spec, &err), err);
    assert_ok(store_firmware_get(*state, "split", &split, &err), err);
    fixture_firmware(*state, "executable", "ab");
    fixture_firmware(*state, "template", "c1");
    assert_int_equal(fixture_status(*state).images, 2);
    assert_ok(store_firmware_remove(*state, "executable", &err), err);
    assert_ok(store_firmware_remove(*state, "template", &err), err);
    assert_reads(*state, split.executable.id, 0, code, 2 * STORE_BLOCK_SIZE);
    assert_reads(*state, split.nvram_template.id, 0, vars, 2 * STORE_BLOCK_SIZE);

    fixture_firmware(*state, "template", "c1");
    assert_ok(store_firmware_remove(*state, "split", &err), err);
    struct store_status status = fixture_status(*state);
    assert_int_equal(status.images, 1);
    assert_int_equal(status.shared_blocks, 2);
    assert_reads(*state, split.nvram_template.id, 0, vars, 2 * STORE_BLOCK_SIZE);
    assert_ok(store_firmware_remove(*state, "template", &err), err);
    assert_ok(store_firmware_add(*state, &spec, &err), err);
    assert_ok(store_firmware_remove(*state, "split", &err), err);
    status = fixture_status(*state);
    assert_int_equal(status.images + status.shared_blocks, 0);
}

static void ids_are_never_used_again(void **state)
{
    struct error err = {0};
    struct store_firmware last = fixture_firmware(*state, "ovmf", "ab");
    for (int i = 0; i < 3; i++) {
        int64_t block = fixture_integer("SELECT max(id) FROM blocks");
        assert_ok(store_firmware_remove(*state, "ovmf", &err), err);
        fixture_reopen(state, 0);
        struct store_firmware firmware = fixture_firmware(*state, "ovmf", "ab");
        assert_true(firmware.id > last.id);
        assert_true(firmware.executable.id > last.executable.id);
        assert_true(fixture_integer("SELECT min(id) FROM blocks") > block);
        last = firmware;
    }
}

struct seen {
    char names[64];
    int stop_after, result;
};

static int see(const struct store_firmware *firmware, void *data)
{
    struct seen *seen = data;
    strcat(strcat(seen->names, firmware->name), " ");
    return --seen->stop_after == 0 ? seen->result : 0;
}

static void each_firmware_comes_by_name(void **state)
{
    struct error err = {0};
    struct seen nothing = {0}, all = {0}, first = {.stop_after = 2, .result = 7},
                failed = {.stop_after = 1, .result = -EPIPE};
    assert_ok(store_firmware_each(*state, see, &nothing, &err), err);
    assert_string_equal(nothing.names, "");
    static const char *const names[] = {"b", "a", "\xC3\xA4", "B"};
    for (size_t i = 0; i < 4; i++)
        fixture_firmware(*state, names[i], "a");
    assert_ok(store_firmware_each(*state, see, &all, &err), err);
    assert_string_equal(all.names, "B a b \xC3\xA4 ");
    assert_int_equal(store_firmware_each(*state, see, &first, &err), 7);
    assert_string_equal(first.names, "B a ");
    assert_int_equal(store_firmware_each(*state, see, &failed, &err), -EPIPE);
    assert_string_equal(failed.names, "B ");
}

int main(void)
{
#define with_store(test) cmocka_unit_test_setup_teardown(test, fixture_enter, fixture_leave)
    const struct CMUnitTest tests[] = {
        with_store(reads_at_any_offset_and_length),
        with_store(reads_stop_at_the_end),
        with_store(digests_are_sha256),
        with_store(fill_costs_nothing),
        with_store(the_rarer_fill_costs_no_block),
        with_store(blocks_are_shared),
        with_store(blocks_are_compressed_where_that_gains),
        with_store(firmware_is_as_it_was_added),
        with_store(the_same_again_is_told),
        with_store(adds_nothing_that_is_wrong),
        with_store(firmware_in_use_stays),
        with_store(images_go_with_their_last_firmware),
        with_store(ids_are_never_used_again),
        with_store(each_firmware_comes_by_name),
    };
    return cmocka_run_group_tests_name("image_store", tests, NULL, NULL);
}
