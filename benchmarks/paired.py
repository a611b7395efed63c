"""Paired runs: this checkout and another in turn, so that both see the same machine."""

import json
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.report import write_results

HERE = Path(__file__).parents[1]
Values = dict[str, dict[str, list[float]]]


def compare(other: Path, scenarios: tuple[str, ...], rounds: int) -> bool:
    """Measure both checkouts, alternating; print and write medians and their ratio.

    Args:
        other: The other checkout; it has a virtual environment in `.venv`.
        scenarios: What to measure; both must have them.
        rounds: How many times each checkout is measured.

    Returns:
        Whether every run of both succeeded.
    """
    pythons = {HERE: Path(sys.executable), other: other / ".venv" / "bin" / "python"}
    if not pythons[other].exists():
        raise SystemExit(f"{pythons[other]} does not exist: make a virtual environment there")
    name = time.strftime("paired-%Y%m%d-%H%M%S")
    values: Values = defaultdict(lambda: defaultdict(list))
    succeeded = True
    for number in range(rounds):
        # The order changes each round: what the first run leaves behind must not favour one side.
        for root in (HERE, other) if number % 2 == 0 else (other, HERE):
            print(f"round {number + 1} of {rounds}: {root} …", flush=True)
            succeeded &= _measure(root, pythons[root], scenarios, values)
        path = write_results(name, {"here": str(HERE), "there": str(other), "figures": values})
    _show(values, other, path)
    return succeeded


def _measure(root: Path, python: Path, scenarios: tuple[str, ...], values: Values) -> bool:
    started = time.time()
    command = [python, "-m", "benchmarks", *scenarios]
    done = subprocess.run(command, cwd=root, stdout=subprocess.DEVNULL, check=False)
    results = root / "benchmarks" / "results"
    written = [path for path in results.glob("2*.json") if path.stat().st_mtime >= started]
    side = "here" if root == HERE else "there"
    for path in written:
        for figures in json.loads(path.read_text())["figures"].values():
            for each in figures:
                values[each["name"]][side].append(each["value"])
    return done.returncode == 0 and bool(written)


def _show(values: Values, other: Path, path: Path) -> None:
    table = Table("figure", f"there ({other})", "here", "here ÷ there")
    for name, sides in values.items():
        if sides.keys() == {"here", "there"}:
            here, there = statistics.median(sides["here"]), statistics.median(sides["there"])
            ratio = f"{here / there:.3f}" if there else "-"
            table.add_row(name, f"{there:g}", f"{here:g}", ratio)
    console = Console(width=140)
    console.print(table)
    console.print(f"medians; all values are in {path}")
