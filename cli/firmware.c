/* fwfs firmware add, list, show, rm; import is in import.c. */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "cli/cli.h"
#include "cli/import.h"
#include "cli/names.h"
#include "cli/output.h"
#include "firmware/image.h"
#include "guest/describe.h"
#include "guest/install.h"

static const char list_advice[] = "'fwfs firmware list' shows what there is";

static const struct option no_options[] = {CLI_GLOBAL_OPTIONS};

/* ---- add ---- */

struct add_request {
    const char *mode, *executable, *nvram_template, *description, *architecture;
    struct names machines, features, interfaces;
};

static void add_request_clear(struct add_request *request)
{
    names_clear(&request->machines);
    names_clear(&request->features);
    names_clear(&request->interfaces);
}

static int parse_add(struct cli *cli, int argc, char **argv, struct add_request *request,
                     struct error *err)
{
    enum { MODE = 1 << 8, EXECUTABLE, TEMPLATE, DESCRIPTION, ARCH, MACHINE, FEATURE, INTERFACE };
    static const struct option options[] = {
        {"mode", required_argument, NULL, MODE},
        {"executable", required_argument, NULL, EXECUTABLE},
        {"nvram-template", required_argument, NULL, TEMPLATE},
        {"description", required_argument, NULL, DESCRIPTION},
        {"arch", required_argument, NULL, ARCH},
        {"machine", required_argument, NULL, MACHINE},
        {"feature", required_argument, NULL, FEATURE},
        {"interface", required_argument, NULL, INTERFACE},
        CLI_GLOBAL_OPTIONS,
    };
    int option, r = 0;
    while (r == 0 && (option = cli_option(cli, argc, argv, options, err)) != 0) {
        switch (option) {
        case MODE:
            request->mode = optarg;
            break;
        case EXECUTABLE:
            request->executable = optarg;
            break;
        case TEMPLATE:
            request->nvram_template = optarg;
            break;
        case DESCRIPTION:
            request->description = optarg;
            break;
        case ARCH:
            request->architecture = optarg;
            break;
        case MACHINE:
            r = names_add(&request->machines, optarg, err);
            break;
        case FEATURE:
            r = names_add(&request->features, optarg, err);
            break;
        case INTERFACE:
            r = names_add(&request->interfaces, optarg, err);
            break;
        default:
            return option;
        }
    }
    return r < 0 ? r : cli_operands(cli, argc, argv, 1, 1, err);
}

/* What the modes of QEMU's schema ask for, in the words of the options. */
static int check_mode(struct cli *cli, const struct add_request *request, enum flash_mode *mode,
                      struct error *err)
{
    *mode = FLASH_MODE_SPLIT;
    if (request->mode && flash_mode_parse(request->mode, mode) < 0)
        return cli_usage(cli, err, "'%s' is no mode: it is split, combined or stateless",
                         request->mode);
    if (!request->executable)
        return cli_usage(cli, err, "--executable FILE is missing");
    if (*mode == FLASH_MODE_SPLIT && !request->nvram_template)
        return cli_usage(cli, err,
                         "mode split needs --nvram-template FILE, where guests' "
                         "variables begin");
    if (*mode != FLASH_MODE_SPLIT && request->nvram_template)
        return cli_usage(cli, err, "mode %s takes no --nvram-template", flash_mode_name(*mode));
    return 0;
}

/* The file as the descriptor is to name it: a path that holds from everywhere. */
static int find_image(const char *path, char **absolute, struct descriptor_file *file,
                      struct error *err)
{
    *absolute = realpath(path, NULL);
    if (!*absolute)
        return error_set(err, -errno, "%s: %s; name an image file that exists", path,
                         strerror(errno));
    file->filename = *absolute;
    return image_probe_format(*absolute, &file->format, err);
}

/* The machines that firmware for an architecture is commonly built for. */
static int add_default_machines(const char *architecture, struct names *machines, struct error *err)
{
    static const char *const virt[] = {"aarch64", "arm", "riscv64", "loongarch64"};
    if (strcmp(architecture, "x86_64") == 0 || strcmp(architecture, "i386") == 0) {
        int r = names_add(machines, "pc-i440fx-*", err);
        return r < 0 ? r : names_add(machines, "pc-q35-*", err);
    }
    for (size_t i = 0; i < sizeof virt / sizeof virt[0]; i++)
        if (strcmp(architecture, virt[i]) == 0)
            return names_add(machines, "virt-*", err);
    return 0;
}

static int make_descriptor(struct cli *cli, const char *name, struct add_request *request,
                           struct descriptor **ret, struct error *err)
{
    cleanup_free char *executable = NULL, *nvram_template = NULL;
    struct descriptor_facts facts = {
        .description = request->description ? request->description : name,
        .architecture = request->architecture ? request->architecture : "x86_64",
    };
    int r = check_mode(cli, request, &facts.mode, err);
    if (r == 0)
        r = find_image(request->executable, &executable, &facts.executable, err);
    if (r == 0 && request->nvram_template)
        r = find_image(request->nvram_template, &nvram_template, &facts.nvram_template, err);
    if (r == 0 && request->machines.count == 0)
        r = add_default_machines(facts.architecture, &request->machines, err);
    if (r < 0)
        return r;

