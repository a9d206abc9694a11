/* fwfs firmware import, and how what was added is told. */
#ifndef FWFS_CLI_IMPORT_H
#define FWFS_CLI_IMPORT_H

#include "cli/cli.h"
#include "cli/output.h"

extern const char import_help[];

int import_run(struct cli *cli, int argc, char **argv, struct error *err);

/* A line, or in JSON an object of a list, for each firmware that is now in the store. */
struct import_report {
    bool as_json;
    struct json_list json;
};

void import_report_begin(struct import_report *report, bool as_json);
int import_report_add(struct import_report *report, const char *name, bool unchanged,
                      struct error *err);
void import_report_end(struct import_report *report);

/* Returns the error of an installation, and keeps what to do about it. */
int import_advise(struct cli *cli, int code);

#endif
