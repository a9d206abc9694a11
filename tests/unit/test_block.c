/* Encoding and decoding a block, without a database. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "store/block.h"
#include "store/dictionary.h"
#include "store_fixture.h"
#include "testing.h"

static int enter(void **state)
{
    static struct codec codec;
    *state = &codec;
    return codec_init(&codec, NULL);
}

static int leave(void **state)
{
    codec_clear(*state);
    return 0;
}

/* What a variable store looks like: erased, but for a part of the dictionary. */
static void make_variables(uint8_t block[STORE_BLOCK_SIZE], uint64_t seed)
{
    memset(block, 0xFF, STORE_BLOCK_SIZE);
    size_t from = dictionary_1_size() - 2048 - fixture_random(&seed, 2048);
    memcpy(block + fixture_random(&seed, 1024), dictionary_1 + from, 1500);
}

static void assert_decodes(struct codec *codec, struct block_data data, const uint8_t *expected)
{
    uint8_t out[STORE_BLOCK_SIZE];
    cleanup_free uint8_t *copy = malloc(data.size + 1);
    memcpy(copy, data.bytes, data.size);
    data.bytes = copy;
    assert_int_equal(block_decode(codec, data, out), 0);
    assert_memory_equal(out, expected, sizeof out);
}

/* Blocks in stores need these very bytes: a dictionary that is to be better is another one. */
static void the_dictionary_never_changes(void **state)
{
    static const char expected[] =
        "7ea3717cdcd114d4d3350131686f42a6f73f12cafdb5b8444fc108f4847a9d14";
    uint8_t digest[STORE_DIGEST_SIZE];
    char found[2 * sizeof digest + 1];
    block_digest(*state, dictionary_1, dictionary_1_size(), digest);
    for (size_t i = 0; i < sizeof digest; i++)
        snprintf(found + 2 * i, 3, "%02x", digest[i]);
    assert_string_equal(found, expected);
}

static void each_block_takes_its_smallest_encoding(void **state)
{
    uint8_t variables[STORE_BLOCK_SIZE];
    make_variables(variables, 1);
    cleanup_free uint8_t *noise = fixture_image("AF");
    uint8_t changed[STORE_BLOCK_SIZE];
    memcpy(changed, noise, sizeof changed);
    changed[1000] ^= 1;
    const uint8_t *fill = noise + STORE_BLOCK_SIZE;
    const struct {
        const uint8_t *block, *below;
        enum block_encoding encoding;
        size_t size;
    } cases[] = {
        {variables, NULL, BLOCK_DICTIONARY_1, 40},    {variables, fill, BLOCK_DICTIONARY_1, 40},
        {variables, noise, BLOCK_DICTIONARY_1, 40},   {changed, NULL, BLOCK_RAW, STORE_BLOCK_SIZE},
        {changed, fill, BLOCK_RAW, STORE_BLOCK_SIZE}, {changed, noise, BLOCK_PREFIX, 40},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct block_data data = block_compress_private(*state, cases[i].block, cases[i].below);
        assert_int_equal(data.encoding, cases[i].encoding);
        assert_true(data.size <= cases[i].size);
        assert_decodes(*state, data, cases[i].block);
    }
}

/* One context decodes them all, in any order. */
static void encodings_do_not_disturb_each_other(void **state)
{
    uint64_t seed = 7;
    for (int round = 0; round < 300; round++) {
        uint8_t block[STORE_BLOCK_SIZE], below[STORE_BLOCK_SIZE];
        make_variables(block, fixture_random(&seed, 1000));
        make_variables(below, fixture_random(&seed, 1000));
        for (size_t i = 0; i < 20; i++)
            block[fixture_random(&seed, sizeof block)] = (uint8_t)fixture_random(&seed, 256);
        struct block_data data =
            fixture_random(&seed, 2)
                ? block_compress(*state, block, 3)
                : block_compress_private(*state, block, fixture_random(&seed, 2) ? below : NULL);
        assert_int_not_equal(data.encoding, BLOCK_RAW);
        assert_decodes(*state, data, block);
    }
}

static void another_block_below_is_found(void **state)
{
    cleanup_free uint8_t *images = fixture_image("AB");
    uint8_t block[STORE_BLOCK_SIZE], out[STORE_BLOCK_SIZE];
    memcpy(block, images, sizeof block);
    block[77] ^= 1;
    struct block_data data = block_compress_private(*state, block, images);
    assert_int_equal(data.encoding, BLOCK_PREFIX);
    cleanup_free uint8_t *bytes = malloc(data.size);
    memcpy(bytes, data.bytes, data.size);
    data.bytes = bytes;
    data.below = images + STORE_BLOCK_SIZE;
    assert_int_equal(block_decode(*state, data, out), -EUCLEAN);
    data.below = NULL;
    assert_int_equal(block_decode(*state, data, out), -EUCLEAN);
    data.encoding = BLOCK_BELOW;
    assert_int_equal(block_decode(*state, data, out), -EUCLEAN);
    data.below = images;
    assert_int_equal(block_decode(*state, data, out), 0);
    assert_memory_equal(out, images, sizeof out);
}

