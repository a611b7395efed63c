"""A pull consumer: overlapping pull requests on a durable, within the caller's credit.

Where clients have ranks, each has two requests: one of its rank for a few messages, and one of the
last rank for the rest. So one client gets all messages as long as it keeps up, the next one gets
what is more, and a backlog goes to all alike (ADR 59).

The server answers a request with as many messages as it has, then with a status when the
request expires. The status has the unused part of the request, so the number of messages
requested is always known. Source: NATS ADR-13 (pull subscribe internals).
"""

import asyncio
from collections.abc import Callable
from functools import partial

import anyio
import structlog
from anyio.abc import TaskStatus

from pubsubflow.bus import streams
from pubsubflow.bus.connection import Bus
from pubsubflow.bus.messages import Delivery
from pubsubflow.bus.protocol import decode_headers, decode_status, encode_pub
from pubsubflow.errors import BusUnavailable, ConfigError, Unavailable
from pubsubflow.model.wire.protocol import PROTOCOL_MARK

log = structlog.get_logger(__name__)

ACK_WAIT_SECONDS = 10.0
_NANOSECONDS = 1_000_000_000
_MAX_REQUESTED = 1_000
"""More messages in flight would only wait in the socket."""
_EXPIRES_SECONDS = 4.0
"""A client that hangs gets messages for so long: the server knows no better than its requests."""
_HEARTBEAT_SHARE = 0.475
"""Of the time until a request expires; the server refuses more than half of it."""
_SILENCE_SECONDS = 2.5 * _HEARTBEAT_SHARE * _EXPIRES_SECONDS
_DRAIN_SECONDS = 2.0
_MAX_PAUSE_SECONDS = 2.0
_FIRST_PAUSE_SECONDS = 0.05
_LATE_SECONDS = 2.0
"""For how long messages of former requests may be on their way."""

_RANKED_MESSAGES = 50
"""A client takes so many by its rank: larger batches save little, and a message waits for two."""

_LAST_RANK = 9

_HEARTBEAT = 100
_EXPIRED = 408
_DELETED = "409 Consumer Deleted"
_ELECTED = "new leader"


