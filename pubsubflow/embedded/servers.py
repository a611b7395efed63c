"""The embedded servers of a home: started together, restarted when one dies."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from math import inf
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypeVar

import anyio
import msgspec
import structlog
from anyio.abc import TaskStatus

from pubsubflow.embedded.binaries import CACHE
from pubsubflow.embedded.home import Home, HomeOwner
from pubsubflow.embedded.nats_server import NatsAddress, NatsServer
from pubsubflow.embedded.postgres_server import PostgresAddress, PostgresServer
from pubsubflow.embedded.watchdog import watch_server
from pubsubflow.errors import ConfigError
from pubsubflow.exit_codes import describe_exit

log = structlog.get_logger(__name__)

_STABLE_SECONDS = 30.0  # a server that ran this long is restarted without a pause
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 10.0
_MAINTAIN_SECONDS = 60.0
# Above the sum of each server's own time limits.
_STOP_SECONDS = 20.0

_T = TypeVar("_T")


class _Server(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def pid(self) -> int | None: ...

    @property
    def launched(self) -> anyio.Event: ...

    async def start(self) -> None: ...

    async def wait(self) -> int: ...

    async def stop(self) -> None: ...

    def maintain(self) -> None: ...

    async def answers(self) -> bool: ...

    def fault(self) -> str | None: ...

    async def end(self, *, hangs: bool) -> None: ...


def _utc_now() -> datetime:
    return datetime.now(UTC)


class EmbeddedServers:
    """NATS and Postgres of one home, as a context manager: started on entry, stopped on exit.

    ::

        async with EmbeddedServers(home) as servers:
            await group.start(servers.run, stopping)
            connect(servers.nats.url, servers.nats.token)

    Enter it on the daemon's main thread: the servers die with the thread that started them.

    Args:
        home: The home folder; created if missing.
        nats_port: Port for NATS; if None a free one, kept across restarts.
        cache: Folder for copies of the binaries, if Postgres' account needs them.
        now: The time, with a zone.
        meanwhile: Called once a process of each server runs, while they get ready; may block.
    """

    name = "embedded"

    def __init__(
        self,
        home: Path,
        *,
        nats_port: int | None = None,
        cache: Path = CACHE,
        now: Callable[[], datetime] = _utc_now,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> None:
        self._home = Home(home)
        self._requested_nats_port = nats_port
        self._cache = cache
        self._now = now
        self._meanwhile = meanwhile
        self._owner: HomeOwner | None = None
        self._nats: NatsServer | None = None
        self._postgres: PostgresServer | None = None
        self._stalled_seconds: Callable[[], float] = float
        self._unanswered_seconds: Callable[[], float] = lambda: inf

    @property
    def nats(self) -> NatsAddress:
        """The address of NATS, the same as long as the home is held."""
        return _started(self._nats).address

    @property
    def postgres(self) -> PostgresAddress:
        """The address of Postgres, the same as long as the home is held."""
        return _started(self._postgres).address

    @property
    def nats_pid(self) -> int | None:
        """The process id of NATS; None while it does not run."""
        return _started(self._nats).pid

    @property
    def postgres_pid(self) -> int | None:
        """The process id of the postmaster; None while it does not run."""
        return _started(self._postgres).pid

    async def __aenter__(self) -> Self:
        """Acquire the home, start both servers concurrently and wait until they are ready.

        Raises:
            ConfigError: The home is held or unusable, or a server does not start.
        """
        self._owner = HomeOwner(pid=os.getpid(), started_at=self._now())
        await self._home.acquire(self._owner)
        try:
            secrets = self._home.secrets()
            self._nats = NatsServer(self._home, secrets.nats_token, self._requested_nats_port)
            self._postgres = PostgresServer(self._home, secrets.postgres_password, self._cache)
            # The one first that takes longer.
            await _start(self._postgres, self._nats, meanwhile=self._meanwhile)
        except BaseException:
            await self._stop()
            raise
        log.info(
            "embedded.started",
            home=str(self._home.path),
            nats_pid=self._nats.pid,
            postgres_pid=self._postgres.pid,
            nats_url=self._nats.address.url,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop both servers and release the home, also under cancellation."""
        await self._stop()
        log.info("embedded.stopped", home=str(self._home.path))

    def announce(
        self, url: str, *, token: str | None = None, certificate: Path | None = None
    ) -> None:
        """Publish the URL of this daemon's HTTP server in the home, for `read_owner`.

        Args:
            url: Such as ``"http://127.0.0.1:8080"``.
            token: For commands of the home's owner.
            certificate: File of the server's certificate.

        Raises:
            ConfigError: The home cannot be written.
        """
        owner = msgspec.structs.replace(
            _started(self._owner),
            url=url,
            token=token,
            certificate=None if certificate is None else str(certificate.absolute()),
        )
        self._home.write_owner(owner)

    def watch_streams(self, stalled_seconds: Callable[[], float]) -> None:
        """Have NATS started again when it stores nothing.

        Args:
            stalled_seconds: For how long JetStream has not stored what was sent to it.
        """
        self._stalled_seconds = stalled_seconds

    def watch_answers(self, unanswered_seconds: Callable[[], float]) -> None:
        """Have servers that answer this daemon probed more rarely.

        Args:
            unanswered_seconds: How long ago both have answered.
        """
        self._unanswered_seconds = unanswered_seconds

    async def run(
        self,
        stopping: anyio.Event,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Restart a server that dies or hangs, at its old address, until stopping is set.

        The servers themselves are stopped at the end of the context, after their clients.
        """
        nats, postgres = _started(self._nats), _started(self._postgres)
        async with anyio.create_task_group() as group:
            for server in (nats, postgres):
                group.start_soon(_restart_on_exit, server, name=f"restart {server.name}")
            group.start_soon(_maintain, nats, postgres, name="maintain servers")
            answered = self._unanswered_seconds
            group.start_soon(
                partial(watch_server, nats, self._nats_stalled_seconds, unanswered_seconds=answered)
            )
            group.start_soon(partial(watch_server, postgres, unanswered_seconds=answered))
            task_status.started()
            await stopping.wait()
            group.cancel_scope.cancel()

    def _nats_stalled_seconds(self) -> float:
        # On a full disk a new start would help nothing, and might not succeed.
        return self._stalled_seconds() if _started(self._nats).has_space else 0.0

    async def _stop(self) -> None:
        try:
            with anyio.move_on_after(_STOP_SECONDS, shield=True):
                async with anyio.create_task_group() as group:
                    for server in (self._nats, self._postgres):
                        if server:
                            group.start_soon(server.stop)
        finally:
            self._home.release()


async def _start(*servers: _Server, meanwhile: Callable[[], object]) -> None:
    """Start servers concurrently; of several errors the first is raised."""
    try:
        async with anyio.create_task_group() as group:
            for server in servers:
                group.start_soon(server.start)
            for server in servers:
                await server.launched.wait()
            meanwhile()
    except BaseExceptionGroup as failures:
        refused, rest = failures.split(ConfigError)
        if refused is None or rest is not None:
            raise
        raise _first(refused) from None


def _first(group: BaseExceptionGroup[ConfigError]) -> ConfigError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


async def _restart_on_exit(server: _Server) -> None:
    """Restart a server whenever it exits; without a pause if it ran for long."""
    pause = 0.0
    while True:
        since = anyio.current_time()
        pid, code = server.pid, await server.wait()
        log.error("embedded.server_exited", server=server.name, pid=pid, exit=describe_exit(code))
        if anyio.current_time() - since >= _STABLE_SECONDS:
            pause = 0.0
        pause = await _restart(server, pause)


async def _restart(server: _Server, pause: float) -> float:
    """Start a server until that succeeds; return the pause in seconds before the next restart."""
    while True:
        await anyio.sleep(pause)
        pause = min(max(2 * pause, _FIRST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
        try:
            await server.start()
        except ConfigError as error:
            log.error(  # noqa: TRY400 - the error is one line with its remedy
                "embedded.restart_failed", server=server.name, error=str(error), retry_seconds=pause
            )
        else:
            log.info("embedded.server_restarted", server=server.name, pid=server.pid)
            return pause


async def _maintain(*servers: _Server) -> None:
    while True:
        await anyio.sleep(_MAINTAIN_SECONDS)
        for server in servers:
            try:
                server.maintain()
            except OSError as error:
                log.warning("embedded.maintain_failed", server=server.name, error=str(error))


def _started(value: _T | None) -> _T:
    if value is None:
        raise RuntimeError("the servers are not started: enter the context first")
    return value
