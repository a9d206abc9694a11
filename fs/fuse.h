/* libfuse, in the one version of its API that fwfs is written for; whatever depends on the version
 * that is installed stays in this header. */
#ifndef FWFS_FS_FUSE_H
#define FWFS_FS_FUSE_H

#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>

#endif
