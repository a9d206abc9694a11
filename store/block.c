#include "store/block.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <openssl/evp.h>
#include <string.h>
#include <zstd.h>

#include "store/dictionary.h"

/* Every frame would begin with these: magic number, flags, content size. So they are not stored; a
 * block is often 20 bytes without them. Of the flags one is for a checksum of the content at the
 * end: with another dictionary, or another block below, a sound body decodes to something else. */
#define HEADER_SIZE 7
static const uint8_t frame_header[HEADER_SIZE] = {0x28, 0xB5, 0x2F, 0xFD, 0x64, 0x00, 0x0F};

int codec_init(struct codec *codec, struct error *err)
{
    codec->compress = ZSTD_createCCtx();
    codec->decompress = ZSTD_createDCtx();
    codec->hash = EVP_MD_CTX_new();
    /* Initialised once: later rounds reuse the digest without looking it up again. */
    if (!codec->compress || !codec->decompress || !codec->hash || !dictionary_1_decoder() ||
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
    static_assert(sizeof codec->frame[0] >= ZSTD_COMPRESSBOUND(STORE_BLOCK_SIZE), "fits any block");
    size_t size = ZSTD_compressCCtx(codec->compress, codec->frame[0], sizeof codec->frame[0], block,
                                    STORE_BLOCK_SIZE, level);
    if (ZSTD_isError(size) || size >= STORE_BLOCK_SIZE)
        return (struct block_data){BLOCK_RAW, block, STORE_BLOCK_SIZE};
    return (struct block_data){BLOCK_ZSTD, codec->frame[0], size};
}

/* With the level, and with what the context refers to. */
static struct block_data compress_body(struct codec *codec, enum block_encoding encoding,
                                       const uint8_t block[STORE_BLOCK_SIZE])
{
    uint8_t *frame = codec->frame[encoding == BLOCK_PREFIX];
    ZSTD_CCtx_setParameter(codec->compress, ZSTD_c_compressionLevel, PRIVATE_COMPRESSION_LEVEL);
    ZSTD_CCtx_setParameter(codec->compress, ZSTD_c_checksumFlag, 1);
    ZSTD_CCtx_setParameter(codec->compress, ZSTD_c_dictIDFlag, 0);
    size_t size =
        ZSTD_compress2(codec->compress, frame, sizeof codec->frame[0], block, STORE_BLOCK_SIZE);
    ZSTD_CCtx_reset(codec->compress, ZSTD_reset_session_and_parameters);
    if (ZSTD_isError(size) || size >= STORE_BLOCK_SIZE ||
        memcmp(frame, frame_header, HEADER_SIZE) != 0)
        return (struct block_data){BLOCK_RAW, block, STORE_BLOCK_SIZE};
    return (struct block_data){encoding, frame + HEADER_SIZE, size - HEADER_SIZE};
}

struct block_data block_compress_private(struct codec *codec, const uint8_t block[STORE_BLOCK_SIZE],
                                         const uint8_t *below)
{
    struct block_data data = {BLOCK_RAW, block, STORE_BLOCK_SIZE};
    const ZSTD_CDict *dictionary = dictionary_1_encoder();
    if (dictionary) {
        ZSTD_CCtx_refCDict(codec->compress, dictionary);
        data = compress_body(codec, BLOCK_DICTIONARY_1, block);
    }
    uint8_t fill;
    if (!below || block_is_fill(below, &fill))
        return data;
    ZSTD_CCtx_refPrefix(codec->compress, below, STORE_BLOCK_SIZE);
    struct block_data other = compress_body(codec, BLOCK_PREFIX, block);
    other.below = below;
    return other.size < data.size ? other : data;
}

static int decode_body(struct codec *codec, struct block_data data, uint8_t ret[STORE_BLOCK_SIZE])
{
    uint8_t *frame = codec->frame[0];
    if (data.size > sizeof codec->frame[0] - HEADER_SIZE)
        return -EUCLEAN;
    memcpy(frame, frame_header, HEADER_SIZE);
    memcpy(frame + HEADER_SIZE, data.bytes, data.size);
    size_t size = ZSTD_decompressDCtx(codec->decompress, ret, STORE_BLOCK_SIZE, frame,
                                      HEADER_SIZE + data.size);
    return size == STORE_BLOCK_SIZE ? 0 : -EUCLEAN;
}

int block_decode(struct codec *codec, struct block_data data, uint8_t ret[STORE_BLOCK_SIZE])
{
    ZSTD_DCtx *context = codec->decompress;
    switch (data.encoding) {
    case BLOCK_RAW:
    case BLOCK_PENDING:
        if (data.size != STORE_BLOCK_SIZE)
            return -EUCLEAN;
        memcpy(ret, data.bytes, STORE_BLOCK_SIZE);
        return 0;
    case BLOCK_ZSTD: {
        ZSTD_DCtx_refDDict(context, NULL);
        size_t size = ZSTD_decompressDCtx(context, ret, STORE_BLOCK_SIZE, data.bytes, data.size);
        return size == STORE_BLOCK_SIZE ? 0 : -EUCLEAN;
    }
    case BLOCK_DICTIONARY_1:
        ZSTD_DCtx_refDDict(context, dictionary_1_decoder());
        return decode_body(codec, data, ret);
    case BLOCK_PREFIX:
        if (!data.below)
            return -EUCLEAN;
        ZSTD_DCtx_refPrefix(context, data.below, STORE_BLOCK_SIZE);
        return decode_body(codec, data, ret);
    case BLOCK_ZEROS:
        memset(ret, 0x00, STORE_BLOCK_SIZE);
        return 0;
    case BLOCK_ONES:
        memset(ret, 0xFF, STORE_BLOCK_SIZE);
        return 0;
    case BLOCK_BELOW:
        if (!data.below)
            return -EUCLEAN;
        memcpy(ret, data.below, STORE_BLOCK_SIZE);
        return 0;
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
