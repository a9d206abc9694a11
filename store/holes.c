/* Where data is, told from the maps of blocks alone. */
#include "store/internal.h"

#include <errno.h>
#include <string.h>

/* A byte a block from `first` on: true where there is data. */
struct map {
    int64_t first, end;
    bool *is_data;
};

static void map_clear(struct map *map)
{
    free(map->is_data);
}

static int map_init(struct map *map, uint64_t offset, uint64_t size, struct error *err)
{
    map->first = (int64_t)(offset / STORE_BLOCK_SIZE);
    map->end = (int64_t)((size + STORE_BLOCK_SIZE - 1) / STORE_BLOCK_SIZE);
    map->is_data = calloc((size_t)(map->end - map->first), sizeof *map->is_data);
    return map->is_data ? 0 : error_set(err, -ENOMEM, "out of memory");
}

static int map_image(struct db *db, int64_t image, struct map *map, struct error *err)
{
    static const char get_fill[] = "SELECT fill FROM images WHERE id = ?";
    static const char get_blocks[] = "SELECT block_index, block_id IS NULL FROM image_blocks"
                                     " WHERE image_id = ? AND block_index BETWEEN ? AND ?";
    int64_t fill;
    int r = db_integer(db, err, &fill, get_fill, "i", image);
    if (r < 0)
        return r;
    memset(map->is_data, fill != 0, (size_t)(map->end - map->first));

    cleanup_stmt sqlite3_stmt *stmt = NULL;
    r = db_prepare(db, get_blocks, &stmt, err);
    if (r < 0)
        return r;
    db_bind(stmt, "iii", image, map->first, map->end - 1);
    while ((r = db_step(db, stmt, err)) > 0) {
        bool other_fill = sqlite3_column_int(stmt, 1);
        map->is_data[sqlite3_column_int64(stmt, 0) - map->first] = !other_fill || fill == 0;
    }
    return r;
}

static int map_flash(struct db *db, const struct store_flash *flash, struct map *map,
                     struct error *err)
{
    static const char sql[] = "SELECT key, encoding FROM flash_blocks WHERE key BETWEEN ? AND ?";
    int r = flash->staging ? 0 : map_image(db, flash->image, map, err);
    if (r < 0)
        return r;
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    r = db_prepare(db, sql, &stmt, err);
    if (r < 0)
        return r;
    db_bind(stmt, "ii", flash_block_key(flash->id, map->first),
            flash_block_key(flash->id, map->end - 1));
    while ((r = db_step(db, stmt, err)) > 0)
        map->is_data[block_key_index(sqlite3_column_int64(stmt, 0)) - map->first] =
            sqlite3_column_int(stmt, 1) != BLOCK_ZEROS;
    return r;
}

static int64_t map_find(const struct map *map, uint64_t offset, uint64_t size, bool hole)
{
    int64_t index = map->first;
    while (index < map->end && map->is_data[index - map->first] == hole)
        index++;
    if (index == map->end)
        return hole ? (int64_t)size : -ENXIO;
    uint64_t found = (uint64_t)index * STORE_BLOCK_SIZE;
    return (int64_t)(found > offset ? found : offset);
}

int64_t store_flash_seek(struct store *store, int64_t flash, uint64_t offset, bool hole,
                         struct error *err)
{
    cleanup_reader struct reader reader = {0};
    cleanup(map_clear) struct map map = {0};
    struct store_flash found;
    int r = reader_begin(store, &reader, err);
    if (r == 0)
        r = flash_get(reader.db, flash, &found, err);
    if (r == 0 && offset >= found.size)
        return -ENXIO;
    if (r == 0)
        r = map_init(&map, offset, found.size, err);
    if (r == 0)
        r = map_flash(reader.db, &found, &map, err);
    return r < 0 ? r : map_find(&map, offset, found.size, hole);
}

int64_t store_image_seek(struct store *store, int64_t image, uint64_t offset, bool hole,
                         struct error *err)
{
    cleanup_reader struct reader reader = {0};
    cleanup(map_clear) struct map map = {0};
    struct store_image found;
    int r = reader_begin(store, &reader, err);
    if (r == 0)
        r = image_get(reader.db, image, &found, err);
    if (r == 0 && offset >= found.size)
        return -ENXIO;
    if (r == 0)
        r = map_init(&map, offset, found.size, err);
    if (r == 0)
        r = map_image(reader.db, image, &map, err);
    return r < 0 ? r : map_find(&map, offset, found.size, hole);
}
