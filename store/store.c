#include "store/internal.h"
#include "store/schema.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

int64_t store_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec;
}

/* ---- Transactions ---- */

int reader_begin(struct store *store, struct reader *reader, struct error *err)
{
    cleanup(db_closep) struct db *db = NULL;
    pthread_mutex_lock(&store->pool_lock);
    if (store->idle_count > 0)
        db = store->idle[--store->idle_count];
    pthread_mutex_unlock(&store->pool_lock);

    int r = db ? 0 : db_open(store->path, DB_QUERY, &db, err);
    if (r < 0)
        return r;
    r = db_run(db, err, "BEGIN", "");
    if (r < 0)
        return r;
    *reader = (struct reader){.store = store, .db = steal_ptr(db)};
    return 0;
}

int reader_prepare(struct store *store, struct reader *reader, const char *sql, sqlite3_stmt **ret,
                   struct error *err)
{
    int r = reader_begin(store, reader, err);
    return r < 0 ? r : db_prepare(reader->db, sql, ret, err);
}

void reader_endp(struct reader *reader)
{
    cleanup(db_closep) struct db *db = reader->db;
    /* A connection that cannot end its transaction would pin the log for ever: it is closed. */
    if (!db || db_run(db, NULL, "COMMIT", "") < 0)
        return;
    struct store *store = reader->store;
    pthread_mutex_lock(&store->pool_lock);
    if (store->idle_count < STORE_IDLE_READERS_MAX)
        store->idle[store->idle_count++] = steal_ptr(db);
    pthread_mutex_unlock(&store->pool_lock);
}

static int count_log_pages(void *data, sqlite3 *handle, const char *database, int pages)
{
    struct store *store = data;
    store->log_pages = (uint64_t)pages;
    return SQLITE_OK;
}

static int open_writer(struct store *store, struct error *err)
{
    if (store->writer)
        return 0;
    enum db_open_mode mode = store->flags & STORE_LAZY_SYNC ? DB_WRITE_LAZY : DB_WRITE;
    int r = db_open(store->path, mode, &store->writer, err);
    if (r < 0)
        return r;
    /* From the part of the header that has no checksum until the page is read as a whole. */
    int64_t auto_vacuum = 0;
    r = db_integer(store->writer, err, &auto_vacuum, "PRAGMA auto_vacuum", "");
    if (r == 0 && auto_vacuum != 2)
        r = error_set(err, -EUCLEAN, "the store is damaged: its file's header is wrong");
    if (r < 0) {
        db_close(steal_ptr(store->writer));
        return r;
    }
    sqlite3_wal_hook(store->writer->handle, count_log_pages, store);
    return 0;
}

int txn_begin(struct store *store, struct txn *txn, struct error *err)
{
    if (store->flags & STORE_READ_ONLY)
        return error_set(err, -EROFS, "the store is open read-only");
    pthread_mutex_lock(&store->write_lock);
    int r = open_writer(store, err);
    if (r == 0)
        r = db_run(store->writer, err, "BEGIN IMMEDIATE", "");
    if (r < 0) {
        pthread_mutex_unlock(&store->write_lock);
        return r;
    }
    store->writer->in_transaction = true;
    *txn = (struct txn){.store = store, .db = store->writer};
    return 0;
}

int txn_commit(struct txn *txn, struct error *err)
{
    int r = db_run(txn->db, err, "COMMIT", "");
    txn->committed = r == 0;
    if (r == 0)
        txn->store->commits++;
    return r;
}

void txn_endp(struct txn *txn)
{
    if (!txn->db)
        return;
    struct store *store = txn->store;
    /* SQLite may have rolled back by itself, after an I/O error. A connection that cannot is
     * closed, which does it. */
    if (!sqlite3_get_autocommit(txn->db->handle) && db_run(txn->db, NULL, "ROLLBACK", "") < 0)
        db_close(steal_ptr(store->writer));
    else
        txn->db->in_transaction = false;
    pthread_mutex_unlock(&store->write_lock);
}

/* ---- Making, opening, closing ---- */

