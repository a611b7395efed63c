"""Deadlines: how late armed ones fire, and whether all do after a `kill -9`, once each."""

import http.client
import json
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import asyncpg

from benchmarks.figures import figure, spread
from benchmarks.stack import Stack

MANY = 10_000
SPREAD_SECONDS = 20.0
_ARM_SECONDS = 60.0
_CONNECTIONS = 8
_AFTER = timedelta(milliseconds=1)
_POLL_SECONDS = 0.005


def _arm(stack: Stack, first: datetime) -> list[datetime]:
    """Make runs whose deadlines pass one after the other; return the moments."""
    step = timedelta(seconds=SPREAD_SECONDS / MANY)
    moments = [first + step * number for number in range(MANY)]

    def post(part: int) -> None:
        connection = http.client.HTTPConnection(stack.url.removeprefix("http://"))
        for moment in moments[part::_CONNECTIONS]:
            body = json.dumps({"logical_time": (moment - _AFTER).isoformat()})
            connection.request("POST", "/api/v1/dags/armed/runs", body.encode())
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 201, answer.status
        connection.close()

    threads = [threading.Thread(target=post, args=(part,)) for part in range(_CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return moments


async def _watch(dsn: str, since: int, count: int, seconds: float) -> list[float]:
    """Return how late each alert was committed, in milliseconds, in the order of the moments.

    What is seen has been committed: a poll is at most 5 ms late.
    """
    seen: list[tuple[int, float]] = [(since, 0.0)]
    connection = await asyncpg.connect(dsn)
    try:
        read = await connection.prepare("SELECT coalesce(max(id), 0) FROM alert")
        give_up = time.monotonic() + seconds
        counted = 0
        while counted < count and time.monotonic() < give_up:
            last = await read.fetchval()
            if last > seen[-1][0]:
                seen.append((last, time.time()))
                if last >= since + count:  # numbers have gaps
                    counted = await connection.fetchval(
                        "SELECT count(*) FROM alert WHERE id > $1", since
                    )
            await anyio.sleep(_POLL_SECONDS)
        rows = await connection.fetch(
            "SELECT alert.id, run.logical_time FROM alert JOIN run ON run.id = alert.run"
            " WHERE alert.id > $1 ORDER BY alert.id",
            since,
        )
    finally:
        await connection.close()
    late, position = [], 1
    for row in rows:
        while seen[position][0] < row["id"]:
            position += 1
        late.append(1000 * (seen[position][1] - (row["logical_time"] + _AFTER).timestamp()))
    return late


async def _count(dsn: str, since: int) -> tuple[int, int, int]:
    """Return how many runs have an alert, how many alerts there are, and events of them."""
    connection = await asyncpg.connect(dsn)
    try:
        row = await connection.fetchrow(
            "SELECT count(DISTINCT run), count(*), (SELECT count(*) FROM event JOIN dataset"
            " ON dataset.id = event.dataset"
            " WHERE dataset.uri = 'pubsubflow://alerts/deadline/armed')"
            " FROM alert WHERE id > $1",
            since,
        )
    finally:
        await connection.close()
    return row[0], row[1], row[2]


async def _last(dsn: str) -> int:
    """Return the number of the last alert."""
    connection = await asyncpg.connect(dsn)
    try:
        return int(await connection.fetchval("SELECT max(id) FROM alert"))
    finally:
        await connection.close()


def _wait_for(stack: Stack, since: int, events: int, seconds: float) -> tuple[int, int, int]:
    give_up = time.monotonic() + seconds
    while True:
        found = anyio.run(_count, stack.dsn, since)
        if found[2] >= events or time.monotonic() > give_up:
            return found
        time.sleep(0.2)


def run() -> list[dict[str, Any]]:
    """Measure."""
    with Stack() as stack:
        stack.trigger("armed")
        first = datetime.now(UTC) + timedelta(seconds=_ARM_SECONDS)
        _arm(stack, first)
        left = (first - datetime.now(UTC)).total_seconds()
        assert left > 0, "arming took too long"
        late = anyio.run(_watch, stack.dsn, 0, MANY, left + SPREAD_SECONDS + 60)
        assert len(late) == MANY, len(late)
        _wait_for(stack, 0, MANY, 60)
        last = anyio.run(_last, stack.dsn)
        # Once more: the daemon dies while they fire.
        first = datetime.now(UTC) + timedelta(seconds=_ARM_SECONDS)
        _arm(stack, first)
        time.sleep(max(0.0, (first - datetime.now(UTC)).total_seconds()) + SPREAD_SECONDS / 4)
        stack.process.kill()
        stack.process.wait()
        time.sleep(max(0.0, (first - datetime.now(UTC)).total_seconds() + SPREAD_SECONDS))
        stack.start()
        began = time.monotonic()
        runs, alerts, events = _wait_for(stack, last, 2 * MANY, 60)
        seconds = time.monotonic() - began
    found = spread(late)
    return [
        figure("deadline → alert, 10,000 armed, p99", found["p99"], "ms", target=100, spread=found),
        figure("deadline → alert, 10,000 armed, latest", found["max"], "ms", target=100),
        figure(
            "10,000 armed, kill -9 while they fire: missed or doubled",
            abs(MANY - runs) + abs(MANY - alerts) + abs(2 * MANY - events),
            "alerts",
            target=0,
            seconds_after_restart=round(seconds, 1),
        ),
    ]
