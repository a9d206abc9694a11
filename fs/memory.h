/* Memory that stays in place.
 *
 * A request that the kernel copies into a page which is not there is lost if the worker dies at
 * that moment. And what the kernel wants to write back to free memory goes through the worker, who
 * had better not wait for memory then. */
#ifndef FWFS_FS_MEMORY_H
#define FWFS_FS_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

/* Locks all that the process has and will have, if it is allowed as much as it may come to need. */
void memory_lock_all(void);

/* New memory that is there, and locked if that is allowed, which `locked` becomes false where it is
 * not. NULL: there is none. */
void *memory_take(size_t size, bool *locked);
void memory_give_back(void *memory, size_t size);

#endif
