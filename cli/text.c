/* Text that is safe to print: UTF-8, looked at a character at a time. */
#include "cli/text.h"

#include <errno.h>
#include <string.h>
#include <wchar.h>

#include "base/utf8.h"

bool text_is_unsafe(uint32_t character)
{
    return character < 0x20 || (character >= 0x7f && character < 0xa0) || character == 0x200e ||
           character == 0x200f ||                          /* marks of direction */
           (character >= 0x2028 && character <= 0x202e) || /* line ends, embeddings, overrides */
           (character >= 0x2066 && character <= 0x2069);   /* isolates */
}

size_t text_width(const char *text)
{
    size_t width = 0;
    uint32_t character;
    for (size_t length; *text; text += length) {
        length = utf8_next(text, &character);
        if (length == 0 || text_is_unsafe(character)) {
            width += length > 1 ? strlen("\\u0000") : strlen("\\x00");
            length = length ? length : 1;
            continue;
        }
        /* -1 is a character that the locale does not know. */
        int columns = wcwidth((wchar_t)character);
        width += columns < 0 ? 1 : (size_t)columns;
    }
    return width;
}
