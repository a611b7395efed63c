"""Chains: tasks that a runner goes straight on with, reported in any order, by living and dead."""

from datetime import timedelta

import pytest

from pubsubflow.model.spec import RetryPolicy
from pubsubflow.model.wire.commands import CancelRun, StartRun
from pubsubflow.model.wire.messages import StartedMessage, WorkerLostMessage, encode
from pubsubflow.model.wire.subjects import Subjects
from support.harness import chain_of
from support.specs import dag, task

pytestmark = pytest.mark.anyio
LINE = [task("a"), task("b", inputs=["a"]), task("c", inputs=["b"]), task("d", inputs=["c"])]


async def start(harness, *tasks, **options):
    await harness.load(dag("d", *(tasks or LINE), **options))
    await harness.call(StartRun("d"))
    return await harness.order()


async def live(harness):
    return await harness.rows(
        "SELECT node, state, chained, worker, attempt, delivery FROM task_live ORDER BY node"
    )


async def gone(harness, worker):
    await harness.publish(f"{Subjects.WORKER_LOST}.0", WorkerLostMessage(worker))


async def test_a_chain_reported_in_order(harness):
    order = await start(harness)
    assert order.message.chain == (1, 2, 3)
    for place, result in enumerate(chain_of(order)):
        await harness.report(result)
        if place < 3:
            assert await live(harness) == [(place + 1, "running", True, "w1", 1, 1)]
    await harness.until_states("success")
    assert not harness.orders, "nothing is handed out that the runner has"


async def test_a_chained_task_is_not_queued_after_it_has_started(harness):
    order = await start(harness)
    for result in chain_of(order):
        await harness.report(result)
    await harness.until_states("success")
    times = await harness.rows("SELECT queued_at - started_at FROM task WHERE node > 0")
    assert times == [(timedelta(0),)] * 3


async def test_a_chain_reported_in_one_batch(harness):
    order = await start(harness)
    harness.answer(order, chain_of(order))
    await harness.until_states("success")
    assert not harness.orders
    assert len(harness.received) == 1


async def test_a_chain_reported_backwards_to_two_managers(pair):
    harness = pair
    order = await start(harness)
    harness.answer(order, chain_of(order)[::-1])
    await harness.until_states("success")
    assert len(harness.received) == 1
    assert sorted((await harness.tasks()).values()) == ["success"] * 4


async def test_many_chains_reported_to_two_managers_in_a_jumble(pair):
    harness = pair
    await harness.load(dag("d", *LINE, max_active_runs=100))
    harness.automatic = lambda order: chain_of(order)[:: -1 if order.message.run % 2 else 1]
    for _ in range(60):
        await harness.call(StartRun("d"))
    await harness.until_states(*["success"] * 60)
    assert len(harness.received) == 60


async def test_a_worker_gone_in_mid_chain_is_followed_by_another_delivery(harness):
    order = await start(harness)
    results = chain_of(order)
    await harness.report(results[0])
    await harness.report(results[1])
    await gone(harness, "w1")
    again = await harness.order("c")
    assert (again.message.attempt, again.message.delivery) == (1, 2)
    assert again.message.chain == (3,)
    await harness.report(results[2])
    await harness.report(results[3])
    assert await live(harness) == [(2, "queued", False, None, 1, 2)], "the dead have no say"
    for result in chain_of(again, "w2"):
        await harness.report(result)
    await harness.until_states("success")


async def test_inputs_go_along_when_another_goes_on(harness):
    order = await start(harness)
    await harness.report(order.result(value="A", then=1))
    await gone(harness, "w1")
    again = await harness.order("b")
    assert again.inputs == {0: "A"}


async def test_a_worker_gone_in_the_same_batch_as_its_result(harness):
    order = await start(harness)
    results = chain_of(order)
    harness.worker_bus.publish_durable_nowait(
        Subjects.inbound(Subjects.RESULT, results[0].run),
        encode(results[0]),
        message_id="1",
        on_done=lambda: None,
    )
    await gone(harness, "w1")
    assert (await harness.order("b")).message.delivery == 2


