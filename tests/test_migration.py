"""A guest moves between two QEMUs on one mount while it runs, as libvirt's live migration does."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from support.migrating import Migrant
from support.ovmf import DESCRIPTORS
from support.program import Fwfs
from support.server import Server
from support.varstore import boot_entries, read_variables

MOVES = 10
GUEST = "web01"


@pytest.fixture(scope="session")
def fwfs_bin(release_bin: Path) -> Path:
    return release_bin


def printed(fwfs: Fwfs, mountpoint: Path) -> list[str]:
    """The arguments that fwfs prints."""
    return fwfs("guest", "qemu", GUEST, "--mountpoint", mountpoint).stdout.split()


def of_libvirt(_: Fwfs, mountpoint: Path) -> list[str]:
    """The arguments that libvirt 9 makes of <loader> and <nvram>."""
    files = {"pflash0": (mountpoint / GUEST / "code", "on"),
             "pflash1": (mountpoint / GUEST / "vars", "off")}
    arguments = ["-machine", "pc-q35-7.2,pflash0=pflash0-format,pflash1=pflash1-format"]
    for name, (path, read_only) in files.items():
        arguments += [
            "-blockdev", f"driver=file,filename={path},node-name={name}-storage,"
                         "auto-read-only=on,discard=unmap",
            "-blockdev", f"driver=raw,node-name={name}-format,read-only={read_only},"
                         f"file={name}-storage",
        ]
    return arguments


def sync(flash: Path) -> None:
    """Also what another process wrote and the kernel still caches."""
    descriptor = os.open(flash, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(("arguments_of", "moves"), [(of_libvirt, MOVES), (printed, 2)])
def test_back_and_forth(fwfs: Fwfs, serve: Callable[..., Server], tmp_path: Path,
                        arguments_of: Callable[[Fwfs, Path], list[str]], moves: int) -> None:
    """The destination reads the flash while the source has it open for writing, opens it for
    writing as soon as the source has closed it, and writes all of it anew: none of its blocks is
    kept for that."""
    fwfs("firmware", "import", DESCRIPTORS / "60-edk2-x86_64.json")
    fwfs("guest", "add", "--firmware", "60-edk2-x86_64", GUEST)
    server = serve()
    flash = server.mountpoint / GUEST / "vars"
    arguments = arguments_of(fwfs, server.mountpoint)

    def delta_bytes() -> int:
        sync(flash)
        return json.loads(fwfs("guest", "show", GUEST, "--json").stdout)["usage"]["delta_bytes"]

    with contextlib.ExitStack() as guests:
        here = guests.enter_context(Migrant(arguments))
        here.boot()
        before, owned = flash.read_bytes(), delta_bytes()
        assert boot_entries(read_variables(before)) and owned > 0
        for number in range(moves):
            socket = tmp_path / f"migration{number}"
            there = guests.enter_context(Migrant(arguments, socket))
            here.move_to(there, socket)
            here = there
            assert here.run(f"echo moved {number}") == f"moved {number}"
            assert delta_bytes() == owned
        # It may still write, and what it writes is kept.
        here.run("bcfg boot mv 2 0")
        here.quit()
    assert "may not write" not in server.log()
    after = flash.read_bytes()
    assert after != before
    assert boot_entries(read_variables(after)) == boot_entries(read_variables(before))
    assert server.status()["restart_count"] == 0
