"""Test harness: managers on real servers, and a scripted worker that reports what a test says."""

import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import anyio
import msgspec

from pubsubflow.bus import STREAM_TASK, Bus
from pubsubflow.manager import Manager, ManagerSettings
from pubsubflow.manager.batch import BatchProcessor
from pubsubflow.manager.inbox import InboxItem
from pubsubflow.model.wire.commands import RecordEvents
from pubsubflow.model.wire.messages import (
    NO_NODE,
    NOT_MAPPED,
    EmittedEvent,
    LogMessage,
    NewEvent,
    Outcome,
    ResultMessage,
    StartedMessage,
    TaskError,
    TaskMessage,
    decode_run_info,
    decode_task,
    encode,
)
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.batches.manager_transaction import ManagerTransaction
from pubsubflow.store.catalog import Catalog
from pubsubflow.store.database import begin_transaction
from pubsubflow.worker.consumer import DirectDelivery
from support.consumers import start_consumer
from support.signals import TIMEOUT_SECONDS, Signal
from support.specs import loaded, uri

NOW = int(time.time())
LIVE_RUNS = "SELECT (SELECT count(*) FROM run_live) + (SELECT count(*) FROM run_queue)"
DELIVERY = """
SELECT delivery FROM task_live
WHERE run = $1 AND node = $2 AND map_index = $3 AND attempt = $4 AND state IN ('queued', 'running')
"""


def post(*names: str, keys: tuple[str | None, ...] | None = None, **fields) -> RecordEvents:
    events = tuple(NewEvent(uri(name), **fields) for name in names)
    return RecordEvents(events, keys or (None,) * len(names))


async def commit_batch(database, processor: BatchProcessor, items: list[InboxItem]):
    """Process a batch and commit it; return what is to be published after that."""
    async with database.connection() as connection:
        async with begin_transaction(connection):
            batch = await processor.process(items, ManagerTransaction(connection))
        processor.committed(batch)
    return batch


async def process_batch(database, processor: BatchProcessor, *commands):
    """Process commands in one transaction, without a bus; return answers, errors among them."""
    items = [InboxItem(command, done=lambda _: None, failed=lambda _: None) for command in commands]
    await commit_batch(database, processor, items)
    return [item.error or item.answer for item in items]


@asynccontextmanager
async def running(service):
    """Run a service for the length of a block; it drains at the end."""
    stopping = anyio.Event()
    async with anyio.create_task_group() as group:
        await group.start(service.run, stopping)
        yield service
        stopping.set()


class Harness:
    """A database and a bus: loads DAGs, reads rows, and reports on tasks as their worker does."""

    def __init__(self, database, bus: Bus) -> None:
        self.database = database
        self.bus = bus
        self.catalog = Catalog(database)
        self.signal = Signal()

    async def load(self, *dags, **options) -> None:
        files: dict[str, list] = {}
        for dag in dags:
            files.setdefault(dag.file, []).append(dag)
        await self.catalog.save([loaded(*each, **options) for each in files.values()])

    async def until(self, check: Callable[[], Awaitable[object]]):
        """Wait until a check gives something true, and return it."""
        # Polled as well: a commit of another process notifies of nothing here.
        return await self.signal.wait_until(check, poll_seconds=0.1)

    async def rows(self, query: str, *arguments):
        async with self.database.connection() as connection:
            return await connection.fetch(query, *arguments)

    async def value(self, query: str, *arguments):
        rows = await self.rows(query, *arguments)
        return rows[0][0] if rows else None

    async def until_value(self, query: str, *arguments):
        """Wait until a query gives a row, and return its first column."""

        async def found():
            rows = await self.rows(query, *arguments)
            return [rows[0][0]] if rows else None

        return (await self.until(found))[0]

    async def run_number(self, run_id) -> int:
        return await self.until_value("SELECT id FROM run WHERE run_id = $1", run_id)

    async def begin(self, run_id, node, *, attempt=1):
        """Report that a task has started."""
        run = await self.run_number(run_id)
        message = StartedMessage(run, node, NOT_MAPPED, attempt, attempt, "worker-1", NOW)
        await self._report(Subjects.STARTED, message)

    async def finish(self, run_id, node, *, map_index=NOT_MAPPED, attempt=1, **fields):
        """Report how a task ended, once it is handed out."""
        run = await self.run_number(run_id)
        delivery = await self.until_value(DELIVERY, run, node, map_index, attempt)
        value = fields.pop("value", None)
        message = ResultMessage(
            run,
            node,
            map_index,
            attempt,
            delivery,
            "worker-1",
            fields.pop("outcome", Outcome.SUCCESS),
            NOW + fields.pop("started", 0),
            NOW + fields.pop("ended", 1),
            b"" if value is None else encode(value),
            len(value) if isinstance(value, list) else None,
            tuple(map(_emitted, fields.pop("emits", ()))),
            **fields,
        )
        await self._report(Subjects.RESULT, message)

    async def fail(self, run_id, node, message="no space", *, final=False, **fields):
        """Report that a task has failed."""
        error = TaskError("OSError", message, "Traceback: here", final=final)
        await self.finish(run_id, node, outcome=Outcome.FAILED, error=error, **fields)

    async def write(self, run_id, node, sequence, *lines, attempt=1):
        """Report a task's output."""
        run = await self.run_number(run_id)
        fields = ({"t": NOW, "s": "stdout", "m": line} for line in lines)
        text = "".join(f"{msgspec.json.encode(each).decode()}\n" for each in fields)
        message = LogMessage(run, node, NOT_MAPPED, attempt, attempt, sequence, text)
        await self._report(Subjects.LOG, message)

    async def _report(self, kind: str, message) -> None:
        await self.bus.publish_durable(Subjects.inbound(kind, message.run), encode(message))


