"""Waiting tasks: how many, what they cost, and how soon they resume."""

import os
import time
from typing import Any

import anyio
import asyncpg

from benchmarks.figures import figure, spread
from benchmarks.stack import Stack

MANY = 10_000
VERY_MANY = int(os.environ.get("BENCH_VERY_MANY", "100000"))
ROUNDS = 200
IDLE_SECONDS = 20
MAP_LIMIT = 10_000


def run() -> list[dict[str, Any]]:
    """Measure."""
    return [*_event_waits(), *_many(), *_very_many()]


def _deferred(stack: Stack) -> int:
    async def count() -> int:
        connection = await asyncpg.connect(stack.dsn)
        try:
            query = "SELECT count(*) FROM task_live WHERE state = 'deferred'"
            return int(await connection.fetchval(query))
        finally:
            await connection.close()

    return anyio.run(count)


def _until_deferred(stack: Stack, count: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while (found := _deferred(stack)) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{found} of {count} tasks wait after {seconds} s")
        time.sleep(0.2)


def _event_waits() -> list[dict[str, Any]]:
    """From the post of an event to the resumed task's next line."""
    waits = []
    with Stack() as stack:
        for _ in range(ROUNDS):
            stack.moments.clear()
            stack.trigger("wait_for_an_event")
            _until_deferred(stack, 1, 30)
            stack.post(
                "/datasets/events", [{"dataset": "bench://awaited", "extra": {"at": time.time()}}]
            )
            waits.append(1000 * stack.moments.wait(1)[0][0])
    found = spread(waits[10:])
    return [figure("event → resumed line, p50", found["p50"], "ms", target=15, spread=found)]


def _start(stack: Stack, count: int, at: float) -> None:
    """Start runs of at most MAP_LIMIT tasks each."""
    for first in range(0, count, MAP_LIMIT):
        size = min(MAP_LIMIT, count - first)
        params = {"at": at, "count": size}
        stack.post("/dags/wait_for_a_moment/runs", {"params": params})


def _many() -> list[dict[str, Any]]:
    """10,000 tasks: until all wait, what that costs, and until all are done."""
    with Stack() as stack:
        stack.wait_run(stack.trigger("row_10"))
        before = stack.memory_megabytes()["total"]
        stack.moments.clear()
        started = time.time()
        at = started + 60
        _start(stack, MANY, at)
        _until_deferred(stack, MANY, 60)
        waiting = time.time() - started
        time.sleep(3)
        cpu, since = stack.cpu_seconds(), time.monotonic()
        time.sleep(max(0.0, min(IDLE_SECONDS, at - time.time() - 4)))
        share = 100 * (stack.cpu_seconds() - cpu) / (time.monotonic() - since)
        memory = stack.memory_megabytes()["total"] - before
        lates = sorted(late for late, _, _ in stack.moments.wait(MANY, 180))
    return [
        figure("10,000 tasks: until all wait", round(waiting, 2), "s", target=10),
        figure("10,000 waiting: further memory (PSS)", round(memory, 1), "MB", target=150),
        figure("10,000 waiting: share of a core", round(share, 2), "%", target=5),
        figure("10,000 due at once: until all resumed", round(lates[-1], 2), "s", target=15),
        *_punctuality(),
    ]


def _punctuality() -> list[dict[str, Any]]:
    """How late a few timers are that are due at moments of their own."""
    lates = []
    with Stack() as stack:
        for _ in range(ROUNDS):
            stack.moments.clear()
            _start(stack, 1, time.time() + 0.15)
            lates.append(1000 * stack.moments.wait(1)[0][0])
    found = spread(lates[10:])
    return [figure("timer → resumed line, p99", found["p99"], "ms", target=50, spread=found)]


def _very_many() -> list[dict[str, Any]]:
    with Stack() as stack:
        stack.wait_run(stack.trigger("row_10"))
        before = stack.memory_megabytes()["total"]
        started = time.time()
        _start(stack, VERY_MANY, started + 3600)
        _until_deferred(stack, VERY_MANY, 600)
        seconds = time.time() - started
        time.sleep(3)
        memory = stack.memory_megabytes()["total"] - before
    return [
        figure(
            f"{VERY_MANY:,} waiting: further memory (PSS)",
            round(memory, 1),
            "MB",
            target=1024,
            until_all_wait_seconds=round(seconds, 1),
        )
    ]
