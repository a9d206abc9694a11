#include "cli/names.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"

int names_add(struct names *names, const char *name, struct error *err)
{
    if (names->count == names->allocated) {
        size_t allocated = names->allocated ? names->allocated * 2 : 16;
        char **values = reallocarray(names->values, allocated, sizeof *values);
        if (!values)
            return error_set(err, -ENOMEM, "no memory for %zu names", allocated);
        names->values = values;
        names->allocated = allocated;
    }
    char *copy = strdup(name);
    if (!copy)
        return error_set(err, -ENOMEM, "no memory for a name");
    names->values[names->count++] = copy;
    return 0;
}

void names_clear(struct names *names)
{
    for (size_t i = 0; i < names->count; i++)
        free(names->values[i]);
    free(names->values);
    *names = (struct names){0};
}

static int names_from_stdin(struct cli *cli, const char *noun, struct names *names,
                            struct error *err)
{
    cleanup_free char *line = NULL;
    size_t size = 0;
    ssize_t length;
    for (size_t number = 1; (length = getline(&line, &size, stdin)) >= 0; number++) {
        if (length > 0 && line[length - 1] == '\n')
            line[--length] = '\0';
        int r;
        if (strlen(line) != (size_t)length)
            r = cli_usage(cli, err, "a %s's name holds a zero byte", noun);
        else
            r = cli_check_name(cli, noun, line, err);
        if (r < 0)
            return error_prefix(err, r, "line %zu of the names on stdin", number);
        r = names_add(names, line, err);
        if (r < 0)
            return r;
    }
    if (ferror(stdin))
        return error_set(err, -errno, "cannot read the names on stdin: %s", strerror(errno));
    return 0;
}

int names_from_operands(struct cli *cli, const char *noun, int argc, char **argv, struct names *ret,
                        struct error *err)
{
    /* Those that were typed first, so that a slip among them is told before stdin is waited for. */
    for (int i = optind; i < argc; i++) {
        int r = strcmp(argv[i], "-") == 0 ? 0 : cli_check_name(cli, noun, argv[i], err);
        if (r < 0)
            return r;
    }
    for (int i = optind; i < argc; i++) {
        int r = strcmp(argv[i], "-") == 0 ? names_from_stdin(cli, noun, ret, err)
                                          : names_add(ret, argv[i], err);
        if (r < 0)
            return r;
    }
    return 0;
}

#define ID_CACHE_SLOTS 4096

/* The user database may be slow, or far away, and lists are long. */
struct id_cache {
    struct {
        bool known;
        uint32_t id;
        char name[OWNER_TEXT_SIZE / 2];
    } slots[ID_CACHE_SLOTS];
};

static const char *cached_name(struct id_cache *cache, uint32_t id,
                               const char *(*look_up)(uint32_t))
{
    typeof(&cache->slots[0]) slot = &cache->slots[id % ID_CACHE_SLOTS];
    if (slot->known && slot->id == id)
        return slot->name;
    const char *name = look_up(id);
    if (name && strlen(name) < sizeof slot->name)
        strcpy(slot->name, name);
    else
        snprintf(slot->name, sizeof slot->name, "%u", id);
    slot->known = true;
    slot->id = id;
    return slot->name;
}

static const char *look_up_user(uint32_t uid)
{
    const struct passwd *entry = getpwuid(uid);
    return entry ? entry->pw_name : NULL;
}

static const char *look_up_group(uint32_t gid)
{
    const struct group *entry = getgrgid(gid);
    return entry ? entry->gr_name : NULL;
}

const char *owner_text(uint32_t uid, uint32_t gid, char buffer[OWNER_TEXT_SIZE])
{
    static struct id_cache users, groups;
    snprintf(buffer, OWNER_TEXT_SIZE, "%s:%s", cached_name(&users, uid, look_up_user),
             cached_name(&groups, gid, look_up_group));
    return buffer;
}
