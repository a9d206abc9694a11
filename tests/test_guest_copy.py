"""A guest once more: cloned, and in a file of its own."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from support.mounting import Mounter
from support.ovmf import BLOCK, OVMF_CODE, OVMF_COMBINED, OVMF_VARS
from support.program import Fwfs
from support.waiting import eventually

GUESTS = {"split": "vars", "combined": "code", "stateless": "code"}


@pytest.fixture
def fw(fwfs: Fwfs, mount: Mounter) -> Path:
    """Guests that have written twice, and have a snapshot."""
    fwfs("firmware", "add", "split", "--executable", OVMF_CODE, "--nvram-template", OVMF_VARS)
    fwfs("firmware", "add", "combined", "--mode", "combined", "--executable", OVMF_COMBINED)
    fwfs("firmware", "add", "stateless", "--mode", "stateless", "--executable", OVMF_CODE)
    for mode in GUESTS:
        fwfs("guest", "add", "--firmware", mode, "--owner", "12345:23456", mode)
    fw = mount()
    for mode, file in GUESTS.items():
        fwfs("snapshot", "add", mode, "as delivered")
        if mode == "stateless":
            continue
        for number in range(2):
            with (fw / mode / file).open("r+b", buffering=0) as flash:
                os.pwrite(flash.fileno(), bytes([65 + number]) * BLOCK, (number + 1) * BLOCK + 7)
            assert eventually(lambda mode=mode: shown(fwfs, mode)["holder"] is None)
        os.setxattr(fw / mode / file, "user.note", mode.encode())
        os.chmod(fw / mode / file, 0o640)
    return fw


def shown(fwfs: Fwfs, guest: str) -> dict[str, Any]:
    return json.loads(fwfs("guest", "show", guest, "--json").stdout)


def points(fwfs: Fwfs, guest: str) -> list[str]:
    listed = json.loads(fwfs("snapshot", "list", guest, "--json").stdout)["snapshots"]
    return [point["kind"] for point in listed]


def attributes(path: Path) -> tuple[object, ...]:
    status = path.stat()
    return status.st_mode, status.st_uid, status.st_gid, {
        name: os.getxattr(path, name) for name in os.listxattr(path)}


@pytest.mark.parametrize("mode", GUESTS)
def test_a_clone_is_what_it_was_of(fw: Path, fwfs: Fwfs, mode: str) -> None:
    fwfs("guest", "clone", mode, "copy")
    original, copy = fw / mode / GUESTS[mode], fw / "copy" / GUESTS[mode]
    assert copy.read_bytes() == original.read_bytes()
    assert attributes(copy) == attributes(original)
    delta = "delta_bytes"
    assert shown(fwfs, "copy")["usage"][delta] == shown(fwfs, mode)["usage"][delta]
    assert points(fwfs, "copy") == []
    if mode != "stateless":
        before = original.read_bytes()
        copy.write_bytes(bytes(len(before)))
        assert original.read_bytes() == before


def test_a_running_guest_is_cloned(fw: Path, fwfs: Fwfs) -> None:
    with (fw / "split" / "vars").open("r+b", buffering=0) as vars_:
        os.pwrite(vars_.fileno(), b"running", 0)
        os.fsync(vars_.fileno())
        fwfs("guest", "clone", "split", "copy")
    assert (fw / "copy" / "vars").read_bytes()[:7] == b"running"


@pytest.mark.parametrize("mode", GUESTS)
def test_a_guest_goes_through_a_file(fw: Path, fwfs: Fwfs, bare_store: Path, tmp_path: Path,
                                     mode: str) -> None:
    file, flash = tmp_path / "guest.fwfs", fw / mode / GUESTS[mode]
    fwfs("guest", "export", mode, file)
    assert sorted(path.name for path in tmp_path.glob("guest.fwfs*")) == ["guest.fwfs"]
    before, names = flash.read_bytes(), points(fwfs, mode)
    bytes_before = attributes(flash)

    # Back into the same store under another name, and into an empty one.
    fwfs("guest", "import", file, "again")
    assert (fw / "again" / GUESTS[mode]).read_bytes() == before
    assert attributes(fw / "again" / GUESTS[mode]) == bytes_before
    assert points(fwfs, "again") == names
    delivered = fw / "again" / ".snapshots" / "as delivered" / GUESTS[mode]
    original = {"split": OVMF_VARS, "combined": OVMF_COMBINED, "stateless": OVMF_CODE}[mode]
    assert delivered.read_bytes() == original.read_bytes()

    fwfs("--store", bare_store, "init")
    fwfs("--store", bare_store, "guest", "import", file)
    there = json.loads(fwfs("--store", bare_store, "guest", "show", mode, "--json").stdout)
    here = shown(fwfs, mode)
    assert {key: there[key] for key in ("mode", "firmware", "owner")} == {
        key: here[key] for key in ("mode", "firmware", "owner")}
    assert there["usage"]["delta_bytes"] == here["usage"]["delta_bytes"]


def test_what_cannot_be_copied(fw: Path, fwfs: Fwfs, bare_store: Path, tmp_path: Path) -> None:
    file = tmp_path / "guest.fwfs"
    fwfs("guest", "export", "split", file)
    before = file.read_bytes()
    fwfs("--store", bare_store, "init")
    fwfs("--store", bare_store, "firmware", "add", "split", "--mode", "combined", "--executable",
         OVMF_COMBINED)
    refused = [
        (["guest", "clone", "split", "combined"], 1), (["guest", "clone", "none", "x"], 3),
        (["guest", "clone", "split", "-x"], 2), (["guest", "export", "none", tmp_path / "x"], 3),
        (["guest", "export", "combined", file], 1), (["guest", "import", file], 1),
        (["guest", "import", tmp_path / "none"], 3), (["guest", "import", OVMF_VARS], 1),
        (["guest", "import", file, ".x"], 2), (["guest", "import", bare_store, "x"], 1),
        (["--store", bare_store, "guest", "import", file], 1),
    ]
    for arguments, code in refused:
        done = fwfs(*arguments, check=False)
        assert (done.returncode, done.stderr.count("\n")) == (code, 1), (arguments, done.stderr)
    assert file.read_bytes() == before
    assert not (tmp_path / "x").exists()
    assert sorted(os.listdir(fw)) == sorted(GUESTS)


def test_a_damaged_guest_is_not_copied(fw: Path, fwfs: Fwfs, store: Path, mount: Mounter,
                                       tmp_path: Path) -> None:
    mount.unmount()
    with sqlite3.connect(store) as database:
        database.execute("UPDATE flash_blocks SET checksum = checksum + 1")
    database.close()
    for arguments in (["clone", "split", "copy"], ["export", "split", tmp_path / "x"]):
        done = fwfs("guest", *arguments, check=False)
        assert (done.returncode, done.stderr.count("\n")) == (5, 1)
        assert os.strerror(errno.EUCLEAN) not in done.stderr and "damaged" in done.stderr
    assert not (tmp_path / "x").exists()
