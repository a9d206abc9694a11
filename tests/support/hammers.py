"""Writers that keep a shadow of what they wrote, and the search for what got lost of it."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from support.ovmf import BLOCK

Record = Callable[[str, object], None]


def drop_caches() -> None:
    Path("/proc/sys/vm/drop_caches").write_text("3")


class Hammers:
    """One writer a file, each a process; gone at the end of the `with` block."""

    def __init__(self, program: Path, files: Sequence[Path], shadows: Path, seed: int) -> None:
        self._pairs = [(file, shadows / f"shadow{number}") for number, file in enumerate(files)]
        self._writers: list[subprocess.Popen[str]] = []
        self.writes = self.errors = self.rounds = self.worst_us = 0
        self.lost: list[str] = []
        for number, (file, shadow) in enumerate(self._pairs):
            shutil.copyfile(file, shadow)
            self._writers.append(subprocess.Popen(
                [program, file, shadow, str(seed + number)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1))

    def __enter__(self) -> Hammers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        for writer in self._writers:
            if kind:
                writer.kill()
            writer.communicate()
        assert kind or all(writer.returncode == 0 for writer in self._writers), "a close failed"

    def go(self) -> None:
        for writer in self._writers:
            writer.stdin.write("go\n")

    def stop(self) -> None:
        for writer in self._writers:
            writer.stdin.write("stop\n")
        for writer in self._writers:
            writes, errors, worst_us = map(int, writer.stdout.readline().split())
            self.writes += writes
            self.errors += errors
            self.worst_us = max(self.worst_us, worst_us)

    def compare(self) -> None:
        """Every byte as it is in the store, not as the kernel has it cached."""
        for file, _ in self._pairs:
            descriptor = os.open(file, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        drop_caches()
        for file, shadow in self._pairs:
            found, expected = file.read_bytes(), shadow.read_bytes()
            if found == expected:
                continue
            self.lost += [f"round {self.rounds}: {file} at {offset}"
                          for offset in range(0, len(expected), BLOCK)
                          if found[offset:offset + BLOCK] != expected[offset:offset + BLOCK]]

    def disturbed(self, rounds: int, rng: random.Random, disturb: Callable[[], None]) -> None:
        """Rounds of writing with the disturbance at some moment of it, compared after each."""
        for _ in range(rounds):
            self.rounds += 1
            self.go()
            time.sleep(rng.uniform(0.01, 0.4))
            disturb()
            time.sleep(rng.uniform(0.02, 0.3))
            self.stop()
            self.compare()

    def judge(self, record: Record) -> None:
        """Asserts that nothing went wrong, and records what it was worth."""
        record("writes", self.writes)
        record("worst_stall_ms", round(self.worst_us / 1000))
        assert self.writes > 1000 * self.rounds, "they hardly wrote"
        assert self.errors == 0 and self.lost == [], self.lost[:10]
