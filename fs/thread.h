/* Threads of the worker. Its memory is locked, stacks included, so these are small. */
#ifndef FWFS_FS_THREAD_H
#define FWFS_FS_THREAD_H

#include <pthread.h>

#include "base/error.h"

int thread_start(pthread_t *ret, void *(*run)(void *data), void *data, struct error *err);

#endif
