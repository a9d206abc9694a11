/* What the store's files share: the store object, its connections and its two kinds of transaction.
 *
 * One connection writes, under `write_lock`. Readers take an idle connection or open another; the
 * one used last is taken first, since its cache is the warmest. `pool_lock` guards the list of idle
 * ones and is never held while another lock is taken or SQL runs. A checkpoint holds
 * `checkpoint_lock`, and takes `write_lock` within it. */
#ifndef FWFS_STORE_INTERNAL_H
#define FWFS_STORE_INTERNAL_H

#include <pthread.h>

#include "store/db.h"
#include "store/store.h"

#define STORE_IDLE_READERS_MAX 8

struct sync_state {
    pthread_mutex_t lock;
    pthread_cond_t finished;
    uint64_t started, completed; /* rounds */
    bool running, ever;
    uint64_t failed; /* the last round that failed, and with what */
    int failure;
    uint64_t synced; /* the count of commits that the last good round covers */
    struct db *db;
    sqlite3_file *wal;
};

struct store {
    char *path;
    unsigned flags;
    pthread_mutex_t write_lock;
    struct db *writer;
    _Atomic uint64_t commits;   /* through this store object */
    _Atomic uint64_t log_pages; /* in the write-ahead log after the last of them */
    pthread_mutex_t pool_lock;
    struct db *idle[STORE_IDLE_READERS_MAX];
    size_t idle_count;
    struct sync_state sync;
    pthread_mutex_t checkpoint_lock;
    struct db *checkpointer;
};

/* One read transaction: everything read through it is of one moment. */
struct reader {
    struct store *store;
    struct db *db;
};

int reader_begin(struct store *store, struct reader *reader, struct error *err);
/* The same with a statement that is read in it; it must be released first. */
int reader_prepare(struct store *store, struct reader *reader, const char *sql, sqlite3_stmt **ret,
                   struct error *err);
void reader_endp(struct reader *reader);
#define cleanup_reader cleanup(reader_endp)

/* One write transaction; rolled back at the scope's end unless it was committed. */
struct txn {
    struct store *store;
    struct db *db;
    bool committed;
};

int txn_begin(struct store *store, struct txn *txn, struct error *err);
int txn_commit(struct txn *txn, struct error *err);
void txn_endp(struct txn *txn);
#define cleanup_txn cleanup(txn_endp)

/* Seconds since 1970. */
int64_t store_now(void);
#define NSEC_PER_SEC INT64_C(1000000000)

void sync_init(struct sync_state *sync);
void sync_clear(struct sync_state *sync);

/* Pages of the database's file, and those of them that are free. */
int count_pages(struct db *db, int64_t *pages, int64_t *free_pages, struct error *err);

/* The most that one store_maintain() compresses. */
#define STORE_MAINTAIN_BLOCKS 64

/* Moves all of the log and empties its file, if nobody reads what is in it. */
int checkpoint_truncate(struct store *store, struct error *err);

/* Copies a database to a new file, by another name until finish() returned 0 for it. */
int backup_make(const char *from, const char *file,
                int (*finish)(const char *draft, void *data, struct error *err), void *data,
                const struct store_progress *progress, struct error *err);

/* store_migrate() with another table of steps, and to another version. */
int migrate(const char *path, const char *const *migrations, int to, struct store_migration *ret,
            const struct store_progress *progress, struct error *err);

/* Bytes in the write-ahead log's file. */
uint64_t log_size(const struct store *store);

/* ---- Images, within a transaction ---- */

int image_get(struct db *db, int64_t image, struct store_image *ret, struct error *err);
int image_add(struct db *db, const void *bytes, size_t size, int64_t *ret, struct error *err);
/* Removes the image and its blocks, where nothing needs them any more. */
int image_remove_unused(struct db *db, int64_t image, struct error *err);
/* Makes the image what `bytes`, which have its digest, are. */
int image_heal(struct db *db, int64_t image, const uint8_t *bytes, size_t size, struct error *err);
/* Fills a column's SHA-256. */
int image_column_digest(sqlite3_stmt *stmt, int column, uint8_t ret[STORE_DIGEST_SIZE],
                        struct error *err);

/* A run of bytes to be filled from blocks, each of which may lie in it only in part. */
struct span {
    uint64_t offset;
    size_t length;
    uint8_t *buffer;
};

/* One whole block. */
#define SPAN_OF_BLOCK(index, block)                                                                \
    ((struct span){(uint64_t)(index)*STORE_BLOCK_SIZE, STORE_BLOCK_SIZE, (block)})

static inline int64_t span_first(const struct span *span)
{
    return (int64_t)(span->offset / STORE_BLOCK_SIZE);
}

static inline int64_t span_last(const struct span *span)
{
    return (int64_t)((span->offset + span->length - 1) / STORE_BLOCK_SIZE);
}

/* Copies what of a block lies in the span. */
void span_put(const struct span *span, int64_t index, const uint8_t block[STORE_BLOCK_SIZE]);

