"""The manager: takes messages and commands, processes them batch by batch, publishes what follows.

While one transaction runs, messages gather; the next takes all of them, up to 500. There is no
timer, and nothing polls.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import structlog
from anyio.abc import TaskStatus

from pubsubflow.bus import STREAM_IN, Bus, Delivery, Message, PullConsumer
from pubsubflow.errors import (
    BusUnavailable,
    NewerFormat,
    ServiceStopped,
    StoreConflict,
    StoreLocked,
    StoreUnavailable,
    Unavailable,
)
from pubsubflow.manager.batch import BatchProcessor
from pubsubflow.manager.epochs import EpochGuard
from pubsubflow.manager.follow_ups import follow_ups
from pubsubflow.manager.inbox import (
    InboxItem,
    Throughput,
    answer,
    fail,
    fail_callers,
    failure_of,
    fill_batch,
    give_up,
    hold_messages,
    ignore,
    item_of,
    retry_later,
)
from pubsubflow.manager.liveness import Heartbeats, Uptime
from pubsubflow.manager.metrics import ManagerMetrics
from pubsubflow.manager.outage import StoreOutage
from pubsubflow.manager.outbox.direct_orders import DirectOrders
from pubsubflow.manager.outbox.ends import announce_ends
from pubsubflow.manager.outbox.orders import publish_orders
from pubsubflow.manager.outbox.publish import publish_changes
from pubsubflow.manager.outbox.spans import record_spans
from pubsubflow.manager.refusals import Refusals
from pubsubflow.manager.remembered_batches import RememberedBatches
from pubsubflow.manager.settings import ManagerSettings
from pubsubflow.manager.unit_of_work import CommittedBatch
from pubsubflow.manager.worker_requests import WorkerRequestServer
from pubsubflow.model.traces import CURRENT, NoTracing, Tracing
from pubsubflow.model.wire.backlog import QueueBacklog
from pubsubflow.model.wire.commands import Command, FireTimers, ReturnDirectOrders, Timer
from pubsubflow.model.wire.direct_orders import OrderTaker
from pubsubflow.model.wire.messages import ResultMessage
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.batches.manager_transaction import ManagerTransaction
from pubsubflow.store.clock import StoreClock
from pubsubflow.store.database import Connection, Database, begin_transaction
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.secrets.connections import Connections
from pubsubflow.store.secrets.variables import Variables
from pubsubflow.wakeup import RunEnds, announce_variable

log = structlog.get_logger()

_ACK_WAIT_SECONDS = 3.0
_OPEN_SUBJECT = Subjects.EVENT.encode()
_AWAY = "Postgres is away: try again, under the same id or key if there is one"


class Manager:
    """One manager; several share the work through one JetStream consumer.

    Args:
        database: Postgres; one connection is held while the manager runs.
        bus: NATS.
        settings: How it works.
        listens: Whether it takes messages from the bus; without, it only carries out commands.
        processor: What decides; a new one unless given.
        connections: The connections of tasks; they get none if left out.
        variables: Their variables, likewise.
        metrics: What it measures; new ones unless given.
        tracing: Collects traces; none are collected unless given.

    Attributes:
        run_ends: Announces ends of runs to those in this daemon who wait for them.
        uptime: For how long both servers have been reachable.
    """

    def __init__(
        self,
        *,
        database: Database,
        bus: Bus,
        settings: ManagerSettings | None = None,
        listens: bool = True,
        processor: BatchProcessor | None = None,
        connections: Connections | None = None,
        variables: Variables | None = None,
        metrics: ManagerMetrics | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._database = database
        self._bus = bus
        self._connections = connections
        self._variables = variables
        self._settings = settings or ManagerSettings()
        self._listens = listens
        self._tracing = tracing or NoTracing()
        self.clock = StoreClock()
        self._processor = processor or BatchProcessor(
            now=self.clock.now,
            tracing=self._tracing,
            max_map_length=self._settings.max_map_length,
        )
        self.uptime = Uptime(bus, self.clock)
        self.run_ends = RunEnds()
        self._waiting: deque[InboxItem] = deque()
        self.metrics = metrics or ManagerMetrics()
        self.metrics.watch(self._waiting)
        self._remembered = RememberedBatches(
            self._processor, database.metrics.statement_seconds.observe, self.metrics.remembered
        )
        self._refusals = Refusals(bus, self.metrics)
        self._throughput = Throughput()
        self._outage = StoreOutage()
        self._locked = False
        self._wake = anyio.Event()
        self._heartbeats = Heartbeats()
        self._epochs = EpochGuard(bus)
        self._accepting = False
        self._consumer = PullConsumer(
            bus,
            stream=STREAM_IN,
            durable="managers",
            filter_subject="psf.in.>",
            deliver=self._deliver,
            ack_wait_seconds=_ACK_WAIT_SECONDS,
            open_subject=_OPEN_SUBJECT,
            ranked=True,
        )

    async def execute(self, command: Command) -> Any:
        """Carry out a command; see `pubsubflow.model.wire.commands.CommandHandler`."""
        if not self._accepting:
            raise ServiceStopped("manager")
        # A caller repeats its request under the same key; one that waited would only time out.
        if self._outage.since is not None and self._outage.impatient:
            raise StoreUnavailable(_AWAY)
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(
            InboxItem(
                command,
                done=partial(answer, answered),
                failed=partial(fail, answered),
                trace=CURRENT.get(),
            )
        )
        self._wake.set()
        return await answered

    def hand_to(self, taker: OrderTaker) -> None:
        """Hand tasks to the worker of this daemon directly, where no other one gets a share."""
        self._heartbeats.own = taker.worker_id
        self._processor.direct = DirectOrders(taker, self._heartbeats.is_shared, self._submit)

    def _submit(self, command: ReturnDirectOrders, on_failure: Callable[[Exception], None]) -> None:
        # After the stop they are left to another manager: the worker has signed off.
        if self._accepting:
            self._waiting.append(InboxItem(command, done=ignore, failed=on_failure))
            self._wake.set()

    def backlog(self) -> QueueBacklog:
        """Return the commands that were received here and are not processed yet."""
        return self._throughput.backlog(self._waiting, away=self._outage.impatient)

    async def run(
        self,
        stopping: anyio.Event,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Process until `stopping` is set and what waits by then is done."""
        self._accepting = True
        async with anyio.create_task_group() as group:
            draining = anyio.Event()
            await group.start(self._process_until, draining)
            group.start_soon(self._watch, stopping)
            if self._listens:
                await self._listen(group, stopping)
            task_status.started()
            await stopping.wait()
            self._accepting = False
            draining.set()
            self._wake.set()
        # What came after the drain began: messages go to another manager, callers fail.
        give_up(self._waiting)

    async def _listen(self, group: anyio.abc.TaskGroup, stopping: anyio.Event) -> None:
        requests = WorkerRequestServer(
            self._database,
            self.uptime,
            connections=self._connections,
            variables=self._variables,
            execute=self.execute,
            announce=partial(announce_variable, self._bus),
        )
        await group.start(requests.run, stopping)
        beats = self._heartbeats.receive
        for subject, handler, queue in (
            (Subjects.WORKER_REQUEST, requests.receive, "managers"),
            (Subjects.WORKER_REQUEST_TO_ALL, requests.receive, ""),
            # To all: a manager that hangs still belongs to a group, and keeps what it gets.
            (Subjects.HEARTBEAT, beats, ""),
        ):
            await group.start(self._subscribe, subject, handler, queue, stopping)
        self._consumer.credit(self._settings.credit)
        await group.start(partial(self._consumer.run, stopping))

    async def _watch(self, stopping: anyio.Event) -> None:
        """Save heartbeats, and watch the servers, until `stopping` is set."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._heartbeats.keep_saving, self._database.in_turn, self.uptime)
            group.start_soon(self.uptime.watch, self._database)
            await stopping.wait()
            group.cancel_scope.cancel()

    async def _subscribe(
        self,
        subject: str,
        handler: Callable[[Message], None],
        queue: str,
        stopping: anyio.Event,
        *,
        task_status: TaskStatus[None],
    ) -> None:
        """Subscribe to a subject until `stopping` is set."""
        async with await self._bus.subscribe(subject, handler, queue=queue):
            task_status.started()
            await stopping.wait()

    def _deliver(self, delivery: Delivery) -> None:
        seconds = self._settings.too_early_seconds
        self._waiting.append(item_of(delivery, self._acknowledge, too_early_seconds=seconds))
        self._wake.set()

    def _acknowledge(self, acknowledge: Callable[[], None]) -> None:
        try:
            acknowledge()
        except BusUnavailable as error:
            # It is delivered again, and then changes nothing.
            log.warning("manager.ack_failed", reason=str(error))
        self._consumer.credit(1)

    async def _process_until(self, stopping: anyio.Event, *, task_status: TaskStatus[None]) -> None:
        """Process on one connection after the other; one that breaks is replaced."""
        batch = self._throughput.batch
        ready: Callable[[], None] = task_status.started
        while True:
            try:
                async with self._database.connection() as connection:
                    await self._greet(connection)
                    ready()
                    # Started once; a later connection only replaces one that broke.
                    ready = ignore
                    await self._process_on(connection, batch, stopping)
                    return
            except Unavailable as error:
                # No heartbeat could be saved meanwhile, so the silence of workers means nothing.
                self.uptime.restart()
                pause = self._outage.begin(str(error))
                if stopping.is_set():
                    give_up(batch)
                    return
                await anyio.sleep(pause)
                self._hold(batch)
                self._hold(self._waiting)

    async def _greet(self, connection: Connection) -> None:
        """Make sure that a connection works; its few statements are planned once for all."""
        await connection.execute(SQL["use_generic_plans"])
        self._remembered.forget()
        if self._listens:
            rank = await connection.fetchval(SQL["take_rank"])
            if rank is not None:
                self._consumer.rank = rank
            log.info("manager.ranked", rank=self._consumer.rank)
        await self.clock.read(connection)
        await self._epochs.check(connection)
        self._processor.epoch = self._epochs.number or 0

    def _hold(self, items: list[InboxItem] | deque[InboxItem]) -> None:
        """Keep messages from being delivered to other managers; fail callers after a while."""
        # Another manager that got them could not do more: it has no store either.
        if self._outage.longest and self._bus.connected:
            hold_messages(items)
        if self._outage.impatient:
            fail_callers(items, StoreUnavailable(_AWAY))

    async def _process_on(
        self, connection: Connection, batch: list[InboxItem], stopping: anyio.Event
    ) -> None:
        while True:
            if not batch and not self._waiting:
                if self._outage.since is not None:
                    self._outage.end()
                if stopping.is_set():
                    return
                self._wake = anyio.Event()
                # Awake also when the witness is to learn of the last changes.
                with anyio.move_on_after(max(0.0, self._epochs.due_at - anyio.current_time())):
                    await self._wake.wait()
            if not self._epochs.checked and self._bus.connected:
                await self._epochs.check(connection)
            if anyio.current_time() >= self._epochs.due_at:
                await self._epochs.testify(connection)
            fill_batch(batch, self._waiting, self._settings)
            if any(item.from_bus for item in batch):
                self._epochs.return_unchecked(batch)
                self._epochs.drop_void(batch, self.metrics.void_dropped)
            for item in [each for each in batch if isinstance(each.received, Exception)]:
                await self._refuse(connection, item, item.message)
                batch.remove(item)
            if batch:
                await self._process(connection, batch)

    async def _process(self, connection: Connection, batch: list[InboxItem]) -> None:
        """Process a batch and empty it; if it fails, process its items one by one.

        What is done leaves the batch at once: the rest is processed on the next connection when
        this one breaks.
        """
        since = anyio.current_time()
        try:
            committed = await self._commit(connection, batch)
        except StoreLocked as error:
            self._wait_for_lock(batch, error)
            return
        except NewerFormat as error:
            await self._process_one_by_one(connection, batch, error)
            return
        except Unavailable:
            retry_later(batch)
            raise
        except Exception as error:  # noqa: BLE001 - it is kept as a dead letter, with its text
            await self._process_one_by_one(connection, batch, error)
            return
        seconds = anyio.current_time() - since
        if self._outage.since is not None:
            self._outage.end()
        try:
            # First: workers wait for them, then callers.
            direct, orders = self._processor.direct, committed.orders
            if direct is not None:
                orders = direct.hand_over(committed, seconds)
            publish_orders(self._bus, orders, seconds)
            if len(orders) < len(committed.orders):
                # Runners get theirs while the rest of the batch is put together.
                await anyio.lowlevel.cancel_shielded_checkpoint()
            if self.run_ends.waiting:
                await announce_ends(self.run_ends, committed.uow)
            publish_changes(self._bus, committed.uow)
        except Unavailable as error:
            # The sweeper makes good what gets lost here.
            log.warning("manager.publish_failed", reason=str(error))
        self._finish(committed, batch, seconds)

    def _finish(self, committed: CommittedBatch, batch: list[InboxItem], seconds: float) -> None:
        """Empty a batch that is committed and published: answer senders, note what follows."""
        if self._locked:
            self._locked = False
            log.info("manager.store_unlocked")
        done = self._throughput.finish(batch, seconds)
        self._processor.committed(committed)
        if self._tracing.on:
            record_spans(self._tracing, committed.uow)
        # Senders come after subscribers: an answer says that all of it is on its way.
        self._respond(done)
        self._waiting.extend(
            InboxItem(command, done=ignore, failed=ignore) for command in follow_ups(committed.uow)
        )
        self.metrics.committed(committed, len(done), seconds)
        self._epochs.note_change()

    def _wait_for_lock(self, batch: list[InboxItem], error: StoreLocked) -> None:
        """Fail callers; messages are processed again, and wait as long as the lock is held."""
        if not self._locked:
            self._locked = True
            log.warning("manager.store_locked", reason=str(error))
        for item in batch:
            item.reset()
        # The transaction is aborted, so what callers send again cannot be recorded twice. Those
        # that came meanwhile would wait for the same lock.
        fail_callers(batch, error)
        fail_callers(self._waiting, error)
        hold_messages(batch)
        hold_messages(self._waiting)

    async def _process_one_by_one(
        self, connection: Connection, batch: list[InboxItem], error: Exception
    ) -> None:
        """Refuse what cannot be processed, which must not hold up the others."""
        for item in batch:
            item.reset()
        if len(batch) == 1:
            await self._refuse(connection, batch[0], error)
            batch.clear()
            return
        if not isinstance(error, NewerFormat):  # which is logged once, and comes again and again
            log.warning("manager.batch_split", items=len(batch), error=repr(error))
        while batch:
            alone = batch[:1]
            await self._process(connection, alone)
            if alone:  # it waits for a lock
                return
            del batch[0]

    async def _commit(self, connection: Connection, batch: Sequence[InboxItem]) -> CommittedBatch:
        remembered = await self._remembered.process(connection, batch)
        if remembered is not None:
            return remembered
        timed = self._database.metrics.statement_seconds.observe
        while True:
            committed: CommittedBatch | None = None
            transaction = ManagerTransaction(connection, timed)
            try:
                async with begin_transaction(connection):
                    committed = await self._processor.process(batch, transaction)
            except StoreConflict as error:
                # Two transactions would have waited for each other; Postgres ended this one.
                for item in batch:
                    item.reset()
                log.info("manager.transaction_restarted", reason=str(error))
            except Unavailable:
                if committed is not None and self._processor.direct is not None:
                    self._processor.direct.doubt(committed)
                raise
            else:
                self._remembered.learn(batch, transaction.transcript)
                return committed

    def _respond(self, done: Sequence[InboxItem]) -> None:
        for item in done:
            if item.postponed and not item.from_bus:
                item.reset()
                self._waiting.append(item)
            else:
                item.respond()

    async def _refuse(self, connection: Connection, item: InboxItem, error: Exception) -> None:
        """Refuse an item that cannot be processed; of several timers only those that cannot."""
        if isinstance(item.received, FireTimers) and len(item.received.timers) > 1:
            await self._refuse_timers(connection, item, item.received.timers)
        elif await self._refusals.refuse(connection, item, error) and isinstance(
            item.received, ResultMessage
        ):
            # Before what waits: chained results behind it depend on the end of its task.
            self._waiting.appendleft(failure_of(item.received, error))

    async def _refuse_timers(
        self, connection: Connection, item: InboxItem, timers: Sequence[Timer]
    ) -> None:
        """Process timers one by one; those that are left stay due, and their sender pauses."""
        left: list[Exception] = []
        for timer in timers:
            alone = InboxItem(FireTimers((timer,)), done=ignore, failed=left.append)
            await self._process(connection, [alone])
        if left:
            item.failed(left[0])
        else:
            item.done(None)
