"""What is measured. A case is a function that takes a Bench and returns its measures; its docstring
is what `scripts/bench --help` says of it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench_contestants import (CODE, CONTESTANTS, FWFS, RAW, STORAGE_DAEMON, Contestant, FwfsStore,
                               Programs, RawFile, Wanted)
from bench_report import Measure, Target
from bench_tools import BenchError, cpu_ns, run

SLOW_SECONDS = 5
CODES_EACH_RUN = 16
WRITERS = 64
WRITER_SECONDS = 2
FLEET = 100_000
FLEET_USED = 10_000


@dataclass
class Bench:
    """What a case has at hand."""

    runs: int
    directory: Path
    client: Path  # bench.c, compiled
    trace: Path
    programs: Programs
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def ask(self, *arguments: object, input: str | None = None) -> list[list[int]]:
        """Runs the client; returns the numbers of each line that it printed."""
        lines = run(self.client, *map(str, arguments), input=input).splitlines()
        return [[int(word) for word in line.split()] for line in lines]

    @contextmanager
    def contestants(self, case: str, wanted: Wanted,
                    kinds: Sequence[type[Contestant]] = CONTESTANTS) -> Iterator[list[Contestant]]:
        """All at once, so that they can take turns. One that cannot be had is left out and told
        of, but for fwfs and what it is compared with."""
        with ExitStack() as stack:
            ready: list[Contestant] = []
            for i, kind in enumerate(kinds):
                contestant = kind(self.programs, self.directory / f"{case}-{i}", wanted)
                try:
                    ready.append(stack.enter_context(contestant))
                except BenchError as error:
                    if kind.name in (RAW, FWFS):
                        raise
                    self.note(f"{kind.name} is left out: {error}")
            yield ready

    def take_turns(self, contestants: list[Contestant],
                   measure: Callable[[int, Contestant], None]) -> None:
        """Each run measures each contestant once. One that fails is out, but for fwfs."""
        for i in range(self.runs):
            for contestant in list(contestants):
                try:
                    measure(i, contestant)
                except BenchError as error:
                    if contestant.name in (RAW, FWFS):
                        raise
                    self.note(f"{contestant.name} is out: {error}")
                    contestants.remove(contestant)


def replay(bench: Bench) -> list[Measure]:
    """the writes of a guest's first boot, 15,641 of 512 bytes, then fsync and close"""
    whole = Measure("replay", "a first boot's writes, fsync and close", "ns", [
        Target(FWFS, RAW, at_most=1.25), Target(STORAGE_DAEMON, FWFS, at_least=50)])
    writes = Measure("replay", "of that, the writes", "ns")
    sync = Measure("replay", "of that, fsync and close", "ns")

    def measure(i: int, contestant: Contestant) -> None:
        [times] = bench.ask("replay", contestant.flashes[i], bench.trace, 0)
        _open, _read, wrote, synced, closed = times
        whole.add(contestant.name, wrote + synced + closed)
        writes.add(contestant.name, wrote)
        sync.add(contestant.name, synced + closed)

    with bench.contestants("replay", Wanted(flashes=bench.runs)) as contestants:
        bench.take_turns(contestants, measure)
    return [whole, writes, sync]


def replay_slow(bench: Bench) -> list[Measure]:
    """the same over 5 s, as a guest boots: the CPU time of the processes that serve it"""
    cpu = Measure("replay-slow", f"the same over {SLOW_SECONDS} s, CPU time of who serves it", "ns",
                  [Target(FWFS, STORAGE_DAEMON, at_most=0.1)])

    def measure(i: int, contestant: Contestant) -> None:
        before = cpu_ns(contestant.serving)
        bench.ask("replay", contestant.flashes[i], bench.trace, SLOW_SECONDS)
        cpu.add(contestant.name, cpu_ns(contestant.serving) - before)

    kinds = [kind for kind in CONTESTANTS if kind is not RawFile]
    with bench.contestants("replay-slow", Wanted(flashes=bench.runs), kinds) as contestants:
        bench.take_turns(contestants, measure)
    return [cpu]


