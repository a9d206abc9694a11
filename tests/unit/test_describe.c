#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "guest/describe.h"
#include "guest_fixture.h"
#include "testing.h"

/* The value at an RFC 6901 pointer, as JSON text; "" where there is none. */
static const char *at(struct json_object *object, const char *pointer)
{
    struct json_object *value;
    if (json_pointer_get(object, pointer, &value) < 0)
        return "";
    return json_object_to_json_string_ext(value, JSON_C_TO_STRING_NOSLASHESCAPE);
}

static void assert_members(struct json_object *object, const char *const *names, size_t count)
{
    size_t i = 0;
    json_object_object_foreach(object, name, value)
    {
        assert_true(i < count);
        assert_string_equal(name, names[i]);
        i++;
    }
    assert_int_equal(i, count);
}

static struct json_object *describe(struct store *store, const struct store_guest *guest)
{
    cleanup_free char *text = NULL;
    struct error err = {0};
    assert_ok(describe_guest_text(store, guest, &text, &err), err);
    assert_int_equal(text[strlen(text) - 1], '\n');
    return json_tokener_parse(text);
}

static void digest_hex(const struct store_image *image, char hex[2 * STORE_DIGEST_SIZE + 3])
{
    char *to = hex;
    *to++ = '"';
    for (size_t i = 0; i < STORE_DIGEST_SIZE; i++)
        to += sprintf(to, "%02x", image->digest[i]);
    strcpy(to, "\"");
}

static void tells_of_a_split_guest(void **state)
{
    struct descriptor_facts facts = fixture_facts(FLASH_MODE_SPLIT);
    fixture_install(*state, "ovmf", &facts);
    struct store_guest guest = fixture_guest(*state, "ovmf", "web \"01\"");
    cleanup_json struct json_object *object = describe(*state, &guest);
    static const char *const names[] = {
        "schema_version", "guest",      "mode", "firmware", "firmware_description",
        "owner",          "created_at", "code", "vars",     "holder",
        "usage"};
    assert_members(object, names, sizeof names / sizeof names[0]);
    char digest[2 * STORE_DIGEST_SIZE + 3];
    assert_string_equal(at(object, "/schema_version"), "1");
    assert_string_equal(at(object, "/guest"), "\"web \\\"01\\\"\"");
    assert_string_equal(at(object, "/mode"), "\"split\"");
    assert_string_equal(at(object, "/firmware"), "\"ovmf\"");
    assert_string_equal(at(object, "/firmware_description"), "\"Firmware for tests\"");
    assert_string_equal(at(object, "/owner/uid"), "107");
    assert_string_equal(at(object, "/owner/gid"), "108");
    assert_string_equal(at(object, "/owner/mode"), "\"0640\"");
    assert_string_equal(at(object, "/code/size_bytes"), "65536");
    digest_hex(&guest.firmware.executable, digest);
    assert_string_equal(at(object, "/code/image_sha256"), digest);
    assert_string_equal(at(object, "/code/read_only"), "true");
    assert_string_equal(at(object, "/vars/size_bytes"), "16384");
    digest_hex(&guest.firmware.nvram_template, digest);
    assert_string_equal(at(object, "/vars/template_sha256"), digest);
    assert_string_equal(at(object, "/vars/read_only"), "false");
    assert_string_equal(at(object, "/usage/apparent_bytes"), "81920");
    assert_string_equal(at(object, "/usage/delta_bytes"), "0");
}

static void tells_the_time_in_utc(void **state)
{
    struct descriptor_facts facts = fixture_facts(FLASH_MODE_SPLIT);
    fixture_install(*state, "ovmf", &facts);
    struct store_guest guest = fixture_guest(*state, "ovmf", "web01");
    assert_true(llabs((long long)(guest.created_at / 1000000000 - time(NULL))) < 60);
    guest.created_at = INT64_C(1767323045999999999);
    setenv("TZ", "Asia/Tokyo", 1);
    tzset();
    cleanup_json struct json_object *object = describe(*state, &guest);
    assert_string_equal(at(object, "/created_at"), "\"2026-01-02T03:04:05Z\"");
}