def _emitted(event: EmittedEvent | str) -> EmittedEvent:
    return EmittedEvent(event) if isinstance(event, str) else event


class ObservedManager(Manager):
    """A manager that notifies when it has done something.

    Args:
        on_change: Called then.
        rank: Its rank among managers, in place of one that no other has.
    """

    def __init__(self, *, on_change: Callable[[], None], rank: int | None, **arguments) -> None:
        super().__init__(**arguments)
        self._on_change = on_change
        self._rank = rank
        self.handled = 0

    async def _greet(self, connection) -> None:
        await super()._greet(connection)
        if self._rank is not None:
            self._consumer.rank = self._rank

    def put(self, *items: InboxItem) -> None:
        """Have items processed in one batch."""
        self._waiting.extend(items)
        self._wake.set()

    def _respond(self, done) -> None:
        super()._respond(done)
        self._on_change()

    def _acknowledge(self, answer) -> None:
        super()._acknowledge(answer)
        self.handled += 1
        self._on_change()


class Order:
    """A task order that the scripted worker has received."""

    def __init__(self, message: TaskMessage, delivery) -> None:
        self.message = message
        self.delivery = delivery
        self.task_id = message.task_id
        self.info = decode_run_info(message.info)

    @property
    def events(self) -> list[str]:
        """Return the `name` of every event that the run consumed, in order."""
        return [event.extra.get("name") for event in self.info.events]

    @property
    def inputs(self) -> dict:
        return {node: decoded(raw) for node, raw in self.message.inputs.items()}

    @property
    def elements(self) -> dict:
        return {name: decoded(raw) for name, raw in self.message.elements.items()}

    def result(self, outcome=Outcome.SUCCESS, *, worker="w1", chain: int = 0, value=None, **fields):
        """Return the result of the order, or of the `chain`-th task that follows it."""
        now = time.time()
        message = self.message
        if chain:
            before = (message.node, *message.chain)[chain - 1]
            fields.setdefault("after", before)
            fence = (message.run, message.chain[chain - 1], -1, 1, message.delivery)
        else:
            fence = fence_of(message)
        if value is not None:
            fields.setdefault("value", encode(value))
            fields.setdefault("length", len(value) if isinstance(value, list) else None)
        return ResultMessage(*fence, worker, Outcome(outcome), now, now, **fields)


def fence_of(message: TaskMessage) -> tuple[int, int, int, int, int]:
    return message.run, message.node, message.map_index, message.attempt, message.delivery


def decoded(raw):
    return msgspec.msgpack.decode(raw)


