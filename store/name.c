#include "store/internal.h"

#include <errno.h>
#include <string.h>

#include "base/utf8.h"

int store_check_name(const char *noun, const char *name, struct error *err)
{
    if (!name[0])
        return error_set(err, -EINVAL, "a %s's name cannot be empty", noun);
    if (strlen(name) > STORE_NAME_MAX)
        return error_set(err, -EINVAL, "a %s's name has at most %d bytes, this one has %zu", noun,
                         STORE_NAME_MAX, strlen(name));
    if (name[0] == '.' || name[0] == '-')
        return error_set(err, -EINVAL, "a %s's name cannot begin with '%c': '%s'", noun, name[0],
                         name);
    size_t length;
    for (const char *at = name; *at; at += length) {
        uint32_t code;
        length = utf8_next(at, &code);
        if (length == 0)
            return error_set(err, -EINVAL, "a %s's name must be UTF-8: '%s'", noun, name);
        if (code == '/')
            return error_set(err, -EINVAL, "a %s's name cannot hold '/': '%s'", noun, name);
        if (code < 0x20 || (code >= 0x7f && code < 0xa0))
            return error_set(err, -EINVAL, "a %s's name cannot hold control characters: '%s'", noun,
                             name);
    }
    return 0;
}

int name_from_column(sqlite3_stmt *stmt, int column, char ret[STORE_NAME_MAX + 1],
                     struct error *err)
{
    const unsigned char *name = sqlite3_column_text(stmt, column);
    int length = sqlite3_column_bytes(stmt, column);
    if (!name || length > STORE_NAME_MAX)
        return error_set(err, -EUCLEAN, "the store is damaged: a name is missing or too long");
    memcpy(ret, name, (size_t)length + 1);
    return 0;
}
