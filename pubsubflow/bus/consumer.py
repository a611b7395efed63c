"""Continuous consumption of a durable: overlapping pull requests under the caller's credit.

The server answers a request with as many messages as it has, then a status when the request
expires; statuses say how much of the request is left, so that what has been asked for is
known exactly. Source: ADR-13 (pull subscribe internals).
"""

from collections.abc import Callable

import anyio
import structlog
from anyio.abc import TaskStatus

from pubsubflow.bus import streams
from pubsubflow.bus.connection import Bus
from pubsubflow.bus.messages import Delivery
from pubsubflow.bus.protocol import publication, read_headers, read_status
from pubsubflow.errors import Unavailable

log = structlog.get_logger(__name__)

ACK_WAIT_SECONDS = 10.0
_NANOSECONDS = 1_000_000_000
_MAX_ASKED = 1_000
"""More in flight gains nothing and only waits in our socket."""
_EXPIRES_SECONDS = 30.0
_HEARTBEAT_SECONDS = 2.0
_SILENCE_SECONDS = 2.5 * _HEARTBEAT_SECONDS
_DRAIN_SECONDS = 2.0
_MAX_PAUSE_SECONDS = 2.0
_FIRST_PAUSE_SECONDS = 0.05

_HEARTBEAT = 100
_EXPIRED = 408
_DELETED = "409 Consumer Deleted"


