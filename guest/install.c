#include "guest/install.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "firmware/image.h"

static int load_image(const char *member, struct descriptor_file file, struct image *ret,
                      struct error *err)
{
    if (!file.filename)
        return 0;
    int r = image_load(file.filename, file.format, ret, err);
    return r < 0 ? error_prefix(err, r, "%s", member) : 0;
}

int install_firmware(struct store *store, const char *name, const struct descriptor *descriptor,
                     struct error *err)
{
    cleanup(image_unload) struct image executable = {.bytes = NULL};
    cleanup(image_unload) struct image nvram_template = {.bytes = NULL};
    int r = store_check_name("firmware", name, err);
    if (r == 0)
        r = load_image("executable", descriptor_executable(descriptor), &executable, err);
    if (r == 0)
        r = load_image("nvram-template", descriptor_nvram_template(descriptor), &nvram_template,
                       err);
    if (r < 0)
        return r;

    cleanup_free char *text = descriptor_to_json(descriptor);
    if (!text)
        return error_set(err, -ENOMEM, "%s", strerror(ENOMEM));
    struct store_firmware_spec spec = {
        .name = name,
        .mode = descriptor_mode(descriptor),
        .executable = {.bytes = executable.bytes, .size = executable.size},
        .nvram_template = {.bytes = nvram_template.bytes, .size = nvram_template.size},
        .descriptor = text,
    };
    return store_firmware_add(store, &spec, err);
}

static int name_of(const char *path, char name[STORE_NAME_MAX + 1], struct error *err)
{
    static const char suffix[] = ".json";
    const char *slash = strrchr(path, '/');
    const char *file = slash ? slash + 1 : path;
    size_t length = strlen(file);
    size_t without = length - (sizeof suffix - 1);
    if (length > sizeof suffix - 1 && strcmp(file + without, suffix) == 0)
        length = without;
    if (length > STORE_NAME_MAX)
        return error_set(err, -EINVAL, "%s: the file's name is too long for a firmware's", path);
    memcpy(name, file, length);
    name[length] = '\0';
    return 0;
}

int install_descriptor(struct store *store, const char *path, char name[STORE_NAME_MAX + 1],
                       struct error *err)
{
    cleanup(descriptor_freep) struct descriptor *descriptor = NULL;
    name[0] = '\0';
    int r = name_of(path, name, err);
    if (r == 0)
        r = descriptor_load(path, &descriptor, err);
    if (r < 0)
        return r;
    r = install_firmware(store, name, descriptor, err);
    return r < 0 ? error_prefix(err, r, "%s", path) : r;
}
