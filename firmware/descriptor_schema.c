#include "firmware/descriptor_schema.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/mode.h"
#include "firmware/descriptor.h"

const char *const image_format_names[] = {
    [IMAGE_FORMAT_RAW] = "raw",
    [IMAGE_FORMAT_QCOW2] = "qcow2",
    NULL,
};

/* FirmwareOSInterface and FirmwareArchitecture. */
static const char *const interfaces[] = {"bios", "openfirmware", "uboot", "uefi", NULL};
static const char *const architectures[] = {"aarch64", "arm",    "i386", "loongarch64",
                                            "riscv64", "x86_64", NULL};

/* Where in the descriptor, e.g. "mapping.executable" or "targets[0].machines[2]". Made of the
 * schema's own words and indexes only, never of the input's, hence short. */
struct place {
    char path[128];
};

static struct place place_of_member(const char *parent, const char *name)
{
    struct place place;
    int length =
        snprintf(place.path, sizeof place.path, "%s%s%s", parent, *parent ? "." : "", name);
    assert((size_t)length < sizeof place.path);
    return place;
}

static struct place place_of_item(const char *parent, size_t index)
{
    struct place place;
    int length = snprintf(place.path, sizeof place.path, "%s[%zu]", parent, index);
    assert((size_t)length < sizeof place.path);
    return place;
}

static int check_type(struct json_object *value, const char *path, enum json_type type,
                      struct error *err)
{
    if (!json_object_is_type(value, type))
        return error_set(err, -EINVAL, "%s: must be %s %s, not %s", path,
                         type == json_type_string ? "a" : "an", json_type_to_name(type),
                         json_type_to_name(json_object_get_type(value)));
    if (type == json_type_string &&
        strlen(json_object_get_string(value)) != (size_t)json_object_get_string_len(value))
        return error_set(err, -EINVAL, "%s: must not hold a NUL character", path);
    return 0;
}

static int check_word(struct json_object *value, const char *path, const char *const *words,
                      struct error *err)
{
    const char *word = json_object_get_string(value);
    char list[128] = "";
    for (size_t i = 0; words[i]; i++) {
        if (strcmp(word, words[i]) == 0)
            return 0;
        size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", words[i]);
    }
    return error_set(err, -EINVAL, "%s: must be one of %s, not \"%s\"", path, list, word);
}

/* Sets *ret to the member, or to NULL if it is absent. */
static int get_optional(struct json_object *object, const char *parent, const char *name,
                        enum json_type type, struct json_object **ret, struct error *err)
{
    if (!json_object_object_get_ex(object, name, ret)) {
        *ret = NULL;
        return 0;
    }
    return check_type(*ret, place_of_member(parent, name).path, type, err);
}

static int get_mandatory(struct json_object *object, const char *parent, const char *name,
                         enum json_type type, struct json_object **ret, struct error *err)
{
    int r = get_optional(object, parent, name, type, ret, err);
    if (r == 0 && !*ret)
        return error_set(err, -EINVAL, "%s: is missing; QEMU's firmware.json schema demands it",
                         place_of_member(parent, name).path);
    return r;
}

/* Checks the mandatory member `name`, an array of strings; each is one of `words` if these are
 * given. */
static int check_strings(struct json_object *object, const char *parent, const char *name,
                         const char *const *words, struct json_object **ret, struct error *err)
{
    int r = get_mandatory(object, parent, name, json_type_array, ret, err);
    struct place array = place_of_member(parent, name);
    for (size_t i = 0; r == 0 && i < json_object_array_length(*ret); i++) {
        struct json_object *item = json_object_array_get_idx(*ret, i);
        struct place place = place_of_item(array.path, i);
        r = check_type(item, place.path, json_type_string, err);
        if (r == 0 && words)
            r = check_word(item, place.path, words, err);
    }
    return r;
}

/* FirmwareFlashFile. */
static int check_flash_file(struct json_object *file, const char *path, struct error *err)
{
    struct json_object *filename, *format;
    int r = get_mandatory(file, path, "filename", json_type_string, &filename, err);
    if (r < 0)
        return r;
    if (json_object_get_string_len(filename) == 0)
        return error_set(err, -EINVAL, "%s.filename: must not be empty", path);
    r = get_mandatory(file, path, "format", json_type_string, &format, err);
    if (r < 0)
        return r;
    return check_word(format, place_of_member(path, "format").path, image_format_names, err);
}

