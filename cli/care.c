/* fwfs check, compact, backup, migrate: the care of a store. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "cli/cli.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "fs/record.h"
#include "guest/describe.h"
#include "guest/original.h"

static const struct option no_options[] = {CLI_GLOBAL_OPTIONS};

static void show_progress(const char *what, uint64_t done, uint64_t total, void *data)
{
    progress_set(data, what, done, total);
}

/* ---- check ---- */

struct checking {
    struct cli *cli;
    struct store *store;
    struct progress progress;
    struct json_object *damages; /* --json */
    bool failed;                 /* to keep one */
    uint64_t descriptors;        /* damaged */
    bool repair;
};

static void check_progress(const char *what, uint64_t done, uint64_t total, void *data)
{
    struct checking *checking = data;
    progress_set(&checking->progress, what, done, total);
}

static int add_name(struct json_object *object, const char *member, const char *name)
{
    return name && *name ? json_add(object, member, json_object_new_string(name)) : 0;
}

/* NULL when memory ran out. */
static struct json_object *describe_damage(const struct store_damage *damage)
{
    static const char *const outcomes[] = {
        [STORE_DAMAGE_LEFT] = "left",
        [STORE_DAMAGE_REPAIRED] = "repaired",
        [STORE_DAMAGE_HELD] = "in use",
    };
    cleanup_json struct json_object *object = json_object_new_object();
    int r = object ? add_name(object, "place", damage->place) : -ENOMEM;
    if (r == 0)
        r = add_name(object, "guest", damage->guest);
    if (r == 0 && damage->removed)
        r = json_add(object, "removed", json_object_new_boolean(true));
    if (r == 0)
        r = add_name(object, "snapshot", damage->point);
    if (r == 0)
        r = add_name(object, "firmware", damage->firmware);
    if (r == 0)
        r = add_name(object, "file", damage->file);
    if (r == 0 && damage->offset >= 0)
        r = json_add(object, "offset_bytes", json_object_new_int64(damage->offset));
    if (r == 0)
        r = add_name(object, "damage", damage->what);
    if (r == 0 && *damage->remedy)
        r = add_name(object, "remedy", damage->remedy);
    if (r == 0)
        r = add_name(object, "outcome", outcomes[damage->outcome]);
    return r < 0 ? NULL : steal_ptr(object);
}

static void tell_damage(const struct store_damage *damage, void *data)
{
    struct checking *checking = data;
    if (checking->cli->json) {
        checking->failed =
            json_append(checking->damages, describe_damage(damage)) < 0 || checking->failed;
        return;
    }
    progress_hide(&checking->progress);
    output_text(stdout, damage->place);
    fputs(": ", stdout);
    output_text(stdout, damage->what);
    if (*damage->remedy) {
        fputs(damage->outcome == STORE_DAMAGE_REPAIRED ? "; repaired: " : "; ", stdout);
        output_text(stdout, damage->remedy);
    }
    putchar('\n');
    fflush(stdout);
}

static int give_original(const char *firmware, bool nvram_template, void **ret, size_t *ret_size,
                         void *data, struct error *err)
{
    struct checking *checking = data;
    return original_load(checking->store, firmware, nvram_template, ret, ret_size, err);
}

static int check_descriptor(const struct store_firmware *firmware, void *data)
{
    struct checking *checking = data;
    cleanup(descriptor_freep) struct descriptor *descriptor = NULL;
    struct error err = {0};
    int r = describe_descriptor(checking->store, firmware, &descriptor, &err);
    if (r != -EUCLEAN)
        return 0;
    struct store_damage damage = {.offset = -1};
    snprintf(damage.place, sizeof damage.place, "firmware '%s': descriptor", firmware->name);
    snprintf(damage.firmware, sizeof damage.firmware, "%s", firmware->name);
    snprintf(damage.what, sizeof damage.what, "%s", err.text);
    if (checking->repair)
        snprintf(damage.remedy, sizeof damage.remedy, "it cannot be repaired; bring back a backup");
    checking->descriptors++;
    tell_damage(&damage, checking);
    return 0;
}

