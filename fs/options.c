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
    "  private         nobody but the user who mounts reaches it\n"
    "  firmware=NAME   the firmware of guests that 'mkdir' makes in the mount; without it mkdir "
    "makes\n"
    "                  none\n"
    "  owner=USER[:GROUP]  whose these guests are, by name or number (default: who makes them)\n"
    "  pull=SECONDS    how often what guests wrote is brought into the store (default 1)\n"
    "  full-wait=SECONDS  how long a write waits when the store's disk is full, before it fails\n"
    "                  with EIO (default 30)\n"
    "  hang=SECONDS    how long the process behind the mount may not answer before it is replaced\n"
    "                  (default 5)\n";

static const struct flag {
    const char *name;
    size_t offset;
    bool value;
} flags[] = {
    {"ro", offsetof(struct mount_options, read_only), true},
    {"rw", offsetof(struct mount_options, read_only), false},
    {"allow_other", offsetof(struct mount_options, allow_other), true},
    {"private", offsetof(struct mount_options, allow_other), false},
};

static const struct duration {
    const char *name;
    size_t offset;
    double least, most;
} durations[] = {
    {"pull", offsetof(struct mount_options, pull_s), 0.05, 3600},
    {"full-wait", offsetof(struct mount_options, full_wait_s), 0, 3600},
    {"hang", offsetof(struct mount_options, hang_s), 1, 3600},
};

static int parse_duration(const struct duration *duration, const char *text,
                          struct mount_options *options, struct error *err)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= duration->least && value <= duration->most))
        return error_set(err, -EINVAL, "%s=%s: it takes a number of seconds from %g to %g",
                         duration->name, text, duration->least, duration->most);
    *(double *)((char *)options + duration->offset) = value;
    return 0;
}

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

static const struct word {
    const char *name;
    int (*parse)(const char *value, struct mount_options *options, struct error *err);
} words[] = {{"firmware", parse_firmware}, {"owner", parse_owner}};

static bool has_name(const char *option, const char *equals, const char *name)
{
    size_t length = (size_t)(equals - option);
    return strlen(name) == length && strncmp(option, name, length) == 0;
}

static int parse_one(char *option, struct mount_options *options, struct error *err)
{
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        if (strcmp(option, flags[i].name) == 0) {
            *(bool *)((char *)options + flags[i].offset) = flags[i].value;
            return 0;
        }
    }
    const char *equals = strchr(option, '=');
    for (size_t i = 0; equals && i < sizeof durations / sizeof durations[0]; i++)
        if (has_name(option, equals, durations[i].name))
            return parse_duration(&durations[i], equals + 1, options, err);
    for (size_t i = 0; equals && i < sizeof words / sizeof words[0]; i++)
        if (has_name(option, equals, words[i].name))
            return words[i].parse(equals + 1, options, err);
    return error_set(err, -EINVAL, "'%s' is no mount option", option);
}

int options_parse(const char *text, struct mount_options *ret, struct error *err)
{
    *ret = (struct mount_options){
        .allow_other = getuid() == 0, .pull_s = 1, .full_wait_s = 30, .hang_s = 5};
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