async def test_another_worker_going_leaves_a_chain_alone(harness):
    order = await start(harness)
    results = chain_of(order)
    await harness.report(results[0])
    await gone(harness, "w2")
    assert await live(harness) == [(1, "running", True, "w1", 1, 1)]
    for result in results[1:]:
        await harness.report(result)
    await harness.until_states("success")


async def test_a_worker_that_has_only_orders_needs_no_help(harness):
    order = await start(harness)
    await gone(harness, "w1")
    assert await live(harness) == [(0, "queued", False, None, 1, 1)], "NATS delivers it again"
    await harness.report(order.result())


async def test_a_second_worker_with_the_same_order_does_not_disturb_the_first(harness):
    order = await start(harness)
    first, second = chain_of(order, "w1"), chain_of(order, "w2")
    await harness.report(first[0])
    await harness.report(second[0])
    started = StartedMessage(order.message.run, 1, -1, 1, 1, "w2", 1.0)
    await harness.publish(Subjects.inbound(Subjects.STARTED, started.run), started)
    assert await live(harness) == [(1, "running", True, "w1", 1, 1)]
    await harness.report(second[1])
    assert await live(harness) == [(1, "running", True, "w1", 1, 1)]
    for result in first[1:]:
        await harness.report(result)
    await harness.until_states("success")
    workers = await harness.rows("SELECT DISTINCT worker FROM task")
    assert workers == [("w1",)]


async def test_a_chain_of_an_attempt_that_was_dropped_does_not_count(harness):
    order = await start(harness, task("a", retry=RetryPolicy(1)), task("b", inputs=["a"]))
    ghost = chain_of(order, "w2")
    await harness.report(order.result("failed"))
    again = await harness.order("a")
    await harness.report(ghost[0])
    await harness.report(again.result(value="second"))
    follower = await harness.order("b")
    assert follower.inputs == {0: "second"}
    await harness.report(ghost[1])
    assert await live(harness) == [(1, "queued", False, None, 1, 1)]
    await harness.report(follower.result())
    await harness.until_states("success")


async def test_a_failure_in_mid_chain_ends_it(harness):
    order = await start(harness)
    await harness.report(order.result(then=1))
    await harness.report(order.result("failed", chain=1))
    await harness.until_states("failed")
    assert await harness.tasks() == {
        "0": "success", "1": "failed", "2": "upstream_failed", "3": "upstream_failed"
    }  # fmt: skip


async def test_a_retry_in_mid_chain_is_an_order_of_its_own(harness):
    tasks = [task("a"), task("b", "a", retry=RetryPolicy(1)), task("c", "b")]
    order = await start(harness, *tasks)
    await harness.report(order.result(then=1))
    await harness.report(order.result("failed", chain=1))
    again = await harness.order("b")
    assert (again.message.attempt, again.message.delivery, again.message.chain) == (2, 2, (2,))
    for result in chain_of(again):
        await harness.report(result)
    await harness.until_states("success")


async def test_a_crash_in_mid_chain_is_another_delivery(harness):
    order = await start(harness)
    await harness.report(order.result(then=1))
    await harness.report(order.result("crashed", chain=1))
    assert (await harness.order("b")).message.delivery == 2


async def test_a_runner_that_stops_in_mid_chain_leaves_the_rest_to_others(harness):
    order = await start(harness)
    await harness.report(order.result(then=1))
    await harness.report(order.result(chain=1))
    assert (await harness.order("c")).message.chain == (3,)


async def test_a_chain_that_is_cancelled_says_nothing_more(harness):
    order = await start(harness)
    results = chain_of(order)
    await harness.report(results[0])
    await harness.call(CancelRun(order.info.run_id))
    for result in results[1:]:
        await harness.report(result)
    assert await harness.states() == ["cancelled"]
    assert await harness.tasks() == {"0": "success", "1": "cancelled"}
