/* fwfs snapshot add, list, restore, rm. */
#include <errno.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "cli/cli.h"
#include "cli/output.h"
#include "guest/describe.h"

static const char guest_advice[] = "'fwfs guest list' shows the guests, 'fwfs snapshot list GUEST' "
                                   "what there is of one";
static const char taken_advice[] = "choose another name, or 'fwfs snapshot rm' that first";
static const char held_advice[] = "end that, or see 'fwfs guest release'";

static const struct option no_options[] = {CLI_GLOBAL_OPTIONS};

/* ---- add, restore and rm ---- */

static int run_on_point(struct cli *cli, int argc, char **argv,
                        int (*act)(struct store *store, const char *guest, const char *name,
                                   struct error *err),
                        struct error *err)
{
    cleanup(store_closep) struct store *store = NULL;
    int r = cli_option(cli, argc, argv, no_options, err);
    if (r == 0)
        r = cli_operands(cli, argc, argv, 2, 2, err);
    if (r == 0)
        r = cli_check_name(cli, "guest", argv[optind], err);
    if (r == 0)
        r = cli_check_name(cli, "snapshot", argv[optind + 1], err);
    if (r == 0)
        r = cli_open_store(cli, 0, &store, err);
    if (r < 0)
        return r;
    do {
        r = act(store, argv[optind], argv[optind + 1], err);
    } while (cli_may_be_released(cli, r));
    cli->usage = r == -EINVAL;
    cli_advise(cli, r, -ENOENT, guest_advice);
    cli_advise(cli, r, -ETXTBSY, held_advice);
    return cli_advise(cli, r, -EEXIST, taken_advice);
}

static int run_add(struct cli *cli, int argc, char **argv, struct error *err)
{
    return run_on_point(cli, argc, argv, store_snapshot_add, err);
}

static int run_restore(struct cli *cli, int argc, char **argv, struct error *err)
{
    return run_on_point(cli, argc, argv, store_point_restore, err);
}

static int run_rm(struct cli *cli, int argc, char **argv, struct error *err)
{
    return run_on_point(cli, argc, argv, store_point_remove, err);
}

/* ---- list ---- */

struct listing {
    struct store *store;
    const char *guest; /* whose points are being listed */
    struct table table;
    struct json_list json;
    bool as_json;
    struct error *err;
};

static void listing_clear(struct listing *listing)
{
    table_clear(&listing->table);
}

static const char *kind_name(enum store_point_kind kind)
{
    switch (kind) {
    case STORE_POINT_SESSION:
        return "session";
    case STORE_POINT_EDIT:
        return "edit";
    case STORE_POINT_SNAPSHOT:
        return "snapshot";
    }
    return "?";
}

/* NULL when memory ran out. */
static struct json_object *describe_point(const char *guest, const struct store_point *point)
{
    cleanup_json struct json_object *object = json_object_new_object();
    if (!object || json_add(object, "guest", json_object_new_string(guest)) < 0 ||
        json_add(object, "snapshot", json_object_new_string(point->name)) < 0 ||
        json_add(object, "kind", json_object_new_string(kind_name(point->kind))) < 0 ||
        json_add(object, "created_at", describe_time(point->created_at)) < 0 ||
        json_add(object, "delta_bytes", json_object_new_uint64(point->blocks * STORE_BLOCK_SIZE)) <
            0 ||
        json_add(object, "stored_bytes", json_object_new_uint64(point->stored_bytes)) < 0)
        return NULL;
    return steal_ptr(object);
}

static int list_point(const struct store_point *point, void *data)
{
    struct listing *listing = data;
    if (listing->as_json)
        return json_list_add(&listing->json, describe_point(listing->guest, point), listing->err);
    char stored[OUTPUT_SIZE_LENGTH];
    cleanup_json struct json_object *time = describe_time(point->created_at);
    table_row(&listing->table,
              (const char *const[]){listing->guest, point->name, kind_name(point->kind),
                                    json_object_get_string(time),
                                    output_size(point->stored_bytes, stored)});
    return output_failed();
}

static int list_guest(const struct store_guest *guest, void *data)
{
    struct listing *listing = data;
    listing->guest = guest->name;
    return store_point_each(listing->store, guest->id, list_point, listing, listing->err);
}

