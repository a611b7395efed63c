"""Chains: tasks that a runner goes straight on with, told in any order, by living and dead."""

import pytest
from core_rig import chain_of
from dag_specs import dag, task

from pubsubflow.model.spec import RetryPolicy
from pubsubflow.model.wire.commands import CancelRun, StartRun
from pubsubflow.model.wire.messages import GoneMessage, StartedMessage, encode
from pubsubflow.model.wire.subjects import Subjects

pytestmark = pytest.mark.anyio
LINE = [task("a"), task("b", inputs=["a"]), task("c", inputs=["b"]), task("d", inputs=["c"])]


async def start(rig, *tasks, **options):
    await rig.load(dag("d", *(tasks or LINE), **options))
    await rig.call(StartRun("d"))
    return await rig.order()


async def live(rig):
    return await rig.rows(
        "SELECT node, state, chained, worker, attempt, delivery FROM task_live ORDER BY node"
    )


async def gone(rig, worker):
    await rig.tell(f"{Subjects.GONE}.0", GoneMessage(worker))


async def test_a_chain_told_in_order(rig):
    order = await start(rig)
    assert order.message.chain == (1, 2, 3)
    for place, result in enumerate(chain_of(order)):
        await rig.report(result)
        if place < 3:
            assert await live(rig) == [(place + 1, "running", True, "w1", 1, 1)]
    await rig.until_states("success")
    assert not rig.orders, "nothing is handed out that the runner has"


async def test_a_chain_told_in_one_batch(rig):
    order = await start(rig)
    rig.answer(order, chain_of(order))
    await rig.until_states("success")
    assert not rig.orders
    assert len(rig.seen) == 1


async def test_a_chain_told_backwards_to_two_managers(pair):
    rig = pair
    order = await start(rig)
    rig.answer(order, chain_of(order)[::-1])
    await rig.until_states("success")
    assert len(rig.seen) == 1
    assert sorted((await rig.tasks()).values()) == ["success"] * 4


async def test_many_chains_told_to_two_managers_in_a_jumble(pair):
    rig = pair
    await rig.load(dag("d", *LINE, max_active_runs=100))
    rig.automatic = lambda order: chain_of(order)[:: -1 if order.message.run % 2 else 1]
    for _ in range(60):
        await rig.call(StartRun("d"))
    await rig.until_states(*["success"] * 60)
    assert len(rig.seen) == 60


async def test_a_worker_gone_in_mid_chain_is_followed_by_another_delivery(rig):
    order = await start(rig)
    results = chain_of(order)
    await rig.report(results[0])
    await rig.report(results[1])
    await gone(rig, "w1")
    again = await rig.order("c")
    assert (again.message.attempt, again.message.delivery) == (1, 2)
    assert again.message.chain == (3,)
    await rig.report(results[2])
    await rig.report(results[3])
    assert await live(rig) == [(2, "queued", False, None, 1, 2)], "the dead have no say"
    for result in chain_of(again, "w2"):
        await rig.report(result)
    await rig.until_states("success")


async def test_inputs_go_along_when_another_goes_on(rig):
    order = await start(rig)
    await rig.report(order.result(value="A", then=1))
    await gone(rig, "w1")
    again = await rig.order("b")
    assert again.inputs == {0: "A"}


async def test_a_worker_gone_in_the_same_batch_as_its_result(rig):
    order = await start(rig)
    results = chain_of(order)
    rig.hand.publish_durable_nowait(
        Subjects.inbound(Subjects.RESULT, results[0].run),
        encode(results[0]),
        message_id="1",
        on_done=lambda: None,
    )
    await gone(rig, "w1")
    assert (await rig.order("b")).message.delivery == 2


async def test_another_worker_going_leaves_a_chain_alone(rig):
    order = await start(rig)
    results = chain_of(order)
    await rig.report(results[0])
    await gone(rig, "w2")
    assert await live(rig) == [(1, "running", True, "w1", 1, 1)]
    for result in results[1:]:
        await rig.report(result)
    await rig.until_states("success")


async def test_a_worker_that_has_only_orders_needs_no_help(rig):
    order = await start(rig)
    await gone(rig, "w1")
    assert await live(rig) == [(0, "queued", False, None, 1, 1)], "NATS delivers it again"
    await rig.report(order.result())


async def test_a_second_worker_with_the_same_order_does_not_disturb_the_first(rig):
    order = await start(rig)
    first, second = chain_of(order, "w1"), chain_of(order, "w2")
    await rig.report(first[0])
    await rig.report(second[0])
    started = StartedMessage(order.message.run, 1, -1, 1, 1, "w2", 1.0)
    await rig.tell(Subjects.inbound(Subjects.STARTED, started.run), started)
    assert await live(rig) == [(1, "running", True, "w1", 1, 1)]
    await rig.report(second[1])
    assert await live(rig) == [(1, "running", True, "w1", 1, 1)]
    for result in first[1:]:
        await rig.report(result)
    await rig.until_states("success")
    workers = await rig.rows("SELECT DISTINCT worker FROM task")
    assert workers == [("w1",)]


async def test_a_chain_of_an_attempt_that_was_dropped_does_not_count(rig):
    order = await start(rig, task("a", retry=RetryPolicy(1)), task("b", inputs=["a"]))
    ghost = chain_of(order, "w2")
    await rig.report(order.result("failed"))
    again = await rig.order("a")
    await rig.report(ghost[0])
    await rig.report(again.result(value="second"))
    follower = await rig.order("b")
    assert follower.inputs == {0: "second"}
    await rig.report(ghost[1])
    assert await live(rig) == [(1, "queued", False, None, 1, 1)]
    await rig.report(follower.result())
    await rig.until_states("success")


async def test_a_failure_in_mid_chain_ends_it(rig):
    order = await start(rig)
    await rig.report(order.result(then=1))
    await rig.report(order.result("failed", chain=1))
    await rig.until_states("failed")
    assert await rig.tasks() == {
        "0": "success", "1": "failed", "2": "upstream_failed", "3": "upstream_failed"
    }  # fmt: skip


async def test_a_retry_in_mid_chain_is_an_order_of_its_own(rig):
    tasks = [task("a"), task("b", "a", retry=RetryPolicy(1)), task("c", "b")]
    order = await start(rig, *tasks)
    await rig.report(order.result(then=1))
    await rig.report(order.result("failed", chain=1))
    again = await rig.order("b")
    assert (again.message.attempt, again.message.delivery, again.message.chain) == (2, 2, (2,))
    for result in chain_of(again):
        await rig.report(result)
    await rig.until_states("success")


async def test_a_crash_in_mid_chain_is_another_delivery(rig):
    order = await start(rig)
    await rig.report(order.result(then=1))
    await rig.report(order.result("crashed", chain=1))
    assert (await rig.order("b")).message.delivery == 2


async def test_a_runner_that_stops_in_mid_chain_leaves_the_rest_to_others(rig):
    order = await start(rig)
    await rig.report(order.result(then=1))
    await rig.report(order.result(chain=1))
    assert (await rig.order("c")).message.chain == (3,)


async def test_a_chain_that_is_cancelled_says_nothing_more(rig):
    order = await start(rig)
    results = chain_of(order)
    await rig.report(results[0])
    await rig.call(CancelRun(order.info.run_id))
    for result in results[1:]:
        await rig.report(result)
    assert await rig.states() == ["cancelled"]
    assert await rig.tasks() == {"0": "success", "1": "cancelled"}
