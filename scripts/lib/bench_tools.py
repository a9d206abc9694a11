"""Running programs and mounts for the benchmark: nothing hangs, nothing is left behind."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

RUN_SECONDS = 180
START_SECONDS = 30
END_SECONDS = 30
UMOUNT_SECONDS = 10
KILL_SECONDS = 5
# Linux's number of the clock that counts the CPU time of a process (CPUCLOCK_SCHED).
CPU_CLOCK = 2

Argument = str | os.PathLike[str]


class BenchError(Exception):
    """Something could not be measured; says why."""


def _kill(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    """One that hangs in a mount does not end even then: that is left to the unmounting."""
    process.kill()
    try:
        process.wait(KILL_SECONDS)
    except subprocess.TimeoutExpired:
        pass


def run(*command: Argument, input: str | None = None) -> str:
    """Runs a program to its end and returns what it printed."""
    words = [os.fspath(word) for word in command]
    shown = " ".join(words[:4])
    process = subprocess.Popen(words, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    try:
        output, complaint = process.communicate(input, timeout=RUN_SECONDS)
    except subprocess.TimeoutExpired:
        raise BenchError(f"{shown}: no end after {RUN_SECONDS} s") from None
    finally:
        if process.poll() is None:
            _kill(process)
    if process.returncode != 0:
        raise BenchError(f"{shown}: exit code {process.returncode}: {complaint.strip()}")
    return output


def cpu_ns(pids: Sequence[int]) -> int:
    """The CPU time, user and system, that these processes have taken, with threads that ended."""
    try:
        return sum(time.clock_gettime_ns((~pid << 3) | CPU_CLOCK) for pid in pids)
    except OSError as error:
        raise BenchError(f"a process that serves has ended: {error}") from None


def wait_until(holds: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _mounts() -> Iterator[tuple[str, str]]:
    """Where something is mounted, and its MAJOR:MINOR, asked of the kernel's table: a dead mount is
    not touched."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        words = line.split(" ")
        yield re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), words[4]), words[2]


def mount_device(mountpoint: Path) -> str | None:
    return dict(_mounts()).get(str(mountpoint))


def mounts_below(directory: Path) -> list[str]:
    return [mountpoint for mountpoint, _ in _mounts() if mountpoint.startswith(f"{directory}/")]


def is_mounted(mountpoint: Path) -> bool:
    return mount_device(mountpoint) is not None


def _umount(*arguments: Argument) -> bool:
    process = subprocess.Popen(["umount", *arguments], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    try:
        return process.wait(UMOUNT_SECONDS) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        if process.poll() is None:
            _kill(process)


def unmount(mountpoint: Path) -> None:
    """Unmounts what is there, if need be by force: whoever waits for it then gets an error."""
    device = mount_device(mountpoint)
    if device is None:
        return
    if wait_until(lambda: _umount(mountpoint) or not is_mounted(mountpoint), UMOUNT_SECONDS):
        return
    minor = device.partition(":")[2]
    try:
        Path(f"/sys/fs/fuse/connections/{minor}/abort").write_text("1")
    except OSError:  # the control filesystem is not mounted
        pass
    _umount("-l", mountpoint)


def _is_alive(pid: int, program: Path) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/exe") == str(program)
    except OSError:
        return False


def wait_for_end(pids: Sequence[int], program: Path) -> None:
    """Waits until these processes of the program have ended; in the end they are killed."""
    if wait_until(lambda: not any(_is_alive(pid, program) for pid in pids), END_SECONDS):
        return
    for pid in pids:
        if _is_alive(pid, program):
            os.kill(pid, 9)


@contextmanager
def server(command: Sequence[Argument], mountpoints: Sequence[Path], log: Path) -> Iterator[int]:
    """Runs a program that serves these mount points; yields its pid when all are there. In the end
    nothing is mounted and the program has ended."""
    with log.open("w") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        started = wait_until(
            lambda: process.poll() is not None or all(map(is_mounted, mountpoints)), START_SECONDS)
        if not started or process.poll() is not None:
            raise BenchError(f"{os.fspath(command[0])} did not mount: {log.read_text().strip()}")
        yield process.pid
    finally:
        for mountpoint in mountpoints:
            unmount(mountpoint)
        process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            _kill(process)
        for mountpoint in mountpoints:
            unmount(mountpoint)
