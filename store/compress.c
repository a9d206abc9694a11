/* Work after the fact, a little a transaction, so that a writer never waits long: compressing
 * private blocks, and giving back the room that they took before. */
#include "store/internal.h"

#include <errno.h>
#include <string.h>

#define SHRINK_PAGES 64

/* 1 and the block's bytes; 0 if it is no longer pending; -EUCLEAN if it is damaged. */
static int get_pending(struct db *db, int64_t key, uint8_t block[STORE_BLOCK_SIZE],
                       struct error *err)
{
    static const char sql[] =
        "SELECT checksum, data FROM flash_blocks WHERE key = ? AND encoding = 4";
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    int r = db_prepare(db, sql, &stmt, err);
    if (r < 0)
        return r;
    db_bind(stmt, "i", key);
    r = db_step(db, stmt, err);
    if (r <= 0)
        return r;
    struct block_data data = {.encoding = BLOCK_PENDING,
                              .bytes = sqlite3_column_blob(stmt, 1),
                              .size = (size_t)sqlite3_column_bytes(stmt, 1)};
    bool right = block_checksum(&db->codec, key, data) == sqlite3_column_int64(stmt, 0) &&
                 block_decode(&db->codec, data, block) == 0;
    return right ? 1 : -EUCLEAN;
}

/* Whether the image has a block there to compress with. A damaged one is its readers' news. */
static int get_below(struct db *db, int64_t key, uint8_t block[STORE_BLOCK_SIZE], struct error *err)
{
    struct store_flash flash;
    int64_t layer = block_key_layer(key);
    if (layer != flash_layer(layer / 2))
        return 0;
    int r = flash_get(db, layer / 2, &flash, err);
    if (r == 0 && flash.staging)
        return 0;
    if (r == 0)
        r = image_read(db, flash.image, &SPAN_OF_BLOCK(block_key_index(key), block), err);
    return r == -ENOENT || r == -EUCLEAN ? 0 : r < 0 ? r : 1;
}

static int compress_one(struct db *db, int64_t key, struct error *err)
{
    /* Not an update: only deleting brings neighbouring pages together that have become empty. */
    static const char drop[] = "DELETE FROM flash_blocks WHERE key = ?";
    static const char put[] =
        "INSERT INTO flash_blocks (key, encoding, checksum, data) VALUES (?, ?, ?, ?)";
    /* It keeps its checksum, which is still wrong: its reader is told, and nobody tries again. */
    static const char give_up[] = "UPDATE flash_blocks SET encoding = 0 WHERE key = ?";
    uint8_t block[STORE_BLOCK_SIZE], below[STORE_BLOCK_SIZE];
    int r = get_pending(db, key, block, err);
    if (r == -EUCLEAN) {
        r = db_run(db, err, give_up, "i", key);
        return r < 0 ? r : block_damaged(key, err);
    }
    if (r <= 0)
        return r;
    r = get_below(db, key, below, err);
    if (r < 0)
        return r;
    struct block_data data = block_compress_private(&db->codec, block, r > 0 ? below : NULL);
    int64_t checksum = block_checksum(&db->codec, key, data);
    r = db_run(db, err, drop, "i", key);
    return r < 0 ? r
                 : db_run(db, err, put, "iiib", key, (int64_t)data.encoding, checksum, data.bytes,
                          data.size);
}

static int list_pending(struct db *db, int64_t keys[STORE_MAINTAIN_BLOCKS], struct error *err)
{
    static const char sql[] = "SELECT key FROM flash_blocks INDEXED BY flash_blocks_pending"
                              " WHERE encoding = 4 LIMIT ?";
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    int r = db_prepare(db, sql, &stmt, err);
    if (r < 0)
        return r;
    db_bind(stmt, "i", (int64_t)STORE_MAINTAIN_BLOCKS);
    int count = 0;
    while ((r = db_step(db, stmt, err)) > 0)
        keys[count++] = sqlite3_column_int64(stmt, 0);
    return r < 0 ? r : count;
}

/* Gives pages at the file's end back to the disk when many are free: blocks are written as they
 * come and compressed later, so a busy hour leaves room that a quiet one does not need. */
static int shrink_file(struct store *store, struct error *err)
{
    int64_t pages, free_pages;
    int r;
    {
        cleanup_reader struct reader reader = {0};
        r = reader_begin(store, &reader, err);
        if (r == 0)
            r = count_pages(reader.db, &pages, &free_pages, err);
    }
    if (r < 0 || free_pages < SHRINK_PAGES || free_pages < pages / 8)
        return r;
    cleanup_txn struct txn txn = {0};
    r = txn_begin(store, &txn, err);
    if (r == 0)
        r = db_run(txn.db, err, "PRAGMA incremental_vacuum(64)", "");
    if (r == 0)
        r = txn_commit(&txn, err);
    return r < 0 ? r : 1;
}

/* The number of blocks that were looked at. */
static int compress_batch(struct store *store, struct error *err)
{
    int64_t keys[STORE_MAINTAIN_BLOCKS];
    int count;
    {
        cleanup_reader struct reader reader = {0};
        int r = reader_begin(store, &reader, err);
        count = r < 0 ? r : list_pending(reader.db, keys, err);
    }
    if (count <= 0)
        return count;

    cleanup_txn struct txn txn = {0};
    int r = txn_begin(store, &txn, err);
    bool damaged = false;
    for (int i = 0; i < count && r == 0; i++) {
        r = compress_one(txn.db, keys[i], err);
        damaged = damaged || r == -EUCLEAN;
        r = r == -EUCLEAN ? 0 : r;
    }
    if (r == 0)
        r = txn_commit(&txn, damaged ? NULL : err);
    if (r < 0)
        return r;
    return damaged ? -EUCLEAN : count;
}

int store_maintain(struct store *store, struct error *err)
{
    int count = compress_batch(store, err);
    if (count < 0)
        return count;
    if (count == STORE_MAINTAIN_BLOCKS)
        return 1;
    int r = removed_expire(store, err);
    return r != 0 ? r : shrink_file(store, err);
}
