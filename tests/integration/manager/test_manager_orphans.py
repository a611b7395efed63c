"""Tasks that the database has at a worker which lives and does not have them any more."""

import datetime as dt

import msgspec
import pytest

from pubsubflow.manager.orphans import OrphanFinder
from pubsubflow.model.wire.commands import StartRun
from pubsubflow.model.wire.heartbeat import Heartbeat
from pubsubflow.model.wire.held_tasks import HeldTasksReply, decode_held_request
from pubsubflow.model.wire.messages import StartedMessage, encode
from pubsubflow.model.wire.subjects import Subjects
from support.harness import chain_of, fence_of, running_managers
from support.specs import dag, task

pytestmark = pytest.mark.anyio
ATTEMPTS = "SELECT attempt, delivery, worker, error->>'type' AS type FROM attempt"


class ScriptedWorker:
    """A worker that has what a test says, and sends heartbeats.

    Attributes:
        holds: Fences of the tasks that it has.
        asked: Fences that it was asked for, request by request.
    """

    def __init__(self, harness, name="w1"):
        self.harness, self.name = harness, name
        self.holds, self.asked = set(), []
        self.subject = Subjects.held_tasks(name)

    async def beat(self):
        self.harness.worker_bus.publish(
            Subjects.HEARTBEAT, encode(Heartbeat(self.name, "host", 1, 8, 1))
        )
        query = "SELECT 1 FROM worker WHERE worker = $1"
        await self.harness.until_value(query, self.name)

    async def start(self, order):
        """Take an order, of which the bus has the message no longer, and report its start."""
        order.delivery.ack()
        await self.report_start(fence_of(order.message))

    async def report_start(self, fence):
        message = StartedMessage(*fence, self.name, 1.0)
        await self.harness.publish(Subjects.inbound(Subjects.STARTED, fence[0]), message)

    def answer(self, message):
        fences = decode_held_request(message.data).fences
        self.asked.append(fences)
        message.respond(encode(HeldTasksReply(tuple(set(fences) - self.holds))))


@pytest.fixture
async def worker(harness):
    worker = ScriptedWorker(harness)
    async with await harness.worker_bus.subscribe(worker.subject, worker.answer):
        await harness.worker_bus.flush()
        await worker.beat()
        yield worker


@pytest.fixture
def finder(harness):
    return OrphanFinder(
        database=harness.database,
        bus=harness.bus,
        commands=harness.managers[0],
        running_seconds=0.0,
        worker_seconds=60.0,
    )


async def call(harness, name, body=None):
    payload = b"" if body is None else msgspec.json.encode(body)
    response = msgspec.json.decode(await harness.bus.request(f"$JS.API.{name}", payload, 5))
    assert "error" not in response, response
    return response


async def pause_managers(harness):
    """Keep managers from messages, as if they stood still; those stay in their stream."""
    until = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    await call(harness, "CONSUMER.PAUSE.PSF_IN.managers", {"pause_until": until})


async def resume_managers(harness):
    await call(harness, "CONSUMER.PAUSE.PSF_IN.managers", {})


async def running_task(harness, worker, *tasks):
    await harness.load(dag("d", *(tasks or (task("a"),))))
    await harness.call(StartRun("d"))
    order = await harness.order()
    await worker.start(order)
    return order


async def test_a_task_that_is_missing_twice_runs_again(harness, worker, finder):
    order = await running_task(harness, worker)
    assert await finder.look() == 0, "its result may be on its way"
    assert await finder.look() == 1
    assert worker.asked == [(fence_of(order.message),)] * 2
    again = await harness.order("a")
    assert (again.message.attempt, again.message.delivery) == (1, 2)
    assert [tuple(row) for row in await harness.rows(ATTEMPTS)] == [(1, 1, "w1", "Lost")]
    text = await harness.value("SELECT error->>'message' FROM attempt")
    assert "w1 lives and has neither this task nor its result" in text
    await harness.report(again.result(worker="w2"))
    await harness.until_states("success")
    assert [value for _, value in finder.found.read()] == [1]


