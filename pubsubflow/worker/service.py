"""The worker: takes tasks from the bus, has runners run them, tells how they ended."""

import os
import socket
import time
from itertools import count

import anyio
import anyio.abc
import structlog

from pubsubflow.bus import Bus, Delivery, Message
from pubsubflow.errors import BusUnavailable
from pubsubflow.model.wire.messages import (
    NOT_MAPPED,
    CancelOrder,
    GoneMessage,
    Heartbeat,
    Outcome,
    TaskError,
    decode_cancel,
    encode,
)
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.runner.forkserver import ForkServer
from pubsubflow.runner.protocol import RunnerSettings
from pubsubflow.worker.assignment import TaskHead, Ticket, Verdict
from pubsubflow.worker.consumer import Intake
from pubsubflow.worker.manager_client import Asker
from pubsubflow.worker.metrics import WorkerFigures
from pubsubflow.worker.process_pool import Pool
from pubsubflow.worker.result_publisher import Reports
from pubsubflow.worker.settings import WorkerSettings

log = structlog.get_logger(__name__)

_KINDS = ("sync", "async")
_ENVELOPE_BYTES = 16_384
_LARGEST_NUMBER = 0xFFFFFFFF
_FAREWELL_SECONDS = 5.0


class Worker:
    """Runs the tasks of some queues in processes of its own; knows no database.

    Args:
        bus: The connection; its streams exist.
        fork_server: Forks the processes for user code.
        settings: What can be set.
        worker_id: A name that no other worker has; anew for every start.
        succeeds: Whether it takes over from one that may have had any message there is.

    Attributes:
        draining: Set once it takes no more tasks and goes on with no chain.
        figures: What it counts.
    """

    def __init__(
        self,
        *,
        bus: Bus,
        fork_server: ForkServer,
        settings: WorkerSettings,
        worker_id: str,
        succeeds: bool = False,
    ) -> None:
        self._bus = bus
        self._succeeds = succeeds
        self._fork_server = fork_server
        self._settings = settings
        self._id = worker_id
        self._numbers = count(1)
        self._tickets: dict[int, Ticket] = {}
        self._heads: dict[str, Ticket] = {}
        self._leaving: list[str] = []
        self._pools: dict[str, Pool] = {}
        self._intakes: list[Intake] = []
        self._none_left = anyio.Event()
        self.draining = anyio.Event()
        self.figures = WorkerFigures(self._pools)

    async def run(
        self,
        stopping: anyio.Event,
        *,
        task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Work until `stopping` is set, then let what runs end and give back the rest.

        Raises:
            ConfigError: JetStream refuses the consumers.
        """
        settings = self._settings
        self._reports = Reports(self._bus, self._id, max_log_bytes=settings.max_log_bytes)
        async with (
            anyio.create_task_group() as group,
            await self._bus.subscribe(Subjects.CANCEL, self._on_cancel),
        ):
            stop_listening = self._bus.on_reconnect(self._doubt)
            try:
                self._open_pools(group)
                if self._succeeds:
                    self._doubt()
                self._beat()
                group.start_soon(self._keep_beating)
                await self._work(stopping, task_status)
                await self._say_farewell()
            finally:
                stop_listening()
                self._close()
                group.cancel_scope.cancel()

    async def _work(self, stopping: anyio.Event, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Pull until told to stop, and until what runs has ended or its time is over."""
        async with anyio.create_task_group() as pulling:
            for intake in self._intakes:
                await pulling.start(intake.puller.run, stopping)
            log.info("worker.started", worker=self._id, queues=self._settings.queues)
            task_status.started()
            await stopping.wait()
        for pool in self._pools.values():
            pool.drain()
        self.draining.set()
        with anyio.move_on_after(self._settings.drain_seconds):
            while self._tickets:
                self._none_left = anyio.Event()
                await self._none_left.wait()
        if self._tickets:
            log.warning("worker.drain_over", worker=self._id, killed=len(self._tickets))
        for pool in self._pools.values():
            pool.abandon()

    async def _say_farewell(self) -> None:
        """Wait until everything is told, then tell that nothing is left here."""
        with anyio.move_on_after(_FAREWELL_SECONDS) as patience:
            await self._reports.all_stored()
            message = encode(GoneMessage(self._id))
            await self._bus.publish_durable(Subjects.GONE, message, message_id=f"g.{self._id}")
        log.info("worker.stopped", worker=self._id, told=not patience.cancelled_caught)

    def _open_pools(self, group: anyio.abc.TaskGroup) -> None:
        settings = self._settings
        asker = Asker(self._bus, group, ask_seconds=settings.ask_seconds)
        for kind in _KINDS:
            self._pools[kind] = Pool(
                settings=settings,
                runner_settings=RunnerSettings(
                    kind=kind,
                    worker=self._id,
                    max_result_bytes=self._bus.max_payload - _ENVELOPE_BYTES,
                    grace_seconds=settings.grace_seconds,
                ),
                fork_server=self._fork_server,
                group=group,
                asker=asker,
                reports=self._reports,
                hand_back=self._hand_back,
                finished=self._on_finished,
            )
            for queue in settings.queues:
                intake = Intake(
                    bus=self._bus,
                    settings=settings,
                    queue=queue,
                    pool=self._pools[kind],
                    take=self._take,
                )
                self._intakes.append(intake)

    def _take(self, intake: Intake, head: TaskHead, delivery: Delivery) -> None:
        known = self._heads.get(delivery.subject)
        if known is not None and self._keep(known, delivery):
            intake.done()
            return
        ticket = Ticket(next(self._numbers) & _LARGEST_NUMBER, head, delivery, intake)
        self._tickets[ticket.number] = self._heads[delivery.subject] = ticket
        intake.pool.submit(ticket)

    def _keep(self, ticket: Ticket, delivery: Delivery) -> bool:
        """Go on with a message that comes again although we have it; return whether we do."""
        if not ticket.stored:
            ticket.delivery = delivery
            return True
        mine = ticket.delivery
        same = (delivery.stream_seq, delivery.timestamp) == (mine.stream_seq, mine.timestamp)
        if same and not ticket.returned:
            self._reports.acknowledge(delivery)
            return True
        return False

    def _on_finished(self, ticket: Ticket) -> None:
        ticket.intake.done()
        self._forget(ticket)

    def _hand_back(self, ticket: Ticket) -> None:
        self._reports.give_back(ticket)
        ticket.intake.returned()
        self._forget(ticket)

    def _forget(self, ticket: Ticket) -> None:
        del self._tickets[ticket.number]
        if not self._tickets:
            self._none_left.set()

    def _on_cancel(self, message: Message) -> None:
        order: CancelOrder = decode_cancel(message.data)
        error = TaskError("Cancelled", order.reason, final=True)
        for ticket in [found for found in self._tickets.values() if _meant(found.head, order)]:
            self._pools[ticket.head.kind].stop(ticket, Verdict(Outcome.CANCELLED, error))

    async def _keep_beating(self) -> None:
        while True:
            await anyio.sleep(self._settings.heartbeat_seconds)
            self._beat()
            for pool in self._pools.values():
                pool.tend()

    def _beat(self) -> None:
        """Say that the worker lives and that its tasks are at work."""
        settings = self._settings
        heartbeat = Heartbeat(
            worker=self._id,
            host=socket.gethostname(),
            pid=os.getpid(),
            slots=settings.processes + settings.async_slots,
            busy=sum(pool.busy for pool in self._pools.values()),
        )
        self._forget_heads()
        try:
            self._bus.publish(Subjects.HEARTBEAT, encode(heartbeat))
            for ticket in self._heads.values():
                if not ticket.stored:
                    ticket.delivery.in_progress()
        except BusUnavailable as error:
            log.warning("worker.beat_unsent", error=str(error))
        self._reports.retry()

    def _forget_heads(self) -> None:
        """Forget what was done before the last beat: the server will have heard by now."""
        for subject in self._leaving:
            if self._is_done(self._heads.get(subject)):
                del self._heads[subject]
        self._leaving = [s for s, ticket in self._heads.items() if self._is_done(ticket)]

    def _is_done(self, ticket: Ticket | None) -> bool:
        return ticket is not None and ticket.stored and ticket.number not in self._tickets

    def _doubt(self) -> None:
        """Ask about all that is there now: a server that was killed forgets what it delivered."""
        for intake in self._intakes:
            intake.doubt(time.time())

    def _close(self) -> None:
        self._reports.close()
        for pool in self._pools.values():
            pool.close()


def _meant(head: TaskHead, order: CancelOrder) -> bool:
    if head.run != order.run or (order.before and head.delivery >= order.before):
        return False
    mine = {(head.node, head.map_index), *((node, NOT_MAPPED) for node in head.chain)}
    return not order.tasks or not mine.isdisjoint(order.tasks)
