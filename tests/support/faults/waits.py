"""Fault round of many waiting tasks: one fault while they defer, one while they resume."""

import time
from collections import Counter
from pathlib import Path

import aiohttp
import anyio
import asyncpg
import msgspec

from pubsubflow.model.source.stored_specs import STORED_SPEC
from support.faults.rounds import DRAIN_SECONDS, FAULTS, Environment, RoundReport, open_environment
from support.faults.state import until_drained, until_idle

SECONDS_TO_WAIT = 4
SETTLE_SECONDS = 150
_PAUSE_SECONDS = 0.05


async def run_waits(
    fault: str, daemons: str, *, waits: int, seed: int, folder: Path
) -> RoundReport:
    """Start many waiting tasks, inject the fault twice, and check that each resumed once."""
    started = time.monotonic()
    async with open_environment(FAULTS[fault], daemons, folder, seed) as environment:
        run_id = await _insist(
            environment,
            "dags/waits/runs",
            {"params": {"count": waits, "at": time.time() + SECONDS_TO_WAIT}, "run_key": "once"},
        )
        await _until(environment, "deferred", environment.chance.randrange(1, waits * 3 // 4))
        await _inject(environment, fault)
        await _until(
            environment, "deferred", waits * 3 // 4
        )  # those that wait for a moment may go on
        numbers_to_post = [number for number in range(waits) if number % 4 == 1]
        environment.chance.shuffle(numbers_to_post)
        async with anyio.create_task_group() as group:
            group.start_soon(_post_awaited, environment, numbers_to_post)
            await anyio.Path(f"{environment.executions.path}.flag").touch()
            with anyio.fail_after(SETTLE_SECONDS):
                await environment.executions.reach(environment.chance.randrange(1, waits))
            await _inject(environment, fault)
        await until_idle(environment.dsn, SETTLE_SECONDS)
        settled_seconds = time.time() - environment.injected_at[-1]
        await until_drained(environment.nats, DRAIN_SECONDS)
        tasks = await check_waits(environment.dsn, run_id["run_id"], waits)
        executions = len(environment.executions.read())
    return RoundReport(
        fault=f"{fault} while {waits:,} wait",
        daemons=daemons,
        seed=seed,
        kills=len(environment.injected_at),
        posted=len(numbers_to_post),
        runs=1,
        tasks=tasks,
        executions=executions,
        repeated=executions - waits,
        unanswered=0,
        longest_pause_seconds=round(
            environment.executions.longest_pause(environment.injected_at[-1]), 3
        ),
        settled_seconds=round(settled_seconds, 3),
        seconds=round(time.monotonic() - started, 3),
    )


async def check_waits(dsn: str, run_id: str, waits: int) -> int:
    """Check that every wait went on once, rightly, and that nothing of any is left."""
    connection = await asyncpg.connect(dsn)
    try:
        run = await connection.fetchrow("SELECT * FROM run WHERE run_id = $1", run_id)
        assert run["state"] == "success"
        spec = await connection.fetchval(
            "SELECT spec FROM dag_version WHERE id = $1", run["version"]
        )
        names = [task.task_id for task in STORED_SPEC.decode(spec).tasks]
        rows = await connection.fetch(
            "SELECT * FROM task WHERE run = $1 AND node = $2", run["id"], names.index("waiter")
        )
        results = {row["map_index"]: msgspec.msgpack.decode(row["result"]) for row in rows}
        assert results == {n: n * 10 + (n if n % 4 == 1 else 0) for n in range(waits)}
        events = await connection.fetch(
            "SELECT (event.extra ->> 'number')::int AS n FROM event"
            " JOIN dataset ON dataset.id = dataset WHERE uri = 'fault://resumed'"
        )
        assert Counter(row["n"] for row in events) == Counter(range(waits))
        steps = await connection.fetch(
            "SELECT map_index, count(*) AS steps, count(error) AS errors FROM journal_entry"
            " GROUP BY 1"
        )
        found = {row["map_index"]: (row["steps"], row["errors"]) for row in steps}
        assert found == {n: (3 if n % 4 == 3 else 2, 0) for n in range(waits)}
        for table in ("trigger", "event_wait", "timer"):
            assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0
    finally:
        await connection.close()
    return len(rows)


async def _inject(environment: Environment, fault: str):
    for member in environment.members:
        await member.ready.wait()
    FAULTS[fault].inject(environment)
    environment.injected_at.append(time.time())


async def _until(environment: Environment, state: str, count: int):
    """Return when so many tasks are in a state; whatever is away meanwhile."""
    with anyio.fail_after(SETTLE_SECONDS):
        while True:
            try:
                connection = await asyncpg.connect(environment.dsn)
            except (OSError, asyncpg.PostgresError):
                await anyio.sleep(_PAUSE_SECONDS)
                continue
            try:
                query = "SELECT count(*) FROM task_live WHERE state = $1"
                if await connection.fetchval(query, state) >= count:
                    return
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                pass
            finally:
                connection.terminate()
            await anyio.sleep(_PAUSE_SECONDS)


async def _post_awaited(environment: Environment, numbers: list[int]):
    for first in range(0, len(numbers), 20):
        events = [
            {"dataset": "fault://awaited", "id": f"bell {number}", "extra": {"n": number}}
            for number in numbers[first : first + 20]
        ]
        await _insist(environment, "datasets/events", events)


async def _insist(environment: Environment, path: str, body: object):
    """POST until it is accepted."""
    timeout = aiohttp.ClientTimeout(total=10)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        while True:
            member = environment.chance.choice(environment.members)
            if member.url:
                try:
                    url = f"{member.url}/api/v1/{path}"
                    async with session.post(url, json=body) as answer:
                        if answer.status in (200, 201, 202):
                            return await answer.json()
                        assert answer.status >= 429, await answer.text()
                except (aiohttp.ClientError, TimeoutError, OSError):
                    pass
            await anyio.sleep(_PAUSE_SECONDS)
