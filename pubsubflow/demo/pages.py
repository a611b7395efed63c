"""The report's files: its numbers in JSON, a page in Markdown, a chart in SVG."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pubsubflow.demo import chart

Row = Mapping[str, Any]


def write(folder: Path, report: Row) -> list[Path]:
    """Write `report.json`, `report.md` and `report.svg` into a folder; return their paths."""
    pages = {
        "report.json": json.dumps(report, indent=2) + "\n",
        "report.md": markdown(report),
        "report.svg": chart.draw(report),
    }
    for name, text in pages.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in pages]


def markdown(report: Row) -> str:
    """Return the report as a page of Markdown that shows `report.svg`."""
    parts = [
        "# Late departures from New York\n",
        _in_short(report["departures"]),
        "![Late departures by month and by weather](report.svg)\n",
        "## By weather\n",
        *_weather_table(report["weather"]),
        "\n## By month: late departures, %\n",
        *_months_table(report["months"]),
        "\n## The file\n",
        f"{report['accepted']:,} rows were used, {sum(report['rejected'].values())} refused:\n",
        *(f"- {reason}: {rows}" for reason, rows in report["rejected"].items()),
    ]
    return "\n".join(parts) + "\n"


def _in_short(total: Row) -> str:
    return (
        f"Of {total['scheduled']:,} flights scheduled, {total['cancelled']:,} "
        f"({total['cancelled_percent']:.1f} %) were cancelled. Of the "
        f"{total['scheduled'] - total['cancelled']:,} that left, {total['late_percent']:.1f} % "
        "left 15 minutes or more behind schedule; the mean delay was "
        f"{total['mean_delay']:.1f} minutes.\n"
    )


def _weather_table(rows: list[Row]) -> Iterator[str]:
    yield "| weather | hours | flights scheduled | cancelled, % | late, % | mean delay, min |"
    yield "|---|---:|---:|---:|---:|---:|"
    for row in rows:
        yield (
            f"| {row['weather']} | {row['hours']:,} | {row['scheduled']:,} "
            f"| {row['cancelled_percent']:.1f} | {row['late_percent']:.1f} "
            f"| {row['mean_delay']:.1f} |"
        )


def _months_table(rows: list[Row]) -> Iterator[str]:
    airports = sorted({row["airport"] for row in rows})
    late = {(row["month"], row["airport"]): f"{row['late_percent']:.1f}" for row in rows}
    yield f"| month | {' | '.join(airports)} |"
    yield f"|---|{'---:|' * len(airports)}"
    for month in sorted({row["month"] for row in rows}):
        yield f"| {month} | {' | '.join(late.get((month, name), '-') for name in airports)} |"
