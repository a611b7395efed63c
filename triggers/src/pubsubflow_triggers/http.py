"""HTTP triggers: wait for a status, for JSON, or by long polling."""

from collections.abc import AsyncIterator
from datetime import timedelta
from hashlib import blake2b
from typing import Any

import msgspec

from pubsubflow.errors import DefinitionError, TriggerError
from pubsubflow.model.cel.expressions import compile_expression
from pubsubflow.model.triggers import TriggerContext, TriggerEvent
from pubsubflow_triggers.http_requests import NO_CONTENT, HttpTrigger, Response

_RETRIED = frozenset({408, 425, 429, *range(500, 600)})
_STATUSES = range(100, 600)


class HttpStatus(HttpTrigger, frozen=True, kw_only=True):
    """Fires when a server responds with one of some statuses; again after another response.

    It waits through other responses and while the server is away; 401 and 407 fail, as waiting
    does not help, unless they are in `status`.

    Attributes:
        url: `http://…`, `https://…`, `env:NAME` or `connection:NAME`.
        method: In upper case.
        status: The statuses; 200 when left out.
        headers: Headers to send. A value `env:NAME` stands for a variable of the triggerer's
            environment, `connection:NAME` for a connection's secret.
        bearer: Token for `Authorization`, `env:NAME` or `connection:NAME`.
        basic: User and password, each may be `env:NAME` or `connection:NAME.field`.
        interval: Time between two requests; at least 0.1 s.
        timeout: Time limit of a response.
        max_failures: Number of requests in a row without a response after which it fails; 0 for
            never.

    The payload is `{"status", "headers"}`, with header names in lower case.
    """

    status: frozenset[int] = frozenset({200})

    def __post_init__(self) -> None:
        """Raise DefinitionError for an invalid status."""
        super().__post_init__()
        if not self.status or not all(each in _STATUSES for each in self.status):
            raise DefinitionError(
                f"HttpStatus: status must hold numbers from 100 to 599: {sorted(self.status)}"
            )

    async def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:
        """Poll at intervals and yield a response with such a status."""
        reported = ctx.position
        async with self.requests(ctx) as server:
            while True:
                response = await server.request()
                if response.status in self.status:
                    if response.status != reported:
                        payload = {"status": response.status, "headers": response.headers}
                        yield TriggerEvent(payload=payload, position=response.status)
                    reported = response.status
                else:
                    server.check_authorized(response)
                    reported = None
                await ctx.sleep(max(self.interval.total_seconds(), response.pause_seconds()))


class HttpJson(HttpTrigger, frozen=True, kw_only=True):
    """Fires when a response meets a condition; again with another body, or after it did not.

    Attributes:
        condition: CEL over `status`, `headers` (names in lower case) and `body`, which is null
            if it is not JSON. An expression that fails, as for a missing field, is false.

    The other attributes are those of HttpStatus. The payload is `{"status", "headers", "body"}`.
    """

    condition: str

    def __post_init__(self) -> None:
        """Raise DefinitionError for an invalid CEL expression."""
        super().__post_init__()
        compile_expression(self.condition)

    async def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:
        """Poll at intervals and yield a response that meets the condition."""
        reported = ctx.position
        async with self.requests(ctx) as server:
            while True:
                response = await server.request()
                if _value(self.condition, response) is True:
                    mark = _digest(response.body)
                    if mark != reported:
                        yield TriggerEvent(payload=response.as_dict(), position=mark)
                    reported = mark
                else:
                    server.check_authorized(response)
                    reported = None
                await ctx.sleep(max(self.interval.total_seconds(), response.pause_seconds()))


class HttpLongPoll(HttpTrigger, frozen=True, kw_only=True):
    """Fires with each response of a server that holds a request until something is new.

    These responses do not count: status 204 or 304, a request that took longer than `timeout`, a
    condition that is not met, and an unchanged cursor. Statuses 408, 425, 429 and 5xx are retried
    with growing pauses, other errors fail.

    Attributes:
        cursor: CEL over `status`, `headers` and `body` with the cursor of the next request, for
            example `body.next`; None for a server without cursors.
        cursor_param: The query parameter for the cursor.
        start: The cursor of the first request.
        condition: CEL that decides whether a response counts; any does when left out.
        interval: Least time between two requests; at least 0.1 s.

    The other attributes are those of HttpStatus. The payload is that of HttpJson, the identity and
    the position are the response's cursor.
    """

    cursor: str | None = None
    cursor_param: str = "cursor"
    start: str | None = None
    condition: str | None = None
    interval: timedelta = timedelta(seconds=0.1)
    timeout: timedelta = timedelta(seconds=90)

    def __post_init__(self) -> None:
        """Raise DefinitionError for an invalid CEL expression."""
        super().__post_init__()
        for text in (self.cursor, self.condition):
            if text is not None:
                compile_expression(text)

    async def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:
        """Poll without end and yield each new response."""
        cursor = self.start if ctx.position is None else ctx.position
        async with self.requests(ctx) as server:
            while True:
                query = None if cursor is None else {self.cursor_param: cursor}
                response = await server.request(query, retried=_RETRIED, held=True)
                server.check_authorized(response)
                before, cursor = cursor, self._next(ctx, response, cursor)
                if self._counts(response) and (self.cursor is None or cursor != before):
                    yield TriggerEvent(
                        payload=response.as_dict(),
                        id=None if self.cursor is None else cursor,
                        position=cursor,
                    )
                await ctx.sleep(self.interval.total_seconds())

    def _next(self, ctx: TriggerContext, response: Response, cursor: str | None) -> str | None:
        """Return the cursor of a response, or the previous one if it has none."""
        if response.status >= 400:  # noqa: PLR2004 - the first error status
            raise TriggerError(f"{self.url} responds with {response.status}")
        if self.cursor is None or response.status in NO_CONTENT:
            return cursor
        found = _value(self.cursor, response)
        if found is None:
            ctx.log("http.no_cursor", cursor=self.cursor)
            return cursor
        return str(found)

    def _counts(self, response: Response) -> bool:
        if response.status in NO_CONTENT:
            return False
        return self.condition is None or _value(self.condition, response) is True


def _value(text: str, response: Response) -> Any:
    """Return the value of an expression over a response; None if it fails."""
    try:
        return compile_expression(text).execute(response.as_dict())
    except (KeyError, TypeError, ValueError, RuntimeError, ArithmeticError, IndexError):
        return None


def _digest(body: Any) -> str:
    data = msgspec.json.encode(body, order="deterministic")
    return blake2b(data, digest_size=16).hexdigest()
