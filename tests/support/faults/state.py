"""State in Postgres and JetStream, read by queries of the tests' own."""

from collections import defaultdict
from collections.abc import Collection
from typing import Any

import anyio
import asyncpg
import msgspec

from pubsubflow.bus import Bus, BusSettings
from pubsubflow.model.schedule.condition_state import decode_condition_state
from pubsubflow.model.source.stored_specs import STORED_SPEC

_BUSY = """
SELECT (SELECT count(*) FROM run_live) AS running, (SELECT count(*) FROM run_queue) AS queued,
       (SELECT count(*) FROM task_live) AS tasks, (SELECT count(*) FROM timer) AS timers,
       (SELECT count(*) FROM run) AS runs
"""
_AWAY = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)


async def until_idle(dsn: str, seconds: float) -> None:
    """Return when nothing runs, waits or is due; everything posted was accepted before.

    Events and the runs they make are written together, so nothing can follow then.
    """
    facts: dict[str, int] = {}
    with anyio.move_on_after(seconds):
        while True:
            try:
                connection = await asyncpg.connect(dsn)
                try:
                    while True:
                        facts = dict(await connection.fetchrow(_BUSY))
                        if not (facts["running"] + facts["queued"] + facts["tasks"]):
                            return
                        await anyio.sleep(0.05)
                finally:
                    await connection.close()
            except _AWAY:
                await anyio.sleep(0.02)
    raise AssertionError(f"unsettled after {seconds:g} s: {facts}\n{await _stuck(dsn)}")


async def until_known(dsn: str, dag_ids: Collection[str], seconds: float) -> None:
    """Return when DAGs are stored.

    A daemon that is ready may still import a file: it waits for no import that takes longer than
    `loader.slow_seconds`.
    """
    known: set[str] = set()
    connection = await asyncpg.connect(dsn)
    try:
        with anyio.move_on_after(seconds):
            while True:
                known = {row["dag_id"] for row in await connection.fetch("SELECT dag_id FROM dag")}
                if known.issuperset(dag_ids):
                    return
                await anyio.sleep(0.05)
    finally:
        await connection.close()
    raise AssertionError(f"not loaded after {seconds:g} s: {sorted({*dag_ids} - known)}")


async def _stuck(dsn: str) -> str:
    connection = await asyncpg.connect(dsn)
    try:
        tasks = await connection.fetch(
            "SELECT t.*, now() AS now FROM task_live AS t ORDER BY queued_at LIMIT 20"
        )
        workers = await connection.fetch("SELECT * FROM worker")
        queued = await connection.fetch("SELECT dag, active, queued FROM dag_state")
        letters = await connection.fetch("SELECT * FROM dead_letter ORDER BY id LIMIT 20")
    finally:
        await connection.close()
    return "\n".join(map(str, (*tasks, *workers, *queued, *letters)))


async def until_drained(settings: BusSettings, seconds: float) -> None:
    """Return when the streams that carry work are empty."""
    left: dict[str, Any] = {}
    async with Bus.connect(settings) as bus:
        with anyio.move_on_after(seconds):
            while True:
                for stream in ("PSF_IN", "PSF_TASK"):
                    answer = await bus.request(f"$JS.API.STREAM.INFO.{stream}", b"", 5)
                    left[stream] = msgspec.json.decode(answer)["state"]["messages"]
                if not any(left.values()):
                    return
                await anyio.sleep(0.05)
        facts = [await _consumers(bus, stream) for stream, count in left.items() if count]
    raise AssertionError(f"messages are left after {seconds:g} s: {left}: {facts}")


async def _consumers(bus: Bus, stream: str) -> list[Any]:
    """Return the state of a stream and its consumers, for a failure's text."""
    info = await bus.request(f"$JS.API.STREAM.INFO.{stream}", b'{"subjects_filter": ">"}', 5)
    listed = await bus.request(f"$JS.API.CONSUMER.LIST.{stream}", b"", 5)
    consumers = msgspec.json.decode(listed)["consumers"]
    names = ("name", "delivered", "ack_floor", "num_ack_pending", "num_redelivered", "num_pending")
    return [
        msgspec.json.decode(info)["state"],
        *({name: each[name] for name in names} for each in consumers),
    ]


