"""Commands: how long short ones take as processes, and their CPU time."""

import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.figures import figure, spread
from benchmarks.stack import Stack

ROUNDS = 15
COMMANDS = (("dags", "list"), ("runs", "list"))


def _measure(command: tuple[str, ...], home: Path) -> tuple[float, float]:
    """Return the seconds and the CPU seconds of one command."""
    # Not compiled anew each time, as the caller's environment may have it.
    environment = {name: text for name, text in os.environ.items() if name[:4] != "PYTH"}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [Path(sys.executable).parent / "pubsubflow", *command],
        env=environment | {"PUBSUBFLOW_HOME": str(home)},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def run() -> list[dict[str, Any]]:
    """Measure."""
    figures = []
    with Stack() as stack:
        stack.wait_run(stack.trigger("row_10"))
        for command in COMMANDS:
            _measure(command, stack.home)
            measured = [_measure(command, stack.home) for _ in range(ROUNDS)]
            wall, cpu = ([1000 * each for each in column] for column in zip(*measured, strict=True))
            name = f"`{' '.join(command)}` as a process, p50"
            median = round(statistics.median(wall), 1)
            figures.append(
                figure(name, median, "ms", target=120, wall=spread(wall), cpu=spread(cpu))
            )
    return figures
