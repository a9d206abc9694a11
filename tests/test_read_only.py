"""Read-only mounts of a store, beside the one that is read-write."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.cli import IN_USE, fails
from support.mounting import END_SECONDS, Mounter
from support.ovmf import OVMF_CODE, OVMF_COMBINED, OVMF_VARS
from support.program import Fwfs
from support.waiting import eventually

Mounters = Callable[[str], Mounter]


@pytest.fixture(autouse=True)
def guests(fwfs: Fwfs) -> None:
    """A split and a combined guest."""
    fwfs("firmware", "add", "fs", "--executable", OVMF_CODE, "--nvram-template", OVMF_VARS)
    fwfs("firmware", "add", "fc", "--mode", "combined", "--executable", OVMF_COMBINED)
    fwfs("guest", "add", "--firmware", "fs", "split")
    fwfs("guest", "add", "--firmware", "fc", "combined")


@pytest.fixture
def at(fwfs: Fwfs, fwfs_bin: Path, tmp_path: Path) -> Iterator[Mounters]:
    """at(name) mounts at a directory of its own."""
    mounters: dict[str, Mounter] = {}

    def make(name: str) -> Mounter:
        return mounters.setdefault(name, Mounter(fwfs, fwfs_bin, tmp_path / name))

    yield make
    for mounter in mounters.values():
        mounter.finish()
    assert eventually(lambda: status(fwfs)["mounts"] == [], END_SECONDS)


def status(fwfs: Fwfs) -> dict[str, Any]:
    return json.loads(fwfs("status", "--json").stdout)


def mounts(fwfs: Fwfs) -> list[tuple[str, bool]]:
    """Where the store is mounted, and whether read-only."""
    return [(Path(mount["mountpoint"]).name, mount["read_only"])
            for mount in status(fwfs)["mounts"]]


def one(fwfs: Fwfs, mountpoint: Path) -> dict[str, Any]:
    """What is told of one mount."""
    found = [mount for mount in status(fwfs)["mounts"] if mount["mountpoint"] == str(mountpoint)]
    assert len(found) == 1
    return found[0]


def beside(store: Path) -> set[str]:
    return {path.name.removeprefix(store.name) for path in store.parent.glob(f"{store.name}-*")}


# ---- How many there are ----


def test_all_are_told(fwfs: Fwfs, at: Mounters) -> None:
    assert status(fwfs)["mount"] is None and mounts(fwfs) == []
    for name in ("ro1", "ro2"):
        at(name)("-o", "ro")
    assert status(fwfs)["mount"] is None
    assert mounts(fwfs) == [("ro1", True), ("ro2", True)]
    fw = at("fw")()
    at("ro3")("-o", "ro")
    told = status(fwfs)
    assert told["mount"]["mountpoint"] == str(fw) and "read_only" not in told["mount"]
    assert {**told["mount"], "read_only": False} == told["mounts"][0]
    assert mounts(fwfs) == [("fw", False), ("ro1", True), ("ro2", True), ("ro3", True)]
    text = fwfs("status").stdout
    assert all(f"{at(name).mountpoint}\n" in text for name in ("fw", "ro1", "ro2", "ro3"))

    at("ro1").unmount()
    assert eventually(lambda: ("ro1", True) not in mounts(fwfs), END_SECONDS)
    assert mounts(fwfs) == [("fw", False), ("ro2", True), ("ro3", True)]
    at("fw").unmount()
    assert eventually(lambda: status(fwfs)["mount"] is None, END_SECONDS)
    assert mounts(fwfs) == [("ro2", True), ("ro3", True)]


def test_a_second_read_write_one_is_refused(fwfs: Fwfs, at: Mounters) -> None:
    fw = at("fw")()
    second = at("second").mountpoint
    second.mkdir()
    line = fails(fwfs, IN_USE, "mount", str(second))
    assert str(fw) in line and "'-o ro'" in line
    assert mounts(fwfs) == [("fw", False)]
    at("second")("-o", "ro")
    assert (second / "split" / "vars").read_bytes() == OVMF_VARS.read_bytes()


def test_the_store_by_another_name(fwfs: Fwfs, at: Mounters, store: Path, tmp_path: Path) -> None:
    at("fw")()
    at("ro")("-o", "ro")
    link = tmp_path / "link.db"
    link.symlink_to(store)
    told = json.loads(fwfs("--store", link, "status", "--json").stdout)
    assert told["mounts"] == status(fwfs)["mounts"] and len(told["mounts"]) == 2


# ---- What is refused ----

WRITING: dict[str, Callable[[Path], object]] = {
    "open": lambda guest: os.open(guest / "vars", os.O_WRONLY),
    "open-both": lambda guest: os.open(guest / "vars", os.O_RDWR),
    "open-code": lambda guest: os.open(guest / "code", os.O_RDWR),
    "open-truncate": lambda guest: os.open(guest / "vars", os.O_RDONLY | os.O_TRUNC),
    "create": lambda guest: os.open(guest / "new", os.O_CREAT | os.O_WRONLY),
    "truncate": lambda guest: os.truncate(guest / "vars", 0),
    "chmod": lambda guest: os.chmod(guest / "vars", 0o640),
    "chown": lambda guest: os.chown(guest / "vars", 1, 1),
    "utime": lambda guest: os.utime(guest / "vars", (1, 1)),
    "setxattr": lambda guest: os.setxattr(guest / "vars", "user.a", b"1"),
    "removexattr": lambda guest: os.removexattr(guest / "vars", "user.kept"),
    "mkdir": lambda guest: os.mkdir(guest.parent / "new"),
    "rmdir": lambda guest: os.rmdir(guest),
    "unlink": lambda guest: os.unlink(guest / "vars"),
    "rename": lambda guest: os.rename(guest, guest.parent / "renamed"),
    "rename-file": lambda guest: os.rename(guest / "vars", guest / "old"),
    "symlink": lambda guest: os.symlink("vars", guest / "link"),
    "link": lambda guest: os.link(guest / "vars", guest / "link"),
    "mknod": lambda guest: os.mknod(guest / "fifo", 0o600),
}


def test_nothing_can_be_changed(fwfs: Fwfs, at: Mounters) -> None:
    fw = at("fw")()
    os.setxattr(fw / "split" / "vars", "user.kept", b"yes")
    guest = at("ro")("-o", "ro") / "split"
    before = fwfs("guest", "show", "split", "--json").stdout
    for name, write in WRITING.items():
        with pytest.raises(OSError) as refused:
            write(guest)
        assert refused.value.errno == errno.EROFS, name
    assert fwfs("guest", "show", "split", "--json").stdout == before
    assert os.getxattr(guest / "vars", "user.kept") == b"yes"
    assert (guest / "vars").read_bytes() == OVMF_VARS.read_bytes()


# ---- What is seen ----


def test_what_others_write_is_seen(at: Mounters) -> None:
    """Also in a file that is held open, and before anybody syncs it."""
    fw, ro = at("fw")(), at("ro")("-o", "ro")
    for file in ("split/vars", "combined/code"):
        size = (ro / file).stat().st_size
        with (ro / file).open("rb", buffering=0) as held, (fw / file).open("r+b") as writer:
            for number in range(3):
                text = f"write {number}".encode()
                os.pwrite(writer.fileno(), text, 4096 * number)
                assert eventually(
                    lambda: os.pread(held.fileno(), len(text), 4096 * number) == text)
                assert (ro / file).read_bytes()[4096 * number:].startswith(text)
            at_time = (ro / file).stat().st_mtime_ns + 10 ** 9
            os.utime(fw / file, ns=(0, at_time))
            assert eventually(lambda: (ro / file).stat().st_mtime_ns == at_time)
        assert (ro / file).stat().st_size == size


def test_what_the_command_line_changes_is_seen(fwfs: Fwfs, at: Mounters) -> None:
    ro = at("ro")("-o", "ro")
    assert sorted(os.listdir(ro)) == ["combined", "split"]
    fwfs("guest", "add", "--firmware", "fs", "new")
    assert (ro / "new" / "vars").read_bytes() == OVMF_VARS.read_bytes()
    fwfs("guest", "rename", "new", "newer")
    fwfs("guest", "rm", "split")
    assert eventually(lambda: sorted(os.listdir(ro)) == ["combined", "newer"])
    assert eventually(lambda: not (ro / "new").exists() and not (ro / "split").exists())
    told = json.loads((ro / "newer" / "guest.json").read_text())
    assert told["guest"] == "newer"


# ---- What it leaves alone ----


def test_it_keeps_no_house(at: Mounters, store: Path) -> None:
    """Space that is set aside, and the log, are the read-write mount's."""
    ro = at("ro")("-o", "ro")
    assert os.listdir(ro)
    assert not eventually(lambda: "-reserve" in beside(store), 2)
    fw = at("fw")()
    assert eventually(lambda: "-reserve" in beside(store))
    (fw / "split" / "vars").write_bytes(OVMF_VARS.read_bytes()[::-1])
    at("ro").unmount()
    assert eventually(lambda: "-mount-1" not in beside(store), END_SECONDS)
    assert {"-reserve", "-wal", "-mount"} <= beside(store)
    at("ro")("-o", "ro")
    at("fw").unmount()
    assert eventually(lambda: "-mount" not in beside(store), END_SECONDS)
    assert "-reserve" not in beside(store)
    assert (ro / "split" / "vars").read_bytes() == OVMF_VARS.read_bytes()[::-1]
    at("ro").unmount()
    assert eventually(lambda: beside(store) == set(), END_SECONDS)


# ---- Its processes ----


def test_each_is_replaced_by_itself(fwfs: Fwfs, at: Mounters) -> None:
    mountpoints = [at("fw")(), at("ro1")("-o", "ro"), at("ro2")("-o", "ro")]
    for changed in mountpoints:
        before = {mountpoint: one(fwfs, mountpoint) for mountpoint in mountpoints}
        with (changed / "split" / "vars").open("rb", buffering=0) as file:
            os.kill(before[changed]["worker_pid"], signal.SIGKILL)
            assert len(file.read()) == OVMF_VARS.stat().st_size
            assert eventually(lambda: one(fwfs, changed)["restart_count"] == 1)
            fwfs("mount", "--reload", changed)
            file.seek(0)
            assert file.read() == OVMF_VARS.read_bytes()
        after = {mountpoint: one(fwfs, mountpoint) for mountpoint in mountpoints}
        assert (after[changed]["restart_count"], after[changed]["upgrade_count"]) == (1, 1)
        assert after[changed]["worker_pid"] != before[changed]["worker_pid"]
        assert all(after[other] == before[other] for other in mountpoints if other != changed)
