"""How a store grows with its guests: the case, a plot and a table of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench_cases import Bench
from bench_contestants import COMBINED, FwfsStore
from bench_keepers import boot_all, record_boot
from bench_plot import draw, show_bytes
from bench_report import Measure
from bench_tools import BenchError

CASE = "growth"
SIZES = (100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
COPIES, NEW, BOOTED = "plain copies", "fwfs, new", "fwfs, booted"


def guests(count: int) -> str:
    return f"{count:,} guests"


def _grow(store: FwfsStore, then: Callable[[Sequence[str], int], None]) -> dict[int, int]:
    """The store's bytes by the number of guests. `then` gets who is new, and the first's number."""
    names = [f"vm{i:06}" for i in range(SIZES[-1])]
    sizes: dict[int, int] = {}
    for before, count in zip((0, *SIZES), SIZES):
        store.add_guests("combined", names[before:count])
        then(names[before:count], before)
        sizes[count] = store.size_bytes()
    return sizes


def growth(bench: Bench) -> list[Measure]:
    """the bytes of a store of 100 to 100,000 guests, new and booted; --plot draws them"""
    boot = record_boot(bench.directory)
    new = FwfsStore(bench.programs.fwfs, bench.directory / "growth-new", ("combined",))
    new_sizes = _grow(new, lambda names, first: None)
    store = FwfsStore(bench.programs.fwfs, bench.directory / "growth-booted", ("combined",))

    def boot_new(names: Sequence[str], first: int) -> None:
        store.mount()
        try:
            boot_all([store.mountpoint / name / "code" for name in names], boot, first)
        finally:
            store.unmount()

    booted_sizes = _grow(store, boot_new)
    measures = []
    for count in SIZES:
        measure = Measure(CASE, guests(count), "bytes")
        measure.add(COPIES, count * COMBINED.stat().st_size)
        measure.add(NEW, new_sizes[count])
        measure.add(BOOTED, booted_sizes[count])
        measures.append(measure)
    return measures


# ---- For the documentation ----

def _rows(measures: Sequence[Measure]) -> dict[int, Measure]:
    by_name = {measure.what: measure for measure in measures if measure.case == CASE}
    return {count: by_name[guests(count)] for count in SIZES if guests(count) in by_name}


def table(measures: Sequence[Measure]) -> Iterator[str]:
    """In Markdown; a guest's part is of all bytes, the image that they share among them."""
    names = (COPIES, NEW, BOOTED)
    yield f"| guests | {' | '.join(names)} | a new guest | a booted guest |"
    yield "|" + "---:|" * (len(names) + 3)
    for count, measure in _rows(measures).items():
        cells = [f"{count:,}"]
        cells += [show_bytes(measure.median(name)) if name in measure.samples else "-"
                  for name in names]
        cells += [f"{measure.median(name) / count:,.0f} B" if name in measure.samples else "-"
                  for name in (NEW, BOOTED)]
        yield f"| {' | '.join(cells)} |"


def replace_table(text: str, rows: Sequence[str]) -> str:
    """The text with these rows for those of its first table."""
    lines = text.splitlines()
    first = next((i for i, line in enumerate(lines) if line.startswith("|")), None)
    if first is None:
        raise BenchError("there is no table to replace")
    last = next((i for i in range(first, len(lines)) if not lines[i].startswith("|")), len(lines))
    return "\n".join([*lines[:first], *rows, *lines[last:]]) + "\n"


def document(measures: Sequence[Measure], plot: Path) -> None:
    """Draws the plot; a document of the same name beside it gets the figures in its table."""
    series: dict[str, dict[int, float]] = {}
    for count, measure in _rows(measures).items():
        for name in measure.samples:
            series.setdefault(name, {})[count] = measure.median(name)
    plot.write_text(draw("Guests of a 2 MiB image, and what they take", series))
    page = plot.with_suffix(".md")
    if page.exists():
        page.write_text(replace_table(page.read_text(), list(table(measures))))
