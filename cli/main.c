/* fwfs: from the words that were typed to a command, and from its result to an exit code.
 *
 * Every failure comes back here as a negative errno with its text, and leaves as one line on
 * stderr. */
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/output.h"
#include "fs/mount.h"

enum exit_code {
    EXIT_DONE = 0,
    EXIT_FAILED = 1,
    EXIT_USAGE = 2,
    EXIT_MISSING = 3,
    EXIT_IN_USE = 4,
    EXIT_DAMAGE = 5,
    EXIT_MOUNT_FAILED = 32,
};

static const struct option global_options[] = {CLI_GLOBAL_OPTIONS};
static const struct option first_options[] = {
    {"version", no_argument, NULL, 'V'},
    CLI_GLOBAL_OPTIONS,
};

/* `fwfs help …` and `fwfs NOUN help …` take the word out and go on with the rest. */
static void take_help_word(struct cli *cli, int *argc, char ***argv)
{
    if (*argc > 0 && strcmp((*argv)[0], "help") == 0) {
        cli->help = true;
        --*argc;
        ++*argv;
    }
}

static int unknown_word(struct cli *cli, const char *noun, const char *verb, struct error *err)
{
    if (!verb)
        return cli_usage(cli, err, "unknown command '%s'", noun);
    return cli_usage(cli, err, "unknown command '%s %s'", noun, verb);
}

/* Finds the verb of a noun that has some. */
static int find_verb(struct cli *cli, int *argc, char ***argv, struct error *err)
{
    const char *noun = cli->command->noun;
    int r = cli_leading_options(cli, argc, argv, global_options, err);
    if (r < 0)
        return r;
    take_help_word(cli, argc, argv);
    if (*argc == 0)
        return cli->help ? 0 : cli_usage(cli, err, "'fwfs %s' needs a verb", noun);
    const struct command *command = command_find(noun, (*argv)[0]);
    if (!command)
        return unknown_word(cli, noun, (*argv)[0], err);
    cli->command = command;
    return 0;
}

/* Runs what the words say; where help is asked for, leaves it at finding whose. */
static int run(struct cli *cli, int argc, char **argv, struct error *err)
{
    int r = cli_leading_options(cli, &argc, &argv, first_options, err);
    if (r < 0 || cli->version)
        return r;
    take_help_word(cli, &argc, &argv);
    if (argc == 0)
        return cli->help ? 0 : cli_usage(cli, err, "no command given");
    cli->command = command_find(argv[0], NULL);
    if (!cli->command)
        return unknown_word(cli, argv[0], NULL, err);
    if (!cli->command->run) {
        r = find_verb(cli, &argc, &argv, err);
        if (r < 0)
            return r;
    }
    return cli->help ? 0 : cli->command->run(cli, argc, argv, err);
}

/* What to do about errors whose text does not say it, where the command has no better advice. */
static const char *advice_for(int code)
{
    switch (code) {
    case -EACCES:
    case -EPERM:
        return "run it as a user who may, or name another store with --store";
    case -ENOSPC:
    case -EDQUOT:
        return "make room on the disk and run it again";
    case -EUCLEAN:
        return "do not write to it; bring back a backup";
    default:
        return NULL;
    }
}

static enum exit_code exit_code_for(const struct cli *cli, int code)
{
    if (cli->usage)
        return EXIT_USAGE;
    /* mount(8) ends as its helper does, and its codes are other ones: 3 and 4 would tell of a fault
     * of mount itself, 1 of missing permissions. */
    if (cli->mount_helper)
        return EXIT_MOUNT_FAILED;
    switch (code) {
    case -ENOENT:
        return EXIT_MISSING;
    case -EBUSY:
    case -ETXTBSY:
        return EXIT_IN_USE;
    case -EUCLEAN:
        return EXIT_DAMAGE;
    default:
        return EXIT_FAILED;
    }
}

static void report(const struct cli *cli, int code, const struct error *err)
{
    const char *advice = cli->advice ? cli->advice : advice_for(code);
    fputs("fwfs: ", stderr);
    output_text(stderr, *err->text ? err->text : strerror(-code));
    if (cli->usage && !cli->command)
        fputs("; see 'fwfs --help'", stderr);
    else if (cli->usage)
        fprintf(stderr, "; see 'fwfs %s%s%s --help'", cli->command->noun,
                cli->command->verb ? " " : "", cli->command->verb ? cli->command->verb : "");
    else if (advice && !strstr(err->text, "; "))
        fprintf(stderr, "; %s", advice);
    fputc('\n', stderr);
}

/* A store must never become the file that stands at descriptor 1 or 2 because the caller closed
 * them. What stands there instead cannot be written, so that the loss is noticed. */
static int hold_standard_descriptors(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 &&
            open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
            return -errno;
    return 0;
}

int main(int argc, char **argv)
{
    struct cli cli = {0};
    struct error err = {0};

    int status;
    if (argc > 0 && mount_is_part(argv[0], &status))
        return status;
    if (hold_standard_descriptors() < 0)
        return EXIT_FAILED;
    signal(SIGPIPE, SIG_IGN);
    /* For the widths of characters alone: nothing that fwfs prints depends on the user's locale. */
    setlocale(LC_CTYPE, "C.UTF-8");

    cli.mount_helper = argc > 0 && strcmp(basename(argv[0]), CLI_MOUNT_HELPER) == 0;
    int r =
        cli.mount_helper ? cli_mount_helper(&cli, argc, argv, &err) : run(&cli, argc, argv, &err);
    if (cli.help && !cli.usage) {
        help_print(cli.command);
        r = 0;
    } else if (cli.version && !cli.usage) {
        puts("fwfs " FWFS_VERSION);
    }
    struct error unwritten = {0};
    int written = output_finish(&unwritten);
    if (written < 0 && (r == 0 || !*err.text)) {
        r = written;
        err = unwritten;
    }
    if (r == 0)
        return EXIT_DONE;
    report(&cli, r, &err);
    return exit_code_for(&cli, r);
}
