"""All that can be done to the bytes of a flash, at random, each byte that is read compared."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.hammers import Record, drop_caches
from support.ovmf import OVMF_CODE, OVMF_COMBINED, OVMF_VARS
from support.program import Fwfs
from support.server import END_SECONDS, Server
from support.waiting import eventually

OPERATIONS = 100_000
FSX_SECONDS = 120
FLASHES = ["split/vars", "combined/code"]

Serve = Callable[..., Server]


@pytest.fixture(scope="session")
def fwfs_bin(release_bin: Path) -> Path:
    return release_bin


@pytest.fixture(autouse=True)
def guests(fwfs: Fwfs) -> None:
    fwfs("firmware", "add", "fs", "--executable", OVMF_CODE, "--nvram-template", OVMF_VARS)
    fwfs("firmware", "add", "fc", "--mode", "combined", "--executable", OVMF_COMBINED)
    fwfs("guest", "add", "--firmware", "fs", "split")
    fwfs("guest", "add", "--firmware", "fc", "combined")


class Killer(threading.Thread):
    """Kills the worker at random moments, until it is told to stop."""

    def __init__(self, server: Server, rng: random.Random) -> None:
        super().__init__(daemon=True)
        self._server, self._rng = server, rng
        self._told = threading.Event()
        self.kills = 0

    def run(self) -> None:
        while not self._told.wait(self._rng.uniform(0.05, 0.6)):
            worker = self._server.worker()
            os.kill(worker, signal.SIGKILL)
            self.kills += 1
            # The record names the dead one for a moment: it must not be counted twice.
            eventually(lambda worker=worker: self._server.worker() != worker, END_SECONDS)

    def stop(self) -> None:
        self._told.set()
        self.join()


@pytest.fixture
def exercise(release_bin: Path, tmp_path: Path, rng: random.Random,
             record_property: Record) -> Callable[[Server], None]:
    """exercise(server) runs fsx on each flash, all at once, and compares their bytes once more as
    the store has them."""
    program = release_bin.parent / "tests" / "fsx"

    def run(server: Server) -> None:
        copies = [tmp_path / f"copy{number}" for number in range(len(FLASHES))]
        began = time.monotonic()
        running = [subprocess.Popen(
            [program, "-s", str(rng.randrange(1 << 32)), "-n", str(OPERATIONS), "-c", copy,
             server.mountpoint / flash], stderr=subprocess.PIPE, text=True)
            for flash, copy in zip(FLASHES, copies)]
        try:
            said = [process.communicate(timeout=FSX_SECONDS)[1] for process in running]
        finally:
            for process in running:
                process.kill()
                process.wait()
        record_property("fsx_seconds", round(time.monotonic() - began, 1))
        assert [process.returncode for process in running] == [0] * len(running), "\n".join(said)
        drop_caches()
        for flash, copy in zip(FLASHES, copies):
            assert (server.mountpoint / flash).read_bytes() == copy.read_bytes(), flash

    return run


def test_every_byte(serve: Serve, exercise: Callable[[Server], None]) -> None:
    exercise(serve())


def test_every_byte_while_the_worker_is_killed(serve: Serve, exercise: Callable[[Server], None],
                                               rng: random.Random,
                                               record_property: Record) -> None:
    server = serve()
    killer = Killer(server, rng)
    killer.start()
    try:
        exercise(server)
    finally:
        killer.stop()
    record_property("kills", killer.kills)
    assert killer.kills >= 5
    assert server.status()["restart_count"] == killer.kills
