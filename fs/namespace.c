#include "fs/namespace.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fs/past.h"

/* What a name in a guest's directory is. */
enum entry_kind {
    ENTRY_FIXED, /* of the view: it cannot be made, removed or replaced */
    ENTRY_VARS,
    ENTRY_STAGING,
};

static int find_guest(struct view *view, uint64_t parent, struct store_guest *ret,
                      struct error *err)
{
    struct inode inode;
    if (!inode_parse(parent, &inode))
        return -EPERM;
    if (inode.kind != INODE_GUEST)
        return inode_is_past(&inode) ? -EROFS : -EPERM;
    return store_guest_by_id(view->store, inode.id, ret, err);
}

static bool is_root(uint64_t parent)
{
    return parent == inode_root();
}

static enum entry_kind classify(const char *name)
{
    static const char *const others[] = {"efivars", PAST_NAME};
    if (strcmp(name, view_file_name(VIEW_VARS)) == 0)
        return ENTRY_VARS;
    for (int file = 0; file < VIEW_FILE_COUNT; file++)
        if (strcmp(name, view_file_name((enum view_file)file)) == 0)
            return ENTRY_FIXED;
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (strcmp(name, others[i]) == 0)
            return ENTRY_FIXED;
    return ENTRY_STAGING;
}

/* -EROFS for the vars that a mode has not, -EPERM for all other names. */
static int refuse_in(const struct store_guest *guest, const char *name)
{
    bool absent_by_mode = classify(name) == ENTRY_VARS && guest->firmware.mode != FLASH_MODE_SPLIT;
    return absent_by_mode ? -EROFS : -EPERM;
}

int namespace_refuse(struct view *view, uint64_t parent, const char *name)
{
    struct store_guest guest;
    int r = find_guest(view, parent, &guest, NULL);
    return r < 0 ? r : refuse_in(&guest, name);
}

/* The guest in whose directory this name may be made, removed or renamed. */
static int find_changeable(struct view *view, uint64_t parent, const char *name,
                           struct store_guest *ret, struct error *err)
{
    int r = find_guest(view, parent, ret, err);
    if (r < 0)
        return r;
    bool may = ret->firmware.mode == FLASH_MODE_SPLIT && classify(name) != ENTRY_FIXED;
    return may ? 0 : refuse_in(ret, name);
}

/* ---- Guests ---- */

int namespace_mkdir(struct view *view, uint64_t parent, const char *name,
                    const struct store_attr *owner, struct error *err)
{
    const struct mount_options *options = view->options;
    struct store_attr attr = {.uid = options->has_owner ? options->uid : owner->uid,
                              .gid = options->has_owner ? options->gid : owner->gid,
                              .mode = STORE_FLASH_PERMISSIONS};
    if (!is_root(parent))
        return namespace_refuse(view, parent, name);
    if (!*options->firmware)
        return -EPERM;
    int r = store_guest_add(view->store, options->firmware, &name, 1, &attr, err);
    /* The firmware was removed since; nothing that is named here is missing. */
    return r == -ENOENT ? -EPERM : r;
}

int namespace_rmdir(struct view *view, uint64_t parent, const char *name, struct error *err)
{
    return is_root(parent) ? store_guest_remove(view->store, &name, 1, err)
                           : namespace_refuse(view, parent, name);
}

/* ---- Files of a guest ---- */

/* As store_check_name(), but that temporary files may be hidden. */
static int check_staging_name(const char *name, struct error *err)
{
    while (*name == '.')
        name++;
    return *name ? store_check_name("staging file", name, err) : -EINVAL;
}

int namespace_create(struct view *view, uint64_t parent, const char *name,
                     const struct store_attr *attr, struct error *err)
{
    struct store_guest guest;
    int r = find_changeable(view, parent, name, &guest, err);
    if (r < 0)
        return r;
    /* All of a guest is its owner's, whoever makes it, and a new file opens nothing to others: the
     * directory follows what is now vars, or may become it. */
    struct store_attr owned = *attr;
    owned.uid = guest.flash.attr.uid;
    owned.gid = guest.flash.attr.gid;
    owned.mode &= guest.flash.attr.mode;
    if (classify(name) == ENTRY_VARS)
        return store_vars_create(view->store, guest.id, &owned, err);
    r = check_staging_name(name, err);
    return r < 0 ? r : store_staging_create(view->store, guest.id, name, &owned, err);
}

int namespace_unlink(struct view *view, uint64_t parent, const char *name, struct error *err)
{
    struct store_guest guest;
    int r = find_changeable(view, parent, name, &guest, err);
    if (r < 0)
        return r;
    return classify(name) == ENTRY_VARS ? store_vars_unlink(view->store, guest.id, err)
                                        : store_staging_remove(view->store, guest.id, name, err);
}

/* ---- Renaming ---- */

/* Within one guest's directory: a staging file takes another name, or the place of vars. */
static int rename_staging(struct view *view, uint64_t parent, const char *name,
                          const char *new_name, bool replace, struct error *err)
{
    struct store_guest guest;
    int r = find_changeable(view, parent, new_name, &guest, err);
    if (r == 0 && classify(name) != ENTRY_STAGING)
        r = -EPERM;
    if (r < 0)
        return r;
    if (classify(new_name) == ENTRY_VARS)
        return store_staging_adopt(view->store, guest.id, name, replace, err);
    r = check_staging_name(new_name, err);
    return r < 0 ? r : store_staging_rename(view->store, guest.id, name, new_name, replace, err);
}

int namespace_rename(struct view *view, uint64_t parent, const char *name, uint64_t new_parent,
                     const char *new_name, unsigned flags, struct error *err)
{
    if (flags & ~(unsigned)RENAME_NOREPLACE)
        return -EINVAL;
    if (is_root(parent) && is_root(new_parent))
        return store_guest_rename(view->store, name, new_name, err);
    if (is_root(parent) || is_root(new_parent))
        return -EPERM;
    /* mv(1) then copies, which is what is meant. */
    if (parent != new_parent)
        return classify(name) == ENTRY_STAGING ? -EXDEV : -EPERM;
    return rename_staging(view, parent, name, new_name, !(flags & RENAME_NOREPLACE), err);
}
