"""Schedules of the manager without servers: events in, drafted runs out."""

from datetime import UTC, datetime, timedelta
from itertools import count
from uuid import uuid4

import pytest

from pubsubflow.manager.schedules.consuming import WHOLE, route
from pubsubflow.manager.schedules.firing import Scheduler
from pubsubflow.manager.schedules.timers import ScheduleTimers
from pubsubflow.manager.spec_cache import DagVersion
from pubsubflow.manager.unit_of_work import UnitOfWork
from pubsubflow.manager.working_state import LockedDag, new_event
from pubsubflow.model.schedule.conditions import (
    AllOf,
    AnyOf,
    Batch,
    DatasetInput,
    Debounce,
    Latest,
    OrAfter,
    ScheduleSpec,
    Tick,
)
from pubsubflow.model.schedule.partitions import Partitioning
from pubsubflow.model.schedule.timetable import IntervalSpec
from pubsubflow.model.wire.commands import Timer
from pubsubflow.model.wire.messages import EventInfo
from support.specs import condition, dag, task, uri

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Played:
    """A locked DAG, its scheduler and its unit of work."""

    def __init__(self, schedule: ScheduleSpec | str, **options) -> None:
        if isinstance(schedule, str):
            schedule = ScheduleSpec(condition(schedule))
        self.uow = UnitOfWork(NOW)
        self.dag = LockedDag.idle(
            DagVersion(1, 7, dag("d", task("t"), schedule=schedule, **options))
        )
        self._ids = count(1)
        self.scheduler = Scheduler(self.uow, new_id=uuid4, allocate_id=lambda: next(self._ids))
        self.timers = ScheduleTimers(self.uow, self.scheduler)
        self._events = count(1)

    def post(self, *names: str, time: datetime = NOW, partition=None, **extra) -> None:
        for name in names:
            info = EventInfo(str(uuid4()), uri(name), extra, partition, time, "api")
            event = new_event(info, now=self.uow.now)
            event.id = next(self._events)
            self.scheduler.receive_event(route(event, self.dag))

    @property
    def started(self) -> list[list[int]]:
        """Return the ids of the events of every run that was made, and no longer collects."""
        return [
            [each.event.id for each in draft.events]
            for draft in self.uow.schedule.drafts.values()
            if not draft.collecting
        ]

    @property
    def outcomes(self) -> list[tuple[int, str, str]]:
        return [(each.event.id, each.outcome, each.reason) for each in self.uow.schedule.outcomes]

    def fire(self, timer: Timer) -> None:
        self.uow.now = timer.due_at
        self.uow.timers.remove(timer)
        self.timers.condition_due(self.dag, timer)

    def run_ends(self) -> None:
        """End the active run, as the manager and `simulate()` do."""
        self.dag.end_run()
        if self.dag.starts_latest:
            self.scheduler.start_latest(self.dag)

    def admit(self) -> None:
        for draft in self.uow.schedule.drafts.values():
            if not draft.collecting and draft.state is None:
                self.dag.unadmitted -= 1
                draft.state = self.dag.admit()


def test_every_satisfaction_is_a_run_that_consumes_what_held():
    played = Played("(a & b) | (a & c)")
    played.post("a", "b", "c")
    assert played.started == [[1, 2], [1, 3]]
    assert [draft.run_key.startswith("dataset:") for draft in _drafts(played)] == [True, True]


def test_an_event_is_pending_in_every_input_that_it_matches():
    played = Played("a & a")
    played.post("a")
    assert played.started == [[1, 1]]


def test_a_filter_refuses_events_with_its_reason():
    schedule = ScheduleSpec(DatasetInput(0, uri("a"), where="event.extra.n > 1"))
    played = Played(schedule)
    played.post("a", n=1)
    played.post("a", n=2)
    assert played.started == [[2]]
    ((event, outcome, _),) = played.outcomes
    assert (event, outcome) == (1, "filtered")


def test_a_paused_dag_holds_from_the_first_event_on_or_skips():
    held = Played("a")
    held.dag.paused = True
    held.post("a", "a")
    assert (held.dag.catch_up_from, held.started, held.outcomes) == (1, [], [])
    skipping = Played("a", on_pause="skip")
    skipping.dag.paused = True
    skipping.post("a")
    assert skipping.dag.catch_up_from is None
    assert skipping.outcomes == [(1, "skipped", "the DAG was paused")]


def test_an_event_that_is_too_old_when_the_condition_holds_expires():
    sides = (DatasetInput(0, uri("a"), within_seconds=60), DatasetInput(1, uri("b")))
    schedule = ScheduleSpec(AllOf(sides))
    played = Played(schedule)
    played.uow.now = NOW + timedelta(hours=1)
    played.post("a", time=NOW)
    played.post("a", time=NOW + timedelta(hours=1))
    played.post("b", time=NOW + timedelta(hours=1))
    assert played.started == [[2, 3]]
    assert played.outcomes == [(1, "expired", "too old when the condition held")]


