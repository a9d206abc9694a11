/* The store: where bytes live. Its one door; what is behind it (SQLite today) is nobody's business.
 *
 * Shapes. An *image* is immutable bytes, a multiple of STORE_BLOCK_SIZE long, made of blocks that
 * all images share. A *flash* is a guest's own writable image: an overlay that holds the blocks
 * that differ from the image below it, shared with nobody. *Firmware* is one or two images and a
 * descriptor; a *guest* is a name, a firmware and a flash. A stateless guest's flash is never
 * written: it holds the guest's owner and mode.
 *
 * Ids are positive and never used twice. Offsets, lengths and sizes are in bytes, times in
 * nanoseconds since 1970 UTC. Names are UTF-8, see store_check_name().
 *
 * Errors. Functions return 0, or a negative errno with its context in `err` (which may be NULL):
 * -ENOENT no such thing, -EEXIST it is there already, -EBUSY in use (also: locked by another
 * process for over 10 s), -ETXTBSY a flash is open for writing (`err` names who has it), -EINVAL,
 * -EROFS the store is open read-only, -ENOSPC, -EUCLEAN damage found (a checksum or the structure
 * is wrong), -EIO the disk failed, -ENOMEM.
 *
 * Threads and processes. Every function may be called from any thread; several processes may have
 * one store open. Each call is one transaction: whole or not at all. A change is visible to
 * everyone when the call returns; it is durable when the call returns, or, in a store opened with
 * STORE_LAZY_SYNC, after the next store_sync(). */
#ifndef FWFS_STORE_STORE_H
#define FWFS_STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/mode.h"

#define STORE_BLOCK_SIZE 4096
#define STORE_NAME_MAX 255
#define STORE_DIGEST_SIZE 32 /* SHA-256 */
#define STORE_IMAGE_SIZE_MAX ((uint64_t)1 << 32)

/* ---- The store itself ---- */

struct store;

enum {
    STORE_READ_ONLY = 1 << 0,
    STORE_LAZY_SYNC = 1 << 1,
};

/* Makes a new, empty store, and the directory it is in if that is all that is missing. -EEXIST
 * where there is a file already, whatever is in it. */
int store_create(const char *path, struct error *err);

/* Opens a store. -ENOENT: none there; -EINVAL: not a store, or another application's; -ENOTSUP:
 * from a newer fwfs. The caller gives it back with store_close(). */
int store_open(const char *path, unsigned flags, struct store **ret, struct error *err);
void store_close(struct store *store);
void store_closep(struct store **store);

/* Makes every change that was visible before the call durable. Calls that wait at the same time
 * share one sync. */
int store_sync(struct store *store, struct error *err);

/* Work that is better done beside the writers: compresses private blocks written since, and gives
 * free room in the file back to the disk, a bounded amount a call. Returns 1 if there may be more
 * to do, else 0; -EUCLEAN once for a damaged block, which is then left to its readers to be told.
 */
int store_maintain(struct store *store, struct error *err);

/* Moves what is in the write-ahead log into the store's file when there is enough of it, so that
 * the log does not grow without bound. Cheap when there is not; to be called often. What writers
 * add meanwhile is moved with the writers held, for the moment that it takes. */
int store_checkpoint(struct store *store, struct error *err);

/* Space that is set aside on the store's disk, for the moment when the disk is full: held in a file
 * beside the store. Holding is done again by whoever notices that there is room: it takes the space
 * only if twice as much stays free, and is cheap when it is held already. Releasing returns true if
 * there was something to release. */
void store_reserve_hold(struct store *store);
bool store_reserve_release(struct store *store);

/* Room of the store's file, and of the disk that it is on. */
struct store_space {
    uint64_t file_bytes;      /* the store's file and its write-ahead log */
    uint64_t free_bytes;      /* in the file, to be used again */
    uint64_t disk_free_bytes; /* for unprivileged users */
};

struct store_status {
    uint64_t guests, firmware, images;
    uint64_t shared_blocks;  /* distinct blocks of images */
    uint64_t private_blocks; /* blocks of flashes */
    uint64_t unique_bytes;   /* all of these, uncompressed */
    uint64_t stored_bytes;   /* all of these, as kept */
    struct store_space space;
    unsigned schema_version;
};

