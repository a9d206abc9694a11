"""Two tenants on one mount, with guests of every mode: each tries everything on every file, on its
own and on the other's."""

from __future__ import annotations

import errno
import json
import mmap
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.cli import VARS_SIZE, firmware, images  # noqa: F401
from support.mounting import Mounter
from support.program import Fwfs
from support.tenant import Tenant, names
from support.waiting import eventually

ALICE = Tenant(uid=20001, gid=20001)
BOB = Tenant(uid=20002, gid=20002)
TENANTS = {"alice": ALICE, "bob": BOB}
MODES = ("split", "combined", "stateless")
STAGING, MISSING = "vars.new", "nothing"
FILES = ("code", "vars", "firmware.json", "guest.json", STAGING, MISSING)
REFUSED = {"EACCES", "EPERM", "EROFS"}
ATTRIBUTE = "user.tenant"

# What is done to a file, by its path; the tenant is the one that does it.
Operation = Callable[[str, Tenant], object]


@pytest.fixture(scope="session")
def fwfs_bin(release_bin: Path) -> Path:
    return release_bin


@pytest.fixture
def fw(fwfs: Fwfs, firmware: None, mount: Mounter) -> Path:  # noqa: F811
    """Guests alice-split, alice-combined and so on. mkdir would make guests, for whoever may."""
    for name, tenant in TENANTS.items():
        for mode in MODES:
            fwfs("guest", "add", "--firmware", mode, "--owner", f"{tenant.uid}:{tenant.gid}",
                 f"{name}-{mode}")
    fw = mount("-o", "firmware=split")
    for name, tenant in TENANTS.items():
        assert tenant.attempt(fw, lambda name=name: fill(name)) == 0
    # Who holds a flash is told in its guest's guest.json, which is compared too.
    assert eventually(lambda: not any(has_holder(guest) for guest in fw.iterdir()))
    return fw


def has_holder(guest: Path) -> bool:
    return json.loads((guest / "guest.json").read_text())["holder"] is not None


def fill(name: str) -> None:
    """Bytes and an attribute of the tenant's own in all that it may write."""
    for path in (f"{name}-split/vars", f"{name}-combined/code", f"{name}-split/{STAGING}"):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.pwrite(descriptor, name.encode() * 1000, 0)
        os.ftruncate(descriptor, max(os.fstat(descriptor).st_size, VARS_SIZE))
        os.setxattr(path, ATTRIBUTE, name.encode())
        os.close(descriptor)


# ---- What is tried ----


def opening(flags: int, then: Callable[[int], object] = lambda descriptor: None) -> Operation:
    """Opens, does `then`, and closes; a file that it made is removed again."""
    def act(path: str, tenant: Tenant) -> None:
        existed = os.path.exists(path)
        descriptor = os.open(path, flags, 0o600)
        try:
            then(descriptor)
        finally:
            os.close(descriptor)
        if not existed:
            os.unlink(path)

    return act


def map_and_write(descriptor: int) -> None:
    with mmap.mmap(descriptor, 4096) as mapped:
        mapped[0] = mapped[0]


def beside(path: str) -> str:
    return f"{os.path.dirname(path)}/moved"


def rename_there_and_back(path: str, _: Tenant) -> None:
    os.rename(path, beside(path))
    os.rename(beside(path), path)


def rename_to_another_guest(path: str, _: Tenant) -> None:
    # To another name: code of the same name is the same file, and to rename that is no change.
    owner, mode = os.path.dirname(path).split("-")
    os.rename(path, f"{owner}-{'stateless' if mode == 'split' else 'split'}/moved")


