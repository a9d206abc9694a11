/* A copy of a store that is in use.
 *
 * VACUUM INTO copies what one read transaction sees and keeps the page size, what is reserved of a
 * page, auto_vacuum and the ids; it leaves out free pages. The backup API would start afresh with
 * each commit of another process. While it runs the log of the store cannot be moved. */
#include "store/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <string.h>
#include <sys/stat.h>

#define PROGRESS_STEPS 10000 /* of SQLite's machine, some milliseconds */

struct copying {
    const char *draft;
    uint64_t total;
    const struct store_progress *progress;
};

static int watch(void *data)
{
    const struct copying *copying = data;
    struct stat st;
    if (copying->progress && copying->progress->told && stat(copying->draft, &st) == 0)
        copying->progress->told("copying", (uint64_t)st.st_size, copying->total,
                                copying->progress->data);
    return 0;
}

static int count_bytes(struct db *db, uint64_t *ret, struct error *err)
{
    int64_t pages = 0, free_pages = 0, page_size = 0;
    int r = count_pages(db, &pages, &free_pages, err);
    if (r == 0)
        r = db_integer(db, err, &page_size, "PRAGMA page_size", "");
    *ret = (uint64_t)((pages - free_pages) * page_size);
    return r;
}

static int copy_database(const char *from, const char *draft, const struct store_progress *progress,
                         struct error *err)
{
    cleanup(db_closep) struct db *db = NULL;
    struct copying copying = {.draft = draft, .progress = progress};
    int r = db_open(from, DB_WRITE_LAZY, &db, err);
    if (r == 0)
        r = count_bytes(db, &copying.total, err);
    if (r < 0)
        return r;
    sqlite3_progress_handler(db->handle, PROGRESS_STEPS, watch, &copying);
    r = db_run(db, err, "VACUUM INTO ?", "t", draft);
    sqlite3_progress_handler(db->handle, 0, NULL, NULL);
    return r == -ENOSPC ? error_set(err, r, "no space left for the backup; nothing of it is kept")
                        : r;
}

/* The copy keeps everything but this. */
static int set_journal(const char *draft, struct error *err)
{
    cleanup(db_closep) struct db *db = NULL;
    int r = db_open(draft, DB_WRITE_LAZY, &db, err);
    return r < 0 ? r : db_script(db, "PRAGMA journal_mode = WAL", err);
}

/* ---- The file ---- */

static void remove_draft(char **draft)
{
    static const char *const suffixes[] = {"", "-wal", "-shm", "-journal"};
    for (size_t i = 0; *draft && i < sizeof suffixes / sizeof suffixes[0]; i++) {
        cleanup_free char *path = NULL;
        if (asprintf(&path, "%s%s", *draft, suffixes[i]) >= 0)
            unlink(path);
    }
    free(*draft);
}

static int check_absent(const char *path, const char *suffix, struct error *err)
{
    cleanup_free char *whole = NULL;
    struct stat st;
    if (asprintf(&whole, "%s%s", path, suffix) < 0)
        return error_set(err, -ENOMEM, "out of memory");
    return lstat(whole, &st) == 0 ? error_set(err, -EEXIST,
                                              "%s exists already; a backup is made only where "
                                              "nothing is",
                                              whole)
                                  : 0;
}

static int make_draft(const char *file, char **ret, struct error *err)
{
    int r = check_absent(file, "", err);
    /* A store at that place would replay it. */
    if (r == 0)
        r = check_absent(file, "-wal", err);
    cleanup_free char *draft = NULL;
    if (r == 0 && asprintf(&draft, "%s.XXXXXX", file) < 0)
        r = error_set(err, -ENOMEM, "out of memory");
    if (r < 0)
        return r;
    /* Closed at once: closing it later would take SQLite's locks of it away. */
    cleanup_fd int fd = mkostemp(draft, O_CLOEXEC);
    if (fd < 0)
        return error_set(err, -errno, "%s: %m", file);
    *ret = steal_ptr(draft);
    return 0;
}

static int sync_path(const char *path, int flags, struct error *err)
{
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC | flags);
    return fd < 0 || fsync(fd) < 0 ? error_set(err, -errno, "%s: %m", path) : 0;
}

static int put_in_place(const char *draft, const char *file, struct error *err)
{
    cleanup_free char *copy = strdup(file);
    if (!copy)
        return error_set(err, -ENOMEM, "out of memory");
    int r = sync_path(draft, 0, err);
    if (r == 0 && link(draft, file) < 0)
        r = error_set(err, -errno, "%s: %m", file);
    return r < 0 ? r : sync_path(dirname(copy), O_DIRECTORY, err);
}

int backup_make(const char *from, const char *file,
                int (*finish)(const char *draft, void *data, struct error *err), void *data,
                const struct store_progress *progress, struct error *err)
{
    cleanup(remove_draft) char *draft = NULL;
    int r = make_draft(file, &draft, err);
    if (r == 0)
        r = copy_database(from, draft, progress, err);
    if (r == 0)
        r = set_journal(draft, err);
    if (r == 0)
        r = finish(draft, data, err);
    return r < 0 ? r : put_in_place(draft, file, err);
}

/* ---- A backup of a store ---- */

struct verifying {
    const struct store_progress *progress;
    struct store_check_result *result;
};

/* Mounts are no part of a backup. */
static int verify(const char *draft, void *data, struct error *err)
{
    struct verifying *verifying = data;
    cleanup(store_closep) struct store *copy = NULL;
    struct store_check how = {0};
    if (verifying->progress) {
        how.progress = verifying->progress->told;
        how.data = verifying->progress->data;
    }
    int r = store_open(draft, STORE_LAZY_SYNC, &copy, err);
    if (r == 0)
        r = store_forget_mount(copy, err);
    return r < 0 ? r : store_check(copy, &how, verifying->result, err);
}

int store_backup(struct store *store, const char *file, const struct store_progress *progress,
                 struct store_check_result *ret, struct error *err)
{
    struct verifying verifying = {.progress = progress, .result = ret};
    return backup_make(store->path, file, verify, &verifying, progress, err);
}
