#include "firmware/image.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "firmware/file.h"
#include "firmware/qcow2.h"

/* A qcow2 file may be larger than what it holds: tables, and snapshots that are not read. */
#define FILE_SIZE_MAX (2 * (size_t)IMAGE_SIZE_MAX)

int image_probe_format(const char *path, enum image_format *format, struct error *err)
{
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return error_set(err, -errno, "%s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return error_set(err, -EINVAL, "%s: is no regular file", path);
    char magic[QCOW2_MAGIC_SIZE];
    ssize_t n = pread(fd, magic, sizeof magic, 0);
    if (n < 0)
        return error_set(err, -errno, "%s: cannot be read: %s", path, strerror(errno));
    *format = qcow2_is(magic, (size_t)n) ? IMAGE_FORMAT_QCOW2 : IMAGE_FORMAT_RAW;
    return 0;
}

static int check_size(uint64_t size, struct error *err)
{
    if (size == 0)
        return error_set(err, -EINVAL, "is an image of 0 bytes");
    if (size > IMAGE_SIZE_MAX)
        return error_set(err, -EINVAL, "is an image of %" PRIu64 " bytes; flash has at most %d",
                         size, IMAGE_SIZE_MAX);
    if (size % IMAGE_SECTOR_SIZE != 0)
        return error_set(err, -EINVAL,
                         "is an image of %" PRIu64 " bytes, which is no multiple of %d as flash "
                         "must be; is it cut off?",
                         size, IMAGE_SECTOR_SIZE);
    return 0;
}

static int check_format(const void *bytes, size_t size, enum image_format format, struct error *err)
{
    bool qcow2 = qcow2_is(bytes, size);
    if (qcow2 == (format == IMAGE_FORMAT_QCOW2))
        return 0;
    return error_set(err, -EINVAL, "is %s although its format is said to be %s; correct the format",
                     qcow2 ? "a qcow2 image" : "no qcow2 image", image_format_name(format));
}

static int load(const char *path, enum image_format format, struct image *ret, struct error *err)
{
    cleanup_free void *bytes = NULL;
    size_t size;
    int r = file_read(path, FILE_SIZE_MAX, &bytes, &size, err);
    if (r == 0)
        r = check_format(bytes, size, format, err);
    uint64_t virtual_size = size;
    if (r == 0 && format == IMAGE_FORMAT_QCOW2)
        r = qcow2_virtual_size(bytes, size, &virtual_size, err);
    if (r == 0)
        r = check_size(virtual_size, err);
    if (r < 0)
        return r;

    void *raw = NULL;
    if (format == IMAGE_FORMAT_QCOW2)
        r = qcow2_convert(bytes, size, (size_t)virtual_size, &raw, err);
    else
        raw = steal_ptr(bytes);
    if (r == 0)
        *ret = (struct image){.bytes = raw, .size = (size_t)virtual_size};
    return r;
}

int image_load(const char *path, enum image_format format, struct image *ret, struct error *err)
{
    int r = load(path, format, ret, err);
    return r < 0 ? error_prefix(err, r, "%s", path) : 0;
}

void image_unload(struct image *image)
{
    free((void *)image->bytes);
    *image = (struct image){.bytes = NULL};
}
