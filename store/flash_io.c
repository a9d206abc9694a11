/* Reading and writing through the overlay. A private block is written as it comes (BLOCK_PENDING);
 * compressing it is store_maintain()'s, off the path of who waits for the write. */
#include "store/internal.h"

#include <errno.h>
#include <string.h>

/* What a block without a row holds. */
static int read_below(struct db *db, const struct store_flash *flash, const struct span *span,
                      struct error *err)
{
    if (!flash->staging)
        return image_read(db, flash->image, span, err);
    memset(span->buffer, 0, span->length);
    return 0;
}

/* Fills a span, at least one byte long, that lies within the flash. */
int flash_read(struct db *db, const struct store_flash *flash, const struct span *span,
               struct error *err)
{
    int r = read_below(db, flash, span, err);
    return r < 0 ? r : layer_read(db, flash_layer(flash->id), flash->image, span, err);
}

ssize_t store_flash_read(struct store *store, int64_t flash, uint64_t offset, void *buffer,
                         size_t length, struct error *err)
{
    cleanup_reader struct reader reader = {0};
    struct store_flash found;
    int r = reader_begin(store, &reader, err);
    if (r == 0)
        r = flash_get(reader.db, flash, &found, err);
    if (r < 0 || offset >= found.size || length == 0)
        return r;
    if (length > found.size - offset)
        length = found.size - offset;
    struct span span = {.offset = offset, .length = length, .buffer = buffer};
    r = flash_read(reader.db, &found, &span, err);
    return r < 0 ? r : (ssize_t)length;
}

int flash_write_block(struct db *db, const struct store_flash *flash, struct history *history,
                      int64_t index, const uint8_t block[STORE_BLOCK_SIZE], struct error *err)
{
    static const char drop[] = "DELETE FROM flash_blocks WHERE key = ?";
    static const char put[] = "INSERT INTO flash_blocks (key, encoding, checksum, data)"
                              " VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
                              " encoding = excluded.encoding, checksum = excluded.checksum,"
                              " data = excluded.data";
    int64_t key = flash_block_key(flash->id, index);
    uint8_t below[STORE_BLOCK_SIZE];
    struct span span = {
        .offset = (uint64_t)index * STORE_BLOCK_SIZE, .length = sizeof below, .buffer = below};
    int r = history_keep(db, history, flash, index, block, err);
    if (r != 0)
        return r < 0 ? r : 0;
    r = read_below(db, flash, &span, err);
    if (r < 0)
        return r;
    if (memcmp(block, below, sizeof below) == 0)
        return db_run(db, err, drop, "i", key);

    uint8_t fill;
    struct block_data data = {.encoding = BLOCK_PENDING, .bytes = block, .size = STORE_BLOCK_SIZE};
    if (block_is_fill(block, &fill))
        data = (struct block_data){.encoding = fill ? BLOCK_ONES : BLOCK_ZEROS, .bytes = ""};
    return db_run(db, err, put, "iiib", key, (int64_t)data.encoding,
                  block_checksum(&db->codec, key, data), data.bytes, data.size);
}

/* Brings the span's bytes into one block and writes it. */
static int write_part(struct db *db, const struct store_flash *flash, struct history *history,
                      uint64_t offset, const uint8_t *bytes, size_t length, struct error *err)
{
    int64_t index = (int64_t)(offset / STORE_BLOCK_SIZE);
    size_t within = offset % STORE_BLOCK_SIZE;
    if (length == STORE_BLOCK_SIZE)
        return flash_write_block(db, flash, history, index, bytes, err);

    uint8_t block[STORE_BLOCK_SIZE];
    struct span span = {.offset = offset - within, .length = sizeof block, .buffer = block};
    int r = flash_read(db, flash, &span, err);
    if (r < 0)
        return r;
    memcpy(block + within, bytes, length);
    return flash_write_block(db, flash, history, index, block, err);
}

int flash_touch(struct db *db, int64_t flash, int64_t now, struct error *err)
{
    static const char sql[] = "UPDATE flashes SET atime = ifnull(atime, mtime), mtime = ?2,"
                              " ctime = NULL WHERE id = ?1";
    return db_run(db, err, sql, "ii", flash, now);
}

static int set_size(struct db *db, const struct store_flash *flash, uint64_t size,
                    struct error *err)
{
    static const char sql[] = "UPDATE flashes SET size = ? WHERE id = ?";
    return db_run(db, err, sql, "ii", (int64_t)size, flash->id);
}