async def test_a_task_that_its_worker_has_is_left_alone(harness, worker, finder):
    order = await running_task(harness, worker)
    worker.holds.add(fence_of(order.message))
    for _ in range(3):
        assert await finder.look() == 0
    await harness.report(order.result())
    await harness.until_states("success")


async def test_missing_once_and_then_there_is_not_twice(harness, worker, finder):
    order = await running_task(harness, worker)
    assert await finder.look() == 0
    worker.holds.add(fence_of(order.message))
    assert await finder.look() == 0
    worker.holds.clear()
    assert await finder.look() == 0


async def test_what_managers_are_behind_with_is_not_lost(harness, worker, finder):
    """The worker has handed its result over, and nobody has taken it: the task runs once."""
    order = await running_task(harness, worker)
    await pause_managers(harness)
    result = order.result()
    subject = Subjects.inbound(Subjects.RESULT, result.run)
    await harness.worker_bus.publish_durable(subject, encode(result))
    for _ in range(4):
        assert await finder.look() == 0
    await resume_managers(harness)
    await harness.until_states("success")
    assert len(harness.received) == 1
    assert await harness.rows("SELECT FROM attempt") == []


async def test_a_manager_that_has_a_result_and_stands_still_has_it(
    harness, worker, finder, monkeypatch
):
    """What was delivered and is not acknowledged is in the stream: it comes to another manager."""
    order = await running_task(harness, worker)
    manager = harness.managers[0]
    delivered = []
    monkeypatch.setattr(manager._consumer, "_deliver", delivered.append)
    result = order.result()
    subject = Subjects.inbound(Subjects.RESULT, result.run)
    await harness.worker_bus.publish_durable(subject, encode(result))

    async def came():
        return delivered

    await harness.until(came)
    for _ in range(3):
        assert await finder.look() == 0
    manager._deliver(delivered[0])
    await harness.until_states("success")


async def test_what_was_purged_before_a_manager_took_it_runs_again(harness, worker, finder):
    order = await running_task(harness, worker)
    await pause_managers(harness)
    result = order.result()
    subject = Subjects.inbound(Subjects.RESULT, result.run)
    await harness.worker_bus.publish_durable(subject, encode(result))
    await call(harness, "STREAM.PURGE.PSF_IN")
    await resume_managers(harness)
    assert [await finder.look() for _ in range(2)] == [0, 1]
    again = await harness.order("a")
    await harness.report(again.result())
    await harness.until_states("success")


async def test_a_stream_that_was_made_anew_hides_nothing(harness, worker, finder):
    await running_task(harness, worker)
    await call(harness, "STREAM.DELETE.PSF_IN")
    await harness.bus.ensure_streams()
    assert [await finder.look() for _ in range(2)] == [0, 1]
    assert (await harness.order("a")).message.delivery == 2


async def test_results_that_wait_for_a_lost_one_do_not_hide_it(harness, worker, finder):
    """The result of a chain's next task stays in the stream until that of its first one came."""
    order = await running_task(harness, worker, task("a"), task("b", "a"))
    first, second = chain_of(order)
    subject = Subjects.inbound(Subjects.RESULT, second.run)
    await harness.worker_bus.publish_durable(subject, encode(second))
    assert [await finder.look() for _ in range(2)] == [0, 1]
    again = await harness.order("a")
    for result in chain_of(again):
        await harness.report(result)
    await harness.until_states("success")
    assert first.delivery < again.message.delivery


async def test_a_task_of_a_chain_runs_again_alone(harness, worker, finder):
    await harness.load(dag("d", task("a"), task("b", "a")))
    await harness.call(StartRun("d"))
    order = await harness.order("a")
    order.delivery.ack()
    await harness.report(chain_of(order)[0])
    assert [await finder.look() for _ in range(2)] == [0, 1]
    again = await harness.order("b")
    assert again.message.delivery == 2
    await harness.report(chain_of(order)[1])  # it was not lost after all, and comes too late
    await harness.report(again.result(worker="w2"))
    await harness.until_states("success")
    query = "SELECT worker FROM task WHERE node = $1"
    assert await harness.value(query, again.message.node) == "w2"


