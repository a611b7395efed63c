"""Queued runs of DAGs whose tags are limited: started by one transaction at a time.

Where a limit holds, no run starts when it is made: it is queued, and a transaction that follows
starts it. Only one such transaction is under way among all managers, and no other starts runs under
limits, so what it counts can only become less while it decides.
"""

from collections.abc import Mapping

from msgspec import Struct

from pubsubflow.manager.schedules.backfills import Backfills
from pubsubflow.manager.schedules.dag_states import DagStates
from pubsubflow.manager.spec_cache import SpecCache
from pubsubflow.manager.unit_of_work import UnitOfWork
from pubsubflow.manager.working_state import LockedDag
from pubsubflow.model.limits.run_limits import (
    DagRuns,
    LimitUse,
    WaitingRun,
    choose_runs,
    count_use,
    free_for,
    limits_of_tags,
)
from pubsubflow.store.batches.manager_transaction import ManagerTransaction, Row

_RUNS_A_TRANSACTION = 500


class _Choice(Struct):
    """What was chosen before the DAGs were locked.

    Attributes:
        dags: DAGs with queued runs, by number.
        runs: The runs to start, in order.
    """

    dags: dict[int, DagRuns]
    runs: list[WaitingRun]


class QueuedRuns:
    """Starts queued runs as the limits of runs allow.

    Args:
        uow: What the transaction changes.
        transaction: Its queries.
        specs: DAG versions.
        dags: Starts the runs.
        backfills: Counts runs that the limit of their backfill counts.
    """

    def __init__(
        self,
        uow: UnitOfWork,
        transaction: ManagerTransaction,
        specs: SpecCache,
        *,
        dags: DagStates,
        backfills: Backfills,
    ) -> None:
        self._uow = uow
        self._transaction = transaction
        self._specs = specs
        self._dags = dags
        self._backfills = backfills
        self._choice = _Choice({}, [])

    async def lock(self) -> None:
        """Wait for other transactions that start queued runs; before any other lock."""
        await self._transaction.fetch("lock_run_limits")

    async def choose(self) -> set[int]:
        """Choose the runs that start; return the DAGs that have to be locked for it."""
        rows = await self._transaction.fetch("list_run_limits")
        limits = {row["name"]: row["slots"] for row in rows}
        found = await self._read_dags(limits)
        use = count_use(limits, found.values())
        waiting = {number: dag for number, dag in found.items() if dag.queued}
        # What no limit holds any more starts like any other run, once its DAG is locked.
        wanted = [number for number, dag in waiting.items() if dag.room and not dag.limits]
        held = {n: dag for n, dag in waiting.items() if dag.limits and free_for(dag, use)}
        runs = choose_runs(await self._next_runs(held, use), found, use) if held else []
        most = _RUNS_A_TRANSACTION
        self._uow.schedule.start_queued = len(runs) > most or len(wanted) > most
        self._choice = _Choice(waiting, runs[:most])
        return {*wanted[:most], *(run.dag for run in self._choice.runs)}

    async def start(self) -> None:
        """Start the chosen runs, as far as their DAGs, which are locked, are as they were."""
        by_dag: dict[int, list[WaitingRun]] = {}
        for run in self._choice.runs:
            by_dag.setdefault(run.dag, []).append(run)
        for number, dag in self._uow.schedule.dags.items():
            if number in self._choice.dags and dag.backfills:
                await self._backfills.count(dag)
            if number in by_dag:
                await self._start(dag, by_dag[number])

    async def _start(self, dag: LockedDag, runs: list[WaitingRun]) -> None:
        if dag.run_limits != self._choice.dags[dag.id].limits:
            dag.recheck = True
            return
        room = dag.version.spec.max_active_runs - (dag.active - dag.apart)
        fitting = [run.run for run in runs if run.apart]
        fitting += [run.run for run in runs if not run.apart][: max(0, room)]
        rows: list[Row] = await self._transaction.fetch("take_queued_runs", fitting)
        # Others have come before: cancelled, or there is less room. What is left goes to the next.
        dag.recheck |= len(rows) < len(runs)
        await self._dags.start_taken(dag, rows)
        if dag.backfills:
            await self._backfills.count(dag)

    async def _read_dags(self, limits: dict[str, int]) -> dict[int, DagRuns]:
        rows = await self._transaction.fetch("list_dags_with_runs")
        versions = await self._specs.versions(self._transaction, (row["version"] for row in rows))
        found = {}
        for row in rows:
            spec = versions[row["version"]].spec
            found[row["dag"]] = DagRuns(
                row["dag"],
                limits_of_tags(spec.tags, limits),
                row["active"],
                row["apart"],
                row["queued"],
                spec.max_active_runs,
                spec.priority,
            )
        return found

    async def _next_runs(
        self, dags: dict[int, DagRuns], use: Mapping[str, LimitUse]
    ) -> list[WaitingRun]:
        free = [free_for(dag, use) for dag in dags.values()]
        rows = await self._transaction.fetch(
            "list_next_runs",
            list(dags),
            [min(each, dag.room) for each, dag in zip(free, dags.values(), strict=True)],
            free,
        )
        return [WaitingRun(row["dag"], row["run"], row["position"], row["apart"]) for row in rows]
