#include "fs/inode.h"

#include <assert.h>

#define KIND_SHIFT 56
#define PAYLOAD_MASK ((UINT64_C(1) << KIND_SHIFT) - 1)
#define SHARD_BITS 24
#define VERSION_BITS 16
#define FILE_BITS 4

static uint64_t number(enum inode_kind kind, int64_t id, unsigned low_bits, uint64_t low)
{
    assert(id > 0 && (uint64_t)id <= PAYLOAD_MASK >> low_bits && low >> low_bits == 0);
    return (uint64_t)kind << KIND_SHIFT | (uint64_t)id << low_bits | low;
}

uint64_t inode_root(void)
{
    return number(INODE_ROOT, 1, 0, 0);
}

uint64_t inode_of_guest(int64_t guest)
{
    return number(INODE_GUEST, guest, 0, 0);
}

uint64_t inode_of_code(int64_t image, int64_t guest)
{
    uint64_t shard = (uint64_t)guest / INODE_SHARD_GUESTS;
    return number(INODE_CODE, image, SHARD_BITS, shard & ((1U << SHARD_BITS) - 1));
}

uint64_t inode_of_flash(int64_t flash, uint16_t version)
{
    return number(INODE_FLASH, flash, VERSION_BITS, version);
}

uint64_t inode_of_generated(int64_t guest, enum generated_file file)
{
    return number(INODE_GENERATED, guest, FILE_BITS, file);
}

uint64_t inode_of_snapshots(int64_t guest)
{
    return number(INODE_SNAPSHOTS, guest, 0, 0);
}

uint64_t inode_of_point(int64_t point)
{
    return number(INODE_POINT, point, 0, 0);
}

uint64_t inode_of_past(int64_t point)
{
    return number(INODE_PAST, point, 0, 0);
}

bool inode_is_past(const struct inode *inode)
{
    return inode->kind == INODE_SNAPSHOTS || inode->kind == INODE_POINT ||
           inode->kind == INODE_PAST;
}

bool inode_parse(uint64_t number, struct inode *ret)
{
    uint64_t payload = number & PAYLOAD_MASK;
    *ret = (struct inode){.kind = (enum inode_kind)(number >> KIND_SHIFT), .id = (int64_t)payload};
    switch (ret->kind) {
    case INODE_ROOT:
        return payload == 1;
    case INODE_GUEST:
    case INODE_SNAPSHOTS:
    case INODE_POINT:
    case INODE_PAST:
        return payload > 0;
    case INODE_CODE:
        ret->id = (int64_t)(payload >> SHARD_BITS);
        ret->shard = payload & ((1U << SHARD_BITS) - 1);
        return ret->id > 0;
    case INODE_FLASH:
        ret->id = (int64_t)(payload >> VERSION_BITS);
        ret->version = payload & ((1U << VERSION_BITS) - 1);
        return ret->id > 0;
    case INODE_GENERATED:
        ret->id = (int64_t)(payload >> FILE_BITS);
        ret->file = (enum generated_file)(payload & ((1U << FILE_BITS) - 1));
        return ret->id > 0 && ret->file <= GENERATED_GUEST_JSON;
    }
    return false;
}
