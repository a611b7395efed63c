"""Fault round of many waiting tasks: one fault while they defer, one while they resume."""

import time
from collections import Counter
from pathlib import Path

import aiohttp
import anyio
import asyncpg
import msgspec

from pubsubflow.model.source.stored_specs import STORED_SPEC
from support.faults.environment import Environment, open_environment
from support.faults.rounds import DRAIN_SECONDS, FAULTS, RoundReport
from support.faults.state import State, until_drained, until_idle

WAITS_DAG = "waits"
SECONDS_TO_WAIT = 4
SETTLE_SECONDS = 150
_PAUSE_SECONDS = 0.05
_OF_WAITS = ("awaited", "resumed")


async def run_waits(
    fault: str, daemons: str, *, waits: int, seed: int, folder: Path
) -> RoundReport:
    """Start many waiting tasks, inject the fault twice, and check that each resumed once."""
    started = time.monotonic()
    async with open_environment(FAULTS[fault], daemons, folder, seed) as environment:
        run_id = await wait_through(environment, (fault, fault), waits)
        await until_idle(environment.dsn, SETTLE_SECONDS)
        settled_seconds = time.time() - environment.injected_at[-1]
        await until_drained(environment.nats, DRAIN_SECONDS)
        tasks = await check_waits(environment.dsn, run_id, waits)
        executions = len(environment.executions.read())
    return RoundReport(
        fault=f"{fault} while {waits:,} wait",
        daemons=daemons,
        seed=seed,
        kills=len(environment.injected_at),
        posted=len(_numbers_awaited(waits)),
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


async def wait_through(environment: Environment, faults: tuple[str, str], waits: int) -> str:
    """Start many waiting tasks, and inject a fault while they defer and one while they resume.

    Returns:
        The run of the tasks, which may not have ended yet.
    """
    run_id = await begin_waits(environment, waits)
    await _inject(environment, faults[0])
    await resume_waits(environment, faults[1], waits)
    return run_id


async def begin_waits(environment: Environment, waits: int) -> str:
    """Start many waiting tasks, and return their run once a random number of them waits."""
    body = {"params": {"count": waits, "at": time.time() + SECONDS_TO_WAIT}, "run_key": "once"}
    run_id = (await _insist(environment, f"dags/{WAITS_DAG}/runs", body))["run_id"]
    await _until(environment, "deferred", environment.chance.randrange(1, waits * 3 // 4))
    return run_id


async def resume_waits(environment: Environment, fault: str, waits: int):
    """Make come true what all wait for, and inject a fault while they go on."""
    # Those that wait for a moment may go on.
    await _until(environment, "deferred", waits * 3 // 4)
    numbers = _numbers_awaited(waits)
    environment.chance.shuffle(numbers)
    async with anyio.create_task_group() as group:
        group.start_soon(_post_awaited, environment, numbers)
        await anyio.Path(f"{environment.executions.path}.flag").touch()
        with anyio.fail_after(SETTLE_SECONDS):
            await _until_resumed(environment, environment.chance.randrange(1, waits))
        await _inject(environment, fault)


def _numbers_awaited(waits: int) -> list[int]:
    return [number for number in range(waits) if number % 4 == 1]


async def _until_resumed(environment: Environment, count: int):
    while sum(each.dag_id == WAITS_DAG for each in environment.executions.read()) < count:  # noqa: ASYNC110 - tasks in other processes write it
        await anyio.sleep(0.01)


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


def without_waits(state: State) -> State:
    """Return a state without the waiting tasks' run and events."""
    return msgspec.structs.replace(
        state,
        runs={key: run for key, run in state.runs.items() if run.dag_id != WAITS_DAG},
        events={key: each for key, each in state.events.items() if each[1] not in _OF_WAITS},
    )


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
