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
 * process for over 10 s), -EINVAL, -EROFS the store is open read-only, -ENOSPC, -EUCLEAN damage
 * found (a checksum or the structure is wrong), -EIO the disk failed, -ENOMEM.
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
};

struct store_flash {
    int64_t id;
    int64_t image; /* what it is an overlay on */
    uint64_t size;
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
};

/* Adds guests of one firmware, all or none: each gets a flash on the nvram-template (split) or on
 * the executable, owned as `attr` says (uid, gid and mode; the times are now). -EEXIST and -EINVAL
 * name the guest, -ENOENT the firmware. */
int store_guest_add(struct store *store, const char *firmware, const char *const *names,
                    size_t count, const struct store_attr *attr, struct error *err);

/* Removes guests with all that is theirs, all or none. -ENOENT names the guest. */
int store_guest_remove(struct store *store, const char *const *names, size_t count,
                       struct error *err);

/* -ENOENT: no `old_name`; -EEXIST: there is a `new_name`; -EINVAL: a wrong name. */
int store_guest_rename(struct store *store, const char *old_name, const char *new_name,
                       struct error *err);

int store_guest_by_name(struct store *store, const char *name, struct store_guest *ret,
                        struct error *err);
/* Whose flash it is; takes the longer the more guests there are. */
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

/* One change of many that are committed together. */
struct store_change {
    enum store_change_kind {
        STORE_CHANGE_WRITE, /* offset, bytes, length, now: as store_flash_write() */
        STORE_CHANGE_ATTR,  /* mask, attr: as store_flash_set_attr() */
    } kind;
    int64_t flash;
    uint64_t offset;
    const void *bytes;
    size_t length;
    int64_t now;
    unsigned mask;
    struct store_attr attr;
    int result;               /* set by store_apply(): 0 or a negative errno */
    struct store_flash after; /* set for STORE_CHANGE_ATTR: the flash as it is then */
};

/* Makes the changes, in order, in as few transactions as can be: each is whole or not at all, and
 * one that fails takes no other with it. Returns the first failure, of which `err` tells, or 0. */
int store_apply(struct store *store, struct store_change *changes, size_t count, struct error *err);

/* Sets every byte to 0xFF, as erasing a flash device does. */
int store_flash_erase(struct store *store, int64_t flash, int64_t now, struct error *err);

#endif
