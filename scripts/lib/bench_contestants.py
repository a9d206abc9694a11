"""Who is measured: what a user may put under a guest's firmware.

Each gives `flashes` writable files that begin as the combined image, fresh, and `codes` read-only
files with the split firmware's code, one a guest; a context manager keeps it mounted.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from bench_tools import BenchError, run, server, unmount, wait_for_end

COMBINED = Path("/usr/share/ovmf/OVMF.fd")
CODE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
VARS = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
PASSTHROUGH_SOURCE = Path("/usr/share/doc/libfuse3-dev/examples/passthrough_ll.c")

RAW = "raw file"
WRITEBACK = "passthrough, writeback"
PASSTHROUGH = "passthrough"
STORAGE_DAEMON = "qemu-storage-daemon"
FWFS = "fwfs"


@dataclass(frozen=True)
class Programs:
    fwfs: Path
    passthrough: Path | None  # libfuse's example, compiled; None: its source is not there


@dataclass(frozen=True)
class Wanted:
    """How many files of each kind a case needs."""

    flashes: int = 0
    codes: int = 0


AnyContestant = TypeVar("AnyContestant", bound="Contestant")


class Contestant:
    """`flashes` and `codes` may be used within its `with` block."""

    name = ""

    def __init__(self, programs: Programs, directory: Path, wanted: Wanted) -> None:
        self._programs = programs
        self._directory = directory
        self._wanted = wanted
        self._stack = ExitStack()
        self.flashes: list[Path] = []
        self.codes: list[Path] = []
        self.serving: list[int] = []  # the processes that serve it

    def __enter__(self: AnyContestant) -> AnyContestant:
        self._directory.mkdir()
        with ExitStack() as stack:
            self._stack = stack
            self._start()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._stack.close()

    def _start(self) -> None:
        raise NotImplementedError


def copy_durably(source: Path, target: Path) -> None:
    """What is measured afterwards must not pay for writing the copy, nor gain by it: the page cache
    gets the file as its reader brings it there."""
    shutil.copyfile(source, target)
    with target.open("rb+") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def make_files(directory: Path, wanted: Wanted) -> None:
    for i in range(wanted.flashes):
        copy_durably(COMBINED, directory / f"flash-{i}")
    if wanted.codes:
        copy_durably(CODE, directory / "code")


class RawFile(Contestant):
    """Plain files on the disk that the store is on; all guests share one code."""

    name = RAW

    def _start(self) -> None:
        make_files(self._directory, self._wanted)
        self.flashes = [self._directory / f"flash-{i}" for i in range(self._wanted.flashes)]
        self.codes = [self._directory / "code"] * self._wanted.codes


class Passthrough(Contestant):
    """libfuse's passthrough_ll over the same plain files, with all its caching."""

    name = PASSTHROUGH
    options = "cache=always"

    def _start(self) -> None:
        if not self._programs.passthrough:
            raise BenchError(f"{PASSTHROUGH_SOURCE} is not there (is documentation excluded from "
                             "what dpkg installs?)")
        source, mountpoint = self._directory / "source", self._directory / "mount"
        source.mkdir()
        mountpoint.mkdir()
        make_files(source, self._wanted)
        command = [self._programs.passthrough, "-f", "-o", f"source={source},{self.options}",
                   mountpoint]
        log = self._directory / "log"
        self.serving = [self._stack.enter_context(server(command, [mountpoint], log))]
        self.flashes = [mountpoint / f"flash-{i}" for i in range(self._wanted.flashes)]
        self.codes = [mountpoint / "code"] * self._wanted.codes


class PassthroughWriteback(Passthrough):
    name = WRITEBACK
    options = "cache=always,writeback"


