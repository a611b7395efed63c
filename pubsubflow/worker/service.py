"""The worker service: pulls tasks from the bus, runs them in processes, publishes their results."""

import os
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count

import anyio
import anyio.abc
import msgspec
import structlog

from pubsubflow.bus import Bus, Delivery, Message
from pubsubflow.errors import BusUnavailable
from pubsubflow.model.wire.heartbeat import Heartbeat
from pubsubflow.model.wire.held_tasks import HeldTasksReply, decode_held_request
from pubsubflow.model.wire.messages import (
    ALL_RUNS,
    Outcome,
    TaskError,
    WorkerLostMessage,
    decode_cancel,
    encode,
)
from pubsubflow.model.wire.protocol import PROTOCOL, VERSION
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.model.wire.task_resources import WorkerResources
from pubsubflow.runner.caches.bundle_cache import BundleCache
from pubsubflow.runner.forkserver import ForkServer
from pubsubflow.services import next_turn
from pubsubflow.worker.assignment import (
    Assignment,
    AttemptOutcome,
    Engine,
    TaskHeader,
    decode_header,
    is_cancelled,
)
from pubsubflow.worker.consumer import DirectDelivery, TaskConsumer
from pubsubflow.worker.executors.engine import ExecutorEngine
from pubsubflow.worker.executors.offers import ExecutorOffers
from pubsubflow.worker.executors.settings import OfferedExecutor, attempt_settings
from pubsubflow.worker.manager_client import ManagerClient
from pubsubflow.worker.metrics import WorkerMetrics
from pubsubflow.worker.processes.pool import ProcessPool
from pubsubflow.worker.processes.runner_settings import runner_settings
from pubsubflow.worker.resources.confinement import Confinements
from pubsubflow.worker.result_publisher import ResultPublisher
from pubsubflow.worker.result_store import ResultStore
from pubsubflow.worker.settings import ResultStoreSettings, WorkerSettings
from pubsubflow.worker.source_cache import SourceCache

log = structlog.get_logger(__name__)

_KINDS = ("sync", "async")
_MAX_NUMBER = 0xFFFFFFFF
_STOP_SECONDS = 5.0


