/* fwfs guest clone, export, import: a guest once more, here or in a file of its own. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/guest.h"

static const char list_advice[] = "'fwfs guest list' shows what there is";
static const char taken_advice[] = "choose another name, or 'fwfs guest rm' that first";

static const struct option no_options[] = {CLI_GLOBAL_OPTIONS};

/* Takes the options and checks `count` names of guests among the operands, from `first` on. */
static int parse(struct cli *cli, int argc, char **argv, int min, int max, int first, int count,
                 struct error *err)
{
    int r = cli_option(cli, argc, argv, no_options, err);
    if (r == 0)
        r = cli_operands(cli, argc, argv, min, max, err);
    for (int i = optind + first; i < optind + first + count && i < argc && r == 0; i++)
        r = cli_check_name(cli, "guest", argv[i], err);
    return r;
}

int guest_run_clone(struct cli *cli, int argc, char **argv, struct error *err)
{
    cleanup(store_closep) struct store *store = NULL;
    int r = parse(cli, argc, argv, 2, 2, 0, 2, err);
    if (r == 0)
        r = cli_open_store(cli, 0, &store, err);
    if (r < 0)
        return r;
    r = store_guest_clone(store, argv[optind], argv[optind + 1], err);
    cli_advise(cli, r, -ENOENT, list_advice);
    return cli_advise(cli, r, -EEXIST, taken_advice);
}

/* ---- In a file ---- */

static int copy_into(const char *file, struct store *from, const char *guest, struct error *err)
{
    cleanup(store_closep) struct store *to = NULL;
    int r = store_open(file, 0, &to, err);
    if (r == 0)
        r = store_guest_copy(from, guest, to, guest, err);
    /* What was not compressed yet is now: nobody will do it later. */
    while (r == 0 && store_maintain(to, NULL) > 0)
        ;
    return r;
}

/* The file is a store, whole or not at all. */
static int write_file(const char *file, struct store *from, const char *guest, struct error *err)
{
    struct store_guest found;
    int r = store_guest_by_name(from, guest, &found, err);
    if (r == 0)
        r = store_create(file, err);
    if (r < 0)
        return r;
    r = copy_into(file, from, guest, err);
    if (r < 0)
        unlink(file);
    return r;
}

int guest_run_export(struct cli *cli, int argc, char **argv, struct error *err)
{
    cleanup(store_closep) struct store *store = NULL;
    int r = parse(cli, argc, argv, 2, 2, 0, 1, err);
    if (r == 0)
        r = cli_open_store(cli, STORE_READ_ONLY, &store, err);
    if (r < 0)
        return r;
    r = write_file(argv[optind + 1], store, argv[optind], err);
    cli_advise(cli, r, -ENOENT, list_advice);
    return cli_advise(cli, r, -EEXIST, "name a file that is not there");
}

/* The one guest of a file. */
struct only {
    unsigned count;
    char name[STORE_NAME_MAX + 1];
};

static int count_guest(const struct store_guest *guest, void *data)
{
    struct only *only = data;
    snprintf(only->name, sizeof only->name, "%s", guest->name);
    return ++only->count > 1;
}

static int find_only(struct store *from, const char *file, struct only *only, struct error *err)
{
    int r = store_guest_each(from, STORE_GUESTS_BY_ID, 0, count_guest, only, err);
    if (r < 0 || only->count == 1)
        return r < 0 ? r : 0;
    return error_set(err, -EINVAL, "%s holds %s; it takes a file that 'fwfs guest export' wrote",
                     file, only->count ? "more than one guest" : "no guest");
}

int guest_run_import(struct cli *cli, int argc, char **argv, struct error *err)
{
    cleanup(store_closep) struct store *from = NULL;
    cleanup(store_closep) struct store *store = NULL;
    struct only only = {0};
    int r = parse(cli, argc, argv, 1, 2, 1, 1, err);
    if (r == 0)
        r = store_open(argv[optind], STORE_READ_ONLY, &from, err);
    if (r == 0)
        r = find_only(from, argv[optind], &only, err);
    if (r == 0)
        r = cli_open_store(cli, 0, &store, err);
    if (r < 0)
        return r;
    r = store_guest_copy(from, only.name, store, optind + 1 < argc ? argv[optind + 1] : only.name,
                         err);
    return cli_advise(cli, r, -EEXIST, taken_advice);
}

/* ---- Help ---- */

const char guest_clone_help[] =
    "Adds guest TO, which is what FROM is now: the same firmware, owner, variables and extended\n"
    "attributes. Snapshots and restore points stay with FROM. If FROM runs, TO is what it had\n"
    "written about a second ago. Exit code 3: no guest FROM. A guest TO that exists is an error\n"
    "(1).\n"
    "\n"
    "Example:\n"
    "  fwfs guest clone golden web03\n";

const char guest_export_help[] =
    "Writes one guest whole, with its firmware, variables, attributes and restore points, into a\n"
    "new file, which is a small store of its own ('fwfs --store FILE guest list' works). Exit\n"
    "code 3: no such guest. A file that exists is an error (1).\n"
    "\n"
    "Example:\n"
    "  fwfs guest export web01 /backup/web01.fwfs\n";

const char guest_import_help[] =
    "Adds the guest that 'fwfs guest export' wrote into FILE, under its name or another; its\n"
    "firmware is added too if it is not there. Exit code 3: no such file. A guest, or other\n"
    "firmware, of that name is an error (1).\n"
    "\n"
    "Example:\n"
    "  fwfs guest import /backup/web01.fwfs web01-restored\n";