class StorageDaemon(Contestant):
    """QEMU's own FUSE export: a qcow2 overlay on the shared image for each flash, the raw image for
    each code; one daemon for all."""

    name = STORAGE_DAEMON

    def _start(self) -> None:
        arguments: list[str] = []
        for i in range(self._wanted.flashes):
            overlay = self._directory / f"flash-{i}.qcow2"
            run("qemu-img", "create", "-q", "-f", "qcow2", "-b", COMBINED, "-F", "raw", overlay)
            self.flashes.append(self._directory / f"flash-{i}")
            arguments += self._export(f"flash-{i}", "qcow2", overlay, self.flashes[-1])
        for i in range(self._wanted.codes):
            self.codes.append(self._directory / f"code-{i}")
            arguments += self._export(f"code-{i}", "raw", CODE, self.codes[-1])
        command = ["qemu-storage-daemon", *arguments]
        log = self._directory / "log"
        self.serving = [self._stack.enter_context(
            server(command, self.flashes + self.codes, log))]

    @staticmethod
    def _export(name: str, driver: str, image: Path, mountpoint: Path) -> list[str]:
        mountpoint.touch()
        writable = "on" if driver == "qcow2" else "off"
        read_only = "off" if driver == "qcow2" else "on"
        return [
            "--blockdev",
            f"driver={driver},node-name={name},read-only={read_only},file.driver=file,"
            f"file.filename={image}",
            "--export",
            f"type=fuse,id=export-{name},node-name={name},mountpoint={mountpoint},"
            f"writable={writable}",
        ]


FIRMWARE: Mapping[str, Sequence[str | Path]] = {
    "combined": ("--mode", "combined", "--executable", COMBINED),
    "split": ("--executable", CODE, "--nvram-template", VARS),
}


class FwfsStore:
    """A store with some of FIRMWARE, by default all, and a mount that may come and go."""

    def __init__(self, program: Path, directory: Path,
                 firmware: Iterable[str] = tuple(FIRMWARE)) -> None:
        self._program = program
        self.directory = directory
        self._store = directory / "fwfs.db"
        self.mountpoint = directory / "fw"
        self.supervisor = self.worker = 0
        directory.mkdir(exist_ok=True)
        self.mountpoint.mkdir()
        self("init")
        for name in firmware:
            self("firmware", "add", name, *FIRMWARE[name])

    def __call__(self, *arguments: str | os.PathLike[str], input: str | None = None) -> str:
        return run(self._program, "--store", self._store, *arguments, input=input)

    def size_bytes(self) -> int:
        """Of its file, and of all that lies beside it."""
        return sum(file.stat().st_size
                   for file in self._store.parent.glob(f"{self._store.name}*"))

    def add_guests(self, firmware: str, names: Sequence[str]) -> None:
        if names:
            self("guest", "add", "--firmware", firmware, "-",
                 input="".join(f"{name}\n" for name in names))

    def mount(self) -> int:
        """Returns the ns that it took."""
        began = time.monotonic_ns()
        self("mount", self.mountpoint)
        took = time.monotonic_ns() - began
        mount = json.loads(self("status", "--json"))["mount"]
        self.supervisor, self.worker = mount["supervisor_pid"], mount["worker_pid"]
        return took

    def unmount(self) -> None:
        """Does nothing if it is not mounted; waits until nobody serves it any more."""
        unmount(self.mountpoint)
        wait_for_end([self.supervisor, self.worker], self._program)


class Fwfs(Contestant):
    """A guest of combined firmware for each flash, one of split firmware for each code."""

    name = FWFS

    def _start(self) -> None:
        store = FwfsStore(self._programs.fwfs, self._directory)
        flashes = [f"flash-{i}" for i in range(self._wanted.flashes)]
        codes = [f"code-{i}" for i in range(self._wanted.codes)]
        store.add_guests("combined", flashes)
        store.add_guests("split", codes)
        self._stack.callback(store.unmount)
        store.mount()
        self.serving = [store.supervisor, store.worker]
        self.flashes = [store.mountpoint / name / "code" for name in flashes]
        self.codes = [store.mountpoint / name / "code" for name in codes]


# In the order in which they take turns; the first is what the others are compared with.
CONTESTANTS: Sequence[type[Contestant]] = (RawFile, PassthroughWriteback, Passthrough,
                                           StorageDaemon, Fwfs)