int store_get_status(struct store *store, struct store_status *ret, struct error *err);

/* Takes the same time however large the store is. */
int store_get_space(struct store *store, struct store_space *ret, struct error *err);

/* A guest's or firmware's name: 1 to STORE_NAME_MAX bytes of UTF-8 without control characters or
 * '/', not beginning with '.' or '-'. -EINVAL says which rule it breaks; `noun` is "guest" or the
 * like. */
int store_check_name(const char *noun, const char *name, struct error *err);

/* ---- Images ---- */

struct store_image {
    int64_t id; /* 0: no image */
    uint64_t size;
    uint8_t digest[STORE_DIGEST_SIZE]; /* SHA-256 of its bytes */
};

int store_image_get(struct store *store, int64_t image, struct store_image *ret, struct error *err);

/* Reads up to `length` bytes; fewer only at the image's end. Returns their number. */
ssize_t store_image_read(struct store *store, int64_t image, uint64_t offset, void *buffer,
                         size_t length, struct error *err);

/* ---- Firmware ---- */

struct store_firmware {
    int64_t id;
    char name[STORE_NAME_MAX + 1];
    enum flash_mode mode;
    struct store_image executable;
    struct store_image nvram_template; /* id 0 unless split */
    int64_t created_at;
};

struct store_bytes {
    const void *bytes;
    size_t size;
};

struct store_firmware_spec {
    const char *name;
    enum flash_mode mode;
    struct store_bytes executable;
    struct store_bytes nvram_template; /* bytes NULL unless split */
    const char *descriptor;            /* JSON text, kept as it is */
};

/* Adds firmware with its images; bytes that the store has already are shared. Returns 1 if the same
 * firmware (name, mode, images and descriptor) is there already, -EEXIST if another has the name.
 */
int store_firmware_add(struct store *store, const struct store_firmware_spec *spec,
                       struct error *err);

/* Removes firmware and what only it used; -EBUSY while guests are of it. */
int store_firmware_remove(struct store *store, const char *name, struct error *err);

int store_firmware_get(struct store *store, const char *name, struct store_firmware *ret,
                       struct error *err);

/* The descriptor's text; the caller frees it. */
int store_firmware_descriptor(struct store *store, int64_t firmware, char **ret, struct error *err);

/* The number of guests of this firmware. */
int store_firmware_guests(struct store *store, int64_t firmware, uint64_t *ret, struct error *err);

/* Calls `each` for all firmware by name until it returns other than 0, which is then returned.
 * `each` must not call a function that changes this store. */
int store_firmware_each(struct store *store,
                        int (*each)(const struct store_firmware *firmware, void *data), void *data,
                        struct error *err);

/* ---- Guests and flashes ---- */

/* Of a new guest's flash. Only its owner may read its variables: they hold what its disks are
 * unlocked with. */
#define STORE_FLASH_PERMISSIONS 0600

struct store_attr {
    uint32_t uid, gid;
    uint32_t mode; /* permission bits, 07777 */
    int64_t atime, mtime, ctime;
};

enum {
    STORE_ATTR_UID = 1 << 0,
    STORE_ATTR_GID = 1 << 1,
    STORE_ATTR_MODE = 1 << 2,
    STORE_ATTR_ATIME = 1 << 3,
    STORE_ATTR_MTIME = 1 << 4,
    STORE_ATTR_CTIME = 1 << 5,
    STORE_ATTR_SIZE = 1 << 6, /* in a store_change alone */
};

struct store_flash {
    int64_t id;
    int64_t image; /* what it is an overlay on */
    int64_t guest; /* whose it is; 0: a staging file's, or an orphan */
    uint64_t size;
    uint64_t capacity;     /* its image's size: the most that a staging file can have */
    bool staging;          /* a staging file's: over zeros, and of any size up to its capacity */
    uint16_t version;      /* changes when others must forget what they know of it */
    uint64_t delta_blocks; /* blocks that differ from its image; not known of a guest's flash */
    struct store_attr attr;
};

