/* A descriptor keeps the JSON it was read from, members that are not known included, and its text
 * on one line. All that is known was checked when it was made (descriptor_schema.c), so reading it
 * cannot fail; nothing is changed afterwards, not even by json-c, which caches texts in objects. */
#include "firmware/descriptor.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <json-c/json_visit.h>
#include <math.h>
#include <string.h>

#include "base/json.h"
#include "firmware/descriptor_schema.h"
#include "firmware/file.h"

struct descriptor {
    struct json_object *root;
    char *text;
    struct json_object *mapping, *targets, *features; /* within root */
    enum flash_mode mode;
};

const char *image_format_name(enum image_format format)
{
    return image_format_names[format];
}

static struct json_object *member(struct json_object *object, const char *name)
{
    struct json_object *value = NULL;
    json_object_object_get_ex(object, name, &value);
    return value;
}

/* ---- Reading ---- */

static size_t line_of(const char *text, size_t offset)
{
    size_t line = 1;
    for (size_t i = 0; i < offset; i++)
        line += text[i] == '\n';
    return line;
}

static int syntax_error(struct json_tokener *tokener, const char *text, size_t length,
                        struct error *err)
{
    enum json_tokener_error error = json_tokener_get_error(tokener);
    size_t end = json_tokener_get_parse_end(tokener);
    size_t line = line_of(text, end < length ? end : length);
    switch (error) {
    case json_tokener_continue:
        return error_set(err, -EINVAL, "is no JSON object, or is cut off: it ends in line %zu",
                         line);
    case json_tokener_error_depth:
        return error_set(err, -EINVAL, "is nested too deeply in line %zu", line);
    default:
        return error_set(err, -EINVAL, "is no JSON, see line %zu: %s", line,
                         json_tokener_error_desc(error));
    }
}

static void free_tokener(struct json_tokener **tokener)
{
    if (*tokener)
        json_tokener_free(*tokener);
}

static int parse_json(const char *text, size_t length, struct json_object **ret, struct error *err)
{
    cleanup(free_tokener) struct json_tokener *tokener = json_tokener_new();
    if (!tokener)
        return error_set(err, -ENOMEM, "%s", strerror(ENOMEM));
    if (length > DESCRIPTOR_SIZE_MAX)
        return error_set(err, -EINVAL, "has %zu bytes; a descriptor has at most %d", length,
                         DESCRIPTOR_SIZE_MAX);
    if (memchr(text, '\0', length))
        return error_set(err, -EINVAL, "is no JSON: it holds a NUL byte");

    /* What follows the object is looked at below, which gives a clearer line than json-c does. */
    json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_ALLOW_TRAILING_CHARS |
                                        JSON_TOKENER_VALIDATE_UTF8);
    cleanup_json struct json_object *root = json_tokener_parse_ex(tokener, text, (int)length);
    if (json_tokener_get_error(tokener) != json_tokener_success)
        return syntax_error(tokener, text, length, err);
    for (size_t i = json_tokener_get_parse_end(tokener); i < length; i++)
        if (!strchr(" \t\r\n", text[i]))
            return error_set(err, -EINVAL,
                             "must be one JSON object alone, but line %zu goes on after it",
                             line_of(text, i));
    *ret = steal_ptr(root);
    return 0;
}

/* json-c also reads NaN, Infinity and "1.", and would write them again, for others to stumble over.
 */
static bool is_number(struct json_object *value)
{
    const char *point = strchr(json_object_get_string(value), '.');
    return isfinite(json_object_get_double(value)) && (!point || isdigit((unsigned char)point[1]));
}

static int visit_number(struct json_object *value, int flags, struct json_object *parent,
                        const char *name, size_t *index, void *data)
{
    if (!json_object_is_type(value, json_type_double) || is_number(value))
        return JSON_C_VISIT_RETURN_CONTINUE;
    *(bool *)data = true;
    return JSON_C_VISIT_RETURN_STOP;
}

static int check_numbers(struct json_object *root, struct error *err)
{
    bool wrong = false;
    json_c_visit(root, 0, visit_number, &wrong);
    return wrong ? error_set(err, -EINVAL, "is no JSON: it holds a number that JSON does not have")
                 : 0;
}

