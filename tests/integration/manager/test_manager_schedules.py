"""Schedules under a clock of our own: pauses, versions, partitions and the past, step by step."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from pubsubflow.errors import InvalidInput
from pubsubflow.manager.batch import BatchProcessor
from pubsubflow.model.schedule.conditions import (
    AllOf,
    Batch,
    DatasetInput,
    Debounce,
    Latest,
    OrAfter,
    ScheduleSpec,
    Tick,
)
from pubsubflow.model.schedule.partitions import FanOut, Partitioning, RollUp
from pubsubflow.model.schedule.timetable import CronSpec, IntervalSpec
from pubsubflow.model.wire.commands import (
    Backfill,
    FireTimers,
    RecordEvents,
    RedriveDeadLetter,
    Replay,
    SetPaused,
    StartRun,
    Timer,
)  # fmt: skip
from pubsubflow.model.wire.messages import NewEvent
from pubsubflow.store.catalog import Catalog
from support.harness import Harness, process_batch
from support.specs import condition, dag, loaded, task, uri

pytestmark = pytest.mark.anyio

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
ONCE = Partitioning(again="never")
BOTH = condition("x & y")


class ScheduleHarness(Harness):
    """One DAG, `d`, and a clock that stands still unless it is moved."""

    def __init__(self, database):
        super().__init__(database, bus=None)
        self.time = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(days=1)
        self.start = self.time
        self.processor = BatchProcessor(now=lambda: self.time)
        self.catalog = Catalog(database, now=lambda: self.time)

    async def schedule(self, schedule: ScheduleSpec | None, **options) -> None:
        await self.catalog.save([loaded(dag("d", task("t"), schedule=schedule, **options))])

    async def call(self, *commands):
        return (await process_batch(self.database, self.processor, *commands))[-1]

    async def post(
        self, name: str, partition: str | None = None, age: float | None = None, **extra
    ):
        moment = None if age is None else self.time - timedelta(seconds=age)
        return await self.call(
            RecordEvents((NewEvent(uri(name), extra, partition, moment),), (None,))
        )

    async def pass_time(self, seconds: float) -> None:
        """Pass the time, and fire the timers that are due by then."""
        self.time += timedelta(seconds=seconds)
        rows = await self.rows(
            "SELECT due_at, kind, dag, run, node, map_index, attempt, key, id FROM timer"
            " WHERE due_at <= $1 ORDER BY due_at, id", self.time,
        )  # fmt: skip
        if rows:
            await self.call(FireTimers(tuple(Timer(*row) for row in rows)))

    async def runs(self) -> list[tuple[str, int]]:
        """Return the kind of every run's key and the number of its events, in order."""
        found = await self.rows(
            "SELECT run_key, (SELECT count(*) FROM run_event WHERE run = run.id) FROM run"
            " WHERE state <> 'queued' ORDER BY created_at, id"
        )
        return [(key.split(":")[0], count) for key, count in found]

    async def outcomes(self) -> list[str]:
        return [
            outcome
            for (outcome,) in await self.rows("SELECT outcome FROM event_outcome ORDER BY event")
        ]


@pytest.fixture
async def harness(database):
    return ScheduleHarness(database)


# Time.


async def test_a_short_pause_brings_no_deadline_forward(harness):
    await harness.schedule(ScheduleSpec(OrAfter(0, BOTH, 3600)))
    await harness.post("x")
    await harness.call(SetPaused("d", paused=True))
    await harness.call(SetPaused("d", paused=False))
    await harness.pass_time(1800)
    assert await harness.runs() == []
    await harness.pass_time(1800)
    assert await harness.runs() == [("late", 1)]


async def test_a_deadline_that_passed_in_a_pause_is_met_after_it(harness):
    await harness.schedule(ScheduleSpec(OrAfter(0, BOTH, 60)))
    await harness.post("x")
    await harness.call(SetPaused("d", paused=True))
    await harness.pass_time(600)
    assert await harness.runs() == []
    await harness.call(SetPaused("d", paused=False))
    await harness.pass_time(0)
    assert await harness.runs() == [("late", 1)]


async def test_a_deadline_that_a_replay_has_met_before_loses_nothing(harness):
    await harness.schedule(ScheduleSpec(OrAfter(0, BOTH, 60)), max_active_runs=9)
    await harness.post("x")
    harness.time += timedelta(seconds=90)  # its timer is late
    plan = await harness.call(Replay("d", harness.start))
    assert len(plan.runs) == 1
    await harness.pass_time(0)
    assert await harness.runs() == [("late", 1)] * 2
    keys = [key for (key,) in await harness.rows("SELECT run_key FROM run ORDER BY id")]
    assert keys[1] == f"{keys[0]}:2"
    assert await harness.rows("SELECT * FROM pending_event") == []
    assert [each.exists for each in (await harness.call(Replay("d", harness.start))).runs] == [True]


