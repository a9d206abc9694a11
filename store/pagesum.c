#include "store/pagesum.h"

#include <assert.h>
#include <endian.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define CONTENT_SIZE (PAGESUM_PAGE_SIZE - PAGESUM_SIZE)
#define WORDS (CONTENT_SIZE / 8)
#define LANES 4

static sqlite3_vfs *below;

/* ---- The checksum ----
 *
 * Of one's own because it must cost little beside the reading of a page: about 0.5 us, where
 * libcrypto's digests take ten times that and need a context each. Each step is a bijection of the
 * lane for a given word and of the word for a given lane, so a change within any one word always
 * shows; the shift brings high bits down, where the next product spreads them again. */

static uint64_t mix(uint64_t sum, uint64_t word)
{
    sum = (sum ^ word) * UINT64_C(0x9E3779B97F4A7C15);
    return sum ^ sum >> 32;
}

static uint64_t word_at(const uint8_t *page, size_t index)
{
    uint64_t word;
    memcpy(&word, page + 8 * index, sizeof word);
    return le64toh(word);
}

static uint64_t page_sum(const uint8_t *page, uint64_t number)
{
    /* Not zeros: a page of zeros, which is what a disk gives in place of a lost one, must not pass.
     */
    uint64_t lanes[LANES] = {1, 2, 3, 4};
    size_t i = 0;
    for (; i + LANES <= WORDS; i += LANES)
        for (size_t lane = 0; lane < LANES; lane++)
            lanes[lane] = mix(lanes[lane], word_at(page, i + lane));
    for (size_t lane = 0; i < WORDS; i++, lane++)
        lanes[lane] = mix(lanes[lane], word_at(page, i));
    uint64_t sum = number;
    for (size_t lane = 0; lane < LANES; lane++)
        sum = mix(sum, lanes[lane]);
    return sum;
}

static bool is_right(const uint8_t *page, sqlite3_int64 offset)
{
    return page_sum(page, (uint64_t)offset / PAGESUM_PAGE_SIZE) == word_at(page, WORDS);
}

/* ---- Reading and writing ---- */

struct page_file {
    sqlite3_file file;
    /* The file of the VFS below follows. */
};

static sqlite3_file *lower(sqlite3_file *file)
{
    return (sqlite3_file *)((struct page_file *)file + 1);
}

static int read_page(sqlite3_file *file, uint8_t page[PAGESUM_PAGE_SIZE], sqlite3_int64 offset)
{
    int r = lower(file)->pMethods->xRead(lower(file), page, PAGESUM_PAGE_SIZE, offset);
    /* SQLite would take what is missing for zeros. */
    if (r == SQLITE_IOERR_SHORT_READ || (r == SQLITE_OK && !is_right(page, offset)))
        return SQLITE_IOERR_DATA;
    return r;
}

/* SQLite reads a part only of the header, when it opens a file: without a lock, so another may be
 * writing it, and before it looks into the log, which may have the whole of what a power cut tore.
 * What it reads is constant; the page is read again, as a whole, before it is used. */
static int read_part(sqlite3_file *file, void *buffer, int size, sqlite3_int64 offset)
{
    uint8_t page[PAGESUM_PAGE_SIZE];
    sqlite3_int64 within = offset % PAGESUM_PAGE_SIZE;
    assert(within + size <= PAGESUM_PAGE_SIZE);
    if (offset < PAGESUM_PAGE_SIZE)
        return lower(file)->pMethods->xRead(lower(file), buffer, size, offset);
    /* Later versions read large values without their page. */
    int r = read_page(file, page, offset - within);
    if (r == SQLITE_OK)
        memcpy(buffer, page + within, (size_t)size);
    return r;
}

static int read_file(sqlite3_file *file, void *buffer, int size, sqlite3_int64 offset)
{
    if (size != PAGESUM_PAGE_SIZE || offset % PAGESUM_PAGE_SIZE != 0)
        return read_part(file, buffer, size, offset);
    return read_page(file, buffer, offset);
}

static bool has_sums(const uint8_t *header)
{
    return memcmp(header, "SQLite format 3", 16) == 0 &&
           (header[16] << 8 | header[17]) == PAGESUM_PAGE_SIZE && header[20] == PAGESUM_SIZE;
}

static int write_file(sqlite3_file *file, const void *buffer, int size, sqlite3_int64 offset)
{
    uint8_t page[PAGESUM_PAGE_SIZE];
    assert(size == PAGESUM_PAGE_SIZE && offset % PAGESUM_PAGE_SIZE == 0);
    assert(offset > 0 || has_sums(buffer));
    memcpy(page, buffer, CONTENT_SIZE);
    uint64_t sum = htole64(page_sum(page, (uint64_t)offset / PAGESUM_PAGE_SIZE));
    memcpy(page + CONTENT_SIZE, &sum, sizeof sum);
    return lower(file)->pMethods->xWrite(lower(file), page, sizeof page, offset);
}

