/* fwfs init, fwfs status, and where the store is. */
#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "cli/cli.h"
#include "cli/output.h"
#include "fs/record.h"
#include "guest/describe.h"

#define RELEASE_PAUSES 20

/* ~/.local/state or what stands for it; NULL with no home directory, or without memory. */
static char *state_directory(void)
{
    char *path = NULL;
    /* The specification of $XDG_STATE_HOME: a relative path is to be ignored. */
    const char *state = getenv("XDG_STATE_HOME");
    if (state && *state == '/')
        return strdup(state);
    const char *home = getenv("HOME");
    if (!home || !*home) {
        const struct passwd *user = getpwuid(geteuid());
        home = user ? user->pw_dir : NULL;
    }
    if (!home || asprintf(&path, "%s/.local/state", home) < 0)
        return NULL;
    return path;
}

int cli_store_path(struct cli *cli, char **ret, struct error *err)
{
    const char *given = cli->store_option ? cli->store_option : getenv("FWFS_STORE");
    char *path = NULL;
    if (given && *given) {
        path = strdup(given);
    } else if (geteuid() == 0) {
        path = strdup("/var/lib/fwfs/fwfs.db");
    } else {
        cleanup_free char *state = state_directory();
        if (!state)
            return error_set(err, -ENOENT, "no home directory for a store; name it: --store PATH");
        if (asprintf(&path, "%s/fwfs/fwfs.db", state) < 0)
            path = NULL;
    }
    if (!path)
        return error_set(err, -ENOMEM, "no memory for the store's path");
    *ret = path;
    return 0;
}

/* A mount that was killed left what lived with it: leases that would still hold guests. Where the
 * store cannot be written it stays, and so does who would be hindered. */
static void forget_dead_mount(const char *path, struct store *store)
{
    struct record record;
    cleanup(store_closep) struct store *writable = NULL;
    if (record_read(path, &record, NULL) == 0 && store_forget_mount(store, NULL) == -EROFS &&
        store_open(path, 0, &writable, NULL) == 0)
        store_forget_mount(writable, NULL);
}

bool cli_may_be_released(struct cli *cli, int result)
{
    static const struct timespec pause = {.tv_nsec = 1000000000 / RELEASE_PAUSES};
    if (result != -ETXTBSY || cli->pauses++ == RELEASE_PAUSES)
        return false;
    nanosleep(&pause, NULL);
    return true;
}

int cli_open_store(struct cli *cli, unsigned flags, struct store **ret, struct error *err)
{
    cleanup_free char *path = NULL;
    int r = cli_store_path(cli, &path, err);
    if (r < 0)
        return r;
    r = store_open(path, flags, ret, err);
    if (r == 0)
        forget_dead_mount(path, *ret);
    cli_advise(cli, r, -EINVAL, "name a store with --store, or make one with 'fwfs init'");
    return cli_advise(cli, r, -ENOENT, "make it with 'fwfs init', or name another with --store");
}

/* Makes the directories above the store's own, which store_create() makes. Only for the default: a
 * slip in a path that was typed must not grow a tree. */
static int make_parents(const char *path, struct error *err)
{
    cleanup_free char *parent = strdup(path);
    if (!parent)
        return error_set(err, -ENOMEM, "no memory for the store's path");
    *strrchr(parent, '/') = '\0';
    for (char *slash = strchr(parent + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(parent, 0700) < 0 && errno != EEXIST)
            return error_set(err, -errno, "cannot make %s: %s", parent, strerror(errno));
        *slash = '/';
    }
    return 0;
}

static const struct option no_options[] = {CLI_GLOBAL_OPTIONS};

static int run_init(struct cli *cli, int argc, char **argv, struct error *err)
{
    cleanup_free char *path = NULL;
    int r = cli_option(cli, argc, argv, no_options, err);
    if (r == 0)
        r = cli_operands(cli, argc, argv, 0, 0, err);
    if (r == 0)
        r = cli_store_path(cli, &path, err);
    const char *variable = getenv("FWFS_STORE");
    if (r == 0 && !cli->store_option && !(variable && *variable))
        r = make_parents(path, err);
    if (r == 0) {
        r = store_create(path, err);
        cli_advise(cli, r, -EEXIST, "use it as it is, or name another with --store");
        cli_advise(cli, r, -ENOENT, "make the directory first");
    }
    if (r < 0)
        return r;
    if (!cli->json) {
        fputs("made the store ", stdout);
        output_text(stdout, path);
        fputs("; 'fwfs firmware import' fills it\n", stdout);
        return 0;
    }
    cleanup_json struct json_object *object = describe_new();
    if (!object || json_add(object, "store", json_object_new_string(path)) < 0)
        return error_set(err, -ENOMEM, "no memory for the output");
    return output_json(steal_ptr(object), err);
}

