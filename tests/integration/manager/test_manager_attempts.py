"""Attempts: retries, crashes, fences, timeouts, cancellation."""

from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial

import anyio
import msgspec
import pytest
from dag_specs import dag, loaded, task

from pubsubflow.errors import InvalidInput, NotFound
from pubsubflow.model.ids import new_id
from pubsubflow.model.runs.retry import MAX_CRASHES
from pubsubflow.model.schedule.timetable import Every
from pubsubflow.model.spec import RetryPolicy
from pubsubflow.model.wire.commands import CancelRun, StartRun
from pubsubflow.model.wire.messages import StartedMessage, TaskError, decode_cancel
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.catalog import Catalog
from pubsubflow.store.timers import Timers
from pubsubflow.timers import Clock

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def clock(rig):
    async with anyio.create_task_group() as group:
        stopping = anyio.Event()
        ticking = Clock(timers=Timers(rig.database), bus=rig.bus, calls=rig.managers[0])
        await group.start(partial(ticking.run, stopping))
        yield ticking
        stopping.set()


async def start(rig, *tasks, **options):
    await rig.load(dag("d", *tasks, **options))
    return await rig.call(StartRun("d"))


async def test_a_failed_attempt_is_tried_again_at_once_without_a_delay(rig):
    await start(rig, task("a", retry=RetryPolicy(2)))
    for attempt in (1, 2, 3):
        order = await rig.finish("a", "failed", error=TaskError("E", f"no {attempt}"))
        assert (order.message.attempt, order.message.delivery) == (attempt, attempt)
    await rig.until_states("failed")
    attempts = await rig.rows("SELECT attempt, error->>'message' FROM attempt ORDER BY attempt")
    assert attempts == [(1, "no 1"), (2, "no 2")]
    assert await rig.rows("SELECT attempt, error->>'message' FROM task") == [(3, "no 3")]


async def test_a_failure_that_is_final_is_not_tried_again(rig):
    await start(rig, task("a", retry=RetryPolicy(2)))
    await rig.finish("a", "failed", error=TaskError("TaskFailed", "no", final=True))
    await rig.until_states("failed")


async def test_a_retry_comes_after_its_delay(rig):
    async with clock(rig):
        await start(rig, task("a", retry=RetryPolicy(1, delay_seconds=1.0)))
        order = await rig.finish("a", "failed")
        assert await rig.rows("SELECT state, worker FROM task_live") == [("up_for_retry", None)]
        await rig.report(order.result(value="late and void"))
        again = await rig.order("a")
        assert again.message.attempt == 2
        waited = "SELECT queued_at - ended_at FROM task_live JOIN attempt USING (run, node)"
        assert await rig.value(waited) >= timedelta(seconds=1)
        await rig.report(again.result(value="second"))
        await rig.until_states("success")
    assert await rig.value("SELECT count(*) FROM timer") == 0


async def test_a_crash_is_handed_out_again_as_the_same_attempt(rig):
    await start(rig, task("a"))
    for delivery in range(1, MAX_CRASHES + 1):
        order = await rig.order("a")
        assert (order.message.attempt, order.message.delivery) == (1, delivery)
        await rig.report(order.result("crashed", error=TaskError("Crashed", "signal 9")))
    await rig.until_states("failed")
    assert await rig.rows("SELECT delivery FROM attempt ORDER BY 1") == [(1,), (2,)]


async def test_crashes_beyond_the_limit_use_the_retries(rig):
    await start(rig, task("a", retry=RetryPolicy(1)))
    fences = []
    for _ in range(MAX_CRASHES + 1):
        order = await rig.finish("a", "crashed")
        fences.append((order.message.attempt, order.message.delivery))
    assert fences == [(1, 1), (1, 2), (1, 3), (2, 4)]
    await rig.until_states("failed")


async def test_a_result_of_an_old_delivery_or_attempt_is_dropped(rig):
    await start(rig, task("a", retry=RetryPolicy(1)))
    first = await rig.finish("a", "crashed")
    second = await rig.finish("a", "failed")
    third = await rig.order("a")
    for old in (first, second):
        await rig.report(old.result(value="old"))
    assert await rig.states() == ["running"]
    await rig.report(third.result(value="new"))
    await rig.until_states("success")
    assert await rig.value("SELECT attempt FROM task") == 2


@pytest.mark.parametrize("repeat", ["apart", "at once"])
async def test_a_result_that_comes_twice_counts_once(rig, repeat):
    await rig.load(dag("d", task("a", emits=["y"]), task("b", "a")), dag("e", task("c"), on="y"))
    await rig.call(StartRun("d"))
    order = await rig.order("a")
    if repeat == "apart":
        for _ in range(3):
            await rig.report(order.result())
    else:
        rig.answer(order, [order.result() for _ in range(20)])
    await rig.finish("b")
    await rig.finish("c")
    await rig.report(order.result("failed"))
    await rig.until_states("success", "success")
    assert await rig.value("SELECT count(*) FROM event") == 1


async def test_a_result_for_nothing_is_dropped(rig):
    await start(rig, task("a"))
    result = (await rig.order("a")).result()
    for change in ({"run": 999_999}, {"node": 7}, {"map_index": 0}, {"attempt": 2}):
        await rig.report(msgspec.structs.replace(result, **change))
    assert await rig.states() == ["running"]
    assert await rig.value("SELECT count(*) FROM dead_letter") == 0


