#include "store/internal.h"

#include <errno.h>
#include <string.h>

/* The length of the UTF-8 sequence at `s` (RFC 3629, section 4), and its code point; 0 if it is
 * none. */
static size_t utf8_decode(const unsigned char *s, uint32_t *code)
{
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t length = s[0] < 0x80         ? 1
                    : s[0] >> 5 == 0x6  ? 2
                    : s[0] >> 4 == 0xe  ? 3
                    : s[0] >> 3 == 0x1e ? 4
                                        : 0;
    if (length < 2) {
        *code = s[0];
        return length;
    }
    *code = s[0] & (0x7fU >> length);
    for (size_t i = 1; i < length; i++) {
        if (s[i] >> 6 != 0x2)
            return 0;
        *code = *code << 6 | (s[i] & 0x3f);
    }
    bool surrogate = *code >= 0xd800 && *code <= 0xdfff;
    return *code < smallest[length] || *code > 0x10ffff || surrogate ? 0 : length;
}

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
    const unsigned char *p = (const unsigned char *)name;
    while (*p) {
        uint32_t code;
        size_t length = utf8_decode(p, &code);
        if (length == 0)
            return error_set(err, -EINVAL, "a %s's name must be UTF-8: '%s'", noun, name);
        if (code == '/')
            return error_set(err, -EINVAL, "a %s's name cannot hold '/': '%s'", noun, name);
        if (code < 0x20 || (code >= 0x7f && code < 0xa0))
            return error_set(err, -EINVAL, "a %s's name cannot hold control characters: '%s'", noun,
                             name);
        p += length;
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
