#!/usr/bin/python3
"""Makes a zstd dictionary of blocks that firmware wrote: dictionary.py SAMPLES SIZE OUTPUT

SAMPLES is what `machines.py` made; SIZE is what the dictionary has at most. zstd's own trainer is made for many small samples
and leaves most of these blocks out. So the content is chosen here, a run of bytes at a time: of the
runs that are not in the dictionary yet, the one that saves the blocks of other machines the most
for its length; then, since a match fewer is a few bytes fewer, whole blocks. The entropy tables are zstd's (ZDICT_finalizeDictionary).
"""

from __future__ import annotations

import ctypes
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

LEVEL = 6  # to weigh a run by; fast, and as good as a high one for that
FINAL_LEVEL = 15
WORD = 12  # bytes; fewer in a row are no match worth having
ERASED = b"\xff"
GAP = 32  # bytes that are known already, between two that are not, and still make one run
TRIED = 24  # runs that are weighed before one is chosen
TABLES = 512  # bytes that zstd's part of the dictionary takes at most, about
DICTIONARY_ID = 1

ZSTD = ctypes.CDLL("libzstd.so.1")
OUTPUT = ctypes.create_string_buffer(1 << 16)


class Parameters(ctypes.Structure):
    """ZDICT_params_t"""

    _fields_ = (("level", ctypes.c_int), ("notification", ctypes.c_uint), ("id", ctypes.c_uint))


for name, result, arguments in (
        ("ZSTD_createCCtx", ctypes.c_void_p, ()),
        ("ZSTD_createCDict", ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)),
        ("ZSTD_freeCDict", ctypes.c_size_t, (ctypes.c_void_p,)),
        ("ZSTD_compress_usingCDict", ctypes.c_size_t,
         (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t,
          ctypes.c_void_p)),
        ("ZSTD_isError", ctypes.c_uint, (ctypes.c_size_t,)),
        ("ZDICT_finalizeDictionary", ctypes.c_size_t,
         (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p,
          ctypes.POINTER(ctypes.c_size_t), ctypes.c_uint, Parameters))):
    function = getattr(ZSTD, name)
    function.restype, function.argtypes = result, arguments
CONTEXT = ZSTD.ZSTD_createCCtx()


class Sample(NamedTuple):
    machine: str
    block: bytes
    alone: int  # its size when the image's block is its dictionary: what it costs at most


def sizes(blocks: Sequence[bytes], dictionary: bytes, level: int = LEVEL) -> list[int]:
    prepared = ZSTD.ZSTD_createCDict(dictionary, len(dictionary), level)
    found = [ZSTD.ZSTD_compress_usingCDict(CONTEXT, OUTPUT, len(OUTPUT), block, len(block),
                                           prepared) for block in blocks]
    ZSTD.ZSTD_freeCDict(prepared)
    assert not any(map(ZSTD.ZSTD_isError, found))
    return found


def load(directory: Path) -> list[Sample]:
    """Each block of each boot, once a machine."""
    found: dict[tuple[str, bytes], Sample] = {}
    for path in sorted(directory.glob("*/*/*.block")):
        machine, block = path.parts[-3], path.read_bytes()
        below = path.with_suffix(".below").read_bytes()
        sample = Sample(machine, block, sizes([block], below)[0])
        found.setdefault((machine, block), sample)
    return list(found.values())


def words(data: bytes) -> Iterator[bytes]:
    return (data[at:at + WORD] for at in range(len(data) - WORD + 1))


def new_runs(block: bytes, known: set[bytes]) -> Iterator[bytes]:
    """The parts of a block that the dictionary lacks."""
    start = end = None
    for at, word in enumerate(words(block)):
        if word in known:
            continue
        if start is not None and at > end + GAP:
            yield block[start:end]
            start = None
        start = at if start is None else start
        end = at + WORD
    if start is not None:
        yield block[start:end]


class Builder:
    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = samples
        self.content = b""
        self._costs = [sample.alone for sample in samples]
        machines: dict[bytes, set[str]] = {}
        for sample in samples:
            for word in words(sample.block):
                machines.setdefault(word, set()).add(sample.machine)
        self._spread = Counter({word: len(names) - 1 for word, names in machines.items()})

    def add(self, room: int, whole: bool) -> bool:
        """Puts the best run, or whole block, before what is there: the nearest costs the least."""
        known = set() if whole else set(words(self.content))
        runs: dict[bytes, str] = {}
        for sample in self.samples:
            for run in new_runs(sample.block.rstrip(ERASED) + ERASED * WORD, known):
                if len(run) <= room and run not in self.content:
                    runs.setdefault(run, sample.machine)
        best = sorted(runs, key=lambda run: self._promise(run, whole), reverse=True)[:TRIED]
        gains = {run: self._gain(run, runs[run]) / (len(run) + WORD) for run in best}
        run = max(gains, key=gains.get, default=b"")
        if not run or gains[run] <= 0:
            return False
        self.content = run + self.content
        self._costs = self._capped(self.content)
        return True

    def _promise(self, run: bytes, whole: bool) -> float:
        """How many machines have its parts; what it repeats is known after the first time."""
        parts = words(run) if whole else set(words(run))
        return sum(self._spread[part] for part in parts) / (len(run) + WORD)

    def _capped(self, content: bytes) -> list[int]:
        found = sizes([sample.block for sample in self.samples], content)
        return [min(size, sample.alone) for size, sample in zip(found, self.samples)]

    def _gain(self, run: bytes, machine: str) -> int:
        with_it = self._capped(run + self.content)
        return sum(before - after for before, after, sample
                   in zip(self._costs, with_it, self.samples) if sample.machine != machine)

    def finish(self, size: int) -> bytes:
        blocks = [sample.block for sample in self.samples]
        lengths = (ctypes.c_size_t * len(blocks))(*map(len, blocks))
        output = ctypes.create_string_buffer(size)
        length = ZSTD.ZDICT_finalizeDictionary(
            output, size, self.content, len(self.content), b"".join(blocks), lengths, len(blocks),
            Parameters(FINAL_LEVEL, 0, DICTIONARY_ID))
        assert not ZSTD.ZSTD_isError(length)
        return output.raw[:length]


def make(samples: Sequence[Sample], size: int) -> bytes:
    builder = Builder(samples)
    for whole in (False, True):
        while builder.add(size - TABLES - len(builder.content), whole):
            pass
    return builder.finish(size)


def check(samples: Sequence[Sample], dictionary: bytes) -> str:
    blocks = [sample.block for sample in samples]
    means = [sum(min(size, sample.alone) for size, sample in zip(found, samples)) / len(samples)
             for found in (sizes(blocks, b"", FINAL_LEVEL), sizes(blocks, dictionary, FINAL_LEVEL))]
    return f"bytes a block of other machines: {means[0]:.0f} without it, {means[1]:.0f} with it"


def main() -> None:
    if len(sys.argv) != 4:
        sys.exit(__doc__.splitlines()[0])
    samples, output = Path(sys.argv[1]), Path(sys.argv[3])
    dictionary = make(load(samples / "train"), int(sys.argv[2]))
    output.write_bytes(dictionary)
    print(f"{output}: {len(dictionary)} bytes; {check(load(samples / 'check'), dictionary)}")


if __name__ == "__main__":
    main()
