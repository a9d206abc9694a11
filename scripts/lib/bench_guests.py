"""What guests cost: the time to make and remove them, their bytes, and what a large fleet costs each
of them. Cases as in bench_cases.py."""

from __future__ import annotations

import random
import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from bench_cases import Bench
from bench_contestants import FWFS, FwfsStore
from bench_keepers import (BLOCK, KEEPERS, FwfsGuests, Keeper, file_system, ready, record_boot)
from bench_report import Measure, Target
from bench_tools import BenchError, run

GUESTS = 1_000
FLEETS = {10_000: 200e6, 100_000: 1500e6}  # and in how many ns they are to be created
REMOVED, REMOVE_NS = 10_000, 300e6
SHORT_NAME_BYTES, UUID_BYTES, BOOTED_BYTES = 160, 240, 1_536

SMALL_FLEET, LARGE_FLEET = 100, 100_000
TOUCHED_EACH_RUN = 25

ARM_CODE = Path("/usr/share/AAVMF/AAVMF_CODE.fd")
ARM_VARS = Path("/usr/share/AAVMF/AAVMF_VARS.fd")
ARM_BYTES = 3 << 20


def numbered(count: int) -> list[str]:
    """Names of 6 characters, up to 9,999; then of 8."""
    return [f"vm{i:0{4 if count <= 10_000 else 6}}" for i in range(count)]


def random_uuids(count: int) -> list[str]:
    """As libvirt may name its guests: in no order."""
    rng = random.Random(count)
    return [str(uuid.UUID(bytes=rng.randbytes(16), version=4)) for _ in range(count)]


def timed(directory: Path, action: Callable[[], object]) -> int:
    """The ns that it took, until all that is in the directory's file system is on the disk."""
    run("sync")
    began = time.monotonic_ns()
    action()
    run("sync", "-f", directory)
    return time.monotonic_ns() - began


def each_keeper(bench: Bench, case: str, do: Callable[[Keeper], None]) -> None:
    """In turn, each run anew. One that cannot be had is left out and told of, but for the first and
    for fwfs."""
    left = list(KEEPERS)
    for _ in range(bench.runs):
        for kind in list(left):
            try:
                with ready(kind, bench.programs, bench.directory / case) as keeper:
                    do(keeper)
            except BenchError as error:
                if kind in (KEEPERS[0], FwfsGuests):
                    raise
                bench.note(f"{kind.name} is left out: {error}")
                left.remove(kind)


def create(bench: Bench) -> list[Measure]:
    """1,000 guests made, as with cp, reflinks or qcow2 overlays; 10,000 and 100,000 in fwfs"""
    each = Measure("create", f"a guest, of {GUESTS:,} made, all on the disk", "ns")
    fleets = [Measure("create", f"{count:,} guests in one command", "ns",
                      [Target(FWFS, at_most=limit)]) for count, limit in FLEETS.items()]

    def measure(keeper: Keeper) -> None:
        took = timed(keeper.directory, lambda: keeper.create(numbered(GUESTS)))
        each.add(keeper.name, took / GUESTS)

    each_keeper(bench, "create", measure)
    for _ in range(bench.runs):
        for count, fleet in zip(FLEETS, fleets):
            with ready(FwfsGuests, bench.programs, bench.directory / "create") as keeper:
                fleet.add(FWFS, timed(keeper.directory, lambda: keeper.create(numbered(count))))
    return [each, *fleets]


def remove(bench: Bench) -> list[Measure]:
    """1,000 guests removed, as with rm; 10,000 in fwfs"""
    each = Measure("remove", f"a guest, of {GUESTS:,} removed, all on the disk", "ns")
    many = Measure("remove", f"{REMOVED:,} guests in one command", "ns",
                   [Target(FWFS, at_most=REMOVE_NS)])
    purged = Measure("remove", f"{REMOVED:,} of those forgotten, with --purge", "ns")

    def measure(keeper: Keeper) -> None:
        keeper.create(numbered(GUESTS))
        each.add(keeper.name, timed(keeper.directory, lambda: keeper.remove(numbered(GUESTS))) / GUESTS)

    each_keeper(bench, "remove", measure)
    names = numbered(REMOVED)
    for _ in range(bench.runs):
        with ready(FwfsGuests, bench.programs, bench.directory / "remove") as keeper:
            keeper.create(names)
            many.add(FWFS, timed(keeper.directory, lambda: keeper.remove(names)))
            purged.add(FWFS, timed(keeper.directory, lambda: keeper.remove(names, "--purge")))
    return [each, many, purged]