class ManagerHarness(Harness):
    """Managers, and a scripted worker that takes orders and sends results.

    Attributes:
        worker_bus: The worker's connection.
        orders: Orders that no test step has taken yet.
        received: All orders.
        automatic: Answers each order at once; without it orders wait for the test.
    """

    def __init__(self, database, bus: Bus, worker_bus: Bus) -> None:
        super().__init__(database, bus)
        self.worker_bus = worker_bus
        self.managers: list[ObservedManager] = []
        self.orders: list[Order] = []
        self.received: list[Order] = []
        self.automatic: Callable[[Order], list[ResultMessage]] | None = None
        self._sent = 0

    async def call(self, command, *, manager: int = 0):
        with anyio.fail_after(TIMEOUT_SECONDS):
            return await self.managers[manager].execute(command)

    async def post(self, *names: str, manager: int = 0, **fields):
        """Post events one after the other; `extra` holds the name of each, to know it by."""
        for name in names:
            fields["extra"] = {"name": name, **fields.get("extra", {})}
            await self.call(post(name.rstrip("0123456789"), **fields), manager=manager)
            fields.pop("extra")

    async def order(self, task_id: str | None = None, **fields) -> Order:
        """Wait for an order that no test step has taken yet, and take it."""

        def find():
            for order in self.orders:
                wanted = task_id in (None, order.task_id)
                if wanted and all(getattr(order.message, k) == v for k, v in fields.items()):
                    self.orders.remove(order)
                    return order
            return None

        return await self.until(find)

    async def publish(self, subject: str, message, *, raw: bool = False) -> None:
        """Publish a message to the managers and wait until one of them has handled it."""
        handled = sum(manager.handled for manager in self.managers)
        await self.worker_bus.publish_durable(subject, message if raw else encode(message))
        await self.until(lambda: sum(manager.handled for manager in self.managers) > handled)

    async def report(self, result: ResultMessage) -> None:
        """Send a result and wait until it is processed, or dropped."""
        await self.publish(Subjects.inbound(Subjects.RESULT, result.run), result)

    async def finish(self, task_id: str | None = None, *arguments, **fields) -> Order:
        """Take an order and report its result."""
        order = await self.order(task_id)
        order.delivery.ack()
        await self.report(order.result(*arguments, **fields))
        return order

    async def states(self, dag_id: str | None = None) -> list[str]:
        """Return the states of runs in the order in which they were made."""
        return [
            state
            for (state,) in await self.rows(
                "SELECT state FROM run JOIN dag ON dag.id = run.dag"
                " WHERE $1::text IS NULL OR dag_id = $1 ORDER BY run_id",
                dag_id,
            )
        ]

    async def tasks(self) -> dict[str, str]:
        """Return the state of every task instance that ended, by `<node>` or `<node>.<index>`."""
        return {
            f"{node}" if index == -1 else f"{node}.{index}": state
            for node, index, state in await self.rows("SELECT node, map_index, state FROM task")
        }

    async def until_states(self, *states: str, dag_id: str | None = None) -> None:
        async def same():
            return await self.states(dag_id) == list(states)

        try:
            await self.until(same)
        except TimeoutError:
            assert await self.states(dag_id) == list(states)
            raise

    async def quiet(self) -> None:
        """Wait until every order is answered, every answer processed and no run is live."""

        async def idle():
            return not await self.value(LIVE_RUNS) and not self.worker_bus.outstanding

        await self.until(idle)

    def receive(self, delivery) -> None:
        order = Order(decode_task(delivery.data), delivery)
        self.received.append(order)
        if self.automatic is None:
            self.orders.append(order)
            self.signal.notify()
            return
        self.answer(order, self.automatic(order))

    def answer(self, order: Order, results: list[ResultMessage]) -> None:
        """Send results without waiting; the order is acknowledged when the first is stored."""
        for number, result in enumerate(results):
            self._sent += 1
            self.worker_bus.publish_durable_nowait(
                Subjects.inbound(Subjects.RESULT, result.run),
                encode(result),
                message_id=f"scripted.{self._sent}",
                on_done=order.delivery.ack if number == 0 else lambda: None,
            )


class ScriptedTaker:
    """The worker of a manager's own daemon: what it is given goes to the scripted worker.

    Attributes:
        space: How many orders it takes a batch.
    """

    worker_id = "own"

    def __init__(self, harness: ManagerHarness, space: Callable[[], int]) -> None:
        self._harness = harness
        self.space = space

    def room(self, queue: str, kind: str) -> int:
        assert (queue, kind) in {("default", "async"), ("default", "sync")}
        return self.space()

    def take(self, queue: str, kind: str, subject: str, data: bytes, give_back) -> None:
        assert subject.startswith(f"psf.task.{queue}.{kind}.")
        self._harness.receive(DirectDelivery(subject, data, give_back))


def chain_of(order: Order, worker: str = "w1") -> list[ResultMessage]:
    """Return the results of a runner that goes straight on to the end of the chain."""
    nodes = order.message.chain
    return [
        order.result(
            worker=worker, chain=index, then=nodes[index] if index < len(nodes) else NO_NODE
        )
        for index in range(len(nodes) + 1)
    ]


@asynccontextmanager
async def running_managers(
    database,
    bus: Bus,
    nats,
    *,
    managers=1,
    pull=True,
    connections=None,
    direct=None,
    variables=None,
    rank=0,
    **settings,
):
    """Run managers, and the scripted worker's consumers for both kinds of the queue `default`.

    With `direct`, which says how many, the managers give it orders without the bus, too. They take
    turns at messages, so that they meet, unless `rank` is None: then each has one of its own.
    """
    async with AsyncExitStack() as stack:
        worker_bus = await stack.enter_async_context(Bus.connect(nats))
        harness = ManagerHarness(database, bus, worker_bus)
        stopping, last = anyio.Event(), anyio.Event()
        group = await stack.enter_async_context(anyio.create_task_group())
        for _ in range(managers):
            manager = ObservedManager(
                database=database,
                bus=bus,
                settings=ManagerSettings(**settings),
                on_change=harness.signal.notify,
                rank=rank,
                connections=connections,
                variables=variables,
            )
            harness.managers.append(manager)
            if direct is not None:
                manager.hand_to(ScriptedTaker(harness, direct))
            await group.start(manager.run, last)
        for kind in ("async", "sync") if pull else ():
            await start_consumer(
                group,
                worker_bus,
                stopping,
                stream=STREAM_TASK,
                durable=f"default-{kind}",
                filter_subject=f"psf.task.default.{kind}.>",
                deliver=partial(_deliver, harness, kind),
            )
        try:
            yield harness
        finally:
            stopping.set()
            last.set()


def _deliver(harness: ManagerHarness, kind: str, delivery) -> None:
    assert f".{kind}." in delivery.subject
    harness.receive(delivery)
