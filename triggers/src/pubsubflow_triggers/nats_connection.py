"""NATS connections of triggers, which end as soon as the server does."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
import anyio.lowlevel
import nats.errors
import nats.js.errors
from anyio.streams.memory import MemoryObjectReceiveStream
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig

from pubsubflow.errors import TriggerError
from pubsubflow.model.triggers import TriggerContext
from pubsubflow_triggers.backoff import Backoff
from pubsubflow_triggers.credentials import resolve_url

T = TypeVar("T")

ERRORS = (nats.errors.Error, OSError)
_FINAL = (
    nats.errors.AuthorizationError,
    nats.errors.InvalidUserCredentialsError,
    nats.js.errors.BadRequestError,
    nats.js.errors.NotFoundError,
)
_REFUSALS = ("authorization", "authentication", "permissions")
_CONNECT_SECONDS = 10.0
_PULL_SECONDS = 30.0
_CLOSE_SECONDS = 2.0
_BUFFERED = 10_000


class DedicatedConnection:
    """A connection without reconnects: its end raises an error in every pending call.

    Args:
        client: The connected client.
        ended: Set when the connection ends.
    """

    def __init__(self, client: Client, ended: anyio.Event) -> None:
        self._client = client
        self._ended = ended
        self._streams: JetStreamContext = client.jetstream()

    @asynccontextmanager
    async def subscribed(
        self, subject: str, queue: str
    ) -> AsyncIterator[MemoryObjectReceiveStream[Msg]]:
        """Subscribe to a subject; the subscription is active when the block begins."""
        send, receive_stream = anyio.create_memory_object_stream[Msg](_BUFFERED)

        async def forward(message: Msg) -> None:
            await send.send(message)

        with send, receive_stream:
            await self._client.subscribe(subject, queue=queue, cb=forward)
            # Without this, flush() would overtake the subscription.
            await anyio.lowlevel.checkpoint()
            await self._client.flush()
            yield receive_stream

    async def receive(self, receive_stream: MemoryObjectReceiveStream[Msg]) -> Msg:
        """Return the next message of a subscription."""
        return await self._or_ended(receive_stream.receive)

    async def consumer(
        self, stream: str, config: ConsumerConfig
    ) -> JetStreamContext.PullSubscription:
        """Return a consumer of a stream: the existing durable one, else a new one.

        Raises:
            NotFoundError: The stream does not exist.
        """
        name = config.durable_name
        if name is None or not await self._exists(stream, name):
            name = (await self._streams.add_consumer(stream, config)).name
        return await self._streams.pull_subscribe_bind(name, stream)

    async def _exists(self, stream: str, name: str) -> bool:
        await self._streams.stream_info(stream)
        try:
            await self._streams.consumer_info(stream, name)
        except nats.js.errors.NotFoundError:
            return False
        return True

    async def pull(self, consumer: JetStreamContext.PullSubscription) -> Msg:
        """Return the next message of a consumer."""

        async def fetch() -> Msg:
            while True:
                try:
                    (message,) = await consumer.fetch(1, timeout=_PULL_SECONDS)
                except nats.errors.TimeoutError:
                    continue
                return message

        return await self._or_ended(fetch)

    async def _or_ended(self, call: Callable[[], Awaitable[T]]) -> T:
        found: list[T] = []
        failure: Exception = nats.errors.ConnectionClosedError()

        async def watch(scope: anyio.CancelScope) -> None:
            await self._ended.wait()
            scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(watch, group.cancel_scope)
            try:
                found.append(await call())
            except ERRORS as error:
                failure = error
            group.cancel_scope.cancel()
        if not found:
            raise failure
        return found[0]


@asynccontextmanager
async def connected(ctx: TriggerContext, url: str) -> AsyncIterator[DedicatedConnection]:
    """Connect to NATS for the duration of the block, or until the connection is lost."""
    ended = anyio.Event()

    async def end() -> None:
        ended.set()

    async def notify(error: Exception) -> None:
        ctx.log("nats.error", error=str(error))

    # Before the client is made: closing one that was never connected fails, and hides the error.
    resolved = await resolve_url(ctx, url)
    client = Client()
    try:
        with anyio.fail_after(_CONNECT_SECONDS):
            await client.connect(
                resolved,
                name="pubsubflow-triggers",
                allow_reconnect=False,
                # Otherwise connect() itself retries for minutes.
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                error_cb=notify,
                disconnected_cb=end,
                closed_cb=end,
            )
        yield DedicatedConnection(client, ended)
    finally:
        with anyio.move_on_after(_CLOSE_SECONDS, shield=True):
            await client.close()


async def wait_or_fail(backoff: Backoff, error: Exception) -> None:
    """Wait before the next attempt after a temporary error.

    Raises:
        TriggerError: The error is final.
    """
    if isinstance(error, _FINAL) or any(word in str(error).lower() for word in _REFUSALS):
        raise TriggerError(f"NATS refuses: {error}") from error
    await backoff.failed(error)
