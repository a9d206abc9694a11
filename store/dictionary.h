/* What zstd knows of a variable store before it has seen one: a dictionary, made from what OVMF
 * writes in machines of many kinds (scripts/make-dictionary), never from what a guest wrote.
 *
 * It is part of the store's format: blocks in stores need the very bytes that they were made with.
 * So it never changes; a better one is another file, with an encoding of its own. */
#ifndef FWFS_STORE_DICTIONARY_H
#define FWFS_STORE_DICTIONARY_H

#include <stddef.h>
#include <stdint.h>

extern const uint8_t dictionary_1[];
size_t dictionary_1_size(void);

/* Made once a process, and shared by its threads; NULL: out of memory. The encoder takes half a
 * MiB, so a process that only reads has none. */
const struct ZSTD_CDict_s *dictionary_1_encoder(void);
const struct ZSTD_DDict_s *dictionary_1_decoder(void);

#endif
