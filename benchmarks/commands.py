"""Commands: how long `dags list` and its like take as processes, beside a bare interpreter."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.figures import figure, spread
from benchmarks.stack import Stack

TIMES = 20
_TARGETS = {
    "dags list": 0.12,
    "runs list": 0.12,
    "runs list --json": 0.12,
    "datasets events": 0.12,
    "--version": 0.1,
    "--help": 0.2,
}


def _seconds(*command: str | Path) -> float:
    started = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def run() -> list[dict[str, Any]]:
    """Measure."""
    program = Path(sys.executable).parent / "pubsubflow"
    found = []
    with Stack() as stack:
        for _ in range(10):
            stack.wait_run(stack.trigger("row_10"))
        for text, target in _TARGETS.items():
            server = () if text.startswith("-") else ("--server", stack.url)
            command = (program, *text.split(), *server)
            _seconds(*command)  # compiles
            # In turn, so that both see the same machine.
            pairs = [(_seconds(*command), _seconds(sys.executable, "-c", "")) for _ in range(TIMES)]
            values = spread([ours for ours, _ in pairs], 3)
            floor = spread([bare for _, bare in pairs], 3)["p50"]
            name = f"`pubsubflow {text}`, p50"
            found.append(
                figure(name, values["p50"], "s", target=target, spread=values, floor=floor)
            )
    return found
