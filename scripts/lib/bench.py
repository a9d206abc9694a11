#!/usr/bin/python3
"""Measures fwfs side by side with what one would use instead, and prints one table.

All contestants are there at once and take turns, run by run; what is printed is the median of the
runs, the ratio to the first contestant, and how far the runs lie apart. Every figure is printed,
and for every target whether it was reached. Nothing is left behind, mounted or on the disk.

The contestants: raw files on the same disk; libfuse's passthrough example, with the kernel's
writeback cache and without; qemu-storage-daemon's FUSE export of a qcow2 overlay; fwfs. For what
guests cost: cp; cp --reflink on XFS and on btrfs; qcow2 overlays; fwfs. Sizes, and reflinks, are
measured on file systems in loop devices, for which it must be root.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import bench_cases
import bench_growth
import bench_guests
from bench_cases import Bench
from bench_contestants import PASSTHROUGH_SOURCE, Programs
from bench_report import Measure, all_reached, as_json, print_table, print_targets
from bench_tools import BenchError, mounts_below, run
from bench_trace import first_boot

CASES = {**bench_cases.CASES, **bench_guests.CASES, bench_growth.CASE: bench_growth.growth}
REACHED, MISSED, FAILED = 0, 1, 2
# More than this at the start, and something else runs.
QUIET_LOAD = 0.5


def parse() -> argparse.Namespace:
    cases = "".join(f"  {name:<14}{case.__doc__}\n" for name, case in CASES.items())
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"cases:\n{cases}\nexit status: 0 every target reached; 1 some not; 2 something "
               "could not be measured")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all samples to FILE")
    parser.add_argument("--runs", type=int, default=7, metavar="N",
                        help="how often each contestant is measured (default: 7)")
    parser.add_argument("--trace", type=Path, metavar="FILE",
                        help="the writes of a first boot, a line OFFSET LENGTH for each (default: "
                             "made by rule, as OVMF was seen to do it)")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg",
                        help="also draw what the case growth measured; FILE.md, if there is one, "
                             "gets the figures for those of its table")
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), metavar="DIR",
                        help="the disk that is measured on; needs 8 GB (default: /var/tmp)")
    parser.add_argument("cases", nargs="*", metavar="CASE", help="what to measure (default: all)")
    options = parser.parse_args()
    unknown = [case for case in options.cases if case not in CASES]
    if unknown:
        parser.error(f"no case is named {unknown[0]!r}; there are {', '.join(CASES)}")
    if options.runs < 1:
        parser.error("--runs takes 1 or more")
    if options.plot and bench_growth.CASE not in (options.cases or CASES):
        parser.error(f"--plot draws the case {bench_growth.CASE}, which is not among these")
    if options.plot and options.plot.suffix != ".svg":
        parser.error("--plot: the name must end in .svg")
    if "," in str(options.directory.resolve()):
        parser.error("--directory: mount options cannot hold a path with a comma")
    return options


def compile_c(source: Path, program: Path, *flags: str) -> Path:
    run("gcc", "-O2", "-o", program, source, *flags)
    return program


def compile_passthrough(directory: Path) -> Path | None:
    if not PASSTHROUGH_SOURCE.exists():
        return None
    flags = run("pkg-config", "--cflags", "--libs", "fuse3").split()
    return compile_c(PASSTHROUGH_SOURCE, directory / "passthrough_ll", *flags)


def make_bench(options: argparse.Namespace, directory: Path) -> Bench:
    trace = options.trace
    if not trace:
        trace = directory / "first-boot.trace"
        trace.write_text(first_boot())
    return Bench(
        runs=options.runs,
        directory=directory,
        client=compile_c(Path(__file__).with_name("bench.c"), directory / "client", "-pthread"),
        trace=trace,
        programs=Programs(fwfs=Path(os.environ["FWFS_BIN"]).resolve(),
                          passthrough=compile_passthrough(directory)))


def measure_all(bench: Bench, cases: list[str]) -> tuple[list[Measure], bool]:
    """What was measured, and whether all was."""
    measures: list[Measure] = []
    complete = True
    for name in cases:
        print(f"measuring {name}", file=sys.stderr, flush=True)
        try:
            measures += CASES[name](bench)
        except BenchError as error:
            bench.note(f"{name} COULD NOT BE MEASURED: {error}")
            complete = False
    return measures, complete


def describe_machine(load: float) -> dict[str, object]:
    return {
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load_before": load,
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def report(bench: Bench, measures: list[Measure], machine: dict[str, object]) -> None:
    if measures:
        print_table(measures)
        print_targets(measures)
    print(f"\n{machine['cpus']} CPUs, Linux {machine['kernel']}, "
          f"load before {machine['load_before']}")
    noisy = sum(len(measure.noisy()) for measure in measures)
    if noisy:
        total = sum(len(measure.samples) for measure in measures)
        bench.note(f"the machine was noisy for {noisy} of {total} figures: measure again")
    for note in bench.notes:
        print(note)


def clean_up(directory: Path) -> None:
    """What is still mounted must not be emptied with the rest."""
    left = mounts_below(directory)
    if left:
        print(f"bench: {directory} stays, since {left[0]} could not be unmounted", file=sys.stderr)
    else:
        shutil.rmtree(directory, ignore_errors=True)


def main() -> int:
    options = parse()
    # So that a mount is undone then, too.
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, lambda *_: sys.exit(FAILED))
    load = round(os.getloadavg()[0], 2)
    machine = describe_machine(load)
    directory = Path(tempfile.mkdtemp(prefix="fwfs-bench-", dir=options.directory)).resolve()
    try:
        bench = make_bench(options, directory)
        if load > QUIET_LOAD:
            bench.note(f"something else was running at the start (load {load}): measure again")
        measures, complete = measure_all(bench, options.cases or list(CASES))
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return FAILED
    finally:
        clean_up(directory)
    report(bench, measures, machine)
    if options.json:
        options.json.write_text(json.dumps({
            "schema_version": 1, "machine": machine, "notes": bench.notes,
            "measures": as_json(measures)}, indent=2) + "\n")
    if not complete:
        return FAILED
    if options.plot:
        bench_growth.document(measures, options.plot)
    return REACHED if all_reached(measures) else MISSED


if __name__ == "__main__":
    sys.exit(main())
