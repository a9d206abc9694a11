/* fwfs mount */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "cli/cli.h"
#include "fs/mount.h"

/* -o may be given more than once; the list is the same as if it had been typed in one. */
static int append_options(char **list, const char *options, struct error *err)
{
    char *longer = NULL;
    if (asprintf(&longer, "%s%s%s", *list ? *list : "", *list ? "," : "", options) < 0)
        return error_set(err, -ENOMEM, "no memory for the mount's options");
    free(*list);
    *list = longer;
    return 0;
}

/* Opens the store once, so that what is wrong with it is told apart from wrong options. */
static int check_store(struct cli *cli, char **path, struct error *err)
{
    cleanup(store_closep) struct store *store = NULL;
    int r = cli_store_path(cli, path, err);
    return r < 0 ? r : cli_open_store(cli, STORE_READ_ONLY, &store, err);
}

static int run_mount(struct cli *cli, int argc, char **argv, struct error *err)
{
    static const struct option options[] = {
        {"options", required_argument, NULL, 'o'},
        {"foreground", no_argument, NULL, 'f'},
        {"reload", no_argument, NULL, 'r'},
        CLI_GLOBAL_OPTIONS,
    };
    cleanup_free char *list = NULL, *store = NULL;
    struct mount_config config = {0};
    bool reload = false;
    int option, r = 0;
    while (r == 0 && (option = cli_option(cli, argc, argv, options, err)) != 0) {
        if (option < 0)
            return option;
        if (option == 'o')
            r = append_options(&list, optarg, err);
        else if (option == 'r')
            reload = true;
        else
            config.foreground = true;
    }
    if (r == 0)
        r = cli_operands(cli, argc, argv, 1, 1, err);
    if (r == 0 && reload && (list || config.foreground))
        r = cli_usage(cli, err, "--reload takes no other option");
    if (r == 0 && reload)
        return mount_reload(argv[optind], err);
    if (r == 0)
        r = check_store(cli, &store, err);
    if (r < 0)
        return r;

    config.store = store;
    config.mountpoint = argv[optind];
    config.options = list;
    r = mount_run(&config, err);
    if (r == -EINVAL)
        cli->usage = true; /* the options: the only thing left that can be invalid */
    return cli_advise(cli, r, -ENOTDIR, "name a directory");
}

static const char mount_help[] =
    "Mounts the store at an existing directory, where each guest is a directory of its own,\n"
    "with its firmware as files:\n"
    "  code           what the guest runs; read-only, but for combined firmware\n"
    "  vars           the guest's own variables; only of split firmware\n"
    "  firmware.json  a descriptor by QEMU's schema, with the names of these files\n"
    "  guest.json     what 'fwfs guest show --json' prints\n"
    "Returns when the mount answers, and leaves a process behind that serves it until\n"
    "'umount MOUNTPOINT' or 'fusermount3 -u MOUNTPOINT'. Exit code 3: no such directory, or\n"
    "no store; 4: something is mounted there already, or the store is elsewhere.\n"
    "\n"
    "The process may be upgraded, and may even crash, while guests run: install the new fwfs and\n"
    "run 'fwfs mount --reload MOUNTPOINT' (or send SIGHUP to the supervisor that 'fwfs status'\n"
    "names). No request fails, and if the new program does not work the old one goes on. On a\n"
    "kernel older than 6.9 an upgrade works too, but a crash leaves requests unanswered that\n"
    "were under way then: who waits for them waits until the mount is aborted.\n"
    "\n"
    "Options:\n"
    "  -o, --options OPT,…  options of the mount, see below; may be given more than once\n"
    "  -r, --reload         upgrade a mount that is there to the fwfs that is installed now\n"
    "  -f, --foreground     stay and log to stderr until it is unmounted\n"
    "\n"
    "Example:\n"
    "  mkdir -p /fw && fwfs mount /fw && ls /fw\n"
    "\n"
    "Options of the mount:";

const struct command mount_commands[] = {
    {
        .noun = "mount",
        .synopsis = "MOUNTPOINT [-o OPT,…] [--foreground] | mount --reload MOUNTPOINT",
        .summary = "mount the guests' views at a directory",
        .help = mount_help,
        .more = mount_options_help,
        .run = run_mount,
    },
    {0},
};