@pytest.mark.parametrize("policy", [Batch(10, 60), Debounce(60)])
async def test_neither_a_pause_nor_a_new_version_ends_collecting_early(harness, policy):
    await harness.schedule(ScheduleSpec(condition("x"), policy))
    await harness.post("x")
    await harness.call(SetPaused("d", paused=True))
    await harness.call(SetPaused("d", paused=False))
    await harness.schedule(ScheduleSpec(condition("x | y"), policy))
    await harness.pass_time(30)
    assert await harness.runs() == []
    await harness.pass_time(30)
    assert await harness.runs() == [("dataset", 1)]


async def test_filtered_events_are_no_noise(harness):
    busy = DatasetInput(0, uri("x"), where="event.extra.v > 0")
    await harness.schedule(ScheduleSpec(busy, Debounce(60)))
    await harness.post("x", v=1)
    await harness.pass_time(50)
    await harness.post("x", v=0)
    await harness.pass_time(10)
    assert await harness.runs() == [("dataset", 1)]


async def test_what_is_late_runs_at_the_next_tick(harness):
    await harness.schedule(ScheduleSpec(AllOf((OrAfter(0, BOTH, 60), Tick(0, IntervalSpec(600))))))
    await harness.post("x")
    await harness.pass_time(60)
    assert await harness.runs() == []
    await harness.pass_time(600)
    assert await harness.runs() == [("tick", 1)]


async def test_a_tick_finds_old_events_too_old(harness):
    recent = DatasetInput(0, uri("x"), within_seconds=300)
    await harness.schedule(ScheduleSpec(AllOf((recent, Tick(0, IntervalSpec(600))))))
    await harness.post("x", age=400)
    await harness.pass_time(600)
    assert await harness.runs() == []
    await harness.pass_time(590)
    await harness.post("x")
    await harness.pass_time(10)
    assert await harness.runs() == [("tick", 1)]
    assert await harness.outcomes() == ["expired"]


async def test_deadlines_leave_no_heap_of_timers(harness):
    await harness.schedule(ScheduleSpec(OrAfter(0, BOTH, 3600)), max_active_runs=100)
    for _ in range(20):
        await harness.post("x")
        await harness.post("y")
    assert await harness.rows("SELECT count(*) FROM timer") == [(1,)]
    await harness.pass_time(1800)
    await harness.post("x")
    await harness.pass_time(1800)  # the first one's timer: its run was made long ago
    assert len(await harness.runs()) == 20
    await harness.pass_time(1800)
    assert (await harness.runs())[20:] == [("late", 1)]


async def test_a_dag_that_is_gone_starts_nothing_and_goes_on_when_it_returns(harness):
    await harness.schedule(ScheduleSpec(OrAfter(0, BOTH, 60)))
    await harness.post("x")
    await harness.catalog.remove(["d.py"])
    await harness.pass_time(600)
    assert await harness.runs() == []
    await harness.schedule(ScheduleSpec(OrAfter(0, BOTH, 60)))
    await harness.pass_time(0)  # it decides about what waited, and sets its deadlines anew
    await harness.pass_time(0)
    assert await harness.runs() == [("late", 1)]


async def test_a_new_version_knows_how_old_pending_events_are(harness):
    await harness.schedule(ScheduleSpec(BOTH))
    await harness.post("x", age=90)
    await harness.post("x", age=10)
    recent = DatasetInput(0, uri("x"), within_seconds=60)
    await harness.schedule(ScheduleSpec(AllOf((recent, DatasetInput(1, uri("y"))))))
    await harness.post("y")
    assert await harness.runs() == [("dataset", 2)]
    assert await harness.outcomes() == ["expired"]


# One run after the other.


async def test_the_latest_is_not_stuck_behind_a_run_that_was_refused(harness):
    await harness.schedule(
        ScheduleSpec(condition("x"), Latest()),
        params={"v": 0},
        params_from={"v": "event.extra.v"},
    )
    events = (NewEvent(uri("x")), NewEvent(uri("x"), {"v": 1}))
    await harness.call(RecordEvents(events, (None, None)))
    assert await harness.runs() == [("dataset", 1)]
    assert await harness.outcomes() == ["dead"]