async def test_a_task_whose_order_will_be_delivered_again_is_left_alone(harness, worker, finder):
    """The worker has given it back: the bus has its order, for another one."""
    await harness.load(dag("d", task("a")))
    await harness.call(StartRun("d"))
    order = await harness.order()
    await worker.report_start(fence_of(order.message))
    for _ in range(3):
        assert await finder.look() == 0
    await harness.report(order.result(worker="w2"))
    await harness.until_states("success")


async def test_a_worker_that_does_not_answer_has_all(harness, finder):
    """One of an earlier version does not listen, one that hangs does not reply."""
    worker = ScriptedWorker(harness)
    await worker.beat()
    order = await running_task(harness, worker)
    for _ in range(3):
        assert await finder.look() == 0
    await harness.report(order.result())
    await harness.until_states("success")


async def test_a_task_that_changes_hands_is_counted_anew(harness, worker, finder):
    order = await running_task(harness, worker)
    other = ScriptedWorker(harness, "w2")
    async with await harness.worker_bus.subscribe(other.subject, other.answer):
        await harness.worker_bus.flush()
        await other.beat()
        assert await finder.look() == 0
        await other.report_start(fence_of(order.message))
        assert await finder.look() == 0
        assert await finder.look() == 1
    assert [len(worker.asked), len(other.asked)] == [1, 2]


async def test_what_has_ended_meanwhile_stays_ended(harness, worker, finder, monkeypatch):
    """A result that is processed while the streams are read changes its row first."""
    order = await running_task(harness, worker)
    without_trace = finder._without_trace

    async def late(suspects):
        found = await without_trace(suspects)
        await harness.report(order.result())
        return found

    monkeypatch.setattr(finder, "_without_trace", late)
    assert [await finder.look() for _ in range(2)] == [0, 0]
    await harness.until_states("success")
    assert await harness.rows("SELECT FROM attempt") == []


@pytest.mark.parametrize("spoil", ["many", "unreadable"])
async def test_while_it_cannot_be_said_nothing_runs_again(
    harness, worker, finder, monkeypatch, spoil
):
    order = await running_task(harness, worker)
    await pause_managers(harness)
    subject = Subjects.inbound(Subjects.RESULT, order.message.run)
    other = order.result(worker="elsewhere")
    other = msgspec.structs.replace(other, run=order.message.run + 8)
    payload = encode(other) if spoil == "many" else b"\xc1"
    monkeypatch.setattr("pubsubflow.manager.orphans._MOST_RESULTS", 2)
    for _ in range(2):
        await harness.worker_bus.publish_durable(subject, payload)
    for _ in range(3):
        assert await finder.look() == 0
    await call(harness, "STREAM.PURGE.PSF_IN")
    await resume_managers(harness)
    assert await finder.look() == 1


async def test_all_pages_are_looked_at(harness, worker, finder, monkeypatch):
    monkeypatch.setattr("pubsubflow.manager.orphans._PAGE", 2)
    await harness.load(dag("d", task("m", over=[5])))
    await harness.call(StartRun("d"))
    for _ in range(5):
        await worker.start(await harness.order())
    assert [await finder.look() for _ in range(2)] == [0, 5]
    assert [len(fences) for fences in worker.asked] == [2, 2, 1] * 2


async def test_a_task_that_was_given_directly_runs_again(database, bus, nats):
    async with running_managers(database, bus, nats, direct=lambda: 8) as harness:
        worker = ScriptedWorker(harness, "own")
        async with await harness.worker_bus.subscribe(worker.subject, worker.answer):
            await harness.worker_bus.flush()
            await worker.beat()
            await harness.load(dag("d", task("a")))
            await harness.call(StartRun("d"))
            order = await harness.order()
            assert await harness.value("SELECT direct FROM task_live")
            await worker.start(order)
            finder = OrphanFinder(
                database=database,
                bus=bus,
                commands=harness.managers[0],
                running_seconds=0.0,
                worker_seconds=60.0,
            )
            assert [await finder.look() for _ in range(2)] == [0, 1]
            again = await harness.order("a")
            await harness.report(again.result(worker="own"))
            await harness.until_states("success")