READ, WRITE, MAKE = os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_CREAT
OPERATIONS: dict[str, Operation] = {
    "read": opening(READ, lambda descriptor: os.pread(descriptor, 4096, 0)),
    "seek": opening(READ, lambda descriptor: os.lseek(descriptor, 0, os.SEEK_END)),
    "stat": lambda path, _: os.stat(path),
    "statfs": lambda path, _: os.statvfs(path),
    "readlink": lambda path, _: os.readlink(path),
    "write": opening(WRITE, lambda descriptor: os.pwrite(descriptor, b"x", 0)),
    "append": opening(os.O_WRONLY | os.O_APPEND),
    "map": opening(WRITE, map_and_write),
    "chmod": lambda path, _: os.chmod(path, 0o600),
    "chown to oneself": lambda path, tenant: os.chown(path, tenant.uid, tenant.gid),
    "chown to root": lambda path, _: os.chown(path, 0, 0),
    "utime": lambda path, _: os.utime(path),
    "setxattr": lambda path, _: os.setxattr(path, ATTRIBUTE, b"1"),
    "getxattr": lambda path, _: os.getxattr(path, ATTRIBUTE),
    "listxattr": lambda path, _: os.listxattr(path),
    "removexattr": lambda path, _: os.removexattr(path, ATTRIBUTE),
    "create": opening(MAKE),
    "create anew": opening(MAKE | os.O_EXCL),
    "mkdir": lambda path, _: os.mkdir(path),
    "rmdir": lambda path, _: os.rmdir(path),
    "symlink": lambda path, _: os.symlink("vars", path),
    "mknod": lambda path, _: os.mknod(path, stat.S_IFIFO | 0o600),
    "link": lambda path, _: os.link(path, beside(path)),
    "rename": rename_there_and_back,
    "rename to another guest": rename_to_another_guest,
    "truncate": lambda path, _: os.truncate(path, 0),
    "open and truncate": opening(WRITE | os.O_TRUNC),
    "unlink": lambda path, _: os.unlink(path),
}

# How each ends for the owner: 0, an errno, or "-" for one of REFUSED. Columns:
#   vars     of a split guest
#   flash    code of a combined guest
#   shared   code of the others
#   json     what is generated
#   staging  a staging file
#   by mode  vars where the mode has none
#   new      another name in a split guest
#   closed   another name in the others
KINDS = ("vars", "flash", "shared", "json", "staging", "by mode", "new", "closed")
FOR_THE_OWNER = {
    "read":             "0 0 0 0 0 ENOENT ENOENT ENOENT",
    "seek":             "0 0 0 0 0 ENOENT ENOENT ENOENT",
    "stat":             "0 0 0 0 0 ENOENT ENOENT ENOENT",
    "statfs":           "0 0 0 0 0 ENOENT ENOENT ENOENT",
    "readlink":         "EINVAL EINVAL EINVAL EINVAL EINVAL ENOENT ENOENT ENOENT",
    "write":            "0 0 - - 0 ENOENT ENOENT ENOENT",
    "append":           "0 0 - - 0 ENOENT ENOENT ENOENT",
    "map":              "0 0 - - 0 ENOENT ENOENT ENOENT",
    "chmod":            "0 0 - - 0 ENOENT ENOENT ENOENT",
    "chown to oneself": "0 0 - - 0 ENOENT ENOENT ENOENT",
    "chown to root":    "- - - - - ENOENT ENOENT ENOENT",
    "utime":            "0 0 - - 0 ENOENT ENOENT ENOENT",
    "setxattr":         "0 0 - - 0 ENOENT ENOENT ENOENT",
    "getxattr":         "0 0 ENODATA ENODATA 0 ENOENT ENOENT ENOENT",
    "listxattr":        "0 0 0 0 0 ENOENT ENOENT ENOENT",
    "removexattr":      "0 0 - - 0 ENOENT ENOENT ENOENT",
    "create":           "0 0 - - 0 - 0 -",
    "create anew":      "EEXIST EEXIST EEXIST EEXIST EEXIST - 0 -",
    "mkdir":            "EEXIST EEXIST EEXIST EEXIST EEXIST - - -",
    "rmdir":            "ENOTDIR ENOTDIR ENOTDIR ENOTDIR ENOTDIR ENOENT ENOENT ENOENT",
    "symlink":          "EEXIST EEXIST EEXIST EEXIST EEXIST - - -",
    "mknod":            "EEXIST EEXIST EEXIST EEXIST EEXIST - - -",
    "link":             "- - - - - ENOENT ENOENT ENOENT",
    "rename":           "- - - - 0 ENOENT ENOENT ENOENT",
    "rename to another guest": "- - - - EXDEV ENOENT ENOENT ENOENT",
    "truncate":         "0 0 - - 0 ENOENT ENOENT ENOENT",
    "open and truncate": "0 0 - - 0 ENOENT ENOENT ENOENT",
    "unlink":           "0 - - - 0 ENOENT ENOENT ENOENT",
}


