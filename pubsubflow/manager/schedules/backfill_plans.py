"""Plans of backfills as a locked DAG sees them: what is next, what exists, what is to be made."""

from collections.abc import Sequence
from datetime import datetime
from itertools import chain
from uuid import UUID

import anyio.lowlevel
from msgspec import Struct

from pubsubflow.errors import InvalidInput
from pubsubflow.manager.chosen_keys import check_key
from pubsubflow.manager.persistence.load import ConditionStates
from pubsubflow.manager.unit_of_work import UnitOfWork
from pubsubflow.manager.working_state import LockedDag
from pubsubflow.model.runs.states import RunState
from pubsubflow.model.schedule.backfills import (
    MAX_PLANNED_RUNS,
    STORED_PLAN,
    PartitionPlan,
    Planned,
    PlannedPartition,
    PlannedTick,
    Reprocess,
    TickPlan,
    tick_plan,
)
from pubsubflow.model.schedule.condition_state import check_partition
from pubsubflow.model.schedule.conditions import ticks
from pubsubflow.model.schedule.timetable import next_tick
from pubsubflow.model.wire.commands import Backfill, PlannedRun
from pubsubflow.store.batches.manager_transaction import ManagerTransaction, Row

LISTED_RUNS = 10_000
"""How many runs of a plan are listed for who requests it."""
_COUNTED_AT_ONCE = 2000


class RequestedPlan(Struct, frozen=True):
    """The plan of a requested backfill.

    Attributes:
        ticks: Its ticks; None for partitions.
        partitions: Its partitions, in the order in which they were given.
        count: How many runs it has.
        first: The first of them, in order; LISTED_RUNS at most.
        reprocess: Which of them are made.
    """

    ticks: TickPlan | None
    partitions: tuple[str, ...]
    count: int
    first: list[Planned]
    reprocess: Reprocess


class ExistingRun(Struct, frozen=True):
    """The last run that exists for a planned one; one that retention removed has no id."""

    run_id: str | None
    state: RunState

    @property
    def done(self) -> bool:
        """Whether it did its work, or is about to; one that was cancelled did not."""
        return self.state not in (RunState.FAILED, RunState.CANCELLED)


async def read_request(dag: LockedDag, command: Backfill, now: datetime) -> RequestedPlan:
    """Return the plan of a requested backfill.

    Raises:
        InvalidInput: The DAG has no timetable or no such partition, or it would be too many runs.
    """
    reprocess = Reprocess.ALL if command.again else Reprocess.MISSING
    if command.only_failed:
        reprocess = Reprocess.FAILED
    if command.partitions:
        keys = tuple(dict.fromkeys(command.partitions))
        _check_count(len(keys))
        for key in keys:
            _check_partition(dag, key)
        ordered = PartitionPlan(len(keys), command.newest_first).ordered(keys)
        first: list[Planned] = [PlannedPartition(key) for key in ordered[:LISTED_RUNS]]
        return RequestedPlan(None, keys, len(keys), first, reprocess)
    spec = dag.version.spec
    plan = None
    if command.since is not None:
        plan = tick_plan(
            dag.version.schedule,
            command.since,
            min(command.until or now, now),
            start=spec.start,
            end=spec.end,
            newest_first=command.newest_first,
        )
    if plan is None:
        raise InvalidInput(
            f"DAG {spec.dag_id!r} has no Cron or Every, or no --from was given: "
            "name the partitions instead"
        )
    count = await _count(plan)
    moments = plan.take(None, min(count, LISTED_RUNS)) if count else []
    return RequestedPlan(plan, (), count, [PlannedTick(each) for each in moments], reprocess)


async def _count(plan: TickPlan) -> int:
    count = 0
    for count, _ in enumerate(plan.moments(), 1):
        _check_count(count)
        if count % _COUNTED_AT_ONCE == 0:
            await anyio.lowlevel.checkpoint()
    return count


def _check_count(count: int) -> None:
    if count > MAX_PLANNED_RUNS:
        raise InvalidInput(f"more than {MAX_PLANNED_RUNS} runs: choose a shorter time")


def _check_partition(dag: LockedDag, key: str) -> None:
    check_key(key)
    schedule = dag.version.schedule
    if schedule is not None and schedule.partitioning is not None:
        check_partition(dag.version.spec.dag_id, schedule, key)


