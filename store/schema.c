/* Each entry of `schema_migrations` brings a database from the version that is its index to the
 * next; a new store goes through all of them, so there is one description of the schema and it is
 * always tested.
 *
 * Bytes count: a fleet has tens of thousands of guests. So a flash's block has one integer as its
 * key (flash_block_key()), an absent row is a block that equals the image's, and what can be
 * derived is not kept. */
#include "store/schema.h"

#include <errno.h>

static const char version_1[] =
    /* Content-addressed blocks of images; fill is never among them. */
    "CREATE TABLE blocks ("
    "  id INTEGER PRIMARY KEY AUTOINCREMENT,"
    "  digest BLOB NOT NULL UNIQUE," /* SHA-256 of the content */
    "  encoding INTEGER NOT NULL,"   /* enum block_encoding */
    "  data BLOB NOT NULL"
    ") STRICT;"

    "CREATE TABLE images ("
    "  id INTEGER PRIMARY KEY AUTOINCREMENT,"
    "  digest BLOB NOT NULL UNIQUE,"
    "  size INTEGER NOT NULL,"
    "  fill INTEGER NOT NULL" /* 0x00 or 0xFF: what a block without a row holds */
    ") STRICT;"

    /* block_id NULL: a block of the other fill. */
    "CREATE TABLE image_blocks ("
    "  image_id INTEGER NOT NULL REFERENCES images,"
    "  block_index INTEGER NOT NULL,"
    "  block_id INTEGER REFERENCES blocks,"
    "  PRIMARY KEY (image_id, block_index)"
    ") STRICT, WITHOUT ROWID;"
    "CREATE INDEX image_blocks_by_block ON image_blocks (block_id);"

    "CREATE TABLE firmware ("
    "  id INTEGER PRIMARY KEY AUTOINCREMENT,"
    "  name TEXT NOT NULL UNIQUE,"
    "  mode TEXT NOT NULL CHECK (mode IN ('split', 'combined', 'stateless')),"
    "  executable_id INTEGER NOT NULL REFERENCES images,"
    "  nvram_template_id INTEGER REFERENCES images,"
    "  descriptor TEXT NOT NULL,"
    "  created_at INTEGER NOT NULL," /* seconds */
    "  CHECK ((mode = 'split') = (nvram_template_id IS NOT NULL))"
    ") STRICT;"

    /* Times in nanoseconds; atime and ctime are NULL where they equal mtime. */
    "CREATE TABLE flashes ("
    "  id INTEGER PRIMARY KEY AUTOINCREMENT,"
    "  image_id INTEGER NOT NULL REFERENCES images,"
    "  uid INTEGER NOT NULL,"
    "  gid INTEGER NOT NULL,"
    "  mode INTEGER NOT NULL,"
    "  mtime INTEGER NOT NULL,"
    "  atime INTEGER,"
    "  ctime INTEGER,"
    "  version INTEGER NOT NULL DEFAULT 0,"
    "  guest_id INTEGER," /* whose flash it is; NULL of staging files and orphans */
    "  size INTEGER"      /* NULL: its image's; else of a staging file, an overlay on zeros */
    ") STRICT;"

    "CREATE TABLE flash_xattrs ("
    "  flash_id INTEGER NOT NULL REFERENCES flashes,"
    "  name TEXT NOT NULL,"
    "  value BLOB NOT NULL,"
    "  PRIMARY KEY (flash_id, name)"
    ") STRICT, WITHOUT ROWID;"

    "CREATE TABLE guests ("
    "  id INTEGER PRIMARY KEY AUTOINCREMENT,"
    "  name TEXT NOT NULL UNIQUE,"
    "  firmware_id INTEGER NOT NULL REFERENCES firmware,"
    /* Not REFERENCES: removing a flash would look through all guests, or need an index. */
    "  flash_id INTEGER NOT NULL,"
    "  created_at INTEGER NOT NULL," /* seconds */
    "  vars_removed INTEGER NOT NULL DEFAULT 0"
    ") STRICT;"

    /* What lives as long as the mount: see store_forget_mount(). */
    "CREATE TABLE leases ("
    "  flash_id INTEGER NOT NULL,"
    "  handle INTEGER NOT NULL,"
    "  version INTEGER NOT NULL,"
    "  pid INTEGER NOT NULL,"
    "  command TEXT NOT NULL,"
    "  mountpoint TEXT NOT NULL,"
    "  since INTEGER NOT NULL,"             /* seconds */
    "  written INTEGER NOT NULL DEFAULT 0," /* something was changed since it was taken */
    "  PRIMARY KEY (flash_id, handle)"
    ") STRICT, WITHOUT ROWID;"

    "CREATE TABLE staging ("
    "  guest_id INTEGER NOT NULL,"
    "  name TEXT NOT NULL,"
    "  flash_id INTEGER NOT NULL,"
    "  PRIMARY KEY (guest_id, name)"
    ") STRICT, WITHOUT ROWID;"

    /* Flashes without a name, which somebody may still have open. */
    "CREATE TABLE orphans (flash_id INTEGER PRIMARY KEY) STRICT;"

    "CREATE TABLE flash_blocks ("
    "  key INTEGER PRIMARY KEY,"   /* block_key() */
    "  encoding INTEGER NOT NULL," /* enum block_encoding */
    "  checksum INTEGER NOT NULL," /* block_checksum() */
    "  data BLOB NOT NULL"
    ") STRICT;"
    /* What a guest's flash was before, see history.c. */
    "CREATE TABLE points ("
    "  id INTEGER PRIMARY KEY AUTOINCREMENT,"
    "  guest_id INTEGER NOT NULL,"
    "  kind INTEGER NOT NULL,"       /* enum store_point_kind */
    "  created_at INTEGER NOT NULL," /* seconds */
    "  name TEXT"                    /* of a snapshot */
    ") STRICT;"
    "CREATE INDEX points_by_guest ON points (guest_id);"

    /* One row: how many points are kept, see struct store_retention. */
    "CREATE TABLE retention ("
    "  sessions INTEGER NOT NULL,"
    "  edits INTEGER NOT NULL,"
    "  days INTEGER NOT NULL,"
    "  bytes INTEGER NOT NULL"
    ") STRICT;"
    "INSERT INTO retention VALUES (10, 10, 7, 4194304);"

    /* Guests that were removed, and can be brought back for a while. */
    "CREATE TABLE removed_guests ("
    "  id INTEGER PRIMARY KEY,"
    "  name TEXT NOT NULL,"
    "  removed_at INTEGER NOT NULL," /* seconds */
    "  firmware_id INTEGER NOT NULL REFERENCES firmware,"
    "  flash_id INTEGER NOT NULL,"
    "  created_at INTEGER NOT NULL,"
    "  vars_removed INTEGER NOT NULL"
    ") STRICT;"
    "CREATE INDEX removed_guests_by_name ON removed_guests (name);"
    "CREATE INDEX flash_blocks_pending ON flash_blocks (encoding) WHERE encoding = 4;";

