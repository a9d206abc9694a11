"""The store's file, changed by other means than fwfs: each page ends in a checksum."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PAGE_SIZE = 4096
WORDS = (PAGE_SIZE - 8) // 8
MASK = (1 << 64) - 1


def mix(checksum: int, word: int) -> int:
    checksum = (checksum ^ word) * 0x9E3779B97F4A7C15 & MASK
    return checksum ^ checksum >> 32


def page_checksum(page: bytes, index: int) -> int:
    lanes = [1, 2, 3, 4]
    for at, word in enumerate(struct.unpack_from(f"<{WORDS}Q", page)):
        lanes[at % 4] = mix(lanes[at % 4], word)
    checksum = index
    for lane in lanes:
        checksum = mix(checksum, lane)
    return checksum


def seal(store: Path) -> None:
    """Gives each page the checksum of what it holds."""
    content = bytearray(store.read_bytes())
    for at in range(0, len(content), PAGE_SIZE):
        page = bytes(content[at:at + PAGE_SIZE])
        struct.pack_into("<Q", content, at + PAGE_SIZE - 8, page_checksum(page, at // PAGE_SIZE))
    store.write_bytes(content)


@contextmanager
def edited(store: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a store that nobody has open."""
    database = sqlite3.connect(store)
    yield database
    database.commit()
    database.close()
    seal(store)
