"""What a guest's flash was before: in the mount, on the command line, and back again."""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.mounting import Mounter
from support.ovmf import BLOCK, OVMF_CODE, OVMF_COMBINED, OVMF_VARS
from support.program import Fwfs
from support.refusal import refusal
from support.tenant import Tenant, names
from support.waiting import eventually

TEMPLATE = OVMF_VARS.read_bytes()
SIZE = len(TEMPLATE)
OWNER, STRANGER = Tenant(12345, 23456), Tenant(12346, 23457)


@pytest.fixture
def fw(fwfs: Fwfs, mount: Mounter) -> Path:
    fwfs("firmware", "add", "split", "--executable", OVMF_CODE, "--nvram-template", OVMF_VARS)
    fwfs("firmware", "add", "combined", "--mode", "combined", "--executable", OVMF_COMBINED)
    fwfs("firmware", "add", "stateless", "--mode", "stateless", "--executable", OVMF_CODE)
    for mode in ("split", "combined", "stateless"):
        fwfs("guest", "add", "--firmware", mode, "--owner", f"{OWNER.uid}:{OWNER.gid}", mode)
    return mount()


def listed(fwfs: Fwfs, *guest: str) -> list[dict[str, Any]]:
    return json.loads(fwfs("snapshot", "list", *guest, "--json").stdout)["snapshots"]


def is_free(fwfs: Fwfs, guest: str) -> bool:
    return eventually(
        lambda: json.loads(fwfs("guest", "show", guest, "--json").stdout)["holder"] is None)


