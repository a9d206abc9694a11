"""A mount is upgraded, or ended, while it is in use."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.hammers import Hammers, Record
from support.ovmf import OVMF_COMBINED
from support.program import Fwfs
from support.server import END_SECONDS, Server, is_mounted
from support.waiting import eventually

GUESTS = [f"vm{number}" for number in range(8)]
UPGRADES = 20

Serve = Callable[..., Server]


@pytest.fixture(scope="session")
def fwfs_bin(release_bin: Path) -> Path:
    return release_bin


@pytest.fixture(autouse=True)
def guests(fwfs: Fwfs) -> None:
    fwfs("firmware", "add", "ovmf", "--mode", "combined", "--executable", OVMF_COMBINED)
    fwfs("guest", "add", "--firmware", "ovmf", *GUESTS)


@pytest.fixture
def program(release_bin: Path, tmp_path: Path) -> Path:
    """A copy of the program, to be replaced by others."""
    (tmp_path / "bin").mkdir()
    copy = tmp_path / "bin" / "fwfs"
    shutil.copy(release_bin, copy)
    return copy


def install(program: Path, content: bytes, mode: int = 0o755) -> None:
    """As a package manager does: the old file lives on for those who run it."""
    new = program.with_suffix(".new")
    new.write_bytes(content)
    new.chmod(mode)
    new.rename(program)


def runs(pid: int, program: Path) -> bool:
    """Whether the process is of the file that has this name now."""
    return os.path.samefile(f"/proc/{pid}/exe", program)


def flash(server: Server, guest: str = GUESTS[0]) -> Path:
    return server.mountpoint / guest / "code"


def test_upgrades_under_load(serve: Serve, program: Path,
                             hammers: Callable[..., Hammers], rng: random.Random,
                             record_property: Record) -> None:
    server = serve(program=program)
    before = server.status()

    def upgrade() -> None:
        install(program, program.read_bytes())
        assert server.reload() == 0
        assert eventually(lambda: runs(server.process.pid, program), END_SECONDS)

    with hammers([flash(server, guest) for guest in GUESTS]) as writers:
        writers.disturbed(UPGRADES, rng, upgrade)
    writers.judge(record_property)
    after = server.status()
    assert (after["upgrade_count"], after["restart_count"]) == (UPGRADES, 0)
    assert after["supervisor_pid"] == before["supervisor_pid"] == server.process.pid
    assert after["since"] == before["since"] and after["worker_pid"] != before["worker_pid"]
    assert runs(after["worker_pid"], program)
    server.unmount()


# What is installed, its mode, and what the log says of it.
BROKEN = {
    "script": (b"#!/bin/sh\nexit 1\n", 0o755, "ended with status 1"),
    "empty": (b"", 0o755, "Exec format error"),
    "other": (Path("/bin/false").read_bytes(), 0o755, "ended with status 1"),
    "not-executable": (b"\x7fELF", 0o644, "Permission denied"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_does_not_work_replaces_nothing(serve: Serve, program: Path, kind: str) -> None:
    good = program.read_bytes()
    content, mode, why = BROKEN[kind]
    server = serve(program=program)
    before = server.status()
    with flash(server).open("r+b", buffering=0) as guest:
        guest.write(b"before")
        install(program, content, mode)
        assert server.reload() == 1
        assert server.status() == before
        assert "not upgraded, the old worker goes on" in server.log() and why in server.log()
        guest.write(b"and after")
        os.fsync(guest.fileno())

        install(program, good)
        assert server.reload() == 0
        assert server.status()["upgrade_count"] == 1
        assert eventually(lambda: runs(server.process.pid, program), END_SECONDS)
        assert os.pread(guest.fileno(), 15, 0) == b"beforeand after"


def test_a_hangup_upgrades(serve: Serve, program: Path) -> None:
    server = serve(program=program)
    server.process.send_signal(signal.SIGHUP)
    assert eventually(lambda: server.status()["upgrade_count"] == 1, END_SECONDS)


def test_a_signal_leaves_open_files_alone(serve: Serve) -> None:
    """The mount is detached, and served until the last of them is closed."""
    server = serve()
    with flash(server).open("r+b", buffering=0) as guest:
        server.process.send_signal(signal.SIGTERM)
        assert eventually(lambda: not is_mounted(server.mountpoint), END_SECONDS)
        guest.write(b"written when it was detached")
        os.fsync(guest.fileno())
        assert "served until the last is closed" in server.log()
        time.sleep(0.5)
        assert server.process.poll() is None and len(server.processes()) == 2
    server.wait_for_end()
    assert flash(serve()).read_bytes().startswith(b"written when it was detached")


def test_a_signal_ends_what_nobody_uses(serve: Serve) -> None:
    server = serve()
    server.process.send_signal(signal.SIGTERM)
    server.wait_for_end()
    assert server.process.returncode == 0


def test_status_is_of_now(fwfs: Fwfs, serve: Serve) -> None:
    def mount() -> dict[str, object] | None:
        return json.loads(fwfs("status", "--json").stdout)["mount"]

    assert mount() is None
    server = serve()
    told = mount()
    assert told and told.keys() == {"mountpoint", "since", "supervisor_pid", "worker_pid",
                                    "restart_count", "upgrade_count"}
    assert told["mountpoint"] == str(server.mountpoint)
    assert {told["supervisor_pid"], told["worker_pid"]} == set(server.processes())
    assert f"{server.mountpoint}\n" in fwfs("status").stdout
    server.unmount()
    assert mount() is None
    assert f"{server.mountpoint}\n" not in fwfs("status").stdout


def test_reload_of_what_is_not_mounted(fwfs: Fwfs, tmp_path: Path) -> None:
    done = fwfs("mount", "--reload", tmp_path, check=False)
    assert done.returncode == 3 and "no fwfs is mounted there" in done.stderr


def test_nothing_is_lost_by_unmounting(serve: Serve, rng: random.Random) -> None:
    """Right after a write that nobody synced."""
    server = serve()
    written = {guest: rng.randbytes(300_000) for guest in GUESTS}
    for guest, data in written.items():
        with flash(server, guest).open("r+b") as file:
            file.write(data)
    server.unmount()
    server = serve()
    for guest, data in written.items():
        assert flash(server, guest).read_bytes() == data + OVMF_COMBINED.read_bytes()[len(data):]


def test_a_second_mount_is_refused(fwfs: Fwfs, serve: Serve, tmp_path: Path) -> None:
    """Also while only the worker is left of the first."""
    server = serve()
    other = tmp_path / "other"
    other.mkdir()
    assert fwfs("mount", other, check=False).returncode == 4
    server.process.kill()
    server.process.wait(END_SECONDS)
    assert fwfs("mount", other, check=False).returncode == 4
    subprocess.run(["umount", server.mountpoint], check=True, timeout=END_SECONDS)
    server.wait_for_end()
