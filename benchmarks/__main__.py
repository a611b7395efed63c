"""`make bench`: run all scenarios, or those named; write JSON, print a table."""

import importlib
import json
import os
import platform
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

SCENARIOS = ("resting", "hot_path", "throughput", "load", "pending", "waiting", "loader", "live")


def main() -> None:
    names = sys.argv[1:] or SCENARIOS
    found = {}
    for name in names:
        print(f"{name} …", flush=True)
        found[name] = importlib.import_module(f"benchmarks.{name}").run()
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    report = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
        "figures": found,
    }
    path = results / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.write_text(json.dumps(report, indent=1))
    table = Table("scenario", "figure", "measured", "target", "met")
    for name, figures in found.items():
        for each in figures:
            met = "[green]yes" if each["met"] else "[red]no"
            value = f"{each['value']:g} {each['unit']}"
            table.add_row(name, each["name"], value, f"{each['target']:g}", met)
    console = Console(width=120)
    console.print(table)
    console.print(f"written to {path}")


if __name__ == "__main__":
    main()
