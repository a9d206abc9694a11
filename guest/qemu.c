#include "guest/qemu.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>

#include "base/cleanup.h"
#include "guest/describe.h"

/* The names of the block nodes, which -machine refers to. */
#define CODE_NODE "fwfs-code"
#define VARS_NODE "fwfs-vars"

void qemu_arguments_clear(struct qemu_arguments *arguments)
{
    for (size_t i = 0; i < arguments->count; i++)
        free(arguments->values[i]);
    free(arguments->values);
    *arguments = (struct qemu_arguments){.count = 0};
}

/* Adds an option and its value, which is printed as `format` says. */
static int add_option(struct qemu_arguments *arguments, const char *option, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int add_option(struct qemu_arguments *arguments, const char *option, const char *format, ...)
{
    char **values = reallocarray(arguments->values, arguments->count + 2, sizeof *values);
    if (!values)
        return -ENOMEM;
    arguments->values = values;

    cleanup_free char *name = strdup(option);
    char *value;
    va_list args;
    va_start(args, format);
    int length = name ? vasprintf(&value, format, args) : -1;
    va_end(args);
    if (length < 0)
        return -ENOMEM;
    values[arguments->count++] = steal_ptr(name);
    values[arguments->count++] = value;
    return 0;
}

/* ---- The machine ---- */

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

/* The type to name on the command line; NULL leaves it to the user. */
static const char *machine_type(const struct descriptor *descriptor)
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

static int add_machine(struct qemu_arguments *arguments, const struct descriptor *descriptor)
{
    bool smm = descriptor_has_feature(descriptor, "requires-smm");
    bool vars = descriptor_mode(descriptor) == FLASH_MODE_SPLIT;
    const char *type = machine_type(descriptor);
    if (smm && (!type || !has_prefix(type, aliases[0].prefix)))
        type = aliases[0].alias;
    int r = add_option(arguments, "-machine", "%s%spflash0=" CODE_NODE "%s%s", type ? type : "",
                       type ? "," : "", vars ? ",pflash1=" VARS_NODE : "", smm ? ",smm=on" : "");
    /* Else the guest's kernel could write the flash past SMM, and turn Secure Boot off. */
    if (r == 0 && smm)
        r = add_option(arguments, "-global", "driver=cfi.pflash01,property=secure,value=on");
    return r;
}

/* ---- Flashes ---- */

/* A comma ends a value in QEMU's options unless it is doubled. */
static char *double_commas(const char *text)
{
    char *doubled = malloc(2 * strlen(text) + 1);
    char *to = doubled;
    for (const char *from = text; doubled && *from; from++) {
        *to++ = *from;
        if (*from == ',')
            *to++ = ',';
    }
    if (doubled)
        *to = '\0';
    return doubled;
}

static int add_flash(struct qemu_arguments *arguments, const char *node, const char *path,
                     bool read_only)
{
    const char *word = read_only ? "on" : "off";
    cleanup_free char *filename = double_commas(path);
    if (!filename)
        return -ENOMEM;
    int r =
        add_option(arguments, "-blockdev", "driver=file,node-name=%s-file,filename=%s,read-only=%s",
                   node, filename, word);
    if (r == 0)
        r = add_option(arguments, "-blockdev", "driver=raw,node-name=%s,file=%s-file,read-only=%s",
                       node, node, word);
    return r;
}

int qemu_guest_arguments(struct store *store, const struct store_guest *guest,
                         const char *mountpoint, struct qemu_arguments *ret, struct error *err)
{
    cleanup(descriptor_freep) struct descriptor *descriptor = NULL;
    cleanup_free char *code = NULL;
    cleanup_free char *vars = NULL;
    int r = describe_descriptor(store, &guest->firmware, &descriptor, err);
    if (r == 0)
        r = describe_view_path(mountpoint, guest, "code", &code, err);
    if (r == 0 && guest->firmware.mode == FLASH_MODE_SPLIT)
        r = describe_view_path(mountpoint, guest, "vars", &vars, err);
    if (r < 0)
        return r;

    cleanup(qemu_arguments_clear) struct qemu_arguments arguments = {.count = 0};
    r = add_machine(&arguments, descriptor);
    if (r == 0)
        r = add_flash(&arguments, CODE_NODE, code, guest->firmware.mode != FLASH_MODE_COMBINED);
    if (r == 0 && vars)
        r = add_flash(&arguments, VARS_NODE, vars, false);
    if (r < 0)
        return error_set(err, r, "%s", strerror(-r));
    *ret = arguments;
    arguments = (struct qemu_arguments){.count = 0};
    return 0;
}
