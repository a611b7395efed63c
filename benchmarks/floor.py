"""Floor of a hop: the same NATS and Postgres round trips in a bare loop, without the product.

A hop is the way from the end of a task to the first line of the task that it starts. A worker
publishes a result to JetStream, a manager gets it, commits one transaction of three statements and
publishes an order, and a worker gets that. The loop does the same by nats-py and asyncpg, on the
servers of the daemon under test, in a database and on streams of its own. What a hop takes beyond
its floor is what the product adds, and their ratio can be compared between machines.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from itertools import count
from typing import Protocol

import asyncpg
import nats
import uvloop
from nats.aio.client import Client
from nats.aio.msg import Msg


class Servers(Protocol):
    """The addresses of the servers on which a floor is measured."""

    @property
    def dsn(self) -> str:
        """Address of Postgres."""

    @property
    def nats_url(self) -> str:
        """Address of NATS."""

    @property
    def nats_token(self) -> str:
        """Token of NATS."""


WARM_UP = 20
STREAMS = ("floor_result", "floor_order")
RESULT, ORDER = b"r" * 200, b"o" * 700  # as large as the product's for a task without a result

# Tables with the columns and indexes that decide what a row costs.
SCHEMA = """
CREATE SEQUENCE event_id;
CREATE TABLE dag_state (dag int PRIMARY KEY, active int NOT NULL, state bytea NOT NULL)
    WITH (fillfactor = 50);
CREATE TABLE event (id bigint PRIMARY KEY, event_id uuid NOT NULL UNIQUE, dataset int NOT NULL,
    extra jsonb NOT NULL, source text NOT NULL, run bigint, recorded_at timestamptz NOT NULL);
CREATE INDEX ON event (dataset, id);
CREATE TABLE run (id bigint PRIMARY KEY, run_id uuid NOT NULL UNIQUE, run_key text NOT NULL UNIQUE,
    dag int NOT NULL, state text NOT NULL, params jsonb NOT NULL, cause text NOT NULL,
    started_at timestamptz NOT NULL, ended_at timestamptz);
CREATE INDEX ON run (dag, id);
CREATE TABLE run_event (run bigint, event bigint, PRIMARY KEY (run, event));
CREATE TABLE run_live (run bigint PRIMARY KEY, progress bytea NOT NULL, info bytea NOT NULL);
CREATE TABLE task_live (run bigint, node int, state text NOT NULL, queued_at timestamptz NOT NULL,
    PRIMARY KEY (run, node));
CREATE TABLE task (run bigint, node int, state text NOT NULL, worker text NOT NULL,
    ended_at timestamptz NOT NULL, PRIMARY KEY (run, node));
INSERT INTO dag_state VALUES (1, 1, 'state');
INSERT INTO run VALUES (0, gen_random_uuid(), '0', 1, 'running', '{}', 'floor', now());
INSERT INTO run_live VALUES (0, 'progress', 'info');
INSERT INTO task_live VALUES (0, 0, 'queued', now());
"""
LOCK = "SELECT run, progress, info FROM run_live WHERE run = $1 FOR UPDATE"
READ = """
SELECT nextval('event_id') AS event, dag, active, state FROM dag_state WHERE dag = 1 FOR UPDATE
"""
# The end of one run, the event that its task emitted, and the start of the run after it.
WRITE = """
WITH emitted AS (
    INSERT INTO event VALUES ($1, gen_random_uuid(), 1, '{}', 'task', $2, now())
), removed AS (
    DELETE FROM task_live WHERE run = $2
), ended AS (
    INSERT INTO task VALUES ($2, 0, 'success', 'worker', now())
), closed AS (
    DELETE FROM run_live WHERE run = $2
), finished AS (
    UPDATE run SET state = 'success', ended_at = now() WHERE id = $2
), made AS (
    INSERT INTO run VALUES ($3, gen_random_uuid(), $4, 1, 'running', '{}', 'an event', now())
), consumed AS (
    INSERT INTO run_event VALUES ($3, $1)
), opened AS (
    INSERT INTO run_live VALUES ($3, 'progress', 'info')
), queued AS (
    INSERT INTO task_live VALUES ($3, 0, 'queued', now())
)
UPDATE dag_state SET active = active, state = 'state' WHERE dag = 1
"""


class Floor:
    """A worker's and a manager's connections, and the loop over them.

    Args:
        database: A connection to a database with `SCHEMA`.
        worker: A connection that publishes results and gets orders.
        manager: A connection that gets results and publishes orders.
        replicas: Of the streams.
    """

    def __init__(
        self, database: asyncpg.Connection, worker: Client, manager: Client, replicas: int
    ) -> None:
        self._database = database
        self._replicas = replicas
        self._worker = worker.jetstream()
        self._manager = manager.jetstream()
        self._runs = count()
        self._results: asyncio.Queue[Msg] = asyncio.Queue()
        self._orders: asyncio.Queue[Msg] = asyncio.Queue()

    async def subscribe(self) -> None:
        """Make the streams as the product does, and have their messages delivered."""
        for context, name, queue in (
            (self._manager, STREAMS[0], self._results),
            (self._worker, STREAMS[1], self._orders),
        ):
            await context.add_stream(
                name=name,
                subjects=[name],
                retention="workqueue",
                storage="file",
                num_replicas=self._replicas,
            )
            await context.subscribe(name, durable=name, cb=queue.put, manual_ack=True)

    async def hops(self, number: int) -> list[float]:
        """Do hops one after the other; return the milliseconds of each."""
        return [await self._hop(next(self._runs)) for _ in range(number)]

    async def _hop(self, run: int) -> float:
        """End a run and start the next one; return the milliseconds until its order is there."""
        started = time.perf_counter()
        await self._worker.publish(STREAMS[0], RESULT)
        result = await self._results.get()
        async with self._database.transaction():
            await self._database.fetch(LOCK, run)
            (row,) = await self._database.fetch(READ)
            await self._database.execute(WRITE, row["event"], run, run + 1, f"{run + 1}")
        await self._manager.publish(STREAMS[1], ORDER)
        order = await self._orders.get()
        taken = (time.perf_counter() - started) * 1000
        await result.ack()
        await order.ack()
        return taken


async def _open(servers: Servers, replicas: int, exits: AsyncExitStack) -> Floor:
    admin = await asyncpg.connect(servers.dsn)
    exits.push_async_callback(admin.close)
    await admin.execute("CREATE DATABASE floor")
    exits.push_async_callback(admin.execute, "DROP DATABASE floor")
    database = await asyncpg.connect(servers.dsn, database="floor")
    exits.push_async_callback(database.close)
    await database.execute(SCHEMA)
    clients = [
        await nats.connect(servers.nats_url.split(","), token=servers.nats_token) for _ in range(2)
    ]
    for client in clients:
        exits.push_async_callback(client.close)
    floor = Floor(database, *clients, replicas)
    await floor.subscribe()
    for name in STREAMS:
        exits.push_async_callback(clients[0].jetstream().delete_stream, name)
    await floor.hops(WARM_UP)
    return floor


@contextmanager
def opened(servers: Servers, replicas: int = 1) -> Iterator[Callable[[int], list[float]]]:
    """Give a function that does so many hops of the loop and returns the milliseconds of each."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        exits = AsyncExitStack()
        try:
            floor = runner.run(_open(servers, replicas, exits))
            yield lambda hops: runner.run(floor.hops(hops))
        finally:
            runner.run(exits.aclose())
