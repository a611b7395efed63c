"""Schedules under a clock of our own: pauses, versions, partitions and the past, step by step."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from core_rig import carry_out
from dag_specs import condition, dag, loaded, task, uri

from pubsubflow.errors import InvalidInput
from pubsubflow.manager.batch import Fold
from pubsubflow.model.schedule.conditions import (
    AllOf,
    Batch,
    Debounce,
    Input,
    Latest,
    OrAfter,
    Schedule,
    Tick,
)
from pubsubflow.model.schedule.partitions import FanOut, Partitioning, RollUp
from pubsubflow.model.schedule.timetable import Every
from pubsubflow.model.wire.commands import (
    Backfill,
    PostEvents,
    Replay,
    Resend,
    SetPaused,
    StartRun,
    Timer,
    TimersDue,
)  # fmt: skip
from pubsubflow.model.wire.messages import NewEvent
from pubsubflow.store.catalog import Catalog

pytestmark = pytest.mark.anyio

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
BOTH = condition("x & y")


class Story:
    """One DAG, `d`, and a clock that stands still unless it is moved."""

    def __init__(self, database):
        self.database = database
        self.time = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(days=1)
        self.fold = Fold(now=lambda: self.time)
        self.catalog = Catalog(database, now=lambda: self.time)

    async def schedule(self, schedule: Schedule | None, **options) -> None:
        await self.catalog.save([loaded(dag("d", task("t"), schedule=schedule, **options))])

    async def call(self, *calls):
        return (await carry_out(self.database, self.fold, *calls))[-1]

    async def post(
        self, name: str, partition: str | None = None, age: float | None = None, **extra
    ):
        moment = None if age is None else self.time - timedelta(seconds=age)
        return await self.call(
            PostEvents((NewEvent(uri(name), extra, partition, moment),), (None,))
        )

    async def later(self, seconds: float) -> None:
        """Let time pass, and the timers that are due by then fire."""
        self.time += timedelta(seconds=seconds)
        rows = await self.rows(
            "SELECT due_at, kind, dag, run, node, map_index, attempt, cell, id FROM timer"
            " WHERE due_at <= $1 ORDER BY due_at, id", self.time,
        )  # fmt: skip
        if rows:
            await self.call(TimersDue(tuple(Timer(*row) for row in rows)))

    async def rows(self, query: str, *arguments):
        async with self.database.connection() as connection:
            return [tuple(row) for row in await connection.fetch(query, *arguments)]

    async def runs(self) -> list[tuple[str, int]]:
        """Return the kind of every run's key and the number of its events, in order."""
        found = await self.rows(
            "SELECT run_key, (SELECT count(*) FROM run_event WHERE run = run.id) FROM run"
            " WHERE state <> 'queued' ORDER BY created_at, id"
        )
        return [(key.split(":")[0], count) for key, count in found]

    async def fates(self) -> list[str]:
        return [fate for (fate,) in await self.rows("SELECT fate FROM event_fate ORDER BY event")]


@pytest.fixture
async def story(database):
    return Story(database)


# Time.


async def test_a_short_pause_brings_no_deadline_forward(story):
    await story.schedule(Schedule(OrAfter(0, BOTH, 3600)))
    await story.post("x")
    await story.call(SetPaused("d", paused=True))
    await story.call(SetPaused("d", paused=False))
    await story.later(1800)
    assert await story.runs() == []
    await story.later(1800)
    assert await story.runs() == [("late", 1)]


async def test_a_deadline_that_passed_in_a_pause_is_met_after_it(story):
    await story.schedule(Schedule(OrAfter(0, BOTH, 60)))
    await story.post("x")
    await story.call(SetPaused("d", paused=True))
    await story.later(600)
    assert await story.runs() == []
    await story.call(SetPaused("d", paused=False))
    await story.later(0)
    assert await story.runs() == [("late", 1)]


@pytest.mark.parametrize("policy", [Batch(10, 60), Debounce(60)])
async def test_neither_a_pause_nor_a_new_version_ends_collecting_early(story, policy):
    await story.schedule(Schedule(condition("x"), policy))
    await story.post("x")
    await story.call(SetPaused("d", paused=True))
    await story.call(SetPaused("d", paused=False))
    await story.schedule(Schedule(condition("x | y"), policy))
    await story.later(30)
    assert await story.runs() == []
    await story.later(30)
    assert await story.runs() == [("dataset", 1)]


async def test_filtered_events_are_no_noise(story):
    busy = Input(0, uri("x"), where="event.extra.v > 0")
    await story.schedule(Schedule(busy, Debounce(60)))
    await story.post("x", v=1)
    await story.later(50)
    await story.post("x", v=0)
    await story.later(10)
    assert await story.runs() == [("dataset", 1)]


async def test_what_is_late_runs_at_the_next_tick(story):
    await story.schedule(Schedule(AllOf((OrAfter(0, BOTH, 60), Tick(0, Every(600))))))
    await story.post("x")
    await story.later(60)
    assert await story.runs() == []
    await story.later(600)
    assert await story.runs() == [("tick", 1)]


