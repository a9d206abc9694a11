#include "store/internal.h"

#include <errno.h>
#include <string.h>

int firmware_from_row(sqlite3_stmt *stmt, int first, struct store_firmware *ret, struct error *err)
{
    *ret = (struct store_firmware){
        .id = sqlite3_column_int64(stmt, first),
        .created_at = sqlite3_column_int64(stmt, first + 3) * NSEC_PER_SEC,
        .executable = {.id = sqlite3_column_int64(stmt, first + 4),
                       .size = (uint64_t)sqlite3_column_int64(stmt, first + 5)},
        .nvram_template = {.id = sqlite3_column_int64(stmt, first + 7),
                           .size = (uint64_t)sqlite3_column_int64(stmt, first + 8)},
    };
    int r = name_from_column(stmt, first + 1, ret->name, err);
    if (r < 0)
        return r;
    const char *mode = (const char *)sqlite3_column_text(stmt, first + 2);
    if (!mode || flash_mode_parse(mode, &ret->mode) < 0)
        return error_set(err, -EUCLEAN, "the store is damaged: firmware '%s' has no mode",
                         ret->name);
    r = image_column_digest(stmt, first + 6, ret->executable.digest, err);
    if (r == 0 && ret->nvram_template.id)
        r = image_column_digest(stmt, first + 9, ret->nvram_template.digest, err);
    return r;
}

int firmware_find(struct db *db, const char *name, struct store_firmware *ret, struct error *err)
{
    static const char sql[] =
        "SELECT " FIRMWARE_COLUMNS " FROM firmware f " FIRMWARE_JOINS "WHERE f.name = ?";
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    int r = db_prepare(db, sql, &stmt, err);
    if (r < 0)
        return r;
    db_bind(stmt, "t", name);
    r = db_step(db, stmt, err);
    if (r < 0)
        return r;
    if (r == 0)
        return error_set(err, -ENOENT, "there is no firmware '%s'", name);
    return firmware_from_row(stmt, 0, ret, err);
}

int store_firmware_get(struct store *store, const char *name, struct store_firmware *ret,
                       struct error *err)
{
    cleanup_reader struct reader reader = {0};
    int r = reader_begin(store, &reader, err);
    return r < 0 ? r : firmware_find(reader.db, name, ret, err);
}

int store_firmware_each(struct store *store,
                        int (*each)(const struct store_firmware *firmware, void *data), void *data,
                        struct error *err)
{
    static const char sql[] =
        "SELECT " FIRMWARE_COLUMNS " FROM firmware f " FIRMWARE_JOINS "ORDER BY f.name";
    cleanup_reader struct reader reader = {0};
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    int r = reader_prepare(store, &reader, sql, &stmt, err);
    if (r < 0)
        return r;
    while ((r = db_step(reader.db, stmt, err)) > 0) {
        struct store_firmware firmware;
        r = firmware_from_row(stmt, 0, &firmware, err);
        if (r == 0)
            r = each(&firmware, data);
        if (r != 0)
            return r;
    }
    return r;
}

int firmware_descriptor(struct db *db, int64_t firmware, char **ret, struct error *err)
{
    static const char sql[] = "SELECT descriptor FROM firmware WHERE id = ?";
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    int r = db_prepare(db, sql, &stmt, err);
    if (r < 0)
        return r;
    db_bind(stmt, "i", firmware);
    r = db_step(db, stmt, err);
    if (r < 0)
        return r;
    if (r == 0)
        return error_set(err, -ENOENT, "there is no firmware %lld", (long long)firmware);
    *ret = strdup((const char *)sqlite3_column_text(stmt, 0));
    return *ret ? 0 : error_set(err, -ENOMEM, "out of memory");
}

int store_firmware_descriptor(struct store *store, int64_t firmware, char **ret, struct error *err)
{
    cleanup_reader struct reader reader = {0};
    int r = reader_begin(store, &reader, err);
    return r < 0 ? r : firmware_descriptor(reader.db, firmware, ret, err);
}

static int count_guests(struct db *db, int64_t firmware, int64_t *ret, struct error *err)
{
    static const char sql[] = "SELECT count(*) FROM guests WHERE firmware_id = ?";
    return db_integer(db, err, ret, sql, "i", firmware);
}

int store_firmware_guests(struct store *store, int64_t firmware, uint64_t *ret, struct error *err)
{
    cleanup_reader struct reader reader = {0};
    int64_t count;
    int r = reader_begin(store, &reader, err);
    if (r == 0)
        r = count_guests(reader.db, firmware, &count, err);
    if (r == 0)
        *ret = (uint64_t)count;
    return r;
}

