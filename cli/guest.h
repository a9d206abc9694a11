/* What the files of the noun `guest` share. */
#ifndef FWFS_CLI_GUEST_H
#define FWFS_CLI_GUEST_H

#include "cli/cli.h"

/* Opens the store and finds the guest that the one operand names. */
int guest_find(struct cli *cli, int argc, char **argv, unsigned flags, struct store **store,
               struct store_guest *guest, struct error *err);

/* ---- guest_copy.c ---- */

extern const char guest_clone_help[], guest_export_help[], guest_import_help[];
int guest_run_clone(struct cli *cli, int argc, char **argv, struct error *err);
int guest_run_export(struct cli *cli, int argc, char **argv, struct error *err);
int guest_run_import(struct cli *cli, int argc, char **argv, struct error *err);

/* ---- guest_start.c ---- */

extern const char guest_qemu_help[], guest_libvirt_help[];
int guest_run_qemu(struct cli *cli, int argc, char **argv, struct error *err);
int guest_run_libvirt(struct cli *cli, int argc, char **argv, struct error *err);

#endif
