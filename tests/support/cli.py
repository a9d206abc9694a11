"""What the tests of the command line share: small firmware, and how a failure must look."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from support.program import Fwfs

FAILED, USAGE, MISSING, IN_USE = 1, 2, 3, 4

NOUNS = {
    "firmware": ["add", "import", "list", "show", "rm"],
    "guest": ["add", "list", "show", "rm", "rename", "qemu", "libvirt"],
}
COMMANDS = [[noun] for noun in ("init", "status", "check", "compact", "backup", "migrate", "mount")]
COMMANDS += [[noun, verb] for noun, verbs in NOUNS.items() for verb in verbs]

CODE_SIZE, VARS_SIZE = 64 * 1024, 16 * 1024


def fails(fwfs: Fwfs, code: int, *arguments: str, input: str | None = None) -> str:
    """Runs what must fail with `code` and one line on stderr alone, and returns the line."""
    done = fwfs(*arguments, check=False, input=input)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    line = done.stderr.removesuffix("\n")
    assert line.startswith("fwfs: ") and line != done.stderr and line.isprintable()
    assert "; " in line, "it does not say what to do"
    assert line.endswith(" --help'") == (code == USAGE), line
    return line


def state(fwfs: Fwfs) -> list[str]:
    """All that the command line tells of a store."""
    asked = (["status"], ["firmware", "list"], ["guest", "list"])
    return [fwfs("--json", *command).stdout for command in asked]


def guest_names(fwfs: Fwfs) -> list[str]:
    told = json.loads(fwfs("guest", "list", "--json").stdout)
    return [guest["guest"] for guest in told["guests"]]


@pytest.fixture
def unchanged(fwfs: Fwfs):
    """The store must be the same after the test as before it."""
    before = state(fwfs)
    yield
    assert state(fwfs) == before


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A directory with code.fd and vars.fd: noise, and for the most part empty."""
    noise = random.Random(1)
    (tmp_path / "code.fd").write_bytes(noise.randbytes(CODE_SIZE))
    (tmp_path / "vars.fd").write_bytes(noise.randbytes(4096).ljust(VARS_SIZE, b"\xff"))
    return tmp_path


def flash(images: Path, **changes: object) -> dict[str, object]:
    """A descriptor's mapping of these images; a change to None leaves a member out, '_' is '-'."""
    mapping: dict[str, object] = {
        "device": "flash",
        "executable": {"filename": str(images / "code.fd"), "format": "raw"},
        "nvram-template": {"filename": str(images / "vars.fd"), "format": "raw"},
    }
    mapping.update({name.replace("_", "-"): value for name, value in changes.items()})
    return {name: value for name, value in mapping.items() if value is not None}


@pytest.fixture
def descriptor(images: Path) -> Callable[..., str]:
    """Writes a descriptor, with changes as flash() takes them, and returns its path."""

    def write(name: str = "50-test.json", **changes: object) -> str:
        members: dict[str, object] = {
            "description": "for tests",
            "interface-types": ["uefi"],
            "mapping": flash(images),
            "targets": [{"architecture": "x86_64", "machines": ["pc-q35-*"]}],
            "features": [],
            "tags": [],
        }
        members.update({name.replace("_", "-"): value for name, value in changes.items()})
        path = images / name
        path.write_text(json.dumps({n: value for n, value in members.items() if value is not None}))
        return str(path)

    return write


@pytest.fixture
def firmware(fwfs: Fwfs, images: Path) -> None:
    """Firmware of each mode, named as the mode."""
    code, template = str(images / "code.fd"), str(images / "vars.fd")
    fwfs("firmware", "add", "split", "--executable", code, "--nvram-template", template)
    fwfs("firmware", "add", "combined", "--mode", "combined", "--executable", code)
    fwfs("firmware", "add", "stateless", "--mode=stateless", "--executable", code)


@pytest.fixture
def guests(fwfs: Fwfs, firmware: None) -> None:
    """Three guests, one of them another user's."""
    fwfs("guest", "add", "--firmware", "combined", "web01", "web02")
    fwfs("guest", "add", "--firmware", "split", "--owner", "1234:5678", "db 01")