def kind_of(mode: str, file: str) -> str:
    if file.endswith(".json"):
        return "json"
    if file == "code":
        return "flash" if mode == "combined" else "shared"
    if file == "vars":
        return "vars" if mode == "split" else "by mode"
    if mode != "split":
        return "closed"
    return "staging" if file == STAGING else "new"


# ---- What is there ----


def attributes(path: Path) -> tuple[object, ...]:
    status = path.lstat()
    size = status.st_size if path.name != "guest.json" else None  # its contents tell it
    return (status.st_ino, status.st_mode, status.st_uid, status.st_gid, size, status.st_nlink,
            status.st_mtime_ns, status.st_ctime_ns)


def snapshot(fw: Path, name: str) -> dict[str, object]:
    """As root sees it: all names, and of the tenant's files all attributes and bytes."""
    found: dict[str, object] = {"guests": sorted(os.listdir(fw))}
    for mode in MODES:
        guest = fw / f"{name}-{mode}"
        found[guest.name] = attributes(guest), sorted(os.listdir(guest))
        for file in guest.iterdir():
            extended = {key: os.getxattr(file, key) for key in os.listxattr(file)}
            found[f"{guest.name}/{file.name}"] = attributes(file), extended, contents(file)
    return found


def contents(file: Path) -> object:
    if file.name != "guest.json":
        return file.read_bytes()
    told = json.loads(file.read_text())
    # What was written is compressed some time later, which is nobody's doing.
    del told["usage"]["stored_bytes"]
    return told


def changes(before: dict[str, object], after: dict[str, object]) -> list[str]:
    return [path for path in before.keys() | after.keys() if before.get(path) != after.get(path)]


def others() -> Iterator[tuple[str, str]]:
    """Who tries, and whose it is."""
    yield "bob", "alice"
    yield "alice", "bob"


# ---- The other's ----


def tell_wrong(fw: Path, who: str, whose: str,
               attempts: dict[str, Callable[[], object]]) -> list[str]:
    """Tries each, and tells which were not refused or changed something."""
    before = snapshot(fw, whose)
    wrong = []
    for what, attempt in attempts.items():
        outcome = names([TENANTS[who].attempt(fw, attempt)])[0]
        if outcome not in REFUSED:
            wrong.append(f"{who}: {what}: {outcome}")
    wrong += [f"{who} changed {path}" for path in changes(before, snapshot(fw, whose))]
    return wrong


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("who", "whose"), others())
def test_the_others_files(fw: Path, who: str, whose: str, mode: str) -> None:
    wrong = []
    for file in FILES:
        path = f"{whose}-{mode}/{file}"
        attempts = {f"{what} {path}": lambda operation=operation: operation(path, TENANTS[who])
                    for what, operation in OPERATIONS.items()}
        mine = f"{who}-split/{STAGING}"
        attempts |= {
            f"rename its own over {path}": lambda: os.rename(mine, path),
            f"link its own to {path}": lambda: os.link(mine, path),
            f"take {path}": lambda: os.rename(path, f"{who}-split/taken"),
            f"take {path} as its own vars": lambda: os.rename(path, f"{who}-split/vars"),
            f"link {path} to its own": lambda: os.link(path, f"{who}-split/taken"),
            f"reach {path} from its directory": lambda: reach(path),
        }
        wrong += tell_wrong(fw, who, whose, attempts)
    assert not wrong, "\n".join(wrong)


def reach(path: str) -> None:
    """Without a right to it a directory can be held by a descriptor, as a path."""
    directory, file = path.split("/")
    os.open(file, os.O_RDONLY, dir_fd=os.open(directory, os.O_PATH))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("who", "whose"), others())
