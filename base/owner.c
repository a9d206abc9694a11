#include "base/owner.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

/* An id in decimal. (uid_t)-1 is none: chown() takes it for "leave as it is". */
static bool parse_id(const char *text, uint32_t *id)
{
    if (!*text || strspn(text, "0123456789") != strlen(text))
        return false;
    errno = 0;
    unsigned long value = strtoul(text, NULL, 10);
    if (errno || value >= UINT32_MAX)
        return false;
    *id = (uint32_t)value;
    return true;
}

/* Names before numbers, as chown(1) does: a name may consist of digits. */
static int parse_user(const char *user, bool need_group, uint32_t *uid, uint32_t *gid,
                      struct error *err)
{
    const struct passwd *entry = getpwnam(user);
    if (!entry && parse_id(user, uid)) {
        if (!need_group)
            return 0;
        entry = getpwuid(*uid);
        if (!entry)
            return error_set(err, -ENOENT, "user %s has no login group here; name one: %s:GROUP",
                             user, user);
    }
    if (!entry)
        return error_set(err, -ENOENT, "no user '%s'; give a user's name or number", user);
    *uid = entry->pw_uid;
    if (need_group)
        *gid = entry->pw_gid;
    return 0;
}

static int parse_group(const char *group, uint32_t *gid, struct error *err)
{
    const struct group *entry = getgrnam(group);
    if (entry)
        *gid = entry->gr_gid;
    else if (!parse_id(group, gid))
        return error_set(err, -ENOENT, "no group '%s'; give a group's name or number", group);
    return 0;
}

int owner_parse(const char *text, uint32_t *uid, uint32_t *gid, struct error *err)
{
    cleanup_free char *user = strdup(text);
    if (!user)
        return error_set(err, -ENOMEM, "no memory for the owner");
    char *group = strchr(user, ':');
    if (group)
        *group++ = '\0';
    if (!*user || (group && !*group))
        return error_set(err, -EINVAL, "'%s' is no USER[:GROUP]", text);

    int r = parse_user(user, !group, uid, gid, err);
    if (r == 0 && group)
        r = parse_group(group, gid, err);
    return r;
}
