#include "fs/options.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/owner.h"
#include "fs/mount.h"

const char mount_options_help[] =
    "  ro              read-only: nothing in the mount can be changed\n"
    "  rw              read-write (the default)\n"
    "  allow_other     other users reach the mount, as file modes allow (the default for root)\n"
    "  noallow_other   nobody but the user who mounts reaches it; also as private, which in fstab\n"
    "                  mount(8) takes for another thing\n"
    "  firmware=NAME   the firmware of guests that 'mkdir' makes in the mount; without it mkdir\n"
    "                  makes none\n"
    "  owner=USER[:GROUP]  whose these guests are, by name or number (default: who makes them)\n"
    "  keep-sessions=N, keep-edits=N, keep-days=N, keep-bytes=N  how many restore points of each\n"
    "                  kind a guest keeps, of how many days one, and how many bytes of them; the\n"
    "                  store remembers it (at first 10, 10, 7 and 4194304)\n"
    "  pull=SECONDS    how often what guests wrote is brought into the store (default 1)\n"
    "  full-wait=SECONDS  how long a write waits when the store's disk is full, before it fails\n"
    "                  with EIO (default 30)\n"
    "  hang=SECONDS    how long the process behind the mount may not answer before it is replaced\n"
    "                  (default 5)\n"
    "  noexec, nosuid, nodev, sync, dirsync, noatime and their opposites, as mount(8) has them\n"
    "                  (nosuid and nodev are the default)\n"
    "What stands in fstab for mount(8) and systemd is ignored: defaults, noauto, user, nofail,\n"
    "_netdev, x-…, and the like.\n";

static int parse_firmware(const char *name, struct mount_options *options, struct error *err)
{
    int r = store_check_name("firmware", name, err);
    if (r == 0)
        snprintf(options->firmware, sizeof options->firmware, "%s", name);
    return r;
}

static int parse_owner(const char *text, struct mount_options *options, struct error *err)
{
    options->has_owner = true;
    return owner_parse(text, &options->uid, &options->gid, err);
}

enum kind {
    FLAG_SET,
    FLAG_CLEAR,
    SECONDS,
    COUNT,
    WORD,      /* always with a value */
    PASSED_ON, /* to the kernel */
    IGNORED,   /* with a value or without */
};

static const struct known {
    const char *name;
    enum kind kind;
    size_t offset;
    double least, most;
    int (*parse)(const char *value, struct mount_options *options, struct error *err);
} known[] = {
    {"ro", FLAG_SET, offsetof(struct mount_options, read_only)},
    {"rw", FLAG_CLEAR, offsetof(struct mount_options, read_only)},
    {"allow_other", FLAG_SET, offsetof(struct mount_options, allow_other)},
    {"private", FLAG_CLEAR, offsetof(struct mount_options, allow_other)},
    {"noallow_other", FLAG_CLEAR, offsetof(struct mount_options, allow_other)},
    {"firmware", WORD, .parse = parse_firmware},
    {"owner", WORD, .parse = parse_owner},
    {"keep-sessions", COUNT, offsetof(struct mount_options, keep.sessions), 0, 1000},
    {"keep-edits", COUNT, offsetof(struct mount_options, keep.edits), 0, 1000},
    {"keep-days", COUNT, offsetof(struct mount_options, keep.days), 0, 1000},
    {"keep-bytes", COUNT, offsetof(struct mount_options, keep.bytes), 0, 1e12},
    {"pull", SECONDS, offsetof(struct mount_options, pull_s), 0.05, 3600},
    {"full-wait", SECONDS, offsetof(struct mount_options, full_wait_s), 0, 3600},
    {"hang", SECONDS, offsetof(struct mount_options, hang_s), 1, 3600},

    /* What both libfuse and fusermount3 take. */
    {"suid", PASSED_ON},
    {"nosuid", PASSED_ON},
    {"dev", PASSED_ON},
    {"nodev", PASSED_ON},
    {"exec", PASSED_ON},
    {"noexec", PASSED_ON},
    {"async", PASSED_ON},
    {"sync", PASSED_ON},
    {"dirsync", PASSED_ON},
    {"noatime", PASSED_ON},

    /* It is always on. */
    {"default_permissions", IGNORED},
    /* For mount(8), systemd and whoever else reads fstab. */
    {"defaults", IGNORED},
    {"auto", IGNORED},
    {"noauto", IGNORED},
    {"user", IGNORED},
    {"nouser", IGNORED},
    {"users", IGNORED},
    {"nousers", IGNORED},
    {"owner", IGNORED},
    {"noowner", IGNORED},
    {"group", IGNORED},
    {"nogroup", IGNORED},
    {"nofail", IGNORED},
    {"_netdev", IGNORED},
    {"comment", IGNORED},
    {"helper", IGNORED},
    {"uhelper", IGNORED},
    /* For the kernel, but of no effect: FUSE keeps no access times, and there are no links. */
    {"atime", IGNORED},
    {"diratime", IGNORED},
    {"nodiratime", IGNORED},
    {"relatime", IGNORED},
    {"norelatime", IGNORED},
    {"strictatime", IGNORED},
    {"nostrictatime", IGNORED},
    {"lazytime", IGNORED},
    {"nolazytime", IGNORED},
    {"iversion", IGNORED},
    {"noiversion", IGNORED},
    {"mand", IGNORED},
    {"nomand", IGNORED},
    {"silent", IGNORED},
    {"loud", IGNORED},
    {"symfollow", IGNORED},
    {"nosymfollow", IGNORED},
};

