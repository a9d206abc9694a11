"""What a guest sees in its directory: the right bytes, the right attributes, the right refusals."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import time
from pathlib import Path

import pytest

from support.firmware_json import violations
from support.mounting import Mounter
from support.ovmf import DESCRIPTORS, OVMF_CODE, OVMF_COMBINED, OVMF_DIRECTORY, OVMF_VARS
from support.program import Fwfs
from support.refusal import refusal
from support.waiting import eventually

GENERATED = ["firmware.json", "guest.json"]
VIEWS = {
    "split": ["code", *GENERATED, "vars"],
    "combined": ["code", *GENERATED],
    "stateless": ["code", *GENERATED],
}
# What can be told of the kernel's clock, which moves in steps of a tick.
TICK_NS = 20_000_000


@pytest.fixture
def fw(fwfs: Fwfs, mount: Mounter) -> Path:
    """A guest of each mode, named by it."""
    fwfs("firmware", "add", "fs", "--executable", OVMF_CODE, "--nvram-template", OVMF_VARS)
    fwfs("firmware", "add", "fc", "--mode", "combined", "--executable", OVMF_COMBINED)
    fwfs("firmware", "add", "fl", "--mode", "stateless", "--executable", OVMF_COMBINED)
    fwfs("guest", "add", "--firmware", "fs", "split")
    fwfs("guest", "add", "--firmware", "fc", "combined")
    fwfs("guest", "add", "--firmware", "fl", "stateless")
    return mount()


def open_and_close(path: Path, flags: int) -> None:
    os.close(os.open(path, flags, 0o600))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ---- What is there ----


@pytest.mark.parametrize("mode", VIEWS)
def test_listing(fw: Path, mode: str) -> None:
    assert sorted(os.listdir(fw / mode)) == VIEWS[mode]
    entries = {entry.name: entry for entry in os.scandir(fw / mode)}
    assert all(entry.is_file(follow_symlinks=False) for entry in entries.values())
    for name, entry in entries.items():
        assert entry.inode() == (fw / mode / name).stat().st_ino
    assert refusal(lambda: os.stat(fw / mode / "nothing")) == "ENOENT"


def test_guests_are_the_directories(fw: Path) -> None:
    assert sorted(os.listdir(fw)) == sorted(VIEWS)
    assert all((fw / mode).is_dir() for mode in VIEWS)
    assert refusal(lambda: os.stat(fw / "nobody")) == "ENOENT"
    assert refusal(lambda: os.stat(fw / ("x" * 256))) == "ENAMETOOLONG"


def test_what_the_command_line_changes_shows(fwfs: Fwfs, fw: Path) -> None:
    fwfs("guest", "add", "--firmware", "fs", "late")
    assert (fw / "late" / "vars").read_bytes() == OVMF_VARS.read_bytes()
    fwfs("guest", "rename", "late", "later")
    assert eventually(lambda: not (fw / "late").exists())
    assert (fw / "later" / "vars").read_bytes() == OVMF_VARS.read_bytes()
    fwfs("guest", "rm", "later")
    assert eventually(lambda: not (fw / "later").exists())
    assert sorted(os.listdir(fw)) == sorted(VIEWS)


def test_a_guest_of_the_same_name_is_another(fwfs: Fwfs, fw: Path) -> None:
    with (fw / "split" / "vars").open("r+b") as file:
        file.write(b"old")
    old = (fw / "split" / "vars").stat().st_ino
    fwfs("guest", "rm", "split")
    fwfs("guest", "add", "--firmware", "fs", "split")
    assert eventually(lambda: (fw / "split" / "vars").exists()
                      and (fw / "split" / "vars").stat().st_ino != old)
    assert (fw / "split" / "vars").read_bytes() == OVMF_VARS.read_bytes()


def test_names_in_any_script(fwfs: Fwfs, fw: Path) -> None:
    names = ["vm 1", "süßes-ÄÖ", "仮想機械", "a" * 255, "ü" * 127, "-".join("xyz")]
    fwfs("guest", "add", "--firmware", "fs", *names)
    assert set(names) <= set(os.listdir(fw))
    for name in names:
        assert (fw / name / "vars").stat().st_size == OVMF_VARS.stat().st_size


# ---- Bytes ----


def family(image: Path) -> str:
    return "4M" if "_4M" in image.name else "2M"


def test_every_image_of_the_distribution(fwfs: Fwfs, mount: Mounter) -> None:
    images = {path.resolve() for path in OVMF_DIRECTORY.glob("*.fd")} | {OVMF_COMBINED}
    codes = sorted(image for image in images if "_CODE" in image.name)
    templates = sorted(image for image in images if "_VARS" in image.name)
    assert len(codes) >= 4 and len(templates) >= 5
    expected: dict[str, Path] = {}
    for code in codes:
        for template in templates:
            if family(code) != family(template):
                continue
            name = f"{code.stem}+{template.stem}"
            fwfs("firmware", "add", name, "--executable", code, "--nvram-template", template)
            fwfs("guest", "add", "--firmware", name, name)
            expected |= {f"{name}/code": code, f"{name}/vars": template}
    for mode in ("combined", "stateless"):
        fwfs("firmware", "add", mode, "--mode", mode, "--executable", OVMF_COMBINED)
        fwfs("guest", "add", "--firmware", mode, mode)
        expected[f"{mode}/code"] = OVMF_COMBINED
    assert set(expected.values()) == images

    fw = mount()
    digests = {image: sha256(image) for image in images}
    wrong = {path for path, image in expected.items() if sha256(fw / path) != digests[image]}
    assert not wrong
    for name in {path.split("/")[0] for path in expected}:
        shown = json.loads((fw / name / "guest.json").read_text())
        assert shown["code"]["image_sha256"] == digests[expected[f"{name}/code"]]


def test_every_image_of_the_distributions_descriptors(fwfs: Fwfs, mount: Mounter) -> None:
    """Also Arm's, of 64 MiB, most of it fill."""
    fwfs("firmware", "import")
    images: dict[str, list[Path]] = {}
    for path in sorted(DESCRIPTORS.glob("*.json")):
        mapping = json.loads(path.read_text())["mapping"]
        files = [Path(mapping[member]["filename"]) for member in ("executable", "nvram-template")]
        if all(file.exists() for file in files):  # Debian's do not all
            images[path.stem] = files
    assert any("aarch64" in name for name in images) and any("x86_64" in name for name in images)
    for name in images:
        fwfs("guest", "add", "--firmware", name, name)
    fw = mount()
    for name, (code, template) in images.items():
        assert sha256(fw / name / "code") == sha256(code)
        assert sha256(fw / name / "vars") == sha256(template)


