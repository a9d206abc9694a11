"""Names in the mount: guests made, renamed and removed, and what a guest's directory lets one make."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import stat
from pathlib import Path

import pytest

from support.mounting import Mounter
from support.ovmf import AAVMF_VARS, BLOCK, OVMF_CODE, OVMF_COMBINED, OVMF_VARS
from support.program import Fwfs
from support.refusal import refusal
from support.tenant import Tenant, names
from support.waiting import eventually

TEMPLATE = OVMF_VARS.read_bytes()
SIZE = len(TEMPLATE)
# As large as the template, and another.
OTHER = bytes(reversed(TEMPLATE))
FILES = ["code", "firmware.json", "guest.json", "vars"]
TENANT = Tenant(12345, 23456)
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
AT_FDCWD = -100


@pytest.fixture
def firmware(fwfs: Fwfs) -> None:
    fwfs("firmware", "add", "split", "--executable", OVMF_CODE, "--nvram-template", OVMF_VARS)
    fwfs("firmware", "add", "combined", "--mode", "combined", "--executable", OVMF_COMBINED)
    fwfs("firmware", "add", "stateless", "--mode", "stateless", "--executable", OVMF_CODE)
    for mode in ("split", "combined", "stateless"):
        fwfs("guest", "add", "--firmware", mode, mode)


@pytest.fixture
def fw(mount: Mounter, firmware: None) -> Path:
    return mount("-o", "firmware=split")


@pytest.fixture
def guest(fw: Path) -> Path:
    return fw / "split"


def renameat2(old: Path, new: Path, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags) < 0:
        raise OSError(ctypes.get_errno(), "renameat2")


def guests(fwfs: Fwfs) -> list[str]:
    listed = json.loads(fwfs("guest", "list", "--json").stdout)
    return [guest["guest"] for guest in listed["guests"]]


# ---- Guests ----

def test_mkdir_makes_a_guest(fw: Path, fwfs: Fwfs) -> None:
    (fw / "web01").mkdir()
    assert sorted(os.listdir(fw / "web01")) == FILES
    assert (fw / "web01" / "vars").read_bytes() == TEMPLATE
    shown = json.loads(fwfs("guest", "show", "web01", "--json").stdout)
    assert (shown["firmware"], shown["owner"]["uid"]) == ("split", os.getuid())


def test_mkdir_makes_it_for_the_owner_that_the_mount_names(mount: Mounter, firmware: None) -> None:
    fw = mount("-o", f"firmware=combined,owner={TENANT.uid}:{TENANT.gid}")
    (fw / "web01").mkdir()
    status = (fw / "web01" / "code").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (12345, 23456, 0o600)
    assert TENANT.attempt(fw / "web01", lambda: Path("code").read_bytes()) == 0


@pytest.mark.parametrize(("name", "why"), [
    (".hidden", "EINVAL"), ("-n", "EINVAL"), ("new\nline", "EINVAL"), (b"\xff", "EINVAL"),
    ("x" * 256, "ENAMETOOLONG"), ("split", "EEXIST")])
def test_names_that_no_new_guest_can_have(fw: Path, fwfs: Fwfs, name: str | bytes,
                                          why: str) -> None:
    before = guests(fwfs)
    assert refusal(lambda: os.mkdir(os.path.join(os.fsencode(fw), os.fsencode(name)))) == why
    assert guests(fwfs) == before


def test_without_firmware_mkdir_makes_nothing(mount: Mounter, firmware: None, fwfs: Fwfs) -> None:
    fw = mount()
    assert refusal(lambda: (fw / "web01").mkdir()) == "EPERM"
    assert "web01" not in guests(fwfs)


@pytest.mark.parametrize(("options", "code", "said"), [
    ("firmware=none", 3, "none"), ("firmware=-x", 2, "-x"), ("owner=nobody:", 2, "USER[:GROUP]"),
    ("owner=no-such-user", 3, "no-such-user")])
def test_options_that_name_nothing(fwfs: Fwfs, tmp_path: Path, options: str, code: int,
                                   said: str) -> None:
    (tmp_path / "fw").mkdir()
    done = fwfs("mount", tmp_path / "fw", "-o", options, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1)
    assert said in done.stderr
    assert not (tmp_path / "fw").is_mount()


def test_rmdir_removes_a_guest(fw: Path, fwfs: Fwfs) -> None:
    (fw / "split").rmdir()
    assert "split" not in guests(fwfs)
    assert refusal(lambda: os.listdir(fw / "split")) == "ENOENT"
    assert refusal(lambda: (fw / "split").rmdir()) == "ENOENT"
    assert refusal(lambda: (fw / "combined" / "code").rmdir()) == "ENOTDIR"


def test_rename_renames_a_guest(fw: Path, fwfs: Fwfs) -> None:
    with (fw / "split" / "vars").open("r+b", buffering=0) as vars_:
        vars_.write(b"before")
        (fw / "split").rename(fw / "web01")
        vars_.write(b" after")
    assert (fw / "web01" / "vars").read_bytes()[:12] == b"before after"
    assert sorted(guests(fwfs)) == ["combined", "stateless", "web01"]
    assert str(fw / "web01" / "vars") in (fw / "web01" / "firmware.json").read_text()


def test_a_guest_cannot_take_the_place_of_another(fw: Path, fwfs: Fwfs) -> None:
    before = guests(fwfs)
    refused = {
        "over another": lambda: os.rename(fw / "split", fw / "combined"),
        "over another, not replacing": lambda: renameat2(fw / "split", fw / "combined",
                                                         RENAME_NOREPLACE),
    }
    assert {what: refusal(action) for what, action in refused.items()} == dict.fromkeys(
        refused, "EEXIST")
    assert refusal(lambda: renameat2(fw / "split", fw / "combined", RENAME_EXCHANGE)) == "EINVAL"
    assert refusal(lambda: os.rename(fw / "none", fw / "new")) == "ENOENT"
    assert refusal(lambda: os.rename(fw / "split", fw / ".hidden")) == "EINVAL"
    assert refusal(lambda: os.rename(fw / "split", fw / "combined" / "split")) == "EPERM"
    assert refusal(lambda: os.rename(fw / "split" / "vars", fw / "vars")) == "EPERM"
    assert guests(fwfs) == before


# ---- vars ----

def test_vars_begins_anew_when_it_was_unlinked(guest: Path) -> None:
    path = guest / "vars"
    path.write_bytes(OTHER)
    number = path.stat().st_ino
    os.setxattr(path, "user.x", b"1")
    path.unlink()
    assert not path.exists() and sorted(os.listdir(guest)) == FILES[:3]
    assert refusal(path.unlink) == "ENOENT"
    assert refusal(path.read_bytes) == "ENOENT"
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_EXCL, 0o640))
    assert path.read_bytes() == TEMPLATE
    assert path.stat().st_ino != number
    assert os.listxattr(path) == []
    assert refusal(lambda: os.open(path, os.O_CREAT | os.O_RDWR | os.O_EXCL)) == "EEXIST"


def test_the_guest_stays_its_owners_without_vars(guest: Path) -> None:
    os.chown(guest / "vars", TENANT.uid, TENANT.gid)
    (guest / "vars").unlink()
    status = guest.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (12345, 23456, 0o700)
    (guest / "vars").touch(0o666)  # by root, and open to all
    status = (guest / "vars").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (12345, 23456, 0o600)


def test_a_reader_goes_on_with_what_it_opened(guest: Path, fwfs: Fwfs) -> None:
    def private_blocks() -> int:
        return json.loads(fwfs("status", "--json").stdout)["private_block_count"]

    path = guest / "vars"
    path.write_bytes(OTHER)
    before = private_blocks()
    with path.open("rb", buffering=0) as reader:
        path.unlink()
        path.touch()
        os.posix_fadvise(reader.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert reader.read() == OTHER
        assert path.read_bytes() == TEMPLATE
        assert private_blocks() == 2 * before
    # A restore point keeps it, and nothing else does.
    assert eventually(lambda: private_blocks() == before, 10), "what nobody has open is kept"


@pytest.mark.parametrize("size", [0, SIZE])
def test_truncation(guest: Path, size: int) -> None:
    path = guest / "vars"
    path.write_bytes(OTHER)
    os.truncate(path, size)
    assert path.read_bytes() == (OTHER if size else b"\xff" * SIZE)


@pytest.mark.parametrize("size", [1, SIZE - 1, SIZE + 1, 1 << 40])
def test_wrong_truncation(guest: Path, size: int) -> None:
    assert refusal(lambda: os.truncate(guest / "vars", size)) == "EINVAL"
    assert (guest / "vars").read_bytes() == TEMPLATE


def test_a_new_flash_is_copied_over(guest: Path) -> None:
    with (guest / "vars").open("wb") as vars_:
        vars_.write(OTHER)
    assert (guest / "vars").read_bytes() == OTHER


# ---- Staging files ----

def test_a_staging_file_takes_the_place_of_vars(guest: Path, mount: Mounter) -> None:
    new = guest / "vars.new"
    new.write_bytes(OTHER)
    number = new.stat().st_ino
    os.setxattr(new, "user.x", b"1")
    assert sorted(os.listdir(guest)) == [*FILES, "vars.new"]
    new.rename(guest / "vars")
    assert sorted(os.listdir(guest)) == FILES
    assert (guest / "vars").stat().st_ino == number
    assert os.getxattr(guest / "vars", "user.x") == b"1"
    assert (guest / "vars").read_bytes() == OTHER
    mount.remount()
    assert (guest / "vars").read_bytes() == OTHER


def test_a_staged_template_costs_nothing(guest: Path, fwfs: Fwfs) -> None:
    (guest / "vars").write_bytes(OTHER)
    (guest / "new").write_bytes(TEMPLATE)
    (guest / "new").rename(guest / "vars")
    assert json.loads((guest / "guest.json").read_text())["usage"]["delta_bytes"] == 0
    assert (guest / "vars").read_bytes() == TEMPLATE


def test_a_sparse_staging_file_is_zeros(guest: Path) -> None:
    with (guest / "new").open("wb") as new:
        os.pwrite(new.fileno(), b"end", SIZE - 3)
    expected = bytes(SIZE - 3) + b"end"
    assert (guest / "new").read_bytes() == expected
    (guest / "new").rename(guest / "vars")
    assert (guest / "vars").read_bytes() == expected


def test_a_staging_file_is_a_file(guest: Path, mount: Mounter) -> None:
    new = guest / ".vars.Xy12Z"  # as rsync names them
    new.write_bytes(b"x" * 5000)
    assert new.stat().st_size == 5000
    os.truncate(new, 100)
    os.truncate(new, 6000)
    with new.open("ab") as appended:
        appended.write(b"tail")
    assert new.read_bytes() == b"x" * 100 + bytes(5900) + b"tail"
    new.rename(guest / "other")
    (guest / "third").write_bytes(b"third")
    (guest / "third").rename(guest / "other")
    assert (guest / "other").read_bytes() == b"third"
    renamed = refusal(lambda: renameat2(guest / "other", guest / "vars", RENAME_NOREPLACE))
    assert renamed == "EEXIST"
    (guest / "other").unlink()
    assert sorted(os.listdir(guest)) == FILES


def test_of_the_wrong_size_it_does_not_become_vars(guest: Path) -> None:
    (guest / "new").write_bytes(OTHER[:-1])
    assert refusal(lambda: os.rename(guest / "new", guest / "vars")) == "EINVAL"
    assert (guest / "vars").read_bytes() == TEMPLATE
    assert (guest / "new").read_bytes() == OTHER[:-1]


def test_it_is_no_larger_than_vars(guest: Path) -> None:
    def write_more() -> None:
        with (guest / "new").open("wb", buffering=0) as new:
            new.write(bytes([1]) * (SIZE + 1))
            os.fsync(new.fileno())

    assert refusal(write_more) == "EFBIG"
    assert refusal(lambda: os.truncate(guest / "new", SIZE + 1)) == "EFBIG"
    os.truncate(guest / "new", SIZE)


def test_there_are_four_at_most_and_none_after_the_mount(guest: Path, mount: Mounter) -> None:
    for number in range(4):
        (guest / f"new{number}").write_bytes(OTHER)
    assert refusal((guest / "new4").touch) == "EDQUOT"
    (guest / "new0").rename(guest / "vars")
    (guest / "new4").touch()
    mount.remount()
    assert sorted(os.listdir(guest)) == FILES
    assert (guest / "vars").read_bytes() == OTHER


def test_who_wrote_it_goes_on_writing(guest: Path) -> None:
    with (guest / "new").open("wb", buffering=0) as new:
        new.write(OTHER)
        os.fsync(new.fileno())
        (guest / "new").rename(guest / "vars")
        os.pwrite(new.fileno(), b"later", 0)
    assert (guest / "vars").read_bytes() == b"later" + OTHER[5:]


@pytest.mark.parametrize("name", ["code", "firmware.json", "guest.json", "efivars"])
def test_names_of_the_view_are_not_for_staging(guest: Path, name: str) -> None:
    (guest / "new").write_bytes(OTHER)
    attempts = {
        "over": lambda: os.rename(guest / "new", guest / name),
        "away": lambda: os.rename(guest / name, guest / "other"),
        "unlink": lambda: os.unlink(guest / name),
    }
    missing = {"away": "ENOENT", "unlink": "ENOENT"} if not (guest / name).exists() else {}
    assert {what: refusal(action) for what, action in attempts.items()} == {
        **dict.fromkeys(attempts, "EPERM"), **missing}
    assert sorted(os.listdir(guest)) == [*FILES[:3], "new", "vars"]


def test_between_guests_it_is_copied(fw: Path, guest: Path) -> None:
    (fw / "web01").mkdir()
    (guest / "new").write_bytes(OTHER)
    assert refusal(lambda: os.rename(guest / "new", fw / "web01" / "vars")) == "EXDEV"
    assert refusal(lambda: os.rename(guest / "vars", fw / "web01" / "vars")) == "EPERM"


@pytest.mark.parametrize("mode", ["combined", "stateless"])
def test_other_modes_have_none(fw: Path, mode: str) -> None:
    assert refusal((fw / mode / "new").touch) == "EPERM"
    assert refusal((fw / mode / "vars").touch) == "EROFS"


def test_a_tenant_replaces_its_own(fw: Path, guest: Path) -> None:
    os.chown(guest / "vars", TENANT.uid, TENANT.gid)

    def replace() -> None:
        Path("vars.new").write_bytes(OTHER)
        os.rename("vars.new", "vars")

    assert names([TENANT.attempt(guest, replace)]) == ["0"]
    assert (guest / "vars").read_bytes() == OTHER
    assert (guest / "vars").stat().st_uid == TENANT.uid
    refused = [lambda: os.mkdir("../web01"), lambda: os.rmdir("../split"),
               lambda: os.rename("../split", "../web01")]
    assert names(TENANT.attempt(guest, action) for action in refused) == ["EACCES"] * 3


# ---- Holes ----

@pytest.mark.parametrize("data", [
    [], [0], [3], [1, 2, 7], [*range(16)]])
def test_holes_are_exact(guest: Path, data: list[int]) -> None:
    blocks = [b"\0" * BLOCK] * (SIZE // BLOCK)
    for index in data:
        # Erased flash is data too.
        blocks[index] = (b"\xff" if index % 2 else b"\x5a") * BLOCK
    (guest / "vars").write_bytes(b"".join(blocks))
    with (guest / "vars").open("rb") as vars_:
        fd = vars_.fileno()
        # As long as the writer has not been seen to go, all is data.
        assert eventually(lambda: os.lseek(fd, 0, os.SEEK_HOLE) < SIZE or len(data) == len(blocks))
        for index in range(len(blocks)):
            later = [other for other in data if other >= index]
            holes = [other for other in range(index, len(blocks)) if other not in data]
            offset = index * BLOCK + 7
            wanted = max(offset, later[0] * BLOCK) if later else None
            found = None
            try:
                found = os.lseek(fd, offset, os.SEEK_DATA)
            except OSError as error:
                assert error.errno == errno.ENXIO
            assert found == wanted
            hole = max(offset, holes[0] * BLOCK) if holes else SIZE
            assert os.lseek(fd, offset, os.SEEK_HOLE) == hole
        assert refusal(lambda: os.lseek(fd, SIZE, os.SEEK_DATA)) == "ENXIO"


def test_what_is_being_written_is_no_hole(fwfs: Fwfs, mount: Mounter) -> None:
    """Also before the kernel has written it back."""
    fwfs("firmware", "add", "aavmf", "--executable", AAVMF_VARS, "--nvram-template", AAVMF_VARS)
    fwfs("guest", "add", "--firmware", "aavmf", "arm")
    path = mount() / "arm" / "vars"
    with path.open("r+b", buffering=0) as vars_:
        os.pwrite(vars_.fileno(), b"x", 5 * BLOCK)
        with path.open("rb") as reader:
            assert os.lseek(reader.fileno(), 0, os.SEEK_DATA) <= 5 * BLOCK
    with path.open("rb") as reader:
        assert eventually(lambda: os.lseek(reader.fileno(), BLOCK, os.SEEK_DATA) == 5 * BLOCK)
        assert os.lseek(reader.fileno(), 5 * BLOCK, os.SEEK_HOLE) == 6 * BLOCK
