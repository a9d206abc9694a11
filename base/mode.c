#include "base/mode.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

static const char *const names[] = {
    [FLASH_MODE_SPLIT] = "split",
    [FLASH_MODE_COMBINED] = "combined",
    [FLASH_MODE_STATELESS] = "stateless",
};

const char *flash_mode_name(enum flash_mode mode)
{
    return names[mode];
}

int flash_mode_parse(const char *word, enum flash_mode *mode)
{
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(word, names[i]) == 0) {
            *mode = (enum flash_mode)i;
            return 0;
        }
    }
    return -EINVAL;
}
