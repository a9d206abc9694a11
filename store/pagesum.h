/* A checksum on every page of the store's file.
 *
 * Blocks have checksums of their own, but names, attributes, and the tree that leads to them have
 * none, and SQLite takes what it reads for what it wrote. So the last bytes of each page are
 * reserved (SQLite's file format, "Reserved bytes per page") and hold a checksum of the rest and of
 * the page's number, put in when the page is written to the file and compared when it is read from
 * there: SQLITE_IOERR_DATA if it differs. The write-ahead log is left as it is, since it is read
 * back only within minutes, and has checksums for recovery. */
#ifndef FWFS_STORE_PAGESUM_H
#define FWFS_STORE_PAGESUM_H

#define PAGESUM_PAGE_SIZE 4096
#define PAGESUM_SIZE 8 /* bytes at each page's end, to be reserved when a database is made */

/* The name of the VFS that does so, over what is SQLite's default at the first call; NULL: out of
 * memory. It opens a file whose pages have checksums, or an empty one, as main database; any other
 * is SQLITE_NOTADB. */
const char *pagesum_vfs(void);

#endif
