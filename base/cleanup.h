/* Scope-bound release of what C leaves to the programmer.
 *
 * `cleanup_free char *p = NULL;` frees p when the scope ends, whichever way it ends; steal_ptr()
 * and steal_fd() hand the thing on and disarm the release. */
#ifndef FWFS_BASE_CLEANUP_H
#define FWFS_BASE_CLEANUP_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define cleanup(function) __attribute__((cleanup(function)))

#define cleanup_free cleanup(cleanup_freep)
#define cleanup_fd cleanup(cleanup_closep)
#define cleanup_file cleanup(cleanup_fclosep)

static inline void cleanup_freep(void *p)
{
    free(*(void **)p);
}

static inline void cleanup_closep(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

static inline void cleanup_fclosep(FILE **file)
{
    if (*file)
        fclose(*file);
}

#define steal_ptr(pointer)                                                                         \
    ({                                                                                             \
        __typeof__(pointer) *steal_from_ = &(pointer);                                             \
        __typeof__(pointer) stolen_ = *steal_from_;                                                \
        *steal_from_ = NULL;                                                                       \
        stolen_;                                                                                   \
    })

static inline int steal_fd(int *fd)
{
    int stolen = *fd;
    *fd = -1;
    return stolen;
}

#endif
