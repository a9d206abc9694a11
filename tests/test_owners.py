"""Guests of several owners on one mount: each sees its own, and nothing of another's."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from errno import EACCES, EPERM, EROFS
from pathlib import Path

import pytest

from support.mounting import Mounter
from support.ovmf import OVMF_CODE, OVMF_COMBINED, OVMF_VARS
from support.program import Fwfs
from support.tenant import Tenant, names
from support.waiting import eventually

ALICE = Tenant(uid=20001, gid=20001)
BOB = Tenant(uid=20002, gid=20002)
FILES = ("vars", "code", "firmware.json", "guest.json")


@pytest.fixture
def fw(fwfs: Fwfs, mount: Mounter) -> Path:
    """A split guest of each owner, and one of Alice's in each of the other modes."""
    fwfs("firmware", "add", "split", "--executable", OVMF_CODE, "--nvram-template", OVMF_VARS)
    fwfs("firmware", "add", "combined", "--mode", "combined", "--executable", OVMF_COMBINED)
    fwfs("firmware", "add", "stateless", "--mode", "stateless", "--executable", OVMF_COMBINED)
    fwfs("guest", "add", "--firmware", "split", "--owner", "20001:20001", "alice")
    fwfs("guest", "add", "--firmware", "split", "--owner", "20002:20002", "bob")
    fwfs("guest", "add", "--firmware", "combined", "--owner", "20001:20001", "alice-combined")
    fwfs("guest", "add", "--firmware", "stateless", "--owner", "20001:20001", "alice-stateless")
    return mount()


def read_all(path: str) -> Callable[[], object]:
    return lambda: Path(path).read_bytes()


