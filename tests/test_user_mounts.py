"""A user who is not root makes a store, mounts it, uses it and unmounts it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.namespace import HOME, NOBODY, Namespace
from support.ovmf import OVMF_CODE, OVMF_VARS
from support.waiting import eventually

FWFS = HOME / "bin" / "fwfs"
FW = HOME / "user" / "fw"
FLASH = FW / "web01" / "vars"
STORE = HOME / "user" / "state" / "fwfs" / "fwfs.db"
KILLS = 10
# Four threads take requests; each has room for half a MiB and a header.
BUFFERS_KIB = 4 * (512 + 4)


class User:
    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace

    def __call__(self, *words: str | Path, check: bool = True, memory: str = "8388608") -> Any:
        return self.namespace(*words, user=NOBODY, check=check, memory=memory)

    def fwfs(self, *words: str | Path, check: bool = True, memory: str = "8388608") -> Any:
        return self(FWFS, *words, check=check, memory=memory)

    def mount(self) -> dict[str, Any] | None:
        return json.loads(self.fwfs("status", "--json").stdout)["mount"]

    def worker(self) -> int:
        def running() -> bool:
            mount = self.mount()
            return mount is not None and mount["worker_pid"] != 0

        assert eventually(running)
        mount = self.mount()
        return mount["worker_pid"] if mount and mount["worker_pid"] else self.worker()

    def write(self, text: str) -> None:
        self("sh", "-c", 'printf %s "$1" | dd of="$2" conv=notrunc,fsync status=none', "sh", text,
             FLASH)

    def read(self, length: int) -> str:
        return self("head", "-c", str(length), FLASH).stdout


@pytest.fixture
def user(release_bin: Path) -> Iterator[User]:
    namespace = Namespace(release_bin)
    try:
        user = User(namespace)
        user.fwfs("init")
        user.fwfs("firmware", "add", "ovmf", "--executable", OVMF_CODE, "--nvram-template",
                  OVMF_VARS)
        user.fwfs("guest", "add", "--firmware", "ovmf", "web01")
        user("mkdir", FW)
        yield user
    finally:
        namespace.finish()


def locked_kib(pid: int) -> int:
    found = re.search(r"^VmLck:\s*(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert found
    return int(found[1])


def test_it_comes_works_and_goes(user: User) -> None:
    user.fwfs("mount", FW)
    options = user.namespace.mounts()[str(FW)]
    assert {f"user_id={NOBODY}", "default_permissions", "nosuid", "nodev"} <= options
    assert "allow_other" not in options
    assert user("ls", FW).stdout == "web01\n"
    assert user("stat", "-c", "%u %a", FLASH).stdout == f"{NOBODY} 600\n"
    user.write("mine")
    assert user.read(4) == "mine"
    # Not even root passes without allow_other.
    assert user.namespace("ls", FW, check=False).returncode != 0

    user("fusermount3", "-u", FW)
    assert user.namespace.mounts() == {}
    assert eventually(lambda: user("ls", STORE.parent).stdout == "fwfs.db\n")
    user.fwfs("mount", FW)
    assert user.read(4) == "mine"
    user("umount", FW)
    assert user.namespace.mounts() == {}


def test_a_signal_ends_it(user: User) -> None:
    user.fwfs("mount", FW)
    mount = user.mount()
    assert mount
    user("kill", str(mount["supervisor_pid"]))
    assert eventually(lambda: user.namespace.mounts() == {} and user.mount() is None)


# A limit that is usual, and one that was.
@pytest.mark.parametrize("memory", ["8388608", "65536"])
def test_kills_and_an_upgrade(user: User, memory: str) -> None:
    user.fwfs("mount", FW, memory=memory)
    for number in range(KILLS):
        user.write(f"{number:04}")
        user("kill", "-9", str(user.worker()))
        assert user.read(4) == f"{number:04}"
    user.fwfs("mount", "--reload", FW)
    mount = user.mount()
    assert mount and (mount["restart_count"], mount["upgrade_count"]) == (KILLS, 1)
    user.write("last")
    assert user.read(4) == "last"

    assert locked_kib(user.worker()) == (BUFFERS_KIB if memory == "8388608" else 0)


def test_what_root_may_lock_is_all(user: User) -> None:
    """The same limit does not hold for it."""
    user.namespace(FWFS, "--store", STORE, "mount", FW)
    assert locked_kib(json.loads(user.namespace(FWFS, "--store", STORE, "status", "--json").stdout)
                      ["mount"]["worker_pid"]) > 2 * BUFFERS_KIB


def test_others_are_let_in_if_the_administrator_allows(user: User) -> None:
    refused = user.fwfs("mount", FW, "-o", "allow_other", check=False)
    assert refused.returncode == 1 and refused.stderr.count("\n") == 1
    assert "'user_allow_other' put into /etc/fuse.conf" in refused.stderr
    assert user.namespace.mounts() == {} and user("ls", STORE.parent).stdout == "fwfs.db\n"

    user.namespace.replace("/etc/fuse.conf", "user_allow_other\n")
    user.fwfs("mount", FW, "-o", "allow_other")
    assert "allow_other" in user.namespace.mounts()[str(FW)]
    assert user.namespace("ls", FW).stdout == "web01\n"


def test_why_it_is_refused_is_told(user: User) -> None:
    others = user.namespace.directory("others")
    refused = user.fwfs("mount", others, check=False)
    assert refused.returncode == 1 and refused.stderr.count("\n") == 1
    assert f"{others}: could not be mounted: fusermount3: user has no write access" in \
        refused.stderr


def test_read_only_beside_it(user: User) -> None:
    user.fwfs("mount", FW)
    second = HOME / "user" / "ro"
    user("mkdir", second)
    user.fwfs("mount", second, "-o", "ro")
    user.write("seen")
    assert user("head", "-c", "4", second / "web01" / "vars").stdout == "seen"
    user.fwfs("mount", "--reload", second)
    user("fusermount3", "-u", second)
    user("fusermount3", "-u", FW)


def test_the_store_of_another_is_not_reached(user: User) -> None:
    store = user.namespace.directory("root") / "fwfs.db"
    user.namespace(FWFS, "--store", store, "init")
    refused = user.fwfs("--store", store, "mount", FW, check=False)
    assert refused.returncode == 1 and refused.stderr.count("\n") == 1
