/* A directory for a test's files, which is the working directory while the test runs. */
#ifndef FWFS_TESTS_UNIT_SCRATCH_H
#define FWFS_TESTS_UNIT_SCRATCH_H

#include <stddef.h>

/* cmocka's fixture: makes the directory, enters it, and removes it with all that is in it. */
int scratch_enter(void **state);
int scratch_leave(void **state);

/* Makes or replaces a file. */
void scratch_write(const char *name, const void *bytes, size_t size);
void scratch_write_text(const char *name, const char *text);

/* Makes a file of `size` bytes that do not repeat, block by block. The caller frees them. */
char *scratch_write_pattern(const char *name, size_t size);

/* How many entries a directory has. */
size_t scratch_count(const char *directory);

#endif
