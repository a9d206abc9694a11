#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "guest/libvirt.h"
#include "guest_fixture.h"
#include "testing.h"

static char *domain_of(struct store *store, const struct store_guest *guest, const char *mountpoint,
                       enum virt_type type)
{
    char *text = NULL;
    struct error err = {0};
    assert_ok(libvirt_guest_domain(store, guest, mountpoint, type, &text, &err), err);
    return text;
}

/* Installs firmware of these facts, and a guest of it. */
static struct store_guest add_guest(struct store *store, const struct descriptor_facts *facts,
                                    const char *name)
{
    fixture_install(store, "ovmf", facts);
    return fixture_guest(store, "ovmf", name);
}

static void split_has_its_own_nvram(void **state)
{
    struct descriptor_facts facts = fixture_facts(FLASH_MODE_SPLIT);
    cleanup_free char *template = realpath("vars.fd", NULL);
    facts.nvram_template.filename = template;
    struct store_guest guest = add_guest(*state, &facts, "web01");
    cleanup_free char *text = domain_of(*state, &guest, "/fw", VIRT_TYPE_KVM);
    cleanup_free char *expected = NULL;
    assert_true(asprintf(&expected,
                         "<domain type='kvm'>\n"
                         "  <name>web01</name>\n"
                         "  <memory unit='MiB'>1024</memory>\n"
                         "  <vcpu>1</vcpu>\n"
                         "  <os>\n"
                         "    <type arch='x86_64' machine='q35'>hvm</type>\n"
                         "    <loader readonly='yes' type='pflash'>/fw/web01/code</loader>\n"
                         "    <nvram template='%s'>/fw/web01/vars</nvram>\n"
                         "  </os>\n"
                         "  <features>\n"
                         "    <acpi/>\n"
                         "    <apic/>\n"
                         "  </features>\n"
                         "  <cpu mode='host-passthrough'/>\n"
                         "  <devices>\n"
                         "    <serial type='pty'/>\n"
                         "    <console type='pty'/>\n"
                         "  </devices>\n"
                         "</domain>\n",
                         template) > 0);
    assert_string_equal(text, expected);
}

/* libvirt would copy them, or look for them where it runs. */
static void templates_of_no_use_to_libvirt_are_left_out(void **state)
{
    struct descriptor_facts facts = fixture_facts(FLASH_MODE_SPLIT);
    struct store_guest guest = add_guest(*state, &facts, "web01");
    cleanup_free char *text = domain_of(*state, &guest, "/fw", VIRT_TYPE_KVM);
    assert_contains(text, "<nvram>/fw/web01/vars</nvram>");
}

static void combined_writes_its_loader(void **state)
{
    struct descriptor_facts facts = fixture_facts(FLASH_MODE_COMBINED);
    struct store_guest guest = add_guest(*state, &facts, "web01");
    cleanup_free char *text = domain_of(*state, &guest, "/fw", VIRT_TYPE_KVM);
    assert_contains(text, "<loader readonly='no' type='pflash'>/fw/web01/code</loader>");
    assert_null(strstr(text, "nvram"));
}

static void stateless_says_so(void **state)
{
    struct descriptor_facts facts = fixture_facts(FLASH_MODE_STATELESS);
    struct store_guest guest = add_guest(*state, &facts, "web01");
    cleanup_free char *text = domain_of(*state, &guest, "/", VIRT_TYPE_KVM);
    assert_contains(text,
                    "<loader readonly='yes' type='pflash' stateless='yes'>/web01/code</loader>");
    assert_null(strstr(text, "nvram"));
}

static void smm_guards_the_flash(void **state)
{
    static const char *const features[] = {"secure-boot", "requires-smm"};
    struct descriptor_facts facts = fixture_facts(FLASH_MODE_SPLIT);
    facts.features = features;
    facts.feature_count = 2;
    struct store_guest guest = add_guest(*state, &facts, "web01");
    cleanup_free char *text = domain_of(*state, &guest, "/fw", VIRT_TYPE_KVM);
    assert_contains(text, "<loader readonly='yes' type='pflash' secure='yes'>");
    assert_contains(text, "<smm state='on'/>");
}

