/* fwfs guest qemu, libvirt: how a guest is started. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "cli/guest.h"
#include "cli/output.h"
#include "guest/describe.h"
#include "guest/libvirt.h"
#include "guest/qemu.h"

/* As guest_find(), and the mount point's absolute path, which the caller frees. */
static int find_mounted(struct cli *cli, int argc, char **argv, const char *mountpoint,
                        struct store **store, struct store_guest *guest, char **absolute,
                        struct error *err)
{
    if (!mountpoint)
        return cli_usage(cli, err, "--mountpoint DIR is missing");
    int r = guest_find(cli, argc, argv, STORE_READ_ONLY, store, guest, err);
    if (r < 0)
        return r;
    *absolute = realpath(mountpoint, NULL);
    if (!*absolute)
        return error_set(err, -errno,
                         "mount point %s: %s; name the directory that 'fwfs mount' "
                         "was given",
                         mountpoint, strerror(errno));
    return 0;
}

/* An option and its value a line. */
static int print_arguments(const struct qemu_arguments *arguments, struct error *err)
{
    for (size_t i = 0; i < arguments->count; i++) {
        if (i > 0)
            putchar(*arguments->values[i] == '-' ? '\n' : ' ');
        int r = output_shell_word(arguments->values[i], err);
        if (r < 0)
            return r;
    }
    putchar('\n');
    return 0;
}

static int print_arguments_json(const struct store_guest *guest,
                                const struct qemu_arguments *arguments, struct error *err)
{
    cleanup_json struct json_object *object = describe_new();
    cleanup_json struct json_object *array = json_object_new_array();
    int r = object && array ? 0 : -ENOMEM;
    for (size_t i = 0; r == 0 && i < arguments->count; i++)
        r = json_append(array, json_object_new_string(arguments->values[i]));
    if (r == 0)
        r = json_add(object, "guest", json_object_new_string(guest->name));
    if (r == 0)
        r = json_add(object, "arguments", steal_ptr(array));
    if (r < 0)
        return error_set(err, r, "no memory for the output");
    return output_json(steal_ptr(object), err);
}

int guest_run_qemu(struct cli *cli, int argc, char **argv, struct error *err)
{
    enum { MOUNTPOINT = 1 << 8 };
    static const struct option options[] = {
        {"mountpoint", required_argument, NULL, MOUNTPOINT},
        CLI_GLOBAL_OPTIONS,
    };
    const char *mountpoint = NULL;
    int option;
    while ((option = cli_option(cli, argc, argv, options, err)) != 0) {
        if (option < 0)
            return option;
        mountpoint = optarg;
    }

    cleanup(store_closep) struct store *store = NULL;
    cleanup(qemu_arguments_clear) struct qemu_arguments arguments = {0};
    cleanup_free char *absolute = NULL;
    struct store_guest guest;
    int r = find_mounted(cli, argc, argv, mountpoint, &store, &guest, &absolute, err);
    if (r < 0)
        return r;
    r = qemu_guest_arguments(store, &guest, absolute, &arguments, err);
    if (r < 0)
        return r;
    return cli->json ? print_arguments_json(&guest, &arguments, err)
                     : print_arguments(&arguments, err);
}

static int print_domain_json(const struct store_guest *guest, const char *domain, struct error *err)
{
    cleanup_json struct json_object *object = describe_new();
    if (!object || json_add(object, "guest", json_object_new_string(guest->name)) < 0 ||
        json_add(object, "domain", json_object_new_string(domain)) < 0)
        return error_set(err, -ENOMEM, "no memory for the output");
    return output_json(steal_ptr(object), err);
}

int guest_run_libvirt(struct cli *cli, int argc, char **argv, struct error *err)
{
    enum { MOUNTPOINT = 1 << 8, VIRT_TYPE };
    static const struct option options[] = {
        {"mountpoint", required_argument, NULL, MOUNTPOINT},
        {"virt-type", required_argument, NULL, VIRT_TYPE},
        CLI_GLOBAL_OPTIONS,
    };
    const char *mountpoint = NULL;
    enum virt_type type = VIRT_TYPE_KVM;
    int option;
    while ((option = cli_option(cli, argc, argv, options, err)) != 0) {
        if (option < 0)
            return option;
        if (option == MOUNTPOINT)
            mountpoint = optarg;
        else if (virt_type_parse(optarg, &type) < 0)
            return cli_usage(cli, err, "'%s' is no virt-type: it is kvm or qemu", optarg);
    }

    cleanup(store_closep) struct store *store = NULL;
    cleanup_free char *absolute = NULL;
    cleanup_free char *domain = NULL;
    struct store_guest guest;
    int r = find_mounted(cli, argc, argv, mountpoint, &store, &guest, &absolute, err);
    if (r == 0)
        r = libvirt_guest_domain(store, &guest, absolute, type, &domain, err);
    if (r < 0)
        return r;
    if (cli->json)
        return print_domain_json(&guest, domain, err);
    output_xml(domain);
    return 0;
}

/* ---- Help ---- */

const char guest_qemu_help[] =
    "Prints the arguments that start this guest in QEMU from its directory in the mount, quoted\n"
    "for a shell, an option and its value a line: the machine with its flash devices, read-only\n"
    "where the mode says so, and what the firmware's features require. All else of the command\n"
    "line (memory, disks, cards) is yours. Exit code 3: no such guest, or mount point.\n"
    "\n"
    "Options:\n"
    "  --mountpoint DIR  where the store is mounted\n"
    "\n"
    "Examples:\n"
    "  qemu-system-x86_64 $(fwfs guest qemu web01 --mountpoint /fw) -m 512 -nographic\n"
    "where names or paths need quotes:\n"
    "  eval \"qemu-system-x86_64 $(fwfs guest qemu 'web 01' --mountpoint /fw | tr '\\n' ' ') -m "
    "512\"\n";

const char guest_libvirt_help[] =
    "Prints a whole libvirt domain for this guest, as XML: the machine, its firmware and its\n"
    "variables from the guest's directory in the mount, a processor, 1 GiB of memory and a serial\n"
    "console. 'virsh define' takes it as it is; disks and networks are yours to add. Exit code 3:\n"
    "no such guest, or mount point.\n"
    "\n"
    "QEMU must be able to reach the mount point, and to write to the guest's files: libvirt sees\n"
    "to 'vars', but in mode combined 'code' must have QEMU's owner, as from --owner of 'fwfs "
    "guest\n"
    "add'. Where AppArmor confines libvirt, mount below /srv, /mnt or /var/lib/libvirt/images.\n"
    "\n"
    "Options:\n"
    "  --mountpoint DIR   where the store is mounted\n"
    "  --virt-type TYPE   kvm (if not given) or qemu, which emulates the processor\n"
    "\n"
    "Example:\n"
    "  fwfs guest libvirt web01 --mountpoint /srv/fw > web01.xml && virsh define web01.xml\n";
