"""The safety net: what got lost between a commit and NATS, and what the dead leave behind."""

import anyio
import msgspec
import pytest
import structlog

from pubsubflow.bus import Bus
from pubsubflow.manager import Sweeper, SweeperSettings
from pubsubflow.manager.liveness import Uptime
from pubsubflow.model.wire.commands import StartRun
from pubsubflow.model.wire.heartbeat import Heartbeat
from pubsubflow.model.wire.messages import StartedMessage, encode
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.batches.manager_transaction import ManagerTransaction
from pubsubflow.store.clock import StoreClock
from support.harness import ManagerHarness, chain_of, running, running_managers
from support.specs import dag, task

pytestmark = pytest.mark.anyio


@pytest.fixture
async def idle(database, bus, nats):
    """A manager without a worker: orders stay in their stream."""
    async with running_managers(database, bus, nats, pull=False) as harness:
        yield harness


@pytest.fixture
def sweep(database, bus):
    async def once(**settings):
        given = {"undelivered_seconds": 0.0, "worker_seconds": 60.0, **settings}
        sweeper = Sweeper(database=database, bus=bus, settings=SweeperSettings(**given))
        return await sweeper.sweep()

    return once


async def waiting(harness: ManagerHarness) -> dict[str, bytes]:
    """Return the orders in the stream, by subject."""
    info = msgspec.json.decode(
        await harness.bus.request("$JS.API.STREAM.INFO.PSF_TASK", b'{"subjects_filter": ">"}', 5)
    )
    found = {}
    for subject in info["state"].get("subjects") or {}:
        question = msgspec.json.encode({"last_by_subj": subject})
        answer = await harness.bus.request("$JS.API.STREAM.MSG.GET.PSF_TASK", question, 5)
        found[subject] = msgspec.json.decode(answer)["message"]["data"]
    return found


async def until_waiting(harness: ManagerHarness, count: int) -> dict[str, bytes]:
    async def enough():
        found = await waiting(harness)
        return found if len(found) == count else None

    return await harness.until(enough)


async def purge(harness: ManagerHarness) -> None:
    await harness.bus.request("$JS.API.STREAM.PURGE.PSF_TASK", b"", 5)
    assert await waiting(harness) == {}


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


async def test_orders_of_a_manager_that_stood_still_are_published_by_a_sweeper_alone(
    idle, sweep, monkeypatch
):
    """The sweeper of another manager may have published them meanwhile: no task begins twice."""
    await idle.load(dag("d", task("a")))
    monkeypatch.setattr("pubsubflow.manager.outbox.orders.LATEST_SECONDS", 0.0)
    with structlog.testing.capture_logs() as logs:
        await idle.call(StartRun("d"))
    (left,) = [each for each in logs if each["event"] == "manager.orders_left"]
    assert left["tasks"] == 1
    assert await waiting(idle) == {}
    await sweep()
    assert len(await waiting(idle)) == 1


async def test_orders_survive_the_loss_of_the_whole_stream(idle, sweep, bus):
    await idle.load(dag("d", task("a")))
    await idle.call(StartRun("d"))
    before = await until_waiting(idle, 1)
    await bus.request("$JS.API.STREAM.DELETE.PSF_TASK", b"", 5)
    await bus.ensure_streams()
    await sweep()
    assert await waiting(idle) == before


async def test_inputs_and_elements_go_along_again(harness, sweep):
    await harness.load(dag("d", task("a"), task("m", inputs=["a"], over=["a", 2])))
    await harness.call(StartRun("d"))
    await harness.finish("a", value=["x", "y"])
    first = {
        order.message.map_index: order.message for order in [await harness.order() for _ in "1234"]
    }
    for order in harness.received:
        order.delivery.term()
    await harness.bus.flush()
    await sweep()
    again = {
        order.message.map_index: order.message for order in [await harness.order() for _ in "1234"]
    }
    assert again == first


async def test_an_order_at_work_is_left_alone(harness, sweep):
    await harness.load(dag("d", task("a")))
    await harness.call(StartRun("d"))
    order = await harness.order()
    await sweep()
    assert not harness.orders
    await beat(harness, "w1")
    message = StartedMessage(order.message.run, 0, -1, 1, 1, "w1", 1.0)
    await harness.publish(Subjects.inbound(Subjects.STARTED, message.run), message)
    await sweep()
    assert not harness.orders
    await harness.report(order.result())
    await harness.until_states("success")


async def test_a_fresh_order_is_given_time(idle, sweep):
    await idle.load(dag("d", task("a")))
    await idle.call(StartRun("d"))
    await until_waiting(idle, 1)
    await purge(idle)
    await sweep(undelivered_seconds=60.0)
    assert await waiting(idle) == {}