def write(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b", buffering=0) as file:
        os.pwrite(file.fileno(), data, offset)


def test_each_session_can_be_undone(fw: Path, fwfs: Fwfs) -> None:
    vars_ = fw / "split" / "vars"
    write(vars_, 100, b"first")
    after_first = vars_.read_bytes()
    assert is_free(fwfs, "split")
    write(vars_, 3 * BLOCK, b"second")
    assert is_free(fwfs, "split")
    second, first = listed(fwfs, "split")
    assert (first["kind"], second["kind"]) == ("session", "session")
    past = fw / "split" / ".snapshots"
    assert sorted(os.listdir(past)) == sorted([first["snapshot"], second["snapshot"]])
    assert (past / first["snapshot"] / "vars").read_bytes() == TEMPLATE
    assert (past / second["snapshot"] / "vars").read_bytes() == after_first
    assert (past / first["snapshot"] / "code").read_bytes() == OVMF_CODE.read_bytes()
    assert sorted(os.listdir(past / first["snapshot"])) == ["code", "vars"]

    now = vars_.read_bytes()
    fwfs("snapshot", "restore", "split", second["snapshot"])
    assert vars_.read_bytes() == after_first
    fwfs("snapshot", "restore", "split", first["snapshot"])
    assert vars_.read_bytes() == TEMPLATE
    undone = listed(fwfs, "split")[1]
    assert undone["kind"] == "edit"
    fwfs("snapshot", "restore", "split", undone["snapshot"])
    assert vars_.read_bytes() == now


def test_a_session_that_changes_nothing_leaves_nothing(fw: Path, fwfs: Fwfs) -> None:
    (fw / "combined" / "code").open("r+b").close()
    write(fw / "combined" / "code", 0, OVMF_COMBINED.read_bytes())
    assert listed(fwfs) == []


def test_snapshots_have_names_and_stay(fw: Path, fwfs: Fwfs) -> None:
    code = fw / "combined" / "code"
    fwfs("snapshot", "add", "combined", "as delivered")
    for number in range(12):
        write(code, number * BLOCK, bytes([number + 1]) * BLOCK)
        assert is_free(fwfs, "combined")
    kinds = [point["kind"] for point in listed(fwfs, "combined")]
    assert kinds == ["session"] * 10 + ["snapshot"]
    then = fw / "combined" / ".snapshots" / "as delivered"
    assert (then / "code").read_bytes() == OVMF_COMBINED.read_bytes()
    assert os.listdir(then) == ["code"]
    fwfs("snapshot", "rm", "combined", "as delivered")
    assert eventually(lambda: not then.exists())
    assert fwfs("snapshot", "rm", "combined", "as delivered", check=False).returncode == 3


def test_how_many_are_kept_is_the_stores(fw: Path, fwfs: Fwfs, mount: Mounter) -> None:
    mount.unmount()
    mount("-o", "keep-sessions=2,keep-days=0")
    mount.remount()  # it remembers
    for number in range(5):
        write(fw / "split" / "vars", 0, bytes([number]))
        assert is_free(fwfs, "split")
    assert [point["kind"] for point in listed(fwfs, "split")] == ["session"] * 2
    mount.unmount()
    done = fwfs("mount", fw, "-o", "keep-edits=many", check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and "keep-edits" in done.stderr


def test_of_a_running_guest(fw: Path, fwfs: Fwfs) -> None:
    """It is taken, and read, but not gone back to."""
    vars_ = fw / "split" / "vars"
    with vars_.open("r+b", buffering=0) as guest:
        os.pwrite(guest.fileno(), b"running", 0)
        os.fsync(guest.fileno())
        fwfs("snapshot", "add", "split", "live")
        os.pwrite(guest.fileno(), b"RUNNING", 0)
        assert (fw / "split/.snapshots/live/vars").read_bytes()[:7] == b"running"
        done = fwfs("snapshot", "restore", "split", "live", check=False)
        assert (done.returncode, done.stderr.count("\n")) == (4, 1)
        assert f"by process {os.getpid()} (" in done.stderr
    assert vars_.read_bytes()[:7] == b"RUNNING"


@pytest.mark.parametrize("replace", [
    lambda guest: os.truncate(guest / "vars", 0),
    lambda guest: os.unlink(guest / "vars"),
    lambda guest: ((guest / "new").write_bytes(bytes(SIZE)),
                   os.rename(guest / "new", guest / "vars")),
], ids=["truncate", "unlink", "rename"])
def test_what_is_replaced_can_be_had_back(fw: Path, fwfs: Fwfs,
                                          replace: Callable[[Path], object]) -> None:
    guest = fw / "split"
    write(guest / "vars", 5000, b"precious")
    before = (guest / "vars").read_bytes()
    assert is_free(fwfs, "split")
    replace(guest)
    point = listed(fwfs, "split")[0]["snapshot"]
    assert (guest / ".snapshots" / point / "vars").read_bytes() == before
    assert is_free(fwfs, "split")
    fwfs("snapshot", "restore", "split", point)
    assert eventually(lambda: (guest / "vars").exists())
    assert (guest / "vars").read_bytes() == before


def test_nothing_of_the_past_can_be_changed(fw: Path, fwfs: Fwfs) -> None:
    fwfs("snapshot", "add", "split", "mine")
    past = fw / "split" / ".snapshots"
    point, vars_ = past / "mine", past / "mine" / "vars"
    assert stat.S_IMODE(vars_.stat().st_mode) == 0o400
    attempts = {
        "write": lambda: write(vars_, 0, b"x"),
        "truncate": lambda: os.truncate(vars_, 0),
        "chmod": lambda: os.chmod(vars_, 0o600),
        "chown": lambda: os.chown(point, 1, 1),
        "setxattr": lambda: os.setxattr(vars_, "user.x", b"1"),
        "unlink": lambda: vars_.unlink(),
        "create": lambda: (point / "new").touch(),
        "mkdir": lambda: (past / "new").mkdir(),
        "rmdir": lambda: point.rmdir(),
        "symlink": lambda: (past / "new").symlink_to("mine"),
        "rename": lambda: point.rename(past / "other"),
    }
    assert {what: refusal(action) for what, action in attempts.items()} == dict.fromkeys(
        attempts, "EROFS")
    assert vars_.read_bytes() == TEMPLATE
    assert ".snapshots" not in os.listdir(fw / "split")


def test_the_past_is_the_owners_alone(fw: Path, fwfs: Fwfs) -> None:
    fwfs("snapshot", "add", "split", "mine")
    read = [lambda: os.listdir(".snapshots"), lambda: Path(".snapshots/mine/vars").read_bytes()]
    assert names(OWNER.attempt(fw / "split", action) for action in read) == ["0", "0"]
    assert names(STRANGER.attempt(fw, lambda action=action: (os.chdir("split"), action()))
                 for action in read) == ["EACCES"] * 2
    refused = [lambda: os.listdir("split/.snapshots"), lambda: os.stat("split/.snapshots/mine"),
               lambda: Path("split/.snapshots/mine/vars").read_bytes()]
    assert names(STRANGER.attempt(fw, action) for action in refused) == ["EACCES"] * 3


def test_a_removed_guest_comes_back_with_its_past(fw: Path, fwfs: Fwfs) -> None:
    write(fw / "split" / "vars", 0, b"mine")
    before = (fw / "split" / "vars").read_bytes()
    assert is_free(fwfs, "split")
    points = listed(fwfs, "split")
    (fw / "split").rmdir()
    assert not (fw / "split").exists()
    fwfs("guest", "undelete", "split")
    assert (fw / "split" / "vars").read_bytes() == before
    assert listed(fwfs, "split") == points
    fwfs("guest", "rm", "--purge", "split")
    assert fwfs("guest", "undelete", "split", check=False).returncode == 3
    assert json.loads(fwfs("status", "--json").stdout)["private_block_count"] == 0


def test_with_many_points_all_are_listed(fw: Path, fwfs: Fwfs) -> None:
    expected = [f"{number:03}-{'x' * 100}" for number in range(200)]
    for name in expected:
        fwfs("snapshot", "add", "stateless", name)
    past = fw / "stateless" / ".snapshots"
    assert sorted(os.listdir(past)) == expected
    assert os.listdir(past / expected[0]) == ["code"]
    assert sorted(entry.name for entry in os.scandir(past) if entry.is_dir()) == expected


def test_a_copy_of_the_past_is_sound(fw: Path, fwfs: Fwfs, tmp_path: Path,
                                     rng: random.Random) -> None:
    """As backup tools read it: whole, and while the guest goes on writing."""
    code = fw / "combined" / "code"
    with code.open("r+b", buffering=0) as guest:
        os.pwrite(guest.fileno(), rng.randbytes(16 * BLOCK), 8 * BLOCK)
        os.fsync(guest.fileno())
        expected = code.read_bytes()
        fwfs("snapshot", "add", "combined", "backup")
        for index in range(8, 24):
            os.pwrite(guest.fileno(), rng.randbytes(BLOCK), index * BLOCK)
        os.fsync(guest.fileno())
        shutil.copytree(fw / "combined" / ".snapshots" / "backup", tmp_path / "copy")
    assert (tmp_path / "copy" / "code").read_bytes() == expected
