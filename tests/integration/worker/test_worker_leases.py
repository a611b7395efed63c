"""Messages that come again: run once, dropped, or left to whom they belong."""

from collections import Counter

import anyio
import pytest

from pubsubflow.bus import STREAM_TASK, Puller
from pubsubflow.model.wire.messages import Outcome
from pubsubflow.model.wire.worker_requests import AskLease, Lease

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

    puller = Puller(
        bus,
        stream=STREAM_TASK,
        durable=f"default-{kind}",
        filter_subject=f"psf.task.default.{kind}.>",
        deliver=take,
    )
    puller.credit(1)
    async with anyio.create_task_group() as group:
        await group.start(puller.run, stopping)
        with anyio.fail_after(10):
            await taken.wait()
        stopping.set()


async def until_drained(manager):
    with anyio.fail_after(10):
        while await manager.outstanding():  # noqa: ASYNC110 - JetStream tells nobody
            await anyio.sleep(0.02)


def questions(manager):
    return [ask for ask in manager.asked if isinstance(ask, AskLease)]


async def test_what_nobody_had_is_run_without_a_question(manager, worker, dag):
    await manager.run(dag, "first", inputs={"folder": ""})
    assert questions(manager) == []


async def test_what_is_still_to_be_run_is_run(manager, bus, start_worker, dag):
    order = await manager.send(manager.order(dag, "first", inputs={"folder": ""}))
    await give_back_once(bus)
    async with start_worker():
        assert (await manager.result(order)).outcome is Outcome.SUCCESS
    assert questions(manager) == [AskLease(order.run, order.node, -1, 1, 1, "w1")]


async def test_what_is_over_is_dropped(manager, bus, start_worker, dag):
    order = await manager.send(manager.order(dag, "first", inputs={"folder": ""}))
    await give_back_once(bus)
    manager.leases[order.run] = Lease.VOID
    async with start_worker():
        await until_drained(manager)
    assert manager.results == {}


async def test_what_another_one_runs_is_left_to_it(manager, bus, start_worker, dag):
    order = await manager.send(manager.order(dag, "first", inputs={"folder": ""}))
    await give_back_once(bus)
    manager.leases[order.run] = Lease.TAKEN
    async with start_worker():
        await manager.until(lambda: len(questions(manager)) > 1)
        assert manager.results == {}
        manager.leases[order.run] = Lease.FREE
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
    assert questions(manager) == []


async def test_a_worker_that_succeeds_another_asks_about_what_is_there(manager, start_worker, dag):
    order = await manager.send(manager.order(dag, "first", inputs={"folder": ""}))
    async with start_worker(succeeds=True):
        await manager.result(order)
        assert len(questions(manager)) == 1
        await manager.run(dag, "first", inputs={"folder": ""})
        assert len(questions(manager)) == 1


async def test_results_of_one_fence_by_two_tickets_are_all_told(manager, worker, dag):
    order = manager.order(dag, "first", inputs={"folder": ""}, chained=True)
    for _ in range(2):
        await manager.send(order)
        await manager.result(order, dag.node("second"))
        await until_drained(manager)
        manager.results.clear()
    await manager.run(dag, "first", inputs={"folder": ""})
    assert Counter(manager.order_of_arrival)["result"] == 5
