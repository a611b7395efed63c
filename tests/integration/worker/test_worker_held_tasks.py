"""What a worker says that it does not have."""

import pytest

from pubsubflow.model.wire.held_tasks import HeldTasksRequest, decode_held_reply
from pubsubflow.model.wire.messages import encode
from pubsubflow.model.wire.subjects import Subjects
from support.harness import fence_of

pytestmark = pytest.mark.anyio

DAGS = """
from pathlib import Path
from pubsubflow import dag, task
import time

def wait_for(path):
    while not Path(path).exists():
        time.sleep(0.01)

@dag()
def d():
    @task
    def first():
        wait_for({folder!r} + "/first")

    @task
    def second():
        wait_for({folder!r} + "/second")

    first() >> second()
"""


@pytest.fixture
def ask(bus):
    async def missing(worker, *fences):
        """Return which of some tasks a worker says it does not have."""
        request = encode(HeldTasksRequest(fences))
        reply = await bus.request(Subjects.held_tasks(worker.worker_id), request, 5)
        return decode_held_reply(reply).missing

    return missing


@pytest.fixture
def loaded(manager, tmp_path):
    return manager.load(DAGS.format(folder=str(tmp_path)))


async def test_it_has_the_task_of_a_chain_that_runs_now(manager, worker, ask, loaded, tmp_path):
    order = await manager.send(manager.order(loaded, "first", chained=True))
    first = fence_of(order)
    second = (order.run, loaded.node("second"), *first[2:])
    await manager.until(lambda: len(manager.started) == 1)
    assert await ask(worker, first, second) == (second,)
    (tmp_path / "first").touch()
    await manager.result(order)
    await manager.until(lambda: len(manager.started) == 2)
    assert await ask(worker, first, second) == (first,)
    (tmp_path / "second").touch()
    await manager.result(order, loaded.node("second"))
    assert await ask(worker, first, second) == (first, second)


async def test_another_delivery_is_another_task(manager, worker, ask, loaded, tmp_path):
    order = await manager.send(manager.order(loaded, "second"))
    await manager.until(lambda: len(manager.started) == 1)
    *task, delivery = fence_of(order)
    later = (*task, delivery + 1)
    assert await ask(worker, later, fence_of(order)) == (later,)
    (tmp_path / "second").touch()
    await manager.result(order)


async def test_it_has_what_is_not_stored_yet(
    manager, worker, ask, loaded, tmp_path, bus, monkeypatch
):
    """JetStream has not confirmed the result: the worker sends it again until it has."""
    order = await manager.send(manager.order(loaded, "second"))
    await manager.until(lambda: len(manager.started) == 1)
    pool = worker._pools["sync"]
    released, release = [], pool._on_finished

    def note(assignment):
        release(assignment)
        released.append(assignment)
        manager._signal.notify()

    monkeypatch.setattr(pool, "_on_finished", note)
    await bus.request("$JS.API.STREAM.DELETE.PSF_IN", b"", 5)
    (tmp_path / "second").touch()
    await manager.until(lambda: released)
    assert worker._assignments == {}
    assert await ask(worker, fence_of(order)) == ()
    await bus.ensure_streams()

    async def stored():
        return await ask(worker, fence_of(order)) == (fence_of(order),)

    await manager._signal.wait_until(stored, poll_seconds=0.1)
