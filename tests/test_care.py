"""Checking, repairing, compacting and backing up a store, at rest and under load."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from support.cli import FAILED, IN_USE, USAGE, fails
from support.hammers import Hammers, Record
from support.mounting import Mounter
from support.ovmf import BLOCK
from support.program import Fwfs, run_program
from support.server import Server

DAMAGED = 5
GUESTS = [f"vm{number}" for number in range(4)]
BLOCKS = 64
SIZE = BLOCKS * BLOCK
# A step that holds the writers takes milliseconds; the rest is a loaded machine's.
STALL_MS = 1500
ROUNDS = 4
MANY_GUESTS = 100_000
LOG_BYTES = 48 * 1024 * 1024

Serve = Callable[..., Server]
Make = Callable[..., Hammers]
Sql = Callable[[Path, str], object]


@pytest.fixture(scope="session")
def fwfs_bin(release_bin: Path) -> Path:
    return release_bin


@pytest.fixture(autouse=True)
def guests(fwfs: Fwfs, tmp_path: Path) -> None:
    (tmp_path / "code.fd").write_bytes(random.Random(1).randbytes(SIZE))
    fwfs("firmware", "add", "ovmf", "--mode", "combined", "--executable", tmp_path / "code.fd")
    fwfs("guest", "add", "--firmware", "ovmf", *GUESTS)


@pytest.fixture
def sql(release_bin: Path) -> Sql:
    """sql(store, text) changes the store behind its back."""
    program = release_bin.parent / "tests" / "behind"
    return lambda store, text: run_program(program, store, text)


def checked(fwfs: Fwfs, *options: str, code: int = 0) -> dict[str, object]:
    done = fwfs("check", "--json", *options, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def flashes(server: Server) -> list[Path]:
    return [server.mountpoint / guest / "code" for guest in GUESTS]


def write(mount: Mounter, guest: str, offset: int, content: bytes) -> None:
    path = mount() / guest / "code"
    with path.open("r+b") as flash:
        flash.seek(offset)
        flash.write(content)
    mount.unmount()


# ---- check ----

def test_damage_is_named_and_repaired(fwfs: Fwfs, mount: Mounter, store: Path, sql: Sql,
                                      tmp_path: Path) -> None:
    write(mount, "vm1", 5 * BLOCK, random.Random(2).randbytes(BLOCK))
    assert fwfs("check").stdout.startswith("no damage")
    sql(store, "UPDATE flash_blocks SET checksum = checksum + 1 WHERE encoding <> 8;"
               "UPDATE blocks SET data = zeroblob(9) WHERE id = 3;")
    done = fwfs("check", check=False)
    assert done.returncode == DAMAGED
    assert done.stdout.splitlines() == [
        f"firmware 'ovmf': code at offset {2 * BLOCK}: not what was added",
        f"guest 'vm1': code at offset {5 * BLOCK}: not what was written",
        "2 damaged, 0 repaired"]
    assert done.stderr == ("fwfs: 2 found damaged; "
                           "'fwfs check --repair' repairs what it can\n")
    told = checked(fwfs, code=DAMAGED)
    assert told["schema_version"] == 1 and told["damage_count"] == 2
    assert told["damages"][1] == {
        "place": f"guest 'vm1': code at offset {5 * BLOCK}", "guest": "vm1", "file": "code",
        "offset_bytes": 5 * BLOCK, "damage": "not what was written", "outcome": "left"}

    lines = fwfs("check", "--repair").stdout.splitlines()
    assert lines[0].endswith("repaired: healed from its file; nothing is lost")
    assert "what was written there since is lost" in lines[1]
    assert checked(fwfs)["damage_count"] == 0
    assert (mount() / "vm1" / "code").read_bytes() == (tmp_path / "code.fd").read_bytes()


def test_without_its_file_an_image_stays_damaged(fwfs: Fwfs, store: Path, sql: Sql,
                                                 tmp_path: Path) -> None:
    sql(store, "UPDATE blocks SET data = zeroblob(9) WHERE id = 3")
    (tmp_path / "code.fd").unlink()
    assert checked(fwfs, "--repair", code=DAMAGED)["repaired_count"] == 0


def test_a_damaged_descriptor_is_told(fwfs: Fwfs, store: Path, sql: Sql) -> None:
    sql(store, "UPDATE firmware SET descriptor = '{'")
    told = checked(fwfs, code=DAMAGED)
    assert [damage["firmware"] for damage in told["damages"]] == ["ovmf"]


def test_what_is_open_is_not_repaired(fwfs: Fwfs, mount: Mounter, store: Path, sql: Sql) -> None:
    write(mount, "vm1", 0, b"\x5a" * BLOCK)
    sql(store, "UPDATE flash_blocks SET checksum = checksum + 1 WHERE encoding <> 8")
    with (mount() / "vm1" / "code").open("r+b"):
        done = fwfs("check", "--repair", check=False)
        assert done.returncode == IN_USE and "left: it is open for writing in" in done.stdout
    mount.unmount()
    fwfs("check", "--repair")
    assert checked(fwfs)["damage_count"] == 0


def test_no_terminal_no_bar(fwfs: Fwfs, fwfs_bin: Path, store: Path) -> None:
    assert fwfs("check").stderr == ""
    shown = subprocess.run(["script", "-qec", f"{fwfs_bin} --store {store} check", "/dev/null"],
                           capture_output=True, check=True, timeout=60).stdout
    assert b"\r\x1b[K" in shown and b"no damage" in shown


@pytest.mark.parametrize("command", [["check", "x"], ["compact", "x"], ["backup"],
                                     ["check", "--fix"]])
def test_wrong_usage(fwfs: Fwfs, command: list[str]) -> None:
    fails(fwfs, USAGE, *command)


# ---- Under load ----

@pytest.mark.parametrize("command", ["check", "compact"])
def test_writers_hardly_notice(command: str, fwfs: Fwfs, serve: Serve, hammers: Make,
                               rng: random.Random, record_property: Record) -> None:
    server = serve()
    with hammers(flashes(server)) as writers:
        writers.disturbed(ROUNDS, rng, lambda: fwfs(command))
    writers.judge(record_property)
    assert writers.worst_us < 1000 * STALL_MS
    server.unmount()
    assert checked(fwfs)["damage_count"] == 0


class Counter(threading.Thread):
    """Writes 0, 1, 2, … each into the next block and durably, so that at any moment there is a run
    of numbers without a gap."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self.stopped = threading.Event()
        self.written = 0

    def run(self) -> None:
        descriptor = os.open(self._path, os.O_RDWR)
        while not self.stopped.is_set():
            number = self.written + 1
            os.pwrite(descriptor, number.to_bytes(8, "little") * (BLOCK // 8),
                      number % BLOCKS * BLOCK)
            os.fsync(descriptor)
            self.written = number
        os.close(descriptor)


@pytest.fixture
def counters(serve: Serve) -> Iterator[list[Counter]]:
    running = [Counter(path) for path in flashes(serve())]
    for counter in running:
        counter.start()
    yield running
    for counter in running:
        counter.stopped.set()
        counter.join(60)


def numbers(flash: bytes, image: bytes) -> list[int]:
    """What a counter wrote, in order."""
    blocks = [flash[at:at + BLOCK] for at in range(0, SIZE, BLOCK)]
    for index, block in enumerate(blocks):
        assert block == block[:8] * (BLOCK // 8) or block == image[index * BLOCK:][:BLOCK], "torn"
    return sorted(int.from_bytes(block[:8], "little") for index, block in enumerate(blocks)
                  if block != image[index * BLOCK:][:BLOCK])


def test_a_backup_is_of_one_moment(fwfs: Fwfs, fwfs_bin: Path, counters: list[Counter],
                                   tmp_path: Path, record_property: Record) -> None:
    image = (tmp_path / "code.fd").read_bytes()
    for turn in range(3):
        time.sleep(0.5)
        backup = tmp_path / f"backup{turn}.db"
        before = [counter.written for counter in counters]
        fwfs("backup", backup)
        after = [counter.written for counter in counters]
        copy = partial(run_program, fwfs_bin, "--store", backup)
        assert checked(copy)["damage_count"] == 0
        there = Mounter(copy, fwfs_bin, tmp_path / "copy")
        try:
            root = there("-o", "ro")
            for number, guest in enumerate(GUESTS):
                found = numbers((root / guest / "code").read_bytes(), image)
                assert found == list(range(found[0], found[-1] + 1)), "a state that never was"
                assert before[number] <= found[-1] <= after[number] + 1
        finally:
            there.finish()
        with sqlite3.connect(backup) as database:
            assert database.execute("SELECT count(*) FROM leases").fetchone() == (0,)
        database.close()
    record_property("writes_during_backups", sum(counter.written for counter in counters))


# ---- backup ----

def test_a_backup_is_a_store(fwfs: Fwfs, fwfs_bin: Path, mount: Mounter, store: Path,
                             tmp_path: Path) -> None:
    content = random.Random(3).randbytes(BLOCK)
    write(mount, "vm2", BLOCK, content)
    backup = tmp_path / "backup.db"
    told = json.loads(fwfs("backup", "--json", backup).stdout)
    assert told["file_size_bytes"] == backup.stat().st_size and told["damage_count"] == 0
    assert backup.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.glob("backup.db?*")] == []
    write(mount, "vm2", BLOCK, bytes(BLOCK))
    store.unlink()
    store.write_bytes(backup.read_bytes())
    flash = (mount() / "vm2" / "code").read_bytes()
    assert flash[BLOCK:2 * BLOCK] == content
    with sqlite3.connect(backup) as database:
        assert [database.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_size", "auto_vacuum", "journal_mode")] == [4096, 2, "wal"]
    database.close()


def test_a_backup_takes_the_place_of_nothing(fwfs: Fwfs, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("mine")
    fails(fwfs, FAILED, "backup", str(tmp_path / "there"))
    assert (tmp_path / "there").read_text() == "mine"
    fails(fwfs, 3, "backup", str(tmp_path / "nowhere" / "backup.db"))


def test_a_damaged_store_has_a_damaged_backup(fwfs: Fwfs, store: Path, sql: Sql,
                                              tmp_path: Path) -> None:
    sql(store, "UPDATE blocks SET data = zeroblob(9) WHERE id = 3")
    done = fwfs("backup", tmp_path / "backup.db", check=False)
    assert done.returncode == DAMAGED and (tmp_path / "backup.db").is_file()


def test_a_full_disk_leaves_nothing(fwfs: Fwfs, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "none", disk], check=True,
                   timeout=60)
    try:
        line = fails(fwfs, FAILED, "backup", str(disk / "backup.db"))
        assert "no space left" in line
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", disk], check=True, timeout=60)


# ---- compact ----

def test_what_was_purged_is_nowhere(fwfs: Fwfs, serve: Serve, store: Path) -> None:
    """Random bytes do not compress, so they stand in the store as they are."""
    marker = random.Random(4).randbytes(BLOCK)
    server = serve()
    with (server.mountpoint / "vm3" / "code").open("r+b") as flash:
        flash.write(marker)
    log = store.with_name(store.name + "-wal")
    os.sync()
    fwfs("status")
    # SQLite keeps the beginning of a row of that size in another page than the rest.
    parts = [marker[at:at + 64] for at in (100, 1000, 3000)]
    assert all(part in store.read_bytes() + log.read_bytes() for part in parts)
    fwfs("guest", "rm", "--purge", "vm3")
    fwfs("compact")
    assert log.stat().st_size == 0
    assert not any(part in store.read_bytes() for part in parts)


def test_room_goes_back_to_the_disk(fwfs: Fwfs, mount: Mounter, store: Path) -> None:
    root = mount()
    for guest in GUESTS:
        (root / guest / "code").write_bytes(random.Random(guest).randbytes(SIZE))
    mount.unmount()
    full = store.stat().st_size
    fwfs("guest", "rm", "--purge", *GUESTS[1:])
    told = json.loads(fwfs("compact", "--json").stdout)
    assert told["after_bytes"] < told["before_bytes"]
    assert store.stat().st_size == told["after_bytes"] < full - 2 * SIZE
    assert checked(fwfs)["damage_count"] == 0


def test_compacting_waits_for_no_reader(fwfs: Fwfs, store: Path) -> None:
    with sqlite3.connect(store) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM guests").fetchone()
        fwfs("guest", "rm", "--purge", "vm0")
        fwfs("compact")
    reader.close()


# ---- migrate ----

def test_a_store_of_today_needs_no_migration(fwfs: Fwfs, store: Path, mount: Mounter) -> None:
    before = store.read_bytes()
    assert fwfs("migrate").stdout == "the store is of version 1 already\n"
    assert json.loads(fwfs("migrate", "--json").stdout)["from_version"] == 1
    assert store.read_bytes() == before and list(store.parent.glob("*.v1.*")) == []
    mount("-o", "ro")
    assert "is mounted at" in fails(fwfs, IN_USE, "migrate")


# ---- The log ----

def test_many_guests_leave_no_large_log(fwfs: Fwfs, serve: Serve, store: Path,
                                        record_property: Record) -> None:
    log = store.with_name(store.name + "-wal")
    names = "\n".join(f"many{number}" for number in range(MANY_GUESTS))
    fwfs("guest", "add", "--firmware", "ovmf", "-", input=names)
    assert not log.exists()
    serve()
    fwfs("guest", "rm", "-", input=names)
    record_property("log_bytes", log.stat().st_size)
    assert log.stat().st_size < LOG_BYTES
