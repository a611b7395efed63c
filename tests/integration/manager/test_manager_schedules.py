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
from pubsubflow.model.schedule.timetable import IntervalSpec
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
    planned = await harness.call(Backfill("d", partitions=("p", "p")))
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
    planned = await harness.call(Replay("d", LONG_AGO))
    assert (len(planned), {each.exists for each in planned}) == (1200, {True})


# The past.


async def test_a_replay_leaves_held_events_to_the_dag(harness):
    await harness.schedule(ScheduleSpec(condition("x")))
    await harness.call(SetPaused("d", paused=True))
    await harness.post("x")
    assert await harness.call(Replay("d", LONG_AGO)) == []
    await harness.call(SetPaused("d", paused=False))
    assert await harness.runs() == [("dataset", 1)]


async def test_a_partition_that_was_replayed_has_run(harness):
    await harness.schedule(ScheduleSpec(condition("x | y")))
    await harness.post("x", "p")
    await harness.schedule(ScheduleSpec(condition("x | y"), partitioning=ONCE))
    planned = await harness.call(Replay("d", LONG_AGO))
    assert [(each.run_key, each.exists) for each in planned] == [("partition:p:1", False)]
    await harness.post("y", "p")
    assert await harness.runs() == [("dataset", 1), ("partition", 1)]
    assert await harness.outcomes() == ["skipped"]


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
    [planned] = await harness.call(Replay("d", LONG_AGO))
    [(number,)] = await harness.rows("SELECT id FROM dead_letter")
    assert await harness.call(RedriveDeadLetter(number)) == planned.run_id
    assert await harness.runs() == [("dataset", 1)]


@pytest.mark.parametrize("key", ["dataset:1", "partition:p:1", "tick:2026", "late:1"])
async def test_keys_that_schedules_give_are_not_for_callers(harness, key):
    await harness.schedule(None)
    assert isinstance(await harness.call(StartRun("d", run_key=key)), InvalidInput)