async def test_a_tick_finds_old_events_too_old(story):
    recent = Input(0, uri("x"), within_seconds=300)
    await story.schedule(Schedule(AllOf((recent, Tick(0, Every(600))))))
    await story.post("x", age=400)
    await story.later(600)
    assert await story.runs() == []
    await story.later(590)
    await story.post("x")
    await story.later(10)
    assert await story.runs() == [("tick", 1)]
    assert await story.fates() == ["expired"]


async def test_deadlines_leave_no_heap_of_timers(story):
    await story.schedule(Schedule(OrAfter(0, BOTH, 3600)), max_active_runs=100)
    for _ in range(20):
        await story.post("x")
        await story.post("y")
    assert await story.rows("SELECT count(*) FROM timer") == [(1,)]
    await story.later(1800)
    await story.post("x")
    await story.later(1800)  # the first one's timer: its run was made long ago
    assert len(await story.runs()) == 20
    await story.later(1800)
    assert (await story.runs())[20:] == [("late", 1)]


async def test_a_dag_that_is_gone_starts_nothing_and_goes_on_when_it_returns(story):
    await story.schedule(Schedule(OrAfter(0, BOTH, 60)))
    await story.post("x")
    await story.catalog.remove(["d.py"])
    await story.later(600)
    assert await story.runs() == []
    await story.schedule(Schedule(OrAfter(0, BOTH, 60)))
    await story.later(0)
    assert await story.runs() == [("late", 1)]


async def test_a_new_version_knows_how_old_pending_events_are(story):
    await story.schedule(Schedule(BOTH))
    await story.post("x", age=90)
    await story.post("x", age=10)
    recent = Input(0, uri("x"), within_seconds=60)
    await story.schedule(Schedule(AllOf((recent, Input(1, uri("y"))))))
    await story.post("y")
    assert await story.runs() == [("dataset", 2)]
    assert await story.fates() == ["expired"]


# One run after the other.


async def test_the_latest_is_not_stuck_behind_a_run_that_was_refused(story):
    await story.schedule(
        Schedule(condition("x"), Latest()),
        params={"v": 0},
        params_from={"v": "event.extra.v"},
    )
    events = (NewEvent(uri("x")), NewEvent(uri("x"), {"v": 1}))
    await story.call(PostEvents(events, (None, None)))
    assert await story.runs() == [("dataset", 1)]
    assert await story.fates() == ["dead"]


async def test_unpausing_does_not_start_a_second_run_of_the_latest(story):
    await story.schedule(Schedule(condition("x"), Latest()))
    await story.post("x")
    await story.post("x")
    await story.call(SetPaused("d", paused=True))
    await story.call(SetPaused("d", paused=False))
    await story.later(0)
    assert await story.runs() == [("dataset", 1)]


async def test_a_collected_run_that_is_refused_leaves_its_events_dead_in_their_partition(story):
    await story.schedule(
        Schedule(condition("x"), Batch(9, 60), partitioning=Partitioning()),
        params={"v": 0},
        params_from={"v": "event.extra.v"},
    )
    await story.post("x", "p")
    await story.later(60)
    assert await story.rows("SELECT cell, fate FROM event_fate") == [("p", "dead")]
    assert await story.rows("SELECT count(*) FROM run") == [(0,)]


# Partitions.


async def test_a_rerun_opens_a_round_for_ordinary_events_too(story):
    await story.schedule(Schedule(BOTH, partitioning=Partitioning()))
    for name in "xyxy":
        await story.post(name, "p")
    assert await story.runs() == [("partition", 2)]
    await story.post("x", "p", rerun=True)
    await story.post("y", "p")
    assert await story.runs() == [("partition", 2), ("partition", 2)]
    assert await story.fates() == ["skipped", "skipped"]


async def test_a_partition_that_was_backfilled_has_run(story):
    await story.schedule(Schedule(condition("x"), partitioning=Partitioning()))
    planned = await story.call(Backfill("d", partitions=("p", "p")))
    assert [each.run_key for each in planned] == ["partition:p:1"]
    await story.post("x", "p")
    assert await story.runs() == [("partition", 0)]
    assert await story.fates() == ["skipped"]


async def test_a_backfilled_partition_consumes_what_waited_for_it(story):
    await story.schedule(Schedule(BOTH, partitioning=Partitioning()))
    await story.post("x", "p")
    await story.post("x", "q")
    await story.call(Backfill("d", partitions=("p",)))
    await story.post("y", "p")
    assert await story.runs() == [("partition", 1)]
    assert await story.rows("SELECT cell FROM pending") == [("q",)]
    assert await story.fates() == ["skipped"]
    await story.post("y", "q")
    assert await story.runs() == [("partition", 1), ("partition", 2)]


async def test_a_dry_run_of_a_backfill_takes_nothing(story):
    await story.schedule(Schedule(BOTH, partitioning=Partitioning()))
    await story.post("x", "p")
    await story.call(Backfill("d", partitions=("p",), dry_run=True))
    await story.post("y", "p")
    assert await story.runs() == [("partition", 2)]