class Run(msgspec.Struct):
    """One run with all that belongs to it.

    Attributes:
        consumed: (event, place).
        tasks: (task, map index) → its row.
        emitted: (dataset, extra) of its tasks' events.
        logs: Task → output of all its attempts.
    """

    number: int
    run_id: str
    dag_id: str
    run_key: str
    kind: str
    state: str
    ended: bool
    consumed: list[tuple[int, int]] = []
    tasks: dict[tuple[str, int], asyncpg.Record] = {}
    emitted: list[tuple[str, dict[str, int]]] = []
    logs: dict[str, str] = {}


class State(msgspec.Struct):
    """Everything at the end of a round.

    Attributes:
        events: Number → (UUID, dataset without `fault://`, extra, source), in the log's order.
        pending: DAG → events that wait.
        counted: DAG → how many wait by the counts in its condition states.
        dag_states: DAG → its row.
        counts: Rows in tables that should be empty, and others worth knowing.
    """

    runs: dict[int, Run]
    events: dict[int, tuple[str, str, dict[str, int], str]]
    pending: dict[str, list[int]]
    counted: dict[str, int]
    dag_states: dict[str, asyncpg.Record]
    counts: dict[str, int]


async def read_state(dsn: str) -> State:
    connection = await asyncpg.connect(dsn)
    for kind in ("json", "jsonb"):
        await connection.set_type_codec(
            kind,
            schema="pg_catalog",
            encoder=lambda value: msgspec.json.encode(value).decode(),
            decoder=msgspec.json.decode,
        )
    try:
        return await _read(connection)
    finally:
        await connection.close()


async def _read(connection) -> State:
    names = {
        row["id"]: [task.task_id for task in STORED_SPEC.decode(row["spec"]).tasks]
        for row in await connection.fetch("SELECT id, spec FROM dag_version")
    }
    versions, runs = {}, {}
    for row in await connection.fetch("SELECT run.*, dag.dag_id FROM run JOIN dag ON dag.id = dag"):
        versions[row["id"]] = names[row["version"]]
        runs[row["id"]] = Run(
            row["id"],
            str(row["run_id"]),
            row["dag_id"],
            row["run_key"],
            row["kind"],
            row["state"],
            row["ended_at"] is not None,
        )
    for row in await connection.fetch("SELECT run, event, input FROM run_event"):
        runs[row["run"]].consumed.append((row["event"], row["input"]))
    for row in await connection.fetch("SELECT * FROM task"):
        name = versions[row["run"]][row["node"]]
        runs[row["run"]].tasks[name, row["map_index"]] = row
    for row in await connection.fetch("SELECT run, node, text FROM log ORDER BY sequence"):
        logs, name = runs[row["run"]].logs, versions[row["run"]][row["node"]]
        logs[name] = logs.get(name, "") + row["text"]
    events = {}
    for row in await connection.fetch(
        "SELECT event.*, uri FROM event JOIN dataset ON dataset.id = dataset ORDER BY event.id"
    ):
        name = row["uri"].removeprefix("fault://")
        events[row["id"]] = (str(row["event_id"]), name, row["extra"], row["source"])
        if row["run"] is not None:
            runs[row["run"]].emitted.append((name, row["extra"]))
    pending = defaultdict(list)
    for row in await connection.fetch(
        "SELECT dag_id, event FROM pending_event JOIN dag ON id = dag"
    ):
        pending[row["dag_id"]].append(row["event"])
    dag_states = {
        row["dag_id"]: row
        for row in await connection.fetch(
            "SELECT dag_state.*, dag_id FROM dag_state JOIN dag ON id = dag"
        )
    }
    tables = (
        "run_live",
        "run_queue",
        "task_live",
        "timer",
        "dead_letter",
        "idempotency_key",
        "attempt",
    )
    # Of ticks there is always a next one.
    counted_rows = {"timer": "timer WHERE kind <> 'tick'"}
    counts = {
        table: await connection.fetchval(f"SELECT count(*) FROM {counted_rows.get(table, table)}")
        for table in tables
    }
    counted = defaultdict(int)
    for row in await connection.fetch(
        "SELECT dag_id, state FROM condition_state JOIN dag ON id = dag"
    ):
        places = decode_condition_state(row["state"]).inputs
        counted[row["dag_id"]] += sum(place.count for place in places)
    return State(runs, events, dict(pending), counted, dag_states, counts)