def test_a_batch_starts_when_it_has_enough_or_has_waited():
    played = Played(ScheduleSpec(condition("a"), Batch(max_events=2, linger_seconds=10)))
    played.post("a")
    assert played.started == []
    (timer,) = played.uow.timers
    assert (timer.kind, timer.due_at) == ("flush", NOW + timedelta(seconds=10))
    played.post("a")
    assert played.started == [[1, 2]]
    played.post("a")
    played.fire(played.uow.timers[-1])
    assert played.started == [[1, 2], [3]]


def test_a_debounced_run_waits_on_while_events_come():
    played = Played(ScheduleSpec(condition("a"), Debounce(quiet_seconds=5)))
    played.post("a")
    (timer,) = played.uow.timers
    played.uow.now = NOW + timedelta(seconds=3)
    played.post("a")
    played.fire(timer)
    assert played.started == []
    (timer,) = played.uow.timers
    assert timer.due_at == NOW + timedelta(seconds=8)
    played.fire(timer)
    assert played.started == [[1, 2]]


def test_while_a_run_is_active_the_latest_policy_collects_one_next_run():
    played = Played(ScheduleSpec(condition("a"), Latest()))
    played.post("a")
    played.admit()
    played.post("a", "a")
    assert played.started == [[1]]
    played.run_ends()
    assert played.started == [[1], [2, 3]]


def test_a_partition_runs_once_unless_it_is_asked_to_rerun():
    schedule = ScheduleSpec(condition("a"), partitioning=Partitioning(again="never"))
    played = Played(schedule)
    played.post("a", partition="x")
    played.post("a", partition="x")
    played.post("a", partition="x", rerun=True)
    assert played.started == [[1], [3]]
    assert played.outcomes == [(2, "skipped", "partition x has run")]
    assert [draft.run_key for draft in _drafts(played)] == ["partition:x:1", "partition:x:2"]


def test_each_satisfaction_within_a_partition_is_a_run():
    schedule = ScheduleSpec(condition("(a & b) | c"), partitioning=Partitioning())
    played = Played(schedule)
    for name in "acb":
        played.post(name, partition="x")
    assert played.started == [[2], [1, 3]]
    keys = [draft.run_key for draft in _drafts(played)]
    assert all(key.startswith("dataset:") and key.endswith(":x") for key in keys)


@pytest.mark.parametrize("again", ["each", "never"])
@pytest.mark.parametrize("policy", [Debounce(3), Batch(10, 3)])
def test_a_partitions_run_collects_until_it_starts(policy, again):
    played = Played(ScheduleSpec(condition("a"), policy, Partitioning(again=again)))
    for partition in ("x", "y", "x", "x"):
        played.post("a", partition=partition)
    while played.uow.timers:
        played.fire(played.uow.timers[0])
    assert played.started == [[1, 3, 4], [2]]
    played.post("a", partition="x")
    skipped = [(5, "skipped", "partition x has run")]
    assert played.outcomes == (skipped if again == "never" else [])


def test_what_is_pending_when_a_partition_has_run_for_good_is_skipped():
    schedule = ScheduleSpec(condition("(a & b) | c"), partitioning=Partitioning(again="never"))
    played = Played(schedule)
    for name in "acb":
        played.post(name, partition="x")
    assert played.started == [[2]]
    assert played.outcomes == [
        (1, "skipped", "partition x has run"), (3, "skipped", "partition x has run")
    ]  # fmt: skip
    assert not played.dag.conditions["x"].state.open


def test_an_event_without_a_partition_reaches_no_partitioned_condition():
    played = Played(ScheduleSpec(condition("a"), partitioning=Partitioning()))
    played.post("a")
    assert played.started == []
    assert played.outcomes == [(1, "skipped", "the event has no partition")]


@pytest.mark.parametrize(("then", "expected"), [("run", [[1]]), ("skip", [])])
def test_a_deadline_runs_with_what_is_there_or_drops_it(then, expected):
    side = condition("a & b")
    played = Played(ScheduleSpec(OrAfter(0, side, 60, then)))
    played.post("a")
    (timer,) = played.uow.timers
    assert (timer.kind, timer.due_at) == ("late", NOW + timedelta(seconds=60))
    played.fire(timer)
    assert played.started == expected
    dropped = [(1, "skipped", "the missing inputs were late")] if then == "skip" else []
    assert played.outcomes == dropped


