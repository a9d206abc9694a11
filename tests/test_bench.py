"""What scripts/bench computes, where nothing is measured."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

import bench_growth
import bench_plot
from bench_keepers import BLOCK, OWN_BYTES, changed_blocks, with_own_bytes
from bench_report import Measure, Target, all_reached, as_json, show
from bench_tools import BenchError


def test_a_target_is_of_the_median_or_of_a_ratio() -> None:
    alone, against = Target("b", at_most=20), Target("b", "a", at_least=2.5)
    measure = Measure("case", "what", "ns", [alone, against])
    for value in (10, 8, 9):
        measure.add("a", value)
    assert measure.reached(alone) is None
    assert not all_reached([measure])
    for value in (20, 90, 18):
        measure.add("b", value)
    assert measure.reached(alone) is True
    assert measure.reached(against) is False
    [told] = as_json([measure])
    assert [target["reached"] for target in told["targets"]] == [True, False]


def test_nothing_is_a_ratio_of_nothing() -> None:
    measure = Measure("case", "what", "bytes", [Target("b", "a", at_most=1)])
    measure.add("a", 0)
    measure.add("b", 0)
    assert measure.ratio("b") is None
    assert measure.reached(measure.targets[0]) is None


@pytest.mark.parametrize("value, unit, shown", [
    (70, "bytes", "70 B"), (200_724, "bytes", "200,724 B"), (64 << 20, "bytes", "64.0 MiB"),
    (1_234_000, "ns", "1.23 ms"), (1.5e9, "ns", "1.5 s"), (4_321.4, "/s", "4,321/s")])
def test_figures_are_shown_short(value: float, unit: str, shown: str) -> None:
    assert show(value, unit) == shown


def test_each_guest_has_bytes_of_its_own() -> None:
    before = bytes(4 * BLOCK)
    after = before[:BLOCK] + b"a" * BLOCK + before[2 * BLOCK:-1] + b"b"
    blocks = changed_blocks(before, after)
    assert sorted(blocks) == [BLOCK, 3 * BLOCK]
    first, second = (with_own_bytes(blocks, guest) for guest in (1, 2))
    assert first == with_own_bytes(blocks, 1)
    assert first[BLOCK] == second[BLOCK] == blocks[BLOCK]
    assert first[3 * BLOCK] != second[3 * BLOCK]
    assert first[3 * BLOCK][:-OWN_BYTES] == second[3 * BLOCK][:-OWN_BYTES]
    assert len(first[3 * BLOCK]) == BLOCK


def growth_of(*counts: int) -> list[Measure]:
    measures = []
    for count in counts:
        measure = Measure(bench_growth.CASE, bench_growth.guests(count), "bytes")
        measure.add(bench_growth.COPIES, count * (2 << 20))
        measure.add(bench_growth.NEW, (2 << 20) + 100 * count)
        measures.append(measure)
    return measures


def test_growth_is_drawn_and_told(tmp_path: Path) -> None:
    page = tmp_path / "growth.md"
    page.write_text("# Growth\n\n| old |\n|---|\n| 1 |\n\nMore.\n")
    bench_growth.document(growth_of(100, 1000, 100_000), tmp_path / "growth.svg")
    text = page.read_text()
    assert text.startswith("# Growth\n\n| guests |") and text.endswith("|\n\nMore.\n")
    assert "| 1,000 | 1.95 GiB | 2.1 MiB | - | 2,197 B | - |\n" in text
    assert "old" not in text
    drawing = ElementTree.parse(tmp_path / "growth.svg").getroot()
    places = [(float(dot.attrib["cx"]), float(dot.attrib["cy"]))
              for dot in drawing.iter("{http://www.w3.org/2000/svg}circle")]
    assert len(places) == 6
    assert all(bench_plot.LEFT <= x <= bench_plot.WIDTH - bench_plot.RIGHT
               and bench_plot.TOP <= y <= bench_plot.HEIGHT - bench_plot.BOTTOM for x, y in places)
    # From left to right as the guests grow; the first series is the larger.
    assert places[0][0] < places[1][0] < places[2][0]
    assert places[2][1] < places[5][1]


def test_a_page_without_a_table_is_refused() -> None:
    with pytest.raises(BenchError):
        bench_growth.replace_table("# Nothing\n", ["| a |"])