static int fsync_directory(const char *directory)
{
    cleanup_fd int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

static int make_database(const char *path, struct error *err)
{
    cleanup(db_closep) struct db *db = NULL;
    int r = db_open(path, DB_WRITE, &db, err);
    if (r == 0)
        r = schema_create(db, err);
    if (r < 0)
        return r;
    /* Closing does so too, but would not say that it failed. */
    if (sqlite3_wal_checkpoint_v2(db->handle, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL) !=
        SQLITE_OK)
        return db_fail(db, "checkpoint", err);
    return 0;
}

/* With what SQLite leaves beside a database that it could not close well. */
static void remove_database(const char *path)
{
    static const char *const suffixes[] = {"", "-wal", "-shm", "-journal"};
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        cleanup_free char *name = NULL;
        if (asprintf(&name, "%s%s", path, suffixes[i]) >= 0)
            unlink(name);
    }
}

static int check_absent(const char *path, struct error *err)
{
    struct stat st;
    if (lstat(path, &st) == 0)
        return error_set(err, -EEXIST, "%s exists already; a store is made only where nothing is",
                         path);
    return 0;
}

int store_create(const char *path, struct error *err)
{
    cleanup_free char *copy = strdup(path);
    cleanup_free char *draft = NULL;
    cleanup_free char *log = NULL;
    if (!copy || asprintf(&draft, "%s.XXXXXX", path) < 0 || asprintf(&log, "%s-wal", path) < 0)
        return error_set(err, -ENOMEM, "out of memory");
    int r = check_absent(path, err);
    /* SQLite would replay another store's log into the new one. */
    if (r == 0)
        r = check_absent(log, err);
    if (r < 0)
        return r;
    const char *directory = dirname(copy);
    if (mkdir(directory, 0700) < 0 && errno != EEXIST)
        return error_set(err, -errno, "%s: %m; make the directory first", directory);

    /* Made under another name, so that a store is there whole or not at all. */
    cleanup_fd int fd = mkostemp(draft, O_CLOEXEC);
    if (fd < 0)
        return error_set(err, -errno, "%s: %m", directory);
    r = make_database(draft, err);
    if (r == 0 && link(draft, path) < 0)
        r = error_set(err, -errno, "%s: %m", path);
    remove_database(draft);
    if (r == 0 && (r = fsync_directory(directory)) < 0)
        error_set(err, r, "%s: %s", directory, strerror(-r));
    return r;
}

int store_open(const char *path, unsigned flags, struct store **ret, struct error *err)
{
    cleanup(store_closep) struct store *store = calloc(1, sizeof *store);
    if (!store)
        return error_set(err, -ENOMEM, "out of memory");
    pthread_mutex_init(&store->write_lock, NULL);
    pthread_mutex_init(&store->pool_lock, NULL);
    pthread_mutex_init(&store->checkpoint_lock, NULL);
    sync_init(&store->sync);
    store->flags = flags;
    store->path = strdup(path);
    if (!store->path)
        return error_set(err, -ENOMEM, "out of memory");

    /* SQLite would say only that it cannot open it. */
    struct stat st;
    if (stat(path, &st) < 0)
        return errno == ENOENT
                   ? error_set(err, -ENOENT, "no store at %s; make one with 'fwfs init'", path)
                   : error_set(err, -errno, "%s: %m", path);
    if (!S_ISREG(st.st_mode))
        return error_set(err, -EINVAL, "%s: not an fwfs store: no regular file", path);

    cleanup(db_closep) struct db *db = NULL;
    int r = db_open(path, DB_QUERY, &db, err);
    if (r == 0)
        r = schema_check(db, SCHEMA_VERSION, err);
    if (r < 0)
        return error_prefix(err, r, "%s", path);
    store->idle[store->idle_count++] = steal_ptr(db);
    *ret = steal_ptr(store);
    return 0;
}

void store_close(struct store *store)
{
    if (!store)
        return;
    sync_clear(&store->sync);
    for (size_t i = 0; i < store->idle_count; i++)
        db_close(store->idle[i]);
    db_close(store->checkpointer);
    /* Last, so that it is the one that moves the log into the database. */
    db_close(store->writer);
    pthread_mutex_destroy(&store->checkpoint_lock);
    pthread_mutex_destroy(&store->pool_lock);
    pthread_mutex_destroy(&store->write_lock);
    free(store->path);
    free(store);
}

void store_closep(struct store **store)
{
    store_close(*store);
}