struct store_guest {
    int64_t id;
    char name[STORE_NAME_MAX + 1];
    int64_t created_at;
    struct store_firmware firmware;
    struct store_flash flash;
    bool vars_removed; /* its vars was unlinked: the flash is what it will begin as again */
};

/* Adds guests of one firmware, all or none: each gets a flash on the nvram-template (split) or on
 * the executable, owned as `attr` says (uid, gid and mode; the times are now). -EEXIST and -EINVAL
 * name the guest, -ENOENT the firmware. */
int store_guest_add(struct store *store, const char *firmware, const char *const *names,
                    size_t count, const struct store_attr *attr, struct error *err);

/* Removes guests, all or none. -ENOENT and -ETXTBSY name the guest. They can be brought back within
 * STORE_REMOVED_DAYS, by the name that they had. */
#define STORE_REMOVED_DAYS 7
int store_guest_remove(struct store *store, const char *const *names, size_t count,
                       struct error *err);
/* Brings back the guest of this name that was removed last. -EEXIST: there is another by now. */
int store_guest_undelete(struct store *store, const char *name, struct error *err);
/* Removes guests for good, with all that is theirs, and those of these names that were removed
 * before. */
int store_guest_purge(struct store *store, const char *const *names, size_t count,
                      struct error *err);

/* Adds a guest that is what another is now: firmware, owner, bytes, attributes. Nothing is shared
 * between the two; the restore points stay the other's. -ENOENT, -EEXIST. */
int store_guest_clone(struct store *store, const char *name, const char *new_name,
                      struct error *err);

/* Copies a guest with its firmware and its restore points into another store. -ENOENT; -EEXIST:
 * there is a guest, or other firmware, of the name. */
int store_guest_copy(struct store *from, const char *name, struct store *to, const char *new_name,
                     struct error *err);

/* -ENOENT: no `old_name`; -EEXIST: there is a `new_name`; -EINVAL: a wrong name. */
int store_guest_rename(struct store *store, const char *old_name, const char *new_name,
                       struct error *err);

int store_guest_by_name(struct store *store, const char *name, struct store_guest *ret,
                        struct error *err);
/* Whose flash it is. */
int store_guest_by_flash(struct store *store, int64_t flash, struct store_guest *ret,
                         struct error *err);
int store_guest_by_id(struct store *store, int64_t guest, struct store_guest *ret,
                      struct error *err);

enum store_guest_order {
    STORE_GUESTS_BY_ID, /* the order in which they were made */
    STORE_GUESTS_BY_NAME,
};

/* Calls `each` for all guests whose id is over `after` (0: all), as store_firmware_each(). */
int store_guest_each(struct store *store, enum store_guest_order order, int64_t after,
                     int (*each)(const struct store_guest *guest, void *data), void *data,
                     struct error *err);

/* The same, but ids and names only, by id. */
int store_guest_each_name(struct store *store, int64_t after,
                          int (*each)(int64_t id, const char *name, void *data), void *data,
                          struct error *err);

/* `delta` is what a flash holds of its own: blocks that differ from its image. */
struct store_usage {
    uint64_t delta_blocks;
    uint64_t delta_bytes;  /* uncompressed */
    uint64_t stored_bytes; /* as kept */
};

int store_flash_usage(struct store *store, int64_t flash, struct store_usage *ret,
                      struct error *err);

int store_flash_get(struct store *store, int64_t flash, struct store_flash *ret, struct error *err);

/* Sets what `mask` (STORE_ATTR_…) names. */
int store_flash_set_attr(struct store *store, int64_t flash, unsigned mask,
                         const struct store_attr *attr, struct error *err);

/* Gives the flash a new version. */
int store_flash_renew(struct store *store, int64_t flash, struct error *err);

/* Extended attributes of a flash, by their full name ("user.x"). Reading returns the size of the
 * value
 * (-ENODATA: there is none), or of the list of NUL-ended names, and copies it if it fits into
 * `size` bytes. */
ssize_t store_flash_get_xattr(struct store *store, int64_t flash, const char *name, void *value,
                              size_t size, struct error *err);
ssize_t store_flash_list_xattr(struct store *store, int64_t flash, char *names, size_t size,
                               struct error *err);