async def test_what_is_finished_is_not_handed_out(harness, sweep):
    await harness.load(dag("d", task("a"), task("b", "a")))
    await harness.call(StartRun("d"))
    await harness.finish("a")
    await harness.finish("b")
    await harness.until_states("success")
    await sweep()
    assert not harness.orders


async def beat(harness: ManagerHarness, worker: str, *queues: str) -> None:
    heartbeat = Heartbeat(worker, "host", 1, 8, 1, queues)
    harness.worker_bus.publish(Subjects.HEARTBEAT, encode(heartbeat))

    async def known():
        return await harness.value("SELECT count(*) FROM worker WHERE worker = $1", worker)

    await harness.until(known)


async def test_a_silent_workers_chain_goes_on_elsewhere(harness, sweep):
    await harness.load(dag("d", task("a"), task("b", "a"), task("c", "b")))
    await harness.call(StartRun("d"))
    await beat(harness, "w1")
    order = await harness.order()
    await harness.report(chain_of(order)[0])
    await sweep()
    assert not harness.orders, "it was heard a moment ago"
    await harness.rows("UPDATE worker SET seen_at = now() - interval '2 minutes'")
    await sweep()
    again = await harness.order("b")
    assert again.message.delivery == 2
    for result in chain_of(again, "w2"):
        await harness.report(result)
    await harness.until_states("success")
    assert await harness.rows("SELECT * FROM worker") == []


async def test_a_chain_of_an_unknown_worker_goes_on_elsewhere(harness, sweep):
    await harness.load(dag("d", task("a"), task("b", "a")))
    await harness.call(StartRun("d"))
    await harness.report(chain_of(await harness.order())[0])
    await harness.rows("UPDATE task_live SET started_at = now() - interval '2 minutes'")
    await sweep()
    assert (await harness.order("b")).message.delivery == 2


async def test_a_task_of_a_silent_worker_is_handed_out_again_when_its_order_is_gone(harness, sweep):
    await harness.load(dag("d", task("a")))
    await harness.call(StartRun("d"))
    await beat(harness, "w1")
    order = await harness.order()
    message = StartedMessage(order.message.run, 0, -1, 1, 1, "w1", 1.0)
    await harness.publish(Subjects.inbound(Subjects.STARTED, message.run), message)
    await harness.rows("UPDATE worker SET seen_at = now() - interval '2 minutes'")
    await sweep()
    assert not harness.orders, "NATS has its order and delivers it again"
    order.delivery.term()
    await harness.bus.flush()
    await harness.worker_bus.flush()
    await sweep()
    again = await harness.order("a")
    await harness.report(again.result(worker="w2"))
    await harness.until_states("success")


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


LOCK = "SELECT FROM task_live WHERE map_index = $1 FOR UPDATE"
WAITS = (
    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ 'task_live'"
)


async def test_a_sweep_that_postgres_ends_for_a_deadlock_is_repeated(idle, database, bus):
    await idle.load(dag("d", task("m", over=[2])))
    await idle.call(StartRun("d"))
    await until_waiting(idle, 2)
    await purge(idle)
    settings = SweeperSettings(every_seconds=0.01, undelivered_seconds=0.0)
    stopping = anyio.Event()
    with structlog.testing.capture_logs() as logs:
        async with anyio.create_task_group() as group:
            async with database.transaction() as other, database.connection() as observer:
                # Of the two the sweep is ended: it looks for deadlocks first.
                await other.execute("SET LOCAL deadlock_timeout = '60s'")
                await other.fetch(LOCK, 1)
                sweeper = Sweeper(database=database, bus=bus, settings=settings)
                await group.start(sweeper.run, stopping)
                with anyio.fail_after(60):
                    while not await observer.fetchval(WAITS):
                        await anyio.lowlevel.checkpoint()
                await other.fetch(LOCK, 0)
            await until_waiting(idle, 2)
            stopping.set()
    assert "sweeper.restarted" in [each["event"] for each in logs]


async def test_an_order_is_claimed_by_one_sweeper(idle, database):
    """Of two that find it, the later would publish it when it has run already."""
    await idle.load(dag("d", task("a")))
    await idle.call(StartRun("d"))
    await until_waiting(idle, 1)
    async with database.connection() as connection:
        transaction = ManagerTransaction(connection)
        (row,) = await transaction.fetch("find_undelivered_tasks", 0.0, 60.0, 10)
        found = [(row["run"], row["node"], row["map_index"], row["queued_at"])]
        assert len(await transaction.fetch_rows("claim_undelivered_tasks", found)) == 1
        assert await transaction.fetch_rows("claim_undelivered_tasks", found) == []


