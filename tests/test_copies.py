"""What copies, archives and measures files gets a flash right: bytes, holes, sizes."""

from __future__ import annotations

import errno
import filecmp
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.mounting import Mounter
from support.ovmf import BLOCK, OVMF_CODE, OVMF_VARS
from support.program import Fwfs
from support.waiting import eventually

# Package qemu-efi-aarch64: 64 MiB, nearly all of it zeros.
AAVMF_VARS = Path("/usr/share/AAVMF/AAVMF_VARS.fd")
TEMPLATES = {"x86": OVMF_VARS, "arm": AAVMF_VARS}
TOOL_SECONDS = 120
LEAST_SECTORS = 8
SECTOR = 512


@pytest.fixture(scope="session")
def fwfs_bin(release_bin: Path) -> Path:
    return release_bin


@pytest.fixture
def fw(fwfs: Fwfs, mount: Mounter) -> Path:
    """A split guest of each template, and a stateless one of AAVMF's variables as its code."""
    for name, template in TEMPLATES.items():
        fwfs("firmware", "add", name, "--executable", OVMF_CODE, "--nvram-template", template)
        fwfs("guest", "add", "--firmware", name, name)
    fwfs("firmware", "add", "sparse", "--mode", "stateless", "--executable", AAVMF_VARS)
    fwfs("guest", "add", "--firmware", "sparse", "sparse")
    return mount()


def run(*command: str | Path) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False,
                          timeout=TOOL_SECONDS, env={**os.environ, "LC_ALL": "C"})
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


# ---- Copies ----


def through_tar(flash: Path, copy: Path) -> None:
    archive = copy.with_suffix(".tar")
    run("tar", "-C", flash.parent, "-S", "-cf", archive, flash.name)
    run("tar", "-C", flash.parent, "-df", archive)
    run("tar", "-C", copy.parent, "-xf", archive)
    copy.with_name(flash.name).rename(copy)
    archive.unlink()


def through_pax(flash: Path, copy: Path) -> None:
    """As a backup that keeps extended attributes does."""
    archive = copy.with_suffix(".tar")
    run("tar", "-C", flash.parent, "-S", "--format=posix", "--xattrs", "-cf", archive, flash.name)
    with tarfile.open(archive) as members:
        assert [member.size for member in members.getmembers()] == [flash.stat().st_size]
    run("tar", "-C", copy.parent, "-xf", archive)
    copy.with_name(flash.name).rename(copy)
    archive.unlink()


def through_qemu_img(flash: Path, copy: Path) -> None:
    run("qemu-img", "convert", "-U", "-f", "raw", "-O", "raw", flash, copy)
    said = run("qemu-img", "compare", "-U", "-f", "raw", "-F", "raw", flash, copy)
    assert "Images are identical" in said


COPIES: dict[str, Callable[[Path, Path], object]] = {
    "cp": lambda flash, copy: run("cp", flash, copy),
    "cp --sparse=always": lambda flash, copy: run("cp", "--sparse=always", flash, copy),
    "cp --sparse=never": lambda flash, copy: run("cp", "--sparse=never", flash, copy),
    "cp --reflink": lambda flash, copy: run("cp", "--reflink=auto", "--preserve", flash, copy),
    "rsync": lambda flash, copy: run("rsync", "--archive", flash, copy),
    "rsync --sparse": lambda flash, copy: run("rsync", "--sparse", "--checksum", flash, copy),
    "tar -S": through_tar,
    "tar --format=posix": through_pax,
    "qemu-img": through_qemu_img,
    "dd conv=sparse": lambda flash, copy: run(
        "dd", f"if={flash}", f"of={copy}", "bs=64K", "conv=sparse", "status=none"),
    "sendfile": lambda flash, copy: shutil.copyfile(flash, copy),
}


def written(template: Path) -> dict[int, bytes]:
    """Where a guest writes what: data and each fill, whole blocks and pieces, the first byte and
    the last, in what was a hole and in what was none."""
    size = template.stat().st_size
    middle = size // 2 // BLOCK * BLOCK
    return {
        0: b"first",
        3 * BLOCK: bytes(2 * BLOCK),
        8 * BLOCK: b"\xff" * (2 * BLOCK),
        middle - 100: b"over the edge of a block" * 20,
        middle + 5 * BLOCK: os.urandom(3 * BLOCK),
        size - 1: b"\x5a",
    }


