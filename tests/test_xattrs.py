"""Extended attributes of what a guest sees."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from support.mounting import Mounter
from support.ovmf import OVMF_CODE, OVMF_VARS
from support.program import Fwfs

NAMES = ["user.plain", "trusted.plain", "security.plain", "trusted.libvirt.security.ref_dac",
         "user." + "n" * 250, "trusted." + "n" * 247, "security." + "é" * 123, "user.two words"]
SIZES = [0, 1, 255, 4095, 4096, 4097, 32767, 60000]
ROOM = 65536
# rw-r--r--, as the kernel takes it: a version, then tag, permissions and id of each entry.
ACL = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, permissions, 0xFFFFFFFF)
                                      for tag, permissions in ((1, 6), (4, 4), (32, 4)))


@pytest.fixture
def fw(fwfs: Fwfs, mount: Mounter) -> Path:
    fwfs("firmware", "add", "split", "--mode", "split", "--executable", OVMF_CODE,
         "--nvram-template", OVMF_VARS)
    fwfs("firmware", "add", "shared", "--mode", "stateless", "--executable", OVMF_CODE)
    fwfs("guest", "add", "--firmware", "split", "web01", "web02")
    fwfs("guest", "add", "--firmware", "shared", "plain")
    return mount()


def refusal(attempt: Callable[[], object]) -> int:
    with pytest.raises(OSError) as refused:
        attempt()
    return refused.value.errno


def all_of(path: Path) -> dict[str, bytes]:
    return {name: os.getxattr(path, name) for name in os.listxattr(path)}


def test_they_are_kept_whole(fw: Path, mount: Mounter) -> None:
    """Names and values; over a restart too."""
    path = fw / "web01" / "vars"
    expected = {name: os.urandom(number) for number, name in enumerate(NAMES)}
    for name, value in expected.items():
        os.setxattr(path, name, value)
    assert all_of(path) == expected
    mount.remount()
    assert all_of(path) == expected
    assert all_of(fw / "web02" / "vars") == {}


@pytest.mark.parametrize("size", SIZES)
def test_any_size(fw: Path, mount: Mounter, size: int) -> None:
    path, value = fw / "web01" / "vars", os.urandom(size)
    os.setxattr(path, "user.value", value)
    assert os.getxattr(path, "user.value") == value
    mount.remount()
    assert os.getxattr(path, "user.value") == value
    os.setxattr(path, "user.value", value[::-1])
    assert os.getxattr(path, "user.value") == value[::-1]


def test_they_are_removed(fw: Path) -> None:
    path = fw / "web01" / "vars"
    for name in NAMES:
        os.setxattr(path, name, b"1")
    for name in NAMES[::2]:
        os.removexattr(path, name)
    assert set(os.listxattr(path)) == set(NAMES[1::2])
    assert refusal(lambda: os.getxattr(path, NAMES[0])) == errno.ENODATA
    assert refusal(lambda: os.removexattr(path, NAMES[0])) == errno.ENODATA


def test_create_and_replace(fw: Path) -> None:
    path = fw / "web01" / "vars"
    replace = (path, "user.x", b"2", os.XATTR_REPLACE)
    create = (path, "user.x", b"1", os.XATTR_CREATE)
    assert refusal(lambda: os.setxattr(*replace)) == errno.ENODATA
    os.setxattr(*create)
    assert refusal(lambda: os.setxattr(*create)) == errno.EEXIST
    assert os.getxattr(path, "user.x") == b"1"
    os.setxattr(*replace)
    assert os.getxattr(path, "user.x") == b"2"


def test_there_is_a_limit(fw: Path) -> None:
    path = fw / "web01" / "vars"
    os.setxattr(path, "user.a", bytes(ROOM // 2))
    assert refusal(lambda: os.setxattr(path, "user.b", bytes(ROOM // 2))) == errno.E2BIG
    assert os.listxattr(path) == ["user.a"]
    os.setxattr(path, "user.a", bytes(60000))


@pytest.mark.parametrize("name", ["system.posix_acl_access", "system.nfs4_acl"])
def test_no_others(fw: Path, name: str) -> None:
    path = fw / "web01" / "vars"
    assert refusal(lambda: os.setxattr(path, name, ACL)) == errno.EOPNOTSUPP
    assert refusal(lambda: os.getxattr(path, name)) == errno.EOPNOTSUPP


@pytest.mark.parametrize("file", ["web01/code", "plain/code"])
def test_shared_code_has_none(fw: Path, file: str) -> None:
    path = fw / file
    assert refusal(lambda: os.setxattr(path, "user.x", b"1")) == errno.EROFS
    assert refusal(lambda: os.removexattr(path, "user.x")) == errno.EROFS
    assert refusal(lambda: os.getxattr(path, "user.x")) == errno.ENODATA
    assert os.listxattr(path) == []
