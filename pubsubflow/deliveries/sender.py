"""The HTTP sender posts one event to one URL and reads a bounded part of the answer.

Redirects are not followed and TLS is verified. Whether an address is allowed is checked when the
connection is made, against the resolved address: DNS rebinding gains nothing.
"""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Self

import aiohttp
import anyio
import msgspec
from anyio import to_thread
from msgspec.structs import replace

from pubsubflow.deliveries.settings import DeliverySettings
from pubsubflow.model.cloud_events import JSON, STRUCTURED, CloudEvent, to_headers
from pubsubflow.model.subscriptions import EventSubscription, ReceiverReply, is_public, sign

_SHOWN_CHARACTERS = 300
_DNS_SECONDS = 10
_encode = msgspec.json.Encoder().encode


class _NotPublicError(OSError):
    """The address is not on the internet, and private ones are not allowed."""


class Sender:
    """Sends events; see `open`.

    Args:
        session: Returns the session that holds the connections, opened for the first event.
        settings: Limits and timeouts.
        now: Returns the current time.
    """

    def __init__(
        self,
        session: Callable[[], Awaitable["aiohttp.ClientSession"]],
        settings: DeliverySettings,
        now: Callable[[], datetime],
    ) -> None:
        self._session = session
        self._settings = settings
        self._now = now

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: DeliverySettings,
        *,
        allow_private: Callable[[], bool],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> AsyncIterator[Self]:
        """Return a sender whose connection pools close when the block ends."""
        async with AsyncExitStack() as stack:
            pools: dict[bool, aiohttp.ClientSession] = {}
            opening = anyio.Lock()

            async def session() -> "aiohttp.ClientSession":
                # Two pools: once private addresses are refused, no open connection to one may be
                # used.
                private = allow_private()
                async with opening:
                    if private not in pools:
                        # In a thread: its first use imports it.
                        await to_thread.run_sync(getattr, aiohttp, "ClientSession")
                        pool = _session(settings, socket_of if private else public_socket_of)
                        pools[private] = await stack.enter_async_context(pool)
                return pools[private]

            yield cls(session, settings, now)

    async def send(
        self, subscription: EventSubscription, event: CloudEvent, key: bytes
    ) -> ReceiverReply:
        """Send a CloudEvent, signed with the key, and return the receiver's reply."""
        headers, body = encoded(event, binary=subscription.spec.mode == "binary")
        # The same for every attempt, so that receivers recognise a repeated delivery.
        message_id = f"{event.id}_{subscription.id}"
        at = int(self._now().timestamp())
        headers |= sign(key, message_id, at, body)
        return await self._post(subscription.spec.url, headers, body)

    async def _post(self, url: str, headers: Mapping[str, str], body: bytes) -> ReceiverReply:
        try:
            session = await self._session()
            async with session.post(
                url, data=body, headers=headers, allow_redirects=False
            ) as response:
                text = await self._read(response)
        except TimeoutError:
            return ReceiverReply(None, f"no answer within {self._settings.timeout_seconds:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return ReceiverReply(None, _reason(error))
        reason = f"{response.status} {response.reason or ''}".strip()[:_SHOWN_CHARACTERS]
        if text:
            reason += f": {text}"
        after = read_retry_after(response.headers.get("Retry-After"), self._now())
        return ReceiverReply(response.status, reason, after)

    async def _read(self, response: "aiohttp.ClientResponse") -> str:
        """Read the beginning of an answer, as one line of text.

        A longer answer is not drained, so its connection cannot be used again.
        """
        data = bytearray()
        while len(data) < self._settings.max_answer_bytes:
            chunk = await response.content.read(self._settings.max_answer_bytes - len(data))
            if not chunk:
                break
            data += chunk
        return " ".join(data.decode(errors="replace").split())[:_SHOWN_CHARACTERS]


def _session(
    settings: DeliverySettings, make_socket: Callable[[tuple[Any, ...]], socket.socket]
) -> "aiohttp.ClientSession":
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=settings.max_connections,
            ttl_dns_cache=_DNS_SECONDS,
            socket_factory=make_socket,
        ),
        timeout=aiohttp.ClientTimeout(total=settings.timeout_seconds),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "pubsubflow"},
        auto_decompress=False,
    )


def encoded(event: CloudEvent, *, binary: bool) -> tuple[dict[str, str], bytes]:
    """Return headers and body of a CloudEvent (HTTP binding 1.0.2)."""
    if binary:
        return to_headers(event) | {"Content-Type": JSON}, _encode(event.data)
    return {"Content-Type": STRUCTURED}, _encode(_with_data(event))


def _with_data(event: CloudEvent) -> CloudEvent:
    """Return an event whose `data` is not omitted, as it would be if it were None."""
    return event if event.data is not None else replace(event, data={})


def read_retry_after(text: str | None, now: datetime) -> float | None:
    """Return the seconds of a Retry-After header (RFC 9110 §10.2.3); None if it is malformed."""
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
        OSError: It belongs to this machine or one of its networks.
    """
    address = found[4][0]
    if not is_public(address):
        raise _NotPublicError(
            f"{address} is not a public address, and subscriptions.allow_private is off"
        )
    return socket_of(found)


def _reason(error: Exception) -> str:
    """Return why a request failed, in one line."""
    if isinstance(error, aiohttp.ClientConnectorError):
        inner = error.os_error
        if isinstance(inner, _NotPublicError):
            return str(inner)
        return f"{error.host}:{error.port} cannot be reached: {inner.strerror or inner}"
    return " ".join(str(error).split()) or type(error).__name__