static int print_check(struct checking *checking, const struct store_check_result *result,
                       struct error *err)
{
    const struct {
        const char *name;
        uint64_t value;
    } members[] = {
        {"image_count", result->images},   {"block_count", result->blocks},
        {"damage_count", result->damaged}, {"repaired_count", result->repaired},
        {"in_use_count", result->held},
    };
    if (!checking->cli->json) {
        if (result->damaged == 0)
            printf("no damage (images: %llu, blocks of guests: %llu)\n",
                   (unsigned long long)result->images, (unsigned long long)result->blocks);
        else
            printf("%llu damaged, %llu repaired\n", (unsigned long long)result->damaged,
                   (unsigned long long)result->repaired);
        return 0;
    }
    cleanup_json struct json_object *object = describe_new();
    int r = object && !checking->failed ? 0 : -ENOMEM;
    for (size_t i = 0; i < sizeof members / sizeof members[0] && r == 0; i++)
        r = json_add(object, members[i].name, json_object_new_uint64(members[i].value));
    if (r == 0)
        r = json_add(object, "damages", json_object_get(checking->damages));
    return r < 0 ? error_set(err, r, "no memory for the output")
                 : output_json(steal_ptr(object), err);
}

static int judge_check(const struct checking *checking, const struct store_check_result *result,
                       struct error *err)
{
    uint64_t left = result->damaged - result->repaired;
    if (left == 0)
        return 0;
    if (!checking->repair)
        return error_set(err, -EUCLEAN,
                         "%llu found damaged; 'fwfs check --repair' repairs what it can",
                         (unsigned long long)left);
    if (result->held > 0)
        return error_set(err, -ETXTBSY,
                         "%llu left damaged, of them %llu of guests that are open for writing; "
                         "shut these down and run it again",
                         (unsigned long long)left, (unsigned long long)result->held);
    return error_set(err, -EUCLEAN, "%llu left damaged; bring back a backup",
                     (unsigned long long)left);
}

static int check_store(struct checking *checking, struct error *err)
{
    const struct store_check how = {
        .repair = checking->repair,
        .damaged = tell_damage,
        .progress = check_progress,
        .original = give_original,
        .data = checking,
    };
    struct store_check_result result;
    int r;
    {
        progress_begin(&checking->progress);
        r = store_check(checking->store, &how, &result, err);
        if (r == 0)
            store_firmware_each(checking->store, check_descriptor, checking, NULL);
        progress_end(&checking->progress);
    }
    result.damaged += checking->descriptors;
    if (r == 0)
        r = print_check(checking, &result, err);
    return r < 0 ? r : judge_check(checking, &result, err);
}

static int run_check(struct cli *cli, int argc, char **argv, struct error *err)
{
    static const struct option options[] = {
        {"repair", no_argument, NULL, 'r'},
        CLI_GLOBAL_OPTIONS,
    };
    cleanup(store_closep) struct store *store = NULL;
    cleanup_json struct json_object *damages = json_object_new_array();
    struct checking checking = {.cli = cli, .damages = damages};
    int option, r = damages ? 0 : error_set(err, -ENOMEM, "no memory for the output");
    while (r == 0 && (option = cli_option(cli, argc, argv, options, err)) != 0) {
        if (option < 0)
            return option;
        checking.repair = true;
    }
    if (r == 0)
        r = cli_operands(cli, argc, argv, 0, 0, err);
    if (r == 0)
        r = cli_open_store(cli, checking.repair ? 0 : STORE_READ_ONLY, &store, err);
    checking.store = store;
    return r < 0 ? r : check_store(&checking, err);
}

static const char check_help[] =
    "Looks at the whole store: the structure of its file, who refers to whom, the digest of every\n"
    "image and every shared block, and the checksum of every block that a guest or one of its\n"
    "restore points keeps. Prints a line for each thing that is damaged, with the guest (or the\n"
    "removed guest, or the firmware), its file and the offset in it, and ends with 5 if there is\n"
    "any. May be used while the store is mounted and guests run.\n"
    "\n"
    "With --repair it makes good what it can, and says for each what was done and what is lost:\n"
    "  - a guest's block becomes what the newest restore point has that keeps it, or what its\n"
    "    firmware's image has; one of a restore point becomes what came after it\n"
    "  - a block of an image is read again from the file that the firmware was added from\n"
    "  - rows that nothing refers to are dropped\n"
    "Nothing else is changed. Guests that are open for writing are left; it then ends with 4.\n"
    "Take a copy of the file before, if what is damaged matters.\n"
    "\n"
    "Options:\n"
    "  -r, --repair  repair what can be repaired\n"
    "\n"
    "Example:\n"
    "  fwfs check || fwfs check --repair\n";

