/* What json-c leaves to its callers: release by scope, and additions that cannot fail unseen. */
#ifndef FWFS_BASE_JSON_H
#define FWFS_BASE_JSON_H

#include <errno.h>
#include <json-c/json.h>

#include "base/cleanup.h"

#define cleanup_json cleanup(json_object_putp)

static inline void json_object_putp(struct json_object **object)
{
    json_object_put(*object);
}

/* Both take `value` over, whatever happens, and return 0 or -ENOMEM; a NULL is the failed
 * allocation of json-c's constructors, so that calls can be nested. */
static inline int json_add(struct json_object *object, const char *name, struct json_object *value)
{
    if (value && json_object_object_add(object, name, value) == 0)
        return 0;
    json_object_put(value);
    return -ENOMEM;
}

static inline int json_append(struct json_object *array, struct json_object *value)
{
    if (value && json_object_array_add(array, value) == 0)
        return 0;
    json_object_put(value);
    return -ENOMEM;
}

#endif
