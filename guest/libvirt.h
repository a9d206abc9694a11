/* The libvirt domain that starts a guest from its view (https://libvirt.org/formatdomain.html).
 * It is one that libvirt 9.0 defines and starts as it is, and a beginning: disks and networks are
 * the user's to add. */
#ifndef FWFS_GUEST_LIBVIRT_H
#define FWFS_GUEST_LIBVIRT_H

#include "base/error.h"
#include "store/store.h"

/* How libvirt is to run it. */
enum virt_type {
    VIRT_TYPE_KVM,
    VIRT_TYPE_QEMU, /* emulated, also where KVM is not to be had */
};

/* -EINVAL for a word that is none. */
int virt_type_parse(const char *word, enum virt_type *ret);

/* The text of the <domain> document, ended by a newline; the caller frees it. -EINVAL if a name or
 * a path holds what XML cannot. */
int libvirt_guest_domain(struct store *store, const struct store_guest *guest,
                         const char *mountpoint, enum virt_type type, char **ret,
                         struct error *err);

#endif
