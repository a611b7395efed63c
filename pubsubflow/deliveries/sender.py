"""Sends one event to one URL, and reads no more of the answer than it has to.

Redirects are not followed and TLS is verified. Where a connection goes is checked when it is made,
against the address itself: a name that resolves to something else by then does not help.
"""

import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Self

import aiohttp
import msgspec
from aiohttp import DummyCookieJar
from msgspec.structs import replace

from pubsubflow.deliveries.settings import SubscriptionsSettings
from pubsubflow.model.cloud_events import JSON, STRUCTURED, Told, to_headers
from pubsubflow.model.subscriptions import Reply, Subscription, is_public, sign

_SHOWN_CHARACTERS = 300
_DNS_SECONDS = 10
_encode = msgspec.json.Encoder().encode


class _NotPublicError(OSError):
    """An address that a subscriber may not have."""


class Sender:
    """Sends events; see `open`.

    Args:
        session: Holds the connections.
        settings: See there.
        now: The time.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        settings: SubscriptionsSettings,
        now: Callable[[], datetime],
    ) -> None:
        self._session = session
        self._settings = settings
        self._now = now

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: SubscriptionsSettings,
        *,
        allow_private: bool,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> AsyncIterator[Self]:
        """Keep connections for the length of a block."""
        connector = aiohttp.TCPConnector(
            limit=settings.max_connections,
            ttl_dns_cache=_DNS_SECONDS,
            socket_factory=socket_of if allow_private else public_socket_of,
        )
        async with aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=settings.timeout_seconds),
            cookie_jar=DummyCookieJar(),
            headers={"User-Agent": "pubsubflow"},
            auto_decompress=False,
        ) as session:
            yield cls(session, settings, now)

    async def send(self, subscription: Subscription, told: Told, key: bytes) -> Reply:
        """Send a CloudEvent and return what came back.

        Its id and the subscription's make it known when it comes again; the key signs it.
        """
        headers, body = written(told, binary=subscription.wanted.mode == "binary")
        name = f"{told.id}_{subscription.id}"
        at = int(self._now().timestamp())
        headers |= sign(key, name, at, body)
        return await self._post(subscription.wanted.url, headers, body)

    async def _post(self, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        try:
            async with self._session.post(
                url, data=body, headers=headers, allow_redirects=False
            ) as response:
                text = await self._read(response)
        except TimeoutError:
            return Reply(None, f"no answer within {self._settings.timeout_seconds:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Reply(None, _told(error))
        reason = f"{response.status} {response.reason or ''}".strip()[:_SHOWN_CHARACTERS]
        if text:
            reason += f": {text}"
        after = read_retry_after(response.headers.get("Retry-After"), self._now())
        return Reply(response.status, reason, after)

    async def _read(self, response: aiohttp.ClientResponse) -> str:
        """Read the beginning of an answer; a longer one costs its connection."""
        data = bytearray()
        while len(data) < self._settings.max_answer_bytes:
            piece = await response.content.read(self._settings.max_answer_bytes - len(data))
            if not piece:
                break
            data += piece
        return " ".join(data.decode(errors="replace").split())[:_SHOWN_CHARACTERS]


def written(told: Told, *, binary: bool) -> tuple[dict[str, str], bytes]:
    """Return headers and body of a CloudEvent (HTTP binding 1.0.2)."""
    if binary:
        return to_headers(told) | {"Content-Type": JSON}, _encode(told.data)
    return {"Content-Type": STRUCTURED}, _encode(_spare(told))


def _spare(told: Told) -> Told:
    return told if told.data is not None else replace(told, data={})


def read_retry_after(text: str | None, now: datetime) -> float | None:
    """Return the seconds of a Retry-After header (RFC 9110 §10.2.3); None if it says nothing."""
    if text is None:
        return None
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max((moment - now).total_seconds(), 0.0)


def socket_of(found: tuple[Any, ...]) -> socket.socket:
    """Return a socket for an address."""
    family, kind, protocol, _, _ = found
    return socket.socket(family, kind, protocol)


def public_socket_of(found: tuple[Any, ...]) -> socket.socket:
    """Return a socket for an address of the internet.

    Raises:
        OSError: It is this machine's or one of its networks'.
    """
    address = found[4][0]
    if not is_public(address):
        raise _NotPublicError(
            f"{address} is no address of the internet, and subscriptions.allow_private is off"
        )
    return socket_of(found)


def _told(error: Exception) -> str:
    """Return what went wrong with a connection, in one line."""
    if isinstance(error, aiohttp.ClientConnectorError):
        inner = error.os_error
        if isinstance(inner, _NotPublicError):
            return str(inner)
        return f"{error.host}:{error.port} cannot be reached: {inner.strerror or inner}"
    return " ".join(str(error).split()) or type(error).__name__
