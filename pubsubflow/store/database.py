"""The connection to Postgres: pool, transactions, and the translation of its errors."""

import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from time import perf_counter
from typing import Self, TypeAlias

import anyio
import asyncpg
import msgspec
import structlog
from asyncpg.pool import PoolConnectionProxy

from pubsubflow.errors import ConfigError, StoreUnavailable
from pubsubflow.store.metrics import StoreFigures

log = structlog.get_logger()

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"
CLEAN_UP_SECONDS = 5.0
_STANDSTILL = "5s"
"""Who stands still in a transaction, or is cut off, must not hold up all others by its locks."""

_AWAY = (
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
)
_REFUSED = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)
_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")
TRANSIENT = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)


class PostgresSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where Postgres is and how many connections a daemon may hold.

    Attributes:
        url: `postgres://user@host:port/database`, also with a password and libpq's parameters such
            as `sslmode=verify-full`; empty for the daemon's own server.
        password: The user's, in place of one in `url`.
        password_file: A file with it, read for every connection.
        tls_ca_file: The authority that signed the server's certificate, which must be there, valid,
            and of the host's name.
        tls_cert_file: Our own certificate, if the server asks for one.
        tls_key_file: The key of `tls_cert_file`.
        pool_max_size: Connections at most.
        connect_seconds: How long a first connection may take, retries included.
    """

    url: str = ""
    password: str | None = None
    password_file: str | None = None
    tls_ca_file: str | None = None
    tls_cert_file: str | None = None
    tls_key_file: str | None = None
    pool_max_size: int = 12
    connect_seconds: float = 10.0

    def __repr__(self) -> str:
        return "PostgresSettings(…)"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return []


@contextmanager
def translated(refused: type[ConfigError | StoreUnavailable] = ConfigError) -> Iterator[None]:
    """Turn the driver's errors into ours: StoreUnavailable when trying again may help.

    Args:
        refused: What it is when the server refuses the account or does not have the database.

    Raises:
        StoreUnavailable: The server is away, starting, read-only, or out of connections or space.
        ConfigError: It refuses us, or is not the one that we trust.
    """
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise refused(
            f"Postgres shows a certificate that is not trusted ({error.verify_message}): check "
            "postgres.tls_ca_file, or sslrootcert in postgres.url, and the host's name"
        ) from error
    except _REFUSED as error:
        raise refused(f"Postgres refuses the connection: {error}; check postgres.url") from error
    except _AWAY as error:
        if isinstance(error, ValueError):  # asyncpg's InterfaceError for a URL that is none
            raise
        reason = str(error) or type(error).__name__
        if isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError):
            reason = f"the connection broke ({reason})"
        raise StoreUnavailable(f"Postgres is out of reach: {reason}") from error


def printable(text: str) -> str:
    """Return the text with its NUL characters, which Postgres does not store, written out."""
    return text.replace("\x00", "\\u0000")


def _json(value: object) -> str:
    text = msgspec.json.encode(value).decode()
    return _NUL.sub(r"\1\\\\u0000", text) if "\\u0000" in text else text


async def _prepare(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    for name in ("json", "jsonb"):
        await connection.set_type_codec(
            name,
            schema="pg_catalog",
            encoder=_json,
            decoder=msgspec.json.decode,
        )


class Database:
    """A pool of connections; see `open`.

    Attributes:
        figures: What it counts.
    """

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", figures: StoreFigures) -> None:
        self._pool = pool
        self.figures = figures

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: PostgresSettings) -> AsyncIterator[Self]:
        """Open the pool and close it at the end.

        Raises:
            StoreUnavailable: Nobody answers within `connect_seconds`.
            ConfigError: The server refuses the account or the database.
        """
        pool = await _connect(settings)
        figures = StoreFigures(pool)
        try:
            yield cls(pool, figures)
        finally:
            with anyio.move_on_after(CLEAN_UP_SECONDS, shield=True) as scope:
                await pool.close()
            if scope.cancelled_caught:
                pool.terminate()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Borrow a connection; it goes back whole even when the caller is cancelled.

        Raises:
            StoreUnavailable: Postgres is away, or refuses us by now: while a password is changed
                here and there, that passes.
        """
        since = perf_counter()
        with translated(refused=StoreUnavailable):
            connection = await self._pool.acquire()
        self.figures.acquire_seconds.observe(perf_counter() - since)
        try:
            with translated():
                yield connection
        finally:
            # One that breaks on its way back is thrown away by the pool: nobody is harmed.
            with anyio.move_on_after(CLEAN_UP_SECONDS, shield=True), suppress(*_AWAY):
                await self._pool.release(connection)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Borrow a connection for one transaction: committed at the end, rolled back on error."""
        async with self.connection() as connection, begin(connection):
            yield connection

    async def in_transaction(self, work: Callable[[Connection], Awaitable[None]]) -> None:
        """Do work in a transaction; start over when Postgres ends it for the sake of another."""
        while True:
            try:
                async with self.transaction() as connection:
                    await work(connection)
            except TRANSIENT as error:
                log.info("store.started_over", reason=type(error).__name__)
            else:
                return


@asynccontextmanager
async def begin(connection: Connection) -> AsyncIterator[None]:
    """Run one transaction; its start and its end are shielded from cancellation."""
    transaction = connection.transaction()
    with anyio.CancelScope(shield=True):
        await transaction.start()
    try:
        yield
    except BaseException:
        # A broken connection needs no end, and what it says then is not the story.
        with anyio.move_on_after(CLEAN_UP_SECONDS, shield=True), suppress(*_AWAY):
            if not connection.is_closed():
                await transaction.rollback()
        raise
    with anyio.CancelScope(shield=True):
        await transaction.commit()


async def _connect(settings: PostgresSettings) -> "asyncpg.Pool[asyncpg.Record]":
    deadline = anyio.current_time() + settings.connect_seconds
    delay = 0.02
    while True:
        try:
            with translated():
                return await _open_pool(settings)
        except StoreUnavailable:
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
    """Return the password, or what reads it anew for each connection."""
    if settings.password_file is None:
        return settings.password
    path = Path(settings.password_file).expanduser()

    def read() -> str:
        return path.read_text(encoding="utf-8").rstrip("\r\n")

    try:
        read()
    except (OSError, UnicodeDecodeError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or "it is no text"
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
    """Open a pool that works; with a minimum of connections it would complain of each refusal."""
    pool = await asyncpg.create_pool(
        settings.url,
        password=_password(settings),
        ssl=_tls(settings),
        min_size=0,
        max_size=settings.pool_max_size,
        init=_prepare,
        max_inactive_connection_lifetime=60,
        server_settings={
            "application_name": "pubsubflow",
            "timezone": "UTC",
            "idle_in_transaction_session_timeout": _STANDSTILL,
        },
    )
    try:
        await pool.release(await pool.acquire())
    except BaseException:
        pool.terminate()
        raise
    return pool