    facts.machines = names_values(&request->machines);
    facts.machine_count = request->machines.count;
    facts.features = names_values(&request->features);
    facts.feature_count = request->features.count;
    facts.interfaces = names_values(&request->interfaces);
    facts.interface_count = request->interfaces.count;
    r = descriptor_new(&facts, ret, err);
    if (r == -EINVAL)
        cli->usage = true; /* all of it came from options */
    return r;
}

static int run_add(struct cli *cli, int argc, char **argv, struct error *err)
{
    cleanup(store_closep) struct store *store = NULL;
    cleanup(descriptor_freep) struct descriptor *descriptor = NULL;
    cleanup(add_request_clear) struct add_request request = {0};
    int r = parse_add(cli, argc, argv, &request, err);
    if (r == 0)
        r = cli_check_name(cli, "firmware", argv[optind], err);
    if (r == 0)
        r = make_descriptor(cli, argv[optind], &request, &descriptor, err);
    if (r == 0)
        r = cli_open_store(cli, 0, &store, err);
    if (r < 0)
        return r;
    r = install_firmware(store, argv[optind], descriptor, err);
    if (r < 0)
        return import_advise(cli, r);
    struct import_report report;
    import_report_begin(&report, cli->json);
    r = import_report_add(&report, argv[optind], r > 0, err);
    import_report_end(&report);
    return r;
}

/* ---- list ---- */

struct listing {
    struct store *store;
    struct table table;
    struct json_list json;
    struct error *err;
};

static int list_json(const struct store_firmware *firmware, void *data)
{
    struct listing *listing = data;
    struct json_object *object = json_object_new_object();
    if (object) {
        int r = describe_firmware(listing->store, firmware, object, listing->err);
        if (r < 0) {
            json_object_put(object);
            return r;
        }
    }
    return json_list_add(&listing->json, object, listing->err);
}

static int list_row(const struct store_firmware *firmware, void *data)
{
    struct listing *listing = data;
    char executable[OUTPUT_SIZE_LENGTH], nvram_template[OUTPUT_SIZE_LENGTH], count[24];
    uint64_t guests;
    int r = store_firmware_guests(listing->store, firmware->id, &guests, listing->err);
    if (r < 0)
        return r;
    snprintf(count, sizeof count, "%" PRIu64, guests);
    table_row(&listing->table,
              (const char *const[]){firmware->name, flash_mode_name(firmware->mode),
                                    output_size(firmware->executable.size, executable),
                                    firmware->nvram_template.id
                                        ? output_size(firmware->nvram_template.size, nvram_template)
                                        : "-",
                                    count});
    return 0;
}

static void listing_clear(struct listing *listing)
{
    table_clear(&listing->table);
}

static int run_list(struct cli *cli, int argc, char **argv, struct error *err)
{
    static const char *const headings[] = {"FIRMWARE", "MODE", "EXECUTABLE", "NVRAM-TEMPLATE",
                                           "GUESTS"};
    cleanup(store_closep) struct store *store = NULL;
    cleanup(listing_clear) struct listing listing = {.err = err};
    int r = cli_option(cli, argc, argv, no_options, err);
    if (r == 0)
        r = cli_operands(cli, argc, argv, 0, 0, err);
    if (r == 0)
        r = cli_open_store(cli, STORE_READ_ONLY, &store, err);
    if (r < 0)
        return r;
    listing.store = store;
    if (cli->json) {
        listing.json.name = "firmwares";
        r = store_firmware_each(store, list_json, &listing, err);
        if (r == 0)
            json_list_end(&listing.json);
        return r;
    }
    r = table_begin(&listing.table, sizeof headings / sizeof headings[0], headings, err);
    if (r == 0)
        r = store_firmware_each(store, list_row, &listing, err);
    return r < 0 ? r : table_print(&listing.table, err);
}

/* ---- show and rm ---- */

/* Opens the store for what is to be done to the firmware that is the one operand. */
static int open_for_name(struct cli *cli, int argc, char **argv, unsigned flags,
                         struct store **store, struct error *err)
{
    int r = cli_option(cli, argc, argv, no_options, err);
    if (r == 0)
        r = cli_operands(cli, argc, argv, 1, 1, err);
    if (r == 0)
        r = cli_check_name(cli, "firmware", argv[optind], err);
    return r < 0 ? r : cli_open_store(cli, flags, store, err);
}

static int run_show(struct cli *cli, int argc, char **argv, struct error *err)
{
    cleanup(store_closep) struct store *store = NULL;
    struct store_firmware firmware;
    int r = open_for_name(cli, argc, argv, STORE_READ_ONLY, &store, err);
    if (r < 0)
        return r;
    r = store_firmware_get(store, argv[optind], &firmware, err);
    if (r < 0)
        return cli_advise(cli, r, -ENOENT, list_advice);
    cleanup_json struct json_object *object = describe_new();
    if (!object)
        return error_set(err, -ENOMEM, "no memory for the output");
    r = describe_firmware(store, &firmware, object, err);
    if (r < 0)
        return r;
    if (cli->json)
        return output_json(steal_ptr(object), err);
    json_object_object_del(object, "descriptor"); /* for programs; its facts are told already */
    return output_object(steal_ptr(object), err);
}

