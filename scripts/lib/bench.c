/* What scripts/bench measures with: one piece of work on files, timed where it is done.
 *
 * bench replay FILE TRACE SECONDS
 *     The writes of TRACE, which has a line "OFFSET LENGTH" for each, then fsync and close. SECONDS
 *     above 0 stretches the writes over that time. Prints the ns of open, read (of the whole file),
 *     writes, fsync and close. Afterwards the file must hold what was written.
 * bench read SIZE FILE...
 *     Opens, reads and closes each. Prints a line for each: the ns of open, read and close.
 * bench touch FILE...
 *     Opens each, reads a block, writes it otherwise, syncs and closes. Prints a line for each: the
 *     ns of open and read, of write and fsync, and of close.
 * bench writers SECONDS FILE...
 *     A thread for each: 4 KiB and an fsync, again and again. Prints how many, and the ns.
 * bench open
 *     Opens each file named on stdin and locks it as QEMU does; all stay open to the end. Prints
 *     the ns of it all.
 * bench walk keep|drop
 *     Reads each file named on stdin, and keeps or drops what the page cache then has of it. Prints
 *     the ns of it all.
 *
 * The first thing that fails ends it with a line on stderr and exit code 1. */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SECTOR 512
#define BLOCK 4096
#define NS_PER_SECOND INT64_C(1000000000)
/* Each writer goes round these, as a guest that rewrites its variables. */
#define BLOCKS_OF_WRITER 4
/* QEMU's permission locks (block/file-posix.c): that it reads, and that others may. */
#define QEMU_LOCK_FIRST 100
#define QEMU_LOCK_SECOND 101

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * NS_PER_SECOND + now.tv_nsec;
}

static void sleep_until(int64_t ns)
{
    struct timespec when = {.tv_sec = ns / NS_PER_SECOND, .tv_nsec = ns % NS_PER_SECOND};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, NULL);
}

static void *allocate(size_t size)
{
    void *memory = malloc(size);
    if (!memory)
        err(1, "malloc");
    /* Its pages are there before anything is timed. */
    return memset(memory, 1, size);
}

static int open_file(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC);
    if (fd < 0)
        err(1, "%s: open", path);
    return fd;
}

static size_t size_of(const char *path)
{
    struct stat st;
    if (stat(path, &st) < 0)
        err(1, "%s: stat", path);
    return (size_t)st.st_size;
}

static void read_whole(int fd, const char *path, uint8_t *buffer, size_t size)
{
    ssize_t n = pread(fd, buffer, size, 0);
    if (n < 0 || (size_t)n != size)
        err(1, "%s: read", path);
}

/* ---- replay ---- */

struct write {
    size_t offset, length;
};

struct trace {
    struct write *writes;
    size_t count;
};

static struct trace read_trace(const char *path, size_t file_size)
{
    struct trace trace = {0};
    size_t room = 0;
    FILE *file = fopen(path, "re");
    if (!file)
        err(1, "%s", path);
    struct write next;
    while (fscanf(file, "%zu %zu", &next.offset, &next.length) == 2) {
        if (next.length == 0 || next.length > file_size || next.offset > file_size - next.length)
            errx(1, "%s: write %zu is not within the file", path, trace.count + 1);
        if (trace.count == room) {
            room = room ? 2 * room : 1024;
            trace.writes = reallocarray(trace.writes, room, sizeof *trace.writes);
            if (!trace.writes)
                err(1, "malloc");
        }
        trace.writes[trace.count++] = next;
    }
    if (!feof(file) || trace.count == 0)
        errx(1, "%s: line %zu is not 'OFFSET LENGTH'", path, trace.count + 1);
    fclose(file);
    return trace;
}

/* Each write brings one more byte of its sector, as a flash is programmed. */
static void program_next(uint8_t *flash, uint16_t *programmed, const struct write *write)
{
    size_t sector = write->offset / SECTOR;
    size_t at = programmed[sector]++ % write->length;
    flash[write->offset + at] = (uint8_t)(0x55 + 7 * at + sector);
}

