/* Operations on names that change nothing: finding and listing. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "fs/ops.h"
#include "fs/past.h"

void ops_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct error err = {0};
    struct stat st = {0};
    int r = view_lookup(ops_view(req), parent, name, &st, &err);
    struct fuse_entry_param entry = ops_entry(&st);
    if (r < 0)
        ops_fail(req, r, &err);
    else
        fuse_reply_entry(req, &entry);
}

/* Nothing is kept for an inode that the kernel knows. */
void ops_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
    fuse_reply_none(req);
}

void ops_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
    fuse_reply_none(req);
}

/* ---- Listing ---- */

/* The offset of an entry names its place for good: 1 '.', 2 '..', then 2 + the guest's id, or 3 +
 * the file's place in a guest's directory, or STAGING_OFFSET + a staging file's flash. */
#define STAGING_OFFSET 16

struct listing {
    fuse_req_t req;
    bool plus;
    char *buffer;
    size_t size, used;
    int r;
    struct error err;
};

/* False when the buffer is full, or on failure. */
static bool list_entry(struct listing *listing, const char *name, off_t offset,
                       const struct fuse_entry_param *entry)
{
    char *at = listing->buffer + listing->used;
    size_t room = listing->size - listing->used;
    size_t needed = listing->plus
                        ? fuse_add_direntry_plus(listing->req, at, room, name, entry, offset)
                        : fuse_add_direntry(listing->req, at, room, name, &entry->attr, offset);
    if (needed > room)
        return false;
    listing->used += needed;
    return true;
}

static bool list_dots(struct listing *listing, uint64_t number, off_t after)
{
    /* The kernel counts no lookup for these, whatever they carry. */
    struct fuse_entry_param self = {.attr = {.st_ino = number, .st_mode = S_IFDIR}};
    struct fuse_entry_param root = {.attr = {.st_ino = inode_root(), .st_mode = S_IFDIR}};
    return (after >= 1 || list_entry(listing, ".", 1, &self)) &&
           (after >= 2 || list_entry(listing, "..", 2, &root));
}

static int list_guest(const struct store_guest *guest, void *data)
{
    struct stat st;
    view_stat_guest(guest, &st);
    struct fuse_entry_param entry = ops_entry(&st);
    return list_entry(data, guest->name, 2 + guest->id, &entry) ? 0 : 1;
}

static int list_guest_name(int64_t id, const char *name, void *data)
{
    struct fuse_entry_param entry = {.attr = {.st_ino = inode_of_guest(id), .st_mode = S_IFDIR}};
    return list_entry(data, name, 2 + id, &entry) ? 0 : 1;
}

static int list_root(struct listing *listing, struct view *view, off_t after)
{
    if (!list_dots(listing, inode_root(), after))
        return 0;
    if (!listing->plus)
        return store_guest_each_name(view->store, after > 2 ? after - 2 : 0, list_guest_name,
                                     listing, &listing->err);
    return store_guest_each(view->store, STORE_GUESTS_BY_ID, after > 2 ? after - 2 : 0, list_guest,
                            listing, &listing->err);
}

struct staging_listing {
    struct listing *listing;
    struct view *view;
    off_t after;
};

static int list_staging_file(const char *name, int64_t flash, void *data)
{
    struct staging_listing *staging = data;
    struct listing *listing = staging->listing;
    off_t offset = STAGING_OFFSET + flash;
    struct stat st = {.st_ino = inode_of_flash(flash, 0), .st_mode = S_IFREG};
    if (offset <= staging->after)
        return 0;
    int r = listing->plus ? view_stat(staging->view, st.st_ino, &st, &listing->err) : 0;
    struct fuse_entry_param entry = ops_entry(&st);
    return r < 0 ? r : list_entry(listing, name, offset, &entry) ? 0 : 1;
}

static int list_staging(struct listing *listing, struct view *view, int64_t guest, off_t after)
{
    struct staging_listing staging = {.listing = listing, .view = view, .after = after};
    return store_staging_each(view->store, guest, list_staging_file, &staging, &listing->err);
}

static int list_files(struct listing *listing, struct view *view, uint64_t number, int64_t id,
                      off_t after)
{
    struct store_guest guest;
    int r = store_guest_by_id(view->store, id, &guest, &listing->err);
    if (r < 0 || !list_dots(listing, number, after))
        return r;
    for (int file = after > 2 ? (int)after - 2 : 0; file < VIEW_FILE_COUNT; file++) {
        struct stat st = {.st_mode = S_IFREG};
        if (view_file_inode(&guest, (enum view_file)file, &st.st_ino) < 0)
            continue;
        if (listing->plus)
            r = view_stat_file(view, &guest, (enum view_file)file, &st, &listing->err);
        struct fuse_entry_param entry = ops_entry(&st);
        if (r < 0 || !list_entry(listing, view_file_name((enum view_file)file), 3 + file, &entry))
            return r;
    }
    return guest.firmware.mode == FLASH_MODE_SPLIT ? list_staging(listing, view, id, after) : 0;
}

static int list_past_entry(const char *name, const struct stat *st, off_t offset, void *data)
{
    struct fuse_entry_param entry = ops_entry(st);
    return list_entry(data, name, offset, &entry) ? 0 : 1;
}

static int list_past(struct listing *listing, struct view *view, const struct inode *directory,
                     uint64_t number, off_t after)
{
    if (!list_dots(listing, number, after))
        return 0;
    return past_list(view, directory, after, list_past_entry, listing, &listing->err);
}

static void list(fuse_req_t req, fuse_ino_t ino, size_t size, off_t after, bool plus)
{
    cleanup_free char *buffer = malloc(size);
    struct listing listing = {.req = req, .plus = plus, .buffer = buffer, .size = size};
    struct inode inode;
    int r = -ENOTDIR;
    if (!buffer)
        r = -ENOMEM;
    else if (inode_parse(ino, &inode) && inode.kind == INODE_ROOT)
        r = list_root(&listing, ops_view(req), after);
    else if (inode_parse(ino, &inode) && inode.kind == INODE_GUEST)
        r = list_files(&listing, ops_view(req), ino, inode.id, after);
    else if (inode_parse(ino, &inode) && inode_is_past(&inode))
        r = list_past(&listing, ops_view(req), &inode, ino, after);
    if (r < 0)
        ops_fail(req, r, &listing.err);
    else
        fuse_reply_buf(req, buffer, listing.used);
}

void ops_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    list(req, ino, size, off, false);
}

void ops_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                     struct fuse_file_info *fi)
{
    list(req, ino, size, off, true);
}