/* What is cut, or of another encoding, is -EUCLEAN. What is changed may be: the checksum is for
 * that; here it only must not be read or written past its end. */
static void hostile_bytes_are_refused(void **state)
{
    uint64_t seed = 3;
    uint8_t block[STORE_BLOCK_SIZE], out[STORE_BLOCK_SIZE];
    cleanup_free uint8_t *noise = fixture_image("A");
    for (int round = 0; round < 40; round++) {
        make_variables(block, (uint64_t)round);
        if (round % 2)
            memcpy(block, noise, 3000);
        struct block_data data = block_compress_private(*state, block, round % 2 ? noise : NULL);
        assert_int_equal(data.encoding, round % 2 ? BLOCK_PREFIX : BLOCK_DICTIONARY_1);
        cleanup_free uint8_t *whole = malloc(data.size);
        memcpy(whole, data.bytes, data.size);
        struct block_data hostile = data;
        hostile.below = noise;
        for (size_t size = 0; size < data.size; size++) {
            cleanup_free uint8_t *bytes = malloc(size + 1);
            memcpy(bytes, whole, size);
            hostile.bytes = bytes;
            hostile.size = size;
            assert_int_equal(block_decode(*state, hostile, out), -EUCLEAN);
        }
        hostile.size = data.size;
        for (int change = 0; change < 500; change++) {
            cleanup_free uint8_t *bytes = malloc(data.size);
            memcpy(bytes, whole, data.size);
            hostile.bytes = bytes;
            for (uint64_t i = 0; i <= fixture_random(&seed, 4); i++)
                bytes[fixture_random(&seed, data.size)] = (uint8_t)fixture_random(&seed, 256);
            int r = block_decode(*state, hostile, out);
            assert_true(r == 0 || r == -EUCLEAN);
        }
        cleanup_free uint8_t *longer = calloc(1, 2 * STORE_BLOCK_SIZE + 1);
        memcpy(longer, whole, data.size);
        hostile.bytes = longer;
        for (size_t i = 0; i < 3; i++) {
            hostile.size = i == 0 ? data.size + 1 : (2 * STORE_BLOCK_SIZE - 7 * (i - 1)) + i % 2;
            assert_int_equal(block_decode(*state, hostile, out), -EUCLEAN);
        }
    }
}

/* As if the program had been built with another dictionary. */
static void another_dictionary_is_found(void **state)
{
    uint8_t block[STORE_BLOCK_SIZE], out[STORE_BLOCK_SIZE];
    cleanup_free uint8_t *images = fixture_image("A");
    for (uint64_t seed = 1; seed < 100; seed++) {
        make_variables(block, seed);
        struct block_data data = block_compress_private(*state, block, NULL);
        assert_int_equal(data.encoding, BLOCK_DICTIONARY_1);
        cleanup_free uint8_t *bytes = malloc(data.size);
        memcpy(bytes, data.bytes, data.size);
        data.bytes = bytes;
        data.encoding = BLOCK_PREFIX;
        data.below = images;
        assert_int_equal(block_decode(*state, data, out), -EUCLEAN);
        data.below = dictionary_1 + dictionary_1_size() - STORE_BLOCK_SIZE - 1;
        assert_int_equal(block_decode(*state, data, out), -EUCLEAN);
    }
}

static void an_encoding_of_the_future_is_refused(void **state)
{
    uint8_t block[STORE_BLOCK_SIZE] = {0}, out[STORE_BLOCK_SIZE];
    static const int unknown[] = {7, 9, 255, -1};
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++) {
        const struct block_data data = {
            .encoding = (enum block_encoding)unknown[i], .bytes = block, .size = sizeof block};
        assert_int_equal(block_decode(*state, data, out), -EUCLEAN);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_dictionary_never_changes),
        cmocka_unit_test(each_block_takes_its_smallest_encoding),
        cmocka_unit_test(encodings_do_not_disturb_each_other),
        cmocka_unit_test(another_block_below_is_found),
        cmocka_unit_test(hostile_bytes_are_refused),
        cmocka_unit_test(another_dictionary_is_found),
        cmocka_unit_test(an_encoding_of_the_future_is_refused),
    };
    return cmocka_run_group_tests_name("block", tests, enter, leave);
}
