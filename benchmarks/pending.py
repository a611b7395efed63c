"""Pending events, a long history, many subscriptions: what they cost the next event."""

import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from benchmarks.figures import figure, spread
from pubsubflow.bus import STREAM_TASK, Bus, BusSettings, Delivery, PullConsumer
from pubsubflow.embedded import EmbeddedServers
from pubsubflow.manager import Manager
from pubsubflow.metrics import ClusterMetrics, Exposition
from pubsubflow.model.schedule.condition_state import decode_condition_state, encode_condition_state
from pubsubflow.model.schedule.conditions import AllOf, DatasetInput, ScheduleSpec
from pubsubflow.model.spec import DagSpec, LoadedFile, TaskSpec
from pubsubflow.model.wire.commands import RecordEvents
from pubsubflow.model.wire.messages import NewEvent, Outcome, ResultMessage, decode_task, encode
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.catalog import Catalog
from pubsubflow.store.database import Database
from pubsubflow.store.migrate import migrate
from pubsubflow.store.servers.settings import PostgresSettings

PENDING = 50_000
EVENTS = 1_000_000
RUNS = 100_000
SUBSCRIBERS = 10_000
OTHER_DAGS, OTHER_DATASETS = 100_000, 10
MATCHING = 10
POSTS = 300

FILL_HISTORY = """
INSERT INTO dataset (uri) SELECT 'x://old/' || n FROM generate_series(1, 1000) AS n;
INSERT INTO event (id, event_id, dataset, extra, time, source, recorded_at)
SELECT nextval('event_id'), gen_random_uuid(), d.id, '{}', now() - n * interval '1 second', 'api',
       now() - n * interval '1 second'
FROM generate_series(1, $events) AS n
JOIN (SELECT id, row_number() OVER () AS place FROM dataset) AS d ON d.place = 1 + n % 900;
CREATE TEMPORARY TABLE old AS SELECT last_value + 1000 AS runs FROM run_number;
SELECT setval('run_number', runs + $runs) FROM old;
INSERT INTO run (id, run_id, dag, version, run_key, kind, state, params, cause, started_at,
                 ended_at)
SELECT runs + n, gen_random_uuid(), dag_state.dag, dag_state.version, 'old:' || n, 'dataset',
       'success', '{}', 'history', now(), now()
FROM old, generate_series(1, $runs) AS n
CROSS JOIN LATERAL (SELECT * FROM dag_state ORDER BY dag LIMIT 1) AS dag_state;
INSERT INTO run_event (run, event, input) SELECT runs + n, n, 0
FROM old, generate_series(1, $runs) AS n;
INSERT INTO task (run, node, map_index, attempt, state, ended_at)
SELECT runs + n, 0, -1, 1, 'success', now() FROM old, generate_series(1, $runs) AS n;
DROP TABLE old;
"""
FILL_PENDING = """
WITH made AS (
    INSERT INTO event (id, event_id, dataset, extra, time, source)
    SELECT nextval('event_id'), gen_random_uuid(), (SELECT id FROM dataset WHERE uri = $1), '{}',
           now(), 'api'
    FROM generate_series(1, $3)
    RETURNING id
)
INSERT INTO pending_event (dag, partition_key, input, event)
SELECT (SELECT id FROM dag WHERE dag_id = $2), '', 0, id FROM made
"""
FILL_SUBSCRIPTIONS = """
INSERT INTO dataset (uri) SELECT 'x://other/' || n FROM generate_series(1, $datasets) AS n;
WITH made AS (
    INSERT INTO dag (dag_id, file, version)
    SELECT 'other' || n, 'other.py', n FROM generate_series(1, $dags) AS n
    RETURNING id
), subscribed AS (
    INSERT INTO dag_subscription (dataset, dag)
    SELECT dataset.id, made.id FROM made CROSS JOIN dataset WHERE starts_with(uri, 'x://other/')
)
INSERT INTO dag_state (dag, version) SELECT id, id FROM made;
"""
SET_STATE = "UPDATE condition_state SET state = $2 WHERE dag = $1"
FIND_STATE = """
SELECT condition_state.dag, state FROM condition_state JOIN dag ON dag.id = condition_state.dag
WHERE dag_id = $1
"""


def spec(dag_id: str, *names: str) -> LoadedFile:
    file = f"{dag_id}.py"
    sides = tuple(DatasetInput(number, f"x://{name}") for number, name in enumerate(names))
    schedule = ScheduleSpec(sides[0] if len(sides) == 1 else AllOf(sides))
    task = TaskSpec(0, "t", kind="async")
    dag = DagSpec(dag_id, file, f"hash of {file}", (task,), schedule=schedule, max_active_runs=1000)
    return LoadedFile(file, dags=(dag,), source=dag.source)


