/* The worker's side of the table of flashes that are open for writing, see fs/state.h. */
#ifndef FWFS_FS_WRITERS_H
#define FWFS_FS_WRITERS_H

#include <stdbool.h>
#include <stdint.h>

#include "fs/state.h"

struct writers;

/* Takes up the table as the worker before left it. NULL when memory ran out. */
struct writers *writers_new(struct state *state);
void writers_free(struct writers *writers);

/* Says whether somebody has it open for writing; may be said again. */
void writers_set(struct writers *writers, uint64_t inode, bool open);
void writers_wrote(struct writers *writers, uint64_t inode);

/* Notes that a write was past the flash's end, so that the kernel has its size wrong; asks for it.
 */
void writers_overgrew(struct writers *writers, uint64_t inode);
bool writers_is_overgrown(struct writers *writers, uint64_t inode);

#endif
