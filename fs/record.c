#include "fs/record.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"

#define RECORD_SIZE_MAX (4 * PATH_MAX)

static int open_record(const char *store, int flags, struct error *err)
{
    cleanup_free char *path = NULL;
    if (asprintf(&path, "%s-mount", store) < 0)
        return error_set(err, -ENOMEM, "out of memory");
    int fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
    return fd < 0 ? error_set(err, -errno, "%s: %m", path) : fd;
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

/* False if the file was removed by its last holder between opening and locking it. */
static bool is_there(int fd, const char *store)
{
    cleanup_fd int now = open_record(store, O_RDONLY, NULL);
    struct stat a, b;
    return now >= 0 && fstat(fd, &a) == 0 && fstat(now, &b) == 0 && a.st_ino == b.st_ino;
}

int record_acquire(const char *store, struct error *err)
{
    for (;;) {
        cleanup_fd int fd = open_record(store, O_RDWR | O_CREAT, err);
        if (fd < 0)
            return fd;
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        if (fcntl(fd, F_OFD_SETLK, &lock) == 0) {
            if (is_there(fd, store))
                return steal_fd(&fd);
            continue;
        }
        if (errno != EAGAIN && errno != EACCES)
            return error_set(err, -errno, "%s-mount: %m", store);
        struct record holder;
        parse(fd, &holder);
        return error_set(err, -EBUSY,
                         "the store is mounted already, at %s by process %d; unmount that first",
                         holder.mountpoint, (int)holder.supervisor);
    }
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

void record_remove(const char *store)
{
    cleanup_free char *path = NULL;
    if (asprintf(&path, "%s-mount", store) >= 0)
        unlink(path);
}

int record_read(const char *store, struct record *ret, struct error *err)
{
    struct error unsaid = {0};
    cleanup_fd int fd = open_record(store, O_RDONLY, &unsaid);
    if (fd == -ENOENT)
        return 0;
    if (fd < 0)
        return error_set(err, fd, "%s", unsaid.text);
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    if (fcntl(fd, F_OFD_GETLK, &lock) < 0)
        return error_set(err, -errno, "%s-mount: %m", store);
    if (lock.l_type == F_UNLCK)
        return 0;
    parse(fd, ret);
    return ret->supervisor != 0;
}
