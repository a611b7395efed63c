"""Many DAG files: first start, unchanged restart and one file more, with 1,000 and more of them."""

import tempfile
import time
import urllib.error
from pathlib import Path
from typing import Any

from benchmarks.figures import figure
from benchmarks.loader import SMALL
from benchmarks.stack import Stack

FILES = 1_000
MANY = 10_000


class _Costs:
    """Seconds until a daemon was ready, and the CPU that all its processes had taken by then."""

    def __init__(self, stack: Stack) -> None:
        self.wall = round(stack.ready_seconds, 2)
        self.cpu = round(stack.cpu_seconds(), 2)


def _write(folder: Path, count: int) -> None:
    for number in range(count):
        (folder / f"flow_{number}.py").write_text(SMALL.format(number=number))


def _knows(stack: Stack, dag_id: str) -> bool:
    try:
        stack.get(f"/dags/{dag_id}")
    except urllib.error.HTTPError:
        return False
    return True


def _add(stack: Stack, folder: Path, number: int) -> float:
    """Add a file; return how long it takes until its DAG is known."""
    (folder / f"flow_{number}.py").write_text(SMALL.format(number=number))
    since = time.perf_counter()
    while not _knows(stack, f"flow_{number}"):
        time.sleep(0.01)
    return time.perf_counter() - since


def _measure(count: int) -> tuple[_Costs, _Costs, float]:
    """Return the costs of a first start and of a restart, and the seconds of one file more."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        _write(folder, count)
        stack = Stack(folder, environ={"PUBSUBFLOW__LOADER__MAX_BUNDLE_FILES": "50000"})
        with stack:
            first = _Costs(stack)
            stack.stop()
            stack.start()
            again = _Costs(stack)
            time.sleep(2)
            added = _add(stack, folder, count)
    return first, again, added


def _figures(count: int, targets: tuple[float, float, float]) -> list[dict[str, Any]]:
    first, again, added = _measure(count)
    name = f"{count:,} files with a DAG each"
    return [
        figure(f"{name}, first start", first.wall, "s", target=targets[0], cpu_seconds=first.cpu),
        figure(f"{name}, restart", again.wall, "s", target=targets[1], cpu_seconds=again.cpu),
        figure(f"{name}, one more", round(added, 2), "s", target=targets[2]),
    ]


def run() -> list[dict[str, Any]]:
    """Measure."""
    return _figures(FILES, (2, 0.6, 0.3)) + _figures(MANY, (20, 3, 0.3))
