/* fwfs guest add, list, show, rm, undelete, rename, reset, release; see also guest_copy.c and
 * guest_start.c. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/owner.h"
#include "cli/cli.h"
#include "cli/guest.h"
#include "cli/names.h"
#include "cli/output.h"
#include "guest/describe.h"

static const char list_advice[] = "'fwfs guest list' shows what there is";
static const char taken_advice[] = "choose another name, or 'fwfs guest rm' that first";

static const char release_advice[] = "end that, or see 'fwfs guest release'";

static const struct option no_options[] = {CLI_GLOBAL_OPTIONS};

int guest_find(struct cli *cli, int argc, char **argv, unsigned flags, struct store **store,
               struct store_guest *guest, struct error *err)
{
    int r = cli_operands(cli, argc, argv, 1, 1, err);
    if (r == 0)
        r = cli_check_name(cli, "guest", argv[optind], err);
    if (r == 0)
        r = cli_open_store(cli, flags, store, err);
    if (r < 0)
        return r;
    r = store_guest_by_name(*store, argv[optind], guest, err);
    return cli_advise(cli, r, -ENOENT, list_advice);
}

/* ---- add and rm ---- */

static int run_add(struct cli *cli, int argc, char **argv, struct error *err)
{
    enum { FIRMWARE = 1 << 8, OWNER };
    static const struct option options[] = {
        {"firmware", required_argument, NULL, FIRMWARE},
        {"owner", required_argument, NULL, OWNER},
        CLI_GLOBAL_OPTIONS,
    };
    const char *firmware = NULL, *owner = NULL;
    int option;
    while ((option = cli_option(cli, argc, argv, options, err)) != 0) {
        if (option < 0)
            return option;
        if (option == FIRMWARE)
            firmware = optarg;
        else
            owner = optarg;
    }

    cleanup(store_closep) struct store *store = NULL;
    cleanup(names_clear) struct names guests = {0};
    struct store_attr attr = {.uid = geteuid(), .gid = getegid(), .mode = STORE_FLASH_PERMISSIONS};
    int r = cli_operands(cli, argc, argv, 1, argc, err);
    if (r == 0)
        r = firmware ? cli_check_name(cli, "firmware", firmware, err)
                     : cli_usage(cli, err, "--firmware NAME is missing");
    if (r == 0 && owner) {
        r = owner_parse(owner, &attr.uid, &attr.gid, err);
        cli->usage = r == -EINVAL;
    }
    if (r == 0)
        r = names_from_operands(cli, "guest", argc, argv, &guests, err);
    if (r == 0)
        r = cli_open_store(cli, 0, &store, err);
    if (r < 0)
        return r;
    r = store_guest_add(store, firmware, names_values(&guests), guests.count, &attr, err);
    cli_advise(cli, r, -ENOENT, "'fwfs firmware list' shows what there is");
    return cli_advise(cli, r, -EEXIST, taken_advice);
}

/* All that the operands name, in one transaction. Options are taken already. */
static int run_on_guests(struct cli *cli, int argc, char **argv,
                         int (*act)(struct store *store, const char *const *names, size_t count,
                                    struct error *err),
                         struct error *err)
{
    cleanup(store_closep) struct store *store = NULL;
    cleanup(names_clear) struct names guests = {0};
    int r = cli_operands(cli, argc, argv, 1, argc, err);
    if (r == 0)
        r = names_from_operands(cli, "guest", argc, argv, &guests, err);
    if (r == 0)
        r = cli_open_store(cli, 0, &store, err);
    if (r < 0)
        return r;
    do {
        r = act(store, names_values(&guests), guests.count, err);
    } while (cli_may_be_released(cli, r));
    cli_advise(cli, r, -ETXTBSY, release_advice);
    return cli_advise(cli, r, -ENOENT, list_advice);
}

static int run_rm(struct cli *cli, int argc, char **argv, struct error *err)
{
    enum { PURGE = 1 << 8 };
    static const struct option options[] = {{"purge", no_argument, NULL, PURGE},
                                            CLI_GLOBAL_OPTIONS};
    bool purge = false;
    int option;
    while ((option = cli_option(cli, argc, argv, options, err)) != 0) {
        if (option < 0)
            return option;
        purge = true;
    }
    return run_on_guests(cli, argc, argv, purge ? store_guest_purge : store_guest_remove, err);
}

