#include "store/block.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <openssl/evp.h>
#include <string.h>
#include <zstd.h>

int codec_init(struct codec *codec, struct error *err)
{
    codec->compress = ZSTD_createCCtx();
    codec->decompress = ZSTD_createDCtx();
    codec->hash = EVP_MD_CTX_new();
    /* Initialised once: later rounds reuse the digest without looking it up again. */
    if (!codec->compress || !codec->decompress || !codec->hash ||
        !EVP_DigestInit_ex2(codec->hash, EVP_sha256(), NULL))
        return error_set(err, -ENOMEM, "out of memory");
    return 0;
}

void codec_clear(struct codec *codec)
{
    ZSTD_freeCCtx(codec->compress);
    ZSTD_freeDCtx(codec->decompress);
    EVP_MD_CTX_free(codec->hash);
}

bool block_is_fill(const uint8_t block[STORE_BLOCK_SIZE], uint8_t *fill)
{
    *fill = block[0];
    return (block[0] == 0x00 || block[0] == 0xFF) &&
           memcmp(block, block + 1, STORE_BLOCK_SIZE - 1) == 0;
}

struct block_data block_compress(struct codec *codec, const uint8_t block[STORE_BLOCK_SIZE],
                                 int level)
{
    static_assert(sizeof codec->scratch >= ZSTD_COMPRESSBOUND(STORE_BLOCK_SIZE), "fits any block");
    size_t size = ZSTD_compressCCtx(codec->compress, codec->scratch, sizeof codec->scratch, block,
                                    STORE_BLOCK_SIZE, level);
    if (ZSTD_isError(size) || size >= STORE_BLOCK_SIZE)
        return (struct block_data){BLOCK_RAW, block, STORE_BLOCK_SIZE};
    return (struct block_data){BLOCK_ZSTD, codec->scratch, size};
}

int block_decode(struct codec *codec, struct block_data data, uint8_t ret[STORE_BLOCK_SIZE])
{
    switch (data.encoding) {
    case BLOCK_RAW:
    case BLOCK_PENDING:
        if (data.size != STORE_BLOCK_SIZE)
            return -EUCLEAN;
        memcpy(ret, data.bytes, STORE_BLOCK_SIZE);
        return 0;
    case BLOCK_ZSTD: {
        size_t size =
            ZSTD_decompressDCtx(codec->decompress, ret, STORE_BLOCK_SIZE, data.bytes, data.size);
        return size == STORE_BLOCK_SIZE ? 0 : -EUCLEAN;
    }
    case BLOCK_ZEROS:
        memset(ret, 0x00, STORE_BLOCK_SIZE);
        return 0;
    case BLOCK_ONES:
        memset(ret, 0xFF, STORE_BLOCK_SIZE);
        return 0;
    case BLOCK_BELOW:
        break;
    }
    return -EUCLEAN;
}

static void hash_start(struct codec *codec)
{
    int ok = EVP_DigestInit_ex2(codec->hash, NULL, NULL);
    assert(ok);
}

static void hash_add(struct codec *codec, const void *bytes, size_t size)
{
    int ok = EVP_DigestUpdate(codec->hash, bytes, size);
    assert(ok);
}

static void hash_end(struct codec *codec, uint8_t ret[STORE_DIGEST_SIZE])
{
    int ok = EVP_DigestFinal_ex(codec->hash, ret, NULL);
    assert(ok);
}

void block_digest(struct codec *codec, const void *bytes, size_t size,
                  uint8_t ret[STORE_DIGEST_SIZE])
{
    hash_start(codec);
    hash_add(codec, bytes, size);
    hash_end(codec, ret);
}

int64_t block_checksum(struct codec *codec, int64_t key, struct block_data data)
{
    uint8_t digest[STORE_DIGEST_SIZE];
    uint8_t head[9];
    for (int i = 0; i < 8; i++)
        head[i] = (uint8_t)((uint64_t)key >> (8 * i));
    head[8] = (uint8_t)data.encoding;

    hash_start(codec);
    hash_add(codec, head, sizeof head);
    hash_add(codec, data.bytes, data.size);
    hash_end(codec, digest);

    uint64_t checksum;
    memcpy(&checksum, digest, sizeof checksum);
    return (int64_t)le64toh(checksum);
}
