#include "store_fixture.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "scratch.h"
#include "store/db.h"
#include "testing.h"

int fixture_enter(void **state)
{
    struct store *store;
    if (scratch_enter(state) != 0 || store_create(FIXTURE_STORE, NULL) < 0 ||
        store_open(FIXTURE_STORE, STORE_LAZY_SYNC, &store, NULL) < 0)
        return -1;
    *state = store;
    return 0;
}

int fixture_leave(void **state)
{
    store_close(*state);
    return scratch_leave(state);
}

void fixture_reopen(void **state, unsigned flags)
{
    struct store *store;
    struct error err = {0};
    store_close(*state);
    *state = NULL;
    assert_ok(store_open(FIXTURE_STORE, flags, &store, &err), err);
    *state = store;
}

static void fill_block(uint8_t *block, char letter)
{
    uint64_t seed = (uint64_t)letter;
    if (letter == '0' || letter == '1')
        memset(block, 0x00, STORE_BLOCK_SIZE);
    else if (letter == 'F' || letter == 'E')
        memset(block, 0xFF, STORE_BLOCK_SIZE);
    else if (letter == '5')
        memset(block, 0x55, STORE_BLOCK_SIZE);
    else
        for (size_t i = 0; i < STORE_BLOCK_SIZE; i++)
            block[i] = (uint8_t)(isupper((unsigned char)letter) ? fixture_random(&seed, 256)
                                                                : i % 64 + (uint8_t)letter);
    if (letter == '1' || letter == 'E')
        block[STORE_BLOCK_SIZE - 1] = 0x7F;
}

uint8_t *fixture_image(const char *letters)
{
    size_t count = strlen(letters);
    uint8_t *bytes = malloc(count * STORE_BLOCK_SIZE);
    assert_non_null(bytes);
    for (size_t i = 0; i < count; i++)
        fill_block(bytes + i * STORE_BLOCK_SIZE, letters[i]);
    return bytes;
}

struct store_firmware fixture_firmware(struct store *store, const char *name, const char *letters)
{
    cleanup_free uint8_t *image = fixture_image(letters);
    const struct store_firmware_spec spec = {
        .name = name,
        .mode = FLASH_MODE_COMBINED,
        .executable = {.bytes = image, .size = strlen(letters) * STORE_BLOCK_SIZE},
        .descriptor = "{}",
    };
    struct store_firmware firmware;
    struct error err = {0};
    assert_ok(store_firmware_add(store, &spec, &err), err);
    assert_ok(store_firmware_get(store, name, &firmware, &err), err);
    return firmware;
}

struct store_guest fixture_guest(struct store *store, const char *firmware, const char *name)
{
    const struct store_attr attr = {.uid = 107, .gid = 108, .mode = 0640};
    struct store_guest guest;
    struct error err = {0};
    assert_ok(store_guest_add(store, firmware, &name, 1, &attr, &err), err);
    assert_ok(store_guest_by_name(store, name, &guest, &err), err);
    return guest;
}

struct store_status fixture_status(struct store *store)
{
    struct store_status status;
    struct error err = {0};
    assert_ok(store_get_status(store, &status, &err), err);
    return status;
}

void fixture_sql(const char *sql)
{
    cleanup(db_closep) struct db *db = NULL;
    struct error err = {0};
    assert_ok(db_open(FIXTURE_STORE, DB_WRITE_LAZY, &db, &err), err);
    assert_ok(db_script(db, sql, &err), err);
}

int64_t fixture_integer(const char *sql)
{
    cleanup(db_closep) struct db *db = NULL;
    struct error err = {0};
    int64_t value;
    assert_ok(db_open(FIXTURE_STORE, DB_QUERY, &db, &err), err);
    assert_ok(db_integer(db, &err, &value, sql, ""), err);
    return value;
}

uint64_t fixture_random(uint64_t *seed, uint64_t end)
{
    *seed ^= *seed >> 12;
    *seed ^= *seed << 25;
    *seed ^= *seed >> 27;
    return (*seed * UINT64_C(2685821657736338717) >> 32) % end;
}

uint8_t *fixture_load(const char *name, size_t *size)
{
    cleanup_file FILE *file = fopen(name, "r");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    *size = (size_t)ftell(file);
    rewind(file);
    uint8_t *bytes = malloc(*size + 1);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, *size, file), *size);
    return bytes;
}
