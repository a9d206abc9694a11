#include "guest/describe.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/json.h"

#define NANOSECONDS 1000000000

static int no_memory(struct error *err)
{
    return error_set(err, -ENOMEM, "%s", strerror(ENOMEM));
}

/* ---- What is shared ---- */

struct json_object *describe_new(void)
{
    cleanup_json struct json_object *object = json_object_new_object();
    if (!object ||
        json_add(object, "schema_version", json_object_new_int(DESCRIBE_SCHEMA_VERSION)) < 0)
        return NULL;
    return steal_ptr(object);
}

int describe_descriptor(struct store *store, const struct store_firmware *firmware,
                        struct descriptor **ret, struct error *err)
{
    cleanup(descriptor_freep) struct descriptor *descriptor = NULL;
    cleanup_free char *text = NULL;
    int r = store_firmware_descriptor(store, firmware->id, &text, err);
    if (r < 0)
        return r;
    r = descriptor_parse(text, strlen(text), &descriptor, err);
    if (r == 0 && descriptor_mode(descriptor) != firmware->mode)
        r = error_set(err, -EUCLEAN, "is of mode \"%s\", the firmware of mode \"%s\"",
                      flash_mode_name(descriptor_mode(descriptor)),
                      flash_mode_name(firmware->mode));
    if (r < 0)
        return error_prefix(err, r == -ENOMEM ? r : -EUCLEAN,
                            "the stored descriptor of firmware %s", firmware->name);
    *ret = steal_ptr(descriptor);
    return 0;
}

/* "<mountpoint>/<guest>/<file>"; the caller frees it. */
static int view_path(const char *mountpoint, const struct store_guest *guest, const char *file,
                     char **ret, struct error *err)
{
    const char *separator = strcmp(mountpoint, "/") == 0 ? "" : "/";
    if (asprintf(ret, "%s%s%s/%s", mountpoint, separator, guest->name, file) >= 0)
        return 0;
    *ret = NULL;
    return no_memory(err);
}

int describe_files(struct store *store, const struct store_guest *guest, const char *mountpoint,
                   struct describe_files *ret, struct error *err)
{
    cleanup(describe_files_clear) struct describe_files files = {0};
    int r = describe_descriptor(store, &guest->firmware, &files.descriptor, err);
    if (r == 0)
        r = view_path(mountpoint, guest, "code", &files.code, err);
    if (r == 0 && guest->firmware.mode == FLASH_MODE_SPLIT)
        r = view_path(mountpoint, guest, "vars", &files.vars, err);
    if (r < 0)
        return r;
    *ret = files;
    files = (struct describe_files){0};
    return 0;
}

void describe_files_clear(struct describe_files *files)
{
    descriptor_free(files->descriptor);
    free(files->code);
    free(files->vars);
    *files = (struct describe_files){0};
}

int describe_text(struct json_object *object, char **ret, struct error *err)
{
    cleanup_json struct json_object *taken = object;
    const char *text = json_object_to_json_string_ext(taken, JSON_C_TO_STRING_PRETTY |
                                                                 JSON_C_TO_STRING_NOSLASHESCAPE);
    if (text && asprintf(ret, "%s\n", text) >= 0)
        return 0;
    *ret = NULL;
    return no_memory(err);
}

/* A new object below `object`, which owns it; NULL when memory ran out. */
static struct json_object *add_object(struct json_object *object, const char *name)
{
    struct json_object *child = json_object_new_object();
    return json_add(object, name, child) == 0 ? child : NULL;
}

