"""The bus: a connection to NATS that publishes, subscribes and manages streams."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from logging import DEBUG, ERROR
from typing import Self

import anyio
import structlog

from pubsubflow.bus import streams
from pubsubflow.bus.client import MessageHandler, NatsClient, NatsError, NatsFlushTimeout
from pubsubflow.bus.consumer_stats import ConsumerStats, list_consumer_stats, read_consumer_stats
from pubsubflow.bus.dial import connect
from pubsubflow.bus.elections import Elections
from pubsubflow.bus.left_to_newer import LeftToNewer
from pubsubflow.bus.messages import Message
from pubsubflow.bus.metrics import BusMetrics
from pubsubflow.bus.protocol import (
    NO_RESPONDERS,
    check_subject,
    encode_headers,
    encode_pub,
)
from pubsubflow.bus.publisher import DurablePublisher
from pubsubflow.bus.settings import BusSettings
from pubsubflow.bus.stream_set import StreamSet
from pubsubflow.bus.subscription import Subscription
from pubsubflow.errors import BusUnavailable, MessageRefused
from pubsubflow.model.wire.protocol import PROTOCOL_MARK

log = structlog.get_logger(__name__)

_CLOSE_SECONDS = 5.0
_BARRIER_SECONDS = 2
_SETUP_SECONDS = 30.0
_SETUP_PAUSE_SECONDS = 0.25


class Bus:
    """A connection to NATS that reconnects without limit; opened by :meth:`connect`.

    Publishing is synchronous: the frames of one turn of the event loop are written at once, in
    order. Handlers are synchronous too and are called as the bytes arrive: keep them short.

    Attributes:
        settings: The servers, the credentials and the limits.
        metrics: The metrics of the connection.
        left_to_newer: What is left to daemons of a newer version.
        elections: Of leaders, on a cluster.
        keep: On a cluster, publishes a message and keeps it until it is stored: see
            `DurablePublisher.keep`. None elsewhere.
    """

    def __init__(self, settings: BusSettings) -> None:
        self.settings = settings
        self.client = NatsClient(buffer_bytes=settings.buffer_bytes)
        self._publisher = DurablePublisher(self.client)
        self.elections = Elections(self.client, self._publisher.resend_stream)
        self.keep: Callable[[str, bytes], None] | None = None
        self._inbox = self.client.new_inbox() + "."
        self._last_request = 0
        self._requests: dict[bytes, asyncio.Future[tuple[bytes, bytes]]] = {}
        self._listeners: list[Callable[[], None]] = []
        self._online = anyio.Event()
        self._closing = False
        self._last_error: str | None = None
        self.left_to_newer = LeftToNewer()
        self.metrics = BusMetrics(
            lambda: self.connected, lambda: self.outstanding, self.left_to_newer.counter
        )

    @classmethod
    @asynccontextmanager
    async def connect(cls, settings: BusSettings) -> AsyncIterator[Self]:
        """Connect, and close the connection at the end of the block.

        Raises:
            BusUnavailable: No server answers within ``settings.connect_seconds``.
            ConfigError: A server refuses the credentials, or the settings are malformed.
        """
        bus = cls(settings)
        try:
            await bus._open()
            yield bus
        finally:
            with anyio.move_on_after(_CLOSE_SECONDS, shield=True):
                await bus._close()

    @property
    def connected(self) -> bool:
        """Whether the connection is up."""
        return self._online.is_set()

    @property
    def max_payload(self) -> int:
        """The maximum size of a message, in bytes."""
        return self.client.max_payload

    @property
    def outstanding(self) -> int:
        """The number of durable messages that JetStream has not acknowledged."""
        return self._publisher.outstanding

    @property
    def stalled_seconds(self) -> float:
        """For how long JetStream has not stored a message, although the connection is up."""
        return self._publisher.stalled_seconds if self.connected else 0.0

    @property
    def unanswered_seconds(self) -> float:
        """How long ago the server has answered a request or a flush of this connection."""
        return anyio.current_time() - self.client.answered_at

    async def wait_connected(self) -> None:
        """Wait until the connection is up."""
        while not self._online.is_set():
            await self._online.wait()

    def publish(
        self, subject: str, payload: bytes, headers: Mapping[str, str] | None = None
    ) -> None:
        """Publish a message at most once: it is lost if the connection breaks.

        Raises:
            MessageRefused: It is too large, or subject or headers are malformed.
            BusUnavailable: Too much data waits for the socket already.
        """
        block = encode_headers(headers) if headers else b""
        if len(payload) + len(block) > self.client.max_payload:
            raise MessageRefused(
                f"a message of {len(payload)} bytes to {subject} is larger than the limit "
                f"of NATS ({self.client.max_payload}): make it smaller or raise max_payload"
            )
        self.client.send(encode_pub(subject, "", payload, block))

    def write_now(self) -> None:
        """Write at once what was published in this turn of the event loop: it wakes others."""
        self.client.write_early()

    async def publish_durable(
        self, subject: str, payload: bytes, *, message_id: str | None = None
    ) -> bool:
        """Publish a message and wait until JetStream has stored it, however long that takes.

        It is resent, with the same id, until it is acknowledged; without an id it may be stored
        twice then.

        Returns:
            True if it is stored, False if its subject holds a message already.

        Raises:
            MessageRefused: JetStream refuses it for good.
            BusUnavailable: Too much data waits for the socket already.
        """
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        key = self._publisher.send(
            subject,
            payload,
            message_id=message_id,
            on_done=partial(_resolve, done, True),  # noqa: FBT003 - a future's result
            on_occupied=partial(_resolve, done, False),  # noqa: FBT003
            on_refused=partial(_reject, done),
        )
        try:
            return await done
        finally:
            self._publisher.forget(key)

    def publish_durable_nowait(
        self,
        subject: str,
        payload: bytes,
        *,
        message_id: str,
        on_done: Callable[[], None],
        on_refused: Callable[[MessageRefused], None] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Publish a message; call ``on_done`` when it is stored, or its subject is occupied.

        It is resent, with the same id, until it is acknowledged. Without ``on_refused``, a
        message that JetStream refuses for good is logged and dropped.

        Raises:
            MessageRefused: It is too large, or its subject or id is malformed.
            BusUnavailable: Too much data waits for the socket already.
        """
        self._publisher.send(
            subject,
            payload,
            message_id=message_id,
            on_done=on_done,
            on_refused=on_refused,
            headers=headers,
        )

    async def subscribe(
        self, subject: str, handler: Callable[[Message], None], *, queue: str = ""
    ) -> Subscription:
        """Subscribe to plain messages; on return the subscription is in effect.

        What only a newer version can read is dropped: a request is repeated to other daemons.

        Args:
            subject: May contain wildcards.
            handler: Called for each message; an exception of it is logged.
            queue: Queue group: only one of its subscriptions gets a message.
        """
        subscription = self.listen(subject, handler, queue=queue)
        try:
            await self.flush()
        except BaseException:
            subscription.unsubscribe()
            raise
        return subscription

    def listen(
        self, subject: str, handler: Callable[[Message], None], *, queue: str = ""
    ) -> Subscription:
        """Subscribe as `subscribe` does, but do not wait until the subscription is in effect."""
        check_subject(subject)
        send = self.client.send

        def on_message(subject: bytes, reply: bytes, data: bytes, header: bytes) -> None:
            message = Message(send, subject, reply, data, header)
            if not (PROTOCOL_MARK in header and self.left_to_newer.takes(message, header)):
                handler(message)

        handle = self.client.open_subscription(subject, on_message, queue=queue)
        return Subscription(self.client, handle)

    async def request(
        self,
        subject: str,
        payload: bytes,
        timeout_seconds: float,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """Send a request and return the first reply.

        Raises:
            BusUnavailable: No responder listens, no reply came in time, or the connection broke.
            MessageRefused: The subject is malformed.
        """
        # Replies are matched by the last token of their subject, in one inbox for all requests.
        self._last_request += 1
        key = b"%d" % self._last_request
        reply: asyncio.Future[tuple[bytes, bytes]] = asyncio.get_running_loop().create_future()
        self._requests[key] = reply
        try:
            inbox = f"{self._inbox}{self._last_request}"
            block = encode_headers(headers) if headers else b""
            self.client.send(encode_pub(subject, inbox, payload, block))
            with anyio.fail_after(timeout_seconds):
                data, header = await reply
        except TimeoutError as error:
            text = f"no reply from {subject} within {timeout_seconds:g} s"
            raise BusUnavailable(text) from error
        finally:
            del self._requests[key]
        if header.startswith(NO_RESPONDERS):
            raise BusUnavailable(f"no responder at {subject}")
        return data

    async def flush(self) -> None:
        """Wait until the server has processed everything sent so far.

        Raises:
            BusUnavailable: The bus is closed.
        """
        while True:
            await self.wait_connected()
            try:
                await self.client.flush(_BARRIER_SECONDS)
            except (NatsFlushTimeout, OSError):
                continue  # the connection broke in between
            except NatsError as error:
                raise BusUnavailable("the bus is closed") from error
            return

    async def ensure_streams(self) -> None:
        """Create the streams, or update their configurations.

        Raises:
            BusUnavailable: JetStream was not ready within 30 s.
            ConfigError: The server has no JetStream, or refuses a stream.
        """
        await self.stream_set.ensure(self._retry_until_ready)

    @property
    def stream_set(self) -> StreamSet:
        """The streams of the server that is connected."""
        return StreamSet(self, self.settings.replicas, self.client.is_clustered)

    async def reset_consumer(self, stream: str, durable: str) -> None:
        """Delete and recreate a consumer: all unacknowledged messages are redelivered at once.

        Only when it is certain that no client is processing any. ``attempts`` restarts at 1.

        Raises:
            BusUnavailable: JetStream does not answer.
            ConfigError: JetStream refuses.
        """
        config = await streams.delete_consumer(self, stream, durable)
        if config is not None:
            await self._retry_until_ready(partial(streams.ensure_consumer, self, stream, config))
            log.info("bus.consumer_reset", stream=stream, consumer=durable)

    async def read_consumer_stats(self, stream: str, durable: str) -> ConsumerStats:
        """Return the statistics of a consumer; zeros if its stream does not exist.

        Raises:
            BusUnavailable: JetStream does not answer.
            ConfigError: JetStream refuses.
        """
        return await read_consumer_stats(self, stream, durable)

    async def list_consumer_stats(self) -> list[ConsumerStats]:
        """Return the statistics of all consumers of the streams.

        Raises:
            BusUnavailable: JetStream does not answer.
            ConfigError: JetStream refuses.
        """
        return await list_consumer_stats(self)

    def on_reconnect(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` after each reconnect; return a function that stops this."""
        self._listeners.append(listener)
        return partial(self._listeners.remove, listener)

    async def _retry_until_ready(self, act: Callable[[], Awaitable[object]]) -> None:
        """Retry while JetStream is not ready, as it starts or elects a leader."""
        give_up = anyio.current_time() + _SETUP_SECONDS
        while True:
            try:
                await act()
            except BusUnavailable:
                if anyio.current_time() > give_up or not self.client.has_jetstream:
                    raise
                await anyio.sleep(_SETUP_PAUSE_SECONDS)
            else:
                return

    async def _open(self) -> None:
        await connect(
            self.settings,
            self.client,
            on_connected=self._on_connected,
            on_disconnected=self._on_disconnected,
            on_error=self._on_error,
        )
        self._online.set()
        self._publisher.open()
        self.client.open_subscription(self._inbox + "*", self._reply_handler())
        if self.client.is_clustered:
            self.elections.open()
            self.keep = self._publisher.keep
        await self.flush()
        self._last_error = None
        log.info("bus.connected", server=self._server())

    async def _close(self) -> None:
        self._closing = True
        self._publisher.close()
        if self._publisher.outstanding:
            log.warning("bus.messages_unacknowledged", messages=self._publisher.outstanding)
        if self._online.is_set():
            # What was published just before must reach the server: acknowledgements above all.
            try:
                await self.client.flush(_BARRIER_SECONDS)
            except (NatsError, OSError) as error:
                log.warning("bus.flush_failed", error=str(error))
        await self.client.disconnect()

    def _reply_handler(self) -> MessageHandler:
        cut = len(self._inbox)
        client, requests = self.client, self._requests

        def on_reply(subject: bytes, reply: bytes, data: bytes, header: bytes) -> None:
            del reply
            client.note_answer()
            answer = requests.get(subject[cut:])
            if answer is not None and not answer.done():
                answer.set_result((data, header))

        return on_reply

    async def _on_connected(self) -> None:
        log.info("bus.reconnected", server=self._server())
        self._last_error = None
        self.metrics.reconnects.add()
        self._online.set()
        # Before the listeners: what was published first is stored first.
        self._publisher.resend_all()
        for listener in list(self._listeners):
            listener()

    async def _on_disconnected(self) -> None:
        if self._online.is_set() and not self._closing:
            self._online = anyio.Event()
            log.warning("bus.disconnected", error=self._last_error)
            # Replies to the old connection's requests are lost: nothing would end these waits.
            for answer in self._requests.values():
                if not answer.done():
                    answer.set_exception(BusUnavailable("the connection to NATS broke"))

    async def _on_error(self, error: Exception) -> None:
        text = str(error).removeprefix("nats: ") or type(error).__name__
        # nats-py repeats an error at every attempt to reconnect; it is logged once.
        if text != self._last_error:
            self._last_error = text
            log.log(ERROR if "uthor" in text else DEBUG, "bus.error", error=text)

    def _server(self) -> str | None:
        url = self.client.connected_url
        return f"{url.hostname}:{url.port}" if url else None


def _resolve(done: asyncio.Future[bool], stored: bool) -> None:  # noqa: FBT001 - a callback
    if not done.done():
        done.set_result(stored)


def _reject(done: asyncio.Future[bool], error: MessageRefused) -> None:
    if not done.done():
        done.set_exception(error)