# ---- Attributes ----


def test_shared_code_is_roots_and_read_only(fw: Path) -> None:
    for mode in ("split", "stateless"):
        status = (fw / mode / "code").stat()
        assert stat.S_IMODE(status.st_mode) == 0o444
        assert (status.st_uid, status.st_gid) == (0, 0)
    assert (fw / "split" / "code").stat().st_size == OVMF_CODE.stat().st_size
    assert (fw / "combined" / "code").stat().st_size == OVMF_COMBINED.stat().st_size


def test_attributes_are_kept(fw: Path, mount: Mounter) -> None:
    for flash in ("split/vars", "combined/code"):
        os.chown(fw / flash, 4711, 4712)
        os.chmod(fw / flash, 0o640)
        os.utime(fw / flash, ns=(1_000_000_000_123_456_789, 1_600_000_000_987_654_321))
    fw = mount.remount()
    for flash in ("split/vars", "combined/code"):
        status = (fw / flash).stat()
        assert (status.st_uid, status.st_gid) == (4711, 4712)
        assert stat.S_IMODE(status.st_mode) == 0o640
        assert status.st_atime_ns == 1_000_000_000_123_456_789
        assert status.st_mtime_ns == 1_600_000_000_987_654_321


def test_one_of_owner_and_group_alone(fw: Path) -> None:
    flash = fw / "split" / "vars"
    os.chown(flash, 4711, 4712)
    os.chown(flash, -1, 1)
    assert (flash.stat().st_uid, flash.stat().st_gid) == (4711, 1)
    os.chown(flash, 2, -1)
    assert (flash.stat().st_uid, flash.stat().st_gid) == (2, 1)


