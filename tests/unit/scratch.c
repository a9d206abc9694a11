#include "scratch.h"

#include <dirent.h>
#include <ftw.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "testing.h"

static char directory[] = "/tmp/fwfs-unit-XXXXXX";

int scratch_enter(void **state)
{
    memcpy(directory + sizeof directory - 7, "XXXXXX", 6);
    /* 0755: what runs as another user must get in. */
    return !mkdtemp(directory) || chmod(directory, 0755) < 0 || chdir(directory) < 0;
}

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    return remove(path);
}

int scratch_leave(void **state)
{
    return chdir("/") < 0 || nftw(directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS) < 0;
}

void scratch_write(const char *name, const void *bytes, size_t size)
{
    FILE *file = fopen(name, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

void scratch_write_text(const char *name, const char *text)
{
    scratch_write(name, text, strlen(text));
}

char *scratch_write_pattern(const char *name, size_t size)
{
    char *bytes = malloc(size);
    assert_non_null(bytes);
    uint32_t value = 1;
    for (size_t i = 0; i < size; i++) {
        value = value * 1664525 + 1013904223;
        bytes[i] = (char)(value >> 24);
    }
    scratch_write(name, bytes, size);
    return bytes;
}

size_t scratch_count(const char *path)
{
    DIR *entries = opendir(path);
    assert_non_null(entries);
    size_t count = 0;
    for (struct dirent *entry; (entry = readdir(entries));)
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(entries);
    return count;
}
