#include "store/internal.h"

#include <errno.h>
#include <string.h>

/* Images are compressed once and read for years. */
#define IMAGE_COMPRESSION_LEVEL 19

int image_column_digest(sqlite3_stmt *stmt, int column, uint8_t ret[STORE_DIGEST_SIZE],
                        struct error *err)
{
    const void *digest = sqlite3_column_blob(stmt, column);
    if (!digest || sqlite3_column_bytes(stmt, column) != STORE_DIGEST_SIZE)
        return error_set(err, -EUCLEAN, "the store is damaged: a digest has the wrong size");
    memcpy(ret, digest, STORE_DIGEST_SIZE);
    return 0;
}

int image_get(struct db *db, int64_t image, struct store_image *ret, struct error *err)
{
    static const char sql[] = "SELECT size, digest FROM images WHERE id = ?";
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    int r = db_prepare(db, sql, &stmt, err);
    if (r < 0)
        return r;
    db_bind(stmt, "i", image);
    r = db_step(db, stmt, err);
    if (r < 0)
        return r;
    if (r == 0)
        return error_set(err, -ENOENT, "there is no image %lld", (long long)image);
    ret->id = image;
    ret->size = (uint64_t)sqlite3_column_int64(stmt, 0);
    return image_column_digest(stmt, 1, ret->digest, err);
}

int store_image_get(struct store *store, int64_t image, struct store_image *ret, struct error *err)
{
    cleanup_reader struct reader reader = {0};
    int r = reader_begin(store, &reader, err);
    return r < 0 ? r : image_get(reader.db, image, ret, err);
}

/* ---- Adding and removing ---- */

static uint8_t commonest_fill(const uint8_t *bytes, size_t size)
{
    size_t count[2] = {0, 0};
    uint8_t fill;
    for (size_t at = 0; at < size; at += STORE_BLOCK_SIZE)
        if (block_is_fill(bytes + at, &fill))
            count[fill & 1]++;
    return count[1] > count[0] ? 0xFF : 0x00;
}

static int find_by_digest(struct db *db, const char *sql, const uint8_t digest[STORE_DIGEST_SIZE],
                          int64_t *ret, struct error *err)
{
    return db_integer(db, err, ret, sql, "b", digest, (size_t)STORE_DIGEST_SIZE);
}

static int block_add(struct db *db, const uint8_t *block, int64_t *ret, struct error *err)
{
    static const char find[] = "SELECT id FROM blocks WHERE digest = ?";
    static const char insert[] = "INSERT INTO blocks (digest, encoding, data) VALUES (?, ?, ?)";
    uint8_t digest[STORE_DIGEST_SIZE];
    block_digest(&db->codec, block, STORE_BLOCK_SIZE, digest);
    int r = find_by_digest(db, find, digest, ret, err);
    if (r < 0 || *ret)
        return r;

    struct block_data data = block_compress(&db->codec, block, IMAGE_COMPRESSION_LEVEL);
    r = db_run(db, err, insert, "bib", digest, (size_t)STORE_DIGEST_SIZE, (int64_t)data.encoding,
               data.bytes, data.size);
    *ret = sqlite3_last_insert_rowid(db->handle);
    return r;
}

static int map_block(struct db *db, int64_t image, uint8_t image_fill, int64_t index,
                     const uint8_t *block, struct error *err)
{
    static const char insert[] =
        "INSERT INTO image_blocks (image_id, block_index, block_id) VALUES (?, ?, ?)";
    uint8_t fill;
    if (block_is_fill(block, &fill))
        return fill == image_fill ? 0 : db_run(db, err, insert, "iin", image, index);

    int64_t id = 0;
    int r = block_add(db, block, &id, err);
    return r < 0 ? r : db_run(db, err, insert, "iii", image, index, id);
}

