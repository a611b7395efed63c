"""The safety net: what got lost between a commit and NATS, and what the dead leave behind."""

import anyio
import msgspec
import pytest
from core_rig import Rig, chain_of, running
from dag_specs import dag, task

from pubsubflow.bus import Bus
from pubsubflow.manager import Sweeper, SweeperSettings
from pubsubflow.model.wire.commands import StartRun
from pubsubflow.model.wire.messages import Heartbeat, StartedMessage, encode
from pubsubflow.model.wire.subjects import Subjects

pytestmark = pytest.mark.anyio


@pytest.fixture
async def idle(database, bus, nats):
    """A manager without a worker: orders stay in their stream."""
    async with running(database, bus, nats, pull=False) as rig:
        yield rig


@pytest.fixture
def sweep(database, bus):
    async def once(**settings):
        given = {"undelivered_seconds": 0.0, "worker_seconds": 60.0, **settings}
        sweeper = Sweeper(database=database, bus=bus, settings=SweeperSettings(**given))
        return await sweeper.sweep()

    return once


async def waiting(rig: Rig) -> dict[str, bytes]:
    """Return the orders in the stream, by subject."""
    info = msgspec.json.decode(
        await rig.bus.request("$JS.API.STREAM.INFO.PSF_TASK", b'{"subjects_filter": ">"}', 5)
    )
    found = {}
    for subject in info["state"].get("subjects") or {}:
        question = msgspec.json.encode({"last_by_subj": subject})
        answer = await rig.bus.request("$JS.API.STREAM.MSG.GET.PSF_TASK", question, 5)
        found[subject] = msgspec.json.decode(answer)["message"]["data"]
    return found


async def until_waiting(rig: Rig, count: int) -> dict[str, bytes]:
    async def enough():
        found = await waiting(rig)
        return found if len(found) == count else None

    return await rig.until(enough)


async def purge(rig: Rig) -> None:
    await rig.bus.request("$JS.API.STREAM.PURGE.PSF_TASK", b"", 5)
    assert await waiting(rig) == {}


async def test_orders_that_got_lost_are_published_again_as_they_were(idle, sweep):
    tasks = [task("a"), task("m", over=[2]), task("b", inputs=["a"])]
    await idle.load(dag("d", *tasks))
    await idle.call(StartRun("d"))
    before = await until_waiting(idle, 3)
    await purge(idle)
    await sweep()
    assert await waiting(idle) == before
    await sweep()
    assert await waiting(idle) == before, "an order that waits is not doubled"


async def test_orders_survive_the_loss_of_the_whole_stream(idle, sweep, bus):
    await idle.load(dag("d", task("a")))
    await idle.call(StartRun("d"))
    before = await until_waiting(idle, 1)
    await bus.request("$JS.API.STREAM.DELETE.PSF_TASK", b"", 5)
    await bus.ensure_streams()
    await sweep()
    assert await waiting(idle) == before


async def test_inputs_and_elements_go_along_again(rig, sweep):
    await rig.load(dag("d", task("a"), task("m", inputs=["a"], over=["a", 2])))
    await rig.call(StartRun("d"))
    await rig.finish("a", value=["x", "y"])
    first = {
        order.message.map_index: order.message for order in [await rig.order() for _ in "1234"]
    }
    for order in rig.seen:
        order.delivery.term()
    await rig.bus.flush()
    await sweep()
    again = {
        order.message.map_index: order.message for order in [await rig.order() for _ in "1234"]
    }
    assert again == first


async def test_an_order_at_work_is_left_alone(rig, sweep):
    await rig.load(dag("d", task("a")))
    await rig.call(StartRun("d"))
    order = await rig.order()
    await sweep()
    assert not rig.orders
    await beat(rig, "w1")
    message = StartedMessage(order.message.run, 0, -1, 1, 1, "w1", 1.0)
    await rig.tell(Subjects.inbound(Subjects.STARTED, message.run), message)
    await sweep()
    assert not rig.orders
    await rig.report(order.result())
    await rig.until_states("success")


async def test_a_fresh_order_is_given_time(idle, sweep):
    await idle.load(dag("d", task("a")))
    await idle.call(StartRun("d"))
    await until_waiting(idle, 1)
    await purge(idle)
    await sweep(undelivered_seconds=60.0)
    assert await waiting(idle) == {}


