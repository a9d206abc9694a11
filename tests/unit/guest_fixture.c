#include "guest_fixture.h"

#include <stdlib.h>

#include "base/cleanup.h"
#include "guest/install.h"
#include "scratch.h"
#include "testing.h"

int fixture_enter(void **state)
{
    struct store *store;
    if (scratch_enter(state) != 0 || store_create("fwfs.db", NULL) < 0 ||
        store_open("fwfs.db", 0, &store, NULL) < 0)
        return -1;
    free(scratch_write_pattern("code.fd", FIXTURE_CODE_SIZE));
    free(scratch_write_pattern("vars.fd", FIXTURE_VARS_SIZE));
    *state = store;
    return 0;
}

int fixture_leave(void **state)
{
    store_close(*state);
    return scratch_leave(state);
}

struct descriptor_facts fixture_facts(enum flash_mode mode)
{
    static const char *const machines[] = {"pc-i440fx-*", "pc-q35-*"};
    struct descriptor_facts facts = {
        .description = "Firmware for tests",
        .mode = mode,
        .executable = {.filename = "code.fd"},
        .architecture = "x86_64",
        .machines = machines,
        .machine_count = 2,
    };
    if (mode == FLASH_MODE_SPLIT)
        facts.nvram_template.filename = "vars.fd";
    return facts;
}

void fixture_install(struct store *store, const char *firmware,
                     const struct descriptor_facts *facts)
{
    cleanup(descriptor_freep) struct descriptor *descriptor = NULL;
    struct error err = {0};
    assert_ok(descriptor_new(facts, &descriptor, &err), err);
    assert_ok(install_firmware(store, firmware, descriptor, &err), err);
}

struct store_guest fixture_guest(struct store *store, const char *firmware, const char *name)
{
    const struct store_attr attr = {.uid = 107, .gid = 108, .mode = 0640};
    struct store_guest guest = {0};
    struct error err = {0};
    assert_ok(store_guest_add(store, firmware, &name, 1, &attr, &err), err);
    assert_ok(store_guest_by_name(store, name, &guest, &err), err);
    return guest;
}
