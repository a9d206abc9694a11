"""A mount in the foreground, whose log, status and processes a test may look at."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from support.program import Fwfs
from support.waiting import eventually

START_SECONDS = 30
END_SECONDS = 60
# By then a test is stuck: the mount is torn down, and whoever waits for it gets an error.
STUCK_SECONDS = 240


def is_mounted(mountpoint: Path) -> bool:
    """As the kernel's table says, without touching the mount."""
    words = (line.split(" ") for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return any(word[4] == str(mountpoint) for word in words)


class Server:
    def __init__(self, fwfs: Fwfs, program: Path, store: Path, mountpoint: Path,
                 *options: str) -> None:
        """`fwfs` runs the commands, `program` is what serves."""
        self._fwfs = fwfs
        self._store = store
        self.mountpoint = mountpoint
        self._log = mountpoint.with_name("mount.log")
        mountpoint.mkdir(exist_ok=True)
        with self._log.open("a") as log:
            self.process = subprocess.Popen(
                [program, "--store", store, "mount", mountpoint, "--foreground", *options],
                stdin=subprocess.DEVNULL, stderr=log)
        self._watchdog = threading.Timer(STUCK_SECONDS, self.destroy)
        self._watchdog.daemon = True
        self._watchdog.start()
        # The record of the mount is there before its worker answers.
        assert eventually(lambda: is_mounted(mountpoint) and self._record() is not None,
                          START_SECONDS), self.log()
        os.listdir(mountpoint)

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def _record(self) -> dict[str, Any] | None:
        return json.loads(self._fwfs("status", "--json").stdout)["mount"]

    def status(self) -> dict[str, Any]:
        """What `fwfs status` tells of the mount."""
        record = self._record()
        assert record is not None, "the store is not mounted"
        return record

    def worker(self) -> int:
        """There may be none for a moment, after a crash."""
        assert eventually(lambda: self.status()["worker_pid"] != 0, START_SECONDS), self.log()
        return self.status()["worker_pid"] or self.worker()

    def kill_worker(self, number: signal.Signals = signal.SIGKILL) -> None:
        os.kill(self.worker(), number)

    def reload(self) -> int:
        """Its exit code."""
        return self._fwfs("mount", "--reload", self.mountpoint, check=False).returncode

    def processes(self) -> list[int]:
        """The supervisor and its workers: all that have the mount's record open."""
        record = f"{self._store}-mount"
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                links = [os.readlink(link) for link in (process / "fd").iterdir()]
            except OSError:  # it has ended meanwhile
                continue
            if record in links or f"{record} (deleted)" in links:
                found.append(int(process.name))
        return found

    def wait_for_end(self) -> None:
        """Of the mount and of all its processes."""
        assert self.process.wait(END_SECONDS) in (0, -signal.SIGKILL), self.log()
        assert not is_mounted(self.mountpoint)
        assert eventually(lambda: not self.processes(), END_SECONDS), self.log()

    def unmount(self) -> None:
        subprocess.run(["umount", self.mountpoint], check=True, timeout=END_SECONDS)
        self.wait_for_end()

    def destroy(self) -> None:
        """By force. Requests that nobody has answered fail."""
        subprocess.run(["umount", "--internal-only", "--no-canonicalize", "--force", "--lazy",
                        self.mountpoint], check=False, timeout=END_SECONDS, capture_output=True)
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)

    def finish(self) -> None:
        """Cleans up whatever the test left, and fails it if that took force."""
        self._watchdog.cancel()
        try:
            if is_mounted(self.mountpoint):
                self.unmount()
            elif self.processes():
                pytest.fail(f"nothing is mounted, but there are {self.processes()}: {self.log()}")
        finally:
            self.destroy()
            self.process.wait(END_SECONDS)