/* ---- compact ---- */

static int print_sizes(struct cli *cli, const struct store_space *before,
                       const struct store_space *after, struct error *err)
{
    if (!cli->json) {
        char from[OUTPUT_SIZE_LENGTH], to[OUTPUT_SIZE_LENGTH];
        printf("%s before, %s now\n", output_size(before->file_bytes, from),
               output_size(after->file_bytes, to));
        return 0;
    }
    cleanup_json struct json_object *object = describe_new();
    if (!object ||
        json_add(object, "before_bytes", json_object_new_uint64(before->file_bytes)) < 0 ||
        json_add(object, "after_bytes", json_object_new_uint64(after->file_bytes)) < 0)
        return error_set(err, -ENOMEM, "no memory for the output");
    return output_json(steal_ptr(object), err);
}

static int run_compact(struct cli *cli, int argc, char **argv, struct error *err)
{
    cleanup(store_closep) struct store *store = NULL;
    struct store_space before, after;
    int r = cli_option(cli, argc, argv, no_options, err);
    if (r == 0)
        r = cli_operands(cli, argc, argv, 0, 0, err);
    if (r == 0)
        r = cli_open_store(cli, STORE_LAZY_SYNC, &store, err);
    if (r == 0)
        r = store_get_space(store, &before, err);
    if (r < 0)
        return r;
    struct progress progress;
    const struct store_progress shown = {.told = show_progress, .data = &progress};
    progress_begin(&progress);
    r = store_compact(store, &shown, err);
    progress_end(&progress);
    if (r == 0)
        r = store_get_space(store, &after, err);
    return r < 0 ? r : print_sizes(cli, &before, &after, err);
}

static const char compact_help[] =
    "Gives the room back to the disk that the store does not need: compresses what guests wrote\n"
    "last, forgets removed guests that can no longer be brought back, moves what is at the end of\n"
    "the file into the room that is free in it, and empties the write-ahead log. Prints the size\n"
    "before and after. May be used while the store is mounted and guests run.\n"
    "\n"
    "What 'guest rm --purge' forgot is overwritten at once, but may still stand in the log; after\n"
    "this it is in neither of the files, if nobody read the store meanwhile.\n"
    "\n"
    "Example:\n"
    "  fwfs guest rm --purge web01 && fwfs compact\n";

/* ---- backup ---- */

static int print_backup(struct cli *cli, const char *file, const struct store_check_result *result,
                        struct error *err)
{
    struct stat st;
    if (stat(file, &st) < 0)
        return error_set(err, -errno, "%s: %m", file);
    if (!cli->json) {
        char size[OUTPUT_SIZE_LENGTH];
        output_text(stdout, file);
        printf(": %s\n", output_size((uint64_t)st.st_size, size));
        return 0;
    }
    cleanup_json struct json_object *object = describe_new();
    if (!object || json_add(object, "backup", json_object_new_string(file)) < 0 ||
        json_add(object, "file_size_bytes", json_object_new_int64(st.st_size)) < 0 ||
        json_add(object, "damage_count", json_object_new_uint64(result->damaged)) < 0)
        return error_set(err, -ENOMEM, "no memory for the output");
    return output_json(steal_ptr(object), err);
}

static int run_backup(struct cli *cli, int argc, char **argv, struct error *err)
{
    cleanup(store_closep) struct store *store = NULL;
    struct store_check_result result;
    int r = cli_option(cli, argc, argv, no_options, err);
    if (r == 0)
        r = cli_operands(cli, argc, argv, 1, 1, err);
    if (r == 0)
        r = cli_open_store(cli, STORE_READ_ONLY, &store, err);
    if (r < 0)
        return r;
    const char *file = argv[optind];
    struct progress progress;
    const struct store_progress shown = {.told = show_progress, .data = &progress};
    progress_begin(&progress);
    r = store_backup(store, file, &shown, &result, err);
    progress_end(&progress);
    cli_advise(cli, r, -ENOENT, "make the directory first");
    if (r == 0)
        r = print_backup(cli, file, &result, err);
    if (r == 0 && result.damaged > 0)
        return error_set(err, -EUCLEAN,
                         "the backup was made, and has the %llu damages of the store; see what "
                         "'fwfs check' says before it takes the place of another",
                         (unsigned long long)result.damaged);
    return r;
}

