"""Timers of schedules: ticks, deadlines, and ends of collecting; decided purely.

The conditions that a timer concerns are loaded before; see `needs_open_conditions`.
"""

from collections.abc import Container, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import count

from msgspec import Struct

from pubsubflow.manager.schedules.consuming import WHOLE
from pubsubflow.manager.schedules.firing import Scheduler, run_key_of, runs_once
from pubsubflow.manager.unit_of_work import UnitOfWork
from pubsubflow.manager.working_state import ConditionWork, LockedDag
from pubsubflow.model.schedule.condition_state import (
    clamp_moments,
    collecting_until,
    deadline_due,
    decide,
    has_run,
)
from pubsubflow.model.schedule.conditions import (
    Latest,
    OrAfter,
    Tick,
    alternatives,
    deadlines,
    ticks,
)
from pubsubflow.model.schedule.timetable import OnceSpec, latest_tick, next_tick
from pubsubflow.model.wire.commands import Timer

# Postgres keeps microseconds, so a timer may be due that much before its float says.
_INSTANT = 1e-6
_MOMENT = timedelta(microseconds=1)
_PUNCTUAL = timedelta(seconds=1)
HELD_TICK = "held_tick"
"""The kind of a timer that is not due while its DAG is paused or missing: its first tick then."""


class DueTick(Struct, frozen=True):
    """A tick that is due.

    Attributes:
        slots: The timetables of the schedule that tick at this moment: they count together.
    """

    moment: datetime
    slots: frozenset[int] = frozenset()

    def run_key(self, partition: str = WHOLE) -> str:
        """Return the key under which the tick's run exists once."""
        return f"tick:{self.moment.isoformat()}" + (f":{partition}" if partition else "")


