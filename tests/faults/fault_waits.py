"""One round of many waits: a fault while tasks begin to wait, and one while they go on."""

import time
from collections import Counter
from pathlib import Path

import aiohttp
import anyio
import asyncpg
import msgspec
from fault_rounds import DRAIN_SECONDS, FAULTS, Account, Stage, open_stage
from fault_state import drained, settled

from pubsubflow.model.spec import DagSpec

SECONDS_TO_WAIT = 4
SETTLE_SECONDS = 150
_PAUSE_SECONDS = 0.05


async def play_waits(fault: str, daemons: str, *, waits: int, seed: int, folder: Path) -> Account:
    """Let many tasks wait, strike twice, and check that each went on once with what it saw."""
    started = time.monotonic()
    async with open_stage(FAULTS[fault], daemons, folder, seed) as stage:
        run_id = await _insist(
            stage,
            "dags/waits/runs",
            {"params": {"count": waits, "at": time.time() + SECONDS_TO_WAIT}, "run_key": "once"},
        )
        await _until(stage, "deferred", stage.chance.randrange(1, waits * 3 // 4))
        await _strike(stage, fault)
        await _until(stage, "deferred", waits * 3 // 4)  # those that wait for a moment may go on
        ringing = [number for number in range(waits) if number % 4 == 1]
        stage.chance.shuffle(ringing)
        async with anyio.create_task_group() as group:
            group.start_soon(_ring, stage, ringing)
            await anyio.Path(f"{stage.notes.path}.flag").touch()
            with anyio.fail_after(SETTLE_SECONDS):
                await stage.notes.reach(stage.chance.randrange(1, waits))
            await _strike(stage, fault)
        await settled(stage.dsn, SETTLE_SECONDS)
        settled_seconds = time.time() - stage.struck[-1]
        await drained(stage.nats, DRAIN_SECONDS)
        tasks = await check_waits(stage.dsn, run_id["run_id"], waits)
        executions = len(stage.notes.read())
    return Account(
        fault=f"{fault} while {waits:,} wait",
        daemons=daemons,
        seed=seed,
        kills=len(stage.struck),
        posted=len(ringing),
        runs=1,
        tasks=tasks,
        executions=executions,
        repeated=executions - waits,
        unanswered=0,
        longest_pause_seconds=round(stage.notes.longest_pause(stage.struck[-1]), 3),
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
        names = [task.task_id for task in msgspec.msgpack.decode(spec, type=DagSpec).tasks]
        rows = await connection.fetch(
            "SELECT * FROM task WHERE run = $1 AND node = $2", run["id"], names.index("waiter")
        )
        results = {row["map_index"]: msgspec.msgpack.decode(row["result"]) for row in rows}
        assert results == {n: n * 10 + (n if n % 4 == 1 else 0) for n in range(waits)}
        events = await connection.fetch(
            "SELECT (event.extra ->> 'number')::int AS n FROM event"
            " JOIN dataset ON dataset.id = dataset WHERE uri = 'fault://rung'"
        )
        assert Counter(row["n"] for row in events) == Counter(range(waits))
        steps = await connection.fetch(
            "SELECT map_index, count(*) AS steps, count(error) AS errors FROM step GROUP BY 1"
        )
        found = {row["map_index"]: (row["steps"], row["errors"]) for row in steps}
        assert found == {n: (3 if n % 4 == 3 else 2, 0) for n in range(waits)}
        for table in ("trigger", "event_wait", "timer"):
            assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0
    finally:
        await connection.close()
    return len(rows)


async def _strike(stage: Stage, fault: str):
    for member in stage.members:
        await member.ready.wait()
    FAULTS[fault].strike(stage)
    stage.struck.append(time.time())


async def _until(stage: Stage, state: str, count: int):
    """Return when so many tasks are in a state; whatever is away meanwhile."""
    with anyio.fail_after(SETTLE_SECONDS):
        while True:
            try:
                connection = await asyncpg.connect(stage.dsn)
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


async def _ring(stage: Stage, numbers: list[int]):
    for first in range(0, len(numbers), 20):
        events = [
            {"dataset": "fault://bell", "id": f"bell {number}", "extra": {"n": number}}
            for number in numbers[first : first + 20]
        ]
        await _insist(stage, "datasets/events", events)


async def _insist(stage: Stage, path: str, body: object):
    """POST until it is accepted."""
    timeout = aiohttp.ClientTimeout(total=10)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        while True:
            member = stage.chance.choice(stage.members)
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
