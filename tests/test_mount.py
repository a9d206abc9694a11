"""The mount as a whole: it comes, serves bytes like any file system, and goes without a trace."""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.mounting import END_SECONDS, Mounter
from support.ovmf import OVMF_CODE, OVMF_COMBINED, OVMF_VARS
from support.program import Fwfs
from support.tenant import Tenant
from support.waiting import eventually

OPERATIONS = 4000
LOG_WRITES = 30_000
LOG_BYTES = 64 * 1024 * 1024
ENDLESS_WRITER = """
import os, sys
descriptor = os.open(sys.argv[1], os.O_RDWR)
while True:
    os.pwrite(descriptor, os.urandom(512), 0)
    os.fsync(descriptor)
"""


@pytest.fixture
def guests(fwfs: Fwfs) -> None:
    """A split and a combined guest."""
    fwfs("firmware", "add", "fs", "--executable", OVMF_CODE, "--nvram-template", OVMF_VARS)
    fwfs("firmware", "add", "fc", "--mode", "combined", "--executable", OVMF_COMBINED)
    fwfs("guest", "add", "--firmware", "fs", "split")
    fwfs("guest", "add", "--firmware", "fc", "combined")


FLASHES = pytest.mark.parametrize(("flash", "image"),
                                  [("split/vars", OVMF_VARS), ("combined/code", OVMF_COMBINED)],
                                  ids=["vars", "code"])


# ---- Coming and going ----


@pytest.mark.usefixtures("guests")
def test_it_answers_when_mount_returns_and_leaves_nothing(mount: Mounter, store: Path) -> None:
    fw = mount()
    assert mount.is_mounted()
    assert sorted(os.listdir(fw)) == ["combined", "split"]
    assert len(mount.servers()) >= 1
    mount.unmount()
    assert not mount.is_mounted() and os.listdir(fw) == []
    assert mount.servers() == []
    beside = sorted(path.name for path in store.parent.glob(f"{store.name}*"))
    assert beside == [store.name], "the write-ahead log was not put away"


@pytest.mark.usefixtures("guests")
def test_it_is_unmounted_by_fusermount(mount: Mounter) -> None:
    fw = mount()
    subprocess.run(["fusermount3", "-u", fw], check=True)
    assert eventually(lambda: mount.servers() == [], END_SECONDS)
    assert not mount.is_mounted()


@pytest.mark.usefixtures("guests")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT],
                         ids=lambda number: number.name)