def test_of_several_missed_ticks_only_the_latest_counts_without_catch_up():
    timetable = IntervalSpec(60)
    for catchup, minute in ((False, 3), (True, 1)):
        played = Played(ScheduleSpec(Tick(0, timetable)), catchup=catchup, start=NOW)
        played.uow.now = NOW + timedelta(minutes=3, seconds=1)
        due = played.timers.next_tick(
            played.dag, Timer(NOW + timedelta(minutes=1), "tick", 7, node=0)
        )
        assert due.moment == NOW + timedelta(minutes=minute)
        played.timers.tick(played.dag, due)
        (draft,) = _drafts(played)
        assert (draft.kind, draft.logical_time, draft.events) == ("cron", due.moment, [])
        (following,) = played.uow.timers
        assert following.due_at == due.moment + timedelta(minutes=1)


def test_of_the_missed_ticks_of_two_timetables_only_the_latest_counts_without_catch_up():
    both = AnyOf((Tick(0, IntervalSpec(9)), Tick(1, IntervalSpec(11))))
    played = Played(ScheduleSpec(both), start=NOW)
    played.uow.now = NOW + timedelta(seconds=14)
    due = [
        played.timers.next_tick(played.dag, Timer(NOW + timedelta(seconds=at), "tick", 7, node=n))
        for n, at in enumerate((9, 11))
    ]
    assert [each and each.moment for each in due] == [None, NOW + timedelta(seconds=11)]


def test_a_missed_tick_of_another_leg_counts_for_itself():
    """Its leg has inputs of its own, which nothing else consumes."""
    legs = AnyOf((Tick(0, IntervalSpec(9)), AllOf((Tick(1, IntervalSpec(100)), condition("a")))))
    played = Played(ScheduleSpec(legs), start=NOW)
    played.uow.now = NOW + timedelta(seconds=109)
    missed = Timer(NOW + timedelta(seconds=100), "tick", 7, node=1)
    assert played.timers.next_tick(played.dag, missed).moment == missed.due_at


def test_timetables_that_tick_at_one_moment_count_together_and_once():
    both = AnyOf((Tick(0, IntervalSpec(60)), Tick(1, IntervalSpec(90))))
    played = Played(ScheduleSpec(both), start=NOW)
    for node in range(2):
        due = played.timers.next_tick(played.dag, Timer(NOW, "tick", 7, node=node))
        made = {draft.run_key for draft in _drafts(played)}
        played.timers.tick(played.dag, due, made)
    assert played.started == [[]]
    assert due.slots == {0, 1}


def test_a_tick_whose_run_exists_makes_none():
    played = Played(ScheduleSpec(Tick(0, IntervalSpec(60))), start=NOW)
    due = played.timers.next_tick(played.dag, Timer(NOW, "tick", 7, node=0))
    played.timers.tick(played.dag, due, existing={due.run_key()})
    assert played.started == []


def test_a_paused_dag_lets_its_ticks_pass_and_sets_the_next():
    played = Played(ScheduleSpec(Tick(0, IntervalSpec(60))), start=NOW)
    played.dag.paused = True
    assert played.timers.next_tick(played.dag, Timer(NOW, "tick", 7, node=0)) is None
    assert len(played.uow.timers) == 1


def test_with_catch_up_the_ticks_of_a_pause_are_held_for_its_end():
    played = Played(ScheduleSpec(Tick(0, IntervalSpec(60))), start=NOW, catchup=True)
    played.dag.paused = True
    assert played.timers.next_tick(played.dag, Timer(NOW, "tick", 7, node=0)) is None
    (held,) = played.uow.timers
    assert (held.kind, held.due_at) == ("held_tick", NOW)
    played.uow.timers.clear()
    played.dag.paused = False
    played.timers.resume(played.dag, [], {0: NOW})
    (tick,) = played.uow.timers
    assert (tick.kind, tick.due_at) == ("tick", NOW)


def test_what_is_stored_is_consumed_by_the_place_that_holds_it():
    played = Played("a & b")
    pending = played.scheduler.condition(played.dag, WHOLE)
    pending.state.inputs[0].count = pending.stored[0] = 2
    played.post("b")
    (draft,) = _drafts(played)
    assert (draft.stored_inputs, draft.stored_events) == ([(WHOLE, 0)], 2)
    assert [each.input for each in draft.events] == [1]


def test_runs_over_the_limit_are_queued_in_order():
    played = Played("a", max_active_runs=1)
    played.post("a", "a")
    played.admit()
    assert [draft.state for draft in _drafts(played)] == ["running", "queued"]
    assert (played.dag.active, played.dag.queued) == (1, 1)


def _drafts(played: Played) -> list:
    return list(played.uow.schedule.drafts.values())
