"""The emitter: sends the OpenLineage events of runs in order, and skips those accepted before."""

from collections.abc import Callable, Sequence
from uuid import UUID

import anyio
import msgspec
import structlog
from msgspec import Struct

from pubsubflow.lineage.events import run_events, start_event
from pubsubflow.lineage.openlineage import EventType, RunEvent
from pubsubflow.lineage.transport import HttpTransport, SendResult, TransportResponse
from pubsubflow.model.lineage import RunLineage
from pubsubflow.model.recent import Recent
from pubsubflow.model.runs.states import RunState

log = structlog.get_logger()

_REMEMBERED_RUNS = 10_000
_MAX_DOUBLINGS = 10

_encode = msgspec.json.Encoder().encode
_Accepted = set[tuple[UUID, EventType]]


class SendRetryPolicy(Struct, frozen=True, kw_only=True):
    """When an event is sent again that the endpoint did not accept.

    Attributes:
        delays_seconds: Pauses between attempts; then the message goes back to the stream.
        redeliver_seconds: When the stream delivers it again; twice as long each time.
        max_redeliver_seconds: Upper limit of that.
    """

    delays_seconds: tuple[float, ...] = (0.2, 1.0, 5.0)
    redeliver_seconds: float = 5.0
    max_redeliver_seconds: float = 60.0

    def redelivery_delay(self, deliveries: int) -> float:
        """Return when a message that was delivered so often is delivered again, in seconds."""
        doublings = min(max(deliveries - 1, 0), _MAX_DOUBLINGS)
        return float(min(self.redeliver_seconds * 2**doublings, self.max_redeliver_seconds))


class Emitter:
    """Sends the events of runs, and remembers those accepted until a run's end is sent.

    Args:
        transport: Sends events.
        namespace: The namespace of all jobs.
        retry: How often an event is sent again.
        stopping: Ends the attempts.
    """

    def __init__(
        self,
        transport: HttpTransport,
        *,
        namespace: str,
        retry: SendRetryPolicy,
        stopping: anyio.Event,
    ) -> None:
        self._transport = transport
        self._namespace = namespace
        self._delays = retry.delays_seconds
        self._stopping = stopping
        self._accepted: Recent[UUID, _Accepted] = Recent(_REMEMBERED_RUNS)
        self._endpoint_lost = False

    async def emit(self, run: RunLineage, *, ended: bool) -> SendResult:
        """Send the events of a run.

        Args:
            run: The run as it is now.
            ended: Whether the message says that the run has ended.

        Returns:
            UNAVAILABLE if it must be repeated, REJECTED if some event was rejected for good.
        """
        # A message from before the end of a run that has ended is out of date: the message of the
        # end brings all events.
        if run.state is RunState.QUEUED or (run.state.final and not ended):
            return SendResult.ACCEPTED
        if not run.state.final:
            return await self._send_all(run.run_id, [start_event(run, self._namespace)])
        result = await self._send_all(run.run_id, run_events(run, self._namespace))
        if result is not SendResult.UNAVAILABLE:
            self._accepted.pop(run.run_id)
        return result

    async def _send_all(self, run_id: UUID, events: Sequence[RunEvent]) -> SendResult:
        accepted = self._accepted_of(run_id)
        worst = SendResult.ACCEPTED
        for event in events:
            key = (event.run.run_id, event.event_type)
            if key in accepted:
                continue
            response = await self._send_with_retries(_encode(event))
            if response.result is SendResult.UNAVAILABLE:
                return SendResult.UNAVAILABLE
            if response.result is SendResult.REJECTED:
                worst = SendResult.REJECTED
                log.error("lineage.event_rejected", run_id=str(run_id), reason=response.reason)
            accepted.add(key)
        return worst

    async def _send_with_retries(self, body: bytes) -> TransportResponse:
        for delay in self._delays:
            response = await self._send(body)
            if response.result is not SendResult.UNAVAILABLE or self._stopping.is_set():
                return response
            with anyio.move_on_after(delay):
                await self._stopping.wait()
        return await self._send(body)

    async def _send(self, body: bytes) -> TransportResponse:
        response = await self._transport.send(body)
        lost = response.result is SendResult.UNAVAILABLE
        if lost is not self._endpoint_lost:
            self._endpoint_lost = lost
            write: Callable[..., object] = log.warning if lost else log.info
            event = "lineage.endpoint_lost" if lost else "lineage.endpoint_recovered"
            write(event, reason=response.reason)
        return response

    def _accepted_of(self, run_id: UUID) -> _Accepted:
        accepted = self._accepted.get(run_id)
        if accepted is None:
            accepted = set()
            self._accepted.put(run_id, accepted)
        return accepted
