/* SQLite's default VFS and allocator with faults: calls that fail, and power cuts. For tests of one
 * thread. */
#ifndef FWFS_TESTS_UNIT_FAULTY_VFS_H
#define FWFS_TESTS_UNIT_FAULTY_VFS_H

#include <stdbool.h>
#include <stdint.h>

/* Must be called before anything else of SQLite or of the store. */
void faulty_install(void);

/* ---- Calls that fail ---- */

enum {
    FAULTY_OPEN = 1 << 0,
    FAULTY_READ = 1 << 1,
    FAULTY_WRITE = 1 << 2,
    FAULTY_SYNC = 1 << 3,
    FAULTY_TRUNCATE = 1 << 4,
    FAULTY_DELETE = 1 << 5,
    FAULTY_MAP = 1 << 6, /* of shared memory */
    FAULTY_ALLOCATE = 1 << 7,
};

/* Lets the nth call (from 1) of these kinds fail, and with `stays` all that follow. */
void faulty_fail(unsigned kinds, uint64_t nth, bool stays);

/* Ends it; true if a call failed. */
bool faulty_stop(void);

/* ---- Power cuts ----
 *
 * Once the power is on, what is written to a file but not yet synced is known, and a cut loses it
 * in part: each sector comes to hold what it did after one of the writes since the last sync, or
 * before them. */

void faulty_power_on(void);

/* How many writes, syncs, truncations and deletions there were since. */
uint64_t faulty_count(void);

/* The nth of them is not done or only begun, and from then on everything fails. */
void faulty_cut_at(uint64_t nth);

/* Makes of the files what is left after the cut. Nothing may have them open. */
void faulty_power_off(uint64_t seed);

#endif