class Bench:
    """A manager on servers of its own, and a scripted worker.

    Attributes:
        on_task: What becomes of a task that is handed out: it is counted and ends at once.
    """

    def __init__(self, database: Database, manager: Manager, worker_bus: Bus) -> None:
        self.database, self.manager, self.worker_bus = database, manager, worker_bus
        self.puller: PullConsumer | None = None
        self.arrived: list[float] = []
        self.wanted = 0
        self.all_there = anyio.Event()
        self.on_task: Callable[[Delivery], None] = self._count

    def deliver(self, delivery: Delivery) -> None:
        """Receive a task."""
        self.puller.credit(1)
        self.on_task(delivery)

    def _count(self, delivery: Delivery) -> None:
        """Count a task and finish it at once."""
        self.arrived.append(time.perf_counter())
        if len(self.arrived) == self.wanted:
            self.all_there.set()
        self.finish(delivery)

    def finish(self, delivery: Delivery) -> None:
        """Report the success of a task."""
        order, now = decode_task(delivery.data), time.time()
        result = ResultMessage(
            order.run, order.node, -1, order.attempt, order.delivery, "w", Outcome.SUCCESS, now, now
        )
        subject = Subjects.inbound(Subjects.RESULT, order.run)
        self.worker_bus.publish_durable_nowait(
            subject,
            encode(result),
            message_id=f"{order.run}.{order.node}",
            on_done=delivery.ack,
        )

    async def post(self, name: str) -> float:
        """Post one event; return the milliseconds until it is decided about and durable."""
        started = time.perf_counter()
        await self.manager.execute(RecordEvents((NewEvent(f"x://{name}"),), (None,)))
        return (time.perf_counter() - started) * 1000

    async def start(self, name: str, runs: int = 1) -> float:
        """Post one event; return the milliseconds until a worker has the last run's task."""
        self.arrived, self.wanted, self.all_there = [], runs, anyio.Event()
        started = time.perf_counter()
        await self.manager.execute(RecordEvents((NewEvent(f"x://{name}"),), (None,)))
        await self.all_there.wait()
        taken = (self.arrived[-1] - started) * 1000
        await self.rest()
        return taken

    async def rest(self) -> None:
        """Wait until no run is live."""
        async with self.database.connection() as connection:
            while await connection.fetchval("SELECT EXISTS (SELECT FROM run_live)"):  # noqa: ASYNC110
                await anyio.sleep(0.001)

    async def execute(self, text: str, *arguments: object) -> None:
        """Run a statement that may take minutes."""
        async with self.database.connection() as connection:
            await connection.execute(text, *arguments, timeout=600)


@asynccontextmanager
async def opened() -> AsyncIterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="psf-bench-") as folder:
        async with EmbeddedServers(Path(folder)) as servers:
            nats = BusSettings(url=servers.nats.url, token=servers.nats.token)
            postgres = PostgresSettings(url=servers.postgres.dsn)
            async with (
                Database.open(postgres) as database,
                Bus.connect(nats) as bus,
                Bus.connect(nats) as worker_bus,
                anyio.create_task_group() as group,
            ):
                await bus.ensure_streams()
                await migrate(database)
                manager, stopping = Manager(database=database, bus=bus), anyio.Event()
                bench = Bench(database, manager, worker_bus)
                bench.puller = PullConsumer(
                    worker_bus,
                    stream=STREAM_TASK,
                    durable="default-async",
                    filter_subject="psf.task.default.async.>",
                    deliver=bench.deliver,
                )
                bench.puller.credit(SUBSCRIBERS)
                await group.start(manager.run, stopping)
                await group.start(bench.puller.run, stopping)
                yield bench
                stopping.set()


async def _pending(bench: Bench) -> dict[str, Any]:
    """Compare an event for an AND without and with much pending on the same side."""
    files = [spec("empty", "e1", "e2"), spec("full", "f1", "f2")]
    await Catalog(bench.database).save(files)
    for name in ("e1", "f1"):
        await bench.post(name)
    await bench.execute(FILL_PENDING, "x://f1", "full", PENDING)
    async with bench.database.connection() as connection:
        row = await connection.fetchrow(FIND_STATE, "full")
        state = decode_condition_state(row["state"])
        state.inputs[0].count += PENDING
        await connection.execute(SET_STATE, row["dag"], encode_condition_state(state))
        await connection.execute("ANALYZE")
    without, among = await _alternate(lambda: bench.post("e1"), lambda: bench.post("f1"))
    started = time.perf_counter()
    await bench.start("f2")
    return figure(
        f"an event among {PENDING:,} pending against one among few, p50",
        round(statistics.median(among) / statistics.median(without), 2),
        "times",
        target=1.5,
        few_ms=spread(without),
        many_ms=spread(among),
        consume_all_ms=round((time.perf_counter() - started) * 1000),
    )


