#include "base/utf8.h"

size_t utf8_next(const char *text, uint32_t *character)
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