/* Fills a span, at least one byte long, that lies within the image. */
int image_read(struct db *db, int64_t image, const struct span *span, struct error *err);

/* ---- Flashes, within a transaction ---- */

/* A layer is a set of blocks: a flash's own, or those that a restore point keeps. Its blocks lie
 * side by side, in order; no id is used twice, so no key is. */
#define BLOCK_INDEX_BITS 20

static inline int64_t flash_layer(int64_t flash)
{
    return 2 * flash;
}

static inline int64_t point_layer(int64_t point)
{
    return 2 * point + 1;
}

static inline int64_t block_key(int64_t layer, int64_t index)
{
    return layer << BLOCK_INDEX_BITS | index;
}

/* The last key that a layer can have. */
static inline int64_t block_key_end(int64_t layer)
{
    return block_key(layer + 1, 0) - 1;
}

static inline int64_t block_key_layer(int64_t key)
{
    return key >> BLOCK_INDEX_BITS;
}

static inline int64_t block_key_index(int64_t key)
{
    return key & ((INT64_C(1) << BLOCK_INDEX_BITS) - 1);
}

static inline int64_t flash_block_key(int64_t flash, int64_t index)
{
    return block_key(flash_layer(flash), index);
}

/* Says that a block is not what was stored. Returns -EUCLEAN. */
int block_damaged(int64_t key, struct error *err);
/* Puts a row (key, encoding, checksum, data) of a layer into a span of what lies over `image`. */
int block_put_row(struct db *db, sqlite3_stmt *stmt, int64_t image, const struct span *span,
                  struct error *err);
struct block_data block_from_row(sqlite3_stmt *stmt);
int block_put(struct db *db, int64_t key, struct block_data data, struct error *err);
/* 1 if there is such a row. */
int block_exists(struct db *db, int64_t key, struct error *err);
/* Gives a layer a row of another's: what the other has at this index, or BLOCK_BELOW. */
int block_copy(struct db *db, int64_t from_layer, int64_t to_layer, int64_t index,
               struct error *err);
/* Puts all blocks of a layer that lie in a span of what is over `image` into it. */
int layer_read(struct db *db, int64_t layer, int64_t image, const struct span *span,
               struct error *err);
/* 1 and the first index from `from_index` on at which the layer has a block, or 0. */
int layer_next(struct db *db, int64_t layer, int64_t from_index, int64_t *ret, struct error *err);
/* How many blocks the layer has, and their bytes as stored. */
int layer_measure(struct db *db, int64_t layer, uint64_t *blocks, uint64_t *bytes,
                  struct error *err);
int layer_drop(struct db *db, int64_t layer, int64_t from_index, struct error *err);

int flash_add(struct db *db, int64_t image, int64_t guest, const struct store_attr *attr,
              int64_t *ret, struct error *err);
int flash_get(struct db *db, int64_t flash, struct store_flash *ret, struct error *err);
int flash_get_with_delta(struct db *db, int64_t flash, struct store_flash *ret, struct error *err);
/* Fills a span, at least one byte long, that lies within the flash. */
int flash_read(struct db *db, const struct store_flash *flash, const struct span *span,
               struct error *err);
/* Makes it equal its image; what it was is kept by the newest restore point. */
int flash_reset(struct db *db, int64_t flash, struct error *err);
int flash_touch(struct db *db, int64_t flash, int64_t now, struct error *err);
int flash_remove(struct db *db, int64_t flash, struct error *err);
int flash_write(struct db *db, int64_t flash, uint64_t offset, const void *bytes, size_t length,
                int64_t now, struct error *err);
int flash_set_attr(struct db *db, int64_t flash, unsigned mask, const struct store_attr *attr,
                   struct store_flash *after, struct error *err);

/* As store_flash_truncate(). */
int flash_truncate(struct db *db, int64_t flash, uint64_t size, int64_t now, struct error *err);
/* Makes a staging file's flash an overlay on its image, with the same bytes. */
int flash_adopt(struct db *db, int64_t flash, struct error *err);

/* ---- History, within a transaction ---- */

/* What a change to a flash must keep of what was before. */
struct history {
    int64_t guest; /* 0: nothing is kept */
    int64_t point; /* the newest; 0: none */
    bool fresh;    /* nothing was changed yet: the first change makes a point of this kind */
    enum store_point_kind kind;
};

/* For changes by whoever has it open, or by nobody who has: then it is an edit. The restore point
 * is made when something really changes. */
int history_open(struct db *db, const struct store_flash *flash, struct history *ret,
                 struct error *err);
/* For an edit: there is a restore point then, and others than `spared` may go for it. Edits that
 * follow each other closely share one unless `alone`. */
int history_edit(struct db *db, int64_t guest, bool alone, int64_t spared, struct history *ret,
                 struct error *err);
