/* Words given by the user: lists of names, and owners. */
#ifndef FWFS_CLI_NAMES_H
#define FWFS_CLI_NAMES_H

#include <stdint.h>

#include "cli/cli.h"

struct names {
    char **values;
    size_t count, allocated;
};

int names_add(struct names *names, const char *name, struct error *err);
void names_clear(struct names *names);

/* The list as the library takes it. */
static inline const char *const *names_values(const struct names *names)
{
    return (const char *const *)names->values;
}

/* The operands from argv[optind], which are names of `noun`s; "-" stands for those on stdin, a line
 * each. Every one is a name that a `noun` can have. */
int names_from_operands(struct cli *cli, const char *noun, int argc, char **argv, struct names *ret,
                        struct error *err);

#define OWNER_TEXT_SIZE 80

/* "USER:GROUP", numbers where they have no names (or very long ones). Returns `buffer`. */
const char *owner_text(uint32_t uid, uint32_t gid, char buffer[OWNER_TEXT_SIZE]);

#endif
