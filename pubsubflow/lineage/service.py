"""The service: hears what became of runs and tells the endpoint, at least once and in order.

All news of a run goes through one lane, one piece after the other.
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

from pubsubflow.bus import STREAM_EVT, Bus, Delivery, Puller
from pubsubflow.errors import Unavailable
from pubsubflow.lineage.emitter import Pace, Telling
from pubsubflow.lineage.settings import LineageSettings, check_endpoint
from pubsubflow.lineage.transport import Endpoint, Verdict
from pubsubflow.model.runs.states import RunState
from pubsubflow.store.database import Database
from pubsubflow.store.read.lineage import ReadLineage

log = structlog.get_logger()

CONSUMER = "lineage"
_LANES = 8
_CREDIT = 64
_ACK_WAIT_SECONDS = 30.0
_HEARTBEAT_SECONDS = 10.0


class News(Struct, frozen=True):
    """What the manager says of a run after a commit."""

    run_id: UUID
    dag_id: str
    state: RunState


_decode = msgspec.json.Decoder(News).decode


class Lineage:
    """Tells an OpenLineage endpoint of runs and their tasks; several may run.

    Args:
        database: Where runs are read.
        bus: Where news of runs comes from.
        settings: Where events go.
        pace: How patiently.

    Raises:
        ConfigError: The settings can be no endpoint's.
    """

    def __init__(
        self, *, database: Database, bus: Bus, settings: LineageSettings, pace: Pace | None = None
    ) -> None:
        check_endpoint(settings)
        self._reading = ReadLineage(database)
        self._settings = settings
        self._pace = pace or Pace()
        self._lanes: list[MemoryObjectSendStream[Delivery]] = []
        self._held: set[Delivery] = set()
        self._puller = Puller(
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
        """Tell until `stopping` is set; what is not told by then stays in the stream."""
        async with Endpoint.open(self._settings) as endpoint, anyio.create_task_group() as group:
            telling = Telling(
                endpoint,
                namespace=self._settings.namespace,
                pace=self._pace,
                stopping=stopping,
            )
            group.start_soon(self._keep)
            async with anyio.create_task_group() as lanes, AsyncExitStack() as open_lanes:
                for _ in range(_LANES):
                    sender, receiver = anyio.create_memory_object_stream[Delivery](_CREDIT)
                    self._lanes.append(await open_lanes.enter_async_context(sender))
                    lanes.start_soon(self._serve, receiver, telling, stopping)
                self._puller.credit(_CREDIT)
                await self._pull(stopping, task_status)
            group.cancel_scope.cancel()

    async def _pull(self, stopping: anyio.Event, task_status: TaskStatus[None]) -> None:
        """Fill the lanes until it is time to stop."""
        async with anyio.create_task_group() as pulling:
            await pulling.start(self._puller.run, stopping)
            log.info("lineage.ready", url=self._settings.place)
            task_status.started()

    async def _keep(self) -> None:
        """Tell the stream that what waits in a lane is not lost."""
        while True:
            await anyio.sleep(_HEARTBEAT_SECONDS)
            for delivery in self._held:
                delivery.in_progress()

    def _deliver(self, delivery: Delivery) -> None:
        self._held.add(delivery)
        lane = crc32(delivery.subject.encode()) % len(self._lanes)
        self._lanes[lane].send_nowait(delivery)

    async def _serve(
        self, receiver: ObjectReceiveStream[Delivery], telling: Telling, stopping: anyio.Event
    ) -> None:
        async with receiver:
            async for delivery in receiver:
                if stopping.is_set():
                    delivery.nak()
                else:
                    self._answer(delivery, await self._handle(delivery, telling), stopping)
                self._held.discard(delivery)
                self._puller.credit(1)

    async def _handle(self, delivery: Delivery, telling: Telling) -> Verdict:
        try:
            news = _decode(delivery.data)
            run = await self._reading.run(news.run_id)
        except msgspec.DecodeError as error:
            log.error("lineage.poison", subject=delivery.subject, error=str(error))  # noqa: TRY400
            return Verdict.REFUSED
        except Unavailable as error:
            log.warning("lineage.postponed", subject=delivery.subject, reason=str(error))
            return Verdict.AWAY
        if run is None:
            log.info("lineage.run_gone", run_id=str(news.run_id), dag_id=news.dag_id)
            return Verdict.TAKEN
        return await telling.tell(run, ended=news.state.final)

    def _answer(self, delivery: Delivery, verdict: Verdict, stopping: anyio.Event) -> None:
        if verdict is Verdict.TAKEN:
            delivery.ack()
        elif verdict is Verdict.REFUSED:
            delivery.term()
        elif stopping.is_set():
            delivery.nak()
        else:
            delivery.nak(self._pace.return_delay(delivery.attempts))
