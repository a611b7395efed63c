"""The demo's scenario: its files, the event that starts it, and the table of its result."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

LANDING = "file://demo/landing/nyc-hours"
"""The dataset whose event starts the pipeline."""

REPORT_DAG = "report"
"""The DAG whose run ends the demo; its task `publish` returns the report."""

_STYLES = {"success": "green", "failed": "bold red", "running": "cyan"}
_BAR_WIDTH = 24


class RunLine(msgspec.Struct, frozen=True):
    """One run of the demo.

    Attributes:
        dag_id: The DAG that ran.
        state: The run's state, as the API names it.
        started: When it started.
        ended: When it ended; None while it runs.
        cause: Why the run exists, in words: the datasets whose events it consumed.
    """

    dag_id: str
    state: str
    started: datetime
    ended: datetime | None
    cause: str


def data_file() -> Path:
    """Return the path of the CSV file that ships with the demo."""
    return Path(__file__).with_name("data") / "nyc_hours.csv"


def dags_folder() -> Path:
    """Return the folder of the demo's DAG file."""
    return Path(__file__).with_name("dags")


def arrival(work_dir: Path, path: Path | None = None) -> dict[str, Any]:
    """Return the event for `/api/v1/datasets/events` that says that a file has arrived.

    Args:
        work_dir: An existing folder for the database and the report.
        path: The file; the demo's own if left out.
    """
    extra = {"path": str(path or data_file()), "work_dir": str(work_dir)}
    return {"dataset": LANDING, "extra": extra}


def render_result(
    runs: Sequence[RunLine], report: Mapping[str, Any], places: Mapping[str, str]
) -> RenderableType:
    """Render the runs, the report and the places of its files for a rich console.

    Args:
        runs: The runs that the event started, directly or not, in any order; at least one.
        report: The result of `flights.summarise`.
        places: Paths, addresses and commands, by name.
    """
    return Group(
        Text(f"\nOne event, {len(runs)} runs", style="bold"),
        _runs_table(runs),
        Text("\nReport", style="bold"),
        *_findings(report),
        _weather_table(report["weather"]),
        Text("\nFiles and commands", style="bold"),
        _places_table(places),
    )


def _runs_table(runs: Sequence[RunLine]) -> Table:
    begin = min(run.started for run in runs)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("after", "DAG", "state", "took", "cause"):
        table.add_column(name, justify="right" if name in {"after", "took"} else "left")
    for run in sorted(runs, key=lambda run: run.started):
        table.add_row(
            _milliseconds(run.started - begin),
            run.dag_id,
            Text(run.state, style=_STYLES.get(run.state, "yellow")),
            _milliseconds(run.ended - run.started) if run.ended else "",
            run.cause,
        )
    return table


def _findings(report: Mapping[str, Any]) -> Iterator[Text]:
    total, rejected = report["departures"], report["rejected"]
    reasons = ", ".join(f"{reason}: {rows}" for reason, rows in rejected.items())
    yield Text(
        f"{report['accepted']:,} rows loaded, {sum(rejected.values())} refused"
        + (f" ({reasons})" if reasons else "")
    )
    yield Text(
        f"{total['scheduled']:,} departures: {total['cancelled_percent']:.1f} % cancelled, "
        f"{total['late_percent']:.1f} % late, {total['mean_delay']:.1f} min mean delay"
    )


def _weather_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("weather")
    table.add_column("departures", justify="right")
    table.add_column("late, %", justify="right")
    table.add_column("")
    most = max((row["late_percent"] for row in rows), default=0) or 1
    for row in rows:
        bar = "█" * round(_BAR_WIDTH * row["late_percent"] / most)
        table.add_row(
            row["weather"],
            f"{row['scheduled'] - row['cancelled']:,}",
            f"{row['late_percent']:.1f}",
            Text(bar, style="blue"),
        )
    return table


def _places_table(places: Mapping[str, str]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, place in places.items():
        table.add_row(name, Text(place))
    return table


def _milliseconds(span: timedelta) -> str:
    return f"{span / timedelta(milliseconds=1):,.0f} ms"