class Worker:
    """Runs the tasks of some queues in processes of its own; needs no database.

    Args:
        bus: The connection; its streams exist.
        fork_server: Forks the processes for user code.
        settings: Queues, slots, timeouts and limits.
        cache: Keeps bundles on disk.
        worker_id: A name that no other worker has; a new one for every start.
        results: Writes and reads large results.
        result_settings: Which results are large, and whether there is a store for them.
        takes_over: Whether it succeeds a worker that died and may have had any message there is.
        executors: Those of plugins that it offers.
        bundles: Names of the bundles of Airflow's files that it knows.

    Raises:
        ConfigError: The settings name an executor that is not among these.

    Attributes:
        worker_id: Its name.
        draining: Set once it takes no more tasks and starts no further node of a chain.
        metrics: Its gauges.
    """

    def __init__(
        self,
        *,
        bus: Bus,
        fork_server: ForkServer,
        settings: WorkerSettings,
        cache: BundleCache,
        worker_id: str,
        results: ResultStore | None = None,
        result_settings: ResultStoreSettings | None = None,
        takes_over: bool = False,
        executors: Sequence[OfferedExecutor] = (),
        bundles: Sequence[str] = (),
    ) -> None:
        self._bus = bus
        self._result_settings = result_settings or ResultStoreSettings()
        self._results = results or ResultStore(None, 0.0)
        self._takes_over = takes_over
        self._fork_server = fork_server
        self._settings = settings
        self._cache = cache
        self.worker_id = worker_id
        self._next_number = count(1)
        self._assignments: dict[int, Assignment] = {}
        self._consumer_of: dict[int, TaskConsumer] = {}
        self._by_subject: dict[str, Assignment] = {}
        self._forgettable: list[str] = []
        self._pools: dict[str, Engine] = {}  # also engines of executors, by name
        self._offers = ExecutorOffers(executors, settings, bundles)
        self._consumers: list[TaskConsumer] = []
        self._takers: dict[tuple[str, str], TaskConsumer] = {}  # of direct orders
        self._none_left = anyio.Event()
        self._confinements = Confinements(settings, worker_id)
        self._void_below = 0  # deliveries from before a restore of Postgres
        self.draining = anyio.Event()
        self.metrics = WorkerMetrics(self._pools)

    @property
    def resources(self) -> WorkerResources:
        """The memory and CPU that it has for tasks that declare resources."""
        return self._confinements.room

    async def run(
        self,
        stopping: anyio.Event,
        *,
        task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run tasks until `stopping` is set, then drain and return the rest to the queues.

        Raises:
            ConfigError: JetStream refuses the consumers.
        """
        settings = self._settings
        self._publisher = ResultPublisher(
            self._bus, self.worker_id, max_log_bytes=settings.max_log_bytes
        )
        async with (
            # Until the tasks of the group are over: some remove what is left of their attempts.
            self._offers.opened(),
            anyio.create_task_group() as group,
            await self._bus.subscribe(Subjects.CANCEL, self._on_cancel),
            await self._bus.subscribe(Subjects.held_tasks(self.worker_id), self._on_held_request),
        ):
            # A server that was killed may have lost its record of deliveries, and delivers
            # messages that a worker has already as if for the first time.
            stop_listening = self._bus.on_reconnect(self._suspect_redelivery)
            try:
                self._open_pools(group)
                if self._takes_over:
                    self._suspect_redelivery()
                self._send_heartbeat()
                group.start_soon(self._keep_sending_heartbeats)
                group.start_soon(self._publisher.pacer.run)
                await self._consume(stopping, task_status)
                await self._publish_stopped()
            finally:
                stop_listening()
                self._close()
                group.cancel_scope.cancel()

    async def _consume(
        self, stopping: anyio.Event, task_status: anyio.abc.TaskStatus[None]
    ) -> None:
        """Pull tasks until `stopping` is set, then wait for those that run, within limits."""
        async with anyio.create_task_group() as pulling:
            for consumer in self._consumers:
                await pulling.start(consumer.puller.run, stopping)
            log.info("worker.started", worker=self.worker_id, queues=self._offers.queues)
            task_status.started()
            await stopping.wait()
        for pool in self._pools.values():
            pool.drain()
        self.draining.set()
        with anyio.move_on_after(self._settings.drain_seconds):
            while self._assignments:
                self._none_left = anyio.Event()
                await self._none_left.wait()
        if self._assignments:
            log.warning(
                "worker.drain_timed_out", worker=self.worker_id, killed=len(self._assignments)
            )
        for pool in self._pools.values():
            pool.kill_all()

    async def _publish_stopped(self) -> None:
        """Wait until all results are stored, then publish that the worker has no tasks any more."""
        with anyio.move_on_after(_STOP_SECONDS) as limit:
            await self._publisher.wait_all_stored()
            message = encode(WorkerLostMessage(self.worker_id))
            await self._bus.publish_durable(
                Subjects.WORKER_LOST, message, message_id=f"g.{self.worker_id}"
            )
        log.info("worker.stopped", worker=self.worker_id, announced=not limit.cancelled_caught)

    def _open_pools(self, group: anyio.abc.TaskGroup) -> None:
        settings, stored = self._settings, self._result_settings
        managers = ManagerClient(self._bus, group, ask_seconds=settings.ask_seconds)
        self._sources = sources = SourceCache(managers, self._cache, group)
        confinements = self._confinements
        for kind in _KINDS:
            self._pools[kind] = ProcessPool(
                settings=settings,
                runner_settings=runner_settings(
                    kind, self.worker_id, settings, stored, max_payload=self._bus.max_payload
                ),
                fork_server=self._fork_server,
                group=group,
                managers=managers,
                sources=sources,
                publisher=self._publisher,
                confinements=confinements,
                on_parked=self._on_parked,
                results=self._results,
                on_returned=self._on_returned,
                on_finished=self._on_finished,
                on_capacity=partial(self._change_credit, kind),
            )
        for offered in self._offers:
            by_plugin = self._pools[offered.name] = ExecutorEngine(
                offered,
                settings=attempt_settings(
                    offered, settings, stored, self._bus.settings, self._fork_server.account
                ),
                worker=self.worker_id,
                group=group,
                managers=managers,
                publisher=self._publisher,
                local={kind: self._pools[kind] for kind in _KINDS},
                on_returned=self._on_returned,
                on_finished=self._on_finished,
            )
            group.start_soon(by_plugin.run)
        for queue in settings.queues:
            for kind in _KINDS if self._offers.serves_plain else ():
                engine = self._pools[self._offers.usual or kind]
                consumer = self._consume_queue(f"{queue}-{kind}", f"{queue}.{kind}", engine)
                if not self._offers.usual:
                    self._takers[queue, kind] = consumer
            for offered in self._offers:
                own = self._offers.queue(queue, offered.name)
                self._consume_queue(own, own, self._pools[offered.name])
        for queue in self._offers.of_bundles:
            for kind in _KINDS:
                self._consume_queue(f"{queue}-{kind}", f"{queue}.{kind}", self._pools[kind])

    def _consume_queue(self, durable: str, subject: str, engine: Engine) -> TaskConsumer:
        consumer = TaskConsumer(
            bus=self._bus,
            settings=self._settings,
            durable=durable,
            filter_subject=f"psf.task.{subject}.>",
            engine=engine,
            on_task=self._on_task,
        )
        self._consumers.append(consumer)
        return consumer

    def _on_task(self, consumer: TaskConsumer, delivery: Delivery) -> None:
        try:
            header = decode_header(delivery.data)
        except msgspec.DecodeError as error:
            log.error(  # noqa: TRY400 - the error says all, a traceback adds nothing
                "worker.message_rejected", subject=delivery.subject, error=str(error)
            )
            delivery.term()
            consumer.on_finished()
            return
        if header.delivery < self._void_below:
            log.warning("worker.void_order_dropped", subject=delivery.subject)
            delivery.term()
            consumer.on_finished()
            return
        subject = delivery.subject
        known = self._by_subject.get(subject)
        if known is not None and self._resume(known, delivery):
            consumer.on_finished()
            return
        redelivered = (
            delivery.attempts > 1
            or delivery.again
            or (consumer.suspects and consumer.is_suspect(delivery))
        )
        self._accept(consumer, header, delivery, redelivered=redelivered)

    def _accept(
        self, consumer: TaskConsumer, header: TaskHeader, delivery: Delivery, *, redelivered: bool
    ) -> None:
        number = next(self._next_number) & _MAX_NUMBER
        assignment = Assignment(number, header, delivery, redelivered=redelivered)
        self._assignments[number] = self._by_subject[delivery.subject] = assignment
        self._consumer_of[number] = consumer
        consumer.engine.submit(assignment)

    def room(self, queue: str, kind: str) -> int:
        """Return how many direct orders of a queue and kind it takes now."""
        consumer = self._takers.get((queue, kind))
        # Not while others wait in the stream, or the server may send some: these came before.
        if consumer is None or self.draining.is_set() or not consumer.puller.requested:
            return 0
        return consumer.engine.room

    def take(
        self, queue: str, kind: str, subject: str, data: bytes, give_back: Callable[[], None]
    ) -> None:
        """Take an order that the manager of this daemon hands over; its task is this worker's."""
        header = decode_header(data)
        if header.delivery < self._void_below:
            log.warning("worker.void_order_dropped", subject=subject)
        elif self.draining.is_set():
            give_back()
        else:
            consumer = self._takers[queue, kind]
            consumer.puller.credit(-1)
            delivery = DirectDelivery(subject, data, give_back)
            self._accept(consumer, header, delivery, redelivered=False)

    def _resume(self, assignment: Assignment, delivery: Delivery) -> bool:
        """Continue with a message that is delivered again; return whether we have it."""
        if not assignment.message_done:
            assignment.delivery = delivery
            return True
        mine = assignment.delivery
        same = (delivery.stream_seq, delivery.timestamp) == (mine.stream_seq, mine.timestamp)
        if same and not assignment.returned:
            # The first acknowledgement got lost.
            self._publisher.ack(delivery)
            return True
        return False

    def _change_credit(self, kind: str, messages: int) -> None:
        """Request more messages for a pool of this worker, or fewer."""
        for consumer in self._consumers:
            if consumer.engine is self._pools[kind]:
                consumer.puller.credit(messages)

    def _on_parked(self, assignment: Assignment) -> None:
        self._consumer_of[assignment.number].on_finished()

    def _on_finished(self, assignment: Assignment) -> None:
        consumer = self._forget(assignment)
        if not assignment.parked:
            consumer.on_finished()

    def _on_returned(self, assignment: Assignment) -> None:
        self._publisher.return_to_queue(assignment)
        consumer = self._forget(assignment)
        if not assignment.parked:
            consumer.on_returned()

    def _forget(self, assignment: Assignment) -> TaskConsumer:
        del self._assignments[assignment.number]
        if not self._assignments:
            self._none_left.set()
        return self._consumer_of.pop(assignment.number)

    def _on_cancel(self, message: Message) -> None:
        order = decode_cancel(message.data)
        if order.run == ALL_RUNS:
            self._void_below = max(self._void_below, order.below_delivery)
            log.warning("worker.orders_void", worker=self.worker_id, reason=order.reason)
        error = TaskError("Cancelled", order.reason, final=True)
        found = [each for each in self._assignments.values() if is_cancelled(each.header, order)]
        for assignment in found:
            engine = self._consumer_of[assignment.number].engine
            engine.stop(assignment, AttemptOutcome(Outcome.CANCELLED, error))

    def _on_held_request(self, message: Message) -> None:
        """Reply which of some tasks are not here, and have no result that is still to be stored."""
        held = {each.fence for each in self._assignments.values()} | self._publisher.unstored
        wanted = decode_held_request(message.data).fences
        missing = tuple(fence for fence in wanted if fence not in held)
        message.respond(encode(HeldTasksReply(missing)))

    async def _keep_sending_heartbeats(self) -> None:
        while True:
            await anyio.sleep_until(next_turn(self._settings.heartbeat_seconds))
            self._send_heartbeat()
            for pool in self._pools.values():
                pool.maintain()
            pools = self._pools.values()
            self._sources.release({bundle for pool in pools for bundle in pool.bundles})

    def _send_heartbeat(self) -> None:
        """Publish a heartbeat and keep the messages of all assignments in progress."""
        settings = self._settings
        busy = {kind: pool.busy for kind, pool in self._pools.items()}
        room = self.resources
        heartbeat = Heartbeat(
            worker=self.worker_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            slots=settings.processes + settings.async_slots + self._offers.slots,
            busy=sum(busy.values()),
            queues=self._offers.queues,
            free_sync=max(0, settings.processes - busy["sync"]),
            free_async=max(0, settings.async_slots - busy["async"]),
            version=VERSION,
            protocol=PROTOCOL,
            memory=room.memory,
            cpu=room.cpu,
            free_memory=room.free_memory,
            free_cpu=room.free_cpu,
        )
        self._forget_done()
        try:
            self._bus.publish(Subjects.HEARTBEAT, encode(heartbeat))
            # Also those whose pool part is finished: until the result is stored, the message must
            # not go to another worker.
            for assignment in self._by_subject.values():
                if not assignment.message_done:
                    assignment.delivery.in_progress()
        except BusUnavailable as error:
            log.warning("worker.heartbeat_failed", error=str(error))
        self._publisher.resend()

    def _forget_done(self) -> None:
        """Forget messages that were done at the last heartbeat already.

        They are kept for one interval, because the server may deliver them again before it has
        read the acknowledgement.
        """
        for subject in self._forgettable:
            if self._is_done(self._by_subject.get(subject)):
                del self._by_subject[subject]
        self._forgettable = [
            subject for subject, each in self._by_subject.items() if self._is_done(each)
        ]

    def _is_done(self, assignment: Assignment | None) -> bool:
        return (
            assignment is not None
            and assignment.message_done
            and assignment.number not in self._assignments
        )

    def _suspect_redelivery(self) -> None:
        for consumer in self._consumers:
            consumer.suspect_redelivery(time.time())

    def _close(self) -> None:
        self._publisher.close()
        for pool in self._pools.values():
            pool.close()