static int check_nvram_template(struct json_object *nvram, enum flash_mode mode, struct error *err)
{
    if (mode == FLASH_MODE_SPLIT && !nvram)
        return error_set(err, -EINVAL,
                         "mapping.nvram-template: is missing, and mode \"split\" needs one; add it "
                         "or set \"mode\": \"combined\" or \"stateless\"");
    if (mode != FLASH_MODE_SPLIT && nvram)
        return error_set(err, -EINVAL,
                         "mapping.nvram-template: mode \"%s\" takes none; remove it or set "
                         "\"mode\": \"split\"",
                         flash_mode_name(mode));
    return nvram ? check_flash_file(nvram, "mapping.nvram-template", err) : 0;
}

/* FirmwareMappingFlash. */
static int check_flash(struct json_object *mapping, struct error *err)
{
    struct json_object *word, *executable, *nvram;
    enum flash_mode mode = FLASH_MODE_SPLIT;
    int r = get_optional(mapping, "mapping", "mode", json_type_string, &word, err);
    if (r < 0)
        return r;
    if (word && flash_mode_parse(json_object_get_string(word), &mode) < 0)
        return error_set(err, -EINVAL, "mapping.mode: must be one of %s, %s, %s, not \"%s\"",
                         flash_mode_name(FLASH_MODE_SPLIT), flash_mode_name(FLASH_MODE_COMBINED),
                         flash_mode_name(FLASH_MODE_STATELESS), json_object_get_string(word));

    r = get_mandatory(mapping, "mapping", "executable", json_type_object, &executable, err);
    if (r == 0)
        r = check_flash_file(executable, "mapping.executable", err);
    if (r == 0)
        r = get_optional(mapping, "mapping", "nvram-template", json_type_object, &nvram, err);
    return r < 0 ? r : check_nvram_template(nvram, mode, err);
}

static int check_mapping(struct json_object *root, struct error *err)
{
    struct json_object *mapping, *device;
    int r = get_mandatory(root, "", "mapping", json_type_object, &mapping, err);
    if (r == 0)
        r = get_mandatory(mapping, "mapping", "device", json_type_string, &device, err);
    if (r < 0)
        return r;
    if (strcmp(json_object_get_string(device), "flash") != 0)
        return error_set(err, -ENOTSUP, "mapping.device: only \"flash\" is supported, not \"%s\"",
                         json_object_get_string(device));
    return check_flash(mapping, err);
}

/* FirmwareTarget, each. */
static int check_targets(struct json_object *root, struct error *err)
{
    struct json_object *targets, *value;
    int r = get_mandatory(root, "", "targets", json_type_array, &targets, err);
    for (size_t i = 0; r == 0 && i < json_object_array_length(targets); i++) {
        struct json_object *target = json_object_array_get_idx(targets, i);
        struct place place = place_of_item("targets", i);
        r = check_type(target, place.path, json_type_object, err);
        if (r == 0)
            r = get_mandatory(target, place.path, "architecture", json_type_string, &value, err);
        if (r == 0)
            r = check_word(value, place_of_member(place.path, "architecture").path, architectures,
                           err);
        if (r == 0)
            r = check_strings(target, place.path, "machines", NULL, &value, err);
    }
    return r;
}

int descriptor_schema_check(struct json_object *root, struct error *err)
{
    struct json_object *value;
    if (!json_object_is_type(root, json_type_object))
        return error_set(err, -EINVAL, "must be a JSON object, not %s",
                         json_type_to_name(json_object_get_type(root)));

    int r = get_mandatory(root, "", "description", json_type_string, &value, err);
    if (r == 0)
        r = check_strings(root, "", "interface-types", interfaces, &value, err);
    if (r == 0 && json_object_array_length(value) == 0)
        r = error_set(err, -EINVAL,
                      "interface-types: must not be empty; for UEFI it is [\"uefi\"]");
    if (r == 0)
        r = check_mapping(root, err);
    if (r == 0)
        r = check_targets(root, err);
    if (r == 0)
        r = check_strings(root, "", "features", NULL, &value, err);
    if (r == 0)
        r = check_strings(root, "", "tags", NULL, &value, err);
    return r;
}