/* Called before a block changes; returns 1 if it would not. */
int history_keep(struct db *db, struct history *history, const struct store_flash *flash,
                 int64_t index, const uint8_t block[STORE_BLOCK_SIZE], struct error *err);
/* Keeps what `before` was, when `after` takes its place. */
int history_replace(struct db *db, struct history *history, const struct store_flash *before,
                    const struct store_flash *after, struct error *err);
/* Makes a point as it is at this moment; `created_at` in seconds. */
int history_add(struct db *db, int64_t guest, enum store_point_kind kind, int64_t created_at,
                const char *name, int64_t *ret, struct error *err);
/* Drops all of a guest's. */
int history_forget(struct db *db, int64_t guest, struct error *err);
/* Drops one point; what older ones need of it goes over to them. */
int history_drop(struct db *db, int64_t guest, int64_t point, struct error *err);

/* Writes one block of a flash, past the history. */
int flash_write_block(struct db *db, const struct store_flash *flash, struct history *history,
                      int64_t index, const uint8_t block[STORE_BLOCK_SIZE], struct error *err);

/* ---- Leases and names, within a transaction ---- */

/* Both set whether any lease of the flash and version is left. */
int lease_take(struct db *db, int64_t flash, const struct store_lease *lease, bool *held,
               struct error *err);
int lease_drop(struct db *db, int64_t flash, const struct store_lease *lease, bool *held,
               struct error *err);
/* -ETXTBSY if a process other than this one (0: any) has the flash open for writing. */
int lease_refuse_other(struct db *db, int64_t flash, int64_t pid, struct error *err);
/* -ETXTBSY if the flash is open for writing. */
int lease_refuse_held(struct db *db, int64_t flash, struct error *err);

/* Purges a guest that was removed long enough ago; 1 if there may be another, else 0. */
int removed_expire(struct store *store, struct error *err);

int orphan_add(struct db *db, int64_t flash, struct error *err);

/* Removes a guest's staging files; -ETXTBSY. */
int staging_remove_all(struct db *db, int64_t guest, struct error *err);

/* A guest as what changes its flash needs it. */
struct guest_ref {
    int64_t id, flash;
    enum flash_mode mode;
    bool vars_removed;
};

int guest_get(struct db *db, const char *name, struct store_guest *ret, struct error *err);
/* -EEXIST. Its times are those of `attr`. */
int guest_add(struct db *db, const struct store_firmware *firmware, const char *name,
              const struct store_attr *attr, struct error *err);
/* -ENOENT; with vars: -EROFS where the mode has none. */
int guest_ref_by_id(struct db *db, int64_t guest, struct guest_ref *ret, struct error *err);
int guest_ref_by_name(struct db *db, const char *name, struct guest_ref *ret, struct error *err);
int guest_ref_with_vars(struct db *db, int64_t guest, struct guest_ref *ret, struct error *err);
/* -EEXIST if a guest has the name. */
int guest_check_free(struct db *db, const char *name, struct error *err);
int guest_set_flash(struct db *db, int64_t guest, int64_t flash, bool vars_removed,
                    struct error *err);
/* The flash takes the place of the guest's, which becomes an orphan and is kept as a restore point.
 */
int guest_replace_flash(struct db *db, const struct guest_ref *guest, int64_t flash,
                        bool vars_removed, struct error *err);

/* The columns of a flash, in a query where `flashes` is named l and its image i. */
#define FLASH_COLUMNS                                                                              \
    "l.id, l.image_id, i.size, l.uid, l.gid, l.mode, l.mtime, l.atime, l.ctime, l.version, "       \
    "l.size, l.guest_id"
#define FLASH_COLUMN_COUNT 12
void flash_from_row(sqlite3_stmt *stmt, int first, struct store_flash *ret);

/* ---- Firmware, within a transaction ---- */

/* As store_firmware_add() and store_firmware_descriptor(). */
int firmware_add(struct db *db, const struct store_firmware_spec *spec, struct error *err);
int firmware_descriptor(struct db *db, int64_t firmware, char **ret, struct error *err);
int firmware_find(struct db *db, const char *name, struct store_firmware *ret, struct error *err);

/* The columns of a firmware, in a query where `firmware` is named f and is followed by
 * FIRMWARE_JOINS. */
#define FIRMWARE_COLUMNS                                                                           \
    "f.id, f.name, f.mode, f.created_at, e.id, e.size, e.digest, t.id, t.size, t.digest"
#define FIRMWARE_COLUMN_COUNT 10
#define FIRMWARE_JOINS                                                                             \
    "JOIN images e ON e.id = f.executable_id "                                                     \
    "LEFT JOIN images t ON t.id = f.nvram_template_id "
int firmware_from_row(sqlite3_stmt *stmt, int first, struct store_firmware *ret, struct error *err);

/* Copies a name column. */
int name_from_column(sqlite3_stmt *stmt, int column, char ret[STORE_NAME_MAX + 1],
                     struct error *err);

#endif
