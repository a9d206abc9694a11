/* Does all that can be done to the bytes of a file, at random, and compares each that it reads.
 *
 * fsx [-s SEED] [-n OPERATIONS] [-c COPY] FILE
 *
 * The file keeps its size. What it must hold is kept in memory beside it; the last comparison is of
 * the whole file, opened anew with nothing cached. COPY is written then: what the file must hold
 * after whatever the caller does next. Exits with 0 if all was right; else it prints the seed and
 * the last operations, and exits with 1. After an idea of Apple's and Linux' fsx. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096
#define LENGTH_MAX (64 * 1024)
#define TOLD 40 /* operations that are printed when one fails */

struct fsx;

struct operation {
    const char *name;
    unsigned weight;
    bool (*run)(struct fsx *fsx, size_t offset, size_t length);
};

struct step {
    const struct operation *operation;
    size_t offset, length;
};

static struct fsx {
    const char *path;
    int fd;
    uint8_t *map;      /* of the whole file, as long as it is open */
    uint8_t *expected; /* what the file must hold */
    uint8_t *original; /* what it held at first */
    uint8_t *found;    /* room for what is read */
    size_t size;
    uint64_t seed, random;
    uint64_t count; /* of operations so far */
    struct step last[TOLD];
} fsx_state;

static uint64_t next_random(struct fsx *fsx)
{
    fsx->random ^= fsx->random << 13;
    fsx->random ^= fsx->random >> 7;
    fsx->random ^= fsx->random << 17;
    return fsx->random;
}

/* Prints what led here, and returns false. */
static bool report(const struct fsx *fsx, const char *what)
{
    fprintf(stderr, "fsx: %s: %s, after %llu operations; seed %llu; the last ones:\n", fsx->path,
            what, (unsigned long long)fsx->count, (unsigned long long)fsx->seed);
    uint64_t first = fsx->count > TOLD ? fsx->count - TOLD : 0;
    for (uint64_t number = first; number < fsx->count; number++) {
        const struct step *step = &fsx->last[number % TOLD];
        fprintf(stderr, "  %8llu %-9s %#9zx +%#zx\n", (unsigned long long)number,
                step->operation->name, step->offset, step->length);
    }
    return false;
}

static bool report_errno(const struct fsx *fsx, const char *call)
{
    char text[128];
    snprintf(text, sizeof text, "%s: %s", call, strerror(errno));
    return report(fsx, text);
}

/* A page of the map that could not be read. */
static void bus_error(int number)
{
    report(&fsx_state, "SIGBUS");
    _exit(1);
}

static bool compare(const struct fsx *fsx, const uint8_t *found, size_t offset, size_t length)
{
    const uint8_t *expected = fsx->expected + offset;
    if (memcmp(found, expected, length) == 0)
        return true;
    size_t first = 0, wrong = 0;
    while (found[first] == expected[first])
        first++;
    for (size_t i = first; i < length; i++)
        wrong += found[i] != expected[i];
    char text[128];
    snprintf(text, sizeof text, "%zu wrong bytes from %#zx on: %#04x instead of %#04x", wrong,
             offset + first, found[first], expected[first]);
    return report(fsx, text);
}

/* New bytes into the copy in memory. Some are as the store treats apart: fill, and what the image
 * holds. */
static void invent(struct fsx *fsx, size_t offset, size_t length)
{
    uint8_t *bytes = fsx->expected + offset;
    switch (next_random(fsx) % 8) {
    case 0:
        memset(bytes, 0x00, length);
        return;
    case 1:
        memset(bytes, 0xFF, length);
        return;
    case 2:
        memcpy(bytes, fsx->original + offset, length);
        return;
    default:
        for (size_t i = 0; i < length; i++)
            bytes[i] = (uint8_t)next_random(fsx);
    }
}

static bool open_file(struct fsx *fsx)
{
    fsx->fd = open(fsx->path, O_RDWR | O_CLOEXEC);
    if (fsx->fd < 0)
        return report_errno(fsx, "open");
    fsx->map = mmap(NULL, fsx->size, PROT_READ | PROT_WRITE, MAP_SHARED, fsx->fd, 0);
    return fsx->map != MAP_FAILED || report_errno(fsx, "mmap");
}

static bool close_file(struct fsx *fsx)
{
    return (munmap(fsx->map, fsx->size) == 0 || report_errno(fsx, "munmap")) &&
           (close(fsx->fd) == 0 || report_errno(fsx, "close"));
}

/* ---- Operations ---- */

static bool do_read(struct fsx *fsx, size_t offset, size_t length)
{
    ssize_t n = pread(fsx->fd, fsx->found, length, (off_t)offset);
    if (n < 0)
        return report_errno(fsx, "pread");
    if ((size_t)n != length)
        return report(fsx, "a short read");
    return compare(fsx, fsx->found, offset, length);
}

static bool do_write(struct fsx *fsx, size_t offset, size_t length)
{
    invent(fsx, offset, length);
    ssize_t n = pwrite(fsx->fd, fsx->expected + offset, length, (off_t)offset);
    if (n < 0)
        return report_errno(fsx, "pwrite");
    return (size_t)n == length || report(fsx, "a short write");
}

static bool do_map_read(struct fsx *fsx, size_t offset, size_t length)
{
    /* Once: what is compared and what is reported must be the same. */
    memcpy(fsx->found, fsx->map + offset, length);
    return compare(fsx, fsx->found, offset, length);
}

static bool do_map_write(struct fsx *fsx, size_t offset, size_t length)
{
    invent(fsx, offset, length);
    memcpy(fsx->map + offset, fsx->expected + offset, length);
    return true;
}

