"""How a host may keep the flash of each of many guests that begin with the same image.

A keeper works in a directory, on a file system of the kind that it needs. The commands are those
that one would type: a cp or a qemu-img a guest, one fwfs for all.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench_contestants import COMBINED, FWFS, FwfsStore, Programs
from bench_tools import BenchError, is_mounted, mounts_below, run, unmount
from efi_shell import ShellError, boot_once

BLOCK = 4096
# Of each guest's own, at the end of the last block that a boot changes.
OWN_BYTES = 128
LOOP_BYTES = 8 << 30
WRITERS = 16

Blocks = Mapping[int, bytes]  # by their offset


# ---- What a boot changes ----

def record_boot(directory: Path) -> Blocks:
    """Boots a plain copy of the combined image once; returns the blocks that then differ."""
    copy = directory / "booted.fd"
    shutil.copyfile(COMBINED, copy)
    try:
        boot_once(["-machine", "q35,pflash0=flash",
                   "-blockdev", f"driver=file,node-name=file,filename={copy}",
                   "-blockdev", "driver=raw,node-name=flash,file=file"])
    except (ShellError, OSError) as error:
        raise BenchError(f"a first boot could not be recorded: {error}") from None
    before, after = COMBINED.read_bytes(), copy.read_bytes()
    copy.unlink()
    return changed_blocks(before, after)


def changed_blocks(before: bytes, after: bytes) -> Blocks:
    offsets = range(0, len(before), BLOCK)
    return {offset: after[offset:offset + BLOCK] for offset in offsets
            if after[offset:offset + BLOCK] != before[offset:offset + BLOCK]}


def with_own_bytes(blocks: Blocks, guest: int) -> Blocks:
    """The same, but that no two guests' last blocks are equal."""
    last = max(blocks)
    own = random.Random(guest).randbytes(OWN_BYTES)
    return {**blocks, last: blocks[last][:-OWN_BYTES] + own}


def write_blocks(flash: Path, blocks: Blocks) -> None:
    try:
        with flash.open("r+b", buffering=0) as file:
            for offset, block in blocks.items():
                if os.pwrite(file.fileno(), block, offset) != len(block):
                    raise BenchError(f"{flash}: not written as a whole")
            os.fsync(file.fileno())
    except OSError as error:
        raise BenchError(f"{flash}: {error.strerror}") from None


def boot_all(flashes: Sequence[Path], boot: Blocks, first: int = 0) -> None:
    """As if each had booted; the first of them is guest number `first`."""
    with ThreadPoolExecutor(WRITERS) as pool:
        for _ in pool.map(lambda item: write_blocks(item[1], with_own_bytes(boot, item[0])),
                          enumerate(flashes, first)):
            pass


# ---- File systems of their own ----

@dataclass(frozen=True)
class FileSystem:
    """One in a sparse file, where nobody else writes."""

    kind: str
    image: Path
    mountpoint: Path

    def mount(self) -> None:
        run("mount", "-t", self.kind, "-o", "loop", self.image, self.mountpoint)

    def used_bytes(self) -> int:
        """Of everything. It is unmounted in between, so that what was only reserved is given back
        (XFS reserves 128 KiB at a time)."""
        unmount(self.mountpoint)
        self.mount()
        figures = os.statvfs(self.mountpoint)
        return (figures.f_blocks - figures.f_bfree) * figures.f_frsize


def _detach(image: Path) -> None:
    """The kernel does so by itself when the file system is unmounted, but for one that failed."""
    for line in run("losetup", "-j", image).splitlines():
        run("losetup", "-d", line.partition(":")[0])


@contextmanager
def file_system(kind: str, directory: Path) -> Iterator[FileSystem]:
    """A new one, as its mkfs makes it; nothing is mounted afterwards."""
    mkfs = f"mkfs.{kind}"
    if not shutil.which(mkfs):
        raise BenchError(f"{mkfs} is not there")
    directory.mkdir()
    made = FileSystem(kind, directory / "image", directory / "mount")
    made.mountpoint.mkdir()
    with made.image.open("wb") as file:
        file.truncate(LOOP_BYTES)
    try:
        run(mkfs, "-q", made.image)
        made.mount()
        yield made
    finally:
        unmount(made.mountpoint)
        _detach(made.image)
        if not is_mounted(made.mountpoint):
            shutil.rmtree(directory)


# ---- The keepers ----

