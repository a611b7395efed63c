"""Waiting for what HTTP servers answer."""

from collections.abc import AsyncIterator
from datetime import timedelta
from hashlib import blake2b
from typing import Any

import msgspec

from pubsubflow.errors import DefinitionError, TriggerError
from pubsubflow.model.expressions import compile_expression
from pubsubflow.model.triggers import TriggerContext, TriggerEvent
from pubsubflow_triggers.http_calls import NO_CONTENT, Answer, Asks

_PASSING = frozenset({408, 425, 429, *range(500, 600)})
_STATUSES = range(100, 600)


class HttpStatus(Asks, frozen=True, kw_only=True):
    """Fires when a server answers with one of some statuses; again after it did not in between.

    Other answers and a server that is away are waited through; 401 and 407, which no waiting
    mends, fail unless they are asked for.

    Attributes:
        url: `http://…`, `https://…`, `env:NAME` or `connection:NAME`.
        method: In capitals.
        status: Which ones; 200 when left out.
        headers: What to send. A value `env:NAME` stands for the triggerer's environment variable,
            `connection:NAME` for a connection's secret.
        bearer: Token for `Authorization`, `env:NAME` or `connection:NAME`.
        basic: User and password, each may be `env:NAME` or `connection:NAME.field`.
        interval: How long to wait between two questions; at least 0.1 s.
        timeout: How long an answer may take.
        max_failures: After so many questions in a row without an answer it fails; 0 for never.

    The payload is `{"status", "headers"}`, with names of headers in small letters.
    """

    status: frozenset[int] = frozenset({200})

    def __post_init__(self) -> None:
        """Raise DefinitionError for what is no status."""
        super().__post_init__()
        if not self.status or not all(each in _STATUSES for each in self.status):
            raise DefinitionError(
                f"HttpStatus: status must hold numbers from 100 to 599: {sorted(self.status)}"
            )

    async def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:
        """Ask at intervals, and yield an answer with such a status."""
        told = ctx.position
        async with self.asking(ctx) as server:
            while True:
                answer = await server.ask()
                if answer.status in self.status:
                    if answer.status != told:
                        payload = {"status": answer.status, "headers": answer.headers}
                        yield TriggerEvent(payload=payload, position=answer.status)
                    told = answer.status
                else:
                    server.refuse_unknown_caller(answer)
                    told = None
                await ctx.sleep(max(self.interval.total_seconds(), answer.pause_seconds()))


class HttpJson(Asks, frozen=True, kw_only=True):
    """Fires when an answer meets a condition; again with another body, or after it did not.

    Attributes:
        condition: CEL over `status`, `headers` (names in small letters) and `body`, which is null
            if it is no JSON. One that fails, as for a missing field, is not met.

    The other attributes are those of HttpStatus. The payload is `{"status", "headers", "body"}`.
    """

    condition: str

    def __post_init__(self) -> None:
        """Raise DefinitionError for what is no CEL."""
        super().__post_init__()
        compile_expression(self.condition)

    async def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:
        """Ask at intervals, and yield an answer that meets the condition."""
        told = ctx.position
        async with self.asking(ctx) as server:
            while True:
                answer = await server.ask()
                if _value(self.condition, answer) is True:
                    mark = _digest(answer.body)
                    if mark != told:
                        yield TriggerEvent(payload=answer.as_dict(), position=mark)
                    told = mark
                else:
                    server.refuse_unknown_caller(answer)
                    told = None
                await ctx.sleep(max(self.interval.total_seconds(), answer.pause_seconds()))


class HttpLongPoll(Asks, frozen=True, kw_only=True):
    """Fires with each answer of a server that holds a question until it has news.

    An answer without news is none: status 204 or 304, a question that took longer than `timeout`,
    a condition that is not met, and the cursor of the question coming back. Statuses 408, 425, 429
    and 5xx are asked again with growing pauses, other errors fail.

    Attributes:
        cursor: CEL over `status`, `headers` and `body` that gives the next question's cursor, for
            example `body.next`; None for a server that needs none.
        cursor_param: The parameter of the query in which it goes.
        start: The first question's cursor.
        condition: CEL that says whether an answer is news; any is when left out.
        interval: Least pause between two questions; at least 0.1 s.

    The other attributes are those of HttpStatus. The payload is that of HttpJson, the identity and
    the position are the answer's cursor.
    """

    cursor: str | None = None
    cursor_param: str = "cursor"
    start: str | None = None
    condition: str | None = None
    interval: timedelta = timedelta(seconds=0.1)
    timeout: timedelta = timedelta(seconds=90)

    def __post_init__(self) -> None:
        """Raise DefinitionError for what is no CEL."""
        super().__post_init__()
        for text in (self.cursor, self.condition):
            if text is not None:
                compile_expression(text)

    async def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:
        """Ask again and again, and yield each answer that is news."""
        place = self.start if ctx.position is None else ctx.position
        async with self.asking(ctx) as server:
            while True:
                query = None if place is None else {self.cursor_param: place}
                answer = await server.ask(query, passing=_PASSING, held=True)
                server.refuse_unknown_caller(answer)
                before, place = place, self._next(ctx, answer, place)
                if self._is_news(answer) and (self.cursor is None or place != before):
                    yield TriggerEvent(
                        payload=answer.as_dict(),
                        id=None if self.cursor is None else place,
                        position=place,
                    )
                await ctx.sleep(self.interval.total_seconds())

    def _next(self, ctx: TriggerContext, answer: Answer, place: str | None) -> str | None:
        """Return the cursor of an answer, or the one before if it has none."""
        if answer.status >= 400:  # noqa: PLR2004 - where errors begin
            raise TriggerError(f"{self.url} answers {answer.status}")
        if self.cursor is None or answer.status in NO_CONTENT:
            return place
        found = _value(self.cursor, answer)
        if found is None:
            ctx.log("http.no_cursor", cursor=self.cursor)
            return place
        return str(found)

    def _is_news(self, answer: Answer) -> bool:
        if answer.status in NO_CONTENT:
            return False
        return self.condition is None or _value(self.condition, answer) is True


def _value(text: str, answer: Answer) -> Any:
    """Return what an expression gives for an answer; None if it fails."""
    try:
        return compile_expression(text).execute(answer.as_dict())
    except (KeyError, TypeError, ValueError, RuntimeError, ArithmeticError, IndexError):
        return None


def _digest(body: Any) -> str:
    data = msgspec.json.encode(body, order="deterministic")
    return blake2b(data, digest_size=16).hexdigest()
