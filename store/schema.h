/* The database's schema: how it is made, recognised and brought up to date. */
#ifndef FWFS_STORE_SCHEMA_H
#define FWFS_STORE_SCHEMA_H

#include "store/db.h"

/* "fwfs" in ASCII, at offset 68 of the file (SQLite's file format, "Application ID"). */
#define SCHEMA_APPLICATION_ID 0x66776673

/* Kept in PRAGMA user_version. */
#define SCHEMA_VERSION 1

/* Makes the newest schema in an empty database. */
int schema_create(struct db *db, struct error *err);

/* The version of a database, which is at most `newest`; else -EINVAL (not a store) or -ENOTSUP. */
int schema_version(struct db *db, int newest, int *ret, struct error *err);
/* 0 if a program whose newest version that is can work with the database; -ENOTSUP: it is an older
 * one too. */
int schema_check(struct db *db, int newest, struct error *err);

/* The entry of a version brings a database to the next. */
extern const char *const schema_migrations[SCHEMA_VERSION];

/* Runs the entries of these versions, within the caller's transaction. */
int schema_migrate(struct db *db, const char *const *migrations, int from, int to,
                   struct error *err);

#endif