/* 1 if the firmware in the store is what the spec says. */
static int is_same(struct db *db, const struct store_firmware *there,
                   const struct store_firmware_spec *spec, struct error *err)
{
    uint8_t digest[STORE_DIGEST_SIZE];
    block_digest(&db->codec, spec->executable.bytes, spec->executable.size, digest);
    if (there->mode != spec->mode || memcmp(digest, there->executable.digest, sizeof digest) != 0)
        return 0;
    if (spec->nvram_template.bytes) {
        block_digest(&db->codec, spec->nvram_template.bytes, spec->nvram_template.size, digest);
        if (memcmp(digest, there->nvram_template.digest, sizeof digest) != 0)
            return 0;
    }
    cleanup_free char *descriptor = NULL;
    int r = firmware_descriptor(db, there->id, &descriptor, err);
    return r < 0 ? r : strcmp(descriptor, spec->descriptor) == 0;
}

static int insert_firmware(struct db *db, const struct store_firmware_spec *spec, struct error *err)
{
    static const char sql[] =
        "INSERT INTO firmware"
        " (name, mode, executable_id, nvram_template_id, descriptor, created_at)"
        " VALUES (?, ?, ?, nullif(?, 0), ?, ?)";
    int64_t executable, nvram_template = 0;
    int r = image_add(db, spec->executable.bytes, spec->executable.size, &executable, err);
    if (r == 0 && spec->nvram_template.bytes)
        r = image_add(db, spec->nvram_template.bytes, spec->nvram_template.size, &nvram_template,
                      err);
    if (r < 0)
        return r;
    return db_run(db, err, sql, "ttiiti", spec->name, flash_mode_name(spec->mode), executable,
                  nvram_template, spec->descriptor, store_now());
}

int firmware_add(struct db *db, const struct store_firmware_spec *spec, struct error *err)
{
    struct store_firmware there;
    int r = firmware_find(db, spec->name, &there, NULL);
    if (r == -ENOENT)
        return insert_firmware(db, spec, err);
    if (r < 0)
        return error_prefix(err, r, "firmware '%s'", spec->name);
    r = is_same(db, &there, spec, err);
    return r != 0 ? r
                  : error_set(err, -EEXIST,
                              "there is other firmware named '%s'; choose another name, or "
                              "remove it first",
                              spec->name);
}

int store_firmware_add(struct store *store, const struct store_firmware_spec *spec,
                       struct error *err)
{
    int r = store_check_name("firmware", spec->name, err);
    if (r < 0)
        return r;
    if ((spec->mode == FLASH_MODE_SPLIT) != (spec->nvram_template.bytes != NULL))
        return error_set(err, -EINVAL, "firmware '%s': mode %s %s nvram-template", spec->name,
                         flash_mode_name(spec->mode),
                         spec->mode == FLASH_MODE_SPLIT ? "needs an" : "takes no");

    cleanup_txn struct txn txn = {0};
    r = txn_begin(store, &txn, err);
    if (r == 0)
        r = firmware_add(txn.db, spec, err);
    return r != 0 ? r : txn_commit(&txn, err);
}

int store_firmware_remove(struct store *store, const char *name, struct error *err)
{
    static const char sql[] = "DELETE FROM firmware WHERE id = ?";
    static const char removed[] = "SELECT count(*) FROM removed_guests WHERE firmware_id = ?";
    cleanup_txn struct txn txn = {0};
    struct store_firmware firmware;
    int64_t guests;
    int r = txn_begin(store, &txn, err);
    if (r == 0)
        r = firmware_find(txn.db, name, &firmware, err);
    if (r == 0)
        r = count_guests(txn.db, firmware.id, &guests, err);
    if (r < 0)
        return r;
    if (guests > 0)
        return error_set(err, -EBUSY, "firmware '%s' is used by %lld guest%s; remove them first",
                         name, (long long)guests, guests == 1 ? "" : "s");
    r = db_integer(txn.db, err, &guests, removed, "i", firmware.id);
    if (r < 0)
        return r;
    if (guests > 0)
        return error_set(err, -EBUSY,
                         "firmware '%s' was used by %lld guest%s that can still be brought back; "
                         "'fwfs guest rm --purge' them first",
                         name, (long long)guests, guests == 1 ? "" : "s");

    r = db_run(txn.db, err, sql, "i", firmware.id);
    if (r == 0)
        r = image_remove_unused(txn.db, firmware.executable.id, err);
    if (r == 0 && firmware.nvram_template.id)
        r = image_remove_unused(txn.db, firmware.nvram_template.id, err);
    return r < 0 ? r : txn_commit(&txn, err);
}
