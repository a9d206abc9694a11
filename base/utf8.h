/* UTF-8 (RFC 3629), a character at a time. */
#ifndef FWFS_BASE_UTF8_H
#define FWFS_BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Decodes the first character of a text that is not empty. Returns its length in bytes, or 0 where
 * there is no valid UTF-8: overlong forms, surrogates and what is past U+10FFFF are none. */
size_t utf8_next(const char *text, uint32_t *character);

#endif
