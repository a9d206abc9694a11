#include "store_dump.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define ORPHANS_MAX 64

struct dump {
    struct store *store;
    FILE *text;
    struct error *err;
    struct {
        int64_t id;
        char name[STORE_NAME_MAX + 1];
    } kept[ORPHANS_MAX]; /* what a list gave, to be looked at after it */
    size_t count;
};

enum what { IMAGE, FLASH, POINT };

static ssize_t read_what(struct dump *dump, enum what what, int64_t id, uint64_t offset,
                         uint8_t *buffer, size_t size)
{
    switch (what) {
    case IMAGE:
        return store_image_read(dump->store, id, offset, buffer, size, dump->err);
    case FLASH:
        return store_flash_read(dump->store, id, offset, buffer, size, dump->err);
    case POINT:
        return store_point_read(dump->store, id, offset, buffer, size, dump->err);
    }
    return -EINVAL;
}

/* FNV-1a. */
static int dump_bytes(struct dump *dump, enum what what, int64_t id)
{
    uint8_t buffer[4 * STORE_BLOCK_SIZE];
    uint64_t hash = UINT64_C(0xCBF29CE484222325), offset = 0;
    ssize_t n;
    while ((n = read_what(dump, what, id, offset, buffer, sizeof buffer)) > 0) {
        for (ssize_t i = 0; i < n; i++)
            hash = (hash ^ buffer[i]) * UINT64_C(0x100000001B3);
        offset += (uint64_t)n;
    }
    fprintf(dump->text, " %llu:%016llx\n", (unsigned long long)offset, (unsigned long long)hash);
    return (int)n;
}

static int dump_image(struct dump *dump, const struct store_image *image)
{
    fprintf(dump->text, " image %lld size %llu digest ", (long long)image->id,
            (unsigned long long)image->size);
    for (int i = 0; i < STORE_DIGEST_SIZE; i++)
        fprintf(dump->text, "%02x", image->digest[i]);
    return image->id ? dump_bytes(dump, IMAGE, image->id) : 0;
}

static int keep_firmware(const struct store_firmware *firmware, void *data)
{
    struct dump *dump = data;
    strcpy(dump->kept[dump->count++].name, firmware->name);
    return 0;
}

static int dump_firmware(struct dump *dump, const char *name)
{
    struct store_firmware firmware;
    cleanup_free char *descriptor = NULL;
    uint64_t guests;
    int r = store_firmware_get(dump->store, name, &firmware, dump->err);
    if (r == 0)
        r = store_firmware_descriptor(dump->store, firmware.id, &descriptor, dump->err);
    if (r == 0)
        r = store_firmware_guests(dump->store, firmware.id, &guests, dump->err);
    if (r < 0)
        return r;
    fprintf(dump->text, "firmware %lld '%s' mode %d at %lld of %llu guests: %s\n",
            (long long)firmware.id, firmware.name, firmware.mode, (long long)firmware.created_at,
            (unsigned long long)guests, descriptor);
    r = dump_image(dump, &firmware.executable);
    return r < 0 ? r : dump_image(dump, &firmware.nvram_template);
}

static int dump_xattrs(struct dump *dump, int64_t flash)
{
    char names[1024], value[1024];
    ssize_t size = store_flash_list_xattr(dump->store, flash, names, sizeof names, dump->err);
    for (const char *name = names; size > 0 && name < names + size; name += strlen(name) + 1) {
        ssize_t n = store_flash_get_xattr(dump->store, flash, name, value, sizeof value, dump->err);
        if (n < 0)
            return (int)n;
        fprintf(dump->text, "  xattr %s=%.*s\n", name, (int)n, value);
    }
    return (int)(size < 0 ? size : 0);
}

