/* What goes to stdout, and how: text for people, JSON for programs, words for a shell.
 *
 * Whatever is printed may have been named by someone else. None of these lets a control character,
 * or one that turns the direction of writing, reach a terminal; what is no UTF-8 is shown as such.
 * Failures of stdout are kept by stdio and come out in output_finish(). */
#ifndef FWFS_CLI_OUTPUT_H
#define FWFS_CLI_OUTPUT_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"

/* Closes stdout; -errno if not everything that was printed arrived. */
int output_finish(struct error *err);

/* -EIO once stdout has failed, for loops that may as well stop; output_finish() says why. */
int output_failed(void);

/* Prints text, with what is unsafe in it escaped. */
void output_text(FILE *file, const char *text);

/* Prints one argument of a shell's command line, quoted if it needs to be. -EINVAL for control
 * characters, which no quoting makes safe to copy. */
int output_shell_word(const char *word, struct error *err);

/* Prints an XML document whose names are ASCII; what is unsafe in it becomes a reference. */
void output_xml(const char *document);

#define OUTPUT_SIZE_LENGTH 32

/* "4.0 MiB" on a terminal, else the bytes, "4194304". Returns `buffer`. */
const char *output_size(uint64_t bytes, char buffer[OUTPUT_SIZE_LENGTH]);

/* ---- Objects ---- */

/* Prints JSON text. */
void output_json_text(const char *text);

/* Prints an object as JSON, or as lines "name: value" for people. Both take `object` over; a NULL
 * one is memory that ran out. */
int output_json(struct json_object *object, struct error *err);
int output_object(struct json_object *object, struct error *err);

/* A long list as JSON, written as it comes: {"schema_version":1,"<name>":[…]}. */
struct json_list {
    const char *name;
    bool printed; /* an object */
};

int json_list_add(struct json_list *list, struct json_object *object, struct error *err);
void json_list_end(struct json_list *list);

/* ---- Tables ---- */

#define TABLE_COLUMNS_MAX 8

/* Rows are kept until the widths of all are known. */
struct table {
    size_t columns;
    size_t widths[TABLE_COLUMNS_MAX];
    FILE *cells; /* over `bytes`: the cells in order, each ended by NUL */
    char *bytes;
    size_t size;
};

/* Begins with the headings, one a column. */
int table_begin(struct table *table, size_t columns, const char *const *headings,
                struct error *err);
void table_row(struct table *table, const char *const *cells);
int table_print(struct table *table, struct error *err);
void table_clear(struct table *table);

#endif
