#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

/* Names and paths are quoted in errors, and may hold what a terminal would obey, or be cut short.
 */
static void make_printable(char *text)
{
    for (size_t length; *text; text += length) {
        uint32_t character;
        length = utf8_next(text, &character);
        if (length == 0)
            *text = '?';
        else if (character < 0x20 || (character >= 0x7f && character < 0xa0))
            memset(text, '?', length);
        length = length ? length : 1;
    }
}

int error_set(struct error *err, int code, const char *format, ...)
{
    if (err) {
        va_list args;
        va_start(args, format);
        err->code = code;
        vsnprintf(err->text, sizeof err->text, format, args);
        va_end(args);
        make_printable(err->text);
    }
    return code;
}

int error_prefix(struct error *err, int code, const char *format, ...)
{
    if (!err)
        return code;
    char said[ERROR_TEXT_SIZE];
    snprintf(said, sizeof said, "%s", err->code ? err->text : strerror(-code));

    va_list args;
    va_start(args, format);
    int length = vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    if (length >= 0 && (size_t)length < sizeof err->text)
        snprintf(err->text + length, sizeof err->text - (size_t)length, ": %s", said);
    err->code = code;
    make_printable(err->text);
    return code;
}