/* All attributes of a flash together, names and values, take at most this. */
#define STORE_XATTR_SIZE_MAX 65536

/* `flags` as setxattr(2): XATTR_CREATE (-EEXIST), XATTR_REPLACE (-ENODATA); -E2BIG past
 * STORE_XATTR_SIZE_MAX. */
int store_flash_set_xattr(struct store *store, int64_t flash, const char *name, const void *value,
                          size_t size, int flags, struct error *err);
int store_flash_remove_xattr(struct store *store, int64_t flash, const char *name,
                             struct error *err);

/* As store_image_read(), of the overlay. */
ssize_t store_flash_read(struct store *store, int64_t flash, uint64_t offset, void *buffer,
                         size_t length, struct error *err);

/* Writes all of it in one transaction, or nothing; -EFBIG if it would pass the flash's end. Blocks
 * that come to equal the image's are given back. Sets mtime and ctime to `now`, unless that is 0.
 */
int store_flash_write(struct store *store, int64_t flash, uint64_t offset, const void *bytes,
                      size_t length, int64_t now, struct error *err);

/* ---- Restore points ----
 *
 * What a guest's flash was before: kept when it is first changed after it was opened for writing,
 * when it is edited, and when somebody asks for it. It costs the blocks that were changed since. */

enum store_point_kind { /* kept in the database */
                        STORE_POINT_SESSION = 0,
                        STORE_POINT_EDIT = 1,
                        STORE_POINT_SNAPSHOT = 2, /* with a name of its own, until it is removed */
};

struct store_point {
    int64_t id, guest;
    enum store_point_kind kind;
    char name[STORE_NAME_MAX + 1]; /* those without a name of their own: "session-ID", "edit-ID" */
    int64_t created_at;
    uint64_t blocks, stored_bytes; /* that it keeps */
};

/* How many of each kind are kept besides the newest of each of the last days on which there were
 * some, and how many bytes (as stored) of a guest at most; the newest is always kept, and snapshots
 * are not counted. A new store keeps 10 sessions, 10 edits, 7 days and 4 MiB. */
struct store_retention {
    uint64_t sessions, edits, days, bytes;
};

int store_get_retention(struct store *store, struct store_retention *ret, struct error *err);
/* Set in the store, for everyone; what is there goes with the next point of its guest. */
int store_set_retention(struct store *store, const struct store_retention *retention,
                        struct error *err);

/* -EEXIST; -EINVAL: not a name that a snapshot can have. */
int store_snapshot_add(struct store *store, const char *guest, const char *name, struct error *err);
/* Removes any restore point. -ENOENT names the guest or the point. */
int store_point_remove(struct store *store, const char *guest, const char *name, struct error *err);
/* Makes the flash what it was; what it is now is a restore point then. -ETXTBSY. */
int store_point_restore(struct store *store, const char *guest, const char *name,
                        struct error *err);

int store_point_find(struct store *store, int64_t guest, const char *name, struct store_point *ret,
                     struct error *err);
int store_point_get(struct store *store, int64_t point, struct store_point *ret, struct error *err);
/* From the newest to the oldest, as store_firmware_each(). */
int store_point_each(struct store *store, int64_t guest,
                     int (*each)(const struct store_point *point, void *data), void *data,
                     struct error *err);
/* As store_flash_read(), of the flash as it was. */
ssize_t store_point_read(struct store *store, int64_t point, uint64_t offset, void *buffer,
                         size_t length, struct error *err);

/* ---- Leases ----
 *
 * Whoever has a flash open for writing holds a lease on it, one for each time it was opened; all
 * leases of a flash are of one process. They are changed by store_apply(). */

#define STORE_COMMAND_MAX 63
#define STORE_PATH_MAX 4095

struct store_opener {
    int64_t pid;                         /* of the process; 0: in another pid namespace */
    char command[STORE_COMMAND_MAX + 1]; /* its name; ASCII */
};

struct store_holder {
    struct store_opener opener;
    char mountpoint[STORE_PATH_MAX + 1]; /* where it was opened */
    int64_t since;
};

/* 1 and who holds the flash (the first of its leases), or 0. */
int store_lease_get(struct store *store, int64_t flash, struct store_holder *ret,
                    struct error *err);

