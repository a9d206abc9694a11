#include "fs/state.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"

static struct state *map(int fd)
{
    void *memory = mmap(NULL, sizeof(struct state), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

int state_create(struct state **ret, struct error *err)
{
    cleanup_fd int fd = memfd_create("fwfs-state", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, sizeof(struct state)) < 0)
        return error_set(err, -errno, "shared memory: %m");
    struct state *state = map(fd);
    if (!state)
        return error_set(err, -errno, "shared memory: %m");
    state->magic = STATE_MAGIC;
    state->version = STATE_VERSION;
    *ret = state;
    return steal_fd(&fd);
}

int state_map(int fd, struct state **ret, struct error *err)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return error_set(err, -errno, "shared memory: %m");
    struct state *state = (size_t)st.st_size == sizeof(struct state) ? map(fd) : NULL;
    if (!state || state->magic != STATE_MAGIC || state->version != STATE_VERSION)
        return error_set(err, -EPROTO,
                         "the mount's shared memory was made by another version of fwfs; unmount "
                         "and mount again to change over");
    *ret = state;
    return 0;
}

int64_t state_clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}
