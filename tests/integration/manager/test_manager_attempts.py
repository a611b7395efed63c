"""Attempts: retries, crashes, fences, timeouts, cancellation."""

from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial

import anyio
import msgspec
import pytest

from pubsubflow.errors import InvalidInput, NotFound
from pubsubflow.model.ids import new_id
from pubsubflow.model.runs.retry import MAX_CRASHES
from pubsubflow.model.schedule.timetable import IntervalSpec
from pubsubflow.model.spec import RetryPolicy
from pubsubflow.model.wire.commands import CancelRun, StartRun
from pubsubflow.model.wire.messages import StartedMessage, TaskError, decode_cancel
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.catalog import Catalog
from pubsubflow.store.read.timers import Timers
from pubsubflow.timers import TimerService
from support.specs import dag, loaded, task

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def clock(harness):
    async with anyio.create_task_group() as group:
        stopping = anyio.Event()
        ticking = TimerService(
            timers=Timers(harness.database), bus=harness.bus, commands=harness.managers[0]
        )
        await group.start(partial(ticking.run, stopping))
        yield ticking
        stopping.set()


async def start(harness, *tasks, **options):
    await harness.load(dag("d", *tasks, **options))
    return await harness.call(StartRun("d"))


async def test_a_failed_attempt_is_tried_again_at_once_without_a_delay(harness):
    await start(harness, task("a", retry=RetryPolicy(2)))
    for attempt in (1, 2, 3):
        order = await harness.finish("a", "failed", error=TaskError("E", f"no {attempt}"))
        assert (order.message.attempt, order.message.delivery) == (attempt, attempt)
    await harness.until_states("failed")
    attempts = await harness.rows("SELECT attempt, error->>'message' FROM attempt ORDER BY attempt")
    assert attempts == [(1, "no 1"), (2, "no 2")]
    assert await harness.rows("SELECT attempt, error->>'message' FROM task") == [(3, "no 3")]


async def test_a_failure_that_is_final_is_not_tried_again(harness):
    await start(harness, task("a", retry=RetryPolicy(2)))
    await harness.finish("a", "failed", error=TaskError("TaskFailed", "no", final=True))
    await harness.until_states("failed")


async def test_a_retry_comes_after_its_delay(harness):
    async with clock(harness):
        await start(harness, task("a", retry=RetryPolicy(1, delay_seconds=1.0)))
        order = await harness.finish("a", "failed")
        assert await harness.rows("SELECT state, worker FROM task_live") == [("up_for_retry", None)]
        await harness.report(order.result(value="late and void"))
        again = await harness.order("a")
        assert again.message.attempt == 2
        waited = "SELECT queued_at - ended_at FROM task_live JOIN attempt USING (run, node)"
        assert await harness.value(waited) >= timedelta(seconds=1)
        await harness.report(again.result(value="second"))
        await harness.until_states("success")
    assert await harness.value("SELECT count(*) FROM timer") == 0


async def test_a_crash_is_handed_out_again_as_the_same_attempt(harness):
    await start(harness, task("a"))
    for delivery in range(1, MAX_CRASHES + 1):
        order = await harness.order("a")
        assert (order.message.attempt, order.message.delivery) == (1, delivery)
        assert order.message.apart == (delivery > 1)
        await harness.report(order.result("crashed", error=TaskError("Crashed", "signal 9")))
    await harness.until_states("failed")
    assert await harness.rows("SELECT delivery FROM attempt ORDER BY 1") == [(1,), (2,)]


async def test_crashes_beyond_the_limit_use_the_retries(harness):
    await start(harness, task("a", retry=RetryPolicy(1)))
    fences = []
    for _ in range(MAX_CRASHES + 1):
        order = await harness.finish("a", "crashed")
        fences.append((order.message.attempt, order.message.delivery))
    assert fences == [(1, 1), (1, 2), (1, 3), (2, 4)]
    await harness.until_states("failed")


async def test_a_result_of_an_old_delivery_or_attempt_is_dropped(harness):
    await start(harness, task("a", retry=RetryPolicy(1)))
    first = await harness.finish("a", "crashed")
    second = await harness.finish("a", "failed")
    third = await harness.order("a")
    for old in (first, second):
        await harness.report(old.result(value="old"))
    assert await harness.states() == ["running"]
    await harness.report(third.result(value="new"))
    await harness.until_states("success")
    assert await harness.value("SELECT attempt FROM task") == 2


@pytest.mark.parametrize("repeat", ["apart", "at once"])
async def test_a_result_that_comes_twice_counts_once(harness, repeat):
    await harness.load(
        dag("d", task("a", emits=["y"]), task("b", "a")), dag("e", task("c"), on="y")
    )
    await harness.call(StartRun("d"))
    order = await harness.order("a")
    if repeat == "apart":
        for _ in range(3):
            await harness.report(order.result())
    else:
        harness.answer(order, [order.result() for _ in range(20)])
    await harness.finish("b")
    await harness.finish("c")
    await harness.report(order.result("failed"))
    await harness.until_states("success", "success")
    assert await harness.value("SELECT count(*) FROM event") == 1


async def test_a_result_for_nothing_is_dropped(harness):
    await start(harness, task("a"))
    result = (await harness.order("a")).result()
    for change in ({"run": 999_999}, {"node": 7}, {"map_index": 0}, {"attempt": 2}):
        await harness.report(msgspec.structs.replace(result, **change))
    assert await harness.states() == ["running"]
    assert await harness.value("SELECT count(*) FROM dead_letter") == 0


