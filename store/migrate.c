/* Bringing a store of an older fwfs up to date: a backup first, then all steps in one transaction.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "store/internal.h"
#include "store/schema.h"

static int name_backup(const char *path, int version, char **ret, struct error *err)
{
    time_t now = (time_t)store_now();
    struct tm utc;
    char stamp[32];
    gmtime_r(&now, &utc);
    strftime(stamp, sizeof stamp, "%Y%m%dT%H%M%SZ", &utc);
    if (asprintf(ret, "%s.v%d.%s", path, version, stamp) < 0) {
        *ret = NULL;
        return error_set(err, -ENOMEM, "out of memory");
    }
    return 0;
}

/* Nothing else is known of a store of that version. */
static int verify(const char *draft, void *data, struct error *err)
{
    static const char sql[] = "SELECT count(*) FROM pragma_integrity_check"
                              " WHERE integrity_check <> 'ok'";
    cleanup(db_closep) struct db *db = NULL;
    int64_t wrong;
    int r = db_open(draft, DB_QUERY, &db, err);
    if (r == 0)
        r = db_integer(db, err, &wrong, sql, "");
    if (r == 0 && wrong > 0)
        return error_set(err, -EUCLEAN, "the store is damaged; it stays as it is");
    return r;
}

/* Who opened it meanwhile, at either version, is no harm: BEGIN keeps others out until the end. */
static int run_steps(const char *path, const char *const *migrations, int from, int to,
                     struct error *err)
{
    cleanup(db_closep) struct db *db = NULL;
    int there;
    int r = db_open(path, DB_WRITE, &db, err);
    if (r == 0)
        r = db_script(db, "PRAGMA foreign_keys = OFF; BEGIN IMMEDIATE", err);
    if (r == 0)
        r = schema_version(db, to, &there, err);
    if (r == 0 && there != from)
        return error_set(err, -EBUSY, "somebody else migrates the store");
    if (r == 0)
        r = schema_migrate(db, migrations, from, to, err);
    return r < 0 ? r : db_script(db, "COMMIT", err);
}

static int get_version(const char *path, int newest, int *ret, struct error *err)
{
    cleanup(db_closep) struct db *db = NULL;
    int r = db_open(path, DB_QUERY, &db, err);
    return r < 0 ? r : schema_version(db, newest, ret, err);
}

int migrate(const char *path, const char *const *migrations, int to, struct store_migration *ret,
            const struct store_progress *progress, struct error *err)
{
    cleanup_free char *backup = NULL;
    *ret = (struct store_migration){.to = to};
    int r = get_version(path, to, &ret->from, err);
    if (r < 0 || ret->from == to)
        return r;
    r = name_backup(path, ret->from, &backup, err);
    if (r == 0)
        r = backup_make(path, backup, verify, NULL, progress, err);
    if (r == 0)
        r = run_steps(path, migrations, ret->from, to, err);
    if (r == 0)
        ret->backup = steal_ptr(backup);
    return r;
}

int store_migrate(const char *path, struct store_migration *ret,
                  const struct store_progress *progress, struct error *err)
{
    return migrate(path, schema_migrations, SCHEMA_VERSION, ret, progress, err);
}