static int parse_seconds(const struct known *option, const char *text,
                         struct mount_options *options, struct error *err)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= option->least && value <= option->most))
        return error_set(err, -EINVAL, "%s=%s: it takes a number of seconds from %g to %g",
                         option->name, text, option->least, option->most);
    *(double *)((char *)options + option->offset) = value;
    return 0;
}

static int parse_count(const struct known *option, const char *text, struct mount_options *options,
                       struct error *err)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno || (double)value > option->most)
        return error_set(err, -EINVAL, "%s=%s: it takes a number from %.0f to %.0f", option->name,
                         text, option->least, option->most);
    *(uint64_t *)((char *)options + option->offset) = value;
    return 0;
}

static int pass_on(const char *name, struct mount_options *options, struct error *err)
{
    size_t used = strlen(options->passed_on);
    size_t room = sizeof options->passed_on - used;
    int n = snprintf(options->passed_on + used, room, ",%s", name);
    return (size_t)n < room ? 0 : error_set(err, -EINVAL, "the options are too long");
}

/* "owner" without a value is another option than with one: a word of fstab. */
static const struct known *find(const char *option, size_t length)
{
    bool has_value = option[length];
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strlen(known[i].name) == length && strncmp(known[i].name, option, length) == 0 &&
            (known[i].kind != WORD || has_value))
            return &known[i];
    return NULL;
}

/* What the administrator notes in fstab for other programs. */
static bool is_note(const char *option)
{
    return strncmp(option, "x-", 2) == 0 || strncmp(option, "X-", 2) == 0;
}

static int parse_one(const char *option, struct mount_options *options, struct error *err)
{
    if (is_note(option))
        return 0;
    const char *equals = strchr(option, '=');
    size_t length = equals ? (size_t)(equals - option) : strlen(option);
    const struct known *found = find(option, length);
    if (!found && strcmp(option, "remount") == 0)
        return error_set(err, -EINVAL,
                         "a mount's options stay as they are: unmount it and mount "
                         "it again instead of 'remount'");
    if (!found)
        return error_set(err, -EINVAL, "'%s' is no mount option", option);
    if (found->kind == IGNORED)
        return 0;
    if (found->kind == WORD)
        return found->parse(equals + 1, options, err);
    if (found->kind == COUNT)
        return parse_count(found, equals ? equals + 1 : "", options, err);
    if (found->kind == SECONDS)
        return parse_seconds(found, equals ? equals + 1 : "", options, err);
    if (equals)
        return error_set(err, -EINVAL, "%s: the option takes no value", option);
    if (found->kind == PASSED_ON)
        return pass_on(option, options, err);
    *(bool *)((char *)options + found->offset) = found->kind == FLAG_SET;
    return 0;
}

int options_parse(const char *text, struct mount_options *ret, struct error *err)
{
    *ret =
        (struct mount_options){.allow_other = getuid() == 0,
                               .keep = {OPTIONS_AS_IS, OPTIONS_AS_IS, OPTIONS_AS_IS, OPTIONS_AS_IS},
                               .pull_s = 1,
                               .full_wait_s = 30,
                               .hang_s = 5};
    cleanup_free char *copy = strdup(text ? text : "");
    if (!copy)
        return error_set(err, -ENOMEM, "out of memory");
    char *next = copy;
    char *option;
    while ((option = strsep(&next, ","))) {
        int r = *option ? parse_one(option, ret, err) : 0;
        if (r < 0)
            return r;
    }
    return 0;
}