class PullConsumer:
    """Deliver the messages of a durable consumer to a function, in stream order.

    No more messages are requested than :meth:`credit` allows. The next request is sent when half
    of the credit is used up: with much credit two requests overlap, with a credit of one it is
    sent at once.

    Args:
        bus: The connection.
        stream: The stream's name.
        durable: The consumer's name; it is created whenever it is missing.
        filter_subject: Which messages of the stream it gets.
        deliver: Called for each message as it arrives; must not block.
        ack_wait_seconds: Time without an acknowledgement until a message is redelivered.
        max_ack_pending: Maximum number of unacknowledged messages, over all clients.
        open_subject: Prefix of subjects where outsiders publish: their messages are of any
            protocol that they say, and are delivered whatever that is.
        ranked: Whether it has a rank among the clients of the consumer.

    Attributes:
        rank: From 0 to 9, of the next request: a message goes to the client of the lowest rank that
            holds less than 50.
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
        open_subject: bytes | None = None,
        ranked: bool = False,
    ) -> None:
        self._bus = bus
        self._open_subject = open_subject
        self._client = bus.client
        self._send = bus.client.send
        self._stream = stream
        self._durable = durable
        self._config = streams.consumer_config(
            durable,
            filter_subject,
            ack_wait_seconds=ack_wait_seconds,
            max_ack_pending=max_ack_pending,
            ranked=ranked,
        )
        self._group = b',"group":"%b"' % durable.encode() if ranked else b""
        self._by_rank, self._any = _Requests(), _Requests()
        self.rank = _LAST_RANK
        self._deliver = deliver
        self._next_subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"
        self._credit = self._most = 0
        self._pulling = False
        self._heard = False
        self._interrupted = anyio.Event()
        self._reason = "start"
        self._deleted = False
        self._ensuring: anyio.CancelScope | None = None
        self._bug: Exception | None = None

    @property
    def requested(self) -> int:
        """How many messages the server may still send for the requests that it has."""
        return self._by_rank.count + self._any.count

    def credit(self, messages: int) -> None:
        """Allow that many more messages to be delivered; fewer, if it is negative."""
        self._credit += messages
        self._most = max(self._most, self._credit)
        if self._pulling and messages > 0:
            self._request()

    async def run(
        self,
        stopping: anyio.Event,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Pull until ``stopping`` is set; delivered messages stay with the caller.

        Messages that arrive while it stops are returned to the stream at once.

        Raises:
            ConfigError: JetStream refuses the consumer.
        """
        stop_listening = self._bus.on_reconnect(lambda: self._interrupt("reconnected"))
        stop_electing = self._bus.elections.on_consumer(
            self._stream, self._durable, self._on_elected
        )
        try:
            await self._recover()
            task_status.started()
            async with anyio.create_task_group() as group:
                group.start_soon(self._supervise)
                await stopping.wait()
                group.cancel_scope.cancel()
            await self._drain()
        finally:
            stop_listening()
            stop_electing()
            self._pulling = False
            for each in (self._by_rank, self._any):
                self._client.close_subscription(each.handle)

    async def _supervise(self) -> None:
        """Start over whenever pulling is interrupted, or the server is silent."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            self._heard = False
            with anyio.move_on_after(_SILENCE_SECONDS):
                await self._interrupted.wait()
            if self._bug is not None:
                raise self._bug
            if self._interrupted.is_set():
                log.info("bus.pull_restarted", consumer=self._durable, reason=self._reason)
            elif self._heard or not self.requested or not self._bus.connected:
                pause = _FIRST_PAUSE_SECONDS
                continue
            else:
                self._reason = "silent"
                log.warning("bus.pull_silent", consumer=self._durable, seconds=_SILENCE_SECONDS)
            if self._heard:
                pause = _FIRST_PAUSE_SECONDS
            if self._deleted or not self._heard:
                # The server announces a deletion before its files are gone, and a consumer
                # created in between loses them. Or it refuses repeatedly: no tight loop.
                await anyio.sleep(pause)
                pause = min(pause * 2, _MAX_PAUSE_SECONDS)
            await self._recover()

    async def _recover(self) -> None:
        """Create the consumer if it is missing, and start pulling into a new inbox."""
        self._pulling = False
        self._leave_inbox()
        pause = _FIRST_PAUSE_SECONDS
        exists = self._reason == _ELECTED
        while True:
            await self._bus.wait_connected()
            self._interrupted = anyio.Event()
            # It ends early if the consumer gets a leader meanwhile: so there is one.
            with anyio.CancelScope() as self._ensuring:
                try:
                    if not exists:
                        await self._ensure_consumer()
                except Unavailable as error:
                    log.warning("bus.pull_postponed", consumer=self._durable, error=str(error))
                    await anyio.sleep(pause)
                    pause = min(pause * 2, _MAX_PAUSE_SECONDS)
                    continue
            if not self._interrupted.is_set():
                break
            exists = False
        self._ensuring = None
        # What the server still sends for old requests must not count against new ones.
        for each in (self._by_rank, self._any) if self._group else (self._any,):
            each.inbox, each.count = self._client.new_inbox(), 0
            each.handle = self._client.open_subscription(
                each.inbox, partial(self._on_message, each)
            )
        self._pulling = True
        self._request()

    def _leave_inbox(self) -> None:
        """Unsubscribe; what is on its way counts, or it would be delivered again after seconds."""
        for each in (self._by_rank, self._any):
            if each.handle:
                late = partial(self._on_late_message, each)
                self._client.close_subscription(each.handle, late=late)
                asyncio.get_running_loop().call_later(
                    _LATE_SECONDS, self._client.close_subscription, each.handle
                )

    def _on_elected(self) -> None:
        """Pull at once: a new leader does not have the requests of the former one."""
        if self._ensuring is None:
            self._interrupt(_ELECTED)
        else:
            self._ensuring.cancel()

    async def _ensure_consumer(self) -> None:
        if not await streams.ensure_consumer(self._bus, self._stream, self._config):
            # JetStream was emptied: its state can be rebuilt at any time.
            try:
                await self._bus.ensure_streams()
            except ConfigError as error:  # it took them before: its disk may be full just now
                raise BusUnavailable(str(error)) from error
            await streams.ensure_consumer(self._bus, self._stream, self._config)

    async def _drain(self) -> None:
        self._pulling = False
        self._deliver = _nak
        for each in (self._by_rank, self._any):
            self._client.close_subscription(each.handle, late=partial(self._on_message, each))
        if self._bus.connected:
            with anyio.move_on_after(_DRAIN_SECONDS, shield=True):
                await self._bus.flush()

    def _request(self) -> None:
        """Request as many messages as the credit has room for, once half of it is used up."""
        room = min(self._credit, _MAX_REQUESTED)
        if not self._group:
            self._extend(self._any, room, b"")
            return
        # A consumer that clients of a version without ranks have set up ignores group and priority.
        held = self._most - self._credit
        by_rank = max(min(room, _RANKED_MESSAGES - held), self._by_rank.count)
        rank = b'%b,"priority":%d' % (self._group, self.rank)
        self._extend(self._by_rank, by_rank, rank)
        last = b'%b,"priority":%d' % (self._group, _LAST_RANK)
        self._extend(self._any, room - by_rank, last)

    def _extend(self, requests: "_Requests", room: int, rank: bytes) -> None:
        capacity = room - requests.count
        if capacity <= 0 or capacity < requests.count:
            return
        requests.count += capacity
        expires_seconds = _expires_seconds(anyio.current_time())
        request = b'{"batch":%d,"expires":%d,"idle_heartbeat":%d%b}' % (
            capacity,
            int(expires_seconds * _NANOSECONDS),
            int(expires_seconds * _HEARTBEAT_SHARE * _NANOSECONDS),
            rank,
        )
        self._send(encode_pub(self._next_subject, requests.inbox, request))

    def _on_message(
        self, requests: "_Requests", subject: bytes, reply: bytes, data: bytes, header: bytes
    ) -> None:
        if not reply:
            self._on_status(requests, header)
            return
        self._heard = True
        self._credit -= 1
        requests.count -= 1
        try:
            delivery = Delivery(self._send, subject, reply, data, header)
            if PROTOCOL_MARK in header and self._is_left(delivery, subject, header):
                self._credit += 1
            else:
                self._deliver(delivery)
        except Exception as error:  # noqa: BLE001 - run() raises it: the service must end
            self._bug = error
            self._interrupt("deliver failed")
        # Most messages leave more than half of the credit: tested here, where each one passes.
        most = _RANKED_MESSAGES if requests is self._by_rank else _MAX_REQUESTED
        if self._pulling and 2 * requests.count <= min(self._credit, most):
            self._request()

    def _on_late_message(
        self, requests: "_Requests", subject: bytes, reply: bytes, data: bytes, header: bytes
    ) -> None:
        """Take a message of a request that does not count any more."""
        if reply:
            # It was requested of the former inbox, so the requests of this one have not used it up.
            requests.count += 1
            self._on_message(requests, subject, reply, data, header)

    def _is_left(self, delivery: Delivery, subject: bytes, header: bytes) -> bool:
        """Return whether a message is left to daemons of a newer version."""
        if self._open_subject is not None and subject.startswith(self._open_subject):
            return False
        return self._bus.left_to_newer.takes(delivery, header)

    def _on_status(self, requests: "_Requests", header: bytes) -> None:
        status = decode_status(header)
        if status == _HEARTBEAT:
            self._heard = True
            return
        left = decode_headers(header).get("Nats-Pending-Messages", "")
        if status == _EXPIRED and left.isdigit():
            self._heard = True
            requests.count -= int(left)
            if self._pulling:
                self._request()
        else:  # consumer deleted, leadership change, shutdown, or no responders
            self._interrupt(header[9:].split(b"\r\n", 1)[0].decode())

    def _interrupt(self, reason: str) -> None:
        self._reason = reason
        self._deleted = reason == _DELETED
        self._interrupted.set()


class _Requests:
    """Requests of one rank.

    Attributes:
        inbox: Where their messages come.
        handle: Of the subscription to it; 0 for none yet.
        count: How many messages the server may still send for them.
    """

    __slots__ = ("count", "handle", "inbox")

    def __init__(self) -> None:
        self.inbox = ""
        self.handle = self.count = 0


def _expires_seconds(now: float) -> float:
    """Return for how long a request is to last: those of all consumers end at the same moments.

    So an idle daemon and its server wake once for all of them, also for their heartbeats.
    """
    left = _EXPIRES_SECONDS - now % _EXPIRES_SECONDS
    return left if left >= _EXPIRES_SECONDS / 4 else left + _EXPIRES_SECONDS / 2


def _nak(delivery: Delivery) -> None:
    delivery.nak()
