"""PostgreSQL triggers: wait for the result of a query, or for notifications."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import anyio
import asyncpg
import msgspec
from anyio.streams.memory import MemoryObjectReceiveStream
from msgspec import Struct

from pubsubflow.errors import DefinitionError, TriggerError
from pubsubflow.model.triggers import Trigger, TriggerContext, TriggerEvent
from pubsubflow_triggers.backoff import Backoff
from pubsubflow_triggers.checks import check_filled, check_interval, check_url
from pubsubflow_triggers.content import content
from pubsubflow_triggers.credentials import resolve_url

_SCHEMES = ("postgres", "postgresql")
_CONNECT_SECONDS = 10.0
_QUERY_SECONDS = 60.0
_CHECK_SECONDS = 60.0
_CLOSE_SECONDS = 2.0
_LONGEST_NAME = 63
# Classes of SQLSTATE: connection lost, rollback, resources, operator intervention, system error.
_TEMPORARY = ("08", "40", "53", "57", "58")


class QueryIsTrue(Trigger, frozen=True, kw_only=True):
    """Fires when the first column of a query's first row is true.

    A number counts as true if it is not 0, a string if it is not empty; no row, NULL and false do
    not. It fires once for one row: again when the row has changed, or has not been true in between.
    The query must not write. Each poll uses a connection of its own.

    Attributes:
        url: `postgres://…`, `env:NAME` or `connection:NAME`.
        query: One statement; parameters are `$1`, `$2`, …
        params: Their values in JSON; cast other types: `$1::text::timestamptz`.
        interval: Time between two polls; at least 0.1 s.

    The payload is the first row: an object of columns.
    """

    url: str
    query: str
    params: tuple[Any, ...] = ()
    interval: timedelta = timedelta(seconds=30)

    def __post_init__(self) -> None:
        """Raise DefinitionError for an invalid URL, query or interval."""
        check_url("QueryIsTrue", self.url, _SCHEMES)
        check_filled("QueryIsTrue", "query", self.query.strip())
        check_interval("QueryIsTrue", self.interval)

    def share_key(self) -> str:
        """Share one query among equal triggers."""
        return msgspec.json.encode(self).decode()

    async def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:
        """Poll without end and yield a row that is true."""
        backoff = Backoff(ctx, "postgres")
        reported = ctx.position
        while True:
            try:
                row = await self._query(ctx)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
                await _wait_or_fail(backoff, error)
                continue
            backoff.reached()
            if row is not None and row != reported:
                yield TriggerEvent(payload=row, position=row)
            reported = row
            await ctx.sleep(self.interval.total_seconds())

    async def _query(self, ctx: TriggerContext) -> dict[str, Any] | None:
        async with _connected(await resolve_url(ctx, self.url)) as connection:
            await connection.execute("BEGIN READ ONLY")
            row = await connection.fetchrow(self.query, *self.params, timeout=_QUERY_SECONDS)
        if row is None or not row[0]:
            return None
        found: dict[str, Any] = msgspec.to_builtins(dict(row), enc_hook=str)
        return found


class PostgresNotify(Trigger, frozen=True, kw_only=True):
    """Fires with each notification of a channel (`NOTIFY`, `pg_notify`).

    PostgreSQL does not store notifications: those sent while the connection is lost are lost, too.
    Where that matters, poll a table with QueryIsTrue.

    Attributes:
        url: `postgres://…`, `env:NAME` or `connection:NAME`.
        channel: Its name, case-sensitive.

    The payload is `{"channel", "data", "pid"}`: `data` is the notification's payload, decoded if it
    is JSON, and `pid` the server process that sent it.
    """

    url: str
    channel: str

    def __post_init__(self) -> None:
        """Raise DefinitionError for an invalid URL or channel."""
        check_url("PostgresNotify", self.url, _SCHEMES)
        if not 0 < len(self.channel.encode()) <= _LONGEST_NAME:
            raise DefinitionError(
                f"PostgresNotify: channel must have 1 to {_LONGEST_NAME} bytes: {self.channel!r}"
            )

    def share_key(self) -> str:
        """Share one connection among all."""
        return msgspec.json.encode(self).decode()

    async def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:
        """Listen, again when the connection is lost, and yield each notification."""
        backoff = Backoff(ctx, "postgres")
        while True:
            try:
                url = await resolve_url(ctx, self.url)
                async with (
                    _connected(url) as connection,
                    _listening(connection, self) as notifications,
                ):
                    ctx.log("postgres.listening", channel=self.channel)
                    backoff.reached()
                    while True:
                        notification = await _next(connection, notifications)
                        payload = {
                            "channel": self.channel,
                            "data": content(notification.text),
                            "pid": notification.pid,
                        }
                        yield TriggerEvent(payload=payload)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
                await _wait_or_fail(backoff, error)


class _Notification(Struct, frozen=True):
    pid: int
    text: str


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator["asyncpg.Connection[Any]"]:
    connection = await asyncpg.connect(
        url,
        timeout=_CONNECT_SECONDS,
        # A connection pooler in between may not support prepared statements.
        statement_cache_size=0,
        server_settings={"application_name": "pubsubflow-triggers"},
    )
    try:
        yield connection
    finally:
        with anyio.move_on_after(_CLOSE_SECONDS, shield=True):
            await connection.close()
        connection.terminate()


@asynccontextmanager
async def _listening(
    connection: "asyncpg.Connection[Any]", trigger: PostgresNotify
) -> AsyncIterator[MemoryObjectReceiveStream[_Notification]]:
    send, notifications = anyio.create_memory_object_stream[_Notification](math.inf)

    def forward(_connection: object, pid: int, _channel: str, text: object) -> None:
        send.send_nowait(_Notification(pid, str(text)))

    def end(_connection: object) -> None:
        send.close()

    with send, notifications:
        connection.add_termination_listener(end)
        await connection.add_listener(trigger.channel, forward)
        yield notifications


async def _next(
    connection: "asyncpg.Connection[Any]", notifications: MemoryObjectReceiveStream[_Notification]
) -> _Notification:
    """Return the next notification; check now and then that the server is still there."""
    while True:
        with anyio.move_on_after(_CHECK_SECONDS):
            try:
                return await notifications.receive()
            except anyio.EndOfStream:
                raise ConnectionResetError("the connection was closed") from None
        await connection.execute("SELECT 1", timeout=_CONNECT_SECONDS)


async def _wait_or_fail(backoff: Backoff, error: Exception) -> None:
    """Wait before the next attempt after a temporary error.

    Raises:
        TriggerError: The error is final.
    """
    state = getattr(error, "sqlstate", None) or ""
    if not isinstance(error, OSError) and state[:2] not in _TEMPORARY:
        raise TriggerError(f"PostgreSQL refuses: {error}") from error
    await backoff.failed(error)
