/* Options and operands, alike for every command: getopt_long() with fwfs' own words for what is
 * wrong. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

int cli_usage(struct cli *cli, struct error *err, const char *format, ...)
{
    char text[ERROR_TEXT_SIZE];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    cli->usage = true;
    return error_set(err, -EINVAL, "%s", text);
}

int cli_check_name(struct cli *cli, const char *noun, const char *name, struct error *err)
{
    int r = store_check_name(noun, name, err);
    if (r < 0)
        cli->usage = true;
    return r;
}

int cli_advise(struct cli *cli, int result, int code, const char *advice)
{
    if (result == code)
        cli->advice = advice;
    return result;
}

static const struct option *option_by_val(const struct option *options, int val)
{
    for (; options->name; options++)
        if (options->val == val)
            return options;
    return NULL;
}

/* `leading` stops at the first operand; otherwise options and operands may be mixed. */
static void short_options(const struct option *options, bool leading, char *buffer)
{
    if (leading)
        *buffer++ = '+';
    *buffer++ = ':';
    for (; options->name; options++) {
        if (options->val > 0x7f)
            continue;
        *buffer++ = (char)options->val;
        if (options->has_arg == required_argument)
            *buffer++ = ':';
    }
    *buffer = '\0';
}

/* getopt_long() returned '?' or ':'; optopt and the word it stopped at tell why. */
static int refused_option(struct cli *cli, const struct option *options, bool lacks_value,
                          const char *word, struct error *err)
{
    const struct option *known = option_by_val(options, optopt);
    if (lacks_value)
        return cli_usage(cli, err, "the option '%s' needs a value", word);
    if (known)
        return cli_usage(cli, err, "the option '--%s' takes no value", known->name);
    if (optopt)
        return cli_usage(cli, err, "unknown option '-%c'", optopt);
    return cli_usage(cli, err, "unknown or ambiguous option '%s'", word);
}

static int next_option(struct cli *cli, int argc, char **argv, const struct option *options,
                       bool leading, struct error *err)
{
    char letters[64];
    short_options(options, leading, letters);
    opterr = 0;
    for (;;) {
        int option = getopt_long(argc, argv, letters, options, NULL);
        switch (option) {
        case -1:
            return 0;
        case '?':
        case ':':
            return refused_option(cli, options, option == ':', argv[optind - 1], err);
        case OPTION_STORE:
            if (!*optarg)
                return cli_usage(cli, err, "--store has an empty path");
            cli->store_option = optarg;
            break;
        case OPTION_JSON:
            cli->json = true;
            break;
        case 'h':
            cli->help = true;
            return -ECANCELED;
        default:
            return option;
        }
    }
}

int cli_option(struct cli *cli, int argc, char **argv, const struct option *options,
               struct error *err)
{
    return next_option(cli, argc, argv, options, false, err);
}

int cli_leading_options(struct cli *cli, int *argc, char ***argv, const struct option *options,
                        struct error *err)
{
    optind = 0; /* glibc: start afresh, with argv[1] */
    int r;
    while ((r = next_option(cli, *argc, *argv, options, true, err)) > 0)
        if (r == 'V')
            cli->version = true;
    *argc -= optind;
    *argv += optind;
    optind = 0;
    return r;
}

int cli_operands(struct cli *cli, int argc, char **argv, int min, int max, struct error *err)
{
    int count = argc - optind;
    if (count > max)
        return cli_usage(cli, err, "the argument '%s' is one too many", argv[optind + max]);
    if (count < min)
        return cli_usage(cli, err, "too few arguments, it takes: %s", cli->command->synopsis);
    return 0;
}
