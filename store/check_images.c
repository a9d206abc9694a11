/* Every image, block by block and whole; and healing one from the file that it was added from. */
#include "store/check.h"

#include <errno.h>
#include <openssl/evp.h>
#include <string.h>

#define STEP_BYTES (64 * STORE_BLOCK_SIZE)

/* An image, and by what firmware it is known: one of those that have it. */
struct subject {
    struct store_image image;
    bool nvram_template;
    struct store_damage place;
};

/* The next image after this one that is of use; 0: none. */
static int next_subject(struct checker *checker, int64_t after, struct subject *ret,
                        struct error *err)
{
    static const char sql[] =
        "SELECT i.id, i.size, i.digest, f.name, f.nvram_template_id IS i.id FROM images i"
        " LEFT JOIN firmware f ON f.executable_id = i.id OR f.nvram_template_id = i.id"
        " WHERE i.id > ? AND (f.id IS NOT NULL OR EXISTS"
        " (SELECT 1 FROM flashes WHERE image_id = i.id)) ORDER BY i.id, f.id LIMIT 1";
    cleanup_reader struct reader reader = {0};
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    int r = reader_prepare(checker->store, &reader, sql, &stmt, err);
    if (r < 0)
        return r;
    db_bind(stmt, "i", after);
    r = db_step(reader.db, stmt, err);
    if (r <= 0)
        return r;
    *ret = (struct subject){.image.id = sqlite3_column_int64(stmt, 0),
                            .image.size = (uint64_t)sqlite3_column_int64(stmt, 1),
                            .nvram_template = sqlite3_column_int(stmt, 4),
                            .place.offset = -1};
    /* A digest of the wrong size is one that nothing has. */
    image_column_digest(stmt, 2, ret->image.digest, NULL);
    const char *name = (const char *)sqlite3_column_text(stmt, 3);
    struct store_damage *place = &ret->place;
    place->file = name ? ret->nvram_template ? "vars" : "code" : NULL;
    snprintf(place->firmware, sizeof place->firmware, "%s", name ? name : "");
    if (name)
        snprintf(place->place, sizeof place->place, "firmware '%s': %s", name, place->file);
    else
        snprintf(place->place, sizeof place->place, "image %lld", (long long)ret->image.id);
    return 1;
}

/* What is wrong with an image: blocks that cannot be read, or all of it. */
struct verdict {
    size_t count, room;
    int64_t *offsets; /* -1: the whole */
};

static void verdict_clear(struct verdict *verdict)
{
    free(verdict->offsets);
}

static int condemn(struct verdict *verdict, int64_t offset, struct error *err)
{
    if (verdict->count == verdict->room) {
        size_t room = verdict->room ? 2 * verdict->room : 16;
        int64_t *offsets = reallocarray(verdict->offsets, room, sizeof *offsets);
        if (!offsets)
            return error_set(err, -ENOMEM, "out of memory");
        verdict->offsets = offsets;
        verdict->room = room;
    }
    verdict->offsets[verdict->count++] = offset;
    return 0;
}

static int read_blocks(struct db *db, int64_t image, const struct span *span,
                       struct verdict *verdict, struct error *err)
{
    int r = image_read(db, image, span, err);
    for (size_t at = 0; r == -EUCLEAN && at < span->length; at += STORE_BLOCK_SIZE) {
        struct span one = {
            .offset = span->offset + at, .length = STORE_BLOCK_SIZE, .buffer = span->buffer + at};
        int one_r = image_read(db, image, &one, err);
        if (one_r == -EUCLEAN)
            one_r = condemn(verdict, (int64_t)one.offset, err);
        if (one_r < 0)
            return one_r;
    }
    return r == -EUCLEAN ? 0 : r;
}

static int read_image(struct checker *checker, const struct store_image *image, EVP_MD_CTX *hash,
                      struct verdict *verdict, struct error *err)
{
    cleanup_free uint8_t *buffer = malloc(STEP_BYTES);
    if (!buffer)
        return error_set(err, -ENOMEM, "out of memory");
    for (uint64_t offset = 0; offset < image->size; offset += STEP_BYTES) {
        uint64_t left = image->size - offset;
        struct span span = {.offset = offset,
                            .length = left < STEP_BYTES ? (size_t)left : STEP_BYTES,
                            .buffer = buffer};
        cleanup_reader struct reader reader = {0};
        int r = reader_begin(checker->store, &reader, err);
        if (r == 0)
            r = read_blocks(reader.db, image->id, &span, verdict, err);
        if (r < 0)
            return r;
        if (!EVP_DigestUpdate(hash, buffer, span.length))
            return error_set(err, -ENOMEM, "out of memory");
        check_progress(checker, "images", offset + span.length, image->size);
    }
    return 0;
}

static bool has_right_size(const struct store_image *image)
{
    return image->size > 0 && image->size % STORE_BLOCK_SIZE == 0 &&
           image->size <= STORE_IMAGE_SIZE_MAX;
}

