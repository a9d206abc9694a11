#include "faulty_disk.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILES_MAX 8

/* A file's content, or that there is none. */
struct content {
    bool exists;
    uint8_t *bytes;
    size_t size;
};

struct change {
    enum change_kind { WRITE, TRUNCATE, DELETE } kind;
    size_t offset, size;
    uint8_t *bytes;
};

struct disk_file {
    char *name;
    struct content durable;
    struct change *changes; /* since */
    size_t count;
};

static struct disk_file files[FILES_MAX];
static size_t file_count;

static void resize(struct content *content, size_t size)
{
    if (size > content->size) {
        content->bytes = realloc(content->bytes, size);
        assert(content->bytes);
        memset(content->bytes + content->size, 0, size - content->size);
    }
    content->size = size;
}

static void load(const char *name, struct content *ret)
{
    FILE *stream = fopen(name, "r");
    if (!stream)
        return;
    fseek(stream, 0, SEEK_END);
    resize(ret, (size_t)ftell(stream));
    rewind(stream);
    ret->exists = fread(ret->bytes, 1, ret->size, stream) == ret->size;
    fclose(stream);
}

static void save(const char *name, const struct content *content)
{
    if (!content->exists) {
        int r = unlink(name);
        assert(r == 0 || errno == ENOENT);
        return;
    }
    FILE *stream = fopen(name, "w");
    assert(stream);
    size_t written = content->size ? fwrite(content->bytes, 1, content->size, stream) : 0;
    assert(written == content->size);
    fclose(stream);
}

struct disk_file *disk_open(const char *name)
{
    for (size_t i = 0; i < file_count; i++)
        if (strcmp(files[i].name, name) == 0)
            return &files[i];
    assert(file_count < FILES_MAX);
    struct disk_file *file = &files[file_count++];
    *file = (struct disk_file){.name = strdup(name)};
    load(name, &file->durable);
    return file;
}

static void add_change(struct disk_file *file, struct change change)
{
    /* Doubled at each power of two. */
    if ((file->count & (file->count - 1)) == 0)
        file->changes = realloc(file->changes, (2 * file->count + 1) * sizeof change);
    file->changes[file->count++] = change;
}

void disk_write(struct disk_file *file, const void *bytes, size_t size, size_t offset)
{
    struct change change = {WRITE, offset, size, malloc(size)};
    memcpy(change.bytes, bytes, size);
    add_change(file, change);
}

void disk_truncate(struct disk_file *file, size_t size)
{
    add_change(file, (struct change){TRUNCATE, .size = size});
}

void disk_delete(struct disk_file *file, bool sync_directory)
{
    add_change(file, (struct change){DELETE});
    if (sync_directory)
        disk_sync(file);
}

/* ---- What a cut leaves ---- */

#define NAMESPACE UINT64_MAX /* stand for a sector's number */
#define LENGTH (UINT64_MAX - 1)

struct cut {
    uint64_t seed;
    unsigned sector_size;
    unsigned per_cent; /* of the sectors that hold all, or nothing; the others are in between */
    bool keeps, tears;
};

static uint64_t draw(uint64_t seed, uint64_t number)
{
    uint64_t x = (seed ^ number * UINT64_C(0x9E3779B97F4A7C15)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ x >> 31) * UINT64_C(0x94D049BB133111EB);
    return x ^ x >> 29;
}

/* How many of the changes came to the disk in this sector. */
static size_t arrived(const struct cut *cut, uint64_t sector, size_t count)
{
    uint64_t drawn = draw(cut->seed, sector);
    if (drawn % 100 < cut->per_cent)
        return cut->keeps ? count : 0;
    return drawn / 100 % (count + 1);
}

static void write_sectors(const struct cut *cut, struct content *content,
                          const struct change *change, size_t index, size_t count)
{
    size_t done = 0;
    while (done < change->size) {
        size_t at = change->offset + done;
        size_t sector = at / cut->sector_size;
        size_t part = cut->sector_size - at % cut->sector_size;
        if (part > change->size - done)
            part = change->size - done;
        size_t last = arrived(cut, sector, count);
        if (index < last) {
            size_t kept = part;
            if (cut->tears && index + 1 == last)
                kept = draw(cut->seed, ~sector) % (part + 1);
            if (at + kept > content->size)
                resize(content, at + kept);
            if (kept > 0)
                memcpy(content->bytes + at, change->bytes + done, kept);
        }
        done += part;
    }
}

/* Without a cut: all of it. */
static void apply(struct disk_file *file, const struct cut *cut)
{
    static const struct cut everything = {.sector_size = 1 << 20, .per_cent = 100, .keeps = true};
    if (!cut)
        cut = &everything;
    struct content *content = &file->durable;
    size_t in_namespace = arrived(cut, NAMESPACE, file->count);
    if (file->count > 0 && !content->exists)
        content->exists = in_namespace > 0;
    for (size_t i = 0; i < file->count; i++) {
        const struct change *change = &file->changes[i];
        if (change->kind == DELETE && i >= in_namespace)
            break; /* and so is nothing of a file that was made again */
        if (change->kind == DELETE)
            resize(content, 0);
        else if (change->kind == WRITE)
            write_sectors(cut, content, change, i, file->count);
        else if (i < arrived(cut, LENGTH, file->count))
            resize(content, change->size);
        content->exists = change->kind == DELETE ? false : content->exists || i < in_namespace;
    }
}

static void forget_changes(struct disk_file *file)
{
    for (size_t i = 0; i < file->count; i++)
        free(file->changes[i].bytes);
    free(file->changes);
    file->changes = NULL;
    file->count = 0;
}

void disk_sync(struct disk_file *file)
{
    apply(file, NULL);
    forget_changes(file);
}

void disk_lose(uint64_t seed)
{
    struct cut cut = {.sector_size = draw(seed, 1) % 2 ? 512 : 4096,
                      .per_cent = (unsigned)(draw(seed, 2) % 5 * 25),
                      .keeps = draw(seed, 3) % 2,
                      .tears = draw(seed, 4) % 4 == 0};
    for (size_t i = 0; i < file_count; i++) {
        cut.seed = draw(seed, 5 + i);
        apply(&files[i], &cut);
        save(files[i].name, &files[i].durable);
        forget_changes(&files[i]);
        free(files[i].durable.bytes);
        free(files[i].name);
    }
    file_count = 0;
}
