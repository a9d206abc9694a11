"""The store's disk is full: nothing is lost while there is hope, and nothing hangs."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, wait
from pathlib import Path

import pytest

from support.hammers import Hammers, Record, drop_caches
from support.ovmf import OVMF_COMBINED
from support.program import Fwfs, run_program
from support.server import END_SECONDS, Server
from support.waiting import eventually

MIB = 1024 * 1024
DISK_BYTES = 96 * MIB
RESERVE_BYTES = 16 * MIB
GUESTS = [f"vm{number:02}" for number in range(20)]
SIZE = OVMF_COMBINED.stat().st_size
WAIT_SECONDS = 6
MARGIN_SECONDS = 10
READ_SECONDS = 1

Serve = Callable[..., Server]


class Disk:
    """A small file system of its own."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "disk"
        self._image = directory / "disk.img"
        self._fillers = 0

    def mount(self) -> None:
        self.path.mkdir()
        with self._image.open("wb") as image:
            image.truncate(DISK_BYTES)
        for command in (["mkfs.ext4", "-q", "-b", "4096", "-m", "0", self._image],
                        ["mount", "-o", "loop", self._image, self.path]):
            subprocess.run(command, check=True, timeout=END_SECONDS)

    def unmount(self) -> None:
        """The loop device goes with it."""
        if self.path.is_mount():
            subprocess.run(["umount", "--lazy", self.path], check=True, timeout=END_SECONDS)

    def fill(self) -> None:
        """To the last block."""
        self._fillers += 1
        size = MIB
        with (self.path / f"filler{self._fillers}").open("wb", buffering=0) as filler:
            while size >= 512:
                try:
                    filler.write(bytes(size))
                except OSError as error:
                    assert error.errno == errno.ENOSPC
                    size //= 2
            try:
                os.fsync(filler.fileno())
            except OSError as error:
                assert error.errno == errno.ENOSPC

    def make_room(self) -> None:
        for filler in self.path.glob("filler*"):
            filler.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path)
    try:
        disk.mount()
        yield disk
    finally:
        disk.unmount()


@pytest.fixture(scope="session")
def fwfs_bin(release_bin: Path) -> Path:
    return release_bin


@pytest.fixture
def store(fwfs_bin: Path, disk: Disk) -> Path:
    path = disk.path / "fwfs.db"
    run_program(fwfs_bin, "--store", path, "init")
    return path


@pytest.fixture
def guests(fwfs: Fwfs) -> None:
    fwfs("firmware", "add", "ovmf", "--mode", "combined", "--executable", OVMF_COMBINED)
    fwfs("guest", "add", "--firmware", "ovmf", *GUESTS)


def reserve_bytes(store: Path) -> int:
    reserve = store.with_name(f"{store.name}-reserve")
    return reserve.stat().st_size if reserve.exists() else 0


@pytest.fixture
def full(disk: Disk, serve: Serve, store: Path, guests: None) -> Callable[[str], Server]:
    """Mounts, and fills the disk but for the reserve."""

    def mount(options: str) -> Server:
        server = serve("-o", options)
        assert eventually(lambda: reserve_bytes(store) == RESERVE_BYTES)
        disk.fill()
        return server

    return mount


def write_durably(path: Path, data: bytes) -> None:
    """Runs in a process of its own: whoever starts another process closes its files in the child,
    and so waits for what they wait for."""
    with path.open("r+b", buffering=0) as file:
        written = 0
        while written < len(data):
            written += file.write(data[written:])
        os.fsync(file.fileno())


def read_seconds(server: Server) -> float:
    """How long another guest's code, a name and a file made up take, none of them cached."""
    drop_caches()
    guest = server.mountpoint / GUESTS[-1]
    began = time.monotonic()
    assert (guest / "code").read_bytes() == OVMF_COMBINED.read_bytes()
    assert (guest / "guest.json").read_text() and os.listdir(guest)
    return time.monotonic() - began


class Fleet:
    """Guests that write all of their flash, one after the other, so that each needs new room."""

    def __init__(self, server: Server, writers: Executor, rng: random.Random) -> None:
        self._server, self._writers, self._rng = server, writers, rng
        self._written: dict[Path, bytes] = {}

    def write(self, again: bool = False) -> Future[None]:
        """Of the next guest, or of the last one once more."""
        guest = GUESTS[len(self._written) - again]
        path, data = self._server.mountpoint / guest / "code", self._rng.randbytes(SIZE)
        self._written[path] = data
        return self._writers.submit(write_durably, path, data)

    def write_until_one_waits(self, disk: Disk) -> Future[None]:
        """Taking what room is left before each."""
        while True:
            disk.fill()
            writing = self.write()
            if not wait([writing], timeout=1).done:
                return writing
            writing.result()

    def is_right(self) -> bool:
        drop_caches()
        return all(path.read_bytes() == data for path, data in self._written.items())


@pytest.fixture
def fleet(rng: random.Random) -> Iterator[Callable[[Server], Fleet]]:
    with ProcessPoolExecutor(2) as writers:
        yield lambda server: Fleet(server, writers, rng)


