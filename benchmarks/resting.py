"""Start, stop, and what a daemon costs that has nothing to do."""

import statistics
import time
from typing import Any

from benchmarks.figures import figure
from benchmarks.stack import Stack

IDLE_SECONDS = 30


def run() -> list[dict[str, Any]]:
    """Measure."""
    first, later, stops = [], [], []
    for _ in range(3):
        with Stack() as stack:
            first.append(stack.ready_seconds)
            stops.append(stack.stop())
            for _ in range(3):
                stack.start()
                later.append(stack.ready_seconds)
                stops.append(stack.stop())
    with Stack() as stack:
        stack.wait_run(stack.trigger("row_10"))
        time.sleep(5)
        before = stack.cpu_seconds()
        time.sleep(IDLE_SECONDS)
        share = 100 * (stack.cpu_seconds() - before) / IDLE_SECONDS
        memory = stack.memory_megabytes()
    return [
        figure("first start to ready", round(statistics.median(first), 2), "s", target=2),
        figure("later start to ready", round(statistics.median(later), 2), "s", target=0.6),
        figure("stop", round(statistics.median(stops), 2), "s", target=0.5),
        figure("idle, share of a core", round(share, 2), "%", target=1),
        figure(
            "idle, memory of all processes (PSS)", memory["total"], "MB", target=300, parts=memory
        ),
    ]


if __name__ == "__main__":
    for each in run():
        print(each)
