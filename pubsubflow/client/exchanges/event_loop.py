"""The exchange over an event loop, by aiohttp."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping

import aiohttp
from yarl import URL

from pubsubflow.client.exchanges.exchange import ConnectionFailed, HttpRequest

_BROKEN = (aiohttp.ClientError, TimeoutError, OSError)


class AsyncioResponse:
    """A response of aiohttp."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.reason = response.reason or ""

    def header(self, name: str) -> str | None:
        """Return the value of a header."""
        return self._response.headers.get(name)

    async def read(self) -> bytes:
        """Return the whole body."""
        try:
            return await self._response.read()
        except _BROKEN as error:
            raise _failed(error) from error

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield parts of the body as they arrive."""
        try:
            async for chunk in self._response.content.iter_any():
                yield chunk
        except _BROKEN as error:
            raise _failed(error) from error

    def close(self) -> None:
        """Leave the rest of the body unread."""
        self._response.close()


class AsyncioExchange:
    """Connections of aiohttp to one server.

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
    ) -> None:
        self._url = url
        self._headers = headers
        self._tls = tls
        self._timeout_seconds = timeout_seconds
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Open the session."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls or True), headers=self._headers
        )

    async def close(self) -> None:
        """Close the session and its connections."""
        if self._session is not None:
            await self._session.close()

    async def send(self, request: HttpRequest) -> AsyncioResponse:
        """Send a request; return the response when its headers are there."""
        if self._session is None:
            raise RuntimeError("use the client as a context manager: async with Client(…)")
        total = None if request.endless else self._timeout_seconds
        try:
            response = await self._session.request(
                request.method,
                URL(request.url(self._url), encoded=True),
                data=request.body,
                headers=request.headers,
                timeout=aiohttp.ClientTimeout(total=total, sock_connect=self._timeout_seconds),
                allow_redirects=False,
            )
        except _BROKEN as error:
            raise _failed(error) from error
        return AsyncioResponse(response)

    async def pause(self, seconds: float) -> None:
        """Wait before a retry."""
        await asyncio.sleep(seconds)


def _failed(error: Exception) -> ConnectionFailed:
    unanswered = isinstance(error, aiohttp.ServerDisconnectedError)
    return ConnectionFailed(_reason(error), unanswered=unanswered)


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it takes too long"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the connection was lost"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the host name cannot be resolved"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"{error.certificate_error}; name the authority that signed it with --ca"
    reason = error.strerror if isinstance(error, OSError) else None
    return reason or str(error) or type(error).__name__