static int dump_flash(struct dump *dump, int64_t id)
{
    struct store_flash flash;
    struct store_holder holder;
    int r = store_flash_get(dump->store, id, &flash, dump->err);
    if (r < 0)
        return r;
    fprintf(dump->text, "  flash %lld image %lld size %llu staging %d version %u attr %u:%u %o",
            (long long)id, (long long)flash.image, (unsigned long long)flash.size, flash.staging,
            flash.version, flash.attr.uid, flash.attr.gid, flash.attr.mode);
    fprintf(dump->text, " times %lld %lld %lld", (long long)flash.attr.atime,
            (long long)flash.attr.mtime, (long long)flash.attr.ctime);
    r = store_lease_get(dump->store, id, &holder, dump->err);
    if (r > 0)
        fprintf(dump->text, " held by %s %lld in %s since %lld", holder.opener.command,
                (long long)holder.opener.pid, holder.mountpoint, (long long)holder.since);
    if (r >= 0)
        r = dump_bytes(dump, FLASH, id);
    return r < 0 ? r : dump_xattrs(dump, id);
}

static int keep_point(const struct store_point *point, void *data)
{
    struct dump *dump = data;
    dump->kept[dump->count].id = point->id;
    strcpy(dump->kept[dump->count++].name, point->name);
    fprintf(dump->text, "  point %lld kind %d at %lld\n", (long long)point->id, point->kind,
            (long long)point->created_at);
    return 0;
}

static int dump_points(struct dump *dump, int64_t guest)
{
    dump->count = 0;
    int r = store_point_each(dump->store, guest, keep_point, dump, dump->err);
    for (size_t i = 0; i < dump->count && r == 0; i++) {
        fprintf(dump->text, "  point '%s'", dump->kept[i].name);
        r = dump_bytes(dump, POINT, dump->kept[i].id);
    }
    return r;
}

static int keep_staging(const char *name, int64_t flash, void *data)
{
    struct dump *dump = data;
    dump->kept[dump->count++].id = flash;
    fprintf(dump->text, "  staging '%s'\n", name);
    return 0;
}

static int dump_staging(struct dump *dump, int64_t guest)
{
    dump->count = 0;
    int r = store_staging_each(dump->store, guest, keep_staging, dump, dump->err);
    for (size_t i = 0; i < dump->count && r == 0; i++)
        r = dump_flash(dump, dump->kept[i].id);
    return r;
}

static int dump_guest(struct dump *dump, int64_t id)
{
    struct store_guest guest;
    int r = store_guest_by_id(dump->store, id, &guest, dump->err);
    if (r < 0)
        return r;
    fprintf(dump->text, "guest %lld '%s' of '%s' at %lld vars removed %d\n", (long long)id,
            guest.name, guest.firmware.name, (long long)guest.created_at, guest.vars_removed);
    r = dump_flash(dump, guest.flash.id);
    if (r == 0)
        r = dump_points(dump, id);
    return r < 0 ? r : dump_staging(dump, id);
}

static int keep_guest(int64_t id, const char *name, void *data)
{
    *(int64_t *)data = id;
    return 1;
}

static int dump_all(struct dump *dump)
{
    int r = store_firmware_each(dump->store, keep_firmware, dump, dump->err);
    for (size_t i = 0; i < dump->count && r == 0; i++)
        r = dump_firmware(dump, dump->kept[i].name);
    int64_t guest = 0;
    while (r >= 0 &&
           (r = store_guest_each_name(dump->store, guest, keep_guest, &guest, dump->err)) > 0)
        r = dump_guest(dump, guest);
    int64_t orphans[ORPHANS_MAX];
    int count = r < 0 ? r : store_orphan_list(dump->store, orphans, ORPHANS_MAX, dump->err);
    r = count < 0 ? count : 0;
    for (int i = 0; i < count && r == 0; i++) {
        fprintf(dump->text, "orphan\n");
        r = dump_flash(dump, orphans[i]);
    }
    return r;
}

int store_dump(struct store *store, char **ret, struct error *err)
{
    cleanup_free char *text = NULL;
    size_t size;
    struct dump dump = {.store = store, .text = open_memstream(&text, &size), .err = err};
    int r = dump_all(&dump);
    fclose(dump.text);
    if (r == 0)
        *ret = steal_ptr(text);
    return r;
}
