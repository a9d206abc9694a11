/* One guest, whole, from one store into another: with its firmware, its attributes and its restore
 * points. Rows of blocks go over as they are; only their checksums, which say where they lie, are
 * made anew. */
#include "store/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- Firmware ---- */

/* The bytes of an image; the caller frees them. */
static int load_image(struct db *from, const struct store_image *image, struct store_bytes *ret,
                      struct error *err)
{
    cleanup_free uint8_t *bytes = malloc(image->size);
    if (!bytes)
        return error_set(err, -ENOMEM, "out of memory");
    struct span span = {.length = image->size, .buffer = bytes};
    int r = image_read(from, image->id, &span, err);
    if (r < 0)
        return r;
    *ret = (struct store_bytes){steal_ptr(bytes), image->size};
    return 0;
}

static void bytes_clear(struct store_bytes *bytes)
{
    free((void *)bytes->bytes);
}

/* The firmware of the same name, which must be the same; or it is added. */
static int copy_firmware(struct db *from, struct db *to, const struct store_firmware *firmware,
                         struct store_firmware *ret, struct error *err)
{
    cleanup(bytes_clear) struct store_bytes executable = {0};
    cleanup(bytes_clear) struct store_bytes nvram_template = {0};
    cleanup_free char *descriptor = NULL;
    int r = load_image(from, &firmware->executable, &executable, err);
    if (r == 0 && firmware->nvram_template.id)
        r = load_image(from, &firmware->nvram_template, &nvram_template, err);
    if (r == 0)
        r = firmware_descriptor(from, firmware->id, &descriptor, err);
    if (r < 0)
        return r;
    struct store_firmware_spec spec = {.name = firmware->name,
                                       .mode = firmware->mode,
                                       .executable = executable,
                                       .nvram_template = nvram_template,
                                       .descriptor = descriptor};
    r = firmware_add(to, &spec, err);
    return r < 0 ? r : firmware_find(to, firmware->name, ret, err);
}

/* ---- Blocks, attributes, points ---- */

static int copy_row(sqlite3_stmt *row, struct db *from, struct db *to, int64_t to_layer,
                    struct error *err)
{
    int64_t key = sqlite3_column_int64(row, 0);
    struct block_data data = block_from_row(row);
    if (block_checksum(&from->codec, key, data) != sqlite3_column_int64(row, 2))
        return block_damaged(key, err);
    return block_put(to, block_key(to_layer, block_key_index(key)), data, err);
}

static int copy_layer(struct db *from, int64_t from_layer, struct db *to, int64_t to_layer,
                      struct error *err)
{
    static const char sql[] =
        "SELECT key, encoding, checksum, data FROM flash_blocks WHERE key BETWEEN ? AND ?";
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    int r = db_prepare(from, sql, &stmt, err);
    if (r < 0)
        return r;
    db_bind(stmt, "ii", block_key(from_layer, 0), block_key_end(from_layer));
    while ((r = db_step(from, stmt, err)) > 0) {
        r = copy_row(stmt, from, to, to_layer, err);
        if (r < 0)
            return r;
    }
    return r;
}

static int copy_xattrs(struct db *from, int64_t from_flash, struct db *to, int64_t to_flash,
                       struct error *err)
{
    static const char get[] = "SELECT name, value FROM flash_xattrs WHERE flash_id = ?";
    static const char put[] = "INSERT INTO flash_xattrs (flash_id, name, value) VALUES (?, ?, ?)";
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    int r = db_prepare(from, get, &stmt, err);
    if (r < 0)
        return r;
    db_bind(stmt, "i", from_flash);
    while ((r = db_step(from, stmt, err)) > 0) {
        size_t size = (size_t)sqlite3_column_bytes(stmt, 1);
        r = db_run(to, err, put, "itb", to_flash, (const char *)sqlite3_column_text(stmt, 0),
                   size ? sqlite3_column_blob(stmt, 1) : "", size);
        if (r < 0)
            return r;
    }
    return r;
}

static int copy_points(struct db *from, int64_t from_guest, struct db *to, int64_t to_guest,
                       struct error *err)
{
    static const char get[] =
        "SELECT id, kind, created_at, name FROM points WHERE guest_id = ? ORDER BY id";
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    int r = db_prepare(from, get, &stmt, err);
    if (r < 0)
        return r;
    db_bind(stmt, "i", from_guest);
    while ((r = db_step(from, stmt, err)) > 0) {
        int64_t point;
        r = history_add(to, to_guest, (enum store_point_kind)sqlite3_column_int(stmt, 1),
                        sqlite3_column_int64(stmt, 2), (const char *)sqlite3_column_text(stmt, 3),
                        &point, err);
        if (r == 0)
            r = copy_layer(from, point_layer(sqlite3_column_int64(stmt, 0)), to, point_layer(point),
                           err);
        if (r < 0)
            return r;
    }
    return r;
}

/* ---- Guests ---- */

static int copy_guest(struct db *from, const struct store_guest *guest, struct db *to,
                      const struct store_firmware *firmware, const char *name, bool with_points,
                      struct error *err)
{
    struct guest_ref made;
    int r = guest_add(to, firmware, name, &guest->flash.attr, err);
    if (r == 0)
        r = guest_ref_by_name(to, name, &made, err);
    if (r == 0)
        r = copy_layer(from, flash_layer(guest->flash.id), to, flash_layer(made.flash), err);
    if (r == 0)
        r = copy_xattrs(from, guest->flash.id, to, made.flash, err);
    if (r == 0 && with_points)
        r = copy_points(from, guest->id, to, made.id, err);
    return r < 0 ? r : guest_set_flash(to, made.id, made.flash, guest->vars_removed, err);
}

int store_guest_copy(struct store *from, const char *name, struct store *to, const char *new_name,
                     struct error *err)
{
    int r = store_check_name("guest", new_name, err);
    if (r < 0)
        return r;
    cleanup_reader struct reader reader = {0};
    cleanup_txn struct txn txn = {0};
    struct store_guest guest;
    struct store_firmware firmware;
    r = reader_begin(from, &reader, err);
    if (r == 0)
        r = guest_get(reader.db, name, &guest, err);
    if (r == 0)
        r = txn_begin(to, &txn, err);
    if (r == 0)
        r = copy_firmware(reader.db, txn.db, &guest.firmware, &firmware, err);
    if (r == 0)
        r = copy_guest(reader.db, &guest, txn.db, &firmware, new_name, true, err);
    return r < 0 ? r : txn_commit(&txn, err);
}

int store_guest_clone(struct store *store, const char *name, const char *new_name,
                      struct error *err)
{
    int r = store_check_name("guest", new_name, err);
    if (r < 0)
        return r;
    cleanup_txn struct txn txn = {0};
    struct store_guest guest;
    r = txn_begin(store, &txn, err);
    if (r == 0)
        r = guest_get(txn.db, name, &guest, err);
    if (r == 0)
        r = copy_guest(txn.db, &guest, txn.db, &guest.firmware, new_name, false, err);
    return r < 0 ? r : txn_commit(&txn, err);
}
