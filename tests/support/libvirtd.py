"""A libvirtd of the test's own.

It has directories in /etc, /run and /var and a process table of its own: one that the machine may
have is not touched, and nothing that it starts outlives it. QEMU runs as libvirt-qemu.
"""

from __future__ import annotations

import grp
import os
import pwd
import signal
import subprocess
import threading
import tty
from pathlib import Path
from types import TracebackType

from efi_shell import Shell
from support.waiting import eventually

USER = "libvirt-qemu"
DEBIAN_ID = 64055  # of the user and of the group, where the package that makes them is not there
START_SECONDS = 60
# The first command waits until QEMU was asked for all that it can.
COMMAND_SECONDS = 90
END_SECONDS = 30

# Each is a directory of libvirtd's own, at this place.
PLACES = {"etc": "/etc/libvirt", "run": "/run", "lib": "/var/lib", "log": "/var/log"}
# Without kvm: where that is there but QEMU cannot use it, libvirt asks again at each command.
DEV_SCRIPT = """\
mkdir dev
mount -t tmpfs -o mode=755 dev dev
cp -a /dev/full /dev/null /dev/ptmx /dev/random /dev/tty /dev/urandom /dev/zero dev
mkdir dev/pts
mount --move /dev/pts dev/pts
umount --recursive --lazy /dev
mount --move dev /dev
"""
LIBVIRTD_CONF = """\
auth_unix_ro = "none"
auth_unix_rw = "none"
"""
# No cgroups: they would stay behind. No log daemon: there is none to talk to.
QEMU_CONF = """\
cgroup_controllers = []
remember_owner = 1
security_driver = "none"
stdio_handler = "file"
"""


def _id_of(find: str) -> int:
    try:
        return pwd.getpwnam(USER).pw_uid if find == "user" else grp.getgrnam(USER).gr_gid
    except KeyError:
        return DEBIAN_ID


QEMU_UID, QEMU_GID = _id_of("user"), _id_of("group")


class Libvirtd:
    """Mounts must be there when it starts: it sees none that come later."""

    def __init__(self, directory: Path, cache: Path) -> None:
        """`cache` is for what it finds out about QEMU, and may be shared."""
        self._directory = directory
        for name in PLACES:
            (directory / name).mkdir(parents=True)
        (directory / "etc" / "libvirtd.conf").write_text(LIBVIRTD_CONF)
        (directory / "etc" / "qemu.conf").write_text(QEMU_CONF)
        (directory / "passwd").write_text(self._accounts("passwd", f"{QEMU_UID}:{QEMU_GID}::/:/"))
        (directory / "group").write_text(self._accounts("group", f"{QEMU_GID}:"))
        binds = [(cache, "/var/cache"), (directory / "passwd", "/etc/passwd"),
                 (directory / "group", "/etc/group"),
                 *((directory / name, place) for name, place in PLACES.items())]
        script = DEV_SCRIPT + "".join(
            f"mount --bind '{source}' {place}\n" for source, place in binds)
        # The shell reaps: libvirt waits for each QEMU to be gone, and not every init is quick.
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
                 "sh", "-ec", f"{script}libvirtd & wait $!"], cwd=directory,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    @staticmethod
    def _accounts(file: str, entry: str) -> str:
        """The machine's, and QEMU's if it has none."""
        text = Path("/etc", file).read_text()
        return text if f"\n{USER}:" in text else f"{text}{USER}:x:{entry}\n"

    def __enter__(self) -> Libvirtd:
        try:
            assert eventually(self._socket.exists, START_SECONDS), self.log()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._end()

    @property
    def _log(self) -> Path:
        return self._directory / "libvirtd.log"

    @property
    def _socket(self) -> Path:
        return self._directory / "run" / "libvirt" / "libvirt-sock"

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def nvram_files(self) -> list[Path]:
        """What it made up itself where a domain names no nvram."""
        return list((self._directory / "lib" / "libvirt" / "qemu" / "nvram").iterdir())

    def _run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["virsh", "--quiet", "--connect", f"qemu+unix:///system?socket={self._socket}",
             *map(str, arguments)],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            timeout=COMMAND_SECONDS, env={**os.environ, "LC_ALL": "C.UTF-8"})

    def virsh(self, *arguments: str | Path) -> str:
        done = self._run(*arguments)
        assert done.returncode == 0, f"{arguments}: {done.stderr}\n{self.log()}"
        return done.stdout.strip()

    def virsh_fails(self, *arguments: str | Path) -> str:
        """Returns what it says."""
        done = self._run(*arguments)
        assert done.returncode != 0, f"{arguments}: {done.stdout}"
        return done.stderr

    def define(self, text: str) -> None:
        file = self._directory / "domain.xml"
        file.write_text(text)
        self.virsh("define", "--validate", file)

    def start(self, domain: str, *options: str) -> LibvirtShell:
        """Starts it and returns its console, which ends with the guest."""
        self.virsh("start", "--paused", *options, domain)
        shell = LibvirtShell(Path(self.virsh("ttyconsole", domain)),
                             self._directory / "log" / "libvirt" / "qemu" / f"{domain}.log")
        self.virsh("resume", domain)
        return shell

    def _end(self) -> None:
        """Of all that runs in it: when its first process is killed, the kernel kills the others,
        and that one is gone when they are."""
        pid = self._process.pid
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
        self._process.wait(END_SECONDS)


class LibvirtShell(Shell):
    """The EFI shell on a domain's serial console."""

    def __init__(self, terminal: Path, log: Path) -> None:
        super().__init__()
        self._log = log
        self._bytes = b""
        self._terminal = os.open(terminal, os.O_RDWR | os.O_NOCTTY)
        tty.setraw(self._terminal)
        # Always reading, until the guest ends: a console that is full makes the firmware give it up.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            while piece := os.read(self._terminal, 4096):
                self._bytes += piece
        except OSError:  # QEMU has closed its end
            pass
        os.close(self._terminal)

    def _type(self, keys: bytes) -> None:
        os.write(self._terminal, keys)

    def _shown(self) -> bytes:
        return self._bytes[self._taken:]

    def _has_ended(self) -> bool:
        return not self._reader.is_alive()

    def _complaint(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]