async def test_unpausing_does_not_start_a_second_run_of_the_latest(harness):
    await harness.schedule(ScheduleSpec(condition("x"), Latest()))
    await harness.post("x")
    await harness.post("x")
    await harness.call(SetPaused("d", paused=True))
    await harness.call(SetPaused("d", paused=False))
    await harness.pass_time(0)
    assert await harness.runs() == [("dataset", 1)]


async def test_a_collected_run_that_is_refused_leaves_its_events_dead_in_their_partition(harness):
    await harness.schedule(
        ScheduleSpec(condition("x"), Batch(9, 60), partitioning=Partitioning()),
        params={"v": 0},
        params_from={"v": "event.extra.v"},
    )
    await harness.post("x", "p")
    await harness.pass_time(60)
    assert await harness.rows("SELECT partition_key, outcome FROM event_outcome") == [("p", "dead")]
    assert await harness.rows("SELECT count(*) FROM run") == [(0,)]


# Partitions.


async def test_a_rerun_opens_a_round_for_ordinary_events_too(harness):
    await harness.schedule(ScheduleSpec(BOTH, partitioning=ONCE))
    for name in "xyxy":
        await harness.post(name, "p")
    assert await harness.runs() == [("partition", 2)]
    await harness.post("x", "p", rerun=True)
    await harness.post("y", "p")
    assert await harness.runs() == [("partition", 2), ("partition", 2)]
    assert await harness.outcomes() == ["skipped", "skipped"]


async def test_a_partition_that_was_backfilled_has_run(harness):
    await harness.schedule(ScheduleSpec(condition("x"), partitioning=ONCE))
    planned = (await harness.call(Backfill("d", partitions=("p", "p")))).runs
    assert [each.run_key for each in planned] == ["partition:p:1"]
    await harness.post("x", "p")
    assert await harness.runs() == [("partition", 0)]
    assert await harness.outcomes() == ["skipped"]


async def test_a_backfilled_partition_consumes_what_waited_for_it(harness):
    await harness.schedule(ScheduleSpec(BOTH, partitioning=ONCE))
    await harness.post("x", "p")
    await harness.post("x", "q")
    await harness.call(Backfill("d", partitions=("p",)))
    await harness.post("y", "p")
    assert await harness.runs() == [("partition", 1)]
    assert await harness.rows("SELECT partition_key FROM pending_event") == [("q",)]
    assert await harness.outcomes() == ["skipped"]
    await harness.post("y", "q")
    assert await harness.runs() == [("partition", 1), ("partition", 2)]


async def test_a_dry_run_of_a_backfill_takes_nothing(harness):
    await harness.schedule(ScheduleSpec(BOTH, partitioning=ONCE))
    await harness.post("x", "p")
    await harness.call(Backfill("d", partitions=("p",), dry_run=True))
    await harness.post("y", "p")
    assert await harness.runs() == [("partition", 2)]


@pytest.mark.parametrize("other", [None, ScheduleSpec(condition("x"))], ids=["none", "whole"])
async def test_a_partition_that_has_run_has_run_whatever_the_schedule_was_meanwhile(harness, other):
    partitioned = ScheduleSpec(condition("x"), partitioning=ONCE)
    await harness.schedule(partitioned)
    await harness.post("x", "p")
    await harness.schedule(other)
    await harness.schedule(partitioned)
    await harness.post("x", "p")
    await harness.post("x", "q")
    assert await harness.runs() == [("partition", 1), ("partition", 1)]
    assert await harness.outcomes() == ["skipped"]


async def test_a_key_of_the_wrong_kind_poisons_nothing(harness):
    by = Partitioning(by_uri={uri("y"): RollUp("day", "hour")})
    await harness.schedule(ScheduleSpec(BOTH, partitioning=by))
    for partition in ("nonsense", "9999-12-31T23Z", "", None, "p" * 5000):
        for name in "xy":
            answer = await harness.post(name, partition)
            assert not isinstance(answer, Exception)
    assert await harness.runs() == []


async def test_many_held_events_fan_out_at_once(harness):
    fan_out = Partitioning(FanOut("day", "hour"))
    await harness.schedule(ScheduleSpec(condition("x"), partitioning=fan_out))
    await harness.call(SetPaused("d", paused=True))
    days = [(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=n)).date() for n in range(50)]
    events = tuple(NewEvent(uri("x"), partition=day.isoformat()) for day in days)
    await harness.call(RecordEvents(events, (None,) * 50))
    await harness.call(SetPaused("d", paused=False))
    assert await harness.rows("SELECT count(*) FROM run") == [(1200,)]
    planned = (await harness.call(Replay("d", LONG_AGO))).runs
    assert (len(planned), {each.exists for each in planned}) == (1200, {True})