static bool do_msync(struct fsx *fsx, size_t offset, size_t length)
{
    size_t start = offset / PAGE * PAGE;
    return msync(fsx->map + start, offset - start + length, MS_SYNC) == 0 ||
           report_errno(fsx, "msync");
}

static bool do_fsync(struct fsx *fsx, size_t offset, size_t length)
{
    return fsync(fsx->fd) == 0 || report_errno(fsx, "fsync");
}

static bool do_fdatasync(struct fsx *fsx, size_t offset, size_t length)
{
    return fdatasync(fsx->fd) == 0 || report_errno(fsx, "fdatasync");
}

static bool do_reopen(struct fsx *fsx, size_t offset, size_t length)
{
    return close_file(fsx) && open_file(fsx);
}

/* The kernel drops what is clean, and starts to write the rest. */
static bool do_drop(struct fsx *fsx, size_t offset, size_t length)
{
    int r = posix_fadvise(fsx->fd, (off_t)offset, (off_t)length, POSIX_FADV_DONTNEED);
    errno = r;
    return r == 0 || report_errno(fsx, "posix_fadvise");
}

static const struct operation operations[] = {
    {"read", 260, do_read},          {"write", 340, do_write}, {"mapread", 150, do_map_read},
    {"mapwrite", 200, do_map_write}, {"msync", 10, do_msync},  {"fsync", 5, do_fsync},
    {"fdatasync", 5, do_fdatasync},  {"reopen", 5, do_reopen}, {"drop", 25, do_drop},
};
#define OPERATION_COUNT (sizeof operations / sizeof operations[0])

static const struct operation *choose(struct fsx *fsx)
{
    unsigned sum = 0;
    for (size_t i = 0; i < OPERATION_COUNT; i++)
        sum += operations[i].weight;
    unsigned at = (unsigned)(next_random(fsx) % sum);
    const struct operation *chosen = operations;
    while (at >= chosen->weight)
        at -= chosen++->weight;
    return chosen;
}

/* From a byte to LENGTH_MAX, the small ones as often as the large; half of them in whole pages. */
static struct step next_step(struct fsx *fsx)
{
    size_t limit = (size_t)1 << (next_random(fsx) % 17);
    size_t length = 1 + next_random(fsx) % (limit < LENGTH_MAX ? limit : LENGTH_MAX);
    size_t offset = next_random(fsx) % fsx->size;
    if (next_random(fsx) % 2) {
        offset = offset / PAGE * PAGE;
        length = (length + PAGE - 1) / PAGE * PAGE;
    }
    if (length > fsx->size - offset)
        length = fsx->size - offset;
    return (struct step){choose(fsx), offset, length};
}

static bool exercise(struct fsx *fsx, uint64_t operation_count)
{
    while (fsx->count < operation_count) {
        struct step step = next_step(fsx);
        fsx->last[fsx->count++ % TOLD] = step;
        if (!step.operation->run(fsx, step.offset, step.length))
            return false;
    }
    return true;
}

static bool compare_all(struct fsx *fsx)
{
    return do_fsync(fsx, 0, 0) && close_file(fsx) && open_file(fsx) && do_drop(fsx, 0, 0) &&
           do_read(fsx, 0, fsx->size) && do_map_read(fsx, 0, fsx->size) && close_file(fsx);
}

static bool write_copy(const struct fsx *fsx, const char *path)
{
    FILE *copy = fopen(path, "w");
    if (!copy)
        return report_errno(fsx, path);
    bool written = fwrite(fsx->expected, 1, fsx->size, copy) == fsx->size;
    return (fclose(copy) == 0 && written) || report_errno(fsx, path);
}

static bool prepare(struct fsx *fsx)
{
    struct stat st;
    if (stat(fsx->path, &st) < 0)
        return report_errno(fsx, "stat");
    fsx->size = (size_t)st.st_size;
    fsx->random = fsx->seed * UINT64_C(0x9E3779B97F4A7C15) + 1;
    fsx->expected = malloc(fsx->size);
    fsx->original = malloc(fsx->size);
    fsx->found = malloc(fsx->size);
    if (!fsx->expected || !fsx->original || !fsx->found)
        return report_errno(fsx, "malloc");
    signal(SIGBUS, bus_error);
    if (!open_file(fsx))
        return false;
    if (pread(fsx->fd, fsx->original, fsx->size, 0) != st.st_size)
        return report_errno(fsx, "the first read");
    memcpy(fsx->expected, fsx->original, fsx->size);
    return true;
}

int main(int argc, char **argv)
{
    struct fsx *fsx = &fsx_state;
    uint64_t operation_count = 1000;
    const char *copy = NULL;
    for (int option; (option = getopt(argc, argv, "s:n:c:")) != -1;) {
        if (option == 's')
            fsx->seed = strtoull(optarg, NULL, 10);
        else if (option == 'n')
            operation_count = strtoull(optarg, NULL, 10);
        else if (option == 'c')
            copy = optarg;
        else
            return 2;
    }
    if (argc != optind + 1) {
        fprintf(stderr, "usage: fsx [-s SEED] [-n OPERATIONS] [-c COPY] FILE\n");
        return 2;
    }
    fsx->path = argv[optind];
    bool right = prepare(fsx) && exercise(fsx, operation_count) && compare_all(fsx) &&
                 (!copy || write_copy(fsx, copy));
    free(fsx->expected);
    free(fsx->original);
    free(fsx->found);
    return right ? 0 : 1;
}