/* NULL when memory ran out. */
static struct json_object *describe_status(const char *path, const struct store_status *status)
{
    const struct {
        const char *name;
        uint64_t value;
    } members[] = {
        {"store_version", status->schema_version},
        {"guest_count", status->guests},
        {"firmware_count", status->firmware},
        {"image_count", status->images},
        {"shared_block_count", status->shared_blocks},
        {"private_block_count", status->private_blocks},
        {"unique_bytes", status->unique_bytes},
        {"stored_bytes", status->stored_bytes},
        {"file_size_bytes", status->space.file_bytes},
        {"free_bytes", status->space.free_bytes},
    };
    cleanup_json struct json_object *object = describe_new();
    if (!object || json_add(object, "store", json_object_new_string(path)) < 0)
        return NULL;
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++)
        if (json_add(object, members[i].name, json_object_new_uint64(members[i].value)) < 0)
            return NULL;
    return steal_ptr(object);
}

/* Who serves a mount; NULL when memory ran out. */
static struct json_object *describe_mount(const struct record *record)
{
    cleanup_json struct json_object *mount = json_object_new_object();
    if (!mount || json_add(mount, "mountpoint", json_object_new_string(record->mountpoint)) < 0 ||
        json_add(mount, "since", describe_time(record->mounted_at)) < 0 ||
        json_add(mount, "supervisor_pid", json_object_new_int64(record->supervisor)) < 0 ||
        json_add(mount, "worker_pid", json_object_new_int64(record->worker)) < 0 ||
        json_add(mount, "restart_count", json_object_new_int64(record->restarts)) < 0 ||
        json_add(mount, "upgrade_count", json_object_new_int64(record->upgrades)) < 0)
        return NULL;
    return steal_ptr(mount);
}

/* Adds "mounts": all that live; and for programs "mount", the read-write one or null. */
static int add_mounts(struct cli *cli, struct json_object *object, const char *store,
                      struct error *err)
{
    cleanup_free struct record *records = NULL;
    ssize_t count = record_list(store, &records, err);
    if (count < 0)
        return (int)count;
    int r = 0;
    if (cli->json && (count == 0 || records[0].read_only))
        json_object_object_add(object, "mount", NULL);
    else if (cli->json)
        r = json_add(object, "mount", describe_mount(&records[0]));
    struct json_object *mounts = json_object_new_array();
    if (r == 0)
        r = json_add(object, "mounts", mounts);
    for (ssize_t i = 0; i < count && r == 0; i++) {
        struct json_object *mount = describe_mount(&records[i]);
        r = json_append(mounts, mount);
        if (r == 0)
            r = json_add(mount, "read_only", json_object_new_boolean(records[i].read_only));
    }
    return r < 0 ? error_set(err, r, "no memory for the output") : 0;
}

static int run_status(struct cli *cli, int argc, char **argv, struct error *err)
{
    cleanup(store_closep) struct store *store = NULL;
    cleanup_free char *path = NULL;
    struct store_status status;
    int r = cli_option(cli, argc, argv, no_options, err);
    if (r == 0)
        r = cli_operands(cli, argc, argv, 0, 0, err);
    if (r == 0)
        r = cli_store_path(cli, &path, err);
    if (r == 0)
        r = cli_open_store(cli, STORE_READ_ONLY, &store, err);
    if (r == 0)
        r = store_get_status(store, &status, err);
    if (r < 0)
        return r;
    cleanup_json struct json_object *object = describe_status(path, &status);
    if (!object)
        return error_set(err, -ENOMEM, "no memory for the output");
    r = add_mounts(cli, object, path, err);
    if (r < 0)
        return r;
    return cli->json ? output_json(steal_ptr(object), err) : output_object(steal_ptr(object), err);
}

static const char init_help[] =
    "Makes a new, empty store: the one file that keeps firmware, guests and what the guests\n"
    "wrote. The directory it is in is made too, if only that one is missing. Whatever is at\n"
    "that path already stays as it is, and is an error (1).\n"
    "\n"
    "Example:\n"
    "  fwfs --store /srv/vm/fwfs.db init\n";

static const char status_help[] =
    "Prints what the store holds: how many guests, firmware and images, and its sizes:\n"
    "  unique     all blocks that it keeps, each counted once\n"
    "  stored     the same after compression\n"
    "  file size  the store's file and its write-ahead log\n"
    "  free       room in the file that is used again before it grows\n"
    "  mounts     where it is mounted and since when; how often the process that serves it was\n"
    "             restarted after a crash, or upgraded\n"
    "With --json sizes are in bytes, in members that end in \"_bytes\", and \"mount\" is the one\n"
    "mount that is read-write, or null.\n"
    "\n"
    "Example:\n"
    "  fwfs status --json | jq .guest_count\n";

const struct command store_commands[] = {
    {
        .noun = "init",
        .synopsis = "",
        .summary = "make a new, empty store",
        .help = init_help,
        .run = run_init,
    },
    {
        .noun = "status",
        .synopsis = "",
        .summary = "print what the store holds, and its sizes",
        .help = status_help,
        .run = run_status,
    },
    {0},
};