/* Takes `root` over, which must have passed the checks. */
static int adopt(struct json_object *root, struct descriptor **ret, struct error *err)
{
    cleanup(descriptor_freep) struct descriptor *descriptor = calloc(1, sizeof *descriptor);
    if (!descriptor) {
        json_object_put(root);
        return error_set(err, -ENOMEM, "%s", strerror(ENOMEM));
    }
    descriptor->root = root;
    descriptor->mapping = member(root, "mapping");
    descriptor->targets = member(root, "targets");
    descriptor->features = member(root, "features");
    const char *mode = json_object_get_string(member(descriptor->mapping, "mode"));
    if (mode && flash_mode_parse(mode, &descriptor->mode) < 0)
        assert(!"checked by the schema");

    const char *text = json_object_to_json_string_ext(root, JSON_C_TO_STRING_PLAIN |
                                                                JSON_C_TO_STRING_NOSLASHESCAPE);
    descriptor->text = text ? strdup(text) : NULL;
    if (!descriptor->text)
        return error_set(err, -ENOMEM, "%s", strerror(ENOMEM));
    *ret = steal_ptr(descriptor);
    return 0;
}

int descriptor_parse(const char *text, size_t length, struct descriptor **ret, struct error *err)
{
    cleanup_json struct json_object *root = NULL;
    int r = parse_json(text, length, &root, err);
    if (r == 0)
        r = descriptor_schema_check(root, err);
    if (r == 0)
        r = check_numbers(root, err);
    return r < 0 ? r : adopt(steal_ptr(root), ret, err);
}

int descriptor_load(const char *path, struct descriptor **ret, struct error *err)
{
    cleanup_free void *text = NULL;
    size_t length;
    int r = file_read(path, DESCRIPTOR_SIZE_MAX, &text, &length, err);
    if (r == 0)
        r = descriptor_parse(text, length, ret, err);
    return r < 0 ? error_prefix(err, r, "%s", path) : 0;
}

/* ---- Making ---- */

static struct json_object *make_file(const struct descriptor_file *file)
{
    cleanup_json struct json_object *object = json_object_new_object();
    if (!object || json_add(object, "filename", json_object_new_string(file->filename)) < 0 ||
        json_add(object, "format", json_object_new_string(image_format_name(file->format))) < 0)
        return NULL;
    return steal_ptr(object);
}

static struct json_object *make_strings(const char *const *strings, size_t count)
{
    cleanup_json struct json_object *array = json_object_new_array();
    for (size_t i = 0; array && i < count; i++)
        if (json_append(array, json_object_new_string(strings[i])) < 0)
            return NULL;
    return steal_ptr(array);
}

static struct json_object *make_mapping(const struct descriptor_facts *facts)
{
    cleanup_json struct json_object *mapping = json_object_new_object();
    if (!mapping || json_add(mapping, "device", json_object_new_string("flash")) < 0 ||
        json_add(mapping, "mode", json_object_new_string(flash_mode_name(facts->mode))) < 0 ||
        json_add(mapping, "executable", make_file(&facts->executable)) < 0)
        return NULL;
    if (facts->nvram_template.filename &&
        json_add(mapping, "nvram-template", make_file(&facts->nvram_template)) < 0)
        return NULL;
    return steal_ptr(mapping);
}

static struct json_object *make_targets(const struct descriptor_facts *facts)
{
    cleanup_json struct json_object *targets = json_object_new_array();
    if (!targets || (!facts->architecture && facts->machine_count == 0))
        return steal_ptr(targets);
    cleanup_json struct json_object *target = json_object_new_object();
    if (!target)
        return NULL;
    if (facts->architecture &&
        json_add(target, "architecture", json_object_new_string(facts->architecture)) < 0)
        return NULL;
    if (json_add(target, "machines", make_strings(facts->machines, facts->machine_count)) < 0 ||
        json_append(targets, steal_ptr(target)) < 0)
        return NULL;
    return steal_ptr(targets);
}

static struct json_object *make_root(const struct descriptor_facts *facts)
{
    static const char *const uefi[] = {"uefi"};
    bool told = facts->interface_count > 0;
    cleanup_json struct json_object *root = json_object_new_object();
    if (!root || json_add(root, "description", json_object_new_string(facts->description)) < 0 ||
        json_add(root, "interface-types",
                 make_strings(told ? facts->interfaces : uefi, told ? facts->interface_count : 1)) <
            0 ||
        json_add(root, "mapping", make_mapping(facts)) < 0 ||
        json_add(root, "targets", make_targets(facts)) < 0 ||
        json_add(root, "features", make_strings(facts->features, facts->feature_count)) < 0 ||
        json_add(root, "tags", json_object_new_array()) < 0)
        return NULL;
    return steal_ptr(root);
}

