"""The Postgres connection pool: transactions, and the translation of the driver's errors."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any, NoReturn, Self, TypeAlias

import anyio
import asyncpg
import msgspec
import structlog
from asyncpg.pool import PoolConnectionProxy

from pubsubflow.errors import ConfigError, StoreConflict, StoreLocked, StoreUnavailable
from pubsubflow.model.json_values import MAX_DEPTH, is_nested_deeper, json_text
from pubsubflow.store.metrics import StoreMetrics
from pubsubflow.store.servers.array_types import declare_array_types
from pubsubflow.store.servers.hosts import WritableHost, end_when_unheard, split_hosts
from pubsubflow.store.servers.settings import PostgresSettings

log = structlog.get_logger()

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"
CLEAN_UP_SECONDS = 5.0
_TURN_SECONDS = 0.1
# A client that hangs in a transaction, or is cut off, must not hold its locks against all others.
_IDLE_IN_TRANSACTION_TIMEOUT = "5s"

_CONFLICTS = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
_UNAVAILABLE_ERRORS = (
    *_CONFLICTS,
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.PostgresSystemError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.LockNotAvailableError,
)
_REFUSED_ERRORS = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)
_MAX_DEPTH = 2 * MAX_DEPTH
"""What is mapped from a request may nest deeper than the request."""
_EXCERPT_CHARACTERS = 200
_PLANNED = "SET LOCAL plan_cache_mode = force_custom_plan"


@contextmanager
def translate_errors(refused: type[ConfigError | StoreUnavailable] = ConfigError) -> Iterator[None]:
    """Translate the driver's errors: to StoreUnavailable where a retry may help.

    Args:
        refused: The error if the server refuses the account, or does not have the database.

    Raises:
        StoreUnavailable: The server is away, starting, read-only, or out of connections or space.
        StoreLocked: A lock was waited for too long.
        StoreConflict: The transaction was ended in favour of another one.
        ConfigError: The server refuses the account, or its certificate is not trusted.
    """
    try:
        yield
    except (*_REFUSED_ERRORS, *_UNAVAILABLE_ERRORS) as error:
        _raise_translated(error, refused)


def _raise_translated(
    error: Exception, refused: type[ConfigError | StoreUnavailable] = ConfigError
) -> NoReturn:
    if isinstance(error, ssl.SSLCertVerificationError):
        raise refused(
            f"Postgres has a certificate that is not trusted ({error.verify_message}): check "
            "postgres.tls_ca_file, or sslrootcert in postgres.url, and the host's name"
        ) from error
    if isinstance(error, asyncpg.LockNotAvailableError):
        raise StoreLocked(
            "another session of Postgres holds a lock on what is read or written: end it, or wait"
        ) from error
    if isinstance(error, _CONFLICTS):
        raise StoreConflict(
            f"Postgres ended a transaction in favour of another one ({error}): try again"
        ) from error
    if isinstance(error, _REFUSED_ERRORS):
        raise refused(f"Postgres refuses the connection: {error}; check postgres.url") from error
    if isinstance(error, ValueError):  # asyncpg's InterfaceError for a URL that is none
        raise error
    reason = str(error) or type(error).__name__
    if isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError):
        reason = f"the connection broke ({reason})"
    raise StoreUnavailable(f"Postgres is out of reach: {reason}") from error


def printable(text: str) -> str:
    """Return a text with its NUL characters escaped, as Postgres does not store them."""
    return text.replace("\x00", "\\u0000")


def _json_value(text: str) -> Any:
    """Decode a JSON value; an excerpt stands for one that encoders may not take."""
    if text.count("[") + text.count("{") <= _MAX_DEPTH:
        return msgspec.json.decode(text)
    # One such row must not fail the page that it is on, or the batch. None is stored since inputs
    # are bounded, but an older version stored them, and others write into databases, too.
    with suppress(RecursionError):
        value = msgspec.json.decode(text)
        if not is_nested_deeper(value, _MAX_DEPTH):
            return value
    return {"nested_too_deeply": text[:_EXCERPT_CHARACTERS]}


async def _set_up_connection(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    end_when_unheard(connection)
    for name in ("json", "jsonb"):
        await connection.set_type_codec(
            name,
            schema="pg_catalog",
            encoder=json_text,
            decoder=_json_value,
        )
    declare_array_types(connection)


class Database:
    """A pool of connections, opened by `open`.

    Args:
        pool: The connections.
        metrics: The metrics of the pool.
        turn: Limits how many of its users have a connection, for a while.

    Attributes:
        metrics: The metrics of the pool.
    """

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        metrics: StoreMetrics,
        turn: anyio.Semaphore | None = None,
    ) -> None:
        self._pool = pool
        self._turn = turn
        self.metrics = metrics

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: PostgresSettings) -> AsyncIterator[Self]:
        """Open the pool and close it at the end.

        Raises:
            StoreUnavailable: The server does not answer within `connect_seconds`.
            ConfigError: The server refuses the account or the database.
        """
        pool = await _connect(settings)
        metrics = StoreMetrics(pool)
        try:
            yield cls(pool, metrics)
        finally:
            with anyio.move_on_after(CLEAN_UP_SECONDS, shield=True) as scope:
                await pool.close()
            if scope.cancelled_caught:
                pool.terminate()

    @cached_property
    def in_turn(self) -> "Database":
        """The same pool for loops that look for work: one after the other.

        Those of an idle daemon have their turns together, and would keep a connection each, with
        its process and some megabytes of caches. Who waits for long takes a further connection.
        """
        return Database(self._pool, self.metrics, anyio.Semaphore(1))

    def connection(self) -> AbstractAsyncContextManager[Connection]:
        """Acquire a connection; it is released cleanly even if the caller is cancelled.

        Raises:
            StoreUnavailable: Postgres is away, or refuses the account. While a password is rotated
                on both sides, that passes.
        """
        return self._acquired() if self._turn is None else self._acquired_in_turn(self._turn)

    @asynccontextmanager
    async def _acquired_in_turn(self, turn: anyio.Semaphore) -> AsyncIterator[Connection]:
        has_turn = await _has_turn(turn)
        try:
            async with self._acquired() as connection:
                yield connection
        finally:
            if has_turn:
                turn.release()

    @asynccontextmanager
    async def _acquired(self) -> AsyncIterator[Connection]:
        since = perf_counter()
        with translate_errors(refused=StoreUnavailable):
            connection = await self._pool.acquire()
        self.metrics.acquire_seconds.observe(perf_counter() - since)
        try:
            with translate_errors():
                yield connection
        finally:
            # The pool discards a connection that breaks while it is released, so errors are moot.
            with anyio.move_on_after(CLEAN_UP_SECONDS, shield=True), suppress(*_UNAVAILABLE_ERRORS):
                await self._pool.release(connection)

    @asynccontextmanager
    async def search(self, *, snapshot: bool = False) -> AsyncIterator[Connection]:
        """Acquire a connection for reading by filters: each query is planned for its parameters.

        A query whose filters may be absent has no plan that is good for all of them. After five
        executions Postgres may take one all the same, whose cost it guesses: a page of a list of
        100,000 runs then reads all of them (400 ms instead of 1 ms).

        Args:
            snapshot: Whether all queries see the same moment.
        """
        async with self.connection() as connection:
            isolation = "REPEATABLE READ" if snapshot else "READ COMMITTED"
            await connection.execute(f"BEGIN ISOLATION LEVEL {isolation}; {_PLANNED}")
            try:
                yield connection
            finally:
                with anyio.CancelScope(shield=True):
                    await _end_search(connection)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Connection]:
        """Acquire a connection for what outlives its transactions, such as locks of a session.

        At the end all of that is undone; other connections go back to the pool as they are.
        """
        async with self.connection() as connection:
            try:
                yield connection
            finally:
                with anyio.CancelScope(shield=True):
                    await _undo(connection)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Acquire a connection for one transaction: committed at the end, rolled back on error."""
        async with self.connection() as connection, begin_transaction(connection):
            yield connection

    async def in_transaction(self, work: Callable[[Connection], Awaitable[None]]) -> None:
        """Run work in a transaction; retry it when Postgres aborts it in favour of another."""
        while True:
            try:
                async with self.transaction() as connection:
                    await work(connection)
            except StoreConflict as error:
                log.info("store.transaction_retried", reason=str(error))
            else:
                return


