/* A firmware descriptor: a JSON object of the schema `Firmware` in QEMU's
 * docs/interop/firmware.json.
 *
 * Reading is lenient as the schema asks: members and features that are not known are kept and
 * passed over. What is known must be right: each refusal names the member. */
#ifndef FWFS_FIRMWARE_DESCRIPTOR_H
#define FWFS_FIRMWARE_DESCRIPTOR_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "base/mode.h"

/* As libvirt: a descriptor is small; what is larger is something else. */
#define DESCRIPTOR_SIZE_MAX (1024 * 1024)

/* FirmwareFormat. */
enum image_format {
    IMAGE_FORMAT_RAW,
    IMAGE_FORMAT_QCOW2,
};

const char *image_format_name(enum image_format format);

/* FirmwareFlashFile. */
struct descriptor_file {
    const char *filename; /* owned by the descriptor; NULL where the member is absent */
    enum image_format format;
};

struct descriptor; /* immutable once made; may be read by any number of threads */

/* Reads `length` bytes of JSON. Refuses with -EINVAL what is no JSON, lacks one of the six
 * mandatory members, or has a wrong type or an unknown mode, format, interface or architecture;
 * with -ENOTSUP a mapping whose device is not "flash". The caller frees *ret with
 * descriptor_free(). */
int descriptor_parse(const char *text, size_t length, struct descriptor **ret, struct error *err);

/* The same from a file; errors begin with its path. -ENOENT or the like: it cannot be read. */
int descriptor_load(const char *path, struct descriptor **ret, struct error *err);

/* What `firmware add` is told, for a firmware that came without a descriptor. Lists are arrays of
 * `…_count` strings and may be empty. */
struct descriptor_facts {
    const char *description;
    enum flash_mode mode;
    struct descriptor_file executable;
    struct descriptor_file nvram_template; /* filename NULL: none */
    const char *architecture;
    const char *const *machines;
    size_t machine_count;
    const char *const *features;
    size_t feature_count;
    const char *const *interfaces; /* FirmwareOSInterface; none means "uefi" */
    size_t interface_count;
};

/* Makes the descriptor that says these facts, by the same rules as descriptor_parse(). */
int descriptor_new(const struct descriptor_facts *facts, struct descriptor **ret,
                   struct error *err);

void descriptor_free(struct descriptor *descriptor);
void descriptor_freep(struct descriptor **descriptor);

enum flash_mode descriptor_mode(const struct descriptor *descriptor);
struct descriptor_file descriptor_executable(const struct descriptor *descriptor);
struct descriptor_file descriptor_nvram_template(const struct descriptor *descriptor);
const char *descriptor_description(const struct descriptor *descriptor);

/* The architecture of the first target, e.g. "x86_64"; NULL without targets. */
const char *descriptor_architecture(const struct descriptor *descriptor);
/* The n-th machine pattern over all targets, in order; NULL past the last. */
const char *descriptor_machine(const struct descriptor *descriptor, size_t n);
/* The n-th feature, in order; NULL past the last. */
const char *descriptor_feature(const struct descriptor *descriptor, size_t n);
bool descriptor_has_feature(const struct descriptor *descriptor, const char *feature);

/* The whole descriptor as JSON text, on one line as it is stored. NULL when memory ran out; the
 * caller frees it. */
char *descriptor_to_json(const struct descriptor *descriptor);

/* The same, indented and ended by a newline, with other file names in its mapping, both of format
 * raw: a guest's own view of its firmware. `nvram_template` is NULL where the mode has none. */
char *descriptor_to_json_for(const struct descriptor *descriptor, const char *executable,
                             const char *nvram_template);

#endif
