/* The machine that a firmware is for, as QEMU and libvirt are told of it. */
#ifndef FWFS_GUEST_MACHINE_H
#define FWFS_GUEST_MACHINE_H

#include <stdbool.h>

#include "firmware/descriptor.h"

struct machine {
    const char *type; /* letters, digits and "-._"; NULL leaves it to the user; the descriptor's */
    bool smm;         /* and only SMM may write to the flash */
};

/* A type that the descriptor's patterns match. Firmware that requires SMM gets the one that has
 * it, whatever they say. */
struct machine machine_for(const struct descriptor *descriptor);

#endif