async def _has_turn(turn: anyio.Semaphore) -> bool:
    """Wait for a turn; return False if there is none for long."""
    try:
        turn.acquire_nowait()
    except anyio.WouldBlock:
        with anyio.move_on_after(_TURN_SECONDS) as scope:
            await turn.acquire()
        return not scope.cancelled_caught
    return True


async def _undo(connection: Connection) -> None:
    """Release the locks of a session; one that has broken has none."""
    try:
        with anyio.fail_after(CLEAN_UP_SECONDS):
            await connection.reset()
    except (TimeoutError, *_UNAVAILABLE_ERRORS):
        connection.terminate()


async def _end_search(connection: Connection) -> None:
    """End the transaction of a search, whether or not a query of it failed."""
    try:
        with anyio.fail_after(CLEAN_UP_SECONDS):
            await connection.execute("COMMIT")
    except (TimeoutError, *_UNAVAILABLE_ERRORS):
        connection.terminate()


async def _leave(_: object) -> None:
    """Leave a connection as it is when it goes back to the pool.

    The driver would send four statements, after each use, to undo what only `session` allows.
    """


@asynccontextmanager
async def begin_transaction(connection: Connection) -> AsyncIterator[None]:
    """Run a transaction; its begin and commit are shielded from cancellation.

    Raises:
        StoreUnavailable: Postgres went away; the commit may have got through all the same.
    """
    try:
        # Also what is not awaited fails on a connection that broke: it went back to the pool.
        transaction = connection.transaction()
        with anyio.CancelScope(shield=True):
            await transaction.start()
        try:
            yield
        except BaseException:
            # Errors of the rollback are dropped: the error that led to it is the one to report.
            with anyio.move_on_after(CLEAN_UP_SECONDS, shield=True), suppress(*_UNAVAILABLE_ERRORS):
                if not connection.is_closed():
                    await transaction.rollback()
            raise
        with anyio.CancelScope(shield=True):
            await transaction.commit()
    except _UNAVAILABLE_ERRORS as error:
        _raise_translated(error)


