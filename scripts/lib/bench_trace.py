"""The writes of a guest's first boot."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

SECTOR = 512

# As a first boot of OVMF to its shell was seen to do it: 15,641 writes in the first 31 sectors.
WRITES = 15_641
FIRST_BYTE = 100  # behind the headers of the volume and of the variable store
RECORD_BYTES = 238
STATE_CHANGES = 2  # of a variable whose record is complete


def _first_boot() -> Iterator[int]:
    """Offsets of sectors. QEMU writes the whole sector for each byte that the firmware programs:
    records of variables, one after the other, and after each its state, at its beginning."""
    record = FIRST_BYTE
    while True:
        for byte in range(record, record + RECORD_BYTES):
            yield byte // SECTOR * SECTOR
        for _ in range(STATE_CHANGES):
            yield record // SECTOR * SECTOR
        record += RECORD_BYTES


def first_boot() -> str:
    """A line a write: OFFSET LENGTH."""
    return "".join(f"{offset} {SECTOR}\n" for offset in islice(_first_boot(), WRITES))
