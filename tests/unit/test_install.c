#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "guest/install.h"
#include "guest_fixture.h"
#include "scratch.h"
#include "testing.h"

static int install(struct store *store, const char *name, const struct descriptor_facts *facts,
                   struct error *err)
{
    cleanup(descriptor_freep) struct descriptor *descriptor = NULL;
    assert_int_equal(descriptor_new(facts, &descriptor, err), 0);
    return install_firmware(store, name, descriptor, err);
}

static void assert_nothing_installed(struct store *store)
{
    struct store_status status;
    struct error err = {0};
    assert_ok(store_get_status(store, &status, &err), err);
    assert_int_equal(status.firmware, 0);
    assert_int_equal(status.images, 0);
}

static void assert_image(struct store *store, const struct store_image *image, const char *name,
                         size_t size)
{
    cleanup_free char *expected = malloc(size), *bytes = malloc(size);
    cleanup_file FILE *file = fopen(name, "r");
    assert_int_equal(fread(expected, 1, size, file), size);
    struct error err = {0};
    assert_int_equal(image->size, size);
    assert_int_equal(store_image_read(store, image->id, 0, bytes, size, &err), size);
    assert_memory_equal(bytes, expected, size);
}

static void installs_images_and_descriptor(void **state)
{
    struct descriptor_facts facts = fixture_facts(FLASH_MODE_SPLIT);
    struct store_firmware firmware;
    struct error err = {0};
    assert_ok(install(*state, "ovmf", &facts, &err), err);
    assert_ok(store_firmware_get(*state, "ovmf", &firmware, &err), err);
    assert_int_equal(firmware.mode, FLASH_MODE_SPLIT);
    assert_image(*state, &firmware.executable, "code.fd", FIXTURE_CODE_SIZE);
    assert_image(*state, &firmware.nvram_template, "vars.fd", FIXTURE_VARS_SIZE);
    cleanup_free char *text = NULL;
    assert_ok(store_firmware_descriptor(*state, firmware.id, &text, &err), err);
    assert_contains(text, "\"Firmware for tests\"");
}

static void the_same_again_is_told(void **state)
{
    struct descriptor_facts facts = fixture_facts(FLASH_MODE_COMBINED);
    struct error err = {0};
    assert_int_equal(install(*state, "ovmf", &facts, &err), 0);
    assert_int_equal(install(*state, "ovmf", &facts, &err), 1);
    facts.description = "another";
    assert_int_equal(install(*state, "ovmf", &facts, &err), -EEXIST);
}

static void adds_nothing_when_an_image_is_wrong(void **state)
{
    struct descriptor_facts facts = fixture_facts(FLASH_MODE_SPLIT);
    struct error err = {0};
    facts.nvram_template.filename = "none.fd";
    assert_error(install(*state, "ovmf", &facts, &err), -ENOENT, err,
                 "nvram-template: none.fd: No such file or directory");
    scratch_write_text("code.fd", "short");
    assert_error(install(*state, "ovmf", &facts, &err), -EINVAL, err,
                 "executable: code.fd: is an image of 5 bytes");
    assert_error(install(*state, "a/b", &facts, &err), -EINVAL, err, "");
    assert_nothing_installed(*state);
}

static void names_firmware_by_its_file(void **state)
{
    struct descriptor_facts facts = fixture_facts(FLASH_MODE_STATELESS);
    cleanup(descriptor_freep) struct descriptor *descriptor = NULL;
    struct error err = {0};
    char name[STORE_NAME_MAX + 1];
    assert_ok(descriptor_new(&facts, &descriptor, &err), err);
    cleanup_free char *text = descriptor_to_json(descriptor);
    scratch_write_text("60-ovmf.x.json", text);
    scratch_write_text("plain", text);
    assert_ok(install_descriptor(*state, "./60-ovmf.x.json", name, &err), err);
    assert_string_equal(name, "60-ovmf.x");
    assert_ok(install_descriptor(*state, "plain", name, &err), err);
    assert_string_equal(name, "plain");
    struct store_firmware firmware;
    assert_ok(store_firmware_get(*state, "60-ovmf.x", &firmware, &err), err);
}

static void says_which_descriptor_failed(void **state)
{
    struct error err = {0};
    char name[STORE_NAME_MAX + 1];
    assert_error(install_descriptor(*state, "./none.json", name, &err), -ENOENT, err,
                 "./none.json: No such file");
    assert_string_equal(name, "none");
    assert_int_equal(remove("code.fd"), 0);
    struct descriptor_facts facts = fixture_facts(FLASH_MODE_STATELESS);
    cleanup(descriptor_freep) struct descriptor *descriptor = NULL;
    assert_ok(descriptor_new(&facts, &descriptor, &err), err);
    cleanup_free char *text = descriptor_to_json(descriptor);
    scratch_write_text("x.json", text);
    assert_error(install_descriptor(*state, "x.json", name, &err), -ENOENT, err,
                 "x.json: executable: code.fd: No such file or directory");
    scratch_write_text(".json", text);
    assert_int_equal(install_descriptor(*state, ".json", name, &err), -EINVAL);
    assert_nothing_installed(*state);
}

int main(void)
{
#define with_store(test) cmocka_unit_test_setup_teardown(test, fixture_enter, fixture_leave)
    const struct CMUnitTest tests[] = {
        with_store(installs_images_and_descriptor),      with_store(the_same_again_is_told),
        with_store(adds_nothing_when_an_image_is_wrong), with_store(names_firmware_by_its_file),
        with_store(says_which_descriptor_failed),
    };
    return cmocka_run_group_tests_name("install", tests, NULL, NULL);
}