class PlanReader:
    """Reads what there is of the plans of a locked DAG.

    Args:
        uow: What the transaction changes.
        transaction: Its queries.
        conditions: Loads states of conditions.
    """

    def __init__(
        self, uow: UnitOfWork, transaction: ManagerTransaction, conditions: ConditionStates
    ) -> None:
        self._uow = uow
        self._transaction = transaction
        self._conditions = conditions

    async def next_planned(
        self, row: Row, decided: int, reached: datetime | None, count: int
    ) -> list[Planned]:
        """Return the next planned runs of a stored backfill, `count` at most."""
        count = min(count, row["planned"] - decided)
        if row["plan"] is not None:
            moments = STORED_PLAN.decode(row["plan"]).take(reached, count)
            return [PlannedTick(each) for each in moments]
        plan = PartitionPlan(row["planned"], row["newest_first"])
        first, last = plan.bounds(decided, count)
        rows = await self._transaction.fetch("read_backfill_partitions", row["id"], first, last)
        return [PlannedPartition(key) for key in plan.ordered(rows[0]["partitions"])]

    async def existing(
        self, dag: LockedDag, planned: Sequence[Planned], reprocess: Reprocess
    ) -> dict[str, ExistingRun]:
        """Return run key → the last run that exists, for those of which one does."""
        rows = await self._transaction.fetch(
            "find_planned_runs",
            dag.id,
            [each.run_key for each in planned],
            [each.logical_time for each in planned],
            [each.partition for each in planned],
            reprocess is Reprocess.FAILED,
        )
        found = {
            row["run_key"]: ExistingRun(str(row["run_id"]), RunState(row["state"])) for row in rows
        }
        wanted = {each.run_key for each in planned}
        # Runs of this transaction have no row yet.
        for draft in self._uow.schedule.drafts.values():
            if draft.dag is dag and draft.run_key in wanted and draft.refused is None:
                found[draft.run_key] = ExistingRun(str(draft.run_id), RunState.QUEUED)
        await self._add_fired(dag, planned, found)
        return found

    async def _add_fired(
        self, dag: LockedDag, planned: Sequence[Planned], found: dict[str, ExistingRun]
    ) -> None:
        """Add partitions that have had a run, of which their key says nothing."""
        schedule = dag.version.schedule
        if schedule is None or schedule.partitioning is None:
            return
        keys = {each.partition: each.run_key for each in planned if each.partition is not None}
        await self._conditions.load((dag, key) for key in keys)
        if schedule.partitioning.runs_once:
            return
        for key, run_key in keys.items():
            condition = dag.conditions.get(key)
            if condition is not None and condition.state.firings > 0:
                found.setdefault(run_key, ExistingRun(None, RunState.SUCCESS))

    async def describe(self, dag: LockedDag, plan: RequestedPlan) -> list[PlannedRun]:
        """Return the first runs of a plan, each as it is or would be."""
        existing = await self.existing(dag, plan.first, plan.reprocess)
        makes = {
            each.run_key: plan.reprocess.makes(_done(existing.get(each.run_key)))
            for each in plan.first
        }
        keys = [
            each.partition
            for each in plan.first
            if each.partition in dag.conditions and makes[each.run_key]
        ]
        pending = await self._pending(dag, keys)
        return [
            PlannedRun(
                each.run_key,
                None if makes[each.run_key] else existing[each.run_key].run_id,
                not makes[each.run_key],
                each.logical_time,
                each.partition,
                tuple(dict.fromkeys(pending.get(each.partition or "", ()))),
            )
            for each in plan.first
        ]

    async def _pending(self, dag: LockedDag, keys: Sequence[str]) -> dict[str, list[str]]:
        """Return key → ids of the events pending there, which the run of a partition consumes."""
        rows = await self._transaction.fetch("read_pending_of_keys", dag.id, keys) if keys else []
        found: dict[str, list[str]] = {}
        for row in rows:
            found.setdefault(row["partition_key"], []).append(str(row["event_id"]))
        for key in keys:
            fresh = chain.from_iterable(dag.conditions[key].new_events)
            found.setdefault(key, []).extend(each.info.event_id for each in fresh)
        return found


def _done(run: ExistingRun | None) -> bool | None:
    return None if run is None else run.done


def why_none(dag: LockedDag, command: Backfill, planned: Sequence[PlannedRun]) -> str | None:
    """Return why no planned run is new, if none is."""
    if not planned:
        return _no_tick(dag, command)
    if not all(each.exists for each in planned):
        return None
    if command.only_failed:
        return "no run failed, and none is missing"
    if len(planned) > 1:
        return f"all {len(planned)} runs exist already; `again` makes them once more"
    key = planned[0].partition
    subject = "the run exists" if key is None else f"partition {key} has run"
    return f"{subject} already; `again` makes it once more"


def _no_tick(dag: LockedDag, command: Backfill) -> str:
    spec, schedule = dag.version.spec, dag.version.schedule
    text, since = "no tick lies in that time", command.since
    if schedule is None or since is None:
        return text
    following = [
        moment
        for part in ticks(schedule.condition)
        if (moment := next_tick(part.timetable, since, spec.start, spec.end)) is not None
    ]
    if spec.end is not None and not following:
        return f"{text}: the DAG's end is {spec.end.isoformat()}"
    return f"{text}: the next one is {min(following).isoformat()}" if following else text


def made_again(run_key: str, backfill_id: UUID) -> str:
    """Return the key of a run that a backfill makes once more: run keys are unique for good."""
    return f"{run_key}:again:{backfill_id}"
