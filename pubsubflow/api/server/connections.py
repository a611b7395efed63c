"""Connection limits bound how many connections are open and how long clients keep them busy.

aiohttp closes idle connections and limits the size of heads. What it lacks is added here: a head
that is not complete in time is answered by 408, a client that does not read is disconnected, and
when there are too many connections, the one that has waited longest for its client is closed.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from ssl import SSLContext
from typing import cast

import anyio
import structlog
from aiohttp import hdrs, web
from aiohttp.streams import StreamReader
from aiohttp.typedefs import Handler

from pubsubflow.api.http.problems import PROBLEM, BadRequest, problem_document
from pubsubflow.api.settings import ApiSettings

log = structlog.get_logger(__name__)

RESERVED_CONNECTIONS = 16
"""Connections beyond the limit: health checks are served on them, all else is answered by 503."""
HEALTH = frozenset({"/healthz", "/readyz"})
_WATCH_SECONDS = 1.0
_MIN_BYTES_A_SECOND = 1024
_FULL = "too many connections are open: close some, or try again"
_CONTINUE = "100-continue"
_SLOW = "the head of the request took too long"


class ClientConnection(asyncio.Protocol):
    """A protocol between the transport and aiohttp's, which keeps track of who waits for whom.

    Attributes:
        waits_since: Time since which it waits for its client; None while a request is served.
        head_since: Time since which it waits for the rest of a request's head, if it does.
        is_reserved: Whether it is beyond the limit of connections.
        refusals: Number of requests in a row that were answered by 429.
    """

    def __init__(self, connections: "OpenConnections", inner: web.RequestHandler) -> None:
        self._connections = connections
        self._now = asyncio.get_running_loop().time
        self.inner = inner
        self.transport: asyncio.Transport
        self.waits_since: float | None = None
        self.head_since: float | None = None
        self.is_reserved = False
        self.refusals = 0
        self._admitted = False
        self._refused = False
        self._rest: StreamReader | None = None
        self._write_paused: tuple[float, int] | None = None
        self._paused_data: list[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Admit the connection, or refuse it."""
        self.transport = cast(asyncio.Transport, transport)
        self.waits_since = self._now()
        self._admitted = self._connections.admit(self)
        if self._admitted:
            self.inner.connection_made(self.transport)
        else:
            self.refuse(HTTPStatus.SERVICE_UNAVAILABLE, _FULL)

    def data_received(self, data: bytes) -> None:
        """Pass bytes on, and note that a head has begun."""
        if self._refused:
            return
        if self._paused_data is not None:
            # The transport is paused only now: while it is, it does not notice that its client has
            # disconnected. These bytes are passed on when the pause is over.
            self._paused_data.append(data)
            self.transport.pause_reading()
            return
        if self._rest is None and self.head_since is None and self.waits_since is not None:
            self.head_since = self._now()
        self.inner.data_received(data)
        if self._rest is not None and self._rest.is_eof():
            self._rest = None

    def eof_received(self) -> None:
        """Pass the end of input on; aiohttp then closes the connection."""
        self.inner.eof_received()

    def pause_writing(self) -> None:
        """Note that the client does not read as fast as we write."""
        self._write_paused = self._now(), self.transport.get_write_buffer_size()
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        """Note that the client has caught up."""
        self._write_paused = None
        self.inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Remove the connection from those that are open."""
        self._connections.discard(self)
        if self._admitted:
            self.inner.connection_lost(exc)

    def begin_request(self) -> None:
        """Note that a request is being served."""
        self.waits_since = self.head_since = self._rest = None

    def await_client(self, body: StreamReader) -> None:
        """Note that it waits for its client: the rest of a refused body, or the next request."""
        self.waits_since = self._now()
        self._rest = None if body.is_eof() else body

    def pause_reading(self, seconds: float) -> None:
        """Read nothing for a while, from a client that does not heed Retry-After."""
        if self._paused_data is None:
            self._paused_data = []
            asyncio.get_running_loop().call_later(seconds, self._resume_reading)

    def overdue(self, settings: ApiSettings) -> str | None:
        """Return what the client is too slow at: `head` or `reading`; None if it is not."""
        now = self._now()
        if self.head_since is not None and now - self.head_since > settings.header_seconds:
            return "head"
        if self._write_paused is None:
            return None
        since, size = self._write_paused
        seconds = now - since
        # By its rate, not by time alone: a large response over a slow line may take long.
        read = size - self.transport.get_write_buffer_size()
        slow = seconds > settings.read_seconds and read < seconds * _MIN_BYTES_A_SECOND
        return "reading" if slow else None

    def refuse(self, status: HTTPStatus, reason: str) -> None:
        """Respond without aiohttp, and close the connection."""
        self._refused = True
        body = problem_document(status, reason)
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/problem+json\r\n"
            f"Content-Length: {len(body)}\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _resume_reading(self) -> None:
        data, self._paused_data = self._paused_data or [], None
        if data and not self.transport.is_closing():
            self.data_received(b"".join(data))
            self.transport.resume_reading()


class OpenConnections:
    """The open connections of the server.

    Args:
        settings: The limits.
    """

    def __init__(self, settings: ApiSettings) -> None:
        self._settings = settings
        self._open: dict[web.RequestHandler, ClientConnection] = {}
        self._some = anyio.Event()

    def __len__(self) -> int:
        """Return the number of open connections."""
        return len(self._open)

    def factory(self, server: Callable[[], web.RequestHandler]) -> Callable[[], ClientConnection]:
        """Return a factory of protocols, for asyncio's `create_server`.

        Args:
            server: Makes aiohttp's protocols.
        """
        return lambda: ClientConnection(self, server())

    def of(self, request: web.Request) -> ClientConnection:
        """Return the connection that a request came on.

        Raises:
            ConnectionResetError: It was closed just now to make room for another.
        """
        found = self._open.get(request.protocol)
        if found is None:
            raise ConnectionResetError("the connection was closed")
        return found

    def admit(self, new: ClientConnection) -> bool:
        """Admit a new connection, at the limit by closing the one that waits longest.

        Returns:
            Whether it was admitted.
        """
        if len(self._open) >= self._settings.max_connections:
            oldest = min(
                (each for each in self._open.values() if each.waits_since is not None),
                key=lambda each: each.waits_since or 0.0,
                default=None,
            )
            if oldest is not None:
                self._close(oldest)
            elif len(self._open) >= self._settings.max_connections + RESERVED_CONNECTIONS:
                return False
            else:
                new.is_reserved = True
        self._open[new.inner] = new
        self._some.set()
        return True

    @contextmanager
    def waiting(self, request: web.Request) -> Iterator[None]:
        """Mark a request as waiting for its client, so that it may be closed to make room."""
        connection = self.of(request)
        connection.await_client(request.content)
        try:
            yield
        finally:
            connection.begin_request()

    def discard(self, connection: ClientConnection) -> None:
        """Remove a closed connection."""
        self._open.pop(connection.inner, None)

    async def run(self) -> None:
        """Disconnect clients that are too slow, until cancelled."""
        settings = self._settings
        shortest = min(settings.header_seconds, settings.read_seconds)
        while True:
            if not self._open:
                self._some = anyio.Event()
                await self._some.wait()
            await anyio.sleep(min(_WATCH_SECONDS, shortest / 4))
            for each in list(self._open.values()):
                overdue = each.overdue(settings)
                if overdue == "head":
                    each.refuse(HTTPStatus.REQUEST_TIMEOUT, _SLOW)
                elif overdue is not None:
                    # Aborted, not closed: closing would wait for the client to read the rest.
                    each.transport.abort()
                if overdue is not None:
                    log.info("api.slow_client_disconnected", at=overdue)

    def _close(self, connection: ClientConnection) -> None:
        # Removed at once: `connection_lost` comes later, and until then it would count.
        self.discard(connection)
        connection.transport.close()
        log.debug("api.connection_closed", reason="connection limit")

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Mark a connection as busy while its request is served.

        Raises:
            BadRequest: The connection is beyond the limit, and this is not a health check.
        """
        connection = self.of(request)
        connection.begin_request()
        try:
            if connection.is_reserved and request.path not in HEALTH:
                raise BadRequest(_FULL, status=503, headers={"Connection": "close"})
            return await handler(request)
        finally:
            connection.await_client(request.content)


