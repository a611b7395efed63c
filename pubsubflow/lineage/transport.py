"""The endpoint that takes events over HTTP, and what its answers mean."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum
from http import HTTPStatus
from typing import Self

import aiohttp
from msgspec import Struct

from pubsubflow.lineage.settings import LineageSettings

_TAKEN = range(200, 300)
_REFUSED = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.CONFLICT,
        HTTPStatus.GONE,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    }
)
"""It will never take this event. All other answers may change: who asks, where, or how often."""
_SHOWN_BYTES = 300


class Verdict(Enum):
    """What became of an event."""

    TAKEN = "taken"
    REFUSED = "refused"
    AWAY = "away"


class Answer(Struct, frozen=True):
    """What became of an event, and why."""

    verdict: Verdict
    reason: str = ""


class Endpoint:
    """Sends events; see `open`.

    Args:
        session: Holds the connections.
        settings: Where to.
    """

    def __init__(self, session: aiohttp.ClientSession, settings: LineageSettings) -> None:
        self._session = session
        self._url = settings.url

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: LineageSettings) -> AsyncIterator[Self]:
        """Keep connections for the length of a block."""
        headers = {"Content-Type": "application/json", "User-Agent": "pubsubflow"}
        if settings.api_key:
            headers["Authorization"] = f"Bearer {settings.api_key}"
        timeout = aiohttp.ClientTimeout(total=settings.timeout_seconds)
        async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
            yield cls(session, settings)

    async def post(self, event: bytes) -> Answer:
        """Send one event and return what became of it."""
        try:
            async with self._session.post(self._url, data=event, allow_redirects=False) as response:
                if response.status in _TAKEN:
                    return Answer(Verdict.TAKEN)
                text = (await response.content.read(_SHOWN_BYTES)).decode(errors="replace")
        except TimeoutError:
            return Answer(Verdict.AWAY, "no answer in time")
        except (aiohttp.ClientError, OSError) as error:
            return Answer(Verdict.AWAY, str(error) or type(error).__name__)
        refused = response.status in _REFUSED
        reason = f"{response.status} {text}".strip()
        return Answer(Verdict.REFUSED if refused else Verdict.AWAY, reason)
