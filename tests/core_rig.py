"""Drives the core by hand: calls without a bus, and a worker that answers as it is told."""

import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import anyio
import msgspec
from dag_specs import loaded, uri

from pubsubflow.bus import STREAM_TASK, Bus, Puller
from pubsubflow.manager import Manager, ManagerSettings
from pubsubflow.manager.batch import Fold
from pubsubflow.manager.inbox import Item
from pubsubflow.model.wire.commands import PostEvents
from pubsubflow.model.wire.messages import (
    NO_NODE,
    NewEvent,
    Outcome,
    ResultMessage,
    TaskMessage,
    decode_run_info,
    decode_task,
    encode,
)
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.catalog import Catalog
from pubsubflow.store.database import begin
from pubsubflow.store.manager_transaction import FoldTransaction

PATIENCE_SECONDS = 20


def post(*names: str, keys: tuple[str | None, ...] | None = None, **fields) -> PostEvents:
    events = tuple(NewEvent(uri(name), **fields) for name in names)
    return PostEvents(events, keys or (None,) * len(names))


async def carry_out(database, fold: Fold, *calls):
    """Carry out calls in one transaction, without a bus; return answers, errors among them."""
    items = [Item(call, done=lambda _: None, failed=lambda _: None) for call in calls]
    async with database.connection() as connection:
        async with begin(connection):
            folded = await fold.fold(items, FoldTransaction(connection))
        fold.committed(folded)
    return [item.error or item.answer for item in items]


class Watched(Manager):
    """A manager that tells when it has done something."""

    def __init__(self, *, news: Callable[[], None], **given) -> None:
        super().__init__(**given)
        self._news = news
        self.handled = 0

    def _publish(self, folded) -> None:
        super()._publish(folded)
        self._news()

    def _done(self, answer) -> None:
        super()._done(answer)
        self.handled += 1
        self._news()


class Order:
    """A task in the hand-made worker's hands."""

    def __init__(self, message: TaskMessage, delivery) -> None:
        self.message = message
        self.delivery = delivery
        self.task_id = message.task_id
        self.info = decode_run_info(message.info)
        self.answered = False

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
            fence = (
                message.run, message.node, message.map_index, message.attempt, message.delivery
            )  # fmt: skip
        if value is not None:
            fields.setdefault("value", encode(value))
            fields.setdefault("length", len(value) if isinstance(value, list) else None)
        return ResultMessage(*fence, worker, Outcome(outcome), now, now, **fields)


def decoded(raw):
    return msgspec.msgpack.decode(raw)


