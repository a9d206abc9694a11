"""A machine that a test may set up: mounts, /etc and /sbin of a namespace, gone with the test."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support.program import RUN_SECONDS
from support.waiting import eventually

END_SECONDS = 30
NOBODY = 65534
# Whatever is there, the namespace has a file system of its own over it.
HOME = Path("/mnt")


class Namespace:
    """A namespace of mounts, with an empty file system at HOME, /dev/fuse open to everybody, and
    the program at HOME/bin/fwfs, where its user NOBODY may run it."""

    def __init__(self, program: Path) -> None:
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c",
             "echo; exec sleep infinity"], stdout=subprocess.PIPE)
        assert self._holder.stdout is not None
        self._holder.stdout.readline()
        self.name = os.readlink(f"/proc/{self._holder.pid}/ns/mnt")
        # A copy of a mount would keep it alive when it is unmounted outside.
        self("umount", "--all", "--types", "fuse.fwfs", "--lazy", check=False)
        self("mount", "-t", "tmpfs", "-o", "mode=755,dev,suid,exec", "tmpfs", HOME)
        self.root = Path(f"/proc/{self._holder.pid}/root")
        self.home = self.root / HOME.relative_to("/")
        self("mknod", "--mode=666", HOME / "fuse", "c", "10", "229")
        self("mount", "--bind", HOME / "fuse", "/dev/fuse")
        (self.home / "bin").mkdir()
        shutil.copy(program, self.home / "bin" / "fwfs")
        self.directory("user", NOBODY)

    def directory(self, name: str, owner: int = 0) -> Path:
        """Makes it below HOME; returns its path in the namespace."""
        (self.home / name).mkdir()
        os.chown(self.home / name, owner, owner)
        return HOME / name

    def __call__(self, *words: str | os.PathLike[str], user: int = 0, memory: str = "8388608",
                 check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs a command in there; `memory` limits what may be locked, in bytes."""
        command = ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt",
                   "prlimit", f"--memlock={memory}", "setpriv", f"--reuid={user}",
                   f"--regid={user}", "--clear-groups", *map(str, words)]
        environment = {name: value for name, value in os.environ.items()
                       if not name.startswith(("FWFS_", "XDG_"))}
        environment |= {"HOME": str(HOME / "user"), "XDG_STATE_HOME": str(HOME / "user" / "state")}
        done = subprocess.run(command, capture_output=True, text=True, check=False,
                              timeout=RUN_SECONDS, env=environment)
        if check:
            assert done.returncode == 0, f"{command}: {done.returncode}: {done.stderr}"
        return done

    def replace(self, path: str, text: str) -> None:
        """Puts another file over one that is there."""
        content = HOME / path.replace("/", "_")
        (self.home / content.name).write_text(text)
        self("mount", "--bind", content, path)

    def install_helper(self) -> None:
        """Links mount.fuse.fwfs into /sbin, as the installation does."""
        sbin = Path(self("realpath", "/sbin").stdout.strip())
        original = self.directory("sbin")
        self("mount", "--bind", sbin, original)
        names = os.listdir(self.home / "sbin")
        self("mount", "-t", "tmpfs", "tmpfs", sbin)
        inside = self.root / sbin.relative_to("/")
        for name in names:
            (inside / name).symlink_to(original / name)
        helper = inside / "mount.fuse.fwfs"
        helper.unlink(missing_ok=True)
        helper.symlink_to(HOME / "bin" / "fwfs")

    def mounts(self) -> dict[str, set[str]]:
        """The options of each fwfs that is mounted below HOME, by its directory."""
        table = (line.split() for line in
                 Path(f"/proc/{self._holder.pid}/mounts").read_text().splitlines())
        return {line[1]: set(line[3].split(",")) for line in table
                if line[2] == "fuse.fwfs" and Path(line[1]).is_relative_to(HOME)}

    def processes(self) -> list[int]:
        """All that are in there, besides the one that holds it."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(process / "ns" / "mnt") == self.name:
                    found.append(int(process.name))
            except OSError:  # it has ended meanwhile
                continue
        return [pid for pid in found if pid != self._holder.pid]

    def finish(self) -> None:
        """Unmounts what the test left, and fails it if that does not end its processes."""
        for directory in self.mounts():
            self("umount", "--lazy", directory, check=False)
        ended = eventually(lambda: not self.processes(), END_SECONDS)
        left = self.processes()
        for pid in left:
            os.kill(pid, 9)
        self._holder.kill()
        self._holder.wait()
        if not ended:
            pytest.fail(f"the processes {left} were still there {END_SECONDS} s after the end")
