"""SQL hook: statements with bound parameters on PostgreSQL, SQLite and what SQLAlchemy knows."""

import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote, urlsplit

import anyio
import anyio.to_thread
from msgspec import Struct

from pubsubflow.authoring.runtime.sql_text import Parameters, numbered
from pubsubflow.errors import ConfigError, InvalidInput
from pubsubflow.hooks.connection import library
from pubsubflow.model.connections import Connection
from pubsubflow.model.lazy_import import lazy_module

if TYPE_CHECKING:
    import asyncpg
else:
    asyncpg = lazy_module("asyncpg")


class SqlRows(Struct, frozen=True):
    """What a statement returned.

    Attributes:
        columns: Their names; none for a statement that returns no rows.
        rows: At most as many as the limit.
        count: How many rows it returned or changed; None where the driver does not say.
        truncated: Whether it had more rows.
    """

    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Any, ...], ...] = ()
    count: int | None = None
    truncated: bool = False


class SqlSession(Protocol):
    """One transaction."""

    async def execute(self, sql: str, parameters: Parameters, limit: int) -> SqlRows:
        """Execute a statement, and return up to `limit` rows.

        A cancellation cancels the statement on the server.
        """


def open_sql(
    connection: Connection, statement_seconds: float | None = None
) -> AbstractAsyncContextManager[SqlSession]:
    """Open a transaction: it is committed at the end of the block, and undone if that raises.

    Args:
        connection: Of type `postgres`, `sqlite` or `sqlalchemy`.
        statement_seconds: How long one statement may take.

    Raises:
        ConfigError: The connection has no uri, or a library is missing.
    """
    if connection.uri is None:
        raise ConfigError(f"connection {connection.name!r} has no uri of a database")
    scheme = urlsplit(connection.uri).scheme
    if scheme in ("postgres", "postgresql"):
        return _open_postgres(connection, statement_seconds)
    if scheme == "sqlite":
        return _open_sqlite(connection, statement_seconds)
    return _open_sqlalchemy(connection, statement_seconds)


class _PostgresSession:
    def __init__(self, connection: "asyncpg.Connection") -> None:
        self._connection = connection

    async def execute(self, sql: str, parameters: Parameters, limit: int) -> SqlRows:
        text, values = numbered(sql, parameters)
        # asyncpg cancels the statement on the server when this task is cancelled.
        statement = await self._connection.prepare(text)
        columns = tuple(each.name for each in statement.get_attributes())
        if not columns:
            await statement.fetch(*values)
            return SqlRows(count=_changed(statement.get_statusmsg()))
        cursor = await statement.cursor(*values)
        found = await cursor.fetch(limit + 1)
        rows = tuple(tuple(row) for row in found[:limit])
        return SqlRows(columns, rows, len(rows), len(found) > limit)


def _changed(status: str | None) -> int | None:
    """Return the number at the end of `INSERT 0 3`, `UPDATE 3`."""
    last = (status or "").rpartition(" ")[2]
    return int(last) if last.isdecimal() else None


@asynccontextmanager
async def _open_postgres(
    connection: Connection, seconds: float | None
) -> AsyncIterator[SqlSession]:
    limit = "0" if seconds is None else str(max(int(seconds * 1000), 1))
    settings = {"statement_timeout": limit, "application_name": "pubsubflow"}
    timeout = float(connection.extra.get("timeout", 30))
    opened = await asyncpg.connect(connection.url, timeout=timeout, server_settings=settings)
    try:
        async with opened.transaction():
            yield _PostgresSession(opened)
    finally:
        with anyio.move_on_after(5, shield=True):
            await opened.close()


