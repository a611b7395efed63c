"""Firing of conditions: events become pending, conditions are decided, runs are drafted.

The decisions are pure: `model.schedule` makes them, the locked DAGs and their loaded conditions are
changed in memory, and nothing is read or written. `testing.simulate()` runs the same code.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from itertools import count
from uuid import UUID

from pubsubflow.manager.schedules.consuming import WHOLE, Consumption, KeyedInput, Routing
from pubsubflow.manager.unit_of_work import UnitOfWork
from pubsubflow.manager.working_state import ConditionWork, LockedDag, LoggedEvent, RunDraft
from pubsubflow.model.cel.expressions import filter_mismatch
from pubsubflow.model.schedule.condition_state import (
    Firing,
    add_event,
    collecting_until,
    consume,
    decide,
    has_run,
    new_condition_state,
    pending_inputs,
    start_deadlines,
)
from pubsubflow.model.schedule.conditions import Batch, Debounce, Latest, ScheduleSpec
from pubsubflow.model.wire.commands import Timer

RERUN = "rerun"
_HAS_RUN = "partition {} has run"


class Scheduler:
    """Decides which runs exist.

    Args:
        uow: What the transaction changes; every DAG given is locked and in it.
        new_id: Gives ids to runs, for outsiders.
        allocate_id: Gives run ids.
    """

    def __init__(
        self, uow: UnitOfWork, *, new_id: Callable[[], UUID], allocate_id: Callable[[], int]
    ) -> None:
        self._uow = uow
        self._consumption = Consumption(uow)
        self._new_id = new_id
        self._allocate_id = allocate_id

    def elsewhere(self, uow: UnitOfWork) -> "Scheduler":
        """Return one that works on another unit of work, where runs have ids that mean nothing."""
        return Scheduler(uow, new_id=self._new_id, allocate_id=partial(next, count(1)))

    def receive_event(self, routing: Routing) -> None:
        """Take a new event of a dataset that a DAG subscribes to."""
        dag, event = routing.dag, routing.event
        if dag.catch_up_from is not None:
            return  # it is decided about with all the others when the DAG catches up
        if not (dag.paused or dag.missing):
            self.offer(routing)
        elif not dag.paused or dag.version.spec.on_pause == "hold":
            dag.catch_up_from = event.id
            dag.changed = True
        else:
            self._refuse(routing, "the DAG was paused")

    def offer(self, routing: Routing) -> None:
        """Add an event to the inputs that it matches, and make the runs that then fire."""
        schedule = routing.dag.version.schedule
        if schedule is None:
            return
        if routing.refusal is not None:
            self._refuse(routing, routing.refusal)
        for key, matched in routing.inputs.items():
            condition = routing.dag.conditions.get(key) or self.condition(routing.dag, key)
            self._add(routing.dag, schedule, condition, matched, routing.event)

    def _refuse(self, routing: Routing, reason: str) -> None:
        dag, event = routing.dag, routing.event
        for each in dag.version.inputs_for(event.info.dataset):
            self._consumption.record(dag, event, each.index, WHOLE, "skipped", reason)

    def condition(self, dag: LockedDag, key: str) -> ConditionWork:
        """Return the state of a condition; one that is not stored yet is new."""
        if key not in dag.conditions:
            schedule = dag.version.schedule
            if schedule is None:
                raise TypeError("a DAG without a schedule has no condition")
            dag.conditions[key] = ConditionWork(key, new_condition_state(schedule, key or None))
        return dag.conditions[key]

    def _add(
        self,
        dag: LockedDag,
        schedule: ScheduleSpec,
        condition: ConditionWork,
        matched: list[KeyedInput],
        event: LoggedEvent,
    ) -> None:
        """Add an event to a condition, and decide."""
        if any(each.where is not None for each, _ in matched):
            matched = self._filter(dag, condition, matched, event)
        if not matched:
            return
        state = condition.state
        # A late part of a window must not double its run, unless its sender wants it.
        if schedule.partitioning is not None and has_run(schedule, state):
            if event.info.extra.get(RERUN) is not True:
                reason = _HAS_RUN.format(condition.key)
                for each, _ in matched:
                    key = condition.key
                    self._consumption.record(dag, event, each.index, key, "skipped", reason)
                return
            state.max_firings = state.firings + 1
        condition.changed = True
        now = state.last_event_at = self._uow.now.timestamp()
        moment = event.moment.timestamp()
        for each, key in matched:
            add_event(state, (each,), time=moment, now=now, key=key)
            condition.new_events[each.index].append(event)
        firing = decide(schedule, state)
        if firing is not None:
            cause = f"{event.info.dataset} was updated"
            self.fire(dag, condition, firing, f"dataset:{event.info.event_id}", cause)
        if state.timers:
            self.set_deadlines(dag, condition)

    def _filter(
        self,
        dag: LockedDag,
        condition: ConditionWork,
        matched: list[KeyedInput],
        event: LoggedEvent,
    ) -> list[KeyedInput]:
        """Return the inputs whose filter an event meets; record why not the others."""
        accepted = []
        for each, own in matched:
            refusal = filter_mismatch(each.where, event.info) if each.where is not None else None
            if refusal is None:
                accepted.append((each, own))
            else:
                key = condition.key
                self._consumption.record(dag, event, each.index, key, "filtered", refusal)
        return accepted

    def draft(
        self,
        dag: LockedDag,
        run_key: str,
        kind: str,
        cause: str,
        *,
        logical_time: datetime | None = None,
    ) -> RunDraft:
        """Return a run that something else than the DAG's condition makes; it has no id yet.

        Args:
            dag: Its DAG.
            run_key: The key under which it exists once.
            kind: `dataset`, `manual`, `backfill`.
            cause: One line for people: why it exists.
            logical_time: The tick that it stands for.
        """
        return RunDraft(
            0, self._new_id(), dag, run_key, kind, cause, self._uow.now, logical_time=logical_time
        )

    def begin(self, draft: RunDraft) -> None:
        """Make a drafted run: it is admitted when the batch's events are decided."""
        draft.id = self._allocate_id()
        draft.dag.unadmitted += 1
        self._uow.schedule.drafts[draft.id] = draft

    def fire(
        self,
        dag: LockedDag,
        condition: ConditionWork,
        firing: Firing,
        run_key: str,
        cause: str,
        tick: datetime | None = None,
    ) -> None:
        """Carry out a firing of a condition, by the schedule's policy.

        Args:
            dag: The DAG.
            condition: The condition.
            firing: What it does; its events are pending no longer.
            run_key: The key under which its run exists once; a partition adds its own.
            cause: One line for people: why the run exists.
            tick: The tick that the run stands for, if it came at one.
        """
        if firing.kind == "skip":
            reason = "the missing inputs were late"
            self._consumption.drop(dag, condition, firing.inputs, "skipped", reason)
            return
        state, drafts = condition.state, self._uow.schedule.drafts
        policy = dag.version.schedule.policy if dag.version.schedule is not None else None
        # A run of `latest` that finds none active does not collect: no end would start it.
        collects = isinstance(policy, Batch | Debounce) or (
            isinstance(policy, Latest) and bool(state.collecting_run or dag.busy)
        )
        if collects and state.collecting_run:
            draft = drafts[state.collecting_run]
        else:
            draft = RunDraft(
                self._allocate_id(),
                self._new_id(),
                dag,
                run_key_of(dag, condition, run_key, tick),
                "dataset" if tick is None else "cron",
                cause,
                self._uow.now,
                condition_key=condition.key,
                firings=state.firings,
                logical_time=tick,
                partition=condition.key or None,
                collecting=collects,
            )
            drafts[draft.id] = draft
            if collects:
                self._start_collecting(dag, condition, draft)
            else:
                dag.unadmitted += 1
        self._consumption.consume(dag, condition, firing.inputs, draft)
        state.collected += firing.events if collects else 0
        if isinstance(policy, Batch) and state.collected >= policy.max_events:
            self.flush(dag, condition)
        elif condition.key and not collects:
            self.skip_rest(dag, condition)

    def _start_collecting(self, dag: LockedDag, condition: ConditionWork, draft: RunDraft) -> None:
        """Collect events into a run; it exists at once, so no event is ever without an owner."""
        policy = dag.version.schedule.policy if dag.version.schedule is not None else None
        state = condition.state
        state.collecting_run, state.collected = draft.id, 0
        state.collecting_since = self._uow.now.timestamp()
        # `latest` needs no timer: the end of the active run starts it.
        if isinstance(policy, Batch | Debounce):
            self.set_flush(dag, condition, collecting_until(policy, state))

    def flush(self, dag: LockedDag, condition: ConditionWork) -> None:
        """Start the run that collects events."""
        draft = self._uow.schedule.drafts[condition.state.collecting_run]
        draft.collecting = False
        dag.unadmitted += 1
        condition.state.collecting_run = condition.state.collected = 0
        condition.changed = True
        self.skip_rest(dag, condition)

    def skip_rest(self, dag: LockedDag, condition: ConditionWork) -> None:
        """Skip what is pending in a partition that has run once and for all."""
        schedule = dag.version.schedule
        if schedule is not None and has_run(schedule, condition.state):
            pending = pending_inputs(schedule.condition, condition.state)
            inputs, _ = consume(condition.state, pending)
            reason = _HAS_RUN.format(condition.key)
            self._consumption.drop(dag, condition, inputs, "skipped", reason)

    def start_latest(self, dag: LockedDag) -> None:
        """Start the run that collected events while another one was active.

        The open conditions are loaded; `dag.starts_latest` says whether there may be such a run.
        """
        for condition in dag.open_conditions:
            if condition.state.collecting_run:
                self.flush(dag, condition)
                return

    def consume_pending(self, dag: LockedDag, condition: ConditionWork, draft: RunDraft) -> None:
        """Give a requested run all that is pending for a condition."""
        schedule = dag.version.schedule
        if schedule is None:
            return
        condition.changed = True
        inputs, _ = consume(condition.state, pending_inputs(schedule.condition, condition.state))
        self._consumption.consume(dag, condition, inputs, draft)
        self.set_deadlines(dag, condition)

    def set_flush(self, dag: LockedDag, condition: ConditionWork, due: float) -> None:
        """Set the timer at which a run has collected long enough; seconds since 1970."""
        self._uow.timers.append(
            Timer(
                datetime.fromtimestamp(due, UTC),
                "flush",
                dag.id,
                run=condition.state.collecting_run,
                key=condition.key,
            )
        )

    def set_deadlines(self, dag: LockedDag, condition: ConditionWork) -> None:
        """Set the timers of deadlines that have begun to run."""
        schedule = dag.version.schedule
        if schedule is None or not condition.state.timers:
            return
        for deadline in start_deadlines(schedule, condition.state):
            self._uow.timers.append(
                Timer(
                    datetime.fromtimestamp(deadline.due, UTC),
                    "late",
                    dag.id,
                    node=deadline.slot,
                    key=condition.key,
                )
            )


def run_key_of(
    dag: LockedDag, condition: ConditionWork, run_key: str, tick: datetime | None = None
) -> str:
    """Return the key of a run: that of its cause, or a number where a partition runs once."""
    if not condition.key:
        return run_key
    if tick is None and runs_once(dag):
        return f"partition:{condition.key}:{condition.state.firings}"
    return f"{run_key}:{condition.key}"


def runs_once(dag: LockedDag) -> bool:
    """Return whether each partition of a DAG runs once."""
    schedule = dag.version.schedule
    return (
        schedule is not None
        and schedule.partitioning is not None
        and schedule.partitioning.runs_once
    )
