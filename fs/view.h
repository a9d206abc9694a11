/* The view: names to inode numbers, inode numbers to attributes. Knows the store, not FUSE. */
#ifndef FWFS_FS_VIEW_H
#define FWFS_FS_VIEW_H

#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "base/error.h"
#include "fs/inode.h"
#include "fs/options.h"
#include "store/store.h"

struct view {
    struct store *store;
    const char *mountpoint; /* absolute; the file names in firmware.json begin with it */
    uid_t uid;              /* who mounted: owns the root directory */
    gid_t gid;
    int64_t mounted_at; /* nanoseconds; the root directory's times */
    const struct mount_options *options;
};

/* A guest's directory lists these, each where its mode has it. */
enum view_file {
    VIEW_CODE,
    VIEW_VARS,
    VIEW_FIRMWARE_JSON,
    VIEW_GUEST_JSON,
    VIEW_FILE_COUNT,
};

const char *view_file_name(enum view_file file);

/* 0 and the number of a guest's file, or -ENOENT where its mode has none. */
int view_file_inode(const struct store_guest *guest, enum view_file file, uint64_t *ret);

/* The attributes of a guest's file, st_ino among them; -ENOENT where its mode has none. */
int view_stat_file(struct view *view, const struct store_guest *guest, enum view_file file,
                   struct stat *ret, struct error *err);

/* Finds `name` in the directory `parent`, and its attributes. -ENOENT, -ENOTDIR. */
int view_lookup(struct view *view, uint64_t parent, const char *name, struct stat *ret,
                struct error *err);

/* -ENOENT: there was such a file. */
int view_stat(struct view *view, uint64_t number, struct stat *ret, struct error *err);

/* A time of the store's, in nanoseconds. */
struct timespec view_timespec(int64_t ns);

/* st_blocks of a file that has so many blocks of its own. */
blkcnt_t view_sectors(uint64_t blocks);

/* The attributes of a flash. */
void view_stat_flash(uint64_t number, const struct store_flash *flash, struct stat *ret);

/* The attributes of a guest's directory, as they follow from its flash's. */
void view_stat_guest(const struct store_guest *guest, struct stat *ret);

/* The store's room, as df shows it. */
int view_statfs(struct view *view, struct statvfs *ret, struct error *err);

/* The text of a generated file; the caller frees it. */
int view_generate(struct view *view, const struct inode *inode, char **ret, struct error *err);

#endif
