#include <dirent.h>
#include <errno.h>
#include <json-c/json.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "firmware/descriptor.h"
#include "scratch.h"
#include "testing.h"

static const char good[] =
    "{\"description\": \"UEFI\", \"interface-types\": [\"uefi\", \"bios\"],\n"
    " \"mapping\": {\"device\": \"flash\", \"mode\": \"split\",\n"
    "  \"executable\": {\"filename\": \"/a/code.fd\", \"format\": \"raw\", \"sha\": \"12\"},\n"
    "  \"nvram-template\": {\"filename\": \"/a/vars.qcow2\", \"format\": \"qcow2\"},\n"
    "  \"later\": {\"x\": [1.50, null]}},\n"
    " \"targets\": [{\"architecture\": \"x86_64\", \"machines\": [\"pc-q35-*\", "
    "\"pc-i440fx-*\"]},\n"
    "              {\"architecture\": \"i386\", \"machines\": [\"isapc\"]}],\n"
    " \"features\": [\"secure-boot\", \"from-the-future\"], \"tags\": [\"a/b\"],\n"
    " \"unknown\": \"kept \\u00e9 é 日 😀\"}\n";

/* Parses a copy that ends where the text does, so that reading past it is seen. */
static int parse(const char *text, size_t length, struct descriptor **ret, struct error *err)
{
    cleanup_free char *exact = malloc(length + !length);
    assert_non_null(exact);
    memcpy(exact, text, length);
    return descriptor_parse(exact, length, ret, err);
}

static struct descriptor *parse_good(void)
{
    struct descriptor *descriptor = NULL;
    struct error err = {0};
    assert_ok(parse(good, strlen(good), &descriptor, &err), err);
    return descriptor;
}

static void reads_what_it_says(void **state)
{
    cleanup(descriptor_freep) struct descriptor *descriptor = parse_good();
    assert_int_equal(descriptor_mode(descriptor), FLASH_MODE_SPLIT);
    assert_string_equal(descriptor_description(descriptor), "UEFI");
    assert_string_equal(descriptor_executable(descriptor).filename, "/a/code.fd");
    assert_int_equal(descriptor_executable(descriptor).format, IMAGE_FORMAT_RAW);
    assert_string_equal(descriptor_nvram_template(descriptor).filename, "/a/vars.qcow2");
    assert_int_equal(descriptor_nvram_template(descriptor).format, IMAGE_FORMAT_QCOW2);
    assert_string_equal(descriptor_architecture(descriptor), "x86_64");
    assert_string_equal(descriptor_machine(descriptor, 0), "pc-q35-*");
    assert_string_equal(descriptor_machine(descriptor, 1), "pc-i440fx-*");
    assert_string_equal(descriptor_machine(descriptor, 2), "isapc");
    assert_null(descriptor_machine(descriptor, 3));
    assert_string_equal(descriptor_feature(descriptor, 1), "from-the-future");
    assert_null(descriptor_feature(descriptor, 2));
    assert_true(descriptor_has_feature(descriptor, "secure-boot"));
    assert_false(descriptor_has_feature(descriptor, "secure"));
}

/* ---- Refusals ---- */

struct change {
    const char *pointer; /* RFC 6901 */
    const char *value;   /* JSON; NULL removes the member */
    const char *error;
    int code; /* 0: -EINVAL */
};

