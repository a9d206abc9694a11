#include "guest/machine.h"

#include <ctype.h>
#include <string.h>

/* What a pattern with glob characters stands for; only q35 has SMM, so it comes first. */
static const struct {
    const char *prefix, *alias;
} aliases[] = {{"pc-q35-", "q35"}, {"pc-i440fx-", "pc"}, {"virt-", "virt"}};

/* A type that QEMU can be given as it is: no glob, nothing that its options' syntax knows. */
static bool is_type(const char *pattern)
{
    for (const char *p = pattern; *p; p++)
        if (!isalnum((unsigned char)*p) && !strchr("-._", *p))
            return false;
    return *pattern != '\0';
}

static bool has_prefix(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static const char *type_for(const struct descriptor *descriptor)
{
    const char *pattern;
    for (size_t i = 0; i < sizeof aliases / sizeof aliases[0]; i++)
        for (size_t n = 0; (pattern = descriptor_machine(descriptor, n)); n++)
            if (!is_type(pattern) && has_prefix(pattern, aliases[i].prefix))
                return aliases[i].alias;
    for (size_t n = 0; (pattern = descriptor_machine(descriptor, n)); n++)
        if (is_type(pattern))
            return pattern;
    return NULL;
}

struct machine machine_for(const struct descriptor *descriptor)
{
    struct machine machine = {
        .type = type_for(descriptor),
        .smm = descriptor_has_feature(descriptor, "requires-smm"),
    };
    if (machine.smm && (!machine.type || !has_prefix(machine.type, aliases[0].prefix)))
        machine.type = aliases[0].alias;
    return machine;
}