static const char backup_help[] =
    "Copies the store, as it is at one moment, into a new file: firmware, guests, what they "
    "wrote,\n"
    "restore points and removed guests. May be used while the store is mounted and guests run.\n"
    "The copy is checked as 'fwfs check' does and is on the disk before FILE appears; on a "
    "failure\n"
    "there is no FILE. What is at FILE already stays as it is, and is an error (1). If the store\n"
    "is damaged, so is its copy: it is made, and the command ends with 5.\n"
    "\n"
    "FILE is a store itself: 'fwfs --store FILE …' looks into it. To go back to it, unmount the\n"
    "store, remove its file and the ones beside it (-wal, -shm), and copy FILE to its place.\n"
    "It holds all that guests keep secret; only its owner may read it.\n"
    "\n"
    "Example:\n"
    "  fwfs backup /backup/fwfs-$(date +%F).db\n";

/* ---- migrate ---- */

static int print_migration(struct cli *cli, const struct store_migration *done, struct error *err)
{
    if (!cli->json && !done->backup) {
        printf("the store is of version %d already\n", done->to);
        return 0;
    }
    if (!cli->json) {
        printf("the store is of version %d now; as it was, it is at ", done->to);
        output_text(stdout, done->backup);
        putchar('\n');
        return 0;
    }
    cleanup_json struct json_object *object = describe_new();
    int r = object ? json_add(object, "from_version", json_object_new_int(done->from)) : -ENOMEM;
    if (r == 0)
        r = json_add(object, "to_version", json_object_new_int(done->to));
    if (r == 0)
        r = add_name(object, "backup", done->backup);
    return r < 0 ? error_set(err, r, "no memory for the output")
                 : output_json(steal_ptr(object), err);
}

/* Read-only mounts too: they would not know what they read. */
static int refuse_mounted(const char *path, struct error *err)
{
    cleanup_free struct record *records = NULL;
    ssize_t count = record_list(path, &records, err);
    if (count > 0)
        return error_set(err, -EBUSY, "the store is mounted at %s; unmount it and run it again",
                         records[0].mountpoint);
    return (int)count;
}

static int run_migrate(struct cli *cli, int argc, char **argv, struct error *err)
{
    cleanup_free char *path = NULL;
    struct store_migration done;
    int r = cli_option(cli, argc, argv, no_options, err);
    if (r == 0)
        r = cli_operands(cli, argc, argv, 0, 0, err);
    if (r == 0)
        r = cli_store_path(cli, &path, err);
    if (r == 0 && access(path, F_OK) < 0)
        r = error_set(err, -errno, "%s: %m; name another with --store", path);
    if (r == 0)
        r = refuse_mounted(path, err);
    if (r < 0)
        return r;
    struct progress progress;
    const struct store_progress shown = {.told = show_progress, .data = &progress};
    progress_begin(&progress);
    r = store_migrate(path, &done, &shown, err);
    progress_end(&progress);
    cleanup_free char *backup = r == 0 ? done.backup : NULL;
    return r < 0 ? r : print_migration(cli, &done, err);
}

static const char migrate_help[] =
    "Brings a store that an older fwfs made to what this one works with; other commands say when\n"
    "that is needed. The store must not be mounted (4). Before it changes anything it copies the\n"
    "store to a file beside it, which is named by its version and the time and can be removed "
    "when\n"
    "all is well. On a failure the store is as it was.\n"
    "\n"
    "Example:\n"
    "  umount /fw && fwfs migrate && fwfs mount /fw\n";

const struct command care_commands[] = {
    {
        .noun = "check",
        .synopsis = "[--repair]",
        .summary = "look for damage in the store, and repair it",
        .help = check_help,
        .run = run_check,
    },
    {
        .noun = "compact",
        .synopsis = "",
        .summary = "give unused room back to the disk",
        .help = compact_help,
        .run = run_compact,
    },
    {
        .noun = "backup",
        .synopsis = "FILE",
        .summary = "copy the store while it is in use",
        .help = backup_help,
        .run = run_backup,
    },
    {
        .noun = "migrate",
        .synopsis = "",
        .summary = "bring the store of an older fwfs up to date",
        .help = migrate_help,
        .run = run_migrate,
    },
    {0},
};