def test_a_write_sets_the_times(fw: Path) -> None:
    flash = fw / "split" / "vars"
    os.utime(flash, ns=(1, 1))
    before = time.time_ns()
    with flash.open("r+b", buffering=0) as file:
        file.write(b"x")
        written = os.fstat(file.fileno())
    after = time.time_ns()
    for moment in (written.st_mtime_ns, written.st_ctime_ns, flash.stat().st_mtime_ns):
        assert before - TICK_NS <= moment <= after + TICK_NS


def test_a_change_of_attributes_sets_ctime_alone(fw: Path) -> None:
    flash = fw / "split" / "vars"
    os.utime(flash, ns=(1, 1))
    before = time.time_ns()
    flash.chmod(0o640)
    assert flash.stat().st_ctime_ns >= before - TICK_NS
    assert flash.stat().st_mtime_ns == 1


# ---- Refusals ----


READ_ONLY = [("split", "code"), ("stateless", "code")]


@pytest.mark.parametrize(("mode", "file"), READ_ONLY)
def test_shared_code_cannot_be_changed(fw: Path, mode: str, file: str) -> None:
    path = fw / mode / file
    before = sha256(path)
    status = path.stat()
    refused = {
        "open for reading and writing": lambda: open_and_close(path, os.O_RDWR),
        "open for writing": lambda: open_and_close(path, os.O_WRONLY),
        "open to append": lambda: open_and_close(path, os.O_WRONLY | os.O_APPEND),
        "open and truncate": lambda: open_and_close(path, os.O_WRONLY | os.O_TRUNC),
        "truncate": lambda: os.truncate(path, 0),
        "chmod": lambda: os.chmod(path, 0o644),
        "chown": lambda: os.chown(path, 1, 1),
        "utime": lambda: os.utime(path, ns=(1, 1)),
        "user xattr": lambda: os.setxattr(path, "user.a", b"b"),
        "trusted xattr": lambda: os.setxattr(path, "trusted.a", b"b"),
        "security xattr": lambda: os.setxattr(path, "security.a", b"b"),
    }
    assert {what: refusal(action) for what, action in refused.items()} == dict.fromkeys(
        refused, "EROFS")
    assert refusal(lambda: os.unlink(path)) == "EPERM"
    assert sha256(path) == before
    assert path.stat() == status


@pytest.mark.parametrize("mode", ["combined", "stateless"])
def test_absent_variables_cannot_be_made(fw: Path, mode: str) -> None:
    path = fw / mode / "vars"
    assert not path.exists()
    assert refusal(lambda: open_and_close(path, os.O_CREAT | os.O_RDWR)) == "EROFS"
    done = subprocess.run(["touch", path], capture_output=True, text=True, check=False,
                          env={**os.environ, "LC_ALL": "C"})
    assert done.returncode != 0 and "Read-only file system" in done.stderr
    assert sorted(os.listdir(fw / mode)) == VIEWS[mode]


@pytest.mark.parametrize("mode", VIEWS)
def test_nothing_else_can_be_made(fw: Path, mode: str) -> None:
    guest, new = fw / mode, fw / mode / "new"
    attempts = {
        "link": lambda: os.link(guest / "code", new),
        "symlink": lambda: os.symlink("code", new),
        "fifo": lambda: os.mkfifo(new),
        "device": lambda: os.mknod(new, stat.S_IFCHR | 0o600, os.makedev(1, 3)),
        "directory": lambda: os.mkdir(new),
        "unlink code": lambda: os.unlink(guest / "code"),
        **{f"unlink {name}": lambda name=name: os.unlink(guest / name) for name in GENERATED},
        "create beside guests": lambda: open_and_close(fw / "new", os.O_CREAT | os.O_RDWR),
        "symlink beside guests": lambda: os.symlink("split", fw / "new"),
        "fifo beside guests": lambda: os.mkfifo(fw / "new"),
    }
    assert {what: refusal(action) for what, action in attempts.items()} == dict.fromkeys(
        attempts, "EPERM")
    if mode != "split":  # which lets one make staging files
        assert refusal(lambda: open_and_close(new, os.O_CREAT | os.O_RDWR)) == "EPERM"
    assert sorted(os.listdir(guest)) == VIEWS[mode]
    assert sorted(os.listdir(fw)) == sorted(VIEWS)