def store_size(bench: Bench) -> list[Measure]:
    """the bytes of 1,000 guests, new and booted, as with cp, reflinks or qcow2 overlays"""
    new = Measure("store-size", "a new guest, name of 6 characters", "bytes",
                  [Target(FWFS, at_most=SHORT_NAME_BYTES)])
    uuids = Measure("store-size", "a new guest, its name a UUID", "bytes",
                    [Target(FWFS, at_most=UUID_BYTES)])
    booted = Measure("store-size", "a guest after its first boot", "bytes",
                     [Target(FWFS, at_most=BOOTED_BYTES)])
    whole = Measure("store-size", f"the same, with a {GUESTS:,}th of what they share", "bytes")
    boot = record_boot(bench.directory)
    bench.note(f"store-size: a first boot changed {len(boot)} blocks of {BLOCK} bytes; "
               "used bytes of a file system of their own, once")

    def measure(kind: type[Keeper], names: Sequence[str], made: Measure, boots: bool) -> None:
        with file_system(kind.file_system, bench.directory / "store-size") as home:
            empty = home.used_bytes()
            keeper = kind(bench.programs, home.mountpoint)
            keeper.prepare()
            without = home.used_bytes()
            keeper.create(names)
            made.add(kind.name, (home.used_bytes() - without) / GUESTS)
            if boots:
                keeper.boot(names, boot)
                full = home.used_bytes()
                booted.add(kind.name, (full - without) / GUESTS)
                whole.add(kind.name, (full - empty) / GUESTS)

    for kind in KEEPERS:
        try:
            measure(kind, numbered(GUESTS), new, boots=True)
        except BenchError as error:
            if kind in (KEEPERS[0], FwfsGuests):
                raise
            bench.note(f"{kind.name} is left out: {error}")
    measure(FwfsGuests, random_uuids(GUESTS), uuids, boots=False)
    return [new, uuids, booted, whole]


def scaling(bench: Bench) -> list[Measure]:
    """a guest's block read, written and synced, of 100 guests and of 100,000"""
    few, many = f"{SMALL_FLEET:,} guests", f"{LARGE_FLEET:,} guests"
    whole = Measure("scaling", "open, a block read, a block written, fsync and close", "ns",
                    [Target(many, few, at_most=1.2)])
    reading = Measure("scaling", "of that, open and read", "ns")
    writing = Measure("scaling", "of that, write and fsync", "ns")
    stores: dict[str, FwfsStore] = {}
    used: dict[str, list[Path]] = {}
    for name, count in ((few, SMALL_FLEET), (many, LARGE_FLEET)):
        store = stores[name] = FwfsStore(bench.programs.fwfs, bench.directory / f"scaling-{count}",
                                         ("combined",))
        names = numbered(count)
        store.add_guests("combined", names)
        # Spread over all of them, as many in both.
        used[name] = [store.mountpoint / guest / "code" for guest in names[::count // SMALL_FLEET]]
    try:
        for store in stores.values():
            store.mount()
        for i in range(bench.runs):
            for name, paths in used.items():
                first = i * TOUCHED_EACH_RUN
                some = [paths[(first + j) % SMALL_FLEET] for j in range(TOUCHED_EACH_RUN)]
                times = bench.ask("touch", *some)
                parts = [sum(part) / TOUCHED_EACH_RUN for part in zip(*times)]
                whole.add(name, sum(parts))
                reading.add(name, parts[0])
                writing.add(name, parts[1])
    finally:
        for store in stores.values():
            store.unmount()
    return [whole, reading, writing]


def arm(bench: Bench) -> list[Measure]:
    """Arm's firmware, two images of 64 MiB: what the store grows by, and what a guest of it costs"""
    if not ARM_CODE.exists() or not ARM_VARS.exists():
        raise BenchError(f"{ARM_CODE} is not there (package qemu-efi-aarch64)")
    x86, aarch64 = "x86, split", "Arm, split"
    took = Measure("arm", "adding the firmware", "ns")
    grown = Measure("arm", "what the store grows by, beside a plain copy", "bytes",
                    [Target(FWFS, at_most=ARM_BYTES)])
    guest = Measure("arm", f"a new guest, of {GUESTS:,}", "bytes",
                    [Target(aarch64, x86, at_most=1.05)])
    adding = Measure("arm", f"a guest, of {GUESTS:,} made, all on the disk", "ns")
    grown.add("cp", ARM_CODE.stat().st_size + ARM_VARS.stat().st_size)
    for _ in range(bench.runs):
        stores = {kind: FwfsStore(bench.programs.fwfs, bench.directory / f"arm-{i}", firmware)
                  for i, (kind, firmware) in enumerate(((x86, ("split",)), (aarch64, ())))}
        store = stores[aarch64]
        before = store.size_bytes()
        took.add(FWFS, timed(store.directory, lambda: store("firmware", "add", "split", "--executable",
                                                  ARM_CODE, "--nvram-template", ARM_VARS)))
        grown.add(FWFS, store.size_bytes() - before)
        for kind, store in stores.items():
            before = store.size_bytes()
            taken = timed(store.directory, lambda: store.add_guests("split", numbered(GUESTS)))
            adding.add(kind, taken / GUESTS)
            guest.add(kind, (store.size_bytes() - before) / GUESTS)
            shutil.rmtree(store.directory)
    return [took, grown, guest, adding]


CASES: dict[str, Callable[[Bench], list[Measure]]] = {
    "create": create,
    "remove": remove,
    "store-size": store_size,
    "scaling": scaling,
    "arm": arm,
}
