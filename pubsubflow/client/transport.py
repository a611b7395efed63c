"""The HTTP transport of the client: requests with retries, pages, streams of lines, and errors."""

import random
import ssl
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from pubsubflow.client.errors import RETRYABLE, error_of, foreign_answer
from pubsubflow.client.exchanges.exchange import (
    ConnectionFailed,
    Exchange,
    HttpRequest,
    QueryParams,
    ResponseStream,
)
from pubsubflow.errors import ConfigError, InvalidInput, PubsubflowError, Unavailable
from pubsubflow.model.api.resources import Page
from pubsubflow.model.json_values import json_fault
from pubsubflow.model.lazy_import import lazy_module

# Each client uses one of them, and a command's time is that of its imports.
blocking_exchange = lazy_module("pubsubflow.client.exchanges.blocking")
event_loop_exchange = lazy_module("pubsubflow.client.exchanges.event_loop")

T = TypeVar("T")

_MAX_PAGE_ITEMS = 1000
_FIRST_DELAY_SECONDS = 0.2
_SAFE = frozenset({"GET", "PUT", "PATCH", "DELETE"})


class Transport:
    """Connections to one server; an asynchronous context manager.

    Args:
        url: Such as `http://127.0.0.1:8080`.
        token: Bearer token, if the server requires one.
        tls: SSL context for a server with https; this machine's default if left out.
        timeout_seconds: How long the server may take to respond; all pauses before retries together
            take at most as long again.
        retries: Number of further attempts for idempotent requests.
        source: The source of posted events: `api` or `cli`.
        blocking: Whether requests block the thread; no method suspends then.

    Raises:
        ConfigError: The URL or the token is invalid.

    All methods raise Unavailable if the server is out of reach or cannot answer now, RequestRefused
    for what it does not know or accept, and RequestFailed for what it could not do.
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
        blocking: bool = False,
    ) -> None:
        self.url = _address(url)
        self.timeout_seconds = timeout_seconds
        self._retries = retries
        headers = {"Content-Type": "application/json", "Pubsubflow-Source": source}
        if token is not None:
            headers["Authorization"] = f"Bearer {_checked_token(token)}"
        make: type[Exchange] = (
            blocking_exchange.BlockingExchange if blocking else event_loop_exchange.AsyncioExchange
        )
        self._exchange = make(self.url, headers=headers, tls=tls, timeout_seconds=timeout_seconds)

    async def open(self) -> None:
        """Prepare for requests."""
        await self._exchange.open()

    async def close(self) -> None:
        """Close all connections."""
        await self._exchange.close()

    async def lines(
        self, path: str, params: QueryParams, *, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[bytes]:
        """Yield the lines of a response as they arrive, without a time limit."""
        request = HttpRequest("GET", path, params, headers=headers or {}, endless=True)
        response = await self._request(request)
        rest = b""
        try:
            async for chunk in response.chunks():
                *complete, rest = (rest + chunk).split(b"\n")
                for line in complete:
                    yield line
            if rest:
                yield rest
        except ConnectionFailed as error:
            raise self._unreachable(error) from error
        finally:
            response.close()

    async def list(
        self, path: str, kind: type[Page[T]], params: QueryParams, limit: int | None
    ) -> AsyncIterator[T]:
        """Yield the items of all pages, up to the limit."""
        left = limit
        after = params.get("after")
        while left is None or left > 0:
            page = await self.get(path, kind, {**params, "after": after, "limit": page_size(left)})
            for item in page.items:
                yield item
            left = remaining(left, page)
            after = page.next
            if after is None:
                return

    async def get(
        self, path: str, kind: type[T], params: QueryParams | None = None, *, accept: int = 200
    ) -> T:
        """Return the body of a response; `accept` is a further status that is not an error."""
        response = await self._request(HttpRequest("GET", path, params or {}), accept=accept)
        return await self._value(response, kind)

    async def send(
        self,
        method: str,
        path: str,
        value: object,
        kind: type[T],
        *,
        headers: Mapping[str, str] | None = None,
        idempotent: bool = False,
    ) -> T:
        """Send a value; return the body of the response.

        Args:
            method: HTTP method.
            path: Path of the resource.
            value: The value, encoded as JSON.
            kind: Type of the response's body.
            headers: Further headers.
            idempotent: Whether a POST may be sent twice, because it carries a key or changes
                nothing.

        Raises:
            InvalidInput: The value holds what JSON cannot, such as NaN.
        """
        # The encoder would write null for NaN, and the server could not tell.
        fault = json_fault(msgspec.to_builtins(value, str_keys=True), "the body")
        if fault is not None:
            raise InvalidInput(fault)
        request = HttpRequest(method, path, body=msgspec.json.encode(value), headers=headers or {})
        response = await self._request(request, idempotent=idempotent)
        return await self._value(response, kind)

    async def text(self, method: str, path: str, params: QueryParams, value: object) -> str:
        """Send a request, with a value as JSON unless that is None; return the body as text."""
        body = None if value is None else msgspec.json.encode(value)
        response = await self._request(HttpRequest(method, path, params, body))
        return (await self._body(response)).decode()

    async def delete(self, path: str, *, headers: Mapping[str, str] | None = None) -> None:
        """Delete a resource."""
        await self._body(await self._request(HttpRequest("DELETE", path, headers=headers or {})))

    async def _request(
        self, request: HttpRequest, *, accept: int = 200, idempotent: bool = False
    ) -> ResponseStream:
        """Send a request; retry it if it is idempotent and the server cannot answer now."""
        tries = self._retries if idempotent or request.method in _SAFE else 0
        delays = _Delays(self.timeout_seconds)
        while True:
            try:
                response = await self._exchange.send(request)
            except ConnectionFailed as error:
                if not (tries and error.unanswered):
                    raise self._unreachable(error) from error
                # A kept connection turned out to be closed by the server.
                tries -= 1
                continue
            if response.status < HTTPStatus.MULTIPLE_CHOICES or response.status == accept:
                return response
            delay = delays.next(response.header("Retry-After"))
            if not tries or response.status not in RETRYABLE or delay is None:
                raise await self._error(response)
            response.close()
            tries -= 1
            await self._exchange.pause(delay)

    async def _error(self, response: ResponseStream) -> PubsubflowError:
        body = await self._body(response)
        return error_of(self.url, response.status, response.reason, body)

    async def _value(self, response: ResponseStream, kind: type[T]) -> T:
        body = await self._body(response)
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise foreign_answer(self.url, response.status, response.reason) from error

    async def _body(self, response: ResponseStream) -> bytes:
        try:
            return await response.read()
        except ConnectionFailed as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: ConnectionFailed) -> Unavailable:
        return Unavailable(
            f"no server answers at {self.url} ({error.reason}): start one with "
            "`pubsubflow up`, or name another with --server"
        )


class _Delays:
    """The delays before retries: exponential, or longer if the server sends Retry-After.

    Args:
        seconds: The sum of all delays at most.
    """

    def __init__(self, seconds: float) -> None:
        self._left = seconds
        self._next = _FIRST_DELAY_SECONDS

    def next(self, retry_after: str | None) -> float | None:
        """Return the next delay in seconds; None if the sum would be too long."""
        delay = self._next * random.uniform(0.5, 1)  # noqa: S311 - spreads the retries of clients
        self._next *= 2
        if retry_after is not None and retry_after.isascii() and retry_after.isdecimal():
            delay = max(delay, float(retry_after))
        if delay > self._left:
            return None
        self._left -= delay
        return delay


def if_match(revision: str | None) -> dict[str, str]:
    """Return the header that restricts a change to a revision of its object."""
    return {} if revision is None else {"If-Match": f'"{revision}"'}


def quoted(text: str) -> str:
    """Return a name as a path segment."""
    return quote(text, safe="")


def page_size(left: int | None) -> int:
    """Return the number of items of the next page."""
    return _MAX_PAGE_ITEMS if left is None else max(1, min(left, _MAX_PAGE_ITEMS))


def remaining(left: int | None, page: Page[Any]) -> int | None:
    """Return how many items are left after a page; None for no limit."""
    return None if left is None else left - len(page.items)


def _address(url: str) -> str:
    """Return the URL of a server, without a slash at its end.

    Raises:
        ConfigError: The URL is invalid.
    """
    text = url.rstrip("/")
    try:
        found = urlsplit(text)
        valid = bool(found.hostname) and found.port != 0
    except ValueError:
        valid = False
    if not valid or found.scheme not in ("http", "https") or not text.isprintable() or " " in text:
        raise ConfigError(f"{url!r} is not the URL of a server: write http://127.0.0.1:8080")
    return text


def _checked_token(token: str) -> str:
    """Return a token if it can be sent in a header.

    Raises:
        ConfigError: It cannot; the text does not repeat it.
    """
    if not (token.isascii() and token.isprintable()) or not token or " " in token:
        raise ConfigError("the token is invalid: it is empty, or has characters that no token has")
    return token