/* Takes all leases of a flash away from who holds them. -ENOENT: there are none. */
int store_lease_break(struct store *store, int64_t flash, struct error *err);

/* One change of many that are committed together. */
struct store_change {
    enum store_change_kind {
        STORE_CHANGE_WRITE,      /* offset, bytes, length, now: as store_flash_write() */
        STORE_CHANGE_ATTR,       /* mask, attr: as store_flash_set_attr(); with STORE_ATTR_SIZE also
                                  * size, now: as store_flash_truncate(), and unless is_open is set
                                  * as one that opens it (lease.opener) for that moment */
        STORE_CHANGE_LEASE_TAKE, /* lease; -ETXTBSY: another process holds the flash */
        STORE_CHANGE_LEASE_DROP, /* lease: handle and version */
    } kind;
    int64_t flash;
    uint64_t offset;
    const void *bytes;
    size_t length;
    int64_t now;
    unsigned mask;
    struct store_attr attr;
    uint64_t size;
    bool is_open;
    struct store_lease {
        int64_t handle;   /* one for each time that it is opened */
        uint16_t version; /* of the flash that was opened */
        struct store_opener opener;
        const char *mountpoint;
    } lease;
    /* Set by store_apply(): */
    int result;               /* 0 or a negative errno */
    bool held;                /* of a lease: there are then some of this flash and version */
    struct store_flash after; /* of STORE_CHANGE_ATTR: the flash as it is then */
};

/* Makes the changes, in order, in as few transactions as can be: each is whole or not at all, and
 * one that fails takes no other with it. Returns the first failure, of which `err` tells, or 0. */
int store_apply(struct store *store, struct store_change *changes, size_t count, struct error *err);

/* As truncate(2) where that makes sense: a flash is erased (every byte 0xFF) by size 0, left alone
 * by its own size, and -EINVAL for any other; a staging file gets the size, -EFBIG past its
 * capacity. */
int store_flash_truncate(struct store *store, int64_t flash, uint64_t size, int64_t now,
                         struct error *err);

/* The first offset from `offset` on where there is data, or (`hole`) a hole: blocks of zeros are
 * holes, all else is data, and so is nothing past the end. -ENXIO: there is none. */
int64_t store_flash_seek(struct store *store, int64_t flash, uint64_t offset, bool hole,
                         struct error *err);
int64_t store_image_seek(struct store *store, int64_t image, uint64_t offset, bool hole,
                         struct error *err);

/* ---- Replacing a guest's vars ----
 *
 * Only a split guest has one; -EROFS for others. A flash that is replaced has no name any more, but
 * who has it open goes on with it: it is an orphan until store_orphan_remove(). -ETXTBSY where it
 * is open for writing. */

/* Takes the name away; what it was is gone, but for its owner and mode. -ENOENT. */
int store_vars_unlink(struct store *store, int64_t guest, struct error *err);

/* Makes it again, as its template is, owned as `attr` says. -EEXIST. */
int store_vars_create(struct store *store, int64_t guest, const struct store_attr *attr,
                      struct error *err);

/* Makes the flashes of guests what they began as; owner, mode and attributes stay. All or none;
 * -ENOENT and -ETXTBSY name the guest. */
int store_guest_reset(struct store *store, const char *const *names, size_t count,
                      struct error *err);

/* Staging files: empty at first, written as flashes are, then renamed over vars. */
#define STORE_STAGING_MAX 4 /* of a guest */

/* -EEXIST, -EDQUOT: there are STORE_STAGING_MAX. */
int store_staging_create(struct store *store, int64_t guest, const char *name,
                         const struct store_attr *attr, struct error *err);
int store_staging_find(struct store *store, int64_t guest, const char *name,
                       struct store_flash *ret, struct error *err);
int store_staging_each(struct store *store, int64_t guest,
                       int (*each)(const char *name, int64_t flash, void *data), void *data,
                       struct error *err);
int store_staging_remove(struct store *store, int64_t guest, const char *name, struct error *err);
/* In place of another of the name, if there is one and `replace`; else -EEXIST. */
int store_staging_rename(struct store *store, int64_t guest, const char *name, const char *new_name,
                         bool replace, struct error *err);
