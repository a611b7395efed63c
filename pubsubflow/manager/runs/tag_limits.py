"""Limits of tags: of the DAGs that have a tag, so many tasks run side by side.

A DAG's version does not know whether its tags are limited, so every transaction that hands out
tasks reads it with the runs or DAGs that it locks. A change waits for these transactions, blocks
later ones, and puts what runs by then under the limit: it holds for all tasks from its commit on.
"""

from collections.abc import Iterable, Sequence

from pubsubflow.manager.persistence.load import load_runs
from pubsubflow.manager.runs.pools import limits_of
from pubsubflow.manager.spec_cache import DagVersion, SpecCache
from pubsubflow.manager.unit_of_work import UnitOfWork
from pubsubflow.manager.working_state import RunWork
from pubsubflow.model.runs.concurrency import TAG, Limit
from pubsubflow.model.runs.states import TaskState
from pubsubflow.model.wire.messages import TaskKey
from pubsubflow.store.batches.manager_transaction import ManagerTransaction

_Limits = tuple[Limit, ...]


def limit_by_tags(runs: Iterable[RunWork], tag_limits: frozenset[str]) -> None:
    """Put runs under the limits of their DAGs' tags.

    Args:
        runs: The runs.
        tag_limits: The limits that there are: `tag:<tag>`.
    """
    for run in runs:
        limits = _with_tags(run.version, tag_limits)
        if limits is not None:
            run.limits = limits
            # A chained task would run without the slot that the manager gives.
            run.chains = ((),) * len(limits)


def _with_tags(version: DagVersion, tag_limits: frozenset[str]) -> tuple[_Limits, ...] | None:
    """Return per node the limits of a version with those of its tags; None if none is limited."""
    own = tag_limits.intersection(f"{TAG}{tag}" for tag in version.spec.tags)
    if not own:
        return None
    tags = [Limit(name) for name in own]
    plain: tuple[_Limits, ...] = ((),) * len(version.spec.tasks)
    return tuple(tuple(sorted((*each, *tags))) for each in version.plan.limits or plain)


class TagLimits:
    """Changes limits of tags, with everything else that hands out tasks held off.

    Args:
        uow: What the transaction changes.
        transaction: Its queries.
        specs: DAG versions.
    """

    def __init__(self, uow: UnitOfWork, transaction: ManagerTransaction, specs: SpecCache) -> None:
        self._uow = uow
        self._transaction = transaction
        self._specs = specs
        self._queues: dict[_Limits, int] = {}

    async def apply(self, changed: set[str]) -> set[str]:
        """Put the tasks of DAGs with the tags that changed under the limits that there are now.

        Args:
            changed: Limits that were set or removed: `tag:<tag>`.

        Returns:
            The limits for which tasks may wait that have room now.
        """
        rows = await self._transaction.fetch("list_tag_limits")
        present = frozenset(row["name"] for row in rows)
        runs = await self._concerned(changed)
        limit_by_tags(runs.values(), present)
        freed, enrolled, unlimited = set(changed), [], []
        for row in await self._transaction.fetch("list_slotted_tasks", sorted(runs)):
            run, task = runs[row["run"]], (row["run"], row["node"], row["map_index"])
            ready = row["state"] == TaskState.READY
            limits = run.limits[row["node"]] if run.limits else ()
            spec = run.version.spec.tasks[row["node"]]
            if limits and spec.has_rendered_keys:
                limits = limits_of(run, spec, row["map_index"])
            if limits:
                enrolled.append(await self._row(run, task, limits, held=not ready))
                freed.update(limit.name for limit in limits if ready)
            elif not ready:
                unlimited.append(task)
        await self._transaction.write("enrol_slots", enrolled)
        await self._transaction.write("delete_slots", unlimited)
        await self._transaction.fetch("delete_lost_slots")
        await self._transaction.fetch("count_wait_queues")
        await self._transaction.fetch("delete_empty_wait_queues")
        return freed

    async def _concerned(self, changed: set[str]) -> dict[int, RunWork]:
        """Return the live runs of DAGs with tags."""
        rows = await self._transaction.fetch("list_versions_of_live_runs")
        versions = await self._specs.versions(self._transaction, [row["version"] for row in rows])
        wanted = [
            each.id
            for each in versions.values()
            if changed.intersection(f"{TAG}{tag}" for tag in each.spec.tags)
        ]
        found = await self._transaction.fetch("list_live_runs_of_versions", sorted(wanted))
        # Apart from the runs of the transaction: these are locked, and loaded, later.
        apart = UnitOfWork(self._uow.now)
        await load_runs(found, apart, self._specs, self._transaction)
        return apart.runs.by_id

    async def _row(
        self, run: RunWork, task: TaskKey, limits: _Limits, *, held: bool
    ) -> tuple[object, ...]:
        spec = run.version.spec.tasks[task[1]]
        if limits not in self._queues:
            self._queues[limits] = await self._register(limits, passing=spec.has_rendered_keys)
        priority = run.version.spec.priority + spec.priority
        return (*task, self._queues[limits], priority, held)

    async def _register(self, limits: Sequence[Limit], *, passing: bool) -> int:
        names, capacities = zip(*((limit.name, limit.capacity) for limit in limits), strict=True)
        rows = await self._transaction.fetch("register_wait_queue", names, capacities, passing)
        return int(rows[0]["id"])
