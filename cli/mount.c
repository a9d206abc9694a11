/* fwfs mount, and the same as mount(8) has it done. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "cli/cli.h"
#include "fs/mount.h"
#include "fs/options.h"

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

/* Mounts the store that `cli` names. */
static int mount_store(struct cli *cli, struct mount_config *config, struct error *err)
{
    cleanup_free char *store = NULL;
    int r = check_store(cli, &store, err);
    if (r < 0)
        return r;
    config->store = store;
    r = mount_run(config, err);
    if (r == -EINVAL)
        cli->usage = true; /* the options: the only thing left that can be invalid */
    return cli_advise(cli, r, -ENOTDIR, "name a directory");
}

static int run_mount(struct cli *cli, int argc, char **argv, struct error *err)
{
    static const struct option options[] = {
        {"options", required_argument, NULL, 'o'},
        {"foreground", no_argument, NULL, 'f'},
        {"reload", no_argument, NULL, 'r'},
        CLI_GLOBAL_OPTIONS,
    };
    cleanup_free char *list = NULL;
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
    if (r < 0)
        return r;
    config.mountpoint = argv[optind];
    config.options = list;
    return mount_store(cli, &config, err);
}

/* ---- For mount(8) ---- */

/* mount(8) -N: it stays in its own namespace, and names the one to mount in. */
static int enter_namespace(const char *path, struct error *err)
{
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, CLONE_NEWNS) < 0)
        return error_set(err, -errno, "%s: the namespace cannot be entered: %m", path);
    return 0;
}

/* mount(8) -s: what is not understood is left out. */
static int keep_known(char **list, struct error *err)
{
    cleanup_free char *given = steal_ptr(*list);
    char *next = given, *option;
    int r = 0;
    while (r == 0 && (option = strsep(&next, ","))) {
        struct mount_options parsed;
        if (options_parse(option, &parsed, NULL) == 0)
            r = append_options(list, option, err);
    }
    return r;
}

int cli_mount_helper(struct cli *cli, int argc, char **argv, struct error *err)
{
    static const struct option options[] = {
        {"sloppy", no_argument, NULL, 's'},        {"fake", no_argument, NULL, 'f'},
        {"no-mtab", no_argument, NULL, 'n'},       {"verbose", no_argument, NULL, 'v'},
        {"types", required_argument, NULL, 't'},   {"namespace", required_argument, NULL, 'N'},
        {"options", required_argument, NULL, 'o'}, CLI_GLOBAL_OPTIONS,
    };
    cleanup_free char *list = NULL;
    struct mount_config config = {0};
    const char *namespace = NULL;
    bool sloppy = false;
    int option, r = 0;
    cli->command = command_find("mount", NULL);
    while (r == 0 && (option = cli_option(cli, argc, argv, options, err)) != 0) {
        if (option < 0)
            return option;
        if (option == 'o')
            r = append_options(&list, optarg, err);
        sloppy = sloppy || option == 's';
        config.check_only = config.check_only || option == 'f';
        namespace = option == 'N' ? optarg : namespace;
    }
    if (r == 0 && argc - optind != 2)
        r = cli_usage(cli, err, "mount.fuse.fwfs takes: STORE MOUNTPOINT [-sfnv] [-o OPT,…]");
    if (r == 0 && sloppy && list)
        r = keep_known(&list, err);
    if (r == 0 && namespace)
        r = enter_namespace(namespace, err);
    if (r < 0)
        return r;
    cli->store_option = argv[optind];
    config.mountpoint = argv[optind + 1];
    config.options = list;
    return mount_store(cli, &config, err);
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
    "A store is mounted read-write once; meanwhile '-o ro' mounts it at other places, which show\n"
    "within a second what is changed. A user who is not root needs fusermount3.\n"
    "\n"
    "'mount -t fuse.fwfs STORE MOUNTPOINT -o OPT,…' does the same, and so does a line in fstab:\n"
    "  /var/lib/fwfs/fwfs.db  /fw  fuse.fwfs  defaults  0  0\n"
    "mount(8) then ends with 2 for a wrong option and 32 for all other failures.\n"
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
