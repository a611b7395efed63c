"""Hours: how memory and CPU change under a steady load, in minutes that stand for hours.

BENCH_MINUTES sets how many (10 by default). The first third warms up; the slope of what follows,
by least squares, is scaled to an hour: of each kind of process, and of their sum.

What may grow without bound is anonymous memory; the slopes are of that alone. Left out are

- Postgres' shared memory: it is as large as its settings say from the start, `shared_buffers` for
  the most part, and becomes resident page by page as data is read and written, once. It is a
  figure of its own, against its size by the settings;
- pages of files, mostly programs and libraries: no more than the files, and the system takes them
  back. How much of them counts for a process depends on who else has them.

The memory at the end counts all. NATS keeps the ids of messages for two minutes, so that a warm-up
of less than that, of a run of less than six minutes, shows as growth.
"""

import asyncio
import os
import threading
import time
from collections.abc import Sequence
from typing import Any

import asyncpg
from msgspec import Struct

from benchmarks.figures import figure, slope
from benchmarks.stack import Stack

MINUTES = float(os.environ.get("BENCH_MINUTES", "10"))
EVENTS_A_SECOND = 50
SAMPLES = 60
_SHARE_OF_WARM_UP = 1 / 3
_BATCH = 5
_MOST_GROWTH = 30
_PROCESSES = {"pubsubflow": "daemon", "nats-server": "NATS", "postgres": "Postgres"}
_OTHERS = "processes of tasks"
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


class Sample(Struct, frozen=True):
    """What all processes take at a moment.

    Attributes:
        hours: Since the start of the load.
        anonymous: Megabytes of anonymous memory by kind of process.
        cpu_seconds: CPU time of all processes so far.
    """

    hours: float
    anonymous: dict[str, float]
    cpu_seconds: float


def _sample(stack: Stack, started: float) -> Sample:
    anonymous = dict.fromkeys((*_PROCESSES.values(), _OTHERS), 0.0)
    for name, size in stack.memory_part_megabytes("Pss_Anon").items():
        anonymous[_PROCESSES.get(name, _OTHERS)] += size
    return Sample((time.monotonic() - started) / 3600, anonymous, stack.cpu_seconds())


def _sampled(stack: Stack) -> list[Sample]:
    """Return `SAMPLES` samples at equal distances."""
    found, started = [], time.monotonic()
    for number in range(1, SAMPLES + 1):
        due = started + 60 * MINUTES * number / SAMPLES
        time.sleep(max(0.0, due - time.monotonic()))
        found.append(_sample(stack, started))
    return found


async def _shared_memory_size(dsn: str) -> float:
    """Return the size of Postgres' shared memory by its settings, in megabytes."""
    connection = await asyncpg.connect(dsn)
    try:
        size = await connection.fetchval(
            "SELECT setting::float FROM pg_settings WHERE name = 'shared_memory_size'"
        )
    finally:
        await connection.close()
    return float(size)


def _growth(samples: Sequence[Sample], events: int) -> list[dict[str, Any]]:
    """Return what grows in an hour: the sum, then each kind."""
    name = f"memory that grows in an hour, at {EVENTS_A_SECOND} events a second"
    sums = [(each.hours, sum(each.anonymous.values())) for each in samples]
    found = {name: slope(sums)}
    for kind in samples[0].anonymous:
        points = [(each.hours, each.anonymous[kind]) for each in samples]
        found[f"{name}: {kind}"] = slope(points)
    return [
        figure(text, round(value, 1), "MB", target=_MOST_GROWTH, minutes=MINUTES, events=events)
        for text, value in found.items()
    ]


def _cpu_rise(samples: Sequence[Sample]) -> float:
    """Return the CPU time of the second half as a multiple of the first's."""
    middle = len(samples) // 2
    first, second = (
        (part[-1].cpu_seconds - part[0].cpu_seconds) / (part[-1].hours - part[0].hours)
        for part in (samples[:middle], samples[middle:])
    )
    return second / first


def run() -> list[dict[str, Any]]:
    """Measure."""
    with Stack() as stack:
        stack.wait_run(stack.trigger("row_10"))
        idle = stack.memory_megabytes()["total"]
        shared_size = asyncio.run(_shared_memory_size(stack.dsn))
        load = Load(stack)
        load.start()
        try:
            samples = _sampled(stack)
            shared = sum(stack.memory_part_megabytes("Pss_Shmem").values())
            total = stack.memory_megabytes()["total"]
        finally:
            load.stop()
    samples = samples[int(SAMPLES * _SHARE_OF_WARM_UP) :]
    return [
        *_growth(samples, load.events),
        figure("shared memory of Postgres at the end", round(shared, 1), "MB", target=shared_size),
        figure("memory at the end (PSS)", total, "MB", target=400, floor=idle),
        figure(
            "CPU of the second half to that of the first",
            round(_cpu_rise(samples), 2),
            "x",
            target=1.1,
        ),
    ]
