"""Many DAG files: first start, unchanged restart and one file more, with 1,000 and more of them.

Its folders are removed at the end: ext4 takes ten times as long to make a file where thousands have
just been removed, which a first start would pay for.
"""

import statistics
import tempfile
import time
import urllib.error
from pathlib import Path
from typing import Any

from benchmarks.figures import figure, spread
from benchmarks.loader import SMALL
from benchmarks.stack import Stack

FILES = 1_000
MANY = 10_000
ROUNDS = 3


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


def _measure(place: Path, count: int) -> tuple[_Costs, _Costs, float]:
    """Return the costs of a first start and of a restart, and the seconds of one file more."""
    folder = Path(tempfile.mkdtemp(dir=place))
    _write(folder, count)
    home = Path(tempfile.mkdtemp(dir=place))
    settings = {"PUBSUBFLOW__LOADER__MAX_BUNDLE_FILES": "50000"}
    with Stack(folder, home, settings) as stack:
        first = _Costs(stack)
        stack.stop()
        stack.start()
        again = _Costs(stack)
        time.sleep(2)
        added = _add(stack, folder, count)
    return first, again, added


def _figures(
    place: Path, count: int, targets: tuple[float, float, float], *, rounds: int
) -> list[dict[str, Any]]:
    measured = [_measure(place, count) for _ in range(rounds)]
    firsts, agains, added = zip(*measured, strict=True)
    name = f"{count:,} files with a DAG each"
    return [
        *(
            figure(
                f"{name}, {text}",
                statistics.median(each.wall for each in costs),
                "s",
                target=target,
                spread=spread([each.wall for each in costs], 2),
                cpu_seconds=statistics.median(each.cpu for each in costs),
            )
            for text, costs, target in (
                ("first start", firsts, targets[0]),
                ("restart", agains, targets[1]),
            )
        ),
        figure(
            f"{name}, one more",
            round(statistics.median(added), 2),
            "s",
            target=targets[2],
            spread=spread(added, 2),
        ),
    ]


def run() -> list[dict[str, Any]]:
    """Measure."""
    with tempfile.TemporaryDirectory(prefix="psf-bench-") as text:
        place = Path(text)
        return [
            *_figures(place, FILES, (2, 0.6, 0.3), rounds=ROUNDS),
            *_figures(place, MANY, (20, 3, 0.3), rounds=1),
        ]
