/* The rules of the schema `Firmware` in QEMU's docs/interop/firmware.json (10.2), for flash. */
#ifndef FWFS_FIRMWARE_DESCRIPTOR_SCHEMA_H
#define FWFS_FIRMWARE_DESCRIPTOR_SCHEMA_H

#include <json-c/json.h>

#include "base/error.h"

/* FirmwareFormat by enum image_format, ended by NULL. */
extern const char *const image_format_names[];

/* Checks what is known of the schema; members and features that are not known are passed over. When
 * it returns 0, every known member is there (but for the optional ones), has its type and a value
 * of its enum, and no string has a NUL in it. Each refusal begins with the member's path. */
int descriptor_schema_check(struct json_object *root, struct error *err);

#endif
