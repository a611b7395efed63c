"""Open connections: how many there may be, and how long each may keep us waiting.

aiohttp closes idle connections and limits heads; what it does not do stands here: a head that
never ends is answered by 408, a client that does not read is cut off, and when there are too many
connections those go first that wait longest for their client.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from ssl import SSLContext
from typing import cast

import anyio
import structlog
from aiohttp import StreamReader, web
from aiohttp.typedefs import Handler

from pubsubflow.api.http.problems import PROBLEM, BadRequest, document
from pubsubflow.api.settings import ApiSettings

log = structlog.get_logger(__name__)

SPARE = 16
"""Links beyond the limit that may ask for health, and are told why nothing else works."""
HEALTH = frozenset({"/healthz", "/readyz"})
_WATCH_SECONDS = 1.0
_LEAST_BYTES_A_SECOND = 1024
_FULL = "too many connections are open: close some, or try again"
_CONTINUE = "100-continue"
_SLOW = "the head of the request took too long"


class Link(asyncio.Protocol):
    """Stands between a transport and aiohttp's protocol, and sees who waits for whom.

    Attributes:
        waits_since: Since when it waits for its client; None while a request is at work.
        head_since: Since when it waits for the rest of a request's head; None if for nothing.
        spare: Whether it is one beyond the limit.
        refusals: How many requests in a row were told to come later.
    """

    def __init__(self, links: "Links", inner: web.RequestHandler) -> None:
        self._links = links
        self._now = asyncio.get_running_loop().time
        self.inner = inner
        self.transport: asyncio.Transport
        self.waits_since: float | None = None
        self.head_since: float | None = None
        self.spare = False
        self.refusals = 0
        self._admitted = False
        self._deaf = False
        self._rest: StreamReader | None = None
        self._stuck: tuple[float, int] | None = None
        self._held: list[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take it in, or refuse it."""
        self.transport = cast(asyncio.Transport, transport)
        self.waits_since = self._now()
        self._admitted = self._links.admit(self)
        if self._admitted:
            self.inner.connection_made(self.transport)
        else:
            self.refuse(HTTPStatus.SERVICE_UNAVAILABLE, _FULL)

    def data_received(self, data: bytes) -> None:
        """Pass bytes on, and note that a head has begun."""
        if self._deaf:
            return
        if self._held is not None:
            self._held.append(data)
            self.transport.pause_reading()
            return
        if self._rest is None and self.head_since is None and self.waits_since is not None:
            self.head_since = self._now()
        self.inner.data_received(data)
        if self._rest is not None and self._rest.is_eof():
            self._rest = None

    def eof_received(self) -> None:
        """Pass on that the client sends no more: as for aiohttp, that ends the connection."""
        self.inner.eof_received()

    def pause_writing(self) -> None:
        """Note that the client does not read as fast as we write."""
        self._stuck = self._now(), self.transport.get_write_buffer_size()
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        """Note that it does."""
        self._stuck = None
        self.inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._links.forget(self)
        if self._admitted:
            self.inner.connection_lost(exc)

    def begin(self) -> None:
        """Note that a request is at work."""
        self.waits_since = self.head_since = self._rest = None

    def wait(self, body: StreamReader) -> None:
        """Note that it waits for its client: for the rest of a refused body, or a next request."""
        self.waits_since = self._now()
        self._rest = None if body.is_eof() else body

    def hold(self, seconds: float) -> None:
        """Read nothing from it for a while: its client was told to wait, and does not listen."""
        if self._held is None:
            self._held = []
            asyncio.get_running_loop().call_later(seconds, self._let_go)

    def late(self, settings: ApiSettings) -> str | None:
        """Return in what its client is too slow, if it is."""
        now = self._now()
        if self.head_since is not None and now - self.head_since > settings.header_seconds:
            return "head"
        if self._stuck is None:
            return None
        since, size = self._stuck
        seconds = now - since
        read = size - self.transport.get_write_buffer_size()
        late = seconds > settings.read_seconds and read < seconds * _LEAST_BYTES_A_SECOND
        return "reading" if late else None

    def refuse(self, status: HTTPStatus, reason: str) -> None:
        """Answer without aiohttp, and close."""
        self._deaf = True
        body = document(status, reason)
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/problem+json\r\n"
            f"Content-Length: {len(body)}\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _let_go(self) -> None:
        held, self._held = self._held or [], None
        if held and not self.transport.is_closing():
            self.data_received(b"".join(held))
            self.transport.resume_reading()


