"""Draws bytes by the number of guests, both on logarithmic scales, as plain SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 760, 460
LEFT, RIGHT, TOP, BOTTOM = 86, 150, 52, 60
UNITS = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))

LIGHT = {"text": "#1f2328", "paper": "#ffffff", "grid": "#d1d9e0",
         "series": ("#b35900", "#0969da", "#1a7f37")}
DARK = {"text": "#e6edf3", "paper": "#0d1117", "grid": "#30363d",
        "series": ("#f0883e", "#58a6ff", "#3fb950")}


def _colours(palette: Mapping[str, str | Sequence[str]]) -> str:
    series = "".join(f".s{i} path {{ stroke: {colour} }} .s{i} circle, .s{i} text {{ fill: {colour} "
                     "}\n" for i, colour in enumerate(palette["series"]))
    return (f"text {{ fill: {palette['text']} }} .paper {{ fill: {palette['paper']} }} "
            f".grid {{ stroke: {palette['grid']} }}\n{series}")


# Follows the reader's choice of light or dark; who knows of none shows the light.
STYLE = f"""
text {{ font: 13px sans-serif }} .title {{ font-size: 16px; font-weight: bold }}
.line {{ fill: none; stroke-width: 2.5 }}
{_colours(LIGHT)}@media (prefers-color-scheme: dark) {{
{_colours(DARK)}}}
"""

Series = Mapping[str, Mapping[int, float]]  # by name: bytes by number of guests


def show_bytes(value: float) -> str:
    """With a unit, and three digits at most."""
    for size, unit in UNITS:
        if value >= size:
            return f"{value / size:.3g} {unit}" if value < 999.5 * size else \
                f"{value / size:,.0f} {unit}"
    return f"{value:.0f} B"


@dataclass(frozen=True)
class Scale:
    """From the logarithm of a value, between `low` and `high`, to a place between two others."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        part = math.log(value / self.low) / math.log(self.high / self.low)
        return round(self.start + part * (self.end - self.start), 1)


def ticks(low: float, high: float, base: int) -> list[int]:
    """The powers of the base that enclose both."""
    first = math.floor(math.log(low, base) + 1e-9)
    last = math.ceil(math.log(high, base) - 1e-9)
    return [base ** exponent for exponent in range(first, max(last, first + 1) + 1)]


def _text(x: float, y: float, text: str, anchor: str = "start", more: str = "") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}"{more}>{escape(text)}</text>'


def _axes(x: Scale, guests: list[int], y: Scale, sizes: list[int]) -> Iterator[str]:
    for count in guests:
        yield f'<path class="grid" d="M{x(count)} {y.start}V{y.end}"/>'
        yield _text(x(count), y.start + 20, f"{count:,}", "middle")
    for size in sizes:
        yield f'<path class="grid" d="M{x.start} {y(size)}H{x.end}"/>'
        yield _text(x.start - 8, y(size) + 4, show_bytes(size), "end")
    yield _text((x.start + x.end) / 2, HEIGHT - 14, "guests", "middle")
    middle = (y.start + y.end) / 2
    yield _text(18, middle, "bytes on the disk", "middle",
                more=f' transform="rotate(-90 18 {middle})"')


def draw(title: str, series: Series) -> str:
    """Each series is named at its end."""
    guests = [count for points in series.values() for count in points]
    values = [value for points in series.values() for value in points.values()]
    counts, sizes = ticks(min(guests), max(guests), 10), ticks(min(values), max(values), 8)
    x = Scale(counts[0], counts[-1], LEFT, WIDTH - RIGHT)
    y = Scale(sizes[0], sizes[-1], HEIGHT - BOTTOM, TOP)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
             f'role="img" aria-label="{escape(title)}">',
             f"<style>{STYLE}</style>",
             f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}"/>',
             _text(LEFT, 28, title, more=' class="title"'),
             *_axes(x, counts, y, sizes)]
    for number, (name, points) in enumerate(series.items()):
        places = [(x(count), y(value)) for count, value in sorted(points.items())]
        path = "L".join(f"{across} {up}" for across, up in places)
        parts.append(f'<g class="s{number}"><path class="line" d="M{path}"/>')
        parts += [f'<circle cx="{across}" cy="{up}" r="3.5"/>' for across, up in places]
        across, up = places[-1]
        last = points[max(points)]
        parts.append(_text(across + 10, up - 3, name))
        parts.append(_text(across + 10, up + 13, show_bytes(last)) + "</g>")
    return "\n".join([*parts, "</svg>"]) + "\n"
