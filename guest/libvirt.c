/* The document is printed, not built: it is short, and what others have named stands only in texts
 * and in attributes between single quotes, which are escaped alike. */
#include "guest/libvirt.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/utf8.h"
#include "guest/describe.h"
#include "guest/machine.h"

static const char *const virt_type_names[] = {
    [VIRT_TYPE_KVM] = "kvm",
    [VIRT_TYPE_QEMU] = "qemu",
};

int virt_type_parse(const char *word, enum virt_type *ret)
{
    for (size_t i = 0; i < sizeof virt_type_names / sizeof virt_type_names[0]; i++) {
        if (strcmp(word, virt_type_names[i]) == 0) {
            *ret = (enum virt_type)i;
            return 0;
        }
    }
    return -EINVAL;
}

/* ---- XML ---- */

/* The characters of XML 1.0, without the line ends and tabs that attributes do not keep. */
static int check_text(const char *what, const char *text, struct error *err)
{
    uint32_t character;
    for (size_t length; *text; text += length) {
        length = utf8_next(text, &character);
        if (length == 0)
            return error_set(err, -EINVAL, "%s is not UTF-8, as XML must be; rename it", what);
        if (character < 0x20 || character == 0xfffe || character == 0xffff)
            return error_set(err, -EINVAL, "%s holds U+%04X, which XML cannot; rename it", what,
                             character);
    }
    return 0;
}

/* Prints a checked text between what is XML already. */
static void put(FILE *out, const char *before, const char *text, const char *after)
{
    static const char special[] = "&<>'\"";
    static const char *const entities[] = {"&amp;", "&lt;", "&gt;", "&apos;", "&quot;"};
    fputs(before, out);
    for (; *text; text++) {
        const char *found = strchr(special, *text);
        if (found)
            fputs(entities[found - special], out);
        else
            putc(*text, out);
    }
    fputs(after, out);
}

/* ---- The domain ---- */

/* libvirt's word for an architecture of QEMU's schema. */
static const char *libvirt_architecture(const char *architecture)
{
    if (strcmp(architecture, "i386") == 0)
        return "i686";
    return strcmp(architecture, "arm") == 0 ? "armv7l" : architecture;
}

/* What libvirt resets the variables from. It copies the bytes as they are, and takes no relative
 * path. */
static const char *nvram_template(const struct describe_files *files)
{
    struct descriptor_file file = descriptor_nvram_template(files->descriptor);
    bool usable = file.filename && file.filename[0] == '/' && file.format == IMAGE_FORMAT_RAW;
    return files->vars && usable ? file.filename : NULL;
}

static void put_os(FILE *out, const struct describe_files *files, struct machine machine)
{
    enum flash_mode mode = descriptor_mode(files->descriptor);
    const char *architecture = descriptor_architecture(files->descriptor);
    fputs("  <os>\n    <type", out);
    if (architecture)
        put(out, " arch='", libvirt_architecture(architecture), "'");
    if (machine.type)
        put(out, " machine='", machine.type, "'");
    fputs(">hvm</type>\n", out);

    fprintf(out, "    <loader readonly='%s' type='pflash'%s%s",
            mode == FLASH_MODE_COMBINED ? "no" : "yes", machine.smm ? " secure='yes'" : "",
            mode == FLASH_MODE_STATELESS ? " stateless='yes'" : "");
    put(out, ">", files->code, "</loader>\n");
    if (files->vars) {
        const char *template = nvram_template(files);
        fputs("    <nvram", out);
        if (template)
            put(out, " template='", template, "'");
        put(out, ">", files->vars, "</nvram>\n");
    }
    fputs("  </os>\n", out);
}

/* Each machine has its own; libvirt refuses those of others. */
static void put_features(FILE *out, const struct describe_files *files, struct machine machine)
{
    const char *architecture = descriptor_architecture(files->descriptor);
    bool x86 = machine.smm || (architecture && (strcmp(architecture, "x86_64") == 0 ||
                                                strcmp(architecture, "i386") == 0));
    if (!x86 && !(architecture && strcmp(architecture, "aarch64") == 0))
        return;
    fprintf(out, "  <features>\n    <acpi/>\n%s%s  </features>\n", x86 ? "    <apic/>\n" : "",
            machine.smm ? "    <smm state='on'/>\n" : "");
}

static void put_domain(FILE *out, const struct store_guest *guest,
                       const struct describe_files *files, enum virt_type type)
{
    struct machine machine = machine_for(files->descriptor);
    put(out, "<domain type='", virt_type_names[type], "'>\n");
    put(out, "  <name>", guest->name, "</name>\n");
    fputs("  <memory unit='MiB'>1024</memory>\n"
          "  <vcpu>1</vcpu>\n",
          out);
    put_os(out, files, machine);
    put_features(out, files, machine);
    /* Some machines' default processor cannot run 64-bit firmware. */
    put(out, "  <cpu mode='", type == VIRT_TYPE_KVM ? "host-passthrough" : "maximum", "'/>\n");
    fputs("  <devices>\n"
          "    <serial type='pty'/>\n"
          "    <console type='pty'/>\n"
          "  </devices>\n"
          "</domain>\n",
          out);
}

static int check_texts(const struct store_guest *guest, const struct describe_files *files,
                       struct error *err)
{
    const char *template = nvram_template(files);
    int r = check_text("the guest's name", guest->name, err);
    if (r == 0)
        r = check_text("the path of its code", files->code, err);
    if (r == 0 && template)
        r = check_text("the path of its nvram-template", template, err);
    return r;
}

int libvirt_guest_domain(struct store *store, const struct store_guest *guest,
                         const char *mountpoint, enum virt_type type, char **ret, struct error *err)
{
    cleanup(describe_files_clear) struct describe_files files = {0};
    int r = describe_files(store, guest, mountpoint, &files, err);
    if (r == 0)
        r = check_texts(guest, &files, err);
    if (r < 0)
        return r;

    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return error_set(err, -ENOMEM, "%s", strerror(ENOMEM));
    put_domain(out, guest, &files, type);
    bool failed = ferror(out);
    if (fclose(out) != 0 || failed) {
        free(text);
        return error_set(err, -ENOMEM, "%s", strerror(ENOMEM));
    }
    *ret = text;
    return 0;
}
