"""Backfills: the planned runs of past ticks and of partitions, made as there is room for them.

All of it happens under the lock of the DAG, in the transaction that makes the room: the one in
which a run ends. What was decided and the runs that follow are written together, so that each
planned run is decided about once, wherever a process dies.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from pubsubflow.errors import InvalidInput
from pubsubflow.manager.persistence.load import ConditionStates, IdAllocator
from pubsubflow.manager.schedules.backfill_plans import (
    ExistingRun,
    PlanReader,
    RequestedPlan,
    made_again,
    read_request,
    why_none,
)
from pubsubflow.manager.schedules.firing import Scheduler
from pubsubflow.manager.unit_of_work import UnitOfWork
from pubsubflow.manager.working_state import LockedDag, RunDraft
from pubsubflow.model.runs.params import validate_params
from pubsubflow.model.runs.states import RunState
from pubsubflow.model.schedule.backfills import BackfillState, Planned, Reprocess, room_for
from pubsubflow.model.wire.commands import Backfill, ChangeBackfill, RunPlan
from pubsubflow.model.wire.messages import encode
from pubsubflow.store.batches.manager_transaction import ManagerTransaction, Row
from pubsubflow.store.database import printable

_RUNS_A_TRANSACTION = 100
_DECIDED_A_TRANSACTION = 1000
_DECIDED_AT_ONCE = 200


class _Advance(Struct):
    """How far a backfill comes in this transaction.

    Attributes:
        row: As it was.
        active: How many of its runs are active.
        room: How many runs it may make.
        runs: The runs that it makes here: their ids.
    """

    row: Row
    state: BackfillState
    decided: int
    made: int
    reached: datetime | None
    active: int
    reason: str | None = None
    room: int = 0
    runs: list[int] = []

    @property
    def id(self) -> int:
        """Its id in the store."""
        number: int = self.row["id"]
        return number

    @property
    def left(self) -> int:
        """How many planned runs it has not decided about."""
        planned: int = self.row["planned"]
        return planned - self.decided

    @property
    def goes_on(self) -> bool:
        """Whether it would make another run."""
        return self.state is BackfillState.RUNNING and self.left > 0 and self.room > 0

    @property
    def open(self) -> bool:
        """Whether it has runs to make, or runs that have not ended."""
        to_make = self.left > 0 and self.state is not BackfillState.CANCELLED
        return to_make or self.active > 0


class Backfills:
    """Backfills of locked DAGs; what they make is admitted like any other run.

    Args:
        uow: What the transaction changes.
        transaction: Its queries.
        run_ids: Gives run ids.
        scheduler: Makes runs.
        conditions: Loads states of conditions.
    """

    def __init__(
        self,
        uow: UnitOfWork,
        transaction: ManagerTransaction,
        run_ids: IdAllocator,
        *,
        scheduler: Scheduler,
        conditions: ConditionStates,
    ) -> None:
        self._uow = uow
        self._transaction = transaction
        self._run_ids = run_ids
        self._scheduler = scheduler
        self._plans = PlanReader(uow, transaction, conditions)
        self._run_of_key: dict[str, str] = {}

    async def request(
        self, dag: LockedDag, command: Backfill, backfill_id: UUID, *, tried: bool = False
    ) -> RunPlan:
        """Begin a backfill, unless it has nothing to do or is a dry run; return its first runs.

        Args:
            dag: The DAG.
            command: What is requested.
            backfill_id: The id of the backfill, for outsiders.
            tried: A transaction with it may have committed before: then it has begun already.

        Raises:
            InvalidInput: The DAG has no timetable or no such partition, the params do not fit, or
                it would be too many runs.
        """
        validate_params(dag.version.spec, command.params)
        if command.again and command.only_failed:
            raise InvalidInput("set `again` or `only_failed`, not both")
        plan = await read_request(dag, command, self._uow.now)
        runs = await self._plans.describe(dag, plan)
        reason = why_none(dag, command, runs)
        planned = plan.count if plan.count > len(runs) else None
        if tried and await self._transaction.fetch("find_backfill", backfill_id):
            return RunPlan(runs, None, str(backfill_id), planned)
        if command.dry_run or (reason is not None and planned is None):
            return RunPlan(runs, reason, None, planned)
        await self._create(dag, command, plan, backfill_id)
        await self.advance(dag)
        found = [
            each if each.exists else replace(each, run_id=self._run_of_key.get(each.run_key))
            for each in runs
        ]
        return RunPlan(found, None, str(backfill_id), planned)

    async def _create(
        self, dag: LockedDag, command: Backfill, plan: RequestedPlan, backfill_id: UUID
    ) -> None:
        description = command.description
        await self._transaction.fetch(
            "create_backfill",
            backfill_id,
            dag.id,
            None if plan.ticks is None else encode(plan.ticks),
            list(plan.partitions) or None,
            command.newest_first,
            plan.reprocess,
            command.max_active_runs,
            command.params,
            None if description is None else printable(description),
            plan.count,
            printable(command.created_by),
        )

    async def change(self, dag: LockedDag, row: Row, command: ChangeBackfill) -> None:
        """Pause, resume or cancel a backfill; one that is so already stays as it is.

        Raises:
            InvalidInput: It makes no more runs.
        """
        state, wanted = BackfillState(row["state"]), BackfillState(command.state)
        if state is wanted:
            return
        if state in (BackfillState.COMPLETED, BackfillState.CANCELLED):
            raise InvalidInput(f"backfill {command.backfill_id} is {state}")
        reason = None if command.reason is None else printable(command.reason)
        await self._transaction.fetch("set_backfill_state", row["id"], wanted, reason)
        dag.advancing = True

    async def settle(self, dag: LockedDag) -> None:
        """Count out runs of a DAG's backfills that have ended: there may be room for others."""
        ended, dag.ended_runs, dag.advancing = dag.ended_runs, [], True
        await self._transaction.fetch("settle_backfill_runs", dag.id, ended)
        await self.count(dag)

    async def advance(self, dag: LockedDag) -> None:
        """Make the next runs of each backfill of a DAG."""
        dag.advancing = False
        for row in await self._transaction.fetch("read_open_backfills", dag.id):
            await self._advance(dag, row)
        await self.count(dag)

    async def count(self, dag: LockedDag) -> None:
        """Count a DAG's open backfills, and the active runs that limits of theirs count."""
        (counts,) = await self._transaction.fetch("count_backfills", dag.id)
        # Those that are made here are not active before they are admitted; then they are counted.
        drafted = sum(
            draft.apart and draft.dag is dag and draft.state is not RunState.RUNNING
            for draft in self._uow.schedule.drafts.values()
        )
        dag.backfills, dag.apart = counts["backfills"], counts["apart"] - drafted

    async def _advance(self, dag: LockedDag, row: Row) -> None:
        state = BackfillState(row["state"])
        work = _Advance(row, state, row["decided"], row["made"], row["reached"], row["active"])
        if state is BackfillState.RUNNING and work.left and dag.present and not dag.missing:
            try:
                await self._decide(dag, work)
            except InvalidInput as error:
                # A newer version of the DAG refuses the params or a partition: people decide.
                work.state, work.reason = BackfillState.PAUSED, printable(str(error))
        rows = [(run, work.id, dag.id) for run in work.runs]
        await self._transaction.write("record_backfill_runs", rows)
        if not work.open and state is not BackfillState.CANCELLED:
            work.state = BackfillState.COMPLETED
        if work.goes_on:
            self._uow.schedule.advancing.append(dag.id)
        await self._transaction.fetch(
            "advance_backfill",
            *(work.id, work.state, work.reason, work.decided, work.made, work.reached, work.open),
        )

    async def _decide(self, dag: LockedDag, work: _Advance) -> None:
        """Decide about planned runs while there is room, as many as one transaction takes.

        Raises:
            InvalidInput: The DAG does not take what is planned.
        """
        params = validate_params(dag.version.spec, work.row["params"])
        most = min(work.decided + _DECIDED_A_TRANSACTION, work.row["planned"])
        work.room = self._room(dag, work)
        while work.room and work.decided < most and dag.backfilled < _RUNS_A_TRANSACTION:
            count = min(_DECIDED_AT_ONCE, most - work.decided)
            planned = await self._plans.next_planned(work.row, work.decided, work.reached, count)
            if not planned:
                raise InvalidInput(
                    "its plan has fewer runs than it had: a clock change of the zone"
                )
            await self._decide_about(dag, work, planned, params)

    async def _decide_about(
        self, dag: LockedDag, work: _Advance, planned: Sequence[Planned], params: dict[str, Any]
    ) -> None:
        reprocess = Reprocess(work.row["reprocess"])
        existing = await self._plans.existing(dag, planned, reprocess)
        await self._run_ids.reserve(self._transaction, min(len(planned), _RUNS_A_TRANSACTION))
        for each in planned:
            if not work.room or dag.backfilled >= _RUNS_A_TRANSACTION:
                return
            known = existing.get(each.run_key)
            if reprocess.makes(None if known is None else known.done):
                self._make(dag, work, each, known, params)
            work.decided += 1
            work.reached = each.logical_time

    def _make(
        self,
        dag: LockedDag,
        work: _Advance,
        planned: Planned,
        known: ExistingRun | None,
        params: dict[str, Any],
    ) -> None:
        run_key = planned.run_key
        if known is not None:
            run_key = made_again(run_key, work.row["backfill_id"])
        draft = self._scheduler.draft(
            dag, run_key, "backfill", planned.cause, logical_time=planned.logical_time
        )
        draft.partition, draft.params = planned.partition, params
        draft.apart = work.row["max_active"] is not None
        self._consume(dag, draft)
        self._scheduler.begin(draft)
        self._run_of_key[planned.run_key] = str(draft.run_id)
        work.runs.append(draft.id)
        work.made += 1
        work.active += 1
        work.room -= 1
        dag.backfilled += 1

    def _consume(self, dag: LockedDag, draft: RunDraft) -> None:
        """Give the run of a partition what is pending there; it counts as a firing."""
        schedule = dag.version.schedule
        if draft.partition is None or schedule is None or schedule.partitioning is None:
            return
        draft.condition_key, draft.firings = draft.partition, 1
        condition = self._scheduler.condition(dag, draft.partition)
        self._scheduler.consume_pending(dag, condition, draft)
        state = condition.state
        state.firings = max(state.firings, draft.firings)
        state.max_firings = max(state.max_firings, state.firings)
        condition.changed = True

    def _room(self, dag: LockedDag, work: _Advance) -> int:
        # Those of this transaction are not active yet, those apart among them.
        drafted = [
            draft
            for draft in self._uow.schedule.drafts.values()
            if draft.dag is dag and draft.state is None and not draft.collecting
        ]
        others = sum(not draft.apart for draft in drafted if draft.refused is None)
        return room_for(
            work.row["max_active"],
            work.active,
            limit=dag.version.spec.max_active_runs,
            others=dag.active - dag.apart + others,
            waiting=dag.queued,
        )
