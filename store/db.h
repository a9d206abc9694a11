/* A connection to SQLite: one thread at a time, prepared statements kept, errors as negative errno.
 *
 * Statements are found again by the address of their SQL text, so the text must be a string literal
 * (or a static array) and stands where it is used. */
#ifndef FWFS_STORE_DB_H
#define FWFS_STORE_DB_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "store/block.h"

#define DB_STATEMENTS_MAX 256

struct db {
    sqlite3 *handle;
    struct codec codec;
    bool in_transaction; /* that only its owner ends: see db_prepare() */
    size_t statement_count;
    struct db_statement {
        const char *sql;
        sqlite3_stmt *stmt;
    } statements[DB_STATEMENTS_MAX];
};

enum db_open_mode {
    DB_QUERY,      /* refuses to change anything */
    DB_WRITE,      /* commits are durable when they return */
    DB_WRITE_LAZY, /* commits are durable after the next sync or checkpoint */
};

/* Opens an existing database file and sets what every connection of a store has in common. */
int db_open(const char *path, enum db_open_mode mode, struct db **ret, struct error *err);
void db_close(struct db *db);
void db_closep(struct db **db);

/* The negative errno for SQLite's last error on this connection, with its words in `err`. */
int db_fail(struct db *db, const char *sql, struct error *err);

/* A statement ready to be bound; give it back with db_release() before it is asked for again.
 * Within a transaction it is -EIO once SQLite has rolled that back by itself, after an error: what
 * followed would be committed by itself, statement by statement. */
int db_prepare(struct db *db, const char *sql, sqlite3_stmt **ret, struct error *err);
void db_releasep(sqlite3_stmt **stmt);
#define cleanup_stmt cleanup(db_releasep)

/* Binds parameters in order. Types: 'i' int64_t, 't' const char * (NULL: NULL), 'b' const void *,
 * size_t (borrowed until the release), 'n' NULL without an argument. */
void db_bind(sqlite3_stmt *stmt, const char *types, ...);

/* 1: a row, 0: no more, or negative. */
int db_step(struct db *db, sqlite3_stmt *stmt, struct error *err);

/* Prepares, binds, steps to the end and releases. */
int db_run(struct db *db, struct error *err, const char *sql, const char *types, ...);

/* Runs several statements that bind nothing and whose rows nobody wants. */
int db_script(struct db *db, const char *sql, struct error *err);

/* The one integer that a query gives; 0 where it gives none. */
int db_integer(struct db *db, struct error *err, int64_t *ret, const char *sql, const char *types,
               ...);

#endif