async def test_what_is_finished_is_not_handed_out(rig, sweep):
    await rig.load(dag("d", task("a"), task("b", "a")))
    await rig.call(StartRun("d"))
    await rig.finish("a")
    await rig.finish("b")
    await rig.until_states("success")
    await sweep()
    assert not rig.orders


async def beat(rig: Rig, worker: str) -> None:
    rig.hand.publish(Subjects.HEARTBEAT, encode(Heartbeat(worker, "host", 1, 8, 1)))

    async def known():
        return await rig.value("SELECT count(*) FROM worker WHERE worker = $1", worker)

    await rig.until(known)


async def test_a_silent_workers_chain_goes_on_elsewhere(rig, sweep):
    await rig.load(dag("d", task("a"), task("b", "a"), task("c", "b")))
    await rig.call(StartRun("d"))
    await beat(rig, "w1")
    order = await rig.order()
    await rig.report(chain_of(order)[0])
    await sweep()
    assert not rig.orders, "it was heard a moment ago"
    await rig.rows("UPDATE worker SET seen_at = now() - interval '2 minutes'")
    await sweep()
    again = await rig.order("b")
    assert again.message.delivery == 2
    for result in chain_of(again, "w2"):
        await rig.report(result)
    await rig.until_states("success")
    assert await rig.rows("SELECT * FROM worker") == []


async def test_a_chain_of_a_worker_that_nobody_knows_goes_on_elsewhere(rig, sweep):
    await rig.load(dag("d", task("a"), task("b", "a")))
    await rig.call(StartRun("d"))
    await rig.report(chain_of(await rig.order())[0])
    await rig.rows("UPDATE task_live SET started_at = now() - interval '2 minutes'")
    await sweep()
    assert (await rig.order("b")).message.delivery == 2


async def test_a_task_of_a_silent_worker_is_handed_out_again_when_its_order_is_gone(rig, sweep):
    await rig.load(dag("d", task("a")))
    await rig.call(StartRun("d"))
    await beat(rig, "w1")
    order = await rig.order()
    message = StartedMessage(order.message.run, 0, -1, 1, 1, "w1", 1.0)
    await rig.tell(Subjects.inbound(Subjects.STARTED, message.run), message)
    await rig.rows("UPDATE worker SET seen_at = now() - interval '2 minutes'")
    await sweep()
    assert not rig.orders, "NATS has its order and delivers it again"
    order.delivery.term()
    await rig.bus.flush()
    await rig.hand.flush()
    await sweep()
    again = await rig.order("a")
    await rig.report(again.result(worker="w2"))
    await rig.until_states("success")


async def test_a_large_backlog_comes_back_batch_by_batch(idle, sweep):
    await idle.load(dag("d", task("m", over=[120])))
    await idle.call(StartRun("d"))
    await until_waiting(idle, 120)
    await purge(idle)
    for expected, total in ((50, 50), (50, 100), (20, 120), (0, 120)):
        assert await sweep(tasks=50) == expected
        assert len(await waiting(idle)) == total


async def test_a_lost_stream_is_made_good_without_a_pause(idle, database, bus):
    await idle.load(dag("d", task("m", over=[120])))
    await idle.call(StartRun("d"))
    await until_waiting(idle, 120)
    await purge(idle)
    settings = SweeperSettings(every_seconds=5.0, undelivered_seconds=0.0, tasks=10)
    stopping = anyio.Event()
    async with anyio.create_task_group() as group:
        await group.start(Sweeper(database=database, bus=bus, settings=settings).run, stopping)
        with anyio.fail_after(20):
            await until_waiting(idle, 120)
        stopping.set()


async def test_two_sweepers_do_not_double(idle, database, nats):
    await idle.load(dag("d", task("m", over=[40])))
    await idle.call(StartRun("d"))
    await until_waiting(idle, 40)
    await purge(idle)
    settings = SweeperSettings(undelivered_seconds=0.0)
    async with Bus.connect(nats) as other, anyio.create_task_group() as group:
        for bus in (idle.bus, other):
            group.start_soon(Sweeper(database=database, bus=bus, settings=settings).sweep)
    assert len(await waiting(idle)) == 40
