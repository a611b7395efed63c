"""The bus: one connection to NATS, and all that services do with it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from logging import DEBUG, ERROR
from types import TracebackType
from typing import Self

import anyio
import nats.errors
import structlog

from pubsubflow.bus import streams
from pubsubflow.bus.backlog import Backlog, read_backlogs
from pubsubflow.bus.client import Sink, Wire
from pubsubflow.bus.consumer_stats import Lag, measure_lag
from pubsubflow.bus.dial import connect
from pubsubflow.bus.messages import Message
from pubsubflow.bus.metrics import BusFigures
from pubsubflow.bus.protocol import (
    NO_RESPONDERS,
    check_subject,
    header_block,
    publication,
)
from pubsubflow.bus.publisher import DurablePublisher
from pubsubflow.bus.settings import BusSettings
from pubsubflow.errors import BusUnavailable, MessageRefused

log = structlog.get_logger(__name__)

_CLOSE_SECONDS = 5.0
_BARRIER_SECONDS = 2
_SETUP_SECONDS = 30.0
_SETUP_PAUSE_SECONDS = 0.25


class Subscription:
    """A plain NATS subscription; as a context manager it ends with its block."""

    def __init__(self, wire: Wire, handle: int) -> None:
        self._wire = wire
        self._handle = handle

    def unsubscribe(self) -> None:
        """End it; what is on its way is dropped."""
        self._wire.close_sink(self._handle)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.unsubscribe()


class Bus:
    """One connection to NATS that stays: it reconnects for ever. Made by :meth:`connect`.

    Publishing is synchronous: frames of one turn of the event loop leave in one write, in
    order. Handlers are synchronous too and are called as the bytes arrive: keep them short.

    Attributes:
        figures: What it counts.
    """

    def __init__(self, settings: BusSettings) -> None:
        self._settings = settings
        self.wire = Wire(buffer_bytes=settings.buffer_bytes)
        self._durable = DurablePublisher(self.wire)
        self._inbox = self.wire.new_inbox() + "."
        self._last_request = 0
        self._requests: dict[bytes, asyncio.Future[tuple[bytes, bytes]]] = {}
        self._listeners: list[Callable[[], None]] = []
        self._online = anyio.Event()
        self._closing = False
        self._last_error: str | None = None
        self.figures = BusFigures(lambda: self.connected, lambda: self.outstanding)

    @classmethod
    @asynccontextmanager
    async def connect(cls, settings: BusSettings) -> AsyncIterator[Self]:
        """Connect, and close the connection with the block.

        Raises:
            BusUnavailable: No server answers within ``settings.connect_seconds``.
            ConfigError: A server answers and refuses us, or the settings are malformed.
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
        """Whether there is a connection now."""
        return self._online.is_set()

    @property
    def max_payload(self) -> int:
        """The largest message that the server takes, in bytes."""
        return self.wire.max_payload

    @property
    def outstanding(self) -> int:
        """How many durable messages await their acknowledgement."""
        return self._durable.outstanding

    async def wait_connected(self) -> None:
        """Return when there is a connection."""
        while not self._online.is_set():
            await self._online.wait()

    def publish(
        self, subject: str, payload: bytes, headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a message and forget it: if the connection breaks it may be lost.

        Raises:
            MessageRefused: It is too large, or subject or headers are malformed.
            BusUnavailable: Too much waits for the socket already.
        """
        check_subject(subject)
        block = header_block(headers) if headers else b""
        if len(payload) + len(block) > self.wire.max_payload:
            raise MessageRefused(
                f"a message of {len(payload)} bytes to {subject} is larger than NATS takes "
                f"({self.wire.max_payload}): make it smaller or raise the server's max_payload"
            )
        self.wire.send(publication(subject, "", payload, block))

    async def publish_durable(
        self, subject: str, payload: bytes, *, message_id: str | None = None
    ) -> bool:
        """Send a message and return when JetStream has stored it, however long that takes.

        Unanswered it is sent again, under the same id; without an id it may then be doubled.

        Returns:
            True if it is stored, False if its subject holds a message already.

        Raises:
            MessageRefused: JetStream will never take it.
            BusUnavailable: Too much waits for the socket already.
        """
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        key = self._durable.send(
            subject,
            payload,
            message_id=message_id,
            on_done=partial(_settle, done, True),  # noqa: FBT003 - a future's result
            on_occupied=partial(_settle, done, False),  # noqa: FBT003
            on_refused=partial(_refuse, done),
        )
        try:
            return await done
        finally:
            self._durable.forget(key)

    def publish_durable_nowait(
        self,
        subject: str,
        payload: bytes,
        *,
        message_id: str,
        on_done: Callable[[], None],
        on_refused: Callable[[MessageRefused], None] | None = None,
    ) -> None:
        """Send a message now; call ``on_done`` when JetStream has it (or its subject is taken).

        Unanswered it is sent again, under the same id. Without ``on_refused`` a definitive
        refusal is logged and the message dropped.

        Raises:
            MessageRefused: It can never be sent: too large, or a malformed subject or id.
            BusUnavailable: Too much waits for the socket already.
        """
        self._durable.send(
            subject, payload, message_id=message_id, on_done=on_done, on_refused=on_refused
        )

    async def subscribe(
        self, subject: str, handler: Callable[[Message], None], *, queue: str = ""
    ) -> Subscription:
        """Subscribe to plain messages; on return the server has the subscription.

        Args:
            subject: May hold wildcards.
            handler: Called for each message; what it raises is logged.
            queue: Of the subscriptions of one queue name, only one gets a message.
        """
        check_subject(subject)
        send = self.wire.send

        def sink(subject: bytes, reply: bytes, data: bytes, header: bytes) -> None:
            handler(Message(send, subject, reply, data, header))

        handle = self.wire.open_sink(subject, sink, queue=queue)
        subscription = Subscription(self.wire, handle)
        try:
            await self.flush()
        except BaseException:
            subscription.unsubscribe()
            raise
        return subscription

    async def request(self, subject: str, payload: bytes, timeout_seconds: float) -> bytes:
        """Ask and return the first answer.

        Raises:
            BusUnavailable: Nobody listens there, no answer came in time, or NATS went away.
            MessageRefused: The question is malformed.
        """
        check_subject(subject)
        self._last_request += 1
        key = b"%d" % self._last_request
        answer: asyncio.Future[tuple[bytes, bytes]] = asyncio.get_running_loop().create_future()
        self._requests[key] = answer
        try:
            self.wire.send(publication(subject, f"{self._inbox}{self._last_request}", payload))
            with anyio.fail_after(timeout_seconds):
                data, header = await answer
        except TimeoutError as error:
            text = f"no answer from {subject} within {timeout_seconds:g} s"
            raise BusUnavailable(text) from error
        finally:
            del self._requests[key]
        if header.startswith(NO_RESPONDERS):
            raise BusUnavailable(f"nobody answers at {subject}")
        return data

    async def flush(self) -> None:
        """Return when the server has processed everything sent so far.

        Raises:
            BusUnavailable: The bus is closed.
        """
        while True:
            await self.wait_connected()
            try:
                await self.wire.flush(_BARRIER_SECONDS)
            except (nats.errors.FlushTimeoutError, OSError):
                continue  # the connection broke in between
            except nats.errors.Error as error:
                raise BusUnavailable("the bus is closed") from error
            return

    async def ensure_streams(self) -> None:
        """Make the three streams, or bring their settings up to date.

        Raises:
            BusUnavailable: There is no JetStream, or it did not get ready within 30 s.
            ConfigError: JetStream refuses a stream.
        """
        for config in streams.stream_configs(self._settings.replicas):
            await self._insist(partial(streams.ensure_stream, self, config))

    async def reset_consumer(self, stream: str, durable: str) -> None:
        """Delete a consumer and make it again: all that is unacknowledged comes again at once.

        Only for who knows that nobody works on it any more. ``attempts`` starts anew.

        Raises:
            BusUnavailable: JetStream does not answer.
            ConfigError: JetStream refuses.
        """
        config = await streams.delete_consumer(self, stream, durable)
        if config is not None:
            await self._insist(partial(streams.ensure_consumer, self, stream, config))
            log.info("bus.consumer_reset", stream=stream, consumer=durable)

    async def count_unhandled(self, stream: str, durable: str) -> streams.Unhandled:
        """Count what a consumer has not finished; nothing, if there is none.

        Raises:
            BusUnavailable: JetStream does not answer.
            ConfigError: JetStream refuses.
        """
        return await streams.count_unhandled(self, stream, durable)

    async def backlogs(self) -> list[Backlog]:
        """Count what every consumer of our streams has not finished, and its oldest message.

        Raises:
            BusUnavailable: JetStream does not answer.
        """
        return await read_backlogs(self)

    async def measure_lag(self, stream: str, durable: str) -> Lag:
        """Tell how far behind a work queue's consumer is; nothing, if there is none.

        Raises:
            BusUnavailable: JetStream does not answer.
        """
        return await measure_lag(self, stream, durable)

    def on_reconnect(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` after each reconnect; returns what ends that."""
        self._listeners.append(listener)
        return partial(self._listeners.remove, listener)

    async def _insist(self, act: Callable[[], Awaitable[object]]) -> None:
        """Act again while JetStream is not ready: it starts, or elects a leader."""
        give_up = anyio.current_time() + _SETUP_SECONDS
        while True:
            try:
                await act()
            except BusUnavailable:
                if anyio.current_time() > give_up or not self.wire.has_jetstream:
                    raise
                await anyio.sleep(_SETUP_PAUSE_SECONDS)
            else:
                return

    async def _open(self) -> None:
        await connect(
            self._settings,
            self.wire,
            on_connected=self._on_connected,
            on_disconnected=self._on_disconnected,
            on_error=self._on_error,
        )
        self._online.set()
        self._durable.open()
        self.wire.open_sink(self._inbox + "*", self._answer_sink())
        await self.flush()
        self._last_error = None
        log.info("bus.connected", server=self._server())

    async def _close(self) -> None:
        self._closing = True
        self._durable.close()
        if self._durable.outstanding:
            log.warning("bus.closed_unacknowledged", messages=self._durable.outstanding)
        if self._online.is_set():
            try:
                await self.wire.flush(_BARRIER_SECONDS)
            except (nats.errors.Error, OSError) as error:
                log.warning("bus.close_unflushed", error=str(error))
        await self.wire.shut()

    def _answer_sink(self) -> Sink:
        cut = len(self._inbox)
        requests = self._requests

        def sink(subject: bytes, reply: bytes, data: bytes, header: bytes) -> None:
            del reply
            answer = requests.get(subject[cut:])
            if answer is not None and not answer.done():
                answer.set_result((data, header))

        return sink

    async def _on_connected(self) -> None:
        log.info("bus.reconnected", server=self._server())
        self._last_error = None
        self.figures.reconnects.add()
        self._online.set()
        self._durable.resend_all()
        for listener in list(self._listeners):
            listener()

    async def _on_disconnected(self) -> None:
        if self._online.is_set() and not self._closing:
            self._online = anyio.Event()
            log.warning("bus.disconnected", error=self._last_error)
            for answer in self._requests.values():
                if not answer.done():
                    answer.set_exception(BusUnavailable("the connection to NATS broke"))

    async def _on_error(self, error: Exception) -> None:
        text = str(error).removeprefix("nats: ") or type(error).__name__
        if text != self._last_error:
            self._last_error = text
            log.log(ERROR if "uthor" in text else DEBUG, "bus.error", error=text)

    def _server(self) -> str | None:
        url = self.wire.connected_url
        return f"{url.hostname}:{url.port}" if url else None


def _settle(done: asyncio.Future[bool], stored: bool) -> None:  # noqa: FBT001 - a callback
    if not done.done():
        done.set_result(stored)


def _refuse(done: asyncio.Future[bool], error: MessageRefused) -> None:
    if not done.done():
        done.set_exception(error)