static int run_rename(struct cli *cli, int argc, char **argv, struct error *err)
{
    cleanup(store_closep) struct store *store = NULL;
    int r = cli_option(cli, argc, argv, no_options, err);
    if (r == 0)
        r = cli_operands(cli, argc, argv, 2, 2, err);
    if (r == 0)
        r = cli_check_name(cli, "guest", argv[optind], err);
    if (r == 0)
        r = cli_check_name(cli, "guest", argv[optind + 1], err);
    if (r == 0)
        r = cli_open_store(cli, 0, &store, err);
    if (r < 0)
        return r;
    r = store_guest_rename(store, argv[optind], argv[optind + 1], err);
    cli_advise(cli, r, -ENOENT, list_advice);
    return cli_advise(cli, r, -EEXIST, taken_advice);
}

static int run_reset(struct cli *cli, int argc, char **argv, struct error *err)
{
    int r = cli_option(cli, argc, argv, no_options, err);
    return r < 0 ? r : run_on_guests(cli, argc, argv, store_guest_reset, err);
}

static int run_undelete(struct cli *cli, int argc, char **argv, struct error *err)
{
    cleanup(store_closep) struct store *store = NULL;
    int r = cli_option(cli, argc, argv, no_options, err);
    if (r == 0)
        r = cli_operands(cli, argc, argv, 1, 1, err);
    if (r == 0)
        r = cli_check_name(cli, "guest", argv[optind], err);
    if (r == 0)
        r = cli_open_store(cli, 0, &store, err);
    if (r < 0)
        return r;
    r = store_guest_undelete(store, argv[optind], err);
    return cli_advise(cli, r, -EEXIST, "'fwfs guest rename' that first");
}

/* A process of this number that is there may well be the one that holds it. */
static int refuse_living(const struct store_holder *holder, const char *guest, struct error *err)
{
    if (holder->opener.pid == 0 || (kill((pid_t)holder->opener.pid, 0) < 0 && errno == ESRCH))
        return 0;
    return error_set(err, -EBUSY,
                     "guest '%s' is open for writing by process %lld (%s), which is there; end it, "
                     "or take it away with --force",
                     guest, (long long)holder->opener.pid, holder->opener.command);
}

static int run_release(struct cli *cli, int argc, char **argv, struct error *err)
{
    enum { FORCE = 1 << 8 };
    static const struct option options[] = {{"force", no_argument, NULL, FORCE},
                                            CLI_GLOBAL_OPTIONS};
    bool force = false;
    int option;
    while ((option = cli_option(cli, argc, argv, options, err)) != 0) {
        if (option < 0)
            return option;
        force = true;
    }
    cleanup(store_closep) struct store *store = NULL;
    struct store_guest guest;
    struct store_holder holder;
    int r = guest_find(cli, argc, argv, 0, &store, &guest, err);
    if (r == 0)
        r = store_lease_get(store, guest.flash.id, &holder, err);
    if (r <= 0)
        return r;
    r = force ? 0 : refuse_living(&holder, guest.name, err);
    return r < 0 ? r : store_lease_break(store, guest.flash.id, err);
}

/* ---- list ---- */

struct listing {
    struct table table;
    struct json_list json;
    struct error *err;
};

static void listing_clear(struct listing *listing)
{
    table_clear(&listing->table);
}

/* The members are those of describe_guest(), without those that would cost a query a guest. NULL
 * when memory ran out. */
static struct json_object *describe_row(const struct store_guest *guest)
{
    cleanup_json struct json_object *object = json_object_new_object();
    cleanup_json struct json_object *owner = json_object_new_object();
    const char *mode = flash_mode_name(guest->firmware.mode);
    if (!object || !owner || json_add(object, "guest", json_object_new_string(guest->name)) < 0 ||
        json_add(object, "mode", json_object_new_string(mode)) < 0 ||
        json_add(object, "firmware", json_object_new_string(guest->firmware.name)) < 0 ||
        json_add(owner, "uid", json_object_new_int64(guest->flash.attr.uid)) < 0 ||
        json_add(owner, "gid", json_object_new_int64(guest->flash.attr.gid)) < 0 ||
        json_add(object, "owner", steal_ptr(owner)) < 0)
        return NULL;
    return steal_ptr(object);
}

static int list_json(const struct store_guest *guest, void *data)
{
    struct listing *listing = data;
    return json_list_add(&listing->json, describe_row(guest), listing->err);
}

