/* One error object, filled where the context is known and reported once, at the edge (a line of the
 * command line, or of the log).
 *
 * Functions return 0 (or a count) and a negative errno on failure. Those that take a `struct error
 * *` also say in it, in one line without a final period or newline, what was wrong and, where there
 * is something to do, what to do. The pointer may be NULL. */
#ifndef FWFS_BASE_ERROR_H
#define FWFS_BASE_ERROR_H

#define ERROR_TEXT_SIZE 1024

struct error {
    int code;                   /* negative errno; 0 as long as nothing failed */
    char text[ERROR_TEXT_SIZE]; /* printable UTF-8: control characters are shown as '?' */
};

/* Fills `err` (if any) and returns `code`, so that a failure is `return error_set(err, -EINVAL,
 * …)`. */
int error_set(struct error *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "<prefix>: " before the text that is there and returns `code`; sets the errno's own words
 * where nothing was said yet. */
int error_prefix(struct error *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
