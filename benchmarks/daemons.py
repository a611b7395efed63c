"""Daemons: CPU of a run when one, two and four daemons share the work, and what they wait for.

Each has all roles; all share the NATS and Postgres of the first. Events are posted to them in turn,
to one DAG, at whose row all of them meet, or to many. Tasks and results go to whichever is free.
"""

import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import psutil

from benchmarks.figures import figure, spread
from benchmarks.stack import Stack

COUNTS = (1, 2, 4)
DAGS = {"one DAG": 1, "50 DAGs": 50}
RUNS = 1_000
BATCH = 20
REPETITIONS = 3
GROWTH_PERCENT = 10
"""By how much the CPU of a run may grow from one daemon to four."""
_TASKS = 5
_LOOK_SECONDS = 0.01
_REST_SECONDS = 3
_IDLE_SECONDS = 8
_DAG_FILE = """
from pubsubflow import DAG, Dataset, task

@task
async def part(number: int) -> int:
    return number

@task
async def whole(values: list) -> None:
    pass

for number in range({most}):
    with DAG(f"shared_{{number}}", schedule=Dataset(f"bench://shared/{{number}}")):
        whole([part(each) for each in range(4)])
"""
_LOOK = """
SELECT count(*) FILTER (WHERE wait_event_type = 'Lock'), count(*)
FROM pg_stat_activity WHERE state <> 'idle' AND xact_start IS NOT NULL AND pid <> pg_backend_pid()
"""
_LEFT = "SELECT EXISTS (SELECT FROM run_live) OR EXISTS (SELECT FROM run_queue)"
_DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"


