"""What is refused, and with which errno: to root, and to the user whose guest it is."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.mounting import Mounter
from support.ovmf import BLOCK, OVMF_CODE, OVMF_COMBINED, OVMF_VARS
from support.program import Fwfs
from support.store_file import edited
from support.tenant import Tenant

SIZE = OVMF_VARS.stat().st_size
ROOT = Tenant(0, 0)
OWNER = Tenant(12345, 23456)
MODES = ["split", "combined", "stateless"]


def write(path: str, data: bytes, offset: int = 0, flags: int = os.O_WRONLY) -> None:
    fd = os.open(path, flags, 0o600)
    try:
        os.pwrite(fd, data, offset)
        os.fsync(fd)
    finally:
        os.close(fd)


def touch(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))


@dataclass(frozen=True)
class Row:
    """Done in the mount's directory. What only root may try at all is EACCES or EPERM for others:
    that is the kernel's, which asks for permissions first."""

    action: Callable[[], object]
    errno: int
    of_owner: int | None = None

    def expected(self, actor: Tenant) -> int:
        return self.errno if actor is ROOT or self.of_owner is None else self.of_owner


ROWS = {
    # What the mode has read-only or not at all.
    "write shared code": Row(lambda: write("split/code", b"x"), errno.EROFS, errno.EACCES),
    "write stateless code": Row(lambda: write("stateless/code", b"x"), errno.EROFS, errno.EACCES),
    "truncate shared code": Row(lambda: os.truncate("split/code", 0), errno.EROFS, errno.EACCES),
    "chmod shared code": Row(lambda: os.chmod("split/code", 0o600), errno.EROFS, errno.EPERM),
    "chown shared code": Row(lambda: os.chown("split/code", 1, 1), errno.EROFS, errno.EPERM),
    "setxattr shared code": Row(lambda: os.setxattr("split/code", "user.x", b"1"), errno.EROFS,
                                errno.EACCES),
    "write firmware.json": Row(lambda: write("split/firmware.json", b"x"), errno.EROFS,
                               errno.EACCES),
    "create vars, combined": Row(lambda: touch("combined/vars"), errno.EROFS),
    "create vars, stateless": Row(lambda: touch("stateless/vars"), errno.EROFS),
    # Past the end.
    "write past the end": Row(lambda: write("split/vars", b"x" * BLOCK, SIZE - 1), errno.EFBIG),
    "append": Row(lambda: write("split/vars", b"x", flags=os.O_WRONLY | os.O_APPEND), errno.EFBIG),
    # A second writer, and what is open for writing: web01 is.
    "second writer": Row(lambda: write("held/vars", b"x"), errno.EBUSY),
    "truncate what is open": Row(lambda: os.truncate("held/vars", 0), errno.EBUSY),
    "unlink what is open": Row(lambda: os.unlink("held/vars"), errno.EBUSY),
    "rename over what is open": Row(lambda: os.rename("held/new", "held/vars"), errno.EBUSY),
    "rmdir of what is open": Row(lambda: os.rmdir("held"), errno.EBUSY, errno.EACCES),
    # As POSIX says.
    "mkdir of what is there": Row(lambda: os.mkdir("split"), errno.EEXIST),
    "rename over a guest": Row(lambda: os.rename("split", "combined"), errno.EEXIST, errno.EACCES),
    "mkdir below what is not there": Row(lambda: os.mkdir("none/x"), errno.ENOENT),
    "rmdir of what is not there": Row(lambda: os.rmdir("none"), errno.ENOENT),
    "rename of what is not there": Row(lambda: os.rename("none", "other"), errno.ENOENT),
    "read what is not there": Row(lambda: os.open("split/none", os.O_RDONLY), errno.ENOENT),
    "rmdir of a file": Row(lambda: os.rmdir("split/vars"), errno.ENOTDIR),
    "below a file": Row(lambda: os.stat("split/vars/x"), errno.ENOTDIR),
    # Names, and sizes.
    "hidden name": Row(lambda: os.mkdir(".web"), errno.EINVAL, errno.EACCES),
    "name like an option": Row(lambda: os.mkdir("-web"), errno.EINVAL, errno.EACCES),
    "control character": Row(lambda: os.mkdir("a\x01b"), errno.EINVAL, errno.EACCES),
    "not UTF-8": Row(lambda: os.mkdir(b"a\xff"), errno.EINVAL, errno.EACCES),
    "rename to such a name": Row(lambda: os.rename("split", ".web"), errno.EINVAL, errno.EACCES),
    "truncate to 1": Row(lambda: os.truncate("split/vars", 1), errno.EINVAL),
    "truncate to more": Row(lambda: os.truncate("split/vars", SIZE + 1), errno.EINVAL),
    # What the view has no place for.
    "link": Row(lambda: os.link("split/vars", "split/new"), errno.EPERM),
    "symlink": Row(lambda: os.symlink("vars", "split/new"), errno.EPERM),
    "mknod": Row(lambda: os.mkfifo("split/new"), errno.EPERM),
    "mknod of a file": Row(lambda: os.mknod("split/new", stat.S_IFREG | 0o600), errno.EPERM),
    "mkdir in a guest": Row(lambda: os.mkdir("split/new"), errno.EPERM),
    "create beside guests": Row(lambda: touch("new"), errno.EPERM, errno.EACCES),
    "create, combined": Row(lambda: touch("combined/new"), errno.EPERM),
    "create, stateless": Row(lambda: touch("stateless/new"), errno.EPERM),
    "unlink code": Row(lambda: os.unlink("split/code"), errno.EPERM),
    "unlink combined code": Row(lambda: os.unlink("combined/code"), errno.EPERM),
    "unlink firmware.json": Row(lambda: os.unlink("split/firmware.json"), errno.EPERM),
    "unlink guest.json": Row(lambda: os.unlink("split/guest.json"), errno.EPERM),
    "rename vars": Row(lambda: os.rename("split/vars", "split/new"), errno.EPERM),
    # Never supported.
    "fallocate": Row(lambda: fallocate("split/vars"), errno.EOPNOTSUPP),
    "xattr of another kind": Row(lambda: os.setxattr("split/vars", "system.x", b"1"),
                                 errno.EOPNOTSUPP),
    # Damage.
    "read of a damaged block": Row(lambda: Path("damaged/vars").read_bytes(), errno.EIO),
}


