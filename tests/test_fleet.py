"""A hundred thousand guests: what grows with them, and what must not."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import statistics
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from support.hammers import Record
from support.mounting import Mounter
from support.ovmf import OVMF_CODE, OVMF_VARS
from support.program import run_program

GUESTS = 100_000
READ_GUESTS = 10_000
RUNS = 5
WORKER_BYTES = 64 * 1024 * 1024
# Of most guests only a part of their code is read: what is in the kernel's cache costs but time.
WHOLE_EVERY, PART_BYTES = 16, 256 * 1024
# Of figures that a busy machine may make larger, what no machine should pass.
LIST_SECONDS, LOCK_SECONDS, MOUNT_RATIO = 10, 10, 10
# QEMU locks a byte for each permission that it has, and checks that nobody has the opposite.
LOCKED_BYTES = (100, 101)


@pytest.fixture(scope="module")
def fwfs_bin(release_bin: Path) -> Path:
    return release_bin


def name(number: int) -> str:
    return f"vm{number:06}"


@pytest.fixture(scope="module")
def stores(fwfs_bin: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One without guests, and one with all of them."""
    directory = tmp_path_factory.mktemp("fleet")
    found = {}
    for kind, count in (("empty", 0), ("full", GUESTS)):
        found[kind] = directory / f"{kind}.db"
        fwfs = partial(run_program, fwfs_bin, "--store", found[kind])
        fwfs("init")
        fwfs("firmware", "add", "ovmf", "--mode", "split", "--executable", OVMF_CODE,
             "--nvram-template", OVMF_VARS)
        if count:
            names = "".join(f"{name(number)}\n" for number in range(count))
            fwfs("guest", "add", "--firmware", "ovmf", "-", input=names)
    return found


@pytest.fixture
def mounts(stores: dict[str, Path], fwfs_bin: Path,
           tmp_path: Path) -> Iterator[dict[str, Mounter]]:
    found = {kind: Mounter(partial(run_program, fwfs_bin, "--store", store), fwfs_bin,
                           tmp_path / kind) for kind, store in stores.items()}
    yield found
    for mounter in found.values():
        mounter.finish()


def seconds(action: Callable[[], object]) -> float:
    began = time.monotonic()
    action()
    return time.monotonic() - began


def test_a_mount_takes_the_same_time(mounts: dict[str, Mounter], record_property: Record) -> None:
    took: dict[str, list[float]] = {kind: [] for kind in mounts}
    for _ in range(RUNS):
        for kind, mounter in mounts.items():
            took[kind].append(seconds(mounter))
            mounter.unmount()
    medians = {kind: statistics.median(times) for kind, times in took.items()}
    record_property("empty_mount_ms", round(medians["empty"] * 1000, 1))
    record_property("fleet_mount_ms", round(medians["full"] * 1000, 1))
    assert medians["full"] < MOUNT_RATIO * medians["empty"]


def test_it_is_listed(mounts: dict[str, Mounter], record_property: Record) -> None:
    fw = mounts["full"]()
    took = []
    for _ in range(RUNS):
        began = time.monotonic()
        listed = subprocess.run(["ls", "-f", fw], check=True, capture_output=True, timeout=60)
        took.append(time.monotonic() - began)
        assert listed.stdout.count(b"\n") == GUESTS + 2
    record_property("list_seconds", round(statistics.median(took), 3))
    assert statistics.median(took) < LIST_SECONDS


@pytest.fixture
def many_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = READ_GUESTS + 256
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, before[1])))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def open_as_qemu_does(path: Path) -> int:
    """And locks it as QEMU does what it only reads."""
    descriptor = os.open(path, os.O_RDONLY)
    for byte in LOCKED_BYTES:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK,
                    struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0))
    return descriptor


@pytest.mark.usefixtures("many_files")
def test_all_code_is_opened_and_locked(mounts: dict[str, Mounter],
                                       record_property: Record) -> None:
    fw = mounts["full"]()
    descriptors: list[int] = []
    paths = [fw / name(number) / "code" for number in range(READ_GUESTS)]
    try:
        took = seconds(lambda: descriptors.extend(map(open_as_qemu_does, paths)))
    finally:
        closing = seconds(lambda: [os.close(descriptor) for descriptor in descriptors])
    record_property("open_and_lock_seconds", round(took, 3))
    record_property("close_seconds", round(closing, 3))
    assert took < LOCK_SECONDS


def resident_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def test_a_worker_stays_small(mounts: dict[str, Mounter], stores: dict[str, Path], fwfs_bin: Path,
                              record_property: Record) -> None:
    """With a tenth of the guests looked up, and all of their code read."""
    fw = mounts["full"]()
    status = run_program(fwfs_bin, "--store", stores["full"], "status", "--json").stdout
    worker = json.loads(status)["mount"]["worker_pid"]
    record_property("worker_bytes_at_first", resident_bytes(worker))
    whole = OVMF_CODE.read_bytes()
    began = time.monotonic()
    for number in range(READ_GUESTS):
        length = len(whole) if number % WHOLE_EVERY == 0 else PART_BYTES
        with (fw / name(number) / "code").open("rb", buffering=0) as code:
            assert code.read(length) == whole[:length]
        assert (fw / name(number) / "vars").stat().st_size == OVMF_VARS.stat().st_size
    record_property("read_seconds", round(time.monotonic() - began, 1))
    record_property("worker_bytes", resident_bytes(worker))
    assert resident_bytes(worker) <= WORKER_BYTES