async def _connect(settings: PostgresSettings) -> "asyncpg.Pool[asyncpg.Record]":
    deadline = anyio.current_time() + settings.connect_seconds
    delay = 0.02
    while True:
        try:
            with translate_errors():
                return await _open_pool(settings)
        except StoreUnavailable:
            # Postgres may still be starting, as under `up`: retried until the deadline.
            if anyio.current_time() > deadline:
                raise
            await anyio.sleep(delay)
            delay = min(delay * 2, 0.5)
        except ValueError as error:
            # Only the driver's own texts are known not to quote a part of the password.
            reason = f" ({error})" if isinstance(error, asyncpg.InterfaceError) else ""
            raise ConfigError(
                f"postgres.url cannot be read{reason}: write postgres://user@host:5432/database, "
                "and special characters as %40"
            ) from error


def _password(settings: PostgresSettings) -> str | Callable[[], str] | None:
    """Return the password, or a function that reads it anew for each connection."""
    if settings.password_file is None:
        return settings.password
    path = Path(settings.password_file).expanduser()

    def read() -> str:
        return path.read_text(encoding="utf-8").rstrip("\r\n")

    try:
        read()
    except (OSError, UnicodeDecodeError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or "it is not a text file"
        raise ConfigError(f"postgres.password_file {path} cannot be read: {reason}") from error
    return read


def _tls(settings: PostgresSettings) -> ssl.SSLContext | None:
    if settings.tls_ca_file is None and settings.tls_cert_file is None:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca_file)
        if settings.tls_cert_file is not None:
            context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file)
    except OSError as error:
        raise ConfigError(f"a TLS file for Postgres cannot be used: {error}") from error
    return context


async def _open_pool(settings: PostgresSettings) -> "asyncpg.Pool[asyncpg.Record]":
    """Open a pool and check that it works."""
    urls = split_hosts(settings.url)
    # The driver's stubs take a function alone, with exact types.
    connect: Any = {"connect": WritableHost(urls, seconds=settings.host_seconds)}
    # No minimum of connections: asyncpg would log every refused one with a traceback.
    pool: asyncpg.Pool[asyncpg.Record] = await asyncpg.create_pool(
        settings.url,
        password=_password(settings),
        ssl=_tls(settings),
        min_size=0,
        max_size=settings.pool_max_size,
        init=_set_up_connection,
        reset=_leave,
        max_inactive_connection_lifetime=30,
        server_settings={
            "application_name": "pubsubflow",
            "timezone": "UTC",
            "idle_in_transaction_session_timeout": _IDLE_IN_TRANSACTION_TIMEOUT,
            # An administrator's LOCK TABLE, or a transaction left open in a shell, must not keep
            # callers waiting: they are refused, and try again.
            "lock_timeout": f"{settings.lock_seconds * 1000:.0f}ms",
        },
        **(connect if len(urls) > 1 else {}),
    )
    try:
        await pool.release(await pool.acquire())
    except BaseException:
        pool.terminate()
        raise
    return pool
