"""The exchange of requests and responses: what the transport demands of an HTTP library.

There are two. `event_loop` sends requests beside other work of an event loop, as programs do;
`blocking` waits for each, as a command does, whose time is mostly that of its imports.
"""

import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Protocol
from urllib.parse import quote, urlencode

from msgspec import Struct

QueryParams = Mapping[str, object]


class HttpRequest(Struct, frozen=True):
    """A request before it is sent.

    Attributes:
        path: Path of the resource, encoded.
        endless: Whether the response has no time limit, as that of a stream.
    """

    method: str
    path: str
    params: QueryParams = {}
    body: bytes | None = None
    headers: Mapping[str, str] = {}
    endless: bool = False

    def url(self, base: str) -> str:
        """Return the URL below a base, with its query: an item of a list each, without None."""
        pairs = [
            (name, str(each).lower() if isinstance(each, bool) else str(each))
            for name, value in self.params.items()
            for each in (value if isinstance(value, list) else [value])
            if each is not None
        ]
        if not pairs:
            return base + self.path
        joint = "&" if "?" in self.path else "?"
        return f"{base}{self.path}{joint}{urlencode(pairs, quote_via=quote)}"


class ConnectionFailed(Exception):  # noqa: N818 - a fact that the transport makes an error of
    """The server cannot be reached, or a response ends before its end.

    Args:
        reason: For people.
        unanswered: Whether the server has closed the connection before any byte of a response, as
            it does with a connection that was kept for too long.
    """

    def __init__(self, reason: str, *, unanswered: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.unanswered = unanswered


class ResponseStream(Protocol):
    """A response whose body is still to be read; all methods raise ConnectionFailed."""

    status: int
    reason: str

    def header(self, name: str) -> str | None:
        """Return the value of a header."""

    async def read(self) -> bytes:
        """Return the whole body."""

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield parts of the body as they arrive."""

    def close(self) -> None:
        """Leave the rest of the body unread."""


class Exchange(Protocol):
    """Connections to one server.

    Args:
        url: The server.
        headers: Headers of all requests.
        tls: SSL context for a server with https; None for this machine's default.
        timeout_seconds: How long a response may take.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        tls: ssl.SSLContext | None,
        timeout_seconds: float,
    ) -> None: ...

    async def open(self) -> None:
        """Prepare for requests."""

    async def close(self) -> None:
        """Close all connections."""

    async def send(self, request: HttpRequest) -> ResponseStream:
        """Send a request; return the response when its headers are there.

        Redirects are not followed: they could send the token to another host.

        Raises:
            ConnectionFailed: No response arrives.
        """

    async def pause(self, seconds: float) -> None:
        """Wait before a retry."""