class ScheduleTimers:
    """Acts on the due timers of locked DAGs.

    Args:
        uow: What the transaction changes.
        scheduler: Makes runs.
    """

    def __init__(self, uow: UnitOfWork, scheduler: Scheduler) -> None:
        self._uow = uow
        self._scheduler = scheduler

    def next_tick(self, dag: LockedDag, timer: Timer) -> DueTick | None:
        """Set the timer of the next tick, and return the tick that is due.

        Without catch-up only the latest of several missed ticks counts, also of timetables that `|`
        joins; with catch-up the ticks of a pause wait for its end, those of a DAG that is missing
        do always.

        Returns:
            None when the DAG has no such timetable any more, is paused or missing, or a later tick
            counts.
        """
        part = find_tick(dag, timer.node or 0)
        if part is None:
            return None
        spec = dag.version.spec
        tick, now = timer.due_at, self._uow.now
        # The only tick there is waits as those do that are caught up with.
        once = isinstance(part.timetable, OnceSpec)
        pause_holds = (spec.catchup or once) and spec.on_pause == "hold"
        if pause_holds if dag.paused else dag.missing:
            self._uow.timers.append(Timer(tick, HELD_TICK, dag.id, node=part.slot))
            return None
        # Others were missed while no daemon ran, or while the clock was behind.
        if not spec.catchup:
            tick = latest_tick(part.timetable, tick, now, spec.start, spec.end) or tick
        following = next_tick(part.timetable, tick, spec.start, spec.end)
        if following is not None:
            self._uow.timers.append(Timer(following, "tick", dag.id, node=part.slot))
        return None if dag.paused else self._due_tick(dag, part, tick)

    def _due_tick(self, dag: LockedDag, part: Tick, tick: datetime) -> DueTick | None:
        spec, schedule = dag.version.spec, dag.version.schedule
        if schedule is None:
            return None
        # A daemon that runs is never that late: the tick was missed, and a later one counts.
        missed = self._uow.now - tick > _PUNCTUAL and not isinstance(part.timetable, OnceSpec)
        if missed and not spec.catchup:
            for other in alternatives(schedule.condition, part.slot):
                following = next_tick(other.timetable, tick, spec.start, spec.end)
                if following is not None and following <= self._uow.now:
                    return None
        before = tick - _MOMENT
        together = frozenset(
            each.slot
            for each in ticks(schedule.condition)
            if next_tick(each.timetable, before, spec.start, spec.end) == tick
        )
        return DueTick(tick, together | {part.slot})

    def conditions_at_tick(self, dag: LockedDag) -> list[ConditionWork]:
        """Return the conditions that a tick concerns: the whole, or all open partitions."""
        if needs_open_conditions(dag):
            return dag.open_conditions
        return [self._scheduler.condition(dag, WHOLE)]

    def tick(self, dag: LockedDag, due: DueTick, existing: Container[str] = ()) -> None:
        """Decide at a tick.

        Args:
            dag: The DAG.
            due: The tick.
            existing: Keys of runs that exist already.
        """
        schedule = dag.version.schedule
        if schedule is None:
            return
        for condition in self.conditions_at_tick(dag):
            if due.run_key(condition.key) in existing or has_run(schedule, condition.state):
                continue
            condition.changed = True
            state = condition.state
            clamp_moments(state, self._uow.now.timestamp())
            state.watermark = max(state.watermark, due.moment.timestamp())
            firing = decide(schedule, state, ticked=due.slots)
            if firing is None:
                continue
            cause = f"its time came: {due.moment.isoformat()}"
            self._scheduler.fire(dag, condition, firing, due.run_key(), cause, due.moment)
            self._scheduler.set_deadlines(dag, condition)

    def condition_due(self, dag: LockedDag, timer: Timer, existing: Container[str] = ()) -> None:
        """Act on a deadline, or on the end of collecting, of a condition that is still there.

        Args:
            dag: The DAG.
            timer: What is due.
            existing: Those of `deadline_keys` under which there are runs.
        """
        condition = dag.conditions.get(timer.key or WHOLE)
        if condition is None:
            return
        clamp_moments(condition.state, self._uow.now.timestamp())
        if timer.kind == "late":
            self._deadline(dag, condition, timer.node or 0, existing)
        else:
            self._collected(dag, condition)

    def deadline_keys(self, dag: LockedDag, timer: Timer, numbers: Iterable[int]) -> list[str]:
        """Return the keys of the run of a deadline, of which it gets the first that is free."""
        condition, part = dag.conditions.get(timer.key or WHOLE), _find_deadline(dag, timer.node)
        due = None if condition is None or part is None else deadline_due(part, condition.state)
        if condition is None or part is None or due is None or runs_once(dag):
            return []
        return [
            run_key_of(dag, condition, _deadline_key(part.slot, due, number)) for number in numbers
        ]

    def _deadline(
        self, dag: LockedDag, condition: ConditionWork, slot: int, existing: Container[str]
    ) -> None:
        """Run with what is there, or drop it, if the deadline has passed."""
        schedule = dag.version.schedule
        part = _find_deadline(dag, slot)
        if schedule is None or part is None:
            return
        condition.changed = True
        state = condition.state
        state.timers[slot] = False
        due = deadline_due(part, state)
        if dag.held or state.late[slot] or due is None or has_run(schedule, state):
            return
        # Its first event may have been consumed and another have come: then it runs later.
        if due <= self._uow.now.timestamp() + _INSTANT:
            firing = decide(schedule, state, late=slot)
            if firing is not None:
                run_key = self._free_key(dag, condition, slot, due, existing)
                cause = "the missing inputs are late"
                self._scheduler.fire(dag, condition, firing, run_key, cause)
        self._scheduler.set_deadlines(dag, condition)

    def _free_key(
        self,
        dag: LockedDag,
        condition: ConditionWork,
        slot: int,
        due: float,
        existing: Container[str],
    ) -> str:
        # Runs of this transaction have no row yet.
        drafts = self._uow.schedule.drafts.values()
        made = {each.run_key for each in drafts if each.dag is dag}
        for number in count(1):
            found = _deadline_key(slot, due, number)
            key = run_key_of(dag, condition, found)
            if runs_once(dag) or not (key in made or key in existing):
                return found
        raise AssertionError

    def _collected(self, dag: LockedDag, condition: ConditionWork) -> None:
        """Start a run that has collected events for long enough."""
        schedule = dag.version.schedule
        if dag.held or not condition.state.collecting_run or schedule is None:
            return
        if isinstance(schedule.policy, Latest):
            if not dag.busy:
                self._scheduler.flush(dag, condition)
            return
        due = collecting_until(schedule.policy, condition.state)
        if due > self._uow.now.timestamp() + _INSTANT:
            self._scheduler.set_flush(dag, condition, due)
        else:
            self._scheduler.flush(dag, condition)

    def resume(
        self,
        dag: LockedDag,
        conditions: Iterable[ConditionWork],
        held: Mapping[int, datetime],
    ) -> None:
        """Set the timers of a DAG that was paused or missing anew: some were due meanwhile.

        Args:
            dag: The DAG.
            conditions: Those in which something is pending or a run collects.
            held: Slot of a timetable → the first tick that was held until now.
        """
        for slot, moment in held.items():
            self._uow.timers.append(Timer(moment, "tick", dag.id, node=slot))
        for condition in conditions:
            condition.changed = True
            condition.state.timers = [False] * len(condition.state.timers)
            self._scheduler.set_deadlines(dag, condition)
            if condition.state.collecting_run:
                self._scheduler.set_flush(dag, condition, self._uow.now.timestamp())


def needs_open_conditions(dag: LockedDag) -> bool:
    """Whether a tick concerns all open partitions, rather than the condition as a whole."""
    schedule = dag.version.schedule
    return schedule is not None and schedule.partitioning is not None


def find_tick(dag: LockedDag, slot: int) -> Tick | None:
    """Return the tick of a slot in the schedule in force, if there is one."""
    schedule = dag.version.schedule
    if schedule is None:
        return None
    return next((part for part in ticks(schedule.condition) if part.slot == slot), None)


def _deadline_key(slot: int, due: float, number: int) -> str:
    # By the deadline: a replay of the same events gives the same key. If that came before the run
    # of the deadline itself, a number tells them apart: what is pending is never left.
    key = f"late:{slot}:{datetime.fromtimestamp(due, UTC).isoformat()}"
    return key if number == 1 else f"{key}:{number}"


def _find_deadline(dag: LockedDag, slot: int | None) -> OrAfter | None:
    schedule = dag.version.schedule
    if schedule is None:
        return None
    return next((part for part in deadlines(schedule.condition) if part.slot == slot), None)
