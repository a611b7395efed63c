"""Report of a run: a results file that is kept up to date, and a table at the end."""

import json
import os
import platform
import time
import traceback
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import goals

RESULTS = Path(__file__).parent / "results"
Figures = dict[str, list[dict[str, Any]]]
_RUNS = "[0-9]" * 8 + "-" + "[0-9]" * 6  # a moment, as `Report` names its file
_WIDTH = 150


def write_results(name: str, content: dict[str, Any]) -> Path:
    """Write a results file, replacing an earlier one of that name at once."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(content, indent=1))
    draft.replace(path)
    return path


class Report:
    """The figures of the scenarios so far, and the errors of those that failed."""

    def __init__(self) -> None:
        self._name = time.strftime("%Y%m%d-%H%M%S")
        self._figures: Figures = {}
        self._seconds: dict[str, float] = {}
        self._loads: dict[str, float] = {}
        self.failed: dict[str, str] = {}
        self._write()

    def measure(self, scenario: str, run: Callable[[], list[dict[str, Any]]]) -> None:
        """Run a scenario and add its figures; one that fails is noted with its error."""
        self._loads[scenario] = round(os.getloadavg()[0], 2)
        started = time.perf_counter()
        try:
            self._figures[scenario] = run()
        except Exception as error:  # noqa: BLE001 - the other scenarios are measured all the same
            traceback.print_exception(error)
            self.failed[scenario] = f"{type(error).__name__}: {error}"
        self._seconds[scenario] = round(time.perf_counter() - started, 1)
        self._write()

    def _write(self) -> None:
        self._path = write_results(
            self._name,
            {
                "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "cores": os.cpu_count(),
                "python": platform.python_version(),
                "loads": self._loads,
                "seconds": self._seconds,
                "figures": self._figures,
                "failed": self.failed,
            },
        )

    def show(self) -> None:
        """Print the figures, then the goals that they decide, and the scenarios that failed."""
        print_tables(self._figures, self._seconds)
        console = Console(width=_WIDTH)
        for scenario, error in self.failed.items():
            console.print(f"[red]failed[/]: {scenario}: {error}", highlight=False)
        console.print(f"written to {self._path}")


def newest_figures(folder: Path = RESULTS) -> Figures:
    """Return the newest figures of each scenario, of all results files of a folder."""
    found: Figures = {}
    for path in sorted(folder.glob(f"{_RUNS}.json")):
        found |= json.loads(path.read_text())["figures"]
    return found


def print_tables(figures: Figures, scenarios: Collection[str]) -> None:
    """Print all figures, and then the goals that some scenarios decide."""
    table = Table("scenario", "figure", "measured", "target", "met", "÷ floor")
    for scenario, found in figures.items():
        for each in found:
            table.add_row(scenario, each["name"], *goals.measured_cells(each))
    console = Console(width=_WIDTH)
    console.print(table)
    console.print(goals.table(figures, scenarios))
