#include "fs/options.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "fs/mount.h"

const char mount_options_help[] =
    "  ro              read-only: nothing in the mount can be changed\n"
    "  rw              read-write (the default)\n"
    "  allow_other     other users reach the mount, as file modes allow (the default for root)\n"
    "  private         nobody but the user who mounts reaches it\n";

struct flag {
    const char *name;
    void (*set)(struct mount_options *options);
};

static void set_ro(struct mount_options *options)
{
    options->read_only = true;
}

static void set_rw(struct mount_options *options)
{
    options->read_only = false;
}

static void set_allow_other(struct mount_options *options)
{
    options->allow_other = true;
}

static void set_private(struct mount_options *options)
{
    options->allow_other = false;
}

static const struct flag flags[] = {
    {"ro", set_ro},
    {"rw", set_rw},
    {"allow_other", set_allow_other},
    {"private", set_private},
};

static int parse_one(const char *option, struct mount_options *options, struct error *err)
{
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        if (strcmp(option, flags[i].name) == 0) {
            flags[i].set(options);
            return 0;
        }
    }
    return error_set(err, -EINVAL, "'%s' is no mount option", option);
}

int options_parse(const char *text, struct mount_options *ret, struct error *err)
{
    *ret = (struct mount_options){.allow_other = getuid() == 0};
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
