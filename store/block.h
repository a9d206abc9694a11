/* A block's bytes as they are kept: encoded, checked.
 *
 * Shared blocks are named and checked by the SHA-256 of their content. A private block carries a
 * checksum over where it belongs, how it is encoded and what is stored, so that a block that was
 * moved, cut or changed is found before anyone reads it. */
#ifndef FWFS_STORE_BLOCK_H
#define FWFS_STORE_BLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "store/store.h"

/* Kept in the database: values never change their meaning. */
enum block_encoding {
    BLOCK_RAW = 0,          /* the bytes; compressing gains nothing */
    BLOCK_ZSTD = 1,         /* a zstd frame (RFC 8878) */
    BLOCK_ZEROS = 2,        /* no data: 0x00 throughout */
    BLOCK_ONES = 3,         /* no data: 0xFF throughout */
    BLOCK_PENDING = 4,      /* the bytes; compressing has not been tried yet */
    BLOCK_DICTIONARY_1 = 5, /* a frame's body, made with dictionary 1 */
    BLOCK_PREFIX = 6,       /* the same, made with the image's block as its prefix */
    BLOCK_BELOW = 8,        /* of a restore point, no data: as the image below */
};

/* Past this, zstd gains little on 4 KiB of variables and takes longer. */
#define PRIVATE_COMPRESSION_LEVEL 15

/* What a connection needs to encode and decode. */
struct codec {
    struct ZSTD_CCtx_s *compress;
    struct ZSTD_DCtx_s *decompress;
    struct evp_md_ctx_st *hash;
    /* Whole frames: what was compressed, with a prefix the second; the first is for decoding too.
     */
    uint8_t frame[2][2 * STORE_BLOCK_SIZE];
};

int codec_init(struct codec *codec, struct error *err);
void codec_clear(struct codec *codec);

struct block_data {
    enum block_encoding encoding;
    const void *bytes;
    size_t size;
    const uint8_t *below; /* the image's block, where BLOCK_PREFIX or BLOCK_BELOW need it */
};

/* True if all of the block is 0x00, or all is 0xFF. */
bool block_is_fill(const uint8_t block[STORE_BLOCK_SIZE], uint8_t *fill);

/* The smaller of raw and zstd at this level; the bytes live until the codec's next use. */
struct block_data block_compress(struct codec *codec, const uint8_t block[STORE_BLOCK_SIZE],
                                 int level);

/* The smallest of raw, BLOCK_DICTIONARY_1 and, unless `below` is NULL, BLOCK_PREFIX. */
struct block_data block_compress_private(struct codec *codec, const uint8_t block[STORE_BLOCK_SIZE],
                                         const uint8_t *below);

/* -EUCLEAN if it does not give exactly one block. */
int block_decode(struct codec *codec, struct block_data data, uint8_t ret[STORE_BLOCK_SIZE]);

void block_digest(struct codec *codec, const void *bytes, size_t size,
                  uint8_t ret[STORE_DIGEST_SIZE]);

int64_t block_checksum(struct codec *codec, int64_t key, struct block_data data);

#endif