/* ISO 8601, UTC. */
struct json_object *describe_time(int64_t nanoseconds)
{
    time_t seconds = (time_t)(nanoseconds / NANOSECONDS);
    struct tm tm;
    char text[64];
    if (!gmtime_r(&seconds, &tm) || strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        return NULL;
    return json_object_new_string(text);
}

static struct json_object *new_digest(const struct store_image *image)
{
    char hex[2 * STORE_DIGEST_SIZE + 1];
    for (size_t i = 0; i < STORE_DIGEST_SIZE; i++)
        snprintf(hex + 2 * i, 3, "%02x", image->digest[i]);
    return json_object_new_string(hex);
}

/* ---- Guests ---- */

static int add_firmware_facts(struct store *store, const struct store_firmware *firmware,
                              struct json_object *object, struct error *err)
{
    cleanup(descriptor_freep) struct descriptor *descriptor = NULL;
    int r = describe_descriptor(store, firmware, &descriptor, err);
    if (r < 0)
        return r;
    const char *description = descriptor_description(descriptor);
    if (json_add(object, "firmware", json_object_new_string(firmware->name)) < 0 ||
        json_add(object, "firmware_description", json_object_new_string(description)) < 0)
        return no_memory(err);
    return 0;
}

static int add_owner(const struct store_attr *attr, struct json_object *object)
{
    char mode[8];
    snprintf(mode, sizeof mode, "%04o", attr->mode & 07777);
    struct json_object *owner = add_object(object, "owner");
    return owner && json_add(owner, "uid", json_object_new_int64(attr->uid)) == 0 &&
                   json_add(owner, "gid", json_object_new_int64(attr->gid)) == 0 &&
                   json_add(owner, "mode", json_object_new_string(mode)) == 0
               ? 0
               : -ENOMEM;
}

/* One file of the view and the image that it is, or began as. */
static int add_view_file(struct json_object *object, const char *file, const char *digest,
                         const struct store_image *image, bool read_only)
{
    struct json_object *view = add_object(object, file);
    return view && json_add(view, "size_bytes", json_object_new_uint64(image->size)) == 0 &&
                   json_add(view, digest, new_digest(image)) == 0 &&
                   json_add(view, "read_only", json_object_new_boolean(read_only)) == 0
               ? 0
               : -ENOMEM;
}

static int add_views(const struct store_guest *guest, struct json_object *object)
{
    int r = add_view_file(object, "code", "image_sha256", &guest->firmware.executable,
                          guest->firmware.mode != FLASH_MODE_COMBINED);
    if (r == 0 && guest->firmware.mode == FLASH_MODE_SPLIT)
        r = add_view_file(object, "vars", "template_sha256", &guest->firmware.nvram_template,
                          false);
    return r;
}

/* Who has it open for writing, or null. */
static int add_holder(struct store *store, const struct store_guest *guest,
                      struct json_object *object, struct error *err)
{
    struct store_holder holder;
    int r = store_lease_get(store, guest->flash.id, &holder, err);
    if (r < 0)
        return r;
    if (r == 0) {
        json_object_object_add(object, "holder", NULL);
        return 0;
    }
    struct json_object *members = add_object(object, "holder");
    if (!members || json_add(members, "pid", json_object_new_int64(holder.opener.pid)) < 0 ||
        json_add(members, "command", json_object_new_string(holder.opener.command)) < 0 ||
        json_add(members, "mountpoint", json_object_new_string(holder.mountpoint)) < 0 ||
        json_add(members, "since", describe_time(holder.since)) < 0)
        return no_memory(err);
    return 0;
}

static int add_usage(struct store *store, const struct store_guest *guest,
                     struct json_object *object, struct error *err)
{
    struct store_usage usage;
    int r = store_flash_usage(store, guest->flash.id, &usage, err);
    if (r < 0)
        return r;
    uint64_t apparent = guest->firmware.executable.size;
    if (guest->firmware.mode == FLASH_MODE_SPLIT)
        apparent += guest->firmware.nvram_template.size;
    struct json_object *members = add_object(object, "usage");
    if (!members || json_add(members, "apparent_bytes", json_object_new_uint64(apparent)) < 0 ||
        json_add(members, "delta_bytes", json_object_new_uint64(usage.delta_bytes)) < 0 ||
        json_add(members, "stored_bytes", json_object_new_uint64(usage.stored_bytes)) < 0)
        return no_memory(err);
    return 0;
}

int describe_guest(struct store *store, const struct store_guest *guest, struct json_object *object,
                   struct error *err)
{
    if (json_add(object, "guest", json_object_new_string(guest->name)) < 0 ||
        json_add(object, "mode", json_object_new_string(flash_mode_name(guest->firmware.mode))) < 0)
        return no_memory(err);
    int r = add_firmware_facts(store, &guest->firmware, object, err);
    if (r < 0)
        return r;
    if (add_owner(&guest->flash.attr, object) < 0 ||
        json_add(object, "created_at", describe_time(guest->created_at)) < 0 ||
        add_views(guest, object) < 0)
        return no_memory(err);
    r = add_holder(store, guest, object, err);
    return r < 0 ? r : add_usage(store, guest, object, err);
}

int describe_guest_text(struct store *store, const struct store_guest *guest, char **ret,
                        struct error *err)
{
    cleanup_json struct json_object *object = describe_new();
    if (!object)
        return no_memory(err);
    int r = describe_guest(store, guest, object, err);
    return r < 0 ? r : describe_text(steal_ptr(object), ret, err);
}

int describe_guest_descriptor(struct store *store, const struct store_guest *guest,
                              const char *mountpoint, char **ret, struct error *err)
{
    cleanup(describe_files_clear) struct describe_files files = {0};
    int r = describe_files(store, guest, mountpoint, &files, err);
    if (r < 0)
        return r;
    *ret = descriptor_to_json_for(files.descriptor, files.code, files.vars);
    return *ret ? 0 : no_memory(err);
}

/* ---- Firmware ---- */

static int add_image(struct json_object *object, const char *name, struct descriptor_file file,
                     const struct store_image *image)
{
    struct json_object *child = add_object(object, name);
    return child && json_add(child, "filename", json_object_new_string(file.filename)) == 0 &&
                   json_add(child, "size_bytes", json_object_new_uint64(image->size)) == 0 &&
                   json_add(child, "sha256", new_digest(image)) == 0
               ? 0
               : -ENOMEM;
}

static int add_list(struct json_object *object, const char *name,
                    const char *(*nth)(const struct descriptor *descriptor, size_t n),
                    const struct descriptor *descriptor)
{
    struct json_object *array = json_object_new_array();
    int r = json_add(object, name, array);
    const char *item;
    for (size_t n = 0; r == 0 && (item = nth(descriptor, n)); n++)
        r = json_append(array, json_object_new_string(item));
    return r;
}

/* The members that the descriptor knows. */
static int add_descriptor_facts(const struct store_firmware *firmware,
                                const struct descriptor *descriptor, struct json_object *object)
{
    const char *architecture = descriptor_architecture(descriptor);
    int r =
        add_image(object, "executable", descriptor_executable(descriptor), &firmware->executable);
    if (r == 0 && firmware->nvram_template.id)
        r = add_image(object, "nvram_template", descriptor_nvram_template(descriptor),
                      &firmware->nvram_template);
    if (r == 0 && architecture)
        r = json_add(object, "architecture", json_object_new_string(architecture));
    if (r == 0)
        r = add_list(object, "machines", descriptor_machine, descriptor);
    if (r == 0)
        r = add_list(object, "features", descriptor_feature, descriptor);
    return r;
}

static int add_descriptor(const struct descriptor *descriptor, struct json_object *object)
{
    cleanup_free char *text = descriptor_to_json(descriptor);
    return text ? json_add(object, "descriptor", json_tokener_parse(text)) : -ENOMEM;
}

int describe_firmware(struct store *store, const struct store_firmware *firmware,
                      struct json_object *object, struct error *err)
{
    cleanup(descriptor_freep) struct descriptor *descriptor = NULL;
    uint64_t guests;
    int r = describe_descriptor(store, firmware, &descriptor, err);
    if (r == 0)
        r = store_firmware_guests(store, firmware->id, &guests, err);
    if (r < 0)
        return r;
    const char *description = descriptor_description(descriptor);
    if (json_add(object, "firmware", json_object_new_string(firmware->name)) < 0 ||
        json_add(object, "description", json_object_new_string(description)) < 0 ||
        json_add(object, "mode", json_object_new_string(flash_mode_name(firmware->mode))) < 0 ||
        add_descriptor_facts(firmware, descriptor, object) < 0 ||
        json_add(object, "guest_count", json_object_new_uint64(guests)) < 0 ||
        json_add(object, "created_at", describe_time(firmware->created_at)) < 0 ||
        add_descriptor(descriptor, object) < 0)
        return no_memory(err);
    return 0;
}