def test_a_signal_ends_it_in_the_foreground(fwfs_bin: Path, store: Path, mount: Mounter,
                                            number: signal.Signals) -> None:
    mount.mountpoint.mkdir()
    command = [str(fwfs_bin), "--store", str(store), "mount", str(mount.mountpoint), "--foreground"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert eventually(mount.is_mounted, END_SECONDS)
            flash = mount.mountpoint / "split" / "vars"
            with flash.open("r+b") as file:
                file.write(b"kept")
            server.send_signal(number)
            _, said = server.communicate(timeout=END_SECONDS)
            assert server.returncode == 0, said
        finally:
            server.kill()
    assert not mount.is_mounted()
    assert (mount() / "split" / "vars").read_bytes()[:4] == b"kept"


@pytest.mark.usefixtures("guests")
def test_it_holds_nothing_of_the_caller(mount: Mounter) -> None:
    """Neither its working directory nor its streams, or a script in a pipe would wait for ever."""
    fw = mount()
    for pid in mount.servers():
        process = Path("/proc") / str(pid)
        assert os.readlink(process / "cwd") == "/"
        for descriptor in ("0", "1", "2"):
            assert not os.readlink(process / "fd" / descriptor).startswith("pipe:")
        opened = {os.readlink(link) for link in (process / "fd").iterdir() if link.is_symlink()}
        assert not [path for path in opened if path == str(fw) or path.startswith(f"{fw}/")]


@pytest.mark.usefixtures("guests")
def test_it_shows_as_fwfs(mount: Mounter) -> None:
    fw = mount()
    line = next(line.split() for line in Path("/proc/mounts").read_text().splitlines()
                if line.split()[1] == str(fw))
    assert line[2] == "fuse.fwfs"
    assert {"nosuid", "nodev"} <= set(line[3].split(","))
    assert os.statvfs(fw).f_namemax == 255


@pytest.mark.usefixtures("guests")
def test_read_only(mount: Mounter) -> None:
    flash = mount("-o", "ro") / "split" / "vars"
    for attempt in (lambda: os.open(flash, os.O_RDWR), lambda: os.chmod(flash, 0o640)):
        with pytest.raises(OSError) as refused:
            attempt()
        assert refused.value.errno == errno.EROFS
    assert flash.read_bytes() == OVMF_VARS.read_bytes()


@pytest.mark.usefixtures("guests")
def test_private(fwfs: Fwfs, mount: Mounter) -> None:
    fwfs("guest", "add", "--firmware", "fs", "--owner", "20001:20001", "tenants")
    tenant = Tenant(uid=20001, gid=20001)
    assert tenant.attempt(mount(), lambda: os.listdir("tenants")) == 0
    mount.unmount()
    assert tenant.attempt(mount("-o", "private"), lambda: os.listdir("tenants")) == errno.EACCES


@pytest.mark.usefixtures("guests")
def test_the_log_beside_the_store_stays_small(mount: Mounter, store: Path) -> None:
    """After as many small writes as two first boots make, while the guest writes now and then."""
    log = store.with_name(f"{store.name}-wal")
    descriptor = os.open(mount() / "split" / "vars", os.O_RDWR)

    def write(number: int) -> None:
        os.pwrite(descriptor, number.to_bytes(512, "little"), number % 32 * 512)

    def is_small() -> bool:
        write(log.stat().st_size)
        return log.stat().st_size <= LOG_BYTES

    try:
        for number in range(LOG_WRITES):
            write(number)
        assert eventually(is_small, END_SECONDS)
    finally:
        os.close(descriptor)


def test_an_empty_store_is_an_empty_directory(mount: Mounter) -> None:
    assert os.listdir(mount()) == []


# ---- Bytes ----


@pytest.mark.usefixtures("guests")
@FLASHES
def test_odd_reads(mount: Mounter, flash: str, image: Path) -> None:
    expected = image.read_bytes()
    size = len(expected)
    rng = random.Random(flash)
    spans = [(0, 1), (0, size), (0, size + 4096), (size - 1, 1), (size - 1, 10), (size, 1),
             (size + 1, 1), (4095, 2), (4096, 4096), (1, 4096), (0, 0), (131071, 3)]
    spans += [(rng.randrange(size), rng.choice([1, 511, 512, 4095, 4097, 70_001]))
              for _ in range(300)]
    descriptor = os.open(mount() / flash, os.O_RDONLY)
    try:
        for offset, length in spans:
            assert os.pread(descriptor, length, offset) == expected[offset:offset + length]
    finally:
        os.close(descriptor)


@pytest.mark.usefixtures("guests")
@FLASHES
def test_random_reads_and_writes(mount: Mounter, flash: str, image: Path) -> None:
    """Against a shadow of what the flash must hold; opened anew now and then, and remounted."""
    shadow = bytearray(image.read_bytes())
    original = bytes(shadow)
    size = len(shadow)
    rng = random.Random(flash)
    path = mount() / flash
    descriptor = os.open(path, os.O_RDWR)
    try:
        for step in range(OPERATIONS):
            length = rng.choice([1, 2, 511, 512, 513, 1024, 4095, 4096, 4097, 12_288, 40_000])
            offset = rng.randrange(size - length + 1)
            if rng.random() < 0.3:
                offset &= ~4095
            kind = rng.random()
            if kind < 0.5:
                assert os.pread(descriptor, length, offset) == shadow[offset:offset + length]
            else:
                data = {
                    0: lambda: rng.randbytes(length),
                    1: lambda: b"\xff" * length,
                    2: lambda: b"\0" * length,
                    3: lambda: original[offset:offset + length],
                }[rng.choice([0, 0, 0, 1, 2, 3])]()
                assert os.pwrite(descriptor, data, offset) == length
                shadow[offset:offset + length] = data
            if step % 500 == 499:
                os.close(descriptor)
                descriptor = os.open(path, os.O_RDWR)
                assert path.read_bytes() == shadow
    finally:
        os.close(descriptor)
    assert path.read_bytes() == shadow
    mount.remount()
    assert path.read_bytes() == shadow
    assert path.stat().st_size == size


@pytest.mark.usefixtures("guests")
@FLASHES
def test_a_rewrite_of_the_same_stores_nothing(fwfs: Fwfs, mount: Mounter, flash: str,
                                              image: Path) -> None:
    """As a live migration's destination does, in one write of everything."""
    def stored() -> tuple[int, int]:
        status = json.loads(fwfs("status", "--json").stdout)
        return status["private_block_count"], status["stored_bytes"]

    before = stored()
    with (mount() / flash).open("r+b", buffering=0) as file:
        data = image.read_bytes()
        written = 0
        while written < len(data):
            written += file.write(data[written:])
    mount.unmount()
    assert stored() == before


@pytest.mark.usefixtures("guests")
def test_appending_is_past_the_end(mount: Mounter) -> None:
    flash = mount() / "split" / "vars"
    with pytest.raises(OSError) as refused:
        with flash.open("ab", buffering=0) as file:
            file.write(b"more")
            os.fsync(file.fileno())
    assert refused.value.errno == errno.EFBIG
    assert flash.read_bytes() == OVMF_VARS.read_bytes()


@pytest.mark.usefixtures("guests")
def test_mapped_memory(mount: Mounter) -> None:
    fw = mount()
    with (fw / "split" / "code").open("rb") as file:
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory:
            assert memory[:] == OVMF_CODE.read_bytes()
    with (fw / "split" / "vars").open("rb") as file:
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory:
            assert memory[:] == OVMF_VARS.read_bytes()


@pytest.mark.usefixtures("guests")
def test_writes_are_kept_apart(fwfs: Fwfs, mount: Mounter) -> None:
    """What one guest writes is no other's, nor its firmware's."""
    fwfs("guest", "add", "--firmware", "fs", "second")
    fw = mount()
    for number, guest in enumerate(("split", "second")):
        with (fw / guest / "vars").open("r+b") as file:
            file.seek(4096)
            file.write(bytes([number]) * 100)
    fwfs("guest", "add", "--firmware", "fs", "third")
    fw = mount.remount()
    image = OVMF_VARS.read_bytes()
    for number, guest in enumerate(("split", "second")):
        expected = image[:4096] + bytes([number]) * 100 + image[4196:]
        assert (fw / guest / "vars").read_bytes() == expected
    assert (fw / "third" / "vars").read_bytes() == image


@pytest.mark.usefixtures("guests")
def test_a_flash_outlives_a_killed_server(fwfs: Fwfs, mount: Mounter) -> None:
    """What fsync() promised is in the store although the server had no chance to close it."""
    flash = mount() / "split" / "vars"
    descriptor = os.open(flash, os.O_RDWR)
    os.write(descriptor, b"promised")
    os.fsync(descriptor)
    for pid in mount.servers():
        os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: mount.servers() == [], END_SECONDS)
    with contextlib.suppress(OSError):  # nobody answers any more
        os.close(descriptor)
    mount.unmount()
    # A process that is killed lets go of the store a moment after it is no longer listed.
    assert eventually(
        lambda: json.loads(fwfs("status", "--json").stdout)["mount"] is None, END_SECONDS)
    assert (mount() / "split" / "vars").read_bytes()[:8] == b"promised"


@pytest.mark.usefixtures("guests")
def test_several_processes_see_each_others_writes(mount: Mounter) -> None:
    flash = mount() / "split" / "vars"
    with flash.open("rb", buffering=0) as reader:
        for number in range(50):
            text = f"{number:04}".encode()
            subprocess.run(["dd", f"of={flash}", "conv=notrunc", "status=none"], input=text,
                           check=True)
            assert os.pread(reader.fileno(), 4, 0) == text


@pytest.mark.usefixtures("guests")
def test_adding_guests_does_not_wait_for_writers(fwfs: Fwfs, mount: Mounter) -> None:
    """Both work on the store at once, and neither is refused."""
    flash = mount() / "split" / "vars"
    with subprocess.Popen([sys.executable, "-c", ENDLESS_WRITER, flash]) as writer:
        try:
            for number in range(20):
                fwfs("guest", "add", "--firmware", "fs", f"more{number}")
            assert writer.poll() is None, "a write was refused"
        finally:
            writer.kill()
