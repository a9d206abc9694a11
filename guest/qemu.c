#include "guest/qemu.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>

#include "base/cleanup.h"
#include "guest/describe.h"
#include "guest/machine.h"

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

static int add_machine(struct qemu_arguments *arguments, const struct describe_files *files)
{
    struct machine machine = machine_for(files->descriptor);
    int r = add_option(arguments, "-machine", "%s%spflash0=" CODE_NODE "%s%s",
                       machine.type ? machine.type : "", machine.type ? "," : "",
                       files->vars ? ",pflash1=" VARS_NODE : "", machine.smm ? ",smm=on" : "");
    /* Else the guest's kernel could write the flash past SMM, and turn Secure Boot off. */
    if (r == 0 && machine.smm)
        r = add_option(arguments, "-global", "driver=cfi.pflash01,property=secure,value=on");
    return r;
}

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

/* A writable file is opened for writing only when the machine runs: the destination of a live
 * migration starts while the source still has it. */
static int add_flash(struct qemu_arguments *arguments, const char *node, const char *path,
                     bool read_only)
{
    const char *access = read_only ? "read-only=on" : "auto-read-only=on";
    cleanup_free char *filename = double_commas(path);
    if (!filename)
        return -ENOMEM;
    int r = add_option(arguments, "-blockdev", "driver=file,node-name=%s-file,filename=%s,%s", node,
                       filename, access);
    if (r == 0)
        r = add_option(arguments, "-blockdev", "driver=raw,node-name=%s,file=%s-file,read-only=%s",
                       node, node, read_only ? "on" : "off");
    return r;
}

int qemu_guest_arguments(struct store *store, const struct store_guest *guest,
                         const char *mountpoint, struct qemu_arguments *ret, struct error *err)
{
    cleanup(describe_files_clear) struct describe_files files = {0};
    int r = describe_files(store, guest, mountpoint, &files, err);
    if (r < 0)
        return r;

    cleanup(qemu_arguments_clear) struct qemu_arguments arguments = {.count = 0};
    r = add_machine(&arguments, &files);
    if (r == 0)
        r = add_flash(&arguments, CODE_NODE, files.code,
                      guest->firmware.mode != FLASH_MODE_COMBINED);
    if (r == 0 && files.vars)
        r = add_flash(&arguments, VARS_NODE, files.vars, false);
    if (r < 0)
        return error_set(err, r, "%s", strerror(-r));
    *ret = arguments;
    arguments = (struct qemu_arguments){.count = 0};
    return 0;
}