def write_some(path: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(descriptor, b"x", 0)
    finally:
        os.close(descriptor)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def owner_of(path: Path) -> tuple[int, int]:
    return path.stat().st_uid, path.stat().st_gid


def test_another_owner_gets_nothing(fw: Path) -> None:
    before = (fw / "alice" / "vars").read_bytes()
    attempts: dict[str, Callable[[], object]] = {
        "list the guest": lambda: os.listdir("alice"),
        "enter the guest": lambda: os.chdir("alice"),
        "list all guests": lambda: os.listdir("."),
        "change the guest's mode": lambda: os.chmod("alice", 0o777),
        "make a file": lambda: os.open("alice/new", os.O_CREAT | os.O_WRONLY),
        "list a combined guest": lambda: os.listdir("alice-combined"),
        "read a combined guest's code": read_all("alice-combined/code"),
        "list a stateless guest": lambda: os.listdir("alice-stateless"),
        "read a stateless guest's code": read_all("alice-stateless/code"),
    }
    for file in FILES:
        path = f"alice/{file}"
        attempts |= {
            f"stat {file}": lambda path=path: os.stat(path),
            f"read {file}": read_all(path),
            f"write {file}": lambda path=path: write_some(path),
            f"chmod {file}": lambda path=path: os.chmod(path, 0o666),
            f"chown {file}": lambda path=path: os.chown(path, BOB.uid, BOB.gid),
            f"touch {file}": lambda path=path: os.utime(path),
            f"truncate {file}": lambda path=path: os.truncate(path, 0),
            f"unlink {file}": lambda path=path: os.unlink(path),
            f"link {file}": lambda path=path: os.link(path, "bob/stolen"),
            f"rename {file}": lambda path=path: os.rename(path, "bob/stolen"),
        }
    allowed = {what: names([code]) for what, action in attempts.items()
               if (code := BOB.attempt(fw, action)) not in (EACCES, EPERM)}
    assert not allowed
    assert (fw / "alice" / "vars").read_bytes() == before
    assert sorted(os.listdir(fw / "bob")) == sorted(FILES)


def test_the_owner_gets_its_own(fw: Path) -> None:
    attempts: list[Callable[[], object]] = [
        lambda: os.listdir("alice"),
        *(read_all(f"alice/{file}") for file in FILES),
        lambda: write_some("alice/vars"),
        lambda: os.utime("alice/vars"),
        lambda: os.chmod("alice/vars", 0o640),
        read_all("alice-combined/code"),
        lambda: write_some("alice-combined/code"),
        read_all("alice-stateless/code"),
        read_all("alice-stateless/guest.json"),
    ]
    assert [ALICE.attempt(fw, action) for action in attempts] == [0] * len(attempts)


def test_the_owner_cannot_change_what_is_shared_or_generated(fw: Path) -> None:
    paths = ("alice/code", "alice-stateless/code", "alice/firmware.json", "alice/guest.json")
    refused = [ALICE.attempt(fw, lambda path=path: write_some(path)) for path in paths]
    assert all(code in (EACCES, EROFS) for code in refused), names(refused)
    refused = [ALICE.attempt(fw, lambda path=path: os.chmod(path, 0o666)) for path in paths]
    assert all(code in (EPERM, EACCES, EROFS) for code in refused), names(refused)
    given_away = ALICE.attempt(fw, lambda: os.chown("alice/vars", BOB.uid, BOB.gid))
    assert names([given_away]) == ["EPERM"]


def test_names_are_not_listed_but_known_to_root(fw: Path) -> None:
    assert mode_of(fw) == 0o711
    assert sorted(os.listdir(fw)) == ["alice", "alice-combined", "alice-stateless", "bob"]


@pytest.mark.parametrize(("flash", "directory", "generated"), [
    (0o600, 0o700, 0o400),
    (0o640, 0o750, 0o440),
    (0o644, 0o755, 0o444),
])
def test_modes_follow_the_flash(fw: Path, flash: int, directory: int, generated: int) -> None:
    guest = fw / "alice"
    (guest / "vars").chmod(flash)
    assert mode_of(guest / "vars") == flash
    assert eventually(lambda: mode_of(guest) == directory)
    assert eventually(lambda: mode_of(guest / "firmware.json") == generated)
    assert eventually(lambda: mode_of(guest / "guest.json") == generated)
    assert mode_of(guest / "code") == 0o444 and owner_of(guest / "code") == (0, 0)


def test_new_guests_are_private(fw: Path) -> None:
    for guest, flash in (("alice", "vars"), ("alice-combined", "code")):
        assert mode_of(fw / guest) == 0o700
        assert mode_of(fw / guest / flash) == 0o600
    assert mode_of(fw / "alice-stateless") == 0o700
    for guest in ("alice", "alice-combined", "alice-stateless"):
        for path in (fw / guest, fw / guest / "firmware.json", fw / guest / "guest.json"):
            assert owner_of(path) == (ALICE.uid, ALICE.gid)


def test_a_group_that_may_read_does(fw: Path) -> None:
    member = Tenant(uid=20003, gid=20003, groups=(ALICE.gid,))
    assert names([member.attempt(fw, read_all("alice/vars"))]) == ["EACCES"]
    (fw / "alice" / "vars").chmod(0o640)
    assert eventually(lambda: member.attempt(fw, read_all("alice/vars")) == 0)
    assert member.attempt(fw, read_all("alice/firmware.json")) == 0
    assert names([member.attempt(fw, lambda: write_some("alice/vars"))]) == ["EACCES"]
    assert names([BOB.attempt(fw, read_all("alice/vars"))]) == ["EACCES"]


def test_a_new_owner_takes_all_and_the_old_keeps_nothing(fwfs: Fwfs, mount: Mounter,
                                                         fw: Path) -> None:
    os.chown(fw / "alice" / "vars", BOB.uid, BOB.gid)
    for path in ("alice/vars", "alice/firmware.json", "alice/guest.json"):
        assert eventually(lambda path=path: BOB.attempt(fw, read_all(path)) == 0), path
    assert names([ALICE.attempt(fw, read_all("alice/vars"))]) == ["EACCES"]
    fw = mount.remount()
    assert owner_of(fw / "alice" / "vars") == owner_of(fw / "alice") == (BOB.uid, BOB.gid)
    shown = json.loads(fwfs("guest", "show", "alice", "--json").stdout)
    assert (shown["owner"]["uid"], shown["owner"]["gid"]) == (BOB.uid, BOB.gid)
