"""Hours: how memory and CPU change under a steady load, in minutes that stand for hours.

BENCH_MINUTES sets how many (10 by default). The first third warms up; the slope of what follows,
by least squares, is scaled to an hour.
"""

import os
import threading
import time
from typing import Any

from benchmarks.figures import figure, slope
from benchmarks.stack import Stack

MINUTES = float(os.environ.get("BENCH_MINUTES", "10"))
EVENTS_A_SECOND = 50
SAMPLES = 60
_SHARE_OF_WARM_UP = 1 / 3
_BATCH = 5
_KINDS = ("bench://load/async", "bench://load/sync", "bench://unsubscribed", "bench://outside/sync")


class Load(threading.Thread):
    """Events of all kinds at a steady rate, until stopped.

    Args:
        stack: Gets them.

    Attributes:
        events: How many were accepted.
    """

    def __init__(self, stack: Stack) -> None:
        super().__init__()
        self._stack = stack
        self._stopped = threading.Event()
        self.events = 0

    def run(self) -> None:
        """Post."""
        due = time.monotonic()
        while not self._stopped.wait(max(0.0, due - time.monotonic())):
            self._stack.emit(_KINDS[self.events // _BATCH % len(_KINDS)], _BATCH)
            self.events += _BATCH
            due += _BATCH / EVENTS_A_SECOND

    def stop(self) -> None:
        """End it."""
        self._stopped.set()
        self.join()


def _sampled(stack: Stack) -> list[tuple[float, float, float]]:
    """Return the hours, megabytes and CPU seconds at each sample."""
    found, started = [], time.monotonic()
    for number in range(1, SAMPLES + 1):
        due = started + 60 * MINUTES * number / SAMPLES
        time.sleep(max(0.0, due - time.monotonic()))
        hours = (time.monotonic() - started) / 3600
        found.append((hours, stack.memory_megabytes()["total"], stack.cpu_seconds()))
    return found


def run() -> list[dict[str, Any]]:
    """Measure."""
    with Stack() as stack:
        stack.wait_run(stack.trigger("row_10"))
        idle = stack.memory_megabytes()["total"]
        load = Load(stack)
        load.start()
        try:
            samples = _sampled(stack)
        finally:
            load.stop()
    samples = samples[int(SAMPLES * _SHARE_OF_WARM_UP) :]
    growth = slope([(hours, megabytes) for hours, megabytes, _ in samples])
    middle = len(samples) // 2
    halves = [
        (part[-1][2] - part[0][2]) / (3600 * (part[-1][0] - part[0][0]))
        for part in (samples[:middle], samples[middle:])
    ]
    return [
        figure(
            f"memory that grows in an hour, at {EVENTS_A_SECOND} events a second",
            round(growth, 1),
            "MB",
            target=30,
            minutes=MINUTES,
            events=load.events,
        ),
        figure("memory at the end (PSS)", samples[-1][1], "MB", target=400, floor=idle),
        figure(
            "CPU of the second half to that of the first",
            round(halves[1] / halves[0], 2),
            "x",
            target=1.1,
        ),
    ]