async def test_a_sweep_that_waits_for_jetstream_does_not_hold_up_the_stop(
    database, bus, monkeypatch
):
    waits = anyio.Event()

    async def never_stored(*_arguments, **_options):
        waits.set()
        await anyio.sleep_forever()

    monkeypatch.setattr(bus, "publish_durable", never_stored)
    async with database.connection() as connection:
        await connection.execute(
            "INSERT INTO worker (worker, host, pid, slots, busy, seen_at)"
            " VALUES ('silent', 'h', 1, 1, 0, now() - interval '60 s')"
        )
    settings = SweeperSettings(every_seconds=0.01, worker_seconds=0.0)
    sweeper = Sweeper(database=database, bus=bus, settings=settings)
    with anyio.fail_after(20):
        async with running(sweeper):
            await waits.wait()


async def test_a_queue_without_a_worker_is_named_in_the_log_once(idle, database, bus):
    settings = SweeperSettings(undelivered_seconds=0.0, worker_seconds=60.0)
    sweeper = Sweeper(database=database, bus=bus, settings=settings)
    await idle.load(dag("d", task("a", queue="gpu"), task("b", queue="gpu")))
    await idle.call(StartRun("d"))
    await until_waiting(idle, 2)
    with structlog.testing.capture_logs() as logs:
        await sweeper.sweep()
        await sweeper.sweep()
        await beat(idle, "w1", "default")
        await sweeper.sweep()
    (warning,) = [each for each in logs if each["event"] == "sweeper.queue_unserved"]
    assert (warning["queue"], warning["tasks"], warning["log_level"]) == ("gpu", 2, "warning")
    with structlog.testing.capture_logs() as logs:
        await beat(idle, "w2", "gpu")
        await sweeper.sweep()
    assert [each["queue"] for each in logs if each["event"] == "sweeper.queue_served"] == ["gpu"]


async def test_after_a_jump_of_the_clock_no_worker_seems_silent(bus):
    moments = iter([0.0, 100.0, 100.0, 100.0, 110.0, 110.0, 120.0, 120.0])
    uptime = Uptime(bus, monotonic=lambda: next(moments))  # 0 at the start
    uptime.note_clock(5_100.0, 100.0)  # at 100
    assert uptime.seconds == 100.0
    with structlog.testing.capture_logs() as logs:
        uptime.note_clock(5_100.5, 100.0)  # at 100: a slow query
        uptime.note_clock(8_710.0, 110.0)  # at 110: an hour ahead
    assert [each["seconds"] for each in logs] == [3599.5]
    assert uptime.seconds == 10.0  # at 120, since 110


async def test_a_worker_that_died_before_the_clock_was_set_back_is_found(harness, sweep):
    await beat(harness, "w1")
    await harness.rows("UPDATE worker SET seen_at = now() + interval '1 hour'")
    await sweep()
    await harness.until_value("SELECT 1 WHERE NOT EXISTS (SELECT FROM worker)")


async def test_a_task_that_was_queued_before_the_clock_was_set_back_is_handed_out(idle, sweep):
    await idle.load(dag("d", task("a")))
    await idle.call(StartRun("d"))
    await until_waiting(idle, 1)
    await purge(idle)
    await idle.rows("UPDATE task_live SET queued_at = now() + interval '1 hour'")
    assert await sweep(undelivered_seconds=60.0) == 1
    assert len(await waiting(idle)) == 1


async def test_a_server_that_answers_others_gets_no_question(bus, database, monkeypatch):
    monkeypatch.setattr("pubsubflow.manager.liveness._WATCH_SECONDS", 0.02)
    monkeypatch.setattr("pubsubflow.manager.liveness._FRESH_SECONDS", 0.01)
    read = anyio.Event()

    class Clock(StoreClock):
        async def read(self, connection):
            read.set()
            return await super().read(connection)

    uptime = Uptime(bus, Clock())
    flush, flushes = bus.flush, 0

    async def flush_and_note():
        nonlocal flushes
        await flush()
        flushes += 1
        if flushes <= 5:
            assert not read.is_set()
            uptime.note_store()

    monkeypatch.setattr(bus, "flush", flush_and_note)
    async with anyio.create_task_group() as group:
        group.start_soon(uptime.watch, database)
        with anyio.fail_after(10):
            await read.wait()
        group.cancel_scope.cancel()
    assert flushes > 5
