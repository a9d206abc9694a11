"""One process at a time has a flash open for writing, however close two of them come."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.ovmf import OVMF_CODE, OVMF_VARS
from support.program import Fwfs
from support.server import Server

CYCLES = 2000
# Races at once, a flash each, and how often.
FLASHES, ROUNDS = 5, 2
HOLD_SECONDS = 2
# An open waits for a late RELEASE, and not for much longer: the machine may be busy.
LEAST_SECONDS, MOST_SECONDS = 0.9, 1.9
EVERY_BYTE = 16
REMOVALS = 50

Serve = Callable[..., Server]


@pytest.fixture(scope="session")
def fwfs_bin(release_bin: Path) -> Path:
    return release_bin


@pytest.fixture
def server(fwfs: Fwfs, serve: Serve) -> Server:
    fwfs("firmware", "add", "fs", "--executable", OVMF_CODE, "--nvram-template", OVMF_VARS)
    fwfs("guest", "add", "--firmware", "fs", *(f"vm{number}" for number in range(FLASHES)))
    return serve()


def fork(action: Callable[[], None]) -> int:
    """The process that does it, and ends with the errno of the OSError that it met, or with 0."""
    child = os.fork()
    if child:
        return child
    code = 255
    try:
        action()
        code = 0
    except OSError as error:
        code = error.errno or code
    finally:
        os._exit(code)


def ended_with(child: int) -> str:
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return errno.errorcode.get(code, str(code)) if code else "0"


def test_closed_and_opened_again(server: Server) -> None:
    flash = server.mountpoint / "vm0" / "vars"
    for number in range(CYCLES):
        descriptor = os.open(flash, os.O_RDWR)
        if number % EVERY_BYTE == 0:
            os.pwrite(descriptor, bytes([number // EVERY_BYTE]), 0)
        os.close(descriptor)
    assert flash.read_bytes()[0] == (CYCLES - 1) // EVERY_BYTE
    assert "may not write" not in server.log()


def test_two_processes_take_turns(server: Server) -> None:
    """Each finds what the other wrote, and finds the flash free."""
    flash = server.mountpoint / "vm0" / "vars"
    turns = [os.pipe(), os.pipe()]

    def take_turns(me: int) -> None:
        mine, others = turns[me][0], turns[1 - me][1]
        # So that whoever fails leaves the other with nothing to read, and not waiting.
        os.close(turns[me][1])
        os.close(turns[1 - me][0])
        for number in range(CYCLES // 2):
            said = os.read(mine, 1)
            descriptor = os.open(flash, os.O_RDWR)
            if os.pread(descriptor, 1, 0) != said:
                raise OSError(errno.EILSEQ, "not what was written last")
            # Not each time: a close with nothing to write is the quicker one.
            if number % EVERY_BYTE == 0:
                said = bytes([(said[0] + 1) % 256])
                os.pwrite(descriptor, said, 0)
            os.close(descriptor)
            os.write(others, said)

    first = flash.read_bytes()[:1]
    children = [fork(lambda me=me: take_turns(me)) for me in range(2)]
    os.write(turns[0][1], first)
    for _, end in turns:
        os.close(end)
    assert [ended_with(child) for child in children] == ["0", "0"]
    for end, _ in turns:  # until here, since the last turn is passed on to nobody
        os.close(end)
    assert "may not write" not in server.log()


def race(flash: Path, results: int, start: int) -> int:
    """The process that opens the flash when `start` says so, and holds it; tells how it went in a
    line of `results`."""
    def run() -> None:
        os.read(start, 1)
        began = time.monotonic()
        try:
            descriptor = os.open(flash, os.O_RDWR)
            outcome = "0"
        except OSError as error:
            outcome = errno.errorcode[error.errno or 0]
        took = time.monotonic() - began
        if outcome == "0":
            time.sleep(HOLD_SECONDS)
            os.close(descriptor)
        os.write(results, f"{flash.parent.name} {outcome} {took:.3f} {os.getpid()}\n".encode())

    return fork(run)


@pytest.mark.parametrize("_", range(ROUNDS))
def test_one_of_two_wins(server: Server, _: int) -> None:
    flashes = [server.mountpoint / f"vm{number}" / "vars" for number in range(FLASHES)]
    results, to_results = os.pipe()
    start, to_start = os.pipe()
    racers = [race(flash, to_results, start) for flash in flashes for _ in range(2)]
    os.close(to_results)
    os.write(to_start, b"x" * len(racers))
    assert {ended_with(racer) for racer in racers} == {"0"}
    with os.fdopen(results) as lines:
        told = sorted(line.split() for line in lines)
    for descriptor in (start, to_start):
        os.close(descriptor)

    log = server.log()
    for flash in flashes:
        guest = flash.parent.name
        won, lost = [line for line in told if line[0] == guest]
        assert (won[1], lost[1]) == ("0", "EBUSY"), told
        assert float(won[2]) < LEAST_SECONDS, told
        assert LEAST_SECONDS <= float(lost[2]) <= MOST_SECONDS, told
        refused = [line for line in log.splitlines() if f"process {lost[3]} " in line]
        assert any(guest in line and f"process {won[3]} " in line for line in refused), log
    # It is free as soon as the winner has closed it.
    for flash in flashes:
        os.close(os.open(flash, os.O_RDWR))


def test_what_was_just_closed_is_free(server: Server) -> None:
    """Its RELEASE is on its way only: names may be removed and replaced meanwhile, as on a disk."""
    guest = server.mountpoint / "vm0"
    staging, flash = guest / "vars.new", guest / "vars"

    def write_to(path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.pwrite(descriptor, b"x", OVMF_VARS.stat().st_size - 1)
        os.close(descriptor)

    steps: dict[str, Callable[[], None]] = {
        "unlink a staging file": lambda: (write_to(staging), staging.unlink()),
        "unlink vars": lambda: (write_to(flash), flash.unlink()),
        "rename over vars": lambda: (write_to(staging), write_to(flash), staging.rename(flash)),
        "truncate in another process": lambda: (write_to(flash), truncate_elsewhere(flash)),
    }
    refused = dict.fromkeys(steps, 0)
    for _ in range(REMOVALS):
        for what, step in steps.items():
            try:
                step()
            except OSError as error:
                assert error.errno in (errno.EBUSY, errno.ETXTBSY), error
                refused[what] += 1
    assert refused == dict.fromkeys(steps, 0)


def truncate_elsewhere(flash: Path) -> None:
    outcome = ended_with(fork(lambda: os.truncate(flash, 0)))
    if outcome != "0":
        raise OSError(getattr(errno, outcome), outcome)


def test_a_guest_just_closed_is_removed(fwfs: Fwfs, server: Server) -> None:
    """By rmdir, as by the command line."""
    names = [f"gone{number}" for number in range(REMOVALS)]
    fwfs("guest", "add", "--firmware", "fs", *names)
    refused = []
    for number, name in enumerate(names):
        os.close(os.open(server.mountpoint / name / "vars", os.O_RDWR))
        if number % 4 == 0:
            done = fwfs("guest", "rm", name, check=False)
            if done.returncode != 0:
                refused.append(done.stderr)
            continue
        try:
            (server.mountpoint / name).rmdir()
        except OSError as error:
            refused.append(f"rmdir {name}: {errno.errorcode[error.errno or 0]}")
    assert not refused