static int list_row(const struct store_guest *guest, void *data)
{
    struct listing *listing = data;
    char owner[OWNER_TEXT_SIZE];
    table_row(&listing->table,
              (const char *const[]){
                  guest->name, guest->firmware.name, flash_mode_name(guest->firmware.mode),
                  owner_text(guest->flash.attr.uid, guest->flash.attr.gid, owner)});
    return 0;
}

static int run_list(struct cli *cli, int argc, char **argv, struct error *err)
{
    static const char *const headings[] = {"GUEST", "FIRMWARE", "MODE", "OWNER"};
    cleanup(store_closep) struct store *store = NULL;
    cleanup(listing_clear) struct listing listing = {.err = err};
    int r = cli_option(cli, argc, argv, no_options, err);
    if (r == 0)
        r = cli_operands(cli, argc, argv, 0, 0, err);
    if (r == 0)
        r = cli_open_store(cli, STORE_READ_ONLY, &store, err);
    if (r < 0)
        return r;
    if (cli->json) {
        listing.json.name = "guests";
        r = store_guest_each(store, STORE_GUESTS_BY_NAME, 0, list_json, &listing, err);
        if (r == 0)
            json_list_end(&listing.json);
        return r;
    }
    r = table_begin(&listing.table, sizeof headings / sizeof headings[0], headings, err);
    if (r == 0)
        r = store_guest_each(store, STORE_GUESTS_BY_NAME, 0, list_row, &listing, err);
    return r < 0 ? r : table_print(&listing.table, err);
}

/* ---- show ---- */

static int run_show(struct cli *cli, int argc, char **argv, struct error *err)
{
    cleanup(store_closep) struct store *store = NULL;
    struct store_guest guest;
    int r = cli_option(cli, argc, argv, no_options, err);
    if (r == 0)
        r = guest_find(cli, argc, argv, STORE_READ_ONLY, &store, &guest, err);
    if (r < 0)
        return r;
    if (cli->json) {
        cleanup_free char *text = NULL;
        r = describe_guest_text(store, &guest, &text, err);
        if (r == 0)
            output_json_text(text);
        return r;
    }
    cleanup_json struct json_object *object = json_object_new_object();
    if (object)
        r = describe_guest(store, &guest, object, err);
    return r < 0 ? r : output_object(steal_ptr(object), err);
}

/* ---- Help ---- */

static const char noun_help[] =
    "A guest is a virtual machine, named by you. In a mounted store it is a directory of that\n"
    "name with the firmware that the machine is started with. All guests of one firmware share\n"
    "its bytes; each keeps only what it changed.\n"
    "\n"
    "A name has 1 to 255 bytes of UTF-8, without '/' and control characters, and does not begin\n"
    "with '.' or '-'. Where GUEST… stands, '-' reads names from stdin, a line each; all guests\n"
    "of one command are added, or removed, together or not at all.\n";

static const char add_help[] =
    "Adds guests of one firmware, all or none of them. Their variables begin as the firmware's\n"
    "nvram-template, or in mode combined as the whole image. Exit code 3: no such firmware, user\n"
    "or group. A guest of that name is an error (1).\n"
    "\n"
    "Options:\n"
    "  --firmware NAME        what they are made of, see 'fwfs firmware list'\n"
    "  --owner USER[:GROUP]   whose their files are, by name or number; a USER alone means that\n"
    "                         user's login group. If not given: you. Others cannot read them\n"
    "\n"
    "Examples:\n"
    "  fwfs guest add --firmware 60-edk2-x86_64 --owner libvirt-qemu web01 web02\n"
    "  seq -f 'vm%05g' 10000 | fwfs guest add --firmware 60-edk2-x86_64 -\n";

static const char list_help[] =
    "Lists all guests by name: firmware, mode, and the owner of their files.\n"
    "\n"
    "Example:\n"
    "  fwfs guest list --json | jq -r '.guests[] | select(.mode == \"combined\") | .guest'\n";

static const char show_help[] =
    "Prints what is known of one guest: its firmware, the images with their SHA-256 digests,\n"
    "its sizes, and what it keeps of its own. With --json this is what guest.json holds in the\n"
    "guest's directory. Exit code 3: no such guest.\n"
    "\n"
    "Example:\n"
    "  fwfs guest show web01\n";

static const char rm_help[] =
    "Removes guests, all or none of them. For seven days 'fwfs guest undelete' brings them back.\n"
    "Exit code 3: one of them does not exist; 4: one is in use.\n"
    "\n"
    "Options:\n"
    "  --purge  at once and for good, with all that they wrote; also those of these names that\n"
    "           were removed before\n"
    "\n"
    "Example:\n"
    "  fwfs guest rm web01 web02\n";