@pytest.mark.parametrize("name", GENERATED)
def test_generated_files_cannot_be_changed(fw: Path, name: str) -> None:
    path = fw / "split" / name
    before = path.read_bytes()
    attempts = {
        "write": lambda: open_and_close(path, os.O_WRONLY),
        "truncate": lambda: os.truncate(path, 0),
        "chmod": lambda: os.chmod(path, 0o666),
        "chown": lambda: os.chown(path, 1, 1),
    }
    assert {what: refusal(action) for what, action in attempts.items()} == dict.fromkeys(
        attempts, "EROFS")
    assert path.read_bytes() == before


@pytest.mark.parametrize("flash", ["split/vars", "combined/code"])
def test_a_flash_does_not_grow(fw: Path, flash: str) -> None:
    path = fw / flash
    size = path.stat().st_size
    before = path.read_bytes()

    def write(offset: int, data: bytes) -> None:
        """All of it, as far as it goes; that it does not may come at the write, or later."""
        descriptor = os.open(path, os.O_RDWR)
        try:
            while data:
                written = os.pwrite(descriptor, data, offset)
                offset, data = offset + written, data[written:]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    assert refusal(lambda: write(size, b"x")) == "EFBIG"
    assert refusal(lambda: write(size + 1_000_000, b"x" * 5000)) == "EFBIG"
    assert path.stat().st_size == size
    assert path.read_bytes() == before
    assert refusal(lambda: write(size - 100, b"x" * 5000)) == "EFBIG"
    assert path.stat().st_size == size
    assert path.read_bytes()[:-100] == before[:-100]
    write(size - 100, b"x" * 100)
    assert path.read_bytes() == before[:-100] + b"x" * 100


@pytest.mark.parametrize("how", [["--length", "4096"], ["--length", "4096", "--punch-hole"]])
def test_a_flash_is_not_allocated_or_punched(fw: Path, how: list[str]) -> None:
    path = fw / "split" / "vars"
    done = subprocess.run(["fallocate", *how, path], capture_output=True, text=True, check=False,
                          env={**os.environ, "LC_ALL": "C"})
    assert done.returncode != 0 and "supported" in done.stderr
    assert path.read_bytes() == OVMF_VARS.read_bytes()


# ---- Generated files ----


@pytest.mark.parametrize("mode", VIEWS)
def test_firmware_json_names_this_guests_files(fw: Path, mode: str) -> None:
    document = json.loads((fw / mode / "firmware.json").read_text())
    assert violations(document) == []
    mapping = document["mapping"]
    assert mapping.get("mode", "split") == mode
    assert mapping["executable"] == {"filename": str(fw / mode / "code"), "format": "raw"}
    if mode == "split":
        assert mapping["nvram-template"] == {"filename": str(fw / mode / "vars"), "format": "raw"}


def test_firmware_json_keeps_what_the_descriptor_says(fwfs: Fwfs, mount: Mounter) -> None:
    name = "40-edk2-x86_64-secure-enrolled"
    fwfs("firmware", "import", DESCRIPTORS / f"{name}.json")
    fwfs("guest", "add", "--firmware", name, "web01")
    document = json.loads((mount() / "web01" / "firmware.json").read_text())
    original = json.loads((DESCRIPTORS / f"{name}.json").read_text())
    assert violations(document) == []
    assert document.pop("mapping") != original.pop("mapping")
    assert document == original


@pytest.mark.parametrize("mode", VIEWS)
def test_guest_json_is_what_show_prints(fwfs: Fwfs, fw: Path, mode: str) -> None:
    assert (fw / mode / "guest.json").read_text() == fwfs("guest", "show", mode, "--json").stdout


@pytest.mark.parametrize("flash", ["split/vars", "combined/code"])
def test_guest_json_tells_what_was_written(fwfs: Fwfs, fw: Path, flash: str) -> None:
    guest = fw / flash.split("/")[0]

    def delta() -> int:
        return json.loads((guest / "guest.json").read_text())["usage"]["delta_bytes"]

    original = (fw / flash).read_bytes()[:4096]
    assert delta() == 0
    with (fw / flash).open("r+b", buffering=0) as file:
        file.write(b"x")
        file.seek(5 * 4096 - 1)
        file.write(b"xy")
        assert eventually(lambda: delta() == 3 * 4096)
        file.seek(0)
        file.write(original)
        assert eventually(lambda: delta() == 2 * 4096)
    assert (guest / "guest.json").read_text() == fwfs("guest", "show", guest.name, "--json").stdout
