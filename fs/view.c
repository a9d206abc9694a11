#include "fs/view.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "fs/past.h"
#include "guest/describe.h"

#define NSEC_PER_SEC INT64_C(1000000000)
#define SECTORS_PER_BLOCK (STORE_BLOCK_SIZE / 512)

static const char *const file_names[VIEW_FILE_COUNT] = {
    [VIEW_CODE] = "code",
    [VIEW_VARS] = "vars",
    [VIEW_FIRMWARE_JSON] = "firmware.json",
    [VIEW_GUEST_JSON] = "guest.json",
};

const char *view_file_name(enum view_file file)
{
    return file_names[file];
}

int view_file_inode(const struct store_guest *guest, enum view_file file, uint64_t *ret)
{
    enum flash_mode mode = guest->firmware.mode;
    switch (file) {
    case VIEW_CODE:
        *ret = mode == FLASH_MODE_COMBINED
                   ? inode_of_flash(guest->flash.id, guest->flash.version)
                   : inode_of_code(guest->firmware.executable.id, guest->id);
        return 0;
    case VIEW_VARS:
        *ret = inode_of_flash(guest->flash.id, guest->flash.version);
        return mode == FLASH_MODE_SPLIT && !guest->vars_removed ? 0 : -ENOENT;
    case VIEW_FIRMWARE_JSON:
        *ret = inode_of_generated(guest->id, GENERATED_FIRMWARE_JSON);
        return 0;
    case VIEW_GUEST_JSON:
        *ret = inode_of_generated(guest->id, GENERATED_GUEST_JSON);
        return 0;
    case VIEW_FILE_COUNT:
        break;
    }
    return -ENOENT;
}

/* ---- Generated files ---- */

static int generate(struct view *view, const struct store_guest *guest, enum generated_file file,
                    char **ret, struct error *err)
{
    switch (file) {
    case GENERATED_FIRMWARE_JSON:
        return describe_guest_descriptor(view->store, guest, view->mountpoint, ret, err);
    case GENERATED_GUEST_JSON:
        return describe_guest_text(view->store, guest, ret, err);
    }
    return -ENOENT;
}

/* ---- Attributes ---- */

struct timespec view_timespec(int64_t ns)
{
    return (struct timespec){.tv_sec = ns / NSEC_PER_SEC, .tv_nsec = ns % NSEC_PER_SEC};
}

static void set_times(struct stat *st, int64_t atime, int64_t mtime, int64_t ctime)
{
    st->st_atim = view_timespec(atime);
    st->st_mtim = view_timespec(mtime);
    st->st_ctim = view_timespec(ctime);
}

/* tar takes a file without blocks for a hole, so where there is data there is at least one. */
blkcnt_t view_sectors(uint64_t blocks)
{
    return (blkcnt_t)(blocks > 0 ? blocks : 1) * SECTORS_PER_BLOCK;
}

static void stat_root(const struct view *view, struct stat *st)
{
    /* A tenant may pass through to its own guest, not list the others. */
    *st = (struct stat){.st_ino = inode_root(),
                        .st_mode = S_IFDIR | 0711,
                        .st_nlink = 2,
                        .st_uid = view->uid,
                        .st_gid = view->gid};
    set_times(st, view->mounted_at, view->mounted_at, view->mounted_at);
}

void view_stat_guest(const struct store_guest *guest, struct stat *st)
{
    uint32_t readable = guest->flash.attr.mode & 0444;
    *st = (struct stat){.st_ino = inode_of_guest(guest->id),
                        .st_mode = S_IFDIR | 0700 | readable | readable >> 2,
                        .st_nlink = 2,
                        .st_uid = guest->flash.attr.uid,
                        .st_gid = guest->flash.attr.gid};
    set_times(st, guest->created_at, guest->created_at, guest->created_at);
}

void view_stat_flash(uint64_t number, const struct store_flash *flash, struct stat *st)
{
    *st = (struct stat){.st_ino = number,
                        .st_mode = S_IFREG | flash->attr.mode,
                        .st_nlink = 1,
                        .st_uid = flash->attr.uid,
                        .st_gid = flash->attr.gid,
                        .st_size = (off_t)flash->size,
                        .st_blocks = view_sectors(flash->delta_blocks)};
    set_times(st, flash->attr.atime, flash->attr.mtime, flash->attr.ctime);
}

static int stat_flash(struct view *view, uint64_t number, int64_t flash, struct stat *st,
                      struct error *err)
{
    struct store_flash found;
    int r = store_flash_get(view->store, flash, &found, err);
    if (r == 0)
        view_stat_flash(number, &found, st);
    return r;
}

static int stat_generated(struct view *view, uint64_t number, const struct store_guest *guest,
                          enum generated_file file, struct stat *st, struct error *err)
{
    cleanup_free char *text = NULL;
    int r = generate(view, guest, file, &text, err);
    if (r < 0)
        return r;
    const struct store_attr *attr = &guest->flash.attr;
    *st = (struct stat){.st_ino = number,
                        .st_mode = S_IFREG | (attr->mode & 0444),
                        .st_nlink = 1,
                        .st_uid = attr->uid,
                        .st_gid = attr->gid,
                        .st_size = (off_t)strlen(text),
                        .st_blocks = view_sectors(0)};
    set_times(st, attr->mtime, attr->mtime, attr->ctime);
    return 0;
}

