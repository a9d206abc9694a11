/* Owners as users name them. */
#ifndef FWFS_BASE_OWNER_H
#define FWFS_BASE_OWNER_H

#include <stdint.h>

#include "base/error.h"

/* USER[:GROUP], each by name or number; a USER alone stands for that user's login group too.
 * -EINVAL: it has another form; -ENOENT: there is no such user or group. */
int owner_parse(const char *text, uint32_t *uid, uint32_t *gid, struct error *err);

#endif
