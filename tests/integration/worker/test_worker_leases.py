"""Messages that come again: run once, dropped, or left to whom they belong."""

from collections import Counter

import anyio
import pytest

from pubsubflow.bus import STREAM_TASK, PullConsumer
from pubsubflow.model.wire.messages import Outcome, encode
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.model.wire.worker_requests import LeaseRequest, LeaseStatus

pytestmark = pytest.mark.anyio

WORK = """
import anyio
from pathlib import Path
from pubsubflow import dag, task

@dag
def work():
    @task
    async def folder():
        return ""

    @task
    async def first(place):
        print("first")
        while place and not Path(place, "go").exists():
            await anyio.sleep(0.005)

    @task
    async def second(value):
        print("second")

    second(first(folder()))
"""


@pytest.fixture
def dag(manager):
    return manager.load(WORK)


async def give_back_once(bus, kind="async"):
    """Take a message as a worker would that stops at once."""
    taken, stopping = anyio.Event(), anyio.Event()

    def take(delivery):
        delivery.nak()
        taken.set()

    consumer = PullConsumer(
        bus,
        stream=STREAM_TASK,
        durable=f"default-{kind}",
        filter_subject=f"psf.task.default.{kind}.>",
        deliver=take,
    )
    consumer.credit(1)
    async with anyio.create_task_group() as group:
        await group.start(consumer.run, stopping)
        with anyio.fail_after(10):
            await taken.wait()
        stopping.set()


async def until_drained(manager):
    with anyio.fail_after(10):
        while await manager.outstanding():  # noqa: ASYNC110 - JetStream sends no notification
            await anyio.sleep(0.02)


def lease_requests(manager):
    return [each for each in manager.requests if isinstance(each, LeaseRequest)]


async def test_a_first_delivery_is_run_without_a_request(manager, worker, dag):
    await manager.run(dag, "first", inputs={"folder": ""})
    assert lease_requests(manager) == []


async def test_what_is_still_to_be_run_is_run(manager, bus, start_worker, dag):
    order = await manager.send(manager.order(dag, "first", inputs={"folder": ""}))
    await give_back_once(bus)
    async with start_worker():
        assert (await manager.result(order)).outcome is Outcome.SUCCESS
    assert lease_requests(manager) == [LeaseRequest(order.run, order.node, -1, 1, 1, "w1")]


async def test_what_is_over_is_dropped(manager, bus, start_worker, dag):
    order = await manager.send(manager.order(dag, "first", inputs={"folder": ""}))
    await give_back_once(bus)
    manager.leases[order.run] = LeaseStatus.VOID
    async with start_worker():
        await until_drained(manager)
    assert manager.results == {}


async def test_what_its_sender_has_sent_again_may_be_over(manager, bus, start_worker, dag):
    order = manager.order(dag, "first", inputs={"folder": ""})
    manager.leases[order.run] = LeaseStatus.VOID
    bus.publish(Subjects.task("default", order), encode(order), {"Psf-Again": "1"})
    async with start_worker():
        await manager.until(lambda: lease_requests(manager))
        await until_drained(manager)
    assert manager.results == {}


async def test_what_another_one_runs_is_left_to_it(manager, bus, start_worker, dag):
    order = await manager.send(manager.order(dag, "first", inputs={"folder": ""}))
    await give_back_once(bus)
    manager.leases[order.run] = LeaseStatus.TAKEN
    async with start_worker():
        await manager.until(lambda: len(lease_requests(manager)) > 1)
        assert manager.results == {}
        manager.leases[order.run] = LeaseStatus.FREE
        assert (await manager.result(order)).outcome is Outcome.SUCCESS


async def test_what_comes_again_while_it_runs_is_run_once(manager, bus, worker, dag, tmp_path):
    order = await manager.send(manager.order(dag, "first", inputs={"folder": str(tmp_path)}))
    await manager.until(lambda: manager.texts(order))
    await bus.reset_consumer(STREAM_TASK, "default-async")
    other = await manager.run(dag, "first", inputs={"folder": ""})
    assert other.outcome is Outcome.SUCCESS
    (tmp_path / "go").touch()
    await manager.result(order)
    await until_drained(manager)
    assert manager.texts(order) == ["first"]
    assert lease_requests(manager) == []


async def test_a_worker_that_takes_over_requests_the_leases_of_what_is_there(
    manager, start_worker, dag
):
    order = await manager.send(manager.order(dag, "first", inputs={"folder": ""}))
    async with start_worker(takes_over=True):
        await manager.result(order)
        assert len(lease_requests(manager)) == 1
        await manager.run(dag, "first", inputs={"folder": ""})
        assert len(lease_requests(manager)) == 1


async def test_results_of_one_fence_by_two_assignments_are_all_published(manager, worker, dag):
    order = manager.order(dag, "first", inputs={"folder": ""}, chained=True)
    for _ in range(2):
        await manager.send(order)
        await manager.result(order, dag.node("second"))
        await until_drained(manager)
        manager.results.clear()
    await manager.run(dag, "first", inputs={"folder": ""})
    assert Counter(manager.order_of_arrival)["result"] == 5