def test_the_others_guest(fw: Path, who: str, whose: str, mode: str) -> None:
    guest, own = f"{whose}-{mode}", f"{who}-{mode}"
    wrong = tell_wrong(fw, who, whose, {
        "list": lambda: os.listdir(guest),
        "enter": lambda: os.chdir(guest),
        "open": lambda: os.open(guest, os.O_RDONLY),
        "chmod": lambda: os.chmod(guest, 0o777),
        "chown": lambda: os.chown(guest, TENANTS[who].uid, TENANTS[who].gid),
        "utime": lambda: os.utime(guest),
        "setxattr": lambda: os.setxattr(guest, ATTRIBUTE, b"1"),
        "removexattr": lambda: os.removexattr(guest, ATTRIBUTE),
        "rmdir": lambda: os.rmdir(guest),
        "rename": lambda: os.rename(guest, f"{who}-taken"),
        "rename into its own": lambda: os.rename(guest, f"{own}/taken"),
        "rename its own over it": lambda: os.rename(own, guest),
        "rename it over its own": lambda: os.rename(guest, own),
        "truncate": lambda: open(f"{guest}/.", "w").close(),
    })
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("who", TENANTS)
def test_the_directory_of_all_guests(fw: Path, who: str) -> None:
    """Guests are made, removed and renamed by root; a tenant's own name is no exception."""
    own, new = f"{who}-split", "new"
    wrong = tell_wrong(fw, who, who, {
        "list": lambda: os.listdir("."),
        "create": lambda: os.open(new, MAKE, 0o600),
        "mkdir": lambda: os.mkdir(new),
        "symlink": lambda: os.symlink(own, new),
        "mknod": lambda: os.mknod(new, stat.S_IFIFO | 0o600),
        "link": lambda: os.link(f"{own}/vars", new),
        "rename a file to it": lambda: os.rename(f"{own}/{STAGING}", new),
        "rename its own": lambda: os.rename(own, new),
        "rmdir its own": lambda: os.rmdir(own),
        "chmod": lambda: os.chmod(".", 0o777),
        "chown": lambda: os.chown(".", TENANTS[who].uid, TENANTS[who].gid),
        "utime": lambda: os.utime("."),
        "setxattr": lambda: os.setxattr(".", ATTRIBUTE, b"1"),
    })
    assert not wrong, "\n".join(wrong)
    assert TENANTS[who].attempt(fw, lambda: os.statvfs(".")) == 0


# ---- One's own ----


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("other", "who"), others())
def test_ones_own_files(fw: Path, who: str, other: str, mode: str) -> None:
    """All that the design allows works, all else is refused, and none of it touches the other."""
    before = snapshot(fw, other)
    wrong = []
    for file in FILES:
        path, column = f"{who}-{mode}/{file}", KINDS.index(kind_of(mode, file))
        for what, operation in OPERATIONS.items():
            code = TENANTS[who].attempt(fw, lambda: operation(path, TENANTS[who]))
            expected = FOR_THE_OWNER[what].split()[column]
            outcome = names([code])[0]
            if outcome not in (REFUSED if expected == "-" else {expected}):
                wrong.append(f"{what} {path}: {outcome}, not {expected}")
    assert not wrong, "\n".join(wrong)
    assert changes(before, snapshot(fw, other)) == []


@pytest.mark.parametrize("who", TENANTS)
def test_ones_own_vars_are_replaced(fw: Path, who: str) -> None:
    """As libvirt resets a guest: in a file beside it, renamed over it."""
    tenant, vars_file = TENANTS[who], f"{who}-split/vars"
    contents = bytes(range(256)) * (VARS_SIZE // 256)

    def replace() -> None:
        with open(f"{who}-split/another", "xb") as file:
            file.write(contents)
            os.fsync(file.fileno())
        os.rename(f"{who}-split/another", vars_file)

    assert names([tenant.attempt(fw, replace)]) == ["0"]
    assert (fw / vars_file).read_bytes() == contents
    assert (fw / vars_file).stat().st_uid == tenant.uid
    for again in (lambda: os.unlink(vars_file), lambda: os.open(vars_file, MAKE, 0o600)):
        assert names([tenant.attempt(fw, again)]) == ["0"]
    assert eventually(lambda: (fw / vars_file).stat().st_size == VARS_SIZE)
    assert (fw / vars_file).read_bytes() != contents
    assert (fw / vars_file).stat().st_uid == tenant.uid
    assert tenant.attempt(fw, lambda: os.listdir(f"{who}-split")) == 0


def test_an_owner_cannot_let_others_in_by_what_it_makes(fw: Path) -> None:
    """A new file opens no more than the guest's own flash does."""
    path = f"alice-split/{MISSING}"
    assert ALICE.attempt(fw, lambda: os.close(os.open(path, MAKE, 0o666))) == 0
    assert stat.S_IMODE((fw / path).stat().st_mode) & 0o077 == 0
    assert names([BOB.attempt(fw, lambda: os.stat(path))]) == [errno.errorcode[errno.EACCES]]