async def test_a_run_that_takes_too_long_fails_and_its_tasks_are_called_off(rig):
    cancelled = []
    async with (
        await rig.bus.subscribe(Subjects.CANCEL, lambda m: cancelled.append(decode_cancel(m.data))),
        clock(rig),
    ):
        await start(rig, task("a"), task("b", "a"), timeout_seconds=0.1)
        order = await rig.order("a")
        await rig.until_states("failed")
        assert await rig.value("SELECT error FROM run") == (
            "the run took longer than its timeout of 0.1 s"
        )
        assert await rig.tasks() == {"0": "cancelled"}
        await rig.report(order.result())
        assert await rig.states() == ["failed"]
        await rig.bus.flush()
    assert [each.run for each in cancelled] == [order.message.run]


async def test_a_run_in_time_leaves_no_timer(rig):
    await start(rig, task("a"), timeout_seconds=60)
    assert await rig.value("SELECT kind FROM timer") == "run_timeout"
    await rig.finish("a")
    await rig.until_states("success")
    assert await rig.value("SELECT count(*) FROM timer") == 0


async def test_a_cancelled_run_ends_at_once_and_late_results_change_nothing(rig):
    run_id = await start(rig, task("a", over=[3], emits=["y"]), task("b", "a"))
    orders = [await rig.order("a") for _ in range(3)]
    await rig.report(orders[0].result())
    assert await rig.call(CancelRun(run_id, "enough \x00")) is None
    assert await rig.rows("SELECT state, error FROM run") == [("cancelled", "enough \\u0000")]
    for order in orders[1:]:
        await rig.report(order.result())
    assert sorted((await rig.tasks()).values()) == ["cancelled", "cancelled", "success"]
    assert await rig.value("SELECT count(*) FROM task_live") == 0
    assert await rig.value("SELECT count(*) FROM event") == 1
    assert await rig.value("SELECT active FROM gate") == 0
    with pytest.raises(InvalidInput, match="has ended: cancelled"):
        await rig.call(CancelRun(run_id))
    with pytest.raises(NotFound):
        await rig.call(CancelRun(new_id()))


async def test_a_run_in_line_can_be_cancelled(rig):
    await rig.load(dag("d", task("a"), max_active_runs=1))
    runs = [await rig.call(StartRun("d")) for _ in range(3)]
    await rig.call(CancelRun(runs[1], "not needed"))
    await rig.until_states("running", "cancelled", "queued")
    assert await rig.rows("SELECT active, queued FROM gate") == [(1, 1)]
    await rig.finish("a")
    assert (await rig.finish("a")).info.run_id == runs[2]
    await rig.until_states("success", "cancelled", "success")
    assert await rig.rows("SELECT active, queued FROM gate") == [(0, 0)]


async def test_the_cancellation_of_a_run_in_line_is_told(rig):
    await rig.load(dag("d", task("a"), max_active_runs=1))
    _, waiting = [await rig.call(StartRun("d")) for _ in range(2)]
    heard = []
    async with await rig.bus.subscribe("psf.evt.run.>", heard.append):
        await rig.call(CancelRun(waiting))
        await rig.bus.flush()
    assert [msgspec.json.decode(message.data)["state"] for message in heard] == ["cancelled"]
    assert heard[0].subject == f"psf.evt.run.{waiting}"


async def test_cancelling_makes_room_for_the_next(rig):
    await rig.load(dag("d", task("a"), max_active_runs=1))
    runs = [await rig.call(StartRun("d")) for _ in range(2)]
    await rig.order("a")
    await rig.call(CancelRun(runs[0]))
    assert (await rig.order("a")).info.run_id == runs[1]


async def test_a_run_waiting_for_its_retry_can_be_cancelled(rig):
    async with clock(rig):
        run_id = await start(rig, task("a", retry=RetryPolicy(1, delay_seconds=0.05)))
        await rig.finish("a", "failed")
        await rig.call(CancelRun(run_id))
        assert await rig.states() == ["cancelled"]

        async def forgotten():
            return await rig.value("SELECT count(*) FROM timer") == 0

        await rig.until(forgotten)
    assert not rig.orders


async def test_a_start_may_arrive_after_the_end(rig):
    await start(rig, task("a"), task("b", "a"))
    order = await rig.finish("a")
    late = StartedMessage(order.message.run, 0, -1, 1, 1, "w1", 1.0)
    await rig.tell(Subjects.inbound(Subjects.STARTED, late.run), late)
    await rig.finish("b")
    await rig.until_states("success")


async def test_ticks_start_runs_one_each_whoever_watches_the_clock(pair):
    rig = pair
    rig.automatic = lambda order: [order.result()]
    told = partial(rig.bus.publish, Subjects.TIMERS_CHANGED, b"")
    catalog = Catalog(rig.database, timers_changed=told)
    async with anyio.create_task_group() as group:
        stopping = anyio.Event()
        for manager in rig.managers:
            ticking = Clock(timers=Timers(rig.database), bus=rig.bus, calls=manager)
            await group.start(ticking.run, stopping)
        await catalog.save([loaded(dag("d", task("a"), timetable=Every(0.1)))])

        async def four():
            return len(await rig.states()) >= 4

        before = anyio.current_time()
        await rig.until(four)
        assert anyio.current_time() - before < 5, "the clock was told, it did not only look"
        stopping.set()
    times = [time for (time,) in await rig.rows("SELECT logical_time FROM run ORDER BY run_id")]
    assert times == sorted(set(times))
    assert await rig.value("SELECT count(*) FROM timer WHERE kind = 'tick'") == 1