static const struct change changes[] = {
    {"/description", NULL, "description: is missing"},
    {"/interface-types", NULL, "interface-types: is missing"},
    {"/mapping", NULL, "mapping: is missing"},
    {"/targets", NULL, "targets: is missing"},
    {"/features", NULL, "features: is missing"},
    {"/tags", NULL, "tags: is missing"},
    {"/description", "3", "description: must be a string, not int"},
    {"/description", "null", "description: must be a string, not null"},
    {"/interface-types", "[]", "interface-types: must not be empty"},
    {"/interface-types", "\"uefi\"", "interface-types: must be an array, not string"},
    {"/interface-types/1", "\"efi\"",
     "interface-types[1]: must be one of bios, openfirmware, uboot, uefi, not \"efi\""},
    {"/mapping", "[]", "mapping: must be an object, not array"},
    {"/mapping/device", NULL, "mapping.device: is missing"},
    {"/mapping/device", "\"memory\"", "mapping.device: only \"flash\" is supported, not \"memory\"",
     -ENOTSUP},
    {"/mapping/device", "\"tape\"", "mapping.device: only \"flash\"", -ENOTSUP},
    {"/mapping/mode", "\"half\"",
     "mapping.mode: must be one of split, combined, stateless, not \"half\""},
    {"/mapping/mode", "null", "mapping.mode: must be a string, not null"},
    {"/mapping/mode", "\"combined\"",
     "mapping.nvram-template: mode \"combined\" takes none; remove it or set \"mode\": \"split\""},
    {"/mapping/mode", "\"stateless\"", "mapping.nvram-template: mode \"stateless\" takes none"},
    {"/mapping/nvram-template", NULL, "mapping.nvram-template: is missing, and mode \"split\""},
    {"/mapping/nvram-template", "null", "mapping.nvram-template: must be an object, not null"},
    {"/mapping/nvram-template/format", "1",
     "mapping.nvram-template.format: must be a string, not int"},
    {"/mapping/executable", NULL, "mapping.executable: is missing"},
    {"/mapping/executable/filename", NULL, "mapping.executable.filename: is missing"},
    {"/mapping/executable/filename", "\"\"", "mapping.executable.filename: must not be empty"},
    {"/mapping/executable/filename", "\"/a\\u0000b\"",
     "mapping.executable.filename: must not hold a NUL character"},
    {"/mapping/executable/format", NULL, "mapping.executable.format: is missing"},
    {"/mapping/executable/format", "\"vmdk\"",
     "mapping.executable.format: must be one of raw, qcow2, not \"vmdk\""},
    {"/targets", "{}", "targets: must be an array, not object"},
    {"/targets/1", "\"x86_64\"", "targets[1]: must be an object, not string"},
    {"/targets/1/architecture", "\"sparc\"", "targets[1].architecture: must be one of aarch64, "},
    {"/targets/0/architecture", NULL, "targets[0].architecture: is missing"},
    {"/targets/1/machines", NULL, "targets[1].machines: is missing"},
    {"/targets/0/machines/1", "7", "targets[0].machines[1]: must be a string, not int"},
    {"/features/0", "true", "features[0]: must be a string, not boolean"},
    {"/tags/0", "{}", "tags[0]: must be a string, not object"},
};

static void apply(struct json_object **root, const char *pointer, const char *value)
{
    if (value) {
        assert_int_equal(json_pointer_set(root, pointer, json_tokener_parse(value)), 0);
        return;
    }
    cleanup_free char *parent = strdup(pointer);
    char *name = strrchr(parent, '/');
    *name++ = '\0';
    struct json_object *object;
    assert_int_equal(json_pointer_get(*root, parent, &object), 0);
    json_object_object_del(object, name);
}

static void refuses_what_breaks_the_schema(void **state)
{
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        cleanup_json struct json_object *root = json_tokener_parse(good);
        apply(&root, changes[i].pointer, changes[i].value);
        const char *text = json_object_to_json_string(root);
        struct descriptor *descriptor = NULL;
        struct error err = {0};
        assert_error(parse(text, strlen(text), &descriptor, &err),
                     changes[i].code ? changes[i].code : -EINVAL, err, changes[i].error);
        assert_null(descriptor);
    }
}

static void refuses_what_is_no_json_object(void **state)
{
    static const struct {
        const char *text, *error;
    } cases[] = {
        {"", "is no JSON object, or is cut off"},
        {" \n ", "is no JSON object, or is cut off: it ends in line 2"},
        {"null\n", "must be a JSON object, not null"},
        {"[]", "must be a JSON object, not array"},
        {"12", "is no JSON object, or is cut off"},
        {"{\"a\": 1,}", "is no JSON, see line 1"},
        {"{\"a\": 'x'}", "is no JSON, see line 1"},
        {"{\n\n\"a\": x}", "is no JSON, see line 3"},
        {"\xef\xbb\xbf{}", "is no JSON, see line 1"},
        {"{} {}", "must be one JSON object alone, but line 1"},
        {"{}\n// more", "must be one JSON object alone, but line 2"},
        {"{}\f", "must be one JSON object alone, but line 1"},
        {"{\"a\": \"\xff\"}", "is no JSON, see line 1: invalid utf-8"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct descriptor *descriptor = NULL;
        struct error err = {0};
        assert_error(parse(cases[i].text, strlen(cases[i].text), &descriptor, &err), -EINVAL, err,
                     cases[i].error);
    }
}

static void refuses_bytes_that_hide(void **state)
{
    struct descriptor *descriptor = NULL;
    struct error err = {0};
    assert_error(parse(good, sizeof good, &descriptor, &err), -EINVAL, err,
                 "is no JSON: it holds a NUL byte");

    char deep[400] = "{\"a\":";
    memset(deep + 5, '[', sizeof deep - 6);
    assert_error(parse(deep, strlen(deep), &descriptor, &err), -EINVAL, err,
                 "is nested too deeply in line 1");

    cleanup_free char *large = malloc(DESCRIPTOR_SIZE_MAX + 1);
    memset(large, ' ', DESCRIPTOR_SIZE_MAX + 1);
    memcpy(large, good, strlen(good));
    assert_error(parse(large, DESCRIPTOR_SIZE_MAX + 1, &descriptor, &err), -EINVAL, err, "has ");
    assert_ok(parse(large, DESCRIPTOR_SIZE_MAX, &descriptor, &err), err);
    descriptor_free(descriptor);
}

static void refuses_numbers_that_json_lacks(void **state)
{
    static const char *const numbers[] = {"NaN", "Infinity", "-Infinity", "1.", "-0.e5"};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        cleanup_free char *text = NULL;
        int length = asprintf(&text, "%.*s,\"n\":[%s]}", (int)strlen(good) - 2, good, numbers[i]);
        struct descriptor *descriptor = NULL;
        struct error err = {0};
        assert_error(parse(text, (size_t)length, &descriptor, &err), -EINVAL, err, "is no JSON");
    }
}

