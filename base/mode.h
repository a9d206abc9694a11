/* The flash `mode` of QEMU's docs/interop/firmware.json (FirmwareFlashMode, since QEMU 7.0). */
#ifndef FWFS_BASE_MODE_H
#define FWFS_BASE_MODE_H

enum flash_mode {
    FLASH_MODE_SPLIT,     /* code read-only and shared, variables the guest's own */
    FLASH_MODE_COMBINED,  /* code and variables in one image, the guest's own */
    FLASH_MODE_STATELESS, /* code read-only and shared, no variables kept */
};

/* "split", "combined" or "stateless". */
const char *flash_mode_name(enum flash_mode mode);

/* 0, or -EINVAL for a word that is no mode. */
int flash_mode_parse(const char *word, enum flash_mode *mode);

#endif