async def _alternate(
    one: Callable[[], Any], other: Callable[[], Any]
) -> tuple[list[float], list[float]]:
    found: tuple[list[float], list[float]] = ([], [])
    for number in range(POSTS + 20):
        for index, measure in enumerate((one, other)):
            taken = await measure()
            if number >= 20:
                found[index].append(taken)
    return found


async def _history(empty: Bench, old: Bench) -> dict[str, Any]:
    """Compare event → task at a worker, side by side: an empty database and one with history."""
    for bench in (empty, old):
        await Catalog(bench.database).save([spec("next", "next")])
    filling = FILL_HISTORY.replace("$events", str(EVENTS)).replace("$runs", str(RUNS))
    await old.execute(filling)
    await old.execute("VACUUM ANALYZE")
    before, after = await _alternate(lambda: empty.start("next"), lambda: old.start("next"))
    return figure(
        f"event → task after {EVENTS:,} events and {RUNS:,} runs against an empty store, p50",
        round(statistics.median(after) / statistics.median(before), 2),
        "times",
        target=1.5,
        empty_ms=spread(before),
        old_ms=spread(after),
    )


async def _subscriptions(empty: Bench, full: Bench) -> dict[str, Any]:
    """Compare event → last task at a worker, side by side: without and with other subscriptions."""
    for bench in (empty, full):
        await Catalog(bench.database).save([spec(f"ten{n}", "ten") for n in range(MATCHING)])
    filling = FILL_SUBSCRIPTIONS.replace("$dags", str(OTHER_DAGS))
    await full.execute(filling.replace("$datasets", str(OTHER_DATASETS)))
    await full.execute("VACUUM ANALYZE")
    before, after = await _alternate(
        lambda: empty.start("ten", MATCHING), lambda: full.start("ten", MATCHING)
    )
    return figure(
        f"an event with {MATCHING} subscribers among {OTHER_DAGS * OTHER_DATASETS:,} subscriptions"
        " against an empty store, p50",
        round(statistics.median(after) / statistics.median(before), 2),
        "times",
        target=1.2,
        empty_ms=spread(before),
        full_ms=spread(after),
    )


async def _scrape(old: Bench) -> dict[str, Any]:
    """Scrape all metrics, with a long history and nothing known from before."""
    cluster = ClusterMetrics(bus=old.worker_bus, database=old.database, refresh_seconds=0)
    exposition = Exposition([old.manager.metrics, old.database.metrics], cluster)
    taken = []
    for _ in range(100):
        started = time.perf_counter()
        await exposition.expose("")
        taken.append((time.perf_counter() - started) * 1000)
    return figure(
        f"a scrape of /metrics after {EVENTS:,} events and {RUNS:,} runs, p50",
        round(statistics.median(taken), 1),
        "ms",
        target=50,
        spread=spread(taken),
    )


async def _subscribers(bench: Bench) -> list[dict[str, Any]]:
    """Post one event to which very many DAGs subscribe."""
    started = time.perf_counter()
    await Catalog(bench.database).save([spec(f"many{n}", "wide") for n in range(SUBSCRIBERS)])
    saved = time.perf_counter() - started
    await bench.execute("ANALYZE")
    taken = [await bench.start("wide", SUBSCRIBERS) / 1000 for _ in range(3)]
    return [
        figure(
            f"one event with {SUBSCRIBERS:,} subscribers: until a worker has all tasks",
            round(statistics.median(taken), 2),
            "s",
            target=3.0,
            first_s=round(taken[0], 2),
            spread=spread(taken),
            save_s=round(saved, 2),
        )
    ]


async def _measure() -> list[dict[str, Any]]:
    async with opened() as empty, opened() as full:
        subscriptions = await _subscriptions(empty, full)
    async with opened() as bench, opened() as old:
        return [
            subscriptions,
            await _pending(bench),
            await _history(bench, old),
            await _scrape(old),
            *await _subscribers(bench),
        ]


def run() -> list[dict[str, Any]]:
    """Measure."""
    return anyio.run(_measure, backend_options={"use_uvloop": True})
