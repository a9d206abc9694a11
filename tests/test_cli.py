"""The command line: what every verb does."""

from __future__ import annotations

import grp
import json
import os
import pty
import pwd
import stat
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest

from support.cli import (CODE_SIZE, COMMANDS, FAILED, NOUNS, VARS_SIZE, descriptor, firmware,
                         guest_names, guests, images, unchanged)  # noqa: F401
from support.mounting import Mounter
from support.program import Fwfs, run_program
from support.waiting import eventually

# ---- Help ----


def test_help_tells_of_every_command(fwfs: Fwfs) -> None:
    text = fwfs("--help").stdout
    for command in COMMANDS:
        assert f"  {' '.join(command)} " in text
    assert fwfs("help").stdout == text
    assert "Exit codes: 0 done" in text and "--store PATH" in text


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_of_a_command_teaches(fwfs: Fwfs, command: list[str]) -> None:
    text = fwfs(*command, "--help").stdout
    assert text.startswith(f"Usage: fwfs {' '.join(command)}")
    example = text.partition("\nExample")[2]
    assert "fwfs" in example and all(word in example for word in command)
    assert "Exit codes:" in text
    assert all(len(line) <= 100 for line in text.splitlines())
    assert fwfs("help", *command).stdout == text
    assert fwfs(*command, "-h").stdout == text


@pytest.mark.parametrize("noun", NOUNS)
def test_help_of_a_noun_lists_its_verbs(fwfs: Fwfs, noun: str) -> None:
    text = fwfs(noun, "--help").stdout
    for verb in NOUNS[noun]:
        assert f"  {noun} {verb} " in text
    assert fwfs(noun, "help").stdout == text


def test_version(fwfs: Fwfs) -> None:
    name, version = fwfs("--version").stdout.split()
    assert name == "fwfs" and version.count(".") == 2


def test_global_options_stand_anywhere(fwfs: Fwfs, guests: None) -> None:
    wanted = fwfs("guest", "list", "--json").stdout
    assert fwfs("--json", "guest", "list").stdout == wanted
    assert fwfs("guest", "--json", "list").stdout == wanted


# ---- The store ----


def test_init(fwfs: Fwfs, bare_store: Path) -> None:
    assert str(bare_store) in fwfs("init", "--store", str(bare_store)).stdout
    assert fwfs("guest", "list", "--store", str(bare_store)).stdout.split()[0] == "GUEST"


def test_init_as_json(fwfs: Fwfs, bare_store: Path) -> None:
    told = json.loads(fwfs("--store", str(bare_store), "--json", "init").stdout)
    assert told == {"schema_version": 1, "store": str(bare_store)}


def test_init_makes_the_directory(fwfs: Fwfs, tmp_path: Path) -> None:
    fwfs("--store", str(tmp_path / "one" / "fwfs.db"), "init")
    assert (tmp_path / "one" / "fwfs.db").is_file()


def test_the_store_is_found_by_the_environment(fwfs_bin: Path, store: Path, guests: None) -> None:
    done = run_program(fwfs_bin, "status", "--json", env={"FWFS_STORE": str(store)})
    assert json.loads(done.stdout)["guest_count"] == 3


def test_status_counts(fwfs: Fwfs, store: Path, guests: None) -> None:
    told = json.loads(fwfs("status", "--json").stdout)
    assert (told["schema_version"], told["store"]) == (1, str(store))
    assert (told["guest_count"], told["firmware_count"]) == (3, 3)
    # code.fd is there once, though three use it; of vars.fd all but a block is fill.
    assert told["image_count"] == 2
    assert told["shared_block_count"] == CODE_SIZE // 4096 + 1
    assert told["file_size_bytes"] >= told["stored_bytes"] > 0
    words = fwfs("status").stdout.split()
    assert str(store) in words and str(told["unique_bytes"]) in words


def test_status_on_a_terminal_has_human_sizes(fwfs_bin: Path, store: Path, guests: None) -> None:
    master, slave = pty.openpty()
    subprocess.run([fwfs_bin, "--store", store, "status"], stdout=slave, check=True)
    os.close(slave)
    text = os.read(master, 65536).decode()
    os.close(master)
    assert ["unique:", "68", "KiB"] in [line.split() for line in text.splitlines()]


# ---- Firmware ----


def test_firmware_show(fwfs: Fwfs, images: Path, firmware: None) -> None:
    told = json.loads(fwfs("firmware", "show", "split", "--json").stdout)
    assert (told["schema_version"], told["firmware"], told["mode"]) == (1, "split", "split")
    assert told["executable"]["filename"] == str(images / "code.fd")
    assert told["machines"] == ["pc-i440fx-*", "pc-q35-*"]
    text = fwfs("firmware", "show", "split").stdout
    assert told["executable"]["sha256"] in text and "schema version" not in text