def read_code(bench: Bench) -> list[Measure]:
    """a whole code, 3.6 MB, read by one guest after the other"""
    read = Measure("read-code", "read() of a whole code", "ns", [Target(FWFS, RAW, at_most=1.1)])
    first = Measure("read-code", "open, read and close, by the next guest", "ns",
                    [Target(FWFS, RAW, at_most=2)])
    again = Measure("read-code", "open, read and close, once more by the same guest", "ns",
                    [Target(FWFS, RAW, at_most=2)])
    size = CODE.stat().st_size

    def measure(i: int, contestant: Contestant) -> None:
        codes = contestant.codes[1 + i * CODES_EACH_RUN:1 + (i + 1) * CODES_EACH_RUN]
        times = bench.ask("read", size, *codes)
        read.add(contestant.name, statistics.median(line[1] for line in times))
        first.add(contestant.name, statistics.median(map(sum, times)))
        times = bench.ask("read", size, *codes)
        again.add(contestant.name, statistics.median(map(sum, times)))

    wanted = Wanted(codes=1 + bench.runs * CODES_EACH_RUN)
    with bench.contestants("read-code", wanted) as contestants:
        for contestant in contestants:  # another guest has read it before
            bench.ask("read", size, contestant.codes[0])
        bench.take_turns(contestants, measure)
    return [read, first, again]


def sync_writers(bench: Bench) -> list[Measure]:
    """64 writers, each 4 KiB and an fsync, again and again, in a flash of its own"""
    done = Measure("sync-writers", f"{WRITERS} writers, 4 KiB and fsync", "/s",
                   [Target(FWFS, RAW, at_least=0.5)])

    def measure(_: int, contestant: Contestant) -> None:
        [[count, ns]] = bench.ask("writers", WRITER_SECONDS, *contestant.flashes)
        done.add(contestant.name, count * 1e9 / ns)

    with bench.contestants("sync-writers", Wanted(flashes=WRITERS)) as contestants:
        bench.take_turns(contestants, measure)
    return [done]


# ---- A fleet ----

EMPTY, FULL = "no guests", f"{FLEET:,} guests"
UNUSED, USED = "nothing used", f"{FLEET_USED:,} used"


def _resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise BenchError(f"process {pid} has no VmRSS")


def _measure_memory(bench: Bench, store: FwfsStore, used: Sequence[str]) -> Measure:
    memory = Measure("fleet", f"memory of the worker when {FLEET_USED:,} guests' files were read",
                     "bytes", [Target(USED, at_most=64 << 20)])
    memory.add(UNUSED, _resident_bytes(store.worker))
    for file, keep in (("code", "keep"), ("vars", "drop")):
        paths = "".join(f"{store.mountpoint / name / file}\n" for name in used)
        bench.ask("walk", keep, input=paths)
    memory.add(USED, _resident_bytes(store.worker))
    return memory


def fleet(bench: Bench) -> list[Measure]:
    """a store of 100,000 guests: mounting it, listing it, memory, 10,000 codes open and locked"""
    mounting = Measure("fleet", "mounting a store", "ns", [Target(FULL, EMPTY, at_most=2)])
    listing = Measure("fleet", f"ls -f of {FLEET:,} guests", "ns", [Target(FWFS, at_most=1e9)])
    opening = Measure("fleet", f"{FLEET_USED:,} guests' code opened, with QEMU's two locks", "ns",
                      [Target(FWFS, at_most=1e9)])
    names = [f"vm{i:06}" for i in range(FLEET)]
    used = names[:FLEET_USED]
    empty = FwfsStore(bench.programs.fwfs, bench.directory / "fleet-empty")
    full = FwfsStore(bench.programs.fwfs, bench.directory / "fleet-full")
    full.add_guests("split", names)
    codes = "".join(f"{full.mountpoint / name / 'code'}\n" for name in used)
    try:
        for _ in range(bench.runs):
            for name, store in ((EMPTY, empty), (FULL, full)):
                mounting.add(name, store.mount())
            began = time.monotonic_ns()
            run("ls", "-f", full.mountpoint)
            listing.add(FWFS, time.monotonic_ns() - began)
            opening.add(FWFS, bench.ask("open", input=codes)[0][0])
            empty.unmount()
            full.unmount()
        full.mount()
        memory = _measure_memory(bench, full, used)
    finally:
        empty.unmount()
        full.unmount()
    return [mounting, listing, opening, memory]


CASES: dict[str, Callable[[Bench], list[Measure]]] = {
    "replay": replay,
    "replay-slow": replay_slow,
    "read-code": read_code,
    "sync-writers": sync_writers,
    "fleet": fleet,
}