static void stat_code(const struct view *view, uint64_t number, const struct store_image *image,
                      struct stat *st)
{
    *st = (struct stat){.st_ino = number,
                        .st_mode = S_IFREG | 0444,
                        .st_nlink = 1,
                        .st_size = (off_t)image->size,
                        .st_blocks = view_sectors(0)};
    set_times(st, view->mounted_at, view->mounted_at, view->mounted_at);
}

int view_stat_file(struct view *view, const struct store_guest *guest, enum view_file file,
                   struct stat *st, struct error *err)
{
    struct inode inode;
    uint64_t number;
    int r = view_file_inode(guest, file, &number);
    if (r < 0)
        return r;
    inode_parse(number, &inode);
    if (inode.kind == INODE_FLASH)
        return stat_flash(view, number, inode.id, st, err);
    if (inode.kind == INODE_GENERATED)
        return stat_generated(view, number, guest, inode.file, st, err);
    stat_code(view, number, &guest->firmware.executable, st);
    return 0;
}

int view_stat(struct view *view, uint64_t number, struct stat *st, struct error *err)
{
    struct inode inode;
    struct store_guest guest;
    struct store_image image;
    int r;
    if (!inode_parse(number, &inode))
        return -ENOENT;
    switch (inode.kind) {
    case INODE_ROOT:
        stat_root(view, st);
        return 0;
    case INODE_GUEST:
        r = store_guest_by_id(view->store, inode.id, &guest, err);
        if (r == 0)
            view_stat_guest(&guest, st);
        return r;
    case INODE_CODE:
        r = store_image_get(view->store, inode.id, &image, err);
        if (r == 0)
            stat_code(view, number, &image, st);
        return r;
    case INODE_FLASH:
        return stat_flash(view, number, inode.id, st, err);
    case INODE_GENERATED:
        r = store_guest_by_id(view->store, inode.id, &guest, err);
        return r < 0 ? r : stat_generated(view, number, &guest, inode.file, st, err);
    case INODE_SNAPSHOTS:
    case INODE_POINT:
    case INODE_PAST:
        return past_stat(view, &inode, st, err);
    }
    return -ENOENT;
}

/* ---- Names ---- */

static int lookup_in_guest(struct view *view, int64_t id, const char *name, struct stat *st,
                           struct error *err)
{
    struct store_guest guest;
    int r = store_guest_by_id(view->store, id, &guest, err);
    if (r < 0)
        return r;
    for (int file = 0; file < VIEW_FILE_COUNT; file++)
        if (strcmp(name, file_names[file]) == 0)
            return view_stat_file(view, &guest, (enum view_file)file, st, err);
    if (strcmp(name, PAST_NAME) == 0) {
        struct inode past = {.kind = INODE_SNAPSHOTS, .id = id};
        return past_stat(view, &past, st, err);
    }
    struct store_flash staging;
    if (guest.firmware.mode != FLASH_MODE_SPLIT)
        return -ENOENT;
    r = store_staging_find(view->store, id, name, &staging, err);
    if (r == 0)
        view_stat_flash(inode_of_flash(staging.id, staging.version), &staging, st);
    return r;
}

int view_lookup(struct view *view, uint64_t parent, const char *name, struct stat *st,
                struct error *err)
{
    struct inode inode;
    struct store_guest guest;
    if (!inode_parse(parent, &inode))
        return -ENOENT;
    if (strlen(name) > STORE_NAME_MAX)
        return -ENAMETOOLONG;
    if (inode.kind == INODE_GUEST)
        return lookup_in_guest(view, inode.id, name, st, err);
    if (inode_is_past(&inode))
        return past_lookup(view, &inode, name, st, err);
    if (inode.kind != INODE_ROOT)
        return -ENOTDIR;
    int r = store_guest_by_name(view->store, name, &guest, err);
    if (r == 0)
        view_stat_guest(&guest, st);
    return r;
}

int view_statfs(struct view *view, struct statvfs *ret, struct error *err)
{
    struct store_space space;
    int r = store_get_space(view->store, &space, err);
    if (r < 0)
        return r;
    uint64_t available = space.free_bytes + space.disk_free_bytes;
    uint64_t total = space.file_bytes + space.disk_free_bytes;
    *ret = (struct statvfs){.f_bsize = STORE_BLOCK_SIZE,
                            .f_frsize = STORE_BLOCK_SIZE,
                            .f_blocks = total / STORE_BLOCK_SIZE,
                            .f_bfree = available / STORE_BLOCK_SIZE,
                            .f_bavail = available / STORE_BLOCK_SIZE,
                            .f_namemax = STORE_NAME_MAX};
    return 0;
}

int view_generate(struct view *view, const struct inode *inode, char **ret, struct error *err)
{
    struct store_guest guest;
    int r = store_guest_by_id(view->store, inode->id, &guest, err);
    return r < 0 ? r : generate(view, &guest, inode->file, ret, err);
}
