"""What guests write stays in the kernel's cache for about a second, and no longer."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.hammers import Hammers, Record
from support.ovmf import BLOCK, OVMF_COMBINED
from support.program import Fwfs
from support.server import END_SECONDS, Server
from support.waiting import eventually

GUESTS = [f"vm{number}" for number in range(8)]
LOG_SECONDS = 10
LOG_BYTES = 64 * 1024 * 1024
# A first boot programs its flash byte by byte, and QEMU writes the whole sector each time.
BOOT_WRITES, BOOT_SECTORS, SECTOR = 15_641, 31, 512
BOOT_REQUESTS = 500

Serve = Callable[..., Server]


@pytest.fixture(scope="session")
def fwfs_bin(release_bin: Path) -> Path:
    return release_bin


@pytest.fixture(autouse=True)
def guests(fwfs: Fwfs) -> None:
    fwfs("firmware", "add", "ovmf", "--mode", "combined", "--executable", OVMF_COMBINED)
    fwfs("guest", "add", "--firmware", "ovmf", *GUESTS)


def flash(server: Server, guest: str = GUESTS[0]) -> Path:
    return server.mountpoint / guest / "code"


def changed_bytes(server: Server) -> int:
    """What the store holds of the first guest. (Not asked of another process: to start one closes
    files in the child, and the kernel writes back what is closed.)"""
    told = (server.mountpoint / GUESTS[0] / "guest.json").read_text()
    return json.loads(told)["usage"]["delta_bytes"]


def test_a_write_is_in_the_store_within_seconds(serve: Serve, record_property: Record) -> None:
    """With neither fsync nor close."""
    server = serve()
    with flash(server).open("r+b", buffering=0) as guest:
        for number in range(1, 4):
            os.pwrite(guest.fileno(), b"\x5a" * SECTOR, number * BLOCK)
            written = time.monotonic()
            assert changed_bytes(server) == (number - 1) * BLOCK, "it was not cached"
            assert eventually(lambda: changed_bytes(server) == number * BLOCK, 10)
            record_property("pull_seconds", round(time.monotonic() - written, 2))


def test_what_was_pulled_outlives_the_mount(serve: Serve) -> None:
    """Supervisor and worker killed, with what the kernel had cached."""
    server = serve("-o", "pull=0.5")
    worker = server.worker()
    guest = os.open(flash(server), os.O_RDWR)
    os.pwrite(guest, b"\x5a" * SECTOR, 0)
    assert changed_bytes(server) == 0, "it was not cached"
    time.sleep(3)
    server.process.kill()
    os.kill(worker, signal.SIGKILL)
    server.process.wait(END_SECONDS)
    with pytest.raises(OSError):  # there is nobody to say it to
        os.close(guest)
    server.destroy()
    assert flash(serve()).read_bytes()[:SECTOR] == b"\x5a" * SECTOR


def reads_of(pid: int) -> int:
    """How often the process has asked to read anything, requests of the kernel among it."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("syscr:"))


def test_a_first_boot_is_few_requests(serve: Serve, record_property: Record) -> None:
    """Also where the file has attributes, of which the kernel could ask at each write."""
    server = serve()
    os.setxattr(flash(server), "security.x", b"1")
    guest = os.open(flash(server), os.O_RDWR)
    os.pread(guest, BLOCK, 0)
    worker = server.worker()
    before = reads_of(worker)
    sectors = [bytearray(b"\xff" * SECTOR) for _ in range(BOOT_SECTORS)]
    began = time.monotonic()
    for number in range(BOOT_WRITES):
        sector, byte = divmod(number, SECTOR)
        sectors[sector][byte] = number % 251
        assert os.pwrite(guest, sectors[sector], sector * SECTOR) == SECTOR
    os.fsync(guest)
    record_property("boot_seconds", round(time.monotonic() - began, 3))
    os.close(guest)
    requests = reads_of(worker) - before
    record_property("boot_reads", requests)
    assert server.worker() == worker and requests < BOOT_REQUESTS
    assert flash(server).read_bytes()[:BOOT_SECTORS * SECTOR] == b"".join(sectors)


def test_the_log_stays_bounded(serve: Serve, store: Path, hammers: Callable[..., Hammers],
                               record_property: Record) -> None:
    server = serve()
    log = store.with_name(f"{store.name}-wal")
    largest = 0
    with hammers([flash(server, guest) for guest in GUESTS]) as writers:
        writers.rounds = 1
        writers.go()
        end = time.monotonic() + LOG_SECONDS
        while time.monotonic() < end:
            largest = max(largest, log.stat().st_size)
            time.sleep(0.02)
        writers.stop()
        writers.compare()
    record_property("log_bytes", largest)
    writers.judge(record_property)
    assert largest <= LOG_BYTES


def test_sync_of_the_host_returns(serve: Serve, hammers: Callable[..., Hammers],
                                  rng: random.Random, record_property: Record) -> None:
    """Under load, and while the worker is being replaced."""
    server = serve()

    def sync() -> None:
        began = time.monotonic()
        with subprocess.Popen(["sync"]) as syncing:
            time.sleep(rng.uniform(0, 0.1))
            server.kill_worker()
            syncing.wait(END_SECONDS)
        record_property("sync_seconds", round(time.monotonic() - began, 2))

    with hammers([flash(server, guest) for guest in GUESTS]) as writers:
        writers.disturbed(3, rng, sync)
    writers.judge(record_property)
