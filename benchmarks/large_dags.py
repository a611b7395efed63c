"""Large DAGs: CPU of a manager for a result, when the results of a run come one by one.

A manager of this process, on Postgres and NATS of its own, gets the next result when the one before
is committed. Its CPU is that of this process, with that of the scripted worker; Postgres' stands
beside it. What grows with the number of tasks would be paid for each of them.
"""

import os
import statistics
import time
from typing import Any

import anyio
import psutil

from benchmarks.figures import figure
from benchmarks.pending import Bench, opened
from pubsubflow.bus import Delivery
from pubsubflow.daemon import leave_garbage_alone
from pubsubflow.model.spec import DagSpec, LoadedFile, TaskSpec
from pubsubflow.model.wire.commands import CancelRun, StartRun
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.catalog import Catalog

SIZES = (100, 1_000, 5_000, 10_000)
RESULTS = 90
ROUNDS = 5
_WARM = 5
_GROWTH = 1.3


def _dag(size: int, *, joined: bool) -> LoadedFile:
    """Return a file with a DAG of tasks side by side, and one more that waits for them all."""
    tasks = [TaskSpec(node, f"t{node}", kind="async") for node in range(size)]
    if joined:
        tasks.append(TaskSpec(size, "joins", kind="async", upstream=tuple(range(size))))
    name = f"large_{size}_{joined}".lower()
    file = f"{name}.py"
    dag = DagSpec(name, file, f"hash of {file}", tuple(tasks))
    return LoadedFile(file, dags=(dag,), source=dag.source)


class _Trickle:
    """Takes the orders of a run, and sends the results one by one."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._orders: list[Delivery] = []
        self._wanted = 0
        self._arrived = anyio.Event()
        self._committed = anyio.Event()
        bench.on_task = self._take

    def _take(self, delivery: Delivery) -> None:
        self._orders.append(delivery)
        if len(self._orders) == self._wanted:
            self._arrived.set()

    def note_commit(self, _: object) -> None:
        """Note that a transaction has changed something."""
        self._committed.set()

    async def cpu_a_result(self, dag: DagSpec, size: int) -> tuple[float, float]:
        """Return the milliseconds of CPU a result of this process, and of Postgres."""
        self._orders, self._wanted, self._arrived = [], size, anyio.Event()
        run_id = await self._bench.manager.execute(StartRun(dag.dag_id))
        await self._arrived.wait()
        for delivery in self._orders[:_WARM]:
            await self._send(delivery)
        # Looking at Postgres' processes takes as long as several results.
        postgres_before, before = _postgres_seconds(), time.process_time()
        for delivery in self._orders[_WARM : _WARM + RESULTS]:
            await self._send(delivery)
        spent = time.process_time() - before, _postgres_seconds() - postgres_before
        await self._bench.manager.execute(CancelRun(run_id, "measured"))
        for delivery in self._orders[_WARM + RESULTS :]:
            delivery.ack()
        await self._bench.rest()
        return 1_000 * spent[0] / RESULTS, 1_000 * spent[1] / RESULTS

    async def _send(self, delivery: Delivery) -> None:
        self._committed = anyio.Event()
        self._bench.finish(delivery)
        await self._committed.wait()


def _postgres_seconds() -> float:
    """Return the CPU of the processes of Postgres, the ended ones included."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        if process.name().startswith("postgres"):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


async def _measure() -> list[dict[str, Any]]:
    found = []
    async with opened() as bench:
        trickle = _Trickle(bench)
        async with await bench.worker_bus.subscribe(Subjects.CHANGES, trickle.note_commit):
            for joined in (False, True):
                files = {size: _dag(size, joined=joined) for size in SIZES}
                await Catalog(bench.database).save(list(files.values()))
                costs: dict[int, list[tuple[float, float]]] = {size: [] for size in SIZES}
                for _ in range(ROUNDS):
                    for size, file in files.items():
                        costs[size].append(await trickle.cpu_a_result(file.dags[0], size))
                found += _figures(costs, ", joined by one more" if joined else "")
    return found


def _figures(costs: dict[int, list[tuple[float, float]]], kind: str) -> list[dict[str, Any]]:
    medians = {
        size: tuple(statistics.median(part) for part in zip(*rounds, strict=True))
        for size, rounds in costs.items()
    }
    found = [
        figure(
            f"CPU of a manager a result, {size:,} tasks{kind}",
            round(manager, 3),
            "ms",
            target=0.5,
            least=round(min(part[0] for part in costs[size]), 3),
            postgres_ms=round(postgres, 3),
            load=os.getloadavg()[0],
        )
        for size, (manager, postgres) in medians.items()
    ]
    few, many = medians[SIZES[0]], medians[SIZES[-1]]
    for index, name in enumerate(("a manager", "Postgres")):
        text = f"CPU of {name} a result, {SIZES[-1]:,} tasks to {SIZES[0]}{kind}"
        found.append(figure(text, round(many[index] / few[index], 2), "times", target=_GROWTH))
    return found


def run() -> list[dict[str, Any]]:
    """Measure."""
    leave_garbage_alone()
    return anyio.run(_measure, backend_options={"use_uvloop": True})
