/* What the parts of a check share.
 *
 * A check reads a little a transaction, so that it never pins the write-ahead log of a store in
 * use for long; only SQLite's own look at the file is one read, and the log grows meanwhile by
 * what is written. What a step finds is therefore judged again, named and repaired in one
 * transaction of its own: what a writer changed meanwhile is no damage. */
#ifndef FWFS_STORE_CHECK_H
#define FWFS_STORE_CHECK_H

#include "store/internal.h"

struct checker {
    struct store *store;
    const struct store_check *how;
    struct store_check_result *result;
};

/* Counts it and tells of it. */
void check_report(struct checker *checker, const struct store_damage *damage);
void check_progress(struct checker *checker, const char *what, uint64_t done, uint64_t total);

/* Reports what SQLite itself says of the file, and goes on. */
int check_unreadable(struct checker *checker, int result, struct error *err);

/* Who has what; what is nobody's is dropped. */
int check_references(struct checker *checker, struct error *err);
/* Every image, block by block and whole. */
int check_images(struct checker *checker, struct error *err);
/* Every block of flashes and restore points. */
int check_layers(struct checker *checker, struct error *err);

/* Whose a layer is. */
struct layer_owner {
    int64_t layer;
    bool found;
    int64_t flash, image, guest, point; /* 0: none */
    int64_t blocks;                     /* of the flash, as many as it can have */
    bool staging;                       /* an overlay on zeros */
    struct store_damage place;          /* with its names filled in */
};

int layer_owner_get(struct db *db, int64_t layer, struct layer_owner *ret, struct error *err);

/* Whether a row (key, encoding, checksum, data) holds what was written. */
int block_is_sound(struct db *db, sqlite3_stmt *stmt, const struct layer_owner *owner, bool *ret,
                   struct error *err);

/* Puts in place of a damaged row what is left to put there, and says what that is. */
int repair_block(struct db *db, const struct layer_owner *owner, int64_t index,
                 struct store_damage *damage, struct error *err);

#endif
