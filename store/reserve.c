#include "store/internal.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

/* Room for the writes of a fleet for about a minute after the disk has filled. */
#define RESERVE_BYTES ((off_t)16 << 20)

static char *reserve_path(const struct store *store)
{
    char *path;
    return asprintf(&path, "%s-reserve", store->path) < 0 ? NULL : path;
}

void store_reserve_hold(struct store *store)
{
    cleanup_free char *path = reserve_path(store);
    cleanup_fd int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;
    struct stat st;
    struct statvfs disk;
    if (fd < 0 || fstat(fd, &st) < 0 || fstatvfs(fd, &disk) < 0 || st.st_size >= RESERVE_BYTES)
        return;
    if ((uint64_t)disk.f_bavail * disk.f_frsize < 3 * (uint64_t)RESERVE_BYTES)
        return;
    /* A reserve cut short by a full disk is none: it is tried again another time. */
    if (fallocate(fd, 0, 0, RESERVE_BYTES) < 0 && ftruncate(fd, 0) < 0)
        return;
}

bool store_reserve_release(struct store *store)
{
    cleanup_free char *path = reserve_path(store);
    struct stat st;
    return path && lstat(path, &st) == 0 && unlink(path) == 0 && st.st_size > 0;
}