def test_the_reserve_is_used_first(full: Callable[[str], Server], store: Path,
                                   fleet: Callable[[Server], Fleet]) -> None:
    server = full("full-wait=30")
    guests = fleet(server)
    while reserve_bytes(store):
        guests.write().result(END_SECONDS)
    assert "the reserved space is used up now; make room" in server.log()
    assert guests.is_right()
    assert "lost" not in server.log()


def test_what_waits_is_there_when_there_is_room(
        disk: Disk, full: Callable[[str], Server], fleet: Callable[[Server], Fleet],
        record_property: Record) -> None:
    server = full("full-wait=60")
    guests = fleet(server)
    waiting = [guests.write_until_one_waits(disk), guests.write()]
    reads = [read_seconds(server) for _ in range(5)]
    record_property("read_seconds", round(max(reads), 3))
    assert max(reads) < READ_SECONDS
    assert not any(write.done() for write in waiting)
    disk.make_room()
    for write in waiting:
        write.result(END_SECONDS)
    assert guests.is_right()
    assert "writes of guests wait for up to 60 s; make room" in server.log()
    assert "no write waits any more" in server.log()
    assert "lost" not in server.log()
    server.unmount()


def test_what_waits_outlives_an_upgrade(disk: Disk, full: Callable[[str], Server],
                                        fleet: Callable[[Server], Fleet]) -> None:
    server = full("full-wait=60")
    guests = fleet(server)
    waiting = guests.write_until_one_waits(disk)
    assert server.reload() == 0
    assert read_seconds(server) < READ_SECONDS
    assert not waiting.done()
    disk.make_room()
    waiting.result(END_SECONDS)
    assert guests.is_right()


def test_what_waits_outlives_a_crash(disk: Disk, full: Callable[[str], Server],
                                     fleet: Callable[[Server], Fleet]) -> None:
    server = full("full-wait=60")
    guests = fleet(server)
    waiting = guests.write_until_one_waits(disk)
    server.kill_worker()
    assert read_seconds(server) < END_SECONDS
    assert not waiting.done()
    assert server.status()["restart_count"] == 1
    disk.make_room()
    waiting.result(END_SECONDS)
    assert guests.is_right()


def test_sync_of_the_host_returns(disk: Disk, full: Callable[[str], Server],
                                  fleet: Callable[[Server], Fleet], tmp_path: Path,
                                  record_property: Record) -> None:
    server = full(f"full-wait={WAIT_SECONDS}")
    guests = fleet(server)
    waiting = guests.write_until_one_waits(disk)
    began = time.monotonic()
    subprocess.run(["sync", "-f", tmp_path], check=True, timeout=END_SECONDS)
    record_property("sync_of_another_seconds", round(time.monotonic() - began, 2))
    subprocess.run(["sync"], check=True, timeout=END_SECONDS)
    took = time.monotonic() - began
    record_property("sync_seconds", round(took, 2))
    assert took < WAIT_SECONDS + MARGIN_SECONDS
    disk.make_room()
    if waiting.exception(END_SECONDS) is None:
        assert guests.is_right()
    else:
        assert "a write is lost" in server.log()


def test_in_the_end_it_is_an_error(disk: Disk, full: Callable[[str], Server],
                                   fleet: Callable[[Server], Fleet]) -> None:
    """Told to who wrote, and in the log; the mount lives on, and works again in the end."""
    server = full("full-wait=3")
    guests = fleet(server)
    worker = server.worker()
    with pytest.raises(OSError) as failed:
        guests.write_until_one_waits(disk).result(END_SECONDS)
    assert failed.value.errno == errno.EIO
    assert "a write is lost: the store's disk had no room for it" in server.log()
    assert read_seconds(server) < READ_SECONDS
    disk.make_room()
    guests.write(again=True).result(END_SECONDS)
    assert guests.is_right()
    status = server.status()
    assert (status["worker_pid"], status["restart_count"]) == (worker, 0)


def test_writers_go_through_it(disk: Disk, full: Callable[[str], Server],
                               hammers: Callable[..., Hammers], record_property: Record) -> None:
    """The disk fills, and is made room on, under load: 0 errors, and every byte is there."""
    server = full("full-wait=60")
    with hammers([server.mountpoint / guest / "code" for guest in GUESTS[:4]]) as writers:
        writers.rounds = 1
        writers.go()

        def one_waits() -> bool:
            disk.fill()
            return "writes of guests wait" in server.log()

        assert eventually(one_waits, END_SECONDS)
        time.sleep(1)
        disk.make_room()
        time.sleep(1)
        writers.stop()
        writers.compare()
    writers.judge(record_property)


def test_the_reserve_is_held_again(disk: Disk, full: Callable[[str], Server], store: Path,
                                   fleet: Callable[[Server], Fleet]) -> None:
    server = full("full-wait=60")
    guests = fleet(server)
    waiting = guests.write_until_one_waits(disk)
    assert reserve_bytes(store) == 0
    disk.make_room()
    waiting.result(END_SECONDS)
    assert eventually(lambda: reserve_bytes(store) == RESERVE_BYTES, END_SECONDS)
    server.unmount()