int image_add(struct db *db, const void *bytes, size_t size, int64_t *ret, struct error *err)
{
    static const char find[] = "SELECT id FROM images WHERE digest = ?";
    static const char insert[] = "INSERT INTO images (digest, size, fill) VALUES (?, ?, ?)";
    if (size == 0 || size % STORE_BLOCK_SIZE != 0 || size > STORE_IMAGE_SIZE_MAX)
        return error_set(err, -EINVAL, "an image of %zu bytes; it must be a multiple of %d", size,
                         STORE_BLOCK_SIZE);

    uint8_t digest[STORE_DIGEST_SIZE];
    block_digest(&db->codec, bytes, size, digest);
    int r = find_by_digest(db, find, digest, ret, err);
    if (r < 0 || *ret)
        return r;

    uint8_t fill = commonest_fill(bytes, size);
    r = db_run(db, err, insert, "bii", digest, (size_t)STORE_DIGEST_SIZE, (int64_t)size,
               (int64_t)fill);
    if (r < 0)
        return r;
    *ret = sqlite3_last_insert_rowid(db->handle);
    for (size_t at = 0; at < size && r == 0; at += STORE_BLOCK_SIZE)
        r = map_block(db, *ret, fill, (int64_t)(at / STORE_BLOCK_SIZE), (const uint8_t *)bytes + at,
                      err);
    return r;
}

int image_remove_unused(struct db *db, int64_t image, struct error *err)
{
    static const char needed[] =
        "SELECT EXISTS (SELECT 1 FROM firmware WHERE executable_id = ?1 OR nvram_template_id = ?1)"
        " OR EXISTS (SELECT 1 FROM flashes WHERE image_id = ?1)";
    static const char drop_blocks[] =
        "DELETE FROM blocks WHERE id IN (SELECT block_id FROM image_blocks WHERE image_id = ?1)"
        " AND NOT EXISTS"
        " (SELECT 1 FROM image_blocks WHERE block_id = blocks.id AND image_id <> ?1)";
    static const char drop_map[] = "DELETE FROM image_blocks WHERE image_id = ?";
    static const char drop_image[] = "DELETE FROM images WHERE id = ?";

    int64_t used;
    int r = db_integer(db, err, &used, needed, "i", image);
    if (r < 0 || used)
        return r;
    /* The map refers to the blocks that go first. */
    r = db_script(db, "PRAGMA defer_foreign_keys = ON", err);
    if (r == 0)
        r = db_run(db, err, drop_blocks, "i", image);
    if (r == 0)
        r = db_run(db, err, drop_map, "i", image);
    if (r == 0)
        r = db_run(db, err, drop_image, "i", image);
    return r;
}

/* ---- Healing ---- */

static int replace_block(struct db *db, int64_t id, const uint8_t *block, struct error *err)
{
    static const char sql[] = "UPDATE blocks SET encoding = ?2, data = ?3 WHERE id = ?1";
    struct block_data data = block_compress(&db->codec, block, IMAGE_COMPRESSION_LEVEL);
    return db_run(db, err, sql, "iib", id, (int64_t)data.encoding, data.bytes, data.size);
}

static int heal_block(struct db *db, int64_t image, uint8_t fill, int64_t index,
                      const uint8_t *block, struct error *err)
{
    static const char get[] =
        "SELECT block_id FROM image_blocks WHERE image_id = ? AND block_index = ?";
    static const char unmap[] = "DELETE FROM image_blocks WHERE image_id = ? AND block_index = ?";
    static const char drop[] = "DELETE FROM blocks WHERE id = ?1 AND NOT EXISTS"
                               " (SELECT 1 FROM image_blocks WHERE block_id = ?1)";
    int64_t before, after;
    int r = db_integer(db, err, &before, get, "ii", image, index);
    if (r == 0)
        r = db_run(db, err, unmap, "ii", image, index);
    if (r == 0)
        r = map_block(db, image, fill, index, block, err);
    if (r == 0)
        r = db_integer(db, err, &after, get, "ii", image, index);
    /* One that its digest found may be the damaged one itself. */
    if (r == 0 && after)
        r = replace_block(db, after, block, err);
    return r < 0 || before == after ? r : db_run(db, err, drop, "i", before);
}

static int heal_frame(struct db *db, int64_t image, int64_t blocks, uint8_t *fill,
                      struct error *err)
{
    static const char set_fill[] =
        "UPDATE images SET fill = 0 WHERE id = ? AND fill NOT IN (0, 255)";
    static const char get_fill[] = "SELECT fill FROM images WHERE id = ?";
    static const char drop_beyond[] =
        "DELETE FROM image_blocks WHERE image_id = ?1 AND block_index NOT BETWEEN 0 AND ?2 - 1";
    int64_t value;
    int r = db_run(db, err, set_fill, "i", image);
    if (r == 0)
        r = db_integer(db, err, &value, get_fill, "i", image);
    if (r == 0)
        *fill = (uint8_t)value;
    return r < 0 ? r : db_run(db, err, drop_beyond, "ii", image, blocks);
}

