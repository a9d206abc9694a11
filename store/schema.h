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

/* 0 if this program can work with the database; else -EINVAL (not a store) or -ENOTSUP (newer). */
int schema_check(struct db *db, struct error *err);

#endif