static void other_architectures_have_libvirts_names(void **state)
{
    static const struct {
        const char *architecture, *machine, *type, *features;
    } cases[] = {
        {"i386", "pc-i440fx-*", "<type arch='i686' machine='pc'>", "<acpi/>\n    <apic/>\n"},
        {"aarch64", "virt-*", "<type arch='aarch64' machine='virt'>", "<acpi/>\n  </features>"},
        {"arm", "virt-*", "<type arch='armv7l' machine='virt'>", "  </os>\n  <cpu"},
        {"riscv64", "*", "<type arch='riscv64'>", "  </os>\n  <cpu"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct descriptor_facts facts = fixture_facts(FLASH_MODE_SPLIT);
        facts.architecture = cases[i].architecture;
        facts.machines = &cases[i].machine;
        facts.machine_count = 1;
        fixture_install(*state, cases[i].architecture, &facts);
        struct store_guest guest =
            fixture_guest(*state, cases[i].architecture, cases[i].architecture);
        cleanup_free char *text = domain_of(*state, &guest, "/fw", VIRT_TYPE_QEMU);
        assert_contains(text, cases[i].type);
        assert_contains(text, cases[i].features);
    }
}

static void emulation_has_its_own_processor(void **state)
{
    struct descriptor_facts facts = fixture_facts(FLASH_MODE_SPLIT);
    struct store_guest guest = add_guest(*state, &facts, "web01");
    cleanup_free char *text = domain_of(*state, &guest, "/fw", VIRT_TYPE_QEMU);
    assert_contains(text, "<domain type='qemu'>");
    assert_contains(text, "<cpu mode='maximum'/>");
}

static void names_are_escaped(void **state)
{
    struct descriptor_facts facts = fixture_facts(FLASH_MODE_STATELESS);
    struct store_guest guest = add_guest(*state, &facts, "<b> & 'ü' \"]]>");
    cleanup_free char *text = domain_of(*state, &guest, "/f&w", VIRT_TYPE_KVM);
    assert_contains(text, "<name>&lt;b&gt; &amp; &apos;ü&apos; &quot;]]&gt;</name>");
    assert_contains(text, ">/f&amp;w/&lt;b&gt; &amp; &apos;ü&apos; &quot;]]&gt;/code</loader>");
}

static void what_xml_cannot_hold_is_refused(void **state)
{
    struct descriptor_facts facts = fixture_facts(FLASH_MODE_STATELESS);
    struct store_guest good = add_guest(*state, &facts, "web01");
    struct store_guest bad = fixture_guest(*state, "ovmf", "a\uffff");
    char *text = NULL;
    struct error err = {0};
    int r = libvirt_guest_domain(*state, &bad, "/fw", VIRT_TYPE_KVM, &text, &err);
    assert_error(r, -EINVAL, err, "the guest's name holds U+FFFF");
    static const char *const mountpoints[] = {"/f\nw", "/f\xffw", "/\x1b[2J"};
    for (size_t i = 0; i < sizeof mountpoints / sizeof mountpoints[0]; i++) {
        r = libvirt_guest_domain(*state, &good, mountpoints[i], VIRT_TYPE_KVM, &text, &err);
        assert_error(r, -EINVAL, err, "the path of its code ");
    }
    assert_null(text);
}

static void virt_types_have_names(void **state)
{
    enum virt_type type;
    assert_int_equal(virt_type_parse("kvm", &type), 0);
    assert_int_equal(type, VIRT_TYPE_KVM);
    assert_int_equal(virt_type_parse("qemu", &type), 0);
    assert_int_equal(type, VIRT_TYPE_QEMU);
    assert_int_equal(virt_type_parse("", &type), -EINVAL);
    assert_int_equal(virt_type_parse("xen", &type), -EINVAL);
}

int main(void)
{
#define with_store(test) cmocka_unit_test_setup_teardown(test, fixture_enter, fixture_leave)
    const struct CMUnitTest tests[] = {
        with_store(split_has_its_own_nvram),
        with_store(templates_of_no_use_to_libvirt_are_left_out),
        with_store(combined_writes_its_loader),
        with_store(stateless_says_so),
        with_store(smm_guards_the_flash),
        with_store(other_architectures_have_libvirts_names),
        with_store(emulation_has_its_own_processor),
        with_store(names_are_escaped),
        with_store(what_xml_cannot_hold_is_refused),
        cmocka_unit_test(virt_types_have_names),
    };
    return cmocka_run_group_tests_name("libvirt", tests, NULL, NULL);
}