static void refuses_every_cut(void **state)
{
    for (size_t length = 0; length < strlen(good) - 1; length++) {
        struct descriptor *descriptor = NULL;
        struct error err = {0};
        assert_int_equal(parse(good, length, &descriptor, &err), -EINVAL);
        assert_contains(err.text, "is no JSON");
    }
}

static void refuses_without_an_error_object(void **state)
{
    struct descriptor *descriptor = NULL;
    assert_int_equal(descriptor_parse("[]", 2, &descriptor, NULL), -EINVAL);
    assert_int_equal(descriptor_load("/nonexistent", &descriptor, NULL), -ENOENT);
}

/* ---- Writing ---- */

static void keeps_all_members(void **state)
{
    cleanup(descriptor_freep) struct descriptor *descriptor = parse_good();
    cleanup_free char *text = descriptor_to_json(descriptor);
    assert_null(strchr(text, '\n'));
    cleanup_json struct json_object *before = json_tokener_parse(good);
    cleanup_json struct json_object *after = json_tokener_parse(text);
    assert_true(json_object_equal(before, after));
    assert_contains(text, "1.50");
    assert_contains(text, "\"a/b\"");
}

static void writes_a_guests_own_names(void **state)
{
    cleanup(descriptor_freep) struct descriptor *descriptor = parse_good();
    cleanup_free char *before = descriptor_to_json(descriptor);
    cleanup_free char *text = descriptor_to_json_for(descriptor, "/fw/g \"1\"/code", "/fw/g/vars");
    assert_int_equal(text[strlen(text) - 1], '\n');

    cleanup_json struct json_object *expected = json_tokener_parse(good);
    apply(&expected, "/mapping/executable/filename", "\"/fw/g \\\"1\\\"/code\"");
    apply(&expected, "/mapping/nvram-template/filename", "\"/fw/g/vars\"");
    apply(&expected, "/mapping/nvram-template/format", "\"raw\"");
    cleanup_json struct json_object *written = json_tokener_parse(text);
    assert_true(json_object_equal(written, expected));

    cleanup(descriptor_freep) struct descriptor *again = NULL;
    struct error err = {0};
    assert_ok(parse(text, strlen(text), &again, &err), err);
    cleanup_free char *after = descriptor_to_json(descriptor);
    assert_string_equal(before, after);
}

/* An absent mode stays absent: older readers of the schema do not know the member. */
static void takes_an_absent_mode_for_split(void **state)
{
    cleanup_json struct json_object *root = json_tokener_parse(good);
    apply(&root, "/mapping/mode", NULL);
    const char *text = json_object_to_json_string(root);
    cleanup(descriptor_freep) struct descriptor *descriptor = NULL;
    struct error err = {0};
    assert_ok(parse(text, strlen(text), &descriptor, &err), err);
    assert_int_equal(descriptor_mode(descriptor), FLASH_MODE_SPLIT);
    cleanup_free char *written = descriptor_to_json_for(descriptor, "/c", "/v");
    assert_null(strstr(written, "\"mode\""));
}

static void makes_one_of_facts(void **state)
{
    const char *const machines[] = {"virt-*"}, *const features[] = {"secure-boot"};
    struct descriptor_facts facts = {
        .description = "Arm",
        .mode = FLASH_MODE_STATELESS,
        .executable = {.filename = "/a/b.qcow2", .format = IMAGE_FORMAT_QCOW2},
        .architecture = "aarch64",
        .machines = machines,
        .machine_count = 1,
        .features = features,
        .feature_count = 1,
    };
    cleanup(descriptor_freep) struct descriptor *descriptor = NULL;
    struct error err = {0};
    assert_ok(descriptor_new(&facts, &descriptor, &err), err);
    cleanup_free char *text = descriptor_to_json(descriptor);
    assert_string_equal(
        text, "{\"description\":\"Arm\",\"interface-types\":[\"uefi\"],\"mapping\":"
              "{\"device\":\"flash\",\"mode\":\"stateless\",\"executable\":{\"filename\":"
              "\"/a/b.qcow2\",\"format\":\"qcow2\"}},\"targets\":[{\"architecture\":\"aarch64\","
              "\"machines\":[\"virt-*\"]}],\"features\":[\"secure-boot\"],\"tags\":[]}");
    assert_null(descriptor_nvram_template(descriptor).filename);
    cleanup_free char *own = descriptor_to_json_for(descriptor, "/fw/g/code", NULL);
    assert_contains(own, "\"/fw/g/code\"");
    assert_null(strstr(own, "nvram-template"));
}

