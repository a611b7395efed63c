"""Replays of past events."""

from collections.abc import Sequence

from pubsubflow.errors import InvalidInput
from pubsubflow.manager.persistence.load import ConditionStates, IdAllocator, load_events
from pubsubflow.manager.schedules.admission import Admission
from pubsubflow.manager.schedules.dag_states import LAST
from pubsubflow.manager.schedules.firing import Scheduler
from pubsubflow.manager.schedules.rehearsal import Rehearsal, needs_past
from pubsubflow.manager.spec_cache import SpecCache
from pubsubflow.manager.unit_of_work import UnitOfWork
from pubsubflow.manager.working_state import LockedDag, LoggedEvent, RunDraft
from pubsubflow.model.schedule.conditions import ScheduleSpec
from pubsubflow.model.wire.commands import PlannedRun, Replay, RunPlan
from pubsubflow.store.batches.manager_transaction import ManagerTransaction

_MAX_EVENTS = 50_000


class Replays:
    """Replays for locked DAGs; what they make is admitted like any other run.

    Args:
        uow: What the transaction changes.
        transaction: Reads past events.
        specs: DAG versions.
        run_ids: Gives run ids.
        scheduler: Makes runs.
        admission: Knows which exist.
        conditions: Loads states of conditions.
    """

    def __init__(
        self,
        uow: UnitOfWork,
        transaction: ManagerTransaction,
        specs: SpecCache,
        run_ids: IdAllocator,
        *,
        scheduler: Scheduler,
        admission: Admission,
        conditions: ConditionStates,
    ) -> None:
        self._uow = uow
        self._transaction = transaction
        self._specs = specs
        self._run_ids = run_ids
        self._scheduler = scheduler
        self._admission = admission
        self._conditions = conditions

    async def replay(self, dag: LockedDag, command: Replay) -> RunPlan:
        """Decide a DAG's past events once more; make the runs whose last event is in the window.

        Those that the DAG has not decided yet, as it is paused, are left to it.

        Raises:
            InvalidInput: The DAG subscribes to nothing, or the range holds too many events.
        """
        if dag.version.schedule is None or not dag.version.inputs:
            raise InvalidInput(f"DAG {dag.version.spec.dag_id!r} subscribes to no dataset")
        events, inside = await self._read_events(dag, dag.version.schedule, command)
        uow = UnitOfWork(self._uow.now)
        scheduler = self._scheduler.elsewhere(uow)
        rehearsal = Rehearsal(dag.version, scheduler, uow, command.since)
        for event in events:
            rehearsal.receive(event)
        rehearsal.go_to(self._uow.now)
        drafts = rehearsal.runs(command.since, command.until, command.dataset)
        planned = await self._make(dag, drafts, again=command.again, dry_run=command.dry_run)
        why = _why_none(planned) or self._why_no_run(dag, planned, inside)
        rows = await self._transaction.fetch("read_events_pruned_until")
        if rows and rows[0]["until"] > command.since:
            moment = rows[0]["until"].isoformat(timespec="seconds")
            why = "; ".join(filter(None, (why, f"events recorded before {moment} were pruned")))
        return RunPlan(planned, why)

    def _why_no_run(self, dag: LockedDag, planned: Sequence[PlannedRun], events: int) -> str | None:
        if planned:
            return None
        if dag.catch_up_from is not None and not events:
            return "it has not decided the events of that time yet: they wait for it to be unpaused"
        if not events:
            return "no event of its datasets was recorded in that time"
        plural = "s" if events > 1 else ""
        return f"none of the {events} event{plural} of that time made its condition hold"

    async def _read_events(
        self, dag: LockedDag, schedule: ScheduleSpec, command: Replay
    ) -> tuple[list[LoggedEvent], int]:
        """Return the events of a window and those that its runs may need; count the former."""
        last = LAST if dag.catch_up_from is None else dag.catch_up_from
        window = await self._transaction.fetch(
            "read_events_between", dag.id, command.since, command.until, _MAX_EVENTS + 1, last
        )
        if len(window) > _MAX_EVENTS:
            raise InvalidInput(f"more than {_MAX_EVENTS} events: choose a shorter time")
        rows = list(window)
        if needs_past(schedule):
            before = await self._transaction.fetch(
                "read_events_before", dag.id, command.since, _MAX_EVENTS, last
            )
            rows = [*before, *rows]
            if command.until is not None:
                rows += await self._transaction.fetch(
                    "read_events_between", dag.id, command.until, None, _MAX_EVENTS, last
                )
        return await load_events(rows, self._specs, self._transaction), len(window)

    async def _make(
        self, dag: LockedDag, drafts: Sequence[RunDraft], *, again: bool, dry_run: bool
    ) -> list[PlannedRun]:
        """Make the runs that do not exist yet; return all, as they are or would be."""
        await self._run_ids.reserve(self._transaction, len(drafts))
        existing = await self._admission.existing(dag, [draft.run_key for draft in drafts])
        await self._conditions.load((dag, draft.condition_key) for draft in drafts)
        planned = []
        for draft in drafts:
            known = existing.get(draft.run_key)
            make = known is None or again
            # Run keys are unique for good, so the new run gets another.
            if known is not None and again:
                draft.run_key = f"{draft.run_key}:again:{draft.run_id}"
            events = [each.event.info.event_id for each in draft.events]
            if make and not dry_run:
                self._begin(draft, dag)
            planned.append(
                PlannedRun(
                    draft.run_key,
                    str(draft.run_id) if make and not dry_run else known,
                    not make,
                    draft.logical_time,
                    draft.partition,
                    tuple(dict.fromkeys(events)),
                )
            )
        return planned

    def _begin(self, draft: RunDraft, dag: LockedDag) -> None:
        draft.dag = dag
        draft.collecting = False
        if draft.kind == "dataset":
            draft.kind = "replay"
            draft.cause = f"replay: {draft.cause}"
        if draft.condition_key:
            condition = self._scheduler.condition(dag, draft.condition_key)
            state = condition.state
            state.firings = max(state.firings, draft.firings)
            state.max_firings = max(state.max_firings, state.firings)
            condition.changed = True
        self._scheduler.begin(draft)


def _why_none(planned: Sequence[PlannedRun]) -> str | None:
    """Return why no planned run is new, if there are some."""
    if not planned or not all(each.exists for each in planned):
        return None
    if len(planned) > 1:
        return f"all {len(planned)} runs exist already; `again` makes them once more"
    key = planned[0].partition
    subject = "the run exists" if key is None else f"partition {key} has run"
    return f"{subject} already; `again` makes it once more"
