"""Benchmark runner: measures scenarios one after the other, or two checkouts in turn.

`make bench` runs all scenarios, `--goals` those that decide the goals. The results file is complete
after each scenario; a scenario that fails is reported at the end, and the exit code is 1 then.
"""

import argparse
import importlib
import os
import sys
from pathlib import Path

from benchmarks.goals import scenarios
from benchmarks.paired import compare
from benchmarks.report import Report, newest_figures, print_tables

SCENARIOS = (
    *(
        "idle",
        "commands",
        "hot_path",
        "hop_costs",
        "calls",
        "throughput",
        "load",
        "pending",
        "waiting",
        "deadlines",
        "loader",
        "files",
        "large_dags",
        "stream",
        "mapped",
        "page",
        "pods",
        "daemons",
        "on_dask",
        "recovery",
        "edits",
        "cluster",
        "growth",
        "large_values",
        "busy_disk",
        "hours",
        "airflow",
    ),
)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Run benchmarks.")
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument(
        "--against",
        type=Path,
        metavar="PATH",
        help="run another checkout, with its own .venv, in turn with this one and compare medians",
    )
    parser.add_argument(
        "--goals", action="store_true", help="run the scenarios alone that decide the goals"
    )
    parser.add_argument(
        "--table",
        action="store_true",
        help="run nothing: print the newest figures of each scenario",
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds of --against (default: 5)")
    options = parser.parse_args()
    unknown = set(options.scenarios) - set(SCENARIOS)
    if unknown:
        parser.error(f"unknown scenarios {', '.join(sorted(unknown))}: use {', '.join(SCENARIOS)}")
    return options


def _run(names: tuple[str, ...]) -> bool:
    report = Report()
    for name in names:
        print(f"{name} …", flush=True)
        report.measure(name, importlib.import_module(f"benchmarks.{name}").run)
    report.show()
    return not report.failed


def main() -> int:
    """Run the scenarios that are named, by default all of them; return the exit code."""
    # Daemons that may not store what they compile take a quarter of a second longer to start.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    options = _parse()
    if options.table:
        print_tables(newest_figures(), SCENARIOS)
        return 0
    names = tuple(options.scenarios) or (scenarios() if options.goals else SCENARIOS)
    if options.against is not None:
        return not compare(options.against.resolve(), names, options.rounds)
    return not _run(names)


if __name__ == "__main__":
    sys.exit(main())