/* It becomes the guest's vars. -EINVAL: it has not the size of one; -EEXIST unless `replace`. */
int store_staging_adopt(struct store *store, int64_t guest, const char *name, bool replace,
                        struct error *err);

/* Up to `max` orphans; returns their number. */
int store_orphan_list(struct store *store, int64_t *flashes, size_t max, struct error *err);
int store_orphan_remove(struct store *store, int64_t flash, struct error *err);

/* Forgets what lives only as long as a mount: leases, staging files, orphans. For who knows that no
 * mount is there; cheap if there is nothing. */
int store_forget_mount(struct store *store, struct error *err);

/* ---- Care ---- */

/* One thing that is not as it should be. Texts are UTF-8, names may hold anything that a name may;
 * empty where there is none. */
struct store_damage {
    char place[1024]; /* for people: "guest 'web01': vars at offset 4096" */
    char guest[STORE_NAME_MAX + 1];
    bool removed; /* the guest was removed, and can still be brought back */
    char point[STORE_NAME_MAX + 1];
    char firmware[STORE_NAME_MAX + 1];
    const char *file; /* "code" or "vars" of the guest or firmware; NULL: none */
    int64_t offset;   /* in it; -1: none */
    char what[ERROR_TEXT_SIZE];
    char remedy[ERROR_TEXT_SIZE]; /* of a repair: what was done, and what is lost */
    enum store_damage_outcome {
        STORE_DAMAGE_LEFT,
        STORE_DAMAGE_REPAIRED,
        STORE_DAMAGE_HELD, /* left, because the guest is open for writing */
    } outcome;
};

struct store_check {
    bool repair;
    /* Told of each, in no transaction. */
    void (*damaged)(const struct store_damage *damage, void *data);
    /* How far it is with what; total 0: nobody knows. */
    void (*progress)(const char *what, uint64_t done, uint64_t total, void *data);
    /* Gives the bytes of a firmware's image (its template's, or its executable's) as they may still
     * be had, for shared blocks to be healed from, in memory that is freed with free(); they are
     * used only if they have the image's digest. NULL: there are none. */
    int (*original)(const char *firmware, bool nvram_template, void **ret, size_t *ret_size,
                    void *data, struct error *err);
    void *data;
};

struct store_check_result {
    uint64_t damaged, repaired, held;
    uint64_t images, blocks; /* that were looked at */
};

/* Looks at everything: the file's structure, who refers to whom, every image and every block. Works
 * while the store is in use: only the look at the structure is one read, for which the log cannot
 * be moved. To repair: a private block becomes what the newest restore point that has it holds, or
 * what the image does; one of a restore point what came after it; a shared one is healed from its
 * original; rows that nothing refers to are dropped. 0 whatever was found. */
int store_check(struct store *store, const struct store_check *how, struct store_check_result *ret,
                struct error *err);

/* For what takes long: how far it is with what; total 0: nobody knows. */
struct store_progress {
    void (*told)(const char *what, uint64_t done, uint64_t total, void *data);
    void *data;
};

/* Makes the file as small as it can be: compresses what waits for it, purges removed guests whose
 * time has come, gives free pages back to the disk and empties the log, as far as nobody reads what
 * is in it. Best with STORE_LAZY_SYNC: it syncs at its end. */
int store_compact(struct store *store, const struct store_progress *progress, struct error *err);

/* Copies the store as it is at one moment into a new file, a store itself, without what lives only
 * as long as a mount; the copy is checked and on the disk before it is there. -EEXIST: there is
 * something already. Damage in it (`ret`) is copied, and is no failure. `progress` may be NULL. */
int store_backup(struct store *store, const char *file, const struct store_progress *progress,
                 struct store_check_result *ret, struct error *err);

struct store_migration {
    int from, to;
    char *backup; /* NULL: nothing was to be done; the caller frees it */
};

/* Brings a store of an older version, which nobody has open, to this one's: whole or not at all,
 * and after a backup beside it. */
int store_migrate(const char *path, struct store_migration *ret,
                  const struct store_progress *progress, struct error *err);

#endif