# The past.


async def test_a_replay_leaves_held_events_to_the_dag(harness):
    await harness.schedule(ScheduleSpec(condition("x")))
    await harness.call(SetPaused("d", paused=True))
    await harness.post("x")
    plan = await harness.call(Replay("d", LONG_AGO))
    assert (plan.runs, "unpaused" in plan.reason) == ([], True)
    await harness.call(SetPaused("d", paused=False))
    assert await harness.runs() == [("dataset", 1)]


async def test_a_partition_that_was_replayed_has_run(harness):
    await harness.schedule(ScheduleSpec(condition("x | y")))
    await harness.post("x", "p")
    await harness.schedule(ScheduleSpec(condition("x | y"), partitioning=ONCE))
    planned = (await harness.call(Replay("d", LONG_AGO))).runs
    assert [(each.run_key, each.exists) for each in planned] == [("partition:p:1", False)]
    await harness.post("y", "p")
    assert await harness.runs() == [("dataset", 1), ("partition", 1)]
    assert await harness.outcomes() == ["skipped"]


async def at(harness, second: int, name: str, partition: str | None = None):
    """Post an event at a second of the scenario; return its id."""
    harness.time = harness.start + timedelta(seconds=second)
    return (await harness.post(name, partition))[0].event_id


async def planned_at(harness, since: int, until: int | None = None):
    bounds = [
        harness.start + timedelta(seconds=each) for each in (since, until) if each is not None
    ]
    return (await harness.call(Replay("d", *bounds, dry_run=True))).runs


async def test_a_replay_of_a_window_that_cuts_a_pair_makes_its_run_and_no_other(harness):
    ids = [await at(harness, 10 * n, name) for n, name in enumerate("xyxyxy")]
    harness.time += timedelta(seconds=1)
    await harness.schedule(ScheduleSpec(BOTH))
    pairs = [tuple(ids[n : n + 2]) for n in (0, 2, 4)]
    for since, until, expected in (
        (0, None, pairs),
        (5, None, pairs),  # after the first x: its run's last event is inside
        (15, None, pairs[1:]),
        (15, 45, pairs[1:2]),  # the third pair ends after the window
        (15, 25, []),
    ):
        planned = await planned_at(harness, since, until)
        assert [each.events for each in planned] == expected, (since, until)
    await harness.call(Replay("d", harness.start + timedelta(seconds=15)))
    assert await harness.runs() == [("dataset", 2), ("dataset", 2)]


async def test_a_replay_knows_how_old_an_event_was_by_those_before_the_window(harness):
    first = await at(harness, 100, "x")
    harness.time += timedelta(seconds=10)
    await harness.post("x", age=100)
    harness.time += timedelta(seconds=1)
    await harness.schedule(ScheduleSpec(DatasetInput(0, uri("x"), within_seconds=40)))
    assert [each.events for each in await planned_at(harness, 0)] == [(first,)]
    assert await planned_at(harness, 105) == []


async def test_a_replay_acts_on_deadlines_at_their_time(harness):
    ids = [await at(harness, second, name) for second, name in ((0, "x"), (100, "x"), (110, "y"))]
    harness.time += timedelta(seconds=1)
    await harness.schedule(ScheduleSpec(OrAfter(0, BOTH, 60, "run")))
    planned = await planned_at(harness, 0)
    assert [each.events for each in planned] == [(ids[0],), (ids[1], ids[2])]


@pytest.mark.parametrize("policy", [Batch(9, 60), Debounce(60)])
async def test_a_replay_collects_what_came_together(harness, policy):
    ids = [await at(harness, second, "x") for second in (0, 30, 200, 230)]
    harness.time += timedelta(seconds=100)
    await harness.schedule(ScheduleSpec(condition("x"), policy))
    planned = await planned_at(harness, 20, 210)
    assert [each.events for each in planned] == [(ids[0], ids[1])]
    planned = await planned_at(harness, 20)
    assert [each.events for each in planned] == [(ids[0], ids[1]), (ids[2], ids[3])]


async def test_a_backfill_lists_and_consumes_what_is_pending_for_its_key(harness):
    await harness.schedule(ScheduleSpec(BOTH, partitioning=Partitioning()))
    ids = [await at(harness, n, "x", key) for n, key in enumerate("ppq")]
    for dry_run in (True, False):
        plan = await harness.call(Backfill("d", partitions=("p",), dry_run=dry_run))
        assert [each.events for each in plan.runs] == [tuple(ids[:2])]
    assert await harness.rows("SELECT partition_key FROM pending_event") == [("q",)]
    await at(harness, 10, "y", "p")
    plan = await harness.call(Backfill("d", partitions=("p",)))
    assert ([each.exists for each in plan.runs], plan.reason) == (
        [True], "partition p has run already; `again` makes it once more"
    )  # fmt: skip
    plan = await harness.call(Backfill("d", partitions=("p",), again=True))
    assert [len(each.events) for each in plan.runs] == [1]
    assert await harness.rows("SELECT partition_key FROM pending_event") == [("q",)]