static int run_rm(struct cli *cli, int argc, char **argv, struct error *err)
{
    cleanup(store_closep) struct store *store = NULL;
    int r = open_for_name(cli, argc, argv, 0, &store, err);
    if (r < 0)
        return r;
    r = store_firmware_remove(store, argv[optind], err);
    cli_advise(cli, r, -EBUSY, "'fwfs guest list' shows the guests; remove them first");
    return cli_advise(cli, r, -ENOENT, list_advice);
}

/* ---- Help ---- */

static const char noun_help[] =
    "Firmware is what guests are made of: an executable image; in split mode an\n"
    "nvram-template image too, which each guest's variables begin as; and a descriptor by\n"
    "QEMU's schema firmware.json. The store keeps copies of the images: later changes to the\n"
    "files do not change it.\n"
    "\n"
    "Modes:\n"
    "  split      code shared and read-only, variables each guest's own\n"
    "  combined   code and variables in one image, each guest's own\n"
    "  stateless  code shared and read-only, variables not kept\n";

static const char add_help[] =
    "Adds firmware from image files, for which there is no descriptor: one is made of the\n"
    "options. Images are raw or qcow2, and a multiple of 4096 bytes long. Adding the same once\n"
    "more changes nothing; another firmware of that name is an error (1). A file that does not\n"
    "exist is exit code 3.\n"
    "\n"
    "Options:\n"
    "  --mode MODE            split (if not given), combined or stateless\n"
    "  --executable FILE      the image with the code\n"
    "  --nvram-template FILE  the image that variables begin as; in mode split only\n"
    "  --description TEXT     for people to read; if not given, the name\n"
    "  --arch ARCH            x86_64 (if not given), i386, aarch64, arm, riscv64, loongarch64\n"
    "  --machine GLOB         QEMU's machine types that it is for, again for each; if not\n"
    "                         given, pc-i440fx-* and pc-q35-*, or virt-* where not x86\n"
    "  --feature FEATURE      of QEMU's schema, such as secure-boot or requires-smm; again\n"
    "                         for each\n"
    "  --interface INTERFACE  uefi (if not given), bios, openfirmware or uboot; again for each\n"
    "\n"
    "Examples:\n"
    "  fwfs firmware add ovmf --mode combined --executable /usr/share/ovmf/OVMF.fd\n"
    "  fwfs firmware add ovmf-4m --executable /usr/share/OVMF/OVMF_CODE_4M.fd \\\n"
    "      --nvram-template /usr/share/OVMF/OVMF_VARS_4M.fd\n";

static const char list_help[] =
    "Lists the firmware in the store: its mode, the sizes of its images, and how many guests\n"
    "are made of it. --json prints what 'fwfs firmware show --json' tells of each.\n"
    "\n"
    "Example:\n"
    "  fwfs firmware list --json | jq -r '.firmwares[].firmware'\n";

static const char show_help[] =
    "Prints what is known of one firmware: its mode, its images with their sizes and SHA-256\n"
    "digests, and its descriptor's facts. Exit code 3: no such firmware.\n"
    "\n"
    "Example:\n"
    "  fwfs firmware show 60-edk2-x86_64\n";

static const char rm_help[] =
    "Removes firmware and the images that nothing else uses. While guests are made of it that\n"
    "is refused (4). Exit code 3: no such firmware.\n"
    "\n"
    "Example:\n"
    "  fwfs firmware rm 60-edk2-x86_64\n";

const struct command firmware_commands[] = {
    {
        .noun = "firmware",
        .help = noun_help,
    },
    {
        .noun = "firmware",
        .verb = "add",
        .synopsis = "NAME [--mode MODE] --executable FILE [--nvram-template FILE] [OPTION…]",
        .summary = "add firmware from image files",
        .help = add_help,
        .run = run_add,
    },
    {
        .noun = "firmware",
        .verb = "import",
        .synopsis = "[DESCRIPTOR…]",
        .summary = "add firmware from QEMU's descriptors",
        .help = import_help,
        .run = import_run,
    },
    {
        .noun = "firmware",
        .verb = "list",
        .synopsis = "",
        .summary = "list the firmware in the store",
        .help = list_help,
        .run = run_list,
    },
    {
        .noun = "firmware",
        .verb = "show",
        .synopsis = "NAME",
        .summary = "print what is known of one firmware",
        .help = show_help,
        .run = run_show,
    },
    {
        .noun = "firmware",
        .verb = "rm",
        .synopsis = "NAME",
        .summary = "remove firmware that no guest uses",
        .help = rm_help,
        .run = run_rm,
    },
    {0},
};
