"""What managers say of a task that comes again to a worker."""

import pytest
from dag_specs import dag, task

from pubsubflow.errors import StoreUnavailable
from pubsubflow.manager.worker_requests import BEAT_SECONDS
from pubsubflow.model.wire.commands import StartRun
from pubsubflow.model.wire.messages import Heartbeat, StartedMessage, encode
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.model.wire.worker_requests import AskLease, Lease, decode_lease, decode_piece

pytestmark = pytest.mark.anyio


@pytest.fixture
async def order(rig):
    await rig.load(dag("d", task("a")))
    await rig.call(StartRun("d"))
    return await rig.order("a")


def fence(order):
    message = order.message
    return message.run, message.node, message.map_index, message.attempt, message.delivery


async def ask(rig, *question):
    piece = decode_piece(await rig.bus.request(Subjects.ASK, encode(AskLease(*question)), 5))
    return decode_lease(piece.data)


async def start_with(rig, order, worker):
    message = StartedMessage(*fence(order), worker, 1.0)
    await rig.tell(Subjects.inbound(Subjects.STARTED, order.message.run), message)


async def heard(rig, worker):
    rig.hand.publish(Subjects.HEARTBEAT, encode(Heartbeat(worker, "host", 1, 8, 1)))

    async def saved():
        return await rig.value("SELECT 1 FROM worker WHERE worker = $1", worker)

    await rig.until(saved)


async def test_what_nobody_has_started_is_free(rig, order):
    assert await ask(rig, *fence(order), "w2") is Lease.FREE


async def test_what_is_over_is_void(rig, order):
    await rig.report(order.result())
    assert await ask(rig, *fence(order), "w1") is Lease.VOID


async def test_what_was_handed_out_anew_is_void(rig, order):
    await rig.report(order.result("crashed"))
    assert await ask(rig, *fence(order), "w1") is Lease.VOID
    again = await rig.order("a")
    assert await ask(rig, *fence(again), "w1") is Lease.FREE


async def test_what_a_living_worker_runs_is_taken_for_others(rig, order):
    await heard(rig, "w1")
    await start_with(rig, order, "w1")
    assert await ask(rig, *fence(order), "w2") is Lease.TAKEN
    assert await ask(rig, *fence(order), "w1") is Lease.FREE


async def test_what_a_worker_ran_that_is_no_more_is_free(rig, order):
    await start_with(rig, order, "w1")
    assert await ask(rig, *fence(order), "w2") is Lease.FREE


async def test_silence_counts_only_while_the_manager_listens(rig, order):
    await heard(rig, "w1")
    await start_with(rig, order, "w1")
    async with rig.database.connection() as connection:
        await connection.execute("UPDATE worker SET seen_at = now() - interval '1 minute'")
    assert await ask(rig, *fence(order), "w2") is Lease.TAKEN
    rig.managers[0]._vigil._since -= BEAT_SECONDS
    assert await ask(rig, *fence(order), "w2") is Lease.FREE
    rig.managers[0]._vigil.restart()
    assert await ask(rig, *fence(order), "w2") is Lease.TAKEN


async def test_callers_are_turned_away_when_the_store_stays_away(rig, order):
    manager = rig.managers[0]
    manager._away_since = -1000.0
    with pytest.raises(StoreUnavailable, match="Postgres is away"):
        await rig.call(StartRun("d"))
    manager._away_since = None
    assert await rig.call(StartRun("d"))