const char *const schema_migrations[SCHEMA_VERSION] = {version_1};

static int pragma(struct db *db, const char *sql, int64_t *ret, struct error *err)
{
    return db_integer(db, err, ret, sql, "");
}

int schema_migrate(struct db *db, const char *const *migrations, int from, int to,
                   struct error *err)
{
    int r = 0;
    for (int version = from; r == 0 && version < to; version++)
        r = db_script(db, migrations[version], err);
    char finish[64];
    snprintf(finish, sizeof finish, "PRAGMA user_version = %d", to);
    return r < 0 ? r : db_script(db, finish, err);
}

int schema_create(struct db *db, struct error *err)
{
    /* Only an empty database takes these; incremental, so that freed pages can go back to the disk
     * while the store is in use. */
    int r = db_script(db,
                      "PRAGMA page_size = 4096; PRAGMA auto_vacuum = INCREMENTAL;"
                      "PRAGMA journal_mode = WAL; BEGIN IMMEDIATE",
                      err);
    if (r == 0)
        r = schema_migrate(db, schema_migrations, 0, SCHEMA_VERSION, err);
    if (r < 0)
        return r;

    char finish[64];
    snprintf(finish, sizeof finish, "PRAGMA application_id = %d; COMMIT", SCHEMA_APPLICATION_ID);
    return db_script(db, finish, err);
}

int schema_version(struct db *db, int newest, int *ret, struct error *err)
{
    int64_t application = 0, version = 0;
    int r = pragma(db, "PRAGMA application_id", &application, err);
    if (r < 0)
        return r;
    if (application != SCHEMA_APPLICATION_ID)
        return error_set(err, -EINVAL, "not an fwfs store: another application's database");

    r = pragma(db, "PRAGMA user_version", &version, err);
    if (r < 0)
        return r;
    if (version > newest)
        return error_set(err, -ENOTSUP,
                         "the store is of version %lld, this fwfs knows up to %d; upgrade fwfs",
                         (long long)version, newest);
    if (version < 1)
        return error_set(err, -EINVAL, "not an fwfs store: it has no schema");
    *ret = (int)version;
    return 0;
}

int schema_check(struct db *db, int newest, struct error *err)
{
    int version = 0;
    int r = schema_version(db, newest, &version, err);
    if (r == 0 && version < newest)
        return error_set(err, -ENOTSUP,
                         "the store is of version %d, this fwfs needs %d; run 'fwfs migrate'",
                         version, newest);
    return r;
}