@pytest.mark.parametrize("other", [None, Schedule(condition("x"))], ids=["none", "whole"])
async def test_a_partition_that_has_run_has_run_whatever_the_schedule_was_meanwhile(story, other):
    partitioned = Schedule(condition("x"), partitioning=Partitioning())
    await story.schedule(partitioned)
    await story.post("x", "p")
    await story.schedule(other)
    await story.schedule(partitioned)
    await story.post("x", "p")
    await story.post("x", "q")
    assert await story.runs() == [("partition", 1), ("partition", 1)]
    assert await story.fates() == ["skipped"]


async def test_a_key_of_the_wrong_kind_poisons_nothing(story):
    by = Partitioning(by_uri={uri("y"): RollUp("day", "hour")})
    await story.schedule(Schedule(BOTH, partitioning=by))
    for partition in ("nonsense", "9999-12-31T23Z", "", None, "p" * 5000):
        for name in "xy":
            answer = await story.post(name, partition)
            assert not isinstance(answer, Exception)
    assert await story.runs() == []


async def test_many_held_events_fan_out_at_once(story):
    fan_out = Partitioning(FanOut("day", "hour"))
    await story.schedule(Schedule(condition("x"), partitioning=fan_out))
    await story.call(SetPaused("d", paused=True))
    days = [(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=n)).date() for n in range(50)]
    events = tuple(NewEvent(uri("x"), partition=day.isoformat()) for day in days)
    await story.call(PostEvents(events, (None,) * 50))
    await story.call(SetPaused("d", paused=False))
    assert await story.rows("SELECT count(*) FROM run") == [(1200,)]
    planned = await story.call(Replay("d", LONG_AGO))
    assert (len(planned), {each.exists for each in planned}) == (1200, {True})


# The past.


async def test_a_replay_leaves_held_events_to_the_dag(story):
    await story.schedule(Schedule(condition("x")))
    await story.call(SetPaused("d", paused=True))
    await story.post("x")
    assert await story.call(Replay("d", LONG_AGO)) == []
    await story.call(SetPaused("d", paused=False))
    assert await story.runs() == [("dataset", 1)]


async def test_a_partition_that_was_replayed_has_run(story):
    await story.schedule(Schedule(condition("x | y")))
    await story.post("x", "p")
    await story.schedule(Schedule(condition("x | y"), partitioning=Partitioning()))
    planned = await story.call(Replay("d", LONG_AGO))
    assert [(each.run_key, each.exists) for each in planned] == [("partition:p:1", False)]
    await story.post("y", "p")
    assert await story.runs() == [("dataset", 1), ("partition", 1)]
    assert await story.fates() == ["skipped"]


async def test_a_tick_and_its_backfill_in_one_transaction_are_one_run(story):
    await story.schedule(Schedule(Tick(0, Every(600))))
    story.time += timedelta(seconds=600)
    [row] = await story.rows("SELECT due_at, kind, dag, node, id FROM timer WHERE kind = 'tick'")
    timer = Timer(*row[:3], node=row[3], number=row[4])
    backfill = Backfill("d", since=row[0], until=story.time + timedelta(seconds=1))
    story.time += timedelta(seconds=1)
    await story.call(backfill, TimersDue((timer,)))
    assert await story.runs() == [("tick", 0)]


async def test_a_letter_names_its_places_and_is_sent_once(story):
    schedule = Schedule(condition("(x & y) | (x & z)"))
    await story.schedule(schedule, params={"v": 0}, params_from={"v": "event.extra.v"})
    await story.post("x")
    await story.post("y")
    [(number, payload)] = await story.rows("SELECT id, payload FROM dead_letter")
    edited = msgspec.json.decode(payload) | {"run_key": "mine"}
    refused = await story.call(Resend(number, msgspec.json.encode(edited)))
    assert isinstance(refused, InvalidInput)
    edited = msgspec.json.decode(payload) | {"params": {"v": 5}}
    run_id = await story.call(Resend(number, msgspec.json.encode(edited)))
    assert await story.runs() == [("dataset", 2)]
    assert await story.rows("SELECT place FROM run_event ORDER BY place") == [(0,), (1,)]
    assert await story.rows("SELECT place FROM pending") == [(2,)]
    assert isinstance(await story.call(Resend(number)), InvalidInput)
    assert await story.rows("SELECT run_id::text FROM run") == [(run_id,)]


async def test_a_letter_whose_run_was_replayed_names_that_run(story):
    await story.schedule(
        Schedule(condition("x")), params={"v": 0}, params_from={"v": "event.extra.v"}
    )
    await story.post("x")
    await story.schedule(Schedule(condition("x")), params={"v": 0})
    [planned] = await story.call(Replay("d", LONG_AGO))
    [(number,)] = await story.rows("SELECT id FROM dead_letter")
    assert await story.call(Resend(number)) == planned.run_id
    assert await story.runs() == [("dataset", 1)]


@pytest.mark.parametrize("key", ["dataset:1", "partition:p:1", "tick:2026", "late:1"])
async def test_keys_that_schedules_give_are_not_for_callers(story, key):
    await story.schedule(None)
    assert isinstance(await story.call(StartRun("d", run_key=key)), InvalidInput)