/* 1 if it has blocks past its end. */
static int is_overlong(struct checker *checker, const struct store_image *image, struct error *err)
{
    static const char sql[] = "SELECT EXISTS (SELECT 1 FROM image_blocks WHERE image_id = ?1"
                              " AND block_index NOT BETWEEN 0 AND ?2)";
    cleanup_reader struct reader reader = {0};
    int64_t overlong = 0;
    int r = reader_begin(checker->store, &reader, err);
    if (r == 0)
        r = db_integer(reader.db, err, &overlong, sql, "ii", image->id,
                       (int64_t)(image->size / STORE_BLOCK_SIZE) - 1);
    return r < 0 ? r : overlong != 0;
}

static void free_hash(EVP_MD_CTX **hash)
{
    EVP_MD_CTX_free(*hash);
}

static int judge(struct checker *checker, const struct store_image *image, struct verdict *ret,
                 struct error *err)
{
    cleanup(free_hash) EVP_MD_CTX *hash = EVP_MD_CTX_new();
    uint8_t digest[STORE_DIGEST_SIZE];
    if (!hash || !EVP_DigestInit_ex(hash, EVP_sha256(), NULL))
        return error_set(err, -ENOMEM, "out of memory");
    if (!has_right_size(image))
        return condemn(ret, -1, err);
    int overlong = is_overlong(checker, image, err);
    int r = overlong < 0 ? overlong : read_image(checker, image, hash, ret, err);
    if (r < 0)
        return r;
    bool right = EVP_DigestFinal_ex(hash, digest, NULL) &&
                 memcmp(digest, image->digest, sizeof digest) == 0 && !overlong;
    return right || ret->count > 0 ? 0 : condemn(ret, -1, err);
}

/* ---- Healing ---- */

/* 1 if it is in the store now as it was added. */
static int heal(struct checker *checker, const struct subject *subject, const uint8_t *bytes,
                size_t size, struct error *err)
{
    uint8_t digest[STORE_DIGEST_SIZE];
    cleanup_txn struct txn txn = {0};
    int r = txn_begin(checker->store, &txn, err);
    if (r < 0)
        return r;
    block_digest(&txn.db->codec, bytes, size, digest);
    if (size != subject->image.size || memcmp(digest, subject->image.digest, sizeof digest) != 0)
        return 0;
    r = image_heal(txn.db, subject->image.id, bytes, size, err);
    if (r == 0)
        r = txn_commit(&txn, err);
    return r < 0 ? r : 1;
}

/* 1 if it was healed, else 0 and the reason. */
static int try_original(struct checker *checker, const struct subject *subject, char *reason,
                        size_t reason_size, struct error *err)
{
    cleanup_free void *bytes = NULL;
    size_t size = 0;
    struct error why = {0};
    snprintf(reason, reason_size, "there is no file to heal it from; bring back a backup");
    if (!checker->how->original || !*subject->place.firmware)
        return 0;
    int r = checker->how->original(subject->place.firmware, subject->nvram_template, &bytes, &size,
                                   checker->how->data, &why);
    if (r < 0) {
        snprintf(reason, reason_size, "its file cannot be had: %s", why.text);
        return 0;
    }
    r = bytes ? heal(checker, subject, bytes, size, err) : 0;
    if (r == 0 && bytes)
        snprintf(reason, reason_size, "its file is another one by now; bring back a backup");
    return r;
}

/* Its firmware may have been removed while it was read. */
static int is_there(struct checker *checker, int64_t image, struct error *err)
{
    struct store_image found;
    int r = store_image_get(checker->store, image, &found, err);
    return r == -ENOENT ? 0 : r < 0 && r != -EUCLEAN ? r : 1;
}

static int check_one(struct checker *checker, const struct subject *subject, struct error *err)
{
    cleanup(verdict_clear) struct verdict verdict = {0};
    char remedy[ERROR_TEXT_SIZE] = "";
    int healed = 0, r = judge(checker, &subject->image, &verdict, err);
    if (r == 0 && verdict.count > 0)
        r = is_there(checker, subject->image.id, err);
    if (r == 0)
        return 0;
    if (r > 0 && checker->how->repair)
        healed = r = try_original(checker, subject, remedy, sizeof remedy, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < verdict.count; i++) {
        struct store_damage damage = subject->place;
        size_t length = strlen(damage.place);
        damage.offset = verdict.offsets[i];
        if (damage.offset >= 0)
            snprintf(damage.place + length, sizeof damage.place - length, " at offset %lld",
                     (long long)damage.offset);
        snprintf(damage.what, sizeof damage.what, "%s",
                 damage.offset < 0 ? "as a whole not what was added" : "not what was added");
        damage.outcome = healed ? STORE_DAMAGE_REPAIRED : STORE_DAMAGE_LEFT;
        snprintf(damage.remedy, sizeof damage.remedy, "%s",
                 healed ? "healed from its file; nothing is lost" : remedy);
        check_report(checker, &damage);
    }
    return 0;
}

int check_images(struct checker *checker, struct error *err)
{
    struct subject subject = {0};
    int r;
    while ((r = next_subject(checker, subject.image.id, &subject, err)) > 0) {
        r = check_one(checker, &subject, err);
        if (r < 0)
            return r;
        checker->result->images++;
    }
    return r;
}