static void check_replayed(const char *path, const uint8_t *flash, size_t size)
{
    uint8_t *found = allocate(size);
    int fd = open_file(path, O_RDONLY);
    read_whole(fd, path, found, size);
    close(fd);
    if (memcmp(found, flash, size) != 0)
        errx(1, "%s: what is read is not what was written", path);
    free(found);
}

static void replay(const char *path, const char *trace_path, double seconds)
{
    size_t size = size_of(path);
    struct trace trace = read_trace(trace_path, size);
    uint8_t *flash = allocate(size);
    uint16_t *programmed = calloc(size / SECTOR + 1, sizeof *programmed);
    if (!programmed)
        err(1, "malloc");
    int64_t step = (int64_t)(seconds * (double)NS_PER_SECOND / (double)trace.count);

    int64_t start = now_ns();
    int fd = open_file(path, O_RDWR);
    int64_t opened = now_ns();
    read_whole(fd, path, flash, size);
    int64_t begun = now_ns();
    for (size_t i = 0; i < trace.count; i++) {
        const struct write *write = &trace.writes[i];
        if (step > 0)
            sleep_until(begun + step * (int64_t)i);
        program_next(flash, programmed, write);
        ssize_t n = pwrite(fd, flash + write->offset, write->length, (off_t)write->offset);
        if (n < 0 || (size_t)n != write->length)
            err(1, "%s: write", path);
    }
    int64_t written = now_ns();
    if (fsync(fd) < 0)
        err(1, "%s: fsync", path);
    int64_t synced = now_ns();
    if (close(fd) < 0)
        err(1, "%s: close", path);
    int64_t closed = now_ns();

    check_replayed(path, flash, size);
    printf("%jd %jd %jd %jd %jd\n", (intmax_t)(opened - start), (intmax_t)(begun - opened),
           (intmax_t)(written - begun), (intmax_t)(synced - written), (intmax_t)(closed - synced));
    free(programmed);
    free(flash);
    free(trace.writes);
}

/* ---- read ---- */

/* The size is given: a stat would look up the names, which is part of what open() costs a guest. */
static void read_files(size_t size, char **paths, int count)
{
    int64_t times[4];
    uint8_t *buffer = allocate(size);
    for (int i = 0; i < count; i++) {
        times[0] = now_ns();
        int fd = open_file(paths[i], O_RDONLY);
        times[1] = now_ns();
        read_whole(fd, paths[i], buffer, size);
        times[2] = now_ns();
        if (close(fd) < 0)
            err(1, "%s: close", paths[i]);
        times[3] = now_ns();
        printf("%jd %jd %jd\n", (intmax_t)(times[1] - times[0]), (intmax_t)(times[2] - times[1]),
               (intmax_t)(times[3] - times[2]));
    }
    free(buffer);
}

/* ---- touch ---- */

static void touch_files(char **paths, int count)
{
    uint8_t block[BLOCK];
    for (int i = 0; i < count; i++) {
        int64_t start = now_ns();
        int fd = open_file(paths[i], O_RDWR);
        read_whole(fd, paths[i], block, sizeof block);
        int64_t have = now_ns();
        block[BLOCK - 1]++;
        if (pwrite(fd, block, sizeof block, 0) != (ssize_t)sizeof block || fsync(fd) < 0)
            err(1, "%s: write", paths[i]);
        int64_t synced = now_ns();
        if (close(fd) < 0)
            err(1, "%s: close", paths[i]);
        printf("%jd %jd %jd\n", (intmax_t)(have - start), (intmax_t)(synced - have),
               (intmax_t)(now_ns() - synced));
    }
}

/* ---- writers ---- */

struct writer {
    const char *path;
    pthread_barrier_t *start;
    int64_t duration;
    atomic_uint_fast64_t *done;
};

