/* Rows of blocks, in whatever layer they lie. */
#include "store/internal.h"

#include <errno.h>
#include <string.h>

int block_damaged(int64_t key, struct error *err)
{
    int64_t layer = block_key_layer(key);
    return error_set(err, -EUCLEAN,
                     "the store is damaged: %s %lld at offset %lld is not what was written",
                     layer % 2 ? "restore point" : "flash", (long long)(layer / 2),
                     (long long)block_key_index(key) * STORE_BLOCK_SIZE);
}

struct block_data block_from_row(sqlite3_stmt *stmt)
{
    return (struct block_data){.encoding = (enum block_encoding)sqlite3_column_int(stmt, 1),
                               .bytes = sqlite3_column_blob(stmt, 3),
                               .size = (size_t)sqlite3_column_bytes(stmt, 3)};
}

int block_put_row(struct db *db, sqlite3_stmt *stmt, int64_t image, const struct span *span,
                  struct error *err)
{
    uint8_t block[STORE_BLOCK_SIZE], below[STORE_BLOCK_SIZE];
    int64_t key = sqlite3_column_int64(stmt, 0), index = block_key_index(key);
    struct block_data data = block_from_row(stmt);
    if (block_checksum(&db->codec, key, data) != sqlite3_column_int64(stmt, 2))
        return block_damaged(key, err);
    if (data.encoding == BLOCK_BELOW || data.encoding == BLOCK_PREFIX) {
        int r = image_read(db, image, &SPAN_OF_BLOCK(index, below), err);
        if (r < 0)
            return r;
        data.below = below;
    }
    if (block_decode(&db->codec, data, block) < 0)
        return block_damaged(key, err);
    span_put(span, index, block);
    return 0;
}

int layer_read(struct db *db, int64_t layer, int64_t image, const struct span *span,
               struct error *err)
{
    static const char sql[] =
        "SELECT key, encoding, checksum, data FROM flash_blocks WHERE key BETWEEN ? AND ?";
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    int r = db_prepare(db, sql, &stmt, err);
    if (r < 0)
        return r;
    db_bind(stmt, "ii", block_key(layer, span_first(span)), block_key(layer, span_last(span)));
    while ((r = db_step(db, stmt, err)) > 0) {
        r = block_put_row(db, stmt, image, span, err);
        if (r < 0)
            return r;
    }
    return r;
}

int block_exists(struct db *db, int64_t key, struct error *err)
{
    static const char sql[] = "SELECT EXISTS (SELECT 1 FROM flash_blocks WHERE key = ?)";
    int64_t exists;
    int r = db_integer(db, err, &exists, sql, "i", key);
    return r < 0 ? r : (int)exists;
}

int block_put(struct db *db, int64_t key, struct block_data data, struct error *err)
{
    static const char sql[] =
        "INSERT INTO flash_blocks (key, encoding, checksum, data) VALUES (?, ?, ?, ?)";
    /* A NULL pointer would be bound as NULL, not as an empty value. */
    return db_run(db, err, sql, "iiib", key, (int64_t)data.encoding,
                  block_checksum(&db->codec, key, data), data.size ? data.bytes : "", data.size);
}

int block_copy(struct db *db, int64_t from_layer, int64_t to_layer, int64_t index,
               struct error *err)
{
    static const char sql[] =
        "SELECT key, encoding, checksum, data FROM flash_blocks WHERE key = ?";
    int64_t from = block_key(from_layer, index), to = block_key(to_layer, index);
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    int r = db_prepare(db, sql, &stmt, err);
    if (r < 0)
        return r;
    db_bind(stmt, "i", from);
    r = db_step(db, stmt, err);
    if (r < 0)
        return r;
    struct block_data data = {.encoding = BLOCK_BELOW, .bytes = ""};
    if (r > 0)
        data = block_from_row(stmt);
    /* A copy of what is damaged would look sound. */
    if (r > 0 && block_checksum(&db->codec, from, data) != sqlite3_column_int64(stmt, 2))
        return block_damaged(from, err);
    return block_put(db, to, data, err);
}

int layer_next(struct db *db, int64_t layer, int64_t from_index, int64_t *ret, struct error *err)
{
    static const char sql[] = "SELECT min(key) FROM flash_blocks WHERE key BETWEEN ? AND ?";
    int64_t key;
    int r =
        db_integer(db, err, &key, sql, "ii", block_key(layer, from_index), block_key_end(layer));
    if (r < 0 || key == 0)
        return r;
    *ret = block_key_index(key);
    return 1;
}

int layer_measure(struct db *db, int64_t layer, uint64_t *blocks, uint64_t *bytes,
                  struct error *err)
{
    static const char sql[] = "SELECT count(*), sum(length(data)) FROM flash_blocks"
                              " WHERE key BETWEEN ? AND ?";
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    int r = db_prepare(db, sql, &stmt, err);
    if (r < 0)
        return r;
    db_bind(stmt, "ii", block_key(layer, 0), block_key_end(layer));
    r = db_step(db, stmt, err);
    if (r < 0)
        return r;
    *blocks = (uint64_t)sqlite3_column_int64(stmt, 0);
    *bytes = (uint64_t)sqlite3_column_int64(stmt, 1);
    return 0;
}

int layer_drop(struct db *db, int64_t layer, int64_t from_index, struct error *err)
{
    static const char sql[] = "DELETE FROM flash_blocks WHERE key BETWEEN ? AND ?";
    return db_run(db, err, sql, "ii", block_key(layer, from_index), block_key_end(layer));
}
