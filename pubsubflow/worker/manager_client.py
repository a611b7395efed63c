"""The manager client: requests to the managers for code, leases, results and events."""

from collections.abc import Callable

import anyio
import anyio.abc
import structlog

from pubsubflow.bus import Bus
from pubsubflow.errors import BusUnavailable
from pubsubflow.model.wire.messages import encode
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.model.wire.worker_requests import (
    LATER_HEADER,
    Chunk,
    LeaseRequest,
    LeaseStatus,
    WorkerRequest,
    decode_chunk,
    decode_lease_status,
    is_later,
)

log = structlog.get_logger(__name__)

_FIRST_SECONDS = 1.0
_REQUEST_SECONDS = 5.0
_RETRY_SECONDS = 0.2
_LONGEST_RETRY_SECONDS = 2.0
_UNDERSTANDS_LATER = {LATER_HEADER: "1"}
_LEASE_DELAY_SECONDS = 0.25


class ManagerClient:
    """Sends requests to the managers over the bus.

    Args:
        bus: The connection.
        group: The task group in which requests wait for their replies.
        ask_seconds: How long a task's request may go without a reply.
    """

    def __init__(self, bus: Bus, group: anyio.abc.TaskGroup, *, ask_seconds: float) -> None:
        self._bus = bus
        self._group = group
        self._ask_seconds = ask_seconds
        self._reachable = True
        self._replies = 0

    def fetch_lease(self, request: LeaseRequest, use: Callable[[LeaseStatus], None]) -> None:
        """Call `use` with the lease status of a task that was redelivered."""
        self._group.start_soon(self._request_lease, request, use)

    def forward(self, request: bytes, reply: Callable[[bytes], None]) -> None:
        """Forward a runner's encoded request, and call `reply` with an encoded Chunk."""
        self._group.start_soon(self._forward, request, reply)

    async def _forward(self, request: bytes, reply: Callable[[bytes], None]) -> None:
        text = "no manager answers"
        with anyio.move_on_after(self._ask_seconds):
            while True:
                try:
                    answer = await self._ask(request)
                except BusUnavailable as error:
                    text = str(error)
                else:
                    if not is_later(answer):
                        reply(answer)
                        return
                    text = decode_chunk(answer).error or text
                await anyio.sleep(_RETRY_SECONDS)
        reply(encode(Chunk(b"", 0, text)))

    async def _ask(self, request: bytes) -> bytes:
        """Send a request to one manager, and to all of them when that one does not reply.

        A process that hangs still belongs to the queue group, and would be chosen again.

        Raises:
            BusUnavailable: No manager replies.
        """
        try:
            return await self._bus.request(
                Subjects.WORKER_REQUEST, request, _FIRST_SECONDS, _UNDERSTANDS_LATER
            )
        except BusUnavailable:
            return await self._bus.request(
                Subjects.WORKER_REQUEST_TO_ALL, request, _REQUEST_SECONDS
            )

    async def _request_lease(
        self, request: LeaseRequest, use: Callable[[LeaseStatus], None]
    ) -> None:
        # The result that ended the task may be stored and not processed yet: after this delay the
        # manager has most likely seen it, and the task is not run a second time.
        await anyio.sleep(_LEASE_DELAY_SECONDS)
        chunk = await self.request(request)
        use(LeaseStatus.FREE if chunk.error is not None else decode_lease_status(chunk.data))

    async def request(self, request: WorkerRequest) -> Chunk:
        """Repeat a request until a manager replies: without the reply its tasks could only fail."""
        payload = encode(request)
        pause = _RETRY_SECONDS
        while True:
            replies = self._replies
            try:
                reply = await self._ask(payload)
            except BusUnavailable as error:
                # One that began before the managers were back says nothing of how it is now.
                if self._reachable and self._replies == replies:
                    log.warning("worker.managers_lost", error=str(error))
                    self._reachable = False
                await anyio.sleep(_RETRY_SECONDS)
            else:
                self._replies += 1
                if not self._reachable:
                    log.info("worker.managers_recovered")
                self._reachable = True
                if not is_later(reply):
                    return decode_chunk(reply)
                # It lives, and cannot read the store now.
                await anyio.sleep(pause)
                pause = min(2 * pause, _LONGEST_RETRY_SECONDS)
