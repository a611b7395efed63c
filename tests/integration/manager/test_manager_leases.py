"""What managers say of a task that comes again to a worker."""

from contextlib import AsyncExitStack

import anyio
import pytest

from pubsubflow.bus import Bus
from pubsubflow.errors import StoreUnavailable
from pubsubflow.manager.worker_requests import BEAT_SECONDS
from pubsubflow.model.wire.commands import StartRun
from pubsubflow.model.wire.heartbeat import Heartbeat
from pubsubflow.model.wire.messages import StartedMessage, encode
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.model.wire.worker_requests import (
    LeaseRequest,
    LeaseStatus,
    decode_chunk,
    decode_lease_status,
)
from pubsubflow.worker.manager_client import ManagerClient
from support.specs import dag, task

pytestmark = pytest.mark.anyio


@pytest.fixture
async def order(harness):
    await harness.load(dag("d", task("a")))
    await harness.call(StartRun("d"))
    return await harness.order("a")


def fence(order):
    message = order.message
    return message.run, message.node, message.map_index, message.attempt, message.delivery


async def request_lease(harness, *fields):
    piece = decode_chunk(
        await harness.bus.request(Subjects.WORKER_REQUEST, encode(LeaseRequest(*fields)), 5)
    )
    return decode_lease_status(piece.data)


async def start_with(harness, order, worker):
    message = StartedMessage(*fence(order), worker, 1.0)
    await harness.publish(Subjects.inbound(Subjects.STARTED, order.message.run), message)


async def heard(harness, worker):
    harness.worker_bus.publish(Subjects.HEARTBEAT, encode(Heartbeat(worker, "host", 1, 8, 1)))

    async def saved():
        return await harness.value("SELECT 1 FROM worker WHERE worker = $1", worker)

    await harness.until(saved)


async def test_a_task_without_a_worker_is_free(harness, order):
    assert await request_lease(harness, *fence(order), "w2") is LeaseStatus.FREE


async def test_what_is_over_is_void(harness, order):
    await harness.report(order.result())
    assert await request_lease(harness, *fence(order), "w1") is LeaseStatus.VOID


async def test_what_was_handed_out_anew_is_void(harness, order):
    await harness.report(order.result("crashed"))
    assert await request_lease(harness, *fence(order), "w1") is LeaseStatus.VOID
    again = await harness.order("a")
    assert await request_lease(harness, *fence(again), "w1") is LeaseStatus.FREE


async def test_what_a_living_worker_runs_is_taken_for_others(harness, order):
    await heard(harness, "w1")
    await start_with(harness, order, "w1")
    assert await request_lease(harness, *fence(order), "w2") is LeaseStatus.TAKEN
    assert await request_lease(harness, *fence(order), "w1") is LeaseStatus.FREE


async def test_what_a_worker_ran_that_is_no_more_is_free(harness, order):
    await start_with(harness, order, "w1")
    assert await request_lease(harness, *fence(order), "w2") is LeaseStatus.FREE


async def test_silence_counts_only_while_the_manager_listens(harness, order):
    await heard(harness, "w1")
    await start_with(harness, order, "w1")
    async with harness.database.connection() as connection:
        await connection.execute("UPDATE worker SET seen_at = now() - interval '1 minute'")
    assert await request_lease(harness, *fence(order), "w2") is LeaseStatus.TAKEN
    harness.managers[0].uptime._since -= BEAT_SECONDS
    assert await request_lease(harness, *fence(order), "w2") is LeaseStatus.FREE
    harness.managers[0].uptime.restart()
    assert await request_lease(harness, *fence(order), "w2") is LeaseStatus.TAKEN


async def test_callers_are_turned_away_when_the_store_stays_away(harness, order):
    manager = harness.managers[0]
    manager._outage.since = -1000.0
    with pytest.raises(StoreUnavailable, match="Postgres is away"):
        await harness.call(StartRun("d"))
    manager._outage.since = None
    assert await harness.call(StartRun("d"))


async def test_requests_pass_over_managers_that_hang(harness, order, nats):
    """What is stopped stays in the group, and would be chosen again and again."""
    async with AsyncExitStack() as stack:
        frozen = await stack.enter_async_context(Bus.connect(nats))
        for _ in range(9):
            await frozen.subscribe(Subjects.WORKER_REQUEST, lambda _: None, queue="managers")
        group = await stack.enter_async_context(anyio.create_task_group())
        client = ManagerClient(harness.worker_bus, group, ask_seconds=5)
        for _ in range(3):
            chunk = await client.request(LeaseRequest(*fence(order), "w9"))
            assert decode_lease_status(chunk.data) == LeaseStatus.FREE
