#include "fs/record.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <libgen.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"

#define RECORD_SIZE_MAX (4 * PATH_MAX)

/* The read-write mount's; those of read-only ones count from there. */
#define NUMBER_READ_WRITE 0U

/* ---- Files ---- */

static char *record_path(const char *store, unsigned number)
{
    char *path;
    int n = number == NUMBER_READ_WRITE ? asprintf(&path, "%s-mount", store)
                                        : asprintf(&path, "%s-mount-%u", store, number);
    return n < 0 ? NULL : path;
}

static int open_record(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
    return fd < 0 ? -errno : fd;
}

static int64_t get_integer(const struct json_object *object, const char *name)
{
    return json_object_get_int64(json_object_object_get(object, name));
}

static void parse(int fd, struct record *ret)
{
    char text[RECORD_SIZE_MAX];
    ssize_t n = pread(fd, text, sizeof text - 1, 0);
    *ret = (struct record){0};
    if (n <= 0)
        return;
    text[n] = '\0';
    cleanup_json struct json_object *object = json_tokener_parse(text);
    const char *mountpoint = json_object_get_string(json_object_object_get(object, "mountpoint"));
    snprintf(ret->mountpoint, sizeof ret->mountpoint, "%s", mountpoint ? mountpoint : "");
    ret->supervisor = (pid_t)get_integer(object, "supervisor");
    ret->worker = (pid_t)get_integer(object, "worker");
    ret->mounted_at = get_integer(object, "mounted_at");
    ret->restarts = (uint32_t)get_integer(object, "restarts");
    ret->upgrades = (uint32_t)get_integer(object, "upgrades");
    ret->failed_upgrades = (uint32_t)get_integer(object, "failed_upgrades");
}

void record_write(int fd, const struct record *record)
{
    cleanup_json struct json_object *object = json_object_new_object();
    json_add(object, "mountpoint", json_object_new_string(record->mountpoint));
    json_add(object, "supervisor", json_object_new_int64(record->supervisor));
    json_add(object, "worker", json_object_new_int64(record->worker));
    json_add(object, "mounted_at", json_object_new_int64(record->mounted_at));
    json_add(object, "restarts", json_object_new_int64(record->restarts));
    json_add(object, "upgrades", json_object_new_int64(record->upgrades));
    json_add(object, "failed_upgrades", json_object_new_int64(record->failed_upgrades));
    const char *text = json_object_to_json_string(object);
    size_t size = strlen(text);
    /* Whoever reads in between sees a text that does not parse, or the one before. */
    if (pwrite(fd, text, size, 0) == (ssize_t)size && ftruncate(fd, (off_t)size) == 0)
        return;
}

void record_remove(int fd)
{
    char link[32], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0)
        return;
    path[n] = '\0';
    unlink(path);
}

/* ---- Taking one ---- */

/* False if the file was removed by its last holder between opening and locking it. */
static bool is_there(int fd, const char *path)
{
    cleanup_fd int now = open_record(path, O_RDONLY);
    struct stat a, b;
    return now >= 0 && fstat(fd, &a) == 0 && fstat(now, &b) == 0 && a.st_ino == b.st_ino;
}

/* A descriptor; -EBUSY and the record of who has it. */
static int acquire(const char *path, struct record *holder, struct error *err)
{
    for (;;) {
        cleanup_fd int fd = open_record(path, O_RDWR | O_CREAT);
        if (fd < 0)
            return error_set(err, fd, "%s: %s", path, strerror(-fd));
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        if (fcntl(fd, F_OFD_SETLK, &lock) == 0) {
            if (is_there(fd, path))
                return steal_fd(&fd);
            continue;
        }
        if (errno != EAGAIN && errno != EACCES)
            return error_set(err, -errno, "%s: %m", path);
        parse(fd, holder);
        return -EBUSY;
    }
}

int record_acquire(const char *store, bool read_only, struct error *err)
{
    struct record holder;
    for (unsigned number = NUMBER_READ_WRITE + read_only;; number++) {
        cleanup_free char *path = record_path(store, number);
        if (!path)
            return error_set(err, -ENOMEM, "out of memory");
        int r = acquire(path, &holder, err);
        if (r == -EBUSY && read_only)
            continue;
        if (r == -EBUSY)
            error_set(err, r,
                      "the store is mounted already, at %s by process %d; unmount that first, or "
                      "mount this one read-only with '-o ro'",
                      holder.mountpoint, (int)holder.supervisor);
        return r;
    }
}

