"""Mounts that never outlive their test."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from support.program import Fwfs

END_SECONDS = 30


class Mounter:
    """Mounts one store at one place, again and again if asked to."""

    def __init__(self, fwfs: Fwfs, program: Path, mountpoint: Path) -> None:
        self._fwfs = fwfs
        self._program = program
        self.mountpoint = mountpoint

    def __call__(self, *options: str) -> Path:
        """`options` go to `fwfs mount` behind the mount point."""
        self.mountpoint.mkdir(exist_ok=True)
        self._fwfs("mount", self.mountpoint, *options)
        return self.mountpoint

    def unmount(self) -> None:
        """Unmounts and waits until the server has ended, so that the store's file is at rest."""
        servers = self.servers()
        subprocess.run(["umount", self.mountpoint], check=True, capture_output=True, text=True)
        self._wait_for_end(servers)

    def remount(self) -> Path:
        self.unmount()
        return self()

    def finish(self) -> None:
        """Cleans up whatever the test left, and fails it if that took force."""
        servers = self.servers()
        forced = False
        if self.is_mounted():
            done = subprocess.run(["umount", self.mountpoint], capture_output=True, text=True,
                                  check=False)
            if done.returncode != 0:
                forced = True
                subprocess.run(["umount", "-l", self.mountpoint], check=False)
        self._wait_for_end(servers)
        if forced:
            pytest.fail(f"umount failed and took -l: {done.stderr}")

    def is_mounted(self) -> bool:
        """As the kernel's table says, also of a mount that nobody serves any more."""
        words = (line.split(" ") for line in Path("/proc/self/mountinfo").read_text().splitlines())
        return any(word[4] == str(self.mountpoint) for word in words)

    def servers(self) -> list[int]:
        """The processes of this program that serve this mount point."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                program = os.readlink(entry / "exe")
            except OSError:  # it has ended meanwhile
                continue
            if program == str(self._program) and os.fsencode(self.mountpoint) in words:
                found.append(int(entry.name))
        return found

    def _wait_for_end(self, servers: list[int]) -> None:
        """The ones given are of this test's own making: none is left when this returns."""
        deadline = time.monotonic() + END_SECONDS
        while set(servers) & set(self.servers()):
            if time.monotonic() > deadline:
                left = set(servers) & set(self.servers())
                for pid in left:
                    os.kill(pid, 9)
                pytest.fail(f"the server {left} was still there {END_SECONDS} s after umount")
            time.sleep(0.02)
