"""The HTTP transport: sends events to the endpoint, and interprets its responses."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum
from http import HTTPStatus
from typing import Self

import aiohttp
from msgspec import Struct

from pubsubflow.lineage.settings import LineageSettings

_ACCEPTED = range(200, 300)
_REJECTED = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.CONFLICT,
        HTTPStatus.GONE,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    }
)
"""The event will never be accepted. After any other status a later attempt may succeed."""
_SHOWN_BYTES = 300


class SendResult(Enum):
    """The result of sending an event."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    UNAVAILABLE = "unavailable"


class TransportResponse(Struct, frozen=True):
    """The result of sending an event, with the reason."""

    result: SendResult
    reason: str = ""


class HttpTransport:
    """Sends events to the endpoint; see `open`.

    Args:
        session: Holds the connections.
        settings: The endpoint.
    """

    def __init__(self, session: "aiohttp.ClientSession", settings: LineageSettings) -> None:
        self._session = session
        self._url = settings.url

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: LineageSettings) -> AsyncIterator[Self]:
        """Open a transport for the length of a block."""
        headers = {"Content-Type": "application/json", "User-Agent": "pubsubflow"}
        if settings.api_key:
            headers["Authorization"] = f"Bearer {settings.api_key}"
        timeout = aiohttp.ClientTimeout(total=settings.timeout_seconds)
        async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
            yield cls(session, settings)

    async def send(self, event: bytes) -> TransportResponse:
        """Send one event and return the result."""
        try:
            # No redirects: after one the event would be sent again as a GET without a body.
            async with self._session.post(self._url, data=event, allow_redirects=False) as response:
                if response.status in _ACCEPTED:
                    return TransportResponse(SendResult.ACCEPTED)
                text = (await response.content.read(_SHOWN_BYTES)).decode(errors="replace")
        except TimeoutError:
            return TransportResponse(SendResult.UNAVAILABLE, "no answer in time")
        except (aiohttp.ClientError, OSError) as error:
            return TransportResponse(SendResult.UNAVAILABLE, str(error) or type(error).__name__)
        rejected = response.status in _REJECTED
        reason = f"{response.status} {text}".strip()
        return TransportResponse(
            SendResult.REJECTED if rejected else SendResult.UNAVAILABLE, reason
        )
