"""Mapped tasks: how long other runs take while one task is mapped over many elements."""

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
    return [
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


def _neighbour(stack: Stack) -> float:
    """Return the seconds from a post that starts a run until that has ended."""
    time.sleep(PAUSE_SECONDS)
    started = time.perf_counter()
    stack.wait_run(stack.trigger("mapped_neighbour"))
    return time.perf_counter() - started