def expected_bytes(template: Path, pieces: dict[int, bytes]) -> bytes:
    contents = bytearray(template.read_bytes())
    for offset, piece in pieces.items():
        contents[offset:offset + len(piece)] = piece
    return bytes(contents)


@pytest.fixture
def check_copies(tmp_path: Path) -> Iterator[Callable[[Path, bytes], None]]:
    """check_copies(flash, contents) copies the flash by all means and compares."""
    directory = tmp_path / "copies"
    directory.mkdir()

    def check(flash: Path, contents: bytes) -> None:
        reference, copy = directory / "reference", directory / "copy"
        reference.write_bytes(contents)
        wrong = []
        for name, make in COPIES.items():
            make(flash, copy)
            if not filecmp.cmp(copy, reference, shallow=False):
                wrong.append(name)
            copy.unlink()
        assert not wrong

    yield check
    shutil.rmtree(directory)


@pytest.mark.parametrize("name", TEMPLATES)
def test_copies(fw: Path, mount: Mounter, name: str,
                check_copies: Callable[[Path, bytes], None]) -> None:
    """Of what was just written, with its writer still there, then without, then after a restart."""
    flash, template = fw / name / "vars", TEMPLATES[name]
    check_copies(flash, template.read_bytes())
    pieces = written(template)
    contents = expected_bytes(template, pieces)
    writer = os.open(flash, os.O_RDWR)
    for offset, piece in pieces.items():
        assert os.pwrite(writer, piece, offset) == len(piece)
    check_copies(flash, contents)
    os.close(writer)
    check_copies(flash, contents)
    mount.remount()
    check_copies(flash, contents)


@pytest.mark.parametrize("copy", COPIES)
def test_copies_of_what_is_not_in_the_store_yet(fwfs: Fwfs, mount: Mounter, tmp_path: Path, fw: Path,
                                                copy: str) -> None:
    """Nothing pulls it there: a copier that asks where data is must be told of what is cached."""
    mount.unmount()
    mount("-o", "pull=3600")
    flash, template = fw / "arm" / "vars", AAVMF_VARS
    pieces = written(template)
    writer = os.open(flash, os.O_RDWR)
    try:
        for offset, piece in pieces.items():
            assert os.pwrite(writer, piece, offset) == len(piece)
        COPIES[copy](flash, tmp_path / "copy")
    finally:
        os.close(writer)
    assert (tmp_path / "copy").read_bytes() == expected_bytes(template, pieces)
    (tmp_path / "copy").unlink()


# ---- Holes ----


# Starts and ends of what is data.
Extents = list[tuple[int, int]]


def told_data(path: Path) -> Extents:
    """As SEEK_DATA and SEEK_HOLE tell it."""
    descriptor = os.open(path, os.O_RDONLY)
    found, at = [], 0
    try:
        while True:
            start = os.lseek(descriptor, at, os.SEEK_DATA)
            at = os.lseek(descriptor, start, os.SEEK_HOLE)
            assert at > start
            found.append((start, at))
    except OSError as error:
        assert error.errno == errno.ENXIO  # no more data
    finally:
        os.close(descriptor)
    return found


def data_of(contents: bytes) -> Extents:
    """Blocks with a byte that is not 0, those side by side as one."""
    found: Extents = []
    for offset in range(0, len(contents), BLOCK):
        block = contents[offset:offset + BLOCK]
        if block.count(0) == len(block):
            continue
        start = found.pop()[0] if found and found[-1][1] == offset else offset
        found.append((start, offset + len(block)))
    return found


@pytest.mark.parametrize("name", TEMPLATES)
def test_zeros_are_holes_and_nothing_else_is(fw: Path, mount: Mounter, name: str) -> None:
    flash, template = fw / name / "vars", TEMPLATES[name]
    assert told_data(flash) == data_of(template.read_bytes())
    pieces = written(template)
    contents = expected_bytes(template, pieces)
    with flash.open("r+b", buffering=0) as writer:
        for offset, piece in pieces.items():
            os.pwrite(writer.fileno(), piece, offset)
        holes = bytearray(contents)
        for start, end in told_data(flash):
            holes[start:end] = bytes(end - start)
        assert not any(holes), "a byte that was written is in a hole"
    assert flash.read_bytes() == contents
    wait_until_released(flash)
    assert told_data(flash) == data_of(contents)
    mount.remount()
    assert told_data(flash) == data_of(contents)


