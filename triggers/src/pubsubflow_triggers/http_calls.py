"""Asks HTTP servers on behalf of triggers."""

from base64 import b64encode
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec
from msgspec import Struct

from pubsubflow.errors import DefinitionError, TriggerError
from pubsubflow.model.triggers import Trigger, TriggerContext
from pubsubflow_triggers.backoff import Backoff
from pubsubflow_triggers.checks import check_interval, check_url
from pubsubflow_triggers.credentials import resolve, resolve_all, resolve_url

NO_CONTENT = frozenset({204, 304})
_CONNECT_SECONDS = 30.0
_LONGEST_BODY_BYTES = 16 * 2**20
_UNKNOWN_CALLER = frozenset({401, 407})
_MISTAKES = (
    aiohttp.ClientConnectorCertificateError,
    aiohttp.TooManyRedirects,
    ValueError,  # also InvalidURL, and headers that cannot be sent
)
_decode = msgspec.json.Decoder().decode


class Answer(Struct, frozen=True):
    """What a server answered.

    Attributes:
        status: Of HTTP.
        headers: With names in small letters.
        body: Its JSON value; None if it is no JSON.
    """

    status: int
    headers: dict[str, str]
    body: Any

    def as_dict(self) -> dict[str, Any]:
        """Return it as payloads and conditions have it."""
        return {"status": self.status, "headers": self.headers, "body": self.body}

    def pause_seconds(self) -> float:
        """Return how long the server asks to be left alone."""
        value = self.headers.get("retry-after", "")
        return float(value) if value.isascii() and value.isdigit() else 0.0


class Asks(Trigger, frozen=True, kw_only=True):
    """What triggers that ask have in common; see HttpStatus for the fields."""

    url: str
    method: str = "GET"
    headers: dict[str, str] = {}  # noqa: RUF012 - msgspec copies it
    bearer: str | None = None
    basic: tuple[str, str] | None = None
    interval: timedelta = timedelta(seconds=30)
    timeout: timedelta = timedelta(seconds=30)
    max_failures: int = 100

    def __post_init__(self) -> None:
        """Raise DefinitionError for what cannot be asked."""
        kind = type(self).__name__
        check_url(kind, self.url, ("http", "https"))
        check_interval(kind, self.interval)
        if not (self.method.isascii() and self.method.isalpha() and self.method.isupper()):
            raise DefinitionError(f"{kind}: method must be like GET or HEAD, not {self.method!r}")
        if self.timeout <= timedelta(0):
            raise DefinitionError(f"{kind}: timeout must be above 0, not {self.timeout}")
        if self.max_failures < 0:
            raise DefinitionError(f"{kind}: max_failures must not be negative")
        if self.bearer is not None and self.basic is not None:
            raise DefinitionError(f"{kind}: bearer and basic cannot both be given")

    def share_key(self) -> str:
        """Let equal ones share one poll."""
        return msgspec.json.encode(self, order="deterministic").decode()

    @asynccontextmanager
    async def asking(self, ctx: TriggerContext) -> AsyncIterator["Caller"]:
        """Keep a connection to the server while the block lasts.

        Raises:
            TriggerError: A secret is not known where the trigger runs.
        """
        limit = aiohttp.ClientTimeout(self.timeout.total_seconds(), sock_connect=_CONNECT_SECONDS)
        url = await resolve_url(ctx, self.url)
        async with aiohttp.ClientSession(timeout=limit) as session:
            yield Caller(self, ctx, session, urlsplit(url).netloc.rpartition("@")[2])

    async def credentials(self, ctx: TriggerContext) -> dict[str, str]:
        """Return the headers, with the secrets that they name as these are now."""
        headers: dict[str, str] = await resolve_all(ctx, self.headers)
        if self.bearer is not None:
            headers["Authorization"] = f"Bearer {await resolve(ctx, self.bearer)}"
        if self.basic is not None:
            pair = ":".join([await resolve(ctx, each) for each in self.basic])
            headers["Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
        return headers


class Caller:
    """Asks a server, as often as it takes to get an answer.

    Args:
        asks: What to ask.
        ctx: The trigger's context.
        session: The connection.
        server: Its name, for people.
    """

    def __init__(
        self, asks: Asks, ctx: TriggerContext, session: aiohttp.ClientSession, server: str
    ) -> None:
        self._asks = asks
        self._ctx = ctx
        self._session = session
        self._server = server
        self._backoff = Backoff(ctx, self._server)
        self._failures = 0

    async def ask(
        self,
        query: dict[str, str] | None = None,
        *,
        passing: Collection[int] = (),
        held: bool = False,
    ) -> Answer:
        """Return the server's answer.

        Args:
            query: What to add to the URL.
            passing: Statuses that count as a server that is away.
            held: Whether the server may hold the question: then silence is an answer, 204.

        Raises:
            TriggerError: It cannot be asked, or was away too often in a row.
        """
        while True:
            try:
                answer = await self._ask(query)
            except _MISTAKES as error:
                raise TriggerError(f"{self._server} cannot be asked: {error}") from error
            except (aiohttp.ClientError, OSError) as error:
                if not (held and type(error) is TimeoutError):
                    await self._failed(error)
                    continue
                answer = Answer(204, {}, None)
            if answer.status not in passing:
                self._failures = 0
                self._backoff.reached()
                return answer
            await self._failed(ConnectionError(f"status {answer.status}"))
            await self._ctx.sleep(answer.pause_seconds())

    def refuse_unknown_caller(self, answer: Answer) -> None:
        """Raise TriggerError if the server asks who this is."""
        if answer.status in _UNKNOWN_CALLER:
            raise TriggerError(
                f"{self._server} answers {answer.status}: mend the trigger's bearer, basic or "
                "headers"
            )

    async def _ask(self, query: dict[str, str] | None) -> Answer:
        asks = self._asks
        url = await resolve_url(self._ctx, asks.url)
        headers = await asks.credentials(self._ctx)
        request = self._session.request(asks.method, url, params=query, headers=headers)
        async with request as response:
            data = bytearray()
            async for chunk in response.content.iter_any():
                data += chunk
                if len(data) > _LONGEST_BODY_BYTES:
                    raise TriggerError(f"{self._server} answers with more than 16 MiB")
            headers = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status, headers, _body(bytes(data)))

    async def _failed(self, error: Exception) -> None:
        """Return when it is time to ask again.

        Raises:
            TriggerError: It failed too often in a row.
        """
        self._failures += 1
        if 0 < self._asks.max_failures <= self._failures:
            reason = str(error) or type(error).__name__
            raise TriggerError(
                f"{self._server} gave no answer {self._failures} times in a row: {reason}"
            ) from error
        await self._backoff.failed(error)


def _body(data: bytes) -> Any:
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