def test_firmware_list(fwfs: Fwfs, firmware: None) -> None:
    told = json.loads(fwfs("firmware", "list", "--json").stdout)
    assert told["schema_version"] == 1
    modes = ["combined", "split", "stateless"]
    assert [(f["firmware"], f["mode"]) for f in told["firmwares"]] == [(m, m) for m in modes]
    rows = [line.split() for line in fwfs("firmware", "list").stdout.splitlines()]
    assert rows[0] == ["FIRMWARE", "MODE", "EXECUTABLE", "NVRAM-TEMPLATE", "GUESTS"]
    assert rows[2] == ["split", "split", str(CODE_SIZE), str(VARS_SIZE), "0"]
    assert rows[3] == ["stateless", "stateless", str(CODE_SIZE), "-", "0"]


def test_an_empty_list_is_a_list(fwfs: Fwfs) -> None:
    assert json.loads(fwfs("firmware", "list", "--json").stdout)["firmwares"] == []
    assert json.loads(fwfs("guest", "list", "--json").stdout)["guests"] == []


def test_firmware_added_again_is_unchanged(fwfs: Fwfs, images: Path, firmware: None,
                                           unchanged: None) -> None:
    again = ["firmware", "add", "combined", "--mode", "combined", "--executable",
             str(images / "code.fd")]
    assert fwfs(*again).stdout == "combined: unchanged\n"
    told = json.loads(fwfs(*again, "--json").stdout)
    assert told["firmwares"] == [{"firmware": "combined", "result": "unchanged"}]


def test_firmware_files_are_kept_with_their_whole_path(fwfs: Fwfs, images: Path) -> None:
    relative = os.path.relpath(images / "code.fd")
    fwfs("firmware", "add", "f", "--mode", "combined", "--executable", relative)
    told = json.loads(fwfs("firmware", "show", "f", "--json").stdout)
    assert told["executable"]["filename"] == str(images / "code.fd")


def test_firmware_options_are_kept(fwfs: Fwfs, images: Path) -> None:
    fwfs("firmware", "add", "f", "--mode", "combined", "--executable", str(images / "code.fd"),
         "--arch", "aarch64", "--description", "Büro", "--feature", "acpi-s3", "--feature",
         "secure-boot", "--interface", "bios")
    told = json.loads(fwfs("firmware", "show", "f", "--json").stdout)
    assert told["description"] == "Büro"
    assert (told["architecture"], told["machines"]) == ("aarch64", ["virt-*"])
    assert told["features"] == ["acpi-s3", "secure-boot"]
    assert told["descriptor"]["interface-types"] == ["bios"]


def test_firmware_of_qcow2(fwfs: Fwfs, images: Path) -> None:
    raw, qcow2 = images / "code.fd", images / "code.qcow2"
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, qcow2], check=True)
    for image in (raw, qcow2):
        name = image.suffix[1:]
        fwfs("firmware", "add", name, "--mode", "combined", "--executable", str(image))
    assert json.loads(fwfs("status", "--json").stdout)["image_count"] == 1


def test_firmware_rm(fwfs: Fwfs, firmware: None) -> None:
    fwfs("firmware", "rm", "combined")
    told = json.loads(fwfs("firmware", "list", "--json").stdout)
    assert [f["firmware"] for f in told["firmwares"]] == ["split", "stateless"]


def test_import_of_named_descriptors(fwfs: Fwfs, descriptor: Callable[..., str]) -> None:
    one, two = descriptor("50-one.json"), descriptor("60-two.json")
    assert fwfs("firmware", "import", one, two).stdout == "50-one: added\n60-two: added\n"
    assert fwfs("firmware", "import", two).stdout == "60-two: unchanged\n"
    told = json.loads(fwfs("--json", "firmware", "import", one).stdout)
    assert told["schema_version"] == 1
    assert told["firmwares"] == [{"firmware": "50-one", "result": "unchanged"}]


@pytest.mark.skipif(not any(Path("/usr/share/qemu/firmware").glob("*.json")),
                    reason="no descriptors are installed here")
def test_import_of_the_search_path(fwfs: Fwfs) -> None:
    done = fwfs("firmware", "import", check=False)
    assert done.returncode == (0 if done.stdout else FAILED)
    for line in done.stderr.splitlines():
        assert line.startswith("fwfs: warning: /") and line.endswith("; passed over")
    names = [line.removesuffix(": added") for line in done.stdout.splitlines()]
    told = json.loads(fwfs("firmware", "list", "--json").stdout)
    assert names == [f["firmware"] for f in told["firmwares"]]
    again = fwfs("firmware", "import", check=False)
    assert again.stdout == "".join(f"{name}: unchanged\n" for name in names)


