"""Questions over HTTP: pages, lines, another try, and errors in our words."""

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec
from yarl import URL

from pubsubflow.client.errors import LATER, refusal, stranger
from pubsubflow.errors import ConfigError, PubsubflowError, Unavailable
from pubsubflow.model.api.resources import Page

T = TypeVar("T")
Question = Mapping[str, object]

_PAGE = 1000
_FIRST_DELAY_SECONDS = 0.2
_SAFE = frozenset({"GET", "PUT", "PATCH", "DELETE"})
_BROKEN = (aiohttp.ClientError, TimeoutError, OSError)


class _Request(msgspec.Struct, frozen=True):
    """A request before it is sent.

    Attributes:
        endless: The server may take any time between two pieces of its answer.
    """

    method: str
    path: str
    asked: Question = {}
    body: bytes | None = None
    headers: Mapping[str, str] | None = None
    endless: bool = False


class Transport:
    """Connections to one server; an asynchronous context manager.

    Args:
        url: Such as `http://127.0.0.1:8080`.
        token: Bearer token, if the server wants one.
        tls: How to check a server that answers by https; as this machine does if left out.
        timeout_seconds: How long the server may take to answer; the pauses before further tries
            take at most as long again.
        retries: How many more times to ask what may be asked twice, when the server cannot now.
        source: What posted events have as their source: `api` or `cli`.

    Raises:
        ConfigError: The URL is none.

    All methods raise Unavailable when the server is out of reach or cannot answer now, Refused for
    what it does not know or accept, and Failed for what it could not do.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None,
        tls: ssl.SSLContext | None,
        timeout_seconds: float,
        retries: int,
        source: str,
    ) -> None:
        self.url = _address(url)
        self.timeout_seconds = timeout_seconds
        self._tls = tls
        self._retries = retries
        self._headers = {"Content-Type": "application/json", "Pubsubflow-Source": source}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {_sendable(token)}"
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Get ready to ask."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls or True),
            headers=self._headers,
        )

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def lines(
        self, path: str, asked: Question, *, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[bytes]:
        """Yield the lines of an answer as they come, however long the server takes for each."""
        request = _Request("GET", path, asked, headers=headers, endless=True)
        response = await self._ask(request)
        rest = b""
        try:
            async for some in response.content.iter_any():
                *whole, rest = (rest + some).split(b"\n")
                for line in whole:
                    yield line
            if rest:
                yield rest
        except _BROKEN as error:
            raise self._away(error) from error
        finally:
            response.close()

    async def list(
        self, path: str, kind: type[Page[T]], asked: Question, limit: int | None
    ) -> AsyncIterator[T]:
        """Yield the items of all pages, as far as they are asked for."""
        left = limit
        after = asked.get("after")
        while left is None or left > 0:
            page = await self.get(path, kind, {**asked, "after": after, "limit": part_of(left)})
            for item in page.items:
                yield item
            left = less(left, page)
            after = page.next
            if after is None:
                return

    async def get(
        self, path: str, kind: type[T], asked: Question | None = None, *, accept: int = 200
    ) -> T:
        """Return an answer; `accept` is a further status that is none of an error."""
        response = await self._ask(_Request("GET", path, asked or {}), accept=accept)
        return await self._value(response, kind)

    async def send(
        self,
        method: str,
        path: str,
        value: object,
        kind: type[T],
        *,
        headers: Mapping[str, str] | None = None,
        again: bool = False,
    ) -> T:
        """Send a value and return the answer.

        Args:
            method: HTTP method.
            path: What it is sent to.
            value: JSON.
            kind: Type of the answer.
            headers: More headers.
            again: Whether a POST may be sent twice, as it carries a key or changes nothing.
        """
        request = _Request(method, path, body=msgspec.json.encode(value), headers=headers)
        response = await self._ask(request, again=again)
        return await self._value(response, kind)

    async def delete(self, path: str, *, headers: Mapping[str, str] | None = None) -> None:
        """Delete something."""
        await self._body(await self._ask(_Request("DELETE", path, headers=headers)))

    async def _ask(
        self, request: _Request, *, accept: int = 200, again: bool = False
    ) -> aiohttp.ClientResponse:
        """Send a request; once more where that is harmless and the server asks to come later."""
        tries = self._retries if again or request.method in _SAFE else 0
        delays = _Delays(self.timeout_seconds)
        while True:
            try:
                response = await self._send(request)
            except _BROKEN as error:
                if not (tries and isinstance(error, aiohttp.ServerDisconnectedError)):
                    raise self._away(error) from error
                tries -= 1  # a connection that was kept turns out to be closed
                continue
            if response.status < HTTPStatus.MULTIPLE_CHOICES or response.status == accept:
                return response
            delay = delays.next(response.headers.get("Retry-After"))
            if not tries or response.status not in LATER or delay is None:
                raise await self._error(response)
            response.release()
            tries -= 1
            await asyncio.sleep(delay)  # aiohttp runs on asyncio alone, and anyio starts slower

    async def _send(self, request: _Request) -> aiohttp.ClientResponse:
        if self._session is None:
            raise RuntimeError("use the client as a context manager: async with Client(…)")
        total = None if request.endless else self.timeout_seconds
        return await self._session.request(
            request.method,
            URL(self.url + request.path, encoded=True),
            params=_given(request.asked),
            data=request.body,
            headers=request.headers,
            timeout=aiohttp.ClientTimeout(total=total, sock_connect=self.timeout_seconds),
            allow_redirects=False,
        )

    async def _error(self, response: aiohttp.ClientResponse) -> PubsubflowError:
        body = await self._body(response)
        return refusal(self.url, response.status, response.reason or "", body)

    async def _value(self, response: aiohttp.ClientResponse, kind: type[T]) -> T:
        body = await self._body(response)
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise stranger(self.url, response.status, response.reason or "") from error

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        try:
            return await response.read()
        except _BROKEN as error:
            raise self._away(error) from error

    def _away(self, error: Exception) -> Unavailable:
        return Unavailable(
            f"no server answers at {self.url} ({_reason(error)}): start one with "
            "`pubsubflow up`, or name another with --server"
        )


class _Delays:
    """How long to wait before the next try: as the server says, or ever longer.

    Args:
        seconds: All delays together at most.
    """

    def __init__(self, seconds: float) -> None:
        self._left = seconds
        self._next = _FIRST_DELAY_SECONDS

    def next(self, asked: str | None) -> float | None:
        """Return the next delay in seconds; None when it would be too long."""
        delay = self._next * random.uniform(0.5, 1)  # noqa: S311 - spreads those who come again
        self._next *= 2
        if asked is not None and asked.isascii() and asked.isdecimal():
            delay = max(delay, float(asked))
        if delay > self._left:
            return None
        self._left -= delay
        return delay


def if_match(revision: str | None) -> dict[str, str]:
    """Return the header that lets a change happen only to a revision of its object."""
    return {} if revision is None else {"If-Match": f'"{revision}"'}


def quoted(text: str) -> str:
    """Return a name as it stands in a path."""
    return quote(text, safe="")


def part_of(left: int | None) -> int:
    """Return how many items to ask for at once."""
    return _PAGE if left is None else max(1, min(left, _PAGE))


def less(left: int | None, page: Page[Any]) -> int | None:
    """Return how many items are left to ask for after a page."""
    return None if left is None else left - len(page.items)


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it takes too long"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the answer broke off"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "no machine has that name"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"{error.certificate_error}; name the authority that signed it with --ca"
    reason = error.strerror if isinstance(error, OSError) else None
    return reason or str(error) or type(error).__name__


def _address(url: str) -> str:
    """Return the address of a server, without a slash at its end.

    Raises:
        ConfigError: It is none.
    """
    try:
        found = URL(url.rstrip("/"))
    except ValueError:
        found = URL()
    if found.scheme not in ("http", "https") or not found.host:
        raise ConfigError(f"{url!r} is no address of a server; write http://127.0.0.1:8080")
    return str(found).rstrip("/")


def _given(asked: Question) -> dict[str, str]:
    """Return what stands in a query string: all that is not None."""
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in asked.items()
        if value is not None
    }


def _sendable(token: str) -> str:
    """Return a token as it may stand in a header.

    Raises:
        ConfigError: It may not; it is not repeated, as somebody may read that.
    """
    if not (token.isascii() and token.isprintable()) or not token or " " in token:
        raise ConfigError("the token is none: it has characters that no token has, or is empty")
    return token