static void facts_follow_the_same_rules(void **state)
{
    const char *const machines[] = {"q35"};
    struct descriptor_facts facts = {.description = "x", .executable = {.filename = "/c"}};
    struct descriptor *descriptor = NULL;
    struct error err = {0};
    assert_error(descriptor_new(&facts, &descriptor, &err), -EINVAL, err,
                 "mapping.nvram-template: is missing");
    facts.mode = FLASH_MODE_COMBINED;
    facts.machines = machines;
    facts.machine_count = 1;
    assert_error(descriptor_new(&facts, &descriptor, &err), -EINVAL, err,
                 "targets[0].architecture: is missing");
    facts.machine_count = 0;
    facts.executable.filename = "/\xff";
    assert_error(descriptor_new(&facts, &descriptor, &err), -EINVAL, err,
                 "is no JSON, see line 1: invalid utf-8");
    facts.executable.filename = "/c";
    assert_ok(descriptor_new(&facts, &descriptor, &err), err);
    assert_null(descriptor_architecture(descriptor));
    assert_null(descriptor_machine(descriptor, 0));
    descriptor_free(descriptor);
}

/* ---- Files ---- */

static void names_the_file_it_cannot_load(void **state)
{
    struct descriptor *descriptor = NULL;
    struct error err = {0};
    assert_error(descriptor_load("none.json", &descriptor, &err), -ENOENT, err,
                 "none.json: No such file or directory");
    assert_error(descriptor_load(".", &descriptor, &err), -EINVAL, err, ".: is no regular file");
    assert_int_equal(mkfifo("pipe.json", 0600), 0);
    assert_error(descriptor_load("pipe.json", &descriptor, &err), -EINVAL, err,
                 "pipe.json: is no regular file");
    scratch_write_text("empty.json", "");
    assert_error(descriptor_load("empty.json", &descriptor, &err), -EINVAL, err,
                 "empty.json: is empty");
    scratch_write_text("wrong.json", "{}");
    assert_error(descriptor_load("wrong.json", &descriptor, &err), -EINVAL, err,
                 "wrong.json: description: is missing");
    scratch_write_text("bad\n.json", "x");
    assert_error(descriptor_load("bad\n.json", &descriptor, &err), -EINVAL, err, "bad?.json: ");
}

static void loads_the_distributions(void **state)
{
    static const char directory[] = "/usr/share/qemu/firmware";
    DIR *entries = opendir(directory);
    if (!entries)
        skip();
    size_t count = 0;
    for (struct dirent *entry; (entry = readdir(entries));) {
        if (!strstr(entry->d_name, ".json"))
            continue;
        cleanup(descriptor_freep) struct descriptor *descriptor = NULL;
        cleanup_free char *path = NULL;
        struct error err = {0};
        assert_true(asprintf(&path, "%s/%s", directory, entry->d_name) > 0);
        int r = descriptor_load(path, &descriptor, &err);
        if (r == -ENOTSUP) /* not for flash */
            continue;
        assert_ok(r, err);
        assert_int_equal(*descriptor_executable(descriptor).filename, '/');
        assert_non_null(descriptor_architecture(descriptor));
        count++;
    }
    closedir(entries);
    assert_true(count > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_what_it_says),
        cmocka_unit_test(refuses_what_breaks_the_schema),
        cmocka_unit_test(refuses_what_is_no_json_object),
        cmocka_unit_test(refuses_bytes_that_hide),
        cmocka_unit_test(refuses_numbers_that_json_lacks),
        cmocka_unit_test(refuses_every_cut),
        cmocka_unit_test(refuses_without_an_error_object),
        cmocka_unit_test(keeps_all_members),
        cmocka_unit_test(writes_a_guests_own_names),
        cmocka_unit_test(takes_an_absent_mode_for_split),
        cmocka_unit_test(makes_one_of_facts),
        cmocka_unit_test(facts_follow_the_same_rules),
        cmocka_unit_test_setup_teardown(names_the_file_it_cannot_load, scratch_enter,
                                        scratch_leave),
        cmocka_unit_test(loads_the_distributions),
    };
    return cmocka_run_group_tests_name("descriptor", tests, NULL, NULL);
}
