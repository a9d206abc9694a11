"""The process behind the mount dies, hangs or is killed, and no guest notices."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from efi_shell import EfiShell
from support.hammers import Hammers, Record, drop_caches
from support.ovmf import DESCRIPTORS, OVMF_CODE, OVMF_COMBINED, OVMF_VARS, changed_blocks
from support.program import Fwfs
from support.server import END_SECONDS, Server
from support.varstore import GLOBAL, boot_entries, boot_order, read_variables
from support.waiting import eventually

WRITERS = 8
KILLS = 100
STORM_KILLS = 40
STORM = Path(__file__).with_name("tools") / "storm.py"

Serve = Callable[..., Server]
Make = Callable[..., Hammers]


@pytest.fixture(scope="session")
def fwfs_bin(release_bin: Path) -> Path:
    return release_bin


@pytest.fixture
def guests(fwfs: Fwfs) -> list[str]:
    """As many as there are writers, each with a flash of code and variables."""
    names = [f"vm{number}" for number in range(WRITERS)]
    fwfs("firmware", "add", "ovmf", "--mode", "combined", "--executable", OVMF_COMBINED)
    fwfs("guest", "add", "--firmware", "ovmf", *names)
    return names


def flashes(server: Server, guests: list[str]) -> list[Path]:
    return [server.mountpoint / guest / "code" for guest in guests]


def test_kills(serve: Serve, guests: list[str], hammers: Make, rng: random.Random,
               record_property: Record) -> None:
    server = serve()
    with hammers(flashes(server, guests)) as writers:
        writers.disturbed(KILLS, rng, server.kill_worker)
    writers.judge(record_property)
    status = server.status()
    assert (status["restart_count"], status["upgrade_count"]) == (KILLS, 0)
    assert status["supervisor_pid"] == server.process.pid
    assert server.log().count("was ended by signal 9 (Killed)") == KILLS
    server.unmount()


def test_kills_while_it_is_replaced(fwfs_bin: Path, store: Path, serve: Serve, guests: list[str],
                                    hammers: Make, rng: random.Random,
                                    record_property: Record) -> None:
    """Of the old worker or of the new one, as it comes."""
    server = serve()

    def kill_one() -> None:
        command = [fwfs_bin, "--store", store, "mount", "--reload", server.mountpoint]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as reload:
            time.sleep(rng.uniform(0, 0.06))
            workers = set(server.processes()) - {server.process.pid}
            if workers:
                os.kill(rng.choice(sorted(workers)), signal.SIGKILL)
            # 1: it was the new one that was killed, before it served.
            assert reload.wait(END_SECONDS) in (0, 1)

    with hammers(flashes(server, guests)) as writers:
        writers.disturbed(10, rng, kill_one)
    writers.judge(record_property)
    assert server.status()["supervisor_pid"] == server.process.pid


def test_a_worker_that_hangs_is_replaced(serve: Serve, guests: list[str], hammers: Make,
                                         rng: random.Random, record_property: Record) -> None:
    server = serve("-o", "hang=1")

    def stop() -> None:
        stopped = server.worker()
        os.kill(stopped, signal.SIGSTOP)
        assert eventually(lambda: server.worker() not in (0, stopped), END_SECONDS)

    with hammers(flashes(server, guests)) as writers:
        writers.disturbed(2, rng, stop)
    writers.judge(record_property)
    assert server.log().count("does not answer; it is killed") == 2
    assert server.status()["restart_count"] == 2


def test_a_worker_that_does_not_die_is_replaced(serve: Serve, guests: list[str], release_bin: Path,
                                                tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    """One of its threads waits in the kernel for what only the next worker can answer."""
    order = tmp_path / "stuck-worker"
    with monkeypatch.context() as stuck:
        stuck.setenv("LD_PRELOAD", str(release_bin.parent / "tests" / "stuck_worker.so"))
        stuck.setenv("STUCK_WORKER", str(order))
        server = serve("-o", "hang=1")
    first = server.worker()
    flash = server.mountpoint / guests[0] / "code"
    order.touch()
    with flash.open("r+b", buffering=0) as file:
        file.write(b"kept")
        os.fsync(file.fileno())
        assert not order.exists()
    assert flash.read_bytes()[:4] == b"kept"
    assert server.worker() != first and server.status()["restart_count"] == 1
    assert f"worker {first} does not answer; it is killed" in server.log()
    assert "the worker was killed and does not end" in server.log()
    assert eventually(lambda: not Path(f"/proc/{first}").exists()), "it was not reaped"


def test_without_its_supervisor_it_goes_on(serve: Serve, guests: list[str], hammers: Make,
                                           rng: random.Random, record_property: Record) -> None:
    server = serve()
    with hammers(flashes(server, guests)) as writers:
        writers.disturbed(1, rng, server.process.kill)
        assert server.process.wait(END_SECONDS) == -signal.SIGKILL
        writers.disturbed(2, rng, lambda: None)
    writers.judge(record_property)
    server.unmount()


def test_what_is_asked_again_is_answered_once(fwfs: Fwfs, serve: Serve, rng: random.Random,
                                              record_property: Record) -> None:
    """A request that a worker did, but died before it answered, is done again by the next."""
    fwfs("firmware", "import", DESCRIPTORS / "60-edk2-x86_64.json")
    names = [f"vm{number}" for number in range(WRITERS)]
    fwfs("guest", "add", "--firmware", "60-edk2-x86_64", *names)
    server = serve()
    clients = [subprocess.Popen([sys.executable, STORM, server.mountpoint / name / "vars"],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
               for name in names]
    try:
        for _ in range(STORM_KILLS):
            # One that dies at once would be kept waiting before it is started again.
            worker = server.worker()
            time.sleep(rng.uniform(0.25, 0.45))
            os.kill(worker, signal.SIGKILL)
            assert eventually(lambda: server.status()["worker_pid"] != worker, END_SECONDS)
        told = [client.communicate(timeout=END_SECONDS)[0].splitlines() for client in clients]
    finally:
        for client in clients:
            client.kill()
            client.wait()
    record_property("storm_rounds", sum(int(lines[0]) for lines in told))
    assert all(int(lines[0]) > STORM_KILLS for lines in told)
    assert [wrong for lines in told for wrong in lines[1:]] == []


# What is asked, the kernel's number of the request (linux/fuse.h), and how it is asked.
REQUESTS: dict[str, tuple[int, Callable[[Path], object]]] = {
    "lookup": (1, lambda file: os.stat(file)),
    "setattr": (4, lambda file: os.chmod(file, 0o640)),
    "open": (14, lambda file: os.close(os.open(file, os.O_RDWR))),
    "read": (15, lambda file: file.read_bytes()),
    "write": (16, lambda file: file.write_bytes(file.read_bytes()[::-1])),
    "statfs": (17, lambda file: os.statvfs(file)),
    "release": (18, lambda file: os.close(os.open(file, os.O_RDWR))),
    "setxattr": (21, lambda file: os.setxattr(file, "user.new", b"1", os.XATTR_CREATE)),
    "replace": (21, lambda file: os.setxattr(file, "user.old", b"2", os.XATTR_REPLACE)),
    "getxattr": (22, lambda file: os.getxattr(file, "user.old")),
    "listxattr": (23, lambda file: os.listxattr(file)),
    "removexattr": (24, lambda file: os.removexattr(file, "user.old")),
    "flush": (25, lambda file: file.write_bytes(b"")),
    "readdir": (44, lambda file: os.listdir(file.parent)),
}


class DeadlyServer:
    """Its worker can be told to die before it answers."""

    def __init__(self, serve: Serve, release_bin: Path, order: Path,
                 monkeypatch: pytest.MonkeyPatch) -> None:
        self._order = order
        with monkeypatch.context() as deadly:
            deadly.setenv("LD_PRELOAD", str(release_bin.parent / "tests" / "deadly_answer.so"))
            deadly.setenv("DEADLY_ANSWER", str(order))
            self.server = serve("-o", "firmware=split")
        self.mountpoint = self.server.mountpoint

    def die_of(self, opcode: int, ask: Callable[[], object]) -> None:
        """Has the answer to this request fail, and the request asked again of the next worker."""
        # What the kernel has cached it need not ask for.
        drop_caches()
        self._order.write_text(str(opcode))
        ask()
        assert eventually(lambda: self.server.status()["restart_count"] == 1, END_SECONDS), \
            "not asked"
        assert not self._order.exists()


@pytest.fixture
def deadly(fwfs: Fwfs, serve: Serve, release_bin: Path, tmp_path: Path,
           monkeypatch: pytest.MonkeyPatch) -> DeadlyServer:
    fwfs("firmware", "add", "split", "--executable", OVMF_CODE, "--nvram-template", OVMF_VARS)
    fwfs("guest", "add", "--firmware", "split", "web01", "web02")
    return DeadlyServer(serve, release_bin, tmp_path / "deadly-answer", monkeypatch)


def is_free(fwfs: Fwfs, guest: str) -> bool:
    """Nobody has it open for writing."""
    return json.loads(fwfs("guest", "show", guest, "--json").stdout)["holder"] is None


@pytest.mark.parametrize("request_name", REQUESTS)
def test_a_death_before_the_answer(fwfs: Fwfs, deadly: DeadlyServer, request_name: str) -> None:
    """What was done, and not answered, is asked again: whoever asked must not be told so."""
    flash = deadly.mountpoint / "web01" / "vars"
    os.setxattr(flash, "user.old", b"1")
    opcode, ask = REQUESTS[request_name]
    deadly.die_of(opcode, lambda: ask(flash))
    assert eventually(lambda: is_free(fwfs, "web01"))


# As above, in the directory of a guest that has a staging file `new`; and what must be there then.
NAME_REQUESTS: dict[str, tuple[int, Callable[[Path], object], dict[str, bool]]] = {
    "mkdir": (9, lambda guest: os.mkdir(guest / "../web03"), {"../web03/vars": True}),
    "rmdir": (11, lambda guest: os.rmdir(guest / "../web02"), {"../web02": False}),
    "rename": (12, lambda guest: os.rename(guest, guest / "../web03"), {"../web03/vars": True}),
    "unlink": (10, lambda guest: os.unlink(guest / "vars"), {"vars": False}),
    "create": (35, lambda guest: os.close(os.open(guest / "other", os.O_CREAT | os.O_RDWR)),
               {"other": True}),
    "create anew": (35, lambda guest: os.close(os.open(guest / "other", os.O_CREAT | os.O_EXCL)),
                    {"other": True}),
    "replace": (12, lambda guest: os.rename(guest / "new", guest / "vars"),
                {"new": False, "vars": True}),
    "unlink new": (10, lambda guest: os.unlink(guest / "new"), {"new": False}),
}


@pytest.mark.parametrize("request_name", NAME_REQUESTS)
def test_a_death_before_the_answer_to_names(fwfs: Fwfs, deadly: DeadlyServer,
                                            request_name: str) -> None:
    guest = deadly.mountpoint / "web01"
    (guest / "new").write_bytes(OVMF_VARS.read_bytes()[::-1])
    opcode, ask, expected = NAME_REQUESTS[request_name]
    deadly.die_of(opcode, lambda: ask(guest))
    there = {name: os.path.lexists(os.path.join(guest, name)) for name in expected}
    # What was renamed is not where it was, so look from beside it.
    if request_name == "rename":
        there = {"../web03/vars": (deadly.mountpoint / "web03" / "vars").exists()}
        assert not guest.exists()
    assert there == expected


class Killer(threading.Thread):
    """Kills the worker again and again."""

    def __init__(self, server: Server, rng: random.Random, kills: int) -> None:
        super().__init__(daemon=True)
        self._server, self._rng, self._left = server, rng, kills

    def run(self) -> None:
        while self._left:
            time.sleep(self._rng.uniform(0.2, 0.8))
            self._server.kill_worker()
            self._left -= 1


@pytest.mark.parametrize(("mode", "file"), [("combined", "code"), ("split", "vars")])
def test_a_guest_boots_through_kills(fwfs: Fwfs, serve: Serve, rng: random.Random, mode: str,
                                     file: str) -> None:
    if mode == "combined":
        fwfs("firmware", "add", "ovmf", "--mode", "combined", "--executable", OVMF_COMBINED)
        fwfs("guest", "add", "--firmware", "ovmf", "web01")
    else:
        fwfs("firmware", "import", DESCRIPTORS / "60-edk2-x86_64.json")
        fwfs("guest", "add", "--firmware", "60-edk2-x86_64", "web01")
    server = serve()
    flash = server.mountpoint / "web01" / file
    before = flash.read_bytes()
    arguments = fwfs("guest", "qemu", "web01", "--mountpoint", server.mountpoint).stdout.split()
    killer = Killer(server, rng, 10)
    with EfiShell(arguments) as shell:
        killer.start()
        shell.boot()
        shell.run("bcfg boot mv 2 0")
        killer.join(END_SECONDS)
        shell.run("bcfg boot mv 1 0")
        listed = shell.run("bcfg boot dump")
        shell.quit()
    assert server.status()["restart_count"] == 10

    server.unmount()
    server = serve()
    assert changed_blocks(before, flash.read_bytes())
    variables = read_variables(flash.read_bytes())
    assert len(boot_entries(variables)) >= 3
    order = boot_order(variables)
    # The firmware's own order, as it was before the two moves.
    first, second, third = sorted(order)[:3]
    assert order[:3] == [first, third, second] or order[0] != first, order
    assert set(order) <= set(boot_entries(variables)), listed
    assert ("BootOrder", GLOBAL) in variables