def wait_until_released(flash: Path) -> None:
    """While it may still be written to, all of it may be told to be data."""
    told = flash.parent / "guest.json"
    assert eventually(lambda: json.loads(told.read_text())["holder"] is None)


def test_shared_code_has_its_holes(fw: Path) -> None:
    assert told_data(fw / "sparse" / "code") == data_of(AAVMF_VARS.read_bytes())
    assert told_data(fw / "x86" / "code") == data_of(OVMF_CODE.read_bytes())


@pytest.mark.parametrize("file", ["x86/vars", "arm/vars", "x86/code", "sparse/code"])
def test_seeking_at_the_edges(fw: Path, file: str) -> None:
    path = fw / file
    contents = path.read_bytes()
    data, size = data_of(contents), len(contents)

    def seek(offset: int, whence: int) -> int | str:
        try:
            return os.lseek(descriptor, offset, whence)
        except OSError as error:
            return errno.errorcode[error.errno or 0]

    descriptor = os.open(path, os.O_RDONLY)
    try:
        for start, end in data[:5] + data[-5:]:
            assert seek(start, os.SEEK_DATA) == start
            assert seek(start + 1, os.SEEK_DATA) == start + 1
            assert seek(end - 1, os.SEEK_DATA) == end - 1
            assert seek(start, os.SEEK_HOLE) == seek(end - 1, os.SEEK_HOLE) == end
            if end < size:
                assert seek(end, os.SEEK_HOLE) == end
                assert seek(end + 1, os.SEEK_HOLE) == end + 1
        for whence in (os.SEEK_DATA, os.SEEK_HOLE):
            assert seek(size, whence) == seek(size + BLOCK, whence) == "ENXIO"
        if not data or data[-1][1] < size:
            assert seek(size - 1, os.SEEK_DATA) == "ENXIO"
        assert seek(0, os.SEEK_END) == size
    finally:
        os.close(descriptor)


# ---- Sizes ----


def du_bytes(path: Path) -> int:
    return int(run("du", "--block-size=1", path).split()[0])


@pytest.mark.parametrize("name", TEMPLATES)
def test_du_tells_what_differs(fwfs: Fwfs, fw: Path, mount: Mounter, name: str) -> None:
    flash, template = fw / name / "vars", TEMPLATES[name]
    assert flash.stat().st_blocks == LEAST_SECTORS
    pieces = written(template)
    with flash.open("r+b", buffering=0) as writer:
        for offset, piece in pieces.items():
            os.pwrite(writer.fileno(), piece, offset)
    before, after = template.read_bytes(), expected_bytes(template, pieces)
    differing = sum(before[at:at + BLOCK] != after[at:at + BLOCK]
                    for at in range(0, len(before), BLOCK))
    fw = mount.remount()
    usage = json.loads(fwfs("guest", "show", name, "--json").stdout)["usage"]
    assert usage["delta_bytes"] == differing * BLOCK > LEAST_SECTORS * SECTOR
    assert flash.stat().st_blocks * SECTOR == du_bytes(flash) == usage["delta_bytes"]
    assert int(run("du", "--apparent-size", "--block-size=1", flash).split()[0]) == len(after)
    assert flash.with_name("code").stat().st_blocks == LEAST_SECTORS


def test_df_tells_of_the_store(fwfs: Fwfs, fw: Path, store: Path) -> None:
    """Its size and its room, which is that of the disk that it is on."""
    disk, told = os.statvfs(store), os.statvfs(fw)
    room = disk.f_bavail * disk.f_frsize
    # Others use the disk too.
    assert abs(told.f_bavail * told.f_frsize - room) < 64 << 20
    used = (told.f_blocks - told.f_bfree) * told.f_frsize
    assert used <= json.loads(fwfs("status", "--json").stdout)["file_size_bytes"]
    lines = run("df", "--block-size=1", "--output=size,used,avail", fw).splitlines()
    size, used_by_df, available = map(int, lines[1].split())
    assert used_by_df == used and abs(available - room) < 64 << 20
    assert abs(size - told.f_blocks * told.f_frsize) < 64 << 20