static void only_split_has_vars(void **state)
{
    static const enum flash_mode modes[] = {FLASH_MODE_COMBINED, FLASH_MODE_STATELESS};
    for (size_t i = 0; i < 2; i++) {
        const char *name = flash_mode_name(modes[i]);
        struct descriptor_facts facts = fixture_facts(modes[i]);
        fixture_install(*state, name, &facts);
        struct store_guest guest = fixture_guest(*state, name, name);
        cleanup_json struct json_object *object = describe(*state, &guest);
        assert_string_equal(at(object, "/vars"), "");
        assert_string_equal(at(object, "/firmware") + 1, at(object, "/mode") + 1);
        assert_string_equal(at(object, "/code/read_only"),
                            modes[i] == FLASH_MODE_COMBINED ? "false" : "true");
        assert_string_equal(at(object, "/usage/apparent_bytes"), "65536");
    }
}

static void tells_what_a_guest_wrote(void **state)
{
    struct descriptor_facts facts = fixture_facts(FLASH_MODE_SPLIT);
    fixture_install(*state, "ovmf", &facts);
    struct store_guest guest = fixture_guest(*state, "ovmf", "web01");
    struct error err = {0};
    assert_ok(store_flash_write(*state, guest.flash.id, 5000, "changed", 7, 0, &err), err);
    cleanup_json struct json_object *object = describe(*state, &guest);
    assert_string_equal(at(object, "/usage/delta_bytes"), "4096");
    assert_string_not_equal(at(object, "/usage/stored_bytes"), "0");
}

static void writes_the_guests_descriptor(void **state)
{
    struct descriptor_facts split = fixture_facts(FLASH_MODE_SPLIT);
    struct descriptor_facts combined = fixture_facts(FLASH_MODE_COMBINED);
    fixture_install(*state, "split", &split);
    fixture_install(*state, "combined", &combined);
    struct store_guest guests[] = {fixture_guest(*state, "split", "s"),
                                   fixture_guest(*state, "combined", "c")};
    cleanup_free char *first = NULL;
    cleanup_free char *second = NULL;
    struct error err = {0};
    assert_ok(describe_guest_descriptor(*state, &guests[0], "/fw", &first, &err), err);
    cleanup_json struct json_object *object = json_tokener_parse(first);
    assert_string_equal(at(object, "/mapping/executable/filename"), "\"/fw/s/code\"");
    assert_string_equal(at(object, "/mapping/nvram-template/filename"), "\"/fw/s/vars\"");

    assert_ok(describe_guest_descriptor(*state, &guests[1], "/", &second, &err), err);
    cleanup_json struct json_object *other = json_tokener_parse(second);
    assert_string_equal(at(other, "/mapping/executable/filename"), "\"/c/code\"");
    assert_string_equal(at(other, "/mapping/nvram-template"), "");
}