# ---- Guests ----


def test_guest_add_and_list(fwfs: Fwfs, guests: None) -> None:
    told = json.loads(fwfs("guest", "list", "--json").stdout)
    assert told["schema_version"] == 1
    me = {"uid": os.getuid(), "gid": os.getgid()}
    other = {"uid": 1234, "gid": 5678}
    assert told["guests"] == [
        {"guest": "db 01", "firmware": "split", "mode": "split", "owner": other},
        {"guest": "web01", "firmware": "combined", "mode": "combined", "owner": me},
        {"guest": "web02", "firmware": "combined", "mode": "combined", "owner": me},
    ]
    lines = fwfs("guest", "list").stdout.splitlines()
    assert lines[:2] == ["GUEST  FIRMWARE  MODE      OWNER",
                         "db 01  split     split     1234:5678"]


def test_names_that_can_be(fwfs: Fwfs, firmware: None) -> None:
    names = ["x" * 255, "büro ☕", "a'b\"c\\d", "$(reboot)", "a-b", "a.b", "a;b|c"]
    fwfs("guest", "add", "--firmware", "stateless", *names)
    assert sorted(guest_names(fwfs)) == sorted(names)
    for name in names:
        assert json.loads(fwfs("guest", "show", name, "--json").stdout)["guest"] == name


def test_names_come_from_stdin(fwfs: Fwfs, firmware: None) -> None:
    names = [f"vm{i:04}" for i in range(2000)]
    fwfs("guest", "add", "--firmware", "combined", "first", "-", "last", input="\n".join(names))
    assert guest_names(fwfs) == ["first", "last", *names]
    fwfs("guest", "rm", "-", input="\n".join(names) + "\n")
    assert guest_names(fwfs) == ["first", "last"]
    fwfs("guest", "rm", "-", input="")
    assert guest_names(fwfs) == ["first", "last"]


def test_owners(fwfs: Fwfs, firmware: None) -> None:
    nobody, daemon = pwd.getpwnam("nobody"), grp.getgrnam("daemon")
    cases = {
        "nobody": (nobody.pw_uid, nobody.pw_gid),
        str(nobody.pw_uid): (nobody.pw_uid, nobody.pw_gid),
        "nobody:daemon": (nobody.pw_uid, daemon.gr_gid),
        "123:456": (123, 456),
    }
    for number, owner in enumerate(cases):
        fwfs("guest", "add", "--firmware", "split", "--owner", owner, f"g{number}")
    told = json.loads(fwfs("guest", "list", "--json").stdout)["guests"]
    owners = [(guest["owner"]["uid"], guest["owner"]["gid"]) for guest in told]
    assert owners == list(cases.values())
    assert "nobody:daemon" in fwfs("guest", "list").stdout


def test_guest_show(fwfs: Fwfs, guests: None) -> None:
    told = json.loads(fwfs("guest", "show", "web01", "--json").stdout)
    assert told["schema_version"] == 1
    assert (told["guest"], told["firmware"], told["mode"]) == ("web01", "combined", "combined")
    text = fwfs("guest", "show", "web01").stdout
    assert "web01" in text and "combined" in text and "schema version" not in text


def test_guest_rm(fwfs: Fwfs, guests: None) -> None:
    fwfs("guest", "rm", "web01", "db 01")
    assert guest_names(fwfs) == ["web02"]


def test_guest_rename(fwfs: Fwfs, guests: None) -> None:
    before = json.loads(fwfs("guest", "show", "db 01", "--json").stdout)
    fwfs("guest", "rename", "db 01", "db02")
    after = json.loads(fwfs("guest", "show", "db02", "--json").stdout)
    assert before | {"guest": "db02"} == after
    assert guest_names(fwfs) == ["db02", "web01", "web02"]


# ---- QEMU's arguments ----


def arguments_of(fwfs: Fwfs, guest: str, mountpoint: str | Path) -> list[str]:
    done = fwfs("guest", "qemu", guest, "--mountpoint", mountpoint, "--json")
    told = json.loads(done.stdout)
    assert (told["schema_version"], told["guest"]) == (1, guest)
    return told["arguments"]


def test_guest_qemu(fwfs: Fwfs, guests: None, tmp_path: Path) -> None:
    text = fwfs("guest", "qemu", "web01", "--mountpoint", tmp_path).stdout
    assert all(line.startswith("-") and line.count(" ") == 1 for line in text.splitlines())
    # A plain name needs no quotes: an unquoted $(…) gives the same words.
    assert text.split() == arguments_of(fwfs, "web01", tmp_path)


