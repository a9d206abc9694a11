"""One writer at a time: who has a flash open for writing holds it, and everyone can see who."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.ovmf import OVMF_CODE, OVMF_COMBINED, OVMF_VARS
from support.program import Fwfs
from support.refusal import refusal
from support.server import END_SECONDS, Server
from support.waiting import eventually

PATIENCE_SECONDS = 1
MARGIN_SECONDS = 3
SIZE = OVMF_VARS.stat().st_size

Serve = Callable[..., Server]

# Opens the file for writing, writes what it is told a line, and closes it at the end of stdin.
WRITER = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
print("open", flush=True)
for line in sys.stdin:
    os.pwrite(fd, line.encode(), 0)
    print("written", flush=True)
"""
# The same, but the process that opened it ends, and a child goes on with the file.
INHERITED = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
if os.fork():
    os._exit(0)
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def guests(fwfs: Fwfs) -> None:
    fwfs("firmware", "add", "split", "--executable", OVMF_CODE, "--nvram-template", OVMF_VARS)
    fwfs("firmware", "add", "combined", "--mode", "combined", "--executable", OVMF_COMBINED)
    fwfs("guest", "add", "--firmware", "split", "web01")
    fwfs("guest", "add", "--firmware", "combined", "web02")


@contextmanager
def writer(path: Path, program: str = WRITER) -> Iterator["subprocess.Popen[str]"]:
    """A process that has it open for writing, until the block ends or its stdin is closed."""
    process = subprocess.Popen([sys.executable, "-c", program, path], text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin and process.stdout
    try:
        assert process.stdout.readline() == "open\n"
        yield process
    finally:
        process.stdin.close()
        process.wait(END_SECONDS)
        process.stdout.read()  # who inherited the file has this open too
        process.stdout.close()


def open_for_writing(path: Path) -> None:
    os.close(os.open(path, os.O_RDWR))


def holder(fwfs: Fwfs, guest: str = "web01") -> dict[str, Any] | None:
    return json.loads(fwfs("guest", "show", guest, "--json").stdout)["holder"]


def is_free(fwfs: Fwfs) -> bool:
    return eventually(lambda: holder(fwfs) is None)


@pytest.mark.parametrize(("guest", "file"), [("web01", "vars"), ("web02", "code")])
def test_a_second_writer_is_refused(fwfs: Fwfs, serve: Serve, guest: str, file: str) -> None:
    server = serve()
    path = server.mountpoint / guest / file
    with writer(path) as first:
        began = time.monotonic()
        assert refusal(lambda: open_for_writing(path)) == "EBUSY"
        assert PATIENCE_SECONDS * 0.9 < time.monotonic() - began < PATIENCE_SECONDS + MARGIN_SECONDS
        assert (f"{guest}: process {os.getpid()} (" in server.log()
                and f"may not write: process {first.pid} (python" in server.log())
        assert path.read_bytes()
    open_for_writing(path)


def test_everyone_can_see_who_holds_it(fwfs: Fwfs, serve: Serve) -> None:
    server = serve()
    assert holder(fwfs) is None
    with writer(server.mountpoint / "web01" / "vars") as first:
        told = holder(fwfs)
        assert told is not None
        assert (told["pid"], told["mountpoint"]) == (first.pid, str(server.mountpoint))
        assert told["command"].startswith("python")
        assert abs(time.time() - time.mktime(time.strptime(told["since"] + "+0000",
                                                           "%Y-%m-%dT%H:%M:%SZ%z"))
                   + time.timezone) < 60
        shown = json.loads((server.mountpoint / "web01" / "guest.json").read_text())
        assert shown["holder"] == told
        assert f"pid:        {first.pid}" in fwfs("guest", "show", "web01").stdout
    assert is_free(fwfs)


def test_readers_see_what_the_writer_wrote(serve: Serve) -> None:
    path = serve().mountpoint / "web01" / "vars"
    with writer(path) as first:
        assert first.stdin and first.stdout
        for number in range(5):
            first.stdin.write(f"line {number}\n")
            first.stdin.flush()
            assert first.stdout.readline() == "written\n"
            assert path.read_bytes()[:7] == f"line {number}\n".encode()


def test_one_process_may_open_it_twice(fwfs: Fwfs, serve: Serve) -> None:
    path = serve().mountpoint / "web01" / "vars"
    first, second = os.open(path, os.O_RDWR), os.open(path, os.O_WRONLY)
    os.close(first)
    told = holder(fwfs)
    assert told and told["pid"] == os.getpid()
    os.close(second)
    assert is_free(fwfs)


def test_what_is_held_is_not_taken_away(fwfs: Fwfs, serve: Serve) -> None:
    guest = serve("-o", "firmware=split").mountpoint / "web01"
    (guest / "new").write_bytes(bytes(SIZE))
    before = (guest / "vars").read_bytes()
    with writer(guest / "vars"), writer(guest / "new"):
        attempts = {
            "unlink": lambda: os.unlink(guest / "vars"),
            "rename over": lambda: os.rename(guest / "new", guest / "vars"),
            "rmdir": lambda: os.rmdir(guest),
            "truncate": lambda: os.truncate(guest / "vars", 0),
            "unlink staging": lambda: os.unlink(guest / "new"),
        }
        assert {what: refusal(action) for what, action in attempts.items()} == dict.fromkeys(
            attempts, "EBUSY")
        guest.rename(guest.with_name("web03"))
        guest.with_name("web03").rename(guest)
        assert (guest / "vars").read_bytes() == before


@pytest.mark.parametrize("command", [("rm", "web02", "web01"), ("reset", "web02", "web01")])
def test_the_command_line_is_told_who_holds_it(fwfs: Fwfs, serve: Serve,
                                               command: tuple[str, ...]) -> None:
    path = serve().mountpoint / "web01" / "vars"
    path.write_bytes(bytes(SIZE))
    with writer(path) as first:
        done = fwfs("guest", *command, check=False)
        assert (done.returncode, done.stderr.count("\n")) == (4, 1)
        assert f"guest 'web01': it is open for writing in {path.parents[1]} by process " \
               f"{first.pid} (python" in done.stderr
        assert path.read_bytes() == bytes(SIZE)
        assert fwfs("guest", "show", "web02").stdout
    assert is_free(fwfs)
    fwfs("guest", *command)


def test_reset(fwfs: Fwfs, serve: Serve) -> None:
    path = serve().mountpoint / "web01" / "vars"
    path.write_bytes(bytes(SIZE))
    os.setxattr(path, "user.x", b"1")
    os.chmod(path, 0o640)
    assert is_free(fwfs)
    fwfs("guest", "reset", "web01")
    assert path.read_bytes() == OVMF_VARS.read_bytes()
    assert os.getxattr(path, "user.x") == b"1" and path.stat().st_mode & 0o777 == 0o640
    assert fwfs("guest", "reset", "none", check=False).returncode == 3


@pytest.mark.parametrize("how", ["crash", "upgrade"])
def test_it_outlives_the_worker(fwfs: Fwfs, serve: Serve, how: str) -> None:
    server = serve()
    path = server.mountpoint / "web01" / "vars"
    with writer(path) as first:
        if how == "crash":
            server.kill_worker()
        else:
            assert server.reload() == 0
        assert refusal(lambda: open_for_writing(path)) == "EBUSY"
        told = holder(fwfs)
        assert told and told["pid"] == first.pid
    open_for_writing(path)


def test_it_ends_with_the_mount_however_that_ends(fwfs: Fwfs, serve: Serve) -> None:
    server = serve()
    with writer(server.mountpoint / "web01" / "vars"):
        (server.mountpoint / "web01" / "new").write_bytes(bytes(SIZE))
        worker = server.worker()
        server.process.kill()
        server.process.wait(END_SECONDS)
        os.kill(worker, signal.SIGKILL)
        server.destroy()
        assert eventually(lambda: not server.processes(), END_SECONDS)
    assert holder(fwfs) is None
    fwfs("guest", "rm", "web01")
    assert json.loads(fwfs("status", "--json").stdout)["private_block_count"] == 0


def test_release(fwfs: Fwfs, serve: Serve) -> None:
    """Of a holder whose process is gone, though its file is still open."""
    path = serve().mountpoint / "web01" / "vars"
    with writer(path, INHERITED) as first:
        first.wait(END_SECONDS)
        assert refusal(lambda: open_for_writing(path)) == "EBUSY"
        fwfs("guest", "release", "web01")
        assert holder(fwfs) is None
        open_for_writing(path)
        assert is_free(fwfs)
        fwfs("guest", "release", "web01")  # nobody holds it


def test_release_of_a_living_holder(fwfs: Fwfs, serve: Serve) -> None:
    path = serve().mountpoint / "web01" / "vars"
    with writer(path) as first:
        done = fwfs("guest", "release", "web01", check=False)
        assert (done.returncode, done.stderr.count("\n")) == (4, 1)
        assert f"process {first.pid} (python" in done.stderr and "--force" in done.stderr
        assert holder(fwfs) is not None
        fwfs("guest", "release", "--force", "web01")
        assert holder(fwfs) is None
    assert fwfs("guest", "release", "none", check=False).returncode == 3


def test_a_late_close_is_waited_for(serve: Serve) -> None:
    """By who opens it next, and by who replaces it."""
    guest = serve().mountpoint / "web01"
    for _ in range(50):
        (guest / "new").write_bytes(bytes(SIZE))
        (guest / "new").rename(guest / "vars")
        with writer(guest / "vars"):
            pass
        (guest / "vars").unlink()
        (guest / "vars").touch()