class Keeper:
    """prepare() makes what all guests share; then create(), boot() and remove() keep guests."""

    name = ""
    file_system = "ext4"
    on_the_disk = True  # it works on any; else it needs its own file system when it is timed, too

    def __init__(self, programs: Programs, directory: Path) -> None:
        self._programs = programs
        self.directory = directory

    def prepare(self) -> None:
        raise NotImplementedError

    def create(self, names: Sequence[str]) -> None:
        raise NotImplementedError

    def boot(self, names: Sequence[str], boot: Blocks) -> None:
        raise NotImplementedError

    def remove(self, names: Sequence[str], *options: str) -> None:
        raise NotImplementedError


def lines(names: Sequence[str]) -> str:
    return "".join(f"{name}\n" for name in names)


class Files(Keeper):
    """A file a guest, which `command` makes: of "$0", the image, the file "$name"."""

    command = ""

    @property
    def _image(self) -> Path:
        return self.directory / "image.fd"

    @property
    def _guests(self) -> Path:
        return self.directory / "guests"

    def prepare(self) -> None:
        self._guests.mkdir()
        shutil.copyfile(COMBINED, self._image)

    def create(self, names: Sequence[str]) -> None:
        self._in_guests(f"while read -r name; do {self.command} || exit; done", names)

    def boot(self, names: Sequence[str], boot: Blocks) -> None:
        boot_all([self._guests / name for name in names], boot)

    def remove(self, names: Sequence[str], *options: str) -> None:
        self._in_guests("xargs rm --", names)

    def _in_guests(self, script: str, names: Sequence[str]) -> None:
        run("sh", "-c", f'cd "$1" && {script}', self._image, self._guests, input=lines(names))


class Copies(Files):
    name = "cp"
    command = 'cp "$0" "$name"'


class XfsReflinks(Files):
    name = "cp --reflink, XFS"
    file_system = "xfs"
    on_the_disk = False
    command = 'cp --reflink=always "$0" "$name"'


class BtrfsReflinks(XfsReflinks):
    name = "cp --reflink, btrfs"
    file_system = "btrfs"


class Overlays(Files):
    """With clusters of the size that qemu-img makes if not told otherwise."""

    name = "qcow2, 64K clusters"
    command = 'qemu-img create -q -f qcow2 -o cluster_size=64K -b "$0" -F raw "$name"'

    def boot(self, names: Sequence[str], boot: Blocks) -> None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(lambda item: self._boot_one(item[1], with_own_bytes(boot, item[0])),
                              enumerate(names)):
                pass

    def _boot_one(self, name: str, boot: Blocks) -> None:
        commands: list[str] = []
        patterns = [self.directory / f"{name}-{offset}" for offset in boot]
        for pattern, (offset, block) in zip(patterns, boot.items()):
            pattern.write_bytes(block)
            commands += ["-c", f"write -s {pattern} {offset} {len(block)}"]
        run("qemu-io", "-f", "qcow2", *commands, self._guests / name)
        for pattern in patterns:
            pattern.unlink()


class SmallOverlays(Overlays):
    name = "qcow2, 4K clusters"
    command = 'qemu-img create -q -f qcow2 -o cluster_size=4K -b "$0" -F raw "$name"'


class FwfsGuests(Keeper):
    """A store with nothing but the combined image."""

    name = FWFS

    def prepare(self) -> None:
        self.store = FwfsStore(self._programs.fwfs, self.directory / "store", ("combined",))

    def create(self, names: Sequence[str]) -> None:
        self.store.add_guests("combined", names)

    def boot(self, names: Sequence[str], boot: Blocks) -> None:
        self.store.mount()
        try:
            boot_all([self.store.mountpoint / name / "code" for name in names], boot)
        finally:
            self.store.unmount()

    def remove(self, names: Sequence[str], *options: str) -> None:
        self.store("guest", "rm", *options, "-", input=lines(names))


# The first is what the others are compared with.
KEEPERS: Sequence[type[Keeper]] = (Copies, XfsReflinks, BtrfsReflinks, Overlays, SmallOverlays,
                                   FwfsGuests)


@contextmanager
def ready(kind: type[Keeper], programs: Programs, directory: Path) -> Iterator[Keeper]:
    """On the disk that is measured on, if it works there."""
    directory.mkdir()
    try:
        if kind.on_the_disk:
            keeper = kind(programs, directory)
            keeper.prepare()
            yield keeper
        else:
            with file_system(kind.file_system, directory / kind.file_system) as made:
                keeper = kind(programs, made.mountpoint)
                keeper.prepare()
                yield keeper
    finally:
        if not mounts_below(directory):
            shutil.rmtree(directory, ignore_errors=True)