/* Of the guest that is named, or of all. */
static int list(struct listing *listing, const char *name, struct error *err)
{
    struct store_guest guest;
    if (!name)
        return store_guest_each(listing->store, STORE_GUESTS_BY_NAME, 0, list_guest, listing, err);
    int r = store_guest_by_name(listing->store, name, &guest, err);
    return r < 0 ? r : list_guest(&guest, listing);
}

static int run_list(struct cli *cli, int argc, char **argv, struct error *err)
{
    static const char *const headings[] = {"GUEST", "SNAPSHOT", "KIND", "CREATED", "STORED"};
    cleanup(store_closep) struct store *store = NULL;
    cleanup(listing_clear) struct listing listing = {.as_json = cli->json, .err = err};
    int r = cli_option(cli, argc, argv, no_options, err);
    if (r == 0)
        r = cli_operands(cli, argc, argv, 0, 1, err);
    const char *name = optind < argc ? argv[optind] : NULL;
    if (r == 0 && name)
        r = cli_check_name(cli, "guest", name, err);
    if (r == 0)
        r = cli_open_store(cli, STORE_READ_ONLY, &store, err);
    if (r < 0)
        return r;
    listing.store = store;
    listing.as_json = cli->json;
    listing.json.name = "snapshots";
    if (!cli->json)
        r = table_begin(&listing.table, sizeof headings / sizeof headings[0], headings, err);
    if (r == 0)
        r = cli_advise(cli, list(&listing, name, err), -ENOENT,
                       "'fwfs guest list' shows what there is");
    if (r == 0 && cli->json)
        json_list_end(&listing.json);
    return r < 0 || cli->json ? r : table_print(&listing.table, err);
}

/* ---- Help ---- */

static const char noun_help[] =
    "What a guest's flash was before. Restore points come by themselves: session-N is what it\n"
    "was before a machine wrote to it, edit-N before it was replaced, reset or restored. Of each\n"
    "the last ten are kept, and one a day for a week. Snapshots are those that you name; they\n"
    "stay until you remove them. Each costs the blocks that were changed since. All of them can\n"
    "be read in the mount, below .snapshots/NAME/ in the guest's directory.\n";

static const char add_help[] =
    "Keeps what a guest's flash is now under a name, also while the guest runs (then as of about\n"
    "a second ago). Exit code 3: no such guest. A snapshot of that name is an error (1).\n"
    "\n"
    "Example:\n"
    "  fwfs snapshot add web01 before-upgrade\n";

static const char list_help[] =
    "Lists snapshots and restore points, of one guest or of all, the newest first, with the time\n"
    "and what they keep. Exit code 3: no such guest.\n"
    "\n"
    "Example:\n"
    "  fwfs snapshot list web01\n";

static const char restore_help[] =
    "Makes a guest's flash what it was. What it is now becomes a restore point, so this can be\n"
    "undone. Exit code 3: no such guest or snapshot; 4: the guest is in use.\n"
    "\n"
    "Examples:\n"
    "  fwfs snapshot restore web01 before-upgrade\n"
    "  fwfs snapshot restore web01 session-17\n";

static const char rm_help[] =
    "Removes a snapshot or a restore point. Others stay what they are. Exit code 3: no such guest\n"
    "or snapshot.\n"
    "\n"
    "Example:\n"
    "  fwfs snapshot rm web01 before-upgrade\n";

const struct command snapshot_commands[] = {
    {
        .noun = "snapshot",
        .help = noun_help,
    },
    {
        .noun = "snapshot",
        .verb = "add",
        .synopsis = "GUEST NAME",
        .summary = "keep what a guest's flash is now",
        .help = add_help,
        .run = run_add,
    },
    {
        .noun = "snapshot",
        .verb = "list",
        .synopsis = "[GUEST]",
        .summary = "list snapshots and restore points",
        .help = list_help,
        .run = run_list,
    },
    {
        .noun = "snapshot",
        .verb = "restore",
        .synopsis = "GUEST NAME",
        .summary = "make a guest's flash what it was",
        .help = restore_help,
        .run = run_restore,
    },
    {
        .noun = "snapshot",
        .verb = "rm",
        .synopsis = "GUEST NAME",
        .summary = "remove a snapshot or restore point",
        .help = rm_help,
        .run = run_rm,
    },
    {0},
};