int descriptor_new(const struct descriptor_facts *facts, struct descriptor **ret, struct error *err)
{
    cleanup_json struct json_object *root = make_root(facts);
    const char *text = root ? json_object_to_json_string(root) : NULL;
    if (!text)
        return error_set(err, -ENOMEM, "%s", strerror(ENOMEM));
    return descriptor_parse(text, strlen(text), ret, err);
}

void descriptor_free(struct descriptor *descriptor)
{
    if (!descriptor)
        return;
    json_object_put(descriptor->root);
    free(descriptor->text);
    free(descriptor);
}

void descriptor_freep(struct descriptor **descriptor)
{
    descriptor_free(*descriptor);
}

/* ---- What it says ---- */

enum flash_mode descriptor_mode(const struct descriptor *descriptor)
{
    return descriptor->mode;
}

static struct descriptor_file flash_file(const struct descriptor *descriptor, const char *name)
{
    struct descriptor_file file = {.filename = NULL};
    struct json_object *object = member(descriptor->mapping, name);
    if (!object)
        return file;
    const char *format = json_object_get_string(member(object, "format"));
    file.filename = json_object_get_string(member(object, "filename"));
    file.format = strcmp(format, image_format_names[IMAGE_FORMAT_QCOW2]) == 0 ? IMAGE_FORMAT_QCOW2
                                                                              : IMAGE_FORMAT_RAW;
    return file;
}

struct descriptor_file descriptor_executable(const struct descriptor *descriptor)
{
    return flash_file(descriptor, "executable");
}

struct descriptor_file descriptor_nvram_template(const struct descriptor *descriptor)
{
    return flash_file(descriptor, "nvram-template");
}

const char *descriptor_description(const struct descriptor *descriptor)
{
    return json_object_get_string(member(descriptor->root, "description"));
}

const char *descriptor_architecture(const struct descriptor *descriptor)
{
    struct json_object *target = json_object_array_get_idx(descriptor->targets, 0);
    return target ? json_object_get_string(member(target, "architecture")) : NULL;
}

const char *descriptor_machine(const struct descriptor *descriptor, size_t n)
{
    for (size_t i = 0; i < json_object_array_length(descriptor->targets); i++) {
        struct json_object *target = json_object_array_get_idx(descriptor->targets, i);
        struct json_object *machines = member(target, "machines");
        size_t count = json_object_array_length(machines);
        if (n < count)
            return json_object_get_string(json_object_array_get_idx(machines, n));
        n -= count;
    }
    return NULL;
}

const char *descriptor_feature(const struct descriptor *descriptor, size_t n)
{
    return json_object_get_string(json_object_array_get_idx(descriptor->features, n));
}

bool descriptor_has_feature(const struct descriptor *descriptor, const char *feature)
{
    const char *has;
    for (size_t n = 0; (has = descriptor_feature(descriptor, n)); n++)
        if (strcmp(has, feature) == 0)
            return true;
    return false;
}

char *descriptor_to_json(const struct descriptor *descriptor)
{
    return strdup(descriptor->text);
}

/* Sets a file's members in place, so that they keep their order and unknown ones beside them. */
static int set_file(struct json_object *mapping, const char *name, const char *filename)
{
    struct json_object *file = member(mapping, name);
    assert(file);
    int r = json_add(file, "filename", json_object_new_string(filename));
    if (r == 0)
        r = json_add(file, "format", json_object_new_string(image_format_names[IMAGE_FORMAT_RAW]));
    return r;
}

char *descriptor_to_json_for(const struct descriptor *descriptor, const char *executable,
                             const char *nvram_template)
{
    assert((nvram_template != NULL) == (descriptor->mode == FLASH_MODE_SPLIT));
    cleanup_json struct json_object *root = NULL;
    if (json_object_deep_copy(descriptor->root, &root, NULL) < 0)
        return NULL;
    struct json_object *mapping = member(root, "mapping");
    if (set_file(mapping, "executable", executable) < 0 ||
        (nvram_template && set_file(mapping, "nvram-template", nvram_template) < 0))
        return NULL;

    const char *text = json_object_to_json_string_ext(root, JSON_C_TO_STRING_PRETTY |
                                                                JSON_C_TO_STRING_NOSLASHESCAPE);
    char *ret;
    return text && asprintf(&ret, "%s\n", text) >= 0 ? ret : NULL;
}
