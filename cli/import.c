#include "cli/import.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "firmware/search.h"
#include "guest/install.h"

void import_report_begin(struct import_report *report, bool as_json)
{
    *report = (struct import_report){.as_json = as_json, .json.name = "firmwares"};
}

int import_report_add(struct import_report *report, const char *name, bool unchanged,
                      struct error *err)
{
    const char *result = unchanged ? "unchanged" : "added";
    if (!report->as_json) {
        output_text(stdout, name);
        printf(": %s\n", result);
        return 0;
    }
    cleanup_json struct json_object *object = json_object_new_object();
    if (!object || json_add(object, "firmware", json_object_new_string(name)) < 0 ||
        json_add(object, "result", json_object_new_string(result)) < 0)
        return error_set(err, -ENOMEM, "no memory for the output");
    return json_list_add(&report->json, steal_ptr(object), err);
}

void import_report_end(struct import_report *report)
{
    if (report->as_json)
        json_list_end(&report->json);
}

int import_advise(struct cli *cli, int code)
{
    cli_advise(cli, code, -ENOENT, "install the package that has the file, or correct its name");
    cli_advise(cli, code, -EINVAL, "give an image, or a descriptor, that QEMU can use");
    cli_advise(cli, code, -ENOTSUP, "name a descriptor of firmware for flash");
    return cli_advise(cli, code, -EEXIST, "choose another name, or 'fwfs firmware rm' that first");
}

/* The first that cannot be used ends it. */
static int import_named(struct cli *cli, struct store *store, struct import_report *report,
                        char **paths, size_t count, struct error *err)
{
    for (size_t i = 0; i < count; i++) {
        char name[STORE_NAME_MAX + 1];
        int r = install_descriptor(store, paths[i], name, err);
        if (r < 0)
            return import_advise(cli, r);
        r = import_report_add(report, name, r > 0, err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* What a descriptor, or what it names, can be blamed for. Of anything else the next would fail too.
 */
static bool is_descriptors_fault(int code)
{
    static const int codes[] = {-EINVAL, -ENOTSUP, -EEXIST, -ENOENT,      -ENOTDIR,
                                -EISDIR, -EACCES,  -ELOOP,  -ENAMETOOLONG};
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
        if (code == codes[i])
            return true;
    return false;
}

static void warn(const char *path, int code, const struct error *problem)
{
    const char *text = *problem->text ? problem->text : strerror(-code);
    fputs("fwfs: warning: ", stderr);
    if (strncmp(text, path, strlen(path)) != 0) {
        output_text(stderr, path);
        fputs(": ", stderr);
    }
    output_text(stderr, text);
    fputs("; passed over\n", stderr);
}

static int import_found(struct store *store, struct import_report *report, struct error *err)
{
    cleanup(search_result_clear) struct search_result found = {0};
    int r = search_descriptors(&found, err);
    if (r < 0)
        return r;
    size_t usable = 0;
    for (size_t i = 0; i < found.count; i++) {
        char name[STORE_NAME_MAX + 1];
        struct error problem = {0};
        r = install_descriptor(store, found.paths[i], name, &problem);
        if (r < 0 && !is_descriptors_fault(r)) {
            *err = problem;
            return r;
        }
        if (r < 0) {
            warn(found.paths[i], r, &problem);
            continue;
        }
        usable++;
        r = import_report_add(report, name, r > 0, err);
        if (r < 0)
            return r;
    }
    if (found.count == 0)
        return error_set(err, -ESRCH,
                         "QEMU's search path has no descriptors; install firmware, "
                         "such as the package ovmf, or name descriptors");
    if (usable == 0)
        return error_set(err, -ESRCH,
                         "no descriptor in QEMU's search path can be used; mend what "
                         "the warnings say, or name descriptors");
    return 0;
}

int import_run(struct cli *cli, int argc, char **argv, struct error *err)
{
    static const struct option options[] = {CLI_GLOBAL_OPTIONS};
    cleanup(store_closep) struct store *store = NULL;
    int r = cli_option(cli, argc, argv, options, err);
    if (r == 0)
        r = cli_open_store(cli, 0, &store, err);
    if (r < 0)
        return r;
    struct import_report report;
    import_report_begin(&report, cli->json);
    if (optind < argc)
        r = import_named(cli, store, &report, argv + optind, (size_t)(argc - optind), err);
    else
        r = import_found(store, &report, err);
    import_report_end(&report);
    return r;
}

const char import_help[] =
    "Adds the firmware that descriptors tell of: JSON files by QEMU's schema firmware.json.\n"
    "The firmware is named as the file, without \".json\". Prints a line for each: \"added\", or\n"
    "\"unchanged\" where exactly this is in the store already.\n"
    "\n"
    "With descriptors named, the first that cannot be used ends the import; those before it\n"
    "stay. Exit code 3: it, or an image that it names, does not exist.\n"
    "\n"
    "With none named, QEMU's search path is imported: /usr/share/qemu/firmware, then\n"
    "/etc/qemu/firmware, then (not for root) $XDG_CONFIG_HOME/qemu/firmware, where a file\n"
    "replaces one of the same name before it, and an empty one hides it. What cannot be used is\n"
    "a warning, and the rest goes on; it fails (1) if nothing could be used.\n"
    "\n"
    "Examples:\n"
    "  fwfs firmware import\n"
    "  fwfs firmware import /usr/share/qemu/firmware/60-edk2-x86_64.json\n";