static void tells_of_firmware(void **state)
{
    static const char *const features[] = {"acpi-s3", "secure-boot"};
    struct descriptor_facts facts = fixture_facts(FLASH_MODE_SPLIT);
    facts.features = features;
    facts.feature_count = 2;
    fixture_install(*state, "ovmf", &facts);
    fixture_guest(*state, "ovmf", "web01");
    fixture_guest(*state, "ovmf", "web02");
    struct store_firmware firmware;
    struct error err = {0};
    assert_ok(store_firmware_get(*state, "ovmf", &firmware, &err), err);
    cleanup_json struct json_object *object = json_object_new_object();
    assert_ok(describe_firmware(*state, &firmware, object, &err), err);

    static const char *const names[] = {"firmware",       "description",  "mode",      "executable",
                                        "nvram_template", "architecture", "machines",  "features",
                                        "guest_count",    "created_at",   "descriptor"};
    assert_members(object, names, sizeof names / sizeof names[0]);
    char digest[2 * STORE_DIGEST_SIZE + 3];
    digest_hex(&firmware.nvram_template, digest);
    assert_string_equal(at(object, "/executable/filename"), "\"code.fd\"");
    assert_string_equal(at(object, "/executable/size_bytes"), "65536");
    assert_string_equal(at(object, "/nvram_template/sha256"), digest);
    assert_string_equal(at(object, "/architecture"), "\"x86_64\"");
    assert_string_equal(at(object, "/machines"), "[\"pc-i440fx-*\",\"pc-q35-*\"]");
    assert_string_equal(at(object, "/features"), "[\"acpi-s3\",\"secure-boot\"]");
    assert_string_equal(at(object, "/guest_count"), "2");
    assert_string_equal(at(object, "/descriptor/mapping/device"), "\"flash\"");
}

static void firmware_without_targets_has_no_architecture(void **state)
{
    struct descriptor_facts facts = fixture_facts(FLASH_MODE_STATELESS);
    facts.architecture = NULL;
    facts.machine_count = 0;
    fixture_install(*state, "bare", &facts);
    struct store_firmware firmware;
    struct error err = {0};
    assert_ok(store_firmware_get(*state, "bare", &firmware, &err), err);
    cleanup_json struct json_object *object = json_object_new_object();
    assert_ok(describe_firmware(*state, &firmware, object, &err), err);
    assert_string_equal(at(object, "/architecture"), "");
    assert_string_equal(at(object, "/nvram_template"), "");
    assert_string_equal(at(object, "/machines"), "[]");
}

/* A descriptor that the store lets in but that does not fit its firmware is damage, not a crash. */
static void a_wrong_descriptor_is_damage(void **state)
{
    static const char bytes[4096];
    struct store_firmware_spec spec = {
        .name = "bad",
        .mode = FLASH_MODE_STATELESS,
        .executable = {.bytes = bytes, .size = sizeof bytes},
        .descriptor = "{\"description\": 1}",
    };
    struct error err = {0};
    char *text = NULL;
    assert_ok(store_firmware_add(*state, &spec, &err), err);
    struct store_guest guest = fixture_guest(*state, "bad", "b");
    assert_error(describe_guest_descriptor(*state, &guest, "/fw", &text, &err), -EUCLEAN, err,
                 "the stored descriptor of firmware ");

    struct descriptor_facts facts = fixture_facts(FLASH_MODE_SPLIT);
    cleanup(descriptor_freep) struct descriptor *split = NULL;
    assert_ok(descriptor_new(&facts, &split, &err), err);
    cleanup_free char *json = descriptor_to_json(split);
    spec.name = "other";
    spec.descriptor = json;
    assert_ok(store_firmware_add(*state, &spec, &err), err);
    guest = fixture_guest(*state, "other", "o");
    assert_error(describe_guest_descriptor(*state, &guest, "/fw", &text, &err), -EUCLEAN, err,
                 "the stored descriptor of firmware ");
    assert_contains(err.text, "is of mode \"split\", the firmware of mode \"stateless\"");
    assert_null(text);
}

int main(void)
{
#define with_store(test) cmocka_unit_test_setup_teardown(test, fixture_enter, fixture_leave)
    const struct CMUnitTest tests[] = {
        with_store(tells_of_a_split_guest),
        with_store(tells_the_time_in_utc),
        with_store(only_split_has_vars),
        with_store(tells_what_a_guest_wrote),
        with_store(writes_the_guests_descriptor),
        with_store(tells_of_firmware),
        with_store(firmware_without_targets_has_no_architecture),
        with_store(a_wrong_descriptor_is_damage),
    };
    return cmocka_run_group_tests_name("describe", tests, NULL, NULL);
}
