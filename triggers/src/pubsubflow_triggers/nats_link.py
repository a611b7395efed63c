"""A trigger's connection to NATS, which ends as soon as the server does."""

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
_ASK_SECONDS = 30.0
_CLOSE_SECONDS = 2.0
_BUFFERED = 10_000


class Link:
    """A connection that does not come back by itself: whoever waits on it hears of its end.

    Args:
        client: Connected.
        ended: Set when the connection is.
    """

    def __init__(self, client: Client, ended: anyio.Event) -> None:
        self._client = client
        self._ended = ended
        self._streams: JetStreamContext = client.jetstream()

    @asynccontextmanager
    async def subscribed(
        self, subject: str, queue: str
    ) -> AsyncIterator[MemoryObjectReceiveStream[Msg]]:
        """Subscribe to a subject; the server knows of it when the block begins."""
        voice, ears = anyio.create_memory_object_stream[Msg](_BUFFERED)

        async def hear(message: Msg) -> None:
            await voice.send(message)

        with voice, ears:
            await self._client.subscribe(subject, queue=queue, cb=hear)
            await anyio.lowlevel.checkpoint()  # or flush() overtakes it
            await self._client.flush()
            yield ears

    async def receive(self, ears: MemoryObjectReceiveStream[Msg]) -> Msg:
        """Return the next message of a subscription."""
        return await self._or_ended(ears.receive)

    async def consumer(
        self, stream: str, config: ConsumerConfig
    ) -> JetStreamContext.PullSubscription:
        """Return a consumer of a stream: the durable one of that name if there is, else a new one.

        Raises:
            NotFoundError: No such stream.
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

        async def ask() -> Msg:
            while True:
                try:
                    (message,) = await consumer.fetch(1, timeout=_ASK_SECONDS)
                except nats.errors.TimeoutError:
                    continue
                return message

        return await self._or_ended(ask)

    async def _or_ended(self, ask: Callable[[], Awaitable[T]]) -> T:
        found: list[T] = []
        failure: Exception = nats.errors.ConnectionClosedError()

        async def watch(scope: anyio.CancelScope) -> None:
            await self._ended.wait()
            scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(watch, group.cancel_scope)
            try:
                found.append(await ask())
            except ERRORS as error:
                failure = error
            group.cancel_scope.cancel()
        if not found:
            raise failure
        return found[0]


@asynccontextmanager
async def connected(ctx: TriggerContext, url: str) -> AsyncIterator[Link]:
    """Connect to NATS for as long as the block, or the server, lasts."""
    ended = anyio.Event()

    async def end() -> None:
        ended.set()

    async def tell(error: Exception) -> None:
        ctx.log("nats.error", error=str(error))

    client = Client()
    try:
        with anyio.fail_after(_CONNECT_SECONDS):
            await client.connect(
                await resolve_url(ctx, url),
                name="pubsubflow-triggers",
                allow_reconnect=False,
                max_reconnect_attempts=1,  # or connect() knocks for minutes
                reconnect_time_wait=0,
                error_cb=tell,
                disconnected_cb=end,
                closed_cb=end,
            )
        yield Link(client, ended)
    finally:
        with anyio.move_on_after(_CLOSE_SECONDS, shield=True):
            await client.close()


async def later(backoff: Backoff, error: Exception) -> None:
    """Wait if that can help.

    Raises:
        TriggerError: It cannot.
    """
    if isinstance(error, _FINAL) or any(word in str(error).lower() for word in _REFUSALS):
        raise TriggerError(f"NATS refuses: {error}") from error
    await backoff.failed(error)