def fallocate(path: str) -> None:
    """The system call: posix_fallocate(3) would write instead."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(path, os.O_RDWR)
    try:
        if libc.fallocate(fd, 0, ctypes.c_long(0), ctypes.c_long(SIZE)) < 0:
            raise OSError(ctypes.get_errno(), "fallocate")
    finally:
        os.close(fd)


def damage_all_private_blocks(store: Path) -> None:
    with edited(store) as database:
        database.execute("UPDATE flash_blocks SET checksum = checksum + 1")


@pytest.fixture
def fw(fwfs: Fwfs, store: Path, mount: Mounter) -> Iterator[Path]:
    """A guest a mode, one that is open for writing and has a staging file, and a damaged one."""
    fwfs("firmware", "add", "split", "--executable", OVMF_CODE, "--nvram-template", OVMF_VARS)
    fwfs("firmware", "add", "combined", "--mode", "combined", "--executable", OVMF_COMBINED)
    fwfs("firmware", "add", "stateless", "--mode", "stateless", "--executable", OVMF_CODE)
    owner = f"{OWNER.uid}:{OWNER.gid}"
    for mode in MODES:
        fwfs("guest", "add", "--firmware", mode, "--owner", owner, mode)
    fwfs("guest", "add", "--firmware", "split", "--owner", owner, "held", "damaged")
    fw = mount("-o", "firmware=split")
    (fw / "damaged" / "vars").write_bytes(bytes(range(256)) * (SIZE // 256))
    mount.unmount()
    damage_all_private_blocks(store)
    mount("-o", "firmware=split")
    (fw / "held" / "new").write_bytes(OVMF_VARS.read_bytes())
    with (fw / "held" / "vars").open("r+b"):
        yield fw


def everything(fw: Path) -> dict[str, object]:
    """Bytes and attributes of all that can be read."""
    found: dict[str, object] = {}
    for path in sorted(fw.rglob("*")):
        status = path.lstat()
        found[str(path.relative_to(fw))] = (status.st_mode, status.st_uid, status.st_gid,
                                            status.st_size)
        if path.suffix != ".json" and path.is_file() and path.parent.name != "damaged":
            found[f"bytes of {path.relative_to(fw)}"] = path.read_bytes()
    return found


@pytest.mark.parametrize("actor", [ROOT, OWNER], ids=["root", "owner"])
def test_what_is_refused(fw: Path, actor: Tenant) -> None:
    before = everything(fw)
    found = {what: actor.attempt(fw, row.action) for what, row in ROWS.items()}
    expected = {what: row.expected(actor) for what, row in ROWS.items()}
    wrong = {what: f"{errno.errorcode.get(found[what], found[what])} instead of "
                   f"{errno.errorcode[expected[what]]}"
             for what in ROWS if found[what] != expected[what]}
    assert wrong == {}
    after = everything(fw)
    assert {what for what in before if after.get(what) != before[what]} == set()
    assert set(after) == set(before)