def _expecting(
    handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
    """Refuse unknown values of Expect; aiohttp's own refusal fails over values that are not text.

    Args:
        handler: Serves all other requests.
    """

    async def expecting(request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.get(hdrs.EXPECT, _CONTINUE).lower() == _CONTINUE:
            return await handler(request)
        detail = f"the only supported value of Expect is {_CONTINUE}"
        body = problem_document(HTTPStatus.EXPECTATION_FAILED, detail)
        refusal = web.Response(body=body, status=417, content_type=PROBLEM)
        refusal.force_close()
        return refusal

    return expecting


class LimitedSite(web.BaseSite):
    """A TCP site whose connections are limited.

    Args:
        runner: Runs the application.
        host, port: Where it listens.
        connections: The open connections, with their limits.
        handshake_seconds: How long a TLS handshake may take.
        backlog: Connections that may wait to be accepted.
        ssl_context: For TLS; plain HTTP without.
    """

    def __init__(
        self,
        runner: web.BaseRunner,
        host: str,
        port: int,
        *,
        connections: OpenConnections,
        handshake_seconds: float,
        backlog: int,
        ssl_context: SSLContext | None = None,
    ) -> None:
        super().__init__(runner, backlog=backlog, ssl_context=ssl_context)
        self._host = host
        self._port = port
        self._connections = connections
        self._handshake_seconds = handshake_seconds

    @property
    def name(self) -> str:
        """Where it listens."""
        return f"{self._host}:{self._port}"

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: The address is taken or not this machine's.
        """
        await super().start()
        server = self._runner.server
        assert server is not None  # noqa: S101 - a site is made from a runner that was set up
        server.request_handler = _expecting(server.request_handler)
        self._server = await asyncio.get_running_loop().create_server(
            self._connections.factory(server),
            self._host,
            self._port,
            ssl=self._ssl_context,
            ssl_handshake_timeout=self._handshake_seconds if self._ssl_context else None,
            backlog=self._backlog,
        )