class Puller:
    """Hand the messages of a durable consumer to a function, in stream order.

    Nothing is asked for beyond the credit that :meth:`credit` gives. A next request goes out
    when half of what may be asked is used up, so with much credit two requests overlap, and
    with a credit of one it goes out at once.

    Args:
        bus: The connection.
        stream: The stream's name.
        durable: The consumer's name; it is made if it is missing, also later.
        filter_subject: Which messages of the stream it gets.
        deliver: Called for each message as it arrives; must not block.
        ack_wait_seconds: After how long without acknowledgement a message comes again.
        max_ack_pending: How many may be unacknowledged, over all who pull.
    """

    def __init__(
        self,
        bus: Bus,
        *,
        stream: str,
        durable: str,
        filter_subject: str,
        deliver: Callable[[Delivery], None],
        ack_wait_seconds: float = ACK_WAIT_SECONDS,
        max_ack_pending: int = 20_000,
    ) -> None:
        self._bus = bus
        self._wire = bus.wire
        self._send = bus.wire.send
        self._stream = stream
        self._durable = durable
        self._config = streams.consumer_config(
            durable,
            filter_subject,
            ack_wait_seconds=ack_wait_seconds,
            max_ack_pending=max_ack_pending,
        )
        self._deliver = deliver
        self._next_subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"
        self._inbox = ""
        self._handle = 0
        self._credit = 0
        self._asked = 0
        self._asking = False
        self._heard = False
        self._trouble = anyio.Event()
        self._reason = "start"
        self._deleted = False
        self._bug: Exception | None = None

    def credit(self, messages: int) -> None:
        """Allow that many more messages to be handed over."""
        self._credit += messages
        if self._asking:
            self._ask()

    async def run(
        self,
        stopping: anyio.Event,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Pull until ``stopping`` is set; what was handed over stays with the caller.

        Messages that arrive while it stops go back to the stream at once.

        Raises:
            ConfigError: JetStream refuses the consumer.
        """
        stop_listening = self._bus.on_reconnect(lambda: self._alarm("reconnected"))
        try:
            await self._recover()
            task_status.started()
            async with anyio.create_task_group() as group:
                group.start_soon(self._tend)
                await stopping.wait()
                group.cancel_scope.cancel()
            await self._drain()
        finally:
            stop_listening()
            self._asking = False
            self._wire.close_sink(self._handle)

    async def _tend(self) -> None:
        """Put things right whenever something is wrong."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            self._heard = False
            with anyio.move_on_after(_SILENCE_SECONDS):
                await self._trouble.wait()
            if self._bug is not None:
                raise self._bug
            if self._trouble.is_set():
                log.info("bus.pull_again", consumer=self._durable, reason=self._reason)
            elif self._heard or not self._asked or not self._bus.connected:
                pause = _FIRST_PAUSE_SECONDS
                continue
            else:
                log.warning("bus.pull_silent", consumer=self._durable, seconds=_SILENCE_SECONDS)
            if self._heard:
                pause = _FIRST_PAUSE_SECONDS
            if self._deleted or not self._heard:
                # The server tells of a deletion before its files are gone, and a consumer
                # made in between loses them. Or it refuses again and again: no tight loop.
                await anyio.sleep(pause)
                pause = min(pause * 2, _MAX_PAUSE_SECONDS)
            await self._recover()

    async def _recover(self) -> None:
        """Make the consumer if need be, and start asking afresh in a new inbox."""
        self._asking = False
        self._wire.close_sink(self._handle)
        pause = _FIRST_PAUSE_SECONDS
        while True:
            await self._bus.wait_connected()
            self._trouble = anyio.Event()
            try:
                await self._ensure_consumer()
            except Unavailable as error:
                log.warning("bus.pull_waits", consumer=self._durable, error=str(error))
                await anyio.sleep(pause)
                pause = min(pause * 2, _MAX_PAUSE_SECONDS)
                continue
            if not self._trouble.is_set():
                break
        # What the server still sends for old requests must not count against new ones.
        self._inbox = self._wire.new_inbox()
        self._handle = self._wire.open_sink(self._inbox, self._sink)
        self._asked = 0
        self._asking = True
        self._ask()

    async def _ensure_consumer(self) -> None:
        if not await streams.ensure_consumer(self._bus, self._stream, self._config):
            # Somebody emptied JetStream: it can be rebuilt at any moment.
            await self._bus.ensure_streams()
            await streams.ensure_consumer(self._bus, self._stream, self._config)

    async def _drain(self) -> None:
        self._asking = False
        self._deliver = _give_back
        self._wire.close_sink(self._handle, keep_reading=True)
        if self._bus.connected:
            with anyio.move_on_after(_DRAIN_SECONDS, shield=True):
                await self._bus.flush()

    def _ask(self) -> None:
        room = min(self._credit, _MAX_ASKED) - self._asked
        if room <= 0 or room < self._asked:
            return
        self._asked += room
        request = b'{"batch":%d,"expires":%d,"idle_heartbeat":%d}' % (
            room,
            _EXPIRES_SECONDS * _NANOSECONDS,
            _HEARTBEAT_SECONDS * _NANOSECONDS,
        )
        self._send(publication(self._next_subject, self._inbox, request))

    def _sink(self, subject: bytes, reply: bytes, data: bytes, header: bytes) -> None:
        if not reply:
            self._on_status(header)
            return
        self._heard = True
        self._credit -= 1
        self._asked -= 1
        try:
            self._deliver(Delivery(self._send, subject, reply, data, header))
        except Exception as error:  # noqa: BLE001 - run() raises it: the service must end
            self._bug = error
            self._alarm("deliver failed")
        if self._asking:
            self._ask()

    def _on_status(self, header: bytes) -> None:
        status = read_status(header)
        if status == _HEARTBEAT:
            self._heard = True
            return
        left = read_headers(header).get("Nats-Pending-Messages", "")
        if status == _EXPIRED and left.isdigit():
            self._heard = True
            self._asked -= int(left)
            if self._asking:
                self._ask()
        else:  # consumer deleted, leadership change, shutdown, or nobody listens
            self._alarm(header[9:].split(b"\r\n", 1)[0].decode())

    def _alarm(self, reason: str) -> None:
        self._reason = reason
        self._deleted = reason == _DELETED
        self._trouble.set()


def _give_back(delivery: Delivery) -> None:
    delivery.nak()
