#include "fs/past.h"

#include <errno.h>
#include <string.h>

/* Whose it is, and who may read it, is the guest's today. */
static void stat_as(const struct store_guest *guest, uint64_t number, int64_t time, struct stat *st)
{
    view_stat_guest(guest, st);
    st->st_ino = number;
    st->st_mode &= ~(mode_t)0222;
    st->st_atim = st->st_mtim = st->st_ctim = view_timespec(time);
}

static void stat_flash(const struct store_guest *guest, const struct store_point *point,
                       struct stat *st)
{
    stat_as(guest, inode_of_past(point->id), point->created_at, st);
    st->st_mode = S_IFREG | (guest->flash.attr.mode & 0444);
    st->st_nlink = 1;
    st->st_size = (off_t)guest->flash.size;
    st->st_blocks = view_sectors(point->blocks);
}

static int find(struct view *view, int64_t point, struct store_point *ret,
                struct store_guest *guest, struct error *err)
{
    int r = store_point_get(view->store, point, ret, err);
    return r < 0 ? r : store_guest_by_id(view->store, ret->guest, guest, err);
}

/* A file of the guest as it was: its flash from the point, all else as it is. */
static int stat_file(struct view *view, const struct store_guest *guest,
                     const struct store_point *point, enum view_file file, struct stat *st,
                     struct error *err)
{
    struct store_guest then = *guest;
    struct inode inode;
    uint64_t number;
    then.vars_removed = false;
    int r =
        file == VIEW_CODE || file == VIEW_VARS ? view_file_inode(&then, file, &number) : -ENOENT;
    if (r < 0)
        return r;
    inode_parse(number, &inode);
    if (inode.kind == INODE_CODE)
        return view_stat_file(view, &then, file, st, err);
    stat_flash(guest, point, st);
    return 0;
}

static int lookup_point(struct view *view, int64_t id, const char *name, struct stat *st,
                        struct error *err)
{
    struct store_guest guest;
    struct store_point point;
    int r = store_guest_by_id(view->store, id, &guest, err);
    if (r == 0)
        r = store_point_find(view->store, id, name, &point, err);
    if (r == 0)
        stat_as(&guest, inode_of_point(point.id), point.created_at, st);
    return r;
}

static int lookup_file(struct view *view, int64_t id, const char *name, struct stat *st,
                       struct error *err)
{
    struct store_guest guest;
    struct store_point point;
    int r = find(view, id, &point, &guest, err);
    if (r < 0)
        return r;
    for (int file = 0; file < VIEW_FILE_COUNT; file++)
        if (strcmp(name, view_file_name((enum view_file)file)) == 0)
            return stat_file(view, &guest, &point, (enum view_file)file, st, err);
    return -ENOENT;
}

int past_lookup(struct view *view, const struct inode *parent, const char *name, struct stat *st,
                struct error *err)
{
    switch (parent->kind) {
    case INODE_SNAPSHOTS:
        return lookup_point(view, parent->id, name, st, err);
    case INODE_POINT:
        return lookup_file(view, parent->id, name, st, err);
    default:
        return -ENOTDIR;
    }
}

int past_stat(struct view *view, const struct inode *inode, struct stat *st, struct error *err)
{
    struct store_guest guest;
    struct store_point point;
    int r = inode->kind == INODE_SNAPSHOTS ? store_guest_by_id(view->store, inode->id, &guest, err)
                                           : find(view, inode->id, &point, &guest, err);
    if (r < 0)
        return r;
    if (inode->kind == INODE_SNAPSHOTS)
        stat_as(&guest, inode_of_snapshots(guest.id), guest.created_at, st);
    else if (inode->kind == INODE_POINT)
        stat_as(&guest, inode_of_point(point.id), point.created_at, st);
    else
        stat_flash(&guest, &point, st);
    return 0;
}

/* ---- Listing ---- */

struct listing {
    const struct store_guest *guest;
    off_t after;
    int (*each)(const char *name, const struct stat *st, off_t offset, void *data);
    void *data;
};

/* From the newest to the oldest: so an offset is the further on the smaller the id is. */
static int list_point(const struct store_point *point, void *data)
{
    const struct listing *listing = data;
    struct stat st;
    off_t offset = INT32_MAX - point->id;
    if (offset <= listing->after)
        return 0;
    stat_as(listing->guest, inode_of_point(point->id), point->created_at, &st);
    return listing->each(point->name, &st, offset, listing->data);
}

static int list_files(struct view *view, const struct store_guest *guest,
                      const struct store_point *point, const struct listing *listing,
                      struct error *err)
{
    int r = 0;
    for (int file = 0; file < VIEW_FILE_COUNT && r == 0; file++) {
        struct stat st;
        off_t offset = 3 + file;
        if (offset <= listing->after ||
            stat_file(view, guest, point, (enum view_file)file, &st, err) < 0)
            continue;
        r = listing->each(view_file_name((enum view_file)file), &st, offset, listing->data);
    }
    return r;
}

int past_list(struct view *view, const struct inode *directory, off_t after,
              int (*each)(const char *name, const struct stat *st, off_t offset, void *data),
              void *data, struct error *err)
{
    struct store_guest guest;
    struct store_point point;
    struct listing listing = {.guest = &guest, .after = after, .each = each, .data = data};
    if (directory->kind == INODE_POINT) {
        int r = find(view, directory->id, &point, &guest, err);
        return r < 0 ? r : list_files(view, &guest, &point, &listing, err);
    }
    int r = store_guest_by_id(view->store, directory->id, &guest, err);
    return r < 0 ? r : store_point_each(view->store, guest.id, list_point, &listing, err);
}
