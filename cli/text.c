/* Text that is safe to print: UTF-8, looked at a character at a time. */
#include "cli/text.h"

#include <errno.h>
#include <string.h>
#include <wchar.h>

size_t text_next(const char *text, uint32_t *character)
{
    static const struct {
        uint8_t mask, lead;
        uint32_t least; /* a smaller character in so many bytes is overlong */
    } forms[] = {{0x80, 0x00, 0}, {0xe0, 0xc0, 0x80}, {0xf0, 0xe0, 0x800}, {0xf8, 0xf0, 0x10000}};

    const unsigned char *bytes = (const unsigned char *)text;
    for (size_t extra = 0; extra < sizeof forms / sizeof forms[0]; extra++) {
        if ((bytes[0] & forms[extra].mask) != forms[extra].lead)
            continue;
        uint32_t value = bytes[0] & (uint8_t)~forms[extra].mask;
        for (size_t i = 1; i <= extra; i++) {
            if ((bytes[i] & 0xc0) != 0x80)
                return 0;
            value = value << 6 | (bytes[i] & 0x3f);
        }
        if (value < forms[extra].least || value > 0x10ffff || (value >= 0xd800 && value < 0xe000))
            return 0;
        *character = value;
        return extra + 1;
    }
    return 0;
}

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
        length = text_next(text, &character);
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
