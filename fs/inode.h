/* Inode numbers that say by themselves what they are, so that a worker can answer for any of them
 * without having been there when it was looked up.
 *
 * Bits 56 to 62 hold the kind, the rest what the kind needs:
 *   root      1 (FUSE_ROOT_ID)
 *   guest     the guest's id                        its directory
 *   code      image id << 24 | shard                shared, read-only
 *   flash     flash id << 16 | version              a guest's own; a new version makes the kernel
 *                                                   start anew
 *   generated guest id << 4 | enum generated_file
 *   snapshots guest id                              the directory .snapshots
 *   point     restore point id                      a directory in it
 *   past      restore point id                      a guest's own as it was then
 * Ids are never used twice (AUTOINCREMENT), so neither is a number. Bit 63 stays clear: some
 * programs read st_ino as signed. */
#ifndef FWFS_FS_INODE_H
#define FWFS_FS_INODE_H

#include <stdbool.h>
#include <stdint.h>

/* QEMU takes two locks on a file it opens, and the kernel walks all locks of an inode for each: so
 * the guests of an image share its code in groups of this size, each with an inode of its own. */
#define INODE_SHARD_GUESTS 512

enum inode_kind {
    INODE_ROOT = 0,
    INODE_GUEST = 1,
    INODE_CODE = 2,
    INODE_FLASH = 3,
    INODE_GENERATED = 4,
    INODE_SNAPSHOTS = 5,
    INODE_POINT = 6,
    INODE_PAST = 7,
};

enum generated_file {
    GENERATED_FIRMWARE_JSON = 0,
    GENERATED_GUEST_JSON = 1,
};

struct inode {
    enum inode_kind kind;
    int64_t id;              /* of the guest, image, flash or restore point */
    uint32_t shard, version; /* of code; of a flash */
    enum generated_file file;
};

uint64_t inode_root(void);
uint64_t inode_of_guest(int64_t guest);
uint64_t inode_of_code(int64_t image, int64_t guest);
uint64_t inode_of_flash(int64_t flash, uint16_t version);
uint64_t inode_of_generated(int64_t guest, enum generated_file file);

uint64_t inode_of_snapshots(int64_t guest);
uint64_t inode_of_point(int64_t point);
uint64_t inode_of_past(int64_t point);

/* True for what is below .snapshots, and for that. */
bool inode_is_past(const struct inode *inode);

/* False for a number that none of these gives. */
bool inode_parse(uint64_t number, struct inode *ret);

#endif
