"""The command line: each bad input is one clear line, the right exit code, and no change."""

from __future__ import annotations

import json
import os
import shlex
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from support.cli import (FAILED, IN_USE, MISSING, USAGE, descriptor, fails, firmware, flash,
                         guest_names, guests, images, state, unchanged)  # noqa: F401
from support.mounting import Mounter
from support.program import Fwfs
from support.store_file import edited

BAD_NAMES = {
    "dot-dot": "..",
    "dot": ".hidden",
    "slash": "a/b",
    "empty": "",
    "long": "x" * 300,
    "newline": "a\nb",
    "escape": "a\x1b[31mb",
    "delete": "a\x7fb",
    "dash": "-a",
    "no-utf8": os.fsdecode(b"a\xff"),
}

bad_names = pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES)

# ---- How it is called ----

WRONG_CALLS = [
    [],
    ["bogus"],
    ["help", "bogus"],
    ["guest"],
    ["guest", "bogus"],
    ["--bogus", "status"],
    ["status", "--bogus"],
    ["status", "-x"],
    ["status", "extra"],
    ["status", "--json=yes"],
    ["init", "extra"],
    ["--store"],
    ["--store", "", "status"],
    ["mount"],
    ["mount", "a", "b"],
    ["mount", "-o"],
    ["firmware", "add"],
    ["firmware", "add", "a", "b", "--executable", "code.fd"],
    ["firmware", "add", "a"],
    ["firmware", "show"],
    ["firmware", "rm", "a", "b"],
    ["firmware", "list", "a"],
    ["guest", "add", "a"],
    ["guest", "add", "--firmware", "combined"],
    ["guest", "add", "--firmware"],
    ["guest", "add", "--firmware", "combined", "--owner", ":", "a"],
    ["guest", "add", "--firmware", "combined", "--owner", "", "a"],
    ["guest", "add", "--firmware", "combined", "--owner", "root:", "a"],
    ["guest", "show"],
    ["guest", "show", "a", "b"],
    ["guest", "rm"],
    ["guest", "rename", "a"],
    ["guest", "rename", "a", "b", "c"],
    ["guest", "qemu", "a"],
    ["guest", "qemu", "--mountpoint", "/"],
    ["guest", "libvirt", "a"],
    ["guest", "libvirt", "--mountpoint", "/"],
    ["guest", "libvirt", "a", "--mountpoint", "/", "--virt-type", "xen"],
]


@pytest.mark.parametrize("call", WRONG_CALLS, ids=lambda call: " ".join(call) or "nothing")
def test_a_wrong_call_points_at_the_help(fwfs: Fwfs, unchanged: None, call: list[str]) -> None:
    line = fails(fwfs, USAGE, *call)
    command = shlex.split(line.rpartition("; see ")[2])[0].split()
    assert fwfs(*command[1:]).stdout.startswith(("Usage: ", "fwfs gives"))


# ---- The store ----


def test_a_second_init(fwfs: Fwfs, store: Path, guests: None, unchanged: None) -> None:
    before = store.read_bytes()
    assert str(store) in fails(fwfs, FAILED, "init")
    assert store.read_bytes() == before


def test_init_leaves_any_file_alone(fwfs: Fwfs, tmp_path: Path) -> None:
    file = tmp_path / "letter.txt"
    file.write_text("dear all")
    fails(fwfs, FAILED, "--store", str(file), "init")
    assert file.read_text() == "dear all"
    assert list(tmp_path.glob("letter*")) == [file]


def test_init_makes_no_tree(fwfs: Fwfs, tmp_path: Path) -> None:
    fails(fwfs, MISSING, "--store", str(tmp_path / "two" / "levels" / "fwfs.db"), "init")
    assert not (tmp_path / "two").exists()


COMMANDS_ON_A_STORE = [
    ["status"],
    ["guest", "list"],
    ["guest", "add", "--firmware", "f", "g"],
    ["firmware", "import"],
    ["mount", "/mnt"],
]


