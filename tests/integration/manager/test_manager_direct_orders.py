"""Direct orders: tasks that a manager gives to the worker of its own daemon, without the bus."""

import asyncpg
import pytest

from pubsubflow.bus import STREAM_TASK
from pubsubflow.model.spec import RetryPolicy
from pubsubflow.model.wire.commands import StartRun
from pubsubflow.model.wire.heartbeat import Heartbeat
from pubsubflow.model.wire.messages import Outcome, StartedMessage, WorkerLostMessage, encode
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.batches.manager_transaction import ManagerTransaction
from support.harness import chain_of, fence_of, running_managers
from support.specs import dag, task

pytestmark = pytest.mark.anyio
LIVE = "SELECT node, state, direct, worker, attempt, delivery FROM task_live ORDER BY node"
OTHER = Heartbeat("w9", "there", 1, 4, 0, queues=("default",))
# At the commit: what was written is void, and the manager cannot know it.
BREAK_AT_COMMIT = """
CREATE SEQUENCE broken;
CREATE FUNCTION break() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF nextval('broken') = 1 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER break AFTER INSERT ON task_live DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION break()
"""


@pytest.fixture
async def harness(database, bus, nats):
    async with running_managers(database, bus, nats, direct=lambda: 1) as harness:
        yield harness


async def start(harness, *tasks):
    await harness.load(dag("d", *(tasks or [task("a")])))
    await harness.call(StartRun("d"))
    return await harness.order()


async def in_stream(harness) -> int:
    stats = await harness.bus.read_consumer_stats(STREAM_TASK, "default-async")
    return stats.waiting + stats.unacknowledged


async def gone(harness, worker):
    await harness.publish(f"{Subjects.WORKER_LOST}.0", WorkerLostMessage(worker))


async def test_a_new_task_goes_to_the_own_worker(harness):
    order = await start(harness, task("a"), task("b", inputs=["a"]))
    assert await harness.rows(LIVE) == [(0, "queued", True, "own", 1, 1)]
    assert await in_stream(harness) == 0
    for result in chain_of(order, "own"):
        await harness.report(result)
    await harness.until_states("success")
    assert len(harness.received) == 1


async def test_what_it_has_no_room_for_goes_over_the_bus(harness):
    await start(harness, *(task(f"t{number}", kind="async") for number in range(3)))
    orders = [await harness.order(), await harness.order()]
    rows = await harness.rows("SELECT direct, count(*) FROM task_live GROUP BY 1 ORDER BY 1")
    assert rows == [(False, 2), (True, 1)]
    assert sum(order.delivery.stream_seq > 0 for order in orders) == 2


async def test_a_queue_with_another_worker_is_left_to_the_bus(harness):
    harness.worker_bus.publish(Subjects.HEARTBEAT, encode(OTHER))
    await harness.until_value("SELECT 1 FROM worker")
    await start(harness)
    assert await harness.rows(LIVE) == [(0, "queued", False, None, 1, 1)]


async def test_what_it_gives_back_is_handed_out_over_the_bus(harness):
    order = await start(harness)
    order.delivery.nak()
    again = await harness.order()
    assert (again.message.attempt, again.message.delivery) == (1, 2)
    assert await harness.rows(LIVE) == [(0, "queued", False, None, 1, 2)]
    await harness.report(order.result(Outcome.FAILED))
    await harness.report(again.result())
    await harness.until_states("success")
    order.delivery.nak()
    await harness.call(StartRun("d"))
    assert (await harness.order()).message.run != order.message.run, "what has ended stays so"


@pytest.mark.parametrize("begun", [False, True])
async def test_a_task_of_a_lost_worker_is_handed_out_again(harness, begun):
    order = await start(harness)
    if begun:
        started = StartedMessage(*fence_of(order.message), "own", 1.0)
        await harness.publish(Subjects.inbound(Subjects.STARTED, started.run), started)
    await gone(harness, "other")
    state = "running" if begun else "queued"
    assert await harness.rows(LIVE) == [(0, state, True, "own", 1, 1)]
    await gone(harness, "own")
    assert (await harness.order()).message.delivery == 2
    await harness.report(order.result())
    assert await harness.rows(LIVE) == [(0, "queued", False, None, 1, 2)], "the dead have no say"


async def test_a_retry_goes_over_the_bus(harness):
    order = await start(harness, task("a", retry=RetryPolicy(1)))
    await harness.report(order.result(Outcome.CRASHED))
    assert (await harness.order()).delivery.stream_seq > 0


async def test_a_commit_that_broke_leaves_no_order_with_the_worker(harness, postgres):
    admin = await asyncpg.connect(postgres.url)
    await admin.execute(BREAK_AT_COMMIT)
    await admin.close()
    order = await start(harness)
    assert order.delivery.stream_seq > 0
    await harness.report(order.result())
    await harness.until_states("success")
    assert len(harness.received) == 1


@pytest.mark.parametrize("how", ["in doubt", "late"])
async def test_a_committed_order_that_the_worker_does_not_get_goes_over_the_bus(harness, how):
    direct = harness.managers[0]._processor.direct
    await harness.load(dag("d", task("a")))
    hand_over = direct.hand_over

    def do_not_hand_over(committed, _):
        others = [each for each in committed.orders if each[1].delivery > 1]
        if how == "late":
            return hand_over(committed, 5.0)
        direct.doubt(committed)
        return others

    direct.hand_over = do_not_hand_over
    await harness.call(StartRun("d"))
    order = await harness.order()
    assert (order.message.delivery, order.delivery.stream_seq > 0) == (2, True)


async def test_the_sweeper_leaves_a_direct_order_to_its_worker_for_a_minute(harness, database):
    own = Heartbeat("own", "here", 1, 4, 0, queues=("default",))
    harness.worker_bus.publish(Subjects.HEARTBEAT, encode(own))
    await harness.until_value("SELECT 1 FROM worker")
    await start(harness)

    async def lost():
        async with database.connection() as connection:
            found = await ManagerTransaction(connection).fetch(
                "find_undelivered_tasks", 0.0, 7.0, 9
            )
        return len(found)

    assert await lost() == 0
    await harness.rows("UPDATE task_live SET queued_at = now() - interval '2 minutes'")
    assert await lost() == 1
    await harness.rows("DELETE FROM worker")
    assert await lost() == 0, "it is handed out with the loss of its worker"
    async with database.connection() as connection:
        dead = await ManagerTransaction(connection).fetch("find_dead_workers", 7.0)
    assert [row["worker"] for row in dead] == ["own"]