class Rig:
    """Managers on real servers, and one worker moved by hand."""

    def __init__(self, database, bus: Bus, hand: Bus) -> None:
        self.database = database
        self.bus = bus
        self.hand = hand
        self.managers: list[Watched] = []
        self.orders: list[Order] = []
        self.seen: list[Order] = []
        self.automatic: Callable[[Order], list[ResultMessage]] | None = None
        self.changed = anyio.Event()
        self._told = 0

    def news(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()

    async def load(self, *dags, **options) -> None:
        files: dict[str, list] = {}
        for dag in dags:
            files.setdefault(dag.file, []).append(dag)
        await Catalog(self.database).save([loaded(*each, **options) for each in files.values()])

    async def until(self, check: Callable[[], Awaitable[object]]):
        """Wait until an asynchronous check gives something true, and return it."""
        with anyio.fail_after(PATIENCE_SECONDS):
            while True:
                changed = self.changed
                found = await check()
                if found:
                    return found
                with anyio.move_on_after(0.1):  # what others commit is no news here
                    await changed.wait()

    async def call(self, call, *, manager: int = 0):
        with anyio.fail_after(PATIENCE_SECONDS):
            return await self.managers[manager].call(call)

    async def post(self, *names: str, manager: int = 0, **fields):
        """Post events one after the other; each is told apart by its name in `extra`."""
        for name in names:
            fields["extra"] = {"name": name, **fields.get("extra", {})}
            await self.call(post(name.rstrip("0123456789"), **fields), manager=manager)
            fields.pop("extra")

    async def order(self, task_id: str | None = None, **fields) -> Order:
        """Wait for an order that nobody has taken yet."""

        async def look():
            for order in self.orders:
                wanted = task_id in (None, order.task_id)
                if wanted and all(getattr(order.message, k) == v for k, v in fields.items()):
                    self.orders.remove(order)
                    return order
            return None

        return await self.until(look)

    async def tell(self, subject: str, message, *, raw: bool = False) -> None:
        """Publish a message to the managers and wait until one of them has handled it."""
        handled = sum(manager.handled for manager in self.managers)
        await self.hand.publish_durable(subject, message if raw else encode(message))

        async def done():
            return sum(manager.handled for manager in self.managers) > handled

        await self.until(done)

    async def report(self, result: ResultMessage) -> None:
        """Send a result and wait until it is folded, or dropped."""
        await self.tell(Subjects.inbound(Subjects.RESULT, result.run), result)

    async def finish(self, task_id: str | None = None, *args, **fields) -> Order:
        """Take an order and report its result."""
        order = await self.order(task_id)
        order.delivery.ack()
        await self.report(order.result(*args, **fields))
        return order

    async def rows(self, query: str, *arguments):
        async with self.database.connection() as connection:
            return [tuple(row) for row in await connection.fetch(query, *arguments)]

    async def value(self, query: str, *arguments):
        rows = await self.rows(query, *arguments)
        return rows[0][0] if rows else None

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
        """Wait until every order is answered, every answer folded and nothing is live."""

        async def idle():
            live = await self.value(
                "SELECT (SELECT count(*) FROM run_live) + (SELECT count(*) FROM run_queue)"
            )
            return not live and not self.hand.outstanding

        await self.until(idle)

    def take(self, delivery) -> None:
        order = Order(decode_task(delivery.data), delivery)
        self.seen.append(order)
        if self.automatic is None:
            self.orders.append(order)
            self.news()
            return
        self.answer(order, self.automatic(order))

    def answer(self, order: Order, results: list[ResultMessage]) -> None:
        """Send results without waiting; the order is acknowledged when the first is stored."""
        for number, result in enumerate(results):
            self._told += 1
            self.hand.publish_durable_nowait(
                Subjects.inbound(Subjects.RESULT, result.run),
                encode(result),
                message_id=f"hand.{self._told}",
                on_done=order.delivery.ack if number == 0 else lambda: None,
            )


def chain_of(order: Order, worker: str = "w1") -> list[ResultMessage]:
    """Return what a runner says that goes straight on to the end of the chain."""
    nodes = order.message.chain
    return [
        order.result(
            worker=worker, chain=place, then=nodes[place] if place < len(nodes) else NO_NODE
        )
        for place in range(len(nodes) + 1)
    ]


@asynccontextmanager
async def running(database, bus: Bus, nats, *, managers=1, pull=True, connections=None, **settings):
    """Run managers, and the hand-made worker's puller for both kinds of the queue `default`."""
    async with AsyncExitStack() as stack:
        hand = await stack.enter_async_context(Bus.connect(nats))
        rig = Rig(database, bus, hand)
        stopping, last = anyio.Event(), anyio.Event()
        group = await stack.enter_async_context(anyio.create_task_group())
        for _ in range(managers):
            manager = Watched(
                database=database,
                bus=bus,
                settings=ManagerSettings(**settings),
                news=rig.news,
                connections=connections,
            )
            rig.managers.append(manager)
            await group.start(manager.run, last)
        for kind in ("async", "sync") if pull else ():
            puller = Puller(
                hand,
                stream=STREAM_TASK,
                durable=f"default-{kind}",
                filter_subject=f"psf.task.default.{kind}.>",
                deliver=partial(_deliver, rig, kind),
            )
            puller.credit(10_000)
            await group.start(puller.run, stopping)
        try:
            yield rig
        finally:
            stopping.set()
            last.set()


def _deliver(rig: Rig, kind: str, delivery) -> None:
    assert f".{kind}." in delivery.subject
    rig.take(delivery)