static void *write_and_sync(void *data)
{
    const struct writer *writer = data;
    uint8_t block[BLOCK];
    memset(block, 0x5A, sizeof block);
    int fd = open_file(writer->path, O_RDWR);
    pthread_barrier_wait(writer->start);
    int64_t end = now_ns() + writer->duration;
    uint64_t i = 0;
    for (; now_ns() < end; i++) {
        memcpy(block, &i, sizeof i);
        off_t offset = (off_t)(i % BLOCKS_OF_WRITER * BLOCK);
        if (pwrite(fd, block, sizeof block, offset) != (ssize_t)sizeof block)
            err(1, "%s: write", writer->path);
        if (fsync(fd) < 0)
            err(1, "%s: fsync", writer->path);
    }
    *writer->done += i;
    if (close(fd) < 0)
        err(1, "%s: close", writer->path);
    return NULL;
}

static void run_writers(double seconds, char **paths, int count)
{
    pthread_barrier_t start;
    atomic_uint_fast64_t done = 0;
    struct writer *writers = allocate((size_t)count * sizeof *writers);
    pthread_t *threads = allocate((size_t)count * sizeof *threads);
    pthread_barrier_init(&start, NULL, (unsigned)count + 1);
    for (int i = 0; i < count; i++) {
        writers[i] = (struct writer){.path = paths[i],
                                     .start = &start,
                                     .duration = (int64_t)(seconds * (double)NS_PER_SECOND),
                                     .done = &done};
        if (pthread_create(&threads[i], NULL, write_and_sync, &writers[i]) != 0)
            errx(1, "no thread could be started");
    }
    pthread_barrier_wait(&start);
    int64_t began = now_ns();
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    printf("%ju %jd\n", (uintmax_t)done, (intmax_t)(now_ns() - began));
    pthread_barrier_destroy(&start);
    free(threads);
    free(writers);
}

/* ---- many files ---- */

/* The next line of stdin without its end; NULL when there is none. */
static char *next_path(void)
{
    static char *line;
    static size_t room;
    ssize_t length = getline(&line, &room, stdin);
    if (length <= 0)
        return NULL;
    line[length - 1] = '\0';
    return line;
}

static void lock_as_qemu(int fd, const char *path)
{
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_len = 1};
    lock.l_start = QEMU_LOCK_FIRST;
    if (fcntl(fd, F_OFD_SETLK, &lock) < 0)
        err(1, "%s: lock", path);
    lock.l_start = QEMU_LOCK_SECOND;
    if (fcntl(fd, F_OFD_SETLK, &lock) < 0)
        err(1, "%s: lock", path);
}

static void open_all(void)
{
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    const char *path;
    int64_t spent = 0;
    while ((path = next_path())) {
        int64_t began = now_ns();
        lock_as_qemu(open_file(path, O_RDONLY), path);
        spent += now_ns() - began;
    }
    printf("%jd\n", (intmax_t)spent);
}

/* A fleet's flashes would fill the page cache, so they can be dropped. */
static void walk(int drop)
{
    static uint8_t buffer[1 << 20];
    const char *path;
    int64_t spent = 0;
    while ((path = next_path())) {
        int64_t began = now_ns();
        int fd = open_file(path, O_RDONLY);
        ssize_t n;
        while ((n = read(fd, buffer, sizeof buffer)) > 0)
            ;
        if (n < 0)
            err(1, "%s: read", path);
        spent += now_ns() - began;
        if (drop)
            posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        close(fd);
    }
    printf("%jd\n", (intmax_t)spent);
}

int main(int argc, char **argv)
{
    const char *work = argc > 1 ? argv[1] : "";
    if (strcmp(work, "replay") == 0 && argc == 5)
        replay(argv[2], argv[3], strtod(argv[4], NULL));
    else if (strcmp(work, "read") == 0 && argc > 3)
        read_files(strtoul(argv[2], NULL, 10), argv + 3, argc - 3);
    else if (strcmp(work, "touch") == 0 && argc > 2)
        touch_files(argv + 2, argc - 2);
    else if (strcmp(work, "writers") == 0 && argc > 3)
        run_writers(strtod(argv[2], NULL), argv + 3, argc - 3);
    else if (strcmp(work, "open") == 0 && argc == 2)
        open_all();
    else if (strcmp(work, "walk") == 0 && argc == 3)
        walk(strcmp(argv[2], "drop") == 0);
    else
        errx(2, "the head of bench.c says what it takes");
    return 0;
}
