#include <stdlib.h>

#include "base/cleanup.h"
#include "guest/qemu.h"
#include "guest_fixture.h"
#include "testing.h"

static void assert_arguments(struct store *store, const char *guest_name, const char *mountpoint,
                             const char *const *expected, size_t count)
{
    cleanup(qemu_arguments_clear) struct qemu_arguments arguments = {0};
    struct store_guest guest;
    struct error err = {0};
    assert_ok(store_guest_by_name(store, guest_name, &guest, &err), err);
    assert_ok(qemu_guest_arguments(store, &guest, mountpoint, &arguments, &err), err);
    for (size_t i = 0; i < arguments.count && i < count; i++)
        assert_string_equal(arguments.values[i], expected[i]);
    assert_int_equal(arguments.count, count);
}

static void split_has_two_flashes(void **state)
{
    struct descriptor_facts facts = fixture_facts(FLASH_MODE_SPLIT);
    fixture_install(*state, "ovmf", &facts);
    fixture_guest(*state, "ovmf", "web01");
    static const char *const expected[] = {
        "-machine",
        "q35,pflash0=fwfs-code,pflash1=fwfs-vars",
        "-blockdev",
        "driver=file,node-name=fwfs-code-file,filename=/fw/web01/code,read-only=on",
        "-blockdev",
        "driver=raw,node-name=fwfs-code,file=fwfs-code-file,read-only=on",
        "-blockdev",
        "driver=file,node-name=fwfs-vars-file,filename=/fw/web01/vars,auto-read-only=on",
        "-blockdev",
        "driver=raw,node-name=fwfs-vars,file=fwfs-vars-file,read-only=off",
    };
    assert_arguments(*state, "web01", "/fw", expected, sizeof expected / sizeof expected[0]);
}

static void combined_writes_its_code(void **state)
{
    struct descriptor_facts facts = fixture_facts(FLASH_MODE_COMBINED);
    fixture_install(*state, "ovmf", &facts);
    fixture_guest(*state, "ovmf", "web01");
    static const char *const expected[] = {
        "-machine",
        "q35,pflash0=fwfs-code",
        "-blockdev",
        "driver=file,node-name=fwfs-code-file,filename=/fw/web01/code,auto-read-only=on",
        "-blockdev",
        "driver=raw,node-name=fwfs-code,file=fwfs-code-file,read-only=off",
    };
    assert_arguments(*state, "web01", "/fw", expected, sizeof expected / sizeof expected[0]);
}

static void stateless_writes_nothing(void **state)
{
    struct descriptor_facts facts = fixture_facts(FLASH_MODE_STATELESS);
    fixture_install(*state, "ovmf", &facts);
    fixture_guest(*state, "ovmf", "web01");
    static const char *const expected[] = {
        "-machine",  "q35,pflash0=fwfs-code",
        "-blockdev", "driver=file,node-name=fwfs-code-file,filename=/web01/code,read-only=on",
        "-blockdev", "driver=raw,node-name=fwfs-code,file=fwfs-code-file,read-only=on",
    };
    assert_arguments(*state, "web01", "/", expected, sizeof expected / sizeof expected[0]);
}

static void smm_guards_the_flash(void **state)
{
    static const char *const features[] = {"secure-boot", "requires-smm"};
    struct descriptor_facts facts = fixture_facts(FLASH_MODE_COMBINED);
    facts.features = features;
    facts.feature_count = 2;
    facts.machine_count = 0;
    fixture_install(*state, "ovmf", &facts);
    fixture_guest(*state, "ovmf", "web01");
    static const char *const expected[] = {
        "-machine",
        "q35,pflash0=fwfs-code,smm=on",
        "-global",
        "driver=cfi.pflash01,property=secure,value=on",
        "-blockdev",
        "driver=file,node-name=fwfs-code-file,filename=/fw/web01/code,auto-read-only=on",
        "-blockdev",
        "driver=raw,node-name=fwfs-code,file=fwfs-code-file,read-only=off",
    };
    assert_arguments(*state, "web01", "/fw", expected, sizeof expected / sizeof expected[0]);
}

static void commas_are_doubled(void **state)
{
    struct descriptor_facts facts = fixture_facts(FLASH_MODE_STATELESS);
    fixture_install(*state, "ovmf", &facts);
    fixture_guest(*state, "ovmf", "a,,b=c,read-only=off");
    static const char *const expected[] = {
        "-machine",
        "q35,pflash0=fwfs-code",
        "-blockdev",
        "driver=file,node-name=fwfs-code-file,"
        "filename=/f,,w/a,,,,b=c,,read-only=off/code,read-only=on",
        "-blockdev",
        "driver=raw,node-name=fwfs-code,file=fwfs-code-file,read-only=on",
    };
    assert_arguments(*state, "a,,b=c,read-only=off", "/f,w", expected,
                     sizeof expected / sizeof expected[0]);
}

static void the_machine_comes_of_the_patterns(void **state)
{
    static const struct {
        const char *machines[3], *expected;
        bool smm;
    } cases[] = {
        {{"pc-i440fx-*"}, "pc,pflash0=fwfs-code"},
        {{"isapc", "pc-i440fx-*", "pc-q35-*"}, "q35,pflash0=fwfs-code"},
        {{"virt-*"}, "virt,pflash0=fwfs-code"},
        {{"sbsa-*", "pc-q35-7.2"}, "pc-q35-7.2,pflash0=fwfs-code"},
        {{"pc-q35-7.2"}, "pc-q35-7.2,pflash0=fwfs-code,smm=on", true},
        {{"pc-i440fx-*"}, "q35,pflash0=fwfs-code,smm=on", true},
        {{"microvm"}, "microvm,pflash0=fwfs-code"},
        {{"*"}, "pflash0=fwfs-code"},
        {{""}, "pflash0=fwfs-code"},
        {{"kernel=passwd", "q35,accel=kvm", "q[3]5"}, "pflash0=fwfs-code"},
    };
    static const char *const smm[] = {"requires-smm"};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct descriptor_facts facts = fixture_facts(FLASH_MODE_STATELESS);
        char name[] = {'f', (char)('a' + i), '\0'};
        facts.machines = cases[i].machines;
        for (facts.machine_count = 0; facts.machine_count < 3; facts.machine_count++)
            if (!cases[i].machines[facts.machine_count])
                break;
        facts.features = smm;
        facts.feature_count = cases[i].smm;
        fixture_install(*state, name, &facts);
        struct store_guest guest = fixture_guest(*state, name, name);
        cleanup(qemu_arguments_clear) struct qemu_arguments arguments = {0};
        struct error err = {0};
        assert_ok(qemu_guest_arguments(*state, &guest, "/fw", &arguments, &err), err);
        assert_string_equal(arguments.values[1], cases[i].expected);
    }
}

int main(void)
{
#define with_store(test) cmocka_unit_test_setup_teardown(test, fixture_enter, fixture_leave)
    const struct CMUnitTest tests[] = {
        with_store(split_has_two_flashes),    with_store(combined_writes_its_code),
        with_store(stateless_writes_nothing), with_store(smm_guards_the_flash),
        with_store(commas_are_doubled),       with_store(the_machine_comes_of_the_patterns),
    };
    return cmocka_run_group_tests_name("qemu", tests, NULL, NULL);
}