class Links:
    """All open connections of the server.

    Args:
        settings: The limits.
    """

    def __init__(self, settings: ApiSettings) -> None:
        self._settings = settings
        self._open: dict[web.RequestHandler, Link] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._open)

    def factory(self, server: Callable[[], web.RequestHandler]) -> Callable[[], Link]:
        """Return what makes a protocol for each new connection.

        Args:
            server: Makes aiohttp's.
        """
        return lambda: Link(self, server())

    def of(self, request: web.Request) -> Link:
        """Return the connection that a request came on.

        Raises:
            ConnectionResetError: It was closed just now to make room.
        """
        found = self._open.get(request.protocol)
        if found is None:
            raise ConnectionResetError("the connection was closed")
        return found

    def admit(self, new: Link) -> bool:
        """Take a new connection in; close the one that waits longest for its client if need be."""
        if len(self._open) >= self._settings.max_connections:
            oldest = min(
                (each for each in self._open.values() if each.waits_since is not None),
                key=lambda each: each.waits_since or 0.0,
                default=None,
            )
            if oldest is not None:
                self._cut(oldest, "room")
            elif len(self._open) >= self._settings.max_connections + SPARE:
                return False
            else:
                new.spare = True
        self._open[new.inner] = new
        return True

    @contextmanager
    def waiting(self, request: web.Request) -> Iterator[None]:
        """Note that a request waits for its client meanwhile: it may be closed to make room."""
        connection = self.of(request)
        connection.wait(request.content)
        try:
            yield
        finally:
            connection.begin()

    def forget(self, connection: Link) -> None:
        """Note that a connection is closed."""
        self._open.pop(connection.inner, None)

    async def watch(self) -> None:
        """Cut off clients that are too slow, until cancelled."""
        settings = self._settings
        least = min(settings.header_seconds, settings.read_seconds)
        while True:
            await anyio.sleep(min(_WATCH_SECONDS, least / 4))
            for each in list(self._open.values()):
                late = each.late(settings)
                if late == "head":
                    each.refuse(HTTPStatus.REQUEST_TIMEOUT, _SLOW)
                elif late is not None:
                    each.transport.abort()
                if late is not None:
                    log.info("api.slow_client", at=late)

    def _cut(self, connection: Link, reason: str) -> None:
        self.forget(connection)
        connection.transport.close()
        log.debug("api.connection_closed", reason=reason)

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Note on a request's connection that it is at work; refuse all but health on a spare.

        Raises:
            BadRequest: There are too many connections.
        """
        connection = self.of(request)
        connection.begin()
        try:
            if connection.spare and request.path not in HEALTH:
                raise BadRequest(_FULL, status=503, headers={"Connection": "close"})
            return await handler(request)
        finally:
            connection.wait(request.content)


def _expecting(
    handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
    """Refuse what aiohttp does not expect before it does, which fails over bytes that are no text.

    Args:
        handler: Answers everything else.
    """

    async def expecting(request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.get("Expect", _CONTINUE).lower() == _CONTINUE:
            return await handler(request)
        body = document(HTTPStatus.EXPECTATION_FAILED, f"Expect: {_CONTINUE} is all that is known")
        refusal = web.Response(body=body, status=417, content_type=PROBLEM)
        refusal.force_close()
        return refusal

    return expecting


class GuardedSite(web.BaseSite):
    """A TCP site whose connections are limited.

    Args:
        runner: What serves.
        host, port: Where it listens.
        links: The limits.
        handshake_seconds: How long a TLS handshake may take.
        backlog: Links that may wait to be taken in.
        ssl_context: For TLS; plain without.
    """

    def __init__(
        self,
        runner: web.BaseRunner,
        host: str,
        port: int,
        *,
        links: Links,
        handshake_seconds: float,
        backlog: int,
        ssl_context: SSLContext | None = None,
    ) -> None:
        super().__init__(runner, backlog=backlog, ssl_context=ssl_context)
        self._host = host
        self._port = port
        self._links = links
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
            self._links.factory(server),
            self._host,
            self._port,
            ssl=self._ssl_context,
            ssl_handshake_timeout=self._handshake_seconds if self._ssl_context else None,
            backlog=self._backlog,
        )