/* ---- Reading them ---- */

/* 1 and the record of a mount that lives; else 0. */
static int read_file(const char *path, struct record *ret, struct error *err)
{
    cleanup_fd int fd = open_record(path, O_RDONLY);
    if (fd == -ENOENT)
        return 0;
    if (fd < 0)
        return error_set(err, fd, "%s: %s", path, strerror(-fd));
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    if (fcntl(fd, F_OFD_GETLK, &lock) < 0)
        return error_set(err, -errno, "%s: %m", path);
    if (lock.l_type == F_UNLCK)
        return 0;
    parse(fd, ret);
    return ret->supervisor != 0;
}

int record_read(const char *store, struct record *ret, struct error *err)
{
    /* It is beside the store itself, by whichever name that is called. */
    cleanup_free char *resolved = realpath(store, NULL);
    cleanup_free char *path = resolved ? record_path(resolved, NUMBER_READ_WRITE) : NULL;
    if (!path)
        return error_set(err, -errno, "%s: %m", store);
    return read_file(path, ret, err);
}

/* The number in a name that is a record's, or -1. */
static long number_of(const char *name, const char *store_name)
{
    size_t length = strlen(store_name);
    unsigned number;
    int end = 0;
    if (strncmp(name, store_name, length) != 0)
        return -1;
    name += length;
    if (strcmp(name, "-mount") == 0)
        return NUMBER_READ_WRITE;
    return sscanf(name, "-mount-%u%n", &number, &end) == 1 && !name[end] ? (long)number : -1;
}

static int compare_numbers(const void *a, const void *b)
{
    const unsigned *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static void closedirp(DIR **directory)
{
    if (*directory)
        closedir(*directory);
}

/* The numbers of all that is there, alive or not, in order. */
static ssize_t find_numbers(const char *store, unsigned **ret, struct error *err)
{
    cleanup_free char *for_directory = strdup(store);
    cleanup_free char *for_name = strdup(store);
    if (!for_directory || !for_name)
        return error_set(err, -ENOMEM, "out of memory");
    const char *directory = dirname(for_directory), *name = basename(for_name);
    cleanup(closedirp) DIR *entries = opendir(directory);
    if (!entries)
        return error_set(err, -errno, "%s: %m", directory);
    cleanup_free unsigned *numbers = NULL;
    size_t count = 0;
    const struct dirent *entry;
    while ((entry = readdir(entries))) {
        long number = number_of(entry->d_name, name);
        if (number < 0)
            continue;
        unsigned *longer = reallocarray(numbers, count + 1, sizeof *numbers);
        if (!longer)
            return error_set(err, -ENOMEM, "out of memory");
        numbers = longer;
        numbers[count++] = (unsigned)number;
    }
    if (count > 0)
        qsort(numbers, count, sizeof *numbers, compare_numbers);
    *ret = steal_ptr(numbers);
    return (ssize_t)count;
}

ssize_t record_list(const char *store, struct record **ret, struct error *err)
{
    cleanup_free char *resolved = realpath(store, NULL);
    cleanup_free unsigned *numbers = NULL;
    if (!resolved)
        return error_set(err, -errno, "%s: %m", store);
    ssize_t found = find_numbers(resolved, &numbers, err);
    if (found < 0)
        return found;
    cleanup_free struct record *records = calloc((size_t)found + 1, sizeof *records);
    if (!records)
        return error_set(err, -ENOMEM, "out of memory");
    size_t count = 0;
    for (ssize_t i = 0; i < found; i++) {
        cleanup_free char *path = record_path(resolved, numbers[i]);
        int r =
            path ? read_file(path, &records[count], err) : error_set(err, -ENOMEM, "out of memory");
        if (r < 0)
            return r;
        records[count].read_only = numbers[i] != NUMBER_READ_WRITE;
        count += (size_t)r;
    }
    *ret = steal_ptr(records);
    return (ssize_t)count;
}

int record_find(const char *store, const char *mountpoint, bool read_only, struct record *ret,
                struct error *err)
{
    cleanup_free struct record *records = NULL;
    ssize_t count = record_list(store, &records, err);
    for (ssize_t i = 0; i < count; i++) {
        if (records[i].read_only != read_only || strcmp(records[i].mountpoint, mountpoint) != 0)
            continue;
        *ret = records[i];
        return 1;
    }
    return count < 0 ? (int)count : 0;
}