async def test_a_backfill_of_a_partition_that_cannot_be_is_refused(harness):
    by_day = Partitioning(RollUp("day", "hour"))
    await harness.schedule(ScheduleSpec(condition("x"), partitioning=by_day))
    refused = await harness.call(Backfill("d", partitions=("2026-01-01", "November")))
    assert "no partition 'November'" in str(refused)
    assert await harness.runs() == []


async def test_a_replay_or_a_backfill_without_runs_says_why(harness):
    await harness.schedule(ScheduleSpec(BOTH))
    assert "no event" in (await harness.call(Replay("d", LONG_AGO))).reason
    await at(harness, 0, "x")
    reason = (await harness.call(Replay("d", LONG_AGO))).reason
    assert reason == "none of the 1 event of that time made its condition hold"
    await at(harness, 1, "y")
    reason = (await harness.call(Replay("d", LONG_AGO))).reason
    assert reason == "the run exists already; `again` makes it once more"
    await harness.schedule(ScheduleSpec(Tick(0, CronSpec("0 16 * * *"))))
    day = datetime(2026, 1, 1, tzinfo=UTC)
    plan = await harness.call(Backfill("d", since=day, until=day + timedelta(hours=1)))
    assert plan.reason == "no tick lies in that time: the next one is 2026-01-01T16:00:00+00:00"


async def test_a_tick_and_its_backfill_in_one_transaction_are_one_run(harness):
    await harness.schedule(ScheduleSpec(Tick(0, IntervalSpec(600))))
    harness.time += timedelta(seconds=600)
    [row] = await harness.rows("SELECT due_at, kind, dag, node, id FROM timer WHERE kind = 'tick'")
    timer = Timer(*row[:3], node=row[3], number=row[4])
    backfill = Backfill("d", since=row[0], until=harness.time + timedelta(seconds=1))
    harness.time += timedelta(seconds=1)
    await harness.call(backfill, FireTimers((timer,)))
    assert await harness.runs() == [("tick", 0)]


async def test_a_dead_letter_names_its_inputs_and_is_redriven_once(harness):
    schedule = ScheduleSpec(condition("(x & y) | (x & z)"))
    await harness.schedule(schedule, params={"v": 0}, params_from={"v": "event.extra.v"})
    await harness.post("x")
    await harness.post("y")
    [(number, payload)] = await harness.rows("SELECT id, payload FROM dead_letter")
    edited = msgspec.json.decode(payload) | {"run_key": "mine"}
    refused = await harness.call(RedriveDeadLetter(number, msgspec.json.encode(edited)))
    assert isinstance(refused, InvalidInput)
    edited = msgspec.json.decode(payload) | {"params": {"v": 5}}
    run_id = await harness.call(RedriveDeadLetter(number, msgspec.json.encode(edited)))
    assert await harness.runs() == [("dataset", 2)]
    assert await harness.rows("SELECT input FROM run_event ORDER BY input") == [(0,), (1,)]
    assert await harness.rows("SELECT input FROM pending_event") == [(2,)]
    assert isinstance(await harness.call(RedriveDeadLetter(number)), InvalidInput)
    assert await harness.rows("SELECT run_id::text FROM run") == [(run_id,)]


async def test_a_dead_letter_whose_run_was_replayed_names_that_run(harness):
    await harness.schedule(
        ScheduleSpec(condition("x")), params={"v": 0}, params_from={"v": "event.extra.v"}
    )
    await harness.post("x")
    await harness.schedule(ScheduleSpec(condition("x")), params={"v": 0})
    [planned] = (await harness.call(Replay("d", LONG_AGO))).runs
    [(number,)] = await harness.rows("SELECT id FROM dead_letter")
    assert await harness.call(RedriveDeadLetter(number)) == planned.run_id
    assert await harness.runs() == [("dataset", 1)]


@pytest.mark.parametrize("key", ["dataset:1", "partition:p:1", "tick:2026", "late:1"])
async def test_keys_that_schedules_give_are_not_for_callers(harness, key):
    await harness.schedule(None)
    assert isinstance(await harness.call(StartRun("d", run_key=key)), InvalidInput)
