"""Mapped tasks: how long other runs take beside one, and what an instance of a group costs."""

import statistics
import time
from typing import Any

from benchmarks.figures import figure, spread
from benchmarks.stack import Stack

NEIGHBOURS = 200
PAUSE_SECONDS = 0.05


def run() -> list[dict[str, Any]]:
    """Measure."""
    with Stack() as stack:
        alone = sorted(_neighbour(stack) for _ in range(NEIGHBOURS // 4))
        stack.trigger("mapped_many")
        beside = sorted(_neighbour(stack) for _ in range(NEIGHBOURS))
    with Stack() as stack:
        few, many = (_cpu_of_instance(stack, size) for size in (1_000, 10_000))
    return [
        figure(
            "CPU of an instance of a group mapped over 10,000 elements, to that over 1,000",
            round(many / few, 2),
            "times",
            target=1.3,
            milliseconds=round(many * 1000, 2),
        ),
        figure(
            "a run beside a task mapped over 50,000 elements, p99",
            round(beside[int(len(beside) * 0.99)], 3),
            "s",
            target=1.0,
            spread=spread(beside),
        ),
        figure(
            "the same without the mapped task, p50",
            round(statistics.median(alone), 3),
            "s",
            target=0.1,
            spread=spread(alone),
        ),
    ]


def _cpu_of_instance(stack: Stack, size: int) -> float:
    """Return the CPU seconds for each of the two tasks of each index of a mapped group."""
    run_id = stack.trigger(f"grouped_{size}")
    before = stack.cpu_seconds()
    stack.wait_run(run_id)
    return (stack.cpu_seconds() - before) / (2 * size)


def _neighbour(stack: Stack) -> float:
    """Return the seconds from a post that starts a run until that has ended."""
    time.sleep(PAUSE_SECONDS)
    started = time.perf_counter()
    stack.wait_run(stack.trigger("mapped_neighbour"))
    return time.perf_counter() - started
