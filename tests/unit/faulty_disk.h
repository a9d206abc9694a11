/* What of a file's changes is on the disk for sure, and what a power cut may make of the rest. */
#ifndef FWFS_TESTS_UNIT_FAULTY_DISK_H
#define FWFS_TESTS_UNIT_FAULTY_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct disk_file;

/* The file of this name. The first time, what there is of it is taken to be on the disk. */
struct disk_file *disk_open(const char *name);

void disk_write(struct disk_file *file, const void *bytes, size_t size, size_t offset);
void disk_truncate(struct disk_file *file, size_t size);
void disk_delete(struct disk_file *file, bool sync_directory);
void disk_sync(struct disk_file *file);

/* Makes of each file what is left after a power cut, and forgets them. */
void disk_lose(uint64_t seed);

#endif