def test_guest_qemu_is_quoted_for_a_shell(fwfs: Fwfs, firmware: None, tmp_path: Path) -> None:
    name = "it's $(reboot)  `x` \"y\" \\ *"
    fwfs("guest", "add", "--firmware", "split", name)
    text = fwfs("guest", "qemu", name, "--mountpoint", tmp_path).stdout
    script = 'eval "printf \'%s\\n\' $(printf %s "$1" | tr "\\n" " ")"'
    words = subprocess.run(["sh", "-c", script, "sh", text], check=True, capture_output=True,
                           text=True).stdout.splitlines()
    assert words == arguments_of(fwfs, name, tmp_path)
    assert any(name in word for word in words)


def test_guest_qemu_takes_the_mount_points_whole_path(fwfs: Fwfs, guests: None,
                                                      tmp_path: Path) -> None:
    arguments = arguments_of(fwfs, "web01", os.path.relpath(tmp_path))
    assert any(f"{tmp_path}/web01/code" in argument for argument in arguments)


# ---- libvirt's domain ----


def test_guest_libvirt(fwfs: Fwfs, guests: None, tmp_path: Path) -> None:
    text = fwfs("guest", "libvirt", "web01", "--mountpoint", os.path.relpath(tmp_path)).stdout
    assert text.startswith("<domain type='kvm'>\n") and f">{tmp_path}/web01/code<" in text
    told = json.loads(fwfs("guest", "libvirt", "web01", "--mountpoint", tmp_path, "--json").stdout)
    assert told == {"schema_version": 1, "guest": "web01", "domain": text}


def test_guest_libvirt_is_safe_to_print(fwfs: Fwfs, firmware: None, tmp_path: Path) -> None:
    name = "a\u202eb\u2028ü"
    fwfs("guest", "add", "--firmware", "split", name)
    text = fwfs("guest", "libvirt", name, "--mountpoint", tmp_path).stdout
    assert "<name>a&#x202e;b&#x2028;ü</name>" in text
    assert ElementTree.fromstring(text).findtext("name") == name


# ---- Mounting ----


def test_mount(fwfs: Fwfs, guests: None, mount: Mounter) -> None:
    fw = mount()
    assert sorted(os.listdir(fw)) == ["db 01", "web01", "web02"]
    shown = fwfs("guest", "show", "web01", "--json").stdout
    assert (fw / "web01" / "guest.json").read_text() == shown
    assert stat.S_IMODE((fw / "db 01" / "vars").stat().st_mode) == 0o600


def test_mount_in_the_foreground(fwfs_bin: Path, store: Path, guests: None, tmp_path: Path) -> None:
    directory = tmp_path / "fw"
    directory.mkdir()
    command = [fwfs_bin, "--store", store, "mount", "--foreground", directory]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert eventually(lambda: os.path.ismount(directory), seconds=30)
            assert sorted(os.listdir(directory)) == ["db 01", "web01", "web02"]
        finally:
            subprocess.run(["umount", directory], check=False)
            process.communicate(timeout=30)
    assert process.returncode == 0


# ---- Output ----


def test_output_that_cannot_be_written_is_noticed(fwfs_bin: Path, store: Path,
                                                  guests: None) -> None:
    for words in ("--help", "--version", "status", "guest list", "guest list --json"):
        call = [fwfs_bin, "--store", store, *words.split()]
        for redirection in (">/dev/full", ">&-"):
            done = subprocess.run(["sh", "-c", f'"$@" {redirection}', "sh", *call],
                                  stderr=subprocess.PIPE, text=True, check=False)
            assert done.returncode == FAILED
            assert done.stderr.count("\n") == 1 and "stdout" in done.stderr


def test_a_closed_pipe_is_noticed(fwfs: Fwfs, fwfs_bin: Path, store: Path, firmware: None) -> None:
    names = "\n".join(f"vm{i:05}" for i in range(10000))
    fwfs("guest", "add", "--firmware", "combined", "-", input=names)
    call = [fwfs_bin, "--store", store, "guest", "list", "--json"]
    with subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read().count("\n") == 1
    assert process.returncode == FAILED


def test_nothing_that_a_terminal_obeys_is_printed(fwfs: Fwfs,
                                                  descriptor: Callable[..., str]) -> None:
    hostile = "\x1b[2J \x7f \x9b31m \u202etxt \u2028"
    fwfs("firmware", "import", descriptor("50-x.json", description=hostile))
    for call in (["show", "50-x"], ["show", "50-x", "--json"], ["list", "--json"]):
        text = fwfs("firmware", *call).stdout
        assert all(line.isprintable() for line in text.split("\n"))
    told = json.loads(fwfs("firmware", "show", "50-x", "--json").stdout)
    assert told["description"] == hostile
