#include "firmware/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"

static int read_exactly(int fd, char *bytes, size_t size, struct error *err)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = pread(fd, bytes + done, size - done, (off_t)done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set(err, -errno, "cannot be read: %s", strerror(errno));
        if (n == 0)
            return error_set(err, -EIO, "was shortened while it was read; try again");
        done += (size_t)n;
    }
    return 0;
}

int file_read_fd(int fd, size_t size_max, void **ret, size_t *ret_size, struct error *err)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return error_set(err, -errno, "%s", strerror(errno));
    if (!S_ISREG(st.st_mode))
        return error_set(err, -EINVAL, "is no regular file");
    if (st.st_size == 0)
        return error_set(err, -EINVAL, "is empty");
    if ((uintmax_t)st.st_size > size_max)
        return error_set(err, -EINVAL, "has %jd bytes, more than the %zu that are read of one",
                         (intmax_t)st.st_size, size_max);

    size_t size = (size_t)st.st_size;
    cleanup_free char *bytes = malloc(size);
    if (!bytes)
        return error_set(err, -ENOMEM, "%s", strerror(ENOMEM));
    int r = read_exactly(fd, bytes, size, err);
    if (r < 0)
        return r;
    *ret = steal_ptr(bytes);
    *ret_size = size;
    return 0;
}

int file_read(const char *path, size_t size_max, void **ret, size_t *ret_size, struct error *err)
{
    /* O_NONBLOCK: a FIFO is to be refused, not waited for. */
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return error_set(err, -errno, "%s", strerror(errno));
    return file_read_fd(fd, size_max, ret, ret_size, err);
}