int image_heal(struct db *db, int64_t image, const uint8_t *bytes, size_t size, struct error *err)
{
    int64_t blocks = (int64_t)(size / STORE_BLOCK_SIZE);
    uint8_t fill = 0, found[STORE_BLOCK_SIZE];
    int r = heal_frame(db, image, blocks, &fill, err);
    for (int64_t index = 0; index < blocks && r == 0; index++) {
        const uint8_t *block = bytes + index * STORE_BLOCK_SIZE;
        struct span span = {
            .offset = (uint64_t)index * STORE_BLOCK_SIZE, .length = sizeof found, .buffer = found};
        r = image_read(db, image, &span, err);
        bool right = r == 0 && memcmp(found, block, sizeof found) == 0;
        if (r == -EUCLEAN || (r == 0 && !right))
            r = heal_block(db, image, fill, index, block, err);
    }
    return r;
}

/* ---- Reading ---- */

void span_put(const struct span *span, int64_t index, const uint8_t block[STORE_BLOCK_SIZE])
{
    uint64_t start = (uint64_t)index * STORE_BLOCK_SIZE;
    uint64_t from = start > span->offset ? start : span->offset;
    uint64_t span_end = span->offset + span->length;
    uint64_t to = start + STORE_BLOCK_SIZE < span_end ? start + STORE_BLOCK_SIZE : span_end;
    memcpy(span->buffer + (from - span->offset), block + (from - start), to - from);
}

static int put_row(struct db *db, sqlite3_stmt *stmt, uint8_t other_fill, const struct span *span,
                   struct error *err)
{
    uint8_t block[STORE_BLOCK_SIZE];
    int64_t index = sqlite3_column_int64(stmt, 0);
    if (sqlite3_column_type(stmt, 1) == SQLITE_NULL) {
        memset(block, other_fill, sizeof block);
        span_put(span, index, block);
        return 0;
    }
    struct block_data data = {.encoding = (enum block_encoding)sqlite3_column_int(stmt, 2),
                              .bytes = sqlite3_column_blob(stmt, 3),
                              .size = (size_t)sqlite3_column_bytes(stmt, 3)};
    uint8_t wanted[STORE_DIGEST_SIZE], found[STORE_DIGEST_SIZE];
    int r = image_column_digest(stmt, 4, wanted, err);
    if (r < 0)
        return r;
    if (block_decode(&db->codec, data, block) == 0) {
        block_digest(&db->codec, block, sizeof block, found);
        if (memcmp(wanted, found, sizeof wanted) == 0) {
            span_put(span, index, block);
            return 0;
        }
    }
    return error_set(err, -EUCLEAN, "the store is damaged: shared block %lld is not what it was",
                     (long long)sqlite3_column_int64(stmt, 1));
}

int image_read(struct db *db, int64_t image, const struct span *span, struct error *err)
{
    static const char get_fill[] = "SELECT fill FROM images WHERE id = ?";
    static const char get_blocks[] =
        "SELECT m.block_index, m.block_id, b.encoding, b.data, b.digest"
        " FROM image_blocks m LEFT JOIN blocks b ON b.id = m.block_id"
        " WHERE m.image_id = ? AND m.block_index BETWEEN ? AND ?";
    int64_t fill;
    int r = db_integer(db, err, &fill, get_fill, "i", image);
    if (r < 0)
        return r;
    memset(span->buffer, (int)fill, span->length);

    cleanup_stmt sqlite3_stmt *stmt = NULL;
    r = db_prepare(db, get_blocks, &stmt, err);
    if (r < 0)
        return r;
    db_bind(stmt, "iii", image, span_first(span), span_last(span));
    while ((r = db_step(db, stmt, err)) > 0) {
        r = put_row(db, stmt, (uint8_t)~fill, span, err);
        if (r < 0)
            return r;
    }
    return r;
}

ssize_t store_image_read(struct store *store, int64_t image, uint64_t offset, void *buffer,
                         size_t length, struct error *err)
{
    cleanup_reader struct reader reader = {0};
    int r = reader_begin(store, &reader, err);
    if (r < 0)
        return r;
    struct store_image found;
    r = image_get(reader.db, image, &found, err);
    if (r < 0 || offset >= found.size || length == 0)
        return r;
    if (length > found.size - offset)
        length = found.size - offset;
    struct span span = {.offset = offset, .length = length, .buffer = buffer};
    r = image_read(reader.db, image, &span, err);
    return r < 0 ? r : (ssize_t)length;
}
