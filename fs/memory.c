#include "fs/memory.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

/* With a limit, even one that is high, an allocation would fail later on for having to be locked.
 * Only trying tells whether it is the process's privilege to pass it: a capability may be another
 * namespace's. Pages without access are counted, but take no memory. */
static bool is_unlimited(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) < 0)
        return false;
    if (limit.rlim_cur == RLIM_INFINITY)
        return true;
    size_t size = (size_t)limit.rlim_cur + (size_t)sysconf(_SC_PAGESIZE);
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_LOCKED;
    void *probe = mmap(NULL, size, PROT_NONE, flags, -1, 0);
    if (probe == MAP_FAILED)
        return false;
    munmap(probe, size);
    return true;
}

void memory_lock_all(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_MEMLOCK, &limit);
    }
    if (is_unlimited())
        mlockall(MCL_CURRENT | MCL_FUTURE);
}

void *memory_take(size_t size, bool *locked)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE;
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    if (mlock(memory, size) < 0)
        *locked = false;
    return memory;
}

void memory_give_back(void *memory, size_t size)
{
    munmap(memory, size);
}
