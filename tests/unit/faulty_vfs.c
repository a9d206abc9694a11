#include "faulty_vfs.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "faulty_disk.h"
#include "store/db.h"

static sqlite3_vfs *below;

/* ---- Calls that fail ---- */

static struct {
    unsigned kinds;
    uint64_t left;
    bool stays, failed;
} fault;

static bool fails(unsigned kind)
{
    if (!(fault.kinds & kind))
        return false;
    bool now = fault.left == 1 || (fault.left == 0 && fault.stays);
    if (fault.left > 0)
        fault.left--;
    fault.failed = fault.failed || now;
    return now;
}

void faulty_fail(unsigned kinds, uint64_t nth, bool stays)
{
    fault.kinds = kinds;
    fault.left = nth;
    fault.stays = stays;
    fault.failed = false;
}

bool faulty_stop(void)
{
    fault.kinds = 0;
    return fault.failed;
}

/* ---- Power cuts ---- */

static struct {
    bool on, off; /* off: cut */
    uint64_t count, cut_at;
} power;

/* Whether the power is out by then; counts what changes a disk. */
static bool is_out(bool changes)
{
    if (power.on && changes && ++power.count == power.cut_at)
        power.off = true;
    return power.off;
}

void faulty_power_on(void)
{
    power.on = true;
    power.count = power.cut_at = 0;
}

uint64_t faulty_count(void)
{
    return power.count;
}

void faulty_cut_at(uint64_t nth)
{
    power.cut_at = nth;
}

void faulty_power_off(uint64_t seed)
{
    disk_lose(seed);
    power.on = power.off = false;
}

/* ---- Files ---- */

struct faulty_file {
    sqlite3_file file;
    struct disk_file *disk; /* while the power is on */
    /* The file of the VFS below follows. */
};

static sqlite3_file *lower(sqlite3_file *file)
{
    return (sqlite3_file *)((struct faulty_file *)file + 1);
}

static struct disk_file *disk_of(sqlite3_file *file)
{
    return power.on ? ((struct faulty_file *)file)->disk : NULL;
}

static int close_file(sqlite3_file *file)
{
    return lower(file)->pMethods->xClose(lower(file));
}

static int read_file(sqlite3_file *file, void *buffer, int size, sqlite3_int64 offset)
{
    if (is_out(false) || fails(FAULTY_READ))
        return SQLITE_IOERR_READ;
    return lower(file)->pMethods->xRead(lower(file), buffer, size, offset);
}

static int write_file(sqlite3_file *file, const void *buffer, int size, sqlite3_int64 offset)
{
    if (power.off || fails(FAULTY_WRITE))
        return SQLITE_IOERR_WRITE;
    if (disk_of(file))
        disk_write(disk_of(file), buffer, (size_t)size, (size_t)offset);
    if (is_out(true))
        return SQLITE_IOERR_WRITE;
    return lower(file)->pMethods->xWrite(lower(file), buffer, size, offset);
}

static int truncate_file(sqlite3_file *file, sqlite3_int64 size)
{
    if (is_out(true) || fails(FAULTY_TRUNCATE))
        return SQLITE_IOERR_TRUNCATE;
    if (disk_of(file))
        disk_truncate(disk_of(file), (size_t)size);
    return lower(file)->pMethods->xTruncate(lower(file), size);
}

/* The disk below is not asked: nobody cuts its power, and it would take long. */
static int sync_file(sqlite3_file *file, int flags)
{
    if (is_out(true) || fails(FAULTY_SYNC))
        return SQLITE_IOERR_FSYNC;
    if (disk_of(file))
        disk_sync(disk_of(file));
    return SQLITE_OK;
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
    if (is_out(false) || fails(FAULTY_MAP))
        return SQLITE_IOERR_SHMMAP;
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

static int open_file(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *got)
{
    struct faulty_file *faulty = (struct faulty_file *)file;
    file->pMethods = NULL;
    if (is_out(false) || fails(FAULTY_OPEN)) {
        errno = EIO; /* SQLite asks for it */
        return SQLITE_CANTOPEN;
    }
    faulty->disk = power.on && name ? disk_open(name) : NULL;
    int r = below->xOpen(below, name, lower(file), flags, got);
    if (r == SQLITE_OK)
        file->pMethods = &methods;
    return r;
}

static int delete_file(sqlite3_vfs *vfs, const char *name, int sync_directory)
{
    if (is_out(true) || fails(FAULTY_DELETE))
        return SQLITE_IOERR_DELETE;
    if (power.on)
        disk_delete(disk_open(name), sync_directory);
    return below->xDelete(below, name, false);
}

/* ---- Memory ---- */

static sqlite3_mem_methods memory;

static void *allocate(int size)
{
    return fails(FAULTY_ALLOCATE) ? NULL : memory.xMalloc(size);
}

static void *reallocate(void *pointer, int size)
{
    return fails(FAULTY_ALLOCATE) ? NULL : memory.xRealloc(pointer, size);
}

void faulty_install(void)
{
    static sqlite3_vfs vfs;
    sqlite3_config(SQLITE_CONFIG_GETMALLOC, &memory);
    sqlite3_mem_methods faulty_memory = memory;
    faulty_memory.xMalloc = allocate;
    faulty_memory.xRealloc = reallocate;
    int r = sqlite3_config(SQLITE_CONFIG_MALLOC, &faulty_memory);
    assert(r == SQLITE_OK);

    below = sqlite3_vfs_find(NULL);
    vfs = *below;
    vfs.zName = "faulty";
    vfs.szOsFile += (int)sizeof(struct faulty_file);
    vfs.xOpen = open_file;
    vfs.xDelete = delete_file;
    r = sqlite3_vfs_register(&vfs, true);
    assert(r == SQLITE_OK);
}
