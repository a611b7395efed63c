"""A clock that is wrong for a while: afterwards schedules, waits and timers go on as before."""

import time
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from pubsubflow.model.schedule.conditions import (
    AllOf,
    Batch,
    DatasetInput,
    ScheduleSpec,
)
from pubsubflow.model.schedule.timetable import CronSpec, IntervalSpec
from pubsubflow.model.wire.commands import StartRun
from pubsubflow.model.wire.messages import Outcome, encode
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.model.wire.waits import Wait, WaitSet
from pubsubflow.store.clock import StoreClock
from pubsubflow.store.read.timers import Timers
from pubsubflow.timers import TimerService
from pubsubflow.timers.service import TimerSettings
from support.harness import running, running_managers
from support.specs import dag, task, uri

pytestmark = pytest.mark.anyio

YEAR = timedelta(days=365)
FAR = "interval '1 year'"
COUNT_RUNS = "SELECT count(*) FROM run"


class Skew:
    """How wrong the clock is.

    Attributes:
        by: What it shows too much.
    """

    by = timedelta(0)


@pytest.fixture
def skew(monkeypatch):
    skew, right = Skew(), StoreClock.now
    monkeypatch.setattr(StoreClock, "now", lambda clock: right(clock) + skew.by)
    return skew


@pytest.fixture
async def harness(skew, database, bus, nats):
    async with running_managers(database, bus, nats) as harness:
        harness.automatic = lambda order: [order.result()]
        yield harness


@asynccontextmanager
async def timers(harness, **settings):
    service = TimerService(
        timers=Timers(harness.database),
        bus=harness.bus,
        commands=harness.managers[0],
        settings=TimerSettings(safety_seconds=0.1, **settings),
        now=harness.managers[0].clock.now,
    )
    async with running(service):
        yield


async def until_more_runs(harness, more=2):
    before = await harness.value(COUNT_RUNS)

    async def found():
        return await harness.value(COUNT_RUNS) >= before + more

    await harness.until(found)


@pytest.mark.parametrize("by", [YEAR, -YEAR])
async def test_ticks_go_on_after_the_clock_was_wrong(harness, skew, by):
    await harness.load(dag("d", task("a"), timetable=IntervalSpec(0.2)))
    async with timers(harness):
        await until_more_runs(harness)
        skew.by = by
        if by > timedelta(0):
            await until_more_runs(harness)
        else:
            harness.bus.publish(Subjects.TIMERS_CHANGED, b"")
            await harness.bus.flush()
        skew.by = timedelta(0)
        await until_more_runs(harness, more=3)


@pytest.mark.parametrize("timetable", [IntervalSpec(0.2), CronSpec("* * * * *")])
async def test_a_tick_that_is_too_far_ahead_is_due_at_the_next_one(harness, timetable):
    """As a daemon finds it that starts after the clock was set."""
    await harness.load(dag("d", task("a"), timetable=timetable))
    due = "SELECT due_at FROM timer WHERE kind = 'tick'"
    right = await harness.value(due)
    await harness.rows(f"UPDATE timer SET due_at = due_at + {FAR}")
    async with timers(harness):
        await harness.until_value(f"{due} AND due_at < now() + interval '2 minutes'")
    assert await harness.value(due) >= right


@pytest.mark.parametrize("by", [YEAR, -YEAR])
async def test_events_are_recent_after_the_clock_was_wrong(harness, skew, by):
    recent = DatasetInput(0, uri("a"), within_seconds=3600)
    condition = AllOf((recent, DatasetInput(1, uri("b"))))
    await harness.load(dag("d", task("t"), schedule=ScheduleSpec(condition)))
    skew.by = by
    await harness.post("a1")
    skew.by = timedelta(0)
    await harness.post("a2", "b1", "a3", "b2")
    await harness.until_states("success", "success")


async def test_timers_that_were_set_by_a_clock_that_was_ahead_are_brought_back(harness):
    schedule = ScheduleSpec(DatasetInput(0, uri("a")), Batch(100, 0.2))
    await harness.load(dag("d", task("t"), schedule=schedule))
    await harness.post("a1")
    await harness.rows(f"UPDATE timer SET due_at = due_at + {FAR}, set_at = set_at + {FAR}")
    async with timers(harness):
        await harness.until_states("success")


async def test_a_wait_for_an_event_that_began_when_the_clock_was_ahead_begins_now(harness):
    waits = WaitSet("0", "it", (Wait("event", uri("x")),))
    results = iter([(Outcome.DEFERRED, encode(waits)), (Outcome.SUCCESS, b"")])

    def answer(order):
        outcome, wait_set = next(results)
        return [order.result(outcome, wait_set=wait_set)]

    harness.automatic = answer
    await harness.load(dag("d", task("a")))
    await harness.call(StartRun("d"))
    await harness.until_value("SELECT 1 FROM event_wait")
    await harness.rows(f"UPDATE event_wait SET since = since + {FAR}")
    async with timers(harness):
        await harness.until_value("SELECT 1 FROM event_wait WHERE since < now()")
        await harness.post("x1")
        await harness.until_states("success")


async def test_daemons_decide_by_the_clock_of_postgres(database):
    clock = StoreClock(wall=lambda: time.time() + YEAR.total_seconds())
    async with database.connection() as connection:
        await clock.read(connection)
        there = await connection.fetchval("SELECT clock_timestamp()")
    assert abs(clock.now() - there) < timedelta(seconds=5)
