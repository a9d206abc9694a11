#!/usr/bin/python3
"""Boots a guest in QEMU to the EFI shell and types at it over its serial line.

As a program it prints what each command answered:

    efi_shell.py [--accel ACCEL] [--command COMMAND]... -- QEMU-ARGUMENT...

or, with --probe, the accelerator to use: "kvm" if these arguments reach the shell with it, else
"tcg". Give --probe a guest that writes nothing, since it may be stopped halfway.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType

QEMU = "qemu-system-x86_64"
PROMPT = b"Shell> "
BOOT_SECONDS = 120
ANSWER_SECONDS = 60
QUIT_SECONDS = 30
PROBE_SECONDS = 15
POLL_SECONDS = 0.02
OUTPUT_BYTES = 1 << 20  # more than is ever printed between two prompts

# What the firmware's terminal driver sends between the text: colours and cursor positions.
ESCAPES = re.compile(rb"\x1b\[[0-9;?=]*[A-Za-z]")


class ShellError(Exception):
    """The guest did not do what was asked of it; says what it showed instead."""


class Shell(ABC):
    """A console that the EFI shell speaks on, whoever runs the guest."""

    def __init__(self) -> None:
        self._taken = 0  # of what the console has shown

    def boot(self, timeout: float = BOOT_SECONDS) -> None:
        """Waits for the shell's prompt."""
        deadline = time.monotonic() + timeout
        self._read_until(b"any other key to continue", deadline)
        self._type(b" ")
        self._read_until(PROMPT, deadline)

    def run(self, command: str) -> str:
        """Types a command and returns what it answered, without colours and the echo."""
        self._type(command.encode("ascii") + b"\r")
        answer = self._read_until(PROMPT, time.monotonic() + ANSWER_SECONDS)
        text = ESCAPES.sub(b"", answer.removesuffix(PROMPT)).decode("ascii", "replace")
        echo, _, rest = text.partition("\r\n")
        if echo != command:
            raise ShellError(self._explain(f"typed {command!r}, the shell read {echo!r}"))
        return rest.replace("\r\n", "\n").strip()

    def wait_for(self, patterns: Sequence[bytes], deadline: float) -> bytes:
        """The first of them that the console shows; b"" if it shows none in time."""
        while True:
            shown = self._shown()
            for pattern in patterns:
                if pattern in shown:
                    return pattern
            if self._has_ended():
                raise ShellError(self._explain("QEMU ended"))
            if time.monotonic() > deadline:
                return b""
            time.sleep(POLL_SECONDS)

    def _read_until(self, pattern: bytes, deadline: float) -> bytes:
        if not self.wait_for((pattern,), deadline):
            raise ShellError(self._explain(f"no {pattern.decode()!r} in time"))
        shown = self._shown()
        end = shown.index(pattern) + len(pattern)
        self._taken += end
        return shown[:end]

    def _explain(self, what: str) -> str:
        console = ESCAPES.sub(b"", self._shown()[-2000:]).decode("ascii", "replace").strip()
        return (f"{what}; stderr: {self._complaint() or 'nothing'}; "
                f"console: {console or 'nothing'}")

    @abstractmethod
    def _type(self, keys: bytes) -> None:
        pass

    @abstractmethod
    def _shown(self) -> bytes:
        """What the console has shown and nobody has taken."""

    @abstractmethod
    def _has_ended(self) -> bool:
        pass

    @abstractmethod
    def _complaint(self) -> str:
        """What QEMU said on stderr."""


class EfiShell(Shell):
    """A running QEMU whose console is spoken to; at the end of its `with` block QEMU is gone.

    `arguments` tell where the firmware is, as `fwfs guest qemu` prints them. The rest is chosen
    here: no display, no network, no disk, so that the firmware's own shell is what boots.
    """

    def __init__(self, arguments: Sequence[str], accel: str = "tcg") -> None:
        super().__init__()
        self._stderr = tempfile.TemporaryFile()
        # A file never makes QEMU wait. A socket does when its reader is late, and then the firmware
        # takes its serial line for broken and starts nothing any more.
        self._console = tempfile.TemporaryFile()
        self._monitor, monitor = socket.socketpair()
        with monitor:
            self._process = subprocess.Popen(
                [QEMU, "-accel", accel, "-m", "128", "-no-user-config", "-display", "none",
                 "-net", "none",
                 "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
                 "-chardev", f"socket,id=monitor,fd={monitor.fileno()}",
                 "-mon", "chardev=monitor,mode=control",
                 *arguments],
                bufsize=0, pass_fds=(monitor.fileno(),),
                stdin=subprocess.PIPE, stdout=self._console, stderr=self._stderr)

    def __enter__(self) -> EfiShell:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for thing in (self._process.stdin, self._console, self._monitor, self._stderr):
            thing.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def quit(self) -> None:
        """Ends QEMU through its monitor, as libvirt does, so that it closes its files."""
        commands = ({"execute": "qmp_capabilities"}, {"execute": "quit"})
        self._monitor.sendall(b"".join(json.dumps(command).encode() for command in commands))
        try:
            status = self._process.wait(QUIT_SECONDS)
        except subprocess.TimeoutExpired:
            raise ShellError(self._explain("QEMU did not quit")) from None
        if status != 0:
            raise ShellError(self._explain(f"QEMU ended with status {status}"))

    def _type(self, keys: bytes) -> None:
        self._process.stdin.write(keys)

    def _shown(self) -> bytes:
        # Not seek() and read(): the position in the file is QEMU's too.
        return os.pread(self._console.fileno(), OUTPUT_BYTES, self._taken)

    def _has_ended(self) -> bool:
        return self._process.poll() is not None

    def _complaint(self) -> str:
        return os.pread(self._stderr.fileno(), OUTPUT_BYTES, 0).decode(errors="replace").strip()


def boot_once(arguments: Sequence[str], commands: Sequence[str] = (),
              accel: str = "tcg") -> list[str]:
    """A whole boot: to the shell, the commands, and a clean end. Returns the answers."""
    with EfiShell(arguments, accel) as shell:
        shell.boot()
        answers = [shell.run(command) for command in commands]
        shell.quit()
    return answers


def probe_accelerator(arguments: Sequence[str]) -> str:
    """A /dev/kvm that is there may still be unable to run firmware: only a boot tells."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    try:
        with EfiShell(arguments, "kvm") as shell:
            shell.boot(PROBE_SECONDS)
    except ShellError:
        return "tcg"
    return "kvm"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accel", default="tcg", help="QEMU's accelerator (default: tcg)")
    parser.add_argument("--command", action="append", default=[], metavar="COMMAND",
                        help="a line to type; may be given several times")
    parser.add_argument("--probe", action="store_true", help="only say which accelerator works")
    parser.add_argument("arguments", nargs="+", metavar="QEMU-ARGUMENT")
    options = parser.parse_args()
    if options.probe:
        print(probe_accelerator(options.arguments))
        return 0
    try:
        answers = boot_once(options.arguments, options.command, options.accel)
    except ShellError as error:
        print(f"efi_shell: {error}", file=sys.stderr)
        return 1
    print("\n".join(answers))
    return 0


if __name__ == "__main__":
    sys.exit(main())