static const char undelete_help[] =
    "Brings back the guest of this name that was removed last, with all that it wrote and its\n"
    "snapshots. Exit code 3: none was, in the last seven days. A guest of that name is an error\n"
    "(1).\n"
    "\n"
    "Example:\n"
    "  fwfs guest undelete web01\n";

static const char rename_help[] =
    "Gives a guest another name. What it wrote stays as it is, and what is open stays open.\n"
    "Exit code 3: no guest OLD. A guest NEW that exists is an error (1).\n"
    "\n"
    "Example:\n"
    "  fwfs guest rename web01 web-blue\n";

static const char reset_help[] =
    "Makes the variables of guests (in mode combined: the whole image) what they began as, for\n"
    "all or none of them. Owner, mode and extended attributes stay. Exit code 3: one of them does\n"
    "not exist; 4: one is in use.\n"
    "\n"
    "Example:\n"
    "  fwfs guest reset web01\n";

static const char release_help[] =
    "Takes a guest away from the process that has it open for writing, so that another can have\n"
    "it. That is for a holder that is gone but was not seen to go; while a process of its number\n"
    "is there, this is refused (exit code 4). 'fwfs guest show' tells who holds a guest. A guest\n"
    "that nobody holds is left as it is. Exit code 3: no such guest.\n"
    "\n"
    "Options:\n"
    "  --force  also from a process that is there; it can then still write\n"
    "\n"
    "Example:\n"
    "  fwfs guest release web01\n";

const struct command guest_commands[] = {
    {
        .noun = "guest",
        .help = noun_help,
    },
    {
        .noun = "guest",
        .verb = "add",
        .synopsis = "--firmware NAME [--owner USER[:GROUP]] GUEST…",
        .summary = "add guests of one firmware",
        .help = add_help,
        .run = run_add,
    },
    {
        .noun = "guest",
        .verb = "list",
        .synopsis = "",
        .summary = "list all guests",
        .help = list_help,
        .run = run_list,
    },
    {
        .noun = "guest",
        .verb = "show",
        .synopsis = "GUEST",
        .summary = "print what is known of one guest",
        .help = show_help,
        .run = run_show,
    },
    {
        .noun = "guest",
        .verb = "rm",
        .synopsis = "[--purge] GUEST…",
        .summary = "remove guests and what they wrote",
        .help = rm_help,
        .run = run_rm,
    },
    {
        .noun = "guest",
        .verb = "undelete",
        .synopsis = "GUEST",
        .summary = "bring back a guest that was removed",
        .help = undelete_help,
        .run = run_undelete,
    },
    {
        .noun = "guest",
        .verb = "rename",
        .synopsis = "OLD NEW",
        .summary = "give a guest another name",
        .help = rename_help,
        .run = run_rename,
    },
    {
        .noun = "guest",
        .verb = "clone",
        .synopsis = "FROM TO",
        .summary = "add a guest that is what another is now",
        .help = guest_clone_help,
        .run = guest_run_clone,
    },
    {
        .noun = "guest",
        .verb = "export",
        .synopsis = "GUEST FILE",
        .summary = "write a guest whole into a file",
        .help = guest_export_help,
        .run = guest_run_export,
    },
    {
        .noun = "guest",
        .verb = "import",
        .synopsis = "FILE [GUEST]",
        .summary = "add the guest of such a file",
        .help = guest_import_help,
        .run = guest_run_import,
    },
    {
        .noun = "guest",
        .verb = "reset",
        .synopsis = "GUEST…",
        .summary = "make the variables of guests what they began as",
        .help = reset_help,
        .run = run_reset,
    },
    {
        .noun = "guest",
        .verb = "release",
        .synopsis = "[--force] GUEST",
        .summary = "take a guest away from who has it open",
        .help = release_help,
        .run = run_release,
    },
    {
        .noun = "guest",
        .verb = "qemu",
        .synopsis = "GUEST --mountpoint DIR",
        .summary = "print the QEMU arguments that start a guest",
        .help = guest_qemu_help,
        .run = guest_run_qemu,
    },
    {
        .noun = "guest",
        .verb = "libvirt",
        .synopsis = "GUEST --mountpoint DIR [--virt-type kvm|qemu]",
        .summary = "print the libvirt domain that starts a guest",
        .help = guest_libvirt_help,
        .run = guest_run_libvirt,
    },
    {0},
};
