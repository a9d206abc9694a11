#include "store/dictionary.h"

#include <pthread.h>
#include <zstd.h>

#include "store/block.h"

extern const uint8_t dictionary_1_end[];

static ZSTD_CDict *encoder;
static ZSTD_DDict *decoder;

size_t dictionary_1_size(void)
{
    return (size_t)(dictionary_1_end - dictionary_1);
}

static void make_encoder(void)
{
    encoder = ZSTD_createCDict(dictionary_1, dictionary_1_size(), PRIVATE_COMPRESSION_LEVEL);
}

static void make_decoder(void)
{
    decoder = ZSTD_createDDict(dictionary_1, dictionary_1_size());
}

const ZSTD_CDict *dictionary_1_encoder(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_encoder);
    return encoder;
}

const ZSTD_DDict *dictionary_1_decoder(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_decoder);
    return decoder;
}
