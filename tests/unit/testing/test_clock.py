"""The virtual clock, and triggers that run on it."""

from datetime import UTC, datetime, timedelta

import anyio
import pytest

from pubsubflow import DAG, Context, Dataset, task
from pubsubflow.model.triggers import Trigger, TriggerEvent
from pubsubflow.testing import JumpingClock, VirtualClock, event, first_events, simulate

pytestmark = pytest.mark.anyio


class Every(Trigger, frozen=True, kw_only=True):
    seconds: float
    times: int = 1_000

    async def run(self, ctx):
        moment = ctx.now()
        for _ in range(self.times):
            moment += timedelta(seconds=self.seconds)
            await ctx.sleep_until(moment)
            yield TriggerEvent(ctx.now().isoformat())


async def test_sleepers_wake_at_their_own_moments_in_order():
    clock = VirtualClock()
    start, woken = clock.now(), []

    async def sleeps(seconds, times):
        for _ in range(times):
            await clock.sleep_until(clock.now() + timedelta(seconds=seconds))
            woken.append((seconds, (clock.now() - start).total_seconds()))

    async with anyio.create_task_group() as group:
        group.start_soon(sleeps, 3, 2)
        group.start_soon(sleeps, 2, 3)
        await clock.advance(5)
        assert woken == [(2, 2), (3, 3), (2, 4)]
        assert clock.now() == start + timedelta(seconds=5)
        await clock.advance(timedelta(seconds=1))
    assert sorted(woken[3:]) == [(2, 6), (3, 6)]


async def test_a_moment_that_has_passed_needs_no_waiting():
    clock = VirtualClock()
    await clock.sleep_until(clock.now())
    assert clock.next_wakeup() is None


async def test_first_events_never_wait_for_time():
    found = await first_events(Every(seconds=3600), 2)
    assert [each.payload for each in found] == [
        "2026-01-01T01:00:00+00:00",
        "2026-01-01T02:00:00+00:00",
    ]


async def test_a_trigger_that_ends_gives_what_it_had():
    assert len(await first_events(Every(seconds=1, times=2), 5)) == 2


async def test_a_clock_of_ones_own():
    clock = JumpingClock()
    await first_events(Every(seconds=60), 3, ctx=clock)
    assert clock.now() == VirtualClock().now() + timedelta(minutes=3)


async def test_trigger_beside_an_advancing_clock():
    clock, seen = VirtualClock(), []

    async def watch():
        async for each in Every(seconds=10, times=3).run(clock):
            seen.append(each)  # noqa: PERF401 - watched while it grows

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        await clock.advance(25)
        assert len(seen) == 2
        await clock.advance(5)
    assert len(seen) == 3


async def test_events_are_normalised():
    made = event("S3://Lake/orders/", extra={"pair": (1, 2)}, partition="11")
    assert (made.dataset, made.extra, made.partition) == (
        "s3://lake/orders",
        {"pair": [1, 2]},
        "11",
    )


async def test_an_event_without_a_time_happens_on_the_clock_of_its_test():
    then = datetime(2030, 1, 1, tzinfo=UTC)

    @task
    def look(ctx: Context):
        (one,) = ctx.events["x://a"]
        return [one.time, one.dataset, one]

    with DAG("d", schedule=Dataset("x://a")) as made:
        look()
    run = await made.atest(events=[event("x://a")], now=then)
    time, dataset, whole = run.result("look")
    assert (time, dataset, whole["dataset"]) == (then, "x://a", "x://a")
    (simulated,) = simulate(made, [then, event("x://a")])
    assert simulated.events[0].time == then
    dated = event("x://a", time=then - timedelta(days=1))
    (simulated,) = simulate(made, [then, dated])
    assert simulated.events == (dated,)
