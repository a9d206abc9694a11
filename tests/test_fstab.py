"""Mounting as administrators do: by mount(8), and by a line in /etc/fstab."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.namespace import HOME, NOBODY, Namespace
from support.waiting import eventually

FWFS = HOME / "bin" / "fwfs"
FW, STORE = HOME / "fw", HOME / "store" / "fwfs.db"
USAGE, FAILED = 2, 32

# All that fstab(5), mount(8) and systemd.mount(5) have for every filesystem.
NOTES = ("defaults,auto,noauto,user,nouser,users,owner,group,nofail,_netdev,comment=mine,"
         "x-systemd.automount,x-systemd.requires=network.target,X-mount.note,"
         "relatime,strictatime,lazytime,iversion,silent,default_permissions,nosymfollow")


@pytest.fixture
def machine(release_bin: Path) -> Iterator[Namespace]:
    """With an empty store, and a directory to mount it at."""
    namespace = Namespace(release_bin)
    try:
        namespace.install_helper()
        namespace.directory("fw")
        namespace.directory("store")
        namespace(FWFS, "--store", STORE, "init")
        yield namespace
    finally:
        namespace.finish()


def status(machine: Namespace) -> dict[str, Any]:
    return json.loads(machine(FWFS, "--store", STORE, "status", "--json").stdout)


def fails(machine: Namespace, code: int, *words: str | Path) -> str:
    """Runs what must fail with this code and one line, and returns the line."""
    done = machine(*words, check=False)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("fwfs: ") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize(("given", "there", "absent"), [
    ("rw", {"rw", "nosuid", "nodev", "allow_other", "default_permissions"}, {"noexec"}),
    ("ro", {"ro"}, {"rw"}),
    ("noallow_other", {"default_permissions"}, {"allow_other"}),
    ("noexec,noatime,sync,dirsync", {"noexec", "noatime", "sync", "dirsync"}, set()),
    ("noexec,exec,suid,nosuid", {"nosuid"}, {"noexec"}),
    (f"pull=0.5,hang=2,allow_other,{NOTES}", {"allow_other"}, set()),
], ids=lambda value: value[:20] if isinstance(value, str) else "")
def test_options(machine: Namespace, given: str, there: set[str], absent: set[str]) -> None:
    machine("mount", "-t", "fuse.fwfs", STORE, FW, "-o", given)
    options = machine.mounts()[str(FW)]
    assert there <= options and not absent & options
    machine("umount", FW)
    assert machine.mounts() == {}


def test_fwfs_mount_takes_the_same(machine: Namespace) -> None:
    """And what mount(8) keeps to itself."""
    given = f"{NOTES},noatime,suid,dev,noexec,exec,sync,async"
    machine(FWFS, "--store", STORE, "mount", FW, "-o", given)
    options = machine.mounts()[str(FW)]
    assert "noatime" in options and not {"nosuid", "nodev", "noexec", "sync"} & options


def test_what_is_called_as_something_of_fstab(machine: Namespace) -> None:
    """`owner` alone is a word of fstab, `owner=` says whose new guests are."""
    image = machine.home / "image.fd"
    image.write_bytes(bytes(65536))
    machine(FWFS, "--store", STORE, "firmware", "add", "ovmf", "--mode", "combined",
            "--executable", HOME / "image.fd")
    machine.replace("/etc/fstab",
                    f"{STORE} {FW} fuse.fwfs owner,group,firmware=ovmf,owner=1234:5678 0 0\n")
    machine("mount", FW)
    machine("mkdir", FW / "web01")
    assert machine("stat", "-c", "%u:%g", FW / "web01").stdout == "1234:5678\n"


def test_a_line_in_fstab(machine: Namespace) -> None:
    notes = NOTES.replace(",noauto", "")
    machine.replace("/etc/fstab", f"{STORE} {FW} fuse.fwfs {notes},noexec,pull=2 0 0\n")
    machine("mount", "--all")
    assert "noexec" in machine.mounts()[str(FW)]
    before = status(machine)["mount"]
    assert before["mountpoint"] == str(FW)
    machine("mount", "--all")
    assert status(machine)["mount"] == before, "it was mounted again"
    # Right after another, as `systemctl restart` does.
    for _ in range(5):
        machine("umount", FW)
        machine("mount", FW)
    machine("umount", STORE)
    assert eventually(lambda: status(machine)["mounts"] == [])
    assert os.listdir(machine.home / "store") == [STORE.name]


def test_a_read_only_line_beside_it(machine: Namespace) -> None:
    second = machine.directory("ro")
    machine.replace("/etc/fstab", f"{STORE} {FW} fuse.fwfs defaults 0 0\n"
                                  f"{STORE} {second} fuse.fwfs ro 0 0\n")
    machine("mount", "--all")
    assert [mount["read_only"] for mount in status(machine)["mounts"]] == [False, True]
    machine("mount", "--all")
    assert len(status(machine)["mounts"]) == 2


def test_a_user_mounts_what_fstab_lets_him(machine: Namespace) -> None:
    mine = HOME / "user" / "fw"
    machine(FWFS, "init", user=NOBODY)
    machine("mkdir", mine, user=NOBODY)
    store = HOME / "user" / "state" / "fwfs" / "fwfs.db"
    machine.replace("/etc/fstab", f"{store} {mine} fuse.fwfs noauto,user 0 0\n")
    machine("mount", mine, user=NOBODY)
    assert {f"user_id={NOBODY}", "noexec", "nosuid", "nodev"} <= machine.mounts()[str(mine)]
    machine("umount", mine, user=NOBODY)
    assert machine.mounts() == {}


# ---- What goes wrong ----


def test_a_wrong_option(machine: Namespace) -> None:
    mount = ("mount", "-t", "fuse.fwfs", STORE, FW)
    assert "'bogus' is no mount option" in fails(machine, USAGE, *mount, "-o", "noexec,bogus,sync")
    assert "pull=never" in fails(machine, USAGE, *mount, "-o", "pull=never")
    assert "no value" in fails(machine, USAGE, *mount, "-o", "noexec=1")
    assert machine.mounts() == {} and status(machine)["mounts"] == []
    machine(*mount, "-s", "-o", "noexec,bogus,sync")
    assert {"noexec", "sync"} <= machine.mounts()[str(FW)]
    line = fails(machine, USAGE, "mount", "-o", "remount,ro", FW)
    assert "unmount it and mount it again" in line


def test_what_is_not_there_or_taken(machine: Namespace) -> None:
    mount = ("mount", "-t", "fuse.fwfs")
    second = machine.directory("second")
    assert "no store" in fails(machine, FAILED, *mount, HOME / "none.db", FW)
    machine(*mount, STORE, FW)
    assert f"mounted already, at {FW}" in fails(machine, FAILED, *mount, STORE, second)
    helper = ("/sbin/mount.fuse.fwfs", STORE)
    assert "no such directory" in fails(machine, FAILED, *helper, HOME / "none")
    assert "takes: STORE MOUNTPOINT" in fails(machine, USAGE, *helper)
    assert "unknown option '-x'" in fails(machine, USAGE, *helper, second, "-x")


def test_a_fake_mount_is_none(machine: Namespace) -> None:
    mount = ("mount", "--fake", "-t", "fuse.fwfs", STORE, FW)
    machine(*mount, "-o", "noexec", "-v")
    assert machine.mounts() == {} and status(machine)["mounts"] == []
    fails(machine, USAGE, *mount, "-o", "bogus")


def test_in_another_namespace(machine: Namespace) -> None:
    """mount -N: the helper is told where, and runs elsewhere."""
    holder = machine("sh", "-c", "unshare --mount --propagation private sleep infinity "
                                 ">/dev/null 2>&1 & echo $!").stdout.strip()
    try:
        namespace = Path(f"/proc/{holder}/ns/mnt")
        assert eventually(lambda: os.readlink(namespace) != machine.name)
        machine("mount", "-N", holder, "-t", "fuse.fwfs", STORE, FW)
        assert machine.mounts() == {}
        assert f" {FW} fuse.fwfs " in Path(f"/proc/{holder}/mounts").read_text()
        assert status(machine)["mount"]["mountpoint"] == str(FW)
        subprocess.run(["nsenter", f"--mount={namespace}", "umount", FW], check=True)
        assert eventually(lambda: status(machine)["mounts"] == [])
    finally:
        os.kill(int(holder), 9)


# ---- Installing ----


def test_it_is_installed_where_mount_looks(release_bin: Path, tmp_path: Path) -> None:
    subprocess.run(["meson", "install", "--no-rebuild", "-C", release_bin.parent], check=True,
                   stdout=subprocess.DEVNULL, env={**os.environ, "DESTDIR": str(tmp_path)})
    helper = tmp_path / "sbin" / "mount.fuse.fwfs"
    installed = Path(os.readlink(helper))
    assert (tmp_path / installed.relative_to("/")).read_bytes() == release_bin.read_bytes()
