"""Report of a run: a results file that is kept up to date, and a table at the end."""

import json
import os
import platform
import time
import traceback
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.figures import over_floor

RESULTS = Path(__file__).parent / "results"


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
        self._figures: dict[str, list[dict[str, Any]]] = {}
        self.failed: dict[str, str] = {}
        self._write()

    def add(self, scenario: str, figures: list[dict[str, Any]]) -> None:
        """Add a scenario's figures."""
        self._figures[scenario] = figures
        self._write()

    def fail(self, scenario: str, error: Exception) -> None:
        """Note that a scenario failed, and print why."""
        traceback.print_exception(error)
        self.failed[scenario] = f"{type(error).__name__}: {error}"
        self._write()

    def _write(self) -> None:
        self._path = write_results(
            self._name,
            {
                "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "cores": os.cpu_count(),
                "python": platform.python_version(),
                "load": os.getloadavg()[0],
                "figures": self._figures,
                "failed": self.failed,
            },
        )

    def show(self) -> None:
        """Print the figures, and then the scenarios that failed."""
        table = Table("scenario", "figure", "measured", "target", "met", "÷ floor")
        for scenario, figures in self._figures.items():
            for each in figures:
                met = "[green]yes" if each["met"] else "[red]no"
                value = f"{each['value']:g} {each['unit']}"
                row = scenario, each["name"], value, f"{each['target']:g}", met, over_floor(each)
                table.add_row(*row)
        console = Console(width=120)
        console.print(table)
        for scenario, error in self.failed.items():
            console.print(f"[red]failed[/]: {scenario}: {error}", highlight=False)
        console.print(f"written to {self._path}")
