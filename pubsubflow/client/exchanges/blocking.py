"""The exchange that blocks its thread, by the standard library: a command imports nothing else.

Its methods are coroutines that never suspend, so that the methods of the client are written once.
"""

import http.client
import socket
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from urllib.parse import urlsplit

from pubsubflow.client.exchanges.exchange import ConnectionFailed, HttpRequest

_BROKEN = (http.client.HTTPException, OSError)
_UNANSWERED = (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError)
_CHUNK_BYTES = 65_536


class BlockingResponse:
    """A response of the standard library.

    Args:
        response: The response, its headers read.
        connection: Its connection.
        kept: Connections for further requests; takes this one when the body is read.
    """

    def __init__(
        self,
        response: http.client.HTTPResponse,
        connection: http.client.HTTPConnection,
        kept: list[http.client.HTTPConnection],
    ) -> None:
        self._response = response
        self._connection = connection
        self._kept = kept
        self.status = response.status
        self.reason = response.reason

    def header(self, name: str) -> str | None:
        """Return the value of a header."""
        return self._response.getheader(name)

    async def read(self) -> bytes:
        """Return the whole body."""
        try:
            body = self._response.read()
        except _BROKEN as error:
            self.close()
            raise _failed(error) from error
        self._release()
        return body

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield parts of the body as they arrive."""
        try:
            while chunk := self._response.read1(_CHUNK_BYTES):
                yield chunk
        except _BROKEN as error:
            raise _failed(error) from error

    def close(self) -> None:
        """Leave the rest of the body unread."""
        self._response.close()
        self._connection.close()

    def _release(self) -> None:
        if self._response.will_close:
            self.close()
        else:
            self._kept.append(self._connection)


class BlockingExchange:
    """Connections of the standard library to one server.

    Args:
        url: The server.
        headers: Headers of all requests.
        tls: SSL context for a server with https; None for this machine's default.
        timeout_seconds: How long the server may be silent.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        tls: ssl.SSLContext | None,
        timeout_seconds: float,
    ) -> None:
        self._server = urlsplit(url)
        self._headers = headers
        self._tls = tls
        self._timeout_seconds = timeout_seconds
        self._kept: list[http.client.HTTPConnection] = []

    async def open(self) -> None:
        """Do nothing: the first request connects."""

    async def close(self) -> None:
        """Close all connections that wait for a request."""
        while self._kept:
            self._kept.pop().close()

    async def send(self, request: HttpRequest) -> BlockingResponse:
        """Send a request; return the response when its headers are there."""
        connection = self._kept.pop() if self._kept else self._connection()
        try:
            if connection.sock is None:
                connection.connect()
            connection.sock.settimeout(None if request.endless else self._timeout_seconds)
            connection.request(
                request.method,
                request.url(self._server.path),
                body=request.body,
                headers={**self._headers, **request.headers},
            )
            response = connection.getresponse()
        except _BROKEN as error:
            connection.close()
            raise _failed(error) from error
        return BlockingResponse(response, connection, self._kept)

    async def pause(self, seconds: float) -> None:
        """Wait before a retry."""
        time.sleep(seconds)  # noqa: ASYNC251 - blocking is what it is for

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._server.hostname or "", self._server.port
        if self._server.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=self._timeout_seconds)
        context = self._tls or ssl.create_default_context()
        return http.client.HTTPSConnection(
            host, port, timeout=self._timeout_seconds, context=context
        )


def _failed(error: Exception) -> ConnectionFailed:
    return ConnectionFailed(_reason(error), unanswered=isinstance(error, _UNANSWERED))


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it takes too long"
    if isinstance(error, http.client.IncompleteRead):
        return "the connection was lost"
    if isinstance(error, http.client.BadStatusLine):
        return str(error) or "it does not speak HTTP"
    if isinstance(error, socket.gaierror):
        return "the host name cannot be resolved"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{error.verify_message}; name the authority that signed it with --ca"
    reason = error.strerror if isinstance(error, OSError) else None
    return reason or str(error) or type(error).__name__
