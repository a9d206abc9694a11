/* Help, made of the tables of commands. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

const struct command *const command_tables[] = {
    store_commands, care_commands,     mount_commands, firmware_commands,
    guest_commands, snapshot_commands, NULL,
};

static const char global_help[] =
    "Options of every command:\n"
    "  --store PATH  the store; else $FWFS_STORE, else /var/lib/fwfs/fwfs.db for root,\n"
    "                else fwfs/fwfs.db below $XDG_STATE_HOME (~/.local/state)\n"
    "  --json        print JSON, in objects with a \"schema_version\"\n"
    "  -h, --help    print this help\n"
    "\n"
    "Exit codes: 0 done; 1 failed; 2 wrong usage; 3 something named does not exist;\n"
    "4 in use; 5 damage found. An error is one line on stderr.\n";

static const char general_help[] =
    "fwfs gives every virtual machine its own view of its firmware, in a mounted directory,\n"
    "while all share one copy of what they have not changed.\n"
    "\n"
    "Usage: fwfs [--store PATH] [--json] COMMAND …\n";

static const char general_example[] =
    "A first guest:\n"
    "  fwfs init\n"
    "  fwfs firmware import\n"
    "  fwfs firmware list\n"
    "  fwfs guest add --firmware 60-edk2-x86_64 web01\n"
    "  mkdir -p /fw && fwfs mount /fw\n"
    "  qemu-system-x86_64 $(fwfs guest qemu web01 --mountpoint /fw) -m 512 -nographic\n"
    "\n"
    "'fwfs COMMAND --help' tells more of each. 'fwfs --version' prints the version.\n"
    "\n";

static bool same_word(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

const struct command *command_find(const char *noun, const char *verb)
{
    for (const struct command *const *table = command_tables; *table; table++)
        for (const struct command *command = *table; command->noun; command++)
            if (same_word(command->noun, noun) && same_word(command->verb, verb))
                return command;
    return NULL;
}

/* The commands of a noun, or (NULL) all, a line each. */
static void print_commands(const char *noun)
{
    for (const struct command *const *table = command_tables; *table; table++) {
        for (const struct command *command = *table; command->noun; command++) {
            if (!command->run || (noun && strcmp(command->noun, noun) != 0))
                continue;
            char words[64];
            snprintf(words, sizeof words, "%s%s%s", command->noun, command->verb ? " " : "",
                     command->verb ? command->verb : "");
            printf("  %-17s %s\n", words, command->summary);
        }
    }
}

void help_print(const struct command *command)
{
    if (!command) {
        puts(general_help);
        puts("Commands:");
        print_commands(NULL);
        putchar('\n');
        fputs(general_example, stdout);
    } else if (command->run) {
        printf("Usage: fwfs %s%s%s%s%s\n\n%s\n", command->noun, command->verb ? " " : "",
               command->verb ? command->verb : "", *command->synopsis ? " " : "", command->synopsis,
               command->help);
        if (command->more)
            puts(command->more);
    } else {
        printf("Usage: fwfs %s VERB …\n\n%s\nVerbs:\n", command->noun, command->help);
        print_commands(command->noun);
        printf("\n'fwfs %s VERB --help' tells more of each.\n\n", command->noun);
    }
    fputs(global_help, stdout);
}