class Waits:
    """Counts, look by look, transactions, and those that wait for what another one has locked."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self.waiting = self.open = 0

    async def watch(self) -> None:
        """Look until cancelled."""
        while True:
            waiting, opened = await self._connection.fetchrow(_LOOK)
            self.waiting += waiting
            self.open += opened
            await asyncio.sleep(_LOOK_SECONDS)


class Daemons:
    """Daemons that share the servers of a stack, its own among them.

    Args:
        stack: The first daemon, and the servers.
        count: How many there are.
    """

    def __init__(self, stack: Stack, count: int) -> None:
        self.stack = stack
        self.urls = [stack.url]
        self._logs: list[Path] = [stack.folder / "daemon.log"]
        self._processes: list[subprocess.Popen[bytes]] = []
        for number in range(1, count):
            self._start(number)

    def _start(self, number: int) -> None:
        stack, log = self.stack, self.stack.folder / f"daemon-{number}.log"
        reading, writing = os.pipe()
        settings = {
            "PUBSUBFLOW__NATS__URL": stack.nats_url,
            "PUBSUBFLOW__NATS__TOKEN": stack.nats_token,
            "PUBSUBFLOW__POSTGRES__URL": stack.dsn,
            "PUBSUBFLOW__SECRETS__KEY_FILE": str(stack.home / "keys"),
            "BENCH_LOG": str(stack.folder / "moments"),
        }
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    Path(sys.executable).parent / "pubsubflow",
                    *("daemon", str(stack.dags), "--port", "0"),
                    *("--home", str(stack.folder / f"home-{number}"), "--ready-fd", str(writing)),
                ],
                env=os.environ | settings,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(writing,),
            )
        os.close(writing)
        with os.fdopen(reading) as ready:
            url = ready.readline().strip()
        if not url:
            raise RuntimeError(log.read_text()[-2000:])
        self._processes.append(process)
        self._logs.append(log)
        self.urls.append(url)

    def stop(self) -> None:
        """Stop the daemons that are not the stack's."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(60)

    def cpu_seconds(self) -> float:
        """Return the CPU time of all daemons, of what runs tasks, and of the servers."""
        total = self.stack.cpu_seconds()
        for daemon in self._processes:
            root = psutil.Process(daemon.pid)
            for process in (root, *root.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    times = process.cpu_times()
                    total += sum(times[:4])
        return total

    def restarts(self) -> int:
        """Return how many transactions were begun again, as two waited for each other."""
        return sum(log.read_text().count("manager.transaction_restarted") for log in self._logs)


async def _post(session: aiohttp.ClientSession, urls: Sequence[str], dags: int) -> None:
    """Post an event for each run, to one daemon after the other."""

    async def client(number: int, batches: Iterator[int]) -> None:
        url = f"{urls[number]}/api/v1/datasets/events"
        for batch in batches:
            body = [
                {"dataset": f"bench://shared/{(batch * BATCH + each) % dags}"}
                for each in range(BATCH)
            ]
            async with session.post(url, json=body) as answer:
                assert answer.status == 202, await answer.text()

    batches = iter(range(RUNS // BATCH))
    async with asyncio.TaskGroup() as group:
        for number in range(len(urls)):
            group.create_task(client(number, batches))


async def _round(
    daemons: Daemons,
    dags: int,
    idle: float,
    connection: asyncpg.Connection,
    session: aiohttp.ClientSession,
) -> float:
    """Return the CPU milliseconds of a run, without those that idle daemons take."""
    started, before = time.perf_counter(), daemons.cpu_seconds()
    await _post(session, daemons.urls, dags)
    while await connection.fetchval(_LEFT):  # noqa: ASYNC110 - another process changes it
        await asyncio.sleep(0.05)
    seconds = time.perf_counter() - started
    return 1000 * (daemons.cpu_seconds() - before - idle * seconds) / RUNS


async def _idle(daemons: Daemons) -> float:
    """Return the CPU seconds that daemons and servers take in a second without work."""
    await asyncio.sleep(_REST_SECONDS)
    before = daemons.cpu_seconds()
    await asyncio.sleep(_IDLE_SECONDS)
    return (daemons.cpu_seconds() - before) / _IDLE_SECONDS


@contextlib.asynccontextmanager
async def _connected(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


async def _measure(daemons: Daemons, dags: int) -> dict[str, Any]:
    dsn = daemons.stack.dsn
    async with (
        aiohttp.ClientSession() as session,
        _connected(dsn) as connection,
        _connected(dsn) as watcher,
    ):
        await _round(daemons, dags, 0.0, connection, session)
        idle = await _idle(daemons)
        deadlocks, restarts = await connection.fetchval(_DEADLOCKS), daemons.restarts()
        waits = Waits(watcher)
        watching = asyncio.create_task(waits.watch())
        started = time.perf_counter()
        costs = [await _round(daemons, dags, idle, connection, session) for _ in range(REPETITIONS)]
        seconds = time.perf_counter() - started
        watching.cancel()
        return {
            "costs": costs,
            "idle, percent of a core": round(100 * idle, 1),
            "runs a second": round(REPETITIONS * RUNS / seconds),
            "transactions that wait for a lock, percent": round(
                100 * waits.waiting / max(waits.open, 1), 1
            ),
            "deadlocks": await connection.fetchval(_DEADLOCKS) - deadlocks,
            "restarts": daemons.restarts() - restarts,
        }


def _with(count: int) -> dict[str, dict[str, Any]]:
    """Measure with so many daemons."""
    with contextlib.ExitStack() as exits:
        dags_folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="psf-bench-")))
        (dags_folder / "shared_dags.py").write_text(_DAG_FILE.format(most=max(DAGS.values())))
        stack = exits.enter_context(Stack(dags_folder))
        daemons = Daemons(stack, count)
        exits.callback(daemons.stop)
        return {name: asyncio.run(_measure(daemons, dags)) for name, dags in DAGS.items()}


def run() -> list[dict[str, Any]]:
    """Measure."""
    found = []
    measured = {count: _with(count) for count in COUNTS}
    for name in DAGS:
        alone = statistics.median(measured[COUNTS[0]][name]["costs"])
        for count in COUNTS:
            facts = measured[count][name]
            costs = facts.pop("costs")
            found.append(
                figure(
                    f"CPU of a run of {_TASKS} tasks, {name}, daemons: {count}",
                    round(statistics.median(costs), 2),
                    "ms",
                    target=round(alone * (1 + GROWTH_PERCENT / 100), 2),
                    spread=spread(costs),
                    **facts,
                )
            )
    return found
