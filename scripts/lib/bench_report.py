"""What was measured, as a table and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

# Above this, half of the runs differ by so much that a ratio says little.
NOISY_SPREAD = 0.2


@dataclass(frozen=True)
class Target:
    """What the median of `contestant` must be: `at_most` or `at_least`, alone or, with `against`,
    as a multiple of another's."""

    contestant: str
    against: str | None = None
    at_most: float | None = None
    at_least: float | None = None


@dataclass
class Measure:
    """One figure of each contestant, taken in several runs. The first contestant is what the others
    are compared with."""

    case: str
    what: str
    unit: str  # "ns", "bytes" or "/s"
    targets: Sequence[Target] = ()
    samples: dict[str, list[float]] = field(default_factory=dict)

    def add(self, contestant: str, value: float) -> None:
        self.samples.setdefault(contestant, []).append(value)

    def median(self, contestant: str) -> float:
        return statistics.median(self.samples[contestant])

    def ratio(self, contestant: str) -> float | None:
        """None if the first's figure is 0."""
        first = self.median(next(iter(self.samples)))
        return self.median(contestant) / first if first else None

    def spread(self, contestant: str) -> float | None:
        """How far the middle half of the runs lies apart, as a part of the median."""
        samples = self.samples[contestant]
        if len(samples) < 3:
            return None
        low, _, high = statistics.quantiles(samples, n=4, method="inclusive")
        median = self.median(contestant)
        return (high - low) / median if median else None

    def value_of(self, target: Target) -> float | None:
        """None if somebody who takes part in it was not measured, or it is compared with 0."""
        if any(name and name not in self.samples for name in (target.contestant, target.against)):
            return None
        value = self.median(target.contestant)
        if not target.against:
            return value
        other = self.median(target.against)
        return value / other if other else None

    def reached(self, target: Target) -> bool | None:
        value = self.value_of(target)
        if value is None:
            return None
        if target.at_most is not None:
            return value <= target.at_most
        return target.at_least is None or value >= target.at_least

    def noisy(self) -> list[str]:
        return [name for name in self.samples if (self.spread(name) or 0) > NOISY_SPREAD]


def show(value: float, unit: str) -> str:
    """A figure for a person: three digits or so, and a unit of fitting size."""
    if unit == "bytes":
        for least, size, name in ((10 << 30, 1 << 30, "GiB"), (10 << 20, 1 << 20, "MiB")):
            if value >= least:
                return f"{value / size:,.1f} {name}"
        return f"{value:,.0f} B"
    if unit == "/s":
        return f"{value:,.0f}/s"
    for limit, factor, name in ((1e3, 1, "ns"), (1e6, 1e3, "us"), (1e9, 1e6, "ms")):
        if value < limit:
            return f"{value / factor:.3g} {name}"
    return f"{value / 1e9:.3g} s"


def print_table(measures: Sequence[Measure]) -> None:
    width = max(len(name) for measure in measures for name in measure.samples)
    print(f"  {'':<{width}}{'median':>13}{'ratio':>10}{'spread':>9}{'runs':>6}")
    for measure in measures:
        print(f"{measure.case}: {measure.what}")
        for name, samples in measure.samples.items():
            spread = measure.spread(name)
            ratio = measure.ratio(name)
            times = "-" if ratio is None else f"{ratio:.3g}"
            noise = "-" if spread is None else f"{100 * spread:.0f} %"
            mark = "  noisy" if name in measure.noisy() else ""
            print(f"  {name:<{width}}{show(measure.median(name), measure.unit):>13}"
                  f"{times:>10}{noise:>9}{len(samples):>6}{mark}")
    print("ratio: to the first line of each; spread: of the middle half of the runs, to the median")


def describe_target(measure: Measure, target: Target) -> tuple[str, str]:
    """What is wanted, and what was found."""
    bound = "at most" if target.at_most is not None else "at least"
    limit = target.at_most if target.at_most is not None else target.at_least
    assert limit is not None
    value = measure.value_of(target)
    if target.against:
        wanted = f"{target.contestant}: {bound} {limit:g} x {target.against}"
        found = "-" if value is None else f"{value:.4g} x"
    else:
        wanted = f"{target.contestant}: {bound} {show(limit, measure.unit)}"
        found = "-" if value is None else show(value, measure.unit)
    return wanted, found


def print_targets(measures: Sequence[Measure]) -> None:
    rows = [(f"{measure.case}: {measure.what}", *describe_target(measure, target),
             {True: "yes", False: "NO", None: "not measured"}[measure.reached(target)])
            for measure in measures for target in measure.targets]
    if not rows:
        return
    heads = ("", "target", "found", "reached")
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    print()
    for row in [heads, *rows]:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip())


def all_reached(measures: Sequence[Measure]) -> bool:
    return all(measure.reached(target) for measure in measures for target in measure.targets)


def as_json(measures: Sequence[Measure]) -> list[dict[str, object]]:
    return [{
        "case": measure.case,
        "measure": measure.what,
        "unit": measure.unit,
        "contestants": [{
            "contestant": name,
            "median": measure.median(name),
            "ratio": measure.ratio(name),
            "spread": measure.spread(name),
            "noisy": name in measure.noisy(),
            "samples": samples,
        } for name, samples in measure.samples.items()],
        "targets": [{
            "target": describe_target(measure, target)[0],
            "contestant": target.contestant,
            "against": target.against,
            "at_most": target.at_most,
            "at_least": target.at_least,
            "found": measure.value_of(target),
            "reached": measure.reached(target),
        } for target in measure.targets],
    } for measure in measures]
