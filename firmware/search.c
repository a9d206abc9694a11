#include "firmware/search.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"

struct candidate {
    char *path;
    size_t name;      /* where the file's name begins in path */
    size_t directory; /* the higher, the more specific */
    bool empty;
};

struct candidates {
    struct candidate *items;
    size_t count, room;
};

static void clear_candidates(struct candidates *candidates)
{
    for (size_t i = 0; i < candidates->count; i++)
        free(candidates->items[i].path);
    free(candidates->items);
}

static int add_candidate(struct candidates *candidates, const char *directory, size_t rank,
                         const char *name, bool empty)
{
    if (candidates->count == candidates->room) {
        size_t room = candidates->room ? 2 * candidates->room : 16;
        void *items = reallocarray(candidates->items, room, sizeof *candidates->items);
        if (!items)
            return -ENOMEM;
        candidates->items = items;
        candidates->room = room;
    }
    char *path;
    if (asprintf(&path, "%s/%s", directory, name) < 0)
        return -ENOMEM;
    candidates->items[candidates->count++] = (struct candidate){
        .path = path, .name = strlen(directory) + 1, .directory = rank, .empty = empty};
    return 0;
}

static void close_directory(DIR **directory)
{
    if (*directory)
        closedir(*directory);
}

static bool is_descriptor_name(const char *name)
{
    const char *suffix = strrchr(name, '.');
    return name[0] != '.' && suffix && strcmp(suffix, ".json") == 0;
}

static int scan_directory(struct candidates *candidates, const char *path, size_t rank,
                          struct error *err)
{
    cleanup(close_directory) DIR *directory = opendir(path);
    if (!directory && (errno == ENOENT || errno == ENOTDIR))
        return 0;
    if (!directory)
        return error_set(err, -errno, "%s: %s", path, strerror(errno));
    for (;;) {
        errno = 0;
        struct dirent *entry = readdir(directory);
        if (!entry)
            return errno ? error_set(err, -errno, "%s: %s", path, strerror(errno)) : 0;
        /* What cannot be looked at is a dangling link, or was removed just now. */
        struct stat st;
        if (!is_descriptor_name(entry->d_name) ||
            fstatat(dirfd(directory), entry->d_name, &st, 0) < 0 || !S_ISREG(st.st_mode))
            continue;
        if (add_candidate(candidates, path, rank, entry->d_name, st.st_size == 0) < 0)
            return error_set(err, -ENOMEM, "%s: %s", path, strerror(ENOMEM));
    }
}

/* By name; of one name, the most specific directory's first. */
static int compare(const void *a, const void *b)
{
    const struct candidate *left = a, *right = b;
    int order = strcmp(left->path + left->name, right->path + right->name);
    return order ? order
                 : (left->directory < right->directory) - (left->directory > right->directory);
}

int search_directories(const char *const *directories, size_t count, struct search_result *ret,
                       struct error *err)
{
    cleanup(clear_candidates) struct candidates found = {.count = 0};
    for (size_t i = 0; i < count; i++) {
        int r = scan_directory(&found, directories[i], i, err);
        if (r < 0)
            return r;
    }
    *ret = (struct search_result){.count = 0};
    if (found.count == 0)
        return 0;
    qsort(found.items, found.count, sizeof *found.items, compare);

    ret->paths = calloc(found.count, sizeof *ret->paths);
    if (!ret->paths)
        return error_set(err, -ENOMEM, "%s", strerror(ENOMEM));
    const char *previous = "";
    for (size_t i = 0; i < found.count; i++) {
        struct candidate *item = &found.items[i];
        const char *name = item->path + item->name;
        if (strcmp(name, previous) != 0 && !item->empty)
            ret->paths[ret->count++] = strdup(item->path);
        previous = name;
    }
    for (size_t i = 0; i < ret->count; i++) {
        if (!ret->paths[i]) {
            search_result_clear(ret);
            return error_set(err, -ENOMEM, "%s", strerror(ENOMEM));
        }
    }
    return 0;
}

/* $XDG_CONFIG_HOME/qemu/firmware; NULL in *ret where there is no such place. The XDG specification
 * has relative paths ignored. */
static int user_directory(char **ret)
{
    const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    *ret = NULL;
    int r = 0;
    if (config && config[0] == '/')
        r = asprintf(ret, "%s/qemu/firmware", config);
    else if (home && home[0] == '/')
        r = asprintf(ret, "%s/.config/qemu/firmware", home);
    if (r < 0)
        *ret = NULL;
    return r < 0 ? -ENOMEM : 0;
}

int search_descriptors(struct search_result *ret, struct error *err)
{
    cleanup_free char *user = NULL;
    if (geteuid() != 0 && user_directory(&user) < 0)
        return error_set(err, -ENOMEM, "%s", strerror(ENOMEM));
    const char *directories[] = {"/usr/share/qemu/firmware", "/etc/qemu/firmware", user};
    return search_directories(directories, user ? 3 : 2, ret, err);
}

void search_result_clear(struct search_result *result)
{
    for (size_t i = 0; i < result->count; i++)
        free(result->paths[i]);
    free(result->paths);
    *result = (struct search_result){.count = 0};
}
