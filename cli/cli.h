/* The command line: what one invocation knows, and what its commands share.
 *
 * A command is an entry in a table of its noun's file. main.c finds it by its words and runs it; it
 * parses its own options with cli_option(), does its work through the library, and returns 0 or a
 * negative errno with the error said in `err`. main.c alone reports it and chooses the exit code.
 */
#ifndef FWFS_CLI_CLI_H
#define FWFS_CLI_CLI_H

#include <getopt.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "store/store.h"

struct command;

struct cli {
    const char *store_option;      /* --store; NULL: not given */
    bool json;                     /* --json */
    bool help;                     /* help was asked for: print it instead of running */
    bool version;                  /* --version */
    bool usage;                    /* what failed is how fwfs was called */
    bool mount_helper;             /* mount(8) waits for its exit code */
    const struct command *command; /* whose help a usage error points at; NULL: fwfs' own */
    unsigned pauses;               /* see cli_may_be_released() */
    const char *advice;            /* what to do about the error, for texts that do not say it */
};

/* An entry without `run` is a noun's own: its help tells what the noun is about. */
struct command {
    const char *noun;
    const char *verb;     /* NULL: the noun is the whole command */
    const char *synopsis; /* what follows these words */
    const char *summary;  /* one line */
    const char *help;     /* what it does, its options, an example */
    const char *more;     /* help that is made elsewhere; may be NULL */
    int (*run)(struct cli *cli, int argc, char **argv, struct error *err);
};

/* Each ends with an entry without a noun. */
extern const struct command care_commands[];
extern const struct command firmware_commands[];
extern const struct command guest_commands[];
extern const struct command mount_commands[];
extern const struct command snapshot_commands[];
extern const struct command store_commands[];

/* ---- Options and operands (options.c) ---- */

enum {
    OPTION_STORE = 0x1000,
    OPTION_JSON,
};

/* Ends every command's table of options. A `val` that is a letter is also a short option; others of
 * a command's own begin at 1 << 8. */
#define CLI_GLOBAL_OPTIONS                                                                         \
    {"store", required_argument, NULL, OPTION_STORE}, {"json", no_argument, NULL, OPTION_JSON},    \
        {"help", no_argument, NULL, 'h'},                                                          \
    {                                                                                              \
        NULL, 0, NULL, 0                                                                           \
    }

/* Returns the `val` of the next option of the command's own, its argument in optarg; 0 when only
 * operands are left, from argv[optind]; negative if the command is to return that: a usage error,
 * or help was asked for. Global options are taken on the way. */
int cli_option(struct cli *cli, int argc, char **argv, const struct option *options,
               struct error *err);

/* Takes the global options before the first operand, and leaves that in argv[0]. */
int cli_leading_options(struct cli *cli, int *argc, char ***argv, const struct option *options,
                        struct error *err);

/* Refuses fewer than `min` or more than `max` operands. */
int cli_operands(struct cli *cli, int argc, char **argv, int min, int max, struct error *err);

/* Says a usage error; main.c adds where the help is. Returns -EINVAL. */
int cli_usage(struct cli *cli, struct error *err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* store_check_name(), a wrong name being a usage error. */
int cli_check_name(struct cli *cli, const char *noun, const char *name, struct error *err);

/* Returns `result`; if that is `code`, keeps what to do about it. */
int cli_advise(struct cli *cli, int result, int code, const char *advice);

/* ---- The store (store.c) ---- */

/* True, after a pause, if a call that was refused because a guest is open for writing is to be
 * tried again: a close(2) takes a moment to be seen. Up to a second. */
bool cli_may_be_released(struct cli *cli, int result);

/* Finds the store's path, which the caller frees. */
int cli_store_path(struct cli *cli, char **ret, struct error *err);

/* Opens it, with store_open()'s flags. */
int cli_open_store(struct cli *cli, unsigned flags, struct store **ret, struct error *err);

/* ---- Mounting (mount.c) ---- */

/* Started under this name, the program is what mount(8) calls for "mount -t fuse.fwfs". */
#define CLI_MOUNT_HELPER "mount.fuse.fwfs"

int cli_mount_helper(struct cli *cli, int argc, char **argv, struct error *err);

/* ---- Help (help.c) ---- */

/* Every table of commands, ended by NULL. */
extern const struct command *const command_tables[];

/* The entry for these words; NULL: none. */
const struct command *command_find(const char *noun, const char *verb);

/* Prints the help of a command, of a noun with its verbs, or (NULL) of fwfs. */
void help_print(const struct command *command);

#endif