def test_a_store_that_does_not_exist(fwfs: Fwfs, bare_store: Path) -> None:
    for command in COMMANDS_ON_A_STORE:
        assert "fwfs init" in fails(fwfs, MISSING, "--store", str(bare_store), *command)
    assert not bare_store.exists()


def no_sqlite(path: Path) -> None:
    path.write_bytes(b"no database at all\n" * 1000)


def another_applications(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("PRAGMA application_id = 1234")
    db.execute("CREATE TABLE guests (name)")
    db.close()


def nobodys(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE guests (name)")
    db.close()


def empty(path: Path) -> None:
    path.touch()


@pytest.mark.parametrize("make", [no_sqlite, another_applications, nobodys, empty])
def test_what_is_no_store(fwfs: Fwfs, bare_store: Path, make: Callable[[Path], None]) -> None:
    make(bare_store)
    before = bare_store.read_bytes()
    for command in COMMANDS_ON_A_STORE:
        assert str(bare_store) in fails(fwfs, FAILED, "--store", str(bare_store), *command)
    assert bare_store.read_bytes() == before


def set_version(store: Path, add: int) -> None:
    with edited(store) as db:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        db.execute(f"PRAGMA user_version = {version + add}")


def test_a_store_of_a_newer_version(fwfs: Fwfs, store: Path, guests: None) -> None:
    before = state(fwfs)
    set_version(store, 1000)
    for command in COMMANDS_ON_A_STORE:
        assert "upgrade" in fails(fwfs, FAILED, *command)
    set_version(store, -1000)
    assert state(fwfs) == before


def test_a_directory_is_no_store(fwfs: Fwfs, tmp_path: Path) -> None:
    fails(fwfs, FAILED, "--store", str(tmp_path), "status")


# ---- Firmware ----


@pytest.mark.parametrize("options", [
    ["--mode", "both"],
    ["--mode", "split"],
    ["--mode", "combined", "--nvram-template", "vars.fd"],
    ["--mode", "stateless", "--nvram-template", "vars.fd"],
    ["--mode", "combined", "--arch", "pdp11"],
    ["--mode", "combined", "--interface", "telegraph"],
], ids=" ".join)
def test_firmware_options_that_cannot_be(fwfs: Fwfs, images: Path, unchanged: None,
                                         options: list[str]) -> None:
    options = [str(images / word) if word.endswith(".fd") else word for word in options]
    fails(fwfs, USAGE, "firmware", "add", "f", "--executable", str(images / "code.fd"), *options)


@pytest.mark.parametrize("size", [0, 5000, 64 * 1024 * 1024 + 4096])
def test_images_that_cannot_be_flash(fwfs: Fwfs, images: Path, unchanged: None, size: int) -> None:
    wrong = images / "wrong.fd"
    wrong.touch()
    os.truncate(wrong, size)
    line = fails(fwfs, FAILED, "firmware", "add", "f", "--mode", "combined", "--executable",
                 str(wrong))
    assert str(wrong) in line and str(size) in line
    line = fails(fwfs, FAILED, "firmware", "add", "f", "--executable", str(images / "code.fd"),
                 "--nvram-template", str(wrong))
    assert str(wrong) in line and str(size) in line


def test_an_image_that_does_not_exist(fwfs: Fwfs, images: Path, unchanged: None) -> None:
    for options in (["--executable", "none.fd", "--mode", "combined"],
                    ["--executable", str(images / "code.fd"), "--nvram-template", "none.fd"]):
        assert "none.fd" in fails(fwfs, MISSING, "firmware", "add", "f", *options)


def test_another_firmware_has_the_name(fwfs: Fwfs, images: Path, firmware: None,
                                       unchanged: None) -> None:
    line = fails(fwfs, FAILED, "firmware", "add", "split", "--mode", "combined", "--executable",
                 str(images / "code.fd"))
    assert "split" in line


@bad_names
def test_firmware_names_that_cannot_be(fwfs: Fwfs, images: Path, unchanged: None,
                                       name: str) -> None:
    options = ["--executable", str(images / "code.fd"), "--mode=combined"]
    fails(fwfs, USAGE, "firmware", "add", *options, "--", name)
    fails(fwfs, USAGE, "firmware", "show", "--", name)
    fails(fwfs, USAGE, "firmware", "rm", "--", name)
    fails(fwfs, USAGE, "guest", "add", f"--firmware={name}", "g")


def test_firmware_that_guests_use(fwfs: Fwfs, guests: None, unchanged: None) -> None:
    assert "combined" in fails(fwfs, IN_USE, "firmware", "rm", "combined")


def test_firmware_that_does_not_exist(fwfs: Fwfs, firmware: None, unchanged: None) -> None:
    for call in (["firmware", "show", "none"], ["firmware", "rm", "none"],
                 ["guest", "add", "--firmware", "none", "g"]):
        line = fails(fwfs, MISSING, *call)
        assert "none" in line and "fwfs firmware list" in line


# ---- Descriptors ----


def no_file(images: Path) -> dict[str, str]:
    return {"filename": str(images / "no-such.fd"), "format": "raw"}


# What the line must name; the exit code; what is wrong.
BAD_DESCRIPTORS = {
    "description": (FAILED, lambda images: {"description": None}),
    "interface-types": (FAILED, lambda images: {"interface_types": None}),
    "mapping": (FAILED, lambda images: {"mapping": None}),
    "targets": (FAILED, lambda images: {"targets": "x86_64"}),
    "features": (FAILED, lambda images: {"features": None}),
    "tags": (FAILED, lambda images: {"tags": None}),
    "executable": (FAILED, lambda images: {"mapping": flash(images, executable=None)}),
    "nvram-template": (FAILED, lambda images: {"mapping": flash(images, mode="combined")}),
    "template": (FAILED, lambda images: {"mapping": flash(images, nvram_template=None)}),
    "mode": (FAILED, lambda images: {"mapping": flash(images, mode="dual")}),
    "no-such.fd": (MISSING, lambda images: {"mapping": flash(images, executable=no_file(images))}),
    "memory": (FAILED, lambda images: {"mapping": {"device": "memory", "filename": "/x"}}),
}


@pytest.mark.parametrize("named", BAD_DESCRIPTORS)
def test_descriptors_that_cannot_be_used(fwfs: Fwfs, images: Path, descriptor: Callable[..., str],
                                         unchanged: None, named: str) -> None:
    code, changes = BAD_DESCRIPTORS[named]
    path = descriptor(**changes(images))
    line = fails(fwfs, code, "firmware", "import", path)
    assert path in line and named in line


@pytest.mark.parametrize("text", ["", "{", "no json", "[]", "{}", "{} {}", "\0", "[" * 100000],
                         ids=lambda text: repr(text[:10]))
def test_descriptors_that_are_none(fwfs: Fwfs, tmp_path: Path, unchanged: None, text: str) -> None:
    path = tmp_path / "wrong.json"
    path.write_text(text)
    assert str(path) in fails(fwfs, FAILED, "firmware", "import", str(path))


def test_a_descriptor_that_does_not_exist(fwfs: Fwfs, tmp_path: Path, unchanged: None) -> None:
    fails(fwfs, MISSING, "firmware", "import", str(tmp_path / "none.json"))


def test_the_first_bad_descriptor_ends_an_import(fwfs: Fwfs,
                                                 descriptor: Callable[..., str]) -> None:
    bad = descriptor("2.json", targets=None)
    done = fwfs("firmware", "import", descriptor("1.json"), bad, descriptor("3.json"), check=False)
    assert (done.returncode, done.stdout) == (FAILED, "1: added\n")
    assert done.stderr.count("\n") == 1 and bad in done.stderr and "targets" in done.stderr
    told = json.loads(fwfs("firmware", "list", "--json").stdout)
    assert [f["firmware"] for f in told["firmwares"]] == ["1"]


# ---- Guests ----


@bad_names
def test_guest_names_that_cannot_be(fwfs: Fwfs, firmware: None, unchanged: None, name: str) -> None:
    for call in (["add", "--firmware", "split"], ["show"], ["rm"], ["qemu", "--mountpoint", "/"],
                 ["libvirt", "--mountpoint", "/"]):
        fails(fwfs, USAGE, "guest", *call, "--", name)
    fails(fwfs, USAGE, "guest", "rename", "--", "web01", name)
    fails(fwfs, USAGE, "guest", "rename", "--", name, "web01")


def test_a_bad_name_is_told_before_the_store_is_looked_for(fwfs: Fwfs, bare_store: Path) -> None:
    fails(fwfs, USAGE, "--store", str(bare_store), "guest", "show", "a/b")


@pytest.mark.parametrize("wrong", ["a/b", "", "..", "a\tb", "a\0b"], ids=repr)
def test_a_bad_name_on_stdin_is_told_with_its_line(fwfs: Fwfs, firmware: None, unchanged: None,
                                                   wrong: str) -> None:
    line = fails(fwfs, USAGE, "guest", "add", "--firmware", "combined", "-",
                 input=f"one\n{wrong}\nthree\n")
    assert "line 2" in line


def test_guests_are_added_and_removed_all_or_none(fwfs: Fwfs, guests: None,
                                                  unchanged: None) -> None:
    add = ["guest", "add", "--firmware", "split"]
    assert "web02" in fails(fwfs, FAILED, *add, "new01", "web02", "new02")
    assert "twin" in fails(fwfs, FAILED, *add, "twin", "twin")
    fails(fwfs, USAGE, *add, "new01", "a/b")
    assert "web07" in fails(fwfs, MISSING, "guest", "rm", "web01", "web07")


def test_guests_that_do_not_exist(fwfs: Fwfs, guests: None, unchanged: None) -> None:
    for call in (["show", "web07"], ["rm", "web07"], ["rename", "web07", "web08"],
                 ["qemu", "web07", "--mountpoint", "/"],
                 ["libvirt", "web07", "--mountpoint", "/"]):
        line = fails(fwfs, MISSING, "guest", *call)
        assert "web07" in line and "fwfs guest list" in line


def test_a_guest_that_has_the_new_name(fwfs: Fwfs, guests: None, unchanged: None) -> None:
    assert "web01" in fails(fwfs, FAILED, "guest", "rename", "db 01", "web01")


@pytest.mark.parametrize("owner", ["nosuchuser", "root:nosuchgroup", "3999999999", "4294967295:0",
                                   "99999999999:0", "-1:0"])
def test_owners_that_do_not_exist(fwfs: Fwfs, firmware: None, unchanged: None, owner: str) -> None:
    fails(fwfs, MISSING, "guest", "add", "--firmware", "split", "--owner", owner, "g")


# ---- Mount points ----


def test_a_mount_point_that_does_not_exist(fwfs: Fwfs, guests: None, tmp_path: Path,
                                           unchanged: None) -> None:
    none = str(tmp_path / "none")
    assert none in fails(fwfs, MISSING, "mount", none)
    for verb in ("qemu", "libvirt"):
        assert none in fails(fwfs, MISSING, "guest", verb, "web01", "--mountpoint", none)


def test_a_name_that_xml_cannot_hold(fwfs: Fwfs, firmware: None) -> None:
    fwfs("guest", "add", "--firmware", "split", "a\uffff")
    assert "U+FFFF" in fails(fwfs, FAILED, "guest", "libvirt", "a\uffff", "--mountpoint", "/")


def test_a_mount_point_that_is_taken(fwfs: Fwfs, guests: None, mount: Mounter) -> None:
    fw = mount()
    before = state(fwfs), sorted(os.listdir(fw))
    assert str(fw) in fails(fwfs, IN_USE, "mount", str(fw))
    assert (state(fwfs), sorted(os.listdir(fw))) == before


def test_a_mount_point_that_is_a_file(fwfs: Fwfs, tmp_path: Path, unchanged: None) -> None:
    file = tmp_path / "file"
    file.touch()
    assert str(file) in fails(fwfs, FAILED, "mount", str(file))


def test_mount_options_that_cannot_be(fwfs: Fwfs, tmp_path: Path, unchanged: None) -> None:
    assert "bogus" in fails(fwfs, USAGE, "mount", "-o", "bogus=1", str(tmp_path))
    assert not os.path.ismount(tmp_path)
