/* Who sent a request. */
#ifndef FWFS_FS_PROCESS_H
#define FWFS_FS_PROCESS_H

#include <sys/types.h>

#include "store/store.h"

/* The process of a thread, as /proc tells; the kernel names threads, and 0 for those of another pid
 * namespace. */
void process_describe(pid_t thread, struct store_opener *ret);

#endif
