"""Throughput: sustained task runs and posted events a second."""

import asyncio
import statistics
import time
from typing import Any

import aiohttp

from benchmarks.figures import figure, spread
from benchmarks.stack import Stack

RUNS = 500
REPETITIONS = 5
# Seldom: each look is a request, which the daemon answers beside the tasks.
_LOOK_SECONDS = 0.05


def _tasks(stack: Stack, kind: str) -> float:
    """Return no-op task runs a second: many runs of ten tasks."""
    started = time.perf_counter()
    for _ in range(RUNS // 100):
        stack.emit(f"bench://load/{kind}", 100)
    while _unfinished(stack, f"load_{kind}"):
        time.sleep(_LOOK_SECONDS)
    return RUNS * 10 / (time.perf_counter() - started)


def _unfinished(stack: Stack, dag_id: str) -> int:
    found = stack.get(f"/dags/{dag_id}")
    return found["active_runs"] + found["queued_runs"]


async def _post(url: str, size: int, requests: int, clients: int) -> float:
    """Return accepted events a second."""
    body = [{"dataset": "bench://unsubscribed"} for _ in range(size)]
    left = iter(range(requests))

    async def client(session: aiohttp.ClientSession) -> None:
        for _ in left:
            async with session.post(f"{url}/api/v1/datasets/events", json=body) as answer:
                assert answer.status == 202, await answer.text()
                await answer.read()

    async with aiohttp.ClientSession() as session:
        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(client(session))
        return requests * size / (time.perf_counter() - started)


def run() -> list[dict[str, Any]]:
    """Measure."""
    found = []
    with Stack() as stack:
        for kind, target in (("async", 9_000), ("sync", 4_500), ("rows", 9_000)):
            _tasks(stack, kind)
            rates = [_tasks(stack, kind) for _ in range(REPETITIONS)]
            name = {"rows": "async, ten in a row"}.get(kind, f"{kind}, ten side by side")
            found.append(
                figure(
                    f"no-op task runs a second, {name}",
                    round(statistics.median(rates)),
                    "1/s",
                    target=target,
                    more=True,
                    spread=spread(rates, 0),
                )
            )
        for name, size, requests, clients, target in (
            ("events a second, batches of 100", 100, 100, 4, 3000),
            ("events a second, one by one, 1 client", 1, 500, 1, 500),
            ("events a second, one by one, 8 clients", 1, 2000, 8, 500),
        ):
            asyncio.run(_post(stack.url, size, requests // 5, clients))
            rates = [
                asyncio.run(_post(stack.url, size, requests, clients)) for _ in range(REPETITIONS)
            ]
            found.append(
                figure(
                    name,
                    round(statistics.median(rates)),
                    "1/s",
                    target=target,
                    more=True,
                    spread=spread(rates, 0),
                )
            )
    return found
