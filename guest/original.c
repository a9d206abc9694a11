#include "guest/original.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "firmware/image.h"
#include "guest/describe.h"

int original_load(struct store *store, const char *firmware, bool nvram_template, void **ret,
                  size_t *ret_size, struct error *err)
{
    cleanup(descriptor_freep) struct descriptor *descriptor = NULL;
    cleanup(image_unload) struct image image = {.bytes = NULL};
    struct store_firmware found;
    int r = store_firmware_get(store, firmware, &found, err);
    if (r == 0)
        r = describe_descriptor(store, &found, &descriptor, err);
    if (r < 0)
        return r;
    struct descriptor_file file =
        nvram_template ? descriptor_nvram_template(descriptor) : descriptor_executable(descriptor);
    if (!file.filename)
        return error_set(err, -ENOENT, "its descriptor names no such file");
    r = image_load(file.filename, file.format, &image, err);
    if (r < 0)
        return r;
    *ret = malloc(image.size);
    if (!*ret)
        return error_set(err, -ENOMEM, "out of memory");
    memcpy(*ret, image.bytes, image.size);
    *ret_size = image.size;
    return 0;
}
