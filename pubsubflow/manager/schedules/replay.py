"""Replays of past events, and backfills of past ticks and of partitions."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from pubsubflow.errors import InvalidInput
from pubsubflow.manager.inbox import check_key
from pubsubflow.manager.persistence.load import ConditionStates, IdAllocator, load_events
from pubsubflow.manager.schedules.admission import Admission
from pubsubflow.manager.schedules.consuming import route
from pubsubflow.manager.schedules.dag_states import LAST
from pubsubflow.manager.schedules.firing import Scheduler
from pubsubflow.manager.schedules.timers import DueTick
from pubsubflow.manager.spec_cache import SpecCache
from pubsubflow.manager.unit_of_work import UnitOfWork
from pubsubflow.manager.working_state import LockedDag, LoggedEvent, RunDraft
from pubsubflow.model.runs.params import validate_params
from pubsubflow.model.schedule.conditions import ticks
from pubsubflow.model.schedule.timetable import next_tick
from pubsubflow.model.wire.commands import Backfill, PlannedRun, Replay
from pubsubflow.store.manager_transaction import ManagerTransaction

_MAX_EVENTS = 50_000
_MAX_RUNS = 10_000
_MOMENT = timedelta(microseconds=1)


class Replays:
    """Replays and backfills of locked DAGs; what they make is admitted like any other run.

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

    async def replay(self, dag: LockedDag, command: Replay) -> list[PlannedRun]:
        """Decide a DAG's past events once more, from nothing pending.

        Those that the DAG has not decided yet, as it is paused, are left to it.

        Raises:
            InvalidInput: The DAG subscribes to nothing, or the range holds too many events.
        """
        if dag.version.schedule is None or not dag.version.inputs:
            raise InvalidInput(f"DAG {dag.version.spec.dag_id!r} subscribes to no dataset")
        rows = await self._transaction.fetch(
            "read_events_between",
            dag.id,
            command.since,
            command.until,
            command.dataset,
            _MAX_EVENTS + 1,
            LAST if dag.catch_up_from is None else dag.catch_up_from,
        )
        if len(rows) > _MAX_EVENTS:
            raise InvalidInput(f"more than {_MAX_EVENTS} events: choose a shorter time")
        events = await load_events(rows, self._specs, self._transaction)
        drafts = await self._rehearse(dag, events)
        return await self._make(dag, drafts, again=command.again, dry_run=command.dry_run)

    async def _rehearse(self, dag: LockedDag, events: Iterable[LoggedEvent]) -> list[RunDraft]:
        """Return the runs that events would make in a DAG where nothing is pending."""
        rehearsal = UnitOfWork(self._uow.now)
        scheduler = self._scheduler.elsewhere(rehearsal)
        idle = LockedDag.idle(dag.version)
        for event in events:
            routing = route(event, idle)
            if routing.refusal is None:
                await self._run_ids.reserve(self._transaction, len(routing.inputs))
                scheduler.offer(routing)
        return [draft for draft in rehearsal.schedule.drafts.values() if draft.events]

    async def backfill(self, dag: LockedDag, command: Backfill) -> list[PlannedRun]:
        """Make the runs of past ticks, or of partitions.

        Raises:
            InvalidInput: The DAG has no timetable, the params do not fit, or it would be too many.
        """
        params = validate_params(dag.version.spec, command.params)
        if command.partitions:
            drafts = self._of_partitions(dag, command.partitions)
        else:
            drafts = self._of_ticks(dag, command)
        for draft in drafts:
            draft.params = params
        return await self._make(dag, drafts, again=command.again, dry_run=command.dry_run)

    def _of_partitions(self, dag: LockedDag, partitions: Iterable[str]) -> list[RunDraft]:
        schedule = dag.version.schedule
        drafts = []
        for key in dict.fromkeys(partitions):
            check_key(key)
            cause = f"backfill of partition {key}"
            draft = self._scheduler.draft(dag, f"partition:{key}:1", "backfill", cause)
            draft.partition = key
            if schedule is not None and schedule.partitioning is not None:
                draft.condition_key, draft.firings = key, 1
            drafts.append(draft)
        return drafts

    def _of_ticks(self, dag: LockedDag, command: Backfill) -> list[RunDraft]:
        return [
            self._scheduler.draft(
                dag,
                DueTick(moment).run_key(),
                "backfill",
                f"backfill of {moment.isoformat()}",
                logical_time=moment,
            )
            for moment in self._moments(dag, command)
        ]

    def _moments(self, dag: LockedDag, command: Backfill) -> list[datetime]:
        schedule, spec = dag.version.schedule, dag.version.spec
        timed = list(ticks(schedule.condition)) if schedule is not None else []
        if not timed or command.since is None:
            raise InvalidInput(
                f"DAG {spec.dag_id!r} has no Cron or Every, or no --from was given: "
                "name the partitions instead"
            )
        until = min(command.until or self._uow.now, self._uow.now)
        found: set[datetime] = set()
        for part in timed:
            moment = next_tick(part.timetable, command.since - _MOMENT, spec.start, spec.end)
            while moment is not None and moment < until:
                found.add(moment)
                if len(found) > _MAX_RUNS:
                    raise InvalidInput(f"more than {_MAX_RUNS} runs: choose a shorter time")
                moment = next_tick(part.timetable, moment, spec.start, spec.end)
        return sorted(found)

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
            if make and not dry_run:
                self._begin(draft, dag)
            planned.append(
                PlannedRun(
                    draft.run_key,
                    str(draft.run_id) if make and not dry_run else known,
                    known is not None and not again,
                    draft.logical_time,
                    draft.partition,
                    tuple(str(each.event.event_id) for each in draft.events),
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
            if draft.kind == "backfill" and state.firings < draft.firings:
                self._scheduler.consume_pending(dag, condition, draft)
            state.firings = max(state.firings, draft.firings)
            state.max_firings = max(state.max_firings, state.firings)
            condition.changed = True
        self._scheduler.begin(draft)
