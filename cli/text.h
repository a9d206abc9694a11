/* Text that is safe to print: UTF-8, looked at a character at a time. */
#ifndef FWFS_CLI_TEXT_H
#define FWFS_CLI_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whether a terminal might obey it: control characters, line ends, changes of direction. */
bool text_is_unsafe(uint32_t character);

/* The columns that output_text() takes for it on a terminal. */
size_t text_width(const char *text);

#endif
