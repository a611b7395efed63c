"""HTTP requests of triggers, repeated until there is a response."""

from base64 import b64encode
from codecs import BOM_UTF8
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
_UNAUTHORIZED = frozenset({401, 407})
_FINAL = (
    aiohttp.ClientConnectorCertificateError,
    aiohttp.TooManyRedirects,
    # Includes InvalidURL, and headers that cannot be sent.
    ValueError,
)
_decode = msgspec.json.Decoder().decode


class Response(Struct, frozen=True):
    """The response of a server.

    Attributes:
        status: HTTP status.
        headers: With names in lower case.
        body: Its JSON value; None if it is not JSON.
    """

    status: int
    headers: dict[str, str]
    body: Any

    def as_dict(self) -> dict[str, Any]:
        """Return its fields for payloads and conditions."""
        return {"status": self.status, "headers": self.headers, "body": self.body}

    def pause_seconds(self) -> float:
        """Return the delay of Retry-After."""
        value = self.headers.get("retry-after", "")
        return float(value) if value.isascii() and value.isdigit() else 0.0


class HttpTrigger(Trigger, frozen=True, kw_only=True):
    """The fields that HTTP triggers share; see HttpStatus for them."""

    url: str
    method: str = "GET"
    headers: dict[str, str] = {}  # noqa: RUF012 - msgspec copies it
    bearer: str | None = None
    basic: tuple[str, str] | None = None
    interval: timedelta = timedelta(seconds=30)
    timeout: timedelta = timedelta(seconds=30)
    max_failures: int = 100

    def __post_init__(self) -> None:
        """Raise DefinitionError for an invalid field."""
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
        """Share one poll among equal triggers."""
        return msgspec.json.encode(self, order="deterministic").decode()

    @asynccontextmanager
    async def requests(self, ctx: TriggerContext) -> AsyncIterator["RepeatedRequests"]:
        """Keep a connection to the server while the block lasts.

        Raises:
            TriggerError: A secret is unknown to the triggerer.
        """
        limit = aiohttp.ClientTimeout(self.timeout.total_seconds(), sock_connect=_CONNECT_SECONDS)
        url = await resolve_url(ctx, self.url)
        async with aiohttp.ClientSession(timeout=limit) as session:
            yield RepeatedRequests(self, ctx, session, urlsplit(url).netloc.rpartition("@")[2])

    async def credentials(self, ctx: TriggerContext) -> dict[str, str]:
        """Return the headers, with the present values of the secrets that they name."""
        headers: dict[str, str] = await resolve_all(ctx, self.headers)
        if self.bearer is not None:
            headers["Authorization"] = f"Bearer {await resolve(ctx, self.bearer)}"
        if self.basic is not None:
            pair = ":".join([await resolve(ctx, each) for each in self.basic])
            headers["Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
        return headers


class RepeatedRequests:
    """Requests of one trigger, repeated until there is a response.

    Args:
        trigger: The trigger, with URL, headers, interval.
        ctx: The trigger's context.
        session: The connection.
        server: Its name, for people.
    """

    def __init__(
        self, trigger: HttpTrigger, ctx: TriggerContext, session: aiohttp.ClientSession, server: str
    ) -> None:
        self._trigger = trigger
        self._ctx = ctx
        self._session = session
        self._server = server
        self._backoff = Backoff(ctx, self._server)
        self._failures = 0

    async def request(
        self,
        query: dict[str, str] | None = None,
        *,
        retried: Collection[int] = (),
        held: bool = False,
    ) -> Response:
        """Return the server's response.

        Args:
            query: Query parameters to add to the URL.
            retried: Statuses that count as a server that is away.
            held: Whether the server may hold the request: then a timeout counts as status 204.

        Raises:
            TriggerError: The request is invalid, or failed too often in a row.
        """
        while True:
            try:
                response = await self._send(query)
            except _FINAL as error:
                raise TriggerError(f"{self._server} cannot be requested: {error}") from error
            except (aiohttp.ClientError, OSError) as error:
                if not (held and type(error) is TimeoutError):
                    await self._failed(error)
                    continue
                response = Response(204, {}, None)
            if response.status not in retried:
                self._failures = 0
                self._backoff.reached()
                return response
            await self._failed(ConnectionError(f"status {response.status}"))
            await self._ctx.sleep(response.pause_seconds())

    def check_authorized(self, response: Response) -> None:
        """Raise TriggerError if the server demands other credentials."""
        if response.status in _UNAUTHORIZED:
            raise TriggerError(
                f"{self._server} responds with {response.status}: correct the trigger's bearer, "
                "basic or headers"
            )

    async def _send(self, query: dict[str, str] | None) -> Response:
        trigger = self._trigger
        url = await resolve_url(self._ctx, trigger.url)
        headers = await trigger.credentials(self._ctx)
        request = self._session.request(trigger.method, url, params=query, headers=headers)
        async with request as received:
            data = bytearray()
            async for chunk in received.content.iter_any():
                data += chunk
                if len(data) > _LONGEST_BODY_BYTES:
                    raise TriggerError(f"{self._server} responds with more than 16 MiB")
            headers = {name.lower(): value for name, value in received.headers.items()}
            return Response(received.status, headers, _body(bytes(data)))

    async def _failed(self, error: Exception) -> None:
        """Return when the next request is due.

        Raises:
            TriggerError: It failed too often in a row.
        """
        self._failures += 1
        if 0 < self._trigger.max_failures <= self._failures:
            reason = str(error) or type(error).__name__
            raise TriggerError(
                f"{self._server} did not respond {self._failures} times in a row: {reason}"
            ) from error
        await self._backoff.failed(error)


def _body(data: bytes) -> Any:
    try:
        return _decode(data.removeprefix(BOM_UTF8))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