async def test_a_run_that_takes_too_long_fails_and_its_tasks_are_called_off(harness):
    cancelled = []
    async with (
        await harness.bus.subscribe(
            Subjects.CANCEL, lambda m: cancelled.append(decode_cancel(m.data))
        ),
        clock(harness),
    ):
        await start(harness, task("a"), task("b", "a"), timeout_seconds=0.1)
        order = await harness.order("a")
        await harness.until_states("failed")
        assert await harness.value("SELECT error FROM run") == (
            "the run took longer than its timeout of 0.1 s"
        )
        assert await harness.tasks() == {"0": "cancelled"}
        await harness.report(order.result())
        assert await harness.states() == ["failed"]
        await harness.bus.flush()
    assert [each.run for each in cancelled] == [order.message.run]


async def test_a_run_in_time_leaves_no_timer(harness):
    await start(harness, task("a"), timeout_seconds=60)
    assert await harness.value("SELECT kind FROM timer") == "run_timeout"
    await harness.finish("a")
    await harness.until_states("success")
    assert await harness.value("SELECT count(*) FROM timer") == 0


async def test_a_cancelled_run_ends_at_once_and_late_results_change_nothing(harness):
    run_id = await start(harness, task("a", over=[3], emits=["y"]), task("b", "a"))
    orders = [await harness.order("a") for _ in range(3)]
    await harness.report(orders[0].result())
    assert await harness.call(CancelRun(run_id, "enough \x00")) is None
    assert await harness.rows("SELECT state, error FROM run") == [("cancelled", "enough \\u0000")]
    for order in orders[1:]:
        await harness.report(order.result())
    assert sorted((await harness.tasks()).values()) == ["cancelled", "cancelled", "success"]
    assert await harness.value("SELECT count(*) FROM task_live") == 0
    assert await harness.value("SELECT count(*) FROM event") == 1
    assert await harness.value("SELECT active FROM dag_state") == 0
    with pytest.raises(InvalidInput, match="has ended: cancelled"):
        await harness.call(CancelRun(run_id))
    with pytest.raises(NotFound):
        await harness.call(CancelRun(new_id()))


async def test_a_queued_run_can_be_cancelled(harness):
    await harness.load(dag("d", task("a"), max_active_runs=1))
    runs = [await harness.call(StartRun("d")) for _ in range(3)]
    await harness.call(CancelRun(runs[1], "not needed"))
    await harness.until_states("running", "cancelled", "queued")
    assert await harness.rows("SELECT active, queued FROM dag_state") == [(1, 1)]
    await harness.finish("a")
    assert (await harness.finish("a")).info.run_id == runs[2]
    await harness.until_states("success", "cancelled", "success")
    assert await harness.rows("SELECT active, queued FROM dag_state") == [(0, 0)]


async def test_the_cancellation_of_a_queued_run_is_published(harness):
    await harness.load(dag("d", task("a"), max_active_runs=1))
    _, waiting = [await harness.call(StartRun("d")) for _ in range(2)]
    heard = []
    async with await harness.bus.subscribe("psf.evt.run.>", heard.append):
        await harness.call(CancelRun(waiting))
        await harness.bus.flush()
    assert [msgspec.json.decode(message.data)["state"] for message in heard] == ["cancelled"]
    assert heard[0].subject == f"psf.evt.run.{waiting}"


async def test_cancelling_makes_room_for_the_next(harness):
    await harness.load(dag("d", task("a"), max_active_runs=1))
    runs = [await harness.call(StartRun("d")) for _ in range(2)]
    await harness.order("a")
    await harness.call(CancelRun(runs[0]))
    assert (await harness.order("a")).info.run_id == runs[1]


async def test_a_run_waiting_for_its_retry_can_be_cancelled(harness):
    async with clock(harness):
        run_id = await start(harness, task("a", retry=RetryPolicy(1, delay_seconds=0.05)))
        await harness.finish("a", "failed")
        await harness.call(CancelRun(run_id))
        assert await harness.states() == ["cancelled"]

        async def forgotten():
            return await harness.value("SELECT count(*) FROM timer") == 0

        await harness.until(forgotten)
    assert not harness.orders


async def test_a_start_may_arrive_after_the_end(harness):
    await start(harness, task("a"), task("b", "a"))
    order = await harness.finish("a")
    late = StartedMessage(order.message.run, 0, -1, 1, 1, "w1", 1.0)
    await harness.publish(Subjects.inbound(Subjects.STARTED, late.run), late)
    await harness.finish("b")
    await harness.until_states("success")


async def test_ticks_start_runs_one_each_however_many_clocks_run(pair):
    harness = pair
    harness.automatic = lambda order: [order.result()]
    notify = partial(harness.bus.publish, Subjects.TIMERS_CHANGED, b"")
    catalog = Catalog(harness.database, timers_changed=notify)
    async with anyio.create_task_group() as group:
        stopping = anyio.Event()
        for manager in harness.managers:
            ticking = TimerService(
                timers=Timers(harness.database), bus=harness.bus, commands=manager
            )
            await group.start(ticking.run, stopping)
        await catalog.save([loaded(dag("d", task("a"), timetable=IntervalSpec(0.1)))])

        async def four():
            return len(await harness.states()) >= 4

        before = anyio.current_time()
        await harness.until(four)
        assert anyio.current_time() - before < 5, "the clock was notified, it did not only look"
        stopping.set()
    times = [time for (time,) in await harness.rows("SELECT logical_time FROM run ORDER BY run_id")]
    assert times == sorted(set(times))
    assert await harness.value("SELECT count(*) FROM timer WHERE kind = 'tick'") == 1