int flash_write(struct db *db, int64_t flash, uint64_t offset, const void *bytes, size_t length,
                int64_t now, struct error *err)
{
    struct store_flash found;
    int r = flash_get(db, flash, &found, err);
    if (r < 0)
        return r;
    if (offset > found.capacity || length > found.capacity - offset)
        return error_set(err, -EFBIG, "flash %lld ends at %llu", (long long)flash,
                         (unsigned long long)found.capacity);

    struct history history;
    r = history_open(db, &found, &history, err);
    const uint8_t *from = bytes;
    while (length > 0 && r == 0) {
        size_t part = STORE_BLOCK_SIZE - offset % STORE_BLOCK_SIZE;
        if (part > length)
            part = length;
        r = write_part(db, &found, &history, offset, from, part, err);
        offset += part;
        from += part;
        length -= part;
    }
    if (r == 0 && offset > found.size)
        r = set_size(db, &found, offset, err);
    return r < 0 || now == 0 ? r : flash_touch(db, flash, now, err);
}

/* ---- Truncating, and what a staging file becomes ---- */

static int erase(struct db *db, const struct store_flash *flash, struct error *err)
{
    uint8_t erased[STORE_BLOCK_SIZE];
    memset(erased, 0xFF, sizeof erased);
    int64_t blocks = (int64_t)(flash->size / STORE_BLOCK_SIZE);
    struct history history;
    int r = history_open(db, flash, &history, err);
    for (int64_t index = 0; index < blocks && r == 0; index++)
        r = flash_write_block(db, flash, &history, index, erased, err);
    return r;
}

static int resize(struct db *db, const struct store_flash *flash, uint64_t size, struct error *err)
{
    static const uint8_t zeros[STORE_BLOCK_SIZE];
    struct history none = {0};
    size_t within = size % STORE_BLOCK_SIZE;
    int64_t kept = (int64_t)(size / STORE_BLOCK_SIZE) + (within > 0);
    int r = layer_drop(db, flash_layer(flash->id), kept, err);
    /* What a later growth uncovers is zeros. */
    if (r == 0 && within > 0 && size < flash->size)
        r = write_part(db, flash, &none, size, zeros, STORE_BLOCK_SIZE - within, err);
    return r < 0 ? r : set_size(db, flash, size, err);
}

int flash_truncate(struct db *db, int64_t flash, uint64_t size, int64_t now, struct error *err)
{
    struct store_flash found;
    int r = flash_get(db, flash, &found, err);
    if (r < 0 || (size == found.size && !found.staging))
        return r;
    if (found.staging && size > found.capacity)
        return error_set(err, -EFBIG, "a staging file has at most %llu bytes",
                         (unsigned long long)found.capacity);
    if (!found.staging && size > 0)
        return error_set(err, -EINVAL, "a flash of %llu bytes has always that size",
                         (unsigned long long)found.size);
    r = found.staging ? resize(db, &found, size, err) : erase(db, &found, err);
    return r < 0 ? r : flash_touch(db, flash, now, err);
}

int store_flash_truncate(struct store *store, int64_t flash, uint64_t size, int64_t now,
                         struct error *err)
{
    cleanup_txn struct txn txn = {0};
    int r = txn_begin(store, &txn, err);
    if (r == 0)
        r = flash_truncate(txn.db, flash, size, now, err);
    return r < 0 ? r : txn_commit(&txn, err);
}

int flash_adopt(struct db *db, int64_t flash, struct error *err)
{
    static const char sql[] = "UPDATE flashes SET size = NULL WHERE id = ?";
    struct store_flash before, after;
    int r = flash_get(db, flash, &before, err);
    if (r < 0)
        return r;
    after = before;
    after.staging = false;
    uint8_t block[STORE_BLOCK_SIZE];
    struct span span = {.length = sizeof block, .buffer = block};
    struct history none = {0};
    for (; span.offset < before.size && r == 0; span.offset += sizeof block) {
        r = flash_read(db, &before, &span, err);
        if (r == 0)
            r = flash_write_block(db, &after, &none, span_first(&span), block, err);
    }
    return r < 0 ? r : db_run(db, err, sql, "i", flash);
}

int flash_reset(struct db *db, int64_t flash, struct error *err)
{
    struct store_flash found;
    struct history history;
    uint8_t block[STORE_BLOCK_SIZE];
    int64_t index = -1;
    int r = flash_get(db, flash, &found, err);
    if (r == 0)
        r = history_edit(db, found.guest, false, 0, &history, err);
    while (r == 0 && (r = layer_next(db, flash_layer(flash), index + 1, &index, err)) > 0) {
        struct span span = {
            .offset = (uint64_t)index * STORE_BLOCK_SIZE, .length = sizeof block, .buffer = block};
        r = read_below(db, &found, &span, err);
        if (r == 0)
            r = flash_write_block(db, &found, &history, index, block, err);
    }
    return r;
}
