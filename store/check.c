/* The check of a whole store: its parts in order, and what they tell. */
#include "store/check.h"

#include <errno.h>
#include <string.h>

/* ---- What the parts share ---- */

void check_report(struct checker *checker, const struct store_damage *damage)
{
    checker->result->damaged++;
    checker->result->repaired += damage->outcome == STORE_DAMAGE_REPAIRED;
    checker->result->held += damage->outcome == STORE_DAMAGE_HELD;
    if (checker->how->damaged)
        checker->how->damaged(damage, checker->how->data);
}

void check_progress(struct checker *checker, const char *what, uint64_t done, uint64_t total)
{
    if (checker->how->progress)
        checker->how->progress(what, done, total, checker->how->data);
}

int check_unreadable(struct checker *checker, int result, struct error *err)
{
    if (result != -EUCLEAN)
        return result;
    struct store_damage damage = {.offset = -1, .remedy = "bring back a backup"};
    snprintf(damage.place, sizeof damage.place, "the store's file");
    snprintf(damage.what, sizeof damage.what, "%s", err->text);
    *err = (struct error){0};
    check_report(checker, &damage);
    return 0;
}

/* ---- SQLite's own checks ---- */

static void report_file(struct checker *checker, const char *what)
{
    struct store_damage damage = {.offset = -1};
    snprintf(damage.place, sizeof damage.place, "the store's file");
    snprintf(damage.what, sizeof damage.what, "%s", what);
    if (checker->how->repair)
        snprintf(damage.remedy, sizeof damage.remedy, "bring back a backup");
    check_report(checker, &damage);
}

static int check_file(struct checker *checker, struct error *err)
{
    static const char sql[] = "PRAGMA integrity_check";
    cleanup_reader struct reader reader = {0};
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    check_progress(checker, "file", 0, 0);
    int r = reader_prepare(checker->store, &reader, sql, &stmt, err);
    while (r >= 0 && (r = db_step(reader.db, stmt, err)) > 0) {
        const char *text = (const char *)sqlite3_column_text(stmt, 0);
        if (text && strcmp(text, "ok") != 0)
            report_file(checker, text);
    }
    return r;
}

/* The references say more of what breaks one of SQLite's keys; this is for what they do not know.
 */
static int check_foreign_keys(struct checker *checker, struct error *err)
{
    static const char sql[] = "SELECT printf('%s %s refers to what is not in %s', \"table\","
                              " ifnull(rowid, ''), parent) FROM pragma_foreign_key_check";
    cleanup_reader struct reader reader = {0};
    cleanup_stmt sqlite3_stmt *stmt = NULL;
    if (checker->result->damaged > 0)
        return 0;
    int r = reader_prepare(checker->store, &reader, sql, &stmt, err);
    while (r >= 0 && (r = db_step(reader.db, stmt, err)) > 0)
        report_file(checker, (const char *)sqlite3_column_text(stmt, 0));
    return r;
}

int store_check(struct store *store, const struct store_check *how, struct store_check_result *ret,
                struct error *err)
{
    static int (*const parts[])(struct checker *, struct error *) = {
        check_file, check_references, check_images, check_layers, check_foreign_keys,
    };
    struct error unsaid = {0};
    struct checker checker = {.store = store, .how = how, .result = ret};
    *ret = (struct store_check_result){0};
    err = err ? err : &unsaid;
    int r = 0;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0] && r == 0; i++)
        r = check_unreadable(&checker, parts[i](&checker, err), err);
    return r;
}