/* ---- What is handed on ---- */

static int close_file(sqlite3_file *file)
{
    return lower(file)->pMethods->xClose(lower(file));
}

static int truncate_file(sqlite3_file *file, sqlite3_int64 size)
{
    return lower(file)->pMethods->xTruncate(lower(file), size);
}

static int sync_file(sqlite3_file *file, int flags)
{
    return lower(file)->pMethods->xSync(lower(file), flags);
}

static int get_size(sqlite3_file *file, sqlite3_int64 *size)
{
    return lower(file)->pMethods->xFileSize(lower(file), size);
}

static int lock_file(sqlite3_file *file, int level)
{
    return lower(file)->pMethods->xLock(lower(file), level);
}

static int unlock_file(sqlite3_file *file, int level)
{
    return lower(file)->pMethods->xUnlock(lower(file), level);
}

static int check_reserved(sqlite3_file *file, int *reserved)
{
    return lower(file)->pMethods->xCheckReservedLock(lower(file), reserved);
}

static int control_file(sqlite3_file *file, int operation, void *argument)
{
    return lower(file)->pMethods->xFileControl(lower(file), operation, argument);
}

static int get_sector_size(sqlite3_file *file)
{
    return lower(file)->pMethods->xSectorSize(lower(file));
}

static int get_characteristics(sqlite3_file *file)
{
    return lower(file)->pMethods->xDeviceCharacteristics(lower(file));
}

static int map_shared(sqlite3_file *file, int page, int size, int extend, void volatile **ret)
{
    return lower(file)->pMethods->xShmMap(lower(file), page, size, extend, ret);
}

static int lock_shared(sqlite3_file *file, int offset, int count, int flags)
{
    return lower(file)->pMethods->xShmLock(lower(file), offset, count, flags);
}

static void order_shared(sqlite3_file *file)
{
    lower(file)->pMethods->xShmBarrier(lower(file));
}

static int unmap_shared(sqlite3_file *file, int remove)
{
    return lower(file)->pMethods->xShmUnmap(lower(file), remove);
}

/* Version 2 has no memory-mapped reads, which nothing could check. */
static const sqlite3_io_methods methods = {
    .iVersion = 2,
    .xClose = close_file,
    .xRead = read_file,
    .xWrite = write_file,
    .xTruncate = truncate_file,
    .xSync = sync_file,
    .xFileSize = get_size,
    .xLock = lock_file,
    .xUnlock = unlock_file,
    .xCheckReservedLock = check_reserved,
    .xFileControl = control_file,
    .xSectorSize = get_sector_size,
    .xDeviceCharacteristics = get_characteristics,
    .xShmMap = map_shared,
    .xShmLock = lock_shared,
    .xShmBarrier = order_shared,
    .xShmUnmap = unmap_shared,
};

/* ---- Opening ---- */

static int check_file(sqlite3_file *file)
{
    uint8_t header[100];
    sqlite3_int64 size;
    int r = lower(file)->pMethods->xFileSize(lower(file), &size);
    if (r != SQLITE_OK || size == 0)
        return r;
    r = lower(file)->pMethods->xRead(lower(file), header, sizeof header, 0);
    if (r == SQLITE_IOERR_SHORT_READ || (r == SQLITE_OK && !has_sums(header)))
        return SQLITE_NOTADB;
    return r;
}

static int open_file(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *got)
{
    if (!(flags & SQLITE_OPEN_MAIN_DB))
        return below->xOpen(below, name, file, flags, got);
    file->pMethods = NULL;
    lower(file)->pMethods = NULL;
    int r = below->xOpen(below, name, lower(file), flags, got);
    if (r == SQLITE_OK)
        r = check_file(file);
    if (r == SQLITE_OK)
        file->pMethods = &methods;
    else if (lower(file)->pMethods)
        close_file(file);
    return r;
}

const char *pagesum_vfs(void)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static const char name[] = "fwfs";
    static sqlite3_vfs vfs;
    static bool registered;
    pthread_mutex_lock(&lock);
    if (!registered && (below = sqlite3_vfs_find(NULL))) {
        /* But for opening, it does what the one below does. */
        vfs = *below;
        vfs.zName = name;
        vfs.szOsFile += (int)sizeof(struct page_file);
        vfs.xOpen = open_file;
        registered = sqlite3_vfs_register(&vfs, 0) == SQLITE_OK;
    }
    bool there = registered;
    pthread_mutex_unlock(&lock);
    return there ? name : NULL;
}