class _ThreadSession:
    """A transaction of a blocking driver: its calls run in a thread, and are interrupted.

    Args:
        call: Executes a statement, and returns what came of it.
        interrupt: Interrupts the call of another thread.
        seconds: How long one statement may take.
    """

    def __init__(
        self,
        call: Callable[[str, Parameters, int], SqlRows],
        interrupt: Callable[[], object],
        seconds: float | None,
    ) -> None:
        self._call = call
        self._interrupt = interrupt
        self._seconds = seconds

    async def execute(self, sql: str, parameters: Parameters, limit: int) -> SqlRows:
        outcome: list[SqlRows | Exception] = []

        async def interrupt_at_cancellation() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                # Not when it is done: a late one would hit the next statement.
                if not outcome:
                    self._interrupt()

        def work() -> None:
            try:
                outcome.append(self._call(sql, parameters, limit))
            except Exception as error:  # noqa: BLE001 - raised in the task below
                outcome.append(error)

        with anyio.move_on_after(self._seconds) as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(interrupt_at_cancellation)
                # Not abandoned: the connection must not be closed under the thread.
                await anyio.to_thread.run_sync(work)
                group.cancel_scope.cancel()
        found = outcome[0] if outcome else TimeoutError()
        if scope.cancel_called and isinstance(found, Exception):
            raise TimeoutError(f"the statement took longer than {self._seconds:g} s")
        if isinstance(found, Exception):
            raise found
        return found


@asynccontextmanager
async def _open_sqlite(connection: Connection, seconds: float | None) -> AsyncIterator[SqlSession]:
    path = unquote(urlsplit(connection.uri or "").path.removeprefix("/")) or ":memory:"
    timeout = float(connection.extra.get("timeout", 30))
    database = await anyio.to_thread.run_sync(
        lambda: sqlite3.connect(path, timeout=timeout, check_same_thread=False)
    )

    def call(sql: str, parameters: Parameters, limit: int) -> SqlRows:
        with closing(database.execute(sql, parameters or ())) as cursor:
            return _read(cursor, limit)

    async with _in_thread(database.commit, database.rollback, database.close):
        yield _ThreadSession(call, database.interrupt, seconds)


@asynccontextmanager
async def _open_sqlalchemy(
    connection: Connection, seconds: float | None
) -> AsyncIterator[SqlSession]:
    alchemy = library("sqlalchemy", "sqlalchemy")
    arguments = connection.extra.get("connect_args", {})
    engine = alchemy.create_engine(
        connection.url, connect_args=arguments, poolclass=alchemy.pool.NullPool
    )
    opened = await anyio.to_thread.run_sync(engine.connect)

    def call(sql: str, parameters: Parameters, limit: int) -> SqlRows:
        if parameters and not isinstance(parameters, Mapping):
            raise InvalidInput("SQLAlchemy takes named parameters: a mapping, and :name in the sql")
        result = opened.execute(alchemy.text(sql), dict(parameters or {}))
        if not result.returns_rows:
            return SqlRows(count=result.rowcount)
        found = result.fetchmany(limit + 1)
        rows = tuple(tuple(row) for row in found[:limit])
        return SqlRows(tuple(result.keys()), rows, len(rows), len(found) > limit)

    def interrupt() -> None:
        driver = opened.connection.driver_connection
        # DuckDB and SQLite interrupt, psycopg cancels; others go on until their statement ends.
        stop = getattr(driver, "interrupt", None) or getattr(driver, "cancel", None)
        if stop is not None:
            stop()

    def close() -> None:
        opened.close()
        engine.dispose()

    async with _in_thread(opened.commit, opened.rollback, close):
        yield _ThreadSession(call, interrupt, seconds)


@asynccontextmanager
async def _in_thread(
    commit: Callable[[], object], undo: Callable[[], object], close: Callable[[], object]
) -> AsyncIterator[None]:
    """Commit at the end of the block, undo if it raises, and close, each in a thread."""
    async with AsyncExitStack() as stack:
        stack.push_async_callback(_shielded, close)
        try:
            yield
        except BaseException:
            await _shielded(undo)
            raise
        await _shielded(commit)


async def _shielded(call: Callable[[], object]) -> None:
    with anyio.CancelScope(shield=True):
        await anyio.to_thread.run_sync(call)


def _read(cursor: sqlite3.Cursor, limit: int) -> SqlRows:
    if cursor.description is None:
        return SqlRows(count=max(cursor.rowcount, 0))
    found: Sequence[tuple[Any, ...]] = cursor.fetchmany(limit + 1)
    columns = tuple(each[0] for each in cursor.description)
    return SqlRows(columns, tuple(found[:limit]), len(found[:limit]), len(found) > limit)


async def check(connection: Connection) -> str:
    """Connect, and select one row."""
    async with open_sql(connection, 10.0) as sql:
        await sql.execute("SELECT 1", None, 1)
    return f"SELECT 1 on {connection.host or connection.path or 'it'}"
