"""The lineage service: sends events of runs to an OpenLineage endpoint, at least once, in order.

All messages of a run go through one partition, one after the other.
"""

from contextlib import AsyncExitStack
from uuid import UUID
from zlib import crc32

import anyio
import msgspec
import structlog
from anyio.abc import ObjectReceiveStream, TaskStatus
from anyio.streams.memory import MemoryObjectSendStream
from msgspec import Struct

from pubsubflow.bus import STREAM_EVT, Bus, Delivery, PullConsumer
from pubsubflow.errors import Unavailable
from pubsubflow.lineage.emitter import Emitter, SendRetryPolicy
from pubsubflow.lineage.settings import LineageSettings, check_endpoint
from pubsubflow.lineage.transport import HttpTransport, SendResult
from pubsubflow.model.runs.states import RunState
from pubsubflow.store.database import Database
from pubsubflow.store.read.lineage import ReadLineage

log = structlog.get_logger()

CONSUMER = "lineage"
_PARTITIONS = 8
_CREDIT = 64
_ACK_WAIT_SECONDS = 30.0
_HEARTBEAT_SECONDS = 10.0


class _RunChange(Struct, frozen=True):
    """The message about a run that the manager publishes after a commit."""

    run_id: UUID
    dag_id: str
    state: RunState


_decode = msgspec.json.Decoder(_RunChange).decode


class Lineage:
    """Sends OpenLineage events of runs and their tasks; several services share the work.

    Args:
        database: The runs.
        bus: Delivers the messages about runs.
        settings: The endpoint.
        retry: When an event is sent again.

    Raises:
        ConfigError: The settings cannot be used for an endpoint.
    """

    def __init__(
        self,
        *,
        database: Database,
        bus: Bus,
        settings: LineageSettings,
        retry: SendRetryPolicy | None = None,
    ) -> None:
        check_endpoint(settings)
        self._lineage = ReadLineage(database)
        self._settings = settings
        self._retry = retry or SendRetryPolicy()
        self._partitions: list[MemoryObjectSendStream[Delivery]] = []
        self._unacknowledged: set[Delivery] = set()
        self._consumer = PullConsumer(
            bus,
            stream=STREAM_EVT,
            durable=CONSUMER,
            filter_subject="psf.evt.run.>",
            deliver=self._deliver,
            ack_wait_seconds=_ACK_WAIT_SECONDS,
        )

    async def run(
        self,
        stopping: anyio.Event,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Send events until `stopping` is set; the rest stays in the stream."""
        async with (
            HttpTransport.open(self._settings) as transport,
            anyio.create_task_group() as group,
        ):
            emitter = Emitter(
                transport,
                namespace=self._settings.namespace,
                retry=self._retry,
                stopping=stopping,
            )
            group.start_soon(self._keep_in_progress)
            async with anyio.create_task_group() as serving, AsyncExitStack() as senders:
                for _ in range(_PARTITIONS):
                    sender, receiver = anyio.create_memory_object_stream[Delivery](_CREDIT)
                    self._partitions.append(await senders.enter_async_context(sender))
                    serving.start_soon(self._serve, receiver, emitter, stopping)
                self._consumer.credit(_CREDIT)
                await self._pull(stopping, task_status)
            group.cancel_scope.cancel()

    async def _pull(self, stopping: anyio.Event, task_status: TaskStatus[None]) -> None:
        """Fill the partitions until `stopping` is set."""
        async with anyio.create_task_group() as pulling:
            await pulling.start(self._consumer.run, stopping)
            log.info("lineage.started", url=self._settings.display_url)
            task_status.started()

    async def _keep_in_progress(self) -> None:
        # A message may wait behind others in its partition for longer than the stream waits for
        # its acknowledgement: without this it would be delivered a second time.
        while True:
            await anyio.sleep(_HEARTBEAT_SECONDS)
            for delivery in self._unacknowledged:
                delivery.in_progress()

    def _deliver(self, delivery: Delivery) -> None:
        self._unacknowledged.add(delivery)
        partition = crc32(delivery.subject.encode()) % len(self._partitions)
        self._partitions[partition].send_nowait(delivery)

    async def _serve(
        self, receiver: ObjectReceiveStream[Delivery], emitter: Emitter, stopping: anyio.Event
    ) -> None:
        async with receiver:
            async for delivery in receiver:
                if stopping.is_set():
                    delivery.nak()
                else:
                    result = await self._emit(delivery, emitter)
                    self._acknowledge(delivery, result, stopping)
                self._unacknowledged.discard(delivery)
                self._consumer.credit(1)

    async def _emit(self, delivery: Delivery, emitter: Emitter) -> SendResult:
        try:
            change = _decode(delivery.data)
            run = await self._lineage.run(change.run_id)
        except msgspec.DecodeError as error:
            log.error(  # noqa: TRY400 - the error says all, a traceback adds nothing
                "lineage.message_rejected", subject=delivery.subject, error=str(error)
            )
            return SendResult.REJECTED
        except Unavailable as error:
            log.warning("lineage.run_postponed", subject=delivery.subject, reason=str(error))
            return SendResult.UNAVAILABLE
        if run is None:
            log.info("lineage.run_not_found", run_id=str(change.run_id), dag_id=change.dag_id)
            return SendResult.ACCEPTED
        return await emitter.emit(run, ended=change.state.final)

    def _acknowledge(self, delivery: Delivery, result: SendResult, stopping: anyio.Event) -> None:
        if result is SendResult.ACCEPTED:
            delivery.ack()
        elif result is SendResult.REJECTED:
            delivery.term()
        elif stopping.is_set():
            delivery.nak()
        else:
            delivery.nak(self._retry.redelivery_delay(delivery.attempts))
