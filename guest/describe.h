/* What is known of a guest or a firmware, as JSON: what `show --json` prints and the generated
 * files of the view hold. Texts are indented and end with a newline; the caller frees them. */
#ifndef FWFS_GUEST_DESCRIBE_H
#define FWFS_GUEST_DESCRIBE_H

#include <json-c/json.h>

#include "base/error.h"
#include "firmware/descriptor.h"
#include "store/store.h"

/* The version of every JSON object that fwfs prints: raised when a member changes its meaning. */
#define DESCRIBE_SCHEMA_VERSION 1

/* A new object with "schema_version" in it; NULL when memory ran out. */
struct json_object *describe_new(void);

/* A time in nanoseconds since 1970 as ISO 8601 in UTC. */
struct json_object *describe_time(int64_t nanoseconds);

/* Adds the members that tell of a guest, or of a firmware, to `object`. */
int describe_guest(struct store *store, const struct store_guest *guest, struct json_object *object,
                   struct error *err);
int describe_firmware(struct store *store, const struct store_firmware *firmware,
                      struct json_object *object, struct error *err);

/* The descriptor that the store keeps of a firmware; -EUCLEAN if it is none, or of another mode.
 * The caller frees *ret with descriptor_free(). */
int describe_descriptor(struct store *store, const struct store_firmware *firmware,
                        struct descriptor **ret, struct error *err);

/* What a guest is started with: its firmware's descriptor, and where its files are. */
struct describe_files {
    struct descriptor *descriptor;
    char *code;
    char *vars; /* NULL where the mode has none */
};

/* The paths are those below `mountpoint`. */
int describe_files(struct store *store, const struct store_guest *guest, const char *mountpoint,
                   struct describe_files *ret, struct error *err);
void describe_files_clear(struct describe_files *files);

/* The text of an object that this takes over. */
int describe_text(struct json_object *object, char **ret, struct error *err);

/* The text of guest.json. */
int describe_guest_text(struct store *store, const struct store_guest *guest, char **ret,
                        struct error *err);

/* The text of firmware.json: the firmware's descriptor with the file names of this guest's view
 * below `mountpoint`. */
int describe_guest_descriptor(struct store *store, const struct store_guest *guest,
                              const char *mountpoint, char **ret, struct error *err);

#endif
